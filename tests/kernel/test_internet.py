"""`emunet up --internet`: what opens, and what stays closed. The outside is a network namespace of the test's own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lab_driver import ROOT, Labs, balance, eventually
from ordinary_user import NOBODY, become_nobody
from outside_world import ASIDE, ASIDE6, PORT, SERVER, SERVER6

from emunet.linux import syscalls

WORLD = Path(__file__).parent / "outside_world.py"
ASK = """
import socket, sys
for address in sys.argv[2:]:
    try:
        with socket.create_connection((address, int(sys.argv[1])), 0.5 if len(sys.argv) > 3 else 10) as s:
            print(s.recv(100).decode())
    except OSError as error:
        print("no:", error)
"""
TOPOLOGY = """apiVersion: emunet/v1
kind: Topology
metadata: {name: open}
spec:
  hosts: [host1, host2]
  podCIDRs: [10.244.0.0/16, "fd00:10:244::/56"]
  underlay: {cidrs: [192.168.9.0/24, "fd00:9::/64"]}
""" + "".join(
    f"---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\n"
    f"spec: {{nodeName: {host}, containers: [{{name: c, image: x, ports: [{{containerPort: 80}}]}}]}}\n"
    for name, host in (("web-1", "host1"), ("web-3", "host2"))
)
CLOSED = ("127.0.0.1", "0.0.0.0", "10.0.2.2", "10.0.2.3", "10.0.2.15", "192.168.9.1", ASIDE)
CLOSED += ("::1", "fd65:6d75:6e65:7400::2", "fd65:6d75:6e65:7400::f", "fd00:9::1", ASIDE6)


class Inside(Labs):
    """The `emunet` command inside of another process's network and mounts, as root or as an ordinary user."""

    world = 0
    as_user = False

    def run(self, *arguments: str, timeout: float = 60, **how: Any) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, in there."""
        return super().run(*arguments, timeout=timeout, preexec_fn=self._enter, **how)

    def asks(self, who: str, *addresses: str) -> list[str]:
        """What a pod or host hears at each address."""
        command = ("exec", who, "--", "/usr/bin/python3", "-c", ASK, str(PORT), *addresses)
        return self.ok(*command).splitlines()

    def _enter(self) -> None:
        for name in ("net", "mnt"):
            with open(f"/proc/{self.world}/ns/{name}") as file:
                syscalls.setns(file.fileno(), 0)
        os.chdir(ROOT)
        if self.as_user:
            become_nobody()
            os.chdir(ROOT)


@pytest.fixture
def inside() -> Iterator[Callable[[bool], Inside]]:
    """Labs inside an outside of their own: as an ordinary user, or not."""
    if os.geteuid() != 0:
        pytest.skip("the outside is a network namespace that root makes: run this test as root")
    folder = Path(tempfile.mkdtemp(prefix="labs-out-"))
    folder.chmod(0o755)
    made = Inside(folder / "run")
    made.folder.mkdir(mode=0o700)

    def begin(as_user: bool) -> Inside:
        made.as_user = as_user
        if as_user:
            os.chown(made.folder, NOBODY, NOBODY)
        return made

    command = ["unshare", "--net", "--mount", sys.executable, str(WORLD)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as world:
        try:
            assert world.stdout is not None
            assert world.stdout.readline() == "ready\n"
            made.world = world.pid
            yield begin
        finally:
            try:
                made.leave()
            finally:
                world.kill()
                shutil.rmtree(folder)


def only(program: str, folder: Path) -> str:
    """A PATH on which of the programs that lead out there is only this one."""
    folder.mkdir()
    found = shutil.which(program)
    if found is not None:
        (folder / program).symlink_to(found)
    return f"{folder}:/usr/sbin:/sbin"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "as_user", "end"),
    [("passt", False, "down"), ("passt", True, "kill"), ("slirp4netns", False, "kill"), ("slirp4netns", True, "kill")],
)
def test_pods_get_out_and_nothing_else_opens(
    inside: Callable[[bool], Inside], program: str, as_user: bool, end: str
) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed: apt-get install {program}")
    labs = inside(as_user)
    labs.environment["PATH"] = only(program, labs.folder.parent / "bin")
    file = labs.folder.parent / "lab.yaml"
    file.write_text(TOPOLOGY)
    labs.ok("up", str(file), "--internet", "--wires", "tap")
    ipv6 = "fd00:9::1" if program == "passt" else None
    found = labs.status("open")["internet"]
    assert found == {
        "program": program, "gateway": "192.168.9.1", "gateway_ipv6": ipv6, "resolver": "203.0.113.53", "ready": True,
        "ended": 0, "reason": "",
    }  # fmt: skip
    by = ": by 192.168.9.1, fd00:9::1" if ipv6 else ", IPv4 alone: by 192.168.9.1"
    assert f"Open to the outside{by} and {program} to all" in labs.ok("status")

    question = f'IP(dst="{SERVER}")/TCP(dport={PORT}, flags="S")'
    assert labs.json("trace", "web-3", question)["verdict"] == "delivered", "a dry run, before anything went there"
    told = labs.ok("explain", "web-3", f"{SERVER}:{PORT}")
    assert f"gets out to {SERVER}: TCP to {SERVER}:{PORT} leaves the lab by gateway:out." in told
    reached = [f"{SERVER} to {SERVER}"]  # by a socket of the machine's own
    assert labs.asks("web-1", SERVER) == reached
    assert labs.asks("web-3", "www.example.com") == reached, "by name, through the lab's name server"
    assert labs.asks("host2", SERVER) == reached
    for who in ("web-3", "host2"):
        [heard] = labs.asks(who, SERVER6)
        assert heard == f"{SERVER6} to {SERVER6}" if ipv6 else heard.startswith("no:")
    told = labs.json("trace", "web-3", f'IP(dst="{SERVER}")/TCP(dport={PORT}, flags="S")')
    assert told["verdict"] == "delivered"
    assert [hop["device"] for hop in told["hops"]] == ["host2", "switch1", "gateway"]
    assert "10.0.2.15" in str(told), "all leave as the gateway"

    assert labs.run("ping", "web-1", "192.168.9.1", "-c", "1").returncode == 0, "the gateway itself answers"
    for who in ("web-1", "host1"):
        heard = dict(zip(CLOSED, labs.asks(who, *CLOSED), strict=True))
        assert {address: words for address, words in heard.items() if not words.startswith("no:")} == {}
    refused = labs.json("trace", "web-1", f'IP(dst="{ASIDE}")/TCP(dport={PORT}, flags="S")')
    assert "169.254.0.0/16" in refused["sentence"]
    mapped = labs.json("trace", "web-1", f'IPv6(dst="::ffff:127.0.0.1")/TCP(dport={PORT}, flags="S")')
    assert mapped["verdict"] == "dropped", "the machine's loopback in the form of IPv6"

    forwarding = labs.start("forward", "18080:web-1:80", preexec_fn=labs._enter)
    assert forwarding.stdout is not None
    assert "18080" in forwarding.stdout.readline(), "and a way in is there only while this runs"
    curl = ["curl", "-s", "-m", "5", "http://127.0.0.1:18080/"]
    page = subprocess.run(curl, capture_output=True, text=True, check=True, preexec_fn=labs._enter).stdout
    assert '"pod": "web-1"' in page

    status = labs.status("open")
    assert balance(status["frames"]) == 0
    assert status["faults"] == []
    if end == "down":
        machine = ["nsenter", "-n", "-t", str(labs.world), "ip"]
        subprocess.run([*machine, "address", "del", "fe80::1/64", "dev", "out0"], check=True)
        comes_again(labs, program)
        assert labs.asks("web-1", SERVER) == reached
        assert "Open to the outside, IPv4 alone" in labs.ok("status"), "passt wants a link-local address"
        subprocess.run([*machine, "route", "del", "default"], check=True)
        kill(labs, program)
        no_route = "this machine has no default route for IPv4"
        eventually(lambda: no_route in labs.status("open")["internet"]["reason"], "it does not begin, and says why")
        told = labs.ok("status")
        assert f"The way to the outside is closed: --internet: {no_route}" in told
        assert all(words.startswith("no:") for words in labs.asks("web-1", SERVER, SERVER))
        labs.ok("down")
    else:
        os.kill(status["pid"], signal.SIGKILL)
    labs.wait_until_gone()


def kill(labs: Inside, program: str) -> None:
    """Kill what leads out."""
    [running] = [pid for pid, name in labs.processes().items() if name.startswith(program)]
    os.kill(running, signal.SIGKILL)


def comes_again(labs: Inside, program: str) -> None:
    """What leads out was killed: it is begun again, and the lab remembers."""
    kill(labs, program)
    eventually(lambda: labs.status("open")["internet"]["ended"] == 1, "the lab sees that its way out has ended")
    eventually(lambda: labs.status("open")["internet"]["ready"], "it is begun again")
    assert f"It was closed once: {program} was killed by SIGKILL." in labs.ok("status")
    log = (labs.folder / "open" / "lab.log").read_text()
    assert f"the way to the outside is closed: {program} was killed by SIGKILL; it is begun again\n" in log
    assert f"the way to the outside is open again, by {program}\n" in log


@pytest.mark.slow
def test_without_such_a_program_or_a_way_nothing_begins(inside: Callable[[bool], Inside]) -> None:
    labs = inside(False)
    path = labs.environment["PATH"]
    labs.environment["PATH"] = only("neither", labs.folder.parent / "bin")
    done = labs.run("up", "--internet", "--wires", "memory")
    assert (done.returncode, done.stdout) == (1, "")
    assert "neither is installed. Install one: sudo apt-get install passt" in done.stderr
    labs.environment["PATH"] = path
    subprocess.run(["nsenter", "-n", "-t", str(labs.world), "ip", "route", "del", "default"], check=True)
    done = labs.run("up", "--internet", "--wires", "memory")
    assert (done.returncode, done.stdout) == (1, "")
    assert "this machine has no default route for IPv4" in done.stderr
    assert labs.processes() == {}
    assert list(labs.folder.iterdir()) == []
