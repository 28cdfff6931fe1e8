"""`emunet wireshark` and what it installs, as tshark uses it: every port of every running lab is an interface."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN

from emunet.cli import wireshark
from emunet.daemon import frames
from emunet.daemon.folder import folder_of, try_hold
from emunet.daemon.frame_channel import FrameChannel
from emunet.packet.pcap import PcapWriter
from emunet.packet.pcapng import read_capture
from tests.running_plane import RunningPlane

pytestmark = [
    pytest.mark.skipif(
        shutil.which("tshark") is None or shutil.which("capinfos") is None,
        reason="tshark is not installed: apt-get install tshark",
    ),
    pytest.mark.slow,  # all of them together
]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without any settings of Wireshark's."""
    for name in ("XDG_CONFIG_HOME", "WIRESHARK_CONFIG_DIR", "WIRESHARK_EXTCAP_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EMUNET_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def lab(home: Path) -> Iterator[RunningPlane]:
    yield from running("two")


def running(name: str, topology: str = "two-hosts") -> Iterator[RunningPlane]:
    held = try_hold(folder_of(name))
    assert held is not None
    with RunningPlane(held.folder.path, topology) as plane:
        yield plane
    held.remove()


def emunet(*arguments: str, code: int = 0) -> str:
    command = [sys.executable, "-m", "emunet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def tshark(*arguments: str, code: int = 0) -> str:
    done = subprocess.run(["tshark", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def listed() -> dict[str, str]:
    """What `tshark -D` says of ours: name -> description."""
    rows = (line.partition(". ")[2].partition(" (") for line in tshark("-D").splitlines())
    return {name: rest.removesuffix(")") for name, _, rest in rows if "emunet lab" in rest}


class Sender:
    """Sends echo requests from web-1 to web-3, all the time that a capture needs to begin."""

    def __init__(self, plane: RunningPlane) -> None:
        self.plane = plane
        self.channel = FrameChannel.connect(plane.path, ["web-1"], inject=True, watch=False)

    def watched_by(self, process: subprocess.Popen[str]) -> str:
        """Send until the capture has had enough; what it said."""
        sequence = 0
        while process.poll() is None:
            sequence += 1
            self.channel.send(self.plane.echo("web-1", "web-3", sequence, ttl=1 if sequence % 2 else 64))
            try:
                process.wait(0.02)
            except subprocess.TimeoutExpired:
                continue
        self.channel.close()
        _, said = process.communicate(timeout=30)
        assert process.returncode == 0, said
        return said


def test_every_port_is_listed_after_the_installation_and_none_after_the_removal(lab: RunningPlane, home: Path) -> None:
    assert listed() == {}
    assert "not installed" in emunet("wireshark")
    assert "installed as" in emunet("wireshark", "--install")
    ports = listed()
    assert ports.keys() == {port.name for port in FrameChannel.list_ports(lab.path)}
    assert ports["web-1"] == "eth0 of pod web-1 on host1, 10.244.1.2/24 (emunet lab two)"
    assert "installed as" in emunet("wireshark")
    assert "removed" in emunet("wireshark", "--remove")
    assert listed() == {}
    assert "nothing to remove" in emunet("wireshark", "--remove")
    assert [path for path in home.rglob("*") if path.is_file()] == []


def test_what_a_person_wrote_there_stays(home: Path) -> None:
    folders = wireshark.find_folders()
    folders.configuration.mkdir(parents=True)
    folders.decode_as.write_text("decode_as_entry: udp.port,5000,(none),VXLAN\n")
    emunet("wireshark", "--install")
    emunet("wireshark", "--install")
    both = folders.decode_as.read_text()
    assert both.count("\n") == 2
    folders.decode_as.write_text(f"# Wireshark wrote this anew\n{both}")
    emunet("wireshark", "--remove")
    folders.decode_as.write_text(folders.decode_as.read_text().replace("# Wireshark wrote this anew\n", ""))
    assert folders.decode_as.read_text() == "decode_as_entry: udp.port,5000,(none),VXLAN\n"
    folders.script.write_text("#!/bin/sh\necho mine\n")
    assert "emunet did not write it" in emunet("wireshark", "--install", code=1)
    assert "nothing to remove" in emunet("wireshark", "--remove")
    assert folders.script.read_text() == "#!/bin/sh\necho mine\n"


def test_other_tunnel_ports_are_dissected_after_the_installation(home: Path, tmp_path: Path) -> None:
    """8472, flannel's own, is nothing to Wireshark by itself."""
    inner = Ether() / IP(src="10.244.1.2", dst="10.244.2.2") / ICMP()
    outer = Ether() / IP(src="192.168.9.11", dst="192.168.9.12") / UDP(sport=50000, dport=8472)
    with open(tmp_path / "x.pcap", "wb") as stream:
        PcapWriter(stream).packet(0, bytes(outer / VXLAN(vni=1, flags="Instance") / inner))

    def protocols() -> str:
        return tshark("-r", str(tmp_path / "x.pcap"), "-T", "fields", "-e", "frame.protocols").strip()

    assert protocols() == "eth:ethertype:ip:udp:data"
    emunet("wireshark", "--install")
    assert protocols() == "eth:ethertype:ip:udp:vxlan:eth:ethertype:ip:icmp"
    emunet("wireshark", "--remove")
    assert protocols() == "eth:ethertype:ip:udp:data"


def test_tshark_captures_at_a_port(lab: RunningPlane, home: Path, tmp_path: Path) -> None:
    """Five frames of web-1, with names, comments of drops, identities, nanoseconds, as in a file of ours."""
    emunet("wireshark", "--install")
    fields = ("frame.interface_name", "frame.comment", "frame.packet_id", "frame.packet_flags_direction", "ip.dst_host")
    wanted = [part for field in fields for part in ("-e", field)]
    command = ["tshark", "-i", "web-1", "-c", "5", "-N", "nd", "-w", str(tmp_path / "x.pcapng")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    Sender(lab).watched_by(process)
    shown = tshark("-r", str(tmp_path / "x.pcapng"), "-N", "nd", "-Y", "icmp", "-T", "fields", *wanted)
    rows = [line.split("\t") for line in shown.splitlines()]
    assert rows
    assert {row[0] for row in rows} == {"web-1"}
    assert {name for row in rows for name in row[4].split(",")} <= {"web-1", "web-3"}  # an error quotes a packet
    dropped = [row for row in rows if row[1]]
    assert dropped
    assert all(row[1].startswith("dropped at host1, router: TTL_EXPIRED") for row in dropped)
    assert all(int(row[2]) > 0 for row in rows)
    assert {row[3] for row in rows} <= {"0x00000001", "0x00000002"}


def test_a_filter_is_the_labs(lab: RunningPlane, home: Path, tmp_path: Path) -> None:
    emunet("wireshark", "--install")
    command = ["tshark", "-i", "web-1", "-f", "icmp[icmptype] = icmp-echo and dst host web-3", "-c", "3"]
    process = subprocess.Popen(
        [*command, "-w", str(tmp_path / "x.pcapng")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    Sender(lab).watched_by(process)
    assert {frame.data[34] for frame in read_capture(tmp_path / "x.pcapng")} == {8}
    assert "libpcap says: can't parse filter expression" in tshark("-i", "web-1", "-f", "foo bar", "-c", "1", code=1)


def test_the_same_port_of_two_labs_says_which(lab: RunningPlane, home: Path) -> None:
    emunet("wireshark", "--install")
    for _ in running("other", "one-host"):
        ports = listed()
        both = {port.name for port in FrameChannel.list_ports(folder_of("two").frames)} & {
            port.name for port in FrameChannel.list_ports(folder_of("other").frames)
        }
        assert both
        for name in both:
            assert {f"{name}@two", f"{name}@other"} <= ports.keys()
            assert name not in ports


def numbered(plane: RunningPlane, number: int, size: int = 60) -> bytes:
    """A frame from web-1 to web-2 that nobody answers: its number is in it."""
    ends = bytes.fromhex((plane.port("web-2").mac + plane.port("web-1").mac).replace(":", ""))
    return ends + b"\x88\xb5" + number.to_bytes(4, "big") + bytes(size)


def until_watched(plane: RunningPlane) -> None:
    """Wait until somebody watches."""
    deadline = time.monotonic() + 30
    while not plane.call(lambda: any(client.sinks for client in plane.server.clients)):
        assert time.monotonic() < deadline, "nobody watches"
        time.sleep(0.01)


def sent_numbers(file: Path) -> list[tuple[int, int]]:
    """(number, frames lost just before) of each frame in a capture, as tshark has it."""
    fields = ("-Y", "eth.type == 0x88b5", "-T", "fields", "-e", "data.data", "-e", "frame.drop_count")
    rows = (line.split("\t") for line in tshark("-r", str(file), *fields).splitlines())
    return [(int(data[:8], 16), int(lost or 0)) for data, lost in rows]


@pytest.mark.slow
def test_50_000_frames_at_5_000_a_second_and_none_is_missing(lab: RunningPlane, home: Path, tmp_path: Path) -> None:
    emunet("wireshark", "--install")
    command = [
        "tshark",
        "-q",
        "-i",
        "web-1",
        "-f",
        "ether proto 0x88b5",
        "-c",
        "50000",
        "-w",
        str(tmp_path / "x.pcapng"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until_watched(lab)
    began = time.monotonic()
    with FrameChannel.connect(lab.path, ["web-1"], inject=True, watch=False) as sender:
        for first in range(0, 50_000, 25):
            ahead = began + first / 5000 - time.monotonic()
            if ahead > 0:
                time.sleep(ahead)
            sender.send_many(numbered(lab, number) for number in range(first, first + 25))
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert sent_numbers(tmp_path / "x.pcapng") == [(number, 0) for number in range(50_000)]


def test_who_does_not_keep_up_is_told_exactly_what_is_missing(
    lab: RunningPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wireshark's pipe is read by nobody for a while: each frame says how many are missing before it."""
    monkeypatch.setattr(frames, "QUEUE_LIMIT", 200_000)
    fifo, file = tmp_path / "fifo", tmp_path / "x.pcapng"
    os.mkfifo(fifo)
    command = [
        sys.executable,
        "-m",
        "emunet.cli.extcap",
        "--extcap-interface",
        "web-1",
        "--capture",
        "--fifo",
        str(fifo),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    count = 12_000
    with open(fifo, "rb") as pipe:
        until_watched(lab)
        with FrameChannel.connect(lab.path, ["web-1"], inject=True, watch=False) as sender:
            sender.send_many(numbered(lab, number, 1400) for number in range(count))
            sender.settle()
        process.terminate()
        file.write_bytes(pipe.read())
    _, said = process.communicate(timeout=30)
    assert process.returncode == 0, said
    rows = sent_numbers(file)
    missing = count - len(rows)
    assert missing > 1000
    expected = 0
    for number, lost in rows:
        assert number == expected + lost
        expected = number + 1
    told = sum(lost for _, lost in rows) + count - expected
    assert told == missing
    assert f"{missing:,} frames lost: they came faster than Wireshark took them" in said
    statistics = file.read_bytes()[-44:]  # an interface statistics block: received (4), dropped (5)
    assert (5).to_bytes(2, "little") + (8).to_bytes(2, "little") + missing.to_bytes(8, "little") in statistics
