"""Does netfilter agree? The kernel's node and ours get the same frames; what comes out must be the same.

Both nodes have a bridge with two pods, an uplink, masquerade, a published port and a VIP
(`netfilter_node`); what may differ is said in `netfilter_judge`. Connections are compared
too: tuples, states, flags and the time that remains.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import replace

import netfilter_node as node
import pytest
from netfilter_judge import Conversation, Judge, frame_to_node, packed
from netfilter_ours import OurNode

from emunet.packet import ipv4, ipv6, tcp, udp
from emunet.packet.address import parse_ip

SYN, ACK, FIN, RST, PSH, URG = tcp.SYN, tcp.ACK, tcp.FIN, tcp.RST, tcp.PSH, tcp.URG
POD1, POD2, EXT = (node.STATIONS[name][1:] for name in ("pod1", "pod2", "eth0"))


@pytest.fixture
def judge() -> Iterator[Judge]:
    if (reason := node.missing()) is not None:
        pytest.skip(reason)
    kernel = node.KernelNode()
    ours = OurNode()
    try:
        yield Judge(kernel, ours)
        assert ours.balance() == 0
    finally:
        kernel.close()


def conversation(judge: Judge, kind: str, protocol: int, family: int, sport: int) -> Conversation:
    """One of the ways through the node: out, to a VIP, in by a published port, and a pod to itself."""
    client, server, target, dport, server_port = {
        "masquerade": ("pod1", "eth0", EXT[family], node.SERVICE_PORT, node.SERVICE_PORT),
        "masquerade too": ("pod2", "eth0", EXT[family], node.SERVICE_PORT, node.SERVICE_PORT),
        "vip": ("pod1", "pod2", node.VIP[family], node.SERVICE_PORT, node.BACKEND_PORT),
        "hairpin": ("pod2", "pod2", node.VIP[family], node.SERVICE_PORT, node.BACKEND_PORT),
        "published": ("eth0", "pod2", node.NODE[family], node.PUBLISHED, node.BACKEND_PORT),
        "published inside": ("pod1", "pod2", node.NODE[family], node.PUBLISHED, node.BACKEND_PORT),
        "published hairpin": ("pod2", "pod2", node.CNI[family], node.PUBLISHED, node.BACKEND_PORT),
        "routed in": ("eth0", "pod1", POD1[family], 7000, 7000),
        "bridged": ("pod1", "pod2", POD2[family], 7000, 7000),
    }[kind]
    source = parse_ip(node.STATIONS[client][1 + family])
    return Conversation(judge, client, server, protocol, parse_ip(target), sport, dport, server_port, source)


WAYS = ("masquerade", "vip", "published", "published inside", "published hairpin", "routed in", "bridged")

# Ways into each state: c is the client, s the server.
OPEN = ("c syn", "s synack", "c ack")
PREFIXES: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "SYN_SENT": ("c syn",),
    "SYN_RECV": OPEN[:2],
    "ESTABLISHED": OPEN,
    "ESTABLISHED, data": (*OPEN, "c data", "s ack", "s data", "c ack"),
    "FIN_WAIT": (*OPEN, "c fin"),
    "FIN_WAIT by the server": (*OPEN, "s fin"),
    "CLOSE_WAIT": (*OPEN, "c fin", "s ack"),
    "LAST_ACK": (*OPEN, "c fin", "s ack", "s fin"),
    "LAST_ACK, both at once": (*OPEN, "c fin", "s fin"),
    "TIME_WAIT": (*OPEN, "c fin", "s ack", "s fin", "c ack"),
    "CLOSE": (*OPEN, "c rst"),
    "CLOSE by the server": (*OPEN, "s rst"),
    "SYN_SENT2": ("c syn", "s syn"),
    "simultaneous open": ("c syn", "s syn", "s synack", "c synack"),
    "simultaneous open, acknowledged": ("c syn", "s syn", "c synack", "s ack"),
    "refused": ("c syn", "s rstack"),
    "in its middle": ("c data",),
    "in its middle, both": ("c data", "s data", "c ack"),
    "a SYN that is not believed": (*OPEN, "c new syn"),
    "a SYN that is not believed, closing": (*OPEN, "c fin", "s ack", "s fin", "c new syn"),
    "half open": ("c syn", "s ack"),
}
KINDS = {
    "syn": SYN, "new syn": SYN, "synack": SYN | ACK, "ack": ACK, "data": PSH | ACK, "urgent": ACK | URG,
    "fin": FIN | ACK, "rst": RST, "rstack": RST | ACK,
    "nothing": 0, "bare fin": FIN, "syn and fin": SYN | FIN, "christmas": FIN | PSH | URG,
}  # fmt: skip
PROBES = (("c syn", "s synack", "c ack"), ("s ack", "c ack"), ("s synack", "c data", "s rst", "c syn"))


def play(talk: Conversation, script: tuple[str, ...]) -> None:
    """Say these segments."""
    for line in script:
        who, _, kind = line.partition(" ")
        data = b"hello" if kind == "data" else b""
        if who == "c":
            talk.segment(KINDS[kind], data, new=kind == "new syn")
        else:
            talk.segment_back(KINDS[kind], data)


@pytest.mark.rule("CT-06")
@pytest.mark.parametrize(("family", "probes"), [(0, PROBES), (1, PROBES[:1])])
def test_tcp_in_every_state(judge: Judge, family: int, probes: tuple[tuple[str, ...], ...]) -> None:
    """From every state, every kind of segment in both directions, and what follows then."""
    sport = 20_000
    for number, prefix in enumerate(PREFIXES.values()):
        for kind in KINDS:
            for who in "cs":
                for probe in probes:
                    sport += 1
                    while sport in judge.chosen:
                        sport += 1
                    way = WAYS[(sport + number) % len(WAYS)]
                    talk = conversation(judge, way, ipv4.TCP, family, sport)
                    judge.history.append(f"--- {way} {prefix} {who} {kind} {probe}")
                    play(talk, (*prefix, f"{who} {kind}", *probe))
        judge.tables()
    assert judge.frames > 4000
    assert judge.disbelieved < judge.compared // 20


class Mix:
    """Random traffic over all ways at once: many conversations, few ports, so that they collide."""

    def __init__(self, judge: Judge, family: int, seed: int) -> None:
        self.judge = judge
        self.family = family
        self.random = random.Random(seed)
        self.talks: list[Conversation] = []
        self.seen: set[str] = set()

    def begin(self) -> Conversation:
        """Another conversation. Two of one pod's ports are privileged."""
        protocol = self.random.choice([ipv4.UDP, ipv4.UDP, ipv4.TCP, ipv4.ICMP if self.family == 0 else ipv4.ICMPV6])
        ways = ("masquerade", "masquerade too", "routed in", "bridged")
        way = self.random.choice(ways if protocol in (ipv4.ICMP, ipv4.ICMPV6) else (*WAYS, "masquerade too", "hairpin"))
        talk = conversation(self.judge, way, protocol, self.family, self.random.choice([500, 700, 5000, 5001, 5002]))
        if way.startswith("masquerade") and self.random.random() < 0.3 and self.family == 0:
            talk.target = parse_ip("192.168.9.98")
        self.judge.history.append(f"--- {way} {protocol}")
        self.talks.append(talk)
        return talk

    def step(self) -> None:
        """One frame, or a few."""
        fresh = not self.talks or self.random.random() < 0.15
        talk = self.begin() if fresh else self.random.choice(self.talks)
        data = bytes(self.random.randrange(256) for _ in range(self.random.choice([0, 1, 7, 30])))
        roll = self.random.random()
        if roll < 0.12:
            self.complain(talk)
        elif roll < 0.2 and talk.protocol == ipv4.UDP:
            self.seen.add("ttl")
            talk.datagram(data, ttl=1)
        elif roll < 0.24:
            self.seen.add("damage")
            self.damaged(talk, data)
        elif talk.protocol == ipv4.UDP:
            no_sum = self.random.random() < 0.2
            (talk.datagram if self.random.random() < 0.6 else talk.datagram_back)(data, no_sum=no_sum)
        elif talk.protocol == ipv4.TCP:
            client = self.random.random() < 0.5
            flags = self.random.choice([SYN, SYN | ACK, ACK, PSH | ACK, FIN | ACK])
            (talk.segment if client else talk.segment_back)(flags, data if flags & PSH else b"")
        elif self.random.random() < 0.6:
            talk.ping(1, data)
        else:
            talk.pong(1, data)

    def complain(self, talk: Conversation) -> None:
        """An error about what came last, from the server or from a router before it, quoting more or less."""
        kinds = [(3, 1), (3, 3), (3, 4), (11, 0), (12, 0), (5, 1)] if self.family == 0 else [(1, 4), (2, 0), (3, 0)]
        router = parse_ip(("172.16.0.1", "fd00:16::1")[self.family]) if talk.server == "eth0" else None
        least = 28 if self.family == 0 else 48
        self.seen.add("error")
        quoted = self.random.choice([least, least + 12, 548])
        talk.complain(self.random.choice(kinds), quoted, self.random.choice([None, router]))

    def damaged(self, talk: Conversation, data: bytes) -> None:
        """A first packet with a wrong checksum, from a port that nobody uses else: of no connection."""
        sport = self.random.randrange(40_000, 60_000)
        lone = Conversation(
            self.judge,
            talk.client,
            talk.server,
            ipv4.UDP,
            talk.target,
            sport,
            node.SERVICE_PORT,
            talk.server_port,
            talk.source,
        )
        body = bytearray(
            sport.to_bytes(2, "big")
            + node.SERVICE_PORT.to_bytes(2, "big")
            + (8 + len(data)).to_bytes(2, "big")
            + b"\x12\x35"
            + data
        )
        lone.ask(packed(talk.source, talk.target, ipv4.UDP, bytes(body)))


