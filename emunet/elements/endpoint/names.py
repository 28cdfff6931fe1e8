"""DNS on an endpoint: a name server on port 53, and a stub that looks names up (`elements.resolver`, `packet.dns`).

The stub does what glibc's does with /etc/resolv.conf (resolv.conf(5)): a name with fewer dots than `ndots` is tried
with each domain of the search list before it is tried as it is, one with a dot at its end only so. Each server
has five seconds, twice; an answer that was cut is asked for again over TCP.

Rule of this file: what others send never raises anything, and all that waits has an end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from emunet.elements.endpoint.network import SECOND, stable_hash
from emunet.elements.endpoint.stack import Endpoint
from emunet.elements.endpoint.tcp import Connection, Listener, State
from emunet.elements.endpoint.udp import Datagram, UdpSocket
from emunet.elements.resolver import reply
from emunet.elements.zone import Zone
from emunet.packet.address import format_ip
from emunet.packet.dns import PORT, Code, Message, Name, Record, check_name, folded, name_of, question, text_of
from emunet.packet.malformed import Malformed

TIMEOUT = 5 * SECOND
ATTEMPTS = 2
"""The defaults of resolv.conf(5)."""

PATIENCE = 10 * SECOND
"""For how long a client's TCP connection may be quiet."""


class NameServer:
    """Answers on port 53, over UDP and TCP, from whatever zone there is at that moment. OSError where it is taken."""

    def __init__(self, endpoint: Endpoint, zone: Callable[[], Zone]) -> None:
        self.endpoint = endpoint
        self._zone = zone
        self._socket: UdpSocket = endpoint.udp_bind(PORT, handler=self._datagram)
        self._listener: Listener = endpoint.listen(PORT, self._begin)

    def close(self, now: int) -> list[bytes]:
        """Answer no more."""
        self._socket.close()
        return self._listener.close(now)

    def _datagram(self, socket: UdpSocket, received: Datagram) -> list[bytes]:
        answer = reply(self._zone(), received.data).data
        if answer is None:
            return []
        return socket.send(answer, received.source, received.source_port, received.time, source=received.destination)

    def _begin(self, connection: Connection, now: int) -> list[bytes]:
        stream = _Stream(self.endpoint, self._zone, connection)
        connection.handler = stream.handle
        return stream.handle(connection, now)


class _Stream:
    """A client's TCP connection: messages, each behind its length."""

    def __init__(self, endpoint: Endpoint, zone: Callable[[], Zone], connection: Connection) -> None:
        self.due: int | None = None
        self.queued: int | None = None
        self._endpoint = endpoint
        self._zone = zone
        self._connection = connection
        self._data = bytearray()

    def handle(self, connection: Connection, now: int) -> list[bytes]:
        """The connection's handler."""
        data, frames = connection.receive(now)
        if connection.state is State.CLOSED:
            self.due = None
            return frames
        self.due = now + PATIENCE
        self._endpoint.schedule(self)
        for message in _messages(self._data, data):
            answer = reply(self._zone(), message, stream=True).data
            if answer is not None and connection.state in (State.ESTABLISHED, State.CLOSE_WAIT):
                frames += connection.send(len(answer).to_bytes(2, "big") + answer, now)
        if connection.ended:
            frames += connection.close(now)
        return frames

    def wake(self, now: int) -> list[bytes]:
        """It has been quiet for too long."""
        self.due = None
        return self._connection.abort(now)


def _messages(waiting: bytearray, data: bytes) -> list[bytes]:
    """The messages that are whole by now; the rest waits on."""
    waiting += data
    found = []
    while len(waiting) >= 2 and len(waiting) >= (size := 2 + int.from_bytes(waiting[:2], "big")):
        found.append(bytes(waiting[2:size]))
        del waiting[:size]
    return found


@dataclass(frozen=True, slots=True)
class ResolverConfig:
    """What /etc/resolv.conf says: the servers to ask, the domains to try, and from how many dots on a name is whole."""

    servers: tuple[bytes, ...] = ()
    searches: tuple[str, ...] = ()
    ndots: int = 1

    def candidates(self, text: str) -> list[Name]:
        """The names to ask for, in order. ValueError where the text is no name."""
        name = name_of(text)
        if text.endswith("."):
            return [name]
        tried = [(*name, *name_of(search)) for search in self.searches]
        whole_first = len(name) - 1 >= self.ndots
        ordered = [name, *tried] if whole_first else [*tried, name]
        return [one for one in ordered if _is_name(one)]


