"""The real docker client and the Docker SDK for Python against the hosts of a running lab.

What is asked here is what people type, and that nothing hangs: each command has a time limit.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import shutil
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_driver import ROOT, Labs, by_age, eventually

_UNPACKED = ROOT / ".ci" / "docker-cli" / "usr" / "bin" / "docker"
DOCKERS = {
    name: path
    for name, path in {"debian": str(_UNPACKED) if _UNPACKED.exists() else None, "own": shutil.which("docker")}.items()
    if path
}
"""Debian's client of 2020, which `.ci/run` unpacks, and the one that the machine has."""

pytestmark = pytest.mark.skipif(
    not DOCKERS, reason="there is no docker client: `bash .ci/install-packages judge-packages.txt` gets one"
)

TOPOLOGY = """apiVersion: emunet/v1
kind: Topology
metadata: {name: dock}
spec:
  overlay: host-gw
  hosts:
    - host1
    - host2
    - {name: host3, docker: {networks: [blue], containers: [{name: stock, network: blue, ports: ["8080:80"]}]}}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1}
spec: {nodeName: host1, containers: [{name: a, image: busybox}]}
"""
HOST1, HOST2 = "192.168.9.11", "192.168.9.12"
CLIENT = "for i in $(seq 50); do curl -sfm1 http://{}/ >/dev/null && break; sleep 0.1; done; echo $?"


class Docker:
    """The client, pointed at one host."""

    def __init__(self, program: str, labs: Labs, host: str, folder: Path) -> None:
        self.program = program
        line = labs.ok("docker-host", host)
        self.url = line.partition("DOCKER_HOST=")[2].strip()
        self.environment = {**os.environ, "DOCKER_HOST": self.url, "DOCKER_CONFIG": str(folder / "config")}
        self.host = host

    def run(self, *words: str, stdin: str | None = None, seconds: float = 20) -> subprocess.CompletedProcess[str]:
        """Whatever comes of it; it is killed where it hangs."""
        return subprocess.run([self.program, *words], env=self.environment, input=stdin, capture_output=True, text=True,
                              timeout=seconds, check=False)  # fmt: skip

    def ok(self, *words: str, stdin: str | None = None) -> str:
        """What it prints, which must be a success."""
        done = self.run(*words, stdin=stdin)
        assert done.returncode == 0, f"docker {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def fails(self, *words: str, code: int = 1) -> str:
        """What it complains of."""
        done = self.run(*words)
        assert done.returncode == code, f"docker {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stderr

    def shell(self, *options: str, script: str) -> str:
        """What a script says in a container of its own."""
        return self.ok("run", "--rm", *options, "busybox", "sh", "-c", script).strip()

    def clear(self) -> None:
        """No container and no network of people's own is left."""
        names = self.ok("ps", "-aq").split()
        if names:
            self.ok("rm", "-f", *names)
        self.ok("network", "prune", "-f")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Labs, Path]]:
    """One lab on TAP wires for all tests of this file."""
    folder = tmp_path_factory.mktemp("d")
    (folder / "run").mkdir(mode=0o700)
    (folder / "lab.yaml").write_text(TOPOLOGY)
    labs = Labs(folder / "run")
    try:
        labs.ok("up", str(folder / "lab.yaml"))
        yield labs, folder
    finally:
        labs.leave()


@pytest.fixture(params=by_age(DOCKERS))
def docker(request: pytest.FixtureRequest, running: tuple[Labs, Path]) -> Iterator[Docker]:
    """The engine of host1, without anything from other tests, asked by each client."""
    client = Docker(request.param, running[0], "host1", running[1])
    client.ok("pull", "-q", "busybox")
    yield client
    client.clear()


@pytest.mark.rule("DK-01")
def test_a_fresh_host_shows_three_networks(running: tuple[Labs, Path]) -> None:
    labs, folder = running
    host = Docker(next(iter(DOCKERS.values())), labs, "host2", folder)
    rows = [line.split()[1:] for line in host.ok("network", "ls").splitlines()[1:]]
    assert rows == [["bridge", "bridge", "local"], ["host", "host", "local"], ["none", "null", "local"]]
    assert "host2:docker0" not in json.dumps(labs.status("dock"))
    links = labs.ok("exec", "host2", "--", "ip", "-br", "link")
    assert "docker0" not in links  # nobody has used it yet


