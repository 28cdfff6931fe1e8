"""`emunet capture`: watch ports, as lines on the terminal, as a capture file, or in Wireshark as it happens.

Rule of this file: it opens watchers (`watching`) and says what came of them; each of them does the watching.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import BinaryIO, cast

import click

from emunet.cli.following import Follower
from emunet.cli.interrupt import until_interrupted
from emunet.cli.lines import Lines
from emunet.cli.meanwhile import Meanwhile
from emunet.cli.options import lab_option, output_option, print_json, the_lab
from emunet.cli.watching import Watcher, watch
from emunet.daemon.capture_file import STANDARD_OUTPUT, CaptureFile
from emunet.daemon.capture_filter import BadFilter, capture_filter
from emunet.daemon.client import LabClient
from emunet.daemon.frame_channel import FrameChannel, FrameChannelError
from emunet.daemon.frame_format import Answer

_LINGER_SECONDS = 1.0
"""How long the last packets that are followed may still be on their way."""

_AFTER_SECONDS = 0.2
"""How long what a command caused may go on after its end: the last words of its connections."""


def _follow(
    client: LabClient, ports: Sequence[str], text: str, file: str | None, count: int | None, seconds: float | None,
    output: str, command: str | None,
) -> int:  # fmt: skip
    """Follow packets over these ports, or all of them, and give out what was seen; the command's exit code, or 0."""
    frames = client.folder.frames
    try:
        every = FrameChannel.list_ports(frames)
        judge = capture_filter(text, every)
        channel = FrameChannel.connect(frames, dict.fromkeys(ports) if ports else [port.name for port in every])
    except (FrameChannelError, BadFilter) as error:
        raise click.ClickException(str(error)) from None
    follower = Follower(channel, judge, count)
    code = 0
    try:
        with until_interrupted() as interrupted:
            if command is None:
                click.echo(f"watching {', '.join(ports) or 'every port'}; Ctrl-C ends it", err=True)
                watch([follower], interrupted, seconds)
            else:
                code = _while(Meanwhile(command), [follower], interrupted, seconds, None)
            if follower.full:
                follower.linger()
                watch([follower], interrupted, _LINGER_SECONDS if command is None else _AFTER_SECONDS)
    finally:
        follower.close()
    if file is None and output == "json":
        print_json(follower.as_fields())
    elif file is None:
        follower.print(sys.stdout)
    else:
        try:
            with (
                os.fdopen(os.dup(sys.stdout.fileno()), "wb") if file == STANDARD_OUTPUT else open(file, "wb") as stream
            ):
                follower.write(stream, every, client.name)
        except OSError as error:
            raise click.ClickException(f"cannot write {file}: {error.strerror or error}") from None
    packets = "1 packet" if len(follower.packets) == 1 else f"{len(follower.packets):,} packets"
    lost = f"{follower.lost:,} lost: they came faster than they could be taken" if follower.lost else "none lost"
    click.echo(f"{packets} seen at {follower.written:,} ports in all, {lost}", err=True)
    return code


def _report(watcher: Watcher, where: str) -> str:
    frames = "1 frame" if watcher.written == 1 else f"{watcher.written:,} frames"
    lost = f"{watcher.lost:,} lost: they came faster than they could be written" if watcher.lost else "none lost"
    return f"{frames}{where}, {lost}"


def _start_viewer(lab: Answer) -> subprocess.Popen[bytes]:
    """Wireshark, reading what it is sent: with the names that the capture brings, and tunnels on any port."""
    program = shutil.which("wireshark")
    if program is None:
        raise click.ClickException(
            "Wireshark is not installed: apt-get install wireshark; or write a file with -w and open that elsewhere"
        )
    tunnels = [part for port in lab.vxlan_ports if port != 4789 for part in ("-d", f"udp.port=={port},vxlan")]
    # In a session of its own, so that Ctrl-C here ends the capture and leaves what it shows on the screen.
    command = [program, "-k", "-N", "mnd", *tunnels, "-i", "-"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)


