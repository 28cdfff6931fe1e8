"""Serving: Services that change while everything else goes on.

Rows of Services are the same for every host, and are asked on a connection's first packet only,
which no flow cache repeats. So a change touches the rows that changed, ends the connections that
it must (`elements.connections.services`), and clears nothing. What the World's configuration is by
then is worked out when somebody asks.

Rule of this file: it changes rows of Services and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from emunet.elements.connections import Connections, ServiceChange, ServiceKey, ServicePort
from emunet.elements.connections.services import difference
from emunet.fabric.config import WorldConfig
from emunet.plane.device import Device


class Serving:
    """The rows of Services of a World's hosts."""

    def __init__(self, devices: Mapping[str, Device]) -> None:
        self._devices = devices
        self._rows: dict[ServiceKey, ServicePort] = {}
        self._moved = False

    def change(self, change: ServiceChange) -> None:
        """Let every host have other rows, in effect for the next connection."""
        self._moved = True
        for key in change.gone:
            self._rows.pop(key, None)
        self._rows |= {row.key: row for row in change.put}
        for device in self._devices.values():
            _serve(device, change)

    def become(self, rows: tuple[ServicePort, ...]) -> None:
        """Let every host have these rows and no others."""
        change = difference(self._rows.values(), rows)
        if change:
            self.change(change)

    def begin(self, device: Device) -> None:
        """A device was made, or made anew: it has all rows."""
        _serve(device, ServiceChange(put=tuple(self._rows.values())))

    def settled(self, config: WorldConfig) -> WorldConfig:
        """The configuration with all that was changed since."""
        if not self._moved:
            return config
        self._moved = False
        return replace(config, services=tuple(self._rows.values()))


def _serve(device: Device, change: ServiceChange) -> None:
    connections = device.elements.get("connections")
    if isinstance(connections, Connections):
        connections.services.change(change)
