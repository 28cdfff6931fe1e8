"""The kubelet's part that is a function: what a pod's status says of what runs, and the last step of its end.

What runs is told from outside as `PodFact`s, by the uid of the pod. A Lab on memory wires has one as soon
as the pod's network is there; a running lab has one for each sandbox, with its programs.

Rule of this file: it starts and stops nothing; it says what is, and lets go of pods that have stopped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from emunet.cluster.controllers.actions import NOTHING, Action, Delete, Note, Outcome, Watch, Write
from emunet.cluster.controllers.nodes import Health
from emunet.cluster.controllers.pods import is_terminating, pod_key, with_condition
from emunet.cluster.defaults import containers_of, is_sidecar
from emunet.cluster.store import Change, Key, Object, View, meta, with_status

NAME = "kubelet"


@dataclass(frozen=True, slots=True)
class ContainerFact:
    """How one container is. Times are lab time (ns). `program`: it runs one of this machine's programs."""

    state: Literal["waiting", "running", "terminated"] = "running"
    ready: bool = True
    since: int = 0
    reason: str = ""
    message: str = ""
    code: int = 0
    finished: int = 0
    restarts: int = 0
    program: bool = False
    last: ContainerFact | None = None


@dataclass(frozen=True, slots=True)
class PodFact:
    """How one pod is: its addresses, when its network was there, its containers by name.

    `stopped`: it was told to end, and nothing of it runs any more. A container that is not in
    `containers` is a placeholder: it is there and ready, and runs nothing.
    """

    addresses: tuple[str, ...]
    since: int
    containers: Mapping[str, ContainerFact] = field(default_factory=dict)
    stopped: bool = False
    failure: str = ""

    def container(self, name: str) -> ContainerFact:
        """How the container of that name is."""
        return self.containers.get(name) or ContainerFact(since=self.since)


class Kubelet:
    """Writes the status of pods that are bound to a host."""

    name = NAME

    def __init__(self, health: Health) -> None:
        self.facts: dict[str, PodFact] = {}
        self._health = health
        self.watches: Mapping[str, Watch] = {"pods": self._bound, "nodes": self._on_node}

    def _bound(self, view: View, change: Change) -> Iterator[Key]:
        if change.item["spec"].get("nodeName"):
            yield pod_key(change.item)

    def _on_node(self, view: View, change: Change) -> Iterable[Key]:
        return [pod_key(pod) for pod in view.pods_on(meta(change.item)["name"])]

    def step(self, view: View, key: Key, now: int) -> Outcome:
        """Say how the pod is; end it where its programs have."""
        pod = view.at(key)
        if pod is None or not pod["spec"].get("nodeName") or pod["spec"]["nodeName"] in self._health.silent:
            return NOTHING
        node = view.get("nodes", "", pod["spec"]["nodeName"])
        if node is None:
            return NOTHING
        fact = self.facts.get(meta(pod)["uid"])
        if is_terminating(pod) and (fact is None or fact.stopped):
            return Outcome((Delete(key, grace=0),))
        status = self._status(view, pod, node, fact, now)
        actions: list[Action] = []
        if status != pod.get("status", {}):
            actions.append(Write({**pod, "status": status}))
            actions += _notes(pod, fact)
        return Outcome(tuple(actions))

    def _status(self, view: View, pod: Object, node: Object, fact: PodFact | None, now: int) -> Object:
        spec, moment = pod["spec"], view.moment(now)
        before = pod.get("status", {})
        if before.get("phase") in ("Succeeded", "Failed"):
            return dict(before)
        statuses = {
            group: [_container_status(view, one, fact) for one in spec.get(group, ())]
            for group in ("initContainers", "containers")
        }
        added = [_container_status(view, one, _added(one, fact)) for one in spec.get("ephemeralContainers", ())]
        phase = _phase(spec, fact)
        sidecars = {one["name"] for one in spec.get("initContainers", ()) if is_sidecar(one)}
        lasting = [*(one for one in statuses["initContainers"] if one["name"] in sidecars), *statuses["containers"]]
        ready = phase == "Running" and all(one["ready"] for one in lasting)
        initialized = fact is not None and all(
            _is_past(fact.container(one["name"]), one) for one in spec.get("initContainers", ())
        )
        conditions: list[Object] = before.get("conditions", [])
        reason = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(phase, "")
        unready = reason or ("" if ready else "ContainersNotReady")
        names = [one["name"] for one in lasting if not one["ready"]]
        message = f"containers with unready status: [{' '.join(names)}]" if names and not reason else ""
        shut = _shut_gates(spec, conditions) if ready else ""
        for name, holds, why, told in (
            ("PodReadyToStartContainers", fact is not None, "", ""),
            ("Initialized", initialized, "" if initialized else "ContainersNotInitialized", ""),
            ("Ready", ready and not shut, "ReadinessGatesNotReady" if shut else unready, shut or message),
            ("ContainersReady", ready, unready, message),
            ("PodScheduled", True, "", ""),
        ):
            conditions = with_condition(conditions, name, str(holds), moment, reason=why, message=told)
        hosts = [one["address"] for one in node["status"].get("addresses", ()) if one["type"] == "InternalIP"]
        addresses = fact.addresses if fact is not None else ()
        changed = with_status(
            pod,
            phase=phase,
            conditions=conditions,
            hostIP=hosts[0] if hosts else None,
            hostIPs=[{"ip": one} for one in hosts] or None,
            podIP=addresses[0] if addresses else None,
            podIPs=[{"ip": one} for one in addresses] or None,
            startTime=before.get("startTime") or moment,
            initContainerStatuses=statuses["initContainers"] or None,
            containerStatuses=statuses["containers"],
            ephemeralContainerStatuses=added or None,
            message=fact.failure or None if fact is not None else None,
        )
        status: Object = changed["status"]
        return status


