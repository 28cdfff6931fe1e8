"""Packet: a lazy, read-only view over one frame, and what travels with it.

Elements read a frame only through this class. Fields that belong to the flow key
are plain reads; every field outside the key marks the packet (`unkeyed`), and a
walk over a marked packet is never repeated from the flow cache: the structure
guards against a forgotten field, not the reviewer. In the same way whoever reads what
differs between the flows of two stations, or what was found for one flow, has `looked`
(`fabric.roads`).

The annotations are the one place where elements know of each other; the list is
closed and short. They are set by a Step's outputs and shown in a trace.

Rule of this file: nothing here changes bytes (that is `edit.apply`), and reading
never raises on any frame of 14 bytes or more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emunet.packet.offload import Offload

ETHERNET_HEADER = 14
IPV4 = b"\x08\x00"
IPV6 = b"\x86\xdd"
PLAIN_IPV4 = IPV4 + b"\x45"
"""How a frame goes on after its MACs where it is IPv4 without options: EtherType, version and header length."""
ARP = b"\x08\x06"
VLAN = b"\x81\x00"
VLAN_SERVICE = b"\x88\xa8"

ANNOTATIONS = (
    "entered",
    "interface",
    "egress",
    "next_hop",
    "bridged",
    "local",
    "connection",
    "fragments",
    "hops",
    "hop",
    "trace",
    "record",
    "identity",
)
NOTES = tuple(name for name in ANNOTATIONS if name != "connection")

AT_SERVICE = 1
"""An element has read which port the packet is for. Of an outer packet that is the tunnel's own, whatever is inside."""
AT_FLOW = 2
"""It has read more: the ports, what was found for the connection, or what is in no key."""


@dataclass(frozen=True, slots=True)
class Fragments:
    """How a datagram was cut that was put together: it leaves this device cut again.

    pieces          the length of each piece of its payload, in order
    largest         bytes of the largest fragment, IP header included; 0 once that was forgotten (`bridge`)
    head            bytes in front of the payload: the IP header; for IPv6 with what is not cut behind it
    pointer         for IPv6 the offset of the byte in `head` that names what the payload begins with
    identification  of the fragments
    """

    pieces: tuple[int, ...]
    largest: int
    head: int
    pointer: int
    identification: int


