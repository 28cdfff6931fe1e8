"""What the parts of an endpoint share: how a send can fail, what a socket may ask of its stack, timers, hashes.

Rule of this file: no protocol is known here, so that `tcp.py`, `udp.py`,
`echo.py` and `stack.py` need each other only through it.
"""

from __future__ import annotations

import errno
import hashlib
from enum import Enum
from typing import Protocol

SECOND = 1_000_000_000
MILLISECOND = 1_000_000


class Failure(Enum):
    """Why something did not arrive, as a socket would tell it. `str()` is a sentence, `.errno` the kernel's number."""

    NETWORK_UNREACHABLE = (errno.ENETUNREACH, "network is unreachable: there is no route to it")
    HOST_UNREACHABLE = (errno.EHOSTUNREACH, "no route to host: nobody answers for it")
    PROTOCOL_UNREACHABLE = (errno.ENOPROTOOPT, "the host does not speak this protocol")
    REFUSED = (errno.ECONNREFUSED, "connection refused: nothing listens on this port")
    PROHIBITED = (errno.EACCES, "a filter on the way prohibits it")
    TTL_EXCEEDED = (errno.EHOSTUNREACH, "time to live exceeded on the way")
    PARAMETER_PROBLEM = (errno.EPROTO, "a host on the way found fault with the header")
    MESSAGE_TOO_LONG = (errno.EMSGSIZE, "message too long for the path and not to be fragmented")
    TIMED_OUT = (errno.ETIMEDOUT, "timed out: no answer to any of the retransmissions")
    RESET = (errno.ECONNRESET, "connection reset by peer")

    def __init__(self, number: int, sentence: str) -> None:
        self.errno = number
        self.sentence = sentence

    def __str__(self) -> str:
        return self.sentence


class Timed(Protocol):
    """Something with at most one timer. `due` may move at any time; `queued` belongs to the stack's timer heap."""

    due: int | None
    queued: int | None

    def wake(self, now: int) -> list[bytes]:
        """Do what is due at `now`; afterwards `due` is None or later than `now`. Frames to send."""
        ...


class Network(Protocol):
    """What a socket asks of the stack below it. Times are nanoseconds; the answers are frames to send."""

    mtu: int

    def transmit(
        self, src: bytes, dst: bytes, protocol: int, payload: bytes, now: int, *, ttl: int = 64, tos: int = 0,
        dont_fragment: bool | None = None,
    ) -> list[bytes]:  # fmt: skip
        """Send a payload in an IP packet. `dont_fragment` None: set if it fits the path, cut if it does not."""
        ...

    def settle(self, frames: list[bytes], now: int) -> list[bytes]:
        """To end every public method with: packets from the endpoint to itself are delivered; all frames."""
        ...

    def schedule(self, owner: Timed) -> None:
        """`owner.due` may have become earlier."""
        ...

    def source_for(self, destination: bytes) -> bytes | None:
        """The own address to send from; None if there is no route."""
        ...

    def path_mtu(self, destination: bytes, now: int) -> int:
        """The largest packet, in bytes, that is known to reach the destination."""
        ...

    def confirm(self, destination: bytes, now: int) -> None:
        """The destination has just answered: its neighbour entry is good (RFC 4861 7.3.1)."""
        ...


def stable_hash(*parts: int | bytes | str) -> int:
    """64 bits that depend on the parts alone: the same in every run, on every machine."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        digest.update(len(data).to_bytes(4, "big") + data)
    return int.from_bytes(digest.digest(), "big")
