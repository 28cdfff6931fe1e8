"""Load balancers and hostPorts: addresses and ports of the outside that lead to pods, in a whole lab."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from emunet.cluster.load import BadInput
from emunet.packet import arp, icmpv6, ipv4, ipv6
from emunet.packet.address import format_mac, parse_ip, solicited_node
from emunet.packet.ethernet import ETHERTYPE_ARP, build
from emunet.testing import Lab

TOPOLOGY = """apiVersion: emunet/v1
kind: Topology
metadata: {name: lab}
spec:
  podCIDRs: [10.244.0.0/16, "fd00:10:244::/48"]
  serviceCIDRs: [10.96.0.0/16, "fd00:10:96::/112"]
  underlay: {cidrs: [192.168.9.0/24, "fd00:9::/64"]}
  hosts: [host1, host2, host3]
  loadBalancerPool: [192.168.9.240/31, "fd00:9::f0/127"]
"""

POD = """---
apiVersion: v1
kind: Pod
metadata: {name: NAME, labels: {app: NAME}}
spec: {nodeName: HOST, containers: [{name: a, image: b, ports: [PORT]}]}
"""

SERVICE = """---
apiVersion: v1
kind: Service
metadata: {name: NAME}
spec: {type: LoadBalancer, selector: {app: a}, ports: [{port: 80}], MORE}
"""


def pod(name: str, host: str, port: str = "{containerPort: 80}") -> str:
    """A pod in a file."""
    return POD.replace("NAME", name).replace("HOST", host).replace("PORT", port)


def service(name: str, more: str = "ipFamilyPolicy: PreferDualStack") -> str:
    """A Service of type LoadBalancer in a file."""
    return SERVICE.replace("NAME", name).replace("MORE", more)


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Three hosts, `a` on host1 behind a LoadBalancer, `c` on host2; every frame is accounted for at the end."""
    text = TOPOLOGY + pod("a", "host1") + pod("c", "host2") + service("a")
    with Lab(text) as lab:
        yield lab
        assert set(lab.plane.balance().values()) == {0}


def announcer(lab: Lab, name: str = "a") -> str:
    """The host that answers for a Service."""
    return str(lab.get("service", name)["metadata"].get("annotations", {}).get("emunet/announced-by", ""))


def addresses(lab: Lab, name: str = "a") -> list[str]:
    """What its load balancer was given."""
    return [one["ip"] for one in lab.get("service", name)["status"]["loadBalancer"].get("ingress", ())]


class Ears:
    """What reaches a stranger on the underlay: its frames are let in by a switch's port, answers are seen on wires."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.frames: list[tuple[str, bytes]] = []
        lab.plane.tap([f"{host}:eth0" for host in ("host1", "host2", "host3")], self)

    def write(self, record: object) -> None:
        """A frame passes a host's eth0."""
        if not record.inbound:  # type: ignore[attr-defined]
            self.frames += [(record.port, frame) for frame in record.frames]  # type: ignore[attr-defined]

    def who_has(self, address: str) -> list[tuple[str, str]]:
        """Who answers a stranger that asks for an address: (host, MAC that it names)."""
        self.frames.clear()
        target, mac = parse_ip(address), bytes((2, 0, 0, 0, 0, 0x99))
        if len(target) == 4:
            question = arp.request(mac, parse_ip("192.168.9.99"), target)
        else:
            asker, group = parse_ip("fd00:9::99"), solicited_node(target)
            body = icmpv6.NeighborSolicitation(target, mac).pack(asker, group)
            packet = ipv6.IPv6(asker, group, ipv4.ICMPV6, hop_limit=255).pack(body)
            question = build(b"\x33\x33" + group[-4:], mac, 0x86DD, packet)
        for port in ("1", "2"):  # as if it stood beside host1, then beside host2: all three hear it
            self.lab.plane.world.inject(f"switch1:{port}", question, self.lab.clock.now)
        found = {(port, format_mac(frame[6:12])): None for port, frame in self.frames if frame[:6] == mac}
        return list(found)


