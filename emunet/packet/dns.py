"""DNS messages (RFC 1035 4; AAAA: RFC 3596; SRV: RFC 2782; EDNS: RFC 6891; reasons of errors: RFC 8914).

A name is a tuple of labels, each of bytes, from the left; the root is the empty tuple. Labels keep their
case; who compares names compares `folded(name)` (RFC 1035 2.3.3, RFC 4343).

What a record says (`Data`) is a tuple of bytes and of names in their order, so that one reader and one
writer serve every type: an A is `(address,)`, an SRV is `(priority weight port, target)`.

It is our own code and no library because a pod's resolver, a memory wire's stack and whoever explains a
packet need the same 200 lines, within processes that load next to nothing; libraries judge it in the tests.

Rule of this file: as of the package. A name that is compressed in a loop or points ahead is malformed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum

from emunet.packet.address import format_ip, parse_ip
from emunet.packet.malformed import Malformed

PORT = 53
HEADER_LENGTH = 12
UDP_LIMIT = 512
"""Bytes of an answer over UDP to whoever does not say that it takes more (RFC 1035 4.2.1)."""

MESSAGE_LIMIT = 65_535
NAME_LIMIT = 255
LABEL_LIMIT = 63
IN, ANY_CLASS = 1, 255

Name = tuple[bytes, ...]
Data = tuple[bytes | Name, ...]


class Type(IntEnum):
    """The types of records that are known here; others are numbers."""

    A = 1
    NS = 2
    CNAME = 5
    SOA = 6
    PTR = 12
    TXT = 16
    AAAA = 28
    SRV = 33
    OPT = 41
    IXFR = 251
    AXFR = 252
    ANY = 255


class Code(IntEnum):
    """How a question was answered (RFC 1035 4.1.1, RFC 6891 9). NOERROR without records: no such type there."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    BADVERS = 16


