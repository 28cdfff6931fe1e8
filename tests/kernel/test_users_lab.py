"""What an ordinary user's lab can do, command by command: the same as root's, whose tests are in other files.

One lab for all of them. Where the tests run as an ordinary user, the other files are that already.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from lab_driver import TWO_HOSTS, Labs, balance
from ordinary_user import NOBODY, UsersLabs, become_nobody, labs_of
from test_forward import TOPOLOGY, forwarding, get

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user: run this test as root")
SOME_FILE = "/etc/emunet-was-here"


@pytest.fixture(scope="module")
def lab() -> Iterator[Labs]:
    """A user's lab with pods, Services and both families."""
    with labs_of("user") as made:
        (made.folder.parent / "lab.yaml").write_text(TOPOLOGY)
        made.ok("up", str(made.folder.parent / "lab.yaml"), "--wires", "tap")
        yield made
        assert balance(made.status("ways")["frames"]) == 0
        assert made.status("ways")["faults"] == []
        made.ok("down")
        assert made.processes() == {}
        assert list(made.folder.iterdir()) == []


def test_all_of_it_runs_as_that_user(lab: Labs) -> None:
    """No process of it is root's, and to the machine its root is the user."""
    owners = set()
    for pid in lab.processes():
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        owners |= set(next(line for line in lines if line.startswith("Uid:")).split()[1:])
    assert owners == {str(NOBODY)}


def test_exec_is_the_user_in_the_pods_network(lab: Labs) -> None:
    mine = lab.folder.parent / "mine"
    mine.write_text("mine")
    mine.chmod(0o600)
    os.chown(mine, NOBODY, NOBODY)
    assert lab.ok("exec", "sink", "--", "cat", str(mine)) == "mine", "the caller's own files"
    assert "10.244.1." in lab.ok("exec", "sink", "--", "ip", "-4", "address", "show", "eth0")
    assert lab.run("exec", "sink", "--", "touch", SOME_FILE).returncode != 0, "and no power over others'"
    assert lab.run("exec", "sink", "--", "sh", "-c", "exit 7").returncode == 7
    assert not Path(SOME_FILE).exists()


def test_exec_isolated_is_in_the_pods_own_root(lab: Labs) -> None:
    script = f"hostname; echo own > {SOME_FILE}; cat {SOME_FILE}; ls -A /home /root | grep -v : | grep . || echo empty"
    assert lab.ok("exec", "sink", "--isolated", "--", "sh", "-c", script).split() == ["sink", "own", "empty"]
    assert lab.run("exec", "sink", "--isolated", "--", "cat", str(lab.folder.parent / "lab.yaml")).returncode != 0
    assert lab.run("exec", "web", "--isolated", "--", "cat", SOME_FILE).returncode != 0, "each pod has its own"
    assert lab.ok("exec", "sink", "--isolated", "--", "cat", SOME_FILE) == "own\n", "which stays while the pod does"
    assert not Path(SOME_FILE).exists()


def test_forward_to_pods_services_and_hosts(lab: Labs) -> None:
    """TCP and UDP, over both loopbacks, to both families; and the responder says whom it saw."""
    wishes = ("0:web:80", "0:svc/shop:8080", "0:host2:9100", "0:web:53/udp", "0:svc/shop:5353/udp")
    with forwarding(lab, *wishes) as (at, _):
        assert [address for address, _ in at] == 5 * ["127.0.0.1", "::1"]
        told = [get(*one) for one in at[:6]]
        assert [one["pod"] for one in told] == ["web", "web", "web", "web", "guest", "guest"]
        assert (told[4]["address"], told[4]["client"]) == ("192.168.9.12", "192.168.9.11")
        for address, port in at[6:]:
            with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.settimeout(10)
                client.sendto(b"?", (address, port))
                assert client.recv(2000).startswith(b"pod=web ")
    with forwarding(lab, "--ipv6", "0:web:80") as (at, _):
        assert get(*at[0])["address"].startswith("fd00:10:244:")


def test_the_responder_sees_who_asks(lab: Labs) -> None:
    ips = {pod["name"]: pod["ips"] for pod in lab.status("ways")["pods"]}
    for asker, asked in zip(ips["sink"], ips["web"], strict=True):
        url = f"http://[{asked}]/" if ":" in asked else f"http://{asked}/"
        told = json.loads(lab.ok("exec", "sink", "--", "curl", "-s", "-m", "10", url))
        assert (told["pod"], told["node"], told["address"], told["client"]) == ("web", "host2", asked, asker)


# A machine that does not let this user have TAPs


@pytest.mark.parametrize(
    ("mode", "why", "cure"),
    [
        (None, "No such file or directory", "sudo modprobe tun || (sudo mkdir -p /dev/net && sudo mknod -m 666"),
        (0o600, "Permission denied", "sudo chmod 666 /dev/net/tun"),
    ],
    ids=["missing", "closed"],
)
def test_without_the_tun_device_there_is_one_sentence_and_the_cure(mode: int | None, why: str, cure: str) -> None:
    with labs_of("user") as labs:
        assert isinstance(labs, UsersLabs)
        become = partial(become_nobody, mode)
        done = labs.run("up", str(TWO_HOSTS), "--wires", "tap", preexec_fn=become)
        assert done.returncode == 1
        [line] = [one for one in done.stderr.splitlines() if not one.startswith("making ")]
        assert "TAPs cannot be opened" in line
        assert why in line
        assert cure in line
        assert labs.processes() == {}
        assert list(labs.folder.iterdir()) == []
        done = labs.run("doctor", preexec_fn=become)
        assert done.returncode == 1
        assert cure in done.stdout
        assert "`emunet up` uses memory wires" in done.stdout
        done = labs.run("up", str(TWO_HOSTS), preexec_fn=become)
        assert done.returncode == 0, done.stderr
        assert "Memory wires, because: TAPs cannot be opened" in done.stdout


def test_doctor_tells_a_user_what_is_there() -> None:
    with labs_of("user") as labs:
        done = labs.run("doctor")
        assert done.returncode == 0, done.stdout
        assert "A lab runs in user, PID, network and mount namespaces of its own" in done.stdout
        assert "A pod with a TAP was made and removed again." in done.stdout
        assert "TAP wires work here" in done.stdout
