"""Faults of our own: an element that raised where it should have decided.

One frame is lost then, with a reason of its own (`ELEMENT_FAULT`), and the lab goes on. What raised,
where, and on which frame is kept here for `status`, and told to whoever keeps a log.

Rule of this file: a fault that comes again and again is counted, and told ever more rarely.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from traceback import format_exception
from typing import Any

KINDS_MAX = 100
"""Different faults that are told apart; the rest is counted as one."""


@dataclass(slots=True)
class Fault:
    """What raised, as it did last; `at` in lab time (ns), `frame` the one that it was about, if it was about one."""

    device: str
    element: str
    error: str
    count: int = 0
    at: int = 0
    frame: bytes = b""
    trace: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For `status`."""
        return {
            "device": self.device, "element": self.element, "error": self.error, "count": self.count, "at_ns": self.at,
            "frame": self.frame.hex(),
        }  # fmt: skip

    def as_text(self) -> str:
        """For a log."""
        frame = f"the frame was {self.frame.hex()}" if self.frame else "no frame came in: its time had come"
        times = f", for the {self.count:,}th time" if self.count > 1 else ""
        return f"{self.element} of {self.device} failed{times}; {frame}\n{self.trace}"


def _warn(fault: Fault) -> None:
    warnings.warn(fault.as_text(), RuntimeWarning, stacklevel=2)


class Faults:
    """All faults of a World. `tell` hears of one when it first comes, and then at its tenth, hundredth ... time."""

    def __init__(self, tell: Callable[[Fault], None] = _warn) -> None:
        self.tell = tell
        self._known: dict[tuple[str, str, str], Fault] = {}

    def note(self, device: str, element: str, error: Exception, frame: bytes, now: int) -> None:
        """An element raised."""
        text = f"{type(error).__name__}: {error}"
        key = (device, element, text)
        if key not in self._known and len(self._known) >= KINDS_MAX:
            key = ("", "", "others")
        fault = self._known.setdefault(key, Fault(*key))
        fault.count, fault.at, fault.frame = fault.count + 1, now, frame
        if str(fault.count).strip("0") == "1":
            fault.trace = "".join(format_exception(error))
            self.tell(fault)

    def as_list(self) -> list[dict[str, Any]]:
        """Those that came, the most frequent first."""
        return [fault.as_dict() for fault in sorted(self._known.values(), key=lambda one: -one.count)]
