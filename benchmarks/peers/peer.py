"""Peer: two pods, `a` and `b`, and what joins them. The measurements know no more than this.

Rule of this file: a peer that cannot be built here says what is missing, and is skipped.
"""

from __future__ import annotations

import re
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from benchmarks.pods import BenchError, Pods
from benchmarks.programs.find import find
from benchmarks.site import Site
from emunet.linux.specification import SandboxSpec

NAMESPACES = {"ip": "iproute2", "nsenter": "util-linux"}
"""What whoever moves interfaces between namespaces needs."""

_OFFLOADS = {
    "tx-checksumming": "checksum",
    "tcp-segmentation-offload": "tso",
    "generic-segmentation-offload": "gso",
    "generic-receive-offload": "gro",
    "tx-udp-segmentation": "uso",
}


@dataclass(frozen=True, slots=True)
class End:
    """A pod, and its address."""

    pod: str
    address: str


class Peer(ABC):
    """What is measured. `name` is its name in `bench.json`, `title` in the list of what ran."""

    name: ClassVar[str]
    title: ClassVar[str]
    needs: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Programs without which it cannot be, and the Debian package of each."""

    a = End("a", "10.9.0.1")
    b = End("b", "10.9.0.2")
    service: ClassVar[str] = ""
    """An address that is no machine's, at which a calls b's port for connections; "" where there is none."""
    pods: Pods

    @classmethod
    def missing(cls) -> str:
        """Why it is skipped here, or ""."""
        packages = {package for program, package in cls.needs.items() if find(program) is None}
        return f"not installed: apt-get install {' '.join(sorted(packages))}" if packages else ""

    @abstractmethod
    def build(self) -> None:
        """Make the pods and what joins them, ready for traffic."""

    def version(self) -> str:
        """What runs here: a version, an interpreter."""
        return ""

    def close(self) -> None:
        """End it."""
        self.pods.close()

    def offloads(self) -> str:
        """Offloads of pod a's interface that are on, and its MTU."""
        text = self.pods.run(self.a.pod, "ethtool", "-k", "eth0")
        found = re.findall(r"^([\w-]+): on", text, re.MULTILINE)
        on = [short for name, short in _OFFLOADS.items() if name in found]
        mtu = re.search(r"mtu (\d+)", self.pods.run(self.a.pod, "ip", "link", "show", "dev", "eth0"))
        return f"{' '.join(on) or 'none'}; mtu {mtu.group(1) if mtu else '?'}"

    def describe(self) -> dict[str, str]:
        """For the machine's description."""
        return {"title": self.title, "version": self.version(), "offloads": self.offloads()}


class NamespacePeer(Peer):
    """A peer whose pods and switches are namespaces that we make: its `site`."""

    needs = MappingProxyType(NAMESPACES)

    def __init__(self) -> None:
        self.site = Site()
        self.pods = self.site

    def make_bare_pods(self) -> None:
        """Two pods without an interface, which is moved in later."""
        self.site.make(SandboxSpec("a", "a"), SandboxSpec("b", "b"))

    def give_address(self, end: End, length: int = 24, mtu: int = 1500, gateway: str = "") -> None:
        """Address and start an interface `eth0` that was moved into a pod."""
        address = f"{end.address}/{length}"
        self.ip(end.pod, f"address add {address} dev eth0", f"link set eth0 mtu {mtu} up")
        if gateway:
            self.ip(end.pod, f"route add default via {gateway}")

    def ip(self, sandbox: str, *commands: str) -> None:
        """`ip` commands in a sandbox's network."""
        for command in commands:
            self.site.outside(sandbox, "ip", *command.split())

    def join_by_veth(self, sandbox: str, port: str, end: End) -> None:
        """A cable from a port of a sandbox to eth0 of a pod."""
        target = self.site.network(end.pod)
        self.ip(sandbox, f"link add {port} type veth peer name eth0 netns {target}", f"link set {port} up")


def first_line(*command: str) -> str:
    """The first line that a program says of itself."""
    program = find(command[0])
    if program is None:
        return ""
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False)
    lines = (done.stdout or done.stderr).strip().splitlines()
    if not lines:
        raise BenchError(f"{' '.join(command)} says nothing")
    return lines[0]
