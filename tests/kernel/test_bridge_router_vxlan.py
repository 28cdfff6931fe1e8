"""Does Linux agree? Thousands of generated frames through its bridge, router and VXLAN device, and through ours.

`forwarding_judge` says what may differ. Every run of a judge asserts that both sides were
really exercised: that many frames came out, and errors of each kind.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from forwarding_judge import (
    MARKER_TYPE,
    Difference,
    KernelNode,
    Out,
    comparable,
    local_port_range,
    outer_comparable,
    shell,
    sysctl,
)
from forwarding_packets import NEIGHBORS, Packets
from kernel_bench import in_own_network

from emunet.elements.neighbor import NeighborElement
from emunet.elements.router import Router
from emunet.fabric.config import Settings, StaticNeighbor
from emunet.packet import arp, icmpv6, ipv4, ipv6, udp, vxlan
from emunet.packet.address import multicast_mac, solicited_node
from emunet.packet.view import Packet
from emunet.plane.device import edited
from tests.stories.benches import Net, host_mac, ip, own_stack, route, router, router_mac, switch, tunnels

BROADCAST = b"\xff" * 6
PORTS = ("e1", "e2", "e3")


def judged(differences: list[Difference]) -> None:
    """No difference is left."""
    few = "\n".join(map(str, differences[:3]))
    assert not differences, f"{len(differences)} differences, the first:\n{few}\n" + "\n".join(
        difference.short() for difference in differences[:40]
    )


def outputs(net: Net, names: dict[str, str]) -> Out:
    """What each station got, by the port that it is at, and forget it."""
    out: Out = {}
    for station, port in names.items():
        frames = [frame for _, frame in net[station].got]
        net[station].got.clear()
        if frames:
            out[port] = frames
    return out


# The bridge

BRIDGE_FRAMES = 3000


def bridge_frames(draw: random.Random, stations: list[bytes], own: bytes) -> Iterator[tuple[str, bytes]]:
    """(port, frame): unicast known and unknown, groups, reserved groups, moves, tags, lengths."""
    reserved = [bytes.fromhex("0180c20000") + bytes((number,)) for number in range(0x12)]
    others = [bytes((2, 0, 0, 0, 0x77, number)) for number in range(6)]
    odd = [BROADCAST, bytes.fromhex("01005e010203"), bytes.fromhex("333300000099"), bytes(6), own]
    for _ in range(BRIDGE_FRAMES):
        port = draw.randrange(4)
        source = stations[port] if draw.random() < 0.85 else draw.choice([*stations, *others, *odd, *reserved[:2]])
        destination = draw.choice([*stations * 3, *others, *odd, *reserved])
        size = draw.choice([0, 1, 46, 100, 986, 1000, 1001, 1200, 1400])
        kind = draw.choice(
            [b"\x88\xb5"] * 6 + [b"\x81\x00\x60\x05\x88\xb5", b"\x88\xa8\x00\x07\x81\x00\x00\x08\x88\xb5"]
        )
        yield f"p{port + 1}", destination + source + kind + bytes(draw.randrange(256) for _ in range(8)) + bytes(size)


def test_the_bridge() -> None:
    def work() -> None:
        draw = random.Random(1)
        names = [f"p{number}" for number in range(1, 5)]
        kernel = KernelNode({name: f"02:00:00:00:bb:0{name[1]}" for name in names}, {"p4": 1000})
        own = "02:00:00:00:bb:99"
        shell(f"ip link add br0 address {own} type bridge stp_state 0 mcast_snooping 0 && ip link set br0 mtu 1500")
        for name in names:
            shell(f"ip link set {name} master br0 up")
        shell("bridge link set dev p1 isolated on && bridge link set dev p3 isolated on")
        shell("ip link set br0 up")
        kernel.quiet()

        net = switch(4, mtus={"4": 1000}, isolated=("1", "3"))
        stations = [host_mac(number) for number in range(1, 5)]
        at = {f"h{number}": f"p{number}" for number in range(1, 5)}
        port_of = {port: station for station, port in at.items()}
        bridge_macs = [bytes.fromhex(f"02000000bb0{number}") for number in (1, 2, 3, 4)] + [
            bytes.fromhex("02000000bb99")
        ]

        def mark(number: int) -> tuple[str, bytes, str]:
            return "p2", BROADCAST + stations[1] + MARKER_TYPE + bytes(46) + number.to_bytes(8, "big") + b"marker", "p4"

        differences, came = [], Counter[str]()
        for number, (port, frame) in enumerate(bridge_frames(draw, stations, bytes.fromhex("0200000077aa"))):
            if frame[:6] in bridge_macs or frame[6:12] in bridge_macs:
                continue
            theirs = kernel.exchange(port, frame, mark, number)
            net.world.receive(net[port_of[port]], frame, number)
            ours = outputs(net, at)
            net.world.receive(net["h2"], mark(number)[1], number)
            outputs(net, at)
            came["frames"] += 1
            came["copies"] += sum(map(len, theirs.values()))
            came["silence"] += not theirs
            if theirs != ours:
                differences.append(Difference(number, port, frame, theirs, ours))
        net.balanced()
        kernel.close()
        judged(differences)
        assert came["frames"] > 2000
        assert came["copies"] > 1500
        assert came["silence"] > 200

    in_own_network(work)


# The router

ROUTES = (
    ("10.8.0.0/16", "e1", "10.0.1.2", "unicast"),
    ("10.20.0.0/16", "e2", "10.0.2.2", "unicast"),
    ("10.30.0.0/16", "e3", "10.0.3.2", "unicast"),
    ("10.30.40.0/24", "e2", "10.0.2.2", "unicast"),
    ("10.50.0.0/16", "", None, "unreachable"),
    ("10.51.0.0/16", "", None, "prohibit"),
    ("10.52.0.0/16", "", None, "blackhole"),
    ("10.53.0.0/16", "", None, "throw"),
    ("10.9.0.0/16", "e1", "10.0.1.9", "unicast"),
    ("fd08::/32", "e1", "fd00:1::2", "unicast"),
    ("fd20::/32", "e2", "fd00:2::2", "unicast"),
    ("fd30::/32", "e3", "fd00:3::2", "unicast"),
    ("fd50::/32", "", None, "unreachable"),
    ("fd51::/32", "", None, "prohibit"),
    ("fd52::/32", "", None, "blackhole"),
    ("fd53::/32", "", None, "throw"),
)
MTUS = {"e2": 1400, "e3": 1300}


def kernel_router(rp_filter: int = 0) -> KernelNode:
    """The kernel as the router of tests/stories/benches.py."""
    kernel = KernelNode({f"e{number}": router_mac(number).hex(":") for number in (1, 2, 3)}, MTUS)
    lines = ["ip link set lo up"]
    for number in (1, 2, 3):
        lines.append(f"ip link set e{number} up")
        lines.append(f"ip address add 10.0.{number}.1/24 dev e{number} brd +")
        lines.append(f"ip address add fd00:{number}::1/64 dev e{number} nodad")
        lines += [
            f"ip neigh replace 10.0.{number}.{host} lladdr {host_mac(number).hex(':')} dev e{number}"
            for host in (NEIGHBORS if number == 1 else (2,))
        ]
        lines.append(f"ip neigh replace fd00:{number}::2 lladdr {host_mac(number).hex(':')} dev e{number}")
    lines.append(f"ip neigh replace fe80::9 lladdr {host_mac(1).hex(':')} dev e1")
    for prefix, interface, via, kind in ROUTES:
        where = f"via {via} dev {interface}" if kind == "unicast" else ""
        lines.append(f"ip {'-6' if ':' in prefix else '-4'} route add {kind} {prefix} {where}")
    shell("\n".join(lines))
    sysctl(ipv4__ip_forward=1, ipv6__conf__all__forwarding=1, ipv4__icmp_ratelimit=0, ipv4__icmp_msgs_per_sec=1_000_000)
    sysctl(ipv4__icmp_msgs_burst=1_000_000, ipv6__icmp__ratelimit=0, ipv6__auto_flowlabels=0)
    sysctl(ipv4__conf__all__rp_filter=0)
    for number in (1, 2, 3):
        sysctl(**{f"ipv4__conf__e{number}__rp_filter": rp_filter})
    kernel.quiet(1.5)
    return kernel


def our_router(rp_filter: int = 0) -> Net:
    """Ours, of the same rows, without rates."""
    statics = [StaticNeighbor("e1", ip(f"10.0.1.{host}"), host_mac(1)) for host in NEIGHBORS]
    statics += [StaticNeighbor(f"e{number}", ip(f"10.0.{number}.2"), host_mac(number)) for number in (2, 3)]
    statics += [StaticNeighbor(f"e{number}", ip(f"fd00:{number}::2"), host_mac(number)) for number in (1, 2, 3)]
    statics.append(StaticNeighbor("e1", ip("fe80::9"), host_mac(1)))
    net = router(
        routes=[route(prefix, interface, via, kind) for prefix, interface, via, kind in ROUTES],
        mtus=MTUS,
        neighbors=statics,
        settings={f"e{number}": Settings(rp_filter=rp_filter) for number in (1, 2, 3)},
    )
    stack = own_stack(net, "r")
    stack.mtu = 1500
    stack._budget.allow = lambda destination, now: True  # type: ignore[method-assign]
    element = net.world.devices["r"].elements["router"]
    assert isinstance(element, Router)
    element.errors.limited = False
    for station in net.stations.values():
        station.quiet = True
    return net


STATIONS = {"h1": "e1", "h2": "e2", "h3": "e3"}


def router_marker(number: int) -> tuple[str, bytes, str]:
    """A packet that comes out by e3 alone, with the number at its end."""
    data = number.to_bytes(8, "big") + b"marker"
    packet = ipv4.IPv4(ip("10.8.255.255"), ip("10.0.3.2"), 253, identification=1).pack(bytes(20) + data)
    return "e1", router_mac(1) + host_mac(1) + b"\x08\x00" + packet, "e3"


def compare(kernel: KernelNode, net: Net, frames: Iterator[tuple[str, bytes]]) -> tuple[list[Difference], Counter[str]]:
    """Every frame through both."""
    differences: list[Difference] = []
    came: Counter[str] = Counter()
    port_of = {port: station for station, port in STATIONS.items()}
    for number, (port, frame) in enumerate(frames):
        if len(frame) < 14:
            continue
        theirs = kernel.exchange(port, frame, router_marker, number)
        net.world.receive(net[port_of[port]], frame, number * 1_000_000)
        ours = outputs(net, STATIONS)
        came["frames"] += 1
        came["silence"] += not theirs
        for name, sent in theirs.items():
            came[f"by {name}"] += len(sent)
            for one in sent:
                at = 34 if one[12:14] == b"\x08\x00" else 54
                if name == "e1" and one[at - 11 if at == 34 else 20] in (1, 58):
                    came[f"{one[at]}/{one[at + 1]}"] += 1
        if comparable(theirs, frame) != comparable(ours, frame):
            differences.append(Difference(number, port, frame, theirs, ours))
    net.world.advance(net.world.now + 10**11)
    for station in net.stations.values():
        station.got.clear()
    net.balanced()
    return differences, came


@pytest.mark.parametrize("seed", [1])
def test_the_router_with_ipv4(seed: int) -> None:
    def work() -> None:
        packets = Packets(seed)
        kernel = kernel_router()
        differences, came = compare(kernel, our_router(), (packets.v4() for _ in range(5000)))
        kernel.close()
        judged(differences)
        for kind in ("3/0", "3/1", "3/2", "3/3", "3/4", "3/13", "11/0", "12/0", "0/0", "14/0", "5/1"):
            assert came[kind], (kind, came)
        assert min(came["by e2"], came["by e3"], came["silence"]) > 300, came

    in_own_network(work)


@pytest.mark.parametrize("seed", [2])
def test_the_router_with_ipv6(seed: int) -> None:
    def work() -> None:
        packets = Packets(seed)
        kernel = kernel_router()
        differences, came = compare(kernel, our_router(), (packets.v6() for _ in range(4000)))
        kernel.close()
        judged(differences)
        for kind in ("1/0", "1/1", "1/2", "1/4", "2/0", "3/0", "4/1", "4/2", "129/0"):
            assert came[kind], (kind, came)
        assert min(came["by e2"], came["by e3"], came["silence"]) > 200, came

    in_own_network(work)


@pytest.mark.parametrize("mode", [1, 2])
def test_the_routers_rp_filter(mode: int) -> None:
    def work() -> None:
        packets = Packets(10 + mode)
        kernel = kernel_router(mode)
        differences, came = compare(kernel, our_router(mode), (packets.v4() for _ in range(800)))
        kernel.close()
        judged(differences)
        assert came["by e2"] > 50

    in_own_network(work)


# Neighbours


def arp_frames(draw: random.Random) -> Iterator[tuple[str, bytes]]:
    """Questions and answers of all kinds on e1."""
    for _ in range(1500):
        mac = draw.choice([host_mac(1), host_mac(2), bytes.fromhex("0200000001cc")])
        sender = ip(
            draw.choice(
                ["10.0.1.7", "10.0.1.8", "10.0.9.9", "0.0.0.0", "10.0.1.1", "224.0.0.1", "127.0.0.1", "10.0.2.9"]
            )
        )
        target = ip(
            draw.choice(
                ["10.0.1.1", "10.0.2.1", "10.0.1.99", "10.0.1.7", "10.20.1.1", "10.99.0.1", "127.0.0.1", "224.0.0.1"]
            )
        )
        operation = draw.choice([1, 1, 1, 2, 3])
        target_mac = draw.choice([bytes(6), router_mac(1), mac])
        body = arp.Arp(operation, mac, sender, target_mac, target).pack()
        if draw.random() < 0.1:
            at = draw.randrange(8)
            body = body[:at] + bytes((body[at] ^ 2,)) + body[at + 1 :]
        to = draw.choice([BROADCAST, BROADCAST, router_mac(1), bytes.fromhex("0200000001aa")])
        yield "e1", to + mac + b"\x08\x06" + body + bytes(draw.choice([0, 18]))


def test_arp_and_proxy_arp() -> None:
    def work() -> None:
        kernel = kernel_router()
        shell("ip neigh flush dev e1 nud all")
        sysctl(ipv4__conf__e1__proxy_arp=1, ipv4__neigh__e1__proxy_delay=0)
        net = router(
            routes=[route(prefix, interface, via, kind) for prefix, interface, via, kind in ROUTES],
            settings={"e1": Settings(proxy_arp=True, proxy_delay=0)},
            neighbors=[StaticNeighbor("e3", ip("10.0.3.2"), host_mac(3))],
        )
        for station in net.stations.values():
            station.quiet = True
        differences, came = compare(kernel, net, arp_frames(random.Random(3)))
        kernel.close()
        judged(differences)
        assert came["by e1"] > 100
        element = net.world.devices["r"].elements["neighbor"]
        assert isinstance(element, NeighborElement)

    in_own_network(work)


def discovery_frames(draw: random.Random) -> Iterator[tuple[str, bytes]]:
    """Solicitations of all kinds on e1, after each asker has been heard of once."""
    askers = ("fd00:1::7", "fe80::7", "fd00:1::8")
    own = (ip("fd00:1::1"), ip("fe80::ff:fe00:101"), ip("fd00:2::1"))
    for text in askers:
        to = solicited_node(own[0])
        message = icmpv6.NeighborSolicitation(own[0], host_mac(1)).pack(ip(text), to)
        yield "e1", multicast_mac(to) + host_mac(1) + b"\x86\xdd" + ipv6.IPv6(ip(text), to, 58, 255).pack(message)
    for _ in range(1000):
        mac = draw.choice([host_mac(1), bytes.fromhex("0200000001cc")])
        source = ip(draw.choice([*askers, "::"]))
        target = ip(draw.choice(["fd00:1::1", "fe80::ff:fe00:101", "fd00:2::1", "fd00:1::99", "ff02::1"]))
        alone = target if target in own else solicited_node(target)
        to = draw.choice([solicited_node(target), solicited_node(target), alone, ip("ff02::1")])
        option = draw.choice([b"\x01\x01" + mac, b"\x01\x01" + mac, b"", b"\x01\x00" + mac, b"\x0e\x01abcdef"])
        message = icmpv6.Icmpv6(135, draw.choice([0, 0, 0, 0, 1]), bytes(4), target + option).pack(source, to)
        if draw.random() < 0.05:
            message = message[:2] + b"\x12\x34" + message[4:]
        packet = ipv6.IPv6(source, to, 58, draw.choice([255, 255, 255, 255, 254])).pack(message)
        frame_to = multicast_mac(to) if to[0] == 0xFF else router_mac(1)
        yield "e1", frame_to + mac + b"\x86\xdd" + packet


def test_neighbour_discovery() -> None:
    def work() -> None:
        kernel = kernel_router()
        shell("ip -6 neigh flush dev e1 nud all")
        net = router(neighbors=[StaticNeighbor("e3", ip("10.0.3.2"), host_mac(3))])
        for station in net.stations.values():
            station.quiet = True
        differences, came = compare(kernel, net, discovery_frames(random.Random(4)))
        kernel.close()
        judged(differences)
        assert came["by e1"] > 100

    in_own_network(work)


# VXLAN


def inner_frames(draw: random.Random, packets: Packets, macs: list[bytes]) -> Iterator[bytes]:
    """Frames to be carried. Linux wraps none whose IP header is cut short; ours comes by no such frame."""
    while True:
        _, frame = packets.v4() if draw.random() < 0.6 else packets.v6()
        if len(frame) < 14 + 40:
            continue
        kind = draw.random()
        if kind < 0.1:
            frame = frame[:12] + b"\x88\xb5" + bytes(draw.randrange(0, 100))
        yield draw.choice(macs) + bytes.fromhex("020000000999") + frame[12:1400]


def test_the_vxlan_device() -> None:
    def work() -> None:
        draw = random.Random(5)
        kernel = KernelNode({"under": "02:00:00:00:08:01", "inner": "02:00:00:00:0a:01"}, {"under": 1600})
        for family in ("ip", "ip6", "arp"):
            Path(f"/proc/sys/net/bridge/bridge-nf-call-{family}tables").write_text("0")
        shell(
            """
            ip link set lo up
            ip link add vx type vxlan id 1 dstport 4789 local 192.168.9.1 nolearning
            ip link set vx address 02:00:00:00:09:01
            ip link add br0 type bridge stp_state 0 mcast_snooping 0
            ip link set vx master br0 && ip link set inner master br0
            bridge link set dev inner learning off && bridge link set dev vx learning off
            ip link set under up && ip link set inner up && ip link set vx up && ip link set br0 up
            ip address add 192.168.9.1/24 dev under
            ip neigh replace 192.168.9.2 lladdr 02:00:00:00:08:02 dev under
            ip neigh replace 192.168.9.3 lladdr 02:00:00:00:08:03 dev under
            bridge fdb add 02:00:00:00:09:02 dev vx dst 192.168.9.2
            bridge fdb add 02:00:00:00:09:03 dev vx dst 192.168.9.3
            """
        )
        kernel.quiet()
        known = {bytes.fromhex("020000000902"): ip("192.168.9.2"), bytes.fromhex("020000000903"): ip("192.168.9.3")}
        net = tunnels(mtu=1600)
        from emunet.elements.vxlan import Vxlan, VxlanElement
        from emunet.plane.table import Counter as Numbers

        config = Vxlan("vx", 1, 4789, ip("192.168.9.1"), tuple(known.items()))
        element = VxlanElement("a", config, 1550, net.world.watch, Numbers("id"), bytes.fromhex("020000000901"))
        low, high = local_port_range()

        def ours_of(frame: bytes) -> bytes | None:
            step = element.handle(Packet(frame), "encapsulate", 0)
            if not step.outputs:
                return None
            made = edited(Packet(frame), step.edits).frame
            return bytes((2, 0, 0, 0, 8, made[33])) + bytes.fromhex("020000000801") + made[12:]

        def out_marker(number: int) -> tuple[str, bytes, str]:
            data = bytes.fromhex("020000000902020000000aaa") + MARKER_TYPE + bytes(46)
            return "inner", data + number.to_bytes(8, "big") + b"marker", "under"

        packets, wrapped, dropped = Packets(6), 0, 0
        ports: dict[bytes, set[int]] = {}
        frames = inner_frames(draw, packets, [*known, bytes.fromhex("020000000904"), BROADCAST])
        for number in range(1500):
            frame = next(frames)
            theirs = kernel.exchange("inner", frame, out_marker, number).get("under", [])
            mine = ours_of(frame)
            if mine is None:
                assert theirs == [], frame.hex()
                dropped += 1
                continue
            assert [outer_comparable(one) for one in theirs] == [outer_comparable(mine)], frame.hex()
            sport = int.from_bytes(theirs[0][34:36], "big")
            assert low <= sport <= high
            ports.setdefault(mine[34:36], set()).add(sport)
            wrapped += 1
        assert wrapped > 500
        assert dropped > 300
        assert len(ports) > 400, "flows are told apart"

        taken = refused = 0
        frames = inner_frames(draw, packets, [bytes.fromhex("020000000a77"), BROADCAST])
        for number in range(1500):
            frame = next(frames)
            header = vxlan.header(1)
            roll = draw.random()
            if roll < 0.2:
                header = bytes(
                    draw.choice([0, 8, 8, 0x88]) if at == 0 else draw.choice([0] * 9 + [1]) for at in range(8)
                )
            elif roll < 0.25:
                frame = frame[: draw.randrange(20)]
            source = (
                draw.choice([frame[6:12], bytes.fromhex("020000000901"), BROADCAST, bytes(6)])
                if roll > 0.9
                else frame[6:12]
            )
            frame = frame[:6] + source + frame[12:] if len(frame) >= 12 else frame
            datagram = udp.Udp(draw.randrange(1024, 65536), 4789).pack(
                ip("192.168.9.2"), ip("192.168.9.1"), header + frame
            )
            roll = draw.random()
            if roll < 0.1:
                datagram = datagram[:6] + bytes(2) + datagram[8:]
            elif roll < 0.15:
                datagram = datagram[:6] + b"\x12\x34" + datagram[8:]
            elif roll < 0.2:
                datagram += b"trailing"
            outer = ipv4.IPv4(ip("192.168.9.2"), ip("192.168.9.1"), 17, tos=draw.choice([0, 0, 1, 2, 3])).pack(datagram)
            wire = bytes.fromhex("020000000801020000000802") + b"\x08\x00" + outer

            def in_marker(number: int) -> tuple[str, bytes, str]:
                inner = (
                    bytes.fromhex("020000000a77020000000aaa")
                    + MARKER_TYPE
                    + bytes(46)
                    + number.to_bytes(8, "big")
                    + b"marker"
                )
                carried = udp.Udp(5, 4789).pack(ip("192.168.9.2"), ip("192.168.9.1"), vxlan.header(1) + inner)
                packet = ipv4.IPv4(ip("192.168.9.2"), ip("192.168.9.1"), 17).pack(carried)
                return "under", bytes.fromhex("020000000801020000000802") + b"\x08\x00" + packet, "inner"

            theirs = kernel.exchange("under", wire, in_marker, number).get("inner", [])
            step = element.handle(Packet(wire), "decapsulate", 0)
            mine = [edited(Packet(wire), step.edits).frame] if step.outputs else []
            assert theirs == mine, (step.why, wire.hex(), [one.hex() for one in theirs], [one.hex() for one in mine])
            taken += bool(mine)
            refused += not mine
        assert taken > 700
        assert refused > 250
        kernel.close()

    in_own_network(work)
