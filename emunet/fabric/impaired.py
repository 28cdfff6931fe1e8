"""Lanes: one direction of a wire on which something goes wrong, decided by the wire's own seed.

Every frame that enters a lane is drawn for in the same fixed order, with `random()`
alone (whose numbers are the same in every Python), so the same seed loses the same
frames. Frames keep their order on a lane unless `reorder` lets one pass; what is on
the wire keeps its due time when the settings change. (`impairment` has the settings.)

What is impaired is cut first: a superframe is lost, delayed and counted by wire frames.

Most lanes only delay and pace. A frame that the flow cache has repeated goes onto such a
lane by `carry`, with the Replay that it came out of, and comes off it by `pass_on`: nothing
is made of it but the bytes. (Over four cables with rate and delay, `make bench`'s path: 26,000
frames a second before, 77,000 now.)

Rule of this file: an element never learns of any of this.
"""

from __future__ import annotations

import random
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from emunet.fabric.impairment import Impairment
from emunet.packet.filter import compile_filter
from emunet.packet.offload import split
from emunet.packet.view import ETHERNET_HEADER, VLAN, VLAN_SERVICE, Packet
from emunet.plane.reason import Reason

if TYPE_CHECKING:
    from emunet.fabric.replay import Replay

OnWire = tuple[int, bytes, int, Any, "Replay | None", int]
"""A frame on a wire: when it comes off (ns), bytes, devices passed, Trace, the Replay that put it on, its identity."""

SECOND = 1_000_000_000


class Fabric(Protocol):
    """What a lane needs of the World."""

    def come_off(self, device: str, port: str, packet: Packet, now: int) -> None:
        """A packet comes off the wire."""
        ...

    def pass_on(self, source: Replay, device: str, port: str, frame: bytes, hops: int, identity: int, now: int) -> bool:
        """A frame that `source` put on comes off, alone: repeat what follows, if that is in the flow cache."""
        ...

    def put_on(self, frames: int, copies: int) -> None:
        """Frames are on a wire now; of them, copies that the wire made."""
        ...

    def lose(self, wire: str, packet: Packet, reason: Reason, now: int) -> None:
        """A packet ends on the wire."""
        ...

    def wake_lane(self, lane: Lane, due: int) -> None:
        """Call `lane.wake(now)` at `due`."""
        ...

    def retire(self, lane: Lane) -> None:
        """The lane is empty and does nothing that a plain wire would not do."""
        ...


