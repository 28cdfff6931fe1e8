"""The NetworkPolicy cases of Kubernetes' own sig-network tests (test/e2e/network/netpol), restated by name.

Pods a, b and c of namespaces x, y and z, as there; who reaches whom is probed between real stacks at
the port that a case is about, for all pairs, and compared with the table that its name demands.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from emunet.testing import Lab
from tests.lab.reach import reaches
from tests.policy_worlds import NAMES, TEXT, labels, policy

Allows = Callable[[str, str], bool]
A = labels(pod="a")
NS_Y = {"namespaceSelector": labels(ns="y")}


class Cluster:
    """That cluster, with the verbs of the tests."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        for name in ("x", "y", "z"):
            self.label("namespaces", name, ns=name)

    def apply(self, *policies: dict[str, Any]) -> None:
        """Make policies, or change them."""
        self.lab.apply("\n---\n".join(json.dumps(one) for one in policies) + "\n")

    def label(self, kind: str, name: str, **marks: str | None) -> None:
        """Set labels of an object; None takes one away."""
        space, _, short = name.rpartition("/")
        request = self.lab.control.request(self.lab.clock.now)
        patch = {"metadata": {"labels": marks}}
        request.patch(self.lab.control.find(kind), space, short, patch, "merge")
        self.lab.settle()

    def expect(self, allows: Allows, *, port: int = 80, protocol: str = "TCP") -> None:
        """The table of all pairs."""
        found = {
            (source, target): reaches(self.lab, source, target, protocol, port)
            for source in NAMES
            for target in NAMES
            if source != target
        }
        assert found == {pair: allows(*pair) for pair in found}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Lab(TEXT) as lab:
        yield Cluster(lab)
        assert set(lab.plane.balance().values()) == {0}


def to_xa(*sources: str) -> Allows:
    """x/a is reached by these only; all else is free."""
    return lambda source, target: target != "x/a" or source in sources


def everything(source: str, target: str) -> bool:
    """No policy stops anything."""
    return True


IN_Y = ("y/a", "y/b", "y/c")
IN_Z = ("z/a", "z/b", "z/c")


def test_should_support_a_default_deny_ingress_policy(cluster: Cluster) -> None:
    cluster.apply(policy("deny-ingress"))
    cluster.expect(lambda source, target: target[0] != "x")


def test_should_support_a_default_deny_all_policy(cluster: Cluster) -> None:
    cluster.apply(policy("deny-all", policyTypes=["Ingress", "Egress"]))
    cluster.expect(lambda source, target: "x" not in (source[0], target[0]))


def test_should_enforce_policy_to_allow_traffic_from_pods_within_server_namespace_based_on_podselector(
    cluster: Cluster,
) -> None:
    cluster.apply(policy("allow-b", podSelector=A, ingress=[{"from": [{"podSelector": labels(pod="b")}]}]))
    cluster.expect(to_xa("x/b"))


def test_should_enforce_policy_to_allow_ingress_traffic_for_a_target(cluster: Cluster) -> None:
    cluster.apply(policy("deny-all"), policy("allow-y", podSelector=A, ingress=[{"from": [NS_Y]}]))
    cluster.expect(lambda source, target: target[0] != "x" or (target == "x/a" and source in IN_Y))


def test_should_enforce_policy_to_allow_ingress_traffic_from_pods_in_all_namespaces(cluster: Cluster) -> None:
    cluster.apply(policy("allow-from-all", podSelector=A, ingress=[{"from": [{"namespaceSelector": {}}]}]))
    cluster.expect(everything)


def test_should_enforce_policy_to_allow_traffic_only_from_a_different_namespace_based_on_namespaceselector(
    cluster: Cluster,
) -> None:
    cluster.apply(policy("allow-y", podSelector=A, ingress=[{"from": [NS_Y]}]))
    cluster.expect(to_xa(*IN_Y))


def test_should_enforce_policy_based_on_podselector_with_matchexpressions(cluster: Cluster) -> None:
    peer = {"podSelector": {"matchExpressions": [{"key": "pod", "operator": "In", "values": ["b"]}]}}
    cluster.apply(policy("allow-b", podSelector=A, ingress=[{"from": [peer]}]))
    cluster.expect(to_xa("x/b"))


def test_should_enforce_policy_based_on_namespaceselector_with_matchexpressions(cluster: Cluster) -> None:
    peer = {"namespaceSelector": {"matchExpressions": [{"key": "ns", "operator": "In", "values": ["y"]}]}}
    cluster.apply(policy("allow-y", podSelector=A, ingress=[{"from": [peer]}]))
    cluster.expect(to_xa(*IN_Y))


