"""Deployments: a ReplicaSet for each version of the template, and the way from one to the next.

RollingUpdate keeps the number of pods at most `replicas + maxSurge` and the number of available ones
at least `replicas - maxUnavailable`; Recreate ends all old pods first. Old ReplicaSets stay, empty, as
the history that `kubectl rollout undo` goes back to.

Rule of this file: one step does as much as the bounds allow now; the next change of a ReplicaSet calls
it again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from emunet.cluster import selectors
from emunet.cluster.controllers.actions import (
    NOTHING,
    Action,
    Create,
    Delete,
    Note,
    Outcome,
    Watch,
    Write,
    earliest,
    itself,
)
from emunet.cluster.controllers.pods import (
    claim,
    condition,
    is_active,
    is_terminating,
    owner_reference,
    owners_of,
    with_condition,
)
from emunet.cluster.moments import SECOND, from_text
from emunet.cluster.store import Change, Key, Object, View, meta, with_metadata, with_status

HASH = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
DESIRED, MAXIMUM = "deployment.kubernetes.io/desired-replicas", "deployment.kubernetes.io/max-replicas"
_NOT_COPIED = {
    "kubectl.kubernetes.io/last-applied-configuration", REVISION, DESIRED, MAXIMUM,
    "deployment.kubernetes.io/revision-history",
}  # fmt: skip
NAME = "deployment-controller"


def _selector(owner: Object) -> selectors.LabelSelector:
    return selectors.of_object(owner["spec"].get("selector"))


def template_hash(view: View, template: Object) -> str:
    """Letters that tell one version of a template from another."""
    return view.hashed("template", json.dumps(template, sort_keys=True), length=9)


def share(value: object, whole: int, *, up: bool) -> int:
    """`25%` of some pods, rounded up or down, or a plain number of them."""
    if isinstance(value, int):
        return value
    percent = int(str(value).rstrip("%") or 0)
    return -(-percent * whole // 100) if up else percent * whole // 100


class Deployments:
    """Rolls Deployments out."""

    name = NAME

    def __init__(self) -> None:
        self.watches: Mapping[str, Watch] = {
            "deployments.apps": itself,
            "replicasets.apps": owners_of("deployments.apps", "Deployment", _selector),
            "pods": self._of_old_pods,
        }

    def _of_old_pods(self, view: View, change: Change) -> list[Key]:
        """A pod that ends may be what a Recreate waits for."""
        if change.verb != "DELETED":
            return []
        found = []
        for owner in meta(change.item).get("ownerReferences", ()):
            replica_set = view.get("replicasets.apps", meta(change.item)["namespace"], owner["name"])
            for above in meta(replica_set).get("ownerReferences", ()) if replica_set is not None else ():
                found.append(Key("deployments.apps", meta(change.item)["namespace"], above["name"]))
        return found

    def step(self, view: View, key: Key, now: int) -> Outcome:
        """One step of the way to the wanted template and number."""
        deployment = view.at(key)
        if deployment is None or is_terminating(deployment):
            return NOTHING
        found, writes = claim(view, deployment, _selector(deployment), "replicasets.apps")
        if writes:
            return Outcome(tuple(Write(item) for item in writes))  # their change calls again
        new = _current(deployment, found)
        old = [one for one in found if one is not new]
        actions: list[Action] = []
        scaled: list[Action] = []
        if deployment["spec"].get("paused"):
            if new is None and len(found) == 1:
                new, old = found[0], []
            scaled = _scale(deployment, new, _wanted(deployment)) if new is not None and not _any(old) else []
        elif new is None:
            revision = max(map(_revision, old), default=0) + 1
            made = _replica_set(view, deployment, revision)
            if deployment["spec"]["strategy"]["type"] == "Recreate" and (_any(old) or _pods_of(view, old)):
                made["spec"]["replicas"] = 0
            else:
                made["spec"]["replicas"] = _new_number(deployment, None, old)
            if view.get("replicasets.apps", key.namespace, meta(made)["name"]) is not None:
                return NOTHING  # the one of that name is just ending: its end calls again
            number = made["spec"]["replicas"]
            actions = [Create(made)]
            if number:
                actions.append(_told(deployment, made, 0, number))
            actions += _annotate(deployment, revision)
            return Outcome(tuple(actions))
        else:
            revision = max(map(_revision, old), default=0)
            if _revision(new) <= revision:  # an old version is wanted again
                return Outcome((Write(_with_revision(new, revision + 1)), *_annotate(deployment, revision + 1)))
            actions += _annotate(deployment, _revision(new))
            actions += _copied(deployment, new)
            if actions:
                return Outcome(tuple(actions))
            if deployment["spec"]["strategy"]["type"] == "Recreate":
                scaled = _recreate(view, deployment, new, old)
            else:
                scaled = _roll(deployment, new, old)
            if not scaled:
                scaled = _forget(deployment, old)
        status, due = _status(view, deployment, new, found, now)
        if status != deployment.get("status", {}):
            actions.append(Write({**deployment, "status": status}))
        return Outcome((*actions, *scaled), due)


def _wanted(deployment: Object) -> int:
    return int(deployment["spec"].get("replicas", 1))


def _number(replica_set: Object) -> int:
    return int(replica_set["spec"].get("replicas", 0))


def _available(replica_set: Object) -> int:
    return int(replica_set.get("status", {}).get("availableReplicas", 0))


def _any(replica_sets: list[Object]) -> bool:
    return any(_number(one) for one in replica_sets)


def _pods_of(view: View, replica_sets: list[Object]) -> bool:
    return any(True for one in replica_sets for pod in view.owned_by(meta(one)["uid"], "pods") if is_active(pod)
               or is_terminating(pod))  # fmt: skip


def _revision(replica_set: Object) -> int:
    text = meta(replica_set).get("annotations", {}).get(REVISION, "0")
    return int(text) if text.isdigit() else 0


def _plain(template: Object) -> Object:
    """A template without the label that tells versions apart."""
    found = template.get("metadata", {})
    labels = {key: value for key, value in found.get("labels", {}).items() if key != HASH}
    return {"metadata": {**{k: v for k, v in found.items() if v}, "labels": labels}, "spec": template.get("spec", {})}


def _current(deployment: Object, replica_sets: list[Object]) -> Object | None:
    wanted = _plain(deployment["spec"]["template"])
    return next((one for one in replica_sets if _plain(one["spec"]["template"]) == wanted), None)


def _replica_set(view: View, deployment: Object, revision: int) -> Object:
    template = deployment["spec"]["template"]
    text = template_hash(view, _plain(template))
    found = template.get("metadata", {})
    labels = {**found.get("labels", {}), HASH: text}
    selector = deployment["spec"].get("selector", {})
    match = {**selector, "matchLabels": {**selector.get("matchLabels", {}), HASH: text}}
    annotations = {**_to_copy(deployment), REVISION: str(revision), DESIRED: str(_wanted(deployment))}
    spec: dict[str, Any] = {
        "replicas": 0,
        "selector": match,
        "template": {**template, "metadata": {**found, "labels": labels}},
    }
    if deployment["spec"].get("minReadySeconds"):
        spec["minReadySeconds"] = deployment["spec"]["minReadySeconds"]
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{meta(deployment)['name']}-{text}",
            "namespace": meta(deployment)["namespace"],
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [owner_reference(deployment)],
        },
        "spec": spec,
    }


def _to_copy(deployment: Object) -> dict[str, str]:
    return {k: v for k, v in meta(deployment).get("annotations", {}).items() if k not in _NOT_COPIED}


def _copied(deployment: Object, replica_set: Object) -> list[Action]:
    """What the Deployment notes of its newest version (why it was made) is noted at the ReplicaSet too."""
    noted = meta(replica_set).get("annotations", {})
    annotations = {**noted, **_to_copy(deployment)}
    return [] if annotations == noted else [Write(with_metadata(replica_set, annotations=annotations))]


def _with_revision(replica_set: Object, revision: int) -> Object:
    annotations = {**meta(replica_set).get("annotations", {}), REVISION: str(revision)}
    return with_metadata(replica_set, annotations=annotations)


def _annotate(deployment: Object, revision: int) -> list[Action]:
    annotations = meta(deployment).get("annotations", {})
    if annotations.get(REVISION) == str(revision):
        return []
    return [Write(with_metadata(deployment, annotations={**annotations, REVISION: str(revision)}))]


def _bounds(deployment: Object) -> tuple[int, int]:
    """(how many pods there may be, how many must be available)."""
    wanted = _wanted(deployment)
    rolling = deployment["spec"]["strategy"].get("rollingUpdate", {})
    surge = share(rolling.get("maxSurge", 1), wanted, up=True)
    unavailable = share(rolling.get("maxUnavailable", 0), wanted, up=False)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    return wanted + surge, wanted - min(unavailable, wanted)


def _new_number(deployment: Object, new: Object | None, old: list[Object]) -> int:
    wanted = _wanted(deployment)
    now = _number(new) if new is not None else 0
    if now > wanted:
        return wanted
    if deployment["spec"]["strategy"]["type"] == "Recreate":
        return wanted
    room = _bounds(deployment)[0] - sum(map(_number, old)) - now
    return now + max(0, min(room, wanted - now))


def _told(deployment: Object, replica_set: Object, before: int, number: int) -> Note:
    verb = "up" if number > before else "down"
    message = f"Scaled {verb} replica set {meta(replica_set)['name']} to {number}"
    if before:
        message += f" from {before}"
    return Note(deployment, "ScalingReplicaSet", message, NAME)


def _scale(deployment: Object, replica_set: Object, number: int) -> list[Action]:
    if _number(replica_set) == number:
        return []
    annotations = {**meta(replica_set).get("annotations", {}), DESIRED: str(_wanted(deployment))}
    scaled = with_metadata(
        {**replica_set, "spec": {**replica_set["spec"], "replicas": number}}, annotations=annotations
    )
    return [Write(scaled), _told(deployment, replica_set, _number(replica_set), number)]


def _roll(deployment: Object, new: Object, old: list[Object]) -> list[Action]:
    up = _scale(deployment, new, _new_number(deployment, new, old))
    if up:
        return up
    old = sorted((one for one in old if _number(one)), key=lambda one: meta(one)["creationTimestamp"])
    if not old:
        return []
    least = _bounds(deployment)[1]
    total = sum(map(_number, [*old, new]))
    unready = _number(new) - _available(new)
    spare = total - least - unready
    actions: list[Action] = []
    numbers = {meta(one)["name"]: _number(one) for one in old}
    for one in old:  # what does not work goes first
        broken = min(spare, _number(one) - _available(one))
        if broken > 0:
            numbers[meta(one)["name"]] -= broken
            spare -= broken
    spare = min(spare, sum(map(_available, [*old, new])) - least)
    for one in old:
        ended = min(spare, numbers[meta(one)["name"]])
        if ended > 0:
            numbers[meta(one)["name"]] -= ended
            spare -= ended
    for one in old:
        actions += _scale(deployment, one, numbers[meta(one)["name"]])
    return actions


def _recreate(view: View, deployment: Object, new: Object, old: list[Object]) -> list[Action]:
    ended = [action for one in old for action in _scale(deployment, one, 0)]
    if ended or _pods_of(view, old):
        return ended
    return _scale(deployment, new, _wanted(deployment))


def _forget(deployment: Object, old: list[Object]) -> list[Action]:
    """End old versions beyond the limit of the history."""
    limit = deployment["spec"].get("revisionHistoryLimit", 10)
    empty = sorted(
        (one for one in old if not _number(one) and not one.get("status", {}).get("replicas")), key=_revision
    )
    return [Delete(Key("replicasets.apps", meta(one)["namespace"], meta(one)["name"]))
            for one in empty[: max(0, len(empty) - limit)]]  # fmt: skip


def _status(
    view: View, deployment: Object, new: Object | None, found: list[Object], now: int
) -> tuple[Object, int | None]:
    wanted = _wanted(deployment)
    total = sum(one.get("status", {}).get("replicas", 0) for one in found)
    ready = sum(one.get("status", {}).get("readyReplicas", 0) for one in found)
    available = sum(map(_available, found))
    updated = new.get("status", {}).get("replicas", 0) if new is not None else 0
    moment = view.moment(now)
    conditions: list[Object] = deployment.get("status", {}).get("conditions", [])
    least = _bounds(deployment)[1] if deployment["spec"]["strategy"]["type"] == "RollingUpdate" else wanted
    enough = available >= least
    conditions = with_condition(
        conditions, "Available", str(enough), moment, lastUpdateTime=moment,
        reason="MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable",
        message=f"Deployment {'has' if enough else 'does not have'} minimum availability.",
    )  # fmt: skip
    before = deployment.get("status", {})
    counts = (total, updated, ready, available)
    moved = counts != tuple(
        before.get(name, 0) for name in ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
    ) or before.get("observedGeneration") != meta(deployment).get("generation")
    done = updated == wanted and total == wanted and available == wanted
    name = meta(new)["name"] if new is not None else meta(deployment)["name"]
    due = None
    if deployment["spec"].get("paused"):
        conditions = with_condition(conditions, "Progressing", "Unknown", moment, reason="DeploymentPaused",
                                    message="Deployment is paused", lastUpdateTime=moment)  # fmt: skip
    elif done:
        conditions = with_condition(
            conditions, "Progressing", "True", moment, reason="NewReplicaSetAvailable",
            message=f'ReplicaSet "{name}" has successfully progressed.', lastUpdateTime=moment,
        )  # fmt: skip
    else:
        conditions, due = _progress(view, deployment, conditions, name, now, moved)
    changed = with_status(
        deployment,
        observedGeneration=meta(deployment).get("generation", 1),
        replicas=total or None,
        updatedReplicas=updated or None,
        readyReplicas=ready or None,
        availableReplicas=available or None,
        unavailableReplicas=max(0, max(total, wanted) - available) or None,
        conditions=conditions,
    )
    status: Object = changed["status"]
    return status, due


def _progress(
    view: View, deployment: Object, conditions: list[Object], name: str, now: int, moved: bool
) -> tuple[list[Object], int | None]:
    """The condition of a rollout that is not done: it moves, or it has not for too long."""
    moment = view.moment(now)
    limit = deployment["spec"].get("progressDeadlineSeconds", 600)
    old = condition(deployment, "Progressing")
    if moved or old is None or old.get("reason") == "DeploymentPaused":
        others = [one for one in conditions if one["type"] != "Progressing"]
        since = moment if old is None or old["status"] != "True" else old["lastTransitionTime"]
        new = {"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated", "lastUpdateTime": moment,
               "message": f'ReplicaSet "{name}" is progressing.', "lastTransitionTime": since}  # fmt: skip
        return [*others, new], now + limit * SECOND
    deadline = from_text(str(old.get("lastUpdateTime", old["lastTransitionTime"])), view.epoch) + limit * SECOND
    if now < deadline or old["status"] == "False":
        return conditions, earliest(deadline if now < deadline else None)
    message = f'ReplicaSet "{name}" has timed out progressing.'
    return with_condition(conditions, "Progressing", "False", moment, reason="ProgressDeadlineExceeded",
                          message=message, lastUpdateTime=moment), None  # fmt: skip


__all__ = ["HASH", "REVISION", "Deployments", "share", "template_hash"]
