"""Bridge: learn where stations are, forward within the segment.

Facts kept (fidelity BR-01 to BR-17, Linux's bridge): learning comes first, also for
frames that are then dropped; only a source address refreshes an entry; a station
that moves is followed at once; unknown unicast, broadcast and multicast go to every
other port; a frame for the port it came from is filtered; a frame over the egress
port's MTU is dropped for that port, silently; 01-80-C2-00-00-01 to -0F stay on the
link, -00 passes while no spanning tree runs; a mask lets -03 to -0F pass too (BR-06);
nothing in the frame is changed; no frame passes between two isolated ports (BR-12). With
hairpin mode on its ports a frame may go back by the port it came from, broadcasts too
(BR-11): a pod that calls itself by a published port needs it (SVC-04, HP-03).

The table ages (300 s), is bounded, and evicts the oldest entry of the port that has
most, so that a flood of made-up addresses from one port cannot push out the others.
A bridge with an interface of its own (`cni0`) has a static entry for it.

RSTP, VLAN filtering and multicast snooping go in files beside this one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from emunet.packet.view import ETHERNET_HEADER, Packet
from emunet.plane.element import Element
from emunet.plane.reason import Reason
from emunet.plane.step import Effect, Output, Step, Verdict, drop
from emunet.plane.table import Counter, Put, Refresh, Table, Watch

RESERVED = bytes.fromhex("0180c20000")
PAUSE = bytes.fromhex("0180c2000001")
UP = "up"
LOCAL = "local"


class Bridge(Element):
    """Inputs: `port` (the packet's `entered` says which) and `local` (sent by its own interface).

    Outputs: `egress` towards a port for bridged frames, `direct` for local ones (both
    with the port as mark), `up` to its own interface.
    """

    def __init__(
        self,
        name: str,
        ports: dict[str, int],
        watch: Watch,
        *,
        mac: bytes = b"",
        ageing: int = 300 * 1_000_000_000,
        capacity: int = 16384,
        hairpin: bool = False,
        isolated: Iterable[str] = (),
        group_forward_mask: int = 0,
    ) -> None:
        """`ports` maps a port's name to its MTU (bytes of payload); `mac` is its own interface's, or empty.

        Bit n of `group_forward_mask` lets frames to 01-80-C2-00-00-0n pass; bits 0 to 2 count for nothing.
        """
        self.name = name
        self.ports = ports
        self.mac = mac
        self.hairpin = hairpin
        self.isolated = frozenset(isolated)
        self.group_forward_mask = group_forward_mask
        self.stations: Table[bytes, str] = Table(
            f"{name} stations", watch, capacity, ageing, group=lambda mac, port: port
        )

    def state(self) -> Iterable[Table[Any, Any] | Counter]:
        """The station table."""
        return (self.stations,)

    def reconfigure(
        self,
        ports: dict[str, int],
        ageing: int,
        capacity: int,
        *,
        hairpin: bool = False,
        isolated: Iterable[str] = (),
        group_forward_mask: int = 0,
    ) -> None:
        """Take new ports; what was learned on ports that went is forgotten (BR-14)."""
        gone = self.ports.keys() - ports.keys()
        before = (self.ports, self.hairpin, self.isolated)
        self.ports = ports
        self.hairpin = hairpin
        self.isolated = frozenset(isolated)
        self.group_forward_mask = group_forward_mask
        self.stations.lifetime = ageing
        self.stations.capacity = capacity
        if gone:
            self.stations.delete_where(lambda mac, port: port in gone)
        if before != (self.ports, self.hairpin, self.isolated):
            self.stations.changed(b"ports", "ports changed")

    def handle(self, packet: Packet, port: str, now: int) -> Step:
        """Learn, then decide."""
        destination = packet.destination
        local = port == LOCAL
        came_from = LOCAL if local else packet.entered
        taught = not local and destination != PAUSE
        effects: tuple[Effect, ...] = self._learn(packet.source, came_from, now) if taught else ()
        if destination[:5] == RESERVED and 0 < destination[5] < 0x10 and not self._let_pass(destination[5]):
            return drop(self.name, Reason.BRIDGE_RESERVED, effects, mac=destination)
        if destination[0] & 1:
            return self._copies(packet, came_from, effects, Reason.BRIDGE_GROUP, to_self=bool(self.mac) and not local)
        if self.mac and destination == self.mac:
            return Step(
                self.name,
                Verdict.FORWARD,
                Reason.BRIDGE_UP,
                {"mac": destination, "interface": self.name},
                (self._up(packet),),
                effects=effects,
            )
        known = self.stations.get(destination, now)
        if destination == packet.source and not local:
            known = came_from  # it has just been learned
        if known is None:
            return self._copies(packet, came_from, effects, Reason.BRIDGE_FLOOD, to_self=False)
        if known == came_from and not self.hairpin:
            return drop(self.name, Reason.BRIDGE_FILTERED, effects, mac=destination, port=known)
        if known not in self.ports:
            return self._copies(packet, came_from, effects, Reason.BRIDGE_FLOOD, to_self=False)
        if self._kept_apart(came_from, known):
            return drop(self.name, Reason.BRIDGE_ISOLATED, effects, mac=destination, port=known, entered=came_from)
        if self._oversized(packet, known):
            return drop(
                self.name,
                Reason.OVERSIZED,
                effects,
                length=packet.wire_length - ETHERNET_HEADER,
                mtu=self.ports[known],
                port=known,
            )
        return Step(
            self.name,
            Verdict.FORWARD,
            Reason.BRIDGE_FORWARD,
            {"mac": destination, "port": known},
            (self._out(known, local),),
            effects=effects,
            limit=self.ports[known] + ETHERNET_HEADER,
        )

    def _let_pass(self, number: int) -> bool:
        """Whether frames to the reserved group of this number are forwarded like any group's."""
        return number > 2 and bool(self.group_forward_mask >> number & 1)

    def _kept_apart(self, one: str, other: str) -> bool:
        return one in self.isolated and other in self.isolated

    def _learn(self, source: bytes, port: str, now: int) -> tuple[Effect, ...]:
        if source == self.mac:
            return ()
        if self.stations.get(source, now) == port:
            return (Refresh(self.stations, source),)
        return (Put(self.stations, source, port),)

    def _copies(
        self, packet: Packet, came_from: str, effects: tuple[Effect, ...], reason: Reason, *, to_self: bool
    ) -> Step:
        self.stations.lean(b"ports", 1 << 62)
        destination = packet.destination
        others = [
            port for port in self.ports if (port != came_from or self.hairpin) and not self._kept_apart(came_from, port)
        ]
        fitting = [port for port in others if not self._oversized(packet, port)]
        outputs = [self._out(port, came_from == LOCAL) for port in fitting]
        if to_self:
            outputs.append(self._up(packet))
        if outputs:
            return Step(
                self.name,
                Verdict.FORWARD,
                reason,
                {"mac": destination, "ports": tuple(fitting)},
                outputs,
                effects=effects,
                limit=min((self.ports[port] for port in others), default=1 << 20) + ETHERNET_HEADER,
            )
        if others:
            return drop(
                self.name,
                Reason.OVERSIZED,
                effects,
                length=packet.wire_length - ETHERNET_HEADER,
                mtu=self.ports[others[0]],
                port=others[0],
            )
        return drop(self.name, Reason.BRIDGE_NO_PORT, effects, bridge=self.name, mac=destination)

    def _oversized(self, packet: Packet, port: str) -> bool:
        tag = 4 if packet.ethertype in (b"\x81\x00", b"\x88\xa8") else 0
        return packet.wire_length - ETHERNET_HEADER - tag > self.ports[port]

    def _up(self, packet: Packet) -> Output:
        """To its own interface. What layer 3 gets there is new to it: how it was cut before is forgotten."""
        marks: dict[str, Any] = {"interface": self.name}
        if packet.fragments is not None:
            marks["fragments"] = replace(packet.fragments, largest=0)
        return Output(UP, marks)

    @staticmethod
    def _out(port: str, local: bool) -> Output:
        return Output("direct" if local else "egress", {"egress": port, "bridged": True})
