"""ICMP errors: may one be sent about this packet, to whom, and what does it say?

Both families (RFC 792, RFC 1122 3.2.2, RFC 1812 4.3, RFC 4443). Facts kept: never
about an ICMP error, a later fragment, a group or broadcast destination, a frame to
a group MAC, or a source that cannot be answered (IC-07, V6-16); the source is the
address of the interface that faces the sender, TTL 64, DF clear (IC-01); as much is
quoted as fits 576 bytes in all, 1280 for IPv6 (IC-02, V6-08); per destination a
bucket of 6 that fills by one a second, for IPv6 one per 100 ms, from which packet-too-
big and fragmentation-needed are exempt (IC-10, IC-11, V6-11).

Rule of this file: it builds and decides; the element that asks puts it in its Step.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from emunet.elements.interface import OwnAddresses
from emunet.packet import icmp, icmpv6, ipv4, ipv6
from emunet.packet.address import is_loopback, is_multicast, is_unspecified
from emunet.packet.view import IPV4, IPV6, Packet
from emunet.plane.step import Effect, Emission
from emunet.plane.table import Advance, Counter, Put, Table, Watch

BURST = 6
RATE_V4 = 1_000_000_000
RATE_V6 = 100_000_000
QUOTED_V4 = 548
QUOTED_V6 = 1280 - 48
ICMP_ERROR_TYPES = frozenset({3, 4, 5, 11, 12})
ICMP_QUERY_TYPES = frozenset({0, 8, 9, 10, 13, 14, 15, 16, 17, 18})


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
PROHIBITED = ErrorKind("administratively prohibited", (3, 13), (1, 1))
TOO_BIG = ErrorKind("fragmentation needed", (3, 4), (2, 0), unlimited=True)
PARAMETER_PROBLEM = ErrorKind("parameter problem", (12, 0), (4, 0))


@dataclass(slots=True)
class Answer:
    """What goes into the asking element's Step: `words` ends its sentence ("" when silent)."""

    effects: tuple[Effect, ...] = ()
    emissions: tuple[Emission, ...] = ()
    words: str = ""


SILENCE = Answer()


class Errors:
    """Makes ICMP errors for one host, within the rules and the rates."""

    def __init__(self, own: OwnAddresses, watch: Watch, identification: Counter) -> None:
        self.own = own
        self.identification = identification
        self.buckets: Table[bytes, tuple[int, int]] = Table("ICMP rate limit", watch, 4096)

    def state(self) -> Iterable[Table[Any, Any] | Counter]:
        """The token buckets, one per destination."""
        return (self.buckets,)

    def about(self, packet: Packet, kind: ErrorKind, now: int, value: int = 0) -> Answer:
        """The error to send about `packet`, or silence. `value` is the MTU or the pointer."""
        source = packet.ip_source
        packet.unkeyed = "an ICMP error is a decision of its own each time"
        if packet.local or not self._allowed(packet):
            return SILENCE
        effects = self._charge(source, kind, now)
        if effects is None:
            return Answer(words=f"; the {kind.words} message about it exceeds the rate limit and is not sent")
        own = self._own_address(packet.interface, len(source))
        if own is None:
            return SILENCE
        if packet.is_ipv4:
            frame = self._v4(packet, kind, own, source, value)
            effects = (*effects, Advance(self.identification))
        else:
            frame = self._v6(packet, kind, own, source, value)
        return Answer(effects, (Emission(frame, "error"),), f"; the sender is told: {kind.words}")

    def _allowed(self, packet: Packet) -> bool:
        source, destination = packet.ip_source, packet.ip_destination
        if packet.destination[0] & 1 or is_multicast(destination) or self.own.is_broadcast(destination):
            return False
        if is_unspecified(source) or is_loopback(source) or is_multicast(source):
            return False
        if packet.is_ipv4:
            if source == b"\xff\xff\xff\xff" or packet.fragment_offset:
                return False
            if packet.protocol == ipv4.ICMP:
                message = packet.payload("the ICMP type decides whether an error may be sent")
                return bool(message) and message[0] in ICMP_QUERY_TYPES
            return True
        header, offset = ipv6.upper_layer(packet.ip_packet("the upper layer decides whether an error may be sent"))
        if header == ipv4.ICMPV6:
            message = packet.ip_packet("the ICMPv6 type decides whether an error may be sent")[offset:]
            return bool(message) and message[0] >= 128 and message[0] != 137
        return True

    def _charge(self, destination: bytes, kind: ErrorKind, now: int) -> tuple[Effect, ...] | None:
        """The token to take, or None when the bucket is empty (inetpeer.c's way of counting)."""
        if kind.unlimited:
            return ()
        rate = RATE_V4 if len(destination) == 4 else RATE_V6
        tokens, last = self.buckets.get(destination, now) or (BURST * rate, now)
        tokens = min(tokens + now - last, BURST * rate)
        if tokens < rate:
            return None
        return (Put(self.buckets, destination, (tokens - rate, now)),)

    def _own_address(self, interface: str, family: int) -> bytes | None:
        facing = self.own.interfaces.get(interface)
        address = facing.address(family) if facing is not None else None
        if address is not None:
            return address
        for other in self.own.interfaces.values():
            address = other.address(family)
            if address is not None:
                return address
        return None

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
