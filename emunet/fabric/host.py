"""A host, assembled: which elements it has and how they are joined.

The chain follows netfilter with br_netfilter, because kube-proxy's results depend
on its order:

    pod port -> ingress -> header -> reassemble -> connections -> bridge -> policy -> translate -> pod port
                                                                    |
                                                                    up: link, header, router (below)

    eth0 -> ingress -> link -> header -> reassemble -> connections -> router
    own sockets -> sockets -> header -> connections --- (output) ---> router

    router -> (forward, output) policy -> translate -> fragment -> neighbor -> interface
           -> (local) policy -> sockets -> own sockets, or a VXLAN endpoint

An interface is where `neighbor` sends: a port (`eth0`), a bridge's own side (`cni0`)
or a VXLAN endpoint (`flannel.1`), whose outer packet is routed as the host's own.

A host that tracks connections has more on its ways (`_track`): what it sends is
reassembled too, what is for itself passes `translate`, and what was put together is cut
again wherever it leaves; a bridged frame may be sent to another neighbour of the bridge.
On a host with bridges that are kept apart (`segments`), what is forwarded and what is
bridged passes `isolation` before `policy`.

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
from emunet.elements.interface import Interface, OwnAddresses
from emunet.elements.isolation import Isolation
from emunet.elements.link import Link
from emunet.elements.neighbor import NeighborElement
from emunet.elements.policies import Policy
from emunet.elements.reassemble import Reassemble
from emunet.elements.redirect import Redirects
from emunet.elements.router import Router
from emunet.elements.routes import RouteTable
from emunet.elements.sockets import Sockets
from emunet.elements.translate import Translate
from emunet.elements.vxlan import VxlanElement
from emunet.fabric.config import Bridge as BridgeConfig
from emunet.fabric.config import ConnectionsConfig, HostConfig
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
    routes = RouteTable(watch, config.routes)
    errors = Errors(own, watch, identification, routes)
    tunnels = {(vxlan.local, vxlan.port): vxlan.interface for vxlan in config.vxlans}
    uplinks = {name: name for name in own.interfaces if name in mtus}

    rules = config.connections
    connections = Connections(config.name, own, routes, watch, rules, member, seed)
    neighbor = NeighborElement(config.name, own, errors, watch, seed, config.neighbors)
    redirects = Redirects(own, watch, identification, neighbor.table)
    elements: dict[str, Element] = {
        "ingress": Ingress(config.name, uplinks),
        "header": Header(frozenset(member)),
        "reassemble": Reassemble(config.name, own, errors, watch, enabled=rules is not None),
        "connections": connections,
        "policy": Policy(config.name, own, watch, config.policies, member),
        "isolation": Isolation(config.name, config.segments, member),
        "translate": Translate(config.name, own, errors, connections.table, seed, rules, member),
        "router": Router(config.name, own, routes, errors, redirects, seed),
        "fragment": Fragment(own),
        "neighbor": neighbor,
        "sockets": Sockets(config.name, own, tunnels),
        "egress": Dispatch(),
    }
    for interface in config.interfaces:
        elements[f"link {interface.name}"] = Link(config.name, interface)
    for bridge in config.bridges:
        elements[bridge.interface] = _make_bridge(bridge, own, mtus, watch)
    for vxlan in config.vxlans:
        carried = own.interfaces[vxlan.interface]
        elements[f"vxlan {vxlan.interface}"] = VxlanElement(
            config.name, vxlan, carried.mtu, watch, identification, carried.mac
        )

    wiring: Wiring = {
        ("connections", "output"): Target("router", "output"),
        ("connections", "routed"): Target("router", "input"),
        ("header", "routed"): Target("reassemble", "routed"),
        ("header", "up"): Target("router", "input"),
        ("reassemble", "routed"): Target("connections", "routed"),
        ("sockets", "output"): Target("header", "output"),
        ("sockets", "nd"): Target("neighbor", "nd"),
        ("router", "local"): Target("policy", "local"),
        ("isolation", "routed"): Target("policy", "routed"),
        ("isolation", "bridged"): Target("policy", "bridged"),
        ("policy", "routed"): Target("translate", "routed"),
        ("router", "output"): Target("policy", "output"),
        ("policy", "output"): Target("translate", "routed"),
        ("translate", "routed"): Target("fragment", "routed"),
        ("fragment", "resolve"): Target("neighbor", "resolve"),
        ("policy", "bridged"): Target("translate", "bridged"),
        ("router", "error"): Target("connections", "output"),
        ("neighbor", "error"): Target("connections", "output"),
        ("reassemble", "error"): Target("connections", "output"),
        ("translate", "error"): Target("connections", "output"),
    }
    entries: dict[str, Target] = {}
    for interface in config.interfaces:
        _join_interface(interface, wiring, entries)
    for name in uplinks:
        _join_uplink(name, wiring, entries)
    for port, bridge_name in member.items():
        _join_bridge_port(port, bridge_name, wiring, entries)
    for bridge in config.bridges:
        wiring |= _bridge_ways(bridge.interface)
    for vxlan in config.vxlans:
        name = vxlan.interface
        tunnel = f"vxlan {name}"
        wiring["sockets", f"vxlan:{name}"] = Target(tunnel, "decapsulate")
        wiring[tunnel, "inner"] = Target(f"link {name}", "in", tap=name, inbound=True)
        wiring[tunnel, "outer"] = Target("connections", "output")
        wiring["neighbor", name] = Target(tunnel, "encapsulate", tap=name)
    _track(wiring, own, tracked=rules is not None)
    _keep_apart(wiring, config)
    return Device(config.name, elements, wiring, entries, world_ledger, watch)


def _make_bridge(bridge: BridgeConfig, own: OwnAddresses, mtus: dict[str, int], watch: Watch) -> Bridge:
    return Bridge(
        bridge.interface,
        {port: mtus[port] for port in bridge.ports},
        watch,
        mac=own.interfaces[bridge.interface].mac,
        ageing=bridge.ageing_ns,
        capacity=bridge.capacity,
        hairpin=bridge.hairpin,
        isolated=bridge.isolated,
        group_forward_mask=bridge.group_forward_mask,
    )


def _bridge_ways(name: str) -> Wiring:
    """What leads to and from a bridge, but for its ports and for `_keep_apart`."""
    return {
        (name, "direct"): Target("egress", "out"),
        (name, UP): Target(f"link {name}", "in", tap=name, inbound=True),
        (f"link {name}", "ip"): Target("header", "up"),  # the hooks were passed before the bridge
        ("neighbor", name): Target(name, LOCAL, tap=name),
        ("connections", f"bridged {name}"): Target("neighbor", "resolve"),
        ("neighbor", f"bridged {name}"): Target(name, "port"),
    }


def _keep_apart(wiring: Wiring, config: HostConfig) -> None:
    """What is forwarded passes `isolation` first, where there is a bridge that is kept apart."""
    first = "isolation" if config.segments else "policy"
    wiring["router", "forward"] = Target(first, "routed")
    for bridge in config.bridges:
        wiring[bridge.interface, "egress"] = Target(first, "bridged")


def _join_interface(interface: Interface, wiring: Wiring, entries: dict[str, Target]) -> None:
    """What every layer-3 interface has: a link, and with an address a way from and to the host's own sockets."""
    name = interface.name
    wiring[f"link {name}", "arp"] = Target("neighbor", "arp")
    wiring[f"link {name}", "ip"] = Target("header", "routed")
    if interface.has_sockets:
        wiring["fragment", f"local:{name}"] = Target("", f"local:{name}")
        entries[f"local:{name}"] = Target("sockets", f"sent:{name}")


