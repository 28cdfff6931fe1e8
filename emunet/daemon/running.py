"""A running lab: what it can be asked, whoever asks (the API today, other servers tomorrow).

Rule of this file: it asks the plane and the keeper and puts their answers together; it
builds nothing (`building`) and knows no HTTP (`api`).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from emunet.cluster.plan import PodState, State
from emunet.daemon.capture_file import CaptureFile
from emunet.daemon.folder import HeldFolder
from emunet.daemon.internet import Internet
from emunet.daemon.keeper_link import KeeperLink
from emunet.daemon.names import Names, Place
from emunet.daemon.plane_client import PlaneClient, PlaneGone
from emunet.daemon.settings import Settings
from emunet.linux import syscalls
from emunet.linux.keeper_client import ProcessExited, SandboxEnded
from emunet.linux.keeper_requests import Sandbox
from emunet.linux.tap import read_tx_dropped
from emunet.packet.address import format_ip, format_mac

LATE_NS = 5_000_000
"""What happens later than this was too late for the delays that people ask for."""

OVERRUNS_SECONDS = 0.5
"""How old the sum of the TAPs' own drop counters may be: reading 200 of them costs half a millisecond."""


class NotOnTheseWires(Exception):
    """What was asked needs the other kind of wires: a sentence."""


@dataclass(slots=True)
class ContainerState:
    """A program of a pod: `failure` says why it could not be started, `code` how it ended."""

    pod: str
    name: str
    program: str
    pid: int | None = None
    code: int | None = None
    failure: str | None = None

    @property
    def is_running(self) -> bool:
        """True from its start to its end."""
        return self.pid is not None and self.code is None and self.failure is None


