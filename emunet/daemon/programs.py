"""Programs in sandboxes, with their streams at hand: what containers, exec and logs are made of.

Rule of this file: a program's end is heard from the keeper, by the number of the request that started
it; its descriptors here are closed when it is done with, whoever forgets it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import signal
from collections.abc import Callable
from dataclasses import dataclass

from emunet.daemon.keeper_link import KeeperLink
from emunet.daemon.kube.backend import CannotServe
from emunet.daemon.program_input import Input
from emunet.linux.keeper_client import KeeperGone, KeeperRefused, ProcessExited, SandboxEnded
from emunet.linux.keeper_requests import Signal, Spawn
from emunet.linux.specification import ProgramSpec

READ_SIZE = 1 << 16


class Programs:
    """Every program that was started through here, until it has ended."""

    def __init__(self, keeper: KeeperLink) -> None:
        self._keeper = keeper
        self._ends: dict[int, Callable[[ProcessExited], None]] = {}

    def hear(self, what: ProcessExited | SandboxEnded) -> None:
        """Something has ended."""
        if isinstance(what, ProcessExited):
            ended = self._ends.pop(what.request, None)
            if ended is not None:
                ended(what)

    async def start(
        self, sandbox: str, spec: ProgramSpec, ended: Callable[[ProcessExited], None],
        stdin: int | None = None, stdout: int | None = None, stderr: int | None = None,
    ) -> tuple[int, int]:  # fmt: skip
        """Start a program: (the number by which it is signalled, its pid). KeeperRefused."""
        number, answer = self._keeper.send(Spawn(sandbox, spec, stdin, stdout, stderr))
        self._ends[number] = ended
        try:
            return number, await answer
        except (KeeperRefused, KeeperGone):
            self._ends.pop(number, None)
            raise

    async def signal(self, number: int, which: int) -> None:
        """Send a signal; nothing where the program has ended."""
        with contextlib.suppress(KeeperRefused, KeeperGone):
            await self._keeper.ask(Signal(number, which))


class Output:
    """What a program says on one descriptor, read as it comes."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._chunks: asyncio.Queue[bytes] = asyncio.Queue(64)
        self._loop = asyncio.get_running_loop()
        self._watching = False
        self._open = True
        self._watch()

    async def read(self) -> bytes:
        """Some of it; b"" at the end."""
        data = await self._chunks.get()
        if data:
            self._watch()
        else:
            self._chunks.put_nowait(b"")
        return data

    def close(self) -> None:
        """Read no more."""
        if self._open:
            self._open = False
            if self._watching:
                self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            with contextlib.suppress(asyncio.QueueFull):
                self._chunks.put_nowait(b"")

    def _watch(self) -> None:
        if self._open and not self._watching and self._chunks.qsize() < 32:
            self._watching = True
            self._loop.add_reader(self._descriptor, self._ready)

    def _ready(self) -> None:
        try:
            data = os.read(self._descriptor, READ_SIZE)
        except BlockingIOError:
            return
        except OSError:  # the other end of a terminal is gone
            data = b""
        if not data:
            self.close()
            return
        self._chunks.put_nowait(data)
        if self._chunks.qsize() >= 32:  # the reader is slow: let the program wait
            self._watching = False
            self._loop.remove_reader(self._descriptor)


@dataclass(slots=True)
class Streams:
    """The streams of a program that is to start: its ends, and ours. With a terminal, 1 is all that it says."""

    theirs: tuple[int | None, int, int]
    outputs: dict[int, Output]
    input: Input | None = None

    def given(self) -> None:
        """The program has its ends, or will never have them."""
        for descriptor in {one for one in self.theirs if one is not None}:
            os.close(descriptor)

    def close(self) -> None:
        """Done with ours."""
        if self.input is not None:
            self.input.close()
        for output in self.outputs.values():
            output.close()


def open_streams(*, stdin: bool, terminal: bool, together: bool = False) -> Streams:
    """A terminal, or pipes; `together`: standard output and error come as one. OSError."""
    if terminal:
        master, slave = pty.openpty()
        given = Input(os.dup(master), terminal=True)
        return Streams((slave, slave, slave), {1: Output(master)}, given)
    read, out = os.pipe2(os.O_CLOEXEC)
    outputs, error = {1: Output(read)}, out
    if not together:
        read, error = os.pipe2(os.O_CLOEXEC)
        outputs[2] = Output(read)
    if not stdin:
        return Streams((None, out, error), outputs)
    source, sink = os.pipe2(os.O_CLOEXEC)
    return Streams((source, out, error), outputs, Input(sink, terminal=False))


class RunningProgram:
    """A program for a client, with a terminal or with pipes (`kube.backend.Session`)."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        self._code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.number = 0
        """By which it is signalled, and its pid, once it has begun."""
        self.pid = 0
        self._streams: Streams | None = None

    async def start(self, sandbox: str, spec: ProgramSpec, *, stdin: bool) -> None:
        """Start it. CannotServe with the reason where it cannot be."""
        try:
            streams = self._streams = open_streams(stdin=stdin, terminal=spec.terminal)
        except OSError as why:
            raise CannotServe(f"cannot run {spec.argv[0]}: {why}") from None
        try:
            self.number, self.pid = await self._programs.start(sandbox, spec, self._ended, *streams.theirs)
        except (KeeperRefused, KeeperGone) as why:
            await self.close()
            raise CannotServe(f"cannot run {spec.argv[0]}: {why}") from None
        finally:
            streams.given()

    def _ended(self, what: ProcessExited) -> None:
        if not self._code.done():
            self._code.set_result(what.code)

    async def write(self, data: bytes) -> None:
        """To its standard input; waits while the program does not read."""
        if self._streams is not None and self._streams.input is not None:
            await self._streams.input.write(data)

    def close_input(self) -> None:
        """No more will come."""
        if self._streams is not None and self._streams.input is not None:
            self._streams.input.end()

    async def read(self, stream: int) -> bytes:
        """Some of what it says."""
        output = self._streams.outputs.get(stream) if self._streams is not None else None
        return await output.read() if output is not None else b""

    def resize(self, width: int, height: int) -> None:
        """Its terminal has another size."""
        if self._streams is not None and self._streams.input is not None:
            self._streams.input.resize(width, height)

    async def wait(self) -> int:
        """Its exit code."""
        return await asyncio.shield(self._code)

    async def close(self) -> None:
        """Nobody listens any more: it ends, if it has not."""
        if self.number and not self._code.done():
            await self._programs.signal(self.number, signal.SIGKILL)
        if self._streams is not None:
            self._streams.close()
            self._streams = None
