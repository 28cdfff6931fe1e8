"""Who sent what to whom: captures of a lab as messages, names, drops, and pictures of them."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from scapy.layers.inet import ICMP, IP

from emunet.cli.draw import draw
from emunet.packet import arp
from emunet.packet.address import parse_mac
from emunet.packet.pcap import PcapWriter
from emunet.packet.pcapng import read_capture, read_facts
from emunet.pictures.raster import png
from emunet.pictures.sequence import Course, sequence
from emunet.pictures.sequence_svg import sequence_svg
from emunet.pictures.sequence_text import sequence_lines
from emunet.testing import Lab

ROOT = Path(__file__).parent.parent.parent
PORTS = ["web-1", "host1:eth0", "web-3"]


def captured(tmp_path: Path, act: Callable[[Lab], object], ports: list[str] | None = None) -> Path:
    path = tmp_path / "x.pcapng"
    with Lab(ROOT / "topologies/two-hosts.yaml") as lab, lab.capture(ports or PORTS, path):
        act(lab)
    return path


def course_of(path: Path, **more: object) -> Course:
    return sequence(path.stem, read_capture(path), read_facts(path), **more)  # type: ignore[arg-type]


def arrows(course: Course) -> list[tuple[str, str, str]]:
    return [(one.source, one.target, one.words) for one in course.messages]


def text_of(course: Course, width: int = 200) -> str:
    return "\n".join("".join(text for text, _ in line) for line in sequence_lines(course, width))


def test_containers_with_one_address_on_two_hosts_are_two(tmp_path: Path) -> None:
    """Both have 172.17.0.2, and the same MAC: who it is follows from where a frame was seen."""
    path, ports = tmp_path / "x.pcapng", ["host1/shop", "host1:eth0", "host2/stock"]
    with Lab(ROOT / "topologies/primer/ip-per-pod.yaml") as lab:
        with lab.capture(ports, path):
            assert lab.pod("host1/shop").get("http://192.168.9.12:8080/").status == 200
        astray = lab.trace("host1/shop", IP(dst="172.17.0.3") / ICMP())
        assert (astray.reason.name, astray.hops[-1].device) == ("NEIGHBOR_UNREACHABLE", "host1/shop")
    course = course_of(path)
    opening = [(one.source, one.target, one.detail.partition(":")[0]) for one in course.messages if one.words == "SYN"]
    assert opening == [
        ("host1/shop", "host1", "172.17.0.2"),
        ("host1", "host2", "192.168.9.11"),
        ("host2", "host2/stock", "192.168.9.11"),
    ]


def test_what_a_wire_loses_is_told_where_it_was_seen_last(tmp_path: Path) -> None:
    """By a lane that loses all, and by a cable that is cut; again from the flow cache."""

    def act(lab: Lab) -> None:
        lab.ping("web-1", "web-3")
        lab.link("host2--switch1", mtu=100)
        assert not lab.ping("web-1", "web-3")
        assert not lab.ping("web-1", "web-3")
        lab.link("host2--switch1", up=False)
        assert not lab.ping("web-1", "web-3")

    path = captured(tmp_path, act, ["web-1", "switch1:1", "switch1:2"])
    told = [(frame.interface, frame.comments[0]) for frame in read_capture(path) if frame.comments]
    assert {port for port, _ in told} == {"switch1:2"}
    reasons = [comment.split(": ")[1] for _, comment in told]
    assert reasons.count("WIRE_TOO_LONG") == 2
    assert "WIRE_DOWN" in reasons
    lost = [one for one in course_of(path).messages if one.dropped and one.kind == "vxlan"]
    assert [(one.source, one.target) for one in lost] == [("host1", "host2")] * 3


def test_a_ping_across_hosts_is_a_message_for_each_link(tmp_path: Path) -> None:
    course = course_of(captured(tmp_path, lambda lab: lab.ping("web-1", "web-3")))
    assert course.who == ("web-1", "host1", "host2", "web-3")
    echoes = [arrow for arrow in arrows(course) if arrow[2].startswith("echo")]
    assert echoes == [
        ("web-1", "host1", "echo request 1"),
        ("host1", "host2", "echo request 1"),
        ("host2", "web-3", "echo request 1"),
        ("web-3", "host2", "echo reply 1"),
        ("host2", "host1", "echo reply 1"),
        ("host1", "web-1", "echo reply 1"),
    ]
    assert [one.detail for one in course.messages if one.kind == "vxlan"] == [
        "web-1 → web-3, TTL 63 in VXLAN 1: 192.168.9.11 → 192.168.9.12",
        "web-3 → web-1, TTL 63 in VXLAN 1: 192.168.9.12 → 192.168.9.11",
    ]
    assert ("web-1", "host1", "ARP: who has 10.244.1.1?") in arrows(course)


def test_a_frame_at_both_ends_of_a_link_is_one_message(tmp_path: Path) -> None:
    ports = ["web-1", "web-2", "host1:eth0", "switch1:1", "host2:eth0"]
    course = course_of(captured(tmp_path, lambda lab: lab.ping("web-1", "web-2"), ports))
    assert [one for one in arrows(course) if one[2].startswith("echo")] == [
        ("web-1", "web-2", "echo request 1"),
        ("web-2", "web-1", "echo reply 1"),
    ]
    course = course_of(captured(tmp_path, lambda lab: lab.ping("web-1", "web-3"), ports))
    assert len([one for one in course.messages if one.kind == "vxlan"]) == 2


def test_a_request_that_is_sent_again_is_two_messages(tmp_path: Path) -> None:
    def twice(lab: Lab) -> None:
        lab.ping("web-1", "web-2")
        edge = lab.pod("web-1")
        for _ in range(2):
            edge.send(bytes.fromhex("ffffffffffff020000000001") + b"\x88\xb5" + bytes(46))

    course = course_of(captured(tmp_path, twice, ["web-1"]))
    assert len([one for one in course.messages if "0x88b5" in one.title and one.kind != "drop"]) == 2


def test_a_drop_is_a_cross_with_its_sentence(tmp_path: Path) -> None:
    course = course_of(captured(tmp_path, lambda lab: lab.ping("web-1", "10.9.9.9"), ["web-1"]))
    (lost,) = [one for one in course.messages if one.dropped]
    assert (lost.source, lost.target, lost.title) == ("web-1", "host1", "echo request 1")
    assert lost.dropped.startswith("NO_ROUTE: host1 has no route to 10.9.9.9")
    assert "✗" in text_of(course)
    assert "NO_ROUTE: host1 has no route" in sequence_svg(course)


def test_a_loss_later_on_the_way_stands_beside_the_device(tmp_path: Path) -> None:
    def unanswered(lab: Lab) -> None:
        lab.link("host2--switch1", up=False)
        lab.ping("web-1", "web-3")
        lab.clock.advance(10)

    course = course_of(captured(tmp_path, unanswered, ["web-1", "host1:eth0"]))
    beside = [one for one in course.messages if one.kind == "drop"]
    assert beside
    assert all(one.source == one.target and one.dropped for one in beside)
    assert beside[0].title.startswith("echo request 1: dropped")


@pytest.mark.rule("SVC-04", element="translate")
def test_a_message_to_oneself_is_an_arrow_that_comes_back(tmp_path: Path) -> None:
    """A pod that calls itself by a Service: the frame that comes in has its own MAC as source (SVC-04)."""
    path = tmp_path / "hairpin.pcapng"
    with Lab(ROOT / "topologies/primer/service.yaml") as lab, lab.capture(["web-2"], path):
        lab.pod("web-2").get("http://10.96.0.80/")
    course = course_of(path, limit=4, wanted=lambda frame: frame[12:14] == b"\x08\x00")
    ways = [(one.source, one.target, one.detail.partition(":")[0]) for one in course.messages]
    assert ways[:2] == [("web-2", "host2", "web-2"), ("web-2", "web-2", "10.244.2.1")]
    rows = text_of(course).splitlines()
    there = next(number for number, row in enumerate(rows) if "├──╮ SYN" in row)
    assert "│◀─╯ 10.244.2.1:" in rows[there + 1]
    assert "→ web-2:8080, TTL 64" in rows[there + 1]
    texts = [one.text for one in ElementTree.fromstring(sequence_svg(course)).iter("{http://www.w3.org/2000/svg}text")]
    assert course.messages[1].detail in texts


def test_what_is_told_to_everybody_is_no_question_to_whom_it_is_about(tmp_path: Path) -> None:
    """web-2 says that it is the gateway: told to everybody, and to nobody less than to the gateway."""
    gateway, everybody = bytes((10, 244, 1, 1)), b"\xff" * 6

    def lie(lab: Lab) -> None:
        frame = arp.reply(parse_mac(lab.pod("web-2").mac), gateway, everybody, gateway)
        lab.plane.world.inject("web-2", frame, lab.clock.now)

    assert arrows(course_of(captured(tmp_path, lie, ["web-2"]))) == [
        ("web-2", "everybody", "ARP: 10.244.1.1 is at ca:bf:22:c0:e7:9c")
    ]


def test_http_is_read_and_segments_are_counted_together(tmp_path: Path) -> None:
    def fetch(lab: Lab) -> None:
        lab.pod("web-3").serve(80)
        assert lab.pod("web-1").get("http://web-3/").status == 200

    course = course_of(captured(tmp_path, fetch, ["web-1"]))
    said = [words for _, _, words in arrows(course)]
    assert said.index("SYN") < said.index("SYN ACK") < said.index("GET / HTTP/1.1")
    assert any(words.startswith("HTTP/1.1 200") for words in said)
    assert all("web-3:80" in one.detail for one in course.messages if one.kind == "tcp")


def test_names_are_learned_where_a_file_has_none(tmp_path: Path) -> None:
    """A classic pcap names nothing: then addresses speak."""
    rich = captured(tmp_path, lambda lab: lab.ping("web-1", "web-2"), ["web-1"])
    plain = tmp_path / "plain.pcap"
    with plain.open("wb") as stream:
        writer = PcapWriter(stream)
        for frame in read_capture(rich):
            writer.packet(frame.time_ns, frame.data)
    course = course_of(plain)
    assert set(course.who) == {"10.244.1.2", "10.244.1.3", "everybody"}


def test_what_is_left_out_is_counted_and_what_is_wanted_is_chosen(tmp_path: Path) -> None:
    path = captured(tmp_path, lambda lab: lab.ping("web-1", "web-3"))
    whole = course_of(path)
    short = course_of(path, limit=3)
    assert short.left_out == len(whole.messages) - 3
    assert f"and {short.left_out} more messages" in text_of(short)
    out = CliRunner().invoke(draw, ["--sequence", str(path), "--match", "not arp"])
    assert out.exit_code == 0
    assert "echo request 1" in out.output
    assert "who has" not in out.output


def test_columns_stand_where_their_names_are(tmp_path: Path) -> None:
    course = course_of(captured(tmp_path, lambda lab: lab.ping("web-1", "web-3")))
    rows = text_of(course).splitlines()
    names, foot = rows[2], rows[-1]
    assert not rows[1]
    columns = [index for index, char in enumerate(foot) if char == "│"]
    assert len(columns) == 4
    for name, column in zip(course.who, columns, strict=True):
        begin = names.index(name)
        assert begin <= column < begin + len(name)
    narrow = text_of(course, 80).splitlines()
    assert max(len(row) for row in narrow) <= 81


def test_a_picture_is_written_as_svg_and_png(tmp_path: Path) -> None:
    path = captured(tmp_path, lambda lab: lab.ping("web-1", "web-3"))
    run = CliRunner()
    for kind in ("svg", "png"):
        out = run.invoke(draw, ["--sequence", str(path), "-w", str(tmp_path / f"x.{kind}")])
        assert out.output == f"drawn: {tmp_path}/x.{kind}\n"
    ElementTree.fromstring((tmp_path / "x.svg").read_text())
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert len(png((tmp_path / "x.svg").read_text(), 0.5)) < len((tmp_path / "x.png").read_bytes())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-w", "x.gif"], "ends in .svg or .png"),
        (["--match", "arp"], "name one with --sequence"),
        (["--sequence", "{file}", "--match", "arp and"], "not a filter"),
        (["--sequence", "{file}", "--match", "tcp port 9"], "no frame that matches"),
        (["--sequence", "{text}"], "not a pcap file"),
        (["--sequence", "{file}", "{text}"], "by itself"),
    ],
)
def test_bad_questions_are_answered(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    path = captured(tmp_path, lambda lab: lab.ping("web-1", "web-2"), ["web-1"])
    text = tmp_path / "readme.md"
    text.write_text("this is no capture at all\n")
    out = CliRunner().invoke(draw, [one.format(file=path, text=text) for one in arguments])
    assert out.exit_code != 0
    assert sentence in out.output
