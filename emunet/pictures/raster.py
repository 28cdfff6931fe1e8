"""An SVG of ours as PNG, for places that show no SVG.

The work is resvg's (Rust, no system library to install); it is asked for by the extra
`png`, since nothing else needs it.

Rule of this file: it draws what it is given; NoRaster says what to install.
"""

from __future__ import annotations


class NoRaster(Exception):
    """No PNG can be made here: a sentence."""


def png(svg: str, scale: float = 2.0) -> bytes:
    """The picture with `scale` pixels to each of the SVG's; two are sharp on screens of today."""
    try:
        import resvg_py
    except ImportError:
        raise NoRaster(
            "PNG needs resvg, which is not installed: pip install 'emunet[png]'; or write a file that ends in .svg"
        ) from None
    made: bytes = resvg_py.svg_to_bytes(
        svg_string=svg, zoom=scale, font_family="DejaVu Sans", sans_serif_family="DejaVu Sans",
        monospace_family="DejaVu Sans Mono",
    )  # fmt: skip
    return made
