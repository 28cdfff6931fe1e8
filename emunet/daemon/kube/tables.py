"""What `kubectl get` prints: rows and columns are made by the server.

One row of `COLUMNS` a kind: names, which of them only `-o wide` shows, and a function from an
object to its cells. Any other kind has a name and an age.

Rule of this file: cells are text and numbers for people; nothing is decided by them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from emunet.cluster.defaults import is_sidecar
from emunet.cluster.kinds import Kind
from emunet.cluster.moments import SECOND, age, from_text
from emunet.cluster.selectors import of_object
from emunet.cluster.store import Object, View, meta

NONE = "<none>"
UNKNOWN = "<unknown>"

Cells = Callable[[View, Object, int], list[Any]]


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a kind; those from `wide` on are shown with `-o wide` only."""

    names: tuple[str, ...]
    cells: Cells
    wide: int = 99


def table(view: View, kind: Kind, items: Iterable[Object], now: int, *, include: str = "Metadata") -> Object:
    """A Table of objects. `include`: what goes along with each row, None, Metadata or the whole Object."""
    columns = COLUMNS.get(kind.name, _PLAIN)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "columnDefinitions": [
            {
                "name": name,
                "type": "string",
                "format": "name" if name == "Name" else "",
                "description": "",
                "priority": int(index >= columns.wide),
            }
            for index, name in enumerate(columns.names)
        ],
        "rows": [row(view, kind, item, now, include=include) for item in items],
    }


def row(view: View, kind: Kind, item: Object, now: int, *, include: str = "Metadata") -> Object:
    """One row."""
    found: Object = {"cells": COLUMNS.get(kind.name, _PLAIN).cells(view, item, now)}
    if include == "Object":
        found["object"] = item
    elif include != "None":
        found["object"] = {
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": item["metadata"],
        }
    return found


def since(view: View, text: str | None, now: int) -> str:
    """How long ago a moment was."""
    return age((now - from_text(text, view.epoch)) // SECOND) if text else UNKNOWN


def _age(view: View, item: Object, now: int) -> str:
    return since(view, meta(item).get("creationTimestamp"), now)


def _name(item: Object) -> str:
    return str(meta(item)["name"])


def _join(parts: Iterable[Any]) -> str:
    return ",".join(map(str, parts)) or NONE


def _pairs(pairs: dict[str, str] | None) -> str:
    return _join(f"{key}={value}" for key, value in sorted((pairs or {}).items()))


def _selector(selector: Object | None) -> str:
    parts = []
    for one in of_object(selector).requirements:
        values = ",".join(one.values)
        text = {
            "In": f"{one.key}={values}" if len(one.values) == 1 else f"{one.key} in ({values})",
            "NotIn": f"{one.key} notin ({values})",
            "Exists": one.key,
            "DoesNotExist": f"!{one.key}",
        }.get(one.operator, one.key)
        parts.append(text)
    return _join(parts)


def _containers(spec: Object) -> list[str]:
    found = spec.get("containers", ())
    return [_join(one["name"] for one in found), _join(one.get("image", "") for one in found)]


def _template(item: Object) -> list[str]:
    return _containers(item["spec"].get("template", {}).get("spec", {}))


def _plain(view: View, item: Object, now: int) -> list[Any]:
    return [_name(item), _age(view, item, now)]


# Pods


def _reason_of(state: Object) -> str:
    """Why a container waits or has ended, or nothing."""
    for how in ("waiting", "terminated"):
        found = state.get(how)
        if found is None:
            continue
        if found.get("reason"):
            return str(found["reason"])
        if how == "terminated":
            if found.get("signal"):
                return f"Signal:{found['signal']}"
            return f"ExitCode:{found.get('exitCode', 0)}"
    return ""


def pod_status(view: View, pod: Object) -> tuple[str, int, int, int]:
    """(the word for how a pod is, containers that are ready, containers in all, restarts)."""
    status, spec = pod.get("status", {}), pod["spec"]
    word = status.get("reason") or status.get("phase", "Pending")
    ready, restarts = 0, 0
    initial = status.get("initContainerStatuses", ())
    sidecars = {one["name"] for one in spec.get("initContainers", ()) if is_sidecar(one)}
    again, waiting_for_first = 0, False
    for index, one in enumerate(initial):
        restarts += one.get("restartCount", 0)
        ended = one.get("state", {}).get("terminated")
        if ended is not None and ended.get("exitCode") == 0:
            continue
        if one.get("name") in sidecars and one.get("started"):
            ready += bool(one.get("ready"))
            again += one.get("restartCount", 0)
            continue
        if one.get("state", {}).get("running") is not None and one.get("imageID") == "" and not _unfinished(status):
            continue
        reason = _reason_of(one.get("state", {}))
        if not reason or reason == "PodInitializing":
            reason = f"{index}/{len(spec.get('initContainers', ()))}"
        word, waiting_for_first = f"Init:{reason}", True
        break
    if not waiting_for_first:
        restarts, running = again, False
        for one in reversed(status.get("containerStatuses", ())):
            restarts += one.get("restartCount", 0)
            word = _reason_of(one.get("state", {})) or word
            if one.get("ready") and one.get("state", {}).get("running") is not None:
                ready, running = ready + 1, True
        if word == "Completed" and running:
            is_ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", ()))
            word = "Running" if is_ready else "NotReady"
    if "deletionTimestamp" in meta(pod):
        word = "Unknown" if status.get("reason") == "NodeLost" else "Terminating"
    return word, ready, len(spec.get("containers", ())) + len(sidecars), restarts


def _unfinished(status: Object) -> bool:
    return any(one["type"] == "Initialized" and one["status"] != "True" for one in status.get("conditions", ()))


def _pod(view: View, item: Object, now: int) -> list[Any]:
    word, ready, total, restarts = pod_status(view, item)
    status = item.get("status", {})
    addresses = [one["ip"] for one in status.get("podIPs", ())]
    return [
        _name(item), f"{ready}/{total}", word, restarts, _age(view, item, now),
        addresses[0] if addresses else NONE, item["spec"].get("nodeName") or NONE,
        status.get("nominatedNodeName") or NONE, NONE,
    ]  # fmt: skip


# What manages pods


def _replication(view: View, item: Object, now: int) -> list[Any]:
    spec, status = item["spec"], item.get("status", {})
    selector = spec.get("selector")
    return [
        _name(item), spec.get("replicas", 1), status.get("replicas", 0), status.get("readyReplicas", 0),
        _age(view, item, now), *_template(item),
        _pairs(selector) if item["kind"] == "ReplicationController" else _selector(selector),
    ]  # fmt: skip


def _deployment(view: View, item: Object, now: int) -> list[Any]:
    spec, status = item["spec"], item.get("status", {})
    ready = f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 1)}"
    return [
        _name(item), ready, status.get("updatedReplicas", 0), status.get("availableReplicas", 0),
        _age(view, item, now), *_template(item), _selector(spec.get("selector")),
    ]  # fmt: skip


