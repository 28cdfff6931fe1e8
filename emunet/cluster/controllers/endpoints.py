"""Endpoints and EndpointSlices: which pods, on which ports, are behind a Service.

A pod is behind a Service that selects it while it is ready (or always, with
`publishNotReadyAddresses`); one that is ending leaves at once. A target port that has a name is looked
up in each pod by itself. Addresses that a person wrote into Endpoints are mirrored into slices.

Rule of this file: both forms say the same, from one list of addresses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from emunet.cluster import selectors
from emunet.cluster.controllers.actions import NOTHING, Action, Create, Delete, Outcome, Watch, Write, itself
from emunet.cluster.controllers.pods import is_finished, is_ready, is_terminating
from emunet.cluster.ranges import natural
from emunet.cluster.store import Change, Key, Object, View, labels_of, meta

SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
PER_SLICE = 100
_OURS = "endpointslice-controller.k8s.io"
_MIRROR = "endpointslicemirroring-controller.k8s.io"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One pod behind a Service, by one of its addresses."""

    address: str
    pod: Object
    ports: tuple[tuple[str, int, str], ...]
    ready: bool
    serving: bool
    terminating: bool


def _of_pod(view: View, change: Change) -> Iterator[Key]:
    namespace = meta(change.item)["namespace"]
    for service in view.items("services", namespace):
        selector = service["spec"].get("selector")
        if not selector:
            continue
        wanted = selectors.of_map(selector)
        for item in (change.item, change.before):
            if item is not None and wanted.matches(labels_of(item)):
                yield Key("services", namespace, meta(service)["name"])
                break


def _of_endpoints(view: View, change: Change) -> Iterator[Key]:
    yield Key("services", meta(change.item)["namespace"], meta(change.item)["name"])


def _of_slice(view: View, change: Change) -> Iterator[Key]:
    name = labels_of(change.item).get(SERVICE_NAME)
    if name:
        yield Key("services", meta(change.item)["namespace"], name)


class EndpointsOf:
    """Keeps Endpoints and EndpointSlices as the pods are."""

    name = "endpoint-controller"

    def __init__(self) -> None:
        self.watches: Mapping[str, Watch] = {
            "services": itself,
            "pods": _of_pod,
            "endpoints": _of_endpoints,
            "endpointslices.discovery.k8s.io": _of_slice,
        }

    def step(self, view: View, key: Key, now: int) -> Outcome:
        """Write what is behind the Service."""
        service = view.at(key)
        if service is None or is_terminating(service):
            return Outcome(tuple(_removals(view, key)))
        if service["spec"].get("type") == "ExternalName":
            return NOTHING
        if not service["spec"].get("selector"):
            written = view.get("endpoints", key.namespace, key.name)
            wanted = _mirrored(service, written) if written is not None else {}
            return Outcome(tuple(_slices(view, service, wanted, _MIRROR)))
        found = _behind(view, service)
        actions = _endpoints(view, service, found)
        actions += _slices(view, service, _sliced(service, found), _OURS)
        return Outcome(tuple(actions))


def _behind(view: View, service: Object) -> list[Endpoint]:
    """Every pod that the Service selects and that has an address, by name."""
    spec = service["spec"]
    wanted = selectors.of_map(spec["selector"])
    always = spec.get("publishNotReadyAddresses", False)
    found = []
    pods = (pod for pod in view.items("pods", meta(service)["namespace"]) if wanted.matches(labels_of(pod)))
    for pod in sorted(pods, key=lambda pod: natural(meta(pod)["name"])):
        if is_finished(pod):
            continue
        ports = []
        for port in spec.get("ports", ()):
            number = target_port(pod, port)
            if number is not None:
                ports.append((port.get("name", ""), number, port.get("protocol", "TCP")))
        if spec.get("ports") and not ports:
            continue
        serving, ending = is_ready(pod), is_terminating(pod)
        for one in pod.get("status", {}).get("podIPs", ()):
            ready = always or (serving and not ending)
            found.append(Endpoint(one["ip"], pod, tuple(ports), ready, serving, ending))
    return found


