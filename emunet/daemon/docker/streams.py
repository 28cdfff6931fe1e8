"""What stays open: attach, exec, logs, wait, events.

    attach comes before start, wait too: what is said and how it ended reach whoever was there first

Rule of this file: headers go at once; a connection that was taken over is closed when its program has
ended and not before all that it said is written; a client that goes away leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from aiohttp import web

from emunet.cluster.docker.networks import Refused
from emunet.daemon.docker.events import matches
from emunet.daemon.docker.process import Process
from emunet.daemon.docker.questions import filters, is_set, number
from emunet.daemon.docker.record import Body, Record, words
from emunet.daemon.kube.pipes import RawPipe

if TYPE_CHECKING:
    from emunet.daemon.docker.server import Asked

_EVENT_FILTERS = ("type", "event", "action", "container", "image", "label", "network", "volume", "daemon", "scope")


# Attach and exec


async def attach(asked: Asked) -> web.StreamResponse:
    """`POST /containers/NAME/attach`."""
    found = asked.engine.find(asked.name)
    query = asked.query
    process = found.attached if not found.is_running else found.process
    if process is None and not is_set(query, "logs"):
        found.attached = process = asked.engine.new_process(found)
    streams = {which for which, name in ((1, "stdout"), (2, "stderr")) if is_set(query, name)}
    past = b""
    if is_set(query, "logs"):
        past = b"".join(frame(one, line, found.terminal) for _, one, line in found.log.since(0) if one in streams)
    stdin = is_set(query, "stdin") and bool(found.body.get("OpenStdin"))
    once = bool(found.body.get("StdinOnce"))
    asked.engine.tell(found, "attach")
    if not is_set(query, "stream"):
        process = None
    return await _carry(asked, process, streams, stdin, once=once, terminal=found.terminal, past=past)


async def create_exec(asked: Asked) -> tuple[int, Body]:
    """`POST /containers/NAME/exec`."""
    made = asked.engine.execs.add(asked.engine.find(asked.name), await asked.body())
    return 201, {"Id": made.id}


async def start_exec(asked: Asked) -> Any:
    """`POST /exec/ID/start`."""
    one = asked.engine.execs.find(asked.name)
    body = await asked.body()
    if one.begun:
        raise Refused(409, f"Error: Exec command {one.id} has already run")
    size = body.get("ConsoleSize") or one.body.get("ConsoleSize")
    if size and one.terminal:
        one.process.resize(int(size[1]), int(size[0]))
    if body.get("Detach") or one.body.get("Detach"):
        await asked.engine.execs.begin(one)
        return 200, None
    streams = {which for which, name in ((1, "AttachStdout"), (2, "AttachStderr")) if one.body.get(name)}

    def begin() -> asyncio.Task[None]:
        return asyncio.create_task(asked.engine.execs.begin(one))

    stdin = bool(one.body.get("AttachStdin"))
    return await _carry(asked, one.process, streams, stdin, once=True, terminal=one.terminal, begin=begin)


async def inspect_exec(asked: Asked) -> Body:
    """`GET /exec/ID/json`."""
    one = asked.engine.execs.find(asked.name)
    argv = words(one.body.get("Cmd"))
    running = one.begun and not one.process.ended.is_set()
    return {
        "ID": one.id,
        "Running": running,
        "ExitCode": None if running or not one.begun else one.process.code,
        "ProcessConfig": {"tty": one.terminal, "entrypoint": argv[0], "arguments": argv[1:], "privileged": False},
        "OpenStdin": bool(one.body.get("AttachStdin")),
        "OpenStderr": bool(one.body.get("AttachStderr")),
        "OpenStdout": bool(one.body.get("AttachStdout")),
        "CanRemove": False,
        "ContainerID": one.container,
        "DetachKeys": "",
        "Pid": one.process.pid,
    }


async def resize(asked: Asked) -> tuple[int, None]:
    """`POST /containers/NAME/resize`: also before it runs."""
    found = asked.engine.find(asked.name)
    process = found.process if found.is_running else found.attached
    if process is not None:
        process.resize(number(asked.query, "w") or 0, number(asked.query, "h") or 0)
    return 200, None


async def resize_exec(asked: Asked) -> tuple[int, None]:
    """`POST /exec/ID/resize`."""
    asked.engine.execs.find(asked.name).process.resize(number(asked.query, "w") or 0, number(asked.query, "h") or 0)
    return 200, None


def frame(stream: int, data: bytes, terminal: bool) -> bytes:
    """What was said as it travels: as it is from a terminal, else with its stream and length before it."""
    return data if terminal else struct.pack(">BxxxI", stream, len(data)) + data


async def _carry(
    asked: Asked, process: Process | None, streams: set[int], stdin: bool, *, once: bool, terminal: bool,
    past: bytes = b"", begin: Callable[[], asyncio.Task[None]] | None = None,
) -> web.StreamResponse:  # fmt: skip
    """Take the connection over, and carry a program's streams until it has ended or the client is gone."""
    kind = "raw" if terminal or asked.version < (1, 42) else "multiplexed"
    pipe = RawPipe(asked.request, "tcp", {"Content-Type": f"application/vnd.docker.{kind}-stream"})
    if past:
        await pipe.write(past)
    if process is None:
        await pipe.close()
        return pipe.response
    gone = asyncio.Event()

    async def send(stream: int, data: bytes) -> None:
        if stream in streams:
            try:
                await pipe.write(frame(stream, data, terminal))
            except ConnectionError:
                gone.set()
                raise

    async def receive() -> None:
        while data := await pipe.read():
            if stdin:
                await process.write(data)
        if stdin and once and not terminal:
            await process.write(None)

    forget = process.listen(send)
    listening = asyncio.create_task(receive())
    waits = {asyncio.create_task(process.ended.wait()), asyncio.create_task(gone.wait())}
    try:
        if begin is not None:
            await begin()
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        forget()
        for task in (listening, *waits):
            task.cancel()
        await asyncio.gather(listening, *waits, return_exceptions=True)
        await pipe.close()
    return pipe.response


