"""The responder on an endpoint: it answers on the ports that a pod in memory declares (`elements.responder`).

Rule of this file: it takes free ports only, and gives one up to whoever wants it for a program.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from emunet.elements.endpoint.network import SECOND
from emunet.elements.endpoint.stack import Endpoint
from emunet.elements.endpoint.tcp import Connection, Listener, State
from emunet.elements.endpoint.udp import Datagram, UdpSocket
from emunet.elements.responder import (
    CONVERSATION_SECONDS,
    SILENCE_SECONDS,
    Conversation,
    Health,
    Identity,
    Meeting,
    datagram,
)
from emunet.packet.address import format_ip


@dataclass(slots=True)
class Responder:
    """The declared ports of one pod on one endpoint: (protocol, port)."""

    endpoint: Endpoint
    identity: Identity | Health
    _open: dict[tuple[str, int], Listener | UdpSocket] = field(default_factory=dict)

    def open(self, ports: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
        """Answer on these ports from now on; those that are taken already are given back."""
        taken = []
        for protocol, port in ports:
            try:
                if protocol == "TCP":
                    self._open[protocol, port] = self.endpoint.listen(port, self._begin)
                elif protocol == "UDP":
                    self._open[protocol, port] = self.endpoint.udp_bind(port, handler=self._datagram)
            except OSError:
                taken.append((protocol, port))
        return taken

    def give_up(self, protocol: str, port: int, now: int) -> list[bytes]:
        """Answer there no more."""
        opened = self._open.pop((protocol, port), None)
        if isinstance(opened, UdpSocket):
            opened.close()
        elif opened is not None:
            return opened.close(now)
        return []

    def close(self, now: int) -> list[bytes]:
        """Answer nowhere any more."""
        return [frame for protocol, port in list(self._open) for frame in self.give_up(protocol, port, now)]

    def _begin(self, connection: Connection, now: int) -> list[bytes]:
        exchange = _Exchange(self.endpoint, connection, self.identity)
        connection.handler = exchange.handle
        return exchange.handle(connection, now)

    def _datagram(self, socket: UdpSocket, received: Datagram) -> list[bytes]:
        client = format_ip(received.source)
        meeting = Meeting("UDP", format_ip(received.destination), socket.port, client, received.source_port)
        answer = datagram(self.identity, meeting, received.data)
        if answer is None:
            return []
        return socket.send(answer, received.source, received.source_port, received.time, source=received.destination)


class _Exchange:
    """One connection: its conversation, and the timer that ends the client's silence (`network.Timed`)."""

    def __init__(self, endpoint: Endpoint, connection: Connection, identity: Identity | Health) -> None:
        self.due: int | None = None
        self.queued: int | None = None
        meeting = Meeting(
            "TCP", format_ip(connection.local), connection.local_port,
            format_ip(connection.remote), connection.remote_port,
        )  # fmt: skip
        self._conversation: Conversation | None = Conversation(identity, meeting)
        self._endpoint = endpoint
        self._connection = connection
        self._limit = 0

    def handle(self, connection: Connection, now: int) -> list[bytes]:
        """The connection's handler."""
        data, frames = connection.receive(now)
        if connection.state is State.CLOSED:
            self._conversation = self.due = None
        if self._conversation is None or connection.state is State.SYN_RECEIVED:
            return frames
        if not self._limit:
            self._limit, self.due = now + int(CONVERSATION_SECONDS * SECOND), now + int(SILENCE_SECONDS * SECOND)
            self._endpoint.schedule(self)
        return frames + self._say(self._conversation.feed(data, connection.ended), now)

    def wake(self, now: int) -> list[bytes]:
        """The client has been silent for a while, or has not come to the end of its request in all the time it had."""
        if self._conversation is None or now >= self._limit:
            self._conversation = self.due = None
            return self._connection.abort(now)
        self.due = self._limit
        return self._say(self._conversation.silence(), now)

    def _say(self, answer: bytes | None, now: int) -> list[bytes]:
        if answer is None:
            return []
        self._conversation = self.due = None
        return self._connection.send(answer, now) + self._connection.close(now)
