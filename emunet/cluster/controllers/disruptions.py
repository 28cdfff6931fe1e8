"""Disruption budgets: how many of the pods that a budget selects may be evicted now.

Pods that are ready and not asked to end are healthy. As many as `minAvailable` says, or all that are wanted but
`maxUnavailable`, must stay so.

Rule of this file: it counts; whoever evicts a pod asks it first (`refusal`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from emunet.cluster import status
from emunet.cluster.controllers.actions import NOTHING, Outcome, Watch, Write, itself
from emunet.cluster.controllers.pods import is_active, is_ready
from emunet.cluster.kinds import NoSuchKind
from emunet.cluster.selectors import of_object
from emunet.cluster.status import Cause, StatusError
from emunet.cluster.store import Change, Key, Object, View, controller_of, labels_of, meta

RESOURCE = "poddisruptionbudgets.policy"


@dataclass(frozen=True, slots=True)
class Budget:
    """What a budget comes to: pods that are wanted, that are healthy, that must be so, that may be evicted."""

    expected: int
    healthy: int
    desired: int

    @property
    def allowed(self) -> int:
        """How many may be evicted now."""
        return max(0, self.healthy - self.desired) if self.expected else 0


def budget_of(view: View, item: Object) -> Budget:
    """Count for a PodDisruptionBudget."""
    spec = item.get("spec", {})
    selector = of_object(spec.get("selector"))
    pods = [
        pod
        for pod in view.items("pods", meta(item)["namespace"])
        if is_active(pod) and selector.matches(labels_of(pod))
    ]
    expected = _wanted(view, pods)
    healthy = sum(map(is_ready, pods))
    if "maxUnavailable" in spec:
        return Budget(expected, healthy, max(0, expected - _share(spec["maxUnavailable"], expected)))
    return Budget(expected, healthy, _share(spec.get("minAvailable", 1), expected))


def refusal(view: View, pod: Object) -> StatusError | None:
    """Why a pod may not be evicted now; None where it may."""
    if not is_active(pod) or not is_ready(pod):
        return None
    for item in view.items(RESOURCE, meta(pod)["namespace"]):
        if not of_object(item.get("spec", {}).get("selector")).matches(labels_of(pod)):
            continue
        budget = budget_of(view, item)
        if budget.allowed < 1:
            name = meta(item)["name"]
            why = f"The disruption budget {name} needs {budget.desired} healthy pods and has {budget.healthy} currently"
            message = "Cannot evict pod as it would violate the pod's disruption budget."
            return status.StatusError(429, "TooManyRequests", message, causes=[Cause("", "DisruptionBudget", why)])
    return None


class Disruptions:
    """Writes the status of disruption budgets."""

    name = "disruption-controller"

    def __init__(self) -> None:
        self.watches: Mapping[str, Watch] = {RESOURCE: itself, "pods": _concerned}

    def step(self, view: View, key: Key, now: int) -> Outcome:
        """Count again."""
        item = view.at(key)
        if item is None:
            return NOTHING
        budget = budget_of(view, item)
        found = {
            "observedGeneration": meta(item).get("generation", 1),
            "expectedPods": budget.expected,
            "currentHealthy": budget.healthy,
            "desiredHealthy": budget.desired,
            "disruptionsAllowed": budget.allowed,
        }
        return NOTHING if item.get("status") == found else Outcome((Write({**item, "status": found}),))


def _concerned(view: View, change: Change) -> Iterator[Key]:
    found = [one for one in (change.item, change.before) if one is not None]
    for item in view.items(RESOURCE, meta(change.item)["namespace"]):
        selector = of_object(item.get("spec", {}).get("selector"))
        if any(selector.matches(labels_of(one)) for one in found):
            yield view.key(view.kind(RESOURCE), item)


def _wanted(view: View, pods: list[Object]) -> int:
    """How many pods there should be: as many as their owners want, and each that has none."""
    wanted: dict[str, int] = {}
    for pod in pods:
        reference = controller_of(pod)
        uid = reference["uid"] if reference is not None else meta(pod)["uid"]
        if uid not in wanted:
            wanted[uid] = _replicas(view, pod, reference)
    return sum(wanted.values())


def _replicas(view: View, pod: Object, reference: Object | None) -> int:
    if reference is None:
        return 1
    try:
        kind = view.kinds.of(reference["apiVersion"], reference["kind"])
    except NoSuchKind:
        return 1
    owner = view.get(kind.resource, meta(pod)["namespace"], reference["name"])
    return int((owner or {}).get("spec", {}).get("replicas", 1))


def _share(number: Any, whole: int) -> int:
    """A number, or a percentage of the whole, rounded up."""
    if isinstance(number, str) and number.endswith("%"):
        return math.ceil(whole * int(number[:-1]) / 100)
    return int(number)
