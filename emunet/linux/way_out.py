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
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import BinaryIO

from emunet.linux.refusals import LinuxRefused
from emunet.packet import arp, icmpv6, ipv4, ipv6
from emunet.packet.address import BROADCAST_MAC, format_ip, format_mac, multicast_mac, solicited_node
from emunet.packet.ethernet import ETHERTYPE_IPV6, Ethernet

PROGRAMS = ("passt", "slirp4netns")
"""What can be the way out, in the order of liking."""

READY_SECONDS, IPV6_SECONDS = 10.0, 2.0
"""How long a program has until it answers for the next hop, and after that for the one of IPv6."""

_RESOLVER_FILES = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
_ROUTES, _IPV6_ROUTES = Path("/proc/net/route"), Path("/proc/net/ipv6_route")


@dataclass(frozen=True, slots=True)
class Guest:
    """The gateway as the program sees it, and the program's own addresses.

    `mac` is the guest's; `ipv4` and `ipv6` are its address and that of its next hop, in a /24 and a /64.
    """

    mac: bytes
    program_mac: bytes
    ipv4: tuple[bytes, bytes]
    ipv6: tuple[bytes, bytes] | None = None


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


def carries_ipv6(routes: Path = _IPV6_ROUTES) -> bool:
    """Whether IPv6 gets out too: this machine has a default route for it, and the program is passt.

    slirp4netns calls its own IPv6 experimental, and has one range that cannot be chosen.
    """
    if find() != "passt":
        return False
    with suppress(OSError):
        for line in routes.read_text().splitlines():
            words = line.split()
            if words[0] == "0" * 32 and words[1] == "00" and words[9] != "lo":
                return True
    return False


class WayOut:
    """A running program, and the socket at which it hands over frames: `take` it, once."""

    def __init__(
        self, name: str, process: subprocess.Popen[bytes], ours: socket.socket, log: Path, exit_pipe: int = -1
    ) -> None:
        self.name = name
        self.process = process
        self.ipv6 = False
        """Whether it carries IPv6: known once it has begun."""
        self._log = log
        self._ours = ours
        self._exit_pipe = exit_pipe

    @classmethod
    def start(cls, name: str, guest: Guest, folder: Path) -> WayOut:
        """Run it, and wait until it answers. LinuxRefused, with what it said, where it does not.

        `folder` is the lab's own.
        """
        begin: Callable[[Guest, Path, BinaryIO], WayOut] = _slirp if name == "slirp4netns" else _passt
        with open(folder / "way-out.log", "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as log:
            made = begin(guest, folder, log)
        try:
            made._wait_for_answer(guest)
        except (OSError, TimeoutError) as error:
            made.close()
            reason = made.last_words() or str(error)
            raise LinuxRefused(f"--internet: {name} does not begin: {reason}.", "Leave --internet out.") from None
        return made

    def last_words(self) -> str:
        """The last line that it has said, without its full stop; empty where it said nothing."""
        try:
            said = self._log.read_text(errors="replace").strip().splitlines()
        except OSError:  # the lab's folder is gone
            return ""
        return said[-1].strip().rstrip(".") if said else ""

    def how_it_ended(self) -> str:
        """Once it has: by what, and what it said last, if anything. A sentence without its end."""
        code = self.process.wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"has ended with code {code}"
        said = self.last_words()
        return f"{self.name} {how}" + (f" ({said})" if said and code >= 0 else "")

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
        """Ask for the next hops' MAC until it is told. OSError where the program ends first, or is silent.

        One that does not answer for IPv6, though it does for IPv4, does not carry it.
        """
        streams = self._ours.type == socket.SOCK_STREAM
        questions = [_question(guest)]
        missing = {guest.ipv4[1] + guest.mac: "its IPv4 next hop"}  # target and asker, as they stand in an ARP reply
        if guest.ipv6 is not None:
            questions.append(_question_of_ipv6(guest.mac, *guest.ipv6))
            missing[guest.ipv6[1]] = "its IPv6 next hop"
        asked = b"".join((struct.pack(">I", len(one)) if streams else b"") + one for one in questions)
        deadline = time.monotonic() + READY_SECONDS
        self._ours.settimeout(0.5)
        self._ours.sendall(asked)
        got = b""
        while time.monotonic() < deadline:
            try:
                part = self._ours.recv(1 << 16)
            except TimeoutError:
                self._ours.sendall(asked)
                continue
            if not part:
                self.process.wait(5)
                raise OSError(f"it ended with code {self.process.returncode}")
            for answer in [one for one in missing if one in got + part]:
                del missing[answer]
                if guest.ipv6 is not None:
                    deadline = min(deadline, time.monotonic() + IPV6_SECONDS)
            got = _rest(got + part) if streams else b""
            if not missing and not got:  # and no frame was left half read
                break
        if any("IPv4" in one for one in missing.values()):
            raise TimeoutError(f"it does not answer for {format_ip(guest.ipv4[1])} within {READY_SECONDS:g} s")
        self.ipv6 = guest.ipv6 is not None and not missing


def _question(guest: Guest) -> bytes:
    address, next_hop = guest.ipv4
    return arp.request(guest.mac, address, next_hop, BROADCAST_MAC).ljust(60, b"\0")


def _question_of_ipv6(mac: bytes, address: bytes, next_hop: bytes) -> bytes:
    group = solicited_node(next_hop)
    body = icmpv6.NeighborSolicitation(next_hop, mac).pack(address, group)
    packet = ipv6.IPv6(address, group, ipv4.ICMPV6, hop_limit=255).pack(body)
    return Ethernet(multicast_mac(group), mac, ETHERTYPE_IPV6).pack(packet)


def _rest(data: bytes) -> bytes:
    """What is left of a stream without its whole frames, each with its length before it."""
    while len(data) >= 4 and len(data) >= (end := 4 + int.from_bytes(data[:4], "big")):
        data = data[end:]
    return data


def _passt(guest: Guest, folder: Path, log: BinaryIO) -> WayOut:
    ours, theirs = socket.socketpair()
    command = [
        "passt", "--foreground", "--quiet", "--fd", str(theirs.fileno()), "--netmask", "24",
        "--mac-addr", format_mac(guest.program_mac), "--no-map-gw", "--tcp-ports", "none", "--udp-ports", "none",
        "--no-dhcp", "--no-ra", "--no-dhcpv6", "--search", "none", "--dns", "none",
    ]  # fmt: skip
    for address, next_hop in (guest.ipv4, *([guest.ipv6] if guest.ipv6 is not None else [])):
        command += ["--address", format_ip(address), "--gateway", format_ip(next_hop)]
    command += [] if guest.ipv6 is not None else ["--ipv4-only"]
    with theirs:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[theirs.fileno()]
        )
    return WayOut("passt", process, ours, Path(log.name))


def _slirp(guest: Guest, folder: Path, log: BinaryIO) -> WayOut:
    path = folder / "slirp.sock"
    path.unlink(missing_ok=True)  # of one that has ended
    told, tell = os.pipe()
    command = [
        "slirp4netns", "--target-type=bess", "--disable-host-loopback", "--disable-dns", "--mtu=1500",
        "--exit-fd", str(told), "--cidr", f"{format_ip(guest.ipv4[0][:3] + bytes(1))}/24",
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
    return WayOut("slirp4netns", process, ours, Path(log.name), tell)


__all__ = ["PROGRAMS", "Guest", "WayOut", "carries_ipv6", "check_route", "find", "machine_resolver"]
