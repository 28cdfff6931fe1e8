"""Who has which MAC and, for pods, which IP address.

An `Allocation` is the memory: what was given out before stays with its owner as long as
it fits what is wanted, so adding or removing pods renumbers nobody. A pod gets the next
free address of its host's range, round robin, as CNI's host-local plugin does: an address
that came free is not used again until the rest have been. A MAC address is a hash of the
seed and the port's name, with the "locally administered" bit set (IEEE 802-2014 8.4).

Rule of this file: `assign` is a function of its arguments; two owners never share an
address, and where that cannot be had it raises `BadInput` and gives nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from emunet.cluster.check_pods import is_pod_address
from emunet.cluster.desired import Cluster, Desired, Host, OverlayKind, Pod, PodLinks
from emunet.cluster.gateway import interfaces as gateway_interfaces
from emunet.cluster.load import BadInput, Problem
from emunet.cluster.ranges import natural, pod_offsets
from emunet.packet.address import InterfaceAddress, Prefix, format_ip, format_mac

UPLINK, BRIDGE, TUNNEL = "eth0", "cni0", "flannel.1"
"""A host's interfaces: to the underlay, to its pods, to other hosts' pods (VXLAN only)."""


@dataclass(frozen=True, slots=True)
class PodAddresses:
    """What one pod has, by its global port name. `addresses` holds one of each family, IPv4 first.

    It is that pod's alone: another one of the same name (`uid`) gets addresses of its own.
    """

    port: str
    mac: bytes
    addresses: tuple[InterfaceAddress, ...]
    uid: str = ""


@dataclass(frozen=True, slots=True)
class Allocation:
    """All that is given out, sorted by name.

    `interfaces` are the hosts' own MACs by the name of the interface (`host1:eth0`);
    `last` is the address that each range of pods gave out last.
    """

    pods: tuple[PodAddresses, ...] = ()
    interfaces: tuple[tuple[str, bytes], ...] = ()
    last: tuple[tuple[Prefix, bytes], ...] = ()

    def pod(self, port: str) -> PodAddresses:
        """What the pod with that port name has; KeyError if nothing."""
        for pod in self.pods:
            if pod.port == port:
                return pod
        raise KeyError(port)


def interface_names(cluster: Cluster, host: Host) -> tuple[str, ...]:
    """The interfaces with addresses that a host of the cluster has."""
    if not host.node:
        return (UPLINK,)
    bridge = (BRIDGE,) if cluster.pod_links is PodLinks.BRIDGE else ()
    tunnel = (TUNNEL,) if cluster.overlay.kind is OverlayKind.VXLAN else ()
    return (UPLINK, *bridge, *tunnel)


def gateway(subnet: Prefix) -> bytes:
    """The address of cni0, the pods' default next hop: the first of the host's range."""
    return subnet.nth(1)


def tunnel_address(subnet: Prefix) -> InterfaceAddress:
    """The address of flannel.1: the range's network address, alone on its link (flannel does so)."""
    return InterfaceAddress(subnet.address, len(subnet.address) * 8)


def derive_mac(seed: int, name: str, attempt: int = 0) -> bytes:
    """A locally administered MAC of one machine; another `attempt` gives another one."""
    digest = hashlib.sha256(f"{seed}/{name}/{attempt}".encode()).digest()
    return bytes((digest[0] & 0xFC | 0x02,)) + digest[1:6]


def assign(desired: Desired, allocation: Allocation = Allocation(), seed: int = 0) -> Allocation:
    """The addresses of everything wanted; `allocation` is what was given out until now.

    Pods with hostNetwork have their host's addresses and appear nowhere here. Raises
    BadInput where an annotation fixes what another pod has, or a range is used up.
    """
    pods = [pod for pod in desired.pods if not pod.host_network]
    cluster = desired.cluster
    hosts = {host.name: host for host in cluster.hosts}
    addresses, last = _pod_addresses(pods, hosts, allocation)
    interfaces = [f"{host.name}:{name}" for host in cluster.hosts for name in interface_names(cluster, host)]
    if cluster.gateway is not None:
        interfaces += gateway_interfaces()
    macs = _macs(pods, interfaces, allocation, seed)
    return Allocation(
        tuple(PodAddresses(pod.port, macs[pod.port], addresses[pod.port], pod.uid) for pod in pods),
        tuple((name, macs[name]) for name in sorted(interfaces, key=natural)),
        tuple(sorted(last.items())),
    )


