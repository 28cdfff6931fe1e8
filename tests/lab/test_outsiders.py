"""A host that is no node: a machine of the underlay, which calls the cluster from outside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from emunet.cluster.load import BadInput
from emunet.testing import Lab

ROOT = Path(__file__).parents[2]
TOPOLOGY = """
apiVersion: emunet/v1
kind: Topology
metadata: {name: lab}
spec:
  overlay: OVERLAY
  hosts: [host1, {name: laptop, HOST}]
---
apiVersion: v1
kind: Pod
metadata: {name: web-1}
spec: {PLACE containers: [{name: a, image: b}]}
"""


def topology(host: str = "node: false", place: str = "", overlay: str = "vxlan") -> str:
    return TOPOLOGY.replace("HOST", host).replace("PLACE", place).replace("OVERLAY", overlay)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(ROOT / "topologies/primer/outside.yaml") as lab:
        yield lab


@pytest.mark.parametrize("overlay", ["vxlan", "host-gw"])
def test_it_has_a_network_and_no_pods(overlay: str) -> None:
    with Lab(topology(overlay=overlay)) as lab:
        assert [item["metadata"]["name"] for item in lab.objects("nodes")] == ["host1"]
        assert lab.pod("web-1").host == "host1"
        laptop, host1 = lab.plane.world.config.hosts[1], lab.plane.world.config.hosts[0]
        assert [one.name for one in laptop.interfaces] == ["eth0"]
        assert [str(route.prefix) for route in laptop.routes] == ["192.168.9.0/24"]
        assert not [row for row in host1.routes if row.via == lab.address("laptop")]
        assert lab.ping("host1", "laptop").answered
        assert lab.explain("laptop", "web-1:80")[0].there["reason"] == "NO_ROUTE"
        lab.power("laptop", on=False)
        lab.clock.advance(600)
        assert lab.pod("web-1").host == "host1"
        assert not lab.ping("host1", "laptop").answered


def source_at_the_pod(lab: Lab, target: str, port: int) -> str:
    """Whom the pod sees when `outside` calls."""
    explained = lab.explain("outside", f"{target}:{port}")[0]
    assert explained, explained.as_text()
    sources = [line for line in explained.sentences if "translates it: source" in line]
    return sources[0].partition(" → ")[2].partition(":")[0] if sources else "outside"


def test_whom_the_pod_sees(lab: Lab) -> None:
    assert source_at_the_pod(lab, "192.168.9.11", 30080) == "192.168.9.11"
    assert source_at_the_pod(lab, "192.168.9.12", 30081) == "outside"
    refused = lab.explain("outside", "192.168.9.11:30081")[0]
    assert refused.there["reason"] == "SERVICE_NO_LOCAL"


def test_it_does_not_carry_out_services(lab: Lab) -> None:
    """A load balancer's address is a host's that answers for it, and a ClusterIP nobody's."""
    assert lab.explain("outside", "web:80")[0].there["reason"] == "NO_ROUTE"
    balanced = lab.explain("outside", "192.168.9.240:80")[0]
    assert balanced
    translating = [line.partition(" ")[0] for line in balanced.sentences if "translates" in line]
    assert "outside" not in translating
    assert translating


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (topology("node: false, podCIDR: 10.244.9.0/24"), "podCIDR belongs to a node"),
        (topology("node: false, labels: {a: b}"), "labels belongs to a node"),
        (topology("node: false, docker: {networks: [{name: a}]}"), "docker belongs to a node"),
        (topology(place="nodeName: laptop,"), "there is no host 'laptop'; the hosts are host1"),
        (topology().replace("[host1, ", "["), "expected a node at least"),
    ],
)
def test_what_it_cannot_have_is_said(text: str, sentence: str) -> None:
    with pytest.raises(BadInput) as error:
        Lab(text)
    assert sentence in str(error.value)
