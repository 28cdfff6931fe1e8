"""`python -m emunet.shell.expression`: what a person writes -> the bytes that the pod's own stack would send."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import IO

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether

from emunet.shell.lab import addresses_of_services

NAMES = {
    "web-1": {"mac": "02:00:00:00:00:01", "addresses": ["10.244.1.2", "fd00:1::2"]},
    "web-3": {"mac": "02:00:00:00:00:03", "addresses": ["10.244.2.2", "fd00:2::2"]},
    "host1": ["192.168.9.11"],
    "web": {"mac": None, "addresses": ["10.96.0.80"]},
}


DRIVER = """
import json, sys
from emunet.shell import expression as program
names = json.loads(sys.argv[1])
for line in sys.stdin:
    sender, text = json.loads(line)
    sys.stdin = type("Names", (), {"read": lambda self: json.dumps(names)})()
    sys.argv[1:] = ["--names", "--from", sender, text]
    code = program.main()
    print(f"exit {code}", flush=True)
    print(f"exit {code}", file=sys.stderr, flush=True)
"""


@pytest.fixture(scope="module")
def program() -> Iterator[subprocess.Popen[str]]:
    """The program's `main`, again and again in one process: Scapy takes half a second to load."""
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, json.dumps(NAMES)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


Ask = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ask(program: subprocess.Popen[str]) -> Ask:
    """(exit code, standard output, standard error) for an expression."""

    def until_exit(stream: IO[str] | None) -> tuple[str, int]:
        assert stream is not None
        text = ""
        while not (line := stream.readline()).startswith("exit "):
            assert line, "the program has ended"
            text += line
        return text, int(line.split()[1])

    def run(expression: str, sender: str = "web-1") -> tuple[int, str, str]:
        assert program.stdin is not None
        program.stdin.write(json.dumps([sender, expression]) + "\n")
        program.stdin.flush()
        out, code = until_exit(program.stdout)
        return code, out, until_exit(program.stderr)[0]

    return run


Built = Callable[[str], tuple[bytes, bool]]


@pytest.fixture
def built(ask: Ask) -> Built:
    """The bytes of an expression that is a packet, and whether they are a frame."""

    def run(expression: str) -> tuple[bytes, bool]:
        code, out, err = ask(expression)
        assert code == 0, err
        told = json.loads(out)
        return bytes.fromhex(told["hex"]), told["has_ethernet"]

    return run


def test_as_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "emunet.shell.expression", "--names", "--from", "web-1", 'IP(dst="web-3")'],
        input=json.dumps(NAMES),
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert json.loads(done.stdout)["has_ethernet"] is False


def test_names_are_addresses_and_the_source_is_the_senders(built: Built) -> None:
    data, has_ethernet = built('IP(dst="web-3")/ICMP()')
    assert not has_ethernet
    assert (IP(data).src, IP(data).dst) == ("10.244.1.2", "10.244.2.2")
    assert ICMP in IP(data)
    data, _ = built('IPv6(dst="web-3")/ICMPv6EchoRequest()')
    assert (IPv6(data).src, IPv6(data).dst) == ("fd00:1::2", "fd00:2::2")


def test_what_is_said_is_kept(built: Built) -> None:
    data, _ = built('IP(src="web-3", dst="host1", ttl=3)/UDP(dport=53)/DNS(qd=DNSQR(qname="a"))')
    packet = IP(data)
    assert (packet.src, packet.dst, packet.ttl, packet[UDP].dport) == ("10.244.2.2", "192.168.9.11", 3, 53)


def test_an_empty_ethernet_header_is_none(built: Built) -> None:
    assert built('Ether()/IP(dst="web-3")/ICMP()') == built('IP(dst="web-3")/ICMP()')


@pytest.mark.parametrize("expression", ['ARP(pdst="web-3")', 'Ether()/ARP(pdst="web-3")'])
def test_a_question_for_a_mac_is_a_whole_frame(built: Built, expression: str) -> None:
    data, has_ethernet = built(expression)
    frame = Ether(data)
    assert has_ethernet
    assert (frame.dst, frame.src) == ("ff:ff:ff:ff:ff:ff", "02:00:00:00:00:01")
    assert (frame[ARP].hwsrc, frame[ARP].psrc, frame[ARP].pdst) == ("02:00:00:00:00:01", "10.244.1.2", "10.244.2.2")


def test_bytes_are_a_frame(built: Built) -> None:
    assert built('bytes.fromhex("ffffffffffff020000000001") + b"\\x08\\x06"') == (
        bytes.fromhex("ffffffffffff0200000000010806"),
        True,
    )


@pytest.mark.parametrize(
    ("expression", "sentence"),
    [
        ('IP(dst="web-3"', "this is no Python expression at column 3: '(' was never closed"),
        ('IP(dst="web-3")/TPC()', "Scapy has no TPC: did you mean TCP?"),
        ('IP(dst="web-9")/ICMP()', "nothing in the lab is called web-9, and it is no address"),
        ('IP(dst=["web-3", "host1"])', "the expression stands for several packets"),
        ("1 + 1", "the expression is 2 and no packet"),
        ("1 / 0", "the expression fails: ZeroDivisionError: division by zero"),
        ('IP(dst="web-3", ttl=300)', "the packet cannot be built: ValueError: While building field 'ttl'"),
        ('Ether(src="02:00:00:00:00:09")/IP(dst="web-3")', "the frame has no destination: write Ether(dst=...)"),
    ],
)
def test_what_is_wrong_is_one_sentence(ask: Ask, expression: str, sentence: str) -> None:
    code, out, err = ask(expression)
    assert (code, out) == (1, "")
    assert err.startswith(sentence)
    assert err.count("\n") == 1


def test_a_sender_without_an_address_of_the_family(ask: Ask) -> None:
    _, _, err = ask('IPv6(dst="web-3")/ICMPv6EchoRequest()', sender="host1")
    assert err == "say IPv6(src=...): host1 has no such address of its own\n"


def test_a_service_is_an_address_too(built: Built) -> None:
    data, _ = built('IP(dst="web")/ICMP()')
    assert IP(data).dst == "10.96.0.80"
    lab = NamesOnly()
    told = addresses_of_services(lab)  # type: ignore[arg-type]  # nothing else is asked of it
    assert (told("web", 4), told("default/web", 4)) == ("10.96.0.80", "10.96.0.80")
    assert (told("web", 6), told("nobody", 4)) == (None, None)
    asked = lab.asked
    assert told("10.96.0.80", 4) is None
    assert lab.asked == asked, "an address is looked up nowhere"


class NamesOnly:
    """A lab that is asked for its names."""

    asked = 0

    def get(self, *path: str) -> dict[str, object]:
        assert path == ("names",)
        self.asked += 1
        return {"web": NAMES["web"]}
