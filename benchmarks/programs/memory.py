"""emunet on memory wires, on the path of `leaf_spine.cc`, and what one frame costs there.

    python -m benchmarks.programs.memory WHAT COUNT      prints one JSON object

`ports`: ready frames go in by one pod's port and are counted at the other's. `sockets`: from a
UDP socket of one pod's stack to one of the other's. `impaired`: as `ports`, with ns-3's rate and
delay on each cable, so that nothing fuses. `hit`, `miss`: a frame that the flow cache knows,
and one that it does not. One frame each 10 microseconds of lab time, as there.

Rule of this file: it measures what anybody gets from a `Lab`; nothing is switched off but the
receiving stack, where ports are what is measured.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Sequence

from benchmarks.topologies import LEAF_SPINE
from emunet.fabric.edge import Edge, MemoryEdge
from emunet.fabric.impairment import Impairment
from emunet.lab.lab import Lab
from emunet.packet.checksum import checksum
from emunet.packet.offload import Offload

INTERVAL = 10_000
DATA = bytes(64)
PORT = 9
WARM_UP = 100
BATCH = 50
AFTERWARDS = 1_000_000
RATE = 100_000_000_000
DELAY = 100


class Course:
    """A lab, a frame that pod `a` sends to pod `b`, and a count of what arrives at b's port."""

    def __init__(self) -> None:
        self.lab = Lab(LEAF_SPINE)
        self.world = self.lab.plane.world
        assert self.lab.ping("a", "b"), "the pods do not reach each other"
        self.a, self.b = _memory_edge(self.world.edges["a"]), _memory_edge(self.world.edges["b"])
        self.now = self.world.now
        self.arrived = 0
        self.sender = self.a.endpoint.udp_bind(40000)
        self.target = self.lab.address("b")
        self.frame = self.sender.send(DATA, self.target, PORT, self.now)[0]
        gc.collect()
        gc.freeze()  # as the plane process of a running lab

    def count_at_port(self) -> None:
        """From here on frames end at b's port: its stack does not see them."""

        def deliver(frame: bytes, offload: Offload | None, now: int) -> Sequence[bytes]:
            self.arrived += 1
            return ()

        self.b.deliver = deliver  # type: ignore[method-assign]

    def inject(self, count: int, batch: int = BATCH) -> float:
        """Let the frame in, once each interval, and wake what is due after each batch; wall seconds."""
        receive, advance = self.world.receive, self.world.advance
        edge, frame, now = self.a, self.frame, self.now
        began = time.perf_counter()
        for _ in range(0, count, batch):
            for _ in range(batch):
                now += INTERVAL
                receive(edge, frame, now)
            advance(now)
        now += AFTERWARDS
        advance(now)
        self.now = now
        return time.perf_counter() - began


def ports(count: int) -> dict[str, float]:
    """Delivered frames a wall second, from port to port."""
    course = Course()
    course.count_at_port()
    return _rate(course, count)


def impaired(count: int) -> dict[str, float]:
    """As `ports`, with a rate and a delay on each cable."""
    course = Course()
    course.count_at_port()
    for wire in course.world.wires:
        course.world.trouble.impair(wire, Impairment(delay=DELAY, rate=RATE))
    return _rate(course, count, 1)  # what is on a cable must come off it in time


def sockets(count: int) -> dict[str, float]:
    """Datagrams a wall second, from a socket to a socket."""
    course = Course()
    got = 0

    def take(*_: object) -> list[bytes]:
        nonlocal got
        got += 1
        return []

    course.b.endpoint.udp_bind(PORT, handler=take)
    world, sender, edge, now = course.world, course.sender, course.a, course.now
    for _ in range(WARM_UP):
        now += INTERVAL
        world.send(edge, sender.send(DATA, course.target, PORT, now), now)
    before, began = got, time.perf_counter()
    for _ in range(count):
        now += INTERVAL
        world.send(edge, sender.send(DATA, course.target, PORT, now), now)
    took = time.perf_counter() - began
    return {"rate": (got - before) / took, "delivered": got - before, "sent": count}


def hit(count: int) -> dict[str, float]:
    """Microseconds for a frame that the cache knows, from port to port."""
    return {"microseconds": 1e6 / ports(count)["rate"]}


def miss(count: int) -> dict[str, float]:
    """Microseconds for a frame between stations that never spoke: walked, recorded, fused."""
    course = Course()
    course.count_at_port()
    course.inject(WARM_UP)
    # Each of another sender, since another port alone goes a known road; a UDP checksum of zero is not computed.
    whole = course.frame
    frames = []
    for number in range(count):
        header = whole[14:24] + bytes((0, 0, 10, 9, *divmod(number, 256))) + whole[30:34]
        header = header[:10] + checksum(header).to_bytes(2, "big") + header[12:]
        frames.append(whole[:14] + header + whole[34:40] + bytes(2) + whole[42:])
    receive, edge, now = course.world.receive, course.a, course.now
    arrived, misses = course.arrived, course.world.flows.misses
    began = time.perf_counter()
    for frame in frames:
        now += INTERVAL
        receive(edge, frame, now)
    took = time.perf_counter() - began
    assert course.arrived - arrived == count, "frames were lost"
    assert course.world.flows.misses - misses == count, "the cache knew some of these flows"
    return {"microseconds": took / count * 1e6}


def _rate(course: Course, count: int, batch: int = BATCH) -> dict[str, float]:
    course.inject(WARM_UP, batch)
    before = course.arrived
    took = course.inject(count, batch)
    return {"rate": (course.arrived - before) / took, "delivered": course.arrived - before, "sent": count}


def _memory_edge(edge: Edge) -> MemoryEdge:
    assert isinstance(edge, MemoryEdge)
    return edge


def main() -> None:
    """One measurement."""
    measure = {"ports": ports, "sockets": sockets, "impaired": impaired, "hit": hit, "miss": miss}[sys.argv[1]]
    print(json.dumps(measure(int(sys.argv[2]))))


if __name__ == "__main__":
    main()
