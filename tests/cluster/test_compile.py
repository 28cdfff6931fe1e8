"""The cluster becomes hosts, switches, wires and edges, in flannel's shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from emunet.cluster.assign import assign
from emunet.cluster.build import build
from emunet.cluster.compile import compile as compile_world
from emunet.cluster.load import load_files, load_text
from emunet.fabric.config import HostConfig, HostEdge, Port, Route, WireConfig, WorldConfig
from emunet.packet.address import Prefix, format_ip, format_mac

TOPOLOGIES = Path(__file__).parent.parent.parent / "topologies"


def world_of(name: str) -> WorldConfig:
    """One of the topologies that come with emunet, compiled with seed 7."""
    desired = build(load_files([TOPOLOGIES / f"{name}.yaml"]))
    return compile_world(desired, assign(desired, seed=7), seed=7)


def world(pods: list[dict[str, Any]] | None = None, **spec: Any) -> WorldConfig:
    """A cluster of these pods (name, and fields of the spec), compiled."""
    objects: list[dict[str, Any]] = [
        {"apiVersion": "emunet/v1", "kind": "Topology", "metadata": {"name": "lab"}, "spec": spec},
        *(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": pod.pop("name"), "namespace": pod.pop("namespace", "default")},
                "spec": {"containers": [{"name": "a", "image": "b"}], **pod},
            }
            for pod in pods or []
        ),
    ]
    desired = build(load_text("\n---\n".join(map(json.dumps, objects))))
    return compile_world(desired, assign(desired))


def text_of(route: Route) -> str:
    """A route as `ip route` prints it."""
    via = f" via {format_ip(route.via)}" if route.via is not None else ""
    metric = f" metric {route.metric}" if route.metric else ""
    return f"{route.prefix}{via} dev {route.interface}{metric}"


def show(host: HostConfig) -> list[str]:
    """A host's configuration as lines."""
    return [
        *(f"port {port.name} mtu {port.mtu}" for port in host.ports),
        *(f"{i.name} {' '.join(map(str, i.addresses))} mtu {i.mtu}" for i in host.interfaces),
        *(f"route {text_of(route)}" for route in host.routes),
        *(f"neighbor {format_ip(n.address)} dev {n.interface} lladdr {format_mac(n.mac)}" for n in host.neighbors),
        *(f"bridge {bridge.interface}: {' '.join(bridge.ports)}" for bridge in host.bridges),
        *(
            f"vxlan {v.interface} id {v.vni} dstport {v.port} local {format_ip(v.local)}: "
            + " ".join(f"{format_mac(mac)}->{format_ip(remote)}" for mac, remote in v.remotes)
            for v in host.vxlans
        ),
    ]


def interface_mac(config: WorldConfig, host: str, interface: str) -> str:
    """A host's interface's MAC as text."""
    (found,) = (i.mac for h in config.hosts if h.name == host for i in h.interfaces if i.name == interface)
    return format_mac(found)


