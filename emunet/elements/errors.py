"""ICMP errors: may one be sent about this packet, to whom, and what does it say?

Both families (RFC 792, RFC 1122 3.2.2, RFC 1812 4.3, RFC 4443). Facts kept: never
about an ICMP error, a later fragment, a group or broadcast destination, a frame to
a group MAC, or a source that cannot be answered (IC-07, V6-16); the source is the
address by which the way back to the sender begins (192.0.0.8 where a host has none:
IC-17), TTL 64, DF clear (IC-01); as much is quoted as fits 576 bytes in all, 1280 for
IPv6 (IC-02, V6-08).

Rates: per destination a bucket of 6 that fills by one a second, for IPv6 one per 100 ms,
from which packet-too-big and fragmentation-needed are exempt (IC-10, IC-11, V6-11); what
says that there is no route takes a second token from the same bucket, and only while it
holds five or fewer (IC-13); the whole host sends 1000 a second after a burst of 50 (IC-12).

A packet that the host's own sockets sent is answered to them, without a limit (ARP-04).

Rule of this file: it builds and decides; the element that asks puts it in its Step.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from emunet.elements.interface import OwnAddresses
from emunet.elements.routes import RouteKind, RouteTable
from emunet.packet import icmp, icmpv6, ipv4, ipv6
from emunet.packet.address import is_link_local, is_loopback, is_multicast, is_unspecified
from emunet.packet.malformed import Malformed
from emunet.packet.view import IPV4, IPV6, Packet
from emunet.plane.step import Effect, Emission
from emunet.plane.table import Advance, Counter, Put, Table, Watch

SECOND = 1_000_000_000
BURST = 6
RATE_V4 = SECOND
RATE_V6 = SECOND // 10
ROUTE_BURST = 5
HOST_BURST = 50
HOST_RATE = SECOND // 1000
WHOLE_HOST = b""
DUMMY_ADDRESS = bytes((192, 0, 0, 8))
QUOTED_V4 = 548
QUOTED_V6 = 1280 - 48
ICMP_QUERY_TYPES = frozenset({0, 8, 13, 14, 15, 16, 17, 18})


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """One error in both families' terms: type and code, and whether it is free of the rate limit."""

    words: str
    v4: tuple[int, int]
    v6: tuple[int, int]
    unlimited: bool = False


TIME_EXCEEDED = ErrorKind("time exceeded", (11, 0), (3, 0))
NET_UNREACHABLE = ErrorKind("network unreachable", (3, 0), (1, 0))
HOST_UNREACHABLE = ErrorKind("host unreachable", (3, 1), (1, 3))
PORT_UNREACHABLE = ErrorKind("port unreachable", (3, 3), (1, 4))
PROHIBITED = ErrorKind("administratively prohibited", (3, 13), (1, 1))
TOO_BIG = ErrorKind("fragmentation needed", (3, 4), (2, 0), unlimited=True)
PARAMETER_PROBLEM = ErrorKind("parameter problem", (12, 0), (4, 0))
UNKNOWN_OPTION = ErrorKind("unrecognized option", (12, 0), (4, 2))
BEYOND_SCOPE = ErrorKind("beyond scope of its source address", (3, 13), (1, 2))


@dataclass(frozen=True, slots=True)
class Quoting:
    """The annotation `connection` of an error that a host makes: what was found for the packet it is about."""

    tracked: Any


@dataclass(slots=True)
class Answer:
    """What goes into the asking element's Step: `words` ends its sentence ("" when silent)."""

    effects: tuple[Effect, ...] = ()
    emissions: tuple[Emission, ...] = ()
    words: str = ""


SILENCE = Answer()


