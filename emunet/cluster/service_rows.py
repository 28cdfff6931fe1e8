"""Services as hosts carry them out: of Service and EndpointSlice objects, the rows of the data plane.

What kube-proxy does not look at has no row: headless Services and those of type ExternalName,
and those that a label leaves to another proxy (SVC-38). A port of SCTP has none either: connections
of SCTP are not told apart by their ports here.

The Service `kubernetes` alone, which every cluster has, makes no host track connections: it has a
row only where there are other Services too, or endpoints of its own.

Rule of this file: `rows_of` is a function of objects; `ServiceRows` remembers what it gave for objects
that have not changed, and gives the same rows as if it had remembered nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from emunet.cluster.controllers.endpoints import SERVICE_NAME
from emunet.cluster.ranges import natural
from emunet.cluster.store import Change, Object, View, labels_of, meta
from emunet.fabric.config import Backend, ServicePort
from emunet.packet.address import Prefix, parse_ip

PROTOCOLS = {"TCP": 6, "UDP": 17}
"""Protocol numbers by the names that Kubernetes gives them."""

SECOND = 1_000_000_000
SLICES = "endpointslices.discovery.k8s.io"
LEFT_TO_OTHERS = ("service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless")
AFFINITY_SECONDS = 10800
ANNOUNCED_BY = "emunet/announced-by"
"""The annotation of a Service that says which host answers for the addresses of its load balancer."""


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """A Service of which hosts tell on a port how many of its endpoints are ready there: (node, how many) of each
    that has any.
    """

    namespace: str
    service: str
    port: int
    endpoints: tuple[tuple[str, int], ...]


Name = tuple[str, str]
"""A Service's namespace and name."""

API: Name = ("default", "kubernetes")


def rows_of(service: Object, slices: Iterable[Object]) -> tuple[ServicePort, ...]:
    """The rows of one Service, one for each port and family. `slices` are its EndpointSlices, in any order."""
    spec = service["spec"]
    addresses = [text for text in spec.get("clusterIPs") or [spec.get("clusterIP")] if text and text != "None"]
    if spec.get("type") == "ExternalName" or any(label in labels_of(service) for label in LEFT_TO_OTHERS):
        return ()
    ordered = sorted(slices, key=lambda one: natural(meta(one)["name"]))
    balancers = tuple(
        parse_ip(one["ip"])
        for one in service.get("status", {}).get("loadBalancer", {}).get("ingress", ())
        if one.get("ip") and one.get("ipMode", "VIP") == "VIP"
    )
    external = tuple(parse_ip(text) for text in spec.get("externalIPs", ()))
    sources = tuple(_network(text) for text in spec.get("loadBalancerSourceRanges", ()))
    affinity = 0
    if spec.get("sessionAffinity") == "ClientIP":
        wanted = spec.get("sessionAffinityConfig", {}).get("clientIP", {}).get("timeoutSeconds", AFFINITY_SECONDS)
        affinity = int(wanted) * SECOND
    rows = []
    for text in addresses:
        cluster_ip = parse_ip(text)
        family = len(cluster_ip)
        mine = [one for one in ordered if one["addressType"] == ("IPv4" if family == 4 else "IPv6")]
        for port in spec.get("ports", ()):
            protocol = PROTOCOLS.get(port.get("protocol", "TCP"))
            if protocol is None:
                continue
            name = f"{meta(service)['namespace']}/{meta(service)['name']}"
            rows.append(
                ServicePort(
                    name=f"{name}:{port['name']}" if port.get("name") else name,
                    protocol=protocol,
                    port=port["port"],
                    cluster_ip=cluster_ip,
                    backends=tuple(_backends(mine, port)),
                    external=tuple(one for one in external if len(one) == family),
                    balancers=tuple(one for one in balancers if len(one) == family),
                    sources=tuple(one for one in sources if len(one.address) == family),
                    node_port=port.get("nodePort", 0),
                    affinity=affinity,
                    announcer=meta(service).get("annotations", {}).get(ANNOUNCED_BY, "") if balancers else "",
                    internal_local=spec.get("internalTrafficPolicy") == "Local",
                    external_local=spec.get("externalTrafficPolicy") == "Local",
                )
            )
    return tuple(rows)


def health_check_of(service: Object, slices: Iterable[Object]) -> HealthCheck | None:
    """What load balancers outside ask each host of a Service that wants its clients' addresses kept; None of others."""
    spec = service["spec"]
    port = spec.get("healthCheckNodePort")
    if not port or spec.get("type") != "LoadBalancer" or spec.get("externalTrafficPolicy") != "Local":
        return None
    there: dict[str, set[str]] = {}
    family = next(iter(spec.get("ipFamilies", ())), "IPv4")  # a pod of two families is one endpoint
    mine = [one for one in slices if one["addressType"] == family]
    for endpoint in (endpoint for one in mine for endpoint in one.get("endpoints") or ()):
        if endpoint.get("conditions", {}).get("ready", True) is not False and endpoint.get("nodeName"):
            there.setdefault(endpoint["nodeName"], set()).add(endpoint["addresses"][0])
    counts = tuple((node, len(addresses)) for node, addresses in sorted(there.items()))
    return HealthCheck(meta(service)["namespace"], meta(service)["name"], port, counts)


