"""The measurements between two pods: the same programs with the same arguments, whatever joins the pods.

Rule of this file: one measurement takes `seconds` of traffic, leaves nothing running, and
its figure is what arrived, not what was sent.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from benchmarks.peers.peer import Peer
from benchmarks.pods import PATIENCE, BenchError

FRAME_LENGTH = 64
_MARGIN = 0.3
_BEGUN = 200
_SLACK = 20.0


class Traffic:
    """Traffic between the pods of one peer. `servers` starts what answers; it is needed once."""

    def __init__(self, peer: Peer, program: Path) -> None:
        self.peer = peer
        self._program = program
        self._mac = ""

    def start_servers(self) -> None:
        """Start the servers of pod b, and see that the pods reach each other."""
        pods, a, b = self.peer.pods, self.peer.a, self.peer.b
        for kind in ("sink", "answer", "accept"):
            pods.start(b.pod, self._program, kind)
        pods.start(b.pod, "iperf3", "--server")
        # A link that has just come up may take a second to carry anything.
        pods.run(a.pod, "ping", "-c", "1", "-w", str(round(PATIENCE / 2)), b.address)
        neighbors = json.loads(pods.run(a.pod, "ip", "-json", "neighbor", "show", "dev", "eth0"))
        self._mac = next(row["lladdr"] for row in neighbors if "lladdr" in row)

    def bulk(self, seconds: float, streams: int = 1) -> float:
        """TCP, bit/s, as the receiver counts them."""
        said = self.peer.pods.run(
            self.peer.a.pod, "iperf3", "--client", self.peer.b.address, "--time", str(max(1, round(seconds))),
            "--parallel", str(streams), "--json", seconds=seconds + _SLACK,
        )  # fmt: skip
        result = json.loads(said)
        if "error" in result:
            raise BenchError(f"iperf3: {result['error']}")
        return float(result["end"]["sum_received"]["bits_per_second"])

    def bulk_four(self, seconds: float) -> float:
        """As `bulk`, with four streams."""
        return self.bulk(seconds, 4)

    def frames(self, seconds: float) -> float:
        """64-byte UDP frames a second that arrive at b while a sends all it can."""
        pods, a, b = self.peer.pods, self.peer.a, self.peer.b
        lasting = seconds + 2 * _MARGIN
        before = pods.received(b.pod)
        blast = pods.begin(
            a.pod, self._program, "blast", self._mac, a.address, b.address, str(FRAME_LENGTH), str(lasting)
        )
        deadline = time.monotonic() + PATIENCE
        while pods.received(b.pod) < before + _BEGUN:
            if time.monotonic() > deadline:
                pods.finish(blast, lasting + PATIENCE)
                raise BenchError(f"of a flood of frames, fewer than {_BEGUN} arrived")
            time.sleep(0.01)
        time.sleep(_MARGIN)
        before, began = pods.received(b.pod), time.perf_counter()
        time.sleep(seconds)
        after, ended = pods.received(b.pod), time.perf_counter()
        pods.finish(blast, lasting + PATIENCE)
        return (after - before) / (ended - began)

    def latency(self, seconds: float) -> tuple[float, float]:
        """One byte there and one back over TCP, seconds: median and 99th percentile."""
        median, high, _ = self._ask("ask", seconds)
        return median / 1e9, high / 1e9

    def connections(self, seconds: float) -> float:
        """TCP connections a second, each with a byte there and one back, 16 at a time."""
        done, took = self._ask("connect", seconds)
        return done / took

    def connections_to_service(self, seconds: float) -> float:
        """As `connections`, to the address that only leads to b."""
        done, took = self._ask("connect", seconds, self.peer.service)
        return done / took

    def _ask(self, kind: str, seconds: float, address: str = "") -> list[float]:
        b = address or self.peer.b.address
        said = self.peer.pods.run(self.peer.a.pod, self._program, kind, b, str(seconds), seconds=seconds + _SLACK)
        return [float(word) for word in said.split()]
