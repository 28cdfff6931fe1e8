"""Rewrite: what a fused run does to the bytes of a frame, at its end or at a watched point.

Header bytes in, header bytes out: the keyed bytes are known, lengths and identification
are the frame's own, checksums follow by difference (RFC 1624).

Rule of this file: what comes out is, byte for byte, what the run's edits would make.
"""

from __future__ import annotations

from dataclasses import dataclass

from emunet.fabric.capture import Sink
from emunet.fabric.flow_key import UDP, V4, V4_LENGTH, WRAPPED_V4
from emunet.packet.edit import AdjustTransport, Encapsulation
from emunet.packet.offload import Offload, split
from emunet.packet.view import ETHERNET_HEADER
from emunet.plane.table import Counter


@dataclass(frozen=True, slots=True)
class Transport:
    """A correction of the transport checksum: offset in the frame, and the differences."""

    offset: int
    optional: bool
    changes: tuple[AdjustTransport, ...]


@dataclass(frozen=True, slots=True)
class Wrap:
    """A header that the run puts in front and that stays: its builder, the MACs of its link, whose identifications."""

    recipe: Encapsulation
    macs: bytes
    counter: Counter

    def around(self, inner: bytes, back: int = 1) -> bytes:
        """The wrapped frame. The hit took the identifications: this one is `back` before the next."""
        return self.macs + self.recipe.header(inner, self.counter.peek(-back))[12:] + inner


def unwrapped(frame: bytes, length: int) -> bytes | None:
    """The inner frame of a VXLAN frame whose outer headers (`length` bytes) are sound; None when they are not."""
    size = len(frame)
    if length == WRAPPED_V4:
        if frame[16] << 8 | frame[17] != size - ETHERNET_HEADER or int.from_bytes(frame[14:34], "big") % 65535:
            return None
        segment, addresses = frame[34:], frame[26:34]
    else:
        if frame[18] << 8 | frame[19] != size - 54:
            return None
        segment, addresses = frame[54:], frame[22:54]
    if segment[4] << 8 | segment[5] != len(segment):
        return None
    if segment[6] or segment[7]:
        total = int.from_bytes(segment, "big")
        if len(segment) & 1:
            total <<= 8
        if (total + int.from_bytes(addresses, "big") + UDP + len(segment)) % 65535:
            return None
    elif length != WRAPPED_V4:
        return None
    return frame[length:]


class Rewrite:
    """What a run, or its beginning, does to the bytes of a frame.

    same    the inner headers stay as they are
    unwrap  bytes that are taken off first, 0 for none
    wrap    what is left in front, or None
    extra   an echo's addresses and identifier, as (offset, bytes), where they are translated
    """

    __slots__ = ("extra", "head", "is_v4", "middle", "new_sum", "same", "tail", "transport", "unwrap", "wrap")

    def __init__(self) -> None:
        self.is_v4 = True
        self.same = False
        self.head = b""
        self.middle = b""
        self.tail = b""
        self.new_sum = 0
        self.transport: Transport | None = None
        self.unwrap = 0
        self.wrap: Wrap | None = None
        self.extra: tuple[tuple[int, bytes], ...] = ()

    def apply(self, buffer: bytearray, start: int, offload: Offload | None) -> None:
        """Rewrite the headers in place. Nothing is wrapped or unwrapped, and the frame was found to fit."""
        if self.same:
            return
        if self.transport is not None:
            self.correct_transport(buffer, start, partial=offload is not None)
        if self.is_v4:
            _, total, identification, _, _, tail = V4.unpack_from(buffer, start)
            V4.pack_into(
                buffer,
                start,
                self.head,
                total,
                identification,
                self.middle,
                -(self.new_sum + total + identification) % 65535,
                self.tail or tail,
            )
        else:
            buffer[start : start + 18] = self.head
            buffer[start + 20 : start + 20 + len(self.tail)] = self.tail
        for offset, data in self.extra:
            buffer[start + offset : start + offset + len(data)] = data

    def rewritten(self, frame: bytes, offload: Offload | None) -> bytes:
        """The frame as it is at this point. It was found to fit, and was hit.

        What is wrapped has nothing left open: the caller completes and cuts it first.
        """
        if self.unwrap:
            frame = frame[self.unwrap :]
        if not self.same:
            frame = self._headers(frame, offload)
        return frame if self.wrap is None else self.wrap.around(frame)

    def wire_frames(self, frame: bytes, offload: Offload | None) -> list[bytes]:
        """As `rewritten`, cut and completed: what somebody who watches this point sees."""
        if offload is None:
            return [self.rewritten(frame, None)]
        inner = list(split(frame if self.same else self._headers(frame, offload), offload))
        if self.wrap is None:
            return inner
        return [self.wrap.around(piece, len(inner) - number) for number, piece in enumerate(inner)]

    def correct_transport(self, buffer: bytearray, start: int, *, partial: bool) -> None:
        """Correct the transport checksum for what is translated, complete or left open."""
        transport = self.transport
        assert transport is not None
        at = start + transport.offset
        frame = bytes(buffer[at : at + 2])
        for change in transport.changes:
            moved = AdjustTransport(0, change.old, change.new, change.pseudo, transport.optional)
            frame = moved.apply(frame, partial)
        buffer[at : at + 2] = frame

    def _headers(self, frame: bytes, offload: Offload | None) -> bytes:
        if self.is_v4 and self.transport is None and not self.extra:
            _, total, identification, _, _, tail = V4.unpack_from(frame)
            checksum = -(self.new_sum + total + identification) % 65535
            return (
                V4.pack(self.head, total, identification, self.middle, checksum, self.tail or tail) + frame[V4_LENGTH:]
            )
        buffer = bytearray(frame)
        self.apply(buffer, 0, offload)
        return bytes(buffer)


@dataclass(frozen=True, slots=True)
class View:
    """A watched point of a run: who watches, and what a frame looks like there. `plain`: as it came in."""

    port: str
    inbound: bool
    sinks: list[Sink]
    rewrite: Rewrite
    plain: bool
