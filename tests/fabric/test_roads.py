"""Roads: what a new connection costs, counted in decisions of elements, and where roads branch and end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from emunet.elements.connections import Backend, ServicePort, TcpState
from emunet.elements.connections.flow import TCP, UDP
from emunet.fabric.flow_key import ends_of
from emunet.fabric.roads import YOUNG
from emunet.packet import vxlan
from emunet.packet.checksum import pseudo_sum
from emunet.packet.offload import GSO_TCPV4, NEEDS_CSUM, Offload
from tests.elements.service_worlds import VIP, Services
from tests.worlds import SECOND, Net, datagram, segment

SYN, ACK, FIN, DATA = 0x02, 0x10, 0x11, 0x18


class Counted:
    """Connections of ten frames between two stations of a Net, and what they cost."""

    def __init__(self, net: Net, client: str, server: str, called: bytes | None = None, port: int = 80) -> None:
        self.net = net
        self.client, self.server = net[client], net[server]
        self.called = called or self.server.address()
        self.port = port
        self.decided = 0
        for device in net.world.devices.values():
            for element in device.elements.values():
                element.handle = self._counted(element.handle)  # type: ignore[method-assign]

    def _counted(self, handle):  # type: ignore[no-untyped-def]
        def counted(*arguments):  # type: ignore[no-untyped-def]
            self.decided += 1
            return handle(*arguments)

        return counted

    def connect(self, port: int) -> None:
        """A connection from this port: begun, a question, an answer, both ends close."""
        for from_client, flags in (
            (True, SYN), (False, SYN | ACK), (True, ACK), (True, DATA), (False, ACK), (False, DATA), (False, FIN),
            (True, ACK), (True, FIN), (False, ACK),
        ):  # fmt: skip
            self.send(port, flags, from_client=from_client)

    def send(self, port: int, flags: int, *, from_client: bool = True) -> None:
        """One of its frames."""
        world, client = self.net.world, self.client.address(len(self.called))
        if from_client:
            packet = segment(client, self.called, port, 80, flags)
            station = self.client
        else:
            packet = segment(self.server.address(len(self.called)), client, self.port, port, flags)
            station = self.server
        to = None
        if self.called == self.server.address() and self.client.device == self.server.device:
            to = (self.server if from_client else self.client).mac
        world.receive(station, self.net.frame(station.name, packet, to), world.now + 1_000)

    @contextmanager
    def costing(self, decisions: int, recorded: int = 0) -> Iterator[None]:
        """Within it so many decisions of elements at most, and so many runs that are recorded."""
        flows = self.net.world.flows
        self.decided, misses = 0, flows.misses
        got = len(self.client.got), len(self.server.got)
        yield
        assert self.decided <= decisions
        assert flows.misses == misses + recorded
        assert (len(self.client.got), len(self.server.got)) == (got[0] + 5, got[1] + 5)
        self.net.balanced()


@pytest.mark.parametrize(
    ("topology", "server"), [("one-host", "web-2"), ("two-hosts", "web-3"), ("leaf-spine", "web-3")]
)
def test_where_nobody_asks_for_ports_a_new_connection_is_decided_by_nobody(topology: str, server: str) -> None:
    """Bridged, and over VXLAN: the second connection between two pods costs no decision at all."""
    counted = Counted(Net(topology), "web-1", server)
    counted.connect(1024)
    with counted.costing(0):
        counted.connect(1025)


@pytest.mark.parametrize("overlay", ["host-gw", "vxlan"])
@pytest.mark.parametrize("family", [4, 16])
def test_through_a_cluster_ip_only_those_decide_who_track(overlay: str, family: int) -> None:
    """On each of two hosts `connections` and `translate`, for ten frames.

    With a tunnel these for it too, and its end; and runs of both directions are tried, for the superframes to come.
    """
    net = Services(overlay)
    net.with_backends("p2a", protocol=TCP, family=family)
    counted = Counted(net, "p1a", "p2a", VIP[family], 8080)
    counted.connect(1024)
    with counted.costing(*((40, 0) if overlay == "host-gw" else (300, 5))):
        counted.connect(1025)
    states = [row.state for flow, row in net.table("n1").items(net.world.now) if flow.protocol == TCP]
    assert states == [TcpState.TIME_WAIT] * 2


def test_a_road_branches_to_each_backend() -> None:
    """Of three backends, each is gone to without a walk once it has been gone to, whichever was first."""
    net = Services()
    net.with_backends("p1a", "p1b", "p2a", protocol=TCP)
    counted = Counted(net, "p1b", "p2a", VIP[4])
    for port in range(2000, 2040):
        counted.send(port, SYN)
    flows, heard = net.world.flows, [len(net[pod].got) for pod in ("p1a", "p1b", "p2a")]
    misses = flows.misses
    for port in range(3000, 3040):
        counted.send(port, SYN)
    net.balanced()
    assert flows.misses == misses
    after = [len(net[pod].got) for pod in ("p1a", "p1b", "p2a")]
    assert all(more > 0 for more in (b - a for a, b in zip(heard, after, strict=True)))


def test_what_is_refused_at_a_crossing_goes_no_further() -> None:
    """A Service whose endpoints have gone refuses the next connection, though the last went a road."""
    net = Services()
    net.with_backends("p2a", protocol=TCP)
    counted = Counted(net, "p1a", "p2a", VIP[4], 8080)
    counted.connect(1024)
    net.with_backends(protocol=TCP)
    got = len(net["p2a"].got)
    counted.send(1025, SYN)
    assert len(net["p2a"].got) == got
    assert net.world.ledger.reasons["SERVICE_NO_ENDPOINTS"] == 1
    net.balanced()


def test_a_road_ends_with_what_it_leans_on() -> None:
    """The backend's MAC is another from one frame to the next: nothing behind the crossing goes to the old one."""
    net = Services()
    net.with_backends("p2a", protocol=TCP)
    counted = Counted(net, "p1a", "p2a", VIP[4], 8080)
    counted.connect(1024)
    net.world.devices["n2"].elements["neighbor"].forget("cni0")  # type: ignore[attr-defined]
    counted.decided = 0
    counted.send(1025, SYN)
    assert counted.decided > 8  # asked for again, and walked
    net.balanced()


