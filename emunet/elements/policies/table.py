"""The policies of one host: which of its pods are isolated, and which groups an address is in.

It is changed row by row (`rules.difference`), each row whole by itself and a moment's work,
so that a change of policies does not stop the frames of those that it is not about: only what
was fused from questions about that pod or that address is told.

Rule of this file: after any rows that lead from one configuration to another the table is
what it would be had it begun with the other.
"""

from __future__ import annotations

from collections.abc import Iterable

from emunet.elements.policies.permits import Permits
from emunet.elements.policies.rules import (
    Direction,
    Group,
    Isolate,
    Members,
    Name,
    Permitting,
    PodPolicies,
    PoliciesConfig,
    Release,
    Row,
    Select,
    SetMode,
    difference,
)
from emunet.plane.table import NEVER, Dependent, Watch

MODE = "the mode"
"""The key of what every walk leans on: how policies are asked, and whether there are any at all."""


class Subject:
    """A pod of this host that some policy selects."""

    __slots__ = ("addresses", "egress", "ingress", "port")

    def __init__(self, port: str, addresses: tuple[bytes, ...]) -> None:
        self.port = port
        self.addresses = addresses
        self.ingress = Permits()
        self.egress = Permits()

    def permits(self, direction: Direction) -> Permits:
        """What may pass in a direction."""
        return self.ingress if direction is Direction.INGRESS else self.egress


class PolicyTable:
    """Subjects by port and by address, groups by address, names for people."""

    def __init__(self, watch: Watch, config: PoliciesConfig) -> None:
        self.per_packet = False
        self.by_port: dict[str, Subject] = {}
        self.by_address: dict[bytes, Subject] = {}
        self.names: dict[bytes, str] = {}
        self._groups: dict[str, dict[bytes, None]] = {}
        self._groups_of: dict[bytes, set[str]] = {}
        self._frozen: dict[bytes, frozenset[str]] = {}
        self._watch = watch
        self._dependents: dict[str | bytes, dict[Dependent, None]] = {}
        self._config: PoliciesConfig | None = PoliciesConfig()
        self.configure(config)

    @property
    def config(self) -> PoliciesConfig:
        """What it has been told, as a value."""
        if self._config is None:
            self._config = PoliciesConfig(
                tuple(
                    PodPolicies(port, subject.addresses, subject.ingress.all, subject.egress.all)
                    for port, subject in sorted(self.by_port.items())
                ),
                tuple(Group(name, tuple(sorted(members))) for name, members in sorted(self._groups.items())),
                tuple(sorted(self.names.items())),
                self.per_packet,
            )
        return self._config

    def groups_of(self, address: bytes) -> frozenset[str]:
        """The groups that an address is in."""
        found = self._frozen.get(address)
        if found is None:
            found = frozenset(self._groups_of.get(address, ()))
            if found:
                self._frozen[address] = found
        return found

    def name(self, address: bytes) -> str:
        """How people call the pod with that address, or nothing."""
        return self.names.get(address, "")

    # Changing

    def configure(self, config: PoliciesConfig) -> None:
        """Become this."""
        self.change(difference(self.config, config))

    def change(self, rows: Iterable[Row]) -> None:
        """Carry out rows, in their order."""
        for row in rows:
            self._config = None
            match row:
                case Members(group, added, removed):
                    self._move(group, added, removed)
                case Isolate(port, direction, isolation):
                    self.by_port[port].permits(direction).put(isolation)
                    self._subject_changed(port)
                case Permitting(port, direction, policy):
                    self.by_port[port].permits(direction).remove(policy)
                    self._subject_changed(port)
                case Select(port, addresses):
                    self._select(port, addresses)
                case Release(port):
                    self._subject_changed(port)
                    subject = self.by_port.pop(port)
                    self._forget(subject)
                case Name(address, name):
                    self.names.pop(address, None)
                    if name:
                        self.names[address] = name
                case SetMode(per_packet):
                    self.per_packet = per_packet
                    self._changed(MODE)

    def _select(self, port: str, addresses: tuple[bytes, ...]) -> None:
        subject = self.by_port.get(port)
        if not self.by_port:
            self._changed(MODE)  # nobody was asked until now
        if subject is None:
            subject = self.by_port[port] = Subject(port, addresses)
        else:
            self._subject_changed(port)
            self._forget(subject)
            subject.addresses = addresses
        for address in addresses:
            self.by_address[address] = subject
        self._subject_changed(port)

    def _forget(self, subject: Subject) -> None:
        for address in subject.addresses:
            if self.by_address.get(address) is subject:
                del self.by_address[address]

    def _move(self, group: str, added: tuple[bytes, ...], removed: tuple[bytes, ...]) -> None:
        members = self._groups.setdefault(group, {})
        for address in added:
            members[address] = None
            self._groups_of.setdefault(address, set()).add(group)
        for address in removed:
            members.pop(address, None)
            groups = self._groups_of.get(address, set())
            groups.discard(group)
            if not groups:
                self._groups_of.pop(address, None)
        if not members:
            del self._groups[group]
        for address in (*added, *removed):
            self._frozen.pop(address, None)
            self._changed(address)

    # What was fused from its answers

    def lean(self, *keys: str | bytes) -> None:
        """Note that a walk leans on what is known of ports and addresses."""
        leaned = self._watch.leaned
        if leaned is not None:
            leaned.append((self, MODE, NEVER, False))
            for key in keys:
                leaned.append((self, key, NEVER, False))

    def attach(self, key: str | bytes, dependent: Dependent, refreshes: bool = False) -> None:
        """Tell `dependent` when what is known of a port or an address changes."""
        self._dependents.setdefault(key, {})[dependent] = None

    def detach(self, key: str | bytes, dependent: Dependent) -> None:
        """Forget a dependent that went for another reason."""
        rows = self._dependents.get(key)
        if rows is not None and dependent in rows:
            del rows[dependent]
            if not rows:
                del self._dependents[key]

    def _subject_changed(self, port: str) -> None:
        self._changed(port)
        subject = self.by_port.get(port)
        for address in subject.addresses if subject is not None else ():
            self._changed(address)

    def _changed(self, key: str | bytes) -> None:
        for dependent in self._dependents.pop(key, ()):
            dependent.invalidate("a policy changed")


__all__ = ["PolicyTable", "Subject"]
