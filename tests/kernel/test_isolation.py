"""What a container may try, and what becomes of it: as root, and as an ordinary user.

Each test runs its container from a manifest, in a lab of its own, and looks at the machine before and after.
"""

from __future__ import annotations

import json
import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_driver import Labs, eventually
from ordinary_user import WHO, UsersLabs, labs_of

from emunet.daemon.unix_http import UnixConnection

TOPOLOGY = """apiVersion: emunet/v1
kind: Topology
metadata: {name: cage}
spec: {hosts: [host1]}
---
apiVersion: v1
kind: Pod
metadata: {name: quiet}
spec: {containers: [{name: c, image: x}]}
"""
SYSTEM = ("/etc", "/usr", "/home", "/var")
DEPTH = 5
CHANGES = ("/var/tmp", "/var/log", "/var/cache", "/var/lib")
"""Where the machine itself, and whoever else works on it, changes things at any time."""


@pytest.fixture(params=WHO)
def labs(request: pytest.FixtureRequest) -> Iterator[Labs]:
    """Labs of root and of an ordinary user."""
    with labs_of(request.param) as made:
        (made.folder.parent / "lab.yaml").write_text(TOPOLOGY)
        made.ok("up", str(made.folder.parent / "lab.yaml"), "--wires", "tap")
        yield made
        made.ok("down")


def run_container(labs: Labs, name: str, command: list[str], seconds: float = 60) -> str:
    """What a container says that runs once, of a pod of its own."""
    spec = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x", "command": command}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    file = labs.folder.parent / f"{name}.json"
    file.write_text(json.dumps(pod))
    labs.ok("apply", "-f", str(file))
    path = f"/kube/api/v1/namespaces/default/pods/{name}"

    def phase() -> str:
        told: str = json.loads(ask(labs, path))["status"].get("phase", "")
        return told

    eventually(lambda: phase() in ("Succeeded", "Failed"), lambda: f"{name} is {phase()}: {ask(labs, path + '/log')}")
    return ask(labs, f"{path}/log")


def ask(labs: Labs, path: str) -> str:
    """The lab's own API."""
    connection = UnixConnection(labs.folder / "cage" / "api.sock", 30)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def seen() -> dict[str, tuple[int, int, int]]:
    """The files of the machine's system folders, as deep as `rm` would begin, with mode, size and inode."""
    found = {}
    for top in SYSTEM:
        for folder, below, names in os.walk(top):
            if folder.count("/") >= DEPTH:
                below.clear()
            for path in (folder, *(f"{folder}/{name}" for name in names)):
                try:
                    status = os.lstat(path)
                except OSError:  # somebody else's, and gone meanwhile
                    continue
                found[path] = (status.st_mode, status.st_size if path != folder else 0, status.st_ino)
    return found


def test_rm_rf_destroys_nothing_but_the_containers_own(labs: Labs) -> None:
    mark = labs.folder.parent / "lab.yaml"  # of this machine: where it can be seen, nothing is removed
    guard = f'[ "$(cat /etc/hostname)" = destroyer ] && [ ! -e {mark} ] || exit 9'
    script = f"{guard}; rm -rf --no-preserve-root /etc /usr /home /var; echo left: /etc/* /usr/* /home/* /var/*; exit 0"
    before = seen()
    said = run_container(labs, "destroyer", ["/bin/sh", "-c", script])
    after = seen()
    left = next(line for line in said.splitlines() if line.startswith("left: "))
    gone = {path: what for path, what in before.items() if after.get(path) != what and not path.startswith(CHANGES)}
    assert gone == {}
    assert len(before) > 1000
    assert "/home/*" in left
    # To a container of root's these files are its own copies; to a user's they are somebody else's even there.
    assert ("/usr/*" in left) is (os.geteuid() == 0 and not isinstance(labs, UsersLabs))
    assert labs.ok("exec", "quiet", "--isolated", "--", "ls", "/usr/bin/env") == "/usr/bin/env\n", "nor its neighbour's"


