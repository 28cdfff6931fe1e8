"""What the plane process does when it is asked for trouble: each request, in words of plain values.

Rule of this file: it passes on to `lab.trouble`, and says at which lab time that was.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, BinaryIO

from emunet.fabric.recording import Recorder
from emunet.lab.plane import Plane
from emunet.lab.traffic import Flow, Traffic
from emunet.lab.trouble import WireChange
from emunet.linux.loop import Loop

Answer = Callable[[Any], None]
Call = Callable[[dict[str, Any], list[int], Answer], None]


class _Flows:
    """The flows that are watched just now, if any are."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._traffic: Traffic | None = None
        self._paused: set[str] = set()

    def begin(self, body: dict[str, Any], now: int) -> None:
        """Send and watch these, instead of those before."""
        if self._traffic is not None:
            self._traffic.end()
            self._traffic = None
        self._traffic = Traffic(self._plane, [Flow(**one) for one in body["flows"]], now, body["duration"])
        self._traffic.paused = self._paused

    def tell(self, body: dict[str, Any], now: int) -> dict[str, Any]:
        """What became of them until now. With `stop` nothing more is sent."""
        if self._traffic is None:
            raise ValueError("no flow is watched")
        if body.get("stop"):
            self._traffic.stop()
        return {"flows": [outcome.as_dict() for outcome in self._traffic.outcome()]}

    def end(self, body: dict[str, Any], now: int) -> None:
        """Watch them no more."""
        if self._traffic is not None:
            self._traffic.end()
            self._traffic = None

    def pause(self, body: dict[str, Any], now: int) -> None:
        """The programs of a pod are stopped, or go on: its flows with them."""
        (self._paused.add if body["paused"] else self._paused.discard)(body["pod"])


class _Recordings:
    """The recording that is being made, if one is."""

    def __init__(self, plane: Plane, loop: Loop) -> None:
        self._plane = plane
        self._loop = loop
        self._file: BinaryIO | None = None

    def begin(self, body: dict[str, Any], descriptors: list[int], answer: Answer) -> None:
        """Record into the file that comes with the request, from the next frame on."""
        file = os.fdopen(descriptors[0], "wb", buffering=1 << 20)
        world = self._plane.world
        if world.recorder is not None:
            file.close()
            raise ValueError("this lab is being recorded already: one recording at a time")
        self._file = file
        now = self._loop.now()
        world.now = max(world.now, now)
        epoch = time.time_ns() - now
        self._plane.record(Recorder(file, world.seed, flow_cache=world.flows.enabled, epoch=epoch))
        answer({"at_ns": now})

    def end(self, body: dict[str, Any], descriptors: list[int], answer: Answer) -> None:
        """Record no more."""
        recorder = self._plane.world.recorder
        if recorder is None or self._file is None:
            raise ValueError("this lab is not being recorded")
        self._plane.end_recording()
        self._file.close()
        self._file = None
        answer({"at_ns": self._loop.now(), "inputs": recorder.inputs})


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

    flows, recordings = _Flows(plane), _Recordings(plane, loop)
    return {
        "begin_flows": timed(flows.begin),
        "flows": timed(flows.tell),
        "end_flows": timed(flows.end),
        "record": recordings.begin,
        "end_record": recordings.end,
        "pause": timed(flows.pause),
        "wires": wires,
        "trouble": timed(trouble),
        "change_wire": timed(lambda body, now: plane.trouble.change_wire(body["wire"], WireChange(**body["change"]))),
        "partition": timed(lambda body, now: plane.trouble.part(body["groups"])),
        "power": timed(lambda body, now: plane.trouble.set_power(body["device"], on=body["on"])),
        "name_servers": timed(lambda body, now: plane.trouble.set_names(now, on=body["on"])),
        "freeze": timed(lambda body, now: plane.trouble.freeze(body["pod"], now, frozen=body["frozen"])),
        "limit_table": timed(
            lambda body, now: plane.trouble.limit_table(body["device"], body["table"], body.get("capacity"))
        ),
    }
