"""CI fails on a test that it should have run and did not (.ci/skipped.py), seen on pytest's own reports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("test", "complaints"),
    [
        ("def test_it(): pass", 0),
        ("@pytest.mark.skip(reason='only on a Tuesday')\ndef test_it(): pass", 0),
        ("@pytest.mark.xfail(reason='tshark is wrong')\ndef test_it(): assert False", 0),
        ("@pytest.mark.skip(reason='tshark is missing: apt-get install tshark')\ndef test_it(): pass", 1),
        ("pytest.skip('no docker here', allow_module_level=True)", 1),
        ("def test_it(record_property):\n    record_property('kernel', 'yes')\n    pytest.skip('no TAPs')", 1),
    ],
)
def test_a_skip_that_ci_must_not_pass_over(tmp_path: Path, test: str, complaints: int) -> None:
    (tmp_path / "test_one.py").write_text(f"import pytest\n{test}\n")
    report = tmp_path / "report.xml"
    pytest_run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}"]
    subprocess.run([*pytest_run, f"--junitxml={report}", str(tmp_path)], capture_output=True, cwd=tmp_path, check=False)
    judged = subprocess.run(
        [sys.executable, ROOT / ".ci" / "skipped.py", report], capture_output=True, text=True, check=False
    )
    assert judged.returncode == (1 if complaints else 0)
    assert len(judged.stderr.splitlines()) == complaints
