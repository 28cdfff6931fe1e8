"""A recording: everything that came into a World from outside, in order, so that it can happen again.

It is a pcapng file. Each frame that a stack sent is a packet on that stack's interface, as
it was on the wire; configurations, commands and the end are frames of EtherType 0x88b5 with
JSON in them, on an interface called `emunet`. So a recording opens in Wireshark, and is
about as large as what it recorded.

A World does things by itself too: a frame comes off a wire, a device's timer rings. Those are
not kept, only how many of them there were before each input (a comment, `+3`): with the
same inputs between the same events everything is the same, whatever late moment of a real
clock each happened at.

Rule of this file: what is recorded is what was let in; what came of it is only counted and
hashed, for those who play it again and want to know whether it is the same.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, BinaryIO

from emunet.packet.malformed import Malformed
from emunet.packet.offload import Offload, split
from emunet.packet.pcapng import INBOUND, OUTBOUND, PcapngWriter, read

COMMANDS = "emunet"
"""The interface of what is no frame."""

VERSION = 1
_HEADER = bytes(12) + b"\x88\xb5"


class NotARecording(Exception):
    """The file is none, or not whole: a sentence."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One input. `events` of the World's own went before it; `at` is its lab time (ns).

    port     the stack that sent `frame`, or the device port that it was let in by (`inject`)
    command  what else was done: its name, with its arguments in `said`
    """

    at: int
    events: int
    port: str = ""
    frame: bytes = b""
    inject: bool = False
    command: str = ""
    said: dict[str, Any] | None = None


class Tally:
    """What came out at each edge: how many wire frames, and a hash over their times and bytes."""

    def __init__(self) -> None:
        self._count: dict[str, int] = {}
        self._hashes: dict[str, Any] = {}

    def add(self, edge: str, frame: bytes, offload: Offload | None, now: int) -> int:
        """A frame came out; the number of the first of its wire frames at that edge."""
        digest = self._hashes.get(edge)
        if digest is None:
            digest = self._hashes[edge] = blake2b(digest_size=16)
        first = self._count.get(edge, 0)
        for count, piece in enumerate([frame] if offload is None else split(frame, offload), first + 1):
            digest.update(now.to_bytes(8, "big") + len(piece).to_bytes(4, "big") + piece)
            self._count[edge] = count
        return first

    def as_dict(self) -> dict[str, list[Any]]:
        """For each edge its count and hash."""
        return {edge: [count, self._hashes[edge].hexdigest()] for edge, count in sorted(self._count.items())}


class Recorder:
    """Writes a recording to a stream. The stream is the caller's to close, after `end`."""

    def __init__(self, stream: BinaryIO, seed: int, *, flow_cache: bool, epoch: int = 0) -> None:
        self.inputs = 0
        self.began = -1
        self._writer = PcapngWriter(
            stream, comments=["a recording of an emunet lab: `emunet replay FILE` plays it again"]
        )
        self._stream = stream
        self._interfaces = {COMMANDS: self._writer.interface(COMMANDS, "configurations and commands, as JSON")}
        self._seed = seed
        self._flow_cache = flow_cache
        self._epoch = epoch
        self._events = 0
        self._tally = Tally()
        self._refused: dict[str, list[list[int]]] = {}

    def command(self, name: str, said: dict[str, Any], now: int, events: int) -> None:
        """Something was done: a configuration, or what `lab.trouble` calls so."""
        if self.began < 0:
            self.began = now
            self.command("begin", self._beginning(now, events), now, events)
        data = _HEADER + json.dumps({"command": name, "said": said}, separators=(",", ":")).encode()
        self._write(COMMANDS, data, now, events, OUTBOUND, f"{name}")

    def frame(self, port: str, frame: bytes, offload: Offload | None, now: int, events: int) -> None:
        """A stack sent a frame."""
        for piece in [frame] if offload is None else split(frame, offload):
            self._write(port, piece, now, events, OUTBOUND)

    def injected(self, port: str, frame: bytes, now: int, events: int) -> None:
        """A frame was let in by a device's port, as if its cable had brought it."""
        self._write(port, frame, now, events, INBOUND)

    def delivered(self, edge: str, frame: bytes, offload: Offload | None, now: int, *, taken: bool) -> None:
        """A frame came out at a stack, which took it or had no room."""
        first = self._tally.add(edge, frame, offload, now)
        if not taken:
            frames = 1 if offload is None else offload.segments(len(frame))
            self._refused.setdefault(edge, []).append([first, frames])

    def end(self, now: int, events: int, ledger: dict[str, Any]) -> None:
        """Say what came of it."""
        said = {"delivered": self._tally.as_dict(), "refused": self._refused, "ledger": ledger}
        self.command("end", said, now, events)
        self._stream.flush()

    def _beginning(self, now: int, events: int) -> dict[str, Any]:
        self._events = events
        return {"version": VERSION, "seed": self._seed, "flow_cache": self._flow_cache, "now": now}

    def _write(self, port: str, data: bytes, now: int, events: int, direction: int, *comments: str) -> None:
        self.inputs += 1
        interface = self._interfaces.get(port)
        if interface is None:
            interface = self._interfaces[port] = self._writer.interface(port)
        since, self._events = events - self._events, events
        marks = [f"+{since}", *comments] if since else list(comments)
        self._writer.packet(interface, now + self._epoch, data, direction=direction, comments=marks)


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording that was read: how it began, its inputs in order, and what came of it (None: it was cut off)."""

    seed: int
    flow_cache: bool
    began: int
    entries: tuple[Entry, ...]
    delivered: dict[str, list[Any]] | None
    refused: dict[str, list[list[int]]]
    ledger: dict[str, Any] | None

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recording:
        """Read a file. NotARecording with a sentence; OSError."""
        with open(path, "rb") as stream:
            try:
                entries = list(_entries(stream))
            except Malformed as error:
                raise NotARecording(f"{os.fspath(path)} is no recording: {error}") from None
        if not entries or entries[0].command != "begin":
            raise NotARecording(f"{os.fspath(path)} is a capture, not a recording (`emunet record` makes one)")
        said = entries[0].said or {}
        if said.get("version") != VERSION:
            version = f"version {said.get('version')}; this emunet plays version {VERSION}"
            raise NotARecording(f"{os.fspath(path)} is a recording of {version}")
        last = entries[-1].said if entries[-1].command == "end" else None
        epoch = entries[0].at - said["now"]
        kept = tuple(
            Entry(one.at - epoch, one.events, one.port, one.frame, one.inject, one.command, one.said)
            for one in entries[1:]
        )
        return cls(
            said["seed"], said["flow_cache"], said["now"], kept,
            last["delivered"] if last else None, last["refused"] if last else {}, last["ledger"] if last else None,
        )  # fmt: skip


def is_recording(path: str | os.PathLike[str]) -> bool:
    """Whether a capture file is a recording."""
    with open(path, "rb") as stream:
        try:
            first = next(_entries(stream), None)
        except (Malformed, NotARecording):
            return False
    return first is not None and first.command == "begin"


def _entries(stream: BinaryIO) -> Iterator[Entry]:
    events = 0
    for captured in read(stream):
        for comment in captured.comments:
            if comment[:1] == "+" and comment[1:].isdigit():
                events += int(comment[1:])
        data = captured.data
        if captured.interface != COMMANDS:
            yield Entry(captured.time_ns, events, captured.interface, data, captured.direction == INBOUND)
            continue
        try:
            command = json.loads(data[len(_HEADER) :])
            yield Entry(captured.time_ns, events, command=command["command"], said=command["said"])
        except (ValueError, KeyError, TypeError) as error:
            raise Malformed(f"a command in it cannot be read ({error})") from None


__all__ = ["COMMANDS", "Entry", "NotARecording", "Recorder", "Recording", "Tally", "is_recording"]
