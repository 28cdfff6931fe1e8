"""A World between kernels: sandboxes whose TAPs are its edges, and a thread that runs the loop.

with Wired(bench, config) as wired:
    wired.join("h1", "r", "e1", SandboxSpec(...))
    wired.start()
    wired.run("h1", "ping", "-c1", "10.0.2.2")
"""

from __future__ import annotations

import os
import shutil
import socket
import threading

import pytest
from kernel_bench import Bench

from emunet.fabric.config import WorldConfig
from emunet.fabric.world import World
from emunet.linux.loop import Loop
from emunet.linux.specification import ProgramSpec, SandboxSpec
from emunet.linux.tap_edge import TapEdge
from emunet.packet.address import InterfaceAddress, parse_mac

PATH = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}


def need(program: str, package: str) -> None:
    """Skip, with the cure, where a program is missing."""
    if shutil.which(program, path=PATH["PATH"]) is None:
        pytest.skip(f"{program} is missing: apt-get install {package}   (or: make deps)")


class Wired:
    """A World of a configuration, whose edges are kernels in sandboxes of the bench."""

    def __init__(self, bench: Bench, config: WorldConfig) -> None:
        self.bench = bench
        self.world = World()
        self.world.configure(config)
        self.loop = Loop(self.world)
        self._edges: list[TapEdge] = []
        self._thread = threading.Thread(target=self.loop.run)
        self._bell, self._ear = socket.socketpair()
        self.loop.add_reader(self._ear.fileno(), self.loop.stop)

    def __enter__(self) -> Wired:
        return self

    def __exit__(self, *error: object) -> None:
        self._bell.send(b"!")
        if self._thread.ident is not None:
            self._thread.join()
        for edge in self._edges:
            self.loop.remove_edge(edge)
        self.loop.close()
        self._bell.close()
        self._ear.close()
        if error == (None, None, None):
            self.balanced()

    def join(self, device: str, entry: str, spec: SandboxSpec) -> None:
        """Make a sandbox; its first interface is joined to a device's port."""
        sandbox = self.bench.make(spec)
        interface = spec.interfaces[0]
        edge = TapEdge(
            spec.id,
            device,
            entry,
            sandbox.taps[0],
            parse_mac(interface.mac),
            tuple(InterfaceAddress.parse(text) for text in interface.addresses),
            (),
            interface.mtu,
        )
        self.world.attach(edge)
        self._edges.append(edge)

    def start(self) -> None:
        """Let frames move."""
        for edge in self._edges:
            self.loop.add_edge(edge)
        self._thread.start()

    def run(self, sandbox: str, *argv: str, code: int | None = 0) -> str:
        """What a program in a sandbox writes; it must end with the code (None: any)."""
        reader, writer = os.pipe()
        pid = self.bench.keeper.spawn(sandbox, ProgramSpec(argv, environment=PATH), stdout=writer, stderr=writer)
        os.close(writer)
        with open(reader, errors="replace") as file:
            text = file.read()
        exited = self.bench.keeper.wait_program(pid)
        assert code is None or exited.code == code, (exited, text)
        return text

    def shell(self, sandbox: str, lines: str) -> str:
        """What lines of shell in a sandbox write; all must succeed."""
        return self.run(sandbox, "/bin/sh", "-e", "-c", lines)

    def balanced(self) -> None:
        """The law holds."""
        assert self.world.ledger.balance == 0, self.world.ledger.as_dict()
        for device in self.world.devices.values():
            assert device.ledger.balance == 0, (device.name, device.ledger.as_dict())
