"""The way out of a lab: passt or slirp4netns, a program of the machine that has a gateway for its only guest.

It carries TCP, UDP and echo by opening sockets of its own in the machine's network, as the user who started the lab.
What is closed: the machine's loopback, and every way in. passt gives up root for `nobody`.

It ends with the lab, however that ends: passt as soon as the data plane's end of its socket is closed, slirp4netns
as soon as a pipe is whose other end is this process's.

Rule of this file: it runs the program, and moves no frame.
"""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from pathlib import Path

from emunet.linux.refusals import LinuxRefused
from emunet.packet import arp
from emunet.packet.address import BROADCAST_MAC, format_ip, format_mac

PROGRAMS = ("passt", "slirp4netns")
"""What can be the way out, in the order of liking."""

READY_SECONDS = 10.0
"""How long a program has until it answers for the next hop."""

_RESOLVER_FILES = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
_ROUTES = Path("/proc/net/route")


@dataclass(frozen=True, slots=True)
class Guest:
    """The gateway as the program sees it, and the addresses of the program. The network is a /24.

    `mac` is the guest's.
    """

    mac: bytes
    address: bytes
    next_hop: bytes
    program_mac: bytes


def find() -> str:
    """The program to use. LinuxRefused where there is none."""
    for name in PROGRAMS:
        if shutil.which(name) is not None:
            return name
    raise LinuxRefused(
        "--internet needs passt or slirp4netns, and neither is installed.",
        "Install one: sudo apt-get install passt (or dnf install passt, pacman -S passt).",
    )


def machine_resolver(files: Sequence[Path] = _RESOLVER_FILES) -> bytes | None:
    """The IPv4 address of the machine's first name server that can be reached by a router; None where it has none.

    Where resolv.conf leads to a local server (systemd-resolved), that one's own list is read.
    """
    for file in files:
        with suppress(OSError):
            for line in file.read_text(errors="replace").splitlines():
                words = line.split()
                if len(words) >= 2 and words[0] == "nameserver":
                    with suppress(ValueError):
                        address = ip_address(words[1])
                        if isinstance(address, IPv4Address) and not (address.is_loopback or address.is_link_local):
                            return address.packed
    return None


def check_route(routes: Path = _ROUTES) -> None:
    """LinuxRefused where the machine itself has no way out by IPv4: neither program begins there."""
    with suppress(OSError):
        for line in routes.read_text().splitlines()[1:]:
            words = line.split()
            if words[1] == "00000000" and words[7] == "00000000":
                return
    raise LinuxRefused(
        "--internet: this machine has no default route for IPv4, so there is no outside to lead to.",
        "Connect it, or leave --internet out.",
    )


class WayOut:
    """A running program, and the socket at which it hands over frames: `take` it, once."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], ours: socket.socket, exit_pipe: int = -1) -> None:
        self.name = name
        self.process = process
        self._ours = ours
        self._exit_pipe = exit_pipe

    @classmethod
    def start(cls, name: str, guest: Guest, folder: Path) -> WayOut:
        """Run it, and wait until it answers. LinuxRefused, with what it said, where it does not.

        `folder` is the lab's own.
        """
        begin: Callable[[Guest, Path, int], WayOut] = _slirp if name == "slirp4netns" else _passt
        log = os.open(folder / "way-out.log", os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            made = begin(guest, folder, log)
            try:
                made._wait_for_answer(guest)
            except (OSError, TimeoutError) as error:
                made.close()
                said = os.pread(log, 4000, 0).decode(errors="replace").strip().splitlines()
                reason = said[-1] if said else str(error)
                raise LinuxRefused(f"--internet: {name} does not begin: {reason}.", "Leave --internet out.") from None
            return made
        finally:
            os.close(log)

    def take(self) -> int:
        """The descriptor of our end, to hand to the data plane; whoever takes it closes it."""
        return self._ours.detach()

    def close(self) -> None:
        """End it: returns when it is gone."""
        self._ours.close()
        if self._exit_pipe >= 0:
            os.close(self._exit_pipe)
            self._exit_pipe = -1
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _wait_for_answer(self, guest: Guest) -> None:
        """Ask for the next hop's MAC until it is told. OSError where the program ends first, or is silent."""
        question = arp.request(guest.mac, guest.address, guest.next_hop, BROADCAST_MAC).ljust(60, b"\0")
        streams = self._ours.type == socket.SOCK_STREAM
        if streams:
            question = struct.pack(">I", len(question)) + question
        answer = guest.next_hop + guest.mac  # its sender, and whom it is to, as they stand in it
        deadline = time.monotonic() + READY_SECONDS
        self._ours.settimeout(0.5)
        self._ours.sendall(question)
        got, answered = b"", False
        while time.monotonic() < deadline:
            try:
                part = self._ours.recv(1 << 16)
            except TimeoutError:
                self._ours.sendall(question)
                continue
            if not part:
                self.process.wait(5)
                raise OSError(f"it ended with code {self.process.returncode}")
            answered = answered or answer in got + part
            got = _rest(got + part) if streams else b""
            if answered and not got:  # and no frame was left half read
                return
        raise TimeoutError(f"it does not answer for {format_ip(guest.next_hop)} within {READY_SECONDS:g} s")


def _rest(data: bytes) -> bytes:
    """What is left of a stream without its whole frames, each with its length before it."""
    while len(data) >= 4 and len(data) >= (end := 4 + int.from_bytes(data[:4], "big")):
        data = data[end:]
    return data


def _passt(guest: Guest, folder: Path, log: int) -> WayOut:
    ours, theirs = socket.socketpair()
    command = [
        "passt", "--foreground", "--quiet", "--fd", str(theirs.fileno()), "--ipv4-only",
        "--address", format_ip(guest.address), "--netmask", "24", "--gateway", format_ip(guest.next_hop),
        "--mac-addr", format_mac(guest.program_mac), "--no-map-gw", "--tcp-ports", "none", "--udp-ports", "none",
        "--no-dhcp", "--no-ra", "--no-ndp", "--no-dhcpv6", "--search", "none", "--dns", "none",
    ]  # fmt: skip
    with theirs:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[theirs.fileno()]
        )
    return WayOut("passt", process, ours)


def _slirp(guest: Guest, folder: Path, log: int) -> WayOut:
    path = folder / "slirp.sock"
    told, tell = os.pipe()
    command = [
        "slirp4netns", "--target-type=bess", "--disable-host-loopback", "--disable-dns", "--mtu=1500",
        "--exit-fd", str(told), "--cidr", f"{format_ip(guest.address[:3] + bytes(1))}/24",
    ]  # fmt: skip
    command += ["--enable-sandbox"] if os.geteuid() == 0 else []
    process = subprocess.Popen(
        [*command, os.fspath(path)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[told]
    )
    os.close(told)
    ours = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    deadline = time.monotonic() + READY_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            ours.connect(os.fspath(path))
        except OSError:
            time.sleep(0.005)  # it has not bound it yet
        else:
            break
    return WayOut("slirp4netns", process, ours, tell)


__all__ = ["PROGRAMS", "Guest", "WayOut", "check_route", "find", "machine_resolver"]
