"""Controllers, each by what it makes of objects. Pods are "built" by telling the control plane their facts.

Nothing runs and nothing waits: time is a number.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import yaml

from emunet.cluster.build import build
from emunet.cluster.control_plane import ControlPlane
from emunet.cluster.controllers import replication
from emunet.cluster.controllers.disruptions import refusal
from emunet.cluster.controllers.kubelet import ContainerFact, PodFact
from emunet.cluster.controllers.pods import pod_key
from emunet.cluster.load import BadInput, load_text

Object = dict[str, Any]

SECOND = 1_000_000_000
TOPOLOGY = (
    "apiVersion: emunet/v1\nkind: Topology\nmetadata: {name: lab}\nspec: {hosts: [host1, host2, host3], dns: false}\n"
)
TEMPLATE = (
    "{metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: nginx, ports: [{containerPort: 80}]}]}}"
)
SELECTOR = "selector: {matchLabels: {app: web}}"


class Cluster:
    """A control plane whose pods are there and ready as soon as they are bound, unless their names are in `stuck`."""

    def __init__(self) -> None:
        self.plane = ControlPlane(build(load_text(TOPOLOGY)).cluster)
        self.store = self.plane.store
        self.now = 0
        self.stuck: set[str] = set()
        self.codes: dict[str, int] = {}
        self.unready: set[str] = set()
        self._given = 1

    def apply(self, text: str) -> None:
        """Objects of a text."""
        self.plane.apply(load_text(text), self.now)
        self.settle()

    def settle(self) -> None:
        """Let the controllers work until nothing is left to do."""
        while True:
            pods = self.plane.settle(self.now)
            facts: dict[str, PodFact | None] = {}
            for pod in pods:
                known = self.plane.kubelet.facts.get(pod.uid)
                if known is None and pod.name not in self.stuck:
                    self._given += 1
                    known = PodFact((f"10.0.{self._given // 250}.{self._given % 250 + 1}",), self.now)
                if known is not None and pod.name in self.codes:
                    ended = ContainerFact("terminated", False, code=self.codes[pod.name], program=True)
                    known = PodFact(known.addresses, known.since, {"c": ended})
                if known is not None:
                    waiting = {"c": ContainerFact("running", False, program=True)} if pod.name in self.unready else None
                    facts[pod.uid] = known if waiting is None else PodFact(known.addresses, known.since, waiting)
            for item in self.plane.ending():
                facts[item["metadata"]["uid"]] = PodFact((), 0, stopped=True)
            if not self.plane.tell(facts):
                return

    def advance(self, seconds: float) -> None:
        """Let time pass; what is due on the way is done when it is due."""
        target = self.now + int(seconds * SECOND)
        while (due := self.plane.due()) is not None and due <= target:
            self.now = max(due, self.now)
            self.settle()
        self.now = target

    def request(self) -> Any:
        """A request of a client, now."""
        return self.plane.request(self.now)

    def delete(self, word: str, name: str, namespace: str = "default", **how: Any) -> None:
        """A client's DELETE."""
        self.request().delete(self.plane.find(word), namespace, name, **how)
        self.settle()

    def patch(self, word: str, name: str, patch: Object) -> None:
        """A client's merge patch."""
        self.request().patch(self.plane.find(word), "default", name, patch, "merge")
        self.settle()

    def get(self, word: str, name: str, namespace: str = "default") -> Object:
        """An object that must be there."""
        kind = self.plane.find(word)
        found = self.store.get(kind.resource, namespace if kind.namespaced else "", name)
        assert found is not None, f"no {word} {name}"
        return found

    def names(self, word: str, namespace: str = "default") -> list[str]:
        """The names of a kind's objects, sorted."""
        return [one["metadata"]["name"] for one in self.store.select(self.plane.find(word).resource, namespace)]

    def reasons(self, name: str) -> Counter[str]:
        """The reasons of the events about an object."""
        return Counter(one["reason"] for one in self.store.select("events") if one["involvedObject"]["name"] == name)


@pytest.fixture
def cluster() -> Cluster:
    """Three hosts."""
    return Cluster()


# Replication


def controller(replicas: int = 3) -> str:
    """A ReplicationController `web`."""
    spec = f"{{replicas: {replicas}, selector: {{app: web}}, template: {TEMPLATE}}}"
    return f"apiVersion: v1\nkind: ReplicationController\nmetadata: {{name: web}}\nspec: {spec}\n"


