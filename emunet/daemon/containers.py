"""Containers as processes: what a pod's manifest says should run, run in the pod's own sandbox.

Init containers run one after the other, then all others side by side; after one that is a sidecar the next begins
as soon as it has begun. Ephemeral ones begin when they are added. One that ends is started again
as its pod's restart policy says, after a pause that doubles from ten seconds to five minutes. What is a
program and what a placeholder is said in `pod_run`.

A container's `postStart` goes on beside it, and it counts as running once that is done. How they end is said in
`endings`: when their pod is asked to, and sidecars also when all others are done for good.

Rule of this file: it starts and ends programs and tells what became of them (`PodFact`); what a pod's
status says of that is the kubelet's business.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Any

from emunet.cluster.control_plane import ControlPlane
from emunet.cluster.controllers.kubelet import ContainerFact, outcome
from emunet.cluster.desired import NAME_SERVER_IMAGE
from emunet.cluster.moments import SECOND, to_text_micro
from emunet.cluster.store import Change, Object, meta
from emunet.daemon.container_log import ContainerLog
from emunet.daemon.endings import Endings
from emunet.daemon.handlers import Handlers
from emunet.daemon.keeper_link import KeeperLink
from emunet.daemon.pod_run import PodRun, Slot, is_program, program_of, words_of
from emunet.daemon.probes import Prober
from emunet.daemon.programs import Output, Programs, open_streams
from emunet.daemon.resolvers import Resolvers
from emunet.daemon.supplies import missing
from emunet.linux.keeper_client import KeeperGone, KeeperRefused, ProcessExited
from emunet.linux.specification import ProgramSpec

FIRST_PAUSE, LONGEST_PAUSE = 10.0, 300.0
SOUND_SECONDS = 600
"""A container that ran for so long begins its pauses anew."""

PAST = 100
"""Pods without a sandbox whose logs are kept."""

_PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


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
        self.resolvers: Resolvers | None = None
        """Feeds the containers that are name servers."""
        self._resolvers_run = True
        self.keeper: KeeperLink | None = None
        """Opens the sockets that probes travel by."""
        self.register: Callable[[PodRun, str, int, int, str], None] = lambda *_: None
        """Hears of each program: the pod, the container, the number, the pid, the program's name."""
        self.missed: Callable[[ProcessExited], None] = lambda _: None
        """Hears of the end of a program that came before `register` did."""
        if programs is not None:
            control.store.listeners.append(self._hear)
        self._endings = None if programs is None else Endings(programs, self._handlers, self._note, self._task)

    def add(self, pod: Object, sandbox: str, addresses: tuple[str, ...]) -> PodRun:
        """A pod's sandbox is there; nothing runs in it yet."""
        run = PodRun(pod, sandbox, addresses, self._now())
        for spec, init in _in_order(pod["spec"]):
            runs = self._is_resolver(spec) or words_of(spec, is_program) is not None
            if self._programs is not None and runs:
                waiting = ContainerFact("waiting", False, reason="ContainerCreating", program=True)
                run.slots[spec["name"]] = Slot(spec["name"], spec, waiting, init)
        self.runs[meta(pod)["uid"]] = run
        return run

    def begin(self, uid: str) -> None:
        """Start what is to run in a pod."""
        run = self.runs.get(uid)
        if run is not None:
            self._next(run)

    def _hear(self, change: Change) -> None:
        """Somebody may have added containers to a pod that runs (`kubectl debug`)."""
        added: list[Object] = change.item["spec"].get("ephemeralContainers", []) if change.kind.name == "Pod" else []
        run = self.runs.get(meta(change.item)["uid"]) if added else None
        if run is not None and any(one["name"] not in run.slots and one["name"] not in run.idle for one in added):
            # Not at once: the store is in the middle of a change.
            asyncio.get_running_loop().call_soon(self._extend, run, added)

    def _extend(self, run: PodRun, added: list[Object]) -> None:
        for spec in added:
            name = spec["name"]
            if run.is_ending or name in run.slots or name in run.idle:
                continue
            if words_of(spec, is_program) is None:
                run.idle[name] = ContainerFact(since=self._now())
                why = f"Container {name} is a placeholder: a lab keeps no images, so nothing runs; name a command"
                self._note(run, "Placeholder", why)
                continue
            waiting = ContainerFact("waiting", False, reason="ContainerCreating", program=True)
            slot = run.slots[name] = Slot(name, spec, waiting, added=True)
            if spec.get("targetContainerName"):
                self._note(run, "NoEffect", f"Accepted without effect in a lab: {name}.targetContainerName")
            self._begin(run, slot)
        self._changed()

    def supplied(self) -> None:
        """What containers cannot begin without may have come."""
        for run in self.runs.values():
            if any(slot.held for slot in run.slots.values()):
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
                if not on and slot.number > 0 and self._programs is not None:
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
        run.stopping = True
        if self._endings is not None:
            self._endings.stop(run, grace)

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
            slot.rest()

    def close(self) -> None:
        """The lab is ending."""
        for uid in list(self.runs):
            self.forget(uid)
        for task in self._tasks:
            task.cancel()

    # Within

    def _note(self, run: PodRun, reason: str, message: str, warning: bool = False) -> None:
        self._control.note(run.pod, reason, message, self._now(), warning=warning)

    def _task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _next(self, run: PodRun) -> None:
        """Start the next init container, or all others once these are done."""
        if run.is_ending:
            return
        for slot in [slot for slot in run.slots.values() if slot.init]:
            if slot.is_past or (slot.is_sidecar and slot.fact.restarts):
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
        if not run.is_ending and self._programs is not None and not slot.number and not dark:
            slot.number = -1  # being started
            self._task(self._start(run, slot, self._programs))

    async def _start(self, run: PodRun, slot: Slot, programs: Programs) -> None:
        pod = self._control.store.get("pods", meta(run.pod)["namespace"], meta(run.pod)["name"]) or run.pod
        lack = missing(self._control.store, pod, slot.spec, again=slot.fact.restarts > 0)
        if lack is not None:
            self._hold(run, slot, *lack)
            return
        slot.held = ""
        log = ContainerLog(self._now, lambda at: to_text_micro(at, self._control.store.epoch))
        early: list[ProcessExited] = []

        def ended(what: ProcessExited) -> None:
            if slot.number == what.request:
                self._ended(run, slot, what)
            else:  # it has ended before we even heard that it began
                early.append(what)

        try:
            spec = slot.program = self._program(pod, slot)
            streams = open_streams(stdin=bool(slot.spec.get("stdin")), terminal=spec.terminal, together=True)
        except (OSError, ValueError) as error:
            slot.number = 0
            self._failed(run, slot, str(error))
            return
        try:
            if self.resolvers is not None and self._is_resolver(slot.spec):
                slot.feed = self.resolvers.begin(lambda: self._is_ready(slot))
                streams.theirs = (slot.feed.descriptor(), *streams.theirs[1:])
            slot.number, slot.pid = await programs.start(run.sandbox, spec, ended, *streams.theirs)
        except (KeeperRefused, KeeperGone, ValueError) as error:
            streams.close()
            slot.rest()
            slot.number = 0
            self._failed(run, slot, str(error))
            return
        finally:
            streams.given()
        self.register(run, slot.name, slot.number, slot.pid, spec.argv[0])
        slot.before, slot.log, slot.input, slot.attached = slot.log, log, streams.input, False
        last = slot.fact if slot.fact.state == "terminated" else slot.fact.last
        running = ContainerFact(
            "running", slot.is_ready, self._now(), restarts=slot.fact.restarts, program=True, last=last
        )
        self._task(_follow(streams.outputs[1], log))
        self._control.note(run.pod, "Started", f"Started container {slot.name}", self._now())
        if slot.hook("postStart") is None:
            slot.fact = running
        slot.beside = asyncio.create_task(self._beside(run, slot, spec, running))
        for what in early:
            self.missed(what)
            slot.fact = running
            self._ended(run, slot, what)
        if run.is_ending and slot.number and self._endings is not None:
            self._endings.stop_late(run)
        if not self._resolvers_run:
            self.let_resolvers_run(False)
        if slot.is_sidecar:
            self._next(run)
        self._changed()

    def _hold(self, run: PodRun, slot: Slot, reason: str, event: str, why: str) -> None:
        """It cannot begin without what is not there; `supplied` tries again."""
        slot.number = 0
        if slot.held == why:
            return
        slot.held = why
        message = why.removeprefix("Error: ") if event == "Failed" else ""
        slot.fact = replace(slot.fact, state="waiting", reason=reason, message=message)
        self._control.note(run.pod, event, why, self._now(), warning=True)
        self._changed()

    def _program(self, pod: Object, slot: Slot) -> ProgramSpec:
        if self.resolvers is not None and self._is_resolver(slot.spec):
            return self.resolvers.spec()
        return program_of(self._control.store, pod, slot.spec)

    def _is_resolver(self, spec: Object) -> bool:
        return self.resolvers is not None and spec.get("image") == NAME_SERVER_IMAGE and not spec.get("command")

    def _is_ready(self, slot: Slot) -> None:
        """A name server answers."""
        if slot.fact.state == "running":
            slot.fact = replace(slot.fact, ready=True)
            self._changed()

    async def _beside(self, run: PodRun, slot: Slot, spec: ProgramSpec, running: ContainerFact) -> None:
        """What goes on beside a container while it runs: its hook, then its probes."""
        hook, handlers = slot.hook("postStart"), self._handlers(run)
        if hook is not None:
            why = await handlers.ask(slot.spec, hook, spec) if handlers is not None else None
            if why is not None:
                self._control.note(run.pod, "FailedPostStartHook", f"PostStartHook failed: {why}", self._now(),
                                   warning=True)  # fmt: skip
                message = f"FailedPostStartHook of container {slot.name}"
                self._control.note(run.pod, "Killing", message, self._now())
                slot.fact = running
                self._end(run, slot)
                return
            slot.fact = running
            self._changed()
        if handlers is None or not any(name in slot.spec for name in _PROBES) or (slot.init and not slot.is_sidecar):
            return

        def ready(is_ready: bool) -> None:
            if slot.fact.state == "running" and slot.fact.ready != is_ready:
                slot.fact = replace(slot.fact, ready=is_ready)
                if slot.is_sidecar:
                    self._next(run)
                self._changed()

        def unhealthy(which: str, why: str) -> None:
            self._control.note(run.pod, "Unhealthy", f"{which} probe failed: {why}", self._now(), warning=True)

        def failed(which: str) -> None:
            message = f"Container {slot.name} failed {which} probe, will be restarted"
            self._control.note(run.pod, "Killing", message, self._now())
            self._end(run, slot)

        await Prober(handlers, spec, ready, unhealthy, failed).run(slot.spec)

    def _handlers(self, run: PodRun) -> Handlers | None:
        if self.keeper is None or self._programs is None or not run.addresses:
            return None
        return Handlers(self.keeper, self._programs, run.pod["spec"]["nodeName"], run.sandbox, run.addresses[0])

    def _end(self, run: PodRun, slot: Slot) -> None:
        """End one program, which will be started again."""
        if self._endings is not None:
            self._task(self._endings.end_one(run, slot, _grace(run)))

    def _failed(self, run: PodRun, slot: Slot, why: str) -> None:
        """It could not be started at all."""
        now = self._now()
        slot.fact = ContainerFact("terminated", False, now, "StartError", why, 128, now, slot.fact.restarts, True)
        self._control.note(run.pod, "Failed", f"Error: {why}", now, warning=True)
        slot.crashes = max(slot.crashes, 1)
        self._again(run, slot)
        self._end_sidecars(run)
        self._changed()

    def _ended(self, run: PodRun, slot: Slot, what: ProcessExited) -> None:
        now = self._now()
        slot.rest()
        reason, message = "", ""
        if what.failure is not None:
            reason = "StartError"
            message = f'exec: "{slot.program.argv[0] if slot.program else slot.name}": {_why(what)}'
            self._control.note(run.pod, "Failed", f"Error: {message}", now, warning=True)
            slot.crashes = max(slot.crashes, 1)  # it will not be there a moment later
        since = slot.fact.since
        slot.number, slot.pid = 0, None
        slot.fact = ContainerFact(
            "terminated", False, since, reason, message, what.code, now, slot.fact.restarts, True, slot.fact.last
        )
        if not run.is_ending:
            if slot.init and what.code == 0 and not slot.is_sidecar:
                self._next(run)
            else:
                self._again(run, slot)
            self._end_sidecars(run)
        elif self._endings is not None:
            self._endings.take_turns(run)
        self._changed()

    def _end_sidecars(self, run: PodRun) -> None:
        """Nothing of a pod will run any more but its sidecars: these end too, in their order."""
        if run.is_ending or self._endings is None or not outcome(run.pod["spec"], run.fact()):
            return
        run.over = True
        if any(slot.number for slot in run.slots.values()):
            self._endings.stop(run, _grace(run))

    def _again(self, run: PodRun, slot: Slot) -> None:
        """Start it again, if its pod wants that, after a while."""
        policy = "Always" if slot.is_sidecar else run.pod["spec"].get("restartPolicy", "Always")
        if (
            slot.added
            or policy == "Never"
            or (slot.fact.code == 0 and (policy == "OnFailure" or (slot.init and not slot.is_sidecar)))
        ):
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


def _grace(run: PodRun) -> int:
    """Seconds that what runs in a pod has to end by itself."""
    return int(run.pod["spec"].get("terminationGracePeriodSeconds", 30))


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
