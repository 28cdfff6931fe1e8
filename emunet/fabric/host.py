"""A host, assembled: which elements it has and how they are joined.

The chain follows netfilter with br_netfilter, because kube-proxy's results depend
on its order:

    pod port --> ingress -> header -> reassemble -> connections -> bridge --+--> policy -> translate -> pod port
                                                                            |
                                                                            up
                                                                            v
    eth0 ----> ingress -> link eth0 -> header -> reassemble -> connections -> router -> policy -> translate
                                                     ^                          |          -> fragment -> neighbor -> interface
    own sockets -> sockets -> header -> connections ----------- (output) -------+
                                                                            local -> policy -> sockets -> own sockets / VXLAN

An interface is where `neighbor` sends: a port (`eth0`), a bridge's own side (`cni0`)
or a VXLAN endpoint (`flannel.1`), whose outer packet is routed as the host's own.

Rule of this file: wiring only. A new behaviour is an element of its own, named here once.
"""

from __future__ import annotations

from emunet.elements.bridge import LOCAL, UP, Bridge
from emunet.elements.connections import Connections
from emunet.elements.dispatch import Dispatch
from emunet.elements.errors import Errors
from emunet.elements.fragment import Fragment
from emunet.elements.header import Header
from emunet.elements.ingress import Ingress
from emunet.elements.interface import OwnAddresses
from emunet.elements.link import Link
from emunet.elements.neighbor import NeighborElement
from emunet.elements.policy import Policy
from emunet.elements.reassemble import Reassemble
from emunet.elements.router import Router
from emunet.elements.routes import RouteTable
from emunet.elements.sockets import Sockets
from emunet.elements.translate import Translate
from emunet.elements.vxlan import VxlanElement
from emunet.fabric.config import HostConfig
from emunet.plane.chance import chance
from emunet.plane.device import Device, Target
from emunet.plane.element import Element
from emunet.plane.ledger import Ledger
from emunet.plane.table import Counter, Watch

Wiring = dict[tuple[str, str], Target]


def build_host(config: HostConfig, watch: Watch, world_ledger: Ledger, seed: int) -> Device:
    """A Device that forwards as a Linux machine with these interfaces, bridges and tunnels does."""
    own = OwnAddresses(config.interfaces)
    mtus = {port.name: port.mtu for port in config.ports}
    member = {port: bridge.interface for bridge in config.bridges for port in bridge.ports}
    identification = Counter("IP identification", chance(seed, config.name, "identification"))
    errors = Errors(own, watch, identification)
    tunnels = {(vxlan.local, vxlan.port): vxlan.interface for vxlan in config.vxlans}
    uplinks = {name: name for name in own.interfaces if name in mtus}

    elements: dict[str, Element] = {
        "ingress": Ingress(config.name, uplinks),
        "header": Header(frozenset(member)),
        "reassemble": Reassemble(),
        "connections": Connections(),
        "policy": Policy(),
        "translate": Translate(),
        "router": Router(config.name, own, RouteTable(watch, config.routes), errors, seed),
        "fragment": Fragment(own),
        "neighbor": NeighborElement(config.name, own, errors, watch, seed, config.neighbors),
        "sockets": Sockets(config.name, own, tunnels),
        "egress": Dispatch(),
    }
    for interface in config.interfaces:
        elements[f"link {interface.name}"] = Link(config.name, interface)
    for bridge in config.bridges:
        elements[bridge.interface] = Bridge(
            bridge.interface,
            {port: mtus[port] for port in bridge.ports},
            watch,
            mac=own.interfaces[bridge.interface].mac,
            ageing=bridge.ageing_ns,
            capacity=bridge.capacity,
        )
    for vxlan in config.vxlans:
        mtu = own.interfaces[vxlan.interface].mtu
        elements[f"vxlan {vxlan.interface}"] = VxlanElement(config.name, vxlan, mtu, watch, identification)

    wiring: Wiring = {
        ("connections", "output"): Target("router", "output"),
        ("connections", "routed"): Target("router", "input"),
        ("header", "output"): Target("connections", "output"),
        ("header", "routed"): Target("reassemble", "routed"),
        ("header", "up"): Target("router", "input"),
        ("reassemble", "routed"): Target("connections", "routed"),
        ("sockets", "output"): Target("header", "output"),
        ("sockets", "nd"): Target("neighbor", "nd"),
        ("router", "local"): Target("policy", "local"),
        ("policy", "local"): Target("sockets", "deliver"),
        ("router", "forward"): Target("policy", "routed"),
        ("policy", "routed"): Target("translate", "routed"),
        ("router", "output"): Target("policy", "output"),
        ("policy", "output"): Target("translate", "routed"),
        ("translate", "routed"): Target("fragment", "routed"),
        ("fragment", "resolve"): Target("neighbor", "resolve"),
        ("policy", "bridged"): Target("translate", "bridged"),
        ("translate", "bridged"): Target("egress", "out"),
        ("router", "error"): Target("connections", "output"),
        ("neighbor", "error"): Target("connections", "output"),
    }
    entries: dict[str, Target] = {}
    for name in own.interfaces:
        _join_interface(name, wiring, entries)
    for name in uplinks:
        entries[name] = Target("ingress", name)
        wiring["ingress", name] = Target(f"link {name}", "in")
        wiring["neighbor", name] = Target("", name)
    for port, bridge_name in member.items():
        _join_bridge_port(port, bridge_name, wiring, entries)
    for bridge in config.bridges:
        name = bridge.interface
        wiring[name, "egress"] = Target("policy", "bridged")
        wiring[name, "direct"] = Target("egress", "out")
        wiring[name, UP] = Target(f"link {name}", "in", tap=name, inbound=True)
        wiring[f"link {name}", "ip"] = Target("header", "up")  # the hooks were passed before the bridge
        wiring["neighbor", name] = Target(name, LOCAL, tap=name)
    for vxlan in config.vxlans:
        name = vxlan.interface
        tunnel = f"vxlan {name}"
        wiring["sockets", f"vxlan:{name}"] = Target(tunnel, "decapsulate")
        wiring[tunnel, "inner"] = Target(f"link {name}", "in", tap=name, inbound=True)
        wiring[tunnel, "outer"] = Target("connections", "output")
        wiring["neighbor", name] = Target(tunnel, "encapsulate", tap=name)
    return Device(config.name, elements, wiring, entries, world_ledger, watch)


