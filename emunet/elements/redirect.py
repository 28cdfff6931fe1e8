"""Redirect: tell a sender of the better next hop on its own link (RFC 792, RFC 1812 5.2.7.2, RFC 4861 8).

Due when a packet leaves by the interface that it came in by and its sender is on that
link. IPv4: 5/1 with the next hop, or the destination itself where that is on the link; to
one sender at 0, 0.04, 0.12, 0.28, ... s, each wait twice the one before, nine at most,
then none until 20.48 s have passed without such a packet (IC-16; route.c). IPv6: 137 from the
link-local address, with what is known of the next hop's MAC; a bucket of 6 that fills by
one a second, for the destination and for the sender (V6-14; ndisc.c).

Rule of this file: it builds and decides; the router puts it into its Step.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from emunet.elements.errors import ICMP_QUERY_TYPES, Quoting
from emunet.elements.interface import Interface, OwnAddresses
from emunet.packet import icmp, icmpv6, ipv4, ipv6
from emunet.packet.address import is_link_local, is_multicast, is_unspecified
from emunet.packet.view import IPV4, IPV6, Packet
from emunet.plane.step import Effect, Emission
from emunet.plane.table import Advance, Counter, Put, Table, Watch

SECOND = 1_000_000_000
FIRST_WAIT = SECOND // 50
SILENCE = FIRST_WAIT << 10
MOST = 9
BURST_V6 = 6
RATE_V6 = SECOND
HOST_REDIRECT = 1
QUOTED_V4 = 548
LONGEST_V6 = 1280
TARGET_LINK_LAYER, REDIRECTED_HEADER = 2, 4

Neighbors = Table[tuple[str, bytes], Any]


class Redirects:
    """Makes redirects for one host, within the rates."""

    def __init__(self, own: OwnAddresses, watch: Watch, identification: Counter, neighbors: Neighbors) -> None:
        self.own = own
        self.identification = identification
        self.neighbors = neighbors
        self.told: Table[bytes, tuple[int, int]] = Table("redirects", watch, 4096)

    def state(self) -> Iterable[Table[Any, Any]]:
        """When each sender was told, and how often."""
        return (self.told,)

    def about(
        self, packet: Packet, forwarded: bytes, interface: Interface, next_hop: bytes, now: int
    ) -> tuple[tuple[Effect, ...], tuple[Emission, ...]]:
        """Effects and the message about a packet that leaves as it came; `forwarded` is its IP packet as it goes on."""
        packet.unkeyed = "whether a redirect is due is a decision of its own each time"
        source = packet.ip_source
        if is_unspecified(source) or is_multicast(source) or not interface.settings.send_redirects:
            return (), ()
        if packet.is_ipv4:
            return self._v4(packet, forwarded, interface, next_hop, now)
        return self._v6(packet, interface, next_hop, now)

    # IPv4

    def _v4(
        self, packet: Packet, forwarded: bytes, interface: Interface, next_hop: bytes, now: int
    ) -> tuple[tuple[Effect, ...], tuple[Emission, ...]]:
        source = packet.ip_source
        count, last = self.told.get(source, now) or (0, now)
        if now > last + SILENCE:
            count = 0
        if count >= MOST:
            return (Put(self.told, source, (count, now)),), ()
        if count and now <= last + (FIRST_WAIT << count):
            return (), ()
        effects: tuple[Effect, ...] = (Put(self.told, source, (count + 1, now)),)
        own = self.own.source(interface.name, source, source)
        if own is None or not self._may_be_told_v4(packet):
            return effects, ()
        message = icmp.error(icmp.REDIRECT, HOST_REDIRECT, forwarded[:QUOTED_V4], next_hop).pack()
        header = ipv4.IPv4(
            own, source, ipv4.ICMP, tos=packet.tos & 0x1E | 0xC0, identification=self.identification.peek()
        )
        marks = {} if packet.connection is None else {"connection": Quoting(packet.connection)}
        emission = Emission(bytes(12) + IPV4 + header.pack(message), "error", marks)
        return (*effects, Advance(self.identification)), (emission,)

    @staticmethod
    def _may_be_told_v4(packet: Packet) -> bool:
        if packet.fragment_offset:
            return False
        if packet.protocol != ipv4.ICMP:
            return True
        message = packet.payload("the ICMP type decides whether a redirect may be sent")
        return bool(message) and message[0] in ICMP_QUERY_TYPES

    # IPv6

    def _v6(
        self, packet: Packet, interface: Interface, next_hop: bytes, now: int
    ) -> tuple[tuple[Effect, ...], tuple[Emission, ...]]:
        source, destination = packet.ip_source, packet.ip_destination
        if next_hop != destination and not is_link_local(next_hop):
            return (), ()  # RFC 4861 8: the target is a link-local address, or the destination itself
        effects: list[Effect] = []
        for key in (b"to" + destination, b"from" + source):
            tokens, last = self.told.get(key, now) or (BURST_V6 * RATE_V6, now)
            tokens = min(tokens + now - last, BURST_V6 * RATE_V6)
            allowed = tokens >= RATE_V6
            effects.append(Put(self.told, key, (tokens - RATE_V6 if allowed else tokens, now)))
            if not allowed:
                return tuple(effects), ()
        own = interface.link_local
        options = b""
        known = self.neighbors.get((interface.name, next_hop), now)
        if known is not None and known.mac:
            options = bytes((TARGET_LINK_LAYER, 1)) + known.mac
        whole = packet.ip_packet("quoted in a redirect")
        length = min(LONGEST_V6 - 40 - 40 - len(options), len(whole) + 8) & ~7  # in units of 8, rounded down
        options += bytes((REDIRECTED_HEADER, length // 8)) + bytes(6) + whole[: length - 8]
        message = icmpv6.Icmpv6(icmpv6.REDIRECT, 0, bytes(4), next_hop + destination + options).pack(own, source)
        body = ipv6.IPv6(own, source, ipv4.ICMPV6, hop_limit=255).pack(message)
        return tuple(effects), (Emission(bytes(12) + IPV6 + body, "error", {"egress": interface.name}),)
