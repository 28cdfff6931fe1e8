"""A site: the namespaces of one peer, and the programs that run in them.

Each peer lives in a keeper's lab: its daemons, its interfaces and the traffic between its
pods. When the keeper ends, so does all of it, whatever happened to this process; the
machine's own network is never touched.

Rule of this file: whoever is made here is ended here.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.pods import PATIENCE, BenchError, Pods, Running
from emunet.linux.keeper_client import Keeper
from emunet.linux.keeper_requests import Sandbox
from emunet.linux.specification import DEFAULT_ENVIRONMENT, ProgramSpec, SandboxSpec
from emunet.linux.tap import close_many


class Site(Pods):
    """A keeper and its sandboxes. `environment` is what programs get."""

    def __init__(self) -> None:
        super().__init__()
        self.keeper = Keeper.start()
        self.sandboxes: dict[str, Sandbox] = {}
        self.environment: Mapping[str, str] = DEFAULT_ENVIRONMENT
        self._taps: list[int] = []

    def close(self) -> None:
        self.keeper.close()
        close_many(self._taps)
        super().close()

    def make(self, *specs: SandboxSpec) -> list[Sandbox]:
        """Make sandboxes. Their TAPs are closed with the site."""
        made = self.keeper.create_sandboxes(specs)
        for sandbox in made:
            self.sandboxes[sandbox.id] = sandbox
            self._taps += sandbox.taps
            for counter in sandbox.drop_counters:
                os.close(counter)
        return made

    def start(self, pod: str, *argv: str | Path) -> None:
        log = os.open(self.folder / f"{Path(argv[0]).name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self.keeper.spawn(pod, self._program(argv), stdout=log, stderr=log)
        finally:
            os.close(log)

    def begin(self, pod: str, *argv: str | Path) -> Running:
        said = tempfile.TemporaryFile()  # noqa: SIM115 - `finish` closes it
        pid = self.keeper.spawn(pod, self._program(argv), stdout=said.fileno(), stderr=said.fileno())
        return Running(pid, " ".join(map(str, argv)), said)

    def wait(self, running: Running, seconds: float) -> int | None:
        try:
            ended = self.keeper.wait_program(running.handle, seconds)
        except TimeoutError:
            self.keeper.signal(running.handle, 9)
            return None
        if ended.failure is not None:
            raise BenchError(f"{running.command}: {ended.failure}")
        return ended.code

    def received(self, pod: str) -> int:
        for line in Path(f"/proc/{self.sandboxes[pod].pid}/net/dev").read_text().splitlines():
            name, colon, figures = line.partition(":")
            if colon and name.strip() == "eth0":
                return int(figures.split()[1])
        raise BenchError(f"{pod} has no eth0")

    def outside(self, sandbox: str, *argv: str) -> str:
        """Run a program in a sandbox's network, but among the machine's own processes and files.

        So it can name another sandbox by `network`. BenchError where it fails.
        """
        pid = self.sandboxes[sandbox].pid
        command = ["nsenter", f"--target={pid}", "--user", "--net", "--preserve-credentials", "--", *argv]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchError(f"{' '.join(argv)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def network(self, sandbox: str) -> str:
        """A sandbox's network namespace, as `ip link set ... netns` takes it from `outside`."""
        return f"/proc/{self.sandboxes[sandbox].pid}/ns/net"

    def _program(self, argv: Sequence[str | Path]) -> ProgramSpec:
        return ProgramSpec(tuple(map(str, argv)), environment=self.environment)


def wait_for(path: Path, what: str) -> None:
    """Wait until a file or socket is there."""
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        if time.monotonic() > deadline:
            raise BenchError(f"{what} has not begun within {PATIENCE:g} s")
        time.sleep(0.01)
