"""The store: every object of a lab, each change with a number, and what changed since a number.

An object is a mapping as its manifest has it, plus what the cluster adds to its metadata: uid,
resourceVersion, creationTimestamp, generation. Once stored it is never changed, only replaced:
so whoever holds one holds what it was, and a new object may share parts with the old one.

`View` is what may be read, `Store` what may be written. Neither knows what a kind means: that is
the business of `requests` (what clients may ask for) and of the controllers.

Rule of this file: uids and generated names are hashes of the seed; time is an argument; a write
either is whole or is refused with a StatusError.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from emunet.cluster import status
from emunet.cluster.kinds import Kind, Registry
from emunet.cluster.moments import DEFAULT_EPOCH, to_text
from emunet.cluster.selectors import FieldSelector, LabelSelector

Object = dict[str, Any]

HISTORY = 8192
"""Changes of one kind that are kept for watchers; whoever asks for older ones must list again (410 Gone)."""

_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
"""What generated names are made of, as Kubernetes makes them: nothing that could spell a word."""

FOREGROUND = "foregroundDeletion"


@dataclass(frozen=True, slots=True)
class Change:
    """One write: the object as it is after it (before it, where it was deleted), and as it was."""

    version: int
    kind: Kind
    verb: Literal["ADDED", "MODIFIED", "DELETED"]
    item: Object
    before: Object | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """Which object: its kind's resource name (`deployments.apps`), its namespace (empty without one), its name."""

    resource: str
    namespace: str
    name: str


def meta(item: Mapping[str, Any]) -> Object:
    """An object's metadata."""
    found: Object = item["metadata"]
    return found


def labels_of(item: Mapping[str, Any]) -> dict[str, str]:
    """An object's labels."""
    found: dict[str, str] = item["metadata"].get("labels", {})
    return found


def with_metadata(item: Object, **changes: Any) -> Object:
    """The object with other metadata; None takes a field away."""
    changed = {**meta(item), **changes}
    return {**item, "metadata": {key: value for key, value in changed.items() if value is not None}}


def with_status(item: Object, **changes: Any) -> Object:
    """The object with other fields in its status; None takes a field away."""
    changed = {**item.get("status", {}), **changes}
    return {**item, "status": {key: value for key, value in changed.items() if value is not None}}


def controller_of(item: Mapping[str, Any]) -> Object | None:
    """The ownerReference of the controller that manages an object, or None."""
    found: Iterator[Object] = (one for one in item["metadata"].get("ownerReferences", ()) if one.get("controller"))
    return next(found, None)


