"""What kubectl can do to objects, verb by verb: each with an old and with the newest one."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubectls import KUBECTLS, Kubectl
from lab_driver import Labs, eventually

pytestmark = pytest.mark.skipif(not KUBECTLS, reason="kubectl is not installed: `make deps`")

WEB = """apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: "nginx:1"}]}
"""
BUDGET = """apiVersion: policy/v1%s
kind: PodDisruptionBudget
metadata: {name: web}
spec: {minAvailable: 2, selector: {matchLabels: {app: web}}}
"""


@pytest.fixture
def web(kubectl: Kubectl) -> Iterator[Kubectl]:
    """A Deployment of two pods that are ready."""
    kubectl.ok("create", "-f", "-", stdin=WEB)
    kubectl.ok("rollout", "status", "deploy/web", "--timeout=20s")
    yield kubectl
    kubectl.run("uncordon", "host2")
    kubectl.run("delete", "pdb,cm,secret,ds,hpa", "--all")


def test_edit(web: Kubectl, tmp_path: Path) -> None:
    """An editor changes it; one that makes it wrong gets the message at the top of the file, and nothing changes."""
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i 's/replicas: 2/replicas: 3/' \"$1\"\n")
    editor.chmod(0o755)
    web.environment["KUBE_EDITOR"] = str(editor)
    assert web.ok("edit", "deploy/web") == "deployment.apps/web edited\n"
    assert web.ok("get", "deploy", "web", "-o", "jsonpath={.spec.replicas}") == "3"
    seen = tmp_path / "seen"
    editor.write_text(f'#!/bin/sh\ncp "$1" {seen}; sed -i \'s/replicas: 3/replicas: -3/\' "$1"\n')
    refused = web.run("edit", "deploy/web")
    assert refused.returncode == 1
    assert "must be greater than or equal to 0" in seen.read_text()
    assert web.ok("get", "deploy", "web", "-o", "jsonpath={.spec.replicas}") == "3"


def test_replace(web: Kubectl) -> None:
    """Whole for whole; what is not there cannot be replaced; by force it is another object."""
    uid = web.ok("get", "deploy", "web", "-o", "jsonpath={.metadata.uid}")
    assert web.ok("replace", "-f", "-", stdin=WEB.replace("nginx:1", "nginx:2")) == "deployment.apps/web replaced\n"
    assert web.ok("get", "deploy", "web", "-o", "jsonpath={.metadata.uid}") == uid
    absent = web.run("replace", "-f", "-", stdin=WEB.replace("name: web", "name: none", 1))
    assert 'deployments.apps "none" not found' in absent.stderr
    web.ok("replace", "--force", "-f", "-", stdin=WEB)
    assert web.ok("get", "deploy", "web", "-o", "jsonpath={.metadata.uid}") != uid


def test_rollouts(web: Kubectl) -> None:
    """History with causes, back to any revision, paused and resumed, restarted."""
    ok = web.ok
    for number in (2, 3):
        ok("set", "image", "deploy/web", f"c=nginx:{number}")
        ok("annotate", "deploy", "web", f"kubernetes.io/change-cause=number {number}", "--overwrite")
        ok("rollout", "status", "deploy/web", "--timeout=20s")
    assert "number 3" in ok("rollout", "history", "deploy/web")
    assert "nginx:2" in ok("rollout", "history", "deploy/web", "--revision=2")
    assert "rolled back" in ok("rollout", "undo", "deploy/web", "--to-revision=1")
    ok("rollout", "status", "deploy/web", "--timeout=20s")
    assert ok("get", "deploy", "web", "-o", "jsonpath={.spec.template.spec.containers[0].image}") == "nginx:1"
    ok("rollout", "pause", "deploy/web")
    ok("set", "env", "deploy/web", "A=b")
    assert ok("get", "deploy", "web", "-o", "jsonpath={.status.updatedReplicas}") in ("", "0")
    ok("rollout", "resume", "deploy/web")
    ok("rollout", "status", "deploy/web", "--timeout=20s")
    before = set(ok("get", "pods", "-l", "app=web", "-o", "name").split())
    ok("rollout", "restart", "deploy/web")
    ok("rollout", "status", "deploy/web", "--timeout=20s")
    eventually(lambda: not before & set(ok("get", "pods", "-l", "app=web", "-o", "name").split()), "the old stay")


def test_drain_keeps_to_a_budget(web: Kubectl) -> None:
    """No pod goes while that would leave too few; a DaemonSet's stays; uncordoned, the node takes pods again."""
    ok = web.ok
    daemon = WEB.replace("kind: Deployment", "kind: DaemonSet").replace("  replicas: 2\n", "").replace("web", "agent")
    ok("create", "-f", "-", stdin=daemon)
    version = "beta1" if "policy/v1\n" not in ok("api-versions") else ""
    ok("create", "-f", "-", stdin=BUDGET % version)
    assert ok("get", "pdb", "web").split()[-5:-1] == ["web", "2", "N/A", "0"]
    refused = web.run("drain", "host2", "--ignore-daemonsets", "--timeout=2s")
    assert refused.returncode == 1
    assert "Cannot evict pod as it would violate the pod's disruption budget." in refused.stderr
    assert len(ok("get", "pods", "-l", "app=web", "--field-selector=spec.nodeName=host2", "-o", "name").split()) == 1
    ok("scale", "deploy", "web", "--replicas=3")
    ok("rollout", "status", "deploy/web", "--timeout=20s")
    ok("drain", "host2", "--ignore-daemonsets", "--timeout=20s")
    left = ok("get", "pods", "--field-selector=spec.nodeName=host2", "-o", "name").split()
    assert [name.partition("-")[0] for name in left] == ["pod/agent"]
    ok("uncordon", "host2")
    assert "SchedulingDisabled" not in ok("get", "node", "host2")
    ok("taint", "node", "host2", "key=value:NoSchedule")
    assert "key=value:NoSchedule" in ok("describe", "node", "host2")
    ok("taint", "node", "host2", "key:NoSchedule-")


