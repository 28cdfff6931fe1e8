"""The Docker Engine API of one host: which request leads where, in which form the answer goes back.

Rule of this file: what goes wrong is told in the engine's own form, `{"message": sentence}`, never a bare
text and never a hang; `application/json` is written without a character set, since clients compare it whole.
"""

from __future__ import annotations

import json
import re
import socket
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from emunet.cluster.docker.networks import Refused
from emunet.daemon.docker import (
    archive_api,
    containers_api,
    images_api,
    lacking,
    networks_api,
    stats_api,
    streams,
    system_api,
)
from emunet.daemon.docker.engine import Engine
from emunet.daemon.plane_client import PlaneGone, PlaneRefused
from emunet.linux.keeper_client import KeeperGone, KeeperRefused

API_VERSION, MINIMUM_API_VERSION = "1.47", "1.24"
MAXIMUM_BODY = 16 << 20
_CLOSING_SECONDS = 0.1
_VERSION = re.compile(r"/v(\d+)\.(\d+)(?=/)")
_HEADERS = {
    "Api-Version": API_VERSION,
    "Ostype": "linux",
    "Docker-Experimental": "false",
    "Builder-Version": "1",
    "Swarm": "inactive",
    "Server": "Docker/emunet (linux)",
    "Cache-Control": "no-cache, no-store, must-revalidate",
}


class Asked:
    """One request: its path without the version, what the path names, its query, its body."""

    def __init__(self, engine: Engine, request: web.Request, version: tuple[int, int], name: str) -> None:
        self.engine = engine
        self.request = request
        self.version = version
        self.name = name
        self.query = {key: request.query.getall(key)[-1] for key in request.query}

    async def body(self) -> dict[str, Any]:
        """The body as JSON, whatever its type says; nothing is an empty object."""
        data = await self.request.read()
        if not data.strip():
            return {}
        try:
            found = json.loads(data)
        except ValueError as error:
            raise Refused(400, f"invalid JSON: {error}") from None
        if not isinstance(found, dict):
            raise Refused(400, "invalid JSON: an object is expected")
        return found


Handler = Callable[[Asked], Awaitable[Any]]
"""Gives JSON values, (status, JSON values), or a response. None is 204."""

_C = r"/containers/([^/]+)"
_N = r"/networks/([^/]+)"
ROUTES: list[tuple[str, re.Pattern[str], Handler]] = [
    (method, re.compile(path), handler)
    for method, path, handler in (
        ("GET", "/version", system_api.version),
        ("GET", "/info", system_api.info),
        ("GET", "/system/df", system_api.disk_usage),
        ("GET", "/events", streams.events),
        ("POST", "/build/prune", system_api.prune_builds),
        ("POST", "/auth", system_api.log_in),
        ("GET", "/volumes", system_api.volumes),
        ("POST", "/volumes/create", system_api.create_volume),
        ("POST", "/volumes/prune", system_api.prune_volumes),
        ("GET", r"/volumes/([^/]+)", system_api.volume),
        ("DELETE", r"/volumes/([^/]+)", system_api.remove_volume),
        ("GET", "/containers/json", containers_api.listed),
        ("POST", "/containers/create", containers_api.create),
        ("POST", "/containers/prune", containers_api.prune),
        ("GET", f"{_C}/json", containers_api.inspect),
        ("DELETE", _C, containers_api.remove),
        ("POST", f"{_C}/start", containers_api.start),
        ("POST", f"{_C}/stop", containers_api.stop),
        ("POST", f"{_C}/restart", containers_api.restart),
        ("POST", f"{_C}/kill", containers_api.kill),
        ("POST", f"{_C}/pause", containers_api.pause),
        ("POST", f"{_C}/unpause", containers_api.unpause),
        ("POST", f"{_C}/rename", containers_api.rename),
        ("POST", f"{_C}/update", containers_api.update),
        ("GET", f"{_C}/top", containers_api.top),
        ("GET", f"{_C}/changes", containers_api.changes),
        ("GET", f"{_C}/stats", stats_api.stats),
        ("GET", f"{_C}/archive", archive_api.read),
        ("PUT", f"{_C}/archive", archive_api.write),
        ("POST", f"{_C}/wait", streams.wait),
        ("POST", f"{_C}/attach", streams.attach),
        ("GET", f"{_C}/logs", streams.logs),
        ("POST", f"{_C}/resize", streams.resize),
        ("POST", f"{_C}/exec", streams.create_exec),
        ("POST", r"/exec/([^/]+)/start", streams.start_exec),
        ("POST", r"/exec/([^/]+)/resize", streams.resize_exec),
        ("GET", r"/exec/([^/]+)/json", streams.inspect_exec),
        ("GET", "/networks", networks_api.listed),
        ("POST", "/networks/create", networks_api.create),
        ("POST", "/networks/prune", networks_api.prune),
        ("POST", f"{_N}/connect", networks_api.connect),
        ("POST", f"{_N}/disconnect", networks_api.disconnect),
        ("GET", _N, networks_api.inspect),
        ("DELETE", _N, networks_api.remove),
        ("GET", "/plugins", system_api.plugins),
        ("GET", "/images/json", images_api.listed),
        ("POST", "/images/create", images_api.pull),
        ("POST", "/images/prune", images_api.prune),
        ("GET", "/images/(.+)/json", images_api.inspect),
        ("GET", "/images/(.+)/history", images_api.history),
        ("POST", "/images/(.+)/tag", images_api.tag),
        ("DELETE", "/images/(.+)", images_api.remove),
    )
]


