"""The documents in which clients look fields up: OpenAPI 2 for those that only count on it, 3 for `kubectl explain`.

Both are made of the same table of types that requests are checked with. Version 2 is a protobuf message: kubectl
up to 1.23 explains with it, checks what it sends and works out its patches; of newer ones it is read for one thing,
that each kind can be patched and tried without effect (`dryRun`). Version 3 is JSON.

Rule of this file: it describes what `cluster.fields` accepts, and nothing else.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from emunet.cluster import shapes
from emunet.cluster.fields import SCALARS, Field, types
from emunet.cluster.kinds import Kind, Registry, split_version

Object = dict[str, Any]

_PREFIX = "io.emunet."
_IDENTITY = "x-kubernetes-group-version-kind"


# Protobuf: the few fields of gnostic's OpenAPIv2.Document that clients read


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def _field(number: int, content: bytes | str) -> bytes:
    data = content.encode() if isinstance(content, str) else content
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def document_v2(kinds: Registry) -> bytes:
    """`/openapi/v2`: each type, and a path for each kind with a PATCH that may be dry."""
    asked = tuple((version, kind) for version, served in kinds.group_versions().items() for kind in served)
    return _document_v2(asked)


@lru_cache(2)  # until a CustomResourceDefinition comes or goes
def _document_v2(kinds: tuple[tuple[str, Kind], ...]) -> bytes:
    query = _field(2, _field(3, _field(2, "query") + _field(4, "dryRun") + _field(6, "string")))
    parameter = _field(8, _field(1, query))
    paths = b""
    identities: dict[str, str] = {}
    for api_version, kind in kinds:
        group, version = split_version(api_version)
        yaml = f'group: "{group}"\nkind: {kind.name}\nversion: {version}\n'
        extension = _field(13, _field(1, _IDENTITY) + _field(2, _field(2, yaml)))
        item = _field(8, parameter + extension)
        paths += _field(2, _field(1, _path(kind, api_version)) + _field(2, item))
        name = shapes.TYPES.get((kind.name, api_version), kind.type) or f"{kind.name}.{version}.{group}"
        one = f'- group: "{group}"\n  kind: {kind.name}\n  version: {version}\n'
        identities[name] = identities.get(name, "") + one
    reached: Object = {}
    for name in identities:
        _describe(name if name in types() else "", reached)
    found = {one.removeprefix(_PREFIX) for one in reached} | set(identities)
    definitions = b"".join(
        _field(1, _field(1, _PREFIX + name) + _field(2, _definition(name, identities.get(name, ""))))
        for name in sorted(found)
    )
    info = _field(1, "2.0") + _field(2, _field(1, "emunet") + _field(2, "v1"))
    return info + _field(8, paths) + _field(9, definitions)


def _definition(name: str, identities: str) -> bytes:
    """A type as gnostic's Schema. One that is not in the table is a mapping of anything."""
    table = types().get(name, {})
    found = _field(4, _words(name)) + _field(22, _field(1, "object"))
    for one in table.values():
        found += _field(19, one.name) if one.required else b""
    if table:
        found += _field(
            25, b"".join(_field(1, _field(1, one.name) + _field(2, _member(one))) for one in table.values())
        )
    return found + (_extension(_IDENTITY, identities) if identities else b"")


def _member(one: Field) -> bytes:
    """A field of a type as gnostic's Schema."""
    inner = _simple(one.of)
    found = inner
    if one.shape == "list":
        found = _field(22, _field(1, "array")) + _field(23, _field(1, inner))
    elif one.shape == "map":
        found = _field(21, _field(1, inner)) + _field(22, _field(1, "object"))
    words = _field_words(one)
    if words and one.shape != "value":
        found = _field(4, words) + found
    strategy = ",".join(filter(None, ("merge" if one.merge else "", "retainKeys" if one.retain_keys else "")))
    if one.merge and one.merge != "=":
        found += _extension("x-kubernetes-patch-merge-key", one.merge)
    return found + (_extension("x-kubernetes-patch-strategy", strategy) if strategy else b"")


def _simple(name: str) -> bytes:
    if name not in SCALARS:
        return _field(1, f"#/definitions/{_PREFIX}{name}")
    if name == "any":
        return b""
    schema = _inner(name)
    return (_field(2, schema["format"]) if "format" in schema else b"") + _field(22, _field(1, schema["type"]))


