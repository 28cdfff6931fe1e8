"""`emunet tour`: what a lab does, in one screen: all pairs pinged, one ping explained, and what to try next.

Rule of this file: every name it prints is one of this lab, and every command it prints works on it.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emunet.cli.options import lab_option, the_lab
from emunet.cli.progress import bar
from emunet.daemon.client import LabClient, LabError

if TYPE_CHECKING:
    from rich.table import Table

_PATIENCE = 5.0
"""Seconds to wait for an answer: the lab has just begun, perhaps on a busy machine, and is somebody's first."""


@click.command()
@lab_option
def tour(lab: str | None) -> None:
    """Ping all pairs, explain one ping, and say what to try next."""
    from rich.text import Text

    from emunet.cli.render import console, ping_matrix, trace

    client = the_lab(lab)
    status = client.get("status")
    out = console()
    if len(status["pods"]) < 2:
        raise LabError(f"the lab {client.name} has no two pods to show anything between")
    with bar("pinging all pairs"):
        answer = client.post("ping", timeout=_PATIENCE)
    out.print(Text("All pairs, round trip in ms (rows send, columns answer)", "bold underline"))
    ping_matrix(out, answer)
    source, target = farthest_pair(status["pods"])
    out.print()
    out.print(Text(f"What becomes of one ping from {source} to {target}, step by step", "bold underline"))
    trace(out, client.post("trace", port=source, to=target), idle=False)
    out.print()
    out.print(Text("Try next", "bold underline"))
    _show_next(out, client, status, source, target)
    if answer["unanswered"]:
        click.get_current_context().exit(1)


def farthest_pair(pods: list[dict[str, Any]]) -> tuple[str, str]:
    """Two pods on different hosts where there are such, else any two."""
    first = pods[0]
    other = next((pod for pod in pods if pod["host"] != first["host"]), pods[1])
    return port_of(first), port_of(other)


def port_of(pod: dict[str, Any]) -> str:
    """A pod's port name: `web-1`, `blue/web-1`."""
    return str(pod["name"]) if pod["namespace"] == "default" else f"{pod['namespace']}/{pod['name']}"


def _show_next(out: Any, client: LabClient, status: dict[str, Any], source: str, target: str) -> None:
    host = next(pod["host"] for pod in status["pods"] if port_of(pod) == source)
    wires = [wire["name"] for wire in client.get("wires") if any(end.startswith(f"{host}:") for end in wire["ends"])]
    rows: list[tuple[str, str]] = []
    if shutil.which("emunet") is None and (activate := Path(sys.executable).parent / "activate").exists():
        shown = activate.relative_to(Path.cwd()) if activate.is_relative_to(Path.cwd()) else activate
        rows.append((f". {shown}", "first: puts emunet into this shell"))
    if status["wires"] == "tap":
        rows.append((f"emunet exec {source} -- ping -c 3 {target}", "a real program in a real namespace"))
    else:
        rows.append((f"emunet ping {source} {target}", "from one network stack in memory to another"))
    rows.append((f"emunet trace {source} 'IP(dst=\"{target}\", ttl=1)/ICMP()'", "where it ends, and who says so"))
    rows.append((f"emunet capture {source} {host}:eth0 -w both.pcapng", "inner and outer frames, for Wireshark"))
    if wires:
        rows.append((f"emunet link {wires[0]} --down; emunet ping", "a cable pulled out, and the reason of every loss"))
    out.print(next_steps(rows))


def next_steps(rows: Sequence[tuple[str, str]]) -> Table:
    """Commands and what comes of them; a command is never cut, what is said of it goes on below."""
    from rich.table import Table
    from rich.text import Text

    made = Table.grid(padding=(0, 2, 0, 0))
    made.add_column(no_wrap=True, min_width=max(len(command) for command, _ in rows) + 2)
    made.add_column()
    for command, why in rows:
        made.add_row(Text(f"  {command}", "bold cyan"), Text(why, "dim"))
    return made
