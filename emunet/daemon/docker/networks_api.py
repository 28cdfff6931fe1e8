"""`docker network`.

Rule of this file: it translates; what may be is decided in `cluster.docker`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emunet.cluster.docker.networks import Refused
from emunet.cluster.docker.values import Network
from emunet.daemon.docker import record, views
from emunet.daemon.docker.questions import Filters, filters, has_labels, network_wish
from emunet.daemon.docker.record import Body

if TYPE_CHECKING:
    from emunet.daemon.docker.server import Asked

_FILTERS = ("name", "id", "driver", "label", "scope", "type", "dangling")


async def listed(asked: Asked) -> list[Body]:
    """`GET /networks`."""
    wanted = filters(asked.query, _FILTERS)
    return [
        views.network(asked.engine, one, whole=False) for one in asked.engine.networks if _matches(asked, one, wanted)
    ]


async def inspect(asked: Asked) -> Body:
    """`GET /networks/NAME`."""
    return views.network(asked.engine, asked.engine.networks.find(asked.name), whole=True)


async def create(asked: Asked) -> tuple[int, Body]:
    """`POST /networks/create`."""
    made = await asked.engine.create_network(network_wish(await asked.body()))
    return 201, {"Id": made.id, "Warning": ""}


async def remove(asked: Asked) -> None:
    """`DELETE /networks/NAME`."""
    await asked.engine.remove_network(asked.name)


async def connect(asked: Asked) -> tuple[int, Body]:
    """`POST /networks/NAME/connect`."""
    body = await asked.body()
    found = asked.engine.find(str(body.get("Container") or ""))
    await asked.engine.connect(found, asked.name, record.place(body.get("EndpointConfig") or {}))
    return 200, {}


async def disconnect(asked: Asked) -> tuple[int, Body]:
    """`POST /networks/NAME/disconnect`."""
    body = await asked.body()
    found = asked.engine.find(str(body.get("Container") or ""))
    await asked.engine.disconnect(found, asked.name, force=bool(body.get("Force")))
    return 200, {}


async def prune(asked: Asked) -> Body:
    """`POST /networks/prune`."""
    wanted = filters(asked.query, ("until", "label", "label!"))
    engine = asked.engine
    gone = []
    for one in list(engine.networks):
        labels = dict(one.labels)
        spared = not has_labels(labels, wanted.get("label", [])) or any(
            has_labels(labels, [text]) for text in wanted.get("label!", [])
        )
        if one.is_predefined or spared or engine.containers.members(one):
            continue
        await engine.remove_network(one.id)
        gone.append(one.name)
    return {"NetworksDeleted": gone or None}


def _matches(asked: Asked, one: Network, wanted: Filters) -> bool:
    engine = asked.engine
    for key, values in wanted.items():
        match key:
            case "name":
                good = any(value in one.name for value in values)
            case "id":
                good = any(one.id.startswith(value) for value in values)
            case "driver":
                good = one.driver in values
            case "label":
                good = has_labels(dict(one.labels), values)
            case "scope":
                good = "local" in values
            case "type":
                if set(values) - {"builtin", "custom"}:
                    raise Refused(400, f"invalid filter: 'type'='{values[0]}'")
                good = ("builtin" if one.is_predefined else "custom") in values
            case _:
                free = not one.is_predefined and not engine.containers.members(one)
                good = free is (values[0].lower() in ("1", "true"))
        if not good:
            return False
    return True
