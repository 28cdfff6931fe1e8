"""The keeper: PID 1 of a lab's PID namespace, from which every process of the lab descends.

It makes sandboxes, starts programs in them, reaps what ends, and does nothing else. When
it dies, by whatever cause, the kernel kills every process of its PID namespace and of
those nested in it, detached grandchildren included: that is how a lab leaves nothing
behind. (PR_SET_PDEATHSIG does not do this: it reaches children only.) It dies at once when
its control socket closes, and nobody else holds an end of that socket.

    control process ==control socket== keeper (PID 1 of the lab)
                                         +- emunet-pause default/web-1 (PID 1 of its sandbox)
                                         |    +- orphans of programs of the sandbox
                                         +- a program of the sandbox, born into its PID namespace
                                         +- a helper: a probe, or whatever needs a process of its own

A sandbox has a PID namespace of its own, nested in the lab's: its programs see, and can
kill, only each other, and removing it is one signal. It costs nothing measurable.

It is started as a fresh, isolated Python, not as a fork of the control process: every
sandbox begins as a fork of the keeper, and forking its 12 MB takes 0.4 ms where forking a
process with servers and schemas loaded takes several; and a process with threads could
not enter a user namespace at all. It costs 40 ms a lab.

Rule of this file: one thread, no waiting on anything but the poll, and no imports but
the standard library's small ones and this package's files that keep the same rule.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from emunet.linux import messages, probe, program, roots, sandbox, syscalls, tap
from emunet.linux.netlink import Rtnetlink

_LAB = (
    syscalls.CLONE_NEWPID | syscalls.CLONE_NEWNS | syscalls.CLONE_NEWNET | syscalls.CLONE_NEWUTS | syscalls.CLONE_NEWIPC
)


_STORE_SIZE = 256 << 20
"""Bytes that the pods of one host may keep on it (hostPath)."""


class _Sandbox:
    """A sandbox as the keeper knows it: its pause, and those of our children that are in it."""

    def __init__(self, name: str, pause: int) -> None:
        self.name = name
        self.pause = pause
        self.children = {pause}
        self.removal: int | None = None  # the request that waits for all children to be gone

    @contextlib.contextmanager
    def opened(self) -> Iterator[int]:
        """A pidfd of the pause, by which its namespaces are entered. OSError once it has ended.

        It is opened when needed: one held for each of a thousand pods is a thousand descriptors. The number means
        this pause until we have reaped it.
        """
        if self.pause not in self.children:
            raise ProcessLookupError(3, f"the first process of {self.name} has ended")
        pidfd = os.pidfd_open(self.pause)
        try:
            yield pidfd
        finally:
            os.close(pidfd)


class _Child:
    """One of our own children: what kind (pause, program, helper), in which sandbox, for which request."""

    def __init__(self, kind: str, home: _Sandbox, request: int) -> None:
        self.kind = kind
        self.home = home
        self.request = request


class _Keeper:
    """The loop, its sandboxes and its children."""

    def __init__(self, control: socket.socket, file_limit: int) -> None:
        self.control = control
        self.file_limit = file_limit
        self.sandboxes: dict[str, _Sandbox] = {}
        self.children: dict[int, _Child] = {}
        self.stores: set[str] = set()
        self.unsent: deque[tuple[dict[str, Any], list[int]]] = deque()
        self.own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self.own_network = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self.pause_program = _find_pause_program()
        self.operations: dict[str, Callable[[int, dict[str, Any], list[int]], None]] = {
            "create": self.create,
            "remove": self.remove,
            "attach": self.attach,
            "spawn": self.spawn,
            "signal": self.signal,
            "probe": self.probe,
            "socket": self.socket,
            "write": self.write,
        }

    def run(self) -> NoReturn:
        """Serve until the control socket closes."""
        woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))  # as PID 1 we would not be ended by it
        for ignored in (signal.SIGINT, signal.SIGHUP):
            signal.signal(ignored, signal.SIG_IGN)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        poller = select.poll()
        poller.register(woken, select.POLLIN)
        while True:
            poller.register(self.control, select.POLLIN | (select.POLLOUT if self.unsent else 0))
            for descriptor, _ in poller.poll():
                if descriptor == woken:
                    os.read(woken, 4096)
                    self.reap()
                else:
                    self.flush()
                    self.serve()

    def serve(self) -> None:
        """Do one request, if there is one."""
        try:
            message = messages.receive(self.control, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        if message is None:
            os._exit(0)  # and with us goes every process of the lab
        request = message.body["request"]
        try:
            self.operations[message.body["operation"]](request, message.body, message.descriptors)
        except OSError as error:
            self.send({"request": request, "error": str(error), "errno": error.errno})
        finally:
            for descriptor in message.descriptors:
                os.close(descriptor)

    def send(self, body: dict[str, Any], descriptors: list[int] | None = None) -> None:
        """Send now if there is room, else when there is. Order is kept; descriptors are closed once sent."""
        self.unsent.append((body, descriptors or []))
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as the other side takes it."""
        while self.unsent:
            body, descriptors = self.unsent[0]
            try:
                messages.send(self.control, body, descriptors, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except (BrokenPipeError, ConnectionResetError):
                os._exit(0)
            except OSError as error:  # more descriptors under way than this user may have (ETOOMANYREFS)
                self.unsent[0] = ({"request": body["request"], "error": str(error), "errno": error.errno}, [])
            else:
                self.unsent.popleft()
            for descriptor in descriptors:
                os.close(descriptor)

    # Children

    def fork(self, kind: str, home: _Sandbox | str, request: int, work: Callable[[], None]) -> int:
        """Fork a child that does `work` and ends; whatever it raises becomes the answer to the request."""
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                signal.set_wakeup_fd(-1)
                work()
                status = 0
            except Exception as error:  # to the last: nothing of a child may run on into the keeper's loop
                number = error.errno if isinstance(error, OSError) else None
                text = str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
                messages.send(self.control, {"request": request, "error": text, "errno": number})
            finally:
                os._exit(status)
        if isinstance(home, str):
            self.sandboxes[home] = _Sandbox(home, pid)
            home = self.sandboxes[home]
        home.children.add(pid)
        self.children[pid] = _Child(kind, home, request)
        return pid

    @contextlib.contextmanager
    def children_in(self, home: _Sandbox | None) -> Iterator[None]:
        """Children forked inside are born into a sandbox's PID namespace, or (None) into a new one as its PID 1.

        We stay where we are: a process can only say where its children go (pid_namespaces(7)).
        """
        if home is None:
            syscalls.unshare(syscalls.CLONE_NEWPID)
        else:
            with home.opened() as pidfd:
                syscalls.setns(pidfd, syscalls.CLONE_NEWPID)
        try:
            yield
        finally:
            syscalls.setns(self.own_pids, syscalls.CLONE_NEWPID)

    def reap(self) -> None:
        """Take leave of every child that has ended, ours or an orphan's, and say so."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = self.children.pop(pid, None)
            if child is None:
                continue
            home = child.home
            home.children.discard(pid)
            body = {"event": "ended", "kind": child.kind, "request": child.request, "sandbox": home.name}
            self.send(body | {"code": os.waitstatus_to_exitcode(status)})
            if child.kind == "pause":
                self.kill(home)
            if not home.children:
                del self.sandboxes[home.name]
                if home.removal is not None:
                    self.send({"request": home.removal})

    def kill(self, home: _Sandbox) -> None:
        """Kill all of a sandbox: its pause takes its PID namespace along; the others are our own children."""
        for pid in home.children:
            os.kill(pid, signal.SIGKILL)

    def home_of(self, body: dict[str, Any]) -> _Sandbox:
        """The sandbox that a request is about."""
        home = self.sandboxes.get(body["sandbox"])
        if home is None or home.removal is not None:
            raise OSError(f"there is no sandbox {body['sandbox']}")
        return home

    # Operations

    def create(self, request: int, body: dict[str, Any], descriptors: list[int]) -> None:
        """Make a sandbox; its first process answers, with the descriptors of its interfaces."""
        wanted = body["wanted"]
        name = wanted["id"]
        if name in self.sandboxes:
            raise OSError(f"there is a sandbox {name} already")
        host = wanted["network_of"]
        for _, _, _, within, *_ in wanted["binds"]:
            if within and within not in self.stores:
                roots.hold_store(within, _STORE_SIZE)
                self.stores.add(within)

        def work(network: int | None) -> NoReturn:
            opened = sandbox.build(wanted, network)
            control, answer = self.control.fileno(), [*opened.taps, *opened.counters]
            if opened.shared_view is not None:
                control, *answer = sandbox.show_shared_view(opened.shared_view, [control, *answer])
            messages.send(socket.socket(fileno=control), {"request": request}, answer)
            sandbox.become_pause(self.pause_program, name, opened.shared_view is not None)

        network_of = self.home_of({"sandbox": host}).opened() if host else contextlib.nullcontext()
        with network_of as network, self.children_in(None):
            self.fork("pause", name, request, lambda: work(network))

    def remove(self, request: int, body: dict[str, Any], descriptors: list[int]) -> None:
        """End a sandbox; answered when the last of its processes is gone."""
        home = self.home_of(body)
        home.removal = request
        self.kill(home)

    def attach(self, request: int, body: dict[str, Any], descriptors: list[int]) -> None:
        """Add interfaces, routes and neighbours to a sandbox; a helper answers with the descriptors."""
        home = self.home_of(body)

        def work(pidfd: int) -> None:
            # An isolated root has no /dev/net/tun; the shared view beside it has.
            program.join_files(home.pause, pidfd, "shared")
            syscalls.setns(pidfd, syscalls.CLONE_NEWNET)
            opened = sandbox.add_interfaces(body["wanted"])
            messages.send(self.control, {"request": request}, [*opened.taps, *opened.counters])

        # It reads a /proc that only shows that PID namespace.
        with home.opened() as pidfd, self.children_in(home):
            self.fork("helper", home, request, lambda: work(pidfd))

    def spawn(self, request: int, body: dict[str, Any], descriptors: list[int]) -> None:
        """Start a program in a sandbox; it answers itself just before it begins, so its sender is its pid."""
        home = self.home_of(body)
        wanted = body["wanted"]
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        standard = [null if index is None else descriptors[index] for index in body["standard"]]

        def work(pidfd: int) -> NoReturn:
            program.start(
                wanted,
                home.pause,
                pidfd,
                standard,
                self.file_limit,
                lambda: messages.send(self.control, {"request": request}),
                lambda error: messages.send(
                    self.control, {"event": "failed", "request": request, "error": error.strerror}
                ),
            )

        try:
            with home.opened() as pidfd, self.children_in(None if wanted["own_processes"] else home):
                self.fork("program", home, request, lambda: work(pidfd))
        finally:
            os.close(null)

    def signal(self, request: int, body: dict[str, Any], descriptors: list[int]) -> None:
        """Send a signal to a program, known by the request that started it."""
        for pid, child in self.children.items():
            if child.request == body["program"]:
                os.kill(pid, body["signal"])
                self.send({"request": request})
                return
        raise ProcessLookupError(3, "the program has ended")

    def probe(self, request: int, body: dict[str, Any], descriptors: list[int]) -> None:
        """Ping from a sandbox; a helper answers with the round trips."""
        home = self.home_of(body)

        def work(pidfd: int) -> None:
            syscalls.setns(pidfd, syscalls.CLONE_NEWNET)
            results = probe.echo(body["wanted"], request & 0xFFFF)
            messages.send(self.control, {"request": request, "results": results})

        with home.opened() as pidfd:
            self.fork("helper", home, request, lambda: work(pidfd))

    def write(self, request: int, body: dict[str, Any], descriptors: list[int]) -> None:
        """Give files of a sandbox another text, in both of its views; a helper answers."""
        home = self.home_of(body)

        def work(pidfd: int) -> None:
            shared = program.shared_view(home.pause)
            syscalls.setns(pidfd, syscalls.CLONE_NEWNS)
            roots.rewrite_files(body["files"], isolated=shared is not None, modes=body["modes"])
            if shared is not None:
                syscalls.setns(shared, syscalls.CLONE_NEWNS)
                roots.rewrite_files(body["files"], isolated=False)
            messages.send(self.control, {"request": request})

        # It reads a /proc that only shows that PID namespace.
        with home.opened() as pidfd, self.children_in(home):
            self.fork("helper", home, request, lambda: work(pidfd))

    def socket(self, request: int, body: dict[str, Any], descriptors: list[int]) -> None:
        """Open sockets that belong to a sandbox's network, whoever uses them later."""
        home = self.home_of(body)
        opened = []
        with home.opened() as pidfd:
            syscalls.setns(pidfd, syscalls.CLONE_NEWNET)
        try:
            for family, kind, protocol in body["sockets"]:
                opened.append(socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol).detach())
        except OSError:
            for descriptor in opened:
                os.close(descriptor)
            raise
        finally:
            syscalls.setns(self.own_network, syscalls.CLONE_NEWNET)
        self.send({"request": request}, opened)


