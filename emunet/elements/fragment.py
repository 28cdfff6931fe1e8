"""Fragment: cut an IP packet that does not fit its interface (RFC 791 3.2, fidelity FR-01).

Comes after everything that reads ports. What may not be cut was refused by the
router, which can tell the sender; here it is only what may.

A datagram that was put together on this host (`reassemble`) is cut again whether it fits
or not, into the pieces that it came in, where they fit, without DF (CT-05, FR-04;
ip_output.c); also where it goes to a bridge port or to the host's own sockets. DF with a
fragment that does not fit was refused by the router. One that went up through a bridge
has lost the memory of its largest fragment, as in Linux, where layer 3 begins anew: it
is cut only where it does not fit, and then whatever DF says. An IPv6 packet is cut only
so: its source has cut it before.
"""

from __future__ import annotations

from dataclasses import replace

from emunet.elements.interface import OwnAddresses
from emunet.packet import ipv4, ipv6
from emunet.packet.view import ETHERNET_HEADER, Fragments, Packet
from emunet.plane.element import Element
from emunet.plane.reason import Reason
from emunet.plane.step import Output, Step, Verdict, drop, forward

ROUTED = "routed"
BRIDGED = "bridged"
LONGEST = 65535


class Fragment(Element):
    """Input `routed`: anything with an `egress`, output `resolve`. Any other input is passed on under its name."""

    def __init__(self, own: OwnAddresses) -> None:
        self.name = "fragment"
        self.own = own

    def handle(self, packet: Packet, port: str, now: int) -> Step:
        """Pass what fits, cut what does not."""
        shape = packet.fragments
        if port != ROUTED:
            if shape is None:
                return forward(self.name, Reason.NOT_CUT, port)
            pieces = _again(packet, shape, LONGEST)
            return self._cut(packet, pieces, shape.largest, packet.egress if port == BRIDGED else port, port)
        interface = self.own.interfaces[packet.egress]
        length = packet.wire_ip_length if shape is None or shape.largest else packet.ip_length
        if length <= interface.mtu and (shape is None or not shape.largest):
            return Step(
                self.name,
                Verdict.FORWARD,
                Reason.FITS,
                {"mtu": interface.mtu},
                (Output("resolve", {} if shape is None else {"fragments": None}),),
                limit=interface.mtu + ETHERNET_HEADER,
            )
        if length > interface.mtu and packet.dont_fragment and (shape is None or shape.largest):
            return drop(
                self.name,
                Reason.TOO_BIG,
                length=length,
                mtu=interface.mtu,
                interface=interface.name,
                sent="",
            )
        if shape is None:
            pieces = ipv4.fragment(packet.ip_packet("cut into fragments"), interface.mtu)
        else:
            pieces = _again(packet, shape, interface.mtu)
        return self._cut(packet, pieces, interface.mtu, interface.name, "resolve")

    def _cut(self, packet: Packet, pieces: list[bytes], mtu: int, interface: str, output: str) -> Step:
        header = packet.frame[:ETHERNET_HEADER]
        return Step(
            self.name,
            Verdict.FORWARD,
            Reason.FRAGMENTED,
            {"length": packet.ip_length, "mtu": mtu, "interface": interface, "count": len(pieces)},
            [Output(output, {"fragments": None}, frame=header + piece) for piece in pieces],
        )


def _again(packet: Packet, shape: Fragments, mtu: int) -> list[bytes]:
    """The pieces of what was put together: as it came where they fit, else all alike."""
    whole = packet.ip_packet("cut into fragments")
    overhead = shape.head if packet.is_ipv4 else shape.head + ipv6.FRAGMENT_HEADER_LENGTH
    payload, room = sum(shape.pieces), mtu - overhead
    lengths = shape.pieces
    if max(lengths) > room:
        lengths = tuple(min(room & ~7, payload - start) for start in range(0, payload, room & ~7))
    if packet.is_ipv6:
        return _cut_v6(whole, shape, lengths)
    if packet.dont_fragment:
        header, body = ipv4.IPv4.parse(whole)
        whole = replace(header, dont_fragment=False).pack(body)
    return ipv4.fragment_at(whole, lengths) if lengths == shape.pieces else ipv4.fragment(whole, mtu)


def _cut_v6(packet: bytes, shape: Fragments, lengths: tuple[int, ...]) -> list[bytes]:
    head, payload = packet[: shape.head], packet[shape.head :]
    pieces = []
    position = 0
    for length in lengths:
        more = position + length < len(payload)
        fragment = ipv6.FragmentHeader(head[shape.pointer], position, more, shape.identification).pack()
        outer = bytearray(head)
        outer[shape.pointer] = ipv6.FRAGMENT
        outer[4:6] = (shape.head - ipv6.HEADER_LENGTH + len(fragment) + length).to_bytes(2, "big")
        pieces.append(bytes(outer) + fragment + payload[position : position + length])
        position += length
    return pieces
