"""Services, as stories: the golden packets of fidelity 1.4, in kube-proxy's iptables mode.

Who sees which addresses and TTL, who is refused and how, and what a change of the rows does to what goes on.
What the kernel makes of the same rules is in tests/kernel/test_service_rules.py.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from emunet.elements.connections import Backend, Connections, ServicePort
from emunet.packet.address import Prefix, parse_ip
from tests.elements.connection_worlds import ACK, SYN, cut_udp, error_about, pong
from tests.elements.service_worlds import (
    BALANCER,
    CNI1,
    EXTERNAL,
    N1,
    N2,
    NODE_PORT,
    P1A,
    P1B,
    P2A,
    TCP,
    UDP,
    VIP,
    Services,
    caller_of,
)
from tests.worlds import SECOND, datagram, echo, segment

SERVICE = VIP[4]


@pytest.fixture
def net() -> Services:
    return Services()


# Inside the cluster


@pytest.mark.rule("SVC-01", element="services")
def test_a_pod_calls_a_service_whose_backend_is_elsewhere(net: Services) -> None:
    net.with_backends("p2a")
    trace = net.call("p1a", SERVICE)
    assert net.heard("p2a") == ["udp 10.244.1.2:5000 -> 10.244.2.2:8080 ttl 62"]
    (step,) = [step for hop in trace.hops for step in hop.steps if step.reason.name == "SERVICE"]
    assert step.why == "default/web:http -> 10.244.2.2:8080 (p2a), 1 of 1"
    net.say("p2a", datagram(P2A, P1A, 8080, 5000, b"y"))
    assert net.heard("p1a") == ["udp 10.96.0.50:80 -> 10.244.1.2:5000 ttl 62"]


@pytest.mark.rule("SVC-02", element="services")
def test_a_backend_on_the_same_bridge_stays_bridged(net: Services) -> None:
    net.with_backends("p1b")
    net.call("p1a", SERVICE)
    assert net.frames("p1b")[0][:12] == net["p1b"].mac + net["p1a"].mac
    assert net.heard("p1b") == ["udp 10.244.1.2:5000 -> 10.244.1.3:8080 ttl 64"]
    net.say("p1b", datagram(P1B, P1A, 8080, 5000, b"y"), net["p1a"].mac)
    assert net.frames("p1a")[0][:12] == net["p1a"].mac + net["p1b"].mac
    assert net.heard("p1a") == ["udp 10.96.0.50:80 -> 10.244.1.2:5000 ttl 64"]


@pytest.mark.rule("SVC-04", element="services")
@pytest.mark.rule("SVC-39", element="random-fully")
def test_a_pod_that_calls_itself_by_its_service(net: Services) -> None:
    net.with_backends("p1a")
    trace = net.call("p1a", SERVICE)
    assert net.frames("p1a")[0][:12] == net["p1a"].mac * 2
    (heard,) = net.heard("p1a")
    assert caller_of(heard) == "10.244.1.1"
    assert heard.endswith("-> 10.244.1.2:8080 ttl 64")
    port = net.one("n1").reply.destination_port
    assert port != 5000, "a masqueraded flow takes a new port in any case"
    assert any("as it calls itself" in step.why for hop in trace.hops for step in hop.steps)
    net.say("p1a", datagram(P1A, CNI1, 8080, port, b"y"))
    assert net.heard("p1a") == ["udp 10.96.0.50:80 -> 10.244.1.2:5000 ttl 64"]


@pytest.mark.rule("SVC-45", element="services")
@pytest.mark.parametrize("family", [4, 16])
@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("overlay", ["host-gw", "vxlan"])
def test_both_families_and_protocols_over_both_overlays(overlay: str, protocol: int, family: int) -> None:
    net = Services(overlay)
    net.with_backends("p2a", protocol=protocol, family=family)
    net.call("p1a", VIP[family], protocol=protocol)
    (heard,) = net.heard("p2a")
    assert heard.startswith("udp" if protocol == UDP else "tcp")
    assert heard.endswith(f"{'10.244.2.2' if family == 4 else 'fd00:244:0:2::2'}:8080 ttl 62")
    back = net["p1a"].address(family)
    if protocol == UDP:
        net.say("p2a", datagram(net["p2a"].address(family), back, 8080, 5000, b"y"))
    else:
        net.say("p2a", segment(net["p2a"].address(family), back, 8080, 5000, SYN | ACK))
    (heard,) = net.heard("p1a")
    assert f" {'10.96.0.50' if family == 4 else 'fd00:10:96::50'}:80 -> " in heard


# The nodes themselves


@pytest.mark.rule("SVC-05", element="services")
@pytest.mark.rule("HN-03", element="services")
def test_a_node_calls_a_service_whose_backend_is_elsewhere(net: Services) -> None:
    net.with_backends("p2a")
    net.call("n1:eth0", SERVICE)
    (heard,) = net.heard("p2a")
    assert caller_of(heard) == "192.168.9.11"
    assert heard.endswith("-> 10.244.2.2:8080 ttl 63")
    net.reply_to(heard, "p2a")
    assert net.heard("n1:eth0") == ["udp 10.96.0.50:80 -> 192.168.9.11:5000 ttl 63"]


@pytest.mark.rule("SVC-06", element="services")
def test_a_node_calls_a_service_whose_backend_is_its_own_pod(net: Services) -> None:
    net.with_backends("p1b")
    net.call("n1:eth0", SERVICE)
    (heard,) = net.heard("p1b")
    assert caller_of(heard) == "10.244.1.1"
    assert heard.endswith("-> 10.244.1.3:8080 ttl 64")


# From outside


@pytest.mark.rule("SVC-08", element="services")
def test_a_stranger_calls_the_vip_by_way_of_a_node(net: Services) -> None:
    net.with_backends("p2a")
    net.call("ext", SERVICE)
    (heard,) = net.heard("p2a")
    assert caller_of(heard) == "192.168.9.11"
    assert heard.endswith("ttl 62")
    net.reply_to(heard, "p2a")
    assert net.heard("ext") == ["udp 10.96.0.50:80 -> 192.168.9.99:5000 ttl 62"]


@pytest.mark.rule("SVC-09", element="services")
def test_a_node_port_whose_backend_is_elsewhere(net: Services) -> None:
    net.with_backends("p2a", node_port=NODE_PORT)
    net.call("ext", N1, NODE_PORT)
    (heard,) = net.heard("p2a")
    assert caller_of(heard) == "192.168.9.11"
    assert heard.endswith("ttl 62")
    net.reply_to(heard, "p2a")
    assert net.heard("ext") == ["udp 192.168.9.11:30080 -> 192.168.9.99:5000 ttl 62"]


@pytest.mark.rule("SVC-10", element="services")
def test_a_node_port_whose_backend_is_here(net: Services) -> None:
    net.with_backends("p1b", node_port=NODE_PORT)
    net.call("ext", N1, NODE_PORT)
    (heard,) = net.heard("p1b")
    assert caller_of(heard) == "10.244.1.1"
    assert heard.endswith("ttl 63")
    net.reply_to(heard, "p1b")
    assert net.heard("ext") == ["udp 192.168.9.11:30080 -> 192.168.9.99:5000 ttl 63"]


@pytest.mark.rule("SVC-11", element="services")
@pytest.mark.rule("SVC-42", element="services")
@pytest.mark.parametrize("called", [N1, CNI1])
def test_a_node_port_is_open_on_every_address_of_the_node(net: Services, called: bytes) -> None:
    net.with_backends("p1b", node_port=NODE_PORT)
    net.call("p1a", called, NODE_PORT)
    (heard,) = net.heard("p1b")
    assert caller_of(heard) == "10.244.1.1"
    assert heard.endswith("ttl 64")
    net.reply_to(heard, "p1b")
    assert net.heard("p1a")[0].startswith(f"udp {'.'.join(map(str, called))}:30080 -> 10.244.1.2:5000")


@pytest.mark.rule("SVC-12", element="traffic-policies")
def test_a_local_policy_keeps_the_callers_address(net: Services) -> None:
    net.with_backends("p1a", "p2a", node_port=NODE_PORT, external_local=True)
    for sport in range(5000, 5010):
        net.call("ext", N2, NODE_PORT, sport=sport, to=net.mac("n2", "eth0"))
    heard = net.heard("p2a")
    assert {caller_of(one) for one in heard} == {"192.168.9.99"}
    assert len(heard) == 10
    assert heard[0].endswith("ttl 63")
    assert net.heard("p1a") == []


@pytest.mark.rule("SVC-13", element="refusals")
@pytest.mark.rule("SVC-30", element="refusals")
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_a_local_policy_without_a_backend_here_is_silence(net: Services, protocol: int) -> None:
    net.with_backends("p2a", protocol=protocol, node_port=NODE_PORT, external_local=True)
    trace = net.call("ext", N1, NODE_PORT, protocol=protocol)
    assert trace.codes[-1] == "SERVICE_NO_LOCAL"
    assert trace.sentence == (
        "the node port of default/web:http has no endpoint on n1 (of 1) and its traffic policy is Local: "
        "dropped silently"
    )
    assert [net.heard(name) for name in ("ext", "p2a", "n1:eth0")] == [[], [], []]
    assert net.lines("n1") == []


@pytest.mark.rule("SVC-14", element="traffic-policies")
def test_a_pod_is_no_stranger_to_a_local_policy(net: Services) -> None:
    net.with_backends("p2a", node_port=NODE_PORT, external_local=True)
    net.call("p1a", N1, NODE_PORT)
    assert net.heard("p2a") == ["udp 10.244.1.2:5000 -> 10.244.2.2:8080 ttl 62"]


@pytest.mark.rule("SVC-15", element="services")
def test_a_node_that_calls_its_own_node_port_with_a_local_policy(net: Services) -> None:
    net.with_backends("p2a", node_port=NODE_PORT, external_local=True)
    net.call("n1:eth0", N1, NODE_PORT)
    (heard,) = net.heard("p2a")
    assert caller_of(heard) == "192.168.9.11"


@pytest.mark.rule("SVC-16", element="traffic-policies")
def test_a_pod_that_calls_the_other_node(net: Services) -> None:
    net.with_backends("p2a", node_port=NODE_PORT, external_local=True)
    for node in ("n1", "n2"):  # without flannel's own masquerade of what leaves the pods' range
        rules = net.connections(node).config
        assert rules is not None
        net.rules(replace(rules, masquerade=()), node)
    net.call("p1a", N2, NODE_PORT)
    assert net.heard("p2a") == ["udp 10.244.1.2:5000 -> 10.244.2.2:8080 ttl 62"]


# Where there is nobody


@pytest.mark.rule("SVC-17", element="refusals")
@pytest.mark.rule("SVC-30", element="refusals")
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_a_service_without_endpoints_refuses_a_pod(net: Services, protocol: int) -> None:
    net.with_backends(protocol=protocol)
    trace = net.call("p1a", SERVICE, protocol=protocol)
    assert trace.codes[-1] == "SERVICE_NO_ENDPOINTS"
    assert trace.sentence.startswith("default/web:http has no endpoint, so n1 refuses it: make a pod ready")
    assert net.heard("p1a") == ["icmp 3/3 10.244.1.1 -> 10.244.1.2 ttl 64 about (10.244.1.2:5000 -> 10.96.0.50:80)"]
    assert net.lines("n1") == []


@pytest.mark.rule("SVC-17", element="refusals")
def test_and_in_ipv6(net: Services) -> None:
    net.with_backends(family=16)
    net.call("p1a", VIP[16])
    (heard,) = net.heard("p1a")
    assert heard.startswith("icmp 1/4 fd00:244:0:1::1 -> fd00:244:0:1::2")


@pytest.mark.rule("SVC-18", element="refusals")
def test_a_node_port_without_endpoints_refuses_a_stranger(net: Services) -> None:
    net.with_backends(protocol=TCP, node_port=NODE_PORT)
    net.call("ext", N1, NODE_PORT, protocol=TCP)
    assert net.heard("ext") == [
        "icmp 3/3 192.168.9.11 -> 192.168.9.99 ttl 64 about (192.168.9.99:5000 -> 192.168.9.11:30080)"
    ]


@pytest.mark.rule("SVC-19", element="refusals")
def test_a_service_without_endpoints_refuses_the_node_itself(net: Services) -> None:
    net.with_backends(protocol=TCP)
    net.call("n1:eth0", SERVICE, protocol=TCP)
    (heard,) = net.heard("n1:eth0")
    assert heard.startswith("icmp 3/3 192.168.9.11 -> 192.168.9.11")


@pytest.mark.rule("SVC-20", element="services")
def test_a_port_that_the_service_has_not_leaks_to_the_underlay(net: Services) -> None:
    net.with_backends("p2a", protocol=TCP)
    trace = net.call("p1a", SERVICE, 81, protocol=TCP)
    assert "SERVICE_OTHER_PORT" in trace.codes
    assert any("only default/web:http 80/TCP lead" in step.why for hop in trace.hops for step in hop.steps)
    assert trace.codes[-1] == "NEIGHBOR_ASKED", "it is on its way out by eth0"


@pytest.mark.rule("SVC-21", element="services")
def test_a_ping_of_the_vip_leaks_likewise(net: Services) -> None:
    net.with_backends("p2a", protocol=TCP)
    trace = net.say("p1a", echo(P1A, SERVICE))
    assert "SERVICE_OTHER_PORT" in trace.codes
    assert trace.codes[-1] == "NEIGHBOR_ASKED"
    net.world.advance(4 * SECOND)
    assert net.heard("p1a")[0].startswith("icmp 3/1 10.244.1.1"), "nobody has it"


@pytest.mark.rule("SVC-22", element="traffic-policies")
def test_an_internal_local_policy_without_a_backend_here_is_silence(net: Services) -> None:
    net.with_backends("p2a", internal_local=True)
    trace = net.call("p1a", SERVICE)
    assert trace.codes[-1] == "SERVICE_NO_LOCAL"
    assert net.heard("p1a") == []
    net.with_backends("p1b", "p2a", internal_local=True)
    for sport in range(10):
        net.call("p1a", SERVICE, sport=6000 + sport)
    assert len(net.heard("p1b")) == 10


# Errors


@pytest.mark.rule("SVC-23", element="connections")
def test_an_error_of_the_backend_comes_from_the_vip(net: Services) -> None:
    net.with_backends("p2a")
    net.call("p1a", SERVICE)
    net.say("p2a", error_about(P2A, net.frames("p2a")[0]))
    assert net.heard("p1a") == ["icmp 3/3 10.96.0.50 -> 10.244.1.2 ttl 62 about (10.244.1.2:5000 -> 10.96.0.50:80)"]


@pytest.mark.rule("SVC-24", element="connections")
@pytest.mark.parametrize("ttl", [1, 2])
def test_a_traceroute_to_a_vip_shows_the_vip_at_every_hop(net: Services, ttl: int) -> None:
    net.with_backends("p2a")
    net.call("p1a", SERVICE, ttl=ttl)
    (heard,) = net.heard("p1a")
    assert heard.startswith("icmp 11/0 10.96.0.50 -> 10.244.1.2")
    assert heard.endswith("about (10.244.1.2:5000 -> 10.96.0.50:80)")


# Which backend


@pytest.mark.rule("SVC-25", element="draw")
@pytest.mark.parametrize("backends", [2, 3, 10])
def test_connections_are_shared_evenly(net: Services, backends: int) -> None:
    """Pearson's chi-square over 3000 connections: below what chance exceeds once in a thousand times."""
    ends = tuple(Backend(P2A, 1000 + number, "n2", f"end-{number}") for number in range(backends))
    net.serve(ServicePort("default/web", UDP, 80, SERVICE, ends))
    for sport in range(3000):
        net.call("p1a", SERVICE, sport=2000 + sport)
    counts = dict.fromkeys(range(backends), 0)
    for row in net.heard("p2a"):
        counts[int(row.split(" -> ")[1].split()[0].rsplit(":", 1)[1]) - 1000] += 1
    expected = 3000 / backends
    statistic = sum((count - expected) ** 2 / expected for count in counts.values())
    assert statistic < {2: 10.83, 3: 13.82, 10: 27.88}[backends], counts


