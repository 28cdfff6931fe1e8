"""What holds for every cluster: one input, one result; nobody renumbered; nothing twice; plans that end.

A cluster is drawn as plain objects, written as YAML (JSON is YAML), and goes the whole
way: load, build, assign, compile, plan.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from emunet.cluster.assign import Allocation, assign
from emunet.cluster.build import build
from emunet.cluster.compile import compile as compile_world
from emunet.cluster.desired import Desired
from emunet.cluster.load import BadInput, load_text
from emunet.cluster.plan import State, after, plan, target
from emunet.fabric.config import WorldConfig
from emunet.packet.address import InterfaceAddress

ROOT = Path(__file__).parent.parent.parent

Objects = list[dict[str, Any]]

V4, V6 = "10.244.0.0/16", "fd00:10:244::/48"


@st.composite
def topologies(draw: st.DrawFn) -> dict[str, Any]:
    """Up to five hosts on a tree of up to three switches, either overlay, one family or both."""
    hosts = draw(st.lists(st.sampled_from([f"host{n}" for n in range(1, 13)]), min_size=1, max_size=5, unique=True))
    spec: dict[str, Any] = {
        "hosts": hosts,
        "overlay": draw(st.sampled_from(["vxlan", "host-gw"])),
        "podCIDRs": draw(st.sampled_from([[V4], [V6], [V4, V6], [V6, V4]])),
    }
    if draw(st.booleans()):
        switches = [f"switch{n}" for n in range(1, draw(st.integers(1, 3)) + 1)]
        tree = [f"{draw(st.sampled_from(switches[:n]))} -- {switches[n]}" for n in range(1, len(switches))]
        leaves = [f"{draw(st.sampled_from(switches))} -- {host}" for host in hosts]
        spec |= {"switches": switches, "links": draw(st.permutations(tree + leaves))}
    return {"apiVersion": "emunet/v1", "kind": "Topology", "metadata": {"name": "lab"}, "spec": spec}


@st.composite
def pods(draw: st.DrawFn, hosts: list[str]) -> Objects:
    """Up to twelve pods: some on a host of their choice, some in its network, some with a MAC of their own."""
    keys = st.tuples(st.sampled_from(["default", "blue"]), st.integers(1, 12))
    found = []
    for namespace, number in draw(st.lists(keys, max_size=12, unique=True)):
        spec: dict[str, Any] = {"containers": [{"name": "main", "image": "busybox"}]}
        metadata: dict[str, Any] = {"name": f"web-{number}", "namespace": namespace}
        choice = draw(st.integers(0, 5))
        if choice == 0:
            spec["nodeName"] = draw(st.sampled_from(hosts))
        elif choice == 1:
            spec["hostNetwork"] = True
        elif choice == 2:
            group = 1 if namespace == "blue" else 0
            metadata["annotations"] = {"emunet/mac": f"02:00:00:00:{group:02x}:{number:02x}"}
        found.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    return found


@st.composite
def clusters(draw: st.DrawFn) -> Objects:
    """A topology and pods for it."""
    topology = draw(topologies())
    return [topology, *draw(pods(topology["spec"]["hosts"]))]


def read(objects: Objects, previous: Desired | None = None) -> Desired:
    """The objects by way of text."""
    return build(load_text("\n---\n".join(map(json.dumps, objects))), previous)


def compiled(objects: Objects, seed: int = 0) -> WorldConfig:
    """The whole way from nothing."""
    desired = read(objects)
    return compile_world(desired, assign(desired, seed=seed), seed)


def addresses_in(world: WorldConfig) -> list[bytes]:
    """Every address of every interface and pod."""
    given: list[InterfaceAddress] = [a for host in world.hosts for i in host.interfaces for a in i.addresses]
    return [a.address for a in [*given, *(a for pod in world.pods for a in pod.addresses)]]


def macs_in(world: WorldConfig) -> list[bytes]:
    """Every MAC of every interface and pod."""
    return [i.mac for host in world.hosts for i in host.interfaces] + [pod.mac for pod in world.pods]


def twice(things: list[Any]) -> list[Any]:
    """What is there more than once."""
    return [thing for thing, count in Counter(things).items() if count > 1]


@given(clusters(), st.randoms(use_true_random=False), st.integers(0, 3))
def test_one_input_is_one_world_in_whatever_order_it_comes(objects: Objects, random: Any, seed: int) -> None:
    shuffled = list(objects)
    random.shuffle(shuffled)
    world = compiled(objects, seed)
    assert compiled(objects, seed) == world
    assert compiled(shuffled, seed) == world
    assert hash(world) == hash(compiled(shuffled, seed))


@given(clusters())
def test_nothing_is_there_twice(objects: Objects) -> None:
    world = compiled(objects)
    assert twice(addresses_in(world)) == []
    assert twice(macs_in(world)) == []
    edges = [edge.name for edge in world.pods] + [edge.name for edge in world.host_edges]
    devices = [host.name for host in world.hosts] + [switch.name for switch in world.switches]
    assert twice([*edges, *devices, *(wire.name for wire in world.wires)]) == []
    ends = [end for wire in world.wires for end in (wire.a, wire.b)]
    assert twice(ends) == []


@given(clusters())
def test_everything_that_is_named_is_there(objects: Objects) -> None:
    world = compiled(objects)
    ports = {(host.name, port.name) for host in world.hosts for port in host.ports}
    ports |= {(switch.name, port.name) for switch in world.switches for port in switch.ports}
    ends = [end for wire in world.wires for end in (wire.a, wire.b)]
    assert ports == {*ends, *((pod.device, pod.name) for pod in world.pods)}
    by_address = {a.address: h.name for h in world.hosts for i in h.interfaces for a in i.addresses}
    for host in world.hosts:
        interfaces = {interface.name: interface for interface in host.interfaces}
        assert {edge.interface for edge in world.host_edges if edge.device == host.name} == set(interfaces)
        for route in host.routes:
            assert route.interface in interfaces
            assert route.via is None or by_address[route.via] != host.name
        for bridge in host.bridges:
            assert bridge.interface in interfaces
            assert set(bridge.ports) == {pod.name for pod in world.pods if pod.device == host.name}
        for vxlan in host.vxlans:
            remote = {mac: by_address[outer] for mac, outer in vxlan.remotes}
            assert {n.mac: by_address[n.address] for n in host.neighbors} == remote
            assert set(remote.values()) == {other.name for other in world.hosts} - {host.name}
    for pod in world.pods:
        (cni0,) = (i for h in world.hosts if h.name == pod.device for i in h.interfaces if i.name == "cni0")
        assert set(pod.gateways) == {address.address for address in cni0.addresses}
        for address, gateway in zip(pod.addresses, pod.gateways, strict=True):
            assert address.prefix.contains(gateway)
            assert address.address not in (gateway, address.prefix.address, address.prefix.broadcast)
        assert pod.mtu == cni0.mtu


@given(st.data())
def test_a_life_of_a_cluster_renumbers_nobody_and_every_plan_ends(data: st.DataObject) -> None:
    topology = data.draw(topologies())
    desired: Desired | None = None
    allocation = Allocation()
    state = State()
    for _ in range(data.draw(st.integers(1, 5))):
        objects = data.draw(pods(topology["spec"]["hosts"]))
        before = {pod.port: pod for pod in allocation.pods}
        hosts = {} if desired is None else {pod.port: pod.host for pod in desired.pods}
        desired = read([topology, *objects], desired)
        allocation = assign(desired, allocation)
        for pod in desired.pods:
            if pod.port in before and not pod.host_network and pod.host == hosts[pod.port]:
                assert allocation.pod(pod.port).addresses == before[pod.port].addresses
                assert pod.mac is not None or allocation.pod(pod.port).mac == before[pod.port].mac
        wanted = target(desired, allocation)
        assert twice(addresses_in(wanted.world)) == []
        assert twice(macs_in(wanted.world)) == []
        state = after(state, plan(state, wanted))
        assert plan(state, wanted) == []
        assert state.world == wanted.world
        assert (set(state.pods), set(state.hosts)) == (set(wanted.pods), set(wanted.hosts))


@given(clusters(), st.data())
def test_hosts_come_and_go_without_renumbering_the_rest(objects: Objects, data: st.DataObject) -> None:
    topology = objects[0]
    first = read([topology])
    names = [f"host{n}" for n in range(1, 13)]
    spec = {key: topology["spec"][key] for key in ("overlay", "podCIDRs")}
    spec["hosts"] = data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=6, unique=True))
    second = read([{**topology, "spec": spec}], first)
    kept = {host.name: host for host in first.cluster.hosts}
    for host in second.cluster.hosts:
        assert kept.get(host.name, host) == host


@given(clusters(), st.data())
def test_a_spoilt_object_is_a_problem_with_a_place_or_no_problem(objects: Objects, data: st.DataObject) -> None:
    """Any value put anywhere gives BadInput or a cluster, never another exception."""
    spoilt = json.loads(json.dumps(objects))
    node: Any = spoilt
    while isinstance(node, dict | list) and node:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(node[key], dict | list) or not node[key] or data.draw(st.integers(0, 3)) == 0:
            values = st.sampled_from(
                [None, True, -1, 10**30, 0.5, "", "x", "10.0.0.0/8", "fd00::/8", [], {}, ["x"], {"a": 1}]
            )
            node[key] = data.draw(values)
            break
        node = node[key]
    try:
        world = compiled(spoilt)
    except BadInput as error:
        assert error.problems  # noqa: PT017 - both outcomes are right
    else:
        assert twice(addresses_in(world)) == []


def test_the_hash_seed_of_python_changes_nothing() -> None:
    script = """
import sys
from emunet.cluster.assign import assign
from emunet.cluster.compile import compile
from emunet.cluster.build import build
from emunet.cluster.load import load_files
from emunet.cluster.plan import State, plan, target
desired = build(load_files(sys.argv[1:]))
allocation = assign(desired, seed=5)
print(compile(desired, allocation, 5), plan(State(), target(desired, allocation, 5)))
"""
    said = set()
    for seed in ("1", "2"):
        command = [sys.executable, "-c", script, str(ROOT / "topologies" / "dual-stack.yaml")]
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
        said.add(done.stdout)
    assert len(said) == 1
    assert "web-1" in said.pop()
