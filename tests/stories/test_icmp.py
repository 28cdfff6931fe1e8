"""ICMP errors: when a router or host sends one, to whom, what it says, how often (fidelity IC-01 to IC-18)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from emunet.elements.endpoint.stack import Endpoint
from emunet.packet import icmp, tcp
from emunet.packet.checksum import checksum
from emunet.packet.ipv4 import IPv4
from tests.stories.benches import (
    BROADCAST,
    ICMP,
    MILLISECOND,
    SECOND,
    TCP,
    UDP,
    Net,
    Seen,
    Settings,
    addresses,
    change,
    datagram,
    device,
    echo,
    got,
    host_mac,
    ip,
    mac,
    one,
    own_stack,
    route,
    router,
    router_mac,
    seen,
    segment,
)

Mark = Callable[[str], pytest.MarkDecorator]
of_router: Mark = lambda rule: pytest.mark.rule(rule, element="router")  # noqa: E731
errors: Mark = lambda rule: pytest.mark.rule(rule, element="errors")  # noqa: E731
endpoint: Mark = lambda rule: pytest.mark.rule(rule, element="endpoint")  # noqa: E731

A, B = ip("10.0.1.2"), ip("10.0.2.2")
R = ip("10.0.1.1")
H1 = host_mac(1)


def told(net: Net, packet: bytes, to: bytes | None = None, now: int | None = None) -> list[Seen]:
    """What h1 is told after it sent a packet to the router."""
    net.send("h1", net.frame("h1", packet, to), now)
    return got(net["h1"])


def stack() -> Endpoint:
    """A pod's own stack at h1's address."""
    return Endpoint("pod", H1, addresses("10.0.1.2/24"), (R,))


def answers(pod: Endpoint, packet: bytes, *, to: bytes = H1, now: int = 0) -> list[Seen]:
    """What a stack sends at once in answer to a packet from the router's address, its MAC known."""
    source = packet[12:16]
    if pod.mac_of(R) is None:
        from emunet.packet import arp

        pod.receive(arp.request(router_mac(1), R, A), now)
    frames = pod.receive(to + router_mac(1) + b"\x08\x00" + packet, now)
    assert source
    return [seen(frame) for frame in frames if frame[12:14] == b"\x08\x00"]


# TTL, quoting


@of_router("IC-01")
@pytest.mark.parametrize("ttl", [1, 0])
@pytest.mark.parametrize(("tos", "answer_tos"), [(0, 0xC0), (0xB8, 0xD8), (0xFF, 0xDE)])
def test_an_expired_ttl_is_told_from_the_interface_that_faces_the_sender(ttl: int, tos: int, answer_tos: int) -> None:
    net = router()
    sent = datagram(A, B, 5, 6, b"data", ttl=ttl, tos=tos, dont_fragment=True, identification=0xABCD)
    [error] = told(net, sent)
    assert error.error == (11, 0)
    assert (error.src, error.dst, error.ttl) == ("10.0.1.1", "10.0.1.2", 64)
    assert (error.v4.tos, error.v4.dont_fragment) == (answer_tos, False)
    assert error.icmp.body == sent, "quoted as it came"
    assert error.destination_mac == H1
    assert got(net["h2"]) == []
    net.balanced()


@of_router("IC-01")
def test_the_source_is_where_the_way_back_begins_not_where_the_packet_came_in() -> None:
    net = router(routes=[route("10.8.0.0/16", "e3", "10.0.3.2")])
    net.send("h1", net.frame("h1", datagram(ip("10.8.0.9"), B, 5, 6, ttl=1)))
    error = one(net["h3"])
    assert (error.src, error.dst, error.error) == ("10.0.3.1", "10.8.0.9", (11, 0))
    net.balanced()


