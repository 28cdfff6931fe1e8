"""Does netfilter agree about Services? The kernel's node has nft rules of kube-proxy's shape, ours the same as rows.

Chains are those of kube-proxy's iptables mode (KUBE-SERVICES, KUBE-NODEPORTS, KUBE-EXT, KUBE-FW, KUBE-SVC and KUBE-SEP;
REJECT and DROP in the filter table), one backend each, so that chance decides nothing. Every caller calls every
address of every Service in both protocols and families; every frame that comes out is compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import netfilter_node as node
import pytest
from netfilter_judge import Conversation, Judge
from netfilter_ours import OurNode

from emunet.elements.connections import Backend, ServicePort
from emunet.packet import ipv4, tcp
from emunet.packet.address import Prefix, parse_ip

PORT = node.SERVICE_PORT
LOCAL = node.STATIONS["pod2"][1:]
REMOTE = ("10.244.2.2", "fd00:244:2::2")
PODS = ("10.244.0.0/16", "fd00:244::/32")
ALLOWED = ("192.168.9.99/32", "fd00:9::99/128")


@dataclass(frozen=True)
class Case:
    """One Service: `number` is in its addresses and its NodePort."""

    number: int
    backend: tuple[str, ...] = ()
    outside: bool = False
    balancer: bool = False
    external_local: bool = False
    internal_local: bool = False

    def vip(self, family: int) -> str:
        return (f"10.96.0.{self.number}", f"fd00:96::{self.number}")[family]

    def external(self, family: int) -> str:
        return (f"192.168.9.20{self.number}", f"fd00:9::20{self.number}")[family]

    @property
    def node_port(self) -> int:
        return 30000 + self.number

    @property
    def is_here(self) -> bool:
        return self.backend == LOCAL

    def row(self, protocol: int, family: int) -> ServicePort:
        backends = tuple(
            Backend(parse_ip(text), node.BACKEND_PORT, "node" if self.is_here else "other")
            for text in self.backend[family : family + 1]
        )
        external = (parse_ip(self.external(family)),) if self.outside else ()
        return ServicePort(
            f"default/s{self.number}-{protocol}", protocol, PORT, parse_ip(self.vip(family)), backends,
            external=() if self.balancer else external,
            balancers=external if self.balancer else (),
            sources=(Prefix.parse(ALLOWED[family]),) if self.balancer else (),
            node_port=self.node_port if self.outside else 0,
            external_local=self.external_local,
            internal_local=self.internal_local,
        )  # fmt: skip


CASES = (
    Case(1, LOCAL),
    Case(2, REMOTE, outside=True),
    Case(3, LOCAL, outside=True, balancer=True),
    Case(4, LOCAL, outside=True, external_local=True),
    Case(5, REMOTE, outside=True, external_local=True),
    Case(6, (), outside=True),
    Case(7, REMOTE, internal_local=True),
    Case(8, LOCAL, outside=True, external_local=True, internal_local=True),
)


def rules() -> str:
    """What kube-proxy would write for these, in nft's words."""
    return _rules(0, "ip", "ip saddr", "ip daddr", "icmp") + _rules(1, "ip6", "ip6 saddr", "ip6 daddr", "icmpv6")


