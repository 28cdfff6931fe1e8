"""What must hold for any bytes: parsers raise only Malformed, a checksum difference is exact, pieces rejoin."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emunet.packet import arp, ethernet, icmp, icmpv6, ipv4, ipv6, pcap, pcapng, tcp, udp, vxlan
from emunet.packet.checksum import (
    checksum,
    ones_sum,
    pseudo_sum,
    transport_checksum,
    transport_is_valid,
    udp_checksum,
    update,
)
from emunet.packet.malformed import Malformed

A4, B4 = b"\x0a\0\0\1", b"\x0a\0\0\2"
A6, B6 = b"\xfd" + bytes(14) + b"\1", b"\xfd" + bytes(14) + b"\2"
MAC = b"\x02\0\0\0\0\1"


def _reference_sum(data: bytes, start: int = 0) -> int:
    """RFC 1071 as its text has it: word by word, carries folded at the end."""
    total = start
    for position in range(0, len(data), 2):
        total += int.from_bytes((data[position : position + 2] + b"\0")[:2], "big")
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


zeros_and_ones = st.lists(st.sampled_from([b"\0\0", b"\xff\xff", b"\0\1", b"\xff\xfe", b"\x12"]), max_size=20).map(
    b"".join
)


@given(st.binary(max_size=100) | zeros_and_ones, st.integers(0, 1 << 20))
def test_sum_equals_the_word_by_word_sum(data: bytes, start: int) -> None:
    assert ones_sum(data, start) == _reference_sum(data, start)
    assert checksum(data, start) == 0xFFFF ^ _reference_sum(data, start)


@given(st.binary(max_size=60) | zeros_and_ones, st.binary(max_size=20) | zeros_and_ones, st.data())
def test_update_equals_recomputation(data: bytes, new: bytes, draw: st.DataObject) -> None:
    new = new[: len(new) & ~1]
    data += b"\x45\x00"[: 2 if not any(data) else 0]
    at = draw.draw(st.integers(0, len(data) // 2)) * 2
    old = data[at : at + len(new)]
    new = new[: len(old) & ~1]
    old = old[: len(new)]
    changed = data[:at] + new + data[at + len(old) :]
    if any(changed):
        assert update(checksum(data), old, new) == checksum(changed)


@given(st.binary(min_size=8, max_size=64), st.sampled_from([(A4, B4), (A6, B6)]))
def test_a_stored_checksum_verifies(segment: bytes, addresses: tuple[bytes, bytes]) -> None:
    src, dst = addresses
    zeroed = segment[:6] + b"\0\0" + segment[8:]
    value = transport_checksum(src, dst, 17, zeroed)
    assert value == checksum(zeroed, pseudo_sum(src, dst, 17, len(zeroed)))
    assert transport_is_valid(src, dst, 17, segment[:6] + value.to_bytes(2, "big") + segment[8:])
    assert udp_checksum(src, dst, zeroed) == (value or 0xFFFF)


def test_update_needs_even_lengths() -> None:
    with pytest.raises(ValueError, match="even"):
        update(0, b"a", b"b")


@settings(deadline=None)
@given(st.binary(max_size=4000), st.integers(68, 2000), st.integers(68, 2000), st.binary(max_size=40), st.randoms())
def test_pieces_rejoin(payload: bytes, mtu: int, again: int, options: bytes, shuffle: object) -> None:
    header = ipv4.IPv4(A4, B4, 17, identification=3, options=options[: len(options) & ~3])
    packet = header.pack(payload)
    pieces = [small for piece in ipv4.fragment(packet, mtu) for small in ipv4.fragment(piece, again)]
    assert all(len(piece) <= min(mtu, again) or piece == packet for piece in pieces)
    parsed = [ipv4.IPv4.parse(piece) for piece in pieces]
    rejoined = bytearray(len(payload))
    end = None
    shuffle.shuffle(parsed)  # type: ignore[attr-defined]
    for one, data in parsed:
        rejoined[one.fragment_offset : one.fragment_offset + len(data)] = data
        assert one.identification == 3
        if not one.more_fragments:
            assert end is None
            end = one.fragment_offset + len(data)
        else:
            assert len(data) % 8 == 0
    assert bytes(rejoined) == payload
    assert end == len(payload)
    assert sum(len(data) for _, data in parsed) == len(payload)


def _capture(writer: Callable[[io.BytesIO], None]) -> bytes:
    stream = io.BytesIO()
    writer(stream)
    return stream.getvalue()


def _write_pcapng(stream: io.BytesIO) -> None:
    writer = pcapng.PcapngWriter(stream)
    writer.packet(writer.interface("web-1"), 1, b"frame", comments=("why",), direction=1, dropped=2)


def _write_pcap(stream: io.BytesIO) -> None:
    pcap.PcapWriter(stream).packet(1, b"frame")


_EXTENDED = ipv6.IPv6(A6, B6, ipv6.HOP_BY_HOP).pack(
    bytes((ipv6.ROUTING, 0)) + bytes(6) + bytes((ipv6.FRAGMENT, 0)) + bytes(6) + bytes((17, 0)) + bytes(6) + bytes(8)
)

PARSERS: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "ethernet": (ethernet.Ethernet.parse, ethernet.build(MAC, MAC, 0x0800, b"payload")),
    "arp": (arp.Arp.parse, arp.Arp(1, MAC, A4, MAC, B4).pack()),
    "ipv4": (ipv4.IPv4.parse, ipv4.IPv4(A4, B4, 17, options=b"\x07\x07\x04\0\0\0\0\0").pack(b"payload!")),
    "ipv4 fragment": (
        lambda data: ipv4.fragment(data, 68),
        ipv4.IPv4(A4, B4, 17, options=b"\x87\4\0\0").pack(bytes(99)),
    ),
    "ipv6": (ipv6.IPv6.parse, ipv6.IPv6(A6, B6, 17).pack(b"payload")),
    "ipv6 fragment": (lambda data: ipv6.fragment(data, 60, 1), ipv6.IPv6(A6, B6, 17).pack(bytes(99))),
    "ipv6 fragment header": (ipv6.FragmentHeader.parse, ipv6.FragmentHeader(17, 8, True, 9).pack()),
    "ipv6 upper layer": (ipv6.upper_layer, _EXTENDED),
    "icmp": (icmp.Icmp.parse, icmp.echo_request(1, 2, b"data").pack()),
    "icmpv6": (lambda data: icmpv6.Icmpv6.parse(A6, B6, data), icmpv6.echo_request(1, 2, b"data").pack(A6, B6)),
    "ns": (
        lambda data: icmpv6.NeighborSolicitation.parse(icmpv6.Icmpv6(135, 0, bytes(4), data)),
        B6 + b"\1\1" + MAC + b"\x0e\1" + bytes(6),
    ),
    "na": (
        lambda data: icmpv6.NeighborAdvertisement.parse(icmpv6.Icmpv6(136, 0, bytes(4), data)),
        B6 + b"\2\1" + MAC + b"\x0e\1" + bytes(6),
    ),
    "udp": (udp.Udp.parse, udp.Udp(1, 2).pack(A4, B4, b"data")),
    "udp checksum": (lambda data: udp.checksum_valid(A4, B4, data), udp.Udp(1, 2).pack(A4, B4, b"data")),
    "tcp": (
        tcp.Tcp.parse,
        tcp.Tcp(1, 2, 3, 4, 2, 6, options=tcp.TcpOptions(1460, 7, True, (1, 2)).pack()).pack(A4, B4),
    ),
    "tcp options": (tcp.TcpOptions.parse, tcp.TcpOptions(1460, 7, True, (1, 2)).pack()),
    "vxlan": (vxlan.parse, vxlan.header(7)),
    "pcap": (lambda data: list(pcap.read(io.BytesIO(data))), _capture(_write_pcap)),
    "pcapng": (lambda data: list(pcapng.read(io.BytesIO(data))), _capture(_write_pcapng)),
}


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_parsers_raise_only_malformed(name: str, draw: st.DataObject) -> None:
    """Arbitrary bytes, and valid messages with some bytes changed, cut short or prolonged."""
    parse, valid = PARSERS[name]
    if draw.draw(st.booleans()):
        data = draw.draw(st.binary(max_size=120))
    else:
        changed = bytearray(valid)
        for at, value in draw.draw(
            st.lists(st.tuples(st.integers(0, len(valid) - 1), st.integers(0, 255)), max_size=4)
        ):
            changed[at] = value
        data = bytes(changed[: draw.draw(st.integers(0, len(valid)))]) + draw.draw(st.binary(max_size=8))
    with contextlib.suppress(Malformed):
        parse(data)


@pytest.mark.parametrize("name", PARSERS)
def test_the_valid_messages_are_valid(name: str) -> None:
    """So that the test above really walks both ways."""
    parse, valid = PARSERS[name]
    parse(valid)
