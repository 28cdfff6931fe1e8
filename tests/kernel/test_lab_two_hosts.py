"""The default lab as a person meets it: one `emunet up`, every command, real programs, and one `emunet down`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_driver import TWO_HOSTS, Labs, balance, eventually, machine

PODS = ["web-1", "web-2", "web-3", "web-4"]


@pytest.fixture(scope="module")
def labs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Labs]:
    """One lab of two hosts for all tests of this file."""
    made = Labs(tmp_path_factory.mktemp("run"))
    before = machine()
    try:
        made.ok("up", str(TWO_HOSTS), "--wires", "tap")
        yield made
        made.ok("down")
        assert made.processes() == {}, "down returned before all processes were gone"
        assert list(made.folder.iterdir()) == []
        assert machine() == before
    finally:
        made.leave()


@pytest.fixture(autouse=True)
def _every_frame_is_accounted_for(labs: Labs) -> Iterator[None]:
    yield
    assert balance(labs.status()["frames"]) == 0


def need(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


# Status


def test_status_has_the_shape_that_scripts_rely_on(labs: Labs) -> None:
    status = labs.json("status")
    assert status["lab"] == "two-hosts"
    assert status["wires"] == "tap"
    assert status["seed"] == 0
    assert isinstance(status["timing"], str)
    assert status["hosts"] == [
        {"name": "host1", "ips": ["192.168.9.11"], "ready": True},
        {"name": "host2", "ips": ["192.168.9.12"], "ready": True},
    ]
    assert [pod["name"] for pod in status["pods"]] == PODS
    for pod in status["pods"]:
        assert {"namespace", "name", "host", "ips", "mac", "ready"} <= pod.keys()
        assert pod["namespace"] == "default"
        assert pod["ready"] is True
    frames = {
        "received",
        "generated",
        "copied",
        "delivered",
        "consumed",
        "dropped",
        "queued",
        "wire_overruns",
        "reasons",
    }
    assert status["frames"].keys() == frames
    os.kill(status["pid"], 0)


def test_status_and_labs_for_people(labs: Labs) -> None:
    shown = labs.ok("status")
    assert "10.244.2.2" in shown
    assert "\x1b" not in shown
    assert "two-hosts" in labs.ok("labs")
    [row] = labs.json("labs")
    assert (row["lab"], row["state"], row["pods"]) == ("two-hosts", "running", 4)


def test_a_second_lab_of_that_name_is_refused_and_the_first_lives(labs: Labs) -> None:
    done = labs.run("up", str(TWO_HOSTS))
    assert done.returncode == 1
    assert done.stderr == "the lab two-hosts is running already: `emunet down --lab two-hosts` ends it\n"
    labs.ok("ping", "web-1", "web-2")


def test_its_sockets_are_for_the_owner_only(labs: Labs) -> None:
    folder = labs.folder / "two-hosts"
    assert folder.stat().st_mode & 0o777 == 0o700
    for name in ("api.sock", "frames.sock"):
        assert (folder / name).stat().st_mode & 0o777 == 0o600


# Ping


def test_all_pairs_answer(labs: Labs) -> None:
    answer = labs.json("ping")
    assert answer["unanswered"] == 0
    assert {(row["from"], row["to"]) for row in answer["pairs"]} == {(a, b) for a in PODS for b in PODS if a != b}
    assert all(row["received"] == row["sent"] == 1 for row in answer["pairs"])
    assert "12 pairs, all answered" in labs.ok("ping")


@pytest.mark.parametrize(
    ("source", "target"),
    [("web-1", "web-3"), ("web-1", "host1"), ("web-1", "host2"), ("host1", "web-4"), ("host1", "host2"),
     ("host2", "10.244.1.1"), ("default/web-1", "default/web-2")],
)  # fmt: skip
def test_pods_and_hosts_reach_each_other(labs: Labs, source: str, target: str) -> None:
    answer = labs.json("ping", source, target)
    assert answer["pairs"][0]["received"] == 3


def test_no_answer_is_exit_code_1_and_a_reason(labs: Labs) -> None:
    done = labs.run("ping", "web-1", "10.244.2.99", "-c", "1")
    assert done.returncode == 1
    assert "nobody on cni0 of host2 answered for 10.244.2.99" in done.stdout


def test_an_unknown_name_lists_those_there_are(labs: Labs) -> None:
    done = labs.run("ping", "web-1", "web-9")
    assert done.returncode == 1
    assert done.stderr == (
        "emunet: there is no pod or host web-9; there are: host1, host2, web-1, web-2, web-3, web-4\n"
    )


def test_a_link_that_is_down_says_so_and_comes_back(labs: Labs) -> None:
    labs.ok("ping", "web-1", "web-3")  # so that host1 has no need to ask for a MAC, in vain
    labs.ok("link", "host1--switch1", "--down")
    try:
        assert {wire["name"]: wire["up"] for wire in labs.json("link")} == {
            "host1--switch1": False,
            "host2--switch1": True,
        }
        done = labs.run("ping", "web-1", "web-3", "-c", "1")
        assert done.returncode == 1
        assert "wire host1--switch1 is down: `emunet link host1--switch1 --up` brings it back" in done.stdout
    finally:
        labs.ok("link", "host1--switch1", "--up")
    assert labs.json("ping", "web-1", "web-3")["unanswered"] == 0


def test_a_link_that_is_not_there_lists_those_there_are(labs: Labs) -> None:
    done = labs.run("link", "nope", "--down")
    assert done.returncode == 1
    assert done.stderr == "emunet: there is no wire nope; there are: host1--switch1, host2--switch1\n"


# Exec


def test_exec_gives_the_programs_output_and_exit_code(labs: Labs) -> None:
    assert labs.ok("exec", "web-1", "--", "hostname").strip() == "web-1"
    assert labs.ok("exec", "host2", "--", "hostname").strip() == "host2"
    assert labs.run("exec", "web-1", "--", "sh", "-c", "exit 7").returncode == 7
    assert labs.run("exec", "web-1", "--", "no-such-program").returncode == 127
    assert labs.run("exec", "web-1", "sh", "-c", "kill -9 $$").returncode == 137


def test_exec_knows_the_containers_of_a_pod(labs: Labs) -> None:
    assert labs.ok("exec", "web-1", "-c", "web", "--", "hostname").strip() == "web-1"
    done = labs.run("exec", "web-1", "-c", "nope", "--", "true")
    assert done.returncode == 1
    assert done.stderr == "emunet: web-1 has no container nope; it has: web\n"


def test_a_pod_has_files_of_its_own_beside_those_of_the_machine(labs: Labs, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    labs.ok("exec", "web-1", "--", "touch", str(mark))
    assert mark.exists()
    labs.ok("exec", "web-1", "--isolated", "--", "sh", "-c", "rm -r /usr/share; echo own > /etc/emunet-test; ls /root")
    assert Path("/usr/share").is_dir()
    assert not Path("/etc/emunet-test").exists()
    assert labs.ok("exec", "web-1", "-c", "web", "--", "cat", "/etc/emunet-test", "/etc/hostname") == "own\nweb-1\n"
    assert labs.run("exec", "web-2", "--isolated", "--", "cat", "/etc/emunet-test").returncode == 1


def test_a_pod_cannot_read_the_environment_that_up_was_called_with(labs: Labs) -> None:
    done = labs.run("exec", "web-1", "--isolated", "--", "cat", "/proc/1/environ")
    assert (done.returncode, done.stdout) == (1, "")


def test_a_pod_has_its_own_interface_and_names(labs: Labs) -> None:
    links = json.loads(labs.ok("exec", "web-1", "--", "ip", "-j", "address", "show", "eth0"))
    assert links[0]["mtu"] == 1450
    assert [row["local"] for row in links[0]["addr_info"]] == ["10.244.1.2"]
    assert "10.244.2.2" in labs.ok("exec", "web-1", "--", "getent", "hosts", "web-3")
    routes = labs.ok("exec", "host1", "--", "ip", "route", "get", "10.244.2.2")
    assert "dev flannel.1 src 10.244.1.0" in routes


def test_a_host_forwards_nothing_itself_and_knows_no_neighbours(labs: Labs) -> None:
    assert labs.ok("exec", "host1", "--", "cat", "/proc/sys/net/ipv4/ip_forward").strip() == "0"
    for link in json.loads(labs.ok("exec", "host1", "--", "ip", "-j", "link")):
        assert link["ifname"] == "lo" or "NOARP" in link["flags"]


def test_ttl_counts_the_routers_on_the_way(labs: Labs) -> None:
    assert "ttl=64" in labs.ok("exec", "web-1", "--", "ping", "-c", "1", "web-2")
    assert "ttl=62" in labs.ok("exec", "web-1", "--", "ping", "-c", "1", "web-3")


def test_what_does_not_fit_is_refused_by_the_pods_own_kernel(labs: Labs) -> None:
    done = labs.run("exec", "web-1", "--", "ping", "-c", "1", "-M", "do", "-s", "1423", "web-3")
    assert done.returncode == 1
    assert "mtu" in (done.stdout + done.stderr).lower()


def test_curl_between_hosts(labs: Labs) -> None:
    need("curl")
    server = labs.start(
        "exec", "web-3", "--", sys.executable, "-m", "http.server", "8080", "--directory", str(TWO_HOSTS.parent)
    )
    try:
        fetch = ("exec", "web-1", "--", "curl", "-s", "--max-time", "5", "http://web-3:8080/two-hosts.yaml")
        eventually(lambda: labs.run(*fetch).returncode == 0, "curl gets no answer from web-3")
        assert labs.ok(*fetch) == TWO_HOSTS.read_text()
    finally:
        server.terminate()
        server.communicate()


@pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])
def test_iperf3_between_hosts(labs: Labs, udp: bool) -> None:
    need("iperf3")
    server = labs.start("exec", "web-4", "--", "iperf3", "-s", "-1")
    try:
        eventually(lambda: "5201" in labs.ok("exec", "web-4", "--", "ss", "-ltn"), "iperf3 does not listen")
        kind = ("-u", "-b", "5M") if udp else ()  # what a receiver that others keep waiting still has room for
        report = json.loads(labs.ok("exec", "web-1", "--", "iperf3", "-J", "-c", "web-4", "-t", "1", *kind))
        end = report["end"]
        if udp:
            assert end["sum"]["lost_percent"] < 1
        else:
            assert end["sum_received"]["bits_per_second"] > 100e6
    finally:
        server.terminate()
        server.communicate()


def test_traceroute_names_every_router(labs: Labs) -> None:
    need("traceroute")
    hops = labs.ok("exec", "web-1", "--", "traceroute", "-n", "-q", "1", "-w", "2", "10.244.2.2").splitlines()[1:]
    assert [hop.split()[1] for hop in hops] == ["10.244.1.1", "10.244.2.0", "10.244.2.2"]


# Trace


def test_a_dry_trace_tells_all_and_changes_nothing(labs: Labs) -> None:
    labs.ok("ping", "web-1", "web-3")
    trace = labs.json("trace", "web-1", 'IP(dst="web-3")/ICMP()')
    assert trace["verdict"] == "delivered"
    assert [hop["device"] for hop in trace["hops"]] == ["host1", "switch1", "host2"]
    assert trace.keys() == {"verdict", "reason", "sentence", "hops"}
    for hop in trace["hops"]:
        for step in hop["steps"]:
            assert {"element", "why", "edits"} <= step.keys()

    def nothing_moves() -> bool:
        before = labs.status()["frames"]
        labs.ok("trace", "web-1", 'IP(dst="web-3")/ICMP()')
        return bool(labs.status()["frames"] == before)

    eventually(nothing_moves, "no frame is counted for a dry trace")  # hosts look after their neighbours now and then


def test_a_live_trace_sends_the_frame(labs: Labs) -> None:
    before = labs.status()["frames"]
    trace = labs.json("trace", "web-1", 'IP(dst="10.9.9.9")/UDP(dport=53)', "--live")
    assert (trace["verdict"], trace["reason"]) == ("dropped", "NO_ROUTE")
    after = labs.status()["frames"]
    assert after["reasons"]["NO_ROUTE"] == before["reasons"].get("NO_ROUTE", 0) + 1


def test_a_live_trace_waits_for_a_packet_that_waits(labs: Labs) -> None:
    trace = labs.json("trace", "web-1", 'IP(dst="10.244.2.88")/UDP(dport=53)', "--live")
    assert (trace["verdict"], trace["reason"]) == ("dropped", "NEIGHBOR_UNREACHABLE")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("web-9", "IP()"), "there is no pod or host web-9; there are: "),
        (("web-1", "IPx()"), "Scapy has no IPx: did you mean IP?"),
        (("web-1", "IP("), "this is no Python expression"),
        (("web-1", "5"), "the expression is 5 and no packet"),
    ],
)
def test_a_bad_trace_is_one_sentence(labs: Labs, arguments: tuple[str, str], sentence: str) -> None:
    done = labs.run("trace", *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(f"emunet: {sentence}")
    assert done.stderr.count("\n") == 1


# Tour, top, doctor


def test_the_tour_prints_commands_that_work(labs: Labs) -> None:
    shown = labs.ok("tour")
    assert "12 pairs, all answered" in shown
    assert "delivered: reaches web-3" in shown
    assert "emunet exec web-1 -- ping -c 3 web-3" in shown
    assert "emunet link host1--switch1 --down" in shown


def test_top_shows_every_device(labs: Labs) -> None:
    shown = labs.ok("top", "-n", "1", "-d", "0.1")
    for device in ("host1", "host2", "switch1"):
        assert device in shown


def test_the_doctor_finds_this_machine_well(labs: Labs) -> None:
    answer = labs.json("doctor")
    assert answer["tap"] is True
    assert all(finding["ok"] for finding in answer["findings"] if finding["needed"])


# Load


def test_a_slow_control_process_stops_no_frames(labs: Labs) -> None:
    ping = labs.start("exec", "web-1", "--", "ping", "-c", "10", "-i", "0.1", "-W", "1", "web-3")
    control = labs.status()["pid"]
    assert ping.stdout is not None
    ping.stdout.readline()  # it runs
    os.kill(control, signal.SIGSTOP)
    try:
        out, _ = ping.communicate(timeout=20)
    finally:
        os.kill(control, signal.SIGCONT)
    assert ping.returncode == 0, out
    assert " 0% packet loss" in out


def test_what_a_full_tap_loses_is_counted(labs: Labs) -> None:
    """The plane is stopped while a pod sends more than its TAP holds."""
    before = labs.status()["frames"]["wire_overruns"]
    plane = labs.pid_of("emunet-plane")
    assert plane is not None
    send = "import socket; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.setsockopt(1, 7, 1<<24);" \
        "[s.sendto(b'x', ('10.244.1.1', 9)) for _ in range(4000)]"  # fmt: skip
    labs.ok("ping", "web-1", "host1")  # so that the gateway's MAC is known
    wait = f"print('there', flush=True); input(); {send}"
    program = labs.start("exec", "web-1", "--", sys.executable, "-c", wait, stdin=subprocess.PIPE, stderr=None)
    assert program.stdout is not None
    assert program.stdin is not None
    program.stdout.readline()
    os.kill(plane, signal.SIGSTOP)
    try:
        program.stdin.write("\n")
        program.stdin.close()
        program.wait(20)
    finally:
        os.kill(plane, signal.SIGCONT)
    program.stdout.close()
    eventually(lambda: labs.status()["frames"]["wire_overruns"] > before, "what the TAP had no room for is counted")


# The API by itself


def ask(labs: Labs, request: str) -> tuple[int, dict[str, object]]:
    with socket.socket(socket.AF_UNIX) as asker:
        asker.connect(str(labs.folder / "two-hosts" / "api.sock"))
        asker.sendall(request.encode())
        answer = b""
        while part := asker.recv(65536):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "sentence"),
    [
        ("GET", "/nothing", "", 404, "GET /nothing: Not Found"),
        ("POST", "/ping", "{", 400, "the body is not JSON"),
        ("POST", "/ping", "[]", 400, "expected a JSON object"),
        ("POST", "/ping", '{"from": "web-1"}', 400, "give both names or none"),
        ("POST", "/ping", '{"count": "many"}', 400, "the field count must be of the type int"),
        ("POST", "/ping", '{"colour": 1}', 400, "there is no field colour"),
        ("POST", "/trace", '{"port": "web-1"}', 400, "say what to trace"),
        ("POST", "/trace", '{"port": "web-1", "data": "zz"}', 400, "hexadecimal"),
        ("POST", "/trace", '{"port": "web-1", "data": "00"}', 400, "neither an IPv4 nor an IPv6 packet"),
        ("POST", "/time", '{"seconds": 1}', 409, "time is the kernel's on TAP wires"),
        ("GET", "/tables/nope", "", 404, "there is no device nope"),
        ("GET", "/sandboxes/nope", "", 404, "there is no pod or host nope"),
    ],
)
def test_the_api_answers_nonsense_with_a_sentence(
    labs: Labs, method: str, path: str, body: str, status: int, sentence: str
) -> None:
    head = f"{method} {path} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    code, answer = ask(labs, head + body)
    assert sentence in str(answer["error"])
    assert code == status


def test_tables_tell_what_was_learned(labs: Labs) -> None:
    labs.ok("ping", "web-1", "web-2")
    code, tables = ask(labs, "GET /tables/host1 HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")
    assert code == 200
    assert any("stations" in name for name in tables)
    assert "web-1" in json.dumps(tables)


def test_the_run_folder_has_nothing_to_say(labs: Labs) -> None:
    """The last test: all that was done above is no reason for a word in the log."""
    assert Path(labs.folder / "two-hosts" / "lab.log").read_text() == ""
