"""Questions to a trace that read like the question, and answers that show the trace.

    assert lab.trace("web-1", packet).dropped_by(reason="NO_ROUTE")
    assert lab.trace("web-1", packet).dropped_by(policy="default/deny-all", device="host2")
    assert lab.trace("web-1", packet).reaches("web-3").by("host1", "switch1", "host2")

Rule of this file: an answer is true or false and says why; it never raises.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from emunet.plane.reason import Reason, describe
from emunet.plane.step import Step, Verdict
from emunet.plane.trace import Trace


class Answer:
    """True or false, with the sentence of it and the whole trace."""

    def __init__(self, holds: bool, said: str, trace: Explained) -> None:
        self.holds = holds
        self.said = said
        self.trace = trace

    def __bool__(self) -> bool:
        return self.holds

    def __repr__(self) -> str:
        return f"<{self.said}>"

    def by(self, *devices: str) -> Answer:
        """And went through exactly these devices, in this order."""
        if not self.holds:
            return self
        way = self.trace.devices
        said = f"{self.said} by {' → '.join(way)}"
        return Answer(
            way == list(devices), said if way == list(devices) else f"{said}, not {' → '.join(devices)}", self.trace
        )


class Explained(Trace):
    """A trace that can be asked."""

    def __repr__(self) -> str:
        return f"<{self.verdict}: {self.sentence}>"

    @classmethod
    def of(cls, trace: Trace) -> Explained:
        """The same trace; where it is still going on, this one goes on with it."""
        return cls(trace.hops)

    @property
    def devices(self) -> list[str]:
        """The devices that it went through, in order."""
        names = [hop.device for hop in self.hops]
        return [name for number, name in enumerate(names) if number == 0 or names[number - 1] != name]

    def dropped_by(
        self, reason: str | Reason | None = None, *, element: str | None = None, device: str | None = None, **what: Any
    ) -> Answer:
        """Whether it was dropped, for that reason, by that element of that device, and by what the reason names.

        `what` are arguments of the reason's sentence, as text: `policy="default/deny-all"`, `mtu=1450`. Of several
        policies that isolate a pod each may be named.
        """
        wanted = [
            f"{name}={value}" for name, value in [("element", element), ("device", device), *what.items()] if value
        ]
        name = reason.name if isinstance(reason, Reason) else reason
        told = " ".join([*([name] if name else []), *wanted]) or "anything"
        last = self.last
        if last is None or self.verdict != "dropped":
            return Answer(False, f"not dropped by {told}: {self.verdict}: {self.sentence}", self)
        place = next((hop.device for hop in self.hops if last in hop.steps), "")
        known: dict[str, Any] = {key: describe(value) for key, value in last.arguments.items()}
        fits = (
            (name is None or last.reason.name == name)
            and (element is None or last.element == element)
            and (device is None or place == device)
            and all(
                known.get(key) == describe(value) or _is_among(value, last.arguments.get(key))
                for key, value in what.items()
            )
        )
        how = f"{last.reason.name} at {place}, {last.element}: {self.sentence}"
        return Answer(fits, f"dropped by {told}" if fits else f"not dropped by {told}, but by {how}", self)

    def reaches(self, port: str) -> Answer:
        """Whether it (or a copy of it) was delivered to a pod or host."""
        ports = [str(step.arguments.get("port", "")) for step in self.steps if step.verdict is Verdict.DELIVER]
        if port in ports or any(name.startswith(f"{port}:") for name in ports):
            return Answer(True, f"reaches {port}", self)
        return Answer(False, f"does not reach {port}: {self.verdict}: {self.sentence}", self)

    def passes(self, reason: str | Reason) -> Answer:
        """Whether some step of it had that reason: `VXLAN_ENCAPSULATED`, `FRAGMENTED`."""
        name = reason.name if isinstance(reason, Reason) else reason
        step: Step | None = next((step for step in self.steps if step.reason.name == name), None)
        return Answer(step is not None, f"{name}: {step.why}" if step else f"no step of it was {name}", self)


def _is_among(value: Any, said: Any) -> bool:
    """Whether a value is one of several that a step names."""
    several = isinstance(said, Collection) and not isinstance(said, (str, bytes))
    return several and any(describe(value) == describe(one) for one in said)
