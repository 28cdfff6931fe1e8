"""What a machine may refuse to a lab on TAPs, why, and what cures it.

Rule of this file: a refusal is two sentences for a person, what was refused and what to
do; which cure is right is found out by asking the machine, not guessed from its name.
"""

from __future__ import annotations

import errno
import os

MEMORY_WIRES = "Or use --wires memory, which needs nothing of Linux."


class LinuxRefused(Exception):
    """The machine does not allow what a lab on TAPs needs: `what` was refused, and the `cure`."""

    def __init__(self, what: str, cure: str) -> None:
        super().__init__(f"{what} {cure}")
        self.what = what
        self.cure = cure


def read_setting(name: str) -> str | None:
    """A file below /proc/sys, stripped; None where this kernel has none of that name."""
    try:
        with open(f"/proc/sys/{name}") as file:
            return file.read().strip()
    except OSError:
        return None


def user_namespace_cure(number: int) -> str:
    """What to do where making a user namespace failed with this errno, or gave no power."""
    if read_setting("user/max_user_namespaces") == "0" or number == errno.ENOSPC:
        return "Allow them: sudo sysctl -w user.max_user_namespaces=15000."
    if read_setting("kernel/unprivileged_userns_clone") == "0":
        return "Allow them: sudo sysctl -w kernel.unprivileged_userns_clone=1."
    if read_setting("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return "Allow them: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu 23.10 and later)."
    if number == errno.EINVAL:
        return "This kernel has no user namespaces: run emunet as root."
    return "Run emunet as root; inside a container, start that with --privileged, since its seccomp profile forbids it."


def tun_cure() -> str:
    """What to do where /dev/net/tun is missing or closed to this user."""
    device = "/dev/net/tun"
    if not os.path.exists(device):
        make = "sudo modprobe tun || (sudo mkdir -p /dev/net && sudo mknod -m 666 /dev/net/tun c 10 200)"
        return f"Make it: {make}; inside a container, start that with --device /dev/net/tun."
    return "Open it to all, as most distributions do: sudo chmod 666 /dev/net/tun. It gives no power over the machine."


def refusal(stage: str, number: int, words: str) -> LinuxRefused:
    """The refusal of a stage of `keeper.main`, from its errno and the keeper's own words."""
    if stage == "user":
        what, cure = f"This machine allows no user namespace: {words}.", user_namespace_cure(number)
    elif stage == "map":
        what, cure = f"The ids of a user namespace could not be set: {words}.", user_namespace_cure(number)
    elif stage == "tun":
        what, cure = f"TAPs cannot be opened: {words}.", tun_cure()
    elif stage == "mounts" and "proc" in words:
        what = f"A fresh /proc was refused: {words}."
        cure = "Inside a container parts of /proc are masked: start it with --security-opt systempaths=unconfined."
        if read_setting("kernel/apparmor_restrict_unprivileged_userns") == "1":
            cure = user_namespace_cure(number)
    else:
        what, cure = f"The kernel refused the namespaces of a lab: {words}.", user_namespace_cure(number)
    return LinuxRefused(what, f"{cure} {MEMORY_WIRES}")
