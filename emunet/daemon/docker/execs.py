"""`docker exec`: programs that are run in a container beside its own.

Rule of this file: a command that cannot be run says so as its output, and ends with the code that a shell would give.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emunet.cluster.docker.networks import Refused, identity
from emunet.daemon.docker import record
from emunet.daemon.docker.commands import PATH, directory_of, missing, user_of, variables_of
from emunet.daemon.docker.process import Process
from emunet.daemon.docker.record import Body, Exec, Record
from emunet.daemon.kube.backend import CannotServe
from emunet.linux.specification import ProgramSpec

if TYPE_CHECKING:
    from emunet.daemon.docker.engine import Engine


KEPT = 100
"""Those of a container that have ended and can still be asked for their code."""


class Execs:
    """Those of one engine, until their container is removed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._items: dict[str, Exec] = {}
        self._made = 0

    def find(self, number: str) -> Exec:
        """The one with that id. Refused."""
        if number not in self._items:
            raise Refused(404, f"No such exec instance: {number}")
        return self._items[number]

    def forget(self, found: Record) -> None:
        """Its container is gone."""
        for number in found.execs:
            self._items.pop(number, None)

    def add(self, found: Record, body: Body) -> Exec:
        """A program that is to be run in a container. Refused where that does not run."""
        if found.state == "paused":
            raise Refused(409, f"container {found.name} is paused, unpause the container before exec")
        if not found.is_running:
            raise Refused(409, f"container {found.id} is not running")
        if not record.words(body.get("Cmd")):
            raise Refused(400, "no exec command specified")
        user_of(str(body.get("User") or ""))  # so that a wrong one is told now
        if self._engine.ground.programs is None:
            raise Refused(409, f"{found.name} is a network stack in memory without processes: nothing can run there")
        process = Process(terminal=bool(body.get("Tty")), stdin=bool(body.get("AttachStdin")))
        over = [old for old in found.execs.values() if old.process.ended.is_set()]
        for old in over[: max(0, len(over) - KEPT)]:
            del found.execs[old.id], self._items[old.id]
        self._made += 1
        number = identity(found.id, "exec", self._made)
        made = Exec(number, body, found.id, process)
        self._items[number] = found.execs[number] = made
        self._engine.tell(found, f"exec_create: {' '.join(record.words(body['Cmd']))}", execID=number)
        return made

    async def begin(self, one: Exec) -> None:
        """Run it; what goes wrong is said as its output, and its code tells."""
        one.begun = True
        found = self._engine.records[one.container]
        argv = record.words(one.body.get("Cmd"))
        variables = variables_of(found, terminal=one.terminal)
        rows = [str(row).partition("=") for row in one.body.get("Env") or ()]
        variables |= {name: value for name, _, value in rows}
        self._engine.tell(found, f"exec_start: {' '.join(argv)}", execID=one.id)
        why = missing(argv[0], variables.get("PATH", PATH))
        if why:
            await one.process.say(1, f"OCI runtime exec failed: exec failed: {why}\r\n".encode())
            one.process.finish(127)
            return
        user = user_of(str(one.body.get("User") or found.body.get("User") or ""))
        directory = one.body.get("WorkingDir") or directory_of(found)
        spec = ProgramSpec(tuple(argv), variables, directory, one.terminal, user=user)
        assert self._engine.ground.programs is not None
        try:
            await one.process.start(self._engine.ground.programs, found.sandbox, spec)
        except CannotServe as error:
            await one.process.say(1, f"OCI runtime exec failed: {error}\r\n".encode())
            one.process.finish(126)
            return
        self._engine.task(self._watch(found, one))

    async def _watch(self, found: Record, one: Exec) -> None:
        await one.process.ended.wait()
        self._engine.tell(found, "exec_die", execID=one.id, exitCode=str(one.process.code))
