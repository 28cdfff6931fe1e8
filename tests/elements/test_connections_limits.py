"""Connections at their limits: ports that collide or run out, a table that is full, rules that change, choosers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from emunet.elements.connections import (
    Choice,
    Connection,
    ConnectionsConfig,
    ConnectionTable,
    Flow,
    Masquerade,
    Refusal,
    Timeouts,
)
from emunet.elements.connections.ports import Ports, port_class
from emunet.elements.errors import PORT_UNREACHABLE
from emunet.elements.translate import Translate
from emunet.fabric.config import Route
from emunet.packet.address import Prefix
from emunet.packet.view import Packet
from emunet.plane.reason import Reason
from emunet.plane.table import Put, Table, Watch
from tests.elements.connection_worlds import ACK, FIN, OUTSIDE, SYN, Tracked, ip
from tests.worlds import SECOND, datagram, echo, segment

POD1, POD2, POD3 = ip("10.244.1.2"), ip("10.244.1.3"), ip("10.244.2.2")
CNI1, NODE1, NODE2 = ip("10.244.1.1"), ip("192.168.9.11"), ip("192.168.9.12")
PLAIN = ConnectionsConfig(masquerade=(Masquerade((Prefix.parse("10.244.0.0/16"),)),))


@pytest.fixture
def net() -> Tracked:
    return Tracked()


# Ports


def test_two_pods_with_one_port_are_told_apart(net: Tracked) -> None:
    net.rules(PLAIN)
    for name, pod in (("web-1", POD1), ("web-2", POD2)):
        net.say(name, datagram(pod, NODE2, 700, 53, b"x"))
        net.say(name, echo(pod, NODE2))
    first, second = [row for row in net.heard(OUTSIDE) if row.startswith("udp")]
    assert first == "udp 192.168.9.11:700 -> 192.168.9.12:53 ttl 63"
    port = int(second.split(":")[1].split()[0])
    assert port != 700
    assert 600 <= port < 1024
    net.say(OUTSIDE, datagram(NODE2, NODE1, 53, port, b"y"))
    assert net.heard("web-2") == ["udp 192.168.9.12:53 -> 10.244.1.3:700 ttl 63"]
    ids = {key.source: row.reply.source_port for key, row in net.table().items(0) if key.protocol == 1}
    assert ids[POD1] == 7 != ids[POD2]


def test_a_known_sender_keeps_its_port_towards_others(net: Tracked) -> None:
    net.rules(PLAIN)
    net.say("web-1", datagram(POD1, NODE2, 5000, 53, b"x"))
    net.say("web-2", datagram(POD2, NODE2, 5000, 53, b"x"))
    net.say("web-2", datagram(POD2, NODE2, 5000, 54, b"x"))
    ports = [row.split(":")[1].split()[0] for row in net.heard(OUTSIDE)]
    assert ports[0] == "5000"
    assert ports[1] == ports[2] != "5000"


def test_a_hosts_own_connection_gives_way_to_one_that_was_there(net: Tracked) -> None:
    net.rules(PLAIN)
    net.say("web-1", datagram(POD1, NODE2, 5000, 53, b"x"))
    net.say("host1:eth0", datagram(NODE1, NODE2, 5000, 53, b"x"))
    first, second = net.heard(OUTSIDE)
    assert first.startswith("udp 192.168.9.11:5000 ")
    assert second.startswith("udp 192.168.9.11:")
    assert first.split("->")[0] != second.split("->")[0]


def test_the_choice_of_a_port_repeats_with_the_seed_and_changes_with_it() -> None:
    def port(seed: int) -> int:
        net = Tracked(seed=seed)
        net.say("web-1", segment(POD1, NODE2, 5000, 80, SYN))
        return net.one().reply.destination_port

    assert port(1) == port(1)
    assert len({port(seed) for seed in range(6)}) > 1


@pytest.mark.parametrize(
    ("protocol", "port", "among"),
    [(6, 80, (1, 511)), (17, 511, (1, 511)), (6, 512, (600, 1023)), (17, 1024, (1024, 65535)), (1, 80, (0, 65535))],
)
def test_a_port_is_exchanged_for_one_of_its_class(protocol: int, port: int, among: tuple[int, int]) -> None:
    first, count = port_class(protocol, port)
    assert (first, first + count - 1) == among


def test_when_no_port_is_free_the_packet_is_dropped_and_the_reason_told(net: Tracked) -> None:
    net.rules(PLAIN)
    table = net.table()
    for number, port in enumerate(range(600, 1024)):
        flow = Flow(ip(f"10.244.9.{number % 250}"), NODE2, 17, port, 53)
        table.put(flow, Connection(flow, Flow(NODE2, NODE1, 17, 53, port), 0), 0)
    net.say("web-1", datagram(POD1, NODE2, 512, 53, b"x"))  # itself outside 600-1023: kept
    trace = net.say("web-2", datagram(POD2, NODE2, 700, 53, b"x"))
    assert trace.codes[-1] == "NAT_PORTS_EXHAUSTED"
    assert trace.sentence.startswith("host1 found no udp port of 192.168.9.11 that is free towards 192.168.9.12:")
    assert net.world.ledger.reasons == {"NAT_PORTS_EXHAUSTED": 1}
    assert net.table().get(Flow(POD2, NODE2, 17, 700, 53), net.world.now) is None


def test_a_search_for_a_port_ends() -> None:
    table = ConnectionTable(Watch(), Timeouts(), 100)
    looked: list[Flow] = []

    class Full(ConnectionTable):
        def find(self, flow: Flow, now: int) -> tuple[Connection, bool] | None:
            looked.append(flow)
            return Connection(flow, flow, 0), False

    table.__class__ = Full
    flow = Flow(POD1, NODE2, 17, 5000, 53)
    reply = flow.inverted()
    assert reply is not None
    assert Ports(0, "host1", table).source(Connection(flow, reply, 0), NODE1, 0) is None
    assert len(looked) == 1 + 128 + 64 + 32 + 16 + 8


# A full table


def filled(capacity: int) -> ConnectionTable:
    return ConnectionTable(Watch(), Timeouts(), capacity)


def enter(table: ConnectionTable, source: str, port: int, now: int, **more: Any) -> Flow:
    flow = Flow(ip(source), POD3, 17, port, 53)
    reply = flow.inverted()
    assert reply is not None
    assert table.has_room(now)
    table.put(flow, Connection(flow, reply, now, **more), now)
    return flow


def test_a_source_that_floods_pushes_out_its_own() -> None:
    table = filled(100)
    quiet = [enter(table, f"10.0.0.{number}", 1, number) for number in range(10)]
    for port in range(5000):
        enter(table, "10.66.6.6", port, 100 + port)
    assert len(table) == 100
    assert all(table.get(flow, 5100) is not None for flow in quiet)
    assert table.evicted == 5000 - 90
    left = [key.source_port for key, _ in table.items(5100) if key.source == ip("10.66.6.6")]
    assert left == list(range(4910, 5000))


def test_many_sources_that_send_once_push_out_the_oldest_of_them_but_nothing_assured() -> None:
    table = filled(50)
    kept = enter(table, "10.0.0.1", 1, 0, seen_reply=True, assured=True)
    for number in range(3000):
        enter(table, f"10.{number % 7}.{number // 256}.{number % 256}", 9, number)
    assert len(table) == 50
    assert table.get(kept, 3000) is not None


def test_a_table_of_connections_that_are_all_alive_takes_no_more(net: Tracked) -> None:
    net.rules(ConnectionsConfig(capacity=2))
    for port in (1, 2):
        net.say("web-1", segment(POD1, POD3, port, 80, SYN))
        net.say("web-3", segment(POD3, POD1, 80, port, SYN | ACK))
        net.say("web-1", segment(POD1, POD3, port, 80, ACK))
    net.heard("web-3")
    trace = net.say("web-1", segment(POD1, POD3, 3, 80, SYN))
    assert trace.codes[-1] == "CONNECTIONS_FULL"
    assert net.heard("web-3") == []
    for flags, who in ((FIN | ACK, "web-1"), (FIN | ACK, "web-3"), (ACK, "web-1")):
        ends = (POD1, POD3, 1, 80) if who == "web-1" else (POD3, POD1, 80, 1)
        net.say(who, segment(*ends, flags))
    net.world.advance(net.world.now + 119 * SECOND)
    assert net.say("web-1", segment(POD1, POD3, 3, 80, SYN)).codes[-1] == "CONNECTIONS_FULL"
    net.world.advance(net.world.now + 2 * SECOND)
    assert net.say("web-1", segment(POD1, POD3, 3, 80, SYN)).verdict == "delivered"
    net.balanced()


def test_what_has_expired_is_removed_little_by_little() -> None:
    table = filled(100_000)
    for number in range(20_000):
        enter(table, f"10.1.{number // 250 % 250}.{number % 250}", number % 60_000, number * SECOND // 100)
    alive = sum(1 for _ in table.items(200 * SECOND))
    assert alive == 2999
    assert len(table) < 2 * alive
    flow = enter(table, "10.2.2.2", 1, 200 * SECOND)
    for _ in range(1000):  # the same one, again and again
        table.delete(flow)
        enter(table, "10.2.2.2", 1, 200 * SECOND)
    assert len(table._round) <= len(table)


# What is of no connection


def test_what_is_of_no_connection_passes_untranslated_unless_it_shall_be_dropped(net: Tracked) -> None:
    trace = net.say("web-1", segment(POD1, NODE2, 5000, 80, SYN | ACK))
    assert "CONNECTION_INVALID" in trace.codes
    assert net.heard(OUTSIDE) == ["tcp 10.244.1.2:5000 -> 192.168.9.12:80 ttl 63"]
    assert net.lines() == []
    net.rules(replace(PLAIN, drop_invalid=True))
    trace = net.say("web-1", segment(POD1, NODE2, 5000, 80, SYN | ACK))
    assert trace.codes[-1] == "CONNECTION_INVALID_DROPPED"
    assert net.say("host1:eth0", segment(NODE1, NODE2, 5000, 80, SYN | ACK)).verdict == "delivered"


@pytest.mark.parametrize(
    ("packet", "problem"),
    [
        (segment(POD1, POD3, 1, 2, SYN | FIN), "no TCP sends the flags 0x03 together"),
        (segment(POD1, POD3, 1, 2, 0), "no TCP sends the flags 0x00 together"),
        (segment(POD1, POD3, 1, 2, SYN)[:-1] + b"\x01", "its checksum is wrong"),
        (segment(POD1, POD3, 1, 2, FIN | ACK), "no TCP connection begins with a FIN"),
        (datagram(POD1, POD3, 1, 2, b"hello")[:-1] + b"!", "its checksum is wrong"),
        (echo(POD1, POD3)[:-1] + b"!", "its ICMP checksum is wrong"),
    ],
)
def test_why_it_is_of_no_connection_is_said(net: Tracked, packet: bytes, problem: str) -> None:
    trace = net.say("web-1", packet)
    why = [step.why for step in trace.steps if step.reason is Reason.CONNECTION_INVALID]
    assert why[0] == f"of no connection: {problem}"
    assert net.lines() == []


# What leaves nothing behind


def test_a_first_packet_that_is_dropped_leaves_nothing(net: Tracked) -> None:
    assert "TTL_EXPIRED" in net.say("web-1", datagram(POD1, POD3, 5000, 53, b"x", ttl=1)).codes
    assert net.lines() == []
    routes = tuple(route for route in net.config.hosts[0].routes if route.interface == "cni0")
    net.config = replace(net.config, hosts=(replace(net.config.hosts[0], routes=routes), *net.config.hosts[1:]))
    net.world.configure(net.config)
    assert "NO_ROUTE" in net.say("web-1", datagram(POD1, NODE2, 5000, 53, b"x")).codes
    assert net.lines() == []


def test_asking_what_would_happen_changes_nothing(net: Tracked) -> None:
    net.say("web-1", segment(POD1, POD3, 5000, 80, SYN))
    before = (net.lines(), net.lines("host2"), net.world.ledger.as_dict())
    questions = [
        ("web-1", datagram(POD1, NODE2, 5000, 53, b"x")),
        ("web-1", segment(POD1, POD3, 5000, 80, FIN | ACK)),
        ("web-3", segment(POD3, POD1, 80, 5000, SYN | ACK)),
        ("web-1", datagram(POD1, NODE1, 5000, 9999, b"x")),
        (OUTSIDE, datagram(NODE2, NODE1, 5000, 9999, b"x", ttl=1)),
        ("web-1", segment(POD1, POD3, 5000, 80, 0x14)),
    ]
    told = [net.world.explain(net[name], net.frame(name, packet)).codes for name, packet in questions]
    for _ in range(5):
        again = [net.world.explain(net[name], net.frame(name, packet)).codes for name, packet in questions]
        assert again == told
    assert (net.lines(), net.lines("host2"), net.world.ledger.as_dict()) == before
    for (name, packet), codes in zip(questions, told, strict=True):
        live = Tracked()
        live.say("web-1", segment(POD1, POD3, 5000, 80, SYN))
        assert live.say(name, packet).codes == codes


def test_what_a_bridge_floods_begins_one_connection(net: Tracked) -> None:
    trace = net.say("web-1", datagram(POD1, POD2, 5000, 53, b"x"), to=bytes.fromhex("020000001234"))
    assert "BRIDGE_FLOOD" in trace.codes
    assert len(net.lines()) == 1


# Change


def test_a_masqueraded_connection_that_leaves_by_another_interface_begins_anew(net: Tracked) -> None:
    net.say("web-1", datagram(POD1, NODE2, 5000, 53, b"x"))
    assert net.one().interface == "eth0"
    host = net.config.hosts[0]
    elsewhere = (*host.routes, Route(Prefix(NODE2, 32), "cni0", POD2))
    net.config = replace(net.config, hosts=(replace(host, routes=elsewhere), *net.config.hosts[1:]))
    net.world.configure(net.config)
    net.say("web-1", datagram(POD1, NODE2, 5000, 53, b"x"))
    assert net.world.ledger.reasons == {"MASQUERADE_MOVED": 1, "REDIRECT_TRANSLATED": 1}
    assert net.lines() == []
    net.say("web-1", datagram(POD1, NODE2, 5000, 53, b"x"))
    assert net.one().interface == "cni0"
    assert net.one().reply.destination == CNI1


def test_what_is_published_no_more_is_forgotten_for_udp_and_kept_for_tcp(net: Tracked) -> None:
    net.say(OUTSIDE, datagram(NODE2, NODE1, 5000, 9999, b"x"))
    net.say(OUTSIDE, segment(NODE2, NODE1, 5000, 9999, SYN))
    rules = net.connections().config
    assert rules is not None
    net.rules(replace(rules, publish=()))
    assert [line[:3] for line in net.lines()] == ["tcp"]
    net.heard("web-2")
    net.say(OUTSIDE, segment(NODE2, NODE1, 5000, 9999, SYN))
    net.say(OUTSIDE, datagram(NODE2, NODE1, 5000, 9999, b"x"))
    assert net.heard("web-2") == ["tcp 192.168.9.12:5000 -> 10.244.1.3:8080 ttl 63"]


def test_tracking_can_be_turned_on_and_off_on_a_running_host(net: Tracked) -> None:
    net.rules(None)
    trace = net.say("web-1", datagram(POD1, NODE2, 5000, 53, b"x"))
    assert trace.codes.count("NOT_TRACKED") == 1
    assert net.heard(OUTSIDE) == ["udp 10.244.1.2:5000 -> 192.168.9.12:53 ttl 63"]
    net.rules(PLAIN)
    net.say("web-1", datagram(POD1, NODE2, 5000, 53, b"x"))
    assert net.heard(OUTSIDE) == ["udp 192.168.9.11:5000 -> 192.168.9.12:53 ttl 63"]


# Whoever chooses


@dataclass
class Service:
    """A chooser for one address, with whatever choice; remembers whom it was asked about."""

    address: bytes
    choice: Choice
    asked: int = 0

    def choose(self, flow: Flow, packet: Packet, now: int) -> Choice | None:
        if flow.destination != self.address:
            return None
        self.asked += 1
        return self.choice


VIP = ip("10.96.0.50")


def test_a_chooser_is_asked_once_for_a_connection(net: Tracked) -> None:
    remembered: Table[bytes, int] = Table("affinity", Watch(), 10)
    service = Service(VIP, Choice((POD3, 8080), masquerade=True, effects=(Put(remembered, POD1, 3),)))
    net.connections().choosers.insert(0, service)
    for _ in range(3):
        net.say("web-1", datagram(POD1, VIP, 5000, 53, b"x"))
    assert net.heard("web-3") == ["udp 192.168.9.11:5000 -> 10.244.2.2:8080 ttl 62"] * 3
    assert service.asked == 1
    assert remembered.get(POD1, 0) == 3
    net.say("web-3", datagram(POD3, NODE1, 8080, 5000, b"y"))
    assert net.heard("web-1") == ["udp 10.96.0.50:53 -> 10.244.1.2:5000 ttl 62"]


def test_a_choice_of_a_new_port_in_any_case(net: Tracked) -> None:
    net.connections().choosers.insert(0, Service(VIP, Choice((POD3, 8080), masquerade=True, random_fully=True)))
    net.say("web-1", datagram(POD1, VIP, 5000, 53, b"x"))
    (heard,) = net.heard("web-3")
    assert not heard.startswith("udp 192.168.9.11:5000 ")


@pytest.mark.rule("SVC-17", element="connections")
def test_a_refusal_is_told_from_the_interface_that_faces_the_sender(net: Tracked) -> None:
    refusal = Refusal(Reason.NO_ROUTE, {"device": "host1", "destination": VIP}, PORT_UNREACHABLE)
    net.connections().choosers.insert(0, Service(VIP, Choice(refusal=refusal)))
    host = net.config.hosts[0]
    default = Route(Prefix.parse("0.0.0.0/0"), "eth0", NODE2)
    net.config = replace(net.config, hosts=(replace(host, routes=(*host.routes, default)), *net.config.hosts[1:]))
    net.world.configure(net.config)
    trace = net.say("web-1", segment(POD1, VIP, 5000, 80, SYN))
    assert trace.codes[-1] == "NO_ROUTE"
    assert net.heard("web-1") == ["icmp 3/3 10.244.1.1 -> 10.244.1.2 ttl 64 about (10.244.1.2:5000 -> 10.96.0.50:80)"]
    assert net.lines() == []


def test_a_silent_refusal(net: Tracked) -> None:
    refusal = Refusal(Reason.CONNECTION_INVALID_DROPPED, {"device": "host1"})
    net.connections().choosers.insert(0, Service(POD3, Choice(refusal=refusal)))
    trace = net.say("web-1", segment(POD1, POD3, 5000, 80, SYN))
    assert trace.codes[-1] == "CONNECTION_INVALID_DROPPED"
    assert net.heard("web-1") == []


def test_a_host_without_an_address_of_the_family_cannot_masquerade(net: Tracked) -> None:
    translate = net.world.devices["host1"].elements["translate"]
    assert isinstance(translate, Translate)
    service = Service(POD2, Choice(masquerade=True))
    net.connections().choosers.insert(0, service)
    translate.own.source = lambda *_: None  # type: ignore[method-assign]
    trace = net.say("web-1", datagram(POD1, POD2, 1, 2, b"x"))
    assert trace.codes[-1] == "MASQUERADE_NO_ADDRESS"
