"""What is wanted, with its addresses -> the configuration of a World.

One function per kind of thing, each a function of what it is handed. The shape of a host
is flannel's (backends host-gw and vxlan):

    eth0       the underlay
    cni0       a bridge over the pods' ports; the first address of the host's pod range
    flannel.1  VXLAN only; SUBNET.0/32, so that a remote host's range is routed
               `via SUBNET.0 dev flannel.1`, with a permanent neighbour entry for SUBNET.0
               and a static way from that MAC to the remote host's eth0: no flooding, no ARP

With `podLinks: routed` pods are joined as Calico joins them (fidelity CAL-01 to CAL-05): no
cni0; each pod's port is an interface of its own without an IPv4 address, whose MAC is
ee:ee:ee:ee:ee:ee; the pod has a /32 and 169.254.1.1 for a next hop, for which that interface
answers by proxy ARP; the host routes the /32 there, and the rest of its range nowhere.

Where the topology asks for it, hosts masquerade by flannel's rules and publish ports by
those of CNI's portmap; both make a host track connections, and so do Services. What the
containers of a host's own engine need is added by `docker.compile`.

A node of a real cluster has a default route; ours has one for the service range, so that its own
sockets can call Services, and what no Service takes leaks to the underlay as it does there (SVC-07,
SVC-20).

Rule of this file: values in, values out; no address is chosen here and no default lives
here. A host's local and broadcast addresses are not routes: the router derives them from
the interfaces.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

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
from emunet.cluster.desired import (
    Cluster,
    Desired,
    Host,
    Link,
    Masquerade,
    OverlayKind,
    Pod,
    PodLinks,
    PolicyMode,
    Publish,
)
from emunet.cluster.docker.compile import with_engines
from emunet.cluster.gateway import with_gateway
from emunet.cluster.mtu import VXLAN_OVERHEAD
from emunet.cluster.policing import Policing, stations
from emunet.cluster.service_rows import PROTOCOLS
from emunet.fabric.config import (
    EVERYWHERE,
    Bridge,
    ConnectionsConfig,
    HostConfig,
    HostEdge,
    Interface,
    OutsideConfig,
    PodEdge,
    PoliciesConfig,
    Port,
    Route,
    RouteKind,
    Settings,
    StaticNeighbor,
    SwitchConfig,
    Vxlan,
    WireConfig,
    WorldConfig,
)
from emunet.fabric.config import Masquerade as Masquerading
from emunet.fabric.config import Publish as Publishing
from emunet.packet.address import InterfaceAddress, Prefix, format_ip, link_local, parse_ip

MULTICAST = {4: Prefix.parse("224.0.0.0/4"), 16: Prefix.parse("ff00::/8")}
POD_LINK_MAC = b"\xee" * 6
"""The MAC of every routed pod's host end: nobody else sees it, so one serves for all (CAL-02)."""

ROUTED_GATEWAYS = {4: parse_ip("169.254.1.1"), 16: link_local(POD_LINK_MAC)}
LAST_RESORT = 1000
"""The metric of routes that stand for the default route that hosts have not."""

LINK_LOCAL_NETWORK = Prefix.parse("169.254.0.0/16")


