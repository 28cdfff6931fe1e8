"""Flow: what all packets of one direction of a connection have in common.

Netfilter calls it a tuple: addresses, protocol and, where the protocol has them, ports.
A query of ICMP (echo, timestamp) has an identifier, which is the same in both
directions and stands where the source port does; its type and code stand where the
destination port does. Every other protocol has zeros there.

Rule of this file: reading a flow raises for no packet; what has no flow gives None.
"""

from __future__ import annotations

from typing import NamedTuple

from emunet.packet import ipv4, ipv6
from emunet.packet.address import format_ip
from emunet.packet.malformed import Malformed
from emunet.packet.view import AT_FLOW, ETHERNET_HEADER, PLAIN_IPV4, Packet

TCP = ipv4.TCP
UDP = ipv4.UDP
ICMP = ipv4.ICMP
ICMPV6 = ipv4.ICMPV6
SCTP = 132
PORTS = frozenset((TCP, UDP))
"""Protocols whose ports are translated."""
PORTED = PORTS | {SCTP}
"""Protocols that have ports. SCTP's are told apart and stay: its checksum is over the whole packet."""
QUERIES = frozenset((ICMP, ICMPV6))
NAMES = {TCP: "tcp", UDP: "udp", ICMP: "icmp", ICMPV6: "icmpv6", SCTP: "sctp"}

ANSWERS = {
    ICMP: {0: 8, 8: 0, 13: 14, 14: 13, 15: 16, 16: 15, 17: 18, 18: 17},
    ICMPV6: {128: 129, 129: 128, 139: 140, 140: 139},
}
"""Query and reply types of ICMP, each with its counterpart (RFC 792, RFC 950; RFC 4443, RFC 4620)."""

EXTENSIONS = frozenset((ipv6.HOP_BY_HOP, ipv6.ROUTING, ipv6.FRAGMENT, ipv6.DESTINATION_OPTIONS))


class Flow(NamedTuple):
    """One direction. For ICMP `source_port` is the identifier and `destination_port` is type << 8 | code."""

    source: bytes
    destination: bytes
    protocol: int
    source_port: int = 0
    destination_port: int = 0

    def inverted(self) -> Flow | None:
        """The flow of what answers; None for an ICMP type that nothing answers."""
        source, destination, protocol, source_port, destination_port = self
        if protocol not in QUERIES:
            return Flow(destination, source, protocol, destination_port, source_port)
        answer = ANSWERS[protocol].get(destination_port >> 8)
        if answer is None:
            return None
        return Flow(destination, source, protocol, source_port, answer << 8 | destination_port & 0xFF)

    def as_text(self) -> str:
        """The fields as `conntrack -L` prints them."""
        text = f"src={format_ip(self.source)} dst={format_ip(self.destination)}"
        if self.protocol in PORTED:
            return f"{text} sport={self.source_port} dport={self.destination_port}"
        if self.protocol in QUERIES:
            kind, code = self.destination_port >> 8, self.destination_port & 0xFF
            return f"{text} type={kind} code={code} id={self.source_port}"
        return text


def read(packet: Packet) -> tuple[Flow, int] | None:
    """The packet's flow and where its transport header begins; None for a fragment or what is shorter than 8 bytes.

    Reads fields of the flow key only, except behind IPv6 extension headers.
    """
    packet.looked = AT_FLOW
    frame = packet.frame
    if frame[12:15] == PLAIN_IPV4 and not (frame[20] & 0x3F or frame[21]):  # most packets: 2 µs instead of 4
        ports = _ports(frame, 34, ETHERNET_HEADER + (frame[16] << 8 | frame[17]), frame[23])
        return None if ports is None else (Flow(frame[26:30], frame[30:34], frame[23], *ports), 34)
    protocol = packet.protocol
    at = ETHERNET_HEADER + packet.header_length
    if packet.is_ipv4:
        if packet.is_fragment:
            return None
    elif protocol in EXTENSIONS:
        found = _upper_layer(packet.ip_packet("it has extension headers"))
        if found is None:
            return None
        protocol, at = found[0], ETHERNET_HEADER + found[1]
    end = ETHERNET_HEADER + packet.ip_length
    ports = _ports(frame, at, end, protocol)
    if ports is None:
        return None
    return Flow(packet.ip_source, packet.ip_destination, protocol, *ports), at


def read_quoted(quote: bytes) -> tuple[Flow, int] | None:
    """The flow of the packet that an ICMP error quotes, and where its transport header begins; None as in `read`.

    At least 8 bytes of the transport header must be there (RFC 792); the rest may be cut off.
    """
    if len(quote) < 20:
        return None
    if quote[0] >> 4 == 4:
        at, protocol = (quote[0] & 0x0F) * 4, quote[9]
        source, destination = quote[12:16], quote[16:20]
        if at < 20 or (quote[6] << 8 | quote[7]) & 0x1FFF:
            return None
    elif quote[0] >> 4 == 6 and len(quote) >= 40:
        found = _upper_layer(quote)
        if found is None:
            return None
        protocol, at = found
        source, destination = quote[8:24], quote[24:40]
    else:
        return None
    if len(quote) < at + 8:
        return None
    ports = _ports(quote, at, len(quote), protocol)
    return None if ports is None else (Flow(source, destination, protocol, *ports), at)


def _upper_layer(packet: bytes) -> tuple[int, int] | None:
    try:
        protocol, at = ipv6.upper_layer(packet)
    except Malformed:
        return None
    return None if protocol == ipv6.FRAGMENT else (protocol, at)


def _ports(data: bytes, at: int, end: int, protocol: int) -> tuple[int, int] | None:
    if protocol in PORTED:
        if end < at + 8:
            return None
        return data[at] << 8 | data[at + 1], data[at + 2] << 8 | data[at + 3]
    if protocol in QUERIES:
        if end < at + 8:
            return None
        return data[at + 4] << 8 | data[at + 5], data[at] << 8 | data[at + 1]
    return 0, 0
