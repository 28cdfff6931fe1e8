"""What a router does to an IPv4 packet (fidelity IP-01 to IP-18): frames in on e1, frames out on e2, or silence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from emunet.packet import icmp
from emunet.packet.ipv4 import IPv4
from tests.stories.benches import (
    BROADCAST,
    ICMP,
    SECOND,
    UDP,
    Net,
    Settings,
    change,
    datagram,
    device,
    echo,
    got,
    host_mac,
    ip,
    mac,
    one,
    route,
    router,
    router_mac,
    segment,
)

Mark = Callable[[str], pytest.MarkDecorator]
of_router: Mark = lambda rule: pytest.mark.rule(rule, element="router")  # noqa: E731

H1, H2 = host_mac(1), host_mac(2)
A, B = ip("10.0.1.2"), ip("10.0.2.2")


def packet(source: str = "10.0.1.2", destination: str = "10.0.2.2", data: bytes = b"data", **fields: object) -> bytes:
    """A UDP datagram, by default from h1 to h2."""
    return datagram(ip(source), ip(destination), 1000, 2000, data, **fields)  # type: ignore[arg-type]


def silent(net: Net) -> bool:
    """Whether nobody got anything, and forget it."""
    return not any(got(station) for station in net.stations.values())


def crosses(net: Net, data: bytes, source: str = "h1", to: bytes | None = None) -> list[str]:
    """Send a packet from a station: the trace's codes."""
    return net.send(source, net.frame(source, data, to)).codes


@of_router("IP-01")
def test_what_changes_in_a_forwarded_packet_and_what_does_not() -> None:
    net = router()
    options = bytes.fromhex("9404000001010101")  # router alert, no operation
    sent = IPv4(A, B, 253, ttl=64, tos=0xB9, identification=0xBEEF, dont_fragment=True, options=options).pack(
        b"payload"
    )
    codes = crosses(net, sent)
    assert [code for code in codes if code in ("ROUTED", "NEIGHBOR_ASKED")] == ["ROUTED", "NEIGHBOR_ASKED"]
    seen = one(net["h2"])
    assert (seen.source_mac, seen.destination_mac, seen.ttl) == (router_mac(2), H2, 63)
    expected = IPv4(A, B, 253, ttl=63, tos=0xB9, identification=0xBEEF, dont_fragment=True, options=options)
    assert seen.packet == expected.pack(b"payload"), "checksum right, all else as it was"
    net.balanced()


@of_router("IP-01")
def test_the_steps_of_a_forwarded_packet() -> None:
    net = router()
    crosses(net, packet())
    assert crosses(net, packet()) == [
        "ENTERED", "LINK_IP", "IP_VALID", "NOT_REASSEMBLED", "NOT_TRACKED", "ROUTED", "NO_POLICY", "NOT_TRANSLATED",
        "FITS", "NEIGHBOR_KNOWN", "RECEIVED",
    ]  # fmt: skip
    assert [seen.ttl for seen in got(net["h2"])] == [63, 63]
    net.balanced()


@pytest.mark.rule("IP-02", element="header")
def test_link_padding_does_not_travel_on() -> None:
    net = router()
    frame = net.frame("h1", packet()) + bytes(range(20))
    net.send("h1", frame)
    [(_, came)] = [row for row in net["h2"].got if row[1][12:14] == b"\x08\x00"]
    assert len(came) == 14 + len(packet())
    net.balanced()


@pytest.mark.rule("IP-03", element="link")
def test_a_frame_for_another_station_is_left_alone() -> None:
    net = router()
    assert crosses(net, packet(), to=mac("02:00:00:00:01:77")) == ["ENTERED", "NOT_FOR_US"]
    assert silent(net)
    crosses(net, packet())
    assert one(net["h2"]).ttl == 63
    net.balanced()


@of_router("IP-04")
@pytest.mark.parametrize("to", [BROADCAST, mac("01:00:5e:00:02:02")])
def test_a_unicast_packet_in_a_group_frame_is_not_routed(to: bytes) -> None:
    net = router()
    assert crosses(net, packet(), to=to)[-1] == "LINK_GROUP_NOT_ROUTED"
    assert crosses(net, packet(ttl=1), to=to)[-1] == "LINK_GROUP_NOT_ROUTED"
    assert silent(net)
    net.balanced()


