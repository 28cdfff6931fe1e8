"""Capture files: read back by ourselves, by Scapy and by Wireshark's own programs."""

from __future__ import annotations

import io
import json
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import PcapNgReader, PcapReader

from emunet.packet import pcap, pcapng
from emunet.packet.malformed import Malformed
from emunet.packet.pcap import INBOUND, OUTBOUND, CapturedFrame

TSHARK = shutil.which("tshark")
CAPINFOS = shutil.which("capinfos")
needs_tshark = pytest.mark.skipif(
    TSHARK is None or CAPINFOS is None, reason="tshark is not installed: apt-get install tshark"
)
TIME = 1_700_000_000_123_456_789


def _frame(number: int) -> bytes:
    datagram = IP(src="10.244.1.2", dst="10.244.2.2") / UDP(sport=1000 + number, dport=53000) / bytes(number)
    return bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / datagram)


def _write(stream: BinaryIO) -> list[CapturedFrame]:
    """A capture with everything in it; what should be read back."""
    section = "a comment on the file"
    writer = pcapng.PcapngWriter(stream, "emunet test", [section])
    writer.names({b"\x0a\xf4\x01\x02": ["web-1", "web-1.default"], bytes(15) + b"\1": ["self"], bytes(4): []})
    web = writer.interface("web-1", "pod default/web-1", b"\x02\0\0\0\0\1")
    expected = []
    for number in range(3):
        data, identity = _frame(number), number * 2**40
        writer.packet(web, TIME + number, data, direction=INBOUND, packet_id=identity)
        expected.append(CapturedFrame(TIME + number, data, len(data), "web-1", (), INBOUND, identity, section))
    late = writer.interface("switch1:2")
    comments = ("dropped: no-route", "there is no route to 10.9.9.9 — é")
    writer.packet(late, TIME + 9, _frame(5)[:40], direction=OUTBOUND, comments=comments, dropped=3, original_length=47)
    expected.append(CapturedFrame(TIME + 9, _frame(5)[:40], 47, "switch1:2", comments, OUTBOUND, 0, section))
    writer.statistics(web, TIME + 10, received=3)
    writer.statistics(late, TIME + 10, received=4, dropped=3)
    return expected