def test_containers_of_the_topology_are_there_and_a_placeholder_answers(running: tuple[Labs, Path]) -> None:
    labs, folder = running
    host = Docker(next(iter(DOCKERS.values())), labs, "host3", folder)
    assert host.ok("ps", "--format", "{{.Names}} {{.Ports}}").strip() == "stock 0.0.0.0:8080->80/tcp"
    for where, target, client in (("host2", "192.168.9.13", HOST2), ("host3", "127.0.0.1", "172.18.0.1")):
        said = json.loads(labs.ok("exec", where, "--", "curl", "-sfm5", f"http://{target}:8080/"))
        assert (said["pod"], said["address"], said["client"]) == ("stock", "172.18.0.2", client)


def test_version_and_info_say_who_answers(docker: Docker) -> None:
    assert "emunet" in docker.ok("version")
    assert "Name: host1" in docker.ok("info")


@pytest.mark.rule("DK-02", "DK-03", "DK-05")
def test_a_container_on_the_default_bridge(docker: Docker) -> None:
    facts = json.loads(docker.shell(script="ip -j addr show eth0"))[0]
    assert facts["address"] == "02:42:ac:11:00:02"
    assert [row["local"] for row in facts["addr_info"] if row["family"] == "inet"] == ["172.17.0.2"]
    assert docker.shell(script="ip route show default").startswith("default via 172.17.0.1")
    assert " 0% packet loss" in docker.shell(script=f"ping -c1 -W2 {HOST2}")


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$; sleep 1", 137)])
def test_run_ends_as_its_program_does(docker: Docker, script: str, code: int) -> None:
    if "kill" in script:
        script = "sh -c 'kill -9 $$'; exit $?"
    assert docker.run("run", "--rm", "busybox", "sh", "-c", script).returncode == code


def test_streams_are_kept_apart_and_input_ends(docker: Docker) -> None:
    done = docker.run("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")
    text = "x" * 300_000 + "\n"
    assert docker.ok("run", "--rm", "-i", "busybox", "cat", stdin=text) == text


def test_what_cannot_be_run_says_so(docker: Docker) -> None:
    assert "executable file not found" in docker.fails("run", "--rm", "busybox", "nosuchprogram", code=127)
    assert "network nope not found" in docker.fails("run", "--rm", "--net", "nope", "busybox", "true", code=125)
    assert "outside of the lab's own folder" in docker.fails("run", "-v", "/etc:/x", "busybox", "true", code=125)
    assert docker.ok("ps", "-aq") == ""


@pytest.mark.rule("DK-06", "DK-07", "DK-08")
def test_published_ports_and_who_is_seen_to_call(running: tuple[Labs, Path], docker: Docker) -> None:
    labs = running[0]
    docker.ok("run", "-d", "--name", "web", "-p", "8080:80", "busybox", "python3", "-u", "-m", "http.server", "80")
    assert docker.ok("port", "web").strip() == "80/tcp -> 0.0.0.0:8080"
    shown = {one["name"]: one["ips"] for one in labs.status("dock")["containers"]}
    assert shown == {"host1/web": ["172.17.0.2"], "host3/stock": ["172.18.0.2"]}
    assert "host1/web" in labs.ok("status")
    assert docker.shell(script=CLIENT.format("172.17.0.2")) == "0"
    for where, target in (("host2", HOST1), ("host1", "127.0.0.1"), ("host1", HOST1)):
        labs.ok("exec", where, "--", "curl", "-sfm5", "-o", "/dev/null", f"http://{target}:8080/")
    docker.ok("run", "--rm", "busybox", "curl", "-sfm5", "-o", "/dev/null", f"http://{HOST1}:8080/")
    callers = [line.split()[0] for line in docker.run("logs", "web").stderr.splitlines() if "GET" in line]
    assert callers == ["172.17.0.3", HOST2, "172.17.0.1", "172.17.0.1", "172.17.0.1"]
    assert "address already in use" in docker.fails(
        "run", "--rm", "-p", "8080:80", "busybox", "true", code=125
    )  # fmt: skip
    docker.ok("rm", "-f", "web")
    docker.ok("run", "--rm", "-p", "8080:80", "busybox", "true")


