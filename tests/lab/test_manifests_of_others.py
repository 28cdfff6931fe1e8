"""Manifests that others wrote, in a Lab: every object is taken, every pod comes up, every Service has its pods.

The files are test data beside the project, read in place; without them these tests are skipped.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from emunet.cluster.load import Document, load_files
from emunet.cluster.objects import expand
from emunet.lab.pod import LabPod
from emunet.testing import Lab

MANIFESTS = Path(__file__).parents[3] / "shared" / "real" / "manifests"
LAB = "apiVersion: emunet/v1\nkind: Topology\nmetadata: {name: lab}\nspec: {hosts: [host1, host2, host3], dns: false}\n"
FILES = sorted(
    path
    for path in MANIFESTS.rglob("*")
    if path.suffix in (".yaml", ".yml") and path.name != "docker-compose.yml"
)  # fmt: skip

pytestmark = pytest.mark.skipif(not FILES, reason="the manifests of others are not beside this project")


def objects_of(path: Path) -> list[Document]:
    """The objects of a file."""
    return [one for document in load_files([path]) for one in expand(document) if isinstance(one, Document)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_all_of_a_file_is_taken_and_comes_up(path: Path) -> None:
    documents = objects_of(path)
    with Lab(LAB) as lab:
        lab.apply(path)
        for document in documents:
            kind = lab.store.kinds.of(document.data["apiVersion"], document.data["kind"])
            name = document.data["metadata"]["name"]
            namespace = document.data["metadata"].get("namespace", "default") if kind.namespaced else ""
            assert lab.store.get(kind.resource, namespace, name) is not None
        for pod in lab.objects("pods"):
            chosen = pod["spec"].get("nodeSelector") or {}
            if "nodeName" in pod["spec"]:
                assert pod["status"]["phase"] == "Running", pod["metadata"]["name"]
            else:  # it asks for a host that is not here: that is said, and all
                assert "beta.kubernetes.io/os" in chosen or pod["status"]["conditions"][0]["reason"] == "Unschedulable"
        for deployment in lab.objects("deployments"):
            wanted = deployment["spec"]["replicas"]
            assert deployment["status"].get("readyReplicas", 0) == wanted, deployment["metadata"]["name"]
        for service in lab.objects("services"):
            selected = service["spec"].get("selector")
            metadata = service["metadata"]
            pods = [
                pod
                for pod in lab.objects("pods", metadata["namespace"])
                if selected and selected.items() <= pod["metadata"].get("labels", {}).items()
            ]
            if pods and service["spec"]["type"] != "ExternalName":
                assert lab.get("endpoints", metadata["name"], metadata["namespace"]).get("subsets"), metadata["name"]


CLIENT = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: client}\nspec: {containers: [{name: c, image: x}]}\n"


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_declared_port_answers_from_another_pod(path: Path) -> None:
    with Lab(LAB + CLIENT) as lab:
        lab.apply(path)
        client = lab.pod("client")
        for pod in lab.objects("pods"):
            for container in pod["spec"]["containers"] if "nodeName" in pod["spec"] else ():
                for port in container.get("ports", ()):
                    answer = answer_of(lab, client, pod["status"]["podIP"], port)
                    assert (answer["pod"], answer["node"]) == (pod["metadata"]["name"], pod["spec"]["nodeName"])
                    assert answer["client"] == client.ip


def answer_of(lab: Lab, client: LabPod, address: str, port: dict[str, Any]) -> dict[str, str]:
    """What a declared port says to a pod."""
    number = port["containerPort"]
    if port.get("protocol", "TCP") == "TCP":
        answer = client.get(f"http://{address}:{number}/")
        assert answer.status == 200, f"{address}:{number}: {answer.error}"
        told: dict[str, str] = json.loads(answer.body)
        return told
    assert port["protocol"] == "UDP"
    socket = client.endpoint.udp_bind()
    now = lab.clock.now
    lab.plane.world.send(client._edge, socket.send(b"?", lab.address(address), number, now), now)
    lab.clock.advance(0.1)
    datagram = socket.receive()
    assert datagram is not None, f"{address}:{number}"
    return dict(word.split("=", 1) for word in datagram.data.decode().split())


def test_how_many_there_are() -> None:
    """What "all of them" is: 41 files, 137 objects."""
    kinds = Counter(document.data["kind"] for path in FILES for document in objects_of(path))
    assert len(FILES) == 41
    assert (kinds["Service"], kinds["Deployment"], kinds["Pod"], kinds["NetworkPolicy"]) == (43, 33, 6, 12)
    assert sum(kinds.values()) == 137


@pytest.mark.parametrize("version", ["v1.1.1", "v1.10.1"])
def test_the_dashboard_of_the_primer(version: str) -> None:
    """One file and one command: `kubectl create -f kubernetes-dashboard.yaml`, of the days of extensions/v1beta1."""
    path = MANIFESTS / "kubernetes-dashboard" / f"kubernetes-dashboard-{version}.yaml"
    with Lab(LAB) as lab:
        lab.apply(path)
        (pod,) = lab.objects("pods", "kube-system")
        service = lab.get("svc", "kubernetes-dashboard", "kube-system")
        (subset,) = lab.get("endpoints", "kubernetes-dashboard", "kube-system")["subsets"]
        assert subset["addresses"][0]["ip"] == pod["status"]["podIP"]
        assert subset["ports"][0]["port"] == service["spec"]["ports"][0]["targetPort"]
        name = f"kube-system/{pod['metadata']['name']}"
        lab.delete("pod", pod["metadata"]["name"], "kube-system")
        (healed,) = lab.objects("pods", "kube-system")
        assert f"kube-system/{healed['metadata']['name']}" != name
        assert healed["status"]["podIP"] != pod["status"]["podIP"]
