"""The flow cache is invisible except in speed: the same world with and without it, side by side.

Both worlds get the same script of random traffic and trouble; every frame that comes
out, its time, every counter, every table and every reason must be equal. That the
cache was really used is asserted too: a test without hits would test nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from emunet.fabric import flows
from emunet.fabric.capture import Record
from emunet.fabric.config import (
    Backend,
    Block,
    ConnectionsConfig,
    Group,
    Masquerade,
    Permit,
    PodPolicies,
    PoliciesConfig,
    PolicyRules,
    PortRange,
    Publish,
    Route,
    RouteKind,
    ServicePort,
)
from emunet.fabric.impaired import Impairment
from emunet.fabric.world import World
from emunet.packet import icmp, ipv4
from emunet.packet.address import Prefix
from emunet.packet.offload import GSO_NONE, GSO_TCPV4, GSO_TCPV6, NEEDS_CSUM, Offload
from emunet.plane.device import Device
from emunet.plane.table import Counter, Table
from tests.worlds import SECOND, Net, datagram, echo, segment

STEP = 1_000  # ns between events, so that no two happen at the same moment


def ports_of(device: Device) -> dict[str, tuple[int, int]]:
    """What passed each port."""
    return {name: (figures.received, figures.sent) for name, figures in device.ports.items()}


Seen = tuple[int, bool, bytes, tuple[str, ...], int]


def numbered(seen: dict[str, list[Seen]]) -> dict[str, list[Seen]]:
    """The same with identities in the order in which they appear: which are the same packet, not how they count."""
    known: dict[int, int] = {}
    return {port: [(*row[:4], known.setdefault(row[4], len(known))) for row in seen[port]] for port in sorted(seen)}


class Watcher:
    """Keeps what passes each port."""

    def __init__(self, seen: dict[str, list[Seen]]) -> None:
        self.seen = seen

    def write(self, record: Record) -> None:
        """Keep it."""
        for frame in record.frames:
            self.seen.setdefault(record.port, []).append(
                (record.at, record.inbound, frame, tuple(record.comments), record.identity)
            )


class Twins:
    """Two worlds that differ only in the cache."""

    def __init__(self, topology: str, seed: int, *, translating: bool = False) -> None:
        self.random = random.Random(seed)
        self.cached = Net(topology, flow_cache=True, seed=seed)
        self.plain = Net(topology, flow_cache=False, seed=seed)
        self.published: list[tuple[bytes, int]] = []
        self.serving = False
        if translating:
            self.translate()
        self.now = 0
        self.seen: tuple[dict[str, list[Seen]], dict[str, list[Seen]]] = ({}, {})
        self.watched: dict[str, tuple[Watcher, Watcher]] = {}
        self.pods = [edge.name for edge in self.cached.config.pods]
        self.sent = 0
        self.flows = [self.flow() for _ in range(12)]

    @property
    def both(self) -> tuple[Net, Net]:
        """Cached, plain."""
        return self.cached, self.plain

    def translate(self) -> None:
        """Every host tracks connections, masquerades what leaves by its uplink, and publishes two pods' ports."""
        for net in self.both:
            hosts = []
            for number, host in enumerate(net.config.hosts):
                pods = [pod for pod in net.config.pods if len(pod.addresses[0].address) == 4]
                rows = []
                for port, protocol in ((8080, 6), (8081, 17)):
                    pod = pods[(number + port) % len(pods)]
                    rows.append(Publish(protocol, port, pod.addresses[0].address, 80, local=(pod.addresses[0].prefix,)))
                rules = ConnectionsConfig(
                    masquerade=(Masquerade(interfaces=("eth0", "flannel.1")),), publish=tuple(rows)
                )
                hosts.append(replace(host, connections=rules))
                if net is self.cached:
                    uplink = next(row for row in host.interfaces if row.name == "eth0")
                    self.published += [(uplink.addresses[0].address, row.port) for row in rows]
            net.config = replace(net.config, hosts=tuple(hosts))
            net.world.configure(net.config)

    def police(self) -> None:
        """Other policies on every host, or one that differs a little from what is there."""
        hosts = [self.policies_of(host.name, host.policies) for host in self.cached.config.hosts]
        for net in self.both:
            changed = [replace(host, policies=rules) for host, rules in zip(net.config.hosts, hosts, strict=True)]
            net.config = replace(net.config, hosts=tuple(changed))
            net.world.configure(net.config)
            assert net.world.config == net.config

    def policies_of(self, host: str, before: PoliciesConfig) -> PoliciesConfig:
        """Random policies for the pods of a host: some anew, some groups with other members."""
        edges = {edge.name: edge for edge in self.cached.config.pods}
        everybody = sorted(row.address for edge in edges.values() for row in edge.addresses)

        def some() -> tuple[bytes, ...]:
            return tuple(address for address in everybody if self.random.random() < 0.5)

        def isolation(number: int) -> PolicyRules:
            ports = self.random.choice(
                [None, (PortRange(17),), (PortRange(6, 80, 80), PortRange(17, 80, 80)), (PortRange(6, 1, 90, "g0"),)]
            )
            peers = self.random.choice(
                [
                    {"anyone": True},
                    {"groups": ("g0",)},
                    {"groups": ("g1", "g2")},
                    {"blocks": (Block(Prefix(bytes((10, 244, 1, 0)), 24)),)},
                ]
            )
            return PolicyRules(f"default/p{number}", (Permit(1, ports=ports, **peers),) if number else ())

        groups = tuple(Group(name, found) for name in ("g0", "g1", "g2") if (found := some()))
        pods = tuple(row for row in before.pods if self.random.random() < 0.7)
        free = [name for name, edge in edges.items() if edge.device == host and name not in {row.port for row in pods}]
        for name in free:
            if self.random.random() < 0.4:
                ingress, egress = (
                    tuple(isolation(number) for number in range(4) if self.random.random() < 0.4) for _ in range(2)
                )
                pods = (*pods, PodPolicies(name, tuple(row.address for row in edges[name].addresses), ingress, egress))
        pods = tuple(sorted(pods, key=lambda row: row.port))
        return PoliciesConfig(pods, groups, per_packet=self.random.random() < 0.5)

    def to_published(self) -> None:
        """A pod calls a published port of some host, perhaps its own."""
        a = self.random.choice(self.pods)
        address, port = self.random.choice(self.published)
        source, sport = self.cached[a].address(), 2000 + self.random.randrange(3)
        if port == 8080:
            packet = segment(source, address, sport, port, self.random.choice([0x02, 0x10, 0x18]), b"call")
        else:
            packet = datagram(source, address, sport, port, b"call")
        self.send(a, self.cached.frame(a, packet))

    def serve(self) -> None:
        """Services that change: their backends come, end and go; policies, affinity and node ports too."""
        chance = self.random
        edges = [edge for edge in self.cached.config.pods if len(edge.addresses[0].address) == 4]
        found = []
        for number, protocol in ((1, 17), (2, 6), (3, 17), (4, 6)):
            if chance.random() < 0.1:
                continue
            backends = tuple(
                Backend(edge.addresses[0].address, 80, edge.device, edge.name, ending=chance.random() < 0.2)
                for edge in edges
                if chance.random() < 0.5
            )
            found.append(
                ServicePort(
                    f"default/s{number}", protocol, 80, bytes((10, 96, 0, number)), backends,
                    node_port=30000 + number, affinity=chance.choice([0, 0, 8 * SECOND]),
                    internal_local=chance.random() < 0.2, external_local=chance.random() < 0.3,
                )
            )  # fmt: skip
        for net in self.both:
            net.world.serving.become(tuple(found))
            net.config = net.world.config
        self.serving = True

    def to_service(self) -> None:
        """A pod calls a Service, by its address or by a node port of some host."""
        name, number = self.random.choice(self.pods), self.random.randrange(1, 5)
        source, sport = self.cached[name].address(), 3000 + self.random.randrange(3)
        address, port = bytes((10, 96, 0, number)), 80
        if self.random.random() < 0.3:
            address, port = self.random.choice(self.published)[0], 30000 + number
        if number % 2:
            packet = datagram(source, address, sport, port, b"call")
        else:
            packet = segment(source, address, sport, port, self.random.choice([0x02, 0x10, 0x18]), b"call")
        self.send(name, self.cached.frame(name, packet))

    def reply(self) -> None:
        """A pod answers something that it got: to whoever it seems to come from."""
        name = self.random.choice(self.pods)
        station = self.cached[name]
        if not station.got:
            return
        _, frame = self.random.choice(station.got[-8:])
        if frame[12:15] != b"\x08\x00\x45" or frame[6:12] == station.mac or len(frame) < (54 if frame[23] == 6 else 42):
            return
        source, destination, protocol = frame[26:30], frame[30:34], frame[23]
        if destination != station.address() or frame[20] & 0x3F or frame[21]:
            return
        sport, dport = int.from_bytes(frame[34:36], "big"), int.from_bytes(frame[36:38], "big")
        fields = {"identification": self.random.randrange(65536)}
        if protocol == 17:
            packet = datagram(destination, source, dport, sport, b"answer", **fields)
        elif protocol == 6:
            flags = 0x12 if frame[47] & 2 else self.random.choice([0x10, 0x18, 0x18, 0x11, 0x14])
            packet = segment(destination, source, dport, sport, flags, b"answer" if flags & 8 else b"", **fields)
        elif frame[34] == 8:
            message = icmp.Icmp(0, 0, frame[38:42], b"answer").pack()
            packet = ipv4.IPv4(destination, source, 1, **fields).pack(message)
        else:
            return
        self.send(name, frame[6:12] + station.mac + b"\x08\x00" + packet)

    def flow(self) -> tuple[str, str, int, int, int, str, int]:
        """Two pods, ports, family, kind and TTL."""
        a, b = self.random.sample(self.pods, 2)
        families = sorted({len(row.address) for row in self.cached[a].addresses})
        kind = self.random.choice(["udp", "udp", "tcp", "tcp", "echo"])
        return (
            a,
            b,
            1024 + self.random.randrange(4),
            80,
            self.random.choice(families),
            kind,
            self.random.choice([64, 64, 64, 3, 2, 1]),
        )

    def tick(self, nanoseconds: int) -> None:
        """Time passes in both."""
        self.now += nanoseconds
        for net in self.both:
            net.world.advance(self.now)

    def send(self, source: str, frame: bytes, offload: Offload | None = None) -> None:
        """The same frame enters both."""
        self.tick(STEP)
        self.sent += 1
        for net in self.both:
            net.world.receive(net[source], frame, self.now, offload)

    def traffic(self) -> None:
        """A frame of a steady flow, of any size up to its MTU, complete or with its checksum left open."""
        a, b, sport, dport, family, kind, ttl = self.random.choice(self.flows)
        net = self.cached
        source, destination = net[a].address(family), net[b].address(family)
        size = self.random.choice([0, 1, 18, 500, 1300, 1392])
        data = bytes(self.random.randrange(256) for _ in range(8)) * (size // 8)
        fields = {
            "ttl": ttl,
            "identification": self.random.randrange(65536),
            "dont_fragment": self.random.random() < 0.5,
        }
        if kind == "udp":
            packet = datagram(source, destination, sport, dport, data, **fields)
        elif kind == "tcp":
            packet = segment(
                source, destination, sport, dport, self.random.choice([0x10, 0x18, 0x02, 0x11]), data, **fields
            )
        else:
            packet = echo(source, destination, size=len(data), **fields)
        on_link = net[a].device == net[b].device
        frame = net.frame(a, packet, net[b].mac if on_link else None)
        offload = None
        if kind == "tcp" and self.random.random() < 0.6:
            frame, offload = self.left_open(frame, family)
        if self.random.random() < 0.05:
            frame += bytes(6)  # link padding
            offload = None
        elif self.random.random() < 0.03 and offload is None and family == 4 and kind != "echo":
            packet = ipv4.IPv4(source, destination, 17 if kind == "udp" else 6, ttl=ttl).pack(frame[34:38])
            frame = frame[:14] + packet  # cut behind the ports
        if self.random.random() < 0.05 and offload is None:
            at = self.random.randrange(14, len(frame))
            frame = frame[:at] + bytes((frame[at] ^ 1 << self.random.randrange(8),)) + frame[at + 1 :]
        self.send(a, frame, offload)

    def left_open(self, frame: bytes, family: int) -> tuple[bytes, Offload]:
        """As a kernel hands over TCP: the checksum holds the pseudo-header sum, the frame may be a superframe."""
        from emunet.packet.checksum import pseudo_sum

        start = 34 if family == 4 else 54
        body = frame[start:]
        if self.random.random() < 0.4:
            body += bytes(self.random.randrange(256) for _ in range(16)) * 400
        length = len(body)
        if family == 4:
            from emunet.packet.ipv4 import IPv4

            header, _ = IPv4.parse(frame[14:])
            network = header.pack(body)[: start - 14]
            pseudo = pseudo_sum(header.src, header.dst, 6, length)
        else:
            network = frame[14:18] + length.to_bytes(2, "big") + frame[20:54]
            pseudo = pseudo_sum(frame[22:38], frame[38:54], 6, length)
        body = body[:16] + pseudo.to_bytes(2, "big") + body[18:]
        whole = frame[:14] + network + body
        size = 1392 - (20 if family == 16 else 0)
        if length - 20 <= size:
            return whole, Offload(NEEDS_CSUM, GSO_NONE, 0, 0, start, 16)
        return whole, Offload(NEEDS_CSUM, GSO_TCPV4 if family == 4 else GSO_TCPV6, start + 20, size, start, 16)

    def nowhere(self) -> None:
        """To an address that nobody has: no route, or no neighbour."""
        a = self.random.choice(self.pods)
        source = self.cached[a].address()
        destination = bytes(self.random.choice([(10, 244, 1, 200), (10, 9, 9, 9), (10, 244, 2, 77), (224, 0, 0, 9)]))
        self.send(a, self.cached.frame(a, datagram(source, destination, 5, 6, b"x")))

    def move(self) -> None:
        """A station's MAC appears behind another port, and comes back with its next frame."""
        a, b = self.random.sample(self.pods, 2)
        frame = b"\xff" * 6 + self.cached[a].mac + b"\x88\xb5" + bytes(46)
        self.send(b, frame)

    def wire(self) -> None:
        """A wire goes down or up."""
        name = self.random.choice(list(self.cached.world.wires))
        up = self.random.random() < 0.8
        for net in self.both:
            net.world.trouble.set_up(name, up)

    def impair(self) -> None:
        """A wire begins to delay and to lose, or stops."""
        name = self.random.choice(list(self.cached.world.wires))
        impairment = self.random.choice(
            [
                Impairment(),
                Impairment(delay=300_000, jitter=100_000, loss=0.1),
                Impairment(delay=50_000, duplicate=0.2),
                Impairment(delay=400_000),
                Impairment(delay=30_000, rate=50_000_000, queue=2),
                Impairment(mtu=900),
                Impairment(loss=0.5, match="vxlan and udp or tcp"),
            ]
        )
        for net in self.both:
            net.world.trouble.impair(name, impairment)

    def part(self) -> None:
        """The hosts are parted in two, or joined again."""
        hosts = [host.name for host in self.cached.config.hosts]
        groups = [[self.random.choice(hosts)]] if self.random.random() < 0.5 and len(hosts) > 1 else []
        for net in self.both:
            net.world.trouble.part(groups)

    def power(self) -> None:
        """A device loses its power, or all have it again."""
        off = self.random.choice(list(self.cached.world.devices)) if self.random.random() < 0.4 else ""
        for net in self.both:
            for name in net.world.devices:
                net.world.set_power(name, on=name != off)

    def route(self) -> None:
        """A blackhole for one pod's address comes on the first host, or the one that is there goes."""
        old = [row for row in self.cached.config.hosts[0].routes if row.kind is RouteKind.BLACKHOLE]
        address = self.cached[self.random.choice(self.pods)].address()
        extra = old[0] if old else Route(Prefix(address, 32), kind=RouteKind.BLACKHOLE)
        for net in self.both:
            host = net.config.hosts[0]
            routes = (
                tuple(row for row in host.routes if row != extra) if extra in host.routes else (*host.routes, extra)
            )
            net.config = replace(net.config, hosts=(replace(host, routes=routes), *net.config.hosts[1:]))
            net.world.configure(net.config)

    def dry(self) -> None:
        """An explanation in one world only: it must change nothing."""
        a, b = self.random.sample(self.pods, 2)
        packet = echo(self.cached[a].address(), self.cached[b].address())
        self.cached.world.explain(self.cached[a], self.cached.frame(a, packet))

    def watch(self) -> None:
        """Somebody begins to watch a port, or stops."""
        port = self.random.choice(self.cached.world.port_names())
        watchers = self.watched.pop(port, None)
        if watchers is None:
            watchers = self.watched[port] = (Watcher(self.seen[0]), Watcher(self.seen[1]))
            for net, watcher in zip(self.both, watchers, strict=True):
                net.world.tap(port, watcher)
        else:
            for net, watcher in zip(self.both, watchers, strict=True):
                net.world.untap(port, watcher)

    def wait(self) -> None:
        """Time passes: a moment, or long enough for entries to age."""
        self.tick(self.random.choice([SECOND // 100, SECOND, 6 * SECOND, 40 * SECOND, 400 * SECOND]))

    def compare(self) -> None:
        """Everything that can be seen is equal, and accounted for."""
        for net in self.both:
            net.balanced()
        for name in self.cached.stations:
            assert self.cached[name].got == self.plain[name].got, name
        cached, plain = (numbered(seen) for seen in self.seen)
        for port in plain:
            assert cached[port] == plain[port], port
        assert cached.keys() == plain.keys()
        assert self.cached.world.ledger.as_dict() == self.plain.world.ledger.as_dict()
        for name, device in self.cached.world.devices.items():
            other = self.plain.world.devices[name]
            assert device.ledger.as_dict() == other.ledger.as_dict(), name
            assert ports_of(device) == ports_of(other), name
            for mine, its in zip(device.state(), other.state(), strict=True):
                if isinstance(mine, Table):
                    assert isinstance(its, Table)
                    assert rows(mine, self.now) == rows(its, self.now), (name, mine.name)
                else:
                    assert isinstance(its, Counter)
                    assert mine.value == its.value, (name, mine.name)


def rows(table: Table, now: int) -> dict[object, object]:
    """A table's live rows with their ages; packets that wait are compared by their bytes."""
    found = {}
    for key, value in table.items(now):
        if hasattr(value, "packets"):
            value = [packet.frame for packet in value.packets]
        found[key] = (value, table.age(key, now) if table.lifetime is not None else None)
    return found


def play(
    topology: str,
    seed: int,
    *,
    translating: bool = False,
    policed: bool = False,
    serving: bool = False,
    slow: bool = False,
) -> Twins:
    """Random traffic and trouble, compared now and then and at the end. `slow`: every wire delays and paces."""
    twins = Twins(topology, seed, translating=translating)
    for net in twins.both if slow else ():
        for number, name in enumerate(net.world.wires):
            net.world.trouble.impair(name, Impairment(delay=3_000 + 700 * number, rate=20_000_000_000, queue=20))
    trouble: list[Callable[[], None]] = [twins.nowhere, twins.move, twins.wait, twins.dry, twins.route, twins.watch]
    if twins.cached.world.wires:
        trouble += [twins.wire, twins.impair, twins.part, twins.power]
    if policed:
        trouble += [twins.police] * len(trouble)
    if serving:
        trouble += [twins.serve] * len(trouble)
        twins.serve()
    for _ in range(60):
        for _ in range(twins.random.randrange(1, 25)):
            twins.traffic()
            if twins.random.random() < 0.4:
                twins.reply()
            if twins.published and twins.random.random() < 0.2:
                twins.to_published()
            if twins.serving and twins.random.random() < 0.5:
                twins.to_service()
        twins.random.choice(trouble)()
        if twins.random.random() < 0.2:
            twins.compare()
    twins.compare()
    return twins


@pytest.mark.parametrize("topology", ["one-host", "two-hosts", "three-hosts-routed", "leaf-spine", "dual-stack"])
@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 6))])
def test_same_with_and_without(topology: str, seed: int) -> None:
    """Random traffic and trouble on every shipped topology."""
    twins = play(topology, seed)
    assert twins.cached.world.flows.hits > 0
    assert twins.plain.world.flows.hits == 0


