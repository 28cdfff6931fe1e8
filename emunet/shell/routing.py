"""Scapy thinks as the pod that sends: its address as source, its gateway's MAC as destination.

Scapy fills in what a packet leaves open from one routing table for the whole machine. Among many
ports that is wrong: the source of a packet to `web-3` would be `web-3`'s own address. So each
destination is marked with the port that it leaves by (Scapy's own `ScopedIP`), and a marked
destination is looked up in the rows of that port only. What is not marked leaves by
`conf.iface`, the port that speaks unless another is named.

The next hop's MAC is known to the lab, so no ARP is needed for it; where nobody has the address,
the question is asked on the wire, as a real stack would.

Rule of this file: what concerns no port of the lab goes Scapy's way, untouched.
"""

from __future__ import annotations

import copy
import ipaddress
from collections.abc import Callable, Iterable
from typing import Any

from scapy.base_classes import Net, _ScopedIP
from scapy.config import conf
from scapy.data import ETH_P_ARP
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6, neighsol
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet
from scapy.route import Route
from scapy.route6 import Route6
from scapy.sendrecv import srp1
from scapy.utils import atol, itom, ltoa

from emunet.daemon.frame_format import PortInfo
from emunet.packet.address import format_mac, multicast_mac
from emunet.shell.ports import Ports

_DESTINATIONS = ((IP, "dst"), (IPv6, "dst"), (ARP, "pdst"))
_ARP_SECONDS = 2


class OnPort(_ScopedIP):  # type: ignore[misc]
    """An address that is reached by a port. It shows as the address alone."""

    def __repr__(self) -> str:
        return str(self)


def on_port(address: str, port: str) -> OnPort:
    """Mark an address with a port."""
    marked = OnPort(address)
    marked.scope = port
    return marked


def mark(packet: Any, port: str) -> Any:
    """Mark every destination in a packet with the port that it leaves by. Gives the packet."""
    if not isinstance(packet, Packet):
        return packet
    for layer in packet.iterpayloads():
        for kind, field in _DESTINATIONS:
            if isinstance(layer, kind):
                setattr(layer, field, _marked(getattr(layer, field), port))
    return packet


def mark_all(packets: Any, port: str) -> Any:
    """As `mark`, for whatever Scapy takes as packets: one, a list, or something that yields them."""
    if isinstance(packets, Packet):
        return mark(packets, port)
    if isinstance(packets, (list, tuple)) or hasattr(packets, "listname"):  # a PacketList has one
        for packet in packets:
            mark(packet, port)
        return packets
    return (mark(packet, port) for packet in packets)


def _marked(value: Any, port: str) -> Any:
    if isinstance(value, Net):
        value = copy.copy(value)
        value.scope = port
        return value
    if isinstance(value, list):
        return [_marked(one, port) for one in value]
    return on_port(value, port) if isinstance(value, str) else value


class LabRoutes(Route):  # type: ignore[misc]
    """`conf.route` with the rows of every port in front of the machine's."""

    def __init__(self, ports: Ports, machine: Route) -> None:
        self._ports = ports
        self.routes = list(machine.routes)
        self.invalidate_cache()

    def take_ports(self) -> None:
        """Have the rows of the ports that there are now."""
        kept = [row for row in self.routes if row[3] not in self._ports.by_name]
        ours = [row for port in self._ports.by_name.values() for row in _rows(port)]
        self.routes = ours + kept
        self.invalidate_cache()

    def route(
        self, dst: Any = None, dev: Any = None, verbose: int = conf.verb, _internal: bool = False
    ) -> tuple[str, str, str]:
        """(interface, source, next hop or 0.0.0.0); `dev` is the port, else `conf.iface`."""
        port = _port_name(dev)
        if port not in self._ports.by_name:
            machine: Route = object.__new__(Route)
            machine.routes = [row for row in self.routes if row[3] not in self._ports.by_name]
            machine.invalidate_cache()
            found: tuple[str, str, str] = machine.route(dst, dev, verbose, _internal)
            return found
        known: tuple[str, str, str] | None = self.cache.get((dst, port))
        if known is None:
            known = self.cache[dst, port] = self._look_up(dst, port)
        return known

    def _look_up(self, dst: Any, port: str) -> tuple[str, str, str]:
        try:
            number = atol(str(dst or "0.0.0.0").partition("/")[0])
        except (OSError, ValueError):  # a range, or a name: Scapy asks again with an address
            number = 0
        best = None
        for net, netmask, gateway, interface, source, metric in self.routes:
            if interface == port and number & netmask == net & netmask:
                rank = (netmask, -metric)
                if best is None or rank > best[0]:
                    best = (rank, (port, source, gateway))
        if best is not None:
            return best[1]
        addresses = [row.partition("/")[0] for row in self._ports.by_name[port].addresses if ":" not in row]
        return port, addresses[0] if addresses else "0.0.0.0", "0.0.0.0"


