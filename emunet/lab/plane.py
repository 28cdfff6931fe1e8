"""Plane: what a running data plane can be asked. One object, two callers.

A `Lab` in one process calls it directly; the plane process of a running lab calls it
for messages. Every method is quick (it never waits), answers with plain values, and
takes `now` where time matters.

Rule of this file: no cluster, no files, no sockets; an edge comes from a factory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from emunet.elements.connections import ConnectionTable, ServiceChange
from emunet.elements.endpoint.names import NameServer
from emunet.elements.endpoint.responder import Responder
from emunet.elements.policies.rules import Row
from emunet.elements.responder import Health, Identity
from emunet.elements.zone import Authority, Zone, apply_update
from emunet.fabric.answers import answer, question
from emunet.fabric.capture import Sink
from emunet.fabric.config import HostEdge, PodEdge, WorldConfig, router_edges
from emunet.fabric.config_text import encode
from emunet.fabric.edge import Edge, FrozenEdge, MemoryEdge
from emunet.fabric.explain import frame_from
from emunet.fabric.follow import exchange, onward
from emunet.fabric.names import UnknownPort
from emunet.fabric.recording import Recorder
from emunet.fabric.sources import host_source
from emunet.fabric.world import World
from emunet.lab.busy import traffic
from emunet.lab.trouble import Trouble, WireChange
from emunet.packet.address import format_ip
from emunet.packet.view import Packet
from emunet.plane.reason import describe
from emunet.plane.table import Table
from emunet.plane.trace import Trace

EdgeFactory = Callable[[PodEdge | HostEdge, WorldConfig], Edge]


@dataclass(frozen=True, slots=True)
class Answers:
    """Who answers on which ports, (protocol, port), of the stack behind an edge (`web-1`, `host1:eth0`)."""

    edge: str
    identity: Identity | Health
    ports: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Exchange:
    """A packet and its answer, followed. `at`: the edge that got the packet; empty where none did.

    `outside`: there it left the lab, and what becomes of it is not known here.
    """

    there: Trace
    back: Trace | None
    at: str
    outside: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For those who are elsewhere."""
        return {
            "there": self.there.as_dict(),
            "back": self.back.as_dict() if self.back is not None else None,
            "at": self.at,
            "outside": self.outside,
        }