def test_udp_is_published_too(running: tuple[Labs, Path], docker: Docker) -> None:
    server = "import socket; s=socket.socket(2,2); s.bind(('',53)); print('up', flush=True)\n"
    server += "while 1:\n d, a = s.recvfrom(99); s.sendto(a[0].encode(), a)"
    docker.ok("run", "-d", "--name", "udp", "-p", "5353:53/udp", "busybox", "python3", "-c", server)
    eventually(lambda: "up" in docker.ok("logs", "udp"), "the server did not begin")
    ask = "import socket,sys; s=socket.socket(2,2); s.settimeout(5); s.sendto(b'x',(sys.argv[1],5353)); "
    ask += "print(s.recv(99).decode())"
    for where, target, seen in (("host2", HOST1, HOST2), ("host1", "127.0.0.1", "172.17.0.1")):
        assert running[0].ok("exec", where, "--", "python3", "-c", ask, target).strip() == seen


@pytest.mark.rule("DK-12", "DK-13", "DK-14")
def test_none_host_and_another_containers_network(docker: Docker) -> None:
    assert docker.shell("--net", "none", script="ip -br addr | cut -d' ' -f1") == "lo"
    assert docker.shell("--net", "host", script="hostname; ip -br addr").startswith("host1\n")
    docker.ok("run", "-d", "--name", "pause", "busybox", "python3", "-m", "http.server", "80")
    assert docker.shell("--net", "container:pause", script=CLIENT.format("127.0.0.1")) == "0"
    message = docker.fails("run", "--net", "container:pause", "-p", "80:80", "busybox", "true", code=125)
    assert "conflicting options" in message
    docker.ok("run", "-d", "--name", "guest", "--net", "container:pause", "busybox", "sleep", "1000")
    docker.ok("rm", "-f", "pause")
    eventually(lambda: docker.ok("inspect", "-f", "{{.State.Status}}", "guest").strip() == "exited", "guest lives on")


@pytest.mark.rule("DK-09", "DK-11", "DK-18", "DK-19")
def test_networks_of_peoples_own(docker: Docker) -> None:
    docker.ok("network", "create", "blue")
    docker.ok("network", "create", "--internal", "inside")
    docker.ok("network", "create", "--subnet", "10.9.0.0/24", "--gateway", "10.9.0.254", "--ipv6", "six")
    for name, network in (("one", "blue"), ("two", "blue"), ("three", "inside")):
        docker.ok("run", "-d", "--name", name, "--net", network, "busybox", "sleep", "1000")
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    two, three = (docker.ok("inspect", "-f", form, name).strip() for name in ("two", "three"))
    assert docker.run("exec", "one", "ping", "-c1", "-W2", two).returncode == 0
    assert docker.run("exec", "one", "ping", "-c1", "-W1", three).returncode != 0
    assert docker.run("exec", "three", "ping", "-c1", "-W1", HOST2).returncode != 0
    docker.ok("network", "connect", "--ip", "10.9.0.9", "six", "one")
    assert "10.9.0.9/24" in docker.ok("exec", "one", "ip", "-br", "addr", "show", "eth1")
    assert docker.run("exec", "one", "ping", "-c1", "-W2", "10.9.0.254").returncode == 0
    docker.ok("network", "disconnect", "six", "one")
    eventually(lambda: "eth1" not in docker.ok("exec", "one", "ip", "-br", "addr"), "eth1 is still there")
    assert "active endpoints (one, two)" in docker.fails("network", "rm", "blue")
    members = json.loads(docker.ok("network", "inspect", "blue"))[0]["Containers"]
    assert {row["Name"] for row in members.values()} == {"one", "two"}
    assert "already exists" in docker.fails("network", "create", "blue")
    assert "it should be 10.8.0.0/24" in docker.fails("network", "create", "--subnet", "10.8.0.7/24", "odd")


