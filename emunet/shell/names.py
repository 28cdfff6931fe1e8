"""Names of pods and hosts where Scapy wants an address: `IP(dst="web-3")`, `ARP(pdst="web-2")`.

Scapy would ask the machine's resolver. Here a name of the lab becomes its address as soon as
it is said, so that `packet.dst` is the address from then on.

Rule of this file: what the lab does not know goes Scapy's way, unless that is refused.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from scapy.base_classes import Net
from scapy.fields import IP6Field, IPField
from scapy.layers import l2

Lookup = Callable[[str, int], str | None]
"""(name, family: 4 or 6) -> address, or None where nothing is called so."""


class UnknownName(Exception):
    """Nothing in the lab is called so: a sentence."""


def understand_names(lookup: Lookup) -> None:
    """From now on Scapy's address fields take names that `lookup` knows."""

    def named(value: Any, family: int) -> Any:
        text = value.decode(errors="replace") if isinstance(value, bytes) else value
        if not isinstance(text, str):
            return value
        name, percent, scope = text.partition("%")
        address = lookup(name, family)
        return value if address is None else address + percent + scope

    def teach(field: type, family: int) -> None:
        plain = field.h2i  # type: ignore[attr-defined]  # Scapy's word for "human to internal"

        def h2i(self: Any, packet: Any, value: Any) -> Any:
            return plain(self, packet, named(value, family))

        field.h2i = h2i  # type: ignore[attr-defined]

    teach(IPField, 4)
    teach(IP6Field, 6)
    # ARP looks at a value's form before it chooses the field.
    for check, family in (("valid_net", 4), ("valid_net6", 6)):
        plain = getattr(l2, check)
        setattr(l2, check, lambda value, plain=plain, family=family: plain(named(value, family)))


def refuse_other_names() -> None:
    """From now on a name that the lab does not know is an UnknownName, and no question to the machine's resolver."""

    def name2addr(cls: Any, name: str) -> str:
        try:
            socket.inet_pton(cls.family, name)
        except OSError:
            raise UnknownName(f"nothing in the lab is called {name}, and it is no address") from None
        return name

    Net.name2addr = classmethod(name2addr)
