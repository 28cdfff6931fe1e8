"""Checks of pods: what their annotations fix, and what concerns several of them, or them and the topology.

Rule of this file: as in `check`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emunet.cluster.check import part_of
from emunet.cluster.load import Document, Path, Problem
from emunet.cluster.objects import IP_ANNOTATION, MAC_ANNOTATION, Pod
from emunet.cluster.ranges import FAMILY, last_usable, list_of
from emunet.cluster.schema import did_you_mean, unicast_mac
from emunet.cluster.topology import Spec
from emunet.packet.address import Prefix, format_ip, format_mac, parse_ip

if TYPE_CHECKING:
    from emunet.cluster.desired import Host, Publish

RESERVED_POD_NAMES = ("eth0", "cni0", "flannel.1")
"""Names of a host's own interfaces: a pod so named would have a port of the same name."""


@dataclass(frozen=True, slots=True)
class PodRequest:
    """A pod as its manifest asks for it, with the addresses that its annotations fix."""

    document: Document
    pod: Pod
    mac: bytes | None = None
    addresses: tuple[bytes, ...] = ()

    @property
    def port(self) -> str:
        """`web-1` in the default namespace, `blue/web-1` in another."""
        return port_name(self.pod.metadata.namespace, self.pod.metadata.name)


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a pod is, or is to be; None where that is not known."""

    host: str | None
    host_network: bool


def port_name(namespace: str, name: str) -> str:
    """A pod's global port name."""
    return name if namespace == "default" else f"{namespace}/{name}"


def read_annotations(document: Document, pod: Pod) -> tuple[PodRequest, list[Problem]]:
    """The pod with what its emunet annotations fix, and the faults in them."""
    annotations = pod.metadata.annotations
    faults: list[Problem] = []
    mac: bytes | None = None
    addresses: list[bytes] = []

    def fault(annotation: str, message: str) -> None:
        faults.append(document.problem(("metadata", "annotations", annotation), message))

    if MAC_ANNOTATION in annotations:
        text = annotations[MAC_ANNOTATION]
        try:
            mac = unicast_mac(text)
        except ValueError as error:
            fault(MAC_ANNOTATION, str(error) if text in str(error) else f"{error} (got {text!r})")
    for part in annotations[IP_ANNOTATION].split(",") if IP_ANNOTATION in annotations else ():
        try:
            address = parse_ip(part.strip())
        except ValueError as error:
            fault(IP_ANNOTATION, str(error))
            continue
        if any(len(address) == len(other) for other in addresses):
            message = f"expected at most one {FAMILY[len(address)]} address (got {annotations[IP_ANNOTATION]!r})"
            fault(IP_ANNOTATION, message)
            continue
        addresses.append(address)
    if pod.spec.host_network:
        for annotation in (MAC_ANNOTATION, IP_ANNOTATION):
            if annotation in annotations:
                fault(annotation, "a pod with hostNetwork has its host's addresses and none of its own")
    return PodRequest(document, pod, mac, tuple(sorted(addresses, key=len))), faults


def check_pods(requests: Sequence[PodRequest], spec: Spec | None) -> Iterator[Problem]:
    """What concerns several pods, or pods and the topology (None where that could not be read)."""
    hosts = [host.name for host in spec.nodes] if spec is not None else []
    taken = _names_taken(spec) if spec is not None else {}
    names: dict[str, PodRequest] = {}
    macs: dict[bytes, PodRequest] = {}
    addresses: dict[bytes, PodRequest] = {}
    for request in requests:
        document = request.document
        place: Path = ("metadata", "name")
        if request.port in names:
            first = _location(names[request.port], place)
            yield document.problem(place, f"the pod {request.port!r} is given twice (first at {first})")
            continue
        names[request.port] = request
        if request.port in RESERVED_POD_NAMES:
            yield document.problem(place, f"a pod cannot be called {request.port!r}: an interface of its host is")
        if request.mac is not None:
            rival = macs.setdefault(request.mac, request)
            if rival is not request:
                message = f"the MAC address {format_mac(request.mac)} is {rival.port}'s already"
                path: Path = ("metadata", "annotations", MAC_ANNOTATION)
                yield document.problem(path, f"{message} (at {_location(rival, path)})")
        for address in request.addresses:
            rival = addresses.setdefault(address, request)
            if rival is not request:
                path = ("metadata", "annotations", IP_ANNOTATION)
                message = f"the address {format_ip(address)} is {rival.port}'s already"
                yield document.problem(path, f"{message} (at {_location(rival, path)})")
        if spec is not None:
            yield from _check_pod_in(spec, hosts, taken, request)


