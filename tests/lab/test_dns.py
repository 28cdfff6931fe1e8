"""Names in a Lab: on memory wires a pod's stack asks the cluster's name server, which is another pod's stack."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from emunet.cluster.scenario import read_scenario
from emunet.lab.lab import Lab
from emunet.lab.rerun import rerun
from emunet.lab.scenario import play

TOPOLOGY = """apiVersion: emunet/v1
kind: Topology
metadata: {name: names}
spec: {hosts: [host1, host2]}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {nodeName: host1, containers: [{name: c, image: x}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec: {nodeName: host2, containers: [{name: c, image: x, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: blue}
spec: {clusterIP: None, selector: {app: db}, ports: [{name: sql, port: 80}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: blue}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: c, image: x, ports: [{containerPort: 80}]}]}
"""


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Two hosts, a client, two Services."""
    with Lab(TOPOLOGY) as made:
        yield made


def test_a_pod_finds_names_by_its_search_list(lab: Lab) -> None:
    client = lab.pod("client")
    address = lab.get("svc", "web")["spec"]["clusterIP"]
    for name in ("web", "web.default", "web.default.svc.cluster.local", "web.default.svc.cluster.local."):
        assert client.resolve(name) == [address]
    assert sorted(client.resolve("db.blue")) == sorted([lab.pod("blue/db-0").ip, lab.pod("blue/db-1").ip])
    assert client.resolve("db-1.db.blue") == [lab.pod("blue/db-1").ip]
    assert client.resolve("_http._tcp.web", "SRV") == ["0 100 80 web.default.svc.cluster.local."]
    assert client.resolve("dns-version.cluster.local.", "TXT") == ['"1.1.0"']
    assert lab.pod("blue/db-0").resolve("db-1.db") == [lab.pod("blue/db-1").ip]
    assert client.resolve("host2") == ["192.168.9.12"]


def test_what_is_not_found_says_what_was_tried(lab: Lab) -> None:
    with pytest.raises(LookupError, match=r"nothing was not found: nothing.default.svc.cluster.local. NXDOMAIN, "):
        lab.pod("client").resolve("nothing")
    with pytest.raises(LookupError, match="no such record"):
        lab.pod("client").resolve("web", "AAAA")
    with pytest.raises(LookupError, match="A, NS"):
        lab.pod("client").resolve("web", "MX")


def test_a_page_by_name(lab: Lab) -> None:
    """The Service's name, not the pod's: the page comes through its ClusterIP."""
    found = lab.pod("client").get("http://web/")
    assert found.status == 200, found.error
    assert found.connection is not None
    address = lab.get("svc", "web")["spec"]["clusterIP"]
    assert ".".join(map(str, found.connection.remote)) == address
    assert lab.pod("client").get("http://db-0.db.blue/").status == 200


def test_names_change_in_the_moment_in_which_endpoints_do(lab: Lab) -> None:
    client = lab.pod("client")
    lab.scale("statefulset", "db", 3, namespace="blue")
    assert len(client.resolve("db.blue")) == 3
    lab.scale("statefulset", "db", 1, namespace="blue")
    assert client.resolve("db.blue") == [lab.pod("blue/db-0").ip]
    lab.delete("svc", "db", namespace="blue")
    with pytest.raises(LookupError, match=r"db\.blue was not found"):
        client.resolve("db.blue")


def test_the_name_server_ends_and_begins_again(lab: Lab) -> None:
    client = lab.pod("client")
    lab.dns(on=False)
    with pytest.raises(LookupError, match=r"web: no answer from 10.96.0.10 within 5 s, 2 times"):
        client.resolve("web")
    lab.dns(on=True)
    assert client.resolve("web")


DENY = """apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny}
spec: {podSelector: {}, policyTypes: [Egress]}
"""
ALLOW = """apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: names}
spec: {podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 53, protocol: UDP}, {port: 53}]}]}
"""


@pytest.mark.rule("NP-21", element="policy")
def test_a_policy_that_denies_egress_denies_names_too(lab: Lab) -> None:
    """Until one permits port 53, as each recipe does; `port: 53` alone would be TCP (NP-09)."""
    client = lab.pod("client")
    lab.apply(DENY)
    with pytest.raises(LookupError, match=r"no answer from 10\.96\.0\.10"):
        client.resolve("web")
    lab.apply(ALLOW.replace("{port: 53, protocol: UDP}, ", ""))
    with pytest.raises(LookupError, match=r"no answer from 10\.96\.0\.10"):
        client.resolve("web")
    lab.apply(ALLOW)
    assert client.resolve("web")
    assert client.get("http://web/", timeout=3).status != 200


def test_a_scenario_ends_the_name_servers(tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text(TOPOLOGY)
    (tmp_path / "scenario.yaml").write_text(
        "apiVersion: emunet/v1\nkind: Scenario\nmetadata: {name: silence}\nspec:\n  topology: lab.yaml\n"
        "  duration: 3s\n  flows: [{from: client, to: web}]\n"
        "  events: [{at: 1s, dns: off}, {at: 2s, dns: on}]\n"
    )
    played = play(read_scenario(tmp_path / "scenario.yaml"))
    assert [what for _, what in played.events] == ["the name servers end", "the name servers begin again"]
    assert played.flows[0]["lost"] == 0


def test_it_moves_with_its_host(lab: Lab) -> None:
    """The pod dies with its host; another one is made on the other, and answers by the same address."""
    [server] = [pod for pod in lab.desired.pods if pod.is_name_server]
    survivor = {"host1": "host2", "host2": "host1"}[server.host]
    asker = next(pod for pod in lab.pods if pod.host == survivor)
    lab.power(server.host, on=False)
    lab.clock.advance(400)
    assert [pod.host for pod in lab.desired.pods if pod.is_name_server][-1] == survivor
    assert asker.resolve("web.default")


def test_the_people_s_pods_are_the_lab_s_pods(lab: Lab) -> None:
    assert [pod.port for pod in lab.pods] == ["blue/db-0", "blue/db-1", "client", "web"]
    [server] = [pod.port for pod in lab.desired.pods if pod.is_name_server]
    assert lab.pod(server).host in ("host1", "host2")
    assert all(lab.ping_all())


def test_a_lab_without_a_name_server() -> None:
    with Lab(TOPOLOGY.replace("host2]}", "host2], dns: false}")) as lab:
        with pytest.raises(LookupError, match="web: this pod knows no name server"):
            lab.pod("client").resolve("web")
        assert lab.pod("client").get("http://web/").status == 200, "the pod of that name"


def test_a_recording_of_names_is_the_same_again(tmp_path: Path) -> None:
    with Lab(TOPOLOGY) as lab, lab.record(tmp_path / "names.pcapng"):
        assert lab.pod("client").get("http://web/").status == 200
        lab.scale("statefulset", "db", 3, namespace="blue")
        assert len(lab.pod("client").resolve("db.blue")) == 3
        lab.dns(on=False)
        with pytest.raises(LookupError):
            lab.pod("client").resolve("web")
    assert rerun(tmp_path / "names.pcapng").same


def test_a_lab_is_the_same_again_with_names() -> None:
    found = []
    for _ in range(2):
        with Lab(TOPOLOGY) as lab:
            assert lab.pod("client").get("http://web/").status == 200
            found.append((lab.clock.now, lab.counters()))
    assert found[0] == found[1]
