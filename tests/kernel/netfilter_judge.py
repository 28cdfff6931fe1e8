"""The judge: the same frame through the kernel's node and ours; what comes out is compared field by field.

Allowed to differ, and nothing else:
- the IP identification of errors that the node itself makes (each has its own counter);
- the number of a translated source port or identifier, where the kernel too chose
  another than the sender's (its choice is random): it must lie in the same class, and
  its checksum must be right;
- the identification of IPv6 fragments that the node cuts (the kernel takes a new one);
- a connection that the kernel keeps for the 10 s after a reset without believing it,
  because the sequence number was not the one acknowledged (windows are not followed here).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

import netfilter_node as node
from netfilter_ours import OurNode

from emunet.elements.connections import Connection
from emunet.elements.connections.ports import port_class
from emunet.packet import icmp, icmpv6, ipv4, ipv6, tcp, udp
from emunet.packet.address import parse_ip, parse_mac
from emunet.packet.checksum import ones_sum, transport_is_valid

Out = list[tuple[str, bytes]]
Row = tuple[str, str, str, bool, bool]
"""A connection: original and reply, state, whether assured, whether a reply was seen."""

Known = frozenset[int]
"""The ports and identifiers that stations use: any other was chosen by a node."""
SERVERS = frozenset((node.SERVICE_PORT, 7000, node.BACKEND_PORT, node.PUBLISHED))
ERRORS = {1: frozenset((3, 4, 5, 11, 12)), 58: frozenset((1, 2, 3, 4))}


def frame_to_node(port: str, packet: bytes, mac: str = "") -> bytes:
    """An IP packet in the frame that the station at `port` sends to the node, or to another MAC."""
    to = parse_mac(mac or node.MACS["eth0" if port == "eth0" else "cni0"])
    return to + parse_mac(node.STATIONS[port][0]) + (b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd") + packet


def transport(packet: bytes) -> tuple[int, int]:
    """Protocol and offset of the transport header of an IP packet."""
    if packet[0] >> 4 == 4:
        return packet[9], (packet[0] & 15) * 4
    return ipv6.upper_layer(packet)


def addresses(packet: bytes) -> tuple[bytes, bytes]:
    """Source and destination."""
    return (packet[12:16], packet[16:20]) if packet[0] >> 4 == 4 else (packet[8:24], packet[24:40])


def shape(packet: bytes, known: Known) -> dict[str, Any]:
    """Every field of an IP packet. A port that is not `known` was chosen by a node, and becomes its class."""
    is_v4 = packet[0] >> 4 == 4
    protocol, at = transport(packet)
    source, destination = addresses(packet)
    fields: dict[str, Any] = {"source": source, "destination": destination, "protocol": protocol}
    body = packet[at:]
    if is_v4:
        made_here = protocol == 1 and body[:1] and body[0] in ERRORS[1] and packet[8] >= 63
        fields["header"] = packet[:4] + (b"" if made_here else packet[4:6]) + packet[6:10] + packet[20:at]
        fields["header sum"] = ones_sum(packet[:at]) == 0xFFFF
        if packet[6] & 0x1F or packet[7]:
            return fields | {"body": body}
    else:
        place = ipv6.find_fragment(packet)
        end = at if place is None else place[0] + 4
        fields["header"] = packet[:8] + packet[40:end]
        if protocol == ipv6.FRAGMENT:
            body = packet[at + 8 :]
    if protocol in (6, 17) and len(body) >= 8:
        fields |= _ports(body, protocol, source, destination, known)
    elif protocol in ERRORS and len(body) >= 8:
        fields |= _message(body, protocol, source, destination, known)
    else:
        fields["body"] = body
    return fields


def ports_of(packet: bytes) -> set[int]:
    """The ports of a TCP or UDP packet."""
    protocol, at = transport(packet)
    if protocol not in (6, 17) or len(packet) < at + 4:
        return set()
    return {packet[at] << 8 | packet[at + 1], packet[at + 2] << 8 | packet[at + 3]}


def _exchanged(port: int, known: Known) -> int | tuple[int, int]:
    return port if port in known else port_class(6, port)


def _ports(body: bytes, protocol: int, source: bytes, destination: bytes, known: Known) -> dict[str, Any]:
    at = 16 if protocol == 6 else 6
    ports = body[0] << 8 | body[1], body[2] << 8 | body[3]
    shown = _exchanged(ports[0], known), _exchanged(ports[1], known)
    fields: dict[str, Any] = {"ports": shown}
    if shown == ports or len(body) < at + 2:
        return fields | {"body": body[4:]}
    right = body[at : at + 2] == bytes(2) if protocol == 17 else False
    right = right or transport_is_valid(source, destination, protocol, body)
    return fields | {"sum is right": right, "body": body[4:at] + body[at + 2 :]}


def _message(body: bytes, protocol: int, source: bytes, destination: bytes, known: Known) -> dict[str, Any]:
    right = ones_sum(body) == 0xFFFF if protocol == 1 else transport_is_valid(source, destination, protocol, body)
    fields: dict[str, Any] = {"type": body[:2], "sum is right": right}
    if body[0] in ERRORS[protocol]:
        quote = body[8:]
        try:
            return fields | {"rest": body[4:8], "quote": shape(quote, known)}
        except (IndexError, ValueError):
            return fields | {"rest": body[4:8], "quote": quote}
    number = body[4] << 8 | body[5]
    return fields | {"id": number if number in known else "exchanged", "body": body[6:]}


@dataclass
class Judge:
    """Both nodes, and what was found.

    chosen  ports that either node chose at random: a station that used one of them would meet it
    """

    kernel: node.KernelNode
    ours: OurNode
    frames: int = 0
    compared: int = 0
    disbelieved: int = 0
    began: int = field(default_factory=time.monotonic_ns)
    chosen: set[int] = field(default_factory=set)
    history: list[str] = field(default_factory=list)

    def both(self, port: str, kernel: bytes, ours: bytes, known: Known = frozenset()) -> tuple[Out, Out]:
        """A frame for each comes in by `port`; raises AssertionError where what goes out differs."""
        self.frames += 1
        self.ours.advance(time.monotonic_ns() - self.began - self.ours.now)  # the kernel's time is the machine's
        left, right = self.kernel.inject(port, kernel), self.ours.inject(port, ours)
        self.compare(left, right, known)
        return left, right

    def sent(self, packet: bytes, known: Known) -> tuple[Out, Out]:
        """Each node itself sends a packet."""
        self.frames += 1
        left, right = self.kernel.send(packet), self.ours.send(packet)
        self.compare(left, right, known)
        return left, right

    def compare(self, kernel: Out, ours: Out, known: Known) -> None:
        """Ports, Ethernet headers and fields are equal, in order for each port."""
        for _, frame in (*kernel, *ours):
            self.chosen |= ports_of(frame[14:]) - known
        for name in node.PORTS:
            left = [frame for port, frame in kernel if port == name]
            right = [frame for port, frame in ours if port == name]
            shapes = [[(frame[:14], shape(frame[14:], known)) for frame in side] for side in (left, right)]
            if shapes[0] != shapes[1]:
                story = "\n".join(self.history[-12:])
                raise AssertionError(f"on {name}\nkernel {_text(left)}\nours   {_text(right)}\nbefore:\n{story}")

    def tables(self) -> None:
        """Both have the same connections, as far as neither is about to end."""
        self.ours.advance(time.monotonic_ns() - self.began - self.ours.now)
        theirs: dict[Row, list[int]] = {}
        for row, remaining in map(self._theirs, self.kernel.connections()):
            theirs.setdefault(row, []).append(remaining)
        for key, connection in self.ours.table.items(self.ours.now):
            remaining = self.ours.table.remaining(key, self.ours.now) // 1_000_000_000
            row = self._mine(connection)
            self.compared += 1
            same = theirs.get(row, [])
            doubted = [found for found in theirs if found[:2] == row[:2] and row[2] == "CLOSE" != found[2]]
            if not same and doubted and min(theirs[doubted[0]]) <= 10:
                self.disbelieved += 1
                row, same = doubted[0], theirs[doubted[0]]
            assert same or remaining <= 2, f"only ours: {connection}; the kernel has {list(theirs)}"
            if not same:
                continue
            followed = row[2] in ("ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT")  # the kernel's window has a say in these
            near = min(same, key=lambda found: abs(found - remaining))
            assert followed or abs(near - remaining) <= 2, f"{remaining} s, the kernel {same}: {connection}"
            same.remove(near)
            if not same:
                del theirs[row]
        left = [row for row, remaining in theirs.items() if max(remaining) > 2]
        assert not left, f"only the kernel's: {left}"

    def _mine(self, connection: Connection) -> Row:
        state = "" if connection.state is None else connection.state.value
        original, reply = _words(connection.original.as_text(), connection.reply.as_text())
        return f"{connection.original.protocol} {original}", reply, state, connection.assured, connection.seen_reply

    @staticmethod
    def _theirs(line: str) -> tuple[Row, int]:
        """A line of /proc/net/nf_conntrack, and the seconds that remain."""
        words = line.split()
        protocol, remaining = (word for word in words[3:5] if word.isdigit())
        state = next((word for word in words[5:6] if "=" not in word and not word.startswith("[")), "")
        pairs = [word for word in words if "=" in word and not word.startswith(("mark=", "zone=", "use="))]
        half = len(pairs) // 2
        texts = _words(" ".join(pairs[:half]), " ".join(pairs[half:]))
        row = (f"{protocol} {texts[0]}", texts[1], state, "[ASSURED]" in words, "[UNREPLIED]" not in words)
        return row, int(remaining)


def _words(original: str, reply: str) -> tuple[str, str]:
    """Two flows' texts, addresses in one form; a port that is no server's is only `same` in the reply, or `chosen`."""
    rows = [[tuple(word.split("=")) for word in text.split()] for text in (original, reply)]
    client = next((value for name, value in rows[0] if name in ("sport", "id")), "")
    texts = []
    for number, row in enumerate(rows):
        words = []
        for name, value in row:
            if name in ("src", "dst"):
                words.append(f"{name}={parse_ip(value).hex()}")
            elif number and name in ("dport", "id"):
                words.append(f"{name}={'same' if value == client else 'chosen'}")
            elif name in ("sport", "dport") and (number or name == "dport") and int(value) not in SERVERS:
                words.append(f"{name}=a client's")
            else:
                words.append(f"{name}={value}")
        texts.append(" ".join(words))
    return texts[0], texts[1]


def _text(frames: list[bytes]) -> str:
    return "; ".join(f"{frame[:14].hex()} {frame[14:].hex()}" for frame in frames) or "nothing"


# Who speaks


@dataclass
class View:
    """What a server sees of a client on one side: the last packet that reached it."""

    packet: bytes

    @property
    def peer(self) -> bytes:
        """The address that it came from."""
        return addresses(self.packet)[0]

    @property
    def own(self) -> bytes:
        """The address that it was sent to."""
        return addresses(self.packet)[1]

    @property
    def peer_port(self) -> int:
        """The port or identifier that it came from."""
        protocol, at = transport(self.packet)
        at += 4 if protocol in ERRORS else 0
        return self.packet[at] << 8 | self.packet[at + 1]


@dataclass
class Conversation:
    """A client at a port speaks to an address; whatever reaches the server on each side may be answered."""

    judge: Judge
    client: str
    server: str
    protocol: int
    target: bytes
    sport: int
    dport: int
    server_port: int
    source: bytes
    views: tuple[View, View] | None = None
    sequence: list[int] = field(default_factory=lambda: [1000, 900_000])
    acked: list[int | None] = field(default_factory=lambda: [None, None])
    opened: list[bool] = field(default_factory=lambda: [False, False])

    def ask(self, packet: bytes) -> tuple[Out, Out]:
        """The client sends."""
        if self.client == "node":
            outs = self.judge.sent(packet, self.known)
        else:
            frame = self.frame(packet)
            outs = self.judge.both(self.client, frame, frame, self.known)
        found = [self._reached(out) for out in outs]
        if found[0] is not None and found[1] is not None:
            self.views = (View(found[0]), View(found[1]))
        return outs

    def frame(self, packet: bytes) -> bytes:
        """The client's frame: to the node, or to a neighbour on its own link."""
        return frame_to_node(self.client, packet, neighbor(self.client, self.target))

    def answer(self, make: Any) -> tuple[Out, Out] | None:
        """The server sends what `make(view)` says, on each side to whom it sees there."""
        if self.views is None:
            return None
        kernel, ours = (frame_to_node(self.server, make(view), neighbor(self.server, view.peer)) for view in self.views)
        return self.judge.both(self.server, kernel, ours, self.known)

    @property
    def known(self) -> Known:
        """The ports that the two use."""
        return frozenset((self.sport, self.dport, self.server_port))

    def _reached(self, out: Out) -> bytes | None:
        mac = parse_mac(node.STATIONS[self.server][0])
        for port, frame in out:
            if port == self.server and frame[:6] == mac:
                protocol, _ = transport(frame[14:])
                if protocol == self.protocol:
                    return frame[14:]
        return None

    # What they say

    def segment(self, flags: int, data: bytes = b"", *, new: bool = False) -> None:
        """The client sends a TCP segment. `new`: with a sequence number of its own, as a new connection has."""
        if new:
            self.sequence[0] += 1_000_000
            self.opened[0] = False
        packet = self._tcp(self.source, self.target, self.sport, self.dport, 0, flags, data)
        self.judge.history.append(f"{self.sport} client 0x{flags:02x} {len(data)}")
        self.ask(packet)
        self._sent(0, flags, data)

    def segment_back(self, flags: int, data: bytes = b"") -> None:
        """The server sends a TCP segment."""
        self.judge.history.append(f"{self.sport} server 0x{flags:02x} {len(data)}")
        sent = self.answer(
            lambda view: self._tcp(view.own, view.peer, self.server_port, view.peer_port, 1, flags, data)
        )
        if sent is not None:
            self._sent(1, flags, data)

    def _tcp(
        self, source: bytes, destination: bytes, sport: int, dport: int, side: int, flags: int, data: bytes
    ) -> bytes:
        sequence = self.sequence[side] - (bool(flags & tcp.SYN) and self.opened[side])
        if flags & tcp.RST and self.acked[side] is not None:
            sequence = self.acked[side] or 0
        acknowledgment = self.sequence[1 - side] if flags & tcp.ACK else 0
        header = tcp.Tcp(sport, dport, sequence & 0xFFFFFFFF, acknowledgment & 0xFFFFFFFF, flags, 65000)
        return packed(source, destination, ipv4.TCP, header.pack(source, destination, data))

    def _sent(self, side: int, flags: int, data: bytes) -> None:
        if flags & tcp.RST == 0 and (flags & tcp.ACK or flags == tcp.SYN):  # else nobody takes it for a segment
            again = bool(flags & tcp.SYN) and self.opened[side]
            self.sequence[side] += len(data) + (bool(flags & tcp.SYN) and not again) + bool(flags & tcp.FIN)
            self.opened[side] |= bool(flags & tcp.SYN)
        if flags & tcp.ACK:
            self.acked[1 - side] = self.sequence[1 - side]

    def datagram(self, data: bytes = b"", *, no_sum: bool = False, **fields: Any) -> tuple[Out, Out]:
        """The client sends a UDP datagram."""
        self.judge.history.append(f"{self.sport} client udp {len(data)} {fields}")
        body = udp.Udp(self.sport, self.dport).pack(self.source, self.target, data)
        return self.ask(packed(self.source, self.target, ipv4.UDP, _summed(body, no_sum=no_sum), **fields))

    def datagram_back(self, data: bytes = b"", *, no_sum: bool = False) -> None:
        """The server sends one."""
        self.judge.history.append(f"{self.sport} server udp {len(data)}")

        def make(view: View) -> bytes:
            body = udp.Udp(self.server_port, view.peer_port).pack(view.own, view.peer, data)
            return packed(view.own, view.peer, ipv4.UDP, _summed(body, no_sum=no_sum))

        self.answer(make)

    def ping(self, sequence: int, data: bytes = b"") -> None:
        """The client asks for an echo."""
        self.judge.history.append(f"{self.sport} client echo")
        self.ask(echo(self.source, self.target, self.sport, sequence, data))

    def pong(self, sequence: int, data: bytes = b"") -> None:
        """The server answers."""
        self.judge.history.append(f"{self.sport} server echo reply")
        self.answer(lambda view: echo(view.own, view.peer, view.peer_port, sequence, data, reply=True))

    def complain(self, kind: tuple[int, int], quoted: int, source: bytes | None = None) -> None:
        """The server, or a router before it, sends an error about what reached it last, quoting so many bytes."""
        self.judge.history.append(f"{self.sport} server error {kind} {quoted}")

        def make(view: View) -> bytes:
            sender = source or view.own
            quote = view.packet[:quoted]
            if len(sender) == 4:
                body = icmp.Icmp(*kind, (1400).to_bytes(4, "big"), quote).pack()
                return packed(sender, view.peer, ipv4.ICMP, body)
            body = icmpv6.Icmpv6(*kind, (1400).to_bytes(4, "big"), quote).pack(sender, view.peer)
            return packed(sender, view.peer, ipv4.ICMPV6, body)

        self.answer(make)


