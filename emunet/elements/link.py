"""Link: what an interface takes in from its link, before layer 3.

A frame for another station's MAC is ignored (IP-03), as a card without promiscuous
mode does; ARP goes to the neighbour element, IP to the header check; nothing else
is handled by a host (a VLAN tag needs a VLAN interface, which this host has not).
"""

from __future__ import annotations

from emunet.elements.interface import Interface
from emunet.packet.view import ARP, IPV4, IPV6, Packet
from emunet.plane.element import Element
from emunet.plane.reason import Reason
from emunet.plane.step import Step, drop, forward


class Link(Element):
    """One per interface. Outputs: `arp`, `ip`."""

    def __init__(self, device: str, interface: Interface) -> None:
        self.name = f"link {interface.name}"
        self.device = device
        self.interface = interface

    def handle(self, packet: Packet, port: str, now: int) -> Step:
        """Ours or a group's; then by EtherType."""
        destination = packet.destination
        interface = self.interface
        if destination != interface.mac and not destination[0] & 1:
            return drop(self.name, Reason.NOT_FOR_US, mac=destination, interface=interface.name, device=self.device)
        ethertype = packet.ethertype
        if ethertype in (IPV4, IPV6):
            return forward(self.name, Reason.LINK_IP, "ip", interface=interface.name)
        if ethertype == ARP:
            return forward(self.name, Reason.LINK_ARP, "arp", interface=interface.name)
        return drop(self.name, Reason.UNKNOWN_ETHERTYPE, interface=interface.name, ethertype=ethertype.hex())