@pytest.mark.rule("DK-15", "DK-16", "DK-17")
def test_names_on_networks_of_peoples_own(docker: Docker) -> None:
    docker.ok("network", "create", "blue")
    docker.ok("run", "-d", "--name", "db", "--net", "blue", "--network-alias", "data", "busybox", "sleep", "1000")
    said = docker.shell("--net", "blue", script="cat /etc/resolv.conf; getent hosts db data nosuch; echo $?")
    assert said.split() == ["nameserver", "127.0.0.11", "options", "ndots:0", "172.18.0.2", "db", "172.18.0.2", "data",
                            "2"]  # fmt: skip
    assert "172.18.0.2" not in docker.shell(script="cat /etc/resolv.conf; getent hosts db; true")
    docker.ok("run", "-d", "--name", "late", "busybox", "sleep", "1000")
    docker.ok("network", "connect", "blue", "late")
    assert docker.ok("exec", "late", "getent", "hosts", "db").split() == ["172.18.0.2", "db"]
    own = (
        "import socket, subprocess; u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(('', 53));"
        " t = socket.socket(); t.bind(('', 53)); t.listen(); print(subprocess.check_output(['getent', 'hosts', 'db']))"
    )
    said = docker.shell("--net", "blue", script=f'python3 -c "{own}"')
    assert "172.18.0.2" in said, "a name server of its own does not take the place of the engine's"
    docker.ok("network", "disconnect", "blue", "db")
    assert docker.run("exec", "late", "getent", "hosts", "db").returncode == 2


def test_exec_logs_stop_and_kill(docker: Docker) -> None:
    docker.ok(
        "run", "-d", "--name", "app", "busybox", "sh", "-c", "trap 'exit 5' TERM; echo up; while :; do sleep 0.1; done"
    )
    eventually(lambda: docker.ok("logs", "app") == "up\n", "it says nothing")
    done = docker.run("exec", "app", "sh", "-c", "echo a; echo b >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "a\n", "b\n")
    assert docker.run("exec", "app", "nosuchprogram").returncode == 127
    assert docker.ok("exec", "-i", "app", "cat", stdin="in\n") == "in\n"
    began = time.monotonic()
    docker.ok("stop", "app")
    assert time.monotonic() - began < 5
    assert docker.ok("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "app").strip() == "exited 5"
    docker.ok("start", "app")
    docker.ok("kill", "app")
    assert docker.ok("wait", "app").strip() == "137"
    assert docker.ok("logs", "--tail", "1", "-t", "app").endswith("Z up\n")
    assert "is not running" in docker.fails("kill", "app")


def test_a_terminal_has_the_clients_size_and_takes_its_keys(docker: Docker) -> None:
    script = """trap : INT
    until stty size | grep -q "33 111"; do sleep 0.02; done
    sh -c 'trap "exit 130" INT; echo sized; while :; do sleep 0.02; done'; echo in''ner=$?
    until stty size | grep -q "40 140"; do sleep 0.02; done; read x; echo go''t-$x; exit 9"""
    pid, master = pty.fork()
    if pid == 0:
        words = ["docker", "run", "-it", "--rm", "busybox", "sh", "-c", script]
        os.execve(docker.program, words, docker.environment)
    said = b""

    def until(words: bytes) -> None:
        nonlocal said
        deadline = time.monotonic() + 15
        while words not in said:
            assert time.monotonic() < deadline, said
            if select.select([master], [], [], 0.1)[0]:
                try:
                    piece = os.read(master, 65536)
                except OSError:  # the client is gone, and its terminal with it
                    piece = b""
                assert piece, said
                said += piece

    try:
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("4H", 33, 111, 0, 0))
        until(b"sized")
        os.write(master, b"\x03")
        until(b"inner=130")
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("4H", 40, 140, 0, 0))
        os.write(master, b"word\n")
        until(b"got-word")
    finally:
        code = os.waitstatus_to_exitcode(_end(pid))
        os.close(master)
    assert code == 9


def test_a_client_that_detaches_leaves_the_program_running(docker: Docker) -> None:
    pid, master = pty.fork()
    if pid == 0:
        os.execve(docker.program, ["docker", "run", "-it", "--name", "shell", "busybox", "sh"], docker.environment)
    try:
        eventually(lambda: bool(select.select([master], [], [], 0)[0]), "no prompt")
        os.write(master, b"\x10\x11")
        code = os.waitstatus_to_exitcode(_end(pid))
    finally:
        os.close(master)
    assert code == 0
    assert docker.ok("inspect", "-f", "{{.State.Running}}", "shell").strip() == "true"


