"""The Lab of one process: what its Python API promises, on memory wires, in lab time."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.utils import PcapNgReader

from emunet.cluster.load import BadInput
from emunet.testing import Lab

TOPOLOGIES = Path(__file__).parent.parent.parent / "topologies"


def pod_text(name: str, host: str) -> str:
    """A pod's manifest."""
    spec = f"{{nodeName: {host}, containers: [{{name: c, image: x}}]}}"
    return f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {spec}\n"


@pytest.fixture
def lab() -> Lab:
    """Two hosts over VXLAN; every frame is accounted for at the end."""
    with Lab(TOPOLOGIES / "two-hosts.yaml") as lab:
        yield lab
        assert set(lab.plane.balance().values()) == {0}


def test_http_across_hosts(lab: Lab) -> None:
    """`serve` and `get` by name, over our own TCP, and the server sees the pod's own address: no NAT."""
    lab.pod("web-3").serve(80)
    answer = lab.pod("web-1").get("http://web-3/")
    assert answer.status == 200
    assert lab.pod("web-1").ip in answer.body.decode()


def test_connection_refused(lab: Lab) -> None:
    """Nobody listens: the answer is an error, at once."""
    answer = lab.pod("web-1").get("http://web-3:81/")
    assert answer.error is not None
    assert "refused" in answer.error


def test_scapy_packets(lab: Lab) -> None:
    """`sr1` with IP and with Ethernet."""
    web1, web3 = lab.pod("web-1"), lab.pod("web-3")
    assert web1.sr1(IP(dst=web3.ip) / ICMP())[ICMP].type == 0
    assert web1.sr1(IP(dst=web3.ip) / UDP(dport=9))[ICMP].code == 3
    assert web1.sr1(IP(dst=web3.ip) / TCP(dport=9, flags="S"))[TCP].flags == "RA"
    reply = web1.sr1(Ether(dst="ff:ff:ff:ff:ff:ff") / ARP(pdst=lab.pod("web-2").ip, hwsrc=web1.mac, psrc=web1.ip))
    assert reply[ARP].hwsrc == lab.pod("web-2").mac


def test_time_passes_only_when_asked(lab: Lab) -> None:
    """Nobody answers for .99: three seconds of lab time, none of ours."""
    before = lab.clock.now
    pong = lab.ping("web-1", "10.244.1.99")
    assert not pong
    assert "nobody answers" in pong.why
    assert lab.clock.now - before >= 3_000_000_000


def test_trace_tells_without_touching(lab: Lab) -> None:
    """A dry run explains a cross-host ping before anything was resolved, and leaves no track."""
    counters = lab.counters()
    trace = lab.trace("web-1", IP(dst=lab.pod("web-3").ip) / ICMP())
    assert trace.verdict == "delivered"
    assert [hop.device for hop in trace.hops] == ["host1", "switch1", "host2"]
    assert "VXLAN_ENCAPSULATED" in trace.codes
    assert lab.counters() == counters
    live = lab.trace("web-1", IP(dst=lab.pod("web-3").ip) / ICMP(), live=True)
    assert live.codes == trace.codes
    assert lab.counters() != counters


@pytest.mark.parametrize(
    ("packet", "verdict", "reason", "words"),
    [
        (IP(dst="10.9.9.9") / ICMP(), "dropped", "NO_ROUTE", "no route to 10.9.9.9"),
        (IP(dst="10.244.2.3", ttl=1) / ICMP(), "dropped", "TTL_EXPIRED", "ends at host1"),
        (
            IP(dst="10.244.2.77") / ICMP(),
            "dropped",
            "NEIGHBOR_UNREACHABLE",
            "nobody on cni0 of host2 answered for 10.244.2.77",
        ),
        (IP(dst="10.244.1.77") / ICMP(), "dropped", "NEIGHBOR_UNREACHABLE", "nobody on eth0 of web-1 answered"),
        (IP(dst="10.244.2.3", flags="DF") / UDP() / bytes(2000), "dropped", "TOO_BIG", "MTU 1450"),
        (IP(dst="10.244.1.1") / ICMP(), "delivered", "RECEIVED", "host1:cni0"),
        (IP(dst="10.244.1.2") / ICMP(), "delivered", "STAYS_INSIDE", "stays inside"),
        (IP(dst="224.0.0.9") / ICMP(), "delivered", "RECEIVED", "web-2"),
    ],
)
def test_sentences(lab: Lab, packet: IP, verdict: str, reason: str, words: str) -> None:
    """Each fate has its reason and says it."""
    trace = lab.trace("web-1", packet)
    assert (trace.verdict, trace.reason.name) == (verdict, reason)
    assert words in trace.sentence


