"""Policy: who may send to whom, at the places of netfilter's FORWARD with br_netfilter.

Bridged and routed packets alike pass here once on each host, behind destination translation
and in front of source translation: a rule must permit the pod and port behind a Service, not
its address (NP-15). The host of the sender asks for its egress, the host of the receiver for
its ingress; for two pods of one host both are asked here.

What is never stopped: ARP and neighbour discovery; what comes from the pod's own node or goes
there (probes; NP-13), which passes at netfilter's OUTPUT and INPUT; a pod's packets to itself,
by way of a Service (NP-14); replies, and errors about a connection that was permitted (NP-04).
ICMP and other protocols without ports are permitted by rules that name no port (NP-19).
A pod in its host's network is its host: no policy selects it, and as a peer it is an address.

A connection is judged until it was answered; from then on it goes on, or with `per_packet`
each of its packets, replies too, is judged by the rules of now as its first packet would be.

Rule of this file: what is refused leaves no trace: the connection was not entered yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from emunet.elements.connections.connection import Standing, Tracked
from emunet.elements.connections.flow import read
from emunet.elements.interface import OwnAddresses
from emunet.elements.policies.judgement import Case, Listed, Permitted, Refused
from emunet.elements.policies.rules import Direction, PoliciesConfig
from emunet.elements.policies.table import PolicyTable, Subject
from emunet.packet.address import format_ip
from emunet.packet.view import Packet
from emunet.plane.element import Element
from emunet.plane.reason import Reason
from emunet.plane.step import Step, drop, forward
from emunet.plane.table import Watch

BRIDGED = "bridged"
LOCAL = "local"
OUTPUT = "output"
_REASONS = {Direction.INGRESS: Reason.POLICY_INGRESS, Direction.EGRESS: Reason.POLICY_EGRESS}


@dataclass(slots=True)
class Question:
    """Who sends to whom, by the connection's first packet. Subjects are None for pods that no policy selects."""

    source: bytes
    destination: bytes
    protocol: int
    port: int
    sender: Subject | None
    receiver: Subject | None
    answers: bool = False