def broken(what: str) -> bytes:
    """A good packet with one thing wrong, its checksum right unless that is the thing."""
    good = packet(data=b"data" * 10)
    if what == "checksum":
        return good[:10] + bytes((good[10] ^ 1,)) + good[11:]
    head = bytearray(good[:20])
    if what == "version":
        head[0] = 0x55
    elif what == "header length":
        head[0] = 0x44
    elif what == "total length":
        head[2:4] = (len(good) + 1).to_bytes(2, "big")
    elif what == "total less than header":
        head[2:4] = (19).to_bytes(2, "big")
    head[10:12] = bytes(2)
    from emunet.packet.checksum import checksum

    head[10:12] = checksum(bytes(head[: (head[0] & 15) * 4])).to_bytes(2, "big")
    return bytes(head) + good[20:]


@pytest.mark.rule("IP-05", element="header")
@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("checksum", "IP_BAD_CHECKSUM"),
        ("version", "IP_BAD_VERSION"),
        ("header length", "IP_BAD_HEADER_LENGTH"),
        ("total length", "IP_TRUNCATED"),
        ("total less than header", "IP_TRUNCATED"),
    ],
)
def test_a_broken_header_is_dropped_silently(what: str, reason: str) -> None:
    net = router()
    frame = router_mac(1) + H1 + b"\x08\x00" + broken(what)
    assert net.send("h1", frame).codes[-1] == reason
    assert all(not station.got for station in net.stations.values())
    net.balanced()


@of_router("IP-06")
@pytest.mark.parametrize(
    "source", ["127.0.0.1", "127.9.9.9", "0.0.0.0", "224.0.0.5", "239.1.2.3", "255.255.255.255", "10.0.1.1", "10.0.3.1"]
)
def test_sources_that_are_never_forwarded(source: str) -> None:
    net = router(routes=[route("0.0.0.0/0", "e2", "10.0.2.2")])
    assert crosses(net, packet(source))[-1] == "MARTIAN_SOURCE"
    assert silent(net)
    net.balanced()


@of_router("IP-07")
@pytest.mark.parametrize("source", ["240.0.0.1", "169.254.7.7", "10.0.3.255", "0.1.2.3", "172.16.0.9"])
def test_sources_that_linux_forwards_without_rp_filter(source: str) -> None:
    net = router()
    assert "ROUTED" in crosses(net, packet(source))
    seen = one(net["h2"])
    assert (seen.src, seen.ttl) == (source, 63)
    net.balanced()


@of_router("IP-08")
def test_a_loopback_destination_from_outside_is_dropped_silently() -> None:
    net = router(routes=[route("0.0.0.0/0", "e2", "10.0.2.2")])
    assert crosses(net, packet(destination="127.0.0.1"))[-1] == "MARTIAN_DESTINATION"
    assert silent(net)
    net.balanced()


@of_router("IP-09")
@pytest.mark.parametrize("destination", ["240.0.0.1", "0.1.2.3"])
def test_reserved_destinations_are_unicast_without_a_route(destination: str) -> None:
    net = router()
    assert crosses(net, packet(destination=destination))[-1] == "NO_ROUTE"
    assert one(net["h1"]).error == (3, 0)
    net.balanced()


@of_router("IP-09")
@pytest.mark.parametrize(
    ("destination", "reason"), [("255.255.255.255", "DELIVERED_LOCALLY"), ("0.0.0.0", "MARTIAN_DESTINATION")]
)
def test_the_limited_broadcast_and_no_address_are_not_forwarded(destination: str, reason: str) -> None:
    net = router(routes=[route("0.0.0.0/0", "e2", "10.0.2.2")])
    assert reason in crosses(net, packet(destination=destination), to=BROADCAST)
    assert got(net["h2"]) == []
    assert got(net["h1"]) == []
    net.balanced()


@pytest.mark.rule("IP-10", element="neighbor")
def test_the_zeroth_address_of_a_network_is_a_hosts_like_any() -> None:
    net = router(routes=[])
    net["h2"].quiet = True
    assert crosses(net, packet(destination="10.0.2.0"))[-1] == "NEIGHBOR_ASKED"
    assert net["h2"].got[0][1][38:42] == ip("10.0.2.0"), "it is asked for"
    net.world.advance(10 * SECOND)
    assert one(net["h1"]).error == (3, 1)
    net.balanced()


ELSEWHERE = "172.16.5.5"
RP_FILTER = {
    # (rp_filter, source) -> whether it crosses; h1 is on e1, 10.0.3.0/24 is on e3
    (0, "10.0.3.9"): True,
    (1, "10.0.3.9"): False,
    (2, "10.0.3.9"): True,
    (0, ELSEWHERE): True,
    (1, ELSEWHERE): False,
    (2, ELSEWHERE): False,
    (0, "10.0.3.255"): True,
    (2, "10.0.3.255"): False,
    (1, "10.0.1.9"): True,
    (2, "10.0.1.9"): True,
}


