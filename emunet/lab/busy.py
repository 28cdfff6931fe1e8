"""What is busy in a World: frames by port, and the flows that the cache repeats.

Rule of this file: it looks and changes nothing but what was hit and not yet credited.
"""

from __future__ import annotations

from heapq import nlargest
from itertools import islice
from typing import TYPE_CHECKING, Any

from emunet.fabric.config import HostConfig, SwitchConfig
from emunet.fabric.flow_key import ends_of
from emunet.fabric.names import LOCAL_PREFIX, pod_ports
from emunet.fabric.replay import Replay
from emunet.packet.address import format_ip

if TYPE_CHECKING:
    from emunet.fabric.world import World

FLOWS_LOOKED_AT = 5_000
FLOWS_SHOWN = 100


def traffic(world: World) -> dict[str, Any]:
    """Frames that passed each port since it is there, and the flows of most frames.

    A flow is a direction of a conversation whose frames are alike; its first frames, and
    those that are decided anew each, are counted at ports only. What began a moment ago is
    counted together with all that goes the same road (`fabric.roads`): its ports are 0.
    """
    live = [row for row in islice(world.flows.live(), FLOWS_LOOKED_AT) if row[2].begins]
    shown = nlargest(FLOWS_SHOWN, live, key=lambda row: row[2].total)
    return {"ports": _ports(world), "flows": [_flow(device, entry, replay) for device, entry, replay in shown]}


def _ports(world: World) -> dict[str, dict[str, int]]:
    """By port name; `received` and `sent` are the network's: what a pod sent was received."""
    configs: tuple[HostConfig | SwitchConfig, ...] = (*world.config.machines, *world.config.switches)
    found = {}
    for config in configs:
        pods = pod_ports(config)
        for port, figures in world.devices[config.name].ports.items():
            if not port.startswith(LOCAL_PREFIX):
                name = port if port in pods else f"{config.name}:{port}"
                found[name] = {"received": figures.received, "sent": figures.sent}
    return found


def _flow(device: str, entry: str, replay: Replay) -> dict[str, Any]:
    ends = ends_of(replay.key)
    if replay.edge is not None:
        to = replay.edge.name
    elif replay.wire is not None:
        to = f"wire {replay.wire.wire.name}"
    else:
        to = f"dropped: {replay.drop.name}" if replay.drop is not None else ""
    at = f"{device}:{entry.removeprefix(LOCAL_PREFIX)}" if entry.startswith(LOCAL_PREFIX) else entry
    return {
        "from": at,
        "to": to,
        "source": format_ip(ends.source),
        "destination": format_ip(ends.destination),
        "protocol": ends.protocol,
        "ports": list(ends.ports),
        "frames": replay.total,
    }
