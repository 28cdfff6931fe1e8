"""A client that calls a Service at a steady rate while what is behind it dies, moves and is replaced.

For each trouble: how many requests were lost, the last packet to the old endpoint and the first to the new one (as
captures at the pods' ports show them), and what became of a connection that was open to the old one. Lab time: minutes
pass in none. The figures are printed (`pytest -s`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.utils import PcapNgReader

from emunet.cluster.controllers.disruptions import refusal
from emunet.elements.endpoint.tcp import Connection
from emunet.testing import Lab
from tests.lab.test_healing import HOSTS, WEB, web_pods

PERIOD = 0.1
VIP = "10.96.0.80"
SECOND = 1_000_000_000


class Packets:
    """Captures at the ports of the Service's pods, one file a pod, those that come later too."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.folder = folder
        self._files: dict[str, Path] = {}
        self._open = ExitStack()
        self.look()

    def look(self) -> None:
        """Watch the ports of pods that have come since."""
        for pod in web_pods(self.lab):
            if pod not in self._files:
                self._files[pod] = self.folder / f"{pod}.pcapng"
                self._open.enter_context(self.lab.capture(pod, self._files[pod]))

    def close(self) -> None:
        """End the captures: `came` reads what is in the files."""
        self._open.close()

    def came(self, pod: str) -> list[tuple[float, str]]:
        """(when, s; the flags) of each packet to port 80 that the capture of a pod shows."""
        with PcapNgReader(str(self._files[pod])) as reader:
            return [(float(one.time), str(one[TCP].flags)) for one in reader if TCP in one and one[TCP].dport == 80]


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


BUDGET = """apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec: {minAvailable: 2, selector: {matchLabels: {app: web}}}
"""


@pytest.fixture
def packets(lab: Lab, tmp_path: Path) -> Iterator[Packets]:
    """Captures of all pods of the Service."""
    packets = Packets(lab, tmp_path)
    yield packets
    packets.close()


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


def end_of(lab: Lab, connection: Connection) -> tuple[float, str]:
    """(after how many seconds, by which error) a client hears of the end of a connection on which it says something."""
    heard, began = bytes(connection.received), lab.clock.now
    lab.pod("client").write(connection, b"still there?")
    assert lab.wait(lambda: connection.error is not None, 1200), "the client is told in the end"
    assert bytes(connection.received) == heard, "nobody answers for the old address"
    return (lab.clock.now - began) / SECOND, str(connection.error)


def tell(what: str, calls: Calls, last: float, first: float, end: tuple[float, str]) -> None:
    """Print the figures of a trouble: moments in seconds from it on."""
    print(
        f"\n{what}: {len(calls.lost)} of {len(calls.rows)} requests lost; last packet to the old endpoint {last:+.2f} "
        f"s, first to the new one {first:+.2f} s; the connection that was open: {end[1]} after {end[0]:.0f} s"
    )


def elsewhere(lab: Lab) -> str:
    """A pod of the Service that is not on the client's host."""
    return min(pod for pod in web_pods(lab) if lab.pod(pod).host != lab.pod("client").host)


@pytest.mark.rule("OBJ-18", element="endpoints")
@pytest.mark.rule("CT-03", element="connections")
def test_a_pod_is_killed(lab: Lab, packets: Packets) -> None:
    """Nothing is lost: the rows change in the moment in which the pod goes. Who was connected to it hears no more."""
    victim = elsewhere(lab)
    old = lab.pod(victim).ip
    call(lab, packets, 3)
    open_one = connect_to(lab, victim)
    at, before = lab.clock.now / SECOND, set(web_pods(lab))
    lab.delete("pod", victim)
    (new,) = set(web_pods(lab)) - before
    calls = call(lab, packets, 3)
    lines = lab.plane.tables(lab.pod("client").host)["connections"]
    assert any(f"src={old} " in row for _, row in lines), "TCP is remembered as it was (CT-03)"
    end = end_of(lab, open_one)
    packets.close()
    last, first = packets.came(victim)[-1][0] - at, packets.came(new)[0][0] - at
    tell("a pod is killed", calls, last, first, end)
    assert calls.lost == []
    assert end[1] == "no route to host: nobody answers for it"
    assert last <= 0 <= first < 2
    assert calls.answered_by(new)


