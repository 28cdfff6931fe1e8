"""The client's end of the frame channel: watch ports of a running lab, and let frames in.

Rule of this file: the standard library and formats only, so that a command that uses it
starts at once. What a person can do something about raises FrameChannelError.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress
from types import TracebackType

from emunet.daemon.frame_format import (
    INJECT_BATCH,
    MESSAGE_MAX,
    MESSAGE_SIZE,
    NOTICE,
    Answer,
    FrameRecord,
    PortInfo,
    Request,
    pack_injection,
    unpack_records,
)

_ANSWER_SECONDS = 10.0


class FrameChannelError(Exception):
    """The lab cannot be watched as asked: a sentence."""


class FrameChannel:
    """A connection to the plane process of a lab. `ports` tells about those that were asked for, in that order.

    For `run` and `vxlan_ports` see `Answer`.
    """

    def __init__(self, path: str | os.PathLike[str], request: Request) -> None:
        """Connect to `frames.sock` and have the request answered. FrameChannelError where that is refused."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._buffer = memoryview(bytearray(MESSAGE_MAX))
        self.run = ""
        self.vxlan_ports: tuple[int, ...] = ()
        try:
            self.ports = self._open(os.fspath(path), request)
        except BaseException:
            self._socket.close()
            raise

    @classmethod
    def connect(
        cls,
        path: str | os.PathLike[str],
        ports: Iterable[str],
        *,
        watch: bool = True,
        sent: bool = True,
        inject: bool = False,
        single: bool = False,
        raw: bool = False,
    ) -> FrameChannel:
        """Connect for these ports (at least one); see `Request` for the rest."""
        wanted = tuple(ports)
        if not wanted:
            raise FrameChannelError("name a port, like web-1 or host1:eth0")
        return cls(path, Request(wanted, watch, sent, inject, single, raw))

    @classmethod
    def describe(cls, path: str | os.PathLike[str]) -> Answer:
        """What there is to know of the lab: every port, and the rest of an answer."""
        with cls(path, Request()) as channel:
            return Answer(channel.ports, False, channel.run, channel.vxlan_ports)

    @classmethod
    def list_ports(cls, path: str | os.PathLike[str]) -> tuple[PortInfo, ...]:
        """Every port of the lab."""
        return cls.describe(path).ports

    def _open(self, path: str, request: Request) -> tuple[PortInfo, ...]:
        try:
            self._socket.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            lab = os.path.basename(os.path.dirname(path))
            raise FrameChannelError(
                f"the lab {lab} is not running: `emunet labs` lists those that are, `emunet up` starts one"
            ) from None
        except OSError as error:
            raise FrameChannelError(f"cannot connect to {path}: {error.strerror or error}") from None
        self._socket.settimeout(_ANSWER_SECONDS)
        ports: list[PortInfo] = []
        more = True
        try:
            self._socket.send(request.encode())
            while more:
                message = self._socket.recv(MESSAGE_MAX)
                if not message:
                    raise FrameChannelError("the lab did not answer: it is ending, or too many watch it already")
                answer = Answer.decode(message)
                if isinstance(answer, str):
                    raise FrameChannelError(answer)
                ports += answer.ports
                self.run, self.vxlan_ports = answer.run, answer.vxlan_ports
                more = answer.more
        except TimeoutError:
            sentence = f"the lab did not answer for {_ANSWER_SECONDS:.0f} seconds: it is busy or stopped"
            raise FrameChannelError(sentence) from None
        except OSError as error:
            raise FrameChannelError(f"the lab ended before it answered: {error.strerror or error}") from None
        self._socket.settimeout(None)
        return tuple(ports)

    # What passes

    def fileno(self) -> int:
        """Readable when records have come, or the lab has ended."""
        return self._socket.fileno()

    def receive(self, timeout: float | None = None) -> list[FrameRecord]:
        """The records of the next message; none where none came in `timeout` seconds (None: wait).

        EOFError when the lab has ended.
        """
        return list(unpack_records(self.receive_message(timeout)))

    def receive_message(self, timeout: float | None = None) -> bytes:
        """As `receive`, not yet taken apart."""
        if timeout is not None and timeout > 0 and not self._readable(timeout):
            return b""
        try:
            length = self._socket.recv_into(self._buffer, 0, 0 if timeout is None else socket.MSG_DONTWAIT)
        except BlockingIOError:
            return b""
        except ConnectionError:
            length = 0
        if not length:
            raise EOFError("the lab has ended")
        return bytes(self._buffer[:length])

    def __iter__(self) -> Iterator[FrameRecord]:
        """All records until the lab ends."""
        while True:
            try:
                records = self.receive()
            except EOFError:
                return
            yield from records

    def _readable(self, timeout: float) -> bool:
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLIN)
        return bool(poll.poll(timeout * 1000))

    # What goes in

    def send(self, frame: bytes, port: int = 0) -> None:
        """Let a frame in, as if the stack behind the port had sent it. Waits while the lab has enough to do."""
        self._send(pack_injection(port, frame))

    def send_many(self, frames: Iterable[bytes], port: int = 0) -> None:
        """Let frames in, in order, many to a message."""
        self.send_by((port, frame) for frame in frames)

    def send_by(self, frames: Iterable[tuple[int, bytes]]) -> None:
        """As `send_many`, each by a port of its own."""
        batch: list[bytes] = []
        size = 0
        for port, frame in frames:
            if batch and (len(batch) == INJECT_BATCH or size + len(frame) > MESSAGE_SIZE):
                self._send(b"".join(batch))
                batch, size = [], 0
            batch.append(pack_injection(port, frame))
            size += len(batch[-1])
        if batch:
            self._send(b"".join(batch))

    def _send(self, message: bytes) -> None:
        try:
            self._socket.send(message)
        except OSError as error:
            raise FrameChannelError(f"the lab takes no more frames: {error.strerror or error}") from None

    # The end

    def end(self) -> None:
        """Watch no longer: what passed until now still comes, then EOFError."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def settle(self) -> list[str]:
        """End, and wait until all that was sent has been let in: what the lab had to say about it, in sentences."""
        self.end()
        return [comment for record in self if record.direction == NOTICE for comment in record.comments]

    def close(self) -> None:
        """Stop watching."""
        self._socket.close()

    def __enter__(self) -> FrameChannel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
