"""The parts of the API server that are functions: paths, SPDY, protobuf, tables, discovery, documents, logs."""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emunet.cluster.build import build
from emunet.cluster.control_plane import ControlPlane
from emunet.cluster.controllers.kubelet import ContainerFact, PodFact
from emunet.cluster.kinds import Registry
from emunet.cluster.load import load_text
from emunet.cluster.status import StatusError
from emunet.daemon.container_log import MAXIMUM, ContainerLog
from emunet.daemon.kube import discovery, openapi, protobuf, tables
from emunet.daemon.kube.backend import LogWish
from emunet.daemon.kube.commands import exit_status
from emunet.daemon.kube.paths import Target, parse
from emunet.daemon.kube.spdy import DICTIONARY, Data, GoneAway, Opened, Spdy, SpdyError
from emunet.daemon.volumes import binds_of, files_of, lacking_volume, with_account
from emunet.linux.specification import BindSpec

TOPOLOGY = "apiVersion: emunet/v1\nkind: Topology\nmetadata: {name: lab}\nspec: {hosts: [host1, host2]}\n"


@pytest.fixture
def plane() -> ControlPlane:
    """Two hosts and nothing else."""
    return ControlPlane(build(load_text(TOPOLOGY)).cluster)


# Paths


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/api/v1/pods", Target("v1", "pods")),
        ("/api/v1/namespaces", Target("v1", "namespaces")),
        ("/api/v1/namespaces/blue", Target("v1", "namespaces", "", "blue")),
        ("/api/v1/namespaces/blue/finalize", Target("v1", "namespaces", "", "blue", "finalize")),
        ("/api/v1/namespaces/blue/pods/", Target("v1", "pods", "blue")),
        ("/api/v1/namespaces/blue/pods/web-1/log", Target("v1", "pods", "blue", "web-1", "log")),
        ("/apis/apps/v1/deployments", Target("apps/v1", "deployments")),
        ("/apis/apps/v1/namespaces/a/deployments/b/scale", Target("apps/v1", "deployments", "a", "b", "scale")),
        ("/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Aadmin",
         Target("rbac.authorization.k8s.io/v1", "clusterroles", "", "system:admin")),
        ("/version", None),
        ("/apis/apps/v1", None),
        ("/api/v1/namespaces/a/pods/b/c/d", None),
    ],
)  # fmt: skip
def test_what_a_path_means(path: str, target: Target | None) -> None:
    assert parse(path) == target


# SPDY


def test_the_dictionary_is_that_of_the_draft() -> None:
    assert (len(DICTIONARY), zlib.adler32(DICTIONARY)) == (1423, 0xE3C6A7C2)


class Client:
    """The other side of a SPDY connection."""

    def __init__(self) -> None:
        self._deflater = zlib.compressobj(zdict=DICTIONARY)

    def open(self, stream: int, headers: dict[str, str], flags: int = 0) -> bytes:
        """SYN_STREAM."""
        text = struct.pack("!I", len(headers))
        for name, value in headers.items():
            for word in (name.encode(), value.encode()):
                text += struct.pack("!I", len(word)) + word
        block = self._deflater.compress(text) + self._deflater.flush(zlib.Z_SYNC_FLUSH)
        body = struct.pack("!IIH", stream, 0, 0) + block
        return struct.pack("!HHI", 0x8003, 1, flags << 24 | len(body)) + body


def test_streams_are_opened_answered_and_carry_bytes() -> None:
    client, server = Client(), Spdy()
    sent = client.open(1, {"streamtype": "error"}) + client.open(3, {"streamtype": "stdin"}, 1)
    events = [event for index in range(len(sent)) for event in server.feed(sent[index : index + 1])]
    assert events == [Opened(1, {"streamtype": "error"}), Opened(3, {"streamtype": "stdin"}, True)]
    reply = server.take()
    assert struct.unpack_from("!HHI", reply)[:2] == (0x8003, 2)
    assert server.feed(struct.pack("!II", 3, 1 << 24 | 2) + b"hi") == [Data(3, b"hi", True)]
    ping = struct.pack("!HHII", 0x8003, 6, 4, 7)
    assert server.feed(ping) == []
    assert server.take() == ping
    assert server.feed(struct.pack("!HHIII", 0x8003, 7, 8, 0, 0)) == [GoneAway()]
    server.send(1, b"x" * 70_000, end=True)
    out, lengths = server.take(), []
    while out:
        stream, word = struct.unpack_from("!II", out)
        assert stream == 1
        lengths.append((word & 0xFFFFFF, word >> 24))
        out = out[8 + (word & 0xFFFFFF) :]
    assert lengths == [(32768, 0), (32768, 0), (4464, 1)]


