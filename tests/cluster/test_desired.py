"""From documents to the cluster as it is wanted: defaults, short forms, numbering, placement."""

from __future__ import annotations

import json
from typing import Any

import pytest

from emunet.cluster.build import build
from emunet.cluster.desired import Desired, Link, Overlay, OverlayKind, Switch
from emunet.cluster.load import load_text
from emunet.cluster.ranges import host_addresses, natural, pod_capacity, pod_offsets, subnets
from emunet.packet.address import Prefix, format_ip


def topology(**spec: Any) -> dict[str, Any]:
    """A Topology named lab."""
    return {"apiVersion": "emunet/v1", "kind": "Topology", "metadata": {"name": "lab"}, "spec": spec}


def pod(name: str, node: str | None = None, ip: str | None = None, **spec: Any) -> dict[str, Any]:
    """A Pod with one container."""
    metadata: dict[str, Any] = {"name": name}
    if ip is not None:
        metadata["annotations"] = {"emunet/ip": ip}
    if node is not None:
        spec["nodeName"] = node
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": [{"name": "main", "image": "busybox"}], **spec},
    }


def desire(*objects: dict[str, Any], previous: Desired | None = None) -> Desired:
    """What these objects ask for. JSON is YAML."""
    return build(load_text("\n---\n".join(map(json.dumps, objects))), previous)


def places(desired: Desired) -> dict[str, str]:
    """The host of each pod."""
    return {pod.port: pod.host for pod in desired.pods}


def subnets_of(desired: Desired) -> dict[str, str]:
    """The pod ranges of each host, as text."""
    return {host.name: " ".join(map(str, host.subnets)) for host in desired.cluster.hosts}


def addresses_of(desired: Desired) -> dict[str, str]:
    """The underlay addresses of each host, as text."""
    return {host.name: " ".join(map(str, host.addresses)) for host in desired.cluster.hosts}


def test_two_names_are_a_whole_cluster() -> None:
    cluster = desire(topology(hosts=["host1", "host2"])).cluster
    assert cluster.name == "lab"
    assert cluster.overlay == Overlay(OverlayKind.VXLAN, 4789, 1)
    assert [str(*prefixes) for prefixes in (cluster.ranges.pods, cluster.ranges.services, cluster.ranges.underlay)] == [
        "10.244.0.0/16",
        "10.96.0.0/16",
        "192.168.9.0/24",
    ]
    assert addresses_of(desire(topology(hosts=["host1", "host2"]))) == {
        "host1": "192.168.9.11/24",
        "host2": "192.168.9.12/24",
    }
    assert [str(*host.subnets) for host in cluster.hosts] == ["10.244.1.0/24", "10.244.2.0/24"]
    assert cluster.switches == (Switch("switch1"),)
    assert cluster.links == (
        Link("host1--switch1", "host1", "switch1", 1500),
        Link("host2--switch1", "host2", "switch1", 1500),
    )


def test_a_short_form_is_the_long_form() -> None:
    short = topology(
        podCIDR="10.1.0.0/16",
        serviceCIDR="10.2.0.0/16",
        underlay="10.3.0.0/24",
        overlay="host-gw",
        hosts=["host1", {"name": "host2", "address": "10.3.0.2", "podCIDR": "10.1.9.0/24"}],
        switches=["s"],
        links=["host1 -- s", "  s  --  host2 "],
    )
    long = topology(
        podCIDRs=["10.1.0.0/16"],
        nodeMasks={"IPv4": 24, "IPv6": 64},
        serviceCIDRs=["10.2.0.0/16"],
        underlay={"cidrs": ["10.3.0.0/24"], "mtu": 1500},
        overlay={"kind": "host-gw"},
        hosts=[{"name": "host1"}, {"name": "host2", "addresses": ["10.3.0.2"], "podCIDRs": ["10.1.9.0/24"]}],
        switches=[{"name": "s"}],
        links=[
            {"a": "host1", "b": "s", "name": "host1--s", "mtu": 1500},
            {"a": "s", "b": "host2", "name": "s--host2"},
        ],
    )
    assert desire(short) == desire(long)


