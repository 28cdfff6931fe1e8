"""A cluster whose hosts masquerade and publish, for stories about connections.

Two hosts, host-gw, both families: web-1 and web-2 on host1, web-3 on host2. host1 publishes
port 9999 (TCP and UDP) and, on one address only, port 9998; both lead to web-2:8080. The
world outside is host2's own sockets (`host2:eth0`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from emunet.elements.connections import Connection, Connections, ConnectionsConfig, ConnectionTable
from emunet.packet import icmp, icmpv6, ipv4, ipv6, tcp, udp
from emunet.packet.address import format_ip, parse_ip
from emunet.packet.checksum import ones_sum, transport_is_valid
from emunet.packet.view import IPV4, IPV6
from emunet.plane.trace import Trace
from tests.worlds import Net

TEXT = """
apiVersion: emunet/v1
kind: Topology
metadata: {name: lab}
spec:
  overlay: OVERLAY
  podCIDRs: [10.244.0.0/16, "fd00:244::/48"]
  masquerade: true
  hosts:
    - name: host1
      publish:
        - {port: 9999, pod: web-2, targetPort: 8080}
        - {port: 9999, pod: web-2, targetPort: 8080, protocol: UDP}
        - {port: 9998, pod: web-2, targetPort: 8080, protocol: UDP, hostIP: 10.244.1.1}
    - host2
