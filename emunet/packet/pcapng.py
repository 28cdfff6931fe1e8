"""pcapng capture files (draft-ietf-opsawg-pcapng): what Wireshark shows best.

Why our own: several named interfaces that may appear late, nanoseconds, the
direction of each frame, comments (a drop and its sentence), drop counts, names
of addresses; and any stream will do, so that a live capture is the same code.

Rule of this file: a block is a value (`bytes`) made by a pure function; only
PcapngWriter writes, and it writes whole blocks. The reader is for our own
`replay`: a cut or corrupt file gives every whole frame before the damage, then
raises Malformed; unknown blocks and options are skipped.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from emunet.packet import pcap
from emunet.packet.malformed import Malformed
from emunet.packet.pcap import (
    INBOUND,
    LINK_TYPE_ETHERNET,
    MAXIMUM_BLOCK,
    OUTBOUND,
    UNKNOWN_DIRECTION,
    CapturedFrame,
)

__all__ = [
    "INBOUND", "OUTBOUND", "UNKNOWN_DIRECTION", "CapturedFrame", "Facts", "PcapngWriter", "enhanced_packet",
    "interface_description", "interface_statistics", "name_resolution", "read", "read_capture", "read_facts",
    "section_header",
]  # fmt: skip

_SECTION_HEADER = 0x0A0D0D0A
_INTERFACE_DESCRIPTION = 1
_PACKET = 2
_SIMPLE_PACKET = 3
_NAME_RESOLUTION = 4
_INTERFACE_STATISTICS = 5
_ENHANCED_PACKET = 6
_BYTE_ORDER_MAGIC = 0x1A2B3C4D

_NAME_RECORDS = {4: 1, 16: 2, 6: 3}
"""Kinds of records of names, by the length of an address."""

_COMMENT = 1
_MAXIMUM_OPTION = 65532

# A frame with its direction and identity alone, which nearly all are, written at once: in a quarter of the time.
_FRAME_HEAD = struct.Struct("<IIIIIII")
_FRAME_TAILS = tuple(struct.Struct(f"<{padding}xHHIHHQII") for padding in range(4))


def _block(kind: int, body: bytes) -> bytes:
    """A block around a body whose length is a multiple of 4."""
    length = len(body) + 12
    return struct.pack("<II", kind, length) + body + struct.pack("<I", length)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _text(text: str) -> bytes:
    """UTF-8, cut to what an option can hold."""
    data = text.encode("utf-8", "replace")
    return data if len(data) <= _MAXIMUM_OPTION else data[:_MAXIMUM_OPTION].decode("utf-8", "ignore").encode()


def _options(options: Iterable[tuple[int, bytes]]) -> bytes:
    """Options with their end mark; nothing at all if there are none."""
    data = b"".join(struct.pack("<HH", code, len(value)) + _padded(value) for code, value in options)
    return data + bytes(4) if data else b""


def section_header(application: str = "emunet", comments: Iterable[str] = ()) -> bytes:
    """The block that opens a file: little-endian, version 1.0, length not given, the writing application's name."""
    options = [(_COMMENT, _text(comment)) for comment in comments]
    options.append((4, _text(application)))
    return _block(_SECTION_HEADER, struct.pack("<IHHq", _BYTE_ORDER_MAGIC, 1, 0, -1) + _options(options))


def interface_description(name: str, description: str = "", mac: bytes | None = None, snap_length: int = 0) -> bytes:
    """An Ethernet interface with time stamps in nanoseconds; interfaces count from 0 in the order of their blocks."""
    options = [(2, _text(name))]
    if description:
        options.append((3, _text(description)))
    if mac is not None:
        options.append((6, mac))
    options.append((9, b"\x09"))
    head = struct.pack("<HHI", LINK_TYPE_ETHERNET, 0, snap_length)
    return _block(_INTERFACE_DESCRIPTION, head + _options(options))


