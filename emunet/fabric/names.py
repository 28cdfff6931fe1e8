"""Port names: what people call a point of the World, and where it is.

`web-1` is a pod's eth0 (`blue/web-1` outside the default namespace), `host1:eth0` a
device's port, `host1:cni0` an interface inside it, `switch1:2` a switch's port.

Rule of this file: a name means one place; a wrong one is answered with all that there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from emunet.fabric.config import HostConfig, SwitchConfig, WorldConfig
from emunet.fabric.edge import Edge
from emunet.plane.device import Device

LOCAL_PREFIX = "local:"

DeviceConfig = HostConfig | SwitchConfig


class UnknownPort(KeyError):
    """No port, edge, wire or interface of that name; the message lists what there is."""

    def __str__(self) -> str:
        return str(self.args[0])


def pod_ports(config: DeviceConfig) -> frozenset[str]:
    """The ports of a device that pods are behind: their names are the pods' own."""
    if isinstance(config, SwitchConfig):
        return frozenset()
    bridged = frozenset(port for bridge in config.bridges for port in bridge.ports)
    ports = {port.name for port in config.ports}
    # A port that is an interface without an address of the host's: a pod's own link, routed (CAL-02).
    return bridged | {one.name for one in config.interfaces if one.name in ports and not one.has_sockets}


def stations(config: WorldConfig) -> Iterator[tuple[str, bytes, tuple[bytes, ...]]]:
    """(port name, MAC, addresses) of all that has any: pods, then the interfaces of hosts."""
    for pod in config.pods:
        yield pod.name, pod.mac, tuple(row.address for row in pod.addresses)
    for host in config.machines:
        for interface in host.interfaces:
            yield f"{host.name}:{interface.name}", interface.mac, tuple(row.address for row in interface.addresses)


def locate(
    name: str, devices: Mapping[str, Device], edges: Mapping[str, Edge], known: list[str]
) -> tuple[Device, str, str]:
    """A port's name -> (device, entry, interface inside the device or ""). UnknownPort lists the `known`."""
    edge = edges.get(name)
    if edge is not None and not edge.entry.startswith(LOCAL_PREFIX):
        return devices[edge.device], edge.entry, ""
    first, colon, inner = name.partition(":")
    device = devices.get(first)
    if colon and device is not None:
        if inner in device.entries:
            return device, inner, ""
        if f"{LOCAL_PREFIX}{inner}" in device.entries:
            return device, f"{LOCAL_PREFIX}{inner}", inner
    for candidate in devices.values():
        if not colon and name in candidate.entries:
            return candidate, name, ""
    meant = f"{name}:eth0"
    hint = f": {name} is a host, and its port on the wire is {meant}" if meant in known else ""
    raise UnknownPort(f"there is no port {name}{hint}; there are: {', '.join(known)}")


def port_names(devices: Mapping[str, Device], configs: Mapping[str, DeviceConfig]) -> list[str]:
    """Every port that can be watched, device by device."""
    names: dict[str, None] = {}
    for device in devices.values():
        pods = pod_ports(configs[device.name])
        for entry in device.entries:
            if entry in pods:
                names[entry] = None
            else:
                names[f"{device.name}:{entry.removeprefix(LOCAL_PREFIX)}"] = None
    return list(names)
