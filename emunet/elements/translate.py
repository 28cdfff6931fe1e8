"""Translate: where a packet comes from, once it is known by which interface it leaves.

In a host's chain this is netfilter's POSTROUTING and INPUT: source translation, then
confirmation. A connection's first packet has got past routing and filters here, so it
is given its source (a masquerade's is the address of the interface that it leaves by:
NET-03, SVC-06, SVC-10) and a port by which its replies are told from all others, and is
entered into the table. A port is changed even where no rule asks for it, if replies
would else be taken for those of another connection.

Every later packet of either direction gets what was chosen then. A masqueraded
connection whose packets now leave by another interface is forgotten, and that packet
dropped: the next one begins it anew, with the right address (nf_nat_masquerade.c).

Rule of this file: what is refused here leaves no trace in the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from emunet.elements.connections.connection import Connection, Standing, Tracked
from emunet.elements.connections.flow import ICMP, NAMES, read
from emunet.elements.connections.ports import Ports
from emunet.elements.connections.rules import Choice, ConnectionsConfig
from emunet.elements.connections.table import ConnectionTable
from emunet.elements.connections.translation import error_from_source, from_source
from emunet.elements.errors import Errors
from emunet.elements.interface import OwnAddresses
from emunet.packet.address import is_unspecified
from emunet.packet.edit import Edit
from emunet.packet.view import Packet
from emunet.plane.element import Element
from emunet.plane.reason import Reason
from emunet.plane.step import Output, Step, Verdict, drop, forward
from emunet.plane.table import Delete, Put

LOCAL = "local"
BRIDGED = "bridged"
REDIRECT = 5


class Translate(Element):
    """Input and output have the same name, the way the packet is on: `routed`, `bridged`, `local`. And `error`."""

    def __init__(
        self,
        device: str,
        own: OwnAddresses,
        errors: Errors,
        table: ConnectionTable,
        seed: int,
        config: ConnectionsConfig | None = None,
        bridges: Mapping[str, str] | None = None,
    ) -> None:
        """`table` is that of `Connections`; `bridges` maps a bridge port to the interface of its bridge."""
        self.name = "translate"
        self.device = device
        self.own = own
        self.errors = errors
        self.table = table
        self.ports = Ports(seed, device, table)
        self.config = config
        self.bridges = dict(bridges or {})

    def reconfigure(self, config: ConnectionsConfig | None, bridges: Mapping[str, str]) -> None:
        """Take other rules, for connections that begin from now on."""
        self.config = config
        self.bridges = dict(bridges)

    def handle(self, packet: Packet, port: str, now: int) -> Step:
        """Choose a source for a first packet; for others repeat what was chosen."""
        tracked = packet.connection
        if not isinstance(tracked, Tracked) or self.config is None:
            return forward(self.name, Reason.NOT_TRANSLATED, port)
        connection = tracked.connection
        if connection is None:
            if tracked.standing is Standing.INVALID and self.config.drop_invalid and port != LOCAL and not packet.local:
                return drop(self.name, Reason.CONNECTION_INVALID_DROPPED, device=self.device)
            return forward(self.name, Reason.NOT_TRANSLATED, port)
        if tracked.standing is Standing.RELATED:
            return self._error(packet, port, tracked, connection)
        if not tracked.confirmed:
            known = self.table.get(connection.original, now)
            if known is None:
                return self._first(packet, port, tracked, connection, now)
            connection = known  # a copy of the first packet: another copy was here before
        if connection.interface and not tracked.is_reply and port != LOCAL:
            interface = self._interface(packet, port)
            if interface != connection.interface:
                packet.unkeyed = "it ends a connection"
                return drop(
                    self.name,
                    Reason.MASQUERADE_MOVED,
                    (Delete(self.table, connection.original),),
                    before=connection.interface,
                    interface=interface,
                )
        return self._go(packet, port, tracked, connection)

    # The first packet

    def _first(self, packet: Packet, port: str, tracked: Tracked, connection: Connection, now: int) -> Step:
        choice: Choice = tracked.choice or Choice()
        if choice.refusal is not None:
            return self._refuse(packet, port, choice, now)
        target = connection.target(is_reply=False)
        address, random_fully, interface = target.source, False, ""
        if port != LOCAL and not is_unspecified(target.source):
            leaves_by = self._interface(packet, port)
            wanted = self._masquerade(choice, target.source, target.destination, leaves_by)
            if wanted is not None:
                found = self.own.source(leaves_by, target.destination, packet.next_hop or target.destination)
                if found is None:
                    return drop(self.name, Reason.MASQUERADE_NO_ADDRESS, device=self.device, interface=leaves_by)
                address, random_fully, interface = found, wanted, leaves_by
        chosen = self.ports.source(connection, address, now, random_fully=random_fully)
        if chosen is None:
            protocol = NAMES.get(target.protocol, str(target.protocol))
            return drop(
                self.name,
                Reason.NAT_PORTS_EXHAUSTED,
                device=self.device,
                protocol=protocol,
                address=address,
                destination=target.destination,
            )
        if interface:
            chosen = chosen._replace(interface=interface)
        if not self.table.has_room(now):
            return drop(self.name, Reason.CONNECTIONS_FULL, device=self.device, capacity=self.table.capacity)
        step = self._go(packet, port, Tracked(Standing.NEW, chosen), chosen)
        step.effects = (Put(self.table, chosen.original, chosen),)
        if step.reason is Reason.SOURCE_TRANSLATED and interface:
            step.reason, step.arguments = Reason.MASQUERADED, {"address": address, "interface": interface}
        return step

    def _refuse(self, packet: Packet, port: str, choice: Choice, now: int) -> Step:
        assert choice.refusal is not None
        refusal = choice.refusal
        step = drop(self.name, refusal.reason, **{"sent": "", **refusal.arguments})
        if refusal.error is not None:
            asker = packet.copy()
            if port == BRIDGED:
                asker.interface = self.bridges.get(packet.entered, "")
            answer = self.errors.about(asker, refusal.error, now)
            step.effects, step.emissions = answer.effects, answer.emissions
            step.arguments["sent"] = answer.words
        return step

    def _masquerade(self, choice: Choice, source: bytes, destination: bytes, interface: str) -> bool | None:
        """Whether a masquerade is asked for (not None), and one that takes a new port in any case."""
        if choice.masquerade:
            return choice.random_fully
        assert self.config is not None
        for row in self.config.masquerade:
            if row.matches(source, destination, interface):
                return None if row.keep else row.random_fully
        return None

    def _interface(self, packet: Packet, port: str) -> str:
        """The interface by which it leaves: of a bridged frame, that of the bridge."""
        return self.bridges.get(packet.egress, "") if port == BRIDGED else packet.egress

    # Every packet

    def _error(self, packet: Packet, port: str, tracked: Tracked, connection: Connection) -> Step:
        reading = read(packet)
        assert reading is not None  # `connections` has read it
        flow, at = reading
        source, destination = connection.source_translated, connection.destination_translated
        # Of a first packet nobody knows yet whether its source will be another (nf_nat_core.c drops it too).
        if (
            (source or destination or not tracked.confirmed)
            and flow.protocol == ICMP
            and flow.destination_port >> 8 == REDIRECT
        ):
            return drop(self.name, Reason.REDIRECT_TRANSLATED, device=self.device)
        target = connection.target(is_reply=tracked.is_reply)
        edits: tuple[Edit, ...] = ()
        if destination if tracked.is_reply else source:
            edits = error_from_source(packet, at, target)
        return self._pass(port, edits, {"address": target.source}, {})

    def _go(self, packet: Packet, port: str, tracked: Tracked, connection: Connection) -> Step:
        edits: tuple[Edit, ...] = ()
        arguments: dict[str, Any] = {}
        if connection.moves_source(is_reply=tracked.is_reply):
            target = connection.target(is_reply=tracked.is_reply)
            reading = read(packet)
            if reading is not None:
                edits, arguments = from_source(packet, reading[1], target), {"address": target.source}
        marks: dict[str, Any] = {}
        if tracked is not packet.connection or connection is not tracked.connection:
            marks = {"connection": Tracked(tracked.standing, connection, tracked.is_reply)}
        return self._pass(port, edits, arguments, marks)

    def _pass(self, port: str, edits: tuple[Edit, ...], arguments: dict[str, Any], marks: dict[str, Any]) -> Step:
        reason = Reason.SOURCE_TRANSLATED if edits else Reason.NOT_TRANSLATED
        return Step(self.name, Verdict.FORWARD, reason, arguments if edits else {}, (Output(port, marks),), edits=edits)
