"""Connections, as stories: who sees which addresses, what is remembered, for how long.

Each story sends frames through a whole cluster (`connection_worlds`) and reads what came
out; the law is kept after every frame. The kernel's opinion is in tests/kernel/test_netfilter.py.
"""

from __future__ import annotations

import pytest

from tests.elements.connection_worlds import ACK, FIN, OUTSIDE, RST, SYN, Tracked, error_about, ip, pong
from tests.worlds import SECOND, datagram, echo, segment

POD1, POD2, POD3 = ip("10.244.1.2"), ip("10.244.1.3"), ip("10.244.2.2")
CNI1, NODE1, NODE2 = ip("10.244.1.1"), ip("192.168.9.11"), ip("192.168.9.12")


@pytest.fixture
def net() -> Tracked:
    return Tracked()


@pytest.mark.rule("NET-03", element="translate")
@pytest.mark.rule("NET-04", element="translate")
@pytest.mark.rule("CT-06", element="connections")
def test_a_pods_call_to_the_world_comes_from_its_host_and_the_answer_finds_the_pod(net: Tracked) -> None:
    trace = net.say("web-1", segment(POD1, NODE2, 40_000, 80, SYN))
    (heard,) = net.heard(OUTSIDE)
    assert heard.startswith("tcp 192.168.9.11:")
    assert heard.endswith("-> 192.168.9.12:80 ttl 63")
    assert "CONNECTION_NEW" in trace.codes
    assert any("connection: tcp      6 SYN_SENT src=10.244.1.2" in step.why for step in trace.steps), (
        "in conntrack's words"
    )
    assert "MASQUERADED" in trace.codes
    port = int(heard.split(":")[1].split()[0])
    net.say(OUTSIDE, segment(NODE2, NODE1, 80, port, SYN | ACK))
    assert net.heard("web-1") == ["tcp 192.168.9.12:80 -> 10.244.1.2:40000 ttl 63"]
    net.say("web-1", segment(POD1, NODE2, 40_000, 80, ACK))
    assert net.lines() == [
        "tcp      6 432000 ESTABLISHED src=10.244.1.2 dst=192.168.9.12 sport=40000 dport=80 "
        f"src=192.168.9.12 dst=192.168.9.11 sport=80 dport={port} [ASSURED]"
    ]


@pytest.mark.rule("NET-02", element="connections")
def test_pods_see_each_others_own_addresses(net: Tracked) -> None:
    trace = net.say("web-1", datagram(POD1, POD3, 5000, 53, b"x"))
    assert net.heard("web-3") == ["udp 10.244.1.2:5000 -> 10.244.2.2:53 ttl 62"]
    assert trace.codes.count("NOT_TRANSLATED") == 2
    net.say("web-3", datagram(POD3, POD1, 53, 5000, b"y"))
    assert net.heard("web-1") == ["udp 10.244.2.2:53 -> 10.244.1.2:5000 ttl 62"]
    assert net.one("host1").seen_reply
    assert net.one("host2").seen_reply


def test_the_same_for_ipv6(net: Tracked) -> None:
    pod, outside, node = (net.address(name, 16) for name in ("web-1", OUTSIDE, "host1:eth0"))
    net.say("web-1", datagram(pod, outside, 5000, 53, b"x"))
    (heard,) = net.heard(OUTSIDE)
    port = net.one().reply.destination_port
    assert heard == f"udp fd00:192:168:9::11:{port} -> fd00:192:168:9::12:53 ttl 63"
    net.say(OUTSIDE, datagram(outside, node, 53, port, b"y"))
    assert net.heard("web-1") == ["udp fd00:192:168:9::12:53 -> fd00:244:0:1::2:5000 ttl 63"]
    net.say("web-1", echo(pod, outside))
    number = max(row.reply.source_port for key, row in net.table().items(0) if key.protocol == 58)
    assert net.heard(OUTSIDE) == [f"icmp 128/0 id {number} fd00:192:168:9::11 -> fd00:192:168:9::12 ttl 63"]
    net.say(OUTSIDE, pong(outside, node, number))
    assert net.heard("web-1") == ["icmp 129/0 id 7 fd00:192:168:9::12 -> fd00:244:0:1::2 ttl 63"]


