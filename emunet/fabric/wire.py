"""Wires: what carries packets between two device ports.

A plain wire takes no time: what enters one end leaves the other within the same
run. Impairment is a wrapper around this contract and never touches an element.

Rule of this file: a wire that loses a packet says so with a reason; it never
forgets one.
"""

from __future__ import annotations

from typing import Protocol

from emunet.packet.view import Packet
from emunet.plane.reason import Reason

End = tuple[str, str]


class Arrivals(Protocol):
    """What a wire does with a packet: the World implements it."""

    def arrive(self, device: str, port: str, packet: Packet, now: int) -> None:
        """The packet comes out at a device port."""
        ...

    def lose(self, wire: str, packet: Packet, reason: Reason, now: int) -> None:
        """The packet ends on the wire."""
        ...


class Wire:
    """A cable without delay between two device ports."""

    def __init__(self, name: str, a: End, b: End, arrivals: Arrivals) -> None:
        self.name = name
        self.ends = (a, b)
        self.up = True
        self._arrivals = arrivals

    def send(self, end: int, packet: Packet, now: int) -> None:
        """A packet goes in at end 0 or 1 and comes out at the other."""
        if not self.up:
            self._arrivals.lose(self.name, packet, Reason.WIRE_DOWN, now)
            return
        device, port = self.ends[1 - end]
        self._arrivals.arrive(device, port, packet, now)
