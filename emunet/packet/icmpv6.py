"""ICMPv6 (RFC 4443) and the two messages of address resolution in IPv6 (Neighbour Discovery, RFC 4861).

The checksum covers a pseudo-header, so packing and parsing need the addresses.
Rules about those addresses and about the hop limit (255) are the receiver's:
they are not in the message.

Rule of this file: an option of length zero ends a message as Malformed
(RFC 4861 4.6), so that walking options always ends.
"""

from __future__ import annotations

from dataclasses import dataclass

from emunet.packet.checksum import transport_checksum, transport_is_valid
from emunet.packet.ipv6 import ICMPV6
from emunet.packet.malformed import Malformed

UNREACHABLE = 1
PACKET_TOO_BIG = 2
TIME_EXCEEDED = 3
PARAMETER_PROBLEM = 4
ECHO_REQUEST = 128
ECHO_REPLY = 129
ROUTER_SOLICITATION = 133
ROUTER_ADVERTISEMENT = 134
NEIGHBOR_SOLICITATION = 135
NEIGHBOR_ADVERTISEMENT = 136
REDIRECT = 137

NO_ROUTE = 0
PROHIBITED = 1
BEYOND_SCOPE = 2
ADDRESS_UNREACHABLE = 3
PORT_UNREACHABLE = 4
HOP_LIMIT_EXCEEDED = 0
REASSEMBLY_EXCEEDED = 1
UNKNOWN_NEXT_HEADER = 1

HEADER_LENGTH = 8
QUOTE_LIMIT = 1232
"""How much of a packet an error quotes: what fits 1280 bytes in all (RFC 4443 2.4 c, fidelity V6-08)."""

_SOURCE_LINK_LAYER = 1
_TARGET_LINK_LAYER = 2


@dataclass(frozen=True, slots=True)
class Icmpv6:
    """A message; `rest` is the 4 bytes behind the checksum. Types below 128 are errors."""

    type: int
    code: int
    rest: bytes = bytes(4)
    body: bytes = b""

    @property
    def identifier(self) -> int:
        """Of an echo message."""
        return self.rest[0] << 8 | self.rest[1]

    @property
    def sequence(self) -> int:
        """Of an echo message."""
        return self.rest[2] << 8 | self.rest[3]

    @property
    def mtu(self) -> int:
        """The MTU in "packet too big"."""
        return int.from_bytes(self.rest, "big")

    def pack(self, src: bytes, dst: bytes) -> bytes:
        """The message with its checksum for these two addresses."""
        if len(self.rest) != 4:
            raise ValueError("an ICMPv6 message has 4 bytes behind its checksum")
        message = bytes((self.type, self.code, 0, 0)) + self.rest + self.body
        return message[:2] + transport_checksum(src, dst, ICMPV6, message).to_bytes(2, "big") + message[4:]

    @classmethod
    def parse(cls, src: bytes, dst: bytes, message: bytes) -> Icmpv6:
        """An IPv6 payload -> message. Malformed if shorter than 8 bytes or with a wrong checksum."""
        if len(message) < HEADER_LENGTH:
            raise Malformed(f"an ICMPv6 message has at least 8 bytes, this one {len(message)}")
        if not transport_is_valid(src, dst, ICMPV6, message):
            raise Malformed("the ICMPv6 checksum is wrong")
        return cls(message[0], message[1], message[4:8], message[8:])


def echo_request(identifier: int, sequence: int, data: bytes = b"") -> Icmpv6:
    """What ping sends. Both numbers have 16 bits."""
    return Icmpv6(ECHO_REQUEST, 0, identifier.to_bytes(2, "big") + sequence.to_bytes(2, "big"), data)


def echo_reply(request: Icmpv6) -> Icmpv6:
    """The answer to an echo request: everything the same but the type."""
    return Icmpv6(ECHO_REPLY, 0, request.rest, request.body)


