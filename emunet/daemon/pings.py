"""Echo requests between the pods and hosts of a lab, and why an answer is missing.

On TAP wires the requests are sent from the sandbox by its own kernel (`linux.probe`), on
memory wires by the endpoint. Where none is answered, a dry run of the request, and of the
reply that it would get, says what becomes of it.

Rule of this file: many sources at once, but never so many that their requests crowd each other out.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emunet.daemon.names import Names, Place, UnknownName
from emunet.daemon.plane_client import PlaneRefused
from emunet.daemon.running import RunningLab
from emunet.linux.keeper_requests import Probe
from emunet.linux.specification import ProbeSpec
from emunet.packet import icmp, icmpv6
from emunet.packet.address import format_ip
from emunet.packet.ipv4 import ICMP, ICMPV6, IPv4
from emunet.packet.ipv6 import IPv6

AT_ONCE = 4
TARGETS_AT_ONCE = 25
"""Targets of one source that are asked together: a hundred first frames, each perhaps flooded to a bridge full of
pods, are about what a busy machine forwards within the second that an answer may take."""

APART_SECONDS = 0.015
"""Between the first requests of two sources, so that each is timed by itself while both wait side by side."""
HEADERS = 48
"""Of an echo request, IPv6 and ICMPv6; of IPv4 20 less."""

EXPLAINED = 20
"""Pairs without an answer that get an explanation; a lab that is cut in two has thousands."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What to ping: from one place to one name, or all pairs of pods where both are None. Times in seconds."""

    source: str | None = None
    target: str | None = None
    count: int = 1
    timeout: float = 1.0
    interval: float = 0.2
    size: int = 56


async def ping(lab: RunningLab, wish: Wish) -> dict[str, Any]:
    """What `emunet ping -o json` prints: a row for each pair, in order."""
    names = lab.names
    if wish.source is not None and wish.target is not None:
        source = names.find(wish.source)
        jobs = [(source, [(wish.target, names.target(wish.target, source))])]
    else:
        own = {pod.name for pod in lab.state.pods if pod.pod.is_name_server}
        pods = [pod for pod in names.pods if pod.name not in own]  # the people's: the lab's own is not in the table
        jobs = [
            (pod, [(other.name, names.target(other.name, pod)) for other in pods if other is not pod]) for pod in pods
        ]
    room = asyncio.Semaphore(AT_ONCE)

    async def run(number: int, source: Place, targets: Sequence[tuple[str, bytes]]) -> list[dict[str, Any]]:
        async with room:
            await asyncio.sleep(number % AT_ONCE * APART_SECONDS)
            addresses = [address for _, address in targets]
            results: list[list[int | None]] = []
            for start in range(0, len(addresses), TARGETS_AT_ONCE):
                results += await _probe(lab, source, addresses[start : start + TARGETS_AT_ONCE], wish)
        return [_row(source, name, address, result) for (name, address), result in zip(targets, results, strict=True)]

    parts = await asyncio.gather(*[run(number, *job) for number, job in enumerate(jobs) if job[1]])
    rows = [row for part in parts for row in part]
    silent = [row for row in rows if row["received"] == 0]
    for row in silent[:EXPLAINED]:
        row["why"] = await _why(lab, names.find(row["from"]), row["address"], names, wish.size)
    return {"lab": lab.name, "pairs": rows, "unanswered": len(silent)}


async def _probe(lab: RunningLab, source: Place, targets: list[bytes], wish: Wish) -> list[list[int | None]]:
    texts = tuple(map(format_ip, targets))
    if lab.has_ended(source):
        return [[None] * wish.count for _ in targets]
    if lab.keeper is not None:
        spec = ProbeSpec(texts, wish.count, wish.timeout, wish.interval, wish.size)
        return await lab.keeper.ask(Probe(source.sandbox, spec))
    results: list[list[int | None]] = await lab.plane.ask(
        "echo", port=source.sender, targets=texts, count=wish.count, timeout=wish.timeout, interval=wish.interval,
        size=wish.size,
    )  # fmt: skip
    return results


