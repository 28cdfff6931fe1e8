"""How answers look to people: tables, the ping matrix, a trace. Colours on terminals only.

Rule of this file: it prints what it is given and asks nobody. rich is imported by what uses it.
"""

from __future__ import annotations

import os
import re
import sys
from typing import IO, TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

_PIPE_WIDTH = 250
"""Columns where nobody's terminal says how many there are: nothing is cut for `grep` and `less -S`."""

_FILL = re.compile(r" +$", re.MULTILINE)

_IDLE = ("NOT_REASSEMBLED", "NOT_TRACKED", "NOT_TRANSLATED", "NO_POLICY", "FITS", "IP_VALID")
"""Reasons of steps that found nothing to do."""

_VERDICT_STYLES = {"delivered": "green", "consumed": "green", "dropped": "red", "queued": "yellow"}


def console(*, whole: bool = False) -> Console:
    """Where tables go: standard output. `whole`: all of a terminal, as large as it is at the moment.

    COLUMNS and LINES, which some shells export, say how large it was when they did.
    """
    from rich.console import Console

    terminal = sys.stdout.isatty()
    environment = {name: value for name, value in os.environ.items() if not whole or name not in ("COLUMNS", "LINES")}
    return Console(
        highlight=False, width=None if terminal else _PIPE_WIDTH, soft_wrap=False, emoji=False, markup=False,
        file=None if terminal else cast("IO[str]", _Trimmed()), _environ=environment,
    )  # fmt: skip


class _Trimmed:
    """Standard output without the blanks that fill up a table's last column: in a terminal they would wrap."""

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stdout, name)

    def write(self, text: str) -> int:
        """Whole lines come at once."""
        return sys.stdout.write(_FILL.sub("", text))


def table(*columns: str, right: tuple[str, ...] = (), prose: str = "") -> Table:
    """An empty table in the house style; `right` names the columns that hold numbers.

    Where a terminal is too narrow, what stands in the column `prose` goes on below; all others are cut.
    """
    from rich.table import Table

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", no_wrap=column != prose)
    return made


def ready_mark(ready: bool) -> Text:
    """`ready`, or `not ready` in a colour that is seen."""
    from rich.text import Text

    return Text("ready", "green") if ready else Text("not ready", "bold red")


def milliseconds(value: float) -> str:
    """A round trip as three digits or so: `0.42`, `3.1`, `120`."""
    if value == 0:
        return "0"  # memory wires without delay take no lab time
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def ping_matrix(out: Console, answer: dict[str, Any]) -> None:
    """All pairs as a matrix of round trips in ms: rows send, columns answer. Too many pods for the terminal: sums."""
    from rich.text import Text

    pairs = answer["pairs"]
    names = list(dict.fromkeys(row["from"] for row in pairs))
    cell = max(6, *(len(name) for name in names)) if names else 6
    if (cell + 2) * (len(names) + 1) > out.width:
        _ping_sums(out, pairs, names)
    else:
        by_pair = {(row["from"], row["to"]): row for row in pairs}
        matrix = table("from \\ to", *names, right=tuple(names))
        for source in names:
            matrix.add_row(Text(source, "bold"), *[_ping_cell(by_pair.get((source, target))) for target in names])
        out.print(matrix)
    ping_summary(out, answer)


def _ping_cell(row: dict[str, Any] | None) -> Text:
    from rich.text import Text

    if row is None:
        return Text("·", "dim")
    times = [one for one in row["rtt_ms"] if one is not None]
    if not times:
        return Text("✗", "bold red")
    return Text(milliseconds(min(times)), "green" if len(times) == row["sent"] else "yellow")


def _ping_sums(out: Console, pairs: list[dict[str, Any]], names: list[str]) -> None:
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for pair in pairs:
        rows[pair["from"]].append(pair)
    silent = {name: sum(row["received"] == 0 for row in own) for name, own in rows.items()}
    if not any(silent.values()):
        return
    sums = table("from", "answered", "silent", right=("answered", "silent"))
    for name in names:
        if silent[name]:
            sums.add_row(name, str(len(rows[name]) - silent[name]), str(silent[name]))
    out.print(sums)


def ping_summary(out: Console, answer: dict[str, Any]) -> None:
    """One line for all pairs, and why some did not answer: pairs with one reason in one line."""
    from rich.text import Text

    pairs, silent = answer["pairs"], answer["unanswered"]
    times = sorted(one for row in pairs for one in row["rtt_ms"] if one is not None)
    told = f"{len(pairs):,} pairs, " if len(pairs) != 1 else "1 pair, "
    told += "all answered" if not silent else f"{silent:,} without an answer"
    if times:
        middle, worst = milliseconds(times[len(times) // 2]), milliseconds(times[-1])
        told += f"; round trip {middle} ms in the middle, {worst} ms at worst"
    out.print(Text(told, "bold red" if silent else "bold green"))
    reasons: dict[str, list[str]] = {}
    for row in pairs:
        if row.get("why"):
            reasons.setdefault(row["why"], []).append(f"{row['from']} → {row['to']}")
    for why, which in reasons.items():
        more = f" and {len(which) - 3} more" if len(which) > 3 else ""
        out.print(Text.assemble((f"{', '.join(which[:3])}{more}: ", "bold"), why))


def trace(out: Console, answer: dict[str, Any], *, idle: bool = True) -> None:
    """A trace: a heading for each hop, a line for each step (`idle`: those with nothing to do too), and the verdict."""
    from rich.table import Table
    from rich.text import Text

    start = answer["hops"][0]["at_ns"] if answer["hops"] else 0
    width = max((len(step["element"]) for hop in answer["hops"] for step in hop["steps"]), default=0)
    left_out = 0
    for hop in answer["hops"]:
        after = f"  {(hop['at_ns'] - start) / 1e6:+.3f} ms" if hop["at_ns"] != start else ""
        out.print(Text.assemble((hop["device"], "bold cyan"), (after, "dim")))
        steps = Table.grid(padding=(0, 2, 0, 0))
        steps.add_column(width=width + 2, no_wrap=True)
        steps.add_column()
        for step in hop["steps"]:
            is_idle = step["reason"].startswith(_IDLE) and not step["edits"]
            left_out += is_idle and not idle
            if is_idle and not idle:
                continue
            style = "red" if step["verdict"] == "drop" else "dim" if is_idle else ""
            said = Text(step["why"], style)
            if step["edits"]:
                said.append(f"  [{'; '.join(step['edits'])}]", "dim")
            steps.add_row(Text(f"  {step['element']}", "dim" if is_idle else "cyan"), said)
        out.print(steps)
    verdict = answer["verdict"]
    style = f"bold {_VERDICT_STYLES.get(verdict, 'yellow')}"
    out.print(Text.assemble((verdict, style), ": ", answer["sentence"]))
    if left_out:
        out.print(Text(f"{count(left_out, 'step')} with nothing to do left out: `emunet trace` shows all", "dim"))


def count(number: int, what: str) -> str:
    """`1 pod`, `2 pods`."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
