"""Clusters under policies: namespaces x, y and z with pods a, b and c, the small world of policy-assistant.

Two hosts: the a and b pods are on host1, the c pods on host2. A pod serves TCP, UDP and SCTP on
ports 80 and 81, named `serve-80-tcp` and so on. Nothing answers by itself: a test sees which
frames arrive, and sends the answers that it wants.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from emunet.cluster import defaults
from emunet.cluster.assign import Allocation, assign
from emunet.cluster.compile import compile
from emunet.cluster.desired import Desired
from emunet.cluster.policies import PolicySet, policy_of
from emunet.cluster.policing import Policing
from emunet.packet import ipv4, ipv6
from emunet.packet.address import InterfaceAddress
from emunet.plane.trace import Trace
from tests.worlds import Net, datagram, segment

SPACES, PODS, PORTS, PROTOCOLS = ("x", "y", "z"), ("a", "b", "c"), (80, 81), ("TCP", "UDP", "SCTP")
NAMES = tuple(f"{space}/{pod}" for space in SPACES for pod in PODS)
SYN, ACK, SYN_ACK = 0x02, 0x10, 0x12


def pod_text(space: str, name: str, host: str = "", **labels: str) -> str:
    """A pod's manifest."""
    ports = ", ".join(
        f"{{containerPort: {port}, protocol: {protocol}, name: serve-{port}-{protocol.lower()}}}"
        for port in PORTS
        for protocol in PROTOCOLS
    )
    marks = ", ".join(f"{key}: {value}" for key, value in (labels or {"pod": name}).items())
    where = host or ("host2" if name == "c" else "host1")
    return (
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {space}, labels: {{{marks}}}}}\n"
        f"spec: {{nodeName: {where}, containers: [{{name: c, image: i, ports: [{ports}]}}]}}\n"
    )


TOPOLOGY = """
apiVersion: emunet/v1
kind: Topology
metadata: {name: lab}
spec:
  overlay: host-gw
  podCIDRs: [10.244.0.0/16, "fd00:244::/48"]
  hosts: [host1, host2]
"""
TEXT = "---\n".join([TOPOLOGY, *(pod_text(space, name) for space in SPACES for name in PODS)])


def policy(name: str, space: str = "x", **spec: Any) -> dict[str, Any]:
    """A NetworkPolicy; what `spec` leaves out is filled in as the API does. `podSelector` is all pods by default."""
    item = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": space},
        "spec": {"podSelector": {}, **spec},
    }
    defaults.fill("NetworkPolicy", item, "networking.k8s.io/v1")
    return item


def labels(**found: str) -> dict[str, Any]:
    """A selector of labels."""
    return {"matchLabels": found}


def policy_set(policies: Iterable[dict[str, Any]], spaces: Mapping[str, Mapping[str, str]]) -> PolicySet:
    """Objects as the control plane hands them on: by namespace and name."""
    found = sorted(policies, key=lambda one: (one["metadata"]["namespace"], one["metadata"]["name"]))
    marks = tuple((name, tuple(sorted(labels.items()))) for name, labels in sorted(spaces.items()))
    return PolicySet(tuple(map(policy_of, found)), marks if found else ())


class Policed(Net):
    """That cluster; namespaces carry `ns` and `kubernetes.io/metadata.name`."""

    def __init__(self, text: str = TEXT, *, flow_cache: bool = True, mode: str = "") -> None:
        if mode:
            text = text.replace("overlay: host-gw\n", f"overlay: host-gw\n  networkPolicy: {mode}\n", 1)
        super().__init__(text=text, flow_cache=flow_cache)
        self.allocation: Allocation = assign(self.desired)
        self.policing = Policing()
        self.spaces = {name: {"ns": name, "kubernetes.io/metadata.name": name} for name in SPACES}
        self.policies: list[dict[str, Any]] = []
        self._sports = itertools.count(1024)
        self.teach()

    def teach(self) -> None:
        """Bridges learn where everybody is, as they would from the pods' first ARP."""
        for name in NAMES:
            station = self[name]
            frame = self.gateway(station) + station.mac + b"\x88\xb5" + bytes(46)
            self.world.receive(station, frame, self.world.now)

    def apply(self, *policies: dict[str, Any]) -> None:
        """These policies and no others, from now on."""
        self.policies = list(policies)
        self.rebuild()

    def relabel(self, name: str, **labels: str) -> None:
        """Another pod's labels."""
        pods = tuple(
            replace(pod, labels=tuple(sorted(labels.items()))) if pod.port == name else pod for pod in self.desired.pods
        )
        self.desired = replace(self.desired, pods=pods)
        self.rebuild()

    def rebuild(self) -> None:
        """Become what is wanted by now."""
        self.desired = self.wanted()
        self.config = compile(self.desired, self.allocation, policing=self.policing)
        self.world.configure(self.config)

    def wanted(self) -> Desired:
        """The cluster as wanted: the same value for a policy that is the same object."""
        return replace(self.desired, policies=policy_set(self.policies, self.spaces))

    def packet(
        self, source: str, target: str, protocol: str = "TCP", port: int = 80, family: int = 4, sport: int = 0
    ) -> bytes:
        """The first packet of a new connection (or of the one from `sport`)."""
        ends = self[source].address(family), self[target].address(family)
        sport = sport or 1024 + next(self._sports) % 60000
        if protocol == "TCP":
            return segment(*ends, sport, port, SYN)
        if protocol == "UDP":
            return datagram(*ends, sport, port, b"ask")
        return sctp(*ends, sport, port)

    def mac_for(self, source: str, target: str) -> bytes | None:
        """The MAC that a stack sends to: the neighbour's own on its link, else (None) the gateway's."""
        return self[target].mac if self[source].device == self[target].device else None

    def passes(self, source: str, target: str, protocol: str = "TCP", port: int = 80, family: int = 4) -> bool:
        """Whether a frame that begins a connection arrives, by a real frame without a trace."""
        before = len(self[target].got)
        packet = self.packet(source, target, protocol, port, family)
        frame = self.frame(source, packet, self.mac_for(source, target))
        self.world.receive(self[source], frame, self.world.now)
        return len(self[target].got) > before

    def asked(self, source: str, target: str, protocol: str, port: int, family: int = 4) -> bool:
        """The same by a dry run."""
        packet = self.packet(source, target, protocol, port, family)
        trace = self.world.explain(self[source], self.frame(source, packet, self.mac_for(source, target)))
        return trace.verdict == "delivered"

    def say(self, source: str, packet: bytes, to: bytes | None = None) -> Trace:
        """Let a packet in, traced, and keep the law."""
        trace = self.send(source, self.frame(source, packet, to))
        self.balanced()
        return trace

    def ask(self, source: str, target: str, protocol: str = "TCP", port: int = 80, **more: int) -> Trace:
        """Begin a connection, traced."""
        return self.say(source, self.packet(source, target, protocol, port, **more), self.mac_for(source, target))


def sctp(source: bytes, destination: bytes, sport: int, dport: int) -> bytes:
    """An SCTP INIT as far as a bystander reads it: ports, tag, checksum (not looked at), one chunk."""
    chunk = bytes((1, 0, 0, 20)) + bytes(16)
    body = sport.to_bytes(2, "big") + dport.to_bytes(2, "big") + bytes(8) + chunk
    if len(source) == 4:
        return ipv4.IPv4(source, destination, 132).pack(body)
    return ipv6.IPv6(source, destination, 132).pack(body)


__all__ = ["ACK", "NAMES", "SYN", "SYN_ACK", "InterfaceAddress", "Policed", "labels", "pod_text", "policy", "sctp"]
