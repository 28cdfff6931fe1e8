"""Quantities as people write them: `20ms`, `1%`, `10mbit`, `1500`; and back.

The words are those of tc(8), with one exception: `10mbps` means bytes there and bits to
nearly everybody else, so it is refused with what to write instead. Arithmetic is exact:
the same text is the same number in every Python.

Rule of this file: a text either means one number or raises ValueError with a sentence
that shows how it is written.
"""

from __future__ import annotations

import re
from decimal import Decimal

_NUMBER = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([a-z%/]*)")

_DURATIONS = {
    "ns": 1,
    "us": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "min": 60 * 10**9,
    "h": 3600 * 10**9,
}
_RATES = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}

LONGEST = 366 * 24 * 3600 * 10**9
"""A year in ns: what is longer was meant in another unit."""


def parse_duration(value: object) -> int:
    """`20ms`, `1.5s`, `300us`, `2m`, `1h`, or 0 -> ns."""
    found = _read(value, "a time like 20ms, 1.5s or 300us")
    if found is None:
        return 0
    number, unit = found
    if not unit and number:
        raise ValueError(f"expected a time with its unit, like {number}ms or {number}s")
    if unit and unit not in _DURATIONS:
        raise ValueError("expected a time like 20ms, 1.5s or 300us")
    nanoseconds = int(number * _DURATIONS.get(unit, 1))
    if nanoseconds > LONGEST:
        raise ValueError("expected a time of less than a year")
    return nanoseconds


def format_duration(nanoseconds: int) -> str:
    """The shortest text that `parse_duration` reads as this."""
    for unit in ("h", "m", "s", "ms", "us"):
        size = _DURATIONS[unit]
        if nanoseconds % size == 0 and nanoseconds:
            return f"{nanoseconds // size}{unit}"
    unit = next((name for name in ("s", "ms", "us") if nanoseconds >= _DURATIONS[name]), "ns")
    return f"{_plain(Decimal(nanoseconds) / _DURATIONS[unit])}{unit}" if nanoseconds else "0"


def parse_share(value: object) -> float:
    """`1%` or `0.01`, from nothing to all -> 0.0 to 1.0."""
    found = _read(value, "a share like 1% or 0.01")
    if found is None:
        return 0.0
    number, unit = found
    if unit not in ("", "%"):
        raise ValueError("expected a share like 1% or 0.01")
    share = number / 100 if unit else number
    if share > 1:
        hint = f", or did you mean {number}%?" if not unit and number <= 100 else ""
        raise ValueError(f"expected a share of at most 100%{hint}")
    return float(share)


def format_share(share: float) -> str:
    """A share in percent, exact: 0.015 -> `1.5%`."""
    return f"{_plain(Decimal(repr(share)) * 100)}%"


def parse_rate(value: object) -> int:
    """`10mbit`, `1.5gbit`, `64kbit`, with or without `/s` -> bits a second."""
    found = _read(value, "a rate like 10mbit, 1.5gbit or 64kbit")
    if found is None:
        return 0
    number, unit = found
    unit = unit.removesuffix("/s")
    if unit.endswith("bps"):
        raise ValueError(f"expected a rate in bits, like {number}{unit.removesuffix('bps')}bit")
    if not unit and number:
        raise ValueError(f"expected a rate with its unit, like {number}mbit or {number}kbit")
    if unit and unit not in _RATES:
        raise ValueError("expected a rate like 10mbit, 1.5gbit or 64kbit")
    rate = int(number * _RATES.get(unit, 1))
    if number and rate < 1:
        raise ValueError("expected a rate of at least 1bit")
    return rate


def format_rate(rate: int) -> str:
    """The shortest text that `parse_rate` reads as this."""
    for unit in ("gbit", "mbit", "kbit"):
        if rate >= _RATES[unit]:
            return f"{_plain(Decimal(rate) / _RATES[unit])}{unit}"
    return f"{rate}bit"


def parse_count(value: object, low: int, high: int, of: str = "") -> int:
    """A whole number from `low` to `high`; `of` says what it counts."""
    text = str(value).strip()
    if isinstance(value, bool) or not (text.isascii() and text.isdigit()) or not low <= int(text) <= high:
        raise ValueError(f"expected a whole number{f' of {of}' if of else ''} from {low} to {high}")
    return int(text)


def _read(value: object, wanted: str) -> tuple[Decimal, str] | None:
    """The number and its unit; None for a way to say nothing (`none`, `off`)."""
    text = (f"{Decimal(repr(value)):f}" if isinstance(value, float) else str(value)).strip().lower()
    if text in ("none", "off"):
        return None
    match = _NUMBER.fullmatch(text) if isinstance(value, str | int | float) and not isinstance(value, bool) else None
    if match is None or len(text) > 60:
        raise ValueError(f"expected {wanted}")
    return Decimal(match[1]), match[2]


def _plain(number: Decimal) -> str:
    """Digits without an exponent or zeros at the end."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
