"""The endpoint's TCP against the Linux kernel's, over a TAP in a network namespace, on a wire that loses frames.

A helper process (this file, started as a program by unshare) owns the namespace:
it makes the TAP, hands its descriptor to the test, and plays the kernel's half of
each exchange with ordinary sockets. The test moves frames between TAP and endpoint.
Whatever happens, the namespace and the TAP end with the two processes.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import random
import select
import selectors
import socket
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from emunet.elements.endpoint import Connection, Endpoint, State
from emunet.packet.address import InterfaceAddress, parse_ip

pytestmark = pytest.mark.kernel

EXCHANGES = 1000
AT_ONCE = 32
LOSS = 0.01
PORT = 7000
PATIENCE = 90
KERNEL, ENDPOINT = 0, 1
ADDRESSES = (("10.99.0.1", "fd99::1"), ("10.99.0.2", "fd99::2"))


@dataclass(frozen=True)
class Plan:
    """One exchange, the same on both sides of the wire because it comes from its number alone."""

    number: int
    opener: int
    first: int
    v6: bool
    sizes: tuple[int, int]

    @classmethod
    def of(cls, number: int) -> Plan:
        draw = random.Random(number)
        sizes = (draw.randrange(20_001), draw.randrange(20_001))
        if number % 10 == 0:
            sizes = (0, sizes[1]) if number % 20 else (sizes[0], 0)
        return cls(number, draw.randrange(2), draw.randrange(2), draw.random() < 0.5, sizes)

    def data(self, side: int) -> bytes:
        """What a side sends; the opener puts the number in front, so that the other knows which exchange it is."""
        data = random.Random(self.number * 2 + side).randbytes(self.sizes[side])
        return self.number.to_bytes(4, "big") + data if side == self.opener else data


# --- the kernel's half: a program of its own, in its own namespaces


class KernelHalf:
    """One exchange with an ordinary socket."""

    def __init__(self, sock: socket.socket, plan: Plan | None) -> None:
        self.sock, self.plan = sock, plan
        self.incoming = bytearray()
        self.outgoing = plan.data(KERNEL) if plan else b""
        self.ended = self.shut = False

    def advance(self, readable: bool) -> bool:
        """Read, write, close; True once both directions are closed and all is right. OSError, AssertionError if not."""
        if readable and not self.ended:
            data = self.sock.recv(65536)
            self.incoming += data
            self.ended = not data
            if self.plan is None and len(self.incoming) >= 4:
                self.plan = Plan.of(int.from_bytes(self.incoming[:4], "big"))
                self.outgoing = self.plan.data(KERNEL)
        if self.plan is None:
            return False
        if self.outgoing:
            self.outgoing = self.outgoing[self.sock.send(self.outgoing[:65536]) :]
        if not self.outgoing and not self.shut and (self.ended or self.plan.first == KERNEL):
            self.sock.shutdown(socket.SHUT_WR)
            self.shut = True
        if self.ended and self.shut:
            assert self.incoming == self.plan.data(ENDPOINT), f"exchange {self.plan.number}: wrong data at the kernel"
            return True
        return False

    @property
    def events(self) -> int:
        return (0 if self.ended else selectors.EVENT_READ) | (selectors.EVENT_WRITE if self.outgoing else 0)


def make_tap() -> int:
    """A TAP in this process's network namespace, up, with its addresses; its descriptor."""
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH22x", b"wire", 0x1002))  # TUNSETIFF: IFF_TAP | IFF_NO_PI
    sysctl = Path("/proc/sys/net/ipv6/conf/wire/accept_dad")
    if sysctl.exists():
        sysctl.write_text("0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        address = struct.pack("16sHH4s8x", b"wire", socket.AF_INET, 0, parse_ip(ADDRESSES[KERNEL][0]))
        fcntl.ioctl(control, 0x8916, address)  # SIOCSIFADDR
        mask = struct.pack("16sHH4s8x", b"wire", socket.AF_INET, 0, bytes((255, 255, 255, 0)))
        fcntl.ioctl(control, 0x891C, mask)  # SIOCSIFNETMASK
        fcntl.ioctl(control, 0x8914, struct.pack("16sH14x", b"wire", 0x1043))  # SIOCSIFFLAGS: up, running, multicast
    if sysctl.exists():
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as control:
            request = struct.pack("16sIi", parse_ip(ADDRESSES[KERNEL][1]), 64, socket.if_nametoindex("wire"))
            fcntl.ioctl(control, 0x8916, request)
    return tap


def bind_when_usable(listener: socket.socket, address: tuple[str, int]) -> None:
    """Bind, waiting for the kernel's own worker: even without detection an IPv6 address is tentative until it ran."""
    deadline = time.monotonic() + 10
    while True:
        try:
            listener.bind(address)
            return
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL or time.monotonic() > deadline:
                raise
        select.select([], [], [], 0.01)


def kernel_half(control: socket.socket) -> None:
    """The helper's main: hand over the TAP, run every exchange, report as one line of JSON."""
    tap = make_tap()
    has_v6 = Path("/proc/sys/net/ipv6/conf/wire").exists()
    selector = selectors.DefaultSelector()
    for family in (socket.AF_INET, socket.AF_INET6) if has_v6 else (socket.AF_INET,):
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bind_when_usable(listener, (ADDRESSES[KERNEL][family == socket.AF_INET6], PORT))
        listener.listen(AT_ONCE * 2)
        listener.setblocking(False)
        selector.register(listener, selectors.EVENT_READ, None)
    selector.register(control, selectors.EVENT_READ, None)
    socket.send_fds(control, [b"6" if has_v6 else b"4"], [tap])
    os.close(tap)
    waiting = [plan for plan in map(Plan.of, range(EXCHANGES)) if plan.opener == KERNEL]
    done = running = 0
    errors: list[str] = []
    deadline = time.monotonic() + PATIENCE
    while done < EXCHANGES and not errors and time.monotonic() < deadline:
        while waiting and running < AT_ONCE // 2:
            plan = waiting.pop()
            v6 = plan.v6 and has_v6
            sock = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET)
            sock.setblocking(False)
            sock.connect_ex((ADDRESSES[ENDPOINT][v6], PORT))
            selector.register(sock, selectors.EVENT_WRITE, KernelHalf(sock, plan))
            running += 1
        for key, events in selector.select(1):
            if key.fileobj is control:
                return  # the test has ended
            if key.data is None:
                sock, _ = key.fileobj.accept()  # type: ignore[union-attr]
                sock.setblocking(False)
                selector.register(sock, selectors.EVENT_READ, KernelHalf(sock, None))
                continue
            half: KernelHalf = key.data
            mine = half.plan is not None and half.plan.opener == KERNEL
            try:
                finished = half.advance(bool(events & selectors.EVENT_READ))
            except (OSError, AssertionError) as error:
                errors.append(f"exchange {half.plan and half.plan.number}: {error!r}")
                finished = True
            if finished:
                selector.unregister(half.sock)
                half.sock.close()
                running -= mine
                done += 1
            else:
                selector.modify(half.sock, half.events or selectors.EVENT_READ, half)
    left = [key.data.plan and key.data.plan.number for key in selector.get_map().values() if key.data is not None]
    control.send(json.dumps({"done": done, "errors": errors, "unfinished": left[:20]}).encode())
    control.recv(1)  # the last segments are the kernel's to send: wait for the test to end


