"""The documents of a lab's files, sorted: the topology, the objects, and what the first two ask for together.

Rule of this file: it reads and checks; nothing is stored.
"""

from __future__ import annotations

from collections.abc import Iterable

from emunet.cluster.build import build
from emunet.cluster.desired import Desired
from emunet.cluster.docker.begin import check
from emunet.cluster.load import BadInput, Document, Problem
from emunet.cluster.objects import expand


def read_manifests(
    documents: Iterable[Document], topology: Document | None = None, previous: Desired | None = None
) -> tuple[Document, list[Document], Desired]:
    """(the Topology, the objects in the order of the files, the cluster with the pods that the files themselves ask
    for).

    `topology` serves where the documents have none of their own. Raises BadInput with every fault of the topology
    and of the pods.
    """
    found = [one for document in documents for one in expand(document)]
    faults = [one for one in found if isinstance(one, Problem)]
    if faults:
        raise BadInput(faults)
    sound = [one for one in found if isinstance(one, Document)]
    topologies = [one for one in sound if one.data.get("kind") == "Topology"]
    objects = [one for one in sound if one.data.get("kind") != "Topology"]
    if not topologies and topology is not None:
        topologies = [topology]
    desired = build([*topologies, *objects], previous)
    faults = list(check(topologies[0], desired.cluster))
    if faults:
        raise BadInput(faults)
    return topologies[0], objects, desired
