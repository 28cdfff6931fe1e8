"""The gateway to the outside: where it is plugged in, what it is called and numbered, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from emunet.cluster.assign import assign
from emunet.cluster.build import build
from emunet.cluster.compile import compile as compile_world
from emunet.cluster.desired import Desired, DnsWish, Gateway
from emunet.cluster.gateway import EVERYTHING, NoGateway, with_way_out
from emunet.cluster.load import load_text
from emunet.fabric.config import router_edges
from emunet.fabric.world import World
from emunet.linux import way_out
from emunet.linux.refusals import LinuxRefused
from emunet.linux.way_out import carries_ipv6, check_route, machine_resolver
from emunet.packet.address import format_ip, parse_ip

NAMES = parse_ip("9.9.9.9")


def desired(resolver: bytes | None = NAMES, ipv6: bool = False, **spec: Any) -> Desired:
    """A cluster with a way out."""
    data = {"apiVersion": "emunet/v1", "kind": "Topology", "metadata": {"name": "lab"}, "spec": spec}
    wanted = build(load_text(json.dumps(data)))
    return Desired(with_way_out(wanted.cluster, resolver, ipv6), wanted.pods)


def gateway(resolver: bytes | None = NAMES, ipv6: bool = False, **spec: Any) -> Gateway:
    """Its gateway."""
    found = desired(resolver, ipv6, **spec).cluster.gateway
    assert found is not None
    return found


def test_it_takes_the_first_address_and_else_one_that_nobody_has() -> None:
    assert str(gateway(hosts=["a"]).ipv4.inside) == "192.168.9.1/24"
    assert str(gateway(hosts=[{"name": "a", "address": "192.168.9.1"}]).ipv4.inside) == "192.168.9.9/24"
    pools = ["192.168.9.0/29", "192.168.9.8/31"]
    assert str(gateway(hosts=["a"], loadBalancerPool=pools).ipv4.inside) == "192.168.9.254/24"


def test_the_range_outside_is_not_the_labs() -> None:
    assert str(gateway(hosts=["a"]).ipv4.outside) == "10.0.2.15/24"
    assert format_ip(gateway(hosts=["a"], podCIDR="10.0.0.0/16").ipv4.next_hop) == "192.168.255.2"


def test_names_outside_are_asked_for_at_the_machines_own_server() -> None:
    dns = desired(hosts=["a"]).cluster.dns
    assert (dns.wish, dns.forward) == (DnsWish.ON, (NAMES,))
    assert desired(hosts=["a"], dns=False).cluster.dns.wish is DnsWish.OFF
    own = {"forward": "192.168.9.53"}
    assert desired(hosts=["a"], dns=own).cluster.dns.forward == (parse_ip("192.168.9.53"),)
    assert desired(None, hosts=["a"]).cluster.dns.wish is DnsWish.AUTO
    assert gateway(parse_ip("192.168.9.200"), hosts=["a"]).resolver is None, "that address is the lab's, inside"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"hosts": ["a", "b"], "links": ["a -- b"]}, "plugged into a switch, and this topology has none"),
        ({"hosts": ["gateway"]}, "a device called gateway, and the topology has one"),
        ({"hosts": ["a", "b"], "underlay": "192.168.9.0/30"}, "no address of the underlay 192.168.9.0/30 is left"),
        ({"hosts": ["a"], "podCIDR": "fd00:10::/48", "nodeMasks": {"IPv6": 64}}, "underlay has no IPv4 range"),
        (
            {"hosts": ["a"], "podCIDR": "10.0.0.0/16", "serviceCIDR": "192.168.128.0/17", "underlay": "172.16.0.0/12"},
            "needs one of 10.0.2.0/24, 192.168.255.0/24, 172.31.255.0/24",
        ),
    ],
)
def test_what_has_no_place_for_it(spec: dict[str, Any], said: str) -> None:
    with pytest.raises(NoGateway, match=said):
        desired(**spec)


def test_the_world_has_a_router_that_has_no_part_in_services() -> None:
    wanted = desired(hosts=["a", "b"])
    config = compile_world(wanted, assign(wanted))
    [router] = config.routers
    assert router.name == "gateway"
    assert [str(route) for route in config.hosts[0].routes if route.prefix.length == 0] == [
        "0.0.0.0/0 via 192.168.9.1 dev eth0"
    ]
    assert {str(route) for route in router.routes if route.via is not None and route.prefix.length} == {
        "10.244.1.0/24 via 192.168.9.11 dev eth0",
        "10.244.2.0/24 via 192.168.9.12 dev eth0",
    }
    assert [format_ip(row.address) for row in router.neighbors] == ["10.0.2.2"]
    assert [edge.name for edge in router_edges(config)] == ["gateway:eth0"], "the other is the end of the wire outside"
    world = World()
    world.configure(config)
    assert {"gateway:eth0", "gateway:out", "switch1:gateway"} <= set(world.port_names())
    assert compile_world(Desired(build(load_text(TWO)).cluster, ()), assign(build(load_text(TWO)))).routers == ()


DUAL: dict[str, Any] = {
    "hosts": ["a", "b"],
    "podCIDRs": ["10.244.0.0/16", "fd00:10:244::/56"],
    "underlay": {"cidrs": ["192.168.9.0/24", "fd00:9::/64"]},
}


def test_ipv6_gets_out_where_the_machine_has_a_way_for_it() -> None:
    assert gateway(**DUAL).ipv6 is None
    assert gateway(ipv6=True, hosts=["a"]).ipv6 is None, "the underlay has none"
    way = gateway(ipv6=True, **DUAL).ipv6
    assert way is not None
    assert (str(way.inside), str(way.outside)) == ("fd00:9::1/64", "fd65:6d75:6e65:7400::f/64")
    taken = {**DUAL, "hosts": [{"name": "a", "addresses": ["192.168.9.1", "fd00:9::1"]}]}
    other = gateway(ipv6=True, **taken).ipv6
    assert str(other and other.inside) == "fd00:9::ffff/64"
    own = {**DUAL, "podCIDRs": ["10.244.0.0/16", "fd65:6d75:6e65:7400::/56"]}
    with pytest.raises(NoGateway, match=r"needs one of fd65:6d75:6e65:7400::/64, fd65:6d75:6e65:74ff::/64"):
        gateway(ipv6=True, **own)


def test_of_ipv6_global_addresses_alone_are_let_out() -> None:
    """So no address of the machine's in the form of IPv6, and none where clouds hand out credentials."""
    wanted = desired(ipv6=True, **DUAL)
    config = compile_world(wanted, assign(wanted))
    [router] = config.routers
    assert [str(route) for route in config.hosts[1].routes if route.prefix.length == 0] == [
        "0.0.0.0/0 via 192.168.9.1 dev eth0",
        "::/0 via fd00:9::1 dev eth0",
    ]
    assert [str(route) for route in router.routes if route.via is not None and len(route.prefix.address) == 16] == [
        "fd00:10:244:1::/64 via fd00:9::11 dev eth0",
        "fd00:10:244:2::/64 via fd00:9::12 dev eth0",
        "2000::/3 via fd65:6d75:6e65:7400::2 dev out",
    ]
    assert [str(route) for route in router.routes if route.prefix == EVERYTHING[16]] == ["prohibit ::/0"]