# Published ports


@pytest.mark.rule("HP-01", element="published")
def test_a_published_port_keeps_the_callers_address(net: Tracked) -> None:
    trace = net.say(OUTSIDE, datagram(NODE2, NODE1, 5000, 9999, b"x"))
    assert "PUBLISHED" in trace.codes
    assert net.heard("web-2") == ["udp 192.168.9.12:5000 -> 10.244.1.3:8080 ttl 63"]
    net.say("web-2", datagram(POD2, NODE2, 8080, 5000, b"y"))
    assert net.heard(OUTSIDE) == ["udp 192.168.9.11:9999 -> 192.168.9.12:5000 ttl 63"]


@pytest.mark.rule("HP-02", element="published")
@pytest.mark.rule("SVC-02", element="connections")
def test_a_neighbour_that_calls_it_comes_from_the_bridge_and_stays_bridged(net: Tracked) -> None:
    net.say("web-1", datagram(POD1, NODE1, 5000, 9999, b"x"))
    assert net.frames("web-2")[0][6:12] == net["web-1"].mac
    assert net.heard("web-2") == ["udp 10.244.1.1:5000 -> 10.244.1.3:8080 ttl 64"]
    net.say("web-2", datagram(POD2, CNI1, 8080, 5000, b"y"))
    assert net.heard("web-1") == ["udp 192.168.9.11:9999 -> 10.244.1.2:5000 ttl 64"]


@pytest.mark.rule("HP-03", element="published")
@pytest.mark.rule("SVC-04", element="translate")
def test_a_pod_that_calls_itself_hears_itself_from_the_bridge(net: Tracked) -> None:
    net.say("web-2", datagram(POD2, NODE1, 5000, 9999, b"x"))
    assert net.frames("web-2")[0][:12] == net["web-2"].mac * 2
    assert net.heard("web-2") == ["udp 10.244.1.1:5000 -> 10.244.1.3:8080 ttl 64"]
    net.say("web-2", datagram(POD2, CNI1, 8080, 5000, b"y"))
    assert net.heard("web-2") == ["udp 192.168.9.11:9999 -> 10.244.1.3:5000 ttl 64"]


@pytest.mark.rule("HP-06", element="published")
def test_a_pod_of_another_host_that_calls_it_keeps_its_address_as_far_as_its_own_host_lets_it(net: Tracked) -> None:
    net.rules(None, "host2")  # else host2 masquerades: another host's address is outside the cluster
    net.say("web-3", datagram(POD3, NODE1, 5000, 9999, b"x"))
    assert net.heard("web-2") == ["udp 10.244.2.2:5000 -> 10.244.1.3:8080 ttl 62"]


@pytest.mark.rule("HP-07", element="published")
def test_a_port_that_is_open_on_one_address_is_closed_on_the_others(net: Tracked) -> None:
    net.say(OUTSIDE, datagram(NODE2, NODE1, 5000, 9998, b"x"))
    assert net.heard("web-2") == []
    assert net.heard("host1:eth0") == ["udp 192.168.9.12:5000 -> 192.168.9.11:9998 ttl 64"]
    net.say("web-1", datagram(POD1, CNI1, 5000, 9998, b"x"))
    assert net.heard("web-2") == ["udp 10.244.1.1:5000 -> 10.244.1.3:8080 ttl 64"]


def test_what_is_sent_to_another_neighbour_waits_until_its_mac_is_known(net: Tracked) -> None:
    web2 = net["web-2"]
    net["web-2"].quiet = True
    trace = net.say("web-1", datagram(POD1, NODE1, 5000, 9999, b"x"))
    assert trace.codes[-1] == "NEIGHBOR_ASKED"
    assert net.world.devices["host1"].ledger.queued == 1
    web2.quiet = False
    net.world.advance(net.world.now + 2 * SECOND)
    assert net.heard("web-2") == ["udp 10.244.1.1:5000 -> 10.244.1.3:8080 ttl 64"]
    net.balanced()


# Errors


