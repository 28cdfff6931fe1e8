"""The walk: order, copies, what an element makes and what it lets go, an end to circles, and what a dry run leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from emunet.packet.edit import Pop, Push, Put
from emunet.packet.offload import GSO_TCPV4, NEEDS_CSUM, Offload
from emunet.packet.view import Packet
from emunet.plane.device import STEP_LIMIT, Device, Target
from emunet.plane.element import Element
from emunet.plane.ledger import Ledger
from emunet.plane.reason import Reason
from emunet.plane.step import Emission, Output, Step, Verdict, consume, drop, forward
from emunet.plane.table import NEVER, Watch
from emunet.plane.trace import Trace

FRAME = bytes(range(12)) + b"\x08\x00" + bytes(50)


class Does(Element):
    """An element that does what a function says."""

    def __init__(self, name: str, decide: Callable[[Packet, str, int], Step]) -> None:
        self.name = name
        self.decide = decide
        self.woken: list[tuple[Packet | None, Step]] = []
        self.rings = NEVER

    def handle(self, packet: Packet, port: str, now: int) -> Step:
        return self.decide(packet, port, now)

    def due(self) -> int:
        return self.rings

    def wake(self, now: int) -> Iterable[tuple[Packet | None, Step]]:
        self.rings = NEVER
        return self.woken


class Rig:
    """A device of such elements; `x.y` in the wiring leads where the test says; what leaves is noted."""

    def __init__(self, wiring: dict[str, str], **elements: Callable[[Packet, str, int], Step]) -> None:
        self.left: list[tuple[str, bytes]] = []
        self.world = Ledger()
        self.watch = Watch()
        self.elements = {name: Does(name, decide) for name, decide in elements.items()}
        self.device = Device(
            "d",
            dict(self.elements),
            {tuple(way.split(".")): self.target(to) for way, to in wiring.items()},  # type: ignore[misc]
            {"in": self.target("first.in")},
            self.world,
            self.watch,
        )
        self.device.transmit = lambda device, port, packet, now: self.left.append((port, packet.frame))

    @staticmethod
    def target(text: str) -> Target:
        element, _, port = text.partition(".")
        return Target("" if element == "port" else element, port)

    def receive(self, frame: bytes = FRAME, offload: Offload | None = None) -> Trace:
        packet = Packet(frame, offload)
        packet.trace = Trace()
        self.device.receive("in", packet, 0)
        assert self.device.ledger.balance == 0, self.device.ledger.as_dict()
        return packet.trace


def on(name: str, output: str = "out", **marks: object) -> Step:
    return forward(name, Reason.NO_POLICY, output, marks)


def test_edits_are_made_between_elements_and_the_step_is_recorded() -> None:
    seen = []

    def first(packet: Packet, port: str, now: int) -> Step:
        step = on("first")
        step.edits = (Put(0, b"\xff", "first byte"), Push(b"ab"), Pop(1))
        return step

    def second(packet: Packet, port: str, now: int) -> Step:
        seen.append((packet.frame, port))
        return on("second")

    rig = Rig({"first.out": "second.way", "second.out": "port.p"}, first=first, second=second)
    trace = rig.receive()
    changed = b"b\xff" + FRAME[1:]
    assert seen == [(changed, "way")]
    assert rig.left == [("p", changed)]
    assert [step.element for step in trace.steps] == ["first", "second"]
    assert rig.device.ledger.as_dict() == Ledger().as_dict() | {"received": 1, "delivered": 1}


def test_a_circle_ends_with_a_reason() -> None:
    rig = Rig({"first.out": "first.in"}, first=lambda packet, port, now: on("first"))
    trace = rig.receive()
    assert trace.codes[-1] == "STEP_LIMIT"
    assert len(trace.codes) == 2 * STEP_LIMIT + 1
    assert rig.device.ledger.reasons == {"STEP_LIMIT": 1}
    assert rig.world.reasons == {"STEP_LIMIT": 1}


def test_a_circle_that_makes_copies_ends_too() -> None:
    def first(packet: Packet, port: str, now: int) -> Step:
        if port == "in":
            return Step("first", Verdict.FORWARD, Reason.NO_POLICY, {}, [Output("a"), Output("b")])
        return on("first", "again")

    rig = Rig({"first.a": "first.loop", "first.b": "first.loop", "first.again": "first.loop"}, first=first)
    trace = rig.receive()
    assert trace.codes.count("STEP_LIMIT") == 2


def test_copies_are_counted_and_each_has_its_marks_and_its_bytes() -> None:
    def first(packet: Packet, port: str, now: int) -> Step:
        outputs = [Output("a", {"egress": "x"}), Output("b", {"egress": "y"}, frame=FRAME[:20]), Output("a")]
        return Step("first", Verdict.FORWARD, Reason.NO_POLICY, {}, outputs)

    rig = Rig({"first.a": "port.p", "first.b": "port.q"}, first=first)
    rig.receive()
    assert rig.left == [("p", FRAME), ("q", FRAME[:20]), ("p", FRAME)]
    assert rig.device.ledger.copied == rig.world.copied == 2


def test_cutting_a_superframe_makes_no_frame_that_was_not_counted() -> None:
    offload = Offload(NEEDS_CSUM, GSO_TCPV4, 54, 10, 34, 16)
    superframe = bytes(12) + b"\x08\x00" + b"\x45" + bytes(39) + bytes(30)
    assert offload.segments(len(superframe)) == 3

    def first(packet: Packet, port: str, now: int) -> Step:
        outputs = [Output("a", frame=superframe[:64]) for _ in range(3)]
        return Step("first", Verdict.FORWARD, Reason.NO_POLICY, {}, outputs)

    rig = Rig({"first.a": "port.p"}, first=first)
    rig.receive(superframe, offload)
    ledger = rig.device.ledger
    assert (ledger.received, ledger.copied, ledger.delivered) == (3, 0, 3)


def test_what_an_element_makes_goes_before_the_packet_itself() -> None:
    def first(packet: Packet, port: str, now: int) -> Step:
        step = on("first")
        step.emissions = (Emission(b"made" * 5, "out"),)
        return step

    rig = Rig({"first.out": "port.p"}, first=first)
    rig.receive()
    assert rig.left == [("p", b"made" * 5), ("p", FRAME)]
    assert rig.device.ledger.generated == rig.world.generated == 1


def test_held_packets_are_queued_until_they_are_settled_and_go_first() -> None:
    held: list[Packet] = []

    def first(packet: Packet, port: str, now: int) -> Step:
        if not held:
            held.append(packet)
            return Step("first", Verdict.HOLD, Reason.NEIGHBOR_ASKED, {})
        step = on("first")
        step.settled = [(held[0], on("first"))]
        return step

    rig = Rig({"first.out": "port.p"}, first=first)
    trace = rig.receive()
    assert trace.verdict == "queued"
    assert rig.device.ledger.queued == rig.world.queued == 1
    rig.receive(FRAME + b"later")
    assert [frame for _, frame in rig.left] == [FRAME, FRAME + b"later"]
    assert rig.device.ledger.queued == rig.world.queued == 0
    assert trace.codes == ["NEIGHBOR_ASKED", "NO_POLICY"]


def test_what_time_decides_is_acted_on_one_by_one() -> None:
    held: list[Packet] = []

    def first(packet: Packet, port: str, now: int) -> Step:
        held.append(packet)
        return Step("first", Verdict.HOLD, Reason.NEIGHBOR_ASKED, {})

    rig = Rig({"first.out": "port.p"}, first=first)
    trace = rig.receive()
    element = rig.elements["first"]
    element.rings = 5
    assert rig.device.due() == 5
    rig.device.wake(4)
    assert rig.left == []
    said = consume("first", Reason.TIMER, what="rings")
    said.emissions = (Emission(b"asks again" * 2, "out"),)
    element.woken = [(None, said), (held[0], drop("first", Reason.NEIGHBOR_QUEUE_FULL, address=b"", interface="x"))]
    rig.device.wake(5)
    assert rig.left == [("p", b"asks again" * 2)]
    assert trace.codes == ["NEIGHBOR_ASKED", "NEIGHBOR_QUEUE_FULL"]
    ledger = rig.device.ledger
    assert (ledger.queued, ledger.dropped, ledger.generated, ledger.consumed) == (0, 1, 1, 0)
    assert ledger.balance == 0


def test_a_dry_run_leaves_alone_what_really_waits() -> None:
    waits = Packet(FRAME)
    rig = Rig({"first.out": "port.p"}, first=lambda packet, port, now: on("first"))
    rig.device.figures.received = rig.device.figures.queued = 1
    rig.elements["first"].woken = [(waits, drop("first", Reason.NEIGHBOR_QUEUE_FULL, address=b"", interface="x"))]
    rig.elements["first"].rings = 5
    rig.device.dry = True
    rig.device.wake(5)
    assert rig.device.ledger.dropped == 0
    assert rig.device.ledger.queued == 1


def test_a_device_that_is_in_no_world_says_so() -> None:
    device = Device("d", {}, {}, {"in": Target("", "p")}, Ledger(), Watch())
    with pytest.raises(RuntimeError, match="d was never placed in a World"):
        device.receive("in", Packet(FRAME), 0)


def test_who_watches_an_interface_sees_what_passes_it() -> None:
    seen = []
    rig = Rig({"first.out": "port.p"}, first=lambda packet, port, now: on("first"))
    rig.device.wiring["first", "out"] = Target("", "p", tap="cni0", inbound=True)
    rig.device.observe = lambda device, tap, inbound, packet, now: seen.append((tap, inbound, packet.frame))
    rig.receive()
    assert seen == []
    rig.device.watched.add("cni0")
    rig.receive()
    assert seen == [("cni0", True, FRAME)]
