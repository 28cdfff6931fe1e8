"""What clients may ask of the objects, and in which words they are refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from emunet.cluster import fields
from emunet.cluster.kinds import KINDS, Registry
from emunet.cluster.requests import Request, Rules
from emunet.cluster.status import StatusError
from emunet.cluster.store import HISTORY, Key, Store
from emunet.packet.address import Prefix

Object = dict[str, Any]

RULES = Rules((Prefix.parse("10.96.0.0/16"),), {"host1": "host"})


@pytest.fixture
def store() -> Store:
    """A store with the namespace `default`."""
    store = Store(seed=7)
    Request(store, 0, RULES).create(store.kind("namespaces"), {"metadata": {"name": "default"}})
    return store


def ask(store: Store, version: str = "", *, dry_run: bool = False, now: int = 0) -> Request:
    """A request whose fields are checked strictly."""
    return Request(store, now, RULES, version, "Strict", dry_run)


def pod(name: str = "web", **spec: Any) -> Object:
    """A sound pod."""
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "nginx"}], **spec}}


def deployment(**spec: Any) -> Object:
    """A sound Deployment."""
    template = {"metadata": {"labels": {"app": "web"}}, "spec": pod()["spec"]}
    selector = {"matchLabels": {"app": "web"}}
    return {"metadata": {"name": "web"}, "spec": {"selector": selector, "template": template, **spec}}


def changed(item: Object, path: str, value: Any) -> Object:
    """A copy with one value set."""
    copied = copy.deepcopy(item)
    where: Any = copied
    *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    for step in steps:
        where = where[step]
    where[last] = value
    return copied


# Kinds and fields


def test_every_row_of_the_registry_can_be_found_in_each_of_its_ways() -> None:
    registry = Registry()
    for kind in KINDS:
        assert registry.find(kind.plural) is not None
        assert not kind.type or kind.type in fields.types()
        for version in registry.versions(kind):
            assert registry.of(version, kind.name) is kind
            assert registry.at(version, kind.plural) is kind


def test_every_type_that_a_field_has_is_in_the_table() -> None:
    table = fields.types()
    known = table.keys() | fields.SCALARS
    assert {one.of for row in table.values() for one in row.values()} <= known


# What the cluster adds


def test_a_stored_object_has_what_the_cluster_adds(store: Store) -> None:
    made = ask(store, now=3_000_000_000).create(store.kind("pods"), pod())
    found = made["metadata"]
    assert found["creationTimestamp"] == "2026-01-01T00:00:03Z"
    assert found["generation"] == 1
    assert found["resourceVersion"] == str(store.version)
    assert len(found["uid"]) == 36
    assert made["spec"]["restartPolicy"] == "Always"
    assert made["status"]["phase"] == "Pending"
    assert made["apiVersion"] == "v1"


def test_uids_and_generated_names_come_from_the_seed() -> None:
    names = []
    for seed in (1, 1, 2):
        store = Store(seed)
        Request(store, 0, RULES).create(store.kind("namespaces"), {"metadata": {"name": "default"}})
        made = ask(store).create(store.kind("pods"), {"metadata": {"generateName": "web-"}, "spec": pod()["spec"]})
        names.append((made["metadata"]["name"], made["metadata"]["uid"]))
        assert made["metadata"]["name"].startswith("web-")
        assert len(made["metadata"]["name"]) == 9
    assert names[0] == names[1] != names[2]


def test_old_group_versions_are_ways_to_the_same_objects(store: Store) -> None:
    item = deployment()
    del item["spec"]["selector"]
    made = ask(store, "extensions/v1beta1").create(store.kind("deployments.apps"), item)
    assert made["apiVersion"] == "apps/v1"
    assert made["spec"]["selector"] == {"matchLabels": {"app": "web"}}
    with pytest.raises(StatusError, match=r"spec.selector: Required value"):
        ask(store, "apps/v1").create(store.kind("deployments.apps"), changed(item, "metadata.name", "two"))


def test_generation_grows_with_the_spec_only(store: Store) -> None:
    kind = store.kind("deployments.apps")
    ask(store).create(kind, deployment())
    labelled = ask(store).patch(kind, "default", "web", {"metadata": {"labels": {"a": "b"}}}, "merge")
    scaled = ask(store).patch(kind, "default", "web", {"spec": {"replicas": 3}}, "merge")
    assert (labelled["metadata"]["generation"], scaled["metadata"]["generation"]) == (1, 2)


def test_what_changes_nothing_uses_up_no_number(store: Store) -> None:
    kind = store.kind("deployments.apps")
    made = ask(store).create(kind, deployment())
    version = store.version
    assert ask(store).patch(kind, "default", "web", {"spec": {"replicas": 1}}, "merge") == made
    assert (
        ask(store, dry_run=True).patch(kind, "default", "web", {"spec": {"replicas": 9}}, "merge")["spec"]["replicas"]
        == 9
    )
    assert ask(store, dry_run=True).create(kind, changed(deployment(), "metadata.name", "two"))["kind"] == "Deployment"
    assert store.version == version
    assert store.get("deployments.apps", "default", "web") == made


# Refusals


@pytest.mark.parametrize(
    ("resource", "item", "code", "message"),
    [
        (
            "pods",
            changed(pod(), "spec.contaners", []),
            400,
            'strict decoding error: unknown field "spec.contaners"; did',
        ),
        (
            "pods",
            changed(pod(), "spec.containers.0.image", True),
            400,
            "cannot unmarshal bool into Go struct field Con",
        ),
        ("pods", {"metadata": {"name": "x"}, "spec": {}}, 422, 'Pod "x" is invalid: spec.containers: Required value'),
        (
            "pods",
            pod("Web"),
            422,
            'metadata.name: Invalid value: "Web": a lowercase RFC 1123 subdomain must consist of',
        ),
        ("pods", pod("host1"), 422, "this is the name of a host of the lab"),
        (
            "pods",
            changed(pod(), "spec.restartPolicy", "Sometimes"),
            422,
            'supported values: "Always", "Never", "OnFail',
        ),
        ("pods", changed(pod(), "metadata.namespace", "blue"), 404, 'namespaces "blue" not found'),
        ("pods", changed(pod(), "metadata.labels", {"a b": "c"}), 422, "metadata.labels: Invalid value"),
        (
            "deployments.apps",
            changed(deployment(), "spec.replicas", -1),
            422,
            "spec.replicas: Invalid value: -1: must be",
        ),
        ("services", {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 99999}]}}, 422, "must be between 1 and"),
        (
            "jobs.batch",
            {"metadata": {"name": "j"}, "spec": {"template": {"spec": pod()["spec"]}}},
            422,
            'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"',
        ),
        ("services", {"metadata": {"name": "1web"}, "spec": {"ports": [{"port": 9}]}}, 422, "a DNS-1035 label must"),
        (
            "configmaps",
            {"metadata": {"name": "a"}, "data": {"a": 5}},
            400,
            "cannot unmarshal number into Go struct field",
        ),
        (
            "networkpolicies.networking.k8s.io",
            {"metadata": {"name": "a"}, "spec": {"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/99"}}]}]}},
            422,
            "spec.ingress[0].from[0].ipBlock.cidr: Invalid value",
        ),
        (
            "deployments.apps",
            changed(deployment(), "spec.selector", None),
            422,
            "[spec.selector: Required value, spec.template.metadata.labels: Invalid value: map",
        ),
        (
            "pods",
            changed(pod(), "spec.containers.0.resources", {"limits": {"memory": "1Gi"}, "requests": {"memory": "2e9"}}),
            422,
            'resources.requests: Invalid value: "2e9": must be less than or equal to memory limit of 1Gi',
        ),
        (
            "services",
            {"metadata": {"name": "w"}, "spec": {"clusterIPs": ["x"], "ports": [{"port": 1}]}},
            422,
            "clusterIPs[0]",
        ),
        (
            "services",
            {"metadata": {"name": "w"}, "spec": {"clusterIP": "1.2.3.4", "ports": [{"port": 1}]}},
            422,
            'spec.clusterIPs: Invalid value: []string{"1.2.3.4"}: failed to allocate IP 1.2.3.4',
        ),
    ],
)
def test_a_fault_is_said_as_kubernetes_says_it_and_nothing_is_stored(
    store: Store, resource: str, item: Object, code: int, message: str
) -> None:
    version = store.version
    with pytest.raises(StatusError) as error:
        ask(store).create(store.kind(resource), item)
    assert error.value.code == code
    assert message in error.value.message
    assert store.version == version


@pytest.mark.rule("OBJ-05", element="validation")
@pytest.mark.parametrize("resource", ["deployments.apps", "replicationcontrollers"])
def test_a_selector_that_does_not_match_its_template_is_refused(store: Store, resource: str) -> None:
    item = deployment()
    other = {"app": "other"}
    item["spec"]["selector"] = other if resource == "replicationcontrollers" else {"matchLabels": other}
    with pytest.raises(StatusError, match="`selector` does not match template `labels`"):
        ask(store).create(store.kind(resource), item)


def test_optimistic_concurrency(store: Store) -> None:
    kind = store.kind("configmaps")
    first = ask(store).create(kind, {"metadata": {"name": "a"}, "data": {"n": "1"}})
    ask(store).update(kind, "default", "a", {**first, "data": {"n": "2"}})
    with pytest.raises(StatusError, match="the object has been modified") as error:
        ask(store).update(kind, "default", "a", {**first, "data": {"n": "3"}})
    assert (error.value.code, error.value.reason) == (409, "Conflict")
    unconditional = ask(store).update(kind, "default", "a", {"metadata": {"name": "a"}, "data": {"n": "4"}})
    assert unconditional["data"] == {"n": "4"}


def test_a_pods_spec_stays_as_it_is_but_for_its_image(store: Store) -> None:
    kind = store.kind("pods")
    made = ask(store).create(kind, pod())
    ask(store).update(kind, "default", "web", changed(made, "spec.containers.0.image", "nginx:2"))
    with pytest.raises(StatusError, match="pod updates may not change fields other than"):
        ask(store).update(kind, "default", "web", changed(made, "spec.hostname", "other"))
    bound = ask(store).patch(kind, "default", "web", {"spec": {"nodeName": "host1"}}, "merge")
    with pytest.raises(StatusError, match="pod updates may not change fields other than"):
        ask(store).update(kind, "default", "web", changed(bound, "spec.nodeName", "host2"))


def test_a_nodes_range_of_pods_stays_as_it_is(store: Store) -> None:
    kind = store.kind("nodes")
    ask(store).create(kind, {"metadata": {"name": "n"}, "spec": {"podCIDR": "10.244.1.0/24"}})
    with pytest.raises(StatusError, match="node updates may not change podCIDR"):
        ask(store).patch(kind, "", "n", {"spec": {"podCIDR": "10.1.0.0/24"}}, "merge")


# Services


@pytest.mark.rule("OBJ-07", element="reservations")
@pytest.mark.rule("OBJ-08", element="reservations")
def test_cluster_addresses(store: Store) -> None:
    """Dynamic ones are in the upper band; two Services never share one; one that was given is kept."""
    kind = store.kind("services")
    spec = {"ports": [{"port": 80}]}
    made = [ask(store).create(kind, {"metadata": {"name": f"s{n}"}, "spec": dict(spec)}) for n in range(50)]
    addresses = {one["spec"]["clusterIP"] for one in made}
    assert len(addresses) == 50
    assert all(int(one.split(".")[2]) >= 1 for one in addresses)
    with pytest.raises(StatusError, match="provided IP is already allocated"):
        ask(store).create(kind, {"metadata": {"name": "x"}, "spec": {**spec, "clusterIP": min(addresses)}})
    with pytest.raises(StatusError, match="not in the valid range"):
        ask(store).create(kind, {"metadata": {"name": "x"}, "spec": {**spec, "clusterIP": "10.1.1.1"}})
    with pytest.raises(StatusError, match="may not change once set"):
        ask(store).update(
            kind, "default", "s0", {"metadata": {"name": "s0"}, "spec": {**spec, "clusterIP": "10.96.0.9"}}
        )
    kept = ask(store).update(kind, "default", "s0", {"metadata": {"name": "s0"}, "spec": {"ports": [{"port": 81}]}})
    assert kept["spec"]["clusterIP"] == made[0]["spec"]["clusterIP"]


BOTH = Rules((Prefix.parse("10.96.0.0/16"), Prefix.parse("fd00:96::/108")))


@pytest.mark.parametrize(
    ("rules", "spec", "policy", "families"),
    [
        (RULES, {}, "SingleStack", ["IPv4"]),
        (RULES, {"clusterIP": "None"}, "RequireDualStack", ["IPv4", "IPv6"]),  # whoever writes its endpoints decides
        (RULES, {"clusterIP": "None", "selector": {"a": "b"}}, "SingleStack", ["IPv4"]),
        (RULES, {"ipFamilyPolicy": "PreferDualStack"}, "PreferDualStack", ["IPv4"]),
        (RULES, {"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6"]}, "PreferDualStack", ["IPv4"]),
        (BOTH, {}, "SingleStack", ["IPv4"]),
        (BOTH, {"ipFamilies": ["IPv6"]}, "SingleStack", ["IPv6"]),
        (BOTH, {"ipFamilies": ["IPv6", "IPv4"]}, "RequireDualStack", ["IPv6", "IPv4"]),
        (BOTH, {"clusterIP": "fd00:96::50"}, "SingleStack", ["IPv6"]),
        (BOTH, {"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6"]}, "PreferDualStack", ["IPv6", "IPv4"]),
        (BOTH, {"ipFamilyPolicy": "RequireDualStack", "clusterIP": "None", "selector": {"a": "b"}}, "RequireDualStack",
         ["IPv4", "IPv6"]),
        (BOTH, {"clusterIP": "None", "selector": {"a": "b"}, "ipFamilies": ["IPv6"]}, "SingleStack", ["IPv6"]),
    ],
)  # fmt: skip
def test_the_families_of_a_service(store: Store, rules: Rules, spec: Object, policy: str, families: list[str]) -> None:
    item = {"metadata": {"name": "web"}, "spec": {**spec, "ports": [{"port": 80}]}}
    made = Request(store, 0, rules, "", "Strict").create(store.kind("services"), item)["spec"]
    assert (made["ipFamilyPolicy"], made["ipFamilies"]) == (policy, families)
    if made["clusterIP"] != "None":
        assert ["IPv6" if ":" in one else "IPv4" for one in made["clusterIPs"]] == families
        assert made["clusterIP"] == spec.get("clusterIP", made["clusterIPs"][0])


def test_the_families_of_a_service_change(store: Store) -> None:
    """A second family is added to the first, and taken away again."""
    kind, wish = store.kind("services"), Request(store, 0, BOTH, "", "Strict")
    first = wish.create(kind, {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}})["spec"]["clusterIP"]
    both = wish.patch(kind, "default", "web", {"spec": {"ipFamilyPolicy": "RequireDualStack"}}, "merge")["spec"]
    assert (both["ipFamilies"], both["clusterIPs"][0], len(both["clusterIPs"])) == (["IPv4", "IPv6"], first, 2)
    one = wish.patch(kind, "default", "web", {"spec": {"ipFamilyPolicy": "SingleStack"}}, "merge")["spec"]
    assert (one["ipFamilies"], one["clusterIPs"]) == (["IPv4"], [first])


@pytest.mark.parametrize(
    ("rules", "spec", "message"),
    [
        (RULES, {"ipFamilies": ["IPv6"]}, r'ipFamilies\[0\]: Invalid value: "IPv6": not configured on this cluster'),
        (RULES, {"ipFamilyPolicy": "RequireDualStack"}, "this cluster is not configured for dual-stack services"),
        (BOTH, {"ipFamilies": ["IPv4", "IPv4"]}, r'ipFamilies\[1\]: Duplicate value: "IPv4"'),
        (BOTH, {"ipFamilies": ["IPX"]}, r'ipFamilies\[0\]: Unsupported value: "IPX": supported values: "IPv4", "IPv6"'),
        (BOTH, {"ipFamilyPolicy": "Both"}, r'ipFamilyPolicy: Unsupported value: "Both"'),
    ],
)
def test_families_that_a_service_cannot_have(store: Store, rules: Rules, spec: Object, message: str) -> None:
    item = {"metadata": {"name": "web"}, "spec": {**spec, "ports": [{"port": 80}]}}
    with pytest.raises(StatusError, match=message):
        Request(store, 0, rules, "", "Strict").create(store.kind("services"), item)


@pytest.mark.rule("OBJ-09", element="reservations")
def test_node_ports_are_taken_by_protocol(store: Store) -> None:
    kind = store.kind("services")

    def ports(protocol: str, number: int) -> Object:
        return {"type": "NodePort", "ports": [{"port": 80, "protocol": protocol, "nodePort": number}]}

    ask(store).create(kind, {"metadata": {"name": "a"}, "spec": ports("TCP", 30080)})
    ask(store).create(kind, {"metadata": {"name": "b"}, "spec": ports("UDP", 30080)})
    with pytest.raises(StatusError, match="provided port is already allocated"):
        ask(store).create(kind, {"metadata": {"name": "c"}, "spec": ports("TCP", 30080)})
    with pytest.raises(StatusError, match="30000-32767"):
        ask(store).create(kind, {"metadata": {"name": "c"}, "spec": ports("TCP", 80)})
    given = ask(store).create(kind, {"metadata": {"name": "d"}, "spec": {"type": "NodePort", "ports": [{"port": 1}]}})
    assert 30000 <= given["spec"]["ports"][0]["nodePort"] <= 32767


# Watching


def test_changes_since_a_number(store: Store) -> None:
    since = store.version
    kind = store.kind("configmaps")
    ask(store).create(kind, {"metadata": {"name": "a"}})
    ask(store).patch(kind, "default", "a", {"data": {"x": "y"}}, "merge")
    ask(store).delete(kind, "default", "a")
    changes = store.changes("configmaps", since)
    assert [change.verb for change in changes] == ["ADDED", "MODIFIED", "DELETED"]
    assert [change.version for change in changes] == sorted(change.version for change in changes)
    assert store.changes("configmaps", store.version) == []
    assert store.changes("secrets", 0) == []


def test_what_is_too_old_is_gone(store: Store) -> None:
    since = store.version
    kind = store.kind("configmaps")
    ask(store).create(kind, {"metadata": {"name": "a"}})
    key = Key("configmaps", "default", "a")
    for number in range(HISTORY + 1):
        item = store.at(key)
        assert item is not None
        store.replace({**item, "data": {"n": str(number)}}, 0)
    with pytest.raises(StatusError, match="too old resource version") as error:
        store.changes("configmaps", since)
    assert (error.value.code, error.value.reason) == (410, "Expired")
    assert len(store.changes("configmaps", store.version - 5)) == 5
