"""Pods in their host's network: whose address they have, and how Services lead to them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from emunet.cluster.load import BadInput
from emunet.testing import Lab

LAB = """apiVersion: emunet/v1
kind: Topology
metadata: {name: lab}
spec: {hosts: [host1, host2], dns: false}
---
{apiVersion: v1, kind: Pod, metadata: {name: client}, spec: {nodeName: host1, containers: [{name: a, image: b}]}}
"""
GUEST = """---
apiVersion: v1
kind: Pod
metadata: {name: NAME, labels: {app: guest}}
spec: {nodeSelector: {kubernetes.io/hostname: host2}, hostNetwork: true, containers: [{name: a, image: b, PORTS}]}
"""
SERVICE = """---
apiVersion: v1
kind: Service
metadata: {name: guest}
spec:
  clusterIP: 10.96.0.50
  type: NodePort
  externalTrafficPolicy: Local
  selector: {app: guest}
  ports: [{port: 80, targetPort: 9100, nodePort: 30080}]
"""
HOST1, HOST2 = "192.168.9.11", "192.168.9.12"


def guest(name: str, port: str = "containerPort: 9100") -> str:
    """A pod in the network of host2 that serves on a port."""
    return GUEST.replace("NAME", name).replace("PORTS", f"ports: [{{{port}}}]")


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A client on host1, a pod in the network of host2."""
    with Lab(LAB + guest("guest")) as lab:
        yield lab
        assert set(lab.plane.balance().values()) == {0}


@pytest.mark.rule("HN-01", element="host-network")
def test_it_has_its_hosts_address_and_no_port_of_its_own(lab: Lab) -> None:
    assert lab.get("pod", "guest")["status"]["podIP"] == HOST2
    assert not [port for port in lab.ports if "guest" in port]
    assert lab.pod("client").get(f"http://{HOST2}:9100/").status == 200


@pytest.mark.rule("HN-01", element="obstacles")
def test_two_that_want_one_port_are_not_placed_on_one_host(lab: Lab) -> None:
    """Where the port is not declared, the second is placed, and its program is refused the port as on any machine."""
    lab.apply(guest("second") + guest("third", "containerPort: 9101"))
    where = {name: lab.get("pod", name)["spec"].get("nodeName") for name in ("second", "third")}
    assert where == {"second": None, "third": "host2"}


@pytest.mark.rule("HN-02", element="services")
def test_behind_a_service_it_is_its_host_and_local_there(lab: Lab) -> None:
    lab.apply(SERVICE)
    answer = lab.pod("client").get("http://10.96.0.50/")
    assert answer.status == 200, answer.error
    assert f'"address": "{HOST2}"' in answer.body.decode()
    assert f'"client": "{lab.pod("client").ip}"' in answer.body.decode()
    outside = lab.explain("host1", f"{HOST2}:30080")
    assert all(outside), "a Local policy counts it there"
    assert f"{HOST2}:30080 → {HOST2}:9100 (the node port of default/guest leads to guest" in str(outside[0].sentences)


@pytest.mark.rule("HP-09", element="validation")
def test_its_ports_are_its_hosts_and_lead_to_no_other(lab: Lab) -> None:
    assert lab.get("pod", "guest")["spec"]["containers"][0]["ports"][0]["hostPort"] == 9100
    assert lab.plane.world.config.hosts[1].connections is None, "nothing is translated for it"
    with pytest.raises(BadInput, match="must match `hostPort` when `hostNetwork` is true"):
        lab.apply(guest("other", "containerPort: 80, hostPort: 8080"))
