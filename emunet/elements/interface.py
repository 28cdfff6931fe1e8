"""An address-bearing interface of a host, as its elements see it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from emunet.packet.address import BROADCAST_V4, InterfaceAddress, link_local, solicited_node


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

    def address(self, family: int) -> bytes | None:
        """Its first address of a family (4 or 16 bytes), or None."""
        for entry in self.addresses:
            if len(entry.address) == family:
                return entry.address
        return None

    @property
    def link_local(self) -> bytes:
        """Its IPv6 link-local address, derived from the MAC (RFC 4291 appendix A)."""
        return link_local(self.mac)


class OwnAddresses:
    """Which addresses a host answers to, and on which interface each lies.

    Linux's weak host model (RFC 1122 3.3.4.2): an address is the host's on every
    interface.
    """

    def __init__(self, interfaces: Iterable[Interface]) -> None:
        self.interfaces = {interface.name: interface for interface in interfaces}
        self._owner: dict[bytes, str] = {}
        self._broadcasts: dict[bytes, str] = {}
        self._groups: set[bytes] = set()
        for interface in self.interfaces.values():
            for entry in interface.addresses:
                self._owner[entry.address] = interface.name
                broadcast = entry.prefix.broadcast
                if broadcast is not None:
                    self._broadcasts[broadcast] = interface.name
                if len(entry.address) == 16:
                    self._groups.add(solicited_node(entry.address))
            if any(len(entry.address) == 16 for entry in interface.addresses):
                self._owner.setdefault(interface.link_local, interface.name)
                self._groups.add(solicited_node(interface.link_local))

    def owner(self, address: bytes) -> str | None:
        """The interface that carries the address, or None when it is not ours."""
        return self._owner.get(address)

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
        return group in self._groups or (group[1] == 2 and group[2:] in (bytes(13) + b"\x01", bytes(13) + b"\x02"))
