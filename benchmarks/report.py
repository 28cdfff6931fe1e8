"""What a run came to: `bench.json`, a table for the terminal, and the same as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from benchmarks.figures import CAPTURED, HIT, MEMORY_IMPAIRED, MEMORY_PORTS, MEMORY_SOCKETS, MISS

_SIGNS = {"goal": "goal", "must": "must", "missed": "MISSED", "": ""}
_HEADINGS = ("figure", "emunet", "beside", "ratio", "spread", "must / goal", "verdict")
_WIDTH = 130
_MARKS = ("<!-- bench -->", "<!-- /bench -->")
_MEMORY = (MEMORY_PORTS, MEMORY_IMPAIRED, MEMORY_SOCKETS, HIT, MISS, CAPTURED)


def figures_of(result: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The figures of a `bench.json`, by name."""
    for name, entry in result.items():
        if isinstance(entry, dict) and "ratio" in entry:
            yield name, entry


def rows(result: dict[str, Any], *, demanded: bool | None = None) -> list[tuple[str, ...]]:
    """Lines of the table: those of which something is demanded, or the others, or all."""
    lines: list[tuple[str, ...]] = []
    for name, entry in figures_of(result):
        if demanded is not None and demanded is not ("must" in entry):
            continue
        unit = entry["unit"]
        beside = "" if entry["peer"] is None else f"{_text(entry['peer'])} ({entry['peer_name']})"
        bound = "≤" if entry.get("lower_is_better") else "≥"
        wanted = f"{bound} {entry['must']:g} / {entry['goal']:g}" if "must" in entry else ""
        verdict = _SIGNS[entry.get("verdict", "")] + (f": {entry['flaw']}" if entry.get("flaw") else "")
        subject = entry["subject"] if entry["subject"] not in ("emunet", "captured") else ""
        label = name.partition(":")[0] + (f", {subject.removeprefix('emunet ')}" if subject else "")
        if not subject and name.partition(":")[0] not in _MEMORY:
            label += ", one host"
        lines.append(
            (
                label,
                f"{_text(entry['value'])} {unit}",
                beside,
                "" if entry["ratio"] is None else _text(entry["ratio"]),
                f"{entry['spread'] * 100:.0f} %",
                wanted,
                verdict,
            )
        )
    return lines


def markdown(result: dict[str, Any]) -> str:
    """The tables and the machine, for the README."""
    parts = [
        *_table(_HEADINGS, rows(result, demanded=True)),
        "",
        _circumstances(result["machine"]),
        "",
        "<details><summary>All other figures, and what ran</summary>",
        "",
        *_table(_HEADINGS[:5], [row[:5] for row in rows(result, demanded=False)]),
        "",
        *_table(("", "what", "version", "offloads of a pod"), _peers(result)),
        "",
        *(f"Not measured: {name}: {why}." for name, why in result["skipped"].items()),
        "",
        "</details>",
    ]
    return "\n".join(parts) + "\n"


def insert(page: str, text: str) -> str:
    """A page with `text` between its marks. ValueError where it has none."""
    begin, end = page.find(_MARKS[0]), page.find(_MARKS[1])
    if begin < 0 or end < begin:
        raise ValueError(f"the page has no place for figures: {_MARKS[0]} and {_MARKS[1]}")
    return f"{page[: begin + len(_MARKS[0])]}\n{text}{page[end:]}"


def _circumstances(machine: dict[str, Any]) -> str:
    virtual = " (virtual)" if machine["virtual"] else ""
    return (
        f"{machine['cpu']}{virtual}, {machine['cores']} cores, {machine['memory_gib']:g} GiB; {machine['kernel']}, "
        f"{machine['system']}; emunet {machine['emunet']} on {machine['interpreter']}. {machine['rounds']} interleaved "
        f"rounds of {machine['seconds']:g} s; load {machine['load']:g} when it began. Values and ratios are medians, "
        "ratios of measurements in the same round; the spread is that of the ratios, highest less lowest."
    )


def _peers(result: dict[str, Any]) -> list[tuple[str, ...]]:
    peers = result["machine"]["peers"]
    return [(name, one["title"], one["version"], one["offloads"]) for name, one in peers.items()]


def print_tables(result: dict[str, Any]) -> None:
    """The tables, for a terminal."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    console.width = max(console.width, _WIDTH)
    colors = {"goal": "green", "must": "yellow", "MISSED": "bold red"}
    for title, demanded in (("What is demanded", True), ("All other figures", False)):
        lines = rows(result, demanded=demanded)
        if not lines:
            continue
        table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
        for number, heading in enumerate(_HEADINGS if demanded else _HEADINGS[:5]):
            table.add_column(heading, justify="right" if number in (1, 3, 4) else "left")
        for line in lines:
            style = colors.get(line[6].partition(":")[0], "")
            table.add_row(*(line if demanded else line[:5]), style=style)
        console.print(table)
        console.print()
    table = Table(title="What ran", title_justify="left", title_style="bold", box=None, pad_edge=False)
    for heading in ("", "what", "version", "offloads of a pod"):
        table.add_column(heading)
    for row in _peers(result):
        table.add_row(*row)
    console.print(table)
    console.print(f"\n{_circumstances(result['machine'])}\n")
    for name, why in result["skipped"].items():
        console.print(f"not measured: {name}: {why}", style="yellow")


def _table(headings: Iterable[str], lines: Iterable[tuple[str, ...]]) -> list[str]:
    heads = list(headings)
    table = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    return table + [f"| {' | '.join(line)} |" for line in lines]


def _text(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
