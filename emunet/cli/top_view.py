"""What one look of `emunet top` shows: figures of two moments as tables that fit the screen.

Rule of this file: rates are differences of two looks; nobody is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

from emunet.plane.ledger import FIELDS

VIEWS = ("all", "devices", "ports", "links", "flows")

_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp6"}
_HEADING = 2
"""Rows of a table that are no rows of it: its heading, and the empty one before it."""

_WIDE = 100
"""Columns from which on everything has room."""

_LESS = ("generated", "copied")
"""What a narrow screen leaves out of the devices' books."""


class Look(NamedTuple):
    """What a lab said at a moment (s): its counters, ports and flows, and wires."""

    at: float
    counters: dict[str, Any]
    traffic: dict[str, Any]
    wires: list[dict[str, Any]]


Rows = list[tuple[Any, ...]]


def picture(
    name: str, before: Look, now: Look, view: str, rows: int | None, below: Any = None, *, width: int = _WIDE
) -> Any:
    """All of it, in `rows` lines of a screen of so many columns, or as long as it is."""
    from rich.console import Group

    seconds = max(now.at - before.at, 1e-9)
    sections: dict[str, Callable[[Look, Look, float], tuple[Any, Rows]]] = {
        "devices": partial(_devices, width=width), "ports": _ports, "links": _links, "flows": _flows, "drops": _drops,
    }  # fmt: skip
    wanted = ("devices", "links", "ports", "flows", "drops") if view == "all" else (view, "drops")
    made = [sections[section](before, now, seconds) for section in wanted]
    made = [(table, found) for table, found in made if found]
    shares = _shares([len(found) for _, found in made], None if rows is None else rows - 2)
    parts: list[Any] = [_head(name, before, now, seconds)]
    for (table, found), share in zip(made, shares, strict=True):
        for row in found[:share]:
            table.add_row(*row)
        if share < len(found):
            table.columns[0].header = f"{table.columns[0].header} ({share} of {len(found):,})"
        parts += ["", table]
    if below is not None:
        filled = 1 + sum(share + _HEADING for share in shares)
        parts += [""] * max(1, (rows or 0) - filled) + [below]
    return Group(*parts)


def footer(view: str, delay: float, *, halted: bool, width: int = _WIDE) -> Any:
    """What keys do, and which view it is. Where it does not fit, only the view that is seen has a name."""
    from rich.text import Text

    keys = f"  space {'goes on' if halted else 'halts'}  + - every {delay:g} s  q ends"
    for named in (VIEWS, (view,)):
        line = Text(" halted ", "bold black on yellow") if halted else Text()
        for number, name in enumerate(VIEWS, 1):
            line.append(
                f" {number} {name} " if name in named else f" {number} ", "reverse bold" if name == view else "dim"
            )
        line.append(keys, "dim")
        if line.cell_len <= width:
            break
    return line


