"""port-forward: connections into a pod, carried to a client by SPDY, by SPDY in a WebSocket, or by channels.

Rule of this file: each connection stands for itself: one that fails is told of, and harms no other.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from aiohttp import WSMsgType, web

from emunet.daemon.kube.backend import CannotServe, Connection
from emunet.daemon.kube.pipes import Pipe, RawPipe, SocketPipe, open_socket, wants_socket, wants_spdy
from emunet.daemon.kube.spdy import Data, GoneAway, Opened, Reset, Spdy, SpdyError

_TUNNEL = "SPDY/3.1+portforward.k8s.io"
_CHANNELS = ("v5.channel.k8s.io", "v4.channel.k8s.io", "portforward.k8s.io")

Connect = Callable[[int], Awaitable[Connection]]


async def serve(request: web.Request, connect: Connect) -> web.StreamResponse:
    """Carry connections until the client goes."""
    if wants_socket(request):
        offered = request.headers.get("Sec-WebSocket-Protocol", "")
        if _TUNNEL in offered:
            socket = await open_socket(request, (_TUNNEL,))
            await _Forwarder(SocketPipe(socket), connect).run()
        else:
            ports = [int(port) for value in request.query.getall("ports", []) for port in value.split(",") if port]
            socket = await open_socket(request, _CHANNELS)
            await _run_channels(socket, ports, connect)
        await socket.close()
        return socket
    if not wants_spdy(request):
        raise CannotServe("this needs a connection that can be upgraded: Upgrade: SPDY/3.1 or websocket")
    pipe = RawPipe(request, "SPDY/3.1", {"X-Stream-Protocol-Version": "portforward.k8s.io"})
    await _Forwarder(pipe, connect).run()
    await pipe.close()
    return pipe.response


class _Forwarder:
    """The connections of one SPDY connection: each is a pair of streams with one `requestid`."""

    def __init__(self, pipe: Pipe, connect: Connect) -> None:
        self._pipe = pipe
        self._connect = connect
        self._spdy = Spdy()
        self._halves: dict[str, dict[str, int]] = {}
        self._queues: dict[int, asyncio.Queue[bytes]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until the client goes."""
        try:
            while data := await self._pipe.read():
                try:
                    events = self._spdy.feed(data)
                except SpdyError:
                    return
                await self._flush()
                for event in events:
                    match event:
                        case Opened():
                            self._opened(event)
                        case Data(stream, content, ended):
                            queue = self._queues.get(stream)
                            if queue is not None:
                                if content:
                                    queue.put_nowait(content)
                                if ended:
                                    queue.put_nowait(b"")
                        case Reset(stream):
                            if stream in self._queues:
                                self._queues[stream].put_nowait(b"")
                        case GoneAway():
                            return
        except ConnectionError:
            pass
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _flush(self) -> None:
        data = self._spdy.take()
        if data:
            await self._pipe.write(data)

    def _opened(self, event: Opened) -> None:
        headers = {name.lower(): value for name, value in event.headers.items()}
        request, kind = headers.get("requestid", ""), headers.get("streamtype", "")
        pair = self._halves.setdefault(request, {})
        pair[kind] = event.stream
        if kind == "data":
            self._queues[event.stream] = asyncio.Queue()
        if pair.keys() >= {"data", "error"}:
            del self._halves[request]
            port = int(headers.get("port", "0") or 0)
            task = asyncio.create_task(self._carry(pair["data"], pair["error"], port))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, stream: int, error: int, port: int) -> None:
        queue = self._queues[stream]
        try:
            connection = await self._connect(port)
        except CannotServe as why:
            self._spdy.send(error, str(why).encode(), end=True)
            self._spdy.reset(stream)
            await self._flush()
            return
        upwards = asyncio.create_task(_upwards(queue, connection))
        try:
            while data := await connection.read():
                self._spdy.send(stream, data)
                await self._flush()
            self._spdy.send(stream, b"", end=True)
            self._spdy.send(error, b"", end=True)
            await self._flush()
        finally:
            upwards.cancel()
            connection.close()
            self._queues.pop(stream, None)


async def _upwards(queue: asyncio.Queue[bytes], connection: Connection) -> None:
    with contextlib.suppress(ConnectionError, OSError):
        while data := await queue.get():
            await connection.write(data)
        connection.close_input()


async def _run_channels(socket: web.WebSocketResponse, ports: list[int], connect: Connect) -> None:
    """Two channels for each port: data and error. Each begins with its port, little endian."""
    queues: list[asyncio.Queue[bytes]] = []
    tasks: list[asyncio.Task[None]] = []
    for index, port in enumerate(ports):
        for channel in (2 * index, 2 * index + 1):
            await socket.send_bytes(bytes((channel,)) + port.to_bytes(2, "little"))
        queues.append(asyncio.Queue())
        tasks.append(asyncio.create_task(_carry_channel(socket, 2 * index, port, queues[index], connect)))
    try:
        async for message in socket:
            data = message.data.encode() if message.type is WSMsgType.TEXT else message.data
            if data and data[0] // 2 < len(queues) and data[0] % 2 == 0 and len(data) > 1:
                queues[data[0] // 2].put_nowait(data[1:])
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _carry_channel(
    socket: web.WebSocketResponse, channel: int, port: int, queue: asyncio.Queue[bytes], connect: Connect
) -> None:
    try:
        connection = await connect(port)
    except CannotServe as why:
        await socket.send_bytes(bytes((channel + 1,)) + str(why).encode())
        return
    upwards = asyncio.create_task(_upwards(queue, connection))
    try:
        while data := await connection.read():
            await socket.send_bytes(bytes((channel,)) + data)
        await socket.close()
    finally:
        upwards.cancel()
        connection.close()
