"""Pods as the kubelet of a real cluster runs them, through the real kubectl: hooks, users, ports, restarts, ends."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pty
import select
import struct
import subprocess
import termios
import time
from pathlib import Path
from typing import Any

import pytest
from kubectls import KUBECTLS, Kubectl
from lab_driver import eventually

pytestmark = pytest.mark.skipif(not KUBECTLS, reason="kubectl is not installed: `make deps`")


def pod(name: str, *containers: dict[str, Any], **spec: Any) -> str:
    """A Pod as JSON; its containers get names and an image where they have none."""
    made = [{"name": f"c{number}", "image": "busybox", **one} for number, one in enumerate(containers)]
    return json.dumps({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": made, **spec},
    })  # fmt: skip


def sh(script: str) -> dict[str, Any]:
    """A container that runs a script."""
    return {"command": ["sh", "-c", script]}


def state_of(kubectl: Kubectl, name: str, number: int = 0) -> dict[str, Any]:
    """How a container is, with its pod's phase."""
    status = json.loads(kubectl.ok("get", "pod", name, "-o", "json"))["status"]
    found: dict[str, Any] = {**status["containerStatuses"][number], "phase": status["phase"]}
    return found


def events_of(kubectl: Kubectl, name: str) -> str:
    """What describe tells of a pod at its end."""
    return kubectl.ok("describe", "pod", name).partition("Events:")[2]


def test_arguments_alone_are_run_as_an_image_would(kubectl: Kubectl) -> None:
    """`kubectl run NAME --image=busybox -- WORDS`: the words are the program; the pod ends when it has."""
    done = kubectl.run("run", "once", "-i", "--rm", "--image=busybox", "--restart=Never", "--", "echo", "from a pod")
    assert "from a pod\n" in done.stdout, done.stderr
    eventually(lambda: kubectl.run("get", "pod", "once").returncode == 1, "the pod is still there")
    kubectl.ok("run", "server", "--image=registry.example/server", "--", "--port=80")
    kubectl.ok("wait", "--for=condition=Ready", "pod/server", "--timeout=20s")
    assert "Container server is a placeholder" in events_of(kubectl, "server")


def test_a_shell_to_type_at(kubectl: Kubectl) -> None:
    """`kubectl run -i` without words is a shell: it reads what is typed, its output and its end come back."""
    typed = "echo $((6 * 7)); hostname; exit\n"
    done = kubectl.run("run", "desk", "-i", "--rm", "--image=busybox", "--restart=Never", stdin=typed)
    assert done.stdout.splitlines()[:2] == ["42", "desk"], done
    eventually(lambda: kubectl.run("get", "pod", "desk").returncode == 1, "the pod is still there")


def test_attach_to_what_runs(kubectl: Kubectl) -> None:
    """What is said from now on, what is typed; who leaves takes nothing away."""
    listener = {**sh("while read line; do echo got $line; done"), "stdin": True}
    kubectl.ok("create", "-f", "-", stdin=pod("echo", listener))
    kubectl.ok("wait", "--for=condition=Ready", "pod/echo", "--timeout=20s")
    for word in ("one", "two"):
        with kubectl.start("attach", "-i", "echo") as attached:
            assert attached.stdin is not None
            assert attached.stdout is not None
            attached.stdin.write(f"{word}\n")
            attached.stdin.flush()
            line = attached.stdout.readline()
            while "got" not in line:  # the newest kubectl has something to say first
                assert line, attached.stderr.read() if attached.stderr else ""
                line = attached.stdout.readline()
            assert line == f"got {word}\n"
            attached.kill()
    assert kubectl.ok("logs", "echo") == "got one\ngot two\n"
    assert state_of(kubectl, "echo")["restartCount"] == 0