@pytest.mark.rule("SVC-23")
@pytest.mark.rule("SVC-24")
@pytest.mark.parametrize("family", [0, 1])
@pytest.mark.parametrize("seed", range(3))
def test_mixed_traffic(judge: Judge, family: int, seed: int) -> None:
    """UDP, TCP and echo both ways, ports that collide, errors from anywhere, TTLs that end, damage."""
    mix = Mix(judge, family, seed)
    for _ in range(800):
        mix.step()
    judge.tables()
    assert mix.seen == {"error", "ttl", "damage"}


@pytest.mark.rule("SVC-05")
@pytest.mark.rule("HP-05")
def test_what_the_node_itself_sends(judge: Judge) -> None:
    """Its own packets are tracked and sent elsewhere at once; answers find their way back; its ports are not taken."""
    ports = (300, 700, 5000, 20_000)  # so far apart that none is chosen at random in place of another
    for number, (target, server, dport, server_port) in enumerate([
        (EXT[0], "eth0", node.SERVICE_PORT, node.SERVICE_PORT),
        (node.VIP[0], "pod2", node.SERVICE_PORT, node.BACKEND_PORT),
        (node.NODE[0], "pod2", node.PUBLISHED, node.BACKEND_PORT),
        (POD1[0], "pod1", 7000, 7000),
    ]):  # fmt: skip
        for protocol in (ipv4.UDP, ipv4.TCP, ipv4.ICMP):
            if protocol == ipv4.ICMP and server == "pod2":
                continue
            # A pod uses the port towards the same address before: the node's own must not be mistaken for it.
            rival = conversation(judge, "masquerade", protocol, 0, ports[number])
            talk = Conversation(
                judge,
                "node",
                server,
                protocol,
                parse_ip(target),
                ports[number],
                dport,
                server_port,
                parse_ip(node.NODE[0]),
            )
            for side in (rival, talk):
                for _ in range(2):
                    if protocol == ipv4.UDP:
                        side.datagram(b"hello")
                        side.datagram_back(b"hello")
                    elif protocol == ipv4.TCP:
                        play(side, (*OPEN, "c data", "s ack"))
                    else:
                        side.ping(1, b"hello")
                        side.pong(1, b"hello")
            talk.complain((3, 3), 28)
    judge.tables()