@click.command()
@click.argument("ports", nargs=-1, metavar="PORT...")
@click.option("-w", "file", metavar="FILE", help="Write FILE.pcapng, or FILE.pcap (one port); - is standard output.")
@click.option(
    "-f", "--filter", "filter", default="", metavar="FILTER",
    help="Only frames that this lets through: as tcpdump reads it, and names of the lab are addresses.",
)  # fmt: skip
@click.option(
    "--follow", metavar="FILTER",
    help="Packets that this lets through at any port, each at every port that it passes, in order.",
)  # fmt: skip
@click.option("-c", "count", type=click.IntRange(min=1), metavar="N", help="End after N frames.")
@click.option("--seconds", type=click.FloatRange(min=0), metavar="S", help="End after S seconds.")
@click.option("--while", "command", metavar="COMMAND", help="Run this shell command, and end when it has ended.")
@click.option("--live", is_flag=True, help="Show it in Wireshark as it happens.")
@lab_option
@output_option
def capture(
    ports: tuple[str, ...], file: str | None, filter: str, follow: str | None, count: int | None,
    seconds: float | None, command: str | None, live: bool, lab: str | None, output: str,
) -> None:  # fmt: skip
    """Watch what passes ports: both directions, with the reason of every drop.

    \b
    emunet capture web-1                             a line for each frame
    emunet capture web-1 host1:eth0 -w x.pcapng      a file, with an interface for each port
    emunet capture web-1 -f 'icmp and host web-3'    only what a filter lets through
    emunet capture web-1 web-3 -w x.pcapng --while 'emunet ping web-1 web-3'
    emunet capture host1:flannel.1 --live            Wireshark
    emunet capture --follow 'icmp and src web-1' -c 1 -w x.pcapng
    """  # noqa: D301 - click knows the character by this escape
    if file == STANDARD_OUTPUT and sys.stdout.isatty():
        raise click.UsageError("-w - writes binary data: send it into a pipe, as in  | tshark -r -")
    if follow is not None:
        if filter or live:
            raise click.UsageError("--follow takes a filter of its own, and writes to a file or the terminal")
        raise click.exceptions.Exit(_follow(the_lab(lab), ports, follow, file, count, seconds, output, command))
    if not ports:
        raise click.UsageError("name a port, like web-1 or host1:eth0; --follow FILTER watches all of them")
    client = the_lab(lab)
    frames = client.folder.frames
    watchers: list[Watcher] = []
    viewer = None
    code = 0
    try:
        if file is not None:
            watchers.append(CaptureFile.open(frames, ports, file, lab=client.name, limit=count, filter=filter))
        if live:
            facts = FrameChannel.describe(frames)
            judge = capture_filter(filter, facts.ports) if filter else None
            channel = FrameChannel.connect(frames, dict.fromkeys(ports))
            viewer = _start_viewer(facts)
            live_capture = CaptureFile(channel, cast(BinaryIO, viewer.stdin), "Wireshark's input", filter=judge)
            live_capture.begin(facts.ports, client.name)
            watchers.append(live_capture)
        if not watchers:
            judge = capture_filter(filter, FrameChannel.list_ports(frames)) if filter else None
            channel = FrameChannel.connect(frames, dict.fromkeys(ports))
            watchers.append(Lines(channel, sys.stdout, limit=count, filter=judge, as_json=output == "json"))
        with until_interrupted() as interrupted:
            pipe = viewer.stdin.fileno() if viewer and viewer.stdin else None
            if command is None:
                click.echo(f"watching {', '.join(dict.fromkeys(ports))}; Ctrl-C ends it", err=True)
                watch(watchers, interrupted, seconds, pipe)
            else:
                code = _while(Meanwhile(command), watchers, interrupted, seconds, pipe)
    except (FrameChannelError, BadFilter) as error:
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
    if code:
        raise click.exceptions.Exit(code)


def _while(
    running: Meanwhile, watchers: list[Watcher], interrupted: int, seconds: float | None, pipe: int | None
) -> int:
    """Watch until a command has ended, and what it caused has; its exit code."""
    watch(watchers, interrupted, seconds, pipe, running.fileno())
    code = running.finish()
    watch(watchers, interrupted, _AFTER_SECONDS, pipe)  # who has enough says so again at once
    return code
