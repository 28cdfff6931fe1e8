"""A network as SVG: switches on top, hosts as cards with their interfaces, bridges and pods, cables between.

Rule of this file: sizes first, from the leaves up; then places, from the top down; then ink.
"""

from __future__ import annotations

from emunet.pictures.chips import STEM, Chips
from emunet.pictures.network import PODS_SHOWN, Cable, Interface, Machine, Network, Pod, Tree
from emunet.pictures.services_svg import Shelf
from emunet.pictures.svg import (
    AMBER,
    BLUE,
    FAINT,
    INK,
    PAPER,
    RED,
    TINTS,
    VIOLET,
    box,
    cross,
    document,
    number,
    path,
    pill,
    text,
    text_width,
)  # fmt: skip

MARGIN, HEAD = 32, 76
BETWEEN, RISE = 40, 96
PAD = 16
ROW, TITLE = 20, 40
BRIDGE_HIGH = 28
SWITCH_HIGH = 44


def network_svg(network: Network) -> str:
    """The picture."""
    trees = network.trees()
    levels = max((tree.depth for tree in trees), default=1)
    cards = {tree.machine.name: _Card(tree.machine) for top in trees for tree in top.walk()}
    places: dict[str, tuple[float, float]] = {}
    rises = _rises(trees, levels)
    tops = [HEAD + sum(rises[:level]) for level in range(levels)]
    left = float(MARGIN)
    for top in trees:
        left += _place(top, left, 0, levels, tops, cards, places) + BETWEEN
    about = max(text_width(network.about, 12), text_width(network.title, 19, bold=True))
    shelf = Shelf(network.services, left - BETWEEN - MARGIN)
    width = max(left - BETWEEN + MARGIN, about + 2 * MARGIN, shelf.width + 2 * MARGIN)
    shift = (width - MARGIN - (left - BETWEEN)) / 2  # in the middle where the title is wider
    places = {name: (x + shift, y) for name, (x, y) in places.items()}
    height = max(y + cards[name].height for name, (_, y) in places.items()) + MARGIN if places else HEAD + MARGIN
    parts = [text(MARGIN, 38, network.title, size=19, bold=True), text(MARGIN, 58, network.about, fill=FAINT)]
    labels: list[str] = []
    for cable in network.cables:
        drawn, said = _cable(cable, cards, places)
        parts += drawn
        labels += said
    for name, (x, y) in places.items():
        parts += cards[name].draw(x, y)
    if network.services:
        parts += shelf.draw(MARGIN, height, width - 2 * MARGIN)
        height += shelf.height + MARGIN
    return document(width, height, network.title, [*parts, *labels])


def _rises(trees: list[Tree], levels: int) -> list[float]:
    """How far each level is below the one above it: more where cables have more to say."""
    lines = max((len(one.cable.labels) for top in trees for one in top.walk() if one.cable), default=0)
    return [SWITCH_HIGH + RISE + max(0, lines - 1) * 22.0] * (levels - 1) + [0.0]


def _place(
    tree: Tree,
    left: float,
    level: int,
    levels: int,
    tops: list[float],
    cards: dict[str, _Card],
    places: dict[str, tuple[float, float]],
) -> float:
    """Give a tree its places from `left` on; gives its width. Hosts that nothing hangs on stand on the lowest level."""
    card = cards[tree.machine.name]
    x, width = left, -float(BETWEEN)
    for one in tree.below:
        took = _place(one, x, level + 1, levels, tops, cards, places)
        x += took + BETWEEN
        width += took + BETWEEN
    width = max(width, card.width)
    if tree.below:
        first, last = (places[one.machine.name][0] + cards[one.machine.name].width / 2 for one in _ends(tree))
        middle = (first + last) / 2
    else:
        middle = left + card.width / 2
    lowest = levels - 1 if tree.machine.is_host and not tree.below else level
    places[tree.machine.name] = (middle - card.width / 2, tops[lowest])
    return width


def _ends(tree: Tree) -> tuple[Tree, Tree]:
    return tree.below[0], tree.below[-1]


