"""A plane on memory wires that runs in a thread, with its frame server: what a lab is to those who watch it."""

from __future__ import annotations

import os
import queue
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from emunet.cluster.assign import assign
from emunet.cluster.build import build
from emunet.cluster.compile import compile
from emunet.cluster.load import load_files
from emunet.daemon.frame_format import PortInfo
from emunet.daemon.frames import FrameServer
from emunet.daemon.port_facts import ports_of
from emunet.fabric.edge import MemoryEdges
from emunet.lab.plane import Plane
from emunet.linux.loop import Loop
from emunet.packet import icmp, ipv4
from emunet.packet.address import parse_ip, parse_mac

TOPOLOGIES = Path(__file__).parent.parent / "topologies"


class RunningPlane:
    """Two hosts (or another topology) whose frames can be watched at `path`."""

    def __init__(self, folder: Path, topology: str = "two-hosts", epoch: int | None = None) -> None:
        desired = build(load_files([TOPOLOGIES / f"{topology}.yaml"]))
        self.config = compile(desired, assign(desired))
        self.plane = Plane(0, MemoryEdges(0).make)
        self.plane.configure(self.config)
        self.path = folder / "frames.sock"
        self.loop = Loop(self.plane.world)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(os.fspath(self.path))
        listener.listen()
        self.server = FrameServer(self.loop, self.plane, listener, epoch)
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._bell, ear = socket.socketpair()
        self._ear = ear
        self.loop.add_reader(ear.fileno(), self._take_calls)
        self._thread = threading.Thread(target=self.loop.run)
        self._thread.start()

    def __enter__(self) -> RunningPlane:
        return self

    def __exit__(self, *error: object) -> None:
        self.call(self.loop.stop)
        self._thread.join()
        self.server.close()
        self.loop.close()
        self._bell.close()
        self._ear.close()
        os.unlink(self.path)

    def call(self, function: Callable[[], Any]) -> Any:
        """Call a function between two rounds of the loop; gives its result."""
        results: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

        def run() -> None:
            try:
                results.put((function(), None))
            except BaseException as error:  # for the test's own thread
                results.put((None, error))

        self._calls.put(run)
        self._bell.send(b"!")
        result, error = results.get(timeout=30)
        if error is not None:
            raise error
        return result

    def _take_calls(self) -> None:
        for _ in self._ear.recv(64):
            self._calls.get()()

    def port(self, name: str) -> PortInfo:
        """What is known of a port."""
        return next(info for info in ports_of(self.config) if info.name == name)

    def echo(self, source: str, target: str, sequence: int = 1, ttl: int = 64, size: int = 0) -> bytes:
        """The frame of an echo request from one pod to another, as the first one's own stack would send it."""
        sender, receiver = self.port(source), self.port(target)
        hop = receiver if sender.device == receiver.device else self.port(f"{sender.device}:cni0")
        ends = [parse_ip(info.addresses[0].partition("/")[0]) for info in (sender, receiver)]
        message = icmp.echo_request(7, sequence, bytes(size)).pack()
        packet = ipv4.IPv4(ends[0], ends[1], ipv4.ICMP, ttl).pack(message)
        return parse_mac(hop.mac) + parse_mac(sender.mac) + b"\x08\x00" + packet

    def balance(self) -> set[int]:
        """What the law of conservation misses: {0}."""
        return set(self.call(self.plane.balance).values())
