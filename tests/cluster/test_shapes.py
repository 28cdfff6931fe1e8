"""Objects under group versions in which they look different: taken in, kept, shown again."""

from __future__ import annotations

from typing import Any

import pytest

from emunet.cluster.build import build
from emunet.cluster.control_plane import ControlPlane
from emunet.cluster.load import load_text
from emunet.cluster.shapes import field_of_event, kept, shown

TOPOLOGY = "apiVersion: emunet/v1\nkind: Topology\nmetadata: {name: lab}\nspec: {hosts: [host1]}\n"

PATH = {"path": "/", "backend": {"serviceName": "web", "servicePort": 80}}
NEW_PATH = {"path": "/", "pathType": "ImplementationSpecific",
            "backend": {"service": {"name": "web", "port": {"number": 80}}}}  # fmt: skip

ROWS: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    (
        "Event", "events.k8s.io/v1",
        {"regarding": {"name": "a"}, "note": "hi", "reportingController": "me", "deprecatedCount": 2, "reason": "R"},
        {"involvedObject": {"name": "a"}, "message": "hi", "reportingComponent": "me", "count": 2, "reason": "R"},
    ),
    (
        "HorizontalPodAutoscaler", "autoscaling/v1",
        {"spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 50}},
        {"spec": {"maxReplicas": 3, "metrics": [{"type": "Resource", "resource": {
            "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}]}},
    ),
    (
        "Ingress", "extensions/v1beta1",
        {"spec": {"backend": {"serviceName": "all", "servicePort": "http"},
                  "rules": [{"host": "a.b", "http": {"paths": [PATH | {"pathType": "ImplementationSpecific"}]}}]}},
        {"spec": {"defaultBackend": {"service": {"name": "all", "port": {"name": "http"}}},
                  "rules": [{"host": "a.b", "http": {"paths": [NEW_PATH]}}]}},
    ),
    (
        "EndpointSlice", "discovery.k8s.io/v1beta1",
        {"endpoints": [{"addresses": ["10.0.0.1"], "nodeName": "h", "topology": {"kubernetes.io/hostname": "h"}}]},
        {"endpoints": [{"addresses": ["10.0.0.1"], "nodeName": "h"}]},
    ),
    ("Pod", "v1", {"spec": {}}, {"spec": {}}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "version", "theirs", "ours"), ROWS)
def test_an_object_of_a_version_is_kept_in_one_shape_and_shown_as_it_came(
    kind: str, version: str, theirs: dict[str, Any], ours: dict[str, Any]
) -> None:
    assert kept(kind, version, theirs) == ours
    assert shown(kind, version, ours) == theirs


def test_what_a_new_path_says_is_not_made_up_for_an_old_one() -> None:
    old = {"spec": {"rules": [{"http": {"paths": [PATH]}}]}}
    assert kept("Ingress", "networking.k8s.io/v1beta1", old) == {"spec": {"rules": [{"http": {"paths": [NEW_PATH]}}]}}
    for odd in ({"spec": None}, {"spec": {"rules": None}}, {"spec": {"rules": [3, {"http": {"paths": ["x"]}}]}}):
        assert kept("Ingress", "extensions/v1beta1", odd)["spec"] == odd["spec"], "what is wrong is said elsewhere"


def test_a_selector_may_name_either_groups_fields() -> None:
    assert field_of_event("regarding.name") == "involvedObject.name"
    assert field_of_event("reportingController") == "reportingComponent"
    assert field_of_event("reason") == "reason"


def test_an_old_version_is_patched_as_its_client_sees_it() -> None:
    plane = ControlPlane(build(load_text(TOPOLOGY)).cluster)
    kind, version = plane.find("hpa"), "autoscaling/v1"
    target = {"kind": "Deployment", "name": "web", "apiVersion": "apps/v1"}
    spec = {"maxReplicas": 3, "scaleTargetRef": target, "targetCPUUtilizationPercentage": 50}
    plane.request(0, version).create(kind, {"metadata": {"name": "web"}, "spec": spec})
    change = {"spec": {"targetCPUUtilizationPercentage": 70}}
    item = plane.request(0, version).patch(kind, "default", "web", change, "merge")
    assert item["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] == 70
    assert item["apiVersion"] == "autoscaling/v2"
