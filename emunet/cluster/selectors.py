"""Selectors: labels as people and objects write them, and fields.

    app=web, tier in (front, back), !canary          a query's labelSelector
    {"matchLabels": {...}, "matchExpressions": [...]}  an object's
    metadata.name=web, status.phase!=Running          a query's fieldSelector

Rule of this file: a selector is a value with a method `matches`; what cannot be read is a
ValueError in the API's words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_TERM = re.compile(
    r"\s*(!?)\s*([A-Za-z0-9][-A-Za-z0-9_./]*)\s*"
    r"(?:(==|!=|=)\s*([^,()=!]*)|(in|notin)\s*\(([^)]*)\)|)\s*"
)


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one label: `operator` is In, NotIn, Exists, DoesNotExist, Gt or Lt."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """True where the labels satisfy it."""
        value = labels.get(self.key)
        match self.operator:
            case "In":
                return value in self.values
            case "NotIn":
                return value not in self.values
            case "Exists":
                return value is not None
            case "DoesNotExist":
                return value is None
        try:
            number, limit = int(value or ""), int(self.values[0])
        except (ValueError, IndexError):
            return False
        return number > limit if self.operator == "Gt" else number < limit


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """All of some conditions; without any it matches everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """True where the labels satisfy every condition."""
        return all(one.matches(labels) for one in self.requirements)


def parse_labels(text: str) -> LabelSelector:
    """A query's selector. ValueError."""
    found: list[Requirement] = []
    position = 0
    while position < len(text):
        term = _TERM.match(text, position)
        if term is None or (term.end() < len(text) and text[term.end()] != ","):
            raise ValueError(f"unable to parse requirement: found {text[position:]!r}, expected: a label selector")
        absent, key, equals, value, within, values = term.groups()
        if equals:
            found.append(Requirement(key, "NotIn" if equals == "!=" else "In", (value.strip(),)))
        elif within:
            members = tuple(member.strip() for member in values.split(","))
            found.append(Requirement(key, "In" if within == "in" else "NotIn", members))
        else:
            found.append(Requirement(key, "DoesNotExist" if absent else "Exists"))
        position = term.end() + 1
    return LabelSelector(tuple(found))


def of_map(labels: Mapping[str, str]) -> LabelSelector:
    """The plain map that Services and ReplicationControllers use."""
    return LabelSelector(tuple(Requirement(key, "In", (value,)) for key, value in sorted(labels.items())))


def of_object(selector: Mapping[str, Any] | None) -> LabelSelector:
    """An object's `matchLabels` and `matchExpressions`. A missing one matches nothing (see `is_nothing`)."""
    selector = selector or {}
    expressions = tuple(
        Requirement(one.get("key", ""), one.get("operator", ""), tuple(one.get("values", ())))
        for one in selector.get("matchExpressions", ())
    )
    return LabelSelector(of_map(selector.get("matchLabels", {})).requirements + expressions)


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """Conditions on fields by their dotted paths: (path, value, whether it must be equal)."""

    terms: tuple[tuple[str, str, bool], ...] = ()

    def matches(self, item: Mapping[str, Any]) -> bool:
        """True where the object satisfies every condition; a field that is absent equals the empty text."""
        return all((_text_at(item, path) == value) is equal for path, value, equal in self.terms)

    @property
    def name(self) -> str | None:
        """The one name that it asks for, or None."""
        return next((value for path, value, equal in self.terms if path == "metadata.name" and equal), None)


def parse_fields(text: str) -> FieldSelector:
    """A query's field selector. ValueError."""
    terms = []
    for term in filter(None, text.split(",")):
        path, operator, value = re.fullmatch(r"([^=!]*)(==|=|!=|)(.*)", term).groups()  # type: ignore[union-attr]
        if not operator or not path:
            raise ValueError(f"invalid field selector {text!r}: can't understand {term!r}")
        terms.append((path, value, operator != "!="))
    return FieldSelector(tuple(terms))


def _text_at(item: Mapping[str, Any], path: str) -> str:
    value: Any = item
    for step in path.split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)
