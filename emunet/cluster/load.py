"""YAML text -> documents that remember where each value was written.

A `Document` is plain data (dict, list, str, int, float, bool, None) plus the line and
column of every key and value, so that whoever finds a fault later, in a model or in a
check of meaning, can name the place. Scalars follow YAML 1.2's core schema: a MAC
address, `no` and `12:30` are text (YAML 1.1 would make them a number, false and 750).

Rule of this file: a document either loads whole or raises `BadInput` with every fault
found in every text; nothing is guessed, and no tag runs code.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath
from typing import Any, NamedTuple

import yaml
from yamlcore import CoreLoader

try:
    from yamlcore import CCoreLoader as _Loader  # libyaml's scanner: six times as fast
except ImportError:  # pragma: no cover - PyYAML built without libyaml
    _Loader = CoreLoader

Path = tuple[str | int, ...]

MAXIMUM_DEPTH = 100
"""Levels of nesting that a document may have; Kubernetes' deepest schemas stay under 30."""

MAXIMUM_VALUES = 1_000_000
"""Values that a document may hold once its aliases are written out (ten lines of aliases can stand for billions)."""

# What YAML 1.2 (section 5.1) lets a text contain.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MERGE = "<<"


class Place(NamedTuple):
    """Where something was written: both count from 1."""

    line: int
    column: int


START = Place(1, 1)


def format_path(path: Path) -> str:
    """`("spec", "links", 0, "b")` -> `spec.links[0].b`, as Kubernetes writes it."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif re.fullmatch(r"[A-Za-z0-9_-]+", step):
            text += f".{step}" if text else step
        else:
            text += f"[{step}]"
    return text


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong (or, as a warning, worth knowing), and where it was written.

    `path` is empty where the fault is in the text itself.
    """

    file: str
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        path = f"{self.path}: " if self.path else ""
        return f"{self.file}:{self.line}:{self.column}: {path}{self.message}"


