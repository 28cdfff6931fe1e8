"""Cases of Kubernetes' own sig-network Service tests, by their names, told again against a whole lab.

Each test's docstring begins with the name of the case (test/e2e/network/service.go). Cases that other files tell are
in tests/elements/test_services.py (policies, affinity, source addresses) and tests/cluster (node ports, validation).
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from emunet.testing import Lab

LAB = """apiVersion: emunet/v1
kind: Topology
metadata: {name: lab}
spec: {hosts: [host1, host2], dns: false}
---
{apiVersion: v1, kind: Pod, metadata: {name: client}, spec: {nodeName: host1, containers: [{name: a, image: b}]}}
"""

POD = """---
apiVersion: v1
kind: Pod
metadata: {name: NAME, labels: {app: a}}
spec:
  nodeName: HOST
  containers: [{name: a, image: b, ports: [{containerPort: 8080, name: http}, {containerPort: 9090, name: more}]}]
"""

VIP = "10.96.0.50"


def pod(name: str, host: str = "host1") -> str:
    """A pod of app `a` that answers on 8080 and 9090."""
    return POD.replace("NAME", name).replace("HOST", host)


def service(spec: str, name: str = "s") -> str:
    """A Service of app `a`, but for what `spec` says."""
    text = "{apiVersion: v1, kind: Service, metadata: {name: NAME},\n spec: {SPEC}}\n"
    return text.replace("NAME", name).replace("SPEC", spec)


SELECT = f"selector: {{app: a}}, clusterIP: {VIP}"
PORTS = "ports: [{port: 80, targetPort: http}]"


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A client on host1, and pod p1 there behind a Service."""
    with Lab(LAB + pod("p1")) as lab:
        yield lab
        assert set(lab.plane.balance().values()) == {0}


def who(lab: Lab, url: str, client: str = "client", calls: int = 1) -> set[str]:
    """Which pods answer; "" for a call that nobody answers."""
    found = set()
    for _ in range(calls):
        answer = lab.pod(client).get(url, timeout=2)
        found.add(json.loads(answer.body)["pod"] if answer.status == 200 else "")
    return found


def test_multiport(lab: Lab) -> None:
    """should serve multiport endpoints from pods [Conformance]; should be updated after adding or deleting ports."""
    lab.apply(
        service(f"{SELECT}, ports: [{{name: a, port: 80, targetPort: http}}, {{name: b, port: 81, targetPort: more}}]")
    )
    assert who(lab, f"http://{VIP}:80/") == who(lab, f"http://{VIP}:81/") == {"p1"}
    lab.apply(service(f"{SELECT}, ports: [{{name: a, port: 82, targetPort: http}}]"))
    assert who(lab, f"http://{VIP}:82/") == {"p1"}
    assert who(lab, f"http://{VIP}:81/") == {""}


def test_basic_endpoint(lab: Lab) -> None:
    """should serve a basic endpoint from pods [Conformance]: endpoints follow pods that come and go."""
    lab.apply(service(f"{SELECT}, {PORTS}") + pod("p2", "host2"))
    assert who(lab, f"http://{VIP}/", calls=20) == {"p1", "p2"}
    lab.delete("pod", "p1")
    assert who(lab, f"http://{VIP}/", calls=5) == {"p2"}
    lab.delete("pod", "p2")
    assert who(lab, f"http://{VIP}/") == {""}


def test_hairpin(lab: Lab) -> None:
    """should allow pods to hairpin back to themselves through services."""
    lab.apply(service(f"{SELECT}, {PORTS}"))
    assert who(lab, f"http://{VIP}/", client="p1") == {"p1"}


def test_source_ip(lab: Lab) -> None:
    """should preserve source pod IP for traffic thru service cluster IP."""
    lab.apply(service(f"{SELECT}, {PORTS}") + pod("p2", "host2"))
    for _ in range(10):
        answer = lab.pod("client").get(f"http://{VIP}/")
        assert json.loads(answer.body)["client"] == lab.pod("client").ip


@pytest.mark.rule("SVC-43", element="services")
def test_types(lab: Lab) -> None:
    """should be able to change the type from ExternalName to ClusterIP, to NodePort and back [Conformance]."""
    lab.apply(service("type: ExternalName, externalName: example.com"))
    assert "clusterIP" not in lab.get("service", "s")["spec"]
    lab.apply(service(f"type: ClusterIP, {SELECT}, {PORTS}"))
    assert who(lab, f"http://{VIP}/") == {"p1"}
    lab.apply(service(f"type: NodePort, {SELECT}, ports: [{{port: 80, targetPort: http, nodePort: 30080}}]"))
    assert who(lab, "http://192.168.9.12:30080/") == who(lab, f"http://{VIP}/") == {"p1"}
    lab.apply(service("type: ExternalName, externalName: example.com"))
    assert who(lab, "http://192.168.9.12:30080/") == who(lab, f"http://{VIP}/") == {""}


