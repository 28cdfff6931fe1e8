"""The bare copier in Python: the floor under every forwarder written in it.

Rule of this file: its TAPs are as a lab's own, and its interpreter is that of emunet.
"""

from __future__ import annotations

import subprocess
import sys

from benchmarks.lab import ROOT
from benchmarks.machine import interpreter
from benchmarks.peers.peer import End, NamespacePeer
from emunet.linux.specification import InterfaceSpec, SandboxSpec
from emunet.linux.tap import OFFLOAD_ALL_TCP

_GSO_MAX_SIZE = 65_536 - 256


class Copier(NamespacePeer):
    """Two TAPs and a loop of reads and writes."""

    name = "copier"
    title = "bare Python copier"
    process: subprocess.Popen[bytes] | None = None

    def build(self) -> None:
        taps = [sandbox.taps[0] for sandbox in self.site.make(*map(_spec, (self.a, self.b)))]
        command = [sys.executable, "-m", "benchmarks.programs.copier", *map(str, taps)]
        self.process = subprocess.Popen(command, pass_fds=taps, cwd=ROOT)

    def version(self) -> str:
        return interpreter()

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        super().close()


def _spec(end: End) -> SandboxSpec:
    mac = "02:00:00:00:00:" + ("01" if end.pod == "a" else "02")
    address = f"{end.address}/24"
    interface = InterfaceSpec(
        "eth0", mac, (address,), vnet_header=True, offload=OFFLOAD_ALL_TCP, gso_max_size=_GSO_MAX_SIZE
    )
    return SandboxSpec(end.pod, end.pod, (interface,))
