"""Repeat: what becomes of a frame that hits, until it comes out somewhere or has to walk on.

Rule of this file: whether a frame hits was said before (`Replay.fits`), and what becomes of one that
does not is the World's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from emunet.fabric.capture import Record
from emunet.fabric.edge import Edge
from emunet.fabric.replay import Replay
from emunet.packet.offload import Offload, split
from emunet.packet.view import Packet
from emunet.plane.device import bring

if TYPE_CHECKING:
    from emunet.fabric.world import World


class Repeat:
    """Of one World."""

    def __init__(self, world: World) -> None:
        self._world = world

    def show(self, edge: Edge, replay: Replay, frame: bytes, offload: Offload | None, now: int) -> None:
        """Show watchers a frame from an edge that was a hit, and was repeated elsewhere (`linux.executor`)."""
        world = self._world
        identity = world.watching.identify()
        first = replay.first
        if first is not None:
            Record.of(first.port, first.inbound, frame, offload, now, first.sinks, identity).hand_over()
        for view in replay.views:
            pieces = [frame] if view.plain and offload is None else view.rewrite.wire_frames(frame, offload)
            Record(view.port, view.inbound, pieces, now, view.sinks, identity).hand_over()

    def one(
        self, replay: Replay, frame: bytes, offload: Offload | None, hops: int, record: Record | None, identity: int,
        now: int,
    ) -> None:  # fmt: skip
        """A hit, by a frame that has passed `hops` devices. `record`: what a watcher of its entry has been shown."""
        world = self._world
        if replay.wrap is not None and offload is not None:
            for piece in split(frame, offload):
                self.one(replay, piece, None, hops, record, identity, now)
            return
        frames = 1 if offload is None else offload.segments(len(frame))
        replay.hit(frames, now)
        if replay.crossing is not None:
            self._cross(replay, frame, offload, hops, identity, now)
            return
        shown = [record]
        if replay.views:
            for view in replay.views:
                pieces = view.rewrite.wire_frames(frame, offload)
                shown.append(Record(view.port, view.inbound, pieces, now, view.sinks, identity))
            world.watching.show([one for one in shown[1:] if one is not None])
        self._come_out(replay, frame, offload, frames, hops, shown, identity, now)

    def _come_out(
        self, replay: Replay, frame: bytes, offload: Offload | None, frames: int, hops: int,
        shown: Sequence[Record | None], identity: int, now: int,
    ) -> None:  # fmt: skip
        """A frame that was hit leaves where the run ended: at an edge, on a wire, or nowhere."""
        world = self._world
        edge = replay.edge
        if edge is None and replay.wire is None:
            return
        if not replay.same or replay.unwrap or replay.wrap is not None:
            frame = replay.rewritten(frame, offload)
        if edge is None:
            assert replay.wire is not None
            told = None if replay.told is None else shown[replay.told]
            source = None if replay.road else replay
            replay.wire.carry(frame, offload, hops + replay.hops, told, source, identity, now)
            return
        answers = edge.deliver(frame, offload, now)
        if world.recorder is not None:
            world.recorder.delivered(edge.name, frame, offload, now, taken=answers is not None)
        if answers is None:
            replay.refused += frames
            return
        if edge.keeps_time:
            world.look_at_edge(edge)
        for answer in answers:
            world.arrivals.append((edge, answer, None, None))

    def _cross(
        self, replay: Replay, frame: bytes, offload: Offload | None, hops: int, identity: int, now: int
    ) -> None:  # fmt: skip
        """A frame goes a road with crossings, of which `replay` is the first part, and walks on where that ends."""
        world = self._world
        packet = Packet(frame, offload)
        packet.hops, packet.identity = hops, identity
        begun = packet.segments
        while (crossing := replay.crossing) is not None:
            if not replay.same or replay.unwrap:
                packet.frame = replay.rewritten(packet.frame, packet.offload)
            packet.hops += replay.hops
            if crossing.through:
                packet.connection = None
            device = crossing.device
            bring(packet, crossing.situation)
            work, found = device.decide(crossing.element, crossing.port, packet, now)
            following = None if found is None else replay.onward.get(found)
            if following is None or not following.fits_behind(work[0][1].frame, work[0][1].offload, now):
                world.flows.hits -= begun
                recording = None
                if found is not None and found not in replay.onward and replay.alive:
                    recording = world.flows.begin_branch(replay, found, work[0][1])
                else:
                    world.flows.misses += 1
                world.watching.recording = recording
                device.go_on(work, now)
                world.walk_on(device, recording, now)
                return
            packet, replay = work[0][1], following
            replay.hit(packet.segments, now)
        self._come_out(replay, packet.frame, packet.offload, packet.segments, packet.hops, (None,), identity, now)
