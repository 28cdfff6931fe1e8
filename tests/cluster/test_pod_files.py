"""/etc/resolv.conf and /etc/hosts of pods: the policies of dns-pod-service, and a kubelet's shape."""

from __future__ import annotations

from typing import Any

import pytest

from emunet.cluster import pod_files
from emunet.cluster.build import build
from emunet.cluster.control_plane import ControlPlane
from emunet.cluster.load import BadInput, load_text
from emunet.cluster.pod_files import NO_SERVER
from emunet.cluster.status import StatusError

TOPOLOGY = "apiVersion: emunet/v1\nkind: Topology\nmetadata: {name: lab}\nspec: {hosts: [host1], dns: {dns}}\n"
SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{port: 80}]}\n"


def pod(**spec: Any) -> dict[str, Any]:
    """A pod `web` in the namespace blue."""
    return {"metadata": {"name": "web", "namespace": "blue"}, "spec": spec}


def lines(**spec: Any) -> list[str]:
    """Its resolv.conf."""
    return pod_files.resolv_conf(pod(**spec), "10.96.0.10", "cluster.local").as_text().splitlines()


FIRST = [
    "nameserver 10.96.0.10",
    "search blue.svc.cluster.local svc.cluster.local cluster.local",
    "options ndots:5",
]
NONE = NO_SERVER.splitlines()


def test_cluster_first() -> None:
    assert lines() == FIRST
    assert lines(dnsPolicy="ClusterFirst") == FIRST


@pytest.mark.rule("HN-04", element="resolv-conf")
def test_with_host_network_cluster_first_is_default_unless_it_says_more() -> None:
    """E2E: should work with partial qualified names on hostNetwork pods with ClusterFirstWithHostNet."""
    assert lines(hostNetwork=True, dnsPolicy="ClusterFirst") == NONE
    assert lines(hostNetwork=True, dnsPolicy="ClusterFirstWithHostNet") == FIRST
    assert lines(dnsPolicy="Default") == NONE


def test_none_takes_only_what_the_pod_says() -> None:
    """E2E: should support configurable pod DNS nameservers."""
    config = {
        "nameservers": ["1.1.1.1"],
        "searches": ["resolv.conf.local"],
        "options": [{"name": "ndots", "value": "2"}],
    }
    assert lines(dnsPolicy="None", dnsConfig=config) == [
        "nameserver 1.1.1.1", "search resolv.conf.local", "options ndots:2",
    ]  # fmt: skip


def test_what_the_pod_says_is_added_without_repeating() -> None:
    """E2E: should support configurable pod resolv.conf."""
    config = {
        "nameservers": ["10.96.0.10", "192.0.2.1"],
        "searches": ["my.dns.search.suffix", "cluster.local"],
        "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
    }
    assert lines(dnsConfig=config) == [
        "nameserver 10.96.0.10", "nameserver 192.0.2.1",
        "search blue.svc.cluster.local svc.cluster.local cluster.local my.dns.search.suffix",
        "options ndots:2 edns0",
    ]  # fmt: skip
    found = pod_files.resolv_conf(pod(dnsConfig=config), "10.96.0.10", "cluster.local")
    assert found.ndots == 2
    assert pod_files.resolv_conf(pod(dnsPolicy="Default"), "10.96.0.10", "cluster.local").ndots == 1


