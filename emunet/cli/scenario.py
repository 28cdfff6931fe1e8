"""`emunet scenario`: play a timeline of trouble, and tell what became of the flows that it watches.

Without `--lab` a scenario is played on its own topology, on memory wires, in time that
jumps; with it on that lab, as it is, in the lab's own time.

Rule of this file: it plays and prints; what a scenario means is `cluster.scenario`'s, and
what happened `lab.outcome`'s.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from emunet.cli.options import output_option, print_json, the_lab
from emunet.cli.progress import Bar, bar
from emunet.daemon.client import LabClient, LabError


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--lab", metavar="NAME", help="Play it on this running lab instead of its own topology in memory.")
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="Another seed than the scenario's.")
@click.option("--figure", "picture", type=click.Path(dir_okay=False), metavar="FILE.svg", help="Draw it; or FILE.png.")
@click.option("--capture", type=click.Path(dir_okay=False), metavar="FILE.pcapng", help="Write what all ports carry.")
@output_option
def scenario(
    file: str, lab: str | None, seed: int | None, picture: str | None, capture: str | None, output: str
) -> None:
    """Play a timeline of trouble, and tell what became of the flows that it watches.

    \b
    emunet scenario scenarios/power-cut.yaml --figure power-cut.svg
    emunet scenario scenarios/power-cut.yaml --lab two-hosts
    """  # noqa: D301 - click knows the character by this escape
    from emunet.cluster.load import BadInput
    from emunet.cluster.scenario import read_scenario
    from emunet.lab.scenario import ScenarioFailed

    if lab is not None and (seed is not None or capture is not None):
        raise click.UsageError(
            "a running lab has its seed, and `emunet capture` its captures: leave --lab out, or them"
        )
    if picture is not None:
        from emunet.cli.draw import check_picture

        check_picture("--figure", picture)
    began = time.monotonic()
    try:
        wanted = read_scenario(file)
        if lab is None and not wanted.topology:
            raise click.UsageError(f"{file} names no topology: say on which running lab, with --lab")
        played = _in_memory(wanted, seed, capture) if lab is None else _on_lab(wanted, the_lab(lab))
    except (BadInput, ScenarioFailed) as error:
        print(error, file=sys.stderr)
        click.get_current_context().exit(1)
    took = time.monotonic() - began
    if picture is not None:
        from emunet.cli.draw import write_picture
        from emunet.pictures.timeline import figure

        write_picture(picture, figure(played))
    if output == "json":
        print_json(played)
    else:
        _show(played, took, picture)


def _in_memory(wanted: Any, seed: int | None, capture: str | None) -> dict[str, Any]:
    from emunet.lab.scenario import play

    with bar(wanted.name, 1.0) as shown:
        return play(wanted, seed=seed, capture=capture, progress=shown.to).as_dict()


def _on_lab(wanted: Any, client: LabClient) -> dict[str, Any]:
    """In the lab's own time. Whatever ends it early, nothing is sent any more."""
    from emunet.lab.scenario import SETTLING, Played, flow_of

    status = client.get("status")
    fields = ("name", "source", "target", "interval", "size", "late", "random")
    flows = [{name: getattr(flow_of(one), name) for name in fields} for one in wanted.flows]
    began = client.post("flows", flows=flows, duration=wanted.duration)["at_ns"]
    played = Played(wanted.name, status["lab"], status["wires"], status["seed"], began, wanted.duration)
    try:
        with bar(wanted.name, wanted.duration + SETTLING) as shown:
            clock = _LabTime(began, status["speed"], shown)
            for event in wanted.events:
                clock.wait(began + event.at)
                at = _tell(client, event)
                played.events.append((at, event.words))
            clock.wait(began + wanted.duration)
            client.post("flows", "stop")
            clock.wait(began + wanted.duration + SETTLING)
        played.flows = client.get("flows")["flows"]
        played.frames = client.get("status")["frames"]
    finally:
        client.ask("DELETE", ("flows",))
    return played.as_dict()


