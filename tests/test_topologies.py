"""Every shipped topology says what it shows, loads, compiles, and all its pods answer each other on memory wires."""

from __future__ import annotations

from pathlib import Path

import pytest

from emunet.cluster.desired import PodLinks
from emunet.lab.lab import Lab

FILES = sorted((Path(__file__).parent.parent / "topologies").rglob("*.yaml"))


def test_there_are_topologies() -> None:
    """The four that the README promises, at least."""
    names = {path.stem for path in FILES}
    assert {"one-host", "two-hosts", "three-hosts-routed", "leaf-spine"} <= names


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_opens_with_what_it_shows(path: Path) -> None:
    """The first lines are a comment: what it shows, what to try, what you should see."""
    opening = path.read_text().split("apiVersion")[0].lower()
    assert opening.startswith("#")
    for word in ("try", "see", "emunet"):
        assert word in opening, f"{path.name} does not say what to {word}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_all_pairs_answer(path: Path) -> None:
    """Echo between all pods, in each family they have: the TTL tells the routers on the way; the law holds."""
    with Lab(path) as lab:
        on_one_host = 64 if lab.desired.cluster.pod_links is PodLinks.BRIDGE else 63
        hosts = {pod.port: pod.host for pod in lab.pods}
        families = {16 if ":" in address else 4 for pod in lab.pods for address in pod.ips}
        for family in sorted(families):
            for pong in lab.ping_all(family):
                assert pong, pong
                assert pong.ttl == (on_one_host if hosts[pong.source] == hosts[pong.destination] else 62), pong
        assert lab.counters()["dropped"] == 0
        assert set(lab.plane.balance().values()) == {0}
