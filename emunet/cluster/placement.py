"""Which host each pod of a file runs on, before anything of the lab is there.

Rule of this file: what was decided before stays; nothing that one pod asks for moves another that has a host.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from emunet.cluster import ranges
from emunet.cluster.check_pods import PodRequest, is_pod_address
from emunet.cluster.load import Path, Problem
from emunet.cluster.objects import IP_ANNOTATION
from emunet.cluster.ranges import natural
from emunet.packet.address import format_ip

if TYPE_CHECKING:
    from emunet.cluster.desired import Host, Pod


class Placement:
    """Decides each pod's host: what the pod fixes (nodeName, emunet/ip), else where it was, else the
    host with the fewest pods, and among equals the first by name. Only hosts with a free address count.
    """

    def __init__(self, hosts: Sequence[Host], requests: Sequence[PodRequest], before: Sequence[Pod]) -> None:
        self._hosts = {host.name: host for host in sorted(hosts, key=lambda host: natural(host.name))}
        self._requests = requests
        self._before = {pod.port: pod.host for pod in before}
        self._pods = dict.fromkeys(self._hosts, 0)
        self._free = {host.name: min(ranges.pod_capacity(subnet) for subnet in host.subnets) for host in hosts}
        self._problems: list[Problem] = []
        self._places: dict[str, str] = {}

    def decide(self) -> tuple[dict[str, str], list[Problem]]:
        """The host of each pod by its port name, and what stands in the way."""
        open_requests: list[tuple[PodRequest, list[str]]] = []
        for request in self._requests:
            candidates = self._candidates(request)
            if request.pod.spec.node_name is not None or request.addresses:
                self._put(request, candidates)
            else:
                open_requests.append((request, candidates))
        unbound: list[tuple[PodRequest, list[str]]] = []
        for request, candidates in open_requests:
            before = self._before.get(request.port)
            if before in candidates and self._has_room(before, request):
                self._put(request, [before])
            else:
                unbound.append((request, candidates))
        for request, candidates in unbound:
            self._put(request, candidates)
        return self._places, self._problems

    def _has_room(self, host: str, request: PodRequest) -> bool:
        return request.pod.spec.host_network or self._free[host] > 0

    def _put(self, request: PodRequest, candidates: Sequence[str]) -> None:
        if not candidates:
            return  # said already
        roomy = [host for host in candidates if self._has_room(host, request)]
        if not roomy:
            subnets = ", ".join(f"{host} {' '.join(map(str, self._hosts[host].subnets))}" for host in candidates[:8])
            message = f"no address is left for this pod in the pod range of any host that it may run on ({subnets})"
            self._problems.append(request.document.problem(("metadata", "name"), message))
            return
        host = min(roomy, key=self._pods.__getitem__)
        self._places[request.port] = host
        self._pods[host] += 1
        self._free[host] -= not request.pod.spec.host_network

    def _candidates(self, request: PodRequest) -> list[str]:
        """The hosts on which the pod may run, by name."""
        spec = request.pod.spec
        document = request.document
        hosts = [spec.node_name] if spec.node_name is not None else list(self._hosts)
        if spec.node_selector:
            wanted = spec.node_selector.items()
            chosen = [host for host in hosts if wanted <= self._labels(host).items()]
            if not chosen:
                who = f"{spec.node_name} lacks" if spec.node_name is not None else "no host has"
                labels = ", ".join(f"{key}={value}" for key, value in sorted(wanted))
                path: Path = ("spec", "nodeSelector")
                self._problems.append(document.problem(path, f"{who} the labels {labels}"))
                return []
            hosts = chosen
        for address in request.addresses:
            chosen = [host for host in hosts if any(is_pod_address(p, address) for p in self._hosts[host].subnets)]
            if not chosen:
                subnets = ", ".join(f"{host} {' '.join(map(str, self._hosts[host].subnets))}" for host in hosts[:8])
                message = (
                    "expected an address that a pod may have on its host, not one of the first two and no broadcast"
                )
                message += f": {subnets} (got {format_ip(address)})"
                self._problems.append(document.problem(("metadata", "annotations", IP_ANNOTATION), message))
                return []
            hosts = chosen
        return hosts

    def _labels(self, host: str) -> dict[str, str]:
        own = dict(self._hosts[host].labels)
        return {"kubernetes.io/hostname": host, "kubernetes.io/os": "linux", **own}
