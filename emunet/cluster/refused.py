"""A refusal of the API as problems of the file whose object was refused: with line and column.

Rule of this file: the words are the API's; only the place is added.
"""

from __future__ import annotations

from emunet.cluster.load import Document, Path, Problem
from emunet.cluster.status import StatusError


def problems_of(document: Document, error: StatusError) -> list[Problem]:
    """A refusal as problems at the places that it speaks of."""
    if not error.causes:
        kind = document.data.get("kind")
        message = error.message.removeprefix(f"{kind} ")
        return [document.problem(_place_of(document, error.message), message, key=True)]
    return [document.problem(_path(cause.field), cause.message) for cause in error.causes]


def _path(text: str) -> Path:
    """`spec.ports[0].port` -> its steps."""
    path: list[str | int] = []
    for part in text.replace("]", "").split("."):
        name, *indices = part.split("[")
        path.append(name)
        path += [int(index) if index.isdigit() else index for index in indices]
    return tuple(path)


def _place_of(document: Document, message: str) -> Path:
    """Where the field is written that a message quotes; the whole object where it quotes none."""
    for part in message.split('"'):
        path = _path(part)
        if path and document.has(path):
            return path
    return ("kind",)
