"""Step: what one element decided about one packet, and why. All of it is data.

Rule of this file: a Step describes; only `Device.walk` acts on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from emunet.packet.edit import Edit
from emunet.packet.view import Packet
from emunet.plane.reason import Reason, fill


class Verdict(Enum):
    """What becomes of the packet after this step."""

    FORWARD = "forward"
    DELIVER = "deliver"
    CONSUME = "consume"
    DROP = "drop"
    HOLD = "hold"


class Effect(Protocol):
    """A change to a table, a counter or a timer."""

    def apply(self, now: int) -> None:
        """Make the change at `now` (ns). In a dry run it lands in the overlay."""
        ...


@dataclass(slots=True)
class Output:
    """One way out of an element: the output's name, and annotations to set on the packet.

    `frame` replaces the packet's bytes on this way only (a fragment of it).
    """

    name: str
    marks: dict[str, Any] = field(default_factory=dict)
    frame: bytes | None = None


@dataclass(slots=True)
class Emission:
    """A frame that the element makes itself, and the output it leaves by."""

    frame: bytes
    output: str
    marks: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Step:
    """One decision.

    outputs    where the packet goes on (FORWARD); more than one makes copies
    edits      changes to its bytes, applied before it goes on
    effects    changes to tables
    emissions  frames the element makes, each counted as generated
    settled    decisions on packets that this element was holding until now
    limit      the longest wire frame (bytes) for which the decision is the same, or None
    """

    element: str
    verdict: Verdict
    reason: Reason
    arguments: dict[str, Any] = field(default_factory=dict)
    outputs: Sequence[Output] = ()
    edits: Sequence[Edit] = ()
    effects: Sequence[Effect] = ()
    emissions: Sequence[Emission] = ()
    settled: Sequence[tuple[Packet, Step]] = ()
    limit: int | None = None

    @property
    def why(self) -> str:
        """The reason's sentence, filled in."""
        return fill(self.reason, self.arguments)


def forward(element: str, reason: Reason, output: str, marks: dict[str, Any] | None = None, **arguments: Any) -> Step:
    """A step that lets the packet go on by one output."""
    return Step(element, Verdict.FORWARD, reason, arguments, (Output(output, marks or {}),))


def drop(element: str, reason: Reason, effects: Sequence[Effect] = (), **arguments: Any) -> Step:
    """A step that ends the packet, with a reason whose kind is DROPPED."""
    return Step(element, Verdict.DROP, reason, arguments, effects=effects)


def consume(element: str, reason: Reason, effects: Sequence[Effect] = (), **arguments: Any) -> Step:
    """A step by which the element keeps what the packet said."""
    return Step(element, Verdict.CONSUME, reason, arguments, effects=effects)
