"""The keeper: sandboxes, programs and probes, and that nothing is left of them whoever dies first."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel_bench import SECONDS, Bench, eventually, is_gone, kill, pod_spec, sleepers

from emunet.linux import syscalls
from emunet.linux.keeper_client import (
    Keeper,
    KeeperEnded,
    KeeperGone,
    KeeperRefused,
    ProcessExited,
    Received,
    Reply,
    SandboxEnded,
)
from emunet.linux.keeper_requests import AttachInterfaces, CreateSandbox, OpenSockets, Probe, RemoveSandbox, Spawn
from emunet.linux.specification import InterfaceSpec, NeighborSpec, ProbeSpec, ProgramSpec, RouteSpec, SandboxSpec
from emunet.linux.tap import close_many

PATH = {"PATH": os.environ["PATH"]}


def output(bench: Bench, sandbox: str, *argv: str, **fields: object) -> str:
    """What a program in a sandbox writes to its standard output and error; it must end well."""
    program = ProgramSpec(argv, environment=PATH, **fields)  # type: ignore[arg-type]
    reader, writer = os.pipe()
    pid = bench.keeper.spawn(sandbox, program, stdout=writer, stderr=writer)
    os.close(writer)
    with open(reader) as file:
        text = file.read()
    exited = bench.keeper.wait_program(pid)
    assert exited.code == 0, (exited, text)
    return text


def shell(bench: Bench, sandbox: str, line: str, **fields: object) -> str:
    """The same, of a line of shell."""
    return output(bench, sandbox, "/bin/sh", "-c", line, **fields)


# What a sandbox is


def test_a_sandbox_has_what_was_asked_for(bench: Bench) -> None:
    spec = pod_spec(
        7,
        hostname="web-7",
        files={"/etc/hosts": "10.244.0.7 web-7\n", "/etc/resolv.conf": "nameserver 10.96.0.10\n"},
        routes=(
            RouteSpec("0.0.0.0/0", "10.244.0.254"),
            RouteSpec("10.96.0.0/12", "169.254.1.1", "eth0", onlink=True, metric=7, source="10.244.0.7"),
            RouteSpec("::/0", "fd00::fe"),
        ),
        neighbors=(NeighborSpec("eth0", "10.244.0.254", "02:00:00:00:00:fe"),),
        sysctls={"net.ipv4.tcp_ecn": "1"},
    )
    sandbox = bench.make(spec)
    assert len(sandbox.taps) == len(sandbox.drop_counters) == 1
    arguments = Path(f"/proc/{sandbox.pid}/cmdline")
    eventually(lambda: arguments.read_bytes().startswith(b"emunet-pause pod7\0"), "the pause has its name")
    assert syscalls.start_time(sandbox.pid) == sandbox.start_time
    seen = shell(
        bench,
        "pod7",
        "hostname; cat /etc/hosts /etc/resolv.conf /proc/sys/net/ipv4/tcp_ecn;"
        "ip -o address; ip route; ip -6 route; ip neighbor; cat /sys/class/net/eth0/speed",
    )
    for expected in (
        "web-7\n10.244.0.7 web-7\nnameserver 10.96.0.10\n1\n",
        "inet 127.0.0.1/8",
        "inet 10.244.0.7/24 brd 10.244.0.255",
        "inet6 fd00::7/64",
        "default via 10.244.0.254 dev eth0 \n",
        "10.96.0.0/12 via 169.254.1.1 dev eth0 src 10.244.0.7 metric 7 onlink",
        "default via fd00::fe dev eth0",
        "10.244.0.254 dev eth0 lladdr 02:00:00:00:00:fe PERMANENT",
        "10000\n",
    ):
        assert expected in seen, seen
    assert "fe80::" not in seen, "a link-local address that nobody asked for"


def test_forwarding_is_off_unless_asked_for_and_paths_are_not_filtered(bench: Bench) -> None:
    bench.pod(1)
    bench.pod(2, forwarding=True)
    line = "cd /proc/sys/net; cat ipv4/ip_forward ipv4/conf/eth0/rp_filter ipv6/conf/eth0/forwarding"
    assert shell(bench, "pod1", line).split() == ["0", "0", "0"]
    assert shell(bench, "pod2", line).split() == ["1", "0", "1"]


def test_programs_of_a_sandbox_see_and_reach_only_each_other(bench: Bench) -> None:
    bench.pod(1)
    bench.pod(2)
    listed = shell(bench, "pod1", "ps -e -o pid,args | tail -n +2; sleep 100 & kill -9 -1")
    assert "pod1" in listed.splitlines()[0]
    assert "pod2" not in listed
    assert shell(bench, "pod2", "echo alive") == "alive\n"
    assert shell(bench, "pod1", "echo alive") == "alive\n", "the pause is PID 1: its own sandbox cannot kill it"


def test_no_process_of_a_sandbox_stays_a_zombie(bench: Bench) -> None:
    bench.pod(1)
    shell(bench, "pod1", "(sleep 0.05 & ) ; (setsid true &) ; exit 0")
    eventually(lambda: "Z" not in shell(bench, "pod1", "ps -e -o state | tail -n +2"), "orphans are reaped")


def test_interfaces_can_be_added_and_go_with_their_descriptor(bench: Bench) -> None:
    bench.pod(1)
    added = InterfaceSpec("eth1", "02:00:00:00:01:01", ("10.245.0.1/24",))
    request = AttachInterfaces("pod1", (added,), (RouteSpec("10.246.0.0/16", "10.245.0.254"),))
    interfaces = bench.keeper.call(request)
    assert "10.246.0.0/16 via 10.245.0.254 dev eth1" in shell(bench, "pod1", "ip route")
    close_many((*interfaces.taps, *interfaces.drop_counters))
    assert "eth1" not in shell(bench, "pod1", "ip -o link")


def test_files_too_long_for_one_packet_arrive(bench: Bench) -> None:
    hosts = "".join(f"10.1.{number // 250}.{number % 250} name-{number}\n" for number in range(10_000))
    assert len(hosts) > 200_000
    bench.pod(1, files={"/etc/hosts": hosts})
    assert shell(bench, "pod1", "cat /etc/hosts") == hosts


def test_what_the_kernel_refuses_comes_back_as_a_sentence(bench: Bench) -> None:
    bench.pod(1)
    with pytest.raises(KeeperRefused, match="there is a sandbox pod1 already"):
        bench.pod(1)
    with pytest.raises(
        KeeperRefused, match=r"adding the route to 10\.1\.0\.0/16 via 192\.0\.2\.1: Nexthop has invalid"
    ):
        bench.pod(2, routes=(RouteSpec("10.1.0.0/16", "192.0.2.1"),))
    eventually(lambda: _can_make(bench, 2), "the name is free again after a sandbox that failed")
    with pytest.raises(KeeperRefused, match="there is no sandbox pod9"):
        bench.keeper.remove_sandbox("pod9")
    with pytest.raises(KeeperRefused, match="there is no interface eth9"):
        bench.pod(3, routes=(RouteSpec("10.1.0.0/16", interface="eth9"),))
    with pytest.raises(KeeperRefused, match="does not belong to a network namespace"):
        bench.pod(4, sysctls={"kernel.hostname": "x"})


def _can_make(bench: Bench, number: int) -> bool:
    try:
        bench.pod(number)
    except KeeperRefused:
        return False
    return True


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        (SandboxSpec("a", "a", (InterfaceSpec("eth0", "nonsense"),)), "not a MAC address"),
        (SandboxSpec("a", "a", (InterfaceSpec("eth0", "02:00:00:00:00:01", ("10.0.0.1",)),)), "10.0.0.1"),
        (SandboxSpec("a", "a", (InterfaceSpec("a" * 16, "02:00:00:00:00:01"),)), "cannot name an interface"),
        (SandboxSpec("a", "a", (InterfaceSpec("eth0", "02:00:00:00:00:01", offload=1),)), "vnet_header"),
        (SandboxSpec("a", "a" * 65), "64 bytes"),
        (SandboxSpec("a", "a", routes=(RouteSpec("10.0.0.0/8"),)), "neither via whom"),
        (SandboxSpec("a", "a", files={"etc/hosts": ""}), "absolute path"),
    ],
)
def test_nonsense_is_refused_before_it_is_sent(spec: SandboxSpec, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        spec.encode()


# Programs


@pytest.mark.parametrize(
    ("line", "own_processes", "code", "number"),
    [
        ("exit 0", False, 0, None),
        ("exit 7", False, 7, None),
        ("kill -TERM $$", False, 143, 15),
        ("kill -KILL $$", False, 137, 9),
        ("exit 7", True, 7, None),
        ("kill -KILL $$; exit 8", True, 8, None),  # a PID 1 gets no such signal from inside, as in any container
    ],
)
def test_how_a_program_ended(bench: Bench, line: str, own_processes: bool, code: int, number: int | None) -> None:
    bench.pod(1)
    pid = bench.keeper.spawn("pod1", ProgramSpec(("/bin/sh", "-c", line), own_processes=own_processes))
    exited = bench.keeper.wait_program(pid)
    assert (exited.pid, exited.sandbox, exited.code, exited.signal) == (pid, "pod1", code, number)


def test_a_program_that_cannot_be_executed(bench: Bench) -> None:
    bench.pod(1)
    missing = bench.keeper.wait_program(bench.keeper.spawn("pod1", ProgramSpec(("no-such-program",))))
    assert (missing.code, missing.failure) == (127, "No such file or directory")
    folder = bench.keeper.wait_program(bench.keeper.spawn("pod1", ProgramSpec(("/etc",))))
    assert (folder.code, folder.failure) == (126, "Permission denied")
    with pytest.raises(KeeperRefused, match="No such file or directory: '/no/such/folder'"):
        bench.keeper.spawn("pod1", ProgramSpec(("true",), directory="/no/such/folder"))


def test_streams_environment_and_directory_are_those_asked_for(bench: Bench) -> None:
    bench.pod(1)
    (read_in, write_in), (read_out, write_out), (read_err, write_err) = os.pipe(), os.pipe(), os.pipe()
    program = ProgramSpec(("/bin/sh", "-c", "cat; pwd; echo $A >&2; env | wc -l"), {"A": "b c"}, directory="/usr")
    bench.keeper.spawn("pod1", program, stdin=read_in, stdout=write_out, stderr=write_err)
    for descriptor in (read_in, write_out, write_err):
        os.close(descriptor)
    os.write(write_in, b"typed\n")
    os.close(write_in)
    with open(read_out) as out, open(read_err) as err:
        assert out.read().split() == ["typed", "/usr", "2"]  # and PWD, which the shell adds
        assert err.read() == "b c\n"


def test_a_terminal_becomes_the_controlling_one(bench: Bench) -> None:
    bench.pod(1)
    ours, theirs = os.openpty()
    program = ProgramSpec(("/bin/sh", "-c", "trap 'exit 9' INT; echo on the terminal >/dev/tty; read x"), terminal=True)
    pid = bench.keeper.spawn("pod1", program, theirs, theirs, theirs)
    os.close(theirs)
    text = b""
    while b"on the terminal" not in text:
        text += os.read(ours, 100)
    os.write(ours, b"\x03")  # Ctrl-C
    assert bench.keeper.wait_program(pid).code == 9
    os.close(ours)


def test_a_signal_reaches_the_program(bench: Bench) -> None:
    bench.pod(1)
    pid = bench.keeper.spawn("pod1", ProgramSpec(("sleep", "100")))
    bench.keeper.signal(pid, signal.SIGTERM)
    assert bench.keeper.wait_program(pid).signal == signal.SIGTERM
    with pytest.raises(KeeperRefused):
        bench.keeper.signal(pid, signal.SIGTERM)


def test_a_container_takes_all_it_started_along(bench: Bench) -> None:
    bench.pod(1)
    line = "(setsid sleep 7101.5 >/dev/null 2>&1 &) ; ps -e -o args | tail -n +2"
    listed = shell(bench, "pod1", line, own_processes=True)
    assert "emunet-pause" not in listed, "it sees its own processes only"
    eventually(lambda: not sleepers("7101.5"), "what a container left behind is gone")
    shell(bench, "pod1", "(setsid sleep 7102.5 >/dev/null 2>&1 &) ; exit 0")
    eventually(lambda: bool(sleepers("7102.5")), "what a program without processes of its own left behind lives on")


def test_a_user_and_capabilities_can_be_given_up(bench: Bench) -> None:
    bench.pod(1)
    seen = shell(bench, "pod1", "ip link set eth0 down 2>&1 || grep CapBnd /proc/self/status", capabilities=frozenset())
    assert "Operation not permitted" in seen
    assert int(seen.split()[-1], 16) == 0
    if os.geteuid() == 0:
        assert shell(bench, "pod1", "id -u; id -g", user=(33, 34)).split() == ["33", "34"]


def test_sockets_of_a_sandbox_serve_from_outside(bench: Bench) -> None:
    bench.connect(bench.pod(1), bench.pod(2))
    stream = (socket.AF_INET, socket.SOCK_STREAM)
    [listening] = bench.keeper.call(OpenSockets("pod1", (stream,)))
    [calling] = bench.keeper.call(OpenSockets("pod2", (stream,)))
    with listening, calling:
        listening.bind(("10.244.0.1", 80))
        listening.listen()
        calling.settimeout(SECONDS)
        calling.connect(("10.244.0.1", 80))
        accepted, peer = listening.accept()
        with accepted:
            assert peer[0] == "10.244.0.2"


# Probes


def test_a_probe_tells_round_trips_and_losses(bench: Bench) -> None:
    bench.connect(bench.pod(1), bench.pod(2), bench.pod(3))
    targets = ("10.244.0.2", "10.244.0.9", "fd00::3", "fd00::9", "203.0.113.1", "10.244.0.1")
    spec = ProbeSpec(targets, count=3, timeout=0.5, interval=0.05, size=1000)
    results = bench.keeper.probe("pod1", spec)
    answered = [all(trip is not None and 0 < trip < 500_000_000 for trip in result) for result in results]
    assert answered == [True, False, True, False, False, True]
    assert [result for result, good in zip(results, answered, strict=True) if not good] == [[None] * 3] * 3


def test_a_late_answer_is_a_lost_one(bench: Bench) -> None:
    sandbox = bench.pod(1, neighbors=(NeighborSpec("eth0", "10.244.0.2", "02:00:00:00:00:02"),))
    number = bench.keeper.send(Probe("pod1", ProbeSpec(("10.244.0.2",), count=2, timeout=0.3, interval=0.6)))
    answered = 0
    while answered < 2:
        with contextlib.suppress(BlockingIOError):
            frame = bytearray(os.read(sandbox.taps[0], 2000))
            if frame[12:14] == b"\x08\x00" and frame[23] == 1:
                time.sleep(0.4 if answered == 0 else 0)
                frame[0:6], frame[6:12] = frame[6:12], frame[0:6]
                frame[26:30], frame[30:34] = frame[30:34], frame[26:30]
                frame[34] = 0  # an echo reply; its checksum is the request's plus what the type lost
                total = int.from_bytes(frame[36:38], "big") + 0x0800
                frame[36:38] = ((total & 0xFFFF) + (total >> 16)).to_bytes(2, "big")
                os.write(sandbox.taps[0], frame)
                answered += 1
    [[first, second]] = bench.keeper.wait(number)
    assert first is None
    assert second is not None


def test_many_probes_at_once(bench: Bench) -> None:
    pods = [bench.pod(number) for number in range(1, 9)]
    bench.connect(*pods)
    targets = tuple(f"10.244.0.{number}" for number in range(1, 9))
    numbers = [bench.keeper.send(Probe(pod.id, ProbeSpec(targets, timeout=5))) for pod in pods]
    for number in numbers:
        assert all(trip is not None for [trip] in bench.keeper.wait(number))


# From an event loop


def test_it_serves_an_event_loop_without_making_it_wait(bench: Bench) -> None:
    keeper = bench.keeper

    async def work() -> list[Received]:
        loop = asyncio.get_running_loop()
        arrived: list[Received] = []
        changed = asyncio.Event()

        def take() -> None:
            arrived.extend(keeper.receive())
            changed.set()

        async def until(count: int) -> None:
            while len(arrived) < count:
                changed.clear()
                await asyncio.wait_for(changed.wait(), SECONDS)

        loop.add_reader(keeper.fileno(), take)
        try:
            created = [keeper.send(CreateSandbox(pod_spec(number))) for number in range(1, 6)]
            await until(5)
            assert {reply.request for reply in arrived if isinstance(reply, Reply)} == set(created)
            for reply in arrived:
                assert isinstance(reply, Reply)
                bench.own(reply.value)
            spawned = keeper.send(Spawn("pod3", ProgramSpec(("/bin/sh", "-c", "exit 3"))))
            await until(7)
            assert [type(one) for one in arrived[5:]] == [Reply, ProcessExited]
            assert arrived[6].request == spawned
            keeper.send(RemoveSandbox("pod3"))
            await until(8)
        finally:
            loop.remove_reader(keeper.fileno())
        return arrived[5:]

    started, exited, removed = asyncio.run(work())
    assert isinstance(exited, ProcessExited)
    assert isinstance(started, Reply)
    assert (exited.code, exited.pid) == (3, started.value)
    assert isinstance(removed, Reply)
    assert removed.error is None


def test_more_requests_than_the_socket_holds_all_arrive(bench: Bench) -> None:
    text = "x" * 50_000
    numbers = [
        bench.keeper.send(CreateSandbox(pod_spec(number, files={"/etc/hosts": text}))) for number in range(1, 31)
    ]
    for number in numbers:
        bench.own(bench.keeper.wait(number))
    assert not bench.keeper.wants_to_write


def test_it_starts_from_a_process_with_threads() -> None:
    release = threading.Event()
    thread = threading.Thread(target=release.wait)
    thread.start()
    try:
        with Keeper.start() as keeper:
            assert keeper.pid > 0
    finally:
        release.set()
        thread.join()


# Ends

LEFTOVER = "(setsid sh -c 'sleep {0} & sleep {0}' &) ; sleep {0} & setsid sleep {0} & sleep {0}"
"""A program, its children, a session of their own, and a grandchild whose parents are gone."""


def start_leftovers(bench: Bench, sandbox: str, marker: str) -> None:
    """Processes of every kind that could outlive a sandbox, recognised by how long they sleep."""
    line = LEFTOVER.format(marker)
    bench.keeper.spawn(sandbox, ProgramSpec(("/bin/sh", "-c", line)))
    bench.keeper.spawn(sandbox, ProgramSpec(("/bin/sh", "-c", line), own_processes=True))
    eventually(lambda: len(sleepers(marker)) >= 10, "the leftovers run")


def test_removing_a_sandbox_ends_all_that_runs_there_and_nothing_else(bench: Bench) -> None:
    sandbox = bench.pod(1)
    bench.pod(2)
    start_leftovers(bench, "pod1", "7201.5")
    bench.keeper.spawn("pod2", ProgramSpec(("sleep", "7202.5")))
    joined = subprocess.Popen(
        [sys.executable, "-c", JOIN, str(sandbox.pid), "sleep", "7203.5"], start_new_session=True, env=os.environ
    )
    eventually(lambda: len(sleepers("7203.5")) == 1, "a program joined from outside")
    bench.keeper.remove_sandbox("pod1")
    assert sleepers("7201.5") == []
    assert is_gone(sandbox.pid)
    assert joined.wait(SECONDS) == 128 + signal.SIGKILL
    assert len(sleepers("7202.5")) == 1
    assert not any(isinstance(one, SandboxEnded) for one in bench.keeper.receive()), "it was asked for"
    bench.pod(1)


JOIN = (
    "import sys; from emunet.linux.join import run_in_sandbox; sys.exit(run_in_sandbox(int(sys.argv[1]), sys.argv[2:]))"
)


def test_a_killed_pause_ends_its_sandbox_and_is_told(bench: Bench) -> None:
    sandbox = bench.pod(1)
    start_leftovers(bench, "pod1", "7301.5")
    bench.keeper.receive()
    kill(sandbox.pid)
    told: list[Received] = []

    def ended() -> bool:
        told.extend(bench.keeper.receive())
        return SandboxEnded("pod1") in told

    eventually(ended, "the end of the sandbox is told")
    eventually(lambda: sleepers("7301.5") == [], "its programs are gone")


def test_killing_the_keeper_ends_every_process_of_the_lab(bench: Bench) -> None:
    pods = [bench.pod(number) for number in (1, 2)]
    start_leftovers(bench, "pod1", "7401.5")
    start_leftovers(bench, "pod2", "7402.5")
    number = bench.keeper.send(Probe("pod1", ProbeSpec(("10.244.0.9",), timeout=100)))
    kill(bench.keeper.pid)
    with pytest.raises(KeeperGone):
        bench.keeper.wait(number)
    eventually(lambda: sleepers("7401.5") + sleepers("7402.5") == [], "every program is gone")
    assert all(is_gone(pod.pid) for pod in pods)
    assert KeeperEnded() in bench.keeper.receive()


STARTER = """
import sys, os, time
from emunet.linux.keeper_client import Keeper
from emunet.linux.specification import *
keeper = Keeper.start()
keeper.create_sandbox(SandboxSpec("pod", "pod", (InterfaceSpec("eth0", "02:00:00:00:00:01", ("10.0.0.1/24",)),)))
keeper.spawn("pod", ProgramSpec(("/bin/sh", "-c", sys.argv[1])))
keeper.spawn("pod", ProgramSpec(("/bin/sh", "-c", sys.argv[1]), own_processes=True))
print(keeper.pid, flush=True)
time.sleep(1000)
"""


@contextlib.contextmanager
def lab_of_another_process(marker: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that has started a keeper with leftovers, and the keeper's pid."""
    command = [sys.executable, "-c", STARTER, LEFTOVER.format(marker)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as starter:
        assert starter.stdout is not None
        keeper = int(starter.stdout.readline())
        try:
            eventually(lambda: len(sleepers(marker)) >= 10, "the leftovers run")
            yield starter, keeper
        finally:
            starter.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_lab_ends_with_the_process_that_started_it(number: signal.Signals) -> None:
    with lab_of_another_process("7501.5") as (starter, keeper):
        starter.send_signal(number)
        starter.wait(SECONDS)
        eventually(lambda: sleepers("7501.5") == [], "every program is gone")
        eventually(lambda: is_gone(keeper), "the keeper is gone")


def test_a_keeper_ends_when_asked_to_but_not_with_a_terminal() -> None:
    with lab_of_another_process("7601.5") as (_, keeper):
        assert os.getsid(keeper) == keeper
        status = dict(
            line.split(":\t") for line in Path(f"/proc/{keeper}/status").read_text().splitlines() if ":\t" in line
        )
        ignored = int(status["SigIgn"], 16)
        assert all(ignored >> (number - 1) & 1 for number in (signal.SIGINT, signal.SIGHUP))
        os.kill(keeper, signal.SIGTERM)
        eventually(lambda: is_gone(keeper), "the keeper ends when it is asked to")
        eventually(lambda: sleepers("7601.5") == [], "every program is gone")


def test_closing_leaves_nothing_behind() -> None:
    def machine() -> dict[str, object]:
        return {
            "mounts": Path("/proc/self/mountinfo").read_text(),
            "interfaces": sorted(name for _, name in socket.if_nameindex()),
            "named namespaces": sorted(os.listdir("/run/netns")) if os.path.isdir("/run/netns") else [],
            "temporary files": sorted(name for name in os.listdir("/tmp") if "emunet" in name),
            "descriptors": len(os.listdir("/proc/self/fd")),
            "children": Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text(),
        }

    before = machine()
    bench = Bench(Keeper.start())
    try:
        pods = [bench.pod(number, files={"/etc/hosts": "127.0.0.1 localhost\n"}) for number in range(1, 4)]
        start_leftovers(bench, "pod1", "7701.5")
        assert machine() | {"descriptors": 0, "children": 0} == before | {"descriptors": 0, "children": 0}
    finally:
        bench.close()
    assert machine() == before
    assert sleepers("7701.5") == []
    assert all(is_gone(pod.pid) for pod in pods)


def test_what_a_sandbox_mounts_stays_there(bench: Bench) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    bench.pod(1)
    shell(bench, "pod1", "mount -t tmpfs none /mnt && touch /mnt/inside && ls /mnt")
    assert Path("/proc/self/mountinfo").read_text() == before
    assert not Path("/mnt/inside").exists()


@pytest.mark.slow
def test_two_hundred_pods(capsys: pytest.CaptureFixture[str]) -> None:
    specs = [
        SandboxSpec(
            f"default/pod-{number}",
            f"pod-{number}",
            (InterfaceSpec("eth0", f"02:00:00:00:00:{number:02x}", (f"10.0.0.{number}/24", f"fd00::{number:x}/64")),),
            (RouteSpec("0.0.0.0/0", "10.0.0.254"),),
            files={"/etc/hosts": "127.0.0.1 localhost\n", "/etc/resolv.conf": "nameserver 10.96.0.10\n"},
        )
        for number in range(1, 201)
    ]
    bench = Bench(Keeper.start())
    try:
        began = time.monotonic()
        sandboxes = bench.keeper.create_sandboxes(specs)
        created = time.monotonic() - began
        for sandbox in sandboxes:
            bench.own(sandbox)
        began = time.monotonic()
        kill(bench.keeper.pid)
        eventually(lambda: all(is_gone(sandbox.pid) for sandbox in sandboxes), "200 sandboxes are gone")
        killed = time.monotonic() - began
    finally:
        began = time.monotonic()
        bench.close()
        closed = time.monotonic() - began
    with capsys.disabled():
        print(f"\n200 pods: made in {created:.2f} s, killed in {killed:.2f} s, TAPs closed in {closed:.2f} s")
    assert created < 10, "0.6-0.8 s on an idle machine of two cores"
    assert killed < 5, "0.1 s there"
