"""A name server in a pod: a process in the pod's network that answers from what control tells it.

    control --- a line for each change of names (`elements.zone.encode_update`) --> this process, by standard input
            <-- "ready", once its sockets are open

It is one thread with its own two sockets on port 53. What a client can make it hold is bounded. What is outside of
its zone it asks other servers, if the topology names some: over UDP or TCP as it was asked itself, one after the
other, and from within its pod, so that nothing is reached that the pod does not reach.

It reads what pods send, so it trusts nobody: once it runs it has no capability and sees no file.

Rule of this file: it waits only for its poll, and `elements.resolver` decides every answer.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from emunet.elements.resolver import Reply, failed, joined, reply
from emunet.elements.zone import Zone, apply_update
from emunet.linux import syscalls
from emunet.linux.responder import destination_of, listen
from emunet.packet.address import format_ip
from emunet.packet.dns import HEADER_LENGTH, MESSAGE_LIMIT, PORT
from emunet.packet.malformed import Malformed

STREAMS_MAX = 256
"""Connections at once; one more, and the one that has been quiet for longest ends."""

IDLE_SECONDS = 30.0
"""For how long a connection may be quiet (RFC 7766 6.2.3 leaves it to the server)."""

PATIENCE_SECONDS = 2.0
"""How long another server may take before the next one is asked."""

ASKED_MAX = 512
"""Questions that other servers have not answered yet; with one more, the oldest is given up."""

_DATAGRAMS = 64
_READ_SIZE = 1 << 16
_ANCILLARY = socket.CMSG_SPACE(64)

Send = Callable[[bytes], None]


class Resolver:
    """The sockets, and one loop."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._lines = bytearray()
        self._zone: Zone | None = None
        self._selector = selectors.DefaultSelector()
        self._streams: dict[_Stream, None] = {}
        self._asked: dict[_Asked, None] = {}
        control.setblocking(False)
        self._watch(control, self._told)

    def open(self) -> None:
        """Listen on port 53. OSError where something else does."""
        for protocol, kind, take in (
            ("UDP", socket.SOCK_DGRAM, self._datagrams),
            ("TCP", socket.SOCK_STREAM, self._connections),
        ):
            try:
                opened = socket.socket(socket.AF_INET6, kind)
            except OSError:  # a machine without IPv6
                opened = socket.socket(socket.AF_INET, kind)
            listen(opened, protocol, PORT)
            opened.setblocking(False)
            self._watch(opened, lambda opened=opened, take=take: take(opened))  # type: ignore[misc]

    def run(self) -> NoReturn:
        """Answer until control lets go."""
        while True:
            for key, _ in self._selector.select(self._patience()):
                key.data()
            self._look_at_clock()

    # What control says

    def _told(self) -> None:
        try:
            data = self._control.recv(_READ_SIZE)
        except BlockingIOError:
            return
        if not data:
            sys.exit()
        self._lines += data
        if b"\n" not in data:
            return
        *lines, rest = self._lines.split(b"\n")
        self._lines = rest
        for line in lines:
            begins = self._zone is None
            self._zone = apply_update(self._zone, bytes(line))
            if begins:
                self._control.send(b"ready\n")

    # What clients ask

    def _datagrams(self, opened: socket.socket) -> None:
        for _ in range(_DATAGRAMS):
            try:
                data, ancillary, _, client = opened.recvmsg(_READ_SIZE, _ANCILLARY)
            except OSError:  # no more; or word of an answer that did not arrive
                return
            _, source = destination_of(ancillary)

            def send(answer: bytes, client: Any = client, source: list[tuple[int, int, bytes]] = source) -> None:
                try:
                    opened.sendmsg([answer], source, 0, client)
                except OSError:  # there is no way to the client, or no room: it will ask again
                    return

            self.answer(data, send, stream=False)

    def _connections(self, listening: socket.socket) -> None:
        try:
            accepted, _ = listening.accept()
        except OSError:  # the client has gone again
            return
        if len(self._streams) >= STREAMS_MAX:
            next(iter(self._streams)).end()
        self._streams[_Stream(self, accepted)] = None

    def answer(self, data: bytes, send: Send, *, stream: bool) -> None:
        """Answer a message, now or when another server has."""
        if self._zone is None:  # nothing is known yet: a client that gets no answer asks again
            return
        found = reply(self._zone, data, stream=stream)
        if found.data is None:
            return
        if found.outside and self._zone.authority.forward:
            if len(self._asked) >= ASKED_MAX:
                next(iter(self._asked)).give_up()
            asked = _Asked(self, found, send, stream, list(self._zone.authority.forward))
            self._asked[asked] = None
            asked.next_server()
            return
        send(found.data)

    # The loop's own

    def _watch(self, opened: socket.socket, what: Callable[[], None], events: int = selectors.EVENT_READ) -> None:
        self._selector.register(opened, events, what)

    def _patience(self) -> float | None:
        times = [next(iter(self._streams)).quiet_until] if self._streams else []
        if self._asked:
            times.append(min(asked.deadline for asked in self._asked))
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _look_at_clock(self) -> None:
        now = time.monotonic()
        while self._streams and (first := next(iter(self._streams))).quiet_until <= now:
            first.end()
        for asked in [asked for asked in self._asked if asked.deadline <= now]:
            asked.next_server()


