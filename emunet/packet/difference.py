"""What differs between two sightings of one packet, and how to know it again.

On its way a packet's MACs, TTL, addresses, ports, marks and encapsulation may change. What is left
the same by all of that is its mark here: the IPv4 identification, what the transport header says of
the conversation, and the payload. (So a retransmission, whose identification is another, is another.)

Rule of this file: any bytes have a view and a mark; nothing is judged.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace

from emunet.packet.address import format_ip, format_mac

_TAGS = (b"\x81\x00", b"\x88\xa8")
_ICMP_QUOTES = {1: (3, 4, 5, 11, 12), 58: (1, 2, 3, 4)}
_ICMP_ECHO = {1: (0, 8), 58: (128, 129)}
_EXTENSIONS = (0, 43, 60)
_FRAGMENT = 44
_TCP_FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A VXLAN header around a packet: its network, and the ends of the outer packet."""

    vni: int
    source: bytes
    destination: bytes

    def __str__(self) -> str:
        return f"VXLAN {self.vni} from {format_ip(self.source)} to {format_ip(self.destination)}"


@dataclass(frozen=True, slots=True)
class View:
    """A frame as far as it is compared; of a tunnel, the frame inside.

    tunnels   those around it, outermost first
    address   of IP: source and destination, else empty
    fragment  offset in bytes, and whether more follow
    talk      what the transport header says of the conversation; ports and identifiers, which NAT changes, left out
    payload   above the transport header; all that is not understood
    """

    tunnels: tuple[Tunnel, ...]
    mac_source: bytes
    mac_destination: bytes
    tags: tuple[int, ...]
    ethertype: bytes
    source: bytes = b""
    destination: bytes = b""
    protocol: int = -1
    hops: int = -1
    tos: int = -1
    identification: int = -1
    fragment: tuple[int, bool] = (0, False)
    ports: tuple[int, int] | None = None
    echo: int | None = None
    talk: tuple[Hashable, ...] = ()
    options: bytes = b""
    payload: bytes = b""

    @property
    def mark(self) -> Hashable:
        """Equal for two sightings of one packet, whatever was done to it on its way."""
        return self.ethertype, self.protocol, self.identification, self.fragment[0], self.talk, self.payload

    @property
    def datagram(self) -> Hashable | None:
        """Equal for the pieces of a datagram, and for it as a whole; None where nothing tells."""
        return None if self.identification <= 0 else (self.ethertype, self.protocol, self.identification)


def view(frame: bytes) -> View:
    """What is compared of a frame."""
    tunnels: tuple[Tunnel, ...] = ()
    while True:
        seen = replace(_link(frame), tunnels=tunnels)
        if not _is_tunnel(seen):
            return seen
        vni = int.from_bytes(seen.payload[4:7], "big")
        tunnels = (*tunnels, Tunnel(vni, seen.source, seen.destination))
        frame = seen.payload[8:]


def _is_tunnel(seen: View) -> bool:
    """VXLAN on any port, by its header (RFC 7348 5): other UDP that begins so by chance is rare, and of no harm."""
    payload = seen.payload
    return seen.protocol == 17 and len(payload) >= 22 and payload[:4] == b"\x08\0\0\0" and payload[7] == 0


def _link(frame: bytes) -> View:
    at = 12
    tags: list[int] = []
    while frame[at : at + 2] in _TAGS and len(frame) >= at + 6:
        tags.append((frame[at + 2] & 15) << 8 | frame[at + 3])
        at += 4
    packet = frame[at + 2 :]
    seen = View((), frame[6:12], frame[:6], tuple(tags), frame[at : at + 2], payload=packet)
    if seen.ethertype == b"\x08\x00" and len(packet) >= 20 and packet[0] >> 4 == 4:
        return _ipv4(seen, packet)
    if seen.ethertype == b"\x86\xdd" and len(packet) >= 40 and packet[0] >> 4 == 6:
        return _ipv6(seen, packet)
    return seen


def _ipv4(link: View, packet: bytes) -> View:
    header = (packet[0] & 15) * 4
    place = packet[6] << 8 | packet[7]
    seen = replace(
        link,
        source=packet[12:16],
        destination=packet[16:20],
        protocol=packet[9],
        hops=packet[8],
        tos=packet[1],
        identification=packet[4] << 8 | packet[5],
        fragment=((place & 0x1FFF) * 8, bool(place & 0x2000)),
    )
    return _transport(seen, packet[header : max(header, packet[2] << 8 | packet[3])])


