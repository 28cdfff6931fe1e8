"""Kubernetes objects: what is taken as it is, what is taken with a warning, where a List ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from emunet.cluster.build import build
from emunet.cluster.desired import Desired
from emunet.cluster.kinds import KINDS as STORED
from emunet.cluster.load import load_text
from emunet.cluster.objects import KINDS, PodSpec, is_stored
from emunet.cluster.schema import NoEffect, did_you_mean

TOPOLOGY = "apiVersion: emunet/v1\nkind: Topology\nmetadata: {name: lab}\nspec: {hosts: [host1, host2]}\n---\n"


def built(manifest: str) -> Desired:
    """What a manifest asks for, in a lab of two hosts; its first line is line 6."""
    return build(load_text(TOPOLOGY + manifest, "lab.yaml"))


# Pods as they stand in Kubernetes' own examples: a field that emunet does not know of yet must not stop them.
FROM_THE_WILD = """\
apiVersion: v1
kind: Pod
metadata:
  name: redis-master
  labels: {name: redis, redis-sentinel: "true", app.kubernetes.io/part-of: shop}
  annotations:
    prometheus.io/scrape: "true"
  creationTimestamp: null
spec:
  hostname: busybox-1
  subdomain: default-subdomain
  restartPolicy: Never
  nodeSelector:
    kubernetes.io/os: linux
  containers:
    - name: master
      image: gcr.io/kubernetes-e2e-test-images/redis:1.0
      command: [redis-server, --port, "6379"]
      args: []
      workingDir: /data
      env:
        - {name: MASTER, value: "true"}
        - name: POD_IP
          valueFrom: {fieldRef: {fieldPath: status.podIP}}
      ports:
        - containerPort: 6379
        - {containerPort: 53, protocol: UDP, name: dns}
      resources: {limits: {cpu: "0.5"}}
      volumeMounts: [{mountPath: /data, name: data}]
      livenessProbe: {tcpSocket: {port: 6379}}
  tolerations: []
  volumes:
    - {name: data, emptyDir: {}}
  dnsPolicy: "None"
  dnsConfig: {nameservers: [192.0.2.1]}
status:
  phase: Running
"""


def test_a_pod_of_the_wild_is_taken_with_a_warning_for_what_has_no_effect() -> None:
    desired = built(FROM_THE_WILD)
    assert [str(warning) for warning in desired.warnings] == [
        "lab.yaml:33:7: spec.containers[0].resources: accepted, has no effect yet",
        "lab.yaml:41:1: status: accepted, has no effect yet",
    ]


def test_what_has_an_effect_arrives_whole() -> None:
    (pod,) = built(FROM_THE_WILD).pods
    (container,) = pod.containers
    assert (pod.namespace, pod.name, pod.port, pod.hostname) == ("default", "redis-master", "redis-master", "busybox-1")
    assert (pod.restart_policy, pod.host_network) == ("Never", False)
    assert dict(pod.labels)["app.kubernetes.io/part-of"] == "shop"
    assert pod.annotations == (("prometheus.io/scrape", "true"),)
    assert container.command == ("redis-server", "--port", "6379")
    assert (container.args, container.working_directory) == ((), "/data")
    assert container.environment == (("MASTER", "true"), ("POD_IP", ""))
    assert [(port.number, port.protocol, port.name) for port in container.ports] == [
        (6379, "TCP", ""),
        (53, "UDP", "dns"),
    ]
    assert pod.origin is not None
    assert (pod.origin.file, pod.origin.line, pod.origin.column) == ("lab.yaml", 9, 9)


def test_null_is_the_same_as_nothing() -> None:
    desired = built(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: null, uid: ~}\n"
        "spec:\n  nodeName:\n  tolerations:\n  containers: [{name: a, image: b, command: null, ports: ~}]\n"
    )
    assert desired.warnings == ()
    assert desired.pods[0].containers[0].command == ()


@pytest.mark.parametrize(
    ("name", "hostname"),
    [("web-1", "web-1"), ("a.b", "a.b"), ("x" * 70, "x" * 63), (f"{'x' * 62}-y", "x" * 62)],
)
def test_a_pods_host_name_is_its_name_cut_to_63(name: str, hostname: str) -> None:
    desired = built(
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: a, image: b}}]}}\n"
    )
    assert desired.pods[0].hostname == hostname


def test_pods_of_two_namespaces_may_share_a_name() -> None:
    kind = "apiVersion: v1\nkind: Pod\n"
    spec = "spec: {containers: [{name: a, image: b}]}\n"
    metadata = [f"metadata: {{name: web-1, namespace: {name}}}\n" for name in ("default", "blue", "green")]
    desired = built("---\n".join(kind + names + spec for names in metadata))
    assert [pod.port for pod in desired.pods] == ["blue/web-1", "web-1", "green/web-1"]


def test_a_list_is_the_objects_in_it() -> None:
    kind = "  - apiVersion: v1\n    kind: Pod\n"
    spec = "    spec: {containers: [{name: a, image: b}]}\n"
    items = [f"{kind}    metadata: {{name: {name}, uid: x}}\n{spec}" for name in ("a", "b")]
    desired = built("apiVersion: v1\nkind: List\nitems:\n" + "".join(items))
    assert [pod.port for pod in desired.pods] == ["a", "b"]
    assert str(desired.warnings[1]) == "lab.yaml:15:25: items[1].metadata.uid: accepted, has no effect yet"


def test_objects_that_only_the_store_heeds_are_passed_over() -> None:
    documents = load_text("apiVersion: v1\nkind: Service\n---\napiVersion: v1\nkind: Pod\n---\nkind: Service\n")
    assert [is_stored(document) for document in documents] == [True, False, False]
    assert built("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n").pods == ()
    assert set(KINDS) == {"Topology", "Pod"}


def test_every_field_of_a_pod_either_acts_or_warns() -> None:
    acting = {
        name for name, field in PodSpec.model_fields.items() if not any(isinstance(m, NoEffect) for m in field.metadata)
    }
    assert acting == {
        "affinity", "containers", "dns_config", "dns_policy", "enable_service_links", "host_aliases", "host_network",
        "hostname", "init_containers", "node_name", "node_selector", "readiness_gates", "restart_policy",
        "scheduler_name", "scheduling_gates", "security_context", "set_hostname_as_fqdn", "subdomain",
        "termination_grace_period_seconds",
        "tolerations", "volumes",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("contaners", "; did you mean 'containers'?"),
        ("HOSTNAME", "; did you mean 'hostname'?"),
        ("restart_policy", "; did you mean 'restartPolicy'?"),
        ("zzz", ""),
    ],
)
def test_a_misspelt_name_is_told_the_near_one(name: str, hint: str) -> None:
    assert did_you_mean(name, ["containers", "hostname", "restartPolicy"]) == hint


def test_the_readme_says_which_kinds_have_no_effect() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    told = readme.partition("said to have no effect on the network: ")[2].partition(" and more.")[0].split(", ")
    assert told
    assert set(told) <= {kind.name for kind in STORED if not kind.effect}
