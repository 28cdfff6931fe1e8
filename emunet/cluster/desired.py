"""The cluster as it is wanted: one frozen value, with every default filled in and every pod on a host.

`build` makes it out of documents. A host's addresses and a pod's host, once decided, are
kept: `build` takes what was wanted before, so that adding or removing one thing never
moves another. Everything is in a fixed order (hosts, switches and links as the topology
lists them, pods by namespace and name), whatever the order of the documents was.

Rule of this file: `build` is a function of its arguments, and it returns either a value
with nothing missing or raises `BadInput` with everything that is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from emunet.cluster import ranges, topology
from emunet.cluster.check import (
    Placed,
    PodRequest,
    check_pods,
    check_pool_is_free,
    check_publish,
    check_topology,
    pods_path,
    port_name,
    read_annotations,
    underlay_path,
)
from emunet.cluster.docker.values import EMPTY, Engine, Furniture, WantedContainer, WantedNetwork
from emunet.cluster.load import BadInput, Document, Problem
from emunet.cluster.mtu import narrow_links
from emunet.cluster.objects import Pod as PodModel
from emunet.cluster.objects import expand, hostname_of, is_stored, read_object
from emunet.cluster.placement import Placement
from emunet.cluster.policies import NO_POLICIES, PolicySet
from emunet.cluster.ranges import natural
from emunet.cluster.topology import Topology
from emunet.fabric.config import PLAIN, Impairment, ServicePort
from emunet.packet.address import InterfaceAddress, Prefix

Pairs = tuple[tuple[str, str], ...]
"""A mapping of text to text as a value, sorted by key."""


NAME_SERVER_IMAGE = "emunet/resolver"
"""A container of this image is a name server of the cluster, on port 53 over UDP and TCP."""


class OverlayKind(Enum):
    """How packets between pods on different hosts cross the underlay."""

    HOST_GW = "host-gw"
    VXLAN = "vxlan"


class PodLinks(Enum):
    """How pods are joined to their host: on a bridge of their own (flannel), or each by a routed link (Calico)."""

    BRIDGE = "bridge"
    ROUTED = "routed"


class PolicyMode(Enum):
    """What a policy that changes means for open connections: they go on, or each packet is judged anew."""

    CONNECTION = "connection"
    PACKET = "packet"


@dataclass(frozen=True, slots=True)
class Overlay:
    """`port` (UDP), `vni` and `direct_routing` (host-gw between hosts on one network) count for VXLAN only."""

    kind: OverlayKind
    port: int
    vni: int
    direct_routing: bool = False


@dataclass(frozen=True, slots=True)
class Ranges:
    """The cluster's address ranges, at most one of each family, IPv4 first.

    `balancers` are parts of the underlay, any number, in the order in which they are given out.
    """

    pods: tuple[Prefix, ...]
    services: tuple[Prefix, ...]
    underlay: tuple[Prefix, ...]
    balancers: tuple[Prefix, ...] = ()


@dataclass(frozen=True, slots=True)
class Publish:
    """A port of a host that leads to a pod's, by its port name. `protocol` is TCP or UDP.

    `host_address` is the one address of the host where it is open, or None: all that it has.
    """

    port: int
    protocol: str
    pod: str
    target_port: int
    host_address: bytes | None = None


@dataclass(frozen=True, slots=True)
class Masquerade:
    """What pods send to outside the cluster comes from their host, but for what goes to `exceptions`."""

    exceptions: tuple[Prefix, ...] = ()


class DnsWish(Enum):
    """Whether a cluster has a name server: from the first Service on, always, never."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Dns:
    """The cluster's name server: whether, for which domain, and whom it asks for names outside of it."""

    wish: DnsWish = DnsWish.AUTO
    domain: str = topology.DEFAULT_DOMAIN
    forward: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Host:
    """A machine that runs pods: eth0's addresses in the underlay, and its part of each pod range (IPv4 first).

    One that is no `node` has no such part: it is a machine of the underlay, and no part of the cluster.
    """

    name: str
    addresses: tuple[InterfaceAddress, ...]
    subnets: tuple[Prefix, ...]
    labels: Pairs = ()
    publish: tuple[Publish, ...] = ()
    docker: Furniture = EMPTY
    node: bool = True


@dataclass(frozen=True, slots=True)
class Outside:
    """A wire of a switch that leaves the lab; `kind`, `at` and `to` as in `fabric.config.OutsideConfig`."""

    name: str
    kind: str
    at: str
    to: str = ""


@dataclass(frozen=True, slots=True)
class Switch:
    """A plain Ethernet switch."""

    name: str
    outside: tuple[Outside, ...] = ()


