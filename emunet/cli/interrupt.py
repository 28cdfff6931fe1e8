"""Ctrl-C as something to wait for, for commands that must end between two steps and never within one.

Rule of this file: what was set before is set again afterwards.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def until_interrupted() -> Iterator[int]:
    """A descriptor that becomes readable at Ctrl-C and SIGTERM, which then interrupt nothing by themselves."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def hear(number: int, frame: FrameType | None) -> None:
        pass  # the wake-up descriptor has it

    before = [(number, signal.signal(number, hear)) for number in (signal.SIGINT, signal.SIGTERM)]
    woken = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield reading
    finally:
        signal.set_wakeup_fd(woken)
        for number, handler in before:
            signal.signal(number, handler)
        os.close(reading)
        os.close(writing)
