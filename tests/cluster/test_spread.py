"""How evenly pods are placed: constraints as values, then as the scheduler keeps them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import yaml

from emunet.cluster.build import build
from emunet.cluster.control_plane import ControlPlane
from emunet.cluster.controllers.spread import BEST, SKEWED, UNLABELLED, Place, obstacle_of, worths
from emunet.cluster.load import BadInput, load_text

Object = dict[str, Any]

TOPOLOGY = """apiVersion: emunet/v1
kind: Topology
metadata: {name: lab}
spec:
  dns: false
  hosts:
    - {name: host1, labels: {zone: east}}
    - {name: host2, labels: {zone: east}}
    - {name: host3, labels: {zone: west}}
    - {name: host4}
"""
WEB = {"labels": {"app": "web"}}
ZONE = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": WEB["labels"]}}  # fmt: skip
HOST = {**ZONE, "topologyKey": "kubernetes.io/hostname"}


def place(zone: str, webs: int, **more: Any) -> Place:
    """A node of a zone with some pods of the kind on it, and one of another kind."""
    pods: list[Object] = [{"metadata": WEB}] * webs + [{"metadata": {"labels": {"app": "db"}}}]
    return Place({"zone": zone} if zone else {}, pods, **more)


@pytest.mark.parametrize(
    ("places", "more", "east", "west"),
    [
        ([place("east", 1), place("west", 0)], {}, SKEWED, None),
        ([place("east", 1), place("west", 1)], {}, None, None),
        ([place("east", 1), place("east", 1), place("west", 1)], {}, SKEWED, None),
        ([place("east", 1), place("west", 0)], {"maxSkew": 2}, None, None),
        # Nodes without the key, or that the pod cannot choose, are no domain; tainted ones are until it is said.
        ([place("east", 1), place("", 0)], {}, None, None),
        ([place("east", 1), place("west", 0, chosen=False)], {}, None, None),
        ([place("east", 1), place("west", 0, chosen=False)], {"nodeAffinityPolicy": "Ignore"}, SKEWED, None),
        ([place("east", 1), place("west", 0, borne=False)], {}, SKEWED, None),
        ([place("east", 1), place("west", 0, borne=False)], {"nodeTaintsPolicy": "Honor"}, None, None),
        # Fewer domains than there must be: the fewest are none.
        ([place("east", 1), place("west", 1)], {"minDomains": 3}, SKEWED, SKEWED),
        # It counts others only: where it is none of them it may join the fullest.
        ([place("east", 1), place("west", 0)], {"labelSelector": {"matchLabels": {"app": "db"}}}, None, None),
        ([place("east", 9), place("west", 0)], {"labelSelector": None}, None, None),
        ([place("east", 1), place("west", 0)], {"matchLabelKeys": ["version"]}, None, None),
        ([place("east", 1), place("west", 0)], {"matchLabelKeys": ["none"]}, SKEWED, None),
    ],
)
def test_which_domain_may_have_one_more(places: list[Place], more: Object, east: str | None, west: str | None) -> None:
    constraint = {key: value for key, value in {**ZONE, **more}.items() if value is not None}
    pod = {"metadata": {"labels": {"app": "web", "version": "2"}}}
    obstacle = obstacle_of({"topologySpreadConstraints": [constraint]}, pod, places)
    assert (obstacle({"zone": "east"}), obstacle({"zone": "west"}), obstacle({})) == (east, west, UNLABELLED)


def test_a_preference_goes_to_the_emptiest_domain_and_never_to_a_node_without_one() -> None:
    spec = {"topologySpreadConstraints": [{**ZONE, "whenUnsatisfiable": "ScheduleAnyway"}]}
    nodes = [{"zone": "east"}, {"zone": "west"}, {}]
    assert worths(spec, {"metadata": WEB}, [place("east", 3), place("west", 1)], nodes) == [33, BEST, 0]
    assert worths(spec, {"metadata": WEB}, [place("east", 0), place("west", 0)], nodes) == [BEST, BEST, 0]
    assert worths({}, {"metadata": WEB}, [], nodes) == [BEST] * 3


class Cluster:
    """Four hosts in two zones, the last in none."""

    def __init__(self) -> None:
        self.plane = ControlPlane(build(load_text(TOPOLOGY)).cluster)

    def deploy(self, replicas: int, *constraints: Object, **spec: Any) -> None:
        """A ReplicaSet of pods that are to be spread so."""
        container = {"name": "c", "image": "x"}
        template = {"metadata": WEB, "spec": {"topologySpreadConstraints": list(constraints),
                                              "containers": [container], **spec}}  # fmt: skip
        wanted = {"replicas": replicas, "selector": {"matchLabels": WEB["labels"]}, "template": template}
        item = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "web"}, "spec": wanted}
        self.plane.apply(load_text(yaml.safe_dump(item)), 0)
        self.plane.settle(0)

    def hosts(self) -> dict[str | None, int]:
        """How many pods each host has; None has those that wait."""
        return dict(Counter(pod["spec"].get("nodeName") for pod in self.plane.store.items("pods")))

    def label(self, node: str, **labels: str) -> None:
        """Label a node."""
        change = {"metadata": {"labels": labels}}
        self.plane.request(0).patch(self.plane.find("node"), "", node, change, "strategic")
        self.plane.settle(0)


def test_pods_are_spread_over_zones_and_wait_where_they_cannot_be() -> None:
    cluster = Cluster()
    cluster.deploy(4, ZONE)
    assert cluster.hosts() == {"host1": 1, "host2": 1, "host3": 2}
    cluster.plane.request(0).delete(cluster.plane.find("node"), "", "host3")
    cluster.deploy(5, ZONE)
    assert cluster.hosts().get(None) is None, "one zone alone is even"
    cluster.label("host4", zone="south")
    cluster.deploy(9, ZONE, {**HOST, "maxSkew": 2})
    assert cluster.hosts()["host4"] >= 3


def test_what_waits_for_its_turn_is_placed_when_another_moves() -> None:
    cluster = Cluster()
    cluster.label("host3", full="yes")
    taint = {"spec": {"taints": [{"key": "full", "effect": "NoSchedule"}]}}
    cluster.plane.request(0).patch(cluster.plane.find("node"), "", "host3", taint, "strategic")
    cluster.deploy(3, ZONE)
    assert cluster.hosts() == {"host1": 1, None: 2}
    (waiting,) = {
        pod["status"]["conditions"][0]["message"]
        for pod in cluster.plane.store.items("pods")
        if "nodeName" not in pod["spec"]
    }
    assert waiting == (
        f"0/4 nodes are available: 2 {SKEWED}, 1 {UNLABELLED}, 1 node(s) had untolerated taint {{full: }}."
    )
    by_hand = {"metadata": {"name": "hand", **WEB}, "spec": {"nodeName": "host3",
               "containers": [{"name": "c", "image": "x"}]}}  # fmt: skip
    cluster.plane.request(0).create(cluster.plane.find("pod"), by_hand)
    cluster.plane.settle(0)
    assert cluster.hosts() == {"host1": 1, "host2": 1, "host3": 1}, "one by hand, which the set has taken as its own"


def test_a_pod_of_a_topologys_file_that_minds_where_others_are_is_left_to_the_scheduler() -> None:
    """Others of a file are placed as it is read, before anything is there."""
    cluster = Cluster()
    text = "".join(
        f"---\n{yaml.safe_dump({'apiVersion': 'v1', 'kind': 'Pod', 'metadata': {'name': name, **WEB}, 'spec': spec})}"
        for name in ("a", "b", "c")
        for spec in [{"containers": [{"name": "c", "image": "x"}], "topologySpreadConstraints": [ZONE]}]
    )
    cluster.plane.apply(load_text(text), 0, {("default", name): "host1" for name in ("a", "b", "c")})
    cluster.plane.settle(0)
    assert sorted(cluster.hosts().items(), key=str) == [("host1", 1), ("host2", 1), ("host3", 1)]


def test_a_soft_constraint_prefers_and_never_forbids() -> None:
    cluster = Cluster()
    cluster.deploy(4, {**ZONE, "whenUnsatisfiable": "ScheduleAnyway"}, nodeSelector={"kubernetes.io/os": "linux"})
    assert cluster.hosts() == {"host1": 1, "host2": 1, "host3": 2}
    for host in ("host1", "host2", "host3"):
        cluster.plane.request(0).delete(cluster.plane.find("node"), "", host)
    cluster.deploy(6, {**ZONE, "whenUnsatisfiable": "ScheduleAnyway"})
    assert None not in cluster.hosts()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"maxSkew": 0}, "maxSkew: Invalid value: 0: must be greater than zero"),
        ({"topologyKey": ""}, "topologyKey: Required value: can not be empty"),
        ({"whenUnsatisfiable": "Perhaps"}, 'Unsupported value: "Perhaps": supported values: "DoNotSchedule"'),
        ({"minDomains": 2, "whenUnsatisfiable": "ScheduleAnyway"}, "can only use minDomains if whenUnsatisfiable="),
        ({"nodeTaintsPolicy": "x"}, 'nodeTaintsPolicy: Unsupported value: "x"'),
    ],
)
def test_what_a_constraint_may_not_say(change: Object, words: str) -> None:
    with pytest.raises(BadInput, match="topologySpreadConstraints") as refused:
        Cluster().deploy(1, {**ZONE, **change})
    assert words in str(refused.value)
    with pytest.raises(BadInput, match="Duplicate value"):
        Cluster().deploy(1, ZONE, ZONE)
