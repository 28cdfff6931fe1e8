"""Watching: who looks at which point, and what they are shown.

A packet that passes a watched point makes a Record; records are handed over when the
run ends, in the order in which they were made, so that a drop can still be written on
what entered. A run that is being recorded for the flow cache notes where it was seen:
what is fused of it shows itself there too.

Rule of this file: watching never changes what happens.
"""

from __future__ import annotations

from emunet.fabric.capture import Record, Sink
from emunet.fabric.flows import Recording
from emunet.packet.offload import Offload
from emunet.packet.view import Packet
from emunet.plane.table import Watch

Point = tuple[str, str]
"""A device, and its port or an interface inside it."""


class Watching:
    """All sinks of a World, and the records of the run that is going on."""

    def __init__(self, watch: Watch) -> None:
        self.recording: Recording | None = None
        self._watch = watch
        self._sinks: dict[Point, list[Sink]] = {}
        self._records: list[Record] = []
        self._identities = 0

    def identify(self) -> int:
        """A number for a packet that comes into being; 0 while nobody watches."""
        if not self._sinks:
            return 0
        self._identities += 1
        return self._identities

    def add(self, point: Point, sink: Sink) -> None:
        """Show `sink` what passes the point."""
        self._sinks.setdefault(point, []).append(sink)

    def remove(self, point: Point, sink: Sink) -> None:
        """Stop showing it."""
        sinks = self._sinks.get(point, [])
        if sink in sinks:
            sinks.remove(sink)
            if not sinks:
                del self._sinks[point]

    def points(self, device: str) -> set[str]:
        """The watched points of a device."""
        return {port for name, port in self._sinks if name == device}

    def port(self, point: Point, pod: bool, entering: bool, packet: Packet, now: int) -> None:
        """A packet passes a port, into the device or out of it. `pod`: a pod is behind it, whose view counts.

        A drop is written where it was seen last: of what a wire loses, at the port by which it went there.
        """
        record = self._record(point, pod, entering, packet.frame, packet.offload, now, packet.identity)
        if record is not None:
            packet.identity = record.identity
            self._note(record, packet)
            packet.record = record

    def entry(
        self, point: Point, pod: bool, frame: bytes, offload: Offload | None, now: int, identity: int
    ) -> Record | None:
        """As `port`, for a frame that enters and will be repeated from the cache."""
        return self._record(point, pod, True, frame, offload, now, identity)

    def inside(self, point: Point, inbound: bool, packet: Packet, now: int) -> None:
        """A packet passes an interface inside a device, up into layer 3 or down."""
        sinks = self._sinks.get(point)
        if sinks:
            packet.identity = packet.identity or self.identify()
            record = Record.of(":".join(point), inbound, packet.frame, packet.offload, now, sinks, packet.identity)
            self._records.append(record)
            self._note(record, packet)

    def show(self, records: list[Record]) -> None:
        """What a fused run showed on its way."""
        self._records += records

    def hand_over(self) -> None:
        """The run is over: give everybody what they were to see."""
        records, self._records = self._records, []
        for record in records:
            record.hand_over()

    def _record(
        self, point: Point, pod: bool, entering: bool, frame: bytes, offload: Offload | None, now: int, identity: int
    ) -> Record | None:
        sinks = self._sinks.get(point)
        if not sinks:
            return None
        name = point[1] if pod else ":".join(point)
        record = Record.of(name, entering is not pod, frame, offload, now, sinks, identity or self.identify())
        self._records.append(record)
        return record

    def _note(self, record: Record, packet: Packet) -> None:
        if self.recording is not None and self._watch.steps is not None:
            self.recording.views.append((len(self._watch.steps), record, packet.frame))
