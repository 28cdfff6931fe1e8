"""Every format against Scapy, both ways: what we pack Scapy reads, what Scapy packs we read."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.layers.inet6 import IPv6 as ScapyIPv6
from scapy.layers.l2 import ARP, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Raw
from scapy.utils import checksum as scapy_checksum

from emunet.packet import arp, ethernet, icmp, icmpv6, ipv4, ipv6, tcp, udp, vxlan
from emunet.packet.address import format_ip, format_mac
from emunet.packet.checksum import checksum
from emunet.packet.malformed import Malformed

macs = st.binary(min_size=6, max_size=6)
v4 = st.binary(min_size=4, max_size=4)
v6 = st.binary(min_size=16, max_size=16)
u8 = st.integers(0, 0xFF)
u16 = st.integers(0, 0xFFFF)
u32 = st.integers(0, 0xFFFFFFFF)
data = st.binary(max_size=200)
FEW = settings(max_examples=40, deadline=None)


@given(st.binary(max_size=100))
def test_checksum(value: bytes) -> None:
    assert checksum(value) == scapy_checksum(value)


@FEW
@given(macs, macs, st.integers(0x0600, 0xFFFF), data)
def test_ethernet(dst: bytes, src: bytes, ethertype: int, payload: bytes) -> None:
    frame = ethernet.build(dst, src, ethertype, payload)
    theirs = Ether(dst=format_mac(dst), src=format_mac(src), type=ethertype) / Raw(payload)
    assert frame == bytes(theirs)
    assert ethernet.Ethernet.parse(frame) == (ethernet.Ethernet(dst, src, ethertype), payload)
    assert ethernet.Ethernet(dst, src, ethertype).pack(payload) == frame


@FEW
@given(u16, macs, v4, macs, v4, data)
def test_arp(operation: int, mac: bytes, ip: bytes, target_mac: bytes, target_ip: bytes, padding: bytes) -> None:
    message = arp.Arp(operation, mac, ip, target_mac, target_ip)
    theirs = ARP(
        op=operation, hwsrc=format_mac(mac), psrc=format_ip(ip), hwdst=format_mac(target_mac), pdst=format_ip(target_ip)
    )
    assert message.pack() == bytes(theirs)
    assert arp.Arp.parse(bytes(theirs) + padding) == message


def test_arp_helpers_make_whole_frames() -> None:
    mac, peer, ip, other = b"\x02" * 6, b"\x06" * 6, b"\x0a\0\0\1", b"\x0a\0\0\2"
    question = Ether(arp.request(mac, ip, other))
    assert (question.dst, question[ARP].op, question[ARP].pdst) == ("ff:ff:ff:ff:ff:ff", 1, "10.0.0.2")
    answer = arp.reply(peer, other, mac, ip)
    assert len(answer) == 42
    assert (Ether(answer).dst, Ether(answer)[ARP].op) == (format_mac(mac), 2)


@pytest.mark.rule("ARP-12")
@pytest.mark.parametrize(("offset", "value"), [(1, 6), (3, 1), (4, 8), (5, 16)])
def test_arp_of_other_hardware_or_lengths_is_malformed(offset: int, value: int) -> None:
    message = bytearray(arp.Arp(1, bytes(6), bytes(4), bytes(6), bytes(4)).pack())
    message[offset] = value
    with pytest.raises(Malformed):
        arp.Arp.parse(bytes(message))


@FEW
@given(v4, v4, u8, u8, u8, u16, st.booleans(), st.booleans(), st.integers(0, 8000), st.binary(max_size=40), data)
def test_ipv4(
    src: bytes,
    dst: bytes,
    protocol: int,
    ttl: int,
    tos: int,
    identification: int,
    dont: bool,
    more: bool,
    offset: int,
    options: bytes,
    payload: bytes,
) -> None:
    options = options[: len(options) & ~3]
    header = ipv4.IPv4(src, dst, protocol, ttl, tos, identification, dont, more, offset * 8, options)
    packet = header.pack(payload)
    theirs = IP(packet)
    assert (theirs.src, theirs.dst, theirs.proto) == (format_ip(src), format_ip(dst), protocol)
    assert (theirs.ttl, theirs.tos, theirs.id, theirs.frag) == (ttl, tos, identification, offset)
    assert (bool(theirs.flags.DF), bool(theirs.flags.MF)) == (dont, more)
    assert (theirs.len, theirs.ihl) == (len(packet), header.header_length // 4)
    assert scapy_checksum(packet[: header.header_length]) == 0
    assert ipv4.IPv4.parse(packet + b"padding") == (header, payload)


def test_ipv4_from_scapy() -> None:
    packet = bytes(IP(src="10.0.0.1", dst="10.0.0.2", ttl=7, tos=4, id=99, flags="DF") / UDP(sport=1, dport=2) / b"x")
    header, payload = ipv4.IPv4.parse(packet)
    assert header == ipv4.IPv4(b"\x0a\0\0\1", b"\x0a\0\0\2", 17, 7, 4, 99, True)
    assert udp.Udp.parse(payload) == (udp.Udp(1, 2), b"x")


@pytest.mark.rule("IP-05")
@pytest.mark.parametrize("bad", [{"version": 5}, {"ihl": 4}, {"ihl": 15}, {"len": 19}, {"len": 60}, {"chksum": 1}])
def test_ipv4_rejects(bad: dict[str, int]) -> None:
    with pytest.raises(Malformed):
        ipv4.IPv4.parse(bytes(IP(src="10.0.0.1", dst="10.0.0.2", **bad) / b"12345678"))


@FEW
@given(v6, v6, st.sampled_from([6, 17, 58, 59, 200]), u8, u8, st.integers(0, 0xFFFFF), data)
def test_ipv6(src: bytes, dst: bytes, protocol: int, hops: int, traffic: int, label: int, payload: bytes) -> None:
    header = ipv6.IPv6(src, dst, protocol, hops, traffic, label)
    theirs = ScapyIPv6(src=format_ip(src), dst=format_ip(dst), nh=protocol, hlim=hops, tc=traffic, fl=label)
    assert header.pack(payload) == bytes(theirs / Raw(payload))
    assert ipv6.IPv6.parse(header.pack(payload) + b"padding") == (header, payload)
    assert ipv6.upper_layer(header.pack(payload)) == (protocol, 40)


def test_ipv6_extension_headers() -> None:
    base = ScapyIPv6(src="fd00::1", dst="fd00::2")
    extensions = (
        IPv6ExtHdrHopByHop(options=[PadN(optdata=bytes(12))])
        / IPv6ExtHdrRouting(addresses=["fd00::3"])
        / IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(4))])
    )
    packet = bytes(base / extensions / UDP(sport=1, dport=2))
    protocol, offset = ipv6.upper_layer(packet)
    assert (protocol, offset) == (17, 40 + len(bytes(extensions)))
    for cut in range(len(packet)):
        with pytest.raises(Malformed):
            ipv6.IPv6.parse(packet[:cut])
    first = bytes(base / IPv6ExtHdrFragment(m=1, offset=0, id=5) / UDP())
    assert ipv6.upper_layer(first) == (17, 48)
    later = bytes(base / IPv6ExtHdrFragment(m=0, offset=1, id=5, nh=17) / Raw(b"later"))
    assert ipv6.upper_layer(later) == (ipv6.FRAGMENT, 40)
    assert ipv6.find_fragment(first) == ipv6.find_fragment(later) == (40, 6)
    assert ipv6.find_fragment(packet) is None
    behind = bytes(base / IPv6ExtHdrHopByHop(options=[PadN(optdata=bytes(4))]) / IPv6ExtHdrFragment(m=1) / UDP())
    assert ipv6.find_fragment(behind) == (48, 40)
    assert ipv6.next_header_pointer(behind) == 48
    assert ipv6.next_header_pointer(bytes(base / UDP())) == 6
    assert ipv6.FragmentHeader.parse(later[40:]) == ipv6.FragmentHeader(17, 8, False, 5)


@FEW
@given(st.binary(max_size=3000), st.integers(1280, 1500))
def test_ipv6_fragments_are_read_by_scapy(payload: bytes, mtu: int) -> None:
    packet = ipv6.IPv6(b"\xfd" * 16, b"\xfe" * 16, 253).pack(payload)
    pieces = ipv6.fragment(packet, mtu, 77)
    if len(packet) <= mtu:
        assert pieces == [packet]
        return
    whole = b""
    for number, piece in enumerate(pieces):
        assert len(piece) <= mtu
        theirs = ScapyIPv6(piece)[IPv6ExtHdrFragment]
        assert (theirs.nh, theirs.id, theirs.offset * 8, theirs.m) == (253, 77, len(whole), number < len(pieces) - 1)
        whole += bytes(theirs.payload)
    assert whole == payload


@FEW
@given(st.sampled_from([0, 8]), u16, u16, data)
def test_icmp_echo(kind: int, identifier: int, sequence: int, payload: bytes) -> None:
    theirs = bytes(ICMP(type=kind, id=identifier, seq=sequence) / Raw(payload))
    message = icmp.Icmp.parse(theirs)
    assert (message.type, message.identifier, message.sequence, message.body) == (kind, identifier, sequence, payload)
    assert message.pack() == theirs
    request = icmp.echo_request(identifier, sequence, payload)
    assert icmp.echo_reply(request).pack() == bytes(ICMP(type=0, id=identifier, seq=sequence) / Raw(payload))


def test_icmp_errors() -> None:
    quoted = bytes(IP(src="10.0.0.1", dst="10.0.0.2") / UDP() / bytes(1000))
    message = icmp.fragmentation_needed(quoted, 1400)
    theirs = ICMP(message.pack())
    assert (theirs.type, theirs.code, theirs.nexthopmtu) == (3, 4, 1400)
    assert len(message.pack()) == 556, "with an IP header 576 bytes in all (IC-02)"
    assert message.mtu == 1400
    assert message.body == quoted[:548]


@FEW
@given(v6, v6, u16, u16, data)
def test_icmpv6_echo(src: bytes, dst: bytes, identifier: int, sequence: int, payload: bytes) -> None:
    ip = ScapyIPv6(src=format_ip(src), dst=format_ip(dst))
    theirs = bytes(ip / ICMPv6EchoRequest(id=identifier, seq=sequence, data=payload))[40:]
    request = icmpv6.echo_request(identifier, sequence, payload)
    assert request.pack(src, dst) == theirs
    assert icmpv6.Icmpv6.parse(src, dst, theirs) == request
    assert (request.identifier, request.sequence) == (identifier, sequence)


@FEW
@given(v6, v6, v6, st.none() | macs, st.booleans(), st.booleans(), st.booleans())
def test_neighbor_discovery(
    src: bytes, dst: bytes, target: bytes, mac: bytes | None, router: bool, solicited: bool, override: bool
) -> None:
    target = b"\xfd" + target[1:]
    ip = ScapyIPv6(src=format_ip(src), dst=format_ip(dst))
    ns = ip / ICMPv6ND_NS(tgt=format_ip(target))
    na = ip / ICMPv6ND_NA(tgt=format_ip(target), R=router, S=solicited, O=override)
    if mac is not None:
        ns, na = ns / ICMPv6NDOptSrcLLAddr(lladdr=format_mac(mac)), na / ICMPv6NDOptDstLLAddr(lladdr=format_mac(mac))
    question = icmpv6.NeighborSolicitation(target, mac)
    answer = icmpv6.NeighborAdvertisement(target, mac, router, solicited, override)
    assert question.pack(src, dst) == bytes(ns)[40:]
    assert answer.pack(src, dst) == bytes(na)[40:]
    assert icmpv6.NeighborSolicitation.parse(icmpv6.Icmpv6.parse(src, dst, bytes(ns)[40:])) == question
    assert icmpv6.NeighborAdvertisement.parse(icmpv6.Icmpv6.parse(src, dst, bytes(na)[40:])) == answer


@pytest.mark.parametrize("options", [b"\1\0\0\0\0\0\0\0", b"\1\2" + bytes(6), b"\1", b"\1\2" + bytes(14)])
def test_neighbor_discovery_options_that_lie_are_malformed(options: bytes) -> None:
    message = icmpv6.Icmpv6(icmpv6.NEIGHBOR_SOLICITATION, 0, bytes(4), b"\xfd" + bytes(15) + options)
    with pytest.raises(Malformed):
        icmpv6.NeighborSolicitation.parse(message)


@pytest.mark.rule("V6-08")
def test_icmpv6_error_is_cut_to_the_minimum_mtu() -> None:
    quoted = bytes(ScapyIPv6(src="fd00::1", dst="fd00::2") / UDP() / bytes(1400))
    message = icmpv6.packet_too_big(quoted, 1400)
    assert (message.mtu, len(message.pack(bytes(16), bytes(16)))) == (1400, 1240)
    unreachable = icmpv6.error(icmpv6.UNREACHABLE, icmpv6.PORT_UNREACHABLE, quoted).pack(bytes(16), bytes(16))
    assert ICMPv6DestUnreach(unreachable).code == 4


families = st.one_of(st.tuples(v4, v4), st.tuples(v6, v6))


def _scapy_ip(src: bytes, dst: bytes) -> IP | ScapyIPv6:
    kind = IP if len(src) == 4 else ScapyIPv6
    return kind(src=format_ip(src), dst=format_ip(dst))


@FEW
@given(families, u16, u16, data)
def test_udp(addresses: tuple[bytes, bytes], sport: int, dport: int, payload: bytes) -> None:
    src, dst = addresses
    ip = _scapy_ip(src, dst)
    theirs = bytes(ip / UDP(sport=sport, dport=dport) / Raw(payload))[len(bytes(ip)) :]
    ours = udp.Udp(sport, dport).pack(src, dst, payload)
    assert ours == theirs
    assert udp.Udp.parse(ours + b"padding") == (udp.Udp(sport, dport), payload)
    assert udp.checksum_valid(src, dst, ours + b"padding")
    assert not udp.checksum_valid(src, dst, bytes((ours[0] ^ 1,)) + ours[1:])
    without = ours[:6] + b"\0\0" + ours[8:]
    assert udp.checksum_valid(src, dst, without) == (len(src) == 4), "V6-12, IC-09"


def test_udp_checksum_of_zero_is_sent_as_all_ones() -> None:
    src, dst = b"\x0a\0\0\1", b"\x0a\0\0\2"
    base = udp.Udp(1, 2).pack(src, dst, b"\0\0")
    payload = base[6:8]
    assert udp.Udp(1, 2).pack(src, dst, payload)[6:8] == b"\xff\xff"


@FEW
@given(families, u16, u16, u32, u32, u8, u16, u16, st.none() | u16, st.none() | st.integers(0, 14), st.booleans(), data)
def test_tcp(
    addresses: tuple[bytes, bytes],
    sport: int,
    dport: int,
    sequence: int,
    acknowledgment: int,
    flags: int,
    window: int,
    urgent: int,
    mss: int | None,
    scale: int | None,
    sack: bool,
    payload: bytes,
) -> None:
    src, dst = addresses
    options = tcp.TcpOptions(mss, scale, sack, (sequence, acknowledgment) if sack else None)
    header = tcp.Tcp(sport, dport, sequence, acknowledgment, flags, window, urgent, options.pack())
    segment = header.pack(src, dst, payload)
    theirs = TCP(segment)
    assert (theirs.sport, theirs.dport, theirs.seq, theirs.ack) == (sport, dport, sequence, acknowledgment)
    assert (int(theirs.flags), theirs.window, theirs.urgptr) == (flags, window, urgent)
    read = dict(option for option in theirs.options if option[0] not in ("EOL", "NOP"))
    assert read.get("MSS") == mss
    assert read.get("WScale") == scale
    assert ("SAckOK" in read) == sack
    ip = _scapy_ip(src, dst)
    rebuilt = TCP(segment)
    del rebuilt.chksum
    assert bytes(ip / rebuilt)[len(bytes(ip)) :] == segment
    again, rest = tcp.Tcp.parse(segment)
    assert rest == payload
    assert tcp.TcpOptions.parse(again.options) == options
    assert tcp.checksum_valid(src, dst, segment)
    assert not tcp.checksum_valid(src, dst, segment[:-1] + bytes((segment[-1] ^ 1,)))


def test_tcp_options_end_at_an_impossible_length() -> None:
    assert tcp.TcpOptions.parse(b"\x02\x04\x05\xb4\x03\x00") == tcp.TcpOptions(mss=1460)
    assert tcp.TcpOptions.parse(b"\x01\x01\x08") == tcp.TcpOptions()


@FEW
@given(st.integers(0, (1 << 24) - 1))
def test_vxlan(vni: int) -> None:
    ours = vxlan.header(vni)
    assert VXLAN(ours).vni == vni
    assert ours == bytes(VXLAN(vni=vni, flags="Instance"))[:8]
    assert vxlan.parse(ours + b"inner") == (vni, 8)


@pytest.mark.rule("VX-01")
@pytest.mark.rule("VX-05")
def test_vxlan_is_as_strict_as_linux() -> None:
    """Of the 40 flag and reserved bits, exactly the I flag is set."""
    assert vxlan.header(1) == bytes.fromhex("0800000000000100")
    good = int.from_bytes(vxlan.header(5), "big")
    for bit in range(64):
        if 8 <= bit < 32:  # the network identifier
            continue
        with pytest.raises(Malformed):
            vxlan.parse((good ^ 1 << bit).to_bytes(8, "big"))
    with pytest.raises(Malformed):
        vxlan.parse(vxlan.header(5)[:7])
    with pytest.raises(ValueError, match="24 bits"):
        vxlan.header(1 << 24)


@given(st.integers(0, (1 << 64) - 1))
def test_vxlan_source_port(flow_hash: int) -> None:
    assert 49152 <= vxlan.source_port(flow_hash) <= 65535
    assert vxlan.source_port(flow_hash) == vxlan.source_port(flow_hash)


@pytest.mark.rule("VX-03")
def test_vxlan_source_ports_are_spread() -> None:
    """10,000 flows use most of the ports that as many balls would."""
    assert len({vxlan.source_port(number * 0x9E3779B97F4A7C15 & (1 << 64) - 1) for number in range(10_000)}) > 6000