def check_publish(
    document: Document, hosts: Sequence[Host], pods: Mapping[str, Placed], accepted: Mapping[str, Sequence[Publish]]
) -> Iterator[Problem]:
    """Published ports, once every pod has its host: each leads to a pod there, and no two are one.

    `accepted` are the rows that each host had before: their pods may have gone since, as in any cluster.
    """
    for number, host in enumerate(hosts):
        own = [entry.address for entry in host.addresses]
        own += [subnet.nth(1) for subnet in host.subnets]
        seen: dict[tuple[int, str], list[tuple[bytes | None, int]]] = {}
        for index, row in enumerate(host.publish):
            base: Path = ("spec", "hosts", number, "publish", index)
            pod = pods.get(row.pod)
            if pod is None:
                if row not in accepted.get(host.name, ()):
                    message = f"there is no pod {row.pod!r}{did_you_mean(row.pod, pods)}"
                    yield document.problem((*base, "pod"), message)
            elif pod.host_network:
                message = f"{row.pod} has hostNetwork: its ports are {host.name}'s already, and need not be published"
                yield document.problem((*base, "pod"), message)
            elif pod.host is not None and pod.host != host.name:
                message = f"{row.pod} runs on {pod.host}: publish it there, or fix it here with nodeName: {host.name}"
                yield document.problem((*base, "pod"), message)
            if row.host_address is not None and row.host_address not in own:
                message = f"{host.name} has no address {format_ip(row.host_address)}; it has {list_of(own)}"
                yield document.problem((*base, "hostIP"), message)
            rivals = seen.setdefault((row.port, row.protocol), [])
            for address, rival in rivals:
                if None in (address, row.host_address) or address == row.host_address:
                    line = document.place((*base[:-1], rival, "port")).line
                    message = f"port {row.port} ({row.protocol}) of {host.name} is published already (on line {line})"
                    yield document.problem((*base, "port"), message)
                    break
            rivals.append((row.host_address, index))


def _location(request: PodRequest, path: Path) -> str:
    place = request.document.place(path)
    return f"{request.document.file}:{place.line}"


def _names_taken(spec: Spec) -> dict[str, str]:
    """The names of devices and links, and what each is."""
    links = {link.called_by: "link" for link in spec.all_links}
    switches = {switch.name: "switch" for switch in spec.all_switches}
    return links | switches | {host.name: "host" for host in spec.hosts}


def _check_pod_in(spec: Spec, hosts: Sequence[str], taken: Mapping[str, str], request: PodRequest) -> Iterator[Problem]:
    document = request.document
    node = request.pod.spec.node_name
    if node is not None and node not in hosts:
        hint = did_you_mean(node, hosts) or f"; the hosts are {', '.join(hosts[:8])}"
        yield document.problem(("spec", "nodeName"), f"there is no host {node!r}{hint}")
    if request.port in taken:
        message = f"the pod {request.port!r} has the name of a {taken[request.port]}"
        yield document.problem(("metadata", "name"), message)
    for address in request.addresses:
        ranges = [prefix for prefix in spec.pod_cidrs if len(prefix.address) == len(address)]
        if not any(prefix.contains(address) for prefix in ranges):
            expected = part_of("an address", "the pod range", len(address), ranges)
            message = f"expected {expected} (got {format_ip(address)})"
            yield document.problem(("metadata", "annotations", IP_ANNOTATION), message)


def is_pod_address(prefix: Prefix, address: bytes) -> bool:
    """True for an address of a host's pod range that a pod may have: not flannel.1's, cni0's or the broadcast."""
    if not prefix.contains(address):
        return False
    offset = int.from_bytes(address, "big") - int.from_bytes(prefix.address, "big")
    return 2 <= offset <= last_usable(prefix)