@pytest.mark.rule("SVC-25", element="connections")
def test_a_flow_sticks_to_its_backend_and_one_seed_gives_the_same_choices() -> None:
    chosen = []
    for _ in range(2):
        net = Services(seed=7)
        net.with_backends("p1b", "p2a")
        for _ in range(3):
            net.call("p1a", SERVICE, sport=5001)
        places = [len(net.heard("p1b")), len(net.heard("p2a"))]
        assert sorted(places) == [0, 3]
        chosen.append(places)
    assert chosen[0] == chosen[1]


@pytest.mark.rule("SVC-34", element="affinity")
@pytest.mark.rule("SVC-35", element="affinity")
def test_a_client_stays_with_its_backend_until_it_is_quiet(net: Services) -> None:
    row = net.with_backends("p1b", "p2a", affinity=10 * SECOND)
    net.call("p1a", SERVICE, sport=1)
    first = "p1b" if net.heard("p1b") else "p2a"
    other = {"p1b": "p2a", "p2a": "p1b"}[first]
    net.heard(first)
    for sport in range(2, 12):
        net.world.advance(net.world.now + 9 * SECOND)  # each new connection renews it
        net.call("p1a", SERVICE, sport=sport)
        assert len(net.heard(first)) == 1
    net[other].got.clear()
    net.call("p2a", SERVICE, sport=1)
    net.world.advance(net.world.now + 10 * SECOND)
    spread = set()
    for sport in range(100, 120):
        net.call("p1a", SERVICE, sport=sport)
        net.world.advance(net.world.now + 11 * SECOND)
        spread.add(first if net.heard(first) else other)
    assert spread == {first, other}, "after its time a client is anybody"
    net.call("p1a", SERVICE, sport=500)
    gone = "p1b" if net.heard("p1b") else "p2a"
    stays = {"p1b": "p2a", "p2a": "p1b"}[gone]
    net.serve(replace(row, backends=tuple(one for one in row.backends if one.pod == stays)))
    net[stays].got.clear()
    net.call("p1a", SERVICE, sport=501)
    assert len(net.heard(stays)) == 1, "when the remembered backend has gone, another one is chosen"


