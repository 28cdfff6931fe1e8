"""What the sandboxes of a lab are to be: from the wanted state to the keeper's specifications.

A pod is one namespace with `eth0`. A host's own sandbox has a TAP for each of its interfaces,
without ARP and without forwarding: what its kernel writes there enters the data plane as sent
by the host, and every other decision about frames is the data plane's. Its routes are the
host's, so that its programs send from the address that a real host would send from.

Each has a root of its own: what its containers do to files, the machine does not notice.

Rule of this file: values in, values out; nothing is started here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from emunet.cluster import pod_files
from emunet.cluster.desired import Container, Pod
from emunet.cluster.docker.values import Network
from emunet.cluster.plan import PodState, State
from emunet.cluster.store import Object
from emunet.daemon.settings import Settings
from emunet.elements.routes import Route, RouteKind
from emunet.fabric.config import HostConfig, Interface, PodEdge, WorldConfig
from emunet.linux.specification import InterfaceSpec, NeighborSpec, ProgramSpec, RouteSpec, SandboxSpec
from emunet.linux.tap import OFFLOAD_ALL_TCP
from emunet.packet.address import format_ip, format_mac, is_link_local

GSO_MAX_SIZE = 65_536 - 256
"""Bytes of the largest uncut TCP frame: with all headers around it, its length still fits 16 bits."""

_NAME_SERVICES = """passwd: files
group: files
hosts: files dns
networks: files
"""


def pod_sandbox(port: str) -> str:
    """The sandbox of a pod, by its global port name: never that of a host, whatever pods are called."""
    return port if "/" in port else f"default/{port}"


def container_sandbox(host: str, container: str) -> str:
    """The sandbox of a container of a host's engine, by the container's id."""
    return f"docker/{host}/{container[:12]}"


def host_interfaces(world: WorldConfig, host: HostConfig) -> tuple[Interface, ...]:
    """The interfaces of a host where its own sockets are, in order: those that an edge is for."""
    joined = {edge.interface for edge in world.host_edges if edge.device == host.name}
    return tuple(interface for interface in host.interfaces if interface.name in joined)


def host_spec(world: WorldConfig, config: HostConfig, names: str, offload: bool) -> SandboxSpec:
    """A host's own sandbox. `names` is the text of its /etc/hosts."""
    return SandboxSpec(
        id=config.name,
        hostname=config.name,
        interfaces=tuple(
            InterfaceSpec(
                interface.name,
                format_mac(interface.mac),
                tuple(map(str, interface.addresses)),
                mtu=interface.mtu,
                arp=False,
                vnet_header=True,
                offload=OFFLOAD_ALL_TCP if offload else 0,
                gso_max_size=GSO_MAX_SIZE,
            )
            for interface in host_interfaces(world, config)
        ),
        routes=tuple(_host_routes(config)),
        files=_files(config.name, names),
        # What a host's own packet meets is told to it from its own address: a kernel believes that only if asked to.
        sysctls={"net.ipv4.conf.all.accept_local": "1"},
        root="isolated",
    )


def bridge_spec(settings: Settings, network: Network) -> InterfaceSpec:
    """A host's own side of a bridge of its engine."""
    return InterfaceSpec(
        network.interface,
        format_mac(network.mac),
        tuple(f"{format_ip(pool.gateway)}/{pool.subnet.length}" for pool in network.pools),
        mtu=network.mtu,
        arp=False,
        vnet_header=True,
        offload=OFFLOAD_ALL_TCP if settings.offload else 0,
        gso_max_size=GSO_MAX_SIZE,
    )


CROWDED = {"base_reachable_time_ms": "2000", "delay_first_probe_time": "1"}
"""Of pods among so many that the kernel's one table of neighbours may be full: an entry that is confirmed, or waits to
be, is never given up for another, so it is to be neither for long. It costs an ARP request to who is known already."""


def known_gateways(pod: PodState, world: WorldConfig) -> tuple[NeighborSpec, ...]:
    """Permanent entries for a pod's gateways, which the kernel does not count where its table of neighbours ends."""
    edge = pod.edge
    host = next((host for host in world.hosts if edge is not None and host.name == edge.device), None)
    if edge is None or host is None:
        return ()
    macs = {one.address: interface.mac for interface in host.interfaces for one in interface.addresses}
    return tuple(
        NeighborSpec("eth0", format_ip(gateway), format_mac(macs[gateway]))
        for gateway in edge.gateways
        if gateway in macs
    )


