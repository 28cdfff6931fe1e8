"""The short form of `make soak`: traffic while pods come and go, and the lab stays as large as it was."""

from __future__ import annotations

from lab_driver import Labs
from soak import KB_A_POD, NAMES, RATE, soak

SECONDS = 25.0


def test_pods_come_and_go_under_traffic(labs: Labs) -> None:
    found = soak(labs, SECONDS)
    print(f"\n{found}")
    assert found.pods > SECONDS * RATE * 0.5
    assert found.pings > SECONDS
    assert found.unanswered == 0
    assert set(found.imbalance) == {0}
    for name in NAMES:
        # Connections of the moment, and what is just being closed, are few; a descriptor lost a pod would be many.
        assert abs(found.descriptors[name][-1] - found.descriptors[name][0]) < found.pods / 4, found
        assert found.growth(name) < KB_A_POD * found.pods, "histories fill up; an hour tells more"