class DockerServer:
    """The API of one host's engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        application = web.Application(client_max_size=MAXIMUM_BODY)
        application.router.add_route("*", "/{path:.*}", self._answer)
        # A client that goes away takes its request with it: `docker run -d` leaves a wait behind, `events` a stream.
        self._runner = web.AppRunner(
            application, access_log=None, shutdown_timeout=_CLOSING_SECONDS, handler_cancellation=True
        )

    async def open(self, listener: socket.socket) -> None:
        """Answer on a listening socket."""
        await self._runner.setup()
        await web.SockSite(self._runner, listener).start()

    async def close(self) -> None:
        """Answer no more."""
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if self._engine.is_dark:
            host = self._engine.host
            return failure(503, f"{host} has no power: `emunet host {host} --on` gives it back")
        try:
            return await self._lead(request)
        except Refused as error:
            return failure(error.status, str(error))
        except (PlaneRefused, KeeperRefused) as error:
            return failure(500, str(error))
        except (PlaneGone, KeeperGone) as error:
            return failure(503, f"the lab is ending: {error}")
        except web.HTTPRequestEntityTooLarge:
            return failure(413, f"the body is longer than {MAXIMUM_BODY} bytes")
        except (ConnectionResetError, web.HTTPException):
            raise
        except Exception as error:  # a fault of ours in one answer must not end the others
            traceback.print_exc()
            return failure(500, f"emunet has a fault ({error!r}); the lab's log has the place")

    async def _lead(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        version = (1, 47)
        found = _VERSION.match(path)
        if found is not None:
            version = (int(found[1]), int(found[2]))
            path = path[found.end() :]
        if path == "/_ping":
            return web.Response(text="OK" if request.method != "HEAD" else None, headers=_HEADERS)
        method = "GET" if request.method == "HEAD" else request.method
        allowed = False
        for wanted, pattern, handler in ROUTES:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            allowed = True
            if wanted == method:
                name = match[1] if pattern.groups else ""
                return _response(await handler(Asked(self._engine, request, version, name)))
        why = lacking.why(path)
        if allowed and why is None:
            return failure(405, f"the method {request.method} is not allowed for {path}")
        # Clients ask for what may be of several kinds (`docker inspect`) and take 404 for an answer.
        status = 404 if request.method == "GET" and not allowed else 501
        return failure(status, why or f"the engines of a lab do not have {request.method} {path}")


def _response(result: Any) -> web.StreamResponse:
    if isinstance(result, web.StreamResponse):
        return result
    status = 200
    if isinstance(result, tuple):
        status, result = result
    if result is None:
        return web.Response(status=204 if status == 200 else status, headers=_HEADERS)
    return answer(status, result)


def answer(status: int, body: Any) -> web.Response:
    """JSON in the form that clients take."""
    data = json.dumps(body, separators=(",", ":")).encode() + b"\n"
    return web.Response(body=data, status=status, content_type="application/json", headers=_HEADERS)


def failure(status: int, sentence: str) -> web.Response:
    """A refusal in the engine's form."""
    return answer(status, {"message": sentence})
