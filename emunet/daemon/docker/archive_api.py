"""`docker cp`: files of a container as a tar archive, out of it and into it.

They are read and written by `tar` in the container's own root, as root there. A container that has ended has no
files any more, since they are in memory; one in its host's network has the machine's, which are left alone.

Rule of this file: no path of a container is opened here; whatever it is, a program in the container opens it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import posixpath
import stat
from typing import TYPE_CHECKING, Any

from emunet.cluster.docker.networks import Refused
from emunet.daemon.docker.commands import PATH
from emunet.daemon.docker.record import Body, Record
from emunet.daemon.docker.views import moment
from emunet.daemon.kube.backend import CannotServe
from emunet.daemon.programs import Programs, RunningProgram
from emunet.linux.specification import ProgramSpec

if TYPE_CHECKING:
    from emunet.daemon.docker.server import Asked

STAT_HEADER = "X-Docker-Container-Path-Stat"
_GO_FOLDER, _GO_LINK = 1 << 31, 1 << 27
"""Bits of Go's os.FileMode."""

_CHUNK = 1 << 16


async def read(asked: Asked) -> Any:
    """`GET` and `HEAD /containers/NAME/archive`: what is at a path, and what kind of thing that is."""
    from aiohttp import web

    found, programs, path = _place(asked)
    told = json.dumps(await _look(found, programs, path)).encode()
    headers = {STAT_HEADER: base64.b64encode(told).decode()}
    if asked.request.method == "HEAD":
        return web.Response(headers=headers)
    folder, name = (path, ".") if path.endswith("/.") or path == "/" else posixpath.split(path.rstrip("/"))
    program = await _run(found, programs, ["tar", "-C", folder, "--one-file-system", "-cf", "-", "--", name])
    response = web.StreamResponse(headers=headers | {"Content-Type": "application/x-tar"})
    response.enable_chunked_encoding()
    try:
        await response.prepare(asked.request)
        errors = asyncio.create_task(_all(program, 2))
        while data := await program.read(1):
            await response.write(data)
        await errors
        await response.write_eof()
    finally:
        await program.close()
    return response


async def write(asked: Asked) -> Any:
    """`PUT /containers/NAME/archive`: an archive is unpacked in a folder."""
    found, programs, path = _place(asked)
    there = await _look(found, programs, path)
    if not there["mode"] & _GO_FOLDER and not there["linkTarget"]:
        raise Refused(400, f"extraction point is not a directory: {path}")
    program = await _run(found, programs, ["tar", "-C", path, "-xf", "-"], stdin=True)
    try:
        said = asyncio.create_task(_all(program, 2))
        with contextlib.suppress(ConnectionError, BrokenPipeError):  # it has stopped reading, and says why
            async for data in asked.request.content.iter_chunked(_CHUNK):
                await program.write(data)
        program.close_input()
        code = await program.wait()
        if code:
            raise Refused(500, f"unpacking in {path}: {(await said).decode(errors='replace').strip()}")
    finally:
        await program.close()
    return (200, {})


def _place(asked: Asked) -> tuple[Record, Programs, str]:
    found = asked.engine.find(asked.name)
    path = asked.query.get("path", "")
    programs = asked.engine.ground.programs
    if not path:
        raise Refused(400, "bad parameter: the query 'path' is to say which file or folder")
    if programs is None:
        raise Refused(409, f"{found.name} is a network stack in memory without files")
    if not found.is_running:
        raise Refused(409, f"container {found.name} is not running: its files were in memory and went with it")
    if found.sandbox == asked.engine.host:
        raise Refused(409, f"container {found.name} is in its host's network and has the machine's own files, which"
                           " `docker cp` leaves alone")  # fmt: skip
    return found, programs, posixpath.join("/", path)


async def _look(found: Record, programs: Programs, path: str) -> Body:
    """What is at a path, as the engine tells it. Refused where there is nothing."""
    script = 'stat -c "%f %s %Y" -- "$1" && readlink -- "$1" || test -e "$1"'
    program = await _run(found, programs, ["sh", "-c", script, "sh", path.rstrip("/") or "/"])
    try:
        said, _ = await asyncio.gather(_all(program, 1), _all(program, 2))
        await program.wait()
    finally:
        await program.close()
    first, _, link = said.decode(errors="replace").partition("\n")
    try:
        mode, size, changed = first.split()
        bits, seconds = int(mode, 16), int(changed)
    except ValueError:
        raise Refused(404, f"Could not find the file {path} in container {found.name}") from None
    told = stat.S_IMODE(bits) | (_GO_FOLDER if stat.S_ISDIR(bits) else 0) | (_GO_LINK if stat.S_ISLNK(bits) else 0)
    name = posixpath.basename(path.rstrip("/")) or "/"
    return {"name": name, "size": int(size), "mode": told, "mtime": moment(seconds * 10**9),
            "linkTarget": link.rstrip("\n")}  # fmt: skip


async def _run(found: Record, programs: Programs, argv: list[str], *, stdin: bool = False) -> RunningProgram:
    program = RunningProgram(programs)
    try:
        await program.start(found.sandbox, ProgramSpec(tuple(argv), {"PATH": PATH}), stdin=stdin)
    except CannotServe as error:
        raise Refused(500, str(error)) from None
    return program


async def _all(program: RunningProgram, stream: int) -> bytes:
    said = b""
    while data := await program.read(stream):
        said += data
    return said
