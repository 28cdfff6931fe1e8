"""The law of frames, and that it notices: each counter broken in turn, and the balance is off."""

from __future__ import annotations

from typing import Any

import pytest

from emunet.plane.ledger import FIELDS, Ledger
from emunet.plane.reason import Reason
from tests.worlds import Net, datagram, parse_ip


def stuck(field: str) -> type[Ledger]:
    """A ledger whose `field` does not move."""

    def read(self: Any) -> int:
        return 0

    def write(self: Any, value: int) -> None:
        return None

    return type(f"Stuck_{field}", (Ledger,), {"__slots__": (), field: property(read, write)})


def everything_moves(net: Net) -> None:
    """Frames that move every counter of host1 and of the World, and end with one that still waits."""
    source, target = net["web-1"].address(), net["web-3"].address()
    net.send("web-1", net.frame("web-1", datagram(source, target, 5, 6, bytes(1430))))  # asked for, answered, delivered
    net.send("web-1", net.frame("web-1", datagram(source, target, 5, 6, bytes(1430))))  # cut in two
    net.send("web-1", b"\xff" * 6 + net["web-1"].mac + b"\x88\xb5" + bytes(46))  # flooded
    net.send("web-1", net.frame("web-1", datagram(source, parse_ip("203.0.113.9"), 5, 6)))  # no route, told
    net.send("web-1", net.frame("web-1", datagram(source, parse_ip("10.244.1.99"), 5, 6)))  # waits


def test_all_counters_move_and_the_law_holds() -> None:
    net = Net("two-hosts")
    everything_moves(net)
    net.balanced()
    for ledger in (net.world.ledger, net.world.devices["host1"].ledger):
        assert all(getattr(ledger, field) > 0 for field in FIELDS), ledger.as_dict()


@pytest.mark.breaks_the_law
@pytest.mark.parametrize("field", FIELDS)
def test_the_worlds_law_notices_a_counter_that_does_not_move(field: str) -> None:
    net = Net("two-hosts")
    broken = stuck(field)()
    net.world.figures = broken
    for device in net.world.devices.values():
        device.world_ledger = broken
    everything_moves(net)
    assert net.world.ledger.balance != 0
    for device in net.world.devices.values():
        assert device.ledger.balance == 0


@pytest.mark.breaks_the_law
@pytest.mark.parametrize("field", FIELDS)
def test_a_devices_law_notices_a_counter_that_does_not_move(field: str) -> None:
    net = Net("two-hosts")
    net.world.devices["host1"].figures = stuck(field)()
    everything_moves(net)
    assert net.world.devices["host1"].ledger.balance != 0
    assert net.world.ledger.balance == 0


@pytest.mark.parametrize("flow_cache", [True, False])
def test_the_law_holds_when_nothing_is_repeated_and_when_much_is(flow_cache: bool) -> None:
    net = Net("two-hosts", flow_cache=flow_cache)
    source, target = net["web-1"].address(), net["web-3"].address()
    for number in range(50):
        net.world.receive(net["web-1"], net.frame("web-1", datagram(source, target, 5, 6, b"x" * number)), number)
    net.balanced()
    assert (net.world.flows.hits > 40) is flow_cache
    assert net.world.ledger.received == 50 + 1, "the datagrams, and web-3's answer to the question for its MAC"


def test_a_drop_is_counted_by_its_code() -> None:
    ledger = Ledger()
    ledger.drop(Reason.NO_ROUTE, 3)
    ledger.drop(Reason.NO_ROUTE, 1)
    ledger.drop(Reason.RUNT, 1)
    assert ledger.dropped == 5
    assert ledger.balance == -5
    assert ledger.as_dict()["reasons"] == {"NO_ROUTE": 4, "RUNT": 1}
