"""Following: the same packet at every port that it passes, in order (`emunet capture --follow FILTER`).

A packet is followed if a filter lets it through at one port at least, in whatever form it passes
there; what was seen of it before is kept for a while, and so is there too.

Rule of this file: a Watcher like any other; what it followed is given out at the end, packet by packet.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import BinaryIO, TextIO

from emunet.daemon.capture_file import names_of
from emunet.daemon.capture_filter import CaptureFilter
from emunet.daemon.frame_channel import FrameChannel
from emunet.daemon.frame_format import INBOUND, NOTICE, FrameRecord, PortInfo
from emunet.packet.address import parse_mac
from emunet.packet.difference import changes, view
from emunet.packet.pcapng import PcapngWriter
from emunet.packet.summary import frame_line

KEPT = 20_000
"""Sightings of packets that no filter has let through so far; the oldest packets go first."""

FOLLOWED = 200_000
"""Sightings that are given out at the end: more do not fit."""

_MESSAGES_A_TURN = 64
_CLOSING_SECONDS = 2.0


class Follower:
    """Follows packets. `limit`: how many; once there are so many, only those are watched on."""

    def __init__(self, channel: FrameChannel, filter: CaptureFilter, limit: int | None = None) -> None:
        self.written = 0
        self.lost = 0
        self.notices: list[str] = []
        self.failure = ""
        self.packets: dict[int, list[FrameRecord]] = {}
        self._channel = channel
        self._filter = filter
        self._limit = limit
        self._recent: OrderedDict[int, list[FrameRecord]] = OrderedDict()
        self._kept = 0
        self._lingering = False
        self._closing = False

    @property
    def full(self) -> bool:
        """Whether as many packets are followed as were asked for, or as fit."""
        return self.written >= FOLLOWED or (self._limit is not None and len(self.packets) >= self._limit)

    def linger(self) -> None:
        """Begin no new packet, and see those that are on their way to their ends."""
        self._lingering = True

    def fileno(self) -> int:
        """The channel's."""
        return self._channel.fileno()

    def read(self) -> bool:
        """Take what has come."""
        return self._read(0)

    def close(self) -> None:
        """Take what passed until now, and end."""
        self._closing = True
        self._channel.end()
        deadline = time.monotonic() + _CLOSING_SECONDS
        while time.monotonic() < deadline and self._read(1):
            pass
        self._channel.close()

    def _read(self, timeout: float) -> bool:
        try:
            for _ in range(_MESSAGES_A_TURN):
                records = self._channel.receive(timeout)
                if not records:
                    break
                for record in records:
                    self._take(record)
        except EOFError:
            if not self._closing:
                self.notices.append("the lab has ended")
            return False
        return self._lingering or self._closing or not self.full

    def _take(self, record: FrameRecord) -> None:
        self.lost += record.lost
        if record.direction == NOTICE:
            self.notices += record.comments
            return
        followed = self.packets.get(record.identity)
        if followed is None and not self.full and not self._lingering:
            followed = self._begin(record)
        if followed is not None:
            followed.append(record)
            self.written += 1

    def _begin(self, record: FrameRecord) -> list[FrameRecord] | None:
        """The sightings of a packet that is followed from here on, with those before; None where it is not."""
        if self._filter.takes(record.frame):
            before = self._recent.pop(record.identity, [])
            self._kept -= len(before)
            self.written += len(before)
            self.packets[record.identity] = before
            return before
        self._recent.setdefault(record.identity, []).append(record)
        self._kept += 1
        while self._kept > KEPT:
            self._kept -= len(self._recent.popitem(last=False)[1])
        return None

    # What came of it

    def write(self, stream: BinaryIO, every: tuple[PortInfo, ...], lab: str) -> None:
        """One file to step through: packet by packet, port after port, with what changed as a comment. OSError."""
        where = [f"emunet lab {lab}, run {self._channel.run}", "each packet at every port that it passed, in order"]
        writer = PcapngWriter(stream, "emunet", where)
        for port in self._channel.ports:
            writer.interface(port.name, port.description, parse_mac(port.mac) if port.mac else None)
        names = names_of(every)
        if names:
            writer.names(names)
        for sightings in self.packets.values():
            for number, record in enumerate(sightings):
                changed = self._changed(sightings[number - 1], record) if number else ""
                writer.packet(
                    record.port,
                    record.at,
                    record.frame,
                    direction=record.direction,
                    comments=[*([changed] if changed else []), *record.comments],
                    packet_id=record.identity,
                )

    def print(self, out: TextIO) -> None:
        """As lines: a packet, and under it each port with what changed since the one before."""
        width = max(len(port.name) for port in self._channel.ports)
        for number, sightings in enumerate(self.packets.values(), 1):
            first = sightings[0]
            out.write(f"packet {number}: {frame_line(first.frame)}\n")
            for place, record in enumerate(sightings):
                way = "in " if record.direction == INBOUND else "out"
                told = self._changed(sightings[place - 1], record) if place else ""
                name = self._channel.ports[record.port].name
                out.write(f"  {(record.at - first.at) / 1e6:9.3f} ms  {name:<{width}} {way}  {told}".rstrip() + "\n")
                out.writelines(f"{' ' * 16}{comment}\n" for comment in record.comments)
        out.flush()

    def as_fields(self) -> list[list[dict[str, object]]]:
        """For programs: a list of sightings for each packet."""
        return [
            [
                {
                    "time_ns": record.at,
                    "port": self._channel.ports[record.port].name,
                    "direction": "in" if record.direction == INBOUND else "out",
                    "summary": frame_line(record.frame),
                    "changed": self._changed(sightings[place - 1], record) if place else "",
                    "comments": record.comments,
                    "hex": record.frame.hex(),
                }
                for place, record in enumerate(sightings)
            ]
            for sightings in self.packets.values()
        ]

    @staticmethod
    def _changed(before: FrameRecord, after: FrameRecord) -> str:
        return "; ".join(f"{what} {how}" for what, how in changes(view(before.frame), view(after.frame)))
