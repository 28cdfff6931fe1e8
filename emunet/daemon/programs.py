"""Programs in sandboxes, with their streams at hand: what containers, exec and logs are made of.

Rule of this file: a program's end is heard from the keeper, by the number of the request that started
it; its descriptors here are closed when it is done with, whoever forgets it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import struct
import termios
from collections.abc import Callable

from emunet.daemon.keeper_link import KeeperLink
from emunet.daemon.kube.backend import CannotServe
from emunet.linux.keeper_client import KeeperGone, KeeperRefused, ProcessExited, SandboxEnded, Signal, Spawn
from emunet.linux.specification import ProgramSpec

READ_SIZE = 1 << 16
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def found_on_machine(command: str, path: str = _PATH) -> bool:
    """Whether a command is a program of this machine, as a pod would find it."""
    candidates = [command] if "/" in command else [os.path.join(folder, command) for folder in path.split(":")]
    return any(os.path.isfile(one) and os.access(one, os.X_OK) for one in candidates)


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


class RunningProgram:
    """A program for a client, with a terminal or with pipes (`kube.backend.Session`)."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        self._code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.number = 0
        """By which it is signalled, and its pid, once it has begun."""
        self.pid = 0
        self._input: int | None = None
        self._outputs: dict[int, Output] = {}
        self._terminal = False

    async def start(self, sandbox: str, spec: ProgramSpec, *, stdin: bool) -> None:
        """Start it. CannotServe with the reason where it cannot be."""
        theirs: list[int] = []
        try:
            if spec.terminal:
                master, slave = pty.openpty()
                theirs.append(slave)
                self._terminal = True
                self._input = os.dup(master)
                os.set_blocking(self._input, False)
                self._outputs[1] = Output(master)
                streams = (slave, slave, slave)
            else:
                read, out = os.pipe2(os.O_CLOEXEC)
                read_error, error = os.pipe2(os.O_CLOEXEC)
                theirs += [out, error]
                self._outputs = {1: Output(read), 2: Output(read_error)}
                given: int | None = None
                if stdin:
                    given, self._input = os.pipe2(os.O_CLOEXEC)
                    os.set_blocking(self._input, False)
                    theirs.append(given)
                streams = (given, out, error)  # type: ignore[assignment]
            self.number, self.pid = await self._programs.start(sandbox, spec, self._ended, *streams)
        except (KeeperRefused, KeeperGone, OSError) as why:
            await self.close()
            raise CannotServe(f"cannot run {spec.argv[0]}: {why}") from None
        finally:
            for descriptor in theirs:
                os.close(descriptor)

    def _ended(self, what: ProcessExited) -> None:
        if what.failure is not None and 2 in self._outputs:
            self._failure = what.failure
        if not self._code.done():
            self._code.set_result(what.code)

    async def write(self, data: bytes) -> None:
        """To its standard input; waits while the program does not read."""
        loop = asyncio.get_running_loop()
        while data and self._input is not None:
            try:
                written = os.write(self._input, data)
                data = data[written:]
            except BlockingIOError:
                room = asyncio.Event()
                loop.add_writer(self._input, room.set)
                try:
                    await room.wait()
                finally:
                    if self._input is not None:
                        loop.remove_writer(self._input)

    def close_input(self) -> None:
        """No more will come."""
        if self._input is None:
            return
        if self._terminal:
            with contextlib.suppress(OSError):
                os.write(self._input, b"\x04")
            return
        os.close(self._input)
        self._input = None

    async def read(self, stream: int) -> bytes:
        """Some of what it says."""
        output = self._outputs.get(stream)
        return await output.read() if output is not None else b""

    def resize(self, width: int, height: int) -> None:
        """Its terminal has another size."""
        if self._terminal and self._input is not None:
            size = struct.pack("HHHH", height & 0xFFFF, width & 0xFFFF, 0, 0)
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._input, termios.TIOCSWINSZ, size)

    async def wait(self) -> int:
        """Its exit code."""
        return await asyncio.shield(self._code)

    async def close(self) -> None:
        """Nobody listens any more: it ends, if it has not."""
        if self.number and not self._code.done():
            await self._programs.signal(self.number, signal.SIGKILL)
        if self._input is not None:
            os.close(self._input)
            self._input = None
        for output in self._outputs.values():
            output.close()
