"""A kernel that sends nothing unasked: what must be set before, and what must be awaited after.

Every frame in a lab is accounted for, and a lab at rest is at rest. A Linux interface
that comes up with an IPv6 address speaks at once: duplicate address detection, router
solicitations, and multicast listener (MLD) reports for the solicited-node group of each
address. The first two can be switched off. The reports cannot: the group must be joined
or no neighbour could ask for the address, and joining it is reported, twice (RFC 3810
6.1; linux net/ipv6/mcast.c). NOARP avoids the join, but only moves it to the moment
when NOARP ends; so does a missing carrier.

So the reports are let happen at once and read off the TAP before anybody else holds it.
As MLDv2 that takes 30 ms, at random times, and nothing tells when it is over. Made to
speak MLDv1 with no delay between its two reports, the kernel sends both within 2 ms and
`/proc/net/igmp6` says for each group when it is done (measured). Then the usual
settings return, for what a program in the pod may join later.

One more comes where the first link-local address of an interface is ready: an MLDv2
report that answers for all others (`ipv6_mc_dad_complete`), sent again by a timer that
nobody can see. MLDv1 has no such report, so an interface that was given a link-local
address keeps to MLDv1. (Two addresses, neither of them the only one, do not help: under
load the first is ready before the second is there.)

Rule of this file: `hush` before the first interface is made, `settle` after all are up
and before a descriptor leaves; it reads nothing but what this namespace's own kernel sent.
"""

from __future__ import annotations

import os
import select
import time

_DEADLINE = 5.0
"""Seconds to wait for the reports. They take 2 ms; a kernel that never shows them is left as it is."""

_QUIET_DEFAULTS = {
    "accept_ra": "0",  # and so no router solicitations either
    "autoconf": "0",
    "dad_transmits": "0",
    "addr_gen_mode": "1",  # none: no link-local address that was not asked for
    "disable_ipv6": "0",  # whatever the machine's own default is
}
_REPORT_AT_ONCE = {"force_mld_version": "1", "mldv1_unsolicited_report_interval": "1"}
_REPORT_AS_USUAL = {"force_mld_version": "0", "mldv1_unsolicited_report_interval": "10000"}

# Flags of a group in /proc/net/igmp6 (MAF_ in linux/include/net/if_inet6.h)
_TIMER_RUNNING, _LAST_REPORTER, _NEVER_REPORTED = 0x01, 0x02, 0x08


def write_sysctl(name: str, value: str) -> None:
    """Set `net/ipv4/ip_forward` or the like, of this thread's network namespace. OSError says which was refused."""
    try:
        with open(f"/proc/sys/{name}", "w", buffering=1) as file:
            file.write(value)
    except OSError as error:
        raise OSError(error.errno, f"setting {name.replace('/', '.')} to {value}: {error.strerror}") from None


def has_ipv6() -> bool:
    """False where the kernel was built or started without IPv6."""
    return os.path.isdir("/proc/sys/net/ipv6")


def hush() -> None:
    """Set what new interfaces of this namespace begin with, so that they are quiet."""
    if has_ipv6():
        for name, value in (_QUIET_DEFAULTS | _REPORT_AT_ONCE).items():
            write_sysctl(f"net/ipv6/conf/default/{name}", value)


def settle(taps: dict[str, int], groups: dict[str, dict[str, int]], link_local: set[str]) -> None:
    """Wait until interfaces have reported their groups, and take what they said off their TAPs.

    `taps` gives each interface's descriptor, `groups` the solicited-node groups (32 hex digits) that
    its addresses are about to join, and how many of them; other groups it has joined already (all
    routers, where it forwards). `link_local` are the interfaces with a link-local address.
    """
    if not has_ipv6():
        return
    waiting = dict(groups)
    taken = dict.fromkeys(waiting, 0)
    deadline = time.monotonic() + _DEADLINE
    while waiting and time.monotonic() < deadline:
        reported, unreported = _groups()
        for name in list(waiting):
            taken[name] += _drain(taps[name])
            members = reported.get(name, {})
            complete = all(members.get(group, 0) >= count for group, count in waiting[name].items())
            if complete and name not in unreported and taken[name] >= _sent_messages(name):
                del waiting[name]
        if waiting:
            select.select([taps[name] for name in waiting], [], [], 0.002)
    for name in ("default", *groups):
        if os.path.isdir(f"/proc/sys/net/ipv6/conf/{name}"):  # none where the MTU is below IPv6's least (1280)
            for setting, value in _REPORT_AS_USUAL.items():
                if setting != "force_mld_version" or name not in link_local:
                    write_sysctl(f"net/ipv6/conf/{name}/{setting}", value)


def _groups() -> tuple[dict[str, dict[str, int]], set[str]]:
    """For each interface the groups whose reports have all been sent, and how many members each has.

    And the interfaces that have other groups. An address is a member of its group from the moment
    when its own start is over (under one lock, the kernel's RTNL).
    """
    done: dict[str, dict[str, int]] = {}
    others = set()
    with open("/proc/net/igmp6") as file:
        for line in file:
            _, name, group, members, text, *_ = line.split()
            flags = int(text, 16)
            if flags & (_TIMER_RUNNING | _LAST_REPORTER) == _LAST_REPORTER:
                done.setdefault(name, {})[group] = int(members)
            elif not flags & _NEVER_REPORTED:
                others.add(name)
    return done, others


def _sent_messages(name: str) -> int:
    """How many ICMPv6 messages an interface has sent."""
    if not os.path.exists(f"/proc/net/dev_snmp6/{name}"):
        return 0  # its MTU is below IPv6's least
    with open(f"/proc/net/dev_snmp6/{name}") as file:
        for line in file:
            if line.startswith("Icmp6OutMsgs"):
                return int(line.split()[1])
    return 0


def _drain(tap: int) -> int:
    """Read all that waits on a TAP; gives the number of frames."""
    frames = 0
    while True:
        try:
            os.read(tap, 2048)
        except BlockingIOError:
            return frames
        frames += 1
