"""`make bench`: emunet side by side with others, in one run.

Writes `bench.json` and `build/benchmarks/table.md`, and prints tables. A peer that is not
installed is skipped, and said so; `make bench-deps` installs them all on Debian.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import figures, memory
from benchmarks.capture import Captured
from benchmarks.figures import COMPARISONS, Comparison, evaluate
from benchmarks.lab import end_leftovers
from benchmarks.machine import describe
from benchmarks.peers.copier import Copier
from benchmarks.peers.emunet import EmunetBridge, EmunetRouted, EmunetService, EmunetVxlan, EmunetWithoutOffload
from benchmarks.peers.kernel import KernelBridge, KernelNft, KernelRouted, KernelVxlan
from benchmarks.peers.openvswitch import OpenVSwitch
from benchmarks.peers.peer import Peer
from benchmarks.peers.vde import VdeBuiltIn, VdeSwitch
from benchmarks.pods import BenchError
from benchmarks.programs.build import BUILD, compiled
from benchmarks.programs.find import find
from benchmarks.report import insert, markdown, print_tables
from benchmarks.rounds import Probe, Rounds
from benchmarks.traffic import Traffic
from emunet.linux.doctor import can_use_taps
from emunet.linux.keeper_client import KeeperGone, KeeperRefused

PEERS: tuple[type[Peer], ...] = (
    KernelBridge,
    OpenVSwitch,
    VdeSwitch,
    VdeBuiltIn,
    Copier,
    EmunetBridge,
    EmunetWithoutOffload,
    KernelRouted,
    EmunetRouted,
    KernelVxlan,
    EmunetVxlan,
    KernelNft,
    EmunetService,
)
TOOLS = {"iperf3": "iperf3", "ping": "iputils-ping", "ip": "iproute2", "ethtool": "ethtool", "gcc": "gcc"}
SETTLE = 0.5


class Bench:
    """One run: peers that are up, probes to take in each round, and what was left out."""

    def __init__(self, wanted: Callable[[Comparison], bool], seconds: float, tell: Callable[[str], None]) -> None:
        self.comparisons = [one for one in COMPARISONS if wanted(one)]
        self.seconds = seconds
        self.tell = tell
        self.skipped: dict[str, str] = {}
        self.descriptions: dict[str, dict[str, str]] = {}
        self.probes: list[Probe] = []
        self.captured: Captured | None = None

    def needs(self, measurement: str, subject: str) -> bool:
        """Whether a comparison asks for this."""
        return any(one.measurement == measurement and subject in (one.subject, one.peer) for one in self.comparisons)

    def add_peers(self, stack: contextlib.ExitStack) -> None:
        """Build every peer that is needed and can be; each ends with `stack`."""
        sockets = {figures.BULK, figures.BULK_FOUR, figures.FRAMES, figures.LATENCY, figures.LATENCY_HIGH}
        sockets |= {figures.CONNECTIONS, figures.SERVICE}
        allowed, reason = can_use_taps()
        absent = sorted({package for tool, package in TOOLS.items() if find(tool) is None})
        if absent:
            allowed, reason = False, f"not installed: apt-get install {' '.join(absent)}"
        for kind in PEERS:
            asked = any(self.needs(one, kind.name) for one in sockets)
            asked = asked or (kind is EmunetBridge and self.needs(figures.CAPTURED, "captured"))
            if not asked:
                continue
            missing = reason if not allowed else kind.missing()
            if missing:
                self.skip(kind.name, missing)
                continue
            self.tell(f"building: {kind.name}")
            try:
                self._add_peer(stack, kind)
            except (BenchError, KeeperRefused, KeeperGone, OSError) as error:
                self.skip(kind.name, str(error))

    def _add_peer(self, stack: contextlib.ExitStack, kind: type[Peer]) -> None:
        peer = kind()
        stack.callback(peer.close)
        peer.build()
        traffic = Traffic(peer, compiled("traffic.c"))
        traffic.start_servers()
        self.descriptions[kind.name] = peer.describe()
        seconds = self.seconds

        def one(call: Callable[[float], float]) -> Callable[[], Sequence[float]]:
            def measure() -> Sequence[float]:
                time.sleep(SETTLE)
                return (call(seconds),)

            return measure

        def latency() -> Sequence[float]:
            time.sleep(SETTLE)
            return traffic.latency(seconds)

        for measurements, call in (
            ((figures.BULK,), one(traffic.bulk)),
            ((figures.BULK_FOUR,), one(traffic.bulk_four)),
            ((figures.FRAMES,), one(traffic.frames)),
            ((figures.LATENCY, figures.LATENCY_HIGH), latency),
            ((figures.CONNECTIONS,), one(traffic.connections)),
            ((figures.SERVICE,), one(traffic.connections_to_service)),
        ):
            if any(self.needs(measurement, kind.name) for measurement in measurements):
                self.probes.append(Probe(measurements, kind.name, call))
        if isinstance(peer, EmunetBridge) and kind is EmunetBridge and self.needs(figures.CAPTURED, "captured"):
            self.captured = Captured(peer.lab, peer.b, traffic)
            self.probes.append(Probe((figures.CAPTURED,), "not captured", one(traffic.frames)))
            self.probes.append(Probe((figures.CAPTURED,), "captured", one(self.captured.frames)))

    def add_memory(self, scale: float) -> None:
        """The measurements on memory wires, `scale` times the usual number of frames."""
        asked = any(one.peer == "ns-3" for one in self.comparisons)
        missing = memory.missing_ns3() if asked else "not asked for"
        if asked and missing:
            self.skip("ns-3", missing)
        for measurement, kind, theirs, ours, count in (
            (figures.MEMORY_PORTS, "ports", "ports", 300_000, 60_000),
            (figures.MEMORY_IMPAIRED, "impaired", "ports", 20_000, 60_000),
            (figures.MEMORY_SOCKETS, "sockets", "sockets", 30_000, 60_000),
        ):
            if not self.needs(measurement, "emunet"):
                continue
            self._add_memory(measurement, "emunet", kind, "rate", int(ours * scale))
            if not missing:
                try:
                    self.probes.append(Probe((measurement,), "ns-3", memory.ns3(theirs, int(count * scale))))
                except BenchError as error:
                    self.skip("ns-3", str(error))
                    missing = str(error)
        if not missing:
            self.descriptions["ns-3"] = {
                "title": "ns-3 simulator, C++",
                "version": memory.ns3_version(),
                "offloads": "—",
            }
        for measurement, kind, count in ((figures.HIT, "hit", 200_000), (figures.MISS, "miss", 4_000)):
            if self.needs(measurement, "emunet"):
                self._add_memory(measurement, "emunet", kind, "microseconds", int(count * scale))

    def _add_memory(self, measurement: str, subject: str, kind: str, field: str, count: int) -> None:
        self.probes.append(Probe((measurement,), subject, lambda: (memory.emunet(kind, count)[field],)))

    def skip(self, what: str, why: str) -> None:
        """Leave something out, and say so."""
        self.skipped[what] = why
        print(f"\rskipped: {what}: {why}", file=sys.stderr)

    def result(self, rounds: Rounds, count: int, machine: dict[str, Any]) -> dict[str, Any]:
        """What goes into `bench.json`."""
        result: dict[str, Any] = {}
        for comparison in self.comparisons:
            flaw = self.captured.flaw if self.captured and comparison.measurement == figures.CAPTURED else ""
            figure = evaluate(comparison, rounds.samples, flaw)
            if figure is not None:
                result[comparison.name] = figure.as_json()
        for (measurement, subject), why in rounds.failures.items():
            self.skipped.setdefault(f"{measurement}: {subject}", f"failed in a round: {why}")
        result["skipped"] = self.skipped
        machine |= {"rounds": count, "seconds": self.seconds, "peers": self.descriptions}
        result["machine"] = machine
        return result


def main() -> int:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 rounds of 1 s, only the figures with a target")
    parser.add_argument("--rounds", type=int, metavar="N", help="interleaved rounds (5)")
    parser.add_argument("--seconds", type=float, metavar="S", help="traffic of one measurement (2)")
    parser.add_argument("--only", action="append", default=[], metavar="WORDS", help="only figures with these words")
    parser.add_argument("--output", type=Path, default=Path("bench.json"), metavar="FILE", help="(bench.json)")
    parser.add_argument("--render", type=Path, metavar="FILE", help="print the Markdown of an earlier run, and end")
    parser.add_argument("--readme", type=Path, metavar="FILE", help="write the tables between the marks of a page, too")
    options = parser.parse_args()
    if options.render is not None:
        text = markdown(json.loads(options.render.read_text()))
        if options.readme is None:
            print(text, end="")
        else:
            options.readme.write_text(insert(options.readme.read_text(), text))
        return 0
    count = options.rounds or (3 if options.quick else 5)
    seconds = options.seconds or (1.0 if options.quick else 2.0)

    def wanted(one: Comparison) -> bool:
        if options.quick and one.must is None:
            return False
        return not options.only or any(words in one.name for words in options.only)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was made is ended
    end_leftovers()
    machine = describe() | {"load": round(os.getloadavg()[0], 2)}
    tell = _progress()
    if machine["load"] > machine["cores"] / 4:
        print(f"others use this machine (load {machine['load']}): what follows is not what it can do", file=sys.stderr)
    bench = Bench(wanted, seconds, tell)
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        bench.add_peers(stack)
        bench.add_memory(0.3 if options.quick else 1.0)
        rounds = Rounds(bench.probes, tell)
        rounds.run(count)
        tell("")
    result = bench.result(rounds, count, machine)
    result["machine"]["minutes"] = round((time.monotonic() - began) / 60, 1)
    options.output.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    BUILD.mkdir(parents=True, exist_ok=True)
    (BUILD / "table.md").write_text(markdown(result))
    if options.readme is not None:
        options.readme.write_text(insert(options.readme.read_text(), markdown(result)))
    print_tables(result)
    print(f"written: {options.output}, {os.path.relpath(BUILD / 'table.md')}")
    return 0


def _progress() -> Callable[[str], None]:
    live = sys.stderr.isatty()

    def tell(text: str) -> None:
        if live:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
        elif text.startswith("building"):
            print(text, file=sys.stderr, flush=True)

    return tell


if __name__ == "__main__":
    sys.exit(main())
