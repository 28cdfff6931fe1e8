"""`docker images`, `pull`, `rmi`: names, since a lab keeps no images and fetches none.

Rule of this file: nothing is downloaded, and what is answered says so.
"""

from __future__ import annotations

import json
import time
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

from emunet.cluster.docker.networks import Refused
from emunet.daemon.docker.questions import filters
from emunet.daemon.docker.record import PROGRAMS, Body, short_image
from emunet.daemon.docker.views import image_id, moment

if TYPE_CHECKING:
    from emunet.daemon.docker.server import Asked

_FILTERS = ("reference", "dangling", "label", "before", "since", "until")


async def listed(asked: Asked) -> list[Body]:
    """`GET /images/json`."""
    wanted = filters(asked.query, _FILTERS)
    patterns = wanted.get("reference", [])
    if "true" in wanted.get("dangling", []) or wanted.get("label"):
        return []
    return [
        {
            "Id": image_id(name),
            "ParentId": "",
            "RepoTags": [name],
            "RepoDigests": [],
            "Created": created,
            "Size": 0,
            "SharedSize": -1,
            "Containers": -1,
            "Labels": None,
        }
        for name, created in sorted(asked.engine.images.items())
        if not patterns or any(fnmatch(name, short_image(one)) or fnmatch(name, f"{one}:*") for one in patterns)
    ]


async def pull(asked: Asked) -> Any:
    """`POST /images/create`: the name is noted."""
    from aiohttp import web

    name, tag = asked.query.get("fromImage", ""), asked.query.get("tag", "")
    if not name:
        raise Refused(501, "the engines of a lab import no images")
    if tag:
        name += f"@{tag}" if tag.startswith("sha256:") else f":{tag}"
    name = short_image(name)
    known = name in asked.engine.images
    asked.engine.images.setdefault(name, int(time.time()))
    if not known:
        asked.engine.events.tell("image", "pull", name, {"name": name})
    lines = [
        {"status": f"Pulling from {name.rpartition(':')[0]}", "id": name.rpartition(":")[2]},
        {"status": "A lab keeps no images: the name is noted, nothing is downloaded"},
        {"status": f"Status: Image is up to date for {name}" if known else f"Status: Noted the name {name}"},
    ]
    body = "".join(json.dumps(line) + "\n" for line in lines).encode()
    return web.Response(body=body, content_type="application/json")


async def inspect(asked: Asked) -> Body:
    """`GET /images/NAME/json`."""
    name = _find(asked)
    default = PROGRAMS.get(name.partition(":")[0])
    return {
        "Id": image_id(name),
        "RepoTags": [name],
        "RepoDigests": [],
        "Parent": "",
        "Comment": "a name: a lab keeps no images",
        "Created": moment(asked.engine.images[name] * 10**9),
        "Config": {"Cmd": [default] if default else None, "Env": None, "Entrypoint": None, "Labels": None},
        "Architecture": "",
        "Os": "linux",
        "Size": 0,
        "RootFS": {"Type": "layers", "Layers": []},
        "GraphDriver": {"Name": "overlay2", "Data": None},
        "Metadata": {"LastTagTime": moment(0)},
    }


async def history(asked: Asked) -> list[Body]:
    """`GET /images/NAME/history`."""
    name = _find(asked)
    created = asked.engine.images[name]
    return [{"Id": image_id(name), "Created": created, "CreatedBy": "", "Size": 0, "Tags": [name],
             "Comment": "a name: a lab keeps no images"}]  # fmt: skip


async def tag(asked: Asked) -> tuple[int, None]:
    """`POST /images/NAME/tag`."""
    _find(asked)
    name = short_image(asked.query.get("repo", "") + (f":{asked.query['tag']}" if asked.query.get("tag") else ""))
    asked.engine.images.setdefault(name, int(time.time()))
    return 201, None


async def remove(asked: Asked) -> list[Body]:
    """`DELETE /images/NAME`."""
    name = _find(asked)
    del asked.engine.images[name]
    asked.engine.events.tell("image", "untag", name, {"name": name})
    return [{"Untagged": name}, {"Deleted": image_id(name)}]


async def prune(asked: Asked) -> Body:
    """`POST /images/prune`."""
    return {"ImagesDeleted": None, "SpaceReclaimed": 0}


def _find(asked: Asked) -> str:
    name = short_image(asked.name)
    if name in asked.engine.images:
        return name
    for known in asked.engine.images:
        if image_id(known).removeprefix("sha256:").startswith(asked.name.removeprefix("sha256:")):
            return known
    raise Refused(404, f"No such image: {name}")
