"""Connections: a place in a host's chain, in the order of netfilter with br_netfilter.

Where connections are looked up and translated, before the bridge-or-route choice.
Until that feature is built, every packet passes untracked.
"""

from __future__ import annotations

from emunet.packet.view import Packet
from emunet.plane.element import Element
from emunet.plane.reason import Reason
from emunet.plane.step import Step, forward


class Connections(Element):
    """Input and output have the same name: the way the packet is on."""

    def __init__(self) -> None:
        self.name = "connections"

    def handle(self, packet: Packet, port: str, now: int) -> Step:
        """Let the packet go on."""
        return forward(self.name, Reason.NOT_TRACKED, port)
