"""Malformed frames of every kind into every port: counted with a reason, the law holds, nothing raises."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emunet.packet import arp, icmp, icmpv6, ipv4, ipv6, tcp, udp, vxlan
from emunet.plane.trace import Trace
from tests.worlds import Net, datagram, echo, segment

PORTS = (
    "web-1", "web-3", "host1:eth0", "host2:eth0", "host1:cni0", "host1:flannel.1", "switch1:1", "switch1:2",
)  # fmt: skip
LOCAL = ("host1:cni0", "host1:flannel.1")
"""Of these it is a host's own program that sends."""


def enter(net: Net, port: str, frame: bytes) -> Trace:
    """A frame comes in by a port: by a pod, a device's port, or from a host's own program."""
    if port in LOCAL:
        trace = Trace()
        net.world.receive(net[port], frame, net.world.now, trace=trace)
        return trace
    if port in net.stations and not net[port].entry.startswith("local:"):
        return net.send(port, frame)
    return net.from_wire(*port.split(":"), frame)  # type: ignore[call-arg]


def accounted(net: Net, port: str, frame: bytes) -> Trace:
    """A frame went in: it came to an end that has a reason, and nothing is missing."""
    before = net.world.ledger.received
    trace = enter(net, port, frame)
    assert net.world.ledger.received > before, port
    assert trace.reason is not None, port
    assert trace.sentence
    assert net.world.ledger.balance == 0, (port, frame.hex())
    for device in net.world.devices.values():
        assert device.ledger.balance == 0, (port, device.name, frame.hex())
    return trace


@pytest.fixture(scope="module")
def net() -> Net:
    return Net("dual-stack")


def addressed(net: Net, port: str) -> tuple[bytes, bytes]:
    """Destination and source MAC of a frame that would be taken in at a port."""
    if port.startswith("web"):
        return net.gateway(net[port]), net[port].mac
    if port.startswith("host"):
        host, interface = port.split(":")
        return net.mac(host, interface), bytes.fromhex("020000000099")
    return b"\xff" * 6, bytes.fromhex("020000000098")


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("length", range(14))
def test_runts(net: Net, port: str, length: int) -> None:
    trace = accounted(net, port, bytes(range(2, 16))[:length])
    assert trace.verdict == "dropped"
    assert trace.reason is not None
    assert trace.reason.name == ("UNKNOWN_ETHERTYPE" if port in LOCAL else "RUNT")


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("size", [1501, 9000, 65535, 100_000])
def test_jumbos(net: Net, port: str, size: int) -> None:
    destination, source = addressed(net, port)
    accounted(net, port, destination + source + b"\x88\xb5" + bytes(size))
    if size < 65536:
        packet = datagram(net["web-1"].address(), net["web-3"].address(), 5, 6, bytes(size - 28))
        accounted(net, port, destination + source + b"\x08\x00" + packet)


