"""What a bridge does to a frame (fidelity BR-01 to BR-18): a switch with stations, frames in, frames out."""

from __future__ import annotations

import pytest

from emunet.fabric.config import (
    Bridge,
    HostConfig,
    HostEdge,
    Interface,
    PodEdge,
    Port,
    SwitchConfig,
    WireConfig,
    WorldConfig,
)
from emunet.plane.table import Table
from tests.stories.benches import BROADCAST, SECOND, Net, addresses, datagram, got, host_mac, ip, mac, switch
from tests.worlds import Net as World

bridge = lambda rule: pytest.mark.rule(rule, element="bridge")  # noqa: E731


def frame(to: bytes, source: bytes, size: int = 46) -> bytes:
    """A frame of an EtherType for experiments."""
    return to + source + b"\x88\xb5" + bytes(size)


def reached(net: Net) -> dict[str, int]:
    """How many frames each station got, and forget them."""
    counts = {name: len(station.got) for name, station in net.stations.items() if station.got}
    for station in net.stations.values():
        station.got.clear()
    return counts


H1, H2, H3, H4 = (host_mac(number) for number in (1, 2, 3, 4))
UNKNOWN = mac("02:aa:aa:aa:aa:aa")


def learned(net: Net) -> dict[bytes, str]:
    """The station table."""
    table = net.world.devices["s"].elements["bridge"].stations  # type: ignore[attr-defined]
    assert isinstance(table, Table)
    return dict(table.items(net.world.now))


@bridge("BR-01")
def test_an_unknown_destination_is_flooded_and_not_sent_back() -> None:
    net = switch(3)
    trace = net.send("h1", frame(UNKNOWN, H1))
    assert trace.codes[:2] == ["ENTERED", "BRIDGE_FLOOD"]
    assert reached(net) == {"h2": 1, "h3": 1}
    net.balanced()


@bridge("BR-02")
def test_a_known_destination_gets_it_alone() -> None:
    net = switch(3)
    net.send("h3", frame(UNKNOWN, H3))
    reached(net)
    trace = net.send("h1", frame(H3, H1))
    assert trace.codes == ["ENTERED", "BRIDGE_FORWARD", "TRANSMITTED", "RECEIVED"]
    assert reached(net) == {"h3": 1}
    net.balanced()


@bridge("BR-03")
def test_a_destination_on_the_port_it_came_from_is_filtered() -> None:
    net = switch(3)
    net.send("h1", frame(UNKNOWN, UNKNOWN[:5] + b"\x01"))
    reached(net)
    trace = net.send("h1", frame(UNKNOWN[:5] + b"\x01", H1))
    assert trace.codes == ["ENTERED", "BRIDGE_FILTERED"]
    assert reached(net) == {}
    net.balanced()


@bridge("BR-04")
def test_a_station_that_moves_is_followed_at_once() -> None:
    net = switch(4)
    net.send("h2", frame(UNKNOWN, H2))
    net.send("h1", frame(H2, H1))
    assert reached(net)["h2"] == 1
    net.send("h3", frame(BROADCAST, H2))
    reached(net)
    net.send("h1", frame(H2, H1))
    assert reached(net) == {"h3": 1}
    net.balanced()


@bridge("BR-05")
def test_an_entry_ages_and_only_a_source_address_refreshes_it() -> None:
    net = switch(3)
    assert net.config.switches[0].ageing_ns == 300 * SECOND
    net.send("h3", frame(UNKNOWN, H3), now=0)
    reached(net)
    for second in (100, 200, 299):
        net.send("h1", frame(H3, H1), now=second * SECOND)  # being spoken to does not keep an entry
        assert reached(net) == {"h3": 1}
    net.send("h1", frame(H3, H1), now=300 * SECOND)
    assert reached(net) == {"h2": 1, "h3": 1}
    net.send("h3", frame(H1, H3), now=301 * SECOND)
    net.send("h3", frame(H1, H3), now=600 * SECOND)
    reached(net)
    net.send("h1", frame(H3, H1), now=899 * SECOND)
    assert reached(net) == {"h3": 1}
    net.balanced()