def test_affinity_is_a_services_own_and_a_dry_run_remembers_nothing(net: Services) -> None:
    row = net.with_backends("p1b", "p2a", affinity=10 * SECOND)
    clients = net.connections("n1").services.clients
    net.world.explain(net["p1a"], net.frame("p1a", datagram(P1A, SERVICE, 1, 80)))
    assert len(clients) == 0
    net.serve(row, replace(row, name="default/other", cluster_ip=parse_ip("10.96.0.51")))
    net.call("p1a", SERVICE, sport=1)
    net.call("p1a", parse_ip("10.96.0.51"), sport=1)
    assert {key[0] for key, _ in clients.items(net.world.now)} == {"default/web:http", "default/other"}


@pytest.mark.rule("SVC-36", element="ending")
def test_backends_that_end_serve_where_no_other_is_ready(net: Services) -> None:
    net.with_backends("ending-p1b", "p2a", node_port=NODE_PORT)
    for sport in range(10):
        net.call("p1a", SERVICE, sport=sport + 1)
    assert (len(net.heard("p1b")), len(net.heard("p2a"))) == (0, 10)
    net.with_backends("ending-p1b", node_port=NODE_PORT)
    net.call("p1a", SERVICE, sport=100)
    assert len(net.heard("p1b")) == 1
    net.with_backends("ending-p1b", "p2a", node_port=NODE_PORT, external_local=True)
    net.call("ext", N1, NODE_PORT)
    assert net.heard("p1b") == ["udp 192.168.9.99:5000 -> 10.244.1.3:8080 ttl 63"], "a Local policy asks node by node"