def _end(pid: int) -> int:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return status
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def test_what_a_container_is_given(docker: Docker) -> None:
    said = docker.shell(
        "-h", "me", "--add-host", "x:1.2.3.4", "--add-host", "up:host-gateway", "--dns", "9.9.9.9", "-e", "A=b",
        "-w", "/tmp", "--mac-address", "02:00:00:00:00:99",
        script="hostname; cat /etc/hosts /etc/resolv.conf; echo $A $PWD; cat /sys/class/net/eth0/address",
    )  # fmt: skip
    lines = said.splitlines()
    assert lines[0] == "me"
    assert {"1.2.3.4\tx", "172.17.0.1\tup", "172.17.0.2\tme", "nameserver 9.9.9.9", "b /tmp"} <= set(lines)
    assert lines[-1] == "02:00:00:00:00:99"
    assert docker.shell("-u", "1234:5", script="id -u; id -g").split() == ["1234", "5"]
    assert "unable to find user nosuch" in docker.fails("run", "--rm", "-u", "nosuch", "busybox", "true", code=125)
    docker.shell("-v", "data:/data", script="echo kept > /data/note")
    assert (
        docker.shell("-v", "data:/data:ro", script="cat /data/note; touch /data/x 2>/dev/null || echo no") == "kept\nno"
    )


def test_the_rest_of_what_people_type(docker: Docker, tmp_path: Path) -> None:
    docker.ok("run", "-d", "--name", "web", "-P", "--expose", "81", "busybox", "sleep", "1000")
    assert docker.ok("port", "web").strip() == "81/tcp -> 0.0.0.0:32768"
    assert "sleep 1000" in docker.ok("top", "web")
    docker.ok("pause", "web")
    assert "(Paused)" in docker.ok("ps", "--filter", "status=paused", "--format", "{{.Status}}")
    assert "unpause the container before exec" in docker.run("exec", "web", "true").stderr
    docker.ok("unpause", "web")
    docker.ok("rename", "web", "site")
    docker.ok("update", "--restart", "on-failure", "site")
    docker.ok("restart", "-t", "0", "site")
    assert docker.ok("inspect", "-f", "{{.State.Running}} {{.HostConfig.RestartPolicy.Name}}", "site").split() == [
        "true",
        "on-failure",
    ]
    docker.ok("exec", "site", "sh", "-c", "mkdir /tmp/d; echo kept > /tmp/d/note; ping -c 3 -i 0.01 172.17.0.1")
    docker.ok("cp", "site:/tmp/d", str(tmp_path / "got"))
    docker.ok("cp", str(tmp_path / "got" / "note"), "site:/tmp/again")
    assert docker.ok("exec", "site", "cat", "/tmp/again") == "kept\n"
    refused = docker.fails("cp", "site:/tmp/none", str(tmp_path / "none"))
    assert "Could not find the file /tmp/none" in refused or "path: site:/tmp/none" in refused  # clients' own words
    name, processes, traffic = docker.ok(
        "stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}} {{.NetIO}}", "site"
    ).split(maxsplit=2)  # fmt: skip
    assert (name, processes) == ("site", "1")
    assert not traffic.startswith("0B"), "its interface has carried answers"
    docker.ok("stop", "-t", "0", "site")
    assert "Total reclaimed space" in docker.ok("container", "prune", "-f")
    docker.ok("network", "create", "n1")
    assert docker.ok("network", "ls", "-f", "type=custom", "--format", "{{.Name}}").strip() == "n1"
    assert "n1" in docker.ok("network", "prune", "-f")
    docker.ok("system", "prune", "-f")
    docker.ok("system", "df")
    docker.ok("volume", "create", "v1")
    assert "v1" in docker.ok("volume", "ls", "-q").split()
    docker.ok("volume", "rm", "v1")


def test_a_container_that_fails_is_started_again_as_it_wishes(docker: Docker) -> None:
    script = "echo x >> /d/runs; [ $(wc -l < /d/runs) = 3 ]"
    docker.ok(
        "run", "-d", "--name", "again", "--restart", "on-failure", "-v", "again:/d", "busybox", "sh", "-c", script
    )  # fmt: skip
    form = "{{.RestartCount}} {{.State.ExitCode}} {{.State.Status}}"
    eventually(
        lambda: docker.ok("inspect", "-f", form, "again").strip() == "2 0 exited", "it was not started twice more"
    )
    mounts = json.loads(docker.ok("inspect", "-f", "{{json .Mounts}}", "again"))
    assert [(one["Name"], one["Destination"], one["RW"]) for one in mounts] == [("again", "/d", True)]
    assert "volume is in use" in docker.fails("volume", "rm", "again")
    docker.ok("rm", "again")
    docker.ok("volume", "rm", "again")


