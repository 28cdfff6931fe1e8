"""Device: an emulated machine's forwarding plane, and the walk over its elements.

The walk is one loop with a work list: take a packet at an element's input, call
`handle`, record the Step, apply its effects, apply its edits to make the packet
that the next element sees, queue its outputs. No element calls another, so a trace
costs no code in any element, and a circle is a verdict.

Order inside one walk: what was held and is settled now goes before the frames that
the element makes, and those before the packet's own outputs; each queue is first
in, first out.

Rule of this file: it is the only place that acts on a Step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from emunet.packet.edit import Complete, Pop, Push, Trim, apply
from emunet.packet.view import AT_FLOW, IPV6, PLAIN_IPV4, Packet
from emunet.plane.element import Element
from emunet.plane.faults import Faults
from emunet.plane.ledger import Ledger, PortFigures
from emunet.plane.reason import Reason
from emunet.plane.step import Output, Step, Verdict
from emunet.plane.table import NEVER, Counter, Table, Watch

STEP_LIMIT = 64
AT_BUILDING = 3
"""Beside `Packet.looked`: it puts a header in front that depends on the frame, and that may be taken off again."""
FAULT_PAUSE = 1_000_000_000
"""Nanoseconds for which an element whose timers have failed is not woken."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where an element's output leads.

    element  name of the next element, or "" to leave the device by `port`
    port     input of that element, or the device's port
    tap      interface whose observers see the packet pass here, or ""
    inbound  which way the packet passes that interface: True for up, into layer 3
    """

    element: str
    port: str
    tap: str = ""
    inbound: bool = False


Work = deque[tuple[Target, Packet]]
Situation = tuple[Any, ...]
"""Where a packet is in a device, and all about it that its flow has in common with others (`situation`)."""


@dataclass(slots=True)
class Closer:
    """A step of a recorded walk for which an element looked closer than at what flows between two stations share.

    place    the element and its input
    looked   how close; `situation`, `frame`: the packet when it came there
    leaned, passed   how many rows `Watch` had before the element decided, and how many after
    onward   where the packet was after it, and its bytes there; None where not everything is said with that
    """

    device: Device
    place: Target
    looked: int
    situation: Situation | None
    frame: bytes
    leaned: tuple[int, int]
    passed: int
    onward: tuple[Situation, bytes] | None = None


Transmit = Callable[["Device", str, Packet, int], None]
Observe = Callable[["Device", str, bool, Packet, int], None]


class Device:
    """Elements, how they are joined, and ports.

    off       it has no power: what reaches it is dropped, and its clocks stand still
    transmit  called with every packet that leaves by a port
    observe   called for packets that pass a tapped interface, where somebody watches
    identify  gives a number to a packet that is made here
    """

    def __init__(
        self,
        name: str,
        elements: dict[str, Element],
        wiring: dict[tuple[str, str], Target],
        entries: dict[str, Target],
        world_ledger: Ledger,
        watch: Watch,
    ) -> None:
        self.name = name
        self.elements = elements
        self.wiring = wiring
        self.entries = entries
        self.figures = Ledger()
        self.ports: dict[str, PortFigures] = {}
        self.settle: Callable[[], None] = _settled
        self.world_ledger = world_ledger
        self.transmit: Transmit = _nowhere
        self.observe: Observe | None = None
        self.identify: Callable[[], int] = _nobody_watches
        self.watched: set[str] = set()
        self.dry = False
        self.off = False
        self.watch = watch
        self.faults = Faults()
        self._resting: dict[str, int] = {}
        self._timed = [element for element in elements.values() if type(element).due is not Element.due]

    @property
    def ledger(self) -> Ledger:
        """Its counters, with every hit of the flow cache credited."""
        self.settle()
        return self.figures

    # Entry points

    def receive(self, entry: str, packet: Packet, now: int) -> None:
        """A packet comes in by a port (or is sent by the host's own sockets) at `entry`."""
        frames = packet.segments
        self.figures.received += frames
        self._count_port(entry, "received", frames)
        packet.hop = packet.trace.enter(self.name, entry, now) if packet.trace is not None else None
        if self.off:
            self._end(packet, Step("power", Verdict.DROP, Reason.DEVICE_OFF, {"device": self.name}), now)
            return
        target = self.entries[entry]
        self._walk(deque([(target, packet)]), now)

    def send(self, interface: str, packet: Packet, now: int) -> None:
        """A frame goes out by an interface as it is: what a packet socket does."""
        self.figures.received += packet.segments
        if self.off:
            self._end(packet, Step("power", Verdict.DROP, Reason.DEVICE_OFF, {"device": self.name}), now)
            return
        packet.local = True
        self._walk(deque([(self.wiring["neighbor", interface], packet)]), now)

    def decide(self, element: str, port: str, packet: Packet, now: int) -> tuple[Work, Situation | None]:
        """Let one element decide about a packet that was brought to it: what is to do then (`go_on`).

        And the situation of the packet, where that is all there is to do.
        """
        work: Work = deque()
        try:
            step = self.elements[element].handle(packet, port, now)
        except Exception as error:
            self._end(packet, self._fault(element, packet, error, now), now)
            return work, None
        if not _just_goes_on(step):
            self._act(packet, step, element, work, now)
            return work, None
        after = self._done(packet, step, element, now)
        if after is None:
            return work, None
        self._queue(after, element, step.outputs[0], work)
        return work, situation(*work[0])

    def go_on(self, work: Work, now: int) -> None:
        """Walk on from there."""
        self._walk(work, now)

    def wake(self, now: int) -> None:
        """Let every element whose time has come decide."""
        for element in list(self._timed) if not self.off else ():
            if self._due_of(element) > now:
                continue
            for packet, step in self._woken(element, now):
                work: Work = deque()
                if packet is None:
                    self._apply_effects(step, now)
                    self._emit(element.name, step, None, work)
                else:
                    self._settle(element.name, packet, step, work, now)
                self._walk(work, now)

    def due(self) -> int:
        """The earliest time at which an element wants to be woken (ns), or NEVER."""
        if self.off:
            return NEVER
        return min(map(self._due_of, list(self._timed)), default=NEVER)

    def _due_of(self, element: Element) -> int:
        try:
            due = element.due()
        except Exception as error:  # a fault of ours: its timers stand still from now on, all else goes on
            self.faults.note(self.name, element.name, error, b"", 0)
            self._timed.remove(element)
            return NEVER
        return max(due, self._resting[element.name]) if element.name in self._resting else due

    def _woken(self, element: Element, now: int) -> Iterator[tuple[Packet | None, Step]]:
        """What an element decides whose time has come."""
        try:
            yield from element.wake(now)
        except Exception as error:
            self.faults.note(self.name, element.name, error, b"", now)
            self._resting[element.name] = now + FAULT_PAUSE

    def state(self) -> Iterable[Table[Any, Any] | Counter]:
        """Every table and counter of its elements."""
        for element in self.elements.values():
            yield from element.state()

    # The walk

    def _walk(self, work: Work, now: int) -> None:
        budget = STEP_LIMIT * (len(work) + 1)
        while work:
            target, packet = work.popleft()
            if target.tap and target.tap in self.watched and self.observe is not None:
                self.observe(self, target.tap, target.inbound, packet, now)
            if not target.element:
                self._leave(target.port, packet, now)
                continue
            budget -= 1
            if budget < 0:
                limit = {"device": self.name, "steps": STEP_LIMIT}
                self._end(packet, Step(target.element, Verdict.DROP, Reason.STEP_LIMIT, limit), now)
                continue
            leaned = self.watch.leaned
            if leaned is not None:
                noted, before = len(leaned), packet.unkeyed
                packet.unkeyed, packet.looked = "", 0
            try:
                step = self.elements[target.element].handle(packet, target.port, now)
            except Exception as error:  # a fault of ours costs a frame, and not the lab
                self._end(packet, self._fault(target.element, packet, error, now), now)
                continue
            budget += len(step.outputs) * STEP_LIMIT if len(step.outputs) > 1 else 0
            budget += len(step.emissions) * STEP_LIMIT + len(step.settled) * STEP_LIMIT
            closer = None if leaned is None else self._look(target, packet, step, noted, before)
            self._act(packet, step, target.element, work, now)
            if closer is not None and len(work) == 1 and _just_goes_on(step):
                found = situation(*work[0])
                closer.onward = None if found is None else (found, work[0][1].frame)

    def _look(self, place: Target, packet: Packet, step: Step, noted: int, before: str) -> Closer | None:
        """Note in a walk that is recorded how close an element has looked that has just decided.

        `noted`: how many rows had been leaned on until then; `before`: why the packet was not keyed any more.
        """
        watch = self.watch
        assert watch.leaned is not None
        assert watch.steps is not None
        assert watch.passed is not None
        assert watch.closer is not None
        looked = AT_FLOW if packet.unkeyed else packet.looked
        packet.unkeyed = packet.unkeyed or before
        for edit in step.edits:
            if isinstance(edit, Push):
                looked = looked or AT_BUILDING
        if not looked:
            return None
        rows = (noted, len(watch.leaned))
        closer = Closer(self, place, looked, situation(place, packet), packet.frame, rows, len(watch.passed))
        watch.closer[len(watch.steps)] = closer
        return closer

    def _act(self, packet: Packet, step: Step, element: str, work: Work, now: int) -> None:
        if packet.hop is not None:
            packet.hop.steps.append(step)
        if self.watch.steps is not None:
            self.watch.steps.append((self, step, packet))
        after = self._done(packet, step, element, now)
        if after is None:
            return
        for held, decision in step.settled:
            self._settle(element, held, decision, work, now)
        self._emit(element, step, packet, work)
        verdict = step.verdict
        if verdict is Verdict.FORWARD:
            self._send_on(after, step, element, work)
        elif verdict is Verdict.DROP:
            self._count_drop(packet, step, now)
        elif verdict is Verdict.CONSUME:
            frames = packet.segments
            self.figures.consumed += frames
            self.world_ledger.consumed += frames
        elif verdict is Verdict.HOLD:
            frames = packet.segments
            self.figures.queued += frames
            self.world_ledger.queued += frames

    def _done(self, packet: Packet, step: Step, element: str, now: int) -> Packet | None:
        """The packet after a step, whose effects have been applied; None where that failed, and it has ended."""
        try:
            after = edited(packet, step.edits) if step.edits and step.verdict is Verdict.FORWARD else packet
            for effect in step.effects:
                effect.apply(now)
        except Exception as error:
            self._end(packet, self._fault(element, packet, error, now), now)
            return None
        return after

    def _send_on(self, packet: Packet, step: Step, element: str, work: Work) -> None:
        outputs = step.outputs
        if len(outputs) == 1 and outputs[0].frame is None:
            self._queue(packet, element, outputs[0], work)
            return
        before, after = packet.segments, 0
        for output in outputs:
            branch = packet.copy(output.frame)
            if output.frame is not None:
                branch.offload = None
            after += branch.segments
            self._queue(branch, element, output, work)
        # Cutting a superframe makes no wire frame that was not counted when it came in.
        self.figures.copied += after - before
        self.world_ledger.copied += after - before

    def _queue(self, packet: Packet, element: str, output: Output, work: Work) -> None:
        for name, value in output.marks.items():
            setattr(packet, name, value)
        work.append((self.wiring[element, output.name], packet))

    def _emit(self, element: str, step: Step, cause: Packet | None, work: Work) -> None:
        for emission in step.emissions:
            self.figures.generated += 1
            self.world_ledger.generated += 1
            packet = Packet(emission.frame)
            packet.identity = self.identify()
            packet.local = True
            if cause is not None:
                packet.hops = cause.hops
            self._queue(packet, element, Output(emission.output, emission.marks), work)

    def _settle(self, element: str, packet: Packet, step: Step, work: Work, now: int) -> None:
        """A packet that was held is decided about. A dry run leaves alone what really waits."""
        if self.dry and packet.trace is None:
            return
        frames = packet.segments
        self.figures.queued -= frames
        self.world_ledger.queued -= frames
        self._act(packet, step, element, work, now)

    def _leave(self, port: str, packet: Packet, now: int) -> None:
        frames = packet.segments
        self.figures.delivered += frames
        self._count_port(port, "sent", frames)
        self.transmit(self, port, packet, now)

    def _count_port(self, port: str, name: str, frames: int) -> None:
        if self.dry:
            return
        figures = self.ports.get(port)
        if figures is None:
            figures = self.ports[port] = PortFigures()
        setattr(figures, name, getattr(figures, name) + frames)
        if self.watch.passed is not None:
            self.watch.passed.append((figures, name))

    def _apply_effects(self, step: Step, now: int) -> None:
        for effect in step.effects:
            effect.apply(now)

    def _fault(self, element: str, packet: Packet, error: Exception, now: int) -> Step:
        """What becomes of a packet on which an element failed."""
        self.faults.note(self.name, element, error, packet.frame, now)
        said = {"element": element, "device": self.name, "error": f"{type(error).__name__}: {error}"}
        return Step(element, Verdict.DROP, Reason.ELEMENT_FAULT, said)

    def _end(self, packet: Packet, step: Step, now: int) -> None:
        if packet.hop is not None:
            packet.hop.steps.append(step)
        if self.watch.steps is not None:
            self.watch.steps.append((self, step, packet))
        self._count_drop(packet, step, now)

    def _count_drop(self, packet: Packet, step: Step, now: int) -> None:
        frames = packet.segments
        self.figures.drop(step.reason, frames)
        self.world_ledger.drop(step.reason, frames)
        if packet.record is not None:
            packet.record.dropped(self.name, step, now)


def edited(packet: Packet, edits: Any) -> Packet:
    """The packet after edits, with offload offsets moved along with pushes and pops."""
    after = packet.copy(apply(packet.frame, edits, packet.offload is not None))
    if after.offload is not None:
        for edit in edits:
            if isinstance(edit, Complete):
                after.offload = None
                break
            if isinstance(edit, Push):
                after.offload = after.offload.shifted(len(edit.data))
            elif isinstance(edit, Pop):
                after.offload = after.offload.shifted(-edit.length)
    return after


def situation(place: Target, packet: Packet) -> Situation | None:
    """All that a flow has in common with others whose packets are in the same place; None: that cannot be said.

    Elements that do not look closer decide by this, by tables and by lengths alone.
    """
    frame = packet.frame
    if packet.fragments is not None:
        return None
    if frame[12:15] == PLAIN_IPV4:
        shared = (frame[:16], frame[20:24], frame[26:34])
    elif frame[12:14] == IPV6:
        shared = (frame[:18], frame[20:54], b"")
    else:
        return None
    return (
        place.element, place.port, packet.entered, packet.interface, packet.egress, packet.next_hop, packet.bridged,
        packet.local, packet.is_tracked, packet.offload is None, *shared,
    )  # fmt: skip


def _just_goes_on(step: Step) -> bool:
    """Whether the packet goes on, as one, and nothing else happens that goes anywhere.

    What comes to light where a header is taken off is another packet: nobody has looked whether it is sound.
    """
    single = step.verdict is Verdict.FORWARD and len(step.outputs) == 1 and step.outputs[0].frame is None
    if not single or step.emissions or step.settled:
        return False
    return not step.edits or all(not isinstance(edit, (Pop, Trim)) for edit in step.edits)


def bring(packet: Packet, found: Situation) -> None:
    """Note on a packet what it has in a situation."""
    _, _, packet.entered, packet.interface, packet.egress, packet.next_hop, packet.bridged, packet.local = found[:8]


def _nowhere(device: Device, port: str, packet: Packet, now: int) -> None:
    raise RuntimeError(f"{device.name} was never placed in a World: nothing is attached to {port}")


def _nobody_watches() -> int:
    return 0


def _settled() -> None:
    """Nothing waits to be credited."""
