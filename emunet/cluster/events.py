"""Events: what happened to an object, told beside it. The same thing again only counts up.

Rule of this file: events are bounded; the oldest give way. They take part in nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from emunet.cluster.store import Key, Store, meta

if TYPE_CHECKING:
    from emunet.cluster.controllers.actions import Note

MAXIMUM = 4000
"""Events that are kept; Kubernetes keeps an hour of them."""


def record(store: Store, note: Note, now: int) -> None:
    """Store an event, or count up the one that says the same of the same object."""
    about = note.about
    found = meta(about)
    namespace = found.get("namespace", "default")
    space = store.get("namespaces", "", namespace)
    if space is None or "deletionTimestamp" in meta(space):
        return
    uid = found["name"] if about["kind"] == "Node" else found.get("uid", "")
    said = (uid, note.reason, note.message, note.source)
    name = store.said.get(said, f"{found['name']}.{store.version:016x}")  # so that a list by names goes by time
    moment = store.moment(now)
    old = store.get("events", namespace, name)
    if old is not None:
        store.replace({**old, "count": old["count"] + 1, "lastTimestamp": moment}, now)
        return
    store.said[said] = name
    involved: dict[str, Any] = {
        "kind": about["kind"],
        "namespace": found.get("namespace", ""),
        "name": found["name"],
        "uid": uid,
        "apiVersion": about["apiVersion"],
        "resourceVersion": found.get("resourceVersion", ""),
    }
    store.insert(
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": {key: value for key, value in involved.items() if value},
            "reason": note.reason,
            "message": note.message,
            "source": {"component": note.source},
            "reportingComponent": note.source,
            "reportingInstance": "",
            "type": note.type,
            "count": 1,
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "eventTime": None,
        },
        now,
    )
    if store.count("events") > MAXIMUM:
        oldest = next(store.items("events"))
        if len(store.said) > 2 * MAXIMUM:  # most of them speak of events that are gone
            store.said.clear()
        store.remove(Key("events", meta(oldest)["namespace"], meta(oldest)["name"]))
