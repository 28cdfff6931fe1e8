"""Published ports for those on the host itself: what `docker-proxy` is for (fidelity DK-07, DK-08).

What comes from outside is translated in the data plane and never gets here. What the host's own programs
send to localhost or to the host's address, and what its containers send to a published port, reaches a
socket of the host's; from here it goes on to the container, which sees its gateway as the client.

Rule of this file: the sockets are those of the host's network; nothing is bound on the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Coroutine
from typing import Any

from emunet.cluster.docker.containers import Container
from emunet.cluster.docker.networks import Refused
from emunet.cluster.docker.values import Binding
from emunet.daemon.docker.ground import Ground
from emunet.linux.keeper_client import KeeperGone, KeeperRefused
from emunet.linux.keeper_requests import OpenSockets
from emunet.packet.address import format_ip

READ_SIZE = 1 << 16
DATAGRAM_IDLE_SECONDS = 90.0
"""How long a client of a UDP port is remembered that says nothing more (docker-proxy's own)."""


class Proxies:
    """The proxies of one host's published ports, by container."""

    def __init__(self, ground: Ground, host: str) -> None:
        self._ground = ground
        self._host = host
        self._tasks: dict[Binding, set[asyncio.Task[None]]] = {}

    async def serve(self, container: Container) -> None:
        """Serve what a container publishes now, and nothing that it published before. Refused."""
        if self._ground.lab.keeper is None:
            return
        for binding in [one for one in self._tasks if one.container == container.id]:
            if binding not in container.bindings:
                self._end(binding)
        for binding in container.bindings:
            if binding not in self._tasks:
                await self._begin(binding)

    def end(self, container: str) -> None:
        """Serve a container's ports no more."""
        for binding in [one for one in self._tasks if one.container == container]:
            self._end(binding)

    def close_all(self) -> None:
        """The lab is ending."""
        for binding in list(self._tasks):
            self._end(binding)

    # Within

    def _end(self, binding: Binding) -> None:
        for task in self._tasks.pop(binding):
            task.cancel()

    async def _begin(self, binding: Binding) -> None:
        families = {len(address) for address in binding.addresses}
        if binding.host_address:
            families &= {len(binding.host_address)}
        self._tasks[binding] = set()
        for family in sorted(families):
            target = next(address for address in binding.addresses if len(address) == family)
            any_address = "0.0.0.0" if family == 4 else "::"
            address = format_ip(binding.host_address) if binding.host_address else any_address
            listener = await self._open(family, binding.protocol)
            try:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == 16:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listener.bind((address, binding.port))
                if binding.protocol == "tcp":
                    listener.listen(128)
            except OSError as error:
                listener.close()
                self._end(binding)
                shown = f"{address}:{binding.port}/{binding.protocol}"
                raise Refused(500, f"failed to bind host port {shown}: {(error.strerror or '').lower()}") from None
            serve = self._streams if binding.protocol == "tcp" else self._datagrams
            self._task(binding, serve(binding, listener, (format_ip(target), binding.target), family))

    def _task(self, binding: Binding, work: Coroutine[Any, Any, None]) -> None:
        tasks = self._tasks[binding]
        task = asyncio.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def _open(self, family: int, protocol: str) -> socket.socket:
        assert self._ground.lab.keeper is not None
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        which = socket.AF_INET if family == 4 else socket.AF_INET6
        (opened,) = await self._ground.lab.keeper.ask(OpenSockets(self._host, ((int(which), int(kind)),)))
        opened.setblocking(False)
        return opened

    async def _streams(self, binding: Binding, listener: socket.socket, target: tuple[str, int], family: int) -> None:
        loop = asyncio.get_running_loop()
        with listener:
            while True:
                client, _ = await loop.sock_accept(listener)
                self._task(binding, self._carry(client, target, family))

    async def _carry(self, client: socket.socket, target: tuple[str, int], family: int) -> None:
        """One connection, both ways, each side's end passed on."""
        loop = asyncio.get_running_loop()
        with client:
            try:
                server = await self._open(family, "tcp")
            except (KeeperRefused, KeeperGone):
                return
            with server:
                try:
                    await loop.sock_connect(server, target)
                except OSError:  # nobody listens there: the client's connection ends, as docker-proxy's does
                    return
                await asyncio.gather(_copy(client, server), _copy(server, client))

    async def _datagrams(self, binding: Binding, listener: socket.socket, target: tuple[str, int], family: int) -> None:
        """Each client has a socket of its own towards the container, by which the answers are told apart."""
        loop = asyncio.get_running_loop()
        known: dict[Any, socket.socket] = {}

        async def answer(client: Any, server: socket.socket) -> None:
            with server, contextlib.suppress(TimeoutError, OSError):
                while True:
                    async with asyncio.timeout(DATAGRAM_IDLE_SECONDS):
                        data = await loop.sock_recv(server, READ_SIZE)
                    await loop.sock_sendto(listener, data, client)
            known.pop(client, None)

        with listener:
            while True:
                data, client = await loop.sock_recvfrom(listener, READ_SIZE)
                server = known.get(client)
                if server is None:
                    server = known[client] = await self._open(family, "udp")
                    await loop.sock_connect(server, target)
                    self._task(binding, answer(client, server))
                with contextlib.suppress(OSError):  # the container has said that nobody listens
                    await loop.sock_sendall(server, data)


async def _copy(source: socket.socket, target: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        while data := await loop.sock_recv(source, READ_SIZE):
            await loop.sock_sendall(target, data)
        target.shutdown(socket.SHUT_WR)