def target_port(pod: Object, port: Object) -> int | None:
    """The number that a Service's target port has in a pod; None where the pod knows no port of that name."""
    target = port.get("targetPort", port.get("port"))
    if isinstance(target, int):
        return target
    for container in pod["spec"].get("containers", ()):
        for one in container.get("ports", ()):
            if one.get("name") == target and one.get("protocol", "TCP") == port.get("protocol", "TCP"):
                return int(one["containerPort"])
    return None


def _target(pod: Object) -> Object:
    return {"kind": "Pod", "namespace": meta(pod)["namespace"], "name": meta(pod)["name"], "uid": meta(pod)["uid"]}


def _named(service: Object, **metadata: Any) -> Object:
    labels = {**labels_of(service)}
    if service["spec"].get("clusterIP") == "None":
        labels["service.kubernetes.io/headless"] = ""
    return {"namespace": meta(service)["namespace"], "labels": labels, **metadata}


def _endpoints(view: View, service: Object, found: list[Endpoint]) -> list[Action]:
    family = service["spec"].get("ipFamilies", ["IPv4"])[:1] or ["IPv4"]
    groups: dict[tuple[tuple[str, int, str], ...], dict[str, list[Object]]] = {}
    for one in found:
        if (":" in one.address) != (family[0] == "IPv6") or (one.terminating and not one.ready):
            continue
        address: Object = {"ip": one.address, "targetRef": _target(one.pod)}
        if one.pod["spec"].get("nodeName"):
            address["nodeName"] = one.pod["spec"]["nodeName"]
        if one.pod["spec"].get("hostname") and one.pod["spec"].get("subdomain") == meta(service)["name"]:
            address["hostname"] = one.pod["spec"]["hostname"]
        groups.setdefault(one.ports, {}).setdefault("addresses" if one.ready else "notReadyAddresses", []).append(
            address
        )
    subsets = []
    for ports, addresses in sorted(groups.items()):
        subset: Object = {name: addresses[name] for name in ("addresses", "notReadyAddresses") if name in addresses}
        if ports:
            subset["ports"] = [
                {**({"name": name} if name else {}), "port": number, "protocol": protocol}
                for name, number, protocol in ports
            ]
        subsets.append(subset)
    name = meta(service)["name"]
    old = view.get("endpoints", meta(service)["namespace"], name)
    wanted: Object = {"apiVersion": "v1", "kind": "Endpoints", "metadata": _named(service, name=name)}
    if subsets:
        wanted["subsets"] = subsets
    if old is None:
        return [Create(wanted)]
    if old.get("subsets", []) != subsets or labels_of(old) != meta(wanted)["labels"]:
        kept = {**meta(old), "labels": meta(wanted)["labels"]}
        return [Write({**wanted, "metadata": kept})]
    return []


def _sliced(service: Object, found: list[Endpoint]) -> dict[str, Object]:
    """The wanted slices by name: one for each family and set of ports, of a hundred endpoints at most."""
    groups: dict[tuple[str, tuple[tuple[str, int, str], ...]], list[Object]] = {}
    for one in found:
        family = "IPv6" if ":" in one.address else "IPv4"
        if family not in service["spec"].get("ipFamilies", ["IPv4"]):
            continue
        endpoint: Object = {
            "addresses": [one.address],
            "conditions": {"ready": one.ready, "serving": one.serving, "terminating": one.terminating},
            "targetRef": _target(one.pod),
        }
        if one.pod["spec"].get("nodeName"):
            endpoint["nodeName"] = one.pod["spec"]["nodeName"]
        if one.pod["spec"].get("hostname") and one.pod["spec"].get("subdomain") == meta(service)["name"]:
            endpoint["hostname"] = one.pod["spec"]["hostname"]
        groups.setdefault((family, one.ports), []).append(endpoint)
    if not groups:
        groups = {("IPv4" if "IPv6" not in service["spec"].get("ipFamilies", [])[:1] else "IPv6", ()): []}
    return _as_slices(service, groups)


