"""Router: is it for this host, where else does it go, and may it?

Longest prefix, equal costs by hash of the addresses (IP-18), TTL (IC-01), sources that cannot be
(`sources`), what is never routed (IP-04, IP-12, IP-13, V6-13, V6-14), options (IP-14 to
IP-16), path MTU (FR-02, V6-10), redirects (IC-16). The order is Linux's: for this host
or for which route; may the source be; options; TTL; then size. IPv4 without DF that is
too big goes on and is cut at the interface (`fragment`).

Read RFC 1812 5.2 and 5.3 before changing this file.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from emunet.elements import options
from emunet.elements.errors import (
    BEYOND_SCOPE,
    HOST_UNREACHABLE,
    NET_UNREACHABLE,
    PARAMETER_PROBLEM,
    PROHIBITED,
    TIME_EXCEEDED,
    TOO_BIG,
    UNKNOWN_OPTION,
    ErrorKind,
    Errors,
)
from emunet.elements.interface import OwnAddresses
from emunet.elements.redirect import Redirects
from emunet.elements.routes import Route, RouteKind, RouteTable
from emunet.elements.sources import Sources
from emunet.packet import icmp, ipv4, ipv6
from emunet.packet.address import (
    ANY_V4,
    BROADCAST_V4,
    Prefix,
    format_ip,
    is_link_local,
    is_loopback,
    is_multicast,
    is_unspecified,
)
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
LINK_LOCAL_V6 = Prefix.parse("fe80::/64")


class Router(Element):
    """Inputs: `input` (from a link), `output` (from this host). Outputs: `local`, `forward`, `output`, `error`."""

    def __init__(
        self,
        device: str,
        own: OwnAddresses,
        routes: RouteTable,
        errors: Errors,
        redirects: Redirects,
        seed: int,
    ) -> None:
        self.name = "router"
        self.device = device
        self.own = own
        self.routes = routes
        self.errors = errors
        self.redirects = redirects
        self.sources = Sources(own, routes)
        self.seed = seed

    def state(self) -> Iterable[Table[Any, Any] | Counter]:
        """The ICMP token buckets, who was redirected, and the IP identification counter."""
        return (*self.errors.state(), *self.redirects.state(), self.errors.identification)

    def handle(self, packet: Packet, port: str, now: int) -> Step:
        """Route a packet that came in, or one that this host sends."""
        if port == "output":
            return self._send(packet, now)
        return self._receive(packet, now) if packet.is_ipv4 else self._receive_v6(packet, now)

    # What came in

    def _receive(self, packet: Packet, now: int) -> Step:
        source, destination = packet.ip_source, packet.ip_destination
        if is_multicast(source) or source == BROADCAST_V4:
            return self._martian_source(source)
        if destination == BROADCAST_V4 or (is_unspecified(source) and is_unspecified(destination)):
            return self._for_us(packet, Reason.MULTICAST_FOR_US, now)
        if is_multicast(destination):
            return self._group(packet, now)
        if is_unspecified(source):
            return self._martian_source(source)
        if is_unspecified(destination) or is_loopback(destination):
            return drop(self.name, Reason.MARTIAN_DESTINATION, destination=destination, device=self.device)
        if is_loopback(source):
            return self._martian_source(source)
        if self.own.is_broadcast(destination):
            if self.own.broadcast_interface(destination) == packet.interface:
                return self._for_us(packet, Reason.MULTICAST_FOR_US, now)
            return drop(self.name, Reason.BROADCAST_NOT_ROUTED, destination=destination)
        if self.own.has(destination, packet.interface):
            return self._for_us(packet, Reason.FOR_US, now)
        return self._forward(packet, now)

    def _receive_v6(self, packet: Packet, now: int) -> Step:
        source, destination = packet.ip_source, packet.ip_destination
        if is_loopback(source) or is_multicast(source):
            return self._martian_source(source)
        if is_loopback(destination) or (is_multicast(destination) and destination[1] & 0x0F <= 1):
            return drop(self.name, Reason.MARTIAN_DESTINATION, destination=destination, device=self.device)
        if packet.protocol == ipv6.HOP_BY_HOP:
            fault = options.read_hop_by_hop(packet.ip_packet("hop-by-hop options are read at each hop"))
            if fault is not None:
                return self._refuse_hop_by_hop(packet, fault, now)
        if is_multicast(destination):
            return self._group(packet, now)
        if self.own.has(destination, packet.interface):
            return self._local(Reason.FOR_US, destination)
        return self._forward(packet, now)

    def _group(self, packet: Packet, now: int) -> Step:
        destination = packet.ip_destination
        if packet.is_ipv4:
            source = packet.ip_source
            zero_allowed = _stays_on_link(destination) or packet.protocol == ipv4.IGMP
            if is_loopback(source) or (is_unspecified(source) and not zero_allowed):
                return self._martian_source(source)
        if self.own.joined(destination):
            return self._for_us(packet, Reason.MULTICAST_FOR_US, now)
        if _stays_on_link(destination):
            return consume(self.name, Reason.NOT_LISTENING, destination=destination, device=self.device)
        return drop(self.name, Reason.MULTICAST_NOT_ROUTED, destination=destination, device=self.device)

    def _for_us(self, packet: Packet, reason: Reason, now: int) -> Step:
        if packet.is_ipv4:
            source = packet.ip_source
            if not is_unspecified(source):
                problem = self.sources.problem(source, packet.interface)
                if problem is not None:
                    return self._bad_source(source, packet.interface, problem)
            if packet.header_length > ipv4.HEADER_LENGTH:
                return self._for_us_with_options(packet, reason, now)
        return self._local(reason, packet.ip_destination)

    # What is for others

    def _forward(self, packet: Packet, now: int) -> Step:
        source, destination = packet.ip_source, packet.ip_destination
        came_by = self.own.interfaces[packet.interface]
        if not came_by.settings.forwarding:
            reason = Reason.NOT_FORWARDING
            return drop(self.name, reason, destination=destination, device=self.device, interface=came_by.name)
        route = self._lookup(packet)
        header: bytes | None = None
        if packet.is_ipv4:
            # Linux's order: a source is judged where there is a way, options before it is said that there is none.
            found = self._check_v4(packet, route, now)
            if isinstance(found, Step):
                return found
            header = found
        if route is None:
            return self._refuse(packet, Reason.NO_ROUTE, NET_UNREACHABLE, now, no_route=True, destination=destination)
        if route.kind is not RouteKind.UNICAST:
            reason, error = ROUTE_ERRORS[route.kind]
            if packet.is_ipv6 and error is HOST_UNREACHABLE:
                error = NET_UNREACHABLE  # Linux says of such a route in IPv6 that there is none
            return self._refuse(packet, reason, error, now, no_route=True, prefix=route.prefix)
        if packet.destination[0] & 1:
            return drop(self.name, Reason.LINK_GROUP_NOT_ROUTED)
        ttl = packet.ttl
        if ttl <= 1:
            return self._refuse(packet, Reason.TTL_EXPIRED, TIME_EXCEEDED, now, ttl=ttl)
        if packet.is_ipv6 and route.interface != packet.interface:
            if is_unspecified(source):
                return self._martian_source(source)
            if is_link_local(source):
                return self._refuse(packet, Reason.LINK_LOCAL_NOT_ROUTED, BEYOND_SCOPE, now, address=source)
        return self._send_on(packet, route, header, now)

    def _check_v4(self, packet: Packet, route: Route | None, now: int) -> bytes | Step | None:
        """The end of a packet whose source or options are wrong, or its header with the options as they go on."""
        source, destination = packet.ip_source, packet.ip_destination
        routed = route is not None and route.kind is RouteKind.UNICAST
        if routed:
            problem = self.sources.problem(source, packet.interface)
            if problem is not None:
                return self._bad_source(source, packet.interface, problem)
        if packet.header_length == ipv4.HEADER_LENGTH:
            return None
        own = None
        if route is not None and routed:
            own = self.own.source(route.interface, destination, route.via or destination)
        return self._options(packet, own, now)

    def _send_on(self, packet: Packet, route: Route, header: bytes | None, now: int) -> Step:
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
        destination, ttl = packet.ip_destination, packet.ttl
        step = self._chosen(Reason.ROUTED, route, destination, "forward", f", TTL {ttl} -> {ttl - 1}")
        if header is None:
            step.edits = self._decrement(packet, ttl)
        else:
            header = options.with_checksum(header[:8] + bytes((ttl - 1,)) + header[9:])
            step.edits = (Put(ETHERNET_HEADER, header, f"TTL {ttl} -> {ttl - 1}, options"),)
        if packet.dont_fragment:
            step.limit = interface.mtu + ETHERNET_HEADER
        if route.interface == packet.interface and self.sources.is_neighbor(packet.ip_source, packet.interface):
            whole = packet.ip_packet("quoted in a redirect")
            forwarded = whole
            if packet.is_ipv4:
                head = header or options.with_checksum(whole[:8] + bytes((ttl - 1,)) + whole[9 : packet.header_length])
                forwarded = head + whole[len(head) :]
            next_hop = route.via or destination
            step.effects, step.emissions = self.redirects.about(packet, forwarded, interface, next_hop, now)
        return step

    # What this host sends

    def _send(self, packet: Packet, now: int) -> Step:
        destination = packet.ip_destination
        if self.own.owner(destination) is not None:
            return self._local(Reason.FOR_US, destination)
        if is_multicast(destination) or self.own.is_broadcast(destination) or _on_one_link(destination):
            interface = self.own.broadcast_interface(destination) or packet.egress
            if interface in self.own.interfaces:
                prefix = LINK_LOCAL_V6 if len(destination) == 16 else self.own.interfaces[interface].addresses[0].prefix
                return self._chosen(Reason.LOCAL_ROUTED, Route(prefix, interface), destination, "output")
        route = self._lookup(packet)
        if route is None or route.kind is not RouteKind.UNICAST:
            return self._refuse(packet, Reason.NO_ROUTE, NET_UNREACHABLE, now, destination=destination)
        return self._chosen(Reason.LOCAL_ROUTED, route, destination, "output")

    # Choosing

    def _lookup(self, packet: Packet) -> Route | None:
        destination = packet.ip_destination
        if _on_one_link(destination):
            return Route(LINK_LOCAL_V6, packet.interface) if packet.interface else None
        found = self.routes.candidates(destination)
        if len(found) <= 1:
            return found[0] if found else None
        return found[self._spread(packet) % len(found)]

    def _spread(self, packet: Packet) -> int:
        """The same for all packets between two addresses, both ways (Linux: fib_multipath_hash_policy 0).

        So an ICMP error goes the way of the packets that it is about; IPv6 counts its flow label in.
        """
        source, destination, label = packet.ip_source, packet.ip_destination, 0
        if packet.is_ipv6:
            label = int.from_bytes(packet.frame[15:18], "big") & 0xFFFFF
        elif packet.protocol == ipv4.ICMP and not packet.is_fragment:
            message = packet.payload("an ICMP error goes the way of what it quotes")
            if len(message) >= 28 and message[0] in icmp.ERRORS:
                source, destination = message[20:24], message[24:28]
        first, second = sorted((source, destination))
        return flow_hash(self.seed, self.device, first, second, 0, (label, 0))

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
        return Step(self.name, Verdict.FORWARD, reason, {"address": address, "device": self.device}, (Output("local"),))

    # Options

    def _options(self, packet: Packet, address: bytes | None, now: int) -> bytes | Step:
        """The IPv4 header as it goes on, its checksum not yet right; or the end of the packet."""
        header = packet.ip_packet("IP options are read at each hop")[: packet.header_length]
        source = packet.ip_source
        facing = self.errors.facing(packet) or self.own.source(packet.interface, source, source) or ANY_V4
        found = options.read(header, address or ANY_V4, facing, lambda own: self.own.owner(own) is not None, now)
        if isinstance(found, options.Fault):
            pointer = found.pointer
            return self._refuse(packet, Reason.IP_OPTION_MALFORMED, PARAMETER_PROBLEM, now, pointer, pointer=pointer)
        if found.source_routed:
            return drop(self.name, Reason.SOURCE_ROUTE, device=self.device)
        return found.header

    def _for_us_with_options(self, packet: Packet, reason: Reason, now: int) -> Step:
        destination = packet.ip_destination
        own = (
            destination if self.own.owner(destination) else self.own.source(packet.interface, destination, destination)
        )
        header = self._options(packet, own, now)
        if isinstance(header, Step):
            return header
        step = self._local(reason, destination)
        step.edits = (Put(ETHERNET_HEADER, options.with_checksum(header), "options"),)
        return step

    def _refuse_hop_by_hop(self, packet: Packet, fault: options.HopByHopFault, now: int) -> Step:
        reason, pointer = Reason.IP_OPTION_MALFORMED, fault.pointer
        if not pointer:
            return drop(self.name, reason, pointer=ipv6.HEADER_LENGTH, sent="")
        if (is_multicast(packet.ip_destination) or packet.destination[0] & 1) and not fault.to_group:
            return drop(self.name, reason, pointer=pointer, sent="")
        return self._refuse(packet, reason, UNKNOWN_OPTION, now, pointer, pointer=pointer)

    # Refusing

    def _refuse(
        self,
        packet: Packet,
        reason: Reason,
        error: ErrorKind | None,
        now: int,
        value: int = 0,
        *,
        no_route: bool = False,
        **arguments: Any,
    ) -> Step:
        step = drop(self.name, reason, device=self.device, sent="", **arguments)
        if error is not None:
            answer = self.errors.about(packet, error, now, value, no_route=no_route)
            step.effects, step.emissions = answer.effects, answer.emissions
            step.arguments["sent"] = answer.words
        return step

    def _martian_source(self, source: bytes) -> Step:
        return drop(self.name, Reason.MARTIAN_SOURCE, source=source, device=self.device)

    def _bad_source(self, source: bytes, interface: str, reason: Reason) -> Step:
        return drop(self.name, reason, source=source, device=self.device, interface=interface)

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


def _on_one_link(address: bytes) -> bool:
    """An IPv6 link-local address: it means another machine on each link."""
    return len(address) == 16 and is_link_local(address)


def _stays_on_link(group: bytes) -> bool:
    """Groups that no router ever passes on: 224.0.0.0/24 (RFC 5771 4) and link-local scope (RFC 4291 2.7)."""
    return group[:3] == b"\xe0\x00\x00" if len(group) == 4 else group[1] & 0x0F <= 2
