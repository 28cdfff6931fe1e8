"""From pod to pod as flannel joins hosts (fidelity NET-01 to NET-08, FL-01 to FL-10): golden TTLs, MACs, sources."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from emunet.elements.endpoint.stack import Endpoint
from emunet.fabric.config import HostConfig
from emunet.packet.ipv4 import IPv4
from emunet.packet.udp import Udp
from tests.stories.benches import (
    MILLISECOND,
    SECOND,
    Net,
    Seen,
    addresses,
    arps,
    datagram,
    echo,
    got,
    host_mac,
    ip,
    one,
    route,
    seen,
    segment,
)

Mark = Callable[[str], pytest.MarkDecorator]
vxlan: Mark = lambda rule: pytest.mark.rule(rule, element="vxlan")  # noqa: E731
of_router: Mark = lambda rule: pytest.mark.rule(rule, element="router")  # noqa: E731

SPREAD = """
apiVersion: emunet/v1
kind: Topology
metadata: {{name: lab}}
spec:
  overlay: {overlay}
  {more}
  hosts: [host1, host2, ext]
---
apiVersion: v1
kind: List
items:
  - apiVersion: v1
    kind: Pod
    metadata: {{name: p1a}}
    spec: {{nodeName: host1, containers: [&c {{name: a, image: b}}]}}
  - {{apiVersion: v1, kind: Pod, metadata: {{name: p1b}}, spec: {{nodeName: host1, containers: [*c]}}}}
  - {{apiVersion: v1, kind: Pod, metadata: {{name: p2a}}, spec: {{nodeName: host2, containers: [*c]}}}}
"""


def lab(overlay: str = "host-gw", more: str = "") -> Net:
    """The page's topology T1: p1a and p1b on host1, p2a on host2, and a third machine on their segment."""
    return Net(text=SPREAD.format(overlay=overlay, more=more))


def host(net: Net, name: str) -> HostConfig:
    return next(one for one in net.config.hosts if one.name == name)


class Watch:
    """What passes a port."""

    def __init__(self, net: Net, port: str) -> None:
        self.frames: list[bytes] = []
        net.world.tap(port, self)

    def write(self, record: object) -> None:
        self.frames += record.frames  # type: ignore[attr-defined]

    def packets(self) -> list[Seen]:
        """The IPv4 packets that passed, and forget them."""
        found = [seen(frame) for frame in self.frames if frame[12:14] == b"\x08\x00"]
        self.frames.clear()
        return found


def send(net: Net, source: str, packet: bytes, to: bytes | None = None) -> list[str]:
    return net.send(source, net.frame(source, packet, to)).codes


def call(net: Net, source: str, target: str, **fields: int) -> bytes:
    """A TCP segment from a pod to port 8080 of another."""
    return segment(net[source].address(), net[target].address(), 40000, 8080, 2, **fields)


# Pod to pod


@pytest.mark.rule("NET-01", element="bridge")
def test_on_one_host_pods_are_bridged() -> None:
    net = lab()
    watch = Watch(net, "host1:cni0")
    send(net, "p1b", call(net, "p1b", "p1a"), net["p1a"].mac)
    net["p1a"].got.clear()
    codes = send(net, "p1a", call(net, "p1a", "p1b"), net["p1b"].mac)
    assert "BRIDGE_FORWARD" in codes
    packet = one(net["p1b"])
    assert (packet.ttl, packet.source_mac, packet.destination_mac) == (64, net["p1a"].mac, net["p1b"].mac)
    assert packet.packet == call(net, "p1a", "p1b")
    assert watch.frames == [], "cni0 never touches it"
    net.balanced()


