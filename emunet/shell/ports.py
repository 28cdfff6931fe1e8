"""What the shell knows of its lab: every port, who is whose neighbour, which name means which address.

Rule of this file: asked of the lab, kept for a few seconds, never guessed; no Scapy here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

from emunet.daemon.frame_channel import FrameChannel
from emunet.daemon.frame_format import PortInfo

_FRESH_SECONDS = 5.0


class Ports:
    """The ports of a lab, by name. `socket` is its frames.sock."""

    def __init__(self, socket: str | os.PathLike[str]) -> None:
        self.socket = socket
        self.by_name: dict[str, PortInfo] = {}
        self.macs: dict[str, str] = {}
        """The MAC of whoever has an address: what ARP would find out."""
        self._addresses: dict[tuple[str, int], str] = {}
        self._asked = 0.0
        self.refresh()

    def refresh(self) -> None:
        """Ask the lab. FrameChannelError where it does not answer."""
        self._take(FrameChannel.list_ports(self.socket))

    def freshen(self) -> None:
        """Ask the lab where that was some seconds ago."""
        if time.monotonic() - self._asked > _FRESH_SECONDS:
            self.refresh()

    def address(self, name: str, family: int) -> str | None:
        """The address of a pod, host or port of the lab; family is 4 or 6."""
        return self._addresses.get((name, family))

    def _take(self, ports: Iterable[PortInfo]) -> None:
        self.by_name = {port.name: port for port in ports}
        self.macs.clear()
        self._addresses.clear()
        for port in self.by_name.values():
            names = [port.name]
            if port.name == f"{port.device}:eth0":
                names.append(port.device)  # a host is meant by its uplink's address
            elif port.kind == "pod" and "/" not in port.name:
                names.append(f"default/{port.name}")
            for row in port.addresses:
                address = row.partition("/")[0]
                self.macs.setdefault(address, port.mac)
                for name in names:
                    self._addresses.setdefault((name, 6 if ":" in address else 4), address)
        self._asked = time.monotonic()