@of_router("IC-02")
@pytest.mark.parametrize(("size", "quoted"), [(0, 28), (519, 547), (520, 548), (521, 548), (1400, 548)])
def test_as_much_is_quoted_as_fits_576_bytes(size: int, quoted: int) -> None:
    net = router()
    sent = datagram(A, B, 5, 6, bytes(size), ttl=1)
    [error] = told(net, sent)
    assert error.icmp.body == sent[:quoted]
    assert len(error.packet) == 20 + 8 + quoted <= 576
    net.balanced()


# No way


@of_router("IC-03")
@pytest.mark.parametrize(
    ("kind", "error", "reason"),
    [
        ("unreachable", (3, 1), "ROUTE_UNREACHABLE"),
        ("prohibit", (3, 13), "ROUTE_PROHIBIT"),
        ("blackhole", None, "ROUTE_BLACKHOLE"),
        ("throw", (3, 0), "NO_ROUTE"),
    ],
)
def test_what_a_route_says_is_told(kind: str, error: tuple[int, int] | None, reason: str) -> None:
    net = router(routes=[route("10.9.0.0/16", kind=kind)])
    net.send("h1", net.frame("h1", datagram(A, ip("10.9.0.1"), 5, 6)))
    assert device(net).ledger.reasons == {reason: 1}
    assert [packet.error for packet in got(net["h1"])] == ([] if error is None else [error])
    assert [packet.error for packet in told(net, datagram(ip("10.0.1.9"), ip("10.99.0.1"), 5, 6))] == []
    net.world.advance(10 * SECOND)
    net.balanced()


@of_router("IC-03")
def test_no_route_is_told() -> None:
    net = router()
    [error] = told(net, datagram(A, ip("203.0.113.1"), 5, 6))
    assert (error.error, error.src) == ((3, 0), "10.0.1.1")
    net.balanced()


@pytest.mark.rule("IC-04", element="neighbor")
def test_a_dead_next_hop_is_told_after_the_questions() -> None:
    net = router(routes=[route("10.9.0.0/16", "e2", "10.0.2.77")])
    assert told(net, datagram(A, ip("10.9.0.1"), 5, 6)) == []
    net.world.advance(10 * SECOND)
    assert [(at, seen(frame).error, seen(frame).src) for at, frame in net["h1"].got] == [
        (3 * SECOND, (3, 1), "10.0.1.1")
    ]
    net.balanced()


# The receiving stack


@endpoint("IC-05")
@pytest.mark.parametrize("ttl", [64, 1])
def test_a_closed_udp_port_is_told_from_the_address_called_whatever_the_ttl(ttl: int) -> None:
    [error] = answers(stack(), datagram(B, A, 1234, 80, b"hello", ttl=ttl))
    assert (error.error, error.src, error.dst, error.ttl) == ((3, 3), "10.0.1.2", "10.0.2.2", 64)


@endpoint("IC-05")
def test_a_routers_own_closed_port_and_unknown_protocol() -> None:
    net = router(stacks=True)
    [error] = told(net, datagram(A, ip("10.0.2.1"), 5, 7, ttl=1))
    assert (error.error, error.src) == ((3, 3), "10.0.2.1"), "delivered, not forwarded"
    [error] = told(net, IPv4(A, R, 200).pack(b"what is this"))
    assert error.error == (3, 2)
    net.balanced()


@endpoint("IC-06")
def test_a_closed_tcp_port_resets() -> None:
    pod = stack()
    syn = tcp.Tcp(1000, 80, 7000, 0, tcp.SYN, 100).pack(B, A, b"")
    [reset] = answers(pod, IPv4(B, A, TCP).pack(syn))
    header, _ = tcp.Tcp.parse(reset.payload)
    assert (header.flags, header.sequence, header.acknowledgment) == (tcp.RST | tcp.ACK, 0, 7001)
    [reset] = answers(pod, segment(B, A, 1000, 80, tcp.ACK))
    header, _ = tcp.Tcp.parse(reset.payload)
    assert (header.flags, header.sequence) == (tcp.RST, 2000)
    assert answers(pod, segment(B, A, 1000, 80, tcp.RST)) == []