@pytest.mark.rule("SVC-23", element="connections")
def test_an_error_about_a_translated_packet_speaks_of_the_packet_that_was_sent(net: Tracked) -> None:
    for source, name, target in ((POD1, "web-1", NODE2), (NODE2, OUTSIDE, NODE1)):
        net.say(name, datagram(source, target, 5000, 9999 if target == NODE1 else 80, b"x"))
    _, out = net[OUTSIDE].got.pop()
    net.say(OUTSIDE, error_about(NODE2, out))
    assert net.heard("web-1") == [
        "icmp 3/3 192.168.9.12 -> 10.244.1.2 ttl 63 about (10.244.1.2:5000 -> 192.168.9.12:80)"
    ]
    called = net.frames("web-2")[0]
    trace = net.say("web-2", error_about(POD2, called, length=28))
    assert net.heard(OUTSIDE) == [
        "icmp 3/3 192.168.9.11 -> 192.168.9.12 ttl 63 about (192.168.9.12:5000 -> 192.168.9.11:9999)"
    ]
    assert trace.codes.count("CONNECTION_RELATED") == 2


def test_an_error_from_a_router_on_the_way_keeps_its_own_address(net: Tracked) -> None:
    net.say("web-1", datagram(POD1, NODE2, 5000, 80, b"x"))
    _, out = net[OUTSIDE].got.pop()
    net.say(OUTSIDE, error_about(ip("172.16.0.1"), out, (11, 0)))
    assert net.heard("web-1") == [
        "icmp 11/0 172.16.0.1 -> 10.244.1.2 ttl 63 about (10.244.1.2:5000 -> 192.168.9.12:80)"
    ]


@pytest.mark.rule("SVC-24", element="connections")
def test_a_hosts_own_error_about_a_first_packet_is_translated_too(net: Tracked) -> None:
    net.say(OUTSIDE, datagram(NODE2, NODE1, 5000, 9999, b"x", ttl=1))
    assert net.heard(OUTSIDE) == [
        "icmp 11/0 192.168.9.11 -> 192.168.9.12 ttl 64 about (192.168.9.12:5000 -> 192.168.9.11:9999)"
    ]
    assert net.lines() == []


@pytest.mark.rule("ARP-03", element="translate")
def test_that_nobody_is_there_is_told_to_the_pod_that_was_masqueraded(net: Tracked) -> None:
    net.say("web-1", datagram(POD1, ip("192.168.9.55"), 5000, 80, b"x"))
    net.world.advance(net.world.now + 4 * SECOND)
    assert net.heard("web-1") == [
        "icmp 3/1 192.168.9.11 -> 10.244.1.2 ttl 64 about (10.244.1.2:5000 -> 192.168.9.55:80)"
    ]
    net.balanced()


def test_an_error_about_nothing_that_is_known_is_of_no_connection(net: Tracked) -> None:
    stray = bytes(14) + datagram(NODE1, NODE2, 1, 2, b"x")
    trace = net.say(OUTSIDE, error_about(NODE2, stray))
    assert "CONNECTION_INVALID" in trace.codes
    other = bytes(14) + datagram(POD1, NODE2, 5000, 80, b"x")
    net.say("web-1", other[14:])
    misled = error_about(NODE2, other)  # quotes what was never seen outside
    assert "CONNECTION_INVALID" in net.say(OUTSIDE, misled).codes


def test_a_redirect_about_a_translated_connection_is_dropped(net: Tracked) -> None:
    net.say("web-1", datagram(POD1, NODE2, 5000, 80, b"x"))
    _, out = net[OUTSIDE].got.pop()
    trace = net.say(OUTSIDE, error_about(NODE2, out, (5, 1)))
    assert trace.codes[-1] == "REDIRECT_TRANSLATED"


# Time


