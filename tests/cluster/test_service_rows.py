"""From Service and EndpointSlice objects to the rows that hosts carry out; incremental is as from nothing."""

from __future__ import annotations

import random
from typing import Any

import pytest

from emunet.cluster import service_rows
from emunet.cluster.build import build
from emunet.cluster.control_plane import ControlPlane
from emunet.cluster.load import load_text
from emunet.cluster.service_rows import ServiceRows, joined
from emunet.cluster.store import Object, meta
from emunet.elements.connections.services import ServiceChange, difference
from emunet.fabric.config import Backend, ServicePort
from emunet.packet.address import Prefix, parse_ip

A, B, C = (parse_ip(text) for text in ("10.244.1.2", "10.244.1.3", "10.244.2.2"))


def service(
    name: str = "web", labels: dict[str, str] | None = None, status: Object | None = None, **spec: Any
) -> Object:
    """A stored Service of the default namespace."""
    spec = {"clusterIP": "10.96.0.50", "clusterIPs": ["10.96.0.50"], "ports": [{"port": 80, "protocol": "TCP"}]} | spec
    found = {"name": name, "namespace": "default", "labels": labels or {}}
    return {"kind": "Service", "metadata": found, "spec": spec, "status": status or {}}


def endpoint(address: str, name: str = "", node: str = "host1", **conditions: bool) -> Object:
    """One endpoint of a slice; conditions as the endpoint controller writes them."""
    conditions = {"ready": True, "serving": True, "terminating": False} | conditions
    found: Object = {"addresses": [address], "conditions": conditions, "nodeName": node}
    if name:
        found["targetRef"] = {"kind": "Pod", "namespace": "default", "name": name}
    return found


def slice_of(
    *endpoints: Object, ports: list[Object] | None = None, name: str = "web-a", family: str = "IPv4"
) -> Object:
    """An EndpointSlice."""
    return {
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": family,
        "endpoints": list(endpoints),
        "ports": ports or [{"name": "", "port": 8080, "protocol": "TCP"}],
    }


def test_a_service_and_its_endpoints() -> None:
    slices = [slice_of(endpoint("10.244.1.2", "web-1"), endpoint("10.244.2.2", "web-2", "host2"))]
    assert service_rows.rows_of(service(), slices) == (
        ServicePort(
            "default/web", 6, 80, parse_ip("10.96.0.50"),
            (Backend(A, 8080, "host1", "web-1"), Backend(C, 8080, "host2", "web-2")),
        ),
    )  # fmt: skip


