"""Captures and the Scapy shell on a real lab: real programs on TAPs, read by tshark and capinfos."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_driver import TWO_HOSTS, Labs, balance, eventually

from emunet.packet.pcapng import INBOUND, OUTBOUND, CapturedFrame, read_capture

PORTS = ("web-1", "web-3", "host1:eth0", "host1:flannel.1")


@pytest.fixture(scope="module")
def labs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Labs]:
    """One lab for all tests of this file, watched from its first frame on."""
    made = Labs(tmp_path_factory.mktemp("run"))
    try:
        made.ok("up", str(TWO_HOSTS), "--wires", "tap", "--capture", f"web-1,host1:eth0={made.folder}/../first.pcapng")
        yield made
    finally:
        made.leave()


@pytest.fixture(autouse=True)
def _every_frame_is_accounted_for(labs: Labs) -> Iterator[None]:
    yield
    assert balance(labs.status()["frames"]) == 0


def need(program: str, package: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed: apt-get install {package}")


def watch(labs: Labs, *arguments: str) -> subprocess.Popen[str]:
    """Start a capture, and wait until it watches."""
    process = labs.start("capture", *arguments)
    assert process.stderr is not None
    assert "watching" in process.stderr.readline()
    return process


def end(process: subprocess.Popen[str]) -> str:
    """Press Ctrl-C; what it said."""
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return err


def tshark(file: Path, *fields: str, show: str = "") -> list[list[str]]:
    """Fields of every frame (that a display filter shows), all checksums judged."""
    need("tshark", "tshark")
    checks = [f"-o{layer}.check_checksum:TRUE" for layer in ("ip", "tcp", "udp")]
    wanted = [part for field in fields for part in ("-e", field)]
    command = ["tshark", "-r", str(file), *checks, "-T", "fields", *wanted, *(["-Y", show] if show else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [line.split("\t") for line in done.stdout.splitlines()]


WRONG = " || ".join(f"{name}.checksum.status == 0" for name in ("ip", "tcp", "udp", "icmp"))

SENDER = """
import socket, sys, time
count, rate, address = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
began = time.monotonic()
for number in range(count):
    ahead = began + number / rate - time.monotonic()
    if ahead > 0.001:
        time.sleep(ahead)
    sender.sendto(number.to_bytes(4, "big") + bytes(60), (address, 6000))
print(time.monotonic() - began)
"""
RECEIVER = """
import socket
receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
receiver.bind(("", 6000))
while receiver.recv(100):
    pass
"""
SERVER = """
import http.server
http.server.ThreadingHTTPServer(("", 8000), http.server.SimpleHTTPRequestHandler).serve_forever()
"""
UPLOAD = (
    "dd if=/dev/zero bs=1M count=2 status=none |"
    " curl -sS --retry 20 --retry-connrefused --retry-delay 1 -o /dev/null -T - http://web-3:8000/"
)


def test_from_the_first_frame(labs: Labs) -> None:
    """The first question for a MAC that any frame of this lab was is in the file, with all about its interfaces."""
    need("capinfos", "tshark")
    labs.ok("ping", "web-1", "web-3")
    file = labs.folder.parent / "first.pcapng"
    eventually(lambda: next(read_capture(file), None) is not None, "the capture has a frame")
    first = next(read_capture(file))
    assert (first.interface, first.direction, first.data[12:14]) == ("web-1", OUTBOUND, b"\x08\x06")
    told = subprocess.run(["capinfos", str(file)], capture_output=True, text=True, check=True).stdout
    assert "Description = eth0 of pod web-1 on host1, 10.244.1.2/24" in told
    assert "Description = eth0 of host host1, 192.168.9.11/24" in told
    assert told.count("Time precision = nanoseconds (9)") == 2
    assert tshark(file, "frame.number", show=f"_ws.malformed || {WRONG}") == []


def test_tcp_looks_as_a_wire_would_carry_it(labs: Labs, tmp_path: Path) -> None:
    """Superframes are cut, checksums are complete, nothing is longer than the MTU, on every port at once."""
    need("curl", "curl")
    need("tshark", "tshark")
    server = labs.start("exec", "web-3", "--", "python3", "-c", SERVER)
    capture = watch(labs, *PORTS, "-w", str(tmp_path / "x.pcapng"))
    try:
        labs.run("exec", "web-1", "--", "sh", "-c", UPLOAD, timeout=60)
    finally:
        said = end(capture)
        server.terminate()
        server.communicate(timeout=30)
    assert "none lost" in said
    rows = tshark(tmp_path / "x.pcapng", "frame.interface_name", "frame.len", show="tcp")
    for port, limit in (("web-1", 1464), ("web-3", 1464), ("host1:flannel.1", 1464), ("host1:eth0", 1514)):
        lengths = [int(row[1]) for row in rows if row[0] == port]
        assert lengths
        assert max(lengths) <= limit
    # (To tshark, a segment that passes four ports is one sent four times: of that it complains, and rightly.)
    assert tshark(tmp_path / "x.pcapng", "frame.number", "_ws.col.Info", show=WRONG) == []


def test_a_drop_is_told_with_its_reason(labs: Labs, tmp_path: Path) -> None:
    need("tshark", "tshark")
    capture = watch(labs, "web-1", "-w", str(tmp_path / "x.pcapng"))
    labs.run("exec", "web-1", "--", "ping", "-c", "1", "-W", "1", "-t", "1", "web-3")
    end(capture)
    fields = ("frame.comment", "frame.packet_flags_direction", "ip.ttl")
    rows = tshark(tmp_path / "x.pcapng", *fields, show="frame.comment")
    assert len(rows) == 1
    comment, direction, ttl = rows[0]
    assert comment.startswith("dropped at host1, router: TTL_EXPIRED: its TTL of 1 ends at host1")
    assert (direction, ttl) == ("0x00000002", "1")


def test_the_file_is_less_than_a_second_behind(labs: Labs, tmp_path: Path) -> None:
    capture = watch(labs, "web-1", "-w", str(tmp_path / "x.pcapng"))
    lags = []
    for _ in range(5):
        before = sum(1 for _ in read_capture(tmp_path / "x.pcapng"))
        labs.ok("ping", "web-1", "web-2")
        while True:
            frames = list(read_capture(tmp_path / "x.pcapng"))
            if len(frames) > before + 5:
                break
            assert time.time_ns() - frames[-1].time_ns < 10**10 if frames else True
        lags.append((time.time_ns() - frames[-1].time_ns) / 1e9)
    end(capture)
    # The lag counts the end of `emunet ping` too.
    assert max(lags) < 1, lags


@pytest.mark.slow
def test_50_000_frames_at_5_000_a_second_and_none_is_missing(labs: Labs, tmp_path: Path) -> None:
    receiver = labs.start("exec", "web-3", "--", "python3", "-c", RECEIVER)
    overruns = labs.status()["frames"]["wire_overruns"]
    capture = watch(labs, "web-1", "web-3", "-w", str(tmp_path / "x.pcapng"))
    try:
        labs.ok("exec", "web-1", "--", "python3", "-c", SENDER, "50000", "5000", "10.244.2.2", timeout=90)
    finally:
        said = end(capture)
        receiver.terminate()
        receiver.communicate(timeout=30)
    assert "none lost" in said
    assert labs.status()["frames"]["wire_overruns"] == overruns
    seen: dict[tuple[str, int], list[int]] = {}
    for frame in read_capture(tmp_path / "x.pcapng"):
        if is_udp(frame):
            seen.setdefault((frame.interface, frame.direction), []).append(int.from_bytes(frame.data[42:46], "big"))
    assert seen.keys() == {("web-1", OUTBOUND), ("web-3", INBOUND)}
    for numbers in seen.values():
        assert numbers == list(range(50_000))


def is_udp(frame: CapturedFrame) -> bool:
    return frame.data[12:14] == b"\x08\x00" and frame.data[23] == 17 and frame.data[36:38] == (6000).to_bytes(2, "big")


@pytest.mark.slow
def test_scapy_5_000_requests_at_500_a_second_are_all_matched(labs: Labs) -> None:
    code = """