def test_an_address_of_the_pool_is_answered_by_one_host(lab: Lab) -> None:
    assert addresses(lab) == ["192.168.9.240", "fd00:9::f0"]
    ears, host = Ears(lab), announcer(lab)
    mac = next(i.mac for h in lab.plane.world.config.hosts if h.name == host for i in h.interfaces if i.name == "eth0")
    for address in addresses(lab):
        assert ears.who_has(address) == [(f"{host}:eth0", format_mac(mac))]
    assert ears.who_has("192.168.9.241") == [], "of what nobody was given nobody speaks"
    lab.pod("a").serve(80)
    assert lab.pod("c").get("http://192.168.9.240/").status == 200
    assert lab.pod("c").get("http://[fd00:9::f0]/").status == 200
    other = next(one for one in ("host1", "host2", "host3") if one != host)
    assert not lab.ping(other, "192.168.9.240"), "it is no machine's: nobody answers a ping"


def test_it_moves_when_its_host_dies_and_says_so_on_the_link(lab: Lab) -> None:
    first, ears = announcer(lab), Ears(lab)
    lab.power(first, on=False)
    lab.clock.advance(39)
    assert announcer(lab) == first, "a node is given 40 s"
    ears.frames.clear()
    lab.clock.advance(3)
    second = announcer(lab)
    assert second not in ("", first)
    told = [
        (port, arp.Arp.parse(frame[14:]))
        for port, frame in ears.frames
        if frame[12:14] == ETHERTYPE_ARP.to_bytes(2, "big") and frame[:6] == b"\xff" * 6
    ]
    assert [(port, message.sender_ip, message.target_ip) for port, message in told] == [
        (f"{second}:eth0", parse_ip("192.168.9.240"), parse_ip("192.168.9.240"))
    ]
    lab.power(first, on=True)
    lab.clock.advance(60)
    assert announcer(lab) == second, "what works stays where it is"
    assert ears.who_has("192.168.9.240")[0][0] == f"{second}:eth0"


def test_a_local_policy_wants_a_host_with_an_endpoint(lab: Lab) -> None:
    lab.apply(service("near", "externalTrafficPolicy: Local"))
    assert announcer(lab, "near") == "host1"
    lab.delete("pod", "a")
    assert announcer(lab, "near") == ""
    lab.apply(pod("a2", "host3").replace("app: a2", "app: a"))
    assert announcer(lab, "near") == "host3"


def test_a_pool_that_is_empty_is_told_once_and_what_is_given_back_is_used(lab: Lab) -> None:
    lab.apply(service("b", "loadBalancerIP: 192.168.9.241"))
    assert addresses(lab, "b") == ["192.168.9.241"]
    lab.apply(service("late", "sessionAffinity: None"))
    assert addresses(lab, "late") == []
    lab.clock.advance(60)
    events = [one for one in lab.objects("events") if one["involvedObject"]["name"] == "late"]
    assert [(one["reason"], one.get("count", 1)) for one in events] == [("AllocationFailed", 1)]
    lab.apply(service("b", "sessionAffinity: None").replace("type: LoadBalancer, ", ""))
    assert addresses(lab, "b") == []
    lab.delete("service", "late")
    lab.apply(service("late", "sessionAffinity: None"))
    assert addresses(lab, "late") == ["192.168.9.241"]


def test_a_lab_without_a_pool_says_what_is_missing() -> None:
    text = TOPOLOGY.replace('  loadBalancerPool: [192.168.9.240/31, "fd00:9::f0/127"]\n', "")
    with Lab(text + pod("a", "host1") + service("a")) as lab:
        assert addresses(lab) == []
        (event,) = [one for one in lab.objects("events") if one["reason"] == "AllocationFailed"]
        assert "loadBalancerPool" in event["message"]


# hostPort


@pytest.mark.rule("HP-01", element="published")
@pytest.mark.rule("HP-02", element="published")
def test_a_host_port_leads_to_its_pod(lab: Lab) -> None:
    lab.apply(pod("h", "host1", "{containerPort: 80, hostPort: 8088}") + pod("n", "host1"))
    lab.pod("h").serve(80)
    node = "192.168.9.11"
    assert f"asked by {lab.pod('c').ip}" in lab.pod("c").get(f"http://{node}:8088/").body.decode()
    assert "asked by 10.244.1.1" in lab.pod("n").get(f"http://{node}:8088/").body.decode(), "a neighbour is masqueraded"
    lab.delete("pod", "h")
    lab.clock.advance(31)
    assert lab.pod("c").get(f"http://{node}:8088/").status == 0


