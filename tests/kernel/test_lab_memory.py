"""The same lab on memory wires: the same commands, a clock that can run ahead, and no processes to join."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_driver import TWO_HOSTS, Labs, balance

from emunet.daemon.client import LabClient
from emunet.daemon.folder import RunFolder


@pytest.fixture(scope="module")
def labs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Labs]:
    """One lab for all tests of this file; a lab second takes a tenth of one."""
    made = Labs(tmp_path_factory.mktemp("run"))
    try:
        made.ok("up", str(TWO_HOSTS), "--wires", "memory", "--speed", "10", "--seed", "7")
        yield made
        made.ok("down")
        assert made.processes() == {}
    finally:
        made.leave()


@pytest.fixture(autouse=True)
def _every_frame_is_accounted_for(labs: Labs) -> Iterator[None]:
    yield
    assert balance(labs.status()["frames"]) == 0


def client(labs: Labs) -> LabClient:
    return LabClient(RunFolder(Path(labs.folder) / "two-hosts"))


def test_it_has_two_processes_and_no_keeper(labs: Labs) -> None:
    assert sorted(labs.processes().values()) == ["emunet-control", "emunet-plane"]
    assert labs.status()["wires"] == "memory"


def test_status_is_the_same_but_for_wires(labs: Labs) -> None:
    status = labs.json("status")
    assert (status["wires"], status["seed"], status["speed"]) == ("memory", 7, 10.0)
    assert all(pod["ready"] for pod in status["pods"])
    assert "on memory wires, 10 times as fast, seed 7" in labs.ok("status")


def test_all_pairs_and_hosts_answer(labs: Labs) -> None:
    assert labs.json("ping")["unanswered"] == 0
    for source, target in (("web-1", "host2"), ("host1", "web-4"), ("host1", "host2"), ("web-3", "10.244.1.1")):
        assert labs.json("ping", source, target)["pairs"][0]["received"] == 3


def test_no_answer_has_a_reason_and_takes_lab_time(labs: Labs) -> None:
    began = time.monotonic()
    done = labs.run("ping", "web-1", "10.244.2.99", "-c", "1", "-W", "10")
    assert done.returncode == 1
    assert "nobody on cni0 of host2 answered for 10.244.2.99" in done.stdout
    assert time.monotonic() - began < 5


def test_a_live_trace_is_followed_through_lab_time(labs: Labs) -> None:
    trace = labs.json("trace", "web-1", 'IP(dst="10.244.2.88")/UDP(dport=53)', "--live")
    assert (trace["verdict"], trace["reason"]) == ("dropped", "NEIGHBOR_UNREACHABLE")


def test_explain_says_it_in_sentences_and_as_json(labs: Labs) -> None:
    first, *rest = labs.ok("explain", "web-1", "web-3:80").splitlines()
    assert first.startswith("web-1 reaches web-3: TCP to 10.244.2.")
    assert rest[0] == "  It goes web-1 → host1 → switch1 → host2 → web-3, inside VXLAN between host1 and host2."
    (found,) = labs.json("explain", "host1", "web-3:53/udp")
    assert (found["reaches"], found["arrives_at"], found["there"]["verdict"]) == (True, "web-3", "delivered")
    done = labs.run("explain", "web-1", "nobody:80")
    assert done.returncode == 1
    assert "there is no pod, Service, host or address nobody:80; there are: " in done.stderr


@pytest.mark.slow
def test_a_policy_counts_in_a_running_lab(labs: Labs, tmp_path: Path) -> None:
    """Applied with kubectl's own forms, changed, and taken away: each time from the next frame on."""
    file = tmp_path / "policy.yaml"
    deny = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: deny}\nspec: {podSelector: {}}\n"
    file.write_text(deny)
    labs.ok("apply", "-f", str(file))
    assert json.loads(labs.run("ping", "-o", "json").stdout)["unanswered"] == 12
    trace = labs.json("trace", "web-1", 'IP(dst="web-3")/TCP(dport=80)')
    assert trace["reason"] == "POLICY_INGRESS"
    assert "isolated by default/deny; no rule permits anything" in trace["sentence"]
    file.write_text(deny.replace("podSelector: {}", "podSelector: {}, ingress: [{ports: [{port: 80}]}]"))
    labs.ok("apply", "-f", str(file))
    (found,) = labs.json("explain", "web-1", "web-3:80")
    assert "host2 permits it: ingress by rule 1 of default/deny." in found["sentences"]
    assert "port ICMP does not (80/TCP)" in labs.run("ping", "web-1", "web-3").stdout
    file.write_text(deny.replace("podSelector: {}", "podSelector: {matchLabels: {app: wbe}}"))
    done = labs.run("apply", "-f", str(file))
    assert done.returncode == 0
    assert done.stderr == "warning: NetworkPolicy default/deny selects no pod: none of default is app=wbe\n"
    labs.ok("delete", "-f", str(file))
    assert labs.json("ping")["unanswered"] == 0


def test_time_can_jump(labs: Labs) -> None:
    before = client(labs).get("counters")["now_ns"]
    client(labs).post("time", seconds=3600)
    assert client(labs).get("counters")["now_ns"] - before >= 3600 * 10**9
    labs.ok("ping")


def test_nothing_can_be_run_there(labs: Labs) -> None:
    done = labs.run("exec", "web-1", "--", "true")
    assert done.returncode == 1
    assert done.stderr.startswith("emunet: web-1 is a network stack in memory without processes")


def test_tour_and_links(labs: Labs) -> None:
    assert "emunet ping web-1 web-3" in labs.ok("tour")
    labs.ok("link", "host1--switch1", "--down")
    assert labs.run("ping", "web-1", "web-3").returncode == 1
    labs.ok("link", "host1--switch1", "--up")
    labs.ok("ping", "web-1", "web-3")