@pytest.mark.parametrize("topology", ["two-hosts", "three-hosts-routed", "leaf-spine", "dual-stack"])
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 5))])
def test_same_with_translation(topology: str, seed: int) -> None:
    """The same with connection tracking, masquerade and published ports on every host."""
    twins = play(topology, seed, translating=True)
    assert twins.cached.world.flows.hits > 0


@pytest.mark.parametrize("topology", ["one-host", "two-hosts", "three-hosts-routed"])
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 5))])
def test_same_with_services(topology: str, seed: int) -> None:
    """The same with Services whose endpoints come and go all the time, beside published ports."""
    twins = play(topology, seed, translating=True, serving=True)
    assert twins.cached.world.flows.hits > 0
    heard = [frame for name in twins.pods for _, frame in twins.cached[name].got]
    ports = {int.from_bytes(frame[34:36], "big") for frame in heard if frame[12:15] == b"\x08\x00\x45"}
    assert ports & {3000, 3001, 3002}, "a call of a Service arrived"


@pytest.mark.parametrize("topology", ["one-host", "two-hosts", "leaf-spine", "dual-stack"])
@pytest.mark.parametrize("seed", range(5))
def test_same_with_policies(topology: str, seed: int) -> None:
    """The same with policies that change all the time, for connections and for packets."""
    twins = play(topology, seed, translating=True, policed=True)
    assert twins.cached.world.flows.hits > 0
    assert twins.cached.world.flows.invalidated["a policy changed"] > 0
    reasons = twins.cached.world.ledger.as_dict()["reasons"]
    assert reasons["POLICY_INGRESS"] + reasons["POLICY_EGRESS"] > 20


