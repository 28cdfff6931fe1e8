"""The real kubectl against a running lab: what people type, and what they get."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
from kubectls import KUBECTL, KUBECTLS, MANIFESTS, TOPOLOGY, Kubectl
from lab_driver import Labs, eventually

pytestmark = pytest.mark.skipif(not KUBECTLS, reason="kubectl is not installed: `make deps`")

SITE = """apiVersion: v1
kind: ConfigMap
metadata: {name: page}
data: {index.html: "hello from a config map\\n"}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: site}
spec:
  replicas: 2
  selector: {matchLabels: {app: site}}
  template:
    metadata: {labels: {app: site}}
    spec:
      terminationGracePeriodSeconds: 1
      initContainers:
        - name: first
          image: busybox
          command: [sh, -c, "echo made by init > /shared/note"]
          volumeMounts: [{name: shared, mountPath: /shared}]
      containers:
        - name: http
          image: python
          command: [python3, -m, http.server, "$(PORT)", --directory, /www]
          env:
            - {name: PORT, value: "8000"}
            - {name: ME, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
          ports: [{containerPort: 8000}]
          volumeMounts: [{name: page, mountPath: /www}, {name: shared, mountPath: /data}]
        - name: talk
          image: busybox
          command: [sh, -c, "echo I am $ME at $(date +%s); exec sleep 1000"]
          env: [{name: ME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
      volumes:
        - {name: page, configMap: {name: page}}
        - {name: shared, emptyDir: {}}
"""


def pods_of(kubectl: Kubectl, selector: str = "app=site") -> list[dict[str, object]]:
    """The pods with a label, as objects."""
    items: list[dict[str, object]] = json.loads(kubectl.ok("get", "pods", "-l", selector, "-o", "json"))["items"]
    return items


def test_one_file_one_command_an_application(kubectl: Kubectl, tmp_path: Path) -> None:
    """create -f; its pods run real programs with volumes, environment and an init container, and answer others."""
    (tmp_path / "site.yaml").write_text(SITE)
    created = kubectl.ok("create", "-f", str(tmp_path / "site.yaml")).splitlines()
    assert created == ["configmap/page created", "deployment.apps/site created"]
    kubectl.ok("rollout", "status", "deploy/site", "--timeout=20s")
    wide = kubectl.ok("get", "pods", "-l", "app=site", "-o", "wide").splitlines()
    assert wide[0].split()[:7] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE"]
    assert all(line.split()[1:3] == ["2/2", "Running"] for line in wide[1:])
    assert {line.split()[6] for line in wide[1:]} == {"host1", "host2"}
    for line in wide[1:]:
        page = kubectl.ok("exec", "client", "--", "curl", "-s", "-m", "5", f"http://{line.split()[5]}:8000/")
        assert page == "hello from a config map\n"
    name = wide[1].split()[0]
    assert kubectl.ok("exec", name, "-c", "talk", "--", "cat", "/data/note") == "made by init\n"
    # POD-01: containers of a pod meet on localhost.
    local = kubectl.ok("exec", name, "-c", "talk", "--", "curl", "-s", "http://127.0.0.1:8000/")
    assert local == "hello from a config map\n"
    assert f"I am {name} at" in kubectl.ok("logs", name, "-c", "talk")
    told = kubectl.ok("describe", "pod", name)
    assert "Started container http" in told
    assert "Successfully assigned default/" in told


def test_it_heals_itself(kubectl: Kubectl, tmp_path: Path) -> None:
    """A pod that is deleted, and one whose first process is killed, come back with other names and addresses."""
    (tmp_path / "site.yaml").write_text(SITE)
    kubectl.ok("apply", "-f", str(tmp_path / "site.yaml"))
    kubectl.ok("rollout", "status", "deploy/site", "--timeout=20s")
    before = {pod["metadata"]["name"]: pod["status"]["podIP"] for pod in pods_of(kubectl)}  # type: ignore[index]
    victim = min(before)
    kubectl.ok("delete", "pod", victim)
    kubectl.ok("wait", "--for=condition=Available", "deploy/site", "--timeout=20s")
    eventually(lambda: sum("podIP" in pod["status"] for pod in pods_of(kubectl)) == 2, "no replacement came")  # type: ignore[operator]
    after = {pod["metadata"]["name"]: pod["status"]["podIP"] for pod in pods_of(kubectl)}  # type: ignore[index]
    assert victim not in after
    (new,) = after.keys() - before.keys()
    assert after[new] not in before.values()
    eventually(
        lambda: (
            kubectl.run("exec", "client", "--", "curl", "-s", "-m", "2", f"http://{after[new]}:8000/").stdout
            == "hello from a config map\n"
        ),
        "the replacement does not answer",
    )
    assert kubectl.labs.json("ping", "client", new)["unanswered"] == 0


def test_verbs(kubectl: Kubectl) -> None:
    """What people type in a day."""
    ok = kubectl.ok
    assert ok("create", "deployment", "web", "--image=nginx", "--replicas=3") == "deployment.apps/web created\n"
    assert "successfully rolled out" in ok("rollout", "status", "deploy/web", "--timeout=20s")
    assert ok("expose", "deployment", "web", "--port=80", "--target-port=8080") == "service/web exposed\n"
    eventually(lambda: ":8080" in ok("get", "endpoints", "web"), "the Service has no endpoints")
    assert ok("scale", "deploy", "web", "--replicas=5").endswith("scaled\n")
    ok("rollout", "status", "deploy/web", "--timeout=20s")
    assert len(ok("get", "pods", "-l", "app=web", "-o", "name").splitlines()) == 5
    ok("set", "image", "deploy/web", "nginx=nginx:2")
    ok("rollout", "status", "deploy/web", "--timeout=20s")
    images = ("get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].spec.containers[0].image}")
    eventually(lambda: ok(*images).split() == ["nginx:2"] * 5, "the old pods, which may still be terminating, go")
    history = ok("rollout", "history", "deploy/web").split()
    assert history[-4:] == ["1", "<none>", "2", "<none>"]
    ok("rollout", "undo", "deploy/web")
    ok("rollout", "restart", "deploy/web")
    ok("rollout", "status", "deploy/web", "--timeout=20s")
    ok("label", "deploy", "web", "tier=front")
    ok("annotate", "deploy", "web", "note=x")
    assert "tier=front" in ok("get", "deploy", "-l", "tier in (front)", "--show-labels")
    assert "deployment.apps/web" in ok("get", "all")
    assert "Scaled up replica set web-" in ok("describe", "deploy", "web")
    assert ok("cordon", "host2") == "node/host2 cordoned\n"
    assert "SchedulingDisabled" in ok("get", "node", "host2")
    drained = kubectl.run("drain", "host2", "--ignore-daemonsets", "--force", "--timeout=30s")
    assert drained.returncode == 0, drained.stderr
    assert all(line.split()[6] == "host1" for line in ok("get", "pods", "-l", "app=web", "-o", "wide").splitlines()[1:])
    ok("uncordon", "host2")
    ok("run", "one", "--image=busybox", "--restart=Never")
    ok("wait", "--for=condition=Ready", "pod/one", "--timeout=20s")
    assert ok("create", "configmap", "settings", "--from-literal=a=b") == "configmap/settings created\n"
    assert json.loads(ok("get", "cm", "settings", "-o", "json"))["data"] == {"a": "b"}
    assert ok("auth", "can-i", "create", "pods") == "yes\n"
    assert "deployments" in ok("api-resources")
    assert "apps/v1" in ok("api-versions")
    dry = ok("create", "deployment", "dry", "--image=x", "--dry-run=server", "-o", "name")
    assert dry == "deployment.apps/dry\n"
    assert kubectl.run("get", "deploy", "dry").returncode == 1


def test_apply_diff_and_edit_in_place(kubectl: Kubectl, tmp_path: Path) -> None:
    """A second apply changes what changed and nothing else; diff sees no noise."""
    file = tmp_path / "site.yaml"
    file.write_text(SITE)
    kubectl.ok("apply", "-f", str(file))
    assert kubectl.ok("apply", "-f", str(file)).splitlines() == [
        "configmap/page unchanged",
        "deployment.apps/site unchanged",
    ]
    assert kubectl.run("diff", "-f", str(file)).returncode == 0
    file.write_text(SITE.replace("replicas: 2", "replicas: 1"))
    shown = kubectl.run("diff", "-f", str(file))
    assert (shown.returncode, "replicas: 1" in shown.stdout) == (1, True)
    assert "deployment.apps/site configured" in kubectl.ok("apply", "-f", str(file))
    assert kubectl.ok("get", "deploy", "site", "-o", "jsonpath={.spec.replicas}") == "1"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        # kubectl 1.20 looks fields up by itself, and so says it in its own words.
        (("containers:\n", "contaners:\n"), r'unknown field "(spec.template.spec.)?contaners"'),
        (("matchLabels: {app: site}", "matchLabels: {app: sita}"), "`selector` does not match template `labels`"),
        (("containerPort: 8000", "containerPort: 80000"), "must be between 1 and 65535, inclusive"),
        (("name: site}\nspec", "name: Site}\nspec"), "a lowercase RFC 1123 subdomain must consist of"),
        (
            ("replicas: 2", "replicas: two"),
            r"cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas"
            r'|invalid type for io.emunet.DeploymentSpec.replicas: got "string", expected "integer"',
        ),
    ],
)
def test_a_manifest_with_a_fault_gets_the_message_of_kubernetes(
    kubectl: Kubectl, tmp_path: Path, change: tuple[str, str], words: str
) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(SITE.partition("---\n")[2].replace(*change, 1))
    done = kubectl.run("create", "-f", str(file))
    assert done.returncode == 1
    assert re.search(words, done.stderr), done.stderr
    assert "site" not in kubectl.ok("get", "deploy", "-o", "name")


def test_explain_and_events_of_either_group(kubectl: Kubectl) -> None:
    """Fields are looked up in OpenAPI's second document by 1.20, in the third by those of today."""
    assert re.search(r"replicas\s+<integer>", kubectl.ok("explain", "deployment.spec"))
    assert re.search(r"regarding\s+<(Object|ObjectReference)>",
                     kubectl.ok("explain", "events", "--api-version=events.k8s.io/v1"))  # fmt: skip
    notes = kubectl.ok("get", "events.events.k8s.io", "-o", "jsonpath={.items[*].note}")
    assert "Container c is a placeholder" not in notes
    assert "Started container c" in notes
    assert "Started" in kubectl.ok("get", "events.events.k8s.io", "--field-selector=regarding.name=client")


def test_exec_cp_and_port_forward(kubectl: Kubectl, tmp_path: Path) -> None:
    """Streams both ways, the exit code, files, and a connection into the pod."""
    (tmp_path / "site.yaml").write_text(SITE)
    kubectl.ok("apply", "-f", str(tmp_path / "site.yaml"))
    kubectl.ok("rollout", "status", "deploy/site", "--timeout=20s")
    name = str(pods_of(kubectl)[0]["metadata"]["name"])  # type: ignore[index]
    done = kubectl.run("exec", name, "-c", "http", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout) == (7, "out\n")
    assert done.stderr.startswith("err\n")
    assert kubectl.ok("exec", "-i", name, "-c", "http", "--", "wc", "-c", stdin="x" * 100_000).strip() == "100000"
    big = kubectl.ok("exec", name, "-c", "http", "--", "head", "-c", "3000000", "/dev/zero")
    assert len(big) == 3_000_000
    kubectl.ok("cp", f"{name}:/www/index.html", str(tmp_path / "got"), "-c", "http")
    assert (tmp_path / "got").read_text() == "hello from a config map\n"
    kubectl.ok("cp", str(tmp_path / "got"), f"{name}:/tmp/second", "-c", "http")
    assert kubectl.ok("exec", name, "-c", "http", "--", "cat", "/tmp/second") == "hello from a config map\n"
    with subprocess.Popen(
        [kubectl.program, "port-forward", name, ":8000"], env=kubectl.environment, stdout=subprocess.PIPE, text=True
    ) as forward:
        try:
            assert forward.stdout is not None
            port = forward.stdout.readline().split()[2].rpartition(":")[2]
            for _ in range(3):
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/index.html", timeout=5) as answer:
                    assert answer.read() == b"hello from a config map\n"
        finally:
            forward.terminate()


def test_logs_that_follow(kubectl: Kubectl) -> None:
    """A line is there at once; a program that fails is started again, and its last words stay."""
    script = "echo begun; sleep 0.5; echo over; exit 3"
    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "once"},
        "spec": {
            "restartPolicy": "Never",
            "containers": [{"name": "c", "image": "busybox", "command": ["sh", "-c", script]}],
        },
    }
    kubectl.ok("create", "-f", "-", stdin=json.dumps(manifest))
    eventually(lambda: "begun" in kubectl.run("logs", "once").stdout, "no log")
    assert kubectl.ok("logs", "-f", "once").splitlines()[-1] == "over"
    eventually(lambda: "Failed" in kubectl.ok("get", "pod", "once", "-o", "yaml"), "the pod did not fail")
    assert kubectl.ok("logs", "once", "--tail=1") == "over\n"
    assert kubectl.ok("get", "pod", "once").splitlines()[1].split()[2] == "Error"


PROBED = """apiVersion: v1
kind: Pod
metadata: {name: probed, labels: {app: probed}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: http
      image: python
      command: [sh, -c, "touch /tmp/fine; mkdir /www; exec python3 -m http.server 8000 --directory /www"]
      ports: [{name: web, containerPort: 8000}]
      readinessProbe: {httpGet: {path: /ready, port: web}, periodSeconds: 1, timeoutSeconds: 10, failureThreshold: 1}
      livenessProbe: {exec: {command: [cat, /tmp/fine]}, periodSeconds: 1, timeoutSeconds: 10, failureThreshold: 1}
"""


@pytest.mark.rule("POD-06")
def test_probes_travel_from_the_host(kubectl: Kubectl) -> None:
    """Not ready until the page is there; started again when it is not alive. The question comes from cni0."""
    kubectl.ok("create", "-f", "-", stdin=PROBED)

    def status() -> list[str]:
        return kubectl.ok("get", "pod", "probed").splitlines()[1].split()

    eventually(lambda: status()[2] == "Running", "the pod does not run")
    assert status()[1] == "0/1"
    kubectl.ok("exec", "probed", "--", "touch", "/www/ready")
    eventually(lambda: status()[1] == "1/1", "the pod is not ready")
    host = kubectl.ok("get", "pod", "probed", "-o", "jsonpath={.spec.nodeName}")
    gateway = {"host1": "10.244.1.1", "host2": "10.244.2.1"}[host]
    assert f"{gateway} - - " in kubectl.ok("logs", "probed")
    kubectl.ok("exec", "probed", "--", "rm", "/www/ready")
    eventually(lambda: status()[1] == "0/1", "the pod is still ready")
    kubectl.ok("exec", "probed", "--", "rm", "/tmp/fine")
    eventually(lambda: status()[3] != "0", "the container was not started again")


def test_a_watch_sees_a_change_at_once(kubectl: Kubectl, kube_lab: tuple[Labs, Path]) -> None:
    """`get -w` prints what another client makes; how long the API takes for it is in tests/daemon/test_kube_figures."""
    labs, _ = kube_lab
    with subprocess.Popen(
        [kubectl.program, "get", "cm", "-w", "--output-watch-events", "-o", "name"], env=kubectl.environment,
        stdout=subprocess.PIPE, text=True, bufsize=1,
    ) as watch:  # fmt: skip
        try:
            assert watch.stdout is not None
            labs.run("apply", "-f", str(_write_map(kube_lab[1])))
            told = iter(watch.stdout.readline, "")  # what was there comes first, and is told of all the same
            assert any("configmap/seen" in line for line in told)
        finally:
            watch.terminate()


def _write_map(folder: Path) -> Path:
    file = folder / "seen.yaml"
    file.write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: seen}\n")
    return file


