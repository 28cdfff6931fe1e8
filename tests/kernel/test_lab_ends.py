"""However a lab ends, nothing of it is left that matters: asked to, killed, or never finished.

The moments at which processes are killed are random and seeded: EMUNET_KILL_SEED repeats others.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from lab_driver import TWO_HOSTS, Labs, eventually, machine
from ordinary_user import WHO, labs_of

MOMENTS = 20
VICTIMS = ("up", "emunet-control", "emunet-plane", "emunet-keeper")
SEED = int(os.environ.get("EMUNET_KILL_SEED", "1"))


def victims_on(wires: str) -> tuple[str, ...]:
    """Whom to kill: memory wires need no keeper."""
    return tuple(victim for victim in VICTIMS if wires == "tap" or victim != "emunet-keeper")


def kill(pid: int | None) -> bool:
    if pid is None:
        return False
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def end_of(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out + err


@pytest.mark.parametrize("wires", ["tap", "memory"])
def test_down_returns_the_machine_as_it_was(labs: Labs, wires: str) -> None:
    before = machine()
    labs.ok("up", str(TWO_HOSTS), "--wires", wires)
    labs.ok("ping", "web-1", "web-3")
    labs.ok("down")
    assert labs.processes() == {}
    assert list(labs.folder.iterdir()) == []
    assert machine() == before


@pytest.mark.parametrize(
    ("victim", "wires"),
    [(victim, wires) for wires in ("tap", "memory") for victim in victims_on(wires) if victim != "up"],
)
def test_a_lab_ends_with_any_of_its_processes(labs: Labs, victim: str, wires: str) -> None:
    labs.ok("up", str(TWO_HOSTS), "--wires", wires)
    status = labs.status()
    if wires == "tap":
        # A program that has left its session and its parent ends too.
        labs.ok("exec", "web-1", "--", "sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 </dev/null &")
    assert kill(status["pid"] if victim == "emunet-control" else labs.pid_of(victim))
    labs.wait_until_gone()
    if victim == "emunet-control":
        assert labs.json("labs")[0]["state"] == "killed"
    else:
        [row] = labs.json("labs")
        assert row["state"] == "ended"
        done = labs.run("status", "--lab", "two-hosts")
        assert done.returncode == 1
        assert "has ended by itself, and so the lab had to end" in done.stderr
    assert labs.run("ping").stderr == "emunet: no lab is running: `emunet up` starts one\n"
    labs.ok("up", str(TWO_HOSTS), "--wires", wires)
    labs.ok("ping", "web-1", "web-3")
    labs.ok("down")
    assert list(labs.folder.iterdir()) == []


def test_a_pod_that_is_killed_is_not_ready_and_the_rest_lives(labs: Labs) -> None:
    labs.ok("up", str(TWO_HOSTS))
    [pause] = [
        pid for pid in labs.processes() if b"emunet-pause default/web-1\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    assert kill(pause)
    eventually(lambda: not labs.status()["pods"][0]["ready"], "the pod is still ready")
    assert [pod["ready"] for pod in labs.status()["pods"]] == [False, True, True, True]
    labs.ok("ping", "web-2", "web-3")
    assert "web-1 has ended" in labs.run("exec", "web-1", "--", "true").stderr
    done = labs.run("ping")
    assert done.returncode == 1
    assert "6 without an answer" in done.stdout
    assert "web-1 has ended, since its first process was killed" in done.stdout
    trace = labs.json("trace", "web-2", 'IP(dst="web-1")/ICMP()')
    assert (trace["verdict"], trace["reason"]) in (("dropped", "NEIGHBOR_UNREACHABLE"), ("dropped", "NO_CARRIER"))
    labs.ok("down")


@pytest.mark.parametrize("victim", ["emunet-plane", "emunet-control"])
def test_a_process_that_is_stuck_ends_with_the_lab(labs: Labs, victim: str) -> None:
    """A plane that does not move, whether it is asked to end or its control process is killed."""
    labs.ok("up", str(TWO_HOSTS))
    plane, control = labs.pid_of("emunet-plane"), labs.status()["pid"]
    assert plane is not None
    os.kill(plane, signal.SIGSTOP)
    if victim == "emunet-plane":
        labs.ok("down")
        assert labs.processes() == {}
    else:
        kill(control)
        os.kill(plane, signal.SIGCONT)
        labs.wait_until_gone()


@pytest.mark.slow
@pytest.mark.parametrize("wires", ["tap", "memory"])
def test_kill_9_at_any_moment_then_up_works(labs: Labs, wires: str) -> None:
    before = machine()
    chance = random.Random(f"{SEED} {wires}")
    moments = MOMENTS if wires == "tap" else MOMENTS // 4
    victims = victims_on(wires)
    survived = 0
    for moment in range(moments):
        victim = victims[moment % len(victims)]
        wait = chance.uniform(0.0, 1.2)
        up = labs.start("up", str(TWO_HOSTS), "--wires", wires)
        time.sleep(wait)
        told = f"moment {moment} of seed {SEED}: {victim} killed after {wait:.3f} s"
        kill(up.pid if victim == "up" else labs.pid_of(victim))
        code, said = end_of(up)
        assert "Traceback" not in said, f"{told}: {said}"
        assert "is running already" not in said, f"{told}: {said}"
        if code == 0:
            survived += 1
            # It was ready: then the victim was killed just before or after that, or was not there yet.
            kill(labs.pid_of(victim if victim != "up" else "emunet-control"))
        elif labs.pid_of("emunet-control") is not None:
            # `up` was killed when all but its last word had been said: then the lab is ready, or about to end.
            labs.run("down", "--all")
    assert survived < moments, "no process was ever killed in time"
    labs.ok("up", str(TWO_HOSTS), "--wires", wires)
    labs.ok("ping")
    labs.ok("down")
    labs.wait_until_gone()
    assert list(labs.folder.iterdir()) == []
    assert machine() == before


@pytest.mark.parametrize("wires", ["tap", "memory"])
def test_ctrl_c_ends_a_half_built_lab(labs: Labs, wires: str) -> None:
    up = labs.start("up", str(TWO_HOSTS), "--wires", wires)
    eventually(lambda: labs.pid_of("emunet-control") is not None, "there is no control process")
    up.send_signal(signal.SIGINT)
    code, said = end_of(up)
    assert code == 130, said
    assert labs.processes() == {}, "up returned before all it made was gone"
    assert not labs.folder.exists() or list(labs.folder.iterdir()) == []


def test_two_up_of_one_lab_meet(labs: Labs) -> None:
    first = labs.start("up", str(TWO_HOSTS))
    second = labs.start("up", str(TWO_HOSTS))
    ends = sorted([end_of(first), end_of(second)])
    assert [code for code, _ in ends] == [0, 1], ends
    assert "the lab two-hosts is running already" in ends[1][1]
    labs.ok("ping", "web-1", "web-3")


def test_two_labs_live_side_by_side(labs: Labs) -> None:
    for name in ("a", "b"):
        labs.ok("up", str(TWO_HOSTS), "--lab", name)
    assert [row["lab"] for row in labs.json("labs")] == ["a", "b"]
    done = labs.run("ping")
    assert done.returncode == 1
    assert done.stderr == "emunet: 2 labs are running (a, b): say which one with --lab NAME\n"
    for name in ("a", "b"):
        labs.ok("ping", "web-1", "web-3", "--lab", name)
    labs.ok("down", "--lab", "a")
    labs.ok("ping", "web-1", "web-3")
    labs.ok("down", "--all")
    assert labs.json("labs") == []


@pytest.mark.slow
def test_down_ends_a_lab_that_does_not_answer(labs: Labs) -> None:
    labs.ok("up", str(TWO_HOSTS))
    os.kill(labs.status()["pid"], signal.SIGSTOP)
    began = time.monotonic()
    labs.ok("down", timeout=60)
    assert time.monotonic() - began < 30
    labs.wait_until_gone()
    assert list(labs.folder.iterdir()) == []


def test_down_without_a_lab(labs: Labs) -> None:
    assert labs.run("down").stderr == "emunet: no lab is running: `emunet up` starts one\n"
    assert labs.ok("down", "--all") == "no lab is running\n"
    done = labs.run("down", "--lab", "nope")
    assert done.returncode == 1
    assert done.stderr == "emunet: there is no lab nope: `emunet labs` lists those there are\n"


def test_sigterm_ends_a_lab_in_order(labs: Labs) -> None:
    labs.ok("up", str(TWO_HOSTS))
    os.kill(labs.status()["pid"], signal.SIGTERM)
    labs.wait_until_gone()
    assert list(labs.folder.iterdir()) == []


def networks_of(labs: Labs) -> set[str]:
    """The network namespaces of all labs' processes, but that of the machine."""
    found = set()
    for pid in labs.processes():
        with suppress(OSError):  # it has ended
            found.add(os.readlink(f"/proc/{pid}/ns/net"))
    return found - {os.readlink("/proc/self/ns/net")}


