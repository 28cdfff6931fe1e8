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

A bridged frame that was sent to another address on the same bridge (`connections`) gets
the neighbour's MAC and keeps its source's: it goes on through the bridge (SVC-02).

Rule of this file: every change is an effect, every message an emission.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from emunet.elements.errors import HOST_UNREACHABLE, Errors
from emunet.elements.interface import Interface, OwnAddresses
from emunet.elements.solicited import News, Solicited
from emunet.packet import arp, icmpv6, ipv4, ipv6
from emunet.packet.address import ALL_NODES_V6, BROADCAST_MAC, is_multicast, multicast_mac, solicited_node
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
PROXY_QUEUE = 64

Key = tuple[str, bytes]
DelayedKey = tuple[str, bytes, bytes]


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
    """Inputs: `arp`, `nd`, `resolve`. Outputs: an interface's name, `bridged` and a bridge's name, and `error`."""

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
        self.delayed: Table[DelayedKey, Emission] = Table("answers that wait", watch, PROXY_QUEUE)
        self.timers: Timers[Key | DelayedKey] = Timers()
        self.solicited = Solicited(device, own, errors.routes, self.known, seed)
        self.seed = seed
        self._statics: dict[Key, bytes] = {}
        self._reachable: dict[str, int] = {}
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

    def announce(self, addresses: Iterable[bytes], now: int) -> None:
        """Tell everybody on their links that these addresses are here from `now` on (RFC 5227 3; RFC 4861 7.2.6)."""
        for address in addresses:
            for interface in self.own.interfaces.values():
                if self.own.announces(address, interface.name):
                    key = (interface.name, address, address)
                    self.delayed.put(key, self._announcement(interface, address), now)
                    self.timers.set(key, now)

    def _announcement(self, interface: Interface, address: bytes) -> Emission:
        if len(address) == 4:
            frame = arp.request(interface.mac, address, address)
            return Emission(frame, interface.name, {"egress": interface.name})
        told = icmpv6.NeighborAdvertisement(address, interface.mac, override=True).pack(address, ALL_NODES_V6)
        body = ipv6.IPv6(address, ALL_NODES_V6, ipv4.ICMPV6, hop_limit=255).pack(told)
        return self._frame_v6(interface, multicast_mac(ALL_NODES_V6), body)

    def forget(self, interface: str) -> None:
        """Its link is no more, or another: what was learned there goes. What waits is dropped when its time comes."""
        self.table.delete_where(lambda key, value: key[0] == interface)

    def known(self, interface: str, address: bytes, now: int) -> bytes | None:
        """The MAC of a neighbour, or None while it is not known."""
        entry = self.table.get((interface, address), now)
        return entry.mac if entry is not None and entry.mac else None

    def reachable(self, interface: str) -> int:
        """How long an entry counts as confirmed on an interface, in ns: 15 to 45 s (RFC 4861 6.3.2)."""
        known = self._reachable.get(interface)
        if known is None:
            known = BASE_REACHABLE // 2 + chance(self.seed, self.device, interface, "reachable") % BASE_REACHABLE
            self._reachable[interface] = known
        return known

    def state(self) -> Iterable[Table[Any, Any] | Counter]:
        """The neighbour table and what waits."""
        return (self.table, self.waiting, self.delayed)

    def due(self) -> int:
        """The next request, probe or give-up."""
        return self.timers.first()

    def handle(self, packet: Packet, port: str, now: int) -> Step:
        """Resolve a next hop, or take in an ARP or ND message."""
        if port == "resolve":
            return self._resolve(packet, now)
        return self._hear(packet, port, now)

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
            fresh_until = entry.updated + self.reachable(interface.name)
            if now < fresh_until:
                self.table.lean(key, fresh_until)
            else:
                state = State.STALE
        if state is State.STALE:
            delayed = replace(entry, state=State.DELAY, tries=0)
            effects = (Put(self.table, key, delayed), self._ring(key, DELAY_FIRST_PROBE))
        return self._known(packet, interface, address, entry.mac, state, effects)

    def _group(self, packet: Packet, interface: Interface, address: bytes, mac: bytes) -> Step:
        step = self._known(packet, interface, address, mac, State.PERMANENT, ())
        step.reason = Reason.NEIGHBOR_GROUP
        return step

    def _known(
        self,
        packet: Packet,
        interface: Interface,
        address: bytes,
        mac: bytes,
        state: State,
        effects: tuple[Effect, ...],
    ) -> Step:
        source, output, marks = interface.mac, interface.name, {"bridged": False}
        if packet.bridged:
            source, output, marks = packet.source, f"bridged {interface.name}", {}
        from_to = f"MACs {source.hex(':')} -> {mac.hex(':')}"
        return Step(
            self.name,
            Verdict.FORWARD,
            Reason.NEIGHBOR_KNOWN,
            {"address": address, "mac": mac, "interface": interface.name, "state": state.value},
            (Output(output, marks),),
            edits=(PutBytes(0, mac + source, from_to),),
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
        step.emissions = (self._request(interface, key[1], None, packet),)
        return step

    def _wait(self, packet: Packet, key: Key, now: int, effects: tuple[Effect, ...]) -> Step:
        queue = self.waiting.get(key, now) or Waiting((), 0)
        packets = [*queue.packets, packet]
        cost = queue.cost + buffer_cost(len(packet.frame))
        settled: list[tuple[Packet, Step]] = []
        while cost > QUEUE_BYTES and len(packets) > 1:
            oldest = packets.pop(0)
            cost -= buffer_cost(len(oldest.frame))
            settled.append((oldest, drop(self.name, Reason.NEIGHBOR_QUEUE_FULL, address=key[1], interface=key[0])))
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
            if len(key) == 3:
                yield from self._answer_late(key, now)
                continue
            entry = self.table.get(key, now)
            if entry is None or key[0] not in self.own.interfaces:
                yield from self._give_up(key, now)
            elif entry.state is State.DELAY:
                yield None, self._ask_again(key, replace(entry, state=State.PROBE, tries=1), now)
            elif entry.tries < TRIES:
                yield None, self._ask_again(key, replace(entry, tries=entry.tries + 1), now)
            else:
                yield from self._give_up(key, now)

    def _answer_late(self, key: DelayedKey, now: int) -> Iterator[tuple[Packet | None, Step]]:
        reply = self.delayed.get(key, now)
        if reply is not None and key[0] in self.own.interfaces:
            what = {"what": f"answers on {key[0]} after the wait"}
            effects = (Delete(self.delayed, key),)
            yield None, Step(self.name, Verdict.CONSUME, Reason.TIMER, what, effects=effects, emissions=(reply,))

    def _ask_again(self, key: Key, entry: Neighbor, now: int) -> Step:
        interface = self.own.interfaces[key[0]]
        to = entry.mac if entry.state is State.PROBE else None
        queue = self.waiting.get(key, now)
        waits = queue.packets[0] if queue is not None and queue.packets else None
        return Step(
            self.name,
            Verdict.CONSUME,
            Reason.TIMER,
            {"what": f"asks {entry.tries} of {TRIES} times for a neighbour on {key[0]}"},
            effects=(Put(self.table, key, entry), self._ring(key, RETRANSMIT)),
            emissions=(self._request(interface, key[1], to, waits),),
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

    def _hear(self, packet: Packet, port: str, now: int) -> Step:
        """An ARP or ND message: note what it says, answer what it asks."""
        interface = self.own.interfaces.get(packet.interface)
        malformed = Reason.ARP_MALFORMED if port == "arp" else Reason.ND_MALFORMED
        try:
            if interface is None:
                raise Malformed("it came in by no interface")
            listen = self.solicited.hear_arp if port == "arp" else self.solicited.hear_discovery
            heard = listen(packet, interface, now)
        except Malformed as problem:
            return drop(self.name, malformed, problem=str(problem))
        step = consume(self.name, heard.reason, **heard.arguments)
        if heard.news is not None:
            self._note(step, (interface.name, heard.news.address), heard.news, now)
        if heard.reply is not None and not heard.delay:
            step.emissions = (heard.reply,)
        elif heard.reply is not None:
            key = (interface.name, heard.arguments["address"], heard.arguments["asker"])
            step.effects = (*step.effects, Put(self.delayed, key, heard.reply), Ring(self.timers, key, heard.delay))
        return step

    def _note(self, step: Step, key: Key, news: News, now: int) -> None:
        """What is said of a neighbour, as effects of the step, and decisions on the packets that waited for it."""
        entry = self.table.get(key, now)
        mac = news.mac or (entry.mac if entry is not None else b"")
        arp_message = len(key[1]) == 4
        if (entry is None and not news.create) or not mac:
            if step.reason in (Reason.ARP_LEARNED, Reason.ND_LEARNED):
                step.reason = Reason.ARP_IGNORED if arp_message else Reason.ND_IGNORED
            return
        if step.reason is Reason.ND_LEARNED:
            step.arguments["mac"] = mac
        if entry is not None and entry.mac and mac != entry.mac and news.override is False:
            # RFC 4861 7.2.5: another MAC, and not to override: what is known is only doubted.
            step.reason = Reason.ND_IGNORED
            if entry.state is State.REACHABLE:
                step.effects = (Put(self.table, key, replace(entry, state=State.STALE)),)
            return
        state = State.REACHABLE if news.solicited else State.STALE
        learned = self._learned(key, mac, state, now, create=news.create, override=news.override)
        if learned:
            step.effects, step.settled = learned

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
            settled = [(packet, self._known(packet, interface, key[1], mac, state, ())) for packet in queue.packets]
        return effects, settled

    # Making messages

    def _request(self, interface: Interface, address: bytes, to: bytes | None, for_packet: Packet | None) -> Emission:
        """Who has `address`? To everybody, or to the MAC it was last seen at. `for_packet` is the one that waits."""
        sender = self._sender(interface, address, for_packet)
        if len(address) == 4:
            question = arp.request(interface.mac, sender, address, to or BROADCAST_MAC)
            return Emission(question, interface.name, {"egress": interface.name})
        group = address if to is not None else solicited_node(address)
        solicitation = icmpv6.NeighborSolicitation(address, interface.mac).pack(sender, group)
        body = ipv6.IPv6(sender, group, ipv4.ICMPV6, hop_limit=255).pack(solicitation)
        return self._frame_v6(interface, to or multicast_mac(group), body)

    def _sender(self, interface: Interface, address: bytes, for_packet: Packet | None) -> bytes:
        """Our address to ask from.

        That of a packet of our own which waits (IPv6: if it is this interface's); else the one on the target's
        network, or the first anywhere (CAL-02); in IPv6 the link-local one (arp.c and ndisc.c, "solicit").
        """
        if for_packet is not None and for_packet.local:
            source = for_packet.ip_source
            if len(source) == 4 and self.own.owner(source) is not None:
                return source
            if len(source) == 16 and self.own.is_on(source, interface.name):
                return source
        if len(address) == 16:
            return interface.link_local
        return self.own.source(interface.name, address, address) or bytes(4)

    @staticmethod
    def _frame_v6(interface: Interface, to: bytes, body: bytes) -> Emission:
        return Emission(to + interface.mac + IPV6 + body, interface.name, {"egress": interface.name})

    def _ring(self, key: Key, after: int | None) -> Ring[Key | DelayedKey]:
        return Ring(self.timers, key, after)


__all__ = ["Neighbor", "NeighborElement", "State", "StaticNeighbor", "buffer_cost"]