@dataclass(frozen=True, slots=True)
class Link:
    """A cable between two devices, each named; `mtu` in bytes, the rest as in `fabric.config.WireConfig`."""

    name: str
    a: str
    b: str
    mtu: int
    impairments: tuple[Impairment, Impairment] = (PLAIN, PLAIN)
    up: bool = True
    flap: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Gateway:
    """The way to the outside (`gateway`): where it is plugged in, and its addresses.

    `next_hop` is the program that leads there, in a range of its own. `resolver` is the machine's name server.
    """

    switch: str
    inside: InterfaceAddress
    outside: InterfaceAddress
    next_hop: bytes
    resolver: bytes | None = None


@dataclass(frozen=True, slots=True)
class Cluster:
    """The machines and the network between them."""

    name: str
    overlay: Overlay
    ranges: Ranges
    hosts: tuple[Host, ...]
    switches: tuple[Switch, ...]
    links: tuple[Link, ...]
    masquerade: Masquerade | None = None
    pod_links: PodLinks = PodLinks.BRIDGE
    dns: Dns = Dns()
    network_policy: PolicyMode | None = None
    gateway: Gateway | None = None

    @property
    def nodes(self) -> tuple[Host, ...]:
        """The hosts that run pods."""
        return tuple(host for host in self.hosts if host.node)

    def host(self, name: str) -> Host:
        """The host of that name; KeyError if there is none."""
        for host in self.hosts:
            if host.name == name:
                return host
        raise KeyError(name)


@dataclass(frozen=True, slots=True)
class ContainerPort:
    """A port that a container says it listens on; `protocol` is TCP, UDP or SCTP.

    `host_port` leads there from its host (0: none), on `host_address` or on all addresses that the host has.
    """

    number: int
    protocol: str = "TCP"
    name: str = ""
    host_port: int = 0
    host_address: bytes | None = None


@dataclass(frozen=True, slots=True)
class Container:
    """One program of a pod. Empty `command` and `args` mean what the image says; empty `working_directory` too.

    `environment` keeps its order, because a later variable may speak of an earlier one.
    """

    name: str
    image: str
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    environment: Pairs = ()
    ports: tuple[ContainerPort, ...] = ()
    working_directory: str = ""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an object was written; lines and columns count from 1."""

    file: str
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod on its host. `mac` and `addresses` are those that its annotations fix; most have none.

    A pod with `host_network` lives in its host's network and has no port of its own. Another pod of
    the same name has another `uid`. `full_name`: what its machine is called instead of `hostname`, if anything.
    """

    namespace: str
    name: str
    host: str
    containers: tuple[Container, ...]
    hostname: str
    restart_policy: str = "Always"
    host_network: bool = False
    labels: Pairs = ()
    annotations: Pairs = ()
    mac: bytes | None = None
    addresses: tuple[bytes, ...] = ()
    uid: str = ""
    full_name: str = ""
    origin: Origin | None = field(default=None, compare=False, repr=False)

    @property
    def port(self) -> str:
        """Its global port name: `web-1` in the default namespace, `blue/web-1` in another."""
        return port_name(self.namespace, self.name)

    @property
    def machine_name(self) -> str:
        """What `hostname` says in it."""
        return self.full_name or self.hostname

    @property
    def is_name_server(self) -> bool:
        """Whether it answers for the cluster's names: then the lab brought it, or a person wanted one more."""
        return any(container.image == NAME_SERVER_IMAGE for container in self.containers)


@dataclass(frozen=True, slots=True)
class Desired:
    """All that is wanted. `warnings` tell what was accepted and has no effect; they are no part of the wish.

    `services` are the ports of Services with what is behind them (`service_rows`), `engines` the
    container engines of hosts, as far as somebody uses them.
    """

    cluster: Cluster
    pods: tuple[Pod, ...] = ()
    policies: PolicySet = NO_POLICIES
    services: tuple[ServicePort, ...] = ()
    warnings: tuple[Problem, ...] = field(default=(), compare=False)
    engines: tuple[Engine, ...] = ()

    def differs_in_services_only(self, other: Desired) -> bool:
        """Whether all else is the same, so that hosts need only other rows: none or some at all is another matter."""
        return (
            self.pods == other.pods
            and self.policies == other.policies
            and bool(self.services) == bool(other.services)
            and self.cluster == other.cluster
        )

    def pods_on(self, host: str) -> tuple[Pod, ...]:
        """The pods of one host, in order."""
        return tuple(pod for pod in self.pods if pod.host == host)


