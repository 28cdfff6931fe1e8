"""Frames in UDP: what a tunnel end makes and takes (fidelity VX-01 to VX-11)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from emunet.elements.vxlan import VxlanElement
from emunet.packet import udp
from emunet.packet.checksum import pseudo_sum
from emunet.packet.ipv4 import IPv4
from emunet.packet.offload import GSO_NONE, NEEDS_CSUM, Offload
from tests.stories.benches import (
    BROADCAST,
    SECOND,
    UDP,
    Net,
    Seen,
    datagram,
    device,
    echo,
    got,
    ip,
    mac,
    one,
    own_stack,
    seen,
    segment,
    tunnels,
)

Mark = Callable[[str], pytest.MarkDecorator]
vxlan: Mark = lambda rule: pytest.mark.rule(rule, element="vxlan")  # noqa: E731

VX_A, VX_B = mac("02:00:00:00:09:01"), mac("02:00:00:00:09:02")
ETH_A, ETH_B = bytes((2, 0, 0, 0, 8, 1)), bytes((2, 0, 0, 0, 8, 2))
A, B = ip("10.9.0.1"), ip("10.9.0.2")
OUTER_A, OUTER_B = ip("192.168.9.1"), ip("192.168.9.2")


class Wiretap:
    """What crosses the wire between the two hosts."""

    def __init__(self, net: Net) -> None:
        self.frames: list[bytes] = []
        net.world.tap("a:eth0", self)

    def write(self, record: object) -> None:
        self.frames += record.frames  # type: ignore[attr-defined]

    def outer(self) -> list[tuple[Seen, udp.Udp, bytes]]:
        """(outer packet, ports, VXLAN header and what it carries) of each tunnelled frame, and forget them."""
        found = []
        for frame in self.frames:
            if frame[12:14] == b"\x08\x00":
                packet = seen(frame)
                assert udp.checksum_valid(packet.packet[12:16], packet.packet[16:20], packet.payload)
                found.append((packet, *udp.Udp.parse(packet.payload)))
        self.frames.clear()
        return found


def say(net: Net, packet: bytes) -> list[str]:
    """A's own program sends a packet on vx."""
    return net.send("a:vx", VX_A + VX_A + b"\x08\x00" + packet).codes


def meet(net: Net) -> None:
    """Let the two learn each other's MACs on vx (where they can) and on the wire."""
    say(net, datagram(A, B, 1, 1))
    for station in net.stations.values():
        station.got.clear()


def pair(**settings: bool) -> tuple[Net, Wiretap]:
    """Two tunnel ends that know each other's MAC, and a look at the wire."""
    from dataclasses import replace

    from tests.stories.benches import StaticNeighbor

    net = tunnels(**settings)
    hosts = tuple(
        replace(
            host, neighbors=(StaticNeighbor("vx", B if host.name == "a" else A, VX_B if host.name == "a" else VX_A),)
        )
        for host in net.config.hosts
    )
    net.config = replace(net.config, hosts=hosts)
    net.world.configure(net.config)
    tap = Wiretap(net)
    meet(net)
    tap.frames.clear()
    return net, tap


@vxlan("VX-01")
def test_the_header_and_what_it_carries() -> None:
    net, tap = pair()
    say(net, datagram(A, B, 5, 6, b"data"))
    [(_, ports, carried)] = tap.outer()
    assert carried[:8].hex() == "0800000000000100"
    assert ports.dport == 4789
    inner = carried[8:]
    assert inner[:14] == VX_B + VX_A + b"\x08\x00"
    assert inner[14:] == datagram(A, B, 5, 6, b"data")
    assert one(net["b:vx"]).ttl == 64
    net.balanced()


@vxlan("VX-02")
def test_the_outer_header_is_the_hosts_own_whatever_is_inside() -> None:
    net, tap = pair()
    for fields in (
        {"ttl": 3, "tos": 0xB8, "dont_fragment": True, "identification": 9},
        {"ttl": 200, "identification": 9},
    ):
        say(net, datagram(A, B, 5, 6, **fields))
    outers = [packet for packet, _, _ in tap.outer()]
    assert [(packet.ttl, packet.v4.tos, packet.v4.dont_fragment) for packet in outers] == [(64, 0, False)] * 2
    first, second = (packet.v4.identification for packet in outers)
    assert second == (first + 1) & 0xFFFF
    assert {(packet.src, packet.dst) for packet in outers} == {("192.168.9.1", "192.168.9.2")}
    net.balanced()


