"""Figures: what is compared with what, what it must come to, and what is made of the rounds.

Rule of this file: a ratio is taken within a round, between measurements minutes apart at most,
and the figure is the median of those ratios; the machine's moods then cancel out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

BULK = "bulk TCP, one stream"
BULK_FOUR = "bulk TCP, four streams"
FRAMES = "64-byte frames a second"
LATENCY = "latency, median"
LATENCY_HIGH = "latency, 99th percentile"
CONNECTIONS = "TCP connections a second"
SERVICE = "TCP connections a second, through a ClusterIP"
MEMORY_PORTS = "memory wires, port to port, fused"
MEMORY_IMPAIRED = "memory wires, port to port, rate and delay on each cable"
MEMORY_SOCKETS = "memory wires, socket to socket, fused"
CAPTURED = "64-byte frames a second, one port captured"
HIT = "a frame the flow cache knows"
MISS = "a frame the flow cache does not know"

UNITS: dict[str, tuple[str, float]] = {
    BULK: ("Gbit/s", 1e-9),
    BULK_FOUR: ("Gbit/s", 1e-9),
    FRAMES: ("k/s", 1e-3),
    CAPTURED: ("k/s", 1e-3),
    LATENCY: ("µs", 1e6),
    LATENCY_HIGH: ("µs", 1e6),
    CONNECTIONS: ("k/s", 1e-3),
    SERVICE: ("k/s", 1e-3),
    MEMORY_PORTS: ("k/s", 1e-3),
    MEMORY_IMPAIRED: ("k/s", 1e-3),
    MEMORY_SOCKETS: ("k/s", 1e-3),
    HIT: ("µs", 1.0),
    MISS: ("µs", 1.0),
}
"""Of what each measurement gives: the unit in tables, and the factor to it."""

LOWER_IS_BETTER = frozenset({LATENCY, LATENCY_HIGH, HIT, MISS})

Samples = Mapping[tuple[str, str], Sequence[float | None]]
"""By measurement and by what was measured, a value of each round, None where it failed."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One line of the table: a measurement of `subject`, beside that of `peer` ("" for none).

    `must` and `goal` are for the ratio of the two.
    """

    measurement: str
    subject: str
    peer: str = ""
    must: float | None = None
    goal: float | None = None

    @property
    def name(self) -> str:
        """Its key in `bench.json`."""
        return f"{self.measurement}: {self.subject}" + (f" to {self.peer}" if self.peer else "")


@dataclass(frozen=True, slots=True)
class Figure:
    """What came of a comparison. `spread`: highest less lowest ratio (or value, without a peer) by its median."""

    comparison: Comparison
    value: float
    peer: float | None
    ratio: float | None
    spread: float
    rounds: tuple[float, ...] = field(default=())
    flaw: str = ""

    @property
    def verdict(self) -> str:
        """`goal`, `must`, `missed`, or "" where nothing is demanded."""
        comparison = self.comparison
        if comparison.must is None or comparison.goal is None or self.ratio is None:
            return ""
        if self.flaw:
            return "missed"
        if comparison.measurement in LOWER_IS_BETTER:
            return "goal" if self.ratio <= comparison.goal else "must" if self.ratio <= comparison.must else "missed"
        return "goal" if self.ratio >= comparison.goal else "must" if self.ratio >= comparison.must else "missed"

    def as_json(self) -> dict[str, Any]:
        """Its entry in `bench.json`."""
        unit, factor = UNITS[self.comparison.measurement]
        entry: dict[str, Any] = {
            "value": _short(self.value * factor),
            "peer": None if self.peer is None else _short(self.peer * factor),
            "ratio": None if self.ratio is None else _short(self.ratio),
            "spread": _short(self.spread),
            "unit": unit,
            "subject": self.comparison.subject,
            "peer_name": self.comparison.peer or None,
            "rounds": [_short(one if self.peer is not None else one * factor) for one in self.rounds],
        }
        if self.comparison.must is not None:
            entry |= {"must": self.comparison.must, "goal": self.comparison.goal, "verdict": self.verdict}
        if self.comparison.measurement in LOWER_IS_BETTER:
            entry["lower_is_better"] = True
        if self.flaw:
            entry["flaw"] = self.flaw
        return entry


def evaluate(comparison: Comparison, samples: Samples, flaw: str = "") -> Figure | None:
    """The figure, or None where no round has all that it needs."""
    own = samples.get((comparison.measurement, comparison.subject), ())
    if not comparison.peer:
        values = [one for one in own if one is not None]
        if not values:
            return None
        middle = median(values)
        return Figure(comparison, middle, None, None, _spread(values), tuple(values), flaw)
    other = samples.get((comparison.measurement, comparison.peer), ())
    pairs = [(one, two) for one, two in zip(own, other, strict=False) if one is not None and two]
    if not pairs:
        return None
    ratios = [one / two for one, two in pairs]
    return Figure(
        comparison,
        median(one for one, _ in pairs),
        median(two for _, two in pairs),
        median(ratios),
        _spread(ratios),
        tuple(ratios),
        flaw,
    )


def _spread(values: Sequence[float]) -> float:
    middle = median(values)
    return (max(values) - min(values)) / middle if middle else 0.0


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _one_host() -> list[Comparison]:
    targets = {
        (BULK, "kernel bridge"): (0.6, 0.8),
        (BULK, "ovs"): (5.0, 7.0),
        (FRAMES, "kernel bridge"): (0.5, 0.65),
        (FRAMES, "vde"): (1.2, 1.8),
    }
    rows = []
    for measurement in (BULK, BULK_FOUR, FRAMES, LATENCY, LATENCY_HIGH, CONNECTIONS):
        for peer in ("kernel bridge", "ovs", "vde", "vde built-in", "copier"):
            rows.append(Comparison(measurement, "emunet", peer, *targets.get((measurement, peer), (None, None))))
        rows.append(Comparison(measurement, "emunet without offload", "emunet"))
    return rows


def _two_hosts(kind: str) -> list[Comparison]:
    targets = {
        (BULK, "VXLAN"): (0.75, 1.0),
        (FRAMES, "VXLAN"): (1.0, 1.2),
        (LATENCY, "VXLAN"): (1.6, 1.3),
    }
    return [
        Comparison(measurement, f"emunet {kind}", f"kernel {kind}", *targets.get((measurement, kind), (None, None)))
        for measurement in (BULK, BULK_FOUR, FRAMES, LATENCY, LATENCY_HIGH, CONNECTIONS)
    ]


COMPARISONS: tuple[Comparison, ...] = (
    *_one_host(),
    *_two_hosts("routed"),
    *_two_hosts("VXLAN"),
    Comparison(SERVICE, "emunet Service", "kernel nft"),
    Comparison(CAPTURED, "captured", "not captured", 0.5, 0.7),
    Comparison(MEMORY_PORTS, "emunet", "ns-3", 5.0, 8.0),
    Comparison(MEMORY_IMPAIRED, "emunet", "ns-3", 1.0, 2.0),
    Comparison(MEMORY_SOCKETS, "emunet", "ns-3"),
    Comparison(HIT, "emunet"),
    Comparison(MISS, "emunet"),
)
