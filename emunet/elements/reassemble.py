"""Reassemble: put fragments together before the connection table, which needs the ports (CT-05).

A place in a host's chain before `connections`, on every way in and for what the host
sends itself. A host that tracks nothing passes fragments as they are (FR-03). What is
put together leaves the device cut again as it came (`fragment`).

Facts kept (RFC 791 3.2, RFC 815, RFC 8200 4.5, RFC 5722; Linux's ip_fragment.c,
inet_fragment.c, nf_conntrack_reasm.c; fidelity FR-04 to FR-06): the key is source,
destination, identification and, for IPv4, protocol; any order is accepted; what was had
before is dropped alone, any other overlap ends the datagram; 30 s, for IPv6 60 s, after
the first fragment what there is ends, and its sender is told only where the datagram was
for this host and its first fragment is there; an IPv4 fragment that is no multiple of 8
long loses what is over, an IPv6 one ends its datagram and goes on for its receiver to
complain about; congestion marks join (RFC 3168
5.3), and a contradiction ends the datagram; DF counts if the largest fragment had it.
Memory is bounded by what it would cost the kernel; the datagram that waits longest
without a fragment makes room. (The kernel refuses new ones instead; and it gives up a
datagram after 64 others from the same source, which is not done here.)

Rule of this file: fragments wait as the frames they came in, queued by the law.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from emunet.elements.connections.flow import EXTENSIONS
from emunet.elements.errors import ErrorKind, Errors
from emunet.elements.interface import OwnAddresses
from emunet.elements.neighbor import buffer_cost
from emunet.packet import ipv4, ipv6
from emunet.packet.malformed import Malformed
from emunet.packet.view import ETHERNET_HEADER, Fragments, Packet
from emunet.plane.element import Element
from emunet.plane.reason import Reason
from emunet.plane.step import Output, Step, Verdict, consume, drop, forward
from emunet.plane.table import Advance, Counter, Delete, Put, Table, Watch
from emunet.plane.timers import Ring, Timers

SECOND = 1_000_000_000
TIMEOUTS = {4: 30 * SECOND, 16: 60 * SECOND}
MEMORY = 4 << 20
LONGEST = 65535
REASSEMBLY_EXCEEDED = ErrorKind("fragment reassembly time exceeded", (11, 1), (3, 1))

# What the ECN bits of fragments come to, by the set of values seen (bit n: value n): None contradicts itself.
CONGESTION: dict[int, int | None] = {0b1010: 3, 0b1100: 3, 0b1110: 3}
CONGESTION |= dict.fromkeys((0b0011, 0b0101, 0b0111, 0b1001, 0b1011, 0b1101, 0b1111), None)

Key = tuple[str, bytes, bytes, int, int]


@dataclass(frozen=True, slots=True)
class Piece:
    """One fragment: where its data stands in the datagram (bytes), and in its frame."""

    start: int
    end: int
    at: int
    packet: Packet

    @property
    def data(self) -> bytes:
        """The part of the datagram that it carries."""
        return self.packet.frame[self.at : self.at + self.end - self.start]


@dataclass(frozen=True, slots=True)
class Datagram:
    """What has come of one datagram, in the order it came. `length` is known once its last fragment was there.

    `runs` are the stretches (start, end) that came without a gap, one piece behind the other.
    """

    pieces: tuple[Piece, ...] = ()
    runs: tuple[tuple[int, int], ...] = ()
    highest: int = 0
    length: int | None = None

    @property
    def packets(self) -> tuple[Packet, ...]:
        """The fragments that wait."""
        return tuple(piece.packet for piece in self.pieces)

    @property
    def cost(self) -> int:
        """Bytes of kernel memory that they would cost."""
        return sum(buffer_cost(len(piece.packet.frame)) for piece in self.pieces)

    @property
    def whole(self) -> bool:
        """True when nothing is missing: runs do not overlap, so counting bytes is enough."""
        return self.length is not None and sum(end - start for start, end in self.runs) == self.length

    def __str__(self) -> str:
        held = sum(piece.end - piece.start for piece in self.pieces)
        return f"{len(self.pieces)} fragments, {held} of {self.length or 'unknown'} bytes"


class Reassemble(Element):
    """One per host. Input and output have the same name: the way the packet is on. And `error`."""

    def __init__(self, device: str, own: OwnAddresses, errors: Errors, watch: Watch, *, enabled: bool = False) -> None:
        """`enabled`: this host tracks connections."""
        self.name = "reassemble"
        self.device = device
        self.own = own
        self.errors = errors
        self.enabled = enabled
        self.table: Table[Key, Datagram] = Table("fragments", watch, 1 << 20)
        self.memory = Counter("fragment memory", modulus=1 << 62)
        self.timers: Timers[Key] = Timers()

    def state(self) -> Iterable[Table[Any, Any] | Counter]:
        """What waits, and its memory."""
        return (self.table, self.memory)

    def due(self) -> int:
        """When the next datagram is given up."""
        return self.timers.first()

    def handle(self, packet: Packet, port: str, now: int) -> Step:
        """Pass what is whole, keep what is a piece, join what is complete."""
        if not self.enabled:
            return forward(self.name, Reason.NOT_REASSEMBLED, port)
        way = port if port in ("routed", "output") else "bridged"
        try:
            found = _fragment_v4(packet, way) if packet.is_ipv4 else _fragment_v6(packet, way)
            if found is None:
                return forward(self.name, Reason.NOT_REASSEMBLED, port, {"fragments": None})
        except Malformed as problem:
            return drop(self.name, Reason.FRAGMENT_MALFORMED, problem=str(problem))
        key, piece, more = found
        datagram = self.table.get(key, now)
        if more and piece.end % 8:
            odd = {"problem": "a fragment is no multiple of 8 long"}
            step = self._end(key, datagram, Reason.REASSEMBLY_CONTRADICTION, odd)
            step.verdict, step.reason, step.outputs = Verdict.FORWARD, Reason.NOT_REASSEMBLED, (Output(port),)
            return step
        after = _with(datagram or Datagram(), piece, more)
        if after is None:
            return drop(self.name, Reason.FRAGMENT_DUPLICATE, identification=key[4])
        if isinstance(after, str):
            return self._end(key, datagram, Reason.REASSEMBLY_CONTRADICTION, {"problem": after})
        if not after.whole:
            return self._wait(key, datagram, after, piece, now)
        joined = _join_v4(after) if packet.is_ipv4 else _join_v6(after)
        if isinstance(joined, str):
            return self._end(key, datagram, Reason.REASSEMBLY_CONTRADICTION, {"problem": joined})
        frame, fragments = joined
        arguments = {"count": len(after.pieces), "length": len(frame) - ETHERNET_HEADER}
        step = self._end(key, datagram, Reason.REASSEMBLED, arguments)
        step.verdict = Verdict.FORWARD
        # An IPv6 datagram of a single fragment is whole (RFC 6946) and leaves as one.
        marks = {"fragments": fragments if len(after.pieces) > 1 else None}
        step.outputs = (Output(port, marks, frame),)
        step.settled = [(held, consume(self.name, step.reason, **step.arguments)) for held, _ in step.settled]
        return step

    def wake(self, now: int) -> Iterator[tuple[Packet | None, Step]]:
        """Give up what has waited too long."""
        for key in self.timers.pop(now):
            datagram = self.table.get(key, now)
            if datagram is None:
                continue
            effects = (Delete(self.table, key), Advance(self.memory, -datagram.cost))
            what = {"what": f"gives up on datagram {key[4]}"}
            yield None, Step(self.name, Verdict.CONSUME, Reason.TIMER, what, effects=effects)
            for piece in datagram.pieces:
                step = drop(self.name, Reason.REASSEMBLY_TIMEOUT, device=self.device, identification=key[4], sent="")
                if piece.start == 0 and self.own.owner(key[2]) is not None:
                    answer = self.errors.about(piece.packet, REASSEMBLY_EXCEEDED, now)
                    step.effects, step.emissions = answer.effects, answer.emissions
                    step.arguments["sent"] = answer.words
                yield piece.packet, step

    def _wait(self, key: Key, before: Datagram | None, after: Datagram, piece: Piece, now: int) -> Step:
        cost = buffer_cost(len(piece.packet.frame))
        effects: list[Any] = [Put(self.table, key, after), Advance(self.memory, cost)]
        if before is None:
            effects.append(Ring(self.timers, key, TIMEOUTS[len(key[1])]))
        settled: list[tuple[Packet, Step]] = []
        excess = self.memory.peek() + cost - MEMORY
        if excess > 0:
            for victim, datagram in self.table.items(now):
                if excess <= 0:
                    break
                if victim != key:
                    excess -= datagram.cost
                    gone = self._end(victim, datagram, Reason.REASSEMBLY_FULL, {"limit": MEMORY})
                    effects += gone.effects
                    settled += gone.settled
        return Step(
            self.name,
            Verdict.HOLD,
            Reason.FRAGMENT_WAITS,
            {"device": self.device, "identification": key[4], "start": piece.start, "end": piece.end},
            effects=effects,
            settled=settled,
        )

    def _end(self, key: Key, datagram: Datagram | None, reason: Reason, arguments: dict[str, Any]) -> Step:
        """A drop of this fragment with all that wait with it."""
        step = drop(self.name, reason, device=self.device, **arguments)
        if datagram is not None:
            step.effects = (Delete(self.table, key), Advance(self.memory, -datagram.cost), Ring(self.timers, key, None))
            step.settled = [
                (packet, drop(self.name, reason, device=self.device, **arguments)) for packet in datagram.packets
            ]
        return step


# Reading a fragment


def _fragment_v4(packet: Packet, way: str) -> tuple[Key, Piece, bool] | None:
    if not packet.is_fragment:
        return None
    frame = packet.whole("a fragment waits for others")
    at = ETHERNET_HEADER + packet.header_length
    more = bool(frame[20] & 0x20)
    start = packet.fragment_offset
    length = ETHERNET_HEADER + packet.ip_length - at
    end = start + (length & ~7 if more else length)
    if end <= start:
        raise Malformed("a fragment carries nothing")
    key = (way, packet.ip_source, packet.ip_destination, packet.protocol, frame[18] << 8 | frame[19])
    return key, Piece(start, end, at, packet), more


def _fragment_v6(packet: Packet, way: str) -> tuple[Key, Piece, bool] | None:
    if not packet.is_ipv6 or packet.protocol not in EXTENSIONS:
        return None
    whole = packet.ip_packet("it may be a fragment")
    place = ipv6.find_fragment(whole)
    if place is None:
        return None
    header = ipv6.FragmentHeader.parse(whole[place[0] :])
    at = ETHERNET_HEADER + place[0] + ipv6.FRAGMENT_HEADER_LENGTH
    end = header.offset + ETHERNET_HEADER + len(whole) - at
    if end <= header.offset:
        raise Malformed("a fragment carries nothing")
    if end > LONGEST:
        raise Malformed("a fragment reaches beyond the largest datagram")
    key = (way, packet.ip_source, packet.ip_destination, -1, header.identification)
    return key, Piece(header.offset, end, at, packet), header.more


def _with(datagram: Datagram, piece: Piece, more: bool) -> Datagram | str | None:
    """The datagram with one more piece; what is wrong with it together; or None: it had that already."""
    length, highest = datagram.length, datagram.highest
    if not more:
        if piece.end < highest or length not in (None, piece.end):
            return "its last fragment ends before others"
        length = highest = piece.end
    elif piece.end > highest:
        if length is not None:
            return "a fragment lies behind its last"
        highest = piece.end
    runs = list(datagram.runs)
    last = max((other.end for other in datagram.pieces), default=0)
    if piece.end > last or not runs:
        behind = max(datagram.pieces, key=lambda other: other.start, default=None)
        if behind is not None and piece.start < behind.end:
            return "two of its fragments overlap"
        if behind is not None and piece.start == behind.end:
            start, _ = runs[-1]
            runs[-1] = (start, piece.end)
        else:
            runs.append((piece.start, piece.end))
    else:
        for start, end in runs:
            if start <= piece.start and piece.end <= end:
                return None
            if piece.start < end and start < piece.end:
                return "two of its fragments overlap"
        runs.append((piece.start, piece.end))
        runs.sort()
    return replace(datagram, pieces=(*datagram.pieces, piece), runs=tuple(runs), highest=highest, length=length)


# Joining


def _joined(datagram: Datagram) -> tuple[list[Piece], int] | str:
    """The pieces in order, and the congestion mark that they come to."""
    pieces = sorted(datagram.pieces, key=lambda piece: piece.start)
    marks = 0
    for piece in pieces:
        marks |= 1 << (piece.packet.tos & 3)
    mark = CONGESTION.get(marks, 0)
    if mark is None:
        return "the congestion marks of its fragments contradict each other (RFC 3168 5.3)"
    return pieces, mark


def _join_v4(datagram: Datagram) -> tuple[bytes, Fragments] | str:
    found = _joined(datagram)
    if isinstance(found, str):
        return found
    pieces, mark = found
    first = pieces[0].packet
    head = first.frame[ETHERNET_HEADER : pieces[0].at]
    data = b"".join(piece.data for piece in pieces)
    if len(head) + len(data) > LONGEST:
        return "together its fragments are more than the largest datagram"
    sizes = [(piece.at - ETHERNET_HEADER + piece.end - piece.start, piece.packet.dont_fragment) for piece in pieces]
    largest = max(size for size, _ in sizes)
    header, _ = ipv4.IPv4.parse(first.frame[ETHERNET_HEADER:])
    whole = replace(
        header,
        tos=header.tos | mark,
        more_fragments=False,
        fragment_offset=0,
        dont_fragment=max((size for size, kept in sizes if kept), default=0) == largest,
    )
    shape = Fragments(tuple(len(piece.data) for piece in pieces), largest, len(head), 0, header.identification)
    return first.frame[:ETHERNET_HEADER] + whole.pack(data), shape


def _join_v6(datagram: Datagram) -> tuple[bytes, Fragments] | str:
    found = _joined(datagram)
    if isinstance(found, str):
        return found
    pieces, mark = found
    first = pieces[0].packet
    packet = first.frame[ETHERNET_HEADER:]
    place = ipv6.find_fragment(packet)
    assert place is not None  # it was found when the fragment came
    offset, pointer = place
    data = b"".join(piece.data for piece in pieces)
    if offset - ipv6.HEADER_LENGTH + len(data) > LONGEST:
        return "together its fragments are more than the largest datagram"
    head = bytearray(packet[:offset])
    head[pointer] = packet[offset]
    head[1] |= mark << 4
    head[4:6] = (offset - ipv6.HEADER_LENGTH + len(data)).to_bytes(2, "big")
    identification = int.from_bytes(packet[offset + 4 : offset + 8], "big")
    largest = max(piece.at - ETHERNET_HEADER + piece.end - piece.start for piece in pieces)
    shape = Fragments(tuple(len(piece.data) for piece in pieces), largest, offset, pointer, identification)
    return first.frame[:ETHERNET_HEADER] + bytes(head) + data, shape
