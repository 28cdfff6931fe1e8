"""A capture of all ports, made of a recording: by playing it again and watching.

Rule of this file: it needs nobody who watched when it happened.
"""

from __future__ import annotations

import os

from emunet.fabric.capture import Record
from emunet.fabric.recording import Recording
from emunet.lab.rerun import Rerun
from emunet.packet.pcapng import INBOUND, OUTBOUND, PcapngWriter


class _Sink:
    def __init__(self, writer: PcapngWriter) -> None:
        self._writer = writer
        self._numbers: dict[str, int] = {}

    def write(self, record: Record) -> None:
        """Write what passed."""
        number = self._numbers.get(record.port)
        if number is None:
            number = self._numbers[record.port] = self._writer.interface(record.port, f"emunet port {record.port}")
        direction = INBOUND if record.inbound else OUTBOUND
        for frame in record.frames:
            self._writer.packet(number, record.at, frame, direction=direction, comments=record.comments)


def capture_of(recording: str | os.PathLike[str], capture: str | os.PathLike[str]) -> list[str]:
    """Write what all ports carried to `capture`; gives what came out otherwise than then."""
    again = Rerun(Recording.load(recording))
    with open(capture, "wb") as file:
        again.tap([], _Sink(PcapngWriter(file)))
        again.run()
    return again.differences
