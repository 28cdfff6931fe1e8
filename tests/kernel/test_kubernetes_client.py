"""The official Python client against a running lab. It checks the type of all that it is given."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes
import pytest
import yaml
from kubectls import MANIFESTS
from kubernetes import client, config, dynamic, stream, watch
from lab_driver import Labs, eventually

# The client leaves connections of watches and of exec to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "one", "labels": {"app": "one"}},
    "spec": {
        "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "c", "image": "busybox", "command": ["sh", "-c", "echo hello; exec sleep 1000"]}],
    },
}


@pytest.fixture(scope="module")
def api(kube_lab: tuple[Labs, Path]) -> Iterator[Any]:
    """A client that is pointed at the lab."""
    labs, folder = kube_lab
    path = folder / "client-config"
    labs.ok("kubeconfig", "-w", str(path))
    with config.new_client_from_config(str(path)) as made:
        yield made
    gc.collect()


def test_a_pod_from_its_making_to_its_end(api: Any) -> None:
    core = client.CoreV1Api(api)
    made = core.create_namespaced_pod("default", POD)
    assert made.metadata.uid
    seen = []
    for event in watch.Watch().stream(
        core.list_namespaced_pod, "default", field_selector="metadata.name=one", timeout_seconds=20
    ):
        seen.append((event["type"], event["object"].status.phase))
        if event["object"].status.phase == "Running":
            break
    assert seen[0][0] == "ADDED"
    eventually(lambda: core.read_namespaced_pod_log("one", "default") == "hello\n", "no log")
    said = stream.stream(
        core.connect_get_namespaced_pod_exec, "one", "default", command=["sh", "-c", "echo out; exit 3"],
        stdout=True, stderr=True, _preload_content=False,
    )  # fmt: skip
    said.run_forever(timeout=20)
    assert (said.read_stdout(), said.returncode) == ("out\n", 3)
    said.close()
    version = core.list_namespaced_pod("default").metadata.resource_version
    core.delete_namespaced_pod("one", "default", grace_period_seconds=0)
    events = watch.Watch().stream(
        core.list_namespaced_pod, "default", field_selector="metadata.name=one", resource_version=version,
        timeout_seconds=20,
    )  # fmt: skip
    assert "DELETED" in (event["type"] for event in events)
    with pytest.raises(client.ApiException) as refused:
        core.read_namespaced_pod("one", "default")
    assert (refused.value.status, refused.value.reason) == (404, "Not Found")


def test_every_kind_that_is_served_can_be_listed(api: Any) -> None:
    """Discovery as the client walks it; each list is what its type says."""
    found = dynamic.DynamicClient(api)
    kinds = {one.kind for one in found.resources.search() if "list" in (one.verbs or ())}
    assert {"Pod", "Deployment", "NetworkPolicy", "CronJob", "Ingress"} <= kinds
    for read in (
        client.CoreV1Api(api).list_node, client.CoreV1Api(api).list_namespace,
        client.CoreV1Api(api).list_service_for_all_namespaces, client.CoreV1Api(api).list_pod_for_all_namespaces,
        client.CoreV1Api(api).list_endpoints_for_all_namespaces, client.CoreV1Api(api).list_event_for_all_namespaces,
        client.CoreV1Api(api).list_service_account_for_all_namespaces,
        client.AppsV1Api(api).list_deployment_for_all_namespaces,
        client.AppsV1Api(api).list_replica_set_for_all_namespaces,
        client.DiscoveryV1Api(api).list_endpoint_slice_for_all_namespaces,
        client.NetworkingV1Api(api).list_network_policy_for_all_namespaces,
        client.CoordinationV1Api(api).list_lease_for_all_namespaces,
    ):  # fmt: skip
        assert read().metadata.resource_version
    assert client.VersionApi(api).get_code().git_version.endswith("+emunet")


def test_deployments_scale_patches_and_evictions(api: Any) -> None:
    apps, core = client.AppsV1Api(api), client.CoreV1Api(api)
    template = {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}}
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "d"}}, "template": template}
    apps.create_namespaced_deployment("default", {"metadata": {"name": "d"}, "spec": spec})
    try:
        eventually(lambda: apps.read_namespaced_deployment("d", "default").status.ready_replicas == 2, "not ready")
        apps.patch_namespaced_deployment_scale("d", "default", {"spec": {"replicas": 3}})
        assert apps.read_namespaced_deployment_scale("d", "default").spec.replicas == 3
        eventually(lambda: apps.read_namespaced_deployment("d", "default").status.ready_replicas == 3, "not scaled")
        patch = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "nginx:2"}]
        apps.patch_namespaced_deployment("d", "default", patch)
        patch = {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "nginx:3"}]}}}}
        apps.patch_namespaced_deployment("d", "default", patch)
        eventually(lambda: apps.read_namespaced_deployment("d", "default").status.updated_replicas == 3, "not rolled")
        eventually(lambda: len(core.list_namespaced_pod("default", label_selector="app=d").items) == 3, "the old stay")
        victim = core.list_namespaced_pod("default", label_selector="app=d").items[0].metadata
        core.create_namespaced_pod_eviction(victim.name, "default", {"metadata": {"name": victim.name}})
        eventually(
            lambda: victim.uid not in {
                pod.metadata.uid for pod in core.list_namespaced_pod("default", label_selector="app=d").items
            },
            "the evicted pod is still there",
        )  # fmt: skip
    finally:
        apps.delete_namespaced_deployment("d", "default")


@pytest.mark.skipif(not MANIFESTS.is_dir(), reason="the manifests of others are not beside this project")
def test_the_guestbook_from_its_file(api: Any) -> None:
    path = next(MANIFESTS.rglob("guestbook-all-in-one.yaml"))
    kubernetes.utils.create_from_yaml(api, str(path))
    apps = client.AppsV1Api(api)
    for one in yaml.safe_load_all(path.read_text()):
        if one["kind"] == "Deployment":
            assert apps.read_namespaced_deployment(one["metadata"]["name"], "default").metadata.uid
            apps.delete_namespaced_deployment(one["metadata"]["name"], "default")
        else:
            client.CoreV1Api(api).delete_namespaced_service(one["metadata"]["name"], "default")


def test_a_refusal_is_a_status_that_the_client_can_read(api: Any) -> None:
    with pytest.raises(client.ApiException) as refused:
        client.CoreV1Api(api).create_namespaced_service("default", {"metadata": {"name": "s"}, "spec": {"ports": []}})
    assert refused.value.status == 422
    assert "spec.ports" in refused.value.body