class Lane:
    """One direction of a wire under an impairment: towards `device`, `port`.

    blocked  frames from these MACs end here: stations on the other side of a partition
    """

    def __init__(self, wire: str, device: str, port: str, impairment: Impairment, seed: int, fabric: Fabric) -> None:
        self.wire = wire
        self.device = device
        self.port = port
        self.impairment = impairment
        self.blocked: frozenset[bytes] = frozenset()
        self._random = random.Random(seed)
        self._fabric = fabric
        self._waiting: deque[OnWire] = deque()
        self._passing: deque[OnWire] = deque()
        self._bad = False
        self._count = 0
        self._free_at = 0
        self._departures: deque[int] = deque()
        self._last_due = 0
        self._wake_at: int | None = None
        self.change(impairment)

    def change(self, impairment: Impairment) -> None:
        """From the next frame on, this."""
        self.impairment = impairment
        self._matches = compile_filter(impairment.match)
        self._plain = impairment.plain
        self._only_delays = impairment == Impairment(
            delay=impairment.delay, rate=impairment.rate, queue=impairment.queue
        )

    @property
    def plain(self) -> bool:
        """Whether it does nothing that a wire would not do."""
        return self._plain and self.empty and not self.blocked

    @property
    def empty(self) -> bool:
        """Whether nothing is on the wire in this direction."""
        return not self._waiting and not self._passing

    def send(self, packet: Packet, now: int) -> None:
        """A packet enters the lane."""
        if packet.offload is None:
            self._send_one(packet, now)
            return
        for frame in split(packet.frame, packet.offload):
            piece = packet.copy(frame)
            piece.offload = None
            self._send_one(piece, now)

    def carry(self, frame: bytes, hops: int, source: Replay, identity: int, now: int) -> bool:
        """A wire frame enters that the flow cache has repeated. False: nothing happened, it is to be sent.

        Whoever lets it in counts it (`count`), if it comes from no other wire.
        """
        if not self._only_delays or self.blocked:
            return False
        departs = self._depart(frame, now)
        if departs is None:
            return False
        self._count += 1
        due = departs + self.impairment.delay
        if due < self._last_due:
            due = self._last_due
        self._last_due = due
        self._waiting.append((due, frame, hops, None, source, identity))
        wake_at = self._wake_at
        if wake_at is None or due < wake_at:
            self._wake_at = due
            self._fabric.wake_lane(self, due)
        return True

    def count(self) -> None:
        """One more frame is on the wire."""
        self._fabric.put_on(1, 0)

    def wake(self, now: int) -> None:
        """Let what is due come off, in order."""
        if self._wake_at is None or now < self._wake_at:
            return  # an earlier appointment took this one's place
        self._wake_at = None
        waiting = self._waiting
        if not self._passing and waiting and (len(waiting) == 1 or waiting[1][0] > now):
            self._come_off(waiting.popleft(), True, now)  # the usual case, written out
            due = self.due()
        else:
            due = self._come_off_together(now)
        if due is not None:
            self._arm()
        elif self._plain and not self.blocked:
            self._fabric.retire(self)

    def _come_off_together(self, now: int) -> int | None:
        """All that is due, in order; when the next is."""
        alone = True
        due = self.due()
        while due is not None and due <= now:
            first = self._passing if self._passing and self._passing[0][0] == due else self._waiting
            frame = first.popleft()
            due = self.due()
            self._come_off(frame, alone and (due is None or due > now), now)
            alone = False
        return due

    def _come_off(self, on_wire: OnWire, alone: bool, now: int) -> None:
        """A frame comes off. With company it waits for its turn among what answers the others."""
        _, frame, hops, trace, source, identity = on_wire
        if alone and source and self._fabric.pass_on(source, self.device, self.port, frame, hops, identity, now):
            return
        packet = Packet(frame)
        packet.hops, packet.trace, packet.identity = hops, trace, identity
        self._fabric.come_off(self.device, self.port, packet, now)

    def __len__(self) -> int:
        """How many frames are on the wire in this direction."""
        return len(self._waiting) + len(self._passing)

    def loses(self, packet: Packet) -> Reason | None:
        """Why a frame is certain to end here, for those who only ask; None where it may pass."""
        impairment = self.impairment
        if packet.source in self.blocked:
            return Reason.WIRE_PARTITIONED
        if impairment.mtu and _carried(packet.frame) > impairment.mtu and packet.offload is None:
            return Reason.WIRE_TOO_LONG
        all_lost = impairment.loss >= 1.0 or impairment.every == 1
        return Reason.WIRE_LOST if all_lost and self._matches(packet.frame) else None

    def due(self) -> int | None:
        """When the next frame comes off (ns), or None."""
        if not self._passing:
            return self._waiting[0][0] if self._waiting else None
        first = self._passing[0][0]
        return min(first, self._waiting[0][0]) if self._waiting else first

    def _send_one(self, packet: Packet, now: int) -> None:
        impairment = self.impairment
        if self.blocked and packet.source in self.blocked:
            self._fabric.lose(self.wire, packet, Reason.WIRE_PARTITIONED, now)
            return
        if impairment.mtu and _carried(packet.frame) > impairment.mtu:
            self._fabric.lose(self.wire, packet, Reason.WIRE_TOO_LONG, now)
            return
        twice = overtakes = False
        if not impairment.match or self._matches(packet.frame):
            self._count += 1
            if self._lost(impairment):
                self._fabric.lose(self.wire, packet, Reason.WIRE_LOST, now)
                return
            if impairment.corrupt and self._random.random() < impairment.corrupt:
                packet = packet.copy(self._flip(packet.frame))
            twice = bool(impairment.duplicate) and self._random.random() < impairment.duplicate
            overtakes = bool(impairment.reorder) and self._random.random() < impairment.reorder
        for number, piece in enumerate([packet, packet.copy()] if twice else [packet]):
            departs = self._depart(piece.frame, now)
            if departs is None:
                if number == 0:
                    self._fabric.lose(self.wire, piece, Reason.WIRE_QUEUE_FULL, now)
                continue
            self._queue(piece, departs, now, overtakes)
            self._fabric.put_on(1, number)

    def _lost(self, impairment: Impairment) -> bool:
        lost = False
        if impairment.burst is not None:
            to_bad, to_good = impairment.burst
            chance = self._random.random()
            self._bad = chance >= to_good if self._bad else chance < to_bad
            lost = self._bad
        if impairment.loss and self._random.random() < impairment.loss:
            lost = True
        return lost or bool(impairment.every and self._count % impairment.every == 0)

    def _flip(self, frame: bytes) -> bytes:
        bit = int(self._random.random() * len(frame) * 8)
        at, mask = bit // 8, 1 << bit % 8
        return frame[:at] + bytes((frame[at] ^ mask,)) + frame[at + 1 :]

    def _depart(self, frame: bytes, now: int) -> int | None:
        """When the last bit is on the wire (ns), or None when too many wait for the rate."""
        rate = self.impairment.rate
        if not rate:
            return now
        departures = self._departures
        while departures and departures[0] <= now:
            departures.popleft()
        if len(departures) > self.impairment.queue:
            return None
        # 24 bytes a frame beside what we see: preamble, checksum and gap (IEEE 802.3 4.4.2).
        length = len(frame)
        bits = ((length if length > 60 else 60) + 24) * 8
        begins = self._free_at
        self._free_at = ends = (begins if begins > now else now) + bits * SECOND // rate
        departures.append(ends)
        return ends

    def _queue(self, packet: Packet, departs: int, now: int, overtakes: bool) -> None:
        impairment = self.impairment
        due = departs + impairment.delay
        if impairment.jitter:
            due = max(departs, due + int(self._deviation(impairment) * impairment.jitter))
        if overtakes:
            due = departs
            queue = self._passing
        else:
            due = max(due, self._last_due)
            self._last_due = due
            queue = self._waiting
        queue.append((due, packet.frame, packet.hops, packet.trace, None, packet.identity))
        self._arm()

    def _deviation(self, impairment: Impairment) -> float:
        """-1 to 1, or of a normal distribution: twelve draws have a variance of one, and no tail beyond 6."""
        draw = self._random.random
        if impairment.distribution == "uniform":
            return draw() * 2 - 1
        return sum([draw() for _ in range(12)]) - 6

    def _arm(self) -> None:
        due = self.due()
        if due is not None and (self._wake_at is None or due < self._wake_at):
            self._wake_at = due
            self._fabric.wake_lane(self, due)


def _carried(frame: bytes) -> int:
    """The bytes that an MTU counts: what is behind the Ethernet header and its tags (IEEE 802.1Q)."""
    header = ETHERNET_HEADER
    while frame[header - 2 : header] in (VLAN, VLAN_SERVICE):
        header += 4
    return len(frame) - header


__all__ = ["Impairment", "Lane"]
