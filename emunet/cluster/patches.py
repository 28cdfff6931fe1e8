"""The three ways in which a client says what to change: JSON patch, merge patch, strategic merge.

    json_patch   RFC 6902: a list of operations
    merge_patch  RFC 7386: a mapping laid over the object, null removes, lists are replaced
    strategic    the same, but lists of named things merge by their names (`types.txt` says which),
                 and directives ($patch, $retainKeys, $setElementOrder/x, $deleteFromPrimitiveList/x)
                 say what a mapping alone cannot

Rule of this file: an object goes in and another comes out; a patch that cannot be applied is a
ValueError in a sentence.
"""

from __future__ import annotations

import copy
from typing import Any

from emunet.cluster.fields import Field, types

Object = dict[str, Any]


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386 section 2."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


# JSON patch


def json_patch(target: Any, operations: Any) -> Any:
    """RFC 6902. All operations, or none."""
    if not isinstance(operations, list):
        raise ValueError("a JSON patch is a list of operations")
    result = copy.deepcopy(target)
    for operation in operations:
        if not isinstance(operation, dict) or not isinstance(operation.get("path"), str):
            raise ValueError("an operation of a JSON patch has an op and a path")
        result = _operate(result, operation)
    return result


def _operate(document: Any, operation: Object) -> Any:
    path = _pointer(operation["path"])
    match operation.get("op"):
        case "add":
            return _add(document, path, copy.deepcopy(operation.get("value")))
        case "remove":
            return _remove(document, path)[0]
        case "replace":
            if not path:
                return copy.deepcopy(operation.get("value"))
            _get(document, path)
            return _set(document, path, copy.deepcopy(operation.get("value")))
        case "move":
            document, value = _remove(document, _pointer(operation.get("from", "")))
            return _add(document, path, value)
        case "copy":
            return _add(document, path, copy.deepcopy(_get(document, _pointer(operation.get("from", "")))))
        case "test":
            if _get(document, path) != operation.get("value"):
                raise ValueError(f"testing path {operation['path']} failed: its value is another one")
            return document
    raise ValueError(f"a JSON patch knows no operation {operation.get('op')!r}")


def _pointer(text: str) -> list[str]:
    if text and not text.startswith("/"):
        raise ValueError(f"{text!r} is not a JSON pointer")
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _step(value: Any, part: str) -> Any:
    try:
        return value[int(part)] if isinstance(value, list) else value[part]
    except (KeyError, IndexError, ValueError, TypeError):
        raise ValueError(f"there is nothing at {part!r} to change") from None


def _get(document: Any, path: list[str]) -> Any:
    for part in path:
        document = _step(document, part)
    return document


def _set(document: Any, path: list[str], value: Any) -> Any:
    parent = _get(document, path[:-1])
    if isinstance(parent, list):
        parent[int(path[-1])] = value
    else:
        parent[path[-1]] = value
    return document


def _add(document: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    parent = _get(document, path[:-1])
    if isinstance(parent, list):
        position = len(parent) if path[-1] == "-" else int(path[-1])
        if not 0 <= position <= len(parent):
            raise ValueError(f"the index {position} is outside of the list")
        parent.insert(position, value)
    elif isinstance(parent, dict):
        parent[path[-1]] = value
    else:
        raise ValueError(f"there is nothing at {path[-1]!r} to add to")
    return document


def _remove(document: Any, path: list[str]) -> tuple[Any, Any]:
    if not path:
        raise ValueError("a JSON patch cannot remove the whole object")
    value = _get(document, path)
    parent = _get(document, path[:-1])
    if isinstance(parent, list):
        del parent[int(path[-1])]
    else:
        del parent[path[-1]]
    return document, value


# Strategic merge


def strategic(target: Object, patch: Object, type_name: str, *, removes: bool = True) -> Object:
    """Lay a patch over an object of a type. With `removes=False` nulls and directives take nothing away."""
    return _merge(target, patch, type_name, removes)


def _merge(target: Object, patch: Object, type_name: str, removes: bool) -> Object:
    if patch.get("$patch") == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    table = types().get(type_name, {})
    result = dict(target)
    retained = patch.get("$retainKeys")
    if retained is not None and removes:
        result = {key: value for key, value in result.items() if key in retained}
    orders: dict[str, list[Any]] = {}
    for key, value in patch.items():
        if key.startswith("$setElementOrder/"):
            orders[key.partition("/")[2]] = value
        elif key.startswith("$deleteFromPrimitiveList/"):
            name = key.partition("/")[2]
            result[name] = [one for one in result.get(name, []) if one not in value]
        elif key.startswith("$"):
            continue
        elif value is None:
            if removes:
                result.pop(key, None)
        else:
            result[key] = _merge_field(result.get(key), value, table.get(key), removes)
    for name, order in orders.items():
        if isinstance(result.get(name), list):
            known = table.get(name)
            result[name] = _ordered(result[name], order, known.merge if known is not None else "")
    return result


def _merge_field(old: Any, new: Any, known: Field | None, removes: bool) -> Any:
    inner = known.of if known is not None else ""
    if isinstance(new, dict):
        if known is not None and known.shape == "map" and not known.is_object:
            return merge_patch(old, new)
        return _merge(old if isinstance(old, dict) else {}, new, inner, removes)
    if isinstance(new, list) and known is not None and known.merge:
        before = old if isinstance(old, list) else []
        if known.merge == "=":
            return [*before, *(one for one in new if one not in before)]
        return _merge_list(before, new, known, removes)
    return new


def _merge_list(old: list[Any], new: list[Any], known: Field, removes: bool) -> list[Any]:
    if any(isinstance(one, dict) and one.get("$patch") == "replace" and len(one) == 1 for one in new):
        return [one for one in new if "$patch" not in one]
    result = list(old)
    for patch in new:
        if not isinstance(patch, dict) or known.merge not in patch:
            raise ValueError(f"map: {patch} does not contain declared merge key: {known.merge}")
        found = [index for index, one in enumerate(result) if one.get(known.merge) == patch[known.merge]]
        if patch.get("$patch") == "delete":
            result = [one for index, one in enumerate(result) if index not in found]
        elif found:
            target = result[found[0]]
            if known.retain_keys and "$retainKeys" in patch and removes:
                target = {key: value for key, value in target.items() if key in patch["$retainKeys"]}
            result[found[0]] = _merge(target, patch, known.of, removes)
        else:
            result.append(_merge({}, patch, known.of, removes))
    return result


def _ordered(items: list[Any], order: list[Any], merge: str) -> list[Any]:
    """Elements that the order names stand in its order; the others keep the places that they have."""

    def key_of(item: Any) -> Any:
        return item.get(merge) if isinstance(item, dict) and merge not in ("", "=") else item

    ranks: dict[Any, int] = {}
    for index, one in enumerate(order):
        ranks.setdefault(key_of(one), index)
    named = iter(sorted((item for item in items if key_of(item) in ranks), key=lambda item: ranks[key_of(item)]))
    return [next(named) if key_of(item) in ranks else item for item in items]
