"""Sources: can a packet that came in by this interface be from this address?

IPv4, as Linux's fib_validate_source: our own addresses never come from outside (IP-06);
what else is believed says the interface's rp_filter (IP-11, RFC 3704): 0 anything, 1 only
what would be answered by the interface it came in by, 2 only what could be answered at
all. IPv6 has neither in Linux (fidelity V6-13), so it does not ask here.

Rule of this file: it judges; the router drops.
"""

from __future__ import annotations

from emunet.elements.interface import OwnAddresses
from emunet.elements.routes import RouteKind, RouteTable
from emunet.packet.address import is_link_local
from emunet.plane.reason import Reason

STRICT, LOOSE = 1, 2


class Sources:
    """What one host believes of where packets come from."""

    def __init__(self, own: OwnAddresses, routes: RouteTable) -> None:
        self.own = own
        self.routes = routes

    def problem(self, source: bytes, interface: str) -> Reason | None:
        """Why a packet from `source` cannot have come in by `interface`, or None."""
        if self.own.owner(source) is not None:
            return Reason.MARTIAN_SOURCE
        mode = self.own.interfaces[interface].settings.rp_filter
        if not mode:
            return None
        if self.own.is_broadcast(source):
            return Reason.MARTIAN_SOURCE
        routes = [route for route in self.routes.candidates(source) if route.kind is RouteKind.UNICAST]
        if mode == STRICT:
            routes = [route for route in routes if route.interface == interface]
        return None if routes else Reason.REVERSE_PATH

    def is_neighbor(self, source: bytes, interface: str) -> bool:
        """Whether the sender is on the link of the interface itself, not behind a router there."""
        if len(source) == 16 and is_link_local(source):
            return True
        return any(route.interface == interface and route.via is None for route in self.routes.candidates(source))