# External addresses and load balancers


@pytest.mark.rule("SVC-31", element="services")
@pytest.mark.parametrize("address", [EXTERNAL, BALANCER])
def test_an_external_address_is_taken_by_the_node_that_gets_the_packet(net: Services, address: bytes) -> None:
    net.with_backends("p2a", external=(EXTERNAL,), balancers=(BALANCER,))
    net.call("ext", address)
    (heard,) = net.heard("p2a")
    assert caller_of(heard) == "192.168.9.11"
    net.reply_to(heard, "p2a")
    assert net.heard("ext")[0].startswith(f"udp {'.'.join(map(str, address))}:80 -> 192.168.9.99:5000")
    net.call("p1a", address, sport=6000)
    assert len(net.heard("p2a")) == 1, "from pods inside too"


@pytest.mark.rule("SVC-32", element="source-ranges")
def test_source_ranges_are_for_load_balancers_alone(net: Services) -> None:
    ranges = (Prefix.parse("10.0.0.0/8"),)
    net.with_backends("p2a", balancers=(BALANCER,), external=(EXTERNAL,), node_port=NODE_PORT, sources=ranges)
    trace = net.call("ext", BALANCER)
    assert trace.codes[-1] == "SERVICE_SOURCE_REFUSED"
    assert trace.sentence.startswith("the load balancer of default/web:http takes callers of 10.0.0.0/8 only")
    assert net.heard("ext") == net.heard("p2a") == []
    for sport, (address, port) in enumerate(((EXTERNAL, 80), (N1, NODE_PORT)), 6000):
        net.call("ext", address, port, sport=sport)
    net.call("p1a", BALANCER, sport=7000)
    assert len(net.heard("p2a")) == 3


