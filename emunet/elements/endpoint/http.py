"""HTTP on an endpoint's TCP: one GET at a time, and a server of a function (RFC 9110, RFC 9112).

Enough for `pod.get(url)` and `pod.serve(...)`, and honest enough to talk to real
servers and clients: one request a connection, `Connection: close`; bodies by
Content-Length, in chunks, or up to the end of the connection.

Rule of this file: what the other side sends is bounded, and wrong bytes end in
an error, never in an exception.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from emunet.elements.endpoint.network import Failure
from emunet.elements.endpoint.stack import Endpoint
from emunet.elements.endpoint.tcp import Connection, Listener, State

MAXIMUM_HEAD = 65536
MAXIMUM_BODY = 16 << 20
_REASONS = {
    200: "OK",
    204: "No Content",
    400: "Bad Request",
    404: "Not Found",
    413: "Content Too Large",
    500: "Internal Server Error",
}


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asked. Header names are in lower case; `client` is its address and port."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    client: tuple[bytes, int]


@dataclass(frozen=True, slots=True)
class Response:
    """What a server answers."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


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


class _Message:
    """A message that comes in pieces: start line, headers, body. `error` is a sentence once it is wrong."""

    def __init__(self, *, answer: bool, without_body: bool = False) -> None:
        self.start = ""
        self.headers: dict[str, str] = {}
        self.body = b""
        self.done = False
        self.error: str | None = None
        self._answer = answer
        self._without_body = without_body
        self._data = bytearray()
        self._head_taken = False

    def feed(self, data: bytes, ended: bool) -> None:
        """Take bytes; `ended`: no more will come."""
        if self.done or self.error is not None:
            return
        self._data += data
        try:
            self._advance(ended)
            self._require(not ended)
        except ValueError as error:
            self.error = str(error)

    def _require(self, more: bool) -> None:
        if not self.done and not more:
            raise ValueError("the connection ended within the message")

    def _advance(self, ended: bool) -> None:
        while not self._head_taken:
            head, found, rest = self._data.partition(b"\r\n\r\n")
            if len(head) > MAXIMUM_HEAD:
                raise ValueError(f"the headers are longer than {MAXIMUM_HEAD} bytes")
            if not found:
                return
            self._data = rest
            self._head_taken = self._take_head(bytes(head).decode("latin-1"))
        if self._without_body:
            self.done = True
        elif "chunked" in self.headers.get("transfer-encoding", "").lower():
            self._take_chunks()
        elif "content-length" in self.headers or not self._answer:
            self._take_length()
        else:
            self._check_size(len(self._data))
            if ended:
                self.body, self.done = bytes(self._data), True

    def _take_head(self, head: str) -> bool:
        """Take the start line and the headers; False if they only announce the real ones (an interim answer)."""
        start, _, lines = head.partition("\r\n")
        self.start = start
        self.headers = {}
        for line in lines.split("\r\n") if lines else ():
            name, colon, value = line.partition(":")
            if not colon or not name or name != name.strip():
                raise ValueError(f"{line[:80]!r} is not a header line")
            self.headers[name.lower()] = value.strip()
        parts = start.split(" ", 2)
        if self._answer:
            if len(parts) < 2 or not parts[0].startswith("HTTP/") or len(parts[1]) != 3 or not parts[1].isdigit():
                raise ValueError(f"{start[:80]!r} is not the first line of an HTTP answer")
            if parts[1].startswith("1"):
                return False
            self._without_body = self._without_body or parts[1] in ("204", "304")
        elif len(parts) != 3 or not parts[2].startswith("HTTP/"):
            raise ValueError(f"{start[:80]!r} is not the first line of an HTTP request")
        return True

    def _check_size(self, size: int) -> None:
        if size > MAXIMUM_BODY:
            raise ValueError(f"the body is longer than {MAXIMUM_BODY} bytes")

    def _take_length(self) -> None:
        text = self.headers.get("content-length", "0")
        if not text.isascii() or not text.isdigit() or len(text) > 20:
            raise ValueError(f"{text[:40]!r} is not a Content-Length")
        length = int(text)
        self._check_size(length)
        if len(self._data) >= length:
            self.body, self.done = bytes(self._data[:length]), True

    def _take_chunks(self) -> None:
        self._check_size(len(self.body) + len(self._data))
        position = 0
        pieces = [self.body]
        while True:
            end = self._data.find(b"\r\n", position)
            if end < 0:
                break
            text = bytes(self._data[position:end]).partition(b";")[0].strip().decode("latin-1")
            if not text or len(text) > 8 or any(digit not in "0123456789abcdefABCDEF" for digit in text):
                raise ValueError(f"{text[:40]!r} is not the length of a chunk")
            length = int(text, 16)
            if length == 0:
                self.done = True
                break
            if len(self._data) < end + 2 + length + 2:
                break
            pieces.append(bytes(self._data[end + 2 : end + 2 + length]))
            position = end + 2 + length + 2
        del self._data[:position]
        self.body = b"".join(pieces)


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
        self._message = _Message(answer=True)

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
        self._message = _Message(answer=False)
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
            frames += connection.send(_answer(response, head=head), now)
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


def _answer(response: Response, *, head: bool = False) -> bytes:
    """The bytes of an answer."""
    headers = {"Content-Length": str(len(response.body)), "Connection": "close"} | response.headers
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    start = f"HTTP/1.1 {response.status} {_REASONS.get(response.status, 'Status')}\r\n"
    return (start + lines + "\r\n").encode("latin-1", "replace") + (b"" if head else response.body)
