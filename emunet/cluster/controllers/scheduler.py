"""The scheduler: which host a pod runs on, once, and why none where none will do.

A host is out if it is not there, cordoned, tainted without toleration, not selected, full, without
the address that the pod asks for, has a port taken that the pod wants of the host, or would make the pods of
its kind stand too unevenly (`spread`). Among the rest the pod's preferences decide, then the fewest pods, then
the name.

Rule of this file: it only writes `spec.nodeName` and the condition that tells of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from emunet.cluster import selectors
from emunet.cluster.check_pods import is_pod_address
from emunet.cluster.controllers import spread
from emunet.cluster.controllers.actions import NOTHING, Note, Outcome, Watch, Write, itself
from emunet.cluster.controllers.pods import is_active, is_terminating, pod_key, with_condition
from emunet.cluster.defaults import containers_of
from emunet.cluster.objects import IP_ANNOTATION
from emunet.cluster.ranges import natural
from emunet.cluster.store import Change, Key, Object, View, labels_of, meta, with_status
from emunet.packet.address import Prefix, parse_ip

NAME = "default-scheduler"


def tolerates(tolerations: Iterable[Object], taint: Object) -> Object | None:
    """The toleration of a pod that bears a taint, or None."""
    for one in tolerations:
        if one.get("effect") and one["effect"] != taint["effect"]:
            continue
        if one.get("key") and one["key"] != taint["key"]:
            continue
        if one.get("operator", "Equal") == "Exists" or (
            one.get("key") and one.get("value", "") == taint.get("value", "")
        ):
            return one
    return None


def selects(term: Object, node: Object) -> bool:
    """True where a node satisfies one term of a node affinity."""
    labels = selectors.of_object({"matchExpressions": term.get("matchExpressions", ())})
    fields = term.get("matchFields", ())
    if not labels.requirements and not fields:
        return False
    names = selectors.of_object({"matchExpressions": fields})
    return labels.matches(labels_of(node)) and names.matches({"metadata.name": meta(node)["name"]})


def is_chosen(spec: Object, node: Object) -> bool:
    """True where a pod's nodeSelector and required node affinity let it run on a node."""
    if not spec.get("nodeSelector", {}).items() <= labels_of(node).items():
        return False
    required = spec.get("affinity", {}).get("nodeAffinity", {}).get("requiredDuringSchedulingIgnoredDuringExecution")
    return required is None or any(selects(term, node) for term in required.get("nodeSelectorTerms", ()))


def repelling_taint(
    spec: Object, node: Object, effects: tuple[str, ...] = ("NoSchedule", "NoExecute")
) -> Object | None:
    """The first taint of a node that a pod does not tolerate, or None."""
    for taint in node["spec"].get("taints", ()):
        if taint["effect"] in effects and tolerates(spec.get("tolerations", ()), taint) is None:
            return dict(taint)
    return None


def _collide(some: set[tuple[int, str, str]], others: set[tuple[int, str, str]]) -> bool:
    """Whether two pods want one port of a host: of the same address, or one of them of any (HP-08)."""
    return any(
        one[:2] == other[:2] and (one[2] == other[2] or not (one[2] and other[2])) for one in some for other in others
    )


def host_ports(pod: Object) -> set[tuple[int, str, str]]:
    """The ports of its host that a pod wants: number, protocol, and the one address (empty: any)."""
    return {
        (
            port["hostPort"],
            port.get("protocol", "TCP"),
            "" if port.get("hostIP", "") in ("0.0.0.0", "::") else port.get("hostIP", ""),
        )
        for container in containers_of(pod["spec"])
        for port in container.get("ports", ())
        if port.get("hostPort")
    }