def test_should_enforce_policy_based_on_namespaceselector_by_the_default_name_label(cluster: Cluster) -> None:
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "y"}}}
    cluster.apply(policy("allow-y", podSelector=A, ingress=[{"from": [peer]}]))
    cluster.expect(to_xa(*IN_Y))


def test_should_enforce_policy_based_on_podselector_or_namespaceselector(cluster: Cluster) -> None:
    peers = [{"namespaceSelector": {"matchExpressions": [{"key": "ns", "operator": "NotIn", "values": ["x"]}]}},
             {"podSelector": labels(pod="b")}]  # fmt: skip
    cluster.apply(policy("either", podSelector=A, ingress=[{"from": peers}]))
    cluster.expect(to_xa("x/b", *IN_Y, *IN_Z))


def test_should_enforce_policy_based_on_podselector_and_namespaceselector(cluster: Cluster) -> None:
    not_x = {"matchExpressions": [{"key": "ns", "operator": "NotIn", "values": ["x"]}]}
    peer = {"namespaceSelector": not_x, "podSelector": labels(pod="b")}
    cluster.apply(policy("both", podSelector=A, ingress=[{"from": [peer]}]))
    cluster.expect(to_xa("y/b", "z/b"))


def test_should_enforce_policy_based_on_multiple_podselectors_and_namespaceselectors(cluster: Cluster) -> None:
    spaces = {"matchExpressions": [{"key": "ns", "operator": "In", "values": ["y", "z"]}]}
    pods = {"matchExpressions": [{"key": "pod", "operator": "In", "values": ["b", "c"]}]}
    peer = {"namespaceSelector": spaces, "podSelector": pods}
    cluster.apply(policy("several", podSelector=A, ingress=[{"from": [peer]}]))
    cluster.expect(to_xa("y/b", "y/c", "z/b", "z/c"))


def test_should_enforce_policy_based_on_any_podselectors(cluster: Cluster) -> None:
    cluster.apply(policy("any", podSelector=A, ingress=[{"from": [{"podSelector": labels(pod="b")},
                                                                  {"podSelector": labels(pod="c")}]}]))  # fmt: skip
    cluster.expect(to_xa("x/b", "x/c"))


def test_should_enforce_policy_based_on_ports(cluster: Cluster) -> None:
    cluster.apply(policy("port-81", podSelector=A, ingress=[{"from": [NS_Y], "ports": [{"port": 81}]}]))
    cluster.expect(to_xa(*IN_Y), port=81)
    cluster.expect(to_xa())


def test_should_enforce_multiple_stacked_policies_with_overlapping_podselectors(cluster: Cluster) -> None:
    cluster.apply(policy("port-81", podSelector=A, ingress=[{"from": [NS_Y], "ports": [{"port": 81}]}]))
    cluster.apply(policy("port-80", podSelector=A, ingress=[{"from": [NS_Y], "ports": [{"port": 80}]}]))
    cluster.expect(to_xa(*IN_Y), port=81)
    cluster.expect(to_xa(*IN_Y), port=80)


def test_should_support_allow_all_policy(cluster: Cluster) -> None:
    cluster.apply(policy("allow-all", ingress=[{}]))
    cluster.expect(everything)
    cluster.expect(everything, port=81)


def test_should_allow_ingress_access_on_one_named_port(cluster: Cluster) -> None:
    cluster.apply(policy("named", podSelector=A, ingress=[{"ports": [{"port": "serve-81-tcp"}]}]))
    cluster.expect(everything, port=81)
    cluster.expect(to_xa())


def test_should_allow_ingress_access_from_namespace_on_one_named_port(cluster: Cluster) -> None:
    rule = {"from": [NS_Y], "ports": [{"port": "serve-80-tcp"}]}
    cluster.apply(policy("named", podSelector=A, ingress=[rule]))
    cluster.expect(to_xa(*IN_Y))
    cluster.expect(to_xa(), port=81)


def test_should_allow_egress_access_on_one_named_port(cluster: Cluster) -> None:
    rule = {"ports": [{"port": "serve-80-tcp"}]}
    cluster.apply(policy("named", podSelector=A, policyTypes=["Egress"], egress=[rule]))
    cluster.expect(everything)
    cluster.expect(lambda source, target: source != "x/a", port=81)


def test_should_enforce_updated_policy(cluster: Cluster) -> None:
    cluster.apply(policy("changing", ingress=[{}]))
    cluster.expect(everything)
    cluster.apply(policy("changing"))
    cluster.expect(lambda source, target: target[0] != "x")


