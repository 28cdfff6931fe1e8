"""Edge: where a pod's or a host's own stack meets a port.

On memory wires the stack is our endpoint (`MemoryEdge`); with TAPs it is the
kernel's (`linux.tap_edge`). The World sees only this contract.

Rule of this file: an edge never calls back into a walk; what its stack answers is
returned, and the World lets it in afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from emunet.elements.endpoint.stack import Endpoint
from emunet.fabric.config import HostConfig, HostEdge, PodEdge, WorldConfig
from emunet.packet.address import InterfaceAddress
from emunet.packet.offload import Offload, split
from emunet.packet.view import Packet
from emunet.plane.table import NEVER

FROZEN_QUEUE = 1000
"""Frames that wait for a frozen stack: what a TAP's own queue holds (txqueuelen)."""


class Edge(Protocol):
    """An end of the World.

    name       global port name (`web-1`, `host1:cni0`)
    device     the device it is attached to, and `entry` there (`web-1`, `local:cni0`)
    mac, addresses, gateways, mtu   what its stack is configured with; no MAC (b""): there are any number behind it
    keeps_time  whether its stack has timers that the World must wake (a kernel has its own)
    """

    keeps_time: bool

    name: str
    device: str
    entry: str
    mac: bytes
    addresses: tuple[InterfaceAddress, ...]
    gateways: tuple[bytes, ...]
    mtu: int

    def deliver(self, frame: bytes, offload: Offload | None, now: int) -> Sequence[bytes] | None:
        """Give a frame to the stack: what it sends at once, or None when its queue is full."""
        ...

    def due(self) -> int:
        """When its stack wants to be woken (ns), or NEVER."""
        ...

    def wake(self, now: int) -> Sequence[bytes]:
        """Let its stack's timers run: what it sends."""
        ...


class MemoryEdge:
    """An end whose stack is our own endpoint."""

    keeps_time = True

    def __init__(
        self,
        name: str,
        device: str,
        entry: str,
        endpoint: Endpoint,
        mac: bytes,
        addresses: tuple[InterfaceAddress, ...],
        gateways: tuple[bytes, ...],
        mtu: int,
    ) -> None:
        self.name = name
        self.device = device
        self.entry = entry
        self.endpoint = endpoint
        self.mac = mac
        self.addresses = addresses
        self.gateways = gateways
        self.mtu = mtu

    def deliver(self, frame: bytes, offload: Offload | None, now: int) -> Sequence[bytes]:
        """Hand over wire frames, whatever the offload."""
        if offload is None:
            return self.endpoint.receive(frame, now)
        answers: list[bytes] = []
        for piece in split(frame, offload):
            answers += self.endpoint.receive(piece, now)
        return answers

    def due(self) -> int:
        """The endpoint's next timer."""
        due = self.endpoint.due()
        return NEVER if due is None else due

    def wake(self, now: int) -> Sequence[bytes]:
        """Run the endpoint's timers."""
        return self.endpoint.wake(now)


class FrozenEdge:
    """An end whose stack does nothing until it is thawed: what comes waits, and what comes then is refused.

    As with a process that was sent SIGSTOP: its queue takes what fits, and its timers stand still.
    """

    keeps_time = False

    def __init__(self, edge: Edge) -> None:
        self.edge = edge
        self.name = edge.name
        self.device = edge.device
        self.entry = edge.entry
        self.mac = edge.mac
        self.addresses = edge.addresses
        self.gateways = edge.gateways
        self.mtu = edge.mtu
        self.waiting: list[tuple[bytes, Offload | None]] = []

    def deliver(self, frame: bytes, offload: Offload | None, now: int) -> Sequence[bytes] | None:
        """Keep it for later, as long as there is room."""
        if len(self.waiting) >= FROZEN_QUEUE:
            return None
        self.waiting.append((frame, offload))
        return ()

    def due(self) -> int:
        """Never."""
        return NEVER

    def wake(self, now: int) -> Sequence[bytes]:
        """Nothing."""
        return ()

    def thaw(self, now: int) -> list[bytes]:
        """What its stack sends when it gets at last what waited, and its timers run again."""
        answers: list[bytes] = []
        for frame, offload in self.waiting:
            answers += self.edge.deliver(frame, offload, now) or ()
        return [*answers, *self.edge.wake(now)]


class MemoryEdges:
    """Makes the ends of a World on memory wires: an endpoint for each pod, and one for all interfaces of a host."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._hosts: dict[str, tuple[HostConfig, Endpoint]] = {}

    def make(self, wanted: PodEdge | HostEdge, config: WorldConfig) -> MemoryEdge:
        """The end that a configuration describes."""
        if isinstance(wanted, PodEdge):
            endpoint = Endpoint(
                wanted.name, wanted.mac, wanted.addresses, wanted.gateways, mtu=wanted.mtu, seed=self._seed
            )
            return MemoryEdge(
                wanted.name, wanted.device, wanted.name, endpoint, wanted.mac, wanted.addresses, wanted.gateways,
                wanted.mtu,
            )  # fmt: skip
        host = next(host for host in config.machines if host.name == wanted.device)
        interface = next(one for one in host.interfaces if one.name == wanted.interface)
        return MemoryEdge(
            wanted.name, host.name, f"local:{interface.name}", self._stack_of(host), interface.mac,
            interface.addresses, (), interface.mtu,
        )  # fmt: skip

    def _stack_of(self, host: HostConfig) -> Endpoint:
        """A host's own stack: the same for all its interfaces, anew when these have changed."""
        known = self._hosts.get(host.name)
        if known is not None and known[0].interfaces == host.interfaces:
            return known[1]
        first = host.interfaces[0]
        addresses = tuple(address for interface in host.interfaces for address in interface.addresses)
        mtu = min(interface.mtu for interface in host.interfaces)
        endpoint = Endpoint(host.name, first.mac, addresses, mtu=mtu, seed=self._seed, noarp=True)
        self._hosts[host.name] = (host, endpoint)
        return endpoint


def overhears(edge: Edge, packet: Packet) -> bool:
    """Whether a frame is for another station's MAC: a bridge flooded it, and the stack will ignore it."""
    if not edge.mac or edge.entry.startswith("local:"):
        return False
    return packet.destination != edge.mac and not packet.destination[0] & 1
