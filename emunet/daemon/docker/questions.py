"""What is in a request: filters, yes and no, numbers, networks to be made.

Rule of this file: what makes no sense is `Refused` with 400 and a sentence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from emunet.cluster.docker.networks import NetworkWish, PoolWish, Refused
from emunet.packet.address import Prefix, parse_ip

_FALSE = ("", "0", "no", "false", "none")

Filters = dict[str, list[str]]


def is_set(query: Mapping[str, str], name: str, default: bool = False) -> bool:
    """A yes or no, in whichever way the client says it."""
    return query[name].lower() not in _FALSE if name in query else default


def number(query: Mapping[str, str], name: str) -> int | None:
    """A number, or None where there is none."""
    text = query.get(name, "")
    if not text:
        return None
    try:
        return int(float(text))
    except ValueError:
        raise Refused(400, f"{name} is to be a number (got {text!r})") from None


def filters(query: Mapping[str, str], known: Iterable[str]) -> Filters:
    """`filters` as the CLI sends them (maps) or the SDK does (lists)."""
    text = query.get("filters") or "{}"
    try:
        found = json.loads(text)
        rows = {str(key): [str(one) for one in value] for key, value in found.items()}
    except (ValueError, AttributeError, TypeError):
        raise Refused(400, f"invalid filters: {text}") from None
    for key in rows:
        if key not in known:
            raise Refused(400, f"invalid filter '{key}'")
    return {key: values for key, values in rows.items() if values}


def has_labels(labels: Mapping[str, str], wanted: Iterable[str]) -> bool:
    """Whether all of `k` or `k=v` are there."""
    for one in wanted:
        name, equals, value = one.partition("=")
        if name not in labels or (equals and labels[name] != value):
            return False
    return True


def matches_name(name: str, patterns: Iterable[str]) -> bool:
    """Whether a container's name is one of those meant: patterns, with and without the slash before it."""
    for pattern in patterns:
        try:
            if re.search(pattern, name) or re.search(pattern, f"/{name}"):
                return True
        except re.error:
            raise Refused(400, f"invalid filter 'name={pattern}'") from None
    return False


def network_wish(body: Mapping[str, Any]) -> NetworkWish:
    """The network that a client wants."""
    if not body.get("Name"):
        raise Refused(400, "a network needs a name")
    ipam = body.get("IPAM") or {}
    pools = tuple(_pool(one or {}) for one in ipam.get("Config") or ())
    return NetworkWish(
        str(body["Name"]),
        str(body.get("Driver") or "bridge"),
        pools,
        bool(body.get("EnableIPv6")),
        bool(body.get("Internal")),
        bool(body.get("Attachable")),
        tuple(sorted((str(name), str(text)) for name, text in (body.get("Options") or {}).items())),
        tuple(sorted((str(name), str(text)) for name, text in (body.get("Labels") or {}).items())),
    )


def _pool(one: Mapping[str, Any]) -> PoolWish:
    return PoolWish(
        _prefix(one.get("Subnet")),
        _address(one.get("Gateway")),
        _prefix(one.get("IPRange")),
        tuple((str(name), str(text)) for name, text in (one.get("AuxiliaryAddresses") or {}).items()),
    )


def _prefix(text: str | None) -> Prefix | None:
    if not text:
        return None
    try:
        return Prefix.parse(text)
    except ValueError:
        pass
    address, _, length = text.partition("/")
    try:
        better = Prefix.of(parse_ip(address), int(length))
    except ValueError:
        raise Refused(400, f"invalid network config: invalid subnet {text}: invalid CIDR block notation") from None
    raise Refused(400, f"invalid network config: invalid subnet {text}: it should be {better}")


def _address(text: str | None) -> bytes | None:
    if not text:
        return None
    try:
        return parse_ip(text)
    except ValueError:
        raise Refused(400, f"invalid network config: invalid gateway address: {text}") from None
