"""Eleven hundred pods on one bridge that all speak to one at the same moment: each finds it."""

from __future__ import annotations

import pytest

from emunet.testing import Lab

PODS = 1100
TOPOLOGY = """apiVersion: emunet/v1
kind: Topology
metadata: {name: crowd}
spec: {hosts: [host1], podCIDRs: [10.244.0.0/16], nodeMasks: {IPv4: 20}}
""" + "".join(
    f"---\napiVersion: v1\nkind: Pod\nmetadata: {{name: web-{number + 1}}}\n"
    "spec: {containers: [{name: c, image: x}]}\n"
    for number in range(PODS)
)


@pytest.mark.slow
def test_not_one_arp_is_lost() -> None:
    """Each request is flooded to all others, and only the one that is meant answers."""
    with Lab(TOPOLOGY) as lab:
        target = lab.address("web-1")
        world, now = lab.plane.world, lab.clock.now
        pings = []
        for number in range(2, PODS + 1):
            edge = lab.pod(f"web-{number}")._edge
            record, frames = edge.endpoint.ping(target, now)
            pings.append(record)
            world.send(edge, frames, now)
        lab.clock.advance(1)
        assert [record for record in pings if record.rtt_ns is None] == []
        figures = lab.counters()
        assert figures["reasons"] == {}
        # A question, its answer, a ping, its echo, for each; a question goes to all ports but the one it came by.
        assert figures["received"] == 4 * (PODS - 1)
        assert figures["copied"] == (PODS - 1) * (PODS - 1)
        assert set(lab.plane.balance().values()) == {0}
