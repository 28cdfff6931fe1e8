"""`docker stats`: what a container's processes use, and what its interfaces have carried.

All of it is the kernel's own account: of each process below the container's first, and of the interfaces that it
has (/proc). A container that runs no program uses nothing. Limits are not set in a lab: the limit is the machine.

Rule of this file: reading changes nothing, and a process that has gone meanwhile counts for nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emunet.daemon.docker.questions import is_set
from emunet.daemon.docker.record import Body, Record
from emunet.daemon.docker.views import moment

if TYPE_CHECKING:
    from emunet.daemon.docker.server import Asked

PAUSE_SECONDS = 1.0
"""Between one account and the next."""

_TICK = 10**9 // os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_COLUMNS = {"rx_bytes": 0, "rx_packets": 1, "rx_errors": 2, "rx_dropped": 3,
            "tx_bytes": 8, "tx_packets": 9, "tx_errors": 10, "tx_dropped": 11}  # fmt: skip
"""Where /proc/PID/net/dev has them (proc_net(5))."""


@dataclass(frozen=True, slots=True)
class Account:
    """At one moment: ns of processors in user and kernel mode, of all of the machine's, bytes of memory, processes."""

    read: int = 0
    user: int = 0
    kernel: int = 0
    machine: int = 0
    memory: int = 0
    processes: int = 0
    interfaces: dict[str, dict[str, int]] = field(default_factory=dict)


def account(pid: int) -> Account:
    """Of a process and all below it; of nothing but the machine where it is 0."""
    user = kernel = memory = number = 0
    waiting = [pid] if pid else []
    while waiting:
        one = waiting.pop()
        with contextlib.suppress(OSError, ValueError, IndexError):  # it has gone meanwhile
            # What follows the name, which is in brackets and may have any character: state is the first (proc(5)).
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            user += int(fields[11]) * _TICK
            kernel += int(fields[12]) * _TICK
            memory += int(Path(f"/proc/{one}/statm").read_text().split()[1]) * _PAGE
            number += 1
            for task in os.listdir(f"/proc/{one}/task"):
                waiting += map(int, Path(f"/proc/{one}/task/{task}/children").read_text().split())
    machine = sum(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9])) * _TICK
    return Account(time.time_ns(), user, kernel, machine, memory, number, _interfaces(pid) if number else {})


def _interfaces(pid: int) -> dict[str, dict[str, int]]:
    try:
        lines = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
    except OSError:
        return {}
    rows = {name.strip(): numbers.split() for name, _, numbers in (line.partition(":") for line in lines)}
    return {
        name: {key: int(numbers[column]) for key, column in _COLUMNS.items()}
        for name, numbers in rows.items()
        if name != "lo"
    }


def body(found: Record, now: Account, before: Account) -> Body:
    """An account as clients read it; `before` is the one that it is compared with."""
    told: Body = {
        "id": found.id,
        "name": f"/{found.name}",
        "read": moment(now.read),
        "preread": moment(before.read),
        "num_procs": 0,
        "pids_stats": {"current": now.processes},
        "cpu_stats": _processors(now),
        "precpu_stats": _processors(before),
        "memory_stats": {"usage": now.memory, "limit": _PAGE * os.sysconf("SC_PHYS_PAGES"), "stats": {}},
        "blkio_stats": {"io_service_bytes_recursive": None},
        "storage_stats": {},
    }
    return told | ({"networks": now.interfaces} if now.interfaces else {})


def _processors(one: Account) -> Body:
    usage = {"total_usage": one.user + one.kernel, "usage_in_usermode": one.user, "usage_in_kernelmode": one.kernel}
    return {"cpu_usage": usage, "system_cpu_usage": one.machine, "online_cpus": os.cpu_count() or 1,
            "throttling_data": {}}  # fmt: skip


async def stats(asked: Asked) -> Any:
    """`GET /containers/NAME/stats`."""
    from aiohttp import web

    found = asked.engine.find(asked.name)
    before = Account()
    if not is_set(asked.query, "stream", default=True):
        if not is_set(asked.query, "one-shot"):
            before = account(_pid(found))
            await asyncio.sleep(PAUSE_SECONDS)
        return body(found, account(_pid(found)), before)
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    response.enable_chunked_encoding()
    await response.prepare(asked.request)
    with contextlib.suppress(ConnectionError):
        while asked.engine.records.get(found.id) is found:
            now = account(_pid(found))
            await response.write(json.dumps(body(found, now, before), separators=(",", ":")).encode() + b"\n")
            before = now
            await asyncio.sleep(PAUSE_SECONDS)
        await response.write_eof()
    return response


def _pid(found: Record) -> int:
    return found.process.pid if found.is_running and found.process is not None else 0
