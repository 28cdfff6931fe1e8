"""exec and attach: a program in a pod, its streams carried to a client by SPDY or by WebSocket channels.

Rule of this file: the client hears how the program ended before the connection ends; a client that goes
away takes its program with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from aiohttp import WSMsgType, web

from emunet.daemon.kube.backend import CannotServe, Session
from emunet.daemon.kube.paths import is_set
from emunet.daemon.kube.pipes import Pipe, RawPipe, open_socket, wants_socket, wants_spdy
from emunet.daemon.kube.spdy import Data, GoneAway, Opened, Spdy, SpdyError

STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)
_CLOSE = 255
_NAMES = {"stdin": STDIN, "stdout": STDOUT, "stderr": STDERR, "error": ERROR, "resize": RESIZE}
_VERSIONS = ("v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")
_SPDY_VERSIONS = ("v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io")
_LAST_WORDS_SECONDS = 2.0

Begin = Callable[[], Awaitable[Session]]


class Carrier(Protocol):
    """How the streams travel. `receive` gives (stream, bytes); empty bytes for the end of a stream; None at the end."""

    async def receive(self) -> tuple[int, bytes] | None: ...

    async def send(self, stream: int, data: bytes) -> None: ...

    async def finish(self, status: bytes) -> None: ...


async def serve(request: web.Request, query: dict[str, str], begin: Begin) -> web.StreamResponse:
    """Run what `begin` begins, for the client of a request. CannotServe before the connection is taken over."""
    if wants_socket(request):
        session = await begin()
        socket = await open_socket(request, _VERSIONS)
        await _run(_Channels(socket), session)
        await socket.close()
        return socket
    if not wants_spdy(request):
        raise CannotServe("this needs a connection that can be upgraded: Upgrade: SPDY/3.1 or websocket")
    session = await begin()
    offered = request.headers.getall("X-Stream-Protocol-Version", ["v4.channel.k8s.io"])
    words = {word.strip() for line in offered for word in line.split(",")}
    version = next((one for one in _SPDY_VERSIONS if one in words), "v4.channel.k8s.io")
    pipe = RawPipe(request, "SPDY/3.1", {"X-Stream-Protocol-Version": version})
    wanted = {ERROR} | {_NAMES[name] for name in ("stdin", "stdout", "stderr") if is_set(query, name)}
    if is_set(query, "tty"):
        wanted = (wanted | {RESIZE}) - {STDERR}
    carrier = _Streams(pipe, wanted)
    if await carrier.open():
        await _run(carrier, session)
    else:
        await session.close()
    await pipe.close()
    return pipe.response


async def _run(carrier: Carrier, session: Session) -> None:
    outputs = [asyncio.create_task(_pump(carrier, session, stream)) for stream in (STDOUT, STDERR)]
    listening = asyncio.create_task(_listen(carrier, session))
    waiting = asyncio.create_task(session.wait())
    try:
        await asyncio.wait({listening, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            return  # the client is gone
        await asyncio.wait(outputs, timeout=_LAST_WORDS_SECONDS)
        listening.cancel()  # `finish` listens itself, for the client's farewell
        await asyncio.gather(listening, return_exceptions=True)
        with contextlib.suppress(ConnectionError):
            await carrier.finish(json.dumps(exit_status(waiting.result())).encode())
    finally:
        for task in (*outputs, listening, waiting):
            task.cancel()
        await asyncio.gather(*outputs, listening, waiting, return_exceptions=True)
        await session.close()


async def _pump(carrier: Carrier, session: Session, stream: int) -> None:
    while data := await session.read(stream):
        await carrier.send(stream, data)


async def _listen(carrier: Carrier, session: Session) -> None:
    """What the client sends, until it is gone."""
    while (received := await carrier.receive()) is not None:
        stream, data = received
        if stream == STDIN:
            if data:
                with contextlib.suppress(ConnectionError, OSError):  # the program has closed it
                    await session.write(data)
            else:
                session.close_input()
        elif stream == RESIZE and data:
            for line in data.splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    size = json.loads(line)
                    session.resize(int(size["Width"]), int(size["Height"]))


def exit_status(code: int) -> dict[str, Any]:
    """How a program ended, as clients read it."""
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


class _Channels:
    """Channels of a WebSocket: the first byte of a message is the stream."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def receive(self) -> tuple[int, bytes] | None:
        while True:
            message = await self._socket.receive()
            if message.type is WSMsgType.BINARY:
                data: bytes = message.data
            elif message.type is WSMsgType.TEXT:
                data = message.data.encode()
            else:
                return None
            if not data:
                continue
            if data[0] == _CLOSE:
                return (data[1] if len(data) > 1 else STDIN), b""
            if len(data) > 1:
                return data[0], data[1:]

    async def send(self, stream: int, data: bytes) -> None:
        await self._socket.send_bytes(bytes((stream,)) + data)

    async def finish(self, status: bytes) -> None:
        await self.send(ERROR, status)


class _Streams:
    """Streams of SPDY: each is told by its header `streamtype`."""

    def __init__(self, pipe: Pipe, wanted: set[int]) -> None:
        self._pipe = pipe
        self._wanted = wanted
        self._spdy = Spdy()
        self._types: dict[int, int] = {}
        self._ids: dict[int, int] = {}
        self._early: list[tuple[int, bytes]] = []

    async def open(self) -> bool:
        """Wait until the client has opened all its streams; False if it went away."""
        while self._wanted - self._ids.keys():
            if not await self._feed():
                return False
        return True

    async def receive(self) -> tuple[int, bytes] | None:
        while not self._early:
            if not await self._feed():
                return None
        return self._early.pop(0)

    async def send(self, stream: int, data: bytes) -> None:
        if stream in self._ids:
            self._spdy.send(self._ids[stream], data)
            await self._pipe.write(self._spdy.take())

    async def finish(self, status: bytes) -> None:
        self._spdy.send(self._ids[ERROR], status, end=True)
        for stream in (STDOUT, STDERR):
            if stream in self._ids:
                self._spdy.send(self._ids[stream], b"", end=True)
        await self._pipe.write(self._spdy.take())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                while await self._feed():
                    pass

    async def _feed(self) -> bool:
        data = await self._pipe.read()
        if not data:
            return False
        try:
            events = self._spdy.feed(data)
        except SpdyError:
            return False
        answer = self._spdy.take()
        if answer:
            await self._pipe.write(answer)
        for event in events:
            match event:
                case Opened(stream, headers):
                    kind = _NAMES.get(headers.get("streamtype", headers.get("Streamtype", "")), -1)
                    self._types[stream], self._ids[kind] = kind, stream
                case Data(stream, content, ended):
                    kind = self._types.get(stream, -1)
                    if content:
                        self._early.append((kind, content))
                    if ended and kind == STDIN:
                        self._early.append((kind, b""))
                case GoneAway():
                    return False
        return True
