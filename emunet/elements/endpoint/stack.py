"""The endpoint: a pod's own network stack, in memory, for wires that lead to no kernel.

Frames in, frames out, time as an argument: `receive` takes a frame, `wake` runs
timers, every other call that may send returns what it sends. It answers ARP and
neighbour solicitations, pings, closed ports and unknown protocols as a Linux pod
does (fidelity 2.5 to 2.9), reassembles, follows path MTU news, and has UDP and
TCP sockets (`udp.py`, `tcp.py`), of which `http.py` makes a client and a server.

Rules of this file: no bytes from outside raise or loop; every table is bounded;
nothing depends on a clock or on chance, only on `now` and the seed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from emunet.elements.endpoint import echo
from emunet.elements.endpoint.addresses import Addresses
from emunet.elements.endpoint.arrival import Arrival
from emunet.elements.endpoint.echo import Ping
from emunet.elements.endpoint.neighbors import NeighborCache, NeighborState
from emunet.elements.endpoint.network import Failure, Timed, stable_hash
from emunet.elements.endpoint.reassembly import Reassembler, UnevenFragment
from emunet.elements.endpoint.reports import ErrorBudget, Paths, Quoted, failure_of_icmp, failure_of_icmpv6
from emunet.elements.endpoint.tcp import Connection, Handler, Listener, reset_for
from emunet.elements.endpoint.timers import Timers
from emunet.elements.endpoint.udp import Datagram, UdpSocket
from emunet.packet import icmp, icmpv6, ipv4, ipv6, tcp, udp
from emunet.packet.address import (
    ALL_NODES_V6,
    BROADCAST_MAC,
    InterfaceAddress,
    is_group_mac,
    is_link_local,
    is_loopback,
    is_multicast,
    is_unspecified,
    multicast_mac,
)
from emunet.packet.arp import request as arp_request
from emunet.packet.ethernet import ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet, build
from emunet.packet.ipv4 import ICMP, ICMPV6, IGMP, TCP, UDP, IPv4
from emunet.packet.ipv6 import FRAGMENT, NO_NEXT_HEADER, ROUTING, IPv6
from emunet.packet.malformed import Malformed

FIRST_PORT, LAST_PORT = 32768, 60999
MAXIMUM_CONNECTIONS = 8192
MAXIMUM_PINGS = 4096
_DISCOVERY = (icmpv6.ROUTER_ADVERTISEMENT, icmpv6.NEIGHBOR_SOLICITATION, icmpv6.NEIGHBOR_ADVERTISEMENT)
_PAYLOAD_LENGTH = (4).to_bytes(4, "big")
_LOOPBACK_LIMIT = 1024
_LOOPBACK_TURN = 4096


@dataclass(frozen=True, slots=True)
class _Arrived:
    """Where a packet came from and how: what decides about answers to it."""

    packet: bytes
    src: bytes
    dst: bytes
    ttl: int
    tos: int
    group: bool
    """True if it came in a group frame or to a group address: never answered with an error."""


class Endpoint:
    """One interface with its addresses, and a host's behaviour behind it.

    `gateways`: the default route's next hop, at most one used per family.
    `seed`: all that must be unpredictable to others but the same in every run
    (ports, sequence numbers, identifications) is a hash of it and of `name`.

    `noarp`: a host's own stack, all its interfaces in one. It asks for no MAC and takes frames for any: next
    hops are the device's business.
    """

    def __init__(
        self,
        name: str,
        mac: bytes,
        addresses: tuple[InterfaceAddress, ...],
        gateways: tuple[bytes, ...] = (),
        mtu: int = 1500,
        seed: int = 0,
        noarp: bool = False,
    ) -> None:
        self.name, self.mac, self.mtu = name, mac, mtu
        self._addresses = Addresses(mac, addresses, gateways, of_host=noarp)
        self.ignored: dict[str, int] = {}
        """How many frames and packets were not for us or wrong, by a word for why."""
        self._seed = stable_hash(seed, name)
        self._neighbors = NeighborCache(mac, self._addresses)
        self._arrival: Arrival | None = None
        self._reassembler = Reassembler()
        self._connections: dict[tuple[bytes, int, bytes, int], Connection] = {}
        self._listeners: dict[tuple[int, bytes | None], Listener] = {}
        self._udp: dict[tuple[int, bytes | None], UdpSocket] = {}
        self._pings: dict[tuple[int, int], Ping] = {}
        self._paths = Paths()
        self._budget = ErrorBudget()
        self._timers = Timers()
        self._identification = stable_hash(self._seed, "identification")
        self._opened = 0
        self._pinged = 0
        self._loopback: deque[bytes] = deque()
        self._busy = False
        self._now = 0

    # --- driven by the wire

    def receive(self, frame: bytes, now: int) -> list[bytes]:
        """Take a frame; the frames to send in answer. Any bytes are taken; what is wrong is counted in `ignored`."""
        self._now, self._busy = now, True
        try:
            frames = self._receive_frame(frame, now)
        except Malformed:
            frames = self._ignore("malformed")
        finally:
            self._busy = False
        return self._end_turn(frames, now)

    def due(self) -> int | None:
        """The time of the next timer; None if nothing will ever happen by itself."""
        return self._now if self._loopback else self._timers.due()

    def wake(self, now: int) -> list[bytes]:
        """Run every timer due by `now`; the frames to send."""
        self._now, self._busy = now, True
        frames: list[bytes] = []
        try:
            while (owner := self._timers.take(now)) is not None:
                frames += owner.wake(now)
                self.schedule(owner)
                frames += self._collect(now)
        finally:
            self._busy = False
        return self._end_turn(frames, now)

    # --- asked by programs

    def send_ip(self, packet: bytes, now: int) -> list[bytes]:
        """Send any IP packet: route, resolve, cut if need be; the frames. Malformed if its header is none.

        What cannot be sent is told to the socket that it belongs to, if there is one.
        """
        self._now = now
        return self.settle(self._route(packet, now), now)

    def ping(
        self, destination: bytes, now: int, *, sequence: int = 1, size: int = 56, ttl: int = 64,
        identifier: int | None = None, source: bytes | None = None, dont_fragment: bool | None = None,
    ) -> tuple[Ping, list[bytes]]:  # fmt: skip
        """Send an echo request with `size` bytes of data; its record, which fills as answers come, and the frames.

        `dont_fragment` True: never cut it, as `ping -M do`. ValueError for a size that no packet holds.
        """
        if identifier is None:
            self._pinged += 1
            identifier = (stable_hash(self._seed, "ping") + self._pinged) & 0xFFFF
        sequence &= 0xFFFF
        record = Ping(destination, identifier, sequence, now)
        source = source or self.source_for(destination)
        if source is None:
            record.fail(Failure.NETWORK_UNREACHABLE, None)
            return record, []
        if len(self._pings) >= MAXIMUM_PINGS:
            del self._pings[next(iter(self._pings))]
        self._pings.pop((identifier, sequence), None)
        self._pings[identifier, sequence] = record
        message = echo.request(destination, source, identifier, sequence, size)
        protocol = ICMP if len(destination) == 4 else ICMPV6
        frames = self.transmit(source, destination, protocol, message, now, ttl=ttl, dont_fragment=dont_fragment)
        return record, self.settle(frames, now)

    def udp_bind(
        self,
        port: int = 0,
        address: bytes | None = None,
        handler: Callable[[UdpSocket, Datagram], list[bytes]] | None = None,
    ) -> UdpSocket:
        """A UDP socket on a port (0: a free one). OSError if the port is taken or the address is not ours."""
        self._check_address(address)
        self._udp = {key: socket for key, socket in self._udp.items() if not socket.closed}
        port = port or self._free_port(b"udp", {bound for bound, _ in self._udp})
        if any(bound == port and (at == address or None in (at, address)) for bound, at in self._udp):
            raise OSError(f"UDP port {port} is in use")
        socket = self._udp[port, address] = UdpSocket(self, port, address, handler)
        return socket

    def listen(
        self, port: int, handler: Handler | None = None, *, address: bytes | None = None, backlog: int = 128
    ) -> Listener:
        """Listen on a TCP port. With a handler it is called for each connection; without one use `accept`.

        OSError if the port is taken or the address is not ours.
        """
        self._check_address(address)
        self._listeners = {key: listener for key, listener in self._listeners.items() if not listener.closed}
        if any(bound == port and (at == address or None in (at, address)) for bound, at in self._listeners):
            raise OSError(f"TCP port {port} is in use")
        listener = self._listeners[port, address] = Listener(port, address, handler, backlog)
        return listener

    def connect(
        self, destination: bytes, port: int, now: int, *, source: bytes | None = None, source_port: int = 0,
        handler: Handler | None = None,
    ) -> tuple[Connection, list[bytes]]:  # fmt: skip
        """Open a TCP connection; it, and the frames. A destination without a route gives one that has failed.

        OSError if all ports or `source_port` are taken, or there are too many connections.
        """
        self._now = now
        if len(self._connections) >= MAXIMUM_CONNECTIONS:
            raise OSError(f"{self.name} has {MAXIMUM_CONNECTIONS} connections, which is its limit")
        local = source or self.source_for(destination)
        if local is None:
            failed = Connection(self, bytes(len(destination)), source_port, destination, port, 0, handler)
            failed.error = Failure.NETWORK_UNREACHABLE
            return failed, []
        taken = {key[1] for key in self._connections if key[0] == local and key[2:] == (destination, port)}
        taken |= {listening for listening, _ in self._listeners}
        if source_port and (local, source_port, destination, port) in self._connections:
            raise OSError(f"there is a connection from port {source_port} already")
        source_port = source_port or self._free_port(destination + port.to_bytes(2, "big"), taken)
        connection = self._connection(local, source_port, destination, port, handler, None)
        return connection, self.settle(connection.open(now), now)

    def resolve(self, address: bytes, now: int) -> list[bytes]:
        """Begin to resolve an on-link address, unless it is known; the request. `mac_of` tells the result."""
        source = self.source_for(address)
        return [] if source is None else self._neighbor(self._neighbors.resolve(address, source, now))

    def mac_of(self, address: bytes) -> bytes | None:
        """The MAC known for a neighbour; None if it is not known."""
        return self._neighbors.mac_of(address)

    def neighbors(self, now: int) -> list[tuple[bytes, bytes | None, NeighborState]]:
        """(address, MAC, state) of each neighbour entry, as `ip neighbour` would list them."""
        return self._neighbors.entries(now)

    def start(self, now: int) -> list[bytes]:
        """Come up on the link as an IPv6 stack does by itself, instead of using what was configured at once."""
        self._arrival = Arrival(self.mac, self._addresses)
        frames = self._arrival.begin(now)
        self.schedule(self._arrival)
        return frames

    def announce(self) -> list[bytes]:
        """Announce our addresses (ARP-10): a gratuitous ARP request each, an unsolicited advertisement each."""
        frames = []
        for own in (address.address for address in self.addresses):
            if len(own) == 4:
                frames.append(arp_request(self.mac, own, own))
            else:
                news = icmpv6.NeighborAdvertisement(own, self.mac, override=True).pack(own, ALL_NODES_V6)
                packet = IPv6(own, ALL_NODES_V6, ICMPV6, 255).pack(news)
                frames.append(build(multicast_mac(ALL_NODES_V6), self.mac, ETHERTYPE_IPV6, packet))
        return frames

    @property
    def addresses(self) -> tuple[InterfaceAddress, ...]:
        """The addresses in use."""
        return self._addresses.all

    @property
    def connections(self) -> tuple[Connection, ...]:
        """All that are not closed, those in TIME-WAIT included."""
        return tuple(self._connections.values())

    # --- what sockets ask (`network.Network`, `tcp.Stack`)

    def transmit(
        self, src: bytes, dst: bytes, protocol: int, payload: bytes, now: int, *, ttl: int = 64, tos: int = 0,
        dont_fragment: bool | None = None,
    ) -> list[bytes]:  # fmt: skip
        """Put a payload in an IP packet and send it; the frames. ValueError if no packet holds it."""
        if len(src) == 16:
            return self._route(IPv6(src, dst, protocol, ttl, tos).pack(payload), now, dont_fragment is True)
        path = self._paths.get(dst, now)
        if dont_fragment is None:
            fits = ipv4.HEADER_LENGTH + len(payload) <= self.path_mtu(dst, now)
            dont_fragment = fits and not (path is not None and path.locked)
        header = IPv4(src, dst, protocol, ttl, tos, self._next_identification() & 0xFFFF, dont_fragment)
        return self._route(header.pack(payload), now)

    def settle(self, frames: list[bytes], now: int) -> list[bytes]:
        """Deliver what the endpoint sent to itself, unless a call further out will; all frames."""
        return frames if self._busy else self._end_turn(frames, now)

    def schedule(self, owner: Timed) -> None:
        """`owner.due` may have become earlier."""
        self._timers.schedule(owner)

    def source_for(self, destination: bytes) -> bytes | None:
        """The own address to send from; None if there is no route."""
        return self._addresses.source_for(destination)

    def path_mtu(self, destination: bytes, now: int) -> int:
        """The largest packet that is known to reach the destination, in bytes."""
        path = self._paths.get(destination, now)
        return self.mtu if path is None else min(path.mtu, self.mtu)

    def confirm(self, destination: bytes, now: int) -> None:
        """The destination has answered: the next hop towards it works."""
        hop = self._addresses.next_hop(destination)
        if hop is not None:
            self._neighbors.confirm(hop, now)

    def forget(self, connection: Connection) -> None:
        """Take a closed connection out of the table."""
        key = (connection.local, connection.local_port, connection.remote, connection.remote_port)
        if self._connections.get(key) is connection:
            del self._connections[key]

    # --- turns, tables, numbers

    def _end_turn(self, frames: list[bytes], now: int) -> list[bytes]:
        """Deliver what is queued for ourselves: a turn's share, in case two sockets here answer each other for ever."""
        self._busy = True
        try:
            frames = frames + self._collect(now)
            turns = 0
            while self._loopback and turns < _LOOPBACK_TURN:
                turns += 1
                try:
                    frames += self._receive_packet(self._loopback.popleft(), False, now)
                except Malformed:
                    self._ignore("malformed")
                frames += self._collect(now)
        finally:
            self._busy = False
        return frames

    def _collect(self, now: int) -> list[bytes]:
        """What neighbours and reassembly gave up: tell local senders (ARP-04), remote ones of fragments (FR-05)."""
        frames: list[bytes] = []
        while self._neighbors.failed:
            packet = self._neighbors.failed.pop(0)
            frames += self._report(packet, Failure.HOST_UNREACHABLE, None, now)
        while self._reassembler.expired:
            first = self._reassembler.expired.pop(0)
            v4 = first[0] >> 4 == 4
            src, dst = (first[12:16], first[16:20]) if v4 else (first[8:24], first[24:40])
            group = not self._addresses.is_local(dst)
            arrived = _Arrived(first, src, dst, 0, first[1] if v4 else 0, group)
            message = icmp.REASSEMBLY_EXCEEDED if v4 else icmpv6.REASSEMBLY_EXCEEDED
            frames += self._error(arrived, icmp.TIME_EXCEEDED if v4 else icmpv6.TIME_EXCEEDED, message, now)
        self.schedule(self._neighbors)
        self.schedule(self._reassembler)
        return frames

    def _ignore(self, why: str) -> list[bytes]:
        self.ignored[why] = self.ignored.get(why, 0) + 1
        return []

    def _neighbor(self, frames: list[bytes]) -> list[bytes]:
        self.schedule(self._neighbors)
        return frames

    def _next_identification(self) -> int:
        self._identification += 1
        return self._identification & 0xFFFFFFFF

    def _free_port(self, purpose: bytes, taken: set[int]) -> int:
        """A port of the dynamic range: the first free one from a place that the seed gives."""
        count = LAST_PORT - FIRST_PORT + 1
        start = stable_hash(self._seed, "port", purpose) + self._opened
        for step in range(count):
            port = FIRST_PORT + (start + step) % count
            if port not in taken:
                return port
        raise OSError("every port of the dynamic range is in use")

    def _check_address(self, address: bytes | None) -> None:
        if address is not None and address not in self._addresses.own and not is_loopback(address):
            raise OSError("cannot bind to an address that is not ours")

    def _connection(
        self, local: bytes, local_port: int, remote: bytes, remote_port: int, handler: Handler | None,
        listener: Listener | None,
    ) -> Connection:  # fmt: skip
        """A connection in the table. Its first sequence number: a hash of who talks, and a count (after RFC 6528)."""
        self._opened += 1
        base = stable_hash(self._seed, "sequence", local, local_port, remote, remote_port)
        sequence = (base + (self._opened << 22)) & 0xFFFFFFFF
        connection = Connection(self, local, local_port, remote, remote_port, sequence, handler, listener)
        self._connections[local, local_port, remote, remote_port] = connection
        return connection

    # --- down: from a packet to frames

    def _route(self, packet: bytes, now: int, whole: bool = False) -> list[bytes]:
        """Cut if need be, choose the next hop, resolve. `whole`: an IPv6 packet must not be cut."""
        if packet[:1] and packet[0] >> 4 == 6:
            ip, payload = IPv6.parse(packet)
            src, dst, length, whole = ip.src, ip.dst, 40 + len(payload), whole or ip.next_header == FRAGMENT
        else:
            header, payload = IPv4.parse(packet)
            src, dst, length, whole = header.src, header.dst, header.header_length + len(payload), header.dont_fragment
        packet = packet[:length]
        if dst in self._addresses.own or is_loopback(dst):
            if len(self._loopback) < _LOOPBACK_LIMIT:
                self._loopback.append(packet)
            else:
                self._ignore("loopback-full")
            return []
        hop = self._addresses.next_hop(dst)
        if hop is None:
            return self._report(packet, Failure.NETWORK_UNREACHABLE, None, now)
        mtu = self.path_mtu(dst, now)
        pieces = [packet]
        if length > mtu:
            if whole:
                return self._report(packet, Failure.MESSAGE_TOO_LONG, None, now)
            if len(dst) == 4:
                pieces = ipv4.fragment(packet, mtu)
            else:
                pieces = ipv6.fragment(packet, mtu, self._next_identification())
        frames: list[bytes] = []
        for piece in pieces:
            if self._addresses.of_host:
                frames.append(build(self.mac, self.mac, ETHERTYPE_IPV4 if len(dst) == 4 else ETHERTYPE_IPV6, piece))
            elif self._addresses.is_group(hop):
                mac = multicast_mac(hop) if is_multicast(hop) else BROADCAST_MAC
                frames.append(build(mac, self.mac, ETHERTYPE_IPV4 if len(dst) == 4 else ETHERTYPE_IPV6, piece))
            else:
                frames += self._neighbors.send(hop, piece, src, now)
        return self._neighbor(frames)

    # --- up: from a frame to sockets

    def _receive_frame(self, frame: bytes, now: int) -> list[bytes]:
        header, payload = Ethernet.parse(frame)
        if not self._addresses.takes_frame(header.dst):
            return self._ignore("not-our-mac")
        if header.ethertype == ETHERTYPE_ARP:
            return self._neighbor(self._neighbors.receive_arp(frame, now))
        if header.ethertype not in (ETHERTYPE_IPV4, ETHERTYPE_IPV6) or not payload:
            return self._ignore("unknown-ethertype")
        if payload[0] >> 4 != (4 if header.ethertype == ETHERTYPE_IPV4 else 6):
            return self._ignore("malformed")
        if header.ethertype == ETHERTYPE_IPV6 and len(payload) > 40 and payload[6] == ICMPV6:
            if self._arrival is not None and payload[40] in _DISCOVERY:
                heard = self._arrival.hear(frame, now)
                self.schedule(self._arrival)
                self.mtu = min(self.mtu, self._arrival.mtu or self.mtu)
                if heard is not None:
                    return heard
            if icmpv6.NEIGHBOR_SOLICITATION <= payload[40] <= icmpv6.NEIGHBOR_ADVERTISEMENT:
                return self._neighbor(self._neighbors.receive_discovery(frame, now))
        if payload[0] >> 4 == 4:
            ends = payload[12:16], payload[16:20]
        else:
            ends = payload[8:24], payload[24:40]
        if any(is_loopback(end) for end in ends if end) or (
            # Its own device tells a host's stack so what became of a packet: from itself to itself (ARP-04).
            ends[0] in self._addresses.own and not (self._addresses.of_host and ends[0] == ends[1])
        ):
            return self._ignore("martian")
        return self._receive_packet(payload, is_group_mac(header.dst), now)

    def _receive_packet(self, packet: bytes, group: bool, now: int) -> list[bytes]:
        """A packet from the wire, or (never in a group frame) from ourselves."""
        return (self._receive_v4 if packet[0] >> 4 == 4 else self._receive_v6)(packet, group, now)

    def _receive_v4(self, packet: bytes, group: bool, now: int) -> list[bytes]:
        ip, payload = IPv4.parse(packet)
        local = self._addresses.is_local(ip.dst) or (is_loopback(ip.dst) and not group)
        if not local and not self._addresses.hears(ip.dst):
            return self._ignore("not-our-address")
        if is_multicast(ip.src) or ip.src in self._addresses.broadcasts or (is_unspecified(ip.src) and local):
            return self._ignore("martian")
        packet = packet[: ip.header_length + len(payload)]
        if ip.is_fragment:
            whole = self._reassembler.receive(packet, now)
            self.schedule(self._reassembler)
            if whole is None:
                return []
            packet = whole
            ip, payload = IPv4.parse(packet)
        arrived = _Arrived(packet, ip.src, ip.dst, ip.ttl, ip.tos, group or not local)
        if ip.protocol == ICMP:
            return self._receive_icmp(arrived, payload, now)
        if ip.protocol in (TCP, UDP):
            return self._receive_transport(arrived, ip.protocol, payload, now)
        if ip.protocol == IGMP:
            return self._ignore("igmp")  # spoken by every Linux, and nothing is to be said
        return self._error(arrived, icmp.UNREACHABLE, icmp.PROTOCOL_UNREACHABLE, now)

    def _receive_v6(self, packet: bytes, group: bool, now: int) -> list[bytes]:
        ip, payload = IPv6.parse(packet)
        local = self._addresses.is_local(ip.dst) or is_loopback(ip.dst)
        if not local and not self._addresses.hears(ip.dst):
            return self._ignore("not-our-address")
        if is_multicast(ip.src):
            return self._ignore("martian")
        packet = packet[: ipv6.HEADER_LENGTH + len(payload)]
        if ipv6.find_fragment(packet) is not None:
            try:
                whole = self._reassembler.receive(packet, now)
            except UnevenFragment:
                arrived = _Arrived(packet, ip.src, ip.dst, ip.hop_limit, ip.traffic_class, group or not local)
                return self._error(arrived, icmpv6.PARAMETER_PROBLEM, 0, now, _PAYLOAD_LENGTH)
            self.schedule(self._reassembler)
            if whole is None:
                return []
            packet = whole
        protocol, offset = ipv6.upper_layer(packet)
        arrived = _Arrived(packet, ip.src, ip.dst, ip.hop_limit, ip.traffic_class, group or not local)
        if protocol == ICMPV6:
            return self._receive_icmpv6(arrived, packet[offset:], now)
        if protocol in (TCP, UDP):
            return self._receive_transport(arrived, protocol, packet[offset:], now)
        if protocol in (NO_NEXT_HEADER, FRAGMENT, ROUTING):
            return []
        pointer = ipv6.next_header_pointer(packet).to_bytes(4, "big")
        return self._error(arrived, icmpv6.PARAMETER_PROBLEM, icmpv6.UNKNOWN_NEXT_HEADER, now, pointer)

    def _receive_icmp(self, arrived: _Arrived, message: bytes, now: int) -> list[bytes]:
        news = icmp.Icmp.parse(message)
        if news.type == icmp.ECHO_REQUEST:
            if self._addresses.is_group(arrived.dst) or is_unspecified(arrived.src):
                return self._ignore("echo-to-group")
            reply = icmp.echo_reply(news).pack()
            return self.transmit(arrived.dst, arrived.src, ICMP, reply, now, tos=arrived.tos, dont_fragment=False)
        if news.type == icmp.TIMESTAMP_REQUEST and not self._addresses.is_group(arrived.dst):
            answer = echo.timestamp_reply(news, now).pack()
            return self.transmit(arrived.dst, arrived.src, ICMP, answer, now, tos=arrived.tos, dont_fragment=False)
        if news.type == icmp.ECHO_REPLY:
            return self._pong(arrived, news.identifier, news.sequence, now)
        failure = failure_of_icmp(news.type, news.code)
        if failure is None or arrived.group:
            return []
        too_big = news.type == icmp.UNREACHABLE and news.code == icmp.FRAGMENTATION_NEEDED
        return self._report(news.body, failure, arrived.src, now, news.mtu if too_big else None)

    def _receive_icmpv6(self, arrived: _Arrived, message: bytes, now: int) -> list[bytes]:
        news = icmpv6.Icmpv6.parse(arrived.src, arrived.dst, message)
        if news.type == icmpv6.ECHO_REQUEST:
            if is_unspecified(arrived.src):
                return self._ignore("martian")
            source = self._speaking(arrived)
            if source is None:
                return []
            reply = icmpv6.echo_reply(news).pack(source, arrived.src)
            return self.transmit(source, arrived.src, ICMPV6, reply, now, tos=arrived.tos)
        if news.type == icmpv6.ECHO_REPLY:
            return self._pong(arrived, news.identifier, news.sequence, now)
        failure = failure_of_icmpv6(news.type, news.code)
        if failure is None:
            return []
        return self._report(
            news.body, failure, arrived.src, now, news.mtu if news.type == icmpv6.PACKET_TOO_BIG else None
        )

    def _speaking(self, arrived: _Arrived) -> bytes | None:
        """From which address to answer: the one called; for a group or an anycast address one of our own."""
        shared = is_multicast(arrived.dst) or self._is_shared(arrived.dst)
        return self.source_for(arrived.src) if shared else arrived.dst

    def _is_shared(self, address: bytes) -> bool:
        """Whether a unicast address that we got something for is not ours alone: an anycast address (RFC 4291 2.6)."""
        if len(address) == 4 or is_link_local(address) or is_loopback(address):
            return False
        return address not in self._addresses.own

    def _pong(self, arrived: _Arrived, identifier: int, sequence: int, now: int) -> list[bytes]:
        record = self._pings.get((identifier, sequence))
        asked_many = record is not None and (self._addresses.is_group(record.destination))
        if record is None or not (asked_many or record.destination == arrived.src):
            return self._ignore("reply-unasked")
        record.reply(arrived.src, arrived.ttl, now)
        self.confirm(arrived.src, now)
        return []

    def _receive_transport(self, arrived: _Arrived, protocol: int, segment: bytes, now: int) -> list[bytes]:
        valid = tcp.checksum_valid if protocol == TCP else udp.checksum_valid
        if not valid(arrived.src, arrived.dst, segment):
            return self._ignore("bad-checksum")
        if protocol == TCP:
            return self._receive_tcp(arrived, segment, now)
        header, data = udp.Udp.parse(segment)
        socket = self._udp_socket(header.dport, arrived.dst)
        if socket is not None:
            return socket.deliver(Datagram(data, arrived.src, header.sport, arrived.dst, now))
        if len(arrived.dst) == 4:
            return self._error(arrived, icmp.UNREACHABLE, icmp.PORT_UNREACHABLE, now)
        return self._error(arrived, icmpv6.UNREACHABLE, icmpv6.PORT_UNREACHABLE, now)

    def _udp_socket(self, port: int, address: bytes) -> UdpSocket | None:
        for key in ((port, address), (port, None)):
            socket = self._udp.get(key)
            if socket is not None:
                if not socket.closed:
                    return socket
                del self._udp[key]
        return None

    def _receive_tcp(self, arrived: _Arrived, segment: bytes, now: int) -> list[bytes]:
        if arrived.group or is_unspecified(arrived.src) or self._is_shared(arrived.dst):
            return self._ignore("tcp-to-group")
        header, data = tcp.Tcp.parse(segment)
        key = (arrived.dst, header.dport, arrived.src, header.sport)
        connection = self._connections.get(key)
        opening = header.flags & (tcp.SYN | tcp.ACK | tcp.RST) == tcp.SYN
        if connection is not None and opening and connection.can_be_replaced(header):
            connection.abort(now)
            connection = None
        if connection is not None:
            return connection.segment(header, data, now)
        listener = self._listener(header.dport, arrived.dst) if opening else None
        if listener is not None:
            if listener.full or len(self._connections) >= MAXIMUM_CONNECTIONS:
                return self._ignore("backlog-full")
            passive = self._connection(*key, listener.handler, listener)
            return passive.accept_syn(header, now)
        reset = reset_for(header, len(data))
        if reset is None:
            return []
        answer = reset.pack(arrived.dst, arrived.src)
        return self.transmit(arrived.dst, arrived.src, TCP, answer, now, tos=arrived.tos & 0xFC)

    def _listener(self, port: int, address: bytes) -> Listener | None:
        for key in ((port, address), (port, None)):
            listener = self._listeners.get(key)
            if listener is not None:
                if not listener.closed:
                    return listener
                del self._listeners[key]
        return None

    # --- errors, ours and others'

    def _error(self, arrived: _Arrived, type: int, code: int, now: int, rest: bytes = bytes(4)) -> list[bytes]:
        """An ICMP error about a packet to us, from the address called; unless a rule forbids it (IC-07, IC-10)."""
        if arrived.group or is_unspecified(arrived.src):
            return []
        if not self._budget.allow(arrived.src, now):
            return self._ignore("error-rate")
        if len(arrived.src) == 4:
            message = icmp.error(type, code, arrived.packet, rest).pack()
            tos = (arrived.tos & 0x1E) | 0xC0
            return self.transmit(arrived.dst, arrived.src, ICMP, message, now, tos=tos, dont_fragment=False)
        message = icmpv6.error(type, code, arrived.packet, rest).pack(arrived.dst, arrived.src)
        return self.transmit(arrived.dst, arrived.src, ICMPV6, message, now)

    def _report(
        self, packet: bytes, failure: Failure, source: bytes | None, now: int, mtu: int | None = None
    ) -> list[bytes]:
        """Tell the socket that sent `packet` (perhaps cut short) what became of it; `mtu`: what the path can carry.

        `source`: who says so; None: we ourselves. What others say is believed only about what is on its way.
        """
        quoted = Quoted.of(packet)
        if quoted is None or (quoted.src not in self._addresses.own and source is not None):
            return []
        transport = quoted.transport
        local_port, remote_port = transport[0] << 8 | transport[1], transport[2] << 8 | transport[3]
        connection = None
        if quoted.protocol == TCP:
            connection = self._connections.get((quoted.src, local_port, quoted.dst, remote_port))
            if connection is None or (source and not connection.sent(int.from_bytes(transport[4:8], "big"))):
                return self._ignore("error-about-nothing")
        if mtu is not None:
            self._paths.learn(quoted.dst, mtu, quoted.length, self.path_mtu(quoted.dst, now), now)
        if connection is not None:
            return connection.unreachable(failure, now) if mtu is None else connection.path_changed(now)
        if quoted.protocol == UDP:
            socket = self._udp_socket(local_port, quoted.src)
            if socket is not None:
                socket.errors.append((failure, quoted.dst, remote_port))
        elif quoted.protocol in (ICMP, ICMPV6):
            record = self._pings.get((int.from_bytes(transport[4:6], "big"), int.from_bytes(transport[6:8], "big")))
            if record is not None and record.destination == quoted.dst:
                record.fail(failure, source)
        return []
