"""One question to a gRPC server over HTTP/2: is a service healthy? (grpc.health.v1.Health/Check)

As much of HTTP/2 (RFC 9113) and of HPACK (RFC 7541) as one unary call needs: our headers are literals that
no table holds, and of theirs only the status is looked for, so that no Huffman code has to be read unless a
server refuses the call.

Rule of this file: bytes in, bytes out; it opens nothing and waits for nothing.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

SERVING = 1

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY = 0x0, 0x1, 0x3, 0x4, 0x6, 0x7
_END_STREAM, _ACK, _END_HEADERS, _PADDED = 0x1, 0x1, 0x4, 0x8
_STREAM = 1
_LONGEST_FRAME = 1 << 14


@dataclass(frozen=True, slots=True)
class HealthAnswer:
    """What came of it: the `status` of the service (`SERVING` is well), or why there is none."""

    status: int = 0
    failure: str = ""


def request_of(service: str, authority: str) -> bytes:
    """All that a client sends: the preface, its settings, one call with its message."""
    named = service.encode()
    message = (b"\x0a" + _varint(len(named)) + named) if named else b""
    headers = b"".join(
        _literal(name, value)
        for name, value in (
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/grpc.health.v1.Health/Check"),
            (":authority", authority),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", "kube-probe/1.33"),
        )
    )
    return (
        _PREFACE
        + _frame(_SETTINGS, 0, 0, b"")
        + _frame(_HEADERS, _END_HEADERS, _STREAM, headers)
        + _frame(_DATA, _END_STREAM, _STREAM, b"\0" + struct.pack(">I", len(message)) + message)
    )


class Reader:
    """Reads what the server says, until `answer` is there."""

    def __init__(self) -> None:
        self.answer: HealthAnswer | None = None
        self._rest = b""
        self._body = b""

    def feed(self, data: bytes) -> bytes:
        """Take bytes; gives what is to be answered at once (settings and pings are acknowledged)."""
        self._rest += data
        reply = b""
        while self.answer is None and len(self._rest) >= 9:
            length = int.from_bytes(self._rest[:3], "big")
            kind, flags = self._rest[3], self._rest[4]
            stream = int.from_bytes(self._rest[5:9], "big") & 0x7FFFFFFF
            if length > _LONGEST_FRAME:
                self.answer = HealthAnswer(failure="the answer is not HTTP/2")
                break
            if len(self._rest) < 9 + length:
                break
            payload, self._rest = self._rest[9 : 9 + length], self._rest[9 + length :]
            reply += self._take(kind, flags, stream, payload)
        return reply

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        if kind == _SETTINGS and not flags & _ACK:
            return _frame(_SETTINGS, _ACK, 0, b"")
        if kind == _PING and not flags & _ACK:
            return _frame(_PING, _ACK, 0, payload)
        if kind == _GOAWAY:
            self.answer = HealthAnswer(failure="the server closes the connection (GOAWAY)")
        elif stream != _STREAM:
            return b""
        elif kind == _RST_STREAM:
            self.answer = HealthAnswer(failure="the server refuses the call (RST_STREAM)")
        elif kind == _DATA:
            padding = payload[0] if flags & _PADDED and payload else -1
            self._body += payload[1 : len(payload) - padding] if padding >= 0 else payload
            self._look(ended=bool(flags & _END_STREAM))
        elif kind == _HEADERS and flags & _END_STREAM:
            self._look(ended=True)
        return b""

    def _look(self, *, ended: bool) -> None:
        """Read the message, once it is there whole."""
        if len(self._body) >= 5:
            length = int.from_bytes(self._body[1:5], "big")
            if len(self._body) >= 5 + length:
                self.answer = HealthAnswer(status=_status_of(self._body[5 : 5 + length]))
                return
        if ended:
            self.answer = HealthAnswer(failure="the server has no health service, or does not know this service")


def _status_of(message: bytes) -> int:
    """HealthCheckResponse: field 1, a varint; absent is 0."""
    if len(message) >= 2 and message[0] == 0x08:
        return message[1] & 0x7F
    return 0


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _literal(name: str, value: str) -> bytes:
    """A header that is in no table and goes into none (RFC 7541 6.2.2), without Huffman codes."""
    return b"\0" + _text(name) + _text(value)


def _text(text: str) -> bytes:
    data = text.encode()
    return _prefixed(len(data), 7) + data


def _prefixed(number: int, bits: int) -> bytes:
    """An integer with a prefix of some bits (RFC 7541 5.1)."""
    limit = (1 << bits) - 1
    if number < limit:
        return bytes((number,))
    return bytes((limit,)) + _varint(number - limit)


def _varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes((number & 0x7F | 0x80,))
        number >>= 7
    return out + bytes((number,))
