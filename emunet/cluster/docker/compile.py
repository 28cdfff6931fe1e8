"""A host's container engine -> what it adds to the configuration of a World.

    docker0, br-…   a bridge for each network, with the network's gateway address and a route of the host's
    web, web:eth1   a port for each attachment, where a container's own stack is joined

and, as Docker writes them into netfilter: masquerade for what leaves a bridge's subnet (DK-05), a row for
each published port (DK-06 to DK-08), and bridges that are kept apart (DK-09 to DK-11).

Rule of this file: values in, values out. A host whose engine has no network in the World is left as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from emunet.cluster.docker.values import Attachment, Binding, Engine, Network
from emunet.fabric.config import (
    Bridge,
    ConnectionsConfig,
    HostConfig,
    HostEdge,
    Interface,
    Masquerade,
    PodEdge,
    Port,
    Publish,
    Route,
    Segment,
    WorldConfig,
)
from emunet.packet.address import InterfaceAddress, Prefix

PROTOCOLS = {"tcp": 6, "udp": 17}


def with_engines(world: WorldConfig, engines: Iterable[Engine]) -> WorldConfig:
    """The World with the networks of these engines, and the edges of their containers."""
    used = {engine.host: engine for engine in engines if engine.networks}
    if not used:
        return world
    return replace(
        world,
        hosts=tuple(with_engine(host, used[host.name]) if host.name in used else host for host in world.hosts),
        pods=(*world.pods, *(edge for engine in used.values() for edge in container_edges(engine))),
        host_edges=(*world.host_edges, *(edge for engine in used.values() for edge in bridge_edges(engine))),
    )


def with_engine(host: HostConfig, engine: Engine) -> HostConfig:
    """A host with the networks of its engine."""
    mtus = {network.id: network.mtu for network in engine.networks}
    ports: dict[str, list[str]] = {network.id: [] for network in engine.networks}
    for attachment in engine.attachments:
        ports[attachment.network].append(attachment.port)
    before = host.connections or ConnectionsConfig()
    rules = ConnectionsConfig(
        # Docker's chain is asked first: what flannel's leaves as it is comes by Docker's all the same (RETURN).
        (*masquerade_rows(engine), *before.masquerade),
        (*before.publish, *publish_rows(engine)),
    )
    return replace(
        host,
        ports=(*host.ports, *(Port(one.port, mtus[one.network]) for one in engine.attachments)),
        interfaces=(*host.interfaces, *map(bridge_interface, engine.networks)),
        routes=(*host.routes, *(Route(pool.subnet, one.interface) for one in engine.networks for pool in one.pools)),
        bridges=(
            *host.bridges,
            *(Bridge(tuple(ports[one.id]), one.interface, hairpin=not engine.proxy) for one in engine.networks),
        ),
        connections=replace(before, masquerade=rules.masquerade, publish=rules.publish),
        segments=tuple(Segment(one.interface, one.internal, one.stations) for one in engine.networks),
    )


def bridge_interface(network: Network) -> Interface:
    """The host's own side of a network's bridge."""
    addresses = tuple(InterfaceAddress(pool.gateway, pool.subnet.length) for pool in network.pools)
    return Interface(network.interface, network.mac, addresses, network.mtu)


def masquerade_rows(engine: Engine) -> Iterator[Masquerade]:
    """`-s SUBNET ! -o BRIDGE -j MASQUERADE` for each network that goes outside."""
    for network in engine.networks:
        if network.masquerade and not network.internal:
            for pool in network.pools:
                yield Masquerade((pool.subnet,), not_interfaces=(network.interface,))


def publish_rows(engine: Engine) -> Iterator[Publish]:
    """A row for each published port and each address that the container has there."""
    bridges = tuple(network.interface for network in engine.networks) if engine.proxy else ()
    for binding in engine.bindings:
        for address in binding.addresses:
            if binding.host_address and len(binding.host_address) != len(address):
                continue
            alone = Prefix.of(address, len(address) * 8)
            yield Publish(
                PROTOCOLS[binding.protocol],
                binding.port,
                address,
                binding.target,
                binding.host_address,
                () if engine.proxy else (alone,),
                bridges,
            )


def container_edges(engine: Engine) -> Iterator[PodEdge]:
    """Where the stacks of containers are joined."""
    mtus = {network.id: network.mtu for network in engine.networks}
    for one in engine.attachments:
        yield PodEdge(one.port, engine.host, one.mac, one.addresses, one.gateways, mtus[one.network])


def bridge_edges(engine: Engine) -> Iterator[HostEdge]:
    """Where the host's own stack meets its bridges."""
    for network in engine.networks:
        yield HostEdge(f"{engine.host}:{network.interface}", engine.host, network.interface)


__all__ = ["Attachment", "Binding", "Engine", "Network", "bridge_interface", "with_engine", "with_engines"]
