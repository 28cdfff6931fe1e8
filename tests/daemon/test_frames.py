"""The frame channel: what passes ports reaches those who watch, whole or counted as lost; frames can be let in."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emunet.daemon import frames
from emunet.daemon.frame_channel import FrameChannel, FrameChannelError
from emunet.daemon.frame_format import (
    INBOUND,
    NOTICE,
    OUTBOUND,
    FrameRecord,
    Request,
    pack_head,
    pack_injection,
    unpack_injections,
    unpack_records,
)
from emunet.fabric.config import WorldConfig
from tests.running_plane import RunningPlane


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[RunningPlane]:
    with RunningPlane(tmp_path) as running:
        yield running
        assert running.balance() == {0}


def frames_of(channel: FrameChannel, quiet: float = 0.3) -> list[FrameRecord]:
    """All records until nothing has come for a while."""
    found: list[FrameRecord] = []
    while records := channel.receive(quiet):
        found += records
    return found


def test_every_port_is_listed_with_what_is_behind_it(plane: RunningPlane) -> None:
    ports = {port.name: port for port in FrameChannel.list_ports(plane.path)}
    assert list(ports)[:4] == ["web-1", "web-2", "web-3", "web-4"]
    assert ports.keys() == set(plane.call(plane.plane.world.port_names))
    web = ports["web-1"]
    assert (web.kind, web.device, web.addresses, web.mtu) == ("pod", "host1", ("10.244.1.2/24",), 1450)
    assert web.routes == (("10.244.1.0/24", ""), ("0.0.0.0/0", "10.244.1.1"))
    assert ports["host1:flannel.1"].routes == (("10.244.2.0/24", "10.244.2.0"),)
    assert ports["switch1:1"].kind == "switch"


def test_a_port_that_is_not_there_is_refused_with_those_that_are(plane: RunningPlane) -> None:
    with pytest.raises(FrameChannelError, match=r"there is no port web-9; there are: .*web-1.*switch1:2"):
        FrameChannel.connect(plane.path, ["web-1", "web-9"])
    assert plane.call(lambda: plane.plane.world.devices["host1"].watched) == set()


def test_no_lab_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(FrameChannelError, match=r"the lab .* is not running: `emunet labs`"):
        FrameChannel.connect(tmp_path / "frames.sock", ["web-1"])


@pytest.mark.parametrize("message", [b"{}x", b"[]", b'{"ports": "web-1"}', b'{"port": ["web-1"]}', b"\xff"])
def test_what_is_no_request_is_refused(plane: RunningPlane, message: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asker:
        asker.connect(os.fspath(plane.path))
        asker.send(message)
        assert b'"error"' in asker.recv(4096)
        assert asker.recv(4096) == b""


def test_both_directions_with_their_times(plane: RunningPlane) -> None:
    with FrameChannel.connect(plane.path, ["web-1", "host1:eth0"], inject=True) as channel:
        request = plane.echo("web-1", "web-3")
        before = time.time_ns()
        channel.send(request)
        records = frames_of(channel)
        assert all(before - 10**8 < record.at < time.time_ns() + 10**8 for record in records)
        on_pod = [(r.direction, r.frame[34]) for r in records if r.port == 0 and r.frame[12:14] == b"\x08\x00"]
        assert on_pod == [(OUTBOUND, 8), (INBOUND, 0)]
        outer = [r for r in records if r.port == 1 and r.frame[12:14] == b"\x08\x00"]
        assert [r.direction for r in outer] == [OUTBOUND, INBOUND]
        assert outer[0].frame[50:][14:].startswith(request[14:22])  # the same packet, one TTL later
        assert [record.at for record in records] == sorted(record.at for record in records)


def test_lab_time_that_is_moved_by_hand_begins_in_1970(tmp_path: Path) -> None:
    with RunningPlane(tmp_path, epoch=0) as plane, FrameChannel.connect(plane.path, ["web-1"], inject=True) as channel:
        channel.send(plane.echo("web-1", "web-2"))
        assert abs(frames_of(channel)[0].at - plane.loop.now()) < 10**10


def test_a_drop_is_told_on_the_frame_that_came_in(plane: RunningPlane) -> None:
    with FrameChannel.connect(plane.path, ["web-1"], inject=True) as channel:
        channel.send(plane.echo("web-1", "web-3", ttl=1))
        channel.send(b"runt")
        records = frames_of(channel)
        dropped = [record for record in records if record.comments]
        assert len(dropped) == 2
        assert dropped[0].comments[0].startswith("dropped at host1, router: TTL_EXPIRED: its TTL of 1 ends at host1")
        assert dropped[1].comments[0].startswith("dropped at host1, ingress: RUNT: the frame is 4 bytes")
        assert dropped[1].frame == b"runt"


def test_who_sends_may_leave_out_what_goes_its_own_way(plane: RunningPlane) -> None:
    with FrameChannel.connect(plane.path, ["web-1"], inject=True, sent=False, single=True) as channel:
        for sequence in range(3):
            channel.send(plane.echo("web-1", "web-2", sequence))
        received = []
        for _ in range(4):
            records = channel.receive(5)
            assert len(records) == 1  # `single`: a readable socket is one frame
            received += records
        question, *replies = received
        assert (question.direction, question.frame[12:14]) == (INBOUND, b"\x08\x06")
        assert [(r.direction, r.frame[34], r.frame[41]) for r in replies] == [(INBOUND, 0, n) for n in range(3)]
        assert channel.receive(0.1) == []


def test_everybody_who_watches_gets_everything(plane: RunningPlane) -> None:
    count = 5_000
    batch = [plane.echo("web-1", "web-2", n & 0xFFFF) for n in range(count)]
    with (
        FrameChannel.connect(plane.path, ["web-1"], inject=True, watch=False) as sender,
        FrameChannel.connect(plane.path, ["web-2", "web-1"]) as one,
        FrameChannel.connect(plane.path, ["web-1"]) as other,
    ):
        sender.send_many(batch)
        assert sender.settle() == []
        for channel, ports in ((one, 2), (other, 1)):
            channel.end()
            records = [record for record in channel if record.frame[12:14] == b"\x08\x00"]
            assert sum(record.lost for record in records) == 0
            assert len(records) == 2 * count * ports
        # in order, and each once
        assert [r.frame[40:42] for r in records if r.direction == OUTBOUND] == [
            (n & 0xFFFF).to_bytes(2, "big") for n in range(count)
        ]


def test_a_slow_reader_loses_its_own_and_is_told_how_many(plane: RunningPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "QUEUE_LIMIT", 200_000)
    monkeypatch.setattr(frames, "_SOCKET_BUFFER", 100_000)
    count = 3000
    with (
        FrameChannel.connect(plane.path, ["web-1"], inject=True, watch=False) as sender,
        FrameChannel.connect(plane.path, ["web-1"]) as slow,
    ):
        sender.send_many(plane.echo("web-1", "web-2", n, size=400) for n in range(count))
        assert sender.settle() == []  # although nobody reads what was watched, everything was let in
        slow.end()
        records = list(slow)
        got = [record for record in records if record.direction != NOTICE and record.frame[12:14] == b"\x08\x00"]
        lost = sum(record.lost for record in records)
        assert lost > 0
        assert len(got) + lost in range(2 * count, 2 * count + 10)  # some ARP may be among them


def test_a_client_that_vanishes_is_watched_for_no_more(plane: RunningPlane) -> None:
    channel = FrameChannel.connect(plane.path, ["web-1", "host1:cni0"])
    watched = lambda: plane.call(lambda: set(plane.plane.world.devices["host1"].watched))  # noqa: E731
    assert watched() == {"web-1", "cni0"}
    channel.close()
    deadline = time.monotonic() + 5
    while watched() or plane.call(lambda: plane.server.clients):
        assert time.monotonic() < deadline
    with FrameChannel.connect(plane.path, ["web-1"], inject=True) as again:
        again.send(plane.echo("web-1", "web-2"))
        assert len(frames_of(again)) >= 2


@pytest.mark.parametrize("unread", [True, False], ids=["with what passed unread", "with more to be told"])
def test_what_a_client_sent_before_it_vanished_is_let_in(plane: RunningPlane, unread: bool) -> None:
    """As Scapy's `sendp` does it: it reads nothing of what passes meanwhile, and closes as soon as it has sent."""
    with FrameChannel.connect(plane.path, ["web-2"]) as watcher:
        channel = FrameChannel.connect(plane.path, ["web-1"], inject=True)
        if unread:
            channel.send(plane.echo("web-1", "web-2", 9))
            assert select.select([channel], [], [], 30)[0]

        def send_and_go() -> None:
            if not unread:
                plane.plane.world.inject("web-1", plane.echo("web-1", "web-2", 9), plane.loop.now())
            for sequence in range(3):
                channel.send(plane.echo("web-1", "web-2", sequence))
            channel.close()

        plane.call(send_and_go)  # in the loop's own thread: nothing is read there until it is over
        came: list[int] = []
        deadline = time.monotonic() + 30
        while len(came) < 4 and time.monotonic() < deadline:
            records = watcher.receive(timeout=1)
            came += [one.frame[41] for one in records if one.frame[12:14] == b"\x08\x00" and one.frame[34] == 8]
        assert came == [9, 0, 1, 2]