BARE = """apiVersion: v1
kind: Pod
metadata: {name: bare, labels: {app: web}}
spec: {containers: [{name: c, image: x}]}
"""


@pytest.mark.rule("OBJ-01", element="replication")
def test_a_bare_pod_that_matches_is_adopted(cluster: Cluster) -> None:
    cluster.apply(BARE)
    cluster.apply(controller())
    assert len(cluster.names("pods")) == 3
    (owner,) = cluster.get("pod", "bare")["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["controller"]) == ("ReplicationController", "web", True)


@pytest.mark.rule("OBJ-02", element="replication")
def test_a_pod_that_matches_no_longer_is_let_go_and_replaced(cluster: Cluster) -> None:
    cluster.apply(controller())
    cluster.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{port: 80}]}"
    )
    name = cluster.names("pods")[0]
    cluster.patch("pod", name, {"metadata": {"labels": {"app": "out"}}})
    assert len(cluster.names("pods")) == 4
    assert "ownerReferences" not in cluster.get("pod", name)["metadata"]
    (subset,) = cluster.get("endpoints", "web")["subsets"]
    assert name not in {one["targetRef"]["name"] for one in subset["addresses"]}
    assert len(subset["addresses"]) == 3


def pod(name: str, node: str = "h1", ready: str = "", created: str = "1", restarts: int = 0) -> Object:
    """A pod as the choice of victims sees it; `ready` is since when."""
    conditions = [{"type": "Ready", "status": "True", "lastTransitionTime": ready}] if ready else []
    return {
        "metadata": {"name": name, "creationTimestamp": created, "resourceVersion": "1"},
        "spec": {"nodeName": node} if node else {},
        "status": {
            "phase": "Running" if ready or restarts else "Pending",
            "conditions": conditions,
            "containerStatuses": [{"restartCount": restarts}],
        },
    }


@pytest.mark.rule("OBJ-04", element="victims")
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pod("unassigned", node=""), pod("pending")),
        (pod("pending"), pod("unready", restarts=1)),
        (pod("unready", restarts=1), pod("ready", ready="1")),
        (pod("young", ready="2"), pod("old", ready="1")),
        (pod("restarted", ready="1", restarts=3), pod("steady", ready="1")),
        (pod("newest", ready="1", created="2"), pod("oldest", ready="1")),
    ],
)
def test_which_pod_goes_first(first: Object, second: Object) -> None:
    assert replication.victims([second, first], 1) == replication.victims([first, second], 1) == [first]


@pytest.mark.rule("OBJ-04", element="victims")
def test_where_siblings_crowd_one_goes_first() -> None:
    crowd = [pod("b", "h2", ready="2"), pod("a", "h1", ready="1"), pod("c", "h1", ready="1")]
    assert replication.victims(crowd, 1)[0]["spec"]["nodeName"] == "h1"


# Deployments


def deployment(image: str = "nginx:1", **spec: Any) -> str:
    """A Deployment `web` of four."""
    template = TEMPLATE.replace("nginx", f"'{image}'")
    more = "".join(f", {name}: {value}" for name, value in spec.items())
    text = f"{{replicas: 4, {SELECTOR}, template: {template}{more}}}"
    return f"apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec: {text}\n"


