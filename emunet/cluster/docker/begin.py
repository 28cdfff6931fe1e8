"""The engine of a host as it is before anybody has used it, and what its topology puts into it.

Rule of this file: it looks at the cluster for what is taken already; what cannot be is a fault of the topology.
"""

from __future__ import annotations

from collections.abc import Iterator

from emunet.cluster.desired import Cluster
from emunet.cluster.docker.containers import Container, Containers, Place, PortWish
from emunet.cluster.docker.networks import Networks, NetworkWish, PoolWish, Refused
from emunet.cluster.docker.text import read_port
from emunet.cluster.docker.values import Furniture, WantedContainer, WantedNetwork
from emunet.cluster.load import Document, Path, Problem


def engine_of(cluster: Cluster, host: str, seed: int, now: int = 0, *, proxy: bool = True) -> Containers:
    """The engine of a host, as it is before anybody has used it. KeyError where there is no such host."""
    machine = cluster.host(host)
    ranges = (*cluster.ranges.pods, *cluster.ranges.services, *cluster.ranges.underlay)
    published = ((row.protocol.lower(), row.port) for row in machine.publish)
    return Containers(Networks(host, seed, ranges, now), published, proxy=proxy)


def network_wish(wanted: WantedNetwork) -> NetworkWish:
    """A network of a topology, as an engine is asked for it."""
    pools = () if wanted.subnet is None else (PoolWish(wanted.subnet, wanted.gateway),)
    return NetworkWish(wanted.name, pools=pools, ipv6=wanted.ipv6, internal=wanted.internal)


def port_wishes(wanted: WantedContainer) -> list[PortWish]:
    """The ports that a container of a topology publishes. ValueError."""
    return [wish for text in wanted.ports for wish in read_port(text)]


def add(containers: Containers, wanted: WantedContainer) -> Container:
    """A container of a topology, begun. Refused, ValueError."""
    mode, *more = wanted.networks
    places = {}
    if mode not in ("none", "host") and ":" not in mode:
        places = {mode: Place(aliases=wanted.aliases), **{word: Place() for word in more}}
    made = containers.add(wanted.name, mode, places, port_wishes(wanted))
    containers.join(made)
    return made


def furnish(containers: Containers, furniture: Furniture) -> None:
    """What a topology puts into an engine. Refused, ValueError."""
    for network in furniture.networks:
        containers.networks.create(network_wish(network))
    for container in furniture.containers:
        add(containers, container)


def check(document: Document, cluster: Cluster) -> Iterator[Problem]:
    """What of a topology's engines cannot be, each at its place."""
    for number, host in enumerate(cluster.hosts):
        containers = engine_of(cluster, host.name, 0)
        base: Path = ("spec", "hosts", number, "docker")
        for index, network in enumerate(host.docker.networks):
            try:
                containers.networks.create(network_wish(network))
            except Refused as error:
                yield document.problem((*base, "networks", index), str(error))
        for index, container in enumerate(host.docker.containers):
            try:
                add(containers, container)
            except (Refused, ValueError) as error:
                yield document.problem((*base, "containers", index), str(error))
