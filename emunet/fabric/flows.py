"""The flow cache: decide once, repeat cheaply.

The slow path explains; the fast path repeats. A run of one frame over plain wires is
fused into a Replay: which bytes differ, how checksums follow, where it comes out,
what is counted. The next frame with the same key costs a dictionary look-up and a
rewrite of the header.

What makes it safe:
- *Validity is pushed.* The run notes every entry and every absence that it leaned on;
  whoever changes one deletes the Replay (`plane.table`).
- *A deadline.* The earliest time at which anything it leaned on changes by itself.
- *Fields.* All that elements read is in the key, or guarded at each hit (lengths,
  checksum, TCP flags, the largest frame), or the packet is marked and never cached.
- *Effects.* Only runs whose effects are uses (of a station, of an identification
  counter) are fused; a hit notes its time and count, and tables and ledgers see both
  before anything ages or is read.
- *Removable.* Without it everything is the same, except speed.

Read `compile` for what is refused, with its reason; `refused` counts them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Any

from emunet.fabric.capture import Record, Sink
from emunet.fabric.edge import Edge
from emunet.fabric.wire import WireExit
from emunet.packet.edit import Adjust, AdjustTransport, Complete, Edit, Encapsulation, Pop, Push, Put, Trim
from emunet.packet.offload import Offload, split
from emunet.packet.view import ETHERNET_HEADER, Packet
from emunet.plane.device import Device
from emunet.plane.ledger import Ledger
from emunet.plane.reason import Reason
from emunet.plane.step import Step, Verdict
from emunet.plane.table import NEVER, Advance, Counter, Refresh, Source, Watch

CAPACITY = 65536

# Ethernet header, version/IHL and TOS | total length | identification | fragment bits, TTL,
# protocol | header checksum | addresses and ports. One call splits a frame into key and guards
# (0.25 µs; three slices joined: 0.39 µs).
V4 = Struct(">16sHH4sH12s")
V6 = Struct(">18sH38s")
V4_START = b"\x08\x00\x45"
V6_START = b"\x86\xdd"
V4_LENGTH = 38
V6_LENGTH = 58
KEYED_V4 = ((0, 16), (20, 24), (26, 38))
KEYED_V6 = ((0, 18), (20, 58))
TCP = 6
UDP = 17
STEERING_FLAGS = 0x07
DECIDED_BY_SIZE = frozenset({Reason.OVERSIZED, Reason.TOO_BIG})
WRAPPED_V4 = ETHERNET_HEADER + 20 + 8 + 8
WRAPPED_V6 = ETHERNET_HEADER + 40 + 8 + 8

Key = tuple[bytes, ...]


def key_of(frame: bytes, tunnels: frozenset[bytes] = frozenset()) -> Key | None:
    """The flow key of a frame, or None for a kind that is never cached.

    Never: anything but IPv4 without options and IPv6 with TCP, UDP or ICMP echo; fragments.
    What goes to a UDP port of `tunnels` has the VXLAN header and the inner frame in its key too.
    """
    if frame[12:15] == V4_START and len(frame) >= V4_LENGTH:
        head, _, _, middle, _, tail = V4.unpack_from(frame)
        if middle[0] & 0x3F or middle[1]:
            return None
        protocol = middle[3]
        if protocol == UDP and tail[10:] in tunnels:
            inner = key_of(frame[WRAPPED_V4:])
            return None if inner is None else (head, middle, tail, frame[42:WRAPPED_V4], *inner)
        if protocol in (TCP, UDP):
            return (head, middle, tail)
        if protocol == 1 and len(frame) >= V4_LENGTH + 4 and tail[8] in (0, 8):
            return (head, middle, tail[:10], frame[38:40])
        return None
    if frame[12:14] == V6_START and len(frame) >= V6_LENGTH:
        head, _, tail = V6.unpack_from(frame)
        protocol = tail[0]
        if protocol == UDP and tail[36:] in tunnels:
            inner = key_of(frame[WRAPPED_V6:])
            return None if inner is None else (head, tail, frame[62:WRAPPED_V6], *inner)
        if protocol in (TCP, UDP):
            return (head, tail)
        if protocol == 58 and len(frame) >= V6_LENGTH + 4 and tail[34] in (128, 129):
            return (head, tail[:36], frame[58:60])
    return None


@dataclass(frozen=True, slots=True)
class Transport:
    """A correction of the transport checksum: offset in the frame, and the differences."""

    offset: int
    optional: bool
    changes: tuple[AdjustTransport, ...]


@dataclass(frozen=True, slots=True)
class Wrap:
    """A header that the run puts in front and that stays: its builder, the MACs of its link, whose identifications."""

    recipe: Encapsulation
    macs: bytes
    counter: Counter

    def around(self, inner: bytes, back: int = 1) -> bytes:
        """The wrapped frame. The hit took the identifications: this one is `back` before the next."""
        return self.macs + self.recipe.header(inner, self.counter.peek(-back))[12:] + inner


def unwrapped(frame: bytes, length: int) -> bytes | None:
    """The inner frame of a VXLAN frame whose outer headers (`length` bytes) are sound; None when they are not."""
    size = len(frame)
    if length == WRAPPED_V4:
        if frame[16] << 8 | frame[17] != size - ETHERNET_HEADER or int.from_bytes(frame[14:34], "big") % 65535:
            return None
        segment, addresses = frame[34:], frame[26:34]
    else:
        if frame[18] << 8 | frame[19] != size - 54:
            return None
        segment, addresses = frame[54:], frame[22:54]
    if segment[4] << 8 | segment[5] != len(segment):
        return None
    if segment[6] or segment[7]:
        total = int.from_bytes(segment, "big")
        if len(segment) & 1:
            total <<= 8
        if (total + int.from_bytes(addresses, "big") + UDP + len(segment)) % 65535:
            return None
    elif length != WRAPPED_V4:
        return None
    return frame[length:]


class Rewrite:
    """What a run, or its beginning, does to the bytes of a frame.

    same    the inner headers stay as they are
    unwrap  bytes that are taken off first, 0 for none
    wrap    what is left in front, or None
    """

    __slots__ = ("head", "is_v4", "middle", "new_sum", "same", "tail", "transport", "unwrap", "wrap")

    def __init__(self) -> None:
        self.is_v4 = True
        self.same = False
        self.head = b""
        self.middle = b""
        self.tail = b""
        self.new_sum = 0
        self.transport: Transport | None = None
        self.unwrap = 0
        self.wrap: Wrap | None = None

    def apply(self, buffer: bytearray, start: int, offload: Offload | None) -> None:
        """Rewrite the headers in place. Nothing is wrapped or unwrapped, and the frame was found to fit."""
        if self.same:
            return
        if self.transport is not None:
            self.correct_transport(buffer, start, partial=offload is not None)
        if self.is_v4:
            _, total, identification, _, _, tail = V4.unpack_from(buffer, start)
            V4.pack_into(
                buffer,
                start,
                self.head,
                total,
                identification,
                self.middle,
                -(self.new_sum + total + identification) % 65535,
                self.tail or tail,
            )
        else:
            buffer[start : start + 18] = self.head
            buffer[start + 20 : start + 20 + len(self.tail)] = self.tail

    def rewritten(self, frame: bytes, offload: Offload | None) -> bytes:
        """The frame as it is at this point. It was found to fit, and was hit.

        What is wrapped has nothing left open: the caller completes and cuts it first.
        """
        if self.unwrap:
            frame = frame[self.unwrap :]
        if not self.same:
            frame = self._headers(frame, offload)
        return frame if self.wrap is None else self.wrap.around(frame)

    def wire_frames(self, frame: bytes, offload: Offload | None) -> list[bytes]:
        """As `rewritten`, cut and completed: what somebody who watches this point sees."""
        if offload is None:
            return [self.rewritten(frame, None)]
        inner = list(split(frame if self.same else self._headers(frame, offload), offload))
        if self.wrap is None:
            return inner
        return [self.wrap.around(piece, len(inner) - number) for number, piece in enumerate(inner)]

    def correct_transport(self, buffer: bytearray, start: int, *, partial: bool) -> None:
        """Correct the transport checksum for what is translated, complete or left open."""
        transport = self.transport
        assert transport is not None
        at = start + transport.offset
        frame = bytes(buffer[at : at + 2])
        for change in transport.changes:
            moved = AdjustTransport(0, change.old, change.new, change.pseudo, transport.optional)
            frame = moved.apply(frame, partial)
        buffer[at : at + 2] = frame

    def _headers(self, frame: bytes, offload: Offload | None) -> bytes:
        if self.is_v4 and self.transport is None:
            _, total, identification, _, _, tail = V4.unpack_from(frame)
            checksum = -(self.new_sum + total + identification) % 65535
            return (
                V4.pack(self.head, total, identification, self.middle, checksum, self.tail or tail) + frame[V4_LENGTH:]
            )
        buffer = bytearray(frame)
        self.apply(buffer, 0, offload)
        return bytes(buffer)


@dataclass(frozen=True, slots=True)
class View:
    """A watched point of a run: who watches, and what a frame looks like there."""

    port: str
    inbound: bool
    sinks: list[Sink]
    rewrite: Rewrite


class Replay(Rewrite):
    """A fused run.

    used     lab time of the last hit (ns)
    frames   wire frames hit since the last credit; refused: of them, not taken by the edge
    edge     where it comes out; or else `wire`, which it goes onto after `hops` more devices; or
             neither, for a run that ends in a drop
    watched  somebody watches a port on its way; views: where, after the entry
    told     whose record is told of a loss on the wire: 0 the entry's, else that of a view; or None
    """

    __slots__ = (
        "advances",
        "alive",
        "cache",
        "credits",
        "deadline",
        "drop",
        "drop_figures",
        "edge",
        "edge_figures",
        "frames",
        "guard_flags",
        "hops",
        "key",
        "limit",
        "old_sum",
        "refused",
        "sources",
        "table",
        "told",
        "used",
        "views",
        "watched",
        "wire",
    )

    def __init__(self, cache: FlowCache, table: dict[Key, Replay], key: Key) -> None:
        super().__init__()
        self.cache = cache
        self.table = table
        self.key = key
        self.alive = True
        self.used = 0
        self.frames = 0
        self.refused = 0
        self.deadline = NEVER
        self.limit = 1 << 20
        self.guard_flags = False
        self.old_sum = 0
        self.edge: Edge | None = None
        self.wire: WireExit | None = None
        self.hops = 0
        self.watched = False
        self.views: list[View] = []
        self.told: int | None = None
        self.edge_figures: Ledger | None = None
        self.drop: Reason | None = None
        self.drop_figures: Ledger | None = None
        self.credits: list[tuple[Ledger, str]] = []
        self.advances: list[tuple[Counter, int]] = []
        self.sources: list[tuple[Source, Any]] = []

    def fits(self, frame: Any, start: int, length: int, offload: Offload | None, now: int) -> bool:
        """Whether this frame (at `start` in a buffer, `length` bytes) is one that the run answers for."""
        if now >= self.deadline:
            self.invalidate("its time is over")
            return False
        if length > self.limit and (offload is None or offload.largest(length) > self.limit):
            return False
        if self.unwrap:
            inner = unwrapped(frame, self.unwrap) if offload is None else None
            if inner is None:
                return False
            frame, start, length = inner, 0, length - self.unwrap
        if self.is_v4:
            _, total, identification, _, checksum, _ = V4.unpack_from(frame, start)
            if total != length - ETHERNET_HEADER or (self.old_sum + total + identification + checksum) % 65535:
                return False
            return not self.guard_flags or not frame[start + 47] & STEERING_FLAGS
        total = frame[start + 18] << 8 | frame[start + 19]
        if total != length - 54:
            return False
        return not self.guard_flags or not frame[start + 67] & STEERING_FLAGS

    def hit(self, frames: int, now: int) -> None:
        """Note a hit of `frames` wire frames.

        Ledgers are credited later; a counter of identifications moves at once, because
        the next packet that is not cached reads it.
        """
        self.used = now
        self.frames += frames
        for counter, by in self.advances:
            counter.advance(by * frames)

    def credit(self) -> None:
        """Write what was hit into ledgers."""
        frames, self.frames = self.frames, 0
        refused, self.refused = self.refused, 0
        if not frames:
            return
        self.cache.hits += frames
        for figures, name in self.credits:
            setattr(figures, name, getattr(figures, name) + frames)
        world = self.edge_figures
        if world is not None:
            if self.drop is not None:
                world.drop(self.drop, frames)
                if self.drop_figures is not None:
                    self.drop_figures.drop(self.drop, frames)
            else:
                world.delivered += frames - refused
                if refused:
                    world.drop(Reason.EDGE_FULL, refused)

    def invalidate(self, why: str) -> None:
        """Never be used again; what was hit is credited."""
        if not self.alive:
            return
        self.alive = False
        self.credit()
        if self.table.get(self.key) is self:
            del self.table[self.key]
            self.cache.size -= 1
        self.cache.invalidated[why] = self.cache.invalidated.get(why, 0) + 1
        for source, key in self.sources:
            source.detach(key, self)
        self.sources = []


class Recording:
    """One run being recorded: what goes in and how it ends.

    admitted  it came from an edge, not off a wire
    record    what a watcher of its entry was shown, or None
    views     rows of (steps until then, record, frame) where somebody watches on its way
    """

    __slots__ = ("admitted", "broken", "end", "frame", "hops", "key", "offload", "record", "table", "views")

    def __init__(self, table: dict[Key, Replay], key: Key, packet: Packet) -> None:
        self.table = table
        self.key = key
        self.frame = packet.frame
        self.offload = packet.offload
        self.admitted = packet.hops == 0
        self.record: Record | None = packet.record
        self.views: list[tuple[int, Record, bytes]] = []
        self.end: tuple[Edge | WireExit, Packet] | None = None
        self.hops = packet.hops
        self.broken = ""


class FlowCache:
    """All Replays of a World, by the place where a frame enters."""

    def __init__(self, watch: Watch, enabled: bool = True) -> None:
        self.enabled = enabled
        self.size = 0
        self.hits = 0
        self.misses = 0
        self.refused: dict[str, int] = {}
        self.invalidated: dict[str, int] = {}
        self._watch = watch
        self._tables: dict[tuple[str, str], dict[Key, Replay]] = {}

    def table(self, device: str, entry: str) -> dict[Key, Replay]:
        """The Replays that begin at a device's entry."""
        found = self._tables.get((device, entry))
        if found is None:
            found = self._tables[device, entry] = {}
        return found

    def clear(self, why: str) -> None:
        """Delete every Replay: something changed that no table tells of."""
        for table in self._tables.values():
            for replay in list(table.values()):
                replay.invalidate(why)

    def settle(self) -> None:
        """Credit every hit, so that ledgers and counters can be read."""
        for table in self._tables.values():
            for replay in table.values():
                if replay.frames:
                    replay.credit()

    def begin(self, table: dict[Key, Replay], key: Key, packet: Packet) -> Recording:
        """From here the walk notes what it does."""
        self._watch.leaned = []
        self._watch.steps = []
        return Recording(table, key, packet)

    def finish(self, recording: Recording, world_figures: Ledger, now: int) -> None:
        """The run has ended: fuse it, or note why not."""
        leaned, steps = self._watch.leaned or [], self._watch.steps or []
        self._watch.leaned = self._watch.steps = None
        self.misses += 1
        try:
            replay = self._compile(recording, steps, world_figures, now)
        except Unfusable as why:
            reason = str(why)
            self.refused[reason] = self.refused.get(reason, 0) + 1
            return
        refreshed = {
            (id(effect.table), effect.key) for _, step, _ in steps for effect in step.effects if isinstance(effect, Refresh)
        }
        seen: dict[tuple[int, Any], tuple[Source, Any, bool]] = {}
        for source, key, deadline, ages in leaned:
            refreshes = (id(source), key) in refreshed
            if deadline < replay.deadline and not (ages and refreshes):
                replay.deadline = deadline
            seen[id(source), key] = (source, key, refreshes)
        if replay.deadline <= now:
            return
        if self.size >= CAPACITY:
            self.clear("the cache is full")
        for source, key, refreshes in seen.values():
            source.attach(key, replay, refreshes)
            replay.sources.append((source, key))
        recording.table[recording.key] = replay
        self.size += 1

    def _compile(
        self, recording: Recording, steps: Sequence[tuple[Device, Step, Packet]], world_figures: Ledger, now: int
    ) -> Replay:
        if recording.broken:
            raise Unfusable(recording.broken)
        if not steps:
            raise Unfusable("nothing was decided")
        replay = Replay(self, recording.table, recording.key)
        replay.used = now
        fused = _Fused(recording.frame)
        devices: list[Device] = []
        views = list(recording.views)
        for number, (device, step, packet) in enumerate(steps):
            while views and views[0][0] <= number:
                replay.views.append(fused.view(*views.pop(0)[1:], replay.advances))
            if packet.unkeyed:
                raise Unfusable(packet.unkeyed)
            if not devices or devices[-1] is not device:
                devices.append(device)
            last = step is steps[-1][1]
            fused.take(step, last)
            for effect in step.effects:
                if isinstance(effect, Advance):
                    replay.advances.append((effect.counter, effect.by))
        replay.views += [fused.view(*row[1:], replay.advances) for row in views]
        final = steps[-1][1]
        if final.verdict is Verdict.DROP:
            if final.reason in DECIDED_BY_SIZE:
                raise Unfusable("its size decides")
            if recording.record is not None or replay.views:
                raise Unfusable("a drop that is written into a capture")
            replay.drop = final.reason
            replay.drop_figures = steps[-1][0].figures
        elif recording.end is None:
            raise Unfusable("it came out nowhere")
        else:
            end, packet = recording.end
            if isinstance(end, WireExit):
                replay.wire = end
                replay.hops = packet.hops - recording.hops
                shown = [recording.record, *(row[1] for row in recording.views)]
                replay.told = next((n for n, record in enumerate(shown) if record is packet.record), None)
            else:
                replay.edge = end
            fused.write(replay, packet.frame, replay.advances)
        replay.old_sum = fused.old_sum
        replay.limit = fused.limit
        replay.watched = recording.record is not None or bool(replay.views)
        if not replay.fits(recording.frame, 0, len(recording.frame), recording.offload, now):
            # What it was decided by lies outside the key: a bad checksum, a wrong length.
            raise Unfusable("the frame is not sound")
        replay.edge_figures = None if replay.wire is not None else world_figures
        if recording.admitted:
            replay.credits.append((world_figures, "received"))
        for device in devices:
            replay.credits.append((device.figures, "received"))
            if device is not devices[-1] or replay.drop is None:
                replay.credits.append((device.figures, "delivered"))
        return replay


