"""Garbage: what is left of owners that are gone, and owners that wait for what they own.

Rule of this file: an object goes when none of its owners is left; one that is to go "foreground" waits
until nothing that it owns is left.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from emunet.cluster.controllers.actions import Action, Delete, Outcome, Watch, Write
from emunet.cluster.controllers.pods import is_terminating
from emunet.cluster.store import FOREGROUND, Change, Key, View, meta, with_metadata

_BY_UID = "uid"


def _concerned(view: View, change: Change) -> Iterator[Key]:
    found = meta(change.item)
    if change.verb == "DELETED":
        yield Key(_BY_UID, "", found["uid"])
        for owner in found.get("ownerReferences", ()):
            kind = view.kinds.of(owner["apiVersion"], owner["kind"]) if _is_known(view, owner) else None
            if kind is not None:
                yield Key(kind.resource, found.get("namespace", "") if kind.namespaced else "", owner["name"])
    elif FOREGROUND in found.get("finalizers", ()):
        yield view.key(change.kind, change.item)


def _is_known(view: View, owner: dict[str, str]) -> bool:
    return any(kind.name == owner["kind"] for kind in view.kinds.group_versions().get(owner["apiVersion"], ()))


class Garbage:
    """Ends what nobody owns any more."""

    name = "garbage-collector"
    watches: Mapping[str, Watch] = {"*": _concerned}

    def step(self, view: View, key: Key, now: int) -> Outcome:
        """End dependents whose owner is gone, or let go of an owner whose dependents are."""
        if key.resource == _BY_UID:
            return Outcome(tuple(self._orphans(view, key.name)))
        owner = view.at(key)
        if owner is None or not is_terminating(owner) or FOREGROUND not in meta(owner).get("finalizers", ()):
            return Outcome()
        waiting = list(view.owned_by(meta(owner)["uid"]))
        if not waiting:
            left = [one for one in meta(owner)["finalizers"] if one != FOREGROUND]
            return Outcome((Write(with_metadata(owner, finalizers=left or None)),))
        return Outcome(
            tuple(Delete(view.key(view.kind_of(item), item)) for item in waiting if not is_terminating(item))
        )

    def _orphans(self, view: View, uid: str) -> Iterator[Action]:
        for item in view.owned_by(uid):
            others = [one for one in meta(item)["ownerReferences"] if one["uid"] != uid]
            if others:
                yield Write(with_metadata(item, ownerReferences=others))
            elif not is_terminating(item):
                yield Delete(view.key(view.kind_of(item), item))
