"""Assertions about a whole lab: they ask it, and a failure shows what it did.

Each works on a `Lab` of this process and on a `TapLab` alike, and is also a method of both.

Rule of this file: a failure is an AssertionError with the sentence first and the trace below.
"""

from __future__ import annotations

import re
from typing import Any, Protocol

from emunet.plane.reason import Reason


class Asked(Protocol):
    """What a lab can be asked here."""

    def ping(self, source: str, destination: str) -> Any:
        """Echo: true when it was answered, `why` otherwise."""
        ...

    def explain_ping(self, source: str, destination: str) -> str:
        """What a dry run of the request, and of its reply, says: text."""
        ...

    def counters(self) -> dict[str, Any]:
        """The World's figures."""
        ...


def assert_reaches(lab: Asked, source: str, destination: str) -> None:
    """`source` gets an answer from `destination`."""
    __tracebackhide__ = True
    pong = lab.ping(source, destination)
    if not pong:
        raise AssertionError(
            f"{source} does not reach {destination}: {pong.why}\n{lab.explain_ping(source, destination)}"
        )


def assert_cannot_reach(lab: Asked, source: str, destination: str) -> None:
    """`source` gets no answer from `destination`."""
    __tracebackhide__ = True
    if lab.ping(source, destination):
        raise AssertionError(f"{source} reaches {destination}\n{lab.explain_ping(source, destination)}")


def assert_no_drops(lab: Asked, *, except_for: tuple[str, ...] = ()) -> None:
    """No frame was dropped since the lab began, whatever the reason; `except_for` names reasons that are expected."""
    __tracebackhide__ = True
    reasons: dict[str, int] = lab.counters()["reasons"]
    left = {name: count for name, count in reasons.items() if name not in except_for}
    if left:
        lines = [f"  {name}, {count:,} of them: {_words(Reason[name])}" for name, count in left.items()]
        number = sum(left.values())
        told = "1 frame was dropped:" if number == 1 else f"{number:,} frames were dropped:"
        raise AssertionError("\n".join([told, *lines]))


def _words(reason: Reason) -> str:
    """The sentence of a reason, with names where a single drop would have values."""
    return re.sub(r"\{(\w+)\}", r"<\1>", reason.sentence.replace("{sent}", ""))


class Assertions:
    """The same as methods: `lab.assert_reaches("web-1", "web-3")`."""

    def assert_reaches(self: Asked, source: str, destination: str) -> None:
        """`source` gets an answer from `destination`."""
        __tracebackhide__ = True
        assert_reaches(self, source, destination)

    def assert_cannot_reach(self: Asked, source: str, destination: str) -> None:
        """`source` gets no answer from `destination`."""
        __tracebackhide__ = True
        assert_cannot_reach(self, source, destination)

    def assert_no_drops(self: Asked, *, except_for: tuple[str, ...] = ()) -> None:
        """No frame was dropped since the lab began; `except_for` names reasons that are expected."""
        __tracebackhide__ = True
        assert_no_drops(self, except_for=except_for)
