"""A network in a terminal: the tree with boxes where it fits, an indented tree where it does not.

Rule of this file: lines of (text, style) pieces; whoever prints them knows about colours.
"""

from __future__ import annotations

from collections.abc import Iterator

from emunet.pictures.network import PODS_SHOWN, Interface, Machine, Network, Pod, Service, Tree
from emunet.pictures.services_text import Line, service_list, service_rows

_GAP = 2


def network_lines(network: Network, width: int) -> list[Line]:
    """The picture in lines of at most `width` columns where that can be; a narrow terminal gets the indented tree."""
    lines: list[Line] = [[(network.title, "bold"), ("  ", ""), (network.about, "dim")], []]
    for tree in network.trees():
        block = _Block.of(tree)
        lines += block.lines if block.width <= width else list(_indented(tree, "", ""))
        lines.append([])
    lines += _services(network.services, width)
    return lines[:-1] if lines[-1] == [] else lines


def length(line: Line) -> int:
    """Columns that a line takes."""
    return sum(len(text) for text, _ in line)


class _Block:
    """Lines of equal width, and the column where a cable comes in from above."""

    def __init__(self, lines: list[Line], width: int, column: int) -> None:
        self.lines = [_padded(line, width) for line in lines]
        self.width = width
        self.column = column

    @classmethod
    def of(cls, tree: Tree) -> _Block:
        """A machine and all below it."""
        own = _machine(tree.machine)
        if not tree.below:
            return own
        said = max(len(one.cable.labels) for one in tree.below if one.cable is not None)
        parts = [cls._hanging(one, said) for one in tree.below]
        width = sum(part.width for part in parts) + _GAP * (len(parts) - 1)
        lefts, left = [], 0
        for part in parts:
            lefts.append(left)
            left += part.width + _GAP
        columns = [at + part.column for at, part in zip(lefts, parts, strict=True)]
        middle = (columns[0] + columns[-1]) // 2
        shift = max(0, own.column - middle)  # the machine may be wider than what hangs on it
        total = max(width + shift, middle + shift + own.width - own.column)
        columns, middle = [column + shift for column in columns], middle + shift
        lines = [[(" " * (middle - own.column), ""), *line] for line in own.lines]
        lines.append(_fork(columns, middle))
        tall = max(len(part.lines) for part in parts)
        for row in range(tall):
            line: Line = [(" " * shift, "")]
            for number, part in enumerate(parts):
                line.append((" " * _GAP, "")) if number else None
                line += part.lines[row] if row < len(part.lines) else [(" " * part.width, "")]
            lines.append(line)
        return cls(lines, total, middle)

    @classmethod
    def _hanging(cls, tree: Tree, most: int) -> _Block:
        """The same with its cable above it, and what is said about the cable (`most`: lines about those beside it)."""
        block = cls.of(tree)
        cable = tree.cable
        assert cable is not None
        style = "" if not cable.labels else "yellow" if cable.up else "bold red"
        said = list(cable.labels)
        width = max(block.width, *(len(words) for words in said)) if said else block.width
        pad = (width - block.width) // 2
        column = block.column + pad
        stroke = "│" if cable.up else "✗"
        lines: list[Line] = [_at(column, stroke, style)]
        for words in said:
            lines.append([(" " * max(0, min(column - len(words) // 2, width - len(words))), ""), (words, style)])
        lines += [_at(column, stroke, style)] * (most - len(said) + bool(most))
        lines += [[(" " * pad, ""), *line] for line in block.lines]
        return cls(lines, width, column)


def _at(column: int, text: str, style: str) -> Line:
    return [(" " * column, ""), (text, style)]


def _padded(line: Line, width: int) -> Line:
    missing = width - length(line)
    return [*line, (" " * missing, "")] if missing > 0 else line


def _fork(columns: list[int], middle: int) -> Line:
    """The line that leads from a machine's foot to the cables."""
    first, last = columns[0], columns[-1]
    row = [" "] * first + ["─"] * (last - first + 1)
    for column in columns:
        row[column] = "┬"
    row[first], row[last] = "┌", "┐"
    if first == last:
        row[first] = "│"
    else:
        row[middle] = "┼" if middle in columns[1:-1] else "┴" if middle not in (first, last) else row[middle]
    return [("".join(row), "")]


def _machine(machine: Machine) -> _Block:
    if not machine.is_host:
        style = "bold red" if machine.trouble else "bold"
        name = f"{machine.name}: {machine.trouble}" if machine.trouble else machine.name
        inside: list[Line] = [[(f" {name} ", style)]]
        return _boxed(inside, "", "red" if machine.trouble else "")
    return _boxed(list(_inside(machine)), machine.name, "red" if machine.trouble else "", machine.trouble)


def _inside(machine: Machine) -> Iterator[Line]:
    """What a host has, a line each."""
    wide = max((len(one.name) for one in machine.interfaces), default=0)
    for one in machine.interfaces:
        style = "magenta" if one.is_tunnel else "bold blue" if one.pods else "bold"
        yield [(f" {one.name:<{wide}}", style), (f"  {_told(one)} ", "dim")]
        yield from _pods(one.pods)
    for said, pods in machine.groups:
        yield [(f" {said} ", "dim")]
        yield from _pods(pods)


def _told(interface: Interface) -> str:
    return f"{' '.join(interface.addresses)} mtu {interface.mtu}"


def _pods(pods: tuple[Pod, ...]) -> Iterator[Line]:
    shown = pods[:PODS_SHOWN]
    wide = max((len(pod.name) for pod in shown), default=0)
    for number, pod in enumerate(shown):
        last = number == len(pods) - 1
        line: Line = [
            ("  └─ " if last else "  ├─ ", "blue"),
            (f"{pod.name:<{wide}}", "yellow" if pod.trouble else "green"),
        ]
        line.append((f"  {' '.join(one.partition('/')[0] for one in pod.addresses)} ", "dim"))
        if pod.trouble:
            line.append((f"{pod.trouble} ", "yellow"))
        yield line
    if len(pods) > len(shown):
        yield [(f"  └─ and {len(pods) - len(shown):,} more ", "dim")]


def _services(services: tuple[Service, ...], width: int) -> list[Line]:
    """A box below all machines, since a Service is at none; lines without a box where that is too wide."""
    if not services:
        return []
    block = _boxed(service_rows(services), "Services", "")
    return block.lines if block.width <= width else [[("Services", "bold")], *service_list(services)]


def _boxed(inside: list[Line], title: str, color: str, trouble: str = "") -> _Block:
    width = max([*(length(line) for line in inside), len(title) + len(trouble) + 6, 5])
    head: Line = [("╭", color)]
    if title:
        head += [("─ ", color), (title, "bold red" if trouble else "bold"), (" ", color)]
    head.append(("─" * (width + 1 - length(head) - (len(trouble) + 3 if trouble else 0)), color))
    if trouble:
        head += [(" ", ""), (trouble, "bold red"), (" ─", color)]
    head.append(("╮", color))
    body = [[("│", color), *_padded(line, width), ("│", color)] for line in inside]
    return _Block([head, *body, [("╰" + "─" * width + "╯", color)]], width + 2, (width + 2) // 2)


def _indented(tree: Tree, first: str, rest: str) -> Iterator[Line]:
    """For narrow terminals, and for long rows of hosts: who hangs on whom, one below the other."""
    machine = tree.machine
    line: Line = [(first, ""), (machine.name, "bold red" if machine.trouble else "bold")]
    if machine.trouble:
        line.append((f"  {machine.trouble}", "bold red"))
    if tree.cable is not None and tree.cable.labels:
        line.append((f"  {'; '.join(tree.cable.labels)}", "yellow" if tree.cable.up else "bold red"))
    yield line
    bar = "│ " if tree.below else "  "
    for inner in _inside(machine) if machine.is_host else ():
        yield [(rest + bar, ""), *inner]
    for number, one in enumerate(tree.below):
        last = number == len(tree.below) - 1
        yield from _indented(one, rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "))
