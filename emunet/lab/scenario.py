"""A scenario played on memory wires, in time that jumps: an hour of it takes seconds.

Every event is due at its own moment of lab time, every datagram too; nothing waits for a
clock, and the same scenario with the same seed is the same, to the byte, on every machine.

Rule of this file: it uses a `Lab` as any test could.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from emunet.cluster.scenario import Event, FlowWish, Scenario, check_names
from emunet.lab.lab import Lab
from emunet.lab.traffic import Flow, Traffic
from emunet.lab.trouble import Trouble, WireChange

SECOND = 1_000_000_000
SETTLING = 2 * SECOND
"""How long what is on its way may take to arrive once nothing more is sent."""
_STRETCHES = 100


class ScenarioFailed(Exception):
    """An event could not be done: its place in the file, and the sentence."""


@dataclass(slots=True)
class Played:
    """What happened. `events` are (lab time in ns, words); `flows` as `Outcome.as_dict` tells them."""

    scenario: str
    lab: str
    wires: str
    seed: int
    began: int
    duration: int
    events: list[tuple[int, str]] = field(default_factory=list)
    flows: list[dict[str, Any]] = field(default_factory=list)
    frames: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON, and for `figure`."""
        return {
            "scenario": self.scenario,
            "lab": self.lab,
            "wires": self.wires,
            "seed": self.seed,
            "began_ns": self.began,
            "duration_ns": self.duration,
            "events": [{"at_ns": at, "what": what} for at, what in self.events],
            "flows": self.flows,
            "frames": self.frames,
        }


def flow_of(wish: FlowWish) -> Flow:
    """A flow of a scenario as `traffic` takes it."""
    return Flow(wish.name, wish.source, wish.target, wish.interval, wish.size, wish.late, wish.random)


def wire_change(arguments: dict[str, Any]) -> WireChange:
    """The arguments of an event about a link, as a change of that wire."""
    return WireChange(dict(arguments.get("set", {})), arguments.get("from"), arguments.get("up"), arguments.get("flap"))


def do(trouble: Trouble, event: Event, now: int) -> None:
    """Let an event happen. ValueError or UnknownPort where it cannot."""
    said = dict(event.arguments)
    match event.act:
        case "link":
            trouble.change_wire(event.subject, wire_change(said))
        case "power":
            trouble.set_power(event.subject, on=said["on"])
        case "partition":
            trouble.part(said["groups"])
        case "freeze":
            trouble.freeze(event.subject, now, frozen=said["frozen"])
        case "dns":
            trouble.set_names(now, on=said["on"])
        case "exhaust":
            trouble.limit_table(event.subject, said["table"], said["capacity"])


def play(
    scenario: Scenario,
    *,
    seed: int | None = None,
    flow_cache: bool = True,
    capture: str | os.PathLike[str] | None = None,
    ports: Sequence[str] = (),
    progress: Callable[[float], None] | None = None,
) -> Played:
    """Play a scenario on its own topology. `progress` hears how much of it is done, 0 to 1.

    `capture`: what passes `ports` (all, where none are named) goes to that file. BadInput where the scenario speaks
    of what its topology has not, ScenarioFailed where an event cannot be done.
    """
    chosen = scenario.seed if seed is None else seed
    with Lab(scenario.topology, seed=chosen, flow_cache=flow_cache) as lab:
        check_names(scenario, lab.desired)
        world = lab.plane.world
        began = lab.clock.now
        played = Played(scenario.name, lab.desired.cluster.name, "memory", chosen, began, scenario.duration)
        watched = nullcontext() if capture is None else lab.capture(list(ports) or lab.ports, capture)
        with watched:
            for event in scenario.events:
                world.at(began + event.at, _happening(lab, event, played))
            traffic = Traffic(lab.plane, [flow_of(wish) for wish in scenario.flows], began, scenario.duration)
            powers = [event for event in scenario.events if event.act == "power"]
            stretches = [scenario.duration * number // _STRETCHES for number in range(1, _STRETCHES + 1)]
            for moment in sorted({*stretches, *(event.at for event in powers)}):
                lab.clock.advance_to(began + moment)
                for event in powers:
                    if event.at == moment:
                        lab.notice_power(event.subject, on=event.arguments["on"])
                if progress is not None:
                    progress(moment / scenario.duration)
            traffic.stop()
            lab.clock.advance_to(began + scenario.duration + SETTLING)
            traffic.end()
        played.flows = [outcome.as_dict() for outcome in traffic.outcome()]
        played.frames = lab.counters()
    return played


def _happening(lab: Lab, event: Event, played: Played) -> Callable[[int], None]:
    def happen(now: int) -> None:
        try:
            do(lab.plane.trouble, event, now)
        except (ValueError, KeyError) as error:
            raise ScenarioFailed(f"{event.place}: {error}") from None
        played.events.append((now, event.words))

    return happen