class _Talk:
    """Messages of two bytes of length and as many more, over TCP (RFC 1035 4.2.2)."""

    def __init__(self, resolver: Resolver, opened: socket.socket) -> None:
        self.resolver = resolver
        self.socket = opened
        self._in = bytearray()
        self._out = bytearray()
        self._events = selectors.EVENT_READ
        opened.setblocking(False)
        resolver._watch(opened, self._ready, self._events)

    def put(self, message: bytes) -> None:
        """Send a message, now or when there is room."""
        if self.socket.fileno() >= 0:
            self._out += len(message).to_bytes(2, "big") + message
            self._want(selectors.EVENT_READ | selectors.EVENT_WRITE)

    def take(self, message: bytes) -> None:
        """A message has come."""
        raise NotImplementedError

    def end(self) -> None:
        """Nothing more will come, or is waited for."""
        if self.socket.fileno() >= 0:
            self.resolver._selector.unregister(self.socket)
            self.socket.close()

    def _want(self, events: int) -> None:
        if events != self._events:
            self._events = events
            self.resolver._selector.modify(self.socket, events, self._ready)

    def _ready(self) -> None:
        try:
            if self._out:
                del self._out[: self.socket.send(self._out)]
                if not self._out:
                    self._want(selectors.EVENT_READ)
            data = self.socket.recv(_READ_SIZE)
        except BlockingIOError:
            return
        except OSError:  # refused, reset
            self.end()
            return
        if not data:
            self.end()
            return
        self._in += data
        while len(self._in) >= 2 and len(self._in) >= (size := 2 + int.from_bytes(self._in[:2], "big")):
            message = bytes(self._in[2:size])
            del self._in[:size]
            self.take(message)
            if self.socket.fileno() < 0:
                return


class _Stream(_Talk):
    """A client's connection. One that does not read its answers asks no more: nothing piles up for it."""

    def __init__(self, resolver: Resolver, opened: socket.socket) -> None:
        super().__init__(resolver, opened)
        self.quiet_until = time.monotonic() + IDLE_SECONDS

    def take(self, message: bytes) -> None:
        if len(self._out) > MESSAGE_LIMIT:
            self.end()
            return
        self.quiet_until = time.monotonic() + IDLE_SECONDS
        self.resolver._streams.pop(self, None)
        self.resolver._streams[self] = None
        self.resolver.answer(message, self.put, stream=True)

    def end(self) -> None:
        self.resolver._streams.pop(self, None)
        super().end()


