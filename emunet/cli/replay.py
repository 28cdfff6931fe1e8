"""`emunet replay`: play a capture into a port, with the time between frames that it had.

Rule of this file: a file is read as it is played, however long it is, and Ctrl-C ends it
between two frames.
"""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Iterator
from typing import Any

import click

from emunet.cli.fitting import Fitting
from emunet.cli.interrupt import until_interrupted
from emunet.cli.options import lab_option, output_option, print_json, the_lab
from emunet.cli.progress import Bar, bar
from emunet.daemon.frame_channel import FrameChannel, FrameChannelError
from emunet.daemon.frame_format import INBOUND, INJECT_BATCH, OUTBOUND
from emunet.packet.malformed import Malformed
from emunet.packet.pcap import CapturedFrame
from emunet.packet.pcapng import read_capture


class Rate(click.ParamType[float | str]):
    """`original`, `fast`, or frames per second."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        """The word, or the number."""
        if value in ("original", "fast"):
            return str(value)
        try:
            rate = float(value)
        except ValueError:
            rate = 0.0
        if rate <= 0:
            self.fail(f"{value} is no rate: say original, fast, or a number of frames per second", param, ctx)
        return rate


class Player:
    """Plays frames into ports of a channel.

    `rate` is as the command has it. `stop` is a descriptor that ends it when readable.
    """

    def __init__(self, channel: FrameChannel, rate: float | str, stop: int, shown: Bar | None = None) -> None:
        self._shown = shown
        self.sent = 0
        self.cut = 0
        self.stopped = False
        self._channel = channel
        self._rate = rate
        self._stop = stop

    def play(self, frames: Iterator[tuple[int, CapturedFrame, bytes]]) -> None:
        """Play them once: (number of the port, frame as captured, bytes to play)."""
        began = time.monotonic()
        first: int | None = None
        batch: list[tuple[int, bytes]] = []
        for count, (port, frame, data) in enumerate(frames):
            if first is None:
                first = frame.time_ns
            if self._rate == "original":
                due = began + max(0, frame.time_ns - first) / 1e9
            elif isinstance(self._rate, float):
                due = began + count / self._rate
            else:
                due = began
            if len(batch) == INJECT_BATCH or due > time.monotonic():
                self._send(batch)
                if self._wait(due):
                    return
            batch.append((port, data))
            self.cut += frame.original_length > len(frame.data)
        self._send(batch)

    def _send(self, batch: list[tuple[int, bytes]]) -> None:
        self._channel.send_by(batch)
        self.sent += len(batch)
        batch.clear()
        if self._shown is not None:
            self._shown.to(self.sent)

    def _wait(self, due: float) -> bool:
        """Wait until it is time; True where it is time to stop instead."""
        # select(2), since poll(2) counts in whole milliseconds
        self.stopped = bool(select.select([self._stop], [], [], max(0.0, due - time.monotonic()))[0])
        return self.stopped


def chosen(frames: Iterator[CapturedFrame], direction: str, interface: str | None) -> Iterator[CapturedFrame]:
    """Those frames of a capture that are meant."""
    wanted = {"in": INBOUND, "out": OUTBOUND}.get(direction)
    for frame in frames:
        if wanted is not None and frame.direction != wanted:
            continue
        if interface is None or frame.interface == interface:
            yield frame


def _frames(file: str, only: str, interface: str | None, times: int) -> int | None:
    """How many there will be, where somebody sees the bar; None else, since it costs a reading of the file."""
    if not sys.stderr.isatty():
        return None
    return times * sum(1 for _ in chosen(read_capture(file), only, interface))


def _again(file: str, output: str) -> None:
    """Play a recording again, in memory; exit code 1 where something else came of it."""
    from emunet.fabric.recording import NotARecording, Recording, is_recording
    from emunet.lab.rerun import Rerun

    try:
        if not is_recording(file):
            raise click.UsageError(f"{file} is a capture: say with --from PORT which pod is to have sent it")
        recording = Recording.load(file)
    except NotARecording as error:
        raise click.ClickException(str(error)) from None
    began = time.process_time()
    with bar("playing again"):
        again = Rerun(recording).run()
    took = time.process_time() - began
    whole = recording.delivered is not None
    if output == "json":
        ledger = again.plane.world.ledger.as_dict()
        same = again.same if whole else None
        print_json({"inputs": again.inputs, "same": same, "differences": again.differences, "frames": ledger})
    else:
        last = recording.entries[-1].at if recording.entries else recording.began
        click.echo(f"{again.inputs:,} inputs of {(last - recording.began) / 1e9:.1f} s played again in {took:.1f} s")
        if not whole:
            click.echo("the recording was cut off, so nothing tells whether the same came of it")
        elif again.same:
            click.echo("all came out as it did then: every frame at every pod, byte for byte, at the same time")
        for difference in again.differences:
            click.echo(f"not as then: {difference}")
    if again.differences:
        click.get_current_context().exit(1)


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--from", "port", metavar="PORT", help="The pod that is to have sent the frames of a capture.")
@click.option(
    "--rate", type=Rate(), default="original", metavar="RATE",
    help="original (as captured; the default), fast, or frames per second.",
)  # fmt: skip
@click.option(
    "--to", "other", metavar="PORT", help="Who answers in it: both sides are played, with addresses that fit."
)
@click.option(
    "--map", "wishes", multiple=True, metavar="OLD=NEW",
    help="Another address (or a pod's) for one of the capture. May be given more than once.",
)  # fmt: skip
@click.option("--fit", is_flag=True, help="Other MACs only: the sender's own, and its next hop's.")
@click.option("--loop", "times", type=click.IntRange(min=1), default=1, metavar="N", help="Play it N times.")
@click.option("--only", type=click.Choice(["all", "in", "out"]), default="all", help="Frames of one direction only.")
@click.option("--interface", metavar="NAME", help="Frames of one interface of a pcapng file only.")
@lab_option
@output_option
def replay(
    file: str,
    port: str | None,
    rate: float | str,
    other: str | None,
    wishes: tuple[str, ...],
    fit: bool,
    times: int,
    only: str,
    interface: str | None,
    lab: str | None,
    output: str,
) -> None:
    """Play a capture (pcap or pcapng) into a port, as if the pod there had sent it; or a recording again.

    What `emunet record` wrote needs no lab: it is played again in memory, and compared with what came of it then.

    \b
    emunet replay x.pcapng --from web-1
    emunet replay x.pcap --from web-1 --rate 1000 --loop 10
    emunet replay elsewhere.pcap --from web-1 --to web-3     as a talk between the two
    """  # noqa: D301 - click knows the character by this escape
    began = time.monotonic()
    if port is None:
        _again(file, output)
        return
    try:
        frames = the_lab(lab).folder.frames
        fitting = None
        if other is not None or wishes or fit:
            fitting = Fitting(FrameChannel.list_ports(frames), port, other, wishes)
        ports = [port] if fitting is None else fitting.ports
        with (
            FrameChannel.connect(frames, ports, watch=False, inject=True, raw=True) as channel,
            until_interrupted() as interrupted,
            bar(f"playing into {port}", _frames(file, only, interface, times)) as shown,
        ):
            player = Player(channel, rate, interrupted, shown)
            for _ in range(times):
                played = chosen(read_capture(file), only, interface)
                as_they_are = ((0, frame, frame.data) for frame in played)
                player.play(as_they_are if fitting is None else fitting.fitted(played))
                if player.stopped or not player.sent:
                    break
            for notice in channel.settle():
                click.echo(notice, err=True)
    except FrameChannelError as error:
        raise click.ClickException(str(error)) from None
    except Malformed as error:
        raise click.ClickException(f"{file}: {error}") from None
    except OSError as error:
        raise click.ClickException(f"cannot read {file}: {error.strerror or error}") from None
    seconds = time.monotonic() - began
    if output == "json":
        print_json({"frames": player.sent, "cut": player.cut, "seconds": round(seconds, 3)})
        return
    told = "1 frame" if player.sent == 1 else f"{player.sent:,} frames"
    click.echo(f"{told} played into {' and '.join(ports)} in {seconds:.1f} s")
    if player.cut:
        click.echo(f"{player.cut:,} of them were cut when they were captured, and were played as they are", err=True)
