"""The Kubernetes API of a lab over the lab's own socket: no port, no token, for the CLI.

Rule of this file: the standard library only; whatever goes wrong is a `LabError`.
"""

from __future__ import annotations

import json
import os
import socket
from http.client import HTTPConnection, HTTPException
from typing import Any

from emunet.daemon.client import LabClient, LabError


class _UnixConnection(HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("lab")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def ask(
    lab: LabClient, method: str, path: str, body: Any = None, *, accept: str = "application/json",
    content_type: str = "application/json",
) -> tuple[int, Any, list[str]]:  # fmt: skip
    """A request: the code, the answer, and what it warns of."""
    connection = _UnixConnection(os.fspath(lab.folder.api))
    try:
        data = None if body is None else json.dumps(body).encode()
        connection.request(method, f"/kube/{path}", data, {"Accept": accept, "Content-Type": content_type})
        response = connection.getresponse()
        answer = json.loads(response.read())
        told = response.headers.get_all("Warning") or []
    except (OSError, HTTPException, ValueError) as error:
        raise LabError(f"the lab {lab.name} does not answer: {error}") from None
    finally:
        connection.close()
    warnings = [text.partition('"')[2].rpartition('"')[0].replace('\\"', '"') for text in told]
    return response.status, answer, warnings
