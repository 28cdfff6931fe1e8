"""Capture: what passes a port, as records, handed to whoever watches.

A record is made when a packet passes a watched port and handed over when the run
that it belongs to ends, so that a drop inside the device can still be written on the
frame that entered it. Superframes are cut and checksums completed: a capture shows
what the wire would carry.

Rule of this file: watching never changes what happens.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from emunet.packet.offload import Offload, split
from emunet.plane.step import Step


class Sink(Protocol):
    """Somebody who watches."""

    def write(self, record: Record) -> None:
        """Take one record. Must not block; a sink that cannot keep up counts its own losses."""
        ...


@runtime_checkable
class Quick(Sink, Protocol):
    """Somebody who watches, and needs no record of a frame to which nothing more can happen, as it was a hit."""

    def take(self, frame: bytes, inbound: bool, at: int, identity: int) -> None:
        """As `write`, for one wire frame without comments."""
        ...


class Record:
    """One packet at one port. `inbound` is seen from the port's own stack.

    `drops` says where a copy of it was dropped and by which step, `comments` the same in words.
    `identity` is the same number at every port that the packet passes, whatever is done to it.
    """

    __slots__ = ("at", "comments", "drops", "frames", "handed", "identity", "inbound", "port", "sinks")

    def __init__(
        self, port: str, inbound: bool, frames: list[bytes], at: int, sinks: list[Sink], identity: int
    ) -> None:
        self.port = port
        self.identity = identity
        self.inbound = inbound
        self.at = at
        self.frames = frames
        self.comments: list[str] = []
        self.drops: list[tuple[str, Step]] = []
        self.sinks = sinks
        self.handed = False

    @classmethod
    def of(
        cls, port: str, inbound: bool, frame: bytes, offload: Offload | None, at: int, sinks: list[Sink], identity: int
    ) -> Record:
        """What a frame would be on the wire: cut and completed."""
        return cls(port, inbound, [frame] if offload is None else list(split(frame, offload)), at, sinks, identity)

    def hand_over(self) -> None:
        """Give it to everybody who watches the port."""
        self.handed = True
        for sink in list(self.sinks):
            sink.write(self)

    def dropped(self, device: str, step: Step, now: int) -> None:
        """Note that the packet was dropped, where and why.

        A packet that waited was handed over long ago: then its frame is written once
        more, at the time of the drop, with the comment.
        """
        comment = f"dropped at {device}, {step.element}: {step.reason.name}: {step.why}"
        if not self.handed:
            self.comments.append(comment)
            self.drops.append((device, step))
            return
        waited = f"{(now - self.at) / 1e9:.3f} s after it passed here: {comment}"
        again = Record(self.port, self.inbound, self.frames, now, self.sinks, self.identity)
        again.comments.append(waited)
        again.drops.append((device, step))
        again.hand_over()
