"""Declared ports that no program serves are answered, in memory as in namespaces: who it is, and who asked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from emunet.elements.endpoint.tcp import State
from emunet.testing import Lab

LAB = """apiVersion: emunet/v1
kind: Topology
metadata: {name: lab}
spec:
  hosts: [host1, host2]
  podCIDRs: [10.244.0.0/16, "fd00:10:244::/56"]
  underlay: {cidrs: [192.168.9.0/24, "fd00:9::/64"]}
"""
CLIENT = """---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {nodeName: host1, containers: [{name: c, image: x}]}
"""
WEB = """---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: default}
spec:
  nodeName: host2
  containers:
    - {name: a, image: x, ports: [{containerPort: 80}, {containerPort: 53, protocol: UDP}]}
    - {name: b, image: x, ports: [{containerPort: 8080}]}
"""
GUEST = """---
apiVersion: v1
kind: Pod
metadata: {name: guest}
spec: {nodeName: host2, hostNetwork: true, containers: [{name: a, image: x, ports: [{containerPort: 9100}]}]}
"""


@pytest.fixture
def lab() -> Lab:
    """Two hosts, two families, a client, a pod that declares ports, and one in its host's network."""
    with Lab(LAB + CLIENT + WEB + GUEST) as lab:
        yield lab
        assert set(lab.plane.balance().values()) == {0}


def ask(lab: Lab, url: str) -> dict[str, Any]:
    """The JSON that a GET from the client brings."""
    answer = lab.pod("client").get(url)
    assert answer.status == 200, answer.error
    told: dict[str, Any] = json.loads(answer.body)
    return told


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("port", [80, 8080])
def test_http(lab: Lab, family: int, port: int) -> None:
    address, client = lab.pod("web").ips[family], lab.pod("client").ips[family]
    host = f"[{address}]" if ":" in address else address
    told = ask(lab, f"http://{host}:{port}/here")
    assert told.pop("client_port") > 0
    assert told == {
        "pod": "web", "namespace": "default", "node": "host2", "address": address, "port": port, "protocol": "TCP",
        "client": client, "method": "GET", "path": "/here",
    }  # fmt: skip


def test_udp_of_both_families(lab: Lab) -> None:
    client, web = lab.pod("client"), lab.pod("web")
    for ours, theirs in zip(client.ips, web.ips, strict=True):
        socket = client.endpoint.udp_bind()
        lab.plane.world.send(client._edge, socket.send(b"?", lab.address(theirs), 53, lab.clock.now), lab.clock.now)
        lab.wait(lambda socket=socket: bool(socket._waiting))
        answer = socket.receive()
        assert answer is not None
        assert answer.data.decode() == (
            f"pod=web namespace=default node=host2 address={theirs} port=53 protocol=UDP"
            f" client={ours} client_port={socket.port}\n"
        )


def test_a_silent_client_gets_a_line_after_two_seconds(lab: Lab) -> None:
    connection = lab.pod("client").connect("web", 80)
    lab.clock.advance(1.9)
    assert connection.received == b""
    lab.clock.advance(0.2)
    assert connection.received.startswith(b"pod=web namespace=default node=host2 ")
    assert connection.ended


def test_a_client_that_never_ends_its_request_is_let_go(lab: Lab) -> None:
    client = lab.pod("client")
    connection = client.connect("web", 80)
    client.write(connection, b"GET / HTTP/1.1\r\nHost")
    lab.clock.advance(31)
    assert connection.state is State.CLOSED
    assert connection.received == b""


def test_a_pod_in_its_hosts_network(lab: Lab) -> None:
    told = ask(lab, "http://host2:9100/")
    assert (told["pod"], told["node"], told["address"]) == ("guest", "host2", "192.168.9.12")
    assert "refused" in str(lab.pod("client").get("http://host1:9100/").error)


def test_other_ports_and_pods_that_declare_none(lab: Lab) -> None:
    assert "refused" in str(lab.pod("client").get("http://web:81/").error)
    assert "refused" in str(lab.pod("client").get("http://client:80/").error)


def test_a_program_of_the_pods_own_takes_the_port(lab: Lab) -> None:
    lab.pod("web").serve(80)
    assert b"web on host2" in lab.pod("client").get("http://web/").body
    lab.apply(LAB + CLIENT.replace("client", "another"))
    assert b"web on host2" in lab.pod("client").get("http://web/").body, "and keeps it, whatever else comes"
    assert ask(lab, "http://web:8080/")["port"] == 8080


def test_pods_come_and_go(lab: Lab) -> None:
    lab.delete("pod", "web")
    lab.delete("pod", "guest")
    assert "refused" in str(lab.pod("client").get("http://host2:9100/").error)
    lab.apply(WEB.replace("containerPort: 80}", "containerPort: 81}") + GUEST.replace("guest", "other"))
    assert ask(lab, "http://web:81/")["port"] == 81
    assert "refused" in str(lab.pod("client").get("http://web:80/").error)
    assert ask(lab, "http://host2:9100/")["pod"] == "other"


def test_a_frozen_pod_does_not_answer_and_then_does(lab: Lab) -> None:
    lab.freeze("web")
    assert lab.pod("client").get("http://web/").status == 0
    lab.thaw("web")
    assert ask(lab, "http://web/")["pod"] == "web"


def test_a_host_that_has_power_again(lab: Lab) -> None:
    lab.power("host2", on=False)
    lab.power("host2", on=True)
    assert ask(lab, "http://web/")["pod"] == "web"
    assert ask(lab, "http://host2:9100/")["pod"] == "guest"
