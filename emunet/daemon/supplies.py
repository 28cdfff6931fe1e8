"""What pods are given by config maps and secrets: how it is known that something is missing, and what is new.

A container whose pod refers to what is not there does not begin, and an event says so; it begins when that
comes. Files of a volume follow their config map; those of a `subPath` and variables stay as they were when the
container began, as in Kubernetes.

A token of a service account is a text by itself, which opens nothing: no pod reaches the lab's API.

Rule of this file: it keeps what pods were given, and says what they are to be given; others carry it there.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

from emunet.cluster.bound import lacking
from emunet.cluster.store import Change, Object, Store, meta
from emunet.daemon.volumes import MODE, files_of, lacking_volume, parts_of, with_account

_SOURCES = ("ConfigMap", "Secret")


Files = dict[str, tuple[str, int]]
"""Files by path: (text, mode)."""


def parts(files: Files) -> tuple[dict[str, str], dict[str, int]]:
    """The texts of files by path, and the modes of those that have another than most."""
    modes = {path: mode for path, (_, mode) in files.items() if mode != MODE}
    return {path: text for path, (text, _) in files.items()}, modes


class Supplies:
    """The files that each pod was given."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._secret = secrets.token_bytes(32)
        self._given: dict[str, Files] = {}
        self._changed = False
        store.listeners.append(self._hear)

    def _hear(self, change: Change) -> None:
        if change.kind.name in _SOURCES:
            self._changed = True

    def take_change(self) -> bool:
        """Whether a config map or a secret has changed since this was asked last."""
        changed, self._changed = self._changed, False
        return changed

    def token(self, namespace: str, account: str) -> str:
        """The token of a service account: the same as long as the lab is there."""
        return hmac.new(self._secret, f"{namespace}/{account}".encode(), hashlib.sha256).hexdigest()

    def _files(self, pod: Object) -> Files:
        return files_of(self._store, with_account(self._store, pod), self.token)

    def first(self, pod: Object) -> Files:
        """All files of a pod, as it begins."""
        self._given[meta(pod)["uid"]] = self._files(pod)
        return self._given[meta(pod)["uid"]]

    def news(self, pod: Object) -> Files:
        """The files of a pod whose text is another one now."""
        given = self._given.setdefault(meta(pod)["uid"], {})
        parts = parts_of(pod)
        fresh = {
            path: file
            for path, file in self._files(pod).items()
            if given.get(path) != file and (path not in given or path not in parts)
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