def compile(desired: Desired, allocation: Allocation, seed: int = 0, policing: Policing | None = None) -> WorldConfig:
    """The World that carries what is wanted. `allocation` comes from `assign` for the same `desired`.

    `policing` remembers what was compiled before, and changes nothing but the time that it takes.
    KeyError where the allocation lacks something.
    """
    cluster = desired.cluster
    macs = dict(allocation.interfaces)
    given = {entry.port: entry for entry in allocation.pods}
    wires, ports = wire_up(cluster)
    pods = [pod for pod in desired.pods if not pod.host_network]
    policies = compile_policies(desired, allocation, policing)
    world = WorldConfig(
        hosts=tuple(
            compile_host(
                cluster,
                replace(host, publish=(*host.publish, *host_ports(host, pods))),
                [given[pod.port] for pod in pods if pod.host == host.name],
                macs,
                policies.get(host.name),
                serving=bool(desired.services),
            )
            if host.node
            else compile_outsider(cluster, host, macs)
            for host in cluster.hosts
        ),
        switches=tuple(
            SwitchConfig(switch.name, (*ports.get(switch.name, ()), *(Port(one.name) for one in switch.outside)))
            for switch in cluster.switches
        ),
        wires=wires,
        pods=tuple(compile_pod(cluster, pod, given[pod.port]) for pod in pods),
        host_edges=tuple(
            HostEdge(f"{host.name}:{name}", host.name, name)
            for host in cluster.hosts
            for name in interface_names(cluster, host)
        ),
        outside=tuple(
            OutsideConfig(f"{switch.name}:{one.name}", switch.name, one.name, one.kind, one.at, one.to)
            for switch in cluster.switches
            for one in switch.outside
        ),
        seed=seed,
        services=desired.services,
    )
    return with_gateway(with_engines(world, desired.engines), cluster, macs)


def compile_policies(
    desired: Desired, allocation: Allocation, policing: Policing | None = None
) -> dict[str, PoliciesConfig]:
    """What each host is told of policies; without any policy nobody is."""
    if not desired.policies.policies:
        return {}
    per_packet = desired.cluster.network_policy is PolicyMode.PACKET
    pods, hosts = stations(desired.pods, allocation), dict(host_names(desired.cluster))
    found = (policing or Policing()).compile(desired.policies, pods, hosts, per_packet=per_packet)
    return {host.name: found.get(host.name, EVERYWHERE) for host in desired.cluster.hosts}


def host_names(cluster: Cluster) -> Iterator[tuple[bytes, str]]:
    """How people call the addresses of hosts, the address itself included: a host has several."""
    for host in cluster.hosts:
        own = [entry.address for entry in host.addresses]
        own += [gateway(subnet) for subnet in host.subnets] if cluster.pod_links is PodLinks.BRIDGE else []
        own += [subnet.address for subnet in host.subnets] if cluster.overlay.kind is OverlayKind.VXLAN else []
        for address in own:
            yield address, f"{host.name} ({format_ip(address)})"


def compile_host(
    cluster: Cluster,
    host: Host,
    pods: Sequence[PodAddresses],
    macs: Mapping[str, bytes],
    policies: PoliciesConfig | None = None,
    *,
    serving: bool = False,
) -> HostConfig:
    """One host with the ports of its pods. `macs` has every host's interfaces by name (`host1:eth0`).

    `policies` None: there are none anywhere. `serving`: there are Services.
    """
    vxlan = cluster.overlay.kind is OverlayKind.VXLAN
    routed = cluster.pod_links is PodLinks.ROUTED
    mtu = pod_mtu(cluster, host)
    interfaces = [Interface(UPLINK, macs[f"{host.name}:{UPLINK}"], host.addresses, uplink_mtu(cluster, host))]
    if not routed:
        addresses = tuple(InterfaceAddress(gateway(subnet), subnet.length) for subnet in host.subnets)
        interfaces.append(Interface(BRIDGE, macs[f"{host.name}:{BRIDGE}"], addresses, mtu))
    if vxlan:
        addresses = tuple(tunnel_address(subnet) for subnet in host.subnets)
        interfaces.append(Interface(TUNNEL, macs[f"{host.name}:{TUNNEL}"], addresses, mtu))
    if routed:
        interfaces += [pod_link(pod, mtu) for pod in pods]
    remotes = [remote for remote in cluster.nodes if remote.name != host.name]
    tunnel = Vxlan(
        TUNNEL,
        cluster.overlay.vni,
        cluster.overlay.port,
        outer_address(host),
        tuple((macs[f"{remote.name}:{TUNNEL}"], outer_address(remote)) for remote in remotes) if vxlan else (),
    )
    return HostConfig(
        name=host.name,
        ports=(Port(UPLINK, uplink_mtu(cluster, host)), *(Port(pod.port, mtu) for pod in pods)),
        interfaces=tuple(interfaces),
        routes=(
            *(Route(address.prefix, UPLINK) for address in host.addresses),
            *(pod_routes(host, pods) if routed else (Route(subnet, BRIDGE) for subnet in host.subnets)),
            *(route for remote in remotes for route in remote_routes(cluster, host, remote)),
            *service_routes(cluster, host),
        ),
        neighbors=tuple(
            StaticNeighbor(TUNNEL, subnet.address, macs[f"{remote.name}:{TUNNEL}"])
            for remote in remotes
            for subnet in remote.subnets
        )
        if vxlan
        else (),
        bridges=()
        if routed
        else (Bridge(tuple(pod.port for pod in pods), BRIDGE, hairpin=serving or bool(host.publish)),),
        vxlans=(tunnel,) if vxlan else (),
        connections=compile_connections(cluster, host, pods, policed=policies is not None, serving=serving),
        policies=policies or EVERYWHERE,
    )


