"""Explanation: whether one reaches another, and how, in a few sentences.

    web-1 reaches db-1: TCP to 10.244.2.3:5432 arrives, and so does the answer.
      It goes web-1 → host1 → switch1 → host2 → db-1, inside VXLAN between host1 and host2.
      host2 permits it: ingress by rule 1 of default/db-policy.

Both traces are those of `emunet trace`: the same walk, and the answer in the same dry run.

Rule of this file: it retells what the steps of two traces say, and decides nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emunet.cluster.targets import Target

_TRANSLATING = ("connections", "translate")

_LED = re.compile(r" -> \S+ \((?P<pod>[^)]+)\)")
"""In what a Service decided: the endpoint, whose address stands in the edit already."""

TraceDict = Mapping[str, Any]
"""A trace as `Trace.as_dict` gives it."""


def explained(source: str, target: Target, exchange: Mapping[str, Any]) -> Explanation:
    """The explanation of what `Plane.exchange` found (as a mapping) when `source` asked a target."""
    at = exchange["at"].partition(":")[0]
    return Explanation(
        source, target.name, str(target), at, exchange["there"], exchange["back"], target.remarks,
        exchange["at"] if exchange["outside"] else "",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Explanation:
    """What became of a question and of its answer; true where both arrive.

    asked  what was sent, in words: `TCP to 10.244.2.3:5432`
    at     the pod or host that got it; empty where nobody did
    back   None where nothing answers such a packet
    left_by  the port by which it left the lab; empty where it did not
    """

    source: str
    target: str
    asked: str
    at: str
    there: TraceDict
    back: TraceDict | None
    remarks: tuple[str, ...] = ()
    left_by: str = ""

    def __bool__(self) -> bool:
        return bool(self.at) and (self.back is None or self.back["verdict"] == "delivered")

    @property
    def sentences(self) -> list[str]:
        """The explanation. The first sentence is the answer, the rest is how and why."""
        return [self._answer(), *self._why(), *(self.remarks if self.at else ())]

    def as_text(self) -> str:
        """The sentences, a line each, the first at the margin."""
        first, *rest = self.sentences
        return "\n".join([first, *(f"  {line}" for line in rest)])

    def as_dict(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "source": self.source,
            "target": self.target,
            "asked": self.asked,
            "reaches": bool(self),
            "arrives_at": self.at or None,
            "sentences": self.sentences,
            "there": self.there,
            "back": self.back,
        }

    def _answer(self) -> str:
        if not self.at:
            return f"{self.source} does not reach {self.target}: {self.asked} {_ended(self.there)}."
        if self.left_by:
            return f"{self.source} gets out to {self.target}: {self.asked} leaves the lab by {self.left_by}."
        who = "" if self.at in (self.source, self.target) else f" at {self.at}"
        if self.back is None:
            return f"{self.source} reaches {self.target}: {self.asked} arrives{who}."
        if self.back["verdict"] == "delivered":
            return f"{self.source} reaches {self.target}: {self.asked} arrives{who}, and so does the answer."
        lost = f"{self.asked} arrives{who}, but its answer {_ended(self.back)}"
        return f"{self.source} does not reach {self.target}: {lost}."

    def _why(self) -> Iterator[str]:
        way = _way(self.there, self.source, self.at)
        if not self.at:
            yield f"{_capital(str(self.there['sentence']), way)}."
            if len(way) > 2:
                yield f"It got as far as {way[-1]}: {' → '.join(way)}."
        elif len(way) == 1:
            yield f"{_capital(str(self.there['sentence']), way)}."
        else:
            yield f"It goes {' → '.join(way)}{_tunnels(self.there)}."
        yield from _translations(self.there)
        yield from _policies(self.there)
        if not self.at or self.back is None:
            return
        if self.back["verdict"] != "delivered":
            yield f"{_capital(str(self.back['sentence']), way)}."
            back = _way(self.back, self.at, "")
            if len(back) > 2:
                yield f"The answer got as far as {back[-1]}: {' → '.join(back)}."
        elif (back := _way(self.back, self.at, self.source)) != way[::-1]:
            yield f"The answer takes another way: {' → '.join(back)}."


# What traces tell


def _steps(trace: TraceDict) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for hop in trace["hops"]:
        for step in hop["steps"]:
            yield hop["device"], step


def _way(trace: TraceDict, sender: str, at: str) -> list[str]:
    """Where it goes: from the sender through devices to who gets it, where somebody does."""
    names = [sender, *(hop["device"] for hop in trace["hops"]), *([at] if at else [])]
    return [name for number, name in enumerate(names) if not number or names[number - 1] != name]


def _ended(trace: TraceDict) -> str:
    if trace["verdict"] == "queued":
        return f"still waits at {trace['hops'][-1]['device']}" if trace["hops"] else "goes nowhere"
    where = trace["hops"][-1]["device"] if trace["hops"] else "the wire"
    place = next((device for device, step in reversed(list(_steps(trace))) if step["why"] == trace["sentence"]), where)
    what = "is dropped" if trace["verdict"] == "dropped" else "ends"
    return f"{what} at {place}"


def _tunnels(trace: TraceDict) -> str:
    """Between which hosts it is in a tunnel."""
    into = [device for device, step in _steps(trace) if step["reason"] in ("VXLAN_ENCAPSULATED", "VXLAN_FLOODED")]
    out = [device for device, step in _steps(trace) if step["reason"] == "VXLAN_DECAPSULATED"]
    return f", inside VXLAN between {into[0]} and {out[-1]}" if into and out else ""


def _translations(trace: TraceDict) -> Iterator[str]:
    """What hosts make of its addresses, and why."""
    for device, step in _steps(trace):
        edits = [edit for edit in step["edits"] if " -> " in edit and "MAC" not in edit]
        if step["element"] in _TRANSLATING and edits:
            why = _LED.sub(r" leads to \g<pod>", step["why"], count=1)
            yield f"{device} translates it: {'; '.join(edits).replace(' -> ', ' → ')} ({why})."
        elif step["reason"] == "SERVICE_OTHER_PORT":
            yield f"{_capital(step['why'])}."


def _policies(trace: TraceDict) -> Iterator[str]:
    """Who permits it, where somebody had to."""
    for device, step in _steps(trace):
        if step["reason"] == "POLICY_PERMITTED":
            yield f"{device} permits it: {step['why'].removeprefix('permitted: ')}."
        elif step["reason"] in ("POLICY_OWN_NODE", "POLICY_ITSELF"):
            yield f"At {device} it is {step['why']}."


def _capital(sentence: str, names: Sequence[str] = ()) -> str:
    """A sentence as it stands, but for one that begins with a common word: a name keeps its small letter."""
    first = sentence.partition(" ")[0]
    is_word = first.isalpha() and first.islower() and first not in names
    return sentence[0].upper() + sentence[1:] if is_word else sentence


__all__ = ["Explanation", "explained"]