def wrong(a: bytes, b: bytes, a6: bytes, b6: bytes, own: bytes) -> Iterator[tuple[str, bytes, bytes]]:
    """(what, EtherType, payload) of things that are wrong in one way each."""
    good = datagram(a, b, 5, 6, b"data" * 8)
    v4, v6, arp_type = b"\x08\x00", b"\x86\xdd", b"\x08\x06"
    for length in range(21):
        yield f"IPv4 of {length} bytes", v4, good[:length]
    for value in (0, 1, 19, 20, 27, len(good) + 1, 65535):
        head = ipv4.IPv4(a, b, 17).pack(b"")[:2] + value.to_bytes(2, "big") + good[4:10]
        from emunet.packet.checksum import checksum

        zeroed = head + bytes(2) + good[12:20]
        yield (
            f"IPv4 total length {value}",
            v4,
            zeroed[:10] + checksum(zeroed).to_bytes(2, "big") + zeroed[12:] + good[20:],
        )
    for first in (0x00, 0x44, 0x4F, 0x65, 0xF5):
        yield f"IPv4 first byte {first:#x}", v4, bytes((first,)) + good[1:]
    for at in range(20):
        yield f"IPv4 bit flipped at {at}", v4, good[:at] + bytes((good[at] ^ 0x10,)) + good[at + 1 :]
    for kind in range(256):
        options = bytes((kind, 0, 0, 0))
        yield f"IPv4 option {kind} of length 0", v4, ipv4.IPv4(a, b, 17, options=options).pack(good[20:])
        yield f"IPv4 option {kind} too long", v4, ipv4.IPv4(a, b, 17, options=bytes((kind, 40, 4, 1))).pack(good[20:])
    yield "IPv4 beyond 65535", v4, ipv4.IPv4(a, b, 17, fragment_offset=65528).pack(bytes(100))
    yield "IPv4 uneven fragment", v4, ipv4.IPv4(a, b, 17, more_fragments=True).pack(bytes(13))
    for protocol in (1, 2, 4, 6, 17, 41, 47, 50, 132, 255):
        for size in (0, 1, 3, 7):
            yield f"protocol {protocol} of {size} bytes", v4, ipv4.IPv4(a, b, protocol).pack(bytes(size))
            yield f"protocol {protocol} of {size} bytes to a host", v4, ipv4.IPv4(a, own, protocol).pack(bytes(size))
            yield f"next header {protocol} of {size} bytes", v6, ipv6.IPv6(a6, b6, protocol).pack(bytes(size))
    bad_udp = good[:26] + b"\xde\xad" + good[28:]
    yield "UDP checksum", v4, bad_udp
    yield "UDP length", v4, good[:24] + b"\xff\xff" + good[26:]
    yield "TCP offset", v4, ipv4.IPv4(a, b, 6).pack(tcp.Tcp(1, 2, 3, 4, 2, 5).pack(a, b)[:12] + b"\xf0" + bytes(7))
    yield "ICMP checksum", v4, ipv4.IPv4(a, b, 1).pack(icmp.echo_request(1, 1).pack()[:2] + b"\0\1" + bytes(4))
    good6 = datagram(a6, b6, 5, 6, b"data")
    for length in range(41):
        yield f"IPv6 of {length} bytes", v6, good6[:length]
    yield "IPv6 payload length", v6, good6[:4] + b"\xff\xff" + good6[6:]
    yield "IPv6 version", v6, b"\x40" + good6[1:]
    for header in (0, 43, 44, 60):
        for size in (0, 2, 7, 8):
            yield f"IPv6 header {header} of {size}", v6, ipv6.IPv6(a6, b6, header).pack(bytes(size))
            yield (
                f"IPv6 header {header} too long",
                v6,
                ipv6.IPv6(a6, b6, header).pack(bytes((header, 255)) + bytes(size)),
            )
            chain = bytes((header, 0)) + bytes(6)
            yield f"IPv6 header {header} for ever", v6, ipv6.IPv6(a6, b6, header).pack(chain * 100)
    for kind in (133, 134, 135, 136, 137, 143):
        for size in (0, 3, 15, 17, 24):
            message = icmpv6.Icmpv6(kind, 0, bytes(4), b"\xff" * size).pack(a6, b6)
            yield f"ICMPv6 {kind} of {size}", v6, ipv6.IPv6(a6, b6, 58, 255).pack(message)
    question = arp.request(bytes(6), a, b)[14:]
    for length in range(29):
        yield f"ARP of {length}", arp_type, question[:length]
    for at in range(8):
        yield f"ARP byte {at}", arp_type, question[:at] + b"\xee" + question[at + 1 :]
    yield "a tag alone", b"\x81\x00", b"\x00"
    yield "a tag without a type", b"\x81\x00", b"\x00\x01\x08"
    yield "eight tags", b"\x81\x00", b"\x00\x01\x81\x00" * 8 + b"\x08\x00" + good
    yield "two tags of two kinds", b"\x88\xa8", b"\x00\x01\x81\x00\x00\x02\x08\x00" + good
    yield "VLAN 4095", b"\x81\x00", b"\x0f\xff\x08\x00" + good
    yield "802.3 length", b"\x00\x26", bytes(3)
    yield "802.3 length beyond", b"\x05\xdc", bytes(10)


@pytest.mark.parametrize("port", PORTS)
def test_one_thing_wrong(net: Net, port: str) -> None:
    web1, web3 = net["web-1"], net["web-3"]
    own = net["host2:eth0"].address()
    destination, source = addressed(net, port)
    for what, ethertype, payload in wrong(web1.address(), web3.address(), web1.address(16), web3.address(16), own):
        for to in (destination, b"\xff" * 6, bytes.fromhex("333300000001")):
            assert accounted(net, port, to + source + ethertype + payload), what


