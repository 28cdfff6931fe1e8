"""Services in a whole lab: objects in, connections led, and what people read of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from emunet.fabric.sources import host_source
from emunet.lab.rerun import rerun
from emunet.packet import ipv4, tcp
from emunet.packet.address import Prefix, parse_ip
from emunet.testing import Lab

TOPOLOGY = Path(__file__).parents[2] / "topologies" / "services.yaml"
VIP, IDLE = "10.96.0.80", "10.96.0.81"


def serve(lab: Lab) -> None:
    """Every pod of `web` says its name on 8080."""
    for pod in lab.pods:
        if pod.labels.get("app") == "web":
            pod.serve(8080)


@pytest.fixture
def lab() -> Iterator[Lab]:
    """The shipped example, served; every frame is accounted for at the end."""
    with Lab(TOPOLOGY) as lab:
        serve(lab)
        yield lab
        assert set(lab.plane.balance().values()) == {0}


def names(lab: Lab, url: str, calls: int = 12, client: str = "client") -> set[str]:
    """Which pods answer that many calls."""
    answers = [lab.pod(client).get(url) for _ in range(calls)]
    assert all(answer.status == 200 for answer in answers), [answer.error for answer in answers]
    return {answer.body.decode().split()[0] for answer in answers}


def webs(lab: Lab) -> set[str]:
    """The pods of `web`."""
    return {pod.port for pod in lab.pods if pod.labels.get("app") == "web"}


def test_calls_are_answered_by_the_pods_behind(lab: Lab) -> None:
    assert names(lab, f"http://{VIP}/", 30) == webs(lab)
    assert names(lab, "http://host1:30080/", 30) == names(lab, "http://host2:30080/", 30) == webs(lab)
    assert str(lab.pod("client").get(f"http://{IDLE}/").error).startswith("connection refused")


def test_the_trace_names_the_service_and_the_pod(lab: Lab) -> None:
    client = parse_ip(lab.pod("client").ip)
    body = tcp.Tcp(1234, 80, 0, 0, tcp.SYN, 1000).pack(client, parse_ip(VIP), b"")
    text = lab.trace("client", ipv4.IPv4(client, parse_ip(VIP), ipv4.TCP).pack(body)).as_text()
    assert any(f"default/web:http -> {lab.pod(pod).ip}:8080 ({pod}), " in text for pod in webs(lab))
    assert " of 3" in text


@pytest.mark.rule("OBJ-18", element="services")
def test_a_service_comes_changes_and_goes_while_the_lab_runs(lab: Lab) -> None:
    late = "{apiVersion: v1, kind: Service, metadata: {name: late}, spec: {clusterIP: 10.96.0.82, SELECTOR}}"
    with_ports = late.replace("SELECTOR", "selector: {app: web}, ports: [{port: 81, targetPort: http}]") + "\n"
    lab.apply(with_ports)
    assert names(lab, "http://10.96.0.82:81/") <= webs(lab)
    lab.apply(with_ports.replace("port: 81", "port: 82"))
    assert names(lab, "http://10.96.0.82:82/") <= webs(lab)
    assert lab.pod("client").get("http://10.96.0.82:81/", timeout=2).status == 0
    lab.delete("service", "late")
    assert lab.pod("client").get("http://10.96.0.82:82/", timeout=2).status == 0


def test_scaling_is_seen_by_the_next_connection(lab: Lab) -> None:
    before = webs(lab)
    lab.scale("deployment", "web", 1)
    (kept,) = (
        {meta["metadata"]["name"] for meta in lab.objects("pods")}
        & before
        & {one["metadata"]["name"] for one in lab.objects("pods") if "deletionTimestamp" not in one["metadata"]}
    )
    assert names(lab, f"http://{VIP}/") == {kept}
    lab.scale("deployment", "web", 0)
    lab.clock.advance(31)
    assert lab.pod("client").get(f"http://{VIP}/").status == 0
    lab.scale("deployment", "web", 2)
    serve(lab)
    assert names(lab, f"http://{VIP}/", 20) == webs(lab)


def test_a_lab_without_services_tracks_nothing_until_there_is_one() -> None:
    plain = "apiVersion: emunet/v1\nkind: Topology\nmetadata: {name: lab}\nspec: {hosts: [host1], dns: false}\n---\n"
    pod = (
        "{apiVersion: v1, kind: Pod, metadata: {name: NAME, labels: {app: NAME}},\n"
        " spec: {containers: [{name: a, image: b}]}}\n"
    )
    with Lab(plain + pod.replace("NAME", "a") + "---\n" + pod.replace("NAME", "b")) as lab:
        assert lab.plane.world.config.hosts[0].connections is None
        lab.pod("b").serve(80)
        lab.apply(
            "{apiVersion: v1, kind: Service, metadata: {name: b},\n"
            " spec: {clusterIP: 10.96.0.9, selector: {app: b}, ports: [{port: 80}]}}\n"
        )
        assert names(lab, "http://10.96.0.9/", client="a") == {"b"}
        assert names(lab, "http://10.96.0.9/", client="b") == {"b"}, "to itself, by way of the bridge"
        lab.delete("service", "b")
        assert lab.plane.world.config.hosts[0].connections is None
        assert set(lab.plane.balance().values()) == {0}


def test_a_recording_has_the_services_in_it(tmp_path: Path) -> None:
    with Lab(TOPOLOGY) as lab, lab.record(tmp_path / "r.pcapng"):
        serve(lab)
        names(lab, f"http://{VIP}/", 5)
        lab.apply(
            "{apiVersion: v1, kind: Service, metadata: {name: late},\n"
            " spec: {clusterIP: 10.96.0.82, selector: {app: web}, ports: [{port: 81, targetPort: http}]}}\n"
        )
        names(lab, "http://10.96.0.82:81/", 5)
        lab.delete("service", "late")
        assert lab.pod("client").get("http://10.96.0.82:81/", timeout=2).status == 0
    assert rerun(tmp_path / "r.pcapng").same


@pytest.mark.rule("SVC-07", element="service-routes")
def test_a_node_reaches_services_by_the_route_that_it_has_for_them(lab: Lab) -> None:
    """Without any route the kernel would refuse (ENETUNREACH): OUTPUT comes after the first look-up."""
    host = lab.plane.world.config.hosts[0]
    assert host_source(host, parse_ip(VIP)) == ("eth0", parse_ip("192.168.9.11"))
    without = replace(
        host, routes=tuple(route for route in host.routes if route.prefix != Prefix.parse("10.96.0.0/16"))
    )
    assert host_source(without, parse_ip(VIP)) is None
