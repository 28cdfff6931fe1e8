"""HTTP over a Unix socket.

Rule of this file: it is loaded when a question is asked (`client`), not before.
"""

from __future__ import annotations

import json
import os
import socket
from http.client import HTTPConnection, HTTPException
from typing import Any


class UnixConnection(HTTPConnection):
    """A connection to the HTTP server behind a socket file."""

    def __init__(self, path: str | os.PathLike[str], timeout: float | None) -> None:
        super().__init__("lab", timeout=timeout)
        self._path = os.fspath(path)

    def connect(self) -> None:
        """Connect to the socket file."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(
    path: str | os.PathLike[str], method: str, target: str, body: Any = None, timeout: float | None = None
) -> tuple[int, Any]:
    """One request with a JSON body, if any; the status and the JSON of the answer.

    FileNotFoundError or ConnectionRefusedError where nobody answers there, TimeoutError, and
    ConnectionError where it ends before it has answered.
    """
    connection = UnixConnection(path, timeout)
    try:
        connection.request(method, target, None if body is None else json.dumps(body).encode())
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    except (HTTPException, ValueError) as error:
        raise ConnectionError(f"{type(error).__name__}: {error}") from None
    finally:
        connection.close()
