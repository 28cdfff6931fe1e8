"""Addresses: what an endpoint answers to, and from which of its addresses it speaks.

They may change while it runs: IPv6 addresses are probed first (`arrival.py`), and some come
from what a router advertises. Everybody who needs them holds this one object.

Rule of this file: it is told what there is and answers questions; it sends nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from emunet.packet.address import (
    ALL_NODES_V6,
    BROADCAST_MAC,
    BROADCAST_V4,
    InterfaceAddress,
    is_link_local,
    is_loopback,
    is_multicast,
    multicast_mac,
    solicited_node,
)

ALL_HOSTS_V4 = bytes((224, 0, 0, 1))


class Addresses:
    """The addresses of one endpoint, and its default next hops.

    all        those in use; probed: those that are being probed, heard for and not used
    gateways   default next hops, at most one used per family
    of_host    a host's own stack: a device has decided already what is for it, and resolves its next hops
    """

    def __init__(
        self, mac: bytes, addresses: Iterable[InterfaceAddress], gateways: Iterable[bytes], *, of_host: bool
    ) -> None:
        self.mac = mac
        self.gateways = tuple(gateways)
        self.of_host = of_host
        self.replace(addresses)

    def replace(self, addresses: Iterable[InterfaceAddress], probed: Iterable[bytes] = ()) -> None:
        """Use these addresses, and listen to the groups of those that are `probed`."""
        self.all = tuple(addresses)
        self.own = frozenset(address.address for address in self.all)
        self._on_link = tuple(address.prefix for address in self.all)
        self.broadcasts = frozenset({BROADCAST_V4}) | {
            broadcast for address in self.all if (broadcast := address.prefix.broadcast) is not None
        }
        listened = [one for one in (*self.own, *probed) if len(one) == 16]
        groups = [ALL_HOSTS_V4] + ([ALL_NODES_V6, *map(solicited_node, listened)] if listened else [])
        self.groups = frozenset(groups)
        self._macs = frozenset({self.mac, BROADCAST_MAC} | {multicast_mac(group) for group in groups})

    def takes_frame(self, mac: bytes) -> bool:
        """Whether a frame to this MAC is for us."""
        return self.of_host or mac in self._macs

    def is_local(self, destination: bytes) -> bool:
        """Whether a packet to this address is for us alone; a host's stack gets its anycast addresses so."""
        return destination in self.own or (self.of_host and not self.is_group(destination))

    def is_group(self, destination: bytes) -> bool:
        """Whether it is a multicast or broadcast address."""
        return is_multicast(destination) or destination in self.broadcasts

    def hears(self, destination: bytes) -> bool:
        """Whether we listen to a multicast or broadcast address."""
        return (
            destination in self.groups or destination in self.broadcasts or (self.of_host and is_multicast(destination))
        )

    def next_hop(self, destination: bytes) -> bytes | None:
        """The on-link address to send to: the destination, or the gateway of its family; None if there is no route."""
        if self.of_host or self.is_group(destination):
            return destination
        if any(prefix.contains(destination) for prefix in self._on_link):
            return destination
        if len(destination) == 16 and is_link_local(destination):
            return destination
        return next((gateway for gateway in self.gateways if len(gateway) == len(destination)), None)

    def source_for(self, destination: bytes) -> bytes | None:
        """The own address to send from: the destination itself if ours, else one on its subnet, else the gateway's."""
        if destination in self.own:
            return destination
        family = [own for own in self.all if len(own.address) == len(destination)]
        if not family:
            return None
        if is_loopback(destination):
            return destination
        narrow = is_link_local(destination) or (len(destination) == 16 and is_multicast(destination))
        scoped = [own for own in family if is_link_local(own.address) == narrow] or family
        hop = self.next_hop(destination)
        if hop is None:
            return None
        near = [own for own in scoped if own.prefix.contains(hop)] or [
            own for own in family if own.prefix.contains(hop)
        ]
        return max(near, key=lambda own: own.length).address if near else scoped[0].address