def _stateful(view: View, item: Object, now: int) -> list[Any]:
    ready = f"{item.get('status', {}).get('readyReplicas', 0)}/{item['spec'].get('replicas', 1)}"
    return [_name(item), ready, _age(view, item, now), *_template(item)]


def _daemon(view: View, item: Object, now: int) -> list[Any]:
    status = item.get("status", {})
    counts = [
        status.get(name, 0)
        for name in (
            "desiredNumberScheduled", "currentNumberScheduled", "numberReady", "updatedNumberScheduled",
            "numberAvailable",
        )
    ]  # fmt: skip
    chosen = _pairs(item["spec"].get("template", {}).get("spec", {}).get("nodeSelector"))
    return [
        _name(item), *counts, chosen, _age(view, item, now), *_template(item), _selector(item["spec"].get("selector")),
    ]  # fmt: skip


def _job(view: View, item: Object, now: int) -> list[Any]:
    spec, status = item["spec"], item.get("status", {})
    wanted, done = spec.get("completions"), status.get("succeeded", 0)
    parallel = spec.get("parallelism", 1)
    told = f"{done}/{wanted}" if wanted is not None else f"{done}/1 of {parallel}" if parallel > 1 else f"{done}/1"
    duration = ""
    if status.get("startTime"):
        end = from_text(status["completionTime"], view.epoch) if status.get("completionTime") else now
        duration = age((end - from_text(status["startTime"], view.epoch)) // SECOND)
    return [_name(item), told, duration, _age(view, item, now), *_template(item), _selector(spec.get("selector"))]


def _cron_job(view: View, item: Object, now: int) -> list[Any]:
    spec, status = item["spec"], item.get("status", {})
    last = since(view, status["lastScheduleTime"], now) if status.get("lastScheduleTime") else NONE
    inner = spec.get("jobTemplate", {}).get("spec", {}).get("template", {}).get("spec", {})
    return [
        _name(item), spec.get("schedule", ""), str(spec.get("suspend", False)), len(status.get("active", ())), last,
        _age(view, item, now), *_containers(inner), NONE,
    ]  # fmt: skip


# The network


def _external(item: Object) -> str:
    spec, kind = item["spec"], item["spec"].get("type", "ClusterIP")
    fixed = spec.get("externalIPs", [])
    if kind == "ExternalName":
        return str(spec.get("externalName", NONE))
    if kind == "LoadBalancer":
        given = [one.get("ip") or one.get("hostname", "")
                 for one in item.get("status", {}).get("loadBalancer", {}).get("ingress", ())]  # fmt: skip
        return ",".join([*given, *fixed]) or "<pending>"
    return _join(fixed)


def _service_ports(ports: Iterable[Object]) -> str:
    return _join(
        f"{one['port']}{':' + str(one['nodePort']) if one.get('nodePort') else ''}/{one.get('protocol', 'TCP')}"
        for one in ports
    )


def _service(view: View, item: Object, now: int) -> list[Any]:
    spec = item["spec"]
    address = (spec.get("clusterIPs") or [spec.get("clusterIP") or NONE])[0]
    return [
        _name(item), spec.get("type", "ClusterIP"), address, _external(item), _service_ports(spec.get("ports", ())),
        _age(view, item, now), _pairs(spec.get("selector")),
    ]  # fmt: skip


def _few(found: list[str]) -> str:
    if len(found) > 3:
        return f"{','.join(found[:3])} + {len(found) - 3} more..."
    return ",".join(found) or NONE


def _endpoints(view: View, item: Object, now: int) -> list[Any]:
    found = []
    for subset in item.get("subsets", ()):
        addresses = [one["ip"] for one in subset.get("addresses", ())]
        ports = [one["port"] for one in subset.get("ports", ())]
        for port in ports:
            found += [f"[{one}]:{port}" if ":" in one else f"{one}:{port}" for one in addresses]
        if not ports:
            found += addresses
    return [_name(item), _few(found), _age(view, item, now)]


def _endpoint_slice(view: View, item: Object, now: int) -> list[Any]:
    ports = [str(one.get("port", "*")) for one in item.get("ports") or ()]
    addresses = [address for one in item.get("endpoints") or () for address in one.get("addresses", ())]
    unset = "<unset>"
    return [
        _name(item), item.get("addressType", ""), _few(ports) if ports else unset,
        _few(addresses) if addresses else unset, _age(view, item, now),
    ]  # fmt: skip


def _policy(view: View, item: Object, now: int) -> list[Any]:
    return [_name(item), _selector(item["spec"].get("podSelector")), _age(view, item, now)]


def _ingress(view: View, item: Object, now: int) -> list[Any]:
    spec = item.get("spec", {})
    hosts = [one.get("host") or "*" for one in spec.get("rules", ())] or ["*"]
    ports = "80, 443" if spec.get("tls") else "80"
    return [_name(item), spec.get("ingressClassName") or NONE, _few(hosts), "", ports, _age(view, item, now)]


# The cluster


def _node(view: View, item: Object, now: int) -> list[Any]:
    status, prefix = item.get("status", {}), "node-role.kubernetes.io/"
    ready = next((one["status"] for one in status.get("conditions", ()) if one["type"] == "Ready"), "Unknown")
    word = {"True": "Ready", "False": "NotReady"}.get(ready, "NotReady" if ready == "Unknown" else "Unknown")
    if item["spec"].get("unschedulable"):
        word += ",SchedulingDisabled"
    roles = sorted(key.removeprefix(prefix) for key in meta(item).get("labels", {}) if key.startswith(prefix))
    info = status.get("nodeInfo", {})
    inside = next((one["address"] for one in status.get("addresses", ()) if one["type"] == "InternalIP"), NONE)
    return [
        _name(item), word, _join(roles), _age(view, item, now), info.get("kubeletVersion", ""), inside, NONE,
        info.get("osImage", UNKNOWN), info.get("kernelVersion", UNKNOWN), info.get("containerRuntimeVersion", UNKNOWN),
    ]  # fmt: skip


def _namespace(view: View, item: Object, now: int) -> list[Any]:
    return [_name(item), item.get("status", {}).get("phase", ""), _age(view, item, now)]


def _event(view: View, item: Object, now: int) -> list[Any]:
    involved = item.get("involvedObject", {})
    return [
        since(view, item.get("lastTimestamp") or meta(item).get("creationTimestamp"), now), item.get("type", ""),
        item.get("reason", ""), f"{involved.get('kind', '').lower()}/{involved.get('name', '')}",
        item.get("message", "").strip(), involved.get("fieldPath", ""), item.get("source", {}).get("component", ""),
        since(view, item.get("firstTimestamp"), now), item.get("count", 1), _name(item),
    ]  # fmt: skip


def _config_map(view: View, item: Object, now: int) -> list[Any]:
    return [_name(item), len(item.get("data", {})) + len(item.get("binaryData", {})), _age(view, item, now)]


def _secret(view: View, item: Object, now: int) -> list[Any]:
    return [_name(item), item.get("type", ""), len(item.get("data", {})), _age(view, item, now)]


def _account(view: View, item: Object, now: int) -> list[Any]:
    return [_name(item), len(item.get("secrets", ())), _age(view, item, now)]


def _volume(view: View, item: Object, now: int) -> list[Any]:
    spec = item["spec"]
    claim = spec.get("claimRef")
    return [
        _name(item), spec.get("capacity", {}).get("storage", ""), _modes(spec),
        spec.get("persistentVolumeReclaimPolicy", ""), item.get("status", {}).get("phase", ""),
        f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else "", spec.get("storageClassName", ""),
        "", _age(view, item, now), spec.get("volumeMode", ""),
    ]  # fmt: skip


def _claim(view: View, item: Object, now: int) -> list[Any]:
    spec, status = item["spec"], item.get("status", {})
    return [
        _name(item), status.get("phase", ""), spec.get("volumeName", ""),
        status.get("capacity", {}).get("storage", ""), _modes(spec) if spec.get("volumeName") else "",
        spec.get("storageClassName", ""), _age(view, item, now), spec.get("volumeMode", ""),
    ]  # fmt: skip


def _modes(spec: Object) -> str:
    short = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}
    return ",".join(short.get(one, one) for one in spec.get("accessModes", ()))


