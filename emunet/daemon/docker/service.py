"""The sockets of the engines of a lab's hosts: `docker/host1.sock` in the lab's run folder, for its owner only.

Rule of this file: nothing is loaded and no engine is made before somebody connects to its host's socket.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import socket
from pathlib import Path
from typing import Any, Protocol

from emunet.cluster.control_plane import ControlPlane
from emunet.cluster.docker.begin import engine_of
from emunet.cluster.docker.containers import Containers
from emunet.cluster.docker.values import EMPTY
from emunet.daemon.folder import HeldFolder
from emunet.daemon.programs import Programs
from emunet.daemon.responders import Responders
from emunet.daemon.running import RunningLab


class Keeper(Protocol):
    """Who lets the World become what engines say (`caretaker.Caretaker`)."""

    engines: dict[str, Containers]
    control: ControlPlane

    @property
    def responders(self) -> Responders | None:
        """What answers on ports that no program serves."""

    async def reshape(self) -> None:
        """Take the engines' networks and containers into the World."""


class DockerService:
    """The engines of one lab."""

    def __init__(self, lab: RunningLab, keeper: Keeper, programs: Programs | None, folder: HeldFolder) -> None:
        self._lab = lab
        self._keeper = keeper
        self._programs = programs
        self._folder = folder
        self._path = folder.folder.path / "docker"
        self._listeners: dict[str, socket.socket] = {}
        self._servers: dict[str, Any] = {}
        self._engines: dict[str, Any] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Listen for each host. FolderError where a host has too long a name for its socket."""
        self._path.mkdir(mode=0o700, exist_ok=True)
        loop = asyncio.get_running_loop()
        for host in self._keeper.control.cluster.nodes:
            listener = self._folder.bind(self.path(host.name), socket.SOCK_STREAM)
            self._listeners[host.name] = listener
            loop.add_reader(listener, self._first, host.name)

    async def furnish(self) -> list[str]:
        """Let the engines have what the topology puts into them; what could not be begun is told."""
        problems: list[str] = []
        for host in self._keeper.control.cluster.hosts:
            if host.docker != EMPTY:
                engine = await self._engine(host.name)
                problems += await engine.furnish(host.docker)
        return problems

    def path(self, host: str) -> Path:
        """The socket of a host's engine."""
        return self._path / f"{host}.sock"

    @property
    def paths(self) -> dict[str, str]:
        """The socket of each host's engine."""
        return {host: os.fspath(self.path(host)) for host in self._listeners}

    def running(self) -> list[dict[str, str]]:
        """The containers that run: host, name, and how each is joined; to another container by that one's name."""
        return [
            {
                "host": host,
                "name": one.name,
                "mode": f"container:{engine.find(one.shares).name}" if one.shares else one.mode,
            }
            for host, engine in self._keeper.engines.items()
            for one in engine.items.values()
            if one.running
        ]

    async def close(self) -> None:
        """Answer no more."""
        loop = asyncio.get_running_loop()
        for host, listener in self._listeners.items():
            if host not in self._engines:
                loop.remove_reader(listener)
                listener.close()
        for task in self._tasks:
            task.cancel()
        for engine in self._engines.values():
            engine.close()
        for server in self._servers.values():
            await server.close()

    # Within

    def _first(self, host: str) -> None:
        """Somebody connects for the first time: it is a server's from here on."""
        asyncio.get_running_loop().remove_reader(self._listeners[host])
        task = asyncio.create_task(self._serve(host))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, host: str) -> None:
        module = await asyncio.to_thread(importlib.import_module, "emunet.daemon.docker.server")
        engine = await self._engine(host)
        server = module.DockerServer(engine)
        self._servers[host] = server
        await server.open(self._listeners[host])

    async def _engine(self, host: str) -> Any:
        engine_module = await asyncio.to_thread(importlib.import_module, "emunet.daemon.docker.engine")
        ground_module = importlib.import_module("emunet.daemon.docker.ground")
        if host not in self._engines:
            containers = engine_of(self._keeper.control.cluster, host, self._lab.settings.seed)
            self._keeper.engines[host] = containers
            ground = ground_module.Ground(self._lab, self._programs, self._keeper.reshape, self._keeper.responders)
            self._engines[host] = engine_module.Engine(host, containers, ground, self._folder.folder.path)
        return self._engines[host]