@dataclass(slots=True)
class RunningLab:
    """A lab whose World and sandboxes are there.

    `keeper` is None on memory wires, `wires_reason` then says why, where nobody asked for them.
    `sandboxes` are by their ids, `containers` by the number of the request that started them.
    `off` are devices without power, `frozen` pods whose processes are stopped.
    """

    name: str
    settings: Settings
    wires: Literal["tap", "memory"]
    wires_reason: str
    folder: HeldFolder
    plane: PlaneClient
    keeper: KeeperLink | None
    state: State
    names: Names
    sandboxes: dict[str, Sandbox] = field(default_factory=dict)
    containers: dict[int, ContainerState] = field(default_factory=dict)
    captures: list[CaptureFile] = field(default_factory=list)
    listeners: list[Callable[[ProcessExited | SandboxEnded], None]] = field(default_factory=list)
    """Who hears of every program and sandbox that has ended."""
    power_changed: Callable[[str, bool], None] = lambda device, on: None
    """Who hears that a device lost its power, before its programs end, or got it back."""
    is_ready: Callable[[str, str], bool] = lambda uid, port: True
    """Whether a pod (its uid and port name) is ready by its own account: its programs run, its probes are content."""
    freeze_changed: Callable[[str, bool], None] = lambda sandbox, on: None
    """Who hears that the processes of a sandbox are stopped, or go on."""
    names_changed: Callable[[bool], None] = lambda on: None
    """Who hears that the cluster's name servers are to end, or may begin again."""
    names_on: bool = True
    internet: Internet | None = None
    off: set[str] = field(default_factory=set)
    frozen: set[str] = field(default_factory=set)
    _overruns: tuple[float, int] = (0.0, 0)
    _overruns_before: int = 0
    _detaching: asyncio.Task[None] | None = None

    def notice(self, what: ProcessExited | SandboxEnded) -> None:
        """Remember that a program or a sandbox has ended."""
        match what:
            case ProcessExited():
                container = self.containers.get(what.request)
                if container is not None:
                    container.code = what.code
                    container.failure = f"{container.program}: {what.failure}" if what.failure is not None else None
            case SandboxEnded(sandbox):
                ended = self.sandboxes.pop(sandbox, None)
                if ended is not None:
                    self._overruns_before += _lost_in([ended])
                    for descriptor in ended.drop_counters:
                        os.close(descriptor)
                    self._detaching = asyncio.create_task(self._detach())
        for listener in self.listeners:
            listener(what)

    def let_go(self, sandbox: str) -> None:
        """A sandbox is about to be removed: what its TAPs have lost still counts."""
        ended = self.sandboxes.pop(sandbox)
        self._overruns_before += _lost_in([ended])
        for descriptor in ended.drop_counters:
            os.close(descriptor)

    async def _detach(self) -> None:
        """Take what has ended off its ports: else its kernel, which the TAP keeps alive, would go on answering."""
        world = self.state.world
        alive = {place.name for place in self.names.places.values() if not self.has_ended(place)}
        pods = tuple(pod for pod in world.pods if pod.name.partition(":")[0] in alive)
        edges = tuple(edge for edge in world.host_edges if edge.device in alive)
        with suppress(PlaneGone):
            await self.plane.configure(replace(world, pods=pods, host_edges=edges))

    async def status(self) -> dict[str, Any]:
        """What `emunet status -o json` prints."""
        counters = await self.plane.ask("counters")
        figures = dict(counters["world"])
        reasons = figures.pop("reasons")
        return {
            "lab": self.name,
            "wires": self.wires,
            "wires_reason": self.wires_reason,
            "seed": self.settings.seed,
            "speed": self.settings.speed,
            "timing": timing(counters["late_ns"]),
            "pid": os.getpid(),
            "internet": None if self.internet is None else asdict(self.internet),
            "hosts": [self._host(name) for name in (host.name for host in self.state.hosts)],
            "pods": [self._pod(pod) for pod in self.state.pods],
            "containers": [
                {
                    "name": place.name,
                    "host": place.host,
                    "ips": [format_ip(one.address) for one in place.addresses],
                    "mac": format_mac(place.mac),
                }
                for place in self.names.places.values()
                if place.kind == "container"
            ],
            "frames": {**figures, "wire_overruns": self.wire_overruns(), "reasons": reasons},
            "faults": counters["faults"],
            "captures": [
                {"file": one.name, "written": one.written, "lost": one.lost, "failure": one.failure}
                for one in self.captures
            ],
        }

    async def counters(self) -> dict[str, Any]:
        """The ledgers of the World and of each device."""
        counters: dict[str, Any] = await self.plane.ask("counters")
        return counters | {"wire_overruns": self.wire_overruns()}

    def wire_overruns(self) -> int:
        """Frames that a full TAP lost before anybody could see them, over all TAPs."""
        now = time.monotonic()
        if now >= self._overruns[0] + OVERRUNS_SECONDS:
            self._overruns = (now, self._overruns_before + _lost_in(self.sandboxes.values()))
        return self._overruns[1]

    def has_ended(self, place: Place) -> bool:
        """Whether the programs of a pod or host are gone for good, since its pause was killed."""
        return self.keeper is not None and place.sandbox not in self.sandboxes

    def sandbox_of(self, name: str) -> dict[str, Any]:
        """What `linux.join` needs to enter the sandbox of a pod or host."""
        place = self.names.find(name)
        if self.wires == "memory":
            why = f" ({self.wires_reason})" if self.wires_reason else ""
            raise NotOnTheseWires(
                f"{name} is a network stack in memory without processes, so nothing can run there{why}; "
                "it can be pinged and traced, and `emunet shell` sends any packet from it"
            )
        sandbox = self.sandboxes.get(place.sandbox)
        if sandbox is None:
            raise NotOnTheseWires(f"{name} has ended, since its first process was killed: start the lab anew")
        return {
            "name": place.name,
            "kind": place.kind,
            "pid": sandbox.pid,
            "start_time": sandbox.start_time,
            "containers": self._containers_of(place) if place.kind == "pod" else [],
        }

    def _containers_of(self, place: Place) -> list[dict[str, Any]]:
        """The containers of a pod by name; with the process to join, where one runs a program of its own."""
        running = {one.name: one.pid for one in self.containers.values() if one.pod == place.name and one.is_running}
        pod = next(pod.pod for pod in self.state.pods if pod.name == place.name)
        rows: list[dict[str, Any]] = []
        for container in pod.containers:
            row: dict[str, Any] = {"name": container.name}
            pid = running.get(container.name)
            if pid is not None:
                with suppress(OSError):  # it is just ending
                    row |= {"pid": pid, "start_time": syscalls.start_time(pid)}
            rows.append(row)
        return rows

    def _host(self, name: str) -> dict[str, Any]:
        place = self.names.places[name]
        return {
            "name": name,
            "ips": [format_ip(one.address) for one in place.addresses],
            "ready": (self.wires == "memory" or name in self.sandboxes) and name not in self.off,
        }

    def _pod(self, pod: PodState) -> dict[str, Any]:
        place = self.names.places[pod.name]
        containers = [one for one in self.containers.values() if one.pod == pod.name]
        described: dict[str, Any] = {
            "namespace": pod.pod.namespace,
            "name": pod.pod.name,
            "host": pod.pod.host,
            "ips": [format_ip(one.address) for one in place.addresses],
            "mac": format_mac(pod.edge.mac) if pod.edge is not None else None,
            "ready": (self.wires == "memory" or place.sandbox in self.sandboxes)
            and place.host not in self.off
            and place.name not in self.frozen
            and (pod.pod.restart_policy != "Always" or self.is_ready(pod.pod.uid, pod.name))
            and all(one.is_running or (one.code == 0 and pod.pod.restart_policy != "Always") for one in containers),
        }
        if pod.pod.is_name_server:
            described["name_server"] = True
        if containers:
            described["containers"] = [
                {"name": one.name, "running": one.is_running, "exit_code": one.code, "failure": one.failure}
                for one in containers
            ]
        return described


def _lost_in(sandboxes: Iterable[Sandbox]) -> int:
    lost = 0
    for sandbox in sandboxes:
        for descriptor in sandbox.drop_counters:
            with suppress(OSError):  # the interface is gone
                lost += read_tx_dropped(descriptor)
    return lost


def timing(late: int) -> str:
    """Whether the lab keeps its time: by how much (ns) the latest thing happened too late, once that counts."""
    return "on time" if late < LATE_NS else f"late by {late / 1e6:.1f} ms"