def test_only_the_owner_gets_in(kubectl: Kubectl, kube_lab: tuple[Labs, Path]) -> None:
    """The kubeconfig is for its owner's eyes; without the token, or with another, the answer is 401."""
    config = Path(kubectl.environment["KUBECONFIG"])
    assert config.stat().st_mode & 0o777 == 0o600
    bad = kube_lab[1] / "other"
    settings = json.loads(config.read_text())
    settings["users"][0]["user"]["token"] = "guessed"
    bad.write_text(json.dumps(settings))
    done = kubectl.run("--kubeconfig", str(bad), "get", "pods")
    assert done.returncode == 1
    assert "Unauthorized" in done.stderr or "must be logged in" in done.stderr


BEGUN = """apiVersion: emunet/v1
kind: Topology
metadata: {name: begun}
spec: {hosts: [host1, host2]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: page}
data: {line: "there from the beginning"}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 2
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      hostAliases: [{ip: 192.0.2.1, hostnames: [nobody.example]}]
      containers:
        - {name: c, image: busybox, command: [sleep, "1000"], volumeMounts: [{name: page, mountPath: /page}]}
      volumes: [{name: page, configMap: {name: page}}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: sum}
spec:
  template:
    spec: {restartPolicy: Never, containers: [{name: c, image: busybox, command: [sh, -c, "echo $((6*7))"]}]}
"""


