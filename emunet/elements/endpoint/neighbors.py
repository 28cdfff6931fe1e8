"""Neighbours: who has which address on the link. ARP (RFC 826) and Neighbour Discovery (RFC 4861) in one machine.

Two parts. `answer_neighbor_request` is a pure function: a request for one of our
addresses becomes the reply. `NeighborCache` resolves, with the states and times
of Linux (fidelity 2.5): three requests a second apart, then failure for every
queued packet; an entry is good for 30 s, then used on trust (stale) and checked
5 s later by three unicast requests; whoever asks us is entered as stale.

Rule of this file: the cache is bounded, its queues are bounded in bytes, and
nobody gets an entry by an announcement alone (ARP-07).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from emunet.elements.endpoint.addresses import Addresses
from emunet.elements.endpoint.network import SECOND
from emunet.packet import arp
from emunet.packet.address import (
    ALL_NODES_V6,
    is_group_mac,
    is_multicast,
    is_unspecified,
    multicast_mac,
    solicited_node,
)
from emunet.packet.ethernet import ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet, build
from emunet.packet.icmpv6 import (
    NEIGHBOR_ADVERTISEMENT,
    NEIGHBOR_SOLICITATION,
    Icmpv6,
    NeighborAdvertisement,
    NeighborSolicitation,
)
from emunet.packet.ipv6 import ICMPV6, IPv6
from emunet.packet.malformed import Malformed

TRIES = 3
RETRANSMIT = SECOND
REACHABLE_TIME = 30 * SECOND
DELAY_FIRST_PROBE = 5 * SECOND
LOCK_TIME = SECOND
QUEUE_MEMORY = 212992
MAXIMUM_ENTRIES = 1024
_HOP_LIMIT = 255


def answer_neighbor_request(
    frame: bytes, addresses: Iterable[bytes], mac: bytes, *, router: bool = False
) -> bytes | None:
    """The reply to an ARP request or neighbour solicitation for one of `addresses` (4 or 16 bytes); else None.

    Probes are answered too (ARP-09, V6-04). `router` sets the R flag of an
    advertisement. Never raises: what is malformed, comes with a hop limit other
    than 255 or claims our own address as sender is not answered. Whether the
    frame is for us by its destination MAC is the caller's to judge.
    """
    try:
        header, payload = Ethernet.parse(frame)
        if header.ethertype == ETHERTYPE_ARP:
            return _answer_arp(arp.Arp.parse(payload), tuple(addresses), mac)
        if header.ethertype == ETHERTYPE_IPV6 and len(payload) > 40 and payload[6] == ICMPV6:
            ip, message = IPv6.parse(payload)
            if ip.hop_limit == _HOP_LIMIT and message[:1] == bytes((NEIGHBOR_SOLICITATION,)):
                return _answer_solicitation(header, ip, message, tuple(addresses), mac, router)
    except Malformed:
        pass
    return None


def _answer_arp(message: arp.Arp, addresses: Sequence[bytes], mac: bytes) -> bytes | None:
    if message.operation != arp.REQUEST or message.target_ip not in addresses or is_group_mac(message.sender_mac):
        return None
    if message.sender_ip in addresses or is_multicast(message.sender_ip):
        return None
    return arp.reply(mac, message.target_ip, message.sender_mac, message.sender_ip)


def _answer_solicitation(
    header: Ethernet, ip: IPv6, message: bytes, addresses: Sequence[bytes], mac: bytes, router: bool
) -> bytes | None:
    question = NeighborSolicitation.parse(Icmpv6.parse(ip.src, ip.dst, message))
    target = question.target
    if target not in addresses or ip.src in addresses or is_multicast(ip.src):
        return None
    if ip.dst not in (target, solicited_node(target)):
        return None
    probe = is_unspecified(ip.src)
    if probe and (question.source_mac is not None or ip.dst == target):
        return None
    if probe:
        dst, dst_mac = ALL_NODES_V6, multicast_mac(ALL_NODES_V6)
    else:
        dst, dst_mac = ip.src, question.source_mac or header.src
    if is_group_mac(dst_mac) and not probe:
        return None
    answer = NeighborAdvertisement(target, mac, router=router, solicited=not probe, override=True)
    packet = IPv6(target, dst, ICMPV6, _HOP_LIMIT).pack(answer.pack(target, dst))
    return build(dst_mac, mac, ETHERTYPE_IPV6, packet)


class NeighborState(Enum):
    """As `ip neighbour` names them; a failed entry is not kept."""

    INCOMPLETE = "INCOMPLETE"
    REACHABLE = "REACHABLE"
    STALE = "STALE"
    DELAY = "DELAY"
    PROBE = "PROBE"


@dataclass(slots=True)
class Neighbor:
    """One entry. `until` is the end of its state, as a time in nanoseconds; `tries` counts requests sent."""

    address: bytes
    state: NeighborState
    mac: bytes | None = None
    until: int = 0
    tries: int = 0
    updated: int = 0
    source: bytes | None = None
    queue: deque[bytes] = field(default_factory=deque)
    queued_memory: int = 0


def _memory(packet: bytes) -> int:
    """About what the packet costs a kernel: a power of two, and 256 (ARP-05: 92 packets of 1000 bytes)."""
    return 256 + (1 << (len(packet) + 350 - 1).bit_length())


class NeighborCache:
    """Resolution for one interface. `due` is its next timer; the stack wakes it and sends what it returns."""

    def __init__(self, mac: bytes, addresses: Addresses) -> None:
        self.due: int | None = None
        self.queued: int | None = None
        self.failed: list[bytes] = []
        """Packets whose next hop did not answer; the stack takes them and tells their senders."""
        self._mac = mac
        self._addresses = addresses
        self._entries: dict[bytes, Neighbor] = {}
        self._active: dict[bytes, Neighbor] = {}

    def entries(self, now: int) -> list[tuple[bytes, bytes | None, NeighborState]]:
        """(address, MAC, state) of each, for display."""
        return [(entry.address, entry.mac, self._state(entry, now)) for entry in self._entries.values()]

    def mac_of(self, address: bytes) -> bytes | None:
        """The MAC that would be used; None while unknown."""
        entry = self._entries.get(address)
        return None if entry is None else entry.mac

    def send(self, next_hop: bytes, packet: bytes, source: bytes, now: int) -> list[bytes]:
        """A packet for an on-link next hop: its frame; or, while it must wait, a request that goes first."""
        entry = self._entries.get(next_hop)
        if entry is not None and entry.mac is not None:
            entry.source = source
            if self._state(entry, now) is NeighborState.STALE:
                self._change(entry, NeighborState.DELAY, now + DELAY_FIRST_PROBE)
            return [self._frame(entry.mac, packet)]
        frames: list[bytes] = []
        if entry is None:
            frames = self.resolve(next_hop, source, now)
            entry = self._entries[next_hop]
        entry.queue.append(packet)
        entry.queued_memory += _memory(packet)
        while entry.queued_memory > QUEUE_MEMORY and entry.queue:
            entry.queued_memory -= _memory(entry.queue.popleft())
        return frames

    def resolve(self, address: bytes, source: bytes, now: int) -> list[bytes]:
        """Begin to resolve an unknown address: the first request. Nothing for a known one."""
        if address in self._entries:
            return []
        entry = self._enter(address, NeighborState.INCOMPLETE)
        entry.source, entry.tries = source, 1
        self._change(entry, NeighborState.INCOMPLETE, now + RETRANSMIT)
        return [self._request(entry)]

    def confirm(self, address: bytes, now: int) -> None:
        """Something from beyond proves that the neighbour is there (RFC 4861 7.3.1)."""
        entry = self._entries.get(address)
        if entry is not None and entry.mac is not None:
            self._change(entry, NeighborState.REACHABLE, now + REACHABLE_TIME)

    def wake(self, now: int) -> list[bytes]:
        """Requests to repeat; packets given up are added to `failed`."""
        frames = []
        for entry in [entry for entry in self._active.values() if entry.until <= now]:
            if entry.state is NeighborState.DELAY:
                entry.state, entry.tries = NeighborState.PROBE, 0
            if entry.tries >= TRIES:
                self.failed.extend(entry.queue)
                del self._entries[entry.address], self._active[entry.address]
                continue
            entry.tries += 1
            entry.until = now + RETRANSMIT
            frames.append(self._request(entry))
        self._reschedule()
        return frames

    def receive_arp(self, frame: bytes, now: int) -> list[bytes]:
        """An ARP frame: the reply it asks for, and packets that it sets free. Malformed if it is none."""
        header, payload = Ethernet.parse(frame)
        message = arp.Arp.parse(payload)
        frames = []
        answer = _answer_arp(message, tuple(self._addresses.own), self._mac)
        if answer is not None:
            frames.append(answer)
        sender = message.sender_ip
        if is_unspecified(sender) or is_group_mac(message.sender_mac) or sender in self._addresses.own:
            return frames
        if answer is not None:
            return frames + self._learn(sender, message.sender_mac, NeighborState.STALE, now, create=True)
        to_us = header.dst == self._mac
        solicited = message.operation == arp.REPLY and to_us and message.target_ip in self._addresses.own
        state = NeighborState.REACHABLE if solicited else NeighborState.STALE
        return frames + self._learn(sender, message.sender_mac, state, now, locked=not to_us)

    def receive_discovery(self, frame: bytes, now: int) -> list[bytes]:
        """A neighbour solicitation or advertisement, likewise. Malformed if it breaks a rule of RFC 4861 7.1."""
        header, packet = Ethernet.parse(frame)
        ip, payload = IPv6.parse(packet)
        if ip.hop_limit != _HOP_LIMIT:
            raise Malformed("a Neighbour Discovery message has hop limit 255: this one was forwarded")
        message = Icmpv6.parse(ip.src, ip.dst, payload)
        if message.type == NEIGHBOR_SOLICITATION:
            answer = _answer_solicitation(header, ip, payload, tuple(self._addresses.own), self._mac, False)
            if answer is None:
                return []
            mac = NeighborSolicitation.parse(message).source_mac
            if is_unspecified(ip.src) or mac is None or is_group_mac(mac):
                return [answer]
            return [answer, *self._learn(ip.src, mac, NeighborState.STALE, now, create=True)]
        if message.type == NEIGHBOR_ADVERTISEMENT:
            return self._receive_advertisement(ip, NeighborAdvertisement.parse(message), now)
        return []

    def _receive_advertisement(self, ip: IPv6, news: NeighborAdvertisement, now: int) -> list[bytes]:
        """RFC 4861 7.2.5."""
        if news.solicited and is_multicast(ip.dst):
            raise Malformed("a neighbour advertisement to a group claims to be solicited")
        entry = self._entries.get(news.target)
        if entry is None or news.target in self._addresses.own or (news.mac is not None and is_group_mac(news.mac)):
            return []
        state = NeighborState.REACHABLE if news.solicited else NeighborState.STALE
        if entry.mac is None:
            return [] if news.mac is None else self._learn(news.target, news.mac, state, now)
        differs = news.mac is not None and news.mac != entry.mac
        if differs and not news.override:
            if self._state(entry, now) is NeighborState.REACHABLE:
                self._change(entry, NeighborState.STALE, 0)
            return []
        if differs or news.solicited:
            return self._learn(news.target, news.mac or entry.mac, state, now)
        return []

    def _learn(
        self, address: bytes, mac: bytes, state: NeighborState, now: int, *, create: bool = False, locked: bool = False
    ) -> list[bytes]:
        """Enter what was heard; the frames of packets that waited for it.

        What only repeats what is known, without being an answer, changes nothing.
        `locked`: a MAC that was heard less than LOCK_TIME ago stays.
        """
        entry = self._entries.get(address)
        if entry is None:
            if not create:
                return []
            entry = self._enter(address, state)
        elif entry.mac == mac:
            if state is NeighborState.STALE:
                return []
        elif entry.mac is not None and locked and now - entry.updated < LOCK_TIME:
            return []
        entry.mac, entry.updated = mac, now
        self._change(entry, state, now + REACHABLE_TIME)
        frames = [self._frame(mac, packet) for packet in entry.queue]
        entry.queue.clear()
        entry.queued_memory = 0
        if frames and state is NeighborState.STALE:
            self._change(entry, NeighborState.DELAY, now + DELAY_FIRST_PROBE)
        return frames

    def _state(self, entry: Neighbor, now: int) -> NeighborState:
        """The state by the clock: reachable ends by itself."""
        if entry.state is NeighborState.REACHABLE and entry.until <= now:
            entry.state = NeighborState.STALE
        return entry.state

    def _change(self, entry: Neighbor, state: NeighborState, until: int) -> None:
        entry.state, entry.until = state, until
        if state in (NeighborState.INCOMPLETE, NeighborState.DELAY, NeighborState.PROBE):
            self._active[entry.address] = entry
        else:
            self._active.pop(entry.address, None)
        self._reschedule()

    def _reschedule(self) -> None:
        self.due = min((entry.until for entry in self._active.values()), default=None)

    def _enter(self, address: bytes, state: NeighborState) -> Neighbor:
        """A new entry; when full, the oldest that nobody waits for goes (else the oldest)."""
        if len(self._entries) >= MAXIMUM_ENTRIES:
            victim = next((entry for entry in self._entries.values() if not entry.queue), None)
            if victim is None:
                victim = next(iter(self._entries.values()))
                self.failed.extend(victim.queue)
            del self._entries[victim.address]
            self._active.pop(victim.address, None)
        entry = self._entries[address] = Neighbor(address, state)
        return entry

    def _source(self, entry: Neighbor) -> bytes:
        """The address to ask from: the packet's source if it is ours (arp_announce 0), else one on the subnet."""
        if entry.source in self._addresses.own and entry.source is not None:
            return entry.source
        family = [own for own in self._addresses.all if len(own.address) == len(entry.address)]
        near = [own.address for own in family if own.prefix.contains(entry.address)]
        return (near or [own.address for own in family] or [bytes(len(entry.address))])[0]

    def _request(self, entry: Neighbor) -> bytes:
        """Multicast (ARP: broadcast) while the MAC is unknown, unicast to check a known one."""
        source = self._source(entry)
        if len(entry.address) == 4:
            return arp.request(self._mac, source, entry.address, **({} if entry.mac is None else {"dst": entry.mac}))
        dst = solicited_node(entry.address) if entry.mac is None else entry.address
        question = NeighborSolicitation(entry.address, None if is_unspecified(source) else self._mac)
        packet = IPv6(source, dst, ICMPV6, _HOP_LIMIT).pack(question.pack(source, dst))
        return build(entry.mac or multicast_mac(dst), self._mac, ETHERTYPE_IPV6, packet)

    def _frame(self, mac: bytes, packet: bytes) -> bytes:
        return build(mac, self._mac, ETHERTYPE_IPV6 if packet[0] >> 4 == 6 else ETHERTYPE_IPV4, packet)
