"""Two captures of the same traffic, packet by packet: which are the same, and what happened between.

A packet is known again by its identity, where both captures are of one run of a lab; else by what
nothing on its way changes (`difference.View.mark`), the first with the first. Pieces of a datagram
match the datagram.

Rule of this file: times are compared as they were written; whose clock is right is not judged.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field

from emunet.packet.difference import View, changes, view
from emunet.packet.pcap import INBOUND, OUTBOUND, CapturedFrame


@dataclass(slots=True)
class Way:
    """The packets that went one way between the two captures.

    packets    how many
    delays     ns, in the order in which they came in
    reordered  how many came in behind one that was sent after them (RFC 4737 3.3)
    fragments  how many were cut into several on their way
    changes    what became of them: what -> how -> how many
    """

    packets: int = 0
    delays: list[int] = field(default_factory=list)
    reordered: int = 0
    fragments: int = 0
    changes: dict[str, Counter[str]] = field(default_factory=dict)

    def percentile(self, share: float) -> int:
        """The delay (ns) that this share of the packets does not exceed (nearest rank). It has at least one packet."""
        ranked = sorted(self.delays)
        return ranked[max(0, -(-int(share * len(ranked) * 1000) // 1000) - 1)]


@dataclass(slots=True)
class Comparison:
    """What two captures have in common, and what not.

    forth, back  from A to B, and from B to A
    only_a, only_b  what the other does not have
    by_identity  how many were known again by their identity
    """

    forth: Way = field(default_factory=Way)
    back: Way = field(default_factory=Way)
    only_a: list[CapturedFrame] = field(default_factory=list)
    only_b: list[CapturedFrame] = field(default_factory=list)
    by_identity: int = 0


@dataclass(slots=True)
class _Seen:
    place: int
    frame: CapturedFrame
    view: View


def compare(a: Iterable[CapturedFrame], b: Iterable[CapturedFrame], order: Sequence[CapturedFrame] = ()) -> Comparison:
    """Compare two captures, each of one place.

    `order`: all frames of the file that both are of, which tells what came first where no time passed between.
    """
    here, there = _seen(a), _seen(b)
    places = {id(frame): place for place, frame in enumerate(order)}

    def is_forth(pair: tuple[_Seen, _Seen]) -> bool:
        one, other = pair[0].frame, pair[1].frame
        if one.time_ns != other.time_ns:
            return one.time_ns < other.time_ns
        if places:
            return places[id(one)] < places[id(other)]
        # What goes out at a pod's port has not been anywhere else before; what comes in there goes nowhere from it.
        if ":" in one.interface and ":" not in other.interface:
            return other.direction != OUTBOUND
        return one.direction != INBOUND or (":" in one.interface and other.direction != OUTBOUND)

    result = Comparison()
    pairs = _pair(here, there, _identity)
    result.by_identity = len(pairs)
    pairs += _pair(here, there, lambda one: one.view.mark)
    cut = _cut(here, there), _cut(there, here)
    forth = [pair for pair in pairs if is_forth(pair)]
    back = [(other, one) for one, other in pairs if not is_forth((one, other))]
    _describe(result.forth, forth, cut[0])
    _describe(result.back, back, cut[1])
    result.only_a = [one.frame for one in here]
    result.only_b = [one.frame for one in there]
    return result


def _seen(frames: Iterable[CapturedFrame]) -> list[_Seen]:
    return [_Seen(place, frame, view(frame.data)) for place, frame in enumerate(frames)]


def _identity(one: _Seen) -> Hashable:
    """Which packet of which run; None where the file does not say."""
    frame = one.frame
    return (frame.section, frame.packet_id) if frame.packet_id and "run " in frame.section else None


def _pair(here: list[_Seen], there: list[_Seen], key: object) -> list[tuple[_Seen, _Seen]]:
    """Take those that are equal by a key out of both lists, the first with the first."""
    assert callable(key)
    waiting: dict[Hashable, deque[_Seen]] = {}
    for one in there:
        if (mark := key(one)) is not None:
            waiting.setdefault(mark, deque()).append(one)
    pairs = []
    for one in here:
        mark = key(one)
        if mark is not None and waiting.get(mark):
            pairs.append((one, waiting[mark].popleft()))
    taken = {id(one) for pair in pairs for one in pair}
    here[:] = [one for one in here if id(one) not in taken]
    there[:] = [one for one in there if id(one) not in taken]
    return pairs


def _cut(whole: list[_Seen], pieces: list[_Seen]) -> list[tuple[_Seen, _Seen]]:
    """Take datagrams that are whole on one side and in pieces on the other out of both lists: (datagram, its last)."""
    found: dict[Hashable, list[_Seen]] = {}
    for one in pieces:
        if one.view.fragment != (0, False) and one.view.datagram is not None:
            found.setdefault(one.view.datagram, []).append(one)
    pairs = []
    for one in list(whole):
        parts = found.get(one.view.datagram) if one.view.fragment == (0, False) else None
        if parts:
            pairs.append((one, parts[-1]))
            whole.remove(one)
            for part in found.pop(one.view.datagram):
                pieces.remove(part)
    return pairs


def _describe(way: Way, pairs: Sequence[tuple[_Seen, _Seen]], cut: Sequence[tuple[_Seen, _Seen]]) -> None:
    """Say what happened between the members of pairs, the sender's first."""
    way.packets = len(pairs) + len(cut)
    way.fragments = len(cut)
    latest = -1
    for sent, received in sorted([*pairs, *cut], key=lambda pair: pair[1].place):
        way.delays.append(received.frame.time_ns - sent.frame.time_ns)
        way.reordered += sent.place < latest
        latest = max(latest, sent.place)
    for sent, received in pairs:
        for what, how in changes(sent.view, received.view):
            way.changes.setdefault(what, Counter())[how] += 1
