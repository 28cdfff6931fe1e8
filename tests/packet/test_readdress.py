"""Other addresses in a frame, judged by Scapy: right checksums stay right, wrong ones wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from emunet.packet.address import parse_ip, parse_mac
from emunet.packet.readdress import readdress, source_of

OLD, NEW = ("192.0.2.1", "192.0.2.2"), ("10.244.1.2", "10.244.2.2")
OLD6, NEW6 = ("2001:db8::1", "2001:db8::2"), ("fd00::1", "fd00::99")
MACS = {f"02:00:00:00:00:0{number}": f"06:00:00:00:00:0{number}" for number in (1, 2)}
ADDRESSES = {parse_ip(old): parse_ip(new) for old, new in zip(OLD + OLD6, NEW + NEW6, strict=True)}
ETHER = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
ETHER_NEW = {"src": "06:00:00:00:00:01", "dst": "06:00:00:00:00:02"}


def pair(layers: Packet, **inner: str) -> tuple[bytes, bytes]:
    """A frame before and after, both as Scapy makes them."""
    v4 = dict(zip(("src", "dst"), OLD, strict=True)), dict(zip(("src", "dst"), NEW, strict=True))
    return tuple(bytes(Ether(**mac) / IP(id=7, **ip) / layers) for mac, ip in zip((ETHER, ETHER_NEW), v4, strict=True))  # type: ignore[return-value]


def changed(frame: bytes) -> bytes:
    return readdress(frame, ADDRESSES, {parse_mac(old): parse_mac(new) for old, new in MACS.items()})


@pytest.mark.parametrize(
    "layers",
    [
        UDP(sport=1, dport=2) / b"odd",
        TCP(flags="S") / b"x",
        ICMP() / b"hello",
        UDP(sport=1, dport=2, chksum=0) / b"x",
        Raw(b"?"),
    ],
)
def test_ipv4(layers: Packet) -> None:
    before, after = pair(layers)
    assert changed(before) == after


def test_a_wrong_checksum_stays_wrong() -> None:
    before, after = pair(UDP(sport=1, dport=2, chksum=0x1234) / b"x")
    assert changed(before) != after
    assert Ether(changed(before))[UDP].chksum not in (0x1234, Ether(pair(UDP(sport=1, dport=2) / b"x")[1])[UDP].chksum)


def test_ipv6_behind_an_extension_header() -> None:
    frames = [
        bytes(Ether(**mac) / IPv6(src=one, dst=two) / IPv6ExtHdrHopByHop() / layer)
        for layer in (ICMPv6EchoRequest(data=b"x"), UDP(dport=5) / b"y")
        for mac, (one, two) in ((ETHER, OLD6), (ETHER_NEW, NEW6))
    ]
    assert changed(frames[0]) == frames[1]
    assert changed(frames[2]) == frames[3]


def test_arp_tags_and_fragments() -> None:
    ask = {"hwsrc": ETHER["src"], "psrc": OLD[0], "pdst": OLD[1]}
    asked = ask | {"hwsrc": ETHER_NEW["src"], "psrc": NEW[0], "pdst": NEW[1]}
    for tags in ([], [Dot1Q(vlan=5)]):
        before, after = Ether(**ETHER), Ether(**ETHER_NEW)
        for tag in tags:
            before, after = before / tag, after / tag
        assert changed(bytes(before / ARP(**ask))) == bytes(after / ARP(**asked))
    first, second = (fragment(IP(src=one, dst=two, id=7) / UDP(dport=5) / bytes(2000), 800) for one, two in (OLD, NEW))
    for old, new in zip(first, second, strict=True):
        assert changed(bytes(Ether(**ETHER) / old)) == bytes(Ether(**ETHER_NEW) / new)


def test_what_an_error_quotes() -> None:
    quoted = [bytes(IP(src=two, dst=one, id=9) / UDP(dport=5))[:28] for one, two in (OLD, NEW)]
    before, after = (pair(ICMP(type=3, code=3) / Raw(one))[number] for number, one in enumerate(quoted))
    assert changed(before) == after


def test_a_frame_that_was_cut() -> None:
    before, after = pair(TCP() / bytes(500))
    assert changed(before[:60]) == after[:60]


@given(st.binary(max_size=120))
def test_any_bytes_keep_their_length(data: bytes) -> None:
    assert len(changed(data)) == len(data)
    source_of(data)