def test_several_ports_and_named_target_ports() -> None:
    ports = [
        {"name": "http", "port": 80, "protocol": "TCP", "targetPort": "web"},
        {"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30053},
        {"name": "more", "port": 99, "protocol": "SCTP"},
    ]
    found = service_rows.rows_of(
        service(ports=ports),
        [
            slice_of(
                endpoint("10.244.1.2"),
                ports=[{"name": "http", "port": 8080}, {"name": "dns", "port": 5353, "protocol": "UDP"}],
            ),
            slice_of(endpoint("10.244.1.3"), ports=[{"name": "http", "port": 8081}], name="web-b"),
        ],
    )
    assert [(row.name, row.protocol, row.port, row.node_port) for row in found] == [
        ("default/web:http", 6, 80, 0),
        ("default/web:dns", 17, 53, 30053),
    ]
    assert [str(one) for one in found[0].backends] == ["10.244.1.2:8080", "10.244.1.3:8081"], "each by its own number"
    assert [str(one) for one in found[1].backends] == ["10.244.1.2:5353"]


@pytest.mark.rule("SVC-45", element="service-rows")
def test_one_row_for_each_family() -> None:
    found = service_rows.rows_of(
        service(clusterIPs=["10.96.0.50", "fd00:10:96::50"], externalIPs=["192.168.9.200", "fd00::1"]),
        [
            slice_of(endpoint("10.244.1.2")),
            slice_of(endpoint("fd00:10:244:1::2"), family="IPv6", name="web-6"),
        ],
    )
    assert [(row.key, str(row.backends[0])) for row in found] == [
        (("default/web", 4), "10.244.1.2:8080"),
        (("default/web", 16), "[fd00:10:244:1::2]:8080"),
    ]
    assert [row.external for row in found] == [(parse_ip("192.168.9.200"),), (parse_ip("fd00::1"),)]


@pytest.mark.rule("SVC-38", element="service-rows")
@pytest.mark.parametrize(
    "other",
    [
        {"clusterIP": "None", "clusterIPs": ["None"]},
        {"type": "ExternalName", "clusterIP": "", "clusterIPs": []},
        {"labels": {"service.kubernetes.io/service-proxy-name": "another"}},
        {"labels": {"service.kubernetes.io/headless": ""}},
    ],
)
def test_what_kube_proxy_does_not_look_at(other: dict[str, Any]) -> None:
    behind = [slice_of(endpoint("10.244.1.2"))]
    assert service_rows.rows_of(service(**other), behind) == ()
    assert [row.name for row in service_rows.rows_of(service(), behind)] == ["default/web"], "any other it does look at"


@pytest.mark.rule("OBJ-11", element="service-rows")
def test_which_endpoints_count() -> None:
    slices = [
        slice_of(
            endpoint("10.244.1.2"),
            endpoint("10.244.1.3", ready=False, terminating=True),
            endpoint("10.244.1.4", ready=False, serving=False, terminating=True),
            endpoint("10.244.1.5", ready=False, serving=False),
            endpoint("10.244.1.2"),
            {"addresses": ["10.244.1.6"]},
        )
    ]
    (row,) = service_rows.rows_of(service(), slices)
    assert [(str(one), one.ending) for one in row.backends] == [
        ("10.244.1.2:8080", False),
        ("10.244.1.3:8080", True),
        ("10.244.1.6:8080", False),
    ], "an endpoint that says nothing is ready; one that stands twice counts once"


@pytest.mark.rule("SVC-33", element="service-rows")
def test_the_fields_of_the_outside() -> None:
    ingress = [{"ip": "192.168.9.201"}, {"ip": "192.168.9.202", "ipMode": "Proxy"}, {"hostname": "lb.example"}]
    (row,) = service_rows.rows_of(
        service(
            status={"loadBalancer": {"ingress": ingress}},
            loadBalancerSourceRanges=["192.168.9.0/24", " 10.0.0.1 "],
            externalTrafficPolicy="Local",
            internalTrafficPolicy="Local",
            sessionAffinity="ClientIP",
        ),
        [],
    )
    assert row.balancers == (parse_ip("192.168.9.201"),)
    assert row.sources == (Prefix.parse("192.168.9.0/24"), Prefix.parse("10.0.0.1/32"))
    assert row.external_local
    assert row.internal_local
    assert row.affinity == 10800 * 10**9
    timed = service(sessionAffinity="ClientIP", sessionAffinityConfig={"clientIP": {"timeoutSeconds": 7}})
    assert service_rows.rows_of(timed, [])[0].affinity == 7 * 10**9


def plane(text: str = "") -> ControlPlane:
    """A control plane of two hosts with these objects."""
    topology = "apiVersion: emunet/v1\nkind: Topology\nmetadata: {name: lab}\nspec: {hosts: [host1, host2]}\n"
    made = ControlPlane(build(load_text(topology)).cluster)
    if text:
        made.apply(load_text(text), 0)
    made.settle(0)
    return made


SERVICE = "{apiVersion: v1, kind: Service, metadata: {name: NAME}, spec: {selector: {app: NAME}, ports: [{port: 80}]}}"


def test_the_apis_own_service_makes_no_row_alone() -> None:
    """Every cluster has `kubernetes`; a lab without other Services tracks no connections for its sake."""
    made = plane()
    assert made.services() == ()
    made.apply(load_text(SERVICE.replace("NAME", "web")), 0)
    assert [row.name for row in made.services()] == ["default/kubernetes:https", "default/web"]
    assert made.services() is made.services(), "the same object while nothing changes"


OPERATIONS = ("service", "slice", "unready", "drop slice", "drop service", "relabel")


@pytest.mark.parametrize("seed", range(20))
def test_incremental_is_as_from_nothing(seed: int) -> None:
    """Whatever is made, changed and deleted in whatever order: the rows are those of the objects that are there."""
    chance = random.Random(seed)
    made = plane()
    store = made.store
    seen: tuple[ServicePort, ...] = ()
    kept: dict[tuple[str, int], ServicePort] = {}
    for number in range(60):
        what = chance.choice(OPERATIONS)
        name = f"s{chance.randrange(4)}"
        there = store.get("services", "default", name)
        slices = list(store.items("endpointslices.discovery.k8s.io", "default"))
        if what == "service" and there is None:
            made.apply(load_text(SERVICE.replace("NAME", name).replace("selector: {app: " + name + "}, ", "")), 0)
        elif what == "slice":
            item = slice_of(endpoint(f"10.244.1.{number + 2}"), name=f"{name}-{number}")
            meta(item)["labels"] = {"kubernetes.io/service-name": name}
            store.insert({**item, "apiVersion": "discovery.k8s.io/v1"}, 0)
        elif what in ("unready", "relabel") and slices:
            old = chance.choice(slices)
            labels = {"kubernetes.io/service-name": name} if what == "relabel" else meta(old)["labels"]
            ends = [{**one, "conditions": {"ready": False}} for one in old["endpoints"]] if what == "unready" else None
            store.replace(
                {**old, "metadata": {**meta(old), "labels": labels}, "endpoints": ends or old["endpoints"]}, 0
            )
        elif what == "drop slice" and slices:
            store.remove(store.key(store.kind("endpointslices.discovery.k8s.io"), chance.choice(slices)))
        elif what == "drop service" and there is not None:
            store.remove(store.key(store.kind("services"), there))
        if chance.random() < 0.5:
            continue  # several changes at once
        rows = made.services()
        assert rows == from_nothing(made)
        change = difference(seen, rows)
        seen = rows
        for key in change.gone:
            del kept[key]
        kept |= {row.key: row for row in change.put}
        assert {row.key: row for row in rows} == kept


def from_nothing(made: ControlPlane) -> tuple[ServicePort, ...]:
    """All rows, each worked out anew."""
    slices = list(made.store.items("endpointslices.discovery.k8s.io"))
    found = {}
    for one in made.store.items("services"):
        name = meta(one)["name"]
        mine = [row for row in slices if meta(row)["labels"].get("kubernetes.io/service-name") == name]
        found[meta(one)["namespace"], name] = service_rows.rows_of(one, mine)
    return joined(found)


def test_a_change_of_one_service_is_one_row() -> None:
    """What travels to the data plane is what changed, and rows that did not are the very same objects."""
    made = plane("\n---\n".join(SERVICE.replace("NAME", f"s{number}") for number in range(50)))
    before = made.services()
    item = slice_of(endpoint("10.244.1.9"))
    meta(item)["labels"] = {"kubernetes.io/service-name": "s7"}
    made.store.insert({**item, "apiVersion": "discovery.k8s.io/v1", "ports": [{"name": "", "port": 80}]}, 0)
    after = made.services()
    change = difference(before, after)
    assert [row.name for row in change.put] == ["default/s7"]
    assert change.gone == ()
    assert sum(one is not other for one, other in zip(before, after, strict=True)) == 1
    assert not difference(after, after)
    assert difference(after, ()) == ServiceChange(gone=tuple(row.key for row in after))


def test_rows_need_the_whole_history_of_the_store() -> None:
    """`ServiceRows` listens from the beginning; what it never heard of is not there."""
    made = plane(SERVICE.replace("NAME", "web"))
    assert ServiceRows(made.store).rows() == ()