def test_a_file_of_up_may_have_every_kind(tmp_path: Path) -> None:
    """`emunet up` with controllers in its file: their pods are there when it returns, with volumes and aliases."""
    labs = Labs(tmp_path / "run")
    (tmp_path / "run").mkdir(mode=0o700)
    (tmp_path / "begun.yaml").write_text(BEGUN)
    try:
        labs.ok("up", str(tmp_path / "begun.yaml"))
        kubectl = Kubectl(KUBECTL, labs, tmp_path)
        kubectl.ok("wait", "--for=condition=complete", "job/sum", "--timeout=20s")
        assert kubectl.ok("logs", "job/sum") == "42\n"
        eventually(lambda: len(labs.status("begun")["pods"]) == 2, "the Job's pod is over and has left the lab")
        assert [pod["name"] for pod in labs.status("begun")["pods"]] == ["db-0", "db-1"]
        seen = kubectl.ok("exec", "db-0", "--", "sh", "-c", "cat /page/line; echo; tail -n 1 /etc/hosts; hostname")
        assert seen.splitlines() == ["there from the beginning", "192.0.2.1\tnobody.example", "db-0"]
        assert labs.json("ping", "db-0", "db-1")["unanswered"] == 0
        told = labs.ok("get", "sts", "db")
        assert told.split()[-3:-1] == ["db", "2/2"]
        assert labs.ok("scale", "sts", "db", "--replicas", "3") == "statefulset.apps/db scaled\n"
        eventually(lambda: "db-2" in labs.ok("get", "pods"), "the third pod does not come")
        labs.ok("apply", "-f", str(_write_map(tmp_path)))
        assert "configmap/seen unchanged" in labs.ok("apply", "-f", str(tmp_path / "seen.yaml"))
        assert labs.ok("delete", "cm", "seen") == 'configmap "seen" deleted\n'
        (tmp_path / "wrong.yaml").write_text(HALF_WRONG)
        refused = labs.run("apply", "-f", str(tmp_path / "wrong.yaml"))
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "wrong.yaml:9:13: spec.replicas: Invalid value: -1: must be greater" in refused.stderr
        assert "wrong.yaml:16:" in refused.stderr
        assert labs.run("get", "ns", "sound").returncode == 1  # one error, and nothing of the file is made
        (tmp_path / "right.yaml").write_text(RIGHT + "---\n" + CUSTOM + "---\n" + HALF_WRONG.partition("---\n")[0])
        assert labs.ok("apply", "-f", str(tmp_path / "right.yaml")).split() == [
            "customresourcedefinition.apiextensions.k8s.io/foos.example.com", "created", "namespace/sound", "created",
            "configmap/a", "created", "foo.example.com/x", "created",
        ]  # fmt: skip
        assert labs.ok("get", "fo", "x", "-n", "sound").split()[2] == "x"
        assert labs.ok("delete", "-f", str(tmp_path / "right.yaml")).split("\n")[1] == 'foo.example.com "x" deleted'
        refused = labs.run("delete", "cm", "seen")
        assert (refused.returncode, refused.stderr) == (1, 'emunet: configmaps "seen" not found\n')
    finally:
        labs.leave()


