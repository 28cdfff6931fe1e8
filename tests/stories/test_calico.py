"""Pods on routed links, as Calico joins them (fidelity CAL-01 to CAL-05), from the topology `routed-pods`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from emunet.elements.neighbor import NeighborElement
from emunet.lab.lab import Lab
from emunet.packet import arp
from emunet.packet.address import link_local
from tests.stories.benches import (
    SECOND,
    Net,
    arps,
    datagram,
    device,
    echo,
    got,
    ip,
    one,
    route,
)
from tests.worlds import TOPOLOGIES

Mark = Callable[[str], pytest.MarkDecorator]
of_router: Mark = lambda rule: pytest.mark.rule(rule, element="router")  # noqa: E731
solicited: Mark = lambda rule: pytest.mark.rule(rule, element="solicited")  # noqa: E731

EE = b"\xee" * 6
GATEWAY = ip("169.254.1.1")

DUAL = """
apiVersion: emunet/v1
kind: Topology
metadata: {name: lab}
spec:
  podCIDRs: [10.244.0.0/16, 'fd00:10:244::/48']
  underlay: [192.168.9.0/24, 'fd00:192:168:9::/64']
  overlay: {overlay}
  podLinks: routed
  hosts: [host1, host2]
---
apiVersion: v1
kind: List
items:
  - {apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {nodeName: host1, containers: [{name: a, image: b}]}}
  - {apiVersion: v1, kind: Pod, metadata: {name: b}, spec: {nodeName: host1, containers: [{name: a, image: b}]}}
  - {apiVersion: v1, kind: Pod, metadata: {name: c}, spec: {nodeName: host2, containers: [{name: a, image: b}]}}
