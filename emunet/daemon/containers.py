"""Containers as processes: what a pod's manifest says should run, run in the pod's own sandbox.

Init containers run one after the other, then all others side by side. One that ends is started again
as its pod's restart policy says, after a pause that doubles from ten seconds to five minutes. A
container without a command, or whose command belongs to an image that nobody has here (an absolute
path that this machine does not have), is a placeholder: it is there, and runs nothing.

Rule of this file: it starts and ends programs and tells what became of them (`PodFact`); what a pod's
status says of that is the kubelet's business.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from emunet.cluster.bound import environment, expand
from emunet.cluster.control_plane import ControlPlane
from emunet.cluster.controllers.kubelet import ContainerFact, PodFact
from emunet.cluster.desired import NAME_SERVER_IMAGE
from emunet.cluster.moments import SECOND, to_text_micro
from emunet.cluster.store import Object, meta
from emunet.daemon.container_log import ContainerLog
from emunet.daemon.keeper_link import KeeperLink
from emunet.daemon.probes import Prober
from emunet.daemon.programs import Output, Programs, found_on_machine
from emunet.daemon.resolvers import Feed, Resolvers
from emunet.linux.keeper_client import KeeperGone, KeeperRefused, ProcessExited
from emunet.linux.specification import ProgramSpec

FIRST_PAUSE, LONGEST_PAUSE = 10.0, 300.0
SOUND_SECONDS = 600
"""A container that ran for so long begins its pauses anew."""

PAST = 100
"""Pods without a sandbox whose logs are kept."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(slots=True)
class Slot:
    """One container of a pod, over all its runs."""

    name: str
    spec: Object
    fact: ContainerFact
    init: bool = False
    number: int = 0
    pid: int | None = None
    crashes: int = 0
    log: ContainerLog | None = None
    before: ContainerLog | None = None
    restart: asyncio.TimerHandle | None = None
    probing: asyncio.Task[None] | None = None
    feed: Feed | None = None
    """The line to it, where it is a name server."""

    @property
    def is_probed(self) -> bool:
        """True where a probe must say that it is ready."""
        return "readinessProbe" in self.spec or "startupProbe" in self.spec


@dataclass(slots=True)
class PodRun:
    """A pod whose sandbox is there."""

    pod: Object
    sandbox: str
    addresses: tuple[str, ...]
    since: int
    slots: dict[str, Slot] = field(default_factory=dict)
    stopping: bool = False
    killed: asyncio.TimerHandle | None = None

    def fact(self) -> PodFact:
        """How it is."""
        busy = any(slot.number for slot in self.slots.values())
        facts = {name: slot.fact for name, slot in self.slots.items()}
        return PodFact(self.addresses, self.since, facts, stopped=self.stopping and not busy)


