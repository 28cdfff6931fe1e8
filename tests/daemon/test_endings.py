"""In which order the programs of a pod end: what Kubernetes promises of sidecars. No program runs here."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from emunet.cluster.build import build
from emunet.cluster.control_plane import ControlPlane
from emunet.cluster.load import load_text
from emunet.daemon import endings
from emunet.daemon.containers import Containers
from emunet.linux.keeper_client import ProcessExited
from emunet.linux.specification import ProgramSpec

SIDE = {"image": "x", "command": ["sleep", "1000"], "restartPolicy": "Always"}
MAIN = {"image": "x", "command": ["sleep", "1000"]}
TOPOLOGY = "apiVersion: emunet/v1\nkind: Topology\nmetadata: {name: lab}\nspec: {hosts: [host1]}\n"

Story = Callable[["Ground"], Awaitable[None]]


class Ground:
    """A pod on a host whose programs are numbers: what was done to them is in `said`, they end when told to."""

    def __init__(self, **spec: Any) -> None:

        self.plane = ControlPlane(build(load_text(TOPOLOGY)).cluster)
        self.said: list[str] = []
        self.ends: dict[str, Callable[[ProcessExited], None]] = {}
        self.numbers: dict[str, int] = {}
        self.names: dict[int, str] = {}
        self.containers = Containers(self.plane, self, lambda: 0, lambda: None)  # type: ignore[arg-type]
        pod = {"metadata": {"name": "a"}, "spec": {"nodeName": "host1", **spec}}
        self.pod = self.plane.request(0).create(self.plane.find("pod"), pod)
        self.uid = self.pod["metadata"]["uid"]
        self.containers.register = self._register
        self.run = self.containers.add(self.pod, "sandbox", ())

    async def start(self, sandbox: str, spec: ProgramSpec, ended: Any, *descriptors: Any) -> tuple[int, int]:
        """`Programs.start`."""
        number = len(self.names) + 1
        self.names[number] = ""
        self._ended = ended
        return number, number

    async def signal(self, number: int, which: int) -> None:
        """`Programs.signal`."""
        self.said.append(f"{signal.Signals(which).name} {self.names[number]}")

    def _register(self, run: Any, name: str, number: int, pid: int, program: str) -> None:
        self.names[number], self.numbers[name], self.ends[name] = name, number, self._ended

    def add(self, *containers: dict[str, Any]) -> None:
        """`kubectl debug`: containers are added to the pod while it runs."""
        change = {"spec": {"ephemeralContainers": list(containers)}}
        self.plane.request(0).patch(self.plane.find("pod"), "default", "a", change, "strategic")

    def states(self) -> dict[str, str]:
        """How the status shows the containers that were added."""
        self.phase()
        item = self.plane.store.get("pods", "default", "a") or {}
        return {one["name"]: next(iter(one["state"])) for one in item["status"]["ephemeralContainerStatuses"]}

    def end(self, name: str, code: int = 0) -> None:
        """A program ends."""
        self.ends[name](ProcessExited(self.numbers[name], "sandbox", self.numbers[name], code))

    def phase(self) -> str:
        """The pod's, after its containers have told."""
        self.plane.tell({self.uid: self.run.fact()})
        self.plane.settle(0)
        item = self.plane.store.get("pods", "default", "a")
        assert item is not None
        return str(item["status"]["phase"])


async def until(holds: Callable[[], bool]) -> None:
    """Let things go on until something is so."""
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.001)


def play(story: Story, **spec: Any) -> Ground:
    """Begin a pod and play a story of it."""

    async def all_of_it() -> Ground:
        ground = Ground(**spec)
        ground.containers.begin(ground.uid)
        await until(lambda: len(ground.numbers) == len(ground.run.slots))
        await story(ground)
        ground.containers.close()
        return ground

    return asyncio.run(all_of_it())


PROXIED = {
    "initContainers": [{"name": "first", **SIDE}, {"name": "second", **SIDE}],
    "containers": [{"name": "web", **MAIN}, {"name": "log", **MAIN}],
}