def neighbor(port: str, address: bytes) -> str:
    """The MAC of a pod that a pod reaches on its own link, or ""."""
    for name in ("pod1", "pod2") if port != "eth0" else ():
        if address in (parse_ip(text) for text in node.STATIONS[name][1:]):
            return node.STATIONS[name][0]
    return ""


def packed(source: bytes, destination: bytes, protocol: int, body: bytes, **fields: Any) -> bytes:
    """An IP packet of either family. Its IPv4 identification is never 0, which the kernel would fill in."""
    if len(source) == 4:
        return ipv4.IPv4(source, destination, protocol, **{"identification": 77, **fields}).pack(body)
    return ipv6.IPv6(source, destination, protocol, hop_limit=fields.get("ttl", 64)).pack(body)


def echo(source: bytes, destination: bytes, number: int, sequence: int, data: bytes, *, reply: bool = False) -> bytes:
    """An echo request or reply of either family."""
    if len(source) == 4:
        message = icmp.echo_request(number, sequence, data)
        return packed(source, destination, ipv4.ICMP, (icmp.echo_reply(message) if reply else message).pack())
    query = icmpv6.echo_request(number, sequence, data)
    answer = replace(query, type=icmpv6.ECHO_REPLY) if reply else query
    return packed(source, destination, ipv4.ICMPV6, answer.pack(source, destination))


def _summed(body: bytes, *, no_sum: bool) -> bytes:
    return body[:6] + bytes(2) + body[8:] if no_sum else body