class Containers:
    """The programs of all pods. `changed` is called when a fact has."""

    def __init__(
        self, control: ControlPlane, programs: Programs | None, now: Callable[[], int], changed: Callable[[], None]
    ) -> None:
        self.runs: dict[str, PodRun] = {}
        self.past: dict[str, PodRun] = {}
        """Pods whose sandbox is gone: Jobs that are done have logs to read."""
        self._control = control
        self._programs = programs
        self._now = now
        self._changed = changed
        self._tasks: set[asyncio.Task[None]] = set()
        self._dark: set[str] = set()
        self._resolvers_run = True
        self.keeper: KeeperLink | None = None
        """Opens the sockets that probes travel by."""
        self.resolvers: Resolvers | None = None
        """Feeds the containers that are name servers."""
        self.register: Callable[[PodRun, str, int, int, str], None] = lambda *_: None
        """Hears of each program: the pod, the container, the number, the pid, the program's name."""
        self.missed: Callable[[ProcessExited], None] = lambda _: None
        """Hears of the end of a program that came before `register` did."""

    def add(self, pod: Object, sandbox: str, addresses: tuple[str, ...]) -> PodRun:
        """A pod's sandbox is there; nothing runs in it yet."""
        run = PodRun(pod, sandbox, addresses, self._now())
        for spec, init in _in_order(pod["spec"]):
            if self._programs is not None and self._runs(spec):
                waiting = ContainerFact("waiting", False, reason="ContainerCreating", program=True)
                run.slots[spec["name"]] = Slot(spec["name"], spec, waiting, init)
        self.runs[meta(pod)["uid"]] = run
        return run

    def _runs(self, spec: Object) -> bool:
        """Whether a container is a program here: of this machine, or the lab's own name server."""
        if self._is_resolver(spec):
            return True
        command = spec.get("command", ())
        return bool(command) and (found_on_machine(command[0], PATH) or "/" not in command[0])

    def _is_resolver(self, spec: Object) -> bool:
        return self.resolvers is not None and spec.get("image") == NAME_SERVER_IMAGE and not spec.get("command")

    def begin(self, uid: str) -> None:
        """Start what is to run in a pod."""
        run = self.runs.get(uid)
        if run is not None:
            self._next(run)

    def power(self, host: str, on: bool) -> None:
        """A host lost its power: nothing is started on it. Or got it back: what is to run there is started."""
        if not on:
            self._dark.add(host)
            return
        self._dark.discard(host)
        for run in self.runs.values():
            if run.pod["spec"].get("nodeName") == host:
                self._next(run)

    def let_resolvers_run(self, on: bool) -> None:
        """End all name servers, and start none; or start those again."""
        self._resolvers_run = on
        for run in self.runs.values():
            for slot in run.slots.values():
                if not self._is_resolver(slot.spec):
                    continue
                if not on and slot.number and self._programs is not None:
                    self._task(self._programs.signal(slot.number, signal.SIGKILL))
                if on and slot.restart is not None:  # it waits no longer
                    slot.restart.cancel()
                    self._restart(run, slot)
            if on:
                self._next(run)

    def stop(self, uid: str, grace: int) -> None:
        """Ask the programs of a pod to end; after `grace` seconds they are ended."""
        run = self.runs.get(uid)
        if run is None:
            return
        if not run.stopping:
            run.stopping = True
            for slot in run.slots.values():
                if slot.restart is not None:
                    slot.restart.cancel()
            self._signal(run, signal.SIGTERM)
        if run.killed is not None:
            run.killed.cancel()
        loop = asyncio.get_running_loop()
        run.killed = loop.call_later(max(grace, 0), self._signal, run, signal.SIGKILL)

    def forget(self, uid: str) -> None:
        """A pod's sandbox is gone; what its containers have said is kept for a while."""
        run = self.runs.pop(uid, None)
        if run is None:
            return
        self.past[uid] = run
        if len(self.past) > PAST:
            del self.past[next(iter(self.past))]
        if run.killed is not None:
            run.killed.cancel()
        for slot in run.slots.values():
            if slot.restart is not None:
                slot.restart.cancel()
            if slot.probing is not None:
                slot.probing.cancel()
            if slot.log is not None:
                slot.log.end()

    def close(self) -> None:
        """The lab is ending."""
        for uid in list(self.runs):
            self.forget(uid)
        for task in self._tasks:
            task.cancel()

    # Within

    def _signal(self, run: PodRun, which: int) -> None:
        for slot in run.slots.values():
            if slot.number and self._programs is not None:
                self._task(self._programs.signal(slot.number, which))

    def _task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _next(self, run: PodRun) -> None:
        """Start the next init container, or all others once these are done."""
        if run.stopping:
            return
        first = [slot for slot in run.slots.values() if slot.init]
        for slot in first:
            done = slot.fact.state == "terminated" and slot.fact.code == 0
            if done:
                continue
            if not slot.number and slot.restart is None and slot.fact.state == "waiting":
                self._begin(run, slot)
            return
        for slot in run.slots.values():
            if not slot.init and not slot.number and slot.restart is None and slot.fact.state == "waiting":
                self._begin(run, slot)

    def _begin(self, run: PodRun, slot: Slot) -> None:
        dark = run.pod["spec"].get("nodeName") in self._dark or (
            not self._resolvers_run and self._is_resolver(slot.spec)
        )
        if not run.stopping and self._programs is not None and not slot.number and not dark:
            slot.number = -1  # being started
            self._task(self._start(run, slot, self._programs))

    async def _start(self, run: PodRun, slot: Slot, programs: Programs) -> None:
        pod = self._control.store.get("pods", meta(run.pod)["namespace"], meta(run.pod)["name"]) or run.pod
        log = ContainerLog(self._now, lambda at: to_text_micro(at, self._control.store.epoch))
        read, write = os.pipe2(os.O_CLOEXEC)
        output = Output(read)

        early: list[ProcessExited] = []

        def ended(what: ProcessExited) -> None:
            if slot.number == what.request:
                self._ended(run, slot, what)
            else:  # it has ended before we even heard that it began
                early.append(what)

        feed: Feed | None = None
        try:
            if self.resolvers is not None and self._is_resolver(slot.spec):
                spec, feed = self.resolvers.spec(), self.resolvers.begin(lambda: self._is_ready(slot))
                given = feed.theirs.fileno()
            else:
                spec, given = self._program(pod, slot.spec), None
            slot.number, slot.pid = await programs.start(run.sandbox, spec, ended, given, write, write)
        except (KeeperRefused, KeeperGone, ValueError) as error:
            output.close()
            slot.number = 0
            if feed is not None:
                feed.close()
            self._failed(run, slot, str(error))
            return
        finally:
            os.close(write)
            if feed is not None:
                feed.theirs.close()
        self.register(run, slot.name, slot.number, slot.pid, spec.argv[0])
        slot.before, slot.log = slot.log, log
        last = slot.fact if slot.fact.state == "terminated" else slot.fact.last
        slot.feed = feed
        ready, restarts = not slot.is_probed if feed is None else feed.answers, slot.fact.restarts
        slot.fact = ContainerFact("running", ready, self._now(), restarts=restarts, program=True, last=last)
        self._task(_follow(output, log))
        self._probe(run, slot)
        for what in early:
            self.missed(what)
            self._ended(run, slot, what)
        self._changed()

    def _is_ready(self, slot: Slot) -> None:
        """A name server answers."""
        if slot.fact.state == "running":
            slot.fact = replace(slot.fact, ready=True)
            self._changed()

    def _probe(self, run: PodRun, slot: Slot) -> None:
        """Begin to ask the container's probes."""
        probes = ("startupProbe", "readinessProbe", "livenessProbe")
        if self.keeper is None or self._programs is None or slot.init or not run.addresses:
            return
        if not any(name in slot.spec for name in probes):
            return

        def ready(is_ready: bool) -> None:
            if slot.fact.state == "running" and slot.fact.ready != is_ready:
                slot.fact = replace(slot.fact, ready=is_ready)
                if not is_ready:
                    self._control.note(run.pod, "Unhealthy", "Readiness probe failed", self._now(), warning=True)
                self._changed()

        def failed(why: str) -> None:
            self._control.note(run.pod, "Unhealthy", why, self._now(), warning=True)
            message = f"Container {slot.name} failed a probe, will be restarted"
            self._control.note(run.pod, "Killing", message, self._now())
            if slot.number > 0 and self._programs is not None:
                grace = run.pod["spec"].get("terminationGracePeriodSeconds", 30)
                self._task(self._end(slot.number, grace))

        host = run.pod["spec"]["nodeName"]
        prober = Prober(self.keeper, self._programs, host, run.sandbox, run.addresses[0], ready, failed)
        slot.probing = asyncio.create_task(prober.run(slot.spec))

    async def _end(self, number: int, grace: int) -> None:
        """End one program: asked first, then by force."""
        assert self._programs is not None
        await self._programs.signal(number, signal.SIGTERM)
        await asyncio.sleep(grace)
        await self._programs.signal(number, signal.SIGKILL)

    def _program(self, pod: Object, spec: Object) -> ProgramSpec:
        hostname = pod["spec"].get("hostname") or meta(pod)["name"]
        variables = {"PATH": PATH, "HOSTNAME": hostname, "HOME": "/root", **environment(self._control.store, pod, spec)}
        words = [expand(word, variables) for word in (*spec["command"], *spec.get("args", ()))]
        return ProgramSpec(tuple(words), variables, spec.get("workingDir") or "/", own_processes=True)

    def _failed(self, run: PodRun, slot: Slot, why: str) -> None:
        """It could not be started at all."""
        now = self._now()
        slot.fact = ContainerFact("terminated", False, now, "StartError", why, 128, now, slot.fact.restarts, True)
        self._control.note(run.pod, "Failed", f"Error: {why}", now, warning=True)
        slot.crashes = max(slot.crashes, 1)
        self._again(run, slot)
        self._changed()

    def _ended(self, run: PodRun, slot: Slot, what: ProcessExited) -> None:
        now = self._now()
        if slot.log is not None:
            slot.log.end()
        if slot.probing is not None:
            slot.probing.cancel()
            slot.probing = None
        if slot.feed is not None:
            slot.feed.close()
            slot.feed = None
        reason, message = "", ""
        if what.failure is not None:
            reason = "StartError"
            message = f'exec: "{slot.spec["command"][0]}": {_why(what)}'
            self._control.note(run.pod, "Failed", f"Error: {message}", now, warning=True)
            slot.crashes = max(slot.crashes, 1)  # it will not be there a moment later
        since = slot.fact.since
        slot.number, slot.pid = 0, None
        slot.fact = ContainerFact(
            "terminated", False, since, reason, message, what.code, now, slot.fact.restarts, True, slot.fact.last
        )
        if not run.stopping:
            if slot.init and what.code == 0:
                self._next(run)
            else:
                self._again(run, slot)
        self._changed()

    def _again(self, run: PodRun, slot: Slot) -> None:
        """Start it again, if its pod wants that, after a while."""
        policy = run.pod["spec"].get("restartPolicy", "Always")
        if policy == "Never" or (slot.fact.code == 0 and (policy == "OnFailure" or slot.init)):
            return
        if slot.fact.finished - slot.fact.since > SOUND_SECONDS * SECOND:
            slot.crashes = 0
        pause = min(FIRST_PAUSE * 2 ** (slot.crashes - 1), LONGEST_PAUSE) if slot.crashes else 0.0
        slot.crashes += 1
        if pause:
            message = f"back-off {pause:.0f}s restarting failed container={slot.name}"
            last = slot.fact
            slot.fact = ContainerFact(
                "waiting", False, last.since, "CrashLoopBackOff", message, 0, 0, last.restarts, True, last
            )
            self._control.note(run.pod, "BackOff", f"Back-off restarting failed container {slot.name}", self._now(),
                               warning=True)  # fmt: skip
        loop = asyncio.get_running_loop()
        slot.restart = loop.call_later(pause, self._restart, run, slot)

    def _restart(self, run: PodRun, slot: Slot) -> None:
        last = slot.fact.last if slot.fact.state == "waiting" else slot.fact
        slot.fact = ContainerFact(
            "waiting", False, 0, "ContainerCreating", "", 0, 0, slot.fact.restarts + 1, True, last
        )
        slot.restart = None
        self._begin(run, slot)


def _why(what: ProcessExited) -> str:
    if what.code == 127:
        return "executable file not found in $PATH"
    return what.failure or ""


async def _follow(output: Output, log: ContainerLog) -> None:
    while data := await output.read():
        log.add(data)
    log.end()


def _in_order(spec: Object) -> Iterator[tuple[Object, bool]]:
    for one in spec.get("initContainers", ()):
        yield one, True
    for one in spec.get("containers", ()):
        yield one, False