def enhanced_packet(
    interface: int,
    time_ns: int,
    data: bytes,
    *,
    direction: int = UNKNOWN_DIRECTION,
    comments: Iterable[str] = (),
    dropped: int | None = None,
    original_length: int | None = None,
    packet_id: int = 0,
) -> bytes:
    """One frame, seen at `time_ns` (since 1970) on interface number `interface`.

    `dropped`: how many frames the interface lost between the frame before and this one.
    `packet_id`: the same for one packet wherever it was seen (Wireshark: `frame.packet_id`).
    """
    if direction and packet_id and dropped is None and original_length is None and not comments:
        return plain_packet(interface, time_ns, data, direction, packet_id)
    options = [(_COMMENT, _text(comment)) for comment in comments]
    if direction:
        options.append((2, struct.pack("<I", direction)))
    if dropped is not None:
        options.append((4, struct.pack("<Q", dropped)))
    if packet_id:
        options.append((5, struct.pack("<Q", packet_id)))
    length = len(data) if original_length is None else original_length
    head = struct.pack("<IIIII", interface, time_ns >> 32, time_ns & 0xFFFFFFFF, len(data), length)
    return _block(_ENHANCED_PACKET, head + _padded(data) + _options(options))


def plain_packet(interface: int, time_ns: int, data: bytes, direction: int, packet_id: int) -> bytes:
    """As `enhanced_packet`, of a frame with its direction and identity alone."""
    captured = len(data)
    padding = -captured & 3
    size = captured + padding + 56
    head = _FRAME_HEAD.pack(_ENHANCED_PACKET, size, interface, time_ns >> 32, time_ns & 0xFFFFFFFF, captured, captured)
    return head + data + _FRAME_TAILS[padding].pack(2, 4, direction, 5, 8, packet_id, 0, size)


def interface_statistics(
    interface: int, time_ns: int, received: int, dropped: int = 0, accepted: int | None = None
) -> bytes:
    """What an interface counted up to `time_ns`: frames received, of those lost, and what a filter took."""
    options = [(4, struct.pack("<Q", received)), (5, struct.pack("<Q", dropped))]
    if accepted is not None:
        options.append((6, struct.pack("<Q", accepted)))
    head = struct.pack("<III", interface, time_ns >> 32, time_ns & 0xFFFFFFFF)
    return _block(_INTERFACE_STATISTICS, head + _options(options))


def unambiguous(rows: Iterable[tuple[bytes, str]]) -> dict[bytes, tuple[str, ...]]:
    """Names by address, but for addresses that several have: Docker gives the same ones out on each host."""
    found: dict[bytes, set[str]] = {}
    for address, name in rows:
        found.setdefault(address, set()).add(name)
    return {address: tuple(names) for address, names in found.items() if len(names) == 1}


def name_resolution(names: Mapping[bytes, Iterable[str]]) -> bytes:
    """Names of IPv4, IPv6 and MAC addresses (4, 16, 6 bytes); of several, Wireshark shows the last. None: left out."""
    records = b""
    for address, texts in names.items():
        value = address + b"".join(_text(text.replace("\0", "")[:250]) + b"\0" for text in texts)
        if len(value) > len(address):
            records += struct.pack("<HH", _NAME_RECORDS[len(address)], len(value)) + _padded(value)
    return _block(_NAME_RESOLUTION, records + bytes(4))


class PcapngWriter:
    """Writes blocks to a stream, the section header at once; the stream is the caller's to flush and close."""

    def __init__(self, stream: BinaryIO, application: str = "emunet", comments: Iterable[str] = ()) -> None:
        self._stream = stream
        self._interfaces = 0
        stream.write(section_header(application, comments))

    def interface(self, name: str, description: str = "", mac: bytes | None = None) -> int:
        """Add an interface, at any time before its first frame; its number."""
        self._stream.write(interface_description(name, description, mac))
        self._interfaces += 1
        return self._interfaces - 1

    def packet(
        self,
        interface: int,
        time_ns: int,
        data: bytes,
        *,
        direction: int = UNKNOWN_DIRECTION,
        comments: Iterable[str] = (),
        dropped: int | None = None,
        original_length: int | None = None,
        packet_id: int = 0,
    ) -> None:
        """Append one frame; see `enhanced_packet`. ValueError for an interface that was not added."""
        if not 0 <= interface < self._interfaces:
            raise ValueError(f"interface {interface} was not added to this capture")
        block = enhanced_packet(
            interface, time_ns, data, direction=direction, comments=comments, dropped=dropped,
            original_length=original_length, packet_id=packet_id,
        )  # fmt: skip
        self._stream.write(block)

    def statistics(
        self, interface: int, time_ns: int, received: int, dropped: int = 0, accepted: int | None = None
    ) -> None:
        """Append what an interface counted."""
        self._stream.write(interface_statistics(interface, time_ns, received, dropped, accepted))

    def names(self, names: Mapping[bytes, Iterable[str]]) -> None:
        """Append names of addresses."""
        self._stream.write(name_resolution(names))


