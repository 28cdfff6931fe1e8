"""Two captures of the same traffic: which packets are the same, and what happened to them on the way."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

from emunet.packet.difference import changes, view
from emunet.packet.matching import compare
from emunet.packet.pcap import INBOUND, OUTBOUND, CapturedFrame

A, B, C, D = (f"02:00:00:00:00:0{number}" for number in range(1, 5))
SYN = IP(src="10.244.1.2", dst="10.96.0.10", id=77, ttl=64) / TCP(sport=40000, dport=80, flags="S", seq=1000)
AFTER_NAT = IP(src="192.168.9.11", dst="10.244.2.2", id=77, ttl=62, tos=3) / TCP(
    sport=51111, dport=8080, flags="S", seq=1000
)
OUTER = IP(src="192.168.9.11", dst="192.168.9.12") / UDP(sport=51000, dport=8472) / VXLAN(vni=7, flags="Instance")


def frame(packet: Packet, source: str = A, destination: str = B) -> bytes:
    return bytes(Ether(src=source, dst=destination) / packet)


def captured(
    at: int, packet: Packet | bytes, direction: int = 0, identity: int = 0, section: str = ""
) -> CapturedFrame:
    data = packet if isinstance(packet, bytes) else frame(packet)
    return CapturedFrame(at, data, len(data), "x", (), direction, identity, section)


def test_a_packet_is_known_again_behind_a_tunnel_and_nat() -> None:
    before = view(frame(SYN))
    after = view(frame(OUTER / Ether(src=C, dst=D) / AFTER_NAT))
    assert before.mark == after.mark
    assert changes(before, after) == [
        ("put into", "VXLAN 7 from 192.168.9.11 to 192.168.9.12"),
        ("source MAC", f"{A} -> {C}"),
        ("destination MAC", f"{B} -> {D}"),
        ("source address", "10.244.1.2 -> 192.168.9.11"),
        ("destination address", "10.96.0.10 -> 10.244.2.2"),
        ("TTL", "64 -> 62"),
        ("ECN", "0 -> 3"),
        ("source port", "40000 -> 51111"),
        ("destination port", "80 -> 8080"),
    ]
    assert changes(before, before) == []


def test_an_error_is_known_again_when_what_it_quotes_was_translated() -> None:
    errors = [
        view(frame(IP(src="10.0.0.9", dst=quoted.src, id=5) / ICMP(type=3, code=4) / Raw(bytes(quoted)[:28])))
        for quoted in (SYN, AFTER_NAT)
    ]
    assert errors[0].mark == errors[1].mark


def test_what_is_another_packet_has_another_mark() -> None:
    packets = [
        SYN,
        IP(src="10.244.1.2", dst="10.96.0.10", id=78) / TCP(sport=40000, dport=80, flags="S", seq=1000),  # sent again
        IP(src="10.244.1.2", dst="10.96.0.10", id=77) / TCP(sport=40000, dport=80, flags="SA", seq=1000),
        IP(src="10.244.1.2", dst="10.96.0.10", id=77) / UDP(dport=53) / b"x",
        IP(src="10.244.1.2", dst="10.96.0.10", id=77) / UDP(dport=53) / b"y",
        IP(src="10.244.1.2", dst="10.96.0.10", id=77) / ICMP(id=1, seq=1),
        IP(src="10.244.1.2", dst="10.96.0.10", id=77) / ICMP(id=1, seq=2),
        IPv6(src="fd00::1", dst="fd00::2") / UDP(dport=53) / b"x",
        ARP(pdst="10.244.1.3"),
        ARP(pdst="10.244.1.4"),
    ]
    assert len({view(frame(packet)).mark for packet in packets}) == len(packets)


@given(st.binary(max_size=200))
def test_any_bytes_have_a_view(data: bytes) -> None:
    seen = view(data)
    assert changes(seen, seen) == []
    hash(seen.mark)
    changes(seen, view(frame(SYN)))


def test_tags_and_payload() -> None:
    plain, tagged = view(frame(SYN)), view(frame(Dot1Q(vlan=5) / SYN))
    assert changes(plain, tagged) == [("VLAN", "none -> 5")]
    one, other = (view(frame(IP(id=1) / UDP() / data)) for data in (b"hello", b"hallo"))
    assert changes(one, other) == [("payload", "1 of 5 bytes, the first at 1")]


def test_loss_order_and_delay() -> None:
    """100 packets, every tenth lost, two that change places, delays of 1 to 100 ms."""
    sent = [captured(number * 1000, IP(id=number + 1) / UDP() / bytes([number])) for number in range(100)]
    kept = [number for number in range(100) if number % 10]
    kept[3], kept[4] = kept[4], kept[3]
    received = [
        captured(number * 1000 + (number + 1) * 1_000_000, IP(id=number + 1, ttl=60) / UDP() / bytes([number]))
        for number in kept
    ]
    result = compare(sent, received)
    assert (result.forth.packets, result.back.packets, result.forth.reordered) == (90, 0, 1)
    assert [row.data for row in result.only_a] == [sent[number].data for number in range(0, 100, 10)]
    assert result.only_b == []
    assert {what: dict(rows) for what, rows in result.forth.changes.items()} == {"TTL": {"64 -> 60": 90}}
    delays = sorted((number + 1) * 1_000_000 for number in kept)
    assert result.forth.percentile(0.5) == delays[44]
    assert result.forth.percentile(0.99) == delays[89]
    assert result.forth.percentile(0.9) == delays[80]


def test_both_ways_and_where_no_time_passes() -> None:
    request, reply = IP(id=1) / ICMP(seq=1), IP(id=2) / ICMP(type=0, seq=1)
    here = [captured(0, request, OUTBOUND), captured(0, reply, INBOUND)]
    there = [captured(0, request, INBOUND), captured(0, reply, OUTBOUND)]
    for result in (compare(here, there), compare(here, there, [here[0], there[0], there[1], here[1]])):
        assert (result.forth.packets, result.back.packets) == (1, 1)


def test_identity_goes_before_content_within_one_run_only() -> None:
    """A corrupted packet is still the same; of two runs, equal numbers mean nothing."""
    good, bad = captured(0, IP(id=1) / UDP() / b"good", 0, 5, "lab a, run 1"), IP(id=1) / UDP() / b"bad!"
    same = compare([good], [captured(1, bad, 0, 5, "lab a, run 1")])
    assert same.by_identity == same.forth.packets == 1
    assert list(same.forth.changes) == ["payload"]
    other = compare([good], [captured(1, bad, 0, 5, "lab a, run 2")])
    assert (other.forth.packets, len(other.only_a), len(other.only_b)) == (0, 1, 1)


def test_pieces_match_their_datagram() -> None:
    whole = IP(src="10.0.0.1", dst="10.0.0.2", id=9) / UDP() / bytes(3000)
    result = compare([captured(0, whole)], [captured(5, piece) for piece in fragment(whole, 1400)])
    assert (result.forth.packets, result.forth.fragments, result.only_a, result.only_b) == (1, 1, [], [])


def test_equal_packets_match_in_their_order() -> None:
    rng = random.Random(1)
    same = [captured(number * 10, IP(id=0, flags="DF") / UDP() / b"tick") for number in range(20)]
    late = [captured(frame.time_ns + rng.randrange(9), frame.data) for frame in same]
    result = compare(same, late)
    assert (result.forth.packets, result.forth.reordered) == (20, 0)
    assert max(result.forth.delays) < 9
