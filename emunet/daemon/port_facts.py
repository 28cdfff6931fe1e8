"""What a client may know of a port: its MAC, its addresses, and how the stack behind it routes.

Rule of this file: all of it follows from a World's configuration; nothing is asked or changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from emunet.daemon.frame_format import PortInfo
from emunet.elements.routes import RouteKind
from emunet.fabric.config import HostConfig, PodEdge, WorldConfig
from emunet.packet.address import format_ip, format_mac

if TYPE_CHECKING:
    from emunet.fabric.world import World  # control asks for ports too, and needs no World for it


def ports_of(config: WorldConfig) -> list[PortInfo]:
    """Every port that can be watched, under its usual name: pods first, then hosts, then switches."""
    pods = [_of_pod(pod) for pod in config.pods]
    hosts = [info for host in config.machines for info in _of_host(host)]
    switches = [
        PortInfo(f"{switch.name}:{port.name}", "switch", switch.name, mtu=port.mtu)
        for switch in config.switches
        for port in switch.ports
    ]
    return [*pods, *hosts, *switches]


def port_info(world: World, port: str) -> PortInfo:
    """The facts of one port, under the name that was asked for. UnknownPort when there is none."""
    device, entry, inner = world.locate(port)
    pod, other = (device.name, entry), f"{device.name}:{inner or entry}"
    for info in ports_of(world.config):
        if (info.device, info.name) == pod or info.name == other:
            return replace(info, name=port)
    return PortInfo(port, "pod", device.name)  # its device is there, and its stack not yet


def _of_pod(pod: PodEdge) -> PortInfo:
    on_link = [(str(row.prefix), "") for row in pod.addresses]
    default = [("0.0.0.0/0" if len(gateway) == 4 else "::/0", format_ip(gateway)) for gateway in pod.gateways]
    addresses = tuple(str(row) for row in pod.addresses)
    return PortInfo(pod.name, "pod", pod.device, format_mac(pod.mac), addresses, (*on_link, *default), pod.mtu)


def _of_host(host: HostConfig) -> Iterator[PortInfo]:
    for interface in host.interfaces:
        routes = tuple(
            (str(route.prefix), format_ip(route.via) if route.via else "")
            for route in host.routes
            if route.interface == interface.name and route.kind is RouteKind.UNICAST
        )
        addresses = tuple(str(row) for row in interface.addresses)
        name = f"{host.name}:{interface.name}"
        yield PortInfo(name, "host", host.name, format_mac(interface.mac), addresses, routes, interface.mtu)
