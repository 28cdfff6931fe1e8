"""Echo requests to many targets at once, from inside a sandbox.

One raw ICMP socket a family, all requests numbered, the answers timed by the kernel
(SO_TIMESTAMPNS) so that a busy machine does not add to a round trip what it took to
wake this process.

Rule of this file: a reply counts once, from the address that was asked, within its time.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from typing import Any

_ECHO_REQUEST: dict[int, int] = {socket.AF_INET: 8, socket.AF_INET6: 128}
_ECHO_REPLY: dict[int, int] = {socket.AF_INET: 0, socket.AF_INET6: 129}
_HEADER = struct.Struct("!BBHHH")
_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("qq")
_SOL_RAW, _ICMP_FILTER = 255, 1
_SOL_ICMPV6, _ICMPV6_FILTER = 58, 1
_RECEIVE_BUFFER = 4 << 20


def _open(family: int) -> socket.socket:
    protocol = socket.IPPROTO_ICMP if family == socket.AF_INET else socket.IPPROTO_ICMPV6
    opened = socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, protocol)
    opened.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)  # as far as net.core.rmem_max lets it
    reply = _ECHO_REPLY[family]
    if family == socket.AF_INET:  # a set bit is a type kept out
        opened.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", ~(1 << reply) & 0xFFFFFFFF))
    else:
        kept_out = [0xFFFFFFFF] * 8
        kept_out[reply >> 5] &= ~(1 << (reply & 31))
        opened.setsockopt(_SOL_ICMPV6, _ICMPV6_FILTER, struct.pack("=8I", *kept_out))
    return opened


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of ICMP for IPv4; for ICMPv6 the kernel fills it in."""
    padded = data + b"\0" * (len(data) % 2)
    return -int.from_bytes(padded, "big") % 0xFFFF


def _request(family: int, identifier: int, sequence: int, data: bytes) -> bytes:
    kind = _ECHO_REQUEST[family]
    message = _HEADER.pack(kind, 0, 0, identifier, sequence) + data
    if family == socket.AF_INET:
        message = _HEADER.pack(kind, 0, _checksum(message), identifier, sequence) + data
    return message


class _Probe:
    """The requests of one probe: those without an answer yet, and the round trips of the others."""

    def __init__(self, wanted: dict[str, Any], identifier: int) -> None:
        self.targets: list[str] = wanted["targets"]
        self.identifier = identifier
        self.timeout = int(wanted["timeout"] * 1e9)
        self.data = bytes(index & 0xFF for index in range(wanted["size"]))
        self.results: list[list[int | None]] = [[None] * wanted["count"] for _ in self.targets]
        # By sequence number, in the order they were sent; when, by the wall clock: that is the kernel's for packets.
        self.outstanding: dict[int, int] = {}
        self.families = [socket.AF_INET6 if ":" in target else socket.AF_INET for target in self.targets]
        self.sockets = {family: _open(family) for family in sorted(set(self.families))}
        self.poller = select.poll()
        for opened in self.sockets.values():
            self.poller.register(opened, select.POLLIN)

    def send(self, attempt: int) -> None:
        """One request to each target."""
        for number, (target, family) in enumerate(zip(self.targets, self.families, strict=True)):
            sequence = attempt * len(self.targets) + number
            message = _request(family, self.identifier, sequence, self.data)
            self.outstanding[sequence] = time.time_ns()
            try:
                self.sockets[family].sendto(message, (target, 0))
            except OSError:  # no route, no neighbour, a full queue: lost at its source
                del self.outstanding[sequence]

    def wait(self, until: int | None = None) -> None:
        """Take answers until a moment (time_ns), or until no request can be answered any more."""
        while True:
            now = time.time_ns()
            while self.outstanding and now - next(iter(self.outstanding.values())) > self.timeout:
                del self.outstanding[next(iter(self.outstanding))]
            if until is not None:
                left = until - now
            elif self.outstanding:
                left = next(iter(self.outstanding.values())) + self.timeout - now
            else:
                return
            if left <= 0:
                return
            for descriptor, _ in self.poller.poll(left / 1e6 + 1):
                for family, opened in self.sockets.items():
                    if opened.fileno() == descriptor:
                        self._receive(family, opened)

    def close(self) -> None:
        for opened in self.sockets.values():
            opened.close()

    def _receive(self, family: int, opened: socket.socket) -> None:
        while True:
            try:
                packet, ancillary, _, source = opened.recvmsg(65_600, 128)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error was reported on the socket; the request that it is about stays lost
                continue
            message = packet[(packet[0] & 15) * 4 :] if family == socket.AF_INET else packet
            if len(message) < _HEADER.size:
                continue
            _, _, _, identifier, sequence = _HEADER.unpack_from(message)
            attempt, number = divmod(sequence, len(self.targets))
            asked = source[0].partition("%")[0] == self.targets[number]
            if identifier != self.identifier or not asked or sequence not in self.outstanding:
                continue
            round_trip = max(0, _arrival(ancillary) - self.outstanding.pop(sequence))
            if round_trip <= self.timeout:
                self.results[number][attempt] = round_trip


def _arrival(ancillary: list[tuple[int, int, bytes]]) -> int:
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
            seconds, nanoseconds = _TIMESPEC.unpack(content[: _TIMESPEC.size])
            return int(seconds * 1_000_000_000 + nanoseconds)
    return time.time_ns()


def echo(wanted: dict[str, Any], identifier: int) -> list[list[int | None]]:
    """Send `ProbeSpec.encode`'s requests and wait; for each target its round trips in ns, None for a lost one.

    `identifier` (16 bits) tells this probe's answers from another's in the same sandbox.
    """
    probe = _Probe(wanted, identifier)
    try:
        for attempt in range(wanted["count"]):
            next_at = time.time_ns() + int(wanted["interval"] * 1e9)
            probe.send(attempt)
            probe.wait(next_at if attempt + 1 < wanted["count"] else None)
    finally:
        probe.close()
    return probe.results
