"""Services as a picture sees them: an address that no machine has, how else one gets there, and who stands behind it.

Rule of this file: of objects, as the API gives them, values in an order that depends on nothing but the objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from emunet.cluster.controllers.endpoints import SERVICE_NAME
from emunet.cluster.ranges import natural
from emunet.cluster.service_rows import ANNOUNCED_BY, API
from emunet.pictures.network import Pod, Service

Object = Mapping[str, Any]


def services(objects: Iterable[Object], slices: Iterable[Object]) -> tuple[Service, ...]:
    """Of Services and EndpointSlices; the API's own Service only where somebody stands behind it."""
    of: dict[tuple[str, str], list[Object]] = {}
    for one in slices:
        meta = one["metadata"]
        owner = meta.get("labels", {}).get(SERVICE_NAME)
        if owner:
            of.setdefault((meta["namespace"], owner), []).append(one)
    found = []
    for item in objects:
        key = item["metadata"]["namespace"], item["metadata"]["name"]
        behind = _behind(of.get(key, ()))
        if behind or key != API:
            found.append((key[0] != "default", natural(key[0]), natural(key[1]), _service(item, behind)))
    return tuple(row[-1] for row in sorted(found, key=lambda row: row[:-1]))


def _service(item: Object, behind: tuple[Pod, ...]) -> Service:
    name = _name(item["metadata"]["namespace"], item["metadata"]["name"])
    alias = item["spec"].get("type") == "ExternalName"
    return Service(name, tuple(_ways(item)), behind, "" if behind or alias else "no pod is behind it")


def _ways(item: Object) -> Iterator[tuple[str, str]]:
    """The addresses that lead there, and what each is."""
    meta, spec = item["metadata"], item["spec"]
    rows = spec.get("ports") or ()
    kind = spec.get("type", "ClusterIP")
    if kind == "ExternalName":
        yield spec["externalName"], kind
        return
    ports = _ports((port["port"], port.get("protocol", "TCP")) for port in rows)
    own = [text for text in spec.get("clusterIPs") or [spec.get("clusterIP")] if text and text != "None"]
    yield from ((_with_ports(text, ports), "ClusterIP") for text in own)
    if not own:
        yield "no address", "headless"
    local = ", Local" if spec.get("externalTrafficPolicy") == "Local" else ""
    nodes = _ports((port["nodePort"], port.get("protocol", "TCP")) for port in rows if port.get("nodePort"))
    if nodes:
        yield f"any node:{nodes}", f"NodePort{local}"
    if kind == "LoadBalancer":
        given = [
            one["ip"] for one in item.get("status", {}).get("loadBalancer", {}).get("ingress") or () if "ip" in one
        ]
        by = meta.get("annotations", {}).get(ANNOUNCED_BY, "")
        yield from ((_with_ports(text, ports), f"LoadBalancer{f' at {by}' if by else ''}{local}") for text in given)
        if not given:
            yield "pending", kind
    yield from ((_with_ports(text, ports), f"external IP{local}") for text in spec.get("externalIPs") or ())


def _behind(slices: Iterable[Object]) -> tuple[Pod, ...]:
    """The pods of all slices, each once with the addresses of both families."""
    known: dict[str, Pod] = {}
    for one in slices:
        ports = _ports((port["port"], "TCP") for port in one.get("ports") or () if port.get("port"))
        for endpoint in one.get("endpoints") or ():
            target, state = endpoint.get("targetRef") or {}, endpoint.get("conditions") or {}
            address = endpoint["addresses"][0]
            name = _name(target.get("namespace", "default"), target["name"]) if "name" in target else address
            ready = state.get("ready", True) is not False
            trouble = "ending" if state.get("terminating") else "" if ready else "not ready"
            before = known[name].addresses if name in known else ()
            known[name] = Pod(name, (*before, _with_ports(address, ports)), trouble)
    return tuple(known[name] for name in sorted(known, key=natural))


def _name(namespace: str, name: str) -> str:
    return name if namespace == "default" else f"{namespace}/{name}"


def _ports(rows: Iterable[tuple[int, str]]) -> str:
    """`80`, `53/UDP,53`: a port of TCP is a number."""
    return ",".join(dict.fromkeys(str(number) if kind == "TCP" else f"{number}/{kind}" for number, kind in rows))


def _with_ports(address: str, ports: str) -> str:
    if not ports:
        return address
    return f"[{address}]:{ports}" if ":" in address else f"{address}:{ports}"
