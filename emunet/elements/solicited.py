"""Solicited: what a host hears and answers when others ask who has an address. ARP and ND alike.

Facts kept: a question for any of our addresses is answered on every interface (ARP-01,
ARP-02), for IPv6 only where the address is; the asker is noted from its question; a
probe is answered and nobody noted (ARP-09, V6-04). Proxy ARP answers for what is routed
out of another interface, after a random wait unless it was asked alone (ARP-11,
CAL-03); an anycast address is answered for after such a wait too, without overriding
others (RFC 4861 7.2.7, V6-15). A solicitation to us alone is answered without the MAC,
which its sender has (RFC 4861 7.2.4). ND is heard with hop limit 255 only (V6-05).

Rule of this file: it tells what a message means; `neighbor` changes the table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from emunet.elements.interface import Interface, OwnAddresses
from emunet.elements.routes import RouteKind, RouteTable
from emunet.elements.sources import Sources
from emunet.packet import arp, icmpv6, ipv4, ipv6
from emunet.packet.address import (
    ALL_NODES_V6,
    BROADCAST_V4,
    is_loopback,
    is_multicast,
    is_unspecified,
    multicast_mac,
    solicited_node,
)
from emunet.packet.malformed import Malformed
from emunet.packet.view import IPV6, Packet
from emunet.plane.chance import chance
from emunet.plane.reason import Reason
from emunet.plane.step import Emission

MILLISECOND = 1_000_000

Known = Callable[[str, bytes, int], bytes | None]


@dataclass(frozen=True, slots=True)
class News:
    """What a message says of a neighbour.

    solicited  it answers a question of ours, so the neighbour is there
    create     an entry is made of it; otherwise it only changes one that exists
    override   True: a MAC that is known is replaced; False: it stays; None: it stays for a second
    """

    address: bytes
    mac: bytes
    solicited: bool
    create: bool
    override: bool | None


@dataclass(frozen=True, slots=True)
class Heard:
    """One message: what it says, and what is answered, at once or `delay` ns later."""

    reason: Reason
    arguments: dict[str, Any] = field(default_factory=dict)
    news: News | None = None
    reply: Emission | None = None
    delay: int = 0


class Solicited:
    """The ears and the mouth of one host's neighbour element. Malformed is raised with what is wrong with a message."""

    def __init__(self, device: str, own: OwnAddresses, routes: RouteTable, known: Known, seed: int) -> None:
        """`known` tells the MAC of a neighbour on an interface, if it is known."""
        self.device = device
        self.known = known
        self.own = own
        self.routes = routes
        self.sources = Sources(own, routes)
        self.seed = seed

    # ARP

    def hear_arp(self, packet: Packet, interface: Interface, now: int) -> Heard:
        """What an ARP message means."""
        message = arp.Arp.parse(packet.whole("ARP is read whole")[14:])
        sender, target = message.sender_ip, message.target_ip
        asks = message.operation == arp.REQUEST
        ignored = Heard(Reason.ARP_IGNORED, {"address": target, "interface": interface.name})
        if message.operation not in (arp.REQUEST, arp.REPLY) or is_multicast(target) or is_loopback(target):
            return ignored
        if is_unspecified(sender):
            return self._answer(message, interface, None) if asks and self.own.owner(target) is not None else ignored
        if asks and self._believes(sender, interface):
            news = News(sender, message.sender_mac, solicited=False, create=True, override=True)
            if self.own.owner(target) is not None or self.own.announces(target, interface.name):
                return self._answer(message, interface, news)
            if self._is_proxied(target, interface):
                return self._answer_for_another(message, interface, news, packet.destination == interface.mac, now)
        gratuitous = sender == target and (asks or message.target_mac == message.sender_mac)
        news = News(
            sender,
            message.sender_mac,
            solicited=not asks and not packet.destination[0] & 1,
            create=False,
            override=True if gratuitous and self.own.owner(sender) is None else None,
        )
        learned = {"address": sender, "mac": message.sender_mac, "interface": interface.name}
        return Heard(Reason.ARP_LEARNED, learned, news)

    def _believes(self, sender: bytes, interface: Interface) -> bool:
        """Whether a packet from this address could come in here (arp.c asks the routing table the same)."""
        if is_multicast(sender) or is_loopback(sender) or sender == BROADCAST_V4:
            return False
        return self.sources.problem(sender, interface.name) is None

    def _is_proxied(self, target: bytes, interface: Interface) -> bool:
        settings = interface.settings
        if not settings.proxy_arp or not settings.forwarding or self.own.is_broadcast(target):
            return False
        route = self.routes.lookup(target)
        return route is not None and route.kind is RouteKind.UNICAST and route.interface != interface.name

    def _answer(self, message: arp.Arp, interface: Interface, news: News | None) -> Heard:
        arguments = {
            "device": self.device,
            "address": message.target_ip,
            "asker": message.sender_ip,
            "mac": interface.mac,
        }
        return Heard(Reason.ARP_ANSWERED, arguments, news, self._reply(message, interface))

    def _answer_for_another(self, message: arp.Arp, interface: Interface, news: News, alone: bool, now: int) -> Heard:
        target, sender = message.target_ip, message.sender_ip
        delay = 0 if alone else self._wait(interface, target, sender, now)
        arguments = {"device": self.device, "address": target, "asker": sender, "milliseconds": delay // MILLISECOND}
        return Heard(Reason.ARP_PROXIED, arguments, news, self._reply(message, interface), delay)

    @staticmethod
    def _reply(message: arp.Arp, interface: Interface) -> Emission:
        frame = arp.reply(interface.mac, message.target_ip, message.sender_mac, message.sender_ip)
        return Emission(frame, interface.name, {"egress": interface.name})

    def _wait(self, interface: Interface, target: bytes, asker: bytes, now: int) -> int:
        longest = interface.settings.proxy_delay
        return chance(self.seed, self.device, interface.name, target, asker, now) % longest if longest else 0

    # Neighbour discovery

    def hear_discovery(self, packet: Packet, interface: Interface, now: int) -> Heard:
        """What a neighbour solicitation or advertisement means."""
        if packet.ttl != 255:
            raise Malformed(f"its hop limit is {packet.ttl}, not 255: it did not come from this link")
        whole = packet.ip_packet("neighbour discovery is read whole")
        header, offset = ipv6.upper_layer(whole)
        if header != ipv4.ICMPV6:
            raise Malformed("its upper layer is not ICMPv6")
        message = icmpv6.Icmpv6.parse(packet.ip_source, packet.ip_destination, whole[offset:])
        if message.type == icmpv6.NEIGHBOR_SOLICITATION:
            return self._asked(packet, interface, icmpv6.NeighborSolicitation.parse(message), now)
        return self._told(packet, interface, icmpv6.NeighborAdvertisement.parse(message))

    def _asked(self, packet: Packet, interface: Interface, message: icmpv6.NeighborSolicitation, now: int) -> Heard:
        source, destination, target = packet.ip_source, packet.ip_destination, message.target
        probe, to_group = is_unspecified(source), is_multicast(destination)
        if probe and (message.source_mac is not None or destination != solicited_node(target)):
            raise Malformed("a probe names a MAC, or goes to another group than the address's own (RFC 4861 7.1.1)")
        ignored = Heard(Reason.ND_IGNORED, {"address": target, "interface": interface.name})
        ours = self.own.is_on(target, interface.name) or self.own.announces(target, interface.name)
        if not ours and not self.own.is_anycast(target, interface.name):
            return ignored
        news = None
        asker = message.source_mac
        if not probe and asker is not None:
            news = News(source, asker, solicited=False, create=True, override=True)
        elif not probe:
            # It says not where to answer: to the MAC that is known, else only to who asked us alone.
            asker = self.known(interface.name, source, now) or (None if to_group else packet.source)
            if asker is None:
                return ignored
        to = ALL_NODES_V6 if probe else source
        advertisement = icmpv6.NeighborAdvertisement(
            target,
            interface.mac if to_group else None,
            router=interface.settings.forwarding,
            solicited=not probe,
            override=ours and to_group,
        )
        body = ipv6.IPv6(target, to, ipv4.ICMPV6, hop_limit=255).pack(advertisement.pack(target, to))
        mac = asker or multicast_mac(to)
        reply = Emission(mac + interface.mac + IPV6 + body, interface.name, {"egress": interface.name})
        arguments = {"device": self.device, "address": target, "asker": source, "mac": interface.mac}
        if ours or not to_group:
            return Heard(Reason.ND_ANSWERED, arguments, news, reply)
        delay = self._wait(interface, target, source, now)
        return Heard(Reason.ND_DELAYED, {**arguments, "milliseconds": delay // MILLISECOND}, news, reply, delay)

    def _told(self, packet: Packet, interface: Interface, message: icmpv6.NeighborAdvertisement) -> Heard:
        if message.solicited and is_multicast(packet.ip_destination):
            raise Malformed("an advertisement to a group claims to be solicited (RFC 4861 7.1.2)")
        news = News(
            message.target, message.mac or b"", solicited=message.solicited, create=False, override=message.override
        )
        arguments = {"address": message.target, "mac": message.mac or b"", "interface": interface.name}
        return Heard(Reason.ND_LEARNED, arguments, news)