def test_our_reader_reads_what_we_write(tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    with path.open("wb") as stream:
        expected = _write(stream)
    assert list(pcapng.read_capture(path)) == expected


def test_scapy_reads_what_we_write(tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    with path.open("wb") as stream:
        expected = _write(stream)
    with PcapNgReader(str(path)) as reader:
        theirs = list(reader)
    assert [bytes(packet) for packet in theirs] == [frame.data for frame in expected]
    assert [round(packet.time * 10**9) for packet in theirs] == [frame.time_ns for frame in expected]
    assert theirs[3].sniffed_on == "switch1:2"
    assert theirs[0].direction == INBOUND


def test_a_frame_for_an_unknown_interface_is_not_written() -> None:
    with pytest.raises(ValueError, match="not added"):
        pcapng.PcapngWriter(io.BytesIO()).packet(0, 0, b"")


@needs_tshark
def test_wireshark_reads_what_we_write(tmp_path: Path) -> None:
    assert TSHARK is not None
    assert CAPINFOS is not None
    path = tmp_path / "a.pcapng"
    with path.open("wb") as stream:
        _write(stream)
    fields = [
        "frame.time_epoch", "frame.interface_name", "frame.interface_description", "frame.packet_flags_direction",
        "frame.comment", "frame.len", "frame.cap_len", "ip.src_host", "udp.checksum.status",
    ]  # fmt: skip
    arguments = [part for field in fields for part in ("-e", field)]
    options = ["-N", "n", "-o", "udp.check_checksum:TRUE"]
    run = subprocess.run(
        [TSHARK, "-r", str(path), "-T", "json", *options, *arguments], capture_output=True, text=True, check=True
    )
    rows = [entry["_source"]["layers"] for entry in json.loads(run.stdout)]
    assert [row["frame.interface_name"] for row in rows] == [["web-1"]] * 3 + [["switch1:2"]]
    assert rows[0]["frame.time_epoch"] == ["1700000000.123456789"]
    assert rows[0]["frame.interface_description"] == ["pod default/web-1"]
    assert [row["frame.packet_flags_direction"] for row in rows] == [["0x00000001"]] * 3 + [["0x00000002"]]
    assert rows[3]["frame.comment"] == ["dropped: no-route", "there is no route to 10.9.9.9 — é"]
    assert (rows[3]["frame.len"], rows[3]["frame.cap_len"]) == (["47"], ["40"])
    assert rows[0]["ip.src_host"] == ["web-1.default"], "names resolved from the file itself; the last one is shown"
    assert rows[0]["udp.checksum.status"] == ["1"]
    information = subprocess.run([CAPINFOS, str(path)], capture_output=True, text=True, check=True).stdout
    assert "Capture application: emunet test" in information
    assert "Number of interfaces in file: 2" in information
    assert "Number of packets:   4" in information
    assert "Name = switch1:2" in information
    assert "Number of stat entries = 1" in information


def test_classic_pcap_round_trip_and_scapy(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    with path.open("wb") as stream:
        writer = pcap.PcapWriter(stream)
        writer.packet(TIME, _frame(1))
        writer.packet(TIME + 1, _frame(2)[:20], original_length=44)
    expected = [CapturedFrame(TIME, _frame(1), 43), CapturedFrame(TIME + 1, _frame(2)[:20], 44)]
    assert list(pcapng.read_capture(path)) == expected
    with PcapReader(str(path)) as reader:
        theirs = list(reader)
    assert [bytes(packet) for packet in theirs] == [frame.data for frame in expected]
    assert [round(packet.time * 10**9) for packet in theirs] == [frame.time_ns for frame in expected]


@needs_tshark
def test_capinfos_reads_our_classic_pcap(tmp_path: Path) -> None:
    assert CAPINFOS is not None
    path = tmp_path / "a.pcap"
    with path.open("wb") as stream:
        pcap.PcapWriter(stream).packet(TIME, _frame(1))
    information = subprocess.run([CAPINFOS, str(path)], capture_output=True, text=True, check=True).stdout
    assert "Wireshark/tcpdump/... - nanosecond pcap" in information
    assert "Number of packets:   1" in information


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("magic", "unit"), [(0xA1B2C3D4, 1000), (0xA1B23C4D, 1)])
def test_classic_pcap_of_others(order: str, magic: int, unit: int) -> None:
    data = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, 1)
    data += struct.pack(order + "IIII", 5, 7, 4, 60) + b"abcd"
    assert list(pcap.read(io.BytesIO(data))) == [CapturedFrame(5_000_000_000 + 7 * unit, b"abcd", 60)]


def _block(order: str, kind: int, body: bytes) -> bytes:
    length = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + length + body + length


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("resolution", "ticks", "time_ns"),
    [(b"", 1_000_001, 1_000_001_000), (b"\x09", 5, 5), (b"\x8a", 1536, 1_500_000_000), (b"\x00", 3, 3_000_000_000)],
)
def test_pcapng_of_others(order: str, resolution: bytes, ticks: int, time_ns: int) -> None:
    """Both byte orders, other time resolutions, blocks that we never write, blocks that nobody knows."""

    def option(code: int, value: bytes) -> bytes:
        return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)

    section = _block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))
    options = option(2, b"eth0") + (option(9, resolution) if resolution else b"") + bytes(4)
    interface = _block(order, 1, struct.pack(order + "HHI", 1, 0, 3) + options)
    stamp = struct.pack(order + "II", ticks >> 32, ticks & 0xFFFFFFFF)
    packet_options = option(1, b"one") + option(99, b"?") + option(1, b"two") + bytes(4)
    enhanced = _block(
        order, 6, struct.pack(order + "I", 0) + stamp + struct.pack(order + "II", 3, 60) + b"abc\0" + packet_options
    )
    old = _block(order, 2, struct.pack(order + "HH", 0, 1) + stamp + struct.pack(order + "II", 3, 60) + b"abc\0")
    simple = _block(order, 3, struct.pack(order + "I", 60) + b"abc\0")
    unknown = _block(order, 0x0BAD, b"????")
    file = section + interface + unknown + enhanced + old + simple
    frames = list(pcapng.read(io.BytesIO(file + file)))
    assert frames[:3] == [
        CapturedFrame(time_ns, b"abc", 60, "eth0", ("one", "two")),
        CapturedFrame(time_ns, b"abc", 60, "eth0"),
        CapturedFrame(0, b"abc", 60, "eth0"),
    ]
    assert frames[3:] == frames[:3], "a second section begins anew"


@pytest.mark.parametrize("read", [pcap.read, pcapng.read])
def test_a_cut_file_gives_what_was_whole(read: Callable[[io.BytesIO], object]) -> None:
    stream = io.BytesIO()
    if read is pcapng.read:
        _write(stream)
    else:
        writer = pcap.PcapWriter(stream)
        for number in range(4):
            writer.packet(TIME, _frame(number))
    whole = stream.getvalue()
    seen = set()
    for cut in range(len(whole)):
        frames = 0
        try:
            for _ in read(io.BytesIO(whole[:cut])):  # type: ignore[attr-defined]
                frames += 1
        except Malformed:
            pass
        seen.add(frames)
    assert seen >= {0, 1, 2, 3}


def test_other_link_types_are_refused() -> None:
    classic = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)
    with pytest.raises(Malformed, match="link type 101"):
        list(pcap.read(io.BytesIO(classic)))