def _join_interface(name: str, wiring: Wiring, entries: dict[str, Target]) -> None:
    """What every layer-3 interface has: a link, and a way from and to the host's own sockets."""
    wiring[f"link {name}", "arp"] = Target("neighbor", "arp")
    wiring[f"link {name}", "ip"] = Target("header", "routed")
    wiring["sockets", f"local:{name}"] = Target("", f"local:{name}")
    entries[f"local:{name}"] = Target("sockets", f"sent:{name}")


def _join_bridge_port(port: str, bridge: str, wiring: Wiring, entries: dict[str, Target]) -> None:
    """A bridge port passes the hooks before the bridge, and policy after it."""
    entries[port] = Target("ingress", port)
    for element, following in (("ingress", "header"), ("header", "reassemble"), ("reassemble", "connections")):
        wiring[element, port] = Target(following, port)
    wiring["connections", port] = Target(bridge, port)
    wiring["egress", port] = Target("", port)


def reconfigure_host(device: Device, old: HostConfig, new: HostConfig) -> bool:
    """Take a new configuration in place where only rows changed; False: it must be built anew.

    Pod ports that come and go, routes, neighbours and remotes are rows: what was
    learned stays. Interfaces, bridges and tunnels are structure.
    """
    same = (
        old.interfaces == new.interfaces
        and [bridge.interface for bridge in old.bridges] == [bridge.interface for bridge in new.bridges]
        and [vxlan.interface for vxlan in old.vxlans] == [vxlan.interface for vxlan in new.vxlans]
    )
    if not same:
        return False
    mtus = {port.name: port.mtu for port in new.ports}
    member = {port: bridge.interface for bridge in new.bridges for port in bridge.ports}
    elements = device.elements
    for port in {port for bridge in old.bridges for port in bridge.ports} - member.keys():
        device.entries.pop(port, None)
        for element in ("ingress", "header", "reassemble", "connections", "egress"):
            device.wiring.pop((element, port), None)
    for port, bridge_name in member.items():
        _join_bridge_port(port, bridge_name, device.wiring, device.entries)
    header = elements["header"]
    assert isinstance(header, Header)
    header.bridged = frozenset(member)
    for bridge in new.bridges:
        element = elements[bridge.interface]
        assert isinstance(element, Bridge)
        element.reconfigure({port: mtus[port] for port in bridge.ports}, bridge.ageing_ns, bridge.capacity)
    router, neighbor, sockets = elements["router"], elements["neighbor"], elements["sockets"]
    assert isinstance(router, Router)
    assert isinstance(neighbor, NeighborElement)
    assert isinstance(sockets, Sockets)
    router.routes.replace(new.routes)
    neighbor.reconfigure(new.neighbors)
    sockets.tunnels = {(vxlan.local, vxlan.port): vxlan.interface for vxlan in new.vxlans}
    for vxlan in new.vxlans:
        tunnel = elements[f"vxlan {vxlan.interface}"]
        assert isinstance(tunnel, VxlanElement)
        tunnel.reconfigure(vxlan, router.own.interfaces[vxlan.interface].mtu)
    return True
