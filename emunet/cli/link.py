"""`emunet link`: change one thing on a running wire, and keep the rest.

Rule of this file: without a change it shows the wires as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from emunet.cli.options import lab_option, output_option, print_json, the_lab
from emunet.daemon.client import LabClient

F = TypeVar("F", bound=Callable[..., Any])

_SETTINGS = {
    "delay": ("TIME", "What each frame takes: 20ms."),
    "jitter": ("TIME", "How much more or less it may be: 5ms. Frames keep their order."),
    "distribution": ("uniform|normal", "Of the jitter; normal: it is the standard deviation."),
    "loss": ("SHARE", "Frames lost: 1%."),
    "burst": ("P,R", "Losses in a row (Gilbert-Elliott): how often it goes bad, and how often good again: 1%,30%."),
    "every": ("N", "Lose each N-th frame."),
    "match": ("FILTER", "Lose, duplicate, reorder and corrupt only such frames: 'udp port 53'."),
    "duplicate": ("SHARE", "Frames that arrive twice."),
    "reorder": ("SHARE", "Frames that pass those which wait."),
    "corrupt": ("SHARE", "Frames with one bit flipped."),
    "rate": ("RATE", "What fits through: 10mbit."),
    "queue": ("FRAMES", "How many may wait for the rate; more are dropped."),
    "mtu": ("BYTES", "Lose what is longer, without a word to anybody."),
}


def setting_options(function: F) -> F:
    """An option for each setting of `Impairment`."""
    for name, (metavar, line) in reversed(_SETTINGS.items()):
        function = click.option(f"--{name}", metavar=metavar, help=line)(function)
    return function


@click.command()
@click.argument("name", required=False, metavar="[LINK]")
@setting_options
@click.option("--from", "source", metavar="DEVICE", help="One direction only: what this end sends.")
@click.option("--up/--down", "up", default=None, help="Plug it in, or pull it out.")
@click.option("--flap", metavar="UP,DOWN", help="Up and down by turns: 10s,2s. `off` ends it.")
@click.option("--clear", is_flag=True, help="Make it a plain wire again.")
@lab_option
@output_option
def link(
    name: str | None, source: str | None, up: bool | None, flap: str | None, clear: bool, lab: str | None, output: str,
    **settings: str | None,
) -> None:  # fmt: skip
    """Change one thing on a wire and keep the rest; without a change, list the wires.

    `0` and `off` end a setting. What is on the wire keeps its time.

    \b
    emunet link host1--switch1 --delay 20ms --jitter 5ms --loss 1%
    emunet link host1--switch1 --rate 10mbit --queue 50 --from host1
    emunet link host1--switch1 --loss 100% --match 'udp port 53'
    emunet link host1--switch1 --flap 10s,2s
    emunet link host1--switch1 --down
    """  # noqa: D301 - click knows the character by this escape
    change: dict[str, Any] = {key: value for key, value in {"up": up, "flap": flap}.items() if value is not None}
    wanted = {key: value for key, value in settings.items() if value is not None}
    if clear:
        wanted = _CLEARED | wanted
    if wanted:
        change["set"] = wanted
    if source is not None:
        if not wanted:
            raise click.UsageError(f"--from {source} says for which direction settings count: give one, like --loss 1%")
        change["from"] = source
    client = the_lab(lab)
    if change:
        if name is None:
            raise click.UsageError("which LINK? `emunet link` lists them")
        check_change(change)
        client.ask("PUT", ("wires", name), change)
    _show(client, name, output)


_CLEARED = dict.fromkeys(_SETTINGS, "off") | {"distribution": "uniform", "queue": "1000"}


def check_change(change: dict[str, Any]) -> None:
    """Say what is wrong with values before anybody is asked. UsageError."""
    from emunet.lab.trouble import WireChange, check_settings

    try:
        check_settings(change.get("set", {}))
        WireChange(up=change.get("up"), flap=change.get("flap"))
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _show(client: LabClient, name: str | None, output: str) -> None:
    wires = [wire for wire in client.get("wires") if name is None or wire["name"] == name]
    if name is not None and not wires:
        raise click.ClickException(f"there is no link {name}: `emunet link` lists them")
    if output == "json":
        print_json(wires)
        return
    from emunet.cli.render import console, table

    shown = table("link", "from", "to", "state", "what goes wrong", prose="what goes wrong")
    for wire in wires:
        ends, ways = wire["ends"], list(wire["from"].values())
        if ways[0] == ways[1]:
            shown.add_row(wire["name"], *ends, _state(wire), _words(ways[0]))
        else:
            shown.add_row(wire["name"], *ends, _state(wire), _words(ways[0]))
            shown.add_row("", *reversed(ends), "", _words(ways[1]))
    console().print(shown)


def _state(wire: dict[str, Any]) -> Any:
    from rich.text import Text

    state = Text("up", "green") if wire["up"] else Text("down", "bold red")
    if wire["flap"] is not None:
        state.append(f", flaps {wire['flap']}", "yellow")
    return state


def _words(settings: dict[str, str]) -> Any:
    from rich.text import Text

    text = ", ".join(f"{name} {value}" for name, value in settings.items())
    return Text(text, "yellow") if text else Text("nothing", "dim")
