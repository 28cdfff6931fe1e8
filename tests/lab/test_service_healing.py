"""A client that calls a Service at a steady rate while what is behind it dies, moves and is replaced.

For each trouble: how many requests were lost, the last packet to the old endpoint and the first to the new one (as
taps on the pods' ports saw them), and what became of a connection that was open to the old one. Lab time: minutes
pass in none. The figures are printed (`pytest -s`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from emunet.elements.endpoint.tcp import Connection
from emunet.fabric.capture import Record
from emunet.packet.address import format_ip
from emunet.testing import Lab
from tests.lab.test_healing import HOSTS, WEB, web_pods

PERIOD = 0.1
VIP = "10.96.0.80"
SECOND = 1_000_000_000


class Packets:
    """The moments (s) at which packets for port 80 came to each address, as the pods' ports saw them."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.came: dict[str, list[float]] = {}
        self.watched: set[str] = set()
        self.look()

    def look(self) -> None:
        """Watch the ports of pods that have come since."""
        for pod in web_pods(self.lab):
            if pod not in self.watched:
                self.watched.add(pod)
                self.lab.plane.tap([pod], self)

    def write(self, record: Record) -> None:
        """A packet passes a port."""
        for frame in record.frames:
            if frame[12:14] == b"\x08\x00" and frame[36:38] == b"\x00\x50":
                self.came.setdefault(format_ip(frame[30:34]), []).append(record.at / SECOND)