TWO = json.dumps(
    {"apiVersion": "emunet/v1", "kind": "Topology", "metadata": {"name": "lab"}, "spec": {"hosts": ["a", "b"]}}
)


def test_what_the_machine_has(tmp_path: Path) -> None:
    stub, real, route = (tmp_path / name for name in ("resolv.conf", "real.conf", "route"))
    stub.write_text("# a comment\nsearch x\nnameserver 127.0.0.53\nnameserver ::1\nnameserver 169.254.169.254\n")
    assert machine_resolver([stub, real]) is None
    real.write_text("nameserver fd00::1\nnameserver 10.1.2.3\nnameserver 10.1.2.4\n")
    assert machine_resolver([stub, real]) == parse_ip("10.1.2.3")
    row = "\t01020304\t0003\t0\t0\t0\t"
    route.write_text(f"Iface\nlo\t0000007F\t00000000\t0001\t0\t0\t0\t000000FF\neth0\t00000000{row}00000000\n")
    check_route(route)
    route.write_text("Iface\nlo\t0000007F\t00000000\t0001\t0\t0\t0\t000000FF\n")
    with pytest.raises(LinuxRefused, match="no default route"):
        check_route(route)


def test_whether_the_machine_has_ipv6(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    routes, nobody = tmp_path / "ipv6_route", "0" * 32
    row = f"{nobody} 00 {nobody} 00 {{}} 00000400 00000003 00000000 {{}}\n"
    monkeypatch.setattr(way_out, "find", lambda: "passt")
    routes.write_text(row.format(nobody, "00200200     lo"))
    assert not carries_ipv6(routes), "that is how the kernel says that there is none"
    routes.write_text(row.format("fd" + nobody[2:], "00000003     eth0"))
    assert carries_ipv6(routes)
    assert not carries_ipv6(tmp_path / "nothing")
    monkeypatch.setattr(way_out, "find", lambda: "slirp4netns")
    assert not carries_ipv6(routes), "its IPv6 is no way to rely on"
