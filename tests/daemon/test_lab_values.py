"""The pure parts of the daemon: settings that travel, names, sandboxes' specifications, packets of a ping."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from emunet.cluster.assign import assign
from emunet.cluster.build import build
from emunet.cluster.load import load_files, load_text
from emunet.cluster.plan import State, target
from emunet.cluster.targets import cluster_addresses
from emunet.daemon.names import Names, UnknownName
from emunet.daemon.pings import echo_packet, request_to
from emunet.daemon.running import timing
from emunet.daemon.sandboxes import (
    container_spec,
    host_spec,
    hosts_file,
    known_gateways,
    name_files,
    pod_sandbox,
    pod_spec,
)
from emunet.daemon.settings import CaptureWish, Settings
from emunet.lab.lab import Lab
from emunet.packet.address import format_ip, format_mac, parse_ip
from emunet.packet.icmp import ECHO_REQUEST, Icmp
from emunet.packet.ipv4 import IPv4

ROOT = Path(__file__).parents[2]

ODD = """
apiVersion: emunet/v1
kind: Topology
metadata: {name: odd}
spec: {hosts: [host1, host2], overlay: host-gw}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: blue}
spec:
  nodeName: host1
  containers:
    - {name: main, image: busybox, command: [sleep], args: ['9'], env: [{name: A, value: b}], workingDir: /tmp}