class LabRoutes6(Route6):  # type: ignore[misc]
    """`conf.route6`, likewise."""

    def __init__(self, ports: Ports, machine: Route6) -> None:
        self._ports = ports
        self.routes = list(machine.routes)
        self.ipv6_ifaces = set(machine.ipv6_ifaces)
        self.invalidate_cache()

    def take_ports(self) -> None:
        """Have the rows of the ports that there are now."""
        kept = [row for row in self.routes if row[3] not in self._ports.by_name]
        ours = [row for port in self._ports.by_name.values() for row in _rows6(port)]
        self.routes = ours + kept
        self.ipv6_ifaces |= {row[3] for row in ours}
        self.invalidate_cache()

    def route(self, dst: Any = "", dev: Any = None, verbose: int = conf.verb) -> tuple[str, str, str]:
        """(interface, source, next hop or ::); `dev` is the port, else `conf.iface`."""
        port = _port_name(dev)
        ours = port in self._ports.by_name
        rows = self._ports.by_name
        part: Route6 = object.__new__(Route6)
        part.routes = [row for row in self.routes if (row[3] == port if ours else row[3] not in rows)]
        part.invalidate_cache()
        found: tuple[str, str, str] = part.route(dst, port if ours else dev, verbose)
        return found


def _port_name(dev: Any) -> str:
    return str(dev if dev is not None else conf.iface)


def _source(port: PortInfo, network: str) -> str:
    """The address that a stack sends from into a network: one on the link, else its first of the family."""
    family = 6 if ":" in network else 4
    rows = [ipaddress.ip_interface(row) for row in port.addresses]
    mine = [row for row in rows if row.version == family]
    inside = ipaddress.ip_network(network)
    best = next((row for row in mine if row.ip in inside), mine[0] if mine else None)
    return str(best.ip) if best is not None else ""


def _rows(port: PortInfo) -> Iterable[tuple[int, int, str, str, str, int]]:
    for network, gateway in port.routes:
        source = _source(port, network)
        if ":" not in network and source:
            address, _, length = network.partition("/")
            yield atol(address), itom(int(length)), gateway or "0.0.0.0", port.name, source, 0


def _rows6(port: PortInfo) -> Iterable[tuple[str, int, str, str, list[str], int]]:
    for network, gateway in port.routes:
        source = _source(port, network)
        if ":" in network and source:
            address, _, length = network.partition("/")
            yield address, int(length), gateway or "::", port.name, [source], 0


class Resolver:
    """Finds the MAC of a packet's next hop, for packets whose Ethernet destination is open."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    def install(self) -> None:
        """Ask here first, for both families, and Scapy where no port of the lab is concerned."""
        for kind in (IP, IPv6):
            plain = conf.neighbor.resolvers[Ether, kind]
            conf.neighbor.register_l3(Ether, kind, self._with(plain))

    def _with(self, plain: Callable[[Any, Any], str | None]) -> Callable[[Any, Any], str | None]:
        def resolve(frame: Any, packet: Any) -> str | None:
            if str(packet.route()[0]) not in self._ports.by_name:
                return plain(frame, packet)
            return self.mac(packet)

        return resolve

    def mac(self, packet: Any) -> str | None:
        """The MAC of the next hop of an IP or IPv6 packet that leaves by a port of the lab; None: nobody has it."""
        port, _, gateway = packet.route()
        destination = packet.dst
        if not isinstance(destination, str):
            destination = next(iter(destination))
        return self._mac(str(port), ipaddress.ip_address(str(destination)), str(gateway))

    def _mac(self, port: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address, gateway: str) -> str | None:
        if address.is_multicast:
            return format_mac(multicast_mac(address.packed))
        if address.version == 4 and str(address) in ("255.255.255.255", *self._broadcasts(port)):
            return "ff:ff:ff:ff:ff:ff"
        hop = str(address) if gateway in ("0.0.0.0", "::") else gateway
        self._ports.freshen()
        return self._ports.macs.get(hop) or self._ask(port, hop)

    def _broadcasts(self, port: str) -> list[str]:
        rows = (row for row in conf.route.routes if row[3] == port and row[1] not in (0, 0xFFFFFFFF))
        return [ltoa(net | ~netmask & 0xFFFFFFFF) for net, netmask, gateway, *_ in rows if gateway == "0.0.0.0"]

    def _ask(self, port: str, hop: str) -> str | None:
        """Ask on the wire: nobody of the lab is known to have the address, but somebody may answer."""
        if ":" in hop:
            answer = neighsol(hop, conf.route6.route(hop, dev=port)[1], port, timeout=_ARP_SECONDS)
            return None if answer is None else str(answer.src)
        question = Ether(dst="ff:ff:ff:ff:ff:ff") / ARP(op="who-has", pdst=on_port(hop, port))
        answer = srp1(question, iface=port, type=ETH_P_ARP, timeout=_ARP_SECONDS, verbose=0, nofilter=1)
        return None if answer is None else str(answer[ARP].hwsrc)
