"""How a lab speaks with its keeper: requests with numbers, answers to them, and what happens unasked.

From an event loop: `send` a request (it never waits), watch `fileno` for reading, and
take what has come with `receive`. Tests and small programs use `call`, or the methods
that wrap it. Sandboxes are made side by side, so send many before taking answers.

    keeper = Keeper.start()
    sandbox = keeper.create_sandbox(SandboxSpec("web-1", "web-1", (InterfaceSpec("eth0", "02:00:00:00:00:01"),)))
    pid = keeper.spawn("web-1", ProgramSpec(("ip", "address")), stdout=1)
    keeper.close()  # kills all of it

Rule of this file: descriptors that come with an answer belong to whoever takes it, and
are close-on-exec. Process ids are as this process sees them, never the lab's own.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emunet.linux import messages, syscalls, user_maps
from emunet.linux.keeper_requests import (
    CreateSandbox,
    Probe,
    RemoveSandbox,
    Request,
    Sandbox,
    Signal,
    Spawn,
    Value,
)
from emunet.linux.refusals import refusal
from emunet.linux.specification import ProbeSpec, ProgramSpec, SandboxSpec

_BOOT = "import sys; sys.path += sys.argv[2:]; from emunet.linux.keeper import main; main(int(sys.argv[1]))"
_START_SECONDS = 30.0
_CLOSE_SECONDS = 30.0


class KeeperGone(Exception):
    """The keeper has ended, and with it every process of the lab."""


class KeeperRefused(Exception):
    """The keeper could not do what was asked; `number` is the errno, None where there is none."""

    def __init__(self, text: str, number: int | None) -> None:
        super().__init__(text)
        self.number = number


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to request number `request`: its value, or the error."""

    request: int
    value: Any = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class ProcessExited:
    """A program that `Spawn` started (by request number `request`) has ended.

    `code` is as a shell tells it: 128 + n for one killed by signal n, which `signal` then names.
    `failure`: why it could not be executed at all (then `code` is 127 or 126).
    """

    request: int
    sandbox: str
    pid: int
    code: int
    signal: int | None = None
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class SandboxEnded:
    """A sandbox's pause has died without being asked to, and with it all that ran there."""

    sandbox: str


@dataclass(frozen=True, slots=True)
class KeeperEnded:
    """The keeper has ended, and with it every process of the lab. The last thing `receive` ever tells."""


Received = Reply | ProcessExited | SandboxEnded | KeeperEnded


