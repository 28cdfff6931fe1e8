"""What `emunet up` is given: bad files get their exact errors, and nothing is half-built; options do what they say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from lab_driver import ROOT, TWO_HOSTS, Labs, balance, eventually

POD = """---
apiVersion: v1
kind: Pod
metadata: {name: NAME}
spec:
  restartPolicy: POLICY
  containers:
    - name: main
      image: busybox
      command: COMMAND
"""
TOPOLOGY = "apiVersion: emunet/v1\nkind: Topology\nmetadata: {name: small}\nspec: {hosts: [host1]}\n"


def pod(name: str, command: str = "", policy: str = "Always") -> str:
    text = POD.replace("NAME", name).replace("POLICY", policy)
    return text.replace("COMMAND", command) if command else text.replace("      command: COMMAND\n", "")


BAD = {
    "unknown-field": (
        "apiVersion: emunet/v1\nkind: Topology\nmetadata: {name: x}\nspec: {hosts: [host1], colour: red}\n",
        r"bad\.yaml:4:\d+: spec\.colour: .+\n",
    ),
    "no-yaml": ("a: [1, 2\n", r"bad\.yaml:2:1: cannot be read as YAML: .+\n"),
    "no-topology": (pod("web-1"), r"bad\.yaml:1:1: expected one object of kind Topology .+ \(got none\)\n"),
    "two-faults": (
        "apiVersion: emunet/v1\nkind: Topology\nmetadata: {name: X}\nspec: {hosts: []}\n",
        r"bad\.yaml:3:\d+: metadata\.name: .+\nbad\.yaml:4:\d+: spec\.hosts: .+\n",
    ),
    "unknown-host": (
        TOPOLOGY + pod("web-1").replace("spec:\n", "spec:\n  nodeName: host9\n"),
        r"bad\.yaml:\d+:\d+: spec\.nodeName: .*host9.*\n",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_exactly_and_nothing_is_built(labs: Labs, tmp_path: Path, case: str) -> None:
    text, expected = BAD[case]
    (tmp_path / "bad.yaml").write_text(text)
    done = labs.run("up", str(tmp_path / "bad.yaml"))
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(expected, done.stderr.replace(f"{tmp_path}/", "")), done.stderr
    assert labs.processes() == {}
    assert not labs.folder.exists() or list(labs.folder.iterdir()) == []


def test_a_file_is_named_as_the_person_named_it(labs: Labs) -> None:
    done = labs.run("up", "topologies/no-such-file.yaml")
    assert done.returncode == 1
    assert done.stderr == "topologies/no-such-file.yaml:1:1: cannot read this file: No such file or directory\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--speed", "2"], "time on TAP wires is the kernel's"),
        (["--wires", "string"], "Invalid value for '--wires'"),
        (["--capture", "web-1"], "should be like web-1,host1:eth0=FILE.pcapng"),
        (["--capture", "web-1=/no/such/folder/x.pcapng"], "there is no folder /no/such/folder"),
        (["--lab", "../up"], "cannot name a lab"),
        (["--colour"], "No such option"),
    ],
)
def test_bad_usage_is_exit_code_2_and_one_sentence(labs: Labs, arguments: list[str], sentence: str) -> None:
    done = labs.run("up", str(TWO_HOSTS), *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("emunet: ")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_a_file_it_is_the_two_hosts(labs: Labs) -> None:
    labs.ok("up")
    assert labs.status()["lab"] == "two-hosts"


def test_a_port_that_is_not_there_cannot_be_captured(labs: Labs, tmp_path: Path) -> None:
    done = labs.run("up", str(TWO_HOSTS), "--capture", f"web-9={tmp_path}/x.pcapng")
    assert done.returncode == 1
    assert done.stderr.startswith("--capture: there is no port web-9; there are: ")
    assert labs.processes() == {}
    assert list(labs.folder.iterdir()) == []


def test_a_run_folder_that_others_can_write_is_refused(labs: Labs) -> None:
    labs.folder.chmod(0o777)
    done = labs.run("up", str(TWO_HOSTS))
    assert done.returncode == 1
    assert f"others may write into {labs.folder}" in done.stderr
    labs.folder.chmod(0o700)


def test_a_host_whose_socket_has_too_long_a_name_is_refused(labs: Labs, tmp_path: Path) -> None:
    host = "rack-17-of-the-western-hall-" + "x" * 30
    (tmp_path / "long.yaml").write_text(TWO_HOSTS.read_text().replace("host1", host))
    done = labs.run("up", str(tmp_path / "long.yaml"), "--lab", "a-lab-with-a-name-of-some-length")
    assert done.returncode == 1
    assert f"docker/{host}.sock is too long a name for a Unix socket (107 bytes at most): give the lab" in done.stderr
    assert labs.processes() == {}
    assert list(labs.folder.iterdir()) == []


def test_a_folder_that_is_gone_is_said_to_be(labs: Labs, tmp_path: Path) -> None:
    script = 'mkdir "$0" && cd "$0" && rmdir "$0" && exec "$@"'
    command = ["sh", "-c", script, str(tmp_path / "gone"), *labs.command("up", str(TWO_HOSTS))]
    environment = labs.environment | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "emunet: the folder that you are in was removed: cd to one that is there\n",
    )


# A machine that allows no TAPs


def without_taps(labs: Labs, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command where there is no /dev/net/tun."""
    if os.geteuid() != 0:
        pytest.skip("only root can hide /dev/net/tun from a command")
    script = 'mount -t tmpfs none /dev/net && exec "$@"'
    command = ["unshare", "--mount", "--", "sh", "-c", script, "sh", *labs.command(*arguments)]
    return subprocess.run(command, cwd=ROOT, env=labs.environment, capture_output=True, text=True, check=False)