@pytest.mark.rule("CT-04", element="connections")
def test_a_udp_flow_is_forgotten_30_s_after_its_last_packet_and_a_stream_after_120(net: Tracked) -> None:
    question, answer = datagram(POD1, POD3, 5000, 53, b"x"), datagram(POD3, POD1, 53, 5000, b"y")
    net.say("web-1", question)
    net.world.advance(20 * SECOND)
    net.say("web-1", question)
    net.world.advance(49 * SECOND)
    assert "[UNREPLIED]" in net.lines()[0]
    net.world.advance(50 * SECOND)
    assert net.lines() == []
    net.say("web-1", question)
    net.say("web-3", answer)
    began = net.world.now
    net.world.advance(began + 2 * SECOND)
    net.say("web-1", question)
    assert not net.one().assured
    net.world.advance(began + 2 * SECOND + 1)
    net.say("web-1", question)
    assert net.one().assured
    net.world.advance(net.world.now + 119 * SECOND)
    assert len(net.lines()) == 1
    net.world.advance(net.world.now + SECOND)
    assert net.lines() == []


@pytest.mark.rule("CT-04", element="connections")
def test_tcp_and_echo_are_remembered_as_long_as_the_kernel_does(net: Tracked) -> None:
    talk = [
        ("web-1", SYN, "SYN_SENT", 120), ("web-3", SYN | ACK, "SYN_RECV", 60), ("web-1", ACK, "ESTABLISHED", 432_000),
        ("web-1", FIN | ACK, "FIN_WAIT", 120), ("web-3", ACK, "CLOSE_WAIT", 60), ("web-3", FIN | ACK, "LAST_ACK", 30),
        ("web-1", ACK, "TIME_WAIT", 120), ("web-3", RST, "CLOSE", 10),
    ]  # fmt: skip
    for who, flags, state, seconds in talk:
        packet = segment(POD1, POD3, 5000, 80, flags) if who == "web-1" else segment(POD3, POD1, 80, 5000, flags)
        net.say(who, packet)
        assert net.lines()[0].startswith(f"tcp      6 {seconds} {state} ")
    net.world.advance(net.world.now + 10 * SECOND)
    assert net.lines() == []
    net.say("web-1", echo(POD1, POD3))
    assert net.lines()[0].startswith("icmp     1 30 src=10.244.1.2 dst=10.244.2.2 type=8 code=0 id=7 [UNREPLIED]")
    net.say("web-1", ip_packet(47, POD1, POD3))
    assert "unknown  47 600 src=10.244.1.2 dst=10.244.2.2 [UNREPLIED] src=10.244.2.2 dst=10.244.1.2" in net.lines()


def ip_packet(protocol: int, source: bytes, destination: bytes) -> bytes:
    """A packet of some protocol."""
    from emunet.packet.ipv4 import IPv4

    return IPv4(source, destination, protocol).pack(b"hello there")


def test_a_reset_that_is_the_only_answer_ends_the_memory_at_once(net: Tracked) -> None:
    net.say("web-1", segment(POD1, NODE2, 5000, 80, SYN))
    port = net.one().reply.destination_port
    net.heard("web-1")
    net.say(OUTSIDE, segment(NODE2, NODE1, 80, port, RST | ACK))
    assert net.heard("web-1") == ["tcp 192.168.9.12:80 -> 10.244.1.2:5000 ttl 63"]
    assert net.lines() == []


# The flow cache


@pytest.mark.parametrize("protocol", ["udp", "tcp", "echo"])
def test_a_steady_connection_is_answered_from_the_cache_and_a_state_change_is_not(net: Tracked, protocol: str) -> None:
    def ask(number: int) -> bytes:
        if protocol == "echo":
            return echo(POD1, POD3, sequence=number)
        make = datagram if protocol == "udp" else segment
        return make(POD1, POD3, 5000, 80, *(() if protocol == "udp" else (ACK,)), data=b"x")

    if protocol == "tcp":
        net.say("web-1", segment(POD1, POD3, 5000, 80, SYN))
        net.say("web-3", segment(POD3, POD1, 80, 5000, SYN | ACK))
        net.say("web-1", segment(POD1, POD3, 5000, 80, ACK))
    hits = net.world.flows.hits
    for number in range(20):
        net.world.receive(net["web-1"], net.frame("web-1", ask(number)), net.world.now + number)
    net.balanced()
    assert net.world.flows.hits - hits >= 15, net.world.flows.refused
    assert net.table().age(net.one().original, net.world.now) == 0
    if protocol == "tcp":
        before = net.one()
        net.say("web-1", segment(POD1, POD3, 5000, 80, FIN | ACK))
        assert net.one() != before
