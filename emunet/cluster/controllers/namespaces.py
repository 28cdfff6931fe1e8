"""Namespaces: what each has from the beginning (a service account, the certificate by which its pods would know the
lab's API; `default` the Service of the API), and the end of all that is in one that ends.

Rule of this file: a namespace goes when nothing is left in it, not before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from emunet.cluster.controllers.actions import NOTHING, Action, Create, Delete, Outcome, Watch, Write, itself
from emunet.cluster.controllers.pods import is_terminating
from emunet.cluster.store import Change, Key, Object, View, meta

AUTHORITY = "kube-root-ca.crt"
"""The config map that every namespace has: who vouches for the API."""

API = "kubernetes"
"""The API's Service, in `default`."""


@dataclass(slots=True)
class Authority:
    """The lab's API server: its certificate as PEM, empty where it has none, and the address of its Service."""

    certificate: str = ""
    address: str = ""


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

    def __init__(self, authority: Authority | None = None) -> None:
        self._authority = authority or Authority()

    def step(self, view: View, key: Key, now: int) -> Outcome:
        """Make what a namespace begins with, or end what is left of it."""
        namespace = view.at(key)
        if namespace is None:
            return NOTHING
        if not is_terminating(namespace):
            return Outcome(tuple(Create(one) for one in self._lacking(view, key.name)))
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

    def _lacking(self, view: View, namespace: str) -> Iterator[Object]:
        """What a namespace has not that each one has."""
        if view.get("serviceaccounts", namespace, "default") is None:
            named = {"name": "default", "namespace": namespace}
            yield {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": named}
        if self._authority.certificate and view.get("configmaps", namespace, AUTHORITY) is None:
            data = {"ca.crt": self._authority.certificate}
            named = {"name": AUTHORITY, "namespace": namespace}
            yield {"apiVersion": "v1", "kind": "ConfigMap", "metadata": named, "data": data}
        if namespace == "default" and self._authority.address and view.get("services", namespace, API) is None:
            labels = {"component": "apiserver", "provider": "kubernetes"}
            port = {"name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443}
            about = {"name": API, "namespace": namespace, "labels": labels}
            spec = {"clusterIP": self._authority.address, "ports": [port]}
            yield {"apiVersion": "v1", "kind": "Service", "metadata": about, "spec": spec}