# What a type's data is made of: a number of bytes, a name, or the rest. Names after RFC 3597 may be pointed into
# only in the types of RFC 1035; an SRV's target is written whole (RFC 2782).
_NAME, _REST = -1, -2
_SHAPES: dict[int, tuple[int, ...]] = {
    Type.A: (4,),
    Type.AAAA: (16,),
    Type.NS: (_NAME,),
    Type.CNAME: (_NAME,),
    Type.PTR: (_NAME,),
    Type.SOA: (_NAME, _NAME, 20),
    Type.SRV: (6, _NAME),
}
_OPAQUE = (_REST,)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked."""

    name: Name
    type: int
    cls: int = IN


@dataclass(frozen=True, slots=True)
class Record:
    """One record; `ttl` in seconds."""

    name: Name
    type: int
    ttl: int
    data: Data
    cls: int = IN


@dataclass(frozen=True, slots=True)
class Edns:
    """What the OPT record says: the size of a datagram that its sender takes; DNSSEC wanted; options by number."""

    size: int
    version: int = 0
    dnssec: bool = False
    options: tuple[tuple[int, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Message:
    """A query or an answer."""

    id: int
    response: bool = False
    opcode: int = 0
    authoritative: bool = False
    truncated: bool = False
    recursion_desired: bool = False
    recursion_available: bool = False
    code: int = Code.NOERROR
    questions: tuple[Question, ...] = ()
    answers: tuple[Record, ...] = ()
    authorities: tuple[Record, ...] = ()
    additionals: tuple[Record, ...] = ()
    edns: Edns | None = field(default=None)

    def pack(self) -> bytes:
        """As bytes, names compressed. ValueError where it does not fit 65,535 bytes, or a name is none."""
        writer = _Writer()
        flags = (
            self.response << 15 | self.opcode << 11 | self.authoritative << 10 | self.truncated << 9
            | self.recursion_desired << 8 | self.recursion_available << 7 | (self.code & 0xF)
        )  # fmt: skip
        sections = (self.questions, self.answers, self.authorities, self.additionals)
        counts = [len(section) for section in sections]
        counts[3] += self.edns is not None
        for number in (self.id, flags, *counts):
            writer.number(number, 2)
        for question in self.questions:
            writer.name(question.name)
            writer.number(question.type, 2)
            writer.number(question.cls, 2)
        for section in (self.answers, self.authorities, self.additionals):
            for record in section:
                writer.record(record)
        if self.edns is not None:
            writer.edns(self.edns, self.code >> 4)
        if len(writer.data) > MESSAGE_LIMIT:
            raise ValueError(f"a DNS message has at most {MESSAGE_LIMIT} bytes, not {len(writer.data)}")
        return bytes(writer.data)

    @classmethod
    def parse(cls, data: bytes) -> Message:
        """The message; bytes after its end are passed over. Malformed where it is none."""
        reader = _Reader(data)
        id, flags, *counts = (reader.number(2) for _ in range(6))
        questions = tuple(Question(reader.name(), reader.number(2), reader.number(2)) for _ in range(counts[0]))
        sections: list[tuple[Record, ...]] = []
        edns: Edns | None = None
        extended = 0
        for count in counts[1:]:
            section: list[Record] = []
            for _ in range(count):
                record = reader.record()
                if record.type != Type.OPT:
                    section.append(record)
                elif edns is not None or record.name or len(sections) != 2:
                    raise Malformed("a DNS message has one OPT record at most, of the root, in its last section")
                else:
                    edns, extended = _edns_of(record)
            sections.append(tuple(section))
        answers, authorities, additionals = sections
        return cls(
            id, bool(flags >> 15), flags >> 11 & 0xF, bool(flags >> 10 & 1), bool(flags >> 9 & 1),
            bool(flags >> 8 & 1), bool(flags >> 7 & 1), extended << 4 | flags & 0xF,
            questions, answers, authorities, additionals, edns,
        )  # fmt: skip


def limited(message: Message, limit: int) -> bytes:
    """As bytes of at most `limit`: what is additional goes first; if that is not enough TC says so (RFC 2181 9)."""
    packed = _packed_or_none(message, limit)
    if packed is not None:
        return packed
    message = replace(message, additionals=())
    packed = _packed_or_none(message, limit)
    if packed is not None:
        return packed
    fits, too_many = 0, len(message.answers)
    best = replace(message, truncated=True, answers=(), authorities=())
    while fits < too_many - 1:
        middle = (fits + too_many) // 2
        tried = replace(best, answers=message.answers[:middle])
        if _packed_or_none(tried, limit) is None:
            too_many = middle
        else:
            fits = middle
    return replace(best, answers=message.answers[:fits]).pack()


def _packed_or_none(message: Message, limit: int) -> bytes | None:
    try:
        packed = message.pack()
    except ValueError:  # longer than any message may be
        return None
    return packed if len(packed) <= limit else None


# Names


def name_of(text: str) -> Name:
    r"""`web.default.svc.cluster.local`, with or without a dot at the end; `\.` and `\046` as in RFC 1035 5.1.

    ValueError where it is no name.
    """
    labels: list[bytes] = []
    label = bytearray()
    data = text.encode()
    position = 0
    while position < len(data):
        byte = data[position]
        position += 1
        if byte == 0x5C:
            escaped = data[position : position + 3]
            if len(escaped) == 3 and escaped.isdigit() and int(escaped) < 256:
                byte, position = int(escaped), position + 3
            elif escaped[:1] and not escaped[:1].isdigit():
                byte, position = escaped[0], position + 1
            else:
                raise ValueError(f"{text!r} is no name: a backslash stands before a dot, or before three digits")
        elif byte == 0x2E:
            if not label:
                if len(data) == 1:
                    return ()
                raise ValueError(f"{text!r} is no name: a label is empty")
            labels.append(bytes(label))
            label.clear()
            continue
        label.append(byte)
    if label:
        labels.append(bytes(label))
    name = tuple(labels)
    check_name(name)
    return name


def text_of(name: Name) -> str:
    """As text, with a dot at the end; bytes that are no letters, digits, - or _ as `name_of` reads them."""
    return "".join(f"{''.join(map(_character, label))}." for label in name) or "."


def _character(byte: int) -> str:
    if byte in b".\\":
        return "\\" + chr(byte)
    return chr(byte) if 0x21 <= byte < 0x7F else f"\\{byte:03d}"


def folded(name: Name) -> Name:
    """The name by which others are compared: ASCII letters in lower case."""
    return tuple(label.lower() for label in name)


def check_name(name: Name) -> None:
    """ValueError where a label has no bytes or more than 63, or the name more than 255 on the wire."""
    for label in name:
        if not 0 < len(label) <= LABEL_LIMIT:
            raise ValueError(f"the label {label!r} has {len(label)} bytes: 1 to {LABEL_LIMIT} are possible")
    length = sum(map(len, name)) + len(name) + 1
    if length > NAME_LIMIT:
        raise ValueError(f"the name {text_of(name)[:40]}... has {length} bytes: {NAME_LIMIT} at most are possible")


def reverse_name(address: bytes) -> Name:
    """The name under which an address is asked for backwards: `4.3.2.1.in-addr.arpa` (RFC 1035 3.5, RFC 3596 2.5)."""
    if len(address) == 4:
        return (*(b"%d" % byte for byte in reversed(address)), b"in-addr", b"arpa")
    return (*(b"%x" % digit for byte in reversed(address) for digit in (byte & 15, byte >> 4)), b"ip6", b"arpa")


def dashed(address: bytes) -> bytes:
    """An address as a label: `10-244-1-2`, `fd00-10-244-1--2`."""
    return format_ip(address).replace(".", "-").replace(":", "-").encode()


def from_dashed(label: bytes) -> bytes | None:
    """The address that such a label names, or None."""
    text = label.decode("latin-1")
    if "." in text or ":" in text:
        return None
    for separator in (".", ":"):
        try:
            return parse_ip(text.replace("-", separator))
        except ValueError:
            continue
    return None


# What records say


def srv(priority: int, weight: int, port: int, target: Name) -> Data:
    """What an SRV record says."""
    return (b"".join(number.to_bytes(2, "big") for number in (priority, weight, port)), target)


def txt(*texts: bytes) -> Data:
    """What a TXT record says: strings of up to 255 bytes each."""
    return (b"".join(bytes((len(text),)) + text for text in texts),)


def soa(server: Name, person: Name, serial: int, refresh: int, retry: int, expire: int, minimum: int) -> Data:
    """What an SOA record says; times in seconds, `minimum` is for how long a name is known not to be (RFC 2308 4)."""
    numbers = (serial & 0xFFFFFFFF, refresh, retry, expire, minimum)
    return (server, person, b"".join(number.to_bytes(4, "big") for number in numbers))


def describe(record: Record) -> str:
    """What a record says, as `dig +short` prints it."""
    match record.type, record.data:
        case ((Type.A | Type.AAAA), (bytes(address),)):
            return format_ip(address)
        case Type.TXT, (bytes(data),):
            return " ".join(f'"{text.decode("latin-1")}"' for text in _strings(data))
        case Type.SRV, (bytes(numbers), tuple(target)):
            words = [str(int.from_bytes(numbers[at : at + 2], "big")) for at in (0, 2, 4)]
            return " ".join((*words, text_of(target)))
    words = [text_of(part) if isinstance(part, tuple) else part.hex() for part in record.data]
    return " ".join(words)


def _strings(data: bytes) -> list[bytes]:
    """The strings of a TXT record, each behind its length; a last one that is cut as far as it goes."""
    found = []
    while data:
        found.append(data[1 : 1 + data[0]])
        data = data[1 + data[0] :]
    return found


def error_option(number: int, text: str) -> tuple[int, bytes]:
    """An EDNS option that says why (RFC 8914): a number of its list, and a sentence."""
    return (15, number.to_bytes(2, "big") + text.encode())


# Reading and writing


class _Writer:
    def __init__(self) -> None:
        self.data = bytearray()
        self._places: dict[Name, int] = {}

    def number(self, value: int, size: int) -> None:
        self.data += value.to_bytes(size, "big")

    def name(self, name: Name, *, compressed: bool = True) -> None:
        """A name, with a pointer to where its end was written before, in the same case (RFC 1035 4.1.4)."""
        check_name(name)
        for index in range(len(name)):
            rest = name[index:]
            place = self._places.get(rest)
            if place is not None and compressed:
                self.number(0xC000 | place, 2)
                return
            if place is None and len(self.data) < 0x4000:
                self._places[rest] = len(self.data)
            self.data.append(len(name[index]))
            self.data += name[index]
        self.data.append(0)

    def record(self, record: Record) -> None:
        self.name(record.name)
        self.number(record.type, 2)
        self.number(record.cls, 2)
        self.number(record.ttl, 4)
        start = len(self.data)
        self.number(0, 2)
        for part in record.data:
            if isinstance(part, bytes):
                self.data += part
            else:
                self.name(part, compressed=record.type != Type.SRV)
        length = len(self.data) - start - 2
        if length > 0xFFFF:
            raise ValueError(f"the record of {text_of(record.name)} has {length} bytes: {0xFFFF} at most are possible")
        self.data[start : start + 2] = length.to_bytes(2, "big")

    def edns(self, edns: Edns, extended: int) -> None:
        self.data.append(0)
        for value, size in ((Type.OPT, 2), (edns.size, 2), (extended, 1), (edns.version, 1), (edns.dnssec << 15, 2)):
            self.number(value, size)
        options = b"".join(
            number.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value for number, value in edns.options
        )
        self.number(len(options), 2)
        self.data += options


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0
        self._end = len(data)

    def take(self, size: int) -> bytes:
        if self.position + size > self._end:
            raise Malformed(f"a DNS message of {len(self.data)} bytes ends where {size} more belong to it")
        self.position += size
        return self.data[self.position - size : self.position]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def name(self) -> Name:
        """A name. A pointer must lead back, before where its name began: so no name is read for ever."""
        labels: list[bytes] = []
        length = 1
        began = self.position
        after: int | None = None
        end = self._end
        while True:
            size = self.number(1)
            if size == 0:
                break
            if size >= 0xC0:
                target = (size & 0x3F) << 8 | self.number(1)
                if target >= began:
                    raise Malformed(f"a DNS name at {began} points to {target}, which is not before it")
                after = self.position if after is None else after
                self.position = began = target
                self._end = len(self.data)
                continue
            if size > LABEL_LIMIT:
                raise Malformed(f"a DNS label at {self.position - 1} is of a kind that nobody uses ({size >> 6})")
            labels.append(self.take(size))
            length += size + 1
            if length > NAME_LIMIT:
                raise Malformed(f"a DNS name has more than {NAME_LIMIT} bytes")
        if after is not None:
            self.position = after
        self._end = end
        return tuple(labels)

    def record(self) -> Record:
        name = self.name()
        type, cls, ttl, length = self.number(2), self.number(2), self.number(4), self.number(2)
        if self.position + length > self._end:
            raise Malformed(f"a DNS record says that it has {length} bytes, of which not all are there")
        outer, self._end = self._end, self.position + length
        parts: list[bytes | Name] = []
        for size in _SHAPES.get(type, _OPAQUE) if cls == IN else _OPAQUE:
            if size == _NAME:
                parts.append(self.name())
            else:
                parts.append(self.take(self._end - self.position if size == _REST else size))
        if self.position != self._end:
            raise Malformed(f"a DNS record of type {type} has {length} bytes, not all of which mean something")
        self._end = outer
        return Record(name, type, ttl, tuple(parts), cls)


def _edns_of(record: Record) -> tuple[Edns, int]:
    """(what an OPT record says, the upper bits of the answer's code), RFC 6891 6.1."""
    data = record.data[0]
    assert isinstance(data, bytes)
    options: list[tuple[int, bytes]] = []
    position = 0
    while position < len(data):
        number, size = (int.from_bytes(data[position + at : position + at + 2], "big") for at in (0, 2))
        value = data[position + 4 : position + 4 + size]
        if position + 4 > len(data) or len(value) != size:
            raise Malformed("an EDNS option is longer than its record")
        options.append((number, value))
        position += 4 + size
    flags = record.ttl & 0xFFFF
    return Edns(record.cls, record.ttl >> 16 & 0xFF, bool(flags >> 15), tuple(options)), record.ttl >> 24


def question(id: int, name: Name, type: int, *, size: int | None = None) -> Message:
    """A query that asks for recursion, as a stub does; with `size` it says how long an answer it takes."""
    edns = None if size is None else Edns(size)
    return Message(id, recursion_desired=True, questions=(Question(name, type),), edns=edns)


def addresses_in(records: Sequence[Record] | Iterable[Record]) -> list[bytes]:
    """The addresses that A and AAAA records say, in their order."""
    return [
        part for record in records if record.type in (Type.A, Type.AAAA) for part in record.data
        if isinstance(part, bytes)
    ]  # fmt: skip
