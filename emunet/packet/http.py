"""HTTP/1.1 messages: a request or an answer that comes in pieces, and the bytes of an answer (RFC 9110, RFC 9112).

Bodies by Content-Length, in chunks, or up to the end of the connection.

Rule of this file: what the other side sends is bounded, and wrong bytes end in
an error, never in an exception.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MAXIMUM_HEAD = 65536
MAXIMUM_BODY = 16 << 20
_REASONS = {
    200: "OK",
    204: "No Content",
    400: "Bad Request",
    404: "Not Found",
    413: "Content Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class Response:
    """What a server answers."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class HttpMessage:
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


def encode_answer(response: Response, *, head: bool = False) -> bytes:
    """The bytes of an answer, of which a client that asked by HEAD wants only the headers."""
    headers = {"Content-Length": str(len(response.body)), "Connection": "close"} | response.headers
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    start = f"HTTP/1.1 {response.status} {_REASONS.get(response.status, 'Status')}\r\n"
    return (start + lines + "\r\n").encode("latin-1", "replace") + (b"" if head else response.body)
