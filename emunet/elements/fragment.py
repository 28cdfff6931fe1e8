"""Fragment: cut an IPv4 packet that does not fit its interface (RFC 791 3.2, fidelity FR-01).

Comes after everything that reads ports. What may not be cut was refused by the
router, which can tell the sender; here it is only what may.
"""

from __future__ import annotations

from emunet.elements.interface import OwnAddresses
from emunet.packet import ipv4
from emunet.packet.view import ETHERNET_HEADER, Packet
from emunet.plane.element import Element
from emunet.plane.reason import Reason
from emunet.plane.step import Output, Step, Verdict, drop


class Fragment(Element):
    """Input: anything with an `egress`. Output: `resolve`."""

    def __init__(self, own: OwnAddresses) -> None:
        self.name = "fragment"
        self.own = own

    def handle(self, packet: Packet, port: str, now: int) -> Step:
        """Pass what fits, cut what does not."""
        interface = self.own.interfaces[packet.egress]
        if packet.wire_ip_length <= interface.mtu:
            return Step(
                self.name,
                Verdict.FORWARD,
                Reason.FITS,
                {"mtu": interface.mtu},
                (Output("resolve"),),
                limit=interface.mtu + ETHERNET_HEADER,
            )
        if packet.dont_fragment:
            return drop(
                self.name,
                Reason.TOO_BIG,
                length=packet.wire_ip_length,
                mtu=interface.mtu,
                interface=interface.name,
                sent="",
            )
        whole = packet.ip_packet("cut into fragments")
        pieces = ipv4.fragment(whole, interface.mtu)
        header = packet.frame[:ETHERNET_HEADER]
        return Step(
            self.name,
            Verdict.FORWARD,
            Reason.FRAGMENTED,
            {"length": len(whole), "mtu": interface.mtu, "interface": interface.name, "count": len(pieces)},
            [Output("resolve", frame=header + piece) for piece in pieces],
        )
