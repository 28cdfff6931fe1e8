"""What answers on a declared port that no program serves: who it is, and who asked.

    $ curl http://web-1/
    {"pod": "web-1", "namespace": "default", "node": "host1", "address": "10.244.1.2", "port": 80, ...

A node answers so for a Service too that has a `healthCheckNodePort`: how many of its endpoints are here, in the words
of kube-proxy, and 503 where there is none.

One answer a connection: JSON over HTTP to whoever speaks HTTP, else one line, as soon as the
client has said something else, has closed its side, or has been silent for a while. To each UDP
datagram one line.

Rule of this file: bytes in, bytes out; sockets and endpoints are others' business, so that a
pod of a kernel and one in memory say the same.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass

from emunet.packet.http import HttpMessage, Response, encode_answer

SILENCE_SECONDS = 2.0
"""How long a client may say nothing before it gets its line. An HTTP request that was lost twice still comes first."""

CONVERSATION_SECONDS = 30.0
"""How long a connection lives at most."""

LONGEST = 1 << 18
"""Bytes of a request, its body included."""

_SERVICE = "service/"
"""Before the name of a Service; no pod has a name with a slash."""

_REQUEST_BEGINS = re.compile(rb"[A-Z]{1,20}(?: [^\r\n]*)?\r?\Z")
_REQUEST_LINE = re.compile(rb"[A-Z]{1,20} [^\r\n ]+ HTTP/\d")


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose port it is."""

    pod: str
    namespace: str
    node: str


@dataclass(frozen=True, slots=True)
class Health:
    """The port of a node that tells how many endpoints of a Service are ready there (healthCheckNodePort)."""

    service: str
    namespace: str
    node: str
    endpoints: int

    def answer(self) -> Response:
        """What kube-proxy says (pkg/proxy/healthcheck)."""
        told = {
            "service": {"namespace": self.namespace, "name": self.service},
            "localEndpoints": self.endpoints,
            "serviceProxyHealthy": True,
        }
        headers = {
            "Content-Type": "application/json",
            "X-Content-Type-Options": "nosniff",
            "X-Load-Balancing-Endpoint-Weight": str(self.endpoints),
        }
        return Response(200 if self.endpoints else 503, json.dumps(told, indent=1).encode(), headers)


Row = list[str | int]
"""Who answers, as messages have it. The first two tell those apart that live in one network."""


def to_row(one: Identity | Health) -> Row:
    """For those who are elsewhere."""
    if isinstance(one, Health):
        return [f"{_SERVICE}{one.service}", one.namespace, one.node, one.endpoints]
    return [one.pod, one.namespace, one.node]


def of_row(row: Row) -> Identity | Health:
    """What `to_row` told of."""
    name, namespace, node, *rest = row
    if rest:
        return Health(str(name).removeprefix(_SERVICE), str(namespace), str(node), int(rest[0]))
    return Identity(str(name), str(namespace), str(node))


@dataclass(frozen=True, slots=True)
class Meeting:
    """The two ends of a connection or a datagram, addresses as text: the pod's, and the client's as the pod saw it."""

    protocol: str
    address: str
    port: int
    client: str
    client_port: int


def line(identity: Identity | Health, meeting: Meeting) -> bytes:
    """The answer to whoever does not speak HTTP."""
    if isinstance(identity, Health):
        return encode_answer(Response(400, b"this port tells of the health of a Service, over HTTP\n"))
    return " ".join(f"{name}={value}" for name, value in _said(identity, meeting).items()).encode() + b"\n"


def datagram(identity: Identity | Health, meeting: Meeting, data: bytes) -> bytes | None:
    """The answer to a datagram; None to a line of ours: two responders would go on for ever."""
    return None if data.startswith(b"pod=") else line(identity, meeting)


class Conversation:
    """One connection. Whoever carries it calls `feed`, or `silence`; after an answer there is nothing more to say."""

    def __init__(self, identity: Identity | Health, meeting: Meeting) -> None:
        self._identity = identity
        self._meeting = meeting
        self._head = b""
        self._length = 0
        self._message: HttpMessage | None = None

    def feed(self, data: bytes, ended: bool) -> bytes | None:
        """What the client sent, and whether it has closed its side: the answer, once it is time for it."""
        self._length += len(data)
        if self._message is None:
            self._head += data
            if _REQUEST_LINE.match(self._head):
                self._message, data = HttpMessage(answer=False), self._head
            elif not ended and (not self._head or _REQUEST_BEGINS.match(self._head[:LONGEST])):
                return None if self._length <= LONGEST else self.silence()
            else:
                return self.silence()
        message = self._message
        message.feed(data, ended)
        if message.done:
            method, target = message.start.split(" ")[:2]
            if isinstance(self._identity, Health):
                return encode_answer(self._identity.answer(), head=method == "HEAD")
            said = _said(self._identity, self._meeting) | {"method": method, "path": target}
            body = json.dumps(said).encode() + b"\n"
            return encode_answer(Response(200, body, {"Content-Type": "application/json"}), head=method == "HEAD")
        if message.error is not None:
            return encode_answer(Response(400, message.error.encode() + b"\n"))
        if self._length > LONGEST:
            return encode_answer(Response(413, f"a request has {LONGEST} bytes at most here\n".encode()))
        return None

    def silence(self) -> bytes | None:
        """The client has been silent for a while: its line, or None to one in the middle of an HTTP request."""
        return line(self._identity, self._meeting) if self._message is None else None


def _said(identity: Identity, meeting: Meeting) -> dict[str, str | int]:
    return {
        **asdict(identity),
        "address": meeting.address,
        "port": meeting.port,
        "protocol": meeting.protocol,
        "client": meeting.client,
        "client_port": meeting.client_port,
    }
