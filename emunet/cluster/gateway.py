"""The lab's way to the outside: a router on the underlay that every host sends to what it knows no other way for.

    hosts --- switch --- gateway:eth0 | gateway:out --- a program of the machine (`linux.way_out`)

It runs nothing and remembers who asked what: whatever leaves by `out` comes from the gateway, since the program at
the other end knows a single guest. What hosts masquerade is the topology's affair, as before; of pods that come with
their own address the gateway knows the host. Nothing is begun from outside: there is no way in.

Rule of this file: values in, values out. IPv4 only; IPv6 stays inside.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from emunet.cluster import ranges
from emunet.cluster.desired import Cluster, DnsWish, Gateway
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

EVERYTHING = Prefix.parse("0.0.0.0/0")
LINK_LOCAL = Prefix.parse("169.254.0.0/16")
"""Never let out: the machine's own link, and where clouds hand out credentials (169.254.169.254)."""

_RANGES = tuple(map(Prefix.parse, ("10.0.2.0/24", "192.168.255.0/24", "172.31.255.0/24")))
"""Where the outside's next hop lies: the first that is no range of the lab's. 10.0.2.0/24 is QEMU's and slirp's."""


class NoGateway(ValueError):
    """This topology has no place for one: a sentence."""


def with_way_out(cluster: Cluster, resolver: bytes | None) -> Cluster:
    """The cluster with a gateway. For names outside its name server asks the machine's, if it may ask at all.

    One whose address is the lab's own, too, cannot be asked. NoGateway where the topology has no place for a gateway.
    """
    gateway, dns = choose(cluster), cluster.dns
    if resolver is not None and any(one.contains(resolver) for one in _own_ranges(cluster)):
        resolver = None
    if resolver is not None and not dns.forward:
        # A name server from the first Service on is here one from the beginning: the outside is known by names.
        wish = DnsWish.ON if dns.wish is DnsWish.AUTO else dns.wish
        dns = replace(dns, wish=wish, forward=(resolver,))
    return replace(cluster, gateway=replace(gateway, resolver=resolver), dns=dns)


def _own_ranges(cluster: Cluster) -> tuple[Prefix, ...]:
    return (*cluster.ranges.pods, *cluster.ranges.services, *cluster.ranges.underlay)


def choose(cluster: Cluster) -> Gateway:
    """The gateway of these machines. NoGateway where there is no place for it."""
    if not cluster.switches:
        raise NoGateway("the gateway to the outside is plugged into a switch, and this topology has none: add one")
    if NAME in {*(one.name for one in cluster.hosts), *(one.name for one in cluster.switches)}:
        raise NoGateway(f"the way to the outside is a device called {NAME}, and the topology has one: rename that")
    underlay = next((one for one in cluster.ranges.underlay if len(one.address) == 4), None)
    if underlay is None:
        raise NoGateway("the way to the outside is IPv4's, and this topology's underlay has no IPv4 range")
    taken = {row.address for host in cluster.hosts for row in host.addresses}
    pools = cluster.ranges.balancers
    address = next(
        (one for one in _addresses(underlay) if one not in taken and not any(pool.contains(one) for pool in pools)),
        None,
    )
    if address is None:
        raise NoGateway(f"no address of the underlay {underlay} is left for the gateway to the outside")
    free = next((one for one in _RANGES if not any(one.overlaps(other) for other in _own_ranges(cluster))), None)
    if free is None:
        tried = ", ".join(map(str, _RANGES))
        raise NoGateway(f"the way to the outside needs one of {tried}, and the lab's own ranges have parts of all")
    return Gateway(
        cluster.switches[0].name,
        InterfaceAddress(address, underlay.length),
        InterfaceAddress(free.nth(15), free.length),
        free.nth(2),
    )


def _addresses(prefix: Prefix) -> Iterator[bytes]:
    """The first address of a network, where a gateway usually is, and then those that hosts get last."""
    yield prefix.nth(1)
    yield from reversed(list(ranges.host_addresses(prefix)))


def with_gateway(world: WorldConfig, cluster: Cluster, macs: dict[str, bytes]) -> WorldConfig:
    """The World with this cluster's gateway, if it has one, and its hosts' default routes."""
    gateway = cluster.gateway
    if gateway is None:
        return world
    switch = next(one for one in world.switches if one.name == gateway.switch)
    plug = Port(NAME, max(port.mtu for port in switch.ports) if switch.ports else 1500)
    default = Route(EVERYTHING, "eth0", gateway.inside.address)
    return replace(
        world,
        hosts=tuple(replace(host, routes=(*host.routes, default)) for host in world.hosts),
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
            Interface(INSIDE, macs[f"{NAME}:{INSIDE}"], (gateway.inside,), mtu),
            Interface(OUTSIDE, macs[f"{NAME}:{OUTSIDE}"], (gateway.outside,), MTU, Settings(send_redirects=False)),
        ),
        (
            Route(gateway.inside.prefix, INSIDE),
            Route(gateway.outside.prefix, OUTSIDE),
            *(
                Route(subnet, INSIDE, host.addresses[0].address)
                for host in cluster.hosts
                for subnet in host.subnets
                if len(subnet.address) == 4
            ),
            # What is the lab's and nobody's is not asked for outside.
            *(
                Route(own, kind=RouteKind.UNREACHABLE)
                for own in (*cluster.ranges.pods, *cluster.ranges.services)
                if len(own.address) == 4
            ),
            Route(LINK_LOCAL, kind=RouteKind.PROHIBIT),
            Route(EVERYTHING, OUTSIDE, gateway.next_hop),
        ),
        (StaticNeighbor(OUTSIDE, gateway.next_hop, macs[NEXT_HOP]),),
        connections=ConnectionsConfig((Masquerade(interfaces=(OUTSIDE,)),)),
    )


__all__ = ["EDGE", "INSIDE", "NAME", "OUTSIDE", "NoGateway", "choose", "interfaces", "with_gateway", "with_way_out"]
