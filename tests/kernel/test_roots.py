"""What programs see of the machine's files, and that in an isolated root they can do nothing to them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel_bench import Bench, in_own_network

from emunet.linux import roots, syscalls
from emunet.linux.keeper_requests import WriteFiles
from emunet.linux.specification import ProgramSpec

ROOT = Path(__file__).parents[2]
FILES = {"/etc/hosts": "10.1.1.1 mine\n", "/etc/emunet/deep/file": "deep\n"}

JOIN = """
import sys
from emunet.linux.join import run_in_sandbox
sys.exit(run_in_sandbox(int(sys.argv[1]), sys.argv[3:], view=sys.argv[2]))
"""


class Pod:
    """A sandbox with a root of its own, and a way to run a line of shell in it."""

    def __init__(self, bench: Bench, **more: object) -> None:
        self.bench = bench
        self.sandbox = bench.pod(1, root="isolated", **more)

    def run(self, line: str, **fields: object) -> tuple[int, str]:
        """Exit code and all output."""
        program = ProgramSpec(("/bin/sh", "-c", line), {"PATH": os.environ["PATH"]}, **fields)  # type: ignore[arg-type]
        reader, writer = os.pipe()
        pid = self.bench.keeper.spawn("pod1", program, stdout=writer, stderr=writer)
        os.close(writer)
        with open(reader) as file:
            text = file.read()
        return self.bench.keeper.wait_program(pid).code, text

    def good(self, line: str, **fields: object) -> str:
        """Output of what must end well."""
        code, text = self.run(line, **fields)
        assert code == 0, text
        return text


@pytest.fixture
def pod(bench: Bench) -> Iterator[Pod]:
    """An isolated pod with files."""
    return Pod(bench, files=FILES)


def test_what_a_pod_destroys_is_its_own(pod: Pod) -> None:
    before = {path: sorted(os.listdir(path)) for path in ("/", "/etc", "/usr", "/var", "/opt")}
    hosts = Path("/etc/hosts").read_bytes()
    pod.run("rm -rf --no-preserve-root /etc /var /opt /tmp 2>/dev/null; echo gone > /etc-was-here; ls /etc")
    assert {path: sorted(os.listdir(path)) for path in before} == before
    assert Path("/etc/hosts").read_bytes() == hosts
    assert "ls: cannot" in pod.run("ls /etc/passwd")[1]


def test_its_folders_are_the_machines_and_can_be_written(pod: Pod) -> None:
    assert sorted(pod.good("ls -A /usr").split()) == sorted(os.listdir("/usr"))
    assert pod.good("echo new > /usr/emunet-test && cat /usr/emunet-test") == "new\n"
    assert not Path("/usr/emunet-test").exists()


def test_its_own_files_are_there(pod: Pod) -> None:
    assert pod.good("cat /etc/hosts /etc/emunet/deep/file") == "10.1.1.1 mine\ndeep\n"
    assert not Path("/etc/emunet").exists()


def test_homes_and_what_runs_are_out_of_reach(pod: Pod, tmp_path: Path) -> None:
    assert pod.good("ls -A /home /root /run /tmp /mnt").split() == ["/home:", "/mnt:", "/root:", "/run:", "/tmp:"]
    assert not pod.good(f"ls -d {tmp_path} 2>/dev/null || true")
    with socket.socket(socket.AF_UNIX) as listening:
        path = f"/var/tmp/emunet-test-{os.getpid()}"
        listening.bind(path)
        listening.listen()
        try:
            script = f"import socket; socket.socket(socket.AF_UNIX).connect({path!r})"
            reached = pod.run(f'test -S {path} && /usr/bin/python3 -c "{script}"')
        finally:
            os.unlink(path)
    assert reached[0] != 0, "a socket of the machine, seen through the overlay, leads nowhere"


def test_its_devices_are_few_and_work(pod: Pod) -> None:
    listed = set(pod.good("ls /dev").split())
    assert listed == {*roots._DEVICES, *roots._DEVICE_LINKS, "pts", "shm"}
    assert (
        pod.good("head -c 4 /dev/urandom | wc -c; echo x > /dev/null; echo y > /dev/shm/y; ls /dev/pts") == "4\nptmx\n"
    )
    code, words = pod.run("mknod /tmp/disk b 8 0")
    assert code != 0, "no device can be made"
    assert "Operation not permitted" in words


def test_its_size_has_an_end(bench: Bench) -> None:
    pod = Pod(bench, root_size=4 << 20)
    for place in ("/tmp/big", "/usr/big", "/dev/shm/big", "/big"):
        code, words = pod.run(f"head -c 8000000 /dev/zero > {place}; rm -f {place}; exit 0")
        assert "No space left" in words, (place, code)


def test_what_is_the_machines_cannot_be_changed(pod: Pod) -> None:
    for own_processes in (False, True):
        code, words = pod.run("echo x > /proc/sys/kernel/core_pattern", own_processes=own_processes)
        assert code != 0, words
        for line in (
            "mount -o remount,bind,rw /proc/sys",
            "umount /proc/sys",
            "umount /proc",
            "mount -t proc proc /proc",
            "mount -o remount,rw /sys",
        ):
            code, words = pod.run(line, own_processes=own_processes)
            assert code != 0, line
    assert pod.good("sysctl -w net.ipv4.ip_forward=1 && cat /proc/sys/net/ipv4/ip_forward").endswith("1\n")
    if os.geteuid() == 0:
        assert "Read-only file system" in pod.run("echo 1 > /proc/sys/vm/drop_caches")[1]


def test_the_pause_lends_nobody_its_power(pod: Pod) -> None:
    for line in ("ls /proc/1/root/", "readlink /proc/1/ns/mnt", "nsenter -t 1 -m true"):
        code, words = pod.run(line)
        assert code != 0, (line, words)
        assert "denied" in words or not words


def test_joined_from_outside_the_view_can_be_chosen(pod: Pod) -> None:
    def joined(view: str, line: str) -> str:
        command = [sys.executable, "-c", JOIN, str(pod.sandbox.pid), view, "sh", "-c", line]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout

    assert joined("shared", "cat /etc/hosts; hostname; ls -d " + str(ROOT)) == f"10.1.1.1 mine\npod1\n{ROOT}\n"
    assert joined("isolated", "cat /etc/emunet/deep/file; ls -A /root; hostname") == "deep\npod1\n"
    pod.good("echo inside > /var/emunet-test")
    assert joined("isolated", "cat /var/emunet-test") == "inside\n"
    assert joined("shared", "cat /var/emunet-test 2>&1 || true").endswith("No such file or directory\n")


def test_joining_a_container_lends_it_no_power(pod: Pod) -> None:
    container = pod.bench.keeper.spawn("pod1", ProgramSpec(("sleep", "8701.5"), own_processes=True))
    script = "grep CapBnd /proc/self/status; cat /proc/1/cmdline | tr '\\0' ' '; umount /proc 2>&1"
    code = JOIN.replace("view=sys.argv[2]", "view=None")
    command = [sys.executable, "-c", code, str(container), "-", "sh", "-c", script]
    seen = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    mask = int(seen.split()[1], 16)
    assert mask == sum(1 << number for number in roots.CONTAINER_CAPABILITIES)
    assert "sleep 8701.5" in seen
    assert "umount: /proc: must be superuser" in seen or "permission denied" in seen.lower()


def test_without_a_root_of_its_own_there_is_none_to_ask_for(bench: Bench) -> None:
    bench.pod(1)
    from emunet.linux.keeper_client import KeeperRefused

    with pytest.raises(KeeperRefused, match="only the shared view"):
        bench.keeper.spawn("pod1", ProgramSpec(("true",), view="isolated"))


def test_where_overlays_are_refused_folders_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    mount = syscalls.mount

    def refuse_overlays(source: str, target: str, kind: str | None, flags: int = 0, options: str | None = None) -> None:
        if kind == "overlay":
            raise OSError(1, "refused")
        mount(source, target, kind, flags, options)

    monkeypatch.setattr(syscalls, "mount", refuse_overlays)

    def work() -> None:
        roots.enter("isolated", 1 << 20, {})
        assert os.path.exists("/etc/passwd")
        assert os.listdir("/home") == []
        with pytest.raises(OSError, match="Read-only file system"):
            Path("/etc/emunet-test").touch()

    in_own_network(work)


def test_a_folder_with_something_mounted_below_is_shown_piece_by_piece() -> None:
    # As in a container, whose /etc/hosts is a mount that may not be uncovered. Two user namespaces: what the outer
    # one mounts, the inner one may not take away.
    def outer() -> None:
        syscalls.mount("tmpfs", "/mnt", "tmpfs")
        Path("/mnt/hosts").write_text("from the container engine\n")
        syscalls.bind("/mnt/hosts", "/etc/hosts")
        in_own_network(inner)

    def inner() -> None:
        passwd = Path("/etc/passwd").read_text()
        folders = {entry.name for entry in os.scandir("/etc") if entry.is_dir()}
        roots.enter("isolated", 16 << 20, {"/etc/hosts": "ours\n", "/etc/hostname": "pod\n"})
        assert Path("/etc/hosts").read_text() == "ours\n"
        assert Path("/etc/hostname").read_text() == "pod\n"
        assert Path("/etc/passwd").read_text() == passwd
        assert folders <= set(os.listdir("/etc"))
        Path("/etc/passwd").write_text("changed\n")
        Path("/etc/new").write_text("new\n")

    in_own_network(outer)


def test_links_of_the_machine_are_not_followed_out_of_the_root() -> None:
    def work() -> None:
        roots.enter("isolated", 1 << 20, {})
        os.symlink("/tmp/elsewhere", "/etc/link")
        roots._write_file("/etc/link", "text")
        assert not os.path.exists("/tmp/elsewhere")
        assert Path("/etc/link").read_text() == "text"

    in_own_network(work)


def test_this_process_and_its_threads_stay_where_they_were(bench: Bench) -> None:
    before, threads = Path("/proc/self/mountinfo").read_text(), set(threading.enumerate())
    Pod(bench)
    assert Path("/proc/self/mountinfo").read_text() == before
    assert set(threading.enumerate()) <= threads


def test_files_get_another_text_in_both_views_and_the_machines_own_do_not(pod: Pod) -> None:
    """The one that was laid over the machine's, the one that only the isolated root has; and then once more."""
    before = Path("/etc/hosts").read_bytes()
    for text in ("10.1.1.1 other\n", "a longer one: " + "x" * 5000 + "\n", ""):
        pod.bench.keeper.call(WriteFiles("pod1", {"/etc/hosts": text, "/etc/emunet/deep/file": text}))
        assert pod.good("cat /etc/hosts") == text
        assert pod.good("cat /etc/emunet/deep/file") == text
        assert pod.good("cat /etc/hosts", view="shared") == text
        assert pod.good("ls /etc/emunet 2>&1; true", view="shared").startswith("ls:"), "nothing is made on the machine"
    assert Path("/etc/hosts").read_bytes() == before


def test_a_file_that_could_not_be_laid_over_is_not_written_on_the_machine(bench: Bench) -> None:
    """In the shared view a path that the machine has no file at is left out; if it gets one later, it is its own."""
    with tempfile.NamedTemporaryFile("w", dir="/var/tmp") as file:
        path = Path(file.name)
        path.unlink()
        bench.pod(1, files={"/etc/hosts": "mine\n", str(path): "mine\n"})
        path.write_text("the machine's\n")
        bench.keeper.call(WriteFiles("pod1", {"/etc/hosts": "other\n", str(path): "other\n"}))
        assert path.read_text() == "the machine's\n"


def test_a_pod_cannot_lead_the_writer_out_of_its_root(pod: Pod, tmp_path: Path) -> None:
    outside = tmp_path / "file"
    outside.write_text("safe\n")
    pod.good(f"rm /etc/hosts && ln -s {outside} /etc/hosts")
    pod.bench.keeper.call(WriteFiles("pod1", {"/etc/hosts": "written\n"}))
    assert outside.read_text() == "safe\n"
    assert pod.good("cat /etc/hosts; test -L /etc/hosts || echo a file") == "written\na file\n"
