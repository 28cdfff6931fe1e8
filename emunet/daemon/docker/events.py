"""What happens in an engine, as `docker events` tells it.

Rule of this file: an event is remembered for a while and handed to all who listen; a slow listener loses
the oldest of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

KEPT = 256
"""Events that can be asked for afterwards (as many as the engine's own)."""

_WAITING = 1024


class Events:
    """The events of one engine."""

    def __init__(self) -> None:
        self.past: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._listeners: set[asyncio.Queue[dict[str, Any]]] = set()

    def tell(self, kind: str, action: str, number: str, attributes: Mapping[str, str]) -> None:
        """Something has happened."""
        now = time.time_ns()
        event: dict[str, Any] = {
            "Type": kind,
            "Action": action,
            "Actor": {"ID": number, "Attributes": dict(attributes)},
            "scope": "local",
            "time": now // 10**9,
            "timeNano": now,
        }
        if kind == "container":
            event |= {"status": action, "id": number, "from": attributes.get("image", "")}
        self.past.append(event)
        for queue in self._listeners:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(event)

    @contextmanager
    def listen(self) -> Iterator[asyncio.Queue[dict[str, Any]]]:
        """Within it, a queue gets all that happens."""
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(_WAITING)
        self._listeners.add(queue)
        try:
            yield queue
        finally:
            self._listeners.discard(queue)


def matches(event: Mapping[str, Any], filters: Mapping[str, list[str]]) -> bool:
    """Whether an event is one of those asked for: all keys, of each any value."""
    attributes = event["Actor"]["Attributes"]
    number = event["Actor"]["ID"]
    for key, values in filters.items():
        if key == "type":
            good = event["Type"] in values
        elif key in ("event", "action"):
            good = event["Action"] in values or event["Action"].partition(":")[0] in values
        elif key in ("container", "network", "image", "volume"):
            names = (number, attributes.get("name", ""), attributes.get(key, ""))
            good = any(value in names or number.startswith(value) for value in values) and (
                event["Type"] == key or attributes.get(key, "") != ""
            )
        elif key == "label":
            good = all(_has_label(attributes, value) for value in values)
        else:  # daemon, scope
            good = True
        if not good:
            return False
    return True


def _has_label(labels: Mapping[str, str], wanted: str) -> bool:
    name, equals, value = wanted.partition("=")
    return name in labels and (not equals or labels[name] == value)