def build(documents: Iterable[Document], previous: Desired | None = None) -> Desired:
    """What the documents ask for by themselves; other objects than pods are passed over.

    `previous` is what was wanted until now: hosts keep their addresses and pods their hosts as far as the
    documents allow.

    Raises BadInput with every fault.
    """
    problems: list[Problem] = []
    warnings: list[Problem] = []
    topologies: list[tuple[Document, Topology | None]] = []
    requests: list[PodRequest] = []
    documents = list(documents)
    for document in (found for outer in documents for found in expand(outer)):
        if isinstance(document, Problem):
            problems.append(document)
            continue
        if is_stored(document):
            continue
        value, faults, ignored = read_object(document)
        problems += faults
        warnings += ignored
        if document.data.get("kind") == "Topology":
            topologies.append((document, value if isinstance(value, Topology) else None))
        elif isinstance(value, PodModel):
            request, faults = read_annotations(document, value)
            requests.append(request)
            problems += faults
    requests.sort(key=lambda request: (natural(request.pod.metadata.namespace), natural(request.pod.metadata.name)))
    problems += _check_one_topology(documents, [document for document, _ in topologies])
    spec = topologies[0][1].spec if len(topologies) == 1 and topologies[0][1] is not None else None
    problems += check_pods(requests, spec)
    for document, value in topologies:
        if value is None:
            continue
        faults = check_topology(document, value)
        if not faults:
            cluster, faults = _cluster(document, value, previous)
            warnings += narrow_links(document, value.spec)
        problems += faults
    if problems:
        raise BadInput(problems)
    places, problems = Placement(cluster.nodes, requests, previous.pods if previous is not None else ()).decide()
    there = {pod.port: Placed(pod.host, pod.host_network) for pod in previous.pods} if previous is not None else {}
    there |= {one.port: Placed(places.get(one.port), one.pod.spec.host_network) for one in requests}
    accepted = {host.name: host.publish for host in previous.cluster.hosts} if previous is not None else {}
    problems += check_publish(topologies[0][0], cluster.hosts, there, accepted)
    if problems:
        raise BadInput(problems)
    pods = tuple(_pod(request, places[request.port]) for request in requests)
    return Desired(cluster, pods, warnings=tuple(sorted(warnings)))


def _check_one_topology(documents: Sequence[Document], found: Sequence[Document]) -> list[Problem]:
    if len(found) == 1:
        return []
    message = "expected one object of kind Topology (apiVersion: emunet/v1)"
    if not found:
        file = documents[0].file if documents else "<nothing>"
        return [Problem(file, 1, 1, "", f"{message} (got none)")]
    first = found[0].place(("kind",))
    message = f"{message}; the first is at {found[0].file}:{first.line}"
    return [document.problem(("kind",), message) for document in found[1:]]


# The cluster


def _outside(wish: topology.Outside) -> Outside:
    if wish.unix is not None:
        return Outside(wish.name, "listen" if wish.listen else "unix", wish.unix)
    return Outside(wish.name, "udp", wish.udp or "", wish.to or "")


