"""Watching: whoever takes frames of a lab as they come, and the loop that lets them.

Rule of this file: every way to watch is a Watcher, which is read when its descriptor is
readable; one loop drives all of them, and it ends between two messages, never within one.
Standard library only: Wireshark starts what uses it several times for one capture.
"""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Sequence
from typing import Protocol


class Watcher(Protocol):
    """Something that takes what comes from a lab."""

    written: int
    lost: int
    notices: list[str]
    failure: str

    def fileno(self) -> int:
        """Readable when `read` has something to do."""
        ...

    def read(self) -> bool:
        """Take what has come; False once nothing more will be taken."""
        ...

    def close(self) -> None:
        """Take what is left, and end."""
        ...


def watch(
    watchers: Sequence[Watcher],
    interrupted: int,
    seconds: float | None = None,
    pipe: int | None = None,
    ended: int | None = None,
) -> None:
    """Let watchers read until all have had enough, time is up, the reader of `pipe` has gone or a person ends it.

    Or until there is something to read at `ended`.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    poll = select.poll()
    poll.register(interrupted, select.POLLIN)
    if pipe is not None:
        poll.register(pipe, 0)  # errors are told unasked: its other end was closed
    if ended is not None:
        poll.register(ended, select.POLLIN)
    reading = {watcher.fileno(): watcher for watcher in watchers}
    for descriptor in reading:
        poll.register(descriptor, select.POLLIN)
    while reading:
        left = None if deadline is None else (deadline - time.monotonic()) * 1000
        if left is not None and left <= 0:
            return
        for descriptor, _ in poll.poll(left):
            watcher = reading.get(descriptor)
            if watcher is None:
                return
            if not watcher.read():
                poll.unregister(descriptor)
                del reading[descriptor]
        for watcher in watchers:
            for notice in watcher.notices:
                print(notice, file=sys.stderr)
            watcher.notices.clear()
