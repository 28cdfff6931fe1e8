"""What the kernel tests are written with: sandboxes, a hub that copies frames between their TAPs, and patience."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from emunet.linux import syscalls, user_maps
from emunet.linux.keeper_client import Keeper
from emunet.linux.keeper_requests import OpenSockets, Sandbox
from emunet.linux.specification import InterfaceSpec, RouteSpec, SandboxSpec
from emunet.linux.tap import close_many

SECONDS = 20.0
"""How long a test waits for what must come; far more than it takes, so that a busy machine does not matter."""


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Poll until a condition holds, at most SECONDS."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {SECONDS:g} s: {what}"
        time.sleep(0.01)


def sleepers(seconds: str) -> list[int]:
    """Processes of the machine, but for zombies, that execute `sleep` for so many seconds, which mark them."""
    wanted = f"sleep\0{seconds}\0".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if (entry / "cmdline").read_bytes() == wanted:
                    found.append(int(entry.name))
    return found


def is_gone(pid: int) -> bool:
    """True when a process has ended, be it that nobody has reaped it yet: its namespaces are no more."""
    return not Path(f"/proc/{pid}/ns/net").exists()


class Hub:
    """Copies every frame of each TAP to all others, until closed: the least network there is."""

    def __init__(self, taps: list[int]) -> None:
        self._taps = taps
        self._stop, self._stopper = os.pipe()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        poller = select.poll()
        for descriptor in (*self._taps, self._stop):
            poller.register(descriptor, select.POLLIN)
        while True:
            for descriptor, _ in poller.poll():
                if descriptor == self._stop:
                    return
                with contextlib.suppress(BlockingIOError):
                    while True:
                        frame = os.read(descriptor, 70_000)
                        for other in self._taps:
                            if other != descriptor:
                                os.write(other, frame)

    def close(self) -> None:
        """Stop copying."""
        os.close(self._stopper)
        self._thread.join()
        os.close(self._stop)


class Bench:
    """A keeper, and the sandboxes made with it, whose TAPs are closed in the end."""

    def __init__(self, keeper: Keeper) -> None:
        self.keeper = keeper
        self.descriptors: list[int] = []
        self.hubs: list[Hub] = []

    def pod(self, number: int, **more: object) -> Sandbox:
        """A sandbox `pod<number>` with 10.244.0.<number> and fd00::<number> on one flat network."""
        return self.make(pod_spec(number, **more))

    def make(self, spec: SandboxSpec) -> Sandbox:
        """Make a sandbox."""
        sandbox = self.keeper.create_sandbox(spec)
        self.own(sandbox)
        return sandbox

    def own(self, sandbox: Sandbox) -> None:
        """Close a sandbox's descriptors in the end."""
        self.descriptors += [*sandbox.taps, *sandbox.drop_counters]

    def open_socket(self, sandbox: str, family: int, kind: int) -> socket.socket:
        """A socket of a sandbox's network."""
        return self.keeper.call(OpenSockets(sandbox, ((family, kind),)))[0]

    def connect(self, *sandboxes: Sandbox) -> None:
        """Put the first interfaces of sandboxes on one hub."""
        self.hubs.append(Hub([sandbox.taps[0] for sandbox in sandboxes]))

    def close(self) -> None:
        """End it all."""
        for hub in self.hubs:
            hub.close()
        self.keeper.close()
        close_many(self.descriptors)


def pod_spec(number: int, **more: object) -> SandboxSpec:
    """See `Bench.pod`."""
    interface = InterfaceSpec("eth0", f"02:00:00:00:00:{number:02x}", (f"10.244.0.{number}/24", f"fd00::{number:x}/64"))
    routes = (RouteSpec("0.0.0.0/0", "10.244.0.254"), RouteSpec("::/0", "fd00::fe"))
    name = f"pod{number}"
    fields = {"id": name, "hostname": name, "interfaces": (interface,), "routes": routes} | more
    return SandboxSpec(**fields)  # type: ignore[arg-type]


def in_child(work: Callable[[], None]) -> None:
    """Run a function in a forked child, which it may change as it likes; what it raises fails the test."""
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(told)
            work()
            status = 0
        except BaseException:
            os.write(tell, traceback.format_exc().encode())
        finally:
            os._exit(status)
    os.close(tell)
    with open(told, "rb") as file:
        words = file.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == 0, words or f"the child ended with {status}"


def enter_namespaces(flags: int) -> None:
    """Move this process, which a test has forked, into a user namespace of its own and others; mounts do not leak."""
    ready, go = os.pipe(), os.pipe()
    parent = os.getpid()
    mapper = os.fork()  # writes the maps from outside, as the keeper's starter does
    if mapper == 0:
        os.read(ready[0], 1)
        user_maps.write_maps(parent)
        os.write(go[1], b"!")
        os._exit(0)
    syscalls.unshare(syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS | flags)
    os.write(ready[1], b"!")
    os.read(go[0], 1)
    os.waitpid(mapper, 0)
    syscalls.mount("", "/", None, syscalls.MS_REC | syscalls.MS_SLAVE)


def in_own_network(work: Callable[[], None]) -> None:
    """Run a function in a forked child with user, network and mount namespaces of its own, and a /sys of its own."""

    def inside() -> None:
        enter_namespaces(syscalls.CLONE_NEWNET)
        syscalls.mount("sysfs", "/sys", "sysfs", syscalls.MS_RDONLY)
        work()

    in_child(inside)


def kill(pid: int) -> None:
    """End a process that a test has started."""
    os.kill(pid, signal.SIGKILL)
