"""Models over plain data: the field types that kinds share, and faults as sentences.

A kind is a pydantic model. Where pydantic finds a fault, `read` turns it into a
`Problem` at its file, line and column, in our own words: what was expected, then what
was got. A misspelt field is told its likely name. A field that Kubernetes has and
emunet does not act on is declared `Ignored`: it is accepted with a warning.

Rule of this file: it knows no kind. A message never mentions pydantic or a Python type.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, ClassVar, TypeVar, get_args, get_origin

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainValidator,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo

from emunet.cluster.load import Document, Path, Problem, got
from emunet.packet.address import Prefix, format_mac, is_group_mac, parse_ip, parse_mac

NO_EFFECT = "accepted, has no effect yet"

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
_QUALIFIED = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")


class Model(BaseModel):
    """A mapping with known fields, written in camelCase. `null` is the same as leaving a field out.

    `called` is how a sentence speaks of such a mapping.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, alias_generator=to_camel)
    called: ClassVar[str] = "this mapping"

    @model_validator(mode="before")
    @classmethod
    def _absent_if_null(cls, data: Any) -> Any:
        if isinstance(data, dict):
            return {key: value for key, value in data.items() if value is not None}
        return data


class NoEffect:
    """Marks a field that is accepted and not acted on."""


Ignored = Annotated[Any, NoEffect()]
"""A field of Kubernetes that emunet accepts, with a warning, and does not act on yet."""


def is_dns_label(text: str) -> bool:
    """RFC 1123 2.1 as Kubernetes reads it: at most 63 of `a-z0-9-`, an alphanumeric at each end."""
    return len(text) <= 63 and _LABEL.fullmatch(text) is not None


def is_dns_subdomain(text: str) -> bool:
    """Labels joined by dots, at most 253 characters in all."""
    return len(text) <= 253 and all(_LABEL.fullmatch(label) for label in text.split("."))


def _dns_label(text: str) -> str:
    if not is_dns_label(text):
        raise ValueError("expected a DNS label: at most 63 of a-z, 0-9 and -, a letter or digit at each end")
    return text


def _dns_subdomain(text: str) -> str:
    if not is_dns_subdomain(text):
        raise ValueError("expected a DNS name: at most 253 of a-z, 0-9, - and ., a letter or digit at each end")
    return text


def _label_key(text: str) -> str:
    prefix, slash, name = text.rpartition("/")
    if (slash and not is_dns_subdomain(prefix)) or len(name) > 63 or not _QUALIFIED.fullmatch(name):
        raise ValueError("expected a key like app or example.com/app")
    return text


def _label_value(text: str) -> str:
    if len(text) > 63 or not _LABEL_VALUE.fullmatch(text):
        raise ValueError("expected at most 63 of letters, digits, -, _ and ., a letter or digit at each end")
    return text


def _network(value: Any) -> Prefix:
    if not isinstance(value, str) or not value.isascii() or len(value) > 50:
        raise ValueError("expected a network like 10.244.0.0/16")
    return Prefix.parse(value)


def _address(value: Any) -> bytes:
    if not isinstance(value, str):
        raise ValueError("expected an IP address like 10.244.1.2 or fd00::2")
    return parse_ip(value)


def unicast_mac(text: str) -> bytes:
    """The MAC of one machine: neither a group's nor all zeros. ValueError otherwise."""
    mac = parse_mac(text)
    if format_mac(mac) != text.lower():
        raise ValueError("expected a MAC address like 02:00:00:00:00:01")
    if is_group_mac(mac) or not any(mac):
        raise ValueError("expected the MAC address of one machine, not of a group and not all zeros")
    return mac


