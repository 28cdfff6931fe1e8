"""Services in a terminal: each with its address and type, its pods below it.

Rule of this file: the same rows twice, in columns or one thing a line; who prints them chooses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from emunet.pictures.network import SERVICES_SHOWN, Service

Piece = tuple[str, str]
"""Text and its style, in the words of rich."""

Line = list[Piece]

_Row = tuple[str, Piece, str, Piece]
"""What leads to it, its name, its addresses, and what else is said of it."""


def service_rows(services: Sequence[Service]) -> list[Line]:
    """In columns."""
    rows = list(_rows(services))
    names = max(len(stem) + len(name[0]) for stem, name, _, _ in rows)
    addresses = max(len(address) for _, _, address, _ in rows)
    lines: list[Line] = []
    for stem, (name, style), address, (said, tone) in rows:
        line = [(stem, "blue"), (f" {name:<{names - len(stem)}}", style)]
        line += [(f"  {address:<{addresses}} ", "dim"), (f" {said} ", tone)] if address or said else []
        lines.append(line)
    return [*lines, *_more(services)]


def service_list(services: Sequence[Service]) -> list[Line]:
    """What is in a row's columns one below the other, for narrow terminals."""
    lines: list[Line] = []
    for stem, (name, style), address, (said, tone) in _rows(services):
        lines += [[(stem, "blue"), (f" {name}", style)]] if name else []
        if address or said:
            lines.append(
                [(stem.replace("└─", "  ").replace("├─", "│ ") + "   ", "blue"), (address, "dim"), (f"  {said}", tone)]
            )
    return [*lines, *_more(services)]


def _rows(services: Sequence[Service]) -> Iterator[_Row]:
    for service in services[:SERVICES_SHOWN]:
        (address, kind), *others = service.ways
        yield "", (service.name, "bold cyan"), address, (kind, "")
        shown, left_out = service.shown, service.left_out or service.nobody
        bar = "  │" if shown or left_out else ""
        yield from ((bar, ("", ""), address, (kind, "")) for address, kind in others)
        for number, pod in enumerate(shown):
            stem = "  └─" if number == len(shown) - 1 and not left_out else "  ├─"
            yield (
                stem,
                (pod.name, "yellow" if pod.trouble else "green"),
                " ".join(pod.addresses),
                (pod.trouble, "yellow"),
            )
        if left_out:
            yield "  └─", (left_out, "yellow" if service.nobody else "dim"), "", ("", "")


def _more(services: Sequence[Service]) -> list[Line]:
    more = len(services) - SERVICES_SHOWN
    return [[(f" and {more:,} more ", "dim")]] if more > 0 else []
