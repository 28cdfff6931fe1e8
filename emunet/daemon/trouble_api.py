"""The part of the API that makes trouble: wires, partitions, power, frozen pods, full tables.

    GET  /wires                     every wire, its ends, and what is set on it
    PUT  /wires/NAME                {"up", "flap", "set": {"delay": "20ms", ...}, "from": DEVICE}, what is to change
    GET  /trouble                   {"powered": {DEVICE: bool}, "frozen": [POD], "groups": [[HOST]], "dns": bool}
    PUT  /devices/NAME              {"on": bool}
    PUT  /pods/NAME                 {"frozen": bool}
    PUT  /dns                       {"on": bool}
    PUT  /partition                 {"groups": [[HOST, ...], ...]}; none: all hear all again
    PUT  /tables/DEVICE/TABLE       {"capacity": N}; without it the table is full with what it holds
    POST /flows                     {"flows": [fields of `lab.traffic.Flow`], "duration": ns}: send and watch them
    GET  /flows                     what became of them until now
    POST /flows/stop                send no more, and watch what is on its way
    DELETE /flows                   watch them no more
    POST /record                    {"file": absolute name}: record what comes in from now on
    DELETE /record                  record no more

Each answers with the lab's time when it was done, in ns.

Rule of this file: as in `api`.
"""

from __future__ import annotations

from collections.abc import Iterable

from aiohttp import web

from emunet.daemon import troubles
from emunet.daemon.bodies import body_of
from emunet.daemon.recordings import record as begin_recording
from emunet.daemon.running import RunningLab


def trouble_routes(lab: RunningLab) -> Iterable[web.RouteDef]:
    """The routes of one lab."""

    async def wires(request: web.Request) -> web.Response:
        return web.json_response(await lab.plane.ask("wires"))

    async def change_wire(request: web.Request) -> web.Response:
        body = await body_of(request, {}, {"up": bool, "flap": str, "set": dict, "from": str})
        body["settings"], body["source"] = body.pop("set", {}), body.pop("from", None)
        return web.json_response(await lab.plane.ask("change_wire", wire=request.match_info["name"], change=body))

    async def trouble(request: web.Request) -> web.Response:
        return web.json_response(await troubles.told(lab))

    async def power(request: web.Request) -> web.Response:
        body = await body_of(request, {"on": bool})
        return web.json_response(await troubles.set_power(lab, request.match_info["name"], on=body["on"]))

    async def freeze(request: web.Request) -> web.Response:
        body = await body_of(request, {"frozen": bool})
        return web.json_response(await troubles.freeze(lab, request.match_info["name"], frozen=body["frozen"]))

    async def name_servers(request: web.Request) -> web.Response:
        body = await body_of(request, {"on": bool})
        return web.json_response(await troubles.set_names(lab, on=body["on"]))

    async def partition(request: web.Request) -> web.Response:
        body = await body_of(request, {"groups": list})
        groups = body["groups"]
        if not all(isinstance(group, list) and all(isinstance(name, str) for name in group) for group in groups):
            raise ValueError("the field groups must be a list of lists of names of hosts")
        return web.json_response(await lab.plane.ask("partition", groups=groups))

    async def limit(request: web.Request) -> web.Response:
        body = await body_of(request, {}, {"capacity": int})
        device, table = request.match_info["device"], request.match_info["table"]
        return web.json_response(await lab.plane.ask("limit_table", device=device, table=table, **body))

    async def begin_flows(request: web.Request) -> web.Response:
        body = await body_of(request, {"flows": list, "duration": int})
        duration: int = body["duration"]
        return web.json_response(await lab.plane.ask("begin_flows", flows=body["flows"], duration=duration))

    async def flows(request: web.Request) -> web.Response:
        return web.json_response(await lab.plane.ask("flows"))

    async def stop_flows(request: web.Request) -> web.Response:
        return web.json_response(await lab.plane.ask("flows", stop=True))

    async def end_flows(request: web.Request) -> web.Response:
        return web.json_response(await lab.plane.ask("end_flows"))

    async def record(request: web.Request) -> web.Response:
        body = await body_of(request, {"file": str})
        return web.json_response(await begin_recording(lab.plane, body["file"]))

    async def end_record(request: web.Request) -> web.Response:
        return web.json_response(await lab.plane.ask("end_record"))

    return [
        web.post("/record", record),
        web.delete("/record", end_record),
        web.post("/flows", begin_flows),
        web.get("/flows", flows),
        web.post("/flows/stop", stop_flows),
        web.delete("/flows", end_flows),
        web.get("/wires", wires),
        web.put("/wires/{name}", change_wire),
        web.get("/trouble", trouble),
        web.put("/devices/{name}", power),
        web.put("/pods/{name:.+}", freeze),
        web.put("/dns", name_servers),
        web.put("/partition", partition),
        web.put("/tables/{device}/{table}", limit),
    ]
