"""How long a newcomer waits: from a fresh clone to the first packet that is explained across hosts.

    python tests/kernel/first_path.py

Clones this repository into a folder of its own and does there what the README says: `make
topology`, which makes the environment, starts a lab, pings all pairs and explains one ping.
The package cache is as warm as this machine's is. Prints the seconds of each step.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def main() -> int:
    """The exit code: 1 where the path does not lead there."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where it is ignored, make cannot wait for anything
    with tempfile.TemporaryDirectory(prefix="emunet-first-") as folder:
        clone = Path(folder) / "emunet"
        environment = {**os.environ, "EMUNET_RUNTIME_DIR": f"{folder}/labs", "NO_COLOR": "1"}
        began = time.monotonic()
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        cloned = time.monotonic()
        topology = subprocess.Popen(
            ["make", "topology"],
            cwd=clone,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        explained = None
        assert topology.stdout is not None
        try:
            for line in topology.stdout:
                if line.startswith("delivered: reaches web-3"):
                    explained = time.monotonic()
            topology.wait()
        finally:  # before its folder goes: nobody finds a lab whose folder is gone
            topology.kill()
            topology.wait()
            subprocess.run(["make", "down"], cwd=clone, env=environment, check=True, capture_output=True)
        if explained is None:
            print("no packet was explained", file=sys.stderr)
            return 1
        print(f"clone {cloned - began:.1f} s; first explained packet across hosts after {explained - began:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