@pytest.mark.rule("IP-11", element="sources")
def test_rp_filter_believes_sources_by_their_way_back() -> None:
    for (mode, source), passes in RP_FILTER.items():
        net = router(settings={"e1": Settings(rp_filter=mode)})
        codes = crosses(net, packet(source))
        assert (codes[-1] in ("REVERSE_PATH", "MARTIAN_SOURCE")) is not passes, (mode, source)
        assert len(got(net["h2"])) == passes, (mode, source)
        assert not got(net["h1"]), "never an error"
        net.balanced()


@pytest.mark.rule("IP-11", element="sources")
def test_a_default_route_is_a_way_back_for_loose_and_by_its_interface_for_strict() -> None:
    for mode, interface, passes in ((2, "e3", True), (1, "e3", False), (1, "e1", True)):
        via = "10.0.3.2" if interface == "e3" else "10.0.1.2"
        net = router(settings={"e1": Settings(rp_filter=mode)}, routes=[route("0.0.0.0/0", interface, via)])
        crosses(net, packet(ELSEWHERE))
        assert len(got(net["h2"])) == passes, (mode, interface)
        net.balanced()


@pytest.mark.rule("IP-11", element="sources")
def test_rp_filter_is_for_packets_to_the_router_too() -> None:
    net = router(settings={"e1": Settings(rp_filter=1)})
    assert crosses(net, packet("10.0.3.9", "10.0.1.1"))[-1] == "REVERSE_PATH"
    crosses(net, packet("10.0.1.9", "10.0.1.1"))
    assert one(net["r:e1"]).src == "10.0.1.9"
    net.balanced()


@of_router("IP-12")
def test_a_directed_broadcast_from_another_network_is_dropped() -> None:
    net = router()
    assert crosses(net, packet(destination="10.0.2.255"))[-1] == "BROADCAST_NOT_ROUTED"
    assert silent(net)
    net.balanced()


@of_router("IP-13")
def test_multicast_without_a_multicast_route_is_dropped_silently() -> None:
    net = router(routes=[route("0.0.0.0/0", "e2", "10.0.2.2")])
    for destination in ("239.1.2.3", "232.0.0.9"):
        assert crosses(net, packet(destination=destination), to=mac("01:00:5e:01:02:03"))[-1] == "MULTICAST_NOT_ROUTED"
    assert crosses(net, packet(destination="224.0.0.5"), to=mac("01:00:5e:00:00:05"))[-1] == "NOT_LISTENING"
    assert silent(net)
    net.balanced()


def with_options(options: str, **fields: object) -> bytes:
    """A packet from h1 to h2 with these options."""
    header = IPv4(A, B, UDP, options=bytes.fromhex(options), identification=7, **fields)  # type: ignore[arg-type]
    return header.pack(b"12345678")


@pytest.mark.rule("IP-14", element="options")
@pytest.mark.parametrize("kind", ["83", "89"])
def test_source_routes_are_refused_silently(kind: str) -> None:
    net = router()
    assert crosses(net, with_options(kind + "07040a00020200"))[-1] == "SOURCE_ROUTE"
    assert (
        crosses(net, IPv4(A, ip("10.0.1.1"), UDP, options=bytes.fromhex(kind + "07040a000202")).pack(b""))[-1]
        == "SOURCE_ROUTE"
    )
    assert silent(net)
    net.balanced()


@pytest.mark.rule("IP-15", element="options")
def test_record_route_gets_the_egress_address() -> None:
    net = router()
    crosses(net, with_options("070b04" + "00" * 8))
    header = one(net["h2"]).v4
    assert header.options.hex() == "070b080a000201" + "00" * 4 + "00"
    assert (header.ttl, header.header_length) == (63, 32)
    crosses(net, with_options("070708" + "0a090909"))  # full
    assert one(net["h2"]).v4.options.hex().startswith("0707080a090909")
    net.balanced()


@pytest.mark.rule("IP-15", element="options")
def test_timestamps_are_written_in_lab_time() -> None:
    net = router()
    net.world.advance(5 * SECOND)
    crosses(net, with_options("440c0501" + "00" * 8))
    assert one(net["h2"]).v4.options.hex() == "440c0d010a000101" + (5000).to_bytes(4, "big").hex()
    crosses(net, with_options("44080500" + "00" * 4))
    assert one(net["h2"]).v4.options.hex() == "44080900" + (5000).to_bytes(4, "big").hex()
    crosses(net, with_options("44080920" + "00" * 4))
    assert one(net["h2"]).v4.options.hex() == "44080930" + "00" * 4, "no room: counted"
    net.balanced()


