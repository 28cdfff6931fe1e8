"""Traffic that is watched: streams of numbered datagrams, and what became of each of them.

A stream sends from a pod as the pod's own stack would; the last bytes of each datagram
say which stream it is of and which number it has, so that it is known again at every
port that it passes, inside a tunnel too, by whoever watches there. The same records
that a capture is written from tell where it went, when it arrived, and of a drop the
reason.

Rule of this file: watching never changes what happens; a stream sends and does nothing else.
"""

from __future__ import annotations

import math
import random
import struct
from array import array
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from emunet.fabric.capture import Record
from emunet.fabric.config import WorldConfig
from emunet.fabric.edge import Edge, FrozenEdge, MemoryEdge
from emunet.fabric.explain import frame_from
from emunet.fabric.names import LOCAL_PREFIX, UnknownPort
from emunet.lab.outcome import Move, Outcome
from emunet.lab.plane import Plane
from emunet.packet import ipv4, ipv6, udp
from emunet.packet.address import parse_ip
from emunet.packet.view import IPV4, IPV6
from emunet.plane.chance import chance
from emunet.plane.trace import Trace

SECOND = 1_000_000_000
MAGIC = b"emunet\x00\x01"
TRAILER = struct.Struct("!8sII")
DISCARD = 9
"""The UDP port that takes everything and answers nothing (RFC 863)."""
FIRST_PORT = 40_000
LEAST_SIZE = TRAILER.size
ALL_BUCKETS = 150


@dataclass(frozen=True, slots=True)
class Flow:
    """What is to be sent and watched.

    source, target  a pod's port name; a pod's or an address
    interval        ns between two datagrams (their mean, where they come at random)
    size            bytes of data in a datagram
    late            ns after which an arrival is late
    random          as a Poisson process instead of evenly
    """

    name: str
    source: str
    target: str
    interval: int = 10_000_000
    size: int = 64
    late: int = 100_000_000
    random: bool = False

    def __post_init__(self) -> None:
        if self.interval < 1000:
            raise ValueError(f"{self.name}: expected at most 1,000,000 datagrams a second")
        if not LEAST_SIZE <= self.size <= 65_507:
            raise ValueError(f"{self.name}: expected {LEAST_SIZE} to 65507 bytes of data (got {self.size})")


