"""ICMP errors seen from a host: what they mean to a sender, whom they are about, how many may be sent, path MTUs.

RFC 1122 3.2.2 and 4.2.3.9, RFC 1191, RFC 4443, RFC 8201; fidelity IC-10, IC-18, V6-11, V6-19.

Rule of this file: tables are bounded, the oldest entry goes first.
"""

from __future__ import annotations

from dataclasses import dataclass

from emunet.elements.endpoint.network import MILLISECOND, SECOND, Failure
from emunet.packet import icmp, icmpv6
from emunet.packet.ipv6 import MINIMUM_MTU, upper_layer
from emunet.packet.malformed import Malformed

MINIMUM_PATH_MTU_V4 = 552
PATH_MTU_LIFETIME = 600 * SECOND
MAXIMUM_PATHS = 1024
MAXIMUM_BUCKETS = 1024
_BURST = 6
_PLATEAUS = (65535, 32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68)

_V4 = {
    icmp.NETWORK_UNREACHABLE: Failure.NETWORK_UNREACHABLE,
    icmp.HOST_UNREACHABLE: Failure.HOST_UNREACHABLE,
    icmp.PROTOCOL_UNREACHABLE: Failure.PROTOCOL_UNREACHABLE,
    icmp.PORT_UNREACHABLE: Failure.REFUSED,
    icmp.FRAGMENTATION_NEEDED: Failure.MESSAGE_TOO_LONG,
    6: Failure.NETWORK_UNREACHABLE,
    9: Failure.PROHIBITED,
    10: Failure.PROHIBITED,
    11: Failure.NETWORK_UNREACHABLE,
    icmp.COMMUNICATION_PROHIBITED: Failure.PROHIBITED,
}
_V6 = {
    icmpv6.NO_ROUTE: Failure.NETWORK_UNREACHABLE,
    icmpv6.PROHIBITED: Failure.PROHIBITED,
    icmpv6.PORT_UNREACHABLE: Failure.REFUSED,
    5: Failure.PROHIBITED,
    6: Failure.PROHIBITED,
}


def failure_of_icmp(type: int, code: int) -> Failure | None:
    """What an ICMP message means to a sender; None for what is no error or only advice."""
    if type == icmp.UNREACHABLE:
        return _V4.get(code, Failure.HOST_UNREACHABLE)
    if type == icmp.TIME_EXCEEDED:
        return Failure.TTL_EXCEEDED
    return Failure.PARAMETER_PROBLEM if type == icmp.PARAMETER_PROBLEM else None


def failure_of_icmpv6(type: int, code: int) -> Failure | None:
    """The same for ICMPv6."""
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


@dataclass(frozen=True, slots=True)
class Quoted:
    """The packet that an error is about, as far as it was quoted: `transport` has 8 bytes or more."""

    src: bytes
    dst: bytes
    protocol: int
    length: int
    transport: bytes

    @classmethod
    def of(cls, packet: bytes) -> Quoted | None:
        """A packet, perhaps cut short; None if too little is there to tell whose it was (a later fragment, say)."""
        if len(packet) >= 20 and packet[0] >> 4 == 4:
            if packet[6] & 0x1F or packet[7]:
                return None
            start, length = (packet[0] & 15) * 4, packet[2] << 8 | packet[3]
            quoted = cls(packet[12:16], packet[16:20], packet[9], length, packet[start:])
        elif len(packet) >= 40 and packet[0] >> 4 == 6:
            try:
                protocol, start = upper_layer(packet)
            except Malformed:
                return None
            length = 40 + (packet[4] << 8 | packet[5])
            quoted = cls(packet[8:24], packet[24:40], protocol, length, packet[start:])
        else:
            return None
        return quoted if len(quoted.transport) >= 8 else None


class ErrorBudget:
    """A bucket of 6 tokens per destination; one comes back each second (IPv4) or tenth of it (IPv6)."""

    def __init__(self) -> None:
        self._full_at: dict[bytes, int] = {}

    def allow(self, destination: bytes, now: int) -> bool:
        """Take a token for an error to this destination; False if there is none."""
        interval = SECOND if len(destination) == 4 else 100 * MILLISECOND
        full_at = max(self._full_at.pop(destination, now), now)
        if len(self._full_at) >= MAXIMUM_BUCKETS:
            del self._full_at[next(iter(self._full_at))]
        allowed = full_at - now <= (_BURST - 1) * interval
        self._full_at[destination] = full_at + interval if allowed else full_at
        return allowed


@dataclass(frozen=True, slots=True)
class Path:
    """What was learned about a path: its MTU, until when, and whether DF stays clear (the MTU is below our least)."""

    mtu: int
    until: int
    locked: bool


class Paths:
    """Path MTUs by destination: each is believed for ten minutes, and meanwhile only falls."""

    def __init__(self) -> None:
        self._paths: dict[bytes, Path] = {}

    def get(self, destination: bytes, now: int) -> Path | None:
        """What is known about the path to a destination; None if nothing or too old."""
        path = self._paths.get(destination)
        if path is not None and path.until <= now:
            del self._paths[destination]
            return None
        return path

    def learn(self, destination: bytes, mtu: int, length: int, believed: int, now: int) -> None:
        """A router told the MTU behind it, about a packet of `length` bytes; `believed` is what we took it to be.

        An IPv4 MTU of 0 stands for the next plateau below the packet (RFC 1191 7).
        """
        if len(destination) == 4:
            if mtu == 0:
                mtu = next((plateau for plateau in _PLATEAUS if plateau < length), MINIMUM_PATH_MTU_V4)
            floor, locked = MINIMUM_PATH_MTU_V4, mtu < MINIMUM_PATH_MTU_V4
        else:
            floor, locked = MINIMUM_MTU, False
        mtu = max(mtu, floor)
        if mtu >= believed:
            return
        if len(self._paths) >= MAXIMUM_PATHS:
            del self._paths[next(iter(self._paths))]
        self._paths[destination] = Path(mtu, now + PATH_MTU_LIFETIME, locked)
