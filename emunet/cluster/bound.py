"""From stored pods to wanted pods: what of a Pod object a lab builds.

Only pods that are bound to a host that is there, and not over, are built. A container's environment is
worked out here, because it speaks of other objects: config maps, secrets, Services, the pod itself.

Rule of this file: objects in, values out; what a pod refers to and is not there is left out, as an
optional reference is (`lacking` tells of those that are not).
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from emunet.cluster import pod_files
from emunet.cluster.controllers.pods import is_finished, is_terminating
from emunet.cluster.desired import Cluster, Container, ContainerPort, Pod
from emunet.cluster.objects import IP_ANNOTATION, MAC_ANNOTATION
from emunet.cluster.quantities import MACHINE, whole
from emunet.cluster.ranges import natural
from emunet.cluster.schema import unicast_mac
from emunet.cluster.store import Object, View, controller_of, labels_of, meta
from emunet.packet.address import is_unspecified, parse_ip

Addresses = Callable[[Object], tuple[str, ...]]
"""The addresses that a pod has by now, as text."""


def bound_pods(view: View, cluster: Cluster, silent: Iterable[str] = ()) -> tuple[Pod, ...]:
    """The pods that are to be in the lab, by namespace and name; of hosts that are `silent` none
    that were asked to end: nobody there hears of it, and what comes back with the host is over.

    A pod that is over leaves the lab where a controller manages it; one that a person made stays, to be looked into.
    """
    dead = set(silent)
    found = [
        pod_of(view, item, cluster.dns.domain)
        for host in [host.name for host in cluster.nodes]
        for item in view.pods_on(host)
        if not (is_finished(item) and controller_of(item) is not None)
        and not (host in dead and is_terminating(item))
    ]  # fmt: skip
    return tuple(sorted(found, key=lambda pod: (natural(pod.namespace), natural(pod.name))))


def pod_of(view: View, item: Object, domain: str) -> Pod:
    """A stored pod as the lab builds it; `domain` is the cluster's."""
    found, spec = meta(item), item["spec"]
    annotations = found.get("annotations", {})
    mac = annotations.get(MAC_ANNOTATION)
    addresses = annotations.get(IP_ANNOTATION)
    return Pod(
        namespace=found["namespace"],
        name=found["name"],
        host=spec["nodeName"],
        containers=tuple(_container(view, item, one) for one in spec["containers"]),
        hostname=pod_files.host_name(item),
        restart_policy=spec.get("restartPolicy", "Always"),
        host_network=spec.get("hostNetwork", False),
        labels=tuple(sorted(labels_of(item).items())),
        annotations=tuple(sorted(annotations.items())),
        mac=unicast_mac(mac) if mac else None,
        addresses=tuple(sorted((parse_ip(one.strip()) for one in addresses.split(",")), key=len)) if addresses else (),
        uid=found["uid"],
        full_name=pod_files.machine_name(item, domain) if spec.get("setHostnameAsFQDN") else "",
    )


def _host_address(text: str) -> bytes | None:
    """The one address on which a hostPort is open; None: all of them."""
    return parse_ip(text) if text and not is_unspecified(parse_ip(text)) else None


def _container(view: View, pod: Object, container: Object) -> Container:
    return Container(
        name=container["name"],
        image=container["image"],
        command=tuple(container.get("command", ())),
        args=tuple(container.get("args", ())),
        environment=tuple((one["name"], one.get("value", "")) for one in container.get("env", ())),
        ports=tuple(
            ContainerPort(
                port["containerPort"],
                port.get("protocol", "TCP"),
                port.get("name", ""),
                port.get("hostPort", 0),
                _host_address(port.get("hostIP", "")),
            )
            for port in container.get("ports", ())
        ),
        working_directory=container.get("workingDir", ""),
    )


# The environment of a container


def environment(view: View, pod: Object, container: Object) -> dict[str, str]:
    """The variables that a container starts with: of Services, then `envFrom`, then `env`; `$(NAME)` is filled in."""
    variables = dict(service_variables(view, pod))
    for source in container.get("envFrom", ()):
        prefix = source.get("prefix", "")
        for key, value in _data_of(view, pod, source).items():
            variables[prefix + key] = value
    for one in container.get("env", ()):
        if "valueFrom" in one:
            found = _value_from(view, pod, container, one["valueFrom"])
            if found is not None:
                variables[one["name"]] = found
        else:
            variables[one["name"]] = expand(one.get("value", ""), variables)
    return variables


def expand(text: str, variables: Mapping[str, str]) -> str:
    """`$(NAME)` becomes the variable's value where there is one, `$$(NAME)` stays `$(NAME)`."""
    result, position = "", 0
    while (dollar := text.find("$", position)) >= 0:
        result += text[position:dollar]
        if text.startswith("$$", dollar):
            result, position = result + "$", dollar + 2
            continue
        end = text.find(")", dollar)
        name = text[dollar + 2 : end] if text.startswith("$(", dollar) and end > 0 else None
        if name is not None and name in variables:
            result, position = result + variables[name], end + 1
        else:
            result, position = result + "$", dollar + 1
    return result + text[position:]


