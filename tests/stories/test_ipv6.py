"""What a router and a stack do with IPv6 (fidelity V6-01 to V6-19)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from emunet.elements.endpoint.stack import Endpoint
from emunet.elements.neighbor import NeighborElement, State
from emunet.packet import icmpv6, udp
from emunet.packet.address import multicast_mac, solicited_node
from emunet.packet.icmpv6 import Icmpv6, NeighborAdvertisement, NeighborSolicitation
from emunet.packet.ipv6 import FragmentHeader, IPv6
from tests.stories.benches import (
    BROADCAST,
    ICMPV6,
    MILLISECOND,
    SECOND,
    UDP,
    Net,
    Seen,
    addresses,
    datagram,
    device,
    echo,
    got,
    host_mac,
    ip,
    one,
    route,
    router,
    router_mac,
    seen,
    solicitations,
)

Mark = Callable[[str], pytest.MarkDecorator]
of_router: Mark = lambda rule: pytest.mark.rule(rule, element="router")  # noqa: E731
neighbor: Mark = lambda rule: pytest.mark.rule(rule, element="neighbor")  # noqa: E731
solicited: Mark = lambda rule: pytest.mark.rule(rule, element="solicited")  # noqa: E731
endpoint: Mark = lambda rule: pytest.mark.rule(rule, element="endpoint")  # noqa: E731
errors: Mark = lambda rule: pytest.mark.rule(rule, element="errors")  # noqa: E731

A, B = ip("fd00:1::2"), ip("fd00:2::2")
R1, R2 = ip("fd00:1::1"), ip("fd00:2::1")
H1, H2 = host_mac(1), host_mac(2)
M1, M2 = router_mac(1), router_mac(2)
NOBODY = bytes(16)
ALL_NODES = ip("ff02::1")
R1_LOCAL = ip("fe80::ff:fe00:101")
H1_LOCAL = ip("fe80::ff:fe00:102")


def told(net: Net, packet: bytes, to: bytes | None = None, now: int | None = None) -> list[Seen]:
    """What h1 gets after it sent a packet to the router."""
    net.send("h1", net.frame("h1", packet, to), now)
    return got(net["h1"])


def cross(net: Net, packet: bytes, to: bytes | None = None) -> list[str]:
    return net.send("h1", net.frame("h1", packet, to)).codes


def ask(
    target: bytes, *, source: bytes = A, mac: bytes | None = H1, alone: bool = False, hop_limit: int = 255
) -> bytes:
    """A frame that asks who has an address."""
    to = target if alone else solicited_node(target)
    body = IPv6(source, to, ICMPV6, hop_limit).pack(NeighborSolicitation(target, mac).pack(source, to))
    return (M1 if alone else multicast_mac(to)) + H1 + b"\x86\xdd" + body


def tell(target: bytes, mac: bytes, *, to: bytes = R2, source: bytes | None = None, **flags: bool) -> bytes:
    """A frame that tells where an address is."""
    news = NeighborAdvertisement(target, mac, **flags).pack(source or target, to)
    body = IPv6(source or target, to, ICMPV6, 255).pack(news)
    return (M2 if to == R2 else multicast_mac(to)) + mac + b"\x86\xdd" + body


def advertised(frame: bytes) -> tuple[Seen, NeighborAdvertisement]:
    packet = seen(frame)
    return packet, NeighborAdvertisement.parse(packet.icmpv6)


def known(net: Net, interface: str, address: bytes) -> tuple[bytes, State] | None:
    element = device(net).elements["neighbor"]
    assert isinstance(element, NeighborElement)
    entry = element.table.get((interface, address), net.world.now)
    return None if entry is None else (entry.mac, entry.state)


# A stack comes up


def starting() -> Endpoint:
    return Endpoint("pod", H1, addresses("fd00:1::2/64"), (R1,))


@endpoint("V6-01")
def test_an_address_is_probed_before_it_is_used_and_its_groups_are_reported() -> None:
    pod = starting()
    frames = [(0, frame) for frame in pod.start(0)]
    while (due := pod.due()) is not None and due < 10 * SECOND:
        frames += [(due, frame) for frame in pod.wake(due)]
    probes = []
    for _, frame in frames:
        packet = seen(frame)
        if packet.protocol == ICMPV6 and packet.icmpv6.type == icmpv6.NEIGHBOR_SOLICITATION:
            message = NeighborSolicitation.parse(packet.icmpv6)
            assert packet.src == "::"
            assert packet.ttl == 255
            assert packet.dst == str_of(solicited_node(message.target))
            assert frame[:6] == multicast_mac(solicited_node(message.target))
            assert message.source_mac is None
            probes.append(message.target)
    assert sorted(probes) == sorted([ip("fd00:1::2"), H1_LOCAL])
    reports = [(at, seen(frame)) for at, frame in frames if frame[20] == 0]
    assert {packet.dst for _, packet in reports} == {"ff02::16"}
    assert {packet.ttl for _, packet in reports} == {1}
    assert next(packet.src for _, packet in reports) == "::"
    assert reports[-1][1].src == str_of(H1_LOCAL), "later from the link-local address"
    groups = {reports_group(packet, index) for _, packet in reports for index in range(reports_count(packet))}
    assert groups == {solicited_node(ip("fd00:1::2")), solicited_node(H1_LOCAL)}
    quick = pod.ping(R1, 10 * SECOND)
    assert quick[1], "a second later it is used"


def str_of(address: bytes) -> str:
    from emunet.packet.address import format_ip

    return format_ip(address)


def reports_count(packet: Seen) -> int:
    return int.from_bytes(packet.payload[14:16], "big")


def reports_group(packet: Seen, index: int) -> bytes:
    at = 16 + 20 * index
    return packet.payload[at + 4 : at + 20]


@endpoint("V6-01")
def test_until_then_nothing_is_sent_from_it_or_answered_for_it() -> None:
    pod = starting()
    pod.start(0)
    assert pod.receive(ask(A, source=R1, mac=M1), SECOND // 2) == []
    ping, frames = pod.ping(R1, SECOND // 2)
    assert [frame for frame in frames if seen(frame).src != "::"] == []
    while (due := pod.due()) is not None and due < 3 * SECOND:
        pod.wake(due)
    assert len(pod.receive(ask(A, source=R1, mac=M1), 3 * SECOND)) == 1
    assert ping.error is not None


def run(pod: Endpoint, until: int) -> list[tuple[int, Seen]]:
    """What a stack sends by itself until a time."""
    heard = []
    while (due := pod.due()) is not None and due < until:
        heard += [(due, seen(frame)) for frame in pod.wake(due)]
    return heard


def advertisement(*options: bytes, lifetime: int = 1800, source: str = "fe80::1", hop_limit: int = 255) -> bytes:
    """A router's advertisement to all nodes."""
    own = ip(source)
    rest = bytes((64, 0)) + lifetime.to_bytes(2, "big")
    message = Icmpv6(134, 0, rest, bytes(8) + b"".join(options)).pack(own, ALL_NODES)
    return multicast_mac(ALL_NODES) + M1 + b"\x86\xdd" + IPv6(own, ALL_NODES, ICMPV6, hop_limit).pack(message)


