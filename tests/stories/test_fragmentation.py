"""Packets too big for a link, and pieces put together again (fidelity FR-01 to FR-08)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from emunet.elements.endpoint.stack import Endpoint
from emunet.packet import ipv4
from emunet.packet.ipv4 import IPv4
from tests.stories.benches import (
    SECOND,
    UDP,
    Net,
    Seen,
    addresses,
    datagram,
    echo,
    got,
    host_mac,
    ip,
    one,
    router,
    router_mac,
    seen,
)

Mark = Callable[[str], pytest.MarkDecorator]
fragment: Mark = lambda rule: pytest.mark.rule(rule, element="fragment")  # noqa: E731

A, B, R = ip("10.0.1.2"), ip("10.0.2.2"), ip("10.0.1.1")


def narrow(mtu: int = 1400) -> Net:
    return router(mtus={"e2": mtu})


def cross(net: Net, packet: bytes) -> list[Seen]:
    """What h2 gets of a packet from h1."""
    net.send("h1", net.frame("h1", packet))
    return got(net["h2"])


def shapes(pieces: list[Seen]) -> list[tuple[int, int, bool]]:
    """(total length, offset in bytes, more fragments) of each."""
    return [(len(piece.packet), piece.v4.fragment_offset, piece.v4.more_fragments) for piece in pieces]


@fragment("FR-01")
def test_a_full_packet_through_a_smaller_mtu() -> None:
    net = narrow()
    sent = datagram(A, B, 5, 6, bytes(range(256)) * 5 + bytes(192), identification=0x77)
    assert len(sent) == 1500
    pieces = cross(net, sent)
    assert shapes(pieces) == [(1396, 0, True), (124, 1376, False)]
    assert {(piece.v4.identification, piece.ttl) for piece in pieces} == {(0x77, 63)}
    assert b"".join(piece.payload for piece in pieces) == sent[20:]
    net.balanced()


@fragment("FR-01")
def test_the_law_holds_in_pieces() -> None:
    net = narrow(100)
    sent = datagram(A, B, 5, 6, bytes(1400))
    pieces = cross(net, sent)
    assert len(pieces) == -(-1408 // 80)
    assert net.world.ledger.copied == len(pieces) - 1
    net.balanced()


@pytest.mark.rule("FR-02", element="router")
def test_what_may_not_be_cut_is_told_with_the_mtu() -> None:
    net = narrow()
    fits = datagram(A, B, 5, 6, bytes(1372), dont_fragment=True)
    assert [(len(piece.packet), piece.ttl) for piece in cross(net, fits)] == [(1400, 63)]
    assert cross(net, datagram(A, B, 5, 6, bytes(1373), dont_fragment=True)) == []
    error = one(net["h1"])
    assert (error.error, error.src, error.icmp.mtu, error.icmp.rest[:2]) == ((3, 4), "10.0.1.1", 1400, bytes(2))
    net.balanced()


@fragment("FR-03")
def test_fragments_are_cut_again_by_themselves_and_a_plain_router_joins_nothing() -> None:
    net = narrow()
    sent = ipv4.fragment(IPv4(A, B, UDP, identification=9).pack(bytes(3008)), 1500)
    assert [len(piece) for piece in sent] == [1500, 1500, 68]
    pieces = [piece for part in sent for piece in cross(net, part)]
    assert [len(piece.packet) for piece in pieces] == [1396, 124, 1396, 124, 68]
    assert [piece.v4.more_fragments for piece in pieces] == [True] * 4 + [False]
    assert [piece.v4.fragment_offset for piece in pieces] == [0, 1376, 1480, 2856, 2960]
    net.balanced()


@fragment("FR-07")
def test_only_options_with_the_copy_bit_are_in_later_pieces() -> None:
    net = narrow()
    record_route = bytes.fromhex("070704") + bytes(4)
    stream = bytes.fromhex("88041234")
    sent = IPv4(A, B, UDP, options=record_route + b"\x01" + stream).pack(bytes(1460))
    first, second = cross(net, sent)
    assert first.v4.options[:3] == bytes.fromhex("070708")
    assert first.v4.options[8:] == stream
    assert stream in second.v4.options
    assert record_route[:2] not in second.v4.options
    assert shapes([first, second])[1][1] == len(first.payload)
    net.balanced()


@pytest.mark.rule("FR-04", element="reassemble")
def test_a_router_that_tracks_connections_joins_first_and_cuts_as_it_came() -> None:
    from tests.stories.test_flannel import lab

    net = lab(more="masquerade: true")
    source, outside = net["p1a"].address(), net["ext:eth0"].address()
    sent = ipv4.fragment(datagram(source, outside, 40000, 53, bytes(3972), identification=77), 1500)
    assert [len(piece) for piece in sent] == [1500, 1500, 1040]
    for piece in (sent[2], sent[0], sent[1]):
        assert got(net["ext:eth0"]) == []
        net.send("p1a", net.frame("p1a", piece))
    pieces = got(net["ext:eth0"])
    assert [(len(piece.packet), piece.src, piece.ttl) for piece in pieces] == [
        (1500, "192.168.9.11", 63), (1500, "192.168.9.11", 63), (1040, "192.168.9.11", 63)
    ]  # fmt: skip
    net.balanced()


# The receiving stack


def stack() -> Endpoint:
    """A pod's own stack at h1's address, its gateway's MAC known."""
    from emunet.packet import arp

    pod = Endpoint("pod", host_mac(1), addresses("10.0.1.2/24"), (R,))
    pod.receive(arp.request(router_mac(1), R, A), 0)
    return pod


def take(pod: Endpoint, packet: bytes, now: int = 0) -> list[Seen]:
    frames = pod.receive(host_mac(1) + router_mac(1) + b"\x08\x00" + packet, now)
    return [seen(frame) for frame in frames]