@pytest.mark.rule("CT-04")
def test_a_udp_stream_is_told_from_a_question_after_two_seconds(judge: Judge) -> None:
    """The kernel's clock runs by itself, so this one test waits."""
    talks = [conversation(judge, way, ipv4.UDP, 0, 5000 + number) for number, way in enumerate(WAYS)]
    for talk in talks:
        talk.datagram(b"x")
        if talk.sport % 2:
            talk.datagram_back(b"y")
    judge.tables()
    time.sleep(2.2)
    for talk in talks:
        talk.datagram(b"x")
    judge.tables()
    assert 0 < sum(row.assured for _, row in judge.ours.table.items(judge.ours.now)) < len(WAYS)


def cut(packet: bytes, lengths: list[int]) -> list[bytes]:
    """A packet of either family in pieces of these lengths."""
    if packet[0] >> 4 == 4:
        return ipv4.fragment_at(packet, lengths)
    pieces, position = [], 0
    payload = packet[40:]
    for length in lengths:
        more = position + length < len(payload)
        body = ipv6.FragmentHeader(packet[6], position, more, 0x1234_0000 + len(payload)).pack()
        body += payload[position : position + length]
        head = packet[:4] + len(body).to_bytes(2, "big") + bytes((ipv6.FRAGMENT,)) + packet[7:40]
        pieces.append(head + body)
        position += length
    return pieces


