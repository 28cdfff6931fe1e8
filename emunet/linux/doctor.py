"""What this machine allows, and how to allow the rest: `emunet doctor`, and the choice of `--wires auto`.

Rule of this file: what can be tried is tried, in processes that end with the trial; a
setting is read only to name the cure. A finding is one sentence and one cure.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from dataclasses import dataclass

from emunet.linux.keeper_client import Keeper, KeeperGone, KeeperRefused
from emunet.linux.refusals import LinuxRefused, read_setting, tun_cure
from emunet.linux.specification import InterfaceSpec, SandboxSpec
from emunet.linux.tap import TUN_DEVICE, close_many

_KERNEL_NEEDED = (5, 12)
"""The first that makes a tree of mounts read-only (mount_setattr(2)); entering namespaces by a pidfd came in 5.8."""

_NEIGHBORS_WANTED = 65_536
"""Two entries for each pair of pods of a host that have talked: 200 pods of one host make 39,800."""

_TOOLS = {
    "ping": ("iputils-ping", "to ping by hand inside a pod"),
    "ip": ("iproute2", "to look at a pod's interfaces and routes"),
    "tshark": ("tshark", "to read captures in a terminal; Wireshark reads them too"),
    "tcpdump": ("tcpdump", "to sniff inside a pod"),
    "iperf3": ("iperf3", "to measure throughput (make bench)"),
    "passt": ("passt", "to let pods out of a lab (emunet up --internet)"),
    "ethtool": ("ethtool", "to see offloads of a pod's interface"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: whether it is as emunet needs it, a sentence about it, and the cure where it is not.

    `needed`: without it there are no TAP wires; otherwise it is only of use.
    """

    name: str
    ok: bool
    detail: str
    cure: str = ""
    needed: bool = True


def examine() -> list[Finding]:
    """Look at all that TAP wires need, then at what is of use."""
    if sys.platform != "linux":
        cure = "Use --wires memory: it needs nothing of Linux."
        return [Finding("Linux", False, f"This is {sys.platform}; TAPs and namespaces are Linux's.", cure)]
    return [_kernel(), _tun(), *_lab(), _neighbors(), _pytun(), _subordinate_ids(), *_tools()]


def can_use_taps() -> tuple[bool, str]:
    """Whether a lab on TAP wires would start here, by really starting one; and a sentence that says so or why not.

    Takes about 0.1 s.
    """
    refused = next((one for one in [_kernel(), *_lab()] if not one.ok), None)
    if refused is None:
        return True, "TAP wires: pods are network namespaces of this machine's kernel."
    return False, f"{refused.detail} {refused.cure}".strip()


def _kernel() -> Finding:
    release = platform.release()
    numbers = release.replace("-", ".").split(".")
    version = (int(numbers[0]), int(numbers[1])) if numbers[0].isdigit() and numbers[1].isdigit() else _KERNEL_NEEDED
    needed = ".".join(map(str, _KERNEL_NEEDED))
    if version < _KERNEL_NEEDED:
        cure = "Use a newer kernel, or --wires memory."
        return Finding("Linux", False, f"Linux {release} is too old: TAP wires need {needed}.", cure)
    return Finding("Linux", True, f"Linux {release} ({needed} or later is needed).")


def _tun() -> Finding:
    try:
        os.close(os.open(TUN_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return Finding(TUN_DEVICE, False, f"{TUN_DEVICE} cannot be opened: {error.strerror}.", tun_cure())
    mode = os.stat(TUN_DEVICE).st_mode & 0o777
    if mode & 0o006 != 0o006:
        detail = f"{TUN_DEVICE} can be opened by this user, but not by all (its mode is {mode:04o})."
        return Finding(TUN_DEVICE, True, detail, tun_cure())
    return Finding(TUN_DEVICE, True, f"{TUN_DEVICE} can be opened by all users.")


def _lab() -> list[Finding]:
    """Start a keeper and one sandbox, and end them again."""
    name = "namespaces"
    try:
        with Keeper.start() as keeper:
            if keeper.own_user_namespace:
                what = "A lab runs in user, PID, network and mount namespaces of its own, with its own /proc."
                findings = [Finding(name, True, what)]
            else:
                what = "This machine allows no user namespace; as root a lab runs without, and root in a pod is root."
                findings = [Finding(name, True, what, "Allow them: sudo sysctl -w user.max_user_namespaces=15000.")]
            findings.append(_sandbox(keeper))
            return findings
    except LinuxRefused as error:
        return [Finding(name, False, error.what, error.cure)]
    except KeeperGone as error:
        return [Finding(name, False, f"The keeper of a lab did not start: {error}.", "Please report this.")]


def _sandbox(keeper: Keeper) -> Finding:
    interface = InterfaceSpec("eth0", "02:00:00:00:00:01", ("192.0.2.1/24",))
    try:
        sandbox = keeper.create_sandbox(SandboxSpec("doctor", "doctor", (interface,)))
    except KeeperRefused as error:
        return Finding("TAP in a pod", False, f"A pod could not be made: {error}.", "Use --wires memory.")
    close_many((*sandbox.taps, *sandbox.drop_counters))
    return Finding("TAP in a pod", True, "A pod with a TAP was made and removed again.")


def _neighbors() -> Finding:
    """The kernel's table of neighbours is one for all namespaces, and pods that fill it lose packets (ENOBUFS)."""
    name = "neighbour table"
    settings = {family: read_setting(f"net/{family}/neigh/default/gc_thresh3") for family in ("ipv4", "ipv6")}
    known = [int(value) for value in settings.values() if value is not None]  # only the machine's own namespace has it
    if not known:
        return Finding(name, True, "How many neighbours the kernel keeps cannot be seen from here.", needed=False)
    least = min(known)
    detail = f"The kernel keeps {least:,} neighbours (ARP and ND entries) for all pods of all labs together."
    if least >= _NEIGHBORS_WANTED:
        return Finding(name, True, detail, needed=False)
    raising = " ".join(f"net.{family}.neigh.default.gc_thresh3={_NEIGHBORS_WANTED}" for family in settings)
    cure = f"For labs where hundreds of pods of one host talk to each other: sudo sysctl -w {raising}."
    return Finding(name, False, detail, cure, needed=False)


def _pytun() -> Finding:
    if importlib.util.find_spec("pytun") is not None:
        return Finding("python-pytun", True, "python-pytun opens the TAPs.", needed=False)
    detail = "python-pytun is not installed (its wheels are for x86-64); emunet opens TAPs by its own ioctl."
    return Finding("python-pytun", True, detail, needed=False)


def _subordinate_ids() -> Finding:
    name = "newuidmap"
    if os.geteuid() == 0:
        return Finding(name, True, "Root maps every user of this machine into a lab.", needed=False)
    if shutil.which("newuidmap") and shutil.which("newgidmap"):
        return Finding(name, True, "newuidmap can give a lab more users than one.", needed=False)
    detail = "newuidmap is missing, so a lab has one user, and daemons in pods cannot change to theirs."
    return Finding(name, False, detail, "Install it: sudo apt install uidmap.", needed=False)


def _tools() -> list[Finding]:
    findings = []
    for tool, (package, use) in _TOOLS.items():
        path = shutil.which(tool)
        if path is not None:
            findings.append(Finding(tool, True, f"{tool} is at {path}.", needed=False))
        else:
            cure = f"Install it: sudo apt install {package}."
            findings.append(Finding(tool, False, f"{tool} is missing; it serves {use}.", cure, needed=False))
    return findings
