"""Worlds for tests: real topologies, compiled, with stations that remember what reached them.

A `Station` is an edge without a stack: it answers questions for its MAC, as any stack
does, and keeps every other frame with the time it came. So a test knows exactly which
frames exist, and whatever appears was made by the device under test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from emunet.cluster.assign import assign
from emunet.cluster.build import build
from emunet.cluster.compile import compile
from emunet.cluster.load import load_files, load_text
from emunet.elements.endpoint.neighbors import answer_neighbor_request
from emunet.fabric.config import HostEdge, PodEdge, WorldConfig
from emunet.fabric.world import World
from emunet.packet import icmp, icmpv6, ipv4, ipv6, tcp, udp
from emunet.packet.address import InterfaceAddress, parse_ip
from emunet.packet.offload import Offload, split
from emunet.packet.view import Packet
from emunet.plane.table import NEVER
from emunet.plane.trace import Trace

TOPOLOGIES = Path(__file__).parent.parent / "topologies"
SECOND = 1_000_000_000


class Station:
    """An edge that answers for its MAC and remembers everything else.

    `quiet`: it answers nothing and remembers the questions too.
    """

    keeps_time = False

    def __init__(self, edge: PodEdge | HostEdge, config: WorldConfig, entry: str | None = None) -> None:
        self.name = edge.name
        self.device = edge.device
        self.gateways: tuple[bytes, ...] = ()
        self.quiet = False
        if isinstance(edge, PodEdge):
            self.entry, self.mac, self.addresses, self.mtu = entry or edge.name, edge.mac, edge.addresses, edge.mtu
            self.gateways = edge.gateways
        else:
            host = next(host for host in config.hosts if host.name == edge.device)
            interface = next(row for row in host.interfaces if row.name == edge.interface)
            self.entry = f"local:{edge.interface}"
            self.mac, self.addresses, self.mtu = interface.mac, interface.addresses, interface.mtu
        self.got: list[tuple[int, bytes]] = []

    def deliver(self, frame: bytes, offload: Offload | None, now: int) -> Sequence[bytes]:
        """Remember wire frames; answer neighbour requests of a pod's link."""
        answers = []
        for piece in split(frame, offload):
            answer = None
            if not self.entry.startswith("local:") and not self.quiet:
                answer = answer_neighbor_request(piece, [row.address for row in self.addresses], self.mac)
            if answer is not None:
                answers.append(answer)
            else:
                self.got.append((now, piece))
        return answers

    def due(self) -> int:
        """Never."""
        return NEVER

    def wake(self, now: int) -> Sequence[bytes]:
        """Nothing."""
        return ()

    def address(self, family: int = 4) -> bytes:
        """Its address of a family."""
        return next(row.address for row in self.addresses if len(row.address) == family)


class Net:
    """A World of a shipped topology (or of a configuration made by hand) with a Station at every edge.

    `entries`: at which port of its device an edge is, where that has not the edge's name.
    """

    def __init__(
        self,
        topology: str = "two-hosts",
        *,
        text: str | None = None,
        config: WorldConfig | None = None,
        entries: Mapping[str, str] | None = None,
        flow_cache: bool = True,
        seed: int = 0,
    ) -> None:
        self.entries = entries or {}
        if config is None:
            self.desired = build(load_text(text) if text else load_files([TOPOLOGIES / f"{topology}.yaml"]))
            config = compile(self.desired, assign(self.desired, seed=seed), seed)
        self.config = config
        self.world = World(seed, flow_cache)
        self.world.configure(self.config)
        self.stations: dict[str, Station] = {}
        for edge in (*self.config.pods, *self.config.host_edges):
            station = Station(edge, self.config, self.entries.get(edge.name))
            self.stations[edge.name] = station
            self.world.attach(station)

    def __getitem__(self, name: str) -> Station:
        return self.stations[name]

    def mac(self, device: str, interface: str) -> bytes:
        """The MAC of a host's interface."""
        host = next(host for host in self.config.hosts if host.name == device)
        return next(row.mac for row in host.interfaces if row.name == interface)

    def gateway(self, station: Station) -> bytes:
        """The MAC of the interface that a station's wire leads to, or to which its bridge belongs."""
        host = next(host for host in self.config.hosts if host.name == station.device)
        own = station.entry.removeprefix("local:")
        bridge = next((bridge.interface for bridge in host.bridges if station.entry in bridge.ports), own)
        return self.mac(station.device, bridge)

    def frame(self, source: str, packet: bytes, to: bytes | None = None) -> bytes:
        """An IP packet in the frame that `source` sends to its gateway, or to the MAC `to`."""
        station = self[source]
        destination = to or self.gateway(station)
        ethertype = b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd"
        return destination + station.mac + ethertype + packet

    def send(self, source: str, frame: bytes, now: int | None = None) -> Trace:
        """Let a frame in, traced."""
        trace = Trace()
        self.world.receive(self[source], frame, self.world.now if now is None else now, trace=trace)
        return trace

    def from_wire(self, device: str, port: str, frame: bytes, offload: Offload | None = None) -> Trace:
        """A frame comes in by a device's port as if a wire had brought it."""
        packet = Packet(frame, offload)
        packet.trace = Trace()
        self.world.arrivals.append((self.world.devices[device], port, packet))
        self.world._run(self.world.now)
        assert isinstance(packet.trace, Trace)
        return packet.trace

    def balanced(self) -> None:
        """The law holds, for the World and for each device."""
        assert self.world.ledger.balance == 0, self.world.ledger.as_dict()
        for device in self.world.devices.values():
            assert device.ledger.balance == 0, (device.name, device.ledger.as_dict())


def echo(
    source: bytes, destination: bytes, *, ttl: int = 64, size: int = 56, sequence: int = 1, **fields: int | bool
) -> bytes:
    """An echo request of either family. Other fields go to the IP header."""
    if len(source) == 4:
        message = icmp.echo_request(7, sequence, bytes(size)).pack()
        return ipv4.IPv4(source, destination, ipv4.ICMP, ttl=ttl, **fields).pack(message)  # type: ignore[arg-type]
    body = icmpv6.echo_request(7, sequence, bytes(size)).pack(source, destination)
    return ipv6.IPv6(source, destination, ipv4.ICMPV6, hop_limit=ttl).pack(body)


def datagram(
    source: bytes, destination: bytes, sport: int, dport: int, data: bytes = b"", **fields: int | bool
) -> bytes:
    """A UDP datagram of either family. Other fields go to the IP header."""
    segment = udp.Udp(sport, dport).pack(source, destination, data)
    return _in_ip(source, destination, ipv4.UDP, segment, fields)


def segment(
    source: bytes, destination: bytes, sport: int, dport: int, flags: int, data: bytes = b"", **fields: int | bool
) -> bytes:
    """A TCP segment of either family. Other fields go to the IP header."""
    body = tcp.Tcp(sport, dport, 1000, 2000, flags, 65535).pack(source, destination, data)
    return _in_ip(source, destination, ipv4.TCP, body, fields)


def _in_ip(source: bytes, destination: bytes, protocol: int, body: bytes, fields: dict[str, int | bool]) -> bytes:
    if len(source) == 4:
        return ipv4.IPv4(source, destination, protocol, **fields).pack(body)  # type: ignore[arg-type]
    hop_limit = int(fields.get("ttl", 64))
    return ipv6.IPv6(source, destination, protocol, hop_limit=hop_limit).pack(body)


__all__ = ["SECOND", "InterfaceAddress", "Net", "Station", "datagram", "echo", "parse_ip", "segment"]