# Never about, and yet about


def icmp_packet(type: int, source: bytes = A, destination: bytes = B, **fields: object) -> bytes:
    quoted = IPv4(destination, source, UDP).pack(bytes(8))
    message = icmp.Icmp(type, 0, bytes(4), quoted).pack()
    return IPv4(source, destination, ICMP, ttl=1, **fields).pack(message)  # type: ignore[arg-type]


@errors("IC-07")
@pytest.mark.parametrize("type", [3, 4, 5, 11, 12, 1, 2, 6, 7, 9, 10, 40, 255])
def test_never_an_error_about_an_error_or_an_unknown_type(type: int) -> None:
    net = router()
    assert told(net, icmp_packet(type)) == []
    assert device(net).ledger.reasons == {"TTL_EXPIRED": 1}
    net.balanced()


@errors("IC-07")
def test_never_an_error_about_a_later_fragment() -> None:
    net = router()
    later = IPv4(A, B, UDP, ttl=1, fragment_offset=1480, more_fragments=True).pack(bytes(16))
    assert told(net, later) == []
    net.balanced()


@errors("IC-07")
@pytest.mark.parametrize("to", [BROADCAST, mac("01:00:5e:00:00:09")])
def test_never_an_error_about_a_frame_to_a_group(to: bytes) -> None:
    net = router()
    assert told(net, datagram(A, ip("203.0.113.1"), 5, 6), to) == []
    net.balanced()


@endpoint("IC-07")
def test_never_an_error_about_what_was_sent_to_all() -> None:
    pod = stack()
    for destination in ("10.0.1.255", "255.255.255.255", "224.0.0.1"):
        assert answers(pod, datagram(R, ip(destination), 5, 7), to=BROADCAST) == []
    assert answers(pod, datagram(R, A, 5, 7), to=BROADCAST) == []
    assert len(answers(pod, datagram(R, A, 5, 7))) == 1


@endpoint("IC-07")
@pytest.mark.parametrize("source", ["0.0.0.0", "127.0.0.1", "224.0.0.9", "255.255.255.255", "10.0.1.255"])
def test_never_an_error_to_who_is_nobody(source: str) -> None:
    pod = stack()
    assert answers(pod, datagram(ip(source), A, 5, 7)) == []
    assert len(answers(pod, datagram(R, A, 5, 7))) == 1


@of_router("IC-07")
@pytest.mark.parametrize("source", ["0.0.0.0", "127.0.0.1", "224.0.0.9", "255.255.255.255"])
def test_a_router_tells_nobody_either(source: str) -> None:
    net = router()
    assert told(net, datagram(ip(source), B, 5, 7, ttl=1)) == []
    assert told(net, datagram(ip(source), ip("203.0.113.1"), 5, 7)) == []
    assert len(told(net, datagram(A, B, 5, 7, ttl=1))) == 1
    net.world.advance(10 * SECOND)
    net.balanced()


@of_router("IC-08")
@pytest.mark.parametrize(
    "packet",
    [
        echo(A, B, ttl=1),
        IPv4(A, B, UDP, ttl=1, more_fragments=True).pack(bytes(16)),
        *(icmp_packet(type) for type in (0, 13, 14, 15, 16, 17, 18)),
    ],
)
def test_but_yes_about_queries_and_first_fragments(packet: bytes) -> None:
    net = router()
    [error] = told(net, packet)
    assert error.error == (11, 0)
    assert error.icmp.body == packet
    net.balanced()


@endpoint("IC-09")
def test_a_bad_udp_checksum_is_silence_and_none_is_accepted() -> None:
    pod = stack()
    good = datagram(B, A, 5, 7, b"data")
    bad = good[:26] + bytes((good[26] ^ 1,)) + good[27:]
    assert answers(pod, bad) == []
    assert [packet.error for packet in answers(pod, good[:26] + bytes(2) + good[28:])] == [(3, 3)]


