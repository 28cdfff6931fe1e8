"""A name server as bytes in and bytes out: what is cut, what is refused, and that nothing raises."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.opcode
import dns.query
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emunet.elements.resolver import EDNS_SIZE, reply
from emunet.elements.zone import Authority, Part, Zone, address_record, apply_update, encode_update
from emunet.packet.dns import Record, Type, name_of, srv, txt

MANY = name_of("many.example")


def zone_of(*records: Record) -> Zone:
    """A zone of `example`."""
    zone = Zone(Authority((name_of("example"),)))
    zone.put("all", Part(records))
    return zone


@pytest.fixture
def zone() -> Zone:
    """A hundred addresses of one name, and ports of them."""
    hosts = [
        address_record(name_of(f"host-{number}.many.example"), bytes((10, 0, 0, number)), 30) for number in range(100)
    ]
    return zone_of(
        *(address_record(MANY, one.data[0], 30) for one in hosts if isinstance(one.data[0], bytes)), *hosts,
        *(Record((b"_http", b"_tcp", *MANY), Type.SRV, 30, srv(0, 1, 80, one.name)) for one in hosts[:12]),
        address_record(name_of("one.example"), bytes(4), 30),
    )  # fmt: skip


def ask(zone: Zone, query: dns.message.Message, *, stream: bool = False) -> tuple[dns.message.Message, int]:
    """(the answer, its length)."""
    data = reply(zone, query.to_wire(), stream=stream).data
    assert data is not None
    return dns.message.from_wire(data, ignore_trailing=False), len(data)


@pytest.mark.rule("DNS-15", element="answer-size")
@pytest.mark.parametrize(
    ("size", "limit", "whole"),
    [(None, 512, False), (400, 512, False), (1232, 1232, False), (1800, 1800, True), (65535, EDNS_SIZE, True)],
)
def test_an_answer_is_as_long_as_the_client_takes(zone: Zone, size: int | None, limit: int, whole: bool) -> None:
    query = dns.message.make_query("many.example.", "A", payload=size, use_edns=False if size is None else 0)
    found, length = ask(zone, query)
    assert length <= limit
    assert bool(found.flags & dns.flags.TC) != whole
    count = len(found.answer[0])
    assert count == 100 if whole else length + 16 > limit, "as many as fit"
    short, _ = ask(zone, dns.message.make_query("many.example.", "A", use_edns=False))
    assert short.flags & dns.flags.TC, "who says nothing of EDNS is cut short in any case"
    over_tcp, _ = ask(zone, query, stream=True)
    assert len(over_tcp.answer[0]) == 100
    assert not over_tcp.flags & dns.flags.TC


@pytest.mark.rule("DNS-15", element="answer-size")
def test_what_is_additional_goes_before_anything_is_cut(zone: Zone) -> None:
    """RFC 2181 9: TC says that something is missing that was asked for."""
    found, _ = ask(zone, dns.message.make_query("_http._tcp.many.example.", "SRV", use_edns=False))
    assert (len(found.answer[0]), len(found.additional)) == (12, 0)
    assert not found.flags & dns.flags.TC
    found, _ = ask(zone, dns.message.make_query("_http._tcp.many.example.", "SRV", use_edns=0))
    assert (len(found.answer[0]), len(found.additional)) == (12, 12)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"rdclass": "CH"}, dns.rcode.REFUSED),
        ({"rdtype": "AXFR"}, dns.rcode.REFUSED),
        ({"use_edns": 1}, dns.rcode.BADVERS),
    ],
)
def test_what_is_not_answered_says_so(zone: Zone, change: dict[str, object], code: dns.rcode.Rcode) -> None:
    query = dns.message.make_query("one.example.", **{"rdtype": "A", **change})  # type: ignore[arg-type]
    found, _ = ask(zone, query)
    assert found.rcode() == code
    assert found.answer == []


def test_an_update_is_not_implemented(zone: Zone) -> None:
    query = dns.message.make_query("one.example.", "A")
    query.set_opcode(dns.opcode.NOTIFY)
    assert ask(zone, query)[0].rcode() == dns.rcode.NOTIMP


def test_a_broken_query_is_told_so_and_a_broken_answer_is_not() -> None:
    zone = zone_of()
    header = bytes.fromhex("abcd 0100 0001 0000 0000 0000")
    found = reply(zone, header).data
    assert found is not None
    told = dns.message.from_wire(found)
    assert (told.id, told.rcode()) == (0xABCD, dns.rcode.FORMERR)
    assert reply(zone, header[:11]).data is None
    assert reply(zone, header[:2] + b"\x81" + header[3:]).data is None, "two servers would answer each other for ever"
    two = bytes.fromhex("abcd 0100 0000 0000 0000 0000")
    assert reply(zone, two).data == bytes.fromhex("abcd 8101 0000 0000 0000 0000")


def test_any_means_all_that_there_is() -> None:
    name = name_of("one.example")
    zone = zone_of(
        address_record(name, bytes(4), 1), address_record(name, bytes(16), 1), Record(name, Type.TXT, 1, txt(b"x"))
    )
    found, _ = ask(zone, dns.message.make_query("one.example.", "ANY"))
    assert sorted(rrset.rdtype for rrset in found.answer) == [1, 16, 28]


def test_dnssec_is_asked_for_and_the_bit_is_repeated(zone: Zone) -> None:
    found, _ = ask(zone, dns.message.make_query("one.example.", "A", want_dnssec=True))
    assert found.ednsflags & dns.flags.DO
    assert found.payload == EDNS_SIZE


@given(
    st.binary(max_size=60) | st.binary(min_size=12, max_size=60).map(lambda data: data[:2] + b"\x01\x00\0\1" + data[6:])
)
def test_no_bytes_raise_anything(data: bytes) -> None:
    found = reply(zone_of(), data).data
    if found is not None:
        told = dns.message.from_wire(found)
        assert told.id == int.from_bytes(data[:2], "big")
        assert told.flags & dns.flags.QR


def test_a_line_about_names_of_nothing() -> None:
    with pytest.raises(ValueError, match="before it was said what they are of"):
        apply_update(None, encode_update({}))


def test_a_name_server_in_another_process_answers_the_same(zone: Zone) -> None:
    other = apply_update(None, encode_update(zone.parts, zone.authority))
    for text in ("many.example.", "one.example.", "none.example.", "other."):
        query = dns.message.make_query(text, "A").to_wire()
        if text != "none.example.":  # its SOA has the serial of each
            assert reply(zone, query) == reply(other, query)
    assert other.parts == zone.parts
    other = apply_update(other, encode_update({"all": None}))
    assert not other.exists(name_of("one.example"))
    assert other.exists(name_of("example"))
