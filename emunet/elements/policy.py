"""Policy: a place in a host's chain, in the order of netfilter with br_netfilter.

Where NetworkPolicy permits or denies, for bridged and routed packets alike.
Until that feature is built, every packet is permitted.
"""

from __future__ import annotations

from emunet.packet.view import Packet
from emunet.plane.element import Element
from emunet.plane.reason import Reason
from emunet.plane.step import Step, forward


class Policy(Element):
    """Input and output have the same name: the way the packet is on."""

    def __init__(self) -> None:
        self.name = "policy"

    def handle(self, packet: Packet, port: str, now: int) -> Step:
        """Let the packet go on."""
        return forward(self.name, Reason.NO_POLICY, port)
