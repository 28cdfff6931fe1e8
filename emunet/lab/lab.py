"""Lab: a whole lab in this process, on memory wires, under a clock that only you move.

    with Lab("topologies/two-hosts.yaml") as lab:
        assert lab.ping("web-1", "web-3")
        print(lab.trace("web-1", packet).as_text())
        lab.clock.advance(5)

No root, no Linux, no daemon, no sleep: time passes when `lab.clock.advance` says so, or
when a call waits for an answer (`ping`, `get`), and then it jumps from event to event.

Rule of this file: it does what a daemon does with the same parts: cluster values, a
plan, a Plane. It owns no behaviour of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self

from emunet.cluster.assign import Allocation, assign
from emunet.cluster.compile import compile as compile_world
from emunet.cluster.control_plane import ControlPlane
from emunet.cluster.controllers.kubelet import PodFact
from emunet.cluster.desired import Desired, Pod
from emunet.cluster.docker.begin import engine_of, furnish
from emunet.cluster.docker.values import EMPTY
from emunet.cluster.load import BadInput, Document, Problem, load_files, load_text
from emunet.cluster.manifests import read_manifests
from emunet.cluster.policing import Policing
from emunet.cluster.store import Object, Store, meta
from emunet.cluster.targets import find as find_targets
from emunet.elements.connections.services import difference
from emunet.elements.endpoint.echo import Ping
from emunet.fabric.capture import Record
from emunet.fabric.edge import FrozenEdge, MemoryEdge, MemoryEdges
from emunet.fabric.names import stations
from emunet.fabric.recording import Recorder
from emunet.fabric.sources import host_source
from emunet.lab.answers import answers_of, health_answers
from emunet.lab.docker import LabDocker
from emunet.lab.explanation import Explanation, explained
from emunet.lab.plane import Plane
from emunet.lab.pod import PATIENCE, LabPod
from emunet.lab.trouble import WireChange
from emunet.packet.address import format_ip, parse_ip
from emunet.packet.pcapng import INBOUND, OUTBOUND, PcapngWriter, read_capture, unambiguous
from emunet.plane.table import NEVER
from emunet.plane.trace import Trace

SECOND = 1_000_000_000


class LabClock:
    """The lab's time. It stands still until it is moved."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    @property
    def now(self) -> int:
        """Nanoseconds since the lab began."""
        return self._lab.plane.world.now

    def advance(self, seconds: float) -> None:
        """Let time pass; everything that is due on the way happens, in order: frames, timers, controllers."""
        self.advance_to(self.now + int(seconds * SECOND))

    def advance_to(self, target: int) -> None:
        """The same until a moment in nanoseconds."""
        world = self._lab.plane.world
        while (due := self._lab.control.due()) is not None and due <= target:
            world.advance(max(due, world.now))
            self._lab.settle()
        world.advance(target)


@dataclass(frozen=True, slots=True)
class Pong:
    """What became of an echo request: true when it was answered. `rtt` in seconds, `ttl` of the reply."""

    source: str
    destination: str
    answered: bool
    rtt: float | None
    ttl: int | None
    why: str

    def __bool__(self) -> bool:
        return self.answered