def _extension(name: str, yaml: str) -> bytes:
    return _field(31, _field(1, name) + _field(2, _field(2, yaml)))


def _path(kind: Kind, api_version: str) -> str:
    root = "/apis" if "/" in api_version else "/api"
    space = "namespaces/{namespace}/" if kind.namespaced else ""
    return f"{root}/{api_version}/{space}{kind.plural}/{{name}}"


# JSON


def index_v3(kinds: Registry) -> Object:
    """`/openapi/v3`: where the document of each group version is."""
    paths = {}
    for api_version in kinds.group_versions():
        name = f"apis/{api_version}" if "/" in api_version else f"api/{api_version}"
        paths[name] = {"serverRelativeURL": f"/openapi/v3/{name}?hash=emunet"}
    return {"paths": paths}


def document_v3(kinds: Registry, api_version: str) -> Object | None:
    """`/openapi/v3/api/v1` and the like: the kinds of a group version and every type that they reach."""
    served = kinds.group_versions().get(api_version)
    if served is None:
        return None
    group, version = split_version(api_version)
    schemas: Object = {}
    paths: Object = {}
    for kind in served:
        of = shapes.TYPES.get((kind.name, api_version), kind.type)
        name = _PREFIX + (of or f"{kind.name}.{version}")
        _describe(of, schemas)
        identity = {"group": group, "version": version, "kind": kind.name}
        schema = schemas.setdefault(name, {"type": "object", "description": f"A {kind.name}."})
        schema["x-kubernetes-group-version-kind"] = [identity]
        if not kind.effect:
            schema["description"] = f"A {kind.name}: kept and listed; it has no effect on the network of a lab."
        operation: Object = {
            "x-kubernetes-group-version-kind": identity,
            "x-kubernetes-action": "patch",
            "parameters": [
                {"name": name, "in": "query", "schema": {"type": "string"}}
                for name in ("dryRun", "fieldManager", "fieldValidation")
            ],
            "responses": {"200": {"description": "OK"}},
        }
        read = {**operation, "x-kubernetes-action": "get"}
        paths[_path(kind, api_version)] = {"patch": operation, "get": read}
    return {
        "openapi": "3.0.0",
        "info": {"title": "emunet", "version": "v1"},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _describe(type_name: str, schemas: Object) -> None:
    name = _PREFIX + type_name
    if not type_name or name in schemas:
        return
    table = types()[type_name]
    schema: Object = {"type": "object", "description": _words(type_name), "properties": {}}
    schemas[name] = schema
    for one in table.values():
        schema["properties"][one.name] = _schema(one)
        if one.is_object:
            _describe(one.of, schemas)
    required = [one.name for one in table.values() if one.required]
    if required:
        schema["required"] = required


def _schema(one: Field) -> Object:
    inner = _inner(one.of)
    if one.shape == "list":
        found: Object = {"type": "array", "items": inner}
    elif one.shape == "map":
        found = {"type": "object", "additionalProperties": inner}
    else:
        found = inner
    if one.merge and one.merge != "=":
        found |= {"x-kubernetes-patch-merge-key": one.merge, "x-kubernetes-patch-strategy": "merge"}
    words = _field_words(one)
    return found if "$ref" in found or not words else found | {"description": words}


def _inner(name: str) -> Object:
    simple: dict[str, Object] = {
        "str": {"type": "string"}, "int": {"type": "integer"}, "bool": {"type": "boolean"},
        "number": {"type": "number"}, "time": {"type": "string", "format": "date-time"}, "any": {"type": "object"},
        "quantity": {"type": "string"}, "int|str": {"type": "string", "format": "int-or-string"},
    }  # fmt: skip
    return dict(simple[name]) if name in simple else {"allOf": [{"$ref": f"#/components/schemas/{_PREFIX}{name}"}]}


def _words(type_name: str) -> str:
    return f"{type_name} as in Kubernetes' API; see its reference for what each field means."


def _field_words(one: Field) -> str:
    parts = []
    if one.merge == "=":
        parts.append("a patch adds to this list")
    elif one.merge:
        parts.append(f"elements are told apart by their {one.merge}")
    return "; ".join(parts)
