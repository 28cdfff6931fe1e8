"""`emunet exec`: a program of the caller's own that runs in a sandbox.

It is not started by the keeper: a terminal handed to somebody else's child has no
Ctrl-C, no job control and no /dev/tty. The caller itself forks a child which enters the
sandbox's namespaces and becomes the program, so session, controlling terminal, window
size and exit code are the caller's.

    caller -- fork --> joiner: enters the user and PID namespaces (the latter for children only)
                         +-- fork --> program: born into the PID namespace; enters the others, executes
    the joiner ends; the caller, which has asked for its orphans, is the program's parent

On a terminal the program gets a process group of its own and the foreground, as from a
shell: within the PID namespace the caller's own group has no number, and shells there
would misread it. The caller then stops when the program stops (Ctrl-Z), so that the
shell above it regains control, and hands the terminal back when it is continued (fg).

Rule of this file: the calling process changes no namespace of its own and leaves signals
and terminal as it found them, so that it can be called from anywhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any, NoReturn

from emunet.linux import program, syscalls

_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Sent to the caller alone (by `timeout`, `kill`, a service manager), and meant for the program."""

_JOB_CONTROL = (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
"""Sent by the terminal to whole groups; the program decides what they mean, the caller only waits."""

_BEFORE_FORK = syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWPID
_AFTER_FORK = syscalls.CLONE_NEWNET | syscalls.CLONE_NEWUTS | syscalls.CLONE_NEWIPC


class CannotJoin(Exception):
    """The sandbox cannot be entered: it is gone, or it is another user's."""


def run_in_sandbox(
    pid: int,
    argv: Sequence[str],
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    *,
    start_time: int | None = None,
    view: str | None = "shared",
    capabilities: frozenset[int] | None = None,
) -> int:
    """Run a program in the sandbox whose pause (or other process) is `pid`, and wait; gives its exit code.

    The code is as a shell tells it: 128 + n where signal n killed the program, 127 where there is no
    such program, 126 where it cannot be executed (the reason goes to standard error). `env` None is
    the caller's environment, `cwd` None its current directory where the sandbox has one of that name.
    `start_time` (`syscalls.start_time`) tells the process from a later one with its number. `view`:
    "shared", the machine's files; "isolated", the sandbox's own; None, those of `pid` itself.
    `capabilities` (numbers): None is those of `pid`, and in an isolated root no more than a container's.

    Standard streams are the caller's. If the caller is killed, so is the program. CannotJoin says why
    the sandbox cannot be entered.
    """
    target = _Target(pid, start_time, view)
    try:
        with _terminal_of(_in_main_thread()) as terminal:
            return _run(target, list(argv), dict(os.environ if env is None else env), cwd, terminal, capabilities)
    finally:
        target.close()


class _Target:
    """The process to join, held so that it stays the one that was meant."""

    def __init__(self, pid: int, start_time: int | None, view: str | None) -> None:
        self.pid = pid
        self.view = view
        try:
            self.pidfd = os.pidfd_open(pid)
        except OSError as error:
            raise CannotJoin(f"there is no process {pid} any more: {error.strerror}") from None
        try:
            if start_time is not None and syscalls.start_time(pid) != start_time:
                raise CannotJoin(
                    f"process {pid} is no part of the lab: the sandbox has ended, and its number was reused"
                )
            self.capabilities = syscalls.bounding_capabilities(pid)
            self.foreign = syscalls.foreign_namespaces(_BEFORE_FORK | _AFTER_FORK, pid)
        except OSError as error:
            self.close()
            if isinstance(error, PermissionError):
                raise CannotJoin("only root and the user who started the lab may enter its sandboxes") from None
            raise CannotJoin(f"process {pid} has ended: {error.strerror}") from None
        except CannotJoin:
            self.close()
            raise

    def close(self) -> None:
        os.close(self.pidfd)


class _Terminal:
    """The caller's terminal while a program may have its foreground; nothing where there is no terminal."""

    def __init__(self, managed: bool) -> None:
        self.descriptor: int | None = None
        self.group = os.getpgrp()
        # Not in a pipeline (`emunet exec … | less`): the others of the group need the foreground too.
        if managed and os.isatty(0) and os.isatty(1):
            with contextlib.suppress(OSError):  # a terminal, but not our controlling one
                if os.tcgetpgrp(0) == self.group:
                    self.descriptor = os.dup(0)

    def give(self, group: int) -> None:
        """Put another process group in the foreground. SIGTTOU must be ignored."""
        if self.descriptor is not None:
            with contextlib.suppress(OSError):  # hung up
                os.tcsetpgrp(self.descriptor, group)

    def take_back(self) -> None:
        """Put the caller's group in the foreground."""
        self.give(self.group)

    def is_ours(self) -> bool:
        """True while the caller's group has the foreground: just continued by `fg`."""
        try:
            return self.descriptor is not None and os.tcgetpgrp(self.descriptor) == self.group
        except OSError:
            return False


@contextlib.contextmanager
def _terminal_of(managed: bool) -> Iterator[_Terminal]:
    terminal = _Terminal(managed)
    try:
        yield terminal
    finally:
        if terminal.descriptor is not None:
            os.close(terminal.descriptor)


def _run(
    target: _Target,
    argv: list[str],
    env: dict[str, str],
    cwd: str | None,
    terminal: _Terminal,
    capabilities: frozenset[int] | None,
) -> int:
    told, tell = os.pipe2(os.O_CLOEXEC)  # from the joiner and the program: its pid, and what failed; closed by exec
    wait_for_go, go = os.pipe2(os.O_CLOEXEC)
    directory = cwd if cwd is not None else _current_directory()
    before = syscalls.set_child_subreaper(True)
    try:
        joiner = os.fork()
        if joiner == 0:
            os.close(told)
            os.close(go)
            _join(
                target,
                tell,
                lambda: _become(
                    target, argv, env, directory, cwd is not None, terminal, capabilities, wait_for_go, tell
                ),
            )
        os.close(tell)
        os.close(wait_for_go)
        os.waitpid(joiner, 0)
    finally:
        syscalls.set_child_subreaper(before)
    with open(told, "rb") as reports:
        first = reports.readline()
        report: dict[str, Any] = json.loads(first) if first else {"error": "it ended before it began", "errno": None}
        if "pid" not in report:
            os.close(go)
            raise CannotJoin(report["error"])
        child: int = report["pid"]
        with _signals_for(child, terminal):
            os.write(go, b"!")
            os.close(go)
            second = reports.readline()  # at its end, the program runs
            failure: dict[str, Any] | None = json.loads(second) if second else None
            code = _wait(child, terminal)
    if failure is not None and failure["stage"] == "join":
        raise CannotJoin(failure["error"])
    if failure is not None:
        os.write(2, f"emunet: {argv[0]}: {failure['error']}\n".encode())
    return code


def _current_directory() -> str:
    try:
        return os.getcwd()
    except OSError:  # it has been removed
        return "/"


def _report(descriptor: int, **what: Any) -> None:
    os.write(descriptor, json.dumps(what).encode() + b"\n")


def _join(target: _Target, tell: int, then: Callable[[], NoReturn]) -> NoReturn:
    """The joiner: enter what must be entered before a fork, fork, and end."""
    try:
        if target.foreign & _BEFORE_FORK:
            syscalls.setns(target.pidfd, target.foreign & _BEFORE_FORK)
        child = os.fork()
        if child == 0:
            then()
        _report(tell, pid=child)
    except OSError as error:
        _report(tell, error=str(error), errno=error.errno)
    finally:
        os._exit(0)


def _become(
    target: _Target,
    argv: list[str],
    env: dict[str, str],
    directory: str,
    directory_needed: bool,
    terminal: _Terminal,
    capabilities: frozenset[int] | None,
    wait_for_go: int,
    tell: int,
) -> NoReturn:
    """The program, until it executes."""
    stage = "join"
    code = program.NOT_EXECUTABLE
    try:
        if not os.read(wait_for_go, 1):  # the joiner is gone, and our parent is the one to stay; or it is gone too
            os._exit(code)
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL, "asking to end with the caller")
        isolated = program.join_files(target.pid, target.pidfd, target.view)
        if target.foreign & _AFTER_FORK:
            syscalls.setns(target.pidfd, target.foreign & _AFTER_FORK)
        try:
            os.chdir(directory)
        except OSError:
            if directory_needed:
                raise
            os.chdir("/")
        if terminal.descriptor is not None:
            os.setpgid(0, 0)
            before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            terminal.give(os.getpid())
            signal.signal(signal.SIGTTOU, before)
        # Never more than the process that we join: a container's own shell may be waiting for a caller with power.
        wanted = target.capabilities if capabilities is None else capabilities
        program.keep_capabilities(wanted, False)
        program.keep_capabilities(None, isolated)
        stage = "execute"
        program.unignore_signals()
        os.execvpe(argv[0], argv, env)
    except (OSError, ValueError) as error:  # the latter for a zero byte in an argument
        text = str(error)
        if stage == "execute" and isinstance(error, OSError):
            code, text = program.exit_code_of(error), error.strerror or text
        _report(tell, stage=stage, error=text)
    finally:
        os._exit(code)


