"""What several controllers need to know about pods: are they alive, ready, whose, and how one is made.

Rule of this file: functions of objects.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from emunet.cluster.moments import SECOND, from_text
from emunet.cluster.selectors import LabelSelector
from emunet.cluster.store import Change, Key, Object, View, controller_of, labels_of, meta, with_metadata


def pod_key(item: Object) -> Key:
    """Where a pod is kept."""
    return Key("pods", meta(item)["namespace"], meta(item)["name"])


def is_terminating(item: Object) -> bool:
    """True once its end was asked for."""
    return "deletionTimestamp" in meta(item)


def phase(pod: Object) -> str:
    """Pending, Running, Succeeded, Failed or Unknown."""
    return str(pod.get("status", {}).get("phase", "Pending"))


def is_finished(pod: Object) -> bool:
    """True for a pod whose programs have all ended for good."""
    return phase(pod) in ("Succeeded", "Failed")


def is_active(pod: Object) -> bool:
    """True for a pod that counts as one of those wanted."""
    return not is_terminating(pod) and not is_finished(pod)


def condition(item: Object, name: str) -> Object | None:
    """One condition of an object's status."""
    found: Iterator[Object] = (one for one in item.get("status", {}).get("conditions", ()) if one["type"] == name)
    return next(found, None)


def is_ready(pod: Object) -> bool:
    """True while its Ready condition says so."""
    ready = condition(pod, "Ready")
    return ready is not None and ready["status"] == "True"


def available_at(view: View, pod: Object, minimum: int) -> int | None:
    """When a pod that stays ready has been so for `minimum` seconds; None where it is not ready."""
    ready = condition(pod, "Ready")
    if ready is None or ready["status"] != "True":
        return None
    return from_text(ready["lastTransitionTime"], view.epoch) + minimum * SECOND


def with_condition(conditions: list[Object], name: str, status: str, moment: str, **more: Any) -> list[Object]:
    """The conditions with one of them set; its transition time moves only if its status does."""
    old = next((one for one in conditions if one["type"] == name), None)
    since = old["lastTransitionTime"] if old is not None and old["status"] == status else moment
    new = {"type": name, "status": status, **{k: v for k, v in more.items() if v}, "lastTransitionTime": since}
    if old is not None and {k: v for k, v in old.items() if k != "lastUpdateTime"} == {
        k: v for k, v in new.items() if k != "lastUpdateTime"
    }:
        return conditions
    return [*(one for one in conditions if one["type"] != name), new]


def owner_reference(owner: Object) -> Object:
    """What an object that a controller makes says of it."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": meta(owner)["name"],
        "uid": meta(owner)["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def from_template(owner: Object, template: Object, **metadata: Any) -> Object:
    """A new pod for an owner."""
    found = template.get("metadata", {})
    made: Object = {
        "namespace": meta(owner)["namespace"],
        "labels": dict(found.get("labels", {})),
        "annotations": dict(found.get("annotations", {})),
        "ownerReferences": [owner_reference(owner)],
        **metadata,
    }
    if "name" not in made:
        made["generateName"] = f"{meta(owner)['name']}-"
    if not made["annotations"]:
        del made["annotations"]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": made, "spec": template.get("spec", {})}


def claim(view: View, owner: Object, selector: LabelSelector, resource: str) -> tuple[list[Object], list[Object]]:
    """The objects that an owner manages, and those to be written because they come to it or leave it.

    Of its namespace: what it owns and still selects stays, what it no longer selects is let go, and what it
    selects and nobody owns is adopted.
    """
    uid = meta(owner)["uid"]
    kept: list[Object] = []
    writes: list[Object] = []
    for item in view.items(resource, meta(owner)["namespace"]):
        reference = controller_of(item)
        if reference is None:
            if not is_terminating(owner) and not is_terminating(item) and selector.matches(labels_of(item)):
                owners = [*meta(item).get("ownerReferences", ()), owner_reference(owner)]
                adopted = with_metadata(item, ownerReferences=owners)
                kept.append(adopted)
                writes.append(adopted)
        elif reference["uid"] == uid:
            if selector.matches(labels_of(item)):
                kept.append(item)
            elif not is_terminating(owner):
                owners = [one for one in meta(item)["ownerReferences"] if one["uid"] != uid]
                writes.append(with_metadata(item, ownerReferences=owners or None))
    return kept, writes


def owners_of(resource: str, name: str, selects: Any) -> Any:
    """A Watch on pods (or what else is owned): the owner of a kind, or for orphans all that might adopt them."""

    def watch(view: View, change: Change) -> Iterator[Key]:
        for item in (change.item, change.before):
            if item is None:
                continue
            namespace = meta(item).get("namespace", "")
            reference = controller_of(item)
            if reference is not None:
                if reference["kind"] == name:
                    yield Key(resource, namespace, reference["name"])
                continue
            for owner in view.items(resource, namespace):
                if selects(owner).matches(labels_of(item)):
                    yield Key(resource, namespace, meta(owner)["name"])

    return watch
