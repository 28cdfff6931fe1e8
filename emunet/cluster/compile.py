"""What is wanted, with its addresses -> the configuration of a World.

One function per kind of thing, each a function of what it is handed. The shape of a host
is flannel's (backends host-gw and vxlan):

    eth0       the underlay
    cni0       a bridge over the pods' ports; the first address of the host's pod range
    flannel.1  VXLAN only; SUBNET.0/32, so that a remote host's range is routed
               `via SUBNET.0 dev flannel.1`, with a permanent neighbour entry for SUBNET.0
               and a static way from that MAC to the remote host's eth0: no flooding, no ARP

Rule of this file: values in, values out; no address is chosen here and no default lives
here. A host's local and broadcast addresses are not routes: the router derives them from
the interfaces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from emunet.cluster.assign import (
    BRIDGE,
    TUNNEL,
    UPLINK,
    Allocation,
    PodAddresses,
    gateway,
    interface_names,
    tunnel_address,
)
from emunet.cluster.check import VXLAN_OVERHEAD
from emunet.cluster.desired import Cluster, Desired, Host, Link, OverlayKind, Pod
from emunet.fabric.config import (
    Bridge,
    HostConfig,
    HostEdge,
    Interface,
    PodEdge,
    Port,
    Route,
    StaticNeighbor,
    SwitchConfig,
    Vxlan,
    WireConfig,
    WorldConfig,
)
from emunet.packet.address import InterfaceAddress


def compile(desired: Desired, allocation: Allocation, seed: int = 0) -> WorldConfig:
    """The World that carries what is wanted. `allocation` comes from `assign` for the same `desired`.

    KeyError where the allocation lacks something.
    """
    cluster = desired.cluster
    macs = dict(allocation.interfaces)
    given = {entry.port: entry for entry in allocation.pods}
    wires, ports = wire_up(cluster)
    pods = [pod for pod in desired.pods if not pod.host_network]
    return WorldConfig(
        hosts=tuple(
            compile_host(cluster, host, [pod.port for pod in pods if pod.host == host.name], macs)
            for host in cluster.hosts
        ),
        switches=tuple(SwitchConfig(switch.name, ports.get(switch.name, ())) for switch in cluster.switches),
        wires=wires,
        pods=tuple(compile_pod(cluster, pod, given[pod.port]) for pod in pods),
        host_edges=tuple(
            HostEdge(f"{host.name}:{name}", host.name, name)
            for host in cluster.hosts
            for name in interface_names(cluster)
        ),
        seed=seed,
    )


def compile_host(cluster: Cluster, host: Host, pods: Sequence[str], macs: Mapping[str, bytes]) -> HostConfig:
    """One host with the ports of its pods. `macs` has every host's interfaces by name (`host1:eth0`)."""
    vxlan = cluster.overlay.kind is OverlayKind.VXLAN
    mtu = pod_mtu(cluster, host)
    interfaces = [
        Interface(UPLINK, macs[f"{host.name}:{UPLINK}"], host.addresses, uplink_mtu(cluster, host)),
        Interface(
            BRIDGE,
            macs[f"{host.name}:{BRIDGE}"],
            tuple(InterfaceAddress(gateway(subnet), subnet.length) for subnet in host.subnets),
            mtu,
        ),
    ]
    if vxlan:
        addresses = tuple(tunnel_address(subnet) for subnet in host.subnets)
        interfaces.append(Interface(TUNNEL, macs[f"{host.name}:{TUNNEL}"], addresses, mtu))
    remotes = [remote for remote in cluster.hosts if remote.name != host.name]
    tunnel = Vxlan(
        TUNNEL,
        cluster.overlay.vni,
        cluster.overlay.port,
        outer_address(host),
        tuple((macs[f"{remote.name}:{TUNNEL}"], outer_address(remote)) for remote in remotes) if vxlan else (),
    )
    return HostConfig(
        name=host.name,
        ports=(Port(UPLINK, uplink_mtu(cluster, host)), *(Port(name, mtu) for name in pods)),
        interfaces=tuple(interfaces),
        routes=(
            *(Route(address.prefix, UPLINK) for address in host.addresses),
            *(Route(subnet, BRIDGE) for subnet in host.subnets),
            *(route for remote in remotes for route in remote_routes(cluster, remote)),
        ),
        neighbors=tuple(
            StaticNeighbor(TUNNEL, subnet.address, macs[f"{remote.name}:{TUNNEL}"])
            for remote in remotes
            for subnet in remote.subnets
        )
        if vxlan
        else (),
        bridges=(Bridge(tuple(pods), BRIDGE),),
        vxlans=(tunnel,) if vxlan else (),
    )


def compile_pod(cluster: Cluster, pod: Pod, given: PodAddresses) -> PodEdge:
    """Where a pod's own stack meets its host."""
    host = cluster.host(pod.host)
    return PodEdge(
        name=pod.port,
        device=pod.host,
        mac=given.mac,
        addresses=given.addresses,
        gateways=tuple(gateway(subnet) for subnet in host.subnets),
        mtu=pod_mtu(cluster, host),
    )


def remote_routes(cluster: Cluster, remote: Host) -> tuple[Route, ...]:
    """The routes by which another host reaches the pods of `remote`."""
    if cluster.overlay.kind is OverlayKind.VXLAN:
        return tuple(Route(subnet, TUNNEL, subnet.address) for subnet in remote.subnets)
    next_hops = {len(address.address): address.address for address in remote.addresses}
    return tuple(Route(subnet, UPLINK, next_hops[len(subnet.address)]) for subnet in remote.subnets)


def wire_up(cluster: Cluster) -> tuple[tuple[WireConfig, ...], dict[str, tuple[Port, ...]]]:
    """The wires, and each switch's ports: numbered 1, 2, ... in the order of the links."""
    switches = {switch.name for switch in cluster.switches}
    ports: dict[str, tuple[Port, ...]] = {}

    def end(device: str, link: Link) -> tuple[str, str]:
        if device not in switches:
            return device, UPLINK
        port = Port(str(len(ports.get(device, ())) + 1), link.mtu)
        ports[device] = (*ports.get(device, ()), port)
        return device, port.name

    wires = tuple(WireConfig(link.name, end(link.a, link), end(link.b, link)) for link in cluster.links)
    return wires, ports


def outer_address(host: Host) -> bytes:
    """The address of a host's eth0 that tunnels use: the IPv4 one where there is one."""
    return host.addresses[0].address


def uplink_mtu(cluster: Cluster, host: Host) -> int:
    """The MTU of a host's eth0: that of its link."""
    return next(link.mtu for link in cluster.links if host.name in (link.a, link.b))


def pod_mtu(cluster: Cluster, host: Host) -> int:
    """The MTU of a host's pods, cni0 and flannel.1: what eth0 carries, less what the overlay adds."""
    overhead = VXLAN_OVERHEAD[len(outer_address(host))] if cluster.overlay.kind is OverlayKind.VXLAN else 0
    return uplink_mtu(cluster, host) - overhead
