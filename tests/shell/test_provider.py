"""Every port is an interface of Scapy: sent, sniffed, asked and answered as Scapy documents it.

Scapy is taught in a process of its own, since it has one routing table and one list of
interfaces for all. Each test is a script that prints what it found as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.running_plane import RunningPlane

BEGIN = """
import json, sys, time
from emunet.shell.ports import Ports
from emunet.shell.provider import install
from scapy.all import *
install(Ports(sys.argv[1]))
conf.verb = 0
def tell(value): print(json.dumps(value))
"""


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPlane]:
    with RunningPlane(tmp_path_factory.mktemp("shell")) as running:
        yield running
        assert running.balance() == {0}


@pytest.fixture
def scapy(plane: RunningPlane) -> Any:
    def run(script: str) -> Any:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-W", "error", "-c", BEGIN + script, os.fspath(plane.path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return json.loads(done.stdout)

    return run


def test_ports_are_interfaces(scapy: Any) -> None:
    names, mac, address, first, networks = scapy("""
tell([
    [name for name, dev in conf.ifaces.items() if dev.provider.name == "emunet"],
    get_if_hwaddr("web-1"), get_if_addr("web-1"), str(conf.iface),
    [[ltoa(row[0]), row[2], row[4]] for row in conf.route.routes if row[3] == "web-1"],
])""")
    assert names[:5] == ["web-1", "web-2", "web-3", "web-4", "host1:eth0"]
    assert mac.count(":") == 5
    assert (address, first) == ("10.244.1.2", "web-1")
    assert networks == [["10.244.1.0", "0.0.0.0", "10.244.1.2"], ["0.0.0.0", "10.244.1.1", "10.244.1.2"]]


def test_an_answer_to_a_frame_and_to_a_packet(scapy: Any) -> None:
    """Names, sources, next hops: all as the pod's own stack would have them."""
    told = scapy("""
frame = srp1(Ether()/IP(dst="web-3")/ICMP()/b"hello", iface="web-1", timeout=5)
packet = sr1(IP(dst="web-1")/ICMP()/b"hello", iface="web-4", timeout=5)
default = sr1(IP(dst="web-2")/ICMP(), timeout=5)
tell([frame[IP].src, frame[IP].dst, frame[IP].ttl, frame.dst == get_if_hwaddr("web-1"),
      packet.src, packet.dst, bytes(packet[Raw]).decode(), default.src, default.dst])
""")
    assert told[:4] == ["10.244.2.2", "10.244.1.2", 62, True]
    assert told[4:] == ["10.244.1.2", "10.244.2.3", "hello", "10.244.1.3", "10.244.1.2"]


def test_what_else_is_asked(scapy: Any) -> None:
    told = scapy("""
arp = srp1(Ether(dst="ff:ff:ff:ff:ff:ff")/ARP(pdst="web-2"), iface="web-1", timeout=5)
reset = sr1(IP(dst="web-3")/TCP(dport=80, sport=1234), iface="web-1", timeout=5)
expired = sr1(IP(dst="web-3", ttl=1)/UDP(dport=80), iface="web-1", timeout=5)
long = sr1(IP(dst="web-3")/UDP(dport=81, sport=7)/(b"x" * 3000), iface="web-1", timeout=5)
silent = sr1(IP(dst="web-3")/ICMP(type=0), iface="web-1", timeout=0.2)
several, _ = sr(IP(dst=Net("10.244.1.0/30"))/ICMP(id=5), iface="web-4", timeout=5)
listed, _ = srp([Ether()/IP(dst=name)/ICMP() for name in ("web-1", "web-2", "web-3")], iface="web-4", timeout=5)
found = arping("10.244.1.3", iface="web-1", timeout=5, verbose=0)[0]
tell([arp[ARP].hwsrc == get_if_hwaddr("web-2"), str(reset[TCP].flags), expired.src, long[ICMP].code, silent is None,
      sorted(pair.answer.src for pair in several), len(listed), [pair.answer.psrc for pair in found]])
""")
    assert told[:5] == [True, "RA", "10.244.1.1", 3, True]
    assert told[5:] == [[f"10.244.1.{number}" for number in range(4)], 3, ["10.244.1.3"]]


