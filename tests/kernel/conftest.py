"""Fixtures of the kernel tests, and the skip, with its cure, where the machine does not allow them."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from emunet.linux.doctor import can_use_taps
from emunet.linux.keeper_client import Keeper

sys.path.insert(0, str(Path(__file__).parent))  # for the files that these tests share

from kernel_bench import Bench
from kubectls import kube_lab, kubectl
from lab_driver import Labs

__all__ = ["bench", "kube_lab", "kubectl"]


@functools.cache
def refusal() -> str | None:
    """Why this machine runs no lab on TAPs, with the cure; None where it does."""
    allowed, sentence = can_use_taps()
    return None if allowed else sentence


@pytest.fixture(autouse=True)
def _machine_allows_it() -> None:
    if (reason := refusal()) is not None:
        pytest.skip(reason)


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pytest's own is named after its test; the sockets of a lab in there would have names too long for Unix."""
    return tmp_path_factory.mktemp("t")


@pytest.fixture
def bench() -> Iterator[Bench]:
    """A keeper for one test, and what is made with it."""
    made = Bench(Keeper.start())
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def labs(tmp_path: Path) -> Iterator[Labs]:
    """Labs of one test's own, none of them up yet."""
    made = Labs(tmp_path / "run")
    made.folder.mkdir(mode=0o700)
    try:
        yield made
    finally:
        made.leave()
