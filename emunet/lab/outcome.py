"""What became of a flow: figures, reasons, and how rate and latency went over time. Plain values, for people and JSON.

Rule of this file: it counts what it is told and never looks at a packet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from emunet.packet.quantity import format_duration

SECOND = 1_000_000_000

MOST_TOLD = 20
"""Moves and gaps that are told one by one; of a flapping link there are thousands."""


@dataclass(slots=True)
class Bucket:
    """One stretch of time: what was sent in it, what of that was lost, and what arrived in it, with its times (ns)."""

    sent: int = 0
    lost: int = 0
    latencies: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Move:
    """From `at` (ns) on the flow went another way: through these devices, to this pod."""

    at: int
    path: tuple[str, ...]


@dataclass(slots=True)
class Outcome:
    """What became of one flow.

    late        arrived, later than was allowed
    reordered   arrived after one that was sent later (RFC 4737 3.3)
    moved       how often it went another way than before
    on_the_way  neither arrived nor seen to be dropped
    why         lost datagrams by the code of the reason
    gaps        times (ns) between which nothing arrived
    latency     ns: least, median, 99 of 100, most, mean; None where nothing arrived
    """

    name: str
    source: str
    target: str
    began: int
    bucket_size: int
    sent: int = 0
    received: int = 0
    lost: int = 0
    on_the_way: int = 0
    late: int = 0
    reordered: int = 0
    duplicated: int = 0
    moved: int = 0
    why: dict[str, int] = field(default_factory=dict)
    moves: list[Move] = field(default_factory=list)
    gaps: list[tuple[int, int]] = field(default_factory=list)
    latency: dict[str, int] | None = None
    buckets: list[Bucket] = field(default_factory=list)

    def bucket(self, at: int) -> Bucket:
        """The stretch of time that a moment belongs to."""
        number = max(0, at - self.began) // self.bucket_size
        while len(self.buckets) <= number:
            self.buckets.append(Bucket())
        return self.buckets[number]

    def copy(self) -> Outcome:
        """The same, to go on counting in."""
        other = Outcome(self.name, self.source, self.target, self.began, self.bucket_size)
        for name in ("received", "late", "reordered", "duplicated", "moved"):
            setattr(other, name, getattr(self, name))
        other.moves, other.gaps, other.why = list(self.moves), list(self.gaps), dict(self.why)
        other.buckets = [Bucket(one.sent, one.lost, one.latencies) for one in self.buckets]
        return other

    def took(self, latencies: Sequence[int]) -> None:
        """Take these as the times of all that arrived."""
        if not latencies:
            return
        ordered = sorted(latencies)
        self.latency = {
            "least": ordered[0],
            "median": ordered[len(ordered) // 2],
            "p99": ordered[len(ordered) * 99 // 100],
            "most": ordered[-1],
            "mean": sum(ordered) // len(ordered),
        }

    def series(self) -> list[dict[str, Any]]:
        """A row for each stretch of time."""
        rows = []
        for number, one in enumerate(self.buckets):
            times = sorted(one.latencies)
            row: dict[str, Any] = {"at_ns": self.began + number * self.bucket_size, "sent": one.sent, "lost": one.lost}
            row["received"] = len(times)
            row["latency_ns"] = [times[0], times[len(times) // 2], times[-1]] if times else None
            row["mean_ns"] = sum(times) // len(times) if times else None
            rows.append(row)
        return rows

    def as_dict(self) -> dict[str, Any]:
        """For JSON, and for whoever draws it."""
        return {
            "name": self.name,
            "from": self.source,
            "to": self.target,
            "sent": self.sent,
            "received": self.received,
            "lost": self.lost,
            "on_the_way": self.on_the_way,
            "late": self.late,
            "reordered": self.reordered,
            "duplicated": self.duplicated,
            "moved": self.moved,
            "why": dict(sorted(self.why.items(), key=lambda item: (-item[1], item[0]))),
            "moves": [{"at_ns": one.at, "path": list(one.path)} for one in self.moves[:MOST_TOLD]],
            "gaps": [{"from_ns": first, "to_ns": last} for first, last in self.gaps[:MOST_TOLD]],
            "gaps_in_all": len(self.gaps),
            "latency_ns": self.latency,
            "began_ns": self.began,
            "bucket_ns": self.bucket_size,
            "series": self.series(),
        }


def seconds(nanoseconds: int) -> str:
    """A moment or a stretch as people read it: `12.5s`, `3m`, rounded to what matters."""
    rounded = round(nanoseconds, -6) if nanoseconds >= 1_000_000 else nanoseconds
    if rounded < SECOND or rounded % SECOND == 0:
        return format_duration(rounded)
    return f"{rounded / SECOND:.3f}".rstrip("0") + "s"


__all__ = ["Bucket", "Move", "Outcome", "seconds"]