@dataclass(frozen=True, slots=True)
class _Interface:
    """What the reader must know of an interface: its name, and how its clock ticks."""

    name: str
    link_type: int
    snap_length: int
    ticks_per_second: int
    offset_seconds: int

    def time_ns(self, ticks: int) -> int:
        return self.offset_seconds * 1_000_000_000 + ticks * 1_000_000_000 // self.ticks_per_second


def _read_options(data: bytes, order: str) -> list[tuple[int, bytes]]:
    """The options of a block; a damaged list ends early, since frames matter more."""
    options: list[tuple[int, bytes]] = []
    position = 0
    while position + 4 <= len(data):
        code, length = struct.unpack_from(order + "HH", data, position)
        if code == 0 or position + 4 + length > len(data):
            break
        options.append((code, data[position + 4 : position + 4 + length]))
        position += 4 + length + -length % 4
    return options


def _read_interface(body: bytes, order: str) -> _Interface:
    if len(body) < 8:
        raise Malformed("a pcapng interface block is too short")
    link_type, snap_length = struct.unpack_from(order + "H2xI", body)
    name, ticks, offset = "", 1_000_000, 0
    for code, value in _read_options(body[8:], order):
        if code == 2:
            name = value.rstrip(b"\0").decode("utf-8", "replace")
        elif code == 9 and len(value) == 1:
            ticks = 2 ** (value[0] & 0x7F) if value[0] & 0x80 else 10 ** value[0]
        elif code == 14 and len(value) == 8:
            (offset,) = struct.unpack(order + "q", value)
    return _Interface(name, link_type, snap_length, ticks, offset)


def _read_packet(kind: int, body: bytes, order: str, interfaces: list[_Interface], section: str) -> CapturedFrame:
    """An enhanced, simple or old packet block -> frame."""
    if len(body) < (4 if kind == _SIMPLE_PACKET else 20):
        raise Malformed("a pcapng packet block is too short")
    number = ticks = 0
    if kind == _SIMPLE_PACKET:
        (original,) = struct.unpack_from(order + "I", body)
        start, length = 4, original
    else:
        layout = order + ("HxxIIII" if kind == _PACKET else "IIIII")
        number, high, low, length, original = struct.unpack_from(layout, body)
        start, ticks = 20, high << 32 | low
    if number >= len(interfaces):
        raise Malformed(f"a pcapng packet names interface {number}, which the file does not describe")
    interface = interfaces[number]
    if kind == _SIMPLE_PACKET and interface.snap_length:
        length = min(length, interface.snap_length)
    if interface.link_type != LINK_TYPE_ETHERNET:
        raise Malformed(f"a pcapng interface of link type {interface.link_type}; only Ethernet (1) can be used")
    if start + length > len(body):
        raise Malformed(f"a pcapng packet of {length} bytes overruns its block")
    comments: list[str] = []
    direction, packet_id = UNKNOWN_DIRECTION, 0
    if kind != _SIMPLE_PACKET:
        for code, value in _read_options(body[start + length + -length % 4 :], order):
            if code == _COMMENT:
                comments.append(value.decode("utf-8", "replace"))
            elif code == 2 and len(value) == 4:
                direction = struct.unpack(order + "I", value)[0] & 3
            elif code == 5 and len(value) == 8:
                (packet_id,) = struct.unpack(order + "Q", value)
    time_ns = interface.time_ns(ticks) if kind != _SIMPLE_PACKET else 0
    data = body[start : start + length]
    return CapturedFrame(time_ns, data, original, interface.name, tuple(comments), direction, packet_id, section)


