"""Ethernet II frames (IEEE 802.3-2018 3.1.1, RFC 894), without preamble and frame check sequence.

Frames here may be shorter than 60 bytes: padding is the business of real wires
(fidelity TAP-05). A VLAN tag is not looked into: it is EtherType `ETHERTYPE_VLAN`
and the payload begins with the tag's two bytes.

Rule of this file: 14 bytes in front of a payload, nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

from emunet.packet.malformed import Malformed

ETHERTYPE_IPV4 = 0x0800
ETHERTYPE_ARP = 0x0806
ETHERTYPE_VLAN = 0x8100
ETHERTYPE_IPV6 = 0x86DD
ETHERTYPE_QINQ = 0x88A8
HEADER_LENGTH = 14


def build(dst: bytes, src: bytes, ethertype: int, payload: bytes) -> bytes:
    """The frame. Nothing is padded; ValueError for an address that is not 6 bytes."""
    if len(dst) != 6 or len(src) != 6:
        raise ValueError("an Ethernet address has 6 bytes")
    return dst + src + ethertype.to_bytes(2, "big") + payload


@dataclass(frozen=True, slots=True)
class Ethernet:
    """The header: two MAC addresses (6 bytes) and the EtherType."""

    dst: bytes
    src: bytes
    ethertype: int

    def pack(self, payload: bytes) -> bytes:
        """The frame with this header."""
        return build(self.dst, self.src, self.ethertype, payload)

    @classmethod
    def parse(cls, frame: bytes) -> tuple[Ethernet, bytes]:
        """Header and payload (with padding, if any). Malformed if shorter than 14 bytes."""
        if len(frame) < HEADER_LENGTH:
            raise Malformed(f"an Ethernet frame has at least 14 bytes, this one {len(frame)}")
        return cls(frame[:6], frame[6:12], frame[12] << 8 | frame[13]), frame[14:]
