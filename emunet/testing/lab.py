"""A Lab whose pods take and give Scapy packets.

Rule of this file: Scapy is imported where a packet is made, never at import.
"""

from __future__ import annotations

from typing import Any

from emunet.fabric.capture import Record
from emunet.lab import lab as base
from emunet.plane.trace import Trace


class Pod(base.LabPod):
    """A pod with `sr1` beside its own stack."""

    def sr1(self, packet: Any, timeout: float = 5.0) -> Any:
        """Send a Scapy packet and return the first answer to it, or None.

        A packet with Ethernet goes as it is; an IP packet goes by the pod's own routing
        (its source address is filled in where it has none).
        """
        answers: list[Any] = []
        watcher = _Watcher(packet, answers)
        self._lab.plane.tap([self.port], watcher)
        try:
            data, is_frame = frame_of(packet, self)
            if is_frame:
                self.send(data)
            else:
                self.send_ip(data)
            self._lab.wait(lambda: bool(answers), timeout)
        finally:
            self._lab.plane.untap([self.port], watcher)
        return answers[0] if answers else None


class Lab(base.Lab):
    """As `emunet.lab.lab.Lab`; packets may be Scapy's."""

    def pod(self, name: str) -> Pod:
        """The pod of that port name, with Scapy's verbs."""
        plain = super().pod(name)
        pod = Pod.__new__(Pod)
        pod.__dict__.update(plain.__dict__)
        return pod

    def trace(self, source: str, data: Any, *, is_frame: bool = False, live: bool = False) -> Trace:
        """Follow a Scapy packet, an IP packet or a frame from a pod or host."""
        if not isinstance(data, (bytes, bytearray)):
            data, is_frame = frame_of(data, self.pod(source))
        return super().trace(source, data, is_frame=is_frame, live=live)


class _Watcher:
    """A sink that keeps what answers a packet."""

    def __init__(self, packet: Any, answers: list[Any]) -> None:
        self._packet = packet
        self._answers = answers

    def write(self, record: Record) -> None:
        """Keep a received frame that answers."""
        from scapy.layers.l2 import Ether

        if not record.inbound:
            return
        for frame in record.frames:
            received = Ether(frame)
            if not isinstance(self._packet, Ether):
                received = received.payload
            if received.answers(self._packet):
                self._answers.append(received)


def frame_of(packet: Any, pod: base.LabPod) -> tuple[bytes, bool]:
    """A Scapy packet's bytes, and whether they begin with Ethernet. Empty sources become the pod's own."""
    from scapy.layers.inet import IP
    from scapy.layers.inet6 import IPv6
    from scapy.layers.l2 import Ether

    if isinstance(packet, Ether):
        return bytes(packet), True
    if isinstance(packet, (IP, IPv6)) and "src" not in packet.fields:
        family = ":" if isinstance(packet, IPv6) else "."
        packet.src = next(address for address in pod.ips if family in address)
    return bytes(packet), False


__all__ = ["Lab", "Pod", "frame_of"]
