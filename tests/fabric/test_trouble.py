"""Trouble on the wires of a whole World: one change at a time, met by the next frame, every frame counted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from emunet.fabric.impairment import Impairment
from emunet.fabric.names import UnknownPort
from emunet.plane.table import Table
from tests.worlds import SECOND, Net, datagram, echo

MS = 1_000_000
WIRE = "host1--switch1"


@pytest.fixture(params=[True, False], ids=["cached", "uncached"])
def net(request: pytest.FixtureRequest) -> Iterator[Net]:
    """Two hosts over VXLAN with silent stations, warmed up; with and without the flow cache."""
    net = Net(flow_cache=request.param)
    assert reaches(net)
    yield net
    net.world.advance(net.world.now + 20 * SECOND)
    net.balanced()


def send(net: Net, source: str = "web-1", target: str = "web-3", size: int = 8) -> None:
    packet = datagram(net[source].address(), net[target].address(), 5000, 6000, bytes(size))
    net.world.receive(net[source], net.frame(source, packet), net.world.now)


def reaches(net: Net, source: str = "web-1", target: str = "web-3") -> bool:
    """Whether one of two datagrams, a moment apart, arrives within a second."""
    before = len(net[target].got)
    send(net, source, target)
    net.world.advance(net.world.now + SECOND)
    return len(net[target].got) > before


def reasons(net: Net) -> dict[str, int]:
    return net.world.ledger.as_dict()["reasons"]  # type: ignore[return-value]


def test_one_thing_is_changed_and_the_rest_kept(net: Net) -> None:
    trouble, wire = net.world.trouble, net.world.wires[WIRE]
    trouble.change(WIRE, {"delay": "20ms", "loss": "1%"})
    trouble.change(WIRE, {"loss": "0"}, "host1")
    assert trouble.impairment(wire, 0) == Impairment(delay=20 * MS)
    assert trouble.impairment(wire, 1) == Impairment(delay=20 * MS, loss=0.01)
    assert trouble.described(wire) == {
        "name": WIRE, "ends": ["host1:eth0", "switch1:1"], "up": True, "flap": None,
        "from": {"host1": {"delay": "20ms"}, "switch1": {"delay": "20ms", "loss": "1%"}},
        "waiting": {"host1": 0, "switch1": 0},
    }  # fmt: skip
    with pytest.raises(UnknownPort, match="there is no end of host1--switch1 at host2: it joins host1 and switch1"):
        trouble.change(WIRE, {"delay": "1ms"}, "host2")
    with pytest.raises(ValueError, match="jitter cannot be larger"):
        trouble.change(WIRE, {"loss": "5%", "jitter": "21ms"})
    assert trouble.impairment(wire, 0) == Impairment(delay=20 * MS), "a change that is refused changes nothing"


def test_delay_of_one_direction_and_of_the_next_frame(net: Net) -> None:
    net.world.trouble.change(WIRE, {"delay": "20ms"}, "host1")
    began = net.world.now
    send(net)
    net.world.advance(began + SECOND)
    assert net["web-3"].got[-1][0] - began == 20 * MS
    began = net.world.now
    send(net, "web-3", "web-1")
    assert net["web-1"].got[-1][0] == began, "the way back is plain"


def test_a_lane_that_does_nothing_is_none_once_it_is_empty(net: Net) -> None:
    net.world.trouble.change(WIRE, {"delay": "20ms"})
    send(net)
    net.world.trouble.change(WIRE, {"delay": "0"})
    wire = net.world.wires[WIRE]
    assert wire.lanes[0] is not None
    assert wire.lanes[1] is None
    net.world.advance(net.world.now + SECOND)
    assert wire.lanes == [None, None]


def test_flapping_goes_by_the_clock_until_told_otherwise(net: Net) -> None:
    net.world.trouble.flap(WIRE, (10 * SECOND, 2 * SECOND))
    began = net.world.now
    up = []
    for second in range(25):
        net.world.advance(began + second * SECOND + SECOND // 2)
        up.append(net.world.wires[WIRE].up)
    assert up == [True] * 10 + [False] * 2 + [True] * 10 + [False] * 2 + [True]
    net.world.trouble.set_up(WIRE, True)
    net.world.advance(net.world.now + 100 * SECOND)
    assert net.world.wires[WIRE].up
    assert net.world.wires[WIRE].flap is None


def test_a_partition_and_its_end(net: Net) -> None:
    trouble = net.world.trouble
    trouble.part([["host1"]])
    assert not reaches(net)
    assert not reaches(net, "web-3", "web-1")
    assert reaches(net, "web-1", "web-2"), "within a host nobody is parted"
    assert reasons(net)["WIRE_PARTITIONED"] == 2
    trace = net.world.explain(net["web-1"], net.frame("web-1", echo(net["web-1"].address(), net["web-3"].address())))
    assert trace.reason is not None
    assert trace.reason.name == "WIRE_PARTITIONED"
    net.world.configure(replace(net.config, seed=9))
    assert not reaches(net), "a new configuration heals nothing"
    trouble.part([])
    assert reaches(net)
    assert net.world.wires[WIRE].lanes == [None, None]


def test_partitions_that_are_none(net: Net) -> None:
    for groups, said in [([["host1", "host2"]], "two parts or more"), ([["host1"], ["host1"]], "in two parts")]:
        with pytest.raises(ValueError, match=said):
            net.world.trouble.part(groups)
    with pytest.raises(UnknownPort, match="no host host9; there are: host1, host2"):
        net.world.trouble.part([["host9"]])


def test_a_dry_run_knows_what_is_certain(net: Net) -> None:
    """All lost, too long: told. One in ten: not told, since nobody knows."""
    frame = net.frame("web-1", echo(net["web-1"].address(), net["web-3"].address(), size=1000))
    for settings, reason in [
        ({"loss": "100%"}, "WIRE_LOST"),
        ({"loss": "10%"}, "RECEIVED"),
        ({"loss": "100%", "match": "tcp"}, "RECEIVED"),
        ({"loss": "100%", "match": "vxlan and icmp"}, "WIRE_LOST"),
        ({"loss": "0", "mtu": "900"}, "WIRE_TOO_LONG"),
    ]:
        net.world.trouble.change(WIRE, settings)
        trace = net.world.explain(net["web-1"], frame)
        assert trace.reason is not None
        assert trace.reason.name == reason, settings
        assert net.world.now >= 0


def test_power_off_forgets_and_power_on_begins_anew(net: Net) -> None:
    """A switch that lost its power: silence, then floods, because it knows nobody any more."""
    stations = next(t for t in net.world.devices["switch1"].state() if isinstance(t, Table))
    assert len(list(stations.items(net.world.now))) == 2
    counted = net.world.devices["switch1"].ledger.received
    net.world.set_power("switch1", on=False)
    assert not reaches(net)
    assert reasons(net)["DEVICE_OFF"] >= 1
    assert net.world.devices["switch1"].ledger.received > counted, "its counters are kept"
    trace = net.world.explain(net["web-1"], net.frame("web-1", echo(net["web-1"].address(), net["web-3"].address())))
    assert trace.sentence == "switch1 is powered off: `emunet host switch1 --on` brings it back"
    net.world.configure(replace(net.config, seed=9))
    assert net.world.devices["switch1"].off, "a new configuration is no power"
    net.world.set_power("switch1", on=True)
    stations = next(t for t in net.world.devices["switch1"].state() if isinstance(t, Table))
    assert not list(stations.items(net.world.now))
    assert reaches(net)


def test_what_a_host_held_goes_with_its_power(net: Net) -> None:
    """Frames that wait for an answer about a neighbour are lost with the machine, with that reason."""
    net["web-3"].quiet = True
    net.world.advance(net.world.now + 120 * SECOND)
    packet = datagram(net["web-1"].address(), bytes((10, 244, 1, 77)), 1, 2, b"x")
    for port in (1, 2, 3):
        packet = datagram(net["web-1"].address(), net["web-3"].address()[:3] + bytes((77,)), port, 2, b"x")
        net.world.receive(net["web-1"], net.frame("web-1", packet), net.world.now)
    assert net.world.devices["host2"].ledger.queued == 3
    net.world.set_power("host2", on=False)
    assert net.world.devices["host2"].ledger.queued == 0
    assert reasons(net)["DEVICE_OFF"] == 3
    assert net.world.devices["host2"].due() > net.world.now + 1000 * SECOND


def test_there_is_no_such_device(net: Net) -> None:
    with pytest.raises(UnknownPort, match="there is no device host9; there are: host1, host2, switch1"):
        net.world.set_power("host9", on=False)


def test_a_topology_comes_up_troubled_and_a_new_one_changes_what_it_says(net: Net) -> None:
    bad = Impairment(delay=5 * MS)
    wires = (replace(net.config.wires[0], impairments=(bad, Impairment())), replace(net.config.wires[1], up=False))
    net.world.configure(replace(net.config, wires=wires))
    assert net.world.trouble.impairment(net.world.wires[WIRE], 0) == bad
    assert not net.world.wires["host2--switch1"].up
    net.world.trouble.change(WIRE, {"loss": "3%"})
    net.world.configure(replace(net.config, wires=wires, seed=1))
    assert net.world.trouble.impairment(net.world.wires[WIRE], 0).loss == 0.03, "what a person set stays"
    net.world.configure(net.config)
    assert net.world.wires["host2--switch1"].up
    assert net.world.trouble.impairment(net.world.wires[WIRE], 0) == Impairment()