def test_a_host_loses_its_power(lab: Lab, packets: Packets) -> None:
    """What is led there is lost for the 40 s until its node is not ready; then nothing any more.

    Five minutes later its pod is made elsewhere, and is asked like the others.
    """
    victim = elsewhere(lab)
    host = lab.pod(victim).host
    call(lab, packets, 2)
    open_one = connect_to(lab, victim)
    at, before = lab.clock.now / SECOND, set(web_pods(lab))
    lab.power(host, on=False)
    calls = call(lab, packets, 60)
    lab.clock.advance(max(0.0, at + 345 - lab.clock.now / SECOND))
    (new,) = set(web_pods(lab)) - before
    after = call(lab, packets, 3)
    end = end_of(lab, open_one)
    packets.close()
    last, first = packets.came(victim)[-1][0] - at, packets.came(new)[0][0] - at
    tell("a host dies", calls, last, first, end)
    share = len([when for when in calls.lost if when < at + 40]) / len([w for w, _ in calls.rows if w < at + 40])
    print(f"{share:.0%} of the requests of the first 40 s")
    assert 0.1 < share < 0.6, "a third of the connections is led there"
    assert max(calls.lost) < at + 40
    assert last <= 0
    assert calls.answered_by(victim) == []
    assert after.lost == []
    assert end[1] == "timed out: no answer to any of the retransmissions"
    assert 340 < first < 347
    assert after.answered_by(new)


def test_a_deployment_is_rolled(lab: Lab, packets: Packets) -> None:
    """maxUnavailable 0: old endpoints go when new ones are ready, and no request is lost."""
    victim = elsewhere(lab)
    call(lab, packets, 2)
    open_one = connect_to(lab, victim)
    at, before = lab.clock.now / SECOND, set(web_pods(lab))
    strategy = "strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}"
    lab.apply(WEB.split("---")[0].replace("replicas: 3", f"replicas: 3\n  {strategy}").replace("nginx:1", "nginx:2"))
    calls = call(lab, packets, 4)
    fresh = set(web_pods(lab))
    end = end_of(lab, open_one)
    packets.close()
    last = max(packets.came(pod)[-1][0] for pod in before) - at
    first = min(packets.came(pod)[0][0] for pod in fresh) - at
    tell("a Deployment is rolled", calls, last, first, end)
    assert not before & fresh
    assert calls.lost == []
    assert end[1] == "no route to host: nobody answers for it"
    assert last <= 0 <= first < 1
    assert {pod for _, pod in calls.rows} == fresh


def test_a_node_is_drained(lab: Lab, packets: Packets) -> None:
    """Cordoned, then its pod is evicted, as the budget permits: no request is lost, and none goes there afterwards."""
    lab.apply(BUDGET)
    victim = elsewhere(lab)
    host = lab.pod(victim).host
    call(lab, packets, 2)
    open_one = connect_to(lab, victim)
    at, before = lab.clock.now / SECOND, set(web_pods(lab))
    cordon = {"spec": {"unschedulable": True}}
    lab.control.request(lab.clock.now).patch(lab.control.find("node"), "", host, cordon, "merge")
    assert refusal(lab.store, lab.get("pod", victim)) is None
    lab.delete("pod", victim)
    calls = call(lab, packets, 4)
    (new,) = set(web_pods(lab)) - before
    end = end_of(lab, open_one)
    packets.close()
    last, first = packets.came(victim)[-1][0] - at, packets.came(new)[0][0] - at
    tell("a node is drained", calls, last, first, end)
    assert calls.lost == []
    assert end[1] == "no route to host: nobody answers for it"
    assert last <= 0 < first
    assert all(lab.pod(pod).host != host for _, pod in calls.rows)


def test_what_is_said_to_a_connection_whose_pod_is_gone(lab: Lab, packets: Packets, tmp_path: Path) -> None:
    """The client repeats itself towards the pod that is gone, since its host remembers the connection (CT-03). The
    pod's host says that nobody answers; that is said in the Service's name, and is no reason for a client to give up.
    """
    victim = elsewhere(lab)
    open_one = connect_to(lab, victim)
    lab.delete("pod", victim)
    with lab.capture("client", tmp_path / "client.pcapng"):
        seconds, error = end_of(lab, open_one)
    with PcapNgReader(str(tmp_path / "client.pcapng")) as reader:
        talk = [(one[IP].src, "TCP" if TCP in one else one[ICMP].type) for one in reader if IP in one]
    assert set(talk) == {(lab.pod("client").ip, "TCP"), (VIP, 3)}
    assert error == "no route to host: nobody answers for it"
    assert seconds > 300
