"""What is worth knowing of a NetworkPolicy when it is applied: that it means nobody, or a port that nobody has.

Pods that do not exist yet count where a workload would make them, so that a policy which comes
with its Deployment is not complained about.

Rule of this file: a sentence for each thing, and nothing is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from emunet.cluster.policies import NAMES, PROTOCOLS, Policy, Rule, in_words
from emunet.cluster.store import Object, View

_WORKLOADS = (
    "replicationcontrollers", "deployments.apps", "replicasets.apps", "statefulsets.apps", "daemonsets.apps",
    "jobs.batch",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pod that is there, or one as a workload makes them. `ports` are those with a name: (name, protocol number)."""

    namespace: str
    labels: dict[str, str]
    ports: frozenset[tuple[str, int]]
    host_network: bool


def candidates(items: Iterable[Object]) -> Iterator[Candidate]:
    """Of objects as they are stored or written: pods, and what has a template of them. Others are passed over."""
    for item in items:
        spec = item.get("spec") or {}
        pod = spec.get("template") if item.get("kind") != "Pod" else item
        if not isinstance(pod, dict) or not isinstance(pod.get("spec"), dict):
            continue
        containers = pod["spec"].get("containers") or ()
        yield Candidate(
            (item.get("metadata") or {}).get("namespace") or "default",
            dict((pod.get("metadata") or {}).get("labels") or {}),
            frozenset(
                (port["name"], PROTOCOLS.get(port.get("protocol") or "TCP", 0))
                for container in containers
                for port in container.get("ports") or ()
                if port.get("name")
            ),
            bool(pod["spec"].get("hostNetwork")),
        )


def stored(view: View) -> list[Candidate]:
    """Those of a store."""
    return [one for resource in ("pods", *_WORKLOADS) for one in candidates(view.items(resource))]


def warnings(policy: Policy, pods: Sequence[Candidate]) -> Iterator[str]:
    """What a person should know who applies a policy where there are these pods."""
    name = f"NetworkPolicy {policy.full_name}"
    chosen = [one for one in pods if one.namespace == policy.namespace and policy.pods.matches(one.labels)]
    if not chosen:
        wanted = f"none of {policy.namespace} is {in_words(policy.pods)}"
        yield f"{name} selects no pod: {wanted if policy.pods.requirements else f'{policy.namespace} has none'}"
    elif all(one.host_network for one in chosen):
        yield f"{name} selects only pods in their host's network, which no policy isolates"
    for port in dict.fromkeys(_missing(policy.ingress or (), chosen) if chosen else ()):
        yield f"{name} permits ingress at the port {port}, a name that no pod which it selects has"
    for port in dict.fromkeys(_missing(policy.egress or (), pods)):
        yield f"{name} permits egress to the port {port}, a name that no pod has"


def _missing(rules: Iterable[Rule], pods: Sequence[Candidate]) -> Iterator[str]:
    there = {port for one in pods for port in one.ports}
    for rule in rules:
        for port in rule.ports:
            if port.name and (port.name, port.protocol) not in there:
                yield f"{port.name} ({NAMES[port.protocol]})"


__all__ = ["Candidate", "candidates", "stored", "warnings"]