def test_sidecars_end_after_what_they_serve_the_last_of_them_first() -> None:
    async def story(ground: Ground) -> None:
        ground.containers.stop(ground.uid, 30)
        await until(lambda: len(ground.said) == 2)
        ground.end("log")
        ground.containers.stop(ground.uid, 30)  # asked again, as on each pass: nothing more is done
        await asyncio.sleep(0)
        assert ground.said == ["SIGTERM web", "SIGTERM log"]
        ground.end("web")
        await until(lambda: len(ground.said) == 3)
        assert not ground.run.fact().stopped
        ground.end("second")
        await until(lambda: len(ground.said) == 4)
        ground.end("first")
        assert ground.run.fact().stopped

    ground = play(story, **PROXIED)
    assert ground.said == ["SIGTERM web", "SIGTERM log", "SIGTERM second", "SIGTERM first"]


def test_when_the_grace_is_over_nobody_waits_for_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endings, "LEAST_SECONDS", 0.01)

    async def story(ground: Ground) -> None:
        ground.containers.stop(ground.uid, 30)
        await until(lambda: len(ground.said) == 2)
        ground.containers.stop(ground.uid, 0.01)  # type: ignore[arg-type]  # a shorter time counts
        ground.containers.stop(ground.uid, 30)  # a longer one does not
        await until(lambda: len(ground.said) == 8)

    ground = play(story, **PROXIED)
    assert sorted(ground.said[2:6]) == ["SIGKILL log", "SIGKILL web", "SIGTERM first", "SIGTERM second"]
    assert ground.said[6:] == ["SIGKILL first", "SIGKILL second"]


@pytest.mark.parametrize(("code", "phase"), [(0, "Succeeded"), (3, "Failed")])
def test_a_pod_is_over_when_its_sidecars_have_ended_whatever_they_say(code: int, phase: str) -> None:
    async def story(ground: Ground) -> None:
        ground.end("web", code)
        assert ground.phase() == "Running"
        ground.end("log")
        await until(lambda: len(ground.said) == 1)
        assert ground.phase() == "Running"
        ground.end("second", 143)
        await until(lambda: len(ground.said) == 2)
        ground.end("first", 137)
        assert ground.phase() == phase

    ground = play(story, restartPolicy="Never", **PROXIED)
    assert ground.said == ["SIGTERM second", "SIGTERM first"]


def test_a_sidecar_that_ends_while_its_pod_goes_on_is_started_again() -> None:
    async def story(ground: Ground) -> None:
        ground.end("second")
        await until(lambda: len(ground.names) == 5)
        assert ground.phase() == "Running"

    assert play(story, restartPolicy="Never", **PROXIED).said == []


def test_a_container_that_is_added_runs_once_and_keeps_nothing_from_its_end() -> None:
    async def story(ground: Ground) -> None:
        debugger = {"name": "debug", "image": "x", "command": ["sleep", "1"], "targetContainerName": "web"}
        ground.add(debugger, {"name": "idle", "image": "x"})
        assert ground.states() == {"debug": "waiting", "idle": "waiting"}, "nobody has told of them yet"
        await until(lambda: "debug" in ground.numbers)
        assert ground.states() == {"debug": "running", "idle": "running"}
        ground.end("debug", 1)
        assert ground.states()["debug"] == "terminated"
        ground.add({"name": "again", "image": "x", "command": ["sleep", "1"]})
        await until(lambda: "again" in ground.numbers)
        assert sorted(ground.states()) == ["again", "debug", "idle"]
        ground.end("web")
        ground.end("log")
        await until(lambda: len(ground.said) == 1)
        ground.end("again")
        assert ground.phase() == "Succeeded"

    ground = play(story, restartPolicy="Never", containers=PROXIED["containers"])
    assert ground.said == ["SIGTERM again"]
    assert len(ground.numbers) == 4, "none was started again"
    notes = [one["message"] for one in ground.plane.store.items("events")]
    assert "Accepted without effect in a lab: debug.targetContainerName" in notes