@of_router("NET-02")
@pytest.mark.rule("FL-01", element="router")
def test_across_hosts_two_routers_and_no_translation() -> None:
    net = lab()
    wire = Watch(net, "host1:eth0")
    send(net, "p1a", call(net, "p1a", "p2a"))
    packet = one(net["p2a"])
    assert (packet.ttl, packet.source_mac, packet.src) == (62, net.mac("host2", "cni0"), "10.244.1.2")
    [on_wire] = wire.packets()
    assert on_wire.ttl == 63
    assert (on_wire.source_mac, on_wire.destination_mac) == (net.mac("host1", "eth0"), net.mac("host2", "eth0"))
    send(net, "p2a", segment(net["p2a"].address(), net["p1a"].address(), 8080, 40000, 18))
    assert one(net["p1a"]).ttl == 62
    net.balanced()


@of_router("FL-01")
def test_host_gw_has_a_route_to_each_peers_pods_and_the_full_mtu() -> None:
    net = lab()
    config = host(net, "host1")
    assert route("10.244.2.0/24", "eth0", "192.168.9.12") in config.routes
    assert {one.mtu for one in config.interfaces} == {1500}
    send(net, "p1a", datagram(net["p1a"].address(), net["p2a"].address(), 5, 6, bytes(1472), dont_fragment=True))
    assert len(one(net["p2a"]).packet) == 1500
    net.balanced()


@pytest.mark.rule("NET-03", element="translate")
def test_a_pods_packets_to_outside_come_from_its_host() -> None:
    net = lab(more="masquerade: true")
    outside = net["ext:eth0"].address()
    send(net, "p1a", segment(net["p1a"].address(), outside, 40000, 80, 2))
    packet = one(net["ext:eth0"])
    assert (packet.src, packet.ttl) == ("192.168.9.11", 63)
    port = int.from_bytes(packet.payload[:2], "big")
    reply = segment(outside, ip("192.168.9.11"), 80, port, 18)
    net.send("ext:eth0", net["ext:eth0"].mac * 2 + b"\x08\x00" + reply)
    back = one(net["p1a"])
    assert (back.src, back.dst, back.ttl) == ("192.168.9.13", "10.244.1.2", 63)
    assert int.from_bytes(back.payload[2:4], "big") == 40000
    net.balanced()


@pytest.mark.rule("NET-04", element="translate")
def test_another_hosts_own_address_is_outside_and_another_pods_is_not() -> None:
    net = lab(more="masquerade: true")
    send(net, "p1a", datagram(net["p1a"].address(), ip("192.168.9.12"), 5, 6))
    assert one(net["host2:eth0"]).src == "192.168.9.11"
    send(net, "p1a", datagram(net["p1a"].address(), net["p2a"].address(), 5, 6))
    assert one(net["p2a"]).src == "10.244.1.2"
    net.balanced()


@pytest.mark.rule("NET-06", element="endpoint")
def test_what_a_pod_sends_to_itself_never_leaves_it() -> None:
    pod = Endpoint("pod", host_mac(1), addresses("10.244.1.2/24"), (ip("10.244.1.1"),))
    for target in ("10.244.1.2", "127.0.0.1"):
        ping, frames = pod.ping(ip(target), 0, source=ip(target))
        assert frames == []
        assert ping.rtt_ns == 0
    ping, frames = pod.ping(ip("10.244.1.3"), 0)
    assert frames[0][12:14] == b"\x08\x06"
    assert pod.receive(frames[0][:6] + host_mac(2) + frames[0][12:], 0) == [], "its own question is not for it"


@pytest.mark.rule("NET-07", element="endpoint")
def test_an_unused_address_on_the_pods_own_network_is_the_pods_own_disappointment() -> None:
    pod = Endpoint("pod", host_mac(1), addresses("10.244.1.2/24"), (ip("10.244.1.1"),))
    ping, frames = pod.ping(ip("10.244.1.99"), 0)
    heard = [(0, frame) for frame in frames]
    while (due := pod.due()) is not None:
        heard += [(due, frame) for frame in pod.wake(due)]
    assert [(at, frame[:6], frame[12:14]) for at, frame in heard] == [
        (second * SECOND, b"\xff" * 6, b"\x08\x06") for second in range(3)
    ]
    assert ping.error is not None
    assert ping.error.errno == 113