def test_capture_shows_the_wire(lab: Lab, tmp_path: Path) -> None:
    """A port per interface block, both directions, the tunnel in between, and a drop with its sentence."""
    path = tmp_path / "ping.pcapng"
    with lab.capture(["web-1", "host1:eth0", "host1:cni0", "host1:flannel.1", "switch1:2", "web-3"], path):
        assert lab.ping("web-1", "web-3")
        lab.pod("web-1").sr1(IP(dst="10.9.9.9") / ICMP())
    with PcapNgReader(str(path)) as reader:
        frames = list(reader)
    ports = [frame.sniffed_on for frame in frames]
    assert set(ports) == {"web-1", "host1:eth0", "host1:cni0", "host1:flannel.1", "switch1:2", "web-3"}
    assert any(frame.comment and b"NO_ROUTE" in frame.comment for frame in frames)
    if Path("/usr/bin/tshark").exists():
        seen = subprocess.run(
            ["tshark", "-r", path, "-Y", "vxlan", "-T", "fields", "-e", "frame.interface_name"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert "host1:eth0" in seen.stdout


def test_a_wire_unplugged(lab: Lab) -> None:
    """Down: dropped on the wire, with the command that helps; up: it works again at once."""
    assert lab.ping("web-1", "web-3")
    wire = next(iter(lab.plane.world.wires))
    lab.link(wire, up=False)
    assert not lab.ping("web-1", "web-3")
    assert lab.counters()["reasons"]["WIRE_DOWN"] > 0
    lab.link(wire, up=True)
    assert lab.ping("web-1", "web-3")


def test_apply_adds_a_pod_and_moves_nobody(lab: Lab) -> None:
    """New objects beside the old; bad ones change nothing."""
    before = {pod.port: pod.ips for pod in lab.pods}
    lab.apply(pod_text("late", "host2"))
    assert {pod.port: pod.ips for pod in lab.pods if pod.port != "late"} == before
    assert lab.ping("web-1", "late")
    with pytest.raises(BadInput, match="host9"):
        lab.apply(pod_text("bad", "host9"))
    assert [pod.port for pod in lab.pods if pod.port == "bad"] == []
    assert lab.ping("late", "web-1")


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    """Two runs with one seed write the same file."""
    files = []
    for number in range(2):
        path = tmp_path / f"{number}.pcapng"
        with Lab(TOPOLOGIES / "leaf-spine.yaml", seed=7) as lab, lab.capture(lab.ports, path):
            lab.ping_all()
            lab.pod("web-1").serve(80)
            lab.pod("web-8").get("http://web-1/")
        files.append(path.read_bytes())
    assert files[0] == files[1]


def test_two_stacks_that_never_stop_answering(lab: Lab) -> None:
    """Each answers the other for ever, in no time: the World lets time go on, and every frame is accounted for."""
    web1, web3 = lab.pod("web-1").endpoint, lab.pod("web-3").endpoint
    for endpoint, peer in ((web1, web3), (web3, web1)):
        target = peer.addresses[0].address
        endpoint.udp_bind(7, handler=lambda socket, datagram, to=target: socket.send(b"again", to, 7, lab.clock.now))
    lab.pod("web-1").send_ip(bytes(IP(src=lab.pod("web-1").ip, dst=lab.pod("web-3").ip) / UDP(sport=7, dport=7)))
    lab.clock.advance(0.000002)
    assert 10_000 <= lab.counters()["received"] <= 40_000


def test_objects_alone_are_added_to_any_topology() -> None:
    """What the topology says of pods that are not in the file (a published port) was said of those that are there."""
    published = "spec: {hosts: [{name: host1, publish: [{port: 8080, pod: web-1}]}, host2], dns: false}"
    text = f"apiVersion: emunet/v1\nkind: Topology\nmetadata: {{name: lab}}\n{published}\n---\n"
    with Lab(text + pod_text("web-1", "host1")) as lab:
        lab.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\n")
        lab.apply(pod_text("web-2", "host2"))
        assert [pod.name for pod in lab.pods] == ["web-1", "web-2"]
        more = text.replace("pod: web-1}", "pod: web-1}, {port: 8081, pod: web-3}")
        with pytest.raises(BadInput, match="there is no pod 'web-3'"):
            lab.apply(more)
        with pytest.raises(BadInput, match="web-1 runs on host1: publish it there"):
            lab.apply(
                text.replace(
                    "name: host1, publish: [{port: 8080, pod: web-1}]}, host2",
                    "name: host1}, {name: host2, publish: [{port: 80, pod: web-1}]}",
                )
            )
        lab.apply(more.replace("web-3", "web-1"))
        lab.delete("pod", "web-1")
        lab.apply(pod_text("web-3", "host2"))
        assert lab.ping("web-2", "web-3")
        with pytest.raises(BadInput, match="web-1 runs on host2: publish it there"):
            lab.apply(pod_text("web-1", "host2"))
