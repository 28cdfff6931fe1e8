"""Small worlds for stories, made by hand: a router with three networks, a switch, two tunnel ends.

    router()   `r` with e1, e2, e3 (10.0.1.1/24 and fd00:1::1/64, ...) and a station h1, h2, h3 (.2, ::2) on each
    switch()   `s` with ports 1, 2, 3, ... and a station on each
    tunnels()  two hosts joined by a wire, a VXLAN interface on each

`Seen` says of one frame what a story compares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from emunet.elements.endpoint.stack import Endpoint
from emunet.fabric.config import (
    Bridge,
    HostConfig,
    HostEdge,
    Interface,
    PodEdge,
    Port,
    Route,
    RouteKind,
    Settings,
    StaticNeighbor,
    SwitchConfig,
    Vxlan,
    WireConfig,
    WorldConfig,
)
from emunet.fabric.edge import MemoryEdges
from emunet.packet import arp, icmp, icmpv6, ipv6
from emunet.packet.address import InterfaceAddress, Prefix, format_ip, parse_ip, parse_mac
from emunet.packet.ethernet import Ethernet
from emunet.packet.ipv4 import ICMP, ICMPV6, TCP, UDP, IPv4
from emunet.packet.ipv6 import IPv6
from emunet.plane.device import Device
from tests.worlds import SECOND, Net, Station, datagram, echo, segment

MILLISECOND = SECOND // 1000
BROADCAST = b"\xff" * 6


def ip(text: str) -> bytes:
    """Text to 4 or 16 bytes."""
    return parse_ip(text)


def mac(text: str) -> bytes:
    """Text to 6 bytes."""
    return parse_mac(text)


def route(prefix: str, interface: str = "", via: str | None = None, kind: str = "unicast", metric: int = 0) -> Route:
    """A route, from text."""
    return Route(Prefix.parse(prefix), interface, None if via is None else ip(via), metric, RouteKind(kind))


def addresses(*texts: str) -> tuple[InterfaceAddress, ...]:
    """Interface addresses, from text."""
    return tuple(InterfaceAddress.parse(text) for text in texts)


def router_mac(number: int) -> bytes:
    """The router's MAC on one of its networks."""
    return bytes((2, 0, 0, 0, number, 1))


def host_mac(number: int) -> bytes:
    """The MAC of the station on one of the router's networks."""
    return bytes((2, 0, 0, 0, number, 2))


def router(
    *,
    routes: Sequence[Route] = (),
    settings: Mapping[str, Settings] | None = None,
    mtus: Mapping[str, int] | None = None,
    neighbors: Sequence[StaticNeighbor] = (),
    more: Mapping[str, Sequence[str]] | None = None,
    networks: int = 3,
    stacks: bool = False,
    flow_cache: bool = True,
) -> Net:
    """A plain router. `more`: further addresses of interfaces; `stacks`: its own sockets are our endpoint."""
    settings, mtus, more = settings or {}, mtus or {}, more or {}
    numbers = range(1, networks + 1)
    interfaces = tuple(
        Interface(
            f"e{number}",
            router_mac(number),
            addresses(f"10.0.{number}.1/24", f"fd00:{number}::1/64", *more.get(f"e{number}", ())),
            mtus.get(f"e{number}", 1500),
            settings.get(f"e{number}", Settings()),
        )
        for number in numbers
    )
    connected = [Route(row.prefix, one.name) for one in interfaces for row in one.addresses]
    host = HostConfig(
        "r",
        tuple(Port(one.name, one.mtu) for one in interfaces),
        interfaces,
        (*connected, *routes),
        tuple(neighbors),
    )
    config = WorldConfig(
        hosts=(host,),
        pods=tuple(
            PodEdge(
                f"h{number}",
                "r",
                host_mac(number),
                addresses(f"10.0.{number}.2/24", f"fd00:{number}::2/64"),
                (ip(f"10.0.{number}.1"), ip(f"fd00:{number}::1")),
            )
            for number in numbers
        ),
        host_edges=tuple(HostEdge(f"r:{one.name}", "r", one.name) for one in interfaces),
    )
    net = Net(config=config, entries={f"h{number}": f"e{number}" for number in numbers}, flow_cache=flow_cache)
    if stacks:
        own_stack(net, "r")
    return net


def own_stack(net: Net, host: str) -> Endpoint:
    """Give a host's own sockets our endpoint for a stack, in place of stations that only remember."""
    edges = MemoryEdges(0)
    stack: Endpoint | None = None
    for wanted in net.config.host_edges:
        if wanted.device == host:
            net.world.detach(wanted.name)
            edge = edges.make(wanted, net.config)
            net.world.attach(edge)
            net.stations.pop(wanted.name, None)
            stack = edge.endpoint
    assert stack is not None
    return stack


def switch(ports: int = 3, *, mtus: Mapping[str, int] | None = None, **settings: Any) -> Net:
    """A switch `s` with a station `h1`, `h2`, ... on each port."""
    numbers = range(1, ports + 1)
    config = WorldConfig(
        switches=(
            SwitchConfig(
                "s", tuple(Port(str(number), (mtus or {}).get(str(number), 1500)) for number in numbers), **settings
            ),
        ),
        pods=tuple(PodEdge(f"h{n}", "s", host_mac(n), addresses(f"10.0.0.{n}/24")) for n in numbers),
    )
    net = Net(config=config, entries={f"h{number}": str(number) for number in numbers})
    for station in net.stations.values():
        station.quiet = True
    return net


