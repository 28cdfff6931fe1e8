"""What an object says when it says nothing: the defaults that clients see.

`fill` is called once for each object that a client sends, after its fields are known to be
sound and before its meaning is checked. It works on a copy that is the caller's to change.

Rule of this file: defaults of one object, from that object alone. What needs the cluster
(addresses, node names) is given out by `admission`.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any

Object = dict[str, Any]

NOT_READY, UNREACHABLE = "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"
EVICTION_SECONDS = 300
"""How long a pod stays on a host that is gone, where it does not say otherwise."""


def fill(kind: str, item: Object, api_version: str) -> None:
    """Write the defaults of a kind into an object that came under an API version."""
    defaults = _DEFAULTS.get(kind)
    if defaults is not None:
        defaults(item, api_version)


def template_of(kind: str, item: Object) -> Object | None:
    """The pod template inside an object of a kind, or None; what is missing on the way is made."""
    if kind in ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "ReplicationController", "Job"):
        template = item.get("spec", {}).get("template")
    elif kind == "CronJob":
        template = item.get("spec", {}).get("jobTemplate", {}).get("spec", {}).get("template")
    elif kind == "PodTemplate":
        template = item.get("template")
    else:
        return None
    return template if isinstance(template, dict) else None


def containers_of(spec: Object) -> Iterator[Object]:
    """Every container of a pod's spec, those that run first before the others, those that were added to it last."""
    yield from spec.get("initContainers", ())
    yield from spec.get("containers", ())
    yield from spec.get("ephemeralContainers", ())


_VOLUMES: dict[str, Object] = {
    "azureDisk": {"cachingMode": "ReadWrite", "fsType": "ext4", "kind": "Shared", "readOnly": False},
    "hostPath": {"type": ""},
    "iscsi": {"iscsiInterface": "default"},
    "rbd": {"keyring": "/etc/ceph/keyring", "pool": "rbd", "user": "admin"},
    "scaleIO": {"fsType": "xfs", "storageMode": "ThinProvisioned"},
}
"""What a volume of a kind says where it says nothing; kubectl describe counts on some of it."""


def is_sidecar(init: Object) -> bool:
    """Whether an init container is one that goes on beside the others: they begin when it has begun."""
    return bool(init.get("restartPolicy") == "Always")


def _pod_spec(spec: Object) -> None:
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")
    for container in containers_of(spec):
        image = container.get("image", "")
        latest = ":" not in image.rpartition("/")[2] or image.endswith(":latest")
        container.setdefault("imagePullPolicy", "Always" if latest else "IfNotPresent")
        container.setdefault("resources", {})
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        container.setdefault("terminationMessagePolicy", "File")
        for port in container.get("ports", ()):
            port.setdefault("protocol", "TCP")
            if spec.get("hostNetwork") and "containerPort" in port:
                port.setdefault("hostPort", port["containerPort"])
        for variable in container.get("env", ()):
            reference = variable.get("valueFrom", {}).get("fieldRef")
            if reference is not None:
                reference.setdefault("apiVersion", "v1")
        for name in ("livenessProbe", "readinessProbe", "startupProbe"):
            if name in container:
                _probe(container[name])
        for hook in (container.get("lifecycle") or {}).values():
            _action(hook)
        resources = container["resources"]
        if "limits" in resources:  # who may have so much is taken to want it
            resources["requests"] = {**resources["limits"], **resources.get("requests", {})}
    for volume in spec.get("volumes", ()):
        for source in ("configMap", "secret", "downwardAPI", "projected"):
            if source in volume:
                volume[source].setdefault("defaultMode", 0o644)
        for source, values in _VOLUMES.items():
            if source in volume:
                volume[source] = values | volume[source]
        projected = volume.get("projected", {}).get("sources", ())
        for one in projected:
            if "serviceAccountToken" in one:
                one["serviceAccountToken"].setdefault("expirationSeconds", 3600)
        for one in (volume, *projected):
            for item in one.get("downwardAPI", {}).get("items", ()):
                if "fieldRef" in item:
                    item["fieldRef"].setdefault("apiVersion", "v1")


