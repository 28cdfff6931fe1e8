"""Who has an address? What a router asks and answers on its links (fidelity ARP-01 to ARP-14)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from emunet.elements.endpoint.stack import Endpoint
from emunet.elements.neighbor import NeighborElement, State
from emunet.packet import arp
from tests.stories.benches import (
    BROADCAST,
    MILLISECOND,
    SECOND,
    Net,
    Settings,
    addresses,
    arps,
    change,
    datagram,
    device,
    echo,
    got,
    host_mac,
    ip,
    mac,
    one,
    route,
    router,
    router_mac,
)

Mark = Callable[[str], pytest.MarkDecorator]
neighbor: Mark = lambda rule: pytest.mark.rule(rule, element="neighbor")  # noqa: E731
solicited: Mark = lambda rule: pytest.mark.rule(rule, element="solicited")  # noqa: E731

DEAD = "10.0.2.77"
H1, H2 = host_mac(1), host_mac(2)
R1, R2 = router_mac(1), router_mac(2)


def element(net: Net) -> NeighborElement:
    found = device(net).elements["neighbor"]
    assert isinstance(found, NeighborElement)
    return found


def known(net: Net, interface: str, address: str) -> tuple[bytes, State] | None:
    """MAC and state of an entry, or None."""
    entry = element(net).table.get((interface, ip(address)), net.world.now)
    return None if entry is None else (entry.mac, entry.state)


def forward(net: Net, destination: str, now: int, size: int = 10, source: str = "10.0.1.2", **fields: int) -> list[str]:
    """A datagram from h1 by way of the router: the trace's codes."""
    packet = datagram(ip(source), ip(destination), 5, 6, bytes(size), **fields)
    return net.send("h1", net.frame("h1", packet), now).codes


@solicited("ARP-01")
def test_a_question_for_an_own_address_is_answered_to_the_asker_who_is_noted() -> None:
    net = router()
    trace = net.send("h1", arp.request(H1, ip("10.0.1.2"), ip("10.0.1.1")))
    assert trace.codes == ["ENTERED", "LINK_ARP", "ARP_ANSWERED"]
    [(_, frame)] = net["h1"].got
    assert len(frame) == 42
    assert frame == arp.reply(R1, ip("10.0.1.1"), H1, ip("10.0.1.2"))
    assert known(net, "e1", "10.0.1.2") == (H1, State.STALE)
    net.balanced()


@solicited("ARP-02")
def test_a_question_for_the_address_of_another_interface_is_answered_too() -> None:
    net = router()
    net.send("h1", arp.request(H1, ip("10.0.1.2"), ip("10.0.2.1")))
    assert net["h1"].got[0][1] == arp.reply(R1, ip("10.0.2.1"), H1, ip("10.0.1.2"))
    net.balanced()


@neighbor("ARP-03")
def test_three_requests_then_an_error_for_each_packet_that_waited() -> None:
    net = router()
    net["h2"].quiet = True
    assert forward(net, DEAD, 0)[-1] == "NEIGHBOR_ASKED"
    assert forward(net, DEAD, MILLISECOND)[-1] == "NEIGHBOR_WAITING"
    forward(net, DEAD, 2 * MILLISECOND)
    net.world.advance(10 * SECOND)
    asked = arps(net["h2"])
    assert [at for at, _, _ in asked] == [0, SECOND, 2 * SECOND]
    assert {to for _, to, _ in asked} == {BROADCAST}
    assert {(message.sender_ip, message.target_ip) for _, _, message in asked} == {(ip("10.0.2.1"), ip(DEAD))}
    assert [at for at, _ in net["h1"].got] == [3 * SECOND] * 3
    told = got(net["h1"])
    assert [packet.error for packet in told] == [(3, 1)] * 3
    assert known(net, "e2", DEAD) is None
    assert forward(net, DEAD, 11 * SECOND)[-1] == "NEIGHBOR_ASKED", "the next packet starts again"
    net.world.advance(20 * SECOND)
    net.balanced()


@pytest.mark.rule("ARP-04", element="endpoint")
def test_a_local_sender_learns_that_nobody_answers_and_no_error_is_on_the_wire() -> None:
    pod = Endpoint("pod", H1, addresses("10.0.1.2/24"), (ip("10.0.1.1"),))
    ping, frames = pod.ping(ip("10.0.1.77"), 0)
    while (due := pod.due()) is not None:
        frames += pod.wake(due)
    assert [frame[12:14] for frame in frames] == [b"\x08\x06"] * 3
    assert ping.error is not None
    assert ping.error.name == "HOST_UNREACHABLE"


