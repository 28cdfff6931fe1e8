"""Policies where Services are: what is judged is the pod behind the Service, and the source that the pod will see."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from emunet.lab.explanation import Explanation
from emunet.packet.address import format_ip
from emunet.testing import Lab
from tests.policy_worlds import TEXT, labels, policy

SERVICES = """
---
apiVersion: v1
kind: Service
metadata: {name: a, namespace: x}
spec: {selector: {pod: a}, ports: [{port: 8000, targetPort: serve-80-tcp}]}
---
apiVersion: v1
kind: Service
metadata: {name: cluster, namespace: x}
spec: {type: NodePort, selector: {pod: a}, ports: [{port: 80, nodePort: 30080}]}
---
apiVersion: v1
kind: Service
metadata: {name: local, namespace: x}
spec: {type: NodePort, externalTrafficPolicy: Local, selector: {pod: a}, ports: [{port: 80, nodePort: 30081}]}
"""
HOST1, HOST2 = "192.168.9.11", "192.168.9.12"


@pytest.fixture
def lab() -> Iterator[Lab]:
    """x/a on host1 behind three Services; a third host that is outside of everything."""
    with Lab(TEXT.replace("hosts: [host1, host2]", "hosts: [host1, host2, host3]") + SERVICES) as lab:
        yield lab
        assert set(lab.plane.balance().values()) == {0}


def one(lab: Lab, source: str, target: str) -> Explanation:
    """The explanation of what means one thing."""
    (found,) = lab.explain(source, target)
    return found


def only(lab: Lab, **rule: Any) -> None:
    """x/a is isolated but for this rule."""
    lab.apply(json.dumps(policy("only", podSelector=labels(pod="a"), ingress=[rule])) + "\n")


@pytest.mark.rule("NP-15", element="policy")
def test_the_pod_behind_a_service_is_judged_not_its_address(lab: Lab) -> None:
    address = lab.get("services", "a", "x")["spec"]["clusterIP"]
    only(lab, ports=[{"port": 8000}])
    assert not one(lab, "x/b", "a.x:8000")
    only(lab, ports=[{"port": 80}])
    assert one(lab, "x/b", "a.x:8000")
    assert one(lab, "y/c", "a.x:8000")
    out = policy("out", podSelector=labels(pod="b"), policyTypes=["Egress"])
    lab.apply(
        json.dumps({**out, "spec": {**out["spec"], "egress": [{"to": [{"ipBlock": {"cidr": f"{address}/32"}}]}]}})
        + "\n"
    )
    assert "x/b may not send to x/a: egress of x/b is isolated by x/out" in one(lab, "x/b", "a.x:8000").sentences[1]
    lab.apply(
        json.dumps({**out, "spec": {**out["spec"], "egress": [{"to": [{"podSelector": labels(pod="a")}]}]}}) + "\n"
    )
    assert one(lab, "x/b", "a.x:8000")


@pytest.mark.rule("NP-14", element="policy")
def test_a_pod_reaches_itself_by_its_service(lab: Lab) -> None:
    only(lab, ports=[{"port": 7}])
    found = one(lab, "x/a", "a.x:8000")
    assert found
    assert "At host1 it is a pod to itself: no policy stops that." in found.sentences
    assert not one(lab, "x/b", "a.x:8000")


@pytest.mark.rule("NP-16", element="policy")
@pytest.mark.parametrize("entry", [HOST1, HOST2])
def test_by_a_node_port_the_source_is_a_node_where_the_service_is_cluster_wide(lab: Lab, entry: str) -> None:
    client = lab.plane.edge("host3").addresses[0].address
    assert one(lab, "host3", f"{entry}:30080")
    only(lab, **{"from": [{"ipBlock": {"cidr": f"{format_ip(client)}/32"}}]})
    found = one(lab, "host3", f"{entry}:30080")
    assert not found
    assert found.there["reason"] == "POLICY_INGRESS"
    assert found.sentences[1].startswith("host1 (" if entry == HOST1 else "host2 (")
    nodes = ["10.244.1.1/32"] if entry == HOST1 else [f"{HOST2}/32"]
    only(lab, **{"from": [{"ipBlock": {"cidr": cidr}} for cidr in nodes]})
    assert one(lab, "host3", f"{entry}:30080")


@pytest.mark.rule("NP-16", element="policy")
def test_by_a_node_port_the_source_is_the_client_where_the_service_is_local(lab: Lab) -> None:
    client = lab.plane.edge("host3").addresses[0].address
    only(lab, **{"from": [{"ipBlock": {"cidr": f"{format_ip(client)}/32"}}]})
    assert one(lab, "host3", f"{HOST1}:30081")
    only(lab, **{"from": [{"podSelector": {}}]})
    assert not one(lab, "host3", f"{HOST1}:30081")


@pytest.mark.rule("NP-13", element="policy")
def test_a_pods_own_node_reaches_it_by_its_service_too(lab: Lab) -> None:
    only(lab, ports=[{"port": 7}])
    assert one(lab, "host1", "a.x:8000")
    assert not one(lab, "host2", "a.x:8000")
