"""docs/testing.md, tried: every test in it runs as it stands there."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "testing.md").read_text(), re.DOTALL)


@pytest.mark.slow
def test_every_example_in_memory_runs(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    shutil.copy(ROOT / "topologies" / "two-hosts.yaml", pytester.path / "two.yaml")
    pytester.makeini("[pytest]\nemunet_topology = two.yaml\naddopts = --strict-markers\n")
    tried = [block for block in BLOCKS if "ourserver" not in block and "that-bug" not in block]
    assert len(tried) == len(BLOCKS) - 2 == 3
    pytester.makepyfile(**{f"test_{number}": block for number, block in enumerate(tried)})
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=4)
