"""Where something is missing: one clear sentence and nothing half-built; and labs that live beside each other."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_driver import TWO_HOSTS, Labs
from ordinary_user import NOBODY, WHO, UsersLabs, become_nobody, labs_of, private_mounts

from emunet.linux import limits
from emunet.linux.limits import Need
from emunet.linux.refusals import LinuxRefused

USER = pytest.mark.parametrize("labs", ["user"], indirect=True)
"""Of a test that costs much and asks nothing that depends on who asks."""


@pytest.fixture(params=WHO)
def labs(request: pytest.FixtureRequest) -> Iterator[Labs]:
    """Labs of this test's own, of root and of an ordinary user."""
    with labs_of(request.param) as made:
        yield made


def within(
    labs: Labs, script: str, *arguments: str, command: list[str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run emunet (or another command) in a mount namespace of its own that a line of shell has prepared.

    $RUN is the run folder, $OWNER an option of a mount that is to be its owner's.
    """
    if os.geteuid() != 0:
        pytest.skip("only root can mount a full or read-only disk for this: run this test as root")
    as_user = isinstance(labs, UsersLabs)

    def prepare() -> None:
        private_mounts()
        owner = f"uid={NOBODY},gid={NOBODY}" if as_user else "uid=0"
        if os.system(f"RUN={labs.folder}; OWNER={owner}; {script}"):
            raise OSError(script)
        if as_user:
            become_nobody()

    return labs.run(*arguments, preexec_fn=prepare, command=command)


def refused(labs: Labs, done: subprocess.CompletedProcess[str], sentence: str) -> None:
    """It failed in one line, and nothing is left of it."""
    assert done.returncode == 1, done.stdout + done.stderr
    complaints = [line for line in done.stderr.splitlines() if not line.startswith("making ")]
    assert len(complaints) == 1, done.stderr
    assert re.search(sentence, complaints[0]), complaints[0]
    assert labs.processes() == {}
    assert list(labs.folder.iterdir()) == []


def test_a_disk_that_takes_no_file(labs: Labs) -> None:
    full = "mount -t tmpfs -o nr_inodes=2,mode=700,$OWNER none $RUN && touch $RUN/last"
    refused(labs, within(labs, full, "up", str(TWO_HOSTS)), "cannot make .* for the sockets of labs: No space left")


def test_a_folder_that_can_only_be_read(labs: Labs) -> None:
    only_read = "mount -t tmpfs -o ro,mode=700,$OWNER none $RUN"
    refused(labs, within(labs, only_read, "up", str(TWO_HOSTS)), "cannot make .*: Read-only file system")


def test_a_full_disk_takes_no_byte_and_the_lab_lives_all_the_same(labs: Labs) -> None:
    """Sockets need no bytes; what cannot be logged is not, and `down` leaves nothing."""
    script = "mount -t tmpfs -o size=64k,mode=700,$OWNER none $RUN; head -c 99999 /dev/zero > $RUN/fill 2>/dev/null; :"
    lines = f"{{emunet}} up {TWO_HOSTS} && {{emunet}} ping && {{emunet}} down"
    command = ["sh", "-c", lines.format(emunet=" ".join(labs.command()))]
    done = within(labs, script, command=command)
    assert done.returncode == 0, done.stderr
    assert "two-hosts is down" in done.stdout
    labs.wait_until_gone()  # `down` did not know its process: there was no room for the number


@USER
def test_a_capture_onto_a_full_disk_is_told_and_harms_nobody(labs: Labs, tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this machine has no /dev/full")
    labs.ok("up", str(TWO_HOSTS), "--wires", "memory")
    done = labs.run("capture", "web-1", "-w", "/dev/full", "--seconds", "1")
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    labs.ok("ping", "web-1", "web-2")


def limited(labs: Labs, limit: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run emunet with less of something than there is."""
    return labs.run(command=["prlimit", limit, *labs.command(*arguments)])


def test_too_few_descriptors(labs: Labs) -> None:
    done = limited(labs, "--nofile=60:60", "up", str(TWO_HOSTS), "--wires", "tap")
    refused(labs, done, r"6 pods and hosts are too many here: they need 120 open files .* this user may have 60")
    assert "prlimit --nofile=120" in done.stderr


@USER
def test_too_few_descriptors_are_a_reason_for_memory_wires(labs: Labs) -> None:
    done = limited(labs, "--nofile=60:60", "up", str(TWO_HOSTS))
    assert done.returncode == 0, done.stderr
    assert "Memory wires, because: 6 pods and hosts are too many here" in done.stdout
    labs.ok("ping")


def test_too_few_processes() -> None:
    """Root has no such limit, but for that of its control group."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user, whose processes are counted from nothing: run this as root")
    with labs_of("user") as labs:
        done = limited(labs, "--nproc=30:30", "up", str(TWO_HOSTS), "--wires", "tap")
        refused(labs, done, r"they need 106 processes \(one for each, 100 besides\), and this user may have 30")


def test_a_control_group_that_lets_too_few_tasks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root's limit too: that of a container or of a service."""
    (tmp_path / "pids.max").write_text("300\n")
    (tmp_path / "pids.current").write_text("250\n")
    monkeypatch.setattr(limits, "_groups", lambda: [tmp_path])
    with pytest.raises(LinuxRefused, match="lets 300 tasks run, of which are left 50") as told:
        limits.check(6, 10)
    assert f"pids.max in {tmp_path}" in told.value.cure
    (tmp_path / "pids.max").write_text("max\n")
    limits.check(6, 10)


@pytest.mark.parametrize(
    "need",
    [Need(11, "eleven", 10, "ten there are", "Make one more."), Need(10**12, "a lot", 0, "nothing is left", "Wait.")],
)
def test_whatever_is_too_little_is_said_with_its_cure(need: Need, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "needs", lambda *_: [Need(1, "one", 1, "one there is", "-"), need])
    with pytest.raises(LinuxRefused) as told:
        limits.check(1000, 1020)
    assert str(told.value) == (
        f"1,000 pods and hosts are too many here: they need {need.counted}, and {need.limited}. {need.cure}"
        " Or use --wires memory, which needs nothing of Linux."
    )


def test_what_is_counted_grows_with_the_lab() -> None:
    small, large = list(limits.needs(6, 10)), list(limits.needs(1010, 1030))
    assert [need.limited.split()[0] for need in small][:4] == [need.limited.split()[0] for need in large][:4]
    assert all(less.needed < more.needed for less, more in zip(small, large, strict=True))
    assert any("2,160 open files" in need.counted for need in large)
    assert any("1.1 GB of memory" in need.counted for need in large)


def test_a_lab_too_large_for_the_kernels_neighbours_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "read_setting", lambda name: "1024" if "ipv4" in name else "4096")
    assert limits.crowding(512) == ""
    assert "keeps 1,024 neighbours" in limits.crowding(513)
    assert "many of 513 talk within seconds" in limits.crowding(513)
    monkeypatch.setattr(limits, "read_setting", lambda name: None)
    assert limits.crowding(100_000) == "", "it cannot be seen from here"


# Beside each other


def test_labs_of_different_users_with_one_name_do_not_meet() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user: run this test as root")
    with labs_of("root") as labs, labs_of("user") as others:
        labs.ok("up", str(TWO_HOSTS), "--wires", "tap")
        others.ok("up", str(TWO_HOSTS), "--wires", "tap")
        before = [one.status()["frames"]["received"] for one in (labs, others)]
        labs.ok("ping")
        assert labs.status()["frames"]["received"] > before[0]
        assert others.status()["frames"]["received"] == before[1], "no frame of one is seen by the other"
        assert others.json("labs")[0]["lab"] == "two-hosts"
        assert len(others.json("labs")) == 1
        # One user may not even look at the other's; and what one kills is its own.
        peek = ["python3", "-c", f"import os; os.listdir({str(labs.folder)!r})"]
        assert subprocess.run(peek, preexec_fn=become_nobody, capture_output=True, check=False).returncode != 0
        for victim in ("emunet-plane", "emunet-keeper", "emunet-control"):
            pid = labs.pid_of(victim)
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            labs.wait_until_gone()
            others.ok("ping")
            labs.ok("up", str(TWO_HOSTS), "--wires", "tap")
        labs.ok("ping")


def test_a_control_process_that_stalls_does_not_stop_frames(labs: Labs) -> None:
    """Five seconds without it: not one ping is lost."""
    labs.ok("up", str(TWO_HOSTS), "--wires", "tap")
    control = labs.status()["pid"]
    pinging = labs.start("exec", "web-1", "--", "ping", "-n", "-i", "0.1", "-c", "60", "10.244.2.2")
    assert pinging.stdout is not None
    pinging.stdout.readline()
    assert "icmp_seq=1" in pinging.stdout.readline(), "it has begun"
    os.kill(control, signal.SIGSTOP)
    try:
        time.sleep(5)  # the stall itself
    finally:
        os.kill(control, signal.SIGCONT)
    assert "60 received, 0% packet loss" in pinging.communicate(timeout=20)[0]
    labs.ok("ping")
