"""Reassembly of fragments (RFC 791 3.2, RFC 815; IPv6: RFC 8200 4.5, RFC 5722; fidelity FR-05, FR-06).

Rule of this file: memory is bounded in datagrams and in bytes, the oldest goes
first; what only repeats is ignored, any other overlap drops the datagram.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field, replace

from emunet.elements.endpoint.network import SECOND
from emunet.packet.ipv4 import IPv4
from emunet.packet.ipv6 import FRAGMENT_HEADER_LENGTH, HEADER_LENGTH, FragmentHeader, IPv6, find_fragment
from emunet.packet.malformed import Malformed

TIMEOUT_V4 = 30 * SECOND
TIMEOUT_V6 = 60 * SECOND
MAXIMUM_DATAGRAMS = 64
MAXIMUM_MEMORY = 4 << 20
_OVERHEAD = 256

Key = tuple[bytes, bytes, int, int]


@dataclass(slots=True)
class _Datagram:
    """What has come of one datagram; `pieces` are (start, data), sorted, without gaps only once it is whole."""

    deadline: int
    pieces: list[tuple[int, bytes]] = field(default_factory=list)
    length: int | None = None
    held: int = 0
    memory: int = 0
    first: bytes = b""

    def add(self, start: int, data: bytes, more: bool) -> bool:
        """Add a piece; False if it cannot belong to the same datagram as what is there."""
        end = start + len(data)
        if not more:
            if self.length not in (None, end):
                return False
            self.length = end
        if self.length is not None and end > self.length:
            return False
        if self._is_here(start, end):
            return True
        at = bisect_left(self.pieces, (start, b""))
        if at < len(self.pieces) and self.pieces[at][0] < end:
            return False
        if at and self.pieces[at - 1][0] + len(self.pieces[at - 1][1]) > start:
            return False
        self.pieces.insert(at, (start, data))
        self.held += len(data)
        self.memory += len(data) + _OVERHEAD
        # A piece beyond the end may have come before the end was known.
        last_start, last = self.pieces[-1]
        return self.length is None or last_start + len(last) <= self.length

    def _is_here(self, start: int, end: int) -> bool:
        """Whether all of it came before, be it in several pieces (inet_frag_queue_insert)."""
        covered = start
        for piece, data in self.pieces:
            if piece > covered:
                break
            covered = max(covered, piece + len(data))
        return covered >= end

    @property
    def whole(self) -> bool:
        """True when nothing is missing: pieces do not overlap, so counting bytes is enough."""
        return self.length is not None and self.held == self.length


class UnevenFragment(Malformed):
    """An IPv6 fragment, not the last, of a length that is no multiple of 8: told by 4/0 (RFC 8200 4.5)."""


class Reassembler:
    """Collects fragments until datagrams are whole. `due` is the earliest timeout."""

    def __init__(self) -> None:
        self.due: int | None = None
        self.queued: int | None = None
        self.expired: list[bytes] = []
        """First fragments (as packets) of datagrams that were given up; the stack takes them for its errors."""
        self._datagrams: dict[Key, _Datagram] = {}
        self._memory = 0

    def receive(self, packet: bytes, now: int) -> bytes | None:
        """A fragment (a whole IP packet, without padding) -> the datagram as one packet if it completes it.

        Malformed for a fragment that can belong to no datagram (FR-06), UnevenFragment for an IPv6 one whose sender
        must be told. Of an IPv4 piece whose length is no multiple of 8 the rest is cut off, as Linux does.
        """
        if packet[0] >> 4 == 4:
            header, data = IPv4.parse(packet)
            key: Key = (header.src, header.dst, header.identification, header.protocol)
            start, more, timeout = header.fragment_offset, header.more_fragments, TIMEOUT_V4
            head_length = header.header_length
        else:
            ip, payload = IPv6.parse(packet)
            place = find_fragment(packet)
            if place is None:
                raise Malformed("an IPv6 packet without a fragment header is no fragment")
            fragment = FragmentHeader.parse(packet[place[0] :])
            data = payload[place[0] + FRAGMENT_HEADER_LENGTH - HEADER_LENGTH :]
            key = (ip.src, ip.dst, fragment.identification, -1)
            start, more, timeout = fragment.offset, fragment.more, TIMEOUT_V6
            head_length = place[0] - HEADER_LENGTH
            if start == 0 and not more:
                return _join_v6(packet, data)
        if more and len(data) % 8:
            if packet[0] >> 4 == 6:
                raise UnevenFragment("a fragment other than the last has a length that is no multiple of 8")
            data = data[: len(data) & ~7]
        if not data:
            raise Malformed("a fragment without data")
        if head_length + start + len(data) > 65535:
            raise Malformed("a fragment reaches beyond the largest datagram")
        return self._add(key, packet, start, data, more, now + timeout)

    def _add(self, key: Key, packet: bytes, start: int, data: bytes, more: bool, deadline: int) -> bytes | None:
        datagram = self._datagrams.get(key)
        if datagram is None:
            if len(self._datagrams) >= MAXIMUM_DATAGRAMS:
                self._forget(next(iter(self._datagrams)))
            datagram = self._datagrams[key] = _Datagram(deadline)
        before = datagram.memory
        fits = datagram.add(start, data, more)
        self._memory += datagram.memory - before
        if start == 0 and not datagram.first:
            datagram.first = packet
        if fits and not datagram.whole:
            while self._memory > MAXIMUM_MEMORY:
                self._forget(next(iter(self._datagrams)))
            self._reschedule()
            return None
        self._forget(key)
        self._reschedule()
        if not fits:
            return None
        joined = b"".join(data for _, data in datagram.pieces)
        return _join_v4(datagram.first, joined) if packet[0] >> 4 == 4 else _join_v6(datagram.first, joined)

    def wake(self, now: int) -> list[bytes]:
        """Give up what is too old; `expired` then holds first fragments. No frames."""
        for key in [key for key, datagram in self._datagrams.items() if datagram.deadline <= now]:
            first = self._datagrams[key].first
            if first:
                self.expired.append(first)
            self._forget(key)
        self._reschedule()
        return []

    def _forget(self, key: Key) -> None:
        self._memory -= self._datagrams.pop(key).memory

    def _reschedule(self) -> None:
        self.due = min((datagram.deadline for datagram in self._datagrams.values()), default=None)


def _join_v4(first: bytes, data: bytes) -> bytes | None:
    """The first fragment's header around the whole data; None if that is more than a packet can hold."""
    header, _ = IPv4.parse(first)
    if header.header_length + len(data) > 65535:
        return None
    return replace(header, more_fragments=False, fragment_offset=0).pack(data)


def _join_v6(first: bytes, data: bytes) -> bytes | None:
    """The first fragment's headers, the fragment header taken out, around the whole data."""
    place = find_fragment(first)
    if place is None or place[0] - HEADER_LENGTH + len(data) > 65535:
        return None
    offset, pointer = place
    head = bytearray(first[:offset])
    head[pointer] = first[offset]
    head[4:6] = (offset - HEADER_LENGTH + len(data)).to_bytes(2, "big")
    return bytes(head) + data
