"""A program of a container and whoever listens to it: its output goes to all that listen, and into its log.

What is sent to its input before it has begun is kept, and so is the end of that input. A foreground client
that reads slowly makes the program wait, as a pipe would.

Rule of this file: `ended` is set when the program has ended and all that it said has been handed on.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

from emunet.daemon.kube.backend import Bell
from emunet.daemon.programs import Programs, RunningProgram
from emunet.linux.specification import ProgramSpec

LOG_SIZE = 1 << 20
"""Bytes that are kept of what a container said; the oldest lines give way."""

_LONGEST_LINE = 1 << 14
_WAITING = 64
"""Pieces of input that wait for the program; then whoever sends them waits."""

Sink = Callable[[int, bytes], Awaitable[None]]
"""Gets (1 or 2, bytes). ConnectionError: it is gone."""


@dataclass(slots=True)
class Log:
    """What was said, line by line: (when, stream, line). With a terminal pieces are as they came."""

    terminal: bool = False
    lines: deque[tuple[int, int, bytes]] = field(default_factory=deque)
    first: int = 0
    """The number of the oldest line that is kept."""
    bell: Bell = field(default_factory=Bell)
    _rest: dict[int, bytes] = field(default_factory=dict)
    _size: int = 0

    def add(self, stream: int, data: bytes) -> None:
        """Something was said."""
        if self.terminal:
            self._append(stream, data)
        else:
            *whole, rest = (self._rest.pop(stream, b"") + data).split(b"\n")
            for line in whole:
                self._append(stream, line + b"\n")
            if len(rest) > _LONGEST_LINE:
                self._append(stream, rest)
            elif rest:
                self._rest[stream] = rest
        self.bell.ring()

    def flush(self) -> None:
        """No more will come of the lines that have no end."""
        for stream, rest in self._rest.items():
            self._append(stream, rest)
        self._rest.clear()
        self.bell.ring()

    def since(self, number: int) -> Iterator[tuple[int, int, bytes]]:
        """The lines from a number on."""
        for index in range(max(0, number - self.first), len(self.lines)):
            yield self.lines[index]

    @property
    def next(self) -> int:
        """The number that the next line will have."""
        return self.first + len(self.lines)

    def _append(self, stream: int, line: bytes) -> None:
        self.lines.append((time.time_ns(), stream, line))
        self._size += len(line)
        while self._size > LOG_SIZE and len(self.lines) > 1:
            self._size -= len(self.lines.popleft()[2])
            self.first += 1


class Process:
    """One run of a container, or one exec. `code` counts once `ended` is set."""

    def __init__(self, *, terminal: bool, stdin: bool, log: Log | None = None) -> None:
        self.terminal = terminal
        self.ended = asyncio.Event()
        self.code = 0
        self.number = 0
        self.pid = 0
        self.on_end: Callable[[], None] = lambda: None
        """Hears that it has ended, before anybody who waits for that."""
        self._stdin = stdin
        self._log = log
        self._sinks: list[Sink] = []
        self._input: asyncio.Queue[bytes | None] = asyncio.Queue(_WAITING)
        self._size: tuple[int, int] | None = None
        self._program: RunningProgram | None = None
        self._programs: Programs | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, programs: Programs, sandbox: str, spec: ProgramSpec) -> None:
        """Begin. CannotServe."""
        program = RunningProgram(programs)
        await program.start(sandbox, spec, stdin=self._stdin)
        self._programs, self._program = programs, program
        self.number, self.pid = program.number, program.pid
        if self._size is not None:
            program.resize(*self._size)
        self._feeding = self._task(self._feed(program))
        self._task(self._follow(program))

    def listen(self, sink: Sink) -> Callable[[], None]:
        """Hand what it says to `sink`, until the function that is given back is called."""
        self._sinks.append(sink)
        return lambda: self._forget(sink)

    async def write(self, data: bytes | None) -> None:
        """To its input; None is the end of it. Kept where it has not begun yet."""
        await self._input.put(data)

    def resize(self, width: int, height: int) -> None:
        """Its terminal has another size, also before it has begun."""
        self._size = (width, height)
        if self._program is not None:
            self._program.resize(width, height)

    async def signal(self, which: int) -> None:
        """Send it a signal."""
        if self._programs is not None and self.number and not self.ended.is_set():
            await self._programs.signal(self.number, which)

    def finish(self, code: int) -> None:
        """It has ended, or never was a program."""
        if self.ended.is_set():
            return
        self.code = code
        self.on_end()
        if self._log is not None:
            self._log.flush()
        self.ended.set()

    async def say(self, stream: int, data: bytes) -> None:
        """Something is said by it, or in its name."""
        if self._log is not None:
            self._log.add(stream, data)
        for sink in list(self._sinks):
            try:
                await sink(stream, data)
            except (ConnectionError, RuntimeError):  # RuntimeError: its transport is closed already
                self._forget(sink)

    # Within

    def _forget(self, sink: Sink) -> None:
        if sink in self._sinks:
            self._sinks.remove(sink)

    def _task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _feed(self, program: RunningProgram) -> None:
        while (data := await self._input.get()) is not None:
            try:
                await program.write(data)
            except OSError:  # it has closed its input: the rest is for nobody
                continue
        program.close_input()

    async def _follow(self, program: RunningProgram) -> None:
        copies = [asyncio.create_task(self._copy(program, stream)) for stream in (1, 2)]
        code = await program.wait()
        self._feeding.cancel()
        # What it left behind may hold its output open: a moment for the rest, no more.
        await asyncio.wait(copies, timeout=1.0)
        for copy in copies:
            copy.cancel()
        await asyncio.gather(*copies, return_exceptions=True)
        await program.close()
        self.finish(code)

    async def _copy(self, program: RunningProgram, stream: int) -> None:
        while data := await program.read(stream):
            await self.say(stream, data)