HALF_WRONG = """apiVersion: v1
kind: Namespace
metadata: {name: sound}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: sound}
spec:
  replicas: -1
  selector: {matchLabels: {a: b}}
  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: x}]}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: a, namespace: sound}
date: {}
"""

CUSTOM = """apiVersion: example.com/v1
kind: Foo
metadata: {name: x, namespace: sound}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: foos.example.com}
spec:
  group: example.com
  names: {kind: Foo, plural: foos, singular: foo, shortNames: [fo]}
  scope: Namespaced
  versions: [{name: v1, served: true, storage: true}]
"""

RIGHT = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: sound}\n"


@pytest.mark.slow
def test_a_thousand_pods_over_twenty_hosts_by_kubectl(tmp_path: Path) -> None:
    """`create` until `rollout status` says that all are available: 3 s on two idle cores, a bound of 20 s."""
    (tmp_path / "run").mkdir(mode=0o700)
    hosts = ", ".join(f"host{number}" for number in range(1, 21))
    text = f"apiVersion: emunet/v1\nkind: Topology\nmetadata: {{name: big}}\nspec: {{hosts: [{hosts}]}}\n"
    (tmp_path / "big.yaml").write_text(text)
    labs = Labs(tmp_path / "run")
    try:
        labs.ok("up", str(tmp_path / "big.yaml"), "--wires", "memory")
        kubectl = Kubectl(KUBECTL, labs, tmp_path)
        began = time.monotonic()
        kubectl.ok("create", "deployment", "web", "--image=nginx", "--replicas=1000", "--port=80")
        kubectl.ok("rollout", "status", "deploy/web", "--timeout=60s")
        took = time.monotonic() - began
        print(f"a thousand pods over twenty hosts, by kubectl: {took:.1f} s")
        assert len(kubectl.ok("get", "pods", "-o", "name").split()) == 1000
        assert took < 20
    finally:
        labs.leave()


