"""A known result: the kernel's TCP Reno over our links gets what Mathis et al. predict, at nine points."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from lab_driver import Labs, balance
from reno_figures import TOPOLOGY, measure

SECONDS = 60


@pytest.mark.slow
def test_throughput_against_loss_and_delay(tmp_path: Path) -> None:
    """Each within 25 %; round trips of 20, 40 and 80 ms, losses of 0.5, 1 and 2 %."""
    if shutil.which("iperf3") is None:
        pytest.skip("iperf3 is not installed")
    labs = Labs(tmp_path)
    try:
        labs.ok("up", str(TOPOLOGY), "--wires", "tap")
        rows = measure(labs, SECONDS)
        for row in rows:
            print(row)
        assert len(rows) == 9
        assert all(0.75 < row["ratio"] < 1.25 for row in rows), rows
        assert balance(labs.json("status")["frames"]) == 0
    finally:
        labs.leave()
