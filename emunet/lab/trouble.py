"""Trouble in a lab: what can go wrong there on purpose, as requests with plain values.

Wires are impaired, flap, go down; hosts are parted, devices lose their power, the stacks
of pods freeze, tables are full. A `Lab` calls this directly, the plane process of a
running lab for messages. (Freezing the processes of a pod on TAP wires is not here: they
are the kernel's, and `daemon.processes` speaks with it.)

Rule of this file: a request is carried out whole or refused whole, with a sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from emunet.fabric.edge import FrozenEdge, MemoryEdge
from emunet.fabric.impairment import Impairment, parse_flap
from emunet.fabric.names import LOCAL_PREFIX, UnknownPort
from emunet.plane.table import Table

if TYPE_CHECKING:
    from emunet.fabric.world import World
    from emunet.lab.plane import Plane


@dataclass(frozen=True, slots=True)
class WireChange:
    """What to change on a wire, in the words of `emunet link`; None and empty: keep it.

    `source` is the device from whose end the settings count; both ways without it.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    source: str | None = None
    up: bool | None = None
    flap: object = None

    def __post_init__(self) -> None:
        if self.flap is not None:
            parse_flap(self.flap)
            if self.up is not None:
                raise ValueError("a wire that is put up or down stays so: leave flap out, or --up and --down")


def check_settings(settings: dict[str, Any]) -> None:
    """ValueError where a setting means nothing, whatever else is set on the wire."""
    alone = dict(settings)
    if "jitter" in alone and "delay" not in alone:
        alone["delay"] = alone["jitter"]  # the wire may have a delay
    Impairment().changed(alone)


class Trouble:
    """What can be done to a running data plane."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane

    @property
    def _world(self) -> World:
        return self._plane.world

    def wires(self) -> list[dict[str, Any]]:
        """Every wire, its ends, and what is set on it."""
        return [self._world.trouble.described(wire) for wire in self._world.wires.values()]

    def change_wire(self, wire: str, change: WireChange) -> None:
        """Change what `change` says and keep the rest: all of it, or nothing where some of it makes no sense."""
        trouble = self._world.trouble
        self._world.wire(wire)
        self._plane.note("wire", wire=wire, change=asdict(change))
        if change.settings:
            trouble.change(wire, change.settings, change.source)
        if change.up is not None:
            trouble.set_up(wire, change.up)
        if change.flap is not None:
            trouble.flap(wire, parse_flap(change.flap))

    def settings_of(self, wire: str) -> list[dict[str, Any]]:
        """The changes that make a plain wire what this one is: one for each direction, and whether it is up."""
        shown = self._world.trouble.described(self._world.wire(wire))
        rows = [asdict(WireChange(settings, device)) for device, settings in shown["from"].items() if settings]
        if shown["flap"] is not None:
            rows.append(asdict(WireChange(flap=shown["flap"])))
        elif not shown["up"]:
            rows.append(asdict(WireChange(up=False)))
        return rows

    def part(self, groups: Sequence[Sequence[str]]) -> None:
        """Part the hosts into groups that do not hear each other; none: all hear all again."""
        self._plane.note("partition", groups=[list(group) for group in groups])
        self._world.trouble.part(groups)

    def groups(self) -> list[list[str]]:
        """The groups that the hosts are parted into; none where they are not."""
        return [list(group) for group in self._world.trouble.groups]

    def set_power(self, device: str, *, on: bool) -> None:
        """Take a device's power away, or give it back. On memory wires its pods' stacks begin anew."""
        self._plane.note("power", device=device, on=on)
        self._world.set_power(device, on=on)
        for pod in self._plane.pods_on(device) if not on else ():
            if isinstance(self._world.edges[pod], MemoryEdge | FrozenEdge):
                self._plane.renew(pod)

    def powered(self) -> dict[str, bool]:
        """Whether each device has power."""
        return {name: not device.off for name, device in self._world.devices.items()}

    def freeze(self, pod: str, now: int, *, frozen: bool) -> None:
        """Stop a pod's own stack, or let it go on. ValueError where the stack is a kernel's."""
        world = self._world
        edge = world.edges.get(pod)
        if edge is None or edge.entry.startswith(LOCAL_PREFIX):
            names = [name for name, one in world.edges.items() if not one.entry.startswith(LOCAL_PREFIX)]
            raise UnknownPort(f"there is no pod {pod}; there are: {', '.join(sorted(names))}")
        if isinstance(edge, FrozenEdge):
            if not frozen:
                world.attach(edge.edge)
                world.send(edge.edge, edge.thaw(now), now)
        elif not isinstance(edge, MemoryEdge):
            raise ValueError(f"the stack of {pod} is a kernel's: its processes are what can be frozen")
        elif frozen:
            world.attach(FrozenEdge(edge))

    def set_names(self, now: int, *, on: bool) -> None:
        """End the name servers of pods in memory, or let them begin again."""
        self._plane.set_names(now, on=on)

    def frozen(self) -> list[str]:
        """The pods whose own stacks are frozen."""
        return [name for name, edge in self._world.edges.items() if isinstance(edge, FrozenEdge)]

    def limit_table(self, device: str, name: str, capacity: int | None) -> dict[str, int]:
        """Let a table of a device hold so many entries at most (None: what it holds now, so that it is full).

        Gives its size, what it may hold, and how many entries had to go.
        """
        found = self._world.devices.get(device)
        if found is None:
            raise UnknownPort(f"there is no device {device}; there are: {', '.join(self._world.devices)}")
        tables = {table.name: table for table in found.state() if isinstance(table, Table)}
        table = tables.get(name)
        if table is None:
            raise UnknownPort(f"{device} has no table {name}; it has: {', '.join(tables)}")
        if capacity is not None and capacity < 1:
            raise ValueError("a table holds at least one entry")
        self._plane.note("limit", device=device, table=name, capacity=capacity)
        gone = table.limit(max(1, len(table)) if capacity is None else capacity)
        self._world.flows.clear("a table holds less or more")
        return {"entries": len(table), "capacity": table.capacity, "gone": gone}