def _shares(wanted: list[int], rows: int | None) -> list[int]:
    """How many rows of each table are shown: small ones whole, the rest of the screen among the long ones."""
    if rows is None:
        return wanted
    left = rows - _HEADING * len(wanted)
    shares = [0] * len(wanted)
    for place, index in enumerate(sorted(range(len(wanted)), key=wanted.__getitem__)):
        share = min(wanted[index], max(0, left // (len(wanted) - place)))
        shares[index] = share
        left -= share
    return shares


def _head(name: str, before: Look, now: Look, seconds: float) -> Any:
    from rich.text import Text

    world, last = now.counters["world"], before.counters["world"]
    rate = (world["received"] - last["received"]) / seconds
    late = now.counters["late_ns"] / 1e6
    head = Text.assemble((name, "bold"), f"  {rate:,.0f} frames/s in, {world['queued']:,} queued, ")
    head.append(f"{late:.1f} ms late at worst", "yellow" if late >= 1 else "")
    if now.counters["wire_overruns"]:
        head.append(f", {now.counters['wire_overruns']:,} lost in full TAP queues", "yellow")
    return head


def _table(*columns: str, right: Iterable[str] = ()) -> Any:
    from emunet.cli.render import table

    made = table(*columns, right=tuple(right))
    for column in made.columns[:1]:
        column.min_width = 18
    return made


def _number(value: float, style: str = "") -> Any:
    """Nothing is drawn faint, so that what is busy is seen."""
    from rich.text import Text

    return Text(f"{value:,.0f}", style if round(value) else "dim")


def _devices(before: Look, now: Look, seconds: float, *, width: int) -> tuple[Any, Rows]:
    from rich.text import Text

    fields = [field for field in FIELDS if width >= _WIDE or field not in _LESS]
    rows: Rows = []
    world, last = now.counters["world"], before.counters["world"]
    for device, ledger in [("all together", world), *now.counters["devices"].items()]:
        old = last if device == "all together" else before.counters["devices"].get(device, ledger)
        speed = (ledger["received"] - old["received"]) / seconds
        figures = [_number(ledger[field], "red" if field == "dropped" else "") for field in fields]
        rows.append((Text(device, "bold" if device == "all together" else ""), *figures, _number(speed, "green")))
    return _table("device", *fields, "frames/s", right=(*fields, "frames/s")), rows


def _ports(before: Look, now: Look, seconds: float) -> tuple[Any, Rows]:
    found = []
    for port, figures in now.traffic["ports"].items():
        old = before.traffic["ports"].get(port, {"received": 0, "sent": 0})
        rates = [(figures[way] - old[way]) / seconds for way in ("received", "sent")]
        found.append((sum(rates), figures["received"] + figures["sent"], port, figures, rates))
    found.sort(key=lambda row: (-row[0], -row[1]))
    rows: Rows = [
        (port, _number(figures["received"]), _number(figures["sent"]), *(_number(rate, "green") for rate in rates))
        for _, _, port, figures, rates in found
    ]
    columns = ("received", "sent", "received/s", "sent/s")
    return _table("port", *columns, right=columns), rows


def _links(before: Look, now: Look, seconds: float) -> tuple[Any, Rows]:
    from rich.text import Text

    rows: Rows = []
    for wire in now.wires:
        rates = [_sent(now, end, before, seconds) for end in wire["ends"]]
        ways = [", ".join(f"{name} {value}" for name, value in way.items()) for way in wire["from"].values()]
        wrong = ways[0] if ways[0] == ways[1] else " | ".join(way or "nothing" for way in ways)
        waiting = sum(wire["waiting"].values())
        state = Text("up", "green") if wire["up"] else Text("down", "bold red")
        row = (
            wire["name"],
            state,
            *(_number(rate, "green") for rate in rates),
            _number(waiting),
            Text(wrong, "yellow"),
        )
        rows.append(row)
    right = ("there/s", "back/s", "waiting")
    return _table("link", "state", *right, "what goes wrong", right=right), rows


def _sent(now: Look, end: str, before: Look, seconds: float) -> float:
    """Frames a second that a device puts on a wire by this port."""
    figures, old = now.traffic["ports"].get(end), before.traffic["ports"].get(end)
    return (figures["sent"] - (old["sent"] if old else 0)) / seconds if figures else 0.0


def _flows(before: Look, now: Look, seconds: float) -> tuple[Any, Rows]:
    from rich.text import Text

    old = {_flow_key(flow): flow["frames"] for flow in before.traffic["flows"]}
    found = []
    for flow in now.traffic["flows"]:
        was = old.get(_flow_key(flow), 0)
        new = flow["frames"] - was if flow["frames"] >= was else flow["frames"]  # it was decided anew meanwhile
        found.append((new / seconds, flow))
    found.sort(key=lambda row: (-row[0], -row[1]["frames"]))
    rows: Rows = []
    for rate, flow in found:
        protocol = _PROTOCOLS.get(flow["protocol"], str(flow["protocol"]))
        ends = [flow["source"], flow["destination"]]
        if protocol in ("tcp", "udp"):
            ends = [_joined(end, port) for end, port in zip(ends, flow["ports"], strict=True)]
        to = Text(flow["to"], "red" if flow["to"].startswith("dropped") else "")
        rows.append((flow["from"], to, protocol, *ends, _number(flow["frames"]), _number(rate, "green")))
    columns = ("flow from", "to", "", "source", "destination", "frames", "frames/s")
    return _table(*columns, right=("frames", "frames/s")), rows


def _flow_key(flow: dict[str, Any]) -> tuple[Any, ...]:
    return (flow["from"], flow["to"], flow["source"], flow["destination"], flow["protocol"], *flow["ports"])


def _joined(address: str, port: int) -> str:
    """An address with its port; 0 are those of all flows that have just begun."""
    if not port:
        return f"{address} *"
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _drops(before: Look, now: Look, seconds: float) -> tuple[Any, Rows]:
    reasons, last = now.counters["world"]["reasons"], before.counters["world"]["reasons"]
    rows: Rows = [
        (code, _number(number, "red"), _number((number - last.get(code, 0)) / seconds, "bold red"))
        for code, number in sorted(reasons.items(), key=lambda item: -item[1])
    ]
    return _table("dropped because", "frames", "frames/s", right=("frames", "frames/s")), rows
