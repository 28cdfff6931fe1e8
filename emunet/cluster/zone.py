"""The names of a cluster, from its objects (the Kubernetes DNS specification, schema 1.1.0).

    services, EndpointSlices, namespaces, pods, nodes --> parts of a zone, one an object --> name servers

Beside what the specification says: `10-244-1-2.default.pod.cluster.local` is an address below every namespace
there is, whether or not a pod has it (CoreDNS: `pods insecure`); and pods and hosts have the short names by
which a lab knows them (`web-1`, `web-1.blue`, `host1`), below the root, where no name of the cluster is hidden by
them: a stub comes there last, after its search list.

Rule of this file: a part is a function of its object (and of the slices of a Service); nothing is waited for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from emunet.cluster.controllers.endpoints import SERVICE_NAME
from emunet.cluster.controllers.pods import is_finished
from emunet.cluster.desired import Cluster
from emunet.cluster.store import Change, Key, Object, Store, labels_of, meta
from emunet.elements.zone import Authority, Part, Zone, address_record, encode_update
from emunet.packet.address import Prefix, parse_ip
from emunet.packet.dns import Name, Record, Type, dashed, name_of, reverse_name, srv, txt

SCHEMA = b"1.1.0"
TTL = 30
"""Seconds; CoreDNS's stock configuration has the same."""

SCHEMA_TTL = 28_800
DNS_SERVICE = ("kube-system", "kube-dns")
"""Namespace and name of the Service that a cluster's name server is behind."""

_BASE = ""
_SLICES = "endpointslices.discovery.k8s.io"


def dns_address(services: Prefix) -> bytes:
    """Where the name server of a cluster is: the tenth address of the service range, as kubeadm has it."""
    return services.nth(min(10, services.size - 2))


def authority_of(cluster: Cluster) -> Authority:
    """What the name server of a cluster answers for: its domain, and its own addresses backwards."""
    ranges = (*cluster.ranges.pods, *cluster.ranges.services)
    domain = cluster.dns.domain
    refusal = (
        f"it is outside of {domain}, and the name server of this lab asks no other;"
        " spec.dns.forward of the topology names those to ask"
    )
    backwards = dict.fromkeys(name for prefix in ranges for name in reverse_origins(prefix))
    return Authority((name_of(domain), *backwards), TTL, cluster.dns.forward, refusal)