@pytest.mark.parametrize(("surge", "unavailable"), [(1, 0), (0, 1), ("25%", "25%"), ("100%", 0), (2, 2)])
def test_a_rollout_keeps_its_bounds_at_every_step(cluster: Cluster, surge: object, unavailable: object) -> None:
    """At most replicas + maxSurge pods, at least replicas - maxUnavailable available, whatever is seen."""
    strategy = f"{{type: RollingUpdate, rollingUpdate: {{maxSurge: {surge}, maxUnavailable: {unavailable}}}}}"
    cluster.apply(deployment(strategy=strategy))
    most = 4 + (surge if isinstance(surge, int) else int(surge[:-1]) * 4 // 100)  # type: ignore[index]
    least = 4 - (unavailable if isinstance(unavailable, int) else int(unavailable[:-1]) * 4 // 100)  # type: ignore[index]
    seen: list[tuple[int, int]] = []

    def look(change: Any) -> None:
        if change.kind.name == "Pod":
            pods = [one for one in cluster.store.items("pods") if "deletionTimestamp" not in one["metadata"]]
            ready = [
                one
                for one in pods
                if any(
                    c["type"] == "Ready" and c["status"] == "True" for c in one.get("status", {}).get("conditions", [])
                )
            ]
            seen.append((len(pods), len(ready)))

    cluster.store.listeners.append(look)
    cluster.apply(deployment("nginx:2", strategy=strategy))
    assert max(count for count, _ in seen) <= most
    assert min(ready for _, ready in seen) >= least
    images = {one["spec"]["containers"][0]["image"] for one in cluster.store.items("pods")}
    assert images == {"nginx:2"}


def test_a_rollout_that_does_not_come_up_stops_and_says_so(cluster: Cluster) -> None:
    cluster.apply(deployment())
    old = set(cluster.names("pods"))
    cluster.settle = lambda: cluster.plane.settle(cluster.now)  # type: ignore[method-assign]  # new pods stay unready
    cluster.apply(deployment("broken"))
    assert len(old & set(cluster.names("pods"))) >= 3
    cluster.advance(601)
    conditions = {one["type"]: one for one in cluster.get("deploy", "web")["status"]["conditions"]}
    assert conditions["Progressing"]["reason"] == "ProgressDeadlineExceeded"
    assert conditions["Available"]["status"] == "True"


def test_undo_is_the_old_template_with_a_new_revision(cluster: Cluster) -> None:
    cluster.apply(deployment("nginx:1"))
    cluster.apply(deployment("nginx:2"))
    assert len(cluster.names("rs")) == 2
    cluster.apply(deployment("nginx:1"))
    assert len(cluster.names("rs")) == 2
    annotations = [one["metadata"]["annotations"] for one in cluster.store.items("replicasets.apps")]
    revisions = sorted(one["deployment.kubernetes.io/revision"] for one in annotations)
    assert revisions == ["2", "3"]
    assert cluster.get("deploy", "web")["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"


def test_recreate_ends_the_old_before_the_new(cluster: Cluster) -> None:
    cluster.apply(deployment(strategy="{type: Recreate}"))
    seen = set()

    def look(change: Any) -> None:
        images = {one["spec"]["containers"][0]["image"] for one in cluster.store.items("pods")}
        seen.add(frozenset(images))

    cluster.store.listeners.append(look)
    cluster.apply(deployment("nginx:2", strategy="{type: Recreate}"))
    assert frozenset({"nginx:1", "nginx:2"}) not in seen
    assert len(cluster.names("pods")) == 4


def test_a_paused_deployment_scales_and_does_not_roll(cluster: Cluster) -> None:
    cluster.apply(deployment())
    cluster.patch("deploy", "web", {"spec": {"paused": True}})
    cluster.patch("deploy", "web", {"spec": {"replicas": 2}})
    assert len(cluster.names("pods")) == 2
    cluster.patch("deploy", "web", {"spec": {"template": {"metadata": {"annotations": {"a": "b"}}}}})
    assert len(cluster.names("rs")) == 1
    cluster.patch("deploy", "web", {"spec": {"paused": None}})
    assert len(cluster.names("rs")) == 2


# Stateful sets, daemon sets, jobs


def stateful(replicas: int, image: str = "nginx") -> str:
    """A StatefulSet `web`."""
    template = TEMPLATE.replace("nginx", f"'{image}'")
    spec = f"{{replicas: {replicas}, serviceName: web, {SELECTOR}, template: {template}}}"
    return f"apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {{name: web}}\nspec: {spec}\n"


@pytest.mark.rule("OBJ-13", element="stateful")
def test_numbered_pods_come_in_order_and_go_in_reverse(cluster: Cluster) -> None:
    order: list[tuple[str, str]] = []
    cluster.store.listeners.append(
        lambda change: (
            order.append((change.verb, change.item["metadata"]["name"]))
            if change.kind.name == "Pod" and change.verb != "MODIFIED"
            else None
        )
    )
    cluster.apply(stateful(3))
    assert order == [("ADDED", f"web-{number}") for number in range(3)]
    assert cluster.get("pod", "web-1")["spec"]["hostname"] == "web-1"
    order.clear()
    cluster.apply(stateful(1))
    assert order == [("DELETED", "web-2"), ("DELETED", "web-1")]


@pytest.mark.rule("OBJ-13", element="stateful")
def test_a_numbered_pod_keeps_its_name_and_not_its_address(cluster: Cluster) -> None:
    cluster.apply(stateful(2))
    before = cluster.get("pod", "web-0")
    cluster.delete("pod", "web-0")
    after = cluster.get("pod", "web-0")
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert after["status"]["podIP"] != before["status"]["podIP"]


def test_a_pod_that_is_not_ready_holds_up_the_next(cluster: Cluster) -> None:
    cluster.stuck.add("web-1")
    cluster.apply(stateful(3))
    assert cluster.names("pods") == ["web-0", "web-1"]
    cluster.stuck.clear()
    cluster.settle()
    assert cluster.names("pods") == ["web-0", "web-1", "web-2"]


def test_a_stateful_set_updates_from_the_last_number_down(cluster: Cluster) -> None:
    cluster.apply(stateful(3))
    gone: list[str] = []
    cluster.store.listeners.append(
        lambda change: (
            gone.append(change.item["metadata"]["name"])
            if change.kind.name == "Pod" and change.verb == "DELETED"
            else None
        )
    )
    cluster.apply(stateful(3, "nginx:2"))
    assert gone == ["web-2", "web-1", "web-0"]
    assert cluster.get("sts", "web")["status"]["updatedReplicas"] == 3
    assert len(cluster.names("controllerrevisions")) == 2


DAEMON = (
    f"apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {{name: agent}}\nspec: {{{SELECTOR}, template: {TEMPLATE}}}\n"
)


@pytest.mark.rule("OBJ-14", element="daemons")
def test_one_pod_on_each_host_a_new_one_too(cluster: Cluster) -> None:
    cluster.apply(DAEMON)
    assert sorted(one["spec"]["nodeName"] for one in cluster.store.items("pods")) == ["host1", "host2", "host3"]
    wider = build(load_text(TOPOLOGY.replace("host3", "host3, host4")))
    cluster.plane.set_cluster(wider.cluster, cluster.now)
    cluster.settle()
    assert len(cluster.names("pods")) == 4
    cluster.patch("node", "host1", {"spec": {"taints": [{"key": "gone", "effect": "NoExecute"}]}})
    hosts = sorted(one["spec"]["nodeName"] for one in cluster.store.items("pods"))
    assert hosts == ["host2", "host3", "host4"]
    assert cluster.get("ds", "agent")["status"]["desiredNumberScheduled"] == 3


JOB = """apiVersion: batch/v1
kind: Job
metadata: {name: sum}
spec:
  completions: 3
  parallelism: 2
  backoffLimit: 1
  template: {spec: {restartPolicy: Never, containers: [{name: c, image: x, command: ["true"]}]}}
"""


def test_a_job_runs_until_enough_have_succeeded(cluster: Cluster) -> None:
    cluster.apply(JOB)
    assert len(cluster.names("pods")) == 2
    for _ in range(2):
        cluster.codes |= dict.fromkeys(cluster.names("pods"), 0)
        cluster.settle()
    status = cluster.get("job", "sum")["status"]
    assert status["succeeded"] == 3
    assert [one["type"] for one in status["conditions"]] == ["Complete"]
    assert len(cluster.names("pods")) == 3


def test_a_job_gives_up(cluster: Cluster) -> None:
    cluster.apply(JOB)
    for _ in range(2):
        cluster.codes |= dict.fromkeys(cluster.names("pods"), 1)
        cluster.settle()
    (condition,) = cluster.get("job", "sum")["status"]["conditions"]
    assert (condition["type"], condition["reason"]) == ("Failed", "BackoffLimitExceeded")


# The scheduler


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"nodeSelector": {"disk": "ssd"}}, "3 node(s) didn't match Pod's node affinity/selector."),
        (
            {"containers": [{"name": "c", "image": "x", "ports": [{"containerPort": 80, "hostPort": 80}]}]},
            "3 node(s) didn't have free ports",
        ),
    ],
)
def test_why_a_pod_cannot_be_placed(cluster: Cluster, spec: Object, words: str) -> None:
    taken = {"containers": [{"name": "c", "image": "x", "ports": [{"containerPort": 80, "hostPort": 80}]}]}
    for name in ("a", "b", "c"):
        cluster.apply(yaml.safe_dump({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": taken}))
    item = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "d"}, "spec": {**taken, **spec}}
    cluster.apply(yaml.safe_dump(item))
    status = cluster.get("pod", "d")["status"]
    assert status["phase"] == "Pending"
    assert words in status["conditions"][0]["message"]
    assert cluster.reasons("d") == {"FailedScheduling": 1}
    cluster.patch("node", "host2", {"metadata": {"labels": {"disk": "ssd"}}})
    cluster.delete("pod", "b")
    assert "nodeName" in cluster.get("pod", "d")["spec"]


def test_affinity_and_anti_affinity(cluster: Cluster) -> None:
    """Two that keep apart, and one that stays with the first."""
    term = "[{labelSelector: {matchLabels: {app: web}}, topologyKey: kubernetes.io/hostname}]"
    kind = "requiredDuringSchedulingIgnoredDuringExecution"
    anti = f"affinity: {{podAntiAffinity: {{{kind}: {term}}}}}, containers:"
    cluster.apply(controller(4).replace("containers:", anti))
    placed = [one["spec"].get("nodeName") for one in cluster.store.items("pods")]
    assert sorted(filter(None, placed)) == ["host1", "host2", "host3"]
    assert placed.count(None) == 1
    cluster.patch("rc", "web", {"spec": {"replicas": 1}})
    (host,) = [one["spec"]["nodeName"] for one in cluster.store.items("pods")]
    near = BARE.replace("name: bare, labels: {app: web}", "name: near")
    near = near.replace("{containers", f"{{affinity: {{podAffinity: {{{kind}: {term}}}}}, containers")
    cluster.apply(near)
    assert cluster.get("pod", "near")["spec"]["nodeName"] == host


# Endpoints


@pytest.mark.rule("OBJ-10", element="endpoints")
@pytest.mark.rule("OBJ-11", element="endpoints")
def test_a_named_port_is_looked_up_in_each_pod(cluster: Cluster) -> None:
    for name, number in (("a", 80), ("b", 8080)):
        ports = f"ports: [{{name: http, containerPort: {number}}}]"
        spec = f"{{containers: [{{name: c, image: x, {ports}}}]}}"
        cluster.apply(f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: web}}}}\nspec: {spec}")
    cluster.stuck.add("late")
    cluster.apply(BARE.replace("bare", "late"))
    spec = "{selector: {app: web}, ports: [{port: 80, targetPort: http}]}"
    cluster.apply(f"apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {spec}")
    subsets = cluster.get("endpoints", "web")["subsets"]
    assert sorted(one["ports"][0]["port"] for one in subsets) == [80, 8080]
    assert [len(one["addresses"]) for one in subsets] == [1, 1]
    slices = cluster.store.select("endpointslices.discovery.k8s.io")
    assert sorted(one["ports"][0]["port"] for one in slices) == [80, 8080]
    cluster.delete("svc", "web")
    assert cluster.names("endpoints") == []
    assert cluster.names("endpointslices") == []