def _find_pause_program() -> str | None:
    """A `sleep` that runs under another name; one of busybox or of a single coreutils binary does not."""
    for path in ("/usr/bin/sleep", "/bin/sleep"):
        if not os.access(path, os.X_OK):
            continue
        pid = os.posix_spawn(path, ["emunet-pause", "0"], {}, file_actions=[(os.POSIX_SPAWN_CLOSE, 2)])
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0:
            return path
    return None


def _refuse(control: socket.socket, stage: str, error: OSError) -> NoReturn:
    messages.send(control, {"refused": stage, "errno": error.errno, "error": str(error)})
    os._exit(1)


def main(descriptor: int) -> NoReturn:
    """Become the keeper, as `keeper_client.Keeper.start` expects; never returns.

    Stages, each reported when done or refused: `user` (a user namespace, whose ids the other side
    then maps), `namespaces` (all others), `mounts`, `network`, `tun`.
    """
    control = socket.socket(fileno=descriptor)
    control.set_inheritable(False)
    os.chdir("/")
    own_user = True
    try:
        syscalls.unshare(syscalls.CLONE_NEWUSER)
    except OSError as error:
        if os.geteuid() != 0:
            _refuse(control, "user", error)
        own_user = False  # root can do without, where the machine forbids it
    messages.send(control, {"stage": "user", "own": own_user})
    if messages.receive(control) is None:
        os._exit(1)
    try:
        syscalls.unshare(_LAB)
        pid = os.fork()
    except OSError as error:
        _refuse(control, "namespaces", error)
    if pid:
        os._exit(0)  # the starter adopts the keeper: it has asked for its orphans
    os.setsid()  # Ctrl-C and a closed terminal are not for us
    syscalls.set_process_name("emunet-keeper")
    try:
        syscalls.mount("", "/", None, syscalls.MS_REC | syscalls.MS_SLAVE)
        syscalls.mount("proc", "/proc", "proc", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC)
    except OSError as error:
        _refuse(control, "mounts", error)
    try:
        syscalls.sethostname("emunet")
        with Rtnetlink() as changes:
            changes.link(1, up=True)
            changes.commit()
    except OSError as error:
        _refuse(control, "network", error)
    try:
        os.close(os.open(tap.TUN_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        _refuse(control, "tun", error)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    keeper = _Keeper(control, soft)
    messages.send(control, {"stage": "ready"})
    keeper.run()
    sys.exit()