@pytest.mark.rule("NET-08", element="neighbor")
def test_an_unused_address_on_another_hosts_network_is_told_by_that_host() -> None:
    net = lab()
    net["p2a"].quiet = True
    send(net, "p1a", datagram(net["p1a"].address(), ip("10.244.2.99"), 5, 6))
    net.world.advance(10 * SECOND)
    asked = arps(net["p2a"])
    assert [at for at, _, _ in asked] == [0, SECOND, 2 * SECOND]
    [(at, frame)] = [row for row in net["p1a"].got if row[1][12:14] == b"\x08\x00"]
    error = seen(frame)
    assert (at, error.error, error.src, error.ttl) == (3 * SECOND, (3, 1), "192.168.9.12", 63)
    net.balanced()


# VXLAN


@vxlan("FL-02")
def test_the_device_and_its_numbers() -> None:
    net = lab("{kind: vxlan, port: 8472}")
    config = host(net, "host1")
    [tunnel] = config.vxlans
    assert (tunnel.interface, tunnel.vni, tunnel.port, tunnel.flood, tunnel.learning) == (
        "flannel.1",
        1,
        8472,
        (),
        False,
    )
    assert {one.name: one.mtu for one in config.interfaces} == {"eth0": 1500, "cni0": 1450, "flannel.1": 1450}
    wire = Watch(net, "host1:eth0")
    send(net, "p1a", call(net, "p1a", "p2a"))
    [outer] = wire.packets()
    assert Udp.parse(outer.payload)[0].dport == 8472
    assert one(net["p2a"]).ttl == 62
    net.balanced()


@vxlan("FL-03")
def test_what_is_known_of_a_peer_and_that_nothing_is_asked_on_the_overlay() -> None:
    net = lab("vxlan")
    config = host(net, "host1")
    vtep = net.mac("host2", "flannel.1")
    assert route("10.244.2.0/24", "flannel.1", "10.244.2.0") in config.routes
    assert (vtep, ip("192.168.9.12")) in config.vxlans[0].remotes
    assert any((row.address, row.mac) == (ip("10.244.2.0"), vtep) for row in config.neighbors)
    overlay = Watch(net, "host1:flannel.1")
    send(net, "p1a", call(net, "p1a", "p2a"))
    assert [frame[12:14] for frame in overlay.frames] == [b"\x08\x00"], "no ARP"
    assert one(net["p2a"]).src == "10.244.1.2"
    assert net["ext:flannel.1"].got == []
    net.balanced()


@vxlan("FL-04")
def test_the_inner_frame_and_that_the_tunnel_costs_no_ttl() -> None:
    net = lab("vxlan")
    wire = Watch(net, "host1:eth0")
    send(net, "p1a", call(net, "p1a", "p2a", ttl=64))
    [outer] = wire.packets()
    assert (outer.ttl, outer.src, outer.dst) == (64, "192.168.9.11", "192.168.9.12")
    _, carried = Udp.parse(outer.payload)
    inner = seen(carried[8:])
    assert (inner.source_mac, inner.destination_mac) == (net.mac("host1", "flannel.1"), net.mac("host2", "flannel.1"))
    assert inner.ttl == 63
    packet = one(net["p2a"])
    assert (packet.ttl, packet.source_mac) == (62, net.mac("host2", "cni0"))
    send(net, "p1a", call(net, "p1a", "p2a"))
    [again] = wire.packets()
    assert again.v4.identification != outer.v4.identification
    net.balanced()