@pytest.mark.parametrize(
    ("pods", "services", "underlay"),
    [
        (["10.1.0.0/16"], "10.96.0.0/16", "192.168.9.0/24"),
        (["fd00:1::/48"], "fd00:10:96::/112", "fd00:192:168:9::/64"),
        (
            ["fd00:1::/48", "10.1.0.0/16"],
            "10.96.0.0/16 fd00:10:96::/112",
            "192.168.9.0/24 fd00:192:168:9::/64",
        ),
    ],
)
def test_the_pods_families_choose_the_defaults(pods: list[str], services: str, underlay: str) -> None:
    ranges = desire(topology(podCIDRs=pods, hosts=["a"])).cluster.ranges
    assert " ".join(map(str, ranges.services)) == services
    assert " ".join(map(str, ranges.underlay)) == underlay


def test_dual_stack_numbers_both_families_alike() -> None:
    hosts = [f"host{number}" for number in range(1, 11)]
    desired = desire(topology(podCIDRs=["10.244.0.0/16", "fd00:10:244::/48"], hosts=hosts))
    assert addresses_of(desired)["host1"] == "192.168.9.11/24 fd00:192:168:9::11/64"
    assert addresses_of(desired)["host10"] == "192.168.9.20/24 fd00:192:168:9::20/64"
    assert subnets_of(desired)["host10"] == "10.244.10.0/24 fd00:10:244:a::/64"


def test_two_hosts_may_be_joined_by_a_cable_alone() -> None:
    cluster = desire(topology(hosts=["a", "b"], links=["a -- b"])).cluster
    assert (cluster.switches, cluster.links) == ((), (Link("a--b", "a", "b", 1500),))


def test_what_is_fixed_is_left_out_for_the_others() -> None:
    hosts = ["a", {"name": "b", "address": "192.168.9.11", "podCIDR": "10.244.1.128/25"}, "c"]
    desired = desire(topology(hosts=hosts))
    assert addresses_of(desired) == {"a": "192.168.9.12/24", "b": "192.168.9.11/24", "c": "192.168.9.13/24"}
    assert subnets_of(desired) == {"a": "10.244.2.0/24", "b": "10.244.1.128/25", "c": "10.244.3.0/24"}


def test_a_range_of_one_part_serves_one_host() -> None:
    assert subnets_of(desire(topology(podCIDR="10.1.0.0/24", hosts=["a"]))) == {"a": "10.1.0.0/24"}


def test_a_host_keeps_its_numbers_when_others_come_and_go() -> None:
    before = desire(topology(hosts=["a", "b", "c"]))
    after = desire(topology(hosts=["d", "c", "b"]), previous=before)
    assert addresses_of(after) == {"d": "192.168.9.11/24", "c": "192.168.9.13/24", "b": "192.168.9.12/24"}
    assert subnets_of(after) == {"d": "10.244.1.0/24", "c": "10.244.3.0/24", "b": "10.244.2.0/24"}


def test_numbers_that_fit_no_longer_are_given_anew() -> None:
    before = desire(topology(hosts=["a", "b"]))
    after = desire(topology(podCIDR="10.1.0.0/16", underlay="10.2.0.0/24", hosts=["b", "a"]), previous=before)
    assert addresses_of(after) == {"b": "10.2.0.11/24", "a": "10.2.0.12/24"}
    assert subnets_of(after) == {"b": "10.1.1.0/24", "a": "10.1.2.0/24"}
    wider = desire(topology(nodeMasks={"IPv4": 25}, hosts=["a", "b"]), previous=before)
    assert subnets_of(wider) == {"a": "10.244.0.128/25", "b": "10.244.1.0/25"}


# Placement: nodeName, then where it was, then the fewest pods, then the name.

TWO_HOSTS = topology(hosts=["host2", "host1", "host10"])


def test_pods_are_spread_to_the_fewest_then_by_name() -> None:
    desired = desire(TWO_HOSTS, *(pod(f"web-{number}") for number in range(1, 5)))
    assert places(desired) == {"web-1": "host1", "web-2": "host2", "web-3": "host10", "web-4": "host1"}


def test_a_pod_with_a_node_counts_before_the_others() -> None:
    desired = desire(TWO_HOSTS, pod("a"), pod("b"), pod("z", node="host1"), pod("y", node="host1"))
    assert places(desired) == {"a": "host2", "b": "host10", "y": "host1", "z": "host1"}


def test_a_pod_stays_where_it_was() -> None:
    before = desire(TWO_HOSTS, pod("b"), pod("c"))
    after = desire(TWO_HOSTS, pod("a"), pod("b"), pod("c"), previous=before)
    assert places(before) == {"b": "host1", "c": "host2"}
    assert places(after) == {"a": "host10", "b": "host1", "c": "host2"}


