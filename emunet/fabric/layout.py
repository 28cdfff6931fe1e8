"""Layout: the devices of a World, the wires between them, the edges at their ports, and how they become others.

Learned state survives where an element's structure did not change: a device is changed in
place where it can be, and made anew where it cannot.

Rule of this file: nothing moves here; frames are the World's business.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from emunet.fabric import names
from emunet.fabric.config import HostConfig, WireConfig
from emunet.fabric.edge import Edge
from emunet.fabric.host import build_host, reconfigure_host
from emunet.fabric.names import DeviceConfig, UnknownPort
from emunet.fabric.switch import build_switch
from emunet.fabric.wire import Wire
from emunet.plane.device import Device
from emunet.plane.ledger import Ledger
from emunet.plane.reason import Reason
from emunet.plane.table import Table, Watch

if TYPE_CHECKING:
    from emunet.fabric.world import World


class Layout:
    """What there is. The dictionaries stay the same objects as long as their World: it uses them for each frame."""

    def __init__(self, watch: Watch, figures: Ledger, seed: int, connect: Callable[[Device], None]) -> None:
        self.devices: dict[str, Device] = {}
        self.configs: dict[str, DeviceConfig] = {}
        self.wires: dict[str, Wire] = {}
        self.ends: dict[tuple[str, str], tuple[Wire, int]] = {}
        """Which end of which wire is in a port of a device."""
        self.edges: dict[str, Edge] = {}
        self.edge_at: dict[tuple[str, str], Edge] = {}
        self.pods: dict[str, frozenset[str]] = {}
        """The ports of each device that lead to pods."""
        self._off: set[str] = set()
        self._watch = watch
        self._figures = figures
        self._seed = seed
        self._connect = connect

    # Devices

    def become(self, devices: tuple[DeviceConfig, ...]) -> None:
        """Have these devices: what is new is built, what changed is changed, what is gone goes."""
        wanted = {config.name: config for config in devices}
        for name in [name for name in self.devices if name not in wanted]:
            self._remove(name)
        for name, config in wanted.items():
            old = self.configs.get(name)
            if old == config:
                continue
            if (
                isinstance(old, HostConfig)
                and isinstance(config, HostConfig)
                and reconfigure_host(self.devices[name], old, config)
            ):
                self.configs[name] = config
            else:
                self._place(config)
        self.pods.clear()
        self.pods.update((name, names.pod_ports(wish)) for name, wish in self.configs.items())

    def device(self, name: str) -> Device:
        """The device of that name; UnknownPort with what there is otherwise."""
        found = self.devices.get(name)
        if found is None:
            raise UnknownPort(f"there is no device {name}; there are: {', '.join(self.devices)}")
        return found

    def set_power(self, device: Device, *, on: bool) -> None:
        """Take a device's power away, and with it all that it held and learned; or give it back."""
        if on:
            self._off.discard(device.name)
            device.off = False
            return
        self._off.add(device.name)
        figures = device.figures
        self._place(self.configs[device.name])
        self.devices[device.name].figures = figures  # its counters are the experimenter's, not its own
        figures.drop(Reason.DEVICE_OFF, figures.queued)
        figures.queued = 0

    def _place(self, config: DeviceConfig) -> None:
        if isinstance(config, HostConfig):
            device = build_host(config, self._watch, self._figures, self._seed)
        else:
            device = build_switch(config, self._watch, self._figures)
        old = self.devices.get(config.name)
        if old is not None:
            self._abandon(old)
        device.off = config.name in self._off
        self.devices[config.name] = device
        self.configs[config.name] = config
        self._connect(device)

    def _remove(self, name: str) -> None:
        self._abandon(self.devices.pop(name))
        del self.configs[name]
        self._off.discard(name)
        for edge in [edge for edge in self.edges.values() if edge.device == name]:
            self.detach(edge.name)

    def _abandon(self, device: Device) -> None:
        """What a device held when it went is dropped, with a reason."""
        held = device.figures.queued
        if held:
            self._figures.queued -= held
            self._figures.drop(Reason.DEVICE_OFF if device.name in self._off else Reason.DEVICE_GONE, held)

    def forget_stations(self, device: str, lost: str) -> None:
        """A port lost its link: what a bridge learned there goes at once (BR-14)."""
        for table in self.devices[device].state() if device in self.devices else ():
            if isinstance(table, Table) and table.name.endswith(" stations"):
                table.delete_where(lambda mac, port: port == lost)

    # Wires

    def join(self, wires: tuple[WireConfig, ...], world: World) -> set[str]:
        """Plug the wires in as they are to be; the names of those that are new."""
        wanted = {wire.name: wire for wire in wires}
        self.ends.clear()
        kept = {name for name, row in wanted.items() if name in self.wires and self.wires[name].ends == (row.a, row.b)}
        for name in self.wires.keys() - kept:
            del self.wires[name]
        for name, config in wanted.items():
            wire = self.wires.get(name)
            if wire is None:
                wire = self.wires[name] = Wire(name, config.a, config.b, world)
            self.ends[config.a] = (wire, 0)
            self.ends[config.b] = (wire, 1)
        return wanted.keys() - kept

    def wire(self, name: str) -> Wire:
        """The wire of that name; UnknownPort with what there is otherwise."""
        found = self.wires.get(name)
        if found is None:
            raise UnknownPort(f"there is no wire {name}; there are: {', '.join(self.wires)}")
        return found

    # Edges and ports

    def attach(self, edge: Edge) -> None:
        """Join a stack to its port. UnknownPort where there is none."""
        device = self.devices.get(edge.device)
        if device is None or edge.entry not in device.entries:
            raise UnknownPort(f"{edge.name}: {edge.device} has no port {edge.entry}")
        self.edges[edge.name] = edge
        self.edge_at[edge.device, edge.entry] = edge

    def detach(self, name: str) -> Edge | None:
        """Take a stack away, if it is there."""
        edge = self.edges.pop(name, None)
        if edge is not None:
            self.edge_at.pop((edge.device, edge.entry), None)
            self.forget_stations(edge.device, edge.entry)
        return edge

    def locate(self, port: str) -> tuple[Device, str, str]:
        """A port's name -> (device, entry, interface inside the device or "")."""
        return names.locate(port, self.devices, self.edges, self.port_names())

    def port_names(self) -> list[str]:
        """Every port that can be watched, as people name them."""
        return names.port_names(self.devices, self.configs)