def service_variables(view: View, pod: Object) -> Iterator[tuple[str, str]]:
    """NAME_SERVICE_HOST and its relatives, for each Service with an address in the pod's namespace."""
    namespace = meta(pod)["namespace"]
    services = list(view.select("services", namespace)) if pod["spec"].get("enableServiceLinks", True) else []
    kubernetes = view.get("services", "default", "kubernetes")
    if kubernetes is not None and not any(meta(one)["name"] == "kubernetes" for one in services):
        services.append(kubernetes)
    for service in services:
        address = service["spec"].get("clusterIP", "None")
        ports = service["spec"].get("ports", ())
        if address in ("None", "") or not ports:
            continue
        name = meta(service)["name"].upper().replace("-", "_")
        host = f"[{address}]" if ":" in address else address
        yield f"{name}_SERVICE_HOST", address
        yield f"{name}_SERVICE_PORT", str(ports[0]["port"])
        for port in ports:
            if port.get("name"):
                yield f"{name}_SERVICE_PORT_{port['name'].upper().replace('-', '_')}", str(port["port"])
        first = ports[0]
        yield f"{name}_PORT", f"{first['protocol'].lower()}://{host}:{first['port']}"
        for port in ports:
            prefix, protocol = f"{name}_PORT_{port['port']}_{port['protocol']}", port["protocol"].lower()
            yield prefix, f"{protocol}://{host}:{port['port']}"
            yield f"{prefix}_PROTO", protocol
            yield f"{prefix}_PORT", str(port["port"])
            yield f"{prefix}_ADDR", address


def data_of(view: View, resource: str, namespace: str, name: str) -> dict[str, bytes]:
    """What a config map or a secret holds; nothing where there is none of that name."""
    item = view.get(resource, namespace, name)
    if item is None:
        return {}
    if resource == "secrets":
        return {key: base64.b64decode(text) for key, text in item.get("data", {}).items()}
    binary = {key: base64.b64decode(text) for key, text in item.get("binaryData", {}).items()}
    return {key: text.encode() for key, text in item.get("data", {}).items()} | binary


def field_of(pod: Object, path: str) -> str | None:
    """What the downward API calls a field: `metadata.name`, `status.podIP`, `metadata.labels['app']`."""
    head, _, key = path.partition("['")
    if key:
        value = meta(pod).get(head.removeprefix("metadata."), {}).get(key.removesuffix("']"))
        return None if value is None else str(value)
    found: Any = pod
    for step in path.split("."):
        found = found.get(step) if isinstance(found, dict) else None
    if isinstance(found, list):  # status.podIPs
        return ",".join(str(one.get("ip", "")) for one in found)
    if isinstance(found, dict):
        return "\n".join(f'{name}="{text}"' for name, text in sorted(found.items()))
    return None if found is None else str(found)


_WHOLE = (("configMapRef", "configmaps"), ("secretRef", "secrets"))
_KEY = (("configMapKeyRef", "configmaps"), ("secretKeyRef", "secrets"))
"""How variables refer to config maps and secrets, whole or by a key, and the resources that these are."""


def resource_of(container: Object, reference: Object) -> str:
    """What the downward API says of a container's resources: in units, or in what its divisor says, rounded up."""
    group, _, name = reference.get("resource", "").partition(".")
    otherwise = MACHINE.get(name, "0") if group == "limits" else "0"
    value = container.get("resources", {}).get(group, {}).get(name, otherwise)
    return str(whole(str(value), str(reference.get("divisor", ""))))


def lacking(view: View, pod: Object, container: Object) -> str | None:
    """What a container's variables refer to that is not there and not optional: a kubelet's sentence."""
    namespace = meta(pod)["namespace"]
    for source in container.get("envFrom", ()):
        for field, resource in _WHOLE:
            if field in source and not source[field].get("optional"):
                why = lacking_data(view, resource, namespace, source[field].get("name", ""))
                if why is not None:
                    return why
    for one in container.get("env", ()):
        for field, resource in _KEY:
            wanted = one.get("valueFrom", {}).get(field)
            if wanted is not None and not wanted.get("optional"):
                why = lacking_data(view, resource, namespace, wanted.get("name", ""), wanted.get("key"))
                if why is not None:
                    return why
    return None


def lacking_data(view: View, resource: str, namespace: str, name: str, key: str | None = None) -> str | None:
    """Why a config map or secret (`resource`), or a key of it, cannot be had; None where it can."""
    kind = view.kind(resource).name
    if view.get(resource, namespace, name) is None:
        return f'{kind.lower()} "{name}" not found'
    if key is not None and key not in data_of(view, resource, namespace, name):
        return f"couldn't find key {key} in {kind} {namespace}/{name}"
    return None


def _data_of(view: View, pod: Object, source: Object) -> dict[str, str]:
    namespace = meta(pod)["namespace"]
    for field, resource in _WHOLE:
        if field in source:
            found = data_of(view, resource, namespace, source[field].get("name", ""))
            return {key: value.decode(errors="replace") for key, value in found.items()}
    return {}


def _value_from(view: View, pod: Object, container: Object, source: Object) -> str | None:
    if "fieldRef" in source:
        return field_of(pod, source["fieldRef"]["fieldPath"])
    if "resourceFieldRef" in source:
        return resource_of(container, source["resourceFieldRef"])
    for field, resource in _KEY:
        if field in source:
            found = data_of(view, resource, meta(pod)["namespace"], source[field].get("name", ""))
            value = found.get(source[field]["key"])
            return None if value is None else value.decode(errors="replace")
    return None
