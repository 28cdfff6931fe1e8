"""Neighbor: who has an address on a link? Ask, wait, remember, answer. ARP and ND alike.

One state machine with two message formats (RFC 826, RFC 4861 7.3; Linux's neighbour.c):

    (none) -> INCOMPLETE    first packet: it waits, a request goes out, 3 tries 1 s apart
    INCOMPLETE -> REACHABLE an answer came; what waited goes, in order
    INCOMPLETE -> (none)    nobody answered: each waiting packet ends, its sender is told
    REACHABLE -> STALE      after 15 to 45 s (30 s, spread by hash)
    STALE -> DELAY          a packet uses it; it still goes out at once
    DELAY -> PROBE          5 s without confirmation: 3 unicast requests 1 s apart
    PROBE -> REACHABLE / (none)

What comes unasked makes no entry but follows one that exists (ARP-07, ARP-08). What
waits is bounded by the buffer memory it would cost the kernel (ARP-05). An entry
from the configuration is static: never asked for, never replaced by what is learned.

Rule of this file: every change is an effect, every message an emission.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from emunet.elements.errors import HOST_UNREACHABLE, Errors
from emunet.elements.interface import Interface, OwnAddresses
from emunet.packet import arp, icmpv6, ipv4, ipv6
from emunet.packet.address import (
    ALL_NODES_V6,
    BROADCAST_MAC,
    is_multicast,
    is_unspecified,
    multicast_mac,
    solicited_node,
)
from emunet.packet.edit import Put as PutBytes
from emunet.packet.malformed import Malformed
from emunet.packet.view import IPV6, Packet
from emunet.plane.chance import chance
from emunet.plane.element import Element
from emunet.plane.reason import Reason
from emunet.plane.step import Effect, Emission, Output, Step, Verdict, consume, drop
from emunet.plane.table import Counter, Delete, Put, Table, Watch
from emunet.plane.timers import Ring, Timers

SECOND = 1_000_000_000
TRIES = 3
RETRANSMIT = SECOND
BASE_REACHABLE = 30 * SECOND
DELAY_FIRST_PROBE = 5 * SECOND
LOCKTIME = SECOND
QUEUE_BYTES = 212_992
CAPACITY = 1024

Key = tuple[str, bytes]


class State(Enum):
    """Neighbour states by Linux's names (ip-neighbour(8))."""

    INCOMPLETE = "incomplete"
    REACHABLE = "reachable"
    STALE = "stale"
    DELAY = "delay"
    PROBE = "probe"
    PERMANENT = "permanent"


@dataclass(frozen=True, slots=True)
class Neighbor:
    """What is known of one neighbour. `updated`: when the MAC was last confirmed or changed (ns)."""

    mac: bytes
    state: State
    updated: int
    tries: int = 0


@dataclass(frozen=True, slots=True)
class StaticNeighbor:
    """A permanent neighbour entry: it never ages and is never asked for."""

    interface: str
    address: bytes
    mac: bytes


@dataclass(frozen=True, slots=True)
class Waiting:
    """Packets that wait for one address, oldest first, with the buffer memory they cost."""

    packets: tuple[Packet, ...]
    cost: int


def buffer_cost(length: int) -> int:
    """Bytes of kernel memory that a waiting frame of `length` bytes costs.

    The data with its headroom and trailer in a power of two, and 256 for the buffer's
    own header (skbuff.h): 2304 for 1000 bytes, so that 92 of them fit (ARP-05).
    """
    need = length + 64 + 320
    size = 512
    while size < need:
        size *= 2
    return size + 256