endpoint: Mark = lambda rule: pytest.mark.rule(rule, element="endpoint")  # noqa: E731


def pieces_of(packet: bytes, mtu: int = 576) -> list[bytes]:
    return ipv4.fragment(packet, mtu)


@endpoint("FR-05")
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_a_datagram_is_put_together_in_any_order(order: tuple[int, ...]) -> None:
    pod = stack()
    request = echo(B, A, size=1400, identification=5)
    pieces = pieces_of(request)
    came = [reply for index in order for reply in take(pod, pieces[index])]
    assert [reply.icmp.body for reply in came] == [request[28:]]


@endpoint("FR-05")
def test_pieces_of_different_datagrams_are_kept_apart() -> None:
    pod = stack()
    one_request, other = (echo(B, A, size=1000, identification=number) for number in (5, 6))
    third = echo(ip("10.0.2.3"), A, size=1000, identification=5)
    mixed = [piece for pieces in zip(*map(pieces_of, (one_request, other, third)), strict=True) for piece in pieces]
    assert len([reply for piece in mixed for reply in take(pod, piece)]) == 3


@endpoint("FR-05")
def test_after_thirty_seconds_it_is_given_up_and_told_if_the_first_piece_was_there() -> None:
    for first, expected in ((True, [(11, 1)]), (False, [])):
        pod = stack()
        pieces = pieces_of(echo(B, A, size=1400))
        for piece in pieces[:2] if first else pieces[1:]:
            assert take(pod, piece) == []
        assert pod.due() == 30 * SECOND
        told = [seen(frame) for frame in pod.wake(30 * SECOND)]
        assert [error.error for error in told] == expected
        rest = pieces[2] if first else pieces[0]
        assert take(pod, rest, 31 * SECOND) == [], "it starts from nothing"


@endpoint("FR-05")
def test_an_overlap_drops_the_datagram_and_a_repetition_does_not() -> None:
    request = echo(B, A, size=1400, identification=5)
    pieces = pieces_of(request)
    pod = stack()
    take(pod, pieces[0])
    take(pod, pieces[0])
    take(pod, pieces[1])
    assert len(take(pod, pieces[2])) == 1, "the same piece twice is one piece"
    pod = stack()
    header, data = IPv4.parse(pieces[0])
    longer = IPv4(B, A, header.protocol, identification=5, more_fragments=True).pack(data + bytes(8))
    take(pod, longer)
    take(pod, pieces[1])
    assert take(pod, pieces[2]) == []


@endpoint("FR-05")
def test_what_came_before_in_pieces_is_a_repetition_too() -> None:
    request = echo(B, A, size=1400, identification=5)
    pieces = pieces_of(request)
    pod = stack()
    take(pod, pieces[0])
    take(pod, pieces[1])
    header, first = IPv4.parse(pieces[0])
    _, second = IPv4.parse(pieces[1])
    both = IPv4(B, A, header.protocol, identification=5, more_fragments=True, fragment_offset=8)
    take(pod, both.pack((first + second)[8:-8]))
    assert len(take(pod, pieces[2])) == 1


@endpoint("FR-06")
def test_of_a_piece_whose_length_is_no_multiple_of_eight_the_rest_is_cut_off() -> None:
    pod = stack()
    header, message = IPv4.parse(echo(B, A, size=24, identification=5))
    uneven = IPv4(B, A, header.protocol, identification=5, more_fragments=True).pack(message[:21])
    take(pod, uneven)
    rest = IPv4(B, A, header.protocol, identification=5, fragment_offset=16).pack(message[16:])
    assert len(take(pod, rest)) == 1


@endpoint("FR-06")
def test_in_ipv6_its_sender_is_told() -> None:
    from emunet.packet import ipv6
    from emunet.packet.ipv6 import FragmentHeader, IPv6
    from tests.stories.test_ipv6 import M1, R1, ask

    own = ip("fd00:1::2")
    pod = Endpoint("pod", host_mac(1), addresses("fd00:1::2/64"), (R1,))
    pod.receive(ask(own, source=R1, mac=M1), 0)
    uneven = IPv6(R1, own, ipv6.FRAGMENT).pack(FragmentHeader(58, 0, True, 7).pack() + bytes(21))
    [frame] = pod.receive(host_mac(1) + M1 + b"\x86\xdd" + uneven, 0)
    error = seen(frame)
    assert (error.error, error.icmpv6.rest) == ((4, 0), (4).to_bytes(4, "big"))


@endpoint("FR-06")
def test_a_piece_that_no_datagram_has_is_dropped() -> None:
    pod = stack()
    beyond = IPv4(B, A, UDP, identification=5, fragment_offset=65528).pack(bytes(16))
    take(pod, beyond)
    assert pod.due() is None, "nothing waits: it would end above 65535"
    take(pod, pieces_of(echo(B, A, size=1400))[0])
    assert pod.due() is not None


@pytest.mark.rule("FR-08", element="router")
def test_the_inner_packet_is_measured_against_the_tunnels_mtu() -> None:
    net = Net("two-hosts")
    source, target = net["web-1"].address(), net["web-3"].address()
    net.send("web-1", net.frame("web-1", datagram(source, target, 5, 6, bytes(1451 - 28), dont_fragment=True)))
    error = one(net["web-1"])
    assert (error.error, error.icmp.mtu, error.src) == ((3, 4), 1450, "10.244.1.1")
    assert got(net["web-3"]) == []
    net.send("web-1", net.frame("web-1", datagram(source, target, 5, 6, bytes(1450 - 28), dont_fragment=True)))
    assert one(net["web-3"]).ttl == 62
    net.balanced()
