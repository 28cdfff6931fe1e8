"""Run tests as an ordinary user, where one is root: the same files, and whoever else's power they need is skipped.

    python tests/kernel/as_user.py tests/kernel/test_forward.py …       files, and whatever pytest takes

Without files, those that tell what pods and the machine may do to each other.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from lab_driver import ROOT
from ordinary_user import NOBODY, become_nobody

FILES = (
    "forward", "responder", "roots", "join", "keeper", "lab_two_hosts", "lab_input", "adversity", "isolation", "doctor",
    "ordinary_user", "tap", "within", "silence",
)  # fmt: skip


def main() -> int:
    """Run pytest as nobody; its code."""
    asked = sys.argv[1:] or [f"tests/kernel/test_{name}.py" for name in FILES]
    as_root = os.geteuid() == 0
    with tempfile.TemporaryDirectory(prefix="t-") as folder:
        if as_root:
            os.chown(folder, NOBODY, NOBODY)
        elsewhere = {"HOME": folder, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(ROOT)}
        environment = {name: value for name, value in os.environ.items() if name != "XDG_RUNTIME_DIR"} | elsewhere
        command = [sys.executable, "-m", "pytest", "-n0", "-q", "-rs", "-p", "no:cacheprovider"]
        return subprocess.run(
            [*command, f"--basetemp={Path(folder) / 'p'}", *asked], cwd=ROOT, env=environment, check=False,
            preexec_fn=become_nobody if as_root else None,
        ).returncode  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