def test_a_terminal_has_the_size_of_the_visitors(kubectl: Kubectl) -> None:
    """`kubectl attach -it` from a terminal of 33 lines: so has the container's shell, which is typed at."""
    kubectl.ok("create", "-f", "-", stdin=pod("typist", {"stdin": True, "tty": True}))
    kubectl.ok("wait", "--for=condition=Ready", "pod/typist", "--timeout=20s")
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
    command = [kubectl.program, "attach", "-it", "typist"]
    with subprocess.Popen(command, env=kubectl.environment, stdin=slave, stdout=slave, stderr=slave) as attached:
        os.close(slave)
        seen = b""

        def says_its_size() -> bool:
            nonlocal seen
            os.write(master, b"stty size\n")
            while select.select([master], [], [], 0.3)[0]:
                seen += os.read(master, 4096)
            return b"\n33 99" in seen

        eventually(says_its_size, lambda: seen.decode())
        attached.kill()
    os.close(master)


def test_hooks_after_the_start_and_before_the_end(kubectl: Kubectl) -> None:
    """Not running before postStart is done; preStop runs, in the grace, before the program hears of the end."""
    hooks = {
        "postStart": {"exec": {"command": ["sh", "-c", "sleep 0.5; touch /tmp/started"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "sleep 0.3; echo stopped at $ME > /tmp/told"]}},
    }
    container = {
        **sh("trap 'cat /tmp/told; echo asked to end; exit 0' TERM; while :; do sleep 0.05; done"),
        "env": [{"name": "ME", "value": "home"}],
        "lifecycle": hooks,
    }
    kubectl.ok("create", "-f", "-", stdin=pod("hooked", container, terminationGracePeriodSeconds=10))
    kubectl.ok("wait", "--for=condition=Ready", "pod/hooked", "--timeout=20s")
    kubectl.ok("exec", "hooked", "--", "test", "-e", "/tmp/started")
    with kubectl.start("logs", "-f", "hooked") as followed:
        began = time.monotonic()
        kubectl.ok("delete", "pod", "hooked")
        assert time.monotonic() - began < 8
        assert followed.stdout is not None
        assert followed.stdout.read() == "stopped at home\nasked to end\n"


def test_a_hook_that_fails_ends_its_container(kubectl: Kubectl) -> None:
    container = {
        **sh("exec sleep 1000"),
        "lifecycle": {"postStart": {"exec": {"command": ["sh", "-c", "echo no; false"]}}},
    }
    kubectl.ok("create", "-f", "-", stdin=pod("unhooked", container, restartPolicy="Never"))
    eventually(lambda: state_of(kubectl, "unhooked")["phase"] == "Failed", "the pod did not fail")
    assert "PostStartHook failed: no" in events_of(kubectl, "unhooked")


def test_a_program_that_does_not_end_is_ended(kubectl: Kubectl) -> None:
    """SIGTERM, then, when the grace is over, SIGKILL; a shorter grace is taken at its word."""
    kubectl.ok("create", "-f", "-", stdin=pod("deaf", sh("trap '' TERM; while :; do sleep 0.1; done")))
    kubectl.ok("wait", "--for=condition=Ready", "pod/deaf", "--timeout=20s")
    began = time.monotonic()
    kubectl.ok("delete", "pod", "deaf", "--grace-period=2")
    assert 2 <= time.monotonic() - began < 6


def test_users_and_groups(kubectl: Kubectl) -> None:
    """runAsUser of the pod and of a container, for its program and for exec; an emptyDir is for all of them."""
    shared = {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}
    made = pod(
        "users",
        {**sh("id -u; id -g; echo mine > /shared/note; exec sleep 1000"), **shared},
        {**sh("id -u; exec sleep 1000"), **shared, "securityContext": {"runAsUser": 2000, "privileged": True}},
        securityContext={"runAsUser": 1000, "runAsGroup": 3000},
        volumes=[{"name": "shared", "emptyDir": {}}],
    )
    kubectl.ok("create", "-f", "-", stdin=made)
    kubectl.ok("wait", "--for=condition=Ready", "pod/users", "--timeout=20s")
    eventually(lambda: kubectl.ok("logs", "users", "-c", "c0") == "1000\n3000\n", "another user")
    assert kubectl.ok("logs", "users", "-c", "c1") == "2000\n"
    assert kubectl.ok("exec", "users", "-c", "c1", "--", "sh", "-c", "id -u; cat /shared/note") == "2000\nmine\n"
    told = events_of(kubectl, "users")
    assert "containers[1].securityContext.privileged" in told
    assert "runAsUser" not in told


