"""Captures that others made, played into a lab: no frame is lost without a reason, and none changes on its way in.

The files are test data beside the project, read in place; without them these tests are skipped.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from scapy.layers.l2 import Ether

from emunet.packet.address import parse_ip, parse_mac
from emunet.packet.pcap import CapturedFrame, PcapWriter
from emunet.packet.pcapng import OUTBOUND, read_capture
from emunet.packet.readdress import readdress, source_of
from emunet.testing import Lab

CAPTURES = Path(__file__).parents[3] / "shared" / "real" / "pcaps"
TOPOLOGY = Path(__file__).parents[2] / "topologies" / "two-hosts.yaml"
FILES = sorted(CAPTURES.rglob("*.pcap"))

pytestmark = pytest.mark.skipif(not FILES, reason="the captures of others are not beside this project")


def play(lab: Lab, frames: list[CapturedFrame], file: Path) -> list[CapturedFrame]:
    """Play frames into web-1 with the time between them; what a capture there has of them."""
    world = lab.plane.world
    with lab.capture(["web-1"], file):
        began = world.now
        for frame in frames:
            after = min(max(0, frame.time_ns - frames[0].time_ns), 60 * 10**9)
            world.advance(max(world.now, began + after))
            world.inject("web-1", frame.data, world.now)
        world.advance(world.now + 120 * 10**9)
    return [frame for frame in read_capture(file) if frame.direction == OUTBOUND]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_frame_is_accounted_for(path: Path, tmp_path: Path) -> None:
    frames = list(read_capture(path))
    assert frames
    with Lab(TOPOLOGY) as lab:
        seen = play(lab, frames, tmp_path / "x.pcapng")
        figures = lab.plane.world.ledger.as_dict()
        assert set(lab.plane.balance().values()) == {0}
        assert sum(figures["reasons"].values()) == figures["dropped"]
        # What the pod's own stack has to say comes between; of what was played nothing is missing or changed.
        rest = iter(seen)
        for frame in frames:
            again = next((one for one in rest if one.data == frame.data), None)
            assert again is not None
            assert all("dropped at" in comment for comment in again.comments)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_they_fit_the_lab_and_are_dissected_as_before(path: Path, tmp_path: Path) -> None:
    """With addresses of the lab: the same layers for tshark, the same for Scapy, and the right checksums right."""
    frames = list(read_capture(path))
    with Lab(TOPOLOGY) as lab:
        pods = {pod.name: pod for pod in lab.plane.world.config.pods}
        ends = next((ends for frame in frames if (ends := source_of(frame.data)) and len(ends[0]) == 4), None)
        addresses = {}
        if ends is not None and ends[0] != ends[1]:
            addresses = dict(zip(ends, (parse_ip("10.244.1.2"), parse_ip("10.244.2.2")), strict=True))
        macs = {frames[0].data[6:12]: pods["web-1"].mac, frames[0].data[:6]: parse_mac("02:00:00:00:00:99")}
        if frames[0].data[0] & 1:
            macs.popitem()
        fitted = [
            CapturedFrame(frame.time_ns, readdress(frame.data, addresses, macs), frame.original_length)
            for frame in frames
        ]
        play(lab, fitted, tmp_path / "x.pcapng")
        assert set(lab.plane.balance().values()) == {0}
    for old, new in zip(frames, fitted, strict=True):
        assert [layer.__name__ for layer in Ether(old.data).layers()] == [
            layer.__name__ for layer in Ether(new.data).layers()
        ]
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed: apt-get install tshark")
    assert dissected(fitted, tmp_path / "new.pcap") == dissected(frames, tmp_path / "old.pcap")


def dissected(frames: list[CapturedFrame], file: Path) -> list[str]:
    """Layers and the verdicts on checksums of each frame, as tshark has them."""
    with open(file, "wb") as stream:
        writer = PcapWriter(stream)
        for frame in frames:
            writer.packet(frame.time_ns, frame.data, frame.original_length)
    fields = ("frame.protocols", "ip.checksum.status", "tcp.checksum.status", "udp.checksum.status")
    checks = [f"-o{layer}.check_checksum:TRUE" for layer in ("ip", "tcp", "udp")]
    command = ["tshark", "-r", str(file), *checks, "-T", "fields"]
    for field in fields:
        command += ["-e", field]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
