"""VXLAN: carry an interface's frames to another host in UDP (RFC 7348), flannel's way.

No flooding, no learning, no ARP on the overlay: which host is behind an inner
destination MAC is told by the configuration (fidelity FL-03); a MAC that it does not
name is a drop with a reason (FL-05). Outer header: own identification, TTL 64, TOS 0,
DF clear whatever the inner says (VX-02); UDP source port by hash of the inner flow
(VX-03), checksum filled in as Linux does by default (VX-04). Any flag or reserved bit
beside I, or another VNI, is refused (VX-05).

A superframe is cut before it is wrapped: no device behind us could cut it any more.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from struct import Struct
from typing import Any
from zlib import crc32

from emunet.packet import ipv4, ipv6, udp, vxlan
from emunet.packet.address import format_ip
from emunet.packet.edit import Complete, Edit, Pop, Push
from emunet.packet.malformed import Malformed
from emunet.packet.offload import complete, split
from emunet.packet.view import ETHERNET_HEADER, IPV4, IPV6, Packet
from emunet.plane.element import Element
from emunet.plane.reason import Reason
from emunet.plane.step import Output, Step, Verdict, drop
from emunet.plane.table import Advance, Counter, Table, Watch

HEADERS_V4 = Struct(">12s2sHHHHBBH4s4sHHHH8s")
HEADERS_V6 = Struct(">12s2sIHBB16s16sHHHH8s")
OUTER_V4 = ETHERNET_HEADER + 20 + 8 + 8
OUTER_V6 = ETHERNET_HEADER + 40 + 8 + 8


@dataclass(frozen=True, slots=True)
class Vxlan:
    """A VXLAN endpoint without flooding or learning (flannel's control shape).

    `interface` names the Interface whose frames are carried; `local` is the outer
    source address; `remotes` maps an inner destination MAC to the outer destination.
    """

    interface: str
    vni: int
    port: int
    local: bytes
    remotes: tuple[tuple[bytes, bytes], ...] = ()


class Outer:
    """Builds the outer headers, link header included (its MACs are filled in when it is sent).

    All that does not depend on the inner frame is summed once: 2 µs a header instead
    of 17 with the formats' own `pack`.
    """

    __slots__ = ("_local", "_ports", "_remote", "_sum", "_udp_sum", "_vxlan", "local", "port", "remote", "sport", "vni")

    def __init__(self, local: bytes, remote: bytes, sport: int, port: int, vni: int) -> None:
        self.local, self.remote, self.sport, self.port, self.vni = local, remote, sport, port, vni
        self._vxlan = vxlan.header(vni)
        addresses = int.from_bytes(local + remote, "big")
        self._sum = (0x4500 + 0x4011 + addresses) % 65535
        self._udp_sum = (addresses + 17 + sport + port + int.from_bytes(self._vxlan, "big")) % 65535

    def header(self, inner: bytes, identification: int) -> bytes:
        """Everything in front of `inner`."""
        length = len(inner) + 16
        carried = int.from_bytes(inner, "big")
        if len(inner) & 1:
            carried <<= 8
        checksum = -(self._udp_sum + 2 * length + carried) % 65535 or 0xFFFF
        if len(self.local) == 16:
            return HEADERS_V6.pack(
                bytes(12), IPV6, 0x60000000, length, 17, 64, self.local, self.remote,
                self.sport, self.port, length, checksum, self._vxlan,
            )  # fmt: skip
        total = length + 20
        return HEADERS_V4.pack(
            bytes(12), IPV4, 0x4500, total, identification, 0, 64, 17,
            -(self._sum + total + identification) % 65535, self.local, self.remote,
            self.sport, self.port, length, checksum, self._vxlan,
        )  # fmt: skip


class Remotes:
    """Which host is behind an inner MAC. Changes tell what was fused from look-ups."""

    def __init__(self, name: str, watch: Watch, rows: tuple[tuple[bytes, bytes], ...]) -> None:
        self.table: Table[bytes, bytes] = Table(name, watch, 1 << 20)
        self.replace(rows)

    def replace(self, rows: tuple[tuple[bytes, bytes], ...]) -> None:
        """Take these rows and no others."""
        wanted = dict(rows)
        for mac, _ in list(self.table.items(0)):
            if mac not in wanted:
                self.table.delete(mac)
        for mac, remote in rows:
            self.table.put(mac, remote, 0, static=True)


class VxlanElement(Element):
    """Inputs: `encapsulate`, `decapsulate`. Outputs: `outer` (to be routed as our own), `inner`."""

    def __init__(self, device: str, config: Vxlan, mtu: int, watch: Watch, identification: Counter) -> None:
        """`mtu` is that of the carried interface."""
        self.name = f"vxlan {config.interface}"
        self.device = device
        self.config = config
        self.mtu = mtu
        self.remotes = Remotes(f"{config.interface} remotes", watch, config.remotes)
        self.identification = identification

    def reconfigure(self, config: Vxlan, mtu: int) -> None:
        """Take new remotes; the tunnel itself keeps its name."""
        if (config.vni, config.port, config.local) != (self.config.vni, self.config.port, self.config.local):
            for mac, _ in list(self.remotes.table.items(0)):
                self.remotes.table.changed(mac, "tunnel changed")
        self.config = config
        self.mtu = mtu
        self.remotes.replace(config.remotes)

    def state(self) -> Iterable[Table[Any, Any] | Counter]:
        """The remotes."""
        return (self.remotes.table,)

    def handle(self, packet: Packet, port: str, now: int) -> Step:
        """Wrap a frame of the interface, or unwrap one that came for us."""
        return self._encapsulate(packet, now) if port == "encapsulate" else self._decapsulate(packet)

    def _encapsulate(self, packet: Packet, now: int) -> Step:
        mac = packet.destination
        remote = self.remotes.table.get(mac, now)
        if remote is None:
            return drop(
                self.name, Reason.VXLAN_NO_REMOTE, interface=self.config.interface, device=self.device, mac=mac
            )
        config = self.config
        sport = vxlan.source_port(_inner_hash(packet))
        outer = Outer(config.local, remote, sport, config.port, config.vni)
        arguments = {"mac": mac, "remote": remote, "vni": config.vni, "sport": sport, "port": config.port}
        marks = {"local": True, "interface": "", "egress": "", "bridged": False}
        what = f"outer {format_ip(config.local)} -> {format_ip(remote)} UDP {sport} -> {config.port} VNI {config.vni}"
        if packet.segments == 1:
            frame = packet.frame
            edits: tuple[Edit, ...] = ()
            if packet.offload is not None:
                frame, edits = complete(frame, packet.offload), (Complete(packet.offload, "checksum completed"),)
            return Step(
                self.name,
                Verdict.FORWARD,
                Reason.VXLAN_ENCAPSULATED,
                arguments,
                (Output("outer", marks),),
                edits=(*edits, Push(outer.header(frame, self.identification.peek()), what, outer)),
                effects=(Advance(self.identification),),
            )
        frames = list(split(packet.frame, packet.offload))
        outputs = [
            Output("outer", marks, outer.header(frame, self.identification.peek(index)) + frame)
            for index, frame in enumerate(frames)
        ]
        effects = (Advance(self.identification, len(frames)),)
        return Step(self.name, Verdict.FORWARD, Reason.VXLAN_ENCAPSULATED, arguments, outputs, effects=effects)

    def _decapsulate(self, packet: Packet) -> Step:
        outer = OUTER_V4 if packet.is_ipv4 else OUTER_V6
        frame = packet.frame
        start = ETHERNET_HEADER + packet.header_length
        if packet.header_length + ETHERNET_HEADER + 16 != outer:
            outer = start + 16
        source, destination = packet.ip_source, packet.ip_destination
        try:
            segment = frame[start : ETHERNET_HEADER + packet.ip_length]
            _, carried = udp.Udp.parse(segment)
            if not self._checksum_right(source, destination, segment):
                return drop(self.name, Reason.VXLAN_BAD_CHECKSUM)
            vni, offset = vxlan.parse(carried)
            if len(carried) - offset < ETHERNET_HEADER:
                raise Malformed("it carries no whole Ethernet header")
        except Malformed as problem:
            return drop(self.name, Reason.VXLAN_MALFORMED, problem=str(problem))
        if vni != self.config.vni:
            return drop(self.name, Reason.VXLAN_UNKNOWN_VNI, vni=vni, device=self.device)
        interface = self.config.interface
        return Step(
            self.name,
            Verdict.FORWARD,
            Reason.VXLAN_DECAPSULATED,
            {"vni": vni, "remote": source},
            (Output("inner", {"interface": interface, "local": False}),),
            edits=(Pop(outer, f"outer header, {outer} bytes"),),
        )

    @staticmethod
    def _checksum_right(source: bytes, destination: bytes, segment: bytes) -> bool:
        if segment[6:8] == bytes(2):
            return len(source) == 4
        return udp.checksum_valid(source, destination, segment)


def _inner_hash(packet: Packet) -> int:
    """A hash of the inner flow: TTL, TOS and identification do not change it (VX-03)."""
    if packet.is_ipv4:
        ports = b"" if packet.is_fragment else packet.ports[0].to_bytes(2, "big") + packet.ports[1].to_bytes(2, "big")
        return crc32(packet.ip_source + packet.ip_destination + bytes((packet.protocol,)) + ports)
    if packet.is_ipv6:
        ports = packet.ports[0].to_bytes(2, "big") + packet.ports[1].to_bytes(2, "big")
        return crc32(packet.ip_source + packet.ip_destination + bytes((packet.protocol,)) + ports)
    return crc32(packet.destination + packet.source + packet.ethertype)


__all__ = ["Outer", "Vxlan", "VxlanElement"]