class Scheduler:
    """Binds pods to nodes."""

    name = NAME

    def __init__(self) -> None:
        self.watches: Mapping[str, Watch] = {"pods": self._of_pod, "nodes": self._waiting}

    def _of_pod(self, view: View, change: Change) -> Iterable[Key]:
        if not change.item["spec"].get("nodeName"):
            return itself(view, change)
        if change.verb == "DELETED":
            return self._waiting(view, change)
        return [pod_key(one) for one in view.pods_on("") if heeds_others(one["spec"])] if _is_news(change) else ()

    def _waiting(self, view: View, change: Change) -> Iterator[Key]:
        yield from map(pod_key, view.pods_on(""))

    def step(self, view: View, key: Key, now: int) -> Outcome:
        """Bind the pod, or say why it cannot be."""
        pod = view.at(key)
        if pod is None or pod["spec"].get("nodeName") or is_terminating(pod):
            return NOTHING
        if pod["spec"].get("schedulerName", NAME) != NAME or pod["spec"].get("schedulingGates"):
            return NOTHING
        nodes = sorted(view.items("nodes"), key=lambda node: natural(meta(node)["name"]))
        reasons: Counter[str] = Counter()
        fit = []
        places = _places(view, pod, nodes)
        skewed = spread.obstacle_of(pod["spec"], pod, places)
        for node in nodes:
            why = _obstacle(view, pod, node) or skewed(labels_of(node))
            if why is None:
                fit.append(node)
            else:
                reasons[why] += 1
        conditions = pod.get("status", {}).get("conditions", [])
        if not fit:
            told = ", ".join(f"{number} {why}" for why, number in sorted(reasons.items()))
            message = f"0/{len(nodes)} nodes are available: {told}." if nodes else "no nodes available to schedule pods"
            changed = with_condition(
                conditions, "PodScheduled", "False", view.moment(now), reason="Unschedulable", message=message
            )
            if changed is conditions:
                return NOTHING
            note = Note(pod, "FailedScheduling", message, NAME, "Warning")
            return Outcome((Write(with_status(pod, conditions=changed)), note))
        evenly = spread.worths(pod["spec"], pod, places, [labels_of(node) for node in fit])
        worth = [
            (even + _preference(view, pod, node), -view.number_on(meta(node)["name"]))
            for even, node in zip(evenly, fit, strict=True)
        ]
        name = meta(fit[worth.index(max(worth))])["name"]
        bound = {**pod, "spec": {**pod["spec"], "nodeName": name}}
        changed = with_condition(conditions, "PodScheduled", "True", view.moment(now))
        message = f"Successfully assigned {key.namespace}/{key.name} to {name}"
        return Outcome((Write(with_status(bound, conditions=changed)), Note(pod, "Scheduled", message, NAME)))


def heeds_others(spec: Object) -> bool:
    """Whether where a pod may run depends on where others do."""
    affinity = spec.get("affinity") or {}
    return any((spec.get("topologySpreadConstraints"), affinity.get("podAffinity"), affinity.get("podAntiAffinity")))


def _is_news(change: Change) -> bool:
    """Whether others may see a bound pod with other eyes: it was bound, relabelled, or has come to its end."""
    before, item = change.before, change.item
    return (
        before is None
        or not before["spec"].get("nodeName")
        or labels_of(before) != labels_of(item)
        or is_active(before) != is_active(item)
    )


def _places(view: View, pod: Object, nodes: Iterable[Object]) -> list[spread.Place]:
    """The nodes as far as it matters how evenly pods stand on them; none where the pod does not say so."""
    spec, namespace = pod["spec"], meta(pod)["namespace"]
    if not spec.get("topologySpreadConstraints"):
        return []
    return [
        spread.Place(
            labels_of(node),
            [one for one in view.pods_on(meta(node)["name"]) if meta(one)["namespace"] == namespace and is_active(one)],
            is_chosen(spec, node),
            repelling_taint(spec, node) is None,
        )
        for node in nodes
    ]


