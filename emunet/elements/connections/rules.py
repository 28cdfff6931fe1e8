"""Rules: what a host translates, as values; and how others choose on a connection's first packet.

Rules and choosers are asked once for a connection, on its first packet (netfilter's nat
table sees nothing else). What they said is remembered with the connection and holds
for both directions and for its life, whatever becomes of the rule (fidelity 1.4.1).

Rule of this file: values, and functions of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from emunet.elements.connections.connection import Timeouts
from emunet.elements.connections.flow import Flow
from emunet.elements.errors import ErrorKind
from emunet.elements.interface import OwnAddresses
from emunet.packet.address import Prefix
from emunet.packet.view import Packet
from emunet.plane.reason import Reason
from emunet.plane.step import Effect

CAPACITY = 262_144


@dataclass(frozen=True, slots=True)
class Masquerade:
    """One row of the rules for sources, of which the first that matches decides.

    The source becomes the address of the interface by which the packet leaves (NET-03);
    with `keep` it stays as it is. Empty prefixes and interfaces match everything;
    `random_fully` chooses a new port even where the old one is free.

    not_interfaces  what leaves by these is not meant (a container engine spares what stays on its own bridge)
    """

    sources: tuple[Prefix, ...] = ()
    not_sources: tuple[Prefix, ...] = ()
    destinations: tuple[Prefix, ...] = ()
    not_destinations: tuple[Prefix, ...] = ()
    interfaces: tuple[str, ...] = ()
    random_fully: bool = False
    keep: bool = False
    not_interfaces: tuple[str, ...] = ()

    def matches(self, source: bytes, destination: bytes, interface: str) -> bool:
        """Whether the row is about a packet that leaves by `interface`."""
        return (
            (not self.interfaces or interface in self.interfaces)
            and interface not in self.not_interfaces
            and _inside(source, self.sources, self.not_sources)
            and _inside(destination, self.destinations, self.not_destinations)
        )


def _inside(address: bytes, wanted: tuple[Prefix, ...], unwanted: tuple[Prefix, ...]) -> bool:
    if wanted and not any(prefix.contains(address) for prefix in wanted):
        return False
    return not any(prefix.contains(address) for prefix in unwanted)


@dataclass(frozen=True, slots=True)
class Publish:
    """A port of the host leads to one of a pod's (CNI's portmap plugin; fidelity 1.5).

    host_address  of the host; empty: any that it has
    local         sources that are masqueraded so that the answer comes back through the host: the pod's
                  own subnet, itself included (HP-02, HP-03); others keep theirs (HP-01, HP-06)
    not_from      bridges for whose stations it does not count: there a proxy on the host serves (DK-07)
    """

    protocol: int
    port: int
    target: bytes
    target_port: int
    host_address: bytes = b""
    local: tuple[Prefix, ...] = ()
    not_from: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ConnectionsConfig:
    """What makes a host track connections. A host without it reassembles and remembers nothing (FR-03).

    pods          where pods' addresses lie: a Service's client that comes from elsewhere is masqueraded
    capacity      connections at most (nf_conntrack_max)
    drop_invalid  forwarded packets of no connection are dropped, as kube-proxy asks (SVC-40)
    """

    masquerade: tuple[Masquerade, ...] = ()
    publish: tuple[Publish, ...] = ()
    pods: tuple[Prefix, ...] = ()
    capacity: int = CAPACITY
    drop_invalid: bool = False
    timeouts: Timeouts = field(default_factory=Timeouts)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A first packet that may not go on. It is refused after routing, where filters are (SVC-17).

    error  what the sender is told, or None for silence
    """

    reason: Reason
    arguments: Mapping[str, Any] = field(default_factory=dict)
    error: ErrorKind | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen on a connection's first packet.

    destination   address and port that it goes to instead, or None (the port counts for TCP and UDP)
    masquerade    its source becomes the address of the interface by which it leaves
    random_fully  with a new port even where the old one is free (SVC-39)
    refusal       it may not go on
    effects       what the chooser wants to remember
    reason        why, with its arguments, for people
    """

    destination: tuple[bytes, int] | None = None
    masquerade: bool = False
    random_fully: bool = False
    refusal: Refusal | None = None
    effects: tuple[Effect, ...] = ()
    reason: Reason | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)


class Chooser(Protocol):
    """Whoever has a say on a connection's first packet: published ports, services, policies.

    Asked in the order of `Connections.choosers`, before the bridge-or-route choice for
    what comes in and before routing for what the host sends; the first choice counts.
    """

    def choose(self, flow: Flow, packet: Packet, now: int) -> Choice | None:
        """What to do with the connection that `packet` begins, or None: no concern of this one.

        `packet.local` tells what this host sends itself; `packet.entered` and
        `packet.interface` where it came in. Chance must be a hash of (seed, flow).
        """
        ...


class Published:
    """Chooses for the ports that a host publishes."""

    def __init__(self, device: str, own: OwnAddresses, rows: tuple[Publish, ...]) -> None:
        self.device = device
        self.own = own
        self.rows: dict[tuple[int, int, int], list[Publish]] = {}
        self.bridges: Mapping[str, str] = {}
        """The interface of its bridge, by bridge port."""
        self.replace(rows)

    def replace(self, rows: tuple[Publish, ...]) -> None:
        """Take these rows and no others. One for a certain address goes before one for any."""
        self.rows = {}
        for row in sorted(rows, key=lambda row: not row.host_address):
            self.rows.setdefault((len(row.target), row.protocol, row.port), []).append(row)

    def choose(self, flow: Flow, packet: Packet, now: int) -> Choice | None:
        """A published port of an address that is the host's own."""
        rows = self.rows.get((len(flow.destination), flow.protocol, flow.destination_port))
        if rows is None or self.own.owner(flow.destination) is None:
            return None
        for row in rows:
            if row.host_address in (b"", flow.destination):
                if row.not_from and self.bridges.get(packet.entered) in row.not_from:
                    continue
                return Choice(
                    (row.target, row.target_port),
                    masquerade=any(prefix.contains(flow.source) for prefix in row.local),
                    reason=Reason.PUBLISHED,
                    arguments={
                        "device": self.device,
                        "address": flow.destination,
                        "port": row.port,
                        "target": row.target,
                        "target_port": row.target_port,
                    },
                )
        return None
