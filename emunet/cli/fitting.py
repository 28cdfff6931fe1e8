"""A capture of elsewhere, made to fit a lab: who of it is which pod, and by which port each of its frames enters.

Rule of this file: what nobody said stays as it was captured; a MAC is that of the sender's port, and of
its next hop as the stack behind that port would choose it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

from emunet.daemon.capture_filter import addresses_by_name
from emunet.daemon.frame_format import PortInfo
from emunet.packet.address import Prefix, is_group_mac, parse_ip, parse_mac
from emunet.packet.pcap import CapturedFrame
from emunet.packet.readdress import readdress, source_of


class Fitting:
    """Rewrites frames.

    ports  the names of those by which frames enter; the first is for whoever has no pod of its own
    """

    def __init__(self, every: Sequence[PortInfo], port: str, other: str | None, wishes: Sequence[str]) -> None:
        """`other`: who answers in the first conversation. `wishes`: `OLD=NEW`, addresses or names. UsageError."""
        self._names = addresses_by_name(every)
        self._known = {info.name: info for info in every}
        self._owners = {
            parse_ip(row.partition("/")[0]): info.name for info in every for row in info.addresses if info.kind == "pod"
        }
        self._macs = {
            parse_ip(row.partition("/")[0]): parse_mac(info.mac) for info in every if info.mac for row in info.addresses
        }
        self.ports = [port]
        self._other = other
        self._addresses: dict[bytes, bytes] = {}
        if other is not None:
            self._number(other)
        for wish in wishes:
            old, equals, new = wish.partition("=")
            if not equals:
                raise click.UsageError(f"--map {wish}: say OLD=NEW, as in 192.0.2.1=web-3")
            self._map(self._address(old, None), new)

    def fitted(self, frames: Iterator[CapturedFrame]) -> Iterator[tuple[int, CapturedFrame, bytes]]:
        """Each frame with the number of the port by which it enters, and its new bytes."""
        for frame in frames:
            ends = source_of(frame.data)
            if ends is not None and self._other is not None and frame.data[12:14] != b"\x08\x06":
                self._meet(*ends)
            yield self._fit(frame, ends)

    def _meet(self, source: bytes, destination: bytes) -> None:
        """The first conversation: its ends are the two ports."""
        assert self._other is not None
        other, self._other = self._other, None
        for old, name in ((source, self.ports[0]), (destination, other)):
            if old not in self._addresses:
                self._map(old, name)

    def _fit(self, frame: CapturedFrame, ends: tuple[bytes, bytes] | None) -> tuple[int, CapturedFrame, bytes]:
        data = frame.data
        if len(data) < 14:
            return 0, frame, data
        source = None if ends is None else self._addresses.get(ends[0], ends[0])
        name = self._owners.get(source, self.ports[0]) if source is not None else self.ports[0]
        number = self.ports.index(name) if name in self.ports else 0
        macs = {}
        sender = self._known.get(self.ports[number])
        if sender is not None and sender.mac:
            macs[data[6:12]] = parse_mac(sender.mac)
            if ends is not None and not is_group_mac(data[:6]):
                hop = self._next_hop(sender, self._addresses.get(ends[1], ends[1]))
                if hop in self._macs:
                    macs[data[:6]] = self._macs[hop]
        return number, frame, readdress(data, self._addresses, macs)

    def _next_hop(self, sender: PortInfo, destination: bytes) -> bytes:
        best: tuple[int, bytes] = (-1, destination)
        for network, gateway in sender.routes:
            prefix = Prefix.parse(network)
            fits = len(prefix.address) == len(destination) and prefix.contains(destination)
            if fits and prefix.length > best[0]:
                best = (prefix.length, parse_ip(gateway) if gateway else destination)
        return best[1]

    def _map(self, old: bytes, new: str) -> None:
        self._addresses[old] = self._address(new, len(old))
        if new in self._known:
            self._number(new)

    def _number(self, port: str) -> None:
        if port not in self._known:
            raise click.UsageError(f"there is no port {port}; there are: {', '.join(self._known)}")
        if port not in self.ports:
            self.ports.append(port)

    def _address(self, text: str, size: int | None) -> bytes:
        """An address, or that of a name in the family that is asked for (bytes)."""
        for one in self._names.get(text, [text]):
            try:
                address = parse_ip(one)
            except ValueError:
                raise click.UsageError(f"{text} is no address, and nothing in the lab is called so") from None
            if size in (None, len(address)):
                return address
        raise click.UsageError(f"{text} has no address of the family that is in the capture")
