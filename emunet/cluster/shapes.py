"""Objects that look different under another group version: how they are kept, and how they are shown there.

    Event                       events.k8s.io/v1             regarding, note, reportingController, deprecated...
    HorizontalPodAutoscaler     autoscaling/v1               targetCPUUtilizationPercentage
    Ingress                     networking.k8s.io/v1beta1,   backend: {serviceName, servicePort}
                                extensions/v1beta1
    EndpointSlice               discovery.k8s.io/v1beta1     topology of an endpoint

All other versions of a kind have the fields of the one that is kept.

Rule of this file: an object in, an object out, what it does not speak of untouched; nothing is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from emunet.cluster.store import Object

EVENTS = "events.k8s.io/v1"
_EVENT = {
    "involvedObject": "regarding", "message": "note", "reportingComponent": "reportingController",
    "source": "deprecatedSource", "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp", "count": "deprecatedCount",
}  # fmt: skip
"""The fields of an event by their names in the core group: what they are called in the events group."""

_HOST = "kubernetes.io/hostname"

TYPES = {
    ("Event", EVENTS): "EventV1",
    ("HorizontalPodAutoscaler", "autoscaling/v1"): "HorizontalPodAutoscalerV1",
    ("Ingress", "networking.k8s.io/v1beta1"): "",
    ("Ingress", "extensions/v1beta1"): "",
    ("CronJob", "batch/v1beta1"): "CronJob",
    ("EndpointSlice", "discovery.k8s.io/v1beta1"): "",
}
"""The type (`types.txt`) of an object under such a version, empty where none is checked."""


def kept(kind: str, version: str, item: Object) -> Object:
    """An object of a version as it is kept."""
    change = _KEPT.get((kind, version))
    return item if change is None else change(item)


def shown(kind: str, version: str, item: Object) -> Object:
    """A kept object as a version shows it, but for its `apiVersion`."""
    change = _SHOWN.get((kind, version))
    return item if change is None else change(item)


def field_of_event(path: str) -> str:
    """The path by which the core group knows a field of the events group, for selectors."""
    head, dot, rest = path.partition(".")
    names = {theirs: ours for ours, theirs in _EVENT.items()}
    return f"{names.get(head, head)}{dot}{rest}"


def _renamed(item: Object, names: Mapping[str, str]) -> Object:
    return {names.get(name, name): value for name, value in item.items()}


def _event_kept(item: Object) -> Object:
    return _renamed(item, {theirs: ours for ours, theirs in _EVENT.items()})


def _event_shown(item: Object) -> Object:
    return _renamed(item, _EVENT)


def _scaler_kept(item: Object) -> Object:
    spec = dict(item.get("spec") or {})
    share = spec.pop("targetCPUUtilizationPercentage", None)
    if share is not None:
        target = {"type": "Utilization", "averageUtilization": share}
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    return {**item, "spec": spec}


def _scaler_shown(item: Object) -> Object:
    spec = {name: value for name, value in item.get("spec", {}).items() if name not in ("metrics", "behavior")}
    for metric in item.get("spec", {}).get("metrics", ()):
        share = metric.get("resource", {}).get("target", {}).get("averageUtilization")
        if metric.get("resource", {}).get("name") == "cpu" and share is not None:
            spec["targetCPUUtilizationPercentage"] = share
    state = {name: value for name, value in item.get("status", {}).items()
             if name not in ("conditions", "currentMetrics")}  # fmt: skip
    return {**item, "spec": spec, **({"status": state} if "status" in item else {})}


def _backend_kept(backend: Any) -> Any:
    if not isinstance(backend, dict) or "serviceName" not in backend:
        return backend
    port = backend.get("servicePort")
    rest = {name: value for name, value in backend.items() if name not in ("serviceName", "servicePort")}
    named = {"number": port} if isinstance(port, int) else {"name": port}
    return {**rest, "service": {"name": backend["serviceName"], "port": named}}


def _backend_shown(backend: Any) -> Any:
    service = backend.get("service") if isinstance(backend, dict) else None
    if service is None:
        return backend
    port = service.get("port", {})
    rest = {name: value for name, value in backend.items() if name != "service"}
    return {**rest, "serviceName": service.get("name", ""), "servicePort": port.get("number", port.get("name"))}


def _ingress(item: Object, whole: tuple[str, str], backend: Callable[[Any], Any], kind: str | None) -> Object:
    """An Ingress with its backends changed; the one for all the rest is called `whole` (before, after)."""
    if not isinstance(item.get("spec"), dict):
        return item
    spec = _renamed(item["spec"], {whole[0]: whole[1]})
    if whole[1] in spec:
        spec[whole[1]] = backend(spec[whole[1]])
    rules = []
    for rule in spec.get("rules") or ():
        http = rule.get("http") if isinstance(rule, dict) else None
        if isinstance(http, dict):
            paths = [_path(one, backend, kind) for one in http.get("paths") or ()]
            rule = {**rule, "http": {**http, "paths": paths}}
        rules.append(rule)
    return {**item, "spec": {**spec, **({"rules": rules} if rules else {})}}


def _path(path: Any, backend: Callable[[Any], Any], kind: str | None) -> Any:
    if not isinstance(path, dict):
        return path
    default = {"pathType": kind} if kind else {}
    return {**default, **path, **({"backend": backend(path["backend"])} if "backend" in path else {})}


def _ingress_kept(item: Object) -> Object:
    return _ingress(item, ("backend", "defaultBackend"), _backend_kept, "ImplementationSpecific")


def _ingress_shown(item: Object) -> Object:
    return _ingress(item, ("defaultBackend", "backend"), _backend_shown, None)


def _slice(item: Object, change: Callable[[Object], Object]) -> Object:
    endpoints: Iterable[Any] = item.get("endpoints") or ()
    return {**item, "endpoints": [change(one) if isinstance(one, dict) else one for one in endpoints]}


def _endpoint_kept(endpoint: Object) -> Object:
    topology = endpoint.get("topology") or {}
    rest = {name: value for name, value in endpoint.items() if name != "topology"}
    return {**({"nodeName": topology[_HOST]} if _HOST in topology else {}), **rest}


def _endpoint_shown(endpoint: Object) -> Object:
    return {**endpoint, **({"topology": {_HOST: endpoint["nodeName"]}} if "nodeName" in endpoint else {})}


_Change = Callable[[Object], Object]

_KEPT: dict[tuple[str, str], _Change] = {
    ("Event", EVENTS): _event_kept,
    ("HorizontalPodAutoscaler", "autoscaling/v1"): _scaler_kept,
    ("Ingress", "networking.k8s.io/v1beta1"): _ingress_kept,
    ("Ingress", "extensions/v1beta1"): _ingress_kept,
    ("EndpointSlice", "discovery.k8s.io/v1beta1"): lambda item: _slice(item, _endpoint_kept),
}
_SHOWN: dict[tuple[str, str], _Change] = {
    ("Event", EVENTS): _event_shown,
    ("HorizontalPodAutoscaler", "autoscaling/v1"): _scaler_shown,
    ("Ingress", "networking.k8s.io/v1beta1"): _ingress_shown,
    ("Ingress", "extensions/v1beta1"): _ingress_shown,
    ("EndpointSlice", "discovery.k8s.io/v1beta1"): lambda item: _slice(item, _endpoint_shown),
}
