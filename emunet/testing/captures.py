"""A capture of all ports, made of a recording: by playing it again and watching.

Rule of this file: it needs nobody who watched when it happened.
"""

from __future__ import annotations

import os

from emunet.fabric.capture import Record
from emunet.fabric.names import stations
from emunet.fabric.recording import Recording
from emunet.fabric.world import World
from emunet.lab.rerun import Rerun
from emunet.packet.pcapng import INBOUND, OUTBOUND, PcapngWriter, unambiguous


class _Sink:
    def __init__(self, writer: PcapngWriter, world: World) -> None:
        self._writer = writer
        self._world = world
        self._numbers: dict[str, int] = {}
        self._named: set[bytes] = set()

    def write(self, record: Record) -> None:
        """Write what passed."""
        number = self._numbers.get(record.port)
        if number is None:
            number = self._numbers[record.port] = self._introduce(record.port)
        direction = INBOUND if record.inbound else OUTBOUND
        for frame in record.frames:
            self._writer.packet(number, record.at, frame, direction=direction, comments=record.comments)

    def _introduce(self, port: str) -> int:
        """An interface for a port, when its first frame comes, and the names of addresses that are new by then."""
        known = list(stations(self._world.config))
        number = self._writer.interface(port, f"emunet port {port}", {name: mac for name, mac, _ in known}.get(port))
        rows = unambiguous((one, name) for name, mac, addresses in known for one in (mac, *addresses))
        names = {one: name for one, name in rows.items() if one not in self._named}
        if names:
            self._writer.names(names)
            self._named |= names.keys()
        return number


def capture_of(recording: str | os.PathLike[str], capture: str | os.PathLike[str]) -> list[str]:
    """Write what all ports carried to `capture`; gives what came out otherwise than then."""
    again = Rerun(Recording.load(recording))
    with open(capture, "wb") as file:
        again.tap([], _Sink(PcapngWriter(file), again.plane.world))
        again.run()
    return again.differences
