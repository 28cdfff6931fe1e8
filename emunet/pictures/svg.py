"""What every picture is drawn with: text, its width, boxes, and the house's colours. SVG, by hand.

Our own few lines instead of a drawing library: no dependency, no state, and one value is
one picture, byte for byte, so that a picture can be compared in a test.

Rule of this file: functions from values to text.
"""

from __future__ import annotations

from collections.abc import Iterable
from xml.sax.saxutils import escape, quoteattr

INK, FAINT, GRID, PAPER = "#1f2933", "#616e7c", "#e4e7eb", "#ffffff"
BLUE, GREEN, VIOLET, AMBER, RED, TEAL = "#0b66c3", "#0f7b4f", "#6d28d9", "#b45309", "#c81e1e", "#0e7490"
TINTS = {
    BLUE: "#eaf3fc", GREEN: "#e6f4ee", VIOLET: "#f1ebfd", AMBER: "#fdf3e3", RED: "#fdecec", TEAL: "#e3f5f8",
    FAINT: "#f5f7fa",
}  # fmt: skip
"""A light ground for each colour."""

SANS = "Inter, 'Segoe UI', system-ui, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"
MONO = "'JetBrains Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace"

_NARROW = set("ijl.,:;|!'`()[]{}/ -tfrI")
_WIDE = set("mwMWQOG@%→←…")


def text_width(text: str, size: float = 12, *, bold: bool = False, mono: bool = False) -> float:
    """About how wide a text will be: no font is asked, so that a picture is the same everywhere; rather too wide."""
    if mono:
        return len(text) * size * 0.602
    width = sum(0.36 if char in _NARROW else 0.9 if char in _WIDE else 0.615 for char in text)
    return width * size * (1.07 if bold else 1.0)


def document(width: float, height: float, title: str, parts: Iterable[str]) -> str:
    """A whole picture on white paper."""
    w, h = number(width), number(height)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" width="{w}" height="{h}"'
        f' font-family={quoteattr(SANS)} font-size="12">'
    )
    paper = f'<rect width="{w}" height="{h}" fill="{PAPER}"/>'
    return "\n".join([head, f"<title>{escape(title)}</title>", paper, *parts, "</svg>"]) + "\n"


def text(
    x: float,
    y: float,
    words: str,
    *,
    size: float = 12,
    fill: str = INK,
    anchor: str = "start",
    bold: bool = False,
    mono: bool = False,
) -> str:
    """A line of text whose foot is at y."""
    style = f' font-size="{number(size)}"' if size != 12 else ""
    style += f' text-anchor="{anchor}"' if anchor != "start" else ""
    style += ' font-weight="600"' if bold else ""
    style += f" font-family={quoteattr(MONO)}" if mono else ""
    return f'<text x="{number(x)}" y="{number(y)}" fill="{fill}"{style}>{escape(words)}</text>'


def box(
    x: float,
    y: float,
    width: float,
    height: float,
    *,
    fill: str = PAPER,
    stroke: str = "",
    radius: float = 6,
    dash: str = "",
    thick: float = 1,
) -> str:
    """A rectangle with round corners."""
    line = f' stroke="{stroke}" stroke-width="{number(thick)}"' if stroke else ""
    line += f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<rect x="{number(x)}" y="{number(y)}" width="{number(width)}" height="{number(height)}"'
        f' rx="{number(radius)}" fill="{fill}"{line}/>'
    )


def line(x1: float, y1: float, x2: float, y2: float, stroke: str = FAINT, *, thick: float = 1.5, dash: str = "") -> str:
    """A straight line."""
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<line x1="{number(x1)}" y1="{number(y1)}" x2="{number(x2)}" y2="{number(y2)}" stroke="{stroke}"'
        f' stroke-width="{number(thick)}"{dashes}/>'
    )


def path(d: str, stroke: str = FAINT, *, thick: float = 1.5, dash: str = "", fill: str = "none") -> str:
    """A path."""
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<path d="{d}" fill="{fill}" stroke="{stroke}" stroke-width="{number(thick)}"{dashes}/>'


def arrow_head(x: float, y: float, right: bool, color: str) -> str:
    """A filled tip that points right or left and ends at x."""
    back = x - 8 if right else x + 8
    points = f"{number(x)},{number(y)} {number(back)},{number(y - 4.5)} {number(back)},{number(y + 4.5)}"
    return f'<polygon points="{points}" fill="{color}"/>'


def cross(x: float, y: float, color: str = RED, size: float = 5) -> str:
    """Where something ended that should have gone on."""
    x1, x2, y1, y2 = number(x - size), number(x + size), number(y - size), number(y + size)
    return (
        f'<path d="M{x1} {y1} L{x2} {y2} M{x1} {y2} L{x2} {y1}" stroke="{color}" stroke-width="2.5"'
        ' stroke-linecap="round" fill="none"/>'
    )


def pill(x: float, y: float, words: str, color: str, *, size: float = 11, anchor: str = "middle") -> str:
    """Words on a light ground with a border, in one colour, centred at y; `anchor` says what x is."""
    width = text_width(words, size) + 14
    left = x - width / 2 if anchor == "middle" else x if anchor == "start" else x - width
    ground = box(left, y - 9.5, width, 19, fill=TINTS.get(color, PAPER), stroke=color, radius=9.5)
    return ground + text(left + width / 2, y + size * 0.36, words, size=size, fill=color, anchor="middle")


def number(value: float) -> str:
    """With one digit at most after the point."""
    return f"{value:.1f}".removesuffix(".0")
