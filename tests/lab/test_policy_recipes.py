"""The network policy recipes of others, as truth tables between all pods and ports.

The files are test data beside the project, read in place; without them these tests are skipped.
What each recipe is to do is written here by hand, from its own description.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from emunet.testing import Lab
from tests.lab.reach import reaches

RECIPES = Path(__file__).parents[3] / "shared" / "real" / "manifests" / "network-policy-recipes"

pytestmark = pytest.mark.skipif(not RECIPES.is_dir(), reason="the recipes of others are not beside this project")

PODS = {
    "web": "app: web",
    "foo": "app: foo",
    "api": "app: bookstore, role: api",
    "shop": "app: bookstore, role: frontend",
    "prod/client": "app: client",
    "prod/web": "app: web",
    "dev/client": "app: client",
    "kube-system/dns": "k8s-app: kube-dns",
}
PORTS = [("TCP", 80), ("TCP", 53), ("UDP", 53)]
TOPOLOGY = """
apiVersion: emunet/v1
kind: Topology
metadata: {name: recipes}
spec: {hosts: [host1, host2, host3]}
---
apiVersion: v1
kind: Namespace
metadata: {name: prod, labels: {purpose: production}}
---
apiVersion: v1
kind: Namespace
metadata: {name: dev, labels: {purpose: testing}}
"""
POD = """---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {space}, labels: {{{labels}}}}}
spec:
  nodeName: host{number}
  containers:
    - name: c
      image: i
      ports: [{{containerPort: 80}}, {{containerPort: 53}}, {{containerPort: 53, protocol: UDP}}]
"""
Allows = Callable[[str, str, str, int], bool]


def text() -> str:
    """The lab of all recipes: who is who, spread over three hosts."""
    pods = []
    for number, (name, labels) in enumerate(PODS.items()):
        space, _, short = name.rpartition("/")
        pods.append(POD.format(name=short, space=space or "default", labels=labels, number=number % 3 + 1))
    return TOPOLOGY + "".join(pods)


def into(target: str, *sources: str) -> Allows:
    """Only these reach a pod; all else is free."""
    return lambda source, to, protocol, port: to != target or source in sources


def dns_only(source: str, target: str, protocol: str, port: int) -> bool:
    """From foo only the name server, at its port."""
    return source != "foo" or (target == "kube-system/dns" and port == 53)


RULES: dict[str, Allows] = {
    "01-deny-all-traffic-to-an-application": into("web"),
    "02-limit-traffic-to-an-application": into("api", "shop"),
    "03-deny-all-non-whitelisted-traffic-in-the-namespace": lambda source, target, protocol, port: "/" in target,
    "06-allow-traffic-from-a-namespace": into("web", "prod/client", "prod/web"),
    "08-allow-external-traffic": lambda source, target, protocol, port: True,
    "11-deny-egress-traffic-from-an-application": lambda source, target, protocol, port: source != "foo",
    "11-deny-egress-traffic-from-an-application-2": dns_only,
}


@pytest.mark.parametrize(
    "recipe",
    [pytest.param(one, marks=pytest.mark.rule("NP-21", element="policy") if "egress" in one else ()) for one in RULES],
)
def test_recipe(recipe: str) -> None:
    """Every pod to every other, at every port, before, under and after the recipe."""
    with Lab(text()) as lab:
        pairs = [(source, target, *port) for source, target in itertools.permutations(PODS, 2) for port in PORTS]
        assert all(reaches(lab, *pair) for pair in pairs)
        lab.apply(RECIPES / f"{recipe}.yaml")
        table = {pair: reaches(lab, *pair) for pair in pairs}
        assert table == {pair: RULES[recipe](*pair) for pair in pairs}
        (policy,) = lab.objects("networkpolicies")
        lab.delete("networkpolicies", policy["metadata"]["name"])
        assert all(reaches(lab, *pair) for pair in pairs[::7])
        assert set(lab.plane.balance().values()) == {0}


def test_every_recipe_has_its_table() -> None:
    assert {path.stem for path in RECIPES.glob("*.yaml")} == set(RULES)
