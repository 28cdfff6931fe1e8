"""DaemonSets: one pod on each host that may have one; a new host gets its own without being asked for.

Rule of this file: a pod is made for its host by an affinity to the host's name; binding it stays the
scheduler's business.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from emunet.cluster import selectors
from emunet.cluster.controllers import revisions
from emunet.cluster.controllers.actions import NOTHING, Action, Create, Delete, Outcome, Watch, Write, itself
from emunet.cluster.controllers.deployments import share
from emunet.cluster.controllers.pods import (
    claim,
    from_template,
    is_finished,
    is_ready,
    is_terminating,
    owners_of,
    pod_key,
)
from emunet.cluster.controllers.scheduler import is_chosen, repelling_taint
from emunet.cluster.ranges import natural
from emunet.cluster.store import Change, Key, Object, View, labels_of, meta, with_status

_BORNE = (
    ("node.kubernetes.io/not-ready", "NoExecute"), ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"), ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"), ("node.kubernetes.io/unschedulable", "NoSchedule"),
)  # fmt: skip
"""Taints that a DaemonSet's pods bear, whatever their template says."""


def _selector(owner: Object) -> selectors.LabelSelector:
    return selectors.of_object(owner["spec"].get("selector"))


def _every(view: View, change: Change) -> Iterator[Key]:
    for owner in view.items("daemonsets.apps"):
        yield Key("daemonsets.apps", meta(owner)["namespace"], meta(owner)["name"])


def _host_of(pod: Object) -> str:
    """The host for which a pod was made."""
    if pod["spec"].get("nodeName"):
        return str(pod["spec"]["nodeName"])
    affinity = pod["spec"].get("affinity", {}).get("nodeAffinity", {})
    for term in affinity.get("requiredDuringSchedulingIgnoredDuringExecution", {}).get("nodeSelectorTerms", ()):
        for one in term.get("matchFields", ()):
            return str(one["values"][0])
    return ""


class DaemonSets:
    """Keeps one pod on each eligible host."""

    name = "daemonset-controller"

    def __init__(self) -> None:
        resource = "daemonsets.apps"
        self.watches: Mapping[str, Watch] = {
            resource: itself,
            "pods": owners_of(resource, "DaemonSet", _selector),
            "nodes": _every,
        }

    def step(self, view: View, key: Key, now: int) -> Outcome:
        """Make what is missing, end what is too much or old."""
        owner = view.at(key)
        if owner is None or is_terminating(owner):
            return NOTHING
        pods, writes = claim(view, owner, _selector(owner), "pods")
        if writes:
            return Outcome(tuple(Write(item) for item in writes))
        live = {labels_of(pod).get(revisions.LABEL, "") for pod in pods}
        revision, actions = revisions.current(view, owner, live)
        if actions:
            return Outcome((*actions, Write(with_status(owner, observedGeneration=0))))
        text = revision.rpartition("-")[2]
        spec = _tolerant(owner["spec"]["template"].get("spec", {}))
        nodes = sorted(view.items("nodes"), key=lambda node: natural(meta(node)["name"]))
        wanted = [meta(node)["name"] for node in nodes if is_chosen(spec, node) and repelling_taint(spec, node) is None]
        by_host: dict[str, list[Object]] = {}
        for pod in pods:
            by_host.setdefault(_host_of(pod), []).append(pod)
        for host in wanted:
            if host not in by_host:
                actions.append(Create(self._pod(owner, host, text), owner))
        for host, there in by_host.items():
            for index, pod in enumerate(there):
                if not is_terminating(pod) and (host not in wanted or index > 0 or is_finished(pod)):
                    actions.append(Delete(pod_key(pod), owner=owner))
        if not actions:
            actions += self._update(owner, pods, len(wanted), text)
        status = self._status(owner, by_host, wanted, text)
        if status != owner.get("status", {}):
            actions.append(Write({**owner, "status": status}))
        return Outcome(tuple(actions))

    def _update(self, owner: Object, pods: list[Object], wanted: int, text: str) -> list[Action]:
        strategy = owner["spec"].get("updateStrategy", {})
        if strategy.get("type", "RollingUpdate") != "RollingUpdate":
            return []
        limit = max(1, share(strategy.get("rollingUpdate", {}).get("maxUnavailable", 1), wanted, up=True))
        away = sum(is_terminating(pod) or not is_ready(pod) for pod in pods) + max(0, wanted - len(pods))
        old = [pod for pod in pods if labels_of(pod).get(revisions.LABEL) != text and not is_terminating(pod)]
        broken = [pod for pod in old if not is_ready(pod)]
        sound = [pod for pod in old if is_ready(pod)][: max(0, limit - away)]
        return [Delete(pod_key(pod), owner=owner) for pod in (*broken, *sound)]

    def _pod(self, owner: Object, host: str, text: str) -> Object:
        pod = from_template(owner, owner["spec"]["template"])
        meta(pod)["labels"][revisions.LABEL] = text
        term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [host]}]}
        spec = _tolerant(pod["spec"])
        affinity: dict[str, Any] = dict(spec.get("affinity", {}))
        affinity["nodeAffinity"] = {
            **affinity.get("nodeAffinity", {}),
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]},
        }
        return {**pod, "spec": {**spec, "affinity": affinity}}

    def _status(self, owner: Object, by_host: dict[str, list[Object]], wanted: list[str], text: str) -> Object:
        there = [pods[0] for host, pods in by_host.items() if host in wanted]
        ready = sum(map(is_ready, there))
        changed = with_status(
            owner,
            observedGeneration=meta(owner).get("generation", 1),
            desiredNumberScheduled=len(wanted),
            currentNumberScheduled=len(there),
            numberMisscheduled=sum(host not in wanted for host in by_host),
            numberReady=ready,
            numberAvailable=ready or None,
            numberUnavailable=max(0, len(wanted) - ready) or None,
            updatedNumberScheduled=sum(labels_of(pod).get(revisions.LABEL) == text for pod in there) or None,
        )
        status: Object = changed["status"]
        return status


def _tolerant(spec: Object) -> Object:
    tolerations = list(spec.get("tolerations", ()))
    tolerations += [{"key": key, "operator": "Exists", "effect": effect} for key, effect in _BORNE]
    if spec.get("hostNetwork"):
        tolerations.append(
            {"key": "node.kubernetes.io/network-unavailable", "operator": "Exists", "effect": "NoSchedule"}
        )
    return {**spec, "tolerations": tolerations}