class _LabTime:
    """When it is how late in a lab, from here."""

    def __init__(self, lab_time: int, speed: float, shown: Bar) -> None:
        self._lab = lab_time
        self._here = time.monotonic()
        self._speed = speed
        self._shown = shown

    def wait(self, until: int) -> None:
        """Wait for a moment of lab time, and show how far it is."""
        due = self._here + (until - self._lab) / 1e9 / self._speed
        while (left := due - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))
            self._shown.to((time.monotonic() - self._here) * self._speed * 1e9)


def _tell(client: LabClient, event: Any) -> int:
    """Let an event happen; the lab time at which it did."""
    said = {name: value for name, value in event.arguments.items() if name != "clear"}
    match event.act:
        case "link":
            path: tuple[str, ...] = ("wires", event.subject)
        case "power":
            path = ("devices", event.subject)
        case "freeze":
            path = ("pods", event.subject)
        case "partition":
            path = ("partition",)
        case "dns":
            path = ("dns",)
        case _:
            path = ("tables", event.subject, said.pop("table"))
            said = {name: value for name, value in said.items() if value is not None}
    try:
        return int(client.ask("PUT", path, said)["at_ns"])
    except LabError as error:
        raise LabError(f"{event.place}: {error}") from None


def _show(played: dict[str, Any], took: float, picture: str | None) -> None:
    from rich.text import Text

    from emunet.cli.render import console, table
    from emunet.lab.outcome import seconds

    out, began = console(), played["began_ns"]
    told = f" on {played['lab']}, {played['wires']} wires, seed {played['seed']}: "
    spent = f"{seconds(played['duration_ns'])} of lab time in {took:.1f} s"
    out.print(Text.assemble((played["scenario"], "bold"), told + spent))
    out.print()
    events = table("at", "what happens", right=("at",), prose="what happens")
    for event in played["events"]:
        events.add_row(seconds(event["at_ns"] - began), event["what"])
    out.print(events)
    out.print()
    odd = [name for name in ("late", "reordered", "duplicated", "moved") if any(one[name] for one in played["flows"])]
    counted = ("sent", "received", "lost", *odd)  # what happened to no flow has no column
    flows = table("flow", "from", "to", *counted, "took, median", "99 of 100", right=(*counted, "took, median"))
    for flow in played["flows"]:
        times = flow["latency_ns"]
        took_words = [f"{times[name] / 1e6:,.3g} ms" for name in ("median", "p99")] if times else ["", ""]
        figures = [Text(f"{flow[name]:,}", "red" if name == "lost" and flow[name] else "") for name in counted]
        flows.add_row(Text(flow["name"], "bold"), flow["from"], flow["to"], *figures, *took_words)
    out.print(flows)
    for flow in played["flows"]:
        for line in _story(flow, began):
            out.print(Text.assemble((f"{flow['name']}: ", "bold"), line), soft_wrap=True)
    if picture is not None:
        out.print(f"drawn: {picture}")


def _story(flow: dict[str, Any], began: int) -> list[str]:
    """What is worth a line about a flow: why it lost, when it was silent, where it went."""
    from emunet.lab.outcome import seconds

    lines = []
    if flow["why"]:
        lines.append("lost because " + ", ".join(f"{name} {number:,}" for name, number in flow["why"].items()))
    if flow["on_the_way"]:
        lines.append(f"{flow['on_the_way']:,} were on their way at the end, or were lost where nobody sees it")
    for gap in flow["gaps"][:5]:
        first, last = gap["from_ns"] - began, gap["to_ns"] - began
        lines.append(f"silent for {seconds(last - first)}, from {seconds(first)} to {seconds(last)}")
    if flow["gaps_in_all"] > 5:
        lines.append(f"and silent {flow['gaps_in_all'] - 5} more times")
    for move in flow["moves"][:5]:
        lines.append(f"moved at {seconds(move['at_ns'] - began)}: {' → '.join(move['path'])}")
    return lines
