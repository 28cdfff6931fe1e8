"""The responder among kernels: one process that answers on every declared port of pods that run no program."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab_driver import Labs, eventually, one_lab

TOPOLOGY = """apiVersion: emunet/v1
kind: Topology
metadata: {name: answers}
spec:
  hosts: [host1, host2]
  podCIDRs: [10.244.0.0/16, "fd00:10:244::/56"]
  underlay: {cidrs: [192.168.9.0/24, "fd00:9::/64"]}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {nodeName: host1, containers: [{name: c, image: x, command: [sleep, infinity]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  nodeName: host2
  containers:
    - {name: a, image: x, ports: [{containerPort: 80}, {containerPort: 53, protocol: UDP}]}
    - {name: b, image: x, command: [/not/on/this/machine], ports: [{containerPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: mixed}
spec:
  nodeName: host1
  containers:
    - {name: own, image: x, command: [sleep, infinity], ports: [{containerPort: 80}]}
    - {name: other, image: x, ports: [{containerPort: 81}]}
---
apiVersion: v1
kind: Pod
metadata: {name: guest}
spec:
  nodeName: host2
  hostNetwork: true
  containers: [{name: a, image: x, ports: [{containerPort: 9100}, {containerPort: 9101, protocol: UDP}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: many}
spec: {nodeName: host1, containers: [{name: a, image: x, ports: [MANY]}]}
""".replace("MANY", ", ".join(f"{{containerPort: {port}}}" for port in range(7000, 7250)))

# What a client of a pod does; prints what it got as JSON.
CLIENT = """
import json, socket, sys
kind, address, port, said = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4].encode().decode("unicode_escape")
family = socket.AF_INET6 if ":" in address else socket.AF_INET
with socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as asker:
    asker.settimeout(10)
    got, refused = b"", ""
    try:
        asker.connect((address, port))
        if said or kind == "udp":
            asker.send(said.encode())
        got = asker.recv(65536)
        while kind == "tcp" and (more := asker.recv(65536)):
            got += more
    except OSError as error:
        refused = type(error).__name__
    ours = asker.getsockname()
print(json.dumps({"got": got.decode(), "refused": refused, "address": ours[0], "port": ours[1]}))
"""
GET = r"GET /me HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def labs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Labs]:
    """One lab for all tests of this file."""
    with one_lab(tmp_path_factory.mktemp("responder"), TOPOLOGY) as made:
        yield made


def ask(labs: Labs, kind: str, address: str, port: int, said: str = "", by: str = "client") -> dict[str, Any]:
    """What a program in a pod gets from a port; one that has an answer is read."""
    told: dict[str, Any] = json.loads(
        labs.ok("exec", by, "--", "/usr/bin/python3", "-c", CLIENT, kind, address, str(port), said)
    )
    if told["got"].startswith("HTTP/1.1 200"):
        told["said"] = json.loads(told["got"].partition("\r\n\r\n")[2])
    elif told["got"].startswith("pod="):
        told["said"] = dict(word.split("=", 1) for word in told["got"].split())
    return told


def addresses(labs: Labs, name: str) -> list[str]:
    status = labs.status("answers")
    rows = [*status["pods"], *status["hosts"]]
    ips: list[str] = next(row["ips"] for row in rows if row["name"] == name)
    return ips


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("port", [80, 8080])
def test_http(labs: Labs, family: int, port: int) -> None:
    address = addresses(labs, "web")[family]
    told = ask(labs, "tcp", address, port, GET)
    assert told["address"] == addresses(labs, "client")[family]
    assert told["said"] == {
        "pod": "web", "namespace": "default", "node": "host2", "address": address, "port": port, "protocol": "TCP",
        "client": told["address"], "client_port": told["port"], "method": "GET", "path": "/me",
    }  # fmt: skip


def test_a_line_to_those_who_speak_otherwise_or_not_at_all(labs: Labs) -> None:
    address = addresses(labs, "web")[0]
    for said, least in ((r"hello\n", 0.0), ("", 1.9)):
        began = time.monotonic()
        told = ask(labs, "tcp", address, 80, said)
        assert time.monotonic() - began > least
        assert told["said"]["client"] == addresses(labs, "client")[0]
        assert told["said"]["client_port"] == str(told["port"])
        assert told["got"].count("\n") == 1


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize(("pod", "port"), [("web", 53), ("guest", 9101)])
def test_udp_from_the_address_that_was_asked(labs: Labs, family: int, pod: str, port: int) -> None:
    """The asker's socket is connected, so an answer from another address would not reach it."""
    address = addresses(labs, pod)[family]
    told = ask(labs, "udp", address, port, "?")
    assert (told["said"]["pod"], told["said"]["address"], told["said"]["protocol"]) == (pod, address, "UDP")
    assert (told["said"]["client"], told["said"]["client_port"]) == (told["address"], str(told["port"]))


def test_a_pod_in_its_hosts_network_answers_on_all_its_hosts_addresses(labs: Labs) -> None:
    gateway = addresses(labs, "web")[0].rpartition(".")[0] + ".1"
    for address in (addresses(labs, "host2")[0], gateway):
        assert ask(labs, "tcp", address, 9100, GET)["said"]["address"] == address
        assert ask(labs, "udp", address, 9101, "?")["said"]["address"] == address


def test_a_program_of_a_pods_own_answers_for_itself(labs: Labs) -> None:
    mixed = addresses(labs, "mixed")[0]
    assert ask(labs, "tcp", mixed, 80, GET)["refused"] == "ConnectionRefusedError"
    assert ask(labs, "tcp", mixed, 81, GET)["said"]["pod"] == "mixed"


def test_a_pod_that_comes_and_goes(labs: Labs, tmp_path: Path) -> None:
    text = (
        TOPOLOGY.split("---\n")[2]
        .replace("name: web", "name: fresh")
        .replace("containerPort: 80}", "containerPort: 82}")
    )
    (tmp_path / "fresh.yaml").write_text(text)
    before = descriptors(labs, "emunet-respond")  # of the tests before, no connection is left: `ask` reads to the end
    labs.ok("apply", "-f", str(tmp_path / "fresh.yaml"))
    eventually(lambda: len(labs.status("answers")["pods"]) == 6, "the pod")
    address = addresses(labs, "fresh")[0]
    assert ask(labs, "tcp", address, 82, GET)["said"]["pod"] == "fresh"
    eventually(lambda: descriptors(labs, "emunet-respond") == before + 3, "its sockets, and no connection any more")
    labs.ok("delete", "pod", "fresh")
    eventually(lambda: descriptors(labs, "emunet-respond") == before, "its sockets are closed")


def test_a_frozen_pod(labs: Labs) -> None:
    """Its kernel takes the connection, and nobody serves it until the pod goes on."""
    address = addresses(labs, "web")[0]
    labs.ok("freeze", "web")
    asking = labs.start("exec", "client", "--", "/usr/bin/python3", "-c", CLIENT, "tcp", address, "80", GET)
    established = lambda: "ESTAB" in labs.ok("exec", "client", "--", "ss", "-tn", "dst", address)  # noqa: E731
    eventually(established, "the handshake")
    assert asking.poll() is None
    labs.ok("freeze", "web", "--thaw")
    assert "200 OK" in asking.communicate(timeout=20)[0]


def test_a_host_that_has_power_again(labs: Labs) -> None:
    address = addresses(labs, "web")[0]
    labs.ok("host", "host2", "--off")
    labs.ok("host", "host2", "--on")
    eventually(lambda: ask(labs, "tcp", address, 80, GET).get("said", {}).get("pod") == "web", "it answers again")


def test_it_has_no_power_and_sees_no_file(labs: Labs) -> None:
    pid = labs.pid_of("emunet-respond")
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    assert {status[name].strip() for name in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"].strip() == "1"
    assert os.listdir(f"/proc/{pid}/root/") == []
    with pytest.raises(OSError, match="Read-only"):
        Path(f"/proc/{pid}/root/mark").touch()


def test_ports_by_the_hundreds(labs: Labs) -> None:
    """More than travel to the responder in one message."""
    many = addresses(labs, "many")[0]
    for port in (7000, 7099, 7100, 7249):
        assert ask(labs, "tcp", many, port, GET)["said"]["port"] == port


def test_a_responder_that_was_killed_is_there_again(labs: Labs) -> None:
    pid = labs.pid_of("emunet-respond")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    web, guest = addresses(labs, "web")[0], addresses(labs, "guest")[0]
    for address, port in ((web, 80), (web, 8080), (guest, 9100)):
        eventually(lambda at=(address, port): "said" in ask(labs, "tcp", *at, GET), f"{address}:{port} answers again")
    assert labs.pid_of("emunet-respond") != pid


def test_more_clients_than_it_holds(labs: Labs) -> None:
    """The oldest gives way: nobody keeps others out by saying nothing."""
    crowd = (
        "import socket, sys, resource\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (2048, 2048))\n"
        f"crowd = [socket.create_connection(('{addresses(labs, 'web')[0]}', 80), 10) for _ in range(1200)]\n"
        f"crowd[-1].sendall(b'{GET}')\n"
        "print(crowd[-1].recv(65536).decode())"
    )
    assert "200 OK" in labs.ok("exec", "client", "--", "/usr/bin/python3", "-c", crowd)


def descriptors(labs: Labs, name: str) -> int:
    """How many descriptors a process of the lab has."""
    return len(os.listdir(f"/proc/{labs.pid_of(name)}/fd"))
