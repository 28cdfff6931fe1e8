"""Sockets: what the host's own programs send, and where what is for them goes.

The host's kernel (or our endpoint, on memory wires) writes IP packets on interfaces
without ARP: next hops, addresses and errors on the way are the device's business,
sockets, echo and closed ports are the kernel's.
"""

from __future__ import annotations

from emunet.elements.interface import OwnAddresses
from emunet.packet.edit import Put
from emunet.packet.view import Packet
from emunet.plane.element import Element
from emunet.plane.reason import Reason
from emunet.plane.step import Output, Step, Verdict, drop

UDP = 17
ICMPV6 = 58
NEIGHBOR_DISCOVERY = (135, 136)


class Sockets(Element):
    """Sends and delivers for one host.

    Inputs: `sent:INTERFACE`, `deliver`. Outputs: `output` for what was sent; for what
    is delivered `local:INTERFACE`, `nd`, or `vxlan:INTERFACE`.
    """

    def __init__(self, device: str, own: OwnAddresses, tunnels: dict[tuple[bytes, int], str]) -> None:
        """`tunnels` maps (local address, UDP port) to the VXLAN interface that ends there."""
        self.name = "sockets"
        self.device = device
        self.own = own
        self.tunnels = tunnels

    def handle(self, packet: Packet, port: str, now: int) -> Step:
        """Take what was sent on an interface, or find who gets a packet for this host."""
        way, _, interface = port.partition(":")
        if way == "sent":
            if not packet.is_ipv4 and not packet.is_ipv6:
                return drop(self.name, Reason.UNKNOWN_ETHERTYPE, interface=interface, ethertype=packet.ethertype.hex())
            marks = {"local": True, "interface": "", "entered": "", "egress": interface}
            return Step(
                self.name,
                Verdict.FORWARD,
                Reason.LOCAL_SENT,
                {"device": self.device, "interface": interface},
                (Output("output", marks),),
            )
        return self._deliver(packet)

    def _deliver(self, packet: Packet) -> Step:
        destination = packet.ip_destination
        if packet.protocol == UDP and not packet.is_fragment:
            tunnel = self.tunnels.get((destination, packet.destination_port))
            if tunnel is not None:
                return self._pass(f"vxlan:{tunnel}", f"VXLAN endpoint {tunnel}")
        if packet.is_ipv6 and packet.protocol == ICMPV6:
            message = packet.payload("the ICMPv6 type decides who gets it")
            if message and message[0] in NEIGHBOR_DISCOVERY:
                return self._pass("nd", "neighbour discovery")
        interface = self._receiving(packet.interface, destination)
        step = Step(
            self.name,
            Verdict.FORWARD,
            Reason.DELIVERED_LOCALLY,
            {"device": self.device, "interface": interface},
            (Output(f"local:{interface}"),),
        )
        mac = self.own.interfaces[interface].mac
        if packet.destination != mac and not packet.destination[0] & 1:
            step.edits = (Put(0, mac + mac, f"MACs of {interface}"),)
        return step

    def _receiving(self, interface: str, destination: bytes) -> str:
        """The interface on which the host's programs get it: where it came in, if they can use that one."""
        came_by = self.own.interfaces.get(interface)
        if came_by is not None and came_by.has_sockets:
            return interface
        owner = self.own.owner(destination)
        return owner or next(name for name, one in self.own.interfaces.items() if one.has_sockets)

    def _pass(self, output: str, target: str) -> Step:
        return Step(self.name, Verdict.FORWARD, Reason.LOCAL_DISPATCH, {"target": target}, (Output(output),))