@vxlan("FL-05")
def test_a_route_without_a_neighbour_or_a_remote_puts_nothing_on_the_wire() -> None:
    for field in ("neighbors", "remotes"):
        net = lab("vxlan")
        before = host(net, "host1")
        if field == "neighbors":
            changed = replace(before, neighbors=())
        else:
            changed = replace(before, vxlans=(replace(before.vxlans[0], remotes=()),))
        net.config = replace(net.config, hosts=(changed, *net.config.hosts[1:]))
        net.world.configure(net.config)
        wire = Watch(net, "host1:eth0")
        codes = send(net, "p1a", call(net, "p1a", "p2a"))
        assert codes[-1] == ("NEIGHBOR_ASKED" if field == "neighbors" else "VXLAN_NO_REMOTE")
        net.world.advance(10 * SECOND)
        assert wire.frames == [], "no question, no flood"
        assert net.world.ledger.reasons["VXLAN_NO_REMOTE"] == (3 if field == "neighbors" else 1)
        net.balanced()


@of_router("FL-06")
def test_the_pods_mtu_and_who_tells() -> None:
    net = lab("vxlan")
    assert net["p1a"].mtu == 1450
    source, target = net["p1a"].address(), net["p2a"].address()
    send(net, "p1a", datagram(source, target, 5, 6, bytes(1451 - 28), dont_fragment=True))
    error = one(net["p1a"])
    assert (error.error, error.icmp.mtu, error.src) == ((3, 4), 1450, "10.244.1.1")
    wire = Watch(net, "host1:eth0")
    send(net, "p1a", datagram(source, target, 5, 6, bytes(1451 - 28)))
    outers = wire.packets()
    assert [outer.v4.is_fragment for outer in outers] == [False, False], "cut before it is wrapped"
    pieces = got(net["p2a"])
    assert sum(len(piece.payload) for piece in pieces) == 1451 - 20
    assert [piece.v4.fragment_offset for piece in pieces] == [0, 1424]
    net.balanced()


@of_router("FL-07")
def test_direct_routing_between_hosts_on_one_network() -> None:
    net = lab("{kind: vxlan, directRouting: true}")
    wire = Watch(net, "host1:eth0")
    send(net, "p1a", call(net, "p1a", "p2a"))
    [on_wire] = wire.packets()
    assert (on_wire.src, on_wire.ttl) == ("10.244.1.2", 63), "as it is, no tunnel"
    assert one(net["p2a"]).ttl == 62
    assert net["p1a"].mtu == 1450, "the MTU stays the tunnel's: another peer may be elsewhere"
    net.balanced()


@pytest.mark.rule("FL-10", element="sockets")
def test_the_zeroth_address_of_a_hosts_range_is_its_own() -> None:
    net = lab("vxlan")
    interface = next(one for one in host(net, "host2").interfaces if one.name == "flannel.1")
    assert [str(row) for row in interface.addresses] == ["10.244.2.0/32"]
    send(net, "p1a", echo(net["p1a"].address(), ip("10.244.2.0")))
    packet = one(net["host2:flannel.1"])
    assert (packet.dst, packet.ttl) == ("10.244.2.0", 63)
    reply = echo(ip("10.244.2.0"), net["p1a"].address())
    net.send("host2:flannel.1", interface.mac * 2 + b"\x08\x00" + reply)
    assert one(net["p1a"]).src == "10.244.2.0"
    net.balanced()


def test_a_hosts_own_packets_go_by_the_overlay_from_its_own_address() -> None:
    net = lab("vxlan")
    mac = net.mac("host1", "flannel.1")
    net.send("host1:flannel.1", mac * 2 + b"\x08\x00" + echo(ip("10.244.1.0"), net["p2a"].address()))
    packet = one(net["p2a"])
    assert (packet.src, packet.ttl) == ("10.244.1.0", 63)
    net.balanced()


def test_the_time_of_a_whole_way_is_none() -> None:
    net = lab("vxlan")
    net.world.advance(5 * MILLISECOND)
    send(net, "p1a", call(net, "p1a", "p2a"))
    assert [at for at, _ in net["p2a"].got] == [5 * MILLISECOND]
    assert IPv4.parse(net["p2a"].got[0][1][14:])[0].ttl == 62
    net.balanced()
