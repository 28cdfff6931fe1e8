"""Two endpoints on a bad wire: it loses, repeats and reorders by a hash of the seed; time is moved by hand."""

from __future__ import annotations

import heapq
from collections.abc import Callable

import pytest

from emunet.elements.endpoint import Connection, Endpoint, Failure, Listener, State
from emunet.elements.endpoint.http import Get, Request, Response, get, serve
from emunet.elements.endpoint.network import MILLISECOND, SECOND, stable_hash
from emunet.elements.endpoint.tcp import RECEIVE_LIMIT
from emunet.packet import tcp
from emunet.packet.address import InterfaceAddress, parse_ip
from emunet.packet.ipv4 import IPv4

MAC_A, MAC_B = b"\x02\0\0\0\0\x0a", b"\x02\0\0\0\0\x0b"
A4, B4 = parse_ip("10.0.0.1"), parse_ip("10.0.0.2")
A6, B6 = parse_ip("fd00::1"), parse_ip("fd00::2")


class Pair:
    """Endpoints a and b, a wire between them, and the time."""

    def __init__(
        self, seed: int = 0, *, loss: float = 0, repeat: float = 0, delay: int = MILLISECOND, jitter: int = 0,
        mtu: int = 1500,
    ) -> None:  # fmt: skip
        self.now = 0
        self.seed, self.loss, self.repeat, self.delay, self.jitter = seed, loss, repeat, delay, jitter
        self.a = Endpoint("a", MAC_A, _addresses("10.0.0.1/24", "fd00::1/64"), mtu=mtu, seed=seed)
        self.b = Endpoint("b", MAC_B, _addresses("10.0.0.2/24", "fd00::2/64"), mtu=mtu, seed=seed)
        self.frames: list[tuple[int, bytes]] = []
        """(sender: 0 for a, 1 for b; frame) of every frame sent, lost ones too."""
        self.lost = 0
        self.drop: Callable[[int, bytes], bool] = lambda sender, frame: False
        self._wire: list[tuple[int, int, int, bytes]] = []

    def carry(self, sender: Endpoint, frames: list[bytes]) -> None:
        """Put frames on the wire."""
        side = 0 if sender is self.a else 1
        for frame in frames:
            number = len(self.frames)
            self.frames.append((side, frame))
            if self._chance("loss", number) < self.loss or self.drop(side, frame):
                self.lost += 1
                continue
            for copy in range(1 + (self._chance("repeat", number) < self.repeat)):
                late = int(self._chance("jitter", number * 2 + copy) * self.jitter)
                heapq.heappush(self._wire, (self.now + self.delay + late, number * 2 + copy, 1 - side, frame))

    def _chance(self, what: str, number: int) -> float:
        return stable_hash(self.seed, what, number) / (1 << 64)

    def next(self) -> int | None:
        """The next arrival or timer; None if nothing will ever happen."""
        times = [self.a.due(), self.b.due(), self._wire[0][0] if self._wire else None]
        return min((time for time in times if time is not None), default=None)

    def run(self, until: Callable[[], bool] = lambda: False, seconds: float = 600) -> None:
        """Until the condition holds, nothing happens any more, or the time is over."""
        end = self.now + int(seconds * SECOND)
        while not until() and (time := self.next()) is not None:
            if time > end:
                self.now = end
                return
            self.now = max(self.now, time)
            while self._wire and self._wire[0][0] <= self.now:
                _, _, side, frame = heapq.heappop(self._wire)
                receiver = (self.a, self.b)[side]
                self.carry(receiver, receiver.receive(frame, self.now))
            for endpoint in (self.a, self.b):
                due = endpoint.due()
                if due is not None and due <= self.now:
                    self.carry(endpoint, endpoint.wake(self.now))


def _addresses(*texts: str) -> tuple[InterfaceAddress, ...]:
    return tuple(InterfaceAddress.parse(text) for text in texts)


def _states(*connections: Connection) -> set[State]:
    return {connection.state for connection in connections}


