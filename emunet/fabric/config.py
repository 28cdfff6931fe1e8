"""What a World is made of, as values.

`cluster.compile` produces a `WorldConfig`; `fabric.World.configure` turns it into
devices and wires, keeping what was learned wherever the configuration of an
element did not change. Everything here is frozen, hashable and picklable, and
addresses are bytes (4 or 16), MACs 6 bytes (see `emunet.packet.address`).

Rule of this file: values only. No behaviour, no defaults that depend on time or chance.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from emunet.elements.connections import Backend, ConnectionsConfig, Masquerade, Publish, ServicePort
from emunet.elements.interface import Interface, Settings
from emunet.elements.isolation import Segment
from emunet.elements.neighbor import StaticNeighbor
from emunet.elements.policies.rules import (
    EVERYWHERE,
    Block,
    Group,
    Permit,
    PodPolicies,
    PoliciesConfig,
    PolicyRules,
    PortRange,
)
from emunet.elements.routes import Route, RouteKind
from emunet.elements.vxlan import Vxlan
from emunet.fabric.impairment import PLAIN, Impairment
from emunet.packet.address import InterfaceAddress


@dataclass(frozen=True, slots=True)
class Bridge:
    """A learning bridge. `interface` names the Interface that is the bridge's own
    (local) port, or is empty for a plain switch. `ports` are device port names.
    With `hairpin` a frame may go back by the port it came from. No frame passes between two `isolated` ports.
    Bit n of `group_forward_mask` lets frames to 01-80-C2-00-00-0n (n above 2) pass.
    """

    ports: tuple[str, ...]
    interface: str = ""
    ageing_ns: int = 300 * 1_000_000_000
    capacity: int = 16384
    hairpin: bool = False
    isolated: tuple[str, ...] = ()
    group_forward_mask: int = 0


@dataclass(frozen=True, slots=True)
class Port:
    """An attachment point of a device: a wire or an edge is joined to it by name."""

    name: str
    mtu: int = 1500


@dataclass(frozen=True, slots=True)
class HostConfig:
    """A machine that forwards and runs pods: its ports, interfaces and tables.

    With `connections` it tracks them and may translate; without, it is a plain router. `policies` are for
    the pods on it, and need `connections`: without, an answer is not known from a question.
    `segments` are bridges that are kept apart from each other and from outside.
    """

    name: str
    ports: tuple[Port, ...]
    interfaces: tuple[Interface, ...]
    routes: tuple[Route, ...] = ()
    neighbors: tuple[StaticNeighbor, ...] = ()
    bridges: tuple[Bridge, ...] = ()
    vxlans: tuple[Vxlan, ...] = ()
    connections: ConnectionsConfig | None = None
    policies: PoliciesConfig = EVERYWHERE
    segments: tuple[Segment, ...] = ()


@dataclass(frozen=True, slots=True)
class SwitchConfig:
    """A plain Ethernet switch: one learning bridge over all its ports. The rest as in `Bridge`."""

    name: str
    ports: tuple[Port, ...]
    ageing_ns: int = 300 * 1_000_000_000
    capacity: int = 16384
    hairpin: bool = False
    isolated: tuple[str, ...] = ()
    group_forward_mask: int = 0


@dataclass(frozen=True, slots=True)
class WireConfig:
    """A cable between two device ports, each `(device, port)`.

    impairments  what goes wrong from `a` to `b`, and from `b` to `a`
    flap         ns that it is up and down, again and again, or None
    """

    name: str
    a: tuple[str, str]
    b: tuple[str, str]
    impairments: tuple[Impairment, Impairment] = (PLAIN, PLAIN)
    up: bool = True
    flap: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class PodEdge:
    """Where a pod's own stack meets a host's port.

    `name` is the global port name (`web-1`, `blue/web-1`) and also the name of the
    port on `device`. `gateways` are the default next hops, one per family at most.
    """

    name: str
    device: str
    mac: bytes
    addresses: tuple[InterfaceAddress, ...]
    gateways: tuple[bytes, ...] = ()
    mtu: int = 1500


@dataclass(frozen=True, slots=True)
class HostEdge:
    """Where a host's own sockets meet its interface: one per `Interface`.

    Named `host1:cni0`. Frames written there enter the device as *locally sent*;
    local delivery goes out there.
    """

    name: str
    device: str
    interface: str


@dataclass(frozen=True, slots=True)
class OutsideConfig:
    """A wire from a switch's port that leaves the lab. `name` is the port's global name (`switch1:vm`).

    kind  `unix`: connect to the socket file `at`; `listen`: be it; `udp`: datagrams from address `at` to `to`;
          `given`: a socket that whoever configures the World hands over, as it does TAPs
    """

    name: str
    device: str
    port: str
    kind: str
    at: str
    to: str = ""
    mtu: int = 1500


@dataclass(frozen=True, slots=True)
class WorldConfig:
    """Everything `World.configure` needs. Names are unique across all tuples.

    `services` are those of every host that tracks connections. `routers` forward as hosts do, and nothing else:
    there are no pods, no programs and no Services on them.
    """

    hosts: tuple[HostConfig, ...] = ()
    switches: tuple[SwitchConfig, ...] = ()
    wires: tuple[WireConfig, ...] = ()
    pods: tuple[PodEdge, ...] = ()
    host_edges: tuple[HostEdge, ...] = ()
    outside: tuple[OutsideConfig, ...] = ()
    seed: int = 0
    services: tuple[ServicePort, ...] = ()
    routers: tuple[HostConfig, ...] = ()

    @property
    def machines(self) -> tuple[HostConfig, ...]:
        """All that forwards as a host does: hosts, then routers."""
        return (*self.hosts, *self.routers)


def router_edges(config: WorldConfig) -> tuple[HostEdge, ...]:
    """Where the routers' own stacks are, always in memory: nobody runs programs there, and they answer to a ping.

    Not where a wire leaves the lab, whose end has that name.
    """
    taken = {one.name for one in config.outside}
    edges = (
        HostEdge(f"{one.name}:{port.name}", one.name, port.name) for one in config.routers for port in one.interfaces
    )
    return tuple(edge for edge in edges if edge.name not in taken)


def without_policies(config: WorldConfig) -> WorldConfig:
    """The same with no policy and no Service anywhere: all that a change of these leaves as it is."""
    return replace(config, services=(), hosts=tuple(replace(host, policies=EVERYWHERE) for host in config.hosts))


__all__ = [
    "EVERYWHERE",
    "PLAIN",
    "Backend",
    "Block",
    "Bridge",
    "ConnectionsConfig",
    "Group",
    "HostConfig",
    "HostEdge",
    "Impairment",
    "Interface",
    "Masquerade",
    "OutsideConfig",
    "Permit",
    "PodEdge",
    "PodPolicies",
    "PoliciesConfig",
    "PolicyRules",
    "Port",
    "PortRange",
    "Publish",
    "Route",
    "RouteKind",
    "Segment",
    "ServicePort",
    "Settings",
    "StaticNeighbor",
    "SwitchConfig",
    "Vxlan",
    "WireConfig",
    "WorldConfig",
    "router_edges",
    "without_policies",
]