def test_what_a_tunnel_carries(net: Net) -> None:
    """Everything wrong once more, wrapped, and wrapped wrongly."""
    outer = net["host1:eth0"].address(), net["host2:eth0"].address()
    web1, web3 = net["web-1"], net["web-3"]
    inner_macs = net.mac("host2", "flannel.1") + net.mac("host1", "flannel.1")
    frames = [
        inner_macs + ethertype + payload
        for _, ethertype, payload in wrong(
            web1.address(), web3.address(), web1.address(16), web3.address(16), net["host2:eth0"].address()
        )
    ]
    frames += [b"", b"\x01", inner_macs, bytes(20), b"\xff" * 100]
    for frame in frames:
        for header in (vxlan.header(1), b"\x08\0\0\0\0\0\x01", b"\xff" * 8, b""):
            carried = udp.Udp(50000, 4789).pack(*outer, header + frame)
            packet = ipv4.IPv4(*outer, 17).pack(carried)
            accounted(
                net, "host2:eth0", net.mac("host2", "eth0") + bytes.fromhex("020000000099") + b"\x08\x00" + packet
            )


def good(net: Net) -> list[bytes]:
    """Frames that are right, to be damaged."""
    a, b = net["web-1"], net["web-3"]
    packets = [
        datagram(a.address(), b.address(), 5, 6, bytes(30)),
        datagram(a.address(16), b.address(16), 5, 6, bytes(30)),
        segment(a.address(), b.address(), 5, 6, 2),
        echo(a.address(), b.address()),
        echo(a.address(16), b.address(16)),
        ipv4.IPv4(a.address(), b.address(), 17, options=b"\x07\x0b\x04" + bytes(8)).pack(bytes(20)),
        ipv6.IPv6(a.address(16), b.address(16), 0).pack(bytes((17, 0, 1, 4, 0, 0, 0, 0)) + bytes(12)),
        ipv6.IPv6(a.address(16), b.address(16), 44).pack(ipv6.FragmentHeader(17, 0, True, 9).pack() + bytes(16)),
    ]
    return [net.frame("web-1", packet) for packet in packets] + [
        arp.request(a.mac, a.address(), net["host1:cni0"].address())
    ]


@given(data=st.data())
def test_random_bytes_and_random_damage(data: st.DataObject) -> None:
    net = WORLDS[0]
    port = data.draw(st.sampled_from(PORTS))
    if data.draw(st.booleans()):
        frame = data.draw(st.binary(max_size=200))
    else:
        frame = data.draw(st.sampled_from(GOOD))
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(frame) - 1))
            frame = frame[:at] + bytes((data.draw(st.integers(0, 255)),)) + frame[at + 1 :]
        frame = frame[: data.draw(st.integers(0, len(frame)))] if data.draw(st.booleans()) else frame
        destination, source = addressed(net, port)
        if data.draw(st.booleans()):
            frame = destination + source + frame[12:]
    accounted(net, port, frame)


WORLDS = [Net("dual-stack")]
GOOD = good(WORLDS[0])


def test_a_flood_of_random_damage_with_time_passing() -> None:
    """Ten thousand damaged frames in one world, and what waited has its end too."""
    draw = random.Random(9)
    net = Net("dual-stack")
    frames = good(net)
    for number in range(10_000):
        frame = bytearray(draw.choice(frames))
        for _ in range(draw.randrange(1, 5)):
            frame[draw.randrange(len(frame))] = draw.randrange(256)
        port = draw.choice(PORTS)
        net.world.advance(number * 1_000_000)
        if draw.random() < 0.5:
            destination, source = addressed(net, port)
            frame[:12] = destination + source
        enter(net, port, bytes(frame[: draw.randrange(1, len(frame) + 1)] if draw.random() < 0.2 else frame))
    net.world.advance(100 * 1_000_000_000)
    net.balanced()
    assert net.world.ledger.queued == 0
    assert len(net.world.ledger.reasons) > 10, net.world.ledger.reasons
