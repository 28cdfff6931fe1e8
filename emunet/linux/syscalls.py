"""System calls that Python 3.11 has no name for, through ctypes.

`os.unshare` and `os.setns` exist from Python 3.12 on; mounting and the rest not at all.

Rule of this file: a function does one system call, and where the kernel refuses it
raises OSError whose text says what was tried and of what.
"""

from __future__ import annotations

import ctypes
import os
import struct

# Namespaces: linux/sched.h
CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
NAMESPACE_NAMES = {
    CLONE_NEWNS: "mount",
    CLONE_NEWUTS: "UTS",
    CLONE_NEWIPC: "IPC",
    CLONE_NEWUSER: "user",
    CLONE_NEWPID: "PID",
    CLONE_NEWNET: "network",
}

# Mounts: linux/mount.h
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_SLAVE = 1 << 19
MNT_DETACH = 2
_SYS_MOUNT_SETATTR = 442  # the same on every architecture but alpha, as all since 2019 are
_MOUNT_ATTR_RDONLY = 1
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000

# prctl(2): linux/prctl.h
PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_TIMERSLACK = 29
PR_SET_CHILD_SUBREAPER = 36
PR_GET_CHILD_SUBREAPER = 37
PR_SET_NO_NEW_PRIVS = 38

_CAPABILITY_VERSION_3 = 0x20080522  # linux/capability.h

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_libc.capset.argtypes = (ctypes.c_char_p, ctypes.c_char_p)
_libc.prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)


def namespace_names(flags: int) -> str:
    """`CLONE_NEWNET | CLONE_NEWUTS` -> `UTS, network`, for sentences."""
    return ", ".join(name for flag, name in NAMESPACE_NAMES.items() if flags & flag)


def _check(result: int, tried: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{tried}: {os.strerror(number)}")
    return result


def unshare(flags: int) -> None:
    """Leave the namespaces named by `flags` for new ones (unshare(2)); a new PID namespace is for children only."""
    _check(_libc.unshare(flags), f"making new namespaces ({namespace_names(flags)})")


def setns(descriptor: int, flags: int) -> None:
    """Enter namespaces (setns(2)): of one kind by its own descriptor, of several by a process's pidfd (Linux 5.8)."""
    _check(_libc.setns(descriptor, flags), f"entering namespaces ({namespace_names(flags)})")


def mount(source: str, target: str, kind: str | None, flags: int = 0, options: str | None = None) -> None:
    """Mount a file system, or change a mount (mount(2)). `kind` is None for binds and remounts."""
    result = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        kind.encode() if kind else None,
        flags,
        os.fsencode(options) if options else None,
    )
    _check(result, f"mounting {kind or source} on {target}")


def bind(source: str, target: str) -> None:
    """Make `source`, with all mounted under it, visible at `target` too."""
    mount(source, target, None, MS_BIND | MS_REC)


def set_read_only(path: str, read_only: bool = True) -> None:
    """Forbid or allow writing through a mount and all mounted under it (mount_setattr(2), Linux 5.12)."""
    attributes = struct.pack("QQQQ", read_only * _MOUNT_ATTR_RDONLY, (not read_only) * _MOUNT_ATTR_RDONLY, 0, 0)
    result = _libc.syscall(_SYS_MOUNT_SETATTR, _AT_FDCWD, os.fsencode(path), _AT_RECURSIVE, attributes, len(attributes))
    _check(result, f"making {path} {'read-only' if read_only else 'writable'}")


def unmount(target: str, flags: int = MNT_DETACH) -> None:
    """Take a mount away from this namespace (umount2(2)), by default even while it is in use."""
    _check(_libc.umount2(os.fsencode(target), flags), f"unmounting {target}")


def pivot_root(new_root: str, old_root: str) -> None:
    """Make `new_root` the root of this mount namespace, and the former root visible at `old_root` (pivot_root(2))."""
    # No header declares it, but glibc and musl both have it.
    _check(_libc.pivot_root(os.fsencode(new_root), os.fsencode(old_root)), f"making {new_root} the root")


