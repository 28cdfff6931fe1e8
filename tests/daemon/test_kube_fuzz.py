"""Whatever is asked of the API server, in whatever way: an answer in the API's own form, and no fault of ours.

`UNUSUAL` are questions that once had another answer, or that a client might ask any day.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emunet.cluster.kinds import KINDS
from tests.daemon.asker import Asker

PODS = "/api/v1/namespaces/default/pods"


@pytest.fixture(scope="module")
def asker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asker]:
    made = Asker(tmp_path_factory.mktemp("fuzz"))
    created, _, _ = made.ask("POST", PODS, json.dumps({
        "metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "x"}], "nodeName": "host1"},
    }).encode())  # fmt: skip
    assert created == 201
    try:
        yield made
    finally:
        made.close()


def check(answer: tuple[int, str, bytes], method: str) -> None:
    """An answer of the API: no fault of ours, and a refusal is a Status that says something."""
    code, content_type, body = answer
    assert code < 500, body
    if code < 400 or method == "HEAD":
        return
    assert content_type == "application/json"
    status = json.loads(body)
    assert (status["kind"], status["apiVersion"], status["status"]) == ("Status", "v1", "Failure")
    assert status["code"] == code
    assert status["message"]


UNUSUAL = [
    ("PATCH", f"{PODS}/a", b"[]", "application/merge-patch+json"),
    ("PATCH", f"{PODS}/a", b"{}", "application/json-patch+json"),
    (
        "PATCH",
        f"{PODS}/a",
        b'[{"op": "add", "path": "/spec/containers/-1/x", "value": 1}]',
        "application/json-patch+json",
    ),
    ("PATCH", f"{PODS}/a", b'{"metadata": []}', "application/strategic-merge-patch+json"),
    ("PATCH", f"{PODS}/a", b'{"spec": {"containers": {"name": "c"}}}', "application/strategic-merge-patch+json"),
    ("PATCH", f"{PODS}/a/status", b'{"status": 5}', "application/merge-patch+json"),
    ("POST", PODS, b"[]", "application/json"),
    ("POST", PODS, b'"text"', "application/json"),
    ("POST", PODS, b"null", "application/json"),
    ("POST", PODS, b'{"metadata": {"name": 5}}', "application/json"),
    ("POST", PODS, b'{"metadata": null, "spec": {}}', "application/json"),
    ("POST", PODS, b'{"metadata": {"name": "b"}, "spec": {"containers": null}}', "application/json"),
    ("POST", PODS, b"k8s\0", "application/vnd.kubernetes.protobuf"),
    ("POST", PODS, b"\xff\xfe", "application/json"),
    ("POST", PODS, b"a: [", "application/yaml"),
    ("PUT", f"{PODS}/a", b"{}", "application/json"),
    ("PUT", f"{PODS}/a/status", b"[]", "application/json"),
    ("DELETE", f"{PODS}/a", b"[]", "application/json"),
    ("DELETE", f"{PODS}/none", b'{"gracePeriodSeconds": "x"}', "application/json"),
    ("DELETE", f"{PODS}/a?gracePeriodSeconds=x", b"", ""),
    ("POST", f"{PODS}/a/eviction", b"[]", "application/json"),
    ("POST", f"{PODS}/a/binding", b'{"target": 5}', "application/json"),
    ("GET", f"{PODS}?limit=x", b"", ""),
    ("GET", f"{PODS}?continue=x", b"", ""),
    ("GET", f"{PODS}?continue=WzFd", b"", ""),
    ("GET", f"{PODS}?watch=1&timeoutSeconds=x", b"", ""),
    ("GET", f"{PODS}?watch=1&timeoutSeconds=0&resourceVersion=x", b"", ""),
    ("GET", f"{PODS}?watch=1&timeoutSeconds=1&resourceVersion=99999999999", b"", ""),
    ("GET", f"{PODS}?fieldSelector=spec.containers=x", b"", ""),
    ("GET", f"{PODS}?labelSelector=a%00b", b"", ""),
    ("GET", f"{PODS}/a/log?tailLines=x&container=none", b"", ""),
    ("GET", f"{PODS}/a/log?previous=true", b"", ""),
    ("GET", f"{PODS}/a/exec", b"", ""),
    ("GET", f"{PODS}/a/attach", b"", ""),
    ("GET", f"{PODS}/a/portforward", b"", ""),
    ("GET", f"{PODS}/a/proxy/index.html", b"", ""),
    ("GET", "/api/v1/namespaces/default/services/kubernetes/proxy/", b"", ""),
    ("PATCH", "/apis/apps/v1/namespaces/default/deployments/none/scale", b"[]", "application/json-patch+json"),
    ("POST", "/apis/apps/v1/namespaces/none/deployments", b"{}", "application/json"),
    ("PUT", "/api/v1/namespaces/default/finalize", b"[]", "application/json"),
    ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", b"[]", "application/json"),
    ("GET", "/apis/metrics.k8s.io/v1beta1/nodes", b"", ""),
    ("GET", "/openapi/v3/apis/none/v1", b"", ""),
    ("GET", "/swaggerapi", b"", ""),
    ("GET", "//api//v1//pods", b"", ""),
    ("GET", "/api/v1/pods/..%2f..%2fetc", b"", ""),
    ("OPTIONS", "/api/v1/pods", b"", ""),
    ("HEAD", "/api/v1/pods", b"", ""),
    ("TRACE", "/version", b"", ""),
]


@pytest.mark.parametrize(("method", "path", "body", "content_type"), UNUSUAL)
def test_what_is_unusual_is_answered(asker: Asker, method: str, path: str, body: bytes, content_type: str) -> None:
    check(asker.ask(method, path, body, **({"Content_Type": content_type} if content_type else {})), method)


_WORDS = st.sampled_from(
    ["", "api", "apis", "v1", "apps", "v1beta1", "extensions", "namespaces", "default", "none", "a", "kubernetes",
     "host1", "status", "scale", "log", "exec", "attach", "portforward", "eviction", "binding", "proxy", "token",
     "finalize", "version", "openapi", "v2", "v3", "healthz", "%00", "%2e%2e", "%C3%A4", "x" * 300]
)  # fmt: skip
_PLURALS = st.sampled_from(sorted({kind.plural for kind in KINDS}))
_VERSIONS = st.sampled_from(
    sorted({f"/apis/{kind.group}/{kind.versions[0]}" if kind.group else "/api/v1" for kind in KINDS})
)
_SPACES = st.sampled_from(["", "/namespaces/default", "/namespaces/none"])
_PATHS = st.one_of(
    st.lists(st.one_of(_WORDS, _PLURALS), max_size=9).map(lambda words: "/" + "/".join(words)),
    st.tuples(_VERSIONS, _SPACES, _PLURALS, st.lists(_WORDS, max_size=2)).map(
        lambda parts: "/".join([parts[0] + parts[1], parts[2], *parts[3]])
    ),
)
_NAMES = st.sampled_from(
    ["limit", "continue", "labelSelector", "fieldSelector", "resourceVersion", "dryRun", "force", "fieldValidation",
     "includeObject", "sendInitialEvents", "container", "command", "tailLines", "gracePeriodSeconds", "follow",
     "propagationPolicy", "fieldManager", "pretty"]
)  # fmt: skip
_SETTINGS = st.sampled_from(
    ["", "0", "1", "-1", "x", "true", "All", "a=b", "a!=b,c+in+(d)", "metadata.name=a", "Strict", "%00"]
)
_QUERIES = st.lists(st.tuples(_NAMES, _SETTINGS), max_size=3).map(
    lambda pairs: "?" + "&".join(f"{name}={value}" for name, value in pairs)
)
_FIELDS = st.sampled_from(
    ["apiVersion", "kind", "metadata", "name", "namespace", "labels", "spec", "status", "replicas", "selector",
     "template", "containers", "ports", "port", "protocol", "$patch", "op", "path", "value", "items", "data",
     "clusterIP", "rules", "matchLabels", "finalizers", "ownerReferences", "resourceVersion", "target", "image",
     "deleteOptions", "preconditions", "volumes", "env", "nodeName", "annotations", "tolerations", "subsets"]
)  # fmt: skip
_LEAVES = st.sampled_from(["a", "default", "Pod", "v1", "10.96.0.5", None, True, -1, 0, 80, 70_000])
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_FIELDS, inner, max_size=5)),
    max_leaves=20,
)
_OBJECTS = st.fixed_dictionaries(
    {"metadata": st.fixed_dictionaries({"name": st.sampled_from(["a", "b", "B_"])}), "spec": _VALUES}
)
_BODIES = st.one_of(
    st.just(b""),
    st.one_of(_VALUES, _OBJECTS).map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=40),
    st.binary(max_size=40).map(lambda data: b"k8s\0" + data),
)
_TYPES = st.sampled_from(
    ["application/json", "application/yaml", "application/merge-patch+json", "application/json-patch+json",
     "application/strategic-merge-patch+json", "application/apply-patch+yaml", "application/vnd.kubernetes.protobuf",
     "text/plain", "nonsense"]
)  # fmt: skip
_ACCEPTS = st.sampled_from(
    ["*/*", "application/json", "text/html", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json", ";;"]
)
_METHODS = st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"])


@settings(max_examples=500)
@given(_METHODS, _PATHS, _QUERIES, _BODIES, _TYPES, _ACCEPTS)
def test_whatever_is_asked_is_answered(
    asker: Asker, method: str, path: str, query: str, body: bytes, content_type: str, accept: str
) -> None:
    check(asker.ask(method, path + query, body, Content_Type=content_type, Accept=accept), method)
