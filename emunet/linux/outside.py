"""Wires that leave the lab: to a virtual machine, to passt, to another lab; by a Unix socket or by UDP.

On a Unix socket each frame has its length before it, 4 bytes, big endian: QEMU's `-netdev stream` and
passt speak so. In UDP a datagram is a frame, and so is a message of a socket that keeps them apart
(slirp4netns). While nobody is at the other end of a Unix socket the port has no carrier.

Rule of this file: nothing waits. What the other end does not take in time is refused, and so counted.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Sequence
from contextlib import suppress

from emunet.fabric.config import OutsideConfig
from emunet.linux.loop import Loop
from emunet.packet.address import InterfaceAddress
from emunet.packet.offload import Offload, split
from emunet.plane.table import NEVER

AGAIN = 1_000_000_000
"""Nanoseconds until a peer that was not there is looked for again."""

LONGEST = 65_550
"""Bytes of a frame: more is no frame, and the peer speaks another language."""

_BATCH = 64
_READ_SIZE = 1 << 18


class Outside:
    """One such wire; to the World it is the edge of a device's port. ValueError where its socket is not to be had.

    `given` is the socket of a wire of kind `given`; once its other end is closed the wire has no carrier until `plug`.
    """

    keeps_time = False

    def __init__(self, config: OutsideConfig, loop: Loop, given: socket.socket | None = None) -> None:
        self.config = config
        self.name = config.name
        self.device = config.device
        self.entry = config.port
        self.mac = b""
        self.addresses: tuple[InterfaceAddress, ...] = ()
        self.gateways: tuple[bytes, ...] = ()
        self.mtu = config.mtu
        self._loop = loop
        self._peer: socket.socket | None = None
        self._listener: socket.socket | None = None
        self._unread = bytearray()
        self._unsent = b""
        self._closed = False
        self._whole = config.kind == "udp" or (given is not None and given.type == socket.SOCK_SEQPACKET)
        """Whether a message is a frame."""
        try:
            if given is not None:
                self._begin(given)
            elif config.kind == "udp":
                self._begin(_datagrams(config))
            elif config.kind == "listen":
                self._listener = _listen(config.at)
                loop.add_reader(self._listener.fileno(), self._accept)
            else:
                self._connect(loop.now())
        except OSError as error:
            raise ValueError(f"{config.name}: {config.kind} {config.at}: {error.strerror or error}") from None

    def plug(self, given: socket.socket) -> None:
        """Have this for the other end from here on, in the place of the one before."""
        if self._peer is not None:
            self._end()
        self._begin(given)

    def close(self) -> None:
        """Let go of it."""
        self._closed = True
        if self._peer is not None:
            self._end()
        if self._listener is not None:
            self._loop.remove_reader(self._listener.fileno())
            self._listener.close()
            with suppress(OSError):
                os.unlink(self.config.at)

    # To the World

    def deliver(self, frame: bytes, offload: Offload | None, now: int) -> Sequence[bytes] | None:
        """Send a frame, cut into wire frames where it is larger than one; None where the peer does not take it."""
        if self._peer is None or self._unsent:
            return None
        pieces = [frame] if offload is None else split(frame, offload)
        try:
            if self._whole:
                for piece in pieces:
                    self._peer.send(piece)
                return ()
            data = b"".join(len(piece).to_bytes(4, "big") + piece for piece in pieces)
            self._unsent = data[self._peer.send(data) :]
        except OSError:  # no room; or nobody is there any more, which `_read` finds out
            return None
        if self._unsent:
            self._loop.add_writer(self._peer.fileno(), self._flush)
        return ()

    def due(self) -> int:
        """It has no timers."""
        return NEVER

    def wake(self, now: int) -> Sequence[bytes]:
        """Nothing."""
        return ()

    # From outside

    def _begin(self, peer: socket.socket) -> None:
        peer.setblocking(False)
        self._peer = peer
        self._loop.add_reader(peer.fileno(), self._read)
        self._loop.world.attach(self)

    def _end(self) -> None:
        assert self._peer is not None
        if self._unsent:
            self._loop.remove_writer(self._peer.fileno())
        self._loop.remove_reader(self._peer.fileno())
        self._peer.close()
        self._peer, self._unsent = None, b""
        self._unread.clear()
        self._loop.world.detach(self.name)

    def _connect(self, now: int) -> None:
        """Look for the peer, now and again until it is there."""
        if self._closed:
            return
        peer = socket.socket(socket.AF_UNIX)
        try:
            peer.connect(self.config.at)
        except OSError:  # not there yet, or not any more
            peer.close()
            self._loop.world.at(now + AGAIN, self._connect)
            return
        self._begin(peer)

    def _accept(self) -> None:
        assert self._listener is not None
        peer, _ = self._listener.accept()
        if self._peer is not None:  # one cable, one plug
            peer.close()
            return
        self._begin(peer)

    def _flush(self) -> None:
        assert self._peer is not None
        try:
            self._unsent = self._unsent[self._peer.send(self._unsent) :]
        except BlockingIOError:
            return
        except OSError:
            self._gone()
            return
        if not self._unsent:
            self._loop.remove_writer(self._peer.fileno())

    def _read(self) -> None:
        now = self._loop.now()
        if self._whole:
            self._read_datagrams(now)
            return
        assert self._peer is not None
        try:
            data = self._peer.recv(_READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._gone()
            return
        self._unread += data
        while len(self._unread) >= 4:
            length = int.from_bytes(self._unread[:4], "big")
            if length > LONGEST:
                self._gone()
                return
            if len(self._unread) < 4 + length:
                return
            frame = bytes(self._unread[4 : 4 + length])
            del self._unread[: 4 + length]
            self._loop.world.receive(self, frame, now)

    def _read_datagrams(self, now: int) -> None:
        assert self._peer is not None
        for _ in range(_BATCH):
            try:
                frame = self._peer.recv(LONGEST)
            except OSError:  # no more; or nobody was there for the one before
                return
            if not frame and self.config.kind != "udp":
                self._gone()
                return
            self._loop.world.receive(self, frame, now)

    def _gone(self) -> None:
        self._end()
        if self.config.kind == "unix":
            self._loop.world.at(self._loop.now() + AGAIN, self._connect)


def _datagrams(config: OutsideConfig) -> socket.socket:
    at, to = _endpoint(config.at), _endpoint(config.to)
    opened = socket.socket(socket.AF_INET6 if ":" in at[0] else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        opened.bind(at)
        opened.connect(to)
    except OSError:
        opened.close()
        raise
    return opened


def _endpoint(text: str) -> tuple[str, int]:
    """`127.0.0.1:7001`, `[::1]:7001`."""
    address, _, port = text.rpartition(":")
    return address.strip("[]"), int(port)


def _listen(path: str) -> socket.socket:
    """A listening socket that only its owner may use; one that somebody left behind makes room."""
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            with socket.socket(socket.AF_UNIX) as asker:
                try:
                    asker.connect(path)
                except ConnectionRefusedError:
                    os.unlink(path)
    opened = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o077)
    try:
        opened.bind(path)
        opened.listen(1)
    except OSError:
        opened.close()
        raise
    finally:
        os.umask(mask)
    opened.setblocking(False)
    return opened