@pytest.mark.rule("POD-01")
def test_a_port_that_one_container_has_is_taken_for_the_other(kubectl: Kubectl) -> None:
    """They share the network: the second who wants the port is told so by the kernel, as on a real host."""
    server = ["python3", "-m", "http.server", "8000"]
    made = pod("rivals", {"command": server}, {"command": server}, restartPolicy="Never")
    kubectl.ok("create", "-f", "-", stdin=made)

    def ends() -> list[int]:
        status = json.loads(kubectl.ok("get", "pod", "rivals", "-o", "json"))["status"]
        return [
            one["state"]["terminated"]["exitCode"]
            for one in status.get("containerStatuses", ())
            if "terminated" in one["state"]
        ]

    eventually(lambda: ends() == [1], "nobody found the port taken")
    logs = [kubectl.ok("logs", "rivals", "-c", name) for name in ("c0", "c1")]
    assert sum("Address already in use" in log for log in logs) == 1
    assert kubectl.ok("get", "pod", "rivals").splitlines()[1].split()[1:3] == ["1/2", "Error"]


def test_who_fails_is_started_again_after_a_while(kubectl: Kubectl) -> None:
    """At once the first time, then after a pause: CrashLoopBackOff, its count, its last end, its last words."""
    kubectl.ok("create", "-f", "-", stdin=pod("crash", sh("echo try; exit 3")))
    eventually(lambda: "CrashLoopBackOff" in kubectl.ok("get", "pod", "crash"), "it does not wait")
    state = state_of(kubectl, "crash")
    assert (state["restartCount"], state["lastState"]["terminated"]["exitCode"]) == (1, 3)
    assert state["phase"] == "Running"
    assert kubectl.ok("logs", "crash", "--previous") == "try\n"
    assert "Back-off restarting failed container c0" in events_of(kubectl, "crash")
    kubectl.ok("create", "-f", "-", stdin=pod("done", sh("true"), restartPolicy="OnFailure"))
    eventually(lambda: "Completed" in kubectl.ok("get", "pod", "done"), "it is not over")
    refused = kubectl.run("logs", "done", "--previous")
    assert refused.returncode == 1
    assert 'previous terminated container "c0" in pod "done" not found' in refused.stderr


def test_an_init_container_that_fails_holds_the_others_up(kubectl: Kubectl) -> None:
    init = [{"name": "first", "image": "busybox", "command": ["sh", "-c", "exit 2"]}]
    kubectl.ok("create", "-f", "-", stdin=pod("held", sh("exec sleep 1000"), initContainers=init))
    eventually(lambda: "Init:CrashLoopBackOff" in kubectl.ok("get", "pod", "held"), "not held up")
    refused = kubectl.run("logs", "held", "-c", "c0")
    assert refused.returncode == 1
    assert 'container "c0" in pod "held" is waiting to start' in refused.stderr


