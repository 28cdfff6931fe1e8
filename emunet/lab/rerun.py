"""A recording, played again on memory wires: the same inputs between the same events, and whether it came out the same.

At each edge is nobody: what a stack answered then is among the inputs, so the stacks need
not be there, be they kernels or ours. That makes a recording of a lab on TAP wires, taken
anywhere, a test case that needs no Linux.

Rule of this file: nothing is decided here; the World decides again, and its decisions are compared.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from emunet.elements.connections import ServiceChange
from emunet.fabric.capture import Sink
from emunet.fabric.config import HostConfig, HostEdge, OutsideConfig, PodEdge, WorldConfig
from emunet.fabric.config_text import decode
from emunet.fabric.names import UnknownPort
from emunet.fabric.recording import Entry, Recording, Tally
from emunet.lab.plane import Plane
from emunet.lab.trouble import WireChange
from emunet.packet.address import InterfaceAddress
from emunet.packet.offload import Offload
from emunet.plane.table import NEVER


class SilentEdge:
    """An end with nobody behind it: it counts what comes, and refuses what was refused then."""

    keeps_time = False

    def __init__(
        self,
        wanted: PodEdge | HostEdge | OutsideConfig,
        host: HostConfig | None,
        tally: Tally,
        refused: Sequence[list[int]],
    ) -> None:
        self.name = wanted.name
        self.device = wanted.device
        self.gateways: tuple[bytes, ...] = ()
        self.mac: bytes
        self.addresses: tuple[InterfaceAddress, ...]
        if isinstance(wanted, OutsideConfig):
            self.entry, self.mac, self.addresses, self.mtu = wanted.port, b"", (), wanted.mtu
        elif isinstance(wanted, PodEdge):
            self.entry, self.mac, self.addresses, self.mtu = wanted.name, wanted.mac, wanted.addresses, wanted.mtu
            self.gateways = wanted.gateways
        else:
            assert host is not None
            interface = next(one for one in host.interfaces if one.name == wanted.interface)
            self.entry = f"local:{wanted.interface}"
            self.mac, self.addresses, self.mtu = interface.mac, interface.addresses, interface.mtu
        self._tally = tally
        self._refused = {first + number for first, count in refused for number in range(count)}

    def deliver(self, frame: bytes, offload: Offload | None, now: int) -> Sequence[bytes] | None:
        """Count it."""
        first = self._tally.add(self.name, frame, offload, now)
        return None if first in self._refused else ()

    def due(self) -> int:
        """Never."""
        return NEVER

    def wake(self, now: int) -> Sequence[bytes]:
        """Nothing."""
        return ()


@dataclass(slots=True)
class Rerun:
    """A recording on its way: `plane` can be asked what any plane can, between two inputs.

    `differences` says what did not come out as it did then; empty, if all did.
    """

    recording: Recording
    flow_cache: bool | None = None
    inputs: int = 0
    differences: list[str] = field(default_factory=list)
    plane: Plane = field(init=False)
    _tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        cache = self.recording.flow_cache if self.flow_cache is None else self.flow_cache
        self.plane = Plane(self.recording.seed, self._make_edge, flow_cache=cache)
        self.plane.world.now = self.recording.began

    @property
    def same(self) -> bool:
        """Whether all came out as it did then. ValueError where the recording was cut off and cannot say."""
        if self.recording.delivered is None:
            raise ValueError("the recording was cut off: it does not say what came of it")
        return not self.differences

    @property
    def now(self) -> int:
        """Lab time (ns)."""
        return self.plane.world.now

    def run(self, until: Callable[[], bool] | None = None) -> Rerun:
        """Let everything happen, to the end or until something holds after an input; then compare."""
        world = self.plane.world
        for entry in self.recording.entries[self.inputs :]:
            while world.events < entry.events and world.due() <= entry.at:
                world.step()
            self.inputs += 1
            with suppress(ValueError, UnknownPort):  # what was refused then is refused again
                self._let_in(entry)
            if until is not None and until():
                return self
        self._compare()
        return self

    def tap(self, ports: Iterable[str], sink: Sink) -> None:
        """Watch ports from the first input on: they exist once the first configuration is there."""
        wanted = list(ports)
        self.run(lambda: bool(self.plane.world.devices))
        self.plane.tap(wanted or self.plane.world.port_names(), sink)

    def _make_edge(self, wanted: PodEdge | HostEdge, config: WorldConfig) -> SilentEdge:
        host = next(host for host in config.machines if host.name == wanted.device)
        return SilentEdge(wanted, host, self._tally, self.recording.refused.get(wanted.name, ()))

    def _let_in(self, entry: Entry) -> None:
        world, trouble, said = self.plane.world, self.plane.trouble, entry.said or {}
        world.now = entry.at
        match entry.command:
            case "" if entry.inject:
                world.inject(entry.port, entry.frame, entry.at)
            case "":
                edge = world.edges.get(entry.port)
                if edge is None:
                    self.differences.append(f"at {entry.at} ns: there is no {entry.port} to send a frame")
                else:
                    world.receive(edge, entry.frame, entry.at)
            case "configure":
                config = decode(said["config"])
                self.plane.configure(config)
                for one in config.outside:
                    if one.name not in world.edges:
                        refused = self.recording.refused.get(one.name, ())
                        world.attach(SilentEdge(one, None, self._tally, refused))
            case "services":
                gone = tuple((name, family) for name, family in said["gone"])
                self.plane.change_services(ServiceChange(gone, decode(said["put"])))
            case "wire":
                trouble.change_wire(said["wire"], WireChange(**said["change"]))
            case "partition":
                trouble.part(said["groups"])
            case "power":
                trouble.set_power(said["device"], on=said["on"])
            case "limit":
                trouble.limit_table(said["device"], said["table"], said["capacity"])
            case "end":
                pass

    def _compare(self) -> None:
        then = self.recording
        if then.delivered is None or then.ledger is None:
            return
        now = self._tally.as_dict()
        for edge in sorted(now.keys() | then.delivered.keys()):
            before, after = then.delivered.get(edge, [0, ""]), now.get(edge, [0, ""])
            if before[0] != after[0]:
                self.differences.append(f"{edge} got {after[0]:,} frames, and {before[0]:,} then")
            elif before != after:
                self.differences.append(
                    f"{edge} got {after[0]:,} frames as it did then, but other ones or at other times"
                )
        ledger: dict[str, Any] = self.plane.world.ledger.as_dict()
        for name in sorted(ledger.keys() | then.ledger.keys()):
            if ledger.get(name) != then.ledger.get(name):
                self.differences.append(f"{name}: {ledger.get(name)}, and {then.ledger.get(name)} then")


def rerun(path: str | os.PathLike[str], *, flow_cache: bool | None = None) -> Rerun:
    """Play a recording again, to its end. NotARecording, OSError."""
    return Rerun(Recording.load(path), flow_cache).run()


__all__ = ["Rerun", "SilentEdge", "rerun"]
