"""Topology spread: how evenly the pods of a kind stand over zones, hosts, or what else a label of nodes tells apart.

    DoNotSchedule     a node is out where a pod would make its domain have more than `maxSkew` pods above the
                      domain that has fewest
    ScheduleAnyway    the fewer of them stand in a node's domains, the more the pod prefers it

A domain is all nodes with the same value of `topologyKey`. Counted are the pods of the same namespace that the
constraint selects (`labelSelector`, and the pod's own values of `matchLabelKeys`) and that are not over, on nodes
that have every key, that the pod's selector lets it run on (`nodeAffinityPolicy: Honor`, the default), and,
where it says so (`nodeTaintsPolicy: Honor`), whose taints it bears. With fewer domains than `minDomains` the
fewest are none. (Kubernetes, pod topology spread constraints.)

Rule of this file: values in, values out; nothing is looked up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from emunet.cluster import selectors
from emunet.cluster.selectors import LabelSelector, Requirement
from emunet.cluster.store import Object, labels_of

SKEWED = "node(s) didn't match pod topology spread constraints"
UNLABELLED = f"{SKEWED} (missing required label)"

HARD, SOFT = "DoNotSchedule", "ScheduleAnyway"

BEST = 100
"""What a node is worth where nothing of the kind stands in its domains: as much as the weightiest preference."""


@dataclass(frozen=True, slots=True)
class Place:
    """A node as far as this goes: its labels, the pods of the namespace on it that are not over, and
    whether a pod's selector lets it run there (`chosen`), and it bears the taints (`borne`).
    """

    labels: Mapping[str, str]
    pods: Sequence[Object]
    chosen: bool = True
    borne: bool = True


@dataclass(frozen=True, slots=True)
class Constraint:
    """One constraint of a pod over the places that there are: how many of its kind each domain has."""

    key: str
    skew: int
    domains: int
    own: int
    counts: Mapping[str, int]

    def obstacle(self, labels: Mapping[str, str]) -> str | None:
        """Why the pod may not run on a node with these labels, or None."""
        domain = labels.get(self.key)
        if domain is None:
            return UNLABELLED
        fewest = min(self.counts.values(), default=0) if len(self.counts) >= self.domains else 0
        return SKEWED if self.counts.get(domain, 0) + self.own - fewest > self.skew else None


def obstacle_of(spec: Object, pod: Object, places: Sequence[Place]) -> Callable[[Mapping[str, str]], str | None]:
    """What says of a node's labels why the pod may not run there."""
    constraints = _read(spec, pod, places, HARD)
    return lambda labels: next(filter(None, (one.obstacle(labels) for one in constraints)), None)


def worths(spec: Object, pod: Object, places: Sequence[Place], nodes: Sequence[Mapping[str, str]]) -> list[int]:
    """How much each of some nodes, by its labels, is worth to the pod: 0 to `BEST`. All the same without constraints.

    A constraint of few domains counts for less, since they have more pods each: by the logarithm of how many there
    are, as the scheduler of Kubernetes weighs them.
    """
    constraints = _read(spec, pod, places, SOFT)
    costs: list[float | None] = []
    for labels in nodes:
        if any(one.key not in labels for one in constraints):
            costs.append(None)
            continue
        costs.append(sum(one.counts.get(labels[one.key], 0) * math.log(len(one.counts) + 2) + one.skew - 1
                         for one in constraints))  # fmt: skip
    known = [one for one in costs if one is not None]
    least, most = min(known, default=0.0), max(known, default=0.0)
    return [0 if one is None else BEST if not most else int(BEST * (most + least - one) / most) for one in costs]


def _read(spec: Object, pod: Object, places: Sequence[Place], when: str) -> list[Constraint]:
    wanted = [one for one in spec.get("topologySpreadConstraints", ()) if one.get("whenUnsatisfiable") == when]
    keys = [one["topologyKey"] for one in wanted]
    found = []
    for one in wanted:
        selector = _selector(one, labels_of(pod))
        counts: dict[str, int] = {}
        for place in places:
            if not all(key in place.labels for key in keys):
                continue
            if not place.chosen and one.get("nodeAffinityPolicy", "Honor") == "Honor":
                continue
            if not place.borne and one.get("nodeTaintsPolicy", "Ignore") == "Honor":
                continue
            domain = place.labels[one["topologyKey"]]
            number = sum(selector.matches(labels_of(other)) for other in place.pods) if selector is not None else 0
            counts[domain] = counts.get(domain, 0) + number
        own = int(selector is not None and selector.matches(labels_of(pod)))
        found.append(Constraint(one["topologyKey"], one["maxSkew"], one.get("minDomains", 1), own, counts))
    return found


def _selector(constraint: Object, labels: Mapping[str, str]) -> LabelSelector | None:
    """Which pods count; None where the constraint says nothing of it, and so no pod does."""
    if "labelSelector" not in constraint:
        return None
    alike = tuple(
        Requirement(key, "In", (labels[key],)) for key in constraint.get("matchLabelKeys", ()) if key in labels
    )
    return LabelSelector(selectors.of_object(constraint["labelSelector"]).requirements + alike)