@given(st.binary(max_size=200))
def test_no_bytes_break_the_server(data: bytes) -> None:
    server = Spdy()
    try:
        server.feed(data)
    except SpdyError:
        return


def test_how_a_program_ended() -> None:
    assert exit_status(0) == {"metadata": {}, "status": "Success"}
    assert exit_status(3)["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]


# Protobuf


def field(number: int, content: bytes | str | int) -> bytes:
    """One field of a message; numbers and lengths below 128."""
    if isinstance(content, int):
        return bytes((number << 3, content))
    data = content.encode() if isinstance(content, str) else content
    return bytes((number << 3 | 2, len(data))) + data


def body(api_version: str, kind: str, raw: bytes) -> bytes:
    """A body as kubectl sends it."""
    return protobuf.MAGIC + field(1, field(1, api_version) + field(2, kind)) + field(2, raw)


def test_a_deployment_as_create_sends_it() -> None:
    container = field(1, "web") + field(2, "nginx") + field(6, field(2, 0) + field(3, 80))
    template = field(1, field(11, field(1, "app") + field(2, "web"))) + field(2, field(2, container))
    spec = field(1, 3) + field(3, template)
    data = body("apps/v1", "Deployment", field(1, field(1, "web")) + field(2, spec))
    assert protobuf.decode(data) == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 3,
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "nginx", "ports": [{"containerPort": 80}]}]},
            },
        },
    }


def test_texts_numbers_bytes_and_what_is_inlined() -> None:
    port = field(2, "TCP") + field(3, 80) + field(4, field(1, 1) + field(3, "http"))
    assert protobuf.decode(body("v1", "Service", field(2, field(1, port))))["spec"]["ports"] == [
        {"protocol": "TCP", "port": 80, "targetPort": "http"}
    ]
    secret = protobuf.decode(body("v1", "Secret", field(2, field(1, "a") + field(2, b"\x00\xff"))))
    assert secret["data"] == {"a": "AP8="}
    volume = field(1, "v") + field(2, field(2, b""))
    pod = protobuf.decode(body("v1", "Pod", field(2, field(1, volume))))
    assert pod["spec"]["volumes"] == [{"name": "v", "emptyDir": {}}]


@pytest.mark.parametrize(
    "data",
    [
        body("v1", "Pod", field(2, b"\xfa\x3f\x01x")),  # field 1023 of a PodSpec
        body("example.com/v1", "Widget", b""),
        protobuf.MAGIC + b"\x12\x7f",
        protobuf.MAGIC + b"\xff" * 20,
    ],
)
def test_what_is_not_known_is_refused(data: bytes) -> None:
    with pytest.raises(StatusError) as error:
        protobuf.decode(data)
    assert error.value.code == 415


# What the server says of itself


def test_discovery_lists_every_kind_and_names_no_short_name_twice() -> None:
    kinds = Registry()
    versions = [one["groupVersion"] for group in discovery.groups(kinds)["groups"] for one in group["versions"]]
    lists = [discovery.resources(kinds, version) for version in ["v1", *versions]]
    found = [resource for one in lists if one is not None for resource in one["resources"]]
    assert {one["kind"] for one in found} >= {kind.name for kind in kinds}
    short = {(name, one["name"]) for one in found for name in one.get("shortNames", ())}
    assert len(short) == len({name for name, _ in short})
    assert all({"name", "singularName", "namespaced", "kind", "verbs"} <= one.keys() for one in found)
    assert discovery.resources(kinds, "nothing/v1") is None
    assert discovery.version()["major"] == "1"