def prefix(network: str, *, flags: int = 0xC0, valid: int = 3600, length: int = 64) -> bytes:
    """A prefix information option."""
    times = valid.to_bytes(4, "big") + min(valid, 1800).to_bytes(4, "big")
    return bytes((3, 4, length, flags)) + times + bytes(4) + ip(network)


MADE = ip("fd00:5::ff:fe00:102")


@endpoint("V6-18")
def test_an_advertised_prefix_makes_an_address_that_is_probed_and_a_next_hop() -> None:
    pod = starting()
    pod.start(0)
    asked = [at for at, packet in run(pod, 20 * SECOND) if packet.protocol == ICMPV6 and packet.error == (133, 0)]
    assert asked == [SECOND, 5 * SECOND, 9 * SECOND], "routers are asked for, three times"
    mtu = bytes((5, 1, 0, 0)) + (1400).to_bytes(4, "big")
    frames = pod.receive(advertisement(prefix("fd00:5::"), mtu), 20 * SECOND)
    assert [NeighborSolicitation.parse(seen(frame).icmpv6).target for frame in frames if frame[20] == ICMPV6] == [MADE]
    assert pod.source_for(ip("fd00:5::9")) != MADE
    run(pod, 22 * SECOND)
    assert pod.source_for(ip("fd00:5::9")) == MADE
    assert pod.mtu == 1400
    _, frames = pod.ping(ip("fd77::1"), 22 * SECOND)
    assert NeighborSolicitation.parse(seen(frames[0]).icmpv6).target == ip("fe80::1"), "the router is the way out"
    run(pod, 4000 * SECOND)
    assert pod.source_for(ip("fd00:5::9")) != MADE, "the prefix was valid for an hour"