def test_an_external_address_without_endpoints(net: Services) -> None:
    """KUBE-EXTERNAL-SERVICES hangs on INPUT and FORWARD: strangers are refused, the node's own calls go their way."""
    net.with_backends(external=(EXTERNAL,))
    net.call("ext", EXTERNAL)
    assert net.heard("ext")[0].startswith("icmp 3/3 192.168.9.11 -> 192.168.9.99")
    trace = net.call("n1:eth0", EXTERNAL)
    assert trace.codes[-1] == "NEIGHBOR_ASKED"


@pytest.mark.rule("SVC-44", element="services")
def test_one_port_number_of_two_protocols_is_two_services(net: Services) -> None:
    net.serve(
        ServicePort("default/u", UDP, 80, SERVICE, (net.backend("p1b"),), node_port=NODE_PORT),
        ServicePort("default/t", TCP, 80, SERVICE, (net.backend("p2a"),), node_port=NODE_PORT),
    )
    net.call("p1a", SERVICE)
    net.call("p1a", SERVICE, protocol=TCP)
    net.call("ext", N1, NODE_PORT)
    net.call("ext", N1, NODE_PORT, protocol=TCP)
    assert [line.split()[0] for line in net.heard("p1b")] == ["udp", "udp"]
    assert [line.split()[0] for line in net.heard("p2a")] == ["tcp", "tcp"]


