"""Translation: the edits that give a packet another source or destination, all checksums right.

Edits only: addresses and ports are put, the IPv4 header checksum and the transport
checksum follow by difference, so a damaged packet stays damaged and a partial checksum
partial (`packet.edit`). An ICMP error is translated outside and inside: the packet that
it quotes gets back what its sender wrote, its own checksums follow, and the error's
checksum is made anew (fidelity SVC-23).

Rule of this file: what a packet already says needs no edit, so translating twice is
translating once.
"""

from __future__ import annotations

from dataclasses import dataclass

from emunet.elements.connections.flow import ICMP, ICMPV6, PORTS, QUERIES, TCP, UDP, Flow, read_quoted
from emunet.packet.address import format_ip
from emunet.packet.checksum import checksum, transport_checksum
from emunet.packet.edit import Adjust, AdjustTransport, Edit, Put, apply
from emunet.packet.view import ETHERNET_HEADER, Packet

CHECKSUMS = {TCP: 16, UDP: 6, ICMPV6: 2}
"""Where a transport header has its checksum over the pseudo-header too."""


def to_destination(packet: Packet, at: int, target: Flow) -> tuple[Edit, ...]:
    """Edits that send the packet to the destination of `target`. `at`: where its transport header begins."""
    return _edits(packet.frame, ETHERNET_HEADER, at, target, source=False)


def from_source(packet: Packet, at: int, target: Flow) -> tuple[Edit, ...]:
    """Edits that let the packet come from the source of `target`."""
    return _edits(packet.frame, ETHERNET_HEADER, at, target, source=True)


def error_to_destination(packet: Packet, at: int, target: Flow) -> tuple[Edit, ...]:
    """As `to_destination`, for an ICMP error about a packet of the other direction than `target`."""
    return _error_edits(packet, at, target, source=False)


def error_from_source(packet: Packet, at: int, target: Flow) -> tuple[Edit, ...]:
    """As `from_source`, for an ICMP error about a packet of the other direction than `target`."""
    return _error_edits(packet, at, target, source=True)


def _edits(data: bytes, network: int, at: int, target: Flow, *, source: bool) -> tuple[Edit, ...]:
    is_v4 = len(target.source) == 4
    address = target.source if source else target.destination
    if is_v4:
        place = network + (12 if source else 16)
    else:
        place = network + (8 if source else 24)
    old = data[place : place + len(address)]
    protocol = target.protocol
    field = _field(protocol, at, source=source)
    before = after = b""
    if field is not None and len(data) >= field + 2:
        number = target.source_port if source or protocol in QUERIES else target.destination_port
        before, after = data[field : field + 2], number.to_bytes(2, "big")
    if old == address and before == after:
        return ()
    sum_at = at + CHECKSUMS[protocol] if protocol in CHECKSUMS else 0
    summed = bool(sum_at) and len(data) >= sum_at + 2
    optional = protocol == UDP
    edits: list[Edit] = []
    if old != address:
        edits.append(Put(place, address, Moved(protocol, source, old, before, address, after)))
        if is_v4:
            edits.append(Adjust(network + 10, old, address, "header checksum"))
        if summed:
            edits.append(AdjustTransport(sum_at, old, address, pseudo=True, optional=optional))
    if before != after:
        assert field is not None
        edits.append(Put(field, after, "" if edits else Moved(protocol, source, old, before, address, after)))
        if summed:
            edits.append(AdjustTransport(sum_at, before, after, pseudo=False, optional=optional))
        elif protocol == ICMP:
            edits.append(Adjust(at + 2, before, after, "ICMP checksum"))
    return tuple(edits)


def _field(protocol: int, at: int, *, source: bool) -> int | None:
    """Where the port or the identifier stands."""
    if protocol in PORTS:
        return at if source else at + 2
    return at + 4 if protocol in QUERIES else None


@dataclass(frozen=True, slots=True)
class Moved:
    """An address, and a port or identifier, that became another; in words, once somebody asks for them."""

    protocol: int
    is_source: bool
    old: bytes
    before: bytes
    new: bytes
    after: bytes

    def __str__(self) -> str:
        old, before, new, after = self.old, self.before, self.new, self.after
        side = "source" if self.is_source else "destination"
        if self.protocol in QUERIES:
            numbers = f"{int.from_bytes(before, 'big')} -> {int.from_bytes(after, 'big')}"
            return f"{side} {format_ip(old)} -> {format_ip(new)}" + (f", id {numbers}" if before != after else "")
        if not before:
            return f"{side} {format_ip(old)} -> {format_ip(new)}"
        ports = int.from_bytes(before, "big"), int.from_bytes(after, "big")
        return f"{side} {_address(old)}:{ports[0]} -> {_address(new)}:{ports[1]}"


def _address(address: bytes) -> str:
    return format_ip(address) if len(address) == 4 else f"[{format_ip(address)}]"


def _error_edits(packet: Packet, at: int, target: Flow, *, source: bool) -> tuple[Edit, ...]:
    """The quoted packet went the other way: what is the error's source is the quote's destination."""
    frame = packet.whole("an ICMP error is translated with what it quotes")
    is_v4 = len(target.source) == 4
    end = ETHERNET_HEADER + packet.ip_length
    message = frame[at:end]
    quoted = read_quoted(message[8:])
    inside = target.inverted()
    if quoted is None or inside is None:
        return ()
    inner = apply(message[8:], _edits(message[8:], 0, quoted[1], inside, source=not source))
    outside = _edits(frame, ETHERNET_HEADER, at, Flow(target.source, target.destination, 0), source=source)
    if inner == message[8:] and not outside:
        return ()
    addresses = [packet.ip_source, packet.ip_destination]
    addresses[0 if source else 1] = target.source if source else target.destination
    blank = message[:2] + bytes(2) + message[4:8] + inner
    value = checksum(blank) if is_v4 else transport_checksum(addresses[0], addresses[1], ICMPV6, blank)
    body = blank[:2] + value.to_bytes(2, "big") + blank[4:]
    words = "the quoted packet's destination with it" if source else "the quoted packet's source with it"
    return (*outside, Put(at, body, words))
