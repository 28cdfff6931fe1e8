"""Lab time as Kubernetes writes it: nanoseconds since the lab began <-> `2026-01-02T03:04:05Z`.

Rule of this file: no clock is read; the moment at which the lab began is a setting.
"""

from __future__ import annotations

from calendar import timegm
from datetime import UTC, datetime, timedelta

SECOND = 1_000_000_000

_ZERO = datetime(1970, 1, 1, tzinfo=UTC)

DEFAULT_EPOCH = timegm((2026, 1, 1, 0, 0, 0)) * SECOND
"""When a lab begins that is not told: the same moment in every run."""


def to_text(moment: int, epoch: int = 0) -> str:
    """The moment to the second, in UTC."""
    return (_ZERO + timedelta(seconds=(epoch + moment) // SECOND)).strftime("%Y-%m-%dT%H:%M:%SZ")


def to_text_micro(moment: int, epoch: int = 0) -> str:
    """The moment to the microsecond: what leases and log lines have."""
    return (_ZERO + timedelta(microseconds=(epoch + moment) // 1000)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def from_text(text: str, epoch: int = 0) -> int:
    """The moment that a text names. ValueError."""
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return round((moment - _ZERO).total_seconds() * SECOND) - epoch


def age(seconds: int) -> str:
    """How kubectl tells an age: `45s`, `3m5s`, `2h`, `5d3h`, `2y`."""
    if seconds < 0:
        return "0s" if seconds > -2 else "<invalid>"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return _two(minutes, "m", seconds % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _two(days, "d", hours % 24, "h")
    if days < 730:
        return f"{days}d"
    return _two(days // 365, "y", days % 365, "d")


def _two(first: int, unit: str, second: int, smaller: str) -> str:
    return f"{first}{unit}{second}{smaller}" if second else f"{first}{unit}"