def _row(source: Place, name: str, address: bytes, result: list[int | None]) -> dict[str, Any]:
    times = [None if one is None else round(one / 1e6, 3) for one in result]
    return {
        "from": source.name,
        "to": name,
        "address": format_ip(address),
        "sent": len(result),
        "received": sum(one is not None for one in result),
        "rtt_ms": times,
    }


async def _why(lab: RunningLab, source: Place, address: str, names: Names, size: int) -> str:
    """One sentence: what a dry run says of the request with `size` bytes of data, else of the reply."""
    mtu = next((pod.mtu for pod in lab.state.world.pods if pod.name == source.name), 1500)
    size = min(size, mtu - HEADERS)  # more goes in fragments, the first of which is that long
    try:
        target = names.target(address, source)
        there = next((p for p in names.places.values() if target in {one.address for one in p.addresses}), None)
        for place in (source, there):
            if place is not None and lab.has_ended(place):
                return f"{place.name} has ended, since its first process was killed"
        own = names.source(source, target)
        if own is None:
            return f"{source.name} has no address of the family of {address}"
        request = await _follow(lab, source.sender, own, target, size, reply=False)
        if request["verdict"] != "delivered":
            steps = (step for hop in request["hops"] for step in hop["steps"])
            remark = next((f"{step['why']}; " for step in steps if step["reason"] == "SERVICE_OTHER_PORT"), "")
            return f"{request['verdict']}: {remark}{request['sentence']}"
        if there is not None:
            reply = await _follow(lab, there.sender, target, own, size, reply=True)
            if reply["verdict"] != "delivered":
                return f"the reply is {reply['verdict']}: {reply['sentence']}"
    except PlaneRefused as error:
        return str(error)
    neighbors = _neighbors_needed(names)
    if lab.wires == "tap" and (limit := _neighbor_limit()) is not None and neighbors > limit:
        return (
            f"the machine's kernel keeps {limit:,} ARP entries for all pods together, and all pairs of this lab need"
            f" {neighbors:,}: sudo sysctl -w net.ipv4.neigh.default.gc_thresh3={2 * neighbors}"
        )
    return (
        "a dry run delivers both the request and its reply: either the programs or settings there keep it from"
        " answering, or it answered too late"
    )


def _neighbors_needed(names: Names) -> int:
    """How many ARP entries the pods' kernels need to reach each other: all on one bridge, and the gateway."""
    on_host = Counter(pod.host for pod in names.pods)
    return sum(count * count for count in on_host.values())


def _neighbor_limit() -> int | None:
    """The kernel's limit of ARP entries, one for all network namespaces together (arp(7))."""
    try:
        return int(Path("/proc/sys/net/ipv4/neigh/default/gc_thresh3").read_text())
    except (OSError, ValueError):
        return None


async def _follow(
    lab: RunningLab, port: str, source: bytes, target: bytes, size: int, *, reply: bool
) -> dict[str, Any]:
    packet = echo_packet(source, target, size, reply=reply)
    trace: dict[str, Any] = await lab.plane.ask("trace", port=port, data=packet.hex(), is_frame=False, live=False)
    return trace


def echo_packet(source: bytes, target: bytes, size: int = 56, *, reply: bool = False) -> bytes:
    """An echo request (or reply) of `size` bytes of data as an IP packet of either family."""
    if len(source) == 4:
        message = icmp.echo_request(1, 1, bytes(size))
        return IPv4(source, target, ICMP).pack((icmp.echo_reply(message) if reply else message).pack())
    request = icmpv6.echo_request(1, 1, bytes(size))
    said = icmpv6.echo_reply(request) if reply else request
    return IPv6(source, target, ICMPV6, 64).pack(said.pack(source, target))


def request_to(names: Names, place: Place, target: str) -> bytes:
    """The echo request that a pod or host sends to a name or address. UnknownName where it cannot."""
    address = names.target(target, place)
    source = names.source(place, address)
    if source is None:
        raise UnknownName(f"{place.name} has no address of the family of {format_ip(address)}")
    return echo_packet(source, address)