# Rates


@errors("IC-10")
def test_six_at_once_then_one_a_second() -> None:
    net = router()
    expired = datagram(A, B, 5, 6, ttl=1)
    at_once = sum(len(told(net, expired, now=0)) for _ in range(30))
    assert at_once == 6
    later = {}
    for milliseconds, tries in ((1100, 5), (3300, 5), (6900, 5)):
        later[milliseconds] = sum(len(told(net, expired, now=milliseconds * MILLISECOND)) for _ in range(tries))
    assert later == {1100: 1, 3300: 2, 6900: 3}
    assert told(net, datagram(ip("10.0.1.9"), B, 5, 6, ttl=1)) == [], "held: h1 answers for .2 alone"
    net.world.advance(20 * SECOND)
    net.balanced()


@errors("IC-10")
def test_each_sender_has_a_bucket_of_its_own() -> None:
    net = router(routes=[route("10.8.0.0/16", "e1", "10.0.1.2")])
    for number in range(1, 6):
        source = ip(f"10.8.0.{number}")
        assert sum(len(told(net, datagram(source, B, 5, 6, ttl=1), now=0)) for _ in range(10)) == 6
    net.balanced()


@of_router("IC-11")
def test_fragmentation_needed_and_echo_are_free_of_the_rate() -> None:
    net = router(mtus={"e2": 1400}, stacks=True)
    too_big = datagram(A, B, 5, 6, bytes(1400), dont_fragment=True)
    assert [packet.error for _ in range(30) for packet in told(net, too_big, now=0)] == [(3, 4)] * 30
    assert [packet.icmp.type for _ in range(60) for packet in told(net, echo(A, R), now=0)] == [0] * 60
    assert sum(len(told(net, datagram(A, B, 5, 6, ttl=1), now=0)) for _ in range(30)) == 6
    net.balanced()


@errors("IC-12")
def test_the_whole_host_sends_fifty_at_once_and_a_thousand_a_second() -> None:
    net = router(routes=[route("10.8.0.0/16", "e1", "10.0.1.2")])

    def burst(start: int, now: int) -> int:
        packets = (datagram(ip(f"10.8.{start}.{number}"), B, 5, 6, ttl=1) for number in range(200))
        return sum(len(told(net, packet, now=now)) for packet in packets)

    assert burst(0, 0) == 50
    assert burst(1, 20 * MILLISECOND) == 20
    assert burst(2, 2 * SECOND) == 50
    net.balanced()


@errors("IC-13")
def test_what_says_that_there_is_no_route_costs_double() -> None:
    net = router()
    nowhere = datagram(A, ip("203.0.113.1"), 5, 6)
    assert sum(len(told(net, nowhere, now=0)) for _ in range(12)) == 2
    assert told(net, datagram(A, B, 5, 6, ttl=1), now=0) == [], "the tokens are those of other errors too"
    assert sum(len(told(net, nowhere, now=2 * SECOND)) for _ in range(12)) == 1
    net.balanced()


# Queries


@endpoint("IC-14")
def test_an_echo_reply_is_the_request_turned_round() -> None:
    pod = Endpoint("pod", H1, addresses("10.0.1.2/24", "10.0.1.3/24"), (R,))
    data = bytes(range(200))
    request = icmp.echo_request(77, 3, data).pack()
    sent = IPv4(B, ip("10.0.1.3"), ICMP, ttl=5, tos=0x68, identification=0x1234, dont_fragment=True).pack(request)
    [reply] = answers(pod, sent)
    assert (reply.src, reply.dst, reply.ttl, reply.v4.tos) == ("10.0.1.3", "10.0.2.2", 64, 0x68)
    assert reply.v4.identification != 0x1234
    assert not reply.v4.dont_fragment
    assert reply.icmp == icmp.Icmp(icmp.ECHO_REPLY, 0, request[4:8], data)