def reverse_origins(prefix: Prefix) -> list[Name]:
    """The backward names that have all addresses of a range below them, and nothing else."""
    bits = 8 if len(prefix.address) == 4 else 4
    length = -(-prefix.length // bits) * bits
    step = 1 << (len(prefix.address) * 8 - length)
    starts = [prefix.nth(index * step) for index in range(1 << (length - prefix.length))]
    return [reverse_name(start)[-length // bits - 2 :] for start in starts]


@dataclass(frozen=True, slots=True)
class Update:
    """What has changed in a zone; with an `authority` it begins anew."""

    parts: dict[str, Part | None]
    authority: Authority | None = None

    def __bool__(self) -> bool:
        return bool(self.parts) or self.authority is not None

    def with_(self, later: Update) -> Update:
        """This and what came after it as one."""
        if later.authority is not None:
            return later
        return Update({**self.parts, **later.parts}, self.authority)

    def encode(self) -> bytes:
        """As a name server in another process takes it."""
        return encode_update(self.parts, self.authority)


class ZoneOf:
    """The zone of a store's objects, kept as they change."""

    def __init__(self, store: Store, cluster: Cluster) -> None:
        self.zone = Zone(authority_of(cluster))
        self.address = dns_address(cluster.ranges.services[0])
        """Where the cluster's name server is, or would be."""
        self._store = store
        self._slices: dict[tuple[str, str], dict[str, Object]] = {}
        self._dirty: dict[Key | None, None] = {}
        self._renewed = True
        self._begin()
        store.listeners.append(self._hear)

    @property
    def server(self) -> str | None:
        """The address of the cluster's name server; None where it has none."""
        service = self._store.get("services", *DNS_SERVICE)
        address = service["spec"].get("clusterIP", "None") if service is not None else "None"
        return None if address in ("None", "") else str(address)

    def whole(self) -> Update:
        """All that is known, for a name server that begins."""
        return Update(dict(self.zone.parts), self.zone.authority)

    def take(self) -> Update:
        """What has changed since the last call; the zone has it then."""
        changed: dict[str, Part | None] = {}
        renewed, self._renewed = self._renewed, False
        for key in self._dirty:
            name = _BASE if key is None else f"{key.resource}/{key.namespace}/{key.name}"
            part = self._part(key)
            if self.zone.parts.get(name) != part:
                self.zone.put(name, part)
                changed[name] = part
        self._dirty.clear()
        return Update(changed, self.zone.authority if renewed else None)

    def set_cluster(self, cluster: Cluster) -> None:
        """The machines have changed, and perhaps what is to be answered for."""
        authority = authority_of(cluster)
        if authority != self.zone.authority:
            self.zone = Zone(authority, serial=self.zone.serial + 1)
            self._renewed = True
            self._begin()

    def _begin(self) -> None:
        self._dirty[None] = None
        for resource in ("namespaces", "nodes", "pods", _SLICES, "services"):
            for item in self._store.items(resource):
                self._note(self._store.key(self._store.kind(resource), item), item)

    def _hear(self, change: Change) -> None:
        if change.kind.resource in _RESOURCES:
            key = self._store.key(change.kind, change.item)
            if change.verb == "DELETED":
                self._note(key, None, change.item)
            else:
                self._note(key, change.item, change.before)

    def _note(self, key: Key, item: Object | None, before: Object | None = None) -> None:
        if key.resource != _SLICES:
            self._dirty[key] = None
            return
        for one in (before, item):
            service = labels_of(one).get(SERVICE_NAME) if one is not None else None
            if service:
                self._slices.get((key.namespace, service), {}).pop(key.name, None)
                self._dirty[Key("services", key.namespace, service)] = None
        if item is not None and labels_of(item).get(SERVICE_NAME):
            self._slices.setdefault((key.namespace, labels_of(item)[SERVICE_NAME]), {})[key.name] = item

    def _part(self, key: Key | None) -> Part | None:
        domain = self.zone.authority.origins[0]
        if key is None:
            return base_part(domain, self.address)
        item = self._store.at(key)
        if item is None:
            return None
        match key.resource:
            case "services":
                return service_part(item, self._slices.get((key.namespace, key.name), {}).values(), domain)
            case "namespaces":
                return namespace_part(key.name, domain)
            case "pods":
                return pod_part(item)
        return node_part(item)


_RESOURCES = frozenset(("namespaces", "nodes", "pods", _SLICES, "services"))


def base_part(domain: Name, address: bytes) -> Part:
    """The version of the schema, and where the name server is."""
    return Part(
        (
            Record((b"dns-version", *domain), Type.TXT, SCHEMA_TTL, txt(SCHEMA)),
            address_record((b"ns", b"dns", *domain), address, TTL),
        )
    )


def namespace_part(namespace: str, domain: Name) -> Part:
    """A namespace is there, with or without Services, and addresses are names in it."""
    label = namespace.encode()
    return Part((), ((label, b"svc", *domain),), ((label, b"pod", *domain),))


def service_part(service: Object, slices: Iterable[Object], domain: Name) -> Part | None:
    """The names of a Service; None where it has none, as a headless one without endpoints."""
    spec = service["spec"]
    name: Name = (meta(service)["name"].encode(), meta(service)["namespace"].encode(), b"svc", *domain)
    if spec.get("type") == "ExternalName":
        try:
            target = name_of(spec.get("externalName", ""))
        except ValueError:  # the API takes longer names than there are; such a one leads nowhere
            return None
        return Part((Record(name, Type.CNAME, TTL, (target,)),))
    if spec.get("clusterIP") == "None":
        records = list(dict.fromkeys(_headless(name, slices)))
        return Part(tuple(records)) if records else None
    addresses = [parse_ip(one) for one in spec.get("clusterIPs") or filter(None, (spec.get("clusterIP"),))]
    records = [address_record(name, address, TTL) for address in addresses]
    for port in spec.get("ports", ()) if addresses else ():
        if port.get("name"):
            data = srv(0, 100, port["port"], name)
            records.append(Record(_port_name(port["name"], port.get("protocol", "TCP"), name), Type.SRV, TTL, data))
    records += [Record(reverse_name(address), Type.PTR, TTL, (name,)) for address in addresses]
    return Part(tuple(records)) if records else None


def _headless(name: Name, slices: Iterable[Object]) -> Iterator[Record]:
    """Each ready endpoint by the Service's name and by its own, with its ports, and backwards."""
    ordered = sorted(slices, key=lambda item: (item["addressType"], meta(item)["name"]))
    ready = [
        (one, item.get("ports") or (), parse_ip(address))
        for item in ordered
        if item["addressType"] in ("IPv4", "IPv6")
        for one in item.get("endpoints") or ()
        if (one.get("conditions") or {}).get("ready") is not False
        for address in one["addresses"]
    ]
    hosts: dict[tuple[str, str, int], dict[Name, None]] = {}
    for endpoint, ports, address in ready:
        own: Name = ((endpoint.get("hostname") or "").lower().encode() or dashed(address), *name)
        yield address_record(name, address, TTL)
        yield address_record(own, address, TTL)
        yield Record(reverse_name(address), Type.PTR, TTL, (own,))
        for port in ports:
            if port.get("name") and port.get("port"):
                key = (port["name"], port.get("protocol") or "TCP", port["port"])
                hosts.setdefault(key, {})[own] = None
    for (port_name, protocol, number), targets in hosts.items():
        for target in targets:
            data = srv(0, max(1, 100 // len(targets)), number, target)
            yield Record(_port_name(port_name, protocol, name), Type.SRV, TTL, data)


def _port_name(port: str, protocol: str, service: Name) -> Name:
    return (b"_" + port.encode(), b"_" + protocol.lower().encode(), *service)


def pod_part(pod: Object) -> Part | None:
    """The short name of a pod."""
    namespace = meta(pod)["namespace"]
    short = meta(pod)["name"] if namespace == "default" else f"{meta(pod)['name']}.{namespace}"
    if pod["spec"].get("hostNetwork") or is_finished(pod):
        return None
    return _short(short, [one["ip"] for one in pod.get("status", {}).get("podIPs", ())])


def node_part(node: Object) -> Part | None:
    """The name of a host."""
    addresses = node.get("status", {}).get("addresses", ())
    return _short(meta(node)["name"], [one["address"] for one in addresses if one["type"] == "InternalIP"])


def _short(text: str, addresses: Iterable[str]) -> Part | None:
    try:
        name = name_of(text)
    except ValueError:  # a pod's name may have more characters than a name
        return None
    records = tuple(address_record(name, parse_ip(address), TTL) for address in addresses)
    return Part(records) if records else None
