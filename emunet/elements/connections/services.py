"""Services: where a connection to a Service's address goes, as kube-proxy's iptables mode says.

One row (`ServicePort`) is one port of one Service in one address family. It is the same on
every host; what differs is which of its backends are local. A connection is found by a
look-up of (address, protocol, port), so a thousand Services cost what one costs.

Facts kept (kube-proxy's proxier.go and topology.go; fidelity 1.4):

    no backend anywhere             refused with port unreachable (SVC-17, SVC-30)
    backends, but none allowed here dropped silently (SVC-13, SVC-22)
    backends that are ready         else those that serve while they end (SVC-36); for a Local policy
                                    the host's own are judged by themselves
    ClusterIP                       masqueraded where the source is no pod (SVC-08)
    NodePort, LoadBalancer and external addresses: masqueraded (SVC-09, SVC-10); with the Local policy
                                    only what the host itself sends is, and it and pods go to any
                                    backend, others to the host's own, unchanged (SVC-12 to SVC-16)
    a backend that calls itself     masqueraded, so that the answer comes back through here (SVC-04)
    a NodePort                      is asked for last, on every address that is the host's (SVC-42)

When UDP backends go, their connections are forgotten, and when the first one comes, those that
were led nowhere are (CT-01, CT-02); TCP connections stay what they were (CT-03).

Rule of this file: which backend is a hash of the seed and the flow; what is remembered of a client
is an effect on a table. Rows are replaced one by one, and what was chosen stays chosen.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from emunet.elements.connections.flow import UDP, Flow
from emunet.elements.connections.rules import Choice, Refusal
from emunet.elements.connections.table import ConnectionTable
from emunet.elements.errors import PORT_UNREACHABLE
from emunet.elements.interface import OwnAddresses
from emunet.packet.address import Prefix, format_ip
from emunet.packet.view import Packet
from emunet.plane.chance import chance
from emunet.plane.reason import Reason
from emunet.plane.step import Effect
from emunet.plane.table import Put, Table, Watch

CLIENTS = 65536
"""Clients of session affinity that a host remembers (kube-proxy's `recent` lists hold fewer each)."""

LONGEST_AFFINITY = 86_400 * 1_000_000_000
"""The longest time that a Service may ask for."""

ServiceKey = tuple[str, int]
"""The name of a row, and the length of its addresses in bytes."""


@dataclass(frozen=True, slots=True)
class Backend:
    """One endpoint of a Service. `host` is where it lives (empty: nobody knows), `pod` what people call it.

    `ending`: it still serves, and is used where no other is ready.
    """

    address: bytes
    port: int
    host: str = ""
    pod: str = ""
    ending: bool = False

    def __str__(self) -> str:
        address = format_ip(self.address) if len(self.address) == 4 else f"[{format_ip(self.address)}]"
        return f"{address}:{self.port} ({self.pod})" if self.pod else f"{address}:{self.port}"


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One port of one Service in one family.

    name            `default/web:http`, or `default/web` where its only port has no name
    cluster_ip      the Service's own address
    external        addresses of `spec.externalIPs`
    balancers       addresses of its load balancer; `sources` may call them (empty: anybody), and the host
                    `announcer` answers for them on its links (empty: nobody)
    node_port       on every address of every host; 0: none
    backends        those that are ready, and those that serve while they end
    affinity        how long a client stays with its backend, in ns; 0: not at all
    internal_local, external_local   the traffic policies are `Local`
    """

    name: str
    protocol: int
    port: int
    cluster_ip: bytes
    backends: tuple[Backend, ...] = ()
    external: tuple[bytes, ...] = ()
    balancers: tuple[bytes, ...] = ()
    sources: tuple[Prefix, ...] = ()
    node_port: int = 0
    affinity: int = 0
    internal_local: bool = False
    external_local: bool = False
    announcer: str = ""

    @property
    def key(self) -> ServiceKey:
        """What tells it from all others."""
        return self.name, len(self.cluster_ip)

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class ServiceChange:
    """What changed among the rows: those that are gone by their keys, and those that are new or other."""

    gone: tuple[ServiceKey, ...] = ()
    put: tuple[ServicePort, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.gone or self.put)


def difference(old: Iterable[ServicePort], new: Iterable[ServicePort]) -> ServiceChange:
    """What makes the old rows the new ones. Rows that are the same object cost next to nothing."""
    before = {row.key: row for row in old}
    put = []
    for row in new:
        known = before.pop(row.key, None)
        if known is not row and known != row:
            put.append(row)
    return ServiceChange(tuple(before), tuple(put))


class Way(Enum):
    """Which of a Service's addresses was called."""

    CLUSTER = "{}"
    EXTERNAL = "the external address of {}"
    BALANCER = "the load balancer of {}"
    NODE = "the node port of {}"


@dataclass(frozen=True, slots=True)
class _Called:
    """A row and the way by which it was called, as people read it; and its backends, as this host sees them."""

    row: ServicePort
    way: Way
    usable: tuple[Backend, ...]
    local: tuple[Backend, ...]

    def __str__(self) -> str:
        return self.way.value.format(self.row.name)


Address = tuple[bytes, int, int]
"""An address, a protocol and a port: what a packet is sent to."""


class Services:
    """Chooses for the Services of a cluster, on one host."""

    def __init__(self, device: str, own: OwnAddresses, table: ConnectionTable, seed: int, watch: Watch) -> None:
        self.device = device
        self.own = own
        self.seed = seed
        self.pods: tuple[Prefix, ...] = ()
        """Where pods' addresses lie: what comes from there is not masqueraded (kube-proxy's --cluster-cidr)."""
        self.clients: Table[tuple[str, bytes], tuple[bytes, int, int]] = Table(
            "service clients", watch, CLIENTS, LONGEST_AFFINITY
        )
        """(row, client) -> its backend's address and port, and until when it stays so."""
        self._connections = table
        self._rows: dict[ServiceKey, ServicePort] = {}
        self._called: dict[Address, _Called] = {}
        self._node_ports: dict[tuple[int, int, int], _Called] = {}
        self._ports_of: dict[bytes, dict[ServiceKey, None]] = {}
        self._announced: dict[bytes, dict[ServiceKey, None]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    # What there is

    def change(self, change: ServiceChange) -> None:
        """Take other rows. Connections of UDP that would never meet them are forgotten."""
        for key in change.gone:
            row = self._rows.pop(key, None)
            if row is not None:
                self._take_out(row)
                self._forget_connections(row, None)
        for row in change.put:
            old = self._rows.get(row.key)
            if old is not None:
                self._take_out(old)
            self._forget_connections(old or row, row)
        for row in change.put:
            self._rows[row.key] = row
            self._put_in(row)
        self.own.announce(self._announced)

    def rows(self) -> tuple[ServicePort, ...]:
        """All that there are."""
        return tuple(self._rows.values())

    def _put_in(self, row: ServicePort) -> None:
        usable = _usable(row.backends)
        local = _usable(tuple(one for one in row.backends if one.host == self.device))
        for address, way in _addresses(row):
            self._called[address, row.protocol, row.port] = _Called(row, way, usable, local)
            self._ports_of.setdefault(address, {})[row.key] = None
        for address in row.balancers if row.announcer == self.device else ():
            self._announced.setdefault(address, {})[row.key] = None
        if row.node_port:
            place = (len(row.cluster_ip), row.protocol, row.node_port)
            self._node_ports[place] = _Called(row, Way.NODE, usable, local)

    def _take_out(self, row: ServicePort) -> None:
        for address, _ in _addresses(row):
            place = (address, row.protocol, row.port)
            if place in self._called and self._called[place].row is row:
                del self._called[place]
            for index in (self._ports_of, self._announced):
                keys = index.get(address, {})
                keys.pop(row.key, None)
                if not keys:
                    index.pop(address, None)
        place_of = (len(row.cluster_ip), row.protocol, row.node_port)
        if place_of in self._node_ports and self._node_ports[place_of].row is row:
            del self._node_ports[place_of]

    def _forget_connections(self, old: ServicePort, new: ServicePort | None) -> None:
        """UDP has no beginning: what goes on to a backend that is gone, or to none, must be told (CT-01, CT-02).

        `new`: what takes its place; the same row where it is new itself, None where it goes.
        """
        if old.protocol != UDP:
            return
        kept = {(one.address, one.port) for one in new.backends} if new is not None else set()
        gone = {(one.address, one.port) for one in old.backends} - kept
        begins = bool(kept) and (new is old or not old.backends)
        called = self._places(new) if new is not None else set()
        for place in self._places(old):
            for backend, flows in self._connections.sent_to(place).items():
                if begins or place not in called or backend in gone:
                    for flow in flows:
                        self._connections.delete(flow)

    def _places(self, row: ServicePort) -> set[Address]:
        """Everything that may be called on this host to reach the row."""
        places = {(address, row.protocol, row.port) for address, _ in _addresses(row)}
        if row.node_port:
            places |= {(address, row.protocol, row.node_port) for address in self._own(len(row.cluster_ip))}
        return places

    def _own(self, family: int) -> list[bytes]:
        return [
            row.address for one in self.own.interfaces.values() for row in one.addresses if len(row.address) == family
        ]

    # What is chosen

    def choose(self, flow: Flow, packet: Packet, now: int) -> Choice | None:
        """The backend for a connection to a Service, or a refusal; None where no Service is called."""
        called = self._called.get((flow.destination, flow.protocol, flow.destination_port))
        if called is None and self._node_ports and self.own.owner(flow.destination) is not None:
            called = self._node_ports.get((len(flow.destination), flow.protocol, flow.destination_port))
        if called is None:
            return self._no_port(flow)
        row = called.row
        if not row.backends:
            if packet.local and called.way in (Way.EXTERNAL, Way.BALANCER):
                return None  # KUBE-EXTERNAL-SERVICES hangs on INPUT and FORWARD only
            arguments = {"service": called, "device": self.device}
            return Choice(refusal=Refusal(Reason.SERVICE_NO_ENDPOINTS, arguments, PORT_UNREACHABLE))
        from_pod = any(prefix.contains(flow.source) for prefix in self.pods)
        masquerade, why = False, ""
        if called.way is Way.CLUSTER:
            backends = called.local if row.internal_local else called.usable
            if not from_pod:
                masquerade, why = True, "masqueraded, as it comes from no pod"
        else:
            if called.way is Way.BALANCER and row.sources and not self._may_call(row, flow):
                arguments = {"service": called, "source": flow.source, "ranges": row.sources}
                return Choice(refusal=Refusal(Reason.SERVICE_SOURCE_REFUSED, arguments))
            if not row.external_local:
                backends = called.usable
                masquerade, why = True, "masqueraded, as it comes from outside"
            elif from_pod:
                backends = called.usable
            elif self.own.owner(flow.source) is not None:
                backends = called.usable
                masquerade, why = True, "masqueraded, as the host itself calls"
            else:
                backends = called.local
        if not backends:
            arguments = {"service": called, "device": self.device, "count": len(row.backends)}
            return Choice(refusal=Refusal(Reason.SERVICE_NO_LOCAL, arguments))
        number, kept = self._pick(row, backends, flow, now)
        backend = backends[number]
        effects: tuple[Effect, ...] = ()
        if row.affinity:
            value = (backend.address, backend.port, now + row.affinity)
            effects = (Put(self.clients, (row.name, flow.source), value),)
        if backend.address == flow.source:
            masquerade, why = True, "masqueraded, as it calls itself"
        notes = [note for note in ("this client's own until it is quiet" if kept else "", why) if note]
        arguments = {
            "service": called,
            "backend": backend,
            "number": number + 1,
            "count": len(backends),
            "notes": "".join(f"; {note}" for note in notes),
        }
        return Choice(
            (backend.address, backend.port),
            masquerade=masquerade,
            random_fully=masquerade,
            effects=effects,
            reason=Reason.SERVICE,
            arguments=arguments,
        )

    def _pick(self, row: ServicePort, backends: tuple[Backend, ...], flow: Flow, now: int) -> tuple[int, bool]:
        """Which of the backends, and whether because the client had it before."""
        if row.affinity:
            known = self.clients.get((row.name, flow.source), now)
            if known is not None and now < known[2]:
                for number, one in enumerate(backends):
                    if (one.address, one.port) == known[:2]:
                        return number, True
        if len(backends) == 1:
            return 0, False
        return chance(self.seed, self.device, *flow) % len(backends), False

    def _may_call(self, row: ServicePort, flow: Flow) -> bool:
        if any(prefix.contains(flow.source) for prefix in row.sources):
            return True
        # A load balancer's address may be the host's own for what it sends itself.
        inside = any(prefix.contains(address) for prefix in row.sources for address in self._own(len(flow.source)))
        return inside and flow.source in row.balancers

    def _no_port(self, flow: Flow) -> Choice | None:
        """An address of a Service, called on a port that it has not, or by ping: nobody has it (SVC-20, SVC-21)."""
        keys = self._ports_of.get(flow.destination)
        if not keys:
            return None
        names = sorted(f"{row.name} {_number(row)}" for row in (self._rows[key] for key in keys))
        arguments: dict[str, Any] = {"address": flow.destination, "services": ", ".join(names[:4])}
        return Choice(reason=Reason.SERVICE_OTHER_PORT, arguments=arguments)


def _number(row: ServicePort) -> str:
    return f"{row.port}/{'UDP' if row.protocol == UDP else 'TCP'}"


def _addresses(row: ServicePort) -> list[tuple[bytes, Way]]:
    """Every address that is the Service's own; where one stands twice the first way counts."""
    found: dict[bytes, Way] = {}
    for addresses, way in (
        ((row.cluster_ip,), Way.CLUSTER),
        (row.external, Way.EXTERNAL),
        (row.balancers, Way.BALANCER),
    ):
        for address in addresses:
            found.setdefault(address, way)
    return list(found.items())


def _usable(backends: tuple[Backend, ...]) -> tuple[Backend, ...]:
    """Those that are ready; where none is, those that serve while they end."""
    for one in backends:
        if one.ending:
            return tuple(one for one in backends if not one.ending) or backends
    return backends