def _backends(slices: Iterable[Object], port: Object) -> Iterable[Backend]:
    """The endpoints that a port leads to: those that are ready, and those that still serve while they end."""
    seen: set[tuple[bytes, int]] = set()
    for one in slices:
        number = next(
            (
                row.get("port")
                for row in one.get("ports") or ()
                if row.get("name", "") == port.get("name", "")
                and row.get("protocol", "TCP") == port.get("protocol", "TCP")
            ),
            None,
        )
        if number is None:
            continue
        for endpoint in one.get("endpoints") or ():
            state = endpoint.get("conditions", {})
            ready = state.get("ready", True) is not False
            ending = state.get("serving", ready) and state.get("terminating", False)
            address = parse_ip(endpoint["addresses"][0])
            if not (ready or ending) or (address, number) in seen:
                continue
            seen.add((address, number))
            yield Backend(address, number, endpoint.get("nodeName") or "", _pod(endpoint), ending=not ready)


def _pod(endpoint: Object) -> str:
    target = endpoint.get("targetRef") or {}
    if target.get("kind") != "Pod":
        return ""
    namespace, name = target.get("namespace", "default"), str(target.get("name", ""))
    return name if namespace == "default" else f"{namespace}/{name}"


def _network(text: str) -> Prefix:
    address, _, length = text.strip().partition("/")
    parsed = parse_ip(address)
    return Prefix.of(parsed, int(length) if length else len(parsed) * 8)


class ServiceRows:
    """The rows of all Services of a store that is empty when this begins to listen to it."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._slices: dict[Name, dict[str, Object]] = {}
        self._rows: dict[Name, tuple[ServicePort, ...]] = {}
        self._checks: dict[Name, HealthCheck] = {}
        self._dirty: dict[Name, None] = {}
        self._all: tuple[ServicePort, ...] = ()
        self._all_checks: tuple[HealthCheck, ...] = ()

    def hear(self, change: Change) -> None:
        """Something changed in the store."""
        if change.kind.name == "Service":
            self._dirty[meta(change.item)["namespace"], meta(change.item)["name"]] = None
        elif change.kind.resource == SLICES:
            for item in (change.before, change.item):
                if item is not None:
                    self._note(item, gone=item is change.before or change.verb == "DELETED")

    def _note(self, item: Object, *, gone: bool) -> None:
        owner = labels_of(item).get(SERVICE_NAME)
        if not owner:
            return
        name = (meta(item)["namespace"], owner)
        slices = self._slices.setdefault(name, {})
        if gone:
            slices.pop(meta(item)["name"], None)
        else:
            slices[meta(item)["name"]] = item
        self._dirty[name] = None

    def rows(self) -> tuple[ServicePort, ...]:
        """All rows, by the Services' namespaces and names: the same object until something changes."""
        if self._dirty:
            changed = False
            for name in self._dirty:
                changed |= self._look_at(name)
            self._dirty.clear()
            if changed:
                self._all = joined(self._rows)
            checks = tuple(self._checks[name] for name in sorted(self._checks))
            if checks != self._all_checks:
                self._all_checks = checks
        return self._all

    def health_checks(self) -> tuple[HealthCheck, ...]:
        """What hosts tell of Services: the same object until something changes."""
        self.rows()
        return self._all_checks

    def _look_at(self, name: Name) -> bool:
        """Work out the rows of one Service; True where they are others. Equal rows stay the objects that they were."""
        service = self._view.get("services", *name)
        check = health_check_of(service, self._slices.get(name, {}).values()) if service is not None else None
        if check is not None:
            self._checks[name] = check
        else:
            self._checks.pop(name, None)
        if service is None:
            if not self._slices.get(name):
                self._slices.pop(name, None)
            return self._rows.pop(name, ()) != ()
        known = {row.key: row for row in self._rows.get(name, ())}
        found = rows_of(service, self._slices.get(name, {}).values())
        rows = tuple(known[row.key] if known.get(row.key) == row else row for row in found)
        if rows == self._rows.get(name, ()):
            return False
        self._rows[name] = rows
        return True


def joined(rows: Mapping[Name, tuple[ServicePort, ...]]) -> tuple[ServicePort, ...]:
    """The rows of all Services, in order; none where there is nothing but the API's, without endpoints."""
    if not any(found for name, found in rows.items() if name != API) and not any(
        row.backends for row in rows.get(API, ())
    ):
        return ()
    return tuple(row for name in sorted(rows) for row in rows[name])
