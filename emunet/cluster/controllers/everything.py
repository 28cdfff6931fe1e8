"""All controllers of a lab, in the order in which they take their turns.

Rule of this file: the order changes how many turns it takes, never what comes out.
"""

from __future__ import annotations

from emunet.cluster.controllers.actions import Controller
from emunet.cluster.controllers.balancers import Balancers, Pool
from emunet.cluster.controllers.daemons import DaemonSets
from emunet.cluster.controllers.deployments import Deployments
from emunet.cluster.controllers.disruptions import Disruptions
from emunet.cluster.controllers.endpoints import EndpointsOf
from emunet.cluster.controllers.garbage import Garbage
from emunet.cluster.controllers.jobs import Jobs
from emunet.cluster.controllers.kubelet import Kubelet
from emunet.cluster.controllers.namespaces import Authority, Namespaces
from emunet.cluster.controllers.nodes import Health, Nodes
from emunet.cluster.controllers.replication import Replication
from emunet.cluster.controllers.scheduler import Scheduler
from emunet.cluster.controllers.stateful import StatefulSets


def controllers(health: Health, kubelet: Kubelet, pool: Pool, authority: Authority) -> tuple[Controller, ...]:
    """One of each."""
    return (
        Namespaces(authority),
        Nodes(health),
        Deployments(),
        Replication("replicasets.apps", "ReplicaSet"),
        Replication("replicationcontrollers", "ReplicationController"),
        StatefulSets(),
        DaemonSets(),
        Jobs(),
        Scheduler(),
        kubelet,
        EndpointsOf(),
        Disruptions(),
        Balancers(pool),
        Garbage(),
    )
