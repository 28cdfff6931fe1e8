"""Reassemble: a place in a host's chain, in the order of netfilter with br_netfilter.

Where a host that tracks connections puts fragments together before its tables (CT-05).
Until that feature is built, fragments pass as they are, as on a plain router (FR-03).
"""

from __future__ import annotations

from emunet.packet.view import Packet
from emunet.plane.element import Element
from emunet.plane.reason import Reason
from emunet.plane.step import Step, forward


class Reassemble(Element):
    """Input and output have the same name: the way the packet is on."""

    def __init__(self) -> None:
        self.name = "reassemble"

    def handle(self, packet: Packet, port: str, now: int) -> Step:
        """Let the packet go on."""
        return forward(self.name, Reason.NOT_REASSEMBLED, port)
