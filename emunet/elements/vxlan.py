"""VXLAN: carry an interface's frames to another host in UDP (RFC 7348).

flannel's way, the default: no flooding, no learning, no ARP on the overlay. Which host is
behind an inner destination MAC is told by the configuration (fidelity FL-03); a MAC that
it does not name is a drop with a reason (FL-05, VX-09). With `flood` what has no known
remote goes to each of them, a copy each, and with `learning` a remote is noted from what
it sends, for 300 s (VX-10).

Outer header: own identification, TTL 64, TOS 0 but for the congestion bits (RFC 6040),
DF clear whatever the inner says (VX-02); UDP source port by hash of the inner flow
(VX-03), checksum filled in as Linux does by default (VX-04). Any flag or reserved bit
beside I, or another VNI, is refused (VX-05), and so is what bears our own inner MAC.

A superframe is cut before it is wrapped: no device behind us could cut it any more.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from struct import Struct
from typing import Any
from zlib import crc32

from emunet.packet import udp, vxlan
from emunet.packet.address import ZERO_MAC, format_ip
from emunet.packet.edit import Adjust, Complete, Edit, Pop, Push, Trim
from emunet.packet.edit import Put as PutBytes
from emunet.packet.malformed import Malformed
from emunet.packet.offload import complete, split
from emunet.packet.view import AT_FLOW, AT_SERVICE, ETHERNET_HEADER, IPV4, IPV6, Packet
from emunet.plane.element import Element
from emunet.plane.reason import Reason
from emunet.plane.step import Effect, Output, Step, Verdict, drop
from emunet.plane.table import Advance, Counter, Put, Refresh, Table, Watch

HEADERS_V4 = Struct(">12s2sHHHHBBH4s4sHHHH8s")
HEADERS_V6 = Struct(">12s2sIHBB16s16sHHHH8s")
CAPABLE_1, CAPABLE, CONGESTED = 1, 2, 3
INNER_HEADERS = {IPV4: 20, IPV6: 40}
MARKS = {"local": True, "interface": "", "egress": "", "bridged": False}


@dataclass(frozen=True, slots=True)
class Vxlan:
    """A VXLAN endpoint; without `flood` and `learning` in flannel's control shape.

    `interface` names the Interface whose frames are carried; `local` is the outer
    source address; `remotes` maps an inner destination MAC to the outer destination;
    `flood` are the outer destinations of frames that no remote is known for.
    """

    interface: str
    vni: int
    port: int
    local: bytes
    remotes: tuple[tuple[bytes, bytes], ...] = ()
    flood: tuple[bytes, ...] = ()
    learning: bool = False
    ageing_ns: int = 300 * 1_000_000_000


class Outer:
    """Builds the outer headers, link header included (its MACs are filled in when it is sent).

    All that does not depend on the inner frame is summed once: 2 µs a header instead
    of 17 with the formats' own `pack`.
    """

    __slots__ = ("_sum", "_udp_sum", "_vxlan", "local", "port", "remote", "sport", "vni")

    def __init__(self, local: bytes, remote: bytes, sport: int, port: int, vni: int) -> None:
        self.local, self.remote, self.sport, self.port, self.vni = local, remote, sport, port, vni
        self._vxlan = vxlan.header(vni)
        addresses = int.from_bytes(local + remote, "big")
        self._sum = (0x4500 + 0x4011 + addresses) % 65535
        self._udp_sum = (addresses + 17 + sport + port + int.from_bytes(self._vxlan, "big")) % 65535

    def header(self, inner: bytes, identification: int) -> bytes:
        """Everything in front of `inner`."""
        congestion = _congestion(inner)
        if congestion == CONGESTED:
            congestion = CAPABLE  # RFC 6040 4.1: the outer says only what happens on its own way
        length = len(inner) + 16
        carried = int.from_bytes(inner, "big")
        if len(inner) & 1:
            carried <<= 8
        checksum = -(self._udp_sum + 2 * length + carried) % 65535 or 0xFFFF
        if len(self.local) == 16:
            return HEADERS_V6.pack(
                bytes(12), IPV6, 0x60000000 | congestion << 20, length, 17, 64, self.local, self.remote,
                self.sport, self.port, length, checksum, self._vxlan,
            )  # fmt: skip
        total = length + 20
        return HEADERS_V4.pack(
            bytes(12), IPV4, 0x4500 | congestion, total, identification, 0, 64, 17,
            -(self._sum + congestion + total + identification) % 65535, self.local, self.remote,
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

    def __init__(
        self, device: str, config: Vxlan, mtu: int, watch: Watch, identification: Counter, mac: bytes = b""
    ) -> None:
        """`mtu` and `mac` are those of the carried interface."""
        self.name = f"vxlan {config.interface}"
        self.device = device
        self.config = config
        self.mtu = mtu
        self.mac = mac
        self.remotes = Remotes(f"{config.interface} remotes", watch, config.remotes)
        self.learned: Table[bytes, bytes] = Table(
            f"{config.interface} learned", watch, 1 << 16, config.ageing_ns, group=lambda mac, remote: remote
        )
        self.identification = identification

    def reconfigure(self, config: Vxlan, mtu: int) -> None:
        """Take new remotes; the tunnel itself keeps its name, and what it learned while it still learns."""
        if not config.learning:
            self.learned.delete_where(lambda mac, remote: True)
        self.learned.lifetime = config.ageing_ns
        if (config.vni, config.port, config.local) != (self.config.vni, self.config.port, self.config.local):
            for mac, _ in list(self.remotes.table.items(0)):
                self.remotes.table.changed(mac, "tunnel changed")
        self.config = config
        self.mtu = mtu
        self.remotes.replace(config.remotes)

    def state(self) -> Iterable[Table[Any, Any] | Counter]:
        """The remotes, given and learned."""
        return (self.remotes.table, self.learned)

    def handle(self, packet: Packet, port: str, now: int) -> Step:
        """Wrap a frame of the interface, or unwrap one that came for us."""
        return self._encapsulate(packet, now) if port == "encapsulate" else self._decapsulate(packet, now)

    def _encapsulate(self, packet: Packet, now: int) -> Step:
        config = self.config
        mac = packet.destination
        remote = self.remotes.table.get(mac, now)
        if remote is None and config.learning:
            remote = self.learned.get(mac, now)
        if remote is None and config.flood:
            return self._flood(packet)
        if remote is None:
            return drop(self.name, Reason.VXLAN_NO_REMOTE, interface=config.interface, device=self.device, mac=mac)
        sport = vxlan.source_port(crc32(packet.spreading))
        outer = Outer(config.local, remote, sport, config.port, config.vni)
        arguments = {"mac": mac, "remote": remote, "vni": config.vni, "sport": sport, "port": config.port}
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
                (Output("outer", MARKS),),
                edits=(*edits, Push(outer.header(frame, self.identification.peek()), what, outer)),
                effects=(Advance(self.identification),),
            )
        frames = list(split(packet.frame, packet.offload))
        outputs = [
            Output("outer", MARKS, outer.header(frame, self.identification.peek(index)) + frame)
            for index, frame in enumerate(frames)
        ]
        effects = (Advance(self.identification, len(frames)),)
        return Step(self.name, Verdict.FORWARD, Reason.VXLAN_ENCAPSULATED, arguments, outputs, effects=effects)

    def _flood(self, packet: Packet) -> Step:
        """A copy to each remote (head-end replication)."""
        config = self.config
        sport = vxlan.source_port(crc32(packet.spreading))
        frames = list(split(packet.frame, packet.offload))
        outputs: list[Output] = []
        for remote in config.flood:
            outer = Outer(config.local, remote, sport, config.port, config.vni)
            for frame in frames:
                header = outer.header(frame, self.identification.peek(len(outputs)))
                outputs.append(Output("outer", MARKS, header + frame))
        return Step(
            self.name,
            Verdict.FORWARD,
            Reason.VXLAN_FLOODED,
            {"mac": packet.destination, "remotes": config.flood, "vni": config.vni},
            outputs,
            effects=(Advance(self.identification, len(outputs)),),
        )

    def _decapsulate(self, packet: Packet, now: int) -> Step:
        frame = packet.frame
        packet.looked = AT_SERVICE  # into all of it; but what was wrapped on the same run is known
        edits: list[Edit] = []
        if packet.offload is not None:
            # A kernel that sends by VXLAN itself leaves the outer checksum open, or the inner one, on which the
            # outer one then counts (Documentation/networking/checksum-offloads: local checksum offload).
            packet.unkeyed = "a checksum inside or around the tunnel was left open"
            packet.looked = AT_FLOW
            frame = complete(frame, packet.offload)
            edits.append(Complete(packet.offload, "checksum completed"))
        start = ETHERNET_HEADER + packet.header_length
        outer = start + 16
        source, destination = packet.ip_source, packet.ip_destination
        try:
            segment = frame[start : ETHERNET_HEADER + packet.ip_length]
            _, carried = udp.Udp.parse(segment)
            if not self._checksum_right(source, destination, segment):
                return drop(self.name, Reason.VXLAN_BAD_CHECKSUM)
            vni, offset = vxlan.parse(carried)
            inner = carried[offset:]
            if len(inner) < ETHERNET_HEADER:
                raise Malformed("it carries no whole Ethernet header")
            if len(inner) - ETHERNET_HEADER < INNER_HEADERS.get(inner[12:14], 0):
                raise Malformed("it carries an IP header that is cut short")
        except Malformed as problem:
            return drop(self.name, Reason.VXLAN_MALFORMED, problem=str(problem))
        if vni != self.config.vni:
            return drop(self.name, Reason.VXLAN_UNKNOWN_VNI, vni=vni, device=self.device)
        effects = self._learn(inner[6:12], source, now)
        if isinstance(effects, Step):
            return effects
        interface = self.config.interface
        edits.append(Pop(outer, f"outer header, {outer} bytes"))
        if len(frame) > outer + len(inner):
            edits.append(Trim(len(inner), f"{len(frame) - outer - len(inner)} bytes behind the datagram cut"))
        marked = _marked(inner, packet.tos & 3)
        if marked is None:
            return drop(self.name, Reason.VXLAN_CONGESTED, effects)
        return Step(
            self.name,
            Verdict.FORWARD,
            Reason.VXLAN_DECAPSULATED,
            {"vni": vni, "remote": source},
            (Output("inner", {"interface": interface, "local": False}),),
            edits=(*edits, *marked),
            effects=effects,
        )

    def _learn(self, mac: bytes, remote: bytes, now: int) -> tuple[Effect, ...] | Step:
        """Who sent an inner frame, as effects; or its end, where nobody can have sent it."""
        if mac[0] & 1 or mac == ZERO_MAC:
            return drop(self.name, Reason.GROUP_SOURCE, mac=mac)
        if mac == self.mac:
            return drop(self.name, Reason.VXLAN_ECHO, mac=mac, interface=self.config.interface)
        if not self.config.learning:
            return ()
        given = self.remotes.table.get(mac, now)
        if given is not None:
            if given != remote:
                return drop(self.name, Reason.VXLAN_MOVED, mac=mac, known=given, remote=remote)
            return ()
        if self.learned.get(mac, now) == remote:
            return (Refresh(self.learned, mac),)
        return (Put(self.learned, mac, remote),)

    @staticmethod
    def _checksum_right(source: bytes, destination: bytes, segment: bytes) -> bool:
        if segment[6:8] == bytes(2):
            return len(source) == 4
        return udp.checksum_valid(source, destination, segment)


def _congestion(frame: bytes) -> int:
    """The two congestion bits of an IP packet in a frame; 0 for anything else (RFC 3168 5)."""
    if frame[12:14] == IPV4 and len(frame) > 15:
        return frame[15] & 3
    return frame[15] >> 4 & 3 if frame[12:14] == IPV6 and len(frame) > 15 else 0


def _marked(inner: bytes, outer: int) -> tuple[Edit, ...] | None:
    """What the outer header's congestion bits change in the inner frame (RFC 6040 4.2); None: it must be dropped."""
    is_ip = inner[12:14] in (IPV4, IPV6)
    own = _congestion(inner)
    if not is_ip or len(inner) < ETHERNET_HEADER + 20:
        return ()
    if own == 0:
        return None if outer == CONGESTED else ()
    becomes = CONGESTED if outer == CONGESTED else CAPABLE_1 if outer == CAPABLE_1 and own == CAPABLE else own
    if becomes == own:
        return ()
    words = f"congestion bits {own} -> {becomes}"
    if inner[12:14] == IPV6:
        return (PutBytes(15, bytes((inner[15] & 0xCF | becomes << 4,)), words),)
    new = inner[14:15] + bytes((inner[15] & 0xFC | becomes,))
    return (PutBytes(15, new[1:], words), Adjust(24, inner[14:16], new, "header checksum"))


__all__ = ["Outer", "Vxlan", "VxlanElement"]
