"""The plane: the process that moves frames. One thread, one loop, one World.

    python -m emunet.daemon.plane_process DESCRIPTOR

It is told what to do over the socket that it inherits: JSON messages, with descriptors
where one is needed (`linux.messages`). Each request has a number and gets one answer with
that number; what takes time (a live trace, an echo) is answered later, and nothing waits
for it. When the socket closes, the plane closes its TAPs and ends.

Rule of this file: it loads nothing that serves people (no YAML, schema, server or asyncio),
never waits for control, and does at most one request between two rounds of frames.
"""

from __future__ import annotations

import gc
import os
import pickle
import resource
import signal
import socket
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from emunet.daemon.frames import FrameServer
from emunet.daemon.plane_trouble import Answer, trouble_calls
from emunet.elements.connections import ServiceChange
from emunet.elements.endpoint.echo import Ping
from emunet.elements.policies.rules import Row
from emunet.elements.responder import of_row
from emunet.fabric.config import HostEdge, OutsideConfig, PodEdge, WorldConfig
from emunet.fabric.edge import Edge, FrozenEdge, MemoryEdge, MemoryEdges
from emunet.fabric.names import UnknownPort
from emunet.fabric.sources import host_source
from emunet.lab.plane import Answers, Plane
from emunet.linux import messages, syscalls
from emunet.linux.loop import Loop
from emunet.linux.outside import Outside
from emunet.linux.tap import close_many
from emunet.linux.tap_edge import TapEdge
from emunet.packet.address import parse_ip
from emunet.plane.faults import Fault
from emunet.plane.trace import Trace

TRACE_LIMIT = 4 * 1_000_000_000
TRACE_PAUSE = 20 * 1_000_000
ECHO_PAUSE = 5 * 1_000_000
ENDING_SECONDS = 5


class Refused(Exception):
    """A request that makes no sense here: the sentence of its answer."""


