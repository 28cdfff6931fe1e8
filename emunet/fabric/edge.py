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
from emunet.packet.address import InterfaceAddress
from emunet.packet.offload import split
from emunet.packet.view import Packet
from emunet.plane.table import NEVER


class Edge(Protocol):
    """An end of the World.

    name       global port name (`web-1`, `host1:cni0`)
    device     the device it is attached to, and `entry` there (`web-1`, `local:cni0`)
    mac, addresses, gateways, mtu   what its stack is configured with
    """

    name: str
    device: str
    entry: str
    mac: bytes
    addresses: tuple[InterfaceAddress, ...]
    gateways: tuple[bytes, ...]
    mtu: int

    def deliver(self, packet: Packet, now: int) -> Sequence[bytes] | None:
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

    def deliver(self, packet: Packet, now: int) -> Sequence[bytes]:
        """Hand over wire frames, whatever the offload."""
        if packet.offload is None:
            return self.endpoint.receive(packet.frame, now)
        answers: list[bytes] = []
        for frame in split(packet.frame, packet.offload):
            answers += self.endpoint.receive(frame, now)
        return answers

    def due(self) -> int:
        """The endpoint's next timer."""
        due = self.endpoint.due()
        return NEVER if due is None else due

    def wake(self, now: int) -> Sequence[bytes]:
        """Run the endpoint's timers."""
        return self.endpoint.wake(now)
