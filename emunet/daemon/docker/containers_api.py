"""`docker ps`, `create`, `start`, `stop`, `kill`, `rm` and their relatives.

Rule of this file: it translates; what happens is in `engine`.
"""

from __future__ import annotations

import asyncio
import subprocess
from typing import TYPE_CHECKING, Any

from emunet.cluster.docker.networks import Refused
from emunet.daemon.docker import views
from emunet.daemon.docker.commands import signal_number
from emunet.daemon.docker.questions import Filters, filters, has_labels, is_set, matches_name, number
from emunet.daemon.docker.record import Body, Record, short_image

if TYPE_CHECKING:
    from emunet.daemon.docker.server import Asked

_FILTERS = ("id", "name", "label", "status", "ancestor", "network", "exited", "before", "since", "volume", "health",
            "expose", "publish", "is-task")  # fmt: skip
_STATES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")


async def listed(asked: Asked) -> list[Body]:
    """`GET /containers/json`."""
    wanted = filters(asked.query, _FILTERS)
    for state in wanted.get("status", []):
        if state not in _STATES:
            raise Refused(400, f"invalid filter 'status={state}'")
    matches_name("", wanted.get("name", []))  # a pattern that is none is refused, whoever there is
    limit = number(asked.query, "limit") or -1
    everything = is_set(asked.query, "all") or limit > 0 or "status" in wanted or "exited" in wanted
    rows = sorted(asked.engine.records.values(), key=lambda one: -one.created)
    found = [one for one in rows if (everything or one.is_running) and _matches(asked, one, wanted)]
    return [views.row(asked.engine, one) for one in (found[:limit] if limit > 0 else found)]


async def create(asked: Asked) -> tuple[int, Body]:
    """`POST /containers/create`."""
    made, warnings = asked.engine.create(await asked.body(), asked.query.get("name", "").removeprefix("/"))
    return 201, {"Id": made.id, "Warnings": warnings}


async def inspect(asked: Asked) -> Body:
    """`GET /containers/NAME/json`."""
    return views.container(asked.engine, asked.engine.find(asked.name))


async def start(asked: Asked) -> Any:
    """`POST /containers/NAME/start`."""
    return None if await asked.engine.start(asked.engine.find(asked.name)) else (304, None)


async def stop(asked: Asked) -> Any:
    """`POST /containers/NAME/stop`."""
    done = await asked.engine.stop(asked.engine.find(asked.name), number(asked.query, "t"), _signal(asked))
    return None if done else (304, None)


async def restart(asked: Asked) -> None:
    """`POST /containers/NAME/restart`."""
    found = asked.engine.find(asked.name)
    await asked.engine.stop(found, number(asked.query, "t"), _signal(asked))
    await asked.engine.start(found)
    asked.engine.tell(found, "restart")


async def kill(asked: Asked) -> None:
    """`POST /containers/NAME/kill`."""
    await asked.engine.signal(asked.engine.find(asked.name), _signal(asked) or signal_number("KILL"))


async def pause(asked: Asked) -> None:
    """`POST /containers/NAME/pause`."""
    await asked.engine.pause(asked.engine.find(asked.name), paused=True)


async def unpause(asked: Asked) -> None:
    """`POST /containers/NAME/unpause`."""
    await asked.engine.pause(asked.engine.find(asked.name), paused=False)


async def remove(asked: Asked) -> None:
    """`DELETE /containers/NAME`."""
    await asked.engine.remove(asked.engine.find(asked.name), force=is_set(asked.query, "force"))


async def rename(asked: Asked) -> None:
    """`POST /containers/NAME/rename`."""
    asked.engine.rename(asked.engine.find(asked.name), asked.query.get("name", ""))


async def update(asked: Asked) -> Body:
    """`POST /containers/NAME/update`: what it may use is not limited in a lab; when it is restarted is."""
    found = asked.engine.find(asked.name)
    policy = (await asked.body()).get("RestartPolicy")
    if policy and policy.get("Name"):
        found.body = {**found.body, "HostConfig": {**found.host_config, "RestartPolicy": policy}}
    return {"Warnings": []}


async def top(asked: Asked) -> Body:
    """`GET /containers/NAME/top`: the processes of its PID namespace."""
    found = asked.engine.find(asked.name)
    if not found.is_running or found.process is None or not found.process.pid:
        raise Refused(409, f"container {found.name} is not running, or has no program")
    wanted = asked.query.get("ps_args", "").split()
    columns_wanted = wanted if wanted[:1] == ["-o"] else ["-f"]  # -e would show the machine's
    pid = str(found.process.pid)
    argv = ["ps", *columns_wanted, "--pid", pid, "--ppid", pid]
    done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, check=False)
    if done.returncode > 1 or not done.stdout:
        raise Refused(500, f"ps: {done.stderr.strip() or 'said nothing'}")
    titles, *rows = done.stdout.splitlines()
    columns = len(titles.split())
    return {"Titles": titles.split(), "Processes": [row.split(None, columns - 1) for row in rows]}


async def changes(asked: Asked) -> list[Body]:
    """`GET /containers/NAME/changes`: a container's root is not compared with anything."""
    asked.engine.find(asked.name)
    return []


async def prune(asked: Asked) -> Body:
    """`POST /containers/prune`."""
    wanted = filters(asked.query, ("until", "label", "label!"))
    gone = []
    for one in list(asked.engine.records.values()):
        if not one.is_running and has_labels(_labels(one), wanted.get("label", [])):
            await asked.engine.remove(one)
            gone.append(one.id)
    return {"ContainersDeleted": gone or None, "SpaceReclaimed": 0}


def _signal(asked: Asked) -> int | None:
    text = asked.query.get("signal", "")
    return signal_number(text) if text else None


def _labels(found: Record) -> dict[str, str]:
    return {str(name): str(text) for name, text in (found.body.get("Labels") or {}).items()}


def _matches(asked: Asked, one: Record, wanted: Filters) -> bool:
    for key, values in wanted.items():
        match key:
            case "id":
                good = any(one.id.startswith(value) for value in values)
            case "name":
                good = matches_name(one.name, values)
            case "label":
                good = has_labels(_labels(one), values)
            case "status":
                good = one.state in values
            case "ancestor":
                good = any(one.image in (value, short_image(value)) for value in values)
            case "network":
                networks = views.networks_of(asked.engine, one)
                names = {*networks, *(row["NetworkID"] for row in networks.values())}
                good = any(value in names for value in values)
            case "exited":
                good = one.state == "exited" and str(one.code) in values
            case _:
                raise Refused(400, f"the engines of a lab do not filter containers by {key}")
        if not good:
            return False
    return True
