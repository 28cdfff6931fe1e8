"""Which resource a path of the API means.

    /api/v1/namespaces/blue/pods/web-1/log    v1, pods, blue, web-1, log
    /apis/apps/v1/deployments                 apps/v1, deployments

Rule of this file: a path is taken apart here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from emunet.cluster import status

_OF_NAMESPACES = ("status", "finalize")


@dataclass(frozen=True, slots=True)
class Target:
    """What a path names; parts that it does not have are empty."""

    api_version: str
    plural: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""


def is_set(query: Mapping[str, str], name: str) -> bool:
    """Whether a query says yes to something: `watch=true`, `watch=True`, `watch=1`."""
    return query.get(name, "").lower() in ("true", "t", "1")


def number(query: Mapping[str, str], name: str) -> int | None:
    """A whole number of a query; None where it has none. StatusError where it is something else."""
    text = query.get(name, "")
    if not text:
        return None
    if not text.isascii() or not text.isdigit():
        raise status.bad_request(f"{name}={text} in the query is not a whole number")
    return int(text)


def parse(path: str) -> Target | None:
    """The resource at a path, or None where the path is none of a resource."""
    parts = [unquote(part) for part in path.strip("/").split("/") if part]
    if len(parts) > 2 and parts[0] == "api":
        api_version, rest = parts[1], parts[2:]
    elif len(parts) > 3 and parts[0] == "apis":
        api_version, rest = f"{parts[1]}/{parts[2]}", parts[3:]
    else:
        return None
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in _OF_NAMESPACES:
        namespace, rest = rest[1], rest[2:]
    if len(rest) > 3:
        return None
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 else ""
    return Target(api_version, rest[0], namespace, name, subresource)