@bridge("BR-05")
def test_ageing_can_be_set() -> None:
    net = switch(3, ageing_ns=3 * SECOND)
    net.send("h3", frame(UNKNOWN, H3), now=0)
    net.send("h1", frame(H3, H1), now=2 * SECOND)
    reached(net)
    net.send("h1", frame(H3, H1), now=4 * SECOND)
    assert reached(net) == {"h2": 1, "h3": 1}


@bridge("BR-06")
@pytest.mark.parametrize(("last", "passes"), [(0x00, True), (0x01, False), (0x02, False), (0x0F, False), (0x10, True)])
def test_groups_reserved_for_the_link(last: int, passes: bool) -> None:
    net = switch(3)
    trace = net.send("h1", frame(bytes.fromhex("0180c20000") + bytes((last,)), H1))
    assert ("BRIDGE_RESERVED" in trace.codes) is not passes
    assert reached(net) == ({"h2": 1, "h3": 1} if passes else {})
    net.balanced()


@bridge("BR-06")
@pytest.mark.parametrize(
    ("last", "passes"), [(0x00, True), (0x01, False), (0x02, False), (0x03, True), (0x0E, True), (0x0F, False)]
)
def test_a_mask_lets_reserved_groups_pass_but_not_the_first_three(last: int, passes: bool) -> None:
    net = switch(3, group_forward_mask=0x7FFF)
    net.send("h1", frame(bytes.fromhex("0180c20000") + bytes((last,)), H1))
    assert reached(net) == ({"h2": 1, "h3": 1} if passes else {})
    net.balanced()