def _budget(view: View, item: Object, now: int) -> list[Any]:
    spec = item.get("spec", {})
    allowed = item.get("status", {}).get("disruptionsAllowed", 0)
    least, most = (str(spec.get(name, "N/A")) for name in ("minAvailable", "maxUnavailable"))
    return [_name(item), least, most, allowed, _age(view, item, now)]


def _autoscaler(view: View, item: Object, now: int) -> list[Any]:
    spec = item.get("spec", {})
    target = spec.get("scaleTargetRef", {})
    replicas = item.get("status", {}).get("currentReplicas", 0)
    return [
        _name(item), f"{target.get('kind', '')}/{target.get('name', '')}", UNKNOWN, spec.get("minReplicas", 1),
        spec.get("maxReplicas", 0), replicas, _age(view, item, now),
    ]  # fmt: skip


def _binding(view: View, item: Object, now: int) -> list[Any]:
    role = item.get("roleRef", {})
    by_kind: dict[str, list[str]] = {"User": [], "Group": [], "ServiceAccount": []}
    for one in item.get("subjects", ()):
        name = one.get("name", "")
        if one.get("kind") == "ServiceAccount":
            name = f"{one.get('namespace', '')}/{name}"
        by_kind.setdefault(one.get("kind", ""), []).append(name)
    told = [", ".join(by_kind[kind]) for kind in ("User", "Group", "ServiceAccount")]
    return [_name(item), f"{role.get('kind', '')}/{role.get('name', '')}", _age(view, item, now), *told]