def test_after_the_end_what_passed_still_comes(plane: RunningPlane) -> None:
    with FrameChannel.connect(plane.path, ["web-1"], inject=True) as channel:
        for sequence in range(50):
            channel.send(plane.echo("web-1", "web-2", sequence))
        channel.end()
        records = [record for record in channel if record.frame[12:14] == b"\x08\x00"]
        assert len(records) == 100
        with pytest.raises(EOFError):
            channel.receive()


def test_what_is_no_frame_to_let_in_ends_the_connection(plane: RunningPlane) -> None:
    with FrameChannel.connect(plane.path, ["web-1"], inject=True) as channel:
        channel._send(b"\xff" * 20)
        with pytest.raises(EOFError):
            channel.receive(5)
    with FrameChannel.connect(plane.path, ["web-1"]) as channel:  # who did not ask to may not
        channel.send(plane.echo("web-1", "web-2"))
        with pytest.raises(EOFError):
            channel.receive(5)


def test_frames_enter_by_hosts_and_switches_too(plane: RunningPlane) -> None:
    with FrameChannel.connect(plane.path, ["switch1:1", "host2:eth0"], inject=True) as channel:
        frame = bytes.fromhex("ffffffffffff 020000000001 88b5") + bytes(46)
        channel.send(frame)
        records = frames_of(channel)
        assert [(r.port, r.direction) for r in records] == [(0, INBOUND), (1, INBOUND)]
        assert all(record.frame == frame for record in records)