@endpoint("IC-14")
@pytest.mark.parametrize("destination", ["10.0.1.255", "255.255.255.255", "224.0.0.1"])
def test_an_echo_to_all_is_ignored(destination: str) -> None:
    pod = stack()
    assert answers(pod, echo(R, ip(destination)), to=BROADCAST) == []
    assert len(answers(pod, echo(R, A))) == 1


@endpoint("IC-15")
def test_a_timestamp_is_answered_and_address_mask_and_information_are_not() -> None:
    pod = stack()
    request = icmp.Icmp(icmp.TIMESTAMP_REQUEST, 0, bytes((0, 7, 0, 1)), bytes.fromhex("00000064") + bytes(8))
    [reply] = answers(pod, IPv4(R, A, ICMP).pack(request.pack()), now=90_000_000 * MILLISECOND)
    time = (90_000_000 % 86_400_000).to_bytes(4, "big")
    assert reply.icmp == icmp.Icmp(icmp.TIMESTAMP_REPLY, 0, request.rest, bytes.fromhex("00000064") + time + time)
    for type in (15, 17):
        assert answers(pod, IPv4(R, A, ICMP).pack(icmp.Icmp(type, 0, bytes(4), bytes(12)).pack())) == []


# Redirects


def redirects(net: Net, times: list[int], packet: bytes) -> list[tuple[int, Seen]]:
    """The redirects that h1 got when it sent a packet at these times."""
    for now in times:
        net.send("h1", net.frame("h1", packet), now)
    found = [(at, seen(frame)) for at, frame in net["h1"].got if frame[12:14] == b"\x08\x00"]
    net["h1"].got.clear()
    return [(at, packet) for at, packet in found if packet.protocol == ICMP]


@pytest.mark.rule("IC-16", element="redirect")
def test_a_better_gateway_is_told_and_the_packet_goes_on() -> None:
    net = router(routes=[route("10.9.0.0/16", "e1", "10.0.1.9")])
    sent = datagram(A, ip("10.9.0.1"), 5, 6)
    [(_, redirect)] = redirects(net, [0], sent)
    assert (redirect.error, redirect.icmp.rest, redirect.src) == ((5, 1), ip("10.0.1.9"), "10.0.1.1")
    assert redirect.icmp.body[8] == 63, "quoted as it goes on"
    assert redirect.icmp.body[12:] == sent[12:]
    assert device(net).ledger.queued == 1, "the packet goes on: it waits for the gateway's MAC"
    net.world.advance(10 * SECOND)
    net.balanced()


@pytest.mark.rule("IC-16", element="redirect")
def test_a_destination_on_the_link_is_told_as_its_own_gateway() -> None:
    net = router()
    [(_, redirect)] = redirects(net, [0], datagram(A, ip("10.0.1.9"), 5, 6))
    assert redirect.icmp.rest == ip("10.0.1.9")
    net.world.advance(10 * SECOND)
    net.balanced()


