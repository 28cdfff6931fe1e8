"""The endpoint's neighbours: who is asked, who is answered, what is believed (ARP and ND)."""

from __future__ import annotations

import pytest

from emunet.elements.endpoint import Endpoint, Failure, State
from emunet.elements.endpoint.neighbors import MAXIMUM_ENTRIES, NeighborState, answer_neighbor_request
from emunet.elements.endpoint.network import SECOND
from emunet.packet import arp
from emunet.packet.address import (
    ALL_NODES_V6,
    BROADCAST_MAC,
    InterfaceAddress,
    multicast_mac,
    parse_ip,
    parse_mac,
    solicited_node,
)
from emunet.packet.arp import Arp
from emunet.packet.ethernet import Ethernet, build
from emunet.packet.icmp import Icmp
from emunet.packet.icmpv6 import Icmpv6, NeighborAdvertisement, NeighborSolicitation
from emunet.packet.ipv4 import IPv4
from emunet.packet.ipv6 import IPv6
from tests.elements.endpoint_frames import (
    BOTH,
    FAR4,
    FAR6,
    GATE,
    OUR4,
    OUR6,
    PEER,
    PEER4,
    PEER6,
    US,
    answer_from,
    frame,
    knowing,
    pod,
    request_for,
    target_of,
)

# --- neighbours


@pytest.mark.rule("ARP-01", element="endpoint")
def test_a_request_is_answered_and_the_asker_remembered() -> None:
    us = pod()
    (answer,) = us.receive(request_for(OUR4), 0)
    header, payload = Ethernet.parse(answer)
    assert len(answer) == 42
    assert (header.dst, header.src) == (PEER, US)
    assert Arp.parse(payload) == Arp(arp.REPLY, US, OUR4, PEER, PEER4)
    assert us.neighbors(0) == [(PEER4, PEER, NeighborState.STALE)]


def test_a_unicast_request_is_answered_with_padding_too() -> None:
    assert len(pod().receive(request_for(OUR4, dst=US) + bytes(18), 0)) == 1


@pytest.mark.rule("ARP-07", element="endpoint")
@pytest.mark.parametrize("operation", [arp.REQUEST, arp.REPLY])
def test_an_announcement_alone_makes_no_entry(operation: int) -> None:
    us = pod()
    gratuitous = build(BROADCAST_MAC, PEER, 0x0806, Arp(operation, PEER, PEER4, bytes(6), PEER4).pack())
    assert us.receive(gratuitous, 0) == []
    assert us.neighbors(0) == []
    us.receive(request_for(OUR4), 0)
    assert [row[:2] for row in us.neighbors(0)] == [(PEER4, PEER)], "a question to us does"