def _shut_gates(spec: Object, conditions: list[Object]) -> str:
    """What keeps a pod from being ready whose containers are: conditions that others set, in a kubelet's words."""
    told = {one["type"]: one["status"] for one in conditions}
    return "; ".join(
        f'the status of pod readiness gate "{name}" is not "True", but {told.get(name, "False")}'
        if name in told
        else f'corresponding condition of pod readiness gate "{name}" does not exist.'
        for name in (gate["conditionType"] for gate in spec.get("readinessGates", ()))
        if told.get(name) != "True"
    )


def _phase(spec: Object, fact: PodFact | None) -> str:
    if fact is None:
        return "Pending"
    states = [(fact.container(one["name"]), one) for one in spec.get("initContainers", ())]
    over = outcome(spec, fact)
    if over and not any(state.program and state.state == "running" for state, _ in states):
        return over
    if not over and not all(_is_past(state, one) for state, one in states):
        return "Pending"
    found = [fact.container(one["name"]) for one in spec["containers"]]
    return "Pending" if any(one.state == "waiting" and not one.restarts for one in found) else "Running"


def outcome(spec: Object, fact: PodFact) -> Literal["", "Succeeded", "Failed"]:
    """What a pod has come to when none but its sidecars will run any more; empty before.

    How sidecars end counts for nothing. Until they have, the pod runs.
    """
    policy = spec.get("restartPolicy", "Always")
    for one in spec.get("initContainers", ()):
        state = fact.container(one["name"])
        if not is_sidecar(one) and not _is_past(state, one):
            return "Failed" if state.state == "terminated" and policy == "Never" else ""
    found = [fact.container(one["name"]) for one in spec["containers"]]
    if policy == "Always" or any(one.state != "terminated" for one in found):
        return ""
    if all(one.code == 0 for one in found):
        return "Succeeded"
    return "Failed" if policy == "Never" else ""