def _mirrored(service: Object, written: Object) -> dict[str, Object]:
    groups: dict[tuple[str, tuple[tuple[str, int, str], ...]], list[Object]] = {}
    for subset in written.get("subsets", ()):
        ports = tuple((p.get("name", ""), p["port"], p.get("protocol", "TCP")) for p in subset.get("ports", ()))
        for group, ready in (("addresses", True), ("notReadyAddresses", False)):
            for address in subset.get(group, ()):
                family = "IPv6" if ":" in address["ip"] else "IPv4"
                endpoint: Object = {"addresses": [address["ip"]], "conditions": {"ready": ready}}
                for name in ("targetRef", "nodeName", "hostname"):
                    if name in address:
                        endpoint[name] = address[name]
                groups.setdefault((family, ports), []).append(endpoint)
    return _as_slices(service, groups)


def _as_slices(
    service: Object, groups: Mapping[tuple[str, tuple[tuple[str, int, str], ...]], list[Object]]
) -> dict[str, Object]:
    wanted: dict[str, Object] = {}
    for (family, ports), endpoints in sorted(groups.items(), key=lambda group: group[0]):
        for start in range(0, max(1, len(endpoints)), PER_SLICE):
            name = f"{meta(service)['name']}-{len(wanted)}"
            wanted[name] = {
                "addressType": family,
                "endpoints": endpoints[start : start + PER_SLICE],
                "ports": [{"name": one, "port": number, "protocol": protocol} for one, number, protocol in ports],
            }
    return wanted


def _slices(view: View, service: Object, wanted: dict[str, Object], manager: str) -> list[Action]:
    """What makes the slices of a Service into the wanted ones; those that others manage are left alone."""
    resource = "endpointslices.discovery.k8s.io"
    namespace = meta(service)["namespace"]
    mine = [one for one in view.owned_by(meta(service)["uid"], resource) if labels_of(one).get(MANAGED_BY) == manager]
    there = dict(enumerate(mine))
    actions: list[Action] = []
    owner = {
        "apiVersion": "v1", "kind": "Service", "name": meta(service)["name"], "uid": meta(service)["uid"],
        "controller": True, "blockOwnerDeletion": True,
    }  # fmt: skip
    for index, content in enumerate(wanted.values()):
        labels = {SERVICE_NAME: meta(service)["name"], MANAGED_BY: manager}
        old = there.pop(index, None)
        if old is not None and old["addressType"] != content["addressType"]:
            actions.append(Delete(Key(resource, namespace, meta(old)["name"])))
            old = None
        metadata = _named(service, ownerReferences=[owner])
        metadata["labels"] |= labels
        item: Object = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata, **content}
        if old is None:
            metadata["generateName"] = f"{meta(service)['name']}-"
            actions.append(Create(item))
        elif any(old.get(name) != content[name] for name in content) or labels_of(old) != metadata["labels"]:
            actions.append(Write({**item, "metadata": {**meta(old), "labels": metadata["labels"]}}))
    return actions + [Delete(Key(resource, namespace, meta(old)["name"])) for old in there.values()]


def _removals(view: View, key: Key) -> Iterator[Action]:
    if view.get("endpoints", key.namespace, key.name) is not None:
        yield Delete(Key("endpoints", key.namespace, key.name))
    for item in view.items("endpointslices.discovery.k8s.io", key.namespace):
        if labels_of(item).get(SERVICE_NAME) == key.name and labels_of(item).get(MANAGED_BY) in (_OURS, _MIRROR):
            yield Delete(Key("endpointslices.discovery.k8s.io", key.namespace, meta(item)["name"]))