class Packet:
    """A view over `frame`, with annotations.

    entered    name of the device port by which it came into this device ("" if made here)
    interface  name of the layer-3 interface it was received on ("" if locally sent)
    egress     interface or bridge port chosen for it
    next_hop   address to resolve on `egress`, bytes
    bridged    True between a bridge's decision and its port: layer 3 left it alone
    local      True for packets that this host's own sockets or elements sent
    connection what connection tracking found for it in this device, or None
    fragments  how it was cut when it came in, for a datagram that was put together here, or None
    hops       devices passed so far (a loop is cut at a limit)
    hop        the Hop being recorded, or None
    trace      the Trace being recorded, or None
    record     the capture record of its entry, or None
    identity   the number under which captures know it and its copies, whatever is done to them; 0: nobody watches
    offload    checksum and segmentation work that was left to us, or None
    looked     how close the element that has it now has looked: 0, or AT_SERVICE, or AT_FLOW
    """

    __slots__ = ("_connection", "frame", "looked", "offload", "unkeyed", *NOTES)

    entered: str
    interface: str
    egress: str
    next_hop: bytes
    bridged: bool
    local: bool
    fragments: Fragments | None
    hops: int
    hop: Any
    trace: Any
    record: Any
    identity: int

    def __init__(self, frame: bytes, offload: Offload | None = None) -> None:
        self.frame = frame
        self.offload = offload
        self.unkeyed = ""
        self.looked = 0
        self.entered = ""
        self.interface = ""
        self.egress = ""
        self.next_hop = b""
        self.bridged = False
        self.local = False
        self._connection: Any = None
        self.fragments = None
        self.hops = 0
        self.hop = None
        self.trace = None
        self.record = None
        self.identity = 0

    def copy(self, frame: bytes | None = None) -> Packet:
        """Another packet with the same annotations, over `frame` if given."""
        other = Packet(self.frame if frame is None else frame, self.offload)
        other.unkeyed = self.unkeyed
        other.entered = self.entered
        other.interface = self.interface
        other.egress = self.egress
        other.next_hop = self.next_hop
        other.bridged = self.bridged
        other.local = self.local
        other._connection = self._connection
        other.fragments = self.fragments
        other.hops = self.hops
        other.hop = self.hop
        other.trace = self.trace
        other.record = self.record
        other.identity = self.identity
        return other

    def __len__(self) -> int:
        return len(self.frame)

    def __repr__(self) -> str:
        ends = f"{self.destination.hex(':')} <- {self.source.hex(':')}"
        return f"Packet({len(self.frame)} bytes, {ends}, {self.ethertype.hex()})"

    @property
    def segments(self) -> int:
        """How many wire frames this stands for: more than one only for a superframe."""
        return 1 if self.offload is None else self.offload.segments(len(self.frame))

    @property
    def connection(self) -> Any:
        """What connection tracking found for it in this device, or None."""
        if self._connection is not None:
            self.looked = AT_FLOW
        return self._connection

    @connection.setter
    def connection(self, found: Any) -> None:
        self._connection = found

    @property
    def is_tracked(self) -> bool:
        """Whether connection tracking found anything, whatever that is."""
        return self._connection is not None

    # Fields in the flow key.

    @property
    def destination(self) -> bytes:
        """Destination MAC."""
        return self.frame[0:6]

    @property
    def source(self) -> bytes:
        """Source MAC."""
        return self.frame[6:12]

    @property
    def ethertype(self) -> bytes:
        """The two bytes behind the addresses (a length in 802.3 frames)."""
        return self.frame[12:14]

    @property
    def is_ipv4(self) -> bool:
        """Whether the EtherType says IPv4."""
        return self.frame[12:14] == IPV4

    @property
    def is_ipv6(self) -> bool:
        """Whether the EtherType says IPv6."""
        return self.frame[12:14] == IPV6

    @property
    def ip_source(self) -> bytes:
        """Source address: 4 or 16 bytes, empty when not IP."""
        if self.frame[12:14] == IPV4:
            return self.frame[26:30]
        return self.frame[22:38] if self.frame[12:14] == IPV6 else b""

    @property
    def ip_destination(self) -> bytes:
        """Destination address: 4 or 16 bytes, empty when not IP."""
        if self.frame[12:14] == IPV4:
            return self.frame[30:34]
        return self.frame[38:54] if self.frame[12:14] == IPV6 else b""

    @property
    def ttl(self) -> int:
        """IPv4 time to live or IPv6 hop limit."""
        return self.frame[22] if self.frame[12:14] == IPV4 else self.frame[21]

    @property
    def tos(self) -> int:
        """IPv4 TOS or IPv6 traffic class, 8 bits."""
        if self.frame[12:14] == IPV4:
            return self.frame[15]
        return (self.frame[14] & 0x0F) << 4 | self.frame[15] >> 4

    @property
    def protocol(self) -> int:
        """IPv4 protocol or the first IPv6 next header."""
        return self.frame[23] if self.frame[12:14] == IPV4 else self.frame[20]

    @property
    def header_length(self) -> int:
        """IPv4 header length in bytes; 40 for IPv6."""
        return (self.frame[14] & 0x0F) * 4 if self.frame[12:14] == IPV4 else 40

    @property
    def is_fragment(self) -> bool:
        """IPv4: offset not zero, or more fragments to come."""
        return self.frame[12:14] == IPV4 and bool((self.frame[20] << 8 | self.frame[21]) & 0x3FFF)

    @property
    def fragment_offset(self) -> int:
        """IPv4 fragment offset in bytes; 0 for IPv6."""
        if self.frame[12:14] != IPV4:
            return 0
        return ((self.frame[20] << 8 | self.frame[21]) & 0x1FFF) * 8

    @property
    def dont_fragment(self) -> bool:
        """IPv4 DF; always True for IPv6, whose routers never fragment (RFC 8200 4.5)."""
        return self.frame[12:14] != IPV4 or bool(self.frame[20] & 0x40)

    @property
    def ports(self) -> tuple[int, int]:
        """Source and destination port when UDP or TCP without options or extension headers; (0, 0) otherwise."""
        self.looked = AT_FLOW
        return self._ports()

    @property
    def destination_port(self) -> int:
        """The port that it is for, as `ports` has it."""
        self.looked = self.looked or AT_SERVICE
        return self._ports()[1]

    @property
    def spreading(self) -> bytes:
        """What an outer source port is made of: addresses, protocol and ports of the inner packet, or its link header.

        Reading it is no look: what depends on it is in front of the frame only, in a Push that has a recipe.
        """
        if self.frame[12:14] not in (IPV4, IPV6):
            return self.destination + self.source + self.ethertype
        first, second = self._ports()
        ports = b"" if self.is_fragment else first.to_bytes(2, "big") + second.to_bytes(2, "big")
        return self.ip_source + self.ip_destination + bytes((self.protocol,)) + ports

    def _ports(self) -> tuple[int, int]:
        if self.protocol not in (6, 17) or self.fragment_offset:
            return (0, 0)
        at = ETHERNET_HEADER + self.header_length
        if len(self.frame) < at + 4:
            return (0, 0)
        return (self.frame[at] << 8 | self.frame[at + 1], self.frame[at + 2] << 8 | self.frame[at + 3])

    # Lengths: guarded by the flow cache (exact consistency and a maximum), not keyed.

    @property
    def ip_length(self) -> int:
        """What the IP header says of the whole packet's length, in bytes."""
        if self.frame[12:14] == IPV4:
            return self.frame[16] << 8 | self.frame[17]
        return (self.frame[18] << 8 | self.frame[19]) + 40

    @property
    def wire_length(self) -> int:
        """Length in bytes of the largest frame that goes on a wire for this.

        A superframe counts by its segments, a datagram that was put together by its fragments.
        """
        if self.fragments is not None:
            return ETHERNET_HEADER + self.fragments.largest
        return len(self.frame) if self.offload is None else self.offload.largest(len(self.frame))

    @property
    def wire_ip_length(self) -> int:
        """The largest IP packet that goes on a wire for this, as for `wire_length`."""
        if self.fragments is not None:
            return self.fragments.largest
        return self.ip_length if self.offload is None else self.offload.largest(len(self.frame)) - ETHERNET_HEADER

    # Fields outside the flow key: reading one keeps the walk out of the cache.

    def payload(self, why: str) -> bytes:
        """Everything behind the IP header. `why` says what for, in the cache's statistics."""
        self.unkeyed = why
        self.looked = AT_FLOW
        return self.frame[ETHERNET_HEADER + self.header_length : ETHERNET_HEADER + self.ip_length]

    def ip_packet(self, why: str) -> bytes:
        """The whole IP packet without link padding. `why` as in `payload`."""
        self.unkeyed = why
        self.looked = AT_FLOW
        return self.frame[ETHERNET_HEADER : ETHERNET_HEADER + self.ip_length]

    def whole(self, why: str) -> bytes:
        """The whole frame. `why` as in `payload`."""
        self.unkeyed = why
        self.looked = AT_FLOW
        return self.frame
