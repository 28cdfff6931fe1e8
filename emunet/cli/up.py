"""`emunet up`: start a lab in the background and return when every pod is ready.

Rule of this file: what a person typed is checked here; what the files say is checked by the lab.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

import emunet
from emunet.cli.options import output_option, print_json
from emunet.cli.progress import bar
from emunet.daemon.settings import CaptureWish, Settings, Wires

DEFAULT = Path("topologies", "two-hosts.yaml")


class CaptureOption(click.ParamType[CaptureWish]):
    """`PORT[,PORT...]=FILE`."""

    name = "capture"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> CaptureWish:
        """The ports and the absolute name of the file."""
        if isinstance(value, CaptureWish):
            return value
        ports, equals, file = str(value).partition("=")
        names = tuple(name.strip() for name in ports.split(","))
        if not equals or not file or not all(names):
            self.fail(f"{value!r} should be like web-1,host1:eth0=FILE.pcapng", param, ctx)
        folder = os.path.dirname(os.path.abspath(file))
        if not os.path.isdir(folder):
            self.fail(f"there is no folder {folder} for {file}", param, ctx)
        return CaptureWish(names, os.path.abspath(file))


class LabName(click.ParamType[str]):
    """A lab's name: it names a folder, and is what Kubernetes calls a DNS label."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name, if it can be one."""
        text = str(value)
        plain = text.replace("-", "")
        if not (plain.isascii() and plain.isalnum() and text == text.lower()) or len(text) > 63 or text[0] == "-":
            self.fail(f"{text!r} cannot name a lab: lower-case letters, digits and - serve, 63 at most", param, ctx)
        return text


@click.command()
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option("--lab", type=LabName(), metavar="NAME", help="Its name; by default the topology's own.")
@click.option(
    "--wires", type=click.Choice(["auto", "tap", "memory"]), default="auto",
    help="Pods as namespaces of this machine's kernel (tap), or as network stacks in memory; auto: tap where allowed.",
)  # fmt: skip
@click.option(
    "--capture", "captures", type=CaptureOption(), multiple=True, metavar="PORT[,PORT...]=FILE",
    help="Write what passes these ports to a pcapng file, from the first frame on. May be given more than once.",
)  # fmt: skip
@click.option(
    "--capture-filter", "filter", default="", metavar="FILTER",
    help="Of that, only what this filter lets through: `udp port 53 and host web-1`, as tcpdump reads it.",
)  # fmt: skip
@click.option(
    "--record", type=click.Path(dir_okay=False, writable=True), metavar="FILE",
    help="Write all that comes into the lab to a file that `emunet replay` plays again.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, metavar="N", help="What MACs and all chance come from.")
@click.option(
    "--speed", type=click.FloatRange(min=0, min_open=True), default=1.0, metavar="X",
    help="Lab seconds per second, on memory wires.",
)  # fmt: skip
@click.option("--no-flow-cache", is_flag=True, help="Decide about every frame anew; slower, and the same in all else.")
@click.option(
    "--internet", is_flag=True,
    help="Let pods out: to all that this machine reaches but its loopback, through passt (IPv6 too) or slirp4netns.",
)  # fmt: skip
@click.option("--offload", type=click.Choice(["on", "off"]), default="on", help="Let TCP of up to 64 KB pass uncut.")
@output_option
def up(
    files: tuple[str, ...], lab: str | None, wires: Wires, captures: tuple[CaptureWish, ...], filter: str,
    record: str | None, seed: int, speed: float,
    no_flow_cache: bool, internet: bool, offload: str, output: str,
) -> None:  # fmt: skip
    """Start a lab in the background; returns once every pod is ready.

    FILEs hold one kind: Topology and any Kubernetes objects; without one it is topologies/two-hosts.yaml.

    \b
    emunet up
    emunet up topologies/leaf-spine.yaml --capture web-1,host1:eth0=first.pcapng
    emunet up topologies/two-hosts.yaml --wires memory --speed 10
    emunet up --internet
    """  # noqa: D301 - click knows the character by this escape
    from emunet.daemon.start import StartFailed, start

    if filter and not captures:
        raise click.UsageError("--capture-filter says what of --capture is written: say --capture PORT=FILE too")
    if speed != 1.0 and wires != "memory":
        raise click.UsageError("time on TAP wires is the kernel's, so --speed needs memory wires: add --wires memory")
    settings = Settings(
        files=files or (_default_topology(),),
        directory=_here(),
        lab=lab or "",
        wires=wires,
        captures=tuple(replace(wish, filter=filter) for wish in captures),
        record=os.path.abspath(record) if record else "",
        seed=seed,
        speed=speed,
        flow_cache=not no_flow_cache,
        offload=offload == "on",
        internet=internet,
    )
    began = time.monotonic()
    warnings: list[str] = []
    try:
        with bar("beginning") as progress:
            status = start(
                settings, lambda kind, text: warnings.append(text) if kind == "warning" else progress.say(text)
            )
    except StartFailed as error:
        _warn(warnings)
        print(error, file=sys.stderr)
        click.get_current_context().exit(1)
    _warn(warnings)
    if output == "json":
        print_json(status)
    else:
        _summarize(status, time.monotonic() - began)


def _here() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        raise click.ClickException("the folder that you are in was removed: cd to one that is there") from None


def _default_topology() -> str:
    """topologies/two-hosts.yaml: of the current folder, else of this installation."""
    if DEFAULT.is_file():
        return os.fspath(DEFAULT)
    home = Path(emunet.__file__).parent
    for place in (home.parent, home):
        if (place / DEFAULT).is_file():
            return os.fspath(place / DEFAULT)
    raise click.UsageError(f"there is no {DEFAULT} here: name a topology file")


def _warn(warnings: list[str]) -> None:
    for text in warnings:
        print(f"warning: {text}", file=sys.stderr)


def _summarize(status: dict[str, Any], seconds: float) -> None:
    from rich.text import Text

    from emunet.cli.render import console, count

    told = f"{count(len(status['hosts']), 'host')}, {count(len(status['pods']), 'pod')}"
    wires = "TAP wires" if status["wires"] == "tap" else "memory wires"
    out = console()
    out.print(Text.assemble((status["lab"], "bold green"), f" is up in {seconds:.1f} s: {told}, on {wires}"))
    if status["internet"] is not None:
        from emunet.cli.status import way_out

        out.print(way_out(status["internet"]), soft_wrap=True)
    if status["wires_reason"]:
        reason = f"Memory wires, because: {status['wires_reason']} `emunet doctor` tells how to allow TAPs."
        out.print(Text(reason, "yellow"), soft_wrap=True)