# Manifests that others wrote, by the kubectl of this machine


@pytest.mark.slow
@pytest.mark.skipif(not MANIFESTS.is_dir(), reason="the manifests of others are not beside this project")
def test_all_manifests_of_others_are_created(tmp_path: Path) -> None:
    """Every object of 41 files is taken by the real `kubectl create -f`; only names that were taken already fail."""
    files = sorted(one for one in MANIFESTS.rglob("*") if one.suffix in (".yaml", ".yml"))
    files = [one for one in files if one.name != "docker-compose.yml"]
    labs = Labs(tmp_path / "run")
    (tmp_path / "run").mkdir(mode=0o700)
    (tmp_path / "lab.yaml").write_text(TOPOLOGY)
    created, taken, failed = 0, 0, []
    try:
        labs.ok("up", str(tmp_path / "lab.yaml"), "--wires", "memory")
        kubectl = Kubectl(KUBECTL, labs, tmp_path)
        named = {
            match for file in files for match in re.findall(r"^ +namespace: \"?([a-z-]+)\b", file.read_text(), re.M)
        }
        for namespace in sorted(named - {"default", "kube-system"}):
            kubectl.ok("create", "namespace", namespace)
        for file in files:
            done = kubectl.run("create", "-f", str(file))
            created += sum(line.endswith(" created") for line in done.stdout.splitlines())
            for line in done.stderr.splitlines():
                if "(AlreadyExists)" in line:
                    taken += 1
                elif line.startswith(("Error", "error", "The ")):
                    failed.append(f"{file.name}: {line}")
    finally:
        labs.leave()
    assert failed == []
    assert len(files) == 41
    assert created + taken == 137
    assert taken == 8


def test_the_dashboard_of_the_primer(kubectl: Kubectl, tmp_path: Path) -> None:
    """`kubectl create -f kubernetes-dashboard.yaml`, as the primer shows it: extensions/v1beta1 and all."""
    path = MANIFESTS / "kubernetes-dashboard" / "kubernetes-dashboard-v1.1.1.yaml"
    if not path.exists():
        pytest.skip("the manifests of others are not beside this project")
    told = kubectl.ok("create", "-f", str(path))
    try:
        assert "deployment.extensions/kubernetes-dashboard created" in told
        kubectl.ok("-n", "kube-system", "rollout", "status", "deploy/kubernetes-dashboard", "--timeout=20s")
        eventually(
            lambda: ":9090" in kubectl.ok("-n", "kube-system", "get", "endpoints", "kubernetes-dashboard"),
            "the dashboard's Service has no endpoints",
        )
    finally:
        kubectl.ok("delete", "-f", str(path))
