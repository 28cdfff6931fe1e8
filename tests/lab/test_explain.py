"""`explain`: whether one reaches another, told in sentences that a person can act on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP

from emunet.cluster.targets import UnknownTarget, Wish, read
from emunet.testing import Lab
from emunet.testing.taplab import TapAnswer

TEXT = """
apiVersion: emunet/v1
kind: Topology
metadata: {name: lab}
spec:
  hosts: [host1, host2]
  dns: false  # its Service would have bridges turn frames around: a flooded one then comes back to its sender too
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, labels: {app: web}}
spec: {nodeName: host1, containers: [{name: a, image: b, ports: [{containerPort: 80, name: http}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db-1, labels: {app: db}}
spec:
  nodeName: host2
  containers: [{name: a, image: b, ports: [{containerPort: 5432, name: sql}, {containerPort: 53, protocol: UDP}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: other, namespace: blue}
spec: {nodeName: host2, containers: [{name: a, image: b}]}
---
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 5432, name: sql}]}
---
apiVersion: v1
kind: Service
metadata: {name: far}
spec: {type: ExternalName, externalName: db.example.com}
"""
POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db-policy}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: sql}]}]
"""


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Two hosts over VXLAN; explaining changes nothing."""
    with Lab(TEXT) as lab:
        yield lab
        assert set(lab.plane.balance().values()) == {0}


def told(lab: Lab, source: str, target: str) -> list[str]:
    """The sentences, where the target means one thing."""
    (found,) = lab.explain(source, target)
    return found.sentences


def test_it_reaches(lab: Lab) -> None:
    before = lab.counters()
    assert told(lab, "web-1", "db-1:sql") == [
        "web-1 reaches db-1: TCP to 10.244.2.3:5432 arrives, and so does the answer.",
        "It goes web-1 → host1 → switch1 → host2 → db-1, inside VXLAN between host1 and host2.",
    ]
    assert lab.counters() == before
    assert told(lab, "blue/other", "db-1:5432")[1] == "It goes blue/other → host2 → db-1."


def test_policies_are_told_where_they_permit_and_where_they_do_not(lab: Lab) -> None:
    lab.apply(POLICY)
    assert told(lab, "web-1", "db-1:5432")[2] == "host2 permits it: ingress by rule 1 of default/db-policy."
    assert told(lab, "web-1", "db-1:8080") == [
        "web-1 does not reach db-1: TCP to 10.244.2.3:8080 is dropped at host2.",
        "web-1 may not send to db-1: ingress of default/db-1 is isolated by default/db-policy; "
        "peer matches rule 1 of default/db-policy, port 8080/TCP does not (sql/TCP = 5432).",
        "It got as far as host2: web-1 → host1 → switch1 → host2.",
    ]
    assert "At host2 it is between a pod and its own node: no policy stops that." in told(lab, "host2", "db-1:5432")
    (found,) = lab.explain("blue/other", "db-1:5432")
    assert not found
    assert found.as_dict()["there"]["reason"] == "POLICY_INGRESS"
    assert lab.trace("web-1", IP(dst=lab.pod("db-1").ip) / TCP(dport=8080)).dropped_by(policy="default/db-policy")
    assert not lab.trace("web-1", IP(dst=lab.pod("db-1").ip) / TCP(dport=8080)).dropped_by(policy="default/other")


def test_a_name_keeps_its_small_letter(lab: Lab) -> None:
    lab.apply(POLICY)
    lab.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: spy}\nspec: {containers: [{name: a, image: b}]}")
    assert told(lab, "spy", "db-1:5432")[1].startswith("spy may not send to db-1: ")
    assert told(lab, "spy", "10.244.1.99")[1].startswith("Nobody on ")


def test_a_trace_as_scripts_get_it_names_the_policies_too(lab: Lab) -> None:
    lab.apply(POLICY)
    trace = lab.trace("web-1", IP(dst=lab.pod("db-1").ip) / TCP(dport=8080))
    told = TapAnswer(trace.as_dict())
    assert told.dropped_by("POLICY_INGRESS", device="host2", policy="default/db-policy")
    assert not told.dropped_by(policy="default/other")


def test_each_port_that_a_pod_declares(lab: Lab) -> None:
    first = [found.sentences[0] for found in lab.explain("web-1", "db-1")]
    assert first == [
        "web-1 reaches db-1: TCP to 10.244.2.3:5432 arrives, and so does the answer.",
        "web-1 reaches db-1: UDP to 10.244.2.3:53 arrives, and so does the answer.",
    ]
    assert told(lab, "web-1", "blue/other")[0].startswith("web-1 reaches blue/other: an echo request to 10.244.2.2")
    assert told(lab, "web-1", "db-1:53/udp")[0].startswith("web-1 reaches db-1: UDP")
    remark = "db-1 declares no port 81/TCP: whether something listens there is its own affair."
    assert told(lab, "web-1", "db-1:81")[-1] == remark


def test_translations_are_told() -> None:
    published = "[{name: host1, publish: [{port: 8080, pod: web-1, targetPort: 80}]}, host2]"
    with Lab(TEXT.replace("[host1, host2]", published)) as lab:
        lines = told(lab, "db-1", "192.168.9.11:8080")
    assert lines[0] == ("db-1 reaches 192.168.9.11: TCP to 192.168.9.11:8080 arrives at web-1, and so does the answer.")
    assert lines[2] == (
        "host1 translates it: destination 192.168.9.11:8080 → 10.244.1.2:80 "
        "(192.168.9.11:8080 of host1 is published: it leads to 10.244.1.2:80)."
    )


def test_a_service_leads_to_a_pod_on_its_ports_only() -> None:
    with Lab(Path(__file__).parent.parent.parent / "topologies/primer/service.yaml") as lab:
        assert told(lab, "client", "web")[2] == (
            "host1 translates it: destination 10.96.0.80:80 → 10.244.2.2:8080 "
            "(default/web:http leads to web-2, 1 of 1)."
        )
        assert told(lab, "client", "10.96.0.80:81")[-1] == (
            "10.96.0.80 is an address of Services and of no machine: only default/web:http 80/TCP lead anywhere, "
            "this is routed as it is."
        )


def test_an_answer_that_is_lost_is_told(lab: Lab) -> None:
    """The way there is there, the way back is not."""
    table = lab.plane.world.devices["host2"].elements["router"]
    table.routes.replace([one for one in table.routes if str(one.prefix) != "10.244.1.0/24"])  # type: ignore[attr-defined]
    lines = told(lab, "web-1", "db-1:5432")
    assert lines[0] == (
        "web-1 does not reach db-1: TCP to 10.244.2.3:5432 arrives, but its answer is dropped at host2."
    )
    assert lines[2].startswith("host2 has no route to 10.244.1.2")


def test_who_is_nowhere_and_who_is_oneself(lab: Lab) -> None:
    assert (
        told(lab, "web-1", "10.9.9.9")[0]
        == "web-1 does not reach 10.9.9.9: an echo request to 10.9.9.9 is dropped at host1."
    )
    assert told(lab, "web-1", "web-1:80") == [
        "web-1 reaches web-1: TCP to 10.244.1.2:80 arrives.",
        "10.244.1.2 is web-1 itself: it stays inside.",
    ]
    assert told(lab, "host1", "web-1:80")[1] == "It goes host1 → web-1."
    assert told(lab, "web-1", "host2:22")[1] == "It goes web-1 → host1 → switch1 → host2."


def test_a_headless_service_means_its_endpoints(lab: Lab) -> None:
    assert told(lab, "web-1", "db:sql")[0] == (
        "web-1 reaches default/db: TCP to 10.244.2.3:5432 arrives at db-1, and so does the answer."
    )


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("nobody", "there is no pod, Service, host or address nobody; there are: "),
        ("db-1:web", "db-1 has no port called web; it has: sql"),
        ("db:81", "the Service default/db has no port 81; it has: 5432/TCP"),
        ("far:80", "the Service default/far is another name for db.example.com: explain that"),
    ],
)
def test_what_is_not_there_is_said(lab: Lab, target: str, sentence: str) -> None:
    with pytest.raises(UnknownTarget) as error:
        lab.explain("web-1", target)
    assert str(error.value).startswith(sentence)


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("web-1:80:81:[", "is no address"),
        ("[::1", "is no target"),
        ("web-1:80/icmp", "ICMP has no ports"),
        ("blue/other/tcp", "say which port: blue/other:PORT/tcp"),
        ("web-1:70000", "70000 is no port: expected 1 to 65535"),
        ("fd00::1", "web-1 has no address of the family of fd00::1"),
    ],
)
def test_what_makes_no_sense_is_said(lab: Lab, target: str, sentence: str) -> None:
    with pytest.raises((ValueError, UnknownTarget)) as error:
        lab.explain("web-1", target)
    assert sentence in str(error.value) or target.startswith("web-1:80:81")


def test_targets_as_text() -> None:
    assert read("blue/web-1:80/UDP") == Wish("blue/web-1", "80", "UDP")
    assert read("web:http") == Wish("web", "http", "")
    assert read("[fd00::1]:80") == Wish("fd00::1", "80", "")
    assert read("fd00::1") == Wish("fd00::1", "", "")
    assert read("kube-dns.kube-system:53/udp") == Wish("kube-dns.kube-system", "53", "UDP")
