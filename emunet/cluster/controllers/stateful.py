"""StatefulSets: pods with numbers for names, made in order and ended in reverse.

NAME-0 is there and ready before NAME-1 is made (unless the set is Parallel). A pod that is gone comes
back under its name; a new template replaces them from the last number down to `partition`.

Rule of this file: one pod at a time where the order counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from emunet.cluster import selectors
from emunet.cluster.controllers import revisions
from emunet.cluster.controllers.actions import NOTHING, Action, Create, Delete, Outcome, Watch, Write, itself
from emunet.cluster.controllers.pods import (
    claim,
    from_template,
    is_finished,
    is_ready,
    is_terminating,
    owners_of,
    pod_key,
)
from emunet.cluster.store import Key, Object, View, labels_of, meta, with_status


def _selector(owner: Object) -> selectors.LabelSelector:
    return selectors.of_object(owner["spec"].get("selector"))


def _ordinal(owner: Object, pod: Object) -> int | None:
    name, text = meta(pod)["name"], ""
    prefix = meta(owner)["name"] + "-"
    if name.startswith(prefix):
        text = name[len(prefix) :]
    return int(text) if text.isdigit() and str(int(text)) == text else None


class StatefulSets:
    """Keeps the numbered pods of StatefulSets."""

    name = "statefulset-controller"

    def __init__(self) -> None:
        resource = "statefulsets.apps"
        self.watches: Mapping[str, Watch] = {resource: itself, "pods": owners_of(resource, "StatefulSet", _selector)}

    def step(self, view: View, key: Key, now: int) -> Outcome:
        """One step towards the wanted pods."""
        owner = view.at(key)
        if owner is None or is_terminating(owner):
            return NOTHING
        pods, writes = claim(view, owner, _selector(owner), "pods")
        if writes:
            return Outcome(tuple(Write(item) for item in writes))
        numbered = {number: pod for pod in pods if (number := _ordinal(owner, pod)) is not None}
        live = {labels_of(pod).get(revisions.LABEL, "") for pod in pods}
        revision, actions = revisions.current(view, owner, live)
        if actions:
            return Outcome((*actions, Write(with_status(owner, updateRevision=revision))))
        text = revision.rpartition("-")[2]
        actions = self._pods(view, owner, numbered, text)
        status = self._status(owner, numbered, revision, text)
        if status != owner.get("status", {}):
            actions.append(Write({**owner, "status": status}))
        return Outcome(tuple(actions))

    def _pods(self, view: View, owner: Object, numbered: dict[int, Object], text: str) -> list[Action]:
        spec = owner["spec"]
        start = spec.get("ordinals", {}).get("start", 0)
        wanted = range(start, start + spec.get("replicas", 1))
        ordered = spec.get("podManagementPolicy", "OrderedReady") == "OrderedReady"
        actions: list[Action] = []
        for number in wanted:
            pod = numbered.get(number)
            if pod is None:
                actions += _claims(view, owner, number)
                actions.append(Create(self._pod(owner, number, text), owner))
            elif is_finished(pod) and not is_terminating(pod):
                actions.append(Delete(pod_key(pod), owner=owner))
            if ordered and (actions or (pod is not None and (not is_ready(pod) or is_terminating(pod)))):
                return actions
        surplus = sorted((number for number in numbered if number not in wanted), reverse=True)
        for number in surplus:
            if not is_terminating(numbered[number]):
                actions.append(Delete(pod_key(numbered[number]), owner=owner))
            if ordered:
                return actions
        if actions or spec.get("updateStrategy", {}).get("type") == "OnDelete":
            return actions
        partition = spec.get("updateStrategy", {}).get("rollingUpdate", {}).get("partition", 0)
        for number in sorted(numbered, reverse=True):
            pod = numbered[number]
            if number < partition:
                break
            if is_terminating(pod) or (labels_of(pod).get(revisions.LABEL) == text and not is_ready(pod)):
                break
            if labels_of(pod).get(revisions.LABEL) != text:
                return [Delete(pod_key(pod), owner=owner)]
        return actions

    def _pod(self, owner: Object, number: int, text: str) -> Object:
        name = f"{meta(owner)['name']}-{number}"
        pod = from_template(owner, owner["spec"]["template"], name=name)
        meta(pod)["labels"] |= {
            "statefulset.kubernetes.io/pod-name": name,
            "apps.kubernetes.io/pod-index": str(number),
            revisions.LABEL: text,
        }
        spec: dict[str, Any] = {**pod["spec"], "hostname": name}
        if owner["spec"].get("serviceName"):
            spec["subdomain"] = owner["spec"]["serviceName"]
        claims = [meta(one)["name"] for one in owner["spec"].get("volumeClaimTemplates", ())]
        if claims:
            volumes = [one for one in spec.get("volumes", ()) if one["name"] not in claims]
            for one in claims:
                volumes.append({"name": one, "persistentVolumeClaim": {"claimName": f"{one}-{name}"}})
            spec["volumes"] = volumes
        return {**pod, "spec": spec}

    def _status(self, owner: Object, numbered: dict[int, Object], revision: str, text: str) -> Object:
        pods = list(numbered.values())
        updated = [pod for pod in pods if labels_of(pod).get(revisions.LABEL) == text]
        ready = sum(map(is_ready, pods))
        current = owner.get("status", {}).get("currentRevision", revision)
        if len(updated) == len(pods) == owner["spec"].get("replicas", 1):
            current = revision
        kept = sum(labels_of(pod).get(revisions.LABEL) == current.rpartition("-")[2] for pod in pods)
        changed = with_status(
            owner,
            observedGeneration=meta(owner).get("generation", 1),
            replicas=len(pods),
            readyReplicas=ready or None,
            availableReplicas=ready,
            currentReplicas=kept or None,
            updatedReplicas=len(updated) or None,
            currentRevision=current,
            updateRevision=revision,
            collisionCount=0,
        )
        status: Object = changed["status"]
        return status


def _claims(view: View, owner: Object, number: int) -> list[Action]:
    """The volume claims of a numbered pod: made with it, kept after it."""
    actions: list[Action] = []
    for template in owner["spec"].get("volumeClaimTemplates", ()):
        name = f"{meta(template)['name']}-{meta(owner)['name']}-{number}"
        if view.get("persistentvolumeclaims", meta(owner)["namespace"], name) is None:
            labels = owner["spec"].get("selector", {}).get("matchLabels", {})
            metadata = {"name": name, "namespace": meta(owner)["namespace"], "labels": dict(labels)}
            item = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": template["spec"]}
            actions.append(Create(item))
    return actions
