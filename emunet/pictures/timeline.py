"""A figure of what happened: rate and latency of each flow over time, with the events marked. SVG, by hand.

Our own hundred lines instead of a plotting library, because two panels of lines need
none: no dependency, no fonts to find, no state, and the same run is the same file, byte
for byte, so that a figure can be compared in a test.

Rule of this file: a value in (`Played.as_dict`), text out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any
from xml.sax.saxutils import escape

from emunet.lab.outcome import seconds

WIDTH, LEFT, RIGHT = 960, 64, 24
TOP, PANEL, BETWEEN, BELOW = 104, 190, 44, 40
MARKS = 34
"""Room above the upper panel for the numbers of events, below its caption."""
LINE = 19
COLORS = ("#0b66c3", "#c2410c", "#0f7b4f", "#7c3aed", "#a16207", "#be185d", "#0e7490", "#4b5563")
"""Told apart by people who see few colours too; lines are also named beside their figures."""
INK, FAINT, GRID, BAD = "#1f2933", "#52606d", "#e4e7eb", "#d64545"


def figure(played: dict[str, Any]) -> str:
    """The picture as SVG."""
    flows, events = played["flows"], played["events"]
    began: int = played["began_ns"]
    end: int = played["duration_ns"]
    rows = len(flows) + len(events)
    height = TOP + 2 * PANEL + BETWEEN + BELOW + 16 + rows * LINE + 24
    span = WIDTH - LEFT - RIGHT

    def x(at: int) -> float:
        return LEFT + span * min(max(at - began, 0), end) / end

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        ' font-family="system-ui, sans-serif" font-size="12">',
        f"<title>{escape(played['scenario'])}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        _text(LEFT, 26, played["scenario"], size=17, weight="600"),
        _text(LEFT, 44, _subtitle(played), fill=FAINT),
    ]
    first, second = TOP, TOP + PANEL + BETWEEN
    parts.append(_text(LEFT, first - MARKS, "arrived per second", fill=FAINT))
    parts += _panel(first, "", _rates(flows), x, lambda value: f"{value:,g}", filled=False)
    parts += _panel(second, "took, ms (least, median, most)", _latencies(flows), x, lambda value: f"{value:,g}")
    parts += _lost(flows, x, first + PANEL)
    parts += _time_axis(x, began, end, second + PANEL)
    parts += _event_lines(events, x, first, second + PANEL)
    y = second + PANEL + BELOW + 16
    for number, flow in enumerate(flows):
        color = COLORS[number % len(COLORS)]
        parts.append(f'<rect x="{LEFT}" y="{y - 9}" width="14" height="10" rx="2" fill="{color}"/>')
        parts.append(_text(LEFT + 22, y, _told(flow)))
        y += LINE
    for number, event in enumerate(events, 1):
        parts += [_mark(LEFT + 7, y - 4, number), _text(LEFT + 22, y, _event_words(played, event), fill=INK)]
        y += LINE
    return "\n".join([*parts, "</svg>"]) + "\n"


def _subtitle(played: dict[str, Any]) -> str:
    return f"{played['lab']} on {played['wires']} wires, {seconds(played['duration_ns'])}, seed {played['seed']}"


def _event_words(played: dict[str, Any], event: dict[str, Any]) -> str:
    return f"{seconds(event['at_ns'] - played['began_ns'])}   {event['what']}"


def _told(flow: dict[str, Any]) -> str:
    counted = [f"{flow['received']:,} of {flow['sent']:,} arrived"]
    counted += [f"{flow[name]:,} {name}" for name in ("lost", "late", "reordered", "duplicated", "moved") if flow[name]]
    reasons = ", ".join(f"{name} {number:,}" for name, number in list(flow["why"].items())[:3])
    told = f"{flow['name']} ({flow['from']} → {flow['to']}): {', '.join(counted)}"
    return f"{told} ({reasons})" if reasons else told


# Lines: for each flow, (time, low, middle, high), or None where there is nothing to draw

_Row = tuple[int, float, float, float] | None


def _rates(flows: Sequence[dict[str, Any]]) -> list[list[_Row]]:
    lines: list[list[_Row]] = []
    for flow in flows:
        width = flow["bucket_ns"]
        rows: list[_Row] = []
        for one in flow["series"]:
            value = one["received"] * 1e9 / width
            rows.append((one["at_ns"] + width // 2, value, value, value))
        lines.append(rows[:-1] if len(rows) > 1 else rows)  # the last stretch is not over when sending stops
    return lines


def _latencies(flows: Sequence[dict[str, Any]]) -> list[list[_Row]]:
    return [
        [
            (one["at_ns"] + flow["bucket_ns"] // 2, *(value / 1e6 for value in one["latency_ns"]))
            if one["latency_ns"]
            else None
            for one in flow["series"]
        ]
        for flow in flows
    ]


def _panel(
    top: float, title: str, lines: list[list[_Row]], x: Callable[[int], float], label: Callable[[float], str],
    *, filled: bool = True,
) -> list[str]:  # fmt: skip
    most = max((row[3] for rows in lines for row in rows if row is not None), default=0.0)
    ticks = _ticks(most)

    def y(value: float) -> float:
        return top + PANEL - PANEL * min(value, ticks[-1]) / ticks[-1]

    parts = [_text(LEFT, top - 8, title, fill=FAINT)] if title else []
    for tick in ticks:
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{_n(y(tick))}" y2="{_n(y(tick))}" stroke="{GRID}"/>')
        parts.append(_text(LEFT - 8, y(tick) + 4, label(tick), anchor="end", fill=FAINT))
    for number, rows in enumerate(lines):
        color = COLORS[number % len(COLORS)]
        for run in _runs(rows):
            if filled:
                edge = [f"{_n(x(at))},{_n(y(high))}" for at, _, _, high in run]
                edge += [f"{_n(x(at))},{_n(y(low))}" for at, low, _, _ in reversed(run)]
                parts.append(f'<polygon points="{" ".join(edge)}" fill="{color}" fill-opacity="0.16"/>')
            points = " ".join(f"{_n(x(at))},{_n(y(middle))}" for at, _, middle, _ in run)
            if len(run) == 1:
                parts.append(f'<circle cx="{points.split(",")[0]}" cy="{points.split(",")[1]}" r="2" fill="{color}"/>')
            else:
                parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.6"/>')
    return parts


def _runs(rows: Iterable[_Row]) -> list[list[tuple[int, float, float, float]]]:
    """Stretches without a hole."""
    runs: list[list[tuple[int, float, float, float]]] = [[]]
    for row in rows:
        if row is None:
            runs.append([])
        else:
            runs[-1].append(row)
    return [run for run in runs if run]


def _lost(flows: Sequence[dict[str, Any]], x: Callable[[int], float], base: float) -> list[str]:
    """Red along the foot of the upper panel where datagrams were lost: the taller, the more of those sent."""
    parts = []
    for flow in flows:
        for one in flow["series"]:
            if one["lost"] and one["sent"]:
                left, right = x(one["at_ns"]), x(one["at_ns"] + flow["bucket_ns"])
                tall = max(2.0, 26.0 * one["lost"] / one["sent"])
                parts.append(
                    f'<rect x="{_n(left)}" y="{_n(base - tall)}" width="{_n(max(1.0, right - left))}"'
                    f' height="{_n(tall)}" fill="{BAD}" fill-opacity="0.55"/>'
                )
    if parts:
        parts.append(_text(WIDTH - RIGHT, TOP - MARKS, "red: share lost", anchor="end", fill=BAD))
    return parts


def _event_lines(events: Sequence[dict[str, Any]], x: Callable[[int], float], top: float, bottom: float) -> list[str]:
    parts = []
    last, level = -1000.0, 0
    for number, event in enumerate(events, 1):
        at = x(event["at_ns"])
        level = (level + 1) % 2 if at - last < 18 else 0  # neighbours step aside
        last = at
        what = f"<title>{escape(event['what'])}</title>"
        parts.append(
            f'<line x1="{_n(at)}" x2="{_n(at)}" y1="{top}" y2="{bottom}" stroke="{FAINT}"'
            f' stroke-dasharray="3 3">{what}</line>'
        )
        parts.append(_mark(at, top - (8 if not level else 24), number))
    return parts


def _mark(x: float, y: float, number: int) -> str:
    return (
        f'<circle cx="{_n(x)}" cy="{_n(y)}" r="8" fill="{INK}"/>'
        f'<text x="{_n(x)}" y="{_n(y + 3.5)}" text-anchor="middle" font-size="10" fill="white">{number}</text>'
    )


def _time_axis(x: Callable[[int], float], began: int, end: int, base: float) -> list[str]:
    unit, name = next((size, name) for size, name in _UNITS if end >= 2 * size or name == "ms")
    parts = []
    for tick in _ticks(end / unit):
        if tick * unit <= end:
            at = x(began + round(tick * unit))
            parts.append(f'<line x1="{_n(at)}" x2="{_n(at)}" y1="{base}" y2="{base + 5}" stroke="{FAINT}"/>')
            parts.append(_text(at, base + 20, f"{tick:,g} {name}", anchor="middle", fill=FAINT))
    return parts


_UNITS = ((3_600_000_000_000, "h"), (60_000_000_000, "min"), (1_000_000_000, "s"), (1_000_000, "ms"))


def _ticks(most: float) -> list[float]:
    """Round numbers from 0 to at least `most`: four to eight of them."""
    if most <= 0:
        return [0.0, 1.0]
    step = 1e-9
    for exponent in range(-9, 16):
        for digit in (1.0, 2.0, 5.0):
            step = digit * 10.0**exponent
            if most / step <= 6:
                count = int(most / step + 0.999999)
                return [round(step * number, 12) for number in range(max(1, count) + 1)]
    return [0.0, most]


def _text(
    x: float, y: float, text: str, *, size: int = 12, fill: str = INK, anchor: str = "start", weight: str = "400"
) -> str:
    return (
        f'<text x="{_n(x)}" y="{_n(y)}" font-size="{size}" fill="{fill}" text-anchor="{anchor}"'
        f' font-weight="{weight}">{escape(text)}</text>'
    )


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