---
{apiVersion: v1, kind: Pod, metadata: {name: web-1}, spec: {nodeName: host1, containers: [{name: a, image: b}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-2}, spec: {nodeName: host1, containers: [{name: a, image: b}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-3}, spec: {nodeName: host2, containers: [{name: a, image: b}]}}
"""

OUTSIDE = "host2:eth0"


class Tracked(Net):
    """That cluster, with short words for what stories say."""

    def __init__(self, overlay: str = "host-gw", seed: int = 0, flow_cache: bool = True) -> None:
        super().__init__(text=TEXT.replace("OVERLAY", overlay), seed=seed, flow_cache=flow_cache)

    def connections(self, device: str = "host1") -> Connections:
        """A host's element."""
        element = self.world.devices[device].elements["connections"]
        assert isinstance(element, Connections)
        return element

    def table(self, device: str = "host1") -> ConnectionTable:
        """A host's connections."""
        return self.connections(device).table

    def rules(self, rules: ConnectionsConfig | None, device: str = "host1") -> None:
        """Give a host other rules, by the World; None: it tracks nothing."""
        hosts = tuple(replace(host, connections=rules) if host.name == device else host for host in self.config.hosts)
        self.config = replace(self.config, hosts=hosts)
        self.world.configure(self.config)

    def lines(self, device: str = "host1") -> list[str]:
        """A host's connections as `conntrack -L` prints them."""
        table = self.table(device)
        return [row.as_line(table.remaining(key, self.world.now)) for key, row in table.items(self.world.now)]

    def one(self, device: str = "host1") -> Connection:
        """The only connection of a host."""
        (connection,) = [row for _, row in self.table(device).items(self.world.now)]
        return connection

    def say(self, source: str, packet: bytes, to: bytes | None = None) -> Trace:
        """Let a packet in by a pod or by a host's own sockets, and keep the law."""
        trace = self.send(source, self.frame(source, packet, to))
        self.balanced()
        return trace

    def heard(self, name: str) -> list[str]:
        """What reached a station since it was asked last, in words, every checksum checked."""
        words = [described(frame) for frame in self.frames(name)]
        self[name].got.clear()
        return words

    def frames(self, name: str) -> list[bytes]:
        """The IP frames that reached a station."""
        return [frame for _, frame in self[name].got if frame[12:14] in (IPV4, IPV6)]

    def address(self, name: str, family: int = 4) -> bytes:
        """Of a pod or a host's interface."""
        return self[name].address(family)


def described(frame: bytes) -> str:
    """`udp 10.244.1.2:1000 -> 192.168.9.12:53 ttl 62`, with what is wrong with it."""
    packet = frame[14:]
    if packet[0] >> 4 == 4:
        header, body = ipv4.IPv4.parse(packet)
        source, destination, protocol, ttl = header.src, header.dst, header.protocol, header.ttl
        cut = f" bytes {header.fragment_offset}+{len(body)}{' more' if header.more_fragments else ''}"
        if header.is_fragment:
            return f"{protocol} {format_ip(source)} -> {format_ip(destination)} ttl {ttl}{cut}"
    else:
        head, body = ipv6.IPv6.parse(packet)
        source, destination, protocol, ttl = head.src, head.dst, head.next_header, head.hop_limit
    ends = f"{format_ip(source)} -> {format_ip(destination)}"
    if protocol in (ipv4.TCP, ipv4.UDP):
        right = body[6:8] == bytes(2) if protocol == ipv4.UDP else False
        right = right or transport_is_valid(source, destination, protocol, body)
        sport, dport = body[0] << 8 | body[1], body[2] << 8 | body[3]
        name = "tcp" if protocol == ipv4.TCP else "udp"
        ends = f"{format_ip(source)}:{sport} -> {format_ip(destination)}:{dport}"
    elif protocol in (ipv4.ICMP, ipv4.ICMPV6):
        v4 = protocol == ipv4.ICMP
        right = ones_sum(body) == 0xFFFF if v4 else transport_is_valid(source, destination, protocol, body)
        name = f"icmp {body[0]}/{body[1]}"
        if body[0] in ((3, 11, 12) if v4 else (1, 2, 3, 4)):
            return f"{name} {ends} ttl {ttl} about ({quoted(body[8:])}){'' if right else ' BAD SUM'}"
        name += f" id {body[4] << 8 | body[5]}"
    else:
        name, right = str(protocol), True
    return f"{name} {ends} ttl {ttl}{'' if right else ' BAD SUM'}"


def quoted(packet: bytes) -> str:
    """What an error quotes: as `described` without the judgement."""
    if packet[0] >> 4 == 4:
        at, source, destination = 20, packet[12:16], packet[16:20]
        right = ones_sum(packet[:20]) == 0xFFFF
    else:
        at, source, destination, right = 40, packet[8:24], packet[24:40], True
    sport, dport = packet[at] << 8 | packet[at + 1], packet[at + 2] << 8 | packet[at + 3]
    return f"{format_ip(source)}:{sport} -> {format_ip(destination)}:{dport}{'' if right else ' BAD HEADER SUM'}"


def error_about(source: bytes, frame: bytes, kind: tuple[int, int] = (3, 3), length: int = 548) -> bytes:
    """An ICMP error from `source` to the sender of what is in `frame`."""
    packet = frame[14:][:length]
    if packet[0] >> 4 == 4:
        return ipv4.IPv4(source, packet[12:16], ipv4.ICMP).pack(icmp.Icmp(*kind, bytes(4), packet).pack())
    body = icmpv6.Icmpv6(*kind, bytes(4), packet).pack(source, packet[8:24])
    return ipv6.IPv6(source, packet[8:24], ipv4.ICMPV6).pack(body)


def pong(source: bytes, destination: bytes, number: int) -> bytes:
    """An echo reply of either family."""
    if len(source) == 4:
        message = icmp.echo_reply(icmp.echo_request(number, 1)).pack()
        return ipv4.IPv4(source, destination, ipv4.ICMP).pack(message)
    reply = icmpv6.echo_reply(icmpv6.echo_request(number, 1)).pack(source, destination)
    return ipv6.IPv6(source, destination, ipv4.ICMPV6).pack(reply)


def cut_udp(source: bytes, destination: bytes, sport: int, dport: int, pieces: list[int], **fields: Any) -> list[bytes]:
    """A UDP datagram in fragments whose payloads have these lengths, the UDP header counted in the first."""
    data = (bytes(range(256)) * (sum(pieces) // 256 + 1))[: sum(pieces) - 8]
    body = udp.Udp(sport, dport).pack(source, destination, data)
    return ipv4.fragment_at(ipv4.IPv4(source, destination, ipv4.UDP, **fields).pack(body), pieces)


SYN, ACK, FIN, RST = tcp.SYN, tcp.ACK, tcp.FIN, tcp.RST
ip = parse_ip