def test_forms_of_get(web: Kubectl) -> None:
    ok = web.ok
    name = ok("get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}")
    assert ok("get", "deploy", "-l", "app=web", "-o", "custom-columns=N:.metadata.name,R:.spec.replicas").split() == [
        "N", "R", "web", "2",
    ]  # fmt: skip
    assert (
        ok("get", "pods", "-L", "app", "--sort-by=.metadata.name", "--no-headers").splitlines()[0].endswith("web")
        is False
    )
    assert ok("get", "pod", name, "-o", "yaml").startswith("apiVersion: v1\nkind: Pod\n")
    assert ok("get", "pod", name, "-o", "go-template={{.status.phase}}") == "Running"
    assert ok("get", f"pod/{name}", "deploy/web", "-o", "name").split() == [f"pod/{name}", "deployment.apps/web"]
    assert ok("get", "deployments.v1.apps", "web", "-o", "name") == "deployment.apps/web\n"
    old = ok("get", "deployments.v1beta1.extensions", "web", "-o", "jsonpath={.apiVersion} {.metadata.uid}").split()
    assert old == ["extensions/v1beta1", ok("get", "deploy", "web", "-o", "jsonpath={.metadata.uid}")]
    assert ok("get", "--raw", "/healthz") == "ok"
    assert (
        json.loads(ok("get", "--raw", "/apis/apps/v1/namespaces/default/deployments/web/status"))["kind"]
        == "Deployment"
    )
    refused = web.run("get", "--raw", "/apis/apps/v1/nothing")
    assert "the server could not find the requested resource" in refused.stderr


def test_dry_runs_and_what_they_leave(web: Kubectl) -> None:
    before = web.ok("get", "deploy", "web", "-o", "jsonpath={.metadata.resourceVersion}")
    for command in (
        ("delete", "deploy", "web"), ("label", "deploy", "web", "x=y"), ("scale", "deploy", "web", "--replicas=9"),
        ("set", "image", "deploy/web", "c=nginx:9"),
    ):  # fmt: skip
        web.ok(*command, "--dry-run=server")
    assert web.ok("get", "deploy", "web", "-o", "jsonpath={.metadata.resourceVersion}") == before


