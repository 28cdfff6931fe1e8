"""A Lab whose pods take and give Scapy packets.

Rule of this file: Scapy is imported where a packet is made, never at import.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from emunet.fabric.capture import Record
from emunet.lab import lab as base
from emunet.lab.pod import LabPod
from emunet.packet import icmp, icmpv6
from emunet.packet.ipv4 import ICMP, ICMPV6, IPv4
from emunet.packet.ipv6 import IPv6
from emunet.testing.assertions import Assertions
from emunet.testing.explained import Explained


class Pod(LabPod):
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


class Lab(base.Lab, Assertions):
    """As `emunet.lab.lab.Lab`; packets may be Scapy's, and traces can be asked. `traces` are the latest."""

    @property
    def traces(self) -> deque[tuple[str, Explained]]:
        """The latest traces, each with the pod that it begins at: a failed test shows them."""
        traces: deque[tuple[str, Explained]] = self.__dict__.setdefault("_traces", deque(maxlen=5))
        return traces

    def pod(self, name: str) -> Pod:
        """The pod of that port name, with Scapy's verbs."""
        plain = super().pod(name)
        pod = Pod.__new__(Pod)
        pod.__dict__.update(plain.__dict__)
        return pod

    def trace(self, source: str, data: Any, *, is_frame: bool = False, live: bool = False) -> Explained:
        """Follow a Scapy packet, an IP packet or a frame from a pod or host."""
        if not isinstance(data, (bytes, bytearray)):
            data, is_frame = frame_of(data, self.pod(source))
        explained = Explained.of(super().trace(source, data, is_frame=is_frame, live=live))
        self.traces.append((source, explained))
        return explained

    def explain_ping(self, source: str, destination: str) -> str:
        """What a dry run of the echo request says, and of its reply where the request arrives."""
        target = self.address(destination)
        there = self.trace(source, _echo(self.address(source, len(target)), target))
        back = next((name for name in (destination, *self._names_of(target)) if name in self.plane.world.edges), None)
        if there.verdict != "delivered" or back is None:
            return there.as_text()
        reply = self.trace(back, _echo(target, self.address(source, len(target)), reply=True))
        return f"{there.as_text()}\nand its reply:\n{reply.as_text()}"

    def _names_of(self, address: bytes) -> list[str]:
        edges = self.plane.world.edges.values()
        return [edge.name for edge in edges if any(row.address == address for row in edge.addresses)]


def _echo(source: bytes, target: bytes, *, reply: bool = False) -> bytes:
    """An echo request (or reply) as an IP packet of either family."""
    if len(source) == 4:
        request = icmp.echo_request(1, 1, bytes(56))
        return IPv4(source, target, ICMP).pack((icmp.echo_reply(request) if reply else request).pack())
    asked = icmpv6.echo_request(1, 1, bytes(56))
    return IPv6(source, target, ICMPV6, 64).pack((icmpv6.echo_reply(asked) if reply else asked).pack(source, target))


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


def frame_of(packet: Any, pod: LabPod) -> tuple[bytes, bool]:
    """A Scapy packet's bytes, and whether they begin with Ethernet. Empty sources become the pod's own."""
    from scapy.layers.inet import IP
    from scapy.layers.inet6 import IPv6 as ScapyIPv6
    from scapy.layers.l2 import Ether

    if isinstance(packet, Ether):
        return bytes(packet), True
    if isinstance(packet, (IP, ScapyIPv6)) and "src" not in packet.fields:
        family = ":" if isinstance(packet, ScapyIPv6) else "."
        packet.src = next(address for address in pod.ips if family in address)
    return bytes(packet), False


__all__ = ["Lab", "Pod", "frame_of"]
