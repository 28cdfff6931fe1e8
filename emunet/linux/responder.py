"""The responder of a lab: one process that answers on every declared port that no program serves.

A socket stays in the network where it was opened, so one process may listen in a thousand pods
(a Python process for each would be 11 MB). Control opens the sockets, through the keeper, and hands
them over; here they are answered as `elements.responder` says.

It reads what pods send and so trusts nobody: it has no capability, sees no file, and its own network
is empty.

Rule of this file: one thread that waits only for its poll; what a client can make it hold is bounded.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import struct
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import NoReturn

from emunet.elements.responder import (
    CONVERSATION_SECONDS,
    SILENCE_SECONDS,
    Conversation,
    Health,
    Identity,
    Meeting,
    Row,
    datagram,
    of_row,
    to_row,
)
from emunet.linux import messages, syscalls

CONVERSATIONS_MAX = 1024
"""Connections at once; one more, and the oldest ends."""

_DATAGRAMS = 64
_ACCEPTED = 64
_READ_SIZE = 1 << 16
_INFO_SIZE = socket.CMSG_SPACE(64)
_IP_PKTINFO = 8  # linux/in.h; socket.IP_PKTINFO came with Python 3.14
_LINE_MAX = 4096


@dataclass(slots=True, eq=False)
class _Listening:
    """A declared port of a sandbox."""

    sandbox: str
    identity: Identity | Health
    protocol: str
    port: int
    socket: socket.socket


@dataclass(slots=True, eq=False)
class _Talk:
    """A connection. `rest` is of the answer, not yet taken by the kernel; `answered`: nothing more will be said."""

    sandbox: str
    socket: socket.socket
    conversation: Conversation
    began: float
    rest: bytes = b""
    answered: bool = False


@dataclass(slots=True)
class Responder:
    """The sockets of all pods, and one loop."""

    control: socket.socket
    _epoll: select.epoll = field(default_factory=select.epoll)
    _listening: dict[int, _Listening] = field(default_factory=dict)
    _talks: dict[int, _Talk] = field(default_factory=dict)
    _silences: deque[_Talk] = field(default_factory=deque)
    _paused: set[str] = field(default_factory=set)

    def run(self) -> None:
        """Answer until control lets go."""
        self._epoll.register(self.control, select.EPOLLIN)
        while True:
            for descriptor, events in self._epoll.poll(self._patience()):
                if descriptor == self.control.fileno():
                    message = messages.receive(self.control)
                    if message is None:
                        return
                    self._told(message)
                elif (listening := self._listening.get(descriptor)) is not None:
                    self._accept(listening) if listening.protocol == "TCP" else self._answer(listening)
                elif (talk := self._talks.get(descriptor)) is not None:
                    self._go_on(talk, events)
            self._look_at_clock()

    # What control says

    def _told(self, message: messages.Message) -> None:
        body = message.body
        match body["do"]:
            case "open":
                if not body["more"]:
                    self._close(body["sandbox"], body["identity"][:2])
                identity = of_row(body["identity"])
                for (protocol, port), descriptor in zip(body["ports"], message.descriptors, strict=True):
                    opened = _Listening(body["sandbox"], identity, protocol, port, socket.socket(fileno=descriptor))
                    opened.socket.setblocking(False)
                    self._listening[descriptor] = opened
                    self._watch(opened)
            case "close":
                self._close(body["sandbox"], body.get("pod"))
            case "say":
                for listening in self._of(body["sandbox"], body["identity"][:2]):
                    listening.identity = of_row(body["identity"])
            case "pause":
                self._pause(body["sandbox"], body["on"])

    def _pause(self, sandbox: str, on: bool) -> None:
        if on is (sandbox in self._paused):
            return
        (self._paused.add if on else self._paused.discard)(sandbox)
        everything: list[_Listening | _Talk] = [*self._listening.values(), *self._talks.values()]
        for one in everything:
            if one.sandbox == sandbox and on:
                self._epoll.unregister(one.socket)
            elif one.sandbox == sandbox:
                self._watch(one)

    def _watch(self, one: _Listening | _Talk) -> None:
        if one.sandbox not in self._paused:
            self._epoll.register(one.socket, select.EPOLLIN)

    def _of(self, sandbox: str, whose: Row | None) -> list[_Listening]:
        """The ports of a sandbox, or those of one among several who live there."""
        there = [one for one in self._listening.values() if one.sandbox == sandbox]
        return [one for one in there if whose in (None, to_row(one.identity)[:2])]

    def _close(self, sandbox: str, pod: Row | None) -> None:
        """Answer no more in a sandbox, or (where several live in their host's network) for one of them."""
        for listening in self._of(sandbox, pod):
            del self._listening[listening.socket.fileno()]
            listening.socket.close()  # which takes it out of the epoll set too
        if pod is None:
            self._paused.discard(sandbox)
            for talk in [one for one in self._talks.values() if one.sandbox == sandbox]:
                self._end(talk)

    # Clients

    def _accept(self, listening: _Listening) -> None:
        for _ in range(_ACCEPTED):
            try:
                accepted, client = listening.socket.accept()
            except BlockingIOError:
                return
            except OSError:  # the client has gone again, or this process may open no more: then one has to end
                if self._talks:
                    self._end(next(iter(self._talks.values())))
                return
            if len(self._talks) >= CONVERSATIONS_MAX:
                self._end(next(iter(self._talks.values())))
            accepted.setblocking(False)
            meeting = Meeting("TCP", _plain(accepted.getsockname()[0]), listening.port, _plain(client[0]), client[1])
            talk = _Talk(listening.sandbox, accepted, Conversation(listening.identity, meeting), time.monotonic())
            self._talks[accepted.fileno()] = talk
            self._silences.append(talk)
            self._watch(talk)

    def _go_on(self, talk: _Talk, events: int) -> None:
        try:
            if talk.rest:
                self._send(talk)
            if not events & ~select.EPOLLOUT:
                return
            data = talk.socket.recv(_READ_SIZE)
        except BlockingIOError:
            return
        except OSError:  # it was reset
            self._end(talk)
            return
        if not talk.answered:
            self._say(talk, talk.conversation.feed(data, not data))
        if not data and talk.answered and not talk.rest:
            self._end(talk)

    def _say(self, talk: _Talk, answer: bytes | None) -> None:
        if answer is not None:
            talk.answered, talk.rest = True, answer
            self._send(talk)

    def _send(self, talk: _Talk) -> None:
        """Send what the kernel takes; after the last of it, say that no more will come."""
        try:
            talk.rest = talk.rest[talk.socket.send(talk.rest) :]
        except BlockingIOError:
            pass
        except OSError:
            self._end(talk)
            return
        if not talk.rest:
            self._epoll.modify(talk.socket, select.EPOLLIN)
            try:
                talk.socket.shutdown(socket.SHUT_WR)
            except OSError:
                self._end(talk)
        else:
            self._epoll.modify(talk.socket, select.EPOLLIN | select.EPOLLOUT)

    def _end(self, talk: _Talk) -> None:
        if self._talks.pop(talk.socket.fileno(), None) is not None:
            talk.socket.close()

    def _answer(self, listening: _Listening) -> None:
        """Answer datagrams, from the address that each came to."""
        for _ in range(_DATAGRAMS):
            try:
                data, ancillary, _, client = listening.socket.recvmsg(_READ_SIZE, _INFO_SIZE)
            except OSError:  # no more; or word of an answer that did not arrive
                return
            address, source = destination_of(ancillary)
            meeting = Meeting("UDP", address, listening.port, _plain(client[0]), client[1])
            answer = datagram(listening.identity, meeting, data)
            if answer is not None:
                try:
                    listening.socket.sendmsg([answer], source, 0, client)
                except OSError:  # there is no way back, or no room: a datagram may get lost
                    continue

    # Time

    def _patience(self) -> float | None:
        """Seconds until somebody has been silent for too long."""
        now = time.monotonic()
        waits = [one.began + SILENCE_SECONDS - now for one in list(self._silences)[:1]]
        waits += [one.began + CONVERSATION_SECONDS - now for one in list(self._talks.values())[:1]]
        return max(0.0, min(waits)) if waits else None

    def _look_at_clock(self) -> None:
        now = time.monotonic()
        while self._silences and self._silences[0].began + SILENCE_SECONDS <= now:
            talk = self._silences.popleft()
            if not talk.answered and talk.sandbox not in self._paused and talk.socket.fileno() in self._talks:
                self._say(talk, talk.conversation.silence())
        while self._talks and (first := next(iter(self._talks.values()))).began + CONVERSATION_SECONDS <= now:
            self._end(first)


def listen(opened: socket.socket, protocol: str, port: int) -> None:
    """Make a socket that was just opened in a sandbox one that `Responder` can answer on. OSError where it is taken."""
    six = opened.family == socket.AF_INET6
    if six:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    if protocol == "TCP":
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(("::" if six else "0.0.0.0", port))
        opened.listen(socket.SOMAXCONN)
        return
    # An IPv6 socket tells, and takes, the address of IPv4 packets in IPv4's own form.
    opened.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    if six:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    opened.bind(("::" if six else "0.0.0.0", port))


def destination_of(ancillary: list[tuple[int, int, bytes]]) -> tuple[str, list[tuple[int, int, bytes]]]:
    """The address that a datagram came to, and what makes the answer leave from it."""
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
            _, local, destination = struct.unpack("I4s4s", data)
            return socket.inet_ntoa(destination), [(level, kind, struct.pack("I4s4s", 0, local, bytes(4)))]
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            address = _plain(socket.inet_ntop(socket.AF_INET6, data[:16]))
            if "." not in address:
                return address, [(level, kind, data)]
    return "", []


def _plain(address: str) -> str:
    """An address as people write it: an IPv4 one without the ::ffff: of an IPv6 socket."""
    return address.removeprefix("::ffff:") if "." in address else address


def main() -> NoReturn:
    """Serve the lab whose control process is at the other end of standard input."""
    control = socket.socket(fileno=os.dup(0))
    control.set_inheritable(False)
    syscalls.set_process_name("emunet-respond")
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(ignored, signal.SIG_IGN)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # All code is loaded by now. What is left to see is an empty folder that cannot be written.
    flags = syscalls.MS_RDONLY | syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
    syscalls.mount("emunet-nothing", "/tmp", "tmpfs", flags, "size=4k")
    os.chroot("/tmp")
    os.chdir("/")
    syscalls.clear_capabilities()
    Responder(control).run()
    sys.exit()
