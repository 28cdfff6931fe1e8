"""From which of its addresses a host sends, as its kernel would choose (RFC 1122 3.3.4.3; ip-route(8), "src").

Rule of this file: a function of the host's configuration, and nothing else.
"""

from __future__ import annotations

from emunet.elements.routes import RouteKind
from emunet.fabric.config import HostConfig


def host_source(host: HostConfig, target: bytes) -> tuple[str, bytes] | None:
    """How a host sends to an address: by which interface and from which of its addresses; None without a route."""
    routes = [route for route in host.routes if route.kind is RouteKind.UNICAST and route.prefix.contains(target)]
    if not routes:
        return None
    best = max(routes, key=lambda route: (route.prefix.length, -route.metric))
    interface = next(one for one in host.interfaces if one.name == best.interface)
    source = interface.address(len(target))
    return None if source is None else (interface.name, source)
