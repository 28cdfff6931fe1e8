"""Known results, reproduced in virtual time: an M/D/1 queue waits as the Pollaczek-Khinchine formula says."""

from __future__ import annotations

from pathlib import Path

import pytest

from emunet.cluster.scenario import read_scenario
from emunet.lab.scenario import play
from emunet.packet.quantity import parse_rate

ROOT = Path(__file__).parents[2]
SECOND = 1_000_000_000
FRAME_BITS = (14 + 20 + 8 + 100 + 24) * 8
"""Ethernet, IP, UDP, data; preamble, checksum and gap."""
ARRIVALS = 100
SETTLING = 10 * SECOND


@pytest.mark.slow
def test_waiting_time_against_load() -> None:
    """The mean wait at loads of 20, 40, 60 and 80 %, each within 5 % of the formula."""
    scenario = read_scenario(ROOT / "scenarios" / "queue.yaml")
    [flow] = play(scenario).flows
    assert flow["lost"] == 0
    steps = [(event.at, parse_rate(event.arguments["set"]["rate"])) for event in scenario.events]
    ends = [at for at, _ in steps[1:]] + [scenario.duration]
    loads = []
    for (begin, rate), end in zip(steps, ends, strict=True):
        rows = [one for one in flow["series"] if begin + SETTLING <= one["at_ns"] < end - flow["bucket_ns"]]
        served = sum(one["received"] for one in rows)
        took = sum(one["mean_ns"] * one["received"] for one in rows) / served / SECOND
        service = FRAME_BITS / rate
        load = ARRIVALS * service
        expected = load * service / (2 * (1 - load))
        waited = took - service
        print(f"load {load:.0%}: waited {waited * 1000:.3f} ms, by the formula {expected * 1000:.3f} ms")
        assert abs(waited / expected - 1) < 0.05
        loads.append(round(load, 3))
    assert loads == [0.2, 0.4, 0.6, 0.8]
