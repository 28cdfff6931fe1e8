"""A connection that a client takes over from HTTP: raw bytes, or bytes in WebSocket messages.

Rule of this file: after the take-over HTTP has no more part in the connection, and its end is the end of
the request.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from aiohttp import WSMsgType, web
from aiohttp.abc import AbstractStreamWriter

READ_SIZE = 1 << 16


class Pipe(Protocol):
    """Bytes both ways."""

    async def read(self) -> bytes:
        """Some bytes; b"" at the end."""
        ...

    async def write(self, data: bytes) -> None:
        """Send; waits while the client reads too slowly. ConnectionError once it is gone."""

    async def close(self) -> None:
        """End the connection."""


class RawPipe:
    """The bytes of the connection itself, after `101 Switching Protocols`.

    A client that closes its writing side still hears what is written (a half-close).
    """

    def __init__(self, request: web.Request, upgrade: str, headers: dict[str, str]) -> None:
        transport = request.transport
        if transport is None:
            raise ConnectionResetError
        head = f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
        transport.write(head.encode())
        loop = asyncio.get_running_loop()
        self._reader = asyncio.StreamReader(limit=READ_SIZE * 4)
        inner = asyncio.StreamReaderProtocol(self._reader)
        transport.set_protocol(inner)
        inner.connection_made(transport)
        self._writer = asyncio.StreamWriter(transport, inner, self._reader, loop)
        self._transport = transport
        self.response = Taken()
        """What the handler gives back when the connection is done with."""

    async def read(self) -> bytes:
        try:
            return await self._reader.read(READ_SIZE)
        except ConnectionError:
            return b""

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def close(self) -> None:
        self._transport.close()


class Taken(web.StreamResponse):
    """A response that has been sent by other means."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


class SocketPipe:
    """Bytes in the binary messages of a WebSocket."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def read(self) -> bytes:
        while True:
            message = await self._socket.receive()
            if message.type is WSMsgType.BINARY:
                data: bytes = message.data
                if data:
                    return data
            elif message.type is not WSMsgType.TEXT:
                return b""

    async def write(self, data: bytes) -> None:
        await self._socket.send_bytes(data)

    async def close(self) -> None:
        await self._socket.close()


async def open_socket(request: web.Request, protocols: tuple[str, ...]) -> web.WebSocketResponse:
    """A WebSocket with one of the sub-protocols, the first that the client offers too."""
    socket = web.WebSocketResponse(protocols=protocols, max_msg_size=0, autoping=True)
    await socket.prepare(request)
    return socket


def wants_socket(request: web.Request) -> bool:
    """True where the client asks for a WebSocket."""
    return request.headers.get("Upgrade", "").lower() == "websocket"


def wants_spdy(request: web.Request) -> bool:
    """True where the client asks for SPDY."""
    return request.headers.get("Upgrade", "").lower().startswith("spdy/")