def test_recreated(lab: Lab) -> None:
    """should work after the service has been recreated."""
    for _ in range(2):
        lab.apply(service(f"{SELECT}, {PORTS}"))
        assert who(lab, f"http://{VIP}/") == {"p1"}
        lab.delete("service", "s")
        assert who(lab, f"http://{VIP}/") == {""}


@pytest.mark.rule("OBJ-12", element="endpoints")
def test_endpoints_by_hand(lab: Lab) -> None:
    """EndpointSliceMirroring: should mirror a custom Endpoints resource through create update and delete."""
    lab.apply(service(f"clusterIP: {VIP}, ports: [{{port: 80}}]"))
    text = (
        "{apiVersion: v1, kind: Endpoints, metadata: {name: s},\n"
        " subsets: [{addresses: [{ip: IP}], ports: [{port: N}]}]}\n"
    )
    lab.apply(text.replace("IP", lab.pod("p1").ip).replace("N}", "8080}"))
    assert who(lab, f"http://{VIP}/") == {"p1"}
    lab.apply(pod("p2", "host2"))
    lab.apply(text.replace("IP", lab.pod("p2").ip).replace("N}", "9090}"))
    assert who(lab, f"http://{VIP}/", calls=5) == {"p2"}
    lab.delete("endpoints", "s")
    assert who(lab, f"http://{VIP}/") == {""}


def test_headless_and_other_proxies(lab: Lab) -> None:
    """should implement service.kubernetes.io/headless; should implement service.kubernetes.io/service-proxy-name."""
    lab.apply(service(f"{SELECT}, {PORTS}"))
    assert who(lab, f"http://{VIP}/") == {"p1"}
    for label in ("headless", "service-proxy-name"):
        marked = service(f"{SELECT}, {PORTS}").replace(
            "{name: s}", f'{{name: s, labels: {{service.kubernetes.io/{label}: "x"}}}}'
        )
        lab.apply(marked)
        assert who(lab, f"http://{VIP}/") == {""}
        lab.delete("service", "s")
        lab.apply(service(f"{SELECT}, {PORTS}"))
        assert who(lab, f"http://{VIP}/") == {"p1"}


def test_affinity_switch(lab: Lab) -> None:
    """should be able to switch session affinity for service with type clusterIP [Conformance]."""
    lab.apply(service(f"{SELECT}, {PORTS}") + pod("p2", "host2"))
    assert len(who(lab, f"http://{VIP}/", calls=20)) == 2
    lab.apply(service(f"{SELECT}, {PORTS}, sessionAffinity: ClientIP"))
    assert len(who(lab, f"http://{VIP}/", calls=20)) == 1
    lab.apply(service(f"{SELECT}, {PORTS}, sessionAffinity: None"))
    assert len(who(lab, f"http://{VIP}/", calls=20)) == 2


def test_internal_traffic_policy(lab: Lab) -> None:
    """should respect internalTrafficPolicy=Local Pod to Pod."""
    lab.apply(service(f"{SELECT}, {PORTS}, internalTrafficPolicy: Local") + pod("p2", "host2"))
    assert who(lab, f"http://{VIP}/", calls=10) == {"p1"}
    lab.delete("pod", "p1")
    assert who(lab, f"http://{VIP}/") == {""}


def test_fallback_to_terminating(lab: Lab) -> None:
    """should fallback to terminating endpoints when there are no ready endpoints."""
    lab.apply(service(f"clusterIP: {VIP}, ports: [{{port: 80, targetPort: 8080}}]"))
    slice_text = (
        "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, ports: [{port: 8080, name: ''}],\n"
        " metadata: {name: s-x, labels: {kubernetes.io/service-name: s}},\n"
        f" endpoints: [{{addresses: [{lab.pod('p1').ip}], nodeName: host1,\n"
        "  conditions: {ready: false, serving: true, terminating: true}}]}\n"
    )
    lab.apply(slice_text)
    assert who(lab, f"http://{VIP}/") == {"p1"}
    lab.apply(slice_text.replace("serving: true", "serving: false"))
    assert who(lab, f"http://{VIP}/") == {""}