def test_a_sidecar_goes_on_beside_the_others(kubectl: Kubectl) -> None:
    """An init container that is always restarted: what comes after begins when its startup probe says so."""
    side = {
        "name": "side", "image": "busybox", "restartPolicy": "Always",
        "command": ["sh", "-c", "touch /tmp/up; python3 -m http.server 8000 & until rm /tmp/end; do sleep 0.1; done"],
        "startupProbe": {"tcpSocket": {"port": 8000}, "periodSeconds": 1},
    }  # fmt: skip
    last = {"name": "last", "image": "busybox", "command": ["sh", "-c", "cat /tmp/up && touch /tmp/after"]}
    main = sh("cat /tmp/after && exec sleep 1000")
    kubectl.ok("create", "-f", "-", stdin=pod("beside", main, initContainers=[side, last]))
    kubectl.ok("wait", "--for=condition=Ready", "pod/beside", "--timeout=20s")
    assert kubectl.ok("get", "pod", "beside").splitlines()[1].split()[1:4] == ["2/2", "Running", "0"]
    kubectl.ok("exec", "beside", "-c", "side", "--", "touch", "/tmp/end")
    again = "{.status.initContainerStatuses[0].restartCount}"
    eventually(lambda: kubectl.ok("get", "pod", "beside", "-o", f"jsonpath={again}") == "1", "it is not started again")
    assert state_of(kubectl, "beside")["restartCount"] == 0
    job = {"restartPolicy": "Never", "initContainers": [{**side, "startupProbe": None}]}
    kubectl.ok("create", "-f", "-", stdin=pod("short", sh("exit 0"), **job))
    eventually(lambda: state_of(kubectl, "short")["phase"] == "Succeeded", "its sidecar keeps it from its end")


def test_debug_adds_a_container_to_a_pod_that_runs(kubectl: Kubectl) -> None:
    """`kubectl debug`: an ephemeral container sees the pod's network, is never started again, and ends with its pod."""
    kubectl.ok("create", "-f", "-", stdin=pod("seen", {}))
    kubectl.ok("wait", "--for=condition=Ready", "pod/seen", "--timeout=20s")
    done = kubectl.run("debug", "seen", "--image=busybox", "-c", "look", "--", "sh", "-c", "hostname; exit 3")
    if "ephemeral containers are disabled for this cluster" in done.stderr:  # what 1.20 asks was in no release after it
        assert "`kubectl exec` starts a program in a pod too" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    state = "{.status.ephemeralContainerStatuses[0].state.terminated.exitCode}"
    eventually(lambda: kubectl.ok("get", "pod", "seen", "-o", f"jsonpath={state}") == "3", "it does not end")
    assert kubectl.ok("logs", "seen", "-c", "look") == "seen\n"
    assert "look" in kubectl.ok("describe", "pod", "seen").partition("Ephemeral Containers:")[2]
    said = kubectl.run("debug", "seen", "-i", "--image=busybox", "-c", "shell", stdin="exit\n")
    assert said.returncode == 0, said.stderr
    kubectl.ok("delete", "pod", "seen", "--timeout=20s")


