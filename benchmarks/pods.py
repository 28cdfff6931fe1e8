"""Pods: where programs run and frames arrive. The measurements need no more of a peer than this.

Rule of this file: a program either ends as it should or its own words are in the error.
"""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

PATIENCE = 15.0
"""Seconds in which what should happen at once must happen."""


class BenchError(Exception):
    """Something did not do what it should: a sentence."""


@dataclass(frozen=True, slots=True)
class Running:
    """A program that runs, and where its words go. `handle` is for whoever started it."""

    handle: Any
    command: str
    said: IO[bytes]


class Pods(ABC):
    """Named places with programs, and a folder for files that ends with them."""

    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="emunet-bench-", ignore_cleanup_errors=True)
        self.folder = Path(self._temporary.name)

    @abstractmethod
    def start(self, pod: str, *argv: str | Path) -> None:
        """Start a program; it runs until it ends or the pods do."""

    @abstractmethod
    def begin(self, pod: str, *argv: str | Path) -> Running:
        """Start a program whose words are wanted: see `finish`."""

    @abstractmethod
    def wait(self, running: Running, seconds: float) -> int | None:
        """Wait until a program ends; its exit code, or None where it did not and was killed."""

    @abstractmethod
    def received(self, pod: str) -> int:
        """Frames that eth0 of a pod has received, by its kernel's own count."""

    def finish(self, running: Running, seconds: float = PATIENCE) -> str:
        """Wait until a program ends; what it said. BenchError where it fails, or takes longer."""
        with running.said:
            code = self.wait(running, seconds)
            running.said.seek(0)
            text = running.said.read().decode(errors="replace")
        if code is None:
            raise BenchError(f"{running.command} did not end within {seconds:g} s")
        if code:
            raise BenchError(f"{running.command}: {text.strip() or f'status {code}'}")
        return text

    def run(self, pod: str, *argv: str | Path, seconds: float = PATIENCE) -> str:
        """Run a program to its end; what it said. BenchError where it fails, or takes longer."""
        return self.finish(self.begin(pod, *argv), seconds)

    def close(self) -> None:
        """End it all."""
        self._temporary.cleanup()