def _bytes(seed: int, length: int) -> bytes:
    """Bytes that no misplaced piece would match."""
    return b"".join(stable_hash(seed, at).to_bytes(8, "big") for at in range(length // 8 + 1))[:length]


class Talk:
    """One exchange: both sides send, each closes when it has sent all; whoever `first` is closes first."""

    def __init__(
        self, pair: Pair, seed: int, sizes: tuple[int, int], port: int, *, opener: int, first: int, v6: bool
    ) -> None:
        self.pair = pair
        self.sent = (_bytes(seed, sizes[0]), _bytes(seed + 1, sizes[1]))
        self.got = (bytearray(), bytearray())
        self.first = first
        self.closed = [False, False]
        self.connections: list[Connection | None] = [None, None]
        server, client = ((pair.b, pair.a), (pair.a, pair.b))[opener]
        target = ((B6, A6) if v6 else (B4, A4))[opener]
        self.listener: Listener = server.listen(port, self._handler(1 - opener))
        _, frames = client.connect(target, port, pair.now, handler=self._handler(opener))
        pair.carry(client, frames)

    def _handler(self, side: int) -> Callable[[Connection, int], list[bytes]]:
        def handle(connection: Connection, now: int) -> list[bytes]:
            frames: list[bytes] = []
            if self.connections[side] is None and connection.state in (State.ESTABLISHED, State.CLOSE_WAIT):
                self.connections[side] = connection
                frames += connection.send(self.sent[side], now)
            data, update = connection.receive(now)
            self.got[side].extend(data)
            frames += update
            if (
                self.connections[side] is connection
                and not self.closed[side]
                and (side == self.first or connection.ended)
            ):
                self.closed[side] = True
                frames += connection.close(now)
            return frames

        return handle

    @property
    def done(self) -> bool:
        return all(
            connection is not None and connection.state in (State.CLOSED, State.TIME_WAIT)
            for connection in self.connections
        )

    def check(self) -> None:
        assert bytes(self.got[1]) == self.sent[0]
        assert bytes(self.got[0]) == self.sent[1]
        for connection in self.connections:
            assert connection is not None
            assert connection.error is None
        self.listener.close(self.pair.now)


@pytest.mark.parametrize("v6", [False, True])
def test_two_hundred_exchanges_on_a_bad_wire(v6: bool) -> None:
    """Loss both ways, repetition, reordering; either side opens, either closes first, or both at once."""
    retransmissions = 0
    for number in range(100):
        pair = Pair(number, loss=0.05, repeat=0.02, jitter=(0, 3 * MILLISECOND)[number % 2])
        draw = stable_hash("sizes", number)
        sizes = (draw % 20_000 if draw & 1 else draw % 100, (draw >> 32) % 20_000)
        talk = Talk(pair, number, sizes, 80, opener=number & 1, first=number >> 1 & 1, v6=v6)
        pair.run(lambda talk=talk: talk.done)  # type: ignore[misc]
        talk.check()
        retransmissions += sum(connection.retransmissions for connection in talk.connections if connection)
        pair.run(seconds=10)
        assert not pair.a.connections, "nothing is left after TIME-WAIT"
        assert not pair.b.connections
    assert retransmissions > 100, "the wire was bad enough to matter"


def test_the_same_seed_gives_the_same_frames() -> None:
    runs = []
    for _ in range(2):
        pair = Pair(7, loss=0.1, repeat=0.05, jitter=MILLISECOND)
        talk = Talk(pair, 7, (5000, 5000), 80, opener=0, first=1, v6=False)
        pair.run(lambda talk=talk: talk.done)  # type: ignore[misc]
        runs.append(pair.frames)
    assert runs[0] == runs[1]


def test_a_clean_wire_needs_no_retransmission_and_no_timer() -> None:
    pair = Pair()
    talk = Talk(pair, 1, (100_000, 0), 80, opener=0, first=0, v6=False)
    pair.run(lambda: talk.done)
    talk.check()
    assert sum(connection.retransmissions for connection in talk.connections if connection) == 0
    assert pair.now < SECOND


def test_both_close_at_once() -> None:
    pair = Pair()
    listener = pair.b.listen(80)
    client, frames = pair.a.connect(B4, 80, 0)
    pair.carry(pair.a, frames)
    pair.run(lambda: client.state is State.ESTABLISHED)
    pair.run(seconds=0.01)
    server = listener.accept()
    assert server is not None
    pair.carry(pair.a, client.close(pair.now))
    pair.carry(pair.b, server.close(pair.now))
    assert _states(client, server) == {State.FIN_WAIT_1}
    pair.run(lambda: client.state is State.CLOSING)
    pair.run(lambda: client.state is State.TIME_WAIT and server.state is State.TIME_WAIT, seconds=1)
    assert _states(client, server) == {State.TIME_WAIT}
    pair.run(seconds=5)
    assert _states(client, server) == {State.CLOSED}
    assert client.error is server.error is None


def test_both_open_at_once() -> None:
    """RFC 9293 3.5, figure 7."""
    pair = Pair()
    pair.carry(pair.a, pair.a.resolve(B4, 0))
    pair.carry(pair.b, pair.b.resolve(A4, 0))
    pair.run(seconds=0.1)
    one, frames = pair.a.connect(B4, 2000, pair.now, source_port=1000)
    pair.carry(pair.a, frames)
    two, frames = pair.b.connect(A4, 1000, pair.now, source_port=2000)
    pair.carry(pair.b, frames)
    pair.run(lambda: one.state is State.SYN_RECEIVED, seconds=1)
    pair.run(lambda: one.state is State.ESTABLISHED and two.state is State.ESTABLISHED, seconds=1)
    assert one.state is two.state is State.ESTABLISHED
    pair.carry(pair.a, one.send(b"from a", pair.now))
    pair.carry(pair.b, two.send(b"from b", pair.now))
    pair.run(seconds=0.1)
    assert (one.received, two.received) == (b"from b", b"from a")


def _connected(pair: Pair) -> tuple[Connection, Connection]:
    listener = pair.b.listen(80)
    client, frames = pair.a.connect(B4, 80, pair.now)
    pair.carry(pair.a, frames)
    pair.run(seconds=0.1)
    server = listener.accept()
    assert server is not None
    return client, server


def test_a_reader_that_does_not_read_closes_the_window_and_opens_it_again() -> None:
    pair = Pair()
    client, server = _connected(pair)
    data = _bytes(3, 200_000)
    pair.carry(pair.a, client.send(data, pair.now))
    pair.run(seconds=30)
    assert len(server.received) == RECEIVE_LIMIT
    assert client.unsent == len(data) - RECEIVE_LIMIT
    before = len(pair.frames)
    pair.run(seconds=60)
    assert 2 <= len(pair.frames) - before <= 60, "the closed window is probed, ever more rarely"
    got = bytearray()
    while len(got) < len(data):
        piece, frames = server.receive(pair.now, 10_000)
        got += piece
        pair.carry(pair.b, frames)
        pair.run(seconds=0.05)
    assert bytes(got) == data


def test_a_lost_window_update_is_found_by_the_probe() -> None:
    pair = Pair()
    client, server = _connected(pair)
    data = _bytes(3, 100_000)
    pair.carry(pair.a, client.send(data, pair.now))
    pair.run(seconds=1)
    first, update = server.receive(pair.now)
    assert len(update) == 1, "this one is lost"
    pair.run(lambda: len(server.received) + len(first) == len(data), seconds=60)
    assert first + server.received == data


def test_an_answered_probe_never_times_out() -> None:
    pair = Pair()
    client, server = _connected(pair)
    pair.carry(pair.a, client.send(bytes(RECEIVE_LIMIT + 1), pair.now))
    pair.run(seconds=3600)
    assert client.state is State.ESTABLISHED
    assert client.error is None
    assert len(server.received) == RECEIVE_LIMIT


def test_half_close() -> None:
    pair = Pair()
    client, server = _connected(pair)
    pair.carry(pair.a, client.close(pair.now))
    pair.run(seconds=0.1)
    assert server.ended
    assert client.state is State.FIN_WAIT_2
    with pytest.raises(BrokenPipeError):
        client.send(b"late", pair.now)
    pair.carry(pair.b, server.send(b"still here", pair.now))
    pair.run(seconds=0.1)
    assert client.received == b"still here"
    pair.carry(pair.b, server.close(pair.now))
    pair.run(seconds=10)
    assert client.state is server.state is State.CLOSED


def test_nobody_answers_a_syn() -> None:
    pair = Pair()
    pair.carry(pair.a, pair.a.resolve(B4, 0))
    pair.run(seconds=0.1)
    pair.drop = lambda side, frame: frame[12:14] == b"\x08\x00"
    client, frames = pair.a.connect(B4, 80, pair.now)
    pair.carry(pair.a, frames)
    start = len(pair.frames)
    pair.run(seconds=300)
    assert client.error is Failure.TIMED_OUT
    syns = [frame for side, frame in pair.frames[start:] if frame[12:14] == b"\x08\x00"]
    assert len(syns) == 6, "as tcp_syn_retries"


def test_data_into_the_void_times_out_in_the_end() -> None:
    pair = Pair()
    client, server = _connected(pair)
    pair.drop = lambda side, frame: frame[12:14] == b"\x08\x00"
    pair.carry(pair.a, client.send(b"lost", pair.now))
    pair.run(seconds=3600)
    assert client.error is Failure.TIMED_OUT
    assert server.state is State.ESTABLISHED


def test_no_neighbour_means_no_route_to_host() -> None:
    """A local sender hears it after the requests are used up."""
    pair = Pair()
    client, frames = pair.a.connect(parse_ip("10.0.0.9"), 80, 0)
    pair.carry(pair.a, frames)
    pair.run(seconds=10)
    assert client.error is Failure.HOST_UNREACHABLE
    assert 3 * SECOND <= pair.now < 4 * SECOND


def test_a_closed_port_refuses() -> None:
    pair = Pair()
    client, frames = pair.a.connect(B4, 81, 0)
    pair.carry(pair.a, frames)
    pair.run(seconds=1)
    assert client.error is Failure.REFUSED
    assert str(client.error).startswith("connection refused")


def test_closing_a_listener_resets_what_nobody_accepted() -> None:
    pair = Pair()
    listener = pair.b.listen(80)
    waiting, frames = pair.a.connect(B4, 80, 0)
    pair.carry(pair.a, frames)
    pair.run(seconds=0.1)
    half_open, frames = pair.a.connect(B4, 80, pair.now)
    pair.carry(pair.a, frames)
    pair.run(lambda: listener.pending == 1)
    pair.carry(pair.b, listener.close(pair.now))
    pair.run(seconds=0.1)
    assert waiting.error is Failure.RESET
    assert half_open.ended
    late, frames = pair.a.connect(B4, 80, pair.now)
    pair.carry(pair.a, frames)
    pair.run(seconds=0.1)
    assert late.error is Failure.REFUSED


def test_abort_resets_the_peer() -> None:
    pair = Pair()
    client, server = _connected(pair)
    pair.carry(pair.a, client.abort(pair.now))
    pair.run(seconds=0.1)
    assert server.error is Failure.RESET
    assert client.error is None
    assert not pair.b.connections


def _tcp_frame(pair: Pair, client: Connection, header: tcp.Tcp, data: bytes = b"") -> bytes:
    packet = IPv4(A4, B4, 6).pack(header.pack(A4, B4, data))
    return MAC_B + MAC_A + b"\x08\x00" + packet


@pytest.mark.parametrize("flags", [tcp.RST, tcp.SYN, tcp.RST | tcp.ACK])
def test_blind_resets_and_syns_are_challenged(flags: int) -> None:
    """RFC 5961 3 and 4: only a reset with the exact number ends a connection."""
    pair = Pair()
    client, server = _connected(pair)
    last = IPv4.parse([frame for side, frame in pair.frames if side == 0][-1][14:])[1]
    expected = tcp.Tcp.parse(last)[0].sequence
    forged = tcp.Tcp(client.local_port, 80, (expected + 1000) & 0xFFFFFFFF, 0, flags, 0)
    answer = pair.b.receive(_tcp_frame(pair, client, forged), pair.now)
    assert server.state is State.ESTABLISHED
    assert len(answer) == 1
    challenge = tcp.Tcp.parse(IPv4.parse(answer[0][14:])[1])[0]
    assert (challenge.flags, challenge.acknowledgment) == (tcp.ACK, expected)
    assert pair.b.receive(_tcp_frame(pair, client, forged), pair.now) == [], "and rarely"
    if flags & tcp.RST:
        outside = tcp.Tcp(client.local_port, 80, (expected + (1 << 30)) & 0xFFFFFFFF, 0, flags, 0)
        assert pair.b.receive(_tcp_frame(pair, client, outside), pair.now + SECOND) == []
        exact = tcp.Tcp(client.local_port, 80, expected, 0, flags, 0)
        assert pair.b.receive(_tcp_frame(pair, client, exact), pair.now) == []
        assert server.error is Failure.RESET


def test_acknowledgments_of_what_was_never_sent_are_challenged() -> None:
    pair = Pair()
    client, server = _connected(pair)
    last = tcp.Tcp.parse(IPv4.parse([frame for side, frame in pair.frames if side == 0][-1][14:])[1])[0]
    wild = tcp.Tcp(client.local_port, 80, last.sequence, (last.acknowledgment + 5) & 0xFFFFFFFF, tcp.ACK, 9)
    assert len(pair.b.receive(_tcp_frame(pair, client, wild, b"data"), pair.now)) == 1
    assert server.received == b""


def test_sequence_numbers_wrap() -> None:
    pair = Pair()
    listener = pair.b.listen(80)
    moved = Connection(pair.a, A4, 1234, B4, 80, 0xFFFFFF00)
    pair.a._connections[A4, 1234, B4, 80] = moved
    pair.carry(pair.a, moved.open(0))
    pair.run(seconds=0.1)
    server = listener.accept()
    assert server is not None
    data = _bytes(5, 30_000)
    pair.carry(pair.a, moved.send(data, pair.now))
    pair.run(seconds=1)
    assert server.received == data


def test_three_repeated_acknowledgments_repair_a_hole_before_the_timer() -> None:
    pair = Pair()
    client, server = _connected(pair)
    data = _bytes(6, 20_000)
    seen: list[int] = []

    def third(side: int, frame: bytes) -> bool:
        if side == 0 and len(frame) > 1000:
            seen.append(len(frame))
            return len(seen) in (3, 5)
        return False

    pair.drop = third
    start = pair.now
    pair.carry(pair.a, client.send(data, pair.now))
    pair.run(lambda: len(server.received) == len(data), seconds=5)
    assert server.received == data
    assert pair.now - start < 100 * MILLISECOND
    assert client.retransmissions == 2


def test_the_first_sequence_numbers_and_ports_come_from_the_seed() -> None:
    def first_syn(seed: int) -> tuple[int, int]:
        pair = Pair(seed)
        pair.carry(pair.a, pair.a.connect(B4, 80, 0)[1])
        pair.run(seconds=0.1)
        packets = [IPv4.parse(frame[14:]) for side, frame in pair.frames if frame[12:14] == b"\x08\x00"]
        header = tcp.Tcp.parse(packets[0][1])[0]
        return header.sequence, header.sport

    assert first_syn(1) == first_syn(1)
    assert first_syn(1) != first_syn(2)


def test_a_full_backlog_drops_the_syn() -> None:
    pair = Pair()
    pair.b.listen(80, backlog=2)
    clients = []
    for _ in range(3):
        client, frames = pair.a.connect(B4, 80, 0)
        clients.append(client)
        pair.carry(pair.a, frames)
    pair.run(seconds=0.5)
    assert [client.state for client in clients] == [State.ESTABLISHED, State.ESTABLISHED, State.SYN_SENT]
    assert pair.b.ignored["backlog-full"] >= 1


def test_time_wait_gives_way_to_a_newer_syn() -> None:
    pair = Pair()
    for _ in range(3):
        listener = pair.b.listen(80, lambda connection, now: connection.close(now) if connection.ended else [])
        client, frames = pair.a.connect(B4, 80, pair.now, source_port=4000)
        pair.carry(pair.a, frames)
        pair.run(lambda client=client: client.state is State.ESTABLISHED, seconds=1)  # type: ignore[misc]
        assert _states(client) == {State.ESTABLISHED}
        server = pair.b.connections[0]
        pair.carry(pair.b, server.close(pair.now))
        pair.run(seconds=0.05)
        pair.carry(pair.a, client.close(pair.now))
        pair.run(seconds=0.05)
        assert _states(client) == {State.CLOSED}
        assert _states(server) == {State.TIME_WAIT}
        listener.close(pair.now)


def test_ping_over_a_bad_wire() -> None:
    pair = Pair(3, loss=0.2, repeat=0.2)
    pings = []
    for sequence in range(50):
        for target in (B4, B6):
            ping, frames = pair.a.ping(target, pair.now, sequence=sequence, size=sequence * 60)
            pings.append(ping)
            pair.carry(pair.a, frames)
        pair.run(seconds=0.05)
    replied = [ping for ping in pings if ping.replied_at is not None]
    assert 30 < len(replied) < 95
    assert all(ping.rtt_ns == 2 * MILLISECOND or ping.sequence < 5 for ping in replied)
    assert all(ping.reply_ttl == 64 for ping in replied)
    assert any(ping.duplicates for ping in replied)


def test_udp_between_two_sockets() -> None:
    pair = Pair()
    server = pair.b.udp_bind(53)
    client = pair.a.udp_bind()
    for number, target in enumerate((B4, B6, B4)):
        pair.carry(pair.a, client.send(b"question" * (number * 1000 + 1), target, 53, pair.now))
    pair.run(seconds=0.5)
    questions = [server.receive() for _ in range(4)]
    assert questions[3] is None
    assert {len(question.data) for question in questions[:3] if question} == {8, 8008, 16008}, (
        "fragments were put together"
    )
    last = next(question for question in questions if question and question.source == A4)
    pair.carry(pair.b, server.send(b"answer", last.source, last.source_port, pair.now))
    pair.run(seconds=0.5)
    answer = client.receive()
    assert answer is not None
    assert (answer.data, answer.source, answer.source_port, answer.destination) == (b"answer", B4, 53, A4)
    pair.carry(pair.a, client.send(b"?", B4, 54, pair.now))
    pair.carry(pair.a, client.send(b"?", B6, 54, pair.now))
    pair.run(seconds=0.5)
    assert list(client.errors) == [(Failure.REFUSED, B4, 54), (Failure.REFUSED, B6, 54)]


def test_http() -> None:
    pair = Pair(5, loss=0.05)

    def respond(request: Request) -> Response:
        if request.target == "/fault":
            raise RuntimeError("a fault of the function")
        return Response(200, request.target.encode() * 2000, {"X-Seen": request.headers["host"]})

    serve(pair.b, 8080, respond)
    ok, frames = get(pair.a, B4, 8080, 0, path="/index", host="web")
    pair.carry(pair.a, frames)
    bad, frames = get(pair.a, B6, 8080, 0, path="/fault")
    pair.carry(pair.a, frames)
    refused, frames = get(pair.a, B4, 8081, 0)
    pair.carry(pair.a, frames)
    pair.run(seconds=60)
    assert (ok.status, ok.reason, ok.headers["x-seen"], ok.body) == (200, "OK", "web", b"/index" * 2000)
    assert (bad.status, bad.body) == (500, b"RuntimeError: a fault of the function\n")
    assert (refused.done, refused.failure, refused.status) == (True, Failure.REFUSED, 0)
    assert not pair.a.connections
    assert not pair.b.connections


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\nto the end", b"to the end"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n", b"abcde"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef", b"abc"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -9\r\n\r\nabc", None),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", None),
        (b"SSH-2.0-OpenSSH\r\n\r\n", None),
        (b"", None),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_http_answers_of_others(answer: bytes, expected: bytes | None, size: int) -> None:
    pair = Pair()

    def handle(connection: Connection, now: int) -> list[bytes]:
        if not connection.received or connection.state is not State.ESTABLISHED:
            return []
        _, frames = connection.receive(now)
        for at in range(0, len(answer), size):
            frames += connection.send(answer[at : at + size], now)
        return frames + connection.close(now)

    pair.b.listen(80, handle)
    record, frames = get(pair.a, B4, 80, 0)
    pair.carry(pair.a, frames)
    pair.run(seconds=10)
    assert record.done
    assert (record.body if record.error is None else None) == expected


def test_an_endpoint_talks_to_itself() -> None:
    pair = Pair()
    serve(pair.a, 80, lambda request: Response(200, b"self" * 50_000))
    for target in (A4, parse_ip("127.0.0.1"), A6, parse_ip("::1")):
        ping, frames = pair.a.ping(target, pair.now)
        assert frames == []
        assert ping.replied_at is not None
        record, frames = get(pair.a, target, 80, pair.now)
        assert isinstance(record, Get)
        assert frames == []
        assert record.body == b"self" * 50_000
    assert pair.frames == []
    pair.run(seconds=10)
    assert not pair.a.connections


def test_two_sockets_that_answer_each_other_for_ever_do_not_hang() -> None:
    pair = Pair()
    for port, other in ((1, 2), (2, 1)):
        pair.a.udp_bind(
            port,
            handler=lambda socket, datagram, other=other: socket.send(b"!", A4, other, datagram.time),  # type: ignore[misc]
        )
    socket = pair.a.udp_bind()
    assert socket.send(b"!", A4, 1, 0) == []
    assert pair.a.due() == 0
    assert pair.a.wake(5) == []
    assert pair.a.due() == 5
