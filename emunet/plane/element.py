"""Element: one forwarding behaviour. The contract that every file of `elements/` keeps.

    handle(packet, input, now) -> Step

An element may read its tables and its configuration. It changes nothing: not bytes,
not tables, not the packet. With timers it also says when it wants to be woken and
what it then decides. What it returns, the walk makes happen; so a test is a call
and an assertion, and a dry run is the same walk with effects kept aside.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from emunet.packet.view import Packet
from emunet.plane.step import Step
from emunet.plane.table import NEVER, Counter, Table


class Element:
    """Base of all elements: a name, and what the walk asks of each."""

    name: str

    def handle(self, packet: Packet, port: str, now: int) -> Step:
        """Decide about one packet that came in by input `port`, at `now` (ns)."""
        raise NotImplementedError

    def due(self) -> int:
        """When `wake` wants to be called (ns), or NEVER."""
        return NEVER

    def wake(self, now: int) -> Iterable[tuple[Packet | None, Step]]:
        """What is decided because time passed: steps for held packets, or for none (emissions only).

        Each is acted on before the next is asked for.
        """
        return ()

    def state(self) -> Iterable[Table[Any, Any] | Counter]:
        """Every table and counter it owns, for dry runs, sweeping and display."""
        return ()