def _role(view: View, item: Object, now: int) -> list[Any]:
    return [_name(item), meta(item).get("creationTimestamp", UNKNOWN)]


def _lease(view: View, item: Object, now: int) -> list[Any]:
    return [_name(item), item.get("spec", {}).get("holderIdentity", ""), _age(view, item, now)]


def _storage_class(view: View, item: Object, now: int) -> list[Any]:
    default = meta(item).get("annotations", {}).get("storageclass.kubernetes.io/is-default-class") == "true"
    name = f"{_name(item)} (default)" if default else _name(item)
    return [
        name, item.get("provisioner", ""), item.get("reclaimPolicy", ""), item.get("volumeBindingMode", ""),
        str(item.get("allowVolumeExpansion", False)).lower(), _age(view, item, now),
    ]  # fmt: skip


def _priority_class(view: View, item: Object, now: int) -> list[Any]:
    return [_name(item), item.get("value", 0), str(item.get("globalDefault", False)).lower(), _age(view, item, now)]


def _quota(view: View, item: Object, now: int) -> list[Any]:
    told = ", ".join(f"{key}: 0/{value}" for key, value in sorted(item.get("spec", {}).get("hard", {}).items()))
    return [_name(item), _age(view, item, now), told, ""]


def _revision(view: View, item: Object, now: int) -> list[Any]:
    owners: Iterator[str] = (
        f"{one['kind'].lower()}.apps/{one['name']}" for one in meta(item).get("ownerReferences", ())
    )
    return [_name(item), next(owners, NONE), item.get("revision", 0), _age(view, item, now)]