# Wait, logs, events


async def wait(asked: Asked) -> web.StreamResponse:
    """`POST /containers/NAME/wait`: the headers go at once, since `docker run` starts nothing before it has them."""
    found = asked.engine.find(asked.name)
    condition = asked.query.get("condition", "")
    if condition not in ("", "not-running", "next-exit", "removed"):
        raise Refused(400, f"invalid condition: {condition}")
    waiting = asyncio.ensure_future(asked.engine.wait(found, condition))
    await asyncio.sleep(0)  # it is in the row of those who wait before anybody hears so
    response = await _open(asked, "application/json")
    try:
        code = await waiting
    finally:
        waiting.cancel()
    with contextlib.suppress(ConnectionError):
        await response.write(json.dumps({"StatusCode": code}).encode() + b"\n")
        await response.write_eof()
    return response


async def logs(asked: Asked) -> web.StreamResponse:
    """`GET /containers/NAME/logs`."""
    found = asked.engine.find(asked.name)
    query = asked.query
    streams = {which for which, name in ((1, "stdout"), (2, "stderr")) if is_set(query, name)}
    if not streams:
        raise Refused(400, "Bad parameters: you must choose at least one stream")
    if found.terminal:
        streams |= {1}
    since, until = moment_of(query, "since"), moment_of(query, "until")
    kind = "raw" if found.terminal or asked.version < (1, 42) else "multiplexed"
    response = await _open(asked, f"application/vnd.docker.{kind}-stream")
    tail = query.get("tail", "all")
    lines = _lines(found, int(tail) if tail.isdigit() else None, follow=is_set(query, "follow"))
    with contextlib.suppress(ConnectionError):
        async for at, stream, line in lines:
            if until is not None and at > until:
                break
            if stream not in streams or (since is not None and at < since):
                continue
            if is_set(query, "timestamps"):
                whole, rest = divmod(at, 10**9)
                line = f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z ".encode() + line
            await response.write(frame(stream, line, found.terminal))
        await response.write_eof()
    return response


async def _lines(found: Record, tail: int | None, *, follow: bool) -> AsyncIterator[tuple[int, int, bytes]]:
    log = found.log
    position = log.first if tail is None else max(log.first, log.next - tail)
    while True:
        for line in list(log.since(position)):
            yield line
            position = max(position, log.first) + 1
        if position < log.next:
            continue
        if not follow or (found.process is not None and not found.is_running) or found.state == "removing":
            return
        await log.bell.wait(None)


async def events(asked: Asked) -> web.StreamResponse:
    """`GET /events`."""
    wanted = filters(asked.query, _EVENT_FILTERS)
    since, until = moment_of(asked.query, "since"), moment_of(asked.query, "until")
    response = await _open(asked, "application/json")
    with asked.engine.events.listen() as queue, contextlib.suppress(ConnectionError):
        for event in list(asked.engine.events.past) if since is not None else ():
            if event["timeNano"] >= (since or 0) and (until is None or event["timeNano"] <= until):
                await _tell(response, event, wanted)
        with contextlib.suppress(TimeoutError):
            seconds = None if until is None else max(0.0, (until - time.time_ns()) / 1e9)
            async with asyncio.timeout(seconds):
                while True:
                    await _tell(response, await queue.get(), wanted)
        await response.write_eof()
    return response


async def _tell(response: web.StreamResponse, event: Body, wanted: dict[str, list[str]]) -> None:
    if matches(event, wanted):
        await response.write(json.dumps(event, separators=(",", ":")).encode() + b"\n")


async def _open(asked: Asked, kind: str) -> web.StreamResponse:
    """A response whose headers are on their way, and whose body follows piece by piece."""
    response = web.StreamResponse(headers={"Content-Type": kind})
    response.enable_chunked_encoding()
    await response.prepare(asked.request)
    await response.write(b"")
    return response


def moment_of(query: dict[str, str], name: str) -> int | None:
    """A moment in nanoseconds since 1970, from seconds with a fraction; `0` is none."""
    text = query.get(name, "")
    if not text or text == "0":
        return None
    try:
        return int(float(text) * 1e9)
    except ValueError:
        raise Refused(400, f"{name} is to be a moment in Unix seconds (got {text!r})") from None
