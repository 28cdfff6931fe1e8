"""HTTP on an endpoint's TCP: one GET at a time, and a server of a function (RFC 9110, RFC 9112).

Enough for `pod.get(url)` and `pod.serve(...)`, and honest enough to talk to real
servers and clients: one request a connection, `Connection: close`; bodies by
Content-Length, in chunks, or up to the end of the connection.

Rule of this file: what the other side sends is bounded, and wrong bytes end in
an error, never in an exception.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from emunet.elements.endpoint.network import Failure
from emunet.elements.endpoint.stack import Endpoint
from emunet.elements.endpoint.tcp import Connection, Listener, State
from emunet.packet.http import HttpMessage, Response, encode_answer

__all__ = ["Get", "Request", "Response", "get", "parse_url", "serve"]


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asked. Header names are in lower case; `client` is its address and port."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    client: tuple[bytes, int]


def parse_url(url: str) -> tuple[str, int, str]:
    """`http://host[:port][/path]` -> (host, port, path). An IPv6 address stands in brackets. ValueError otherwise."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() != "http":
        raise ValueError(
            f"{url!r} is not a URL that can be fetched here: expected one like http://10.244.1.2:8080/path"
        )
    authority, slash, path = rest.partition("/")
    host, colon, port = authority.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = authority, "80"
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"{url!r} has no host and port: expected a URL like http://10.244.1.2:8080/path")
    return host.strip("[]"), int(port), slash + path or "/"


class Get:
    """A GET on its way, or its result. `done` once there is an answer or an `error` (a sentence)."""

    def __init__(self, host: str, path: str, headers: dict[str, str] | None = None) -> None:
        self.status = 0
        self.reason = ""
        self.failure: Failure | None = None
        self.error: str | None = None
        self.done = False
        self.connection: Connection | None = None
        lines = {"Host": host, "Connection": "close", "User-Agent": "emunet", "Accept": "*/*"} | (headers or {})
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self._request = f"GET {path} HTTP/1.1\r\n{text}\r\n".encode("latin-1")
        self._message = HttpMessage(answer=True)

    @property
    def headers(self) -> dict[str, str]:
        """Of the answer; names in lower case."""
        return self._message.headers

    @property
    def body(self) -> bytes:
        """Of the answer, as far as it has come."""
        return self._message.body

    def handle(self, connection: Connection, now: int) -> list[bytes]:
        """The connection's handler: send the request once open, collect the answer, close."""
        frames: list[bytes] = []
        if self._request and connection.state is State.ESTABLISHED:
            request, self._request = self._request, b""
            frames += connection.send(request, now)
        data, update = connection.receive(now)
        frames += update
        closed = connection.state is State.CLOSED
        if not self.done and (data or connection.ended or closed):
            self._message.feed(data, connection.ended)
            if self._message.done:
                _, status, reason = (*self._message.start.split(" ", 2), "")[:3]
                self.status, self.reason, self.done = int(status), reason, True
            elif self._message.error is not None or closed:
                self.failure = connection.error
                self.error = str(connection.error or self._message.error or "the connection was closed")
                self.done = True
            if self.done:
                frames += connection.close(now)
        return frames


def get(
    endpoint: Endpoint, destination: bytes, port: int, now: int, *, path: str = "/", host: str = "",
    headers: dict[str, str] | None = None,
) -> tuple[Get, list[bytes]]:  # fmt: skip
    """Begin a GET from an endpoint; the record that fills as frames come, and the frames to send."""
    record = Get(host or "localhost", path, headers)
    connection, frames = endpoint.connect(destination, port, now, handler=record.handle)
    record.connection = connection
    if connection.error is not None and not record.done:
        record.failure, record.error, record.done = connection.error, str(connection.error), True
    return record, frames


class _Exchange:
    """One connection of a server: collects the request, answers it, closes."""

    def __init__(self, respond: Callable[[Request], Response]) -> None:
        self._respond = respond
        self._message = HttpMessage(answer=False)
        self._answered = False

    def handle(self, connection: Connection, now: int) -> list[bytes]:
        """The connection's handler."""
        data, frames = connection.receive(now)
        if self._answered or connection.state in (State.SYN_RECEIVED, State.CLOSED):
            return frames
        self._message.feed(data, connection.ended)
        response, head = self._response(connection)
        if response is not None:
            self._answered = True
            frames += connection.send(encode_answer(response, head=head), now)
        if self._answered or connection.ended:
            frames += connection.close(now)
        return frames

    def _response(self, connection: Connection) -> tuple[Response | None, bool]:
        """(the answer if there is one by now, whether only its headers are wanted)."""
        message = self._message
        if message.error is not None:
            return (None if connection.ended else Response(400, message.error.encode() + b"\n")), False
        if not message.done:
            return None, False
        method, target, _ = message.start.split(" ", 2)
        client = (connection.remote, connection.remote_port)
        request = Request(method, target, message.headers, message.body, client)
        try:
            return self._respond(request), method == "HEAD"
        except Exception as error:  # the function is the user's; its client must hear of any fault
            return Response(500, f"{type(error).__name__}: {error}\n".encode()), method == "HEAD"


def serve(
    endpoint: Endpoint, port: int, respond: Callable[[Request], Response], *, address: bytes | None = None
) -> Listener:
    """Answer HTTP requests on a port with a function. What it raises becomes status 500 with the error's name."""

    def begin(connection: Connection, now: int) -> list[bytes]:
        connection.handler = _Exchange(respond).handle
        return connection.handler(connection, now)

    return endpoint.listen(port, begin, address=address)