@vxlan("VX-03")
def test_the_source_port_tells_flows_apart_and_is_stable() -> None:
    net, tap = pair()
    for tos in (0, 8):
        for ttl in (64, 5):
            say(net, datagram(A, B, 5, 6, tos=tos, ttl=ttl))
    same = {ports.sport for _, ports, _ in tap.outer()}
    assert len(same) == 1
    for port in range(100):
        say(net, datagram(A, B, 1000 + port, 6))
        say(net, segment(A, B, 1000 + port, 6, 2))
    spread = {ports.sport for _, ports, _ in tap.outer()}
    assert len(spread) > 150
    assert min(spread) >= 49152
    net.balanced()


def outer_frame(carried: bytes, *, port: int = 4789, checksum: bytes | None = None) -> bytes:
    """A frame that reaches B's eth0 as if A had wrapped `carried` (header and inner frame)."""
    datagram_ = udp.Udp(50000, port).pack(OUTER_A, OUTER_B, carried)
    if checksum is not None:
        datagram_ = datagram_[:6] + checksum + datagram_[8:]
    return ETH_B + ETH_A + b"\x08\x00" + IPv4(OUTER_A, OUTER_B, UDP).pack(datagram_)


INNER = VX_B + VX_A + b"\x08\x00" + datagram(A, B, 5, 6, b"data")
HEADER = bytes.fromhex("0800000000000100")


def receive(net: Net, frame: bytes) -> list[str]:
    """A frame comes in at B's eth0."""
    return net.from_wire("b", "eth0", frame).codes


@vxlan("VX-04")
def test_checksums_are_sent_and_a_missing_one_is_accepted_and_a_wrong_one_not() -> None:
    net, tap = pair()
    say(net, datagram(A, B, 5, 6))
    [(packet, _, _)] = tap.outer()
    assert packet.payload[6:8] != bytes(2)
    got(net["b:vx"])
    assert receive(net, outer_frame(HEADER + INNER, checksum=bytes(2)))[-1] == "RECEIVED"
    assert one(net["b:vx"]).src == "10.9.0.1"
    assert receive(net, outer_frame(HEADER + INNER, checksum=b"\x12\x34"))[-1] == "VXLAN_BAD_CHECKSUM"
    assert got(net["b:vx"]) == []
    net.balanced()


@vxlan("VX-04")
@pytest.mark.parametrize("open_one", ["outer", "inner"])
def test_a_kernel_may_leave_either_checksum_open(open_one: str) -> None:
    """As its vxlan device does towards a TAP: the outer one, or the inner one, on which the outer one counts then."""
    net, _ = pair()
    whole = outer_frame(HEADER + INNER)
    start = 34 if open_one == "outer" else 34 + 8 + 8 + 34
    source, destination = (OUTER_A, OUTER_B) if open_one == "outer" else (A, B)
    partial = pseudo_sum(source, destination, UDP, len(whole) - start).to_bytes(2, "big")
    frame = whole[: start + 6] + partial + whole[start + 8 :]
    offload = Offload(NEEDS_CSUM, GSO_NONE, 0, 0, start, 6)
    for _ in range(2):  # and again, when the flow cache could know it
        assert net.from_wire("b", "eth0", frame, offload).codes[-1] == "RECEIVED"
        [received] = got(net["b:vx"])
        assert udp.checksum_valid(A, B, received.payload)
    assert net.from_wire("b", "eth0", frame).codes[-1] == "VXLAN_BAD_CHECKSUM", "nobody said that it is open"
    net.balanced()


