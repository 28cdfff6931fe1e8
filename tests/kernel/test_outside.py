"""Wires that leave a lab: two labs on one Unix socket, two by UDP, passt, and a virtual machine of QEMU's."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_driver import Labs, balance, eventually
from ordinary_user import NOBODY, WHO, UsersLabs, become_nobody, labs_of

BOOT_SERVER = Path(__file__).parent / "boot_server.py"


def topology(name: str, host: str, address: str, outside: str, mtu: int = 1500) -> str:
    """One host on a switch that has a wire to elsewhere."""
    return f"""apiVersion: emunet/v1
kind: Topology
metadata: {{name: {name}}}
spec:
  hosts: [{{name: {host}, address: {address}}}]
  switches: [{{name: switch1, outside: [{outside}]}}]
  links: [{host} -- switch1]
  underlay: {{mtu: {mtu}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}-1}}
spec: {{containers: [{{name: c, image: x, ports: [{{containerPort: 80}}]}}]}}
"""


USER = pytest.mark.parametrize("labs", ["user"], indirect=True)
"""Of a test that costs much and asks nothing that depends on who asks."""


@pytest.fixture(params=WHO)
def labs(request: pytest.FixtureRequest) -> Iterator[Labs]:
    """Labs of this test's own, of root and of an ordinary user."""
    with labs_of(request.param) as made:
        yield made


def up(labs: Labs, name: str, host: str, address: str, outside: str, wires: str = "tap") -> None:
    """Start a lab; its seed makes its MACs its own."""
    file = labs.folder.parent / f"{name}.yaml"
    file.write_text(topology(name, host, address, outside))
    labs.ok("up", str(file), "--wires", wires, "--seed", str(len(name)))


