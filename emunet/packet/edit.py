"""Edits: changes to the bytes of a frame, as data.

An element never changes a frame; it returns edits, and `apply` is the only code
that makes new bytes of them. So the same value explains a change ("ttl 64 -> 63"),
makes it, and is composed into a fused form for the packets that follow.

Rule of this file: offsets count from the first byte of the frame as it is when the
edit is applied; edits of one Step apply in order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from emunet.packet.checksum import update


@dataclass(frozen=True, slots=True)
class Put:
    """Overwrite bytes at `offset`. `what` names the change for people."""

    offset: int
    data: bytes
    what: str = ""

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
    what: str = ""

    def apply(self, frame: bytes) -> bytes:
        """The frame with the two checksum bytes corrected."""
        at = self.offset
        value = update(frame[at] << 8 | frame[at + 1], self.old, self.new)
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
    what: str = ""
    recipe: Encapsulation | None = None

    def apply(self, frame: bytes) -> bytes:
        """The longer frame."""
        return self.data + frame


@dataclass(frozen=True, slots=True)
class Pop:
    """Take `length` bytes off the front (a decapsulation)."""

    length: int
    what: str = ""

    def apply(self, frame: bytes) -> bytes:
        """The shorter frame."""
        return frame[self.length :]


@dataclass(frozen=True, slots=True)
class Trim:
    """Cut the frame to `length` bytes: link padding does not travel on (RFC 894)."""

    length: int
    what: str = ""

    def apply(self, frame: bytes) -> bytes:
        """The frame without what lay behind `length`."""
        return frame[: self.length]


Edit = Put | Adjust | Push | Pop | Trim


def apply(frame: bytes, edits: Iterable[Edit]) -> bytes:
    """The frame after all edits, in order."""
    for edit in edits:
        frame = edit.apply(frame)
    return frame
