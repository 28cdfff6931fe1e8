"""The executor writes out what `Replay.fits` and `Replay.apply` say: the two, side by side.

A TAP is only a descriptor that gives and takes one frame a call, so pairs of local
sockets serve: what goes in at one end of a pair is what a pod's kernel would send.
"""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest

from emunet.fabric.capture import Record
from emunet.linux.executor import make_drain
from emunet.linux.tap_edge import TapEdge
from emunet.packet.offload import HEADER_LENGTH, NO_OFFLOAD, Offload, split
from emunet.plane.reason import Reason
from tests.properties.test_flow_cache import STEP, Twins
from tests.worlds import datagram

BUFFERS = 4 << 20


class Wired:
    """A twin whose cached world has descriptors for edges, as a running lab has."""

    def __init__(self, topology: str, seed: int) -> None:
        self.twins = Twins(topology, seed)
        world = self.twins.cached.world
        self.kernel: dict[str, socket.socket] = {}
        self.edges: dict[str, TapEdge] = {}
        for name, station in self.twins.cached.stations.items():
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            for end in (ours, theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFERS)
                end.setblocking(False)
            edge = TapEdge(
                name,
                station.device,
                station.entry,
                ours.detach(),
                station.mac,
                station.addresses,
                station.gateways,
                1500,
            )
            world.detach(name)
            world.attach(edge)
            self.kernel[name], self.edges[name] = theirs, edge
        self.shown = 0
        show = world.repeat.show

        def counted(*arguments: Any) -> None:
            self.shown += 1
            show(*arguments)

        world.repeat.show = counted  # type: ignore[method-assign]
        self.drain = make_drain(world)
        self.twins.send = self.send  # type: ignore[method-assign]

    def close(self) -> None:
        """Let all descriptors go."""
        for name, end in self.kernel.items():
            end.close()
            os.close(self.edges[name].fd)

    def send(self, source: str, frame: bytes, offload: Offload | None = None) -> None:
        """One twin reads it from a descriptor, the other is told; then what came out is compared."""
        twins = self.twins
        twins.tick(STEP)
        header = NO_OFFLOAD if offload is None else offload.pack()
        twins.plain.world.receive(twins.plain[source], frame, twins.now, offload)
        self.kernel[source].send(header + frame)
        self.drain(self.edges[source], twins.now)
        self.collect()

    def collect(self) -> None:
        """What the kernels would see goes to the stations, whose answers come back in."""
        again = True
        while again:
            again = False
            for name, end in self.kernel.items():
                while True:
                    try:
                        data = end.recv(1 << 17)
                    except BlockingIOError:
                        break
                    frame = data[HEADER_LENGTH:]
                    offload = Offload.parse(data[:HEADER_LENGTH], frame)
                    for piece in split(frame, offload):
                        for answer in self.twins.cached[name].deliver(piece, None, self.twins.now):
                            end.send(NO_OFFLOAD + answer)
                            again = True
                self.drain(self.edges[name], self.twins.now)


@pytest.mark.parametrize("topology", ["one-host", "two-hosts", "dual-stack"])
@pytest.mark.parametrize("seed", range(4))
def test_same_as_the_world(topology: str, seed: int) -> None:
    """Random steady traffic, complete and left open, whole and superframes: the same frames, counters and tables."""
    wired = Wired(topology, seed)
    try:
        twins = wired.twins
        for _ in range(40):
            for _ in range(20):
                twins.traffic()
            twins.move()
            twins.compare()
        assert twins.cached.world.flows.hits > 100
    finally:
        wired.close()


@pytest.mark.parametrize("topology", ["one-host", "two-hosts", "leaf-spine"])
@pytest.mark.parametrize("seed", range(3))
def test_same_while_somebody_watches(topology: str, seed: int) -> None:
    """Ports are watched and left alone again between frames: every watcher sees the same, hit or not."""
    wired = Wired(topology, seed)
    try:
        twins = wired.twins
        for _ in range(30):
            twins.watch()
            for _ in range(30):
                twins.traffic()
            twins.compare()
        assert wired.shown > 50
    finally:
        wired.close()