def reaches(labs: Labs, lab: str, host: str, address: str) -> bool:
    """Whether a host of a lab gets an echo from an address."""
    done = labs.run("exec", "--lab", lab, host, "--", "ping", "-n", "-c", "1", "-W", "1", address)
    return done.returncode == 0


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody has just now."""
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def test_two_labs_on_one_socket(labs: Labs) -> None:
    """Whoever comes first waits for the other, and when one comes again, so does the cable."""
    path = labs.folder.parent / "cable.sock"
    up(labs, "left", "hosta", "192.168.9.21", f"{{name: far, unix: {path}}}")
    assert not reaches(labs, "left", "hosta", "192.168.9.22")
    assert labs.status("left")["frames"]["reasons"].keys() <= {"NO_CARRIER", "NEIGHBOR_UNREACHABLE"}
    up(labs, "right", "hostb", "192.168.9.22", f"{{name: far, unix: {path}, listen: true}}")
    owner = NOBODY if isinstance(labs, UsersLabs) else os.geteuid()
    assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (owner, 0o700)
    eventually(lambda: reaches(labs, "left", "hosta", "192.168.9.22"), "the far lab answers")
    assert "switch1:far" in labs.ok("trace", "--lab", "left", "hosta", 'IP(dst="192.168.9.22")/ICMP()')
    labs.ok("down", "--lab", "right")
    assert not path.exists()
    eventually(lambda: not reaches(labs, "left", "hosta", "192.168.9.22"), "it is gone")
    up(labs, "right", "hostb", "192.168.9.22", f"{{name: far, unix: {path}, listen: true}}")
    eventually(lambda: reaches(labs, "left", "hosta", "192.168.9.22"), "the far lab is there again")
    for name in ("left", "right"):
        assert balance(labs.status(name)["frames"]) == 0
        assert labs.status(name)["faults"] == []


@USER
def test_bulk_between_labs(labs: Labs) -> None:
    """Superframes of a kernel are cut on the way out, and what the socket does not take TCP sends again."""
    path = labs.folder.parent / "cable.sock"
    up(labs, "right", "hostb", "192.168.9.22", f"{{name: far, unix: {path}, listen: true}}")
    up(labs, "left", "hosta", "192.168.9.21", f"{{name: far, unix: {path}}}")
    take = (
        "import socket, hashlib\nserver = socket.create_server(('', 7000))\nprint('ready', flush=True)\n"
        "one, _ = server.accept()\ndigest = hashlib.sha256()\n"
        "while data := one.recv(1 << 20): digest.update(data)\nprint(digest.hexdigest())"
    )
    taking = labs.start("exec", "--lab", "right", "hostb", "--", "/usr/bin/python3", "-c", take)
    assert taking.stdout is not None
    assert taking.stdout.readline() == "ready\n"
    send = (
        "import socket, hashlib\ndata = bytes(range(256)) * 40000\n"
        "with socket.create_connection(('192.168.9.22', 7000), 20) as s: s.sendall(data)\n"
        "print(hashlib.sha256(data).hexdigest())"
    )
    sent = labs.ok("exec", "--lab", "left", "hosta", "--", "/usr/bin/python3", "-c", send)
    assert taking.communicate(timeout=30)[0] == sent
    for name in ("left", "right"):
        assert balance(labs.status(name)["frames"]) == 0


@pytest.mark.parametrize(("labs", "wires"), [("root", "tap"), ("user", "tap"), ("user", "memory")], indirect=["labs"])
def test_two_labs_by_udp(labs: Labs, wires: str) -> None:
    here, there = free_ports(2)
    ends = [f"127.0.0.1:{port}" for port in (here, there)]
    up(labs, "left", "hosta", "192.168.9.21", f'{{name: far, udp: "{ends[0]}", to: "{ends[1]}"}}', wires)
    up(labs, "right", "hostb", "192.168.9.22", f'{{name: far, udp: "{ends[1]}", to: "{ends[0]}"}}', wires)
    if wires == "tap":
        assert reaches(labs, "left", "hosta", "192.168.9.22")
    trace = labs.json("trace", "--lab", "left", "--live", "hosta", 'IP(dst="192.168.9.22")/ICMP()')
    assert trace["verdict"] == "delivered"
    eventually(lambda: labs.status("right")["frames"]["received"] > 0, "frames come in on the other side")
    assert balance(labs.status("left")["frames"]) == balance(labs.status("right")["frames"]) == 0


def test_passt_is_at_the_other_end(labs: Labs) -> None:
    """A host of the lab reaches a server of this machine through passt, as a virtual machine would: the way out."""
    if shutil.which("passt") is None:
        pytest.skip("passt is not installed: apt-get install passt")
    path = Path("/tmp") / f"passt-{os.getpid()}.sock"  # passt gives up root: it must be able to write there
    become = become_nobody if isinstance(labs, UsersLabs) else None
    command = ["passt", "-f", "-1", "-s", str(path), "-a", "192.168.9.21", "-n", "24", "-g", "192.168.9.1"]
    interface = next((name for _, name in socket.if_nameindex() if name != "lo"), "lo")
    command += ["-i", interface, "-D", "none", "-t", "none", "-u", "none", "-4"]
    passt = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=become)
    try:
        eventually(lambda: path.exists() or passt.poll() is not None, "passt to begin")
        assert passt.poll() is None, passt.communicate()[0]
        with socket.create_server(("127.0.0.1", 0)) as server:
            threading.Thread(target=greet, args=(server,), daemon=True).start()
            up(labs, "left", "hosta", "192.168.9.21", f"{{name: out, unix: {path}}}")
            ask = (
                "import socket\n"
                f"with socket.create_connection(('192.168.9.1', {server.getsockname()[1]}), 10) as s:\n"
                "    print(s.recv(100).decode())"
            )
            assert labs.ok("exec", "hosta", "--", "/usr/bin/python3", "-c", ask) == "hello from the machine\n"
        assert balance(labs.status("left")["frames"]) == 0
    finally:
        passt.send_signal(signal.SIGTERM)
        passt.communicate(timeout=10)
        path.unlink(missing_ok=True)


@USER
def test_a_virtual_machine_boots_from_a_host_of_the_lab(labs: Labs) -> None:
    """QEMU, without an operating system: what its network card asks for and gets is DHCP and HTTP."""
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("QEMU is not installed: apt-get install qemu-system-x86")
    path = labs.folder.parent / "vm.sock"
    up(labs, "left", "hosta", "192.168.9.21", f"{{name: vm, unix: {path}, listen: true}}")
    program = ["timeout", "60", "/usr/bin/python3", str(BOOT_SERVER), "192.168.9.21", "192.168.9.50"]
    serving = labs.start("exec", "hosta", "--", *program)
    assert serving.stdout is not None
    assert serving.stdout.readline() == "ready\n"
    machine = subprocess.Popen(
        ["qemu-system-x86_64", "-display", "none", "-nodefaults", "-accel", "tcg", "-m", "64", "-boot", "n",
         "-netdev", f"stream,id=n,server=off,addr.type=unix,addr.path={path}",
         "-device", "virtio-net-pci,netdev=n,mac=52:54:00:12:34:56"],
        preexec_fn=become_nobody if isinstance(labs, UsersLabs) else None,
    )  # fmt: skip
    try:
        said = []
        while not said or said[-1].startswith(("offer", "lease")):
            said.append(serving.stdout.readline())
        assert "lease\n" in said
        assert said[-1].startswith("/boot to 192.168.9.50, iPXE/")
        assert reaches(labs, "left", "hosta", "192.168.9.50")
        told = labs.ok("trace", "hosta", 'IP(dst="192.168.9.50")/ICMP()')
        assert "52:54:00:12:34:56 was learned on vm" in told
        assert "reaches switch1:vm" in told
        assert balance(labs.status("left")["frames"]) == 0
    finally:
        machine.kill()
        machine.wait()


def greet(server: socket.socket) -> None:
    """Say hello to whoever connects, once."""
    one, _ = server.accept()
    one.sendall(b"hello from the machine")
    one.close()


@pytest.mark.parametrize(
    ("outside", "said"),
    [
        ("{name: a}", "expected either unix (a socket file) or udp"),
        ("{name: a, unix: x.sock}", "expected an absolute path"),
        ("{name: a, udp: '127.0.0.1:1'}", "udp goes from an address and port `to` another"),
        ("{name: a, udp: '127.0.0.1:1', to: 'there:2'}", "expected an address and a port like 127.0.0.1:7001"),
        ("{name: a, udp: '127.0.0.1:1', to: '[::1]:2'}", "udp and to are of different families"),
        ("{name: '1', unix: /x}", "need names of their own that are no numbers"),
        ("{name: a, unix: /x}, {name: a, unix: /y}", "need names of their own that are no numbers"),
        ("{name: a, unix: /nowhere/x, listen: true}", "switch1:a: listen /nowhere/x: No such file or directory"),
        ("{name: a, udp: '192.0.2.1:1', to: '192.0.2.2:2'}", "switch1:a: udp 192.0.2.1:1: Cannot assign requested"),
    ],
)
def test_what_cannot_be(outside: str, said: str) -> None:
    with labs_of("root") as labs:
        file = labs.folder.parent / "bad.yaml"
        file.write_text(topology("bad", "hosta", "192.168.9.21", outside))
        done = labs.run("up", str(file), "--wires", "memory")
        assert done.returncode == 1
        assert said in done.stderr
        assert labs.processes() == {}
