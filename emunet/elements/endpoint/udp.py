"""UDP sockets of an endpoint (RFC 768).

Rule of this file: what waits is bounded in bytes, the newest is lost when there
is no room, and the loss is counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from emunet.elements.endpoint.network import Failure, Network
from emunet.packet.udp import Udp

PROTOCOL = 17
RECEIVE_MEMORY = 212992
_OVERHEAD = 64
_MAXIMUM_ERRORS = 64


@dataclass(frozen=True, slots=True)
class Datagram:
    """One received datagram: who sent it, to which of our addresses it came, and when (nanoseconds)."""

    data: bytes
    source: bytes
    source_port: int
    destination: bytes
    time: int


@dataclass(slots=True, eq=False)
class UdpSocket:
    """A bound port. `address` None: on all addresses. With a handler nothing waits: it is called instead.

    `errors` holds (failure, remote address, remote port) as ICMP told them, newest last; `lost` counts
    datagrams for which there was no room.
    """

    network: Network
    port: int
    address: bytes | None = None
    handler: Callable[[UdpSocket, Datagram], list[bytes]] | None = None
    errors: deque[tuple[Failure, bytes, int]] = field(default_factory=lambda: deque(maxlen=_MAXIMUM_ERRORS))
    lost: int = 0
    closed: bool = False
    _waiting: deque[Datagram] = field(default_factory=deque)
    _memory: int = 0

    def send(
        self, data: bytes, destination: bytes, port: int, now: int, *, source: bytes | None = None, ttl: int = 64,
        tos: int = 0, dont_fragment: bool | None = None,
    ) -> list[bytes]:  # fmt: skip
        """Send a datagram; the frames. A destination without a route is entered in `errors`.

        ValueError for more data than a datagram holds.
        """
        source = source or self.address or self.network.source_for(destination)
        if source is None:
            self.errors.append((Failure.NETWORK_UNREACHABLE, destination, port))
            return []
        segment = Udp(self.port, port).pack(source, destination, data)
        frames = self.network.transmit(
            source, destination, PROTOCOL, segment, now, ttl=ttl, tos=tos, dont_fragment=dont_fragment
        )
        return self.network.settle(frames, now)

    def receive(self) -> Datagram | None:
        """The oldest waiting datagram; None if there is none."""
        if not self._waiting:
            return None
        datagram = self._waiting.popleft()
        self._memory -= len(datagram.data) + _OVERHEAD
        return datagram

    def close(self) -> None:
        """Give the port back; datagrams to it are then refused."""
        self.closed = True

    def deliver(self, datagram: Datagram) -> list[bytes]:
        """Called by the stack."""
        if self.handler is not None:
            return self.handler(self, datagram)
        cost = len(datagram.data) + _OVERHEAD
        if self._memory + cost > RECEIVE_MEMORY:
            self.lost += 1
            return []
        self._memory += cost
        self._waiting.append(datagram)
        return []