@pytest.mark.parametrize("flow_cache", [True, False])
def test_a_tunnel_that_a_service_leads_into_looks_into_each_frame(flow_cache: bool) -> None:
    """What was wrapped on the way is known; what a pod has wrapped itself is not, though it comes to the same end."""
    net = Services("vxlan", flow_cache=flow_cache)
    net.serve(ServicePort("default/tunnel", UDP, 80, VIP[4], (Backend(net["n2:eth0"].address(), 4789, "n2"),)))
    client, pod = net["p1a"], net["p2a"]
    tunnel = net.world.devices["n2"].elements["vxlan flannel.1"].config.vni  # type: ignore[attr-defined]
    inside = datagram(client.address(), pod.address(), 1, 2, b"inside")
    link = net.mac("n2", "flannel.1") + client.mac + b"\x08\x00"
    for number in range(6):
        vni = tunnel if number % 2 == 0 else tunnel + 1
        packet = datagram(client.address(), VIP[4], 4000 + number, 80, vxlan.header(vni) + link + inside)
        net.world.receive(client, net.frame("p1a", packet), net.world.now + 1_000)
    net.balanced()
    assert net.world.ledger.reasons["VXLAN_UNKNOWN_VNI"] == 3
    assert len([frame for _, frame in pod.got if frame.endswith(b"inside")]) == 3


@pytest.mark.parametrize("tracked", [True, False])
def test_superframes_into_a_tunnel_are_not_walked(tracked: bool) -> None:
    """No run of a superframe, which a tunnel cuts, can be repeated: that of a frame before it must be there."""
    net: Net = Services("vxlan") if tracked else Net("two-hosts")
    client, server = ("p1a", "p2a") if tracked else ("web-1", "web-3")
    counted = Counted(net, client, server, port=80)
    for from_client, flags in ((True, SYN), (False, SYN | ACK), (True, ACK), (True, DATA)):
        counted.send(1024, flags, from_client=from_client)
    source, target = net[client].address(), net[server].address()
    packet = segment(source, target, 1024, 80, ACK, bytes(13_000))
    frame = net.frame(client, packet[:36] + pseudo_sum(source, target, 6, 13_020).to_bytes(2, "big") + packet[38:])
    offload = Offload(NEEDS_CSUM, GSO_TCPV4, 54, 1300, 34, 16)
    misses, got = net.world.flows.misses, len(net[server].got)
    for _ in range(100):
        net.world.receive(net[client], frame, net.world.now + 1_000, offload)
    net.balanced()
    assert net.world.flows.misses == misses
    assert len(net[server].got) - got == 1_000


def test_a_flow_that_goes_on_has_a_run_of_its_own() -> None:
    """While it is young it is counted with the others of its road, and then by itself."""
    net = Net("two-hosts")
    a, b = net["web-1"].address(), net["web-3"].address()

    def say(port: int, count: int) -> None:
        for _ in range(count):
            net.world.receive(net["web-1"], net.frame("web-1", datagram(a, b, port, 80, b"x")), net.world.now + 1_000)

    net.world.advance(SECOND)
    say(1000, 2)  # the first waits for a neighbour
    for port in range(1001, 1021):
        say(port, YOUNG)
    say(1000, 100)
    found = {ends_of(replay.key).ports: replay.total for _, _, replay in net.world.flows.live() if replay.begins}
    assert found[1000, 80] > 80
    assert found[0, 0] >= 20 * YOUNG
    assert set(found) == {(0, 0), (1000, 80)}
    assert len(net["web-3"].got) == 102 + 20 * YOUNG