def _cluster(document: Document, wish: Topology, previous: Desired | None) -> tuple[Cluster, list[Problem]]:
    spec = wish.spec
    before = {host.name: host for host in previous.cluster.hosts} if previous is not None else {}
    names = [host.name for host in spec.hosts]
    addresses: dict[str, list[InterfaceAddress]] = {name: [] for name in names}
    subnets: dict[str, list[Prefix]] = {name: [] for name in names}
    problems: list[Problem] = []
    for index, prefix in _ipv4_first(spec.underlays):
        fixed = {host.name: a for host in spec.hosts for a in host.addresses if len(a) == len(prefix.address)}
        usable = _usable(prefix)
        kept = {name: a.address for name, host in before.items() for a in host.addresses if usable(a.address)}
        try:
            given = ranges.give(names, ranges.host_addresses(prefix), bytes.__eq__, fixed, kept)
        except ranges.Exhausted as exhausted:
            message = f"the underlay {prefix} is too small for {len(names)} hosts: {exhausted.name} gets no address"
            problems.append(document.problem((*underlay_path(document), index), message))
            continue
        for name, address in given.items():
            addresses[name].append(InterfaceAddress(address, prefix.length))
            problems += check_pool_is_free(document, spec, name, address)
    nodes = [host.name for host in spec.nodes]
    for index, prefix in _ipv4_first(spec.pod_cidrs):
        mask = spec.node_masks.of(prefix)
        ours = {host.name: p for host in spec.hosts for p in host.pod_cidrs if len(p.address) == len(prefix.address)}
        had = {
            name: subnet
            for name, host in before.items()
            for subnet in host.subnets
            if subnet.length == mask and prefix.contains(subnet.address)
        }
        try:
            parts = ranges.give(nodes, ranges.subnets(prefix, mask), Prefix.overlaps, ours, had)
        except ranges.Exhausted as exhausted:
            message = f"the pod range {prefix} in parts of /{mask} is too small for {len(nodes)} hosts"
            problems.append(document.problem((*pods_path(document), index), f"{message}: {exhausted.name} gets none"))
            continue
        for name, subnet in parts.items():
            subnets[name].append(subnet)
    labels = {host.name: _pairs(host.labels) for host in spec.hosts}
    published = {host.name: tuple(_publish(row) for row in host.publish) for host in spec.hosts}
    docker = {host.name: _furniture(host.docker) for host in spec.hosts}
    cluster = Cluster(
        wish.metadata.name,
        Overlay(OverlayKind(spec.overlay.kind), spec.overlay.port, spec.overlay.vni, spec.overlay.direct_routing),
        Ranges(
            _ordered(spec.pod_cidrs),
            _ordered(spec.services),
            _ordered(spec.underlays),
            tuple(spec.load_balancer_pool),
        ),
        tuple(
            Host(
                name,
                tuple(addresses[name]),
                tuple(subnets[name]),
                labels[name],
                published[name],
                docker[name],
                node=name in nodes,
            )
            for name in names
        ),
        tuple(Switch(switch.name, tuple(map(_outside, switch.outside))) for switch in spec.all_switches),
        tuple(_link(link, spec.underlay.mtu) for link in spec.all_links),
        Masquerade(tuple(spec.masquerade.exceptions)) if spec.masquerade.enabled else None,
        PodLinks(spec.pod_links),
        _dns(spec.dns),
        PolicyMode(spec.network_policy) if spec.network_policy is not None else None,
    )
    return cluster, problems


def _ipv4_first(prefixes: Sequence[Prefix]) -> list[tuple[int, Prefix]]:
    return sorted(enumerate(prefixes), key=lambda item: len(item[1].address))


def _ordered(prefixes: Sequence[Prefix]) -> tuple[Prefix, ...]:
    return tuple(prefix for _, prefix in _ipv4_first(prefixes))


def _usable(prefix: Prefix) -> Callable[[bytes], bool]:
    return lambda address: prefix.contains(address) and address not in (prefix.address, prefix.broadcast)


def _pairs(mapping: Mapping[str, str]) -> Pairs:
    return tuple(sorted(mapping.items()))


def _publish(row: topology.Publish) -> Publish:
    pod = row.pod.removeprefix("default/")
    return Publish(row.port, row.protocol, pod, row.target_port or row.port, row.host_ip)


def _dns(dns: topology.Dns) -> Dns:
    wish = DnsWish.AUTO if dns.enabled == "auto" else DnsWish.ON if dns.enabled else DnsWish.OFF
    return Dns(wish, dns.domain, tuple(dns.forward))


def _furniture(wish: topology.Docker) -> Furniture:
    return Furniture(
        tuple(WantedNetwork(one.name, one.subnet, one.gateway, one.internal, one.ipv6) for one in wish.networks),
        tuple(
            WantedContainer(
                one.name,
                one.image or one.name,
                tuple(one.command),
                (one.network, *one.networks),
                tuple(one.ports),
                tuple(one.aliases),
                tuple(one.env.items()),
            )
            for one in wish.containers
        ),
    )


def _link(link: topology.Link, mtu: int) -> Link:
    return Link(
        link.called_by,
        link.a,
        link.b,
        mtu if link.mtu is None else link.mtu,
        link.impairments(),
        not link.down,
        link.flap,
    )


# The pods


def _pod(request: PodRequest, host: str) -> Pod:
    metadata, spec = request.pod.metadata, request.pod.spec
    place = request.document.place(("metadata", "name"))
    return Pod(
        metadata.namespace,
        metadata.name,
        host,
        tuple(
            Container(
                container.name,
                container.image,
                tuple(container.command),
                tuple(container.args),
                tuple((variable.name, variable.value) for variable in container.env),
                tuple(ContainerPort(port.container_port, port.protocol, port.name or "") for port in container.ports),
                container.working_dir,
            )
            for container in spec.containers
        ),
        hostname_of(request.pod),
        spec.restart_policy,
        spec.host_network,
        _pairs(metadata.labels),
        _pairs(metadata.annotations),
        request.mac,
        request.addresses,
        origin=Origin(request.document.file, place.line, place.column),
    )