class Errors:
    """Makes ICMP errors for one host, within the rules and the rates.

    limited  False: no rates (Linux: icmp_ratelimit 0), for who compares errors by the thousand
    """

    def __init__(
        self, own: OwnAddresses, watch: Watch, identification: Counter, routes: RouteTable, *, limited: bool = True
    ) -> None:
        self.own = own
        self.routes = routes
        self.identification = identification
        self.limited = limited
        self.buckets: Table[bytes, tuple[int, int]] = Table("ICMP rate limit", watch, 4096)

    def state(self) -> Iterable[Table[Any, Any] | Counter]:
        """The token buckets, one per destination."""
        return (self.buckets,)

    def about(self, packet: Packet, kind: ErrorKind, now: int, value: int = 0, *, no_route: bool = False) -> Answer:
        """The error to send about `packet`, or silence. `value`: MTU or pointer; `no_route`: a route says so."""
        source = packet.ip_source
        packet.unkeyed = "an ICMP error is a decision of its own each time"
        if not self._allowed(packet, kind):
            return SILENCE
        back = self.facing(packet)
        if back is None:
            return SILENCE
        effects: tuple[Effect, ...] = ()
        if self.limited and self.own.owner(source) is None:
            effects, allowed = self._charge(source, kind, now, no_route=no_route)
            if not allowed:
                return Answer(effects, (), f"; the {kind.words} message about it exceeds the rate and is not sent")
        if packet.is_ipv4:
            frame = self._v4(packet, kind, back, source, value)
            effects = (*effects, Advance(self.identification))
        else:
            frame = self._v6(packet, kind, back, source, value)
        marks: dict[str, Any] = {"egress": packet.interface}
        if packet.connection is not None:
            marks["connection"] = Quoting(packet.connection)
        return Answer(effects, (Emission(frame, "error", marks),), f"; the sender is told: {kind.words}")

    def _allowed(self, packet: Packet, kind: ErrorKind) -> bool:
        source, destination = packet.ip_source, packet.ip_destination
        if is_unspecified(source) or is_loopback(source) or is_multicast(source):
            return False
        if not packet.is_ipv4:
            return self._allowed_v6(packet, kind)
        if packet.destination[0] & 1 or is_multicast(destination) or self.own.is_broadcast(destination):
            return False
        if source == b"\xff\xff\xff\xff" or packet.fragment_offset:
            return False
        if packet.protocol == ipv4.ICMP:
            message = packet.payload("the ICMP type decides whether an error may be sent")
            return bool(message) and message[0] in ICMP_QUERY_TYPES
        return True

    @staticmethod
    def _allowed_v6(packet: Packet, kind: ErrorKind) -> bool:
        to_many = packet.destination[0] & 1 or is_multicast(packet.ip_destination)
        if to_many and kind not in (TOO_BIG, UNKNOWN_OPTION):  # RFC 4443 2.4 (e.3): these two may
            return False
        whole = packet.ip_packet("the upper layer decides whether an error may be sent")
        try:
            header, offset = ipv6.upper_layer(whole)
        except Malformed:
            return True
        if header == ipv4.ICMPV6:
            message = whole[offset:]
            return bool(message) and message[0] >= 128 and message[0] != 137
        return True

    def facing(self, packet: Packet) -> bytes | None:
        """The address to speak from: the one called, or that which faces the sender.

        IPv4: that by which the way back begins; IPv6: that of the interface it came in by (icmp.c; net/ipv6/icmp.c).
        None: there is no way back.
        """
        source, called, interface = packet.ip_source, packet.ip_destination, packet.interface
        if self.own.owner(source) is not None:
            return source
        neighbor = len(source) == 16 and is_link_local(source)
        route = None if neighbor else self.routes.lookup(source)
        if not neighbor and (route is None or route.kind is not RouteKind.UNICAST):
            return None
        to_many = len(source) == 16 and packet.destination[0] & 1
        if self.own.has(called, interface) and not to_many:
            return called
        if route is None or len(source) == 16:
            return self.own.source(interface, source, source)
        return self.own.source(route.interface, source, route.via or source) or DUMMY_ADDRESS

    def _charge(
        self, destination: bytes, kind: ErrorKind, now: int, *, no_route: bool
    ) -> tuple[tuple[Effect, ...], bool]:
        """The tokens to take, and whether they are enough (inetpeer.c, icmp.c and route.c count so)."""
        if kind.unlimited:
            return (), True
        rate = RATE_V4 if len(destination) == 4 else RATE_V6
        tokens = self._tokens(destination, BURST * rate, now)
        effects: tuple[Effect, ...] = ()
        if no_route and len(destination) == 4:
            tokens = min(tokens, ROUTE_BURST * rate)
            if tokens < rate:
                return (), False
            tokens -= rate
            effects = (Put(self.buckets, destination, (tokens, now)),)  # spent, whatever comes of it
        host = self._tokens(WHOLE_HOST, HOST_BURST * HOST_RATE, now)
        if tokens < rate or host < HOST_RATE:
            return effects, False
        return (
            Put(self.buckets, destination, (tokens - rate, now)),
            Put(self.buckets, WHOLE_HOST, (host - HOST_RATE, now), static=True),
        ), True

    def _tokens(self, key: bytes, most: int, now: int) -> int:
        tokens, last = self.buckets.get(key, now) or (most, now)
        return min(tokens + now - last, most)

    def _v4(self, packet: Packet, kind: ErrorKind, own: bytes, to: bytes, value: int) -> bytes:
        quoted = packet.ip_packet("quoted in an ICMP error")[:QUOTED_V4]
        rest = value.to_bytes(4, "big") if kind is TOO_BIG else bytes((value & 0xFF, 0, 0, 0))
        message = icmp.error(kind.v4[0], kind.v4[1], quoted, rest).pack()
        header = ipv4.IPv4(
            own,
            to,
            ipv4.ICMP,
            tos=packet.tos & 0x1E | 0xC0,
            identification=self.identification.peek(),
        )
        return bytes(12) + IPV4 + header.pack(message)

    def _v6(self, packet: Packet, kind: ErrorKind, own: bytes, to: bytes, value: int) -> bytes:
        quoted = packet.ip_packet("quoted in an ICMPv6 error")[:QUOTED_V6]
        message = icmpv6.error(kind.v6[0], kind.v6[1], quoted, value.to_bytes(4, "big")).pack(own, to)
        return bytes(12) + IPV6 + ipv6.IPv6(own, to, ipv4.ICMPV6).pack(message)