def _is_name(name: Name) -> bool:
    try:
        check_name(name)
    except ValueError:  # too long with that domain behind it
        return False
    return True


@dataclass(eq=False)
class Lookup:
    """A name that is being looked up, or what came of it. `done` once there are `records`, or an `error`: a sentence.

    `tried` are the names that were asked for, each with how that was answered.
    """

    endpoint: Endpoint
    config: ResolverConfig
    text: str
    type: int
    records: tuple[Record, ...] = ()
    error: str | None = None
    done: bool = False
    tried: list[tuple[str, str]] = field(default_factory=list)
    due: int | None = None
    queued: int | None = None
    _names: list[Name] = field(default_factory=list)
    _asked: int = 0
    _id: int = 0
    _socket: UdpSocket | None = None
    _server: bytes = b""
    _data: bytearray = field(default_factory=bytearray)

    def begin(self, now: int) -> list[bytes]:
        """The first question."""
        try:
            self._names = self.config.candidates(self.text)
        except ValueError as error:
            return self._end(str(error))
        if not self.config.servers:
            return self._end(f"{self.text}: this pod knows no name server")
        self._socket = self.endpoint.udp_bind(0, handler=self._datagram)
        return self._ask(now)

    def wake(self, now: int) -> list[bytes]:
        """Nobody has answered: the next server, or the same again."""
        self._asked += 1
        if self._asked >= ATTEMPTS * len(self.config.servers):
            servers = " and ".join(format_ip(server) for server in self.config.servers)
            return self._end(f"{self.text}: no answer from {servers} within {TIMEOUT // SECOND} s, {ATTEMPTS} times")
        return self._ask(now)

    def _ask(self, now: int) -> list[bytes]:
        assert self._socket is not None
        self._server = self.config.servers[self._asked % len(self.config.servers)]
        seed = stable_hash(self.endpoint.name, self._socket.port, len(self.tried), self._asked)
        query = question(seed & 0xFFFF, self._names[0], self.type)
        self._id = query.id
        self.due = now + TIMEOUT
        self.endpoint.schedule(self)
        return self._socket.send(query.pack(), self._server, PORT, now)

    def _datagram(self, socket: UdpSocket, received: Datagram) -> list[bytes]:
        message = self._read(received.data)
        if message is None or (received.source, received.source_port) != (self._server, PORT):
            return []
        if not message.truncated:
            return self._take(message, received.time)
        self._data.clear()
        _, frames = self.endpoint.connect(self._server, PORT, received.time, handler=self._stream)
        return frames

    def _stream(self, connection: Connection, now: int) -> list[bytes]:
        """The same over TCP. What goes wrong is noticed by the timer."""
        frames: list[bytes] = []
        if not self.done and connection.state is State.ESTABLISHED and not connection.unsent and not self._data:
            query = question(self._id, self._names[0], self.type).pack()
            frames += connection.send(len(query).to_bytes(2, "big") + query, now)
        data, update = connection.receive(now)
        frames += update
        for answer in _messages(self._data, data):
            message = self._read(answer)
            if message is not None:
                frames += connection.close(now)
                frames += self._take(message, now)
                break
        return frames

    def _read(self, data: bytes) -> Message | None:
        """An answer to what was asked, or None."""
        try:
            message = Message.parse(data)
        except Malformed:
            return None
        same = [(folded(one.name), one.type) for one in message.questions] == [(folded(self._names[0]), self.type)]
        return message if same and message.response and message.id == self._id and not self.done else None

    def _take(self, message: Message, now: int) -> list[bytes]:
        name = self._names.pop(0)
        found = tuple(one for one in message.answers if one.type == self.type)
        code = Code(message.code).name if message.code in list(Code) else str(message.code)
        self.tried.append((text_of(name), "found" if found else "no such record" if code == "NOERROR" else code))
        if found:
            self.records = found
            return self._end(None)
        if not self._names:
            return self._end(f"{self.text} was not found: " + ", ".join(f"{one} {how}" for one, how in self.tried))
        self._asked = 0
        return self._ask(now)

    def _end(self, error: str | None) -> list[bytes]:
        self.error, self.done, self.due = error, True, None
        if self._socket is not None:
            self._socket.close()
        return []


def look_up(
    endpoint: Endpoint, config: ResolverConfig, text: str, type: int, now: int
) -> tuple[Lookup, list[bytes]]:  # fmt: skip
    """Begin to look a name up; the record that fills as answers come, and the frames to send."""
    record = Lookup(endpoint, config, text, type)
    return record, record.begin(now)
