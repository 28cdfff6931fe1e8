"""Nodes: hosts that fall silent are NotReady after a while, and their pods move later still.

    silent for 40 s     Ready becomes Unknown, the node is tainted, its pods are no longer ready
    tainted NoExecute   a pod goes when its toleration of the taint ends (300 s where it says nothing)
    node deleted        its pods go at once

Rule of this file: which hosts are silent, and since when, is told from outside (`Health`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from emunet.cluster.controllers.actions import (
    NOTHING,
    Action,
    Delete,
    Note,
    Outcome,
    Watch,
    Write,
    earliest,
    itself,
)
from emunet.cluster.controllers.pods import condition, is_terminating, pod_key, with_condition
from emunet.cluster.controllers.scheduler import tolerates
from emunet.cluster.defaults import UNREACHABLE
from emunet.cluster.desired import Host
from emunet.cluster.moments import SECOND, from_text, to_text_micro
from emunet.cluster.quantities import MACHINE
from emunet.cluster.ranges import pod_capacity
from emunet.cluster.store import Change, Key, Object, View, meta, with_status
from emunet.packet.address import format_ip

GRACE = 40 * SECOND
"""How long a host may be silent before it counts as gone (the default of Kubernetes' node monitor)."""

NAME = "node-controller"
VERSION = "v1.33.0+emunet"


@dataclass(slots=True)
class Health:
    """Which hosts are silent, and since when (ns)."""

    silent: dict[str, int] = field(default_factory=dict)


def node_of(host: Host) -> Object:
    """The Node object that a host of the topology is."""
    labels = {
        "kubernetes.io/hostname": host.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": "amd64",
        **dict(host.labels),
    }
    addresses = [{"type": "InternalIP", "address": format_ip(one.address)} for one in host.addresses]
    pods = str(min(pod_capacity(subnet) for subnet in host.subnets))
    resources = {**MACHINE, "pods": pods}
    ranges = [str(subnet) for subnet in host.subnets]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": host.name, "labels": labels},
        "spec": {"podCIDR": ranges[0], "podCIDRs": ranges, "providerID": f"emunet://{host.name}"},
        "status": {
            "addresses": [*addresses, {"type": "Hostname", "address": host.name}],
            "capacity": resources,
            "allocatable": dict(resources),
            "nodeInfo": {
                "machineID": host.name, "systemUUID": host.name, "bootID": host.name,
                "kernelVersion": "emulated", "osImage": "emunet", "containerRuntimeVersion": "emunet://0",
                "kubeletVersion": VERSION, "kubeProxyVersion": VERSION,
                "operatingSystem": "linux", "architecture": "amd64",
            },
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        },
    }  # fmt: skip


LEASES = "kube-node-lease"
"""The namespace of the leases by which kubelets say that they are there."""

_LEASE_SECONDS, _RENEWED_SECONDS = 40, 10


def lease_of(node: Object, moment: str) -> Object:
    """The lease of a node's kubelet, which ends with the node. `moment` is when it was acquired."""
    name = meta(node)["name"]
    owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": meta(node)["uid"]}
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "namespace": LEASES, "ownerReferences": [owner]},
        "spec": {
            "holderIdentity": name, "leaseDurationSeconds": _LEASE_SECONDS,
            "acquireTime": moment, "renewTime": moment,
        },
    }  # fmt: skip


def renewed(lease: Object, health: Health, now: int, epoch: int) -> Object:
    """A lease as it would be if its kubelet had renewed it every ten seconds until now, or until it fell silent.

    It is worked out when somebody looks, so that a lab at rest does nothing.
    """
    if meta(lease).get("namespace") != LEASES or "ownerReferences" not in meta(lease):
        return lease
    until = health.silent.get(meta(lease)["name"], now)
    moment = to_text_micro(until - until % (_RENEWED_SECONDS * SECOND), epoch)
    return {**lease, "spec": {**lease["spec"], "renewTime": max(lease["spec"]["acquireTime"], moment)}}


_SOUND = (
    ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ("Ready", "True", "KubeletReady", "the host is running in the lab"),
)


