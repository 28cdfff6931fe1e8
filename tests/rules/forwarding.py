"""Pass-throughs of the data plane: what forwards, answers and translates frames.

A pass-through lets one packet in and one out, unchanged and unjudged, by the first way that
there is: a bridge sends to its next port, a router to its next interface. Helpers that
are no elements of a chain (`errors`, `sources`, `options`, ...) answer as if there were no rule:
everything is allowed, nothing is said. Who chooses on a connection's first packet (`services`,
`published`) chooses nothing.

Rule of this file: rows, and what stands in place of an element. `pass_through` acts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from emunet.elements import options
from emunet.elements.bridge import LOCAL, UP, Bridge
from emunet.elements.connections import Connections, services
from emunet.elements.connections.rules import Published
from emunet.elements.connections.services import Services
from emunet.elements.endpoint.stack import Endpoint
from emunet.elements.errors import Errors
from emunet.elements.fragment import ROUTED, Fragment
from emunet.elements.header import Header
from emunet.elements.ingress import Ingress
from emunet.elements.isolation import Isolation
from emunet.elements.link import Link
from emunet.elements.neighbor import NeighborElement
from emunet.elements.policies import Policy
from emunet.elements.reassemble import Reassemble
from emunet.elements.redirect import Redirects
from emunet.elements.router import Router
from emunet.elements.routes import Route, RouteTable
from emunet.elements.sockets import Sockets
from emunet.elements.solicited import Heard, Solicited
from emunet.elements.sources import Sources
from emunet.elements.translate import Translate
from emunet.elements.vxlan import MARKS, VxlanElement
from emunet.packet.view import ARP, Packet
from emunet.plane.reason import Reason
from emunet.plane.step import Output, Step, Verdict, consume
from emunet.plane.table import NEVER

PassThroughs = dict[str, list[tuple[Any, str, Any]]]
"""By name of an element: the attributes that are replaced, and by what."""


def _pass(name: str, output: str, marks: dict[str, Any] | None = None) -> Step:
    return Step(name, Verdict.FORWARD, Reason.TIMER, {"what": "passes"}, (Output(output, marks or {}),))


def _same_way(self: Any, packet: Packet, port: str, now: int) -> Step:
    return _pass(self.name, port)


def _bridge(self: Bridge, packet: Packet, port: str, now: int) -> Step:
    local = port == LOCAL
    others = [name for name in self.ports if local or name != packet.entered]
    if not others:
        return _pass(self.name, UP, {"interface": self.name})
    return _pass(self.name, "direct" if local else "egress", {"egress": others[0], "bridged": True})


def _ingress(self: Ingress, packet: Packet, port: str, now: int) -> Step:
    return _pass(self.name, port, {"entered": port, "interface": self.interfaces.get(port, "")})


def _link(self: Link, packet: Packet, port: str, now: int) -> Step:
    return _pass(self.name, "arp" if packet.ethertype == ARP else "ip")


def _router(self: Router, packet: Packet, port: str, now: int) -> Step:
    others = [name for name in self.own.interfaces if name != packet.interface] or list(self.own.interfaces)
    egress = packet.egress if port == "output" and packet.egress in self.own.interfaces else others[0]
    marks = {"egress": egress, "next_hop": packet.ip_destination}
    return _pass(self.name, "output" if port == "output" else "forward", marks)


def _neighbor(self: NeighborElement, packet: Packet, port: str, now: int) -> Step:
    if port != "resolve":
        return consume(self.name, Reason.TIMER, what="passes")
    return _pass(self.name, packet.egress, {"bridged": False})


def _fragment(self: Fragment, packet: Packet, port: str, now: int) -> Step:
    return _pass(self.name, "resolve" if port == ROUTED else port)


def _vxlan(self: VxlanElement, packet: Packet, port: str, now: int) -> Step:
    if port == "encapsulate":
        if not packet.is_ipv4 and not packet.is_ipv6:
            return consume(self.name, Reason.TIMER, what="passes")  # the way out is for packets alone
        return _pass(self.name, "outer", MARKS)
    return _pass(self.name, "inner", {"interface": self.config.interface, "local": False})


def _sockets(self: Sockets, packet: Packet, port: str, now: int) -> Step:
    way, _, interface = port.partition(":")
    if way == "sent":
        return _pass(self.name, "output", {"local": True, "interface": "", "entered": "", "egress": interface})
    return _pass(self.name, f"local:{next(name for name, one in self.own.interfaces.items() if one.has_sockets)}")


def _candidates(self: RouteTable, address: bytes) -> tuple[Route, ...]:
    rows = (route for found in self._routes.values() for route in found)  # in the order in which they were given
    return next(((route,) for route in rows if route.prefix.contains(address)), ())


def _no_choice(self: Any, flow: Any, packet: Packet, now: int) -> None:
    return None


def _refuse_nobody(self: Services, flow: Any, packet: Packet, now: int, *, choose: Any = Services.choose) -> Any:
    choice = choose(self, flow, packet, now)
    return None if choice is not None and choice.refusal is not None else choice


def _keep_ports(self: Services, flow: Any, packet: Packet, now: int, *, choose: Any = Services.choose) -> Any:
    choice = choose(self, flow, packet, now)
    return None if choice is None else replace(choice, random_fully=False)


def _put_in_for_all(self: Services, row: Any, *, put_in: Any = Services._put_in) -> None:
    put_in(self, replace(row, internal_local=False, external_local=False))


def _pick_afresh(self: Services, row: Any, backends: Any, flow: Any, now: int, *, pick: Any = Services._pick) -> Any:
    return pick(self, replace(row, affinity=0), backends, flow, now)


def _unheard(self: Solicited, packet: Packet, interface: Any, now: int) -> Heard:
    return Heard(Reason.TIMER, {"what": "passes"})


FORWARDING: PassThroughs = {
    "affinity": [(Services, "_pick", _pick_afresh)],
    "bridge": [(Bridge, "handle", _bridge)],
    "connections": [(Connections, "handle", _same_way)],
    "draw": [(Services, "_pick", lambda self, row, backends, flow, now: (0, False))],
    "ending": [(services, "_usable", lambda backends: backends)],
    "endpoint": [
        (Endpoint, "receive", lambda self, frame, now: []),
        (Endpoint, "_receive_packet", lambda self, packet, group, now: []),
        (Endpoint, "wake", lambda self, now: []),
        (Endpoint, "due", lambda self: None),
    ],
    "errors": [
        (Errors, "_allowed", lambda self, packet, kind: True),
        (Errors, "_charge", lambda self, destination, kind, now, *, no_route: ((), True)),
    ],
    "forgetting": [(Services, "_forget_connections", lambda self, old, new: None)],
    "fragment": [(Fragment, "handle", _fragment)],
    "header": [(Header, "handle", _same_way)],
    "ingress": [(Ingress, "handle", _ingress)],
    "isolation": [(Isolation, "handle", _same_way)],
    "link": [(Link, "handle", _link)],
    "neighbor": [
        (NeighborElement, "handle", _neighbor),
        (NeighborElement, "due", lambda self: NEVER),
        (NeighborElement, "wake", lambda self, now: ()),
    ],
    "options": [
        (options, "read", lambda header, *_: options.Read(header)),
        (options, "read_hop_by_hop", lambda packet: None),
    ],
    "policy": [(Policy, "handle", _same_way)],
    "published": [(Published, "choose", _no_choice)],
    "random-fully": [(Services, "choose", _keep_ports)],
    "reassemble": [(Reassemble, "handle", _same_way)],
    "redirect": [(Redirects, "about", lambda self, *_: ((), ()))],
    "refusals": [(Services, "choose", _refuse_nobody)],
    "router": [(Router, "handle", _router)],
    "routes": [(RouteTable, "candidates", _candidates)],
    "services": [(Services, "choose", _no_choice)],
    "sockets": [(Sockets, "handle", _sockets)],
    "solicited": [(Solicited, "hear_arp", _unheard), (Solicited, "hear_discovery", _unheard)],
    "source-ranges": [(Services, "_may_call", lambda self, row, flow: True)],
    "sources": [(Sources, "problem", lambda self, source, interface: None)],
    "traffic-policies": [(Services, "_put_in", _put_in_for_all)],
    "translate": [(Translate, "handle", _same_way)],
    "vxlan": [(VxlanElement, "handle", _vxlan)],
}
