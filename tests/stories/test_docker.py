"""Docker's networks on the hosts of a lab (fidelity DK-01 to DK-20): who reaches whom, and by which address."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from emunet.cluster.docker.networks import Refused
from emunet.lab.docker import LabDocker
from emunet.lab.lab import Lab
from emunet.packet.address import parse_ip
from emunet.packet.tcp import SYN
from tests.worlds import TOPOLOGIES, datagram, echo, segment

Mark = Callable[[str], pytest.MarkDecorator]
isolated: Mark = lambda rule: pytest.mark.rule(rule, element="isolation")  # noqa: E731
tracked: Mark = lambda rule: pytest.mark.rule(rule, element="connections")  # noqa: E731
sourced: Mark = lambda rule: pytest.mark.rule(rule, element="translate")  # noqa: E731
bridged: Mark = lambda rule: pytest.mark.rule(rule, element="bridge")  # noqa: E731

HOST1, HOST2 = "192.168.9.11", "192.168.9.12"


@pytest.fixture
def lab() -> Lab:
    return Lab(TOPOLOGIES / "two-hosts.yaml")


@pytest.fixture
def docker(lab: Lab) -> LabDocker:
    return lab.docker("host1")


def call(lab: Lab, source: str, target: str, port: int = 80) -> str:
    """Who is seen to ask: the address that the server tells; what went wrong otherwise."""
    got = lab.pod(source).get(f"http://{target}:{port}/")
    return str(got.error) if got.body is None or got.error else got.body.decode().rpartition("asked by ")[2].strip()


def codes(lab: Lab, source: str, target: str, **fields: int) -> list[str]:
    """What becomes of an echo request from a container or pod."""
    return lab.trace(source, echo(parse_ip(lab.pod(source).ip), parse_ip(target), **fields)).codes


def balanced(lab: Lab) -> None:
    assert set(lab.plane.balance().values()) == {0}


@pytest.mark.rule("DK-01", element="docker-networks")
def test_a_fresh_host_has_three_networks(docker: LabDocker) -> None:
    rows = [(one.name, one.driver, len(one.id)) for one in docker.networks]
    assert rows == [("bridge", "bridge", 64), ("host", "host", 64), ("none", "null", 64)]


def test_an_engine_that_nobody_uses_costs_nothing(lab: Lab, docker: LabDocker) -> None:
    before = lab.plane.world.config
    assert docker.networks[0].pools[0].subnet == docker.networks[0].pools[0].subnet.parse("172.17.0.0/16")
    lab.settle()
    assert lab.plane.world.config == before
    assert all(host.connections is None and not host.segments for host in before.hosts)


@pytest.mark.rule("DK-03", element="attachments")
def test_a_mac_is_made_of_the_address(lab: Lab, docker: LabDocker) -> None:
    docker.run("one")
    docker.run("two")
    assert [lab.pod(f"host1/{name}").mac for name in ("one", "two")] == ["02:42:ac:11:00:02", "02:42:ac:11:00:03"]


@pytest.mark.rule("DK-02", element="docker-pools")
def test_addresses_are_given_from_docker0_on(lab: Lab, docker: LabDocker) -> None:
    docker.run("one")
    docker.run("two")
    assert [lab.pod(f"host1/{name}").ip for name in ("one", "two")] == ["172.17.0.2", "172.17.0.3"]
    assert lab.ping("host1/one", "172.17.0.1").ttl == 64
    docker.stop("one")
    docker.run("three")
    assert lab.pod("host1/three").ip == "172.17.0.2"
    pools = [str(docker.network(f"n{number}").pools[0].subnet) for number in range(16)]
    assert pools[:14] == [f"172.{number}.0.0/16" for number in range(18, 32)]
    # 192.168.0.0/20 has the hosts' own network in it.
    assert pools[14:] == ["192.168.16.0/20", "192.168.32.0/20"]


@bridged("DK-04")
def test_containers_of_one_bridge_are_bridged(lab: Lab, docker: LabDocker) -> None:
    for name in ("one", "two", "three"):
        docker.run(name)
    pong = lab.ping("host1/one", "172.17.0.4")
    assert pong
    assert pong.ttl == 64
    seen: dict[str, list[bytes]] = {"two": [], "three": []}
    for name, frames in seen.items():
        lab.plane.world.tap(f"host1/{name}", _Sink(frames))
    lab.pod("host1/one").send_ip(datagram(parse_ip("172.17.0.2"), parse_ip("172.17.0.4"), 5, 6))
    macs = [(frame[6:12].hex(":"), frame[:6].hex(":")) for frame in seen["three"] if frame[12:14] == b"\x08\x00"]
    assert macs[0] == ("02:42:ac:11:00:02", "02:42:ac:11:00:04")
    assert not [frame for frame in seen["two"] if frame[12:14] == b"\x08\x00"]
    balanced(lab)


@isolated("DK-04")
def test_without_icc_containers_of_one_bridge_do_not_speak(lab: Lab, docker: LabDocker) -> None:
    docker.network("quiet", options=[("com.docker.network.bridge.enable_icc", "false")])
    for name in ("one", "two"):
        docker.run(name, network="quiet")
    target = lab.pod("host1/two").ip
    assert not lab.ping("host1/one", target)
    assert codes(lab, "host1/one", target)[-1] == "ISOLATED_STATIONS"
    assert lab.ping("host1/one", HOST2)
    balanced(lab)


@sourced("DK-05")
def test_outside_a_container_is_its_host(lab: Lab, docker: LabDocker) -> None:
    docker.run("one")
    lab.pod("web-3").serve(80)
    assert lab.ping("host1/one", HOST2).ttl == 63
    # By the tunnel it leaves with the tunnel's address, to a pod of this host with that of their bridge.
    assert call(lab, "host1/one", lab.pod("web-3").ip) == "10.244.1.0"
    lab.pod("web-1").serve(80)
    assert call(lab, "host1/one", lab.pod("web-1").ip) == "10.244.1.1"
    balanced(lab)


@tracked("DK-06")
def test_a_published_port_leads_to_its_container_and_keeps_the_callers_address(lab: Lab, docker: LabDocker) -> None:
    docker.run("web", ports=["8080:80"])
    lab.pod("host1/web").serve(80)
    assert call(lab, "web-3", HOST1, 8080) == lab.pod("web-3").ip
    assert call(lab, "web-1", HOST1, 8080) == lab.pod("web-1").ip
    assert "refused" in call(lab, "web-3", HOST1, 8081)
    balanced(lab)


def test_a_port_is_published_once(docker: LabDocker) -> None:
    docker.run("web", ports=["8080:80"])
    with pytest.raises(Refused, match=r"127\.0\.0\.1:8080/tcp: address already in use"):
        docker.run("other", ports=["127.0.0.1:8080:80"])
    docker.run("udp", ports=["8080:80/udp", "9000-9001:90-91"])
    docker.stop("web")
    docker.run("other", ports=["8080:80"])
    with pytest.raises(ValueError, match="do not fit"):
        docker.run("bad", ports=["80-82:80-81"])


@tracked("DK-07")
def test_a_container_that_calls_its_own_hosts_port_meets_the_host(lab: Lab, docker: LabDocker) -> None:
    docker.run("web", ports=["8080:80"])
    docker.run("client")
    source = parse_ip(lab.pod("host1/client").ip)
    trace = lab.trace("host1/client", segment(source, parse_ip(HOST1), 4000, 8080, SYN))
    # There docker-proxy listens: its own connection to the container comes from docker0.
    assert "DELIVERED_LOCALLY" in trace.codes
    assert "PUBLISHED" not in trace.codes
    outside = lab.trace("host2", segment(parse_ip(HOST2), parse_ip(HOST1), 4000, 8080, SYN))
    assert "PUBLISHED" in outside.codes


@tracked("DK-07")
def test_without_the_proxy_it_is_turned_back_on_the_bridge(lab: Lab) -> None:
    docker = lab.docker("host1", proxy=False)
    docker.run("web", ports=["8080:80"])
    docker.run("client")
    lab.pod("host1/web").serve(80)
    assert call(lab, "host1/client", HOST1, 8080) == "172.17.0.3"
    assert call(lab, "host1/web", HOST1, 8080) == "172.17.0.1"
    balanced(lab)


@isolated("DK-09")
def test_bridges_are_kept_apart_but_for_published_ports(lab: Lab, docker: LabDocker) -> None:
    docker.network("blue")
    docker.network("red")
    docker.run("one", network="blue")
    docker.run("two", network="red", ports=["8080:80"])
    docker.run("old")
    for source, target in (("one", "two"), ("two", "one"), ("one", "old"), ("old", "two")):
        address = lab.pod(f"host1/{target}").ip
        assert codes(lab, f"host1/{source}", address)[-1] == "ISOLATED_BRIDGES"
        assert not lab.ping(f"host1/{source}", address)
    syn = segment(parse_ip(lab.pod("host1/one").ip), parse_ip(HOST1), 4000, 8080, SYN)
    assert "DELIVERED_LOCALLY" in lab.trace("host1/one", syn).codes
    balanced(lab)


@isolated("DK-10")
def test_what_is_not_published_is_not_reached_from_outside(lab: Lab, docker: LabDocker) -> None:
    docker.run("web", ports=["8080:80"])
    lab.pod("host1/web").serve(80)
    lab.pod("host1/web").serve(81)
    address = lab.pod("host1/web").ip
    for port in (80, 81):
        syn = segment(parse_ip(lab.pod("web-1").ip), parse_ip(address), 4000, port, SYN)
        assert lab.trace("web-1", syn).codes[-1] == "ISOLATED_UNPUBLISHED"
    # Its own host is not outside, and what it asks for itself comes back.
    assert lab.ping("host1", address)
    assert lab.ping("host1/web", HOST2)
    balanced(lab)


@isolated("DK-11")
def test_an_internal_network_has_no_way_out(lab: Lab, docker: LabDocker) -> None:
    docker.network("inside", internal=True)
    docker.run("one", network="inside")
    docker.run("two", network="inside")
    assert all(
        edge.gateways == () for edge in lab.plane.world.config.pods if edge.device == "host1" and "/" in edge.name
    )
    assert lab.ping("host1/one", lab.pod("host1/two").ip)
    assert not lab.ping("host1/one", HOST2)
    assert lab.ping("host1", lab.pod("host1/one").ip)
    address = lab.pod("host1/one").ip
    assert codes(lab, "web-1", address)[-1] == "ISOLATED_INTERNAL"
    balanced(lab)


@pytest.mark.rule("DK-12", element="network-modes")
def test_on_the_network_none_a_container_is_alone(lab: Lab, docker: LabDocker) -> None:
    before = set(lab.ports)
    alone = docker.run("alone", network="none")
    assert alone.running
    assert not alone.attachments
    assert set(lab.ports) == before
    with pytest.raises(Refused, match=r"private \(none\) mode"):
        docker.connect("alone", "bridge")


@pytest.mark.rule("DK-13", element="network-modes")
def test_on_the_network_host_a_container_has_the_hosts_and_publishes_nothing(lab: Lab, docker: LabDocker) -> None:
    before, rules = set(lab.ports), [host.connections for host in lab.plane.world.config.hosts]
    guest = docker.run("guest", network="host", ports=["8080:80"])
    assert guest.running
    assert not guest.attachments
    assert not guest.bindings
    assert set(lab.ports) == before
    assert [host.connections for host in lab.plane.world.config.hosts] == rules


@pytest.mark.rule("DK-14", element="network-modes")
def test_a_container_in_anothers_network_has_none_of_its_own_and_ends_with_it(lab: Lab, docker: LabDocker) -> None:
    web = docker.run("web", ports=["8080:80"])
    friend = docker.run("friend", network="container:web")
    assert friend.shares == web.id
    assert not friend.attachments
    with pytest.raises(Refused, match="conflicting options: port publishing"):
        docker.run("more", network="container:web", ports=["80"])
    with pytest.raises(Refused, match="other network"):
        docker.connect("friend", "bridge")
    docker.stop("web")
    assert not friend.running
    with pytest.raises(Refused, match="non running container"):
        docker.containers.join(docker.containers.add("late", f"container:{docker.containers.add('idle').id}"))


@pytest.mark.rule("DK-18", "DK-19", element="attachments")
def test_a_container_on_two_networks(lab: Lab, docker: LabDocker) -> None:
    docker.network("blue")
    docker.network("amber", internal=True)
    docker.run("web", network="blue", more=["amber"])
    docker.run("other", network="amber")
    assert {"host1/web", "host1/web:eth1"} <= set(lab.ports)
    world = lab.plane.world.config
    edges = {edge.name: edge for edge in world.pods}
    assert edges["host1/web"].gateways == ()  # amber is first by its name, and internal
    assert edges["host1/web:eth1"].gateways == (parse_ip("172.18.0.1"),)
    docker.disconnect("web", "amber")
    assert "host1/web" not in lab.ports
    docker.connect("web", "amber", ip=None)
    assert "host1/web" in lab.ports
    with pytest.raises(Refused, match="already exists in network amber"):
        docker.connect("web", "amber")
    balanced(lab)


def test_hosts_give_out_the_same_addresses_and_do_not_meet(lab: Lab, docker: LabDocker) -> None:
    other = lab.docker("host2")
    docker.run("one")
    docker.run("two")
    other.run("one", ports=["8080:80"])
    lab.pod("host2/one").serve(80)
    assert lab.pod("host1/one").ip == lab.pod("host2/one").ip == "172.17.0.2"
    assert lab.ping("host1/two", "172.17.0.2")  # the one of its own host
    assert call(lab, "host1/one", "192.168.9.12", 8080) == HOST1  # published, and the source is lost
    balanced(lab)


def test_what_was_learned_survives_a_new_bridge(lab: Lab, docker: LabDocker) -> None:
    assert lab.ping("web-1", "web-3")
    before = lab.plane.tables("host1")
    docker.run("one")
    docker.network("blue")
    after = lab.plane.tables("host1")
    for table in ("cni0 stations", "neighbours"):
        assert before[table]
        assert after[table] == before[table]
    docker.remove_network("blue")
    assert not any(name.startswith("br-") for name in lab.plane.tables("host1"))
    assert lab.ping("web-1", "web-3")


def test_ipv6(lab: Lab, docker: LabDocker) -> None:
    docker.network("six", ipv6=True)
    docker.run("one", network="six")
    docker.run("two", network="six")
    address = lab.pod("host1/two").ips[1]
    assert address.startswith("fd")
    assert lab.ping("host1/one", address, family=16)


@pytest.mark.parametrize(
    ("status", "words", "wish"),
    [
        (409, "already exists", {"name": "blue"}),
        (403, "pre-defined", {"name": "host"}),
        (403, "Pool overlaps", {"name": "red", "subnet": "172.17.9.0/24"}),
        (403, "Pool overlaps", {"name": "red", "subnet": "10.244.9.0/24"}),
        (400, "not in the subnet", {"name": "red", "subnet": "10.9.0.0/24", "gateway": "10.8.0.1"}),
        (400, "no network name", {"name": "-red"}),
        (400, "--ipv6", {"name": "red", "subnet": "fd01::/64"}),
    ],
)
def test_networks_that_cannot_be(docker: LabDocker, status: int, words: str, wish: dict[str, str]) -> None:
    docker.network("blue")
    before = docker.networks
    with pytest.raises(Refused, match=words) as refused:
        docker.network(**wish)  # type: ignore[arg-type]
    assert refused.value.status == status
    assert docker.networks == before


def test_addresses_that_cannot_be(docker: LabDocker) -> None:
    docker.network("blue", subnet="10.9.0.0/29")
    docker.run("one", network="blue", ip="10.9.0.6")
    for ip, status in (("10.9.0.6", 403), ("10.9.0.1", 403), ("10.8.0.1", 400)):
        with pytest.raises(Refused) as refused:
            docker.run("two", network="blue", ip=ip)
        assert refused.value.status == status
    with pytest.raises(Refused, match="user-defined networks only"):
        docker.run("two", ip="172.17.0.9")
    for number in range(4):
        docker.run(f"c{number}", network="blue")
    with pytest.raises(Refused, match="no available IPv4 addresses"):
        docker.run("late", network="blue")
    with pytest.raises(Refused, match="active endpoints"):
        docker.remove_network("blue")


class _Sink:
    def __init__(self, seen: list[bytes]) -> None:
        self.seen = seen

    def write(self, record: object) -> None:
        self.seen += record.frames  # type: ignore[attr-defined]
