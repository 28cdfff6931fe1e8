"""World: devices and wires under one clock.

A *run* lets one frame in at an edge and goes on until nothing moves: through a
device's elements, over plain wires into the next device, out at another edge. What
an edge's stack answers at once is part of the same run. Time stands still in a run;
`advance` moves it and wakes whatever is due.

Rule of this file: nothing here reads a clock or knows a protocol.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from heapq import heappop, heappush
from itertools import count
from typing import Any

from emunet.elements.endpoint.neighbors import answer_neighbor_request
from emunet.fabric.capture import Record, Sink
from emunet.fabric.config import HostConfig, WorldConfig
from emunet.fabric.edge import Edge, overhears
from emunet.fabric.flow_key import Key, key_of, road_of
from emunet.fabric.flows import FlowCache, Recording
from emunet.fabric.follow import explain
from emunet.fabric.impaired import Lane
from emunet.fabric.layout import Layout
from emunet.fabric.names import UnknownPort
from emunet.fabric.overlay import overlay
from emunet.fabric.policing import Policing
from emunet.fabric.recording import Recorder
from emunet.fabric.replay import Replay
from emunet.fabric.serving import Serving
from emunet.fabric.trouble import Trouble
from emunet.fabric.watching import Watching
from emunet.fabric.wire import Wire, WireExit
from emunet.packet.offload import Offload, split
from emunet.packet.view import Packet
from emunet.plane.device import Device, bring
from emunet.plane.faults import Faults
from emunet.plane.ledger import Ledger
from emunet.plane.reason import Reason
from emunet.plane.step import Step, Verdict
from emunet.plane.table import Watch
from emunet.plane.timers import Timers
from emunet.plane.trace import Trace

HOP_LIMIT = 32
RUN_LIMIT = 10_000
RUN_PAUSE = 1_000
Arrival = tuple[Edge, bytes, Offload | None, Trace | None] | tuple[Device, str, Packet]
"""A frame from an edge's stack, or a packet at a device's entry."""


class World:
    """Everything that forwards, and the edges it forwards between."""

    def __init__(self, seed: int = 0, flow_cache: bool = True) -> None:
        self.seed = seed
        self.now = 0
        self.figures = Ledger()
        self._config = WorldConfig(seed=seed)
        self.watch = Watch()
        self.faults = Faults()
        """What raised where it should have decided."""
        self.flows = FlowCache(self.watch, flow_cache)
        self._layout = layout = Layout(self.watch, self.figures, seed, self._connect)
        self.devices, self.wires, self.edges = layout.devices, layout.wires, layout.edges
        self._ends, self._edge_at, self._pods = layout.ends, layout.edge_at, layout.pods
        self.policing = Policing(self.devices, layout.configs)
        self.serving = Serving(self.devices, self._look_at_device)
        self._arrivals: deque[Arrival] = deque()
        self._tunnels: frozenset[bytes] = frozenset()
        self._edge_tables: dict[str, dict[Key, Replay]] = {}
        self._hops: deque[tuple[Device, str, Packet]] = deque()
        self._heap: list[tuple[int, int, bool, Callable[[int], None]]] = []
        self.events = 0
        """How much of its own has happened: frames that came off wires, timers of devices. `recording` counts on it."""
        self.recorder: Recorder | None = None
        self._timed: Timers[tuple[str, str]] = Timers()
        self._order = count()
        self._watching = Watching(self.watch)
        self._running = False
        self._resumes = 0
        self._dry = False
        self.arrived: list[tuple[Edge, Packet]] = []  # what came out at edges in the last dry run
        self.trouble = Trouble(self)

    @property
    def ledger(self) -> Ledger:
        """The World's counters, with every hit of the flow cache credited."""
        self.flows.settle()
        return self.figures

    @property
    def config(self) -> WorldConfig:
        """What it is, as a value."""
        self._config = self.serving.settled(self.policing.settled(self._config))
        return self._config

    # Building

    def configure(self, config: WorldConfig) -> None:
        """Become this: what is new is built, what changed is changed in place, what is gone goes.

        Learned state survives where an element's structure did not change.
        """
        if self.policing.become(self.config, config):
            self.serving.become(config.services)
            return
        self.flows.clear("the configuration changed")
        self.serving.spared = frozenset(router.name for router in config.routers)
        self._layout.become((*config.machines, *config.switches))
        self.serving.become(config.services)
        before = {wire.name: wire for wire in self.config.wires}
        fresh = self._layout.join(config.wires, self)
        self._tunnels = frozenset(vxlan.port.to_bytes(2, "big") for host in config.hosts for vxlan in host.vxlans)
        self._config = config
        for wire in config.wires:
            self.trouble.configured(self.wires[wire.name], None if wire.name in fresh else before.get(wire.name), wire)
        self.trouble.apply_partition()

    def attach(self, edge: Edge) -> None:
        """Join a stack to its port. The port must exist."""
        self._layout.attach(edge)
        self.flows.clear("an edge was attached")
        self._edge_tables[edge.name] = self.flows.table(edge.device, edge.entry)
        self._look_at_edge(edge)

    def detach(self, name: str) -> Edge | None:
        """Take a stack away; frames for its port are then dropped as NO_CARRIER."""
        edge = self._layout.detach(name)
        if edge is not None:
            self.flows.clear("an edge was detached")
        return edge

    # Frames in, time on

    def receive(
        self, edge: Edge, frame: bytes, now: int, offload: Offload | None = None, trace: Trace | None = None
    ) -> None:
        """A frame comes in from an edge's stack."""
        self.now = now
        self._admit(edge, frame, offload, trace)
        self._run(now)

    def show(self, edge: Edge, replay: Replay, frame: bytes, offload: Offload | None, now: int) -> None:
        """Show watchers a frame from an edge that was a hit, and was repeated elsewhere (`linux.executor`)."""
        identity = self._watching.identify()
        first = replay.first
        if first is not None:
            Record.of(first.port, first.inbound, frame, offload, now, first.sinks, identity).hand_over()
        for view in replay.views:
            pieces = [frame] if view.plain and offload is None else view.rewrite.wire_frames(frame, offload)
            Record(view.port, view.inbound, pieces, now, view.sinks, identity).hand_over()

    def advance(self, now: int) -> None:
        """Move time to `now`, waking what is due on the way, in order."""
        while (due := self.due()) <= now:
            self._step(due)
        self.now = max(self.now, now)

    def step(self) -> None:
        """Move time to what is due next, and let that happen: wires first, then devices and stacks."""
        self._step(self.due())

    def _step(self, due: int) -> None:
        if due < self.now:
            due = self.now
        self.now = now = due
        if self._heap and self._heap[0][0] <= now:
            _, _, own, action = heappop(self._heap)
            self.events += own
            action(now)
            if self._arrivals:
                self._run(now)
            return
        timed = self._timed.take(now)
        if timed is None:
            return
        kind, name = timed
        if kind == "device":
            self.events += 1
            device = self.devices.get(name)
            if device is not None:
                device.wake(now)
                self._run(now)
                self._look_at_device(device)
            return
        edge = self.edges.get(name)
        if edge is not None:
            for frame in edge.wake(now):
                self._admit(edge, frame, None, None)
            self._run(now)
            self._look_at_edge(edge)

    def due(self) -> int:
        """The next moment at which anything happens by itself (ns), or NEVER."""
        first = self._timed.first()
        return self._heap[0][0] if self._heap and self._heap[0][0] < first else first

    def at(self, due: int, action: Callable[[int], None], *, own: bool = False) -> None:
        """Call `action(now)` when time reaches `due`; first come, first served at the same moment.

        `own`: it is of the World's own making, and would come again from the same inputs.
        """
        heappush(self._heap, (due, next(self._order), own, action))

    def send(self, edge: Edge, frames: Any, now: int) -> None:
        """Let frames in that an edge's stack made by itself (its program sent something)."""
        self.now = now
        for frame in frames:
            self._admit(edge, frame, None, None)
        self._run(now)
        self._look_at_edge(edge)

    def run(self, now: int) -> None:
        """Let what has come in go on."""
        self.now = now
        self._run(now)

    def inject(self, port: str, frame: bytes, now: int, trace: Trace | None = None) -> None:
        """A frame comes in by a port as if the other end had sent it: a pod's, or a device's."""
        self.now = now
        edge = self.edges.get(port)
        if edge is not None:
            self._admit(edge, frame, None, trace)
        else:
            device, entry, tap = self.locate(port)
            if tap:
                raise UnknownPort(f"{port} is an interface inside {device.name}: frames enter by a pod or a port")
            packet = Packet(frame)
            packet.trace = trace
            if self.recorder is not None:
                self.recorder.injected(port, frame, now, self.events)
            self._arrivals.append((device, entry, packet))
        self._run(now)

    def transmit(self, port: str, frame: bytes, now: int) -> None:
        """A frame goes out by an interface of a host, as from a packet socket (packet(7)): past its layer 3."""
        self.now = now
        device, entry, inner = self.locate(port)
        packet = Packet(frame)
        packet.identity = self._identify()
        self.figures.received += 1
        device.send(inner or entry, packet, now)
        self._run(now)

    # Explaining

    @contextmanager
    def dry_run(self) -> Iterator[None]:
        """Within it, walks change nothing: tables, counters, ledgers, captures, edges."""
        self.flows.settle()
        ledger, arrivals, now = self.figures, self._arrivals, self.now
        self.figures, self._arrivals, self._dry, self.arrived = Ledger(), deque(), True, []
        try:
            with overlay(self.devices.values(), self.figures):
                yield
        finally:
            self.figures, self._arrivals, self.now, self._dry = ledger, arrivals, now, False

    def explain(self, edge: Edge, frame: bytes) -> Trace:
        """What would happen to a frame from this edge, hop by hop. Changes nothing (`follow`)."""
        return explain(self, edge, frame)

    # Watching

    def tap(self, port: str, sink: Sink) -> None:
        """Hand every packet that passes the port to `sink`, from the next frame on."""
        device, entry, inner = self.locate(port)
        self.flows.clear("a port is watched")
        self._watching.add((device.name, inner or entry), sink)
        device.watched = self._watching.points(device.name)

    def untap(self, port: str, sink: Sink) -> None:
        """Stop handing packets to `sink`."""
        device, entry, inner = self.locate(port)
        self._watching.remove((device.name, inner or entry), sink)
        device.watched = self._watching.points(device.name)
        self.flows.clear("a port is watched no more")

    def record(self, recorder: Recorder | None) -> None:
        """Tell everything that is let in to a recorder from now on; None: no more."""
        self.recorder = recorder
        self.flows.recorded = recorder is not None
        self.flows.clear("a recording began or ended")

    def wire_changed(self, wire: Wire, why: str) -> None:
        """Something was set on a wire: the next frame meets it so."""
        if not wire.up:
            for device, port in wire.ends:
                self._layout.forget_stations(device, port)
        self.flows.clear(why)

    def set_power(self, name: str, *, on: bool) -> None:
        """Take a device's power away, and with it all that it held and learned; or give it back."""
        device = self._layout.device(name)
        if on is not device.off:
            return
        self.flows.clear("a device lost its power or got it back")
        self._config = self.config
        self._layout.set_power(device, on=on)
        self._look_at_device(self.devices[name])

    def locate(self, port: str) -> tuple[Device, str, str]:
        """A port's name -> (device, entry, interface inside the device or "")."""
        return self._layout.locate(port)

    def port_names(self) -> list[str]:
        """Every port that can be watched, as people name them."""
        return self._layout.port_names()

    def wire(self, name: str) -> Wire:
        """The wire of that name; UnknownPort with what there is otherwise."""
        return self._layout.wire(name)

    # What the wires call

    def arrive(self, device: str, port: str, packet: Packet, now: int) -> None:
        """A packet comes off a wire at a device port."""
        target = self.devices[device]
        packet.entered = ""
        packet.interface = ""
        packet.egress = ""
        packet.bridged = False
        packet.local = False
        packet.connection = None
        packet.record = None
        packet.hop = None
        packet.hops += 1
        if packet.hops > HOP_LIMIT:
            self._end_on_wire(packet, Step("wire", Verdict.DROP, Reason.LOOP, {"hops": packet.hops, "device": device}))
            return
        (self._hops if self._running else self._arrivals).append((target, port, packet))

    def put_on(self, frames: int, copies: int) -> None:
        """Frames are on an impaired wire now; of them, copies that the wire made."""
        self.figures.queued += frames
        self.figures.copied += copies

    def come_off(self, device: str, port: str, packet: Packet, now: int) -> None:
        """A frame comes off an impaired wire."""
        self.figures.queued -= 1
        if device in self.devices:
            self.arrive(device, port, packet, now)
        else:
            self.figures.drop(Reason.DEVICE_GONE, 1)

    def pass_on(self, source: Replay, device: str, port: str, frame: bytes, hops: int, identity: int, now: int) -> bool:
        """A frame that `source` put on an impaired wire comes off: repeat what follows, if nothing else is to do."""
        if self._arrivals or now < self._resumes or self._running:
            return False
        replay = source.following
        if replay is None or not replay.alive:
            if not self.flows.enabled or (key := key_of(frame, self._tunnels)) is None:
                return False
            replay = source.following = self.flows.table(device, port).get(key)
            if replay is None:
                return False
        hops += 1
        if replay.watched or hops > HOP_LIMIT or not replay.fits_again(frame, now):
            return False
        self.figures.queued -= 1
        if replay.relays is None:
            self._replay(replay, frame, None, hops, None, identity, now)
            return True
        replay.used = now
        replay.frames += 1
        if not replay.same:
            frame = replay.rewritten(frame, None)
        replay.relays.carry(frame, None, hops + replay.hops, None, replay, identity, now)
        return True

    def wake_lane(self, lane: Lane, due: int) -> None:
        """Wake one direction of a wire at `due`."""
        heappush(self._heap, (due, next(self._order), True, lane.wake))

    def retire(self, lane: Lane) -> None:
        """One direction of a wire does nothing any more that a plain one would not do."""
        self.trouble.retire(lane)

    @property
    def dry(self) -> bool:
        """Whether this is a dry run: wires then neither lose nor wait."""
        return self._dry

    def lose(self, wire: str, packet: Packet, reason: Reason, now: int) -> None:
        """A packet ends on a wire."""
        self._end_on_wire(packet, Step(f"wire {wire}", Verdict.DROP, reason, {"wire": wire}))

    # Inside

    def _connect(self, device: Device) -> None:
        """A device was made: what it tells goes here."""
        if isinstance(self._layout.configs[device.name], HostConfig):
            self.serving.begin(device)
        device.faults = self.faults
        device.transmit = self._transmit
        device.observe = self._observe
        device.identify = self._identify
        device.settle = self.flows.settle
        device.watched = self._watching.points(device.name)
        self._look_at_device(device)

    def _admit(self, edge: Edge, frame: bytes, offload: Offload | None, trace: Trace | None) -> None:
        self._arrivals.append((edge, frame, offload, trace))

    def _run(self, now: int) -> None:
        """Go on until nothing moves: one frame after the other, each to where its run ends."""
        if self._running or now < self._resumes:
            return
        self._running = True
        try:
            arrivals = self._arrivals
            for _ in range(RUN_LIMIT):
                if not arrivals:
                    break
                arrival = arrivals.popleft()
                if len(arrival) == 4:
                    self._from_edge(*arrival, now)
                else:
                    self._through(*arrival, now)
            else:
                # Two stacks may answer each other without an end: time must go on all the same.
                if arrivals and not self._dry:
                    self._resumes = now + RUN_PAUSE
                    self.at(self._resumes, lambda _: None, own=True)
        finally:
            self._running = False
            self.watch.end()
            self._watching.recording = None
            self._watching.hand_over()

    def _from_edge(self, edge: Edge, frame: bytes, offload: Offload | None, trace: Trace | None, now: int) -> None:
        """A frame from an edge's stack: repeated from the cache where it can be, before anything is made of it."""
        if self.recorder is not None and not self._dry:
            self.recorder.frame(edge.name, frame, offload, now, self.events)
        packet: Packet | None = None
        if trace is None and self.flows.enabled and not self._dry:
            key = key_of(frame, self._tunnels)
            if key is not None:
                table = self._edge_tables[edge.name]
                replay = table.get(key)
                if replay is None or not replay.fits(frame, 0, len(frame), offload, now):
                    replay = self._road(table, key, frame, offload, now)
                if replay is not None:
                    record, identity = None, 0
                    if replay.watched or replay.wire is not None or replay.crossing is not None:
                        point, pod = (edge.device, edge.entry), edge.entry in self._pods[edge.device]
                        identity = self._identify()
                        record = self._watching.entry(point, pod, frame, offload, now, identity)
                    self._replay(replay, frame, offload, 0, record, identity, now)
                    return
        packet = Packet(frame, offload)
        packet.trace = trace
        packet.identity = self._identify()
        self._through(self.devices[edge.device], edge.entry, packet, now)

    def _road(
        self, table: dict[Key, Replay], key: Key, frame: bytes, offload: Offload | None, now: int
    ) -> Replay | None:
        """What the frame's flow shares with others, if that serves: it is young, or has its own but for this."""
        way = road_of(key)
        road = None if way is None else table.get(way)
        if road is None or not road.fits(frame, 0, len(frame), offload, now):
            return None
        return road if key in table or self.flows.is_young(key) else None

    def _through(self, device: Device, entry: str, packet: Packet, now: int) -> None:
        """One packet, to where its run ends: by walks, which may be fused for the next, or from the cache."""
        packet.identity = packet.identity or self._identify()
        if entry in device.watched and not self._dry:
            self._show(device, entry, packet, True, now)
        recording: Recording | None = None
        if self.flows.enabled and packet.trace is None and not self._dry:
            frame, offload = packet.frame, packet.offload
            key = key_of(frame, self._tunnels)
            if key is not None:
                table = self.flows.table(device.name, entry)
                replay = table.get(key)
                known = replay is not None
                if packet.hops:
                    if replay is None or not replay.fits(frame, 0, len(frame), offload, now):
                        replay = self._road(table, key, frame, offload, now)
                    if replay is not None:
                        self._replay(replay, frame, offload, packet.hops, packet.record, packet.identity, now)
                        return
                if not known:
                    recording = self.flows.begin(table, key, packet)
        if packet.hops == 0:
            self.figures.received += packet.segments
        self._watching.recording = recording
        device.receive(entry, packet, now)
        self._walk_on(device, recording, now)

    def _walk_on(self, device: Device, recording: Recording | None, now: int) -> None:
        """A packet has left a device: walk on until nothing moves, and fuse what was recorded."""
        self._look_at_device(device)
        hops = self._hops
        while hops:
            device, entry, packet = hops.popleft()
            if entry in device.watched and not self._dry:
                self._show(device, entry, packet, True, now)
            device.receive(entry, packet, now)
            self._look_at_device(device)
        if recording is not None:
            self._watching.recording = None
            self.flows.finish(recording, self.figures, now)

    def _replay(
        self, replay: Replay, frame: bytes, offload: Offload | None, hops: int, record: Record | None, identity: int,
        now: int,
    ) -> None:  # fmt: skip
        """A hit, by a frame that has passed `hops` devices. `record`: what a watcher of its entry has been shown."""
        if replay.wrap is not None and offload is not None:
            for piece in split(frame, offload):
                self._replay(replay, piece, None, hops, record, identity, now)
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
            self._watching.show([one for one in shown[1:] if one is not None])
        self._come_out(replay, frame, offload, frames, hops, shown, identity, now)

    def _come_out(
        self, replay: Replay, frame: bytes, offload: Offload | None, frames: int, hops: int,
        shown: Sequence[Record | None], identity: int, now: int,
    ) -> None:  # fmt: skip
        """A frame that was hit leaves where the run ended: at an edge, on a wire, or nowhere."""
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
        if self.recorder is not None:
            self.recorder.delivered(edge.name, frame, offload, now, taken=answers is not None)
        if answers is None:
            replay.refused += frames
            return
        if edge.keeps_time:
            self._look_at_edge(edge)
        for answer in answers:
            self._arrivals.append((edge, answer, None, None))

    def _cross(
        self, replay: Replay, frame: bytes, offload: Offload | None, hops: int, identity: int, now: int
    ) -> None:  # fmt: skip
        """A frame goes a road with crossings, of which `replay` is the first part, and walks on where that ends."""
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
                self.flows.hits -= begun
                recording = None
                if found is not None and found not in replay.onward and replay.alive:
                    recording = self.flows.begin_branch(replay, found, work[0][1])
                else:
                    self.flows.misses += 1
                self._watching.recording = recording
                device.go_on(work, now)
                self._walk_on(device, recording, now)
                return
            packet, replay = work[0][1], following
            replay.hit(packet.segments, now)
        self._come_out(replay, packet.frame, packet.offload, packet.segments, packet.hops, (None,), identity, now)

    def _identify(self) -> int:
        """A number for a packet that comes into being, for those who watch."""
        return 0 if self._dry else self._watching.identify()

    def _look_at_device(self, device: Device) -> None:
        """Note when a device wants to be woken: it may have changed its mind."""
        if not self._dry:
            self._timed.keep(("device", device.name), device.due())

    def _look_at_edge(self, edge: Edge) -> None:
        """Note when a stack wants to be woken."""
        if not self._dry:
            self._timed.keep(("edge", edge.name), edge.due())

    def _transmit(self, device: Device, port: str, packet: Packet, now: int) -> None:
        """A packet leaves a device by a port: to an edge, or onto a wire."""
        key = (device.name, port)
        if port in device.watched and not self._dry:
            self._show(device, port, packet, False, now)
        edge = self._edge_at.get(key)
        if edge is not None:
            self._deliver(edge, packet, now)
            return
        end = self._ends.get(key)
        if end is None:
            where = {"port": port, "device": device.name}
            self._end_on_wire(packet, Step("port", Verdict.DROP, Reason.NO_CARRIER, where))
            return
        wire, number = end
        recording = self._watching.recording
        if recording is not None and wire.lanes[number] is not None:
            if recording.end is not None:
                recording.broken = "it comes out at several places"
            recording.end = (WireExit(wire, number), packet)
        wire.send(number, packet, now)

    def _deliver(self, edge: Edge, packet: Packet, now: int) -> None:
        step = Step("edge", Verdict.DELIVER, Reason.RECEIVED, {"port": edge.name, "overheard": overhears(edge, packet)})
        if packet.hop is not None:
            packet.hop.steps.append(step)
        if self._dry:
            self.arrived.append((edge, packet))
            reply = answer_neighbor_request(packet.frame, tuple(row.address for row in edge.addresses), edge.mac)
            if reply is not None:
                self._admit(edge, reply, None, None)
            return
        answers = edge.deliver(packet.frame, packet.offload, now)
        if self.recorder is not None:
            self.recorder.delivered(edge.name, packet.frame, packet.offload, now, taken=answers is not None)
        frames = packet.segments
        if answers is None:
            self._end_on_wire(packet, Step("edge", Verdict.DROP, Reason.EDGE_FULL, {"port": edge.name}))
            return
        recording = self._watching.recording
        if recording is not None:
            if recording.end is not None:
                recording.broken = "it comes out at several places"
            recording.end = (edge, packet)
        self.figures.delivered += frames
        if edge.keeps_time:
            self._look_at_edge(edge)
        for frame in answers:
            self._admit(edge, frame, None, None)

    def _end_on_wire(self, packet: Packet, step: Step) -> None:
        if self._watching.recording is not None:
            self._watching.recording.broken = "it ends outside a device"
        self.figures.drop(step.reason, packet.segments)
        if packet.hop is not None:
            packet.hop.steps.append(step)
        if packet.record is not None:
            packet.record.dropped("the wire", step, self.now)

    def _show(self, device: Device, port: str, packet: Packet, entering: bool, now: int) -> None:
        self._watching.port((device.name, port), port in self._pods[device.name], entering, packet, now)

    def _observe(self, device: Device, tap: str, inbound: bool, packet: Packet, now: int) -> None:
        if not self._dry:
            self._watching.inside((device.name, tap), inbound, packet, now)