@contextlib.contextmanager
def _signals_for(child: int, terminal: _Terminal) -> Iterator[None]:
    """Signal handling of the caller while the program runs, and the former one again afterwards."""
    if not _in_main_thread():
        yield
        return

    def forward(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    def go_on(number: int, frame: FrameType | None) -> None:
        if terminal.is_ours():
            terminal.give(child)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, number) if terminal.descriptor is not None else os.kill(child, number)

    before = {number: signal.signal(number, signal.SIG_IGN) for number in _JOB_CONTROL}
    before[signal.SIGCONT] = signal.signal(signal.SIGCONT, go_on)
    for number in _FORWARDED:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays nohup
            before[number] = signal.signal(number, forward)
    try:
        yield
    finally:
        terminal.take_back()
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def _wait(child: int, terminal: _Terminal) -> int:
    """Wait for the program to end, stopping ourselves whenever it stops; gives its exit code."""
    while True:
        _, status = os.waitpid(child, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        terminal.take_back()
        _stop_ourselves()
        if _is_stopped(child):  # nobody above us does job control, so we were not stopped: nor shall the program be
            os.kill(os.getpid(), signal.SIGCONT)


def _stop_ourselves() -> None:
    """Stop as Ctrl-Z would have stopped us; comes back when we are continued, or at once in an orphaned group."""
    ignored = signal.signal(signal.SIGTSTP, signal.SIG_DFL) if _in_main_thread() else None
    os.kill(os.getpid(), signal.SIGTSTP)
    if ignored is not None:
        signal.signal(signal.SIGTSTP, ignored)


def _is_stopped(pid: int) -> bool:
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[0] == b"T"


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
