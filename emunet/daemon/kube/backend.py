"""What the API server needs of the lab that it speaks for.

Rule of this file: contracts and small values only. `daemon.pod_clients` keeps them in a running lab; a test
may keep them with a control plane alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from emunet.cluster.control_plane import ControlPlane
from emunet.cluster.store import Object


class Bell:
    """Wakes whoever waits for the objects to change."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def ring(self) -> None:
        """Something changed."""
        for one in self._waiting:
            if not one.done():
                one.set_result(None)
        self._waiting.clear()

    async def wait(self, seconds: float | None) -> bool:
        """Until something changes; False where nothing did for so long."""
        one: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(one)
        try:
            await asyncio.wait_for(one, seconds)
        except TimeoutError:
            return False
        finally:
            self._waiting.discard(one)
        return True


class CannotServe(Exception):
    """A pod cannot do what was asked of it: a sentence."""


@dataclass(frozen=True, slots=True)
class LogWish:
    """Which part of a container's log is wanted."""

    follow: bool = False
    tail: int | None = None
    timestamps: bool = False
    since: int | None = None
    limit: int | None = None
    previous: bool = False


class Session(Protocol):
    """A program that runs in a pod for a client. Reads give b"" at the end."""

    async def write(self, data: bytes) -> None:
        """To its standard input."""

    def close_input(self) -> None:
        """No more will come."""

    async def read(self, stream: int) -> bytes:
        """Some of its standard output (1) or error (2)."""
        ...

    def resize(self, width: int, height: int) -> None:
        """Its terminal has another size."""

    async def wait(self) -> int:
        """Its exit code."""
        ...

    async def close(self) -> None:
        """Nobody listens any more."""


class Connection(Protocol):
    """A TCP connection into a pod."""

    async def read(self) -> bytes:
        """Some bytes; b"" at the end."""
        ...

    async def write(self, data: bytes) -> None:
        """Some bytes to the pod."""

    def close_input(self) -> None:
        """No more will come from the client."""

    def close(self) -> None:
        """Done."""


class Backend(Protocol):
    """A lab, as the API server sees it."""

    control: ControlPlane
    bell: Bell

    def now(self) -> int:
        """Lab time (ns)."""
        ...

    def logs(self, pod: Object, container: str, wish: LogWish) -> AsyncIterator[bytes]:
        """What a container has said. CannotServe."""
        ...

    async def execute(
        self, pod: Object, container: str, argv: Sequence[str], *, stdin: bool, terminal: bool
    ) -> Session:
        """Run a program in a container. CannotServe."""
        ...

    async def attach(self, pod: Object, container: str) -> Session:
        """Follow what a container says from now on. CannotServe."""
        ...

    async def connect(self, pod: Object, port: int) -> Connection:
        """Reach a port of a pod, from within it. CannotServe."""
        ...
