"""Connections: which connection a packet belongs to, and where its destination really is.

In a host's chain this is netfilter's PREROUTING (for what comes in by a link or a bridge
port, before the bridge-or-route choice) and OUTPUT (for what the host sends): connection
tracking, then destination translation. Sources are translated behind routing, by
`translate`, which also enters new connections into the table: a first packet that is
dropped on the way leaves nothing behind, as in netfilter, where `confirm` comes last.
So `handle` reads, the annotation `connection` carries what was found, and a dry run
needs nothing beyond the table's overlay.

What comes in by a bridge port and is sent to an address behind the same bridge stays a
bridged frame: its TTL and its source MAC are kept, only the destination MAC becomes that
of the neighbour (br_netfilter; SVC-02). Where it is sent elsewhere it goes up.

An established packet is judged by its flow and its TCP flags alone, so that a run of them
may be repeated from the flow cache; what can change a connection is looked at whole,
checksum included, and never cached. INVALID is only a mark: who drops it is a filter
(`ConnectionsConfig.drop_invalid`).

Rule of this file: where the packet could change a connection, or none was found, it is
marked `unkeyed`; else the only effect is a use of the entry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emunet.elements.connections.connection import INVALID, UNTRACKED, Connection, Standing, Tracked
from emunet.elements.connections.flow import ICMP, ICMPV6, TCP, UDP, Flow, read, read_quoted
from emunet.elements.connections.rules import Choice, Chooser, ConnectionsConfig, Published
from emunet.elements.connections.services import Services
from emunet.elements.connections.states import (
    PLAIN_ACK,
    Fate,
    Segment,
    advance,
    begin,
    changes_at,
    flags_problem,
    kind_of,
)
from emunet.elements.connections.table import CONFIGURATION, ConnectionTable
from emunet.elements.connections.translation import error_to_destination, to_destination
from emunet.elements.errors import Quoting
from emunet.elements.interface import OwnAddresses
from emunet.elements.routes import RouteTable
from emunet.packet import icmp
from emunet.packet.checksum import ones_sum, transport_is_valid
from emunet.packet.edit import Edit
from emunet.packet.edit import Put as PutBytes
from emunet.packet.view import ETHERNET_HEADER, Packet
from emunet.plane.element import Element
from emunet.plane.reason import Reason
from emunet.plane.step import Effect, Output, Step, Verdict, forward
from emunet.plane.table import NEVER, Counter, Delete, Refresh, Table, Watch

OUTPUT = "output"
NEIGHBOR_DISCOVERY = frozenset((130, 131, 132, 133, 134, 135, 136, 143))
"""Multicast listener and neighbour discovery: never tracked (nf_conntrack_proto_icmpv6.c)."""
QUERIES_THAT_BEGIN = {ICMP: frozenset((8, 13, 15, 17)), ICMPV6: frozenset((128, 139))}


@dataclass(slots=True)
class Update:
    """Effect: a connection takes another value. `used`: this is a use of it, so that its time begins again."""

    table: ConnectionTable
    key: Flow
    value: Connection
    used: bool

    def apply(self, now: int) -> None:
        """Replace the entry."""
        at = now if self.used else self.table.last_use(self.key, now)
        self.table.advance(self.key, self.value, at)


class Connections(Element):
    """One per host. Input and output have the same name: the way the packet is on.

    `bridged NAME` is an output of its own: to the neighbour of bridge NAME, as a bridged frame.
    """

    def __init__(
        self,
        device: str,
        own: OwnAddresses,
        routes: RouteTable,
        watch: Watch,
        config: ConnectionsConfig | None = None,
        bridges: Mapping[str, str] | None = None,
        seed: int = 0,
    ) -> None:
        """`bridges` maps a bridge port to the interface of its bridge. Without `config` nothing is tracked."""
        self.name = "connections"
        self.device = device
        self.own = own
        self.routes = routes
        self.config = config
        self.bridges = dict(bridges or {})
        rules = config or ConnectionsConfig()
        self.table = ConnectionTable(watch, rules.timeouts, rules.capacity)
        self.services = Services(device, own, self.table, seed, watch)
        self.services.pods = rules.pods
        self.published = Published(device, own, rules.publish)
        self.published.bridges = self.bridges
        self.choosers: list[Chooser] = [self.services, self.published]

    def reconfigure(self, config: ConnectionsConfig | None, bridges: Mapping[str, str]) -> None:
        """Take other rules: connections that there are keep what was chosen for them.

        But for UDP through a published port that changed, as CNI's portmap does: a client that sends on
        and on would else never meet the new rule.
        """
        rules = config or ConnectionsConfig()
        old = self.config or ConnectionsConfig()
        self.bridges = self.published.bridges = dict(bridges)
        if config == self.config:
            return
        self.config = config
        self.services.pods = rules.pods
        self.published.replace(rules.publish)
        moved = {row.port for row in set(old.publish) ^ set(rules.publish) if row.protocol == UDP}
        if moved:
            self.table.delete_where(lambda flow, _: flow.protocol == UDP and flow.destination_port in moved)
        self.table.reconfigure(rules.timeouts, rules.capacity)

    def state(self) -> Iterable[Table[Any, Any] | Counter]:
        """The connection table, and what is remembered of Services' clients."""
        return (self.table, self.services.clients)

    def handle(self, packet: Packet, port: str, now: int) -> Step:
        """Find the connection, choose for a new one, translate the destination."""
        self.table.lean(CONFIGURATION, NEVER)
        if self.config is None:
            return forward(self.name, Reason.NOT_TRACKED, port)
        if not packet.is_ipv4 and not packet.is_ipv6:
            return forward(self.name, Reason.NOT_TRACKED, port, {"connection": None})
        reading = read(packet)
        if reading is None:
            return self._invalid(packet, port, "its transport header is cut short")
        flow, at = reading
        kind = flow.destination_port >> 8
        if flow.protocol == ICMPV6 and kind in NEIGHBOR_DISCOVERY:
            return forward(self.name, Reason.NOT_TRACKED, port, {"connection": UNTRACKED})
        if (flow.protocol == ICMP and kind in icmp.ERRORS) or (flow.protocol == ICMPV6 and kind < 128):
            return self._error(packet, port, flow.protocol, at, now)
        found = self.table.find(flow, now)
        if found is None:
            return self._first(packet, port, flow, at, now)
        return self._later(packet, port, found, at, now)

    # A connection that is known

    def _later(self, packet: Packet, port: str, found: tuple[Connection, bool], at: int, now: int) -> Step:
        connection, is_reply = found
        segment: Segment | None = None
        if connection.state is not None:
            read_segment = self._segment(packet, at)
            if isinstance(read_segment, str):
                return self._invalid(packet, port, read_segment)
            segment = read_segment
        fate, after = advance(connection, segment, now, is_reply=is_reply)
        steady = after is connection and fate is Fate.ACCEPT and (segment is None or segment is PLAIN_ACK)
        if not steady:
            packet.unkeyed = "it may change a connection's state"
            problem = self._problem(packet, port, at, connection.original.protocol)
            if problem:
                return self._invalid(packet, port, problem)
        if fate is Fate.INVALID:
            assert segment is not None
            state = "" if connection.state is None else connection.state.value
            return self._invalid(packet, port, f"a TCP {segment.kind} makes no sense in the state {state}")
        if fate is Fate.REOPEN:
            flow = connection.flow(is_reply=is_reply)
            return self._first(packet, port, flow, at, now, (Delete(self.table, connection.original),))
        effects: tuple[Effect, ...] = ()
        if fate is Fate.END:
            effects = (Delete(self.table, connection.original),)
        elif after is not connection:
            effects = (Update(self.table, connection.original, after, fate is Fate.ACCEPT),)
        elif fate is Fate.ACCEPT:
            effects = (Refresh(self.table, connection.original),)
        if steady and (changes := changes_at(connection)) is not None:
            self.table.lean(connection.original, changes)
        standing = Standing.ESTABLISHED if after.seen_reply else Standing.NEW
        tracked = Tracked(standing, after, is_reply)
        edits: tuple[Edit, ...] = ()
        if after.moves_destination(is_reply=is_reply):
            edits = to_destination(packet, at, after.target(is_reply=is_reply))
        return self._go(packet, port, Reason.CONNECTION_KNOWN, {"connection": after}, tracked, edits, effects)

    # A connection that begins

    def _first(
        self, packet: Packet, port: str, flow: Flow, at: int, now: int, effects: tuple[Effect, ...] = ()
    ) -> Step:
        packet.unkeyed = "it begins a connection"
        problem = self._problem(packet, port, at, flow.protocol)
        reply = flow.inverted()
        if problem or reply is None:
            return self._invalid(packet, port, problem or "nothing answers a message of its type", effects)
        begins = QUERIES_THAT_BEGIN.get(flow.protocol)
        if begins is not None and flow.destination_port >> 8 not in begins:
            return self._invalid(packet, port, "it answers a query that nobody sent", effects)
        segment: Segment | None = None
        if flow.protocol == TCP:
            read_segment = self._segment(packet, at)
            assert not isinstance(read_segment, str)  # judged above
            segment = read_segment
        connection = begin(Connection(flow, reply, now), segment)
        if connection is None:
            return self._invalid(packet, port, f"no TCP connection begins with {_named(segment)}", effects)
        choice = self._choose(flow, packet, now)
        reason, arguments = Reason.CONNECTION_NEW, {"connection": connection}
        edits: tuple[Edit, ...] = ()
        if choice is not None:
            effects = (*effects, *choice.effects)
            if choice.reason is not None:
                reason, arguments = choice.reason, dict(choice.arguments)
            if choice.destination is not None:
                connection = _sent_to(connection, *choice.destination)
                edits = to_destination(packet, at, connection.target(is_reply=False))
        tracked = Tracked(Standing.NEW, connection, confirmed=False, choice=choice)
        return self._go(packet, port, reason, arguments, tracked, edits, effects)

    def _choose(self, flow: Flow, packet: Packet, now: int) -> Choice | None:
        for chooser in self.choosers:
            choice = chooser.choose(flow, packet, now)
            if choice is not None:
                return choice
        return None

    # An ICMP error

    def _error(self, packet: Packet, port: str, protocol: int, at: int, now: int) -> Step:
        packet.unkeyed = "an ICMP error is judged by what it quotes"
        about = packet.connection
        if isinstance(about, Quoting) and port == OUTPUT:
            # Our own error: it is about the packet that it was made for, whose connection need not be in the
            # table yet (icmp.c attaches it; SVC-24).
            tracked = about.tracked
            if not isinstance(tracked, Tracked) or tracked.connection is None:
                return self._invalid(packet, port, "the packet that it quotes is of no connection")
            connection, is_reply, confirmed = tracked.connection, not tracked.is_reply, tracked.confirmed
        else:
            problem = self._problem(packet, port, at, protocol)
            quote = packet.ip_packet("an ICMP error quotes a packet")[at + 8 - ETHERNET_HEADER :]
            quoted = None if problem else read_quoted(quote)
            back = None if quoted is None else quoted[0].inverted()
            found = None if back is None else self.table.find(back, now)
            if found is None or back is None:
                return self._invalid(packet, port, problem or "the packet that it quotes is of no connection")
            connection, is_reply = found
            confirmed = True
            if back.destination != packet.ip_destination:
                return self._invalid(packet, port, "it is sent to another than it is about")
        tracked = Tracked(Standing.RELATED, connection, is_reply, confirmed)
        edits: tuple[Edit, ...] = ()
        if connection.source_translated if is_reply else connection.destination_translated:
            edits = error_to_destination(packet, at, connection.target(is_reply=is_reply))
        return self._go(packet, port, Reason.CONNECTION_RELATED, {"connection": connection}, tracked, edits, ())

    # Ways out

    def _invalid(self, packet: Packet, port: str, problem: str, effects: Sequence[Effect] = ()) -> Step:
        packet.unkeyed = "it is of no connection"
        step = forward(self.name, Reason.CONNECTION_INVALID, port, {"connection": INVALID}, problem=problem)
        step.effects = effects
        return step

    def _go(
        self,
        packet: Packet,
        port: str,
        reason: Reason,
        arguments: dict[str, Any],
        tracked: Tracked,
        edits: tuple[Edit, ...],
        effects: tuple[Effect, ...],
    ) -> Step:
        marks: dict[str, Any] = {"connection": tracked}
        output = port
        if edits and port in self.bridges:
            assert tracked.connection is not None
            destination = tracked.connection.target(is_reply=tracked.is_reply).destination
            if destination != packet.ip_destination:
                output, way, edit = self._from_bridge(packet, port, destination)
                marks |= way
                edits = (*edits, *edit)
        return Step(
            self.name, Verdict.FORWARD, reason, arguments, (Output(output, marks),), edits=edits, effects=effects
        )

    def _from_bridge(
        self, packet: Packet, port: str, destination: bytes
    ) -> tuple[str, dict[str, Any], tuple[Edit, ...]]:
        """Where a bridged frame goes whose destination became another: to a neighbour of the bridge, or up."""
        bridge = self.bridges[port]
        route = None if self.own.owner(destination) is not None else self.routes.lookup(destination)
        if route is not None and route.interface == bridge:
            way = {"egress": bridge, "next_hop": route.via or destination, "bridged": True}
            return f"bridged {bridge}", way, ()
        mac = self.own.interfaces[bridge].mac
        if packet.destination == mac:
            return port, {}, ()
        return port, {}, (PutBytes(0, mac, f"destination MAC {packet.destination.hex(':')} -> {mac.hex(':')}"),)

    # What is wrong with a packet

    def _segment(self, packet: Packet, at: int) -> Segment | str:
        """What matters of a TCP segment, or what is wrong with it. Of steady data only the flags are read."""
        frame = packet.frame
        if ETHERNET_HEADER + packet.ip_length < at + 20:
            packet.unkeyed = "its TCP header is cut short"
            return "its TCP header is cut short"
        flags = frame[at + 13]
        if flags & 0x17 == 0x10:
            return PLAIN_ACK
        packet.unkeyed = "its TCP flags may change a connection's state"
        problem = flags_problem(flags)
        if problem:
            return problem
        length = ETHERNET_HEADER + packet.ip_length - at - (frame[at + 12] >> 4) * 4
        end = int.from_bytes(frame[at + 4 : at + 8], "big") + length + bool(flags & 1) + bool(flags & 2)
        return Segment(kind_of(flags), end & 0xFFFFFFFF, int.from_bytes(frame[at + 8 : at + 12], "big"))

    def _problem(self, packet: Packet, port: str, at: int, protocol: int) -> str:
        """What makes the packet INVALID by itself, or "". What the host sends itself is not checked for damage."""
        end = ETHERNET_HEADER + packet.ip_length
        data = packet.frame[at:end]
        damaged = port != OUTPUT and packet.offload is None
        if protocol == TCP:
            read_segment = self._segment(packet, at)
            if isinstance(read_segment, str):
                return read_segment
            if not 20 <= (data[12] >> 4) * 4 <= len(data):
                return "its TCP header is longer than what there is of it"
        elif protocol == UDP:
            if len(data) < 8 or not 8 <= data[4] << 8 | data[5] <= len(data):
                return "its UDP length is impossible"
            if data[6:8] == bytes(2):
                return ""
            data = data[: data[4] << 8 | data[5]]
        elif protocol == ICMP:
            if damaged and ones_sum(data) != 0xFFFF:
                return "its ICMP checksum is wrong"
            return ""
        elif protocol != ICMPV6:
            return ""
        if damaged and not transport_is_valid(packet.ip_source, packet.ip_destination, protocol, data):
            return "its checksum is wrong"
        return ""


def _named(segment: Segment | None) -> str:
    return {"synack": "a SYN and ACK", "fin": "a FIN", "rst": "a reset"}.get(segment.kind if segment else "", "this")


def _sent_to(connection: Connection, address: bytes, port: int) -> Connection:
    """The connection with another destination."""
    flow = connection.original
    if flow.protocol not in (TCP, UDP):
        port = flow.destination_port
    target = flow._replace(destination=address, destination_port=port)
    reply = target.inverted()
    assert reply is not None
    return Connection(flow, reply, connection.began, state=connection.state, last=connection.last)


__all__ = ["OUTPUT", "Connections", "Update"]
