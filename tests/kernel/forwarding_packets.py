"""Generated packets of either family for the judge of the router: most are right, some are wrong in one way.

Sources are used once where the kernel keeps something of each (rates of errors and of
redirects), so that no frame's fate depends on the ones before it.
"""

from __future__ import annotations

import random
from dataclasses import replace

from emunet.packet import icmp, icmpv6, ipv4, ipv6, tcp, udp
from emunet.packet.address import multicast_mac
from emunet.packet.checksum import checksum
from tests.stories.benches import host_mac, ip, router_mac

BROADCAST = b"\xff" * 6
NEIGHBORS = range(2, 252)
"""Stations of e1's network: the node knows the MAC of each, and each is h1."""


def with_right_checksum(packet: bytes) -> bytes:
    """An IPv4 packet with its header checksum made right, as far as it has a header."""
    length = max(20, (packet[0] & 15) * 4)
    zeroed = packet[:10] + bytes(2) + packet[12:length]
    return packet[:10] + checksum(zeroed).to_bytes(2, "big") + packet[12:]


class Packets:
    """Generated packets of either family, by one seed."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.fresh = 0
        self.on_link = list(NEIGHBORS)[8:]
        self.draw.shuffle(self.on_link)

    def sender(self) -> bytes:
        """A source that has never been used: what the node keeps of it is new (IC-13, IC-16)."""
        self.fresh += 1
        return bytes((10, 8, self.fresh >> 8 & 0xFF, self.fresh & 0xFF))

    def payload(self, source: bytes, destination: bytes) -> tuple[int, bytes]:
        """(protocol, what is behind the IP header)."""
        draw = self.draw
        data = bytes(draw.randrange(256) for _ in range(8)) * draw.choice([0, 1, 3, 20, 100, 160, 172])
        kind = draw.choice(["udp", "udp", "tcp", "icmp", "icmp", "other"])
        if kind == "udp":
            body = udp.Udp(draw.randrange(1, 65536), draw.choice([7, 53, 9999])).pack(source, destination, data)
            roll = draw.random()
            if roll < 0.1:
                body = body[:6] + bytes(2) + body[8:]
            elif roll < 0.2:
                body = body[:6] + bytes((body[6] ^ 1,)) + body[7:]
            return 17, body
        if kind == "tcp":
            flags = draw.choice([2, 16, 18, 4, 1, 17, 0, 20])
            header = tcp.Tcp(draw.randrange(1, 65536), draw.choice([7, 80]), draw.randrange(1 << 32), 77, flags, 500)
            return 6, header.pack(source, destination, data[:40])
        if kind == "icmp":
            return self.message(source, destination, data)
        return draw.choice([2, 4, 47, 50, 132, 200, 253]), data

    def message(self, source: bytes, destination: bytes, data: bytes) -> tuple[int, bytes]:
        draw = self.draw
        if len(source) == 4:
            kind = draw.choice([0, 3, 4, 5, 8, 8, 8, 9, 10, 11, 12, 13, 15, 17, 40])
            quoted = ipv4.IPv4(destination, source, 17).pack(bytes(8))
            rest = bytes(draw.randrange(256) for _ in range(4))
            body = icmp.Icmp(kind, 0, rest, data if kind in (0, 8) else bytes(12) if kind in (13, 15, 17) else quoted)
            return 1, body.pack()
        kind = draw.choice([1, 2, 3, 4, 128, 128, 128, 129, 100, 200])
        quoted = ipv6.IPv6(destination, source, 17).pack(bytes(8))
        rest = bytes(draw.randrange(256) for _ in range(4))
        return 58, icmpv6.Icmpv6(kind, 0, rest, data if kind > 127 else quoted).pack(source, destination)

    def options(self) -> bytes:
        draw = self.draw
        kinds = (
            b"\x07\x0b\x04" + bytes(8), b"\x07\x07\x08\x0a\x09\x09\x09", b"\x07\x07\x05" + bytes(4), b"\x07\x03\x04",
            b"\x07\x02", b"\x07\x01", b"\x07\x00", b"\x07\x30\x04", b"\x44\x0c\x05\x00" + bytes(8),
            b"\x44\x0c\x05\x01" + bytes(8), b"\x44\x0c\x05\x03\x0a\x00\x02\x01" + bytes(4),
            b"\x44\x08\x09\x10" + bytes(4), b"\x44\x08\x09\xf0" + bytes(4), b"\x44\x08\x05\x02" + bytes(4),
            b"\x44\x04\x05\x00", b"\x44\x03\x05", b"\x44\x0c\x05\x03\x0a\x63\x63\x63" + bytes(4),
            b"\x83\x07\x04\x0a\x00\x02\x02", b"\x89\x07\x04\x0a\x00\x02\x02", b"\x83\x03\x03", b"\x94\x04\x00\x00",
            b"\x94\x03\x00", b"\x94\x04\x12\x34", b"\x88\x04\x12\x34", b"\xde\x04\xaa\xbb",
            b"\x1e\x06\x01\x02\x03\x04", b"\x1e\x01", b"\x01", b"\x01\x01\x01", b"\x00\xff\xff",
            b"\x82\x0b" + bytes(9),
        )  # fmt: skip
        chosen = b"".join(draw.choice(kinds) for _ in range(draw.choice([1, 1, 1, 2, 3])))[:40]
        return chosen + bytes(-len(chosen) % 4)

    def v4(self) -> tuple[str, bytes]:
        """(port, frame)."""
        draw = self.draw
        source, destination = self.sender(), self.destination()
        roll = draw.random()
        if roll < 0.12:
            # Each of these is used often, so never where it would be told that there is no route (IC-13).
            source, destination = ip(draw.choice(ODD_SOURCES)), ip(draw.choice(ROUTED_V4))
        elif roll < 0.17 and self.on_link:
            source = ip(f"10.0.1.{self.on_link.pop()}")
            destination = draw.choice([destination, destination, ip("10.9.0.1")])  # a redirect is due
        protocol, body = self.payload(source, destination)
        header = ipv4.IPv4(
            source,
            destination,
            protocol,
            ttl=draw.choice([64, 64, 64, 64, 2, 1, 0, 255]),
            tos=draw.choice([0, 0, 0x10, 0xB8, 0xFF, 3]),
            identification=draw.randrange(1, 65536),
            dont_fragment=draw.random() < 0.4,
            options=self.options() if draw.random() < 0.25 else b"",
        )
        roll = draw.random()
        to_node = destination[:2] == b"\x0a\x00" and destination[3] == 1
        if roll < 0.12 and not to_node:
            body = body[: len(body) & ~7]
            offset = draw.choice([0, 0, 8, 1480, 8000])
            header = replace(header, more_fragments=draw.random() < 0.6 or not offset, fragment_offset=offset)
        packet = header.pack(body)
        if draw.random() < 0.08:
            packet = self.damaged(packet)
        padding = bytes(draw.choice([0, 0, 0, 0, 7, 30]))
        mac = router_mac(1)
        roll = draw.random()
        if roll < 0.05:
            mac = draw.choice([BROADCAST, bytes.fromhex("01005e010203"), bytes.fromhex("0200000001aa")])
        elif destination[0] >> 4 == 14 and roll < 0.9:
            mac = multicast_mac(destination)
        elif destination[3] == 255 and roll < 0.7:
            mac = BROADCAST
        return "e1", mac + host_mac(1) + b"\x08\x00" + packet + padding

    def damaged(self, packet: bytes) -> bytes:
        draw = self.draw
        kind = draw.choice(["checksum", "version", "ihl", "long", "short", "cut"])
        if kind == "checksum":
            return packet[:10] + bytes((packet[10] ^ 4,)) + packet[11:]
        if kind == "cut":
            return packet[: draw.randrange(len(packet))]
        if kind == "version":
            return with_right_checksum(bytes((packet[0] & 15 | 0x50,)) + packet[1:])
        if kind == "ihl":
            return with_right_checksum(bytes((0x40 | draw.randrange(5),)) + packet[1:])
        length = len(packet) + 50 if kind == "long" else draw.randrange(0, 20)
        return with_right_checksum(packet[:2] + length.to_bytes(2, "big") + packet[4:])

    def destination(self) -> bytes:
        return ip(self.draw.choice(DESTINATIONS_V4))

    def v6(self) -> tuple[str, bytes]:
        """(port, frame)."""
        draw = self.draw
        self.fresh += 1
        source = ip("fd08::")[:12] + self.fresh.to_bytes(4, "big")
        destination = ip(draw.choice(DESTINATIONS_V6))
        roll = draw.random()
        if roll < 0.15:
            source = ip(draw.choice(ODD_SOURCES_V6))
        shared = destination[0] == 0xFF or destination in (ip("fd00:1::"), ip("fd00:2::"))
        if shared and (source[0] == 0xFE or source == ip("fd30::7")):
            # What was sent to several is answered by the interface that it came in by, from its own addresses; the
            # host's stack in memory knows neither.
            source = ip("fd00:1::2")
        protocol, body = self.payload(source, destination)
        if protocol == 58 and (destination[0] >= 0xFE or (destination[3] in (1, 2, 3) and destination[15] < 2)):
            protocol, body = self.message(source, destination, bytes(64))  # nor does it know the MTU of the way back
        if protocol == 1:
            protocol = 58
        header = ipv6.IPv6(
            source,
            destination,
            protocol,
            hop_limit=draw.choice([64, 64, 64, 64, 2, 1, 0, 255]),
            traffic_class=draw.choice([0, 0, 0xB8, 3]),
            flow_label=draw.choice([0, 0x12345]),
        )
        packet = header.pack(body)
        roll = draw.random()
        if roll < 0.15:
            packet = self.extended(header, protocol, body)
        elif roll < 0.2:
            packet = packet[:4] + (len(body) + 50).to_bytes(2, "big") + packet[6:]
        elif roll < 0.23:
            packet = bytes((packet[0] & 15 | 0x50,)) + packet[1:]
        elif roll < 0.25:
            packet = packet[: draw.randrange(len(packet))]
        mac = router_mac(1)
        roll = draw.random()
        if roll < 0.04:
            mac = draw.choice([BROADCAST, bytes.fromhex("333300000001"), bytes.fromhex("0200000001aa")])
        elif destination[0] == 0xFF and roll < 0.9:
            mac = multicast_mac(destination)
        return "e1", mac + host_mac(1) + b"\x86\xdd" + packet + bytes(draw.choice([0, 0, 0, 9]))

    def extended(self, header: ipv6.IPv6, protocol: int, body: bytes) -> bytes:
        draw = self.draw
        kind = draw.choice(["hop", "hop", "hop", "fragment", "destination"])
        if kind == "hop":
            option = draw.choice(
                [
                    b"\x01\x04" + bytes(4), b"\x00" * 6, b"\x01\x04\x00\x01\x00\x00", b"\x05\x02\x00\x00\x01\x00",
                    b"\x1e\x04" + bytes(4), b"\x3e\x04" + bytes(4), b"\x40\x04" + bytes(4), b"\x80\x04" + bytes(4),
                    b"\xc1\x04" + bytes(4), b"\x1e\x09" + bytes(4),
                ]
            )  # fmt: skip
            return replace(header, next_header=0).pack(bytes((protocol, 0)) + option + body)
        if kind == "fragment":
            head = ipv6.FragmentHeader(protocol, draw.choice([0, 8, 1232]), True, draw.randrange(1 << 32)).pack()
            if header.dst[:2] in (b"\xfd\x00", b"\xfe\x80"):
                return header.pack(body)
            return replace(header, next_header=44).pack(head + body[: len(body) & ~7])
        return replace(header, next_header=60).pack(bytes((protocol, 0, 1, 4, 0, 0, 0, 0)) + body)


ODD_SOURCES = (
    "127.0.0.1", "0.0.0.0", "0.1.2.3", "224.0.0.5", "239.1.1.1", "255.255.255.255", "10.0.1.1", "10.0.2.1",
    "240.0.0.1", "169.254.3.3", "10.0.2.255", "10.0.3.2", "10.20.1.1",
)  # fmt: skip
ROUTED_V4 = ("10.0.2.2", "10.0.3.2", "10.20.1.1", "10.30.1.1", "10.30.40.1")
DESTINATIONS_V4 = (
    *ROUTED_V4 * 4,
    *("10.0.1.1", "10.0.2.1") * 2,
    "10.50.1.1", "10.51.1.1", "10.52.1.1", "10.53.1.1", "203.0.113.1", "240.0.0.1", "0.1.2.3", "0.0.0.0", "127.0.0.1",
    "255.255.255.255", "10.0.1.255", "10.0.2.255", "224.0.0.1", "224.0.0.5", "239.1.2.3", "10.9.0.1", "10.8.200.200",
)  # fmt: skip
ODD_SOURCES_V6 = (
    "::", "::1", "ff02::5", "ff0e::5", "fe80::9", "fd00:1::1", "fd00:2::1", "::ffff:1.2.3.4", "fd00:1::2", "fd30::7",
)  # fmt: skip
DESTINATIONS_V6 = (
    *("fd00:2::2", "fd00:3::2", "fd20::1", "fd30::1") * 5,
    *("fd00:1::1", "fd00:2::1", "fe80::ff:fe00:101") * 2,
    "fd50::1", "fd51::1", "fd52::1", "fd53::1", "2001:db8::1", "::", "::1", "ff02::1", "ff02::2", "ff02::9", "ff05::9",
    "ff01::1", "fd00:1::", "fd00:2::", "::ffff:1.2.3.4",
)  # fmt: skip
