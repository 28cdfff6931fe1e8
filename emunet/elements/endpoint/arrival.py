"""Arrival: how an IPv6 stack comes up on a link. Probes, group reports, routers, addresses of its own making.

RFC 4862 5.4 (duplicate address detection), RFC 3810 (MLDv2 reports), RFC 4861 6.3 (router
discovery), RFC 4862 5.5 (addresses from advertised prefixes); fidelity V6-01, V6-02, V6-18:

    at once   a report of the groups from ::, and for each address, the link-local one
              too, one solicitation from :: to its group without the MAC
    1 s later what nobody claimed is used; the report again from the link-local address;
              routers are solicited, three times 4 s apart until one answers
    whenever  an advertisement from a link-local address with hop limit 255 makes a
              default next hop, an MTU, and for each /64 prefix that says so an address,
              which is probed like the others

An address that somebody claims is never used. A pod whose addresses are configured for
it does none of this (a lab at rest is at rest); `Endpoint.start` begins it.

Rule of this file: what is heard here is believed as far as RFC 4861 6.1.2 says, no further.
"""

from __future__ import annotations

from dataclasses import dataclass

from emunet.elements.endpoint.addresses import Addresses
from emunet.elements.endpoint.network import SECOND
from emunet.packet.address import (
    ALL_ROUTERS_V6,
    ANY_V6,
    InterfaceAddress,
    Prefix,
    is_link_local,
    is_unspecified,
    link_local,
    multicast_mac,
    solicited_node,
)
from emunet.packet.ethernet import ETHERTYPE_IPV6, Ethernet, build
from emunet.packet.icmpv6 import (
    NEIGHBOR_ADVERTISEMENT,
    NEIGHBOR_SOLICITATION,
    ROUTER_ADVERTISEMENT,
    ROUTER_SOLICITATION,
    Icmpv6,
    NeighborAdvertisement,
    NeighborSolicitation,
)
from emunet.packet.ipv6 import HOP_BY_HOP, ICMPV6, MINIMUM_MTU, IPv6
from emunet.packet.malformed import Malformed

MLD_ROUTERS = bytes.fromhex("ff020000000000000000000000000016")
MLD_REPORT = 143
CHANGE_TO_EXCLUDE = 4
ROUTER_ALERT = bytes((ICMPV6, 0, 5, 2, 0, 0, 1, 0))
SOURCE_LINK_LAYER, PREFIX_INFORMATION, MTU_OPTION = 1, 3, 5
AUTONOMOUS = 0x40
INTERFACE_IDENTIFIER_BITS = 64
FOREVER = 0xFFFFFFFF
SOLICITATIONS, SOLICITATION_INTERVAL = 3, 4 * SECOND
MOST_ADDRESSES = 16


@dataclass(slots=True)
class _Wanted:
    """An address on its way: probed until a time, then used until another (None: for good)."""

    address: InterfaceAddress
    probed_until: int
    valid_until: int | None


