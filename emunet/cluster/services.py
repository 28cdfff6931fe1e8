"""Addresses and ports that Services are given: ClusterIPs and NodePorts.

A dynamic ClusterIP comes from the upper part of the service range, so that the lower band
stays free for those that people fix (virtual IPs page of Kubernetes: min(max(16, size/16), 256)
addresses). The first address is that of the Service `kubernetes`.

Rule of this file: what is taken is read from the objects themselves; nothing is remembered
beside them. Which address is next is a hash of the seed and the Service's name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from emunet.cluster import status
from emunet.cluster.store import Object, View, meta
from emunet.cluster.validate.causes import duplicate, wrong
from emunet.cluster.validate.network import is_checked
from emunet.packet.address import Prefix, format_ip, parse_ip

NODE_PORTS = range(30000, 32768)

_ANY = (Prefix.parse("0.0.0.0/0"), Prefix.parse("::/0"))


def reserve(view: View, ranges: Sequence[Prefix], item: Object, old: Object | None = None) -> Object:
    """The Service with the ClusterIPs and NodePorts that it needs. StatusError where it asks for what is taken."""
    spec: dict[str, Any] = dict(item["spec"])
    if spec.get("type") == "ExternalName":
        return item
    taken, ports = _taken(view, item)
    kind = view.kind("services")
    name = meta(item).get("name", "")
    prefixes, spec["ipFamilyPolicy"] = _families(view, ranges, item)
    if spec.get("clusterIP") == "None":
        spec["clusterIPs"] = ["None"]
    else:
        spec |= _addresses(view, prefixes, item, spec, taken)
    spec["ipFamilies"] = [_family(len(prefix.address)) for prefix in prefixes]
    if spec.get("type") in ("NodePort", "LoadBalancer"):
        spec["ports"] = [dict(port) for port in spec.get("ports", ())]
        for index, port in enumerate(spec["ports"]):
            wanted, protocol = port.get("nodePort"), port.get("protocol", "TCP")
            field = f"spec.ports[{index}].nodePort"
            if wanted:
                if wanted not in NODE_PORTS:
                    why = "provided port is not in the valid range. The range of valid ports is 30000-32767"
                    raise status.invalid(kind, name, [wrong(field, wanted, why)])
                if (wanted, protocol) in ports:
                    why = "provided port is already allocated"
                    raise status.invalid(kind, name, [wrong(field, wanted, why)])
            else:
                port["nodePort"] = _free_port(view, item, index, protocol, ports)
            ports.add((port["nodePort"], protocol))
    if is_checked(spec):
        field, wanted = "spec.healthCheckNodePort", spec.get("healthCheckNodePort")
        spec["healthCheckNodePort"] = wanted or _free_port(view, item, "health", "TCP", ports)
        if wanted and wanted not in NODE_PORTS:
            why = "provided port is not in the valid range. The range of valid ports is 30000-32767"
            raise status.invalid(kind, name, [wrong(field, wanted, why)])
        if (wanted, "TCP") in ports:
            raise status.invalid(kind, name, [wrong(field, wanted, "provided port is already allocated")])
    return {**item, "spec": spec}


def release_unwanted(item: Object) -> Object:
    """The Service without NodePorts that its type has no use for (it was of another type before)."""
    spec = item["spec"]
    if spec.get("type") in ("NodePort", "LoadBalancer"):
        return item
    plain = [{key: value for key, value in port.items() if key != "nodePort"} for port in spec.get("ports", ())]
    changed = {**spec, "ports": plain} if plain else dict(spec)
    if spec.get("type") == "ExternalName":
        for name in ("clusterIP", "clusterIPs"):
            changed.pop(name, None)
    return {**item, "spec": changed}


def _taken(view: View, item: Object) -> tuple[set[str], set[tuple[int, str]]]:
    """The addresses and node ports of all other Services."""
    own = (meta(item).get("namespace"), meta(item).get("name"))
    addresses: set[str] = set()
    ports: set[tuple[int, str]] = set()
    for other in view.items("services"):
        if (meta(other)["namespace"], meta(other)["name"]) == own:
            continue
        addresses.update(other["spec"].get("clusterIPs", ()))
        for port in other["spec"].get("ports", ()):
            if port.get("nodePort"):
                ports.add((port["nodePort"], port.get("protocol", "TCP")))
        if other["spec"].get("healthCheckNodePort"):
            ports.add((other["spec"]["healthCheckNodePort"], "TCP"))
    return addresses, ports


def _family(size: int) -> str:
    return "IPv4" if size == 4 else "IPv6"


def _fixed(spec: Object) -> list[str]:
    """The ClusterIPs that a Service asks for."""
    return [text for text in spec.get("clusterIPs") or [spec.get("clusterIP")] if text]


def _families(view: View, ranges: Sequence[Prefix], item: Object) -> tuple[list[Prefix], str]:
    """The ranges of the families that a Service is of, in its order, and its policy."""
    spec, kind, name = item["spec"], view.kind("services"), meta(item).get("name", "")
    headless = spec.get("clusterIP") == "None"
    fixed = [] if headless else _fixed(spec)
    asked = spec.get("ipFamilies") or [_family(len(parse_ip(text))) for text in fixed]
    both = len(asked) > 1 or (headless and not spec.get("selector"))
    policy = spec.get("ipFamilyPolicy") or ("RequireDualStack" if both else "SingleStack")
    mine = {_family(len(prefix.address)): prefix for prefix in ranges}
    if headless and not spec.get("selector"):  # whoever writes its endpoints may write of either family
        mine.setdefault("IPv4", _ANY[0])
        mine.setdefault("IPv6", _ANY[1])
    if policy == "PreferDualStack":
        asked = [family for family in asked if family in mine]
    for index, family in enumerate(asked):
        field = f"spec.ipFamilies[{index}]"
        if family not in mine:
            why = f"not configured on this cluster, whose Services are of {' and '.join(mine)}"
            raise status.invalid(kind, name, [wrong(field, family, why)])
        if family in asked[:index]:
            raise status.invalid(kind, name, [duplicate(field, family)])
    order = [*asked, *(family for family in mine if family not in asked)]
    if policy == "SingleStack":
        order = order[:1]
    elif policy == "RequireDualStack" and len(mine) < 2:
        why = "this cluster is not configured for dual-stack services"
        raise status.invalid(kind, name, [wrong("spec.ipFamilyPolicy", policy, why)])
    return [mine[family] for family in order], policy


def _addresses(view: View, prefixes: Sequence[Prefix], item: Object, spec: Object, taken: set[str]) -> dict[str, Any]:
    """An address of each range, those that are asked for first. StatusError where one cannot be had."""
    kind, name = view.kind("services"), meta(item).get("name", "")
    fixed = _fixed(spec)
    found = []
    for prefix in prefixes:
        wanted = next((text for text in fixed if len(parse_ip(text)) == len(prefix.address)), None)
        if wanted is None:
            found.append(_free_address(view, prefix, item, taken))
            continue
        if not prefix.contains(parse_ip(wanted)):
            why = (
                f"failed to allocate IP {wanted}: the provided IP ({wanted}) is not in the valid range. "
                f"The range of valid IPs is {prefix}"
            )
            raise status.invalid(kind, name, [wrong("spec.clusterIPs", [wanted], why)])
        if wanted in taken:
            why = f"failed to allocate IP {wanted}: provided IP is already allocated"
            raise status.invalid(kind, name, [wrong("spec.clusterIPs", [wanted], why)])
        found.append(wanted)
    return {"clusterIP": found[0], "clusterIPs": found}


def _spin(view: View, item: Object, what: object, size: int) -> Iterator[int]:
    """The numbers below `size`, beginning at one that follows from the seed and the Service's name."""
    text = f"{view.seed}/{meta(item).get('namespace')}/{meta(item).get('name')}/{what}"
    start = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % size
    yield from ((start + step) % size for step in range(size))


def _free_address(view: View, prefix: Prefix, item: Object, taken: set[str]) -> str:
    size = min(prefix.size, 1 << 16)
    band = min(max(16, size // 16), 256) if size > 32 else 0
    for low, high in ((band, size - 1), (2, band)):
        for offset in _spin(view, item, prefix, high - low) if high > low else ():
            text = format_ip(prefix.nth(low + offset))
            if text not in taken:
                return text
    raise status.StatusError(500, "InternalError", f"failed to allocate a serviceIP: range {prefix} is full")


def _free_port(view: View, item: Object, index: int | str, protocol: str, taken: set[tuple[int, str]]) -> int:
    for offset in _spin(view, item, index, len(NODE_PORTS)):
        if (NODE_PORTS[offset], protocol) not in taken:
            return NODE_PORTS[offset]
    raise status.StatusError(500, "InternalError", "failed to allocate a nodePort: range is full")
