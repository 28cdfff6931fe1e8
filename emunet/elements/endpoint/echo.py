"""Echo: the answer to a ping, and the record of one sent (RFC 792; RFC 4443 4; fidelity IC-14, V6-15).

Rule of this file: an answer repeats identifier, sequence and data to the byte.
"""

from __future__ import annotations

from dataclasses import dataclass

from emunet.elements.endpoint.network import Failure
from emunet.packet import icmp, icmpv6


@dataclass(slots=True, eq=False)
class Ping:
    """One echo request and what became of it. Times are nanoseconds; None means not (yet)."""

    destination: bytes
    identifier: int
    sequence: int
    sent_at: int
    replied_at: int | None = None
    replied_from: bytes | None = None
    reply_ttl: int | None = None
    duplicates: int = 0
    error: Failure | None = None
    error_from: bytes | None = None
    """Who reported the error: a router on the way, the destination, or (None) the endpoint itself."""

    @property
    def rtt_ns(self) -> int | None:
        """The round-trip time."""
        return None if self.replied_at is None else self.replied_at - self.sent_at

    def reply(self, source: bytes, ttl: int, now: int) -> None:
        """A reply came. The first counts; others are duplicates."""
        if self.replied_at is not None:
            self.duplicates += 1
            return
        self.replied_at, self.replied_from, self.reply_ttl = now, source, ttl

    def fail(self, failure: Failure, source: bytes | None) -> None:
        """An error came. The first counts, and none after a reply."""
        if self.replied_at is None and self.error is None:
            self.error, self.error_from = failure, source


def request(destination: bytes, source: bytes, identifier: int, sequence: int, size: int) -> bytes:
    """The ICMP or ICMPv6 message with `size` bytes of data, which count up from 0."""
    data = (bytes(range(256)) * (size // 256 + 1))[:size]
    if len(destination) == 4:
        return icmp.echo_request(identifier, sequence, data).pack()
    return icmpv6.echo_request(identifier, sequence, data).pack(source, destination)


_V4 = {
    0: Failure.NETWORK_UNREACHABLE, 1: Failure.HOST_UNREACHABLE, 2: Failure.PROTOCOL_UNREACHABLE, 3: Failure.REFUSED,
    4: Failure.MESSAGE_TOO_LONG, 6: Failure.NETWORK_UNREACHABLE, 9: Failure.PROHIBITED, 10: Failure.PROHIBITED,
    11: Failure.NETWORK_UNREACHABLE, 13: Failure.PROHIBITED,
}  # fmt: skip
_V6 = {
    0: Failure.NETWORK_UNREACHABLE,
    1: Failure.PROHIBITED,
    4: Failure.REFUSED,
    5: Failure.PROHIBITED,
    6: Failure.PROHIBITED,
}


def failure_of_icmp(type: int, code: int) -> Failure | None:
    """What an ICMP error means to a sender (RFC 1122 3.2.2, 4.2.3.9); None for what is no error or only advice."""
    if type == icmp.UNREACHABLE:
        return _V4.get(code, Failure.HOST_UNREACHABLE)
    if type == icmp.TIME_EXCEEDED:
        return Failure.TTL_EXCEEDED
    return Failure.PARAMETER_PROBLEM if type == icmp.PARAMETER_PROBLEM else None


def failure_of_icmpv6(type: int, code: int) -> Failure | None:
    """The same for ICMPv6 (RFC 4443 3)."""
    if type == icmpv6.UNREACHABLE:
        return _V6.get(code, Failure.HOST_UNREACHABLE)
    if type == icmpv6.PACKET_TOO_BIG:
        return Failure.MESSAGE_TOO_LONG
    if type == icmpv6.TIME_EXCEEDED:
        return Failure.TTL_EXCEEDED
    if type == icmpv6.PARAMETER_PROBLEM:
        unknown = code == icmpv6.UNKNOWN_NEXT_HEADER
        return Failure.PROTOCOL_UNREACHABLE if unknown else Failure.PARAMETER_PROBLEM
    return None
