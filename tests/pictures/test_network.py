"""The network as a picture: what is above what, what is said of cables and hosts, and the same picture every time."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emunet.daemon.port_facts import ports_of
from emunet.lab.lab import Lab
from emunet.pictures.network import Cable, Machine, Network, network
from emunet.pictures.network_svg import network_svg
from emunet.pictures.network_text import length, network_lines
from emunet.pictures.services import services

ROOT = Path(__file__).parent.parent.parent
TOPOLOGIES = sorted((ROOT / "topologies").rglob("*.yaml"))


def drawn(path: Path, **more: object) -> Network:
    """What `emunet draw FILE` draws."""
    with Lab(path) as lab:
        ports = [asdict(port) for port in ports_of(lab.plane.world.config)]
        shown = services(lab.objects("services"), lab.objects("endpointslices"))
        return network(path.stem, "", ports, lab.plane.trouble.wires(), services=shown, **more)  # type: ignore[arg-type]


def said(picture: Network, width: int = 200) -> str:
    return "\n".join("".join(text for text, _ in line) for line in network_lines(picture, width))


def words(svg: str) -> list[str]:
    """All text of an SVG, which is well-formed."""
    return [node.text or "" for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("path", TOPOLOGIES, ids=lambda path: path.stem)
def test_every_topology_is_drawn_whole(path: Path) -> None:
    with Lab(path) as lab:
        names = {machine.name for machine in (*lab.desired.cluster.hosts, *lab.desired.cluster.switches)}
        addresses = {pod.port: pod.ips for pod in lab.pods}
    picture = drawn(path)
    led_to = {address for one in picture.services for address, _ in one.ways}
    led_to |= {address for one in picture.services for pod in one.behind for address in pod.addresses}
    for shown in (words(network_svg(picture)), said(picture).split(), said(picture, 40).split()):
        assert names | addresses.keys() <= set(shown)
        assert {address for row in addresses.values() for address in row} <= set(shown)
        assert all(address in " ".join(shown) for address in led_to)


def test_a_tree_has_its_middle_on_top_and_the_hosts_below() -> None:
    (tree,) = drawn(ROOT / "topologies/leaf-spine.yaml").trees()
    assert tree.machine.name == "spine1"
    assert [one.machine.name for one in tree.below] == ["leaf1", "leaf2"]
    assert [one.machine.name for leaf in tree.below for one in leaf.below] == ["host1", "host2", "host3", "host4"]


def test_pods_hang_on_the_bridge_whose_network_they_are_in() -> None:
    host1 = drawn(ROOT / "topologies/two-hosts.yaml").machines[0]
    assert [(one.name, [pod.name for pod in one.pods]) for one in host1.bridges] == [("cni0", ["web-1", "web-2"])]
    assert host1.pods == ()
    routed = drawn(ROOT / "topologies/routed-pods.yaml").machines[0]
    assert routed.bridges == ()
    assert [pod.name for pod in routed.pods] == ["web-1", "web-2"]
    assert [one.name for one in routed.interfaces] == ["eth0"]


def test_containers_of_each_kind_have_their_place() -> None:
    ways = {"in_hosts": [("host1", "shared")], "alone": [("host1", "alone")], "guests": {"web-1": ["helper"]}}
    picture = drawn(ROOT / "topologies/two-hosts.yaml", **ways)
    host1, host2 = (machine for machine in picture.machines if machine.is_host)
    assert [(said, [pod.name for pod in pods]) for said, pods in host1.groups] == [
        ("in the host's own network", ["shared"]), ("without a network", ["alone"]),
    ]  # fmt: skip
    assert host2.groups == ()
    assert {"web-1 + helper", "shared", "without a network", "alone"} <= set(words(network_svg(picture)))
    assert "web-1 + helper  10.244.1.2" in said(picture)


def test_cables_say_what_goes_wrong_on_them_by_direction() -> None:
    with Lab(ROOT / "topologies/two-hosts.yaml") as lab:
        lab.link("host1--switch1", delay="20ms", loss="1%")
        lab.link("host2--switch1", loss="3%", source="host2")
        lab.link("host2--switch1", up=False)
        ports = [asdict(port) for port in ports_of(lab.plane.world.config)]
        picture = network("x", "", ports, lab.plane.trouble.wires(), off=["host1"], troubled={"web-3": "frozen"})
    one, other = picture.cables
    assert one.labels == ("delay 20ms, loss 1%",)
    assert other.labels == ("down", "host2 → switch1: loss 3%")
    for shown in (words(network_svg(picture)), said(picture), said(picture, 40)):
        for what in (*one.labels, *other.labels, "no power", "frozen"):
            assert what in shown


def test_two_hosts_on_one_cable_stand_side_by_side() -> None:
    picture = Network("x", "", (Machine("a", True), Machine("b", True)), (Cable("a--b", "a", "b"),))
    (tree,) = picture.trees()
    assert [one.machine.name for one in tree.walk()] == ["a", "b"]
    assert {"a", "b"} <= set(words(network_svg(picture)))


def test_many_pods_are_counted_instead_of_drawn() -> None:
    ports = [{"kind": "host", "device": "h", "name": "h:cni0", "addresses": ["10.0.0.1/16"], "mtu": 1500}]
    ports += [
        {"kind": "pod", "device": "h", "name": f"p{number}", "addresses": [f"10.0.1.{number}/16"], "mtu": 1500}
        for number in range(1, 101)
    ]
    picture = network("x", "", ports, [])
    assert "and 76 more" in words(network_svg(picture))
    assert "and 76 more" in said(picture)


@pytest.mark.parametrize("width", [80, 100, 132, 200])
@pytest.mark.parametrize("path", TOPOLOGIES, ids=lambda path: path.stem)
def test_the_terminal_s_picture_keeps_to_its_width(path: Path, width: int) -> None:
    assert max(length(line) for line in network_lines(drawn(path), width)) <= width


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 5), st.data())
def test_any_tree_is_drawn_without_two_machines_at_one_place(hosts: int, switches: int, data: st.DataObject) -> None:
    """Boxes of machines do not overlap, whatever the tree."""
    names = [f"s{number}" for number in range(switches)]
    cables = [Cable(f"c{n}", names[n], names[data.draw(st.integers(0, n - 1))]) for n in range(1, switches)]
    machines = [Machine(name, False) for name in names]
    for number in range(hosts):
        machines.append(Machine(f"h{number}", True))
        cables.append(Cable(f"d{number}", f"h{number}", data.draw(st.sampled_from(names))))
    picture = Network("x", "", tuple(machines), tuple(cables))
    svg = network_svg(picture)
    boxes = []
    for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}rect"):
        if node.get("x") is not None and node.get("stroke") is not None:
            boxes.append(tuple(float(node.get(name, "0")) for name in ("x", "y", "width", "height")))
    assert len(boxes) == len(machines)
    for at, (x, y, wide, high) in enumerate(boxes):
        for x2, y2, wide2, high2 in boxes[at + 1 :]:
            apart = x + wide <= x2 or x2 + wide2 <= x or y + high <= y2 or y2 + high2 <= y
            assert apart, svg
    assert {machine.name for machine in machines} <= set(re.split(r"[\s│]+", said(picture)))


def test_the_same_picture_under_every_hash_seed(tmp_path: Path) -> None:
    made = []
    for seed in ("1", "2"):
        file = tmp_path / f"{seed}.svg"
        command = [sys.executable, "-m", "emunet", "draw", str(ROOT / "topologies/leaf-spine.yaml"), "-w", str(file)]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True)
        made.append(file.read_bytes())
    assert made[0] == made[1]
