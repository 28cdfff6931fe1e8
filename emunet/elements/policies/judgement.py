"""Judgement: why a policy let something pass or did not, in words that nobody pays for who does not read them.

    web-1 may not send to db-1: ingress of default/db-1 is isolated by default/deny-all,
    default/db-policy; peer matches rule 1 of default/db-policy, port 8080/TCP does not (5432/TCP)

Rule of this file: it repeats no decision for the data plane; it goes through the rules as they
were when the packet was judged, and finds the nearest miss.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from emunet.elements.policies.rules import Direction, Permit, PolicyRules

SHOWN = 5
"""How many policies or rules a sentence lists."""

PROTOCOLS = {1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPv6", 132: "SCTP"}
WITH_PORTS = frozenset((6, 17, 132))


def port_text(protocol: int, port: int) -> str:
    """`8080/TCP`, or `ICMP` where there are no ports."""
    name = PROTOCOLS.get(protocol, f"protocol {protocol}")
    return f"{port}/{name}" if protocol in WITH_PORTS else name


def some(words: tuple[str, ...] | list[str], separator: str = ", ") -> str:
    """The first few, and how many more."""
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return separator.join(words[:SHOWN]) + more


@dataclass(frozen=True, slots=True)
class Listed(Collection[str]):
    """The names of policies, looked at when somebody reads them; some of them where it is written."""

    policies: tuple[PolicyRules, ...]

    def __iter__(self) -> Iterator[str]:
        return (one.policy for one in self.policies)

    def __len__(self) -> int:
        return len(self.policies)

    def __contains__(self, name: object) -> bool:
        return any(one.policy == name for one in self.policies)

    def __str__(self) -> str:
        return some(tuple(self))


@dataclass(frozen=True, slots=True)
class Case:
    """One question to the rules of one pod in one direction, and the rules as they were.

    peer, groups     the address at the other end, and the groups that it was in
    peer_name        how people call it
    destination      the groups of the destination, for ports that are named
    """

    direction: Direction
    isolations: tuple[PolicyRules, ...]
    protocol: int
    port: int
    peer: bytes
    peer_name: str
    groups: frozenset[str]
    destination: frozenset[str]

    def _looks(self) -> list[tuple[str, Permit, bool, bool]]:
        return [
            (
                isolation.policy,
                permit,
                permit.has_peer(self.peer, self.groups),
                permit.has_port(self.protocol, self.port, self.destination),
            )
            for isolation in self.isolations
            for permit in isolation.permits
        ]

    def permitted_by(self) -> str:
        """`rule 1 of default/db-policy`."""
        found = [f"rule {permit.number} of {policy}" for policy, permit, peer, port in self._looks() if peer and port]
        return some(found[:1]) if found else "no rule"

    def refused_because(self) -> str:
        """The nearest miss: rules whose peer fits, else rules whose port fits."""
        looks = self._looks()
        if not looks:
            return "no rule permits anything"
        port = port_text(self.protocol, self.port)
        peers = list(dict.fromkeys(
            f"rule {one.number} of {policy}, port {port} does not ({one.ports_said})"
            for policy, one, has_peer, has_port in looks if has_peer and not has_port
        ))  # fmt: skip
        if peers:
            return f"peer matches {some(peers, '; peer matches ')}"
        ports = list(dict.fromkeys(
            f"rule {one.number} of {policy}, peer {self.peer_name} does not ({one.peers_said})"
            for policy, one, has_peer, has_port in looks if has_port and not has_peer
        ))  # fmt: skip
        if ports:
            return f"port {port} matches {some(ports, '; it matches ')}"
        rules = "the only rule" if len(looks) == 1 else f"any of {len(looks)} rules"
        return f"neither peer {self.peer_name} nor port {port} matches {rules}"


@dataclass(frozen=True, slots=True)
class Permitted:
    """By which rules something passes: those of the source's egress, of the destination's ingress, or both."""

    cases: tuple[Case, ...]

    def __str__(self) -> str:
        return " and ".join(f"{case.direction.value} by {case.permitted_by()}" for case in self.cases)


@dataclass(frozen=True, slots=True)
class Refused:
    """Why no rule lets something pass."""

    case: Case

    def __str__(self) -> str:
        return self.case.refused_because()


__all__ = ["Case", "Listed", "Permitted", "Refused", "port_text", "some"]
