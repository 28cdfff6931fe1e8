"""The ledger: every frame is accounted for.

The law, at every moment between walks, for each device and for the World:

    received + generated + copied == delivered + consumed + dropped + queued

All figures count wire frames: a superframe counts by its segments. Each figure is
incremented where the thing happens and none is derived from another.

Rule of this file: numbers only; who increments what is written beside the numbers.
"""

from __future__ import annotations

from emunet.plane.reason import Reason

FIELDS = ("received", "generated", "copied", "delivered", "consumed", "dropped", "queued")


class PortFigures:
    """Wire frames that passed a port of a device: `received` by it, `sent` by it. No part of the law."""

    __slots__ = ("received", "sent")

    def __init__(self) -> None:
        self.received = 0
        self.sent = 0


class Ledger:
    """Counters of one device, or of the World.

    received   a frame came in by a port (World: from an edge)
    generated  an element made a frame (an ARP reply, an ICMP error)
    copied     flooding, cutting or fragmenting made n frames of one: n-1
    delivered  a frame went out by a port (World: to an edge)
    consumed   an element kept what a frame said
    dropped    a frame ended, with a reason; `reasons` counts by code
    queued     frames held now: behind a neighbour, or on a wire
    """

    __slots__ = (*FIELDS, "reasons")

    def __init__(self) -> None:
        self.received = 0
        self.generated = 0
        self.copied = 0
        self.delivered = 0
        self.consumed = 0
        self.dropped = 0
        self.queued = 0
        self.reasons: dict[str, int] = {}

    def drop(self, reason: Reason, frames: int) -> None:
        """Count `frames` as dropped for `reason`."""
        self.dropped += frames
        self.reasons[reason.name] = self.reasons.get(reason.name, 0) + frames

    @property
    def balance(self) -> int:
        """What came in less what is accounted for: 0, or a frame went missing."""
        return (
            self.received + self.generated + self.copied - self.delivered - self.consumed - self.dropped - self.queued
        )

    def as_dict(self) -> dict[str, object]:
        """All figures, and the drops by reason, as `status` shows them."""
        figures: dict[str, object] = {name: getattr(self, name) for name in FIELDS}
        figures["reasons"] = dict(sorted(self.reasons.items()))
        return figures
