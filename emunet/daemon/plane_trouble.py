"""What the plane process does when it is asked for trouble: each request, in words of plain values.

Rule of this file: it passes on to `lab.trouble`, and says at which lab time that was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from emunet.lab.plane import Plane
from emunet.lab.trouble import WireChange
from emunet.linux.loop import Loop

Answer = Callable[[Any], None]
Call = Callable[[dict[str, Any], list[int], Answer], None]


def trouble_calls(plane: Plane, loop: Loop) -> dict[str, Call]:
    """The requests by their names."""

    def timed(do: Callable[[dict[str, Any], int], dict[str, Any] | None]) -> Call:
        def call(body: dict[str, Any], descriptors: list[int], answer: Answer) -> None:
            now = loop.now()
            plane.world.now = max(plane.world.now, now)
            done = do(body, now)
            answer({"at_ns": now} | (done or {}))

        return call

    def wires(body: dict[str, Any], descriptors: list[int], answer: Answer) -> None:
        answer(plane.trouble.wires())

    def trouble(body: dict[str, Any], now: int) -> dict[str, Any]:
        asked = plane.trouble
        return {"powered": asked.powered(), "frozen": asked.frozen(), "groups": asked.groups()}

    return {
        "wires": wires,
        "trouble": timed(trouble),
        "now": timed(lambda body, now: None),
        "change_wire": timed(lambda body, now: plane.trouble.change_wire(body["wire"], WireChange(**body["change"]))),
        "partition": timed(lambda body, now: plane.trouble.part(body["groups"])),
        "power": timed(lambda body, now: plane.trouble.set_power(body["device"], on=body["on"])),
        "freeze": timed(lambda body, now: plane.trouble.freeze(body["pod"], now, frozen=body["frozen"])),
        "limit_table": timed(
            lambda body, now: plane.trouble.limit_table(body["device"], body["table"], body.get("capacity"))
        ),
    }