class View:
    """Everything that can be asked of the objects."""

    def __init__(self, seed: int = 0, epoch: int = DEFAULT_EPOCH) -> None:
        self.seed = seed
        self.epoch = epoch
        """Nanoseconds from 1970 to the moment at which the lab began."""
        self.kinds = Registry()
        self.version = 0
        """The number of the last change."""
        self._items: dict[str, dict[str, dict[str, Object]]] = {}
        self._history: dict[str, deque[Change]] = {}
        self._forgotten: dict[str, int] = {}
        self._owned: dict[str, dict[Key, None]] = {}
        self._on_node: dict[str, dict[Key, None]] = {}

    def kind(self, resource: str) -> Kind:
        """The kind of that resource name. KeyError."""
        return self.kinds.resource(resource)

    def key(self, kind: Kind, item: Mapping[str, Any]) -> Key:
        """Where an object of a kind is kept."""
        found = item["metadata"]
        return Key(kind.resource, found.get("namespace", "") if kind.namespaced else "", found["name"])

    def kind_of(self, item: Mapping[str, Any]) -> Kind:
        """The kind of a stored object."""
        return self.kinds.of(item["apiVersion"], item["kind"])

    def get(self, resource: str, namespace: str, name: str) -> Object | None:
        """The object of that name, or None."""
        return self._items.get(resource, {}).get(namespace, {}).get(name)

    def at(self, key: Key) -> Object | None:
        """The object there, or None."""
        return self.get(key.resource, key.namespace, key.name)

    def select(
        self,
        resource: str,
        namespace: str = "",
        labels: LabelSelector | None = None,
        fields: FieldSelector | None = None,
    ) -> list[Object]:
        """The objects of a kind, by namespace and name; of one namespace where it is given."""
        spaces = self._items.get(resource, {})
        chosen = [namespace] if namespace else sorted(spaces)
        name = fields.name if fields is not None else None
        found = [
            item
            for space in chosen
            for _, item in sorted(spaces.get(space, {}).items() if name is None else _only(spaces.get(space, {}), name))
        ]
        if labels is not None and labels.requirements:
            found = [item for item in found if labels.matches(labels_of(item))]
        if fields is not None and fields.terms:
            found = [item for item in found if fields.matches(item)]
        return found

    def items(self, resource: str, namespace: str | None = None) -> Iterator[Object]:
        """The objects of a kind in the order in which they came; of one namespace where it is given."""
        spaces = self._items.get(resource, {})
        for space in list(spaces.values()) if namespace is None else [spaces.get(namespace, {})]:
            yield from list(space.values())

    def count(self, resource: str) -> int:
        """How many objects of a kind there are."""
        return sum(map(len, self._items.get(resource, {}).values()))

    def owned_by(self, uid: str, resource: str = "") -> Iterator[Object]:
        """The objects that name an owner with that uid; those of one kind where it is given."""
        for key in list(self._owned.get(uid, ())):
            if not resource or key.resource == resource:
                item = self.at(key)
                if item is not None:
                    yield item

    def pods_on(self, node: str) -> Iterator[Object]:
        """The pods that are bound to a node; with an empty name those that are bound to none."""
        for key in list(self._on_node.get(node, ())):
            item = self.at(key)
            if item is not None:
                yield item

    def number_on(self, node: str) -> int:
        """How many pods are bound to a node."""
        return len(self._on_node.get(node, ()))

    def changes(self, resource: str, since: int) -> list[Change]:
        """What changed in the objects of a kind after a version. StatusError (410) where that is no longer known."""
        if since < self._forgotten.get(resource, 0):
            raise status.expired(f"too old resource version: {since} ({self._forgotten[resource]})")
        found: list[Change] = []
        for change in reversed(self._history.get(resource, ())):
            if change.version <= since:
                break
            found.append(change)
        return found[::-1]

    def moment(self, now: int) -> str:
        """A moment of lab time as objects carry it."""
        return to_text(now, self.epoch)

    def hashed(self, *parts: object, length: int = 5) -> str:
        """Some letters that follow from the seed and the parts, such as end a generated name."""
        digest = hashlib.sha256("/".join(map(str, (self.seed, *parts))).encode()).digest()
        number: int = int.from_bytes(digest, "big")
        text = ""
        for _ in range(length):
            number, rest = divmod(number, len(_LETTERS))
            text += _LETTERS[rest]
        return text


