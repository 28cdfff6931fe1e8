"""Arithmetic on address ranges: what may be given out, in which order, and to whom.

Rule of this file: numbers only. It knows prefixes and names, no kind, no host, no pod.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, count, takewhile
from typing import TypeVar

from emunet.packet.address import Prefix, format_ip

T = TypeVar("T")

FAMILY = {4: "IPv4", 16: "IPv6"}
"""How a sentence names the family of an address with so many bytes."""

_SPECIAL = {
    Prefix.parse("0.0.0.0/8"): "this network (RFC 1122 3.2.1.3)",
    Prefix.parse("127.0.0.0/8"): "loopback (RFC 1122 3.2.1.3)",
    Prefix.parse("169.254.0.0/16"): "link-local (RFC 3927)",
    Prefix.parse("224.0.0.0/4"): "multicast (RFC 1112)",
    Prefix.parse("240.0.0.0/4"): "reserved (RFC 1112 4)",
    Prefix.parse("::/8"): "reserved, with loopback in it (RFC 4291 2.5)",
    Prefix.parse("fe80::/10"): "link-local (RFC 4291 2.5.6)",
    Prefix.parse("ff00::/8"): "multicast (RFC 4291 2.7)",
}


def natural(name: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """A sort key by which `web-2` comes before `web-10`."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return tuple((0, int(part), "") if part[0] in "0123456789" else (1, 0, part) for part in parts), name


def special_use(prefix: Prefix) -> str | None:
    """What an address inside the prefix would be that is no machine's own address, or None."""
    return next((use for special, use in _SPECIAL.items() if special.overlaps(prefix)), None)


def last_usable(prefix: Prefix) -> int:
    """The offset of the last address that a machine may have: in IPv4 the very last one is the broadcast address."""
    return prefix.size - (2 if prefix.broadcast is not None else 1)


def host_addresses(prefix: Prefix) -> Iterator[bytes]:
    """Addresses for hosts in the order in which they are given: number 11, 12, ... to the end, then 1 to 9.

    An IPv6 address gets the same *digits* as the IPv4 one: host10 is 192.168.9.20 and fd00::20.
    """
    last = last_usable(prefix)
    numbers = count(11) if len(prefix.address) == 4 else (int(str(number), 16) for number in count(11))
    for offset in chain(takewhile(lambda offset: offset <= last, numbers), range(1, 10)):
        if offset <= last:
            yield prefix.nth(offset)


def subnets(prefix: Prefix, length: int) -> Iterator[Prefix]:
    """The subnets of `length` bits in the order in which hosts get them: number 1, 2, ..., then number 0.

    So host1 has 10.244.1.0/24; number 0 is what a control plane's node would have.
    """
    size = 1 << (len(prefix.address) * 8 - length)
    for index in chain(range(1, prefix.size // size), [0]):
        yield Prefix(prefix.nth(index * size), length)


def pod_offsets(prefix: Prefix, after: int) -> Iterator[int]:
    """Offsets for pods, round robin: from `after` + 1 to the end, then from 2 to `after`.

    Offset 0 is flannel.1's and offset 1 cni0's. (CNI's host-local plugin gives addresses
    out in this way, so that a freed one is not used again at once.)
    """
    last = last_usable(prefix)
    yield from range(max(after + 1, 2), last + 1)
    yield from range(2, min(after, last) + 1)


def pod_capacity(prefix: Prefix) -> int:
    """How many pods a host's subnet has addresses for."""
    return max(0, last_usable(prefix) - 1)


class Exhausted(Exception):
    """There was nothing left to give to `name`."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"nothing is left for {name}")


def give(
    names: Iterable[str],
    candidates: Iterable[T],
    clash: Callable[[T, T], bool],
    fixed: Mapping[str, T],
    kept: Mapping[str, T],
) -> dict[str, T]:
    """One thing for each name: what is `fixed` for it, else what it had (`kept`), else the next candidate that is free.

    Two things that `clash` are never both given, except where both are fixed. Raises Exhausted.
    """
    wanted = list(names)
    given = {name: fixed[name] for name in wanted if name in fixed}
    for name in wanted:
        if name not in given and name in kept and not any(clash(kept[name], other) for other in given.values()):
            given[name] = kept[name]
    rest = iter(candidates)
    for name in wanted:
        if name in given:
            continue
        taken = list(given.values())
        found = next((thing for thing in rest if not any(clash(thing, other) for other in taken)), None)
        if found is None:
            raise Exhausted(name)
        given[name] = found
    return given


def list_of(addresses: Iterable[bytes]) -> str:
    """`10.244.1.2 and fd00::2`, for sentences."""
    return " and ".join(format_ip(address) for address in addresses)
