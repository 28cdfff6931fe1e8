"""The same node as `netfilter_node` makes, built of our own elements, behind the same three calls."""

from __future__ import annotations

from typing import Any

import netfilter_node as node

from emunet.elements.connections import Choice, Connections, Flow, ServiceChange, ServicePort
from emunet.elements.interface import Settings
from emunet.fabric.config import (
    Bridge,
    ConnectionsConfig,
    HostConfig,
    Interface,
    Masquerade,
    Port,
    Publish,
    Route,
    StaticNeighbor,
)
from emunet.fabric.host import build_host
from emunet.packet.address import InterfaceAddress, Prefix, parse_ip, parse_mac
from emunet.packet.view import Packet
from emunet.plane.device import Device
from emunet.plane.ledger import Ledger
from emunet.plane.table import Watch

TCP, UDP = 6, 17


class Vip:
    """A service with one backend, as whoever builds services would choose for it."""

    def choose(self, flow: Flow, packet: Packet, now: int) -> Choice | None:
        """The VIP leads to pod2."""
        family = 0 if len(flow.destination) == 4 else 1
        if flow.destination != parse_ip(node.VIP[family]) or flow.destination_port != node.SERVICE_PORT:
            return None
        if flow.protocol not in (TCP, UDP):
            return None
        return Choice((parse_ip(node.STATIONS["pod2"][1 + family]), node.BACKEND_PORT))


def configuration(mtu: int = 1500) -> HostConfig:
    """What `netfilter_node` sets up with ip and nft, as a value."""
    eth0 = (InterfaceAddress(parse_ip(node.NODE[0]), 24), InterfaceAddress(parse_ip(node.NODE[1]), 64))
    cni0 = (InterfaceAddress(parse_ip(node.CNI[0]), 24), InterfaceAddress(parse_ip(node.CNI[1]), 64))
    neighbors = [
        StaticNeighbor("eth0" if name == "eth0" else "cni0", parse_ip(address), parse_mac(mac))
        for name, (mac, *addresses) in node.STATIONS.items()
        for address in addresses
    ]
    for address in ("192.168.9.98", *node.OUTSIDE):
        neighbors.append(StaticNeighbor("eth0", parse_ip(address), parse_mac(node.STATIONS["eth0"][0])))
    local = tuple(address.prefix for address in cni0)
    return HostConfig(
        "node",
        tuple(Port(name, mtu if name == "eth0" else 1500) for name in node.PORTS),
        (
            Interface("eth0", parse_mac(node.MACS["eth0"]), eth0, mtu, Settings(send_redirects=False)),
            Interface("cni0", parse_mac(node.MACS["cni0"]), cni0, settings=Settings(send_redirects=False)),
        ),
        (
            *(Route(address.prefix, "eth0") for address in eth0),
            *(Route(address.prefix, "cni0") for address in cni0),
            Route(Prefix.parse("0.0.0.0/0"), "eth0", parse_ip(node.STATIONS["eth0"][1])),
            Route(Prefix.parse("::/0"), "eth0", parse_ip(node.STATIONS["eth0"][2])),
        ),
        tuple(neighbors),
        (Bridge(("pod1", "pod2"), "cni0", hairpin=True),),
        connections=ConnectionsConfig(
            masquerade=tuple(
                Masquerade((Prefix.parse(pods),), not_destinations=(Prefix.parse(pods),))
                for pods in ("10.244.0.0/16", "fd00:244::/32")
            ),
            publish=tuple(
                Publish(
                    protocol, node.PUBLISHED, parse_ip(node.STATIONS["pod2"][family]), node.BACKEND_PORT, local=local
                )
                for protocol in (TCP, UDP)
                for family in (1, 2)
            ),
        ),
    )


class OurNode:
    """The node, with time as a number (`now`, ns)."""

    def __init__(self, mtu: int = 1500, seed: int = 0, services: tuple[ServicePort, ...] = ()) -> None:
        self.now = 0
        self.watch = Watch()
        self.world = Ledger()
        self.device: Device = build_host(configuration(mtu), self.watch, self.world, seed)
        self.device.transmit = self._transmit
        connections = self.device.elements["connections"]
        assert isinstance(connections, Connections)
        self.table = connections.table
        connections.services.pods = tuple(map(Prefix.parse, ("10.244.0.0/16", "fd00:244::/32")))
        connections.services.change(ServiceChange(put=services))
        if not services:
            connections.choosers.insert(0, Vip())
        router: Any = self.device.elements["router"]
        router.errors.limited = False
        self._out: list[tuple[str, bytes]] = []

    def inject(self, port: str, frame: bytes) -> list[tuple[str, bytes]]:
        """A frame comes in by a port: what goes out, as (port, frame)."""
        self._out = []
        self.now += 1000
        self.world.received += 1
        self.device.receive(port, Packet(frame), self.now)
        return self._out

    def send(self, packet: bytes) -> list[tuple[str, bytes]]:
        """The node itself sends an IP packet: what goes out."""
        mac = parse_mac(node.MACS["eth0"])
        kind = b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd"
        return self.inject("local:eth0", mac + mac + kind + packet)

    def advance(self, nanoseconds: int) -> None:
        """Time passes; what waits too long ends."""
        self.now += max(0, nanoseconds)
        self.device.wake(self.now)

    def balance(self) -> int:
        """What the law misses."""
        return self.device.ledger.balance

    def _transmit(self, device: Device, port: str, packet: Packet, now: int) -> None:
        self.world.delivered += 1
        if not port.startswith("local:"):
            self._out.append((port, packet.frame))


__all__ = ["OurNode", "Vip", "configuration"]