def _is_past(state: ContainerFact, init: Object) -> bool:
    """Whether what comes after an init container may begin: it is done, or (a sidecar) it has begun."""
    if not state.program:
        return True
    if is_sidecar(init):
        return state.state != "waiting" or bool(state.restarts)
    return state.state == "terminated" and not state.code


def _added(container: Object, fact: PodFact | None) -> PodFact | None:
    """What is known of a container that was added to a pod: nothing, until somebody has told of it."""
    return fact if fact is not None and container["name"] in fact.containers else None


def _container_status(view: View, container: Object, fact: PodFact | None) -> Object:
    name = container["name"]
    state = ContainerFact("waiting", False, reason="ContainerCreating") if fact is None else fact.container(name)
    status: Object = {
        "name": name,
        "image": container.get("image", ""),
        "imageID": "",
        "ready": state.ready and state.state == "running",
        "restartCount": state.restarts,
        "started": state.state == "running",
        "state": _state(view, state),
        "lastState": _state(view, state.last) if state.last is not None else {},
    }
    if fact is not None:
        status["containerID"] = f"emunet://{name}"
    return status


def _state(view: View, state: ContainerFact) -> Object:
    told: dict[str, Any] = {"reason": state.reason, "message": state.message}
    told = {name: text for name, text in told.items() if text}
    if state.state == "waiting":
        return {"waiting": told}
    if state.state == "running":
        return {"running": {"startedAt": view.moment(state.since)}}
    reason = state.reason or ("Completed" if state.code == 0 else "Error")
    return {
        "terminated": told | {
            "exitCode": state.code,
            "reason": reason,
            "startedAt": view.moment(state.since),
            "finishedAt": view.moment(state.finished),
        }
    }  # fmt: skip


def _notes(pod: Object, fact: PodFact | None) -> Iterator[Action]:
    """What is told once, when a pod's network is there: what runs in it, and what does not."""
    if fact is None or pod.get("status", {}).get("podIP"):
        return
    for container in containers_of(pod["spec"]):
        name = container["name"]
        if not fact.container(name).program:
            ports = container.get("ports")
            message = (
                f"Container {name} is a placeholder: a lab keeps no images, so of {container.get('image', '')} "
                f"nothing runs; it counts as ready{', and the responder answers on its ports' if ports else ''}"
            )
            yield Note(pod, "Placeholder", message, NAME)
    without = list(_without_effect(pod["spec"]))
    if without:
        yield Note(pod, "NoEffect", f"Accepted without effect in a lab: {', '.join(without)}", NAME)


_IGNORED = (
    "activeDeadlineSeconds", "hostIPC", "hostPID", "priorityClassName", "runtimeClassName", "shareProcessNamespace",
)  # fmt: skip
"""Of a pod's spec, what does nothing where it is set."""

_ACTS = ("runAsUser", "runAsGroup", "runAsNonRoot")
"""Of a security context, what a lab does as it is asked."""


def _without_effect(spec: Object) -> Iterator[str]:
    """Fields of a pod that are accepted and ignored."""
    for name in _IGNORED:
        if spec.get(name):
            yield name
    for name, value in (spec.get("securityContext") or {}).items():
        if value and name not in _ACTS:
            yield f"securityContext.{name}"
    for index, container in enumerate(spec.get("containers", ())):
        field_name = f"containers[{index}]"
        if container.get("resources", {}).get("limits"):
            yield f"{field_name}.resources.limits"
        for name, value in (container.get("securityContext") or {}).items():
            if value and name not in _ACTS:
                yield f"{field_name}.securityContext.{name}"
    for volume in spec.get("volumes", ()):
        source = next((name for name in volume if name != "name"), "")
        if source == "hostPath" and volume["hostPath"].get("type") in ("Socket", "CharDevice", "BlockDevice"):
            yield f"volume {volume['name']} ({volume['hostPath']['type']} of the host)"
        if source in ("persistentVolumeClaim", "nfs", "csi", "iscsi", "cephfs", "rbd", "gcePersistentDisk"):
            yield f"volume {volume['name']} ({source})"
