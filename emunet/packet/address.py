"""Addresses: text at the edges, bytes inside.

A MAC address is 6 bytes, an IPv4 address 4 bytes, an IPv6 address 16 bytes; the
family of an address is its length. Nothing else in emunet parses or prints one.

Rule of this file: functions are pure, and bad text raises ValueError with a
sentence that says what was expected.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

BROADCAST_MAC = b"\xff" * 6
ZERO_MAC = bytes(6)
ANY_V4 = bytes(4)
ANY_V6 = bytes(16)
BROADCAST_V4 = b"\xff" * 4
ALL_NODES_V6 = bytes.fromhex("ff020000000000000000000000000001")
ALL_ROUTERS_V6 = bytes.fromhex("ff020000000000000000000000000002")


def parse_mac(text: str) -> bytes:
    """`02:00:00:00:00:01` -> 6 bytes. ValueError for anything else."""
    parts = text.split(":")
    if len(parts) != 6 or any(len(part) != 2 for part in parts):
        raise ValueError(f"{text!r} is not a MAC address: expected six pairs of hex digits, like 02:00:00:00:00:01")
    try:
        return bytes(int(part, 16) for part in parts)
    except ValueError:
        raise ValueError(
            f"{text!r} is not a MAC address: expected six pairs of hex digits, like 02:00:00:00:00:01"
        ) from None


def format_mac(mac: bytes) -> str:
    """6 bytes -> `02:00:00:00:00:01`."""
    return mac.hex(":")


def parse_ip(text: str) -> bytes:
    """IPv4 dotted quad or IPv6 text -> 4 or 16 bytes. ValueError for anything else."""
    try:
        return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    except (OSError, ValueError):
        raise ValueError(f"{text!r} is not an IP address: expected one like 10.244.1.2 or fd00::2") from None


def format_ip(address: bytes) -> str:
    """4 or 16 bytes -> text in its canonical form (RFC 5952 for IPv6)."""
    return socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)


def is_group_mac(mac: bytes) -> bool:
    """True for multicast and broadcast (the I/G bit, IEEE 802-2014 8.2)."""
    return bool(mac[0] & 1)


def is_multicast(address: bytes) -> bool:
    """True for 224.0.0.0/4 (RFC 1112) and ff00::/8 (RFC 4291 2.7)."""
    return address[0] & 0xF0 == 0xE0 if len(address) == 4 else address[0] == 0xFF


def is_loopback(address: bytes) -> bool:
    """True for 127.0.0.0/8 (RFC 1122 3.2.1.3) and ::1 (RFC 4291 2.5.3)."""
    return address[0] == 127 if len(address) == 4 else address == bytes(15) + b"\x01"


def is_link_local(address: bytes) -> bool:
    """True for 169.254.0.0/16 (RFC 3927) and fe80::/10 (RFC 4291 2.5.6)."""
    if len(address) == 4:
        return address[0] == 169 and address[1] == 254
    return address[0] == 0xFE and address[1] & 0xC0 == 0x80


def is_unspecified(address: bytes) -> bool:
    """True for 0.0.0.0 and ::."""
    return not any(address)


def multicast_mac(group: bytes) -> bytes:
    """The MAC for a group address: RFC 1112 6.4 for IPv4, RFC 2464 7 for IPv6."""
    if len(group) == 4:
        return bytes((0x01, 0x00, 0x5E, group[1] & 0x7F, group[2], group[3]))
    return b"\x33\x33" + group[12:]


def solicited_node(address: bytes) -> bytes:
    """The solicited-node group of an IPv6 address (RFC 4291 2.7.1)."""
    return bytes.fromhex("ff0200000000000000000001ff") + address[13:]


def link_local(mac: bytes) -> bytes:
    """The EUI-64 link-local address of a MAC (RFC 4291 appendix A)."""
    return b"\xfe\x80" + bytes(6) + bytes((mac[0] ^ 2,)) + mac[1:3] + b"\xff\xfe" + mac[3:]


@dataclass(frozen=True, slots=True, order=True)
class Prefix:
    """A network: `address` has its host bits clear; `length` counts bits."""

    address: bytes
    length: int

    def __post_init__(self) -> None:
        bits = len(self.address) * 8
        if not 0 <= self.length <= bits:
            raise ValueError(f"{format_ip(self.address)}/{self.length}: the prefix length must be 0 to {bits}")
        if int.from_bytes(self.address, "big") & ((1 << (bits - self.length)) - 1):
            raise ValueError(
                f"{format_ip(self.address)}/{self.length} has host bits set; "
                f"the network is {Prefix.of(self.address, self.length)}"
            )

    @classmethod
    def of(cls, address: bytes, length: int) -> Prefix:
        """The network of `length` bits that `address` lies in."""
        bits = len(address) * 8
        mask = ((1 << length) - 1) << (bits - length)
        return cls((int.from_bytes(address, "big") & mask).to_bytes(len(address), "big"), length)

    @classmethod
    def parse(cls, text: str) -> Prefix:
        """`10.244.0.0/16` or `fd00::/48` -> Prefix. Host bits must be clear."""
        address, slash, length = text.partition("/")
        if not slash or not length.isdigit():
            raise ValueError(
                f"{text!r} is not a network: expected an address, a slash and a prefix length, like 10.244.0.0/16"
            )
        return cls(parse_ip(address), int(length))

    @classmethod
    def around(cls, text: str) -> Prefix:
        """As `parse`, but `10.244.1.7/16` is the network that the address lies in, as Kubernetes reads it."""
        address, slash, length = text.partition("/")
        found = parse_ip(address)
        if not slash or not length.isdigit() or int(length) > len(found) * 8:
            raise ValueError(f"{text!r} is not a network: expected an address, a slash and a prefix length")
        return cls.of(found, int(length))

    def contains(self, address: bytes) -> bool:
        """True when the address is of this family and lies inside."""
        if len(address) != len(self.address):
            return False
        shift = len(self.address) * 8 - self.length
        return int.from_bytes(address, "big") >> shift == int.from_bytes(self.address, "big") >> shift

    def overlaps(self, other: Prefix) -> bool:
        """True when the two share at least one address."""
        return self.contains(other.address) or other.contains(self.address)

    def nth(self, index: int) -> bytes:
        """The address at offset `index`; ValueError beyond the end."""
        bits = len(self.address) * 8
        if not 0 <= index < 1 << (bits - self.length):
            raise ValueError(f"{self} has no address number {index}")
        return (int.from_bytes(self.address, "big") + index).to_bytes(len(self.address), "big")

    @property
    def size(self) -> int:
        """How many addresses it holds."""
        return 1 << (len(self.address) * 8 - self.length)

    @property
    def broadcast(self) -> bytes | None:
        """The directed broadcast address of an IPv4 subnet of /30 or wider; None otherwise (RFC 3021 for /31)."""
        if len(self.address) != 4 or self.length > 30:
            return None
        return self.nth(self.size - 1)

    def __str__(self) -> str:
        return f"{format_ip(self.address)}/{self.length}"


@dataclass(frozen=True, slots=True)
class InterfaceAddress:
    """An address with its prefix length, as an interface carries it: `10.244.1.1/24`."""

    address: bytes
    length: int

    @classmethod
    def parse(cls, text: str) -> InterfaceAddress:
        """`10.244.1.1/24` -> InterfaceAddress; host bits may be set."""
        address, slash, length = text.partition("/")
        if not slash or not length.isdigit():
            raise ValueError(f"{text!r} is not an interface address: expected one like 10.244.1.1/24")
        value = cls(parse_ip(address), int(length))
        Prefix.of(value.address, value.length)
        return value

    @property
    def prefix(self) -> Prefix:
        """The network on the link."""
        return Prefix.of(self.address, self.length)

    def __str__(self) -> str:
        return f"{format_ip(self.address)}/{self.length}"
