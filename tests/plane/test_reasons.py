"""Reasons: each is given somewhere, each says something, and whoever gives it supplies what its sentence names.

The stories check the last point too, for every step that they cause (tests/stories/conftest.py).
"""

from __future__ import annotations

import ast
import string
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from emunet.plane.reason import Kind, Reason, describe, fill

SOURCE = Path(__file__).parent.parent.parent / "emunet"


def names(reason: Reason) -> set[str]:
    """What a sentence wants filled in."""
    return {name for _, name, _, _ in string.Formatter().parse(reason.sentence) if name}


def given() -> Iterator[tuple[Path, ast.Call, str]]:
    """Every call in the source that hands on a reason by name: (file, call, the reason's name)."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                for argument in node.args:
                    if (name := reason_of(argument)) is not None:
                        yield path, node, name


def reason_of(node: ast.AST) -> str | None:
    """`Reason.NAME` -> NAME."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Reason":
        return node.attr
    return None


def supplied(call: ast.Call) -> set[str] | None:
    """The argument names that a call supplies in so many words; None where it hands on others'."""
    found: set[str] = set()
    for keyword in call.keywords:
        if keyword.arg is None:
            return None
        found.add(keyword.arg)
    reason_at = next(index for index, argument in enumerate(call.args) if reason_of(argument) is not None)
    for argument in call.args[reason_at + 1 :]:
        if isinstance(argument, ast.Dict):
            for key in argument.keys:
                if not isinstance(key, ast.Constant):
                    return None
                found.add(str(key.value))
        elif isinstance(argument, ast.Name):
            return None  # arguments that were put together before
    return found


BUILDERS = ("drop", "consume", "forward", "Step")


def test_every_reason_is_given_somewhere() -> None:
    used = {
        name
        for path in sorted(SOURCE.rglob("*.py"))
        if path.name != "reason.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if (name := reason_of(node)) is not None
    }
    assert {reason.name for reason in Reason} - used == set()
    assert used <= {reason.name for reason in Reason}


def test_every_literal_call_supplies_what_the_sentence_names() -> None:
    checked = 0
    for path, call, name in given():
        builder = call.func.id if isinstance(call.func, ast.Name) else ""
        have = supplied(call) if builder in BUILDERS else None
        if have is None:
            continue
        missing = names(Reason[name]) - have
        assert not missing, f"{path}:{call.lineno}: {name} is given without {sorted(missing)}"
        checked += 1
    assert checked > 60, "most reasons are given by a call that names all of it"


@pytest.mark.parametrize("reason", list(Reason), ids=lambda reason: reason.name)
def test_a_sentence_says_what_happened(reason: Reason) -> None:
    assert reason.name == reason.name.upper()
    assert len(reason.sentence) >= 6
    assert not reason.sentence.endswith("."), "it is put into other sentences"
    assert isinstance(reason.kind, Kind)
    filled = fill(reason, dict.fromkeys(names(reason), b"\x0a\x00\x00\x01"))
    assert "{" not in filled


def test_arguments_as_people_read_them() -> None:
    assert describe(b"\x02\0\0\0\0\x01") == "02:00:00:00:00:01"
    assert describe(b"\x0a\0\0\x01") == "10.0.0.1"
    assert describe(bytes(15) + b"\x01") == "::1"
    assert describe(b"\x88\xb5") == "88b5"
    assert describe(("a", b"\x0a\0\0\x01", 3)) == "a, 10.0.0.1, 3"


class Worded(NamedTuple):
    """A value with fields, and words of its own, as a connection is."""

    number: int

    def __str__(self) -> str:
        return f"number {self.number}"


def test_what_has_words_of_its_own_is_told_by_them() -> None:
    assert describe(Worded(3)) == "number 3"
    assert describe([Worded(3), Worded(4)]) == "number 3, number 4"
