"""A backend of the API server without a lab, for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from emunet.cluster.build import build
from emunet.cluster.control_plane import ControlPlane
from emunet.cluster.load import load_text
from emunet.cluster.store import Object
from emunet.daemon.kube.backend import Bell, CannotServe, Connection, LogWish, Session

TOPOLOGY = "apiVersion: emunet/v1\nkind: Topology\nmetadata: {name: lab}\nspec: {hosts: [host1, host2]}\n"


class Alone:
    """A backend without a lab: pods stay where they are put, and run nothing."""

    def __init__(self) -> None:
        self.control = ControlPlane(build(load_text(TOPOLOGY)).cluster)
        self.bell = Bell()
        self.control.store.listeners.append(lambda _: self.bell.ring())
        self.seconds = 0

    def now(self) -> int:
        """Time stands still, until somebody sets it."""
        return self.seconds * 1_000_000_000

    async def logs(self, pod: Object, container: str, wish: LogWish) -> AsyncIterator[bytes]:
        """One line."""
        yield b"a line\n"

    async def execute(
        self, pod: Object, container: str, argv: Sequence[str], *, stdin: bool, terminal: bool
    ) -> Session:
        """Nothing runs."""
        raise CannotServe("nothing runs here")

    async def attach(self, pod: Object, container: str) -> Session:
        """Nothing runs."""
        raise CannotServe("nothing runs here")

    async def connect(self, pod: Object, port: int) -> Connection:
        """Nothing runs."""
        raise CannotServe("nothing runs here")
