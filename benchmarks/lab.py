"""A lab of emunet, by its command line alone: `up`, `exec`, `capture`, `down`.

What is measured is what anybody gets who types the same; nothing of emunet is imported here.

Rule of this file: the lab ends with this object; where that was not to be, the next run ends it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.pods import PATIENCE, BenchError, Pods, Running

ROOT = Path(__file__).parents[1]
_UP_SECONDS = 60.0
_PREFIX = "bench-"


class Lab(Pods):
    """A running lab. `options` go to `emunet up`; `counter` is the program that counts frames (`traffic count`)."""

    def __init__(self, name: str, topology: str, counter: Path, *options: str) -> None:
        super().__init__()
        self.name = name
        self._counter = counter
        self._counters: dict[str, subprocess.Popen[str]] = {}
        self._started: list[subprocess.Popen[bytes]] = []
        file = self.folder / "topology.yaml"
        file.write_text(topology)
        said = emunet("up", str(file), "--lab", name, "--wires", "tap", "-o", "json", *options)
        self.status: dict[str, Any] = json.loads(said)

    def address(self, pod: str) -> str:
        """The first address of a pod."""
        return next(str(one["ips"][0]) for one in self.status["pods"] if one["name"] == pod)

    def close(self) -> None:
        emunet("down", "--lab", self.name, fails=True)
        for process in self._started:
            process.kill()
            process.wait()
        for counter in self._counters.values():
            counter.kill()
            counter.communicate()
        super().close()

    def start(self, pod: str, *argv: str | Path) -> None:
        with open(self.folder / f"{Path(argv[0]).name}.log", "ab") as log:
            process = subprocess.Popen(
                self._exec(pod, argv), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT
            )
        self._started.append(process)

    def begin(self, pod: str, *argv: str | Path) -> Running:
        said = tempfile.TemporaryFile()  # noqa: SIM115 - `finish` closes it
        process = subprocess.Popen(
            self._exec(pod, argv), stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, cwd=ROOT
        )
        return Running(process, " ".join(map(str, argv)), said)

    def wait(self, running: Running, seconds: float) -> int | None:
        process: subprocess.Popen[bytes] = running.handle
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return None

    def received(self, pod: str) -> int:
        counter = self._counters.get(pod)
        if counter is None:
            counter = self._counters[pod] = subprocess.Popen(
                self._exec(pod, (self._counter, "count")),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                bufsize=1,
                cwd=ROOT,
            )
        assert counter.stdin is not None
        assert counter.stdout is not None
        try:
            counter.stdin.write("\n")
            return int(counter.stdout.readline())
        except (OSError, ValueError):
            raise BenchError(f"frames of {pod} cannot be counted") from None

    def capture(self, port: str) -> Capture:
        """Begin to capture a port into a file."""
        return Capture(self.name, port, self.folder / "capture.pcapng")

    def _exec(self, pod: str, argv: tuple[str | Path, ...]) -> list[str]:
        return [*EMUNET, "exec", "--lab", self.name, pod, "--", *map(str, argv)]


class Capture:
    """`emunet capture -w`, from its beginning until `end`."""

    def __init__(self, lab: str, port: str, file: Path) -> None:
        self._file = file
        self._process = subprocess.Popen(
            [*EMUNET, "capture", "--lab", lab, port, "-w", str(file)], stderr=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert self._process.stderr is not None
        line = self._process.stderr.readline()
        if not line.startswith("watching"):
            self._process.kill()
            self._process.communicate()
            raise BenchError(f"emunet capture: {line.strip()}")

    def end(self) -> tuple[int, int]:
        """End it: frames written, and lost, by its own words."""
        self._process.send_signal(signal.SIGINT)
        try:
            said = self._process.communicate(timeout=PATIENCE)[1]
        except subprocess.TimeoutExpired:
            self._process.kill()
            said = self._process.communicate()[1]
        self._file.unlink(missing_ok=True)
        found = re.search(r"([\d,]+) frames? in .*, (none|[\d,]+) lost", said)
        if found is None:
            raise BenchError(f"emunet capture: {said.strip()}")
        written, lost = (text.replace(",", "") for text in found.groups())
        return int(written), 0 if lost == "none" else int(lost)


EMUNET = (sys.executable, "-m", "emunet")


def own_name(what: str) -> str:
    """The name of a lab of this process."""
    return f"{_PREFIX}{what}-{os.getpid()}"


def end_leftovers() -> None:
    """End labs of earlier runs that were killed before they could."""
    for lab in json.loads(emunet("labs", "-o", "json")):
        what, _, pid = lab["lab"].rpartition("-")
        if what.startswith(_PREFIX) and pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
            emunet("down", "--lab", lab["lab"], fails=True)


def emunet(*argv: str, fails: bool = False) -> str:
    """Run a command of emunet; what it said. BenchError where it fails, unless it may."""
    done = subprocess.run([*EMUNET, *argv], capture_output=True, text=True, timeout=_UP_SECONDS, cwd=ROOT, check=False)
    if done.returncode and not fails:
        raise BenchError(f"emunet {argv[0]}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
