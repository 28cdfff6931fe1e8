"""Fragmentation tells its story by numbers seen on a real kernel (fidelity FR-01, FR-03, FR-07)."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet import fragment as scapy_fragment

from emunet.packet.ipv4 import IPv4, copied_options, fragment

SRC, DST = b"\x0a\0\0\1", b"\x0a\0\0\2"


def _shape(pieces: list[bytes]) -> list[tuple[int, int, bool]]:
    """(total length, offset in bytes, more fragments) of each."""
    headers = [IPv4.parse(piece)[0] for piece in pieces]
    return [(len(p), h.fragment_offset, h.more_fragments) for p, h in zip(pieces, headers, strict=True)]


@pytest.mark.rule("FR-01")
def test_a_full_packet_through_a_smaller_mtu() -> None:
    pieces = fragment(IPv4(SRC, DST, 17, identification=7).pack(bytes(1480)), 1400)
    assert _shape(pieces) == [(1396, 0, True), (124, 1376, False)]
    assert {IPv4.parse(piece)[0].identification for piece in pieces} == {7}


@pytest.mark.rule("FR-03")
def test_fragments_are_split_again_by_themselves() -> None:
    """1500 + 1500 + 68 become 1396, 124, 1396, 124, 68, with MF on all but the last."""
    first = fragment(IPv4(SRC, DST, 17).pack(bytes(3008)), 1500)
    assert [len(piece) for piece in first] == [1500, 1500, 68]
    again = [piece for part in first for piece in fragment(part, 1400)]
    assert [len(piece) for piece in again] == [1396, 124, 1396, 124, 68]
    assert [more for _, _, more in _shape(again)] == [True] * 4 + [False]


def test_the_same_pieces_as_scapy() -> None:
    packet = bytes(IP(src="10.0.0.1", dst="10.0.0.2", id=5) / UDP(sport=1, dport=2) / bytes(range(256)) / bytes(2000))
    theirs = [bytes(piece) for piece in scapy_fragment(IP(packet), fragsize=1376)]
    assert fragment(packet, 1396) == theirs


@pytest.mark.rule("FR-07")
def test_only_options_with_the_copy_bit_are_repeated() -> None:
    record_route = b"\x07\x07\x04" + bytes(4)
    strict_route = b"\x89\x07\x04" + bytes(4)
    pieces = fragment(IPv4(SRC, DST, 17, options=record_route + strict_route + bytes(2)).pack(bytes(1460)), 1000)
    assert IPv4.parse(pieces[0])[0].options == record_route + strict_route + bytes(2)
    assert IPv4.parse(pieces[1])[0].options == b"\x01" * 7 + strict_route + bytes(2)
    assert copied_options(b"\x01\x07\x03\x04\x89\x03\x04\x00") == b"\x01\x01\x01\x01\x89\x03\x04\x00"
    assert copied_options(b"\x07\x00\x04\x00") == b"\x07\x00\x04\x00"


@pytest.mark.rule("IP-02")
def test_what_fits_is_returned_without_its_padding() -> None:
    packet = IPv4(SRC, DST, 17).pack(b"12345678")
    assert fragment(packet + b"padding", 28) == [packet]


def test_no_room_for_eight_bytes() -> None:
    with pytest.raises(ValueError, match="no room"):
        fragment(IPv4(SRC, DST, 17).pack(bytes(100)), 27)
