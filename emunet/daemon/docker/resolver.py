"""The resolver of each container on a network of people's own, on 127.0.0.11 of its own network (DK-15).

It listens on other ports, to which the container's own kernel translates port 53, so that a program of the container
may serve that port on all addresses. Where that cannot be (no `nft` here, or a kernel that refuses it) the sockets
are on port 53 themselves.

What is no container's name is passed on to the servers of `--dns`, by the container's own network.

Rule of this file: `cluster.docker.names` answers; this carries the messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
from collections.abc import Coroutine
from typing import Any

from emunet.cluster.docker import names
from emunet.cluster.docker.containers import Containers
from emunet.daemon.docker.commands import PATH
from emunet.daemon.docker.container_files import RESOLVER
from emunet.daemon.docker.ground import Ground
from emunet.daemon.docker.record import Record
from emunet.daemon.kube.backend import CannotServe
from emunet.daemon.programs import RunningProgram
from emunet.linux.keeper_client import KeeperGone, KeeperRefused
from emunet.linux.keeper_requests import OpenSockets
from emunet.linux.specification import ProgramSpec
from emunet.packet.dns import Code

_PORT = 53
_RULES = f"""add table ip docker-resolver
delete table ip docker-resolver
table ip docker-resolver {{{{
    chain output {{{{
        type nat hook output priority -100
        ip daddr {RESOLVER} udp dport {_PORT} dnat to {RESOLVER}:{{udp}}
        ip daddr {RESOLVER} tcp dport {_PORT} dnat to {RESOLVER}:{{tcp}}
    }}}}
}}}}
"""
"""What a container's own kernel does, in the words of nft; the first two lines are for one that had it before."""

_SERVERS = 3
_ASK_SECONDS = 4.0
_READ = 1 << 16


class Resolvers:
    """The resolvers of one host's containers."""

    def __init__(self, ground: Ground, containers: Containers) -> None:
        self._ground = ground
        self._containers = containers
        self._tasks: dict[str, set[asyncio.Task[None]]] = {}

    async def serve(self, found: Record) -> None:
        """Answer a container, if nobody does yet. OSError, KeeperRefused."""
        if self._ground.lab.keeper is None or found.id in self._tasks:
            return
        tasks = self._tasks[found.id] = set()
        datagrams, streams = await self._open(found, socket.SOCK_DGRAM, socket.SOCK_STREAM)
        for one in (datagrams, streams):
            one.bind((RESOLVER, 0))
        why = await self._translate(found, datagrams.getsockname()[1], streams.getsockname()[1])
        if why:
            print(f"{found.name}: its resolver is on port 53 of {RESOLVER} itself, which it can serve on no other"
                  f" address of its own then: {why}", flush=True)  # fmt: skip
            datagrams.close()
            streams.close()
            datagrams, streams = await self._open(found, socket.SOCK_DGRAM, socket.SOCK_STREAM)
            streams.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            for one in (datagrams, streams):
                one.bind((RESOLVER, _PORT))
        streams.listen(16)
        self._task(tasks, self._datagrams(found, datagrams))
        self._task(tasks, self._streams(found, streams))

    def end(self, container: str) -> None:
        """Answer a container no more."""
        for task in self._tasks.pop(container, set()):
            task.cancel()

    def close_all(self) -> None:
        """The lab is ending."""
        for container in list(self._tasks):
            self.end(container)

    # Within

    def _task(self, tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def _translate(self, found: Record, datagrams: int, streams: int) -> str:
        """Have what the container sends to port 53 of its resolver arrive at other ports; else the reason why not."""
        if self._ground.programs is None or shutil.which("nft", path=PATH) is None:
            return "there is no program nft here"
        program = RunningProgram(self._ground.programs)
        try:
            await program.start(found.sandbox, ProgramSpec(("nft", "-f", "-"), {"PATH": PATH}), stdin=True)
            await program.write(_RULES.format(udp=datagrams, tcp=streams).encode())
            program.close_input()
            said = asyncio.create_task(program.read(2))
            code = await program.wait()
            return f"nft: {(await said).decode(errors='replace').strip()}" if code else ""
        except (CannotServe, OSError) as error:
            return str(error)
        finally:
            await program.close()

    async def _open(self, found: Record, *kinds: int) -> list[socket.socket]:
        assert self._ground.lab.keeper is not None
        wanted = tuple((int(socket.AF_INET), int(kind)) for kind in kinds)
        opened = await self._ground.lab.keeper.ask(OpenSockets(found.sandbox, wanted))
        for one in opened:
            one.setblocking(False)
        return opened

    async def _datagrams(self, found: Record, server: socket.socket) -> None:
        loop = asyncio.get_running_loop()

        async def answer(data: bytes, client: Any) -> None:
            reply = await self._answer(found, data, stream=False)
            if reply is not None:
                with contextlib.suppress(OSError):
                    await loop.sock_sendto(server, reply, client)

        with server:
            while True:
                data, client = await loop.sock_recvfrom(server, _READ)
                self._task(self._tasks[found.id], answer(data, client))

    async def _streams(self, found: Record, server: socket.socket) -> None:
        loop = asyncio.get_running_loop()

        async def serve(client: socket.socket) -> None:
            reader, writer = await asyncio.open_connection(sock=client)
            try:
                while True:
                    length = int.from_bytes(await reader.readexactly(2), "big")
                    reply = await self._answer(found, await reader.readexactly(length), stream=True)
                    if reply is None:
                        return
                    writer.write(len(reply).to_bytes(2, "big") + reply)
                    await writer.drain()
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            finally:
                writer.close()

        with server:
            while True:
                client, _ = await loop.sock_accept(server)
                self._task(self._tasks[found.id], serve(client))

    async def _answer(self, found: Record, data: bytes, *, stream: bool) -> bytes | None:
        reply = names.reply(self._containers, found.network, data, stream=stream)
        if not reply.ask_others:
            return reply.data
        last = reply.data
        for address in (found.host_config.get("Dns") or ())[:_SERVERS]:
            answer = await self._ask(found, str(address), data)
            if answer is None:
                continue
            last = answer
            if answer[3] & 0xF != Code.SERVFAIL:
                break
        return last

    async def _ask(self, found: Record, address: str, data: bytes) -> bytes | None:
        """Another server's answer; None where it gives none."""
        loop = asyncio.get_running_loop()
        if ":" in address:
            return None
        try:
            (asking,) = await self._open(found, socket.SOCK_DGRAM)
        except (KeeperRefused, KeeperGone):
            return None
        with asking, contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_ASK_SECONDS):
                await loop.sock_connect(asking, (address, _PORT))
                await loop.sock_sendall(asking, data)
                while True:
                    answer = await loop.sock_recv(asking, _READ)
                    if len(answer) >= 12 and answer[:2] == data[:2]:
                        return answer
        return None
