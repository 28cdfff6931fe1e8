"""1,000 policies: what they cost a connection's first packet, and how long a change keeps frames waiting.

Each figure is the best of several tries, in seconds of this thread's processor, so that what others do on the
machine does not fail the test, and is printed (`pytest -s`). The limits are promises of the project.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from typing import Any

import pytest

from emunet.cluster.compile import compile
from emunet.elements.policies.rules import Row
from emunet.fabric.config import WorldConfig
from emunet.fabric.policing import steps
from tests.policy_worlds import Policed, labels, policy

MANY = 1000
pytestmark = pytest.mark.slow


def of_others(number: int) -> dict[str, Any]:
    """A policy that selects a pod of its own kind only, as most do."""
    rule = {"from": [{"podSelector": labels(app=f"client-{number}")}], "ports": [{"port": 80}]}
    return policy(f"p{number:04}", podSelector=labels(app=f"server-{number}"), ingress=[rule])


def of_all(number: int) -> dict[str, Any]:
    """A policy that selects every pod, with a peer and a port of its own. The last lets x/b in at port 80."""
    last = number == MANY - 1
    peer = {"podSelector": labels(pod="b")} if last else {"namespaceSelector": labels(team=f"t{number}")}
    rule = {"from": [peer], "ports": [{"port": 80 if last else 1000 + number}]}
    return policy(f"p{number:04}", ingress=[rule])


def of_one_port(number: int) -> dict[str, Any]:
    """As the one before, with one port for all of them and x/b in every group: nothing tells them apart."""
    peer = {"podSelector": {"matchExpressions": [{"key": f"k{number}", "operator": "DoesNotExist"}]}}
    return policy(f"p{number:04}", ingress=[{"from": [peer], "ports": [{"port": 80 if number else 443}]}])


def best(measure: Callable[[], float], tries: int = 7) -> float:
    """The smallest of several."""
    return min(measure() for _ in range(tries))


def first_packet(net: Policed, port: int) -> float:
    """Seconds for a frame from x/b that begins a connection to x/a."""
    packets = [net.packet("x/b", "x/a", "TCP", port) for _ in range(100)]
    frames = [net.frame("x/b", packet, net.mac_for("x/b", "x/a")) for packet in packets]
    began = time.thread_time()
    for frame in frames:
        net.world.receive(net["x/b"], frame, net.world.now)
    return (time.thread_time() - began) / len(frames)


@pytest.mark.parametrize("make", [of_others, of_all, of_one_port])
@pytest.mark.parametrize(("port", "verdict"), [(80, "passes"), (7, "is dropped")])
def test_a_first_packet_costs_at_most_twice_as_much(make: Any, port: int, verdict: str) -> None:
    """With one policy (that isolates x/a) and with 1,000."""
    one, many = Policed(mode="connection"), Policed(mode="connection")
    own = policy(
        "own",
        podSelector=labels(pod="a"),
        ingress=[{"from": [{"podSelector": labels(pod="b")}], "ports": [{"port": 80}]}],
    )
    one.apply(own)
    many.apply(own, *map(make, range(MANY)))
    assert one.passes("x/b", "x/a", port=port) is many.passes("x/b", "x/a", port=port) is (port == 80)
    tries = [(first_packet(one, port), first_packet(many, port)) for _ in range(9)]  # turn by turn: the same weather
    alone, crowded = (min(row) for row in zip(*tries, strict=True))
    print(
        f"\na first packet that {verdict}: {alone * 1e6:.0f} µs with one policy, "
        f"{crowded * 1e6:.0f} µs with 1,000 ({make.__name__}), {crowded / alone:.2f} times"
    )
    assert crowded < 2 * alone


def changes(make: Any) -> tuple[Policed, WorldConfig, WorldConfig, float]:
    """1,000 policies, and the configurations before and after one of them changed; seconds that control needs."""
    net = Policed(mode="connection")
    policies = [make(number) for number in range(MANY)]
    net.apply(*policies)
    before = net.config
    rule = {"from": [{"podSelector": labels(pod="c")}], "ports": [{"port": 81}]}
    changed = policy(policies[-1]["metadata"]["name"], ingress=[rule])

    def measure() -> float:
        net.policies = [*policies]
        net.rebuild()
        old = net.config
        net.policies = [*policies[:-1], changed]
        net.desired = net.wanted()
        began = time.thread_time()
        after = compile(net.desired, net.allocation, policing=net.policing)
        rows = [pickle.dumps(part) for _, part in steps(old, after) or ()]
        assert rows
        return time.thread_time() - began

    seconds = best(measure, 5)
    return net, before, compile(net.desired, net.allocation), seconds


@pytest.mark.parametrize("make", [of_others, of_all, of_one_port])
def test_a_change_stops_the_frames_for_less_than_a_millisecond(make: Any) -> None:
    """What control works out is bounded, and each step of what the plane does with it."""
    net, before, after, control = changes(make)
    parts = [(host, pickle.dumps(rows)) for host, rows in steps(before, after) or ()]
    net.world.configure(before)

    def there_and_back() -> float:
        longest = 0.0
        for host, data in parts:
            began = time.thread_time()
            rows: list[Row] = pickle.loads(data)
            net.world.policing.change(host, rows)
            longest = max(longest, time.thread_time() - began)
        assert net.world.config == after
        net.world.configure(before)
        return longest

    longest = best(there_and_back)
    print(
        f"\none of 1,000 policies changes ({make.__name__}): {control * 1e3:.1f} ms in control, {len(parts)} steps in "
        f"the plane, the longest {longest * 1e3:.2f} ms"
    )
    assert control < 0.1
    assert longest < 0.001
    assert len(parts) * 0.001 + control < 0.1


def test_a_label_that_changes_is_a_few_rows() -> None:
    """Of 1,000 policies that speak of its old and new label, one group changes and no rule."""
    net = Policed(mode="connection")
    net.apply(*map(of_one_port, range(MANY)))
    before = net.config
    net.relabel("x/b", pod="b", k7="x")
    rows = [row for _, part in steps(before, net.config) or () for row in part]
    assert len(rows) == 2  # a group on each of two hosts
