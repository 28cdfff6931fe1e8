"""Impairment: what goes wrong on one direction of a wire, as a value and as words.

The words are those of tc-netem(8) where it has one. A topology, `emunet link` and a
scenario all say them in the same way, and all come through `Impairment.changed`.

Rule of this file: values only; what an impairment does to a frame is `impaired`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from emunet.packet.filter import compile_filter
from emunet.packet.quantity import (
    format_duration,
    format_rate,
    format_share,
    parse_count,
    parse_duration,
    parse_rate,
    parse_share,
)

DISTRIBUTIONS = ("uniform", "normal")
LEAST_MTU, MOST_MTU = 68, 65535


@dataclass(frozen=True, slots=True)
class Impairment:
    """Settings of one direction. All zero is a plain wire.

    delay, jitter  ns; uniform: each frame takes delay plus or minus up to jitter; normal: jitter is the
                   standard deviation, and no frame takes less than nothing
    distribution   `uniform` or `normal`
    loss           share of frames lost, 0 to 1
    burst          (p, r): Gilbert-Elliott, chance to go bad and to go good again; bad loses all
    every          lose every n-th frame; 0: none
    match          a filter: only frames that it takes are lost, duplicated, reordered or corrupted, and only
                   they count for `every`; empty: all
    duplicate      share of frames that arrive twice
    reorder        share of frames that are sent at once, past those that wait
    corrupt        share of frames with one bit flipped
    rate           bits a second on the wire (whole frames); 0: no limit
    queue          frames that may wait for the rate; more are dropped from the tail
    mtu            bytes of an IP packet that the wire carries; what is longer is lost without a word; 0: no limit
    """

    delay: int = 0
    jitter: int = 0
    distribution: str = "uniform"
    loss: float = 0.0
    burst: tuple[float, float] | None = None
    every: int = 0
    match: str = ""
    duplicate: float = 0.0
    reorder: float = 0.0
    corrupt: float = 0.0
    rate: int = 0
    queue: int = 1000
    mtu: int = 0

    def __post_init__(self) -> None:
        for name in ("loss", "duplicate", "reorder", "corrupt"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is a share of all frames: 0 to 1 (or 0% to 100%), not {getattr(self, name)}")
        for name in ("delay", "jitter", "every", "rate", "mtu"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} cannot be negative")
        if self.distribution not in DISTRIBUTIONS:
            raise ValueError(f"distribution is {' or '.join(DISTRIBUTIONS)}, not {self.distribution!r}")
        if self.jitter > self.delay and self.distribution == "uniform":
            raise ValueError("jitter cannot be larger than delay: a frame would arrive before it was sent")
        if self.queue < 1:
            raise ValueError("queue must hold at least one frame")

    @property
    def plain(self) -> bool:
        """Whether nothing is impaired."""
        return self == Impairment(queue=self.queue, match=self.match, distribution=self.distribution)

    def changed(self, settings: Mapping[str, object]) -> Impairment:
        """These fields changed, the rest kept; values as people write them. ValueError names the field."""
        values: dict[str, Any] = {}
        for name, value in settings.items():
            parse = _PARSERS.get(name)
            if parse is None:
                raise ValueError(f"a link has no {name}; it has: {', '.join(_PARSERS)}")
            try:
                values[name] = parse(value)
            except ValueError as error:
                raise ValueError(f"{name}: {error} (got {_shown(value)})") from None
        return replace(self, **values)

    def as_text(self) -> dict[str, str]:
        """What is set, in the words of `changed`; empty for a plain wire."""
        plain = Impairment()
        return {
            one.name: _WRITERS.get(one.name, str)(getattr(self, one.name))
            for one in fields(self)
            if getattr(self, one.name) != getattr(plain, one.name)
        }


PLAIN = Impairment()


def parse_burst(value: object) -> tuple[float, float] | None:
    """`1%,30%` or a list of two: chance that good goes bad, and that bad goes good."""
    if value is None or str(value).strip().lower() in ("none", "off", "0"):
        return None
    parts = value.split(",") if isinstance(value, str) else list(value) if isinstance(value, list | tuple) else []
    if len(parts) != 2:
        raise ValueError("expected two shares like 1%,30%: how often it goes bad, and how often good again")
    to_bad, to_good = (parse_share(part) for part in parts)
    if to_bad and not to_good:
        raise ValueError("expected a second share above 0%: else what has gone bad stays bad")
    return (to_bad, to_good) if to_bad else None


def parse_flap(value: object) -> tuple[int, int] | None:
    """`10s,2s` or a list of two: how long it is up, and how long down, again and again; `off` ends it. In ns."""
    if value is None or str(value).strip().lower() in ("none", "off", "0"):
        return None
    parts = value.split(",") if isinstance(value, str) else list(value) if isinstance(value, list | tuple) else []
    if len(parts) != 2:
        raise ValueError("expected two times like 10s,2s: how long it is up, and how long down")
    up, down = (parse_duration(part) for part in parts)
    if min(up, down) < 1_000_000:
        raise ValueError("expected two times of at least 1ms")
    return up, down


def format_flap(flap: tuple[int, int]) -> str:
    """The text that `parse_flap` reads as this."""
    return ",".join(map(format_duration, flap))


def parse_match(value: object) -> str:
    """A filter, if it is one; `none` and `off` mean every frame."""
    text = str(value).strip()
    if text.lower() in ("none", "off"):
        return ""
    compile_filter(text)
    return text


def parse_distribution(value: object) -> str:
    """`uniform` or `normal`."""
    text = str(value).strip().lower()
    if text not in DISTRIBUTIONS:
        raise ValueError(f"expected {' or '.join(DISTRIBUTIONS)}")
    return text


def parse_every(value: object) -> int:
    """Which frame is lost, again and again: 100 means each hundredth; 0, none."""
    return 0 if str(value).strip().lower() in ("none", "off") else parse_count(value, 0, 10**9)


def parse_queue(value: object) -> int:
    """Frames that may wait for the rate."""
    return parse_count(value, 1, 10**6, "frames")


def parse_mtu(value: object) -> int:
    """Bytes of the largest IP packet; `off` for no limit."""
    if str(value).strip().lower() in ("none", "off", "0"):
        return 0
    return parse_count(value, LEAST_MTU, MOST_MTU, "bytes")


_PARSERS: dict[str, Callable[[object], Any]] = {
    "delay": parse_duration,
    "jitter": parse_duration,
    "distribution": parse_distribution,
    "loss": parse_share,
    "burst": parse_burst,
    "every": parse_every,
    "match": parse_match,
    "duplicate": parse_share,
    "reorder": parse_share,
    "corrupt": parse_share,
    "rate": parse_rate,
    "queue": parse_queue,
    "mtu": parse_mtu,
}
_WRITERS: dict[str, Callable[[Any], str]] = {
    "delay": format_duration,
    "jitter": format_duration,
    "loss": format_share,
    "burst": lambda burst: ",".join(map(format_share, burst)),
    "duplicate": format_share,
    "reorder": format_share,
    "corrupt": format_share,
    "rate": format_rate,
}
SETTINGS = tuple(_PARSERS)
"""The names of all settings, in the order in which they are shown."""


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, str) else str(value)


__all__ = [
    "PLAIN", "SETTINGS", "Impairment", "format_flap", "parse_burst", "parse_distribution", "parse_every", "parse_flap",
    "parse_match", "parse_mtu", "parse_queue",
]  # fmt: skip