def test_should_allow_ingress_access_from_updated_namespace(cluster: Cluster) -> None:
    cluster.apply(policy("ns2", podSelector=A, ingress=[{"from": [{"namespaceSelector": labels(ns2="updated")}]}]))
    cluster.expect(to_xa())
    cluster.label("namespaces", "y", ns2="updated")
    cluster.expect(to_xa(*IN_Y))
    cluster.label("namespaces", "y", ns2=None)
    cluster.expect(to_xa())


def test_should_allow_ingress_access_from_updated_pod(cluster: Cluster) -> None:
    cluster.apply(policy("pod2", podSelector=A, ingress=[{"from": [{"podSelector": labels(pod2="updated")}]}]))
    cluster.expect(to_xa())
    cluster.label("pods", "x/b", pod2="updated")
    cluster.expect(to_xa("x/b"))


def test_should_deny_ingress_from_pods_on_other_namespaces(cluster: Cluster) -> None:
    cluster.apply(policy("own", ingress=[{"from": [{"podSelector": {}}]}]))
    cluster.expect(lambda source, target: target[0] != "x" or source[0] == "x")


def test_should_deny_ingress_access_to_updated_pod(cluster: Cluster) -> None:
    cluster.apply(policy("deny-target", podSelector=labels(target="isolated")))
    cluster.expect(everything)
    cluster.label("pods", "x/a", target="isolated")
    cluster.expect(to_xa())


def test_should_deny_egress_from_pods_based_on_podselector(cluster: Cluster) -> None:
    cluster.apply(policy("deny-egress", podSelector=A, policyTypes=["Egress"]))
    cluster.expect(lambda source, target: source != "x/a")


def test_should_deny_egress_from_all_pods_in_a_namespace(cluster: Cluster) -> None:
    cluster.apply(policy("deny-egress", policyTypes=["Egress"]))
    cluster.expect(lambda source, target: source[0] != "x")


def test_should_work_with_ingress_egress_specified_together(cluster: Cluster) -> None:
    cluster.apply(policy("together", podSelector=A, policyTypes=["Ingress", "Egress"], ingress=[{"from": [NS_Y]}],
                         egress=[{"ports": [{"port": 80}]}]))  # fmt: skip
    cluster.expect(to_xa(*IN_Y))
    cluster.expect(lambda source, target: source != "x/a" and to_xa(*IN_Y)(source, target), port=81)


def test_should_support_denying_of_egress_traffic_on_the_client_side_even_if_the_server_explicitly_allows_it(
    cluster: Cluster,
) -> None:
    out = policy("out", podSelector=A, policyTypes=["Egress"], egress=[{"to": [NS_Y], "ports": [{"port": 80}]}])
    cluster.apply(out, policy("allow-all", "y", ingress=[{}]))
    cluster.expect(lambda source, target: source != "x/a" or target in IN_Y)
    cluster.expect(lambda source, target: source != "x/a", port=81)


def test_should_enforce_egress_policy_allowing_traffic_to_a_server_in_a_different_namespace(cluster: Cluster) -> None:
    peer = {"namespaceSelector": labels(ns="y"), "podSelector": labels(pod="a")}
    cluster.apply(policy("to-ya", podSelector=A, policyTypes=["Egress"], egress=[{"to": [peer]}]))
    cluster.expect(lambda source, target: source != "x/a" or target == "y/a")


def test_should_enforce_ingress_policy_allowing_any_port_traffic_to_a_server_on_a_specific_protocol(
    cluster: Cluster,
) -> None:
    cluster.apply(policy("tcp", podSelector=A, ingress=[{"ports": [{"protocol": "TCP"}]}]))
    cluster.expect(everything)
    cluster.expect(everything, port=81)
    cluster.expect(to_xa(), protocol="UDP")


def test_should_enforce_multiple_ingress_policies_with_ingress_allow_all_taking_precedence(cluster: Cluster) -> None:
    cluster.apply(policy("deny-all", ingress=[{"ports": [{"port": 80}]}]))
    cluster.expect(lambda source, target: target[0] != "x", port=81)
    cluster.apply(policy("allow-all", ingress=[{}]))
    cluster.expect(everything, port=81)


def test_should_enforce_multiple_egress_policies_with_egress_allow_all_taking_precedence(cluster: Cluster) -> None:
    cluster.apply(policy("some", policyTypes=["Egress"], egress=[{"ports": [{"port": 80}]}]))
    cluster.expect(lambda source, target: source[0] != "x", port=81)
    cluster.apply(policy("allow-all", policyTypes=["Egress"], egress=[{}]))
    cluster.expect(everything, port=81)


