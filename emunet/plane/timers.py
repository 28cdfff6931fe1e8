"""Timers of an element: at most one per key, changed only by effects.

Rule of this file: `first` is exact and cheap; what a dry run changes is undone when it ends.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from typing import Generic, TypeVar

from emunet.plane.table import NEVER

K = TypeVar("K", bound=Hashable)


class Timers(Generic[K]):
    """Keys and when each is due (ns)."""

    def __init__(self) -> None:
        self._due: dict[K, int] = {}
        self._heap: list[tuple[int, int, K]] = []
        self._order = count()
        self._first: int | None = NEVER
        """What `first` found; None since an appointment changed."""
        self._kept: tuple[dict[K, int], list[tuple[int, int, K]]] | None = None

    def set(self, key: K, due: int) -> None:
        """Ring for `key` at `due`, instead of any earlier appointment."""
        self._due[key] = due
        self._first = None
        heappush(self._heap, (due, next(self._order), key))

    def clear(self, key: K) -> None:
        """Do not ring for `key`."""
        self._due.pop(key, None)
        self._first = None

    def keep(self, key: K, due: int) -> None:
        """Ring for `key` at `due`; NEVER: do not. Cheap where nothing changes."""
        if self._due.get(key, NEVER) != due:
            if due == NEVER:
                self.clear(key)
            else:
                self.set(key, due)

    def first(self) -> int:
        """The earliest appointment, or NEVER."""
        if self._first is not None:
            return self._first
        heap = self._heap
        while heap and self._due.get(heap[0][2]) != heap[0][0]:
            heappop(heap)
        self._first = first = heap[0][0] if heap else NEVER
        return first

    def pop(self, now: int) -> list[K]:
        """The keys due by `now`, earliest first; they are cleared."""
        keys = []
        while self.first() <= now:
            due, _, key = heappop(self._heap)
            self._first = None
            if self._due.get(key) == due:
                del self._due[key]
                keys.append(key)
        return keys

    def take(self, now: int) -> K | None:
        """The key that is due first, if it is by `now`; it is cleared."""
        if self.first() > now:
            return None
        key = heappop(self._heap)[2]
        self._first = None
        del self._due[key]
        return key

    def begin_overlay(self) -> None:
        """From here changes are thrown away at the end."""
        self._kept = (dict(self._due), list(self._heap))

    def end_overlay(self) -> None:
        """Back to the appointments of before."""
        if self._kept is not None:
            self._due, self._heap = self._kept
            self._first = None
            self._kept = None


@dataclass(slots=True)
class Ring(Generic[K]):
    """Effect: ring for a key `after` ns from now; None: do not ring."""

    timers: Timers[K]
    key: K
    after: int | None

    def apply(self, now: int) -> None:
        """Make or cancel the appointment."""
        if self.after is None:
            self.timers.clear(self.key)
        else:
            self.timers.set(self.key, now + self.after)
