"""How exactly a running lab keeps a delay: one-way times of datagrams between two pods, by the kernel's own stamps.

    python tests/kernel/delay_figures.py          # 5,000 packets a second over a link with 20 ms of delay

Both ends are stamped by the pods' own kernels: when a datagram is put into the sender's
TAP (SO_TIMESTAMPING) and when it came out of the receiver's (SO_TIMESTAMPNS). So no
program's scheduling counts but the data plane's. What is beside the delay is the way
through two hosts and a switch.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from lab_driver import Labs

TOPOLOGY = """
apiVersion: emunet/v1
kind: Topology
metadata: {name: delay}
spec: {hosts: [host1, host2]}
---
apiVersion: v1
kind: Pod
metadata: {name: sender}
spec: {nodeName: host1, containers: [{name: c, image: x}]}
---
apiVersion: v1
kind: Pod
metadata: {name: receiver}
spec: {nodeName: host2, containers: [{name: c, image: x}]}
"""

SENDER = """
import json, socket, struct, sys, time
target, rate, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
out.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
# SO_TIMESTAMPING: software stamps of what is sent, as numbers instead of copies of the datagrams
out.setsockopt(socket.SOL_SOCKET, 37, 1 << 1 | 1 << 4 | 1 << 7 | 1 << 11)
out.connect((target, 7000))
began, stamps = time.monotonic_ns(), {}
def take():
    try:
        while True:
            _, rows, _, _ = out.recvmsg(1, 300, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
            at = number = None
            for level, kind, data in rows:
                if kind == 37:
                    seconds, nanoseconds = struct.unpack_from("<qq", data)
                    at = seconds * 1_000_000_000 + nanoseconds
                elif level == 0 and kind == 11:
                    number = struct.unpack_from("<I", data, 12)[0]
            stamps[number] = at
    except BlockingIOError:
        pass
for number in range(count):
    due = began + number * 1_000_000_000 // rate
    while (left := due - time.monotonic_ns()) > 0:
        if left > 200_000:
            time.sleep((left - 100_000) / 1e9)
    try:
        out.send(struct.pack("<Q", number) + bytes(56))
    except ConnectionRefusedError:
        pass
    take()
time.sleep(0.05)
take()
print(json.dumps(stamps))
"""

RECEIVER = """
import json, socket, struct, sys, time
count = int(sys.argv[1])
into = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
into.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
into.setsockopt(socket.SOL_SOCKET, 35, 1)  # SO_TIMESTAMPNS
into.bind(("0.0.0.0", 7000))
into.settimeout(2)
print("ready", flush=True)
took, last = [], -1
into.settimeout(20)
while True:
    try:
        data, rows, _, _ = into.recvmsg(100, 100)
    except TimeoutError:
        break
    into.settimeout(1)
    number, = struct.unpack_from("<Q", data)
    seconds, nanoseconds = struct.unpack("<qq", rows[0][2])
    took.append((number, seconds * 1_000_000_000 + nanoseconds))
    if number == count - 1:
        break
print(json.dumps(took))
"""


def one_way(labs: Labs, rate: int, count: int) -> list[int]:
    """The one-way times (ns) of so many datagrams, sorted."""
    receiver = labs.start("exec", "receiver", "--", "python3", "-c", RECEIVER, str(count))
    assert receiver.stdout is not None
    assert receiver.stdout.readline() == "ready\n"
    sent = json.loads(labs.ok("exec", "sender", "--", "python3", "-c", SENDER, "receiver", str(rate), str(count)))
    came = json.loads(receiver.stdout.readline())
    receiver.wait()
    return sorted(at - sent[str(number)] for number, at in came)


def figures(took: list[int], delay: int) -> dict[str, float]:
    """Beside the delay, in ms: the median, and what 99 of 100 keep within."""
    beside = [one - delay for one in took]
    return {
        "packets": len(beside),
        "least": round(beside[0] / 1e6, 3),
        "median": round(beside[len(beside) // 2] / 1e6, 3),
        "p99": round(beside[len(beside) * 99 // 100] / 1e6, 3),
        "worst": round(beside[-1] / 1e6, 3),
    }


def measure(labs: Labs, rate: int = 5000, seconds: float = 4, delay_ms: int = 20) -> dict[str, Any]:
    """The figures without and with a delay on the running lab, one after the other."""
    count = int(rate * seconds)
    found: dict[str, Any] = {}
    for milliseconds in (0, delay_ms):
        labs.ok("link", "host1--switch1", "--delay", f"{milliseconds}ms", "--from", "host1")
        labs.ok("ping", "sender", "receiver")
        found[f"{milliseconds} ms"] = figures(one_way(labs, rate, count), milliseconds * 1_000_000)
    return found


def main() -> None:
    """Start a lab, measure, print."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "delay.yaml").write_text(TOPOLOGY)
        labs = Labs(Path(folder))
        try:
            labs.ok("up", str(Path(folder) / "delay.yaml"), "--wires", "tap")
            for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 1):
                print(json.dumps(measure(labs)))
            print(labs.json("status", "--lab", "delay")["timing"])
        finally:
            labs.leave()


if __name__ == "__main__":
    main()
