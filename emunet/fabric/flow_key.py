"""The flow key: which frames are answered alike, and where in a frame its parts lie.

The key is exact: the Ethernet header, IP version, header length and TOS, fragment bits,
TTL, protocol, addresses and ports (for an echo: type, code and identifier). All else
that elements read is guarded at each hit, or keeps a run out of the cache.

Rule of this file: what is read of a frame here is all that its key depends on.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

from emunet.packet.view import ETHERNET_HEADER, IPV6, PLAIN_IPV4

# Ethernet header, version/IHL and TOS | total length | identification | fragment bits, TTL,
# protocol | header checksum | addresses and ports. One call splits a frame into key and guards
# (0.25 µs; three slices joined: 0.39 µs).
V4 = Struct(">16sHH4sH12s")
V6 = Struct(">18sH38s")
V4_LENGTH = 38
V6_LENGTH = 58
TCP = 6
UDP = 17
STEERING_FLAGS = 0x17
STEADY = 0x10
"""SYN, FIN, RST and ACK; a TCP segment that moves no connection's state has ACK alone of them."""
WRAPPED_V4 = ETHERNET_HEADER + 20 + 8 + 8
WRAPPED_V6 = ETHERNET_HEADER + 40 + 8 + 8

Key = tuple[bytes, ...]


def key_of(frame: bytes, tunnels: frozenset[bytes] = frozenset()) -> Key | None:
    """The flow key of a frame, or None for a kind that is never cached.

    Never: anything but IPv4 without options and IPv6 with TCP, UDP or ICMP echo; fragments.
    What goes to a UDP port of `tunnels` has the VXLAN header and the inner frame in its key too.
    """
    if frame[12:15] == PLAIN_IPV4 and len(frame) >= V4_LENGTH:
        head, _, _, middle, _, tail = V4.unpack_from(frame)
        if middle[0] & 0x3F or middle[1]:
            return None
        protocol = middle[3]
        if protocol == UDP and tail[10:] in tunnels:
            inner = key_of(frame[WRAPPED_V4:])
            return None if inner is None else (head, middle, tail, frame[42:WRAPPED_V4], *inner)
        if protocol in (TCP, UDP):
            return (head, middle, tail)
        if protocol == 1 and len(frame) >= V4_LENGTH + 4 and tail[8] in (0, 8):
            return (head, middle, tail[:10], frame[38:40])
        return None
    if frame[12:14] == IPV6 and len(frame) >= V6_LENGTH:
        head, _, tail = V6.unpack_from(frame)
        protocol = tail[0]
        if protocol == UDP and tail[36:] in tunnels:
            inner = key_of(frame[WRAPPED_V6:])
            return None if inner is None else (head, tail, frame[62:WRAPPED_V6], *inner)
        if protocol in (TCP, UDP):
            return (head, tail)
        if protocol == 58 and len(frame) >= V6_LENGTH + 4 and tail[34] in (128, 129):
            return (head, tail[:36], frame[58:60])
    return None


def road_of(key: Key) -> Key | None:
    """The key of a flow's road (`fabric.roads`): all but the ports. None: it has none (echoes, tunnels)."""
    if len(key) == 3 and len(key[2]) == 12:
        return (key[0], key[1], key[2][:8])
    return (key[0], key[1][:34]) if len(key) == 2 else None


def is_steady_tcp(frame: bytes) -> bool:
    """Whether a frame that has a road is a TCP segment that moves no connection's state."""
    if frame[12:15] == PLAIN_IPV4:
        return frame[23] == TCP and len(frame) > 47 and frame[47] & STEERING_FLAGS == STEADY
    return frame[20] == TCP and len(frame) > 67 and frame[67] & STEERING_FLAGS == STEADY


@dataclass(frozen=True, slots=True)
class Ends:
    """Who speaks in a flow: addresses of 4 or 16 bytes, the protocol's number, ports (of an echo: identifier, 0).

    The ports of a road are (0, 0).
    """

    source: bytes
    destination: bytes
    protocol: int
    ports: tuple[int, int]


def ends_of(key: Key) -> Ends:
    """What a key says; of a tunnel, what is outside."""
    if key[0][12:14] == IPV6:
        tail, echo, protocol = key[1], len(key) > 2 and len(key[1]) == 36, key[1][0]
        source, destination, ports = tail[2:18], tail[18:34], tail[34:38]
    else:
        tail, echo, protocol = key[2], len(key[2]) == 10, key[1][3]
        source, destination, ports = tail[:4], tail[4:8], tail[8:12]
    if echo:
        return Ends(source, destination, protocol, (int.from_bytes(key[-1], "big"), 0))
    return Ends(source, destination, protocol, (int.from_bytes(ports[:2], "big"), int.from_bytes(ports[2:], "big")))