"""


def send(net: Net, source: str, packet: bytes) -> list[str]:
    return net.send(source, net.frame(source, packet)).codes


def ask(net: Net, pod: str, target: bytes) -> bytes:
    station = net[pod]
    return arp.request(station.mac, station.address(), target)


@of_router("CAL-01")
def test_a_pod_has_an_address_alone_and_a_next_hop_that_nobody_has() -> None:
    net = Net("routed-pods")
    pod = net["web-1"]
    assert [str(row) for row in pod.addresses] == ["10.244.1.2/32"]
    assert pod.gateways == (GATEWAY,)
    assert all(
        GATEWAY not in [row.address for row in one.addresses] for host in net.config.hosts for one in host.interfaces
    )
    send(net, "web-1", datagram(pod.address(), net["web-3"].address(), 5, 6))
    assert one(net["web-3"]).ttl == 62
    net.balanced()


@solicited("CAL-02")
def test_the_hosts_end_answers_for_every_address_with_one_mac() -> None:
    net = Net("routed-pods")
    for pod in ("web-1", "web-2", "web-3"):
        net.send(pod, ask(net, pod, GATEWAY))
        [(_, frame)] = net[pod].got
        assert frame == arp.reply(EE, GATEWAY, net[pod].mac, net[pod].address())
    net.balanced()


@pytest.mark.rule("CAL-02", element="neighbor")
def test_the_host_asks_for_a_pod_with_its_uplinks_address() -> None:
    net = Net("routed-pods")
    net["web-2"].quiet = True
    send(net, "web-1", datagram(net["web-1"].address(), net["web-2"].address(), 5, 6))
    [(_, _, message)] = arps(net["web-2"])
    assert (message.sender_ip, message.sender_mac) == (ip("192.168.9.11"), EE)
    net.world.advance(10 * SECOND)
    net.balanced()


@solicited("CAL-03")
def test_without_a_route_to_it_nobody_answers_and_with_one_at_once() -> None:
    net = Net("routed-pods")
    host = net.config.hosts[0]
    assert all(one.settings.proxy_delay == 0 for one in host.interfaces if one.mac == EE)
    bare = replace(host, routes=tuple(row for row in host.routes if not row.prefix.contains(GATEWAY)))
    net.config = replace(net.config, hosts=(bare, *net.config.hosts[1:]))
    net.world.configure(net.config)
    assert net.send("web-1", ask(net, "web-1", GATEWAY)).codes[-1] == "ARP_IGNORED"
    net.world.advance(SECOND)
    assert net["web-1"].got == []
    routed = replace(bare, routes=(*bare.routes, route("0.0.0.0/0", "eth0", "192.168.9.1")))
    net.config = replace(net.config, hosts=(routed, *net.config.hosts[1:]))
    net.world.configure(net.config)
    net.send("web-1", ask(net, "web-1", GATEWAY))
    assert [at for at, _ in net["web-1"].got] == [SECOND]
    net.balanced()


@of_router("CAL-04")
def test_on_one_host_pods_are_routed() -> None:
    net = Net("routed-pods")
    codes = send(net, "web-1", datagram(net["web-1"].address(), net["web-2"].address(), 5, 6))
    assert "ROUTED" in codes
    packet = one(net["web-2"])
    assert (packet.ttl, packet.source_mac, packet.destination_mac) == (63, EE, net["web-2"].mac)
    assert packet.src == "10.244.1.2"
    net.balanced()


@of_router("CAL-05")
def test_a_free_address_of_the_hosts_own_range_gets_silence() -> None:
    net = Net("routed-pods")
    for number in range(3, 20):
        codes = send(net, "web-1", datagram(net["web-1"].address(), ip(f"10.244.1.{number + 50}"), 5, 6))
        assert codes[-1] == "ROUTE_BLACKHOLE"
    for pod in ("web-1", "web-3"):
        send(net, pod, datagram(net[pod].address(), ip("10.244.1.99"), 5, 6))
    net.world.advance(10 * SECOND)
    assert all(got(net[pod]) == [] for pod in ("web-1", "web-2", "web-3"))
    net.balanced()


@pytest.mark.parametrize("overlay", ["host-gw", "vxlan", "{kind: vxlan, directRouting: true}"])
def test_both_families_over_every_overlay(overlay: str) -> None:
    with Lab(DUAL.replace("{overlay}", overlay)) as lab:
        for family in (4, 16):
            for pong in lab.ping_all(family):
                assert pong, pong
                assert pong.ttl == (63 if {pong.source, pong.destination} == {"a", "b"} else 62)
        pods = {pod.name: pod for pod in lab.pods}
        assert pods["a"].endpoint.mac_of(link_local(EE)) == EE
        assert set(lab.plane.balance().values()) == {0}


def test_the_host_itself_and_its_pods_reach_each_other() -> None:
    with Lab(TOPOLOGIES / "routed-pods.yaml") as lab:
        for source, target, ttl in (
            ("host1", "web-1", 64),
            ("web-1", "host1", 64),
            ("host1", "web-3", 63),
            ("web-3", "host1", 63),
        ):
            pong = lab.ping(source, target)
            assert (bool(pong), pong.ttl) == (True, ttl), (source, target, pong)
        trace = lab.trace("web-1", echo(lab.address("web-1"), lab.address("web-2")))
        assert trace.verdict == "delivered"
        assert "PROXIED" not in trace.codes, "the pod's question is not part of its packet's way"
        assert set(lab.plane.balance().values()) == {0}


def test_a_pod_that_comes_and_one_that_goes_leave_the_others_neighbours_alone() -> None:
    text = (TOPOLOGIES / "routed-pods.yaml").read_text()
    with Lab(text) as lab:
        assert lab.ping("web-1", "web-2")
        neighbor = lab.plane.world.devices["host1"].elements["neighbor"]
        assert isinstance(neighbor, NeighborElement)
        before = neighbor.table.get(("web-1", lab.address("web-1")), lab.clock.now)
        assert before is not None
        spec = "spec: {nodeName: host1, containers: [{name: a, image: b}]}"
        lab.apply(f"apiVersion: v1\nkind: Pod\nmetadata: {{name: web-9}}\n{spec}\n")
        assert lab.plane.world.devices["host1"].elements["neighbor"] is neighbor, "the device was kept"
        assert neighbor.table.get(("web-1", lab.address("web-1")), lab.clock.now) == before
        assert lab.ping("web-9", "web-1").ttl == 63
        assert lab.ping("web-3", "web-9").ttl == 62
        assert "web-9" in lab.ports
        assert set(lab.plane.balance().values()) == {0}


def test_what_the_device_is_made_of() -> None:
    net = Net("routed-pods")
    elements = device(net, "host1").elements
    assert {"link web-1", "link web-2", "link eth0"} <= elements.keys()
    assert "cni0" not in elements
