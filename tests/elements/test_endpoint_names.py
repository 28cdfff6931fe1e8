"""A name server and a stub on two endpoints that share a link: what goes over the wire, and what comes of it."""

from __future__ import annotations

import dns.message
import pytest

from emunet.elements.endpoint.names import ATTEMPTS, TIMEOUT, Lookup, NameServer, ResolverConfig, look_up
from emunet.elements.endpoint.stack import Endpoint
from emunet.elements.endpoint.udp import Datagram, UdpSocket
from emunet.elements.zone import Authority, Part, Zone, address_record
from emunet.packet.address import InterfaceAddress, parse_ip
from emunet.packet.dns import Record, Type, addresses_in, describe, name_of, srv, text_of

A, B = parse_ip("10.0.0.1"), parse_ip("10.0.0.2")
DOMAIN = name_of("cluster.local")
WEB = name_of("web.default.svc.cluster.local")
SEARCHES = ("default.svc.cluster.local", "svc.cluster.local", "cluster.local")
CONFIG = ResolverConfig((B,), SEARCHES, 5)


class Pair:
    """A client at A and a server at B; time passes when nothing else is left to do."""

    def __init__(self, *records: Record) -> None:
        self.zone = Zone(Authority((DOMAIN,)))
        self.zone.put("all", Part(records))
        self.client = Endpoint("client", b"\x02\0\0\0\0\1", (InterfaceAddress(A, 24),))
        self.server = Endpoint("server", b"\x02\0\0\0\0\2", (InterfaceAddress(B, 24),))
        self.service: NameServer | None = NameServer(self.server, lambda: self.zone)
        self.now = 0
        self.queries: list[str] = []
        self.silent = False

    def look(self, text: str, kind: Type = Type.A, config: ResolverConfig = CONFIG) -> Lookup:
        """Look a name up until it is done."""
        lookup, frames = look_up(self.client, config, text, kind, self.now)
        self.run(lookup, frames)
        return lookup

    def run(self, lookup: Lookup, frames: list[bytes]) -> None:
        """Carry frames, and let time pass, until the lookup is done."""
        for _ in range(200):
            while frames:
                back = []
                for frame in frames:
                    back += self.server.receive(frame, self.now)
                frames = []
                for frame in back:
                    frames += self.client.receive(frame, self.now)
            if lookup.done:
                return
            due = min(one for one in (self.client.due(), self.server.due()) if one is not None)
            self.now = max(self.now, due)
            frames = self.client.wake(self.now)
            for frame in self.server.wake(self.now):
                frames += self.client.receive(frame, self.now)
        raise AssertionError("it never came to an end")


def addresses(count: int) -> list[Record]:
    """Addresses of `web`, and of a name of their own each."""
    return [address_record(WEB, bytes((10, 1, 0, number)), 30) for number in range(1, count + 1)]


def test_a_short_name_is_found_by_the_search_list() -> None:
    pair = Pair(*addresses(1))
    lookup = pair.look("web")
    assert [describe(one) for one in lookup.records] == ["10.1.0.1"]
    assert lookup.tried == [("web.default.svc.cluster.local.", "found")]


def test_each_domain_is_tried_before_the_name_as_it_is() -> None:
    """`kubernetes.default` has one dot, fewer than five: the second domain makes it a name that there is."""
    pair = Pair(address_record(name_of("kubernetes.default.svc.cluster.local"), bytes(4), 30))
    lookup = pair.look("kubernetes.default")
    assert [name for name, _ in lookup.tried] == [
        "kubernetes.default.default.svc.cluster.local.", "kubernetes.default.svc.cluster.local.",
    ]  # fmt: skip
    lookup = pair.look("www.example.com")
    assert lookup.tried == [
        ("www.example.com.default.svc.cluster.local.", "NXDOMAIN"),
        ("www.example.com.svc.cluster.local.", "NXDOMAIN"),
        ("www.example.com.cluster.local.", "NXDOMAIN"),
        ("www.example.com.", "SERVFAIL"),
    ]
    assert lookup.error is not None
    assert lookup.error.startswith("www.example.com was not found: www.example.com.default.svc.cluster.local. NXDOMAIN")


def test_a_dot_at_the_end_and_enough_dots_skip_the_list() -> None:
    pair = Pair(*addresses(1))
    assert pair.look("web.").tried == [("web.", "SERVFAIL")]
    assert pair.look("web.default.svc.cluster.local.").records
    few = ResolverConfig((B,), SEARCHES, 1)
    assert pair.look("web.default.svc.cluster.local", config=few).tried == [("web.default.svc.cluster.local.", "found")]