@pytest.mark.rule("FL-03", element="remote-routes")
@pytest.mark.rule("FL-10", element="tunnel-addresses")
def test_two_hosts_with_vxlan() -> None:
    config = world_of("two-hosts")
    vtep = interface_mac(config, "host2", "flannel.1")
    assert show(config.hosts[0]) == [
        "port eth0 mtu 1500",
        "port web-1 mtu 1450",
        "port web-2 mtu 1450",
        "eth0 192.168.9.11/24 mtu 1500",
        "cni0 10.244.1.1/24 mtu 1450",
        "flannel.1 10.244.1.0/32 mtu 1450",
        "route 192.168.9.0/24 dev eth0",
        "route 10.244.1.0/24 dev cni0",
        "route 10.244.2.0/24 via 10.244.2.0 dev flannel.1",
        "route 10.96.0.0/16 dev eth0 metric 1000",
        f"neighbor 10.244.2.0 dev flannel.1 lladdr {vtep}",
        "bridge cni0: web-1 web-2",
        f"vxlan flannel.1 id 1 dstport 4789 local 192.168.9.11: {vtep}->192.168.9.12",
    ]
    assert config.wires == (
        WireConfig("host1--switch1", ("host1", "eth0"), ("switch1", "1")),
        WireConfig("host2--switch1", ("host2", "eth0"), ("switch1", "2")),
    )
    assert [(s.name, s.ports) for s in config.switches] == [("switch1", (Port("1"), Port("2")))]
    assert [(edge.name, edge.device, " ".join(map(str, edge.addresses)), edge.mtu) for edge in config.pods] == [
        ("web-1", "host1", "10.244.1.2/24", 1450),
        ("web-2", "host1", "10.244.1.3/24", 1450),
        ("web-3", "host2", "10.244.2.2/24", 1450),
        ("web-4", "host2", "10.244.2.3/24", 1450),
    ]
    assert [format_ip(*edge.gateways) for edge in config.pods] == [
        "10.244.1.1",
        "10.244.1.1",
        "10.244.2.1",
        "10.244.2.1",
    ]
    assert config.host_edges[:3] == (
        HostEdge("host1:eth0", "host1", "eth0"),
        HostEdge("host1:cni0", "host1", "cni0"),
        HostEdge("host1:flannel.1", "host1", "flannel.1"),
    )
    assert config.seed == 7


def test_three_hosts_routed() -> None:
    assert show(world_of("three-hosts-routed").hosts[1]) == [
        "port eth0 mtu 1500",
        "port web-2 mtu 1500",
        "eth0 192.168.9.12/24 mtu 1500",
        "cni0 10.244.2.1/24 mtu 1500",
        "route 192.168.9.0/24 dev eth0",
        "route 10.244.2.0/24 dev cni0",
        "route 10.244.1.0/24 via 192.168.9.11 dev eth0",
        "route 10.244.3.0/24 via 192.168.9.13 dev eth0",
        "route 10.96.0.0/16 dev eth0 metric 1000",
        "bridge cni0: web-2",
    ]


def test_dual_stack_over_an_ipv4_underlay() -> None:
    config = world_of("dual-stack")
    vtep = interface_mac(config, "host2", "flannel.1")
    assert show(config.hosts[0])[3:] == [
        "eth0 192.168.9.11/24 fd00:192:168:9::11/64 mtu 1500",
        "cni0 10.244.1.1/24 fd00:10:244:1::1/64 mtu 1450",
        "flannel.1 10.244.1.0/32 fd00:10:244:1::/128 mtu 1450",
        "route 192.168.9.0/24 dev eth0",
        "route fd00:192:168:9::/64 dev eth0",
        "route 10.244.1.0/24 dev cni0",
        "route fd00:10:244:1::/64 dev cni0",
        "route 10.244.2.0/24 via 10.244.2.0 dev flannel.1",
        "route fd00:10:244:2::/64 via fd00:10:244:2:: dev flannel.1",
        "route 10.96.0.0/16 dev eth0 metric 1000",
        "route fd00:10:96::/112 dev eth0 metric 1000",
        f"neighbor 10.244.2.0 dev flannel.1 lladdr {vtep}",
        f"neighbor fd00:10:244:2:: dev flannel.1 lladdr {vtep}",
        "bridge cni0: web-1 web-2",
        f"vxlan flannel.1 id 1 dstport 4789 local 192.168.9.11: {vtep}->192.168.9.12",
    ]
    edge = config.pods[2]
    assert [str(address) for address in edge.addresses] == ["10.244.2.2/24", "fd00:10:244:2::2/64"]
    assert [format_ip(gateway) for gateway in edge.gateways] == ["10.244.2.1", "fd00:10:244:2::1"]


def test_dual_stack_routed() -> None:
    config = world(hosts=["a", "b"], overlay="host-gw", podCIDRs=["fd00:1::/48", "10.1.0.0/16"])
    assert [text_of(route) for route in config.hosts[0].routes[-4:]] == [
        "10.1.2.0/24 via 192.168.9.12 dev eth0",
        "fd00:1:0:2::/64 via fd00:192:168:9::12 dev eth0",
        "10.96.0.0/16 dev eth0 metric 1000",
        "fd00:10:96::/112 dev eth0 metric 1000",
    ]


