"""From documents to the cluster as it is wanted (`desired`).

A host's addresses and a pod's host, once decided, are kept: `build` takes what was wanted
before, so that adding or removing one thing never moves another.

Rule of this file: `build` is a function of its arguments, and it returns either a value
with nothing missing or raises `BadInput` with everything that is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from emunet.cluster import ranges, topology
from emunet.cluster.check import check_pool_is_free, check_topology, pods_path, underlay_path
from emunet.cluster.check_pods import Placed, PodRequest, check_pods, check_publish, read_annotations
from emunet.cluster.desired import (
    Cluster,
    Container,
    ContainerPort,
    Desired,
    Dns,
    DnsWish,
    Host,
    Link,
    Masquerade,
    Origin,
    Outside,
    Overlay,
    OverlayKind,
    Pairs,
    Pod,
    PodLinks,
    PolicyMode,
    Publish,
    Ranges,
    Switch,
)
from emunet.cluster.docker.values import Furniture, WantedContainer, WantedNetwork
from emunet.cluster.load import BadInput, Document, Problem
from emunet.cluster.mtu import narrow_links
from emunet.cluster.objects import Pod as PodModel
from emunet.cluster.objects import expand, hostname_of, is_stored, read_object
from emunet.cluster.placement import Placement
from emunet.cluster.ranges import natural
from emunet.cluster.topology import Topology
from emunet.packet.address import InterfaceAddress, Prefix


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
