"""UDP (RFC 768; over IPv6: RFC 8200 8.1).

Rule of this file: `pack` always writes a checksum; whether a missing one (0) is
acceptable depends on the family, and `checksum_valid` knows.
"""

from __future__ import annotations

from dataclasses import dataclass

from emunet.packet.checksum import UDP, transport_is_valid, udp_checksum
from emunet.packet.malformed import Malformed

HEADER_LENGTH = 8


@dataclass(frozen=True, slots=True)
class Udp:
    """The two ports."""

    sport: int
    dport: int

    def pack(self, src: bytes, dst: bytes, payload: bytes) -> bytes:
        """The datagram with its checksum for these addresses. ValueError when longer than 65535 bytes."""
        length = HEADER_LENGTH + len(payload)
        if length > 65535:
            raise ValueError(f"a UDP datagram has at most 65535 bytes, not {length}")
        ports = self.sport.to_bytes(2, "big") + self.dport.to_bytes(2, "big") + length.to_bytes(2, "big")
        return ports + udp_checksum(src, dst, ports + b"\0\0" + payload).to_bytes(2, "big") + payload

    @classmethod
    def parse(cls, segment: bytes) -> tuple[Udp, bytes]:
        """Ports and payload; the checksum is not judged. Malformed if the length field is < 8 or overruns."""
        if len(segment) < HEADER_LENGTH:
            raise Malformed(f"a UDP datagram has at least 8 bytes, this one {len(segment)}")
        length = segment[4] << 8 | segment[5]
        if not HEADER_LENGTH <= length <= len(segment):
            raise Malformed(f"a UDP length of {length} does not fit a segment of {len(segment)} bytes")
        return cls(segment[0] << 8 | segment[1], segment[2] << 8 | segment[3]), segment[8:length]


def checksum_valid(src: bytes, dst: bytes, segment: bytes) -> bool:
    """True when the checksum is right, or is 0 over IPv4 (RFC 768). Over IPv6 0 is wrong (fidelity V6-12)."""
    if len(segment) < HEADER_LENGTH:
        return False
    if segment[6:8] == b"\0\0":
        return len(src) == 4
    return transport_is_valid(src, dst, UDP, segment[: segment[4] << 8 | segment[5]])
