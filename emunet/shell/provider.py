"""Every port of the lab is an interface of Scapy (its interface-provider mechanism).

What Scapy sends on a pod's port enters the network as the pod's own frame. What it sniffs there
is what passes the pod's eth0, in both directions. A socket that also sends (`srp1`, `sr1`) is
told of what arrives only, as Scapy's own raw sockets are.

On a host's interface a packet (`send`, `sr1`) is sent as by the host's own sockets, which the
host routes; a frame (`sendp`, `srp1`) goes out by that interface as it is, as from a packet socket.
On a switch's port it comes in as if the cable had brought it.

On TAPs the pod's kernel is there too: it sees the answers to what Scapy sent for it, and
resets TCP connections that it does not know of (on a real machine it is the same).

Rule of this file: a socket owns one connection to the plane, and closes it.
"""

from __future__ import annotations

import select
import time
from collections.abc import Sequence
from typing import Any, NoReturn

import scapy.sendrecv
from scapy.config import conf
from scapy.data import ETH_P_ALL, MTU
from scapy.error import Scapy_Exception
from scapy.interfaces import InterfaceProvider, NetworkInterface, network_name, resolve_iface
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.supersocket import SuperSocket

from emunet.daemon.capture_filter import BadFilter, CaptureFilter, capture_filter
from emunet.daemon.frame_channel import FrameChannel, FrameChannelError
from emunet.daemon.frame_format import NOTICE, PortInfo
from emunet.packet.address import parse_mac
from emunet.packet.view import IPV4, IPV6
from emunet.shell.names import Lookup, understand_names
from emunet.shell.ports import Ports
from emunet.shell.routing import LabRoutes, LabRoutes6, Resolver, mark, mark_all
from emunet.shell.speaking import choose_sockets

_FIRST_INDEX = 1_000_000
"""Interface numbers of ports; the machine's own stay far below."""

_ETHERNET = 1
_UP_BROADCAST_MULTICAST = 0x1003


class PortSocket(SuperSocket):  # type: ignore[misc]
    """Sends and receives frames at a port. What the port's own stack sends is not received."""

    desc = "frames at a port of an emunet lab"
    listens_only = False
    sends_frames = True
    ports: Ports
    resolver: Resolver

    def __init__(
        self,
        iface: Any = None,
        type: int = ETH_P_ALL,
        promisc: Any = None,
        filter: str | None = None,
        nofilter: int = 0,
        monitor: Any = None,
    ) -> None:
        """As Scapy calls its sockets; `promisc` and `monitor` mean nothing to a port."""
        self.closed = True  # until there is something to close
        self.iface = network_name(iface or conf.iface)
        self._ethertype = None if type == ETH_P_ALL else type.to_bytes(2, "big")
        self._judge: CaptureFilter | None = None
        if not nofilter and conf.except_filter:
            filter = f"({filter}) and not ({conf.except_filter})" if filter else f"not ({conf.except_filter})"
        if filter and not nofilter:
            try:
                self._judge = capture_filter(filter, self.ports.by_name.values())
            except BadFilter as error:
                raise Scapy_Exception(f"Cannot set filter: {error}") from None
        try:
            self.ins = FrameChannel.connect(
                self.ports.socket,
                [self.iface],
                sent=self.listens_only,
                inject=not self.listens_only,
                raw=self.sends_frames,
                single=True,
            )
        except FrameChannelError as error:
            raise Scapy_Exception(str(error)) from None
        self.closed = False
        self.outs = None if self.listens_only else self.ins

    def send(self, packet: Any) -> int:
        """Let a packet, or bytes, in by the port."""
        return self._send_frame(packet, bytes(mark(packet, self.iface)))

    def _send_frame(self, packet: Any, frame: bytes) -> int:
        if hasattr(packet, "sent_time"):
            packet.sent_time = time.time()
        self.ins.send(frame)
        return len(frame)

    def recv_raw(self, x: int = MTU) -> tuple[Any, bytes | None, float | None]:
        """The next frame; nothing where the next one is not for this socket. EOFError when the lab has ended."""
        for record in self.ins.receive():
            frame = record.frame
            if record.direction == NOTICE or (self._ethertype and frame[12:14] != self._ethertype):
                continue
            if self._judge is None or self._judge.takes(frame):
                return Ether, frame[:x], record.at / 1e9
        return None, None, None

    def fileno(self) -> int:
        """The connection's."""
        return self.ins.fileno()

    def close(self) -> None:
        """Let the connection go."""
        if not self.closed:
            self.closed = True
            self.ins.close()

    @staticmethod
    def select(sockets: Sequence[Any], remain: float | None = None) -> list[Any]:
        """Those that can be read within `remain` seconds: by poll, since select knows no descriptor above 1023."""
        poll = select.poll()
        by_descriptor = {}
        for one in sockets:
            by_descriptor[one.fileno()] = one
            poll.register(one.fileno(), select.POLLIN)
        return [by_descriptor[fd] for fd, _ in poll.poll(None if remain is None else max(0.0, remain * 1000))]


class ListeningPortSocket(PortSocket):
    """Receives what passes a port in either direction, and sends nothing: what `sniff` uses."""

    desc = "frames that pass a port of an emunet lab"
    listens_only = True

    def send(self, packet: Any) -> NoReturn:
        """Refused, as by Scapy's own listening sockets."""
        raise Scapy_Exception("Can't send anything with a socket that listens")