def pod_spec(
    pod: PodState, names: Mapping[str, str], offload: bool, neighbors: tuple[NeighborSpec, ...] = ()
) -> SandboxSpec:
    """A pod's sandbox; `names` are its files by which names are found (`name_files`).

    One with hostNetwork has its files and processes for itself, and its host's network and name.
    """
    edge = pod.edge
    if edge is None:
        files = {"/etc/hostname": f"{pod.pod.host}\n", "/etc/nsswitch.conf": _NAME_SERVICES, **names}
        return SandboxSpec(pod_sandbox(pod.name), pod.pod.host, files=files, root="isolated", network_of=pod.pod.host)
    return SandboxSpec(
        id=pod_sandbox(pod.name),
        hostname=pod.pod.machine_name,
        interfaces=(
            InterfaceSpec(
                "eth0",
                format_mac(edge.mac),
                tuple(map(str, edge.addresses)),
                mtu=edge.mtu,
                vnet_header=True,
                offload=OFFLOAD_ALL_TCP if offload else 0,
                gso_max_size=GSO_MAX_SIZE,
            ),
        ),
        routes=tuple(_pod_routes(edge)),
        neighbors=neighbors,
        sysctls={
            f"net.ipv{4 if len(address) == 4 else 6}.neigh.eth0.{name}": value
            for address in ((row.address for row in edge.addresses) if neighbors else ())
            for name, value in CROWDED.items()
        },
        files={"/etc/hostname": f"{pod.pod.machine_name}\n", "/etc/nsswitch.conf": _NAME_SERVICES, **names},
        root="isolated",
    )


def _pod_routes(edge: PodEdge) -> Iterable[RouteSpec]:
    """A pod's default routes. A next hop that is on no network of the pod's gets a route of its own (CAL-01)."""
    for gateway in edge.gateways:
        family = len(gateway)
        near = any(one.prefix.contains(gateway) for one in edge.addresses) or (family == 16 and is_link_local(gateway))
        if not near:
            yield RouteSpec(f"{format_ip(gateway)}/{family * 8}", None, "eth0")
        yield RouteSpec("0.0.0.0/0" if family == 4 else "::/0", format_ip(gateway), "eth0")


def container_spec(pod: Pod, container: Container) -> ProgramSpec | None:
    """The program of a container; None where it names none (images are not run: the pause is all there is)."""
    if not container.command and not container.args:
        return None
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOSTNAME": pod.machine_name,
        "HOME": "/root",
        **dict(container.environment),
    }
    return ProgramSpec(
        argv=(*container.command, *container.args),
        environment=environment,
        directory=container.working_directory or "/",
        own_processes=True,
    )


def name_files(pod: PodState, item: Object, state: State, server: str | None, domain: str) -> dict[str, str]:
    """The files by which a pod's programs find names. `server`: the cluster's name server, None where it has none."""
    if pod.edge is None:
        hosts = pod_files.HOST_HEAD + hosts_file(state) + pod_files.aliases_of(item)
    else:
        own = [format_ip(address.address) for address in pod.edge.addresses]
        hosts = pod_files.hosts_file(item, own, domain, lab_names(state, but=pod.name) if server is None else ())
    return {
        "/etc/hosts": hosts,
        "/etc/resolv.conf": pod_files.resolv_conf(item, server, domain).as_text(),
    }


def hosts_file(state: State) -> str:
    """The /etc/hosts of hosts: all pods and hosts of the lab."""
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    lines += [f"{address} {name}" for address, name in lab_names(state)]
    return "\n".join(lines) + "\n"


def lab_names(state: State, but: str = "") -> Iterator[tuple[str, str]]:
    """(address, name) of all hosts and pods of the lab, except the pod `but`."""
    for host in state.hosts:
        for address in host.interfaces[0].addresses:
            yield format_ip(address.address), host.name
    for pod in state.pods:
        if pod.edge is not None and pod.name != but:
            name = pod.pod.name if pod.pod.namespace == "default" else f"{pod.pod.name}.{pod.pod.namespace}"
            for address in pod.edge.addresses:
                yield format_ip(address.address), name


def _files(hostname: str, names: str) -> dict[str, str]:
    return {
        "/etc/hosts": names,
        "/etc/hostname": f"{hostname}\n",
        "/etc/resolv.conf": pod_files.NO_SERVER,
        "/etc/nsswitch.conf": _NAME_SERVICES,
    }


def _host_routes(config: HostConfig) -> Iterable[RouteSpec]:
    """The host's routes, but those that its kernel makes by itself of its addresses."""
    own = {
        (interface.name, address.prefix)
        for interface in config.interfaces
        for address in interface.addresses
        if address.length < len(address.address) * 8
    }
    # A pod's own link is no interface of the host's kernel: what goes there leaves by the first that is, and the
    # device routes it on.
    sockets = [interface.name for interface in config.interfaces if interface.has_sockets]
    for route in config.routes:
        if route.kind is not RouteKind.UNICAST or (route.via is None and (route.interface, route.prefix) in own):
            continue
        yield RouteSpec(
            str(route.prefix),
            None if route.via is None else format_ip(route.via),
            route.interface if route.interface in sockets else sockets[0],
            onlink=route.via is not None and not _is_on_link(config, route),
            metric=route.metric,
        )


def _is_on_link(config: HostConfig, route: Route) -> bool:
    """Whether a route's next hop is in a network of its interface, so that the kernel believes it."""
    interface = next(one for one in config.interfaces if one.name == route.interface)
    via = route.via or b""
    return any(address.prefix.contains(via) and address.address != via for address in interface.addresses)
