"""Classic pcap files: one interface, no comments; what old tools and scripts read and write.

We write the nanosecond form (magic 0xa1b23c4d, little-endian); we read both byte
orders, micro- and nanoseconds. `pcapng.py` is the format of choice, since it names
interfaces and carries comments.

Rule of this file: a cut or corrupt file gives every whole frame before the
damage, then raises Malformed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from emunet.packet.malformed import Malformed

LINK_TYPE_ETHERNET = 1
MAXIMUM_BLOCK = 16 << 20
"""No capture has a larger record; a length beyond it is damage, and not a reason to allocate it."""

UNKNOWN_DIRECTION = 0
INBOUND = 1
OUTBOUND = 2

_NANOSECONDS = 0xA1B23C4D
_MICROSECONDS = 0xA1B2C3D4


@dataclass(frozen=True, slots=True)
class CapturedFrame:
    """One frame of a capture file.

    `time_ns` counts from 1970; `data` is what was kept of `original_length`
    bytes; `interface` is a name ("" if the file gives none); `direction` is
    INBOUND, OUTBOUND or UNKNOWN_DIRECTION as the interface saw it; `packet_id` is
    the same for all frames of a file that are the same packet (0 if the file does not
    tell), and in other files too that have the same `section`: what their headers say.
    """

    time_ns: int
    data: bytes
    original_length: int
    interface: str = ""
    comments: tuple[str, ...] = ()
    direction: int = UNKNOWN_DIRECTION
    packet_id: int = 0
    section: str = ""


def file_header(snap_length: int = 262144) -> bytes:
    """The 24 bytes that open a file: nanoseconds, Ethernet."""
    return struct.pack("<IHHiIII", _NANOSECONDS, 2, 4, 0, 0, snap_length, LINK_TYPE_ETHERNET)


def record(time_ns: int, data: bytes, original_length: int | None = None) -> bytes:
    """One frame's record. Time must be >= 0 and fits 32 bits of seconds."""
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    length = len(data) if original_length is None else original_length
    return struct.pack("<IIII", seconds, nanoseconds, len(data), length) + data


class PcapWriter:
    """Writes a file's header at once and each frame when told; the stream is the caller's to flush and close."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        stream.write(file_header())

    def packet(self, time_ns: int, data: bytes, original_length: int | None = None) -> None:
        """Append one frame, seen at `time_ns` (since 1970)."""
        self._stream.write(record(time_ns, data, original_length))


def read(stream: BinaryIO) -> Iterator[CapturedFrame]:
    """The frames of a file, in its order. Malformed when it is not a pcap file of Ethernet frames or is damaged."""
    header = stream.read(24)
    if len(header) < 24:
        raise Malformed(f"a pcap file opens with 24 bytes, this one has {len(header)}")
    for order in "<>":
        (magic,) = struct.unpack_from(order + "I", header)
        if magic in (_NANOSECONDS, _MICROSECONDS):
            break
    else:
        raise Malformed(f"not a pcap file: it opens with {header[:4].hex()}")
    unit = 1 if magic == _NANOSECONDS else 1000
    link_type = struct.unpack_from(order + "I", header, 20)[0] & 0xFFFF
    if link_type != LINK_TYPE_ETHERNET:
        raise Malformed(f"a pcap file of link type {link_type}; only Ethernet (1) can be used")
    head = struct.Struct(order + "IIII")
    while start := stream.read(16):
        if len(start) < 16:
            raise Malformed("the pcap file ends within a record")
        seconds, fraction, length, original = head.unpack(start)
        if length > MAXIMUM_BLOCK:
            raise Malformed(f"a pcap record of {length} bytes is damage")
        data = stream.read(length)
        if len(data) < length:
            raise Malformed("the pcap file ends within a record")
        yield CapturedFrame(seconds * 1_000_000_000 + fraction * unit, data, original)
