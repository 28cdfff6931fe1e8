"""What clients of the API server may do with pods: read what they said, run programs in them, reach their ports.

Rule of this file: it changes nothing that the caretaker keeps.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from emunet.cluster.defaults import containers_of
from emunet.cluster.store import Object, meta
from emunet.daemon.attaching import Visit
from emunet.daemon.caretaker import Caretaker
from emunet.daemon.kube.backend import CannotServe, Connection, LogWish, Session
from emunet.daemon.pod_connections import connect_in
from emunet.daemon.pod_run import PodRun, Slot, surroundings
from emunet.daemon.programs import RunningProgram
from emunet.linux.specification import ProgramSpec


class PodClients:
    """A running lab, as the API server sees it (`kube.backend.Backend`)."""

    def __init__(self, caretaker: Caretaker) -> None:
        self._caretaker = caretaker
        self.control = caretaker.control
        self.bell = caretaker.bell

    def now(self) -> int:
        """Lab time (ns)."""
        return self._caretaker.now()

    def logs(self, pod: Object, container: str, wish: LogWish) -> AsyncIterator[bytes]:
        """What a container has said. CannotServe at once where there is nothing to read."""
        uid, name = meta(pod)["uid"], meta(pod)["name"]
        containers = self._caretaker.containers
        run = containers.runs.get(uid) or containers.past.get(uid)
        slot = run.slots.get(container) if run is not None else None
        log = (slot.before if wish.previous else slot.log) if slot is not None else None
        if log is not None:
            return log.read(wish)
        if wish.previous:
            raise CannotServe(f'previous terminated container "{container}" in pod "{name}" not found')
        if slot is not None:
            why = slot.fact.reason or "ContainerCreating"
            raise CannotServe(f'container "{container}" in pod "{name}" is waiting to start: {why}')
        if not pod["spec"].get("nodeName"):
            raise CannotServe(f"pod {name} does not have a host assigned")
        return _nothing()

    async def execute(
        self, pod: Object, container: str, argv: Sequence[str], *, stdin: bool, terminal: bool
    ) -> Session:
        """Run a program in a pod's root and network, as the container's own user and with its variables."""
        run, slot = self._run_of(pod, container)
        assert self._caretaker.programs is not None
        item = next(one for one in containers_of(pod["spec"]) if one["name"] == container)
        like = slot.program if slot is not None else None
        like = like or surroundings(self.control.store, pod, item)
        variables = {"TERM": "xterm", **(like.environment or {})}
        spec = ProgramSpec(tuple(argv), variables, like.directory, terminal=terminal, user=like.user)
        program = RunningProgram(self._caretaker.programs)
        await program.start(run.sandbox, spec, stdin=stdin)
        return program

    async def attach(self, pod: Object, container: str) -> Session:
        """Follow what a container says, and type to it."""
        _, slot = self._run_of(pod, container)
        if slot is None:
            raise CannotServe(f"the container {container} is a placeholder: nothing runs in it to attach to")
        return Visit(slot)

    async def connect(self, pod: Object, port: int) -> Connection:
        """A connection to a port of a pod, from within its network."""
        run, _ = self._run_of(pod)
        keeper = self._caretaker.containers.keeper
        assert keeper is not None
        return await connect_in(keeper, run.sandbox, port)

    def _run_of(self, pod: Object, container: str = "") -> tuple[PodRun, Slot | None]:
        """What there is of a pod, and of one of its containers where it runs a program. CannotServe."""
        name = meta(pod)["name"]
        if self._caretaker.programs is None:
            raise CannotServe(f"{name} is a network stack in memory without processes, so nothing can run there")
        run = self._caretaker.containers.runs.get(meta(pod)["uid"])
        if run is None:
            raise CannotServe(f"the pod {name} has no sandbox")
        return run, run.slots.get(container)


async def _nothing() -> AsyncIterator[bytes]:
    """What a placeholder has said."""
    nothing: tuple[bytes, ...] = ()
    for line in nothing:
        yield line
