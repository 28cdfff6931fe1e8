"""Services with real programs: curl in pods and on hosts, python's server behind, a Service that comes later."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_driver import ROOT, Labs, balance, eventually, machine

TOPOLOGY = ROOT / "topologies" / "services.yaml"
VIP, IDLE = "10.96.0.80", "10.96.0.81"
LATE = """
apiVersion: v1
kind: Service
metadata: {name: late}
spec: {clusterIP: 10.96.0.82, selector: {app: web}, ports: [{port: 81, targetPort: http}]}
"""


@pytest.fixture(scope="module")
def labs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Labs]:
    """The shipped example for all tests of this file."""
    if shutil.which("curl") is None:
        pytest.skip("curl is missing: apt-get install curl")
    made = Labs(tmp_path_factory.mktemp("run"))
    before = machine()
    try:
        made.ok("up", str(TOPOLOGY), "--wires", "tap")
        yield made
        made.ok("down")
        assert machine() == before
    finally:
        made.leave()


@pytest.fixture(autouse=True)
def _every_frame_is_accounted_for(labs: Labs) -> Iterator[None]:
    yield
    assert balance(labs.status("services")["frames"]) == 0


def curl(labs: Labs, client: str, url: str) -> tuple[int, str]:
    """The exit code of curl and what it printed (7: refused, 28: timed out)."""
    done = labs.run("exec", client, "--", "curl", "-s", "-m", "3", url)
    return done.returncode, done.stdout.strip()


def pods(labs: Labs) -> set[str]:
    return {pod["name"] for pod in labs.status("services")["pods"] if pod["name"].startswith("web-")}


def answering(labs: Labs, client: str, url: str, calls: int = 12) -> set[str]:
    found = [curl(labs, client, url) for _ in range(calls)]
    assert all(code == 0 for code, _ in found), found
    return {text for _, text in found}


def calls(labs: Labs, number: int) -> set[str]:
    """Who answers the client; a pod that is beginning may refuse."""
    return {text for code, text in (curl(labs, "client", f"http://{VIP}/") for _ in range(number)) if code == 0}


@pytest.mark.parametrize("client", ["client", "host1", "host2"])
def test_pods_and_hosts_call_a_service(labs: Labs, client: str) -> None:
    """A hash of the flow decides: over 12 connections more than one pod answers, and only pods of the Service."""
    eventually(lambda: curl(labs, client, f"http://{VIP}/")[0] == 0, "the server does not answer")
    found = answering(labs, client, f"http://{VIP}/")
    assert found <= pods(labs)
    assert len(found) > 1


def test_a_node_port_is_open_on_every_host(labs: Labs) -> None:
    for client, host in (("client", "host1"), ("client", "host2"), ("host1", "host2"), ("host2", "host1")):
        assert answering(labs, client, f"http://{host}:30080/", 4) <= pods(labs)


@pytest.mark.rule("SVC-17")
@pytest.mark.rule("SVC-19")
@pytest.mark.parametrize("client", ["client", "host1"])
def test_a_service_without_endpoints_refuses_at_once(labs: Labs, client: str) -> None:
    """The kernel's TCP takes the ICMP error for a refusal: curl ends with 7, not with 28 (timed out)."""
    assert curl(labs, client, f"http://{IDLE}/") == (7, "")


def test_a_service_comes_and_goes_while_programs_run(labs: Labs, tmp_path: Path) -> None:
    file = tmp_path / "late.yaml"
    file.write_text(LATE)
    labs.ok("apply", "-f", str(file))
    eventually(lambda: curl(labs, "client", "http://10.96.0.82:81/")[0] == 0, "the new Service does not answer")
    assert answering(labs, "host2", "http://10.96.0.82:81/", 4) <= pods(labs)
    labs.ok("delete", "service", "late")
    assert curl(labs, "client", "http://10.96.0.82:81/")[0] != 0


def test_the_trace_of_a_call_names_the_service(labs: Labs) -> None:
    said = labs.ok("trace", "client", f'IP(dst="{VIP}")/TCP(dport=80)')
    assert "default/web:http -> 10.244." in said
    assert " of 3" in said


def test_scaling_down_and_up(labs: Labs) -> None:
    labs.ok("scale", "deployment", "web", "--replicas", "1")
    eventually(lambda: len(pods(labs)) == 1, lambda: str(pods(labs)))
    assert answering(labs, "client", f"http://{VIP}/", 6) == pods(labs)
    labs.ok("scale", "deployment", "web", "--replicas", "3")
    eventually(lambda: len(pods(labs)) == 3, lambda: str(pods(labs)))
    eventually(lambda: len(calls(labs, 6)) > 1, "the new pods do not answer")


QUICK = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: quick}
spec:
  replicas: 2
  selector: {matchLabels: {app: quick}}
  template:
    metadata: {labels: {app: quick}}
    spec:
      containers: [{name: a, image: nobody-has-this, ports: [{containerPort: 80}]}]
---
apiVersion: v1
kind: Service
metadata: {name: quick}
spec: {clusterIP: 10.96.0.83, selector: {app: quick}, ports: [{port: 80}]}
"""


@pytest.mark.rule("OBJ-18")
def test_nothing_is_lost_when_a_pod_behind_it_is_killed(labs: Labs, tmp_path: Path) -> None:
    """Calls one after the other while a pod is deleted: each is answered, the last ones by its successor too."""

    def quick() -> set[str]:
        return {pod["name"] for pod in labs.status("services")["pods"] if pod["name"].startswith("quick-")}

    def ask() -> str:
        code, said = curl(labs, "client", "http://10.96.0.83/")
        return json.loads(said)["pod"] if code == 0 else f"curl ended with {code}"

    file = tmp_path / "quick.yaml"
    file.write_text(QUICK)
    labs.ok("apply", "-f", str(file))
    eventually(lambda: len({ask() for _ in range(4)} & quick()) > 0 and len(quick()) == 2, "the pods do not answer")
    before = quick()
    victim = min(before)
    answers = [ask() for _ in range(5)]
    labs.ok("delete", "pod", victim)
    answers += [ask() for _ in range(15)]
    (successor,) = quick() - before
    assert not [one for one in answers if one.startswith("curl")], answers
    assert victim not in answers[5:]
    eventually(lambda: ask() == successor, f"{successor} never answers")
    labs.ok("delete", "deployment", "quick")
    labs.ok("delete", "service", "quick")
