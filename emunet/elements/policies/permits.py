"""Permits: what may pass to or from one pod in one direction, by port and peer.

All rules of all policies that isolate the pod there are one set, since they only add (NP-02):
for each range of ports the peers that some rule has there. A question is answered by a few
look-ups, however many policies there are: ports by number, groups by whether two sets meet
(the smaller is walked), blocks by prefix length.

Rule of this file: adding and taking away one policy costs what that policy says, whatever
else there is.
"""

from __future__ import annotations

from typing import Any

from emunet.elements.policies.rules import Block, Permit, PolicyRules, PortRange


class Blocks:
    """Address blocks by prefix length, each as often as rules have it."""

    def __init__(self) -> None:
        self._count: dict[Block, int] = {}
        self._by_shift: dict[tuple[int, int], dict[int, list[Block]]] = {}

    def add(self, block: Block) -> None:
        """One rule more has it."""
        self._count[block] = self._count.get(block, 0) + 1
        if self._count[block] == 1:
            where, number = _place(block)
            self._by_shift.setdefault(where, {}).setdefault(number, []).append(block)

    def remove(self, block: Block) -> None:
        """One rule less has it."""
        self._count[block] -= 1
        if not self._count[block]:
            del self._count[block]
            where, number = _place(block)
            rows = self._by_shift[where]
            rows[number].remove(block)
            if not rows[number]:
                del rows[number]
                if not rows:
                    del self._by_shift[where]

    def __bool__(self) -> bool:
        return bool(self._count)

    def contain(self, address: bytes) -> bool:
        """Whether an address is in one of them."""
        size, value = len(address), int.from_bytes(address, "big")
        for (length, shift), rows in self._by_shift.items():
            if length == size:
                for block in rows.get(value >> shift, ()):
                    if not any(one.contains(address) for one in block.exceptions):
                        return True
        return False


def _place(block: Block) -> tuple[tuple[int, int], int]:
    address, length = block.prefix.address, block.prefix.length
    shift = len(address) * 8 - length
    return (len(address), shift), int.from_bytes(address, "big") >> shift


class Peers:
    """Who may be at the other end, for one range of ports."""

    def __init__(self) -> None:
        self.anyone = 0
        self.groups: dict[str, int] = {}
        self.blocks = Blocks()

    def add(self, permit: Permit) -> None:
        """The peers of one rule more."""
        self.anyone += permit.anyone
        for group in permit.groups:
            self.groups[group] = self.groups.get(group, 0) + 1
        for block in permit.blocks:
            self.blocks.add(block)

    def remove(self, permit: Permit) -> None:
        """The peers of one rule less."""
        self.anyone -= permit.anyone
        for group in permit.groups:
            self.groups[group] -= 1
            if not self.groups[group]:
                del self.groups[group]
        for block in permit.blocks:
            self.blocks.remove(block)

    def __bool__(self) -> bool:
        return bool(self.anyone or self.groups or self.blocks)

    def have(self, address: bytes, groups: frozenset[str]) -> bool:
        """Whether an address, which is in `groups`, is one of them."""
        if self.anyone or (groups and not self.groups.keys().isdisjoint(groups)):
            return True
        return bool(self.blocks) and self.blocks.contain(address)


class Permits:
    """What may pass a pod in one direction. Without any isolation everything may."""

    def __init__(self) -> None:
        self.isolations: dict[str, PolicyRules] = {}
        self._all: tuple[PolicyRules, ...] | None = ()
        self._every = Peers()
        self._exact: dict[Any, dict[PortRange, Peers]] = {}
        self._wide: dict[Any, dict[PortRange, Peers]] = {}

    @property
    def all(self) -> tuple[PolicyRules, ...]:
        """The policies that isolate, by name, as they are now."""
        if self._all is None:
            self._all = tuple(one for _, one in sorted(self.isolations.items()))
        return self._all

    def put(self, isolation: PolicyRules) -> None:
        """A policy isolates, in the place of what it said before."""
        self.remove(isolation.policy)
        self._all = None
        self.isolations[isolation.policy] = isolation
        for permit in isolation.permits:
            if permit.ports is None:
                self._every.add(permit)
            for ports in dict.fromkeys(permit.ports or ()):
                places, key = self._place(ports)
                places.setdefault(key, {}).setdefault(ports, Peers()).add(permit)

    def remove(self, policy: str) -> None:
        """A policy isolates no more; nothing happens where it did not."""
        isolation = self.isolations.pop(policy, None)
        self._all = None
        for permit in isolation.permits if isolation is not None else ():
            if permit.ports is None:
                self._every.remove(permit)
            for ports in dict.fromkeys(permit.ports or ()):
                places, key = self._place(ports)
                rows = places[key]
                rows[ports].remove(permit)
                if not rows[ports]:
                    del rows[ports]
                    if not rows:
                        del places[key]

    def allow(self, protocol: int, port: int, peer: bytes, groups: frozenset[str], destination: frozenset[str]) -> bool:
        """Whether some rule permits it. `groups` are those of the peer, `destination` those of the destination."""
        if self._every.have(peer, groups):
            return True
        for rows in (self._exact.get((protocol, port)), self._wide.get(protocol)):
            for ports, peers in rows.items() if rows is not None else ():
                if (
                    ports.first <= port <= ports.last
                    and (not ports.group or ports.group in destination)
                    and peers.have(peer, groups)
                ):
                    return True
        return False

    def _place(self, ports: PortRange) -> tuple[dict[Any, dict[PortRange, Peers]], Any]:
        if ports.first == ports.last:
            return self._exact, (ports.protocol, ports.first)
        return self._wide, ports.protocol


__all__ = ["Blocks", "Peers", "Permits"]
