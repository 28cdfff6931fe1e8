"""Internet checksums: RFC 1071 sums and RFC 1624 differences.

The ones' complement sum of 16-bit words equals the whole data read as one big
number, modulo 65535; Python does that in one step, many times faster than a
loop. The one care: modulo gives 0 for both of ones' complement's zeros, while a
folded sum is 0 only if every word was 0 and 0xffff otherwise. RFC 1624 section 3
tells what goes wrong if the two are mixed up.

Rule of this file: sums are folded (0 to 0xffff), checksums are complemented sums.
"""

from __future__ import annotations

UDP = 17


def ones_sum(data: bytes, start: int = 0) -> int:
    """The folded 16-bit ones' complement sum of `data` (odd length: a zero byte is added) and `start` (>= 0).

    Data that holds a right checksum sums to 0xffff.
    """
    total = int.from_bytes(data, "big")
    if len(data) & 1:
        total <<= 8
    total += start
    return (total % 65535 or 65535) if total else 0


def checksum(data: bytes, start: int = 0) -> int:
    """The RFC 1071 checksum of `data`; `start` is a sum to begin with, such as a pseudo-header's."""
    return 65535 - ones_sum(data, start)


def update(checksum: int, old: bytes, new: bytes) -> int:
    """The checksum after the covered bytes `old` became `new` (RFC 1624, equation 3).

    Both have an even length (not necessarily the same) and begin at an even
    offset of the covered data; ValueError for an odd length. The result equals
    a recomputation except where all covered data became zero, which no header has.
    """
    if (len(old) | len(new)) & 1:
        raise ValueError(f"checksum update needs even lengths, not {len(old)} and {len(new)}")
    inverse_old = (1 << len(old) * 8) - 1 - int.from_bytes(old, "big")
    total = 65535 - checksum + inverse_old + int.from_bytes(new, "big")
    return 65535 - (total % 65535 or 65535) if total else 65535


def pseudo_sum(src: bytes, dst: bytes, protocol: int, length: int) -> int:
    """The sum of a pseudo-header: RFC 9293 3.1 for IPv4 (4-byte addresses), RFC 8200 8.1 for IPv6 (16-byte)."""
    return ones_sum(src + dst, protocol + length)


def transport_checksum(src: bytes, dst: bytes, protocol: int, segment: bytes) -> int:
    """The checksum of a TCP, UDP or ICMPv6 message with its pseudo-header; the caller has its checksum field zeroed."""
    return 65535 - ones_sum(segment, int.from_bytes(src + dst, "big") + protocol + len(segment))


def udp_checksum(src: bytes, dst: bytes, segment: bytes) -> int:
    """As `transport_checksum` for UDP: a result of 0 becomes 0xffff, since 0 means none (RFC 768)."""
    return transport_checksum(src, dst, UDP, segment) or 65535


def transport_is_valid(src: bytes, dst: bytes, protocol: int, segment: bytes) -> bool:
    """True when the checksum inside `segment` is right. UDP's "no checksum" is for the caller to know."""
    return ones_sum(segment, int.from_bytes(src + dst, "big") + protocol + len(segment)) == 65535
