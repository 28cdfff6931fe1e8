"""`emunet forward`: a port of this machine that leads into the lab, until Ctrl-C.

Rule of this file: what leads where is worked out here; `linux.forward` carries.
"""

from __future__ import annotations

import ipaddress
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

import click

from emunet.cli.options import lab_option, the_lab
from emunet.daemon.client import LabClient, LabError
from emunet.daemon.kube import client as kube_client

if TYPE_CHECKING:
    from socket import socket

    from emunet.linux.forward import Way

_FORM = re.compile(
    r"(?:(?P<address>\[[0-9a-fA-F:.]+\]|[0-9.]+|localhost):)?(?P<port>\d+):"
    r"(?P<target>\[[0-9a-fA-F:.]+\]|[^:]+)(?::(?P<to>\d+))?"
)
_LOOPBACK = ("127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Wish:
    """One argument: addresses of this machine, and a port of them; a target, and a port of it."""

    addresses: tuple[str, ...]
    port: int
    target: str
    to: int
    udp: bool


def read_wish(text: str) -> Wish:
    """`[ADDR:]PORT:TARGET[:PORT][/udp]`. UsageError."""
    rest, _, protocol = text.rpartition("/") if text.endswith(("/udp", "/tcp")) else (text, "", "tcp")
    found = _FORM.fullmatch(rest)
    if found is None:
        raise click.UsageError(f"{text!r} is not of the form [ADDRESS:]PORT:TARGET[:PORT][/udp], as in 8080:web-1:80")
    port, to = int(found["port"]), int(found["to"] or found["port"])
    if port > 65535 or not 0 < to < 65536:
        raise click.UsageError(f"{text!r}: ports go from 1 to 65535 (0 on this machine: a free one)")
    addresses: tuple[str, ...] = _LOOPBACK
    if found["address"] not in (None, "localhost"):
        address = found["address"].strip("[]")
        try:
            is_loopback = ipaddress.ip_address(address).is_loopback
        except ValueError:
            raise click.UsageError(f"{text!r}: {address} is not an address") from None
        if not is_loopback:
            raise click.UsageError(
                f"{text!r}: a lab is open to this machine only, so {address} cannot be: 127.0.0.1, ::1"
            )
        addresses = (address,)
    return Wish(addresses, port, found["target"].strip("[]"), to, protocol == "udp")


@click.command()
@click.argument("wishes", nargs=-1, required=True, metavar="[ADDRESS:]PORT:TARGET[:PORT][/udp]...")
@click.option("--ipv6", is_flag=True, help="Reach the target by its IPv6 address.")
@lab_option
def forward(wishes: tuple[str, ...], ipv6: bool, lab: str | None) -> None:
    """Let a port of this machine lead to a pod, a Service or a host, until Ctrl-C.

    \b
    emunet forward 8080:web-1:80              then open http://localhost:8080/
    emunet forward 8080:svc/shop:80           a Service of the default namespace
    emunet forward 5353:svc/kube-system/kube-dns:53/udp
    emunet forward 3080:host1:30080           a port of a host, a NodePort too

    What comes in is sent by the pod's own host, for a host by another one: as frames that every capture shows.
    """  # noqa: D301 - click knows the character by this escape
    read = [read_wish(text) for text in wishes]
    client = the_lab(lab)
    targets = [_find(client, wish, 16 if ipv6 else 4) for wish in read]
    import asyncio

    from emunet.linux.forward import Networks, carry
    from emunet.linux.join import CannotJoin

    listening = [pair for wish, (way, told) in zip(read, targets, strict=True) for pair in _listen(wish, way, told)]
    try:
        networks = Networks([way.place for _, way in listening])
    except CannotJoin as error:
        raise LabError(str(error)) from None
    asyncio.run(carry(networks, listening, _complain))
    raise LabError(f"the lab {client.name} has ended")


def _complain(way: Way, why: str) -> None:
    print(f"emunet: {way.address} port {way.port}: {why}", file=sys.stderr, flush=True)


def _listen(wish: Wish, way: Way, told: str) -> list[tuple[socket, Way]]:
    """The sockets of a wish. LabError where none is to be had."""
    from emunet.linux.forward import listen

    opened: list[tuple[socket, Way]] = []
    port = wish.port
    for address in wish.addresses:
        try:
            one = listen(address, port, wish.udp)
        except OSError as error:
            if wish.addresses == _LOOPBACK and address == "::1" and opened:
                continue  # a machine without IPv6, or somebody else's there
            raise LabError(f"cannot listen on {address} port {port}: {error.strerror or error}") from None
        opened.append((one, way))
        port = one.getsockname()[1]
        shown = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        print(f"{shown} leads to {told}", flush=True)
    return opened


def _find(client: LabClient, wish: Wish, length: int) -> tuple[Way, str]:
    """Where a wish leads, and how to say it. LabError where there is nothing of that name."""
    from emunet.linux.forward import Place, Way

    status = client.get("status")
    pods = {f"{one['namespace']}/{one['name']}".removeprefix("default/"): one for one in status["pods"]}
    hosts = {one["name"]: one for one in status["hosts"]}
    target = wish.target.removeprefix("default/")
    anywhere = next((name for name, host in hosts.items() if host["ready"]), next(iter(hosts)))
    if target in pods:
        host, ips = pods[target]["host"], pods[target]["ips"]
    elif target in hosts:
        others = [name for name, one in hosts.items() if name != target and one["ready"]]
        host, ips = others[0] if others else target, hosts[target]["ips"]
    elif target.startswith(("svc/", "service/")):
        host, ips = anywhere, _service(client, target.partition("/")[2])
    else:
        try:
            host, ips = anywhere, [str(ipaddress.ip_address(target))]
        except ValueError:
            known = ", ".join([*list(pods)[:10], *hosts])
            raise LabError(
                f"there is no pod or host {target}, and it is no address; there are: {known}; svc/NAME is a Service"
            ) from None
    chosen = [ip for ip in ips if (":" in ip) is (length == 16)] or ([] if length == 16 else ips)
    if not chosen:
        raise LabError(f"{wish.target} has no IPv6 address")
    where = client.get("sandboxes", host)
    way = Way(wish.udp, chosen[0], wish.to, Place(where["pid"], where["start_time"]))
    shown = f"[{chosen[0]}]:{wish.to}" if ":" in chosen[0] else f"{chosen[0]}:{wish.to}"
    return way, f"{wish.target} ({shown}{'/udp' if wish.udp else ''}), as sent by {host}"


def _service(client: LabClient, name: str) -> list[str]:
    namespace, _, short = name.rpartition("/")
    path = f"api/v1/namespaces/{quote(namespace or 'default')}/services/{quote(short)}"
    code, found, _ = kube_client.ask(client, "GET", path)
    if code >= 400:
        raise LabError(found.get("message", f"the lab answers {code}"))
    addresses: list[str] = found["spec"].get("clusterIPs") or [found["spec"].get("clusterIP", "")]
    if addresses in ([""], ["None"]):
        raise LabError(f"the Service {name} has no address of its own (it is headless): forward to one of its pods")
    return addresses