class Arrival:
    """The coming up of one endpoint. `due` is its next timer; what is found goes into the endpoint's addresses."""

    def __init__(self, mac: bytes, addresses: Addresses) -> None:
        self.due: int | None = None
        self.queued: int | None = None
        self.claimed: set[bytes] = set()
        """Addresses that somebody else has: never used."""
        self.mtu: int | None = None
        """What a router said that the link carries."""
        self._mac = mac
        self._addresses = addresses
        self._identifier = link_local(mac)[8:]
        self._fixed = tuple(one for one in addresses.all if len(one.address) == 4)
        self._probed: dict[bytes, _Wanted] = {}
        self._used: dict[bytes, _Wanted] = {}
        self._routers: dict[bytes, int] = {}
        self._solicited = 0
        self._solicit_at: int | None = None

    def begin(self, now: int) -> list[bytes]:
        """The first frames: all IPv6 addresses are taken out of use and probed."""
        wanted = [one for one in self._addresses.all if len(one.address) == 16 and not is_link_local(one.address)]
        wanted.append(InterfaceAddress(link_local(self._mac), 64))
        for one in wanted:
            self._probed[one.address] = _Wanted(one, now + SECOND, None)
        self._update()
        return [self._report(ANY_V6), *(self._probe(one.address) for one in wanted)]

    def wake(self, now: int) -> list[bytes]:
        """Use what nobody claimed; ask for routers; let go what is no longer valid."""
        frames: list[bytes] = []
        came = [one for one in self._probed.values() if one.probed_until <= now]
        for one in came:
            del self._probed[one.address.address]
            self._used[one.address.address] = one
        self._used = {
            address: one for address, one in self._used.items() if one.valid_until is None or one.valid_until > now
        }
        for router in [router for router, until in self._routers.items() if until <= now]:
            del self._routers[router]
        if any(is_link_local(one.address.address) for one in came):
            frames.append(self._report(link_local(self._mac)))
            self._solicit_at = now
        if self._solicit_at is not None and self._solicit_at <= now:
            frames.append(self._solicitation())
            self._solicited += 1
            self._solicit_at = now + SOLICITATION_INTERVAL if self._solicited < SOLICITATIONS else None
        self._update()
        return frames

    def hear(self, frame: bytes, now: int) -> list[bytes] | None:
        """A neighbour discovery frame: frames to send if it was about this, None if it is for the neighbour cache.

        Malformed for one that breaks a rule.
        """
        header, packet = Ethernet.parse(frame)
        ip, payload = IPv6.parse(packet)
        if ip.hop_limit != 255 or header.src == self._mac:
            return None
        message = Icmpv6.parse(ip.src, ip.dst, payload)
        if message.type == NEIGHBOR_SOLICITATION:
            target = NeighborSolicitation.parse(message).target
            if target not in self._probed:
                return None
            return self._claim(target) if is_unspecified(ip.src) else []  # it is not ours yet: no answer
        if message.type == NEIGHBOR_ADVERTISEMENT:
            target = NeighborAdvertisement.parse(message).target
            return self._claim(target) if target in self._probed else None
        if message.type == ROUTER_ADVERTISEMENT:
            return self._advertised(ip.src, message, now)
        return None

    def _claim(self, address: bytes) -> list[bytes]:
        del self._probed[address]
        self.claimed.add(address)
        self._update()
        return []

    def _advertised(self, router: bytes, message: Icmpv6, now: int) -> list[bytes]:
        if not is_link_local(router) or message.code != 0 or len(message.body) < 8:
            raise Malformed("a router advertisement comes from a link-local address and has 16 bytes (RFC 4861 6.1.2)")
        options = list(_options(message.body[8:]))
        lifetime = message.rest[2] << 8 | message.rest[3]
        self._routers.pop(router, None)
        if lifetime:
            self._routers[router] = now + lifetime * SECOND
        self._solicit_at = None
        frames: list[bytes] = []
        for kind, value in options:
            if kind == MTU_OPTION and len(value) == 6:
                mtu = int.from_bytes(value[2:], "big")
                self.mtu = mtu if mtu >= MINIMUM_MTU else self.mtu
            elif kind == PREFIX_INFORMATION and len(value) == 30:
                frames += self._prefix(value, now)
        self._update()
        return frames

    def _prefix(self, value: bytes, now: int) -> list[bytes]:
        length, flags = value[0], value[1]
        valid, preferred = int.from_bytes(value[2:6], "big"), int.from_bytes(value[6:10], "big")
        prefix = Prefix.of(value[14:30], length) if length <= 128 else None
        if prefix is None or not flags & AUTONOMOUS or is_link_local(prefix.address) or preferred > valid:
            return []
        if length != INTERFACE_IDENTIFIER_BITS:
            return []
        address = prefix.address[:8] + self._identifier
        until = None if valid == FOREVER else now + valid * SECOND
        known = self._used.get(address) or self._probed.get(address)
        if known is not None:
            known.valid_until = until
            return []
        full = len(self._used) + len(self._probed) >= MOST_ADDRESSES
        if not valid or address in self.claimed or full:
            return []
        self._probed[address] = _Wanted(InterfaceAddress(address, length), now + SECOND, until)
        self._update()
        return [self._report(self._speaker()), self._probe(address)]

    def _update(self) -> None:
        """Write what is used into the endpoint's addresses, and set the timer."""
        routers = tuple(self._routers)
        others = tuple(one for one in self._addresses.gateways if len(one) == 4 or not is_link_local(one))
        self._addresses.gateways = (*routers, *others) if routers else others
        self._addresses.replace((*self._fixed, *(one.address for one in self._used.values())), self._probed)
        times = [one.probed_until for one in self._probed.values()]
        times += [one.valid_until for one in self._used.values() if one.valid_until is not None]
        times += self._routers.values()
        if self._solicit_at is not None:
            times.append(self._solicit_at)
        self.due = min(times, default=None)

    # Messages

    def _speaker(self) -> bytes:
        own = link_local(self._mac)
        return own if own in self._used else ANY_V6

    def _probe(self, address: bytes) -> bytes:
        group = solicited_node(address)
        body = IPv6(ANY_V6, group, ICMPV6, 255).pack(NeighborSolicitation(address).pack(ANY_V6, group))
        return build(multicast_mac(group), self._mac, ETHERTYPE_IPV6, body)

    def _report(self, source: bytes) -> bytes:
        groups = sorted({solicited_node(address) for address in (*self._probed, *self._used)})
        records = b"".join(bytes((CHANGE_TO_EXCLUDE, 0, 0, 0)) + group for group in groups)
        message = Icmpv6(MLD_REPORT, 0, bytes(2) + len(groups).to_bytes(2, "big"), records).pack(source, MLD_ROUTERS)
        body = IPv6(source, MLD_ROUTERS, HOP_BY_HOP, 1).pack(ROUTER_ALERT + message)
        return build(multicast_mac(MLD_ROUTERS), self._mac, ETHERTYPE_IPV6, body)

    def _solicitation(self) -> bytes:
        own = link_local(self._mac)
        option = bytes((SOURCE_LINK_LAYER, 1)) + self._mac
        message = Icmpv6(ROUTER_SOLICITATION, 0, bytes(4), option).pack(own, ALL_ROUTERS_V6)
        body = IPv6(own, ALL_ROUTERS_V6, ICMPV6, 255).pack(message)
        return build(multicast_mac(ALL_ROUTERS_V6), self._mac, ETHERTYPE_IPV6, body)


def _options(data: bytes) -> list[tuple[int, bytes]]:
    """(kind, what follows its length) of each option. Malformed for a length of zero or beyond the end."""
    found = []
    position = 0
    while position < len(data):
        length = data[position + 1] * 8 if position + 1 < len(data) else 0
        if length == 0 or position + length > len(data):
            raise Malformed("a Neighbour Discovery option has length zero or runs out of the message")
        found.append((data[position], data[position + 2 : position + length]))
        position += length
    return found
