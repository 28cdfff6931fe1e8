"""A lab of an ordinary user: the same code, without any power over the machine.

Run as root, the test becomes nobody in a mount namespace of its own where /dev/net/tun is
open to all, as most distributions have it; run as anybody else, it stays who it is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from lab_driver import ROOT
from ordinary_user import become_nobody, become_nobody_with_ids

SCRIPT = """
import os, sys
sys.path.insert(0, sys.argv[1])
from kernel_bench import Bench, pod_spec
from emunet.linux.doctor import can_use_taps
from emunet.linux.join import run_in_sandbox
from emunet.linux.keeper_client import Keeper
from emunet.linux.specification import ProbeSpec, ProgramSpec

assert os.geteuid() != 0, "this is about an ordinary user"
assert can_use_taps()[0], can_use_taps()[1]
bench = Bench(Keeper.start())
try:
    files = {"/etc/hosts": "127.0.0.1 mine\\n"}
    pods = [bench.pod(number, hostname=f"name-{number}", files=files) for number in (1, 2)]
    bench.connect(*pods)
    trips = bench.keeper.probe("pod1", ProbeSpec(("10.244.0.2", "fd00::2"), timeout=5))
    assert all(trip is not None for [trip] in trips), trips
    pid = bench.keeper.spawn("pod1", ProgramSpec(("sh", "-c", "test $(id -u) = 0 && grep mine /etc/hosts")))
    assert bench.keeper.wait_program(pid).code == 0
    assert run_in_sandbox(pods[1].pid, ["sh", "-c", "test $(hostname) = name-2 && ip route | grep default"]) == 0
    assert run_in_sandbox(pods[1].pid, ["sh", "-c", "exit 5"], start_time=pods[1].start_time) == 5
    refused = bench.keeper.spawn("pod1", ProgramSpec(("sh", "-c", "! touch /etc/emunet-was-here")))
    assert bench.keeper.wait_program(refused).code == 0
    isolated = bench.pod(3, root="isolated", files=files)
    script = "grep mine /etc/hosts && ! ls -A /home | grep . && echo new > /etc/new && ! umount /etc"
    pid = bench.keeper.spawn("pod3", ProgramSpec(("sh", "-c", script)))
    assert bench.keeper.wait_program(pid).code == 0
    assert run_in_sandbox(isolated.pid, ["test", "-e", "/etc/new"], view="isolated", cwd="/") == 0
    assert run_in_sandbox(isolated.pid, ["test", "-e", "/etc/new"], view="shared") == 1
finally:
    bench.close()
print("all of it worked as", os.getuid())
"""


RANGE_SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from kernel_bench import Bench
from emunet.linux.keeper_client import Keeper
from emunet.linux.specification import ProgramSpec

bench = Bench(Keeper.start())
try:
    bench.pod(1, root="isolated")
    for script in ("test $(wc -l < /proc/self/uid_map) = 2", "touch /tmp/a && chown 104:105 /tmp/a && "
                   "setpriv --reuid=104 --regid=105 --clear-groups sh -c 'test $(id -u) = 104 && echo x > /tmp/a'"):
        pid = bench.keeper.spawn("pod1", ProgramSpec(("sh", "-c", script)))
        assert bench.keeper.wait_program(pid).code == 0, script
finally:
    bench.close()
print("all of it worked")
"""


def test_an_ordinary_user_has_a_lab_too() -> None:
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent)]
    as_root = os.geteuid() == 0
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=become_nobody if as_root else None,
        )
    except subprocess.SubprocessError:
        pytest.skip("root may not mount or make device nodes here: run the tests as an ordinary user instead")
    assert done.returncode == 0, done.stderr
    assert "all of it worked" in done.stdout


def test_with_a_range_of_ids_pods_have_users() -> None:
    if os.geteuid() != 0 or shutil.which("newuidmap") is None or not Path("/etc/subuid").exists():
        pytest.skip("needs root, who gives somebody a range in /etc/subuid, and newuidmap: apt-get install uidmap")
    command = [sys.executable, "-c", RANGE_SCRIPT, str(Path(__file__).parent)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, preexec_fn=become_nobody_with_ids
    )
    assert done.returncode == 0, done.stderr
    assert "all of it worked" in done.stdout
