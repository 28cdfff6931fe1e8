"""Fragments on a host that tracks connections, as stories: put together, translated, cut again, or given up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from emunet.elements.connections import ConnectionsConfig
from emunet.elements.reassemble import MEMORY, Reassemble
from emunet.packet import ipv4, ipv6, udp
from emunet.plane.reason import Kind, Reason
from tests.elements.connection_worlds import OUTSIDE, Tracked, cut_udp, ip
from tests.worlds import SECOND, datagram

POD1, POD2, POD3 = ip("10.244.1.2"), ip("10.244.1.3"), ip("10.244.2.2")
CNI1, NODE1, NODE2 = ip("10.244.1.1"), ip("192.168.9.11"), ip("192.168.9.12")


@pytest.fixture
def net() -> Tracked:
    """host2 is a plain router, so that what its sockets send comes in pieces."""
    net = Tracked()
    net.rules(None, "host2")
    return net


def whole(frames: list[bytes]) -> bytes:
    """The datagram that these fragments make."""
    parts = sorted((ipv4.IPv4.parse(frame[14:]) for frame in frames), key=lambda part: part[0].fragment_offset)
    return b"".join(body for _, body in parts)


def sizes(frames: list[bytes]) -> list[int]:
    """The lengths of the IP packets in these frames."""
    return [len(frame) - 14 for frame in frames]


def right(frames: list[bytes]) -> None:
    """Together they are a UDP datagram with a right checksum."""
    header, _ = ipv4.IPv4.parse(frames[0][14:])
    assert udp.checksum_valid(header.src, header.dst, whole(frames))


@pytest.mark.rule("CT-05", element="reassemble")
def test_a_datagram_in_pieces_is_translated_and_leaves_in_pieces(net: Tracked) -> None:
    net.say(OUTSIDE, datagram(NODE2, NODE1, 5000, 9999, b"who has it?"))
    net.heard("web-2")
    ledger = net.world.devices["host1"].ledger
    before = (ledger.consumed, ledger.copied)
    pieces = cut_udp(NODE2, NODE1, 5000, 9999, [1480, 1480, 1040 + 8], identification=4)
    codes = [net.say(OUTSIDE, piece).codes for piece in pieces]
    assert [row[-1] for row in codes[:2]] == ["FRAGMENT_WAITS", "FRAGMENT_WAITS"]
    assert codes[2].count("REASSEMBLED") == 1
    frames = net.frames("web-2")
    assert sizes(frames) == [1500, 1500, 1068]
    right(frames)
    assert {frame[26:34] for frame in frames} == {NODE2 + POD2}
    ledger = net.world.devices["host1"].ledger
    assert (ledger.consumed - before[0], ledger.copied - before[1], ledger.queued) == (2, 2, 0)


def test_how_it_was_cut_is_how_it_leaves_in_whatever_order_it_came(net: Tracked) -> None:
    pieces = cut_udp(NODE2, NODE1, 5000, 9999, [512, 1000, 24, 16], identification=4)
    for number in (2, 3, 0, 1):
        net.say(OUTSIDE, pieces[number])
    frames = net.frames("web-2")
    assert sizes(frames) == [532, 1020, 44, 36]
    right(frames)


def test_what_went_up_through_a_bridge_is_cut_only_where_it_does_not_fit(net: Tracked) -> None:
    for pieces, expected in (([480, 480], [980]), ([800, 800], [820, 820])):
        for piece in cut_udp(POD1, NODE2, 5000, 80, pieces, identification=len(pieces) + pieces[0]):
            net.say("web-1", piece)
        frames = net.frames(OUTSIDE)
        assert sizes(frames) == expected
        net[OUTSIDE].got.clear()


def test_a_bridged_datagram_leaves_as_it_came(net: Tracked) -> None:
    for piece in cut_udp(POD1, NODE1, 5000, 9999, [800, 1200, 8], identification=4):
        net.say("web-1", piece)
    frames = net.frames("web-2")
    assert sizes(frames) == [820, 1220, 28]
    right(frames)
    assert {frame[22] for frame in frames} == {64}


def test_what_the_host_sends_in_pieces_is_put_together_first_and_so_is_what_it_gets(net: Tracked) -> None:
    net.rules(ConnectionsConfig(), "host2")
    for piece in cut_udp(NODE2, NODE1, 5000, 7, [1480, 600], identification=4):
        net.say(OUTSIDE, piece)
    assert len(net.lines("host2")) == 1
    assert sizes(net.frames("host1:eth0")) == [1500, 620]
    right(net.frames("host1:eth0"))


def test_through_a_tunnel_it_is_cut_to_the_tunnels_mtu() -> None:
    net = Tracked("vxlan")
    for piece in cut_udp(POD1, POD3, 5000, 80, [1424, 1424, 200], identification=4):
        net.say("web-1", piece)
    frames = net.frames("web-3")
    assert sizes(frames) == [1444, 1444, 220]
    right(frames)


@pytest.mark.rule("FR-04", element="reassemble")
def test_dont_fragment_counts_if_the_largest_piece_had_it(net: Tracked) -> None:
    host = net.config.hosts[0]
    narrow = tuple(
        replace(interface, mtu=1280) if interface.name == "cni0" else interface for interface in host.interfaces
    )
    net.config = replace(net.config, hosts=(replace(host, interfaces=narrow), *net.config.hosts[1:]))
    net.world.configure(net.config)
    for piece in cut_udp(NODE2, NODE1, 5000, 9999, [1480, 80], identification=4, dont_fragment=True):
        trace = net.say(OUTSIDE, piece)
    assert "TOO_BIG" in trace.codes
    assert net.heard(OUTSIDE) == [
        "icmp 3/4 192.168.9.11 -> 192.168.9.12 ttl 64 about (192.168.9.12:5000 -> 192.168.9.11:9999)"
    ]
    for piece in cut_udp(NODE2, NODE1, 5000, 9999, [1480, 80], identification=5):
        net.say(OUTSIDE, piece)
    assert sizes(net.frames("web-2")) == [1276, 324]


# What never becomes whole


def answers(net: Tracked, pieces: list[bytes]) -> list[str]:
    """The last code of each piece's trace."""
    return [net.say(OUTSIDE, piece).codes[-1] for piece in pieces]


