"""The lab's way to the outside: a router on the underlay that every host sends to what it knows no other way for.

    hosts --- switch --- gateway:eth0 | gateway:out --- a program of the machine (`linux.way_out`)

It runs nothing and remembers who asked what: whatever leaves by `out` comes from the gateway, since the program at
the other end knows a single guest. What hosts masquerade is the topology's affair, as before; of pods that come with
their own address the gateway knows the host. Nothing is begun from outside: there is no way in.

IPv6 gets out where the underlay has it and the machine has a way for it: as IPv4 does, from an address of the
gateway's, and to global addresses only.

Rule of this file: values in, values out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from emunet.cluster import ranges
from emunet.cluster.desired import Cluster, DnsWish, Gateway, Way
from emunet.fabric.config import (
    ConnectionsConfig,
    HostConfig,
    Interface,
    Masquerade,
    OutsideConfig,
    Port,
    Route,
    RouteKind,
    Settings,
    StaticNeighbor,
    WireConfig,
    WorldConfig,
)
from emunet.packet.address import InterfaceAddress, Prefix

NAME, INSIDE, OUTSIDE = "gateway", "eth0", "out"
EDGE = f"{NAME}:{OUTSIDE}"
"""The port at whose other end the program is."""

MTU = 65520
"""What the program at the other end may send at once: passt hands over a UDP message whole, and it is cut inside."""

NEXT_HOP = f"{NAME} next hop"
"""Whose MAC the gateway knows without asking, so that a dry run gets as far as a packet does."""

EVERYTHING = {4: Prefix.parse("0.0.0.0/0"), 16: Prefix.parse("::/0")}
LET_OUT = {4: EVERYTHING[4], 16: Prefix.parse("2000::/3")}
"""What is let out, by family. Of IPv6 all global unicast: so no IPv4 address in the form of IPv6 (::ffff:127.0.0.1 is
the machine's loopback), and no unique local one, where clouds hand out credentials (fd00:ec2::254)."""

LINK_LOCAL = Prefix.parse("169.254.0.0/16")
"""Never let out: the machine's own link, and where clouds hand out credentials (169.254.169.254)."""

_RANGES = {
    4: tuple(map(Prefix.parse, ("10.0.2.0/24", "192.168.255.0/24", "172.31.255.0/24"))),
    16: tuple(map(Prefix.parse, ("fd65:6d75:6e65:7400::/64", "fd65:6d75:6e65:74ff::/64"))),
}
"""Where the outside's next hop lies: the first that is no range of the lab's. 10.0.2.0/24 is QEMU's and slirp's."""


class NoGateway(ValueError):
    """This topology has no place for one: a sentence."""


def with_way_out(cluster: Cluster, resolver: bytes | None, ipv6: bool = False) -> Cluster:
    """The cluster with a gateway. For names outside its name server asks the machine's, if it may ask at all.

    `ipv6` says whether the machine has a way for IPv6 too. A name server whose address is the lab's own, too, cannot be
    asked. NoGateway where the topology has no place for a gateway.
    """
    gateway, dns = choose(cluster, ipv6), cluster.dns
    if resolver is not None and any(one.contains(resolver) for one in _own_ranges(cluster)):
        resolver = None
    if resolver is not None and not dns.forward:
        # A name server from the first Service on is here one from the beginning: the outside is known by names.
        wish = DnsWish.ON if dns.wish is DnsWish.AUTO else dns.wish
        dns = replace(dns, wish=wish, forward=(resolver,))
    return replace(cluster, gateway=replace(gateway, resolver=resolver), dns=dns)


def _own_ranges(cluster: Cluster) -> tuple[Prefix, ...]:
    return (*cluster.ranges.pods, *cluster.ranges.services, *cluster.ranges.underlay)


def choose(cluster: Cluster, ipv6: bool = False) -> Gateway:
    """The gateway of these machines. NoGateway where there is no place for it."""
    if not cluster.switches:
        raise NoGateway("the gateway to the outside is plugged into a switch, and this topology has none: add one")
    if NAME in {*(one.name for one in cluster.hosts), *(one.name for one in cluster.switches)}:
        raise NoGateway(f"the way to the outside is a device called {NAME}, and the topology has one: rename that")
    underlay = {len(one.address): one for one in reversed(cluster.ranges.underlay)}
    if 4 not in underlay:
        raise NoGateway("the way to the outside needs IPv4, and this topology's underlay has no IPv4 range")
    return Gateway(
        cluster.switches[0].name,
        _way(cluster, underlay[4]),
        _way(cluster, underlay[16]) if ipv6 and 16 in underlay else None,
    )


def _way(cluster: Cluster, underlay: Prefix) -> Way:
    taken = {row.address for host in cluster.hosts for row in host.addresses}
    pools = cluster.ranges.balancers
    address = next(
        (one for one in _addresses(underlay) if one not in taken and not any(pool.contains(one) for pool in pools)),
        None,
    )
    if address is None:
        raise NoGateway(f"no address of the underlay {underlay} is left for the gateway to the outside")
    candidates = _RANGES[len(address)]
    free = next((one for one in candidates if not any(one.overlaps(other) for other in _own_ranges(cluster))), None)
    if free is None:
        tried = ", ".join(map(str, candidates))
        raise NoGateway(f"the way to the outside needs one of {tried}, and the lab's own ranges have parts of all")
    return Way(
        InterfaceAddress(address, underlay.length), InterfaceAddress(free.nth(15), free.length), free.nth(2)
    )  # fmt: skip


def _addresses(prefix: Prefix) -> Iterator[bytes]:
    """The first address of a network, where a gateway usually is, and then those that hosts get last."""
    yield prefix.nth(1)
    if len(prefix.address) == 4:
        yield from reversed(list(ranges.host_addresses(prefix)))
    else:
        yield from (prefix.nth(number) for number in range(min(ranges.last_usable(prefix), 0xFFFF), 1, -1))


def with_gateway(world: WorldConfig, cluster: Cluster, macs: dict[str, bytes]) -> WorldConfig:
    """The World with this cluster's gateway, if it has one, and its hosts' default routes."""
    gateway = cluster.gateway
    if gateway is None:
        return world
    switch = next(one for one in world.switches if one.name == gateway.switch)
    plug = Port(NAME, max(port.mtu for port in switch.ports) if switch.ports else 1500)
    defaults = tuple(Route(EVERYTHING[len(way.next_hop)], "eth0", way.inside.address) for way in gateway.ways)
    return replace(
        world,
        hosts=tuple(replace(host, routes=(*host.routes, *defaults)) for host in world.hosts),
        switches=tuple(replace(one, ports=(*one.ports, plug)) if one == switch else one for one in world.switches),
        routers=(*world.routers, _device(cluster, gateway, plug.mtu, macs)),
        wires=(*world.wires, WireConfig(f"{NAME}--{switch.name}", (NAME, INSIDE), (switch.name, NAME))),
        outside=(*world.outside, OutsideConfig(EDGE, NAME, OUTSIDE, "given", "the machine", mtu=MTU)),
    )


def interfaces() -> list[str]:
    """Its interfaces, as those of hosts are named, and that of its next hop."""
    return [f"{NAME}:{INSIDE}", f"{NAME}:{OUTSIDE}", NEXT_HOP]


def _device(cluster: Cluster, gateway: Gateway, mtu: int, macs: dict[str, bytes]) -> HostConfig:
    return HostConfig(
        NAME,
        (Port(INSIDE, mtu), Port(OUTSIDE, MTU)),
        (
            Interface(INSIDE, macs[f"{NAME}:{INSIDE}"], tuple(way.inside for way in gateway.ways), mtu),
            Interface(
                OUTSIDE,
                macs[f"{NAME}:{OUTSIDE}"],
                tuple(way.outside for way in gateway.ways),
                MTU,
                Settings(send_redirects=False),
            ),
        ),
        tuple(route for way in gateway.ways for route in _routes(cluster, way)),
        tuple(StaticNeighbor(OUTSIDE, way.next_hop, macs[NEXT_HOP]) for way in gateway.ways),
        connections=ConnectionsConfig((Masquerade(interfaces=(OUTSIDE,)),)),
    )


def _routes(cluster: Cluster, way: Way) -> Iterator[Route]:
    family = len(way.next_hop)
    yield Route(way.inside.prefix, INSIDE)
    yield Route(way.outside.prefix, OUTSIDE)
    for host in cluster.hosts:
        near = next((row.address for row in host.addresses if len(row.address) == family), None)
        for subnet in host.subnets:
            if near is not None and len(subnet.address) == family:
                yield Route(subnet, INSIDE, near)
    for own in (*cluster.ranges.pods, *cluster.ranges.services):
        if len(own.address) == family:  # what is the lab's and nobody's is not asked for outside
            yield Route(own, kind=RouteKind.UNREACHABLE)
    if family == 4:
        yield Route(LINK_LOCAL, kind=RouteKind.PROHIBIT)
    else:
        yield Route(EVERYTHING[family], kind=RouteKind.PROHIBIT)
    yield Route(LET_OUT[family], OUTSIDE, way.next_hop)


__all__ = ["EDGE", "INSIDE", "NAME", "OUTSIDE", "NoGateway", "choose", "interfaces", "with_gateway", "with_way_out"]
