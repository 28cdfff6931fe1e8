"""Which users exist in a lab's user namespace.

Root maps every id that it knows itself to the same number: pods keep all users and lose
all power over the machine that root has by its capabilities. An ordinary user becomes
uid 0 of the lab, and where newuidmap (package uidmap) and /etc/subuid give a range, that
range becomes the ids from 1 on, so that daemons in pods may change user.

Rule of this file: it runs outside of the new namespace, on the process that has made it
(user_namespaces(7)); where the generous mapping is refused the single id serves.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess


def write_maps(pid: int) -> None:
    """Map ids for process `pid`, which has just made its user namespace. OSError where even one id is refused."""
    if os.geteuid() == 0 and _write_all_of_ours(pid):
        return
    if os.geteuid() != 0 and _write_with_helpers(pid):
        return
    try:
        _write(pid, "setgroups", "deny")  # without privilege, gid_map is refused before this (Linux 3.19)
        _write(pid, "uid_map", f"0 {os.geteuid()} 1")
        _write(pid, "gid_map", f"0 {os.getegid()} 1")
    except OSError as error:
        raise OSError(error.errno, f"writing {error.filename}: {error.strerror}") from None


def _write(pid: int, name: str, text: str) -> None:
    with open(f"/proc/{pid}/{name}", "w") as file:
        file.write(text)


def _write_all_of_ours(pid: int) -> bool:
    try:
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/self/{name}") as file:
                ranges = [line.split() for line in file]
            _write(pid, name, "\n".join(f"{inside} {inside} {count}" for inside, _, count in ranges))
    except OSError:  # root of a container that may not
        return False
    return True


def _write_with_helpers(pid: int) -> bool:
    for helper, own, table in (("newuidmap", os.geteuid(), "/etc/subuid"), ("newgidmap", os.getegid(), "/etc/subgid")):
        ranges = _subordinate(table)
        if not ranges or shutil.which(helper) is None:
            return False
        arguments, inside = ["0", str(own), "1"], 1
        for start, count in ranges:
            arguments += [str(inside), str(start), str(count)]
            inside += count
        if subprocess.run([helper, str(pid), *arguments], capture_output=True, check=False).returncode != 0:
            return False
    return True


def _subordinate(table: str) -> list[tuple[int, int]]:
    """This user's ranges (start, count) in /etc/subuid or /etc/subgid, which both go by user (subuid(5))."""
    names = {str(os.getuid())}
    with contextlib.suppress(KeyError):  # a uid without a name, as in some containers
        names.add(pwd.getpwuid(os.getuid()).pw_name)
    ranges = []
    try:
        with open(table) as file:
            for line in file:
                name, _, rest = line.strip().partition(":")
                start, _, count = rest.partition(":")
                if name in names and start.isdigit() and count.isdigit():
                    ranges.append((int(start), int(count)))
    except OSError:
        pass
    return ranges