def _blocks(stream: BinaryIO) -> Iterator[tuple[int, str, bytes]]:
    """(kind, byte order for `struct`, body) of each block. Malformed where it is not a pcapng file, or is damaged."""
    order = ""
    while head := stream.read(8):
        if len(head) < 8:
            raise Malformed("the pcapng file ends within a block")
        if head[:4] == b"\n\r\r\n":
            magic = stream.read(4)
            if magic == _BYTE_ORDER_MAGIC.to_bytes(4, "little"):
                order = "<"
            elif magic == _BYTE_ORDER_MAGIC.to_bytes(4, "big"):
                order = ">"
            else:
                raise Malformed("a pcapng section without its byte-order mark")
        elif not order:
            raise Malformed(f"not a pcapng file: it opens with {head[:4].hex()}")
        else:
            magic = b""
        kind, length = struct.unpack(order + "II", head)
        if length % 4 or not 12 + len(magic) <= length <= MAXIMUM_BLOCK:
            raise Malformed(f"a pcapng block of {length} bytes is damage")
        rest = stream.read(length - 8 - len(magic))
        if len(rest) < length - 8 - len(magic):
            raise Malformed("the pcapng file ends within a block")
        yield kind, order, rest[:-4]


def read(stream: BinaryIO) -> Iterator[CapturedFrame]:
    """The frames of a file, in its order: both byte orders, several sections, any time resolution.

    Malformed when it is not a pcapng file of Ethernet frames or is damaged.
    Frames of simple packet blocks have no time: theirs is 0.
    """
    interfaces: list[_Interface] = []
    section = ""
    for kind, order, body in _blocks(stream):
        if kind == _SECTION_HEADER:
            interfaces = []
            told = [value for code, value in _read_options(body[12:], order) if code == _COMMENT]
            section = b"\n".join(told).decode("utf-8", "replace")
        elif kind == _INTERFACE_DESCRIPTION:
            interfaces.append(_read_interface(body, order))
        elif kind in (_ENHANCED_PACKET, _PACKET, _SIMPLE_PACKET):
            yield _read_packet(kind, body, order, interfaces, section)


@dataclass(frozen=True, slots=True)
class Facts:
    """What a file says beside frames: MACs by the names of their interfaces, and names of addresses."""

    macs: dict[str, bytes]
    names: dict[bytes, str]


def read_facts(path: str | os.PathLike[str]) -> Facts:
    """What a capture file says beside its frames: nothing, for a classic pcap. Damage ends it early; OSError."""
    facts = Facts({}, {})
    with open(path, "rb") as stream:
        if stream.read(4) != b"\n\r\r\n":
            return facts
        stream.seek(0)
        try:
            for kind, order, body in _blocks(stream):
                if kind == _INTERFACE_DESCRIPTION and len(body) >= 8:
                    options = dict(_read_options(body[8:], order))
                    name = options.get(2, b"").rstrip(b"\0").decode("utf-8", "replace")
                    if len(options.get(6, b"")) == 6:
                        facts.macs[name] = options[6]
                elif kind == _NAME_RESOLUTION:
                    for address, name in _read_names(body, order):
                        if len(address) == 6:
                            facts.macs.setdefault(name, address)
                        else:
                            facts.names[address] = name
        except Malformed:  # whoever reads the frames is told
            return facts
    return facts


def _read_names(body: bytes, order: str) -> Iterator[tuple[bytes, str]]:
    position = 0
    while position + 4 <= len(body):
        kind, length = struct.unpack_from(order + "HH", body, position)
        value = body[position + 4 : position + 4 + length]
        size = next((size for size, record in _NAME_RECORDS.items() if record == kind), None)
        if not kind or len(value) < length:
            return
        if size is not None:
            yield value[:size], value[size:].split(b"\0", 1)[0].decode("utf-8", "replace")
        position += 4 + length + -length % 4


def read_capture(path: str | os.PathLike[str]) -> Iterator[CapturedFrame]:
    """The frames of a capture file, pcapng or classic pcap by its first bytes. Malformed if it is neither; OSError."""
    with open(path, "rb") as stream:
        magic = stream.read(4)
        stream.seek(0)
        yield from read(stream) if magic == b"\n\r\r\n" else pcap.read(stream)