@pytest.mark.rule("HP-08", element="obstacles")
def test_two_pods_want_one_host_port(lab: Lab) -> None:
    free = pod("NAME", "", "{containerPort: 80, hostPort: 8088IP}").replace("nodeName: , ", "nodeSelector: {pin: x}, ")
    pinned = [free.replace("NAME", name).replace("IP", ip) for name, ip in (("x", ""), ("y", ""), ("z", ""))]
    for text in pinned:
        lab.apply(text.replace("nodeSelector: {pin: x}", "nodeSelector: {kubernetes.io/hostname: host1}"))
    where = {one["metadata"]["name"]: one["spec"].get("nodeName") for one in lab.objects("pods")}
    assert [where["x"], where["y"], where["z"]] == ["host1", None, None], "the others stay Pending"
    for name, ip, protocol in (
        ("p", ", hostIP: 192.168.9.11", "TCP"),
        ("q", ", hostIP: 10.244.1.1", "TCP"),
        ("u", "", "UDP"),
    ):
        port = "{containerPort: 80, hostPort: 9099, protocol: PROTO}".replace("PROTO", protocol + ip)
        text = pod(name, "", port).replace("nodeName: , ", "nodeSelector: {kubernetes.io/hostname: host1}, ")
        lab.apply(text)
    where = {one["metadata"]["name"]: one["spec"].get("nodeName") for one in lab.objects("pods")}
    assert [where["p"], where["q"], where["u"]] == ["host1"] * 3, "another address or protocol is another port"


@pytest.mark.rule("SVC-37", element="health-checks")
def test_each_node_tells_a_load_balancer_how_many_endpoints_it_has(lab: Lab) -> None:
    """healthCheckNodePort: what a load balancer outside asks before it sends a client's packets there."""
    assert "healthCheckNodePort" not in lab.get("service", "a")["spec"]
    lab.apply(service("a", "externalTrafficPolicy: Local"))
    port = lab.get("service", "a")["spec"]["healthCheckNodePort"]
    assert port in range(30000, 32768)

    def told(node: int) -> tuple[int, int]:
        answer = lab.pod("c").get(f"http://192.168.9.1{node}:{port}/healthz")
        said = json.loads(answer.body)
        assert (said["service"], said["serviceProxyHealthy"]) == ({"namespace": "default", "name": "a"}, True)
        assert answer.headers["x-load-balancing-endpoint-weight"] == str(said["localEndpoints"])
        return answer.status, said["localEndpoints"]

    assert [told(node) for node in (1, 2, 3)] == [(200, 1), (503, 0), (503, 0)]
    lab.apply(pod("a2", "host1").replace("app: a2", "app: a") + pod("a3", "host3").replace("app: a3", "app: a"))
    assert [told(node) for node in (1, 2, 3)] == [(200, 2), (503, 0), (200, 1)]
    lab.delete("pod", "a3")
    assert told(3) == (503, 0)
    lab.apply(service("a", "externalTrafficPolicy: Cluster"))
    assert "healthCheckNodePort" not in lab.get("service", "a")["spec"]
    assert "refused" in str(lab.pod("c").get(f"http://192.168.9.11:{port}/").error)


def test_a_health_port_is_one_nodeport_of_one_service(lab: Lab) -> None:
    lab.apply(service("b", "externalTrafficPolicy: Local, healthCheckNodePort: 31000"))
    for name, more, words in (
        ("c", "externalTrafficPolicy: Local, healthCheckNodePort: 31000", "provided port is already allocated"),
        ("c", "externalTrafficPolicy: Local, healthCheckNodePort: 80", "not in the valid range"),
        ("c", "healthCheckNodePort: 31001", "may only be set when `type` is 'LoadBalancer' and"),
    ):
        with pytest.raises(BadInput, match="healthCheckNodePort") as refused:
            lab.apply(service(name, more))
        assert words in str(refused.value)
