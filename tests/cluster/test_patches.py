"""The three kinds of patches, with the directives that kubectl really sends; and selectors."""

from __future__ import annotations

from typing import Any

import pytest

from emunet.cluster.moments import age, from_text, to_text
from emunet.cluster.patches import json_patch, merge_patch, strategic
from emunet.cluster.selectors import of_object, parse_fields, parse_labels

LIVE: dict[str, Any] = {
    "spec": {
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}},
        "template": {
            "spec": {
                "containers": [
                    {
                        "name": "c1",
                        "image": "nginx:1",
                        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                        "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    },
                    {"name": "c2", "image": "x"},
                ],
                "volumes": [{"name": "v1", "emptyDir": {}}],
            }
        },
    }
}

# As sent by kubectl 1.20 and 1.37 for an apply that dropped a variable, a port and a container, and changed a
# volume's type and the strategy.
PATCH: dict[str, Any] = {
    "spec": {
        "strategy": {"$retainKeys": ["type"], "type": "Recreate"},
        "template": {
            "spec": {
                "$setElementOrder/containers": [{"name": "c1"}],
                "containers": [
                    {
                        "name": "c1",
                        "image": "nginx:2",
                        "$setElementOrder/env": [{"name": "B"}],
                        "env": [{"name": "B", "value": "3"}, {"$patch": "delete", "name": "A"}],
                        "ports": [{"$patch": "delete", "containerPort": 80}],
                    },
                    {"$patch": "delete", "name": "c2"},
                ],
                "$setElementOrder/volumes": [{"name": "v1"}],
                "volumes": [
                    {
                        "$retainKeys": ["hostPath", "name"],
                        "emptyDir": None,
                        "hostPath": {"path": "/data/x"},
                        "name": "v1",
                    }
                ],
            }
        },
    }
}


def test_strategic_merge_as_kubectl_sends_it() -> None:
    merged = strategic(LIVE, PATCH, "Deployment")
    assert merged == {
        "spec": {
            "strategy": {"type": "Recreate"},
            "template": {
                "spec": {
                    "containers": [
                        {"name": "c1", "image": "nginx:2", "env": [{"name": "B", "value": "3"}], "ports": []}
                    ],
                    "volumes": [{"name": "v1", "hostPath": {"path": "/data/x"}}],
                }
            },
        }
    }
    assert strategic(merged, {"spec": {}}, "Deployment") == merged


def test_a_service_port_that_changes_its_number() -> None:
    live = {"spec": {"ports": [{"name": "http", "port": 80}]}}
    patch = {
        "spec": {
            "$setElementOrder/ports": [{"port": 8080}],
            "ports": [{"name": "http", "port": 8080}, {"$patch": "delete", "port": 80}],
        }
    }
    assert strategic(live, patch, "Service") == {"spec": {"ports": [{"name": "http", "port": 8080}]}}


@pytest.mark.parametrize(
    ("live", "patch", "merged"),
    [
        ({"metadata": {"finalizers": ["a"]}}, {"metadata": {"finalizers": ["b", "a"]}}, ["a", "b"]),
        ({"metadata": {"finalizers": ["a", "b"]}}, {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}, ["b"]),
    ],
)
def test_lists_that_are_sets(live: dict[str, Any], patch: dict[str, Any], merged: list[str]) -> None:
    assert strategic(live, patch, "Pod")["metadata"]["finalizers"] == merged


def test_an_apply_takes_nothing_away() -> None:
    patch = {"spec": {"strategy": {"$retainKeys": ["type"], "rollingUpdate": None}}}
    assert strategic(LIVE, patch, "Deployment", removes=False) == LIVE


# The examples of RFC 7386, appendix A.
@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch(target: Any, patch: Any, result: Any) -> None:
    assert merge_patch(target, patch) == result


@pytest.mark.parametrize(
    ("operations", "result"),
    [
        ([{"op": "add", "path": "/b", "value": 2}], {"a": [1, 2], "b": 2}),
        ([{"op": "add", "path": "/a/1", "value": 9}], {"a": [1, 9, 2]}),
        ([{"op": "add", "path": "/a/-", "value": 9}], {"a": [1, 2, 9]}),
        ([{"op": "remove", "path": "/a/0"}], {"a": [2]}),
        ([{"op": "replace", "path": "/a", "value": 0}], {"a": 0}),
        ([{"op": "move", "from": "/a/0", "path": "/b~1c"}], {"a": [2], "b/c": 1}),
        ([{"op": "copy", "from": "/a/0", "path": "/b"}], {"a": [1, 2], "b": 1}),
        ([{"op": "test", "path": "/a/0", "value": 1}], {"a": [1, 2]}),
    ],
)
def test_json_patch(operations: list[dict[str, Any]], result: Any) -> None:
    target = {"a": [1, 2]}
    assert json_patch(target, operations) == result
    assert target == {"a": [1, 2]}


@pytest.mark.parametrize(
    "operations",
    [
        {},
        [{"op": "remove", "path": "/x"}],
        [{"op": "replace", "path": "/a/7", "value": 1}],
        [{"op": "test", "path": "/a/0", "value": 3}],
        [{"op": "jump", "path": "/a"}],
        [{"op": "add", "path": "a"}],
    ],
)
def test_a_json_patch_that_cannot_be_applied(operations: Any) -> None:
    with pytest.raises(ValueError, match=r".+"):
        json_patch({"a": [1, 2]}, operations)


@pytest.mark.rule("OBJ-06", element="selectors")
@pytest.mark.parametrize(
    ("text", "yes", "no"),
    [
        ("app=web", {"app": "web"}, {}),
        ("app==web,tier!=back", {"app": "web"}, {"app": "web", "tier": "back"}),
        ("tier in (front, back)", {"tier": "back"}, {"tier": "db"}),
        ("tier notin (db)", {}, {"tier": "db"}),
        ("canary", {"canary": ""}, {}),
        ("!canary,app=a", {"app": "a"}, {"app": "a", "canary": "x"}),
    ],
)
def test_label_selectors(text: str, yes: dict[str, str], no: dict[str, str]) -> None:
    selector = parse_labels(text)
    assert selector.matches(yes)
    assert not selector.matches(no)


def test_selectors_of_objects_and_of_fields() -> None:
    expressions = [{"key": "a", "operator": "In", "values": ["1", "2"]}, {"key": "b", "operator": "DoesNotExist"}]
    selector = of_object({"matchLabels": {"c": "d"}, "matchExpressions": expressions})
    assert selector.matches({"a": "2", "c": "d"})
    assert not selector.matches({"a": "2", "b": "", "c": "d"})
    fields = parse_fields("metadata.name=web,status.phase!=Failed,involvedObject.namespace=")
    assert fields.matches({"metadata": {"name": "web"}, "status": {"phase": "Running"}})
    assert not fields.matches({"metadata": {"name": "web"}, "status": {"phase": "Failed"}})
    for wrong in ("a=b=(", "in (", "="):
        with pytest.raises(ValueError, match="unable to parse"):
            parse_labels(wrong)


def test_moments_and_ages() -> None:
    assert to_text(0) == "1970-01-01T00:00:00Z"
    assert to_text(from_text("2026-01-02T03:04:05Z")) == "2026-01-02T03:04:05Z"
    ages = {5: "5s", 119: "119s", 120: "2m", 125: "2m5s", 3599: "59m", 11000: "3h3m", 100000: "27h", 200000: "2d7h"}
    assert {seconds: age(seconds) for seconds in ages} == ages
