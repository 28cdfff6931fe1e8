"""Echo: the answer to a ping, and the record of one sent (RFC 792; RFC 4443 4; fidelity IC-14, IC-15, V6-15).

Rule of this file: an answer repeats identifier, sequence and data to the byte.
"""

from __future__ import annotations

from dataclasses import dataclass

from emunet.elements.endpoint.network import Failure
from emunet.packet import icmp, icmpv6

DAY = 86_400_000_000_000


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


def timestamp_reply(asked: icmp.Icmp, now: int) -> icmp.Icmp:
    """The answer to a timestamp request: its own time, then when it came and went, in ms of the lab's day."""
    time = (now % DAY // 1_000_000).to_bytes(4, "big")
    return icmp.Icmp(icmp.TIMESTAMP_REPLY, 0, asked.rest, asked.body[:4].ljust(4, b"\0") + time + time)
