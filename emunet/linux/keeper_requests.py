"""What can be asked of a lab's keeper: each request as the message that it is, and what the answer to it means.

Rule of this file: values only; who sends them is `keeper_client`. Descriptors that come with
an answer belong to whoever takes it.
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from emunet.linux import messages, syscalls
from emunet.linux.specification import (
    InterfaceSpec,
    NeighborSpec,
    ProbeSpec,
    ProgramSpec,
    RouteSpec,
    SandboxSpec,
    encode_network,
)

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A sandbox that is ready.

    `pid` is its pause, as seen outside the lab, and `start_time` tells that process from a later one
    of the same number. `taps` and `drop_counters` (`tap.read_tx_dropped`) are descriptors in the
    order of the interfaces asked for.
    """

    id: str
    pid: int
    start_time: int
    taps: tuple[int, ...]
    drop_counters: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Interfaces:
    """Interfaces added to a sandbox: descriptors in the order they were asked for."""

    taps: tuple[int, ...]
    drop_counters: tuple[int, ...]


class Request(ABC, Generic[Value]):
    """Something asked of the keeper; `Value` is what a good answer means."""

    @abstractmethod
    def encode(self) -> tuple[dict[str, Any], list[int]]:
        """The message and the descriptors that go with it. ValueError where the request makes no sense."""

    @abstractmethod
    def decode(self, message: messages.Message) -> Value:
        """What the answer says; its descriptors are the value's now."""


@dataclass(frozen=True)
class CreateSandbox(Request[Sandbox]):
    """Make a sandbox."""

    spec: SandboxSpec

    def encode(self) -> tuple[dict[str, Any], list[int]]:
        return {"operation": "create", "wanted": self.spec.encode()}, []

    def decode(self, message: messages.Message) -> Sandbox:
        taps, counters = _halves(message.descriptors)
        return Sandbox(self.spec.id, message.sender, syscalls.start_time(message.sender), taps, counters)


@dataclass(frozen=True)
class RemoveSandbox(Request[None]):
    """Kill every process of a sandbox and forget it; answered when they are gone. Closing its TAPs is the caller's."""

    sandbox: str

    def encode(self) -> tuple[dict[str, Any], list[int]]:
        return {"operation": "remove", "sandbox": self.sandbox}, []

    def decode(self, message: messages.Message) -> None:
        return None


@dataclass(frozen=True)
class AttachInterfaces(Request[Interfaces]):
    """Give a running sandbox more interfaces, routes and neighbours. Closing a TAP takes its interface away."""

    sandbox: str
    interfaces: tuple[InterfaceSpec, ...] = ()
    routes: tuple[RouteSpec, ...] = ()
    neighbors: tuple[NeighborSpec, ...] = ()

    def encode(self) -> tuple[dict[str, Any], list[int]]:
        wanted = encode_network(self.interfaces, self.routes, self.neighbors)
        return {"operation": "attach", "sandbox": self.sandbox, "wanted": wanted}, []

    def decode(self, message: messages.Message) -> Interfaces:
        return Interfaces(*_halves(message.descriptors))


@dataclass(frozen=True)
class Spawn(Request[int]):
    """Start a program in a sandbox; the answer is its pid. Streams that are None are /dev/null."""

    sandbox: str
    program: ProgramSpec
    stdin: int | None = None
    stdout: int | None = None
    stderr: int | None = None

    def encode(self) -> tuple[dict[str, Any], list[int]]:
        descriptors: list[int] = []
        standard: list[int | None] = []
        for descriptor in (self.stdin, self.stdout, self.stderr):
            standard.append(None if descriptor is None else len(descriptors))
            if descriptor is not None:
                descriptors.append(descriptor)
        body = {"operation": "spawn", "sandbox": self.sandbox, "wanted": self.program.encode(), "standard": standard}
        return body, descriptors

    def decode(self, message: messages.Message) -> int:
        return message.sender


@dataclass(frozen=True)
class Signal(Request[None]):
    """Send a signal to the program that request number `program` started. KeeperRefused (ESRCH) once it has ended."""

    program: int
    signal: int

    def encode(self) -> tuple[dict[str, Any], list[int]]:
        return {"operation": "signal", "program": self.program, "signal": int(self.signal)}, []

    def decode(self, message: messages.Message) -> None:
        return None


@dataclass(frozen=True)
class Probe(Request[list[list[int | None]]]):
    """Ping from a sandbox: for each target its round trips in nanoseconds, None for a lost one."""

    sandbox: str
    spec: ProbeSpec

    def encode(self) -> tuple[dict[str, Any], list[int]]:
        return {"operation": "probe", "sandbox": self.sandbox, "wanted": self.spec.encode()}, []

    def decode(self, message: messages.Message) -> list[list[int | None]]:
        results: list[list[int | None]] = message.body["results"]
        return results


@dataclass(frozen=True)
class OpenSockets(Request[list[socket.socket]]):
    """Sockets of a sandbox's network, for a process outside of it to connect, listen or sniff with.

    Each is (family, type) or (family, type, protocol). A socket stays in the namespace where it was
    opened, and keeps that namespace alive.
    """

    sandbox: str
    sockets: tuple[tuple[int, int] | tuple[int, int, int], ...]

    def encode(self) -> tuple[dict[str, Any], list[int]]:
        if len(self.sockets) > messages.DESCRIPTORS_MAX:
            raise ValueError(f"{len(self.sockets)} sockets at once: {messages.DESCRIPTORS_MAX} at most")
        wanted = [(int(one[0]), int(one[1]), int(one[2]) if len(one) == 3 else 0) for one in self.sockets]
        return {"operation": "socket", "sandbox": self.sandbox, "sockets": wanted}, []

    def decode(self, message: messages.Message) -> list[socket.socket]:
        return [socket.socket(fileno=descriptor) for descriptor in message.descriptors]


@dataclass(frozen=True)
class WriteFiles(Request[None]):
    """Give files that a sandbox was made with another text, in its own root and in its view of the machine."""

    sandbox: str
    files: Mapping[str, str]
    modes: Mapping[str, int] = field(default_factory=dict)

    def encode(self) -> tuple[dict[str, Any], list[int]]:
        body = {"sandbox": self.sandbox, "files": dict(self.files), "modes": dict(self.modes)}
        return {"operation": "write", **body}, []

    def decode(self, message: messages.Message) -> None:
        return None


def _halves(descriptors: list[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    middle = len(descriptors) // 2
    return tuple(descriptors[:middle]), tuple(descriptors[middle:])
