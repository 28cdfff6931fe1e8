"""Measures large labs, and prints the figures; `test_scale` asks them of itself.

python tests/kernel/scale_figures.py              1,000 pods on 10 hosts, TAP wires
python tests/kernel/scale_figures.py memory       10,000 pods on 100 hosts, memory wires
python tests/kernel/scale_figures.py crowd        1,100 pods on one bridge, each of which pings the same one

With `user` behind that, root measures the labs of an ordinary user; anybody else's are that already.
"""

from __future__ import annotations

import os
import re
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lab_driver import Labs
from ordinary_user import labs_of

from emunet.daemon.client import LabClient
from emunet.daemon.folder import RunFolder
from emunet.daemon.unix_http import UnixConnection

ROUNDS, PINGS = 3, 1000
KERNEL_MEMORY = ("Slab", "KernelStack", "PageTables", "Percpu", "Shmem")


@dataclass(slots=True)
class Figures:
    """What was measured: seconds, megabytes, descriptors for each pod by process, milliseconds."""

    pods: int
    up: float = 0.0
    down: float = 0.0
    status: float = 0.0
    pss: float = 0.0
    kernel: float = 0.0
    descriptors: dict[str, float] = field(default_factory=dict)
    quiet_p99: float = 0.0
    rise: float = 0.0
    lists: float = 0.0

    def __str__(self) -> str:
        lines = [
            f"{self.pods:,} pods: up in {self.up:.1f} s, down in {self.down:.1f} s, status in {self.status:.3f} s",
            f"memory: {self.pss:.0f} MB of processes (PSS) and {self.kernel:.0f} MB of the kernel's",
            "descriptors a pod: " + ", ".join(f"{name} {each:.2f}" for name, each in self.descriptors.items()),
        ]
        if self.lists:
            lines.append(
                f"cross-host ping: p99 {self.quiet_p99:.2f} ms, {self.rise:+.2f} ms while a client lists all pods"
                f" {self.lists:.0f} times a second (medians of {ROUNDS} rounds)"
            )
        return "\n".join(lines)


def topology(pods: int, hosts: int) -> str:
    """So many pods, evenly, and nothing that runs in them."""
    names = ", ".join(f"host{number + 1}" for number in range(hosts))
    head = f"apiVersion: emunet/v1\nkind: Topology\nmetadata: {{name: large}}\nspec: {{hosts: [{names}]}}\n"
    pod = "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: web-{}}}\n"
    pod += "spec: {{nodeName: host{}, containers: [{{name: c, image: x}}]}}\n"
    return head + "".join(pod.format(number + 1, number % hosts + 1) for number in range(pods))


def kernel_megabytes() -> float:
    """What of the machine's memory is the kernel's own."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return sum(int(lines[name].split()[0]) for name in KERNEL_MEMORY) / 1024


def measure(labs: Labs, file: Path, pods: int, hosts: int, wires: str) -> Figures:
    """Bring a lab up, look at it, and bring it down."""
    figures = Figures(pods)
    file.write_text(topology(pods, hosts))
    before = kernel_megabytes()
    began = time.monotonic()
    labs.ok("up", str(file), "--wires", wires, timeout=300)
    figures.up = time.monotonic() - began
    figures.kernel = kernel_megabytes() - before
    processes = labs.processes()
    figures.pss = sum(pss(pid) for pid in processes) / 1024
    for pid, name in processes.items():
        if name.startswith("emunet-") and name != "emunet-pause":
            figures.descriptors[name] = len(os.listdir(f"/proc/{pid}/fd")) / pods
    times = []
    for _ in range(3):
        began = time.monotonic()
        assert len(labs.status("large")["pods"]) == pods
        times.append(time.monotonic() - began)
    figures.status = statistics.median(times)
    if wires == "tap":
        ping_beside_lists(labs, figures)
    began = time.monotonic()
    labs.ok("down", timeout=120)
    figures.down = time.monotonic() - began
    return figures


def crowd(labs: Labs, file: Path, pods: int) -> str:
    """So many pods on one bridge, and how many of them get no answer from the first, four asking at a time."""
    text = topology(pods, 1).replace("{hosts: [host1]}", "{hosts: [host1], nodeMasks: {IPv4: 20}}")
    file.write_text(text)
    labs.run("up", str(file), "--wires", "tap", timeout=300)  # it warns of the kernel's table of neighbours
    folder, numbers, silent = RunFolder(labs.folder / "large"), iter(range(2, pods + 1)), list[int]()
    lock = threading.Lock()

    def work() -> None:
        client = LabClient(folder)
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            asked = {"from": f"web-{number}", "to": "web-1", "count": 1, "timeout": 1.0}
            if not client.post("ping", **asked)["pairs"][0]["received"]:
                silent.append(number)

    threads = [threading.Thread(target=work) for _ in range(4)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - began
    return f"{len(silent)} of {pods - 1:,} pods on one bridge got no answer from the same one, in {seconds:.1f} s"


def pss(pid: int) -> int:
    """Kilobytes of a process, shared ones in proportion."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:  # it has just ended
        return 0
    return int(text.split("\nPss:")[1].split()[0])


def ping_beside_lists(labs: Labs, figures: Figures) -> None:
    """99 of 100 cross-host pings, alone and beside a client that lists all pods 20 times a second, in turns."""
    target = next(pod["ips"][0] for pod in labs.status("large")["pods"] if pod["name"] == "web-2")
    p99_of(labs, target, 100)
    quiet, rises, lists = [], [], []
    for _ in range(ROUNDS):
        quiet.append(p99_of(labs, target, PINGS))
        with listing(labs) as count:
            began = time.monotonic()
            rises.append(p99_of(labs, target, PINGS) - quiet[-1])
            lists.append(len(count) / (time.monotonic() - began))
    figures.quiet_p99, figures.rise = statistics.median(quiet), statistics.median(rises)
    figures.lists = statistics.median(lists)


@contextmanager
def listing(labs: Labs) -> Iterator[list[int]]:
    """Within it, a client lists all pods 20 times a second; how long each list was."""
    done, lengths = threading.Event(), list[int]()

    def work() -> None:
        due = time.monotonic()
        while not done.is_set():
            connection = UnixConnection(labs.folder / "large" / "api.sock", 60)
            connection.request("GET", "/kube/api/v1/pods", headers={"Accept": "application/json"})
            lengths.append(len(connection.getresponse().read()))
            connection.close()
            due = max(due + 0.05, time.monotonic())
            done.wait(due - time.monotonic())

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield lengths
    finally:
        done.set()
        thread.join()


def p99_of(labs: Labs, target: str, count: int) -> float:
    """Milliseconds that 99 of 100 pings took at most."""
    told = labs.ok("exec", "web-1", "--", "ping", "-n", "-i", "0.004", "-c", str(count), target, timeout=120)
    trips = sorted(float(one) for one in re.findall(r"time=([0-9.]+)", told))
    assert len(trips) == count, f"{count - len(trips)} of {count} pings were lost"
    return trips[count * 99 // 100]


def main() -> None:
    """What was asked for, on a line or four."""
    words = sys.argv[1:]
    who = "user" if "user" in words or os.geteuid() != 0 else "root"
    with labs_of(who) as own:
        file = own.folder.parent / "lab.yaml"
        print(f"as {'an ordinary user' if who == 'user' else 'root'}, load average {os.getloadavg()[0]:.1f}")
        if "crowd" in words:
            print(crowd(own, file, 1_100))
        elif "memory" in words:
            print(measure(own, file, 10_000, 100, "memory"))
        else:
            print(measure(own, file, 1_000, 10, "tap"))


if __name__ == "__main__":
    main()
