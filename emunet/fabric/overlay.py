"""The overlay of a dry run: devices decide as ever, and nothing of what they then learn, count or arm is kept.

Rule of this file: what was before is again afterwards, also after an error.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from emunet.plane.device import Device
from emunet.plane.ledger import Ledger
from emunet.plane.table import Counter, Table
from emunet.plane.timers import Timers


@contextmanager
def overlay(devices: Collection[Device], world_ledger: Ledger) -> Iterator[None]:
    """Within it, tables, counters and timers of devices are copies, and they count into `world_ledger`."""
    state = [item for device in devices for item in _state(device)]
    before = [(device, device.figures, device.world_ledger) for device in devices]
    for item in state:
        item.begin_overlay()
    for device in devices:
        device.figures, device.world_ledger, device.dry = Ledger(), world_ledger, True
    try:
        yield
    finally:
        for device, figures, whole in before:
            device.figures, device.world_ledger, device.dry = figures, whole, False
        for item in state:
            item.end_overlay()


def _state(device: Device) -> Iterator[Table[Any, Any] | Counter | Timers[Any]]:
    yield from device.state()
    for element in device.elements.values():
        timers = getattr(element, "timers", None)
        if isinstance(timers, Timers):
            yield timers
