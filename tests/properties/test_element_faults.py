"""Whatever element fails, the lab lives: the frames that are lost there are counted, explained and told."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from emunet.packet.view import Packet
from emunet.plane.element import Element
from emunet.plane.faults import KINDS_MAX, Fault, Faults
from emunet.plane.step import Step
from emunet.testing import Lab

TOPOLOGY = Path(__file__).parents[2] / "topologies" / "dual-stack.yaml"

UNMET = ("isolation",)
"""Elements that the traffic of these tests does not meet: they are for the networks of container engines."""


class Boom(Exception):
    """What no element means to raise."""


@cache
def elements() -> list[tuple[str, str]]:
    """Every element of a host and of a switch."""
    with Lab(TOPOLOGY) as lab:
        devices = {name: device for name, device in lab.plane.world.devices.items() if name in ("host1", "switch1")}
        assert len(devices) == 2
        return [(name, element) for name, device in devices.items() for element in device.elements]


def raising(*_: Any, **__: Any) -> Any:
    """In place of a method."""
    raise Boom("on purpose")


@pytest.fixture
def told() -> list[Fault]:
    """What was told of faults."""
    return []


def broken_lab(told: list[Fault]) -> Lab:
    """A lab that keeps what it is told of its faults."""
    lab = Lab(TOPOLOGY)
    lab.plane.world.faults.tell = told.append
    return lab


def traffic(lab: Lab) -> list[bool]:
    """Between hosts and on one, both families, and time for every timer."""
    return [
        bool(lab.ping(*pair, family=family))
        for family in (4, 16)
        for pair in (("web-1", "web-2"), ("web-1", "web-3"), ("host1", "web-3"))
    ]


def lawful(lab: Lab) -> bool:
    """Every frame is accounted for."""
    return set(lab.plane.balance().values()) == {0}


@pytest.mark.parametrize(("device", "element"), elements(), ids=lambda value: str(value))
def test_any_element_may_raise(device: str, element: str, told: list[Fault], monkeypatch: pytest.MonkeyPatch) -> None:
    with broken_lab(told) as lab:
        broken = lab.plane.world.devices[device].elements[element]
        with monkeypatch.context() as patch:
            for method in ("handle", "wake"):
                patch.setattr(type(broken), method, method_for(broken, getattr(type(broken), method)))
            traffic(lab)
            assert lawful(lab)
            faults = lab.plane.counters()["faults"]
            lost = lab.counters()["reasons"].get("ELEMENT_FAULT", 0)
            assert {(fault["device"], fault["element"]) for fault in faults} <= {(device, element)}
            assert lost or element in UNMET, "else this test has seen nothing"
            assert bool(faults) == bool(told) == bool(lost)
        lab.clock.advance(400)  # what waited for an answer, and what learned nothing, has been forgotten
        assert all(traffic(lab)), "once it decides again, all is as before"
        assert lawful(lab)


def method_for(broken: Element, before: Any) -> Any:
    """The method of one element raises; others of its class go on."""

    def method(self: Element, *arguments: Any) -> Any:
        return raising() if self is broken else before(self, *arguments)

    return method


def test_a_fault_is_a_drop_that_explains_itself(told: list[Fault], monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test above relies on: its traffic meets elements, and a fault is a drop that explains itself."""
    with broken_lab(told) as lab:
        monkeypatch.setattr(lab.plane.world.devices["host1"].elements["cni0"], "handle", raising, raising=True)
        pong = lab.ping("web-1", "web-2")
        assert not pong
        assert lab.counters()["reasons"]["ELEMENT_FAULT"] > 0
        trace = lab.trace("web-1", echo(lab))
        assert trace.verdict == "dropped"
        assert "cni0 of host1 failed on it (Boom: on purpose): a fault of emunet" in trace.as_text()
        assert told[0].frame
        assert "raise Boom" in told[0].trace
        assert told[0].frame.hex() in told[0].as_text()


def echo(lab: Lab) -> bytes:
    """An echo request between two pods of one host."""
    from emunet.daemon.pings import echo_packet

    return echo_packet(lab.address("web-1"), lab.address("web-2"))


def test_effects_and_edits_that_fail(told: list[Fault], monkeypatch: pytest.MonkeyPatch) -> None:
    """A decision that cannot be carried out is a fault of whoever made it."""

    class Effect:
        def apply(self, now: int) -> None:
            raising()

    with broken_lab(told) as lab:
        element = lab.plane.world.devices["switch1"].elements["bridge"]
        before = element.handle

        def handle(packet: Packet, port: str, now: int) -> Step:
            step = before(packet, port, now)
            step.effects = (Effect(),)
            return step

        monkeypatch.setattr(element, "handle", handle)
        assert not lab.ping("web-1", "web-3")
        assert lawful(lab)
        assert {(fault.device, fault.element) for fault in told} == {("switch1", "bridge")}


def test_timers_that_fail_again_and_again(told: list[Fault], monkeypatch: pytest.MonkeyPatch) -> None:
    """`wake` is tried once a second; a `due` that raises is never asked again; neither stops the clock."""
    with broken_lab(told) as lab:
        device = lab.plane.world.devices["host1"]
        neighbor = next(one for one in device.elements.values() if "neighbor" in one.name)
        lab.ping("web-1", "web-3")
        monkeypatch.setattr(neighbor, "wake", raising)
        monkeypatch.setattr(neighbor, "due", lambda: 0)
        lab.plane.world._look_at_device(device)
        lab.clock.advance(10)
        assert 9 <= lab.plane.counters()["faults"][0]["count"] <= 11
        monkeypatch.setattr(neighbor, "due", raising)
        assert lab.ping("web-1", "web-3")
        assert lab.ping("web-1", "web-2")
        assert [fault["count"] for fault in lab.plane.counters()["faults"]][-1] >= 1


def test_a_fault_is_told_ever_more_rarely_and_faults_are_bounded() -> None:
    told: list[int] = []
    faults = Faults(lambda fault: told.append(fault.count))
    for _ in range(1000):
        faults.note("host1", "x", Boom("the same"), b"", 0)
    assert told == [1, 10, 100, 1000]
    for number in range(2 * KINDS_MAX):
        faults.note("host1", "x", Boom(str(number)), b"", 0)
    rows = faults.as_list()
    assert len(rows) == KINDS_MAX + 1
    assert sum(row["count"] for row in rows) == 1000 + 2 * KINDS_MAX


def test_where_nobody_keeps_a_log_it_is_a_warning() -> None:
    with pytest.warns(RuntimeWarning, match="x of host1 failed; the frame was 00"):
        Faults().note("host1", "x", Boom("?"), b"\0", 0)
