"""`emunet conntrack`: a host's lines as they are, or taken apart for programs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from emunet.cli import conntrack as module
from emunet.cli.conntrack import conntrack, parsed
from emunet.lab.plane import Plane
from tests.elements.connection_worlds import ACK, OUTSIDE, SYN, Tracked, ip
from tests.worlds import datagram, echo, segment

POD1, POD3, NODE1, NODE2 = ip("10.244.1.2"), ip("10.244.2.2"), ip("192.168.9.11"), ip("192.168.9.12")


class FakeLab:
    """A lab's API over a World of this process."""

    def __init__(self, net: Tracked) -> None:
        self.plane = Plane(0, lambda *_: None)  # type: ignore[arg-type, return-value]
        self.plane.world = net.world

    def get(self, *path: str) -> Any:
        if path == ("status",):
            return {"hosts": [{"name": "host1"}, {"name": "host2"}]}
        return self.plane.tables(path[1])


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Tracked:
    net = Tracked()
    monkeypatch.setattr(module, "the_lab", lambda name: FakeLab(net))
    net.say("web-1", segment(POD1, POD3, 40_000, 80, SYN))
    net.say("web-3", segment(POD3, POD1, 80, 40_000, SYN | ACK))
    net.say("web-1", segment(POD1, POD3, 40_000, 80, ACK))
    net.say("web-1", echo(POD1, POD3))
    net.say(OUTSIDE, datagram(NODE2, NODE1, 5000, 9999, b"x"))
    return net


def run(*arguments: str) -> str:
    result = CliRunner().invoke(conntrack, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_a_hosts_connections_a_line_each(lab: Tracked) -> None:
    assert run("host1").splitlines() == [
        "tcp      6 432000 ESTABLISHED src=10.244.1.2 dst=10.244.2.2 sport=40000 dport=80 "
        "src=10.244.2.2 dst=10.244.1.2 sport=80 dport=40000 [ASSURED]",
        "icmp     1 30 src=10.244.1.2 dst=10.244.2.2 type=8 code=0 id=7 [UNREPLIED] "
        "src=10.244.2.2 dst=10.244.1.2 type=0 code=0 id=7",
        "udp      17 30 src=192.168.9.12 dst=192.168.9.11 sport=5000 dport=9999 [UNREPLIED] "
        "src=10.244.1.3 dst=192.168.9.12 sport=8080 dport=5000",
    ]
    assert [line for line in run().splitlines() if ":" in line] == ["host1: 3 connections", "host2: 3 connections"]


def test_for_programs(lab: Tracked) -> None:
    rows = json.loads(run("host1", "-o", "json"))
    assert rows[2] == {
        "host": "host1", "protocol": "udp", "seconds": 30, "state": None,
        "original": {"src": "192.168.9.12", "dst": "192.168.9.11", "sport": 5000, "dport": 9999},
        "reply": {"src": "10.244.1.3", "dst": "192.168.9.12", "sport": 8080, "dport": 5000},
        "seen_reply": False, "assured": False,
    }  # fmt: skip
    assert rows[0]["state"] == "ESTABLISHED"
    assert parsed("unknown  47 600 src=1.2.3.4 dst=1.2.3.5 src=1.2.3.5 dst=1.2.3.4")["protocol"] == "47"


def test_a_host_that_remembers_nothing(lab: Tracked) -> None:
    lab.rules(None)
    lab.table().delete_where(lambda key, row: True)
    assert run("host1") == "host1 remembers no connection\n"
