"""The flow cache: decide once, repeat cheaply.

The slow path explains; the fast path repeats. A run of one frame over plain wires is
fused into a Replay: which bytes differ, how checksums follow, where it comes out,
what is counted. The next frame with the same key costs a dictionary look-up and a
rewrite of the header.

What makes it safe:
- *Validity is pushed.* The run notes every entry and every absence that it leaned on;
  whoever changes one deletes the Replay (`plane.table`).
- *A deadline.* The earliest time at which anything it leaned on changes by itself.
- *State.* Of a tracked connection only an established one is fused, and a change of its
  state is a change of its entry; SYN, FIN and RST are never hits.
- *Fields.* All that elements read is in the key, or guarded at each hit (lengths,
  checksum, TCP flags, the largest frame), or the packet is marked and never cached.
- *Effects.* Only runs whose effects are uses (of a station, of an identification
  counter) are fused; a hit notes its time and count, and tables and ledgers see both
  before anything ages or is read.
- *Removable.* Without it everything is the same, except speed.

Read `fuse` for what is refused, with its reason; `refused` counts them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from emunet.fabric.capture import Record
from emunet.fabric.edge import Edge
from emunet.fabric.flow_key import STEADY, STEERING_FLAGS, V4, Key
from emunet.fabric.fuse import Fused, Unfusable
from emunet.fabric.rewrite import Rewrite, View, unwrapped
from emunet.fabric.wire import WireExit
from emunet.packet.offload import Offload
from emunet.packet.view import ETHERNET_HEADER, Packet
from emunet.plane.device import Device
from emunet.plane.ledger import Ledger, PortFigures
from emunet.plane.reason import Reason
from emunet.plane.step import Step, Verdict
from emunet.plane.table import NEVER, Advance, Counter, Refresh, Source, Watch

CAPACITY = 65536
DECIDED_BY_SIZE = frozenset({Reason.OVERSIZED, Reason.TOO_BIG})


class Replay(Rewrite):
    """A fused run.

    used     lab time of the last hit (ns)
    total    wire frames credited until now
    frames   wire frames hit since the last credit; refused: of them, not taken by the edge
    begins   its frames come from an edge, not off a wire
    edge     where it comes out; or else `wire`, which it goes onto after `hops` more devices; or
             neither, for a run that ends in a drop
    least    bytes that the frame must have for its transport header to be whole, where it is looked at
    guard_flags  a tracked TCP connection: SYN, FIN and RST go the slow way
    watched  somebody watches a port on its way; first: what a watcher of its entry was shown of the first frame, or
             None; views: where it is watched after the entry
    following  the Replay that repeated the last frame which this one put on a wire, where it came off: frames of
             one key leave with one key, so it is that of the next, too, as long as it lives; or None
    relays   as `wire`, where all that happens on the way is a rewrite: no view, no header put on, no identification
    told     whose record is told of a loss on the wire: 0 the entry's, else that of a view; or None
    """

    __slots__ = (
        "advances",
        "alive",
        "begins",
        "cache",
        "credits",
        "deadline",
        "drop",
        "drop_figures",
        "edge",
        "edge_figures",
        "first",
        "following",
        "frames",
        "guard_flags",
        "hops",
        "key",
        "least",
        "limit",
        "old_sum",
        "refused",
        "relays",
        "sources",
        "table",
        "told",
        "total",
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
        self.least = 0
        self.guard_flags = False
        self.old_sum = 0
        self.edge: Edge | None = None
        self.wire: WireExit | None = None
        self.hops = 0
        self.following: Replay | None = None
        self.relays: WireExit | None = None
        self.watched = False
        self.first: Record | None = None
        self.views: list[View] = []
        self.told: int | None = None
        self.edge_figures: Ledger | None = None
        self.drop: Reason | None = None
        self.drop_figures: Ledger | None = None
        self.credits: list[tuple[Ledger | PortFigures, str]] = []
        self.total = 0
        self.begins = False
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
        if length < self.least:
            return False
        if self.is_v4:
            _, total, identification, _, checksum, _ = V4.unpack_from(frame, start)
            if total != length - ETHERNET_HEADER or (self.old_sum + total + identification + checksum) % 65535:
                return False
            return not self.guard_flags or frame[start + 47] & STEERING_FLAGS == STEADY
        total = frame[start + 18] << 8 | frame[start + 19]
        if total != length - 54:
            return False
        return not self.guard_flags or frame[start + 67] & STEERING_FLAGS == STEADY

    def fits_again(self, frame: bytes, now: int) -> bool:
        """As `fits`, for a wire frame that another Replay has just made: its IP header is known to be sound."""
        length = len(frame)
        if self.unwrap or now >= self.deadline or length > self.limit or length < self.least:
            return self.fits(frame, 0, length, None, now)
        return not self.guard_flags or frame[47 if self.is_v4 else 67] & STEERING_FLAGS == STEADY

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
        self.total += frames
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
        self.recorded = False
        """Whether the World wants to see every frame, hits too: then the executor passes all of them on to it."""
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

    def live(self) -> Iterator[tuple[str, str, Replay]]:
        """(device, entry, Replay) of all there is, every hit credited."""
        self.settle()
        for (device, entry), table in self._tables.items():
            for replay in table.values():
                yield device, entry, replay

    def begin(self, table: dict[Key, Replay], key: Key, packet: Packet) -> Recording:
        """From here the walk notes what it does."""
        self._watch.leaned = []
        self._watch.steps = []
        self._watch.passed = []
        return Recording(table, key, packet)

    def finish(self, recording: Recording, world_figures: Ledger, now: int) -> None:
        """The run has ended: fuse it, or note why not."""
        leaned, steps, passed = self._watch.leaned or [], self._watch.steps or [], self._watch.passed or []
        self._watch.leaned = self._watch.steps = self._watch.passed = None
        self.misses += 1
        try:
            replay = self._compile(recording, steps, world_figures, now)
        except Unfusable as why:
            reason = str(why)
            self.refused[reason] = self.refused.get(reason, 0) + 1
            return
        replay.credits += passed
        refreshed = {
            (id(effect.table), effect.key)
            for _, step, _ in steps
            for effect in step.effects
            if isinstance(effect, Refresh)
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
        fused = Fused(recording.frame)
        devices: list[Device] = []
        views = list(recording.views)
        for number, (device, step, packet) in enumerate(steps):
            while views and views[0][0] <= number:
                replay.views.append(fused.view(*views.pop(0)[1:], replay.advances))
            if packet.unkeyed:
                raise Unfusable(packet.unkeyed)
            if not devices or devices[-1] is not device:
                devices.append(device)
            if step.reason is Reason.CONNECTION_KNOWN:
                replay.guard_flags = True
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
        # Of a tracked connection only what cannot move its state is repeated.
        tracked = replay.guard_flags
        replay.guard_flags = tracked and fused.is_tcp
        replay.old_sum = fused.old_sum
        replay.limit = fused.limit
        if tracked or replay.transport is not None:
            replay.least = fused.least
        replay.first = recording.record
        replay.watched = recording.record is not None or bool(replay.views) or self.recorded
        if not replay.fits(recording.frame, 0, len(recording.frame), recording.offload, now):
            # What it was decided by lies outside the key: a bad checksum, a wrong length.
            raise Unfusable("the frame is not sound")
        if not (replay.views or replay.advances or replay.wrap or replay.unwrap):
            replay.relays = replay.wire
        replay.edge_figures = None if replay.wire is not None else world_figures
        replay.begins = recording.admitted
        if recording.admitted:
            replay.credits.append((world_figures, "received"))
        for device in devices:
            replay.credits.append((device.figures, "received"))
            if device is not devices[-1] or replay.drop is None:
                replay.credits.append((device.figures, "delivered"))
        return replay
