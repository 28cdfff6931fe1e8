"""Refusals as the Kubernetes API words them: a code, a reason, a sentence, details.

Rule of this file: whoever refuses something says it with one of these functions, so that
kubectl, the Python clients and our own command line print what they would print elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from emunet.cluster.kinds import Kind


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing that is wrong with one field; `reason` is `FieldValueRequired` and the like."""

    field: str
    reason: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


class StatusError(Exception):
    """A request is refused. `code` is HTTP's, `reason` Kubernetes' word for it."""

    def __init__(
        self, code: int, reason: str, message: str, details: dict[str, Any] | None = None, causes: Sequence[Cause] = ()
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = dict(details or {})
        self.causes = tuple(causes)
        if causes:
            self.details["causes"] = [
                {"reason": cause.reason, "message": cause.message, "field": cause.field} for cause in causes
            ]

    @classmethod
    def read(cls, body: dict[str, Any]) -> StatusError:
        """The refusal that a client got as a Status object."""
        details = body.get("details") or {}
        causes = [Cause(one.get("field", ""), one["reason"], one["message"]) for one in details.get("causes") or ()]
        return cls(body.get("code", 500), body.get("reason", ""), body.get("message", ""), details, causes)

    def body(self) -> dict[str, Any]:
        """The Status object that a client gets."""
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "details": self.details,
            "code": self.code,
        }


def _details(kind: Kind, name: str) -> dict[str, Any]:
    return {"name": name, "kind": kind.plural} | ({"group": kind.group} if kind.group else {})


def not_found(kind: Kind, name: str) -> StatusError:
    """There is no object of that name."""
    return StatusError(404, "NotFound", f'{kind.resource} "{name}" not found', _details(kind, name))


def already_exists(kind: Kind, name: str) -> StatusError:
    """There is an object of that name already."""
    return StatusError(409, "AlreadyExists", f'{kind.resource} "{name}" already exists', _details(kind, name))


def conflict(kind: Kind, name: str, why: str = "") -> StatusError:
    """The object is not what the client thinks it is."""
    why = why or ("the object has been modified; please apply your changes to the latest version and try again")
    message = f'Operation cannot be fulfilled on {kind.resource} "{name}": {why}'
    return StatusError(409, "Conflict", message, _details(kind, name))


def forbidden(kind: Kind, name: str, why: str, causes: Sequence[Cause] = ()) -> StatusError:
    """A rule of the cluster stands against it."""
    return StatusError(403, "Forbidden", f'{kind.resource} "{name}" is forbidden: {why}', _details(kind, name), causes)


def invalid(kind: Kind, name: str, causes: Sequence[Cause]) -> StatusError:
    """The object says something that cannot be."""
    said = str(causes[0]) if len(causes) == 1 else "[" + ", ".join(map(str, causes)) + "]"
    details = {"name": name, "kind": kind.name} | ({"group": kind.group} if kind.group else {})
    return StatusError(422, "Invalid", f'{kind.name} "{name}" is invalid: {said}', details, causes)


def bad_request(message: str) -> StatusError:
    """The request cannot be understood."""
    return StatusError(400, "BadRequest", message)


def method_not_allowed(what: str) -> StatusError:
    """This cannot be done to that resource."""
    return StatusError(405, "MethodNotAllowed", what)


def expired(message: str) -> StatusError:
    """What was asked from is too old to be known."""
    return StatusError(410, "Expired", message)