@pytest.mark.rule("IP-16", element="options")
@pytest.mark.parametrize(
    ("options", "pointer"),
    [
        ("07000000", 20),
        ("01070100", 21),
        ("070b0300" + "00" * 8, 22),
        ("07060400" + "0000" * 2, 22),
        ("0703040707030407", 23),
        ("44030500", 21),
        ("9403000000000000", 21),
        ("01010107", 23),
    ],
)
def test_a_malformed_option_is_told_with_its_place(options: str, pointer: int) -> None:
    net = router()
    assert crosses(net, with_options(options))[-1] == "IP_OPTION_MALFORMED"
    told = one(net["h1"])
    assert told.error == (12, 0)
    assert told.icmp.rest[0] == pointer
    assert got(net["h2"]) == []
    net.balanced()


@pytest.mark.rule("IP-16", element="router")
def test_an_unknown_option_is_carried() -> None:
    net = router()
    crosses(net, with_options("de04aabb1e06112233440000"))
    header = one(net["h2"]).v4
    assert (header.options.hex(), header.ttl) == ("de04aabb1e06112233440000", 63)
    net.balanced()


@of_router("IP-17")
def test_a_host_that_does_not_forward_takes_what_is_for_it_and_drops_the_rest_silently() -> None:
    net = router(settings={f"e{number}": Settings(forwarding=False) for number in (1, 2, 3)})
    assert crosses(net, packet())[-1] == "NOT_FORWARDING"
    assert crosses(net, packet(destination="203.0.113.9"))[-1] == "NOT_FORWARDING"
    assert silent(net)
    crosses(net, packet(destination="10.0.1.1"))
    assert one(net["r:e1"]).dst == "10.0.1.1"
    net.balanced()


@pytest.mark.rule("IP-18", element="routes")
def test_the_longest_prefix_wins_then_the_lowest_metric() -> None:
    rows = [
        route("10.9.0.0/16", "e2", "10.0.2.2"),
        route("10.9.9.0/24", "e3", "10.0.3.2", metric=500),
        route("10.9.9.0/24", "e2", "10.0.2.2", metric=900),
        route("10.9.9.9/32", "e2", "10.0.2.2"),
    ]
    net = router(routes=rows)
    for destination, station in (("10.9.1.1", "h2"), ("10.9.9.1", "h3"), ("10.9.9.9", "h2")):
        crosses(net, packet(destination=destination))
        assert one(net[station]).dst == destination
    change(net, routes=tuple(row for row in net.config.hosts[0].routes if row.metric != 500))
    crosses(net, packet(destination="10.9.9.1"))
    assert one(net["h2"]).dst == "10.9.9.1"
    net.balanced()


@pytest.mark.rule("IP-18", element="routes")
def test_equal_costs_are_shared_by_pairs_of_addresses() -> None:
    net = router(routes=[route("10.9.0.0/16", "e2", "10.0.2.2"), route("10.9.0.0/16", "e3", "10.0.3.2")])
    ways: Counter[str] = Counter()
    for number in range(200):
        destination = ip(f"10.9.{number // 100}.{number % 100 + 1}")
        for port in (1, 2):
            crosses(net, datagram(A, destination, port, 80))
            crosses(net, segment(A, destination, port, 80, 2))
        taken = {name for name in ("h2", "h3") if len(got(net[name])) == 4}
        assert len(taken) == 1, "all packets between two addresses go one way"
        ways += Counter(taken)
    assert 70 < ways["h2"] < 130
    net.balanced()


def test_an_icmp_error_goes_the_way_of_what_it_is_about() -> None:
    net = router(routes=[route("10.9.0.0/16", "e2", "10.0.2.2"), route("10.9.0.0/16", "e3", "10.0.3.2")])
    ways = set()
    for number in range(1, 40):
        target = ip(f"10.9.0.{number}")
        crosses(net, datagram(A, target, 5, 6))
        there = {name for name in ("h2", "h3") if got(net[name])}
        about = IPv4(target, A, UDP).pack(bytes(20))
        crosses(net, IPv4(ip("10.0.1.99"), target, ICMP).pack(icmp.error(11, 0, about).pack()))
        assert {name for name in ("h2", "h3") if got(net[name])} == there
        ways |= there
    assert ways == {"h2", "h3"}
    net.balanced()


@of_router("IP-05")
def test_an_echo_crosses_and_its_answer_comes_back() -> None:
    net = router()
    crosses(net, echo(A, B))
    assert one(net["h2"]).icmp.type == icmp.ECHO_REQUEST
    crosses(net, echo(B, A), source="h2")
    assert one(net["h1"]).ttl == 63
    net.balanced()


def test_reasons_are_counted() -> None:
    net = router()
    crosses(net, packet("127.0.0.1"))
    assert device(net).ledger.reasons == {"MARTIAN_SOURCE": 1}
    assert net.world.ledger.reasons == {"MARTIAN_SOURCE": 1}