@pytest.mark.rule("POD-07", element="endpoints")
def test_a_pod_that_is_not_ready_any_more_is_behind_no_service(cluster: Cluster) -> None:
    cluster.apply(controller(2))
    cluster.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{port: 80}]}"
    )
    first, second = cluster.names("pods")
    cluster.unready.add(first)
    cluster.settle()
    (subset,) = cluster.get("endpoints", "web")["subsets"]
    assert [one["targetRef"]["name"] for one in subset["addresses"]] == [second]
    assert [one["targetRef"]["name"] for one in subset["notReadyAddresses"]] == [first]
    assert sorted(cluster.names("pods")) == sorted([first, second]), "it is not replaced for that"


@pytest.mark.rule("OBJ-12", element="endpoints")
def test_addresses_written_by_hand_are_mirrored(cluster: Cluster) -> None:
    cluster.apply("apiVersion: v1\nkind: Service\nmetadata: {name: db}\nspec: {ports: [{port: 5432}]}")
    subsets = "[{addresses: [{ip: 192.0.2.7}], ports: [{port: 5432}]}]"
    cluster.apply(f"apiVersion: v1\nkind: Endpoints\nmetadata: {{name: db}}\nsubsets: {subsets}")
    (found,) = cluster.store.select("endpointslices.discovery.k8s.io")
    assert found["endpoints"][0]["addresses"] == ["192.0.2.7"]
    assert found["ports"][0]["port"] == 5432