def sethostname(name: str) -> None:
    """Name the machine as this UTS namespace sees it (sethostname(2)); 64 bytes at most."""
    encoded = os.fsencode(name)
    _check(_libc.sethostname(encoded, len(encoded)), f"setting the host name to {name}")


def prctl(option: int, argument: int, tried: str) -> int:
    """Change or ask something of this process; `tried` is for the sentence of an error."""
    return _check(_libc.prctl(option, argument, 0, 0, 0), tried)


def set_process_name(name: str) -> None:
    """What `ps -o comm` shows of this process; the kernel cuts it to 15 bytes."""
    prctl(PR_SET_NAME, ctypes.addressof(ctypes.create_string_buffer(name.encode())), "naming a process")


def set_timer_slack(nanoseconds: int) -> None:
    """How much later than asked the kernel may end a sleep of this thread, to wake several at once (50 µs at first)."""
    prctl(PR_SET_TIMERSLACK, nanoseconds, "asking for exact timers")


def set_child_subreaper(value: bool) -> bool:
    """Say whether orphaned descendants become this process's children (PR_SET_CHILD_SUBREAPER); gives what it was."""
    before = ctypes.c_int()
    address = ctypes.addressof(before)
    _check(_libc.prctl(PR_GET_CHILD_SUBREAPER, address, 0, 0, 0), "asking who reaps orphans")
    prctl(PR_SET_CHILD_SUBREAPER, int(value), "asking for orphans")
    return bool(before.value)


def drop_capabilities(kept: frozenset[int]) -> None:
    """Give up, for this process and all that it starts, every capability but `kept` (capability numbers).

    They leave the bounding set, so that no later exec brings them back; the process itself loses
    them when it next executes a program (capabilities(7), "Transformation of capabilities").
    """
    number = 0
    while _libc.prctl(PR_CAPBSET_READ, number, 0, 0, 0) >= 0:  # EINVAL behind the last one that this kernel knows
        if number not in kept:
            prctl(PR_CAPBSET_DROP, number, f"dropping capability {number}")
        number += 1


def clear_capabilities() -> None:
    """Give up every capability that this process has, now and for what it may execute later (capset(2))."""
    drop_capabilities(frozenset())
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(header, bytes(24)), "giving up all capabilities")
    prctl(PR_SET_NO_NEW_PRIVS, 1, "giving up what a program's file might give")


def bounding_capabilities(pid: int) -> frozenset[int]:
    """The capabilities that a process, and what it executes, can have at most."""
    with open(f"/proc/{pid}/status") as file:
        mask = next(int(line.split()[1], 16) for line in file if line.startswith("CapBnd"))
    return frozenset(number for number in range(64) if mask >> number & 1)


def namespace_id(path: str) -> tuple[int, int]:
    """Device and inode of `/proc/PID/ns/KIND`: equal for two processes in one namespace."""
    status = os.stat(path)
    return status.st_dev, status.st_ino


def foreign_namespaces(flags: int, pid: int) -> int:
    """Those of `flags` whose namespace of process `pid` is not this process's own.

    Entering one's own user namespace is EINVAL (setns(2)), so a caller asks first.
    """
    files = {
        CLONE_NEWNS: "mnt",
        CLONE_NEWUTS: "uts",
        CLONE_NEWIPC: "ipc",
        CLONE_NEWUSER: "user",
        CLONE_NEWPID: "pid",
        CLONE_NEWNET: "net",
    }
    foreign = 0
    for flag, name in files.items():
        if flags & flag and namespace_id(f"/proc/{pid}/ns/{name}") != namespace_id(f"/proc/self/ns/{name}"):
            foreign |= flag
    return foreign


def start_time(pid: int) -> int:
    """When a process started, in clock ticks since boot (proc(5), stat): tells a reused pid from its first."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])
