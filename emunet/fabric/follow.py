"""Follow: what would happen to a frame, and to the answer of whoever gets it. Nothing is changed.

A question for a neighbour's MAC is answered as the stack that has the address would answer it;
where nobody has it, time passes in the dry run until the packet's fate is known. The answer
is followed in the same dry run, so that the connection which the question began is known to it.

Rule of this file: the walk is the World's own; here is only who is let in, and when it is over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from emunet.packet.view import Packet
from emunet.plane.table import NEVER
from emunet.plane.trace import Trace

if TYPE_CHECKING:
    from emunet.fabric.edge import Edge
    from emunet.fabric.world import World

LIMIT = 10 * 1_000_000_000
"""How long a dry run waits for what a packet waits for (ns)."""

Answers = Callable[["Edge", Packet], "bytes | Trace | None"]
"""The frame that a stack sends for what it got, the trace of why there is none, or None: nothing answers that."""


def explain(world: World, edge: Edge, frame: bytes) -> Trace:
    """What would happen to a frame from this edge, hop by hop."""
    with world.dry_run():
        return _followed(world, edge, frame)


def exchange(world: World, edge: Edge, frame: bytes, answers: Answers) -> tuple[Trace, Trace | None, Edge | None]:
    """The same, and what would happen to the answer of the edge that the frame is for; with that edge."""
    with world.dry_run():
        there = _followed(world, edge, frame)
        for got, packet in list(world.arrived):
            if packet.trace is not there or not any(row.address == packet.ip_destination for row in got.addresses):
                continue
            answer = answers(got, packet)
            if isinstance(answer, Trace) or answer is None:
                return there, answer, got
            return there, _followed(world, got, answer), got
        return there, None, None


def _followed(world: World, edge: Edge, frame: bytes) -> Trace:
    trace = Trace()
    world.receive(edge, frame, world.now, trace=trace)
    limit = world.now + LIMIT
    while trace.verdict == "queued":
        due = min((device.due() for device in world.devices.values()), default=NEVER)
        if due > limit:
            break
        now = max(world.now, due)
        for device in world.devices.values():
            device.wake(now)
            world.send(edge, (), now)
    return trace