def test_should_stop_enforcing_policies_after_they_are_deleted(cluster: Cluster) -> None:
    cluster.apply(policy("deny-all", policyTypes=["Ingress", "Egress"]), policy("allow-all-in", ingress=[{}]))
    cluster.expect(lambda source, target: source[0] != "x")
    cluster.lab.delete("networkpolicies", "allow-all-in", "x")
    cluster.expect(lambda source, target: "x" not in (source[0], target[0]))
    cluster.lab.delete("networkpolicies", "deny-all", "x")
    cluster.expect(everything)


def block(cluster: Cluster, name: str, bits: int = 32) -> str:
    """The address of a pod as a network."""
    address = cluster.lab.pod(name).ip
    return f"{address}/32" if bits == 32 else f"{address.rpartition('.')[0]}.0/{bits}"


def test_should_allow_egress_access_to_server_in_cidr_block(cluster: Cluster) -> None:
    rule = {"to": [{"ipBlock": {"cidr": block(cluster, "y/b")}}]}
    cluster.apply(policy("cidr", podSelector=A, policyTypes=["Egress"], egress=[rule]))
    cluster.expect(lambda source, target: source != "x/a" or target == "y/b")


def test_should_enforce_except_clause_while_egress_access_to_server_in_cidr_block(cluster: Cluster) -> None:
    rule = {"to": [{"ipBlock": {"cidr": block(cluster, "x/b", 24), "except": [block(cluster, "x/b")]}}]}
    cluster.apply(policy("except", podSelector=A, policyTypes=["Egress"], egress=[rule]))
    on_host1 = {name for name in NAMES if name[-1] in "ab"}
    cluster.expect(lambda source, target: source != "x/a" or (target in on_host1 and target != "x/b"))


def test_should_ensure_an_ip_overlapping_both_ipblock_cidr_and_ipblock_except_is_allowed(cluster: Cluster) -> None:
    excepted = {"to": [{"ipBlock": {"cidr": block(cluster, "x/b", 24), "except": [block(cluster, "x/b")]}}]}
    again = {"to": [{"ipBlock": {"cidr": block(cluster, "x/b")}}]}
    cluster.apply(policy("except", podSelector=A, policyTypes=["Egress"], egress=[excepted]))
    assert not reaches(cluster.lab, "x/a", "x/b", "TCP", 80)
    cluster.apply(policy("overlap", podSelector=A, policyTypes=["Egress"], egress=[again]))
    assert reaches(cluster.lab, "x/a", "x/b", "TCP", 80)


def test_should_enforce_policies_to_check_ingress_and_egress_policies_can_be_controlled_independently(
    cluster: Cluster,
) -> None:
    cluster.apply(policy("in", podSelector=A, ingress=[{"from": [{"podSelector": labels(pod="b")}]}]))
    cluster.apply(
        policy("out", podSelector=A, policyTypes=["Egress"], egress=[{"to": [{"podSelector": labels(pod="b")}]}])
    )
    within: Allows = lambda source, target: source != "x/a" or target == "x/b"  # noqa: E731
    cluster.expect(lambda source, target: within(source, target) and to_xa("x/b")(source, target))
    cluster.lab.delete("networkpolicies", "in", "x")
    cluster.expect(within)
    cluster.lab.delete("networkpolicies", "out", "x")
    cluster.expect(everything)


@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
def test_should_not_allow_access_by_tcp_when_a_policy_specifies_only_sctp(cluster: Cluster, protocol: str) -> None:
    cluster.apply(policy("sctp", podSelector=A, ingress=[{"ports": [{"port": 81, "protocol": "SCTP"}]}]))
    cluster.expect(to_xa(), port=81, protocol=protocol)


def test_should_not_allow_access_by_tcp_when_a_policy_specifies_only_udp(cluster: Cluster) -> None:
    cluster.apply(policy("udp", podSelector=A, ingress=[{"ports": [{"port": 81, "protocol": "UDP"}]}]))
    cluster.expect(to_xa(), port=81)
    cluster.expect(everything, port=81, protocol="UDP")


def test_should_enforce_policy_to_allow_traffic_based_on_a_port_range(cluster: Cluster) -> None:
    cluster.apply(policy("range", podSelector=A, ingress=[{"ports": [{"port": 81, "endPort": 90}]}]))
    cluster.expect(everything, port=81)
    cluster.expect(to_xa(), port=80)