ATTEMPTS = r"""
import ctypes, json, os, signal, socket, subprocess, sys
facts = json.loads(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
found = {}

def attempt(name, act):
    try:
        found[name] = f"DID IT: {act()!r}"
    except BaseException as error:
        found[name] = f"{type(error).__name__}: {error}"

def call(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result

def connect(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as one:
        one.settimeout(2)
        return one.connect(address)

def write(path, text):
    with open(path, "w") as file:
        return file.write(text)

def run(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout

attempt("unix socket by path", lambda: connect(socket.AF_UNIX, facts["socket"]))
attempt("unix socket, abstract", lambda: connect(socket.AF_UNIX, "\0" + facts["abstract"]))
for path in ("/run/docker.sock", "/run/dbus/system_bus_socket", "/run/systemd/private", facts["api"]):
    attempt("unix socket " + path, lambda: connect(socket.AF_UNIX, path))
attempt("port of the machine's loopback", lambda: connect(socket.AF_INET, ("127.0.0.1", facts["port"])))
attempt("address of the machine", lambda: connect(socket.AF_INET, (facts["address"], facts["port"])))
attempt("process of the machine", lambda: os.kill(facts["pid"], 0))
attempt("memory of the machine's process", lambda: open(f"/proc/{facts['pid']}/mem", "rb").read(1))
others = [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and int(pid) not in (1, os.getpid())]
attempt("a process that it sees, but its own", lambda: os.kill(others[0], 0))
for number, disk in enumerate(facts["disks"]):
    attempt(f"disk {disk}", lambda: open(disk, "rb").read(1))
    major, minor = facts["numbers"][number]
    attempt(f"node of disk {disk}", lambda: os.mknod("/tmp/disk", 0o60600, os.makedev(major, minor)))
for path in ("/dev/mem", "/dev/kmsg", "/proc/kcore", "/proc/kmsg"):
    attempt("read " + path, lambda: open(path, "rb").read(1))
for path, text in {
    "/proc/sys/kernel/core_pattern": "|/tmp/x", "/proc/sys/kernel/sysrq": "1", "/proc/sys/vm/drop_caches": "1",
    "/proc/sysrq-trigger": "s", "/proc/sys/kernel/hostname/../core_pattern": "x", "/sys/kernel/uevent_helper": "/x",
    "/proc/sys/fs/file-max": "1000000", "/sys/power/state": "mem",
}.items():
    attempt("write " + path, lambda: write(path, text))
attempt("remount /proc/sys", lambda: call(libc.mount(b"", b"/proc/sys", None, 32 | 4096, None)))
attempt("a new /proc", lambda: call(libc.mount(b"proc", b"/mnt", b"proc", 0, None)))
attempt("a new tmpfs", lambda: call(libc.mount(b"t", b"/mnt", b"tmpfs", 0, None)))
attempt("unmount /proc/sys", lambda: call(libc.umount2(b"/proc/sys", 2)))
attempt("unmount /usr", lambda: call(libc.umount2(b"/usr", 2)))
attempt("mount a disk", lambda: call(libc.mount(facts["disks"][0].encode(), b"/mnt", b"ext4", 1, None)))
attempt("reboot", lambda: call(libc.syscall(169, 0xFEE1DEAD, 672274793, 0, None)))  # CAD_OFF: asks for the same right
attempt("set the clock", lambda: __import__("time").clock_settime(0, 0))
attempt("load a module", lambda: call(libc.syscall(175, None, 0, b"")))
attempt("the namespace of PID 1's mounts", lambda: os.open("/proc/1/root/etc/hostname", os.O_RDONLY) and
        open("/proc/1/root/etc/hostname").read() == open("/etc/hostname").read() or 1 / 0)
attempt("chroot out", lambda: (os.mkdir("/tmp/x"), os.chroot("/tmp/x"), [os.chdir("..") for _ in range(9)],
                               os.chroot("."), os.stat(facts["mark"])))
print(json.dumps(found))
"""
ALLOWED = {"the namespace of PID 1's mounts"}
"""PID 1 of a container is the container's own program."""


def test_what_is_the_machines_is_out_of_reach(labs: Labs) -> None:
    abstract, path = f"emunet-test-{os.getpid()}", f"/var/tmp/emunet-test-{os.getpid()}"
    names = [name for name in os.listdir("/sys/block") if Path(f"/dev/{name}").exists()]
    before = settings()
    with (
        socket.socket(socket.AF_UNIX) as by_path,
        socket.socket(socket.AF_UNIX) as by_name,
        socket.create_server(("0.0.0.0", 0)) as server,
    ):
        by_path.bind(path)
        os.chmod(path, 0o777)
        by_name.bind("\0" + abstract)
        for one in (by_path, by_name, server):
            one.listen()
        facts = {
            "socket": path, "abstract": abstract, "port": server.getsockname()[1], "pid": os.getpid(),
            "address": own_address(), "api": str(labs.folder / "cage" / "api.sock"),
            "disks": [f"/dev/{name}" for name in names] or ["/dev/sda"],
            "numbers": [[int(n) for n in Path(f"/sys/block/{name}/dev").read_text().split(":")] for name in names]
            or [[8, 0]],
            "mark": str(labs.folder.parent / "lab.yaml"),
        }  # fmt: skip
        try:
            said = run_container(labs, "thief", ["/usr/bin/python3", "-c", ATTEMPTS, json.dumps(facts)])
        finally:
            os.unlink(path)
        reached, _, _ = select.select((by_path, by_name, server), (), (), 0)  # somebody waits to be let in
    found: dict[str, str] = json.loads(said)
    assert len(found) >= 30
    assert {name: what for name, what in found.items() if what.startswith("DID IT") and name not in ALLOWED} == {}
    assert reached == []
    assert settings() == before
    faults = {what for what in found.values() if what.startswith(("NameError", "TypeError", "AttributeError"))}
    assert faults == set(), "an attempt that is wrong itself proves nothing"


def settings() -> dict[str, str]:
    """Settings of this machine that an attempt is about."""
    names = ("core_pattern", "sysrq", "hostname", "panic")
    return {name: path.read_text() for name in names if (path := Path(f"/proc/sys/kernel/{name}")).exists()}


def own_address() -> str:
    """An address of this machine other than loopback; loopback where it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        try:
            asker.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return "127.0.0.1"
        address: str = asker.getsockname()[0]
        return address


def test_killing_all_it_sees_ends_only_itself(labs: Labs) -> None:
    """`kill -9 -1`, of all processes that it may: its own container's."""
    run_container(labs, "berserk", ["/bin/sh", "-c", "kill -9 -1; exit 0"])
    status = labs.status("cage")
    assert next(pod for pod in status["pods"] if pod["name"] == "quiet")["ready"]
    os.kill(status["pid"], 0)