@pytest.mark.rule("FR-05", element="reassemble")
def test_a_piece_that_came_before_is_dropped_alone(net: Tracked) -> None:
    pieces = cut_udp(NODE2, NODE1, 5000, 9999, [800, 800, 80], identification=4)
    assert answers(net, [pieces[0], pieces[1], pieces[0]])[-1] == "FRAGMENT_DUPLICATE"
    net.say(OUTSIDE, pieces[2])
    right(net.frames("web-2"))


@pytest.mark.rule("FR-05", element="reassemble")
def test_pieces_that_overlap_end_the_datagram(net: Tracked) -> None:
    pieces = cut_udp(NODE2, NODE1, 5000, 9999, [800, 800, 80], identification=4)
    header, body = ipv4.IPv4.parse(pieces[1])
    shifted = replace(header, fragment_offset=header.fragment_offset - 8).pack(body)
    assert answers(net, [pieces[0], shifted])[-1] == "REASSEMBLY_CONTRADICTION"
    assert net.world.ledger.reasons == {"REASSEMBLY_CONTRADICTION": 2}
    assert answers(net, pieces[1:]) == ["FRAGMENT_WAITS", "FRAGMENT_WAITS"]
    assert net.frames("web-2") == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({1: {"fragment_offset": 4000}}, "its last fragment ends before others"),
        ({0: {"tos": 0}, 1: {"tos": 3}}, "the congestion marks of its fragments contradict each other (RFC 3168 5.3)"),
    ],
)
def test_pieces_that_contradict_each_other_end_the_datagram(
    net: Tracked, changes: dict[int, dict[str, int]], problem: str
) -> None:
    pieces = cut_udp(NODE2, NODE1, 5000, 9999, [800, 800, 80], identification=4)
    for number, fields in changes.items():
        header, body = ipv4.IPv4.parse(pieces[number])
        pieces[number] = replace(header, **fields).pack(body)  # type: ignore[arg-type]
    traces = [net.say(OUTSIDE, piece) for piece in pieces]
    assert traces[-1].codes[-1] == "REASSEMBLY_CONTRADICTION"
    assert traces[-1].sentence == f"its datagram was given up by host1: {problem}"


def test_congestion_marks_join(net: Tracked) -> None:
    pieces = cut_udp(NODE2, NODE1, 5000, 9999, [800, 80], identification=4, tos=2)
    header, body = ipv4.IPv4.parse(pieces[1])
    for piece in (pieces[0], replace(header, tos=3).pack(body)):
        net.say(OUTSIDE, piece)
    assert {frame[15] for frame in net.frames("web-2")} == {3}