def test_documents_describe_every_kind() -> None:
    kinds = Registry()
    document = openapi.document_v2(kinds)
    assert document.startswith(b"\x0a\x032.0")
    for kind in kinds:
        assert f"kind: {kind.name}\n".encode() in document
    for name in ("PodSpec", "EventV1", "CustomResourceDefinition.v1.apiextensions.k8s.io"):
        assert f"io.emunet.{name}".encode() in document, "kubectl up to 1.23 looks fields up here"
    assert openapi.document_v2(kinds) is document, "it is made once"
    apps: Any = openapi.document_v3(kinds, "apps/v1")
    schemas = apps["components"]["schemas"]
    assert "replicas" in schemas["io.emunet.DeploymentSpec"]["properties"]
    assert schemas["io.emunet.DeploymentSpec"]["required"] == ["selector", "template"]
    references = set(json.dumps(apps).split('"#/components/schemas/')[1:])
    assert {one.partition('"')[0] for one in references} <= schemas.keys()


# Tables


def cells(plane: ControlPlane, word: str, item: dict[str, Any]) -> list[Any]:
    """The cells of one row, a minute and five seconds after the beginning."""
    found: list[Any] = tables.row(plane.store, plane.find(word), item, 65 * 10**9)["cells"]
    return found


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({}, ["web", "1/1", "Running", 0, "65s"]),
        ({"containerStatuses": [{"restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]},
         ["web", "0/1", "CrashLoopBackOff", 3, "65s"]),
        ({"containerStatuses": [{"state": {"terminated": {"exitCode": 2}}}]}, ["web", "0/1", "ExitCode:2", 0, "65s"]),
        ({"initContainerStatuses": [{"state": {"waiting": {"reason": "PodInitializing"}}}]},
         ["web", "0/1", "Init:0/1", 0, "65s"]),
        ({"phase": "Pending", "containerStatuses": []}, ["web", "0/1", "Pending", 0, "65s"]),
    ],
)  # fmt: skip
def test_the_row_of_a_pod(plane: ControlPlane, change: dict[str, Any], shown: list[Any]) -> None:
    running = [{"ready": True, "restartCount": 0, "state": {"running": {}}}]
    first = [{"name": "i"}] if "initContainerStatuses" in change else []
    pod = {
        "kind": "Pod",
        "metadata": {"name": "web", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"containers": [{"name": "c"}], "initContainers": first},
        "status": {"phase": "Running", "containerStatuses": running, **change},
    }  # fmt: skip
    assert cells(plane, "pod", pod)[:5] == shown


def test_every_column_has_a_cell(plane: ControlPlane) -> None:
    spec = {
        "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}],
        "type": "LoadBalancer",
        "selector": {"a": "b"},
    }
    service = {"kind": "Service", "metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec}
    assert cells(plane, "svc", service) == ["a", "LoadBalancer", "<none>", "<pending>", "80:30080/TCP", "65s", "a=b"]
    for kind in plane.store.kinds:
        item = {"kind": kind.name, "metadata": {"name": "x"}, "spec": {}, "status": {}}
        made = tables.table(plane.store, kind, [item], 0)
        assert len(made["rows"][0]["cells"]) == len(made["columnDefinitions"]), kind.name


# Status of pods, from facts

POD_SPEC = {"containers": [{"name": "c", "image": "x"}]}


@pytest.mark.parametrize(
    ("policy", "facts", "phase", "ready"),
    [
        ("Always", {}, "Running", "True"),
        ("Always", {"c": ContainerFact("waiting", False, program=True)}, "Pending", "False"),
        ("Always", {"c": ContainerFact("terminated", False, code=1, program=True)}, "Running", "False"),
        ("Never", {"c": ContainerFact("terminated", False, code=0, program=True)}, "Succeeded", "False"),
        ("Never", {"c": ContainerFact("terminated", False, code=1, program=True)}, "Failed", "False"),
        ("OnFailure", {"c": ContainerFact("terminated", False, code=0, program=True)}, "Succeeded", "False"),
        ("Always", {"c": ContainerFact("running", False, program=True)}, "Running", "False"),
    ],
)
def test_what_a_pods_status_says(
    plane: ControlPlane, policy: str, facts: dict[str, ContainerFact], phase: str, ready: str
) -> None:
    spec = {"restartPolicy": policy, "nodeName": "host1", "containers": [{"name": "c", "image": "x"}]}
    made = plane.request(0).create(plane.find("pod"), {"metadata": {"name": "a"}, "spec": spec})
    plane.settle(0)
    plane.tell({made["metadata"]["uid"]: PodFact(("10.244.1.2",), 0, facts)})
    plane.settle(0)
    status = (plane.store.get("pods", "default", "a") or {})["status"]
    assert (status["phase"], status["podIP"], status["hostIP"]) == (phase, "10.244.1.2", "192.168.9.11")
    assert next(one["status"] for one in status["conditions"] if one["type"] == "Ready") == ready


def test_a_sidecar_that_has_begun_lets_its_pod_run_and_counts_for_its_readiness(plane: ControlPlane) -> None:
    side = {"name": "s", "image": "x", "restartPolicy": "Always"}
    spec = {"nodeName": "host1", "initContainers": [side], "containers": [{"name": "c", "image": "x"}]}
    made = plane.request(0).create(plane.find("pod"), {"metadata": {"name": "a"}, "spec": spec})
    for state, shown in (("waiting", ["0/2", "Init:0/1"]), ("running", ["2/2", "Running"])):
        fact = ContainerFact(state, state == "running", program=True)  # type: ignore[arg-type]
        plane.tell({made["metadata"]["uid"]: PodFact(("10.244.1.2",), 0, {"s": fact})})
        plane.settle(0)
        item = plane.store.get("pods", "default", "a")
        assert item is not None
        word, ready, total, _ = tables.pod_status(plane.store, item)
        assert [f"{ready}/{total}", word] == shown


def test_a_readiness_gate_is_shut_until_somebody_opens_it(plane: ControlPlane) -> None:
    spec = {"nodeName": "host1", "readinessGates": [{"conditionType": "lb/in"}]} | POD_SPEC
    made = plane.request(0).create(plane.find("pod"), {"metadata": {"name": "a"}, "spec": spec})
    plane.tell({made["metadata"]["uid"]: PodFact(("10.244.1.2",), 0, {})})
    said = []
    for gate in (None, "False", "True"):
        if gate is not None:
            change = {"status": {"conditions": [{"type": "lb/in", "status": gate}]}}
            plane.request(0).patch(plane.find("pod"), "default", "a", change, "strategic", part="status")
        plane.settle(0)
        conditions = (plane.store.get("pods", "default", "a") or {})["status"]["conditions"]
        (one,) = (one for one in conditions if one["type"] == "Ready")
        said.append((one["status"], one.get("message", "")))
    assert said == [
        ("False", 'corresponding condition of pod readiness gate "lb/in" does not exist.'),
        ("False", 'the status of pod readiness gate "lb/in" is not "True", but False'),
        ("True", ""),
    ]


def test_what_has_no_effect_is_said_in_an_event(plane: ControlPlane) -> None:
    container = {"name": "c", "image": "x", "securityContext": {"privileged": True, "runAsUser": 5}}
    container["resources"] = {"limits": {"cpu": "1"}}
    volumes = [{"name": "data", "nfs": {"server": "x", "path": "/"}}]
    spec = {"nodeName": "host1", "hostPID": True, "containers": [container], "volumes": volumes}
    made = plane.request(0).create(plane.find("pod"), {"metadata": {"name": "a"}, "spec": spec})
    plane.tell({made["metadata"]["uid"]: PodFact(("10.244.1.2",), 0, {})})
    plane.settle(0)
    (told,) = (one["message"] for one in plane.store.select("events") if one["reason"] == "NoEffect")
    assert told == (
        "Accepted without effect in a lab: hostPID, containers[0].resources.limits, "
        "containers[0].securityContext.privileged, volume data (nfs)"
    )


# Logs and volumes


def test_a_log_is_bounded_and_can_be_asked_for_in_parts() -> None:
    time = [0]
    log = ContainerLog(lambda: time[0], lambda at: f"T{at // 10**9}")
    for number in range(4):
        time[0] = number * 10**9
        log.add(f"line {number}\nline".encode())
    log.end()
    lines = list(log.lines(log.start_of(LogWish(tail=2)), timestamps=True))
    assert lines == [b"T3 lineline 3\n", b"T3 line\n"]
    assert len(list(log.lines(log.start_of(LogWish(since=1)), timestamps=False))) == 3
    big = ContainerLog(lambda: 0, str)
    big.add(b"x" * 999 + b"\n")
    for _ in range(2 * MAXIMUM // 1000):
        big.add(b"y" * 999 + b"\n")
    kept = b"".join(big.lines(0, timestamps=False))
    assert len(kept) <= MAXIMUM
    assert b"x" not in kept


def test_volumes_as_files_and_folders(plane: ControlPlane) -> None:
    request = plane.request(0)
    request.create(plane.find("cm"), {"metadata": {"name": "page"}, "data": {"index.html": "hi", "b": "2"}})
    request.create(plane.find("secret"), {"metadata": {"name": "key"}, "stringData": {"token": "t"}})
    pod = {
        "metadata": {"name": "a", "namespace": "default", "labels": {"app": "web"}},
        "spec": {
            "volumes": [
                {"name": "page", "configMap": {"name": "page", "items": [
                    {"key": "index.html", "path": "i.html", "mode": 0o755}]}},
                {"name": "key", "secret": {"secretName": "key", "defaultMode": 0o400}},
                {"name": "me", "downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
                {"name": "tmp", "emptyDir": {}},
                {"name": "host", "hostPath": {"path": "/data"}},
                {"name": "gone", "configMap": {"name": "gone"}},
            ],
            "containers": [
                {"name": "c", "volumeMounts": [
                    {"name": "page", "mountPath": "/www"}, {"name": "key", "mountPath": "/key"},
                    {"name": "me", "mountPath": "/me"}, {"name": "tmp", "mountPath": "/a"},
                    {"name": "gone", "mountPath": "/gone"}]},
                {"name": "d", "volumeMounts": [
                    {"name": "tmp", "mountPath": "/b", "readOnly": True, "subPath": "in/it"},
                    {"name": "key", "mountPath": "/a/key", "subPath": "token"},
                    {"name": "host", "mountPath": "/host", "readOnly": True},
                    {"name": "key", "mountPath": "/etc"}]},
            ],
        },
    }  # fmt: skip
    assert files_of(plane.store, pod) == {
        "/www/i.html": ("hi", 0o755), "/key/token": ("t", 0o400), "/me/l": ('app="web"', 0o644),
        "/a/key": ("t", 0o400), "/etc/token": ("t", 0o400),
    }  # fmt: skip
    assert binds_of(pod, "/store") == (
        BindSpec("/", "/www", True, volume="page"),
        BindSpec("/", "/key", True, volume="key"),
        BindSpec("/", "/me", True, volume="me"),
        BindSpec("/", "/a", volume="tmp"),
        BindSpec("/", "/gone", True, volume="gone"),
        BindSpec("/in/it", "/b", True, volume="tmp"),
        BindSpec("/data", "/host", True, within="/store"),
    ), "a file by itself is no mount, and /etc stays the pod's own"


@pytest.mark.parametrize(
    ("of_pod", "of_account", "there"),
    [({}, {}, True), ({"automountServiceAccountToken": False}, {}, False),
     ({}, {"automountServiceAccountToken": False}, False),
     ({"automountServiceAccountToken": True}, {"automountServiceAccountToken": False}, True)],
)  # fmt: skip
def test_what_a_service_account_shows_to_the_api(
    plane: ControlPlane, of_pod: dict[str, Any], of_account: dict[str, Any], there: bool
) -> None:
    plane.trust("PEM")
    plane.settle(0)
    account = {"metadata": {"name": "robot"}, **of_account}
    plane.request(0).create(plane.find("sa"), account)
    spec = {"serviceAccountName": "robot", "containers": [{"name": "c", "image": "x"}], **of_pod}
    pod = with_account(plane.store, {"metadata": {"name": "a", "namespace": "default"}, "spec": spec})
    files = files_of(plane.store, pod, lambda namespace, name: f"{namespace}/{name}")
    folder = "/var/run/secrets/kubernetes.io/serviceaccount"
    wanted = {"token": "default/robot", "ca.crt": "PEM", "namespace": "default"} if there else {}
    assert files == {f"{folder}/{name}": (text, 0o644) for name, text in wanted.items()}
    assert [one.target for one in binds_of(pod, "/store")] == [folder] * there


def test_the_first_key_that_is_not_there_is_named(plane: ControlPlane) -> None:
    plane.request(0).create(plane.find("cm"), {"metadata": {"name": "page"}, "data": {"b": "2"}})
    items = [{"key": key, "path": key} for key in ("b", "z", "a")]
    volumes = [{"name": "v", "configMap": {"name": "page", "items": items}}]
    why = lacking_volume(plane.store, {"metadata": {"namespace": "default"}, "spec": {"volumes": volumes}})
    assert why == 'MountVolume.SetUp failed for volume "v" : references non-existent config key: z'
