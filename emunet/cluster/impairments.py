"""What goes wrong on a link, as a topology states it: for both directions, and for one of them under `from`.

    - {a: host1, b: switch1, delay: 20ms, loss: 1%, from: {host1: {rate: 10mbit}}}

The fields are those of `fabric.impairment.Impairment` in the same words; `mtu` is the one
exception: of a link it is what its ports are configured with, of a direction it is what
the wire carries without telling anybody.

Rule of this file: a direction is the link's own settings with that direction's over them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any, ClassVar

from pydantic import PlainValidator

from emunet.cluster.load import Document, Path, Problem
from emunet.cluster.schema import Model, did_you_mean
from emunet.fabric.impairment import (
    PLAIN,
    Impairment,
    parse_burst,
    parse_distribution,
    parse_every,
    parse_flap,
    parse_match,
    parse_mtu,
    parse_queue,
)
from emunet.packet.quantity import parse_duration, parse_rate, parse_share


def _as(parse: Callable[[object], Any]) -> PlainValidator:
    """The field type of what a person may write as `parse` reads it."""
    return PlainValidator(parse)


Duration = Annotated[int, _as(parse_duration)]
Share = Annotated[float, _as(parse_share)]
Flap = Annotated[tuple[int, int], _as(parse_flap)]


class Impaired(Model):
    """Fields of whatever can be impaired. None: not given."""

    delay: Duration | None = None
    jitter: Duration | None = None
    distribution: Annotated[str, _as(parse_distribution)] | None = None
    loss: Share | None = None
    burst: Annotated[tuple[float, float], _as(parse_burst)] | None = None
    every: Annotated[int, _as(parse_every)] | None = None
    match: Annotated[str, _as(parse_match)] | None = None
    duplicate: Share | None = None
    reorder: Share | None = None
    corrupt: Share | None = None
    rate: Annotated[int, _as(parse_rate)] | None = None
    queue: Annotated[int, _as(parse_queue)] | None = None

    def settings(self) -> dict[str, Any]:
        """The settings that were given."""
        return {name: getattr(self, name) for name in Impaired.model_fields if name in self.model_fields_set}


class Direction(Impaired):
    """What goes wrong from one end of a link to the other."""

    called: ClassVar[str] = "a direction of a link"
    mtu: Annotated[int, _as(parse_mtu)] | None = None

    def settings(self) -> dict[str, Any]:
        """The settings that were given, the MTU of this direction among them."""
        own = {"mtu": self.mtu} if "mtu" in self.model_fields_set else {}
        return super().settings() | own


class Troubled(Impaired):
    """Fields of a link that is more than a cable; `from` is a word of Python's, so it has another name here."""

    a: str
    b: str
    down: bool = False
    flap: Flap | None = None

    def directions(self) -> dict[str, Direction]:
        """The settings of single directions, by the device at which each begins."""
        raise NotImplementedError

    def impairments(self) -> tuple[Impairment, Impairment]:
        """What goes wrong from `a` to `b`, and back. ValueError where settings contradict each other."""
        both = self.settings()
        one, other = (self._of(both, name) for name in (self.a, self.b))
        return one, other

    def _of(self, both: dict[str, Any], device: str) -> Impairment:
        direction = self.directions().get(device)
        return _made(both | (direction.settings() if direction is not None else {}))


def _made(settings: dict[str, Any]) -> Impairment:
    values = {name: value for name, value in settings.items() if value is not None or name == "burst"}
    return Impairment(**values) if values else PLAIN


def check_settings(settings: dict[str, Any]) -> str:
    """What is wrong with settings whatever else is set on the wire; empty where nothing is."""
    alone = dict(settings)
    if "jitter" in alone:
        alone.setdefault("delay", alone["jitter"])
    try:
        _made(alone)
    except ValueError as error:
        return str(error)
    return ""


def check_impairments(document: Document, path: Path, link: Troubled) -> Iterator[Problem]:
    """Settings of one link that contradict each other, or speak of a device that is not at its end."""
    for device in link.directions():
        if device not in (link.a, link.b):
            message = f"this link joins {link.a!r} and {link.b!r}{did_you_mean(device, (link.a, link.b))}"
            yield document.problem((*path, "from", device), message, key=True)
    if link.down and link.flap is not None:
        yield document.problem((*path, "flap"), "a link that is down does not flap: leave one of them out")
    both = link.settings()
    try:
        _made(both)
    except ValueError as error:
        yield document.problem(path, str(error))
        return
    for device, direction in link.directions().items():
        try:
            _made(both | direction.settings())
        except ValueError as error:
            yield document.problem((*path, "from", device), str(error))
