"""Trouble: what people do to the wires of a running World, one thing at a time.

Wires go down and up by hand or flap by themselves, each direction is impaired on its own,
and the hosts can be parted into groups that do not hear each other. A change meets the
next frame; what is on a wire keeps its time.

Rule of this file: it changes wires and nothing else, and whatever it changes it can show.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from emunet.fabric.config import WireConfig
from emunet.fabric.impaired import Lane
from emunet.fabric.impairment import Impairment, format_flap
from emunet.fabric.names import UnknownPort
from emunet.fabric.wire import Wire
from emunet.plane.chance import chance

if TYPE_CHECKING:
    from emunet.fabric.world import World

PLAIN = Impairment()


class Trouble:
    """Everything that is set on the wires of a World beside where they lead."""

    def __init__(self, world: World) -> None:
        self.groups: tuple[tuple[str, ...], ...] = ()
        """The parts of a partition, by the names of hosts; those in none are together. Empty: there is none."""
        self._world = world
        self._turns: dict[str, int] = {}

    # Up, down, and by turns

    def set_up(self, name: str, up: bool) -> None:
        """Plug a wire in or out, and leave it so: it flaps no more."""
        wire = self._world.wire(name)
        self.flap(name, None)
        self._plug(wire, up)

    def flap(self, name: str, flap: tuple[int, int] | None) -> None:
        """Up for so many ns, then down for so many, again and again from now on; None: stay as it is."""
        wire = self._world.wire(name)
        self._turns[name] = turn = self._turns.get(name, 0) + 1
        wire.flap = flap
        if flap is not None:
            self._plug(wire, True)
            self._world.at(self._world.now + flap[0], lambda now: self._turn(wire, turn, now), own=True)

    def _turn(self, wire: Wire, turn: int, now: int) -> None:
        """It is time to go down or up, unless something else was decided meanwhile."""
        if wire.flap is None or self._turns.get(wire.name) != turn or self._world.wires.get(wire.name) is not wire:
            return
        self._plug(wire, not wire.up)
        self._world.at(now + wire.flap[0 if wire.up else 1], lambda then: self._turn(wire, turn, then), own=True)

    def _plug(self, wire: Wire, up: bool) -> None:
        if wire.up == up:
            return
        wire.up = up
        self._world.wire_changed(wire, "a wire went up or down")

    # Impairments

    def impair(self, name: str, impairment: Impairment, end: int | None = None) -> None:
        """Set what goes wrong on a wire: from end 0 or 1, or both ways."""
        wire = self._world.wire(name)
        for number in (0, 1) if end is None else (end,):
            self._lane(wire, number).change(impairment)
            self._tidy(wire, number)
        self._world.wire_changed(wire, "a wire's impairment changed")

    def change(self, name: str, settings: dict[str, Any], source: str | None = None) -> None:
        """Change these settings, as people write them, and keep the others.

        `source` names the device at one end: then only the direction from there. ValueError, UnknownPort.
        """
        wire = self._world.wire(name)
        numbers = (0, 1) if source is None else (self.end_of(wire, source),)
        wanted = {number: self.impairment(wire, number).changed(settings) for number in numbers}
        for number, impairment in wanted.items():
            self.impair(name, impairment, number)

    def end_of(self, wire: Wire, device: str) -> int:
        """Which end of a wire is at a device. UnknownPort where neither is."""
        for number, (name, port) in enumerate(wire.ends):
            if device in (name, f"{name}:{port}"):
                return number
        ends = " and ".join(name for name, _ in wire.ends)
        raise UnknownPort(f"there is no end of {wire.name} at {device}: it joins {ends}")

    def impairment(self, wire: Wire, end: int) -> Impairment:
        """What goes wrong on the way from that end."""
        lane = wire.lanes[end]
        return PLAIN if lane is None else lane.impairment

    # A partition

    def part(self, groups: Sequence[Sequence[str]]) -> None:
        """Hosts hear only those of their own group; those that no group names are a group together. Empty: all do."""
        hosts = {host.name for host in self._world.config.hosts}
        seen: set[str] = set()
        for name in (name for group in groups for name in group):
            if name not in hosts:
                raise UnknownPort(f"there is no host {name}; there are: {', '.join(sorted(hosts))}")
            if name in seen:
                raise ValueError(f"{name} cannot be in two parts of a partition")
            seen.add(name)
        if groups and len([group for group in groups if group]) + bool(hosts - seen) < 2:
            raise ValueError("a partition has two parts or more: these are all the hosts there are")
        self.groups = tuple(tuple(group) for group in groups if group)
        self.apply_partition()

    def apply_partition(self) -> None:
        """Block what the partition blocks, on the wires that there are now."""
        part = {name: number for number, group in enumerate(self.groups, 1) for name in group}
        machines = self._world.config.machines
        macs = [(part.get(h.name, 0), frozenset(i.mac for i in h.interfaces)) for h in machines]
        hosts = {host.name for host in machines}
        for wire in self._world.wires.values():
            for number in (0, 1):
                device = wire.ends[1 - number][0]
                others = frozenset[bytes]()
                if self.groups and device in hosts:
                    own = part.get(device, 0)
                    others = others.union(*(rows for there, rows in macs if there != own))
                lane = wire.lanes[number]
                if others != (lane.blocked if lane is not None else frozenset()):
                    self._lane(wire, number).blocked = others
                    self._tidy(wire, number)
                    self._world.wire_changed(wire, "the hosts were parted or joined")

    # As a configuration has it

    def configured(self, wire: Wire, before: WireConfig | None, config: WireConfig) -> None:
        """A wire is new, or its configuration was read again: what changed there is changed here."""
        plain = WireConfig(config.name, config.a, config.b)
        old = plain if before is None else before
        for number in (0, 1):
            if config.impairments[number] != old.impairments[number]:
                self.impair(wire.name, config.impairments[number], number)
        if (config.up, config.flap) != (old.up, old.flap):
            self.set_up(wire.name, config.up)
            self.flap(wire.name, config.flap)

    def described(self, wire: Wire) -> dict[str, Any]:
        """A wire as `emunet link` shows it."""
        return {
            "name": wire.name,
            "ends": [":".join(end) for end in wire.ends],
            "up": wire.up,
            "flap": format_flap(wire.flap) if wire.flap is not None else None,
            "from": {wire.ends[number][0]: self.impairment(wire, number).as_text() for number in (0, 1)},
            "waiting": {wire.ends[n][0]: 0 if (lane := wire.lanes[n]) is None else len(lane) for n in (0, 1)},
        }

    # Lanes

    def _lane(self, wire: Wire, number: int) -> Lane:
        """The lane from an end, made where there is none."""
        lane = wire.lanes[number]
        if lane is None:
            device, port = wire.ends[1 - number]
            seed = chance(self._world.seed, wire.name, number, "impairment")
            lane = wire.lanes[number] = Lane(wire.name, device, port, PLAIN, seed, self._world)
        return lane

    def _tidy(self, wire: Wire, number: int) -> None:
        """A lane that does nothing is none: frames then cost what they cost on a plain wire."""
        lane = wire.lanes[number]
        if lane is not None and lane.plain:
            wire.lanes[number] = None

    def retire(self, lane: Lane) -> None:
        """The last frame has left a lane that impairs nothing more."""
        wire = self._world.wires.get(lane.wire)
        if wire is not None and lane in wire.lanes:
            wire.lanes[wire.lanes.index(lane)] = None
            self._world.wire_changed(wire, "a wire is plain again")
