"""The cluster heals itself: what is killed comes back, with another address, and answers.

All in one process, in lab time: five minutes pass in none. What that means to requests that are under way is in
`test_service_healing.py`.
"""

from __future__ import annotations

import time

import pytest

from emunet.cluster.load import BadInput
from emunet.testing import Lab

HOSTS = (
    "apiVersion: emunet/v1\nkind: Topology\nmetadata: {name: lab}\nspec: {hosts: [host1, host2, host3], dns: false}\n"
)

WEB = """apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - {name: web, image: "nginx:1", ports: [{containerPort: 80, name: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {containers: [{name: c, image: busybox}]}
"""


@pytest.fixture
def lab() -> Lab:
    """Three hosts with one Deployment, its Service and a client; every frame is accounted for at the end."""
    with Lab(HOSTS + "---\n" + WEB) as lab:
        yield lab
        assert set(lab.plane.balance().values()) == {0}


def web_pods(lab: Lab) -> list[str]:
    """The names of the pods of the Deployment."""
    return [pod.name for pod in lab.pods if pod.labels.get("app") == "web"]


def endpoints(lab: Lab) -> set[str]:
    """The addresses behind the Service."""
    subsets = lab.get("endpoints", "web").get("subsets", [])
    return {one["ip"] for subset in subsets for one in subset.get("addresses", [])}


def test_one_file_is_a_whole_application(lab: Lab) -> None:
    """A Deployment's pods are spread, answer, and are behind their Service."""
    pods = web_pods(lab)
    assert len(pods) == 3
    assert {lab.pod(name).host for name in pods} == {"host1", "host2", "host3"}
    assert all(lab.ping("client", name) for name in pods)
    assert endpoints(lab) == {lab.pod(name).ip for name in pods}
    status = lab.get("deploy", "web")["status"]
    assert (status["readyReplicas"], status["updatedReplicas"], status["observedGeneration"]) == (3, 3, 1)


@pytest.mark.rule("OBJ-03", element="replication")
def test_a_killed_pod_is_replaced_with_another_name_and_address(lab: Lab) -> None:
    address = lab.get("service", "web")["spec"]["clusterIP"]
    before = set(web_pods(lab))
    victim = min(before)
    old = lab.pod(victim).ip
    lab.delete("pod", victim)
    (new,) = set(web_pods(lab)) - before
    assert lab.pod(new).ip != old
    assert lab.ping("client", new)
    assert not lab.ping("client", old)
    assert lab.pod(new).ip in endpoints(lab)
    assert old not in endpoints(lab)
    assert lab.get("service", "web")["spec"]["clusterIP"] == address


def test_scale_up_and_down_and_to_nothing(lab: Lab) -> None:
    for number in (5, 1, 0, 2):
        lab.scale("deployment", "web", number)
        assert len(web_pods(lab)) == number
        assert len(endpoints(lab)) == number
    assert all(lab.ping("client", name) for name in web_pods(lab))


def test_a_host_that_loses_power_loses_its_pods_after_five_minutes(lab: Lab) -> None:
    """NotReady after 40 s; its pod leaves the Service then, and is made elsewhere 300 s later."""
    name = next(pod for pod in web_pods(lab) if lab.pod(pod).host != lab.pod("client").host)
    host, address = lab.pod(name).host, lab.pod(name).ip
    lab.power(host, on=False)
    assert not lab.ping("client", address)
    lab.clock.advance(25)
    assert condition(lab, host) == "True"
    assert address in endpoints(lab)
    lab.clock.advance(10)
    assert condition(lab, host) == "Unknown"
    assert address not in endpoints(lab)
    assert len(endpoints(lab)) == 2
    lab.clock.advance(310)
    assert len(endpoints(lab)) == 3
    assert all(lab.pod(pod).host != host for pod in web_pods(lab))
    assert all(lab.ping("client", pod) for pod in web_pods(lab))
    assert lab.get("pod", name)["metadata"]["deletionTimestamp"]  # nobody can tell whether it has ended
    lab.power(host, on=True)
    lab.clock.advance(1)
    assert condition(lab, host) == "True"
    with pytest.raises(KeyError):
        lab.get("pod", name)
    assert len(web_pods(lab)) == 3