def test_a_pod_whose_host_is_gone_moves_and_no_other_does() -> None:
    before = desire(TWO_HOSTS, *(pod(f"web-{number}") for number in range(1, 5)))
    after = desire(topology(hosts=["host1", "host10"]), *(pod(f"web-{n}") for n in range(1, 5)), previous=before)
    assert places(after) == {"web-1": "host1", "web-2": "host10", "web-3": "host10", "web-4": "host1"}


def test_a_node_selector_chooses_by_label_and_name() -> None:
    hosts = ["host1", {"name": "host2", "labels": {"disk": "ssd"}}]
    desired = desire(
        topology(hosts=hosts),
        pod("a", nodeSelector={"disk": "ssd"}),
        pod("b", nodeSelector={"disk": "ssd", "kubernetes.io/os": "linux"}),
        pod("c", nodeSelector={"kubernetes.io/hostname": "host2"}),
        pod("d"),
    )
    assert places(desired) == {"a": "host2", "b": "host2", "c": "host2", "d": "host1"}


def test_a_fixed_address_chooses_the_host_that_has_it() -> None:
    desired = desire(TWO_HOSTS, pod("a", ip="10.244.3.7"), pod("b", node="host2", ip="10.244.1.7"))
    assert places(desired) == {"a": "host10", "b": "host2"}
    assert [format_ip(address) for pod in desired.pods for address in pod.addresses] == ["10.244.3.7", "10.244.1.7"]


def test_a_full_host_is_passed_over() -> None:
    lab = topology(nodeMasks={"IPv4": 30}, hosts=["a", "b"])
    assert places(desire(lab, pod("x"), pod("y", node="a"))) == {"x": "b", "y": "a"}
    everywhere = desire(lab, pod("x"), pod("y"), pod("z", hostNetwork=True))
    assert places(everywhere) == {"x": "a", "y": "b", "z": "a"}


def test_the_order_of_documents_does_not_matter() -> None:
    objects = [TWO_HOSTS, *(pod(f"web-{number}") for number in (1, 2, 10))]
    assert desire(*objects) == desire(*reversed(objects))
    assert [pod.port for pod in desire(*objects).pods] == ["web-1", "web-2", "web-10"]


def test_what_was_wanted_before_changes_nothing_when_nothing_changed() -> None:
    objects = [TWO_HOSTS, pod("a"), pod("b", node="host2")]
    assert desire(*objects, previous=desire(*objects)) == desire(*objects)


# The arithmetic.


def test_names_are_sorted_as_people_count() -> None:
    names = ["web-10", "web-2", "web", "a10b2", "a2b10", "web-02", "10", "9"]
    assert sorted(names, key=natural) == ["9", "10", "a2b10", "a10b2", "web", "web-02", "web-2", "web-10"]


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("10.0.0.0/28", "11 12 13 14 1 2 3 4 5 6 7 8 9"),
        ("10.0.0.0/30", "1 2"),
        ("10.0.0.0/29", "1 2 3 4 5 6"),
    ],
)
def test_host_addresses_leave_out_network_and_broadcast(prefix: str, expected: str) -> None:
    assert " ".join(str(address[3]) for address in host_addresses(Prefix.parse(prefix))) == expected


def test_host_addresses_of_ipv6_have_the_digits_of_ipv4() -> None:
    found = [
        format_ip(address) for _, address in zip(range(10), host_addresses(Prefix.parse("fd00::/64")), strict=False)
    ]
    assert found[0] == "fd00::11"
    assert found[-1] == "fd00::20"
    assert len(list(host_addresses(Prefix.parse("fd00::/124")))) == 9


def test_subnets_start_at_number_one() -> None:
    assert [str(subnet) for subnet in subnets(Prefix.parse("10.0.0.0/22"), 24)] == [
        "10.0.1.0/24",
        "10.0.2.0/24",
        "10.0.3.0/24",
        "10.0.0.0/24",
    ]


@pytest.mark.parametrize(
    ("after", "expected"),
    [(1, [2, 3, 4, 5, 6]), (3, [4, 5, 6, 2, 3]), (6, [2, 3, 4, 5, 6]), (0, [2, 3, 4, 5, 6])],
)
def test_pod_offsets_go_round(after: int, expected: list[int]) -> None:
    assert list(pod_offsets(Prefix.parse("10.0.0.0/29"), after)) == expected
    assert pod_capacity(Prefix.parse("10.0.0.0/29")) == len(expected)
