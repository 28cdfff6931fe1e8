"""`emunet capture` and `emunet replay` as a person runs them, on a plane in memory."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from emunet.daemon.folder import folder_of, try_hold
from emunet.daemon.frame_channel import FrameChannel
from emunet.packet.pcap import PcapWriter
from emunet.packet.pcapng import read_capture
from tests.running_plane import RunningPlane


class Person:
    """Runs `emunet` where one lab is running."""

    def __init__(self, plane: RunningPlane) -> None:
        self.plane = plane

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command."""
        command = [sys.executable, "-m", "emunet", *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        command = [sys.executable, "-m", "emunet", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def watch(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a capture, and wait until it watches."""
        process = self.begin("capture", *arguments)
        assert process.stderr is not None
        assert "watching" in process.stderr.readline()
        return process


@pytest.fixture
def person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Person]:
    monkeypatch.setenv("EMUNET_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    held = try_hold(folder_of("two"))
    assert held is not None
    with RunningPlane(held.folder.path) as plane:
        yield Person(plane)
    held.remove()


def play(plane: RunningPlane, *frames: bytes) -> None:
    """Let frames in by web-1, and wait until they are."""
    with FrameChannel.connect(plane.path, ["web-1"], inject=True, watch=False) as sender:
        sender.send_many(frames)
        sender.settle()


def end(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Press Ctrl-C; what it printed and what it said."""
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    return out, err


def test_lines_with_the_reason_of_a_drop(person: Person) -> None:
    process = person.watch("web-1", "host1:eth0")
    play(person.plane, person.plane.echo("web-1", "web-3"), person.plane.echo("web-1", "web-3", ttl=1))
    out, err = end(process)
    lines = out.splitlines()
    asked = "web-1      out 10.244.1.2 > 10.244.2.2: ICMP echo request, id 7, seq 1, length 8, ttl 64"
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{6} " + re.escape(asked), lines[0])
    assert any(" host1:eth0 out 192.168.9.11:" in line and "VXLAN 1 {10.244.1.2 > 10.244.2.2" in line for line in lines)
    dropped = [line for line in lines if "dropped at host1, router: TTL_EXPIRED" in line]
    assert len(dropped) == 1
    assert dropped[0].startswith("   ")
    assert f"{len(lines) - 1} frames, none lost" in err


def test_lines_for_programs(person: Person) -> None:
    process = person.watch("web-1", "-o", "json", "-c", "1")
    frame = person.plane.echo("web-1", "web-2")
    play(person.plane, frame)
    out, err = process.communicate(timeout=30)
    told = json.loads(out)
    assert (told["port"], told["direction"], told["hex"]) == ("web-1", "out", frame.hex())
    assert "1 frame, none lost" in err


def test_a_file_and_ctrl_c(person: Person, tmp_path: Path) -> None:
    process = person.watch("web-1", "-w", str(tmp_path / "x.pcapng"))
    play(person.plane, *(person.plane.echo("web-1", "web-2", n) for n in range(100)))
    _, err = end(process)
    assert f"202 frames in {tmp_path}/x.pcapng, none lost" in err
    assert len(list(read_capture(tmp_path / "x.pcapng"))) == 202


def test_as_long_as_a_command_runs(person: Person, tmp_path: Path) -> None:
    """The command's output and exit code are the person's; it is waited for, though there are frames enough."""
    file = tmp_path / "x.pcapng"
    command = f"while [ ! -e {tmp_path}/played ]; do sleep 0.01; done; echo done; exit 3"
    process = person.begin("capture", "web-1", "-w", str(file), "--while", command)
    while not (file.exists() and file.stat().st_size):
        assert process.poll() is None
        time.sleep(0.01)
    play(person.plane, *(person.plane.echo("web-1", "web-2", n) for n in range(5)))
    (tmp_path / "played").touch()
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (3, "done\n")
    assert "frames in" in err
    assert "watching" not in err
    assert len(list(read_capture(file))) >= 5
    done = person.run("capture", "web-1", "--while", "true")
    assert (done.returncode, done.stdout) == (0, "")
    done = person.run("capture", "--follow", "icmp", "--while", "exit 4")
    assert (done.returncode, done.stdout) == (4, "")
    assert "0 packets seen" in done.stderr


def test_a_pipe_is_live(person: Person) -> None:
    """What passes can be read from standard output in less than a second."""
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed: apt-get install tshark")
    process = subprocess.Popen(
        [sys.executable, "-m", "emunet", "capture", "web-1", "-w", "-"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    assert process.stdout is not None
    assert b"watching" in process.stderr.readline()
    os.set_blocking(process.stdout.fileno(), False)
    while not process.stdout.read():  # what opens the file
        assert process.poll() is None
    began = time.monotonic()
    play(person.plane, person.plane.echo("web-1", "web-2"))
    while not (process.stdout.read() or b""):
        assert time.monotonic() - began < 1
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_time_is_up(person: Person) -> None:
    done = person.run("capture", "web-1", "--seconds", "0.2")
    assert done.returncode == 0
    assert "0 frames, none lost" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["capture"], 2, "name a port, like web-1 or host1:eth0"),
        (["capture", "web-9"], 1, "there is no port web-9; there are: "),
        (["capture", "host1"], 1, "host1 is a host, and its port on the wire is host1:eth0; there are: "),
        (["capture", "web-1", "web-2", "-w", "x.pcap"], 1, "one interface only; write x.pcapng, or name a single port"),
        (["capture", "web-1", "-w", "/nowhere/x.pcapng"], 1, "cannot write /nowhere/x.pcapng: No such file"),
        (["capture", "web-1", "--lab", "other"], 1, "the lab other is not running"),
        (["replay", "nothing.pcap", "--from", "web-1"], 2, "'nothing.pcap' does not exist"),
        (["replay", __file__, "--from", "web-1"], 1, "not a pcap file"),
        (["replay", __file__, "--from", "web-9"], 1, "there is no port web-9"),
        (["replay", __file__, "--from", "web-1", "--rate", "0"], 2, "0 is no rate: say original, fast, or a number"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(person: Person, arguments: list[str], code: int, sentence: str) -> None:
    done = person.run(*arguments)
    assert done.returncode == code
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_without_wireshark_live_says_how_to_get_it(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    done = person.run("capture", "web-1", "--live")
    assert done.returncode == 1
    assert "Wireshark is not installed: apt-get install wireshark" in done.stderr


def test_live_pipes_into_wireshark(person: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for Wireshark that keeps what it is given, and goes when it has had enough."""
    program = tmp_path / "bin" / "wireshark"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho $* > {tmp_path}/arguments\nhead -c 700 > {tmp_path}/seen\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    process = person.watch("web-1", "--live")
    play(person.plane, *(person.plane.echo("web-1", "web-2", n) for n in range(50)))
    process.communicate(timeout=30)  # it ends when the viewer does
    assert process.returncode == 0
    assert (tmp_path / "arguments").read_text() == "-k -N mnd -i -\n"
    assert (tmp_path / "seen").read_bytes().startswith(b"\n\r\r\n")


def test_replay_keeps_the_time_between_frames(person: Person, tmp_path: Path) -> None:
    with open(tmp_path / "in.pcap", "wb") as stream:
        writer = PcapWriter(stream)
        for number in range(5):
            writer.packet(10**18 + number * 100_000_000, person.plane.echo("web-1", "web-2", number))
    process = person.watch("web-2", "-w", str(tmp_path / "x.pcapng"))
    done = person.run("replay", str(tmp_path / "in.pcap"), "--from", "web-1")
    assert done.returncode == 0, done.stderr
    assert re.match(r"5 frames played into web-1 in 0\.[4-9] s", done.stdout)
    end(process)
    times = [frame.time_ns for frame in read_capture(tmp_path / "x.pcapng") if frame.data[34:35] == b"\x08"]
    gaps = [(later - earlier) / 1e9 for earlier, later in itertools.pairwise(times)]
    assert len(gaps) == 4
    assert all(0.05 < gap < 0.15 for gap in gaps), gaps


@pytest.mark.parametrize(("arguments", "count"), [(["--rate", "fast", "--loop", "3"], 600), (["--rate", "2000"], 200)])
def test_replay_at_other_rates(person: Person, tmp_path: Path, arguments: list[str], count: int) -> None:
    with open(tmp_path / "in.pcap", "wb") as stream:
        writer = PcapWriter(stream)
        for number in range(200):
            writer.packet(number * 10**9, person.plane.echo("web-1", "web-2", number))
    done = person.run("replay", str(tmp_path / "in.pcap"), "--from", "web-1", "-o", "json", *arguments)
    told = json.loads(done.stdout)
    assert told["frames"] == count
    assert told["seconds"] < 5
    counted = person.plane.call(person.plane.plane.counters)
    assert counted["world"]["received"] >= count


def test_replay_of_what_a_capture_says_was_sent(person: Person, tmp_path: Path) -> None:
    process = person.watch("web-1", "host1:cni0", "-w", str(tmp_path / "x.pcapng"))
    play(person.plane, person.plane.echo("web-1", "web-2"))
    end(process)
    only = ["--only", "out", "--interface", "web-1", "--rate", "fast"]
    done = person.run("replay", str(tmp_path / "x.pcapng"), "--from", "web-1", *only)
    assert done.stdout.startswith("2 frames played into web-1")  # the request, and the answer to an ARP question


def elsewhere(file: Path) -> None:
    """A ping between two strangers, captured at one of them, an answer included."""
    from scapy.layers.inet import ICMP, IP
    from scapy.layers.l2 import Ether

    with open(file, "wb") as stream:
        writer = PcapWriter(stream)
        for number, (kind, source, target) in enumerate(((8, 1, 2), (0, 2, 1), (8, 1, 2), (0, 2, 1))):
            ether = Ether(src=f"52:54:00:00:00:0{source}", dst=f"52:54:00:00:00:0{target}")
            packet = IP(src=f"192.0.2.{source}", dst=f"192.0.2.{target}", id=number + 1) / ICMP(
                type=kind, id=77, seq=number
            )
            writer.packet(number, bytes(ether / packet / b"hello"))


@pytest.mark.parametrize("how", [["--to", "web-3"], ["--map", "192.0.2.1=web-1", "--map", "192.0.2.2=web-3"]])
def test_a_capture_of_elsewhere_is_played_as_a_talk_of_two_pods(person: Person, tmp_path: Path, how: list[str]) -> None:
    elsewhere(tmp_path / "in.pcap")
    process = person.watch("web-1", "web-3", "-f", "icmp[4:2] = 77", "-w", str(tmp_path / "x.pcapng"))
    done = person.run("replay", str(tmp_path / "in.pcap"), "--from", "web-1", *how, "--rate", "fast")
    assert done.returncode == 0, done.stderr
    assert "4 frames played into web-1 and web-3" in done.stdout
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    seen = list(read_capture(tmp_path / "x.pcapng"))
    for source, target, kind in (("web-1", "web-3", 8), ("web-3", "web-1", 0)):
        sent = [
            frame for frame in seen if frame.interface == source and frame.direction == 2 and frame.data[34] == kind
        ]
        got = [frame for frame in seen if frame.interface == target and frame.direction == 1 and frame.data[34] == kind]
        played = {frame.packet_id for frame in sent} & {frame.packet_id for frame in got}
        assert len(played) >= 2, (source, len(sent), len(got))
        assert {frame.data[22] for frame in got if frame.packet_id in played} == {62}


def test_replay_says_what_does_not_fit(person: Person, tmp_path: Path) -> None:
    elsewhere(tmp_path / "in.pcap")
    for how, sentence in (
        (["--to", "web-9"], "there is no port web-9"),
        (["--map", "192.0.2.1"], "say OLD=NEW"),
        (["--map", "192.0.2.1=nobody"], "nobody is no address, and nothing in the lab is called so"),
        (["--map", "2001:db8::1=web-1"], "has no address of the family"),
    ):
        done = person.run("replay", str(tmp_path / "in.pcap"), "--from", "web-1", *how)
        assert done.returncode == 2
        assert sentence in done.stderr