def error(type: int, code: int, quoted: bytes, rest: bytes = bytes(4)) -> Icmpv6:
    """An error about the packet `quoted` (from its IPv6 header on), of which at most 1232 bytes are carried."""
    return Icmpv6(type, code, rest, quoted[:QUOTE_LIMIT])


def packet_too_big(quoted: bytes, mtu: int) -> Icmpv6:
    """2/0 with the next hop's MTU in bytes (RFC 4443 3.2)."""
    return error(PACKET_TOO_BIG, 0, quoted, mtu.to_bytes(4, "big"))


def link_layer_option(data: bytes, kind: int) -> bytes | None:
    """The MAC in the first option of this kind among Neighbour Discovery options; None if there is none.

    All options are walked: Malformed if one has length zero or runs out of the
    message, or if the address has not 6 bytes.
    """
    mac: bytes | None = None
    position = 0
    while position < len(data):
        length = data[position + 1] * 8 if position + 1 < len(data) else 0
        if length == 0 or position + length > len(data):
            raise Malformed("a Neighbour Discovery option has length zero or runs out of the message")
        if data[position] == kind and mac is None:
            if length != 8:
                raise Malformed(f"a link-layer address option of {length} bytes is not Ethernet's")
            mac = data[position + 2 : position + 8]
        position += length
    return mac


def _target(message: Icmpv6, type: int) -> bytes:
    """The target address, the checks of RFC 4861 7.1 on the message itself done."""
    if message.type != type or message.code != 0:
        raise Malformed(f"ICMPv6 type {message.type} code {message.code} is not a message of type {type} code 0")
    if len(message.body) < 16:
        raise Malformed("a Neighbour Discovery message has a target address of 16 bytes")
    if message.body[0] == 0xFF:
        raise Malformed("the target of a Neighbour Discovery message is a multicast address")
    return message.body[:16]


@dataclass(frozen=True, slots=True)
class NeighborSolicitation:
    """Who has `target`? `source_mac` is None while the asker has no address yet (duplicate address detection)."""

    target: bytes
    source_mac: bytes | None = None

    def pack(self, src: bytes, dst: bytes) -> bytes:
        """The ICMPv6 message; send it with hop limit 255."""
        option = b"" if self.source_mac is None else bytes((_SOURCE_LINK_LAYER, 1)) + self.source_mac
        return Icmpv6(NEIGHBOR_SOLICITATION, 0, bytes(4), self.target + option).pack(src, dst)

    @classmethod
    def parse(cls, message: Icmpv6) -> NeighborSolicitation:
        """Malformed if it is not a solicitation or breaks a rule of RFC 4861 7.1.1 that shows in the message."""
        return cls(_target(message, NEIGHBOR_SOLICITATION), link_layer_option(message.body[16:], _SOURCE_LINK_LAYER))


@dataclass(frozen=True, slots=True)
class NeighborAdvertisement:
    """`target` is at `mac` (None: the link layer tells). `override`: replace what you know."""

    target: bytes
    mac: bytes | None = None
    router: bool = False
    solicited: bool = False
    override: bool = False

    def pack(self, src: bytes, dst: bytes) -> bytes:
        """The ICMPv6 message; send it with hop limit 255."""
        flags = self.router << 7 | self.solicited << 6 | self.override << 5
        option = b"" if self.mac is None else bytes((_TARGET_LINK_LAYER, 1)) + self.mac
        return Icmpv6(NEIGHBOR_ADVERTISEMENT, 0, bytes((flags, 0, 0, 0)), self.target + option).pack(src, dst)

    @classmethod
    def parse(cls, message: Icmpv6) -> NeighborAdvertisement:
        """Malformed if it is not an advertisement or breaks a rule of RFC 4861 7.1.2 that shows in the message."""
        target = _target(message, NEIGHBOR_ADVERTISEMENT)
        mac = link_layer_option(message.body[16:], _TARGET_LINK_LAYER)
        flags = message.rest[0]
        return cls(target, mac, bool(flags & 0x80), bool(flags & 0x40), bool(flags & 0x20))