@pytest.mark.parametrize("who", WHO)
def test_a_lab_whose_run_folder_was_removed_ends(who: str) -> None:
    """No command would find it any more: so it ends by itself, and harms nothing that has its name by now."""
    with labs_of(who) as labs:
        for name, wires in (("real", "tap"), ("model", "memory"), ("deaf", "memory")):
            labs.ok("up", str(TWO_HOSTS), "--lab", name, "--wires", wires)
        assert len(networks_of(labs)) >= 6
        old = labs.status("model")["pid"]
        shutil.rmtree(labs.folder / "real")
        shutil.rmtree(labs.folder / "model")
        labs.ok("up", str(TWO_HOSTS), "--lab", "model", "--wires", "memory")
        (labs.folder / "deaf" / "api.sock").unlink()
        new = labs.status("model")["pid"]
        assert new != old
        controls = [pid for pid, name in labs.processes().items() if name == "emunet-control"]
        assert new in controls

        def left() -> list[int]:
            return [pid for pid, name in labs.processes().items() if name == "emunet-control" and pid != new]

        eventually(lambda: not left(), lambda: f"control processes that remain: {left()}")
        eventually(lambda: networks_of(labs) == set(), "networks of pods remain")
        assert [(row["lab"], row["state"]) for row in labs.json("labs")] == [("deaf", "ended"), ("model", "running")]
        told = labs.run("status", "--lab", "deaf").stderr
        assert "api.sock was removed, so that no command would find the lab: it has ended" in told
        assert labs.run("ping", "web-1", "web-3", "--lab", "model").returncode == 0
        labs.ok("down", "--all")
        assert list(labs.folder.iterdir()) == []


