"""Dispatch: the last look before a bridged frame leaves by the port that was chosen for it."""

from __future__ import annotations

from emunet.packet.view import Packet
from emunet.plane.element import Element
from emunet.plane.reason import Reason
from emunet.plane.step import Step, forward


class Dispatch(Element):
    """Output: the port that the packet's `egress` names."""

    def __init__(self) -> None:
        self.name = "egress"

    def handle(self, packet: Packet, port: str, now: int) -> Step:
        """Send it out."""
        return forward(self.name, Reason.TRANSMITTED, packet.egress, port=packet.egress)
