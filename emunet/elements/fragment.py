"""Fragment: cut an IP packet that does not fit its interface (RFC 791 3.2, fidelity FR-01).

Comes after everything that reads ports. What may not be cut was refused by the
router, which can tell the sender; here it is only what may.

A datagram that was put together on this host (`reassemble`) is cut in any case: into the
pieces that it came in where they fit, else to the size of the largest of them or the MTU
(CT-05, FR-04; ip_output.c and ip6_output.c), also where it goes to a bridge port or to
the host's own sockets. An IPv6 packet is cut only so: its source has cut it before.
"""

from __future__ import annotations

from emunet.elements.interface import OwnAddresses
from emunet.packet import ipv4, ipv6
from emunet.packet.view import ETHERNET_HEADER, Fragments, Packet
from emunet.plane.element import Element
from emunet.plane.reason import Reason
from emunet.plane.step import Output, Step, Verdict, drop, forward

ROUTED = "routed"


class Fragment(Element):
    """Input `routed`: anything with an `egress`, output `resolve`. Any other input is passed on under its name."""

    def __init__(self, own: OwnAddresses) -> None:
        self.name = "fragment"
        self.own = own

    def handle(self, packet: Packet, port: str, now: int) -> Step:
        """Pass what fits, cut what does not."""
        if port != ROUTED:
            if packet.fragments is None:
                return forward(self.name, Reason.NOT_CUT, port)
            name = packet.egress if port == "bridged" else port
            return self._again(packet, packet.fragments, packet.fragments.largest, name, port)
        interface = self.own.interfaces[packet.egress]
        if packet.wire_ip_length <= interface.mtu and packet.fragments is None:
            return Step(
                self.name,
                Verdict.FORWARD,
                Reason.FITS,
                {"mtu": interface.mtu},
                (Output("resolve"),),
                limit=interface.mtu + ETHERNET_HEADER,
            )
        if packet.wire_ip_length > interface.mtu and packet.dont_fragment:
            return drop(
                self.name,
                Reason.TOO_BIG,
                length=packet.wire_ip_length,
                mtu=interface.mtu,
                interface=interface.name,
                sent="",
            )
        if packet.fragments is not None:
            return self._again(packet, packet.fragments, interface.mtu, interface.name, "resolve")
        whole = packet.ip_packet("cut into fragments")
        return self._cut(packet, ipv4.fragment(whole, interface.mtu), interface.mtu, interface.name, "resolve")

    def _again(self, packet: Packet, shape: Fragments, mtu: int, interface: str, output: str) -> Step:
        """What was put together is cut again."""
        mtu = min(mtu, shape.largest)
        whole = packet.ip_packet("cut into fragments")
        pieces = _cut_v4(whole, shape, mtu) if packet.is_ipv4 else _cut_v6(whole, shape, mtu)
        return self._cut(packet, pieces, mtu, interface, output)

    def _cut(self, packet: Packet, pieces: list[bytes], mtu: int, interface: str, output: str) -> Step:
        header = packet.frame[:ETHERNET_HEADER]
        return Step(
            self.name,
            Verdict.FORWARD,
            Reason.FRAGMENTED,
            {"length": packet.ip_length, "mtu": mtu, "interface": interface, "count": len(pieces)},
            [Output(output, {"fragments": None}, frame=header + piece) for piece in pieces],
        )


def _stretches(shape: Fragments, head: int, mtu: int, length: int) -> list[int]:
    """The lengths of the pieces: as they came where each fits (all but the last a multiple of 8), else all alike."""
    room = mtu - head
    pieces = shape.pieces
    fits = all(piece <= room for piece in pieces) and not any(piece % 8 for piece in pieces[:-1])
    if fits and sum(pieces) == length:
        return list(pieces)
    size = room & ~7
    return [min(size, length - start) for start in range(0, length, size)] if length > room else [length]


def _cut_v4(packet: bytes, shape: Fragments, mtu: int) -> list[bytes]:
    payload = (packet[2] << 8 | packet[3]) - shape.head
    stretches = _stretches(shape, shape.head, mtu, payload)
    return ipv4.fragment_at(packet, stretches) if tuple(stretches) == shape.pieces else ipv4.fragment(packet, mtu)


def _cut_v6(packet: bytes, shape: Fragments, mtu: int) -> list[bytes]:
    head, payload = packet[: shape.head], packet[shape.head :]
    pieces = []
    position = 0
    for length in _stretches(shape, shape.head + ipv6.FRAGMENT_HEADER_LENGTH, mtu, len(payload)):
        more = position + length < len(payload)
        fragment = ipv6.FragmentHeader(head[shape.pointer], position, more, shape.identification).pack()
        outer = bytearray(head)
        outer[shape.pointer] = ipv6.FRAGMENT
        outer[4:6] = (shape.head - ipv6.HEADER_LENGTH + len(fragment) + length).to_bytes(2, "big")
        pieces.append(bytes(outer) + fragment + payload[position : position + length])
        position += length
    return pieces