def compile_outsider(cluster: Cluster, host: Host, macs: Mapping[str, bytes]) -> HostConfig:
    """A host that is no node: it knows its own network, and nothing of pods and Services."""
    mtu = uplink_mtu(cluster, host)
    return HostConfig(
        name=host.name,
        ports=(Port(UPLINK, mtu),),
        interfaces=(Interface(UPLINK, macs[f"{host.name}:{UPLINK}"], host.addresses, mtu),),
        routes=tuple(Route(address.prefix, UPLINK) for address in host.addresses),
    )


def service_routes(cluster: Cluster, host: Host) -> Iterator[Route]:
    """Where what is sent to Services goes as long as no Service takes it: to the underlay, which nobody answers on."""
    families = {len(address.address) for address in host.addresses}
    for prefix in cluster.ranges.services:
        if len(prefix.address) in families:
            yield Route(prefix, UPLINK, metric=LAST_RESORT)


def pod_link(pod: PodAddresses, mtu: int) -> Interface:
    """The host's end of a routed pod's link (Calico's caliXXXX): no address of its own but the link-local one."""
    speaks_ipv6 = any(len(entry.address) == 16 for entry in pod.addresses)
    addresses = (InterfaceAddress(link_local(POD_LINK_MAC), 64),) if speaks_ipv6 else ()
    return Interface(pod.port, POD_LINK_MAC, addresses, mtu, Settings(proxy_arp=True, proxy_delay=0))


def pod_routes(host: Host, pods: Sequence[PodAddresses]) -> Iterator[Route]:
    """The way to each routed pod, and silence for the rest of the host's range (CAL-05).

    Proxy ARP answers only for what is routed elsewhere (CAL-03). A node has its default route for that; ours has
    the route for link-local addresses that many systems have.
    """
    for pod in pods:
        for entry in pod.addresses:
            yield Route(Prefix.of(entry.address, len(entry.address) * 8), pod.port)
    for subnet in host.subnets:
        yield Route(subnet, kind=RouteKind.BLACKHOLE)
    yield Route(LINK_LOCAL_NETWORK, UPLINK, metric=LAST_RESORT)


def compile_connections(
    cluster: Cluster, host: Host, pods: Sequence[PodAddresses], *, policed: bool = False, serving: bool = False
) -> ConnectionsConfig | None:
    """What a host translates, or None: it tracks nothing. It must where policies are: answers pass (NP-04).

    Where there are Services it drops what is of no connection (SVC-40).
    """
    translates = cluster.masquerade is not None or bool(host.publish)
    if not translates and cluster.network_policy is None and not policed and not serving:
        return None
    return ConnectionsConfig(
        () if cluster.masquerade is None else tuple(masquerade_rows(cluster, host, cluster.masquerade)),
        tuple(publish_rows(host, pods)),
        cluster.ranges.pods if serving else (),
        drop_invalid=serving,
    )


