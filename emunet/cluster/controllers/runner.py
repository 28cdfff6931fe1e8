"""Runs the controllers: what changed goes to those that watch it, what is due is looked at again.

    runner.run(now)      until no controller has anything left to do
    runner.due()         when one of them wants to be called next, if nothing changes

Rule of this file: nothing waits and nothing is done twice at once. A controller whose action is
refused is called again later, after a time that doubles, and the object that it works for is told.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import count

from emunet.cluster.controllers.actions import Action, Controller, Create, Delete, Note, Write
from emunet.cluster.events import record
from emunet.cluster.moments import SECOND
from emunet.cluster.requests import Request, Rules
from emunet.cluster.status import StatusError
from emunet.cluster.store import Change, Key, Store, meta

ROUNDS = 10_000
"""Turns in one `run` after which controllers are taken to work against each other."""

_LONGEST_PAUSE = 300 * SECOND


class Endless(Exception):
    """Controllers undo each other's work for ever: a fault of ours."""


class Runner:
    """The controllers of one store."""

    def __init__(self, store: Store, controllers: Sequence[Controller], rules: Rules) -> None:
        self.store = store
        self.rules = rules
        self._controllers = list(controllers)
        self._dirty: list[dict[Key, None]] = [{} for _ in controllers]
        self._due: list[tuple[int, int, int, Key]] = []
        self._wanted: dict[tuple[int, Key], int] = {}
        self._failures: dict[tuple[int, Key], int] = {}
        self._changes: deque[Change] = deque()
        self._numbers = count()
        store.listeners.append(self._changes.append)

    def mark(self, name: str, keys: Iterable[Key]) -> None:
        """Let a controller look at some objects, because something changed that is no object."""
        for index, controller in enumerate(self._controllers):
            if controller.name == name:
                self._dirty[index].update(dict.fromkeys(keys))

    def due(self) -> int | None:
        """When something is to be looked at again; None where nothing is."""
        while self._due and self._wanted.get((self._due[0][2], self._due[0][3])) != self._due[0][0]:
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    def run(self, now: int) -> int:
        """Let every controller do what there is to do, until there is nothing; how many steps that took."""
        steps = 0
        for _ in range(ROUNDS):
            self._distribute(now)
            busy = False
            for index, controller in enumerate(self._controllers):
                keys = list(self._dirty[index])
                self._dirty[index].clear()
                for key in keys:
                    self._step(index, controller, key, now)
                    steps += 1
                if keys:
                    busy = True
                    self._distribute(now)
            if not busy:
                return steps
        busy_ones = [one.name for one, dirty in zip(self._controllers, self._dirty, strict=True) if dirty]
        raise Endless(f"controllers work against each other and come to no end: {', '.join(busy_ones)}")

    def _distribute(self, now: int) -> None:
        while self._changes:
            change = self._changes.popleft()
            for index, controller in enumerate(self._controllers):
                watch = controller.watches.get(change.kind.resource) or controller.watches.get("*")
                if watch is not None:
                    self._dirty[index].update(dict.fromkeys(watch(self.store, change)))
        while (due := self.due()) is not None and due <= now:
            _, _, index, key = heapq.heappop(self._due)
            del self._wanted[index, key]
            self._dirty[index][key] = None

    def _step(self, index: int, controller: Controller, key: Key, now: int) -> None:
        outcome = controller.step(self.store, key, now)
        due = outcome.due
        try:
            for action in outcome.actions:
                self._act(action, now)
            self._failures.pop((index, key), None)
        except StatusError as error:
            failures = self._failures[index, key] = self._failures.get((index, key), 0) + 1
            pause = min(SECOND << min(failures - 1, 16), _LONGEST_PAUSE)
            due = now + pause if due is None else min(due, now + pause)
            about = self.store.at(key)
            if about is not None:
                record(self.store, Note(about, "FailedCreate", str(error), controller.name, "Warning"), now)
        if due is None:
            self._wanted.pop((index, key), None)
        elif self._wanted.get((index, key)) != due:
            self._wanted[index, key] = due
            heapq.heappush(self._due, (due, next(self._numbers), index, key))

    def _act(self, action: Action, now: int) -> None:
        match action:
            case Create(item, owner):
                kind = self.store.kind_of(item)
                request = Request(self.store, now, self.rules, trusted=True)
                made = request.create(kind, item, meta(item).get("namespace", ""))
                if owner is not None:
                    message = f"Created {kind.singular}: {meta(made)['name']}"
                    record(self.store, Note(owner, "SuccessfulCreate", message, _source(owner)), now)
            case Write(item):
                if self.store.at(self.store.key(self.store.kind_of(item), item)) is not None:
                    self.store.replace(item, now)
            case Delete(key, grace, owner):
                if self.store.at(key) is not None:
                    self.store.delete(key, now, grace=grace)
                    if owner is not None:
                        message = f"Deleted {self.store.kind(key.resource).singular}: {key.name}"
                        record(self.store, Note(owner, "SuccessfulDelete", message, _source(owner)), now)
            case Note():
                record(self.store, action, now)


def _source(owner: dict[str, object]) -> str:
    """The name that the controller of a kind goes by in events."""
    kind = str(owner["kind"])
    if kind == "ReplicationController":
        return "replication-controller"
    return f"{kind.lower()}-controller"
