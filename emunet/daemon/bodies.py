"""The bodies of requests: JSON objects with the fields that a request must and may have.

Rule of this file: what is wrong is a ValueError that names the field.
"""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web


async def body_of(
    request: web.Request, needed: dict[str, type], optional: dict[str, type] | None = None
) -> dict[str, Any]:
    """The JSON object of a request, with the fields that it must and may have. ValueError says what is wrong."""
    allowed = needed | (optional or {})
    text = await request.text()
    body = json.loads(text) if text else {}
    if not isinstance(body, dict):
        raise ValueError("expected a JSON object")
    for name in needed.keys() - body.keys():
        raise ValueError(f"the field {name} is missing")
    for name, value in body.items():
        kind = allowed.get(name)
        if kind is None:
            raise ValueError(f"there is no field {name}; there are: {', '.join(allowed)}")
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            continue
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ValueError(f"the field {name} must be of the type {kind.__name__}")
    return body
