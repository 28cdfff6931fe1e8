"""vde_switch: the switch of Virtual Distributed Ethernet, with a TAP for each pod.

Rule of this file: as its manual says, in a private folder.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from types import MappingProxyType

from benchmarks.peers.peer import NAMESPACES, End, NamespacePeer
from benchmarks.programs.find import find
from benchmarks.site import wait_for
from emunet.linux.specification import SandboxSpec


class VdeSwitch(NamespacePeer):
    """A vde_switch with a plug for each pod, a process of its own, as virtual machines join it."""

    name = "vde"
    title = "vde_switch, a plug for each TAP"
    needs = MappingProxyType(
        NAMESPACES
        | {
            "vde_switch": "vde2",
            "vde_plug2tap": "vde2",
        }
    )

    def build(self) -> None:
        self.make_bare_pods()
        self.site.make(SandboxSpec("switch", "switch"))
        folder = self.site.folder / "vde"
        self.site.run("switch", "vde_switch", "-s", folder, "--daemon", *self.switch_options())
        wait_for(folder / "ctl", "vde_switch")
        for end in (self.a, self.b):
            port = _port(end)
            self.plug(port, folder)
            self.ip("switch", f"link set {port} netns {self.site.network(end.pod)}")
            self.ip(end.pod, f"link set {port} name eth0")
            self.give_address(end)

    def switch_options(self) -> list[str]:
        """What else the switch is told."""
        return []

    def plug(self, port: str, folder: Path) -> None:
        """Make a TAP and join it to the switch."""
        self.ip("switch", f"tuntap add dev {port} mode tap", f"link set {port} up")
        self.site.start("switch", "vde_plug2tap", "-s", folder, port)
        # Until somebody has the TAP open.
        self.site.run("switch", "sh", "-c", f"until grep -q 1 /sys/class/net/{port}/carrier; do sleep 0.02; done")

    def version(self) -> str:
        program = find("vde_switch") or "vde_switch"
        done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
        found = re.search(r"VDE (\S+)", done.stdout + done.stderr)
        return f"vde2 {found.group(1)}" if found else "vde2"


class VdeBuiltIn(VdeSwitch):
    """A vde_switch that opens the TAPs itself: half the work, for a machine's own interfaces."""

    name = "vde built-in"
    title = "vde_switch, its own TAPs"

    def switch_options(self) -> list[str]:
        return [word for end in (self.a, self.b) for word in ("--tap", _port(end))]

    def plug(self, port: str, folder: Path) -> None:
        """It is there already."""


def _port(end: End) -> str:
    return f"to-{end.pod}"
