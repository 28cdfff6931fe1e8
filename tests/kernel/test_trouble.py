"""Trouble in a running lab of real kernels and programs: links, power, partitions, frozen pods, full tables."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_driver import Labs, balance, eventually, one_lab

from emunet.daemon.client import LabClient
from emunet.daemon.folder import RunFolder

WIRE = "host1--switch1"
TOPOLOGY = """
apiVersion: emunet/v1
kind: Topology
metadata: {name: troubled}
spec:
  hosts: [host1, host2]
  switches: [switch1]
  links:
    - {a: host1, b: switch1, from: {host1: {delay: 30ms}}}
    - host2 -- switch1
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {nodeName: host1, containers: [{name: c, image: x}]}
---
apiVersion: v1
kind: Pod
metadata: {name: server}
spec:
  nodeName: host2
  containers:
    - {name: c, image: x, command: [python3, -m, http.server, "80"]}
"""


@pytest.fixture(scope="module")
def labs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Labs]:
    """One lab for all tests of this file."""
    with one_lab(tmp_path_factory.mktemp("trouble"), TOPOLOGY) as made:
        yield made


@pytest.fixture(autouse=True)
def _plain_again(labs: Labs) -> Iterator[None]:
    labs.ok("link", WIRE, "--clear")
    yield
    assert balance(labs.json("status")["frames"]) == 0


def round_trip(labs: Labs) -> float:
    """The least of three round trips, in ms."""
    pair = labs.json("ping", "client", "server", "-i", "0.02")["pairs"][0]
    assert pair["received"] == 3, pair
    return float(min(pair["rtt_ms"]))


def fetched(labs: Labs, seconds: float = 1) -> bool:
    """Whether the server's program answers."""
    done = labs.run("exec", "client", "--", "curl", "-s", "-m", str(seconds), "-o", "/dev/null", "http://server/")
    return done.returncode == 0