class Keeper:
    """A running keeper and our end of its control socket."""

    def __init__(self, control: socket.socket, pid: int, own_user_namespace: bool) -> None:
        self.pid = pid
        self.own_user_namespace = own_user_namespace
        self._control = control
        self._pidfd = os.pidfd_open(pid)
        self._numbers = 0
        self._pending: dict[int, Request[Any]] = {}
        self._programs: dict[int, int] = {}  # request number of a Spawn -> pid
        self._failures: dict[int, str] = {}
        self._ready: set[int] = set()  # request numbers of sandboxes that are ready
        self._removed: set[str] = set()
        self._unsent: deque[tuple[dict[str, Any], list[int]]] = deque()
        self._received: deque[Received] = deque()
        self._ended = False

    @classmethod
    def start(cls) -> Keeper:
        """Start a keeper. LinuxRefused, with the cure, where this machine does not allow one.

        Takes about 40 ms. A process forked from this one later must call `abandon` there: the lab
        lives while anybody holds the control socket. Raises this process's limit of open files, since
        each interface of the lab costs it two.
        """
        _raise_file_limit()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        ours.settimeout(_START_SECONDS)
        # While it is born: the keeper's parent, `starter`, goes away, and we become its parent in place of init.
        before = syscalls.set_child_subreaper(True)
        starter = None
        try:
            with theirs:
                starter = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", _BOOT, str(theirs.fileno()), *import_paths()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,  # a reader of our output is not to wait for the lab's end
                    pass_fds=[theirs.fileno()],
                )
            own_user_namespace = _stage(ours).body["own"]
            if own_user_namespace:
                _write_maps(starter.pid)
            messages.send(ours, {"stage": "mapped"})
            pid = _stage(ours).sender
        except BaseException:
            ours.close()  # and so ends what has been started
            raise
        finally:
            if starter is not None:
                starter.wait()
            syscalls.set_child_subreaper(before)
        ours.settimeout(None)
        return cls(ours, pid, own_user_namespace)

    def __enter__(self) -> Keeper:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """Readable when `receive` has something to say."""
        return self._control.fileno()

    @property
    def wants_to_write(self) -> bool:
        """True while requests wait for room in the socket: then watch `fileno` for writing too, and `flush`."""
        return bool(self._unsent)

    # Asking

    def send(self, request: Request[Any]) -> int:
        """Send a request without waiting; gives its number, which its `Reply` will carry.

        ValueError where the request makes no sense. Its descriptors may be closed once this returns.
        """
        body, descriptors = request.encode()
        self._numbers += 1
        self._pending[self._numbers] = request
        if isinstance(request, RemoveSandbox):
            self._removed.add(request.sandbox)
        self._unsent.append((body | {"request": self._numbers}, [os.dup(one) for one in descriptors]))
        self.flush()
        return self._numbers

    def flush(self) -> None:
        """Send what waits, as far as there is room."""
        while self._unsent:
            body, descriptors = self._unsent[0]
            try:
                messages.send(self._control, body, descriptors, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:  # the keeper is gone; `receive` will find the end of its messages and say so
                pass
            self._unsent.popleft()
            for descriptor in descriptors:
                os.close(descriptor)

    def receive(self) -> list[Received]:
        """All that has come: answers, and what happened unasked. Never waits."""
        while not self._ended:
            try:
                message = messages.receive(self._control, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            if message is None:
                self._end()
            else:
                self._take(message)
        self.flush()
        received = list(self._received)
        self._received.clear()
        return received

    def call(self, request: Request[Value], timeout: float = 60.0) -> Value:
        """Send a request and wait for its answer, at most `timeout` seconds (TimeoutError).

        KeeperRefused where it could not be done, KeeperGone where the keeper ended. What else arrives
        meanwhile is kept for `receive`.
        """
        value: Value = self.wait(self.send(request), timeout)
        return value

    def wait(self, number: int, timeout: float = 60.0) -> Any:
        """Wait for the answer to a request sent before; see `call`."""
        reply = self._wait_for(lambda one: isinstance(one, Reply) and one.request == number, timeout)
        if reply.error is not None:
            raise reply.error
        return reply.value

    def create_sandbox(self, spec: SandboxSpec) -> Sandbox:
        """Make a sandbox and wait until it is ready."""
        return self.call(CreateSandbox(spec))

    def create_sandboxes(self, specs: Sequence[SandboxSpec]) -> list[Sandbox]:
        """Make many side by side; the first that fails raises, when all have been tried."""
        numbers = [self.send(CreateSandbox(spec)) for spec in specs]
        return self._wait_all(numbers)

    def remove_sandbox(self, sandbox: str) -> None:
        """End a sandbox and wait until its processes are gone."""
        self.call(RemoveSandbox(sandbox))

    def remove_sandboxes(self, sandboxes: Sequence[str]) -> None:
        """End many side by side."""
        self._wait_all([self.send(RemoveSandbox(sandbox)) for sandbox in sandboxes])

    def spawn(
        self,
        sandbox: str,
        program: ProgramSpec,
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
    ) -> int:
        """Start a program in a sandbox; gives its pid. See `Spawn`."""
        return self.call(Spawn(sandbox, program, stdin, stdout, stderr))

    def signal(self, pid: int, number: int) -> None:
        """Send a signal to a program that `spawn` started. KeeperRefused (ESRCH) once it has ended."""
        for request, known in self._programs.items():
            if known == pid:
                return self.call(Signal(request, number))
        raise KeeperRefused(f"process {pid} is no running program of this lab", 3)

    def wait_program(self, pid: int, timeout: float = 60.0) -> ProcessExited:
        """Wait until a program that `spawn` started has ended."""
        exited: ProcessExited = self._wait_for(lambda one: isinstance(one, ProcessExited) and one.pid == pid, timeout)
        return exited

    def probe(self, sandbox: str, spec: ProbeSpec) -> list[list[int | None]]:
        """Ping from a sandbox and wait for the table. See `Probe`."""
        return self.call(Probe(sandbox, spec), timeout=60 + spec.count * spec.interval + spec.timeout)

    # Ending

    def abandon(self) -> None:
        """Let go of the lab without ending it: for a process that was forked from the one that started it."""
        self._control.close()
        os.close(self._pidfd)
        self._ended = True

    def close(self) -> None:
        """End the lab: returns when the last process of it is gone, or after 30 s (TimeoutError)."""
        if self._control.fileno() < 0:
            return
        self._control.close()
        poller = select.poll()
        poller.register(self._pidfd, select.POLLIN)
        gone = poller.poll(_CLOSE_SECONDS * 1000)
        os.close(self._pidfd)
        self._ended = True
        if not gone:
            raise TimeoutError(f"the keeper (process {self.pid}) still runs {_CLOSE_SECONDS:.0f} s after its end")
        with contextlib.suppress(ChildProcessError):  # SIGCHLD is ignored here, or somebody else has reaped it
            os.waitpid(self.pid, 0)

    # Within

    def _take(self, message: messages.Message) -> None:
        number = message.body["request"]
        event = message.body.get("event")
        if event == "failed":
            self._failures[number] = message.body["error"]
        elif event == "ended":
            self._take_ended(message.body)
        else:
            self._answer(number, message)

    def _answer(self, number: int, message: messages.Message) -> None:
        request = self._pending.pop(number)
        if isinstance(request, RemoveSandbox):
            self._removed.discard(request.sandbox)
        if "error" in message.body:
            error = KeeperRefused(message.body["error"], message.body["errno"])
            self._received.append(Reply(number, error=error))
            return
        try:
            value = request.decode(message)
        except OSError as error:  # the sandbox has ended since
            self._received.append(Reply(number, error=KeeperRefused(str(error), error.errno)))
            return
        if isinstance(request, Spawn):
            self._programs[number] = message.sender
        elif isinstance(request, CreateSandbox):
            self._ready.add(number)
        self._received.append(Reply(number, value))

    def _take_ended(self, body: dict[str, Any]) -> None:
        number, code, kind = body["request"], body["code"], body["kind"]
        if number in self._pending:  # it ended before it could answer
            del self._pending[number]
            told = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
            error = KeeperRefused(f"the {kind} of {body['sandbox']} {told} before it was ready", None)
            self._received.append(Reply(number, error=error))
        elif kind == "program" and number in self._programs:
            self._received.append(
                ProcessExited(
                    number,
                    body["sandbox"],
                    self._programs.pop(number),
                    code if code >= 0 else 128 - code,
                    -code if code < 0 else None,
                    self._failures.pop(number, None),
                )
            )
        elif kind == "pause" and number in self._ready:
            self._ready.discard(number)
            if body["sandbox"] not in self._removed:
                self._received.append(SandboxEnded(body["sandbox"]))

    def _end(self) -> None:
        self._ended = True
        gone = KeeperGone(f"the keeper (process {self.pid}) has ended, and with it all of the lab")
        self._received.extend(Reply(number, error=gone) for number in self._pending)
        self._pending.clear()
        self._received.append(KeeperEnded())

    def _wait_for(self, wanted: Callable[[Received], bool], timeout: float) -> Any:
        """Take the first message of a kind out of what arrives; the others stay for `receive`."""
        deadline = time.monotonic() + timeout
        seen: list[Received] = []
        try:
            while True:
                arrived = self.receive()
                for index, one in enumerate(arrived):
                    if wanted(one):
                        seen += arrived[:index] + arrived[index + 1 :]
                        return one
                seen += arrived
                if self._ended:
                    raise KeeperGone(f"the keeper (process {self.pid}) has ended, and with it all of the lab")
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"the keeper has not answered within {timeout:g} s")
                select.select([self._control], [self._control] if self._unsent else [], [], left)
        finally:
            self._received.extendleft(reversed(seen))

    def _wait_all(self, numbers: list[int]) -> list[Any]:
        values: list[Any] = []
        refused: Exception | None = None
        for number in numbers:
            try:
                values.append(self.wait(number))
            except KeeperRefused as error:
                refused = refused or error
        if refused is not None:
            raise refused
        return values


def _stage(control: socket.socket) -> messages.Message:
    """The keeper's next report while it starts. LinuxRefused where it was refused something."""
    message = messages.receive(control)
    if message is None:
        raise KeeperGone("the keeper ended while it started; its own words are on the standard error")
    if "refused" in message.body:
        body = message.body
        with contextlib.suppress(ChildProcessError):  # the starter itself is waited for elsewhere
            os.waitpid(message.sender, 0)
        raise refusal(body["refused"], body["errno"], body["error"])
    return message


def _write_maps(pid: int) -> None:
    try:
        user_maps.write_maps(pid)
    except OSError as error:
        raise refusal("map", error.errno or 0, str(error)) from None


def import_paths() -> list[str]:
    """Where a process that starts with the standard library only (`python -I -S`) finds emunet and python-pytun."""
    paths = [str(Path(__file__).parents[2])]
    pytun = importlib.util.find_spec("pytun")
    if pytun is not None and pytun.origin is not None:
        paths.append(str(Path(pytun.origin).parent))
    return paths


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
