"""A World's configuration as JSON, and back: so that a recording has in it what it was made on.

Every value of a configuration is a frozen dataclass, an enum, bytes or plain; the classes
are found by walking the annotations of `WorldConfig`, so a new one needs nothing here. What
equals its default is left out: an old recording gets the default of a field that came later.

Rule of this file: reading makes values of configuration classes and of nothing else.
"""

from __future__ import annotations

import dataclasses
import typing
from enum import Enum
from functools import cache
from typing import Any

from emunet.fabric.config import WorldConfig

_KIND = "is"
_BYTES = "hex"


def encode(value: Any) -> Any:
    """A configuration, or a part of one, as JSON values."""
    if isinstance(value, bytes):
        return {_BYTES: value.hex()}
    if isinstance(value, Enum):
        return {_KIND: type(value).__name__, "name": value.name}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            one.name: getattr(value, one.name) for one in dataclasses.fields(value) if not _is_default(value, one)
        }
        return {_KIND: type(value).__name__} | {name: encode(part) for name, part in fields.items()}
    if isinstance(value, tuple | list | frozenset):
        return [encode(part) for part in (sorted(value) if isinstance(value, frozenset) else value)]
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"a configuration holds no {type(value).__name__}")


def decode(data: Any) -> Any:
    """What `encode` wrote. ValueError for a class or a field that there is not."""
    if isinstance(data, list):
        return tuple(decode(part) for part in data)
    if not isinstance(data, dict):
        return data
    if _BYTES in data:
        return bytes.fromhex(data[_BYTES])
    kind = known_classes().get(str(data.get(_KIND)))
    if kind is None:
        raise ValueError(f"no configuration has a {data.get(_KIND)}")
    if issubclass(kind, Enum):
        return kind[data["name"]]
    try:
        return kind(**{name: decode(part) for name, part in data.items() if name != _KIND})
    except TypeError as error:
        raise ValueError(f"this version of emunet knows another {kind.__name__}: {error}") from None


@cache
def known_classes() -> dict[str, type]:
    """Every class that a configuration may be made of, by name."""
    found: dict[str, type] = {}
    todo: list[Any] = [WorldConfig]
    while todo:
        one = todo.pop()
        if isinstance(one, type) and not typing.get_args(one):
            if one.__name__ in found or not (dataclasses.is_dataclass(one) or issubclass(one, Enum)):
                continue
            found[one.__name__] = one
            if dataclasses.is_dataclass(one):
                todo += typing.get_type_hints(one).values()
        todo += typing.get_args(one)
    return found


def _is_default(value: Any, one: dataclasses.Field[Any]) -> bool:
    if one.default is not dataclasses.MISSING:
        return bool(getattr(value, one.name) == one.default)
    if one.default_factory is not dataclasses.MISSING:
        return bool(getattr(value, one.name) == one.default_factory())
    return False