# What a change does to what goes on


@pytest.mark.rule("CT-01", element="forgetting")
@pytest.mark.rule("SVC-26", element="forgetting")
@pytest.mark.parametrize("called", [SERVICE, N1])
def test_udp_goes_to_another_backend_when_its_own_is_gone(net: Services, called: bytes) -> None:
    port = 80 if called == SERVICE else NODE_PORT
    row = net.with_backends("p2a", node_port=NODE_PORT)
    net.call("p1a", called, port)
    net.call("p1a", called, port)
    assert len(net.heard("p2a")) == 2
    net.serve(replace(row, backends=(net.backend("p1b"),)))
    net.call("p1a", called, port)
    assert (len(net.heard("p2a")), len(net.heard("p1b"))) == (0, 1), "on the next packet"


@pytest.mark.rule("CT-01", element="forgetting")
def test_a_backend_that_stays_keeps_its_udp(net: Services) -> None:
    row = net.with_backends("p1b", "p2a")
    for sport in range(1, 21):
        net.call("p1a", SERVICE, sport=sport)
    before = len(net.heard("p1b"))
    assert 0 < before < 20
    net.heard("p2a")
    net.serve(replace(row, backends=(net.backend("p1b"),)))
    assert len(net.lines("n1")) == before


@pytest.mark.rule("CT-02", element="forgetting")
def test_udp_that_was_led_nowhere_meets_the_first_backend(net: Services) -> None:
    net.call("p1a", SERVICE)  # no such Service: it leaks, and the connection is remembered
    assert len(net.lines("n1")) == 1
    net.with_backends("p2a")
    net.call("p1a", SERVICE)
    assert len(net.heard("p2a")) == 1
    net.serve()
    assert all("10.96.0.50" not in line for line in net.lines("n1")), "a deleted Service takes its connections along"


