"""What a World is made of, as values.

`cluster.compile` produces a `WorldConfig`; `fabric.World.configure` turns it into
devices and wires, keeping what was learned wherever the configuration of an
element did not change. Everything here is frozen, hashable and picklable, and
addresses are bytes (4 or 16), MACs 6 bytes (see `emunet.packet.address`).

Rule of this file: values only. No behaviour, no defaults that depend on time or chance.
"""

from __future__ import annotations

from dataclasses import dataclass

from emunet.elements.interface import Interface
from emunet.elements.neighbor import StaticNeighbor
from emunet.elements.routes import Route, RouteKind
from emunet.elements.vxlan import Vxlan
from emunet.packet.address import InterfaceAddress


@dataclass(frozen=True, slots=True)
class Bridge:
    """A learning bridge. `interface` names the Interface that is the bridge's own
    (local) port, or is empty for a plain switch. `ports` are device port names."""

    ports: tuple[str, ...]
    interface: str = ""
    ageing_ns: int = 300 * 1_000_000_000
    capacity: int = 16384


@dataclass(frozen=True, slots=True)
class Port:
    """An attachment point of a device: a wire or an edge is joined to it by name."""

    name: str
    mtu: int = 1500


@dataclass(frozen=True, slots=True)
class HostConfig:
    """A machine that forwards and runs pods: its ports, interfaces and tables."""

    name: str
    ports: tuple[Port, ...]
    interfaces: tuple[Interface, ...]
    routes: tuple[Route, ...] = ()
    neighbors: tuple[StaticNeighbor, ...] = ()
    bridges: tuple[Bridge, ...] = ()
    vxlans: tuple[Vxlan, ...] = ()


@dataclass(frozen=True, slots=True)
class SwitchConfig:
    """A plain Ethernet switch: one learning bridge over all its ports."""

    name: str
    ports: tuple[Port, ...]
    ageing_ns: int = 300 * 1_000_000_000
    capacity: int = 16384


@dataclass(frozen=True, slots=True)
class WireConfig:
    """A cable between two device ports, each `(device, port)`."""

    name: str
    a: tuple[str, str]
    b: tuple[str, str]


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
class WorldConfig:
    """Everything `World.configure` needs. Names are unique across all tuples."""

    hosts: tuple[HostConfig, ...] = ()
    switches: tuple[SwitchConfig, ...] = ()
    wires: tuple[WireConfig, ...] = ()
    pods: tuple[PodEdge, ...] = ()
    host_edges: tuple[HostEdge, ...] = ()
    seed: int = 0


__all__ = [
    "Bridge",
    "HostConfig",
    "HostEdge",
    "Interface",
    "PodEdge",
    "Port",
    "Route",
    "RouteKind",
    "StaticNeighbor",
    "SwitchConfig",
    "Vxlan",
    "WireConfig",
    "WorldConfig",
]