def _join_uplink(name: str, wiring: Wiring, entries: dict[str, Target]) -> None:
    """An interface that is a port."""
    entries[name] = Target("ingress", name)
    wiring["ingress", name] = Target(f"link {name}", "in")
    wiring["neighbor", name] = Target("", name)


def _track(wiring: Wiring, own: OwnAddresses, *, tracked: bool) -> None:
    """The ways that differ between a host that tracks connections and a plain router, which does nothing there."""
    wiring["header", "output"] = Target("reassemble", "output") if tracked else Target("connections", "output")
    wiring["reassemble", "output"] = Target("connections", "output")
    wiring["policy", "local"] = Target("translate", "local") if tracked else Target("sockets", "deliver")
    wiring["translate", "local"] = Target("sockets", "deliver")
    wiring["translate", "bridged"] = Target("fragment", "bridged") if tracked else Target("egress", "out")
    wiring["fragment", "bridged"] = Target("egress", "out")
    for name in own.interfaces:
        port = f"local:{name}"
        wiring["sockets", port] = Target("fragment", port) if tracked else Target("", port)


def _join_bridge_port(port: str, bridge: str, wiring: Wiring, entries: dict[str, Target]) -> None:
    """A bridge port passes the hooks before the bridge, and policy after it."""
    entries[port] = Target("ingress", port)
    for element, following in (("ingress", "header"), ("header", "reassemble"), ("reassemble", "connections")):
        wiring[element, port] = Target(following, port)
    wiring["connections", port] = Target(bridge, port)
    wiring["egress", port] = Target("", port)


