"""Edits: changes to the bytes of a frame, as data.

An element never changes a frame; it returns edits, and `apply` is the only code
that makes new bytes of them. So the same value explains a change ("ttl 64 -> 63"),
makes it, and is composed into a fused form for the packets that follow.

Rule of this file: offsets count from the first byte of the frame as it is when the
edit is applied; edits of one Step apply in order.

What an edit is called (`what`) is for people: a string, or what becomes one when somebody asks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from emunet.packet.checksum import update
from emunet.packet.offload import Offload, complete


@dataclass(frozen=True, slots=True)
class Put:
    """Overwrite bytes at `offset`. `what` names the change for people."""

    offset: int
    data: bytes
    what: object = ""

    def apply(self, frame: bytes) -> bytes:
        """The frame with the bytes in place; its length does not change."""
        return frame[: self.offset] + self.data + frame[self.offset + len(self.data) :]


@dataclass(frozen=True, slots=True)
class Adjust:
    """Correct an Internet checksum at `offset` for `old` becoming `new` (RFC 1624).

    `old` and `new` have the same even length and lie at even distances from the
    start of the checksummed area.
    """

    offset: int
    old: bytes
    new: bytes
    what: object = ""

    def apply(self, frame: bytes) -> bytes:
        """The frame with the two checksum bytes corrected."""
        at = self.offset
        value = update(frame[at] << 8 | frame[at + 1], self.old, self.new)
        return frame[:at] + value.to_bytes(2, "big") + frame[at + 2 :]


@dataclass(frozen=True, slots=True)
class AdjustTransport:
    """Correct a transport checksum at `offset` for `old` becoming `new`, in whichever form it is.

    Complete: as `Adjust`; an IPv4 UDP checksum of 0 means none and stays (`optional`).
    Partial (the packet's offload says the sum is left to us, linux/virtio_net.h): the
    field holds the folded pseudo-header sum, uncomplemented, so only a change of the
    pseudo-header (`pseudo`: an address) moves it, and in the other direction.
    """

    offset: int
    old: bytes
    new: bytes
    pseudo: bool
    optional: bool = False
    what: object = ""

    def apply(self, frame: bytes, partial: bool = False) -> bytes:
        """The frame with the two checksum bytes corrected."""
        at = self.offset
        before = frame[at] << 8 | frame[at + 1]
        if partial:
            if not self.pseudo:
                return frame
            value = ~update(~before & 0xFFFF, self.old, self.new) & 0xFFFF
        elif self.optional and before == 0:
            return frame
        else:
            value = update(before, self.old, self.new)
            if self.optional and value == 0:
                value = 0xFFFF
        return frame[:at] + value.to_bytes(2, "big") + frame[at + 2 :]


class Encapsulation(Protocol):
    """How to build an outer header again for another inner frame (used by the flow cache)."""

    def header(self, inner: bytes, identification: int) -> bytes:
        """The outer bytes that go in front of `inner`."""
        ...


@dataclass(frozen=True, slots=True)
class Push:
    """Put `data` in front of the frame (an encapsulation).

    `recipe` builds the same header for other inner frames; without one, a walk
    that pushes is not repeated from the cache.
    """

    data: bytes
    what: object = ""
    recipe: Encapsulation | None = None

    def apply(self, frame: bytes) -> bytes:
        """The longer frame."""
        return self.data + frame


@dataclass(frozen=True, slots=True)
class Pop:
    """Take `length` bytes off the front (a decapsulation)."""

    length: int
    what: object = ""

    def apply(self, frame: bytes) -> bytes:
        """The shorter frame."""
        return frame[self.length :]


@dataclass(frozen=True, slots=True)
class Trim:
    """Cut the frame to `length` bytes: link padding does not travel on (RFC 894)."""

    length: int
    what: object = ""

    def apply(self, frame: bytes) -> bytes:
        """The frame without what lay behind `length`."""
        return frame[: self.length]


@dataclass(frozen=True, slots=True)
class Complete:
    """Fill in the transport checksum that was left to us: from here the frame is as on a wire."""

    offload: Offload
    what: object = ""

    def apply(self, frame: bytes) -> bytes:
        """The frame with its checksum. It must not be a superframe."""
        return complete(frame, self.offload)


Edit = Put | Adjust | AdjustTransport | Complete | Push | Pop | Trim


def apply(frame: bytes, edits: Iterable[Edit], partial: bool = False) -> bytes:
    """The frame after all edits, in order. `partial`: its transport checksum is left to us."""
    for edit in edits:
        frame = edit.apply(frame, partial) if isinstance(edit, AdjustTransport) else edit.apply(frame)
    return frame
