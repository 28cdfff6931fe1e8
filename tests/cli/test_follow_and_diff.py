"""`emunet capture --follow` and `emunet diff` as a person runs them, on a plane in memory."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from emunet.packet.pcapng import read_capture
from tests.cli.test_capture_and_replay import Person, person, play

__all__ = ["person"]

WAY = [
    ("web-1", "out"), ("host1:cni0", "in"), ("host1:flannel.1", "out"), ("host1:eth0", "out"), ("switch1:1", "in"),
    ("switch1:2", "out"), ("host2:eth0", "in"), ("host2:flannel.1", "in"), ("host2:cni0", "out"), ("web-3", "in"),
]  # fmt: skip


def follow(person: Person, *arguments: str, frames: list[bytes]) -> subprocess.CompletedProcess[str]:
    process = person.watch("--follow", *arguments)
    play(person.plane, *frames)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return subprocess.CompletedProcess(process.args, 0, out, err)


def test_one_packet_at_every_port(person: Person, tmp_path: Path) -> None:
    """The filter is true of it behind the tunnel only; what was seen before belongs to it all the same."""
    echo = person.plane.echo
    play(person.plane, echo("web-1", "web-3", 1))
    frames = [echo("web-1", "web-2", 2), echo("web-1", "web-3", 3), echo("web-1", "web-3", 4)]
    done = follow(
        person, "udp port 4789 and udp[30:4] != 0", "-c", "1", "-w", str(tmp_path / "x.pcapng"), frames=frames
    )
    assert "1 packet seen at 10 ports in all, none lost" in done.stderr
    seen = list(read_capture(tmp_path / "x.pcapng"))
    assert [(frame.interface, {1: "in", 2: "out"}[frame.direction]) for frame in seen] == WAY
    assert len({frame.packet_id for frame in seen}) == 1
    comments = [frame.comments for frame in seen]
    assert comments[0] == comments[1] == ()
    assert "TTL 64 -> 63" in comments[2][0]
    assert comments[3][0] == "put into VXLAN 1 from 192.168.9.11 to 192.168.9.12"
    assert comments[7][0] == "taken out of VXLAN 1 from 192.168.9.11 to 192.168.9.12"


def test_as_lines_and_as_json(person: Person) -> None:
    echo = person.plane.echo
    play(person.plane, echo("web-1", "web-3", 1))
    wanted = "icmp[icmptype] = icmp-echo and host web-3"
    done = follow(person, wanted, "-c", "2", frames=[echo("web-1", "web-3", number) for number in range(9)])
    assert done.stdout.count("packet ") == 2
    assert "host1:eth0      out  put into VXLAN 1" in done.stdout
    done = follow(person, wanted, "-c", "1", "-o", "json", frames=[echo("web-1", "web-3", ttl=1)])
    packets = json.loads(done.stdout)
    assert [row["port"] for row in packets[0]] == ["web-1", "host1:cni0"]
    assert packets[0][0]["comments"][0].startswith("dropped at host1, router: TTL_EXPIRED")


def test_what_changed_on_the_way(person: Person, tmp_path: Path) -> None:
    file = str(tmp_path / "x.pcapng")
    echo = person.plane.echo
    play(person.plane, echo("web-1", "web-3", 1), echo("web-3", "web-1", 1))
    process = person.watch("web-1", "web-3", "host1:eth0", "-w", file, "--seconds", "1")
    play(person.plane, *(echo("web-1", "web-3", number) for number in range(5)), echo("web-1", "web-3", 9, ttl=1))
    process.communicate(timeout=30)
    told = json.loads(person.run("diff", file, "--from", "web-1", "--to", "web-3", "-o", "json").stdout)
    assert (told["matched"], told["by_identity"]) == (10, 10)
    assert [(way["from"], way["to"], way["packets"]) for way in told["ways"]] == [
        ("web-1", "web-3", 5),
        ("web-3", "web-1", 5),
    ]
    assert told["ways"][0]["changes"]["TTL"] == {"64 -> 62": 5}
    lost = [row["comments"] for row in told["only_in_a"] if row["comments"]]
    assert lost[0][0].startswith("dropped at host1, router: TTL_EXPIRED")
    text = person.run("diff", file, file, "--from", "web-1", "--to", "host1:eth0").stdout
    assert "put into: VXLAN 1 from 192.168.9.11 to 192.168.9.12 (all)" in text
    assert "TTL_EXPIRED" in text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["FILE"], "name a second file, or two ports of this one"),
        (["FILE", "FILE"], "has several ports: say --from PORT, one of web-1, web-3"),
        (["FILE", "--from", "web-9", "--to", "web-1"], "has no frame of web-9; it has those of web-1, web-3"),
        ([__file__, __file__], "not a pcap file"),
    ],
)
def test_what_is_not_clear_is_asked(person: Person, tmp_path: Path, arguments: list[str], sentence: str) -> None:
    file = str(tmp_path / "x.pcapng")
    process = person.watch("web-1", "web-3", "-w", file, "--seconds", "0.5")
    play(person.plane, person.plane.echo("web-1", "web-3"))
    process.communicate(timeout=30)
    done = person.run("diff", *(file if word == "FILE" else word for word in arguments))
    assert done.returncode != 0
    assert sentence in done.stderr


def test_follow_without_sense_is_refused(person: Person) -> None:
    assert "a filter of its own" in person.run("capture", "--follow", "icmp", "-f", "udp").stderr
    assert "libpcap says" in person.run("capture", "--follow", "foo bar").stderr
    assert "name a port" in person.run("capture").stderr
