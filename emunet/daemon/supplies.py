"""What pods are given by config maps and secrets: how it is known that something is missing, and what is new.

A container whose pod refers to what is not there does not begin, and an event says so; it begins when that
comes. Files of a volume follow their config map; those of a `subPath` and variables stay as they were when the
container began, as in Kubernetes.

Rule of this file: it keeps what pods were given, and says what they are to be given; others carry it there.
"""

from __future__ import annotations

from emunet.cluster.bound import lacking
from emunet.cluster.store import Change, Object, Store, meta
from emunet.daemon.volumes import files_of, lacking_volume, parts_of

_SOURCES = ("ConfigMap", "Secret")


class Supplies:
    """The files that each pod was given."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._given: dict[str, dict[str, str]] = {}
        self._changed = False
        store.listeners.append(self._hear)

    def _hear(self, change: Change) -> None:
        if change.kind.name in _SOURCES:
            self._changed = True

    def take_change(self) -> bool:
        """Whether a config map or a secret has changed since this was asked last."""
        changed, self._changed = self._changed, False
        return changed

    def first(self, pod: Object) -> dict[str, str]:
        """All files of a pod, as it begins."""
        self._given[meta(pod)["uid"]] = files_of(self._store, pod)
        return self._given[meta(pod)["uid"]]

    def news(self, pod: Object) -> dict[str, str]:
        """The files of a pod whose text is another one now."""
        given = self._given.setdefault(meta(pod)["uid"], {})
        parts = parts_of(pod)
        fresh = {
            path: text
            for path, text in files_of(self._store, pod).items()
            if given.get(path) != text and (path not in given or path not in parts)
        }
        given |= fresh
        return fresh

    def forget(self, uid: str) -> None:
        """A pod is gone."""
        self._given.pop(uid, None)


def missing(store: Store, pod: Object, container: Object, *, again: bool) -> tuple[str, str, str] | None:
    """(reason of the container's state, reason of the event, its words) of what a container cannot begin without.

    One that begins `again` has its volumes, whatever became of what they are of.
    """
    why = None if again else lacking_volume(store, pod)
    if why is not None:
        return "ContainerCreating", "FailedMount", why
    why = lacking(store, pod, container)
    return None if why is None else ("CreateContainerConfigError", "Failed", f"Error: {why}")