class Unfusable(Exception):
    """Why a run is not repeated from the cache, in a few words."""


class _Fused:
    """Edits of a run, composed: what is pushed and popped again cancels out."""

    def __init__(self, frame: bytes) -> None:
        self.frame = frame
        self.limit = 1 << 20
        self.pushed: list[Push] = []
        self.popped = 0
        self._look()

    def _look(self) -> None:
        frame = self.frame
        self.is_v4 = frame[12:14] == b"\x08\x00"
        self.transport: list[AdjustTransport] = []
        protocol = frame[23] if self.is_v4 else frame[20]
        start = 34 if self.is_v4 else 54
        self.transport_at = start + (16 if protocol == TCP else 6)
        self.is_udp = protocol == UDP
        self.is_tcp = protocol == TCP

    @property
    def _depth(self) -> int:
        """Bytes in front of the frame that it is about, now."""
        return sum(len(push.data) for push in self.pushed)

    def take(self, step: Step, last: bool) -> None:
        """Compose one step."""
        if step.verdict is Verdict.DROP and last:
            if step.emissions or step.settled:
                raise Unfusable("a drop that tells somebody")
        elif step.verdict is not Verdict.FORWARD:
            raise Unfusable(f"it ends as {step.verdict.value}")
        elif len(step.outputs) != 1 or step.outputs[0].frame is not None:
            raise Unfusable("it makes copies")
        elif step.emissions or step.settled:
            raise Unfusable("an element speaks")
        if any(not isinstance(effect, (Refresh, Advance)) for effect in step.effects):
            raise Unfusable("it changes a table")
        if step.limit is not None:
            self.limit = min(self.limit, step.limit - self._depth + self.popped)
        for edit in step.edits:
            self._edit(edit)

    def _edit(self, edit: Edit) -> None:
        depth = self._depth
        if isinstance(edit, Push):
            self.pushed.append(edit)
        elif isinstance(edit, Pop):
            if self.pushed and len(self.pushed[-1].data) == edit.length:
                self.pushed.pop()
            elif not self.pushed and not self.popped and edit.length in (WRAPPED_V4, WRAPPED_V6):
                self.popped = edit.length
                self.frame = self.frame[edit.length :]
                self._look()
            else:
                raise Unfusable("it unwraps what the cache cannot follow")
        elif isinstance(edit, Trim):
            raise Unfusable("it has padding")
        elif isinstance(edit, Complete):
            pass  # a checksum left to us may stay so: the wire form is the same
        elif edit.offset >= depth:
            self._inner(edit, edit.offset - depth)

    def _inner(self, edit: Put | Adjust | AdjustTransport, offset: int) -> None:
        if isinstance(edit, Put):
            keyed = KEYED_V4 if self.is_v4 else KEYED_V6
            if not any(first <= offset and offset + len(edit.data) <= end for first, end in keyed):
                raise Unfusable("it changes bytes outside the key")
        elif isinstance(edit, AdjustTransport):
            if offset != self.transport_at or not (self.is_tcp or self.is_udp):
                raise Unfusable("it changes a checksum outside the transport header")
            self.transport.append(edit)
        elif not self.is_v4 or offset != 24:
            raise Unfusable("it changes a checksum outside the IP header")

    @property
    def old_sum(self) -> int:
        """The sum of the keyed bytes of the header as it comes in (after unwrapping)."""
        before = self.frame
        return _sum(before[14:16] + before[20:24] + before[26:34]) if self.is_v4 else 0

    def view(self, record: Record, frame: bytes, advances: list[tuple[Counter, int]]) -> View:
        """What somebody sees who watches at this point of the run."""
        rewrite = Rewrite()
        self.write(rewrite, frame, advances)
        return View(record.port, record.inbound, record.sinks, rewrite)

    def write(self, rewrite: Rewrite, final: bytes, advances: list[tuple[Counter, int]]) -> None:
        """Write what the edits until here come to."""
        if len(self.pushed) > 1:
            raise Unfusable("it is wrapped more than once")
        if self.pushed:
            if len(advances) != 1:
                raise Unfusable("it takes several identifications")
            rewrite.wrap = self._wrap(final, advances[0][0])
        final = final[self._depth :]
        before = self.frame
        rewrite.unwrap = self.popped
        rewrite.is_v4 = self.is_v4
        if self.is_v4:
            rewrite.head, rewrite.middle = final[:16], final[20:24]
            echo = not (self.is_tcp or self.is_udp)
            rewrite.tail = b"" if echo else final[26:38]
            if echo and final[26:34] != before[26:34]:
                raise Unfusable("it translates an echo")
            rewrite.new_sum = _sum(final[14:16] + final[20:24] + final[26:34])
            rewrite.same = before[:16] == final[:16] and before[20:24] == final[20:24] and before[26:38] == final[26:38]
        else:
            end = 58 if self.is_tcp or self.is_udp else 54
            rewrite.head, rewrite.tail = final[:18], final[20:end]
            rewrite.same = before[:18] == final[:18] and before[20:end] == final[20:end]
        if self.transport:
            rewrite.transport = Transport(self.transport_at, self.is_udp and self.is_v4, tuple(self.transport))
            rewrite.same = False

    def _wrap(self, final: bytes, counter: Counter) -> Wrap:
        """What stays in front of the final frame, as it can be built for others."""
        push = self.pushed[0]
        length = len(push.data)
        if push.recipe is None:
            raise Unfusable("it is wrapped by something that cannot be repeated")
        identification = final[18] << 8 | final[19]
        if push.recipe.header(final[length:], identification)[12:] != final[12:length]:
            raise Unfusable("its outer header was changed on the way")
        return Wrap(push.recipe, final[:12], counter)


def _sum(data: bytes) -> int:
    return int.from_bytes(data, "big") % 65535


__all__ = ["CAPACITY", "FlowCache", "Key", "Recording", "Replay", "key_of"]