@vxlan("VX-05")
@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("0000000000000100", "VXLAN_MALFORMED"),
        ("0c00000000000100", "VXLAN_MALFORMED"),
        ("0800000100000100", "VXLAN_MALFORMED"),
        ("0800000000000101", "VXLAN_MALFORMED"),
        ("8800000000000100", "VXLAN_MALFORMED"),
        ("0800000000000200", "VXLAN_UNKNOWN_VNI"),
        ("08000000", "VXLAN_MALFORMED"),
    ],
)
def test_other_flags_reserved_bits_and_networks_are_refused(header: str, reason: str) -> None:
    net, _ = pair()
    assert receive(net, outer_frame(bytes.fromhex(header) + (INNER if len(header) == 16 else b"")))[-1] == reason
    assert got(net["b:vx"]) == []
    receive(net, outer_frame(HEADER + INNER))
    assert one(net["b:vx"]).dst == "10.9.0.2"
    net.balanced()


@pytest.mark.rule("VX-06", element="endpoint")
def test_another_port_is_an_ordinary_closed_one() -> None:
    net, _ = pair()
    own_stack(net, "b")
    receive(net, outer_frame(HEADER + INNER, port=4790))
    assert one(net["a:eth0"]).error == (3, 3)
    net.balanced()


@pytest.mark.rule("VX-07", element="link")
def test_an_inner_frame_for_another_mac_is_not_delivered_up() -> None:
    net, _ = pair()
    other = mac("02:00:00:00:09:77") + INNER[6:]
    assert receive(net, outer_frame(HEADER + other))[-1] == "NOT_FOR_US"
    assert got(net["b:vx"]) == []
    net.balanced()


@pytest.mark.rule("VX-08", element="fragment")
def test_the_tunnels_mtu_is_the_wires_less_fifty() -> None:
    net, tap = pair()
    say(net, datagram(A, B, 5, 6, bytes(1450 - 28)))
    say(net, datagram(A, B, 5, 6, bytes(1451 - 28)))
    sizes = [len(packet.packet) for packet, _, _ in tap.outer()]
    assert sizes == [1500, 1444 + 50, 27 + 50], "cut before it is wrapped: two outer packets, none cut"
    assert len(got(net["b:vx"])) == 3
    net.balanced()


@vxlan("VX-09")
def test_without_a_default_remote_what_is_unknown_is_dropped() -> None:
    net, tap = pair(remotes=False)
    assert say(net, datagram(A, B, 5, 6))[-1] == "VXLAN_NO_REMOTE"
    assert tap.frames == []
    assert got(net["b:vx"]) == []
    net.balanced()


@vxlan("VX-10")
def test_with_learning_the_unknown_goes_to_every_remote_and_the_known_to_its_own() -> None:
    net, tap = pair(remotes=False, flood=True, learning=True)
    element = device(net, "a").elements["vxlan vx"]
    assert isinstance(element, VxlanElement)
    element.reconfigure(
        type(element.config)("vx", 1, 4789, OUTER_A, (), (OUTER_B, ip("192.168.9.3")), learning=True), element.mtu
    )
    net["a:vx"].got.clear()
    assert "VXLAN_FLOODED" in say(net, datagram(A, B, 5, 6))
    net.world.advance(10 * SECOND)  # nobody is 192.168.9.3
    assert {packet.dst for packet, _, _ in tap.outer()} == {"192.168.9.2"}
    net.send("b:vx", VX_B + VX_B + b"\x08\x00" + datagram(B, A, 6, 5))
    assert dict(element.learned.items(net.world.now)) == {VX_B: OUTER_B}
    tap.frames.clear()
    assert "VXLAN_ENCAPSULATED" in say(net, datagram(A, B, 5, 6))
    assert len(tap.outer()) == 1
    say(net, datagram(A, ip("10.9.0.255"), 5, 6))
    assert len(tap.outer()) == 1, "a broadcast goes to all again, one of whom is still unknown"
    net.world.advance(net.world.now + 301 * SECOND)
    tap.frames.clear()
    assert "VXLAN_FLOODED" in say(net, datagram(A, B, 5, 6)), "after 300 s it is forgotten"
    net.world.advance(net.world.now + 10 * SECOND)
    net.balanced()


