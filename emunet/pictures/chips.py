"""Pods in an SVG: chips in rows that hang from a bar, a bridge or a Service.

Rule of this file: sizes are known before there are places.
"""

from __future__ import annotations

from dataclasses import dataclass

from emunet.pictures.network import Pod
from emunet.pictures.svg import AMBER, FAINT, GREEN, TINTS, box, number, path, pill, text, text_width

HIGH, GAP = 26, 10
STEM = 18
"""From the bar to the first row."""


@dataclass(frozen=True, slots=True)
class Chips:
    """Pods in rows: how many columns, how wide a chip is, and what is said of those that are left out."""

    shown: tuple[Pod, ...]
    columns: int
    chip: float
    left_out: str = ""

    @classmethod
    def of(cls, shown: tuple[Pod, ...], left_out: str = "") -> Chips:
        """In at most four columns."""
        columns = len(shown) if len(shown) <= 3 else 3 if len(shown) <= 9 else 4
        return cls(shown, columns, max((_width(pod) for pod in shown), default=0.0), left_out)

    @property
    def width(self) -> float:
        """Of the rows, or of what is said below them."""
        return max(self.columns * (self.chip + GAP) - GAP, text_width(self.left_out, 11) if self.left_out else 0.0)

    @property
    def height(self) -> float:
        """Of all rows, without the stem above them."""
        rows = -(-len(self.shown) // self.columns) if self.shown else 0
        return rows * (self._row + GAP) - GAP + (18 if self.left_out else 0)

    @property
    def _row(self) -> float:
        return HIGH + 13 * max((max(1, len(pod.addresses)) for pod in self.shown), default=1)

    def draw(self, middle: float, y: float, color: str, *, faint_trouble: bool = False) -> list[str]:
        """Ink, below a bar whose foot is at y. `faint_trouble`: what leads to a pod in trouble is dashed."""
        parts = []
        left = middle - (self.columns * (self.chip + GAP) - GAP) / 2
        for order, pod in enumerate(self.shown):
            row, column = divmod(order, self.columns)
            at_x = left + column * (self.chip + GAP)
            at_y = y + STEM + row * (self._row + GAP)
            center = at_x + self.chip / 2
            upper = y if row == 0 else at_y - GAP
            if row == 0 or pod.addresses:
                dash = "3 3" if faint_trouble and pod.trouble else ""
                parts.append(path(f"M{number(center)} {number(upper)} V{number(at_y)}", color, thick=1.5, dash=dash))
            parts += _chip(pod, at_x, at_y, self.chip, self._row)
        if self.left_out:
            parts.append(text(middle, y + STEM + self.height - 4, self.left_out, size=11, fill=FAINT, anchor="middle"))
        return parts


def _width(pod: Pod) -> float:
    widths = [text_width(pod.name, 12, bold=True), text_width(pod.trouble or "", 10)]
    widths += [text_width(one.partition("/")[0], 10, mono=True) for one in pod.addresses]
    return max(widths) + 22


def _chip(pod: Pod, x: float, y: float, width: float, height: float) -> list[str]:
    color = AMBER if pod.trouble else GREEN
    parts = [box(x, y, width, height, fill=TINTS[color], stroke=color, radius=6)]
    middle, at = x + width / 2, y + (17 if pod.addresses else height / 2 + 4)
    parts.append(text(middle, at, pod.name, bold=True, anchor="middle"))
    for one in pod.addresses:
        at += 13
        parts.append(text(middle, at, one.partition("/")[0], size=10, mono=True, fill=FAINT, anchor="middle"))
    if pod.trouble:
        parts.append(pill(middle, y - 4, pod.trouble, AMBER, size=10))
    return parts