class Lab:
    """Build it from topology files (or their text), use it, leave it. See the top of this file.

    topology    a path, several paths, or YAML text
    wires       `memory`; kernels and TAPs need a running lab (`emunet up`)
    seed        same seed, same addresses, ports and choices
    flow_cache  whether decisions are repeated from the flow cache
    """

    def __init__(
        self,
        topology: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        wires: str = "memory",
        seed: int = 0,
        flow_cache: bool = True,
        offload: bool = True,
    ) -> None:
        if wires != "memory":
            raise ValueError(
                f"a Lab in one process has memory wires, not {wires!r}: for kernels and TAPs use `emunet up`"
            )
        self.seed = seed
        self.offload = offload
        self.clock = LabClock(self)
        self.plane = Plane(seed, MemoryEdges(seed).make, flow_cache=flow_cache)
        self._allocation = Allocation()
        self._engines: dict[str, LabDocker] = {}
        self._topology, objects, desired = read_manifests(_documents(topology))
        self._desired = Desired(desired.cluster, warnings=desired.warnings)
        self._policing = Policing()
        self.control = ControlPlane(desired.cluster, seed)
        self._checks = self.control.health_checks()
        self.control.apply(objects, 0, {(pod.namespace, pod.name): pod.host for pod in desired.pods})
        for host in desired.cluster.hosts:
            if host.docker != EMPTY:
                self.docker(host.name)
        self._build()
        self.settle()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing of the lab is outside this object; afterwards it takes no frames."""
        self.plane.world.flows.clear("the lab is closed")

    # What there is

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """What was read and has no effect, or will not fit on a link."""
        return self._desired.warnings

    @property
    def desired(self) -> Desired:
        """The cluster as wanted."""
        return self._desired

    @property
    def store(self) -> Store:
        """The objects: everything that the Kubernetes API would show."""
        return self.control.store

    @property
    def pods(self) -> list[LabPod]:
        """All pods, by namespace and name, but for the cluster's name server (`pod("kube-system/coredns-...")`)."""
        return [self.pod(pod.port) for pod in self.desired.pods if not pod.host_network and not pod.is_name_server]

    def pod(self, name: str) -> LabPod:
        """The pod of that port name (`web-1`, `blue/web-1`); KeyError with what there is otherwise."""
        for pod in (*self.desired.pods, *self._container_pods()):
            edge = self.plane.world.edges.get(pod.port)
            if isinstance(edge, FrozenEdge):
                edge = edge.edge
            if pod.port == name and isinstance(edge, MemoryEdge):
                return LabPod(self, pod, edge)
        raise KeyError(f"there is no pod {name}; there are: {', '.join(pod.port for pod in self.desired.pods)}")

    def docker(self, host: str, *, proxy: bool = True) -> LabDocker:
        """The container engine of a host; its containers are `lab.pod("host1/web")`. KeyError for no such host.

        Without `proxy` published ports are served to the host's own containers by translation (`values.Engine`);
        it counts when the engine is first asked for.
        """
        if host not in self._engines:
            containers = engine_of(self.desired.cluster, host, self.seed, proxy=proxy)
            furnish(containers, self.desired.cluster.host(host).docker)
            self._engines[host] = LabDocker(containers, self._build)
        return self._engines[host]

    def _container_pods(self) -> Iterator[Pod]:
        """The containers of all engines that have a network of their own, as pods of their host."""
        for host, engine in self._engines.items():
            for one in engine.containers.items.values():
                if one.attachments:
                    yield Pod(host, one.name, host, (), one.name)

    @property
    def ports(self) -> list[str]:
        """Every port that can be watched."""
        return self.plane.world.port_names()

    def address(self, target: str, family: int = 4) -> bytes:
        """The address of a pod (`web-1`), a host (`host1`), an interface (`host1:cni0`), or of a text form.

        Of the family (4 or 16 bytes) where it has one, else its first. KeyError when there is nothing of that name.
        """
        edge = self.plane.world.edges.get(target) or self.plane.world.edges.get(f"{target}:eth0")
        if edge is not None:
            for row in edge.addresses:
                if len(row.address) == family:
                    return row.address
            return edge.addresses[0].address
        try:
            return parse_ip(target)
        except ValueError:
            names = ", ".join(sorted(self.plane.world.edges))
            raise KeyError(f"there is no pod, host or address {target}; there are: {names}") from None

    def knows(self, target: str) -> bool:
        """Whether `address` knows it: a pod, a host, an interface, or an address as text."""
        try:
            self.address(target)
        except KeyError:
            return False
        return True

    # What can be asked

    def ping(self, source: str, destination: str, *, family: int = 4, size: int = 56, ttl: int = 64) -> Pong:
        """One echo request, and what became of it. Waits up to ten lab seconds."""
        target = self.address(destination, family)
        edge = self.plane.edge(source)
        if isinstance(edge, FrozenEdge):
            return Pong(source, destination, False, None, None, f"{source} is frozen")
        assert isinstance(edge, MemoryEdge)
        sender: bytes | None = None
        for host in self.plane.world.config.hosts:
            if host.name == edge.device and edge.entry.startswith("local:"):
                found = host_source(host, target)
                if found is not None:
                    edge = self.plane.world.edges[f"{host.name}:{found[0]}"]
                    sender = found[1]
        assert isinstance(edge, MemoryEdge)
        ping, frames = edge.endpoint.ping(target, self.clock.now, size=size, ttl=ttl, source=sender)
        self.plane.world.send(edge, frames, self.clock.now)
        self.wait(lambda: _settled(ping))
        rtt = ping.rtt_ns
        why = "" if rtt is not None else (str(ping.error) if ping.error is not None else "no answer")
        return Pong(source, destination, rtt is not None, None if rtt is None else rtt / SECOND, ping.reply_ttl, why)

    def ping_all(self, family: int = 4) -> list[Pong]:
        """Every pod to every other."""
        names = [pod.port for pod in self.pods]
        return [self.ping(a, b, family=family) for a in names for b in names if a != b]

    def trace(self, source: str, data: bytes, *, is_frame: bool = False, live: bool = False) -> Trace:
        """Follow an IP packet (or a frame) from a pod or host. A dry run (the default) changes nothing."""
        trace = self.plane.trace(source, bytes(data), self.clock.now, is_frame=is_frame, live=live)
        if live:
            self.wait(lambda: trace.verdict != "queued")
        return trace

    def explain(self, source: str, target: str) -> list[Explanation]:
        """Whether a pod or host reaches a target, and how: `print(lab.explain("web-1", "db-1:5432")[0].as_text())`.

        Targets are pods, hosts, Services and addresses, with a port (a number or a name) and a protocol where it
        matters: `web:80`, `blue/db-1:sql`, `10.9.9.9:53/udp`. One without a port means each port that a Service has or
        a pod declares, else an echo. LookupError where nobody is meant, ValueError for what makes no sense.
        """
        edge = self.plane.edge(source)
        namespace = source.rpartition("/")[0] or "default"
        found = find_targets(self.store, self._addresses_of, target, namespace, len(edge.addresses[0].address))
        return [
            explained(source, one, self.plane.exchange(source, one.address, one.protocol, one.port).as_dict())
            for one in found
        ]

    def _addresses_of(self, name: str) -> list[bytes]:
        edges = self.plane.world.edges
        edge = edges.get(name) or edges.get(f"{name}:eth0")
        return [row.address for row in edge.addresses] if edge is not None else []

    def counters(self) -> dict[str, Any]:
        """The World's figures."""
        return self.plane.world.ledger.as_dict()

    @contextmanager
    def capture(self, ports: str | Iterable[str], path: str | os.PathLike[str]) -> Iterator[None]:
        """Within it, what passes the ports is written to a pcapng file."""
        names = [ports] if isinstance(ports, str) else list(ports)
        with open(path, "wb") as file:
            writer = PcapngWriter(file)
            known = list(stations(self.plane.world.config))
            macs = {port: mac for port, mac, _ in known}
            interfaces = {name: writer.interface(name, f"emunet port {name}", macs.get(name)) for name in names}
            writer.names(unambiguous((one, port) for port, mac, addresses in known for one in (mac, *addresses)))
            sink = _FileSink(writer, interfaces)
            self.plane.tap(names, sink)
            try:
                yield
            finally:
                self.plane.untap(names, sink)

    @contextmanager
    def record(self, path: str | os.PathLike[str]) -> Iterator[Recorder]:
        """Within it, all that comes into the lab is written to a file that `rerun` plays again. Begin at once."""
        with open(path, "wb") as file:
            recorder = Recorder(file, self.seed, flow_cache=self.plane.world.flows.enabled)
            self.plane.record(recorder)
            try:
                yield recorder
            finally:
                self.plane.end_recording()

    def play(self, path: str | os.PathLike[str], into: str, *, interface: str | None = None) -> int:
        """Let the frames of a capture in by a port, with the time between them that they had; how many there were.

        `interface`: only those of this interface of a pcapng file.
        """
        began, first, count = self.clock.now, None, 0
        for frame in read_capture(path):
            if interface is not None and frame.interface != interface:
                continue
            first = frame.time_ns if first is None else first
            at = began + max(0, frame.time_ns - first)
            self.plane.world.advance(max(at, self.clock.now))
            self.plane.world.inject(into, frame.data, self.clock.now)
            count += 1
        return count

    # What can be changed

    def apply(self, topology: str | os.PathLike[str]) -> None:
        """Add or change objects, or the topology: a path or YAML text. Bad input changes nothing.

        Then the controllers work, so that what follows from it is there when this returns.
        """
        topology_document, objects, desired = read_manifests(_documents(topology), self._topology, self._desired)
        faults, _ = self.control.check(objects)
        if faults:
            raise BadInput(faults)
        if desired.cluster != self._desired.cluster:
            self._topology = topology_document
            self._desired = replace(self._desired, cluster=desired.cluster)
            self.control.set_cluster(desired.cluster, self.clock.now)
            self._build()
        self.control.apply(objects, self.clock.now)
        self.settle()

    def get(self, kind: str, name: str, namespace: str = "default") -> Object:
        """An object as the API shows it: `lab.get("deploy", "web")`. KeyError where there is none."""
        found = self.control.find(kind)
        item = self.store.get(found.resource, namespace if found.namespaced else "", name)
        if item is None:
            there = ", ".join(meta(one)["name"] for one in self.store.select(found.resource)) or "none"
            raise KeyError(f'{found.resource} "{name}" not found; there are: {there}')
        return item

    def objects(self, kind: str, namespace: str = "") -> list[Object]:
        """All objects of a kind, of one namespace or of all: `lab.objects("pods")`."""
        return self.store.select(self.control.find(kind).resource, namespace)

    def delete(self, kind: str, name: str, namespace: str = "default") -> None:
        """End an object, and what it owns; what was wanted to be there comes back."""
        self.control.request(self.clock.now).delete(self.control.find(kind), namespace, name)
        self.settle()

    def scale(self, kind: str, name: str, replicas: int, namespace: str = "default") -> None:
        """Want another number of pods."""
        patch = {"spec": {"replicas": replicas}}
        self.control.request(self.clock.now).patch(self.control.find(kind), namespace, name, patch, "merge")
        self.settle()

    def power(self, device: str, *, on: bool) -> None:
        """Take a host's or a switch's power away, or give it back: what it held, had learned and served is lost.

        What the cluster makes of a dead host takes time: 40 s until the node is NotReady, five minutes more until
        its pods are made elsewhere (`lab.clock.advance`).
        """
        self.plane.trouble.set_power(device, on=on)
        self.notice_power(device, on=on)

    def notice_power(self, device: str, *, on: bool) -> None:
        """Let the cluster know that a host's power has gone or come back: what `power` does beside doing it."""
        if any(host.name == device for host in self.control.cluster.nodes):
            self.control.set_power(device, on=on, now=self.clock.now)
            self.settle()

    def settle(self) -> None:
        """Let the controllers work, and build what they want, until nothing is left to do. Takes no time."""
        while True:
            pods = self.control.settle(self.clock.now)
            facts: dict[str, PodFact | None] = {meta(pod)["uid"]: self._ended(pod) for pod in self.control.ending()}
            wanted = replace(
                self._desired, pods=pods, policies=self.control.policies(), services=self.control.services()
            )
            if not wanted.differs_in_services_only(self._desired):
                facts |= dict.fromkeys({pod.uid for pod in self._desired.pods} - {pod.uid for pod in pods})
                self._desired = wanted
                self._build()
            elif wanted.services is not self._desired.services:
                self.plane.change_services(difference(self._desired.services, wanted.services))
                self._desired = wanted
            if self.control.health_checks() is not self._checks:
                self._respond()
            facts |= {pod.uid: self._fact(pod) for pod in pods if pod.uid not in facts}
            self._tell_names()
            if not self.control.tell(facts):
                return

    def _tell_names(self) -> None:
        """Let the cluster's name server know what has changed."""
        update = self.control.names.take()
        if update:
            self.plane.learn_names(update.encode())
        self.plane.serve_names([pod.port for pod in self.desired.pods if pod.is_name_server], self.clock.now)

    def _build(self) -> None:
        """Become what is wanted."""
        engines = tuple(engine.containers.engine() for engine in self._engines.values())
        self._desired = replace(self._desired, engines=engines)
        self._allocation = assign(self._desired, self._allocation, self.seed)
        self.plane.configure(compile_world(self._desired, self._allocation, self.seed, self._policing))
        self._respond()

    def _respond(self) -> None:
        """Have ports answered that are declared, and those on which hosts tell of Services."""
        self._checks = self.control.health_checks()
        answers = answers_of(self._desired.pods, lambda pod, container: False)
        more = [row for engine in self._engines.values() for row in engine.answers()]
        health = health_answers(self._checks, [host.name for host in self.control.cluster.nodes])
        self.plane.respond((*answers, *more, *health), self.clock.now)

    def _fact(self, pod: Pod) -> PodFact:
        """A pod on memory wires is there, with an address and no programs, as soon as it is built."""
        before = self.control.kubelet.facts.get(pod.uid)
        edge = self.plane.world.edges.get(f"{pod.host}:eth0" if pod.host_network else pod.port)
        addresses = tuple(format_ip(row.address) for row in edge.addresses) if edge is not None else ()
        return PodFact(addresses, before.since if before is not None else self.clock.now)

    def _ended(self, pod: Object) -> PodFact:
        """A pod that was told to end has no programs to wait for."""
        before = self.control.kubelet.facts.get(meta(pod)["uid"])
        return replace(before or PodFact((), self.clock.now), stopped=True)

    def link(
        self, wire: str, *, up: bool | None = None, flap: str | None = None, source: str | None = None, **settings: Any
    ) -> None:
        """Change one thing on a wire and keep the rest: `lab.link("host1--switch1", delay="20ms", loss="1%")`.

        The words are those of `emunet link`; `source` names the end whose direction is meant, both without it.
        ValueError for what makes no sense, and then nothing is changed.
        """
        self.plane.trouble.change_wire(wire, WireChange(settings, source, up, flap))

    def partition(self, *groups: Sequence[str]) -> None:
        """Part the hosts into groups that do not hear each other, the unnamed ones together; without any, heal it."""
        self.plane.trouble.part(groups)

    def dns(self, *, on: bool) -> None:
        """End the cluster's name servers, or let them begin again."""
        self.plane.trouble.set_names(self.clock.now, on=on)

    def freeze(self, pod: str) -> None:
        """Stop a pod's stack: what comes waits, and nothing is answered."""
        self.plane.trouble.freeze(pod, self.clock.now, frozen=True)

    def thaw(self, pod: str) -> None:
        """Let a frozen pod go on, with what has come meanwhile."""
        self.plane.trouble.freeze(pod, self.clock.now, frozen=False)

    def exhaust(self, device: str, table: str, capacity: int | None = None) -> None:
        """Let a table of a device hold so many entries at most; without a number it is full with what it holds."""
        self.plane.trouble.limit_table(device, table, capacity)

    def wait(self, until: Callable[[], bool], timeout: float = PATIENCE) -> bool:
        """Let time jump from event to event until something holds; False after `timeout` lab seconds."""
        world = self.plane.world
        limit = world.now + int(timeout * SECOND)
        while not until():
            controllers = self.control.due()
            due = world.due() if controllers is None else min(world.due(), controllers)
            if due == NEVER or due > limit:
                world.advance(limit)
                return until()
            world.advance(max(due, world.now))
            if controllers is not None and controllers <= world.now:
                self.settle()
        return True


class _FileSink:
    """Writes records to a capture file, an interface a port."""

    def __init__(self, writer: PcapngWriter, interfaces: dict[str, int]) -> None:
        self._writer = writer
        self._interfaces = interfaces

    def write(self, record: Record) -> None:
        """Append what passed."""
        for frame in record.frames:
            self._writer.packet(
                self._interfaces[record.port],
                record.at,
                frame,
                direction=INBOUND if record.inbound else OUTBOUND,
                comments=record.comments,
            )


def _documents(topology: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> tuple[Document, ...]:
    if isinstance(topology, str) and "\n" in topology:
        return load_text(topology)
    if isinstance(topology, (str, os.PathLike)):
        return load_files([topology])
    return load_files(topology)


def _settled(ping: Ping) -> bool:
    return ping.rtt_ns is not None or ping.error is not None
