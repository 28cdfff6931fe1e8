"""What a container is told when it asks its engine's resolver for a name (fidelity DK-15, DK-16).

On each network of people's own that it is on, the containers have names: their own, their aliases, their
short ids, each with or without the network's name behind it. An address leads back to `name.network`. What
is none of these is for other servers, if there are any.

Rule of this file: bytes in, bytes out; it reads the engine's containers and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from emunet.cluster.docker.containers import Container, Containers
from emunet.cluster.docker.values import Attachment, Network
from emunet.packet.dns import (
    IN,
    MESSAGE_LIMIT,
    UDP_LIMIT,
    Code,
    Message,
    Question,
    Record,
    Type,
    folded,
    limited,
    reverse_name,
    text_of,
)
from emunet.packet.dns import name_of as dns_name
from emunet.packet.malformed import Malformed

TTL = 600
"""Seconds (libnetwork, resolver.go)."""

_SIZE = 4096


@dataclass(frozen=True, slots=True)
class Reply:
    """What to send back; None where it is nobody's to answer. `ask_others`: it is no name of a container."""

    data: bytes | None
    ask_others: bool = False


def reply(containers: Containers, asker: Container, data: bytes, *, stream: bool = False) -> Reply:
    """The answer to a message of a container."""
    try:
        query = Message.parse(data)
    except Malformed:
        return Reply(None)
    if query.response or len(query.questions) != 1:
        return Reply(None)
    asked = query.questions[0]
    networks = [containers.networks.items[number] for number in asker.attachments]
    answers = _answers(containers, [one for one in networks if not one.is_default], asked, query.id)
    limit = MESSAGE_LIMIT if stream else min(_SIZE, query.edns.size if query.edns is not None else UDP_LIMIT)
    code = Code.NOERROR if answers is not None else Code.SERVFAIL
    message = Message(
        query.id, response=True, recursion_desired=query.recursion_desired, recursion_available=True, code=code,
        questions=query.questions, answers=tuple(answers or ()),
    )  # fmt: skip
    return Reply(limited(message, max(limit, UDP_LIMIT)), answers is None)


def _answers(containers: Containers, networks: list[Network], asked: Question, number: int) -> list[Record] | None:
    """The records; none of that type for a name that is known; None for one that is not."""
    if asked.type == Type.PTR:
        for network in networks:
            for member, attachment in containers.on(network):
                if any(folded(reverse_name(one.address)) == folded(asked.name) for one in attachment.addresses):
                    target = dns_name(f"{member.name}.{network.name}")
                    return [Record(asked.name, Type.PTR, TTL, (target,), IN)]
        return None
    found = list(_named(containers, networks, text_of(asked.name).rstrip(".")))
    if not found:
        return None
    family = {int(Type.A): 4, int(Type.AAAA): 16}.get(asked.type)
    addresses = [one.address for row in found for one in row.addresses if len(one.address) == family]
    turn = number % len(addresses) if addresses else 0
    return [Record(asked.name, asked.type, TTL, (one,), IN) for one in addresses[turn:] + addresses[:turn]]


def _named(containers: Containers, networks: list[Network], name: str) -> Iterator[Attachment]:
    for network in networks:
        suffix = f".{network.name}".lower()
        known = containers.resolve(network, name)
        if not known and name.lower().endswith(suffix):
            known = containers.resolve(network, name[: -len(suffix)])
        yield from known
