"""TCP connections into a pod from its own loopback, as the kubelet makes them for port-forward.

The socket is opened in the pod's network by the keeper and used from here: its bytes never pass the
emulated network, as they do not in Kubernetes.

Rule of this file: a connection that fails says why, once.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

from emunet.daemon.keeper_link import KeeperLink
from emunet.daemon.kube.backend import CannotServe
from emunet.linux.keeper_client import KeeperGone, KeeperRefused
from emunet.linux.keeper_requests import OpenSockets

_CONNECT_SECONDS = 5.0
READ_SIZE = 1 << 16


class PodConnection:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self) -> bytes:
        """Some bytes; b"" at the end."""
        try:
            return await self._reader.read(READ_SIZE)
        except ConnectionError:
            return b""

    async def write(self, data: bytes) -> None:
        """Some bytes to the pod."""
        self._writer.write(data)
        await self._writer.drain()

    def close_input(self) -> None:
        """No more will come from the client."""
        with contextlib.suppress(OSError):
            self._writer.write_eof()

    def close(self) -> None:
        """Done."""
        self._writer.close()


async def connect_in(keeper: KeeperLink, sandbox: str, port: int) -> PodConnection:
    """Connect to 127.0.0.1, or ::1, of a sandbox. CannotServe."""
    loop = asyncio.get_running_loop()
    why = ""
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            (opened,) = await keeper.ask(OpenSockets(sandbox, ((int(family), int(socket.SOCK_STREAM)),)))
        except (KeeperRefused, KeeperGone) as error:
            raise CannotServe(str(error)) from None
        opened.setblocking(False)
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await loop.sock_connect(opened, (address, port))
        except (OSError, TimeoutError) as error:
            opened.close()
            why = why or f"failed to connect to localhost:{port} inside the pod: {error.strerror or error}"
            continue
        reader, writer = await asyncio.open_connection(sock=opened)
        return PodConnection(reader, writer)
    raise CannotServe(why)