class NeighborElement(Element):
    """Inputs: `arp`, `nd`, `resolve`. Outputs: an interface's name, and `error`."""

    def __init__(
        self,
        device: str,
        own: OwnAddresses,
        errors: Errors,
        watch: Watch,
        seed: int,
        statics: Iterable[StaticNeighbor] = (),
    ) -> None:
        self.name = "neighbor"
        self.device = device
        self.own = own
        self.errors = errors
        self.table: Table[Key, Neighbor] = Table("neighbours", watch, CAPACITY, group=lambda key, value: key[0])
        self.waiting: Table[Key, Waiting] = Table("waiting for neighbours", watch, CAPACITY * 16)
        self.timers: Timers[Key] = Timers()
        self.reachable = {
            name: BASE_REACHABLE // 2 + chance(seed, device, name, "reachable") % BASE_REACHABLE
            for name in own.interfaces
        }
        self._statics: dict[Key, bytes] = {}
        self.reconfigure(statics)

    def reconfigure(self, statics: Iterable[StaticNeighbor]) -> None:
        """Take these permanent entries and no others; what was learned stays."""
        wanted = {(row.interface, row.address): row.mac for row in statics}
        for key in self._statics.keys() - wanted.keys():
            self.table.delete(key)
        for key, mac in wanted.items():
            if self._statics.get(key) != mac:
                self.table.put(key, Neighbor(mac, State.PERMANENT, 0), 0, static=True)
        self._statics = wanted

    def state(self) -> Iterable[Table[Any, Any] | Counter]:
        """The neighbour table and what waits."""
        return (self.table, self.waiting)

    def due(self) -> int:
        """The next request, probe or give-up."""
        return self.timers.first()

    def handle(self, packet: Packet, port: str, now: int) -> Step:
        """Resolve a next hop, or take in an ARP or ND message."""
        if port == "resolve":
            return self._resolve(packet, now)
        return self._arp(packet, now) if port == "arp" else self._nd(packet, now)

    # Resolving

    def _resolve(self, packet: Packet, now: int) -> Step:
        interface = self.own.interfaces[packet.egress]
        address = packet.next_hop
        if is_multicast(address):
            return self._group(packet, interface, address, multicast_mac(address))
        if self.own.is_broadcast(address):
            return self._group(packet, interface, address, BROADCAST_MAC)
        key = (interface.name, address)
        entry = self.table.get(key, now)
        if entry is None:
            return self._ask_first(packet, interface, key, now)
        state = entry.state
        if state is State.INCOMPLETE:
            return self._wait(packet, key, now, ())
        effects: tuple[Effect, ...] = ()
        if state is State.REACHABLE:
            fresh_until = entry.updated + self.reachable[interface.name]
            if now < fresh_until:
                self.table.lean(key, fresh_until)
            else:
                state = State.STALE
        if state is State.STALE:
            effects = (Put(self.table, key, replace(entry, state=State.DELAY, tries=0)), self._ring(key, DELAY_FIRST_PROBE))
        return self._known(interface, address, entry.mac, state, effects)

    def _group(self, packet: Packet, interface: Interface, address: bytes, mac: bytes) -> Step:
        step = self._known(interface, address, mac, State.PERMANENT, ())
        step.reason = Reason.NEIGHBOR_GROUP
        return step

    def _known(
        self, interface: Interface, address: bytes, mac: bytes, state: State, effects: tuple[Effect, ...]
    ) -> Step:
        from_to = f"MACs {interface.mac.hex(':')} -> {mac.hex(':')}"
        return Step(
            self.name,
            Verdict.FORWARD,
            Reason.NEIGHBOR_KNOWN,
            {"address": address, "mac": mac, "interface": interface.name, "state": state.value},
            (Output(interface.name, {"bridged": False}),),
            edits=(PutBytes(0, mac + interface.mac, from_to),),
            effects=effects,
        )

    def _ask_first(self, packet: Packet, interface: Interface, key: Key, now: int) -> Step:
        step = self._wait(
            packet,
            key,
            now,
            (Put(self.table, key, Neighbor(b"", State.INCOMPLETE, now, 1)), self._ring(key, RETRANSMIT)),
        )
        step.reason = Reason.NEIGHBOR_ASKED
        step.emissions = (self._request(interface, key[1], None),)
        return step

    def _wait(self, packet: Packet, key: Key, now: int, effects: tuple[Effect, ...]) -> Step:
        queue = self.waiting.get(key, now) or Waiting((), 0)
        packets = [*queue.packets, packet]
        cost = queue.cost + buffer_cost(len(packet.frame))
        settled: list[tuple[Packet, Step]] = []
        while cost > QUEUE_BYTES and len(packets) > 1:
            oldest = packets.pop(0)
            cost -= buffer_cost(len(oldest.frame))
            settled.append(
                (oldest, drop(self.name, Reason.NEIGHBOR_QUEUE_FULL, address=key[1], interface=key[0]))
            )
        return Step(
            self.name,
            Verdict.HOLD,
            Reason.NEIGHBOR_WAITING,
            {"device": self.device, "interface": key[0], "address": key[1], "count": len(queue.packets)},
            effects=(*effects, Put(self.waiting, key, Waiting(tuple(packets), cost))),
            settled=settled,
        )

    # Time passes

    def wake(self, now: int) -> Iterator[tuple[Packet | None, Step]]:
        """Ask again, probe, or give up, for every neighbour whose time has come."""
        for key in self.timers.pop(now):
            entry = self.table.get(key, now)
            if entry is None or key[0] not in self.own.interfaces:
                yield from self._give_up(key, now)
            elif entry.state is State.DELAY:
                yield None, self._ask_again(key, replace(entry, state=State.PROBE, tries=1))
            elif entry.tries < TRIES:
                yield None, self._ask_again(key, replace(entry, tries=entry.tries + 1))
            else:
                yield from self._give_up(key, now)

    def _ask_again(self, key: Key, entry: Neighbor) -> Step:
        interface = self.own.interfaces[key[0]]
        to = entry.mac if entry.state is State.PROBE else None
        return Step(
            self.name,
            Verdict.CONSUME,
            Reason.TIMER,
            {"what": f"asks {entry.tries} of {TRIES} times for a neighbour on {key[0]}"},
            effects=(Put(self.table, key, entry), self._ring(key, RETRANSMIT)),
            emissions=(self._request(interface, key[1], to),),
        )

    def _give_up(self, key: Key, now: int) -> Iterator[tuple[Packet | None, Step]]:
        queue = self.waiting.get(key, now)
        gone = Step(
            self.name,
            Verdict.CONSUME,
            Reason.TIMER,
            {"what": f"gives up on a neighbour on {key[0]}"},
            effects=(Delete(self.table, key), Delete(self.waiting, key)),
        )
        yield None, gone
        for packet in queue.packets if queue is not None else ():
            answer = self.errors.about(packet, HOST_UNREACHABLE, now)
            step = drop(
                self.name,
                Reason.NEIGHBOR_UNREACHABLE,
                interface=key[0],
                device=self.device,
                address=key[1],
                tries=TRIES,
                sent=answer.words,
            )
            step.effects, step.emissions = answer.effects, answer.emissions
            yield packet, step

    # Messages

    def _arp(self, packet: Packet, now: int) -> Step:
        interface = self.own.interfaces[packet.interface]
        try:
            message = arp.Arp.parse(packet.whole("ARP is read whole")[14:])
        except Malformed as problem:
            return drop(self.name, Reason.ARP_MALFORMED, problem=str(problem))
        mine = self.own.owner(message.target_ip) is not None
        probe = is_unspecified(message.sender_ip)
        if message.operation == arp.REQUEST and mine and self.own.owner(message.sender_ip) is None:
            learned = () if probe else self._learned((interface.name, message.sender_ip), message.sender_mac, State.STALE, now, create=True)
            reply = arp.reply(interface.mac, message.target_ip, message.sender_mac, message.sender_ip)
            step = consume(
                self.name,
                Reason.ARP_ANSWERED,
                device=self.device,
                address=message.target_ip,
                asker=message.sender_ip,
                mac=interface.mac,
            )
            step.emissions = (Emission(reply, interface.name, {"egress": interface.name}),)
            return self._with(step, learned)
        if probe or self.table.get((interface.name, message.sender_ip), now) is None:
            return consume(self.name, Reason.ARP_IGNORED, address=message.target_ip, interface=interface.name)
        asked = message.operation == arp.REPLY and not packet.destination[0] & 1
        gratuitous = message.sender_ip == message.target_ip
        learned = self._learned(
            (interface.name, message.sender_ip),
            message.sender_mac,
            State.REACHABLE if asked else State.STALE,
            now,
            override=gratuitous or None,
        )
        step = consume(
            self.name,
            Reason.ARP_LEARNED,
            address=message.sender_ip,
            mac=message.sender_mac,
            interface=interface.name,
        )
        return self._with(step, learned)

    def _nd(self, packet: Packet, now: int) -> Step:
        interface = self.own.interfaces.get(packet.interface)
        source, destination = packet.ip_source, packet.ip_destination
        try:
            if packet.ttl != 255:
                raise Malformed(f"its hop limit is {packet.ttl}, not 255: it did not come from this link")
            if interface is None:
                raise Malformed("it came in by no interface")
            header, offset = ipv6.upper_layer(packet.ip_packet("neighbour discovery is read whole"))
            if header != ipv4.ICMPV6:
                raise Malformed("its upper layer is not ICMPv6")
            message = icmpv6.Icmpv6.parse(source, destination, packet.ip_packet("neighbour discovery is read whole")[offset:])
            if message.type == icmpv6.NEIGHBOR_SOLICITATION:
                return self._solicited(packet, interface, icmpv6.NeighborSolicitation.parse(message), now)
            return self._advertised(interface, icmpv6.NeighborAdvertisement.parse(message), now)
        except Malformed as problem:
            return drop(self.name, Reason.ND_MALFORMED, problem=str(problem))

    def _solicited(
        self, packet: Packet, interface: Interface, message: icmpv6.NeighborSolicitation, now: int
    ) -> Step:
        source = packet.ip_source
        if message.target != interface.link_local and self.own.owner(message.target) != interface.name:
            return consume(self.name, Reason.ND_IGNORED, address=message.target, interface=interface.name)
        probe = is_unspecified(source)
        learned: Sequence[Any] = ()
        mac = message.source_mac or packet.source
        if not probe and message.source_mac is not None:
            learned = self._learned((interface.name, source), mac, State.STALE, now, create=True)
        to = ALL_NODES_V6 if probe else source
        answer = icmpv6.NeighborAdvertisement(message.target, interface.mac, router=True, solicited=not probe, override=True)
        body = ipv6.IPv6(message.target, to, ipv4.ICMPV6, hop_limit=255).pack(answer.pack(message.target, to))
        step = consume(
            self.name,
            Reason.ND_ANSWERED,
            device=self.device,
            address=message.target,
            asker=source,
            mac=interface.mac,
        )
        step.emissions = (self._frame_v6(interface, multicast_mac(to) if probe else mac, body),)
        return self._with(step, learned)

    def _advertised(self, interface: Interface, message: icmpv6.NeighborAdvertisement, now: int) -> Step:
        key = (interface.name, message.target)
        entry = self.table.get(key, now)
        if entry is None or (message.mac is None and not entry.mac):
            return consume(self.name, Reason.ND_IGNORED, address=message.target, interface=interface.name)
        mac = message.mac or entry.mac
        if not message.override and entry.mac and mac != entry.mac:
            state = State.STALE if entry.state is State.REACHABLE else entry.state
            effects = (Put(self.table, key, replace(entry, state=state)),)
            return consume(self.name, Reason.ND_IGNORED, effects, address=message.target, interface=interface.name)
        learned = self._learned(key, mac, State.REACHABLE if message.solicited else State.STALE, now, override=True)
        step = consume(
            self.name, Reason.ND_LEARNED, address=message.target, mac=mac, interface=interface.name
        )
        return self._with(step, learned)

    def _learned(
        self, key: Key, mac: bytes, state: State, now: int, *, create: bool = False, override: bool | None = None
    ) -> tuple[Sequence[Effect], Sequence[tuple[Packet, Step]]]:
        """What a message about `key` changes: effects, and decisions on the packets that waited for it."""
        entry = self.table.get(key, now)
        if entry is None and not create:
            return (), ()
        if entry is not None and entry.state is State.PERMANENT:
            return (), ()
        if entry is not None and entry.mac and entry.mac != mac:
            overriding = now > entry.updated + LOCKTIME if override is None else override
            if not overriding:
                return (), ()
        elif entry is not None and entry.mac == mac and state is State.STALE:
            # The same MAC heard again unasked neither confirms nor ages an entry (neigh_update).
            return (), ()
        effects: list[Effect] = [Put(self.table, key, Neighbor(mac, state, now)), self._ring(key, None)]
        settled: list[tuple[Packet, Step]] = []
        queue = self.waiting.get(key, now)
        if queue is not None:
            interface = self.own.interfaces[key[0]]
            effects.append(Delete(self.waiting, key))
            if state is State.STALE:
                # What waited uses the entry at once, so it goes on to be confirmed (ARP-06).
                effects[0] = Put(self.table, key, Neighbor(mac, State.DELAY, now))
                effects[1] = self._ring(key, DELAY_FIRST_PROBE)
            settled = [(packet, self._known(interface, key[1], mac, state, ())) for packet in queue.packets]
        return effects, settled

    @staticmethod
    def _with(step: Step, learned: Sequence[Any]) -> Step:
        if learned:
            step.effects, step.settled = learned
        return step

    # Making messages

    def _request(self, interface: Interface, address: bytes, to: bytes | None) -> Emission:
        """Who has `address`? To everybody, or to the MAC it was last seen at."""
        if len(address) == 4:
            sender = self._sender(interface, address)
            question = arp.request(interface.mac, sender, address, to or BROADCAST_MAC)
            return Emission(question, interface.name, {"egress": interface.name})
        sender = self._sender(interface, address)
        group = address if to is not None else solicited_node(address)
        solicitation = icmpv6.NeighborSolicitation(address, interface.mac).pack(sender, group)
        body = ipv6.IPv6(sender, group, ipv4.ICMPV6, hop_limit=255).pack(solicitation)
        return self._frame_v6(interface, to or multicast_mac(group), body)

    def _sender(self, interface: Interface, address: bytes) -> bytes:
        """Our address to ask from: one on the target's subnet, else the first of the family anywhere."""
        for entry in interface.addresses:
            if entry.prefix.contains(address):
                return entry.address
        if len(address) == 16:
            return interface.link_local
        own = interface.address(4)
        if own is not None:
            return own
        for other in self.own.interfaces.values():
            own = other.address(4)
            if own is not None:
                return own
        return bytes(4)

    @staticmethod
    def _frame_v6(interface: Interface, to: bytes, body: bytes) -> Emission:
        return Emission(to + interface.mac + IPV6 + body, interface.name, {"egress": interface.name})

    def _ring(self, key: Key, after: int | None) -> Ring[Key]:
        return Ring(self.timers, key, after)


__all__ = ["Neighbor", "NeighborElement", "State", "StaticNeighbor", "buffer_cost"]
