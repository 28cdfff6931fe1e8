"""Who sent what to whom as SVG: a line of life for each machine and pod, an arrow for each message, time downwards.

Rule of this file: how far apart lines must be follows from what is written between them.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import pairwise

from emunet.pictures.sequence import EVERYBODY, Course, Message, moment
from emunet.pictures.svg import (
    AMBER,
    BLUE,
    FAINT,
    GREEN,
    INK,
    RED,
    TINTS,
    VIOLET,
    arrow_head,
    box,
    cross,
    document,
    line,
    number,
    path,
    text,
    text_width,
)  # fmt: skip

MARGIN, TIMES, HEAD = 32, 74, 84
ROW, DROP_LINE, NAME_HIGH = 46, 15, 30
NEAREST = 120.0
DETAIL = 10.0
LOOP = 38.0
"""Room that an arrow to oneself takes."""
AGAIN = 14
"""Messages after which the names are written at the foot too."""

COLORS = {"arp": AMBER, "icmp": GREEN, "tcp": BLUE, "udp": BLUE, "vxlan": VIOLET, "drop": RED, "fragment": GREEN}


def sequence_svg(course: Course) -> str:
    """The picture."""
    places = _places(course)
    width = max(
        max(places.values(), default=0.0) + _right(course, places) + MARGIN,
        text_width(course.title, 19, bold=True) + 2 * MARGIN,
        text_width(course.about) + 2 * MARGIN,
    )
    began = course.messages[0].at if course.messages else 0
    rows: list[str] = []
    y = float(HEAD + NAME_HIGH)
    last, told = began, ""
    for message in course.messages:
        if message.at - last >= 1_000_000_000:
            rows.append(text(MARGIN, y + 24, f"{(message.at - last) / 1e9:.1f} s later", size=10, fill=FAINT))
            y += 24
        last = message.at
        y += ROW
        if (now := moment(message.at - began)) != told:
            told = now
            rows.append(text(MARGIN + TIMES - 16, y + 4, told, size=10, fill=FAINT, anchor="end"))
        drawn, more = _message(message, places, y)
        rows += drawn
        y += more
    foot = y + 26
    parts = [text(MARGIN, 38, course.title, size=19, bold=True), text(MARGIN, 58, course.about, fill=FAINT)]
    parts += [line(x, HEAD + NAME_HIGH, x, foot, "#c3cbd4", thick=1.2) for x in places.values()]
    parts += [_name(name, x, HEAD) for name, x in places.items()]
    if len(course.messages) > AGAIN:
        parts += [_name(name, x, foot) for name, x in places.items()]
        foot += NAME_HIGH
    if course.more:
        foot += 26
        rows.append(text(MARGIN, foot, course.more, fill=FAINT))
    return document(width, foot + MARGIN - 6, course.title, [*parts, *rows])


def _places(course: Course) -> dict[str, float]:
    """Where each line of life stands: as far apart as what is written between two needs."""
    who = list(course.who)
    order = {name: index for index, name in enumerate(who)}
    gaps = [max(NEAREST, (_name_width(a) + _name_width(b)) / 2 + 24) for a, b in pairwise(who)]
    for one in course.messages:  # a message to oneself stands beside its line
        place = order[one.source]
        if one.source == one.target and one.kind != "drop" and place < len(gaps):
            gaps[place] = max(gaps[place], LOOP + _wide(one) + 12)
    for one in sorted(course.messages, key=lambda one: abs(order[one.source] - order[one.target])):
        first, last = sorted((order[one.source], order[one.target]))
        missing = _wide(one) + 34 - sum(gaps[first:last])
        for index in range(first, last) if missing > 0 else ():
            gaps[index] += missing / (last - first)
    places, x = {}, MARGIN + TIMES + (_name_width(who[0]) / 2 if who else 0)
    for index, name in enumerate(who):
        places[name] = x
        x += gaps[index] if index < len(gaps) else 0
    return places


def _right(course: Course, places: dict[str, float]) -> float:
    """What the picture needs beyond the last line: its name, and what is written beside it."""
    if not places:
        return 0.0
    end = max(places.values())
    beside = [places[one.source] + 34 + _wide(one) for one in course.messages if one.source == one.target]
    names = list(places)
    return max([_name_width(names[-1]) / 2, *(reach - end for reach in beside)])


def _wide(message: Message) -> float:
    wide = max(text_width(message.words, 12, bold=True), text_width(message.detail, DETAIL))
    return max([wide, *(text_width(row, 11) for row in _sentence(message))])


def _sentence(message: Message) -> list[str]:
    """Why it was dropped, in lines."""
    return textwrap.wrap(message.dropped, 58) if message.dropped else []


def _name_width(name: str) -> float:
    return text_width(name, 13, bold=True) + 26


def _name(name: str, x: float, y: float) -> str:
    width = _name_width(name)
    fill, stroke = ("#ffffff", "#9aa5b1") if name == EVERYBODY else ("#2f3b48", "#2f3b48")
    ink = FAINT if name == EVERYBODY else "#ffffff"
    shape = box(x - width / 2, y, width, NAME_HIGH, fill=fill, stroke=stroke)
    return shape + text(x, y + 20, name, size=13, bold=True, anchor="middle", fill=ink)


def _message(message: Message, places: dict[str, float], y: float) -> tuple[list[str], float]:
    """An arrow with what is said, and how much more room it took than a row."""
    color = RED if message.dropped else COLORS.get(message.kind, INK)
    start, end = places[message.source], places[message.target]
    why = _sentence(message)
    if message.source == message.target and message.kind != "drop":
        return _loop(message, start, y, color, why), len(why) * DROP_LINE
    if message.source == message.target:
        return _beside(message, start, y, color, why), len(why) * DROP_LINE - 4.0
    right = end > start
    tip = end - 3 if right else end + 3
    stop = tip - 8 if right else tip + 8
    if message.dropped:
        stop = tip = end - 16 if right else end + 16
    parts = [line(start, y, stop, y, color, thick=1.8, dash="5 4" if message.to_all else "")]
    parts.append(f'<circle cx="{number(start)}" cy="{number(y)}" r="3" fill="{color}"/>')
    parts.append(cross(tip, y) if message.dropped else arrow_head(tip, y, right, color))
    middle = (start + end) / 2
    parts.append(_on_paper(middle, y - 8, message.words, 12, color, bold=True))
    if message.detail:
        parts.append(_on_paper(middle, y + 14, message.detail, DETAIL, FAINT))
    for index, row in enumerate(why):
        parts.append(_on_paper(middle, y + 30 + index * DROP_LINE, row, 11, RED))
    return parts, len(why) * DROP_LINE + (4 if why else 0)


def _on_paper(x: float, y: float, words: str, size: float, color: str, *, bold: bool = False) -> str:
    """Text in the middle of x, on a ground that keeps lines of life from running through it."""
    width = text_width(words, size, bold=bold) + 6
    ground = box(x - width / 2, y - size, width, size + 3.5, radius=2)
    return ground + text(x, y, words, size=size, fill=color, anchor="middle", bold=bold)


def _loop(message: Message, x: float, y: float, color: str, why: Sequence[str]) -> list[str]:
    """An arrow that comes back to where it began, what is said beside it."""
    bend = f"M{number(x)} {number(y - 10)} h18 a9 9 0 0 1 0 18 h-7"
    parts = [path(bend, color, thick=1.8), arrow_head(x + 3, y + 8, False, color)]
    parts.append(f'<circle cx="{number(x)}" cy="{number(y - 10)}" r="3" fill="{color}"/>')
    parts.append(text(x + LOOP, y - 4, message.words, size=12, fill=color, bold=True))
    parts.append(text(x + LOOP, y + 12, message.detail, size=DETAIL, fill=FAINT))
    for index, row in enumerate(why):
        parts.append(text(x + LOOP, y + 28 + index * DROP_LINE, row, size=11, fill=RED))
    return parts


def _beside(message: Message, x: float, y: float, color: str, why: Sequence[str]) -> list[str]:
    """What is lost at one place."""
    high = 26 + len(why) * DROP_LINE
    wide = _wide(message) + 24
    parts = [path(f"M{number(x)} {number(y)} h14", color, thick=1.8)]
    parts.append(box(x + 14, y - 14, wide, high, fill=TINTS.get(color, "#ffffff"), stroke=color))
    parts.append(text(x + 26, y + 3, message.words, bold=True, fill=color))
    for index, row in enumerate(why):
        parts.append(text(x + 26, y + 19 + index * DROP_LINE, row, size=11, fill=color))
    parts.append(cross(x, y, size=4))
    return parts
