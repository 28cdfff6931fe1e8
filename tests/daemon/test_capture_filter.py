"""Capture filters: libpcap's language and judgement, with the names of the lab."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from emunet.daemon import capture_filter as module
from emunet.daemon.capture_file import CaptureFile
from emunet.daemon.capture_filter import BadFilter, CaptureFilter, addresses_by_name, capture_filter, with_addresses
from emunet.daemon.frame_channel import FrameChannel
from emunet.daemon.frame_format import PortInfo
from emunet.packet.pcap import PcapWriter
from emunet.packet.pcapng import read_capture
from tests.running_plane import RunningPlane

PORTS = [
    PortInfo("web-1", "pod", "host1", addresses=("10.244.1.2/24",)),
    PortInfo("blue/api", "pod", "host1", addresses=("10.244.1.3/24", "fd00::3/64")),
    PortInfo("host", "pod", "host1", addresses=("10.244.1.4/24",)),
    PortInfo("host1:eth0", "host", "host1", addresses=("192.168.9.11/24",)),
    PortInfo("switch1:1", "switch", "switch1"),
]


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("host web-1", "host 10.244.1.2"),
        ("src default/web-1 and dst blue/api", "src 10.244.1.2 and dst (10.244.1.3 or fd00::3)"),
        ("not(host web-1||host host1)", "not(host 10.244.1.2||host 192.168.9.11)"),
        ("host host1:eth0 and tcp[13]&2!=0", "host 192.168.9.11 and tcp[13]&2!=0"),
        ("host web-10", "host web-10"),
        ("host host", "host host"),
    ],
)
def test_a_name_of_the_lab_is_its_address(said: str, meant: str) -> None:
    """Whole words only; a word of the language is never a name."""
    assert with_addresses(said, addresses_by_name(PORTS)) == meant


def test_libpcap_says_what_is_wrong() -> None:
    with pytest.raises(BadFilter, match=r"'port 99999' is no capture filter: libpcap says: illegal port number"):
        CaptureFilter("port 99999")
    with pytest.raises(BadFilter, match=r"can't parse filter expression: syntax error"):
        capture_filter("host web-1 host", PORTS)


def test_what_only_a_driver_knows_is_refused() -> None:
    """It would compile, and then let nothing through."""
    with pytest.raises(BadFilter, match=r"frame\.packet_flags_direction"):
        CaptureFilter("icmp and inbound")


def test_a_machine_without_libpcap_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_loaded", [])
    monkeypatch.setattr(module, "_LIBRARIES", ("libnothing.so.0",))
    with pytest.raises(BadFilter, match=r"apt-get install libpcap0\.8"):
        CaptureFilter("icmp")


@pytest.mark.parametrize("frame", [b"", b"\0" * 13, b"\0" * 12 + b"\x08\x00", b"\xff" * 2000])
def test_any_bytes_are_judged(frame: bytes) -> None:
    assert not CaptureFilter("icmp and host 10.244.1.2").takes(frame)


def test_tcpdumps_own_judgement_is_the_same(tmp_path: Path) -> None:
    """tshark reads with the filter in its capture engine's language: the same frames are left."""
    if shutil.which("tcpdump") is None:
        pytest.skip("tcpdump is not installed: apt-get install tcpdump")
    with RunningPlane(tmp_path) as plane:
        frames = [
            plane.echo("web-1", f"web-{n}", sequence, size=size)
            for n in (2, 3)
            for sequence, size in ((1, 0), (2, 900))
        ]
    with open(tmp_path / "x.pcap", "wb") as stream:
        writer = PcapWriter(stream)
        for number, frame in enumerate(frames):
            writer.packet(number, frame)
    for text in ("icmp", "dst net 10.244.2.0/24", "greater 500 and not dst 10.244.1.3", "icmp[6:2] = 2", "tcp"):
        ours = [CaptureFilter(text).takes(frame) for frame in frames]
        command = ["tcpdump", "-r", str(tmp_path / "x.pcap"), "-w", str(tmp_path / "y.pcap"), text]
        subprocess.run(command, check=True, capture_output=True)
        left = [frame.data for frame in read_capture(tmp_path / "y.pcap")]
        assert [frame for frame, taken in zip(frames, ours, strict=True) if taken] == left


def test_a_capture_counts_what_its_filter_took(tmp_path: Path) -> None:
    """Wireshark shows all three: received, dropped, accepted by the filter."""
    with RunningPlane(tmp_path) as plane:
        file = tmp_path / "x.pcapng"
        capture = CaptureFile.open(plane.path, ["web-1"], str(file), filter="icmp and greater 500 and host web-3")
        with FrameChannel.connect(plane.path, ["web-1"], inject=True, watch=False) as sender:
            sender.send_many(plane.echo("web-1", "web-3", size=size) for size in (0, 600, 10, 700))
            sender.settle()
        capture.close()
    lengths = [len(frame.data) for frame in read_capture(file)]
    assert lengths == [642, 642, 742, 742]
    assert (capture.written, capture.lost) == (4, 0)
    assert capture.passed >= 8
    accepted = b"\x06\x00\x08\x00" + (4).to_bytes(8, "little")  # isb_filteraccept
    assert accepted in file.read_bytes()[-40:]
