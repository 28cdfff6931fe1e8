"""One scenario on a World without a cluster: what another Python runs, which has none of our dependencies.

    python tests/lab/repeatable.py CONFIGURATION.json OUT.pcapng

The configuration is `fabric.config_text`'s. All that depends on chance is in it: MACs of
the seed, ports and sequence numbers, losses, jitter of both distributions, duplicates,
flapping, random arrivals, TCP over a lossy wire, ARP and neighbour discovery.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from emunet.elements.endpoint.http import Response as HttpResponse
from emunet.elements.endpoint.http import get, serve
from emunet.fabric.capture import Record
from emunet.fabric.config_text import decode
from emunet.fabric.edge import MemoryEdge, MemoryEdges
from emunet.lab.plane import Plane
from emunet.lab.traffic import Flow, Traffic
from emunet.lab.trouble import WireChange
from emunet.packet.pcapng import INBOUND, OUTBOUND, PcapngWriter

SECOND = 1_000_000_000


class FileSink:
    """Writes what passes to a capture."""

    def __init__(self, writer: PcapngWriter, ports: list[str]) -> None:
        self._writer = writer
        self._numbers = {port: writer.interface(port) for port in ports}

    def write(self, record: Record) -> None:
        """Write it."""
        direction = INBOUND if record.inbound else OUTBOUND
        for frame in record.frames:
            self._writer.packet(
                self._numbers[record.port], record.at, frame, direction=direction, comments=record.comments
            )


def run(configuration: str, out: Path, *, flow_cache: bool = True) -> None:
    """Play it; what all ports carry goes to `out`."""
    config = decode(json.loads(configuration))
    plane = Plane(config.seed, MemoryEdges(config.seed).make, flow_cache=flow_cache)
    plane.configure(config)
    world, pods = plane.world, [pod.name for pod in config.pods]
    with open(out, "wb") as file:
        plane.tap(world.port_names(), FileSink(PcapngWriter(file), world.port_names()))
        wires = list(world.wires)
        plane.trouble.change_wire(
            wires[0], WireChange({"delay": "3ms", "jitter": "1ms", "loss": "3%", "duplicate": "1%", "corrupt": "1%"})
        )
        plane.trouble.change_wire(wires[-1], WireChange({"burst": "2%,40%", "delay": "2ms", "jitter": "700us",
                                                         "distribution": "normal", "rate": "2mbit"}))  # fmt: skip
        plane.trouble.change_wire(wires[0], WireChange(flap="900ms,100ms"))
        flows = [Flow("even", pods[0], pods[-1], interval=5_000_000), Flow("random", pods[-1], pods[0], random=True)]
        traffic = Traffic(plane, flows, world.now, 10 * SECOND)
        first, last = world.edges[pods[0]], world.edges[pods[-1]]
        assert isinstance(first, MemoryEdge)
        assert isinstance(last, MemoryEdge)
        serve(last.endpoint, 80, lambda request: HttpResponse(body=bytes(range(256)) * 40))
        for address in last.addresses:
            _, frames = get(first.endpoint, address.address, 80, world.now)
            world.send(first, frames, world.now)
        world.advance(world.now + 4 * SECOND)
        plane.trouble.set_power(world.config.hosts[-1].name, on=False)
        world.advance(world.now + SECOND)
        plane.trouble.set_power(world.config.hosts[-1].name, on=True)
        plane.trouble.part([[world.config.hosts[0].name]])
        world.advance(world.now + SECOND)
        plane.trouble.part([])
        world.advance(world.now + 2 * SECOND)
        traffic.end()
        world.advance(world.now + 200 * SECOND)
    assert set(plane.balance().values()) == {0}


if __name__ == "__main__":
    run(Path(sys.argv[1]).read_text(), Path(sys.argv[2]))