def test_a_node_that_was_deleted_comes_again_with_the_power_of_its_host(lab: Lab) -> None:
    """Its pods go at once and are made elsewhere; its kubelet makes itself known as it begins."""
    host = lab.pod(web_pods(lab)[0]).host
    lab.delete("node", host)
    assert host not in {lab.pod(pod).host for pod in web_pods(lab)}
    assert len(endpoints(lab)) == 3
    with pytest.raises(KeyError):
        lab.get("lease", host, "kube-node-lease")
    lab.power(host, on=False)
    lab.power(host, on=True)
    assert condition(lab, host) == "True"
    assert lab.get("lease", host, "kube-node-lease")["metadata"]["ownerReferences"][0]["kind"] == "Node"
    lab.scale("deployment", "web", 6)
    assert host in {lab.pod(pod).host for pod in web_pods(lab)}


def condition(lab: Lab, host: str) -> str:
    """What a node's Ready condition says."""
    conditions = lab.get("node", host)["status"]["conditions"]
    return str(next(one["status"] for one in conditions if one["type"] == "Ready"))


def test_a_rollout_replaces_every_pod_and_never_leaves_too_few(lab: Lab) -> None:
    before = set(web_pods(lab))
    lab.apply(WEB.replace("nginx:1", "nginx:2"))
    after = set(web_pods(lab))
    assert len(after) == 3
    assert not before & after
    sets = {one["metadata"]["annotations"]["deployment.kubernetes.io/revision"]: one for one in lab.objects("rs")}
    assert [sets[number]["spec"]["replicas"] for number in ("1", "2")] == [0, 3]
    assert len(endpoints(lab)) == 3


def test_deleting_the_deployment_ends_all_of_it(lab: Lab) -> None:
    lab.delete("deploy", "web")
    assert web_pods(lab) == []
    assert lab.objects("rs") == []
    assert endpoints(lab) == set()
    assert [pod.name for pod in lab.pods] == ["client"]


def test_bad_input_changes_nothing(lab: Lab) -> None:
    version = lab.store.version
    with pytest.raises(BadInput, match="does not match template") as error:
        lab.apply(
            WEB.replace("matchLabels: {app: web}", "matchLabels: {app: wed}").replace("replicas: 3", "replicas: 9")
        )
    assert error.value.problems[0].line > 1
    with pytest.raises(BadInput, match=r'unknown field "spec.template.spec.containers\[0\].imag'):
        lab.apply(WEB.replace('image: "nginx:1"', "imag: x"))
    assert lab.store.version == version
    assert len(web_pods(lab)) == 3


def test_the_same_seed_gives_the_same_names() -> None:
    with Lab(HOSTS + "---\n" + WEB) as one, Lab(HOSTS + "---\n" + WEB) as other:
        assert [(pod.name, pod.ip) for pod in one.pods] == [(pod.name, pod.ip) for pod in other.pods]
    with Lab(HOSTS + "---\n" + WEB, seed=1) as another:
        assert web_pods(one) != web_pods(another)


@pytest.mark.slow
def test_a_thousand_pods_over_twenty_hosts() -> None:
    """Ready within 20 s of ours (1.2 s on two idle cores), each with an address of its own, and all in one Service."""
    hosts = ", ".join(f"host{number}" for number in range(1, 21))
    with Lab(HOSTS.replace("host1, host2, host3", hosts)) as big:
        began = time.thread_time()
        big.apply(WEB.replace("replicas: 3", "replicas: 1000"))
        took = time.thread_time() - began  # of the processor: others may be at work
        print(f"a thousand pods over twenty hosts are ready after {took:.1f} s")
        assert big.get("deploy", "web")["status"]["readyReplicas"] == 1000
        assert len(endpoints(big)) == 1000
        assert big.ping("client", web_pods(big)[-1])
        assert took < 20
