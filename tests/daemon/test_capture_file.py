"""Capture files as others read them: tshark and capinfos for pcapng, our own reader for both forms."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from emunet.daemon import frames
from emunet.daemon.capture_file import CaptureFile
from emunet.daemon.frame_channel import FrameChannel, FrameChannelError
from emunet.daemon.port_facts import ports_of
from emunet.packet.pcapng import INBOUND, OUTBOUND, read_capture
from tests.running_plane import RunningPlane

needs_tshark = pytest.mark.skipif(
    shutil.which("tshark") is None or shutil.which("capinfos") is None,
    reason="tshark is not installed: apt-get install tshark",
)


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[RunningPlane]:
    with RunningPlane(tmp_path) as running:
        yield running


def play(plane: RunningPlane, *frames: bytes, port: str = "web-1") -> None:
    """Let frames in by a port, and wait until they are."""
    with FrameChannel.connect(plane.path, [port], inject=True, watch=False) as sender:
        sender.send_many(frames)
        sender.settle()


def tshark(file: Path, *fields: str, show: str = "") -> list[list[str]]:
    """Fields of every frame, as tshark reads them, checksums judged."""
    checks = [f"-o{layer}.check_checksum:TRUE" for layer in ("ip", "tcp", "udp")]
    wanted = [part for field in fields for part in ("-e", field)]
    command = ["tshark", "-r", str(file), *checks, "-T", "fields", *wanted, *(["-Y", show] if show else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [line.split("\t") for line in done.stdout.splitlines()]


@needs_tshark
def test_tshark_agrees_with_what_was_written(plane: RunningPlane, tmp_path: Path) -> None:
    file = tmp_path / "x.pcapng"
    capture = CaptureFile.open(plane.path, ["web-1", "host1:eth0", "web-3"], str(file), lab="two-hosts")
    play(plane, *(plane.echo("web-1", "web-3", n) for n in range(5)), plane.echo("web-1", "web-3", ttl=1))
    capture.close()
    assert (capture.failure, capture.lost) == ("", 0)

    rows = tshark(
        file, "frame.interface_name", "frame.interface_description", "frame.packet_flags_direction", "frame.comment",
        "frame.time_epoch", "eth.src",
    )  # fmt: skip
    assert len(rows) == capture.written
    assert {(row[0], row[1]) for row in rows} == {
        ("web-1", "eth0 of pod web-1 on host1, 10.244.1.2/24"),
        ("host1:eth0", "eth0 of host host1, 192.168.9.11/24"),
        ("web-3", "eth0 of pod web-3 on host2, 10.244.2.2/24"),
    }
    web = plane.port("web-1").mac
    sent = {row[2] for row in rows if row[0] == "web-1" and row[5] == web}
    received = {row[2] for row in rows if row[0] == "web-1" and row[5] != web}
    assert (sent, received) == ({"0x00000002"}, {"0x00000001"})
    comments = [row[3] for row in rows if row[3]]
    assert len(comments) == 1
    assert comments[0].startswith("dropped at host1, router: TTL_EXPIRED: its TTL of 1 ends at host1")
    assert any(not row[4].endswith("000") for row in rows)  # nanoseconds
    bad = "_ws.malformed || ip.checksum.status == 0 || udp.checksum.status == 0 || icmp.checksum.status == 0"
    assert tshark(file, "frame.number", show=bad) == []

    told = subprocess.run(["capinfos", str(file)], capture_output=True, text=True, check=True).stdout
    assert "Number of interfaces in file: 3" in told
    assert told.count("Time precision = nanoseconds (9)") == 3
    assert told.count("Number of stat entries = 1") == 3
    assert "Capture comment:     emunet lab two-hosts" in told
    assert "Number of resolved IPv4 addresses in file: 10" in told


def test_what_our_own_reader_finds(plane: RunningPlane, tmp_path: Path) -> None:
    capture = CaptureFile.open(plane.path, ["web-1"], str(tmp_path / "x.pcapng"))
    request = plane.echo("web-1", "web-2")
    play(plane, request)
    capture.close()
    found = [frame for frame in read_capture(tmp_path / "x.pcapng") if frame.data[12:14] == b"\x08\x00"]
    assert [(frame.interface, frame.direction) for frame in found] == [("web-1", OUTBOUND), ("web-1", INBOUND)]
    assert found[0].data == request
    assert abs(found[0].time_ns - time.time_ns()) < 10**10


def test_classic_pcap_has_one_port(plane: RunningPlane, tmp_path: Path) -> None:
    with pytest.raises(FrameChannelError, match=r"a classic pcap file has one interface only; write .*y\.pcapng"):
        CaptureFile.open(plane.path, ["web-1", "web-2"], str(tmp_path / "y.pcap"))
    capture = CaptureFile.open(plane.path, ["web-1", "web-1"], str(tmp_path / "x.pcap"))
    play(plane, plane.echo("web-1", "web-2"))
    capture.close()
    assert (tmp_path / "x.pcap").read_bytes()[:4] == bytes.fromhex("4d3cb2a1")  # nanoseconds, little-endian
    assert len(list(read_capture(tmp_path / "x.pcap"))) == capture.written == 4


def test_a_limit_ends_it(plane: RunningPlane, tmp_path: Path) -> None:
    capture = CaptureFile.open(plane.path, ["web-1"], str(tmp_path / "x.pcapng"), limit=3)
    play(plane, *(plane.echo("web-1", "web-2", n) for n in range(20)))
    while capture.read():
        time.sleep(0.01)
    capture.close()
    assert capture.full
    assert len(list(read_capture(tmp_path / "x.pcapng"))) == capture.written == 3


def test_it_is_on_disk_while_it_grows(plane: RunningPlane, tmp_path: Path) -> None:
    """A reader of the file is at most one `read` behind."""
    file = tmp_path / "x.pcapng"
    capture = CaptureFile.open(plane.path, ["web-1"], str(file))
    for sequence in range(3):
        play(plane, plane.echo("web-1", "web-2", sequence))
        deadline = time.monotonic() + 5
        while sum(frame.data[34:35] == b"\0" for frame in read_capture(file)) <= sequence:
            assert time.monotonic() < deadline
            capture.read()
    capture.close()


def test_a_full_disk_is_a_sentence(plane: RunningPlane) -> None:
    capture = CaptureFile.open(plane.path, ["web-1"], "/dev/full")
    assert not capture.read()
    assert capture.failure == "cannot write /dev/full: No space left on device"
    capture.close()


def test_a_reader_of_the_pipe_that_goes_is_no_failure(plane: RunningPlane) -> None:
    reading, writing = os.pipe()
    capture = CaptureFile.into(plane.path, ["web-1"], os.fdopen(writing, "wb"), "a pipe")
    os.close(reading)
    play(plane, plane.echo("web-1", "web-2"))
    deadline = time.monotonic() + 5
    while capture.read():
        assert time.monotonic() < deadline
    capture.close()
    assert capture.failure == ""


def test_losses_stand_in_the_file(plane: RunningPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "QUEUE_LIMIT", 100_000)
    monkeypatch.setattr(frames, "_SOCKET_BUFFER", 100_000)
    capture = CaptureFile.open(plane.path, ["web-1"], str(tmp_path / "x.pcapng"))
    play(plane, *(plane.echo("web-1", "web-2", n, size=400) for n in range(2000)))
    capture.close()
    assert capture.lost > 0
    assert capture.written + capture.lost >= 4000
    if shutil.which("capinfos") is not None:  # what each interface dropped
        shown = tshark(tmp_path / "x.pcapng", "frame.number")
        assert len(shown) == capture.written


def test_before_the_stacks_are_there_the_facts_are_given(plane: RunningPlane, tmp_path: Path) -> None:
    """`up --capture` opens the file when ports exist and nothing is behind them yet."""
    facts = ports_of(plane.config)
    capture = CaptureFile.open(plane.path, ["web-1"], str(tmp_path / "x.pcapng"), facts=facts)
    capture.close()
    assert b"eth0 of pod web-1 on host1, 10.244.1.2/24" in (tmp_path / "x.pcapng").read_bytes()


def test_a_packet_has_one_identity_at_every_port(plane: RunningPlane, tmp_path: Path) -> None:
    """Over a tunnel and through two routers; its answer is another packet, and so is the next request."""
    ports = ("web-1", "host1:cni0", "host1:flannel.1", "host1:eth0", "switch1:1", "switch1:2", "host2:eth0", "web-3")
    play(plane, plane.echo("web-1", "web-3", 1))  # whoever must be asked for a MAC has been asked
    capture = CaptureFile.open(plane.path, ports, str(tmp_path / "x.pcapng"), lab="two")
    play(plane, plane.echo("web-1", "web-3", 2), plane.echo("web-1", "web-3", 3))
    capture.close()
    frames = list(read_capture(tmp_path / "x.pcapng"))
    seen: dict[int, list[str]] = {}
    for frame in frames:
        seen.setdefault(frame.packet_id, []).append(frame.interface)
    there = ["web-1", "host1:cni0", "host1:flannel.1", "host1:eth0", "switch1:1", "switch1:2", "host2:eth0", "web-3"]
    assert [way for way in seen.values() if way[0] == "web-1"] == [there, there]
    assert len(seen) == 4
    assert [way[0] for way in seen.values()].count("web-3") == 2
    assert {frame.section.partition(", run ")[0] for frame in frames} == {"emunet lab two"}