# The end of things


@pytest.mark.rule("OBJ-15", element="namespaces")
def test_a_namespace_ends_with_all_that_is_in_it(cluster: Cluster) -> None:
    cluster.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: blue}")
    cluster.apply(deployment().replace("name: web}", "name: web, namespace: blue}"))
    cluster.apply(deployment())
    assert len(cluster.names("pods", "blue")) == 4
    cluster.delete("ns", "blue")
    assert cluster.names("ns") == []  # it has no namespace itself
    assert cluster.store.get("namespaces", "", "blue") is None
    assert cluster.names("pods", "blue") == []
    assert len(cluster.names("pods")) == 4


@pytest.mark.parametrize("propagation", ["Background", "Foreground", "Orphan"])
def test_what_becomes_of_what_is_owned(cluster: Cluster, propagation: str) -> None:
    cluster.apply(deployment())
    cluster.delete("deploy", "web", propagation=propagation)
    assert cluster.names("deploy") == []
    kept = propagation == "Orphan"
    assert len(cluster.names("rs")) == kept
    assert len(cluster.names("pods")) == 4 * kept


def test_what_every_namespace_has_comes_back(cluster: Cluster) -> None:
    """As `kubectl delete svc,sa,cm --all` would have it gone."""
    cluster.plane.trust("PEM")
    cluster.settle()
    address = cluster.get("svc", "kubernetes")["spec"]["clusterIP"]
    for word, name in (("svc", "kubernetes"), ("sa", "default"), ("cm", "kube-root-ca.crt")):
        cluster.delete(word, name)
        assert cluster.names(word) == [name]
    assert cluster.get("svc", "kubernetes")["spec"]["clusterIP"] == address
    assert cluster.get("cm", "kube-root-ca.crt")["data"] == {"ca.crt": "PEM"}


