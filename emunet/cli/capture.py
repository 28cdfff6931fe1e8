"""`emunet capture`: watch ports, as lines on the terminal, as a capture file, or in Wireshark as it happens.

Rule of this file: every way to watch is a watcher that is read when its descriptor is
readable; one loop drives all of them, and Ctrl-C ends it between two messages, never within one.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import BinaryIO, Protocol, TextIO, cast

import click

from emunet.cli.interrupt import until_interrupted
from emunet.cli.options import lab_option, output_option, the_lab
from emunet.daemon.capture_file import STANDARD_OUTPUT, CaptureFile
from emunet.daemon.frame_channel import FrameChannel, FrameChannelError
from emunet.daemon.frame_format import INBOUND, NOTICE, FrameRecord
from emunet.packet.summary import frame_line

_RED = "\x1b[31m"
_PLAIN = "\x1b[0m"
_MESSAGES_A_TURN = 64


class Watcher(Protocol):
    """Something that takes what comes from a lab."""

    written: int
    lost: int
    notices: list[str]
    failure: str

    def fileno(self) -> int:
        """Readable when `read` has something to do."""
        ...

    def read(self) -> bool:
        """Take what has come; False once nothing more will be taken."""
        ...

    def close(self) -> None:
        """Take what is left, and end."""
        ...


class Lines:
    """Prints a line for each frame, and one for each drop; or an object of JSON for each frame."""

    def __init__(self, channel: FrameChannel, out: TextIO, *, limit: int | None = None, as_json: bool = False) -> None:
        self.written = 0
        self.lost = 0
        self.notices: list[str] = []
        self.failure = ""
        self._channel = channel
        self._out = out
        self._limit = limit
        self._as_json = as_json
        self._names = [port.name for port in channel.ports]
        self._width = max(len(name) for name in self._names)
        self._colored = out.isatty() and "NO_COLOR" not in os.environ
        self._second = -1
        self._clock = ""
        self._stopped = False
        self._closing = False

    def fileno(self) -> int:
        """The channel's."""
        return self._channel.fileno()

    def read(self) -> bool:
        """Print what has come."""
        return self._read(0)

    def close(self) -> None:
        """Print what passed until now, and end."""
        self._closing = True
        self._channel.end()
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline and self._read(1):
            pass
        self._channel.close()

    def _read(self, timeout: float) -> bool:
        more = not (self._stopped or self._full)
        try:
            for _ in range(_MESSAGES_A_TURN):
                records = self._channel.receive(timeout) if more else []
                if not records:
                    break
                more = all(self._take(record) for record in records)
            self._out.flush()
        except EOFError:
            more = False
            if not self._closing:
                self.notices.append("the lab has ended")
        except OSError as error:
            self._stopped = True
            if not isinstance(error, BrokenPipeError):
                self.failure = f"cannot print: {error.strerror or error}"
            more = False
        return more

    @property
    def _full(self) -> bool:
        return self._limit is not None and self.written >= self._limit

    def _take(self, record: FrameRecord) -> bool:
        self.lost += record.lost
        if record.direction == NOTICE:
            self.notices += record.comments
            return True
        self._out.write(self._json(record) if self._as_json else self._text(record))
        self.written += 1
        return not self._full

    def _text(self, record: FrameRecord) -> str:
        second, fraction = divmod(record.at, 1_000_000_000)
        if second != self._second:
            self._second = second
            self._clock = time.strftime("%H:%M:%S", time.localtime(second))
        way = "in " if record.direction == INBOUND else "out"
        head = f"{self._clock}.{fraction // 1000:06d} {self._names[record.port]:<{self._width}} {way}"
        lines = [f"{head} {frame_line(record.frame)}"]
        for comment in record.comments:
            text = f"{' ' * len(head)}   {comment}"
            lines.append(f"{_RED}{text}{_PLAIN}" if self._colored else text)
        return "\n".join(lines) + "\n"

    def _json(self, record: FrameRecord) -> str:
        fields = {
            "time_ns": record.at,
            "port": self._names[record.port],
            "direction": "in" if record.direction == INBOUND else "out",
            "length": len(record.frame),
            "summary": frame_line(record.frame),
            "comments": record.comments,
            "hex": record.frame.hex(),
        }
        return json.dumps(fields) + "\n"