@endpoint("V6-18")
@pytest.mark.parametrize(
    "frame",
    [
        advertisement(prefix("fd00:5::"), source="fd00:1::1"),
        advertisement(prefix("fd00:5::"), hop_limit=254),
        advertisement(prefix("fd00:5::", flags=0x80)),
        advertisement(prefix("fd00:5::", length=48)),
        advertisement(prefix("fd00:5::", valid=0)),
        advertisement(bytes((3, 0)) + bytes(30)),
    ],
)
def test_what_makes_no_address(frame: bytes) -> None:
    pod = starting()
    pod.start(0)
    run(pod, 2 * SECOND)
    before = pod.addresses
    pod.receive(frame, 2 * SECOND)
    run(pod, 20 * SECOND)
    assert pod.addresses == before
    pod.receive(advertisement(prefix("fd00:5::")), 30 * SECOND)
    run(pod, 40 * SECOND)
    assert len(pod.addresses) == len(before) + 1


@endpoint("V6-18")
def test_a_router_with_no_lifetime_is_no_way_out_and_a_stack_that_was_not_started_hears_no_router() -> None:
    pod = Endpoint("pod", H1, addresses("fd00:1::2/64"))
    pod.start(0)
    run(pod, 2 * SECOND)
    pod.receive(advertisement(), 2 * SECOND)
    assert pod.source_for(ip("fd77::1")) is not None
    pod.receive(advertisement(lifetime=0), 3 * SECOND)
    assert pod.source_for(ip("fd77::1")) is None
    fixed = starting()
    fixed.receive(advertisement(prefix("fd00:5::")), 0)
    assert fixed.addresses == addresses("fd00:1::2/64")


@endpoint("V6-19")
def test_a_path_mtu_is_never_below_1280() -> None:
    pod = starting()
    pod.receive(ask(A, source=R1, mac=M1), 0)
    [frame] = pod.send_ip(datagram(A, B, 5000, 6, bytes(1400)), 0)
    for said, believed in ((1400, 1400), (1000, 1280)):
        error = icmpv6.packet_too_big(frame[14:], said).pack(R1, A)
        pod.receive(H1 + M1 + b"\x86\xdd" + IPv6(R1, A, ICMPV6).pack(error), 0)
        assert pod.path_mtu(B, 1) == believed