def tunnels(*, flood: bool = False, learning: bool = False, mtu: int = 1500, remotes: bool = True) -> Net:
    """Hosts `a` and `b`, eth0 to eth0, each with `vx` (10.9.0.1/24, 10.9.0.2/24; VNI 1, port 4789) over it."""
    hosts = []
    macs = {name: mac(f"02:00:00:00:09:0{number}") for number, name in ((1, "a"), (2, "b"))}
    for number, name, other in ((1, "a", "b"), (2, "b", "a")):
        remote = ip(f"192.168.9.{3 - number}")
        eth0 = Interface("eth0", bytes((2, 0, 0, 0, 8, number)), addresses(f"192.168.9.{number}/24"), mtu)
        vx = Interface("vx", macs[name], addresses(f"10.9.0.{number}/24"), mtu - 50)
        tunnel = Vxlan(
            "vx",
            1,
            4789,
            ip(f"192.168.9.{number}"),
            remotes=((macs[other], remote),) if remotes else (),
            flood=(remote,) if flood else (),
            learning=learning,
        )
        hosts.append(
            HostConfig(
                name,
                (Port("eth0", mtu),),
                (eth0, vx),
                (route("192.168.9.0/24", "eth0"), route("10.9.0.0/24", "vx")),
                vxlans=(tunnel,),
            )
        )
    edges = tuple(HostEdge(f"{name}:{interface}", name, interface) for name in "ab" for interface in ("eth0", "vx"))
    wires = (WireConfig("ab", ("a", "eth0"), ("b", "eth0")),)
    return Net(config=WorldConfig(hosts=tuple(hosts), wires=wires, host_edges=edges))


def device(net: Net, name: str = "r") -> Device:
    """One of the world's devices."""
    return net.world.devices[name]


def change(net: Net, **fields: Any) -> None:
    """Configure the world's only host anew with these fields changed."""
    net.config = replace(net.config, hosts=(replace(net.config.hosts[0], **fields), *net.config.hosts[1:]))
    net.world.configure(net.config)


@dataclass(frozen=True, slots=True)
class Seen:
    """A frame that reached somebody, taken apart. Addresses are text."""

    src: str
    dst: str
    ttl: int
    source_mac: bytes
    destination_mac: bytes
    protocol: int
    packet: bytes

    @property
    def v4(self) -> IPv4:
        """Its IPv4 header."""
        return IPv4.parse(self.packet)[0]

    @property
    def payload(self) -> bytes:
        """What is behind the IP header."""
        return IPv4.parse(self.packet)[1] if self.packet[0] >> 4 == 4 else IPv6.parse(self.packet)[1]

    @property
    def icmp(self) -> icmp.Icmp:
        """Its ICMP message, the checksum found right."""
        assert self.protocol == ICMP, self
        return icmp.Icmp.parse(self.payload)

    @property
    def icmpv6(self) -> icmpv6.Icmpv6:
        """Its ICMPv6 message, the checksum found right."""
        assert self.protocol == ICMPV6, self
        return icmpv6.Icmpv6.parse(ip(self.src), ip(self.dst), self.payload)

    @property
    def error(self) -> tuple[int, int]:
        """Type and code of an ICMP message of either family."""
        return (self.payload[0], self.payload[1])


def seen(frame: bytes) -> Seen:
    """A frame with an IP packet, taken apart."""
    header, packet = Ethernet.parse(frame)
    if packet[0] >> 4 == 4:
        v4, payload = IPv4.parse(packet)
        packet = packet[: v4.header_length + len(payload)]
        return Seen(format_ip(v4.src), format_ip(v4.dst), v4.ttl, header.src, header.dst, v4.protocol, packet)
    v6, payload = IPv6.parse(packet)
    packet = packet[: 40 + len(payload)]
    protocol = v6.next_header
    return Seen(format_ip(v6.src), format_ip(v6.dst), v6.hop_limit, header.src, header.dst, protocol, packet)


def got(station: Station) -> list[Seen]:
    """All IP packets that reached a station, and forget them."""
    frames = [frame for _, frame in station.got]
    station.got.clear()
    return [seen(frame) for frame in frames if frame[12:14] in (b"\x08\x00", b"\x86\xdd")]


def one(station: Station) -> Seen:
    """The only IP packet that reached a station."""
    [only] = got(station)
    return only


def arps(station: Station) -> list[tuple[int, bytes, arp.Arp]]:
    """(time, destination MAC, message) of every ARP message that reached a station, and forget all that did."""
    heard = [(at, frame[:6], arp.Arp.parse(frame[14:])) for at, frame in station.got if frame[12:14] == b"\x08\x06"]
    station.got.clear()
    return heard


def solicitations(station: Station) -> list[tuple[int, bytes, Seen, icmpv6.NeighborSolicitation]]:
    """(time, destination MAC, packet, message) of every neighbour solicitation, and forget all that came."""
    heard = []
    for at, frame in station.got:
        if frame[12:14] == b"\x86\xdd" and frame[20] == ICMPV6 and frame[54] == icmpv6.NEIGHBOR_SOLICITATION:
            packet = seen(frame)
            heard.append((at, frame[:6], packet, icmpv6.NeighborSolicitation.parse(packet.icmpv6)))
    station.got.clear()
    return heard


def quote(message: icmp.Icmp | icmpv6.Icmpv6) -> bytes:
    """The packet that an error quotes."""
    return message.body


__all__ = [
    "BROADCAST", "ICMP", "ICMPV6", "MILLISECOND", "SECOND", "TCP", "UDP", "Bridge", "IPv4", "IPv6", "Net", "Seen",
    "Settings", "StaticNeighbor", "Station", "addresses", "arps", "change", "datagram", "device", "echo", "got",
    "host_mac", "ip", "ipv6", "mac", "one", "own_stack", "quote", "route", "router", "router_mac", "seen", "segment",
    "solicitations", "switch", "tunnels",
]  # fmt: skip