class _Card:
    """A machine with its size."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.rows = [one for one in machine.interfaces if not one.pods]
        self.grids = [(bridge, _chips(bridge.pods)) for bridge in machine.bridges]
        self.loose = [(said, _chips(pods)) for said, pods in machine.groups]
        if not machine.is_host:
            self.width = max(text_width(machine.name, 13, bold=True), text_width(machine.trouble, 11)) + 40
            self.height = float(SWITCH_HIGH)
            return
        self.named = max((text_width(one.name, 11, mono=True) for one in self.rows), default=0.0)
        inner = [text_width(machine.name, 15, bold=True) + text_width(machine.trouble, 11) + 40]
        inner += [self.named + 14 + text_width(_addresses(one), 11, mono=True) for one in self.rows]
        inner += [max(_bridge_width(bridge), grid.width) for bridge, grid in self.grids]
        inner += [max(text_width(said, 11) + 20, grid.width) for said, grid in self.loose]
        self.width = max(inner) + 2 * PAD
        height = float(TITLE) + len(self.rows) * ROW + 6
        for _, grid in (*self.grids, *self.loose):
            height += 10 + BRIDGE_HIGH + STEM + grid.height
        self.height = height + PAD - 2

    def draw(self, x: float, y: float) -> list[str]:
        """Its ink, with the left upper corner there."""
        return self._host(x, y) if self.machine.is_host else self._switch(x, y)

    def _switch(self, x: float, y: float) -> list[str]:
        color = RED if self.machine.trouble else INK
        parts = [box(x, y, self.width, SWITCH_HIGH, fill="#2f3b48" if color == INK else TINTS[RED], stroke=color)]
        inside = PAPER if color == INK else RED
        middle = x + self.width / 2
        below = self.machine.trouble or "switch"
        parts.append(text(middle, y + 20, self.machine.name, size=13, bold=True, anchor="middle", fill=inside))
        faint = "#b8c4d0" if color == INK else RED
        parts.append(text(middle, y + 34, below, size=10, anchor="middle", fill=faint))
        return parts

    def _host(self, x: float, y: float) -> list[str]:
        machine = self.machine
        stroke = RED if machine.trouble else "#9aa5b1"
        ground = TINTS[RED] if machine.trouble else "#fbfcfd"
        parts = [box(x, y, self.width, self.height, fill=ground, stroke=stroke, radius=10, thick=1.2)]
        parts.append(text(x + PAD, y + 26, machine.name, size=15, bold=True))
        if machine.trouble:
            parts.append(pill(x + self.width - PAD, y + 21, machine.trouble, RED, anchor="end"))
        at = y + TITLE
        for one in self.rows:
            color = VIOLET if one.is_tunnel else INK
            parts.append(text(x + PAD, at + 13, one.name, size=11, mono=True, fill=color, bold=one.name == "eth0"))
            parts.append(text(x + PAD + self.named + 14, at + 13, _addresses(one), size=11, mono=True, fill=FAINT))
            at += ROW
        at += 6
        for bridge, grid in self.grids:
            at += 10
            parts.append(box(x + PAD, at, self.width - 2 * PAD, BRIDGE_HIGH, fill=TINTS[BLUE], stroke=BLUE, radius=5))
            parts.append(text(x + PAD + 10, at + 18, bridge.name, size=11, mono=True, bold=True, fill=BLUE))
            said = _addresses(bridge)
            parts.append(text(x + self.width - PAD - 10, at + 18, said, size=11, mono=True, fill=BLUE, anchor="end"))
            at += BRIDGE_HIGH
            parts += grid.draw(x + self.width / 2, at, BLUE)
            at += STEM + grid.height
        for said, grid in self.loose:
            at += 10
            wide = self.width - 2 * PAD
            parts.append(box(x + PAD, at, wide, BRIDGE_HIGH, fill=TINTS[FAINT], stroke=FAINT, radius=5, dash="4 4"))
            parts.append(text(x + self.width / 2, at + 18, said, size=11, fill=FAINT, anchor="middle"))
            at += BRIDGE_HIGH
            parts += grid.draw(x + self.width / 2, at, FAINT)
            at += STEM + grid.height
        return parts


def _chips(pods: tuple[Pod, ...]) -> Chips:
    more = len(pods) - PODS_SHOWN
    return Chips.of(pods[:PODS_SHOWN], f"and {more:,} more" if more > 0 else "")


def _addresses(interface: Interface) -> str:
    return " · ".join([*interface.addresses, f"mtu {interface.mtu}"])


def _bridge_width(bridge: Interface) -> float:
    said = text_width(_addresses(bridge), 11, mono=True)
    return text_width(bridge.name, 11, mono=True, bold=True) + said + 40


def _cable(
    cable: Cable, cards: dict[str, _Card], places: dict[str, tuple[float, float]]
) -> tuple[list[str], list[str]]:
    """A cable: its line, and what is said about it, which is drawn over all lines."""
    ends = [(cable.a, cable.ports[0]), (cable.b, cable.ports[1])]
    if places[cable.a][1] > places[cable.b][1]:
        ends.reverse()
    (upper, _), (lower, port) = ends
    x1 = places[upper][0] + cards[upper].width / 2
    y1 = places[upper][1] + cards[upper].height
    x2 = places[lower][0] + cards[lower].width / 2
    y2 = places[lower][1]
    color = FAINT if not cable.labels else AMBER if cable.up else RED
    dash = "" if cable.up else "6 5"
    if y2 < y1:  # side by side: two hosts on one cable
        sides = sorted((places[name][0], name) for name in (upper, lower))
        x1 = sides[0][0] + cards[sides[0][1]].width
        x2, y = sides[1][0], places[upper][1] + TITLE / 2
        drawn = [path(f"M{number(x1)} {number(y)} H{number(x2)}", color, thick=2, dash=dash)]
        at = ((x1 + x2) / 2, y)
    else:
        bend = y2 - 34
        middle = (y1 + bend) / 2
        curve = (
            f"M{number(x1)} {number(y1)} C{number(x1)} {number(middle + 14)} {number(x2)} {number(middle - 14)}"
            f" {number(x2)} {number(bend)} V{number(y2)}"
        )
        drawn = [path(curve, color, thick=2, dash=dash)]
        if port:
            drawn.append(text(x2 + 6, y2 - 6, port, size=10, mono=True, fill=FAINT))
        at = (x2, bend - 4)
    said = []
    lines = cable.labels
    for index, words in enumerate(lines):
        y = at[1] - 22 * (len(lines) - 1 - index)
        said.append(pill(at[0], y, words, color))
    if not cable.up and not lines:
        said.append(cross(*at))
    return drawn, said
