"""Real programs through our bridge, routers and tunnel: what they print about the network between two kernels.

Between h1 and h2 lie a switch and two routers, the last link with an MTU of 1400:

    h1 10.0.1.2 --- s --- r1 --- 10.0.12.0/24 --- r2 --- 10.0.2.2 h2
    h3 10.0.1.3 ---/

The tunnel's other end is the kernel's own `vxlan` device.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kernel_bench import Bench
from wired import Wired, need

from emunet.fabric.config import (
    Bridge,
    HostConfig,
    HostEdge,
    Interface,
    PodEdge,
    Port,
    StaticNeighbor,
    SwitchConfig,
    Vxlan,
    WireConfig,
    WorldConfig,
)
from emunet.fabric.edge import MemoryEdges
from emunet.linux.specification import InterfaceSpec, ProgramSpec, RouteSpec, SandboxSpec
from emunet.linux.tap import OFFLOAD_ALL_TCP
from emunet.packet.address import InterfaceAddress, parse_ip, parse_mac
from tests.stories.benches import route


def addresses(*texts: str) -> tuple[InterfaceAddress, ...]:
    return tuple(InterfaceAddress.parse(text) for text in texts)


def station(name: str, mac: str, number: int, network: int, router: int = 1, mtu: int = 1500) -> SandboxSpec:
    """A kernel on one of the two networks at the ends."""
    interface = InterfaceSpec(
        "eth0",
        mac,
        (f"10.0.{network}.{number}/24", f"fd00:{network}::{number}/64", f"fe80::{number}/64"),
        mtu=mtu,
        vnet_header=True,
        offload=OFFLOAD_ALL_TCP,
    )
    routes = (RouteSpec("0.0.0.0/0", f"10.0.{network}.{router}"), RouteSpec("::/0", f"fd00:{network}::{router}"))
    return SandboxSpec(name, name, (interface,), routes)


def routed_world() -> WorldConfig:
    """The switch and the two routers."""

    def router(name: str, number: int, near: int, far: int, mtu: int) -> HostConfig:
        ends = (
            Interface("e1", bytes((2, 0, 0, 0, number, 1)), addresses(f"10.0.{near}.1/24", f"fd00:{near}::1/64"), mtu),
            Interface(
                "e2", bytes((2, 0, 0, 0, number, 2)), addresses(f"10.0.12.{number}/24", f"fd00:12::{number}/64"), 1500
            ),
        )
        routes = [route(str(row.prefix), one.name) for one in ends for row in one.addresses]
        routes += [
            route(f"10.0.{far}.0/24", "e2", f"10.0.12.{3 - number}"),
            route(f"fd00:{far}::/64", "e2", f"fd00:12::{3 - number}"),
        ]
        return HostConfig(name, (Port("e1", mtu), Port("e2")), ends, tuple(routes))

    return WorldConfig(
        hosts=(router("r1", 1, 1, 2, 1500), router("r2", 2, 2, 1, 1400)),
        switches=(SwitchConfig("s", (Port("1"), Port("2"), Port("3"))),),
        wires=(WireConfig("s-r1", ("s", "3"), ("r1", "e1")), WireConfig("r1-r2", ("r1", "e2"), ("r2", "e2"))),
        host_edges=tuple(HostEdge(f"{name}:{one}", name, one) for name in ("r1", "r2") for one in ("e1", "e2")),
    )


@pytest.fixture
def net(bench: Bench) -> Iterator[Wired]:
    config = routed_world()
    with Wired(bench, config) as wired:
        stacks = MemoryEdges(0)  # the routers' own sockets
        for edge in config.host_edges:
            wired.world.attach(stacks.make(edge, config))
        wired.join("s", "1", station("h1", "02:00:00:00:00:11", 2, 1))
        wired.join("s", "2", station("h3", "02:00:00:00:00:13", 3, 1))
        wired.join("r2", "e1", station("h2", "02:00:00:00:00:12", 2, 2))
        wired.start()
        yield wired


HOPS = ["10.0.1.1", "10.0.12.2", "10.0.2.2"]
HOPS_V6 = ["fd00:1::1", "fd00:12::2", "fd00:2::2"]


def test_ping_with_record_route(net: Wired) -> None:
    text = net.run("h1", "ping", "-n", "-R", "-c", "1", "-W", "5", "10.0.2.2")
    assert re.findall(r"\t(?:RR: \t)?(\d+\.\d+\.\d+\.\d+)", text) == [
        "10.0.1.2", "10.0.12.1", "10.0.2.1", "10.0.2.2", "10.0.2.2", "10.0.12.2", "10.0.1.1", "10.0.1.2",
    ], text  # fmt: skip
    assert "ttl=62" in text


def test_ping_with_timestamps(net: Wired) -> None:
    text = net.run("h1", "ping", "-n", "-T", "tsandaddr", "-c", "1", "-W", "5", "10.0.2.2", code=None)
    assert "10.0.1.1" in text, text
    assert "10.0.12.2" in text, text


@pytest.mark.parametrize("how", ["-U", "-I", "-T"])
def test_traceroute(net: Wired, how: str) -> None:
    need("traceroute", "traceroute")
    text = net.run("h1", "traceroute", "-n", "-q", "1", "-w", "3", how, "10.0.2.2")
    assert [line.split()[1] for line in text.splitlines()[1:]] == HOPS, text


def test_traceroute_with_ipv6(net: Wired) -> None:
    need("traceroute", "traceroute")
    text = net.run("h1", "traceroute", "-6", "-n", "-q", "1", "-w", "3", "fd00:2::2")
    assert [line.split()[1] for line in text.splitlines()[1:]] == HOPS_V6, text


@pytest.mark.parametrize(("target", "hops"), [("10.0.2.2", HOPS), ("fd00:2::2", HOPS_V6)])
def test_tracepath_finds_the_mtu_and_the_way(net: Wired, target: str, hops: list[str]) -> None:
    need("tracepath", "iputils-tracepath")
    text = net.run("h1", "tracepath", "-n", "-m", "8", target)
    assert "pmtu 1500" in text, text
    assert "pmtu 1400" in text, text
    seen = list(dict.fromkeys(re.findall(r"^\s*\d+:\s+([0-9a-f.:]*[.:][0-9a-f.:]*)\s", text, re.MULTILINE)))
    assert seen == hops, text
    assert re.search(r"Resume: pmtu 1400 hops 3 back 3", text), text


def test_mtr(net: Wired) -> None:
    need("mtr", "mtr-tiny")
    text = net.run("h1", "mtr", "-n", "-r", "-c", "2", "-i", "0.3", "-Z", "2", "10.0.2.2")
    rows = re.findall(r"\|-- (\S+)\s+(\S+)%\s+2", text)
    assert rows == [(hop, "0.0") for hop in HOPS], text


def test_arping(net: Wired) -> None:
    need("arping", "iputils-arping")
    text = net.run("h1", "arping", "-I", "eth0", "-c", "2", "-w", "4", "10.0.1.1")
    assert text.count("[02:00:00:00:01:01]") == 2, text
    weak = net.run("h1", "arping", "-I", "eth0", "-c", "1", "-w", "4", "10.0.12.1")
    assert "[02:00:00:00:01:01]" in weak, "an address of another interface is answered for too (ARP-02)"
    through = net.run("h1", "arping", "-I", "eth0", "-c", "1", "-w", "4", "10.0.1.3")
    assert "[02:00:00:00:00:13]" in through, "the switch passes it on, and the answer back"
    nobody = net.run("h1", "arping", "-I", "eth0", "-c", "1", "-w", "1", "10.0.1.99", code=1)
    assert "Received 0 response" in nobody
    taken = net.run("h1", "arping", "-D", "-I", "eth0", "-c", "1", "-w", "3", "10.0.1.1", code=1)
    assert "02:00:00:00:01:01" in taken, "a probe is answered (ARP-09)"


def test_ndisc6_and_rdisc6(net: Wired) -> None:
    need("ndisc6", "ndisc6")
    text = net.run("h1", "ndisc6", "-1", "-w", "3000", "fd00:1::1", "eth0")
    assert "Target link-layer address: 02:00:00:00:01:01" in text, text
    through = net.run("h1", "ndisc6", "-1", "-w", "3000", "fd00:1::3", "eth0")
    assert "Target link-layer address: 02:00:00:00:00:13" in through, through
    routers = net.run("h1", "rdisc6", "-1", "-r", "1", "-w", "1000", "eth0", code=2)
    assert "No response" in routers, "no router of ours advertises itself, as a kernel without a daemon (V6-17)"


def test_a_large_packet_is_cut_and_a_large_stream_is_not(net: Wired) -> None:
    text = net.run("h1", "ping", "-n", "-c", "1", "-W", "5", "-s", "4000", "10.0.2.2")
    assert "4008 bytes from 10.0.2.2" in text
    refused = net.run("h1", "ping", "-n", "-c", "1", "-W", "5", "-M", "do", "-s", "1373", "10.0.2.2", code=1)
    assert "From 10.0.12.2 icmp_seq=1 Frag needed and DF set (mtu = 1400)" in refused, refused
    v6 = net.run("h1", "ping", "-n", "-c", "2", "-i", "0.3", "-W", "5", "-s", "1453", "fd00:2::2", code=None)
    assert "1461 bytes from fd00:2::2" in v6 or "Packet too big: mtu=1400" in v6, v6


def test_unreachable_addresses_are_told(net: Wired) -> None:
    nobody = net.run("h1", "ping", "-n", "-c", "1", "-W", "6", "10.0.2.99", code=1)
    assert "From 10.0.12.2 icmp_seq=1 Destination Host Unreachable" in nobody, nobody
    nowhere = net.run("h1", "ping", "-n", "-c", "1", "-W", "3", "10.77.0.1", code=1)
    assert "From 10.0.1.1 icmp_seq=1 Destination Net Unreachable" in nowhere, nowhere


def test_iperf3(net: Wired) -> None:
    need("iperf3", "iperf3")
    server = net.bench.keeper
    pid = server.spawn("h2", ProgramSpec(("iperf3", "-s", "-1"), environment={"PATH": "/usr/bin:/bin"}))
    text = net.shell("h1", "sleep 0.3; iperf3 -c 10.0.2.2 -t 1 --connect-timeout 3000")
    assert re.search(r"[\d.]+ [GM]bits/sec .*receiver", text), text
    server.wait_program(pid)


# The tunnel

VX_A, VX_B = "02:00:00:00:09:01", "02:00:00:00:09:02"


def tunnel_world() -> WorldConfig:
    """Our host `a`: a pod on cni0, `flannel.1` towards the kernel at its eth0."""
    host = HostConfig(
        "a",
        (Port("eth0"), Port("p1")),
        (
            Interface("eth0", parse_mac("02:00:00:00:08:01"), addresses("192.168.9.1/24")),
            Interface("cni0", parse_mac("02:00:00:00:0a:01"), addresses("10.244.1.1/24", "fd00:244:1::1/64"), 1450),
            Interface("flannel.1", parse_mac(VX_A), addresses("10.244.1.0/32", "fd00:244:1::/128"), 1450),
        ),
        (
            route("192.168.9.0/24", "eth0"),
            route("10.244.1.0/24", "cni0"),
            route("fd00:244:1::/64", "cni0"),
            route("10.244.2.0/24", "flannel.1", "10.244.2.0"),
            route("fd00:244:2::/64", "flannel.1", "fd00:244:2::"),
        ),
        tuple(StaticNeighbor("flannel.1", parse_ip(text), parse_mac(VX_B)) for text in ("10.244.2.0", "fd00:244:2::")),
        (Bridge(("p1",), "cni0"),),
        (Vxlan("flannel.1", 1, 4789, parse_ip("192.168.9.1"), ((parse_mac(VX_B), parse_ip("192.168.9.2")),)),),
    )
    pod = PodEdge("p1", "a", parse_mac("02:00:00:00:00:21"), addresses("10.244.1.2/24"), (parse_ip("10.244.1.1"),))
    return WorldConfig(
        hosts=(host,),
        pods=(pod,),
        host_edges=tuple(HostEdge(f"a:{name}", "a", name) for name in ("eth0", "cni0", "flannel.1")),
    )


@contextmanager
def towards_a_kernel(bench: Bench) -> Iterator[Wired]:
    """Our host with its pod, and a kernel at the other end of its uplink."""
    config = tunnel_world()
    with Wired(bench, config) as wired:
        stacks = MemoryEdges(0)
        for edge in config.host_edges:
            wired.world.attach(stacks.make(edge, config))
        # Its MTU is larger than the tunnel's: so it is the host, not the pod's own kernel, that says what fits.
        pod = InterfaceSpec(
            "eth0", "02:00:00:00:00:21", ("10.244.1.2/24", "fd00:244:1::2/64"),
            vnet_header=True, offload=OFFLOAD_ALL_TCP, gso_max_size=65280,
        )  # fmt: skip
        routes = (RouteSpec("0.0.0.0/0", "10.244.1.1"), RouteSpec("::/0", "fd00:244:1::1"))
        wired.join("a", "p1", SandboxSpec("p1", "p1", (pod,), routes))
        peer = InterfaceSpec(
            "eth0", "02:00:00:00:08:02", ("192.168.9.2/24",), vnet_header=True, offload=OFFLOAD_ALL_TCP
        )
        wired.join("a", "eth0", SandboxSpec("b", "b", (peer,), forwarding=True))
        wired.start()
        yield wired


@pytest.fixture
def tunnel(bench: Bench) -> Iterator[Wired]:
    with towards_a_kernel(bench) as wired:
        wired.shell(
            "b",
            f"""
            ip link add flannel.1 type vxlan id 1 dev eth0 dstport 4789 local 192.168.9.2 nolearning
            ip link set flannel.1 address {VX_B} addrgenmode none up
            ip address add 10.244.2.0/32 dev flannel.1
            ip address add 10.244.2.2/24 dev lo
            ip -6 address add fd00:244:2::/128 dev flannel.1 nodad
            ip -6 address add fd00:244:2::2/64 dev lo nodad
            bridge fdb append {VX_A} dev flannel.1 dst 192.168.9.1
            ip neigh replace 10.244.1.0 lladdr {VX_A} dev flannel.1 nud permanent
            ip -6 neigh replace fd00:244:1:: lladdr {VX_A} dev flannel.1 nud permanent
            ip route add 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink src 10.244.2.2
            ip -6 route add fd00:244:1::/64 via fd00:244:1:: dev flannel.1 onlink src fd00:244:2::2
            """,
        )
        yield wired


def test_vxlan_both_ways_with_the_kernels_device(tunnel: Wired) -> None:
    for source, target in (("p1", "10.244.2.2"), ("b", "10.244.1.2"), ("p1", "fd00:244:2::2"), ("b", "fd00:244:1::2")):
        text = tunnel.run(source, "ping", "-n", "-c", "3", "-i", "0.2", "-W", "5", target)
        assert "3 received" in text, text
        assert "ttl=63" in text, text
    host = tunnel.run("b", "ping", "-n", "-c", "1", "-W", "5", "10.244.1.0")
    assert "ttl=64" in host, "flannel.1's own address"
    statistics = tunnel.shell("b", "ip -s link show flannel.1")
    assert re.search(r"RX:.*\n\s+\d+\s+\d+\s+0\s+0", statistics), statistics


def test_the_path_mtu_over_the_tunnel(tunnel: Wired) -> None:
    fits = tunnel.run("p1", "ping", "-n", "-c", "1", "-W", "5", "-M", "do", "-s", "1422", "10.244.2.2")
    assert "1430 bytes from" in fits
    refused = tunnel.run("p1", "ping", "-n", "-c", "1", "-W", "5", "-M", "do", "-s", "1423", "10.244.2.2", code=1)
    assert "From 10.244.1.1 icmp_seq=1 Frag needed and DF set (mtu = 1450)" in refused, refused
    cut = tunnel.run("p1", "ping", "-n", "-c", "1", "-W", "5", "-M", "dont", "-s", "3000", "10.244.2.2")
    assert "3008 bytes from" in cut
    back = tunnel.run("b", "ping", "-n", "-c", "1", "-W", "5", "-s", "3000", "-I", "10.244.2.2", "10.244.1.2")
    assert "3008 bytes from" in back


def test_bulk_over_the_tunnel_both_ways(tunnel: Wired) -> None:
    need("iperf3", "iperf3")
    for reverse in ("", "-R"):
        pid = tunnel.bench.keeper.spawn("b", ProgramSpec(("iperf3", "-s", "-1"), environment={"PATH": "/usr/bin:/bin"}))
        text = tunnel.shell("p1", f"sleep 0.3; iperf3 -c 10.244.2.2 -t 1 {reverse} --connect-timeout 3000")
        assert re.search(r"[\d.]+ [GM]bits/sec .*receiver", text), text
        tunnel.bench.keeper.wait_program(pid)


def test_a_closed_port_of_the_tunnel_is_told(tunnel: Wired) -> None:
    text = tunnel.shell(
        "b",
        "ip link add other type vxlan id 1 dev eth0 dstport 4790 local 192.168.9.2 nolearning;"
        f"ip link set other up; bridge fdb append {VX_A} dev other dst 192.168.9.1;"
        f"ip address add 10.7.0.2/24 dev other; ip neigh replace 10.7.0.1 lladdr {VX_A} dev other;"
        "ping -n -c 2 -i 0.2 -W 1 10.7.0.1 || true; cat /proc/net/snmp | grep ^Icmp:",
    )
    header, values = (line.split()[1:] for line in text.splitlines()[-2:])
    assert int(dict(zip(header, values, strict=True))["InDestUnreachs"]) > 0, text


# Open vSwitch, in user space, at the other end

OVS = r"""
    export OVS_RUNDIR={folder} OVS_LOGDIR={folder} OVS_DBDIR={folder} OVS_SYSCONFDIR={folder}
    ovsdb-tool create {folder}/conf.db
    ovsdb-server --remote=punix:{folder}/db.sock --no-chdir {folder}/conf.db >{folder}/log 2>&1 &
    until [ -S {folder}/db.sock ]; do kill -0 $!; done
    set -- ovs-vsctl --db=unix:{folder}/db.sock --timeout=10
    "$@" --no-wait init
    ovs-vswitchd --disable-system unix:{folder}/db.sock >>{folder}/log 2>&1 &
    "$@" add-br outer -- set bridge outer datapath_type=netdev -- add-port outer eth0
    "$@" add-br inner -- set bridge inner datapath_type=netdev 'other_config:hwaddr="{mac}"' -- \
        add-port inner tunnel -- set interface tunnel type=vxlan options:remote_ip=192.168.9.1 options:key=1
    ip address flush dev eth0
    ip address add 192.168.9.2/24 dev outer
    ip link set outer up
    ip link set inner mtu 1450 up
    ip address add 10.244.2.0/32 dev inner
    ip address add 10.244.2.2/24 dev lo
    ip neigh replace 10.244.1.0 lladdr {remote} dev inner nud permanent
    ip route add 10.244.1.0/24 via 10.244.1.0 dev inner onlink src 10.244.2.2
"""


def test_vxlan_both_ways_with_open_vswitch(bench: Bench, tmp_path: Path) -> None:
    need("ovs-vswitchd", "openvswitch-switch")
    with towards_a_kernel(bench) as wired:
        wired.shell("b", OVS.format(folder=tmp_path, mac=VX_B, remote=VX_A))
        for source, target in (("p1", "10.244.2.2"), ("b", "10.244.1.2")):
            text = wired.run(source, "ping", "-n", "-c", "5", "-i", "0.2", "-W", "5", target)
            assert "ttl=63" in text, text
            assert "0% packet loss" in text, text
        refused = wired.run("p1", "ping", "-n", "-c", "1", "-W", "5", "-M", "do", "-s", "1423", "10.244.2.2", code=1)
        assert "Frag needed and DF set (mtu = 1450)" in refused, refused
        large = wired.run("p1", "ping", "-n", "-c", "1", "-W", "5", "-M", "do", "-s", "1422", "10.244.2.2")
        assert "1430 bytes from" in large, large
