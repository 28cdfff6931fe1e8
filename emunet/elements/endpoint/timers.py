"""The endpoint's timers: a heap of due times whose owners move them at will.

An owner has one timer, `due`, and mostly moves it later (a retransmission timer
restarts with every acknowledgment). So the heap keeps at most one entry that
counts for each owner, never later than its timer, and looks again when that
entry comes up: moving a timer later costs nothing.

Rule of this file: equal times run in the order in which they were scheduled.
"""

from __future__ import annotations

import heapq

from emunet.elements.endpoint.network import Timed


class Timers:
    """All timers of one endpoint."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Timed]] = []
        self._serial = 0

    def schedule(self, owner: Timed) -> None:
        """`owner.due` may have become earlier."""
        if owner.due is not None and (owner.queued is None or owner.due < owner.queued):
            owner.queued = owner.due
            self._serial += 1
            heapq.heappush(self._heap, (owner.due, self._serial, owner))

    def due(self) -> int | None:
        """The earliest timer; None if there is none."""
        while self._heap:
            due, _, owner = self._heap[0]
            if due == owner.queued == owner.due:
                return due
            heapq.heappop(self._heap)
            if due == owner.queued:  # else an earlier entry has taken its place
                owner.queued = None
                self.schedule(owner)
        return None

    def take(self, now: int) -> Timed | None:
        """The owner of the earliest timer, off the heap, if it is due by `now`; schedule it again after its act."""
        due = self.due()
        if due is None or due > now:
            return None
        owner = heapq.heappop(self._heap)[2]
        owner.queued = None
        return owner
