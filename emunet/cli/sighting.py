"""A packet of a capture file, and where a lab can be asked about it.

Rule of this file: what a file does not tell is said, and never guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import click

from emunet.packet.malformed import Malformed
from emunet.packet.pcap import INBOUND, OUTBOUND, CapturedFrame
from emunet.packet.pcapng import read_capture
from emunet.packet.summary import frame_line


@dataclass(frozen=True, slots=True)
class Sighting:
    """One frame of a file, at the port that it was seen at. `number` is its place in the file, from 1."""

    number: int
    frame: CapturedFrame

    @property
    def port(self) -> str:
        """The port; `@LAB`, which Wireshark's name of it may have, is no part of its name."""
        return self.frame.interface.partition("@")[0]

    @property
    def inbound(self) -> bool:
        """Whether it came in, as the port's own stack sees it."""
        return self.frame.direction == INBOUND

    def told(self, asked: int) -> str:
        """What it is, and what was said of it then: lines for people. `asked`: the number that was asked for."""
        way = "in" if self.inbound else "out"
        which = f"packet {asked}" if asked == self.number else f"packet {asked}, where it entered: packet {self.number}"
        lines = [f"{which}, {way} at {self.port}: {frame_line(self.frame.data)}"]
        lines += [f"recorded: {comment}" for comment in self.frame.comments]
        return "\n".join(lines)


def find_sightings(file: str, number: int) -> list[Sighting]:
    """Packet `number` of a file, then where else the same packet was seen until then, from the first port on.

    A walk cannot begin at an interface inside a host (`host1:cni0`); where the packet entered, it can, and the file
    tells by its identity which that was. ClickException where the file does not tell enough.
    """
    try:
        frames = list(islice(read_capture(file), number))
    except Malformed as error:
        raise click.ClickException(f"{file}: {error}") from None
    except OSError as error:
        raise click.ClickException(f"cannot read {file}: {error.strerror or error}") from None
    if len(frames) < number:
        raise click.ClickException(f"{file} has {len(frames):,} packets, and no number {number}")
    wanted = frames[number - 1]
    if not wanted.interface or wanted.direction not in (INBOUND, OUTBOUND):
        raise click.ClickException(
            f"{file} does not say at which port packet {number} was seen, and which way it went: `emunet capture -w"
            " FILE.pcapng` does, and Wireshark of a lab; else say the frame: emunet trace POD 'EXPRESSION'"
        )
    same = [Sighting(place, frame) for place, frame in enumerate(frames[:-1], 1) if _is_same(frame, wanted)]
    return [Sighting(number, wanted), *same]


def _is_same(frame: CapturedFrame, wanted: CapturedFrame) -> bool:
    return bool(wanted.packet_id) and (frame.packet_id, frame.section) == (wanted.packet_id, wanted.section)
