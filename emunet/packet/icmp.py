"""ICMP for IPv4 (RFC 792; RFC 1122 3.2.2; next-hop MTU: RFC 1191).

Rule of this file: every message is four numbers' worth of header (type, code,
checksum, four bytes of `rest`) and a body; what the rest means depends on the type.
"""

from __future__ import annotations

from dataclasses import dataclass

from emunet.packet.checksum import checksum, ones_sum
from emunet.packet.malformed import Malformed

ECHO_REPLY = 0
UNREACHABLE = 3
REDIRECT = 5
ECHO_REQUEST = 8
TIME_EXCEEDED = 11
PARAMETER_PROBLEM = 12
TIMESTAMP_REQUEST = 13
TIMESTAMP_REPLY = 14

NETWORK_UNREACHABLE = 0
HOST_UNREACHABLE = 1
PROTOCOL_UNREACHABLE = 2
PORT_UNREACHABLE = 3
FRAGMENTATION_NEEDED = 4
COMMUNICATION_PROHIBITED = 13
TTL_EXCEEDED = 0
REASSEMBLY_EXCEEDED = 1

HEADER_LENGTH = 8
QUOTE_LIMIT = 548
"""How much of a packet an error quotes: what fits 576 bytes in all (RFC 1812 4.3.2.3, fidelity IC-02)."""

ERRORS = frozenset((UNREACHABLE, 4, REDIRECT, TIME_EXCEEDED, PARAMETER_PROBLEM))
"""The types that report about another packet and quote it; never answered with an error (RFC 1122 3.2.2)."""


@dataclass(frozen=True, slots=True)
class Icmp:
    """A message; `rest` is 4 bytes."""

    type: int
    code: int
    rest: bytes = bytes(4)
    body: bytes = b""

    @property
    def identifier(self) -> int:
        """Of an echo or timestamp message."""
        return self.rest[0] << 8 | self.rest[1]

    @property
    def sequence(self) -> int:
        """Of an echo or timestamp message."""
        return self.rest[2] << 8 | self.rest[3]

    @property
    def mtu(self) -> int:
        """The next hop's MTU in "fragmentation needed"; 0 from a router older than RFC 1191."""
        return self.rest[2] << 8 | self.rest[3]

    def pack(self) -> bytes:
        """The message with its checksum."""
        if len(self.rest) != 4:
            raise ValueError("an ICMP message has 4 bytes behind its checksum")
        tail = self.rest + self.body
        return bytes((self.type, self.code)) + checksum(tail, self.type << 8 | self.code).to_bytes(2, "big") + tail

    @classmethod
    def parse(cls, message: bytes) -> Icmp:
        """An IPv4 payload -> message. Malformed if shorter than 8 bytes or with a wrong checksum."""
        if len(message) < HEADER_LENGTH:
            raise Malformed(f"an ICMP message has at least 8 bytes, this one {len(message)}")
        if ones_sum(message) != 65535:
            raise Malformed("the ICMP checksum is wrong")
        return cls(message[0], message[1], message[4:8], message[8:])


def echo_request(identifier: int, sequence: int, data: bytes = b"") -> Icmp:
    """What ping sends. Both numbers have 16 bits."""
    return Icmp(ECHO_REQUEST, 0, identifier.to_bytes(2, "big") + sequence.to_bytes(2, "big"), data)


def echo_reply(request: Icmp) -> Icmp:
    """The answer to an echo request: everything the same but the type."""
    return Icmp(ECHO_REPLY, 0, request.rest, request.body)


def error(type: int, code: int, quoted: bytes, rest: bytes = bytes(4)) -> Icmp:
    """An error about the packet `quoted` (from its IP header on), of which at most 548 bytes are carried."""
    return Icmp(type, code, rest, quoted[:QUOTE_LIMIT])


def fragmentation_needed(quoted: bytes, mtu: int) -> Icmp:
    """3/4 with the next hop's MTU in bytes (RFC 1191 4)."""
    return error(UNREACHABLE, FRAGMENTATION_NEEDED, quoted, bytes(2) + mtu.to_bytes(2, "big"))
