"""What hosts are told of policies: compiled, remembered, and changed row by row."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import pytest

from emunet.cluster.compile import compile
from emunet.cluster.load import BadInput, load_text
from emunet.cluster.policies import Port, policy_of
from emunet.cluster.status import StatusError
from emunet.elements.policies.rules import Direction, PoliciesConfig, Row, difference
from emunet.elements.policies.table import PolicyTable
from emunet.fabric.config_text import decode, encode
from emunet.packet.address import format_ip
from emunet.plane.table import Watch
from emunet.testing import Lab
from tests.policy_worlds import NAMES, SPACES, TEXT, Policed, labels, pod_text, policy


def told(net: Policed, host: str) -> PoliciesConfig:
    """What a host is told."""
    return next(one.policies for one in net.config.hosts if one.name == host)


def test_only_hosts_with_a_selected_pod_are_told() -> None:
    net = Policed()
    net.apply(policy("c", podSelector=labels(pod="c"), ingress=[{"from": [{"podSelector": labels(pod="a")}]}]))
    assert told(net, "host1") == PoliciesConfig()
    rules = told(net, "host2")
    assert [row.port for row in rules.pods] == ["x/c"]
    assert rules.pods[0].egress == ()
    (isolation,) = rules.pods[0].ingress
    assert isolation.policy == "x/c"
    (group,) = rules.groups
    assert group.name == "pods pod=a of x"
    assert [format_ip(one) for one in group.members] == ["10.244.1.2", "fd00:244:0:1::2"]
    assert dict(rules.names)[group.members[0]] == "x/a"
    assert all(host.connections is not None for host in net.config.hosts)


def test_without_policies_hosts_stay_plain_routers_unless_the_topology_asks() -> None:
    assert all(host.connections is None for host in Policed().config.hosts)
    assert all(host.connections is not None for host in Policed(mode="packet").config.hosts)


def test_a_mode_that_there_is_not_is_refused() -> None:
    with pytest.raises(BadInput, match="networkPolicy"):
        Policed(mode="sometimes")


def test_reading_ports() -> None:
    rules = [{"ports": [{}, {"port": 80}, {"port": "web", "protocol": "UDP"}, {"port": 1, "endPort": 9}]}]
    (rule,) = policy_of(policy("p", ingress=rules)).ingress or ()
    assert rule.ports == (Port(6), Port(6, 80, 80), Port(17, name="web"), Port(6, 1, 9))
    assert [str(port) for port in rule.ports] == ["every TCP port", "80/TCP", "web/UDP", "1-9/TCP"]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"ports": [{"port": 81, "endPort": 80}]}, "must be greater than or equal to `port`"),
        ({"ports": [{"port": "web", "endPort": 80}]}, "may not be specified when `port` is not specified"),
        ({"ports": [{"port": 0}]}, "must be between 1 and 65535, inclusive"),
        ({"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}]}, "strict subset of `cidr`"),
        ({"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}}]}, "strict subset of `cidr`"),
        ({"from": [{"ipBlock": {"cidr": "10.0.0.0"}}]}, "must be a valid CIDR value"),
        ({"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}]}, "may not specify both ipBlock"),
        ({"from": [{}]}, "must specify a peer"),
    ],
)
@pytest.mark.rule("NP-11", "NP-12", element="validation")
def test_what_the_api_refuses(rule: dict[str, Any], message: str) -> None:
    with Lab(TEXT) as lab, pytest.raises(StatusError) as error:
        lab.control.request(0).create(lab.control.find("networkpolicies"), policy("bad", ingress=[rule]), "x")
    assert message in str(error.value)


def test_a_block_may_be_written_with_an_address_in_it() -> None:
    (rule,) = policy_of(policy("p", ingress=[{"from": [{"ipBlock": {"cidr": "10.244.1.7/16"}}]}])).ingress or ()
    assert str(rule.blocks[0].prefix) == "10.244.0.0/16"


# Random policies


def random_peer(draw: random.Random) -> dict[str, Any]:
    """Any kind of peer."""
    kind = draw.randrange(5)
    if kind == 0:
        return {"podSelector": random_selector(draw, "pod", "abc")}
    if kind == 1:
        return {"namespaceSelector": random_selector(draw, "ns", "xyz")}
    if kind == 2:
        return {
            "namespaceSelector": random_selector(draw, "ns", "xyz"),
            "podSelector": random_selector(draw, "pod", "abc"),
        }
    block = {"cidr": draw.choice(["10.244.0.0/16", "10.244.1.0/24", "10.244.1.2/31", "fd00:244::/48", "0.0.0.0/0"])}
    inside = {"10.244.0.0/16": "10.244.2.0/24", "10.244.1.0/24": "10.244.1.4/30", "fd00:244::/48": "fd00:244:0:1::/64"}
    if block["cidr"] in inside and draw.random() < 0.6:
        return {"ipBlock": {**block, "except": [inside[block["cidr"]]]}}
    return {"ipBlock": block}


def random_selector(draw: random.Random, key: str, values: str) -> dict[str, Any]:
    """Labels, expressions, or everything."""
    kind = draw.randrange(5)
    if kind == 0:
        return {}
    if kind <= 2:
        return {"matchLabels": {key: draw.choice(values)}}
    operator = draw.choice(["In", "NotIn", "Exists", "DoesNotExist"])
    expression: dict[str, Any] = {"key": draw.choice([key, key, "other"]), "operator": operator}
    if operator in ("In", "NotIn"):
        expression["values"] = draw.sample(values, draw.randrange(1, 3))
    return {"matchExpressions": [expression]}


def random_port(draw: random.Random) -> dict[str, Any]:
    """Any kind of port."""
    protocol = draw.choice([None, "TCP", "UDP", "SCTP"])
    port = draw.choice([None, 80, 81, 79, "serve-80-tcp", "serve-81-udp", "no-such-name"])
    found: dict[str, Any] = {} if protocol is None else {"protocol": protocol}
    if port is not None:
        found["port"] = port
    if port == 79:
        found["endPort"] = draw.choice([79, 80, 81])
    return found


def random_rule(draw: random.Random, peers: str) -> dict[str, Any]:
    """A rule, perhaps an empty one."""
    rule: dict[str, Any] = {}
    if draw.random() < 0.8:
        rule[peers] = [random_peer(draw) for _ in range(draw.randrange(3))]
    if draw.random() < 0.6:
        rule["ports"] = [random_port(draw) for _ in range(draw.randrange(3))]
    return rule


def random_policy(draw: random.Random, name: str) -> dict[str, Any]:
    """Any NetworkPolicy that the API takes."""
    spec: dict[str, Any] = {"podSelector": random_selector(draw, "pod", "abc")}
    if draw.random() < 0.7:
        spec["ingress"] = [random_rule(draw, "from") for _ in range(draw.randrange(3))]
    if draw.random() < 0.5:
        spec["egress"] = [random_rule(draw, "to") for _ in range(draw.randrange(3))]
    if draw.random() < 0.4:
        spec["policyTypes"] = draw.choice([["Ingress"], ["Egress"], ["Ingress", "Egress"]])
    return policy(name, draw.choice(SPACES), **spec)


def test_changed_step_by_step_is_compiled_from_nothing() -> None:
    """150 random changes of policies and labels: memory changes nothing, rows lead where they should, JSON too."""
    draw = random.Random(4)
    net = Policed(TEXT, mode="connection")
    tables = {host.name: PolicyTable(Watch(), PoliciesConfig()) for host in net.config.hosts}
    policies: dict[str, dict[str, Any]] = {}
    rows = 0
    for number in range(150):
        kind, before = draw.random(), net.config
        if kind < 0.6 or not policies:
            name = f"p{draw.randrange(8)}"
            policies[name] = random_policy(draw, name)
        elif kind < 0.75:
            del policies[draw.choice(list(policies))]
        elif kind < 0.9:
            net.relabel(draw.choice(NAMES), pod=draw.choice("abc"))
        else:
            net.spaces[draw.choice(SPACES)]["ns"] = draw.choice(SPACES)
        net.apply(*policies.values())
        assert net.config == compile(net.desired, net.allocation), number
        assert net.world.config == net.config
        for old, new in zip(before.hosts, net.config.hosts, strict=True):
            steps = list(difference(old.policies, new.policies))
            tables[new.name].change(steps)
            rows += len(steps)
            assert tables[new.name].config == new.policies
            assert decode(encode(new.policies)) == new.policies
    assert rows > 500


def test_nothing_is_left_of_what_was_taken_away() -> None:
    """A table that became empty again has no subject, no group and no name."""
    draw = random.Random(8)
    net = Policed(mode="connection")
    net.apply(*(random_policy(draw, f"p{number}") for number in range(30)))
    full = told(net, "host1")
    table = PolicyTable(Watch(), full)
    assert table.by_port
    subject = next(iter(table.by_port.values()))
    permits = [subject.permits(direction) for direction in Direction]
    table.configure(replace(full, pods=tuple(replace(row, ingress=(), egress=()) for row in full.pods)))
    assert not any(one.isolations or one._exact or one._wide or one._every for one in permits)
    table.configure(PoliciesConfig())
    assert not table.by_port
    assert not table.by_address
    assert not table.names
    assert not table._groups
    assert not table._groups_of


def test_a_row_is_little_work() -> None:
    """A group of many comes in pieces, and equal parts are no row at all."""
    net = Policed()
    net.apply(policy("p", ingress=[{"from": [{"podSelector": labels(pod="a")}]}]))
    rules = told(net, "host1")
    assert list(difference(rules, rules)) == []
    members = tuple(bytes((10, 1, number >> 8, number & 255)) for number in range(1000))
    many = replace(rules, groups=(replace(rules.groups[0], members=members),))
    rows: list[Row] = list(difference(rules, many))
    assert [len(row.added) for row in rows] == [256, 256, 256, 232]  # type: ignore[union-attr]


# Warnings


def warned(net_text: str, *policies: dict[str, Any]) -> list[str]:
    """What a client of the API is told who applies policies."""
    with Lab(net_text) as lab:
        request = lab.control.request(0)
        for one in policies:
            request.create(lab.control.find("networkpolicies"), one, one["metadata"]["namespace"])
        return request.warnings


def test_a_policy_that_means_nobody_is_warned_about() -> None:
    assert warned(TEXT, policy("fine", podSelector=labels(pod="a"))) == []
    assert warned(TEXT, policy("typo", podSelector=labels(pod="d"))) == [
        "NetworkPolicy x/typo selects no pod: none of x is pod=d"
    ]
    assert warned(TEXT, policy("empty", "default")) == ["NetworkPolicy default/empty selects no pod: default has none"]


def test_a_port_that_no_pod_has_is_warned_about() -> None:
    ports = [{"ports": [{"port": "web"}, {"port": "serve-80-tcp"}, {"port": "serve-80-tcp", "protocol": "UDP"}]}]
    assert warned(TEXT, policy("in", ingress=ports), policy("out", policyTypes=["Egress"], egress=ports)) == [
        "NetworkPolicy x/in permits ingress at the port web (TCP), a name that no pod which it selects has",
        "NetworkPolicy x/in permits ingress at the port serve-80-tcp (UDP), a name that no pod which it selects has",
        "NetworkPolicy x/out permits egress to the port web (TCP), a name that no pod has",
        "NetworkPolicy x/out permits egress to the port serve-80-tcp (UDP), a name that no pod has",
    ]


def test_pods_of_the_same_file_and_of_workloads_count() -> None:
    workload = """---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 0
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: i, ports: [{name: http, containerPort: 80}]}]}
"""
    rule = [{"ports": [{"port": "http"}, {"port": "https"}]}]
    item = policy("web", "default", podSelector=labels(app="web"), ingress=rule)
    said = "permits ingress at the port https (TCP), a name that no pod which it selects has"
    assert warned(TEXT + workload, item) == [f"NetworkPolicy default/web {said}"]
    documents = load_text(f"{json.dumps(item)}\n{workload}", "both.yaml")
    with Lab(TEXT) as lab:
        _, warnings = lab.control.check(documents)
        assert [str(one).split(": ", 2)[2] for one in warnings] == [f"NetworkPolicy default/web {said}"]


def test_pods_in_their_hosts_network_cannot_be_isolated() -> None:
    hosted = pod_text("x", "h").replace("{nodeName: host1,", "{nodeName: host1, hostNetwork: true,")
    assert warned(f"{TEXT}---\n{hosted}", policy("h", podSelector=labels(pod="h"))) == [
        "NetworkPolicy x/h selects only pods in their host's network, which no policy isolates"
    ]
