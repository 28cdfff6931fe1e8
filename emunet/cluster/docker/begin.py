"""The engine of a host as it is before anybody has used it.

Rule of this file: it looks at the cluster for what is taken already.
"""

from __future__ import annotations

from emunet.cluster.desired import Cluster
from emunet.cluster.docker.containers import Containers
from emunet.cluster.docker.networks import Networks


def engine_of(cluster: Cluster, host: str, seed: int, now: int = 0, *, proxy: bool = True) -> Containers:
    """The engine of a host, as it is before anybody has used it. KeyError where there is no such host."""
    machine = cluster.host(host)
    ranges = (*cluster.ranges.pods, *cluster.ranges.services, *cluster.ranges.underlay)
    published = ((row.protocol.lower(), row.port) for row in machine.publish)
    return Containers(Networks(host, seed, ranges, now), published, proxy=proxy)
