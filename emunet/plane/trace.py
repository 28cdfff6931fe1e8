"""Trace: the hops of one packet, as data first and text second.

A Trace is hops, a Hop is the steps inside one device, a Step is a reason with
arguments. Nothing is formatted before somebody reads it.

Rule of this file: it shows what the walk did; it never computes a decision again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from emunet.packet.edit import Adjust
from emunet.plane.reason import Kind, Reason, fill
from emunet.plane.step import Step, Verdict


@dataclass(slots=True)
class Hop:
    """What happened inside one device, or on one wire."""

    device: str
    port: str
    at: int
    steps: list[Step] = field(default_factory=list)


@dataclass(slots=True)
class Trace:
    """The hops of one packet and of its copies, in the order they happened."""

    hops: list[Hop] = field(default_factory=list)

    def enter(self, device: str, port: str, now: int) -> Hop:
        """Begin a hop."""
        hop = Hop(device, port, now)
        self.hops.append(hop)
        return hop

    @property
    def steps(self) -> list[Step]:
        """All steps of all hops, in order."""
        return [step for hop in self.hops for step in hop.steps]

    @property
    def last(self) -> Step | None:
        """The step that decided the packet's fate.

        A delivery to an edge wins over everything that happened to copies; else the
        last step that ended or held the packet. A copy that a stack only overhears, since a
        bridge flooded it and it is for another MAC, counts where there is nothing else.
        """
        ending: Step | None = None
        rank = -1
        for step in self.steps:
            if step.verdict is Verdict.DELIVER:
                value = 1 if step.arguments.get("overheard") else 4
            elif step.verdict in (Verdict.DROP, Verdict.CONSUME):
                value = 3
            elif step.verdict is Verdict.HOLD:
                value = 2
            else:
                value = 0
            if value >= rank:
                ending, rank = step, value
        return ending

    @property
    def verdict(self) -> str:
        """`delivered`, `consumed`, `dropped`, or `queued` while it is still held."""
        last = self.last
        if last is None:
            return "queued"
        kind = last.reason.kind
        if last.verdict is Verdict.CONSUME:
            kind = Kind.CONSUMED
        return "queued" if kind in (Kind.PASS, Kind.HELD) else kind.value

    @property
    def reason(self) -> Reason | None:
        """The deciding step's reason."""
        return None if self.last is None else self.last.reason

    @property
    def sentence(self) -> str:
        """The deciding step's sentence."""
        return "nothing has happened to it yet" if self.last is None else self.last.why

    @property
    def codes(self) -> list[str]:
        """Reason codes of all steps, in order: what story tests compare."""
        return [step.reason.name for step in self.steps]

    def as_dict(self) -> dict[str, Any]:
        """The form that `emunet trace -o json` prints."""
        return {
            "verdict": self.verdict,
            "reason": self.reason.name if self.reason else None,
            "sentence": self.sentence,
            "hops": [
                {
                    "device": hop.device,
                    "port": hop.port,
                    "at_ns": hop.at,
                    "steps": [
                        {
                            "element": step.element,
                            "verdict": step.verdict.value,
                            "reason": step.reason.name,
                            "why": step.why,
                            "edits": edit_words(step),
                            **({"policies": list(step.arguments["policy"])} if "policy" in step.arguments else {}),
                        }
                        for step in hop.steps
                    ],
                }
                for hop in self.hops
            ],
        }

    def as_text(self) -> str:
        """The trace as indented plain text, a line a step."""
        lines: list[str] = []
        for hop in self.hops:
            lines.append(hop.device)
            for step in hop.steps:
                words = edit_words(step)
                tail = f"   [{'; '.join(words)}]" if words else ""
                lines.append(f"  {step.element:<16} {step.verdict.value:<8} {fill(step.reason, step.arguments)}{tail}")
        last = self.last
        lines.append(f"{self.verdict}: {self.sentence}" if last is not None else "nothing happened")
        return "\n".join(lines)


def edit_words(step: Step) -> list[str]:
    """What a step's edits change, in words; checksum corrections follow from the others and are left out."""
    return [str(edit.what) for edit in step.edits if edit.what and not isinstance(edit, Adjust)]
