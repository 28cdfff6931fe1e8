"""Bodies in protobuf: what kubectl 1.32 and later send for `create KIND`, whatever the server says it prefers.

    6b 38 73 00, then Unknown{1 TypeMeta{1 apiVersion, 2 kind}, 2 the object}

Rule of this file: a field that is not in the table is refused (415), never dropped in silence.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any

from emunet.cluster.moments import to_text
from emunet.cluster.status import StatusError

MAGIC = b"k8s\x00"

Message = dict[int, tuple[str, str]]
"""A message's fields by their numbers: (name in JSON, type)."""


@cache
def _table() -> tuple[dict[tuple[str, str], str], dict[str, Message]]:
    kinds: dict[tuple[str, str], str] = {}
    messages: dict[str, Message] = {}
    for line in files("emunet.daemon.kube").joinpath("protobuf.txt").read_text("utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        first, *rest = line.split(" ")
        if first == "=":
            kinds[rest[0], rest[1]] = rest[2]
            continue
        messages[first] = {}
        for field in rest:
            number, _, told = field.partition("=")
            name, _, type_name = told.partition(":")
            messages[first][int(number)] = (name, type_name)
    return kinds, messages


def decode(data: bytes) -> dict[str, Any]:
    """The object in a body. StatusError (415) where it has something that is not known here."""
    try:
        return _decode(data[len(MAGIC) :])
    except (IndexError, ValueError, UnicodeDecodeError) as error:
        raise _refused(f"it cannot be read ({error})") from None


def _decode(data: bytes) -> dict[str, Any]:
    api_version, kind, raw = "", "", b""
    for number, value in _fields(data):
        if number == 1 and isinstance(value, bytes):
            told = {one: text.decode() for one, text in _fields(value) if isinstance(text, bytes)}
            api_version, kind = told.get(1, ""), told.get(2, "")
        elif number == 2 and isinstance(value, bytes):
            raw = value
    kinds, _ = _table()
    message = kinds.get((api_version, kind))
    if message is None:
        raise _refused(f"the kind {kind} of {api_version} is taken as JSON only")
    return {"apiVersion": api_version, "kind": kind, **_object(raw, message)}


def _refused(why: str) -> StatusError:
    message = f"the body of the request is protobuf that this server does not take: {why}; send JSON, as -f does"
    return StatusError(415, "UnsupportedMediaType", message)


def _object(data: bytes, message: str) -> dict[str, Any]:
    table = _table()[1][message]
    found: dict[str, Any] = {}
    for number, value in _fields(data):
        if number not in table:
            raise _refused(f"field {number} of {message} is not known here")
        name, type_name = table[number]
        if type_name.startswith("@"):
            found |= _object(_bytes(value), type_name[1:])
        elif type_name.startswith("["):
            found.setdefault(name, []).append(_value(value, type_name[1:-1]))
        elif type_name.startswith("{"):
            pair = dict(_fields(_bytes(value)))
            key = _bytes(pair.get(1, b"")).decode()
            found.setdefault(name, {})[key] = _value(pair.get(2, b""), type_name[1:-1])
        else:
            taken = _value(value, type_name)
            if taken not in (0, "", False, None):  # zeros are sent for what was not said
                found[name] = taken
    return found


def _value(value: int | bytes, type_name: str) -> Any:
    match type_name:
        case "str":
            return _bytes(value).decode()
        case "int":
            number = value if isinstance(value, int) else 0
            return number - (1 << 64) if number >= 1 << 63 else number
        case "bool":
            return bool(value)
        case "bytes":
            return base64.b64encode(_bytes(value)).decode()
        case "time":
            seconds = dict(_fields(_bytes(value))).get(1, 0)
            return to_text(seconds * 10**9) if isinstance(seconds, int) and seconds else None
        case "quantity":
            return _bytes(dict(_fields(_bytes(value))).get(1, b"")).decode()
        case "int|str":
            parts = dict(_fields(_bytes(value)))
            return _bytes(parts.get(3, b"")).decode() if parts.get(1) else parts.get(2, 0)
        case "raw":
            text = _bytes(dict(_fields(_bytes(value))).get(1, b""))
            return json.loads(text) if text else {}
    return _object(_bytes(value), type_name)


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number stands where a text or a message should")
    return value


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message: (number, value)."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, position = _varint(data, position)
            yield number, value
        elif wire == 2:
            length, position = _varint(data, position)
            if position + length > len(data):
                raise ValueError("it ends too early")
            yield number, data[position : position + length]
            position += length
        else:
            raise ValueError(f"wire type {wire}")


def _varint(data: bytes, position: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")