def test_make_and_change_by_words(web: Kubectl) -> None:
    """create KIND, expose, autoscale, set, label, annotate, patch: objects as kubectl itself puts them together."""
    ok = web.ok
    ok("create", "secret", "generic", "s", "--from-literal=word=secret")
    assert ok("get", "secret", "s", "-o", "jsonpath={.data.word}") == "c2VjcmV0"
    ok("create", "service", "nodeport", "np", "--tcp=80:8080")
    assert ":3" in ok("get", "svc", "np")
    ok("expose", "deploy", "web", "--name=lb", "--port=80", "--type=LoadBalancer")
    assert ok("get", "svc", "lb", "--no-headers").split()[1] == "LoadBalancer"
    ok("patch", "svc", "lb", "-p", '{"spec": {"externalTrafficPolicy": "Local"}}')
    port = ok("get", "svc", "lb", "-o", "jsonpath={.spec.healthCheckNodePort}")
    nodes = ok("get", "nodes", "-o", "jsonpath={.items[*].status.addresses[0].address}").split()
    ask = [f"curl -s --retry 9 --retry-delay 1 --retry-connrefused http://{node}:{port}/" for node in nodes]
    counts = [json.loads(web.labs.ok("exec", "host1", "--", *one.split()))["localEndpoints"] for one in ask]
    assert sum(counts) == 2, "each node tells how many endpoints it has"
    ok("create", "job", "once", "--image=busybox", "--", "echo", "done")
    ok("wait", "--for=condition=complete", "job/once", "--timeout=20s")
    assert ok("logs", "job/once") == "done\n"
    ok("autoscale", "deploy", "web", "--min=1", "--max=3")
    ok("label", "deploy", "web", "tier=front")
    assert ok("get", "deploy", "-l", "tier=front", "-o", "name") == "deployment.apps/web\n"
    ok("label", "deploy", "web", "tier-")
    assert ok("get", "deploy", "-l", "tier=front", "-o", "name") == ""
    for kind, patch in (
        ("strategic", '{"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "nginx:7"}]}}}}'),
        ("merge", '{"spec": {"replicas": 1}}'),
        ("json", '[{"op": "replace", "path": "/spec/replicas", "value": 2}]'),
    ):
        assert "patched" in ok("patch", "deploy", "web", f"--type={kind}", "-p", patch)
    ok("wait", "--for=condition=Available", "deploy/web", "--timeout=20s")
    pod = ok("get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}")
    with web.start("wait", "--for=delete", f"pod/{pod}", "--timeout=20s") as waiting:
        time.sleep(0.3)  # it has to see the pod: a wait for what is gone already is over at once
        ok("delete", "pod", pod, "--wait=false")
        assert waiting.wait(20) == 0
        for stream in (waiting.stdin, waiting.stdout, waiting.stderr):
            assert stream is not None
            stream.close()


def test_follow_and_watch(web: Kubectl) -> None:
    """`get -w` tells of each change; it ends when its reader does."""
    with web.start("get", "deploy", "web", "-w", "--no-headers") as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline().split()[1] == "2/2"
        web.ok("scale", "deploy", "web", "--replicas=3")
        seen = [watching.stdout.readline().split()[1]]
        while seen[-1] != "3/3":
            seen.append(watching.stdout.readline().split()[1])
        assert seen[0] == "2/3"
        watching.kill()


def test_another_user_of_the_machine_gets_nothing(kubectl: Kubectl, kube_lab: tuple[Labs, Path]) -> None:
    """Neither the kubeconfig nor the lab's own socket; and at the port, without the token, nothing but its health."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    labs, folder = kube_lab
    server = json.loads(Path(kubectl.environment["KUBECONFIG"]).read_text())["clusters"][0]["cluster"]["server"]
    socket = labs.folder / "kube" / "api.sock"
    code = "curl -sk -o /dev/null -w '%{http_code} '"
    script = (
        f"cat {folder / 'kubeconfig'} || echo no file; "
        f"{code} --unix-socket {socket} http://lab/status; {code} {server}/api/v1/pods; {code} {server}/healthz"
    )
    as_nobody = {"user": 65534, "group": 65534, "extra_groups": []}
    done = subprocess.run(["/bin/sh", "-c", script], cwd="/", capture_output=True, text=True, check=False, **as_nobody)
    assert done.stdout == "no file\n000 401 200 "
    assert "Permission denied" in done.stderr
    owner = subprocess.run(["/bin/sh", "-c", script], cwd="/", capture_output=True, text=True, check=True)
    assert owner.stdout.endswith("200 401 200 ")
