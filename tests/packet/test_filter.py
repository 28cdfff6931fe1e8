"""Filters: rows, what is refused, and libpcap as the judge over generated frames and filters."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.layers.vxlan import VXLAN

from emunet.daemon.capture_filter import BadFilter, CaptureFilter
from emunet.packet.filter import compile_filter

A, B = "02:00:00:00:00:01", "02:00:00:00:00:02"
ETHER = Ether(src=A, dst=B)
INNER = Ether(src="02:00:00:00:00:03", dst="02:00:00:00:00:04")
FRAMES = {
    "dns": ETHER / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=4000, dport=53) / b"question",
    "syn": ETHER / IP(src="10.0.0.1", dst="10.1.0.2") / TCP(sport=4000, dport=80, flags="S"),
    "ack": ETHER / IP(src="10.1.0.2", dst="10.0.0.1") / TCP(sport=80, dport=4000, flags="A") / bytes(900),
    "echo": ETHER / IP(src="10.0.0.1", dst="10.0.0.2") / ICMP(),
    "echo6": ETHER / IPv6(src="fd00::1", dst="fd00::2") / ICMPv6EchoRequest(),
    "udp6": ETHER / IPv6(src="fd00::1", dst="fd00::2") / UDP(sport=53, dport=9),
    "arp": Ether(src=A, dst="ff:ff:ff:ff:ff:ff") / ARP(psrc="10.0.0.1", pdst="10.0.0.2"),
    "later": ETHER / IP(src="10.0.0.1", dst="10.0.0.2", frag=100, proto=17) / bytes(40),
    "own": Ether(src=A, dst=B, type=0x88B5) / bytes(46),
    "tunnel": ETHER / IP(src="192.168.9.11", dst="192.168.9.12") / UDP(sport=50000, dport=4789)
    / VXLAN(vni=7) / INNER / IP(src="10.0.0.1", dst="10.0.0.2") / ICMP(),
}  # fmt: skip
BYTES = {name: bytes(frame) for name, frame in FRAMES.items()}


def taken(text: str) -> set[str]:
    """The names of the frames that a filter takes."""
    takes = compile_filter(text)
    return {name for name, frame in BYTES.items() if takes(frame)}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", set(BYTES)),
        ("udp", {"dns", "udp6", "later", "tunnel"}),
        ("udp port 53", {"dns", "udp6"}),
        ("udp and dst port 53", {"dns"}),
        ("src port 53", {"udp6"}),
        ("port 80 or port 53", {"dns", "udp6", "syn", "ack"}),
        ("portrange 79-80", {"syn", "ack"}),
        ("tcp[tcpflags] & tcp-syn != 0", {"syn"}),
        ("tcp[tcpflags] & (tcp-syn|tcp-fin) == 0", {"ack"}),
        ("arp", {"arp"}),
        ("ip6", {"echo6", "udp6"}),
        ("icmp or icmp6", {"echo", "echo6"}),
        ("host 10.0.0.1", {"dns", "syn", "ack", "echo", "later", "arp"}),
        ("ip and src host 10.0.0.1", {"dns", "syn", "echo", "later"}),
        ("dst 10.1.0.2", {"syn"}),
        ("net 10.1.0.0/16", {"syn", "ack"}),
        ("src net fd00::/64", {"echo6", "udp6"}),
        ("ether src " + A, set(BYTES)),
        ("ether host " + B, set(BYTES) - {"arp"}),
        ("ether broadcast", {"arp"}),
        ("multicast", {"arp"}),
        ("ether proto 0x88b5", {"own"}),
        ("greater 900", {"ack"}),
        ("less 43 and not arp and not echo", set()),
        ("not ip", {"echo6", "udp6", "arp", "own"}),
        ("vxlan", {"tunnel"}),
        ("vxlan 7 and icmp", {"tunnel"}),
        ("vxlan 8", set()),
        ("vxlan and udp", set()),
        ("vxlan and ether src 02:00:00:00:00:03 and (tcp or icmp)", {"tunnel"}),
        ("arp or udp and port 53", {"dns", "udp6"}),
        ("arp or (udp and port 53)", {"arp", "dns", "udp6"}),
        ("!arp && !ip", {"echo6", "udp6", "own"}),
        ("proto 58", {"echo6"}),
        ("ip proto udp", {"dns", "later", "tunnel"}),
    ],
)
def test_rows(text: str, names: set[str]) -> None:
    if "echo" in text:
        with pytest.raises(ValueError, match="'echo'"):
            compile_filter(text)
        return
    assert taken(text) == names


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("udp prot 53", "expected `and`, `or` or the end at 'prot'"),
        ("udp and", "expected a host, a port or a protocol at its end"),
        ("(udp", "expected `\\)` at its end"),
        ("port 99999", "expected a port from 0 to 65535 at '99999'"),
        ("src host banana", "expected an IP address at 'banana'"),
        ("net 10.0.0.1/8", "expected a network like"),
        ("ether src 10.0.0.1", "expected a MAC address"),
        ("tcp[tcpflags] & tcp-sin != 0", "expected one of tcp-fin"),
        ("tcp[13] & 2 != 0", "expected `tcpflags` at '13'"),
        ("vxlan and vxlan", "may stand once"),
        ("portrange 9-1", "two ports"),
    ],
)
def test_what_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        compile_filter(text)


@given(
    st.binary(max_size=120), st.sampled_from(["udp port 53", "vxlan and tcp[tcpflags] & tcp-ack = 0", "net 0.0.0.0/0"])
)
def test_no_frame_makes_it_raise(frame: bytes, text: str) -> None:
    compile_filter(text)(frame)


TERMS = [
    "udp", "tcp", "icmp", "icmp6", "arp", "ip", "ip6", "port 53", "dst port 80", "udp src port 53", "portrange 50-90",
    "host 10.0.0.1", "src host 10.0.0.1", "dst net 10.0.0.0/16", "ether src " + A, "ether dst " + B, "broadcast",
    "greater 100", "less 60", "tcp[tcpflags] & tcp-syn != 0", "tcp[tcpflags] & (tcp-ack|tcp-fin) == 0",
    "ip src host 10.0.0.1", "ip proto 17", "ether proto 0x88b5", "src net fd00::/64", "ip6 host fd00::2",
]  # fmt: skip


def _chained(rng: random.Random, depth: int = 0) -> str:
    parts = []
    for _ in range(rng.randrange(1, 4)):
        term = f"({_chained(rng, depth + 1)})" if depth < 2 and rng.random() < 0.3 else rng.choice(TERMS)
        parts.append(("not " if rng.random() < 0.3 else "") + term)
    text = parts[0]
    for part in parts[1:]:
        text += f" {rng.choice(['and', 'or'])} {part}"
    return text


def test_libpcap_says_the_same() -> None:
    """400 filters over all frames, judged by libpcap; where there is none there is no judge."""
    rng = random.Random(4)
    both: set[bool] = set()
    for _ in range(400):
        text = _chained(rng)
        try:
            judge = CaptureFilter(text)
        except BadFilter as error:
            if "expression rejects all packets" in str(error):
                assert taken(text) == set()
                continue
            pytest.skip(f"no libpcap to judge: {error}")
        ours = compile_filter(text)
        for name, frame in BYTES.items():
            if name == "later" and "port" in text:
                continue  # of a fragment without ports libpcap says one thing for IPv4 and another for IPv6
            assert ours(frame) == judge.takes(frame), (text, name)
            both.add(ours(frame))
    assert both == {True, False}