class Plane:
    """A World with its edges, and the questions people ask of it.

    make_edge  makes the stack's end for a pod or a host interface
    drop_edge  lets one go (closes its TAP)
    """

    def __init__(
        self,
        seed: int,
        make_edge: EdgeFactory,
        drop_edge: Callable[[Edge], None] | None = None,
        *,
        flow_cache: bool = True,
    ) -> None:
        self.world = World(seed, flow_cache)
        self._make_edge = make_edge
        self._drop_edge = drop_edge
        self._made: dict[str, PodEdge | HostEdge] = {}
        self._answers: tuple[Answers, ...] = ()
        self._responders: dict[Answers, Responder] = {}
        self._zone: Zone | None = None
        self._name_servers: tuple[str, ...] = ()
        self._answering: dict[str, NameServer] = {}
        self._names_on = True
        self.trouble = Trouble(self)

    def configure(self, config: WorldConfig) -> None:
        """Become this. Edges that are new or changed are made; those that are gone are let go first."""
        edges: tuple[PodEdge | HostEdge, ...] = (*config.pods, *config.host_edges, *router_edges(config))
        wanted = {edge.name: edge for edge in edges}
        for name in [name for name, made in self._made.items() if wanted.get(name) != made]:
            edge = self.world.detach(name)
            del self._made[name]
            if edge is not None and self._drop_edge is not None:
                self._drop_edge(edge)
        self.note("configure", config=encode(config) if self.world.recorder is not None else None)
        self.world.configure(config)
        for name, description in wanted.items():
            if name not in self._made:
                self.world.attach(self._make_edge(description, config))
                self._made[name] = description
        self.respond(self._answers, self.world.now)
        self.serve_names(self._name_servers, self.world.now)

    def respond(self, wanted: Iterable[Answers], now: int) -> None:
        """Answer on these ports and no others, where the stacks are in memory. Ports of programs stay theirs."""
        self._answers = tuple(dict.fromkeys(wanted))
        endpoints = {
            name: (edge, edge.endpoint) for name, edge in map(_thawed, self.world.edges.items())
            if isinstance(edge, MemoryEdge)
        }  # fmt: skip
        asked = frozenset(self._answers)
        for answers, responder in list(self._responders.items()):
            edge, endpoint = endpoints.get(answers.edge, (None, None))
            if answers not in asked or endpoint is not responder.endpoint:
                del self._responders[answers]
                frames = responder.close(now)
                if edge is not None and endpoint is responder.endpoint:
                    self.world.send(edge, frames, now)
        for answers in self._answers:
            if answers not in self._responders and answers.edge in endpoints:
                responder = self._responders[answers] = Responder(endpoints[answers.edge][1], answers.identity)
                responder.open(answers.ports)

    def give_up(self, port: str, protocol: str, number: int, now: int) -> None:
        """A program of a pod is about to listen on a port of its: the responder leaves it to that."""
        for answers, responder in self._responders.items():
            if answers.edge == port:
                self.world.send(self.edge(port), responder.give_up(protocol, number, now), now)

    def learn_names(self, line: bytes) -> None:
        """Names have changed, as `elements.zone.encode_update` tells it."""
        self._zone = apply_update(self._zone, line)

    def serve_names(self, wanted: Iterable[str], now: int) -> None:
        """Let these pods, and no others, be name servers, where their stacks are in memory."""
        self._name_servers = tuple(dict.fromkeys(wanted))
        if not self._name_servers and not self._answering:
            return
        endpoints = {
            name: (edge, edge.endpoint) for name, edge in map(_thawed, self.world.edges.items())
            if isinstance(edge, MemoryEdge)
        }  # fmt: skip
        running = self._name_servers if self._names_on else ()
        for name, server in list(self._answering.items()):
            edge, endpoint = endpoints.get(name, (None, None))
            if name not in running or endpoint is not server.endpoint:
                del self._answering[name]
                if edge is not None and endpoint is server.endpoint:
                    self.world.send(edge, server.close(now), now)
        for name in running:
            if name not in self._answering and name in endpoints:
                self._answering[name] = NameServer(endpoints[name][1], self._names)

    def set_names(self, now: int, *, on: bool) -> None:
        """Let the name servers end, or begin again."""
        self._names_on = on
        self.serve_names(self._name_servers, now)

    def _names(self) -> Zone:
        return self._zone or Zone(Authority(()))

    def change_policies(self, host: str, rows: Iterable[Row]) -> None:
        """Change what a host knows of policies, and nothing else: the next frame meets it so."""
        self.world.policing.change(host, rows)
        if self.world.recorder is not None:
            self.note("configure", config=encode(self.world.config))

    def change_services(self, change: ServiceChange) -> None:
        """Let hosts have other rows of Services; all else goes on as it is."""
        self.note("services", gone=change.gone, put=encode(change.put) if self.world.recorder is not None else None)
        self.world.serving.change(change)

    def edge(self, port: str) -> Edge:
        """The edge of a pod, or a host's own (`host1` means its uplink). UnknownPort when there is none."""
        found = self.world.edges.get(port) or self.world.edges.get(f"{port}:eth0")
        if found is None:
            raise UnknownPort(f"there is no pod or host {port}; there are: {', '.join(sorted(self.world.edges))}")
        return found

    def trace(self, port: str, data: bytes, now: int, *, is_frame: bool, live: bool = False) -> Trace:
        """Follow a frame (or an IP packet, sent as the pod's own stack would) from a pod or host.

        A dry run changes nothing. A live trace may still be `queued` when this
        returns; it fills up as the packet goes on.
        """
        edge = self.edge(port)
        frame = data if is_frame else frame_from(self.world, edge, data)
        if isinstance(frame, Trace):
            return frame
        if not live:
            return self.world.explain(edge, frame)
        trace = Trace()
        self.world.receive(edge, frame, now, trace=trace)
        return trace

    def onward(self, port: str, frame: bytes, *, inbound: bool) -> Trace:
        """What would become of a frame that passes a port, from there on; a dry run."""
        return onward(self.world, port, frame, inbound)

    def exchange(self, port: str, target: bytes, protocol: str, number: int) -> Exchange:
        """What would become of the first packet of a new connection from a pod or host to a port of an address, and
        of the answer of whoever gets it. A dry run. ValueError where the sender has no address of that family.
        """
        edge, source = self._sender(port, target)
        frame = frame_from(self.world, edge, question(source, target, protocol, number, self._free_port(target)))
        if isinstance(frame, Trace):
            return Exchange(frame, None, edge.name if frame.verdict == "delivered" else "")

        def answers(got: Edge, arrived: Packet) -> bytes | Trace | None:
            reply = answer(arrived.frame)
            return None if reply is None else frame_from(self.world, got, reply)

        there, back, got = exchange(self.world, edge, frame, answers)
        return Exchange(there, back, "" if got is None else got.name, outside=got is not None and not got.mac)

    def _sender(self, port: str, target: bytes) -> tuple[Edge, bytes]:
        """By which edge a pod or host sends to an address, and from which of its own."""
        edge = self.edge(port)
        for host in self.world.config.hosts:
            way = host_source(host, target) if host.name == port else None
            if way is not None:
                return self.edge(f"{port}:{way[0]}"), way[1]
        source = next((row.address for row in edge.addresses if len(row.address) == len(target)), None)
        if source is None:
            raise ValueError(f"{port} has no address of the family of {format_ip(target)}")
        return edge, source

    def _free_port(self, target: bytes) -> int:
        """A source port from which no connection to an address is remembered anywhere."""
        taken = {
            flow.source_port
            for device in self.world.devices.values()
            for table in device.state()
            if isinstance(table, ConnectionTable)
            for flow, _ in table.items(self.world.now)
            if flow.destination == target
        }
        return next(port for port in range(65535, 0, -1) if port not in taken)

    def counters(self) -> dict[str, Any]:
        """The World's ledger, and each device's; and faults of our own, if there were any."""
        return {
            "world": self.world.ledger.as_dict(),
            "faults": self.world.faults.as_list(),
            "devices": {name: device.ledger.as_dict() for name, device in self.world.devices.items()},
        }

    def traffic(self) -> dict[str, Any]:
        """Frames by port, and the busiest flows."""
        return traffic(self.world)

    def balance(self) -> dict[str, int]:
        """What the law misses: all zero, or a frame is unaccounted for (`world`, then each device)."""
        return {
            "world": self.world.ledger.balance,
            **{name: device.ledger.balance for name, device in self.world.devices.items()},
        }

    def tables(self, device: str) -> dict[str, list[list[str]]]:
        """Every table of a device as text rows, for people."""
        found = self.world.devices.get(device)
        if found is None:
            raise UnknownPort(f"there is no device {device}; there are: {', '.join(self.world.devices)}")
        return {
            table.name: [[_text(key), self._row(table, key, value)] for key, value in table.items(self.world.now)]
            for table in found.state()
            if isinstance(table, Table)
        }

    def _row(self, table: Table[Any, Any], key: Any, value: Any) -> str:
        if isinstance(table, ConnectionTable):
            line: str = value.as_line(table.remaining(key, self.world.now))
            return line
        return _text(value)

    def tap(self, ports: Iterable[str], sink: Sink) -> None:
        """Watch ports; all of them, or none where one is unknown."""
        wanted = list(ports)
        for port in wanted:
            self.world.locate(port)
        for port in wanted:
            self.world.tap(port, sink)

    def untap(self, ports: Iterable[str], sink: Sink) -> None:
        """Stop watching. Ports that went meanwhile are passed over: nothing is left to watch there."""
        for port in ports:
            if port in self.world.port_names():
                self.world.untap(port, sink)

    def set_wire(self, wire: str, *, up: bool) -> None:
        """Plug a wire in or out; the next frame meets it so."""
        self.trouble.change_wire(wire, WireChange(up=up))

    def record(self, recorder: Recorder) -> None:
        """Record from now on what is let in. What the World has learned until now is not in it: begin early."""
        self.world.record(recorder)
        if self.world.config.hosts:
            self.note("configure", config=encode(self.world.config))
            for wire in self.world.wires.values():
                for row in self.trouble.settings_of(wire.name):
                    self.note("wire", wire=wire.name, change=row)

    def end_recording(self) -> None:
        """Record no more, and write what came of it."""
        recorder = self.world.recorder
        if recorder is not None:
            self.world.record(None)
            recorder.end(self.world.now, self.world.events, self.world.ledger.as_dict())

    def note(self, command: str, **said: Any) -> None:
        """Let a recorder know what was done beside frames."""
        if self.world.recorder is not None:
            self.world.recorder.command(command, said, self.world.now, self.world.events)

    def pods_on(self, device: str) -> list[str]:
        """The pods whose port is on a device."""
        return [name for name, made in self._made.items() if isinstance(made, PodEdge) and made.device == device]

    def renew(self, pod: str) -> None:
        """Make a pod's stack anew, as its configuration describes it."""
        self.world.attach(self._make_edge(self._made[pod], self.world.config))
        self.respond(self._answers, self.world.now)
        self.serve_names(self._name_servers, self.world.now)


def _thawed(named: tuple[str, Edge]) -> tuple[str, Edge]:
    name, edge = named
    return name, edge.edge if isinstance(edge, FrozenEdge) else edge


def _text(value: Any) -> str:
    return describe(value) if isinstance(value, (bytes, tuple)) else str(value)
