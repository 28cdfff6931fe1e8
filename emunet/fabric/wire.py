"""Wires: what carries packets between two device ports.

A plain wire takes no time: what enters one end leaves the other within the same
run. Impairment is per direction (`impaired.Lane`) and never touches an element.

Rule of this file: a wire that loses a packet says so with a reason; it never
forgets one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from emunet.fabric.capture import Record
from emunet.fabric.impaired import Lane
from emunet.packet.offload import Offload
from emunet.packet.view import Packet
from emunet.plane.reason import Reason

if TYPE_CHECKING:
    from emunet.fabric.replay import Replay

End = tuple[str, str]


class Arrivals(Protocol):
    """What a wire does with a packet: the World implements it."""

    def arrive(self, device: str, port: str, packet: Packet, now: int) -> None:
        """The packet comes out at a device port."""
        ...

    def lose(self, wire: str, packet: Packet, reason: Reason, now: int) -> None:
        """The packet ends on the wire."""
        ...

    @property
    def dry(self) -> bool:
        """Whether nothing may really happen now."""
        ...


class Wire:
    """A cable between two device ports.

    lanes  an impairment from end 0 to 1, and from 1 to 0, where there is one
    flap   ns that it is up and down by turns, where it is
    """

    def __init__(self, name: str, a: End, b: End, arrivals: Arrivals) -> None:
        self.name = name
        self.ends = (a, b)
        self.up = True
        self.flap: tuple[int, int] | None = None
        self.lanes: list[Lane | None] = [None, None]
        self._arrivals = arrivals

    def send(self, end: int, packet: Packet, now: int) -> None:
        """A packet goes in at end 0 or 1 and comes out at the other."""
        if not self.up:
            self._arrivals.lose(self.name, packet, Reason.WIRE_DOWN, now)
            return
        lane = self.lanes[end]
        if lane is not None:
            if not self._arrivals.dry:
                lane.send(packet, now)
                return
            reason = lane.loses(packet)
            if reason is not None:
                self._arrivals.lose(self.name, packet, reason, now)
                return
        device, port = self.ends[1 - end]
        self._arrivals.arrive(device, port, packet, now)


class WireExit:
    """A wire's end as the end of a fused run: frames that hit go onto the wire from here."""

    def __init__(self, wire: Wire, end: int) -> None:
        self.wire = wire
        self.end = end

    def carry(
        self,
        frame: bytes,
        offload: Offload | None,
        hops: int,
        record: Record | None,
        source: Replay | None,
        identity: int,
        now: int,
    ) -> None:
        """A frame of `source` goes onto the wire, having passed `hops` devices; `record` is told if it is lost.

        Without a source: frames like it are not all of one key, so that nothing is known of what follows.
        """
        lane = self.wire.lanes[self.end]
        plain = offload is None and self.wire.up
        if lane is not None and source is not None and plain and lane.carry(frame, hops, source, identity, now):
            lane.count()
            return
        packet = Packet(frame, offload)
        packet.hops = hops
        packet.record = record
        packet.identity = identity
        self.wire.send(self.end, packet, now)
