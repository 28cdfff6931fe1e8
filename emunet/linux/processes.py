"""The processes that live in a sandbox's network, and signals to all of them.

What counts is the network namespace: a program of a container, one that `emunet exec` has
brought in, and all their children, in whichever PID namespace they are.

Rule of this file: a signal goes to the process that was looked at, never to a later one of
the same number.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from emunet.linux.syscalls import namespace_id

_ROUNDS = 20


def in_network_of(pause: int, but: Collection[int] = ()) -> list[int]:
    """The processes of this machine that share the network of a sandbox's pause, but for the pause itself.

    `but`: the pauses of other sandboxes that live in the same network.
    """
    wanted = namespace_id(f"/proc/{pause}/ns/net")
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) not in (pause, os.getpid(), *but):
            with suppress(OSError):  # it has ended, or is none of ours
                if namespace_id(f"/proc/{entry.name}/ns/net") == wanted:
                    found.append(int(entry.name))
    return found


def signal_network(pause: int, number: signal.Signals, but: Collection[int] = ()) -> int:
    """Send a signal to all of them, until no new one appears; how many got it."""
    reached: set[int] = set()
    wanted = namespace_id(f"/proc/{pause}/ns/net")
    for _ in range(_ROUNDS):
        fresh = [pid for pid in in_network_of(pause, but) if pid not in reached]
        if not fresh:
            break
        for pid in fresh:
            reached.add(pid)
            with suppress(OSError):
                pidfd = os.pidfd_open(pid)
                try:
                    if namespace_id(f"/proc/{pid}/ns/net") == wanted:
                        signal.pidfd_send_signal(pidfd, number)
                finally:
                    os.close(pidfd)
    return len(reached)
