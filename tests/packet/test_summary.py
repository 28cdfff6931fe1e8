"""One line about any frame: rows against frames that Scapy builds, and nothing ever raises."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dns import DNS, DNSQR, DNSRR
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_NS, IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, LLC, STP, Dot1Q, Dot3, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet

from emunet.packet.summary import frame_line, summarize

LINK = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
V4 = LINK / IP(src="1.2.3.4", dst="5.6.7.8")
V6 = LINK / IPv6(src="fd00::1", dst="fd00::2")

QUESTION = ARP(psrc="1.2.3.4", pdst="1.2.3.5", hwsrc="02:00:00:00:00:01")
ANSWER = ARP(op=2, psrc="1.2.3.4", pdst="1.2.3.5", hwsrc="02:00:00:00:00:01")

ROWS = [
    (LINK / QUESTION, "ARP, who has 1.2.3.5? tell 1.2.3.4"),
    (LINK / ANSWER, "ARP, 1.2.3.4 is at 02:00:00:00:00:01"),
    (V4 / ICMP(id=3, seq=4) / b"abc", "1.2.3.4 > 5.6.7.8: ICMP echo request, id 3, seq 4, length 11, ttl 64"),
    (
        V4 / ICMP(type=3, code=4, nexthopmtu=1450),
        "1.2.3.4 > 5.6.7.8: ICMP fragmentation needed, mtu 1450, length 8, ttl 64",
    ),
    (
        V4 / TCP(sport=20, dport=80, flags="SA", seq=7, ack=9) / b"x",
        "1.2.3.4:20 > 5.6.7.8:80: TCP [S.], seq 7:8, ack 9, win 8192, length 1, ttl 64",
    ),
    (V4 / UDP(sport=1, dport=53) / b"hello", "1.2.3.4:1 > 5.6.7.8:53: UDP, length 5, ttl 64"),
    (
        V4 / UDP(sport=50000, dport=4789) / VXLAN(vni=7, flags="Instance") / V4 / ICMP(),
        "1.2.3.4:50000 > 5.6.7.8:4789: VXLAN 7 {1.2.3.4 > 5.6.7.8: ICMP echo request, id 0, seq 0, length 8, ttl 64},"
        " ttl 64",
    ),
    (
        LINK / Dot1Q(vlan=7) / IP(src="1.1.1.1", dst="2.2.2.2", frag=3, id=77) / b"xx",
        "vlan 7, 1.1.1.1 > 2.2.2.2: fragment at 24 of id 77, the last, ttl 64",
    ),
    (
        V6 / ICMPv6ND_NS(tgt="fd00::2"),
        "fd00::1 > fd00::2: ICMP6 neighbour solicitation, who has fd00::2, length 24, hop limit 255",
    ),
    (
        V6 / ICMPv6EchoRequest(id=1, seq=2),
        "fd00::1 > fd00::2: ICMP6 echo request, id 1, seq 2, length 8, hop limit 64",
    ),
    (V6 / TCP(sport=20), "[fd00::1]:20 > [fd00::2]:80: TCP [S], seq 0, win 8192, length 0, hop limit 64"),
    (V6 / IPv6ExtHdrFragment(offset=1, id=9) / b"xxxxxxxx", "fd00::1 > fd00::2: fragment at 8 of id 9, hop limit 64"),
    (
        Dot3(src="02:00:00:00:00:01", dst="01:80:c2:00:00:00") / LLC() / STP(),
        "02:00:00:00:00:01 > 01:80:c2:00:00:00: 802.3, length 38",
    ),
]


@pytest.mark.parametrize(("packet", "line"), ROWS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_line(packet: Packet, line: str) -> None:
    assert frame_line(bytes(packet)) == line


def test_what_is_no_frame_is_said_to_be_none() -> None:
    assert frame_line(b"short") == "a runt of 5 bytes: 73686f7274"


FRAMES = st.sampled_from([bytes(packet) for packet, _ in ROWS])


@given(FRAMES, st.integers(0, 200), st.binary(max_size=60), st.integers(0, 80))
def test_any_bytes_give_a_line(frame: bytes, length: int, noise: bytes, at: int) -> None:
    damaged = (frame[:at] + noise + frame[at + len(noise) :])[:length]
    line = frame_line(damaged)
    assert line
    assert "\n" not in line


_ADDRESSES = [DNSRR(rrname="db.x.", type="A", rdata=f"10.0.0.{last}") for last in range(1, 7)]


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (DNS(qd=DNSQR(qname="web.x.", qtype="AAAA")), "DNS AAAA web.x?"),
        (DNS(qr=1, qd=DNSQR(qname="db.x."), an=_ADDRESSES[:2]), "DNS A db.x: 10.0.0.1, 10.0.0.2"),
        (
            DNS(qr=1, qd=DNSQR(qname="db.x."), an=_ADDRESSES),
            "DNS A db.x: 10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.4, 2 more",
        ),
        (
            DNS(
                qr=1, qd=DNSQR(qname="a.x.", qtype="AAAA"),
                an=[
                    DNSRR(rrname="a.x.", type="CNAME", rdata="b.x."),
                    DNSRR(rrname="b.x.", type="AAAA", rdata="fd00::1"),
                ],
            ),
            "DNS AAAA a.x: CNAME, fd00::1",
        ),
        (DNS(qr=1, qd=DNSQR(qname="a.x."), an=[]), "DNS A a.x: no such record"),
        (DNS(qr=1, rcode=3, qd=DNSQR(qname="a.x.")), "DNS A a.x: no such name"),
    ],
)  # fmt: skip
def test_what_a_name_server_is_asked_and_says(message: DNS, said: str) -> None:
    ports = {"sport": 53, "dport": 50000} if message.qr else {"sport": 50000, "dport": 53}
    packet = V4 / UDP(**ports) / message
    assert summarize(bytes(packet)).said == said
    wrapped = V4 / UDP(sport=50000, dport=4789) / VXLAN(vni=7, flags="Instance") / packet
    assert summarize(bytes(wrapped)).said == said


@given(st.integers(0, 300), st.binary(max_size=6), st.integers(0, 300))
def test_a_damaged_answer_is_told_as_far_as_it_goes(length: int, noise: bytes, at: int) -> None:
    whole = bytes(V4 / UDP(sport=53, dport=50000) / DNS(qr=1, qd=DNSQR(qname="db.x."), an=_ADDRESSES))
    damaged = (whole[: 42 + at] + noise + whole[42 + at + len(noise) :])[: 42 + length]
    said = summarize(damaged).said
    assert said.isprintable()
    assert not said or said.startswith("DNS ")
