"""Topology T1 of fidelity.md: two nodes, host-gw, both families, and `ext` beside them on the underlay.

    ext 192.168.9.99 ---+
    n1  192.168.9.11 ---+--- n2 192.168.9.12
     p1a .1.2  p1b .1.3        p2a .2.2

The VIP is 10.96.0.50:80 (fd00:10:96::50), backends listen on 8080, the NodePort is 30080.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from emunet.cluster.assign import assign
from emunet.cluster.build import build
from emunet.cluster.compile import compile
from emunet.cluster.load import load_text
from emunet.elements.connections import Backend, ConnectionsConfig, ServicePort
from emunet.elements.connections.services import difference
from emunet.fabric.config import PodEdge, Port
from emunet.packet import ipv4
from emunet.packet.address import parse_ip, parse_mac
from emunet.plane.trace import Trace
from tests.elements.connection_worlds import Tracked
from tests.worlds import InterfaceAddress, Net, datagram, segment

TCP, UDP = ipv4.TCP, ipv4.UDP

TEXT = """
apiVersion: emunet/v1
kind: Topology
metadata: {name: lab}
spec:
  overlay: OVERLAY
  podCIDRs: [10.244.0.0/16, "fd00:244::/48"]
  masquerade: true
  hosts: [n1, n2]
---
{apiVersion: v1, kind: Pod, metadata: {name: p1a}, spec: {nodeName: n1, containers: [{name: a, image: b}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: p1b}, spec: {nodeName: n1, containers: [{name: a, image: b}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: p2a}, spec: {nodeName: n2, containers: [{name: a, image: b}]}}
"""

VIP = {4: parse_ip("10.96.0.50"), 16: parse_ip("fd00:10:96::50")}
EXTERNAL = parse_ip("192.168.9.200")
BALANCER = parse_ip("192.168.9.201")
NODE_PORT = 30080
P1A, P1B, P2A = (parse_ip(text) for text in ("10.244.1.2", "10.244.1.3", "10.244.2.2"))
CNI1, N1, N2, EXT = (parse_ip(text) for text in ("10.244.1.1", "192.168.9.11", "192.168.9.12", "192.168.9.99"))


class Services(Tracked):
    """T1 with Services. `with_backends("p2a")` gives one with these behind it."""

    def __init__(self, overlay: str = "host-gw", seed: int = 0, flow_cache: bool = True) -> None:
        desired = build(load_text(TEXT.replace("OVERLAY", overlay)))
        desired = replace(desired, services=(ServicePort("default/none", UDP, 9, parse_ip("10.96.0.9")),))
        config = compile(desired, assign(desired, seed=seed), seed)
        ext = PodEdge(
            "ext", "switch1", parse_mac("02:00:00:00:00:99"),
            (InterfaceAddress.parse("192.168.9.99/24"), InterfaceAddress.parse("fd00:192:168:9::99/64")),
        )  # fmt: skip
        (switch,) = config.switches
        config = replace(
            config,
            switches=(replace(switch, ports=(*switch.ports, Port("ext"))),),
            pods=(*config.pods, ext),
        )
        Net.__init__(self, config=config, entries={"ext": "ext"}, seed=seed, flow_cache=flow_cache)
        for source, target in (("n1:eth0", N2), ("n2:eth0", EXT), ("n1:eth0", EXT)):  # the switch learns everybody
            self.say(source, datagram(self[source].address(), target, 9, 9))
        self.say("ext", datagram(EXT, N2, 9, 9), self.mac("n2", "eth0"))
        for station in self.stations.values():
            station.got.clear()
        for node in ("n1", "n2"):
            self.table(node).delete_where(lambda *_: True)

    def rules(self, rules: ConnectionsConfig | None, device: str = "n1") -> None:
        """Give a host other rules; the Services stay."""
        self.config = self.world.config
        super().rules(rules, device)

    def backend(self, pod: str, family: int = 4, port: int = 8080, **more: Any) -> Backend:
        """A pod as a backend."""
        station = self[pod]
        return Backend(station.address(family), port, station.device, pod, **more)

    def serve(self, *rows: ServicePort) -> None:
        """Have these rows and no others, as an incremental change."""
        self.world.serving.change(difference(self.world.config.services, rows))

    def with_backends(self, *pods: str, protocol: int = UDP, family: int = 4, **more: Any) -> ServicePort:
        """The Service `default/web:http` with these pods behind it; `ending-` before a name: it ends."""
        backends = tuple(
            self.backend(pod.removeprefix("ending-"), family, ending=pod.startswith("ending-")) for pod in pods
        )
        row = ServicePort("default/web:http", protocol, 80, VIP[family], backends, **more)
        self.serve(row)
        return row

    def call(
        self, source: str, address: bytes, port: int = 80, *, sport: int = 5000, protocol: int = UDP, **fields: Any
    ) -> Trace:
        """A first packet from a pod, `ext` (which sends to n1's MAC) or a host's own sockets."""
        station = self[source]
        caller = station.address(len(address))
        to = fields.pop("to", None)
        if protocol == UDP:
            packet = datagram(caller, address, sport, port, b"x", **fields)
        else:
            packet = segment(caller, address, sport, port, 2, **fields)
        if source == "ext":
            to = to or self.mac("n1", "eth0")
        return self.say(source, packet, to)

    def reply_to(self, heard: str, pod: str) -> Trace:
        """The pod answers what `heard` said that it got."""
        source, target = heard.split()[1], heard.split()[3]
        caller, own = (parse_ip(text.rsplit(":", 1)[0]) for text in (source, target))
        return self.say(pod, datagram(own, caller, *(int(text.rsplit(":", 1)[1]) for text in (target, source)), b"y"))


def caller_of(heard: str) -> str:
    """The address that a line of `heard` comes from, without its port."""
    return heard.split()[1].rsplit(":", 1)[0]


__all__ = ["Services", "caller_of"]