@dataclass
class Calls:
    """What became of requests: (when, which pod answered or "")."""

    rows: list[tuple[float, str]] = field(default_factory=list)

    @property
    def lost(self) -> list[float]:
        """When those were asked that nobody answered."""
        return [when for when, pod in self.rows if not pod]

    def answered_by(self, pod: str) -> list[float]:
        """When those were asked that a pod answered."""
        return [when for when, name in self.rows if name == pod]


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Three hosts, three pods behind a Service at 10.96.0.80, and a client on host1."""
    text = WEB.replace("spec: {selector: {app: web}", f"spec: {{clusterIP: {VIP}, selector: {{app: web}}")
    with Lab(HOSTS + "---\n" + text) as lab:
        yield lab
        assert set(lab.plane.balance().values()) == {0}


def call(lab: Lab, packets: Packets, seconds: float) -> Calls:
    """Ten requests a second, each on a connection of its own, which waits a second at most."""
    calls = Calls()
    end = lab.clock.now + int(seconds * SECOND)
    while lab.clock.now < end:
        packets.look()
        began = lab.clock.now
        answer = lab.pod("client").get(f"http://{VIP}/", timeout=1.0)
        pod = json.loads(answer.body)["pod"] if answer.status == 200 else ""
        calls.rows.append((began / SECOND, pod))
        lab.clock.advance(max(0.0, PERIOD - (lab.clock.now - began) / SECOND))
    return calls


def connect_to(lab: Lab, pod: str) -> Connection:
    """A connection to the Service that is led to a certain pod; others are closed again."""
    address = lab.pod(pod).endpoint
    for _ in range(50):
        before = len(address._connections)
        connection = lab.pod("client").connect(VIP, 80)
        if len(address._connections) > before:
            return connection
        lab.pod("client").close(connection)
    raise AssertionError(f"no connection of 50 was led to {pod}")


def tell(what: str, calls: Calls, last: float, first: float, at: float) -> None:
    """Print the figures of a trouble."""
    print(
        f"\n{what}: {len(calls.lost)} of {len(calls.rows)} requests lost; last packet to the old endpoint "
        f"{(last - at) * 1e3:+.0f} ms, first to the new one {(first - at) * 1e3:+.0f} ms"
    )


@pytest.mark.rule("OBJ-18", element="endpoints")
@pytest.mark.rule("CT-03", element="connections")
def test_a_pod_is_killed(lab: Lab) -> None:
    """Nothing is lost: the rows change in the moment in which the pod goes. Who was connected to it hears no more."""
    packets = Packets(lab)
    victim = min(pod for pod in web_pods(lab) if lab.pod(pod).host != "host1")
    old = lab.pod(victim).ip
    open_one = connect_to(lab, victim)
    call(lab, packets, 3)
    at, before = lab.clock.now / SECOND, set(web_pods(lab))
    lab.delete("pod", victim)
    (new,) = set(web_pods(lab)) - before
    calls = call(lab, packets, 3)
    tell("a pod is killed", calls, max(packets.came[old]), min(packets.came[lab.pod(new).ip]), at)
    assert calls.lost == []
    assert max(packets.came[old]) <= at < min(packets.came[lab.pod(new).ip]) < at + 2
    assert calls.answered_by(new)
    host = lab.pod("client").host
    lines = lab.plane.tables(host)["connections"]
    assert any(f"src={old} " in row for _, row in lines), "TCP is remembered as it was (CT-03)"
    heard = bytes(open_one.received)
    lab.pod("client").write(open_one, b"still there?")
    lab.clock.advance(1200)
    print(f"the connection that was open: {open_one.error}")
    assert bytes(open_one.received) == heard, "nobody answers for the old address"
    assert open_one.error is not None, "and in the end its client is told"


def test_a_host_loses_its_power(lab: Lab) -> None:
    """What is led there is lost for the 40 s until its node is not ready; then nothing any more."""
    packets = Packets(lab)
    victim = next(pod for pod in web_pods(lab) if lab.pod(pod).host != "host1")
    host, old = lab.pod(victim).host, lab.pod(victim).ip
    call(lab, packets, 2)
    at = lab.clock.now / SECOND
    lab.power(host, on=False)
    calls = call(lab, packets, 60)
    share = len([when for when in calls.lost if when < at + 40]) / len([w for w, _ in calls.rows if w < at + 40])
    print(f"\na host dies: {len(calls.lost)} of {len(calls.rows)} lost, {share:.0%} of those of the first 40 s")
    assert 0.1 < share < 0.6, "a third of the connections is led there"
    assert max(calls.lost) < at + 40
    assert max(packets.came[old]) <= at
    assert calls.answered_by(victim) == []


def test_a_deployment_is_rolled(lab: Lab) -> None:
    """maxUnavailable 0: old endpoints go when new ones are ready, and no request is lost."""
    packets = Packets(lab)
    call(lab, packets, 2)
    at, before = lab.clock.now / SECOND, {pod: lab.pod(pod).ip for pod in web_pods(lab)}
    strategy = "strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}"
    lab.apply(WEB.split("---")[0].replace("replicas: 3", f"replicas: 3\n  {strategy}").replace("nginx:1", "nginx:2"))
    calls = call(lab, packets, 4)
    fresh = {pod: lab.pod(pod).ip for pod in web_pods(lab)}
    assert not before.keys() & fresh.keys()
    last = max(max(packets.came.get(ip, [0.0])) for ip in before.values())
    first = min(min(packets.came[ip]) for ip in fresh.values() if ip in packets.came)
    tell("a Deployment is rolled", calls, last, first, at)
    assert calls.lost == []
    assert {pod for _, pod in calls.rows} == fresh.keys()


def test_a_node_is_drained(lab: Lab) -> None:
    """Cordoned, then its pods are evicted one by one: no request is lost, and none goes there afterwards."""
    packets = Packets(lab)
    host = next(lab.pod(pod).host for pod in web_pods(lab) if lab.pod(pod).host != "host1")
    old = [lab.pod(pod).ip for pod in web_pods(lab) if lab.pod(pod).host == host]
    call(lab, packets, 2)
    at = lab.clock.now / SECOND
    cordon = {"spec": {"unschedulable": True}}
    lab.control.request(lab.clock.now).patch(lab.control.find("node"), "", host, cordon, "merge")
    lost: list[float] = []
    for pod in [pod for pod in web_pods(lab) if lab.pod(pod).host == host]:
        lab.delete("pod", pod)
        lost += call(lab, packets, 1).lost
    calls = call(lab, packets, 3)
    tell("a node is drained", calls, max(max(packets.came[ip]) for ip in old), calls.rows[0][0], at)
    assert lost + calls.lost == []
    assert all(max(packets.came[ip]) <= at for ip in old)
    assert all(lab.pod(pod).host != host for _, pod in calls.rows)
