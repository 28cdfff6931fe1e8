"""Who sent what to whom in a terminal: lines of life as columns, messages as arrows between them.

Rule of this file: lines of (text, style) pieces, no wider than the terminal where that can be.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from itertools import pairwise

from emunet.pictures.sequence import Course, Message, moment

Line = list[tuple[str, str]]

_TIMES = 12
_NEAREST = 14
_LOOP = 5
"""Columns that an arrow to oneself takes."""
_STYLES = {"arp": "yellow", "icmp": "green", "tcp": "blue", "udp": "blue", "vxlan": "magenta", "drop": "red"}


def sequence_lines(course: Course, width: int) -> list[Line]:
    """The picture in lines."""
    canvas = _Canvas(course, width)
    lines: list[Line] = [[(course.title, "bold"), ("  ", ""), (course.about, "dim")], []]
    lines += canvas.names()
    began = course.messages[0].at if course.messages else 0
    told = ""
    for message in course.messages:
        now = moment(message.at - began)
        lines += canvas.message(message, now if now != told else "")
        told = now
    lines.append(canvas.bare())
    if len(course.messages) > 14:
        lines += canvas.names()
    if course.more:
        lines.append([(course.more, "dim")])
    return lines


class _Canvas:
    """Where the columns are, and rows to write on."""

    def __init__(self, course: Course, width: int) -> None:
        self._who = list(course.who)
        gaps = self._gaps(course)
        room = max(0, width - _TIMES - sum(len(name) for name in (self._who[:1] + self._who[-1:])) // 2 - 2)
        if sum(gaps) > room:  # words are then written over the lines beside them
            gaps = [max(_NEAREST, gap * room // max(1, sum(gaps))) for gap in gaps]
        self.columns: dict[str, int] = {}
        column = _TIMES + (len(self._who[0]) // 2 if self._who else 0)
        for number, name in enumerate(self._who):
            self.columns[name] = column
            column += gaps[number] if number < len(gaps) else 0
        self._width = width

    def _gaps(self, course: Course) -> list[int]:
        order = {name: number for number, name in enumerate(self._who)}
        gaps = [max(_NEAREST, (len(a) + len(b)) // 2 + 3) for a, b in pairwise(self._who)]
        for one in course.messages:  # a message to oneself stands beside its line
            place = order[one.source]
            if one.source == one.target and one.kind != "drop" and place < len(gaps):
                gaps[place] = max(gaps[place], _LOOP + max(len(one.words), len(one.detail)) + 2)
        for one in sorted(course.messages, key=lambda one: abs(order[one.source] - order[one.target])):
            first, last = sorted((order[one.source], order[one.target]))
            missing = max(len(one.words), len(one.detail)) + 4 - sum(gaps[first:last])
            for number in range(first, last) if missing > 0 else ():
                gaps[number] += -(-missing // (last - first))
        return gaps

    def bare(self) -> Line:
        """The lines of life alone."""
        return self._row({}, "")

    def names(self) -> list[Line]:
        """Who is who."""
        row = ""
        for name, column in self.columns.items():
            row = row.ljust(column - len(name) // 2) + name
        return [[(row, "bold")]]

    def message(self, message: Message, time: str) -> Iterator[Line]:
        """An arrow, with what is said above it and the details below."""
        style = "red" if message.dropped else _STYLES.get(message.kind, "")
        start, end = self.columns[message.source], self.columns[message.target]
        middle = (start + end) // 2
        why = textwrap.wrap(message.dropped, 58)
        if start == end and message.kind != "drop":
            there = {start + number: (char, style) for number, char in enumerate("├──╮")}
            back = {start + number: (char, style) for number, char in enumerate("│◀─╯")}
            yield self._row(there, time, start + _LOOP, message.words, f"bold {style}")
            yield self._row(back, "", start + _LOOP, message.detail, "dim")
            for row in why:
                yield self._row({}, "", start + _LOOP, row, style)
            return
        if start == end:
            yield self._row({start: ("✗", style)}, time, start + 2, message.words, style)
            for row in why:
                yield self._row({}, "", start + 4, row, style)
            return
        yield self._row({}, "", self._left(middle, message.words), message.words, f"bold {style}")
        yield self._row(self._arrow(message, start, end, style), time)
        if message.detail:
            yield self._row({}, "", self._left(middle, message.detail), message.detail, "dim")
        for row in why:
            yield self._row({}, "", self._left(middle, row), row, style)

    def _left(self, middle: int, words: str) -> int:
        """Where words begin that are to have their middle there, and to stay on the terminal."""
        return max(_TIMES, min(middle - len(words) // 2, self._width - len(words)))

    def _arrow(self, message: Message, start: int, end: int, style: str) -> dict[int, tuple[str, str]]:
        stroke = "┄" if message.to_all else "─"
        right = end > start
        cells = dict.fromkeys(range(min(start, end) + 1, max(start, end)), (stroke, style))
        cells[start] = ("├" if right else "┤", style)
        tip = end - 1 if right else end + 1
        cells[tip] = ("✗" if message.dropped else "▶" if right else "◀", style)
        return cells

    def _row(self, cells: dict[int, tuple[str, str]], time: str, at: int = 0, words: str = "", style: str = "") -> Line:
        row = dict.fromkeys(self.columns.values(), ("│", "dim")) | cells
        if words:
            row |= {at + number: (char, style) for number, char in enumerate(words)}
            for column in (at - 1, at + len(words)):  # a space on both sides keeps words and lines apart
                row.setdefault(column, (" ", ""))
        line: Line = [(time.rjust(_TIMES - 2) + "  ", "dim")]
        for column in range(_TIMES, max(row, default=0) + 1):
            text, of = row.get(column, (" ", ""))
            if line[-1][1] == of and len(line) > 1:
                line[-1] = (line[-1][0] + text, of)
            else:
                line.append((text, of))
        return line