@pytest.mark.rule("IC-16", element="redirect")
def test_redirects_back_off_end_after_nine_and_come_back_after_a_silence() -> None:
    net = router(routes=[route("10.9.0.0/16", "e1", "10.0.1.2")])
    sent = datagram(A, ip("10.9.0.1"), 5, 6)
    every = list(range(0, 32 * SECOND, 10 * MILLISECOND))
    heard = [at // (10 * MILLISECOND) / 100 for at, _ in redirects(net, every, sent)]
    assert heard == [0.0, 0.05, 0.14, 0.31, 0.64, 1.29, 2.58, 5.15, 10.28]
    assert redirects(net, [40 * SECOND], sent) == [], "the silence counts from the last packet"
    assert len(redirects(net, [61 * SECOND], sent)) == 1
    net.balanced()


@pytest.mark.rule("IC-16", element="router")
def test_no_redirect_to_who_is_not_on_the_link_or_where_they_are_turned_off() -> None:
    net = router(routes=[route("10.9.0.0/16", "e1", "10.0.1.9"), route("10.8.0.0/16", "e1", "10.0.1.2")])
    assert redirects(net, [0], datagram(ip("10.8.0.1"), ip("10.9.0.1"), 5, 6)) == []
    assert len(redirects(net, [0], datagram(A, ip("10.9.0.1"), 5, 6))) == 1
    net.world.advance(10 * SECOND)
    net.balanced()
    off = router(settings={"e1": Settings(send_redirects=False)}, routes=[route("10.9.0.0/16", "e1", "10.0.1.9")])
    assert redirects(off, [0], datagram(A, ip("10.9.0.1"), 5, 6)) == []
    off.world.advance(10 * SECOND)
    off.balanced()


@of_router("IC-17")
def test_a_host_without_an_address_speaks_from_the_dummy_address() -> None:
    net = router()
    host = net.config.hosts[0]
    bare = tuple(type(row)(row.name, row.mac, (), row.mtu, row.settings) for row in host.interfaces)
    change(net, interfaces=bare)
    [error] = told(net, datagram(A, B, 5, 6, ttl=1))
    assert (error.src, error.error) == ("192.0.0.8", (11, 0))
    net.balanced()


# What a sender makes of errors


def about(packet: bytes, type: int, code: int, rest: bytes = bytes(4), source: bytes = R) -> bytes:
    """An error about a packet that a stack sent."""
    return IPv4(source, packet[12:16], ICMP).pack(icmp.error(type, code, packet, rest).pack())


@endpoint("IC-18")
def test_fragmentation_needed_lowers_the_path_mtu_for_ten_minutes_and_not_below_552() -> None:
    pod = stack()
    socket = pod.udp_bind(5000)
    answers(pod, echo(R, A))
    [frame] = pod.send_ip(datagram(A, B, 5000, 6, bytes(1400), dont_fragment=True), 0)
    answers(pod, about(frame[14:], 3, 4, bytes(2) + (1300).to_bytes(2, "big")))
    assert pod.path_mtu(B, 1) == 1300
    assert pod.path_mtu(ip("10.0.2.3"), 1) == 1500, "that destination alone"
    answers(pod, about(frame[14:], 3, 4, bytes(2) + (100).to_bytes(2, "big")))
    assert pod.path_mtu(B, 1) == 552
    assert pod.path_mtu(B, 600 * SECOND - 1) == 552
    assert pod.path_mtu(B, 600 * SECOND) == 1500
    assert socket.errors[0][0].name == "MESSAGE_TOO_LONG"


@endpoint("IC-18")
@pytest.mark.parametrize("code", [2, 3])
def test_hard_errors_end_an_attempt_and_soft_ones_no_connection(code: int) -> None:
    net = router(stacks=True)
    server = own_stack(net, "r")
    server.listen(80)
    pod = stack()
    answers(pod, echo(R, A))
    attempt, [syn] = pod.connect(B, 80, 0)
    answers(pod, about(syn[14:], 3, code))
    assert attempt.error is not None
    established, [syn] = pod.connect(R, 80, 0)
    net.world.receive(net["h1"], router_mac(1) + syn[6:], 0)
    [(_, answer)] = [row for row in net["h1"].got if row[1][23] == TCP]
    pod.receive(answer, 0)
    assert established.state.name == "ESTABLISHED"
    answers(pod, about(syn[14:], 3, 0))
    answers(pod, about(syn[14:], 3, 1))
    assert established.state.name == "ESTABLISHED"


def test_the_checksum_of_a_quoted_packet_is_left_as_it_was() -> None:
    net = router()
    sent = datagram(A, B, 5, 6, ttl=1)
    [error] = told(net, sent)
    assert checksum(error.icmp.body[:20]) == 0
    net.balanced()