def _one_or_many(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def whole(low: int, high: int) -> Any:
    """The field type of a whole number from `low` to `high`, both included."""

    def check(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"expected a whole number from {low} to {high}")
        return value

    return PlainValidator(check)


DnsLabel = Annotated[str, AfterValidator(_dns_label)]
DnsSubdomain = Annotated[str, AfterValidator(_dns_subdomain)]
LabelKey = Annotated[str, AfterValidator(_label_key)]
LabelValue = Annotated[str, AfterValidator(_label_value)]
Network = Annotated[Prefix, PlainValidator(_network)]
Networks = Annotated[list[Network], BeforeValidator(_one_or_many)]
Address = Annotated[bytes, PlainValidator(_address)]
Addresses = Annotated[list[Address], BeforeValidator(_one_or_many)]
PortNumber = Annotated[int, whole(1, 65535)]

M = TypeVar("M", bound=Model)


def read(model: type[M], document: Document) -> tuple[M | None, list[Problem]]:
    """The document as a `model`, or None and every fault that keeps it from being one."""
    try:
        return model.model_validate(document.data), []
    except ValidationError as errors:
        return None, [_problem(model, document, error) for error in errors.errors()]


def ignored(value: Model, document: Document) -> list[Problem]:
    """A warning for each field that was given and is accepted without effect."""
    return [document.problem(path, NO_EFFECT, key=True) for path in _ignored_paths(value, ())]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'links'?`, or nothing where no known name is near."""
    names = list(known)
    folded = {candidate.lower(): candidate for candidate in names}
    near = difflib.get_close_matches(name.lower(), list(folded), n=1, cutoff=0.6)
    return f"; did you mean {folded[near[0]]!r}?" if near else ""


def _ignored_paths(value: Model, path: Path) -> Iterator[Path]:
    for name, field in type(value).model_fields.items():
        if name not in value.model_fields_set:
            continue
        inner = (*path, _names(field)[0])
        content = getattr(value, name)
        if any(isinstance(mark, NoEffect) for mark in field.metadata):
            yield inner
        elif isinstance(content, Model):
            yield from _ignored_paths(content, inner)
        elif isinstance(content, list):
            for index, item in enumerate(content):
                if isinstance(item, Model):
                    yield from _ignored_paths(item, (*inner, index))


def _names(field: FieldInfo) -> list[str]:
    """How a field may be written, its first name first."""
    alias = field.validation_alias
    if isinstance(alias, AliasChoices):
        return [choice for choice in alias.choices if isinstance(choice, str)]
    return [str(alias)]


def _problem(model: type[Model], document: Document, error: Any) -> Problem:
    path: Path = tuple(step for step in error["loc"] if step != "[key]")
    about_key = len(path) < len(error["loc"]) or error["type"] == "extra_forbidden"
    return document.problem(path, _sentence(model, path, error), key=about_key)


def _sentence(model: type[Model], path: Path, error: Any) -> str:
    value = error["input"]
    context = error.get("ctx", {})
    match error["type"]:
        case "missing":
            return "is required (got nothing)"
        case "extra_forbidden":
            return _unknown_field(_owner(model, path[:-1]), str(path[-1]))
        case "value_error":
            said = str(context["error"])
            return said if isinstance(value, str) and value and value in said else f"{said} ({got(value)})"
        case "literal_error":
            return f"expected {context['expected']} ({got(value)})"
        case "too_short":
            return f"expected a list of {context['min_length']} or more (got a list of {context['actual_length']})"
        case "string_type":
            quotes = "; put it in quotes" if isinstance(value, bool | int | float) else ""
            return f"expected text ({got(value)}){quotes}"
        case "int_type":
            return f"expected a whole number ({got(value)})"
        case "bool_type":
            return f"expected true or false ({got(value)})"
        case "list_type":
            return f"expected a list ({got(value)})"
        case "dict_type" | "model_type":
            return f"expected a mapping ({got(value)})"
    return f"{error['msg']} ({got(value)})"  # pragma: no cover - no model uses another type


def _unknown_field(owner: type[Model], name: str) -> str:
    spellings = [_names(field) for field in owner.model_fields.values()]
    for names in spellings:
        if name in names:
            return f"give either {' or '.join(names)}, not both"
    known = [names[0] for names in spellings]
    hint = did_you_mean(name, (spelling for names in spellings for spelling in names))
    if not hint and len(known) <= 12:
        hint = f"; expected {', '.join(known[:-1])} or {known[-1]}" if len(known) > 1 else f"; expected {known[0]}"
    return f"{name!r} is not a field of {owner.called}{hint}"


def _owner(model: type[Model], path: Path) -> type[Model]:
    """The model that the mapping at `path` was read as."""
    for step in path:
        if isinstance(step, int):
            continue
        for field in model.model_fields.values():
            if step in _names(field):
                model = _model_in(field.annotation) or model
                break
    return model


def _model_in(annotation: Any) -> type[Model] | None:
    """The one model that a field's annotation speaks of: `list[Host]` -> Host."""
    if get_origin(annotation) is None and isinstance(annotation, type) and issubclass(annotation, Model):
        return annotation
    return next((found for argument in get_args(annotation) if (found := _model_in(argument))), None)
