"""The executor writes out what `Replay.fits` and `Replay.apply` say: the two, side by side.

A TAP is only a descriptor that gives and takes one frame a call, so pairs of local
sockets serve: what goes in at one end of a pair is what a pod's kernel would send.
"""

from __future__ import annotations

import os
import socket

import pytest

from emunet.linux.executor import make_drain
from emunet.linux.tap_edge import TapEdge
from emunet.packet.offload import HEADER_LENGTH, NO_OFFLOAD, Offload, split
from tests.properties.test_flow_cache import STEP, Twins

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