class PlaneProcess:
    """The World of a lab, and the socket over which control asks for things."""

    def __init__(self, control: socket.socket, wires: str, seed: int, speed: float, flow_cache: bool) -> None:
        self._control = control
        self._wires = wires
        self._memory = MemoryEdges(seed)
        self._taps: dict[str, int] = {}  # TAPs that have come and wait for their edges
        self._gone: list[int] = []
        self._outside: dict[OutsideConfig, Outside] = {}
        self.plane = Plane(seed, self._make_edge, self._drop_edge, flow_cache=flow_cache)
        self.plane.world.faults.tell = _log
        self.loop = Loop(self.plane.world, speed)
        self._frames: FrameServer | None = None
        self._unsent: deque[dict[str, Any]] = deque()
        self._watching = False
        self._calls: dict[str, Callable[[dict[str, Any], list[int], Answer], None]] = {
            "taps": self._take_taps,
            "configure": self._configure,
            "policies": self._policies,
            "services": self._change_services,
            "respond": self._respond,
            "names": self._serve_names,
            "frames": self._serve_frames,
            "trace": self._trace,
            "onward": self._onward,
            "exchange": self._exchange,
            "echo": self._echo,
            "counters": self._counters,
            "traffic": self._traffic,
            "tables": self._tables,
            "ports": self._ports,
            "jump": self._jump,
            **trouble_calls(self.plane, self.loop),
        }
        self.loop.add_reader(control.fileno(), self._read)

    def run(self) -> None:
        """Move frames until control lets go."""
        self.loop.run()
        self.plane.end_recording()
        self._control.close()
        self._plug(())
        edges = [edge.fd for edge in self.plane.world.edges.values() if isinstance(edge, TapEdge)]
        close_many([*edges, *self._taps.values(), *self._gone])

    # The socket

    def _read(self) -> None:
        try:
            message = messages.receive(self._control, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        if message is None:
            self.loop.stop()
            return
        body = message.body
        number = body["request"]

        def answer(result: Any) -> None:
            self._send({"request": number, "result": result})

        try:
            self._calls[body["call"]](body, message.descriptors, answer)
        except UnknownPort as error:
            self._send({"request": number, "kind": "unknown", "error": str(error)})
        except ValueError as error:
            self._send({"request": number, "kind": "invalid", "error": str(error)})
        except Refused as error:
            self._send({"request": number, "kind": "refused", "error": str(error)})
        except Exception as error:  # a fault of ours in one answer must not end the frames of everybody
            traceback.print_exc()
            sentence = f"emunet has a fault ({error!r}); the lab's log has the place"
            self._send({"request": number, "kind": "fault", "error": sentence})

    def _send(self, body: dict[str, Any]) -> None:
        self._unsent.append(body)
        self._flush()

    def _flush(self) -> None:
        """Send what waits, as far as control takes it; a control that is slow stops nothing here."""
        while self._unsent:
            try:
                messages.send(self._control, self._unsent[0], (), socket.MSG_DONTWAIT)
            except BlockingIOError:
                if not self._watching:
                    self._watching = True
                    self.loop.add_writer(self._control.fileno(), self._flush)
                return
            except OSError:  # control is gone; `_read` finds that out
                self._unsent.clear()
                break
            self._unsent.popleft()
        if self._watching:
            self._watching = False
            self.loop.remove_writer(self._control.fileno())

    # Edges

    def _make_edge(self, wanted: PodEdge | HostEdge, config: WorldConfig) -> Edge:
        if self._wires == "memory" or any(router.name == wanted.device for router in config.routers):
            return self._memory.make(wanted, config)
        descriptor = self._taps.pop(wanted.name)
        if isinstance(wanted, PodEdge):
            edge = TapEdge(
                wanted.name, wanted.device, wanted.name, descriptor, wanted.mac, wanted.addresses, wanted.gateways,
                wanted.mtu,
            )  # fmt: skip
        else:
            host = next(host for host in config.hosts if host.name == wanted.device)
            interface = next(one for one in host.interfaces if one.name == wanted.interface)
            edge = TapEdge(
                wanted.name, wanted.device, f"local:{wanted.interface}", descriptor, interface.mac,
                interface.addresses, (), interface.mtu,
            )  # fmt: skip
        self.loop.add_edge(edge)
        return edge

    def _drop_edge(self, edge: Edge) -> None:
        if isinstance(edge, TapEdge):
            self.loop.remove_edge(edge)
            self._gone.append(edge.fd)

    def _plug(self, wanted: tuple[OutsideConfig, ...]) -> None:
        """Have these wires that leave the lab, and no others. ValueError where a socket is not to be had."""
        for config in [config for config in self._outside if config not in wanted]:
            self._outside.pop(config).close()
        for config in wanted:
            if config not in self._outside:
                descriptor = self._taps.pop(config.name) if config.kind == "given" else None
                given = None if descriptor is None else socket.socket(fileno=descriptor)
                self._outside[config] = Outside(config, self.loop, given)

    def _take_taps(self, body: dict[str, Any], descriptors: list[int], answer: Answer) -> None:
        """TAPs (and sockets of wires that leave the lab) for edges that the next configuration brings.

        A wire that is there already has the socket for its other end from here on.
        """
        there = {config.name: outside for config, outside in self._outside.items()}
        for name, descriptor in zip(body["names"], descriptors, strict=True):
            os.set_blocking(descriptor, False)
            if name in there:
                there[name].plug(socket.socket(fileno=descriptor))
            else:
                self._taps[name] = descriptor
        answer(None)

    def _configure(self, body: dict[str, Any], descriptors: list[int], answer: Answer) -> None:
        """Become this World: a pickle in a file in memory, written by our own control process."""
        with open(descriptors[0], "rb") as file:
            file.seek(0)
            config: WorldConfig = pickle.load(file)
        config = replace(config, services=self.plane.world.config.services)  # they come by themselves
        if self._wires != "memory":
            known = self._taps.keys() | self.plane.world.edges.keys()
            wanted: list[PodEdge | HostEdge] = [*config.pods, *config.host_edges]
            missing = [edge.name for edge in wanted if edge.name not in known]
            if missing:
                raise Refused(f"no TAP has come for {', '.join(missing)}")
        self.plane.configure(config)
        self._plug(config.outside)
        if self._gone:  # closing a TAP takes the kernel 30 ms: frames do not wait for that
            threading.Thread(target=close_many, args=(self._gone,), daemon=True).start()
            self._gone = []
        # All that is there now stays for long: the collector need not walk it again and again while frames wait.
        gc.collect()
        gc.freeze()
        answer(None)

    def _change_services(self, body: dict[str, Any], descriptors: list[int], answer: Answer) -> None:
        """Let hosts have other rows of Services: a pickle as in `_configure`, small enough to stop nothing."""
        with open(descriptors[0], "rb") as file:
            file.seek(0)
            change: ServiceChange = pickle.load(file)
        self.plane.change_services(change)
        answer(None)

    def _respond(self, body: dict[str, Any], descriptors: list[int], answer: Answer) -> None:
        """Answer on the declared ports of pods in memory."""
        answers = [
            Answers(edge, of_row(identity), tuple((protocol, port) for protocol, port in ports))
            for edge, identity, ports in body["answers"]
        ]
        self.plane.respond(answers, self.loop.now())
        answer(None)

    def _serve_names(self, body: dict[str, Any], descriptors: list[int], answer: Answer) -> None:
        """Let pods in memory be name servers, and know what has changed."""
        if body["line"]:
            self.plane.learn_names(body["line"].encode())
        self.plane.serve_names(body["servers"], self.loop.now())
        answer(None)

    def _policies(self, body: dict[str, Any], descriptors: list[int], answer: Answer) -> None:
        """Other policies on a host, a few rows of what leads to them."""
        with open(descriptors[0], "rb") as file:
            file.seek(0)
            rows: list[Row] = pickle.load(file)
        self.plane.change_policies(body["host"], rows)
        answer(None)

    # What control asks for itself

    def _serve_frames(self, body: dict[str, Any], descriptors: list[int], answer: Answer) -> None:
        self._frames = FrameServer(self.loop, self.plane, socket.socket(fileno=descriptors[0]))
        answer(None)

    def _jump(self, body: dict[str, Any], descriptors: list[int], answer: Answer) -> None:
        if self._wires != "memory":
            raise Refused("time is the kernel's on TAP wires: only a lab on memory wires can jump ahead")
        self.loop.jump(body["nanoseconds"])
        answer(None)

    # What people ask

    def _trace(self, body: dict[str, Any], descriptors: list[int], answer: Answer) -> None:
        """Follow a frame; a live one until its fate is known, or for four seconds."""
        now = self.loop.now()
        data, live = bytes.fromhex(body["data"]), body["live"]
        trace = self.plane.trace(body["port"], data, now, is_frame=body["is_frame"], live=live)
        limit = now + TRACE_LIMIT

        def look(now: int) -> None:
            if live and trace.verdict == "queued" and now < limit:
                self.plane.world.at(now + TRACE_PAUSE, look)
            else:
                answer(_trace_body(trace))

        look(now)

    def _onward(self, body: dict[str, Any], descriptors: list[int], answer: Answer) -> None:
        """What would become of a frame that passes a port, from there on."""
        frame = bytes.fromhex(body["data"])
        answer(_trace_body(self.plane.onward(body["port"], frame, inbound=body["inbound"])))

    def _exchange(self, body: dict[str, Any], descriptors: list[int], answer: Answer) -> None:
        """What would become of a question and its answer."""
        target, number = bytes.fromhex(body["target"]), body["number"]
        answer(self.plane.exchange(body["port"], target, body["protocol"], number).as_dict())

    def _echo(self, body: dict[str, Any], descriptors: list[int], answer: Answer) -> None:
        """Echo requests from a memory edge to many targets; for each target its round trips in ns, None for a lost one.

        As `linux.probe` does from a sandbox: `count` requests to each target, `interval` seconds apart.
        """
        targets = [parse_ip(target) for target in body["targets"]]
        records: list[list[Ping]] = [[] for _ in targets]
        interval, timeout = int(body["interval"] * 1e9), int(body["timeout"] * 1e9)
        world = self.plane.world
        senders = [self._sender(body["port"], target) for target in targets]

        def ask(now: int) -> None:
            for target, (edge, source), row in zip(targets, senders, records, strict=True):
                sequence = len(row) + 1
                record, frames = edge.endpoint.ping(target, now, sequence=sequence, size=body["size"], source=source)
                row.append(record)
                world.send(edge, frames, now)
            if len(records[0]) < body["count"]:
                world.at(now + interval, ask)
            else:
                look(now, now + timeout)

        def look(now: int, limit: int) -> None:
            waiting = any(record.replied_at is None and record.error is None for row in records for record in row)
            if waiting and now < limit:
                world.at(min(now + ECHO_PAUSE, limit), lambda then: look(then, limit))
            else:
                answer([[record.rtt_ns for record in row] for row in records])

        ask(self.loop.now())

    def _sender(self, port: str, target: bytes) -> tuple[MemoryEdge, bytes | None]:
        """The edge by which a pod or host sends to an address, and the address that it sends from."""
        edge = self.plane.edge(port)
        host = next((host for host in self.plane.world.config.hosts if host.name == port), None)
        way = host_source(host, target) if host is not None else None
        if way is not None:
            edge = self.plane.edge(f"{port}:{way[0]}")
        if isinstance(edge, FrozenEdge):
            raise Refused(f"{port} is frozen: `emunet freeze {port} --thaw` lets it go on")
        if not isinstance(edge, MemoryEdge):
            raise Refused("a kernel sends its own echo requests on TAP wires")
        return edge, way[1] if way is not None else None

    def _counters(self, body: dict[str, Any], descriptors: list[int], answer: Answer) -> None:
        answer(self.plane.counters() | {"late_ns": self.loop.late, "now_ns": self.loop.now()})

    def _traffic(self, body: dict[str, Any], descriptors: list[int], answer: Answer) -> None:
        answer(self.plane.traffic() | {"now_ns": self.loop.now()})

    def _tables(self, body: dict[str, Any], descriptors: list[int], answer: Answer) -> None:
        answer(self.plane.tables(body["device"]))

    def _ports(self, body: dict[str, Any], descriptors: list[int], answer: Answer) -> None:
        answer(self.plane.world.port_names())


def _log(fault: Fault) -> None:
    """Tell the lab's log of a fault of ours."""
    with suppress(OSError):  # a disk that is full: `status` tells of it too
        print(f"emunet has a fault, please report it: {fault.as_text()}", file=sys.stderr, flush=True)


def _trace_body(trace: Trace) -> dict[str, Any]:
    return trace.as_dict() | {"text": trace.as_text()}


def main() -> None:
    """Run until control lets go. The first message says what kind of lab it is."""
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    syscalls.set_process_name("emunet-plane")
    syscalls.set_timer_slack(1)
    # When control dies this process finds its socket closed and ends in order; and were it stuck, by force.
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(ENDING_SECONDS))
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGTERM, "asking to be told of the end of control")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    first = messages.receive(control)
    if first is None:
        return
    body = first.body
    for standard in (1, 2):  # from here on what this process has to say goes to the lab's log
        os.dup2(first.descriptors[0], standard)
    os.close(first.descriptors[0])
    process = PlaneProcess(control, body["wires"], body["seed"], body["speed"], body["flow_cache"])
    messages.send(control, {"request": body["request"], "result": None})
    process.run()
    sys.stderr.flush()
    os._exit(0)  # taking a World apart object by object takes a second, and nobody waits for it but `emunet down`


if __name__ == "__main__":
    main()