def test_config_maps_and_secrets_that_are_not_there_and_that_change(kubectl: Kubectl) -> None:
    """A container waits for what it refers to, as an event says; files follow their config map, variables do not.
    What is mounted to be read is not written, and each file has its mode.
    """
    name = {"name": "later"}
    volumes = [
        {"name": "v", "configMap": {**name, "items": [{"key": "color", "path": "color", "mode": 0o400}]}},
        {"name": "e", "emptyDir": {}},
        {"name": "none", "secret": {"secretName": "never", "optional": True}},
        {"name": "d", "downwardAPI": {"items": [
            {"path": "memory", "resourceFieldRef": {"containerName": "c0", "resource": "limits.memory"}}]}},
    ]  # fmt: skip
    mounts = [
        {"name": "v", "mountPath": "/settings"}, {"name": "v", "mountPath": "/settings-color", "subPath": "color"},
        {"name": "none", "mountPath": "/none"}, {"name": "d", "mountPath": "/about"},
        {"name": "e", "mountPath": "/scratch"}, {"name": "e", "mountPath": "/seen", "readOnly": True},
        {"name": "e", "mountPath": "/part", "subPath": "in/it"},
    ]  # fmt: skip
    variable = {"name": "COLOR", "valueFrom": {"configMapKeyRef": {**name, "key": "color"}}}
    half = {"resources": {"limits": {"cpu": "500m", "memory": "64Mi"}}}
    cores = {"name": "CORES", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}
    main = {**sh("exec sleep 1000"), **half, "env": [variable, cores]}
    kubectl.ok("create", "-f", "-", stdin=pod("reads", {**main, "volumeMounts": mounts}, volumes=volumes))
    kubectl.ok("create", "-f", "-", stdin=pod("asks", main))
    eventually(lambda: "FailedMount" in events_of(kubectl, "reads"), "nobody says what is missing")
    assert 'MountVolume.SetUp failed for volume "v" : configmap "later" not found' in events_of(kubectl, "reads")
    eventually(lambda: "CreateContainerConfigError" in kubectl.ok("get", "pod", "asks"), "nobody says what is missing")
    assert 'Error: configmap "later" not found' in events_of(kubectl, "asks")
    kubectl.ok("create", "configmap", "later", "--from-literal=shape=round")
    eventually(lambda: "couldn't find key color in ConfigMap default/later" in events_of(kubectl, "asks"), "which key?")
    kubectl.ok("patch", "configmap", "later", "-p", '{"data":{"color":"blue"}}')
    kubectl.ok("wait", "--for=condition=Ready", "pod/reads", "pod/asks", "--timeout=20s")
    look = ("exec", "reads", "--", "sh", "-c")
    told = kubectl.ok(*look, "echo $COLOR $CORES; cat /settings/color /settings-color /about/memory; ls -d /none")
    assert told == "blue 1\nblueblue67108864/none\n"
    told = kubectl.ok(*look, "stat -c %a /settings/color; echo there > /part/x; cat /seen/in/it/x; id > /scratch/me;"
                             " for f in /seen/me /settings/color /settings/new /about/memory; do"
                             " (echo > $f) 2>&1 || true; done")  # fmt: skip
    assert told.splitlines()[:2] == ["400", "there"]
    assert [line.endswith("Read-only file system") for line in told.splitlines()[2:]] == [True] * 4, told
    account = "/var/run/secrets/kubernetes.io/serviceaccount"
    told = kubectl.ok(*look, f"cd {account}; ls; cat namespace; head -n 1 ca.crt; wc -c < token; touch x 2>&1 || true")
    assert told.splitlines() == [
        "ca.crt", "namespace", "token", "default-----BEGIN CERTIFICATE-----", "64",
        "touch: cannot touch 'x': Read-only file system",
    ]  # fmt: skip
    kubectl.ok("patch", "configmap", "later", "-p", '{"data":{"color":"red"}}')
    eventually(lambda: kubectl.ok(*look, "cat /settings/color") == "red", "the file stays as it was")
    assert kubectl.ok(*look, "echo $COLOR; cat /settings-color") == "blue\nblue"


def test_probes_say_why(kubectl: Kubectl) -> None:
    """Each kind of probe, well and not, in the kubelet's words; `emunet status` counts who is not ready."""
    server = {"command": ["python3", "-m", "http.server", "8000"]}
    every = {"periodSeconds": 1, "failureThreshold": 1}
    wrong = {
        "http": ({"httpGet": {"path": "/none", "port": 8000}}, "HTTP probe failed with statuscode: 404"),
        "tcp": ({"tcpSocket": {"port": 1}}, "connect: connection refused"),
        "exec": ({"exec": {"command": ["sh", "-c", "echo not yet; false"]}}, "Readiness probe failed: not yet"),
        "grpc": ({"grpc": {"port": 8000}}, "Readiness probe failed: rpc error: "),
    }  # fmt: skip
    for name, (probe, _) in wrong.items():
        kubectl.ok("create", "-f", "-", stdin=pod(f"probe-{name}", {**server, "readinessProbe": {**probe, **every}}))
    for name, (_, words) in wrong.items():
        eventually(lambda name=name, words=words: words in events_of(kubectl, f"probe-{name}"), words)  # type: ignore[misc]
        assert kubectl.ok("get", "pod", f"probe-{name}").splitlines()[1].split()[1:3] == ["0/1", "Running"]
    ready = {one["name"]: one["ready"] for one in kubectl.labs.status("kube")["pods"]}
    assert ready == {"client": True, **{f"probe-{name}": False for name in wrong}}


