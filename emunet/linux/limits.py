"""How many pods this machine, and this user, may have: worked out before any is made.

Rule of this file: a refusal says what is needed and how that is counted, what there is, and the cure.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from emunet.linux.refusals import MEMORY_WIRES, LinuxRefused, read_setting

OF_THEIR_OWN = 100
"""Descriptors of a process of the lab beside those of pods, and processes beside the pods' first ones."""

SANDBOX_BYTES = 1_050_000
"""Memory of a sandbox with one interface: 0.8 MB of the kernel's, 0.1 of its pause, 0.1 of what control knows of it
(1,000 pods on 10 hosts, all of it 1,022 MB; tests/kernel/test_scale.py)."""


@dataclass(frozen=True, slots=True)
class Need:
    """Something that a lab needs a number of, and that there may be too little of.

    `counted` says how many, and why; `limit` how many there may be, and what says so.
    """

    needed: int
    counted: str
    limit: int
    limited: str
    cure: str


def check(sandboxes: int, interfaces: int) -> None:
    """LinuxRefused where this machine does not let one lab have so many sandboxes with so many TAPs."""
    for need in needs(sandboxes, interfaces):
        if need.needed > need.limit:
            what = f"{sandboxes:,} pods and hosts are too many here: they need {need.counted}, and {need.limited}."
            raise LinuxRefused(what, f"{need.cure} {MEMORY_WIRES}")


def crowding(sandboxes: int) -> str:
    """What a lab of so many sandboxes may suffer from on this machine, though it can be made; empty if nothing.

    A neighbour that was used in the last five seconds is never given up for another (neigh_forced_gc), and a pair of
    pods that talks needs two.
    """
    known = [read_setting(f"net/{family}/neigh/default/gc_thresh3") for family in ("ipv4", "ipv6")]
    least = min((int(one) for one in known if one is not None), default=None)
    if least is None or 2 * sandboxes <= least:
        return ""
    return (
        f"this machine's kernel keeps {least:,} neighbours (ARP and ND entries) for all pods of all labs together:"
        f" where many of {sandboxes:,} talk within seconds, packets are lost in their kernels. So each has a permanent"
        " entry for its gateway; `emunet doctor` has the cure"
    )


def needs(sandboxes: int, interfaces: int) -> Iterator[Need]:
    """All that is counted."""
    files = 2 * interfaces + OF_THEIR_OWN
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY:
        yield Need(
            files,
            f"{files:,} open files in one process (two for each of {interfaces:,} interfaces, {OF_THEIR_OWN} besides)",
            hard, f"this user may have {hard:,}",
            f"Raise it as root: `prlimit --nofile={files} emunet up …`, or LimitNOFILE= of the service, or `nofile` in"
            " /etc/security/limits.conf.",
        )  # fmt: skip
    for kind, each in (("net", 1), ("pid", 1), ("mnt", 2)):
        limit = read_setting(f"user/max_{kind}_namespaces")
        needed = each * sandboxes + 1
        if limit is not None:
            yield Need(
                needed, f"{needed:,} {kind} namespaces ({each} for each, 1 for the lab)",
                int(limit), f"user.max_{kind}_namespaces is {int(limit):,}",
                f"Raise it: sudo sysctl -w user.max_{kind}_namespaces={2 * needed}.",
            )  # fmt: skip
    processes = sandboxes + OF_THEIR_OWN
    for limit_of, name, cure in _process_limits(processes):
        yield Need(
            processes, f"{processes:,} processes (one for each, {OF_THEIR_OWN} besides)",
            limit_of, f"{name} {limit_of:,}", cure,
        )  # fmt: skip
    free = _available_memory()
    if free is not None:
        wanted = sandboxes * SANDBOX_BYTES
        yield Need(
            wanted, f"{wanted / 1e9:.1f} GB of memory ({SANDBOX_BYTES / 1e6:.2f} MB for each)",
            free, f"{free / 1e9:.1f} GB are available", "Use fewer pods, or a larger machine.",
        )  # fmt: skip


def _process_limits(processes: int) -> Iterator[tuple[int, str, str]]:
    """The limits that there are, each as (number, words before it, cure)."""
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    if os.geteuid() != 0 and hard != resource.RLIM_INFINITY:
        yield hard, "this user may have", f"Raise it as root: `nproc` of /etc/security/limits.conf, to {processes}."
    for name in ("pid_max", "threads-max"):
        value = read_setting(f"kernel/{name}")
        if value is not None:
            yield int(value), f"kernel.{name} is", f"Raise it: sudo sysctl -w kernel.{name}={2 * processes}."
    for group in _groups():
        try:
            text = (group / "pids.max").read_text().strip()
            used = int((group / "pids.current").read_text())
        except (OSError, ValueError):
            continue
        if text.isdigit():
            left = int(text) - used
            cure = f"Raise it: TasksMax= of the service or session, or pids.max in {group}."
            yield left, f"the control group lets {int(text):,} tasks run, of which are left", cure


def _groups() -> Iterator[Path]:
    """This process's control group and those around it (cgroup v2)."""
    try:
        own = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return
    top = Path("/sys/fs/cgroup")
    group = top / own[3:].strip("/")
    while group != top and top in group.parents:
        yield group
        group = group.parent


def _available_memory() -> int | None:
    """Bytes of MemAvailable."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