@pytest.mark.rule("CNI-13", element="gateways")
def test_a_bridge_has_the_first_address_of_its_subnet_and_is_the_pods_gateway() -> None:
    text = {"publish": [{"port": 80, "pod": "p", "targetPort": 80}], "name": "a"}
    config = world([{"name": "p", "nodeName": "a"}], hosts=[text], overlay="host-gw")
    (host,), (pod,) = config.hosts, config.pods
    assert [str(one) for one in host.interfaces[1].addresses] == ["10.244.1.1/24"]
    assert [format_ip(one) for one in pod.gateways] == ["10.244.1.1"]
    assert host.bridges[0].hairpin, "what is published may lead back to who calls it"


@pytest.mark.rule("CNI-14", element="macs")
def test_bridges_and_pods_take_1500_bytes_and_have_macs_of_their_own() -> None:
    config = world([{"name": "p", "nodeName": "a"}, {"name": "q", "nodeName": "a"}], hosts=["a"], overlay="host-gw")
    (host,) = config.hosts
    assert [port.mtu for port in host.ports] == [one.mtu for one in host.interfaces] + [1500] == [1500] * 3
    macs = [*(pod.mac for pod in config.pods), *(one.mac for one in host.interfaces)]
    assert len(set(macs)) == 4
    assert {mac[0] & 3 for mac in macs} == {2}, "locally administered, and no group's"


def test_vxlan_over_ipv6_takes_seventy_bytes() -> None:
    config = world(hosts=["a", "b"], podCIDR="fd00:1::/48", overlay={"kind": "vxlan", "port": 8472, "vni": 5})
    (vxlan,) = config.hosts[0].vxlans
    assert (vxlan.vni, vxlan.port, format_ip(vxlan.local)) == (5, 8472, "fd00:192:168:9::11")
    assert [format_ip(remote) for _, remote in vxlan.remotes] == ["fd00:192:168:9::12"]
    assert [interface.mtu for interface in config.hosts[0].interfaces] == [1500, 1430, 1430]


def test_ipv4_is_the_outer_family_where_there_is_one() -> None:
    config = world(hosts=["a"], podCIDR="fd00:1::/48", underlay=["fd00:9::/64", "192.168.1.0/24"])
    assert format_ip(config.hosts[0].vxlans[0].local) == "192.168.1.11"
    assert config.hosts[0].interfaces[1].mtu == 1450


def test_an_mtu_is_that_of_the_hosts_own_link() -> None:
    config = world(
        [{"name": "p", "nodeName": "a"}, {"name": "q", "nodeName": "b"}],
        hosts=["a", "b"],
        switches=["s", "t"],
        underlay={"mtu": 9000},
        links=[{"a": "a", "b": "s", "mtu": 1400}, "s -- t", "t -- b"],
    )
    a, b = config.hosts
    assert [port.mtu for port in a.ports] == [1400, 1350]
    assert [interface.mtu for interface in a.interfaces] == [1400, 1350, 1350]
    assert [port.mtu for port in b.ports] == [9000, 8950]
    assert [edge.mtu for edge in config.pods] == [1350, 8950]
    assert [[port.mtu for port in switch.ports] for switch in config.switches] == [[1400, 9000], [9000, 9000]]


def test_a_switchs_ports_are_numbered_in_the_order_of_links() -> None:
    config = world_of("leaf-spine")
    assert [(wire.name, wire.a, wire.b) for wire in config.wires][-2:] == [
        ("leaf1--spine1", ("leaf1", "3"), ("spine1", "1")),
        ("leaf2--spine1", ("leaf2", "3"), ("spine1", "2")),
    ]
    assert [[port.name for port in switch.ports] for switch in config.switches] == [
        ["1", "2", "3"],
        ["1", "2", "3"],
        ["1", "2"],
    ]


def test_a_cable_alone_joins_eth0_to_eth0() -> None:
    config = world(hosts=["a", "b"], links=[{"a": "b", "b": "a", "name": "cable"}])
    assert config.wires == (WireConfig("cable", ("b", "eth0"), ("a", "eth0")),)
    assert config.switches == ()