def test_one_thing_is_changed_on_a_running_wire_and_the_rest_kept(labs: Labs) -> None:
    assert round_trip(labs) < 20
    labs.ok("link", WIRE, "--delay", "20ms", "--from", "host1")
    assert 20 < round_trip(labs) < 40
    labs.ok("link", WIRE, "--delay", "30ms", "--from", "switch1")
    labs.ok("link", WIRE, "--every", "1000000")
    assert 50 < round_trip(labs) < 80
    [shown] = labs.json("link", WIRE)
    assert shown["from"] == {
        "host1": {"delay": "20ms", "every": "1000000"},
        "switch1": {"delay": "30ms", "every": "1000000"},
    }
    text = labs.ok("link")
    assert "delay 20ms, every 1000000" in text
    assert "delay 30ms, every 1000000" in text
    labs.ok("link", WIRE, "--clear", "--loss", "100%", "--match", "vxlan and tcp")
    assert not fetched(labs)
    assert round_trip(labs) < 20, "echo is no TCP"
    assert labs.json("status")["frames"]["reasons"]["WIRE_LOST"] > 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--delay", "20"], 2, "delay: expected a time with its unit, like 20ms or 20s (got '20')"),
        (["--loss", "5"], 2, "loss: expected a share of at most 100%, or did you mean 5%? (got '5')"),
        (["--flap", "10s"], 2, "expected two times like 10s,2s: how long it is up, and how long down"),
        (["--up", "--flap", "1s,1s"], 2, "a wire that is put up or down stays so"),
        (["--from", "host1"], 2, "--from host1 says for which direction settings count"),
        (["--loss", "1%", "--from", "host2"], 1, "there is no end of host1--switch1 at host2: it joins host1 and"),
        (["--jitter", "1ms"], 1, "jitter cannot be larger than delay: a frame would arrive before it was sent"),
    ],
)
def test_what_is_refused(labs: Labs, arguments: list[str], code: int, said: str) -> None:
    done = labs.run("link", WIRE, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert labs.json("link", WIRE)[0]["from"] == {"host1": {}, "switch1": {}}


def test_flapping(labs: Labs) -> None:
    labs.ok("link", WIRE, "--flap", "300ms,300ms")
    seen = set()

    def both() -> bool:
        seen.add(labs.json("link", WIRE)[0]["up"])
        return seen == {True, False}

    eventually(both, "up and down by turns")
    labs.ok("link", WIRE, "--up")
    assert labs.json("link", WIRE)[0]["flap"] is None
    assert labs.json("ping", "client", "server")["unanswered"] == 0


def test_a_host_loses_its_power_and_its_programs_and_gets_them_back(labs: Labs) -> None:
    eventually(lambda: fetched(labs), "the server's program answers")
    before = labs.json("status")
    assert json.loads(labs.ok("host", "host2", "--off", "-o", "json")) == [{"name": "host2", "on": False}]
    status = labs.json("status")
    assert [host["ready"] for host in status["hosts"]] == [True, False]
    assert [pod["ready"] for pod in status["pods"]] == [True, False]
    done = labs.run("ping", "client", "server", "-c", "1")
    assert done.returncode == 1
    assert "host2 is powered off: `emunet host host2 --on` brings it back" in done.stdout
    eventually(
        lambda: not labs.json("status")["pods"][1]["containers"][0]["running"], "the server's program was killed"
    )
    labs.ok("host", "host2", "--on")
    status = labs.json("status")
    assert [pod["ready"] for pod in status["pods"]] == [True, True]
    assert status["pid"] == before["pid"]
    eventually(lambda: fetched(labs), "the server's program runs again")
    assert "host2    on" in labs.ok("host")
    assert labs.run("host", "host9", "--off").stderr.startswith("emunet: there is no device host9; there are: host1")


def test_a_partition_and_its_end(labs: Labs) -> None:
    assert "host1 | the rest" in labs.ok("partition", "host1")
    try:
        lost = labs.json("status")["frames"]["reasons"].get("WIRE_PARTITIONED", 0)
        assert labs.run("ping", "client", "server", "-c", "1").returncode == 1
        # Echo or ARP, as it is known or not where host2 is.
        assert labs.json("status")["frames"]["reasons"]["WIRE_PARTITIONED"] > lost
    finally:
        assert "all hosts hear all others" in labs.ok("partition", "--heal")
    eventually(lambda: labs.run("ping", "client", "server", "-c", "1").returncode == 0, "they hear each other again")


def test_a_frozen_pod_hangs_as_a_program_does(labs: Labs) -> None:
    """Its kernel answers the handshake, nobody reads what comes then."""
    eventually(lambda: fetched(labs), "the server's program answers")
    assert labs.ok("freeze", "server").startswith("server is frozen, ")
    assert labs.json("freeze")["frozen"] == ["server"]
    assert labs.json("status")["pods"][1]["ready"] is False
    assert labs.json("ping", "client", "server")["unanswered"] == 0
    assert not fetched(labs)
    connected = labs.run("exec", "client", "--", "python3", "-c",
                         "import socket; socket.create_connection(('server', 80), 3)")  # fmt: skip
    assert connected.returncode == 0, connected.stderr
    labs.ok("freeze", "server", "--thaw")
    eventually(lambda: fetched(labs), "it goes on")
    assert "only pods freeze" in labs.run("freeze", "host1").stderr


def test_tables_are_listed_and_limited(labs: Labs) -> None:
    labs.ok("ping", "client", "server")
    assert labs.json("exhaust", "switch1") == {"bridge stations": 2}, "both hosts' eth0"
    assert labs.ok("exhaust", "switch1", "bridge stations", "--to", "1") == (
        "switch1: bridge stations holds 1 of 1 entries; 1 had to go\n"
    )
    assert labs.json("ping", "client", "server")["unanswered"] == 0, "a switch that remembers less floods more"
    labs.ok("exhaust", "switch1", "bridge stations", "--to", "16384")
    done = labs.run("exhaust", "switch1", "routes")
    assert (done.returncode, done.stderr) == (1, "emunet: switch1 has no table routes; it has: bridge stations\n")


def test_a_scenario_on_a_running_lab(labs: Labs, tmp_path: Path) -> None:
    """The same file, in the lab's own time, among real kernels."""
    path = tmp_path / "short.yaml"
    path.write_text(
        """
apiVersion: emunet/v1
kind: Scenario
metadata: {name: short}
spec:
  duration: 3s
  flows: [{name: f, from: client, to: server, rate: 100/s}]
  events:
    - {at: 0.5s, link: host1--switch1, clear: true, delay: 10ms, from: host1}
    - {at: 1s, host: host2, power: off}
    - {at: 1.5s, host: host2, power: on}
    - {at: 2s, freeze: client}
    - {at: 2.5s, thaw: client}
    - {at: 2.6s, partition: [[host1]]}
    - {at: 2.8s, heal: true}
"""
    )
    picture = tmp_path / "short.svg"
    played = labs.json("scenario", str(path), "--lab", "troubled", "--figure", str(picture))
    [flow] = played["flows"]
    assert 200 < flow["sent"] < 290
    assert flow["sent"] == flow["received"] + flow["lost"] + flow["on_the_way"]
    assert {"DEVICE_OFF", "WIRE_PARTITIONED"} <= flow["why"].keys()
    assert flow["latency_ns"]["median"] >= 10_000_000
    assert len(played["events"]) == 7
    assert picture.read_text().startswith("<svg")
    assert labs.run("scenario", str(path)).returncode == 2
    assert labs.json("freeze")["frozen"] == []


def test_a_lab_that_cannot_keep_its_time_says_by_how_much(labs: Labs) -> None:
    """The data plane gets no processor for a while, with frames on a link whose time comes meanwhile."""
    plane = labs.pid_of("emunet-plane")
    assert plane is not None
    labs.ok("link", WIRE, "--delay", "50ms")
    ping = labs.start("exec", "client", "--", "ping", "-c", "200", "-i", "0.01", "server")
    client = LabClient(RunFolder(labs.folder / "troubled"))
    eventually(lambda: any(client.get("wires")[0]["waiting"].values()), "frames are on the link")
    os.kill(plane, signal.SIGSTOP)
    time.sleep(0.3)
    os.kill(plane, signal.SIGCONT)
    ping.wait()
    timing = labs.json("status")["timing"]
    assert timing.startswith("late by ")
    assert 200 < float(timing.split()[2]) < 1000


@pytest.mark.slow
def test_a_run_among_kernels_plays_again_in_memory(tmp_path: Path) -> None:
    """TCP over a lossy link, a host without power: the same frames at every pod, at the same times, byte for byte."""
    (tmp_path / "troubled.yaml").write_text(TOPOLOGY)
    file = tmp_path / "run.pcapng"
    labs = Labs(tmp_path)
    try:
        labs.ok("up", str(tmp_path / "troubled.yaml"), "--wires", "tap", "--record", str(file))
        labs.ok("link", WIRE, "--delay", "5ms", "--jitter", "2ms", "--loss", "5%", "--reorder", "2%")
        eventually(lambda: fetched(labs), "the server's program answers")
        labs.json("ping", "client", "server", "-c", "20", "-i", "0.01")
        labs.ok("link", WIRE, "--flap", "200ms,50ms")
        fetched(labs)
        labs.ok("host", "host2", "--off")
        labs.run("ping", "client", "server", "-c", "1", "-W", "0.2")
        labs.ok("host", "host2", "--on")
        assert "is being recorded already" in labs.run("record", "-w", str(tmp_path / "second.pcapng")).stderr
        frames = labs.json("status")["frames"]
        labs.ok("down")
        again = labs.json("replay", str(file))
        assert again["differences"] == []
        assert again["same"] is True
        assert again["inputs"] > 50
        assert again["frames"]["received"] >= frames["received"]
        assert again["frames"]["reasons"]["WIRE_LOST"] >= frames["reasons"].get("WIRE_LOST", 0)
        assert "all came out as it did then" in labs.ok("replay", str(file))
    finally:
        labs.leave()


def test_a_recording_of_a_lab_that_runs_already(labs: Labs, tmp_path: Path) -> None:
    file = tmp_path / "later.pcapng"
    recording = labs.start("record", "-w", str(file), "--seconds", "1.5")
    eventually(lambda: file.exists() and labs.run("ping", "client", "server", "-c", "1").returncode == 0, "it began")
    assert recording.wait() == 0
    assert recording.stdout is not None
    assert f"`emunet replay {file}` plays them again" in recording.stdout.read()
    played = labs.run("replay", str(file), "-o", "json")  # what it had learned before is not in it, and may show
    assert json.loads(played.stdout)["inputs"] > 3
    done = labs.run("replay", str(tmp_path / "none.pcapng"))
    assert done.returncode == 2
    assert labs.run("record", "-w", str(tmp_path / "no" / "such")).stderr.startswith("emunet: cannot write ")


def test_memory_wires_have_the_same_trouble(tmp_path: Path) -> None:
    (tmp_path / "troubled.yaml").write_text(TOPOLOGY)
    labs = Labs(tmp_path)
    try:
        labs.ok("up", str(tmp_path / "troubled.yaml"), "--wires", "memory")
        assert 30 <= labs.json("ping", "client", "server")["pairs"][0]["rtt_ms"][-1] < 45
        labs.ok("freeze", "server")
        assert labs.json("status")["pods"][1]["ready"] is False
        assert labs.run("ping", "client", "server", "-c", "1", "-W", "0.3").returncode == 1
        assert "is frozen" in labs.run("ping", "server", "client", "-c", "1", "-W", "0.3").stderr
        labs.ok("freeze", "server", "--thaw")
        labs.ok("host", "host2", "--off")
        assert labs.run("ping", "client", "server", "-c", "1", "-W", "0.3").returncode == 1
        labs.ok("host", "host2", "--on")
        eventually(lambda: labs.json("ping", "client", "server")["unanswered"] == 0, "host2 forwards again")
        assert balance(labs.json("status")["frames"]) == 0
    finally:
        labs.leave()