def test_sniffing_several_ports_both_ways(scapy: Any) -> None:
    told = scapy("""
seen = []
sniffer = AsyncSniffer(iface=["web-1", "web-3", "host1:eth0"], prn=seen.append, store=False); sniffer.start()
while not sniffer.running or not hasattr(sniffer, "continue_sniff"): time.sleep(0.01)
sendp(Ether()/IP(dst="web-3")/ICMP(seq=77)/b"hello", iface="web-1")
deadline = time.monotonic() + 10
while sum(ICMP in p for p in seen) < 6 and time.monotonic() < deadline: time.sleep(0.01)
sniffer.stop()
tell([(p.sniffed_on, p[ICMP].type, VXLAN in p, abs(p.time - time.time()) < 15) for p in seen if ICMP in p])
""")
    assert sorted(told) == [
        ["host1:eth0", 0, True, True],
        ["host1:eth0", 8, True, True],
        ["web-1", 0, False, True],
        ["web-1", 8, False, True],
        ["web-3", 0, False, True],
        ["web-3", 8, False, True],
    ]


def test_a_filter_is_libpcaps(scapy: Any) -> None:
    told = scapy("""
wanted = "icmp and greater 100 and src host (web-1 or web-3)"
sniffer = AsyncSniffer(iface="web-3", filter=wanted, count=2); sniffer.start()
while not hasattr(sniffer, "continue_sniff"): time.sleep(0.01)
sendp([Ether()/IP(dst="web-3")/ICMP()/(b"h" * size) for size in (5, 100, 6)], iface="web-1")
sniffer.join(timeout=30)
try: sniff(iface="web-3", filter="no such thing", timeout=1)
except Scapy_Exception as error: wrong = str(error)
tell([[len(p) for p in sniffer.results], wrong])
""")
    assert told[0] == [142, 142]
    assert told[1].startswith(
        "Cannot set filter: 'no such thing' is no capture filter: libpcap says: can't parse filter expression"
    )


def test_more_ports_than_select_knows_descriptors(scapy: Any) -> None:
    told = scapy("""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
held = [open("/dev/null") for _ in range(1100)]
answer = srp1(Ether()/IP(dst="web-2")/ICMP(), iface="web-1", timeout=5)
[one.close() for one in held]
tell(answer is not None)
""")
    assert told is True


def test_an_unknown_interface_is_scapys_own_error(scapy: Any) -> None:
    told = scapy("""
try: sendp(Ether(), iface="web-9")
except ValueError as error: tell(str(error))
""")
    assert told == "Interface 'web-9' not found !"


def test_many_requests_are_all_matched(scapy: Any) -> None:
    told = scapy("""
asked = 600
pairs, unanswered = sr(IP(dst="web-3")/ICMP(id=7, seq=(0, asked - 1)), iface="web-1", inter=1/1000, timeout=5)
tell([len(pairs), len(unanswered), all(q[ICMP].seq == a[ICMP].seq for q, a in pairs)])
""")
    assert told == [600, 0, True]


def test_sockets_are_closed(scapy: Any) -> None:
    """ResourceWarnings are errors here; and the plane has forgotten who is gone."""
    told = scapy("""
import gc, os
before = len(os.listdir("/proc/self/fd"))
for _ in range(20):
    srp1(Ether()/IP(dst="web-2")/ICMP(), iface="web-1", timeout=5)
    sniff(iface="web-1", count=1, timeout=0.01, filter="icmp")
gc.collect()
tell(len(os.listdir("/proc/self/fd")) - before)
""")
    assert told <= 0