def _ipv6(link: View, packet: bytes) -> View:
    protocol, body = packet[6], packet[40 : 40 + (packet[4] << 8 | packet[5])]
    while protocol in _EXTENSIONS and len(body) >= 8:
        protocol, body = body[0], body[(body[1] + 1) * 8 :]
    identification, fragment = -1, (0, False)
    if protocol == _FRAGMENT and len(body) >= 8:
        identification, place = int.from_bytes(body[4:8], "big"), body[2] << 8 | body[3]
        fragment = (place & 0xFFF8, bool(place & 1))
        protocol, body = body[0], body[8:]
    seen = replace(
        link,
        source=packet[8:24],
        destination=packet[24:40],
        protocol=protocol,
        hops=packet[7],
        tos=(packet[0] << 4 | packet[1] >> 4) & 0xFF,
        identification=identification,
        fragment=fragment,
    )
    return _transport(seen, body)


def _transport(seen: View, body: bytes) -> View:
    protocol = seen.protocol
    if seen.fragment[0]:
        return replace(seen, payload=body)
    if protocol == 17 and len(body) >= 8:
        return replace(seen, ports=_ports(body), payload=body[8:])
    if protocol == 6 and len(body) >= 20:
        header = max(20, (body[12] >> 4) * 4)
        numbers = (body[4:12], body[13] & 0x3F)
        return replace(seen, ports=_ports(body), talk=numbers, options=body[20:header], payload=body[header:])
    if protocol in _ICMP_ECHO and len(body) >= 8 and body[0] in _ICMP_ECHO[protocol]:
        sequence = (body[0], body[1], body[6:8])
        return replace(seen, echo=body[4] << 8 | body[5], talk=sequence, payload=body[8:])
    if protocol in _ICMP_QUOTES and len(body) >= 8 and body[0] in _ICMP_QUOTES[protocol]:
        # What it quotes is translated with it: known again by what NAT leaves alone.
        quoted = _link(bytes(12) + seen.ethertype + body[8:])
        return replace(seen, talk=(body[0], body[1], quoted.protocol, quoted.identification, quoted.talk), payload=b"")
    return replace(seen, payload=body)


def _ports(body: bytes) -> tuple[int, int]:
    return body[0] << 8 | body[1], body[2] << 8 | body[3]


def changes(before: View, after: View) -> list[tuple[str, str]]:
    """What became of a packet between two sightings: (what, from -> to), in the order of the headers."""
    found: list[tuple[str, str]] = []

    def compare(what: str, old: object, new: object) -> None:
        if old != new:
            found.append((what, f"{old} -> {new}"))

    if before.tunnels != after.tunnels:
        for tunnel in before.tunnels:
            if tunnel not in after.tunnels:
                found.append(("taken out of", str(tunnel)))
        for tunnel in after.tunnels:
            if tunnel not in before.tunnels:
                found.append(("put into", str(tunnel)))
    compare("VLAN", _listed(before.tags), _listed(after.tags))
    compare("source MAC", format_mac(before.mac_source), format_mac(after.mac_source))
    compare("destination MAC", format_mac(before.mac_destination), format_mac(after.mac_destination))
    if before.source and after.source:
        compare("source address", format_ip(before.source), format_ip(after.source))
        compare("destination address", format_ip(before.destination), format_ip(after.destination))
        compare("TTL", before.hops, after.hops)
        compare("DSCP", before.tos >> 2, after.tos >> 2)
        compare("ECN", before.tos & 3, after.tos & 3)
        compare("fragment", _piece(before), _piece(after))
    if before.ports is not None and after.ports is not None:
        compare("source port", before.ports[0], after.ports[0])
        compare("destination port", before.ports[1], after.ports[1])
    compare("echo identifier", before.echo, after.echo)
    if before.talk != after.talk:
        found.append(("transport header", _talk(before, after)))
    compare("TCP options", before.options.hex() or "none", after.options.hex() or "none")
    if before.payload != after.payload and before.fragment == after.fragment:
        found.append(("payload", _where(before.payload, after.payload)))
    return found


def _listed(tags: tuple[int, ...]) -> str:
    return ", ".join(map(str, tags)) or "none"


def _piece(seen: View) -> str:
    offset, more = seen.fragment
    return f"bytes from {offset}{', more follow' if more else ''}" if offset or more else "whole"


def _talk(before: View, after: View) -> str:
    if before.protocol == after.protocol == 6 and len(before.talk) == len(after.talk) == 2:
        old, new = (_flags(seen.talk[1]) for seen in (before, after))
        return f"flags {old} -> {new}" if old != new else "sequence or acknowledgement numbers"
    return f"{before.talk} -> {after.talk}"


def _flags(value: object) -> str:
    return (
        "+".join(name for bit, name in enumerate(_TCP_FLAGS) if isinstance(value, int) and value >> bit & 1) or "none"
    )


def _where(old: bytes, new: bytes) -> str:
    if len(old) != len(new):
        return f"{len(old)} bytes -> {len(new)} bytes"
    places = [place for place, (one, other) in enumerate(zip(old, new, strict=True)) if one != other]
    return f"{len(places)} of {len(old)} bytes, the first at {places[0]}"