def masquerade_rows(cluster: Cluster, host: Host, wish: Masquerade) -> Iterator[Masquerading]:
    """Flanneld's rules in its order (fidelity 1.9), with the service range and the exceptions left alone too."""
    for pods in cluster.ranges.pods:
        own = tuple(subnet for subnet in host.subnets if pods.contains(subnet.address))
        spared = (MULTICAST[len(pods.address)], *cluster.ranges.services, *wish.exceptions)
        yield Masquerading(own, destinations=(pods,), keep=True)
        yield Masquerading((pods,), destinations=own, keep=True)
        yield Masquerading(not_sources=(pods,), destinations=own, keep=True)
        yield Masquerading((pods,), destinations=spared, keep=True)
        yield Masquerading((pods,), random_fully=True)
        yield Masquerading(not_sources=(pods,), destinations=(pods,), random_fully=True)


def host_ports(host: Host, pods: Iterable[Pod]) -> Iterator[Publish]:
    """The hostPorts of the containers of a host's pods (fidelity 1.5). Of SCTP none: see `service_rows`."""
    for pod in pods:
        for port in (one for container in pod.containers for one in container.ports if pod.host == host.name):
            if port.host_port and port.protocol in PROTOCOLS:
                yield Publish(port.host_port, port.protocol, pod.port, port.number, port.host_address)


def publish_rows(host: Host, pods: Sequence[PodAddresses]) -> Iterator[Publishing]:
    """A row for each family that the pod has, and the host's address, where one is given, is of.

    A pod that is not there (yet, or any more) has no ports to publish.
    """
    given = {pod.port: pod for pod in pods}
    for row in host.publish:
        if row.pod not in given:
            continue
        for entry in given[row.pod].addresses:
            if row.host_address is not None and len(row.host_address) != len(entry.address):
                continue
            yield Publishing(
                PROTOCOLS[row.protocol],
                row.port,
                entry.address,
                row.target_port,
                row.host_address or b"",
                tuple(subnet for subnet in host.subnets if subnet.contains(entry.address)),
            )


def compile_pod(cluster: Cluster, pod: Pod, given: PodAddresses) -> PodEdge:
    """Where a pod's own stack meets its host."""
    host = cluster.host(pod.host)
    addresses, gateways = given.addresses, tuple(gateway(subnet) for subnet in host.subnets)
    if cluster.pod_links is PodLinks.ROUTED:
        addresses = tuple(InterfaceAddress(entry.address, len(entry.address) * 8) for entry in addresses)
        gateways = tuple(ROUTED_GATEWAYS[len(entry.address)] for entry in addresses)
    return PodEdge(
        name=pod.port,
        device=pod.host,
        mac=given.mac,
        addresses=addresses,
        gateways=gateways,
        mtu=pod_mtu(cluster, host),
    )


def remote_routes(cluster: Cluster, host: Host, remote: Host) -> tuple[Route, ...]:
    """The routes by which `host` reaches the pods of `remote`."""
    next_hops = {len(address.address): address.address for address in remote.addresses}
    networks = {len(address.address): address.prefix for address in host.addresses}

    def to(subnet: Prefix) -> Route:
        family = len(subnet.address)
        if cluster.overlay.kind is OverlayKind.VXLAN and not (
            cluster.overlay.direct_routing
            and family in next_hops
            and family in networks
            and networks[family].contains(next_hops[family])
        ):
            return Route(subnet, TUNNEL, subnet.address)
        return Route(subnet, UPLINK, next_hops[family])

    return tuple(to(subnet) for subnet in remote.subnets)


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

    wires = tuple(
        WireConfig(link.name, end(link.a, link), end(link.b, link), link.impairments, link.up, link.flap)
        for link in cluster.links
    )
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
