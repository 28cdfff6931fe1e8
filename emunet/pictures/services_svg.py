"""Services in the picture of a network: a shelf below all machines, since a Service is at none.

A Service is a bar with its address, and its pods hang from it as they hang from a bridge.

Rule of this file: cards in rows, each as wide as what is in it.
"""

from __future__ import annotations

from collections.abc import Sequence

from emunet.pictures.chips import STEM, Chips
from emunet.pictures.network import SERVICES_SHOWN, Service
from emunet.pictures.svg import AMBER, FAINT, GRID, TEAL, TINTS, box, line, text, text_width

NARROWEST = 620
"""A row of cards may be as wide, however narrow the network above it is."""

PAD, BETWEEN = 16, 24
HEAD, NAME, BAR, WAY = 54, 32, 12, 16
SAID = "the first host that meets such an address puts a pod's in its place"


class Shelf:
    """All Services, in rows of about the given width."""

    def __init__(self, services: Sequence[Service], width: float) -> None:
        cards = [_Card(one) for one in services[:SERVICES_SHOWN]]
        widest = max(width, NARROWEST)
        self._rows: list[list[_Card]] = []
        for card in cards:
            if not self._rows or _wide([*self._rows[-1], card]) > widest:
                self._rows.append([])
            self._rows[-1].append(card)
        more = len(services) - len(cards)
        self._more = f"and {more:,} more Service{'s' if more > 1 else ''}" if more > 0 else ""
        title = text_width("Services", 15, bold=True) + 12 + text_width(SAID, 12)
        self.width = max([title, *map(_wide, self._rows)]) if cards else 0.0
        rows = sum(map(_high, self._rows)) + BETWEEN * (len(self._rows) - 1)
        self.height = HEAD + rows + (28 if self._more else 0) if cards else 0.0

    def draw(self, x: float, y: float, width: float) -> list[str]:
        """Ink, from the left upper corner."""
        parts = [line(x, y, x + width, y, GRID)]
        parts.append(text(x, y + 32, "Services", size=15, bold=True))
        parts.append(text(x + text_width("Services", 15, bold=True) + 12, y + 32, SAID, fill=FAINT))
        at = y + HEAD
        for row in self._rows:
            left = x
            for card in row:
                parts += card.draw(left, at, _high(row))
                left += card.width + BETWEEN
            at += _high(row) + BETWEEN
        if self._more:
            parts.append(text(x + width / 2, at, self._more, fill=FAINT, anchor="middle"))
        return parts


class _Card:
    """A Service with its size."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._chips = Chips.of(service.shown, service.left_out)
        self._bar = BAR + WAY * len(service.ways)
        ways = max(text_width(address, 11, mono=True) + text_width(kind, 11) for address, kind in service.ways) + 44
        name = text_width(service.name, 13, bold=True)
        self.width = max(name, ways, self._chips.width, text_width(service.nobody, 11)) + 2 * PAD
        below = STEM + self._chips.height if service.shown else 22 if service.nobody else 0
        self.height = NAME + self._bar + below + PAD

    def draw(self, x: float, y: float, height: float) -> list[str]:
        """Ink, with the left upper corner there, as high as the row is."""
        service, middle, right = self._service, x + self.width / 2, x + self.width - PAD
        parts = [box(x, y, self.width, height, fill="#fbfcfd", stroke="#9aa5b1", radius=10, thick=1.2)]
        parts.append(text(x + PAD, y + 21, service.name, size=13, bold=True))
        at = y + NAME
        parts.append(box(x + PAD, at, right - x - PAD, self._bar, fill=TINTS[TEAL], stroke=TEAL, radius=5))
        for order, (address, kind) in enumerate(service.ways):
            foot = at + 18 + WAY * order
            parts.append(text(x + PAD + 10, foot, address, size=11, mono=True, bold=True, fill=TEAL))
            parts.append(text(right - 10, foot, kind, size=11, fill=TEAL, anchor="end"))
        at += self._bar
        if service.nobody:
            parts.append(text(middle, at + 20, service.nobody, size=11, fill=AMBER, anchor="middle"))
        return parts + self._chips.draw(middle, at, TEAL, faint_trouble=True)


def _wide(row: Sequence[_Card]) -> float:
    return sum(card.width for card in row) + BETWEEN * (len(row) - 1)


def _high(row: Sequence[_Card]) -> float:
    return max(card.height for card in row)
