"""The bytes of the frame channel: what the plane process and its clients say to each other about frames.

Over a SOCK_SEQPACKET socket, so that a message arrives whole or not at all:

    client -> plane   one JSON request (`Request`)
    plane  -> client  one JSON answer (`Answer`), or {"error": sentence} and the end
    then, until either side closes:
    plane  -> client  records, one or many to a message: what passed a watched port
    client -> plane   frames to let in, one or many to a message, where the request said so

A record: time (ns since 1970) u64, identity of the packet u64 (the same at every port that it
passes), frames lost before it u32, length of the frame u32, port (its place in the request) u16,
direction u8, number of comments u8; then for each comment its length u16 and UTF-8 text; then the
frame. With the direction NOTICE there is no frame: it tells of
losses, or in its comment of what became of the port. A frame to let in: its length u32, port u16,
then the frame. All numbers are little-endian.

Rule of this file: formats only; what is damaged raises ValueError.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from emunet.packet.pcap import INBOUND, OUTBOUND

NOTICE = 255
"""The direction of a record without a frame."""

MESSAGE_SIZE = 60_000
"""Bytes after which a message is full. One record may take it beyond: the longest frame has 64 KB."""

MESSAGE_MAX = 1 << 18
"""No message is longer."""

INJECT_BATCH = 32
"""Frames to let in that one message carries at most: what the plane does at a time for anybody."""

_RECORD = struct.Struct("<QQIIHBB")
_LENGTH = struct.Struct("<H")
_INJECTED = struct.Struct("<IH")
_COMMENT_MAX = 4096


@dataclass(frozen=True, slots=True)
class Request:
    """What a client wants.

    ports    names; none for a list of all ports (`Answer.ports`), after which the plane closes
    watch    be told what passes them
    sent     also of frames that go the way of the client's own (a socket that sends wants the others only)
    inject   let frames in
    raw      by an interface of a host, let them out as a packet socket does, past the host's own routing
    single   one record to a message, so that a readable socket means exactly one frame
    """

    ports: tuple[str, ...] = ()
    watch: bool = True
    sent: bool = True
    inject: bool = False
    single: bool = False
    raw: bool = False

    def encode(self) -> bytes:
        """As JSON."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, data: bytes) -> Request:
        """ValueError where this is no request."""
        fields = json.loads(data)
        if not isinstance(fields, dict) or not isinstance(fields.get("ports", []), list):
            raise ValueError("a request is a JSON object whose ports are a list")
        unknown = fields.keys() - {"ports", "watch", "sent", "inject", "single", "raw"}
        if unknown:
            raise ValueError(f"a request has no field {', '.join(sorted(unknown))}")
        return cls(**fields | {"ports": tuple(str(port) for port in fields.get("ports", []))})


@dataclass(frozen=True, slots=True)
class PortInfo:
    """What is known of a port. Addresses and networks are text (`10.244.1.2/24`), as is the MAC.

    kind    `pod`, `host` (an interface of a host) or `switch`
    routes  (network, next hop or "") as the stack behind the port would use it
    """

    name: str
    kind: str
    device: str
    mac: str = ""
    addresses: tuple[str, ...] = ()
    routes: tuple[tuple[str, str], ...] = ()
    mtu: int = 1500

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> PortInfo:
        """From the JSON form."""
        routes = tuple((str(network), str(via)) for network, via in fields["routes"])
        return cls(**fields | {"addresses": tuple(fields["addresses"]), "routes": routes})

    @property
    def description(self) -> str:
        """For people: what it is, where, and its addresses."""
        if self.kind == "pod":
            what = f"eth0 of pod {self.name} on {self.device}"
        else:
            what = f"{self.name.rpartition(':')[2]} of {self.kind} {self.device}"
        return ", ".join([what, *self.addresses])


