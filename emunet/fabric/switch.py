"""A switch, assembled: one learning bridge over all its ports."""

from __future__ import annotations

from emunet.elements.bridge import Bridge
from emunet.elements.dispatch import Dispatch
from emunet.elements.ingress import Ingress
from emunet.fabric.config import SwitchConfig
from emunet.plane.device import Device, Target
from emunet.plane.ledger import Ledger
from emunet.plane.table import Watch


def build_switch(config: SwitchConfig, watch: Watch, world_ledger: Ledger) -> Device:
    """A Device that does what an Ethernet switch does, and nothing above it."""
    bridge = Bridge(
        "bridge",
        {port.name: port.mtu for port in config.ports},
        watch,
        ageing=config.ageing_ns,
        capacity=config.capacity,
        hairpin=config.hairpin,
        isolated=config.isolated,
        group_forward_mask=config.group_forward_mask,
    )
    wiring = {("bridge", "egress"): Target("egress", "out")}
    entries = {}
    for port in config.ports:
        entries[port.name] = Target("ingress", port.name)
        wiring["ingress", port.name] = Target("bridge", port.name)
        wiring["egress", port.name] = Target("", port.name)
    elements = {"ingress": Ingress(config.name, {}), "bridge": bridge, "egress": Dispatch()}
    return Device(config.name, elements, wiring, entries, world_ledger, watch)