@vxlan("VX-10")
def test_what_is_learned_moves_but_not_from_what_is_given() -> None:
    net, _ = pair(learning=True)
    element = device(net, "b").elements["vxlan vx"]
    assert isinstance(element, VxlanElement)
    stranger = mac("02:00:00:00:09:55")
    from_elsewhere = udp.Udp(50000, 4789).pack(ip("192.168.9.9"), OUTER_B, HEADER + VX_B + stranger + INNER[12:])
    receive(net, ETH_B + ETH_A + b"\x08\x00" + IPv4(ip("192.168.9.9"), OUTER_B, UDP).pack(from_elsewhere))
    receive(net, outer_frame(HEADER + VX_B + stranger + INNER[12:]))
    assert dict(element.learned.items(net.world.now)) == {stranger: OUTER_A}
    spoofed = udp.Udp(50000, 4789).pack(ip("192.168.9.9"), OUTER_B, HEADER + INNER)
    codes = receive(net, ETH_B + ETH_A + b"\x08\x00" + IPv4(ip("192.168.9.9"), OUTER_B, UDP).pack(spoofed))
    assert codes[-1] == "VXLAN_MOVED"
    assert receive(net, outer_frame(HEADER + VX_B + VX_B + INNER[12:]))[-1] == "VXLAN_ECHO"
    assert receive(net, outer_frame(HEADER + VX_B + BROADCAST + INNER[12:]))[-1] == "GROUP_SOURCE"
    net.balanced()


@vxlan("VX-11")
def test_a_tunnel_end_does_not_cut_what_it_wraps_and_carries_a_tag_as_it_is() -> None:
    net, tap = pair()
    element = device(net, "a").elements["vxlan vx"]
    from emunet.packet.view import Packet

    tagged = VX_B + VX_A + bytes.fromhex("810060050800") + datagram(A, B, 5, 6)
    step = element.handle(Packet(tagged), "encapsulate", 0)
    assert step.reason.name == "VXLAN_ENCAPSULATED"
    assert receive(net, outer_frame(HEADER + tagged))[-1] == "UNKNOWN_ETHERTYPE"
    say(net, datagram(A, B, 5, 6, bytes(1450 - 28), dont_fragment=True))
    [(packet, _, _)] = tap.outer()
    assert (len(packet.packet), packet.v4.is_fragment) == (1500, False)
    net.balanced()


@pytest.mark.parametrize("inner", [0, 1, 2, 3])
@pytest.mark.parametrize("outer", [0, 1, 2, 3])
def test_congestion_marks_cross_the_tunnel(inner: int, outer: int) -> None:
    """RFC 6040 4.1 and 4.2, in their normal mode."""
    net, tap = pair()
    say(net, datagram(A, B, 5, 6, tos=inner))
    [(packet, _, _)] = tap.outer()
    assert packet.v4.tos == {0: 0, 1: 1, 2: 2, 3: 2}[inner]
    got(net["b:vx"])
    carried = HEADER + VX_B + VX_A + b"\x08\x00" + datagram(A, B, 5, 6, tos=inner)
    wrapped = IPv4(OUTER_A, OUTER_B, UDP, tos=outer).pack(udp.Udp(50000, 4789).pack(OUTER_A, OUTER_B, carried))
    codes = receive(net, ETH_B + ETH_A + b"\x08\x00" + wrapped)
    if inner == 0 and outer == 3:
        assert codes[-1] == "VXLAN_CONGESTED"
    else:
        expected = 3 if outer == 3 else 1 if (inner, outer) == (2, 1) else inner
        assert one(net["b:vx"]).v4.tos == expected
    net.balanced()


def test_bytes_behind_the_datagram_are_not_carried_on() -> None:
    net, _ = pair()
    wrapped = udp.Udp(50000, 4789).pack(OUTER_A, OUTER_B, HEADER + INNER) + b"trailer"
    receive(net, ETH_B + ETH_A + b"\x08\x00" + IPv4(OUTER_A, OUTER_B, UDP).pack(wrapped))
    assert net["b:vx"].got[-1][1] == INNER
    net.balanced()


def test_an_echo_through_the_tunnel() -> None:
    net, _ = pair()
    own_stack(net, "b")
    say(net, echo(A, B))
    assert one(net["a:vx"]).icmp.type == 0
    net.balanced()
