"""Serving: Services that change while everything else goes on.

Rows of Services are the same for every host, and are asked on a connection's first packet only,
which no flow cache repeats. So a change touches the rows that changed, ends the connections that
it must (`elements.connections.services`), and clears nothing. What the World's configuration is by
then is worked out when somebody asks.

Rule of this file: it changes rows of Services and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from emunet.elements.connections import Connections, ServiceChange, ServiceKey, ServicePort
from emunet.elements.connections.services import difference
from emunet.elements.neighbor import NeighborElement
from emunet.fabric.config import WorldConfig
from emunet.plane.device import Device

BEGINNING = 0
"""Due at once, whatever time it is: what a change has to say is said before anything else happens."""


class Serving:
    """The rows of Services of a World's hosts."""

    def __init__(self, devices: Mapping[str, Device], look: Callable[[Device], None]) -> None:
        """`look` is called with a device that wants to be woken."""
        self._devices = devices
        self._look = look
        self._rows: dict[ServiceKey, ServicePort] = {}
        self._moved = False
        self.spared: frozenset[str] = frozenset()
        """Devices that track connections and have no part in Services: a Service is its hosts' affair."""

    def change(self, change: ServiceChange) -> None:
        """Let every host have other rows, in effect for the next connection."""
        self._moved = True
        for key in change.gone:
            self._rows.pop(key, None)
        self._rows |= {row.key: row for row in change.put}
        for device in self._devices.values():
            self._serve(device, change)

    def become(self, rows: tuple[ServicePort, ...]) -> None:
        """Let every host have these rows and no others."""
        change = difference(self._rows.values(), rows)
        if change:
            self.change(change)

    def begin(self, device: Device) -> None:
        """A device was made, or made anew: it has all rows."""
        self._serve(device, ServiceChange(put=tuple(self._rows.values())))

    def settled(self, config: WorldConfig) -> WorldConfig:
        """The configuration with all that was changed since."""
        if not self._moved:
            return config
        self._moved = False
        return replace(config, services=tuple(self._rows.values()))

    def _serve(self, device: Device, change: ServiceChange) -> None:
        if device.name in self.spared:
            return
        connections, neighbor = device.elements.get("connections"), device.elements.get("neighbor")
        if not isinstance(connections, Connections) or not isinstance(neighbor, NeighborElement):
            return
        before = connections.own.announced
        connections.services.change(change)
        fresh = connections.own.announced - before
        if fresh and connections.config is not None:
            neighbor.announce(sorted(fresh), BEGINNING)
            self._look(device)