class Noted:
    """A recorder that counts."""

    def __init__(self) -> None:
        self.entered = self.came_out = 0

    def frame(self, *_: object) -> None:
        """A frame from a stack."""
        self.entered += 1

    def delivered(self, *_: object, taken: bool) -> None:
        """A frame for one."""
        self.came_out += taken


def test_a_recording_has_frames_that_would_be_hits() -> None:
    """While a recording is made, every frame passes the World, which tells the recorder."""
    wired = Wired("one-host", 0)
    try:
        a, b = wired.twins.cached["web-1"], wired.twins.cached["web-2"]
        frame = wired.twins.cached.frame("web-1", datagram(a.address(), b.address(), 1024, 80, b"x"), to=b.mac)
        for _ in range(3):
            wired.send("web-1", frame)
        noted = Noted()
        wired.twins.cached.world.record(noted)  # type: ignore[arg-type]
        for _ in range(20):
            wired.send("web-1", frame)
        assert (noted.entered, noted.came_out) == (20, 20)
        wired.twins.cached.world.record(None)
    finally:
        wired.close()


class Glancing:
    """Watches, and takes what it is shown without a record where it may."""

    def __init__(self) -> None:
        self.seen: list[tuple[bytes, bool, int]] = []
        self.glances = 0

    def write(self, record: Record) -> None:
        """A record."""
        self.seen += [(frame, record.inbound, record.identity) for frame in record.frames]

    def take(self, frame: bytes, inbound: bool, at: int, identity: int) -> None:
        """A frame alone."""
        self.glances += 1
        self.seen.append((frame, inbound, identity))


def test_who_is_content_with_a_glance_sees_the_same() -> None:
    """At the entry and at the exit of a flow that hits: each frame once at both, as it is there, under one number."""
    wired = Wired("one-host", 0)
    try:
        twins, world = wired.twins, wired.twins.cached.world
        a, b = twins.cached["web-1"], twins.cached["web-2"]
        sinks = Glancing(), Glancing()
        for name, sink in zip(("web-1", "web-2"), sinks, strict=True):
            world.tap(name, sink)
        for number in range(40):
            packet = datagram(a.address(), b.address(), 1024, 80, bytes(number))
            wired.send("web-1", twins.cached.frame("web-1", packet, to=b.mac))
        sent, got = ([row for row in sink.seen if row[0][12:14] == b"\x08\x00"] for sink in sinks)
        assert sinks[0].glances > 25
        assert [frame for frame, _, _ in sent] == [frame for frame, _, _ in got] == [row[1] for row in b.got][-40:]
        assert {inbound for _, inbound, _ in sent} == {False}
        assert {inbound for _, inbound, _ in got} == {True}
        numbers = [identity for _, _, identity in got]
        assert [identity for _, _, identity in sent] == numbers
        assert len(set(numbers)) == 40
    finally:
        wired.close()


class Broken:
    """A TAP that is gone, or whose pod has set it down: what is read or written there is an error."""

    def __init__(self, wired: Wired, name: str) -> None:
        self.edge = wired.edges[name]
        os.close(self.edge.fd)
        wired.kernel[name].close()
        # A descriptor that can be neither read nor written.
        self.edge.fd = os.open(__file__, os.O_PATH)


def test_a_broken_tap_is_no_end_of_the_loop() -> None:
    """Frames for it are refused and counted; reading it gives nothing."""
    wired = Wired("one-host", 0)
    try:
        twins, world = wired.twins, wired.twins.cached.world
        a, b = twins.cached["web-1"], twins.cached["web-2"]
        frame = twins.cached.frame("web-1", datagram(a.address(), b.address(), 1024, 80, b"x"), to=b.mac)
        answer = twins.cached.frame("web-2", datagram(b.address(), a.address(), 80, 1024, b"x"), to=a.mac)
        for _ in range(3):
            wired.send("web-1", frame)
            wired.send("web-2", answer)
        hits = world.ledger.delivered
        broken = Broken(wired, "web-2")
        wired.kernel["web-1"].send(NO_OFFLOAD + frame)
        assert wired.drain(wired.edges["web-1"], twins.now) == 1
        assert wired.drain(broken.edge, twins.now) == 0
        assert world.ledger.delivered == hits
        assert world.ledger.reasons[Reason.EDGE_FULL.name] == 1
        assert world.ledger.balance == 0
    finally:
        del wired.kernel["web-2"]
        wired.close()