def _probe(probe: Object) -> None:
    for name, value in (("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)):
        probe.setdefault(name, value)
    _action(probe)


def _action(action: Object) -> None:
    if "httpGet" in action:
        action["httpGet"].setdefault("path", "/")
        action["httpGet"].setdefault("scheme", "HTTP")
    if "grpc" in action:
        action["grpc"].setdefault("service", "")


def _quality(spec: Object) -> str:
    """The class that a kubelet would put a pod in by what its containers ask for (qosClass)."""
    resources = [one.get("resources", {}) for one in containers_of(spec)]
    if not any(one.get("requests") or one.get("limits") for one in resources):
        return "BestEffort"
    for one in resources:
        limits, requests = one.get("limits", {}), one.get("requests", {})
        if any(limits.get(name) is None or limits.get(name) != requests.get(name) for name in ("cpu", "memory")):
            return "Burstable"
    return "Guaranteed"


def _pod(item: Object, api_version: str) -> None:
    spec = item.setdefault("spec", {})
    _pod_spec(spec)
    spec.setdefault("enableServiceLinks", True)
    spec.setdefault("serviceAccountName", spec.get("serviceAccount", "default"))
    spec.setdefault("serviceAccount", spec["serviceAccountName"])
    spec.setdefault("priority", 0)
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
    tolerations = spec.setdefault("tolerations", [])
    for key in (NOT_READY, UNREACHABLE):
        if not any(one.get("key", key) == key and one.get("effect", "NoExecute") == "NoExecute" for one in tolerations):
            tolerations.append(
                {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": EVICTION_SECONDS}
            )
    item["status"] = {"phase": "Pending", "qosClass": _quality(spec)}


def _controller(item: Object) -> Object:
    spec: Object = item.setdefault("spec", {})
    template = spec.get("template")
    if isinstance(template, dict):
        template.setdefault("metadata", {})
        _pod_spec(template.setdefault("spec", {}))
    return spec


def _from_template(item: Object, spec: Object, selector: Callable[[Object], Object]) -> None:
    """What the oldest versions did: selector and labels are those of the template where they are not given."""
    labels = spec.get("template", {}).get("metadata", {}).get("labels", {})
    if labels:
        spec.setdefault("selector", selector(labels))
        item.setdefault("metadata", {}).setdefault("labels", dict(labels))


def _replication_controller(item: Object, api_version: str) -> None:
    spec = _controller(item)
    spec.setdefault("replicas", 1)
    _from_template(item, spec, dict)


def _match_labels(labels: Object) -> Object:
    return {"matchLabels": dict(labels)}


def _replica_set(item: Object, api_version: str) -> None:
    spec = _controller(item)
    spec.setdefault("replicas", 1)
    if api_version == "extensions/v1beta1":
        _from_template(item, spec, _match_labels)


def _deployment(item: Object, api_version: str) -> None:
    spec = _controller(item)
    old = api_version in ("extensions/v1beta1", "apps/v1beta1")
    if old:
        _from_template(item, spec, _match_labels)
    spec.setdefault("replicas", 1)
    strategy = spec.setdefault("strategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        step = 1 if api_version == "extensions/v1beta1" else "25%"
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxSurge", step)
        rolling.setdefault("maxUnavailable", step)
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)


def _stateful_set(item: Object, api_version: str) -> None:
    spec = _controller(item)
    if api_version == "apps/v1beta1":
        _from_template(item, spec, _match_labels)
    spec.setdefault("replicas", 1)
    spec.setdefault("podManagementPolicy", "OrderedReady")
    strategy = spec.setdefault("updateStrategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        strategy.setdefault("rollingUpdate", {}).setdefault("partition", 0)
    spec.setdefault("revisionHistoryLimit", 10)


def _daemon_set(item: Object, api_version: str) -> None:
    spec = _controller(item)
    if api_version == "extensions/v1beta1":
        _from_template(item, spec, _match_labels)
    strategy = spec.setdefault("updateStrategy", {})
    default = "OnDelete" if api_version == "extensions/v1beta1" else "RollingUpdate"
    if strategy.setdefault("type", default) == "RollingUpdate":
        strategy.setdefault("rollingUpdate", {}).setdefault("maxUnavailable", 1)
        strategy["rollingUpdate"].setdefault("maxSurge", 0)
    spec.setdefault("revisionHistoryLimit", 10)


def _job(item: Object, api_version: str) -> None:
    spec = _controller(item)
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    spec.setdefault("parallelism", 1)
    spec.setdefault("backoffLimit", 6)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)


def _cron_job(item: Object, api_version: str) -> None:
    spec = item.setdefault("spec", {})
    spec.setdefault("concurrencyPolicy", "Allow")
    spec.setdefault("suspend", False)
    spec.setdefault("successfulJobsHistoryLimit", 3)
    spec.setdefault("failedJobsHistoryLimit", 1)
    template = template_of("CronJob", item)
    if template is not None:
        _pod_spec(template.setdefault("spec", {}))


def _service(item: Object, api_version: str) -> None:
    spec = item.setdefault("spec", {})
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    if spec["sessionAffinity"] == "ClientIP":
        spec.setdefault("sessionAffinityConfig", {"clientIP": {"timeoutSeconds": 10800}})
    for port in spec.get("ports", ()):
        port.setdefault("protocol", "TCP")
        if "port" in port:
            port.setdefault("targetPort", port["port"])
    if spec["type"] != "ExternalName":
        spec.setdefault("internalTrafficPolicy", "Cluster")
    if spec["type"] in ("NodePort", "LoadBalancer"):
        spec.setdefault("externalTrafficPolicy", "Cluster")
    if spec["type"] == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
    item["status"] = {"loadBalancer": {}}


def _endpoints(item: Object, api_version: str) -> None:
    for subset in item.get("subsets", ()):
        for port in subset.get("ports", ()):
            port.setdefault("protocol", "TCP")


def _endpoint_slice(item: Object, api_version: str) -> None:
    for port in item.get("ports", ()):
        port.setdefault("protocol", "TCP")
        port.setdefault("name", "")


def _namespace(item: Object, api_version: str) -> None:
    item.setdefault("spec", {})["finalizers"] = ["kubernetes"]
    item["status"] = {"phase": "Active"}
    metadata = item.setdefault("metadata", {})
    if metadata.get("name"):
        metadata.setdefault("labels", {})["kubernetes.io/metadata.name"] = metadata["name"]


def _secret(item: Object, api_version: str) -> None:
    item.setdefault("type", "Opaque")
    for key, text in item.pop("stringData", {}).items():
        item.setdefault("data", {})[key] = base64.b64encode(text.encode()).decode()


def _network_policy(item: Object, api_version: str) -> None:
    spec = item.setdefault("spec", {})
    if "policyTypes" not in spec:
        spec["policyTypes"] = ["Ingress", *(["Egress"] if spec.get("egress") else [])]
    for rule in (*spec.get("ingress", ()), *spec.get("egress", ())):
        for port in rule.get("ports", ()):
            port.setdefault("protocol", "TCP")


def _volume_claim(item: Object, api_version: str) -> None:
    item.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")
    item["status"] = {"phase": "Pending"}


def _volume(item: Object, api_version: str) -> None:
    item.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")
    item["spec"].setdefault("persistentVolumeReclaimPolicy", "Retain")
    item["status"] = {"phase": "Available"}


def _priority_class(item: Object, api_version: str) -> None:
    item.setdefault("preemptionPolicy", "PreemptLowerPriority")


def _storage_class(item: Object, api_version: str) -> None:
    item.setdefault("reclaimPolicy", "Delete")
    item.setdefault("volumeBindingMode", "Immediate")


def _binding(item: Object, api_version: str) -> None:
    if isinstance(item.get("roleRef"), dict):
        item["roleRef"].setdefault("apiGroup", "rbac.authorization.k8s.io")
    for subject in item.get("subjects", ()):
        if subject.get("kind") in ("User", "Group"):
            subject.setdefault("apiGroup", "rbac.authorization.k8s.io")


_DEFAULTS: dict[str, Callable[[Object, str], None]] = {
    "Pod": _pod,
    "ReplicationController": _replication_controller,
    "ReplicaSet": _replica_set,
    "Deployment": _deployment,
    "StatefulSet": _stateful_set,
    "DaemonSet": _daemon_set,
    "Job": _job,
    "CronJob": _cron_job,
    "Service": _service,
    "Endpoints": _endpoints,
    "EndpointSlice": _endpoint_slice,
    "Namespace": _namespace,
    "Secret": _secret,
    "NetworkPolicy": _network_policy,
    "PersistentVolumeClaim": _volume_claim,
    "PersistentVolume": _volume,
    "PriorityClass": _priority_class,
    "StorageClass": _storage_class,
    "RoleBinding": _binding,
    "ClusterRoleBinding": _binding,
}
