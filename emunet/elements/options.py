"""Options of IP headers: what a router reads, writes and refuses (RFC 791 3.1, RFC 1812 4.2.2 and 5.2.4, RFC 8200 4.2).

IPv4, as Linux's ip_options.c: source routes are refused (IP-14); Record Route and
Timestamp get an address of this host and move their pointer, in a header of the same
length (IP-15); an option with an impossible length or pointer is an error that names
its byte, an unknown one is carried (IP-16). IPv6 hop-by-hop options, as exthdrs.c: the
two upper bits of an unknown one say what becomes of the packet (V6-16), padding must
be short and zero.

Rule of this file: bytes in, values out; who asks puts them into its Step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from emunet.packet.checksum import checksum

END, NOP = 0, 1
RECORD_ROUTE, TIMESTAMP, LOOSE_SOURCE_ROUTE, STRICT_SOURCE_ROUTE, ROUTER_ALERT = 7, 68, 131, 137, 148
STAMP_ONLY, STAMP_AND_ADDRESS, STAMP_PRESCRIBED = 0, 1, 3
DAY = 86_400_000_000_000

PAD_1, PAD_N, ROUTER_ALERT_V6, JUMBO = 0, 1, 5, 0xC2
LONGEST_PADDING = 7


@dataclass(frozen=True, slots=True)
class Fault:
    """A malformed option: the byte of the IP header that is wrong."""

    pointer: int


@dataclass(frozen=True, slots=True)
class Read:
    """Options that are sound: the whole header as it goes on, without its checksum brought up to date.

    source_routed  it asks to be sent by way of addresses that it names
    """

    header: bytes
    source_routed: bool = False


def read(header: bytes, leaving: bytes, facing: bytes, is_own: Callable[[bytes], bool], now: int) -> Read | Fault:
    """What a host makes of an IPv4 header with options.

    It writes an address into those that ask for one: into Record Route that by which the packet is `leaving`,
    into Timestamp the one that is `facing` its sender (ip_options.c).
    """
    out = bytearray(header)
    seen: set[int] = set()
    source_routed = False
    position = 20
    while position < len(header):
        kind = header[position]
        if kind == END:
            out[position:] = bytes(len(header) - position)
            break
        if kind == NOP:
            position += 1
            continue
        room = len(header) - position
        length = header[position + 1] if room >= 2 else 0
        if length < 2 or length > room:
            return Fault(position)
        fault: Fault | None = None
        if kind in (RECORD_ROUTE, TIMESTAMP) and kind in seen:
            return Fault(position)
        if kind in (RECORD_ROUTE, TIMESTAMP, LOOSE_SOURCE_ROUTE, STRICT_SOURCE_ROUTE):
            seen.add(kind)
            least = 4 if kind == TIMESTAMP else 3
            if length < least:
                return Fault(position + 1)
            if header[position + 2] < least + 1:
                return Fault(position + 2)
        if kind in (LOOSE_SOURCE_ROUTE, STRICT_SOURCE_ROUTE):
            if source_routed:
                return Fault(position)
            source_routed = True
        elif kind == RECORD_ROUTE:
            fault = _record(out, position, length, leaving)
        elif kind == TIMESTAMP:
            fault = _stamp(out, position, length, facing, is_own, now)
        elif kind == ROUTER_ALERT and length < 4:
            fault = Fault(position + 1)
        if fault is not None:
            return fault
        position += length
    return Read(bytes(out), source_routed)


def with_checksum(header: bytes) -> bytes:
    """An IPv4 header with its checksum made right."""
    zeroed = header[:10] + bytes(2) + header[12:]
    return header[:10] + checksum(zeroed).to_bytes(2, "big") + header[12:]


def _record(out: bytearray, position: int, length: int, address: bytes) -> Fault | None:
    pointer = out[position + 2]
    if pointer > length:
        return None
    if pointer + 3 > length:
        return Fault(position + 2)
    out[position + pointer - 1 : position + pointer + 3] = address
    out[position + 2] = pointer + 4
    return None


def _stamp(
    out: bytearray, position: int, length: int, address: bytes, is_own: Callable[[bytes], bool], now: int
) -> Fault | None:
    pointer, kind = out[position + 2], out[position + 3] & 0x0F
    if pointer > length:
        if kind != STAMP_PRESCRIBED:
            if out[position + 3] >> 4 == 15:
                return Fault(position + 3)
            out[position + 3] += 0x10  # one more that found no room
        return None
    room = 7 if kind in (STAMP_AND_ADDRESS, STAMP_PRESCRIBED) else 3
    if pointer + room > length:
        return Fault(position + 2)
    at = position + pointer - 1
    time = (now % DAY // 1_000_000).to_bytes(4, "big")  # milliseconds since midnight
    if kind == STAMP_ONLY:
        out[at : at + 4] = time
        out[position + 2] = pointer + 4
    elif kind == STAMP_AND_ADDRESS:
        out[at : at + 8] = address + time
        out[position + 2] = pointer + 8
    elif kind == STAMP_PRESCRIBED and is_own(bytes(out[at : at + 4])):
        out[at + 4 : at + 8] = time
        out[position + 2] = pointer + 8
    return None


@dataclass(frozen=True, slots=True)
class HopByHopFault:
    """An IPv6 packet that its hop-by-hop options stop. `pointer`: tell the sender of this byte; 0: silence."""

    pointer: int
    to_group: bool = False
    """Whether the sender is told of it about a packet to a group too (RFC 8200 4.2, bits 10)."""


def read_hop_by_hop(packet: bytes) -> HopByHopFault | None:
    """What stands in the way of an IPv6 packet that begins with hop-by-hop options; None for nothing."""
    if len(packet) < 48 or len(packet) < 48 + packet[41] * 8:
        return HopByHopFault(0)
    end = 48 + packet[41] * 8
    position = 42
    padding = 0
    while position < end:
        kind = packet[position]
        if kind == PAD_1:
            padding += 1
            position += 1
        else:
            if position + 2 > end or position + 2 + packet[position + 1] > end:
                return HopByHopFault(0)
            length = packet[position + 1]
            value = packet[position + 2 : position + 2 + length]
            if kind == PAD_N:
                padding += 2 + length
                if any(value):
                    return HopByHopFault(0)
            elif kind not in (ROUTER_ALERT_V6, JUMBO) and kind >> 6:
                return _unknown(kind, position)
            else:
                padding = 0
            position += 2 + length
        if padding > LONGEST_PADDING:
            return HopByHopFault(0)
    return None


def _unknown(kind: int, position: int) -> HopByHopFault:
    action = kind >> 6
    return HopByHopFault(0) if action == 1 else HopByHopFault(position, to_group=action == 2)