def test_a_taint_evicts_who_does_not_bear_it_when_its_time_is_up(cluster: Cluster) -> None:
    tolerations = "tolerations: [{key: a, operator: Exists, tolerationSeconds: 60}], containers:"
    cluster.apply(BARE.replace("containers:", f"nodeName: host1, {tolerations}"))
    cluster.apply(BARE.replace("bare", "plain").replace("containers:", "nodeName: host1, containers:"))
    cluster.patch("node", "host1", {"spec": {"taints": [
        {"key": "a", "effect": "NoExecute", "timeAdded": cluster.store.moment(cluster.now)}]}})  # fmt: skip
    assert cluster.names("pods") == ["bare"]
    cluster.advance(59)
    assert cluster.names("pods") == ["bare"]
    cluster.advance(2)
    assert cluster.names("pods") == []


def test_a_pod_more_than_a_host_has_addresses_waits(cluster: Cluster) -> None:
    narrow = build(load_text(TOPOLOGY.replace("spec: {", "spec: {nodeMasks: {IPv4: 30}, ")))
    cluster.plane = ControlPlane(narrow.cluster)
    cluster.store = cluster.plane.store
    cluster.apply(controller(5))
    placed = Counter(one["spec"].get("nodeName") for one in cluster.store.items("pods"))
    assert placed == {"host1": 1, "host2": 1, "host3": 1, None: 2}


# Disruption budgets


@pytest.mark.parametrize(
    ("bound", "desired", "allowed"),
    [
        ("minAvailable: 2", 2, 2),
        ("minAvailable: 100%", 4, 0),
        ("minAvailable: 60%", 3, 1),
        ("maxUnavailable: 1", 3, 1),
        ("maxUnavailable: 25%", 3, 1),
        ("maxUnavailable: 0", 4, 0),
    ],
)
def test_a_budget_bounds_evictions(cluster: Cluster, bound: str, desired: int, allowed: int) -> None:
    cluster.apply(
        f"apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\n"
        f"spec: {{replicas: 4, {SELECTOR}, template: {TEMPLATE}}}\n---\n"
        f"apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {{name: few}}\nspec: {{{bound}, {SELECTOR}}}\n"
    )
    budget = cluster.store.get("poddisruptionbudgets.policy", "default", "few")
    assert budget is not None
    assert budget["status"] == {
        "observedGeneration": 1, "expectedPods": 4, "currentHealthy": 4, "desiredHealthy": desired,
        "disruptionsAllowed": allowed,
    }  # fmt: skip
    evicted = 0
    for pod in list(cluster.store.items("pods")):  # all at once, before anybody could make others
        if refusal(cluster.store, pod) is None:
            cluster.store.delete(pod_key(pod), cluster.now)
            evicted += 1
    assert evicted == allowed
    cluster.settle()
    assert [pod["metadata"]["name"] for pod in cluster.store.items("pods") if refusal(cluster.store, pod)] == (
        [] if allowed else [pod["metadata"]["name"] for pod in cluster.store.items("pods")]
    )


def test_a_budget_that_makes_no_sense_is_refused(cluster: Cluster) -> None:
    for bound, words in (
        ("minAvailable: most", "a valid percent string"),
        ("minAvailable: -1", "must be greater than or equal to 0"),
        ("minAvailable: 1, maxUnavailable: 1", "cannot be both set"),
    ):
        text = "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: few}\n"
        with pytest.raises(BadInput, match=words):
            cluster.apply(f"{text}spec: {{{bound}, {SELECTOR}}}\n")