def test_where_taps_are_refused_auto_means_memory_and_says_so(labs: Labs) -> None:
    done = without_taps(labs, "up", str(TWO_HOSTS))
    assert done.returncode == 0, done.stderr
    reason = "Memory wires, because: TAPs cannot be opened: [Errno 2] No such file or directory: '/dev/net/tun'. "
    assert reason in done.stdout
    assert "`emunet doctor` tells how to allow TAPs" in done.stdout
    status = labs.status()
    assert status["wires"] == "memory"
    assert status["wires_reason"].startswith("TAPs cannot be opened")
    labs.ok("ping")
    assert "/dev/net/tun" in labs.run("exec", "web-1", "--", "true").stderr


def test_where_taps_are_refused_tap_is_an_error_with_the_cure(labs: Labs) -> None:
    done = without_taps(labs, "up", str(TWO_HOSTS), "--wires", "tap")
    assert done.returncode == 1
    assert "TAPs cannot be opened" in done.stderr
    assert "modprobe tun" in done.stderr
    assert labs.processes() == {}
    assert list(labs.folder.iterdir()) == []


# Captures


def test_a_capture_begins_with_the_first_frame(labs: Labs, tmp_path: Path) -> None:
    """The pods of the lab speak as soon as they are there; the file has their first word."""
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed")
    topology = tmp_path / "small.yaml"
    topology.write_text(TOPOLOGY + pod("web-1", "[ping, -c, '1', 10.244.1.3]", "Never") + pod("web-2"))
    file = tmp_path / "first.pcapng"
    labs.ok("up", str(topology), "--capture", f"web-1,web-2={file}")
    sent = labs.status("small")["pods"][0]["ips"]
    eventually(lambda: labs.status("small")["frames"]["delivered"] >= 4, "the ping was not sent")
    assert labs.status("small")["captures"] == [{"file": str(file), "written": 8, "lost": 0, "failure": ""}]
    assert f"capture {file}: 8 frames" in labs.ok("status")
    labs.ok("down")
    fields = ["-T", "fields"]
    for name in ("frame.interface_name", "arp.opcode", "arp.dst.proto_ipv4", "icmp.type"):
        fields += ["-e", name]
    read = subprocess.run(["tshark", "-r", str(file), *fields], capture_output=True, text=True, check=True)
    lines = [line.split("\t") for line in read.stdout.splitlines()]
    assert sent == ["10.244.1.2"]
    assert lines[0] == ["web-1", "1", "10.244.1.3", ""]
    assert [line[3] for line in lines if line[0] == "web-1" and line[3]] == ["8", "0"]
    assert {line[0] for line in lines} == {"web-1", "web-2"}


# Containers


def test_containers_that_name_a_program_run(labs: Labs, tmp_path: Path) -> None:
    topology = tmp_path / "small.yaml"
    topology.write_text(
        TOPOLOGY
        + pod("waits", "[sleep, '1000']")
        + pod("done", "['true']", "Never")
        + pod("plain")
        + pod("listens", "[sh, -c, 'echo $HOSTNAME > /dev/null; exec sleep 1000']")
    )
    done = labs.run("up", str(topology))
    assert done.returncode == 0
    assert done.stderr == ""
    eventually(
        lambda: labs.status("small")["pods"][0]["containers"][0]["exit_code"] == 0, "the program true has not ended"
    )
    pods = {pod["name"]: pod for pod in labs.status("small")["pods"]}
    assert all(pod["ready"] for pod in pods.values())
    assert "containers" not in pods["plain"]
    assert pods["waits"]["containers"] == [{"name": "main", "running": True, "exit_code": None, "failure": None}]
    # Joining the container shows its processes and no others.
    assert labs.ok("exec", "waits", "-c", "main", "--", "cat", "/proc/1/comm") == "sleep\n"


