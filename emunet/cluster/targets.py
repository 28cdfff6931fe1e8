"""Targets: what people write when they mean somebody to reach, and where that is.

    db-1   blue/db-1   pod/db-1:5432   host2   10.244.2.3:53/udp   [fd00::1]:80
    web    svc/web:http   web.blue:80   web.default.svc.cluster.local

Rule of this file: text and objects in, values out; what cannot be found is said with what there is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from emunet.cluster.check_pods import port_name
from emunet.cluster.store import Object, View, meta
from emunet.packet.address import format_ip, parse_ip

PROTOCOLS = ("tcp", "udp", "sctp", "icmp")
PORTS_SHOWN = 4
"""Ports of a Service or a pod that are looked at where the text names none."""

_TARGET = re.compile(r"(?:\[(?P<six>[^\]]+)\]|(?P<name>[^:\[\]]+))(?::(?P<port>[^:]+))?")

_KINDS = {"pod": "pod", "pods": "pod", "node": "host", "host": "host"}
_KINDS |= dict.fromkeys(("svc", "service", "services"), "svc")

Addresses = Callable[[str], Sequence[bytes]]
"""The addresses of a pod (`blue/web-1`) or a host by its name; empty where there is none of that name."""


class UnknownTarget(LookupError):
    """Nobody is meant by the text: a sentence."""


@dataclass(frozen=True, slots=True)
class Wish:
    """The text, taken apart. `port` is a number or a name; both it and `protocol` may be missing."""

    name: str
    port: str = ""
    protocol: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a first packet goes.

    kind      `pod`, `Service`, `host` or `address`
    port      0 for ICMP, which asks for an echo
    remarks   what is worth knowing of it, a sentence each
    """

    name: str
    kind: str
    address: bytes
    protocol: str
    port: int = 0
    remarks: tuple[str, ...] = ()

    def __str__(self) -> str:
        place = format_ip(self.address)
        if self.protocol == "ICMP":
            return f"an echo request to {place}"
        return f"{self.protocol} to {f'[{place}]' if ':' in place else place}:{self.port}"


def read(text: str) -> Wish:
    """Take a text apart. ValueError where it is none."""
    head, slash, last = text.rpartition("/")
    protocol = last.lower() if slash and last.lower() in PROTOCOLS else ""
    if protocol:
        text = head
    if text.count(":") > 1 and not text.startswith("["):
        return Wish(text, protocol=protocol.upper())
    found = _TARGET.fullmatch(text)
    if found is None:
        example = "web-1, web:80, db-1:53/udp, [fd00::1]:80"
        raise ValueError(f"{text!r} is no target: write a pod, Service, host or address, like {example}")
    if protocol == "icmp" and found["port"]:
        raise ValueError(f"{text!r}: ICMP has no ports")
    return Wish(found["six"] or found["name"], found["port"] or "", protocol.upper())


def find(view: View, addresses: Addresses, text: str, namespace: str, family: int) -> list[Target]:
    """What a text means to somebody in `namespace` who has addresses of `family` bytes. UnknownTarget, ValueError."""
    wish = read(text)
    try:
        address = parse_ip(wish.name)
    except ValueError:
        pass
    else:
        return _ports_of(wish, Target(format_ip(address), "address", address, "ICMP"), ())
    kind, name = _kind(wish.name)
    if kind in ("", "pod"):
        pod = _pod(view, name, namespace)
        if pod is not None:
            return _of_pod(wish, pod, addresses, family)
    if kind in ("", "svc"):
        service = _service(view, name, namespace)
        if service is not None:
            return _of_service(view, wish, service, family)
    if kind in ("", "host") and addresses(name):
        return _ports_of(wish, Target(name, "host", _choose(addresses(name), family), "ICMP"), ())
    there = sorted({*_names(view, "pods"), *(f"svc/{one}" for one in _names(view, "services")), *_names(view, "nodes")})
    more = f" and {len(there) - 12} more" if len(there) > 12 else ""
    raise UnknownTarget(f"there is no pod, Service, host or address {text}; there are: {', '.join(there[:12])}{more}")


def _names(view: View, resource: str) -> Iterator[str]:
    for item in view.select(resource):
        yield port_name(meta(item).get("namespace", "default"), meta(item)["name"])


def _kind(name: str) -> tuple[str, str]:
    kind, slash, rest = name.partition("/")
    return (_KINDS[kind], rest) if slash and kind in _KINDS else ("", name)


def _choose(found: Sequence[bytes], family: int) -> bytes:
    return next((one for one in found if len(one) == family), found[0])


# Pods


def _pod(view: View, name: str, namespace: str) -> Object | None:
    space, slash, rest = name.rpartition("/")
    if slash:
        return view.get("pods", space, rest)
    return view.get("pods", namespace, name) or view.get("pods", "default", name)


def _of_pod(wish: Wish, pod: Object, addresses: Addresses, family: int) -> list[Target]:
    name = port_name(meta(pod)["namespace"], meta(pod)["name"])
    found = addresses(name)
    if not found and pod["spec"].get("hostNetwork"):
        found = addresses(pod["spec"].get("nodeName", ""))
    if not found:
        raise UnknownTarget(f"the pod {name} has no address: it is {pod.get('status', {}).get('phase', 'Pending')}")
    declared = [port for one in pod["spec"]["containers"] for port in one.get("ports", ())]
    return _ports_of(wish, Target(name, "pod", _choose(found, family), "ICMP"), declared)


