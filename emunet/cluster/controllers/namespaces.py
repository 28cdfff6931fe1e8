"""Namespaces: what each has from the beginning, and the end of all that is in one that ends.

Rule of this file: a namespace goes when nothing is left in it, not before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from emunet.cluster.controllers.actions import NOTHING, Action, Create, Delete, Outcome, Watch, Write, itself
from emunet.cluster.controllers.pods import is_terminating
from emunet.cluster.store import Change, Key, View, meta


def _around(view: View, change: Change) -> Iterator[Key]:
    """What goes may have been the last thing in its namespace."""
    if change.kind.name == "Namespace":
        yield from itself(view, change)
    elif change.verb == "DELETED" and meta(change.item).get("namespace"):
        yield Key("namespaces", "", meta(change.item)["namespace"])


class Namespaces:
    """Fills and empties namespaces."""

    name = "namespace-controller"
    watches: Mapping[str, Watch] = {"*": _around}

    def step(self, view: View, key: Key, now: int) -> Outcome:
        """Make what a namespace begins with, or end what is left of it."""
        namespace = view.at(key)
        if namespace is None:
            return NOTHING
        if not is_terminating(namespace):
            if view.get("serviceaccounts", key.name, "default") is not None:
                return NOTHING
            account = {
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "metadata": {"name": "default", "namespace": key.name},
            }
            return Outcome((Create(account),))
        actions: list[Action] = []
        left = False
        for kind in view.kinds:
            for item in view.items(kind.resource, key.name) if kind.namespaced else ():
                left = True
                if not is_terminating(item):
                    actions.append(Delete(Key(kind.resource, key.name, meta(item)["name"])))
        if not left:
            spec = {name: value for name, value in namespace.get("spec", {}).items() if name != "finalizers"}
            actions.append(Write({**namespace, "spec": spec}))
        return Outcome(tuple(actions))