def without(plane: RunningPlane, pod: str) -> WorldConfig:
    """The World's configuration with one pod less."""
    config = plane.config
    hosts = tuple(
        replace(
            host,
            ports=tuple(port for port in host.ports if port.name != pod),
            bridges=tuple(
                replace(bridge, ports=tuple(port for port in bridge.ports if port != pod)) for bridge in host.bridges
            ),
        )
        for host in config.hosts
    )
    return replace(config, hosts=hosts, pods=tuple(row for row in config.pods if row.name != pod))


def test_a_pod_that_goes_and_comes_back(plane: RunningPlane) -> None:
    """Its port is said to be gone when a frame is let in there; back, it is watched as before."""
    with FrameChannel.connect(plane.path, ["web-2"], inject=True) as channel:
        plane.call(lambda: plane.plane.configure(without(plane, "web-2")))
        channel.send(plane.echo("web-2", "web-1"))
        (notice,) = channel.receive(5)
        assert (notice.direction, notice.frame) == (NOTICE, b"")
        assert notice.comments[0].startswith("there is no port web-2; there are: ")
        plane.call(lambda: plane.plane.configure(plane.config))
        channel.send(plane.echo("web-2", "web-1"))
        assert [record.frame[34] for record in frames_of(channel) if record.frame[12:14] == b"\x08\x00"] == [8, 0]
    with FrameChannel.connect(plane.path, ["web-2"]):
        plane.call(lambda: plane.plane.configure(without(plane, "web-2")))
    deadline = time.monotonic() + 5
    while plane.call(lambda: plane.server.clients):  # it went while its port was away
        assert time.monotonic() < deadline
    plane.call(lambda: plane.plane.configure(plane.config))
    with FrameChannel.connect(plane.path, ["web-1"], inject=True) as channel:
        channel.send(plane.echo("web-1", "web-2"))
        frames_of(channel)
    assert plane.call(lambda: plane.plane.world.devices["host1"].watched) <= {"web-1"}


# The format itself


COMMENTS = st.lists(st.text(max_size=40), max_size=3)
RECORD = st.builds(
    FrameRecord,
    at=st.integers(0, 2**64 - 1),
    port=st.integers(0, 2**16 - 1),
    direction=st.sampled_from([0, INBOUND, OUTBOUND, NOTICE]),
    frame=st.binary(max_size=200),
    comments=COMMENTS.map(tuple),
    lost=st.integers(0, 2**32 - 1),
    identity=st.integers(0, 2**64 - 1),
)


def packed(record: FrameRecord) -> bytes:
    length = len(record.frame)
    head = pack_head(record.at, record.port, record.direction, length, record.comments, record.lost, record.identity)
    return head + record.frame


@given(st.lists(RECORD, max_size=5))
def test_records_come_back_as_they_were(records: list[FrameRecord]) -> None:
    assert list(unpack_records(b"".join(map(packed, records)))) == records


@given(RECORD, st.data())
def test_a_message_that_is_cut_is_noticed(record: FrameRecord, data: st.DataObject) -> None:
    message = packed(record)
    with pytest.raises(ValueError, match="ends within"):
        list(unpack_records(message[: data.draw(st.integers(1, len(message) - 1))]))


@given(st.lists(st.tuples(st.integers(0, 65535), st.binary(max_size=100)), max_size=5))
def test_frames_to_let_in_come_back_as_they_were(frames: list[tuple[int, bytes]]) -> None:
    message = b"".join(pack_injection(port, frame) for port, frame in frames)
    assert list(unpack_injections(message)) == frames
    if message:
        with pytest.raises(ValueError, match="ends within"):
            list(unpack_injections(message + b"\x01"))


def test_a_request_says_only_what_is_known() -> None:
    request = Request(("web-1",), inject=True)
    assert Request.decode(request.encode()) == request
    with pytest.raises(ValueError, match="no field colour"):
        Request.decode(b'{"colour": 1}')