def reconfigure_host(device: Device, old: HostConfig, new: HostConfig) -> bool:
    """Take a new configuration in place where only rows changed; False: it must be built anew.

    Pods' ports, interfaces and bridges that come and go, routes, neighbours and remotes are rows: what
    was learned stays. Tunnels, with their interfaces, are structure, and so is the interface of a bridge that stays.
    """
    stay = {bridge.interface for bridge in old.bridges} & {bridge.interface for bridge in new.bridges}
    if _structure(old, stay) != _structure(new, stay):
        return False
    _take_interfaces(device, old, new)
    mtus = {port.name: port.mtu for port in new.ports}
    _take_bridges(device, old, new, mtus)
    member = {port: bridge.interface for bridge in new.bridges for port in bridge.ports}
    elements = device.elements
    for port in {port for bridge in old.bridges for port in bridge.ports} - member.keys():
        device.entries.pop(port, None)
        device.ports.pop(port, None)
        for element in ("ingress", "header", "reassemble", "connections", "egress"):
            device.wiring.pop((element, port), None)
    for port, bridge_name in member.items():
        _join_bridge_port(port, bridge_name, device.wiring, device.entries)
    header = elements["header"]
    assert isinstance(header, Header)
    header.bridged = frozenset(member)
    for bridge in new.bridges:
        learning = elements[bridge.interface]
        assert isinstance(learning, Bridge)
        learning.reconfigure(
            {port: mtus[port] for port in bridge.ports},
            bridge.ageing_ns,
            bridge.capacity,
            hairpin=bridge.hairpin,
            isolated=bridge.isolated,
            group_forward_mask=bridge.group_forward_mask,
        )
    _retrack(device, new.connections, member)
    policy = elements["policy"]
    assert isinstance(policy, Policy)
    policy.reconfigure(new.policies, member)
    isolation = elements["isolation"]
    assert isinstance(isolation, Isolation)
    isolation.reconfigure(new.segments, member)
    _keep_apart(device.wiring, new)
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


def _structure(config: HostConfig, bridges: set[str]) -> tuple[object, ...]:
    """What cannot change while the device stays: tunnels by name, and the interfaces that they and `bridges` are."""
    tunnels = tuple(vxlan.interface for vxlan in config.vxlans)
    return tunnels, {one.name: one for one in config.interfaces if one.name in bridges or one.name in tunnels}


def _take_bridges(device: Device, old: HostConfig, new: HostConfig, mtus: dict[str, int]) -> None:
    """Bridges that go and that come. Their interfaces have been taken already."""
    names = {bridge.interface for bridge in new.bridges}
    for bridge in old.bridges:
        if bridge.interface not in names:
            device.elements.pop(bridge.interface)
            for way in (*_bridge_ways(bridge.interface), (bridge.interface, "egress")):
                device.wiring.pop(way, None)
    router = device.elements["router"]
    assert isinstance(router, Router)
    for bridge in new.bridges:
        if bridge.interface not in device.elements:
            device.elements[bridge.interface] = _make_bridge(bridge, router.own, mtus, device.watch)
            device.wiring |= _bridge_ways(bridge.interface)


def _take_interfaces(device: Device, old: HostConfig, new: HostConfig) -> None:
    if old.interfaces == new.interfaces:
        return
    router, neighbor, ingress = device.elements["router"], device.elements["neighbor"], device.elements["ingress"]
    assert isinstance(router, Router)
    assert isinstance(neighbor, NeighborElement)
    assert isinstance(ingress, Ingress)
    wanted = {interface.name: interface for interface in new.interfaces}
    ports = {port.name for port in new.ports}
    for interface in old.interfaces:
        name = interface.name
        if wanted.get(name) == interface:
            continue
        neighbor.forget(name)
        device.elements.pop(f"link {name}")
        for entry in (name, f"local:{name}"):
            device.entries.pop(entry, None)
            device.ports.pop(entry, None)
        link, local = f"link {name}", f"local:{name}"
        for way in (
            (link, "arp"),
            (link, "ip"),
            ("fragment", local),
            ("sockets", local),
            ("ingress", name),
            ("neighbor", name),
        ):
            device.wiring.pop(way, None)
    router.own.replace(new.interfaces)
    ingress.interfaces = {name: name for name in wanted if name in ports}
    for name, interface in wanted.items():
        if f"link {name}" in device.elements:
            continue
        device.elements[f"link {name}"] = Link(new.name, interface)
        _join_interface(interface, device.wiring, device.entries)
        if name in ports:
            _join_uplink(name, device.wiring, device.entries)


def _retrack(device: Device, rules: ConnectionsConfig | None, member: dict[str, str]) -> None:
    """Take other rules for connections. Fragments that wait when tracking ends wait for their time."""
    connections, translate = device.elements["connections"], device.elements["translate"]
    reassemble = device.elements["reassemble"]
    assert isinstance(connections, Connections)
    assert isinstance(translate, Translate)
    assert isinstance(reassemble, Reassemble)
    connections.reconfigure(rules, member)
    translate.reconfigure(rules, member)
    reassemble.enabled = rules is not None
    _track(device.wiring, connections.own, tracked=rules is not None)