@endpoint("V6-02")
def test_an_address_that_somebody_has_is_never_used() -> None:
    pod = starting()
    pod.start(0)
    pod.receive(tell(A, H2, to=ALL_NODES), SECOND // 2)
    while (due := pod.due()) is not None and due < 10 * SECOND:
        pod.wake(due)
    assert pod.receive(ask(A, source=R1, mac=M1), 10 * SECOND) == []
    assert pod.source_for(R1) != A
    free = starting()
    free.start(0)
    while (due := free.due()) is not None and due < 10 * SECOND:
        free.wake(due)
    assert free.source_for(R1) == A


# Neighbours


@solicited("V6-03")
def test_a_question_to_the_group_is_answered_with_all_flags_and_the_mac() -> None:
    net = router()
    trace = net.send("h1", ask(R1))
    assert trace.codes[-1] == "ND_ANSWERED"
    [(_, frame)] = net["h1"].got
    packet, news = advertised(frame)
    assert (packet.src, packet.dst, packet.ttl, frame[:6]) == ("fd00:1::1", "fd00:1::2", 255, H1)
    assert news == NeighborAdvertisement(R1, M1, router=True, solicited=True, override=True)
    assert known(net, "e1", A) == (H1, State.STALE)
    net["h1"].got.clear()
    assert net.send("h1", ask(R2)).codes[-1] == "ND_IGNORED", "an address of another interface is not here"
    assert net["h1"].got == []
    net.balanced()


@solicited("V6-03")
def test_a_question_to_us_alone_is_answered_without_the_mac() -> None:
    net = router()
    net.send("h1", ask(R1, alone=True))
    _, news = advertised(net["h1"].got[0][1])
    assert news == NeighborAdvertisement(R1, None, router=True, solicited=True, override=False)
    net.balanced()


@solicited("V6-04")
def test_a_probe_for_an_own_address_is_answered_to_all() -> None:
    net = router()
    net.send("h1", ask(R1, source=NOBODY, mac=None))
    [(_, frame)] = net["h1"].got
    packet, news = advertised(frame)
    assert (packet.dst, frame[:6]) == ("ff02::1", multicast_mac(ALL_NODES))
    assert news == NeighborAdvertisement(R1, M1, router=True, solicited=False, override=True)
    assert known(net, "e1", NOBODY) is None
    net.balanced()


@solicited("V6-05")
@pytest.mark.parametrize("hop_limit", [254, 64, 1])
def test_a_message_that_was_forwarded_is_ignored(hop_limit: int) -> None:
    net = router()
    assert net.send("h1", ask(R1, hop_limit=hop_limit)).codes[-1] == "ND_MALFORMED"
    assert net["h1"].got == []
    assert known(net, "e1", A) is None
    net.send("h1", ask(R1))
    assert len(net["h1"].got) == 1
    net.balanced()


@neighbor("V6-06")
def test_three_questions_to_the_group_then_address_unreachable() -> None:
    net = router()
    net["h2"].quiet = True
    target = ip("fd00:2::77")
    assert cross(net, datagram(A, target, 5, 6))[-1] == "NEIGHBOR_ASKED"
    net.world.advance(10 * SECOND)
    asked = solicitations(net["h2"])
    assert [at for at, *_ in asked] == [0, SECOND, 2 * SECOND]
    assert {to for _, to, _, _ in asked} == {multicast_mac(solicited_node(target))}
    assert {packet.src for _, _, packet, _ in asked} == {"fe80::ff:fe00:201"}, "from the link-local address"
    assert {message.source_mac for *_, message in asked} == {M2}
    assert [at for at, frame in net["h1"].got if seen(frame).error == (1, 3)] == [3 * SECOND]
    net.balanced()


# Forwarding


@of_router("V6-07")
def test_what_changes_in_a_forwarded_packet() -> None:
    net = router()
    sent = IPv6(A, B, 59, hop_limit=64, traffic_class=0xB9, flow_label=0xABCDE).pack(b"payload")
    cross(net, sent)
    packet = one(net["h2"])
    assert (packet.source_mac, packet.destination_mac) == (M2, H2)
    assert packet.packet == sent[:7] + b"\x3f" + sent[8:]
    net.balanced()


@of_router("V6-08")
@pytest.mark.parametrize("hop_limit", [1, 0])
def test_an_expired_hop_limit_is_told_in_1280_bytes(hop_limit: int) -> None:
    net = router()
    sent = datagram(A, B, 5, 6, bytes(1400), ttl=hop_limit)
    [error] = told(net, sent)
    assert (error.error, error.src, error.ttl) == ((3, 0), "fd00:1::1", 64)
    assert len(error.packet) == 1280
    assert error.icmpv6.body == sent[:1232]
    net.balanced()


@of_router("V6-09")
@pytest.mark.parametrize(
    ("kind", "error"), [("prohibit", (1, 1)), ("unreachable", (1, 0)), ("blackhole", None), ("throw", (1, 0))]
)
def test_what_a_route_says_is_told(kind: str, error: tuple[int, int] | None) -> None:
    net = router(routes=[route("fd09::/32", kind=kind)])
    found = [packet.error for packet in told(net, datagram(A, ip("fd09::1"), 5, 6))]
    assert found == ([] if error is None else [error])
    assert len(device(net).ledger.reasons) == 1
    assert [packet.error for packet in told(net, datagram(A, ip("fd77::1"), 5, 6))] == [(1, 0)]
    assert [packet.error for packet in told(net, datagram(A, NOBODY, 5, 6))] == [(1, 0)]
    net.balanced()


@endpoint("V6-09")
def test_a_closed_port_and_an_unknown_header_are_told() -> None:
    net = router(stacks=True)
    [error] = told(net, datagram(A, R2, 5, 7))
    assert (error.error, error.src) == ((1, 4), "fd00:2::1")
    [error] = told(net, IPv6(A, R1, 200).pack(b"what"))
    assert (error.error, error.icmpv6.rest) == ((4, 1), (6).to_bytes(4, "big"))
    net.balanced()


@of_router("V6-10")
def test_too_big_is_told_always_and_a_router_never_cuts() -> None:
    net = router(mtus={"e2": 1300})
    big = datagram(A, B, 5, 6, bytes(1253))
    piece = IPv6(A, B, 44).pack(FragmentHeader(UDP, 0, True, 7).pack() + bytes(1256))
    for sent in (big, piece):
        heard = [error for _ in range(30) for error in told(net, sent)]
        assert [error.error for error in heard] == [(2, 0)] * 30
        assert {error.icmpv6.mtu for error in heard} == {1300}
    assert got(net["h2"]) == []
    cross(net, datagram(A, B, 5, 6, bytes(1252)))
    assert len(one(net["h2"]).packet) == 1300
    net.balanced()


@errors("V6-11")
def test_six_at_once_then_ten_a_second() -> None:
    net = router()
    expired = datagram(A, B, 5, 6, ttl=1)
    assert sum(len(told(net, expired, now=0)) for _ in range(30)) == 6
    heard = []
    for hundredth in range(1, 101):
        heard += [hundredth for _ in told(net, expired, now=hundredth * SECOND // 100)]
    assert heard == list(range(10, 101, 10))
    net.balanced()


@endpoint("V6-12")
def test_a_udp_checksum_of_zero_is_dropped() -> None:
    net = router(stacks=True)
    good = datagram(A, R1, 5, 7)
    assert told(net, good[:46] + bytes(2) + good[48:]) == []
    assert len(told(net, good)) == 1
    net.balanced()


@of_router("V6-13")
@pytest.mark.parametrize("source", ["::", "ff02::5", "ff0e::1", "::1"])
def test_sources_that_are_not_forwarded(source: str) -> None:
    net = router()
    assert cross(net, datagram(ip(source), B, 5, 6))[-1] == "MARTIAN_SOURCE"
    assert cross(net, datagram(ip(source), B, 5, 6, ttl=1))[-1] in ("MARTIAN_SOURCE", "TTL_EXPIRED")
    assert all(not got(net[name]) for name in ("h1", "h2"))
    net.balanced()


@of_router("V6-13")
@pytest.mark.parametrize("source", ["::ffff:1.2.3.4", "fd00:1::1", "fd00:3::1"])
def test_sources_that_linux_forwards(source: str) -> None:
    net = router()
    cross(net, datagram(ip(source), B, 5, 6))
    packet = one(net["h2"])
    assert (packet.src, packet.ttl) == (str_of(ip(source)), 63)
    net.balanced()


@of_router("V6-13")
def test_a_link_local_source_never_leaves_its_link() -> None:
    net = router()
    net["h1"].quiet = True
    assert cross(net, datagram(H1_LOCAL, B, 5, 6))[-1] == "LINK_LOCAL_NOT_ROUTED"
    assert got(net["h2"]) == []
    asked = solicitations(net["h1"])
    assert [message.target for *_, message in asked] == [H1_LOCAL], "the answer goes to the link-local address"
    net.world.advance(10 * SECOND)
    net.send("h1", ask(R1, source=H1_LOCAL))
    got(net["h1"])
    [error] = told(net, datagram(H1_LOCAL, B, 5, 6))
    assert (error.error, error.src) == ((1, 2), str_of(R1_LOCAL))
    net.balanced()


@of_router("V6-14")
def test_a_link_local_destination_stays_on_its_link() -> None:
    net = router(routes=[route("::/0", "e2", "fd00:2::2")])
    target = ip("fe80::1234")
    net["h1"].quiet = True
    cross(net, datagram(A, target, 5, 6))
    assert got(net["h2"]) == []
    asked = [message for *_, message in solicitations(net["h1"])]
    assert target in [message.target for message in asked]
    net.world.advance(10 * SECOND)
    net.balanced()


@pytest.mark.rule("V6-14", element="redirect")
def test_a_better_next_hop_on_the_link_is_told() -> None:
    net = router(routes=[route("fd09::/32", "e1", "fe80::99")])
    net["h1"].quiet = True
    sent = datagram(A, ip("fd09::5"), 5, 6)
    net.send("h1", ask(R1))
    got(net["h1"])
    net.send("h1", net.frame("h1", sent))
    redirects = [packet for packet in got(net["h1"]) if packet.error == (137, 0)]
    assert [(packet.src, packet.dst, packet.ttl) for packet in redirects] == [(str_of(R1_LOCAL), "fd00:1::2", 255)]
    body = redirects[0].icmpv6.body
    assert body[:32] == ip("fe80::99") + ip("fd09::5")
    quoted = sent[: (len(sent) + 8 & ~7) - 8]
    assert body[32:] == bytes((4, 1 + len(quoted) // 8)) + bytes(6) + quoted, "no MAC: it is not known yet"
    net.world.advance(10 * SECOND)
    net.balanced()


@pytest.mark.rule("V6-14", element="redirect")
def test_redirects_are_few_and_only_to_a_next_hop_that_neighbours_know() -> None:
    net = router(routes=[route("fd09::/32", "e1", "fe80::99"), route("fd08::/32", "e1", "fd00:1::99")])
    net["h1"].quiet = True
    net.send("h1", ask(R1))
    net.send("h1", tell(ip("fe80::99"), H1, to=ALL_NODES))
    count = 0
    for hundredth in range(400):
        net.send("h1", net.frame("h1", datagram(A, ip("fd09::5"), 5, 6)), SECOND + hundredth * SECOND // 100)
        count += sum(packet.error == (137, 0) for packet in got(net["h1"]) if packet.protocol == ICMPV6)
    assert count == 6 + 3, "six at once, then one a second"
    net.send("h1", net.frame("h1", datagram(A, ip("fd08::5"), 5, 6)), 20 * SECOND)
    assert all(packet.error != (137, 0) for packet in got(net["h1"]) if packet.protocol == ICMPV6)
    net.world.advance(40 * SECOND)
    net.balanced()


@endpoint("V6-15")
@pytest.mark.parametrize("destination", ["ff02::1", "ff02::2", "fd00:1::", "fd00:2::"])
def test_a_router_answers_for_all_nodes_all_routers_and_its_anycast_addresses(destination: str) -> None:
    net = router(stacks=True)
    to = multicast_mac(ip(destination)) if destination.startswith("ff") else None
    [reply] = told(net, echo(A, ip(destination)), to)
    assert (reply.icmpv6.type, reply.src) == (icmpv6.ECHO_REPLY, "fd00:1::1")
    net.balanced()


@solicited("V6-15")
def test_an_anycast_address_is_answered_for_late_and_without_overriding() -> None:
    net = router()
    assert net.send("h1", ask(ip("fd00:1::"))).codes[-1] == "ND_DELAYED"
    assert net["h1"].got == []
    net.world.advance(SECOND)
    [(at, frame)] = net["h1"].got
    assert 0 < at < 800 * MILLISECOND
    _, news = advertised(frame)
    assert news == NeighborAdvertisement(ip("fd00:1::"), M1, router=True, solicited=True, override=False)
    net.balanced()


def error_about(type: int, code: int = 0) -> bytes:
    quoted = datagram(B, A, 5, 6)
    return IPv6(A, B, ICMPV6, 1).pack(Icmpv6(type, code, bytes(4), quoted).pack(A, B))


@errors("V6-16")
@pytest.mark.parametrize("type", [1, 2, 3, 4, 100, 137])
def test_never_an_error_about_an_error_or_a_redirect(type: int) -> None:
    net = router()
    assert told(net, error_about(type)) == []
    assert device(net).ledger.reasons == {"TTL_EXPIRED": 1}
    [error] = told(net, error_about(128))
    assert error.error == (3, 0)
    net.balanced()


@pytest.mark.rule("V6-16", element="options")
def test_never_an_error_about_what_was_sent_to_many_but_for_an_option_that_asks_for_it() -> None:
    net = router(stacks=True)
    group = ip("ff0e::9")
    option = IPv6(A, group, 0).pack(bytes((UDP, 0, 0x80, 4, 0, 0, 0, 0)) + udp.Udp(5, 6).pack(A, group, b""))
    [error] = told(net, option, multicast_mac(group))
    assert (error.error, error.icmpv6.rest) == ((4, 2), (42).to_bytes(4, "big"))
    silent = option[:42] + b"\xc0" + option[43:]
    assert told(net, silent, multicast_mac(group)) == [], "bits 11: not to a group"
    assert told(net, datagram(A, B, 5, 6, ttl=1), multicast_mac(group)) == []
    net.balanced()


@pytest.mark.rule("V6-16", element="options")
@pytest.mark.parametrize(("kind", "outcome"), [(0x1E, "forwarded"), (0x40, "silence"), (0x80, "told"), (0xC0, "told")])
def test_an_unknown_hop_by_hop_option_says_what_to_do(kind: int, outcome: str) -> None:
    net = router()
    sent = IPv6(A, B, 0).pack(bytes((UDP, 0, kind, 4, 1, 2, 3, 4)) + udp.Udp(5, 6).pack(A, B, b""))
    heard = told(net, sent)
    assert [packet.ttl for packet in got(net["h2"])] == ([63] if outcome == "forwarded" else [])
    assert [packet.error for packet in heard] == ([(4, 2)] if outcome == "told" else [])
    silent = IPv6(A, B, 0).pack(bytes((UDP, 0, 0x40, 4, 1, 2, 3, 4)) + bytes(8))
    assert cross(net, silent)[-1] == "IP_OPTION_MALFORMED"
    net.balanced()


@endpoint("V6-16")
def test_a_stack_tells_nobody_about_a_group_or_nobodys_packet() -> None:
    net = router(stacks=True)
    assert told(net, datagram(A, ALL_NODES, 5, 7), multicast_mac(ALL_NODES)) == []
    assert told(net, datagram(NOBODY, R1, 5, 7)) == []
    assert len(told(net, datagram(A, R1, 5, 7))) == 1
    net.balanced()


@pytest.mark.rule("V6-17", element="sockets")
def test_a_router_asks_for_no_router_and_does_not_answer_for_one() -> None:
    net = router()
    to = ip("ff02::2")
    body = IPv6(H1_LOCAL, to, ICMPV6, 255).pack(Icmpv6(133, 0).pack(H1_LOCAL, to))
    trace = net.send("h1", multicast_mac(to) + H1 + b"\x86\xdd" + body)
    assert trace.codes[-2:] == ["DELIVERED_LOCALLY", "RECEIVED"], "it is for a daemon of the router's own"
    net.world.advance(60 * SECOND)
    assert all(not net[name].got for name in ("h1", "h2", "h3"))
    assert len(net["r:e1"].got) == 1
    net.balanced()


@of_router("V6-04")
def test_a_unicast_packet_in_a_group_frame_is_not_routed() -> None:
    net = router()
    assert cross(net, datagram(A, B, 5, 6), multicast_mac(ALL_NODES))[-1] == "LINK_GROUP_NOT_ROUTED"
    assert cross(net, datagram(A, B, 5, 6), BROADCAST)[-1] == "LINK_GROUP_NOT_ROUTED"
    assert all(not got(net[name]) for name in ("h1", "h2"))
    net.balanced()
