"""What a container has said, line by line with the moment of each, as far as there is room.

Rule of this file: bounded; the oldest lines give way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field

from emunet.daemon.kube.backend import Bell, LogWish

MAXIMUM = 1 << 20
"""Bytes that are kept of each run of a container."""

_LONGEST_LINE = 1 << 16


@dataclass(slots=True)
class ContainerLog:
    """The lines of one run of a container. `moment` writes a time as log lines have it."""

    now: Callable[[], int]
    moment: Callable[[int], str]
    bell: Bell = field(default_factory=Bell)
    first: int = 0
    """The number of the oldest line that is kept."""
    ended: bool = False
    taps: list[Callable[[bytes], None]] = field(default_factory=list)
    """Who hears what is said as it is said, not by whole lines."""
    _lines: deque[tuple[int, bytes]] = field(default_factory=deque)
    _size: int = 0
    _rest: bytes = b""

    def add(self, data: bytes) -> None:
        """The program has said something."""
        for tap in self.taps:
            tap(data)
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            self._append(line + b"\n")
        if len(self._rest) > _LONGEST_LINE:
            self._append(self._rest)
            self._rest = b""
        self.bell.ring()

    def end(self) -> None:
        """It will say no more."""
        if self._rest:
            self._append(self._rest + b"\n")
            self._rest = b""
        self.ended = True
        self.bell.ring()

    def _append(self, line: bytes) -> None:
        self._lines.append((self.now(), line))
        self._size += len(line)
        while self._size > MAXIMUM and len(self._lines) > 1:
            self._size -= len(self._lines.popleft()[1])
            self.first += 1

    def text(self) -> bytes:
        """All that is kept, with the line that has no end yet."""
        return b"".join(line for _, line in self._lines) + self._rest

    def next_number(self) -> int:
        """The number that the next line will have."""
        return self.first + len(self._lines)

    def lines(self, start: int, *, timestamps: bool) -> Iterator[bytes]:
        """The lines from a number on."""
        for index in range(max(0, start - self.first), len(self._lines)):
            at, line = self._lines[index]
            yield f"{self.moment(at)} ".encode() + line if timestamps else line

    def start_of(self, wish: LogWish) -> int:
        """The number of the first line that a wish asks for."""
        start = self.first
        if wish.tail is not None and wish.tail >= 0:
            start = max(start, self.next_number() - wish.tail)
        if wish.since is not None:
            limit = self.now() - wish.since * 1_000_000_000
            while start < self.next_number() and self._lines[start - self.first][0] < limit:
                start += 1
        return start

    async def read(self, wish: LogWish) -> AsyncIterator[bytes]:
        """What a wish asks for; where it follows, until the end."""
        position, left = self.start_of(wish), wish.limit
        while True:
            said = list(self.lines(position, timestamps=wish.timestamps))
            position = self.next_number()  # more may come while these are on their way
            for line in said:
                piece = line if left is None else line[:left]
                yield piece
                left = None if left is None else left - len(piece)
                if left == 0:
                    return
            if self.next_number() > position:
                continue
            if not wish.follow or self.ended:
                return
            await self.bell.wait(None)
