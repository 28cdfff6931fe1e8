"""`emunet link`: change one thing on a running wire.

Rule of this file: without a change it shows the wires as they are.
"""

from __future__ import annotations

import click

from emunet.cli.options import lab_option, output_option, print_json, the_lab
from emunet.daemon.client import LabClient


@click.command()
@click.argument("name", required=False, metavar="[LINK]")
@click.option("--up/--down", "up", default=None, help="Plug it in, or pull it out.")
@lab_option
@output_option
def link(name: str | None, up: bool | None, lab: str | None, output: str) -> None:
    """Take a wire down, or up again; without a change, list the wires.

    \b
    emunet link host1--switch1 --down
    """  # noqa: D301 - click knows the character by this escape
    client = the_lab(lab)
    if up is not None:
        if name is None:
            raise click.UsageError("which LINK? `emunet link` lists them")
        client.put("wires", name, up=up)
        if output == "text":
            click.echo(f"{name} is {'up' if up else 'down'}")
            return
    _show(client, name, output)


def _show(client: LabClient, name: str | None, output: str) -> None:
    wires = [wire for wire in client.get("wires") if name is None or wire["name"] == name]
    if name is not None and not wires:
        raise click.ClickException(f"there is no link {name}: `emunet link` lists them")
    if output == "json":
        print_json(wires)
        return
    from rich.text import Text

    from emunet.cli.render import console, table

    shown = table("link", "from", "to", "state")
    for wire in wires:
        shown.add_row(wire["name"], *wire["ends"], Text("up", "green") if wire["up"] else Text("down", "bold red"))
    console().print(shown)