class Traffic:
    """The flows of one experiment: begun together, watched until `end`.

    `duration` (ns) only decides how finely rates and latencies are kept over time.
    """

    def __init__(self, plane: Plane, flows: Iterable[Flow], now: int, duration: int) -> None:
        self._plane = plane
        self._world = plane.world
        self.began = now
        self.bucket = max(1_000_000, duration // ALL_BUCKETS)
        self.streams: list[_Stream] = []
        self.paused: set[str] = set()
        """Pods whose programs do not run just now (a kernel's, which this does not see by itself)."""
        for number, flow in enumerate(flows):
            self.streams.append(_Stream(self, flow, number))
        names = [stream.flow.name for stream in self.streams]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two flows are called {name}")
        self._macs: dict[str, bytes] = {}
        self._pods: dict[str, str] = {}
        self._watched: dict[tuple[str, str], str] = {}
        self._config: WorldConfig | None = None
        self.watch()
        for stream in self.streams:
            self._world.at(now, stream.send)

    def stop(self) -> None:
        """Send no more; what is on its way is still watched."""
        for stream in self.streams:
            stream.running = False

    def end(self) -> None:
        """Send and watch no more."""
        self.stop()
        self._plane.untap(self._watched.values(), self)
        self._watched = {}

    def outcome(self) -> list[Outcome]:
        """What became of each flow until now."""
        return [stream.outcome() for stream in self.streams]

    # Watching

    def watch(self) -> None:
        """Watch the ports of pods that have come: a flow may be led to them."""
        config = self._world.config
        if config is self._config:
            return
        self._config = config
        self._macs = {edge.name: edge.mac for edge in config.pods}
        self._pods = {edge.name: edge.device for edge in config.pods}
        for port in self._world.port_names():
            device, entry, inner = self._world.locate(port)
            if not inner and (device.name, entry) not in self._watched:
                self._plane.tap([port], self)
                self._watched[device.name, entry] = port

    def write(self, record: Record) -> None:
        """A frame passed a port: if it is of a stream, note where it is."""
        for frame in record.frames:
            found = TRAILER.unpack_from(frame, len(frame) - TRAILER.size) if len(frame) > TRAILER.size else None
            if found is None or found[0] != MAGIC or found[1] >= len(self.streams):
                continue
            stream, number = self.streams[found[1]], found[2]
            if not stream.is_own(frame):
                continue
            if record.drops:
                stream.dropped(number, record.drops[-1][1].reason.name)
                continue
            port = record.port
            host = self._pods.get(port)
            if host is None:
                if record.inbound:
                    stream.entered(number, port.rpartition(":")[0])
            elif not record.inbound:
                stream.entered(number, host)
            elif frame[:6] == self._macs.get(port):  # a bridge that floods shows it to others as well
                stream.arrived(number, port, record.at)


@dataclass(slots=True)
class _Sent:
    """A datagram that has not arrived yet."""

    at: int
    path: list[str] = field(default_factory=list)
    reason: str = ""


class _Stream:
    """One flow: when it sends next, what is on its way, and what became of the rest."""

    def __init__(self, traffic: Traffic, flow: Flow, number: int) -> None:
        self.flow = flow
        self.running = True
        self._traffic = traffic
        self._world = traffic._world
        self._number = number
        self._random = random.Random(chance(self._world.seed, "flow", flow.name))
        edge = self._edge()
        if edge is None or edge.entry.startswith(LOCAL_PREFIX):
            pods = ", ".join(pod.name for pod in self._world.config.pods)
            raise UnknownPort(f"there is no pod {flow.source} for the flow {flow.name}; there are: {pods}")
        self._source, self._target = self._addresses(edge)
        self._length = len(self._packet(0))
        self._ethertype = IPV4 if len(self._source) == 4 else IPV6
        self._bound: Edge | None = None
        self._head: tuple[Edge, Any, bytes] | None = None
        self._next = traffic.began
        self._sent = 0
        self._last_sent = traffic.began
        self._way: dict[int, _Sent] = {}
        self._delivered = bytearray()
        self._highest = -1
        self._last: tuple[str, ...] | None = None
        self._last_arrival = traffic.began
        self._outcome = Outcome(flow.name, flow.source, flow.target, traffic.began, traffic.bucket)
        self._took = array("q")

    def _edge(self) -> Edge | None:
        return self._world.edges.get(self.flow.source)

    def _addresses(self, edge: Edge) -> tuple[bytes, bytes]:
        target = self._world.edges.get(self.flow.target) or self._world.edges.get(f"{self.flow.target}:eth0")
        if target is not None:
            wanted = [row.address for row in target.addresses]
        else:
            try:
                wanted = [parse_ip(self.flow.target)]
            except ValueError:
                raise UnknownPort(f"there is no pod, host or address {self.flow.target} ({self.flow.name})") from None
        for destination in wanted:
            for own in edge.addresses:
                if len(own.address) == len(destination):
                    return own.address, destination
        raise ValueError(f"{self.flow.name}: {self.flow.source} has no address of the family of {self.flow.target}")

    # Sending

    def send(self, now: int) -> None:
        """Send the next datagram, and be called again for the one after it."""
        if not self.running:
            return
        edge = self._edge()
        self._traffic.watch()
        self._listen()
        if edge is not None and self._alive(edge):
            number, self._sent = self._sent, self._sent + 1
            self._way[number] = _Sent(now)
            self._last_sent = now
            self._delivered.append(0)
            self._outcome.bucket(now).sent += 1
            head = self._ethernet(edge)
            if head is None:
                self.dropped(number, "NO_NEIGHBOR")
            else:
                self._world.receive(edge, head + self._packet(number), now)
        wait = self.flow.interval
        if self.flow.random:
            wait = int(-math.log(1.0 - self._random.random()) * wait)
        self._next += wait
        self._world.at(max(self._next, now), self.send)

    def _listen(self) -> None:
        """Let a pod of ours take what comes to the port: else it would tell the sender that nobody listens."""
        target = self._world.edges.get(self.flow.target)
        if target is self._bound:
            return
        self._bound = target
        if isinstance(target, MemoryEdge):
            with suppress(OSError):  # somebody listens there already
                target.endpoint.udp_bind(DISCARD, handler=lambda socket, datagram: [])

    def _alive(self, edge: Edge) -> bool:
        """Whether a program in the pod could send now."""
        if isinstance(edge, FrozenEdge) or edge.name in self._traffic.paused:
            return False
        return not self._world.devices[edge.device].off

    def _ethernet(self, edge: Edge) -> bytes | None:
        """The Ethernet header that the pod's own stack would put in front; None where it knows no next hop."""
        config = self._world.config
        if self._head is None or self._head[0] is not edge or self._head[1] is not config:
            made = frame_from(self._world, edge, self._packet(0))
            if isinstance(made, Trace):
                return None
            self._head = (edge, config, made[:14])
        return self._head[2]

    def _packet(self, number: int) -> bytes:
        data = bytes(self.flow.size - TRAILER.size) + TRAILER.pack(MAGIC, self._number, number)
        segment = udp.Udp(FIRST_PORT + self._number, DISCARD).pack(self._source, self._target, data)
        if len(self._source) == 16:
            return ipv6.IPv6(self._source, self._target, 17).pack(segment)
        return ipv4.IPv4(self._source, self._target, 17, identification=number & 0xFFFF).pack(segment)

    # Watching

    def is_own(self, frame: bytes) -> bool:
        """Whether a frame that ends as a datagram of this stream is one, and not an ICMP error that quotes one."""
        start = len(frame) - self._length
        if start >= 14:
            return frame[start - 2 : start] == self._ethertype
        return frame[23] == 17  # the last fragment of one

    def entered(self, number: int, device: str) -> None:
        """A datagram came into a device."""
        sent = self._way.get(number)
        if sent is not None:
            sent.path.append(device)

    def dropped(self, number: int, reason: str) -> None:
        """A copy of a datagram ended."""
        sent = self._way.get(number)
        if sent is not None:
            sent.reason = reason

    def arrived(self, number: int, pod: str, now: int) -> None:
        """A datagram reached a pod."""
        outcome = self._outcome
        sent = self._way.pop(number, None)
        if sent is None:
            if number < len(self._delivered) and self._delivered[number]:
                outcome.duplicated += 1
            return
        self._delivered[number] = 1
        took = now - sent.at
        self._took.append(took)
        outcome.received += 1
        outcome.bucket(now).latencies.append(took)
        if took > self.flow.late:
            outcome.late += 1
        if number < self._highest:
            outcome.reordered += 1
        self._highest = max(self._highest, number)
        path = (*sent.path, pod)
        if self._last is not None and path != self._last:
            outcome.moved += 1
            outcome.moves.append(Move(now, path))
        self._last = path
        if outcome.received > 1:
            self._note_gap(outcome, now)
        self._last_arrival = now

    def _note_gap(self, outcome: Outcome, until: int) -> None:
        """Nothing arrived for a while: for longer than chance or a late one explains."""
        usual = self.flow.interval * (20 if self.flow.random else 3)
        if until - self._last_arrival > max(usual, self.flow.late):
            outcome.gaps.append((self._last_arrival, until))

    def outcome(self) -> Outcome:
        """What became of it until now."""
        outcome = self._outcome.copy()
        outcome.sent = self._sent
        for sent in self._way.values():
            if sent.reason:
                outcome.lost += 1
                outcome.why[sent.reason] = outcome.why.get(sent.reason, 0) + 1
                outcome.bucket(sent.at).lost += 1
            else:
                outcome.on_the_way += 1
        self._note_gap(outcome, self._last_sent if self._way else self._last_arrival)
        outcome.took(self._took)
        return outcome


__all__ = ["Flow", "Outcome", "Traffic"]
