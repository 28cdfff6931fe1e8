"""What the responder says: to HTTP in whatever pieces it comes, to anything else, to silence, to its own kind."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emunet.elements.responder import LONGEST, Conversation, Identity, Meeting, datagram, line

WEB = Identity("web-1", "default", "host1")
MEETING = Meeting("TCP", "10.244.1.2", 80, "10.244.2.3", 40000)
LINE = (
    b"pod=web-1 namespace=default node=host1 address=10.244.1.2 port=80 protocol=TCP"
    b" client=10.244.2.3 client_port=40000\n"
)
GET = b"GET /who?me=1 HTTP/1.1\r\nHost: web-1\r\n\r\n"
POST = b"POST /form HTTP/1.1\r\nHost: web-1\r\nContent-Length: 5\r\n\r\nhello"


def ask(*pieces: bytes, ended: bool = False) -> bytes | None:
    """The answer to a client that sends these pieces, and then perhaps closes its side."""
    conversation = Conversation(WEB, MEETING)
    for piece in pieces:
        answer = conversation.feed(piece, False)
        if answer is not None:
            return answer
    return conversation.feed(b"", True) if ended else None


def body_of(answer: bytes | None) -> dict[str, object]:
    """The JSON of an HTTP answer."""
    assert answer is not None
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    told: dict[str, object] = json.loads(body)
    return told


def test_json_to_http() -> None:
    assert body_of(ask(GET)) == {
        "pod": "web-1", "namespace": "default", "node": "host1", "address": "10.244.1.2", "port": 80,
        "protocol": "TCP", "client": "10.244.2.3", "client_port": 40000, "method": "GET", "path": "/who?me=1",
    }  # fmt: skip


def test_head_has_no_body_and_says_how_long_it_would_be() -> None:
    head, _, body = (ask(GET.replace(b"GET", b"HEAD")) or b"").partition(b"\r\n\r\n")
    assert body == b""
    assert b"Content-Length: 0" not in head


@given(st.sampled_from([GET, POST]), st.lists(st.integers(1, 60), max_size=4))
def test_in_whatever_pieces_it_comes(request: bytes, cuts: list[int]) -> None:
    at = [0, *sorted(min(cut, len(request)) for cut in cuts), len(request)]
    assert ask(*[request[a:b] for a, b in itertools.pairwise(at)]) == ask(request)


@pytest.mark.parametrize(
    "said", [b"\x16\x03\x01\x02\x00", b"PING\r\n", b"hello there\n", b"GET /\r\n", b"get / HTTP/1.1\r\n"]
)
def test_a_line_to_whoever_says_something_else(said: bytes) -> None:
    assert ask(said) == LINE


def test_a_line_to_silence_and_to_a_closed_side() -> None:
    assert ask() is None
    assert Conversation(WEB, MEETING).silence() == LINE
    assert ask(ended=True) == LINE
    assert ask(b"GET /wh", ended=True) == LINE


def test_a_slow_http_client_gets_no_line_in_the_middle_of_its_request() -> None:
    conversation = Conversation(WEB, MEETING)
    assert conversation.feed(GET[:-2], False) is None
    assert conversation.silence() is None
    assert body_of(conversation.feed(GET[-2:], False))["path"] == "/who?me=1"


def test_what_is_wrong_is_said() -> None:
    answer = ask(b"GET / HTTP/1.1\r\nno header\r\n\r\n") or b""
    assert answer.startswith(b"HTTP/1.1 400 Bad Request")
    assert b"'no header' is not a header line" in answer


def test_a_request_has_a_length() -> None:
    start = f"POST / HTTP/1.1\r\nContent-Length: {LONGEST + 1}\r\n\r\n".encode()
    assert (ask(start, bytes(LONGEST)) or b"").startswith(b"HTTP/1.1 413 ")
    assert ask(b"GET /" + b"x" * LONGEST) == LINE


@given(st.lists(st.binary(max_size=40), max_size=5), st.booleans())
def test_no_bytes_break_it(pieces: list[bytes], ended: bool) -> None:
    answer = ask(*pieces, ended=ended)
    assert answer is None or answer == LINE or answer.startswith(b"HTTP/1.1 ")


def test_datagrams() -> None:
    meeting = Meeting("UDP", "fd00::2", 53, "fd00::3", 4000)
    answer = datagram(WEB, meeting, b"anything")
    assert answer == line(WEB, meeting)
    assert answer is not None
    assert b"address=fd00::2 port=53 protocol=UDP client=fd00::3 " in answer
    assert datagram(WEB, meeting, answer) is None, "two responders would answer each other for ever"
