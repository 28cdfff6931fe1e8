"""A packet as a person writes it -> its bytes: what `emunet trace POD 'EXPRESSION'` sends.

    python -m emunet.shell.expression [--from POD] [--lab NAME] [--names] EXPRESSION

prints {"hex": ..., "has_ethernet": bool}; what is wrong with an expression is one sentence on
standard error, and exit code 1. Names of pods and hosts are addresses (`IP(dst="web-3")`): those
of the running lab, or with --names those of a JSON object on standard input: {name: [address, ...]}
or {name: {"mac": ..., "addresses": [...]}}. What the expression leaves open is filled in as the
pod's own stack would: its address as source, its MAC in a frame (for which the lab is asked where
the names do not tell it).

Without an Ethernet header (or with an empty one) it is a packet: the pod's stack frames it.

Rule of this file: nothing is sent and nobody is asked over the network; the machine's own
routes and interfaces play no part.
"""

from __future__ import annotations

import argparse
import difflib
import json
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

from scapy.config import conf

conf.route_autoload = False  # before the layers load: no packet here leaves by an interface of the machine
conf.route6_autoload = False

from scapy.layers.inet import IP  # noqa: E402
from scapy.layers.inet6 import IPv6  # noqa: E402
from scapy.layers.l2 import ARP, Ether  # noqa: E402
from scapy.packet import Packet  # noqa: E402

from emunet.daemon.client import LabError, find_lab  # noqa: E402
from emunet.daemon.frame_channel import FrameChannelError  # noqa: E402
from emunet.shell.names import UnknownName, refuse_other_names, understand_names  # noqa: E402
from emunet.shell.ports import Ports  # noqa: E402

_BROADCAST = "ff:ff:ff:ff:ff:ff"
_LAYERS = ("inet", "inet6", "l2", "vxlan", "dns")


class BadExpression(Exception):
    """The expression is no packet: a sentence."""


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sends: its name, and ways to find its MAC and its address of a family (4 or 6)."""

    name: str
    mac: Callable[[], str]
    address: Callable[[int], str | None]


def evaluate(expression: str, sender: Sender) -> tuple[bytes, bool]:
    """The bytes of an expression, and whether they begin with an Ethernet header. BadExpression."""
    value = _value_of(expression)
    if isinstance(value, (bytes, bytearray)):
        return bytes(value), True
    if not isinstance(value, Packet):
        raise BadExpression(f"the expression is {value!r:.40} and no packet: write one like IP(dst='web-3')/ICMP()")
    several = list(_first(value, 2))
    if len(several) > 1:
        raise BadExpression("the expression stands for several packets; give each field one value: one can be followed")
    packet = several[0]
    if isinstance(packet, ARP):
        packet = Ether() / packet
    if isinstance(packet, Ether) and isinstance(packet.payload, (IP, IPv6)):
        packet = packet if packet.fields else packet.payload
    _fill(packet, sender)
    try:
        return bytes(packet), isinstance(packet, Ether)
    except Exception as error:  # any field of any layer may refuse its value, each in its own way
        raise BadExpression(f"the packet cannot be built: {_said(error)}") from None


def _value_of(expression: str) -> Any:
    """What the expression evaluates to, with the names of Scapy."""
    try:
        code = compile(expression.strip(), "<expression>", "eval")
    except SyntaxError as error:
        where = f" at column {error.offset}" if error.offset else ""
        raise BadExpression(f"this is no Python expression{where}: {error.msg}") from None
    names: dict[str, Any] = {}
    for layer in _LAYERS:
        names |= vars(__import__(f"scapy.layers.{layer}", fromlist=["*"]))
    if not names.keys() >= set(code.co_names):
        # All of Scapy costs half a second, which most expressions need not wait for.
        names |= vars(__import__("scapy.all", fromlist=["*"]))
    try:
        return eval(code, names)
    except NameError as error:
        near = difflib.get_close_matches(error.name or "", [name for name in names if name[:1].isupper()], 1)
        hint = f": did you mean {near[0]}?" if near else ""
        raise BadExpression(f"Scapy has no {error.name}{hint}") from None
    except UnknownName as error:
        raise BadExpression(str(error)) from None
    except Exception as error:  # it is the person's code, and may fail in any way
        raise BadExpression(f"the expression fails: {_said(error)}") from None


def _first(packet: Packet, count: int) -> Any:
    return (one for _, one in zip(range(count), packet, strict=False))


def _said(error: Exception) -> str:
    return shorten(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__, 200)


def _fill(packet: Packet, sender: Sender) -> None:
    """What the expression leaves open, as the sender's own stack would have it."""
    for layer in packet.iterpayloads():
        if isinstance(layer, (IP, IPv6)):
            _set(layer, "src", sender.address(4 if isinstance(layer, IP) else 6), sender)
        elif isinstance(layer, ARP):
            _set(layer, "hwsrc", sender.mac(), sender)
            _set(layer, "psrc", sender.address(4), sender)
        elif isinstance(layer, Ether):
            _set(layer, "src", sender.mac(), sender)
            if layer.fields.get("dst") is None:
                if not isinstance(layer.payload, ARP):
                    raise BadExpression(
                        "the frame has no destination: write Ether(dst=...), or leave Ether out, so that"
                        f" {sender.name or 'the pod'} finds the next hop itself"
                    )
                layer.dst = _BROADCAST


def _set(layer: Packet, field: str, value: str | None, sender: Sender) -> None:
    if layer.fields.get(field) is None:
        if not value:
            what = f"{type(layer).__name__}({field}=...)"
            raise BadExpression(f"say {what}: {sender.name or 'whoever sends it'} has no such address of its own")
        setattr(layer, field, value)


def _known(wanted: argparse.Namespace) -> tuple[Callable[[str, int], str | None], Sender]:
    """How names are looked up, (name, family) -> address; and who sends."""
    name: str = wanted.sender

    def ports() -> Ports:
        return Ports(find_lab(wanted.lab).folder.frames)

    if not wanted.names:
        known = ports()
        mac = known.by_name[name].mac if name in known.by_name else ""
        return known.address, Sender(name, lambda: mac, lambda family: known.address(name, family))
    told: dict[str, Any] = json.load(sys.stdin)
    fields = {key: value if isinstance(value, dict) else {"addresses": value} for key, value in told.items()}

    def address(key: str, family: int) -> str | None:
        rows = fields.get(key.removeprefix("default/"), {}).get("addresses", [])
        rows = [rows] if isinstance(rows, str) else rows
        return next((row for row in rows if (":" in row) == (family == 6)), None)

    def find_mac() -> str:
        mac = fields.get(name.removeprefix("default/"), {}).get("mac")
        if mac or not wanted.lab:
            return str(mac or "")
        by_name = ports().by_name
        port = by_name.get(name.removeprefix("default/")) or by_name.get(f"{name}:eth0")
        return port.mac if port is not None else ""

    return address, Sender(name, find_mac, lambda family: address(name, family))


def main() -> int:
    """Print the bytes of the expression; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m emunet.shell.expression", allow_abbrev=False)
    parser.add_argument("--from", dest="sender", default="", metavar="POD")
    parser.add_argument("--lab", metavar="NAME")
    parser.add_argument("--names", action="store_true")
    parser.add_argument("expression")
    wanted = parser.parse_args()
    logging.getLogger("scapy").setLevel(logging.ERROR)
    try:
        address, sender = _known(wanted)
        understand_names(address)
        refuse_other_names()
        data, has_ethernet = evaluate(wanted.expression, sender)
    except (BadExpression, LabError, FrameChannelError) as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps({"hex": data.hex(), "has_ethernet": has_ethernet}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
