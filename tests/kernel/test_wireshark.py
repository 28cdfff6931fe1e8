"""From a running lab to a packet in Wireshark with its drop explained, as the README goes; tshark is the window."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_driver import TWO_HOSTS, Labs, balance

pytestmark = pytest.mark.skipif(
    shutil.which("tshark") is None, reason="tshark is not installed: apt-get install tshark"
)


@pytest.fixture(scope="module")
def labs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Labs]:
    """A lab, and a user without settings of Wireshark's."""
    made = Labs(tmp_path_factory.mktemp("run"))
    home = tmp_path_factory.mktemp("home")
    made.environment |= {"HOME": os.fspath(home), "XDG_CONFIG_HOME": os.fspath(home / "config")}
    try:
        made.ok("up", str(TWO_HOSTS), "--wires", "memory")
        yield made
        assert balance(made.status()["frames"]) == 0
    finally:
        made.leave()


def tshark(labs: Labs, *arguments: str) -> str:
    done = subprocess.run(
        ["tshark", *arguments], env=labs.environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def capture_while_pinging(labs: Labs, file: Path, count: int) -> None:
    """Frames of web-1, captured by tshark through Wireshark's own way of starting ours."""
    command = ["tshark", "-i", "web-1", "-c", str(count), "-w", str(file)]
    process = subprocess.Popen(command, env=labs.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        labs.run("ping", "web-1", "10.9.9.9", "-c", "1", "-W", "0.1")
    _, said = process.communicate(timeout=30)
    assert process.returncode == 0, said


def test_a_drop_is_explained_in_wireshark_and_by_the_lab_again(labs: Labs, tmp_path: Path) -> None:
    labs.ok("wireshark", "--install")
    file = tmp_path / "x.pcapng"
    capture_while_pinging(labs, file, 12)
    fields = ["-T", "fields", "-e", "frame.number", "-e", "ip.dst", "-e", "frame.comment"]
    rows = [line.split("\t") for line in tshark(labs, "-r", str(file), "-Y", "frame.comment", *fields).splitlines()]
    number, destination, comment = rows[0]
    assert destination == "10.9.9.9"
    assert comment.startswith("dropped at host1, router: NO_ROUTE: host1 has no route to 10.9.9.9")
    told = labs.ok("trace", "--from", str(file), "--packet", number)
    assert told.startswith(f"packet {number}, out at web-1: 10.244.1.2 > 10.9.9.9: ICMP echo request")
    assert f"recorded: {comment}" in told
    assert "dropped: host1 has no route to 10.9.9.9" in told
    again = json.loads(labs.ok("trace", "--from", str(file), "--packet", number, "-o", "json"))
    assert (again["verdict"], again["reason"], again["recorded"]) == ("dropped", "NO_ROUTE", [comment])
    labs.ok("wireshark", "--remove")


def test_a_packet_is_explained_from_where_it_was_seen(labs: Labs, tmp_path: Path) -> None:
    """On its way at a switch, at its end, and where it entered for one seen inside a host."""
    file = tmp_path / "x.pcapng"
    labs.ok("ping", "web-1", "web-3")
    process = labs.start("capture", "--follow", "icmp[icmptype] = icmp-echo and src web-1", "-c", "1", "-w", str(file))
    assert process.stderr is not None
    assert "watching" in process.stderr.readline()
    labs.ok("ping", "web-1", "web-3", "-c", "1")
    process.communicate(timeout=30)
    traces = {}
    for number in range(1, 11):
        told = json.loads(labs.ok("trace", "--from", str(file), "--packet", str(number), "-o", "json"))
        assert told["verdict"] == "delivered", number
        traces[number] = [hop["device"] for hop in told["hops"]]
    assert traces[1] == traces[2] == traces[3] == ["host1", "switch1", "host2"]
    assert traces[4] == traces[5] == ["switch1", "host2"]
    assert traces[6] == traces[7] == ["host2"]
    assert traces[10] == ["web-3"]
    assert "has 10 packets, and no number 11" in labs.run("trace", "--from", str(file), "--packet", "11").stderr
    assert "takes --packet N" in labs.run("trace", "--from", str(file)).stderr