class PacketPortSocket(PortSocket):
    """Sends and receives packets at a port, without their Ethernet header: what `sr1` uses."""

    desc = "packets at a port of an emunet lab"
    sends_frames = False

    def send(self, packet: Any) -> int:
        """Put the frame around a packet that the port's own stack would: its MAC, and its next hop's."""
        if isinstance(packet, Ether):
            return super().send(packet)
        mark(packet, self.iface)
        data = bytes(packet)
        port = self.ports.by_name.get(self.iface)
        if port is None or not isinstance(packet, (IP, IPv6)):
            return self._send_frame(packet, bytes(Ether() / packet))
        # The header by hand: for Scapy it would cost a copy of the packet and building it once more.
        destination = parse_mac(self.resolver.mac(packet) or "ff:ff:ff:ff:ff:ff")
        is_v6 = isinstance(packet, IPv6)
        header = destination + parse_mac(port.mac or "00:00:00:00:00:00") + (IPV6 if is_v6 else IPV4)
        if len(data) <= port.mtu or is_v6 or not conf.auto_fragment:
            return self._send_frame(packet, header + data)
        pieces = packet.fragment((port.mtu - (data[0] & 15) * 4) // 8 * 8)
        return sum(self._send_frame(packet, header + bytes(piece)) for piece in pieces)

    def recv(self, x: int = MTU, **kwargs: Any) -> Any:
        """The next packet, or None."""
        frame = super().recv(x, **kwargs)
        if frame is None:
            return None
        frame.payload.time = frame.time
        return frame.payload


def _provider(ports: Ports) -> type:
    """The class that Scapy asks for the interfaces of this lab."""

    class PortProvider(InterfaceProvider):  # type: ignore[misc]
        """The ports of a lab. An unknown name makes Scapy load again: a pod that is new is found by itself."""

        name = "emunet"

        def load(self) -> dict[str, NetworkInterface]:
            """What there is now."""
            ports.refresh()
            for table in (conf.route, conf.route6):
                if isinstance(table, (LabRoutes, LabRoutes6)):
                    table.take_ports()
            return {
                port.name: NetworkInterface(self, _interface_data(port, number))
                for number, port in enumerate(ports.by_name.values(), _FIRST_INDEX)
            }

        def _l2socket(self, dev: NetworkInterface) -> type:
            return PortSocket

        def _l2listen(self, dev: NetworkInterface) -> type:
            return ListeningPortSocket

        def _l3socket(self, dev: NetworkInterface, ipv6: bool) -> type:
            return PacketPortSocket

        def _is_valid(self, dev: NetworkInterface) -> bool:
            return True

    return PortProvider


def _interface_data(port: PortInfo, number: int) -> dict[str, Any]:
    return {
        "name": port.name,
        "description": port.name,
        "network_name": port.name,
        "index": number,
        "mac": port.mac or "00:00:00:00:00:00",
        "ips": [row.partition("/")[0] for row in port.addresses],
        "type": _ETHERNET,
        "flags": _UP_BROADCAST_MULTICAST,
    }


def install(ports: Ports, services: Lookup = lambda name, family: None) -> None:
    """Make the lab's ports interfaces of this Scapy, and its first pod the one that speaks (`conf.iface`).

    `services` is asked for names that no port has.
    """
    PortSocket.ports = ports
    PortSocket.resolver = Resolver(ports)
    PortSocket.resolver.install()
    understand_names(lambda name, family: ports.address(name, family) or services(name, family))
    conf.route = LabRoutes(ports, conf.route)
    conf.route6 = LabRoutes6(ports, conf.route6)
    provider = _provider(ports)
    conf.ifaces.register_provider(provider)
    # In front of the machine's, so that a pod called eth0 is the one that is meant.
    providers = conf.ifaces.providers
    conf.ifaces.providers = {provider: providers.pop(provider), **providers}
    conf.ifaces.reload()
    first = next((port.name for port in ports.by_name.values() if port.kind == "pod"), None)
    if first is not None:
        conf.iface = first
    sockets: dict[str, type] = {"L2socket": PortSocket, "L2listen": ListeningPortSocket}
    choose_sockets(ports, sockets | {"L3socket": PacketPortSocket, "L3socket6": PacketPortSocket})
    _teach_sending(ports)


def _teach_sending(ports: Ports) -> None:
    """Two steps of Scapy's sending that must know the port.

    `sndrcv` computes from a packet what its answer looks like, before the packet is sent: its
    destination must be marked by then. And `send`, `sr` and their like take `iface=` for a single
    packet with a single destination only; for a port of the lab they take whatever can be sent.
    """
    exchange = scapy.sendrecv.sndrcv
    select_interface = scapy.sendrecv._interface_selection

    def sndrcv(pks: Any, pkt: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(pks, PortSocket):
            pkt = mark_all(pkt, pks.iface)
        return exchange(pks, pkt, *args, **kwargs)

    def _interface_selection(packet: Any, iface: Any = None) -> tuple[NetworkInterface, bool]:
        if iface is not None and str(iface) in ports.by_name:
            return resolve_iface(iface), False
        found: tuple[NetworkInterface, bool] = select_interface(packet, iface)
        return found

    scapy.sendrecv.sndrcv = sndrcv
    scapy.sendrecv._interface_selection = _interface_selection