def test_a_pod_in_its_hosts_network_has_no_port() -> None:
    config = world([{"name": "p", "hostNetwork": True}, {"name": "q", "namespace": "blue"}], hosts=["a"])
    assert [port.name for port in config.hosts[0].ports] == ["eth0", "blue/q"]
    assert config.hosts[0].bridges[0].ports == ("blue/q",)
    assert [edge.name for edge in config.pods] == ["blue/q"]


def test_a_host_alone_has_a_tunnel_to_nobody() -> None:
    (host,) = world_of("one-host").hosts
    assert host.vxlans[0].remotes == ()
    assert [text_of(route) for route in host.routes] == [
        "192.168.9.0/24 dev eth0",
        "10.244.1.0/24 dev cni0",
        "10.96.0.0/16 dev eth0 metric 1000",
    ]


def rows(host: HostConfig) -> list[str]:
    """A host's rules for sources and published ports as lines."""
    rules = host.connections
    assert rules is not None

    def either(wanted: tuple[Prefix, ...], unwanted: tuple[Prefix, ...]) -> str:
        return "|".join([*map(str, wanted), *(f"!{prefix}" for prefix in unwanted)]) or "any"

    return [
        *(
            f"{either(row.sources, row.not_sources)} to {either(row.destinations, row.not_destinations)}"
            f" {'keep' if row.keep else 'masquerade'}"
            for row in rules.masquerade
        ),
        *(
            f"{row.protocol} {format_ip(row.host_address) if row.host_address else 'any'}:{row.port}"
            f" to {format_ip(row.target)}:{row.target_port} local {'|'.join(map(str, row.local))}"
            for row in rules.publish
        ),
    ]


def test_a_plain_cluster_tracks_nothing() -> None:
    hosts = world(hosts=["host1", "host2"]).hosts
    assert [host.connections for host in hosts] == [None, None]
    assert not any(bridge.hairpin for host in hosts for bridge in host.bridges)


def test_masquerade_is_flannels_on_every_host() -> None:
    config = world(
        hosts=["host1", "host2"], masquerade={"except": ["172.16.0.0/12", "fd00:1::/32"]}, podCIDRs=["10.244.0.0/16"]
    )
    assert rows(config.hosts[1]) == [
        "10.244.2.0/24 to 10.244.0.0/16 keep",
        "10.244.0.0/16 to 10.244.2.0/24 keep",
        "!10.244.0.0/16 to 10.244.2.0/24 keep",
        "10.244.0.0/16 to 224.0.0.0/4|10.96.0.0/16|172.16.0.0/12|fd00:1::/32 keep",
        "10.244.0.0/16 to any masquerade",
        "!10.244.0.0/16 to 10.244.0.0/16 masquerade",
    ]
    assert len(rows(config.hosts[0])) == 6
    both = world(hosts=["host1"], masquerade=True, podCIDRs=["10.244.0.0/16", "fd00:244::/48"])
    assert len(rows(both.hosts[0])) == 12


def test_published_ports_lead_to_each_address_of_their_pod() -> None:
    publish = [
        {"port": 80, "pod": "default/web-1", "targetPort": 8080},
        {"port": 53, "pod": "blue/dns", "protocol": "UDP", "hostIP": "192.168.9.11"},
    ]
    config = world(
        [{"name": "web-1", "nodeName": "host1"}, {"name": "dns", "namespace": "blue", "nodeName": "host1"}],
        hosts=[{"name": "host1", "publish": publish}, "host2"],
        podCIDRs=["10.244.0.0/16", "fd00:244::/48"],
    )
    assert rows(config.hosts[0]) == [
        "6 any:80 to 10.244.1.3:8080 local 10.244.1.0/24",
        "6 any:80 to fd00:244:0:1::3:8080 local fd00:244:0:1::/64",
        "17 192.168.9.11:53 to 10.244.1.2:53 local 10.244.1.0/24",
    ]
    assert [host.bridges[0].hairpin for host in config.hosts] == [True, False]
    assert config.hosts[1].connections is None
