"""Ports of this machine that lead into a lab: connections and datagrams, carried by the caller's own process.

The caller listens here, enters the lab's user namespace, and opens a socket in a host's network
for each client: so what it carries travels as real frames from that host on, and the lab's own
processes carry none of it.

Rule of this file: one thread (a process with several may not enter a user namespace), and what a
client can make it hold is bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from emunet.linux import syscalls
from emunet.linux.join import CannotJoin

CONNECT_SECONDS = 10.0
IDLE_SECONDS = 60.0
"""How long a UDP client is remembered that neither sends nor is answered."""

CLIENTS_MAX = 1024
_READ_SIZE = 1 << 16
_DATAGRAMS = 64
_NET = syscalls.CLONE_NEWNET


@dataclass(frozen=True, slots=True)
class Place:
    """A sandbox to send from: its pause, told from a later process of that number by its start time."""

    pid: int
    start_time: int


@dataclass(frozen=True, slots=True)
class Way:
    """Where a port leads: `udp` or not, an address and a port, and from which sandbox."""

    udp: bool
    address: str
    port: int
    place: Place


class Networks:
    """The networks of sandboxes, entered once and for all: afterwards this process belongs to the lab's user namespace.

    CannotJoin says why it cannot be entered.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        self._networks: dict[Place, int] = {}
        self.pidfds: list[int] = []
        """One of each pause: readable once it has ended."""
        for place in dict.fromkeys(places):
            try:
                pidfd = os.pidfd_open(place.pid)
                self.pidfds.append(pidfd)
                if syscalls.start_time(place.pid) != place.start_time:
                    raise CannotJoin(f"process {place.pid} is no part of the lab any more")
                self._networks[place] = os.open(f"/proc/{place.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            except PermissionError:
                raise CannotJoin("only root and the user who started the lab may enter its networks") from None
            except OSError as error:
                raise CannotJoin(f"process {place.pid} has ended: {error.strerror}") from None
        for place, pidfd in zip(self._networks, self.pidfds, strict=True):
            foreign = syscalls.foreign_namespaces(syscalls.CLONE_NEWUSER, place.pid)
            if foreign:
                syscalls.setns(pidfd, foreign)

    def open(self, way: Way) -> socket.socket:
        """A socket in the network that a way begins in, of the kind and family that it needs."""
        syscalls.setns(self._networks[way.place], _NET)
        family = socket.AF_INET6 if ":" in way.address else socket.AF_INET
        opened = socket.socket(family, socket.SOCK_DGRAM if way.udp else socket.SOCK_STREAM)
        opened.setblocking(False)
        return opened


def listen(address: str, port: int, udp: bool) -> socket.socket:
    """A socket on an address of this machine; port 0 is a free one. OSError where it is not to be had."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
    try:
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if not udp:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((address, port))
        if not udp:
            opened.listen(socket.SOMAXCONN)
    except OSError:
        opened.close()
        raise
    opened.setblocking(False)
    return opened


async def carry(
    networks: Networks, ways: Sequence[tuple[socket.socket, Way]], complain: Callable[[Way, str], None]
) -> None:
    """Carry what comes to the listening sockets, until the lab has ended. `complain` hears what failed, and why."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for pidfd in networks.pidfds:
        loop.add_reader(pidfd, ended.set)
    tasks: set[asyncio.Task[None]] = set()
    datagrams = []

    def serve(way: Way) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if len(tasks) >= CLIENTS_MAX:
                writer.transport.abort()
                return
            task = asyncio.create_task(_connection(networks, way, reader, writer, complain))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        return accepted

    for listener, way in ways:
        if way.udp:
            datagrams.append(_Datagrams(networks, listener, way))
        else:
            await asyncio.start_server(serve(way), sock=listener)
    try:
        await ended.wait()
    finally:
        for task in tasks:
            task.cancel()
        for one in datagrams:
            one.close()
        for pidfd in networks.pidfds:
            loop.remove_reader(pidfd)


async def _connection(
    networks: Networks, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter,
    complain: Callable[[Way, str], None],
) -> None:  # fmt: skip
    """One connection, both ways; where the lab's side refuses, the client's is reset."""
    try:
        opened = networks.open(way)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await asyncio.get_running_loop().sock_connect(opened, (way.address, way.port))
        except BaseException:
            opened.close()
            raise
        inner_reader, inner_writer = await asyncio.open_connection(sock=opened)
    except (OSError, TimeoutError) as error:
        # asyncio words it otherwise than the kernel.
        complain(way, os.strerror(error.errno) if error.errno else f"no answer within {CONNECT_SECONDS:.0f} s")
        _reset(writer)
        return
    try:
        await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))
    except OSError:  # one side was reset: so is the other
        _reset(writer)
        _reset(inner_writer)
    finally:
        writer.close()
        inner_writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_READ_SIZE):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError):  # it is closed already
        writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    inner = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):  # it has gone already
        inner.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class _Datagrams:
    """The datagrams of one port: each client has a socket of its own in the lab, so that answers find it again."""

    def __init__(self, networks: Networks, listener: socket.socket, way: Way) -> None:
        self._networks = networks
        self._listener = listener
        self._way = way
        self._clients: dict[tuple[Any, ...], tuple[socket.socket, float]] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(listener, self._ask)
        self._sweeping = self._loop.call_later(IDLE_SECONDS, self._sweep)

    def close(self) -> None:
        """Carry nothing more."""
        self._sweeping.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()
        for client in list(self._clients):
            self._forget(client)

    def _ask(self) -> None:
        for _ in range(_DATAGRAMS):
            try:
                data, client = self._listener.recvfrom(_READ_SIZE)
            except OSError:  # no more; or word of an answer that nobody took
                return
            known = self._clients.pop(client, None)
            if known is None:
                if len(self._clients) >= CLIENTS_MAX:
                    self._forget(next(iter(self._clients)))
                inner = self._networks.open(self._way)
                self._loop.add_reader(inner, self._answer, inner, client)
            else:
                inner = known[0]
            self._clients[client] = (inner, self._loop.time())
            with contextlib.suppress(OSError):  # a datagram may get lost
                inner.connect((self._way.address, self._way.port))
                inner.send(data)

    def _answer(self, inner: socket.socket, client: tuple[Any, ...]) -> None:
        for _ in range(_DATAGRAMS):
            try:
                data = inner.recv(_READ_SIZE)
            except BlockingIOError:
                return
            except OSError:  # the port is closed: as UDP has it, the client hears nothing
                continue
            self._clients[client] = (inner, self._loop.time())
            with contextlib.suppress(OSError):
                self._listener.sendto(data, client)

    def _sweep(self) -> None:
        since = self._loop.time() - IDLE_SECONDS
        for client in [client for client, (_, used) in self._clients.items() if used < since]:
            self._forget(client)
        self._sweeping = self._loop.call_later(IDLE_SECONDS, self._sweep)

    def _forget(self, client: tuple[Any, ...]) -> None:
        inner, _ = self._clients.pop(client)
        self._loop.remove_reader(inner)
        inner.close()
