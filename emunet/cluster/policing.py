"""From policies, pods and namespaces to what each host is told (`elements.policies.rules`).

A host is told of its own pods that some policy selects, of the groups that their rules use,
and the name of every pod, so that a drop can say who meant to reach whom.

Pods in their host's network are neither selected nor members of a group: to the network they
are their host (fidelity HN-05, NP-20).

Rule of this file: a function of values. `Policing` only remembers the answers to questions
whose parts have not changed, so it gives what a new one would.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from emunet.cluster.assign import Allocation
from emunet.cluster.desired import ContainerPort, Pod
from emunet.cluster.policies import NAMES, PROTOCOLS, Policy, PolicySet, Port, Rule, Selection
from emunet.cluster.selectors import LabelSelector
from emunet.elements.policies.rules import (
    Block,
    Direction,
    Group,
    Permit,
    PodPolicies,
    PoliciesConfig,
    PolicyRules,
    PortRange,
)


@dataclass(frozen=True, slots=True)
class Station:
    """A pod as policies see it."""

    port: str
    namespace: str
    host: str
    labels: dict[str, str]
    addresses: tuple[bytes, ...]
    ports: tuple[ContainerPort, ...]


def stations(pods: Iterable[Pod], allocation: Allocation) -> tuple[Station, ...]:
    """The pods that have a network of their own, with their addresses."""
    given = {entry.port: entry for entry in allocation.pods}
    return tuple(
        Station(
            pod.port,
            pod.namespace,
            pod.host,
            dict(pod.labels),
            tuple(entry.address for entry in given[pod.port].addresses),
            tuple(port for container in pod.containers for port in container.ports if port.name),
        )
        for pod in pods
        if not pod.host_network
    )


@dataclass(frozen=True, slots=True)
class Space:
    """A namespace as policies see it."""

    name: str
    labels: dict[str, str]


L = TypeVar("L", bound=Station | Space)


class Shelf(Generic[L]):
    """Pods or namespaces by label, so that a selector looks at few of them."""

    def __init__(self, items: Iterable[L]) -> None:
        self.items: tuple[L, ...] = tuple(items)
        self._by_label: dict[tuple[str, str], list[L]] = {}
        for one in self.items:
            for label in one.labels.items():
                self._by_label.setdefault(label, []).append(one)

    def select(self, selector: LabelSelector) -> Sequence[L]:
        """Those that a selector matches, in their order."""
        if not selector.requirements:
            return self.items
        exact = (one for one in selector.requirements if one.operator == "In" and len(one.values) == 1)
        first = next(exact, None)
        candidates = self.items if first is None else self._by_label.get((first.key, first.values[0]), ())
        return [one for one in candidates if selector.matches(one.labels)]


Row = tuple[Station, list[PolicyRules], list[PolicyRules]]
"""A selected pod with the policies that isolate it for ingress, and for egress."""


class Policing:
    """Works out what hosts are told, and remembers rules that have not changed."""

    def __init__(self) -> None:
        self._isolations: dict[tuple[str, Direction], tuple[Policy, dict[Port, tuple[int, ...]], PolicyRules]] = {}
        self._before = self._isolations

    def compile(
        self, wanted: PolicySet, pods: Sequence[Station], hosts: Mapping[bytes, str], *, per_packet: bool
    ) -> dict[str, PoliciesConfig]:
        """What each host with a selected pod is told; of the others nothing. `hosts` are names by address."""
        self._before, self._isolations = self._isolations, {}
        everybody = Shelf(pods)
        spaces: dict[str, Shelf[Station]] = {name: Shelf([]) for name, _ in wanted.namespaces}
        sorted_pods: dict[str, list[Station]] = {}
        for pod in pods:
            sorted_pods.setdefault(pod.namespace, []).append(pod)
        spaces |= {name: Shelf(found) for name, found in sorted_pods.items()}
        named = _named_ports(pods)
        rows: dict[str, Row] = {}
        for policy in wanted.policies:
            chosen = spaces[policy.namespace].select(policy.pods) if policy.namespace in spaces else ()
            ingress = self._isolation(policy, Direction.INGRESS, policy.ingress, named)
            egress = self._isolation(policy, Direction.EGRESS, policy.egress, named)
            for pod in chosen:
                row = rows.get(pod.port)
                if row is None:
                    row = rows[pod.port] = (pod, [], [])
                row[1].extend(ingress)
                row[2].extend(egress)
        names = tuple(sorted([*hosts.items(), *((address, pod.port) for pod in pods for address in pod.addresses)]))
        return self._by_host(rows, Members(everybody, spaces, wanted, named), names, per_packet=per_packet)

    def _isolation(
        self,
        policy: Policy,
        direction: Direction,
        rules: Sequence[Rule] | None,
        named: dict[Port, dict[int, list[Station]]],
    ) -> tuple[PolicyRules, ...]:
        """What it says of a direction; nothing where it does not isolate there."""
        if rules is None:
            return ()
        numbers = {port: tuple(sorted(named.get(port, ()))) for rule in rules for port in rule.ports if port.name}
        key = (policy.full_name, direction)
        known = self._before.get(key)
        if known is None or known[0] is not policy or known[1] != numbers:
            permits = tuple(_permit(number, rule, numbers) for number, rule in enumerate(rules, 1))
            known = (policy, numbers, PolicyRules(policy.full_name, permits))
        self._isolations[key] = known
        return (known[2],)

    @staticmethod
    def _by_host(
        rows: dict[str, Row],
        members: Members,
        names: tuple[tuple[bytes, str], ...],
        *,
        per_packet: bool,
    ) -> dict[str, PoliciesConfig]:
        by_host: dict[str, list[PodPolicies]] = {}
        spoken: dict[str, dict[int, PolicyRules]] = {}
        for port, (pod, ingress, egress) in sorted(rows.items()):
            row = PodPolicies(port, pod.addresses, tuple(ingress), tuple(egress))
            by_host.setdefault(pod.host, []).append(row)
            spoken.setdefault(pod.host, {}).update((id(one), one) for one in (*ingress, *egress))
        return {
            host: PoliciesConfig(tuple(found), members.groups_of(spoken[host].values()), names, per_packet)
            for host, found in by_host.items()
        }


class Members:
    """Who is in which group, worked out once for each name."""

    def __init__(
        self,
        everybody: Shelf[Station],
        spaces: dict[str, Shelf[Station]],
        wanted: PolicySet,
        named: dict[Port, dict[int, list[Station]]],
    ) -> None:
        self._everybody = everybody
        self._spaces = spaces
        self._namespaces = Shelf(Space(name, dict(labels)) for name, labels in wanted.namespaces)
        self._named = named
        self._selections = {
            str(one): one for policy in wanted.policies for rule in policy.rules for one in rule.selections
        }
        self._known: dict[str, tuple[bytes, ...]] = {}

    def groups_of(self, isolations: Iterable[PolicyRules]) -> tuple[Group, ...]:
        """The groups that rules speak of, and that somebody is in, by name."""
        names: set[str] = set()
        for isolation in isolations:
            for permit in isolation.permits:
                names.update(permit.groups)
                names.update(ports.group for ports in permit.ports or () if ports.group)
        return tuple(Group(name, self.of(name)) for name in sorted(names) if self.of(name))

    def of(self, name: str) -> tuple[bytes, ...]:
        """The addresses in a group, sorted."""
        found = self._known.get(name)
        if found is None:
            addresses = {address for pod in self._pods(name) for address in pod.addresses}
            found = self._known[name] = tuple(sorted(addresses))
        return found

    def _pods(self, name: str) -> Iterator[Station]:
        selection = self._selections.get(name)
        if selection is None:
            for port, numbers in self._named.items():
                for number, pods in numbers.items():
                    if _port_group(port, number) == name:
                        yield from pods
        elif selection.namespace:
            space = self._spaces.get(selection.namespace)
            yield from space.select(selection.pods) if space is not None else ()
        elif not selection.namespaces.requirements:
            yield from self._everybody.select(selection.pods)
        else:
            for one in self._namespaces.select(selection.namespaces):
                if one.name in self._spaces:
                    yield from self._spaces[one.name].select(selection.pods)


def _named_ports(pods: Iterable[Station]) -> dict[Port, dict[int, list[Station]]]:
    """Who has a port of a name, by the number that it has there. Of two of one name in a pod the first counts."""
    found: dict[Port, dict[int, list[Station]]] = {}
    for pod in pods:
        seen: set[Port] = set()
        for one in pod.ports:
            port = Port(PROTOCOLS[one.protocol], name=one.name)
            if port not in seen:
                seen.add(port)
                found.setdefault(port, {}).setdefault(one.number, []).append(pod)
    return found


def _port_group(port: Port, number: int) -> str:
    return f"{port} is {number}"


def _permit(number: int, rule: Rule, numbers: dict[Port, tuple[int, ...]]) -> Permit:
    ports: list[PortRange] = []
    said: list[str] = []
    for port in rule.ports:
        if not port.name:
            ports.append(PortRange(port.protocol, port.number, port.last))
            said.append(str(port))
            continue
        ports += [PortRange(port.protocol, one, one, _port_group(port, one)) for one in numbers[port]]
        told = ", ".join(map(str, numbers[port]))
        protocol = NAMES[port.protocol]
        said.append(f"{port} = {told}" if told else f"{port}, a name that no pod has for a {protocol} port")
    peers = [*map(str, rule.selections), *map(_block_text, rule.blocks)]
    return Permit(
        number,
        not peers,
        tuple(dict.fromkeys(map(str, rule.selections))),
        rule.blocks,
        tuple(ports) if rule.ports else None,
        ", or ".join(peers) or "anyone",
        ", ".join(said) or "every port",
    )


def _block_text(block: Block) -> str:
    excepted = ", ".join(map(str, block.exceptions))
    return f"{block.prefix} except {excepted}" if excepted else str(block.prefix)


__all__ = ["Policing", "Selection", "Station", "stations"]
