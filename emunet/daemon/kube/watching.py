"""Watches: what changes in the objects of a kind, as it changes, one JSON object a line.

Rule of this file: a watcher that is slow is slow for itself alone; one that has fallen behind too far
is told so (410), never given a gap.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from emunet.cluster import status
from emunet.cluster.selectors import FieldSelector, LabelSelector
from emunet.cluster.status import StatusError
from emunet.cluster.store import Change, Object, labels_of
from emunet.daemon.kube import tables
from emunet.daemon.kube.encoding import encode
from emunet.daemon.kube.paths import is_set, number
from emunet.daemon.kube.resources import Question

LONGEST = 3600.0
"""Seconds after which a watch that asked for no end is ended; clients begin another one."""

BOOKMARK_SECONDS = 30.0
_INITIAL_END = "k8s.io/initial-events-end"


def check(question: Question) -> None:
    """Raise the StatusError of a watch that cannot begin: what it asks for is no longer known."""
    version = question.query.get("resourceVersion", "")
    _ = question.labels, question.fields, number(question.query, "timeoutSeconds")
    if version not in ("", "0"):
        if not version.isascii() or not version.isdigit():
            raise status.bad_request(f"invalid resource version {version!r}")
        store = question.backend.control.store
        if int(version) > store.version:  # it comes from another lab: who lists again knows better
            raise status.expired(f"too large resource version: {version} ({store.version})")
        store.changes(question.kind.resource, int(version))


async def watch(question: Question, *, as_table: bool, include: str) -> AsyncIterator[bytes]:
    """The lines of a watch that `check` let pass."""
    store = question.backend.control.store
    kind, query = question.kind, question.query
    labels, fields, namespace = question.labels, question.fields, question.target.namespace
    version = query.get("resourceVersion", "")
    bookmarks = is_set(query, "allowWatchBookmarks")
    initial = is_set(query, "sendInitialEvents")
    lines = _Lines(question, as_table=as_table, include=include)
    if version in ("", "0") or initial:
        since = store.version
        for item in store.select(kind.resource, namespace, labels, fields):
            yield lines.event("ADDED", item)
        if initial:
            yield lines.bookmark(since, {_INITIAL_END: "true"})
    else:
        since = int(version)
    loop = asyncio.get_running_loop()
    end = loop.time() + min(number(query, "timeoutSeconds") or LONGEST, LONGEST)
    told = loop.time()
    while True:
        try:
            changes = store.changes(kind.resource, since)
        except StatusError as error:
            yield encode({"type": "ERROR", "object": error.body()}) + b"\n"
            return
        for change in changes:
            since = change.version
            seen = _seen(change, namespace, labels, fields)
            if seen is not None:
                yield lines.event(seen, change.item)
        if changes:
            continue  # more may have come while these were on their way
        left = end - loop.time()
        if left <= 0:
            return
        if bookmarks and loop.time() - told >= BOOKMARK_SECONDS:
            told = loop.time()
            since = max(since, store.version)
            yield lines.bookmark(since, None)
        await question.backend.bell.wait(min(left, BOOKMARK_SECONDS))


def _seen(change: Change, namespace: str, labels: LabelSelector | None, fields: FieldSelector | None) -> str | None:
    """What a change is to somebody who sees only what a selector selects; None where it is nothing."""

    def selected(item: Object | None) -> bool:
        return (
            item is not None
            and (not namespace or item["metadata"].get("namespace") == namespace)
            and (labels is None or labels.matches(labels_of(item)))
            and (fields is None or fields.matches(item))
        )

    before, after = selected(change.before), selected(change.item)
    if change.verb == "ADDED":
        return "ADDED" if after else None
    if change.verb == "DELETED":
        return "DELETED" if before or after else None
    if before and after:
        return "MODIFIED"
    return "ADDED" if after else "DELETED" if before else None


class _Lines:
    """The events of one watch as text."""

    def __init__(self, question: Question, *, as_table: bool, include: str) -> None:
        self._question = question
        self._as_table = as_table
        self._include = include
        self._first = True

    def event(self, verb: str, item: Object) -> bytes:
        seen: Any = self._question.view(item)
        if self._as_table:
            seen = self._table(seen)
        return encode({"type": verb, "object": seen}) + b"\n"

    def bookmark(self, version: int, annotations: Object | None) -> bytes:
        metadata: Object = {"resourceVersion": str(version), "creationTimestamp": None}
        if annotations:
            metadata["annotations"] = annotations
        item = {"kind": self._question.kind.name, "apiVersion": self._question.target.api_version, "metadata": metadata}
        return encode({"type": "BOOKMARK", "object": item}) + b"\n"

    def _table(self, item: Object) -> Object:
        backend, kind = self._question.backend, self._question.kind
        made = tables.table(backend.control.store, kind, [item], backend.now(), include=self._include)
        made["metadata"] = {"resourceVersion": item["metadata"]["resourceVersion"]}
        if not self._first:
            made["columnDefinitions"] = None
        self._first = False
        return made
