"""`emunet forward`: a port of this machine leads to pods and hosts, TCP and UDP, IPv4 and IPv6."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from lab_driver import Labs, one_lab

from emunet.cli.forward import read_wish

TOPOLOGY = """apiVersion: emunet/v1
kind: Topology
metadata: {name: ways}
spec:
  hosts: [host1, host2]
  podCIDRs: [10.244.0.0/16, "fd00:10:244::/56"]
  underlay: {cidrs: [192.168.9.0/24, "fd00:9::/64"]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  nodeName: host2
  containers: [{name: a, image: x, ports: [{containerPort: 80}, {containerPort: 53, protocol: UDP}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: sink}
spec:
  nodeName: host1
  containers:
    - name: c
      image: x
      command:
        - python3
        - -c
        - |
          import hashlib, socket
          server = socket.create_server(("", 7000))
          while True:
              client, _ = server.accept()
              digest = hashlib.sha256()
              while data := client.recv(65536):
                  digest.update(data)
              client.sendall(digest.hexdigest().encode())
              client.close()
---
apiVersion: v1
kind: Service
metadata: {name: shop}
spec:
  selector: {app: web}
  type: NodePort
  ports:
    - {name: http, port: 8080, targetPort: 80, nodePort: 30080}
    - {name: udp, port: 5353, targetPort: 53, protocol: UDP}
---
apiVersion: v1
kind: Service
metadata: {name: bare}
spec: {clusterIP: None, selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: guest}
spec: {nodeName: host2, hostNetwork: true, containers: [{name: a, image: x, ports: [{containerPort: 9100}]}]}
"""


@pytest.fixture(scope="module")
def labs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Labs]:
    """One lab for all tests of this file."""
    with one_lab(tmp_path_factory.mktemp("forward"), TOPOLOGY) as made:
        yield made


@contextmanager
def forwarding(labs: Labs, *arguments: str) -> Iterator[tuple[list[tuple[str, int]], subprocess.Popen[str]]]:
    """A running `emunet forward`, and the addresses of this machine where it listens."""
    wishes = sum(not one.startswith("-") for one in arguments)
    started = labs.start("forward", *arguments)
    assert started.stdout is not None
    at = []
    for _ in range(2 * wishes):
        line = started.stdout.readline()
        found = re.match(r"\[?([0-9a-f.:]+?)\]?:(\d+) leads to ", line)
        assert found is not None, line or started.communicate(timeout=10)
        at.append((found[1], int(found[2])))
    try:
        yield at, started
    finally:
        if started.poll() is None:
            started.send_signal(signal.SIGINT)
            assert started.wait(10) == 130


def get(address: str, port: int) -> dict[str, Any]:
    """The responder's JSON, as a browser of this machine sees it."""
    host = f"[{address}]" if ":" in address else address
    with urllib.request.urlopen(f"http://{host}:{port}/here", timeout=10) as answer:
        told: dict[str, Any] = json.load(answer)
    return told


def test_http_to_a_pod_over_both_loopbacks(labs: Labs) -> None:
    """It comes from the pod's own host, as real frames: the pod sees its gateway's address."""
    with forwarding(labs, "0:web:80") as (at, _):
        assert [address for address, _ in at] == ["127.0.0.1", "::1"]
        for address, port in at:
            told = get(address, port)
            assert (told["pod"], told["path"]) == ("web", "/here")
            assert told["client"] == told["address"].rpartition(".")[0] + ".1"


def test_ipv6_inside(labs: Labs) -> None:
    with forwarding(labs, "--ipv6", "0:web:80") as (at, _):
        assert get(*at[0])["address"].startswith("fd00:10:244:")


def test_to_a_host_it_comes_from_another_host(labs: Labs) -> None:
    with forwarding(labs, "0:host2:9100") as (at, _):
        told = get(*at[0])
        assert (told["pod"], told["address"], told["client"]) == ("guest", "192.168.9.12", "192.168.9.11")


def test_to_an_address_and_several_at_once(labs: Labs) -> None:
    ip = next(pod["ips"][0] for pod in labs.status("ways")["pods"] if pod["name"] == "web")
    with forwarding(labs, f"0:{ip}:80", "0:web:80") as (at, _):
        assert {get(*one)["pod"] for one in at} == {"web"}


def test_udp(labs: Labs) -> None:
    with forwarding(labs, "0:web:53/udp") as (at, _):
        for address, port in at:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            with (
                socket.socket(family, socket.SOCK_DGRAM) as first,
                socket.socket(family, socket.SOCK_DGRAM) as second,
            ):
                seen = set()
                for client in (first, second):
                    client.settimeout(10)
                    client.sendto(b"?", (address, port))
                    answer, sender = client.recvfrom(2000)
                    assert sender[1] == port
                    seen.add(answer.decode().split()[-1])
                assert len(seen) == 2, "each client has a socket of its own in the lab"


def test_to_a_service_and_to_its_port_on_every_host(labs: Labs) -> None:
    """The translation is the lab's own: kube-proxy's, on the host that sends."""
    with forwarding(labs, "0:svc/shop:8080", "0:svc/default/shop:5353/udp", "0:host1:30080") as (at, _):
        assert get(*at[0])["pod"] == "web"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(10)
            client.sendto(b"?", at[2])
            assert client.recv(2000).startswith(b"pod=web ")
        assert get(*at[4])["pod"] == "web"


def test_megabytes_and_a_half_closed_connection(labs: Labs) -> None:
    data = bytes(range(256)) * (8 << 12)
    with forwarding(labs, "0:sink:7000") as (at, _), socket.create_connection(at[0], 10) as client:
        sending = threading.Thread(target=lambda: (client.sendall(data), client.shutdown(socket.SHUT_WR)))
        sending.start()
        got = b""
        while more := client.recv(65536):
            got += more
        sending.join()
        assert got.decode() == hashlib.sha256(data).hexdigest()


def test_what_is_refused_inside_is_refused_outside_and_said(labs: Labs) -> None:
    with forwarding(labs, "0:web:81") as (at, started):
        with socket.create_connection(at[0], 10) as client, pytest.raises(ConnectionResetError):
            client.recv(1)
        assert started.stderr is not None
        assert re.search(r"port 81: Connection refused", started.stderr.readline())


def test_it_ends_with_the_lab(labs: Labs, tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text(TOPOLOGY.replace("name: ways", "name: brief"))
    labs.ok("up", str(tmp_path / "other.yaml"))
    with forwarding(labs, "0:web:80", "--lab=brief") as (_, started):
        labs.ok("down", "--lab", "brief")
        assert started.wait(20) == 1
        assert started.stderr is not None
        assert "the lab brief has ended" in started.stderr.read()


@pytest.mark.parametrize(
    ("argument", "code", "said"),
    [
        (
            "8080:nowhere:80",
            1,
            "there is no pod or host nowhere, and it is no address; there are: guest, sink, web, ",
        ),
        ("8080:svc/bare:80", 1, "has no address of its own (it is headless): forward to one of its pods"),
        ("8080:svc/nothing", 1, 'services "nothing" not found'),
        ("0.0.0.0:8080:web:80", 2, "a lab is open to this machine only"),
        ("web:80", 2, "is not of the form [ADDRESS:]PORT:TARGET[:PORT][/udp], as in 8080:web-1:80"),
        ("80800:web:80", 2, "ports go from 1 to 65535"),
    ],
)
def test_what_makes_no_sense(labs: Labs, argument: str, code: int, said: str) -> None:
    done = labs.run("forward", argument)
    assert done.returncode == code
    assert said in " ".join(done.stderr.split())


def test_a_port_that_is_taken(labs: Labs) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = labs.run("forward", f"{port}:web:80")
        assert (done.returncode, done.stderr.strip()) == (
            1, f"emunet: cannot listen on 127.0.0.1 port {port}: Address already in use",
        )  # fmt: skip


def test_the_machine_has_no_new_route_into_the_lab(labs: Labs) -> None:
    """Only what was asked for leads in."""
    ip = next(pod["ips"][0] for pod in labs.status("ways")["pods"] if pod["name"] == "web")
    with forwarding(labs, "0:web:80"):
        routes = subprocess.run(["ip", "route", "get", ip], capture_output=True, text=True, check=False).stdout
        assert "cni0" not in routes


def test_how_arguments_are_read() -> None:
    assert read_wish("8080:web-1:80").addresses == ("127.0.0.1", "::1")
    wish = read_wish("[::1]:53:[fd00::2]:5353/udp")
    assert (wish.addresses, wish.port, wish.target, wish.to, wish.udp) == (("::1",), 53, "fd00::2", 5353, True)
    wish = read_wish("127.0.0.2:80:svc/shop")
    assert (wish.addresses, wish.target, wish.to, wish.udp) == (("127.0.0.2",), "svc/shop", 80, False)
    assert read_wish("80:blue/web-1:81/tcp").target == "blue/web-1"
