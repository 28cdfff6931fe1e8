"""Which fields an object may have, of what type, and which it must: read from types.txt.

    DeploymentSpec replicas:int selector:LabelSelector! template:PodTemplateSpec! strategy:DeploymentStrategy~

One table serves all that needs to know: this check, the merging of patches (`patches`), and
the documents in which clients look fields up.

Rule of this file: it knows types, no kind's meaning. `read` changes nothing it is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from emunet.cluster.load import Path, format_path
from emunet.cluster.schema import did_you_mean

SCALARS = frozenset({"str", "int", "bool", "number", "time", "any", "quantity", "int|str"})

_GO = {
    "str": "string", "int": "int32", "bool": "bool", "number": "float64", "time": "time.Time",
    "quantity": "resource.Quantity", "int|str": "intstr.IntOrString",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a type.

    shape    `value`, `list` or `map`; `of` is the type of the value, or of what is in the list or map
    merge    the key by which a list's elements are told apart in a patch, `=` for a set, empty where
             a patch replaces the list
    """

    name: str
    of: str
    shape: str = "value"
    merge: str = ""
    required: bool = False
    retain_keys: bool = False

    @property
    def is_object(self) -> bool:
        """True where `of` is another type of the table."""
        return self.of not in SCALARS


Type = dict[str, Field]


@cache
def types() -> dict[str, Type]:
    """The table."""
    text = files("emunet.cluster").joinpath("types.txt").read_text("utf-8")
    found: dict[str, Type] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, *fields = line.split(" ")
            found[name] = {one.name: one for one in map(_field, fields)}
    return found


def _field(text: str) -> Field:
    name, _, notation = text.partition(":")
    required, retain = notation.endswith("!"), False
    notation = notation.removesuffix("!")
    if notation.endswith("~"):
        notation, retain = notation[:-1], True
    if notation.startswith("["):
        inner, _, merge = notation[1:-1].partition("/")
        return Field(name, inner, "list", merge, required, retain)
    if notation.startswith("{"):
        return Field(name, notation[1:-1], "map", "", required, retain)
    return Field(name, notation, "value", "", required, retain)


@dataclass(slots=True)
class Fault:
    """A value that cannot be what its field holds; `message` is in the API's words."""

    path: Path
    message: str


@dataclass(slots=True)
class Reading:
    """What became of an object: `value` is a copy without nulls, the rest is what is wrong with it."""

    value: dict[str, Any]
    unknown: list[Path] = field(default_factory=list)
    wrong: list[Fault] = field(default_factory=list)
    missing: list[Path] = field(default_factory=list)

    def unknown_names(self) -> Iterator[str]:
        """The unknown fields as the API names them, in quotes."""
        for path in self.unknown:
            yield f'unknown field "{format_path(path)}"'


def read(data: dict[str, Any], type_name: str) -> Reading:
    """Check an object against a type; an empty name lets everything pass, but for its metadata."""
    reading = Reading({})
    if type_name:
        reading.value = _object(data, type_name, (), reading)
    else:
        reading.value = _plain(data)
        if isinstance(data.get("metadata"), dict):
            reading.value["metadata"] = _object(data["metadata"], "ObjectMeta", ("metadata",), reading)
    return reading


def hint(type_name: str, path: Path) -> str:
    """`; did you mean 'containers'?` for an unknown field at a path from a type, or nothing."""
    known = types().get(type_name, {})
    for step in path[:-1]:
        if isinstance(step, str):
            known = types().get(known[step].of, {}) if step in known else {}
    return did_you_mean(str(path[-1]), known) if known else ""


def _object(data: dict[str, Any], type_name: str, path: Path, reading: Reading) -> dict[str, Any]:
    table = types()[type_name]
    value: dict[str, Any] = {}
    for name, content in data.items():
        if content is None:
            continue
        known = table.get(name)
        if known is None:
            reading.unknown.append((*path, name))
            continue
        taken = _content(content, known, type_name, (*path, name), reading)
        if taken is not None:
            value[name] = taken
    for one in table.values():
        if one.required and one.name not in value and data.get(one.name) is None:
            reading.missing.append((*path, one.name))
    return value


def _content(content: Any, known: Field, owner: str, path: Path, reading: Reading) -> Any:
    if known.shape == "list":
        if not isinstance(content, list):
            return _wrong(content, known, owner, path, reading, f"[]{_go(known.of)}")
        items = [
            _one(item, known, owner, (*path, index), reading) for index, item in enumerate(content) if item is not None
        ]
        return [item for item in items if item is not None]
    if known.shape == "map":
        if not isinstance(content, dict):
            return _wrong(content, known, owner, path, reading, f"map[string]{_go(known.of)}")
        pairs = {key: _one(item, known, owner, (*path, key), reading) for key, item in content.items()}
        return {key: item for key, item in pairs.items() if item is not None}
    return _one(content, known, owner, path, reading)


def _one(content: Any, known: Field, owner: str, path: Path, reading: Reading) -> Any:
    match known.of:
        case "any":
            return _plain(content)
        case "str" if content is None and known.shape == "map":
            return ""
        case "str" | "time" if isinstance(content, str):
            return content
        case "int" if isinstance(content, int) and not isinstance(content, bool):
            return content
        case "bool" if isinstance(content, bool):
            return content
        case "number" if isinstance(content, (int, float)) and not isinstance(content, bool):
            return content
        case "int|str" if isinstance(content, (int, str)) and not isinstance(content, bool):
            return content
        case "quantity" if isinstance(content, str):
            return content
        case "quantity" if isinstance(content, (int, float)) and not isinstance(content, bool):
            return f"{content:g}" if isinstance(content, float) else str(content)
    if known.is_object and isinstance(content, dict):
        return _object(content, known.of, path, reading)
    return _wrong(content, known, owner, path, reading, _go(known.of))


def _wrong(content: Any, known: Field, owner: str, path: Path, reading: Reading, expected: str) -> None:
    dotted = ".".join(step for step in path if isinstance(step, str))
    got = {str: "string", bool: "bool", int: "number", float: "number", list: "array", dict: "object"}[type(content)]
    message = f"json: cannot unmarshal {got} into Go struct field {owner}.{dotted} of type {expected}"
    reading.wrong.append(Fault(path, message))


def _go(name: str) -> str:
    return _GO.get(name, f"v1.{name}" if name != "any" else "interface {}")


def _plain(content: Any) -> Any:
    """A copy without the nulls of mappings."""
    if isinstance(content, dict):
        return {key: _plain(value) for key, value in content.items() if value is not None}
    if isinstance(content, list):
        return [_plain(value) for value in content]
    return content
