"""The flow cache: decide once, repeat cheaply.

The slow path explains; the fast path repeats. A run of one frame over plain wires is
fused into a Replay: which bytes differ, how checksums follow, where it comes out,
what is counted. The next frame with the same key costs a dictionary look-up and a
rewrite of the header. Flows that have just begun share what they have in common
(`roads`).

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
from emunet.fabric.flow_key import Key, road_of
from emunet.fabric.fuse import Fused, Unfusable
from emunet.fabric.replay import Replay
from emunet.fabric.roads import YOUNG, Notes, pave
from emunet.fabric.wire import WireExit
from emunet.packet.view import Packet
from emunet.plane.device import Device, Situation
from emunet.plane.ledger import Ledger
from emunet.plane.reason import Reason
from emunet.plane.step import Step, Verdict
from emunet.plane.table import Advance, Refresh, Source, Watch

CAPACITY = 65536
SECOND = 1_000_000_000
DECIDED_BY_SIZE = frozenset({Reason.OVERSIZED, Reason.TOO_BIG})


class Recording:
    """One run being recorded: what goes in and how it ends.

    table, key  where its Replay is to be; of a branch (`roads`) the road's own, and None
    road      the key in the table of the road that it may become, or the situation of a branch; None: there is one
    parent    of a branch: the part of the road that it begins behind
    admitted  it came from an edge, not off a wire
    record    what a watcher of its entry was shown, or None
    views     rows of (steps until then, record, frame) where somebody watches on its way
    """

    __slots__ = (
        "admitted", "broken", "end", "frame", "hops", "key", "offload", "parent", "record", "road", "table", "views",
    )  # fmt: skip

    def __init__(
        self,
        table: dict[Any, Replay],
        key: Key | None,
        road: Key | Situation | None,
        packet: Packet,
        parent: Replay | None = None,
    ) -> None:
        self.table = table
        self.key = key
        self.road = road
        self.parent = parent
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
        self._young: dict[Key, int] = {}
        self._counting = 0
        self.cut = False
        """Whether superframes are cut inside of this World: there are tunnels."""
        self._branches: dict[Replay, None] = {}
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

    def forget_places(self) -> None:
        """Throw the tables away, all of them empty (`clear`): pods come and go, and each had one."""
        self._tables.clear()

    def gone(self, replay: Replay) -> None:
        """A Replay has ended."""
        self.size -= 1
        self._branches.pop(replay, None)

    def settle(self) -> None:
        """Credit every hit, so that ledgers and counters can be read."""
        for table in self._tables.values():
            for replay in table.values():
                if replay.frames:
                    replay.credit()
        for replay in self._branches:
            if replay.frames:
                replay.credit()

    def live(self) -> Iterator[tuple[str, str, Replay]]:
        """(device, entry, Replay) of all there is, every hit credited."""
        self.settle()
        for (device, entry), table in self._tables.items():
            for replay in table.values():
                yield device, entry, replay

    def is_young(self, key: Key, now: int, *, superframe: bool = False) -> bool:
        """Whether a flow, of which another frame came, has not had so many that it deserves a Replay of its own.

        Counting begins anew each second: the ports of a connection that is over are taken again by others. Where
        superframes are cut on the way, no run of one can be repeated, and none is recorded for it.
        """
        if superframe and self.cut:
            return True
        if now - self._counting > SECOND or len(self._young) >= CAPACITY // 4:
            self._young, self._counting = {}, now
        count = self._young.get(key, 0) + 1
        if count > YOUNG:
            return False
        self._young[key] = count
        return True

    def begin(self, table: dict[Key, Replay], key: Key, packet: Packet) -> Recording:
        """From here the walk notes what it does: for the flow's road where there is none, else for the flow itself."""
        self._watch.begin()
        road = road_of(key)
        return Recording(table, key, None if road is None or road in table else road, packet)

    def begin_branch(self, replay: Replay, situation: Situation, packet: Packet) -> Recording:
        """As `begin`, behind the crossing where `replay` ends, for a way that its road has not gone yet."""
        self._watch.begin()
        return Recording(replay.onward, None, situation, packet, replay)

    def finish(self, recording: Recording, world_figures: Ledger, now: int) -> None:
        """The run has ended: fuse it, or note why not."""
        watch = self._watch
        notes = Notes(watch.leaned or [], watch.steps or [], watch.passed or [], watch.closer or {})
        watch.end()
        self.misses += 1
        try:
            if recording.road is not None:
                try:
                    parts = pave(self, recording, notes, world_figures, now)
                    self._make_room(len(parts))
                    if recording.parent is None or recording.parent.alive:
                        for part in parts:
                            if not self._keep(part.replay, notes, part.leaned, part.steps, now):
                                break
                    return
                except Unfusable:
                    if recording.key is None:
                        raise
            replay = self._compile(recording, notes.steps, world_figures, now)
        except Unfusable as why:
            reason = str(why)
            self.refused[reason] = self.refused.get(reason, 0) + 1
            if recording.key is not None:
                self._young.pop(recording.key, None)
            return
        replay.credits += notes.passed
        self._make_room(1)
        self._keep(replay, notes, (0, len(notes.leaned)), (0, len(notes.steps)), now)

    def _make_room(self, count: int) -> None:
        if self.size + count > CAPACITY:
            self.clear("the cache is full")

    def _keep(self, replay: Replay, notes: Notes, leaned: tuple[int, int], steps: tuple[int, int], now: int) -> bool:
        """Take a Replay in, with what it leans on: some of the notes. False: its time is over already."""
        refreshed = {
            (id(effect.table), effect.key)
            for _, step, _ in notes.steps[slice(*steps)]
            for effect in step.effects
            if isinstance(effect, Refresh)
        }
        seen: dict[tuple[int, Any], tuple[Source, Any, bool]] = {}
        for source, key, deadline, ages in notes.leaned[slice(*leaned)]:
            refreshes = (id(source), key) in refreshed
            if deadline < replay.deadline and not (ages and refreshes):
                replay.deadline = deadline
            seen[id(source), key] = (source, key, refreshes)
        if replay.deadline <= now:
            return False
        for source, key, refreshes in seen.values():
            source.attach(key, replay, refreshes)
            replay.sources.append((source, key))
        replay.table[replay.key] = replay
        self.size += 1
        if replay.behind:
            self._branches[replay] = None
        return True

    def _compile(
        self, recording: Recording, steps: Sequence[tuple[Device, Step, Packet]], world_figures: Ledger, now: int
    ) -> Replay:
        if recording.broken:
            raise Unfusable(recording.broken)
        if not steps:
            raise Unfusable("nothing was decided")
        assert recording.key is not None
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
        replay.look()
        if not replay.fits(recording.frame, 0, len(recording.frame), recording.offload, now):
            # What it was decided by lies outside the key: a bad checksum, a wrong length.
            raise Unfusable("the frame is not sound")
        if not (replay.views or replay.advances or replay.wrap or replay.unwrap):
            replay.relays = replay.wire
            untranslated = replay.transport is None and not replay.extra
            replay.direct = untranslated and not replay.watched and (replay.edge or replay.wire) is not None
        replay.edge_figures = None if replay.wire is not None else world_figures
        replay.begins = recording.admitted
        if recording.admitted:
            replay.credits.append((world_figures, "received"))
        for device in devices:
            replay.credits.append((device.figures, "received"))
            if device is not devices[-1] or replay.drop is None:
                replay.credits.append((device.figures, "delivered"))
        return replay