class Policy(Element):
    """Input and output have the same name: the way the packet is on."""

    def __init__(
        self, device: str, own: OwnAddresses, watch: Watch, config: PoliciesConfig, bridges: Mapping[str, str]
    ) -> None:
        """`bridges` maps a bridge port to the interface of its bridge."""
        self.name = "policy"
        self.device = device
        self.own = own
        self.bridges = dict(bridges)
        self.table = PolicyTable(watch, config)

    def reconfigure(self, config: PoliciesConfig, bridges: Mapping[str, str]) -> None:
        """Take other rules: they count from the next frame on."""
        self.bridges = dict(bridges)
        self.table.configure(config)

    def handle(self, packet: Packet, port: str, now: int) -> Step:
        """Let the packet go on, or say which policies stop it."""
        table = self.table
        if not packet.is_ipv4 and not packet.is_ipv6:
            return forward(self.name, Reason.NO_POLICY, port)
        if not table.by_port:
            table.lean()
            return forward(self.name, Reason.NO_POLICY, port)
        if port in (LOCAL, OUTPUT):
            reason = Reason.POLICY_OWN_NODE if self._is_about_a_subject(packet, port) else Reason.NO_POLICY
            return forward(self.name, reason, port)
        tracked = packet.connection if isinstance(packet.connection, Tracked) else None
        if tracked is not None and tracked.standing is Standing.UNTRACKED:
            return forward(self.name, Reason.POLICY_DISCOVERY, port)
        known = tracked is not None and tracked.standing in (Standing.ESTABLISHED, Standing.RELATED)
        if known and not table.per_packet:
            table.lean()
            return forward(self.name, Reason.POLICY_CONNECTION, port)
        return self._judge(packet, port, self._question(packet, port, tracked, by_connection=known))

    def _is_about_a_subject(self, packet: Packet, port: str) -> bool:
        return (packet.ip_source if port == LOCAL else packet.ip_destination) in self.table.by_address

    # The question

    def _question(self, packet: Packet, port: str, tracked: Tracked | None, *, by_connection: bool) -> Question:
        table = self.table
        if by_connection and tracked is not None and tracked.connection is not None:
            connection = tracked.connection
            first, target = connection.original, connection.target(is_reply=False)
            sender = table.by_address.get(first.source)
            receiver = table.by_address.get(target.destination)
            table.lean(first.source, target.source, target.destination)
            source = target.source if connection.interface else first.source
            where = (target.protocol, target.destination_port)
            return Question(source, target.destination, *where, sender, receiver, tracked.is_reply)
        source, destination = packet.ip_source, packet.ip_destination
        table.lean(packet.entered, packet.egress, source, destination)
        sender = table.by_port.get(packet.entered)
        receiver = table.by_port.get(packet.egress) if port == BRIDGED else table.by_address.get(destination)
        reading = read(packet) if sender is not None or receiver is not None else None
        protocol, number = packet.protocol, 0
        if reading is not None:
            protocol, number = reading[0].protocol, reading[0].destination_port
        if tracked is not None and receiver is not None:
            source = self._seen_source(packet, port, tracked)
            table.lean(source)
        return Question(source, destination, protocol, number, sender, receiver)

    def _seen_source(self, packet: Packet, port: str, tracked: Tracked) -> bytes:
        """The source that the receiver will see: of what a Service or a published port masquerades, the host's own.

        Netfilter's FORWARD still has the old one; but then a pod's host would judge a call that comes by
        itself otherwise than one that comes by another host (NP-16).
        """
        if tracked.connection is not None and tracked.connection.interface:
            return tracked.connection.target(is_reply=False).source
        if tracked.choice is None or not tracked.choice.masquerade:
            return packet.ip_source
        interface = self.bridges.get(packet.egress, "") if port == BRIDGED else packet.egress
        found = self.own.source(interface, packet.ip_destination, packet.next_hop or packet.ip_destination)
        return found or packet.ip_source

    # The answer

    def _judge(self, packet: Packet, port: str, asked: Question) -> Step:
        sender, receiver = asked.sender, asked.receiver
        if sender is None and receiver is None:
            return forward(self.name, Reason.NO_POLICY, port)
        if sender is receiver or asked.source == asked.destination:
            return forward(self.name, Reason.POLICY_ITSELF, port)
        cases: list[Case] = []
        for subject, direction, peer in (
            (sender, Direction.EGRESS, asked.destination),
            (receiver, Direction.INGRESS, asked.source),
        ):
            permits = subject.permits(direction) if subject is not None else None
            if subject is None or permits is None or not permits.isolations:
                continue
            groups, destination = self.table.groups_of(peer), self.table.groups_of(asked.destination)
            if permits.allow(asked.protocol, asked.port, peer, groups, destination):
                cases.append(self._case(subject, direction, peer, asked))
                continue
            case = self._case(subject, direction, peer, asked)
            return drop(self.name, _REASONS[direction], **self._arguments(subject, case, asked))
        if not cases:
            return forward(self.name, Reason.NO_POLICY, port)
        return forward(self.name, Reason.POLICY_PERMITTED, port, why=Permitted(tuple(cases)))

    def _case(self, subject: Subject, direction: Direction, peer: bytes, asked: Question) -> Case:
        return Case(
            direction,
            subject.permits(direction).all,
            asked.protocol,
            asked.port,
            peer,
            self._called(peer),
            self.table.groups_of(peer),
            self.table.groups_of(asked.destination),
        )

    def _arguments(self, subject: Subject, case: Case, asked: Question) -> dict[str, Any]:
        return {
            "source": asked.sender.port if asked.sender is not None else self._called(asked.source),
            "target": asked.receiver.port if asked.receiver is not None else self._called(asked.destination),
            "pod": subject.port if "/" in subject.port else f"default/{subject.port}",
            "direction": case.direction.value,
            "policy": Listed(case.isolations),
            "why": Refused(case),
            "answers": ", so nor does this answer pass" if asked.answers else "",
        }

    def _called(self, address: bytes) -> str:
        return self.table.name(address) or format_ip(address)
