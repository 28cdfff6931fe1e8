"""What a controller may want done, as values, and what it is to be called with.

Rule of this file: values and one contract; `runner` is the only one that acts on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from emunet.cluster.store import Change, Key, Object, View


@dataclass(frozen=True, slots=True)
class Create:
    """Store a new object; `owner` is told in an event (`SuccessfulCreate`) where it is given."""

    item: Object
    owner: Object | None = None


@dataclass(frozen=True, slots=True)
class Write:
    """Put this in the place of the object of its name."""

    item: Object


@dataclass(frozen=True, slots=True)
class Delete:
    """Ask for an object's end; `grace` in seconds, None for its own. `owner` as in Create (`SuccessfulDelete`)."""

    key: Key
    grace: int | None = None
    owner: Object | None = None


@dataclass(frozen=True, slots=True)
class Note:
    """Tell about an object in an Event."""

    about: Object
    reason: str
    message: str
    source: str
    type: Literal["Normal", "Warning"] = "Normal"


Action = Create | Write | Delete | Note


@dataclass(frozen=True, slots=True)
class Outcome:
    """What to do, in this order, and when (ns) to look at the same object again by itself."""

    actions: tuple[Action, ...] = ()
    due: int | None = None


NOTHING = Outcome()

Watch = Callable[[View, Change], Iterable[Key]]
"""Which objects to look at because of a change."""


class Controller(Protocol):
    """The contract. `watches` says, by resource, which changes concern it."""

    name: str
    watches: Mapping[str, Watch]

    def step(self, view: View, key: Key, now: int) -> Outcome:
        """What to do about the object at `key`, which may be gone."""
        ...


def itself(view: View, change: Change) -> Iterable[Key]:
    """A Watch: the object that changed."""
    yield view.key(change.kind, change.item)


def earliest(*moments: int | None) -> int | None:
    """The first of some due times; None where there is none."""
    return min((moment for moment in moments if moment is not None), default=None)
