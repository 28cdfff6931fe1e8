"""VXLAN headers (RFC 7348 section 5): an Ethernet frame inside a UDP datagram, with a network identifier.

Rule of this file: as strict as Linux on receipt (fidelity VX-05): the I flag
set, every other flag and reserved bit clear, although the RFC says to ignore them.
"""

from __future__ import annotations

from emunet.packet.malformed import Malformed

PORT = 4789
HEADER_LENGTH = 8
MAXIMUM_VNI = (1 << 24) - 1


def header(vni: int) -> bytes:
    """The 8 bytes in front of the inner frame (fidelity VX-01). ValueError for a VNI of more than 24 bits."""
    if not 0 <= vni <= MAXIMUM_VNI:
        raise ValueError(f"a VXLAN network identifier has 24 bits, {vni} does not fit")
    return b"\x08\0\0\0" + vni.to_bytes(3, "big") + b"\0"


def parse(payload: bytes) -> tuple[int, int]:
    """A UDP payload -> (VNI, offset of the inner frame). Malformed if short or with other bits than the I flag."""
    if len(payload) < HEADER_LENGTH:
        raise Malformed(f"a VXLAN header has 8 bytes, this datagram {len(payload)}")
    if payload[:4] != b"\x08\0\0\0" or payload[7] != 0:
        raise Malformed("a VXLAN header has the I flag set and all other flags and reserved bits clear")
    return int.from_bytes(payload[4:7], "big"), HEADER_LENGTH


def source_port(flow_hash: int) -> int:
    """The outer UDP source port for an inner flow: 49152 to 65535, the dynamic range that RFC 7348 5 recommends.

    Equal hashes give equal ports, so that a flow stays on one path; 14 bits of
    the hash choose, higher bits folded in. (Linux does the same over its local
    port range, 32768 to 60999 by default.)
    """
    return 49152 + ((flow_hash ^ flow_hash >> 14 ^ flow_hash >> 28) & 0x3FFF)
