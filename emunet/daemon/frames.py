"""The frame server: the plane process hands out what passes its ports, and lets frames in.

`emunet capture`, the Scapy shell and `up --capture` connect to `frames.sock` and speak
`frame_format`. What a client is to get is gathered while frames are forwarded and sent
between two rounds of the loop, many records to a message, so that watching costs forwarding
little. A client that reads too slowly first fills its socket, then a bounded queue here, and
then loses frames: its own, counted, and told in its stream.

Rule of this file: nothing waits, nothing raises into the loop, and no client can slow another.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections import deque
from contextlib import suppress

from emunet.daemon.frame_format import (
    INBOUND,
    INJECT_BATCH,
    MESSAGE_MAX,
    MESSAGE_SIZE,
    NOTICE,
    OUTBOUND,
    Answer,
    PortInfo,
    Request,
    encode_refusal,
    pack_head,
    pack_plain_head,
    unpack_injections,
)
from emunet.daemon.port_facts import port_info, ports_of
from emunet.fabric.capture import Record
from emunet.fabric.names import UnknownPort
from emunet.lab.plane import Plane
from emunet.linux.loop import Loop

QUEUE_LIMIT = 64 << 20
"""Bytes that wait here in full messages for one client before it loses frames."""

_SOCKET_BUFFER = 4 << 20
_MESSAGES_A_TURN = 16
_PORTS_A_MESSAGE = 250
_CLIENTS_MAX = 1000


class FrameServer:
    """Takes clients on a listening socket and serves them from the loop.

    `epoch`: Unix time, in ns, of lab time 0. By default lab time now is the machine's time now;
    a lab whose clock is moved by hand begins at 1970.
    """

    def __init__(self, loop: Loop, plane: Plane, listener: socket.socket, epoch: int | None = None) -> None:
        self.loop = loop
        self.plane = plane
        self.epoch = time.time_ns() - loop.now() if epoch is None else epoch
        self.run = os.urandom(4).hex()
        self.clients: set[_Client] = set()
        self._listener = listener
        listener.setblocking(False)
        loop.add_reader(listener.fileno(), self._accept)

    def close(self) -> None:
        """Let all clients go, and take no more."""
        for client in list(self.clients):
            client.close()
        self.loop.remove_reader(self._listener.fileno())
        self._listener.close()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # gone again, or no descriptor left: the next one may fare better
            return
        if len(self.clients) >= _CLIENTS_MAX:
            connection.close()
            return
        self.clients.add(_Client(self, connection))


class _Client:
    """One connection: first its request, then what it is told and what it lets in."""

    def __init__(self, server: FrameServer, connection: socket.socket) -> None:
        self.server = server
        self.ports: list[str] = []
        self.sinks: list[_PortSink] = []
        self.single = False
        self.inject = False
        self.raw: set[str] = set()
        self.deaf = False
        self.ending = False
        self._connection = connection
        self._asked = False
        self._waiting: deque[bytes] = deque()
        self._filling = bytearray()
        self._queued = 0
        self._writing = False
        connection.setblocking(False)
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER)
        server.loop.add_reader(connection.fileno(), self._read)

    def end(self) -> None:
        """Watch no longer for it; it gets what waits for it, and is then forgotten."""
        self.ending = True
        self.server.loop.remove_reader(self._connection.fileno())
        self._watch_no_longer()
        self._want_to_write()

    def close(self) -> None:
        """Forget it."""
        if self._connection.fileno() < 0:
            return
        if not self.ending:
            self.end()
        self.server.loop.remove_writer(self._connection.fileno())
        self._connection.close()
        self._waiting.clear()
        self.server.clients.discard(self)

    def _watch_no_longer(self) -> None:
        self.deaf = True
        for sink in self.sinks:
            self.server.plane.untap([sink.port], sink)

    def _has_gone(self) -> None:
        """It has closed its end. What it had sent before is still to be read here, and let in."""
        if self.ending:
            self.close()
            return
        self._watch_no_longer()
        self.sinks.clear()  # their losses are nobody's
        self._waiting.clear()
        self._filling = bytearray()
        self._queued = 0
        self._end_flush()

    # What it is told

    def add(self, head: bytes, frame: bytes) -> bool:
        """Queue one record; False where there is no room."""
        if self._queued > QUEUE_LIMIT:
            return False
        filling = self._filling
        filling += head
        filling += frame
        if self.single or len(filling) >= MESSAGE_SIZE:
            self._complete()
        if not self._writing:
            self._want_to_write()
        return True

    def _complete(self) -> None:
        """The message that is being filled is as large as it gets."""
        self._waiting.append(bytes(self._filling))
        self._queued += len(self._filling)
        self._filling = bytearray()

    def _want_to_write(self) -> None:
        if not self._writing:
            self._writing = True
            self.server.loop.add_writer(self._connection.fileno(), self._flush)

    def _flush(self) -> None:
        waiting = self._waiting
        for _ in range(_MESSAGES_A_TURN):
            if not waiting:
                if not self._filling:
                    self._end_flush()
                    return
                self._complete()
            message = waiting[0]
            try:
                self._connection.send(message)
            except BlockingIOError:
                return
            except OSError:
                self._has_gone()
                return
            waiting.popleft()
            self._queued -= len(message)

    def _end_flush(self) -> None:
        for sink in self.sinks:
            if sink.lost:
                sink.tell_losses()
        if self._filling or self._waiting:
            return
        if self.ending:
            self.close()
        else:
            self._writing = False
            self.server.loop.remove_writer(self._connection.fileno())

    # What it says

    def _read(self) -> None:
        try:
            message = self._connection.recv(MESSAGE_MAX)
        except BlockingIOError:
            return
        except ConnectionResetError:  # it closed with something unread; Linux tells this once, before what it had sent
            self._has_gone()
            return
        except OSError:
            message = b""
        if not message:
            self.end()
        elif not self._asked:
            self._asked = True
            self._begin(message)
        elif self.inject:
            self._let_in(message)
        else:
            self.close()

    def _begin(self, message: bytes) -> None:
        plane = self.server.plane
        try:
            request = Request.decode(message)
            if not request.ports:
                self._answer(ports_of(plane.world.config))
                return
            self.ports = list(dict.fromkeys(request.ports))
            facts = [port_info(plane.world, port) for port in self.ports]
        except UnknownPort as error:
            self._refuse(str(error))
            return
        except (ValueError, TypeError, json.JSONDecodeError) as error:
            self._refuse(f"not a request for frames: {error}")
            return
        self.single = request.single
        self.inject = request.inject
        if request.raw:
            self.raw = {fact.name for fact in facts if fact.kind == "host"}
        self._answer(facts)
        if request.watch:
            for number, fact in enumerate(facts):
                # A raw socket is not told what its own machine sends: for a switch's port, where frames
                # are let in as if the cable brought them, those are the inbound ones.
                skip = None if request.sent else fact.kind == "switch"
                sink = _PortSink(self, fact.name, number, skip)
                self.sinks.append(sink)
                plane.tap([fact.name], sink)

    def _answer(self, facts: list[PortInfo]) -> None:
        hosts = self.server.plane.world.config.hosts
        tunnels = tuple(sorted({vxlan.port for host in hosts for vxlan in host.vxlans}))
        for start in range(0, max(1, len(facts)), _PORTS_A_MESSAGE):
            end = start + _PORTS_A_MESSAGE
            self._say(Answer(tuple(facts[start:end]), end < len(facts), self.server.run, tunnels).encode())

    def _refuse(self, sentence: str) -> None:
        with suppress(OSError):
            self._connection.send(encode_refusal(sentence))
        self.close()

    def _say(self, message: bytes) -> None:
        self._waiting.append(message)
        self._queued += len(message)
        self._want_to_write()

    def _let_in(self, message: bytes) -> None:
        server = self.server
        now = server.loop.now()
        try:
            for number, (port, frame) in enumerate(unpack_injections(message)):
                if number >= INJECT_BATCH or port >= len(self.ports):
                    raise ValueError("more frames in one message than agreed, or for a port that was not asked for")
                try:
                    world, name = server.plane.world, self.ports[port]
                    (world.transmit if name in self.raw else world.inject)(name, frame, now)
                except UnknownPort as error:
                    self.notice(port, str(error))
        except ValueError:
            self.close()

    def notice(self, port: int, sentence: str) -> None:
        """Tell it something about a port."""
        at = self.server.epoch + self.server.loop.now()
        self.add(pack_head(at, port, NOTICE, 0, (sentence,)), b"")


class _PortSink:
    """Takes the records of one port for one client."""

    def __init__(self, client: _Client, port: str, number: int, skip: bool | None) -> None:
        self.port = port
        self.number = number
        self.lost = 0
        self.skip = skip
        self._client = client
        self._epoch = client.server.epoch

    def write(self, record: Record) -> None:
        """Queue what passed, or count it as lost."""
        client = self._client
        if client.deaf:
            # The port had gone when the client went, and is back: there was nothing to untap then.
            client.server.plane.untap([self.port], self)
            return
        inbound = record.inbound
        if inbound is self.skip:
            return
        direction = INBOUND if inbound else OUTBOUND
        at, number, comments, identity = record.at + self._epoch, self.number, record.comments, record.identity
        for frame in record.frames:
            if comments:
                head = pack_head(at, number, direction, len(frame), comments, self.lost, identity)
            else:
                head = pack_plain_head(at, identity, self.lost, len(frame), number, direction, 0)
            if client.add(head, frame):
                self.lost = 0
            else:
                self.lost += 1

    def take(self, frame: bytes, inbound: bool, at: int, identity: int) -> None:
        """As `write`, of a frame that was a hit: one that is captured costs the plane 1.1 µs more, instead of 2.2."""
        client = self._client
        if client.ending:
            client.server.plane.untap([self.port], self)  # as in `write`
            return
        if inbound is self.skip:
            return
        direction = INBOUND if inbound else OUTBOUND
        head = pack_plain_head(at + self._epoch, identity, self.lost, len(frame), self.number, direction, 0)
        if client.add(head, frame):
            self.lost = 0
        else:
            self.lost += 1

    def tell_losses(self) -> None:
        """Say what was lost although no frame has come since."""
        server = self._client.server
        at = server.epoch + server.loop.now()
        if self._client.add(pack_head(at, self.number, NOTICE, 0, (), self.lost), b""):
            self.lost = 0
