"""A name server: a query in, an answer out (RFC 1034, RFC 1035, RFC 2308, RFC 6891, RFC 8914).

    reply(zone, query)               over UDP: cut to what the client takes, TC says so
    reply(zone, query, stream=True)  over TCP: whole

It answers from its zone alone, follows a CNAME as long as the zone knows where it leads, and turns several
addresses of one name round from answer to answer (by the query's number, so that the same query has the same
answer). What is outside of its zone is for `Reply.outside`: whoever carries the messages may ask another server.

Rule of this file: bytes in, bytes out, no clock, no state beside the zone, and no bytes that raise anything.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from emunet.elements.zone import Zone
from emunet.packet.dns import (
    ANY_CLASS,
    HEADER_LENGTH,
    IN,
    MESSAGE_LIMIT,
    UDP_LIMIT,
    Code,
    Edns,
    Message,
    Name,
    Question,
    Record,
    Type,
    error_option,
    folded,
    limited,
    text_of,
)  # fmt: skip
from emunet.packet.malformed import Malformed

EDNS_SIZE = 4096
"""Bytes of a datagram that this side takes, and sends at most."""

_CHAIN = 8
"""CNAMEs that are followed."""

_NOT_AUTHORITATIVE, _NOT_SUPPORTED, _NO_AUTHORITY_REACHED = 20, 21, 22
"""Reasons of RFC 8914 5.2."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What to send back; None where a message is not to be answered.

    `outside`: another server might know more. To it goes `ask`, and `joined` makes the answer of what it says.
    """

    data: bytes | None
    outside: bool = False
    ask: bytes = b""
    own: Message | None = None
    """What is answered before what the other server says: the way to a name outside, by CNAMEs."""


def reply(zone: Zone, data: bytes, *, stream: bool = False) -> Reply:
    """The answer to a message."""
    if len(data) < HEADER_LENGTH or data[2] & 0x80:  # too short to answer, or an answer itself
        return Reply(None)
    try:
        query = Message.parse(data)
    except Malformed:
        broken = Message(int.from_bytes(data[:2], "big"), True, data[2] >> 3 & 0xF, code=Code.FORMERR)
        return Reply(broken.pack())
    answered, outside = answer(zone, query)
    packed = limited(answered, _limit(query.edns, stream))
    if not outside or not answered.answers:
        return Reply(packed, outside, data if outside else b"")
    target = answered.answers[-1].data[0]
    assert isinstance(target, tuple)
    asked = replace(query, questions=(replace(query.questions[0], name=target),), additionals=())
    return Reply(packed, True, asked.pack(), answered)


def joined(reply: Reply, theirs: bytes, *, stream: bool) -> bytes:
    """The answer to a query of whose name another server has said this. Malformed where it is no message."""
    if reply.own is None:
        return theirs
    told = Message.parse(theirs)
    whole = replace(
        reply.own, code=told.code, authoritative=False, truncated=told.truncated,
        answers=(*reply.own.answers, *told.answers), authorities=told.authorities,
    )  # fmt: skip
    return limited(whole, _limit(Message.parse(reply.ask).edns, stream))


def _limit(edns: Edns | None, stream: bool) -> int:
    """Bytes of an answer to whoever said this of itself."""
    if stream:
        return MESSAGE_LIMIT
    return UDP_LIMIT if edns is None else max(UDP_LIMIT, min(edns.size, EDNS_SIZE))


def failed(data: bytes, sentence: str) -> bytes:
    """The answer to a query that `reply` took, where nobody could be asked."""
    query = Message.parse(data)
    blank = Message(
        query.id, True, recursion_desired=query.recursion_desired, recursion_available=True,
        questions=query.questions, edns=None if query.edns is None else Edns(EDNS_SIZE),
    )  # fmt: skip
    return _with_reason(blank, Code.SERVFAIL, _NO_AUTHORITY_REACHED, sentence).pack()


def answer(zone: Zone, query: Message) -> tuple[Message, bool]:
    """(the answer to a query, however long; whether it was about something that another server might know)."""
    blank = Message(
        query.id, True, query.opcode, recursion_desired=query.recursion_desired,
        recursion_available=bool(zone.authority.forward), questions=query.questions,
        edns=None if query.edns is None else Edns(EDNS_SIZE, dnssec=query.edns.dnssec),
    )  # fmt: skip
    if query.edns is not None and query.edns.version:
        return replace(blank, code=Code.BADVERS), False
    if query.opcode != 0:
        return replace(blank, code=Code.NOTIMP), False
    if len(query.questions) != 1:  # RFC 9619
        return replace(blank, code=Code.FORMERR), False
    asked = query.questions[0]
    if asked.cls not in (IN, ANY_CLASS):
        return _with_reason(
            blank, Code.REFUSED, _NOT_SUPPORTED, "only names of the Internet (class IN) are known"
        ), False
    if asked.type in (Type.AXFR, Type.IXFR, Type.OPT):
        return _with_reason(blank, Code.REFUSED, _NOT_SUPPORTED, "the zone is not handed out as a whole"), False
    return _answer(zone, blank, asked)


def _answer(zone: Zone, blank: Message, asked: Question) -> tuple[Message, bool]:
    name, answers = asked.name, []
    origin = zone.authority.origin_of(folded(name))
    if origin is None and not zone.exists(name):
        reason = f"{text_of(name)}: {zone.authority.refusal}"
        return _with_reason(blank, Code.SERVFAIL, _NOT_AUTHORITATIVE, reason), True
    found: list[Record] = []
    for _ in range(_CHAIN):
        there = _at(zone, name)
        found = [one for one in there if one.type == asked.type or asked.type == Type.ANY]
        alias = next((one for one in there if one.type == Type.CNAME), None)
        if found or alias is None:
            break
        answers.append(alias)
        target = alias.data[0]
        assert isinstance(target, tuple)
        if any(folded(one.name) == folded(target) for one in answers):
            break
        name = target
    answers += _turned(found, blank.id)
    message = replace(blank, authoritative=origin is not None, answers=tuple(answers))
    if found:
        return replace(message, additionals=tuple(_targets(zone, found))), False
    last = zone.authority.origin_of(folded(name))
    if last is None:  # an alias of what is known elsewhere, if at all; or a name of the lab without such records
        return message, bool(answers) and not zone.exists(name)
    start = Record(last, Type.SOA, zone.authority.ttl, zone.authority.soa(zone.serial))
    code = Code.NOERROR if zone.exists(name) else Code.NXDOMAIN
    return replace(message, code=code, authorities=(start,)), False


def _at(zone: Zone, name: Name) -> list[Record]:
    """What is known of a name, and of an origin what it is."""
    found = zone.at(name)
    if folded(name) in zone.authority.origins:
        first = zone.authority.origins[0]
        found.append(Record(name, Type.SOA, zone.authority.ttl, zone.authority.soa(zone.serial)))
        found.append(Record(name, Type.NS, zone.authority.ttl, ((b"ns", b"dns", *first),)))
    return found


def _turned(records: list[Record], number: int) -> list[Record]:
    """Several addresses come in another order each time, so that clients spread over them."""
    if len(records) < 2 or any(one.type not in (Type.A, Type.AAAA) for one in records):
        return records
    start = number % len(records)
    return records[start:] + records[:start]


def _targets(zone: Zone, records: list[Record]) -> list[Record]:
    """The addresses of those that records speak of: whoever asked will want them next."""
    found: dict[Record, None] = {}
    for record in records:
        if record.type in (Type.SRV, Type.NS):
            target = record.data[-1]
            assert isinstance(target, tuple)
            found |= dict.fromkeys(one for one in zone.at(target) if one.type in (Type.A, Type.AAAA))
    return list(found)


def _with_reason(blank: Message, code: Code, number: int, sentence: str) -> Message:
    """An error; whoever speaks EDNS is told why."""
    if blank.edns is None:
        return replace(blank, code=code)
    return replace(blank, code=code, edns=replace(blank.edns, options=(error_option(number, sentence),)))