# --- the endpoint's half


class EndpointHalf:
    """One exchange at the endpoint: the handler of its connection."""

    def __init__(self, run: Run, plan: Plan | None) -> None:
        self.run, self.plan = run, plan
        self.incoming = bytearray()
        self.started = self.closed = self.finished = False

    def handle(self, connection: Connection, now: int) -> list[bytes]:
        data, frames = connection.receive(now)
        self.incoming += data
        if self.plan is None and len(self.incoming) >= 4:
            self.plan = Plan.of(int.from_bytes(self.incoming[:4], "big"))
        if self.plan is not None and not self.started and connection.state in (State.ESTABLISHED, State.CLOSE_WAIT):
            self.started = True
            frames += connection.send(self.plan.data(ENDPOINT), now)
        if self.started and not self.closed and (connection.ended or (self.plan and self.plan.first == ENDPOINT)):
            self.closed = True
            frames += connection.close(now)
        if not self.finished and connection.state in (State.TIME_WAIT, State.CLOSED):
            self.finished = True
            self.run.finish(self, connection)
        return frames


class Run:
    """Moves frames between the TAP and the endpoint until the helper reports."""

    def __init__(self, tap: int, control: socket.socket, seed: int, has_v6: bool) -> None:
        self.tap, self.control, self.has_v6 = tap, control, has_v6
        addresses = tuple(InterfaceAddress(parse_ip(text), 24 if "." in text else 64) for text in ADDRESSES[ENDPOINT])
        self.endpoint = Endpoint("pod", bytes.fromhex("020000000002"), addresses, seed=seed)
        self.chance = random.Random(seed)
        self.waiting = [plan for plan in map(Plan.of, range(EXCHANGES)) if plan.opener == ENDPOINT]
        self.running = self.done = self.frames = self.lost = self.retransmissions = 0
        self.errors: list[str] = []

    def finish(self, half: EndpointHalf, connection: Connection) -> None:
        self.done += 1
        self.retransmissions += connection.retransmissions
        plan = half.plan
        if plan is not None and plan.opener == ENDPOINT:
            self.running -= 1
        if connection.error is not None:
            self.errors.append(f"exchange {plan and plan.number}: {connection.error}")
        elif plan is None or half.incoming != plan.data(KERNEL):
            self.errors.append(f"exchange {plan and plan.number}: wrong data at the endpoint")

    def send(self, frames: list[bytes]) -> None:
        for frame in frames:
            self.frames += 1
            if self.chance.random() < LOSS:
                self.lost += 1
            else:
                os.write(self.tap, frame)

    def open_more(self, now: int) -> None:
        while self.waiting and self.running < AT_ONCE // 2:
            plan = self.waiting.pop()
            self.running += 1
            target = parse_ip(ADDRESSES[KERNEL][plan.v6 and self.has_v6])
            half = EndpointHalf(self, plan)
            self.send(self.endpoint.connect(target, PORT, now, handler=half.handle)[1])

    def until_reported(self) -> dict[str, Any]:
        def begin(connection: Connection, now: int) -> list[bytes]:
            connection.handler = EndpointHalf(self, None).handle
            return connection.handler(connection, now)

        self.endpoint.listen(PORT, begin)
        poll = select.poll()
        poll.register(self.tap, select.POLLIN)
        poll.register(self.control, select.POLLIN)
        deadline = time.monotonic() + PATIENCE + 5
        while time.monotonic() < deadline and not self.errors:
            self.open_more(time.monotonic_ns())
            due = self.endpoint.due()
            wait = 100 if due is None else min(max((due - time.monotonic_ns()) / 1e6, 0), 100)
            for descriptor, _ in poll.poll(wait):
                if descriptor == self.control.fileno():
                    report: dict[str, Any] = json.loads(self.control.recv(65536) or b'{"errors": ["the helper died"]}')
                    return report
                self.read_frames()
            self.send(self.endpoint.wake(time.monotonic_ns()))
        return {"errors": ["the helper never reported"], "done": None}

    def read_frames(self) -> None:
        for _ in range(64):
            try:
                frame = os.read(self.tap, 65536)
            except BlockingIOError:
                return
            self.frames += 1
            if self.chance.random() < LOSS:
                self.lost += 1
            else:
                self.send(self.endpoint.receive(frame, time.monotonic_ns()))


