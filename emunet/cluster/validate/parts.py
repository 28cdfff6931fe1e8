"""Checks of what many kinds have: labels and selectors, numbers, names of ports, addresses.

Rule of this file: a field and its value in, Causes out; no kind is spoken of.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from emunet.cluster.schema import is_dns_subdomain
from emunet.cluster.status import Cause
from emunet.cluster.store import Object
from emunet.cluster.validate.causes import duplicate, may_not, required, unsupported, wrong
from emunet.packet.address import is_link_local, is_loopback, is_multicast, is_unspecified, parse_ip

LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with"
    " an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is"
    " '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and"
    " end with an alphanumeric character (e.g. 'example.com', regex used for validation is"
    " '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
LABEL_KEY = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric"
    " character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is"
    " '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
LABEL_VALUE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and"
    " end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is"
    " '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
PERCENT = (
    "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for"
    " validation is '[0-9]+%')"
)
_KEY = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_PORT_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]([a-z0-9]|-(?!-|$))*")

PROTOCOLS = ("SCTP", "TCP", "UDP")


def labels(field: str, found: Object) -> Iterator[Cause]:
    """Keys and values of labels."""
    for key, value in found.items():
        yield from label_key(field, key)
        if len(value) > 63:
            yield wrong(field, value, "must be no more than 63 characters")
        elif value and not _KEY.fullmatch(value):
            yield wrong(field, value, LABEL_VALUE)


def label_key(field: str, key: str) -> Iterator[Cause]:
    """The key of a label or an annotation: a name, perhaps behind a prefix."""
    prefix, slash, name = key.rpartition("/")
    if slash and not is_dns_subdomain(prefix):
        yield wrong(field, key, f"prefix part {SUBDOMAIN}")
    if not name or len(name) > 63 or not _KEY.fullmatch(name):
        yield wrong(field, key, LABEL_KEY)


def in_range(field: str, value: object, low: int, high: int) -> Iterator[Cause]:
    """A number, where it is one, lies within two others."""
    if isinstance(value, int) and not low <= value <= high:
        yield wrong(field, value, f"must be between {low} and {high}, inclusive")


def not_negative(field: str, value: object) -> Iterator[Cause]:
    """A number, where it is one, is not below zero."""
    if isinstance(value, int) and value < 0:
        yield wrong(field, value, "must be greater than or equal to 0")


def one_of(field: str, value: object, known: Sequence[str]) -> Iterator[Cause]:
    """A word, where there is one, is one of those that are known."""
    if value is not None and value not in known:
        yield unsupported(field, value, known)


def unique(field: str, names: Iterable[tuple[str, Any]]) -> Iterator[Cause]:
    """Of (place below the field, name), no name comes twice."""
    seen: set[Any] = set()
    for place, name in names:
        if name in seen:
            yield duplicate(f"{field}{place}", name)
        seen.add(name)


def port_name(field: str, name: str) -> Iterator[Cause]:
    """The name of a port (RFC 6335)."""
    if len(name) > 15:
        yield wrong(field, name, "must be no more than 15 characters")
    elif not _PORT_NAME.fullmatch(name):
        yield wrong(field, name, "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-), at least one"
                    " letter or number (a-z, 0-9), and no consecutive hyphens")  # fmt: skip


def label_selector(field: str, selector: Object) -> Iterator[Cause]:
    """A selector: labels, and expressions that have what their operator needs."""
    yield from labels(f"{field}.matchLabels", selector.get("matchLabels", {}))
    for index, one in enumerate(selector.get("matchExpressions", ())):
        place = f"{field}.matchExpressions[{index}]"
        operator, values = one.get("operator"), one.get("values", ())
        if operator in ("In", "NotIn") and not values:
            yield required(f"{place}.values", "must be specified when `operator` is 'In' or 'NotIn'")
        elif operator in ("Exists", "DoesNotExist") and values:
            yield may_not(f"{place}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
        elif operator not in ("In", "NotIn", "Exists", "DoesNotExist"):
            yield wrong(f"{place}.operator", operator, "not a valid selector operator")


def ip_address(field: str, text: str, *, special: bool = True) -> Iterator[Cause]:
    """An address; unless `special` ones are allowed, one of a machine that others can reach."""
    try:
        address = parse_ip(text)
    except ValueError:
        yield wrong(field, text, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")
        return
    if special:
        return
    for found, why in (
        (is_unspecified(address), "may not be unspecified (0.0.0.0 or ::)"),
        (is_loopback(address), "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        (is_link_local(address), "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        (is_multicast(address), "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
    ):
        if found:
            yield wrong(field, text, why)
            return
