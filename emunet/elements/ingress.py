"""Ingress: the first look at a frame that comes in by a port.

Refuses what no station may send: a frame shorter than its header, or from a group
or zero address (br_input.c does the same for bridge ports; fidelity BR-07). A short
frame that has a header is not refused: padding is the wire's business (TAP-05).
"""

from __future__ import annotations

from emunet.packet.address import ZERO_MAC
from emunet.packet.view import ETHERNET_HEADER, Packet
from emunet.plane.element import Element
from emunet.plane.reason import Reason
from emunet.plane.step import Output, Step, Verdict, drop


class Ingress(Element):
    """One per device. Input: a port's name; output: the same name."""

    def __init__(self, device: str, interfaces: dict[str, str]) -> None:
        """`interfaces` maps a port to the layer-3 interface it is, where it is one."""
        self.name = "ingress"
        self.device = device
        self.interfaces = interfaces

    def handle(self, packet: Packet, port: str, now: int) -> Step:
        """Pass what is a frame at all."""
        if len(packet.frame) < ETHERNET_HEADER:
            return drop(self.name, Reason.RUNT, length=len(packet.frame), device=self.device)
        source = packet.source
        if source[0] & 1 or source == ZERO_MAC:
            return drop(self.name, Reason.GROUP_SOURCE, mac=source)
        marks = {"entered": port, "interface": self.interfaces.get(port, "")}
        return Step(self.name, Verdict.FORWARD, Reason.ENTERED, {"port": port}, (Output(port, marks),))
