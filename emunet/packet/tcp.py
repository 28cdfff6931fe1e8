"""TCP segments (RFC 9293 3.1, 3.2; window scale and time stamps: RFC 7323; SACK-permitted: RFC 2018).

Rule of this file: only the format. What a segment means to a connection is the
endpoint's business.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from emunet.packet.checksum import transport_checksum, transport_is_valid
from emunet.packet.malformed import Malformed

FIN = 0x01
SYN = 0x02
RST = 0x04
PSH = 0x08
ACK = 0x10
URG = 0x20
ECE = 0x40
CWR = 0x80

HEADER_LENGTH = 20
_PROTOCOL = 6
_HEADER = struct.Struct("!HHIIBBHHH")


@dataclass(frozen=True, slots=True)
class Tcp:
    """A header. `window` is the field as sent, unscaled; `options` come padded to a multiple of 4."""

    sport: int
    dport: int
    sequence: int
    acknowledgment: int
    flags: int
    window: int
    urgent: int = 0
    options: bytes = b""

    def pack(self, src: bytes, dst: bytes, payload: bytes = b"") -> bytes:
        """The segment with its checksum for these addresses. Options are padded with zeros (end of options)."""
        options = self.options + bytes(-len(self.options) % 4)
        if len(options) > 40:
            raise ValueError(f"TCP options have at most 40 bytes, not {len(options)}")
        try:
            header = _HEADER.pack(
                self.sport, self.dport, self.sequence, self.acknowledgment,
                (HEADER_LENGTH + len(options)) << 2, self.flags, self.window, 0, self.urgent,
            )  # fmt: skip
        except struct.error as error:
            raise ValueError(f"a field of a TCP header is out of range: {error}") from None
        segment = header + options + payload
        return segment[:16] + transport_checksum(src, dst, _PROTOCOL, segment).to_bytes(2, "big") + segment[18:]

    @classmethod
    def parse(cls, segment: bytes) -> tuple[Tcp, bytes]:
        """Header and payload; the checksum is not judged. Malformed if the data offset does not fit."""
        if len(segment) < HEADER_LENGTH:
            raise Malformed(f"a TCP header has at least 20 bytes, this segment {len(segment)}")
        sport, dport, sequence, acknowledgment, offset, flags, window, _, urgent = _HEADER.unpack_from(segment)
        data = (offset >> 4) * 4
        if not HEADER_LENGTH <= data <= len(segment):
            raise Malformed(f"a TCP data offset of {data} does not fit a segment of {len(segment)} bytes")
        return cls(sport, dport, sequence, acknowledgment, flags, window, urgent, segment[20:data]), segment[data:]


def checksum_valid(src: bytes, dst: bytes, segment: bytes) -> bool:
    """True when the segment's checksum is right for these addresses."""
    return len(segment) >= HEADER_LENGTH and transport_is_valid(src, dst, _PROTOCOL, segment)


@dataclass(frozen=True, slots=True)
class TcpOptions:
    """The options that matter to a connection; None or False where absent. `timestamps` is (value, echo)."""

    mss: int | None = None
    window_scale: int | None = None
    sack_permitted: bool = False
    timestamps: tuple[int, int] | None = None

    def pack(self) -> bytes:
        """The options, in the order mss, SACK-permitted, time stamps, window scale; not padded."""
        data = b""
        if self.mss is not None:
            data += b"\x02\x04" + self.mss.to_bytes(2, "big")
        if self.sack_permitted:
            data += b"\x04\x02"
        if self.timestamps is not None:
            data += b"\x08\x0a" + self.timestamps[0].to_bytes(4, "big") + self.timestamps[1].to_bytes(4, "big")
        if self.window_scale is not None:
            data += b"\x03\x03" + self.window_scale.to_bytes(1, "big")
        return data

    @classmethod
    def parse(cls, options: bytes) -> TcpOptions:
        """What is known among the options. Never raises: the walk ends at the first impossible length."""
        mss: int | None = None
        window_scale: int | None = None
        sack_permitted = False
        timestamps: tuple[int, int] | None = None
        position = 0
        while position < len(options) and options[position] != 0:
            kind = options[position]
            if kind == 1:
                position += 1
                continue
            length = options[position + 1] if position + 1 < len(options) else 0
            if length < 2 or position + length > len(options):
                break
            value = options[position + 2 : position + length]
            if kind == 2 and length == 4:
                mss = int.from_bytes(value, "big")
            elif kind == 3 and length == 3:
                window_scale = value[0]
            elif kind == 4 and length == 2:
                sack_permitted = True
            elif kind == 8 and length == 10:
                timestamps = int.from_bytes(value[:4], "big"), int.from_bytes(value[4:], "big")
            position += length
        return cls(mss, window_scale, sack_permitted, timestamps)