def test_more_than_six_search_paths_and_more_than_256_characters() -> None:
    """E2E: should work with the pod containing more than 6 DNS search paths and longer than 256 characters of them."""
    searches = [f"{'x' * 58}.n{number}" for number in range(32)]
    [search] = [line for line in lines(dnsPolicy="None", dnsConfig={"nameservers": ["::1"], "searches": searches})
                if line.startswith("search")]  # fmt: skip
    assert len(search.split()) == 33
    too_long = [f"{'x' * 60}.n{number}" * 2 for number in range(20)]
    [search] = [line for line in lines(dnsPolicy="None", dnsConfig={"searches": too_long}) if line.startswith("search")]
    assert len(search.removeprefix("search ")) <= 2048


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"dnsPolicy": "None"}, "must provide at least one DNS nameserver when `dnsPolicy` is None"),
        ({"dnsConfig": {"nameservers": ["web"]}}, "must be a valid IP address"),
        ({"dnsConfig": {"nameservers": [f"10.0.0.{n}" for n in range(4)]}}, "must not have more than 3 nameservers"),
        ({"dnsConfig": {"searches": [f"n{n}" for n in range(33)]}}, "must not have more than 32 search paths"),
        ({"dnsConfig": {"searches": [f"{'x' * 60}.{'y' * 60}"] * 20}}, "must not have more than 2048 characters"),
        ({"dnsConfig": {"searches": ["a b"]}}, "RFC 1123 subdomain"),
        ({"dnsConfig": {"options": [{"value": "2"}]}}, "options[0]: Required value"),
        ({"dnsPolicy": "ClusterLast"}, "Unsupported value"),
    ],
)
def test_what_is_refused(spec: dict[str, Any], told: str) -> None:
    plane = ControlPlane(build(load_text(TOPOLOGY.replace("{dns}", "false"))).cluster)
    item = {"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "x"}], **spec}}
    with pytest.raises(StatusError) as refused:
        plane.request(0).create(plane.find("pods"), item, "default")
    assert told in refused.value.message


def test_an_underscore_may_be_in_a_search_path() -> None:
    plane = ControlPlane(build(load_text(TOPOLOGY.replace("{dns}", "false"))).cluster)
    config = {"searches": ["_tcp.example.com", "example.com.", "."]}
    item = {"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "x"}], "dnsConfig": config}}
    assert plane.request(0).create(plane.find("pods"), item, "default")["spec"]["dnsConfig"] == config


@pytest.mark.rule("POD-04", element="hosts-file")
def test_the_hosts_file_has_the_shape_that_a_kubelet_gives_it() -> None:
    """E2E: should provide /etc/hosts entries for the cluster."""
    aliases = [{"ip": "192.0.2.9", "hostnames": ["foo.local", "bar.local"]}]
    found = pod_files.hosts_file(
        pod(hostname="one", subdomain="db", hostAliases=aliases), ["10.244.1.2", "fd00::2"], "cluster.local"
    )
    assert found.splitlines() == [
        "# Kubernetes-managed hosts file.",
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::0\tip6-localnet",
        "fe00::0\tip6-mcastprefix",
        "fe00::1\tip6-allnodes",
        "fe00::2\tip6-allrouters",
        "10.244.1.2\tone.db.blue.svc.cluster.local\tone",
        "fd00::2\tone.db.blue.svc.cluster.local\tone",
        "",
        "# Entries added by HostAliases.",
        "192.0.2.9\tfoo.local\tbar.local",
    ]
    assert pod_files.hosts_file(pod(), ["10.244.1.2"], "cluster.local").splitlines()[-1] == "10.244.1.2\tweb"


def plane_with(dns: str, *documents: str) -> ControlPlane:
    """A control plane of a topology that says so of DNS."""
    plane = ControlPlane(build(load_text(TOPOLOGY.replace("{dns}", dns))).cluster)
    plane.apply(load_text("---\n".join(documents)) if documents else (), 0)
    plane.settle(0)
    return plane


def made(plane: ControlPlane) -> tuple[bool, bool, int]:
    """(is there a Service, is there a Deployment, how many pods are in kube-system)."""
    store = plane.store
    return (
        store.get("services", "kube-system", "kube-dns") is not None,
        store.get("deployments.apps", "kube-system", "coredns") is not None,
        len(store.select("pods", "kube-system")),
    )


def test_the_name_server_is_there_from_the_first_service_on() -> None:
    plane = plane_with("auto")
    assert made(plane) == (False, False, 0)
    assert plane.names.server is None
    plane.apply(load_text(SERVICE), 0)
    plane.settle(0)
    assert made(plane) == (True, True, 1)
    assert plane.names.server == "10.96.0.10"
    [pod] = plane.wanted()
    assert pod.is_name_server
    service = plane.store.get("services", "kube-system", "kube-dns")
    assert service is not None
    assert [(one["port"], one["protocol"]) for one in service["spec"]["ports"]] == [(53, "UDP"), (53, "TCP")]


def test_always_and_never() -> None:
    assert made(plane_with("true")) == (True, True, 1)
    assert made(plane_with("false", SERVICE)) == (False, False, 0)


def test_what_a_person_makes_of_it_stays() -> None:
    plane = plane_with("true")
    plane.request(0).patch(plane.find("deploy"), "kube-system", "coredns", {"spec": {"replicas": 0}}, "merge")
    plane.apply(load_text(SERVICE), 0)
    plane.settle(0)
    deployment = plane.store.get("deployments.apps", "kube-system", "coredns")
    assert deployment is not None
    assert deployment["spec"]["replicas"] == 0
    plane.request(0).delete(plane.find("services"), "kube-system", "kube-dns")
    plane.apply(load_text(SERVICE.replace("web", "other")), 0)
    plane.settle(0)
    assert made(plane)[0] is False
    assert plane.names.server is None


def test_a_name_server_of_ones_own_is_left_alone() -> None:
    own = "apiVersion: v1\nkind: Service\nmetadata: {name: kube-dns, namespace: kube-system}\n" \
        "spec: {clusterIP: 10.96.0.53, selector: {app: mine}, ports: [{port: 53, protocol: UDP}]}\n"  # fmt: skip
    deployment = (
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: coredns, namespace: kube-system}\n"
        "spec: {replicas: 2, selector: {matchLabels: {app: mine}}, template: {metadata: {labels: {app: mine}},"
        " spec: {containers: [{name: c, image: coredns}]}}}\n"
    )
    plane = plane_with("auto", own, deployment, SERVICE)
    assert made(plane) == (True, True, 2)
    assert plane.names.server == "10.96.0.53"


def test_a_small_service_range_has_room_for_it() -> None:
    text = TOPOLOGY.replace("{dns}", "true, serviceCIDR: 10.97.0.0/29")
    plane = ControlPlane(build(load_text(text)).cluster)
    plane.settle(0)
    assert plane.names.server == "10.97.0.6"


@pytest.mark.parametrize(
    ("dns", "told"),
    [
        ("maybe", "expected true, false, auto, or a mapping"),
        ("{forward: [web]}", "forward"),
        ("{domain: Cluster_Local}", "domain"),
        ("{servers: []}", "servers"),
    ],
)
def test_a_topology_that_makes_no_sense_of_dns(dns: str, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        build(load_text(TOPOLOGY.replace("{dns}", dns)))


def test_another_domain() -> None:
    plane = plane_with("{domain: example.org, forward: 192.168.9.99}", SERVICE)
    plane.names.take()
    assert plane.names.zone.authority.origins[0] == (b"example", b"org")
    assert plane.names.zone.authority.forward == (b"\xc0\xa8\x09\x63",)
    assert plane.names.zone.exists((b"web", b"default", b"svc", b"example", b"org"))


def test_a_machine_is_called_by_its_full_name_where_it_asks_for_that() -> None:
    spec = "hostname: one, subdomain: db, setHostnameAsFQDN: true, nodeName: host1, containers: [{name: c, image: x}]"
    text = f"apiVersion: v1\nkind: Pod\nmetadata: {{name: p1}}\nspec: {{{spec}}}\n"
    too_long = text.replace("p1", "p2").replace("one", "x" * 60)
    without = text.replace("p1", "p3").replace("subdomain: db, ", "")
    plane = plane_with("false", text, too_long, without)
    assert [pod.machine_name for pod in plane.wanted()] == ["one.db.default.svc.cluster.local", "x" * 60, "one"]
