"""Roads: what the flows between two stations have in common, decided once for all of them.

A Replay of its own pays for a flow of many frames. A new connection is a new flow, and most
have few frames; with tracking on, half of these change its state and can be in no Replay. But
nearly all elements on the way ask neither for ports nor for connections: for them every flow
between two stations is the same. So the first run of all is kept as a *road*, under a key
without ports:

- Where no element looked closer (`Packet.looked`), the road is one Replay for all ports. The
  outer source port of a tunnel that ends on the same run is no exception: it is gone with it.
- Else it is a chain of parts between *crossings*. At a crossing the element decides about each
  frame itself, and all that it asks for happens (`Device.decide`): a connection begins, moves
  on, ends. What follows is found by the situation that the packet is in behind it
  (`plane.device.situation`), so one road has branches: to each backend of a Service, say.
  Where none was recorded, the walk goes on from there, and is recorded as a new branch.

A part has the validity, deadline, limit and counting of any Replay. A flow of more than YOUNG
frames in a second has a run recorded for itself.

Measured, processor time of a TCP connection of ten frames on memory wires, without and with
roads, in the same minutes: bridged 130 and 38 µs; between two hosts 445 and 46; over VXLAN 690
and 46; through a ClusterIP between two hosts 2,420 and 720 (1,110 before the two elements that
are asked were made cheaper).

Rule of this file: what is refused here only costs time; what is kept must be the same for
every flow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from emunet.fabric.fuse import Fused, Unfusable
from emunet.fabric.replay import Crossing, Replay
from emunet.fabric.wire import WireExit
from emunet.packet.edit import Pop
from emunet.packet.view import AT_SERVICE
from emunet.plane.device import AT_BUILDING, Closer, Device, Situation
from emunet.plane.ledger import Ledger, PortFigures
from emunet.plane.reason import Reason
from emunet.plane.step import Step, Verdict
from emunet.plane.table import Advance

if TYPE_CHECKING:
    from emunet.fabric.flows import FlowCache, Recording

YOUNG = 12
"""Frames of a flow for which its road serves: a Replay of its own costs as much as 5 to 20 frames on a road.

Most connections are over by then, even two that have the same ports within the second that is counted.
"""

NO_ROAD = frozenset({Reason.STEP_LIMIT, Reason.OVERSIZED, Reason.TOO_BIG})
"""Ends that say nothing of the next frame."""

Row = tuple[Device, Step, Any]


@dataclass(frozen=True, slots=True)
class Notes:
    """What `Watch` noted of a run."""

    leaned: Sequence[tuple[Any, Any, int, bool]]
    steps: Sequence[Row]
    passed: Sequence[tuple[PortFigures, str]]
    closer: Mapping[int, Closer]


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a run, with what it is kept as: rows of `Notes` from the first number up to the second."""

    replay: Replay
    leaned: tuple[int, int]
    steps: tuple[int, int]


def crossings(notes: Notes) -> dict[int, Closer]:
    """The steps at which another flow might be decided about otherwise, by their numbers."""
    found: dict[int, Closer] = {}
    builders: dict[int, Closer] = {}
    depth = 0
    for number, (_, step, _) in enumerate(notes.steps):
        closer = notes.closer.get(number)
        if closer is not None:
            if closer.looked == AT_BUILDING:
                builders[number] = closer
                depth += 1
            elif closer.looked != AT_SERVICE or not depth:
                found[number] = closer
        for edit in step.edits:
            depth -= isinstance(edit, Pop)
    # What is built in front of the frame and taken off again on the same run differs in nothing that is left.
    return found if not found and not depth else dict(sorted((found | builders).items()))


def pave(cache: FlowCache, recording: Recording, notes: Notes, world: Ledger, now: int) -> list[Part]:
    """A run's road, or the branch of one: its parts in order, as far as they can be kept. Unfusable: nothing of it."""
    if recording.broken:
        raise Unfusable(recording.broken)
    if recording.record is not None or recording.views:
        raise Unfusable("somebody watches")
    if not notes.steps:
        raise Unfusable("nothing was decided")
    builder = _Builder(cache, recording, notes, world, now)
    ways = crossings(notes)
    try:
        for number, closer in ways.items():
            builder.up_to(number, closer)
            if closer.onward is None:
                return builder.parts
        builder.to_the_end()
    except Unfusable:
        if not builder.parts:
            raise
    return builder.parts