class _Upstream(_Talk):
    """A connection to another server, for one question."""

    def __init__(self, resolver: Resolver, opened: socket.socket, asked: _Asked) -> None:
        super().__init__(resolver, opened)
        self._asked = asked

    def take(self, message: bytes) -> None:
        self._asked.answered(message)

    def end(self) -> None:
        super().end()
        self._asked.deadline = min(self._asked.deadline, time.monotonic())


@dataclass(eq=False)
class _Asked:
    """A question on its way to other servers."""

    resolver: Resolver
    reply: Reply
    send: Send
    stream: bool
    servers: list[bytes]
    deadline: float = 0.0
    _socket: socket.socket | None = None
    _talk: _Upstream | None = None

    def next_server(self) -> None:
        """Ask the next server; without one, say that there is no answer."""
        self._let_go()
        self.deadline = time.monotonic() + PATIENCE_SECONDS
        if not self.servers:
            self.give_up()
            return
        server = self.servers.pop(0)
        family = socket.AF_INET if len(server) == 4 else socket.AF_INET6
        opened = socket.socket(family, socket.SOCK_STREAM if self.stream else socket.SOCK_DGRAM)
        opened.setblocking(False)
        try:
            if self.stream:
                opened.connect_ex((format_ip(server), PORT))
                self._talk = _Upstream(self.resolver, opened, self)
                self._talk.put(self.reply.ask)
            else:
                opened.connect((format_ip(server), PORT))
                opened.send(self.reply.ask)
                self._socket = opened
                self.resolver._watch(opened, self._ready)
        except OSError:  # there is no way to it
            if self._socket is None:
                opened.close()
            self.deadline = time.monotonic()

    def answered(self, message: bytes) -> None:
        """An answer has come. One of another number, or of another question, is not to this one."""
        query = self.reply.ask
        # The question's name is not compressed, since nothing is before it: it ends at its zero.
        question = query[HEADER_LENGTH : query.index(b"\0", HEADER_LENGTH) + 5].lower()
        same = message[:2] == query[:2] and message[HEADER_LENGTH:].lower().startswith(question)
        if not same or message[2:3] < b"\x80":
            return
        try:
            self._finish(joined(self.reply, message, stream=self.stream))
        except Malformed:  # the next one may do better
            self.deadline = time.monotonic()

    def give_up(self) -> None:
        """There is no answer."""
        if self.reply.own is not None and self.reply.data is not None:
            self._finish(self.reply.data)
            return
        self._finish(failed(self.reply.ask, "none of the name servers that spec.dns.forward names has answered"))

    def _ready(self) -> None:
        if self._socket is None:  # what the same poll brought before has ended it
            return
        try:
            message = self._socket.recv(_READ_SIZE)
        except BlockingIOError:
            return
        except OSError:  # refused: the next one
            self.deadline = time.monotonic()
            return
        self.answered(message)

    def _finish(self, message: bytes) -> None:
        self.resolver._asked.pop(self, None)
        self._let_go()
        self.send(message)

    def _let_go(self) -> None:
        if self._socket is not None:
            self.resolver._selector.unregister(self._socket)
            self._socket.close()
            self._socket = None
        if self._talk is not None:
            talk, self._talk = self._talk, None
            talk.end()


def confine() -> None:
    """Give up what this process has beyond its sockets. What is left to see is an empty folder."""
    flags = syscalls.MS_RDONLY | syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
    syscalls.mount("emunet-nothing", "/tmp", "tmpfs", flags, "size=4k")
    os.chroot("/tmp")
    os.chdir("/")
    syscalls.clear_capabilities()


def main() -> NoReturn:
    """Be the name server of a pod, told by the control process at the other end of standard input."""
    control = socket.socket(fileno=os.dup(0))
    control.set_inheritable(False)
    syscalls.set_process_name("emunet-resolver")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit())  # as PID 1 it would not be ended by it
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(ignored, signal.SIG_IGN)
    resolver = Resolver(control)
    try:
        resolver.open()
    except OSError as error:
        sys.exit(f"port {PORT} cannot be served here: {error.strerror}")
    confine()
    resolver.run()