@dataclass(frozen=True, slots=True)
class Answer:
    """What the plane answers. Several messages may carry it; all but the last say `more`.

    run          names this run of the lab: identities of packets mean the same in all that comes from one run
    vxlan_ports  UDP ports that its hosts' tunnels use
    """

    ports: tuple[PortInfo, ...]
    more: bool = False
    run: str = ""
    vxlan_ports: tuple[int, ...] = ()

    def encode(self) -> bytes:
        """As JSON."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, data: bytes) -> Answer | str:
        """The answer, or the sentence of a refusal. ValueError where it is neither."""
        fields = json.loads(data)
        if "error" in fields:
            return str(fields["error"])
        ports = tuple(PortInfo.from_fields(port) for port in fields["ports"])
        return cls(ports, bool(fields["more"]), str(fields.get("run", "")), tuple(fields.get("vxlan_ports", ())))


def encode_refusal(sentence: str) -> bytes:
    """The answer to a request that cannot be met."""
    return json.dumps({"error": sentence}).encode()


pack_plain_head = _RECORD.pack
"""at, identity, lost, length, port, direction, 0: `pack_head` without comments, for whoever does it for each frame."""


unpack_head = _RECORD.unpack_from
"""The same back, at a place in a message: at, identity, lost, length, port, direction, number of comments."""

HEAD_SIZE = _RECORD.size


class FrameRecord(NamedTuple):
    """One frame at one port. `lost`: how many frames of this port were lost to this client just before.

    With the direction NOTICE there is no frame.
    """

    at: int
    port: int
    direction: int
    frame: bytes
    comments: tuple[str, ...] = ()
    lost: int = 0
    identity: int = 0


def pack_head(
    at: int, port: int, direction: int, length: int, comments: Sequence[str] = (), lost: int = 0, identity: int = 0
) -> bytes:
    """All of a record but its frame, which follows."""
    if not comments:
        return pack_plain_head(at, identity, lost, length, port, direction, 0)
    texts = [comment.encode("utf-8", "replace")[:_COMMENT_MAX] for comment in comments[:255]]
    head = _RECORD.pack(at, identity, lost, length, port, direction, len(texts))
    return head + b"".join(_LENGTH.pack(len(text)) + text for text in texts)


def unpack_records(message: bytes) -> Iterator[FrameRecord]:
    """The records of a message. ValueError where it is cut."""
    position, end = 0, len(message)
    while position < end:
        record, position = unpack_record(message, position)
        yield record


def unpack_record(message: bytes, position: int) -> tuple[FrameRecord, int]:
    """The record that begins there, and where the next one does. ValueError where it is cut."""
    end = len(message)
    if position + HEAD_SIZE > end:
        raise ValueError("a message from the lab ends within a record")
    at, identity, lost, length, port, direction, count = unpack_head(message, position)
    position += HEAD_SIZE
    comments: tuple[str, ...] = ()
    if count:
        comments, position = _unpack_comments(message, position, count)
    after = position + length
    if after > end:
        raise ValueError("a message from the lab ends within a frame")
    return FrameRecord(at, port, direction, message[position:after], comments, lost, identity), after


def _unpack_comments(message: bytes, position: int, count: int) -> tuple[tuple[str, ...], int]:
    comments = []
    for _ in range(count):
        if position + _LENGTH.size > len(message):
            raise ValueError("a message from the lab ends within a comment")
        (length,) = _LENGTH.unpack_from(message, position)
        position += _LENGTH.size
        comments.append(message[position : position + length].decode("utf-8", "replace"))
        position += length
    return tuple(comments), position


def pack_injection(port: int, frame: bytes) -> bytes:
    """A frame to let in by a port."""
    return _INJECTED.pack(len(frame), port) + frame


def unpack_injections(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The frames of a message: (port, frame). ValueError where it is cut."""
    position, end = 0, len(message)
    while position < end:
        if position + _INJECTED.size > end:
            raise ValueError("a message to the lab ends within a header")
        length, port = _INJECTED.unpack_from(message, position)
        position += _INJECTED.size
        if position + length > end:
            raise ValueError("a message to the lab ends within a frame")
        yield port, message[position : position + length]
        position += length


__all__ = [
    "INBOUND",
    "INJECT_BATCH",
    "MESSAGE_MAX",
    "MESSAGE_SIZE",
    "NOTICE",
    "OUTBOUND",
    "Answer",
    "FrameRecord",
    "PortInfo",
    "Request",
    "encode_refusal",
    "pack_head",
    "pack_injection",
    "unpack_injections",
    "unpack_records",
]
