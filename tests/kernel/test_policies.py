"""NetworkPolicy among real kernels: who may connect, and what becomes of open connections when policies change."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_driver import TWO_HOSTS, Labs, balance

SERVER = """
import socketserver
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(100):
            self.request.sendall(data)
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(("", 8081), Echo).serve_forever()
"""
CLIENT = """
import socket, sys, time
connection = socket.create_connection((sys.argv[1], 8081), 3)
connection.settimeout(2)
while True:
    connection.sendall(b"x")
    try:
        print("echo" if connection.recv(1) else "end", flush=True)
    except TimeoutError:
        print("silence", flush=True)
        break
    time.sleep(0.05)
"""
DENY = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: deny}\nspec: {podSelector: {}}\n"


@pytest.fixture(params=["connection", "packet"])
def labs(request: pytest.FixtureRequest, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Labs]:
    """Two hosts whose policies decide for connections, or for packets."""
    file = tmp_path / "topology.yaml"
    file.write_text(TWO_HOSTS.read_text().replace("\nspec:\n", f"\nspec:\n  networkPolicy: {request.param}\n", 1))
    made = Labs(tmp_path_factory.mktemp("run"))
    made.mode = request.param  # type: ignore[attr-defined]
    try:
        made.ok("up", str(file), "--wires", "tap")
        yield made
        assert balance(made.status()["frames"]) == 0
        made.ok("down")
    finally:
        made.leave()


def say(client: subprocess.Popen[str]) -> str:
    """The next line of a client."""
    assert client.stdout is not None
    return client.stdout.readline().strip()


@pytest.mark.slow
@pytest.mark.rule("NP-17", "NP-18")
def test_an_open_connection_goes_on_or_ends_as_the_topology_says(labs: Labs, tmp_path: Path) -> None:
    """New ones do not begin in either case; the pods' own node is never kept out."""
    (address,) = next(pod["ips"] for pod in labs.status()["pods"] if pod["name"] == "web-3")
    labs.start("exec", "web-3", "--", "python3", "-c", SERVER)
    deadline = time.monotonic() + 20
    connect = ("--", "python3", "-c", f"import socket; socket.create_connection(('{address}', 8081), 1)")
    while labs.run("exec", "web-1", *connect).returncode:
        assert time.monotonic() < deadline, "the server never listened"
    client = labs.start("exec", "web-1", "--", "python3", "-c", CLIENT, address)
    assert say(client) == "echo"
    policy = tmp_path / "deny.yaml"
    policy.write_text(DENY)
    labs.ok("apply", "-f", str(policy))
    assert labs.run("exec", "web-1", *connect).returncode == 1
    assert labs.run("exec", "host2", *connect).returncode == 0
    if labs.mode == "connection":  # type: ignore[attr-defined]
        assert {say(client) for _ in range(200)} == {"echo"}
        client.terminate()
    else:
        while (line := say(client)) == "echo":
            pass
        assert line == "silence"
    assert labs.status()["frames"]["reasons"]["POLICY_INGRESS"] > 0
    labs.ok("delete", "-f", str(policy))
    assert labs.run("exec", "web-1", *connect).returncode == 0
