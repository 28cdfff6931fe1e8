"""DNS messages, read and written by two others: dnspython, which is strict, and Scapy."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rdatatype
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scapy.layers.dns import DNS

from emunet.packet import dns as ours
from emunet.packet.dns import Edns, Message, Name, Question, Record, Type, name_of, soa, srv, text_of, txt
from emunet.packet.malformed import Malformed

labels = st.binary(min_size=1, max_size=20) | st.from_regex(rb"[a-zA-Z0-9_-]{1,10}", fullmatch=True)
names: st.SearchStrategy[Name] = st.lists(labels, max_size=8).map(tuple)
ttls = st.integers(0, 0x7FFFFFFF)
u16 = st.integers(0, 0xFFFF)


def _record(type: Type, data: st.SearchStrategy[ours.Data]) -> st.SearchStrategy[Record]:
    return st.builds(Record, names, st.just(type), ttls, data)


records = st.one_of(
    _record(Type.A, st.tuples(st.binary(min_size=4, max_size=4))),
    _record(Type.AAAA, st.tuples(st.binary(min_size=16, max_size=16))),
    _record(Type.CNAME, st.tuples(names)),
    _record(Type.PTR, st.tuples(names)),
    _record(Type.NS, st.tuples(names)),
    _record(Type.SRV, st.builds(srv, u16, u16, u16, names)),
    _record(Type.SOA, st.builds(soa, names, names, u16, u16, u16, u16, u16)),
    _record(Type.TXT, st.lists(st.binary(max_size=40), min_size=1, max_size=3).map(lambda texts: txt(*texts))),
)
sections = st.lists(records, max_size=5).map(tuple)
messages = st.builds(
    Message,
    id=u16,
    response=st.booleans(),
    authoritative=st.booleans(),
    truncated=st.booleans(),
    recursion_desired=st.booleans(),
    recursion_available=st.booleans(),
    code=st.integers(0, 15),
    questions=st.lists(st.builds(Question, names, st.sampled_from([1, 28, 33, 255])), max_size=1).map(tuple),
    answers=sections,
    authorities=sections,
    additionals=sections,
    edns=st.none()
    | st.builds(
        Edns, st.integers(512, 65535), st.just(0), st.booleans(), st.just((ours.error_option(20, "we do not know"),))
    ),
)


@given(messages)
def test_what_is_written_is_read_as_it_was(message: Message) -> None:
    assert Message.parse(message.pack()) == message


@given(messages)
def test_dnspython_reads_the_same(message: Message) -> None:
    theirs = dns.message.from_wire(message.pack(), ignore_trailing=False, one_rr_per_rrset=True)
    assert theirs.id == message.id
    assert theirs.rcode() == message.code
    for flag, wanted in (
        (dns.flags.QR, message.response),
        (dns.flags.AA, message.authoritative),
        (dns.flags.TC, message.truncated),
        (dns.flags.RD, message.recursion_desired),
        (dns.flags.RA, message.recursion_available),
    ):
        assert bool(theirs.flags & flag) == wanted
    for mine, there in (
        (message.answers, theirs.answer),
        (message.authorities, theirs.authority),
        (message.additionals, theirs.additional),
    ):
        assert [(one.name, one.type, one.ttl) for one in mine] == [
            (tuple(rrset.name.labels[:-1]), int(rrset.rdtype), rrset.ttl) for rrset in there
        ]
        for one, rrset in zip(mine, there, strict=True):
            wanted = b"".join(
                part if isinstance(part, bytes) else dns.name.Name((*part, b"")).to_wire() or b"" for part in one.data
            )
            assert rrset[0].to_wire() == wanted
    if message.edns is None:
        assert theirs.edns == -1
    else:
        assert (theirs.edns, theirs.payload) == (0, message.edns.size)
        assert bool(theirs.ednsflags & dns.flags.DO) == message.edns.dnssec
        reason = theirs.options[0]
        assert isinstance(reason, dns.edns.EDEOption)
        assert (int(reason.code), reason.text) == (20, "we do not know")


def folded(message: Message) -> Message:
    """Names in small letters (RFC 4343): dnspython writes a name as an earlier one that differs only in its case."""

    def low(name: Name) -> Name:
        return tuple(label.lower() for label in name)

    def fold(record: Record) -> Record:
        data = tuple(part if isinstance(part, bytes) else low(part) for part in record.data)
        return replace(record, name=low(record.name), data=data)

    return replace(
        message,
        questions=tuple(replace(question, name=low(question.name)) for question in message.questions),
        answers=tuple(map(fold, message.answers)),
        authorities=tuple(map(fold, message.authorities)),
        additionals=tuple(map(fold, message.additionals)),
    )


@given(messages)
@example(
    Message(
        id=0, additionals=(Record((b"D",), Type.A, 0, (bytes(4),)), Record((b"d",), Type.A, 0, (bytes(4),)))
    )
)  # fmt: skip
def test_what_dnspython_writes_is_read(message: Message) -> None:
    theirs = dns.message.from_wire(message.pack(), one_rr_per_rrset=True)
    again = Message.parse(theirs.to_wire())
    assert folded(replace(again, edns=message.edns)) == folded(message)


def test_scapy_reads_an_answer() -> None:
    web = name_of("web.default.svc.cluster.local")
    message = Message(
        7, True, questions=(Question((b"_http", b"_tcp", *web), Type.SRV),),
        answers=(Record((b"_http", b"_tcp", *web), Type.SRV, 30, srv(0, 100, 80, web)),),
        additionals=(Record(web, Type.A, 30, (b"\x0a\x60\0\1",)),),
    )  # fmt: skip
    theirs = DNS(message.pack())
    assert (theirs.an[0].type, theirs.an[0].port, theirs.an[0].target) == (33, 80, b"web.default.svc.cluster.local.")
    assert (theirs.ar[0].rrname, theirs.ar[0].rdata) == (b"web.default.svc.cluster.local.", "10.96.0.1")


@given(st.binary(max_size=80))
def test_no_bytes_raise_anything_but_malformed(data: bytes) -> None:
    with contextlib.suppress(Malformed):
        assert Message.parse(data)


@given(messages, st.integers(0, 400), st.integers(0, 255))
def test_no_damage_raises_anything_but_malformed(message: Message, place: int, byte: int) -> None:
    data = bytearray(message.pack())
    data[place % len(data)] = byte
    for damaged in (bytes(data), bytes(data[: place % len(data)])):
        with contextlib.suppress(Malformed):
            assert Message.parse(damaged)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (b"\xc0\x0c", "points to 12, which is not before it"),  # to itself
        (b"\xc0\x40", "points to 64, which is not before it"),
        (b"\x41" + bytes(65), "of a kind that nobody uses"),
        (b"\x05ab", "ends where 5 more belong to it"),
        (b"\x3f" + b"a" * 63 + (b"\x3f" + b"a" * 63) * 3 + b"\0", "more than 255"),
    ],
)
def test_a_name_that_is_none(name: bytes, told: str) -> None:
    with pytest.raises(Malformed, match=told):
        Message.parse(bytes((0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0)) + name)


def test_names_are_compressed_but_not_in_an_srv() -> None:
    web = name_of("web.default.svc.cluster.local")
    short = Message(1, answers=(Record(web, Type.CNAME, 0, (web,)),)).pack()
    assert len(short) == 12 + 31 + 10 + 2
    whole = Message(1, answers=(Record(web, Type.SRV, 0, srv(0, 0, 1, web)),)).pack()
    assert len(whole) == 12 + 31 + 10 + 6 + 31, "RFC 2782: the target is not compressed"


def test_compression_keeps_the_case() -> None:
    """RFC 4343 4.1: a name is not written by a pointer to one of other letters."""
    message = Message(
        1, questions=(Question(name_of("WEB.x"), 1),), answers=(Record(name_of("web.x"), 1, 0, (bytes(4),)),)
    )
    assert Message.parse(message.pack()).answers[0].name == (b"web", b"x")


@given(names)
def test_a_name_as_text_and_back(name: Name) -> None:
    text = text_of(name)
    assert name_of(text) == name
    assert text == dns.name.Name((*name, b"")).to_text() or b'"' in text.encode() or any(c in text for c in "();@$")


@pytest.mark.parametrize("text", ["a..b", ".a", "a" * 64, ".".join(["a" * 60] * 5), "a\\", "a\\9", "a\\999"])
def test_texts_that_are_no_names(text: str) -> None:
    with pytest.raises(ValueError, match=r"name|label"):
        name_of(text)


@pytest.mark.parametrize(
    ("address", "wanted"),
    [("10.244.1.2", "2.1.244.10.in-addr.arpa."), ("fd00::2", "2" + ".0" * 27 + ".0.0.d.f.ip6.arpa.")],
)
def test_backward_names(address: str, wanted: str) -> None:
    import dns.reversename

    found = text_of(ours.reverse_name(ours.parse_ip(address)))
    assert found == wanted == dns.reversename.from_address(address).to_text()


@pytest.mark.parametrize("address", ["10.244.1.2", "fd00:10:244:1::2", "::1"])
def test_dashed_addresses(address: str) -> None:
    label = ours.dashed(ours.parse_ip(address))
    assert b"." not in label
    assert b":" not in label
    assert ours.from_dashed(label) == ours.parse_ip(address)


@pytest.mark.parametrize("label", [b"web", b"10-244-1", b"10.244.1.2", b"1-2-3-256", b"", b"\xff-1", b"fd00::2"])
def test_labels_that_are_no_addresses(label: bytes) -> None:
    assert ours.from_dashed(label) is None


@given(messages, st.integers(512, 1500))
def test_what_does_not_fit_is_cut(message: Message, limit: int) -> None:
    packed = ours.limited(message, limit)
    cut = Message.parse(packed)
    assert cut.questions == message.questions
    if len(message.pack()) <= limit:
        assert cut == message
        return
    assert cut.additionals == ()
    if len(replace(message, additionals=()).pack()) <= limit:
        assert cut == replace(message, additionals=())
        return
    assert cut.truncated
    assert cut.authorities == ()
    assert cut.answers == message.answers[: len(cut.answers)]
    assert len(packed) <= limit or not cut.answers, "the question alone is sent whatever its length"
    assert len(replace(cut, answers=message.answers[: len(cut.answers) + 1]).pack()) > limit or (
        len(cut.answers) + 1 >= len(message.answers)
    )