def start_helper() -> tuple[subprocess.Popen[bytes], socket.socket, int, bool]:
    """(the helper, the socket to it, the TAP, whether it has IPv6); skips, saying why, where that is not to be had."""
    ours, theirs = socket.socketpair()
    command = ["unshare", "--user", "--map-root-user", "--net", sys.executable, __file__, str(theirs.fileno())]
    try:
        helper = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": _root()}
        )
    except FileNotFoundError:
        pytest.skip("unshare is missing: apt-get install util-linux")
    theirs.close()
    ours.settimeout(30)
    message, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
    if not descriptors:
        ours.close()
        _, output = helper.communicate(timeout=30)
        lines = output.decode(errors="replace").strip().splitlines() or ["no reason given"]
        if "PermissionError" in lines[-1] or "unshare" in lines[-1] or "/dev/net/tun" in lines[-1]:
            pytest.skip(f"a TAP in a new user and network namespace is not to be had here: {lines[-1]}")
        pytest.fail("\n".join(lines))
    return helper, ours, descriptors[0], message == b"6"


def _root() -> str:
    return str(Path(__file__).parents[2])


def test_a_thousand_exchanges_with_the_kernel() -> None:
    """Sizes 0 to 20 kB each way, IPv4 and IPv6, either side opens, either closes first, one frame in a hundred lost."""
    seed = int(os.environ.get("EMUNET_TEST_SEED", "1"))
    started = time.monotonic()
    helper, control, tap, has_v6 = start_helper()
    try:
        run = Run(tap, control, seed, has_v6)
        report = run.until_reported()
    finally:
        os.close(tap)
        control.close()
        helper.wait(30)
        assert helper.stderr is not None
        noise = helper.stderr.read().decode()
        helper.stderr.close()
    took = time.monotonic() - started
    print(
        f"{run.done} exchanges, {run.frames} frames, {run.lost} lost, {run.retransmissions} retransmissions,"
        f" {'IPv4 and IPv6' if has_v6 else 'IPv4'}, {took:.1f} s, seed {seed}"
    )
    assert run.errors == []
    assert report["errors"] == []
    assert report["done"] == EXCHANGES, report
    assert run.done >= EXCHANGES - AT_ONCE, "an ending may still lack the kernel's last acknowledgment"
    assert run.lost > run.frames * LOSS / 2
    assert run.retransmissions > 0
    assert noise == ""


if __name__ == "__main__":
    kernel_half(socket.socket(fileno=int(sys.argv[1])))