@pytest.mark.rule("ARP-04", element="neighbor")
def test_a_hosts_own_program_learns_it_too() -> None:
    net = router()
    packet = datagram(ip("10.0.2.1"), ip(DEAD), 5, 6)
    net.send("r:e2", R2 + R2 + b"\x08\x00" + packet)
    for _ in range(9):  # more than a router would tell anybody else in three seconds
        net.send("r:e2", R2 + R2 + b"\x08\x00" + packet)
    net.world.advance(10 * SECOND)
    told = got(net["r:e2"])
    assert [(packet.error, packet.src, packet.dst) for packet in told] == [((3, 1), "10.0.2.1", "10.0.2.1")] * 10
    assert all(not net[name].got for name in ("h1", "h3"))
    assert got(net["h2"]) == []
    net.balanced()


@neighbor("ARP-05")
def test_what_waits_is_bounded_by_memory_and_the_oldest_makes_room() -> None:
    net = router()
    net["h2"].quiet = True
    for number in range(400):
        forward(net, "10.0.2.2", number, size=1000 - 28 - 14, identification=number)
    net.send("h2", arp.reply(H2, ip("10.0.2.2"), R2, ip("10.0.2.1")), SECOND // 2)
    delivered = [packet.v4.identification for packet in got(net["h2"])]
    assert delivered == list(range(400 - 92, 400))
    assert device(net).ledger.reasons["NEIGHBOR_QUEUE_FULL"] == 308
    net.balanced()


@neighbor("ARP-06")
def test_a_stale_entry_is_used_then_doubted_then_asked_for_alone() -> None:
    net = router()
    net.send("h2", arp.request(H2, ip("10.0.2.2"), ip("10.0.2.1")))
    net["h2"].quiet = True
    net["h2"].got.clear()
    assert known(net, "e2", "10.0.2.2") == (H2, State.STALE)
    assert forward(net, "10.0.2.2", SECOND)[-1] == "RECEIVED"
    assert known(net, "e2", "10.0.2.2") == (H2, State.DELAY)
    one(net["h2"])
    net.world.advance(30 * SECOND)
    asked = arps(net["h2"])
    assert [at for at, _, _ in asked] == [6 * SECOND, 7 * SECOND, 8 * SECOND]
    assert {to for _, to, _ in asked} == {H2}
    assert known(net, "e2", "10.0.2.2") is None
    net.balanced()


@neighbor("ARP-06")
def test_an_answer_to_a_probe_confirms_the_entry() -> None:
    net = router()
    net.send("h2", arp.request(H2, ip("10.0.2.2"), ip("10.0.2.1")))
    forward(net, "10.0.2.2", SECOND)
    net.world.advance(7 * SECOND)
    assert known(net, "e2", "10.0.2.2") == (H2, State.REACHABLE)
    net.balanced()


GRATUITOUS = {
    "a request": lambda own, at: arp.request(own, at, at),
    "a reply": lambda own, at: BROADCAST + own + b"\x08\x06" + arp.Arp(arp.REPLY, own, at, own, at).pack(),
}


@neighbor("ARP-07")
@pytest.mark.parametrize("kind", GRATUITOUS)
def test_an_announcement_makes_no_entry(kind: str) -> None:
    net = router()
    trace = net.send("h2", GRATUITOUS[kind](H2, ip("10.0.2.2")))
    assert trace.codes[-1] == "ARP_IGNORED"
    assert known(net, "e2", "10.0.2.2") is None
    net.balanced()


@neighbor("ARP-08")
@pytest.mark.rule("ARP-10", element="neighbor")
@pytest.mark.parametrize("kind", GRATUITOUS)
def test_an_announcement_is_followed_where_the_address_is_known(kind: str) -> None:
    net = router()
    forward(net, "10.0.2.2", 0)
    assert known(net, "e2", "10.0.2.2") == (H2, State.REACHABLE)
    moved = mac("02:00:00:00:02:99")
    net.send("h2", GRATUITOUS[kind](moved, ip("10.0.2.2")), MILLISECOND)
    assert known(net, "e2", "10.0.2.2") == (moved, State.STALE)
    net["h2"].got.clear()
    forward(net, "10.0.2.2", 2 * MILLISECOND)
    assert one(net["h2"]).destination_mac == moved
    net.balanced()


@neighbor("ARP-08")
def test_for_a_second_no_other_answer_replaces_the_first() -> None:
    net = router()
    forward(net, "10.0.2.2", 0)
    other = mac("02:00:00:00:02:99")
    to_all = (
        BROADCAST + other + b"\x08\x06" + arp.Arp(arp.REPLY, other, ip("10.0.2.2"), BROADCAST, ip("10.0.2.9")).pack()
    )
    net.send("h2", to_all, SECOND // 2)
    assert known(net, "e2", "10.0.2.2") == (H2, State.REACHABLE)
    net.send("h2", to_all, SECOND + 1)
    assert known(net, "e2", "10.0.2.2") == (other, State.STALE)
    net.balanced()


@solicited("ARP-09")
def test_a_probe_is_answered_and_nobody_noted() -> None:
    net = router()
    net.send("h1", arp.request(H1, bytes(4), ip("10.0.1.1")))
    [(_, frame)] = net["h1"].got
    assert frame == arp.reply(R1, ip("10.0.1.1"), H1, bytes(4))
    assert known(net, "e1", "0.0.0.0") is None
    net["h1"].got.clear()
    assert net.send("h1", arp.request(H1, bytes(4), ip("10.0.1.3"))).codes[-1] == "ARP_IGNORED"
    assert net["h1"].got == []
    net.balanced()


@pytest.mark.rule("ARP-10", element="endpoint")
def test_a_pod_can_announce_itself() -> None:
    pod = Endpoint("pod", H1, addresses("10.0.1.2/24"))
    [frame] = pod.announce()
    assert frame == arp.request(H1, ip("10.0.1.2"), ip("10.0.1.2"))
    peer = Endpoint("peer", H2, addresses("10.0.1.3/24"))
    ping, frames = peer.ping(ip("10.0.1.2"), 0)
    peer.receive(arp.reply(mac("02:00:00:00:00:77"), ip("10.0.1.2"), H2, ip("10.0.1.3")), 1)
    peer.receive(frame, 2 * SECOND)
    assert peer.mac_of(ip("10.0.1.2")) == H1, "who had another MAC for the address follows"
    assert ping.error is None
    assert len(frames) == 1


def proxied(**settings: int) -> Net:
    return router(
        settings={"e1": Settings(proxy_arp=True, **settings)}, routes=[route("10.9.0.0/16", "e2", "10.0.2.2")]
    )


@solicited("ARP-11")
def test_proxy_arp_answers_for_what_is_routed_elsewhere_after_a_random_wait() -> None:
    times = set()
    for target in ("10.9.0.1", "10.9.0.2", "10.0.2.99"):
        net = proxied()
        assert net.send("h1", arp.request(H1, ip("10.0.1.2"), ip(target))).codes[-1] == "ARP_PROXIED"
        assert net["h1"].got == []
        net.world.advance(SECOND)
        [(at, frame)] = net["h1"].got
        assert frame == arp.reply(R1, ip(target), H1, ip("10.0.1.2"))
        assert 0 < at < 800 * MILLISECOND
        times.add(at)
        net.balanced()
    assert len(times) == 3


@solicited("ARP-11")
@pytest.mark.parametrize(
    ("target", "why"), [("10.0.1.99", "on the asker's own network"), ("10.8.0.1", "routed nowhere")]
)
def test_proxy_arp_does_not_answer_for_what_is(target: str, why: str) -> None:
    net = proxied(proxy_delay=0)
    assert net.send("h1", arp.request(H1, ip("10.0.1.2"), ip(target))).codes[-1] == "ARP_IGNORED", why
    net.world.advance(SECOND)
    assert net["h1"].got == []
    net.send("h1", arp.request(H1, ip("10.0.1.2"), ip("10.9.0.1")))
    assert len(net["h1"].got) == 1, "with a delay of 0 it answers at once"
    net.balanced()


@solicited("ARP-11")
def test_a_question_to_the_proxy_alone_is_answered_at_once_and_without_it_never() -> None:
    net = proxied()
    net.send("h1", arp.request(H1, ip("10.0.1.2"), ip("10.9.0.1"), dst=R1))
    assert len(net["h1"].got) == 1
    net["h2"].got.clear()
    net.send("h2", arp.request(H2, ip("10.0.2.2"), ip("10.0.1.2")))
    net.world.advance(SECOND)
    assert net["h2"].got == [], "e2 is no proxy"
    net.balanced()


@solicited("ARP-12")
@pytest.mark.parametrize(
    ("what", "damage"),
    [
        ("hardware type", lambda body: b"\x00\x18" + body[2:]),
        ("hardware length", lambda body: body[:4] + b"\x08" + body[5:]),
        ("protocol length", lambda body: body[:5] + b"\x10" + body[6:]),
        ("protocol", lambda body: body[:2] + b"\x86\xdd" + body[4:]),
        ("length", lambda body: body[:27]),
    ],
)
def test_other_formats_are_ignored(what: str, damage: Callable[[bytes], bytes]) -> None:
    net = router()
    good = arp.request(H1, ip("10.0.1.2"), ip("10.0.1.1"))
    assert net.send("h1", good[:14] + damage(good[14:])).codes[-1] == "ARP_MALFORMED", what
    assert net["h1"].got == []
    assert known(net, "e1", "10.0.1.2") is None
    net.send("h1", good)
    assert len(net["h1"].got) == 1
    net.balanced()


@neighbor("ARP-13")
def test_a_reply_that_nobody_asked_for_changes_an_entry_and_makes_none() -> None:
    net = router()
    reply = arp.reply(H2, ip("10.0.2.2"), R2, ip("10.0.2.1"))
    assert net.send("h2", reply).codes[-1] == "ARP_IGNORED"
    assert known(net, "e2", "10.0.2.2") is None
    net.send("h2", arp.request(H2, ip("10.0.2.2"), ip("10.0.2.1"), dst=R2))
    assert len(net["h2"].got) == 1, "a question to us alone is answered"
    assert known(net, "e2", "10.0.2.2") == (H2, State.STALE)
    other = mac("02:00:00:00:02:99")
    net.send("h2", arp.reply(other, ip("10.0.2.2"), R2, ip("10.0.2.1")), 2 * SECOND)
    assert known(net, "e2", "10.0.2.2") == (other, State.REACHABLE)
    net.balanced()


@neighbor("ARP-14")
def test_the_mac_of_a_group_is_computed() -> None:
    net = router()
    for group, expected in (("224.0.0.9", "01:00:5e:00:00:09"), ("239.255.3.4", "01:00:5e:7f:03:04")):
        packet = datagram(ip("10.0.2.1"), ip(group), 5, 6)
        trace = net.send("r:e2", R2 + R2 + b"\x08\x00" + packet)
        assert "NEIGHBOR_GROUP" in trace.codes
        assert one(net["h2"]).destination_mac == mac(expected)
    packet = datagram(ip("10.0.2.1"), ip("255.255.255.255"), 5, 6)
    net.send("r:e2", R2 + R2 + b"\x08\x00" + packet)
    assert one(net["h2"]).destination_mac == BROADCAST
    net.balanced()


def test_the_question_for_an_own_packet_bears_its_source() -> None:
    net = router()
    net["h2"].quiet = True
    net.send("r:e2", R2 + R2 + b"\x08\x00" + datagram(ip("10.0.1.1"), ip(DEAD), 5, 6))
    [(_, _, message)] = arps(net["h2"])
    assert message.sender_ip == ip("10.0.1.1")
    net.world.advance(10 * SECOND)
    net.balanced()


def test_what_waits_for_an_interface_that_goes_is_accounted_for() -> None:
    net = router()
    assert forward(net, DEAD, 0)[-1] == "NEIGHBOR_ASKED"
    host = net.config.hosts[0]
    change(
        net,
        interfaces=tuple(one for one in host.interfaces if one.name != "e2"),
        routes=tuple(row for row in host.routes if row.interface != "e2"),
    )
    net.world.advance(10 * SECOND)
    assert device(net).ledger.reasons == {"NEIGHBOR_UNREACHABLE": 1}
    net.balanced()


def test_a_dry_run_of_a_proxied_question_leaves_nothing_behind() -> None:
    net = proxied()
    assert net.world.explain(net["h1"], arp.request(H1, ip("10.0.1.2"), ip("10.9.0.1"))).codes[-1] == "ARP_PROXIED"
    net.world.advance(SECOND)
    assert net["h1"].got == []
    assert known(net, "e1", "10.0.1.2") is None
    net.send("h1", net.frame("h1", echo(ip("10.0.1.2"), ip("10.0.2.2"))))
    net.balanced()
