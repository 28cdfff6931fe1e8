"""An address-bearing interface of a host, as its elements see it, and the addresses of all of them.

Facts kept: an address is the host's on every interface (Linux's weak host model, RFC
1122 3.3.4.2; ARP-02), but a link-local one only on its own; a router also has the
subnet-router anycast address of each IPv6 network that it is on (RFC 4291 2.6.1; V6-15).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from emunet.packet.address import (
    BROADCAST_V4,
    InterfaceAddress,
    is_link_local,
    link_local,
    solicited_node,
)

ANYCAST_LENGTH = 126
"""The longest IPv6 prefix with a subnet-router anycast address (RFC 6164 5.1 spares /127; /128 is no network)."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How an interface behaves: what Linux keeps in /proc/sys/net/ipv4/conf/INTERFACE and its IPv6 sibling.

    forwarding      packets that come in here may be routed on; without it only those for this host are taken
    proxy_arp       answer ARP for addresses that are routed out of another interface (ip-sysctl.rst)
    proxy_delay     longest random wait before such an answer, in ns; the answer to a unicast request never waits
    rp_filter       0: any source; 1: only from where its replies would go; 2: only where there is a route to it
    send_redirects  tell a sender of a better next hop on its own link
    """

    forwarding: bool = True
    proxy_arp: bool = False
    proxy_delay: int = 800_000_000
    rp_filter: int = 0
    send_redirects: bool = True


@dataclass(frozen=True, slots=True)
class Interface:
    """A layer-3 interface of a host: eth0, cni0, flannel.1.

    What becomes of its frames is decided by how the device is wired: `eth0` is the
    port of the same name, `cni0` a bridge over pod ports, `flannel.1` a VXLAN
    endpoint. `mtu` counts bytes of an IP packet.
    """

    name: str
    mac: bytes
    addresses: tuple[InterfaceAddress, ...]
    mtu: int = 1500
    settings: Settings = Settings()

    def address(self, family: int) -> bytes | None:
        """Its first address of a family (4 or 16 bytes), or None."""
        for entry in self.addresses:
            if len(entry.address) == family:
                return entry.address
        return None

    def source(self, destination: bytes, next_hop: bytes) -> bytes | None:
        """Its own address for packets to a destination: one on the next hop's network, else its first of that scope.

        IPv6: link-local to link-local, global to global where it has one (RFC 6724 5, rule 2). None: it has none.
        """
        rows = [row for row in self.addresses if len(row.address) == len(destination)]
        if len(destination) == 16:
            narrow = is_link_local(destination)
            rows = [row for row in rows if is_link_local(row.address) == narrow]
            if not rows:
                return self.link_local if narrow and self.speaks_ipv6 else None
        for row in rows:
            if row.prefix.contains(next_hop):
                return row.address
        return rows[0].address if rows else None

    @property
    def has_sockets(self) -> bool:
        """Whether programs of the host can use it: it has an address that means the same on every link."""
        return any(len(entry.address) == 4 or not is_link_local(entry.address) for entry in self.addresses)

    @property
    def speaks_ipv6(self) -> bool:
        """Whether it has an IPv6 address, and so a link-local one too."""
        return any(len(entry.address) == 16 for entry in self.addresses)

    @property
    def link_local(self) -> bytes:
        """Its IPv6 link-local address, derived from the MAC (RFC 4291 appendix A)."""
        return link_local(self.mac)


class OwnAddresses:
    """Which addresses a host answers to, and on which interface each lies."""

    def __init__(self, interfaces: Iterable[Interface]) -> None:
        self.interfaces: dict[str, Interface] = {}
        self._owner: dict[bytes, str] = {}
        self._link_locals: set[tuple[str, bytes]] = set()
        self._broadcasts: dict[bytes, str] = {}
        self._anycast: dict[bytes, str] = {}
        self._groups: set[bytes] = set()
        self.announced: frozenset[bytes] = frozenset()
        """Addresses that it answers for on the link that they belong to, and that are nobody's (load balancers)."""
        self._announced_groups: frozenset[bytes] = frozenset()
        self.replace(interfaces)

    def replace(self, interfaces: Iterable[Interface]) -> None:
        """Take these interfaces and no others. Everybody who holds this object sees the change."""
        for rows in (
            self.interfaces, self._owner, self._link_locals, self._broadcasts, self._anycast, self._groups,
        ):  # fmt: skip
            rows.clear()
        for interface in interfaces:
            self.interfaces[interface.name] = interface
            for entry in interface.addresses:
                self._add(interface, entry)
            if interface.speaks_ipv6:
                self._link_locals.add((interface.name, interface.link_local))
                self._groups.add(solicited_node(interface.link_local))

    def _add(self, interface: Interface, entry: InterfaceAddress) -> None:
        address = entry.address
        if len(address) == 4:
            self._owner[address] = interface.name
            broadcast = entry.prefix.broadcast
            if broadcast is not None:
                self._broadcasts[broadcast] = interface.name
            return
        self._groups.add(solicited_node(address))
        if is_link_local(address):
            self._link_locals.add((interface.name, address))
            return
        self._owner[address] = interface.name
        if entry.length <= ANYCAST_LENGTH and interface.settings.forwarding:
            self._anycast[entry.prefix.address] = interface.name
            self._groups.add(solicited_node(entry.prefix.address))

    def announce(self, addresses: Iterable[bytes]) -> None:
        """Answer for these addresses, and for no others that are not its own."""
        self.announced = frozenset(addresses)
        self._announced_groups = frozenset(solicited_node(one) for one in self.announced if len(one) == 16)

    def announces(self, address: bytes, interface: str) -> bool:
        """Whether it answers for an address on an interface: one that has the network of the address."""
        if address not in self.announced:
            return False
        rows = self.interfaces[interface].addresses
        return any(len(row.address) == len(address) and row.prefix.contains(address) for row in rows)

    def owner(self, address: bytes) -> str | None:
        """The interface that carries the address as its own, or None. Link-local addresses: see `has`."""
        return self._owner.get(address)

    def has(self, address: bytes, interface: str) -> bool:
        """Whether what comes in by `interface` for this address is for the host: its own, or one of all routers."""
        if address in self._owner or address in self._anycast:
            return True
        return len(address) == 16 and (interface, address) in self._link_locals

    def is_on(self, address: bytes, interface: str) -> bool:
        """Whether this interface itself carries the address (IPv6 neighbours are told of no other)."""
        return self._owner.get(address) == interface or (interface, address) in self._link_locals

    def is_anycast(self, address: bytes, interface: str) -> bool:
        """Whether it is the subnet-router anycast address of a network on this interface."""
        return self._anycast.get(address) == interface and address not in self._owner

    def is_broadcast(self, address: bytes) -> bool:
        """Limited, or directed to one of our subnets."""
        return address == BROADCAST_V4 or address in self._broadcasts

    def broadcast_interface(self, address: bytes) -> str | None:
        """The interface whose subnet this directed broadcast address ends, or None."""
        return self._broadcasts.get(address)

    def joined(self, group: bytes) -> bool:
        """Whether the host listens to a multicast group: all nodes, all routers, its solicited-node groups."""
        if len(group) == 4:
            return group == b"\xe0\x00\x00\x01"
        if group in self._announced_groups:
            return True
        return group in self._groups or (group[1] == 2 and group[2:] in (bytes(13) + b"\x01", bytes(13) + b"\x02"))

    def source(self, interface: str, destination: bytes, next_hop: bytes) -> bytes | None:
        """The address that this host sends from by an interface: the interface's own, else the first elsewhere."""
        leaving = self.interfaces.get(interface)
        address = leaving.source(destination, next_hop) if leaving is not None else None
        if address is not None:
            return address
        for other in self.interfaces.values():
            address = other.source(destination, next_hop)
            if address is not None and not (len(address) == 16 and is_link_local(address)):
                return address
        return None