def test_a_program_that_is_not_there_is_a_warning_and_a_pod_that_is_not_ready(labs: Labs, tmp_path: Path) -> None:
    topology = tmp_path / "small.yaml"
    topology.write_text(TOPOLOGY + pod("web-1", "[no-such-program]"))
    done = labs.run("up", str(topology))
    assert done.returncode == 0
    assert done.stderr == (
        "warning: web-1: the container main could not be started: no-such-program: No such file or directory\n"
    )
    [web] = labs.status("small")["pods"]
    assert web["ready"] is False
    assert "not ready" in labs.ok("status")


GUEST = """
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {color: blue}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: none}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: guest}
spec:
  nodeName: host1
  hostNetwork: true
  dnsPolicy: ClusterFirstWithHostNet
  terminationGracePeriodSeconds: 1
  hostAliases: [{ip: 192.0.2.1, hostnames: [somebody]}]
  volumes: [{name: v, configMap: {name: settings}}, {name: e, emptyDir: {}}]
  containers:
    - name: main
      image: x
      command: [sleep, "1000"]
      volumeMounts: [{name: v, mountPath: /settings}, {name: e, mountPath: /own}]
"""


@pytest.mark.slow
def test_a_pod_in_its_hosts_network_has_files_and_names_of_its_own(labs: Labs, tmp_path: Path) -> None:
    """Its network and the name of its machine are its host's; its volumes and its resolv.conf are not."""
    topology = tmp_path / "small.yaml"
    other = pod("other", "[sleep, '1000']").replace("spec:\n", "spec:\n  hostNetwork: true\n")
    topology.write_text(TOPOLOGY + pod("web-1") + other + GUEST)
    labs.ok("up", str(topology))
    status = next(one for one in labs.status("small")["pods"] if one["name"] == "guest")
    assert (status["ips"], status["mac"], status["ready"]) == (["192.168.9.11"], None, True)
    script = (
        "hostname; cat /settings/color; echo; touch /own/file; ip -o -4 address show eth0; grep somebody /etc/hosts"
    )
    seen = labs.ok("exec", "guest", "-c", "main", "--", "sh", "-c", script).splitlines()
    assert (seen[0], seen[1], seen[3]) == ("host1", "blue", "192.0.2.1\tsomebody")
    assert "192.168.9.11/24" in seen[2]
    assert labs.ok("exec", "guest", "-c", "main", "--", "getent", "hosts", "web").split()[0].startswith("10.96.")
    assert "nameserver" not in labs.ok("exec", "other", "--", "grep", "-v", "^#", "/etc/resolv.conf", "/etc/hosts")
    assert labs.ok("exec", "other", "--", "sh", "-c", "ls -d /own /settings || true") == ""
    assert labs.ok("exec", "other", "--", "sh", "-c", "cat /proc/net/dev | grep -c flannel") == "1\n"
    labs.ok("delete", "pod", "guest")
    eventually(lambda: "guest" not in labs.ok("get", "pods"), "the guest does not end")
    assert labs.ok("exec", "host1", "--", "hostname") == "host1\n"
    labs.ok("apply", "-f", str(_written(tmp_path / "guest.yaml", GUEST)))
    eventually(lambda: "1/1" in labs.ok("get", "pods", "guest"), "the guest does not come again")
    assert labs.json("ping", "guest", "web-1")["unanswered"] == 0
    assert labs.json("trace", "guest", 'IP(dst="web-1")/ICMP()')["verdict"] == "delivered"
    assert labs.json("ping", "web-1", "guest")["unanswered"] == 0
    assert len(labs.json("ping")["pairs"]) == 0


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


# Every topology that we ship


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "topologies").glob("*.yaml")))
@pytest.mark.parametrize("wires", ["tap", "memory"])
def test_every_shipped_topology_answers_all_pings(labs: Labs, name: str, wires: str) -> None:
    labs.ok("up", f"topologies/{name}", "--wires", wires)
    answer = labs.json("ping")
    assert answer["unanswered"] == 0
    labs.ok("tour")
    status = labs.status(Path(name).stem)
    assert balance(status["frames"]) == 0
    assert status["frames"]["reasons"] == {}
