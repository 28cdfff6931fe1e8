"""What may be wrong with a field, in the words of the Kubernetes API."""

from __future__ import annotations

from collections.abc import Iterable

from emunet.cluster.status import Cause


def required(field: str, why: str = "") -> Cause:
    """A field that must be there is not."""
    return Cause(field, "FieldValueRequired", f"Required value{': ' if why else ''}{why}")


def wrong(field: str, value: object, why: str) -> Cause:
    """A field has a value that it cannot have."""
    return Cause(field, "FieldValueInvalid", f"Invalid value: {shown(value)}: {why}")


def unsupported(field: str, value: object, known: Iterable[str]) -> Cause:
    """A field has a value that is none of those it may have."""
    listed = ", ".join(f'"{one}"' for one in sorted(known))
    return Cause(field, "FieldValueNotSupported", f"Unsupported value: {shown(value)}: supported values: {listed}")


def duplicate(field: str, value: object) -> Cause:
    """A value is there twice that must be unique."""
    return Cause(field, "FieldValueDuplicate", f"Duplicate value: {shown(value)}")


def may_not(field: str, why: str) -> Cause:
    """A field is given that must not be."""
    return Cause(field, "FieldValueForbidden", f"Forbidden: {why}")


def shown(value: object) -> str:
    """A value as the API's messages show it."""
    if isinstance(value, str):
        return '"' + value.replace('"', '\\"') + '"'
    if isinstance(value, dict) and all(isinstance(one, str) for one in value.values()):
        return "map[string]string{" + ", ".join(f'"{key}":"{value[key]}"' for key in sorted(value)) + "}"
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return "[]string{" + ", ".join(f'"{one}"' for one in value) + "}"
    return str(value).lower() if isinstance(value, bool) else str(value)