class Store(View):
    """The objects, and the only way to change them. `listeners` hear of each change, in order."""

    def __init__(self, seed: int = 0, epoch: int = DEFAULT_EPOCH) -> None:
        super().__init__(seed, epoch)
        self.listeners: list[Callable[[Change], None]] = []
        self.said: dict[tuple[str, str, str, str], str] = {}
        """The names of events by what they say (uid, reason, message, source), so that one is counted up."""

    def insert(self, item: Object, now: int) -> Object:
        """Store a new object; gives it as it is kept. StatusError (409) where its name is taken."""
        kind = self.kind_of(item)
        found = meta(item)
        if "name" not in found:
            item = with_metadata(item, name=self._free_name(kind, item))
            found = meta(item)
        key = self.key(kind, item)
        if self.at(key) is not None:
            raise status.already_exists(kind, key.name)
        stamped = {
            **found,
            "uid": self._new_uid(key),
            "creationTimestamp": self.moment(now),
            **({"generation": 1} if "spec" in item and kind.name not in ("Node", "Namespace", "Service") else {}),
        }
        if not kind.namespaced:
            stamped.pop("namespace", None)
        item = self._stamped({**item, "metadata": stamped})
        self._keep(kind, key, item)
        self._record(Change(self.version, kind, "ADDED", item))
        return item

    def replace(self, item: Object, now: int, expected: str | None = None) -> Object:
        """Put an object in the place of the one of its name; what changed is found out here.

        `expected` is the resourceVersion that it must replace (409 otherwise). An object that was waiting for its
        last finalizer goes.
        """
        kind = self.kind_of(item)
        key = self.key(kind, item)
        old = self.at(key)
        if old is None:
            raise status.not_found(kind, key.name)
        was = meta(old)
        if expected and expected != was["resourceVersion"]:
            raise status.conflict(kind, key.name)
        kept = {name: was[name] for name in ("uid", "creationTimestamp", "generation") if name in was}
        item = {**item, "metadata": {**meta(item), **kept, "resourceVersion": was["resourceVersion"]}}
        if item == old:
            return old
        if "generation" in was and item.get("spec") != old.get("spec"):
            meta(item)["generation"] = was["generation"] + 1
        item = self._stamped(item)
        self._unindex(key, old)
        self._keep(kind, key, item)
        self._record(Change(self.version, kind, "MODIFIED", item, old))
        if "deletionTimestamp" in meta(item) and not self._is_waiting(kind, item):
            self.remove(key)
        return item

    def remove(self, key: Key) -> Object | None:
        """Take an object out, whatever still speaks for it; None where there is none."""
        old = self.at(key)
        if old is None:
            return None
        kind = self.kind(key.resource)
        self._unindex(key, old)
        space = self._items[key.resource][key.namespace]
        del space[key.name]
        if not space:
            del self._items[key.resource][key.namespace]
        item = self._stamped(old)
        self._record(Change(self.version, kind, "DELETED", item, old))
        return item

    def delete(self, key: Key, now: int, *, grace: int | None = None, finalizers: Iterable[str] = ()) -> Object:
        """Ask for an object's end: it goes at once, or when its grace period is over and its finalizers have been
        taken away. `finalizers` are added to those that it has. StatusError (404).
        """
        kind = self.kind(key.resource)
        item = self.at(key)
        if item is None:
            raise status.not_found(kind, key.name)
        found = meta(item)
        changes: dict[str, Any] = {}
        added = [one for one in finalizers if one not in found.get("finalizers", ())]
        if added:
            changes["finalizers"] = [*found.get("finalizers", ()), *added]
        seconds = self._grace(kind, item, grace)
        if "deletionTimestamp" not in found or seconds < found.get("deletionGracePeriodSeconds", 0):
            changes["deletionTimestamp"] = self.moment(now + seconds * 1_000_000_000)
            changes["deletionGracePeriodSeconds"] = seconds
        waiting = with_metadata(item, **changes)
        if not self._is_waiting(kind, waiting):
            return self.remove(key) or item
        if kind.name == "Namespace":
            waiting = with_status(waiting, phase="Terminating")
        return self.replace(waiting, now)

    # What a write does to the rest

    def _grace(self, kind: Kind, item: Object, asked: int | None) -> int:
        if kind.name != "Pod" or not item["spec"].get("nodeName"):
            return 0
        if item.get("status", {}).get("phase") in ("Succeeded", "Failed"):
            return 0
        return int(item["spec"].get("terminationGracePeriodSeconds", 30) if asked is None else max(asked, 0))

    def _is_waiting(self, kind: Kind, item: Object) -> bool:
        """True while something stands between an object and its end."""
        if meta(item).get("finalizers") or (kind.name == "Namespace" and item.get("spec", {}).get("finalizers")):
            return True
        return kind.name == "Pod" and meta(item).get("deletionGracePeriodSeconds", 0) > 0

    def _keep(self, kind: Kind, key: Key, item: Object) -> None:
        self._items.setdefault(key.resource, {}).setdefault(key.namespace, {})[key.name] = item
        for owner in meta(item).get("ownerReferences", ()):
            self._owned.setdefault(owner.get("uid", ""), {})[key] = None
        if kind.name == "Pod":
            self._on_node.setdefault(item["spec"].get("nodeName") or "", {})[key] = None

    def _unindex(self, key: Key, item: Object) -> None:
        for owner in meta(item).get("ownerReferences", ()):
            _forget(self._owned, owner.get("uid", ""), key)
        if key.resource == "pods":
            _forget(self._on_node, item["spec"].get("nodeName") or "", key)

    def _stamped(self, item: Object) -> Object:
        self.version += 1
        return {**item, "metadata": {**meta(item), "resourceVersion": str(self.version)}}

    def _record(self, change: Change) -> None:
        history = self._history.setdefault(change.kind.resource, deque())
        history.append(change)
        if len(history) > HISTORY:
            self._forgotten[change.kind.resource] = history.popleft().version
        for listener in self.listeners:
            listener(change)

    def _new_uid(self, key: Key) -> str:
        parts = (self.seed, key.resource, key.namespace, key.name, self.version)
        text = hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()
        return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:32]}"

    def _free_name(self, kind: Kind, item: Object) -> str:
        found = meta(item)
        base = str(found.get("generateName", ""))[:58]
        space = found.get("namespace", "") if kind.namespaced else ""
        attempt = 0
        while True:
            name = base + self.hashed(kind.resource, space, base, self.version, attempt)
            if self.get(kind.resource, space, name) is None:
                return name
            attempt += 1


def _forget(index: dict[str, dict[Key, None]], value: str, key: Key) -> None:
    found = index.get(value, {})
    found.pop(key, None)
    if not found:
        index.pop(value, None)


def _only(space: dict[str, Object], name: str) -> list[tuple[str, Object]]:
    return [(name, space[name])] if name in space else []