class BadInput(Exception):
    """The input cannot be used. `problems` lists every fault, in the order of the files' lines."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(set(problems))
        super().__init__("\n".join(str(problem) for problem in self.problems))


@dataclass(frozen=True, slots=True)
class Document:
    """One object of a YAML text.

    `data` is the object; `values` and `keys` hold the place of each value and key by its
    path from the root of the YAML document; `base` is the path at which `data` hangs
    there (not empty for an item of a `kind: List`). Paths given to the methods are
    relative to `data`.
    """

    file: str
    data: dict[str, Any]
    values: Mapping[Path, Place] = field(repr=False)
    keys: Mapping[Path, Place] = field(repr=False)
    base: Path = ()

    def place(self, path: Path, *, key: bool = False) -> Place:
        """Where the value at `path` (or its key) was written; of what is not there, its nearest parent."""
        path = self.base + self._as_written(path)
        if key and path in self.keys:
            return self.keys[path]
        while path not in self.values:
            path = path[:-1]
        return self.values[path]

    def problem(self, path: Path, message: str, *, key: bool = False) -> Problem:
        """A Problem at `path`; `key` points at the name in front of the value instead of at the value."""
        place = self.place(path, key=key)
        return Problem(self.file, place.line, place.column, format_path(self.base + self._as_written(path)), message)

    def has(self, path: Path) -> bool:
        """True where the field at `path` was written, in full or in a short form."""
        return self.base + self._as_written(path) in self.keys

    def spelling(self, path: Path, *names: str) -> Path:
        """`path` plus that one of several accepted `names` which was written there (the first if none was)."""
        written = (name for name in names if self.has((*path, name)))
        return (*path, next(written, names[0]))

    def _as_written(self, path: Path) -> Path:
        """The path without the steps that a short form spares: of `hosts: [a]`, hosts[0].name is hosts[0]."""
        value: Any = self.data
        written: list[str | int] = []
        for index, step in enumerate(path):
            if value is None:
                return (*written, *path[index:])
            if isinstance(value, dict):
                written.append(step)
                value = value.get(str(step))
            elif isinstance(value, list) and isinstance(step, int):
                written.append(step)
                value = value[step] if step < len(value) else None
        return tuple(written)

    def items(self) -> Iterator[Document | Problem]:
        """The objects of a `kind: List`, or a Problem for an item that cannot be one."""
        items = self.data.get("items")
        if not isinstance(items, list):
            yield self.problem(("items",), "expected a list of objects")
            return
        for index, item in enumerate(items):
            if isinstance(item, dict):
                yield replace(self, data=item, base=(*self.base, "items", index))
            else:
                yield self.problem(("items", index), f"expected a mapping with apiVersion and kind ({got(item)})")


def got(value: object) -> str:
    """`got 'x'`, `got 5`, `got a list`: how a sentence ends that first said what was expected."""
    match value:
        case None:
            return "got nothing"
        case bool():
            return f"got {str(value).lower()}"
        case dict():
            return "got a mapping"
        case list():
            return "got a list"
        case str():
            return f"got {value!r}" if len(value) <= 60 else f"got {value[:57] + '...'!r}"
        case _:
            text = str(value) if not isinstance(value, int) or abs(value) < 10**60 else "a very long number"
            return f"got {text}"


def load_text(text: str, file: str = "<text>") -> tuple[Document, ...]:
    """The documents of a multi-document YAML text. Empty documents are passed over, as kubectl does.

    `file` is the name that problems give. Raises BadInput.
    """
    documents, problems = _read(text, file)
    if problems:
        raise BadInput(problems)
    return tuple(documents)


def load_files(files: Iterable[str | os.PathLike[str]]) -> tuple[Document, ...]:
    """The documents of several files, in their order. Raises BadInput with the faults of all of them."""
    documents: list[Document] = []
    problems: list[Problem] = []
    for file in files:
        name = os.fspath(file)
        try:
            content = FilePath(file).read_bytes()
        except OSError as error:
            problems.append(Problem(name, *START, "", f"cannot read this file: {error.strerror or error}"))
            continue
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            before = content[: error.start].decode("utf-8-sig")
            problems.append(Problem(name, *_place_after(before), "", "expected UTF-8 text (got other bytes)"))
            continue
        found, faults = _read(text, name)
        documents += found
        problems += faults
    if problems:
        raise BadInput(problems)
    return tuple(documents)


def _read(text: str, file: str) -> tuple[list[Document], list[Problem]]:
    text = text.removeprefix("\ufeff")
    forbidden = _FORBIDDEN.search(text)
    if forbidden:
        place = _place_after(text[: forbidden.start()])
        message = f"expected text (got the control character U+{ord(forbidden.group()):04X})"
        return [], [Problem(file, *place, "", message)]
    documents: list[Document] = []
    problems: list[Problem] = []
    loader = _Loader(text)
    try:
        while loader.check_node():
            walk = _Walk(loader, file)
            document = walk.document(loader.get_node())
            problems += walk.problems
            if document is not None:
                documents.append(document)
    except yaml.MarkedYAMLError as error:
        problems.append(_syntax_problem(error, file))
    finally:
        loader.dispose()
    if not documents and not problems:
        problems.append(Problem(file, *START, "", "expected a Topology or Kubernetes objects (the file is empty)"))
    return documents, problems


def _place_after(text: str) -> Place:
    return Place(text.count("\n") + 1, len(text) - text.rfind("\n"))


def _place(mark: Any) -> Place:
    return Place(mark.line + 1, mark.column + 1)


def _syntax_problem(error: yaml.MarkedYAMLError, file: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    place = _place(mark) if mark is not None else START
    context = ""
    if error.context and error.context_mark is not None and error.context_mark.line + 1 != place.line:
        context = f" ({error.context}, from line {error.context_mark.line + 1} on)"
    return Problem(file, *place, "", f"cannot be read as YAML: {error.problem or error.context}{context}")


class _Stop(Exception):
    """The rest of this document is not looked at."""


class _Walk:
    """One walk over one document's nodes: builds the data, notes the places, collects the faults."""

    def __init__(self, loader: Any, file: str) -> None:
        self._loader = loader
        self._file = file
        self._values: dict[Path, Place] = {}
        self._keys: dict[Path, Place] = {}
        self._open: list[yaml.Node] = []
        self.problems: list[Problem] = []

    def document(self, root: yaml.Node) -> Document | None:
        try:
            data = self._value(root, ())
        except _Stop:
            return None
        if data is None or self.problems:
            return None
        if not isinstance(data, dict):
            self._fault(root, (), f"expected a mapping with apiVersion and kind ({got(data)})")
            return None
        return Document(self._file, data, self._values, self._keys)

    def _fault(self, node: yaml.Node, path: Path, message: str) -> None:
        place = _place(node.start_mark)
        self.problems.append(Problem(self._file, *place, format_path(path), message))

    def _value(self, node: yaml.Node, path: Path) -> Any:
        self._values[path] = _place(node.start_mark)
        if len(self._values) > MAXIMUM_VALUES:
            self._fault(node, path, f"expected at most {MAXIMUM_VALUES:,} values in a document, aliases written out")
            raise _Stop
        if len(path) > MAXIMUM_DEPTH:
            self._fault(node, path[:1], f"expected at most {MAXIMUM_DEPTH} levels of nesting")
            raise _Stop
        if any(node is outer for outer in self._open):
            self._fault(node, path, "this alias (*) stands for something that it is itself a part of")
            raise _Stop
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        self._open.append(node)
        try:
            if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
                return [self._value(item, (*path, index)) for index, item in enumerate(node.value)]
            if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
                return self._mapping(node, path)
        finally:
            self._open.pop()
        self._fault(node, path, f"expected plain YAML (got the tag {_tag(node)})")
        return None

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        try:
            return self._loader.construct_object(node)
        except yaml.constructor.ConstructorError:
            self._fault(node, path, f"expected plain YAML (got the tag {_tag(node)})")
        except (ValueError, KeyError):
            self._fault(node, path, f"expected a value of the tag {_tag(node)} ({got(node.value)})")
        return None

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        data: dict[str, Any] = {}
        first: dict[str, Place] = {}
        for key_node, value_node in node.value:
            key = self._scalar(key_node, path) if isinstance(key_node, yaml.ScalarNode) else key_node
            if not isinstance(key, str):
                written = got(key) if isinstance(key_node, yaml.ScalarNode) else "got a list or a mapping"
                self._fault(key_node, path, f"expected text as a key ({written}); put it in quotes")
                continue
            inner = (*path, key)
            if key in first:
                message = f"the key {key!r} is given twice (first on line {first[key].line})"
                self._fault(key_node, inner, message)
                continue
            if key == _MERGE:
                self._fault(key_node, path, "a merge key (<<) is not YAML 1.2; write the keys out")
                continue
            first[key] = self._keys[inner] = _place(key_node.start_mark)
            data[key] = self._value(value_node, inner)
        return data


def _tag(node: yaml.Node) -> str:
    return str(node.tag).replace("tag:yaml.org,2002:", "!!")
