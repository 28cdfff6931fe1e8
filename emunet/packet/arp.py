"""ARP for IPv4 over Ethernet (RFC 826; probes and announcements RFC 5227).

Rule of this file: a message that is not Ethernet + IPv4 with lengths 6 and 4 is
Malformed (fidelity ARP-12), whatever else it says.
"""

from __future__ import annotations

from dataclasses import dataclass

from emunet.packet.address import BROADCAST_MAC, ZERO_MAC
from emunet.packet.ethernet import ETHERTYPE_ARP, build
from emunet.packet.malformed import Malformed

REQUEST = 1
REPLY = 2
LENGTH = 28
_ETHERNET_IPV4 = bytes.fromhex("000108000604")


@dataclass(frozen=True, slots=True)
class Arp:
    """One message: who speaks (`sender`) and who is meant (`target`)."""

    operation: int
    sender_mac: bytes
    sender_ip: bytes
    target_mac: bytes
    target_ip: bytes

    def pack(self) -> bytes:
        """The 28 bytes, an Ethernet payload."""
        addresses = self.sender_mac + self.sender_ip + self.target_mac + self.target_ip
        if len(addresses) != 20:
            raise ValueError("an ARP message has MAC addresses of 6 bytes and IPv4 addresses of 4")
        return _ETHERNET_IPV4 + self.operation.to_bytes(2, "big") + addresses

    @classmethod
    def parse(cls, payload: bytes) -> Arp:
        """An Ethernet payload -> message; padding behind it is ignored. Malformed for other hardware or protocols."""
        if len(payload) < LENGTH:
            raise Malformed(f"an ARP message has 28 bytes, this one {len(payload)}")
        if payload[:6] != _ETHERNET_IPV4:
            raise Malformed("an ARP message of other hardware, protocol or address lengths than Ethernet with IPv4")
        return cls(payload[6] << 8 | payload[7], payload[8:14], payload[14:18], payload[18:24], payload[24:28])


def request(sender_mac: bytes, sender_ip: bytes, target_ip: bytes, dst: bytes = BROADCAST_MAC) -> bytes:
    """The frame that asks who has `target_ip`. A sender address 0.0.0.0 makes it a probe (RFC 5227 2.1.1)."""
    return build(dst, sender_mac, ETHERTYPE_ARP, Arp(REQUEST, sender_mac, sender_ip, ZERO_MAC, target_ip).pack())


def reply(sender_mac: bytes, sender_ip: bytes, target_mac: bytes, target_ip: bytes) -> bytes:
    """The unicast frame that tells `target` that `sender_ip` is at `sender_mac`."""
    return build(target_mac, sender_mac, ETHERTYPE_ARP, Arp(REPLY, sender_mac, sender_ip, target_mac, target_ip).pack())
