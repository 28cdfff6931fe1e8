"""The health question of gRPC, judged by an HTTP/2 implementation that is not ours (h2)."""

from __future__ import annotations

import h2.config
import h2.connection
import h2.events
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emunet.daemon.grpc_health import HealthAnswer, Reader, request_of


class Server:
    """A gRPC server with a health service, whose HTTP/2 is h2's, which raises on what the RFC forbids."""

    def __init__(self, body: bytes | None, status: str = "0") -> None:
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.h2.update_settings({})
        self.body, self.status = body, status
        self.headers: dict[str, str] = {}
        self.data = b""
        self.settled = False

    def feed(self, data: bytes) -> bytes:
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                self.headers = dict(event.headers)
            elif isinstance(event, h2.events.DataReceived):
                self.data += event.data
            elif isinstance(event, h2.events.SettingsAcknowledged):
                self.settled = True
            elif isinstance(event, h2.events.StreamEnded):
                self.answer(event.stream_id)
        return self.h2.data_to_send()

    def answer(self, stream: int) -> None:
        head = [(":status", "200"), ("content-type", "application/grpc")]
        if self.body is None:  # a refusal is trailers alone
            self.h2.send_headers(stream, [*head, ("grpc-status", self.status)], end_stream=True)
            return
        self.h2.ping(b"12345678")
        self.h2.send_headers(stream, head)
        self.h2.send_data(stream, b"\0" + len(self.body).to_bytes(4, "big") + self.body, pad_length=3)
        self.h2.send_headers(stream, [("grpc-status", self.status)], end_stream=True)


def talk(server: Server, request: bytes, pieces: int) -> HealthAnswer | None:
    """What the client makes of the server's answers, cut into pieces of some bytes."""
    reader, to_client, to_server = Reader(), b"", request
    while to_server or to_client:
        to_client += server.feed(to_server)
        piece, to_client = to_client[:pieces], to_client[pieces:]
        to_server = reader.feed(piece)
    return reader.answer


@pytest.mark.parametrize("pieces", [1, 7, 10_000])
@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        (b"\x08\x01", "0", HealthAnswer(1)),
        (b"\x08\x02", "0", HealthAnswer(2)),
        (b"", "0", HealthAnswer(0)),
        (None, "12", HealthAnswer(failure="the server has no health service, or does not know this service")),
    ],
)
def test_a_call_and_its_answer(body: bytes | None, status: str, expected: HealthAnswer, pieces: int) -> None:
    server = Server(body, status)
    assert talk(server, request_of("web", "10.244.1.2:9000"), pieces) == expected
    assert server.headers[":path"] == "/grpc.health.v1.Health/Check"
    assert server.headers[":authority"] == "10.244.1.2:9000"
    assert (server.headers["content-type"], server.headers["te"]) == ("application/grpc", "trailers")
    assert server.data == b"\0\0\0\0\x05\x0a\x03web"


def test_the_whole_server_is_asked_with_an_empty_message() -> None:
    server = Server(b"\x08\x01")
    assert talk(server, request_of("", "[fd00::2]:9000"), 100) == HealthAnswer(1)
    assert server.data == b"\0\0\0\0\0"


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    reader = Reader()
    reader.feed(data)
    reader.feed(data)


def test_what_is_no_http2_is_said_so() -> None:
    reader = Reader()
    reader.feed(b"HTTP/1.0 400 Bad Request\r\n\r\n")
    assert reader.answer == HealthAnswer(failure="the answer is not HTTP/2")
