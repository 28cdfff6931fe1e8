"""A thousand Services of ten endpoints cost a connection what one costs, and a change of one stops no frame.

The figures are printed (`pytest -s`): what is asserted leaves room for a machine that does other things too.
"""

from __future__ import annotations

import pickle
import time
from dataclasses import replace
from statistics import median

import pytest

from emunet.cluster.store import Object, meta
from emunet.daemon.plane_client import parts_of
from emunet.elements.connections import Backend, ServicePort
from emunet.elements.connections.services import difference
from emunet.testing import Lab
from tests.elements.service_worlds import P1A, UDP, Services
from tests.worlds import datagram

SERVICES, ENDPOINTS = 1000, 10


def rows(number: int) -> tuple[ServicePort, ...]:
    """That many Services, each with ten backends and a NodePort."""
    return tuple(
        ServicePort(
            f"default/s{one}", UDP, 80, bytes((10, 96, 1 + one // 250, one % 250)),
            tuple(Backend(bytes((10, 244, 2, 2 + end)), 8080, "n2", f"s{one}-{end}") for end in range(ENDPOINTS)),
            node_port=30000 + one,
        )
        for one in range(number)
    )  # fmt: skip


def first_packets(net: Services, count: int) -> list[float]:
    """What first packets of connections to a Service take, in seconds."""
    frames = [net.frame("p1a", datagram(P1A, bytes((10, 96, 1, 0)), 2000 + one, 80, b"x")) for one in range(count)]
    taken = []
    for frame in frames:
        began = time.thread_time()
        net.world.receive(net["p1a"], frame, net.world.now)
        taken.append(time.thread_time() - began)
    return taken


@pytest.mark.slow
def test_a_first_packet_costs_the_same_with_a_thousand_services() -> None:
    """In turns, so that both meet the same machine; the law allows twice, a look-up needs no more than once."""
    one, many = Services(), Services()
    one.serve(*rows(1))
    many.serve(*rows(SERVICES))
    taken: dict[str, list[float]] = {"one": [], "many": []}
    first_packets(one, 50)
    first_packets(many, 50)
    for _ in range(10):
        taken["one"] += first_packets(one, 100)
        taken["many"] += first_packets(many, 100)
    few, lots = median(taken["one"]), median(taken["many"])
    print(f"\nfirst packet: {few * 1e6:.0f} us with one Service, {lots * 1e6:.0f} us with {SERVICES}")
    assert lots < 2 * few


@pytest.mark.slow
def test_a_change_stops_the_data_plane_for_less_than_a_millisecond() -> None:
    """What the plane does for the parts of a change: each is taken in between two rounds of frames."""
    net = Services()
    before = rows(SERVICES)
    net.serve(*before)
    for sport in range(1000):
        net.world.receive(net["p1a"], net.frame("p1a", datagram(P1A, before[7].cluster_ip, sport + 1, 80, b"x")), 0)
    changes = {
        "one endpoint goes": (*before[:7], _without_first(before[7]), *before[8:]),
        "a host goes: every Service changes": tuple(_without_first(row) for row in before),
        "all Services go": (),
    }
    longest: dict[str, float] = {}
    for what, after in changes.items():
        began = time.thread_time()
        change = difference(net.world.config.services, after)
        compared = time.thread_time() - began
        pieces = [pickle.dumps(part) for part in parts_of(change)]
        steps = []
        for piece in pieces:
            began = time.thread_time()
            net.world.serving.change(pickle.loads(piece))
            steps.append(time.thread_time() - began)
        longest[what] = median(steps) if len(steps) > 3 else min(steps)
        print(
            f"\n{what}: compared in {compared * 1e3:.2f} ms, {len(pieces)} parts of {median(steps) * 1e3:.2f} ms"
            f" (longest {max(steps) * 1e3:.2f} ms)"
        )
    assert all(seconds < 0.001 for seconds in longest.values()), longest


def _without_first(row: ServicePort) -> ServicePort:
    return replace(row, backends=row.backends[1:])


@pytest.mark.slow
def test_an_endpoint_change_takes_effect_within_a_hundred_milliseconds() -> None:
    """From the write of a slice to the frame that meets it, with a thousand Services in the store."""
    topology = "apiVersion: emunet/v1\nkind: Topology\nmetadata: {name: lab}\nspec: {hosts: [host1, host2]}\n"
    pod = "---\n{apiVersion: v1, kind: Pod, metadata: {name: client}, spec: {containers: [{name: a, image: b}]}}\n"
    with Lab(topology + pod) as lab:
        store = lab.store
        for one in range(SERVICES):
            address = f"10.96.{1 + one // 250}.{one % 250}"
            spec = {"clusterIP": address, "clusterIPs": [address], "ports": [{"port": 80, "protocol": "TCP"}]}
            metadata = {"name": f"s{one}", "namespace": "default"}
            store.insert({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}, 0)
            store.insert(slice_of(f"s{one}", range(ENDPOINTS)), 0)
        lab.settle()
        assert len(lab.plane.world.config.services) > SERVICES
        taken = []
        for number in range(10):
            old = store.get("endpointslices.discovery.k8s.io", "default", "s7-x")
            assert old is not None
            new = slice_of("s7", range(number % 2, ENDPOINTS))
            began = time.thread_time()
            store.replace({**new, "metadata": meta(old)}, 0)
            lab.settle()
            taken.append(time.thread_time() - began)
            wanted = ENDPOINTS - number % 2
            element = lab.plane.world.devices["host1"].elements["connections"]
            row = next(row for row in element.services.rows() if row.name == "default/s7")  # type: ignore[attr-defined]
            assert len(row.backends) == wanted
        print(
            f"\nan endpoint change is in effect after {median(taken) * 1e3:.1f} ms (longest {max(taken) * 1e3:.1f} ms)"
        )
        assert median(taken) < 0.1


def slice_of(service: str, ends: range) -> Object:
    """A slice with these endpoints."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{service}-x",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "endpoints": [
            {"addresses": [f"10.244.2.{2 + end}"], "conditions": {"ready": True}, "nodeName": "host2"} for end in ends
        ],
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
    }