@pytest.mark.rule("FR-05", element="reassemble")
@pytest.mark.parametrize(
    ("target", "kept", "told"),
    [
        (NODE1, [0, 1], ["icmp 11/1 192.168.9.11 -> 192.168.9.12 ttl 64 about (192.168.9.12:5000 -> 192.168.9.11:7)"]),
        (NODE1, [1, 2], []),
        (POD1, [0, 1], []),
    ],
)
def test_after_30_s_what_there_is_ends_and_only_the_hosts_own_is_told_of(
    net: Tracked, target: bytes, kept: list[int], told: list[str]
) -> None:
    pieces = cut_udp(NODE2, target, 5000, 7, [800, 800, 80], identification=4)
    assert answers(net, [pieces[number] for number in kept]) == ["FRAGMENT_WAITS"] * 2
    net.world.advance(30 * SECOND - 1)
    assert net.world.devices["host1"].ledger.queued == 2
    net.world.advance(30 * SECOND)
    assert net.world.ledger.reasons == {"REASSEMBLY_TIMEOUT": 2}
    net.balanced()
    assert net.heard(OUTSIDE) == told
    assert net.say(OUTSIDE, pieces[2]).codes[-1] == "FRAGMENT_WAITS"


def test_memory_is_bounded_and_the_oldest_makes_room(net: Tracked) -> None:
    element = net.world.devices["host1"].elements["reassemble"]
    assert isinstance(element, Reassemble)
    most = 0
    for number in range(3000):
        first = cut_udp(NODE2, NODE1, 5000, 7, [1480, 80], identification=number)[0]
        net.world.receive(net[OUTSIDE], net.frame(OUTSIDE, first), number)
        most = max(most, element.memory.peek())
    net.balanced()
    assert most <= MEMORY
    assert net.world.ledger.reasons["REASSEMBLY_FULL"] == 3000 - len(element.table)
    assert {key[4] for key, _ in element.table.items(3000)} == set(range(3000 - len(element.table), 3000))
    net.world.advance(3000 + 31 * SECOND)
    assert element.memory.peek() == 0
    net.balanced()


def test_asking_what_would_happen_changes_nothing(net: Tracked) -> None:
    pieces = cut_udp(NODE2, NODE1, 5000, 9999, [800, 80], identification=4)
    net.say(OUTSIDE, pieces[0])
    for _ in range(3):
        codes = net.world.explain(net[OUTSIDE], net.frame(OUTSIDE, pieces[1])).codes
        assert "REASSEMBLED" in codes
        assert net.world.explain(net[OUTSIDE], net.frame(OUTSIDE, pieces[0])).codes[-1] == "FRAGMENT_DUPLICATE"
    net.balanced()
    net.say(OUTSIDE, pieces[1])
    right(net.frames("web-2"))


# IPv6


def test_ipv6_fragments_are_put_together_and_leave_as_they_came(net: Tracked) -> None:
    outside, node, pod = (net.address(name, 16) for name in (OUTSIDE, "host1:eth0", "web-2"))
    body = udp.Udp(5000, 9999).pack(outside, node, bytes(3000))
    packet = ipv6.IPv6(outside, node, ipv4.UDP).pack(body)
    for piece in ipv6.fragment(packet, 1400, 77):
        net.say(OUTSIDE, piece)
    frames = net.frames("web-2")
    assert [len(frame) - 14 for frame in frames] == [1400, 1400, 40 + 8 + 3008 - 2 * 1352]
    datagram = b"".join(frame[14 + 48 :] for frame in frames)
    assert udp.checksum_valid(outside, pod, datagram)
    assert [ipv6.FragmentHeader.parse(frame[54:]).identification for frame in frames] == [77, 77, 77]
    net.balanced()


def test_an_ipv6_datagram_that_stays_in_pieces_ends_after_60_s(net: Tracked) -> None:
    outside, node = net.address(OUTSIDE, 16), net.address("host1:eth0", 16)
    packet = ipv6.IPv6(outside, node, ipv4.UDP).pack(udp.Udp(5000, 7).pack(outside, node, bytes(3000)))
    net.say(OUTSIDE, ipv6.fragment(packet, 1400, 77)[0])
    net.world.advance(60 * SECOND - 1)
    assert net.world.ledger.reasons == {}
    net.world.advance(60 * SECOND)
    assert net.heard(OUTSIDE) == [
        "icmp 3/1 fd00:192:168:9::11 -> fd00:192:168:9::12 ttl 64"
        " about (fd00:192:168:9::12:4352 -> fd00:192:168:9::11:1)"  # the fragment header: UDP, offset 0, more
    ]
    net.balanced()


def test_every_reason_of_this_place_is_of_the_right_kind() -> None:
    kinds = {reason.name: reason.kind for reason in Reason if reason.name.startswith(("REASSEMBL", "FRAGMENT_"))}
    assert kinds == {
        "REASSEMBLED": Kind.CONSUMED,
        "FRAGMENT_WAITS": Kind.HELD,
        "FRAGMENT_DUPLICATE": Kind.DROPPED,
        "FRAGMENT_MALFORMED": Kind.DROPPED,
        "REASSEMBLY_CONTRADICTION": Kind.DROPPED,
        "REASSEMBLY_FULL": Kind.DROPPED,
        "REASSEMBLY_TIMEOUT": Kind.DROPPED,
    }
