"""What a name server knows: names and their records, in parts that are replaced whole.

    zone = Zone(Authority(name_of("cluster.local"), ...))
    zone.put("services/default/web", Part((Record(...), ...)))
    zone.put("services/default/web", None)

A part is what one object of a cluster (or one container) adds. So a change costs what changed, and a name
server in another process is told of it in one line (`encode_update`, `apply_update`).

Rule of this file: a name exists while a record, or a name below it, does (RFC 8020), whatever the order of changes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from emunet.packet.address import format_ip, parse_ip
from emunet.packet.dns import (
    Data,
    Name,
    Record,
    Type,
    folded,
    from_dashed,
    name_of,
    soa,
    text_of,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Part:
    """Records; names that are there without any; names below which every dashed address is a name."""

    records: tuple[Record, ...] = ()
    names: tuple[Name, ...] = ()
    dashed: tuple[Name, ...] = ()


@dataclass(frozen=True, slots=True)
class Authority:
    """What a name server answers for: below `origins` it knows what there is not. The first one has its own names.

    `ttl` is that of answers, in seconds. `forward` are the servers that are asked for all else, in order;
    without any, `refusal` says in a sentence why there is no answer.
    """

    origins: tuple[Name, ...]
    ttl: int = 30
    forward: tuple[bytes, ...] = ()
    refusal: str = "the name is outside of what this name server knows, and it asks no other"

    def origin_of(self, name: Name) -> Name | None:
        """The origin that a (folded) name is in, the longest where there are several."""
        found = [origin for origin in self.origins if name[len(name) - len(origin) :] == origin]
        return max(found, key=len, default=None)

    def soa(self, serial: int) -> Data:
        """The beginning of authority, as CoreDNS writes it."""
        first = self.origins[0]
        return soa((b"ns", b"dns", *first), (b"hostmaster", *first), serial, 7200, 1800, 86400, self.ttl)


@dataclass(slots=True)
class Zone:
    """All that is known. `serial` counts changes."""

    authority: Authority
    serial: int = 1
    parts: dict[str, Part] = field(default_factory=dict)
    _names: dict[Name, dict[str, tuple[Record, ...]]] = field(default_factory=dict)
    _nodes: dict[Name, int] = field(default_factory=dict)
    """How often a name exists: by itself, and for names below it."""
    _dashed: dict[Name, int] = field(default_factory=dict)

    def put(self, key: str, part: Part | None) -> None:
        """Replace what was known under that key; None takes it away."""
        if self.parts.get(key) == part:
            return
        self.serial += 1
        before = self.parts.pop(key, None)
        if before is not None:
            self._count(before, -1)
            for name in {folded(record.name) for record in before.records}:
                del self._names[name][key]
                if not self._names[name]:
                    del self._names[name]
        if part is not None:
            self.parts[key] = part
            self._count(part, 1)
            found: dict[Name, list[Record]] = {}
            for record in part.records:
                found.setdefault(folded(record.name), []).append(record)
            for name, records in found.items():
                self._names.setdefault(name, {})[key] = tuple(records)

    def at(self, name: Name) -> list[Record]:
        """All records of a name, with that name as it is given."""
        key = folded(name)
        found = [record for part in self._names.get(key, {}).values() for record in part]
        if not found and key[1:] in self._dashed:
            address = from_dashed(key[0])
            if address is not None:
                kind = Type.A if len(address) == 4 else Type.AAAA
                return [Record(name, kind, self.authority.ttl, (address,))]
        return [Record(name, one.type, one.ttl, one.data, one.cls) for one in found]

    def exists(self, name: Name) -> bool:
        """Whether there is such a name: with records, or with others below it."""
        key = folded(name)
        return key in self._nodes or key in self.authority.origins or bool(self.at(name))

    def _count(self, part: Part, step: int) -> None:
        for name in (*(folded(record.name) for record in part.records), *map(folded, part.names)):
            for index in range(len(name)):
                _add(self._nodes, name[index:], step)
        for name in map(folded, part.dashed):
            _add(self._dashed, name, step)
            for index in range(len(name)):
                _add(self._nodes, name[index:], step)


def _add(counts: dict[Name, int], name: Name, step: int) -> None:
    counts[name] = counts.get(name, 0) + step
    if not counts[name]:
        del counts[name]


def address_record(name: Name, address: bytes, ttl: int) -> Record:
    """An A or AAAA record."""
    return Record(name, Type.A if len(address) == 4 else Type.AAAA, ttl, (address,))


# How a name server in another process is told


def encode_update(parts: Mapping[str, Part | None], authority: Authority | None = None) -> bytes:
    """A line: these parts have changed; with an authority, the other side begins anew."""
    body: dict[str, Any] = {"parts": {key: _encode(part) for key, part in parts.items()}}
    if authority is not None:
        body["authority"] = {
            "origins": [text_of(origin) for origin in authority.origins],
            "ttl": authority.ttl,
            "forward": [format_ip(address) for address in authority.forward],
            "refusal": authority.refusal,
        }
    return json.dumps(body, separators=(",", ":")).encode() + b"\n"


def apply_update(zone: Zone | None, line: bytes) -> Zone:
    """Do as such a line says; gives the zone, a new one where the line begins one. ValueError where it is none."""
    body = json.loads(line)
    told = body.get("authority")
    if told is not None:
        origins = tuple(name_of(text) for text in told["origins"])
        forward = tuple(parse_ip(text) for text in told["forward"])
        zone = Zone(Authority(origins, told["ttl"], forward, told["refusal"]))
    if zone is None:
        raise ValueError("an update of names came before it was said what they are of")
    for key, part in body["parts"].items():
        zone.put(key, None if part is None else _decode(part))
    return zone


def _encode(part: Part | None) -> Any:
    if part is None:
        return None
    records = [
        [text_of(one.name), one.type, one.ttl, [_text(piece) for piece in one.data]] for one in part.records
    ]  # fmt: skip
    return [records, [text_of(name) for name in part.names], [text_of(name) for name in part.dashed]]


def _text(piece: bytes | Name) -> str:
    return f"={text_of(piece)}" if isinstance(piece, tuple) else piece.hex()


def _decode(told: Any) -> Part:
    records, names, addresses = told
    return Part(
        tuple(
            Record(name_of(name), type, ttl, tuple(_piece(text) for text in data)) for name, type, ttl, data in records
        ),
        _names(names),
        _names(addresses),
    )


def _piece(text: str) -> bytes | Name:
    return name_of(text[1:]) if text.startswith("=") else bytes.fromhex(text)


def _names(texts: Iterable[str]) -> tuple[Name, ...]:
    return tuple(name_of(text) for text in texts)
