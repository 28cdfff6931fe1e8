"""Router: is it for this host, where else does it go, and may it?

Longest prefix (IP-18), TTL (IC-01), martians (IP-06, IP-08), what is never routed
(IP-04, IP-12, IP-13, V6-13, V6-14), path MTU (FR-02, V6-10). The order is Linux's:
own address, route, then TTL, then size. IPv4 without DF that is too big goes on and
is cut at the interface (`fragment`).

Read RFC 1812 5.2 and 5.3 before changing this file.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from emunet.elements.errors import (
    HOST_UNREACHABLE,
    NET_UNREACHABLE,
    PROHIBITED,
    TIME_EXCEEDED,
    TOO_BIG,
    ErrorKind,
    Errors,
)
from emunet.elements.interface import OwnAddresses
from emunet.elements.routes import Route, RouteKind, RouteTable
from emunet.packet.address import format_ip, is_link_local, is_loopback, is_multicast, is_unspecified
from emunet.packet.edit import Adjust, Edit, Put
from emunet.packet.view import ETHERNET_HEADER, Packet
from emunet.plane.chance import flow_hash
from emunet.plane.element import Element
from emunet.plane.reason import Reason
from emunet.plane.step import Output, Step, Verdict, consume, drop
from emunet.plane.table import Counter, Table

ROUTE_ERRORS: dict[RouteKind, tuple[Reason, ErrorKind | None]] = {
    RouteKind.BLACKHOLE: (Reason.ROUTE_BLACKHOLE, None),
    RouteKind.UNREACHABLE: (Reason.ROUTE_UNREACHABLE, HOST_UNREACHABLE),
    RouteKind.PROHIBIT: (Reason.ROUTE_PROHIBIT, PROHIBITED),
}


class Router(Element):
    """Inputs: `input` (from a link), `output` (from this host). Outputs: `local`, `forward`, `output`, `error`."""

    def __init__(self, device: str, own: OwnAddresses, routes: RouteTable, errors: Errors, seed: int) -> None:
        self.name = "router"
        self.device = device
        self.own = own
        self.routes = routes
        self.errors = errors
        self.seed = seed

    def state(self) -> Iterable[Table[Any, Any] | Counter]:
        """The ICMP token buckets and the IP identification counter."""
        return (*self.errors.state(), self.errors.identification)

    def handle(self, packet: Packet, port: str, now: int) -> Step:
        """Route a packet that came in, or one that this host sends."""
        if port == "output":
            return self._send(packet)
        source, destination = packet.ip_source, packet.ip_destination
        if self.own.owner(destination) is not None:
            if self._martian_source(source):
                return drop(self.name, Reason.MARTIAN_SOURCE, source=source, device=self.device)
            return self._local(Reason.FOR_US, destination)
        if is_loopback(destination) or is_unspecified(destination):
            return drop(self.name, Reason.MARTIAN_DESTINATION, destination=destination, device=self.device)
        if is_multicast(destination):
            if self.own.joined(destination):
                return self._local(Reason.MULTICAST_FOR_US, destination)
            if _stays_on_link(destination):
                return consume(self.name, Reason.NOT_LISTENING, destination=destination, device=self.device)
            return drop(self.name, Reason.MULTICAST_NOT_ROUTED, destination=destination, device=self.device)
        if self.own.is_broadcast(destination):
            if self.own.broadcast_interface(destination) in (None, packet.interface):
                return self._local(Reason.MULTICAST_FOR_US, destination)
            return drop(self.name, Reason.BROADCAST_NOT_ROUTED, destination=destination)
        if self._martian_source(source) or is_unspecified(source):
            return drop(self.name, Reason.MARTIAN_SOURCE, source=source, device=self.device)
        if packet.destination[0] & 1:
            return drop(self.name, Reason.LINK_GROUP_NOT_ROUTED)
        if len(source) == 16:
            for address in (destination, source):
                if is_link_local(address):
                    return drop(self.name, Reason.LINK_LOCAL_NOT_ROUTED, address=address)
        return self._forward(packet, now)

    def _forward(self, packet: Packet, now: int) -> Step:
        destination = packet.ip_destination
        route = self._lookup(packet)
        if route is None:
            return self._refuse(packet, Reason.NO_ROUTE, NET_UNREACHABLE, now, destination=destination)
        if route.kind is not RouteKind.UNICAST:
            reason, error = ROUTE_ERRORS[route.kind]
            return self._refuse(packet, reason, error, now, prefix=route.prefix)
        ttl = packet.ttl
        if ttl <= 1:
            return self._refuse(packet, Reason.TTL_EXPIRED, TIME_EXCEEDED, now, ttl=ttl)
        interface = self.own.interfaces[route.interface]
        if packet.dont_fragment and packet.wire_ip_length > interface.mtu:
            return self._refuse(
                packet,
                Reason.TOO_BIG,
                TOO_BIG,
                now,
                interface.mtu,
                length=packet.wire_ip_length,
                mtu=interface.mtu,
                interface=interface.name,
            )
        step = self._chosen(Reason.ROUTED, route, destination, "forward", f", TTL {ttl} -> {ttl - 1}")
        step.edits = self._decrement(packet, ttl)
        step.limit = interface.mtu + ETHERNET_HEADER
        return step

    def _send(self, packet: Packet) -> Step:
        destination = packet.ip_destination
        if self.own.owner(destination) is not None:
            return self._local(Reason.FOR_US, destination)
        if is_multicast(destination) or self.own.is_broadcast(destination) or is_link_local(destination):
            interface = self.own.broadcast_interface(destination) or packet.egress
            if interface in self.own.interfaces:
                route = Route(self.own.interfaces[interface].addresses[0].prefix, interface)
                return self._chosen(Reason.LOCAL_ROUTED, route, destination, "output")
        route_found = self._lookup(packet)
        if route_found is None or route_found.kind is not RouteKind.UNICAST:
            return drop(self.name, Reason.NO_ROUTE, destination=destination, device=self.device, sent="")
        return self._chosen(Reason.LOCAL_ROUTED, route_found, destination, "output")

    def _lookup(self, packet: Packet) -> Route | None:
        source, destination = packet.ip_source, packet.ip_destination
        return self.routes.lookup(
            destination, flow_hash(self.seed, self.device, source, destination, packet.protocol, packet.ports)
        )

    def _chosen(self, reason: Reason, route: Route, destination: bytes, output: str, ttl: str = "") -> Step:
        via = f"via {format_ip(route.via)} " if route.via else ""
        return Step(
            self.name,
            Verdict.FORWARD,
            reason,
            {"prefix": route.prefix, "via": via, "interface": route.interface, "ttl": ttl},
            (Output(output, {"egress": route.interface, "next_hop": route.via or destination}),),
        )

    def _local(self, reason: Reason, address: bytes) -> Step:
        return Step(
            self.name, Verdict.FORWARD, reason, {"address": address, "device": self.device}, (Output("local"),)
        )

    def _refuse(
        self, packet: Packet, reason: Reason, error: ErrorKind | None, now: int, value: int = 0, **arguments: Any
    ) -> Step:
        step = drop(self.name, reason, device=self.device, sent="", **arguments)
        if error is not None:
            answer = self.errors.about(packet, error, now, value)
            step.effects, step.emissions = answer.effects, answer.emissions
            step.arguments["sent"] = answer.words
        return step

    def _martian_source(self, source: bytes) -> bool:
        if is_loopback(source) or is_multicast(source) or self.own.owner(source) is not None:
            return True
        return len(source) == 4 and (source == b"\xff\xff\xff\xff" or source[0] == 0 and source != bytes(4))

    @staticmethod
    def _decrement(packet: Packet, ttl: int) -> tuple[Edit, ...]:
        words = f"TTL {ttl} -> {ttl - 1}"
        if packet.is_ipv6:
            return (Put(21, bytes((ttl - 1,)), words),)
        protocol = packet.protocol
        return (
            Put(22, bytes((ttl - 1,)), words),
            Adjust(24, bytes((ttl, protocol)), bytes((ttl - 1, protocol)), "header checksum"),
        )


def _stays_on_link(group: bytes) -> bool:
    """Groups that no router ever passes on: 224.0.0.0/24 (RFC 5771 4) and link-local scope (RFC 4291 2.7)."""
    return group[:3] == b"\xe0\x00\x00" if len(group) == 4 else group[1] & 0x0F <= 2
