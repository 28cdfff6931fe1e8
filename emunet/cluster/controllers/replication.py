"""ReplicationControllers and ReplicaSets: as many pods as wanted, no more and no less.

Pods that nobody owns and that are selected are adopted; pods that are no longer selected are let go
and replaced. Which pods go first when there are too many: unassigned, pending, not ready, those that
share a host with more of their kind, ready for the shortest time, more restarts, newest.

Rule of this file: one step brings the number right; readiness is the kubelet's to say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from emunet.cluster import selectors
from emunet.cluster.controllers.actions import NOTHING, Action, Create, Delete, Outcome, Watch, Write, earliest, itself
from emunet.cluster.controllers.pods import (
    available_at,
    claim,
    condition,
    from_template,
    is_active,
    is_ready,
    is_terminating,
    owners_of,
    phase,
    pod_key,
)
from emunet.cluster.selectors import LabelSelector
from emunet.cluster.store import Key, Object, View, labels_of, meta, with_status

AT_ONCE = 500
"""Pods that one step makes or ends."""

_PHASES = {"Pending": 0, "Unknown": 1, "Running": 2}


class Replication:
    """The controller of one of the two kinds."""

    def __init__(self, resource: str, kind: str) -> None:
        self.name = f"{kind.lower()}-controller" if kind == "ReplicaSet" else "replication-controller"
        self._resource = resource
        self._old = kind == "ReplicationController"
        self.watches: Mapping[str, Watch] = {resource: itself, "pods": owners_of(resource, kind, self._selector)}

    def _selector(self, owner: Object) -> LabelSelector:
        selector = owner["spec"].get("selector", {})
        return selectors.of_map(selector) if self._old else selectors.of_object(selector)

    def step(self, view: View, key: Key, now: int) -> Outcome:
        """Bring the number of pods right and say how they are."""
        owner = view.at(key)
        if owner is None:
            return NOTHING
        pods, writes = claim(view, owner, self._selector(owner), "pods")
        actions: list[Action] = [Write(item) for item in writes]
        active = [pod for pod in pods if is_active(pod)]
        wanted = owner["spec"].get("replicas", 1)
        if not is_terminating(owner):
            template = owner["spec"]["template"]
            for _ in range(min(wanted - len(active), AT_ONCE)):
                actions.append(Create(from_template(owner, template), owner))
            for pod in victims(active, len(active) - wanted)[:AT_ONCE]:
                actions.append(Delete(pod_key(pod), owner=owner))
        status, due = self._status(view, owner, active, now)
        if status != owner.get("status", {}):
            actions.append(Write({**owner, "status": status}))
        return Outcome(tuple(actions), due)

    def _status(self, view: View, owner: Object, pods: list[Object], now: int) -> tuple[Object, int | None]:
        minimum = owner["spec"].get("minReadySeconds", 0)
        labels = owner["spec"]["template"].get("metadata", {}).get("labels", {})
        available, due = 0, None
        for pod in pods:
            at = available_at(view, pod, minimum)
            if at is not None and (at <= now or not minimum):
                available += 1
            elif at is not None:
                due = earliest(due, at)
        counts: dict[str, Any] = {
            "fullyLabeledReplicas": sum(labels.items() <= labels_of(pod).items() for pod in pods),
            "readyReplicas": sum(map(is_ready, pods)),
            "availableReplicas": available,
        }
        changed = with_status(
            owner,
            replicas=len(pods),
            observedGeneration=meta(owner).get("generation", 1),
            **{name: number or None for name, number in counts.items()},
        )
        status: Object = changed["status"]
        return status, due


def victims(pods: list[Object], number: int) -> list[Object]:
    """The pods that go first when `number` of them must."""
    if number <= 0:
        return []
    crowd = Counter(pod["spec"].get("nodeName", "") for pod in pods)

    def rank(pod: Object) -> tuple[Any, ...]:
        node = pod["spec"].get("nodeName", "")
        ready = condition(pod, "Ready")
        since = ready["lastTransitionTime"] if ready is not None and ready["status"] == "True" else ""
        restarts = max((one.get("restartCount", 0) for one in pod.get("status", {}).get("containerStatuses", ())),
                       default=0)  # fmt: skip
        return (
            bool(node), _PHASES.get(phase(pod), 2), is_ready(pod), -crowd[node], _Newest(since), -restarts,
            _Newest(meta(pod)["creationTimestamp"]), _Newest(int(meta(pod)["resourceVersion"])),
        )  # fmt: skip

    return sorted(pods, key=rank)[:number]


class _Newest:
    """Sorts what is later first."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __lt__(self, other: _Newest) -> bool:
        return bool(self.value > other.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Newest) and bool(self.value == other.value)

    __hash__ = None  # type: ignore[assignment]
