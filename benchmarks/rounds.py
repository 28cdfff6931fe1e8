"""Rounds: every measurement of everything, once, and then again, in another order each time.

Rule of this file: what fails is noted with its reason and left out of that round; what fails
twice is left out from there on. The rest goes on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.pods import BenchError
from emunet.linux.keeper_client import KeeperGone, KeeperRefused

FAILURES = 2


@dataclass(frozen=True, slots=True)
class Probe:
    """One measurement of one thing. `call` gives a value for each of `measurements`."""

    measurements: tuple[str, ...]
    subject: str
    call: Callable[[], Sequence[float]]


class Rounds:
    """What came of all rounds, and what went wrong."""

    def __init__(self, probes: Sequence[Probe], tell: Callable[[str], None]) -> None:
        self.samples: dict[tuple[str, str], list[float | None]] = {}
        self.failures: dict[tuple[str, str], str] = {}
        self._probes = list(probes)
        self._tell = tell
        self._failed: dict[Probe, int] = {}

    def run(self, rounds: int) -> None:
        """All of it."""
        families = list(dict.fromkeys(probe.measurements for probe in self._probes))
        for number in range(rounds):
            for family in families:
                group = [probe for probe in self._probes if probe.measurements == family]
                turn = number % len(group)
                for probe in group[turn:] + group[:turn]:
                    self._tell(f"round {number + 1} of {rounds}: {probe.measurements[0]}: {probe.subject}")
                    self._measure(probe)

    def _measure(self, probe: Probe) -> None:
        values: Sequence[float | None] = [None] * len(probe.measurements)
        if self._failed.get(probe, 0) < FAILURES:
            try:
                values = probe.call()
            except (BenchError, KeeperRefused, KeeperGone, OSError) as error:
                self._failed[probe] = self._failed.get(probe, 0) + 1
                for measurement in probe.measurements:
                    self.failures[measurement, probe.subject] = str(error)
                print(f"\n{probe.measurements[0]}: {probe.subject}: {error}", file=sys.stderr)
        for measurement, value in zip(probe.measurements, values, strict=True):
            self.samples.setdefault((measurement, probe.subject), []).append(value)