def test_what_pods_keep_on_their_host(kubectl: Kubectl) -> None:
    """hostPath: shared by the pods of one host, a folder of the lab's own whatever links a pod puts there."""
    hidden = Path("/run/emunet-test-hidden")
    assert not hidden.exists()
    mount = {"volumeMounts": [{"name": "v", "mountPath": "/data"}]}

    def keeper(name: str, host: str, path: str) -> str:
        volume = {"name": "v", "hostPath": {"path": path}}
        return pod(name, {**sh("exec sleep 1000"), **mount}, nodeName=host, volumes=[volume])

    def run(name: str, script: str) -> str:
        return kubectl.ok("exec", name, "--", "sh", "-c", script)

    wanted = {"one": ("host1", "/srv/x"), "two": ("host1", "/srv/x"), "far": ("host2", "/srv/x")}
    kubectl.ok("create", "-f", "-", stdin="\n".join(keeper(name, *rest) for name, rest in wanted.items()))
    kubectl.ok("wait", "--for=condition=Ready", *(f"pod/{name}" for name in wanted), "--timeout=20s")
    run("one", f"echo kept > /data/note; ln -sfn {hidden} /data/way; ln -sfn ../../../../etc /data/up")
    assert run("two", "cat /data/note") == "kept\n"
    assert run("far", "ls /data") == ""
    kubectl.ok("delete", "--now", "pod", "one", "two")
    wanted = {"again": ("host1", "/srv/x"), "sly": ("host1", "/srv/x/way"), "up": ("host1", "/srv/x/up")}
    kubectl.ok("create", "-f", "-", stdin="\n".join(keeper(name, *rest) for name, rest in wanted.items()))
    kubectl.ok("wait", "--for=condition=Ready", *(f"pod/{name}" for name in wanted), "--timeout=20s")
    assert run("again", "cat /data/note") == "kept\n"
    run("sly", "echo x > /data/x")
    assert run("up", "ls /data") == ""
    assert not hidden.exists()
    kubectl.ok("exec", "again", "--", "sh", "-c", "rm -rf /data/*")


def test_bytes_that_are_no_text(kubectl: Kubectl, tmp_path: Path) -> None:
    """binaryData of a config map, and a secret, are files of the pod byte by byte."""
    data = bytes(range(256))
    (tmp_path / "blob").write_bytes(data)
    kubectl.ok("create", "configmap", "blobs", f"--from-file={tmp_path / 'blob'}")
    kubectl.ok("create", "secret", "generic", "hidden", f"--from-file={tmp_path / 'blob'}")
    mounts = [{"name": name, "mountPath": f"/{name}"} for name in ("blobs", "hidden")]
    volumes = [
        {"name": "blobs", "configMap": {"name": "blobs"}},
        {"name": "hidden", "secret": {"secretName": "hidden"}},
    ]
    made = pod("bytes", {**sh("exec sleep 1000"), "volumeMounts": mounts}, volumes=volumes)
    kubectl.ok("create", "-f", "-", stdin=made)
    kubectl.ok("wait", "--for=condition=Ready", "pod/bytes", "--timeout=20s")
    digest = hashlib.sha256(data).hexdigest()
    for folder in ("blobs", "hidden"):
        assert kubectl.ok("exec", "bytes", "--", "sha256sum", f"/{folder}/blob").split()[0] == digest
    kubectl.ok("delete", "secret", "hidden")