---
apiVersion: v1
kind: Pod
metadata: {name: guest}
spec: {nodeName: host1, hostNetwork: true, containers: [{name: main, image: busybox}]}
"""


def state_of(text: str) -> State:
    desired = build(load_text(text))
    return target(desired, assign(desired))


def state_of_file(name: str) -> State:
    desired = build(load_files([ROOT / "topologies" / name]))
    return target(desired, assign(desired))


def test_settings_arrive_as_they_were() -> None:
    settings = Settings(
        ("a.yaml", "b.yaml"), "/tmp", "lab", "tap", (CaptureWish(("web-1", "host1:eth0"), "/tmp/x.pcapng"),), 7, 2.5,
        flow_cache=False, offload=False,
    )  # fmt: skip
    assert Settings.decode(settings.encode()) == settings
    assert "\n" not in settings.encode()


def test_names_mean_pods_hosts_and_addresses() -> None:
    names = Names(state_of_file("two-hosts.yaml"))
    web, host = names.find("web-1"), names.find("host2")
    assert (web.kind, web.sandbox, web.host) == ("pod", "default/web-1", "host1")
    assert (host.kind, host.sandbox) == ("host", "host2")
    assert names.find("default/web-1") is web
    assert names.target("web-3", web) == parse_ip("10.244.2.2")
    assert names.target("192.0.2.1", web) == parse_ip("192.0.2.1")
    assert [pod.name for pod in names.pods] == ["web-1", "web-2", "web-3", "web-4"]
    with pytest.raises(
        UnknownName, match=r"there is no pod or host nope; there are: host1, host2, web-1, web-2, web-3"
    ):
        names.find("nope")


def test_a_sandbox_of_a_pod_is_never_that_of_a_host() -> None:
    assert pod_sandbox("host1") == "default/host1"
    assert pod_sandbox("blue/web-1") == "blue/web-1"


def test_a_guest_lives_in_its_hosts_network() -> None:
    names = Names(state_of(ODD))
    guest = names.find("guest")
    assert (guest.kind, guest.sandbox, guest.in_host, guest.sender) == ("pod", "default/guest", True, "host1")
    assert guest.addresses == names.find("host1").addresses
    assert guest not in names.pods


def test_a_host_sends_from_the_address_of_the_interface_that_leads_there() -> None:
    names = Names(state_of_file("two-hosts.yaml"))
    host = names.find("host1")
    assert names.source(host, parse_ip("10.244.2.2")) == parse_ip("10.244.1.0")  # flannel.1
    assert names.source(host, parse_ip("10.244.1.2")) == parse_ip("10.244.1.1")  # cni0
    assert names.source(host, parse_ip("192.168.9.12")) == parse_ip("192.168.9.11")  # eth0
    assert names.source(host, parse_ip("8.8.8.8")) == parse_ip("192.168.9.11")


def test_described_names_have_mac_and_addresses() -> None:
    described = Names(state_of_file("dual-stack.yaml")).described()
    for facts in described.values():
        assert len(facts["mac"]) == 17
        assert len(facts["addresses"]) == 2


def test_a_service_is_an_address_and_no_place() -> None:
    services = {"web": [parse_ip("10.96.0.80")], "web-1": [parse_ip("10.96.0.81")]}
    names = Names(state_of_file("two-hosts.yaml"), lambda: services)
    pod = names.find("web-1")
    assert names.target("web", pod) == parse_ip("10.96.0.80")
    assert names.target("web-1", names.find("web-2")) == parse_ip("10.244.1.2")  # the pod comes first
    with pytest.raises(UnknownName, match="web is a Service: "):
        names.find("web")
    with pytest.raises(UnknownName, match="there is no pod or host nobody; "):
        names.target("nobody", pod)
    assert names.described()["web"] == {"mac": None, "addresses": ["10.96.0.80"]}
    assert names.described()["web-1"]["addresses"] == ["10.244.1.2"]


def test_the_addresses_of_services_are_their_cluster_ips() -> None:
    with Lab(ROOT / "topologies/names.yaml") as lab:
        found = cluster_addresses(lab.store)
    assert found["kube-system/kube-dns"] == [parse_ip("10.96.0.10")]
    assert len(found["web"]) == 1
    assert "db" not in found  # headless: its name means no address of its own


def test_a_host_has_a_silent_interface_for_each_of_its_own() -> None:
    state = state_of_file("two-hosts.yaml")
    spec = host_spec(state.world, state.world.hosts[0], "", offload=True)
    assert [one.name for one in spec.interfaces] == ["eth0", "cni0", "flannel.1"]
    assert not any(one.arp for one in spec.interfaces)
    assert not spec.forwarding
    # What its kernel does not make of the addresses by itself; and the way to Services, in place of a default route.
    route, services = spec.routes
    assert (services.destination, services.via, services.interface) == ("10.96.0.0/16", None, "eth0")
    assert (route.destination, route.via, route.interface, route.onlink) == (
        "10.244.2.0/24",
        "10.244.2.0",
        "flannel.1",
        True,
    )
    spec.encode()


def test_routes_by_a_neighbouring_host_are_not_onlink() -> None:
    state = state_of_file("three-hosts-routed.yaml")
    spec = host_spec(state.world, state.world.hosts[0], "", offload=True)
    assert {(route.interface, route.onlink) for route in spec.routes} == {("eth0", False)}
    assert [route.destination for route in spec.routes] == ["10.244.2.0/24", "10.244.3.0/24", "10.96.0.0/16"]


def test_a_pod_has_eth0_and_a_default_route_of_each_family() -> None:
    state = state_of_file("dual-stack.yaml")
    spec = pod_spec(state.pods[0], {"/etc/hosts": "a"}, offload=False)
    assert [one.name for one in spec.interfaces] == ["eth0"]
    assert spec.interfaces[0].offload == 0
    assert spec.interfaces[0].vnet_header
    assert [route.destination for route in spec.routes] == ["0.0.0.0/0", "::/0"]
    assert spec.files["/etc/hosts"] == "a"
    assert "hosts: files dns" in spec.files["/etc/nsswitch.conf"]
    spec.encode()


def test_gateways_that_need_not_be_asked_for() -> None:
    """Where the kernel's table of neighbours is too short for a lab: the MAC is that of the bridge's own interface."""
    state = state_of_file("dual-stack.yaml")
    pod = state.pods[0]
    assert pod.edge is not None
    host = next(host for host in state.world.hosts if host.name == pod.edge.device)
    bridge = next(one for one in host.interfaces if one.name == "cni0")
    entries = known_gateways(pod, state.world)
    assert [entry.address for entry in entries] == [format_ip(gateway) for gateway in pod.edge.gateways]
    assert {(entry.interface, entry.mac) for entry in entries} == {("eth0", format_mac(bridge.mac))}
    spec = pod_spec(pod, {}, offload=False, neighbors=entries)
    assert len(spec.encode()["neighbors"]) == 2
    assert spec.sysctls["net.ipv4.neigh.eth0.base_reachable_time_ms"] == "2000"
    assert spec.sysctls["net.ipv6.neigh.eth0.delay_first_probe_time"] == "1"
    assert pod_spec(pod, {}, offload=False).sysctls == {}
    assert pod_spec(pod, {}, offload=False).encode()["neighbors"] == []


def test_pods_of_a_lab_without_a_name_server_know_each_other_by_their_files() -> None:
    state = state_of(ODD)
    pod = next(pod for pod in state.pods if pod.name == "blue/web-1")
    item = {"metadata": {"name": "web-1", "namespace": "blue"}, "spec": {}}
    without = name_files(pod, item, state, None, "cluster.local")
    assert "nameserver" not in without["/etc/resolv.conf"]
    assert "192.168.9.11\thost1\n" in without["/etc/hosts"]
    assert without["/etc/hosts"].count("10.244.1.2") == 1, "its own name is there as Kubernetes writes it, once"
    served = name_files(pod, item, state, "10.96.0.10", "cluster.local")
    assert "nameserver 10.96.0.10\n" in served["/etc/resolv.conf"]
    assert "host1" not in served["/etc/hosts"], "a stale file must not hide what the name server says"


def test_a_pod_without_a_network_lives_in_that_of_its_host() -> None:
    state = state_of(ODD)
    guest = next(pod for pod in state.pods if pod.name == "guest")
    spec = pod_spec(guest, {}, offload=True)
    assert (spec.id, spec.hostname, spec.network_of, spec.interfaces) == ("default/guest", "host1", "host1", ())
    with pytest.raises(ValueError, match="lives in the network of host1, and cannot change it"):
        replace(spec, sysctls={"net.ipv4.tcp_ecn": "1"}).encode()


def test_the_hosts_file_names_everybody() -> None:
    lines = hosts_file(state_of(ODD)).splitlines()
    assert lines[:2] == ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    assert "192.168.9.11 host1" in lines
    assert "10.244.1.2 web-1.blue" in lines


def test_only_a_container_that_names_a_program_has_one() -> None:
    pods = {pod.name: pod.pod for pod in state_of(ODD).pods}
    assert container_spec(pods["guest"], pods["guest"].containers[0]) is None
    spec = container_spec(pods["blue/web-1"], pods["blue/web-1"].containers[0])
    assert spec is not None
    assert (spec.argv, spec.directory, spec.own_processes) == (("sleep", "9"), "/tmp", True)
    assert spec.environment is not None
    assert spec.environment["A"] == "b"
    assert spec.environment["HOSTNAME"] == "web-1"


def test_an_echo_request_is_what_ping_sends() -> None:
    names = Names(state_of_file("two-hosts.yaml"))
    header, payload = IPv4.parse(request_to(names, names.find("web-1"), "web-3"))
    assert (header.src, header.dst) == (parse_ip("10.244.1.2"), parse_ip("10.244.2.2"))
    assert Icmp.parse(payload).type == ECHO_REQUEST
    assert len(echo_packet(parse_ip("fd00::1"), parse_ip("fd00::2"))) == 40 + 8 + 56


def test_a_family_that_is_missing_is_said() -> None:
    names = Names(state_of_file("two-hosts.yaml"))
    with pytest.raises(UnknownName, match="web-1 has no address of the family of fd00::1"):
        request_to(names, names.find("web-1"), "fd00::1")


def test_timing_is_said_once_it_counts() -> None:
    assert timing(4_000_000) == "on time"
    assert timing(12_300_000) == "late by 12.3 ms"


def test_the_plane_process_loads_nothing_that_serves_people() -> None:
    forbidden = "aiohttp,asyncio,click,cryptography,pydantic,rich,scapy,yaml,emunet.cluster"
    script = (
        "import sys, emunet.daemon.plane_process;"
        f"print([name for name in sys.modules if name in {forbidden.split(',')!r}])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
