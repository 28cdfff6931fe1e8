"""What the tests of whole labs are written with: the `emunet` command as a person runs it, and a look at the machine.

Every lab of a test has a run folder of its own, whose name is in the environment of each of its
processes: so they can be found, all of them, whoever else runs labs on this machine.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from emunet.daemon.client import LabClient
from emunet.daemon.folder import RunFolder

ROOT = Path(__file__).parents[2]
TWO_HOSTS = ROOT / "topologies" / "two-hosts.yaml"
SECONDS = 30.0
"""How long a test waits for what must come."""


class Labs:
    """The `emunet` command with a run folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "EMUNET_RUNTIME_DIR": str(folder), "NO_COLOR": "1", "COLUMNS": "120"}
        self._started: list[subprocess.Popen[str]] = []

    def command(self, *arguments: str) -> list[str]:
        """The program and its arguments."""
        return [sys.executable, "-m", "emunet", *map(str, arguments)]

    def run(
        self, *arguments: str, timeout: float = 60, command: list[str] | None = None, **how: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run emunet, or another command, to its end, whatever it ends with."""
        return subprocess.run(
            command or self.command(*arguments), cwd=ROOT, env=self.environment, capture_output=True, text=True,
            timeout=timeout, check=False, **how,
        )  # fmt: skip

    def ok(self, *arguments: str, timeout: float = 60) -> str:
        """What a command prints that must succeed, and must have nothing to complain about."""
        done = self.run(*arguments, timeout=timeout)
        assert done.returncode == 0, f"{' '.join(map(str, arguments))}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def json(self, *arguments: str) -> Any:
        """What a command prints with -o json."""
        return json.loads(self.ok(*arguments, "-o", "json"))

    def start(self, *arguments: str, **how: Any) -> subprocess.Popen[str]:
        """A command left running; `leave` ends it at the latest."""
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | how
        started = subprocess.Popen(self.command(*arguments), cwd=ROOT, env=self.environment, text=True, **streams)
        self._started.append(started)
        return started

    def status(self, lab: str = "two-hosts") -> Any:
        """What `status -o json` prints, without a process for it."""
        return LabClient(RunFolder(self.folder / lab)).get("status")

    # What there is

    def processes(self) -> dict[int, str]:
        """Every process of every lab of this run folder, with its name; zombies and this test itself left out."""
        marker = f"EMUNET_RUNTIME_DIR={self.folder}".encode()
        ours: set[int] = set()
        names: dict[int, str] = {}
        parents: dict[int, int] = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                name, _, rest = (entry / "stat").read_text().partition("(")[2].rpartition(")")
                if rest.split()[0] in "ZX":
                    continue
                pid = int(entry.name)
                names[pid], parents[pid] = name, int(rest.split()[1])
                if marker in (entry / "environ").read_bytes().split(b"\0"):
                    ours.add(pid)
            except OSError:  # it has ended
                continue
        # Containers have an environment of their own; they are children of one that has ours.
        while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
            ours |= more
        return {pid: names[pid] for pid in ours}

    def pid_of(self, name: str) -> int | None:
        """The process with that name (`emunet-plane`), if there is one."""
        return next((pid for pid, comm in self.processes().items() if comm == name), None)

    def wait_until_gone(self) -> None:
        """Wait until no process of any lab is left."""
        eventually(lambda: not self.processes(), lambda: f"processes that remain: {self.processes()}")

    def leave(self) -> None:
        """End all that a test may have left behind."""
        for started in self._started:
            started.kill()
            started.wait()
            for stream in (started.stdin, started.stdout, started.stderr):
                if stream is not None:
                    stream.close()
        self.run("down", "--all")
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


@contextmanager
def one_lab(folder: Path, topology: str) -> Iterator[Labs]:
    """A lab of this text on TAPs, for all tests of a file; it must go down without a trace."""
    made = Labs(folder / "run")
    made.folder.mkdir(mode=0o700)
    (folder / "lab.yaml").write_text(topology)
    try:
        made.ok("up", str(folder / "lab.yaml"), "--wires", "tap")
        yield made
        made.ok("down")
        assert made.processes() == {}
    finally:
        made.leave()


def by_age(clients: dict[str, str]) -> list[Any]:
    """A client's programs as parameters of a fixture: the old ones are for CI, where there is a newer one."""
    newest = list(clients)[-1:]
    return [
        pytest.param(path, id=name, marks=[] if name in newest else [pytest.mark.slow])
        for name, path in clients.items()
    ]


def eventually(condition: Callable[[], bool], what: Callable[[], str] | str) -> None:
    """Poll until a condition holds."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        told = what if isinstance(what, str) else what()
        assert time.monotonic() < deadline, f"not within {SECONDS:g} s: {told}"
        time.sleep(0.01)


def machine() -> dict[str, Any]:
    """What a lab must not change: mounts, and interfaces of this network namespace."""
    links = subprocess.run(["ip", "-j", "link"], capture_output=True, text=True, check=True).stdout
    return {
        "mounts": Path("/proc/self/mountinfo").read_text(),
        "links": [(link["ifindex"], link["ifname"]) for link in json.loads(links)],
        "addresses": subprocess.run(["ip", "-o", "address"], capture_output=True, text=True, check=True).stdout,
        "routes": subprocess.run(["ip", "route"], capture_output=True, text=True, check=True).stdout,
    }


def balance(frames: dict[str, Any]) -> int:
    """What the law of conservation misses: 0, or a frame is unaccounted for."""
    came = frames["received"] + frames["generated"] + frames["copied"]
    return int(came - frames["delivered"] - frames["consumed"] - frames["dropped"] - frames["queued"])
