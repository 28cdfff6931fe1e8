"""The endpoint answers as a Linux pod does: pings, closed ports, fragments, path MTU, frame by frame."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emunet.elements.endpoint import Endpoint, Failure, State
from emunet.elements.endpoint.http import Response, parse_url, serve
from emunet.elements.endpoint.neighbors import answer_neighbor_request
from emunet.elements.endpoint.network import MILLISECOND, SECOND
from emunet.packet import icmp, icmpv6, ipv4, ipv6, tcp
from emunet.packet.address import (
    ALL_NODES_V6,
    BROADCAST_MAC,
    multicast_mac,
    parse_ip,
)
from emunet.packet.checksum import checksum, udp_checksum
from emunet.packet.icmp import Icmp
from emunet.packet.icmpv6 import Icmpv6
from emunet.packet.ipv4 import IPv4
from emunet.packet.ipv6 import IPv6
from emunet.packet.udp import Udp
from tests.elements.endpoint_frames import (
    BOTH,
    FAR4,
    FAR6,
    GATE,
    GATE4,
    GATE6,
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

# --- echo


def echo_to(dst: bytes, src: bytes, data: bytes = b"data", **fields: Any) -> bytes:
    if len(dst) == 4:
        return IPv4(src, dst, 1, **fields).pack(icmp.echo_request(9, 3, data).pack())
    return IPv6(src, dst, 58).pack(icmpv6.echo_request(9, 3, data).pack(src, dst))


@pytest.mark.rule("IC-14", element="endpoint")
def test_an_echo_reply() -> None:
    us = knowing()
    asked = IPv4(PEER4, OUR4, 1, ttl=3, tos=0xB8, identification=77, dont_fragment=True)
    (answer,) = us.receive(frame(asked.pack(icmp.echo_request(9, 3, bytes(range(200))).pack()) + b"padding"), 0)
    ip, message = IPv4.parse(answer[14:])
    assert (ip.src, ip.dst, ip.ttl, ip.tos, ip.dont_fragment) == (OUR4, PEER4, 64, 0xB8, False)
    assert ip.identification != 77
    assert Icmp.parse(message) == Icmp(0, 0, bytes((0, 9, 0, 3)), bytes(range(200)))


def test_an_echo_reply_over_ipv6() -> None:
    (answer,) = knowing().receive(frame(echo_to(OUR6, PEER6)), 0)
    ip, message = IPv6.parse(answer[14:])
    assert (ip.src, ip.dst, ip.hop_limit) == (OUR6, PEER6, 64)
    assert Icmpv6.parse(OUR6, PEER6, message) == Icmpv6(129, 0, bytes((0, 9, 0, 3)), b"data")
    everyone = echo_to(ALL_NODES_V6, PEER6)
    (answer,) = knowing().receive(frame(everyone, multicast_mac(ALL_NODES_V6)), 0)
    assert IPv6.parse(answer[14:])[0].src == OUR6


@pytest.mark.rule("IC-14", element="endpoint")
@pytest.mark.parametrize("group", ["255.255.255.255", "10.0.0.255", "224.0.0.1"])
def test_an_echo_to_a_group_is_ignored(group: str) -> None:
    dst = parse_ip(group)
    mac = multicast_mac(dst) if group.startswith("224") else BROADCAST_MAC
    assert knowing().receive(frame(echo_to(dst, PEER4), mac), 0) == []
    assert len(knowing().receive(frame(echo_to(OUR4, PEER4), mac), 0)) == 1, "Linux looks at the address alone"


@pytest.mark.parametrize(
    ("packet", "why"),
    [
        (echo_to(PEER4, PEER4), "not-our-address"),
        (echo_to(OUR4, OUR4), "martian"),
        (echo_to(OUR4, parse_ip("127.0.0.1")), "martian"),
        (echo_to(parse_ip("127.0.0.1"), PEER4), "martian"),
        (echo_to(OUR4, parse_ip("224.0.0.5")), "martian"),
        (echo_to(OUR4, parse_ip("10.0.0.255")), "martian"),
        (echo_to(OUR4, bytes(4)), "martian"),
        (echo_to(OUR6, parse_ip("ff02::5")), "martian"),
        (echo_to(OUR6, parse_ip("::1")), "martian"),
        (echo_to(parse_ip("ff02::77"), PEER6), "not-our-address"),
    ],
)
def test_martians_are_ignored(packet: bytes, why: str) -> None:
    us = knowing()
    assert us.receive(frame(packet), 0) == []
    assert us.ignored == {why: 1}


def test_frames_for_other_macs_are_ignored() -> None:
    us = knowing()
    assert us.receive(frame(echo_to(OUR4, PEER4), GATE), 0) == []
    assert us.ignored == {"not-our-mac": 1}


def test_a_ping_is_what_ping_sends() -> None:
    us = knowing()
    _, (sent,) = us.ping(PEER4, 0, ttl=5, sequence=7)
    ip, message = IPv4.parse(sent[14:])
    assert (ip.ttl, ip.dont_fragment, len(message)) == (5, True, 64)
    assert Icmp.parse(message).sequence == 7


@BOTH
def test_a_ping_too_big_for_the_link_is_cut_or_refused(our: bytes, peer: bytes) -> None:
    us = knowing()
    _, frames = us.ping(peer, 0, size=4000)
    assert len(frames) == 3
    assert all(len(one) <= 1514 for one in frames)
    record, frames = us.ping(peer, 0, size=4000, dont_fragment=True)
    assert (record.error, frames) == (Failure.MESSAGE_TOO_LONG, [])


def test_the_first_error_about_a_ping_is_kept_with_its_reporter() -> None:
    us = knowing()
    ping, (sent,) = us.ping(FAR4, 0, ttl=1)
    us.receive(frame(IPv4(GATE4, OUR4, 1).pack(icmp.error(11, 0, sent[14:]).pack()), src=GATE), 5)
    assert (ping.error, ping.error_from) == (Failure.TTL_EXCEEDED, GATE4)
    ping, (sent,) = us.ping(FAR6, 0)
    us.receive(frame(IPv6(GATE6, OUR6, 58).pack(icmpv6.error(1, 1, sent[14:]).pack(GATE6, OUR6)), src=GATE), 5)
    assert (ping.error, ping.error_from) == (Failure.PROHIBITED, GATE6)


# --- errors that we send


def datagram(dst: bytes, src: bytes, port: int = 9, **fields: Any) -> bytes:
    segment = Udp(4000, port).pack(src, dst, b"hello")
    if len(dst) == 4:
        return IPv4(src, dst, 17, **fields).pack(segment)
    return IPv6(src, dst, 17).pack(segment)


@pytest.mark.rule("IC-05", element="endpoint")
def test_a_closed_udp_port() -> None:
    packet = datagram(OUR4, PEER4, ttl=1, tos=0xB8)
    (answer,) = knowing().receive(frame(packet), 0)
    ip, message = IPv4.parse(answer[14:])
    assert (ip.src, ip.dst, ip.ttl, ip.tos, ip.dont_fragment) == (OUR4, PEER4, 64, 0xD8, False)
    assert Icmp.parse(message) == Icmp(3, 3, bytes(4), packet)


@pytest.mark.rule("V6-09", element="endpoint")
def test_a_closed_udp_port_over_ipv6() -> None:
    packet = datagram(OUR6, PEER6)
    (answer,) = knowing().receive(frame(packet), 0)
    assert Icmpv6.parse(OUR6, PEER6, answer[54:]) == Icmpv6(1, 4, bytes(4), packet)


@pytest.mark.rule("IC-05", element="endpoint")
@pytest.mark.rule("V6-09", element="endpoint")
def test_unknown_protocols() -> None:
    packet = IPv4(PEER4, OUR4, 253).pack(b"whatever")
    (answer,) = knowing().receive(frame(packet), 0)
    assert Icmp.parse(answer[34:]) == Icmp(3, 2, bytes(4), packet)
    packet = IPv6(PEER6, OUR6, 60).pack(bytes((253, 0, 1, 4, 0, 0, 0, 0)) + b"whatever")
    (answer,) = knowing().receive(frame(packet), 0)
    assert Icmpv6.parse(OUR6, PEER6, answer[54:]) == Icmpv6(4, 1, (40).to_bytes(4, "big"), packet)


@pytest.mark.rule("IC-09", element="endpoint")
@pytest.mark.rule("V6-12", element="endpoint")
def test_udp_checksums() -> None:
    for dst, src, accepted in ((OUR4, PEER4, True), (OUR6, PEER6, False)):
        us = knowing()
        socket = us.udp_bind(9)
        good = datagram(dst, src)
        at = len(good) - 5 - 2
        us.receive(frame(good[: len(good) - 1] + b"!"), 0)
        assert socket.receive() is None, "a wrong one"
        us.receive(frame(good[:at] + b"\0\0" + good[at + 2 :]), 0)
        assert (socket.receive() is not None) == accepted, "none at all"
        socket.close()
        assert us.receive(frame(good[: len(good) - 1] + b"!"), 0) == [], "no error either"


@pytest.mark.rule("IC-07", element="endpoint")
def test_never_an_error_about_what_went_to_many_or_came_from_nobody() -> None:
    us = knowing()
    silent = [
        frame(datagram(OUR4, PEER4), BROADCAST_MAC),
        frame(datagram(parse_ip("10.0.0.255"), PEER4), BROADCAST_MAC),
        frame(datagram(OUR4, bytes(4))),
        frame(datagram(ALL_NODES_V6, PEER6), multicast_mac(ALL_NODES_V6)),
        frame(IPv4(PEER4, OUR4, 1).pack(icmp.error(3, 3, bytes(28)).pack())),
        frame(IPv4(PEER4, OUR4, 1).pack(Icmp(200, 0).pack())),
        frame(IPv4(PEER4, OUR4, 17, fragment_offset=8).pack(bytes(8))),
    ]
    for one in silent:
        assert us.receive(one, 0) == []


@pytest.mark.rule("IC-10", element="endpoint")
def test_errors_are_rationed_per_destination() -> None:
    us = knowing()

    def burst(now: int, src: bytes = PEER4) -> int:
        return sum(len(us.receive(frame(datagram(OUR4, src)), now)) for _ in range(30))

    assert burst(0) == 6
    assert burst(1100 * MILLISECOND) == 1
    assert burst(1100 * MILLISECOND, GATE4) == 6
    assert burst(60 * SECOND) == 6


@pytest.mark.rule("V6-11", element="endpoint")
def test_errors_over_ipv6_are_rationed_too() -> None:
    us = knowing()
    assert sum(len(us.receive(frame(datagram(OUR6, PEER6)), 0)) for _ in range(30)) == 6
    assert sum(len(us.receive(frame(datagram(OUR6, PEER6)), 250 * MILLISECOND)) for _ in range(30)) == 2


def segment(flags: int, sequence: int = 100, acknowledgment: int = 0, data: bytes = b"", port: int = 81) -> bytes:
    header = tcp.Tcp(4000, port, sequence, acknowledgment, flags, 1000)
    return IPv4(PEER4, OUR4, 6).pack(header.pack(PEER4, OUR4, data))


@pytest.mark.rule("IC-06", element="endpoint")
def test_closed_tcp_ports() -> None:
    us = knowing()
    (answer,) = us.receive(frame(segment(tcp.SYN)), 0)
    reset = tcp.Tcp.parse(IPv4.parse(answer[14:])[1])[0]
    assert (reset.flags, reset.sequence, reset.acknowledgment) == (tcp.RST | tcp.ACK, 0, 101)
    (answer,) = us.receive(frame(segment(tcp.ACK, 100, 555)), 0)
    reset = tcp.Tcp.parse(IPv4.parse(answer[14:])[1])[0]
    assert (reset.flags, reset.sequence) == (tcp.RST, 555)
    (answer,) = us.receive(frame(segment(tcp.FIN, 100, 0, b"abc")), 0)
    assert tcp.Tcp.parse(IPv4.parse(answer[14:])[1])[0].acknowledgment == 104
    assert us.receive(frame(segment(tcp.RST)), 0) == []
    assert us.receive(frame(segment(tcp.RST | tcp.ACK)), 0) == []
    assert us.receive(frame(segment(tcp.SYN), BROADCAST_MAC), 0) == []


# --- fragments


@pytest.mark.rule("FR-05", element="endpoint")
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 1, 2, 0, 0), (2, 0, 0, 2, 1)])
@BOTH
def test_fragments_in_any_order_and_twice(our: bytes, peer: bytes, order: tuple[int, ...]) -> None:
    us = knowing()
    socket = us.udp_bind(9)
    data = bytes(range(256)) * 16
    whole = Udp(1, 9).pack(peer, our, data)
    if len(our) == 4:
        pieces = ipv4.fragment(IPv4(peer, our, 17, identification=5).pack(whole), 1500)
    else:
        pieces = ipv6.fragment(IPv6(peer, our, 17).pack(whole), 1500, 5)
    assert len(pieces) == 3
    for number in order:
        us.receive(frame(pieces[number] + b"padding"), 0)
    received = socket.receive()
    assert received is not None
    assert received.data == data
    assert socket.receive() is None


@pytest.mark.rule("FR-05", element="endpoint")
@BOTH
def test_unfinished_datagrams_are_given_up(our: bytes, peer: bytes) -> None:
    us = knowing()
    us.ping(peer, 0)
    if len(our) == 4:
        pieces = ipv4.fragment(IPv4(peer, our, 17, identification=5).pack(bytes(3000)), 1500)
    else:
        pieces = ipv6.fragment(IPv6(peer, our, 17).pack(bytes(3000)), 1500, 5)
    us.receive(frame(pieces[0]), 0)
    us.receive(frame(pieces[1]), SECOND)
    limit = (30 if len(our) == 4 else 60) * SECOND
    assert us.due() == limit
    assert us.wake(limit - 1) == []
    sent = us.wake(limit)
    message = sent[0][14 + (20 if len(our) == 4 else 40) :]
    assert message[:2] == (b"\x0b\x01" if len(our) == 4 else b"\x03\x01")
    us.receive(frame(pieces[1]), limit)
    frames = us.wake(2 * limit)
    assert [target_of(one)[1] for one in frames] == [peer], "no error if the first fragment never came"


@pytest.mark.rule("FR-05", element="endpoint")
def test_overlapping_fragments_drop_the_datagram() -> None:
    us = knowing()
    socket = us.udp_bind(9)
    whole = Udp(1, 9).pack(PEER4, OUR4, bytes(24))
    for start, end, more in ((0, 16, True), (8, 24, True), (16, 32, False)):
        us.receive(frame(IPv4(PEER4, OUR4, 17, more_fragments=more, fragment_offset=start).pack(whole[start:end])), 0)
    assert socket.receive() is None


@pytest.mark.rule("FR-06", element="endpoint")
def test_impossible_fragments_are_ignored() -> None:
    us = knowing()
    us.receive(frame(IPv4(PEER4, OUR4, 17, more_fragments=True).pack(bytes(7))), 0)
    us.receive(frame(IPv4(PEER4, OUR4, 17, fragment_offset=65528).pack(bytes(80))), 0)
    assert us.ignored == {"malformed": 2}
    assert us.due() is None


# --- path MTU


@pytest.mark.rule("IC-18", element="endpoint")
def test_fragmentation_needed_lowers_the_path_mtu_for_ten_minutes() -> None:
    us = knowing()
    socket = us.udp_bind()
    (sent,) = socket.send(bytes(1472), FAR4, 9, 0)
    assert IPv4.parse(sent[14:])[0].dont_fragment
    news = frame(IPv4(GATE4, OUR4, 1).pack(icmp.fragmentation_needed(sent[14:], 1400).pack()))
    us.receive(news, 0)
    assert us.path_mtu(FAR4, 1) == 1400
    assert list(socket.errors) == [(Failure.MESSAGE_TOO_LONG, FAR4, 9)]
    frames = socket.send(bytes(1472), FAR4, 9, 1)
    assert [len(one) - 14 for one in frames] == [1396, 124]
    assert not IPv4.parse(frames[0][14:])[0].dont_fragment
    assert us.path_mtu(PEER4, 1) == 1500
    assert us.path_mtu(FAR4, 600 * SECOND) == 1500


@pytest.mark.rule("IC-18", element="endpoint")
@pytest.mark.parametrize(("told", "believed"), [(68, 552), (0, 1492), (1500, 1500), (9000, 1500)])
def test_the_path_mtu_has_a_floor_and_only_falls(told: int, believed: int) -> None:
    us = knowing()
    _, (sent,) = us.ping(FAR4, 0, size=1472)
    us.receive(frame(IPv4(GATE4, OUR4, 1).pack(icmp.fragmentation_needed(sent[14:], told).pack())), 0)
    assert us.path_mtu(FAR4, 0) == believed
    assert us.path_mtu(FAR4, 0) >= 552
    if told == 68:
        _, (again,) = us.ping(FAR4, 0, size=100)
        assert not IPv4.parse(again[14:])[0].dont_fragment, "a path below our least needs routers to cut"


@pytest.mark.rule("V6-19", element="endpoint")
def test_packet_too_big() -> None:
    us = knowing()
    ping, (sent,) = us.ping(FAR6, 0, size=1452)
    for told, believed in ((1400, 1400), (600, 1280)):
        message = icmpv6.packet_too_big(sent[14:], told).pack(GATE6, OUR6)
        us.receive(frame(IPv6(GATE6, OUR6, 58).pack(message)), 0)
        assert us.path_mtu(FAR6, 0) == believed
    assert ping.error is Failure.MESSAGE_TOO_LONG
    frames = us.ping(FAR6, 0, size=1452)[1]
    assert [len(one) - 14 for one in frames] == [1280, 276]


def test_news_about_packets_that_are_not_ours_are_ignored() -> None:
    us = knowing()
    foreign = IPv4(PEER4, FAR4, 17).pack(bytes(100))
    us.receive(frame(IPv4(GATE4, OUR4, 1).pack(icmp.fragmentation_needed(foreign, 600).pack())), 0)
    assert us.path_mtu(FAR4, 0) == 1500


def test_tcp_sends_again_in_smaller_segments() -> None:
    us = knowing()
    connection, (syn,) = us.connect(FAR4, 80, 0)
    asked = tcp.Tcp.parse(syn[34:])[0]
    assert tcp.TcpOptions.parse(asked.options).mss == 1460

    def from_far(header: tcp.Tcp) -> bytes:
        return frame(IPv4(FAR4, OUR4, 6).pack(header.pack(FAR4, OUR4)), src=GATE)

    options = tcp.TcpOptions(mss=1460).pack()
    us.receive(
        from_far(tcp.Tcp(80, asked.sport, 900, asked.sequence + 1, tcp.SYN | tcp.ACK, 60000, options=options)), 0
    )
    assert connection.state is State.ESTABLISHED
    sent = connection.send(bytes(3000), 0)
    assert [len(one) - 54 for one in sent] == [1460, 1460, 80]
    assert all(IPv4.parse(one[14:])[0].dont_fragment for one in sent)
    forged = bytearray(sent[0][14:])
    forged[24:28] = b"\0\0\0\1"
    us.receive(frame(IPv4(GATE4, OUR4, 1).pack(icmp.fragmentation_needed(bytes(forged), 600).pack())), 0)
    assert us.path_mtu(FAR4, 0) == 1500, "not about a segment that is on its way (RFC 5927)"
    again = us.receive(frame(IPv4(GATE4, OUR4, 1).pack(icmp.fragmentation_needed(sent[0][14:], 1400).pack())), 0)
    assert [len(one) - 54 for one in again] == [1360, 1360, 280]


@pytest.mark.rule("IC-18", element="endpoint")
def test_unreachable_ends_an_attempt_and_not_a_connection() -> None:
    us = knowing()
    connection, (syn,) = us.connect(FAR4, 80, 0)
    us.receive(frame(IPv4(GATE4, OUR4, 1).pack(icmp.error(3, 3, syn[14:]).pack())), 0)
    assert (connection.state, connection.error) == (State.CLOSED, Failure.REFUSED)
    connection, (syn,) = us.connect(FAR4, 80, 0)
    asked = tcp.Tcp.parse(syn[34:])[0]
    opened = tcp.Tcp(80, asked.sport, 900, asked.sequence + 1, tcp.SYN | tcp.ACK, 60000)
    us.receive(frame(IPv4(FAR4, OUR4, 6).pack(opened.pack(FAR4, OUR4)), src=GATE), 0)
    (sent,) = connection.send(b"x", 0)
    us.receive(frame(IPv4(GATE4, OUR4, 1).pack(icmp.error(3, 1, sent[14:]).pack())), 0)
    assert (connection.state, connection.soft_error) == (State.ESTABLISHED, Failure.HOST_UNREACHABLE)


# --- sockets


def test_ports_are_exclusive() -> None:
    us = pod()
    socket = us.udp_bind(53)
    with pytest.raises(OSError, match="in use"):
        us.udp_bind(53, OUR4)
    with pytest.raises(OSError, match="not ours"):
        us.udp_bind(54, PEER4)
    socket.close()
    us.udp_bind(53, OUR4)
    us.udp_bind(53, OUR6)
    us.listen(80)
    with pytest.raises(OSError, match="in use"):
        us.listen(80)


def test_a_udp_socket_keeps_a_bounded_number_of_bytes() -> None:
    us = knowing()
    socket = us.udp_bind(9)
    for _ in range(5000):
        us.receive(frame(datagram(OUR4, PEER4)), 0)
    kept = sum(1 for _ in iter(socket.receive, None))
    assert kept + socket.lost == 5000
    assert 1000 < kept < 5000
    us.receive(frame(datagram(OUR4, PEER4)), 0)
    assert socket.receive() is not None


def test_any_ip_packet_can_be_sent() -> None:
    us = knowing()
    (sent,) = us.send_ip(IPv4(FAR4, PEER4, 253, ttl=9).pack(b"spoofed"), 0)
    assert sent == frame(IPv4(FAR4, PEER4, 253, ttl=9).pack(b"spoofed"), PEER, US)
    with pytest.raises(ValueError, match="IPv4"):
        us.send_ip(b"Ejunk", 0)


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("http://10.0.0.1", ("10.0.0.1", 80, "/")),
        ("http://web:8080/a/b?c=d", ("web", 8080, "/a/b?c=d")),
        ("http://[fd00::1]:81/", ("fd00::1", 81, "/")),
        ("http://[fd00::1]", ("fd00::1", 80, "/")),
    ],
)
def test_urls(url: str, parts: tuple[str, int, str]) -> None:
    assert parse_url(url) == parts


@pytest.mark.parametrize("url", ["web", "https://web/", "http://", "http://web:http/", "http://web:70000/"])
def test_other_urls(url: str) -> None:
    with pytest.raises(ValueError, match="http://"):
        parse_url(url)


# --- any bytes


EMPTY6 = Udp(1, 9).pack(PEER6, OUR6, b"")
HALVES = Udp(1, 9).pack(PEER4, OUR4, bytes(24))


def busy() -> Endpoint:
    """A pod with everything open, a connection and half-received fragments, for bytes to hit."""
    us = knowing()
    us.udp_bind(9)
    us.listen(80)
    serve(us, 8080, lambda request: Response(200, request.body))
    us.receive(frame(segment(tcp.SYN, 99, port=80)), 0)
    us.receive(frame(segment(tcp.SYN, 99, port=8080)), 0)
    us.connect(PEER4, 4000, 0, source_port=81)
    us.receive(frame(IPv4(PEER4, OUR4, 17, more_fragments=True).pack(HALVES[:16])), 0)
    return us


VALID = [
    request_for(OUR4),
    request_for(OUR6),
    answer_from(PEER4),
    answer_from(PEER6),
    frame(echo_to(OUR4, PEER4)),
    frame(echo_to(OUR6, PEER6)),
    frame(datagram(OUR4, PEER4)),
    frame(datagram(OUR6, PEER6)),
    frame(segment(tcp.SYN, port=80)),
    frame(segment(tcp.ACK, 100, 1, b"GET / HTTP/1.1\r\n\r\n", port=8080)),
    frame(segment(tcp.SYN | tcp.ACK, 5, 1)),
    frame(IPv4(PEER4, OUR4, 17, fragment_offset=16).pack(HALVES[16:])),
    frame(ipv6.fragment(IPv6(PEER6, OUR6, 17).pack(bytes(3000)), 1500, 1)[2]),
    frame(IPv4(PEER4, OUR4, 1).pack(icmp.fragmentation_needed(IPv4(OUR4, PEER4, 17).pack(bytes(20)), 600).pack())),
    frame(IPv4(PEER4, OUR4, 253).pack(b"x")),
    frame(IPv6(PEER6, OUR6, 0).pack(bytes((44, 0)) + bytes(6) + bytes((17, 0)) + bytes(6) + EMPTY6)),
]


def _with_right_checksums(changed: bytearray) -> bytes:
    """So that damage gets past the first gate: the IPv4 header's and the transport's checksums made right again."""
    if changed[12:14] == b"\x08\x00" and len(changed) >= 34 and changed[14] == 0x45:
        header = changed[14:34]
        header[10:12] = b"\0\0"
        changed[24:26] = checksum(bytes(header)).to_bytes(2, "big")
        total = changed[16] << 8 | changed[17]
        body = changed[34 : 14 + total]
        at, pseudo = {1: (2, False), 6: (16, True), 17: (6, True)}.get(changed[23], (None, False))
        if at is not None and len(body) >= at + 2:
            body[at : at + 2] = b"\0\0"
            if pseudo:
                value = udp_checksum(bytes(changed[26:30]), bytes(changed[30:34]), bytes(body))
                if changed[23] == 6:
                    value = checksum(bytes(body), int.from_bytes(changed[26:34], "big") + 6 + len(body))
            else:
                value = checksum(bytes(body))
            changed[34 + at : 36 + at] = value.to_bytes(2, "big")
    return bytes(changed)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_bytes_make_it_raise_or_hang(draw: st.DataObject) -> None:
    """Arbitrary frames, and valid ones with bytes changed, cut or prolonged; then all timers."""
    us = busy()
    now = 0
    for _ in range(draw.draw(st.integers(1, 8))):
        if draw.draw(st.integers(0, 4)) == 0:
            one = draw.draw(st.sampled_from([US, BROADCAST_MAC, b""])) + draw.draw(st.binary(max_size=100))
        else:
            changed = bytearray(draw.draw(st.sampled_from(VALID)))
            for at, value in draw.draw(
                st.lists(st.tuples(st.integers(0, len(changed) - 1), st.integers(0, 255)), max_size=3)
            ):
                changed[at] = value
            if draw.draw(st.booleans()):
                changed = changed[: draw.draw(st.integers(0, len(changed)))]
            one = _with_right_checksums(changed) if draw.draw(st.booleans()) else bytes(changed)
        now += draw.draw(st.sampled_from([0, MILLISECOND, 10 * SECOND]))
        for sent in us.receive(one, now):
            assert 14 < len(sent) <= 1514
        answer_neighbor_request(one, [OUR4, OUR6], US)
    for _ in range(200):
        due = us.due()
        if due is None:
            break
        assert due <= now + 3600 * SECOND
        now = max(now, due)
        us.wake(now)
        again = us.due()
        assert again is None or again > now, "a timer that has run is over"
    else:
        raise AssertionError("timers without end")


def test_every_valid_frame_is_taken() -> None:
    """So that the test above starts from frames that reach the inside."""
    for number, one in enumerate(VALID):
        us = busy()
        us.receive(one, 0)
        assert not us.ignored, (number, us.ignored)