def test_events(docker: Docker) -> None:
    since = str(time.time())
    docker.ok("run", "--rm", "--name", "brief", "busybox", "true")
    rows = docker.ok("events", "--since", since, "--until", str(time.time()), "--format", "{{.Type}} {{.Action}}")
    actions = [line for line in rows.splitlines() if "attach" not in line]
    assert actions == ["container create", "network connect", "container start", "container die", "network disconnect",
                       "container destroy"]  # fmt: skip


def test_containers_of_two_hosts_meet_by_published_ports_only(running: tuple[Labs, Path], docker: Docker) -> None:
    other = Docker(docker.program, running[0], "host2", running[1])
    other.ok("pull", "-q", "busybox")
    try:
        other.ok("run", "-d", "--name", "web", "-p", "8080:80", "busybox", "python3", "-u", "-m", "http.server", "80")
        docker.ok("run", "-d", "--name", "same", "busybox", "sleep", "1000")
        assert docker.shell(script=CLIENT.format(f"{HOST2}:8080")) == "0"
        assert docker.shell(script="curl -sm1 http://172.17.0.2/ >/dev/null; echo $?") == "7"  # its own neighbour
        assert f"{HOST1} - -" in other.run("logs", "web").stderr
    finally:
        other.clear()


def test_images_are_names(docker: Docker) -> None:
    assert "nothing is downloaded" in docker.ok("pull", "nginx:1.2")
    assert "nginx:1.2" in docker.ok("images", "--format", "{{.Repository}}:{{.Tag}}").split()
    docker.ok("run", "-d", "--name", "thing", "nginx:1.2")
    assert docker.ok("inspect", "-f", "{{.State.Running}}", "thing").strip() == "true"
    docker.ok("stop", "thing")
    docker.ok("rmi", "nginx:1.2")


@pytest.mark.parametrize(
    "words", [("build", "-"), ("swarm", "init"), ("commit", "x"), ("cp", "x:/a", "/tmp/b"), ("search", "x")]
)
def test_what_there_is_not_is_refused_in_dockers_form(docker: Docker, words: tuple[str, ...]) -> None:
    done = docker.run(*words, stdin="FROM scratch\n")
    assert done.returncode != 0
    assert done.stderr.strip()


def test_the_lab_keeps_running_and_its_log_is_empty(running: tuple[Labs, Path], docker: Docker) -> None:
    labs, folder = running
    docker.ok("run", "--rm", "busybox", "true")
    assert " 0% packet loss" in labs.ok("exec", "web-1", "--", "ping", "-c1", "-W2", HOST2)
    assert (folder / "run" / "dock" / "lab.log").read_text() == ""


# The SDK


def test_the_sdk(running: tuple[Labs, Path], docker: Docker) -> None:
    sdk = pytest.importorskip("docker", reason="the Docker SDK for Python is not installed: it is in the extra `test`")
    client = sdk.DockerClient(base_url=docker.url, timeout=20)
    try:
        assert client.ping()
        assert client.containers.run("busybox", "echo hello", remove=True) == b"hello\n"
        with pytest.raises(sdk.errors.ContainerError) as failed:
            client.containers.run("busybox", ["sh", "-c", "echo why >&2; exit 3"], remove=True)
        assert (failed.value.exit_status, failed.value.stderr) == (3, b"why\n")
        network = client.networks.create("blue", labels={"a": "b"})
        assert [one.name for one in client.networks.list(filters={"label": ["a=b"]})] == ["blue"]
        web = client.containers.run("busybox", "sleep 1000", detach=True, network="blue", name="web",
                                    ports={"80/tcp": 8081})  # fmt: skip
        web.reload()
        assert web.attrs["NetworkSettings"]["Ports"]["80/tcp"] == [{"HostIp": "0.0.0.0", "HostPort": "8081"}]
        assert web.exec_run(["sh", "-c", "echo in; exit 4"]) == (4, b"in\n")
        web.stop(timeout=0)
        assert web.wait()["StatusCode"] == 137
        web.remove()
        network.remove()
        with pytest.raises(sdk.errors.NotFound):
            client.containers.get("web")
        for image in ("never-named", "other:1"):
            with pytest.raises(sdk.errors.ImageNotFound):
                client.images.get(image)
    finally:
        client.close()
