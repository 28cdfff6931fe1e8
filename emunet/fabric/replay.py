"""Replay: one fused run, or a part of one, and what was hit of it.

Rule of this file: a Replay says whether a frame is one that it answers for, notes hits, and
ends when it is told to; what becomes of a frame that hits is the World's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from emunet.fabric.capture import Quick, Record
from emunet.fabric.edge import Edge
from emunet.fabric.flow_key import STEADY, STEERING_FLAGS, V4
from emunet.fabric.rewrite import Rewrite, View, unwrapped
from emunet.fabric.wire import WireExit
from emunet.packet.offload import Offload
from emunet.packet.view import ETHERNET_HEADER
from emunet.plane.device import Device, Situation
from emunet.plane.ledger import Ledger, PortFigures
from emunet.plane.reason import Reason
from emunet.plane.table import NEVER, Counter, Source

if TYPE_CHECKING:
    from emunet.fabric.flows import FlowCache


class Crossing:
    """Where a road leaves it to an element to decide about each frame, and what the element is told of the way there.

    through  it came there over a wire: what a device before had found for its connection is not known here
    """

    __slots__ = ("device", "element", "port", "situation", "through")

    def __init__(self, device: Device, situation: Situation, *, through: bool) -> None:
        self.device = device
        self.element: str = situation[0]
        self.port: str = situation[1]
        self.situation = situation
        self.through = through


class Replay(Rewrite):
    """A fused run.

    used     lab time of the last hit (ns)
    total    wire frames credited until now
    frames   wire frames hit since the last credit; refused: of them, not taken by the edge
    begins   its frames come from an edge, not off a wire; behind: from a crossing of the road that it is a part of
    edge     where it comes out; or else `wire`, which it goes onto after `hops` more devices; or
             neither, for a run that ends in a drop
    least    bytes that the frame must have for its transport header to be whole, where it is looked at
    guard_flags  a tracked TCP connection: SYN, FIN and RST go the slow way
    watched  somebody watches a port on its way; first: what a watcher of its entry was shown of the first frame, or
             None; views: where it is watched after the entry; glances: the same as rows of (sink, inbound), where
             all who watch are `Quick` and are shown what came in
    following  the Replay that repeated the last frame which this one put on a wire, where it came off: frames of
             one key leave with one key, so it is that of the next, too, as long as it lives; or None
    relays   as `wire`, where all that happens on the way is a rewrite: no view, no header put on, no identification
    direct   all that happens on the way to an edge, or onto a wire, is that keyed bytes of the header become others
    road     it answers for all flows between two stations, which differ in their ports (`fabric.roads`)
    crossing where it ends, if an element is asked there; `onward`: by the situation behind it, what follows
    told     whose record is told of a loss on the wire: 0 the entry's, else that of a view; or None
    """

    __slots__ = (
        "advances",
        "alive",
        "begins",
        "behind",
        "cache",
        "credits",
        "crossing",
        "deadline",
        "direct",
        "drop",
        "drop_figures",
        "edge",
        "edge_figures",
        "first",
        "following",
        "frames",
        "glances",
        "guard_flags",
        "hops",
        "key",
        "least",
        "limit",
        "old_sum",
        "onward",
        "refused",
        "relays",
        "road",
        "sources",
        "table",
        "told",
        "total",
        "used",
        "views",
        "watched",
        "wire",
    )

    def __init__(self, cache: FlowCache, table: dict[Any, Replay], key: Any) -> None:
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
        self.direct = False
        self.road = False
        self.crossing: Crossing | None = None
        self.onward: dict[Situation, Replay] = {}
        self.watched = False
        self.first: Record | None = None
        self.views: list[View] = []
        self.glances: list[tuple[Quick, bool]] | None = None
        self.told: int | None = None
        self.edge_figures: Ledger | None = None
        self.drop: Reason | None = None
        self.drop_figures: Ledger | None = None
        self.credits: list[tuple[Ledger | PortFigures, str]] = []
        self.total = 0
        self.begins = False
        self.behind = False
        self.advances: list[tuple[Counter, int]] = []
        self.sources: list[tuple[Source, Any]] = []

    def look(self) -> None:
        """Everybody who watches is known: see who is content with a glance."""
        if not self.watched or any(not view.plain for view in self.views):
            return
        seen: list[Record | View] = [*self.views] if self.first is None else [self.first, *self.views]
        rows = [(sink, point.inbound) for point in seen for sink in point.sinks]
        if all(isinstance(sink, Quick) for sink, _ in rows):
            self.glances = [(sink, inbound) for sink, inbound in rows if isinstance(sink, Quick)]

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

    def fits_behind(self, frame: bytes, offload: Offload | None, now: int) -> bool:
        """As `fits`, for what follows a crossing: the frame fitted where its road began."""
        if now >= self.deadline:
            self.invalidate("its time is over")
            return False
        length = len(frame)
        if self.unwrap and (offload is not None or length < self.unwrap):
            return False
        return length <= self.limit or (offload is not None and offload.largest(length) <= self.limit)

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
        if not self.behind:
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
            self.cache.gone(self)
        self.cache.invalidated[why] = self.cache.invalidated.get(why, 0) + 1
        for source, key in self.sources:
            source.detach(key, self)
        self.sources = []
        for following in list(self.onward.values()):
            following.invalidate(why)
