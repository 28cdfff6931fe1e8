"""Tables: bounded, ageing, counted; changed only by effects.

Complications, all in one place: an entry may be static (never ages, never makes
room); a full table makes room fairly (the oldest entry of the largest group goes,
so that one port that floods cannot push out the others' entries); a dry run writes
to an overlay that is thrown away; what a walk leaned on, present or absent, is
noted while a walk is recorded, so that a change can delete what was fused from it.

Rule of this file: reading never changes what a later read returns. An expired entry
reads as absent; it is removed when it is in the way or by `sweep`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any, Generic, Protocol, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

NEVER = 1 << 62


class Dependent(Protocol):
    """Something fused from table contents. It knows when it was last used (ns)."""

    used: int

    def invalidate(self, why: str) -> None:
        """Never be used again: what this was made from has changed."""
        ...


class Source(Protocol):
    """Where an answer came from: a table that tells its dependents of changes."""

    def attach(self, key: Any, dependent: Dependent, refreshes: bool = False) -> None:
        """Tell `dependent` when the answer for `key` may have changed."""
        ...

    def detach(self, key: Any, dependent: Dependent) -> None:
        """Forget a dependent that went for another reason."""
        ...


class Watch:
    """What the walk being recorded did and leans on. One per World, shared by all.

    All are None while nothing is recorded; else
    leaned  rows of (source, key, deadline, ages): the answer changes by itself at the deadline (ns);
            `ages`: only because the entry was not used until then
    steps   rows of (device, step, packet), in order
    passed  (figures, name) of each port that the frame came by: what each repetition adds to
    closer  of the steps for which an element looked closer (`Packet.looked`): by its number what `Device` notes
    """

    __slots__ = ("closer", "leaned", "passed", "steps")

    def __init__(self) -> None:
        self.leaned: list[tuple[Source, Any, int, bool]] | None = None
        self.steps: list[tuple[Any, Any, Any]] | None = None
        self.passed: list[tuple[Any, str]] | None = None
        self.closer: dict[int, Any] | None = None

    def begin(self) -> None:
        """From here on note what a walk does."""
        self.leaned, self.steps, self.passed, self.closer = [], [], [], {}

    def end(self) -> None:
        """Note nothing."""
        self.leaned = self.steps = self.passed = self.closer = None


class Entry(Generic[V]):
    """A value with its last use (ns), whether it is static, and what was fused from it."""

    __slots__ = ("group", "static", "used", "value")

    def __init__(self, value: V, used: int, static: bool) -> None:
        self.value = value
        self.used = used
        self.static = static
        self.group: Any = None


class Group(Generic[K]):
    """Members of one group by last use: a heap with late corrections, so that a use costs nothing."""

    __slots__ = ("_heap", "_order", "size")

    def __init__(self) -> None:
        self.size = 0
        self._heap: list[tuple[int, int, K]] = []
        self._order = 0

    def add(self, key: K, used: int) -> None:
        """A new member, used at `used` (ns)."""
        self.size += 1
        self._push(key, used)

    def oldest(self, entries: dict[K, Entry[V]], credited: Callable[[K, Entry[V]], int]) -> K | None:
        """The learned member used longest ago, or None."""
        heap = self._heap
        if len(heap) > 4 * self.size + 64:
            alive = {key for _, _, key in heap if key in entries and entries[key].group is self}
            heap.clear()
            for key in sorted(alive, key=lambda key: credited(key, entries[key])):
                self._push(key, credited(key, entries[key]))
        while heap:
            used, _, key = heap[0]
            entry = entries.get(key)
            if entry is None or entry.static or entry.group is not self:
                heappop(heap)
                continue
            true_use = credited(key, entry)
            if true_use == used:
                return key
            heappop(heap)
            self._push(key, true_use)
        return None

    def _push(self, key: K, used: int) -> None:
        self._order += 1
        heappush(self._heap, (used, self._order, key))


class Table(Generic[K, V]):
    """A bounded mapping whose entries age.

    lifetime  ns an entry lives after its last use; None: it does not age
    capacity  entries at most
    group     which group an entry belongs to, for fair eviction; None: one group
    """

    def __init__(
        self,
        name: str,
        watch: Watch,
        capacity: int,
        lifetime: int | None = None,
        group: Callable[[K, V], Hashable] | None = None,
    ) -> None:
        self.name = name
        self.capacity = capacity
        self.lifetime = lifetime
        self.evicted = 0
        self._watch = watch
        self._group = group
        self._entries: dict[K, Entry[V]] = {}
        self._groups: dict[Hashable, Group[K]] = {}
        self._dependents: dict[K, dict[Dependent, None]] = {}
        self._refreshers: dict[K, dict[Dependent, None]] = {}
        self._overlay: dict[K, Entry[V] | None] | None = None

    # Reading

    def get(self, key: K, now: int) -> V | None:
        """The live value at `now`, or None. Noted when a walk is being recorded."""
        entry = self._find(key)
        deadline = NEVER
        if entry is not None and self.lifetime is not None and not entry.static:
            deadline = entry.used + self.lifetime
            if now >= deadline:
                deadline = self._credited(key, entry) + self.lifetime
                if now >= deadline:
                    entry, deadline = None, NEVER
        leaned = self._watch.leaned
        if leaned is not None:
            leaned.append((self, key, deadline, True))
        return None if entry is None else entry.value

    def lean(self, key: K, deadline: int) -> None:
        """Note that what was read of `key` changes by itself at `deadline` (ns)."""
        if self._watch.leaned is not None:
            self._watch.leaned.append((self, key, deadline, False))

    def items(self, now: int) -> Iterator[tuple[K, V]]:
        """All live entries at `now`, oldest first. For people and tests, not for elements."""
        for key in list(self._entries):
            entry = self._entries[key]
            if self._alive(key, entry, now):
                yield key, entry.value

    def age(self, key: K, now: int) -> int | None:
        """Nanoseconds since the entry was last used, or None where there is none."""
        entry = self._entries.get(key)
        return None if entry is None else now - self._credited(key, entry)

    def __len__(self) -> int:
        return len(self._entries)

    # Changing: called by effects

    def put(self, key: K, value: V, now: int, static: bool = False) -> None:
        """Enter or replace. A full table makes room; static entries are not replaced by learned ones."""
        if self._overlay is not None:
            self._overlay[key] = Entry(value, now, static)
            return
        old = self._entries.get(key)
        if old is not None:
            if old.static and not static:
                return
            changed = old.value != value or not self._alive(key, old, now)
            self._forget(key, old)
            if changed:
                self.changed(key, "changed")
        else:
            if len(self._entries) >= self.capacity and not static:
                self._make_room()
            self.changed(key, "entered")
        entry = self._entries[key] = Entry(value, now, static)
        group = self._group_of(key, value)
        members = self._groups.get(group)
        if members is None:
            members = self._groups[group] = Group()
        members.add(key, now)
        entry.group = members

    def refresh(self, key: K, now: int) -> None:
        """Say that the entry was used at `now`."""
        if self._overlay is not None:
            return
        entry = self._entries.get(key)
        if entry is not None:
            entry.used = now

    def delete(self, key: K) -> None:
        """Remove the entry, static or not."""
        if self._overlay is not None:
            self._overlay[key] = None
            return
        entry = self._entries.get(key)
        if entry is not None:
            self._forget(key, entry)
            self.changed(key, "removed")

    def delete_where(self, condition: Callable[[K, V], bool]) -> int:
        """Remove every learned entry for which `condition` holds; how many."""
        doomed = [key for key, entry in self._entries.items() if not entry.static and condition(key, entry.value)]
        for key in doomed:
            self.delete(key)
        return len(doomed)

    def sweep(self, now: int) -> int:
        """Remove what has expired; how many."""
        if self.lifetime is None:
            return 0
        doomed = [key for key, entry in self._entries.items() if not self._alive(key, entry, now)]
        for key in doomed:
            self.delete(key)
        return len(doomed)

    def limit(self, capacity: int) -> int:
        """Hold so many entries at most from now on; how many had to go. Static ones stay, however many they are."""
        self.capacity = capacity
        gone = self.evicted
        while len(self._entries) > capacity:
            before = len(self._entries)
            self._make_room()
            if len(self._entries) == before:
                break
        return self.evicted - gone

    # Dry runs

    def begin_overlay(self) -> None:
        """From here changes are kept aside."""
        self._overlay = {}

    def end_overlay(self) -> None:
        """Throw away what was kept aside."""
        self._overlay = None

    # What was fused from entries

    def attach(self, key: K, dependent: Dependent, refreshes: bool = False) -> None:
        """Tell `dependent` when `key` changes, appears or goes. `refreshes`: its use is a use of the entry."""
        self._dependents.setdefault(key, {})[dependent] = None
        if refreshes:
            self._refreshers.setdefault(key, {})[dependent] = None

    def detach(self, key: K, dependent: Dependent) -> None:
        """Forget a dependent that went for another reason."""
        entry = self._entries.get(key)
        if entry is not None:
            self._credited(key, entry)
        for table in (self._dependents, self._refreshers):
            rows = table.get(key)
            if rows is not None and dependent in rows:
                del rows[dependent]
                if not rows:
                    del table[key]

    def changed(self, key: K, why: str) -> None:
        """Delete whatever was fused from this key, present or absent."""
        rows = self._dependents.pop(key, None)
        self._refreshers.pop(key, None)
        if rows:
            for dependent in rows:
                dependent.invalidate(f"{self.name} {why}")

    # Inside

    def _find(self, key: K) -> Entry[V] | None:
        if self._overlay is not None and key in self._overlay:
            return self._overlay[key]
        return self._entries.get(key)

    def _credited(self, key: K, entry: Entry[V]) -> int:
        """The last use, counting the hits of what was fused from the entry."""
        for dependent in self._refreshers.get(key, ()):
            if dependent.used > entry.used:
                entry.used = dependent.used
        return entry.used

    def _alive(self, key: K, entry: Entry[V], now: int) -> bool:
        if self.lifetime is None or entry.static or now < entry.used + self.lifetime:
            return True
        return now < self._credited(key, entry) + self.lifetime

    def _group_of(self, key: K, value: V) -> Hashable:
        return None if self._group is None else self._group(key, value)

    def _forget(self, key: K, entry: Entry[V]) -> None:
        del self._entries[key]
        group = self._group_of(key, entry.value)
        members = self._groups[group]
        members.size -= 1
        if not members.size:
            del self._groups[group]

    def _make_room(self) -> None:
        """The entry of the largest group that was used longest ago goes; static ones stay."""
        for members in sorted(self._groups.values(), key=lambda members: -members.size):
            oldest = members.oldest(self._entries, self._credited)
            if oldest is not None:
                self.evicted += 1
                self.delete(oldest)
                return


@dataclass(slots=True)
class Put(Generic[K, V]):
    """Effect: enter or replace."""

    table: Table[K, V]
    key: K
    value: V
    static: bool = False

    def apply(self, now: int) -> None:
        """Enter the value as used at `now`."""
        self.table.put(self.key, self.value, now, self.static)


@dataclass(slots=True)
class Refresh(Generic[K]):
    """Effect: the entry was used. A hit on what was fused from the walk does the same."""

    table: Table[K, Any]
    key: K

    def apply(self, now: int) -> None:
        """Note the use at `now`."""
        self.table.refresh(self.key, now)


@dataclass(slots=True)
class Delete(Generic[K]):
    """Effect: remove the entry."""

    table: Table[K, Any]
    key: K

    def apply(self, now: int) -> None:
        """Remove it."""
        self.table.delete(self.key)


class Counter:
    """A number that an element reads and an effect advances (IP identification)."""

    __slots__ = ("_overlay", "modulus", "name", "value")

    def __init__(self, name: str, start: int = 0, modulus: int = 1 << 16) -> None:
        self.name = name
        self.value = start % modulus
        self.modulus = modulus
        self._overlay: int | None = None

    def peek(self, ahead: int = 0) -> int:
        """The next value, or one `ahead` of it."""
        value = self.value if self._overlay is None else self._overlay
        return (value + ahead) % self.modulus

    def advance(self, by: int) -> None:
        """Move on; in a dry run only the overlay moves."""
        if self._overlay is not None:
            self._overlay = (self._overlay + by) % self.modulus
        else:
            self.value = (self.value + by) % self.modulus

    def begin_overlay(self) -> None:
        """From here changes are kept aside."""
        self._overlay = self.value

    def end_overlay(self) -> None:
        """Throw away what was kept aside."""
        self._overlay = None


@dataclass(slots=True)
class Advance:
    """Effect: a counter moves on by `by`."""

    counter: Counter
    by: int = 1

    def apply(self, now: int) -> None:
        """Move it."""
        self.counter.advance(self.by)