@pytest.mark.rule("CT-05")
@pytest.mark.rule("FR-04")
@pytest.mark.rule("FR-05")
@pytest.mark.rule("FR-06")
@pytest.mark.parametrize(("family", "mtu"), [(0, 1500), (0, 1300), (1, 1500), (1, 1300)])
def test_fragments(family: int, mtu: int) -> None:
    """Datagrams cut in any way and order, twice, overlapping, with and without DF: put together, sent, cut again."""
    if (reason := node.missing()) is not None:
        pytest.skip(reason)
    kernel = node.KernelNode(mtu)
    judge = Judge(kernel, OurNode(mtu))
    rng = random.Random(mtu + family)
    joined = 0
    try:
        for name in ("pod1", "pod2", "eth0"):  # so that no bridge floods: that joins fragments in the kernel
            talk = conversation(
                judge, {"pod1": "bridged", "pod2": "masquerade too", "eth0": "routed in"}[name], ipv4.UDP, 0, 9
            )
            kernel.inject(name, frame_to_node(name, packed(talk.source, talk.target, 99, b"x")))
            judge.ours.inject(name, frame_to_node(name, packed(talk.source, talk.target, 99, b"x")))
        for number in range(400):
            ways = WAYS if family == 0 else ("masquerade", "published", "routed in", "bridged")
            way = rng.choice(ways)
            talk = conversation(judge, way, ipv4.UDP, family, 20_000 + number)
            size = rng.choice([100, 1000, 1480, 2000, 4000, 9000])
            body = talk_body(talk, bytes(rng.randrange(256) for _ in range(16)) * (size // 16))
            df = rng.random() < 0.3
            whole = packed(talk.source, talk.target, ipv4.UDP, body, identification=number + 1, dont_fragment=df)
            lengths = []
            while (rest := len(body) - sum(lengths)) > 0:
                most = min(rest, rng.choice([64, 512, 1000, 1232, 1400, 1448, 1480 if family == 0 else 1448]))
                lengths.append(most if most == rest else max(8, most & ~7))
            pieces = cut(whole, lengths)
            trouble = rng.choice(["", "", "order", "twice", "overlap", "odd", "mixed df", "marks"])
            judge.history.append(f"{way} {len(body)} {lengths} {trouble} df {df}")
            rejoined = way in ("vip", "published inside", "published hairpin")
            for piece in troubled(pieces, trouble, rng):
                frame = talk.frame(piece)
                outs = (kernel.inject(talk.client, frame), judge.ours.inject(talk.client, frame))
                judge.frames += 1
                joined += any(len(out) > 1 for out in outs)
                judge.compare(*(map(rejoin, outs) if rejoined else outs), talk.known)
        assert joined > 80
        assert judge.ours.balance() == 0
    finally:
        kernel.close()


def rejoin(out: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """Fragments of one datagram as one frame.

    What is sent to another neighbour of its bridge passes the bridge device where the kernel's neighbour cache has
    no header ready, and is joined and cut anew there; so for these ways only what arrives is compared. (IPv6 is left
    out of them: there the kernel calls the joined datagram too big.)
    """
    if len(out) < 2 or out[0][1][12:14] != b"\x08\x00":
        return out
    parts = [ipv4.IPv4.parse(frame[14:]) for _, frame in out]
    header = replace(parts[0][0], more_fragments=False, fragment_offset=0)
    return [(out[0][0], out[0][1][:14] + header.pack(b"".join(body for _, body in parts)))]


def talk_body(talk: Conversation, data: bytes) -> bytes:
    """A UDP datagram of the client's, without IP."""
    return udp.Udp(talk.sport, talk.dport).pack(talk.source, talk.target, data)


def troubled(pieces: list[bytes], trouble: str, rng: random.Random) -> list[bytes]:
    """The pieces as a bad way delivers them."""
    pieces = list(pieces)
    if trouble == "order":
        rng.shuffle(pieces)
    elif trouble == "twice":
        at = rng.randrange(len(pieces))
        pieces.insert(rng.randrange(len(pieces)), pieces[at])
    elif trouble == "overlap" and len(pieces) > 2:
        victim = pieces[1]
        pieces.insert(2, shifted(victim))
    elif trouble == "odd" and len(pieces) > 1:
        pieces[0] = trimmed(pieces[0], 3)
    elif trouble == "mixed df":
        pieces = [with_df(piece, rng.random() < 0.5) for piece in pieces]
    elif trouble == "marks":
        choice = rng.choice([(0, 1), (2, 3), (2, 2), (1, 2)])
        pieces = [with_mark(piece, rng.choice(choice)) for piece in pieces]
    return pieces


def remade(piece: bytes, body: bytes, **fields: int | bool) -> bytes:
    """An IPv4 packet with another payload and other fields."""
    header, _ = ipv4.IPv4.parse(piece)
    return replace(header, **fields).pack(body)  # type: ignore[arg-type]


def shifted(piece: bytes) -> bytes:
    """The same data 8 bytes further on."""
    if piece[0] >> 4 == 4:
        header, body = ipv4.IPv4.parse(piece)
        return remade(piece, body, fragment_offset=header.fragment_offset + 8)
    offset = (piece[42] << 8 | piece[43]) + 8
    return piece[:42] + offset.to_bytes(2, "big") + piece[44:]


def trimmed(piece: bytes, by: int) -> bytes:
    """A few bytes shorter."""
    if piece[0] >> 4 == 4:
        _, body = ipv4.IPv4.parse(piece)
        return remade(piece, body[:-by])
    length = (piece[4] << 8 | piece[5]) - by
    return piece[:4] + length.to_bytes(2, "big") + piece[6:-by]


def with_df(piece: bytes, df: bool) -> bytes:
    """With or without "don't fragment"."""
    if piece[0] >> 4 == 6:
        return piece
    return remade(piece, ipv4.IPv4.parse(piece)[1], dont_fragment=df)


def with_mark(piece: bytes, mark: int) -> bytes:
    """With these ECN bits."""
    if piece[0] >> 4 == 6:
        return piece[:1] + bytes((piece[1] & 0xCF | mark << 4,)) + piece[2:]
    return remade(piece, ipv4.IPv4.parse(piece)[1], tos=mark)
