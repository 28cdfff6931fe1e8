"""The kubectls that judge the Kubernetes API, and a lab for them.

Debian's (1.20: SPDY, validates by the document that the server gives) and the newest of PyPI (WebSocket,
protobuf, watches with initial events), both installed by `make deps` and `make test`; and each one that
EMUNET_KUBECTLS names besides (paths with colons between them).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_driver import ROOT, Labs, by_age

UNPACKED = ROOT / ".ci" / "kubernetes-client" / "usr" / "bin" / "kubectl"
"""Debian's, where a package of somebody else owns /usr/bin/kubectl."""


def _kubectls() -> dict[str, str]:
    """Each program by what the tests call it."""
    debian = str(UNPACKED) if UNPACKED.exists() else shutil.which("kubectl")
    newest = shutil.which("kubectl", path=str(Path(sys.executable).parent))
    found = {"debian": debian, "newest": newest}
    for number, path in enumerate(filter(None, os.environ.get("EMUNET_KUBECTLS", "").split(":"))):
        found[f"other{number}"] = path
    return {name: path for name, path in found.items() if path}


MANIFESTS = ROOT.parent / "shared" / "real" / "manifests"
"""What others wrote; beside the project, read in place."""

KUBECTLS = _kubectls()
KUBECTL = next(iter(KUBECTLS.values()), "")
"""The one for tests that need no second opinion."""

TOPOLOGY = """apiVersion: emunet/v1
kind: Topology
metadata: {name: kube}
spec: {hosts: [host1, host2]}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {nodeName: host1, containers: [{name: c, image: busybox, command: [sleep, "100000"]}]}
"""


class Kubectl:
    """One kubectl, pointed at one lab, with a home of its own."""

    def __init__(self, program: str, labs: Labs, folder: Path) -> None:
        self.program = program
        self.labs = labs
        config = folder / "kubeconfig"
        if not config.exists():
            labs.ok("kubeconfig", "-w", str(config))
        self.environment = {**os.environ, "KUBECONFIG": str(config), "HOME": str(folder), "NO_COLOR": "1"}

    def run(self, *arguments: str, stdin: str | None = None, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """Whatever comes of it."""
        return subprocess.run(
            [self.program, *arguments], env=self.environment, input=stdin, capture_output=True, text=True,
            timeout=seconds, check=False,
        )  # fmt: skip

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Left running, with its streams at hand."""
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        return subprocess.Popen([self.program, *arguments], env=self.environment, text=True, bufsize=1, **pipes)

    def ok(self, *arguments: str, stdin: str | None = None) -> str:
        """What it prints, which must be a success."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def kube_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Labs, Path]]:
    """One lab on TAP wires for all tests of this file."""
    folder = tmp_path_factory.mktemp("kube")
    labs = Labs(folder / "run")
    (folder / "lab.yaml").write_text(TOPOLOGY)
    (folder / "run").mkdir(mode=0o700)
    try:
        labs.ok("up", str(folder / "lab.yaml"))
        yield labs, folder
    finally:
        labs.leave()


@pytest.fixture(params=by_age(KUBECTLS))
def kubectl(request: pytest.FixtureRequest, kube_lab: tuple[Labs, Path]) -> Iterator[Kubectl]:
    """Each kubectl; what it made is removed afterwards."""
    made = Kubectl(request.param, *kube_lab)
    yield made
    made.run("delete", "deploy,svc,rc,cm,job,netpol", "--all", "--wait=true", "--timeout=20s")
    others = [name for name in made.ok("get", "pods", "-o", "name").split() if name != "pod/client"]
    if others:
        made.run("delete", "--now", *others)