def _ports_of(wish: Wish, target: Target, declared: Sequence[Object]) -> list[Target]:
    """The target at the port that is meant, else at those that a pod declares, else by an echo."""

    def at(protocol: str, port: int, *remarks: str) -> Target:
        return Target(target.name, target.kind, target.address, protocol, port, (*target.remarks, *remarks))

    if wish.protocol == "ICMP" or (not wish.port and not declared):
        if wish.protocol not in ("", "ICMP"):
            raise ValueError(f"say which port: {target.name}:PORT/{wish.protocol.lower()}")
        return [at("ICMP", 0)]
    if not wish.port:
        found = [one for one in declared if wish.protocol in ("", one.get("protocol", "TCP"))]
        return [at(one.get("protocol", "TCP"), one["containerPort"]) for one in found[:PORTS_SHOWN]]
    if not wish.port.isdigit():
        for one in declared:
            if one.get("name") == wish.port and wish.protocol in ("", one.get("protocol", "TCP")):
                return [at(one.get("protocol", "TCP"), one["containerPort"])]
        names = ", ".join(one["name"] for one in declared if one.get("name")) or "none"
        raise UnknownTarget(f"{target.name} has no port called {wish.port}; it has: {names}")
    port = int(wish.port)
    if not 0 < port < 65536:
        raise ValueError(f"{port} is no port: expected 1 to 65535")
    protocols = [one.get("protocol", "TCP") for one in declared if one["containerPort"] == port]
    protocol = wish.protocol or (protocols[0] if protocols else "TCP")
    if target.kind == "pod" and protocol not in protocols:
        remark = f"{target.name} declares no port {port}/{protocol}: whether something listens there is its own affair."
        return [at(protocol, port, remark)]
    return [at(protocol, port)]


# Services


def _service(view: View, name: str, namespace: str) -> Object | None:
    labels = name.removesuffix(".").split(".")
    space, slash, rest = name.rpartition("/")
    if slash:
        return view.get("services", space, rest)
    if len(labels) == 1:
        return view.get("services", namespace, name)
    if labels[2:] not in ([], ["svc"], ["svc", "cluster", "local"]):
        return None
    return view.get("services", labels[1], labels[0])


def _of_service(view: View, wish: Wish, service: Object, family: int) -> list[Target]:
    spec, name = service["spec"], f"{meta(service)['namespace']}/{meta(service)['name']}"
    if spec.get("type") == "ExternalName":
        raise UnknownTarget(f"the Service {name} is another name for {spec.get('externalName')}: explain that")
    ports = list(spec.get("ports", ()))
    if wish.port:
        ports = [one for one in ports if wish.port in (str(one["port"]), one.get("name"))]
    if wish.protocol:
        ports = [one for one in ports if one.get("protocol", "TCP") == wish.protocol]
    if not ports:
        asked = "/".join(filter(None, (wish.port, wish.protocol))) or "at all"
        there = ", ".join(f"{one['port']}/{one.get('protocol', 'TCP')}" for one in spec.get("ports", ())) or "none"
        raise UnknownTarget(f"the Service {name} has no port {asked}; it has: {there}")
    found = _given(service)
    if found:
        address = _choose(found, family)
        return [
            Target(name, "Service", address, one.get("protocol", "TCP"), one["port"]) for one in ports[:PORTS_SHOWN]
        ]
    return list(_headless(view, service, name, ports))[:PORTS_SHOWN]


def cluster_addresses(view: View) -> dict[str, list[bytes]]:
    """The ClusterIPs of each Service that has any, by its name (`blue/web` outside `default`)."""
    found = {port_name(meta(one)["namespace"], meta(one)["name"]): _given(one) for one in view.select("services")}
    return {name: addresses for name, addresses in found.items() if addresses}


def _given(service: Object) -> list[bytes]:
    """Its ClusterIPs; none where it is headless, or another name for something else."""
    spec = service["spec"]
    return [parse_ip(one) for one in spec.get("clusterIPs", [spec.get("clusterIP", "None")]) if one not in ("None", "")]


def _headless(view: View, service: Object, name: str, ports: list[Any]) -> Iterator[Target]:
    endpoints = view.get("endpoints", meta(service)["namespace"], meta(service)["name"])
    rows = [
        (address["ip"], port)
        for subset in (endpoints or {}).get("subsets", ())
        for address in subset.get("addresses", ())
        for port in subset.get("ports", ())
    ]
    wanted = {one.get("name", "") for one in ports}
    for address, port in rows:
        if port.get("name", "") in wanted:
            remark = f"{name} is headless: its name means the addresses of its endpoints, and this is one of them."
            yield Target(name, "Service", parse_ip(address), port.get("protocol", "TCP"), port["port"], (remark,))
    if not rows:
        raise UnknownTarget(f"the Service {name} is headless and has no ready endpoint: its name means no address")
