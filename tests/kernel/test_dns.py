"""Names among kernels: what `dig`, `getent` and `curl` find in pods, and what becomes of it when things change.

The pods' kernels, the C library's resolver and dig are the judges; the name server is a process in a pod, behind the
ClusterIP of kube-dns.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_driver import Labs, eventually, one_lab

TOPOLOGY = """apiVersion: emunet/v1
kind: Topology
metadata: {name: names}
spec:
  hosts: [host1, host2]
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {nodeName: host1, containers: [{name: c, image: x, command: [sleep, infinity]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, labels: {app: web}}
spec: {nodeName: host2, containers: [{name: c, image: x, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, ports: [{name: sql, port: 80}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: c, image: x, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: shop}
spec: {type: ExternalName, externalName: web.default.svc.cluster.local}
---
apiVersion: v1
kind: Pod
metadata: {name: ask-upstream}
spec:
  nodeName: host1
  dnsPolicy: None
  dnsConfig: {nameservers: [10.96.0.10], searches: [svc.cluster.local], options: [{name: ndots, value: "2"}]}
  containers: [{name: c, image: x}]
---
apiVersion: v1
kind: Pod
metadata: {name: full, labels: {app: none}}
spec: {nodeName: host1, hostname: one, subdomain: db, setHostnameAsFQDN: true, containers: [{name: c, image: x}]}
"""


@pytest.fixture(scope="module")
def labs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Labs]:
    """One lab for all tests of this file."""
    with one_lab(tmp_path_factory.mktemp("dns"), TOPOLOGY) as made:
        yield made


def dig(labs: Labs, *words: str, pod: str = "client") -> list[str]:
    """What `dig +short` finds in a pod, in order of its text. A question that a busy machine loses it asks again."""
    told = labs.ok("exec", pod, "--", "dig", "+short", *words).splitlines()
    return sorted(line for line in told if not line.startswith(";;"))


def ips(labs: Labs, name: str) -> list[str]:
    """The addresses of a pod."""
    found: list[str] = next(row["ips"] for row in labs.status("names")["pods"] if row["name"] == name)
    return found


def server(labs: Labs) -> str:
    """The port name of the name server's pod."""
    [row] = [row for row in labs.status("names")["pods"] if row["namespace"] == "kube-system" and row["ready"]]
    return f"kube-system/{row['name']}"


def resolvers(labs: Labs) -> list[int]:
    """The processes that are name servers."""
    found = []
    for pid in labs.processes():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            if Path(f"/proc/{pid}/comm").read_text().strip() == "emunet-resolver":
                found.append(pid)
    return found


@pytest.mark.rule("DNS-01")
@pytest.mark.parametrize("view", [[], ["--isolated"]], ids=["the caller's files", "the pod's files"])
def test_the_c_library_finds_a_service_by_its_short_name(labs: Labs, view: list[str]) -> None:
    """E2E: should provide DNS for services; should resolve DNS of partial qualified names for services."""
    [address] = dig(labs, "web.default.svc.cluster.local")
    for name in (
        "web",
        "web.default",
        "web.default.svc",
        "web.default.svc.cluster.local",
        "web.default.svc.cluster.local.",
    ):
        found = labs.ok("exec", *view, "client", "--", "getent", "hosts", name)
        assert found.split() == [address, "web.default.svc.cluster.local"], name
    found = labs.ok("exec", *view, "client", "--", "getent", "ahostsv4", "db")
    assert {line.split()[0] for line in found.splitlines()} == {ips(labs, f"db-{n}")[0] for n in (0, 1)}


def test_a_page_by_the_name_of_its_service(labs: Labs) -> None:
    for url in ("http://web.default.svc.cluster.local", "http://web", "http://shop", "http://db-0.db"):
        page = labs.ok("exec", "client", "--", "curl", "-sS", "--max-time", "10", url)
        assert ('"pod":"db-0"' if "db" in url else '"pod":"web-1"') in page.replace(" ", ""), url


@pytest.mark.rule("DNS-02", "DNS-03", "DNS-05", "DNS-06", "DNS-07", "DNS-09", "DNS-10")
def test_what_dig_finds(labs: Labs) -> None:
    """E2E: should provide DNS for pods for Hostname and Subdomain."""
    one, two = ips(labs, "db-0")[0], ips(labs, "db-1")[0]
    assert dig(labs, "+search", "db") == sorted([one, two])
    assert dig(labs, "db-1.db.default.svc.cluster.local") == [two]
    assert dig(labs, "-x", one) == ["db-0.db.default.svc.cluster.local."]
    [address] = dig(labs, "+search", "web")
    assert dig(labs, "-x", address) == ["web.default.svc.cluster.local."]
    assert dig(labs, "SRV", "_http._tcp.web.default.svc.cluster.local") == ["0 100 80 web.default.svc.cluster.local."]
    assert dig(labs, "SRV", "_sql._tcp.db.default.svc.cluster.local") == [
        f"0 50 80 db-{number}.db.default.svc.cluster.local." for number in (0, 1)
    ]
    assert dig(labs, "10-1-2-3.default.pod.cluster.local") == ["10.1.2.3"]
    assert dig(labs, "TXT", "dns-version.cluster.local") == ['"1.1.0"']


@pytest.mark.rule("DNS-12", "DNS-13", "DNS-16", "DNS-17")
def test_what_dig_is_told_of_what_is_not_there(labs: Labs) -> None:
    told = labs.ok("exec", "client", "--", "dig", "nothing.default.svc.cluster.local")
    assert "status: NXDOMAIN" in told
    assert "\tSOA\tns.dns.cluster.local. hostmaster.cluster.local." in told
    told = labs.ok("exec", "client", "--", "dig", "AAAA", "WEB.default.svc.cluster.local")
    assert "status: NOERROR" in told
    assert "ANSWER: 0, AUTHORITY: 1" in told
    assert ";WEB.default.svc.cluster.local." in told
    told = labs.ok("exec", "client", "--", "dig", "www.example.com")
    assert "status: SERVFAIL" in told
    assert "EDE: 20 (Not Authoritative): (www.example.com.: it is outside of cluster.local" in told
    told = labs.ok("exec", "client", "--", "dig", "+noall", "+answer", "web.default.svc.cluster.local")
    assert told.split()[1:4] == ["30", "IN", "A"]
    done = labs.run("exec", "client", "--", "getent", "hosts", "nothing")
    assert done.returncode == 2


@pytest.mark.rule("DNS-15")
def test_what_does_not_fit_comes_over_tcp(labs: Labs) -> None:
    folder = labs.folder.parent
    addresses = ", ".join(f"{{ip: 10.9.0.{number}}}" for number in range(1, 101))
    (folder / "many.yaml").write_text(
        "apiVersion: v1\nkind: Service\nmetadata: {name: many}\nspec: {clusterIP: None, ports: [{name: a, port: 1}]}\n"
        "---\napiVersion: v1\nkind: Endpoints\nmetadata: {name: many}\n"
        f"subsets: [{{addresses: [{addresses}], ports: [{{name: a, port: 1}}]}}]\n"
    )
    labs.ok("apply", "-f", str(folder / "many.yaml"))
    name = "many.default.svc.cluster.local"
    eventually(lambda: len(dig(labs, name)) == 100, "a hundred addresses")
    told = labs.ok("exec", "client", "--", "dig", "+noedns", "+ignore", name)
    assert "flags: qr aa tc rd" in told
    told = labs.ok("exec", "client", "--", "dig", "+noedns", name)
    assert ";; Truncated, retrying in TCP mode." in told
    assert "ANSWER: 100" in told
    assert "ANSWER: 100" in labs.ok("exec", "client", "--", "dig", "+bufsize=4096", "+notcp", name), (
        "cut by IP, not DNS"
    )
    found = labs.ok("exec", "client", "--", "getent", "ahostsv4", "many")
    assert len({line.split()[0] for line in found.splitlines()}) == 100


@pytest.mark.rule("POD-04")
def test_the_files_of_pods(labs: Labs) -> None:
    """E2E: should support configurable pod resolv.conf; should provide /etc/hosts entries for the cluster."""
    assert labs.ok("exec", "client", "--", "cat", "/etc/resolv.conf").splitlines() == [
        "nameserver 10.96.0.10",
        "search default.svc.cluster.local svc.cluster.local cluster.local",
        "options ndots:5",
    ]
    assert labs.ok("exec", "ask-upstream", "--", "cat", "/etc/resolv.conf").splitlines() == [
        "nameserver 10.96.0.10", "search svc.cluster.local", "options ndots:2",
    ]  # fmt: skip
    assert (
        labs.ok("exec", "ask-upstream", "--", "getent", "hosts", "web.default").split()[1].startswith("web.default.svc")
    )
    hosts = labs.ok("exec", "client", "--", "cat", "/etc/hosts").splitlines()
    assert hosts[0] == "# Kubernetes-managed hosts file."
    assert hosts[-1] == f"{ips(labs, 'client')[0]}\tclient"
    assert labs.ok("exec", "full", "--", "hostname") == "one.db.default.svc.cluster.local\n"
    assert labs.ok("exec", "full", "--", "getent", "hosts", "one").split()[1:] == [
        "one.db.default.svc.cluster.local",
        "one",
    ]


def test_pods_and_hosts_have_short_names(labs: Labs) -> None:
    assert labs.ok("exec", "client", "--", "getent", "hosts", "web-1").split() == [*ips(labs, "web-1"), "web-1"]
    assert "1 received" in labs.ok("exec", "client", "--", "ping", "-c", "1", "host2")


def test_names_change_as_soon_as_endpoints_do(labs: Labs) -> None:
    began = time.monotonic()
    labs.ok("scale", "statefulset", "db", "--replicas", "3")
    eventually(lambda: len(dig(labs, "+search", "db")) == 3, "the third pod's address")
    assert dig(labs, "db-2.db.default.svc.cluster.local") == ips(labs, "db-2")
    labs.ok("scale", "statefulset", "db", "--replicas", "2")
    eventually(lambda: len(dig(labs, "+search", "db")) == 2, "it to be gone")
    assert time.monotonic() - began < 20


def test_the_name_server_is_no_part_of_the_table_of_pings(labs: Labs) -> None:
    assert [row["name"][:7] for row in labs.status("names")["pods"] if row.get("name_server")] == ["coredns"]
    rows = labs.json("ping")["pairs"]
    assert rows
    assert not any(row["from"].startswith("kube-system/") or row["to"].startswith("kube-system/") for row in rows)


def test_the_name_server_sees_nothing_of_the_machine_and_may_nothing(labs: Labs) -> None:
    [pid] = resolvers(labs)
    assert os.listdir(f"/proc/{pid}/root") == []
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0


BOTHER = """
import os, socket, sys
server = (sys.argv[1], 53)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
    datagrams.setblocking(False)
    for number in range(500):  # a TAP holds a thousand: these come through
        try:
            datagrams.sendto(os.urandom(number % 60), server)
        except BlockingIOError:
            pass
held = []
for number in range(300):
    held.append(socket.create_connection(server, timeout=10))
    held[-1].send(os.urandom(number) if number % 2 else bytes(2))
print("done")
"""


def test_who_bothers_the_name_server_keeps_nobody_from_it(labs: Labs) -> None:
    """Bytes that mean nothing, and more connections than it holds."""
    [before] = resolvers(labs)
    assert labs.ok("exec", "client", "--", "/usr/bin/python3", "-c", BOTHER, "10.96.0.10") == "done\n"
    name = "web.default.svc.cluster.local"
    assert dig(labs, name) == dig(labs, "+tcp", name) != []
    assert resolvers(labs) == [before]
    assert len(os.listdir(f"/proc/{before}/fd")) < 300


def test_hosts_and_its_own_pod_ask_it_too(labs: Labs) -> None:
    """The pod reaches itself by the Service's address: a hairpin."""
    for pod in ("host1", "host2", server(labs)):
        assert dig(labs, "@10.96.0.10", "web.default.svc.cluster.local", pod=pod) != [], pod


def test_a_killed_name_server_is_started_again(labs: Labs) -> None:
    """As a kubelet does: at once the first time. Meanwhile nobody answers, and the Service has no endpoint."""
    [before] = resolvers(labs)
    os.kill(before, signal.SIGKILL)
    eventually(lambda: resolvers(labs) not in ([], [before]), "another process")
    eventually(lambda: bool(dig(labs, "+tries=1", "+time=2", "web.default.svc.cluster.local")), "an answer of it")
    [row] = labs.ok("get", "pods", "-n", "kube-system").splitlines()[1:]
    assert row.split()[3] == "1", "restarts"


def test_the_name_servers_end_and_begin_again(labs: Labs) -> None:
    """Their pod stays; it is not ready, so the Service has no endpoint, and refuses at once."""
    assert labs.ok("dns") == "the cluster's name servers may answer\n"
    assert labs.json("dns", "--off") == {"on": False}
    eventually(lambda: resolvers(labs) == [], "the end of the process")

    def asked() -> str:
        return labs.run("exec", "client", "--", "dig", "+tries=1", "+time=2", "web.default.svc.cluster.local").stdout

    eventually(lambda: "connection refused" in asked(), asked)
    began = time.monotonic()
    assert labs.run("exec", "client", "--", "getent", "hosts", "web").returncode == 2
    assert time.monotonic() - began < 2
    assert resolvers(labs) == [], "nobody starts it again"
    labs.ok("dns", "--on")
    eventually(lambda: "ANSWER: 1" in asked(), asked)


def test_it_is_shown_and_scaled_as_any_other(labs: Labs) -> None:
    assert "kube-dns" in labs.ok("get", "services", "-n", "kube-system")
    shown = labs.ok("get", "pods", "-n", "kube-system")
    assert server(labs).removeprefix("kube-system/") in shown
    labs.ok("scale", "deployment", "coredns", "-n", "kube-system", "--replicas", "2")
    eventually(lambda: len(resolvers(labs)) == 2, "a second name server")
    name = "web.default.svc.cluster.local"
    eventually(lambda: all(dig(labs, "+tries=1", "+time=2", name) for _ in range(4)), "answers of both")
    labs.ok("scale", "deployment", "coredns", "-n", "kube-system", "--replicas", "1")
    eventually(lambda: len(resolvers(labs)) == 1, "one to be gone")


LATER = """apiVersion: emunet/v1
kind: Topology
metadata: {name: later}
spec:
  hosts: [host1]
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {containers: [{name: c, image: x, command: [sleep, infinity]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web}
spec: {containers: [{name: c, image: x, ports: [{containerPort: 80}]}]}
"""


def test_the_first_service_brings_the_name_server_to_pods_that_run(tmp_path: Path) -> None:
    """Until then there is none, and nothing of it. A pod of the Service's name is not in its way."""
    (tmp_path / "service.yaml").write_text(
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}], clusterIP: 10.96.0.77}\n"
    )
    with one_lab(tmp_path, LATER) as labs:
        assert [row["name"] for row in labs.status("later")["pods"]] == ["client", "web"]
        assert labs.ok("exec", "client", "--", "getent", "hosts", "web").split() == ["10.244.1.3", "web"]
        began = time.monotonic()
        assert labs.run("exec", "client", "--", "getent", "hosts", "nothing").returncode == 2
        assert time.monotonic() - began < 5, "nobody is asked"
        labs.ok("apply", "-f", str(tmp_path / "service.yaml"))
        for view in ([], ["--isolated"]):
            eventually(
                lambda view=view: labs.run("exec", *view, "client", "--", "getent", "hosts", "web").stdout.startswith(  # type: ignore[misc]
                    "10.96.0.77"
                ),
                "the Service's address",
            )


FORWARD = """apiVersion: emunet/v1
kind: Topology
metadata: {name: forward}
spec:
  hosts: [host1]
  dns: {enabled: true, domain: one.test, forward: [10.244.1.99, 10.244.1.50]}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {containers: [{name: c, image: x}]}
---
apiVersion: v1
kind: Pod
metadata: {name: upstream, annotations: {emunet/ip: 10.244.1.50}}
spec: {containers: [{name: c, image: x, command: [sleep, infinity]}]}
---
apiVersion: v1
kind: Service
metadata: {name: shop}
spec: {type: ExternalName, externalName: shop.example.com}
"""

# A name server that knows one address for every name, but over UDP says of TCP names that the answer was cut.
UPSTREAM = """
import socket, socketserver, threading
def answer(query, datagram):
    end = query.index(0, 12) + 5
    if datagram and b"tcp" in query:
        return query[:2] + bytes.fromhex("8380 0001 0000 0000 0000") + query[12:end]
    record = bytes.fromhex("c00c 0001 0001 0000003c 0004 c0000207")
    return query[:2] + bytes.fromhex("8180 0001 0001 0000 0000") + query[12:end] + record
class Datagrams(socketserver.BaseRequestHandler):
    def handle(self):
        self.request[1].sendto(answer(self.request[0], True), self.client_address)
class Streams(socketserver.StreamRequestHandler):
    def handle(self):
        query = self.rfile.read(int.from_bytes(self.rfile.read(2), "big"))
        told = answer(query, False)
        self.wfile.write(len(told).to_bytes(2, "big") + told)
threading.Thread(target=socketserver.UDPServer(("", 53), Datagrams).serve_forever).start()
streams = socketserver.TCPServer(("", 53), Streams)
print("ready", flush=True)
streams.serve_forever()
"""


@pytest.mark.rule("DNS-08", "DNS-17")
@pytest.mark.slow
def test_other_name_servers_are_asked_where_the_topology_names_them(tmp_path: Path) -> None:
    """The first of them does not exist. E2E: should provide DNS for ExternalName services."""
    with one_lab(tmp_path, FORWARD) as labs:
        assert dig(labs, "kubernetes.default.svc.one.test") == ["10.96.0.1"]
        told = labs.ok("exec", "client", "--", "dig", "+timeout=9", "www.example.com")
        assert "status: SERVFAIL" in told, "nobody is there yet"
        assert "EDE: 22 (No Reachable Authority)" in told
        upstream = labs.start("exec", "upstream", "--", "/usr/bin/python3", "-c", UPSTREAM)
        assert upstream.stdout is not None
        assert upstream.stdout.readline() == "ready\n"
        assert dig(labs, "+timeout=9", "www.example.com") == ["192.0.2.7"]
        assert dig(labs, "+timeout=9", "+tcp", "www.example.com") == ["192.0.2.7"]
        assert dig(labs, "+timeout=9", "tcp.example.com") == ["192.0.2.7"], "an answer that was cut is passed on so"
        assert dig(labs, "+timeout=9", "+search", "shop") == ["192.0.2.7", "shop.example.com."]
        found = labs.ok("exec", "client", "--", "getent", "ahostsv4", "shop")
        assert found.split()[0] == "192.0.2.7"
        assert dig(labs, "nothing.one.test") == []
        upstream.terminate()
        upstream.wait()
