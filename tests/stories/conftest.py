"""Every step that a story causes can say why: its reason's sentence is filled in, whoever reads it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest

from emunet.plane.device import Device
from emunet.plane.reason import Kind, Reason
from emunet.plane.step import Step, Verdict

ENDS = {Verdict.DROP: Kind.DROPPED, Verdict.CONSUME: Kind.CONSUMED, Verdict.HOLD: Kind.HELD}

SEVERAL = (Reason.TIMER, Reason.REASSEMBLED)
"""What goes with more than one verdict: the last fragment goes on as the datagram that the others were kept for."""


def _say(step: Step) -> None:
    assert "{" not in step.why
    kind = step.reason.kind
    if step.reason not in SEVERAL:
        assert kind is ENDS.get(step.verdict, Kind.PASS), step


@pytest.fixture(autouse=True)
def _every_step_says_why() -> Iterator[None]:
    act = Device._act

    def saying(self: Device, packet: Any, step: Step, *rest: Any) -> None:
        _say(step)
        act(self, packet, step, *rest)

    with mock.patch.object(Device, "_act", saying):
        yield