def big_topology(pods: int) -> str:
    head = "apiVersion: emunet/v1\nkind: Topology\nmetadata: {name: big}\nspec: {hosts: [host1, host2, host3, host4]}\n"
    pod = (
        "---\napiVersion: v1\nkind: Pod\nmetadata: {name: web-NUMBER}\nspec: {containers: [{name: web, image: any}]}\n"
    )
    return head + "".join(pod.replace("NUMBER", str(number + 1)) for number in range(pods))


def crowding() -> float:
    """How many times longer than alone work takes here just now: 1 on a machine that does nothing else."""
    work = "import time; b, c = time.perf_counter(), time.process_time()\nwhile time.process_time() < c + 0.1: pass\n"
    work += "print((time.perf_counter() - b) / (time.process_time() - c))"
    workers = [
        subprocess.Popen([sys.executable, "-c", work], stdout=subprocess.PIPE, text=True)
        for _ in range(os.cpu_count() or 1)
    ]
    return max(1.0, *(float(worker.communicate()[0]) for worker in workers))


@pytest.mark.slow
def test_200_pods_are_up_in_5_seconds_and_down_in_2(labs: Labs, tmp_path: Path) -> None:
    topology = tmp_path / "big.yaml"
    topology.write_text(big_topology(200))
    figures = []
    for _ in range(3):
        share = crowding()  # others may be at work on this machine, the other worker of these tests among them
        began = time.monotonic()
        labs.ok("up", str(topology), "--wires", "tap")
        up = time.monotonic() - began
        status = labs.status("big")
        assert len(status["pods"]) == 200
        assert all(pod["ready"] for pod in status["pods"])
        assert {sum(pod["host"] == f"host{n}" for pod in status["pods"]) for n in range(1, 5)} == {50}
        began = time.monotonic()
        labs.ok("down")
        down = time.monotonic() - began
        assert labs.processes() == {}
        if up < 5 * share and down < 2 * share:
            return
        figures.append(f"up {up:.1f} s, down {down:.1f} s on a machine that is {share:.1f} times as slow as alone")
    pytest.fail("; ".join(figures))