_PLAIN = Columns(("Name", "Age"), _plain)


def _columns(names: str, cells: Cells, wide: int = 99) -> Columns:
    return Columns(tuple(name.strip() for name in names.split(",")), cells, wide)


COLUMNS = {
    "Pod": _columns("Name, Ready, Status, Restarts, Age, IP, Node, Nominated Node, Readiness Gates", _pod, 5),
    "ReplicationController": _columns(
        "Name, Desired, Current, Ready, Age, Containers, Images, Selector", _replication, 5
    ),
    "ReplicaSet": _columns("Name, Desired, Current, Ready, Age, Containers, Images, Selector", _replication, 5),
    "Deployment": _columns(
        "Name, Ready, Up-to-date, Available, Age, Containers, Images, Selector", _deployment, 5
    ),
    "StatefulSet": _columns("Name, Ready, Age, Containers, Images", _stateful, 3),
    "DaemonSet": _columns(
        "Name, Desired, Current, Ready, Up-to-date, Available, Node Selector, Age, Containers, Images, Selector",
        _daemon, 8,
    ),
    "Job": _columns("Name, Completions, Duration, Age, Containers, Images, Selector", _job, 4),
    "CronJob": _columns(
        "Name, Schedule, Suspend, Active, Last Schedule, Age, Containers, Images, Selector", _cron_job, 6
    ),
    "Service": _columns("Name, Type, Cluster-IP, External-IP, Port(s), Age, Selector", _service, 6),
    "Endpoints": _columns("Name, Endpoints, Age", _endpoints),
    "EndpointSlice": _columns("Name, AddressType, Ports, Endpoints, Age", _endpoint_slice),
    "NetworkPolicy": _columns("Name, Pod-Selector, Age", _policy),
    "Ingress": _columns("Name, Class, Hosts, Address, Ports, Age", _ingress),
    "Node": _columns(
        "Name, Status, Roles, Age, Version, Internal-IP, External-IP, OS-Image, Kernel-Version, Container-Runtime",
        _node, 5,
    ),
    "Namespace": _columns("Name, Status, Age", _namespace),
    "Event": _columns(
        "Last Seen, Type, Reason, Object, Message, Subobject, Source, First Seen, Count, Name", _event, 5
    ),
    "ConfigMap": _columns("Name, Data, Age", _config_map),
    "Secret": _columns("Name, Type, Data, Age", _secret),
    "ServiceAccount": _columns("Name, Secrets, Age", _account),
    "PersistentVolume": _columns(
        "Name, Capacity, Access Modes, Reclaim Policy, Status, Claim, StorageClass, Reason, Age, VolumeMode",
        _volume, 9,
    ),
    "PersistentVolumeClaim": _columns(
        "Name, Status, Volume, Capacity, Access Modes, StorageClass, Age, VolumeMode", _claim, 7
    ),
    "PodDisruptionBudget": _columns("Name, Min Available, Max Unavailable, Allowed Disruptions, Age", _budget),
    "HorizontalPodAutoscaler": _columns(
        "Name, Reference, Targets, MinPods, MaxPods, Replicas, Age", _autoscaler
    ),
    "RoleBinding": _columns("Name, Role, Age, Users, Groups, ServiceAccounts", _binding, 3),
    "ClusterRoleBinding": _columns("Name, Role, Age, Users, Groups, ServiceAccounts", _binding, 3),
    "Role": _columns("Name, Created At", _role),
    "ClusterRole": _columns("Name, Created At", _role),
    "Lease": _columns("Name, Holder, Age", _lease),
    "StorageClass": _columns(
        "Name, Provisioner, ReclaimPolicy, VolumeBindingMode, AllowVolumeExpansion, Age", _storage_class
    ),
    "PriorityClass": _columns("Name, Value, Global-Default, Age", _priority_class),
    "ResourceQuota": _columns("Name, Age, Request, Limit", _quota),
    "ControllerRevision": _columns("Name, Controller, Revision, Age", _revision),
}  # fmt: skip
