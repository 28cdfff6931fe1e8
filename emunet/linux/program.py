"""How a program starts in a sandbox: from a process that the keeper has just forked.

Rule of this file: as in `sandbox`, the process is ours alone to change. What fails
before `report` is an error of the request; what fails after it (the program cannot be
executed) is told by exit code, as a shell does: 127 for not found, 126 for not runnable.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import signal
import termios
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from emunet.linux import roots, sandbox, syscalls

NOT_FOUND = 127
NOT_EXECUTABLE = 126


def exit_code_of(error: OSError) -> int:
    """What a shell would say of an exec that failed so."""
    return NOT_FOUND if isinstance(error, FileNotFoundError | NotADirectoryError) else NOT_EXECUTABLE


def start(
    wanted: dict[str, Any],
    pause: int,
    pidfd: int,
    standard: list[int],
    file_limit: int,
    report: Callable[[], None],
    report_failure: Callable[[OSError], None],
) -> NoReturn:
    """Join the sandbox whose pause is `pause` (its `pidfd`), and run a program there (`ProgramSpec.encode`).

    `standard` are descriptors for 0, 1 and 2. `file_limit` is the number of files that the program
    may open. This process must be in the PID namespace already: one is born into it.
    """
    isolated = join_files(pause, pidfd, wanted["view"])
    syscalls.setns(pidfd, sandbox.NAMESPACES & ~syscalls.CLONE_NEWNS)
    if wanted["own_processes"]:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        roots.mount_proc("/proc")
        if isolated:
            roots.protect_proc()
    os.chdir(wanted["directory"])
    os.setsid()
    # Copies above all others first: one of the three may have the number of another's place.
    copies = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3) for descriptor in standard]
    for place, copy in enumerate(copies):
        os.dup2(copy, place)
    if wanted["terminal"]:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (file_limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    keep_capabilities(wanted["capabilities"], isolated)
    if wanted["user"] is not None:
        _become(*wanted["user"])
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError):  # the C library keeps some real-time signals for itself
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    report()
    try:
        os.execvpe(wanted["argv"][0], wanted["argv"], wanted["environment"])
    except OSError as error:
        report_failure(error)
        os._exit(exit_code_of(error))


def join_files(pause: int, pidfd: int, view: str | None) -> bool:
    """Enter a mount namespace of a sandbox: its own (`view` None), or the one asked for; True if it is isolated."""
    shared = shared_view(pause)
    if shared is not None:
        try:
            if view == "shared":
                syscalls.setns(shared, syscalls.CLONE_NEWNS)
                return False
        finally:
            os.close(shared)
    elif view == "isolated":
        raise OSError("this sandbox was made without a root of its own: it has only the shared view of the machine")
    syscalls.setns(pidfd, syscalls.CLONE_NEWNS)
    return shared is not None


def shared_view(pause: int) -> int | None:
    """The mount namespace beside its own that a sandbox keeps, as a descriptor; None where it has one only."""
    path = f"/proc/{pause}/fd/{sandbox.SHARED_VIEW_DESCRIPTOR}"
    try:
        if not os.readlink(path).startswith("mnt:"):
            return None
    except FileNotFoundError:
        return None
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def keep_capabilities(wanted: Iterable[int] | None, isolated: bool) -> None:
    """Give up all capabilities but those wanted; None is all in the shared view, in an isolated root a container's."""
    if wanted is not None:
        syscalls.drop_capabilities(frozenset(wanted))
    elif isolated:
        syscalls.drop_capabilities(roots.CONTAINER_CAPABILITIES)


def unignore_signals() -> None:
    """Undo what Python ignores of its own accord; what the caller ignored (nohup) stays, and handlers end with exec."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)


def _become(user: int, group: int) -> None:
    try:
        # A user namespace of one id forbids setgroups; there is no other group to lose there.
        if (user, group) != (0, 0):
            os.setgroups([])
            os.setresgid(group, group, group)
            os.setresuid(user, user, user)
    except OSError as error:
        raise OSError(
            error.errno,
            f"running as user {user}, group {group}: {error.strerror}; an ordinary user's lab knows them only where"
            " newuidmap (package uidmap) and /etc/subuid give it a range",
        ) from None