def test_a_name_without_such_a_record_is_tried_on() -> None:
    pair = Pair(*addresses(1))
    lookup = pair.look("web", Type.AAAA)
    assert lookup.tried[0] == ("web.default.svc.cluster.local.", "no such record")
    assert len(lookup.tried) == 4


def test_an_answer_that_is_cut_is_asked_for_again_over_tcp() -> None:
    pair = Pair(*addresses(60))
    lookup = pair.look("web")
    assert len(lookup.records) == 60
    assert lookup.tried == [("web.default.svc.cluster.local.", "found")]


@pytest.mark.parametrize("count", [1, 60])
def test_two_questions_on_one_connection(count: int) -> None:
    """A stream is no sequence of messages: two may come in one piece, and half a one."""
    pair = Pair(*addresses(count))
    query = dns.message.make_query(text_of(WEB), "A").to_wire()
    data = (len(query).to_bytes(2, "big") + query) * 2
    connection, frames = pair.client.connect(B, 53, 0)
    received = bytearray()
    pieces = [data[:1], data[1:40], data[40:]]
    for _ in range(20):
        back: list[bytes] = []
        for frame in frames:
            back += pair.server.receive(frame, pair.now)
        frames = []
        for frame in back:
            frames += pair.client.receive(frame, pair.now)
        if connection.state.name == "ESTABLISHED" and pieces and not frames:
            frames += connection.send(pieces.pop(0), pair.now)
        got, more = connection.receive(pair.now)
        received += got
        frames += more
        pair.now += 300_000_000
        frames += pair.client.wake(pair.now)
        for frame in pair.server.wake(pair.now):
            frames += pair.client.receive(frame, pair.now)
    first = int.from_bytes(received[:2], "big")
    answers = [received[2 : 2 + first], received[4 + first :]]
    assert [len(dns.message.from_wire(bytes(one)).answer[0]) for one in answers] == [count, count]


def test_a_quiet_connection_is_ended() -> None:
    pair = Pair()
    connection, frames = pair.client.connect(B, 53, 0)
    for _ in range(3):
        back = [one for frame in frames for one in pair.server.receive(frame, 0)]
        frames = [one for frame in back for one in pair.client.receive(frame, 0)]
    assert connection.state.name == "ESTABLISHED"
    for moment in range(0, 12_000_000_000, 500_000_000):
        for frame in pair.server.wake(moment):
            pair.client.receive(frame, moment)
    assert connection.state.name == "CLOSED"


def test_nobody_answers() -> None:
    pair = Pair()
    assert pair.service is not None
    pair.service.close(0)
    lookup = pair.look("web")
    assert lookup.error == "web: no answer from 10.0.0.2 within 5 s, 2 times"
    assert pair.now == TIMEOUT * ATTEMPTS


def test_the_second_server_is_asked_when_the_first_says_nothing() -> None:
    pair = Pair(*addresses(1))
    lookup = pair.look("web", config=ResolverConfig((parse_ip("10.0.0.77"), B), SEARCHES, 5))
    assert lookup.records
    assert pair.now == TIMEOUT


def test_a_pod_without_a_name_server_says_so() -> None:
    assert Pair().look("web", config=ResolverConfig()).error == "web: this pod knows no name server"
    assert "a label is empty" in str(Pair().look("a..b").error)


def test_answers_to_other_questions_are_passed_over() -> None:
    """Of another number, about another name, from somebody else, or no answer at all (RFC 5452 9.1)."""
    pair = Pair()
    assert pair.service is not None
    pair.service.close(0)

    def lie(socket: UdpSocket, received: Datagram) -> list[bytes]:
        query = dns.message.from_wire(received.data)
        frames: list[bytes] = []
        for change in ("number", "name", "query", "broken", "right"):
            answer = dns.message.make_response(query)
            if change == "name":
                answer.question = dns.message.make_query("other.cluster.local.", "A").question
            if change == "number":
                answer.id ^= 1
            data = received.data if change == "query" else answer.to_wire()
            if change == "right":
                answer.set_rcode(3)
                data = answer.to_wire()
            if change == "broken":
                data = data[:20]
            frames += socket.send(data, received.source, received.source_port, received.time)
        return frames

    pair.server.udp_bind(53, handler=lie)
    lookup = pair.look("web.cluster.local.")
    assert lookup.tried == [("web.cluster.local.", "NXDOMAIN")]


def test_other_records_are_found_too() -> None:
    pair = Pair(Record((b"_http", b"_tcp", *WEB), Type.SRV, 30, srv(0, 100, 80, WEB)), *addresses(1))
    lookup = pair.look("_http._tcp.web", Type.SRV)
    assert [describe(one) for one in lookup.records] == ["0 100 80 web.default.svc.cluster.local."]
    assert addresses_in(pair.look("web").records) == [bytes((10, 1, 0, 1))]
