"""A pod of a `Lab`, to send and serve from: its addresses, and its own stack in memory.

Rule of this file: what it does is sent on its wire and takes the lab's time, as a program's doing would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from emunet.cluster.desired import Pod
from emunet.cluster.pod_files import resolv_conf
from emunet.elements.endpoint.http import Get, Request, Response, get, parse_url, serve
from emunet.elements.endpoint.names import ResolverConfig, look_up
from emunet.elements.endpoint.stack import Endpoint
from emunet.elements.endpoint.tcp import Connection, Listener
from emunet.fabric.edge import MemoryEdge
from emunet.fabric.names import UnknownPort
from emunet.packet.address import format_ip, format_mac, parse_ip
from emunet.packet.dns import Type, describe

if TYPE_CHECKING:
    from emunet.lab.lab import Lab

PATIENCE = 10.0
"""Seconds of the lab's time that an answer is waited for, where nothing else is said."""


class LabPod:
    """A pod of the lab: its addresses, and its own stack to send and serve with."""

    def __init__(self, lab: Lab, pod: Pod, edge: MemoryEdge) -> None:
        self._lab = lab
        self._edge = edge
        self.namespace = pod.namespace
        self.name = pod.name
        self.port = pod.port
        self.host = pod.host
        self.labels = dict(pod.labels)

    @property
    def mac(self) -> str:
        """Its eth0's MAC."""
        return format_mac(self._edge.mac)

    @property
    def ips(self) -> list[str]:
        """Its addresses, IPv4 first."""
        return [format_ip(row.address) for row in self._edge.addresses]

    @property
    def ip(self) -> str:
        """Its first address."""
        return self.ips[0]

    @property
    def endpoint(self) -> Endpoint:
        """Its own stack: sockets, neighbours, timers."""
        return self._edge.endpoint

    def _send(self, frames: Iterable[bytes]) -> None:
        world = self._lab.plane.world
        if self.port not in world.edges:
            raise UnknownPort(f"the pod {self.port} has gone: it sends nothing more")
        world.send(self._edge, frames, world.now)

    def send(self, frame: bytes) -> None:
        """Put a frame on its wire, as it is. UnknownPort where the pod has gone, here and wherever it sends."""
        self._send([frame])

    def send_ip(self, packet: bytes) -> None:
        """Send an IP packet by its own routing."""
        self._send(self.endpoint.send_ip(packet, self._lab.clock.now))

    def resolve(self, name: str, kind: str = "A") -> list[str]:
        """What a name's records say: looked up as a program in the pod would, by its resolv.conf. LookupError says why.

        `kind`: A, AAAA, SRV, PTR, CNAME, TXT ...
        """
        if kind not in Type.__members__:
            raise LookupError(f"{kind} is no type of records that is known here: {', '.join(Type.__members__)}")
        found = self._lab.store.get("pods", self.namespace, self.name)
        assert found is not None
        told = resolv_conf(found, self._lab.control.names.server, self._lab.control.cluster.dns.domain)
        config = ResolverConfig(tuple(parse_ip(one) for one in told.servers), told.searches, told.ndots)
        lookup, frames = look_up(self.endpoint, config, name, Type[kind], self._lab.clock.now)
        self._send(frames)
        self._lab.wait(lambda: lookup.done, 2 * len(config.servers) * PATIENCE)
        if lookup.error is not None:
            raise LookupError(lookup.error)
        return [describe(record) for record in lookup.records]

    def _address(self, target: str) -> bytes:
        """The address of a pod, a host, an address, or else of a name. A Service goes before a pod of its name."""
        lab = self._lab
        if lab.control.names.server is not None and (
            lab.store.get("services", self.namespace, target) is not None or not lab.knows(target)
        ):
            return parse_ip(self.resolve(target)[0])
        return lab.address(target)

    def connect(self, target: str, port: int) -> Connection:
        """Open a TCP connection to a name, pod, host or address; returns when it is open or has failed."""
        connection, frames = self.endpoint.connect(self._address(target), port, self._lab.clock.now)
        self._send(frames)
        self._lab.wait(
            lambda: connection.state.name not in ("SYN_SENT", "SYN_RECEIVED") or connection.error is not None
        )
        return connection

    def write(self, connection: Connection, data: bytes) -> None:
        """Send on one of its connections."""
        self._send(connection.send(data, self._lab.clock.now))

    def close(self, connection: Connection) -> None:
        """Close its side of a connection."""
        self._send(connection.close(self._lab.clock.now))

    def serve(self, port: int, respond: Callable[[Request], Response] | None = None) -> Listener:
        """Answer HTTP on a port, in place of the responder; without a function it says who it is."""
        self._lab.plane.give_up(self.port, "TCP", port, self._lab.clock.now)
        return serve(self.endpoint, port, respond or self._who)

    def get(self, url: str, timeout: float = 10.0) -> Get:
        """Fetch `http://HOST[:PORT]/PATH`; HOST is a name, a pod, a host or an address.

        `.status`, `.body`, `.error` tell. LookupError where the name was not found.
        """
        host, port, path = parse_url(url)
        exchange, frames = get(self.endpoint, self._address(host), port, self._lab.clock.now, path=path, host=host)
        self._send(frames)
        self._lab.wait(lambda: exchange.done, timeout)
        return exchange

    def _who(self, request: Request) -> Response:
        body = f"{self.port} on {self.host} at {self.ip}, asked by {format_ip(request.client[0])}\n"
        return Response(body=body.encode())
