"""IPv6 headers, extension headers and source fragmentation (RFC 8200).

Rule of this file: walking extension headers always ends and never leaves the
packet; a chain that would is Malformed.
"""

from __future__ import annotations

from dataclasses import dataclass

from emunet.packet.malformed import Malformed

HOP_BY_HOP = 0
ROUTING = 43
FRAGMENT = 44
ICMPV6 = 58
NO_NEXT_HEADER = 59
DESTINATION_OPTIONS = 60

HEADER_LENGTH = 40
FRAGMENT_HEADER_LENGTH = 8
MINIMUM_MTU = 1280


@dataclass(frozen=True, slots=True)
class IPv6:
    """A header. `next_header` names what the payload begins with."""

    src: bytes
    dst: bytes
    next_header: int
    hop_limit: int = 64
    traffic_class: int = 0
    flow_label: int = 0

    def pack(self, payload: bytes) -> bytes:
        """The packet. ValueError when a field is out of range or the payload > 65535."""
        if len(self.src) != 16 or len(self.dst) != 16:
            raise ValueError("an IPv6 address has 16 bytes")
        if len(payload) > 65535:
            raise ValueError(f"an IPv6 payload has at most 65535 bytes, not {len(payload)}")
        if self.traffic_class >> 8 or self.flow_label >> 20 or self.next_header >> 8 or self.hop_limit >> 8:
            raise ValueError("a field of an IPv6 header is out of range")
        first = 6 << 28 | self.traffic_class << 20 | self.flow_label
        return (
            first.to_bytes(4, "big") + len(payload).to_bytes(2, "big") + bytes((self.next_header, self.hop_limit))
            + self.src + self.dst + payload
        )  # fmt: skip

    @classmethod
    def parse(cls, packet: bytes) -> tuple[IPv6, bytes]:
        """Header and payload, padding cut. Malformed for a bad version or a payload length that overruns the packet."""
        if len(packet) < HEADER_LENGTH:
            raise Malformed(f"an IPv6 header has 40 bytes, this packet {len(packet)}")
        if packet[0] >> 4 != 6:
            raise Malformed(f"an IPv6 packet has version 6, this one {packet[0] >> 4}")
        end = HEADER_LENGTH + (packet[4] << 8 | packet[5])
        if end > len(packet):
            raise Malformed(f"an IPv6 packet of {end} bytes by its header has {len(packet)}")
        first = int.from_bytes(packet[:4], "big")
        value = cls(packet[8:24], packet[24:40], packet[6], packet[7], first >> 20 & 0xFF, first & 0xFFFFF)
        return value, packet[HEADER_LENGTH:end]


@dataclass(frozen=True, slots=True)
class FragmentHeader:
    """The fragment header (RFC 8200 4.5). `offset` counts bytes, a multiple of 8."""

    next_header: int
    offset: int
    more: bool
    identification: int

    def pack(self) -> bytes:
        """The 8 bytes."""
        return (
            bytes((self.next_header, 0))
            + (self.offset | self.more).to_bytes(2, "big")
            + self.identification.to_bytes(4, "big")
        )

    @classmethod
    def parse(cls, data: bytes) -> FragmentHeader:
        """The header at the start of `data`. Malformed if there are not 8 bytes."""
        if len(data) < FRAGMENT_HEADER_LENGTH:
            raise Malformed(f"an IPv6 fragment header has 8 bytes, here are {len(data)}")
        offset = data[2] << 8 | data[3]
        return cls(data[0], offset & 0xFFF8, bool(offset & 1), int.from_bytes(data[4:8], "big"))


def _walk(packet: bytes, stop_at: int = -1) -> tuple[int, int, int]:
    """(protocol, its offset, offset of the byte that names it), at header `stop_at` or behind the last known one."""
    if len(packet) < HEADER_LENGTH:
        raise Malformed(f"an IPv6 header has 40 bytes, this packet {len(packet)}")
    end = min(len(packet), HEADER_LENGTH + (packet[4] << 8 | packet[5]))
    protocol, offset, pointer = packet[6], HEADER_LENGTH, 6
    while protocol in (HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION_OPTIONS) and protocol != stop_at:
        if offset + 8 > end:
            raise Malformed("an IPv6 extension header runs out of the packet")
        if protocol == FRAGMENT:
            if packet[offset + 2] or packet[offset + 3] & 0xF8:
                break
            length = FRAGMENT_HEADER_LENGTH
        else:
            length = 8 + packet[offset + 1] * 8
        if offset + length > end:
            raise Malformed("an IPv6 extension header runs out of the packet")
        protocol, offset, pointer = packet[offset], offset + length, offset
    return protocol, offset, pointer


def upper_layer(packet: bytes) -> tuple[int, int]:
    """(protocol, offset in `packet`) of what stands behind hop-by-hop, routing, fragment and destination headers.

    A fragment other than the first holds no upper-layer header: then the answer
    is (FRAGMENT, offset of the fragment header). Anything else, known or not,
    ends the walk. Malformed if the chain runs out of the packet.
    """
    return _walk(packet)[:2]


def next_header_pointer(packet: bytes) -> int:
    """The offset of the byte that names the upper layer: what "unrecognized next header" points at (RFC 4443 3.4)."""
    return _walk(packet)[2]


def find_fragment(packet: bytes) -> tuple[int, int] | None:
    """(offset of the fragment header, offset of the byte that names it); None if the packet has none."""
    protocol, offset, pointer = _walk(packet, FRAGMENT)
    return (offset, pointer) if protocol == FRAGMENT else None


def fragment(packet: bytes, mtu: int, identification: int) -> list[bytes]:
    """The packet in pieces of at most `mtu` bytes, as its source may do (RFC 8200 4.5; a router never does).

    The unfragmentable part is the header alone: packets made here have no
    hop-by-hop or routing headers. A packet that fits is returned as it is.
    Malformed for a bad header; ValueError if no 8 bytes fit.
    """
    header, payload = IPv6.parse(packet)
    if HEADER_LENGTH + len(payload) <= mtu:
        return [packet[: HEADER_LENGTH + len(payload)]]
    room = mtu - HEADER_LENGTH - FRAGMENT_HEADER_LENGTH & ~7
    if room <= 0:
        raise ValueError(f"an MTU of {mtu} has no room for 8 bytes behind the IPv6 headers")
    outer = IPv6(header.src, header.dst, FRAGMENT, header.hop_limit, header.traffic_class, header.flow_label)
    return [
        outer.pack(
            FragmentHeader(header.next_header, position, position + room < len(payload), identification).pack()
            + payload[position : position + room]
        )
        for position in range(0, len(payload), room)
    ]
