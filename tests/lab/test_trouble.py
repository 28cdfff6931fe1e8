"""Trouble in a Lab: links, power, partitions, frozen pods and full tables, as its Python API has them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP

from emunet.fabric.names import UnknownPort
from emunet.testing import Lab

TOPOLOGIES = Path(__file__).parent.parent.parent / "topologies"
WIRE = "host1--switch1"
TROUBLED = """
apiVersion: emunet/v1
kind: Topology
metadata: {name: far}
spec:
  hosts: [host1, host2]
  switches: [switch1]
  links:
    - {a: host1, b: switch1, delay: 20ms, from: {switch1: {delay: 30ms}}}
    - {a: host2, b: switch1, flap: [2s, 1s]}
---
apiVersion: v1
kind: Pod
metadata: {name: a}
spec: {nodeName: host1, containers: [{name: c, image: x}]}
---
apiVersion: v1
kind: Pod
metadata: {name: b}
spec: {nodeName: host2, containers: [{name: c, image: x}]}
"""


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Two hosts over VXLAN; every frame is accounted for at the end."""
    with Lab(TOPOLOGIES / "two-hosts.yaml") as lab:
        assert lab.ping("web-1", "web-3")
        yield lab
        assert set(lab.plane.balance().values()) == {0}


def test_a_topology_has_its_trouble_from_the_first_frame() -> None:
    with Lab(TROUBLED) as lab:
        pong = lab.ping("a", "b")
        # Each way twice: the hosts ask for each other's MAC first, in the same time.
        assert pong.rtt == pytest.approx(0.100, abs=1e-6)
        assert lab.ping("a", "b").rtt == pytest.approx(0.050, abs=1e-6)
        assert lab.clock.now < 2_000_000_000
        lab.clock.advance(2 - lab.clock.now / 1e9 + 0.5)
        assert "WIRE_DOWN" in lab.trace("a", IP(dst=lab.pod("b").ip) / ICMP()).codes
        lab.clock.advance(1)
        assert lab.ping("a", "b")


def test_links_in_the_words_of_the_command(lab: Lab) -> None:
    lab.link(WIRE, delay="20ms", loss="100%", source="host1")
    assert not lab.ping("web-1", "web-3")
    lab.link(WIRE, loss=0)
    assert lab.ping("web-1", "web-3"), "after a while without answers the hosts ask for each other's MAC again"
    assert lab.ping("web-1", "web-3").rtt == pytest.approx(0.020, abs=1e-6)
    lab.link(WIRE, up=False)
    assert not lab.ping("web-1", "web-3")
    with pytest.raises(ValueError, match="a wire that is put up or down stays so"):
        lab.link(WIRE, up=True, flap="1s,1s")
    with pytest.raises(ValueError, match="delay: expected a time with its unit"):
        lab.link(WIRE, up=True, delay=5)
    assert not lab.ping("web-1", "web-3"), "what is refused changes nothing"
    lab.link(WIRE, up=True, delay="0")
    assert lab.ping("web-1", "web-3").rtt == 0


def test_a_host_without_power(lab: Lab) -> None:
    lab.pod("web-3").serve(80)
    assert lab.pod("web-1").get("http://web-3/").status == 200
    lab.power("host2", on=False)
    assert lab.trace("web-1", IP(dst=lab.pod("web-3").ip) / ICMP()).sentence.startswith("host2 is powered off")
    assert lab.pod("web-1").get("http://web-3/", timeout=3).status != 200
    lab.power("host2", on=True)
    lab.clock.advance(60)
    assert lab.ping("web-1", "web-3")
    assert "refused" in str(lab.pod("web-1").get("http://web-3/").error), "its programs died with it"


def test_a_partition_of_the_underlay(lab: Lab) -> None:
    lab.partition(["host1"])
    assert not lab.ping("web-1", "web-3")
    assert lab.ping("web-1", "web-2")
    lab.partition()
    assert lab.ping("web-1", "web-3")


def test_a_frozen_pod_is_silent_and_answers_late(lab: Lab) -> None:
    lab.freeze("web-3")
    edge = lab.plane.edge("web-1")
    ping, frames = edge.endpoint.ping(lab.address("web-3"), lab.clock.now)  # type: ignore[attr-defined]
    lab.plane.world.send(edge, frames, lab.clock.now)
    lab.clock.advance(3)
    assert ping.rtt_ns is None
    lab.freeze("web-3")
    assert lab.ping("web-3", "web-1").why == "web-3 is frozen"
    lab.thaw("web-3")
    assert ping.rtt_ns == 3_000_000_000
    lab.thaw("web-3")
    assert lab.ping("web-1", "web-3").rtt == 0
    for name in ("host1", "host1:cni0", "nobody"):
        with pytest.raises(UnknownPort, match=f"there is no pod {name}; there are: web-1, web-2, web-3, web-4"):
            lab.freeze(name)


def test_a_frozen_pod_takes_what_its_queue_holds(lab: Lab) -> None:
    lab.freeze("web-3")
    packet = bytes(IP(src=lab.pod("web-1").ip, dst=lab.pod("web-3").ip) / ICMP())
    for _ in range(1010):
        lab.pod("web-1").send_ip(packet)
    assert lab.counters()["reasons"]["EDGE_FULL"] == 10


def test_a_bridge_whose_table_is_full_floods(lab: Lab) -> None:
    """The switch may remember one station: the other's frames go everywhere, and are still delivered."""
    assert lab.trace("web-1", IP(dst=lab.pod("web-3").ip) / ICMP()).codes.count("BRIDGE_FLOOD") == 0
    lab.exhaust("switch1", "bridge stations", 1)
    lab.ping("web-1", "web-3")
    assert lab.trace("web-3", IP(dst=lab.pod("web-1").ip) / ICMP()).codes.count("BRIDGE_FLOOD") == 1
    assert lab.ping("web-1", "web-3")
    with pytest.raises(UnknownPort, match="switch1 has no table routes; it has: bridge stations"):
        lab.exhaust("switch1", "routes")


def test_a_full_table_refuses_new_connections() -> None:
    with Lab(TOPOLOGIES / "published-ports.yaml") as lab:
        host = next(name for name, tables in _tables(lab).items() if "connections" in tables)
        inside = [pod.port for pod in lab.pods if pod.host == host]
        other = next(pod.port for pod in lab.pods if pod.host != host)
        lab.pod(other).serve(80)
        assert lab.pod(inside[0]).get(f"http://{lab.pod(other).ip}/").status == 200
        lab.exhaust(host, "connections")
        before = lab.counters()["reasons"].get("CONNECTIONS_FULL", 0)
        assert lab.pod(inside[0]).get(f"http://{lab.pod(other).ip}/", timeout=1).status != 200
        assert lab.counters()["reasons"].get("CONNECTIONS_FULL", 0) > before
        lab.exhaust(host, "connections", 65536)
        assert lab.pod(inside[0]).get(f"http://{lab.pod(other).ip}/").status == 200


def _tables(lab: Lab) -> dict[str, list[str]]:
    return {name: list(lab.plane.tables(name)) for name in lab.plane.world.devices}
