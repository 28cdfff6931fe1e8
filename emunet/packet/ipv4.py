"""IPv4 headers and fragmentation (RFC 791).

Rule of this file: `pack` writes a right checksum and total length, `parse`
accepts nothing else (fidelity IP-05), and what lies beyond the total length is
padding and is cut (IP-02). The reserved flag bit is not kept.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace

from emunet.packet.checksum import checksum, ones_sum
from emunet.packet.malformed import Malformed

ICMP = 1
IGMP = 2
IPIP = 4
TCP = 6
UDP = 17
ICMPV6 = 58

HEADER_LENGTH = 20
MAXIMUM_LENGTH = 65535
DONT_FRAGMENT = 0x4000
MORE_FRAGMENTS = 0x2000
_HEADER = struct.Struct("!BBHHHBBH4s4s")


@dataclass(frozen=True, slots=True)
class IPv4:
    """A header. `fragment_offset` counts bytes (a multiple of 8); `options` come padded to a multiple of 4."""

    src: bytes
    dst: bytes
    protocol: int
    ttl: int = 64
    tos: int = 0
    identification: int = 0
    dont_fragment: bool = False
    more_fragments: bool = False
    fragment_offset: int = 0
    options: bytes = b""

    @property
    def is_fragment(self) -> bool:
        """True for a piece of a larger datagram."""
        return self.more_fragments or self.fragment_offset > 0

    @property
    def header_length(self) -> int:
        """Bytes of the header with its options: 20 to 60."""
        return HEADER_LENGTH + len(self.options) + -len(self.options) % 4

    def pack(self, payload: bytes) -> bytes:
        """The packet. Options are padded with zeros. ValueError when a field is out of range or the whole > 65535."""
        length = self.header_length + len(payload)
        if len(self.src) != 4 or len(self.dst) != 4:
            raise ValueError("an IPv4 address has 4 bytes")
        if self.header_length > 60:
            raise ValueError(f"IPv4 options have at most 40 bytes, not {len(self.options)}")
        if length > MAXIMUM_LENGTH:
            raise ValueError(f"an IPv4 packet has at most 65535 bytes, not {length}")
        if self.fragment_offset % 8 or not 0 <= self.fragment_offset <= 65528:
            raise ValueError(f"an IPv4 fragment offset is a multiple of 8 up to 65528, not {self.fragment_offset}")
        flags = (DONT_FRAGMENT if self.dont_fragment else 0) | (MORE_FRAGMENTS if self.more_fragments else 0)
        try:
            header = _HEADER.pack(
                0x40 | self.header_length >> 2, self.tos, length, self.identification,
                flags | self.fragment_offset >> 3, self.ttl, self.protocol, 0, self.src, self.dst,
            )  # fmt: skip
        except struct.error as error:
            raise ValueError(f"a field of an IPv4 header is out of range: {error}") from None
        header += self.options + bytes(-len(self.options) % 4)
        return header[:10] + checksum(header).to_bytes(2, "big") + header[12:] + payload

    @classmethod
    def parse(cls, packet: bytes) -> tuple[IPv4, bytes]:
        """Header and payload, padding cut. Malformed for a bad version, header length, total length or checksum."""
        if len(packet) < HEADER_LENGTH:
            raise Malformed(f"an IPv4 header has at least 20 bytes, this packet {len(packet)}")
        first, tos, length, identification, fragment, ttl, protocol, _, src, dst = _HEADER.unpack_from(packet)
        header_length = (first & 15) * 4
        if first >> 4 != 4:
            raise Malformed(f"an IPv4 packet has version 4, this one {first >> 4}")
        if header_length < HEADER_LENGTH:
            raise Malformed(f"an IPv4 header length of {header_length} bytes is less than 20")
        if not header_length <= length <= len(packet):
            raise Malformed(
                f"an IPv4 total length of {length} does not fit a header of {header_length} bytes"
                f" in a packet of {len(packet)}"
            )
        header = packet[:header_length]
        if ones_sum(header) != 65535:
            raise Malformed("the IPv4 header checksum is wrong")
        value = cls(
            src, dst, protocol, ttl, tos, identification, bool(fragment & DONT_FRAGMENT),
            bool(fragment & MORE_FRAGMENTS), (fragment & 0x1FFF) * 8, header[20:],
        )  # fmt: skip
        return value, packet[header_length:length]


def later_options(header: IPv4) -> bytes:
    """The options of the pieces after the first: of what is itself a later piece all are kept."""
    return header.options if header.fragment_offset else copied_options(header.options)


def copied_options(options: bytes) -> bytes:
    """The options of later fragments: those with the copy bit, the others made no-operations (RFC 791 3.1, FR-07).

    So every piece has a header of the same length, as Linux makes them. From an end of options, or one whose
    length is impossible, all is kept.
    """
    out = bytearray(options)
    position = 0
    while position < len(options) and options[position] != 0:
        if options[position] == 1:
            position += 1
            continue
        length = options[position + 1] if position + 1 < len(options) else 0
        if length < 2 or position + length > len(options):
            break
        if not options[position] & 0x80:
            out[position : position + length] = b"\x01" * length
        position += length
    return bytes(out)


def fragment(packet: bytes, mtu: int) -> list[bytes]:
    """The packet in pieces of at most `mtu` bytes, in order (RFC 791 3.2; fidelity FR-01, FR-03, FR-07).

    Each piece's payload is the largest multiple of 8 that fits; a packet that
    is itself a fragment is cut further, with "more fragments" kept on its last
    piece. Don't-fragment is not looked at: whether to cut is the caller's
    decision. Malformed for a bad header; ValueError if no 8 bytes fit.
    """
    header, payload = IPv4.parse(packet)
    if header.header_length + len(payload) <= mtu:
        return [packet[: header.header_length + len(payload)]]
    lengths: list[int] = []
    later = HEADER_LENGTH + len(later_options(header))
    position = 0
    while position < len(payload):
        head = later if lengths else header.header_length
        room = mtu - head
        take = len(payload) - position if len(payload) - position <= room else room & ~7
        if take <= 0:
            raise ValueError(f"an MTU of {mtu} has no room for 8 bytes behind a header of {head}")
        lengths.append(take)
        position += take
    return fragment_at(packet, lengths)


def fragment_at(packet: bytes, lengths: Iterable[int]) -> list[bytes]:
    """The packet cut into pieces whose payloads have these lengths: multiples of 8 but the last, its own in all.

    As for the rest like `fragment`.
    """
    header, payload = IPv4.parse(packet)
    pieces: list[bytes] = []
    later = replace(header, options=later_options(header))
    position = 0
    for length in lengths:
        offset = header.fragment_offset + position
        if offset > 65528:
            raise Malformed("an IPv4 fragment reaches beyond the largest datagram")
        more = header.more_fragments or position + length < len(payload)
        shape = replace(later if pieces else header, more_fragments=more, fragment_offset=offset)
        pieces.append(shape.pack(payload[position : position + length]))
        position += length
    return pieces
