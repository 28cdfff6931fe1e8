"""The same two applications on Docker's bridges and as pods: the two traces side by side (`docker-vs-kubernetes`)."""

from __future__ import annotations

import json

import pytest

from emunet.lab.lab import Lab
from emunet.packet.address import parse_ip
from emunet.packet.tcp import SYN
from tests.worlds import TOPOLOGIES, segment

HOST1, HOST2 = "192.168.9.11", "192.168.9.12"
ROUTED = ["ROUTED", "NOT_ISOLATED", "NO_POLICY"]
"""Both kinds pass the same elements: what differs is what those have to do."""


@pytest.fixture
def lab() -> Lab:
    return Lab(TOPOLOGIES / "docker-vs-kubernetes.yaml")


def steps(lab: Lab, source: str, target: str, port: int) -> list[str]:
    """What is decided on the way of a first packet, but for how it is carried."""
    packet = segment(parse_ip(lab.pod(source).ip), parse_ip(target), 4000, port, SYN)
    wanted = {"MASQUERADED", "PUBLISHED", "NOT_TRANSLATED", "ISOLATED_UNPUBLISHED", *ROUTED}
    return [code for code in lab.trace(source, packet).codes if code in wanted]


def asked_by(lab: Lab, source: str, url: str) -> str:
    body = lab.pod(source).get(url).body
    return str(json.loads(body)["client"]) if body else ""


@pytest.mark.rule("DK-05", element="translate")
@pytest.mark.rule("DK-06", element="published")
def test_on_bridges_the_caller_is_lost_and_as_pods_it_is_kept(lab: Lab) -> None:
    # The names are the same, and so is what is asked. Containers have the same address on both hosts.
    assert lab.pod("host1/shop").ip == lab.pod("host2/stock").ip == "172.17.0.2"
    assert (lab.pod("shop").ip, lab.pod("stock").ip) == ("10.244.1.2", "10.244.2.2")

    as_containers = steps(lab, "host1/shop", HOST2, 8080)
    as_pods = steps(lab, "shop", "10.244.2.2", 80)
    assert as_containers == [*ROUTED, "MASQUERADED", "PUBLISHED", *ROUTED, "NOT_TRANSLATED"]
    assert as_pods == [*ROUTED, "NOT_TRANSLATED", *ROUTED, "NOT_TRANSLATED"]

    assert asked_by(lab, "host1/shop", f"http://{HOST2}:8080/") == HOST1  # its host, and not who it is
    assert asked_by(lab, "shop", "http://10.244.2.2/") == lab.pod("shop").ip
    assert set(lab.plane.balance().values()) == {0}


@pytest.mark.rule("DK-10", element="isolation")
def test_a_containers_own_address_means_nothing_on_another_host(lab: Lab) -> None:
    docker = lab.docker("host2")
    docker.run("other", ports=["8081:80"])
    address = lab.pod("host2/other").ip
    assert address == "172.17.0.3"
    # On host1 nobody has that address; a pod's is reached from everywhere, containers included.
    assert not lab.ping("host1/shop", address)
    assert lab.ping("host1/shop", lab.pod("stock").ip).ttl == 62
    # And on its own host it is hidden from all that come from elsewhere.
    assert steps(lab, "stock", address, 80)[-1] == "ISOLATED_UNPUBLISHED"
    assert asked_by(lab, "stock", f"http://{HOST2}:8081/") == lab.pod("stock").ip


def test_a_port_of_a_host_is_taken_once_and_a_pods_port_is_its_own(lab: Lab) -> None:
    from emunet.cluster.docker.networks import Refused

    with pytest.raises(Refused, match="address already in use"):
        lab.docker("host2").run("second", ports=["8080:80"])
    lab.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: second}\n"
        "spec: {nodeName: host2, containers: [{name: a, image: b, ports: [{containerPort: 80}]}]}\n"
    )
    assert asked_by(lab, "shop", f"http://{lab.pod('second').ip}/") == lab.pod("shop").ip
    assert asked_by(lab, "shop", f"http://{lab.pod('stock').ip}/") == lab.pod("shop").ip
