"""The cluster as it is wanted: one frozen value, with every default filled in and every pod on a host.

Everything is in a fixed order (hosts, switches and links as the topology lists them, pods by
namespace and name), whatever the order of the documents was that it was built from (`build`).

Rule of this file: values only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from emunet.cluster import topology
from emunet.cluster.check_pods import port_name
from emunet.cluster.docker.values import EMPTY, Engine, Furniture
from emunet.cluster.load import Problem
from emunet.cluster.policies import NO_POLICIES, PolicySet
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
class Way:
    """The gateway's addresses of one family; `next_hop` is the program that leads outside, in a range of its own."""

    inside: InterfaceAddress
    outside: InterfaceAddress
    next_hop: bytes


@dataclass(frozen=True, slots=True)
class Gateway:
    """The way to the outside (`gateway`): where it is plugged in, IPv4's way and IPv6's, and the machine's resolver."""

    switch: str
    ipv4: Way
    ipv6: Way | None = None
    resolver: bytes | None = None

    @property
    def ways(self) -> tuple[Way, ...]:
        """All there are."""
        return (self.ipv4,) if self.ipv6 is None else (self.ipv4, self.ipv6)


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