@pytest.mark.parametrize("translating", [False, True])
@pytest.mark.parametrize(
    "topology",
    [
        "two-hosts",
        *(pytest.param(x, marks=pytest.mark.slow) for x in ("three-hosts-routed", "leaf-spine", "dual-stack")),
    ],
)
def test_same_on_wires_that_delay(topology: str, translating: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same where many frames are on the wires while things change: each goes on as things are when it comes off."""
    passed: list[bool] = []
    original = World.pass_on

    def pass_on(self: World, *arguments: Any) -> bool:
        passed.append(original(self, *arguments))
        return passed[-1]

    monkeypatch.setattr(World, "pass_on", pass_on)
    monkeypatch.setattr(flows, "YOUNG", 2)  # frames of a road are not passed on
    for seed in range(4):
        play(topology, seed, translating=translating, slow=True)
    assert passed.count(True) > 40
    assert passed.count(False) > 40


@pytest.mark.parametrize("kind", ["udp", "tcp", "echo"])
@pytest.mark.parametrize("family", [4, 16])
def test_steady_flows_hit(kind: str, family: int) -> None:
    """In steady state at least 80 % of every class of traffic is answered from the cache."""
    net = Net("dual-stack")
    a, b = net["web-1"].address(family), net["web-3"].address(family)
    for number in range(100):
        if kind == "udp":
            packet = datagram(a, b, 1000, 80, bytes(number))
        elif kind == "tcp":
            packet = segment(a, b, 1000, 80, 0x10, bytes(number))
        else:
            packet = echo(a, b, sequence=number)
        net.world.receive(net["web-1"], net.frame("web-1", packet), number * STEP)
    net.balanced()
    assert net.world.flows.hits >= 80, net.world.flows.refused
    assert len(net["web-3"].got) == 100


def test_dry_runs_change_nothing() -> None:
    """2,000 explanations in between: the next frame, every table and every counter are as if none had been asked."""
    twins = Twins("two-hosts", 5)
    for _ in range(20):
        for _ in range(10):
            twins.traffic()
        for _ in range(100):
            twins.dry()
        twins.compare()
