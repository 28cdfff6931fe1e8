"""What becomes of a stored pod: its environment, and kinds that files bring with them."""

from __future__ import annotations

from typing import Any

import pytest

from emunet.cluster.bound import bound_pods, environment, expand
from emunet.cluster.build import build
from emunet.cluster.control_plane import ControlPlane
from emunet.cluster.load import load_text
from emunet.cluster.status import StatusError

TOPOLOGY = "apiVersion: emunet/v1\nkind: Topology\nmetadata: {name: lab}\nspec: {hosts: [host1, host2]}\n"


@pytest.fixture
def plane() -> ControlPlane:
    """Two hosts and nothing else."""
    return ControlPlane(build(load_text(TOPOLOGY)).cluster)


def made(plane: ControlPlane, word: str, **item: Any) -> dict[str, Any]:
    """A stored object."""
    return plane.request(0).create(plane.find(word), {"metadata": {"name": "a"}, **item}, "default")


@pytest.mark.rule("POD-05", element="environment")
def test_the_environment_tells_of_services_that_were_there_before(plane: ControlPlane) -> None:
    spec = {
        "clusterIP": "10.96.0.50",
        "ports": [{"name": "http", "port": 80}, {"name": "dns-u", "port": 53, "protocol": "UDP"}],
    }
    made(plane, "svc", metadata={"name": "my-web"}, spec=spec)
    made(plane, "svc", metadata={"name": "headless"}, spec={"clusterIP": "None", "ports": [{"port": 80}]})
    pod = made(plane, "pod", spec={"containers": [{"name": "c", "image": "x"}]})
    variables = environment(plane.store, pod, pod["spec"]["containers"][0])
    expected = {
        "MY_WEB_SERVICE_HOST": "10.96.0.50",
        "MY_WEB_SERVICE_PORT": "80",
        "MY_WEB_SERVICE_PORT_HTTP": "80",
        "MY_WEB_SERVICE_PORT_DNS_U": "53",
        "MY_WEB_PORT": "tcp://10.96.0.50:80",
        "MY_WEB_PORT_53_UDP": "udp://10.96.0.50:53",
        "MY_WEB_PORT_53_UDP_PROTO": "udp",
        "MY_WEB_PORT_53_UDP_PORT": "53",
        "MY_WEB_PORT_53_UDP_ADDR": "10.96.0.50",
        "KUBERNETES_SERVICE_HOST": "10.96.0.1",
    }
    assert expected.items() <= variables.items()
    assert not any(name.startswith("HEADLESS") for name in variables)
    alone = {**pod, "spec": {**pod["spec"], "enableServiceLinks": False}}
    names = environment(plane.store, alone, pod["spec"]["containers"][0])
    assert {name.split("_")[0] for name in names} == {"KUBERNETES"}


def test_variables_from_maps_secrets_and_the_pod_itself(plane: ControlPlane) -> None:
    made(plane, "cm", metadata={"name": "settings"}, data={"A": "1", "B": "2"})
    made(plane, "secret", metadata={"name": "key"}, stringData={"token": "t"})
    container = {
        "name": "c",
        "image": "x",
        "envFrom": [{"prefix": "S_", "configMapRef": {"name": "settings"}}],
        "env": [
            {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "A"}}},
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "key", "key": "token"}}},
            {"name": "GONE", "valueFrom": {"configMapKeyRef": {"name": "gone", "key": "x", "optional": True}}},
            {"name": "ME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "BOTH", "value": "$(A)-$(TOKEN)-$(NOBODY)-$$(A)"},
        ],
    }
    pod = made(plane, "pod", metadata={"name": "a", "labels": {"app": "web"}}, spec={"containers": [container]})
    variables = environment(plane.store, pod, pod["spec"]["containers"][0])
    wanted = {"S_A": "1", "S_B": "2", "A": "1", "TOKEN": "t", "ME": "web", "BOTH": "1-t-$(NOBODY)-$(A)"}
    assert wanted.items() <= variables.items()
    assert "GONE" not in variables


@pytest.mark.parametrize(
    ("text", "result"),
    [("$(A)", "1"), ("$$(A)", "$(A)"), ("$(B)", "$(B)"), ("$", "$"), ("$(", "$("), ("a$b$(A)", "a$b1"), ("$$", "$")],
)
def test_references_in_words(text: str, result: str) -> None:
    assert expand(text, {"A": "1"}) == result


def test_only_bound_pods_on_hosts_that_are_there_are_built(plane: ControlPlane) -> None:
    spec = {"containers": [{"name": "c", "image": "x"}]}
    for name, node in (("a", "host1"), ("b", "host2"), ("c", "host9")):
        made(plane, "pod", metadata={"name": name}, spec={**spec, "nodeName": node})
    made(plane, "pod", metadata={"name": "d"}, spec=spec)
    assert [pod.port for pod in bound_pods(plane.store, plane.cluster)] == ["a", "b"]
    # A host that is dead keeps its pods until they are asked to end: nobody there hears of it, and they are over.
    assert [pod.port for pod in bound_pods(plane.store, plane.cluster, silent=["host1"])] == ["a", "b"]
    plane.request(0).delete(plane.find("pods"), "default", "a")
    assert [pod.port for pod in bound_pods(plane.store, plane.cluster)] == ["a", "b"]
    assert [pod.port for pod in bound_pods(plane.store, plane.cluster, silent=["host1"])] == ["b"]


WIDGETS = {
    "metadata": {"name": "widgets.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"kind": "Widget", "plural": "widgets", "shortNames": ["wd"]},
        "versions": [{"name": "v1beta1", "served": True}, {"name": "v1", "served": True, "storage": True}],
    },
}


def test_a_definition_brings_a_kind_and_takes_it_away(plane: ControlPlane) -> None:
    definition = made(plane, "crd", **WIDGETS)
    assert {one["type"] for one in definition["status"]["conditions"]} == {"NamesAccepted", "Established"}
    kind = plane.find("wd")
    assert plane.store.kinds.of("example.com/v1beta1", "Widget") is kind
    request = plane.request(0)
    widget = request.create(kind, {"metadata": {"name": "a"}, "spec": {"anything": [1, None]}}, "default")
    assert (widget["apiVersion"], widget["spec"]) == ("example.com/v1", {"anything": [1, None]})
    assert request.warnings == ["emunet keeps this Widget and lists it; it has no effect on the network"]
    plane.request(0).delete(plane.find("crd"), "", "widgets.example.com")
    plane.settle(0)
    assert plane.store.count("widgets.example.com") == 0
    with pytest.raises(KeyError):
        plane.find("wd")


def test_a_lab_refuses_what_only_it_knows_to_be_wrong(plane: ControlPlane) -> None:
    spec = {"containers": [{"name": "c", "image": "x"}]}
    made(plane, "pod", metadata={"name": "a", "annotations": {"emunet/mac": "02:00:00:00:00:01"}}, spec=spec)
    for metadata, words in (
        ({"name": "host1"}, "this is the name of a host of the lab"),
        ({"name": "switch1"}, "this is the name of a switch of the lab"),
        ({"name": "cni0"}, "host's interface"),
        ({"name": "b", "annotations": {"emunet/mac": "02:00:00:00:00:01"}}, "the pod a has it"),
        ({"name": "b", "annotations": {"emunet/ip": "10.244.1.300"}}, "is not an IP address"),
    ):
        with pytest.raises(StatusError, match=words):
            made(plane, "pod", metadata=metadata, spec=spec)