@pytest.mark.rule("ARP-08", element="endpoint")
@pytest.mark.rule("ARP-13", element="endpoint")
def test_an_announcement_of_a_known_address_replaces_its_mac() -> None:
    us = knowing()
    moved = build(BROADCAST_MAC, GATE, 0x0806, Arp(arp.REPLY, GATE, PEER4, bytes(6), PEER4).pack())
    us.receive(moved, SECOND // 2)
    assert us.mac_of(PEER4) == PEER, "locked for a second after the last news"
    us.receive(moved, 2 * SECOND)
    assert us.mac_of(PEER4) == GATE
    assert (PEER4, GATE, NeighborState.STALE) in us.neighbors(2 * SECOND)


@pytest.mark.rule("ARP-09", element="endpoint")
def test_a_probe_is_answered_and_not_remembered() -> None:
    us = pod()
    (answer,) = us.receive(request_for(OUR4, sender=bytes(4)), 0)
    assert Ethernet.parse(answer)[0].dst == PEER
    assert Arp.parse(answer[14:]) == Arp(arp.REPLY, US, OUR4, PEER, bytes(4))
    assert us.neighbors(0) == []


@pytest.mark.rule("V6-03", element="endpoint")
def test_a_solicitation_is_answered() -> None:
    us = pod()
    (answer,) = us.receive(request_for(OUR6), 0)
    header, packet = Ethernet.parse(answer)
    ip, message = IPv6.parse(packet)
    assert (header.dst, ip.src, ip.dst, ip.hop_limit) == (PEER, OUR6, PEER6, 255)
    news = NeighborAdvertisement.parse(Icmpv6.parse(OUR6, PEER6, message))
    assert news == NeighborAdvertisement(OUR6, US, router=False, solicited=True, override=True)
    assert us.neighbors(0) == [(PEER6, PEER, NeighborState.STALE)]
    router = answer_neighbor_request(request_for(OUR6), [OUR6], US, router=True)
    assert router is not None
    assert Icmpv6.parse(OUR6, PEER6, router[54:]).rest[0] == 0xE0


@pytest.mark.rule("V6-04", element="endpoint")
def test_a_duplicate_address_probe_is_answered_to_all_nodes() -> None:
    us = pod()
    (answer,) = us.receive(request_for(OUR6, sender=bytes(16)), 0)
    header, packet = Ethernet.parse(answer)
    ip, message = IPv6.parse(packet)
    assert (header.dst, ip.dst) == (multicast_mac(ALL_NODES_V6), ALL_NODES_V6)
    assert not NeighborAdvertisement.parse(Icmpv6.parse(ip.src, ip.dst, message)).solicited
    assert us.neighbors(0) == []


@pytest.mark.rule("V6-05", element="endpoint")
def test_discovery_that_was_forwarded_is_ignored() -> None:
    group = solicited_node(OUR6)
    question = NeighborSolicitation(OUR6, PEER).pack(PEER6, group)
    far = frame(IPv6(PEER6, group, 58, 254).pack(question), multicast_mac(group))
    assert pod().receive(far, 0) == []
    assert answer_neighbor_request(far, [OUR6], US) is None
    near = frame(IPv6(PEER6, group, 58, 255).pack(question), multicast_mac(group))
    assert len(pod().receive(near, 0)) == 1, "one that comes from the link itself is answered"


def test_what_is_not_asked_of_us_is_not_answered() -> None:
    us = pod()
    assert us.receive(request_for(PEER4), 0) == []
    assert us.receive(request_for(OUR4, sender=OUR4), 0) == [], "a conflict, not a question"
    assert us.receive(request_for(OUR4, mac=BROADCAST_MAC), 0) == []
    assert us.receive(request_for(OUR4, dst=GATE), 0) == []
    assert us.neighbors(0) == []
    for other in (b"", b"\0" * 14, frame(IPv4(PEER4, OUR4, 17).pack(b""))):
        assert answer_neighbor_request(other, [OUR4, OUR6], US) is None


@BOTH
@pytest.mark.rule("ARP-04", element="endpoint")
@pytest.mark.rule("V6-06", element="endpoint")
def test_an_unresolved_neighbour_is_asked_three_times_then_the_sender_hears_it(our: bytes, peer: bytes) -> None:
    us = pod()
    pings = []
    for sequence in range(2):
        ping, frames = us.ping(peer, sequence * SECOND // 10, sequence=sequence)
        pings.append(ping)
        assert len(frames) == (sequence == 0)
    times = [0]
    now = 0
    while (due := us.due()) is not None:
        now = due
        frames = us.wake(now)
        times += [now] * len(frames)
        for request in frames:
            dst = BROADCAST_MAC if len(peer) == 4 else multicast_mac(solicited_node(peer))
            assert target_of(request) == (dst, peer)
    assert times == [0, SECOND, 2 * SECOND]
    assert now == 3 * SECOND
    assert [ping.error for ping in pings] == [Failure.HOST_UNREACHABLE] * 2
    assert us.neighbors(now) == []
    assert len(us.ping(peer, now)[1]) == 1, "the next packet starts again"


@BOTH
@pytest.mark.rule("ARP-05", element="endpoint")
def test_packets_wait_for_the_answer_in_order_the_last_92_of_a_thousand_bytes(our: bytes, peer: bytes) -> None:
    us = pod()
    socket = us.udp_bind(5000)
    for number in range(400):
        socket.send(number.to_bytes(4, "big") + bytes(992), peer, 9, 0)
    frames = us.receive(answer_from(peer), SECOND // 2)
    header = 14 + (20 if len(peer) == 4 else 40) + 8
    assert [int.from_bytes(one[header : header + 4], "big") for one in frames] == list(range(308, 400))
    assert {Ethernet.parse(one)[0].dst for one in frames} == {PEER}
    assert (peer, PEER, NeighborState.REACHABLE) in us.neighbors(SECOND // 2)


@BOTH
@pytest.mark.rule("ARP-06", element="endpoint")
def test_a_stale_entry_is_used_then_checked(our: bytes, peer: bytes) -> None:
    us = knowing()
    later = 31 * SECOND
    assert (peer, PEER, NeighborState.STALE) in us.neighbors(later)
    socket = us.udp_bind()
    (sent,) = socket.send(b"x", peer, 9, later)
    assert Ethernet.parse(sent)[0].dst == PEER
    assert (peer, PEER, NeighborState.DELAY) in us.neighbors(later)
    requests = []
    for _ in range(3):
        due = us.due()
        assert due is not None
        requests += [(due - later, target_of(one)) for one in us.wake(due)]
    assert requests == [(second * SECOND, (PEER, peer)) for second in (5, 6, 7)]
    due = us.due()
    assert due == later + 8 * SECOND
    assert us.wake(due) == []
    assert us.mac_of(peer) is None


@BOTH
def test_an_answer_confirms_the_neighbour(our: bytes, peer: bytes) -> None:
    us = knowing()
    ping, _ = us.ping(peer, 40 * SECOND, identifier=7)
    if len(peer) == 4:
        reply = IPv4(peer, our, 1).pack(Icmp(0, 0, bytes((0, 7, 0, 1))).pack())
    else:
        reply = IPv6(peer, our, 58).pack(Icmpv6(129, 0, bytes((0, 7, 0, 1))).pack(peer, our))
    us.receive(frame(reply), 41 * SECOND)
    assert ping.rtt_ns == SECOND
    assert (peer, PEER, NeighborState.REACHABLE) in us.neighbors(41 * SECOND)
    assert us.due() is None


def test_the_neighbour_table_is_bounded() -> None:
    us = pod()
    for number in range(2 * MAXIMUM_ENTRIES):
        us.receive(request_for(OUR4, sender=bytes((10, 0, number >> 8, number & 255))), 0)
    assert len(us.neighbors(0)) == MAXIMUM_ENTRIES


def test_a_far_destination_goes_to_the_gateway() -> None:
    us = knowing()
    for far in (FAR4, FAR6):
        _, (sent,) = us.ping(far, 0)
        assert Ethernet.parse(sent)[0].dst == GATE
    lonely = Endpoint("lonely", US, (InterfaceAddress(OUR4, 24),))
    ping, frames = lonely.ping(FAR4, 0)
    assert (ping.error, frames) == (Failure.NETWORK_UNREACHABLE, [])
    assert lonely.ping(FAR6, 0)[0].error is Failure.NETWORK_UNREACHABLE
    connection, frames = lonely.connect(FAR4, 80, 0)
    assert (connection.error, connection.state, frames) == (Failure.NETWORK_UNREACHABLE, State.CLOSED, [])


@pytest.mark.rule("ARP-14", element="endpoint")
def test_group_destinations_are_never_asked_for() -> None:
    us = pod()
    socket = us.udp_bind()
    for group, mac in (
        (parse_ip("224.0.0.251"), parse_mac("01:00:5e:00:00:fb")),
        (parse_ip("ff02::fb"), parse_mac("33:33:00:00:00:fb")),
        (parse_ip("255.255.255.255"), BROADCAST_MAC),
        (parse_ip("10.0.0.255"), BROADCAST_MAC),
    ):
        (sent,) = socket.send(b"hello", group, 5353, 0)
        assert Ethernet.parse(sent)[0].dst == mac
    (question,) = socket.send(b"hello", PEER4, 5353, 0)
    assert target_of(question) == (BROADCAST_MAC, PEER4), "one station is asked for"
    (sent,) = us.receive(answer_from(PEER4), 0)
    assert Ethernet.parse(sent)[0].dst == PEER


@pytest.mark.rule("ARP-10")
def test_addresses_can_be_announced() -> None:
    first, second = pod().announce()
    assert Arp.parse(first[14:]) == Arp(arp.REQUEST, US, OUR4, bytes(6), OUR4)
    ip, message = IPv6.parse(second[14:])
    news = NeighborAdvertisement.parse(Icmpv6.parse(ip.src, ip.dst, message))
    assert (ip.dst, news.override, news.solicited) == (ALL_NODES_V6, True, False)
