"""The API of a running lab: HTTP with JSON over `api.sock`, for the CLI and whoever likes curl.

    curl --unix-socket /run/emunet/two-hosts/api.sock http://lab/status

    GET  /status                    what `emunet status -o json` prints
    GET  /names                     {name: {"mac", "addresses"}} of every pod and host
    GET  /ports                     every port that can be watched
    GET  /counters                  the ledgers of the World and of each device
    GET  /traffic                   frames by port, and the flows of most frames
    GET  /tables/DEVICE             every table of a device, as text
    GET  /sandboxes/NAME            what it takes to enter a pod's or host's namespaces
    POST /ping                      {"from", "to", "count", "timeout", "interval", "size"}, all of them optional
    POST /explain                   {"from", "to"}: whether one reaches the other, and how, for each port that is meant
    POST /onward                    {"port", "data": hex, "inbound": bool}: what becomes of a frame that passes a port
    POST /trace                     {"port", "data": hex, "is_frame": bool, "live": bool}, or {"port", "to", "live"}
                                    for the echo request that `ping` sends
    POST /time                      {"seconds"}: lab time jumps ahead (memory wires)
    GET  /kubeconfig                {"kubeconfig": text} that points kubectl to the lab's Kubernetes API
    GET  /docker                    {host: path} of the Docker Engine API's socket of each host
    GET  /containers                [{"host", "name", "mode"}] of what those engines run
    *    /kube/PATH                 that same API, without TLS and token, in its own forms
    POST /down                      ends the lab; answered when all of it but this server is gone

What goes wrong on purpose is in `trouble_api`.

An error is {"error": sentence}: 400 for a question that makes no sense, 404 for a name that
there is not, 409 for what this lab cannot do, 500 for a fault of ours.

Rule of this file: it translates, and decides nothing. Only the owner of the socket gets here.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Protocol

from aiohttp import web

from emunet.cluster.targets import UnknownTarget
from emunet.cluster.targets import find as find_targets
from emunet.daemon import pings
from emunet.daemon.bodies import body_of
from emunet.daemon.caretaker import Caretaker
from emunet.daemon.docker.service import DockerService
from emunet.daemon.kube.service import KubeService
from emunet.daemon.names import UnknownName
from emunet.daemon.plane_client import PlaneGone, PlaneRefused
from emunet.daemon.running import NotOnTheseWires, RunningLab
from emunet.daemon.trouble_api import trouble_routes
from emunet.lab.explanation import explained
from emunet.linux.keeper_client import KeeperGone, KeeperRefused

_SHORTEST_FRAME = 14
_CLOSING_SECONDS = 0.1
"""What `close` gives an answer that is on its way."""

_STATUS_OF_KIND = {"unknown": 404, "invalid": 400, "refused": 409, "fault": 500}


class Ending(Protocol):
    """What ends a lab (`control.Control`)."""

    stop: asyncio.Event
    gone: asyncio.Event


class Server:
    """The API of one lab."""

    def __init__(
        self, lab: RunningLab, ending: Ending, caretaker: Caretaker, kube: KubeService, docker: DockerService
    ) -> None:
        self._lab = lab
        self._caretaker = caretaker
        self._kube = kube
        self._docker = docker
        self._ending = ending
        application = web.Application(middlewares=[_answer_errors])
        application.add_routes(
            [
                web.get("/status", self._status),
                web.get("/names", self._names),
                web.get("/ports", self._ports),
                web.get("/counters", self._counters),
                web.get("/traffic", self._traffic),
                web.get("/tables/{device}", self._tables),
                web.get("/sandboxes/{name:.+}", self._sandbox),
                web.post("/ping", self._ping),
                web.post("/trace", self._trace),
                web.post("/explain", self._explain),
                web.post("/onward", self._onward),
                web.post("/time", self._time),
                web.post("/down", self._down),
                web.get("/kubeconfig", self._kubeconfig),
                web.get("/docker", self._docker_hosts),
                web.get("/containers", self._containers),
                web.route("*", "/kube/{path:.*}", self._objects),
                *trouble_routes(lab),
            ]
        )
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=_CLOSING_SECONDS)

    async def open(self, listener: socket.socket) -> None:
        """Answer on a listening socket."""
        await self._runner.setup()
        await web.SockSite(self._runner, listener).start()

    async def close(self) -> None:
        """Answer no more."""
        await self._runner.cleanup()

    async def _status(self, request: web.Request) -> web.Response:
        return web.json_response(await self._lab.status())

    async def _names(self, request: web.Request) -> web.Response:
        return web.json_response(self._lab.names.described())

    async def _ports(self, request: web.Request) -> web.Response:
        return web.json_response(await self._lab.plane.ask("ports"))

    async def _counters(self, request: web.Request) -> web.Response:
        return web.json_response(await self._lab.counters())

    async def _traffic(self, request: web.Request) -> web.Response:
        return web.json_response(await self._lab.plane.ask("traffic"))

    async def _tables(self, request: web.Request) -> web.Response:
        return web.json_response(await self._lab.plane.ask("tables", device=request.match_info["device"]))

    async def _sandbox(self, request: web.Request) -> web.Response:
        return web.json_response(self._lab.sandbox_of(request.match_info["name"]))

    async def _ping(self, request: web.Request) -> web.Response:
        kinds = {"from": str, "to": str, "count": int, "timeout": float, "interval": float, "size": int}
        body = await body_of(request, {}, kinds)
        body["source"], body["target"] = body.pop("from", None), body.pop("to", None)
        if (body["source"] is None) != (body["target"] is None):
            raise ValueError("a ping goes from one name to another, or between all pods: give both names or none")
        return web.json_response(await pings.ping(self._lab, pings.Wish(**body)))

    async def _trace(self, request: web.Request) -> web.Response:
        body = await body_of(request, {"port": str}, {"data": str, "is_frame": bool, "to": str, "live": bool})
        place = self._lab.names.find(body["port"])
        if "to" in body:
            data = pings.request_to(self._lab.names, place, body["to"])
        elif "data" in body:
            data = bytes.fromhex(body["data"])
        else:
            raise ValueError("say what to trace: data, or to")
        is_frame, live = body.get("is_frame", False), body.get("live", False)
        trace = await self._lab.plane.ask("trace", port=place.sender, data=data.hex(), is_frame=is_frame, live=live)
        return web.json_response(trace)

    async def _explain(self, request: web.Request) -> web.Response:
        body = await body_of(request, {"from": str, "to": str}, {})
        place = self._lab.names.find(body["from"])
        namespace = place.name.rpartition("/")[0] or "default"
        store, family = self._caretaker.control.store, len(place.addresses[0].address)
        found = []
        for one in find_targets(store, self._lab.names.addresses, body["to"], namespace, family):
            exchange = await self._lab.plane.ask(
                "exchange", port=place.sender, target=one.address.hex(), protocol=one.protocol, number=one.port
            )
            explanation = explained(place.name, one, exchange)
            found.append(explanation.as_dict() | {"text": explanation.as_text()})
        return web.json_response(found)

    async def _onward(self, request: web.Request) -> web.Response:
        body = await body_of(request, {"port": str, "data": str, "inbound": bool}, {})
        frame = bytes.fromhex(body["data"])
        if len(frame) < _SHORTEST_FRAME:
            raise ValueError(f"a frame has {_SHORTEST_FRAME} bytes at least: an Ethernet header; this has {len(frame)}")
        return web.json_response(
            await self._lab.plane.ask("onward", port=body["port"], data=frame.hex(), inbound=body["inbound"])
        )

    async def _time(self, request: web.Request) -> web.Response:
        body = await body_of(request, {"seconds": float})
        await self._lab.plane.ask("jump", nanoseconds=int(body["seconds"] * 1e9))
        self._caretaker.jump(int(body["seconds"] * 1e9))
        return web.json_response(None)

    async def _kubeconfig(self, request: web.Request) -> web.Response:
        return web.json_response({"kubeconfig": await self._kube.kubeconfig()})

    async def _docker_hosts(self, request: web.Request) -> web.Response:
        return web.json_response(self._docker.paths)

    async def _containers(self, request: web.Request) -> web.Response:
        return web.json_response(self._docker.running())

    async def _objects(self, request: web.Request) -> web.StreamResponse:
        answer: web.StreamResponse = await self._kube.answer(request, "/" + request.match_info["path"])
        return answer

    async def _down(self, request: web.Request) -> web.Response:
        self._ending.stop.set()
        await self._ending.gone.wait()
        response = web.json_response(None)
        response.force_close()  # there is nothing more to ask
        return response


@web.middleware
async def _answer_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except (UnknownName, UnknownTarget) as error:
        return _error(404, str(error))
    except PlaneRefused as error:
        return _error(_STATUS_OF_KIND[error.kind], str(error))
    except (NotOnTheseWires, KeeperRefused) as error:
        return _error(409, str(error))
    except (PlaneGone, KeeperGone) as error:
        return _error(503, f"the lab is ending: {error}")
    except json.JSONDecodeError as error:
        return _error(400, f"the body is not JSON: {error}")
    except ValueError as error:
        return _error(400, str(error))
    except web.HTTPException as error:
        return _error(error.status, f"{request.method} {request.path}: {error.reason}")


def _error(status: int, sentence: str) -> web.Response:
    return web.json_response({"error": sentence}, status=status)
