"""SPDY/3.1, server side: how kubectl up to 1.29 carries exec, attach, cp and port-forward.

A connection has many streams, each opened by the client with a few headers. Headers are deflated
in one zlib stream for each direction, begun with a dictionary that the draft gives. Flow control is
left out: kubectl applies none, and our own bound is the transport's.

Rule of this file: bytes in, events out, bytes out (`Spdy` does no I/O), as in HTTP libraries that
can be tested without a socket.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

_WORDS = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges "
    "age allow authorization cache-control connection content-base content-encoding content-language content-"
    "length content-location content-md5 content-range content-type date etag expect expires from host if-"
    "match if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards "
    "pragma proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-"
    "encoding upgrade user-agent vary via warning www-authenticate method get status"
)
_MORE_WORDS = "version HTTP/1.1 url public set-cookie keep-alive origin"
_TAIL = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized"
    "403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,"
    "text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


def _dictionary() -> bytes:
    words = [*_WORDS.split(" "), "200 OK", *_MORE_WORDS.split(" ")]
    return b"".join(struct.pack("!I", len(word)) + word.encode() for word in words) + _TAIL.encode()


DICTIONARY = _dictionary()
"""What the headers' compression begins with (SPDY/3 draft, 2.6.10.1)."""

MAXIMUM_FRAME = 16 << 20
WRITE_SIZE = 32 << 10

_CONTROL = 0x8003
_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _PING, _GOAWAY, _HEADERS = 1, 2, 3, 6, 7, 8
_FIN = 1


class SpdyError(Exception):
    """The other side does not speak SPDY."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The client has opened a stream; `ended`: it will send nothing on it."""

    stream: int
    headers: dict[str, str]
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes on a stream; `ended`: they are the last."""

    stream: int
    data: bytes
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Reset:
    """The client wants no more of a stream."""

    stream: int


@dataclass(frozen=True, slots=True)
class GoneAway:
    """The client is about to close the connection."""


Event = Opened | Data | Reset | GoneAway


@dataclass(slots=True)
class Spdy:
    """One connection."""

    _received: bytearray = field(default_factory=bytearray)
    _inflater: zlib._Decompress = field(default_factory=lambda: zlib.decompressobj(zdict=DICTIONARY))
    _deflater: zlib._Compress = field(default_factory=lambda: zlib.compressobj(zdict=DICTIONARY))
    _out: bytearray = field(default_factory=bytearray)

    def feed(self, data: bytes) -> list[Event]:
        """What the bytes say. What must be answered at once is in `take`. SpdyError."""
        self._received += data
        events: list[Event] = []
        while len(self._received) >= 8:
            head, second = struct.unpack_from("!II", self._received)
            flags, length = second >> 24, second & 0xFFFFFF
            if length > MAXIMUM_FRAME:
                raise SpdyError(f"a frame of {length} bytes")
            if len(self._received) < 8 + length:
                break
            body = bytes(self._received[8 : 8 + length])
            del self._received[: 8 + length]
            event = self._control(head, flags, body) if head >> 31 else Data(head, body, bool(flags & _FIN))
            if event is not None:
                events.append(event)
        return events

    def take(self) -> bytes:
        """The bytes to send."""
        data = bytes(self._out)
        self._out.clear()
        return data

    def send(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """Bytes on a stream; `end`: they are the last."""
        pieces = [data[start : start + WRITE_SIZE] for start in range(0, len(data), WRITE_SIZE)] or [b""]
        for index, piece in enumerate(pieces):
            flags = _FIN if end and index == len(pieces) - 1 else 0
            if piece or flags:
                self._out += struct.pack("!II", stream, flags << 24 | len(piece)) + piece

    def reset(self, stream: int) -> None:
        """End a stream that cannot be served."""
        self._frame(_RST_STREAM, struct.pack("!II", stream, 5))

    def _frame(self, kind: int, body: bytes, flags: int = 0) -> None:
        self._out += struct.pack("!HHI", _CONTROL, kind, flags << 24 | len(body)) + body

    def _control(self, head: int, flags: int, body: bytes) -> Event | None:
        if head >> 16 != _CONTROL:
            raise SpdyError(f"version {head >> 16 & 0x7FFF} is not SPDY/3")
        kind = head & 0xFFFF
        try:
            if kind == _SYN_STREAM:
                (stream,) = struct.unpack_from("!I", body)
                headers = self._headers(body[10:])
                self._frame(_SYN_REPLY, struct.pack("!I", stream) + self._block({}))
                return Opened(stream, headers, bool(flags & _FIN))
            if kind == _HEADERS:
                self._headers(body[4:])  # keeps the common stream of compression in step
            if kind == _RST_STREAM:
                return Reset(struct.unpack_from("!I", body)[0])
        except (struct.error, zlib.error, UnicodeDecodeError) as error:
            raise SpdyError(f"a frame that cannot be read: {error}") from None
        if kind == _PING:
            self._frame(_PING, body)
        if kind == _GOAWAY:
            return GoneAway()
        return None

    def _headers(self, block: bytes) -> dict[str, str]:
        text = self._inflater.decompress(block, MAXIMUM_FRAME)
        (number,) = struct.unpack_from("!I", text)
        position, words = 4, []
        for _ in range(min(number, 1000) * 2):
            (length,) = struct.unpack_from("!I", text, position)
            words.append(text[position + 4 : position + 4 + length].decode())
            position += 4 + length
        return dict(zip(words[::2], words[1::2], strict=True))

    def _block(self, headers: dict[str, str]) -> bytes:
        text = struct.pack("!I", len(headers))
        for name, value in headers.items():
            for word in (name.encode(), value.encode()):
                text += struct.pack("!I", len(word)) + word
        return self._deflater.compress(text) + self._deflater.flush(zlib.Z_SYNC_FLUSH)