def _pod_addresses(
    pods: Iterable[Pod], hosts: dict[str, Host], allocation: Allocation
) -> tuple[dict[str, tuple[InterfaceAddress, ...]], dict[Prefix, bytes]]:
    before = {(entry.port, entry.uid): [a.address for a in entry.addresses] for entry in allocation.pods}
    slots = [(pod, subnet) for pod in pods for subnet in hosts[pod.host].subnets]
    given: dict[tuple[str, Prefix], bytes] = {}
    owners: dict[bytes, str] = {}
    problems: list[Problem] = []
    for pod, subnet in slots:
        kept = next(
            (address for address in before.get((pod.port, pod.uid), ()) if is_pod_address(subnet, address)), None
        )
        if kept is not None and _fixed(pod, subnet) is None:
            given[pod.port, subnet] = kept
            owners[kept] = pod.port
    for pod, subnet in slots:
        fixed = _fixed(pod, subnet)
        if fixed is None:
            continue
        if owners.setdefault(fixed, pod.port) != pod.port:
            problems.append(_fault(pod, f"it asks for the address {format_ip(fixed)}, which {owners[fixed]} has"))
        given[pod.port, subnet] = fixed
    last = {subnet: address for subnet, address in allocation.last if any(subnet in h.subnets for h in hosts.values())}
    for pod, subnet in slots:
        if (pod.port, subnet) in given:
            continue
        address = _next(subnet, last.get(subnet), owners)
        if address is None:
            problems.append(_fault(pod, f"no address is left for it on {pod.host}: all of {subnet} are given out"))
            continue
        given[pod.port, subnet] = last[subnet] = address
        owners[address] = pod.port
    if problems:
        raise BadInput(problems)
    by_pod: dict[str, list[InterfaceAddress]] = {}
    for pod, subnet in slots:
        by_pod.setdefault(pod.port, []).append(InterfaceAddress(given[pod.port, subnet], subnet.length))
    return {port: tuple(addresses) for port, addresses in by_pod.items()}, last


def _next(subnet: Prefix, last: bytes | None, taken: dict[bytes, str]) -> bytes | None:
    base = int.from_bytes(subnet.address, "big")
    after = 1 if last is None else int.from_bytes(last, "big") - base
    for offset in pod_offsets(subnet, after):
        address = subnet.nth(offset)
        if address not in taken:
            return address
    return None


def _fixed(pod: Pod, subnet: Prefix) -> bytes | None:
    """The address in that range which the pod's annotation fixes, if any."""
    return next((address for address in pod.addresses if subnet.contains(address)), None)


def _macs(pods: Iterable[Pod], interfaces: Iterable[str], allocation: Allocation, seed: int) -> dict[str, bytes]:
    """A MAC for each pod and each interface of a host: kept, fixed by annotation, or derived."""
    pods = list(pods)
    fixed = {pod.port: pod.mac for pod in pods if pod.mac is not None}
    names = [*interfaces, *(pod.port for pod in pods)]
    before = {entry.port: entry.mac for entry in allocation.pods} | dict(allocation.interfaces)
    macs = {name: before[name] for name in names if name in before and name not in fixed}
    owners = {mac: name for name, mac in macs.items()}
    problems: list[Problem] = []
    for pod in pods:
        if pod.mac is None:
            continue
        if owners.setdefault(pod.mac, pod.port) != pod.port:
            message = f"it asks for the MAC address {format_mac(pod.mac)}, which {owners[pod.mac]} has"
            problems.append(_fault(pod, message))
        macs[pod.port] = pod.mac
    if problems:
        raise BadInput(problems)
    for name in names:
        attempt = 0
        while name not in macs:
            mac = derive_mac(seed, name, attempt)
            if owners.setdefault(mac, name) == name:
                macs[name] = mac
            attempt += 1
    return macs


def _fault(pod: Pod, message: str) -> Problem:
    origin = pod.origin
    place = (origin.file, origin.line, origin.column) if origin is not None else ("<pods>", 1, 1)
    return Problem(*place, "metadata.name", f"{pod.port}: {message}")
