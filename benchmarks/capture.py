"""Frames a second while somebody watches: `emunet capture -w` on the port of the receiving pod.

Rule of this file: a frame that arrived and is not in the file is a flaw, and makes the figure void.
"""

from __future__ import annotations

import time

from benchmarks.lab import Lab
from benchmarks.peers.peer import End
from benchmarks.traffic import Traffic

_ON_ITS_WAY = 0.3


class Captured:
    """The measurement, and what was lost in all of them."""

    def __init__(self, lab: Lab, pod: End, traffic: Traffic) -> None:
        self._lab = lab
        self._pod = pod
        self._traffic = traffic
        self.lost = 0
        self.missing = 0

    def frames(self, seconds: float) -> float:
        """As `Traffic.frames`, with the pod's port captured into a file."""
        capture = self._lab.capture(self._pod.pod)
        before = self._lab.received(self._pod.pod)
        try:
            rate = self._traffic.frames(seconds)
            time.sleep(_ON_ITS_WAY)
            arrived = self._lab.received(self._pod.pod) - before
        finally:
            written, lost = capture.end()
        self.lost += lost
        self.missing += max(0, arrived - written - lost)
        return rate

    @property
    def flaw(self) -> str:
        """What went wrong, or ""."""
        return f"{self.lost} lost, {self.missing} missing" if self.lost or self.missing else ""
