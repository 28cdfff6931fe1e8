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
from emunet.plane.reason import Reason
from emunet.plane.step import Step, Verdict
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
        return _followed(world, _from(world, edge, frame))


def onward(world: World, port: str, frame: bytes, inbound: bool) -> Trace:
    """What would happen from here on to a frame that passes a port. `inbound` is as captures have it.

    UnknownPort where there is none; ValueError for an interface inside a device, by which no frame enters.
    """
    device, entry, inner = world.locate(port)
    if inner:
        raise ValueError(f"{port} is an interface inside {device.name}: frames enter by a pod or by a device's port")
    edge = world.edges.get(port)
    wire = next((wire for wire in world.wires.values() if (device.name, entry) in wire.ends), None)

    def begin(trace: Trace) -> None:
        packet = Packet(frame)
        packet.trace = trace
        if edge is not None and edge.entry == entry and inbound:
            step = Step("edge", Verdict.DELIVER, Reason.RECEIVED, {"port": edge.name})
            trace.enter(edge.name, port, world.now).steps.append(step)
        elif edge is not None and edge.entry == entry:
            world.receive(edge, frame, world.now, trace=trace)
        elif inbound or wire is None:
            world.arrive(device.name, entry, packet, world.now)
        else:
            packet.hop = trace.enter(f"{port}, outward", port, world.now)
            wire.send(wire.ends.index((device.name, entry)), packet, world.now)
        world.run(world.now)

    with world.dry_run():
        trace = _followed(world, begin)
    trace.hops[:] = [hop for hop in trace.hops if hop.steps]
    return trace


def exchange(world: World, edge: Edge, frame: bytes, answers: Answers) -> tuple[Trace, Trace | None, Edge | None]:
    """The same, and what would happen to the answer of the edge that the frame is for; with that edge."""
    with world.dry_run():
        there = _followed(world, _from(world, edge, frame))
        for got, packet in list(world.arrived):
            if packet.trace is not there or not any(row.address == packet.ip_destination for row in got.addresses):
                continue
            answer = answers(got, packet)
            if isinstance(answer, Trace) or answer is None:
                return there, answer, got
            return there, _followed(world, _from(world, got, answer)), got
        outside = next((got for got, packet in world.arrived if packet.trace is there and not got.mac), None)
        return there, None, outside


def _from(world: World, edge: Edge, frame: bytes) -> Callable[[Trace], None]:
    return lambda trace: world.receive(edge, frame, world.now, trace=trace)


def _followed(world: World, begin: Callable[[Trace], None]) -> Trace:
    trace = Trace()
    begin(trace)
    limit = world.now + LIMIT
    while trace.verdict == "queued":
        due = min((device.due() for device in world.devices.values()), default=NEVER)
        if due > limit:
            break
        now = max(world.now, due)
        for device in world.devices.values():
            device.wake(now)
            world.run(now)
    return trace
