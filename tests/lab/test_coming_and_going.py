"""What a lab keeps of pods that have gone: nothing that grows with their number."""

from __future__ import annotations

import gc
from collections import Counter

import pytest

from emunet.fabric.names import UnknownPort
from emunet.testing import Lab

HOSTS = """apiVersion: emunet/v1
kind: Topology
metadata: {name: lab}
spec: {hosts: [host1, host2], podLinks: LINKS}
"""
POD = (
    "{apiVersion: v1, kind: Pod, metadata: {name: NAME}, spec: {nodeName: host1, containers: [{name: c, image: x}]}}\n"
)

BOUNDED = {
    "emunet.cluster.store.Change",
    "emunet.elements.endpoint.echo.Ping",
    "emunet.elements.endpoint.neighbors.Neighbor",
}
"""What is kept on purpose, up to a number that others test: changes to tell, a stack's pings and neighbors."""


def things() -> Counter[str]:
    """The objects of ours in this process, by their type."""
    gc.collect()
    kinds = (type(one) for one in gc.get_objects())
    return Counter(
        f"{kind.__module__}.{kind.__qualname__}" for kind in kinds if str(kind.__module__).startswith("emunet.")
    )


@pytest.mark.parametrize("links", ["bridge", "routed"])
def test_pods_that_came_and_went_leave_nothing(links: str) -> None:
    with Lab(HOSTS.replace("LINKS", links) + "---\n" + POD.replace("NAME", "calm")) as lab:

        def come_and_go(numbers: range) -> None:
            for number in numbers:
                lab.apply("\n" + POD.replace("NAME", f"brief-{number}"))
                assert lab.ping("calm", f"brief-{number}")
                lab.delete("pod", f"brief-{number}")
                lab.clock.advance(120)

        come_and_go(range(20))
        before, places = things(), len(lab.plane.world.flows._tables)
        come_and_go(range(20, 70))
        grown = {name: count for name, count in (things() - before).items() if count >= 50}
        assert grown.keys() <= BOUNDED, grown
        assert len(lab.plane.world.flows._tables) == places


def test_a_pod_that_has_gone_sends_no_more() -> None:
    """Who still holds it is told so, and nothing is counted."""
    with Lab(HOSTS.replace("LINKS", "bridge") + "---\n" + POD.replace("NAME", "gone")) as lab:
        held = lab.pod("gone")
        lab.delete("pod", "gone")
        before = lab.counters()
        for send in (lambda: held.send(bytes(60)), lambda: held.connect("host2", 80)):
            with pytest.raises(UnknownPort, match="the pod gone has gone"):
                send()
        assert lab.counters() == before