def _obstacle(view: View, pod: Object, node: Object) -> str | None:
    """Why a pod cannot run on a node, in the scheduler's words for many nodes; None where it can."""
    spec = pod["spec"]
    if node["spec"].get("unschedulable"):
        unschedulable = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
        if tolerates(spec.get("tolerations", ()), unschedulable) is None:
            return "node(s) were unschedulable"
    taint = repelling_taint(spec, node)
    if taint is not None:
        return f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"
    if not is_chosen(spec, node):
        return "node(s) didn't match Pod's node affinity/selector"
    wanted = meta(pod).get("annotations", {}).get(IP_ANNOTATION)
    if wanted and not _has_addresses(node, wanted):
        return f"node(s) didn't have the address {wanted} in their pod range"
    name = meta(node)["name"]
    if not spec.get("hostNetwork") and view.number_on(name) >= int(node["status"]["allocatable"]["pods"]):
        return "Too many pods"
    ports = host_ports(pod)
    if ports and any(_collide(ports, host_ports(other)) for other in view.pods_on(name)):
        return "node(s) didn't have free ports for the requested pod ports"
    if not _affine(view, pod, node):
        return "node(s) didn't match pod affinity/anti-affinity rules"
    return None


def _has_addresses(node: Object, wanted: str) -> bool:
    ranges = [Prefix.parse(text) for text in node["spec"].get("podCIDRs", ())]
    try:
        addresses = [parse_ip(part.strip()) for part in wanted.split(",")]
    except ValueError:
        return False
    return all(any(is_pod_address(prefix, address) for prefix in ranges) for address in addresses)


def _affine(view: View, pod: Object, node: Object) -> bool:
    """Required affinity and anti-affinity between pods: by label, over hosts that share a label."""
    affinity = pod["spec"].get("affinity", {})
    for name, wanted in (("podAffinity", True), ("podAntiAffinity", False)):
        for term in affinity.get(name, {}).get("requiredDuringSchedulingIgnoredDuringExecution", ()):
            selector = selectors.of_object(term.get("labelSelector"))
            others = list(_neighbors(view, pod, node, term))
            found = any(selector.matches(labels_of(other)) for other in others)
            if wanted and not found and selector.matches(labels_of(pod)):
                # The first of a group that wants to be together may go anywhere.
                found = not any(selector.matches(labels_of(o)) for o in view.items("pods", meta(pod)["namespace"])
                                if o["spec"].get("nodeName"))  # fmt: skip
            if found is not wanted:
                return False
    return True


def _neighbors(view: View, pod: Object, node: Object, term: Object) -> Iterator[Object]:
    """The pods on hosts that have the same value of the term's topology key as a node, in the pod's namespaces."""
    key = term.get("topologyKey", "kubernetes.io/hostname")
    value = labels_of(node).get(key)
    namespaces = term.get("namespaces") or [meta(pod)["namespace"]]
    for other in view.items("nodes"):
        if value is not None and labels_of(other).get(key) == value:
            for found in view.pods_on(meta(other)["name"]):
                if meta(found)["namespace"] in namespaces and not is_terminating(found):
                    yield found


def _preference(view: View, pod: Object, node: Object) -> int:
    """How much a pod prefers a node: the weights of the terms that it satisfies."""
    affinity: dict[str, Any] = pod["spec"].get("affinity", {})
    total = 0
    preferred = "preferredDuringSchedulingIgnoredDuringExecution"
    for one in affinity.get("nodeAffinity", {}).get(preferred, ()):
        if selects(one.get("preference", {}), node):
            total += one.get("weight", 1)
    for name, sign in (("podAffinity", 1), ("podAntiAffinity", -1)):
        for one in affinity.get(name, {}).get(preferred, ()):
            term = one.get("podAffinityTerm", {})
            selector = selectors.of_object(term.get("labelSelector"))
            if any(selector.matches(labels_of(other)) for other in _neighbors(view, pod, node, term)):
                total += sign * int(one.get("weight", 1))
    return total - 100 * (repelling_taint(pod["spec"], node, ("PreferNoSchedule",)) is not None)
