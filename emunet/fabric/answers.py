"""The packets of an exchange: the first one of a connection, and what whoever gets it would answer.

Rule of this file: bytes in, bytes out; an answer has what the question says in the places where
an answer says it, and nothing of a program's own.
"""

from __future__ import annotations

from emunet.packet import icmp, icmpv6, ipv4, ipv6, tcp, udp
from emunet.packet.view import ETHERNET_HEADER, Packet

SYN, SYN_ACK = 0x02, 0x12
SOURCE_PORT = 49_152
"""The first of the ports that stacks take for themselves (RFC 6335 6)."""

_SCTP = 132


def question(source: bytes, target: bytes, protocol: str, port: int, source_port: int = SOURCE_PORT) -> bytes:
    """The first packet of a connection: `protocol` is TCP, UDP, SCTP, or ICMP for an echo request."""
    return _packet(source, target, protocol, source_port, port, SYN)


def answer(frame: bytes) -> bytes | None:
    """The IP packet that answers one which arrived; None where nothing does."""
    packet = Packet(frame)
    source, target, protocol = packet.ip_source, packet.ip_destination, packet.protocol
    at = ETHERNET_HEADER + packet.header_length
    if not source or len(frame) < at + 8:
        return None
    sport, dport = int.from_bytes(frame[at : at + 2], "big"), int.from_bytes(frame[at + 2 : at + 4], "big")
    if protocol in (ipv4.ICMP, ipv4.ICMPV6):
        return _echo(target, source, int.from_bytes(frame[at + 4 : at + 6], "big"), reply=True)
    name = {ipv4.TCP: "TCP", ipv4.UDP: "UDP", _SCTP: "SCTP"}.get(protocol)
    return None if name is None else _packet(target, source, name, dport, sport, SYN_ACK)


def _packet(source: bytes, target: bytes, protocol: str, sport: int, dport: int, flags: int) -> bytes:
    if protocol == "ICMP":
        return _echo(source, target, sport, reply=False)
    if protocol == "TCP":
        acknowledged = 2 if flags == SYN_ACK else 0
        body, number = tcp.Tcp(sport, dport, 1, acknowledged, flags, 65535).pack(source, target, b""), ipv4.TCP
    elif protocol == "UDP":
        body, number = udp.Udp(sport, dport).pack(source, target, b""), ipv4.UDP
    else:
        # INIT or INIT ACK (RFC 9260 3.3.2); nobody on the way looks at more than the ports.
        chunk = bytes((2 if flags == SYN_ACK else 1, 0, 0, 20)) + bytes(16)
        body, number = sport.to_bytes(2, "big") + dport.to_bytes(2, "big") + bytes(8) + chunk, _SCTP
    return _in_ip(source, target, number, body)


def _echo(source: bytes, target: bytes, identifier: int, *, reply: bool) -> bytes:
    if len(source) == 4:
        request = icmp.echo_request(identifier, 1, bytes(56))
        return _in_ip(source, target, ipv4.ICMP, (icmp.echo_reply(request) if reply else request).pack())
    asked = icmpv6.echo_request(identifier, 1, bytes(56))
    message = icmpv6.echo_reply(asked) if reply else asked
    return _in_ip(source, target, ipv4.ICMPV6, message.pack(source, target))


def _in_ip(source: bytes, target: bytes, protocol: int, body: bytes) -> bytes:
    if len(source) == 4:
        return ipv4.IPv4(source, target, protocol).pack(body)
    return ipv6.IPv6(source, target, protocol, hop_limit=64).pack(body)
