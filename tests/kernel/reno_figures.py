"""TCP Reno's throughput against loss and delay, beside what Mathis et al. and Padhye et al. predict.

    python tests/kernel/reno_figures.py [SECONDS]

Nine senders at once, each over a lossy link of its own (scenarios/topologies/tcp-reno.yaml),
with the kernel's own TCP (iperf3 -C reno) on TAP wires. No link is near its capacity, so
the senders do not disturb each other.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from lab_driver import ROOT, Labs

TOPOLOGY = ROOT / "scenarios" / "topologies" / "tcp-reno.yaml"
GRID = [(rtt, loss) for rtt in (0.020, 0.040, 0.080) for loss in (0.005, 0.01, 0.02)]
SEGMENT = 1448
OMITTED = 5


def mathis(rtt: float, loss: float) -> float:
    """Bits a second (Mathis, Semke, Mahdavi, Ott 1997, with C = sqrt(3/2))."""
    return SEGMENT * 8 / rtt * math.sqrt(1.5 / loss)


def padhye(rtt: float, loss: float, timeout: float = 0.2) -> float:
    """Bits a second (Padhye, Firoiu, Towsley, Kurose 1998, equation 30).

    One segment for each acknowledgment: Linux's Reno grows by the bytes acknowledged. Its time-out is never
    below 200 ms more than the round trip.
    """
    timeouts = (rtt + timeout) * min(1.0, 3 * math.sqrt(3 * loss / 8)) * loss * (1 + 32 * loss**2)
    return SEGMENT * 8 / (rtt * math.sqrt(2 * loss / 3) + timeouts)


def measure(labs: Labs, seconds: int) -> list[dict[str, Any]]:
    """One row a sender: what it got, and what was predicted, in Mbit/s."""
    servers = [labs.start("exec", "receiver", "--", "iperf3", "-s", "-1", "-p", str(5200 + n)) for n in range(1, 10)]
    for number in range(1, 10):
        labs.ok("ping", f"sender-{number}", "receiver", "-c", "5")
    clients = [
        labs.start(
            "exec", f"sender-{number}", "--", "iperf3", "-J", "-C", "reno", "-c", "receiver", "-p", str(5200 + number),
            "-O", str(OMITTED), "-t", str(seconds),
        )
        for number in range(1, 10)
    ]  # fmt: skip
    rows = []
    for (rtt, loss), client in zip(GRID, clients, strict=True):
        told = json.loads(client.communicate(timeout=seconds + 60)[0])
        if "error" in told:
            raise RuntimeError(told["error"])
        got = told["end"]["sum_received"]["bits_per_second"]
        measured = told["end"]["streams"][0]["sender"]["mean_rtt"] / 1e6
        rows.append(
            {
                "rtt_ms": rtt * 1000, "measured_rtt_ms": round(measured * 1000, 1), "loss": loss,
                "mbit": round(got / 1e6, 3), "padhye": round(padhye(measured, loss) / 1e6, 3),
                "mathis": round(mathis(measured, loss) / 1e6, 3), "ratio": round(got / mathis(measured, loss), 3),
            }
        )  # fmt: skip
    for server in servers:
        server.wait(30)
    return rows


def main() -> None:
    """Start the lab, measure, print."""
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    with tempfile.TemporaryDirectory() as folder:
        labs = Labs(Path(folder))
        try:
            labs.ok("up", str(TOPOLOGY), "--wires", "tap")
            for row in measure(labs, seconds):
                print(json.dumps(row))
            print(labs.json("status", "--lab", "tcp-reno")["timing"])
        except subprocess.TimeoutExpired as error:
            print(error)
        finally:
            labs.leave()


if __name__ == "__main__":
    main()
