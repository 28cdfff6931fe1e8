"""From an IP packet to the frame that a pod's own stack would send for it.

A person who asks what happens to `IP(dst="web-3")/ICMP()` means: sent by that pod,
by its own routing. So the next hop is chosen as the stack would (on the link, or
its gateway) and its MAC is that of the stack or interface which has the address.
Where nobody has it the answer is a Trace: the pod's own question stays unanswered
and no frame leaves.

Rule of this file: it reads the World and changes nothing.
"""

from __future__ import annotations

from emunet.fabric.config import HostConfig
from emunet.fabric.edge import Edge
from emunet.fabric.names import LOCAL_PREFIX
from emunet.fabric.world import World
from emunet.packet.address import BROADCAST_MAC, BROADCAST_V4, is_loopback, is_multicast, multicast_mac
from emunet.packet.view import IPV4, IPV6
from emunet.plane.reason import Reason
from emunet.plane.step import Step, Verdict
from emunet.plane.trace import Trace


def frame_from(world: World, edge: Edge, packet: bytes) -> bytes | Trace:
    """The frame for an IP packet (both families) sent at `edge`, or the Trace of why there is none."""
    version = packet[0] >> 4 if packet else 0
    if version not in (4, 6) or len(packet) < (20 if version == 4 else 40):
        raise ValueError(
            "neither an IPv4 nor an IPv6 packet: begin the expression with IP(...), IPv6(...) or Ether(...)"
        )
    ethertype, destination = (IPV4, packet[16:20]) if version == 4 else (IPV6, packet[24:40])
    if edge.entry.startswith(LOCAL_PREFIX):
        return edge.mac + edge.mac + ethertype + packet
    if is_loopback(destination) or any(row.address == destination for row in edge.addresses):
        return _ended(edge, Verdict.DELIVER, Reason.STAYS_INSIDE, {"port": edge.name, "address": destination})
    if is_multicast(destination):
        return multicast_mac(destination) + edge.mac + ethertype + packet
    if destination == BROADCAST_V4 or any(row.prefix.broadcast == destination for row in edge.addresses):
        return BROADCAST_MAC + edge.mac + ethertype + packet
    on_link = any(row.prefix.contains(destination) for row in edge.addresses)
    gateways = [address for address in edge.gateways if len(address) == len(destination)]
    if not on_link and not gateways:
        return _ended(
            edge, Verdict.DROP, Reason.NO_ROUTE, {"device": edge.name, "destination": destination, "sent": ""}
        )
    next_hop = destination if on_link else gateways[0]
    mac = owner(world, edge.device, next_hop) or proxy(world, edge)
    if mac is None:
        arguments = {"interface": "eth0", "device": edge.name, "address": next_hop, "tries": 3, "sent": ""}
        return _ended(edge, Verdict.DROP, Reason.NEIGHBOR_UNREACHABLE, arguments)
    return mac + edge.mac + ethertype + packet


def owner(world: World, host: str, address: bytes) -> bytes | None:
    """The MAC of the stack or interface that has an address on a host's own bridges, or None.

    Other hosts are not asked: Docker gives the same addresses out on each.
    """
    for edge in world.edges.values():
        here = edge.device == host and not edge.entry.startswith(LOCAL_PREFIX)
        if here and any(row.address == address for row in edge.addresses):
            return edge.mac
    return next((interface_mac(config, address) for config in world.config.hosts if config.name == host), None)


def proxy(world: World, edge: Edge) -> bytes | None:
    """The MAC of the host's end of a pod's own link, where that answers for every address; else None (CAL-02)."""
    for config in world.config.hosts:
        for interface in config.interfaces:
            if config.name == edge.device and interface.name == edge.entry and interface.settings.proxy_arp:
                return interface.mac
    return None


def interface_mac(config: HostConfig, address: bytes) -> bytes | None:
    """The MAC of a host's interface that carries an address, or None."""
    for interface in config.interfaces:
        if any(row.address == address for row in interface.addresses):
            return interface.mac
    return None


def _ended(edge: Edge, verdict: Verdict, reason: Reason, arguments: dict[str, object]) -> Trace:
    trace = Trace()
    hop = trace.enter(edge.name, edge.name, 0)
    hop.steps.append(Step("own stack", verdict, reason, dict(arguments)))
    return trace
