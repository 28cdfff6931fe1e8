"""A page's commands: the blocks marked `console`, with what they are said to print.

    ```console
    $ emunet ping web-1 web-3
    web-1 → web-3 (10.244.2.2) 1: 1.88 ms
    …
    ```

A line that begins with `$ ` is a command (with `\\` at its end it goes on), what follows it is
its output. `…` alone on a line stands for any lines, within a line for anything. What differs
from run to run is compared by shape: times, MAC addresses, large numbers, names that a
controller made, how long ago a neighbor was heard of, and how wide columns are.

`<!-- needs: kubectl tshark -->` anywhere on a page says what the machine must have.

Rule of this file: text in, values out; nothing is run here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(r"^```console\n(?P<body>.*?)^```$", re.M | re.S)
_NEEDS = re.compile(r"<!-- needs: (?P<what>.+?) -->")

_MADE = "[bcdfghjklmnpqrstvwxz2456789]"
"""What Kubernetes makes names of."""

_SHAPES = (
    (re.compile(r"\x1b\[[0-9;?]*[A-Za-z]"), ""),
    (re.compile(r"\b[0-9a-f]{2}(?::[0-9a-f]{2}){5}\b"), "MAC"),
    (re.compile(r"\b\d{1,2}:\d\d:\d\d(?:\.\d+)?\b"), "CLOCK"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]?(?:CLOCK)?Z?\b"), "DATE"),
    (re.compile(rf"\b(?P<owner>[a-z][a-z0-9-]*?)-{_MADE}{{6,10}}-{_MADE}{{5}}\b"), r"\g<owner>-HASH"),
    (re.compile(rf"\b(?P<owner>[a-z][a-z0-9-]*?)-(?=[a-z]*\d){_MADE}{{5}}\b"), r"\g<owner>-HASH"),
    (re.compile(r"(?<![\d.])\d+(?:,\d+)*\.\d+(?![\d.])"), "N"),
    (re.compile(r"\b\d+(?:ms|m\d*s?|s)\b"), "AGE"),
    (re.compile(r"(?<![\d.])\d+ (?=ms\b|s\b)"), "N "),
    (re.compile(r"(?<![\d.,:/])\d{1,3}(?:,\d{3})+\b"), "N"),
    (re.compile(r"(?<![\d.])\d{5,}\b"), "N"),
    (re.compile(r"(?<=_port\": )\d+"), "N"),
    (re.compile(r"(?<=:)(?!8080|4789)\d{4}\b"), "N"),
    (re.compile(r"0x[0-9a-f]+"), "HEX"),
    (re.compile(r"\((?:reachable|stale|delay|probe)\)"), "(STATE)"),
    (re.compile(r"\b[0-9a-f]{12,64}\b"), "ID"),
    (re.compile(r"\bid \d+"), "id N"),
    (re.compile(r"[─┄]+"), "─"),
    (re.compile(r"\s*│\s*"), " │ "),
    (re.compile(r"\s+"), " "),
)  # fmt: skip
"""What is compared by its shape, in this order. (Ports of four digits are chosen by chance, but for two.)"""


@dataclass(frozen=True)
class Command:
    """A command of a page, at a line that counts from 1, and the lines that it is said to print."""

    line: int
    text: str
    output: tuple[str, ...]


@dataclass(frozen=True)
class Page:
    """All commands of a page, and what the machine must have for them."""

    path: Path
    commands: tuple[Command, ...]
    needs: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> Page:
        """A page of Markdown."""
        text = path.read_text()
        needs = _NEEDS.search(text)
        commands: list[Command] = []
        for found in _BLOCK.finditer(text):
            commands += _commands(found["body"], text.count("\n", 0, found.start("body")) + 1)
        return cls(path, tuple(commands), tuple(needs["what"].split()) if needs else ())

    def written(self, outputs: dict[int, str]) -> str:
        """The page with other outputs, by the lines of their commands."""
        rows = self.path.read_text().split("\n")
        for command in reversed(self.commands):
            if command.line in outputs:
                first = command.line - 1 + command.text.count("\n") + 1
                printed = [line.rstrip() for line in outputs[command.line].rstrip("\n").split("\n")]
                rows[first : first + len(command.output)] = printed if printed != [""] else []
        return "\n".join(rows)


def _commands(body: str, line: int) -> list[Command]:
    found: list[Command] = []
    rows = body.rstrip("\n").split("\n") if body.strip() else []
    at = 0
    while at < len(rows):
        if not rows[at].startswith("$ "):
            raise ValueError(f"line {line + at}: a console block begins with a command: $ ...")
        begin, text = at, rows[at][2:]
        while text.endswith("\\"):
            at += 1
            text += "\n" + rows[at]
        at += 1
        output = []
        while at < len(rows) and not rows[at].startswith("$ "):
            output.append(rows[at])
            at += 1
        found.append(Command(line + begin, text, tuple(output)))
    return found


def shape(line: str) -> str:
    """A line without what differs from run to run."""
    for pattern, instead in _SHAPES:
        line = pattern.sub(instead, line)
    return line.strip()


def differences(said: tuple[str, ...], printed: str) -> list[str]:
    """What was printed and not said, or said and not printed, in lines for people; none where the shapes agree."""
    wanted = [line for line in map(shape, said) if line]
    got = [line for line in map(shape, printed.split("\n")) if line]
    if _agree(wanted, got):
        return []
    return [*(f"  said     {line}" for line in wanted), *(f"  printed  {line}" for line in got)]


def _agree(wanted: list[str], got: list[str]) -> bool:
    """Whether lines agree, `…` being any lines. By rows of a table: ways[i] is whether got[:i] agrees so far."""
    ways = [True] + [False] * len(got)
    for want in wanted:
        if want == "…":
            first = ways.index(True) if True in ways else len(ways)
            ways = [index >= first for index in range(len(ways))]
        else:
            ways = [False] + [ways[index] and alike(want, got[index]) for index in range(len(got))]
    return ways[-1]


def alike(want: str, got: str) -> bool:
    """Whether two shapes agree. A port that a kernel or a translation chose may have four digits as well as five,
    and a round trip of a table, which has no unit, none behind a point."""
    if want == got:
        return True
    parts = (r"\b(?:N|\d{3,4})\b".join(map(re.escape, re.split(r"\bN\b", part))) for part in want.split("…"))
    return re.fullmatch(".*".join(parts), got) is not None