class Nodes:
    """Follows the health of hosts."""

    name = NAME

    def __init__(self, health: Health) -> None:
        self._health = health
        self.watches: Mapping[str, Watch] = {"nodes": itself, "pods": self._of_pod}

    def _of_pod(self, view: View, change: Change) -> Iterable[Key]:
        node = change.item["spec"].get("nodeName")
        if not node:
            return
        found = view.get("nodes", "", node)
        if found is None or found["spec"].get("taints"):
            yield Key("nodes", "", node)

    def step(self, view: View, key: Key, now: int) -> Outcome:
        """Set the conditions and taints of a node, and evict who no longer bears them."""
        node = view.at(key)
        if node is None:
            return Outcome(tuple(Delete(pod_key(pod), grace=0) for pod in view.pods_on(key.name)))
        since = self._health.silent.get(key.name)
        moment = view.moment(now)
        if since is not None and now < since + GRACE:
            return Outcome((), since + GRACE)
        conditions: list[Object] = node.get("status", {}).get("conditions", [])
        changed = conditions
        for name, status, reason, message in _SOUND:
            if since is not None:
                status, reason, message = "Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status."
            changed = with_condition(changed, name, status, moment, reason=reason, message=message,
                                     lastHeartbeatTime=moment)  # fmt: skip
        actions: list[Action] = []
        if [_told(one) for one in changed] != [_told(one) for one in conditions]:
            updated = self._tainted(with_status(node, conditions=changed), since is not None, moment)
            actions.append(Write(updated))
            ready = condition(node, "Ready")
            if ready is not None:
                reason = "NodeNotReady" if since is not None else "NodeReady"
                actions.append(Note(node, reason, f"Node {key.name} status is now: {reason}", NAME))
            if since is not None:
                actions += self._unready(view, key.name, moment)
            return Outcome(tuple(actions))
        return self._evict(view, node, now)

    def _tainted(self, node: Object, silent: bool, moment: str) -> Object:
        taints = [one for one in node["spec"].get("taints", ()) if one["key"] != UNREACHABLE]
        if silent:
            taints += [
                {"key": UNREACHABLE, "effect": effect, "timeAdded": moment} for effect in ("NoSchedule", "NoExecute")
            ]
        spec = {name: value for name, value in node["spec"].items() if name != "taints"}
        return {**node, "spec": spec | ({"taints": taints} if taints else {})}

    def _unready(self, view: View, name: str, moment: str) -> Iterator[Action]:
        for pod in view.pods_on(name):
            conditions = pod.get("status", {}).get("conditions", [])
            if any(one["type"] == "Ready" and one["status"] == "True" for one in conditions):
                changed = with_condition(conditions, "Ready", "False", moment, reason="NodeNotReady")
                yield Write(with_status(pod, conditions=changed))
                yield Note(pod, "NodeNotReady", "Node is not ready", NAME, "Warning")

    def _evict(self, view: View, node: Object, now: int) -> Outcome:
        taints = [one for one in node["spec"].get("taints", ()) if one["effect"] == "NoExecute"]
        if not taints:
            return NOTHING
        actions: list[Action] = []
        due = None
        for pod in view.pods_on(meta(node)["name"]):
            if is_terminating(pod):
                continue
            end = _end(view, pod, taints, now)
            if end is not None and end <= now:
                message = f"Marking for deletion Pod {meta(pod)['namespace']}/{meta(pod)['name']}"
                actions += [
                    Note(pod, "TaintManagerEviction", message, "taint-eviction-controller"),
                    Delete(pod_key(pod)),
                ]
            else:
                due = earliest(due, end)
        return Outcome(tuple(actions), due)


def _told(one: Object) -> tuple[object, ...]:
    """A condition without the time at which it was last looked at."""
    return one["type"], one["status"], one.get("reason"), one.get("message")


def _end(view: View, pod: Object, taints: list[Object], now: int) -> int | None:
    """When a pod must leave because of taints: None for never."""
    ends = []
    for taint in taints:
        toleration = tolerates(pod["spec"].get("tolerations", ()), taint)
        if toleration is None:
            return now
        if "tolerationSeconds" in toleration:
            added = from_text(taint["timeAdded"], view.epoch) if "timeAdded" in taint else now
            ends.append(added + max(toleration["tolerationSeconds"], 0) * SECOND)
    return min(ends, default=None)
