"""The connection table: one entry a connection, found by either direction.

Beside what every `Table` does: an entry's lifetime depends on its state; a reply finds
its connection by an index; a full table gives up what is not assured, the oldest of the
source that has most of it, so that one source that floods pushes out its own. Where
everything is assured there is no room, and the newcomer is refused. (Netfilter's
early_drop does the same among the eight hash buckets nearest to the newcomer.) What has
expired reads as absent; each newcomer has a few of the others looked at and removed, so
that the dead stay few and no sweep ever takes long.

Rule of this file: the indices change where the entry does, in dry runs too.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from heapq import heappop, heappush, heapreplace
from typing import TypeVar

from emunet.elements.connections.connection import Connection, Timeouts
from emunet.elements.connections.flow import QUERIES, UDP, Flow
from emunet.plane.table import NEVER, Entry, Table, Watch

ASSURED = "assured"
LOOKED_AT = 4
"""Entries that are looked at for each newcomer: so the dead are at most a third of the living."""
CONFIGURATION = Flow(b"", b"", 0)
"""The key of what every walk leans on beside entries: the rules themselves."""

Endpoint = tuple[bytes, int, int]
Backend = tuple[bytes, int]
K = TypeVar("K")


def endpoint(flow: Flow) -> Endpoint:
    """Who sends: address, protocol, and port or identifier."""
    return flow.source, flow.protocol, flow.source_port


def _receiver(flow: Flow) -> Endpoint:
    return flow.destination, flow.protocol, flow.destination_port


def _backend(connection: Connection) -> Backend:
    """Who answers: address and port that the connection really leads to."""
    return connection.reply.source, connection.reply.source_port


def _leave(index: dict[K, dict[Flow, None]], place: K, key: Flow) -> None:
    keys = index.get(place, {})
    keys.pop(key, None)
    if not keys:
        index.pop(place, None)


def _group(key: Flow, connection: Connection) -> str | bytes:
    return ASSURED if connection.assured else key.source


class ConnectionTable(Table[Flow, Connection]):
    """Connections by their original flow."""

    def __init__(self, watch: Watch, timeouts: Timeouts, capacity: int) -> None:
        super().__init__("connections", watch, capacity, timeouts.established, _group)
        self.timeouts = timeouts
        self._replies: dict[Flow, Flow] = {}
        self._mapped: dict[Endpoint, dict[Flow, None]] = {}
        self._aside: dict[Flow, Flow] = {}
        self._sent_to: dict[Endpoint, dict[Backend, dict[Flow, None]]] = {}
        self._sizes: list[tuple[int, int, str | bytes]] = []
        self._order = 0
        self._earliest = NEVER
        self._round: OrderedDict[Flow, None] = OrderedDict()

    # Reading

    def lifetime_of(self, connection: Connection) -> int:
        """How long it is remembered after its last packet (ns)."""
        timeouts = self.timeouts
        protocol = connection.original.protocol
        if connection.state is not None:
            return timeouts.tcp(connection.state, assured=connection.assured)
        if protocol == UDP:
            return timeouts.udp_stream if connection.assured else timeouts.udp
        return timeouts.icmp if protocol in QUERIES else timeouts.other

    def get(self, key: Flow, now: int) -> Connection | None:
        """The live connection of an original flow. A recorded walk is over when it would have expired."""
        entry = self._find(key)
        connection = entry.value if entry is not None and self._alive(key, entry, now) else None
        if self._watch.leaned is not None:
            # Hits keep the entry alive, but one that comes after its end must not raise it again: the next
            # packet after an idle lifetime takes the slow way, whatever happened in between.
            deadline = NEVER if connection is None else now + self.lifetime_of(connection)
            self._watch.leaned.append((self, key, deadline, False))
        return connection

    def find(self, flow: Flow, now: int) -> tuple[Connection, bool] | None:
        """The live connection that a packet of this flow belongs to, and whether it is a reply."""
        connection = self.get(flow, now)
        if connection is not None:
            return connection, False
        key = self._aside.get(flow) or self._replies.get(flow)
        if key is None:
            return None
        connection = self.get(key, now)
        return None if connection is None or connection.reply != flow else (connection, True)

    def mappings(self, sender: Endpoint, now: int) -> Iterator[Connection]:
        """Live connections of a sender whose source was translated, the latest first."""
        for key in reversed(list(self._overlay or ())):
            connection = self.get(key, now)
            if connection is not None and endpoint(key) == sender and connection.interface:
                yield connection
        for key in reversed(list(self._mapped.get(sender, ()))):
            connection = self.get(key, now)
            if connection is not None:
                yield connection

    def sent_to(self, receiver: Endpoint) -> dict[Backend, list[Flow]]:
        """The connections of UDP whose first packet was sent to an address and port, by who answers them."""
        return {backend: list(flows) for backend, flows in self._sent_to.get(receiver, {}).items()}

    def remaining(self, key: Flow, now: int) -> int:
        """How long the entry lives if no packet comes (ns); 0 where there is none."""
        entry = self._entries.get(key)
        if entry is None:
            return 0
        return max(0, self._credited(key, entry) + self.lifetime_of(entry.value) - now)

    def last_use(self, key: Flow, now: int) -> int:
        """When a packet of the connection was last seen; `now` where there is none."""
        entry = self._find(key)
        return now if entry is None else self._credited(key, entry)

    def has_room(self, now: int) -> bool:
        """Whether one more can be entered at `now`: there is space, or something that may go."""
        if len(self._entries) < self.capacity or self._largest() is not None:
            return True
        if now < self._earliest:
            return False
        self._earliest = min((self._end(key, entry) for key, entry in self._entries.items()), default=NEVER)
        return now >= self._earliest

    # Changing

    def put(self, key: Flow, value: Connection, now: int, static: bool = False) -> None:
        """Enter or replace, and index the reply."""
        if self._overlay is not None:
            super().put(key, value, now, static)
            self._aside[value.reply] = key
            return
        if key not in self._entries:
            self._look_around(now)
            if len(self._entries) >= self.capacity:
                self._give_up_one(now)
            self._round[key] = None
        super().put(key, value, now, static)
        if self._replies.get(value.reply) != key:
            self._replies[value.reply] = key
            self.changed(value.reply, "entered")
        if value.interface:
            self._mapped.setdefault(endpoint(key), {})[key] = None
        if key.protocol == UDP:
            backends = self._sent_to.setdefault(_receiver(key), {})
            backends.setdefault(_backend(value), {})[key] = None
        self._earliest = min(self._earliest, now + self.lifetime_of(value))
        if not value.assured:
            self._push(key.source)

    def advance(self, key: Flow, value: Connection, now: int) -> None:
        """As `put`, for a connection that has come further: 2 µs instead of 8, where its group stays."""
        entry = None if self._overlay is not None else self._entries.get(key)
        old = None if entry is None else entry.value
        if entry is None or old is None or (old.reply, old.assured, old.interface) != (
            value.reply, value.assured, value.interface
        ):  # fmt: skip
            self.put(key, value, now)
            return
        entry.value, entry.used = value, now
        self.changed(key, "changed")
        self._earliest = min(self._earliest, now + self.lifetime_of(value))

    def end_overlay(self) -> None:
        """Throw away what was kept aside."""
        super().end_overlay()
        self._aside.clear()

    def reconfigure(self, timeouts: Timeouts, capacity: int) -> None:
        """Take other limits; every recorded walk is void."""
        self.timeouts = timeouts
        self.capacity = capacity
        self.lifetime = timeouts.established
        self.changed(CONFIGURATION, "rules changed")

    # Inside

    def _end(self, key: Flow, entry: Entry[Connection]) -> int:
        return self._credited(key, entry) + self.lifetime_of(entry.value)

    def _alive(self, key: Flow, entry: Entry[Connection], now: int) -> bool:
        return now < entry.used + self.lifetime_of(entry.value) or now < self._end(key, entry)

    def _forget(self, key: Flow, entry: Entry[Connection]) -> None:
        super()._forget(key, entry)
        if self._replies.get(entry.value.reply) == key:
            del self._replies[entry.value.reply]
        if entry.value.interface:
            _leave(self._mapped, endpoint(key), key)
        if key.protocol == UDP:
            receiver = _receiver(key)
            backends = self._sent_to.get(receiver, {})
            _leave(backends, _backend(entry.value), key)
            if not backends:
                self._sent_to.pop(receiver, None)

    def _look_around(self, now: int) -> None:
        """Remove what has expired of the next few entries; each has its turn."""
        for _ in range(min(LOOKED_AT, len(self._round))):
            key, _ = self._round.popitem(last=False)
            entry = self._entries.get(key)
            if entry is not None and self._alive(key, entry, now):
                self._round[key] = None
            elif entry is not None:
                self.delete(key)

    def _give_up_one(self, now: int) -> None:
        """The oldest of the source that has most; where all are assured, whatever has expired."""
        source = self._largest()
        oldest = None if source is None else self._groups[source].oldest(self._entries, self._credited)
        if oldest is not None:
            self.evicted += 1
            self.delete(oldest)
        else:
            self.sweep(now)

    def _largest(self) -> str | bytes | None:
        """The source with most entries that are not assured. A heap with late corrections."""
        heap = self._sizes
        while heap:
            size, order, source = heap[0]
            group = self._groups.get(source)
            if group is None or not group.size:
                heappop(heap)
            elif group.size != -size:
                heapreplace(heap, (-group.size, order, source))
            else:
                return source
        return None

    def _push(self, source: bytes) -> None:
        if len(self._sizes) > 4 * len(self._groups) + 64:
            rows = {name: order for _, order, name in self._sizes}
            self._sizes = sorted(
                (-self._groups[name].size, order, name) for name, order in rows.items() if name in self._groups
            )
        self._order += 1
        heappush(self._sizes, (-self._groups[source].size, self._order, source))


__all__ = ["ASSURED", "CONFIGURATION", "ConnectionTable", "Endpoint", "endpoint"]
