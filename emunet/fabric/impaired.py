"""Impairment: what goes wrong on a wire, per direction, decided by the wire's own seed.

A lane is one direction of a wire with an impairment. Every frame that enters it is
drawn for in the same fixed order, with `random()` alone (whose numbers are the same in
every Python), so the same seed loses the same frames. Frames keep their order on a
lane unless `reorder` lets one pass; what is on the wire keeps its due time when the
settings change (tc-netem(8) has the same words for the same things).

What is impaired is cut first: a superframe is lost, delayed and counted by wire frames.

Rule of this file: an element never learns of any of this.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from emunet.packet.offload import split
from emunet.packet.view import Packet
from emunet.plane.reason import Reason

SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Impairment:
    """Settings of one direction. All zero is a plain wire.

    delay, jitter  ns; each frame takes delay plus or minus up to jitter (uniform)
    loss           share of frames lost, 0 to 1
    burst          (p, r): Gilbert-Elliott, chance to go bad and to go good again; bad loses all
    every          lose every n-th frame; 0: none
    duplicate      share of frames that arrive twice
    reorder        share of frames that are sent at once, past those that wait
    corrupt        share of frames with one bit flipped
    rate           bits a second on the wire (whole frames); 0: no limit
    queue          frames that may wait for the rate; more are dropped from the tail
    """

    delay: int = 0
    jitter: int = 0
    loss: float = 0.0
    burst: tuple[float, float] | None = None
    every: int = 0
    duplicate: float = 0.0
    reorder: float = 0.0
    corrupt: float = 0.0
    rate: int = 0
    queue: int = 1000

    def __post_init__(self) -> None:
        for name in ("loss", "duplicate", "reorder", "corrupt"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is a share of all frames: 0 to 1 (or 0% to 100%), not {getattr(self, name)}")
        for name in ("delay", "jitter", "every", "rate"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} cannot be negative")
        if self.jitter > self.delay:
            raise ValueError("jitter cannot be larger than delay: a frame would arrive before it was sent")
        if self.queue < 1:
            raise ValueError("queue must hold at least one frame")

    @property
    def plain(self) -> bool:
        """Whether nothing is impaired."""
        return self == Impairment(queue=self.queue)


class Fabric(Protocol):
    """What a lane needs of the World."""

    def come_off(self, device: str, port: str, packet: Packet, now: int) -> None:
        """A packet comes off the wire."""
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


class Lane:
    """One direction of a wire under an impairment: towards `device`, `port`."""

    def __init__(self, wire: str, device: str, port: str, impairment: Impairment, seed: int, fabric: Fabric) -> None:
        self.wire = wire
        self.device = device
        self.port = port
        self.impairment = impairment
        self._random = random.Random(seed)
        self._fabric = fabric
        self._waiting: deque[tuple[int, Packet]] = deque()
        self._passing: deque[tuple[int, Packet]] = deque()
        self._bad = False
        self._count = 0
        self._free_at = 0
        self._departures: deque[int] = deque()
        self._last_due = 0
        self._wake_at: int | None = None

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

    def wake(self, now: int) -> None:
        """Let what is due come off, in order."""
        if self._wake_at is None or now < self._wake_at:
            return  # an earlier appointment took this one's place
        self._wake_at = None
        for queue in (self._passing, self._waiting):
            while queue and queue[0][0] <= now:
                _, packet = queue.popleft()
                self._fabric.come_off(self.device, self.port, packet, now)
        self._arm()

    def due(self) -> int | None:
        """When the next frame comes off (ns), or None."""
        heads = [queue[0][0] for queue in (self._passing, self._waiting) if queue]
        return min(heads) if heads else None

    def _send_one(self, packet: Packet, now: int) -> None:
        impairment = self.impairment
        self._count += 1
        if self._lost(impairment):
            self._fabric.lose(self.wire, packet, Reason.WIRE_LOST, now)
            return
        if impairment.corrupt and self._random.random() < impairment.corrupt:
            packet = packet.copy(self._flip(packet.frame))
        twice = bool(impairment.duplicate) and self._random.random() < impairment.duplicate
        overtakes = bool(impairment.reorder) and self._random.random() < impairment.reorder
        for number, piece in enumerate([packet, packet.copy()] if twice else [packet]):
            departs = self._depart(piece, now)
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

    def _depart(self, packet: Packet, now: int) -> int | None:
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
        bits = (max(len(packet.frame), 60) + 24) * 8
        self._free_at = max(self._free_at, now) + bits * SECOND // rate
        departures.append(self._free_at)
        return self._free_at

    def _queue(self, packet: Packet, departs: int, now: int, overtakes: bool) -> None:
        impairment = self.impairment
        due = departs + impairment.delay
        if impairment.jitter:
            due += int((self._random.random() * 2 - 1) * impairment.jitter)
        if overtakes:
            due = departs
            queue = self._passing
        else:
            due = max(due, self._last_due)
            self._last_due = due
            queue = self._waiting
        queue.append((due, packet))
        self._arm()

    def _arm(self) -> None:
        due = self.due()
        if due is not None and (self._wake_at is None or due < self._wake_at):
            self._wake_at = due
            self._fabric.wake_lane(self, due)
