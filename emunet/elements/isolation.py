"""Isolation: bridges that a container engine keeps apart from each other and from outside.

These are the rules that Docker writes into netfilter's FORWARD chain for its networks
(fidelity DK-04, DK-09 to DK-11): nothing passes from one of its bridges to another; what
comes to one from elsewhere is an answer, or was sent there by a published port; an
internal network speaks with nobody outside of it; and where `enable_icc` is false, not
even its own stations with each other. What a host sends itself, or is for the host, is
not forwarded, and so no concern of this element. It drops in silence, as netfilter's DROP.

In a host's chain it stands before `policy`, and only where the host has such bridges.

Rule of this file: a decision needs nothing but where the packet came in, where it goes,
and how it stands to its connection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from emunet.elements.connections.connection import Standing, Tracked
from emunet.packet.view import Packet
from emunet.plane.element import Element
from emunet.plane.reason import Reason
from emunet.plane.step import Step, drop, forward

BRIDGED = "bridged"


@dataclass(frozen=True, slots=True)
class Segment:
    """A bridge that is kept apart, by its own interface.

    internal   nothing goes out of it or comes in
    stations   its stations may speak with each other
    """

    interface: str
    internal: bool = False
    stations: bool = True


class Isolation(Element):
    """Input and output have the same name: the way the packet is on (`routed`, `bridged`)."""

    def __init__(self, device: str, segments: Iterable[Segment], bridges: Mapping[str, str]) -> None:
        """`bridges` maps a bridge port to the interface of its bridge."""
        self.name = "isolation"
        self.device = device
        self.segments: dict[str, Segment] = {}
        self.bridges: dict[str, str] = {}
        self.reconfigure(segments, bridges)

    def reconfigure(self, segments: Iterable[Segment], bridges: Mapping[str, str]) -> None:
        """Take these bridges and no others."""
        self.segments = {segment.interface: segment for segment in segments}
        self.bridges = dict(bridges)

    def handle(self, packet: Packet, port: str, now: int) -> Step:
        """Let it go on, or drop it."""
        if port == BRIDGED:
            source = target = self.bridges.get(packet.egress, "")
        else:
            source, target = packet.interface, packet.egress
        leaves, enters = self.segments.get(source), self.segments.get(target)
        if leaves is not None and leaves is enters:
            if not leaves.stations:
                return drop(self.name, Reason.ISOLATED_STATIONS, interface=source, device=self.device)
        elif leaves is not None and enters is not None:
            return drop(self.name, Reason.ISOLATED_BRIDGES, source=source, target=target, device=self.device)
        elif leaves is not None or enters is not None:
            segment = leaves or enters
            if segment is not None and segment.internal:
                return drop(self.name, Reason.ISOLATED_INTERNAL, interface=segment.interface, device=self.device)
            if enters is not None and not _is_invited(packet):
                return drop(self.name, Reason.ISOLATED_UNPUBLISHED, interface=target, device=self.device)
        return forward(self.name, Reason.NOT_ISOLATED, port)


def _is_invited(packet: Packet) -> bool:
    """Whether a packet from elsewhere answers a station of the bridge, or was sent to it by a published port."""
    tracked = packet.connection
    if not isinstance(tracked, Tracked) or tracked.connection is None:
        return False
    return tracked.standing is not Standing.NEW or tracked.connection.destination_translated
