"""Pass-throughs of the cluster: names, objects, controllers, files of pods, Docker's engines.

A controller looks at nothing and does nothing; a name server knows no name; what checks finds
nothing wrong; what gives out gives nothing, or the first that comes without a look at the others;
what chooses by a word of the object does not read that word.

Rule of this file: rows, and what stands in place of an element. `pass_through` acts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from emunet.cluster import assign, bound, defaults, pod_files, requests, service_rows, validate
from emunet.cluster import compile as compiling
from emunet.cluster.controllers import replication, scheduler
from emunet.cluster.controllers.actions import NOTHING, Outcome
from emunet.cluster.controllers.balancers import Balancers
from emunet.cluster.controllers.daemons import DaemonSets
from emunet.cluster.controllers.endpoints import EndpointsOf
from emunet.cluster.controllers.namespaces import Namespaces
from emunet.cluster.controllers.replication import Replication
from emunet.cluster.controllers.stateful import StatefulSets
from emunet.cluster.docker import names
from emunet.cluster.docker.containers import Containers
from emunet.cluster.docker.networks import Networks
from emunet.cluster.selectors import Requirement
from emunet.cluster.zone import ZoneOf
from emunet.daemon.docker import container_files
from emunet.daemon.docker.proxy import Proxies
from emunet.elements import resolver
from emunet.packet.address import InterfaceAddress
from emunet.packet.dns import MESSAGE_LIMIT, Code
from tests.rules.forwarding import PassThroughs


def _idle(self: Any, view: Any, key: Any, now: int) -> Outcome:
    return NOTHING


def _fill_but_namespaces(kind: str, item: dict[str, Any], api_version: str, *, fill: Any = defaults.fill) -> None:
    if kind != "Namespace":
        fill(kind, item, api_version)


def _first_free(subnet: Any, last: Any, taken: Any, *, following: Any = assign._next) -> Any:
    return following(subnet, None, taken)


def _no_such_name(zone: Any, blank: Any, asked: Any) -> tuple[Any, bool]:
    return replace(blank, code=Code.NXDOMAIN), False


def _any_policy(pod: Any, server: Any, domain: str, *, conf: Any = pod_files.resolv_conf) -> Any:
    return conf({**pod, "spec": {}}, server, domain)


def _in_its_own_network(view: Any, item: Any, domain: str, *, pod_of: Any = bound.pod_of) -> Any:
    return replace(pod_of(view, item, domain), host_network=False)


def _bridged(
    self: Containers, name: str = "", mode: str = "", places: Any = None, ports: Any = (), exposed: Any = (),
    *, publish_all: bool = False, add: Any = Containers.add,
) -> Any:  # fmt: skip
    return add(self, name, ports=ports, exposed=exposed, publish_all=publish_all)


async def _no_proxy(self: Proxies, binding: Any) -> None:
    self._tasks[binding] = set()


CLUSTER: PassThroughs = {
    # Names
    "answer-size": [(resolver, "_limit", lambda edns, stream: MESSAGE_LIMIT)],
    "resolver": [(resolver, "_answer", _no_such_name)],
    "turns": [(resolver, "_turned", lambda records, number: records)],
    "zone": [(ZoneOf, "_part", lambda self, key: None)],
    # Objects, as clients meet them
    "namespace-defaults": [(defaults, "fill", _fill_but_namespaces)],
    "reservations": [(requests, "reserve", lambda view, ranges, item, old=None: item)],
    "selectors": [(Requirement, "matches", lambda self, labels: True)],
    "validation": [
        (validate, "check", lambda kind, item: []),
        (validate, "check_update", lambda kind, old, new: []),
    ],
    # Controllers
    "balancers": [(Balancers, "step", _idle)],
    "daemons": [(DaemonSets, "step", _idle)],
    "endpoints": [(EndpointsOf, "step", _idle)],
    "namespaces": [(Namespaces, "step", _idle)],
    "obstacles": [(scheduler, "_obstacle", lambda view, pod, node: None)],
    "replication": [(Replication, "step", _idle)],
    "stateful": [(StatefulSets, "step", _idle)],
    "victims": [(replication, "victims", lambda pods, number: pods[:number])],
    # What pods and hosts are told
    "environment": [(bound, "service_variables", lambda view, pod: iter(()))],
    "gateways": [(compiling, "gateway", lambda subnet: subnet.address)],
    "host-network": [(bound, "pod_of", _in_its_own_network)],
    "hosts-file": [(pod_files, "hosts_file", lambda *_: "")],
    "macs": [(assign, "derive_mac", lambda seed, name, attempt=0: attempt.to_bytes(6))],
    "remote-routes": [(compiling, "remote_routes", lambda cluster, host, remote: ())],
    "resolv-conf": [(pod_files, "resolv_conf", _any_policy)],
    "round-robin": [(assign, "_next", _first_free)],
    "service-routes": [(compiling, "service_routes", lambda cluster, host: iter(()))],
    "health-checks": [(service_rows, "health_check_of", lambda service, slices: None)],
    "service-rows": [(service_rows, "rows_of", lambda service, slices: ())],
    "tunnel-addresses": [(compiling, "tunnel_address", lambda subnet: InterfaceAddress(subnet.broadcast, 32))],
    # Docker's engines
    "attachments": [(Containers, "_attach", lambda self, container, network, place: None)],
    "docker-files": [(container_files, "resolver", lambda engine, found: "")],
    "docker-names": [(names, "_answers", lambda containers, networks, asked, number: None)],
    "docker-networks": [(Networks, "__iter__", lambda self: iter(()))],
    "docker-pools": [(Networks, "_taken", lambda self, subnet, others: False)],
    "docker-proxy": [(Proxies, "_begin", _no_proxy)],
    "network-modes": [(Containers, "add", _bridged)],
}
