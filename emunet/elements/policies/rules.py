"""Rules: what a host is told of policies, as values, and what leads from one set of them to another.

A pod that some policy selects is isolated in that direction: only what a rule of one of
those policies permits may pass (networking/v1 types.go; fidelity NP-01, NP-02). Selectors
are gone by now: the pods that one selects are a *group*, a name with the addresses in it,
so that a pod which comes, goes or is relabelled changes some groups and no rule.

Rule of this file: values only, each in a fixed order, so that equal means equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from emunet.packet.address import Prefix

LAST_PORT = 65535


class Direction(Enum):
    """Which way a pod is isolated; its peer is at the other end."""

    INGRESS = "ingress"
    EGRESS = "egress"


@dataclass(frozen=True, slots=True)
class PortRange:
    """Ports of one protocol (its IP number); all of them by default.

    With a `group` they count only where the destination is in it: a port that a rule names is
    resolved on the destination pod (NP-10), so the group holds the pods that have it with this number.
    """

    protocol: int
    first: int = 0
    last: int = LAST_PORT
    group: str = ""


@dataclass(frozen=True, slots=True)
class Block:
    """Addresses of a prefix, but for those in the exceptions."""

    prefix: Prefix
    exceptions: tuple[Prefix, ...] = ()

    def contains(self, address: bytes) -> bool:
        """Whether an address is in it."""
        return self.prefix.contains(address) and not any(one.contains(address) for one in self.exceptions)


@dataclass(frozen=True, slots=True)
class Permit:
    """One rule of a policy: what it permits, and what people are told of it.

    number  of the rule in its section, from 1
    anyone  any address is a peer; else those in one of the `groups` or `blocks`
    ports   None: every port of every protocol (ICMP too); empty: none, since no pod has a port that is named
    peers_said, ports_said  both as the policy has them, in words
    """

    number: int
    anyone: bool = False
    groups: tuple[str, ...] = ()
    blocks: tuple[Block, ...] = ()
    ports: tuple[PortRange, ...] | None = None
    peers_said: str = "anyone"
    ports_said: str = "every port"

    def has_peer(self, address: bytes, groups: frozenset[str]) -> bool:
        """Whether an address, which is in `groups`, is a peer."""
        return self.anyone or not groups.isdisjoint(self.groups) or any(one.contains(address) for one in self.blocks)

    def has_port(self, protocol: int, port: int, groups: frozenset[str]) -> bool:
        """Whether it is about a port. `groups` are those of the destination."""
        if self.ports is None:
            return True
        return any(
            one.protocol == protocol and one.first <= port <= one.last and (not one.group or one.group in groups)
            for one in self.ports
        )


@dataclass(frozen=True, slots=True)
class PolicyRules:
    """A policy that isolates pods in one direction, and what it permits all the same."""

    policy: str
    permits: tuple[Permit, ...] = ()


@dataclass(frozen=True, slots=True)
class PodPolicies:
    """A pod of this host that some policy selects. `port` is its port's name; isolations are in the order of names."""

    port: str
    addresses: tuple[bytes, ...]
    ingress: tuple[PolicyRules, ...] = ()
    egress: tuple[PolicyRules, ...] = ()

    def isolations(self, direction: Direction) -> tuple[PolicyRules, ...]:
        """The policies that isolate it in a direction; none: everything may pass."""
        return self.ingress if direction is Direction.INGRESS else self.egress


@dataclass(frozen=True, slots=True)
class Group:
    """Addresses under a name that rules use, in their order. One without members is not told of."""

    name: str
    members: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class PoliciesConfig:
    """All that a host is told. `names` are those of every pod, by address, for people.

    per_packet  a change of policy concerns open connections too: each packet is judged by the rules of
                now. Else a connection that was permitted and answered goes on until it ends.
    """

    pods: tuple[PodPolicies, ...] = ()
    groups: tuple[Group, ...] = ()
    names: tuple[tuple[bytes, str], ...] = ()
    per_packet: bool = False


EVERYWHERE = PoliciesConfig()
"""No policy anywhere."""


# What leads from one configuration to another, in steps that are whole by themselves


class SetMode(NamedTuple):
    """Judge each packet, or connections."""

    per_packet: bool


class Name(NamedTuple):
    """An address is called so; an empty name: no more."""

    address: bytes
    name: str


class Members(NamedTuple):
    """Addresses that come into a group, and that leave it."""

    group: str
    added: tuple[bytes, ...]
    removed: tuple[bytes, ...]


class Select(NamedTuple):
    """A pod is selected by some policy, and has these addresses."""

    port: str
    addresses: tuple[bytes, ...]


class Release(NamedTuple):
    """No policy selects a pod any more."""

    port: str


class Isolate(NamedTuple):
    """A policy isolates a selected pod, in the place of what it said before."""

    port: str
    direction: Direction
    isolation: PolicyRules


class Permitting(NamedTuple):
    """A policy does not isolate a selected pod any more."""

    port: str
    direction: Direction
    policy: str


Row = SetMode | Name | Members | Select | Release | Isolate | Permitting

MEMBERS_A_ROW = 256
"""Addresses in one row, so that no row is much work."""


def difference(old: PoliciesConfig, new: PoliciesConfig) -> Iterator[Row]:
    """The rows that lead from one to the other. What permits comes before what forbids."""
    if old.per_packet != new.per_packet:
        yield SetMode(new.per_packet)
    yield from _names(old, new)
    yield from _members(old, new)
    before, after = {one.port: one for one in old.pods}, {one.port: one for one in new.pods}
    for port in before:
        if port not in after:
            yield Release(port)
    for port, pod in after.items():
        was = before.get(port)
        if was == pod:
            continue
        if was is None or was.addresses != pod.addresses:
            yield Select(port, pod.addresses)
        for direction in Direction:
            known = was.isolations(direction) if was is not None else ()
            wanted = pod.isolations(direction)
            both = frozenset(map(id, known)) & frozenset(map(id, wanted))  # of a thousand most are the same object
            stale = {one.policy: one for one in known if id(one) not in both}
            for isolation in wanted:
                if id(isolation) not in both and stale.pop(isolation.policy, None) != isolation:
                    yield Isolate(port, direction, isolation)
            for policy in stale:
                yield Permitting(port, direction, policy)


def _names(old: PoliciesConfig, new: PoliciesConfig) -> Iterator[Row]:
    if old.names == new.names:
        return
    before, after = dict(old.names), dict(new.names)
    for address in before:
        if address not in after:
            yield Name(address, "")
    for address, name in after.items():
        if before.get(address) != name:
            yield Name(address, name)


def _members(old: PoliciesConfig, new: PoliciesConfig) -> Iterator[Row]:
    if old.groups == new.groups:
        return
    before, after = {one.name: one.members for one in old.groups}, {one.name: one.members for one in new.groups}
    for name in [*after, *(name for name in before if name not in after)]:
        was, wanted = before.get(name, ()), after.get(name, ())
        if was == wanted:
            continue
        known, kept = frozenset(was), frozenset(wanted)
        added = [one for one in wanted if one not in known]
        removed = [one for one in was if one not in kept]
        for start in range(0, max(len(added), len(removed)), MEMBERS_A_ROW):
            end = start + MEMBERS_A_ROW
            yield Members(name, tuple(added[start:end]), tuple(removed[start:end]))