import json, time
conf.verb = 0
began = time.monotonic()
requests = IP(dst="web-3")/ICMP(id=7, seq=(0, 4999))
# Scapy takes a millisecond to build and send one: so that much less between two.
pairs, unanswered = sr(requests, iface="web-1", inter=0.001, timeout=10)
print(json.dumps([len(pairs), len(unanswered), all(q[ICMP].seq == a[ICMP].seq for q, a in pairs)]))
"""
    assert json.loads(labs.ok("shell", "-c", code, timeout=120)) == [5000, 0, True]


def test_scapy_and_the_lab_at_one_prompt(labs: Labs) -> None:
    code = """
import json
conf.verb = 0
sniffer = AsyncSniffer(iface="host1:eth0", filter="udp port 4789", count=2); sniffer.start()
while not hasattr(sniffer, "continue_sniff"): time.sleep(0.01)
answer = sr1(IP(dst="web-3")/ICMP()/b"hello", iface="web-1", timeout=5)
sniffer.join(timeout=5)
trace = lab.trace("web-1", IP(dst="web-3", ttl=1)/ICMP())
print(json.dumps([answer.src, [p[VXLAN].vni for p in sniffer.results], lab.ping("web-1", "web-3")["unanswered"],
    trace["reason"], repr(trace).splitlines()[-1].split(":")[0], lab.status()["wires"], "web-1" in repr(lab.ports)]))
"""
    assert json.loads(labs.ok("shell", "-c", code)) == ["10.244.2.2", [1, 1], 0, "TTL_EXPIRED", "dropped", "tap", True]


def test_a_pods_kernel_resets_what_it_does_not_know(labs: Labs) -> None:
    """On TAPs the pod's kernel sees the answers too. As on a real machine, it resets a connection that Scapy opens."""
    code = """
import json
conf.verb = 0
sniffer = AsyncSniffer(iface="web-1", filter="tcp and port 4321", count=2); sniffer.start()
while not hasattr(sniffer, "continue_sniff"): time.sleep(0.01)
sr1(IP(dst="web-3")/TCP(sport=4321, dport=9, flags="S"), iface="web-1", timeout=5)
sniffer.join(timeout=10)
print(json.dumps([str(p[TCP].flags) for p in sniffer.results]))
"""
    assert json.loads(labs.ok("shell", "-c", code)) == ["S", "RA"]


def test_what_was_captured_can_be_replayed(labs: Labs, tmp_path: Path) -> None:
    capture = watch(labs, "web-1", "-w", str(tmp_path / "x.pcapng"))
    labs.ok("ping", "web-1", "web-3")
    end(capture)
    sent = sum(frame.direction == OUTBOUND for frame in read_capture(tmp_path / "x.pcapng"))
    assert sent >= 3
    again = watch(labs, "web-3", "-w", str(tmp_path / "again.pcapng"))
    told = labs.json("replay", str(tmp_path / "x.pcapng"), "--from", "web-1", "--only", "out", "--rate", "fast")
    end(again)
    assert told["frames"] == sent
    pings = [f for f in read_capture(tmp_path / "again.pcapng") if f.data[12:14] == b"\x08\x00" and f.data[34] == 8]
    assert len(pings) == 3
