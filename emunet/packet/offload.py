"""Work that a kernel left to us: checksums to complete, superframes to cut.

A TAP with a virtio-net header hands over TCP in frames of up to 64 KB whose
checksum field holds only the pseudo-header sum (linux/virtio_net.h). What is
looked at, impaired or sent where offload is off is completed and cut first.

Rule of this file: what `split` yields is what the wire would carry, byte for byte
as the kernel's own segmentation would make it (FIN and PSH on the last segment
only, CWR on the first, IPv4 identification + 1 each).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from struct import Struct

from emunet.packet.checksum import checksum, ones_sum, pseudo_sum

HEADER = Struct("<BBHHHH")
HEADER_LENGTH = 10
NO_OFFLOAD = bytes(HEADER_LENGTH)
NEEDS_CSUM = 1
DATA_VALID = 2
GSO_NONE = 0
GSO_TCPV4 = 1
GSO_TCPV6 = 4
GSO_UDP_L4 = 5
GSO_ECN = 0x80

TCP_FIN_PSH = 0x09
TCP_CWR = 0x80


@dataclass(frozen=True, slots=True)
class Offload:
    """The virtio-net header of one frame: offsets in bytes from the start of the frame."""

    flags: int
    gso_type: int
    header_length: int
    gso_size: int
    checksum_start: int
    checksum_offset: int

    @classmethod
    def parse(cls, header: bytes, frame: bytes) -> Offload | None:
        """The 10 bytes in front of `frame`; None when they ask for nothing.

        The kernel's own header length is only a hint (it is the linear part of its
        buffer), so that of a superframe is read from the frame itself.
        """
        if header[:HEADER_LENGTH] == NO_OFFLOAD:
            return None
        flags, gso_type, _, gso_size, start, offset = HEADER.unpack_from(header)
        if not flags & NEEDS_CSUM or len(frame) < start + offset + 2:
            return None
        if gso_type == GSO_NONE or not gso_size:
            return cls(flags, GSO_NONE, 0, 0, start, offset)
        offload = cls(flags, gso_type, 0, gso_size, start, offset)
        return replace(offload, header_length=offload.transport_header(frame))

    def pack(self) -> bytes:
        """The 10 bytes that a TAP expects in front of a frame."""
        return HEADER.pack(
            self.flags, self.gso_type, self.header_length, self.gso_size, self.checksum_start, self.checksum_offset
        )

    def shifted(self, by: int) -> Offload:
        """The same work after `by` bytes were put in front (negative: taken off)."""
        return Offload(
            self.flags,
            self.gso_type,
            self.header_length + by,
            self.gso_size,
            self.checksum_start + by,
            self.checksum_offset,
        )

    def transport_header(self, frame: bytes) -> int:
        """Bytes from the frame's start to the transport payload."""
        if self.gso_type & ~GSO_ECN == GSO_UDP_L4:
            return self.checksum_start + 8
        return self.checksum_start + (frame[self.checksum_start + 12] >> 4) * 4

    def segments(self, length: int) -> int:
        """Wire frames that a frame of `length` bytes stands for."""
        if self.gso_type == GSO_NONE or not self.gso_size:
            return 1
        return max(1, -(-(length - self.header_length) // self.gso_size))

    def largest(self, length: int) -> int:
        """Length in bytes of the largest wire frame of a frame of `length` bytes."""
        if self.gso_type == GSO_NONE or not self.gso_size:
            return length
        return min(length, self.header_length + self.gso_size)


def complete(frame: bytes, offload: Offload | None) -> bytes:
    """The frame with its transport checksum filled in. The frame must not be a superframe."""
    if offload is None or not offload.flags & NEEDS_CSUM:
        return frame
    start = offload.checksum_start
    at = start + offload.checksum_offset
    # The field holds the folded pseudo-header sum, so the sum over the segment as it stands is the whole sum.
    value = checksum(frame[start:])
    if value == 0 and offload.checksum_offset == 6:
        value = 0xFFFF
    return frame[:at] + value.to_bytes(2, "big") + frame[at + 2 :]


def split(frame: bytes, offload: Offload | None) -> Iterator[bytes]:
    """The wire frames of a frame: completed, cut where it is a superframe, in order."""
    if offload is None:
        yield frame
        return
    if offload.gso_type == GSO_NONE or not offload.gso_size or offload.segments(len(frame)) == 1:
        yield complete(frame, offload)
        return
    start = offload.checksum_start
    at = offload.transport_header(frame)
    size = offload.gso_size
    is_v4 = frame[12:14] == b"\x08\x00"
    is_udp = offload.gso_type & ~GSO_ECN == GSO_UDP_L4
    network = frame[14:start]
    transport = frame[start:at]
    total = len(frame)
    sequence = int.from_bytes(transport[4:8], "big")
    identification = frame[18] << 8 | frame[19]
    first = True
    while at < total:
        data = frame[at : at + size]
        last = at + size >= total
        length = len(transport) + len(data)
        if is_v4:
            header = bytearray(network)
            header[2:4] = (len(network) + length).to_bytes(2, "big")
            header[4:6] = (identification & 0xFFFF).to_bytes(2, "big")
            header[10:12] = bytes(2)
            header[10:12] = checksum(bytes(header)).to_bytes(2, "big")
            pseudo = pseudo_sum(bytes(header[12:16]), bytes(header[16:20]), header[9], length)
        else:
            header = bytearray(network)
            header[4:6] = (len(network) - 40 + length).to_bytes(2, "big")
            pseudo = pseudo_sum(bytes(header[8:24]), bytes(header[24:40]), 17 if is_udp else 6, length)
        segment = bytearray(transport)
        if is_udp:
            segment[4:6] = length.to_bytes(2, "big")
            segment[6:8] = bytes(2)
            field = 6
        else:
            segment[4:8] = (sequence & 0xFFFFFFFF).to_bytes(4, "big")
            if not last:
                segment[13] &= ~TCP_FIN_PSH & 0xFF
            if not first:
                segment[13] &= ~TCP_CWR & 0xFF
            segment[16:18] = bytes(2)
            field = 16
        value = checksum(bytes(segment) + data, pseudo)
        if is_udp and value == 0:
            value = 0xFFFF
        segment[field : field + 2] = value.to_bytes(2, "big")
        yield frame[:14] + bytes(header) + bytes(segment) + data
        sequence += len(data)
        identification += 1
        at += size
        first = False


__all__ = [
    "GSO_NONE",
    "GSO_TCPV4",
    "GSO_TCPV6",
    "HEADER_LENGTH",
    "NEEDS_CSUM",
    "NO_OFFLOAD",
    "Offload",
    "complete",
    "ones_sum",
    "split",
]