class _Builder:
    """Makes the parts of one run, one after the other."""

    def __init__(self, cache: FlowCache, recording: Recording, notes: Notes, world: Ledger, now: int) -> None:
        self.parts: list[Part] = []
        self._cache = cache
        self._recording = recording
        self._notes = notes
        self._world = world
        self._now = now
        parent = recording.parent
        self._device: Device | None = None if parent is None or parent.crossing is None else parent.crossing.device
        self._frame = recording.frame
        self._table: dict[Any, Replay] = recording.table
        self._key: Any = recording.road
        self._row = self._leaned = self._passed = 0

    def up_to(self, number: int, closer: Closer) -> None:
        """The part that ends at a crossing."""
        if closer.situation is None:
            raise Unfusable("it was put together")
        replay, fused = self._begin()
        before = self._device
        self._compose(replay, fused, number, closer.device)
        fused.share(replay, closer.frame)
        replay.crossing = Crossing(closer.device, closer.situation, through=before is not None and replay.hops > 0)
        if not self._behind:
            replay.least = fused.least
        self._keep(replay, number, closer.leaned[0], closer.passed)
        self._row, self._leaned, self._passed = number + 1, closer.leaned[1], closer.passed
        if closer.onward is not None:
            situation, self._frame = closer.onward
            self._table, self._key = replay.onward, situation

    def to_the_end(self) -> None:
        """The part that ends where the run did."""
        replay, fused = self._begin()
        steps = self._notes.steps
        self._compose(replay, fused, len(steps), None)
        device, final, _ = steps[-1]
        if final.verdict is Verdict.DROP and len(steps) > self._row:
            if final.reason in NO_ROAD:
                raise Unfusable("its size decides")
            replay.is_v4 = fused.is_v4
            replay.drop, replay.drop_figures = final.reason, device.figures
        elif self._recording.end is None or final.verdict is not Verdict.FORWARD:
            raise Unfusable("it came out nowhere")
        else:
            end, packet = self._recording.end
            fused.share(replay, packet.frame)
            replay.credits.append((self._device.figures if self._device else self._world, "delivered"))
            if isinstance(end, WireExit):
                replay.wire = end
            else:
                replay.edge = end
        replay.edge_figures = None if replay.wire is not None else self._world
        self._keep(replay, len(steps), len(self._notes.leaned), len(self._notes.passed))

    @property
    def _behind(self) -> bool:
        return bool(self.parts) or self._recording.parent is not None

    def _begin(self) -> tuple[Replay, Fused]:
        replay = Replay(self._cache, self._table, self._key)
        replay.used, replay.road, replay.behind = self._now, True, self._behind
        fused = Fused(self._frame)
        if not self._behind and self._recording.admitted:
            replay.begins = True
            replay.credits.append((self._world, "received"))
        return replay, fused

    def _compose(self, replay: Replay, fused: Fused, end: int, crossing: Device | None) -> None:
        """Compose the steps up to `end`; the devices that the frame leaves and enters until then, `crossing` too."""
        steps = self._notes.steps
        for number in range(self._row, end):
            device, step, _ = steps[number]
            self._enter(replay, device)
            fused.take(step, last=number == len(steps) - 1)
            for effect in step.effects:
                if isinstance(effect, Advance):
                    replay.advances.append((effect.counter, effect.by))
        if crossing is not None:
            self._enter(replay, crossing)
        replay.old_sum, replay.limit = fused.old_sum, fused.limit

    def _enter(self, replay: Replay, device: Device) -> None:
        if self._device is device:
            return
        if self._device is not None:
            replay.credits.append((self._device.figures, "delivered"))
            replay.hops += 1
        replay.credits.append((device.figures, "received"))
        self._device = device

    def _keep(self, replay: Replay, row: int, leaned: int, passed: int) -> None:
        recording = self._recording
        if not replay.behind and not replay.fits(
            recording.frame, 0, len(recording.frame), recording.offload, self._now
        ):
            raise Unfusable("the frame is not sound")
        replay.credits += self._notes.passed[self._passed : passed]
        replay.watched = self._cache.recorded
        self.parts.append(Part(replay, (self._leaned, leaned), (self._row, row)))


__all__ = ["YOUNG", "Notes", "Part", "Situation", "crossings", "pave"]
