"""Header: is the IP header sound? Also for bridged frames, as br_netfilter checks them.

IPv4: version, header length, total length within the frame, checksum (RFC 1122
3.2.1; fidelity IP-05). IPv6: version, payload length. Link padding behind the
packet is cut off here (IP-02) where the packet goes to layer 3; a bridge leaves it.
Anything that is not IP passes.
"""

from __future__ import annotations

from emunet.packet.checksum import ones_sum
from emunet.packet.edit import Trim
from emunet.packet.view import ETHERNET_HEADER, Packet
from emunet.plane.element import Element
from emunet.plane.reason import Reason
from emunet.plane.step import Output, Step, Verdict, drop


class Header(Element):
    """One per host. Input and output have the same name: the way the packet is on.

    `bridged` inputs keep padding.
    """

    def __init__(self, bridged: frozenset[str] = frozenset()) -> None:
        self.name = "header"
        self.bridged = bridged

    def handle(self, packet: Packet, port: str, now: int) -> Step:
        """Drop what no IP stack may act on."""
        frame = packet.frame
        have = len(frame) - ETHERNET_HEADER
        if packet.is_ipv4:
            if have < 20:
                return drop(self.name, Reason.IP_TRUNCATED, claimed=20, length=have)
            if frame[14] >> 4 != 4:
                return drop(self.name, Reason.IP_BAD_VERSION, version=frame[14] >> 4)
            header, claimed = (frame[14] & 0x0F) * 4, packet.ip_length
            if header < 20 or header > have:
                return drop(self.name, Reason.IP_BAD_HEADER_LENGTH, length=header)
            if claimed > have or claimed < header:
                return drop(self.name, Reason.IP_TRUNCATED, claimed=claimed, length=have)
            if ones_sum(frame[14 : 14 + header]) != 0xFFFF:
                return drop(self.name, Reason.IP_BAD_CHECKSUM)
        elif packet.is_ipv6:
            if have < 40:
                return drop(self.name, Reason.IP_TRUNCATED, claimed=40, length=have)
            if frame[14] >> 4 != 6:
                return drop(self.name, Reason.IP_BAD_VERSION, version=frame[14] >> 4)
            claimed = packet.ip_length
            if claimed > have:
                return drop(self.name, Reason.IP_TRUNCATED, claimed=claimed, length=have)
        else:
            return Step(self.name, Verdict.FORWARD, Reason.NOT_IP, {}, (Output(port),))
        step = Step(self.name, Verdict.FORWARD, Reason.IP_VALID, {}, (Output(port),))
        if have > claimed and port not in self.bridged:
            step.edits = (Trim(ETHERNET_HEADER + claimed, f"{have - claimed} bytes of padding cut"),)
        return step