def watch(
    watchers: Sequence[Watcher], interrupted: int, seconds: float | None, viewer: subprocess.Popen[bytes] | None = None
) -> None:
    """Let watchers read until all have had enough, time is up, the viewer is closed or a person ends it."""
    deadline = None if seconds is None else time.monotonic() + seconds
    poll = select.poll()
    poll.register(interrupted, select.POLLIN)
    if viewer is not None and viewer.stdin is not None:
        poll.register(viewer.stdin.fileno(), 0)  # errors are told unasked: its other end was closed
    reading = {watcher.fileno(): watcher for watcher in watchers}
    for descriptor in reading:
        poll.register(descriptor, select.POLLIN)
    while reading:
        left = None if deadline is None else (deadline - time.monotonic()) * 1000
        if left is not None and left <= 0:
            return
        for descriptor, _ in poll.poll(left):
            watcher = reading.get(descriptor)
            if watcher is None:
                return
            if not watcher.read():
                poll.unregister(descriptor)
                del reading[descriptor]
        for watcher in watchers:
            for notice in watcher.notices:
                click.echo(notice, err=True)
            watcher.notices.clear()


def _report(watcher: Watcher, where: str) -> str:
    frames = "1 frame" if watcher.written == 1 else f"{watcher.written:,} frames"
    lost = f"{watcher.lost:,} lost: they came faster than they could be written" if watcher.lost else "none lost"
    return f"{frames}{where}, {lost}"


def _start_viewer() -> subprocess.Popen[bytes]:
    program = shutil.which("wireshark")
    if program is None:
        raise click.ClickException(
            "Wireshark is not installed: apt-get install wireshark; or write a file with -w and open that elsewhere"
        )
    # In a session of its own, so that Ctrl-C here ends the capture and leaves what it shows on the screen.
    return subprocess.Popen([program, "-k", "-i", "-"], stdin=subprocess.PIPE, start_new_session=True)


@click.command()
@click.argument("ports", nargs=-1, required=True, metavar="PORT...")
@click.option("-w", "file", metavar="FILE", help="Write FILE.pcapng, or FILE.pcap (one port); - is standard output.")
@click.option("-c", "count", type=click.IntRange(min=1), metavar="N", help="End after N frames.")
@click.option("--seconds", type=click.FloatRange(min=0), metavar="S", help="End after S seconds.")
@click.option("--live", is_flag=True, help="Show it in Wireshark as it happens.")
@lab_option
@output_option
def capture(
    ports: tuple[str, ...], file: str | None, count: int | None, seconds: float | None, live: bool, lab: str | None,
    output: str,
) -> None:  # fmt: skip
    """Watch what passes ports: both directions, with the reason of every drop.

    \b
    emunet capture web-1                             a line for each frame
    emunet capture web-1 host1:eth0 -w x.pcapng      a file, with an interface for each port
    emunet capture host1:flannel.1 --live            Wireshark
    """  # noqa: D301 - click knows the character by this escape
    if file == STANDARD_OUTPUT and sys.stdout.isatty():
        raise click.UsageError("-w - writes binary data: send it into a pipe, as in  | tshark -r -")
    client = the_lab(lab)
    frames = client.folder.frames
    watchers: list[Watcher] = []
    viewer = None
    try:
        if file is not None:
            watchers.append(CaptureFile.open(frames, ports, file, lab=client.name, limit=count))
        if live:
            viewer = _start_viewer()
            pipe = cast(BinaryIO, viewer.stdin)
            watchers.append(CaptureFile.into(frames, ports, pipe, "Wireshark's input", lab=client.name))
        if not watchers:
            channel = FrameChannel.connect(frames, dict.fromkeys(ports))
            watchers.append(Lines(channel, sys.stdout, limit=count, as_json=output == "json"))
        with until_interrupted() as interrupted:
            click.echo(f"watching {', '.join(dict.fromkeys(ports))}; Ctrl-C ends it", err=True)
            watch(watchers, interrupted, seconds, viewer)
    except FrameChannelError as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"cannot write {file}: {error.strerror or error}") from None
    finally:
        for watcher in watchers:
            watcher.close()
    where = f" in {file}" if file not in (None, STANDARD_OUTPUT) else ""
    click.echo(_report(watchers[0], where), err=True)
    failures = [watcher.failure for watcher in watchers if watcher.failure]
    if failures:
        raise click.ClickException("; ".join(failures))