def _rules(family: int, table: str, saddr: str, daddr: str, icmp: str) -> str:
    both = "meta l4proto { tcp, udp }"
    mark = "meta mark set meta mark or 0x4000"
    services, node_ports, chains = [], [], []
    inside: dict[str, list[str]] = {"external": [], "cluster": [], "firewall": []}
    for case in CASES:
        name, pods = f"s{case.number}", PODS[family]
        vip, external = f"{daddr} {case.vip(family)} {both} th dport {PORT}", ""
        port = f"fib daddr type local {both} th dport {case.node_port}"
        refuse = "drop" if case.backend else f"reject with {icmp} type port-unreachable"
        if case.outside:
            external = f"{daddr} {case.external(family)} {both} th dport {PORT}"
        if case.backend:
            backend = case.backend[family]
            to = backend if family == 0 else f"[{backend}]"
            chains.append(
                f"chain svc-{name} {{ {saddr} {backend} {mark}; meta l4proto tcp dnat to {to}:{node.BACKEND_PORT}; "
                f"meta l4proto udp dnat to {to}:{node.BACKEND_PORT}; }}".replace("; ", "\n")
            )
        if case.backend and (case.is_here or not case.internal_local):
            chains.append(f"chain int-{name} {{\n{saddr} != {pods} {mark}\ngoto svc-{name}\n}}")
            services.append(f"{vip} goto int-{name}")
        else:
            inside["cluster"].append(f"{vip} {refuse}")
        if case.outside and case.backend:
            lines = [mark, f"goto svc-{name}"]
            if case.external_local:
                lines = [f"{saddr} {pods} goto svc-{name}", f"fib saddr type local {mark}"]
                lines.append(f"fib saddr type local goto svc-{name}")
                lines += [f"goto svc-{name}"] if case.is_here else []
            chains.append(f"chain ext-{name} {{\n" + "\n".join(lines) + "\n}")
            if case.balancer:
                chains.append(f"chain fw-{name} {{\n{saddr} {ALLOWED[family]} goto ext-{name}\n}}")
                inside["firewall"].append(f"{external} drop")
            services.append(f"{external} goto {'fw' if case.balancer else 'ext'}-{name}")
            node_ports.append(f"{both} th dport {case.node_port} goto ext-{name}")
        if case.outside and (not case.backend or (case.external_local and not case.is_here)):
            inside["external"] += [f"{external} {refuse}", f"{port} {refuse}"]

    def chain(head: str, lines: list[str]) -> str:
        return f"chain {head} {{\n" + "\n".join(lines) + "\n}"

    def base(kind: str, hook: str, priority: int, lines: list[str]) -> str:
        return chain(hook, [f"type {kind} hook {hook} priority {priority};", *lines])

    later = ["ct state new jump firewall"]
    filters = [
        *(chain(name, lines) for name, lines in inside.items()),
        base("filter", "input", 0, ["ct state new jump external", *later]),
        base("filter", "forward", 0, ["ct state new jump external", "ct state new jump cluster", *later]),
        base("filter", "output", 0, ["ct state new jump cluster", *later]),
    ]
    nat = [
        *chains,
        chain("node-ports", node_ports),
        chain("services", [*services, "fib daddr type local jump node-ports"]),
        base("nat", "prerouting", -100, ["jump services"]),
        base("nat", "output", -100, ["jump services"]),
        base(
            "nat", "postrouting", 100,
            [
                "meta mark and 0x4000 == 0x4000 masquerade fully-random",
                f"{saddr} {PODS[family]} {daddr} != {PODS[family]} masquerade",
            ],
        ),
    ]  # fmt: skip
    return (
        f"table {table} kube {{\n" + "\n".join(nat) + f"\n}}\ntable {table} walls {{\n" + "\n".join(filters) + "\n}\n"
    )


@pytest.fixture
def judge() -> Iterator[Judge]:
    if (reason := node.missing()) is not None:
        pytest.skip(reason)
    kernel = node.KernelNode(translation=rules())
    rows = tuple(case.row(protocol, family) for case in CASES for protocol in (6, 17) for family in (0, 1))
    ours = OurNode(services=rows)
    try:
        yield Judge(kernel, ours)
        assert ours.balance() == 0
    finally:
        kernel.close()


SOURCES = {"pod1": node.STATIONS["pod1"][1:], "pod2": LOCAL, "eth0": node.STATIONS["eth0"][1:], "node": node.NODE}


@pytest.mark.rule("SVC-10")
@pytest.mark.rule("SVC-17")
@pytest.mark.rule("SVC-20")
@pytest.mark.rule("SVC-30")
@pytest.mark.rule("SVC-32")
def test_every_caller_and_every_address(judge: Judge) -> None:
    """Nothing comes out of one node that does not come out of the other, for calls, answers and refusals."""
    sport, reached = 20_000, 0
    for case in CASES:
        for family in (0, 1):
            for client, sources in SOURCES.items():
                if client == "node" and family:
                    continue  # the kernel's node sends IPv4 packets only
                for address, port in targets(case, family, client):
                    for protocol in (ipv4.UDP, ipv4.TCP):
                        sport += 1
                        while sport in judge.chosen:
                            sport += 1
                        server = "pod2" if case.is_here else "eth0"
                        source = parse_ip(sources[family])
                        talk = Conversation(
                            judge, client, server, protocol, parse_ip(address), sport, port, node.BACKEND_PORT, source
                        )
                        judge.history.append(f"--- s{case.number} {client} to {address}:{port} {protocol}")
                        speak(talk)
                        reached += talk.views is not None
    judge.tables()
    assert judge.frames > 500
    assert reached > 100


def targets(case: Case, family: int, client: str) -> Iterator[tuple[str, int]]:
    """What a caller may call of a Service, and a port of its address that it has not."""
    yield case.vip(family), PORT
    yield case.vip(family), PORT + 1
    if case.outside:
        yield case.external(family), PORT
    if case.outside and client != "node":  # what a node sends to itself never leaves its kernel
        yield node.NODE[family], case.node_port
        yield node.CNI[family], case.node_port


def speak(talk: Conversation) -> None:
    """A call, its answers, and what follows."""
    if talk.protocol == ipv4.UDP:
        talk.datagram(b"call")
        talk.datagram_back(b"answer")
        talk.datagram(b"again")
        talk.complain((3, 3) if len(talk.source) == 4 else (1, 4), 200)
        return
    talk.segment(tcp.SYN)
    talk.segment_back(tcp.SYN | tcp.ACK)
    talk.segment(tcp.ACK)
    talk.segment(tcp.ACK | tcp.PSH, b"call")
    talk.segment_back(tcp.ACK | tcp.PSH, b"answer")
    talk.segment(tcp.FIN | tcp.ACK)
    talk.segment_back(tcp.FIN | tcp.ACK)
    talk.segment(tcp.ACK)
