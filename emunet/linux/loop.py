"""The loop: wait for frames, messages and time, and let the World work.

One thread. Frames are read in rounds, a batch from each TAP in turn, so that a busy
pod starves nobody; between rounds messages and timers get their turn, so that no
frame and no question waits longer than one round. Only those who are sent what passes
(captures) wait a little longer while frames come, so that they are sent more at once.

Rule of this file: the only clock of a running data plane is read here.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable

from emunet.fabric.world import World
from emunet.linux.executor import make_drain
from emunet.linux.tap_edge import TapEdge
from emunet.plane.table import NEVER

EVENTS = 64
_GONE = select.EPOLLERR | select.EPOLLHUP
_SELECT_MAX = 1024

EAGER = 60_000
"""Nanoseconds of asking again and again for frames before going to sleep, where the last sleep was shorter than this.

Falling asleep and being woken on an idle core costs a virtual machine 10 to 20 µs each time: a TCP ping-pong over
VXLAN took 107 µs without and 60 µs with it, beside the kernel's own path at 94 µs (medians of 20 rounds, two cores,
idle). Other processes of this core go first. A lab in which frames are rarer than this does not do it at all.
"""

HOLD = 2_000_000
"""Nanoseconds for which sending is put off while frames come: 2.1 µs a captured frame less, at 60,000 a second."""

EXACT = 20_000_000
"""Nanoseconds to a timer below which it is waited for exactly: epoll counts in whole milliseconds.

A timer was 0.64 ms late in the median with epoll alone, and is 0.12 ms late so. With the kernel's timer slack taken
away (`syscalls.set_timer_slack`) the sleep itself ends 0.03 ms late, and a link's delay of 20 ms at 5,000 packets a
second is kept within 0.2 ms for 99 of 100 packets, from kernel to kernel (tests/kernel/delay_figures.py).
"""

REMEMBERED = 30 * 1_000_000_000
"""Nanoseconds for which lateness is told at least, and twice that at most."""


class Loop:
    """epoll over TAPs and other descriptors, with the World's timers.

    `speed`  lab nanoseconds per wall nanosecond (only other than 1 on memory wires)
    """

    def __init__(self, world: World, speed: float = 1.0) -> None:
        self.world = world
        self.speed = speed
        self._late = [0, 0]
        self._late_since = 0
        self._origin = time.monotonic_ns()
        self._lab_origin = self._origin
        self._epoll = select.epoll()
        self._edges: dict[int, TapEdge] = {}
        self._readers: dict[int, Callable[[], None]] = {}
        self._writers: dict[int, Callable[[], None]] = {}
        self._stopped = False
        self._eager = False
        self._exact = self._epoll.fileno() < _SELECT_MAX

    def now(self) -> int:
        """Lab time in nanoseconds."""
        elapsed = time.monotonic_ns() - self._origin
        return self._lab_origin + (elapsed if self.speed == 1.0 else int(elapsed * self.speed))

    @property
    def late(self) -> int:
        """By how much the latest thing of the last minute happened after its time (ns)."""
        self._note_late(0, self.now())
        return max(self._late)

    def _note_late(self, late: int, now: int) -> None:
        if now - self._late_since > REMEMBERED:
            self._late = [0 if now - self._late_since > 2 * REMEMBERED else self._late[1], 0]
            self._late_since = now
        if late > self._late[1]:
            self._late[1] = late

    def jump(self, nanoseconds: int) -> None:
        """Move lab time ahead (memory wires only); what is due on the way happens in order."""
        self._lab_origin += nanoseconds
        self.world.advance(self.now())

    def add_edge(self, edge: TapEdge) -> None:
        """Read frames from a TAP."""
        self._edges[edge.fd] = edge
        self._epoll.register(edge.fd, select.EPOLLIN)

    def remove_edge(self, edge: TapEdge) -> None:
        """Stop reading a TAP. Its descriptor is the caller's to close."""
        if self._edges.pop(edge.fd, None) is not None:
            self._epoll.unregister(edge.fd)

    def add_reader(self, fd: int, call: Callable[[], None]) -> None:
        """Call when the descriptor can be read (or was closed by the other side)."""
        self._watch(fd, self._readers, call)

    def remove_reader(self, fd: int) -> None:
        """Stop watching a descriptor for reading."""
        self._watch(fd, self._readers, None)

    def add_writer(self, fd: int, call: Callable[[], None]) -> None:
        """Call whenever the descriptor can be written, until `remove_writer`. It may have a reader beside it."""
        self._watch(fd, self._writers, call)

    def remove_writer(self, fd: int) -> None:
        """Stop watching a descriptor for writing."""
        self._watch(fd, self._writers, None)

    def stop(self) -> None:
        """Return from `run` after this round."""
        self._stopped = True

    def run(self) -> None:
        """Work until stopped."""
        world = self.world
        edges = self._edges
        drain = make_drain(world)
        send_at = 0
        while not self._stopped:
            others: list[tuple[int, int]] = []
            moved = False
            for fd, events in self._wait():
                edge = edges.get(fd)
                if edge is None:
                    others.append((fd, events))
                elif drain(edge, self.now()):
                    moved = True
                elif events & _GONE:
                    self.remove_edge(edge)  # its device has ended with the pod: nothing will ever come of it
            now = self.now()
            if others:
                send = not moved or now >= send_at
                if send:
                    send_at = now + HOLD
                for fd, events in others:
                    if send or events != select.EPOLLOUT:
                        self._call(fd, events)
            due = world.due()
            if due <= now:
                if due > 0:  # what is due from the beginning of time means at once
                    self._note_late(now - due, now)
                world.advance(now)

    def close(self) -> None:
        """Let the epoll descriptor go."""
        self._epoll.close()

    def _watch(self, fd: int, calls: dict[int, Callable[[], None]], call: Callable[[], None] | None) -> None:
        """Set or take away a call, and let epoll know what a descriptor is watched for now."""
        before = fd in self._readers or fd in self._writers
        if call is not None:
            calls[fd] = call
        elif calls.pop(fd, None) is None:
            return
        mask = (select.EPOLLIN if fd in self._readers else 0) | (select.EPOLLOUT if fd in self._writers else 0)
        if not before:
            self._epoll.register(fd, mask)
        elif mask:
            self._epoll.modify(fd, mask)
        else:
            self._epoll.unregister(fd)

    def _call(self, fd: int, events: int) -> None:
        # Each is looked up when it is its turn: the call before it may have closed the descriptor.
        # An error or a hang-up is news for both: who only writes must learn of it too.
        if events & ~select.EPOLLOUT:
            reader = self._readers.get(fd)
            if reader is not None:
                reader()
        if events & ~select.EPOLLIN:
            writer = self._writers.get(fd)
            if writer is not None:
                writer()

    def _wait(self) -> list[tuple[int, int]]:
        """What is ready, waiting for it until the next timer is due."""
        now, due = self.now(), self.world.due()
        poll = self._epoll.poll
        if self._eager:
            until = min(due, now + EAGER)
            while True:
                ready = poll(0, EVENTS)
                if ready or now >= due:
                    return ready
                if now >= until:
                    break
                os.sched_yield()
                now = self.now()
        before = now
        if due == NEVER:
            ready = poll(-1, EVENTS)
        elif due - now < EXACT and self._exact:
            select.select((self._epoll,), (), (), max(0.0, (due - now) / 1e9 / self.speed))
            ready = poll(0, EVENTS)
        else:
            ready = poll(max(0.0, (due - now) / 1e9 / self.speed), EVENTS)
        self._eager = bool(self._edges) and self.now() - before < EAGER
        return ready
