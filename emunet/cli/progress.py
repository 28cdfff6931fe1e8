"""Bars for what takes longer than a blink: on standard error, on a terminal only, and gone when it is over.

Rule of this file: nothing is shown of what is over within half a second, and nothing of it stays.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SHOWN_AFTER = 0.5


class Bar:
    """A bar that shows itself once it has been there for a while. Without a total it only says that it goes on."""

    def __init__(self, words: str, total: float | None = None) -> None:
        self._words = words
        self._total = total
        self._done = 0.0
        self._shown: Any = None
        self._task: Any = None
        self._lock = threading.Lock()
        self._ended = False
        self._timer = threading.Timer(SHOWN_AFTER, self._show)
        self._timer.daemon = True
        self._timer.start()

    def to(self, done: float) -> None:
        """How much of the total is done."""
        with self._lock:
            self._done = done
            if self._shown is not None:
                self._shown.update(self._task, completed=done)

    def say(self, words: str) -> None:
        """What is being done now."""
        with self._lock:
            self._words = words
            if self._shown is not None:
                self._shown.update(self._task, description=words)

    def end(self) -> None:
        """It is over: nothing of it stays on the terminal."""
        self._timer.cancel()
        with self._lock:
            self._ended = True
            if self._shown is not None:
                self._shown.stop()

    def _show(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

        with self._lock:
            if self._ended:
                return
            columns = [TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()]
            if self._total is not None:
                columns.insert(2, TaskProgressColumn())
            self._shown = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._shown.add_task(self._words, total=self._total, completed=self._done)
            self._shown.start()


class NoBar(Bar):
    """Where nobody looks."""

    def __init__(self) -> None:
        pass

    def to(self, done: float) -> None:
        """Nothing is shown."""

    def say(self, words: str) -> None:
        """Nothing is said."""

    def end(self) -> None:
        """Nothing was there."""


@contextmanager
def bar(words: str, total: float | None = None) -> Iterator[Bar]:
    """A bar on standard error while this goes on, if that is a terminal."""
    made = Bar(words, total) if sys.stderr.isatty() else NoBar()
    try:
        yield made
    finally:
        made.end()