@pytest.mark.rule("BR-07", element="ingress")
@pytest.mark.parametrize("source", ["01:00:5e:00:00:05", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"])
def test_a_source_that_no_station_may_have(source: str) -> None:
    net = switch(3)
    trace = net.send("h1", frame(H3, mac(source)))
    assert trace.codes == ["GROUP_SOURCE"]
    assert reached(net) == {}
    assert learned(net) == {}
    net.balanced()


@bridge("BR-08")
def test_an_all_zero_destination_is_flooded_like_any_unknown() -> None:
    net = switch(3)
    assert "BRIDGE_FLOOD" in net.send("h1", frame(bytes(6), H1)).codes
    assert reached(net) == {"h2": 1, "h3": 1}
    net.balanced()


def host_with_bridge(**settings: object) -> World:
    """A host whose br0 has three ports, stations on them, and its own sockets."""
    br0 = Interface("br0", mac("02:00:00:00:00:99"), addresses("10.0.0.99/24"))
    numbers = range(1, 4)
    host = HostConfig(
        "n",
        tuple(Port(f"p{number}") for number in numbers),
        (br0,),
        bridges=(Bridge(tuple(f"p{number}" for number in numbers), "br0", **settings),),  # type: ignore[arg-type]
    )
    pods = tuple(PodEdge(f"p{number}", "n", host_mac(number), addresses(f"10.0.0.{number}/24")) for number in numbers)
    return World(config=WorldConfig(hosts=(host,), pods=pods, host_edges=(HostEdge("n:br0", "n", "br0"),)))


BR0 = mac("02:00:00:00:00:99")


@bridge("BR-09")
def test_the_bridges_own_address_goes_up_and_to_no_port() -> None:
    net = host_with_bridge()
    packet = datagram(ip("10.0.0.1"), ip("10.0.0.99"), 5, 6)
    trace = net.send("p1", net.frame("p1", packet))
    assert "BRIDGE_UP" in trace.codes
    assert reached(net) == {"n:br0": 1}
    net.balanced()


@bridge("BR-10")
def test_a_frame_that_claims_the_bridges_own_address_is_forwarded_and_not_learned() -> None:
    net = host_with_bridge()
    net.send("p1", frame(UNKNOWN, BR0))
    assert reached(net) == {"p2": 1, "p3": 1}
    packet = datagram(ip("10.0.0.2"), ip("10.0.0.99"), 5, 6)
    net.send("p2", net.frame("p2", packet))
    assert reached(net) == {"n:br0": 1}
    net.balanced()


@bridge("BR-11")
def test_with_hairpin_a_frame_may_go_back() -> None:
    net = switch(3, hairpin=True)
    net.send("h1", frame(BROADCAST, H1))
    assert reached(net) == {"h1": 1, "h2": 1, "h3": 1}
    net.send("h1", frame(UNKNOWN, UNKNOWN[:5] + b"\x01"))
    reached(net)
    net.send("h1", frame(UNKNOWN[:5] + b"\x01", H1))
    assert reached(net) == {"h1": 1}
    net.balanced()


@bridge("BR-12")
def test_isolated_ports_do_not_see_each_other() -> None:
    net = switch(4, isolated=("1", "2"))
    for name, source in (("h2", H2), ("h3", H3)):
        net.send(name, frame(UNKNOWN, source))
    reached(net)
    assert "BRIDGE_ISOLATED" in net.send("h1", frame(H2, H1)).codes
    assert reached(net) == {}
    net.send("h1", frame(BROADCAST, H1))
    assert reached(net) == {"h3": 1, "h4": 1}
    net.send("h1", frame(H3, H1))
    net.send("h3", frame(H1, H3))
    assert reached(net) == {"h1": 1, "h3": 1}
    net.balanced()


@bridge("BR-13")
@pytest.mark.parametrize("size", [0, 5, 1486])
def test_nothing_in_a_frame_changes(size: int) -> None:
    net = switch(3)
    net.send("h3", frame(UNKNOWN, H3))
    reached(net)
    packet = datagram(ip("10.0.0.1"), ip("10.0.0.3"), 5, 6, bytes(max(0, size - 28)), ttl=1, tos=0xB8)
    tagged = H3 + H1 + bytes.fromhex("8100600a0800") + packet
    for sent in (H3 + H1 + b"\x08\x00" + packet, tagged, H3 + H1 + b"\x08\x00" + packet + bytes(9)):
        net.send("h1", sent)
        assert [got_frame for _, got_frame in net["h3"].got] == [sent]
        net["h3"].got.clear()
    net.balanced()


@bridge("BR-14")
def test_what_was_learned_on_a_port_goes_with_its_link() -> None:
    config = WorldConfig(
        switches=(
            SwitchConfig("s", (Port("1"), Port("2"), Port("3"))),
            SwitchConfig("t", (Port("1"), Port("2"))),
        ),
        wires=(WireConfig("between", ("s", "3"), ("t", "1")),),
        pods=(
            PodEdge("h1", "s", H1, addresses("10.0.0.1/24")),
            PodEdge("h2", "s", H2, addresses("10.0.0.2/24")),
            PodEdge("h3", "t", H3, addresses("10.0.0.3/24")),
        ),
    )
    net = World(config=config, entries={"h1": "1", "h2": "2", "h3": "2"})
    net.send("h3", frame(BROADCAST, H3))
    assert learned(net) == {H3: "3"}
    net.world.trouble.set_up("between", False)
    assert learned(net) == {}
    reached(net)
    net.send("h1", frame(H3, H1))
    assert reached(net) == {"h2": 1}
    net.balanced()


@bridge("BR-15")
def test_a_frame_too_long_for_one_port_is_dropped_there_and_silently() -> None:
    net = switch(3, mtus={"2": 1000})
    net.send("h1", frame(BROADCAST, H1, 1200))
    assert reached(net) == {"h3": 1}
    net.send("h2", frame(UNKNOWN, H2))
    reached(net)
    assert net.send("h1", frame(H2, H1, 1001)).codes == ["ENTERED", "OVERSIZED"]
    assert reached(net) == {}
    net.send("h1", frame(H2, H1, 1000))
    assert reached(net) == {"h2": 1}
    net.balanced()


@bridge("BR-17")
def test_a_frame_that_is_dropped_teaches_its_source_all_the_same() -> None:
    net = switch(3)
    net.send("h3", frame(bytes.fromhex("0180c2000002"), H3))
    assert learned(net) == {H3: "3"}
    net.send("h1", frame(H3, H1))
    assert reached(net) == {"h3": 1}
    net.balanced()


@bridge("BR-18")
def test_the_order_between_two_stations_is_kept() -> None:
    net = switch(3)
    net.send("h3", frame(UNKNOWN, H3))
    reached(net)
    sent = [frame(H3, H1, 46 + number % 7) + bytes((number,)) for number in range(200)]
    for number, data in enumerate(sent):
        net.world.receive(net["h1"], data, number)
    assert [data for _, data in net["h3"].got] == sent
    got(net["h3"])
    net.balanced()