@pytest.mark.rule("CT-03", "POD-07", element="connections")
def test_tcp_goes_on_to_a_backend_that_is_gone(net: Services) -> None:
    row = net.with_backends("p2a", protocol=TCP)
    net.call("p1a", SERVICE, protocol=TCP)
    net.say("p2a", segment(P2A, P1A, 8080, 5000, SYN | ACK))
    net.say("p1a", segment(P1A, SERVICE, 5000, 80, ACK))
    net.serve(replace(row, backends=(net.backend("p1b"),)))
    net.heard("p2a")
    net.say("p1a", segment(P1A, SERVICE, 5000, 80, ACK, b"more"))
    assert len(net.heard("p2a")) == 1
    net.call("p1a", SERVICE, sport=5001, protocol=TCP)
    assert len(net.heard("p1b")) == 1


@pytest.mark.rule("CT-05", element="reassemble")
def test_a_datagram_in_fragments_meets_its_service_whole(net: Services) -> None:
    net.with_backends("p2a")
    pieces = cut_udp(P1A, SERVICE, 5000, 80, [1480, 1480, 1048], identification=4)
    codes = [net.say("p1a", piece).codes for piece in pieces]
    assert [row[-1] for row in codes[:2]] == ["FRAGMENT_WAITS", "FRAGMENT_WAITS"]
    assert "SERVICE" in codes[2]
    frames = net.frames("p2a")
    assert [len(frame) - 14 for frame in frames] == [1500, 1500, 1068]
    assert {frame[26:34] for frame in frames} == {P1A + P2A}, "all three pieces are sent to the backend"


@pytest.mark.rule("SVC-40", element="connections")
def test_what_is_of_no_connection_is_dropped_where_there_are_services(net: Services) -> None:
    net.with_backends("p2a", protocol=TCP)
    trace = net.say("p2a", segment(P2A, P1A, 8080, 5000, SYN | ACK))
    assert trace.codes[-1] == "CONNECTION_INVALID_DROPPED"
    trace = net.say("p2a", pong(P2A, P1A, 3))
    assert trace.codes[-1] == "CONNECTION_INVALID_DROPPED"


def test_a_device_that_is_made_anew_has_the_services(net: Services) -> None:
    net.with_backends("p2a")
    net.world.set_power("n1", on=False)
    net.world.set_power("n1", on=True)
    net.call("p1a", SERVICE)
    assert len(net.heard("p2a")) == 1
    element = net.world.devices["n1"].elements["connections"]
    assert isinstance(element, Connections)
    assert element.services.rows() == net.world.config.services


def test_rows_that_share_an_address_go_one_by_one(net: Services) -> None:
    """Two ports of one address: one goes, the other stays; and a row may take over what another had."""
    one = ServicePort("default/web:a", UDP, 80, SERVICE, (net.backend("p1b"),))
    two = ServicePort("default/web:b", UDP, 81, SERVICE, (net.backend("p2a"),))
    net.serve(one, two)
    net.serve(two)
    net.call("p1a", SERVICE, 81)
    assert len(net.heard("p2a")) == 1
    assert net.call("p1a", SERVICE, 80).codes[-1] == "NEIGHBOR_ASKED"
    net.serve(replace(two, port=80), replace(one, name="default/new", port=81))
    net.call("p1a", SERVICE, 80, sport=5002)
    net.call("p1a", SERVICE, 81, sport=5003)
    assert (len(net.heard("p2a")), len(net.heard("p1b"))) == (1, 1)
