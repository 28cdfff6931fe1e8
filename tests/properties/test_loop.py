"""The loop gives everybody a turn: frames, messages, those who are sent what passes, and timers.

Pairs of local sockets serve as TAPs, as in `test_executor`.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from emunet.linux.loop import Loop
from emunet.packet.offload import NO_OFFLOAD
from tests.properties.test_executor import Wired
from tests.worlds import datagram

ENOUGH = 20
SECONDS = 20.0


@contextmanager
def flooded() -> Iterator[tuple[Wired, Loop]]:
    """A lab in which web-1 sends all the time, and a loop that reads it; it stops by itself after SECONDS."""
    wired = Wired("one-host", 0)
    net = wired.twins.cached
    a, b = net["web-1"], net["web-2"]
    frame = NO_OFFLOAD + net.frame("web-1", datagram(a.address(), b.address(), 1024, 80, b"x"), to=b.mac)
    loop = Loop(net.world)
    for edge in wired.edges.values():
        loop.add_edge(edge)
    over = threading.Event()

    def flood() -> None:
        while not over.is_set():
            if select.select((), (wired.kernel["web-1"],), (), 0.1)[1]:
                wired.kernel["web-1"].send(frame)

    def swallow() -> None:
        while not over.is_set():
            if select.select((wired.kernel["web-2"],), (), (), 0.1)[0]:
                wired.kernel["web-2"].recv(1 << 17)

    threads = [threading.Thread(target=flood), threading.Thread(target=swallow)]
    for thread in threads:
        thread.start()
    loop.world.at(loop.now() + int(SECONDS * 1e9), lambda now: loop.stop())
    try:
        yield wired, loop
    finally:
        over.set()
        for thread in threads:
            thread.join()
        loop.close()
        wired.close()


def test_a_flood_of_frames_starves_nobody() -> None:
    """Readers, writers and timers have their turns while frames never end."""
    turns = {"reader": 0, "writer": 0, "timer": 0}
    mine, theirs = socket.socketpair()
    told, tell = os.pipe()
    with mine, theirs, flooded() as (wired, loop):

        def count(kind: str) -> None:
            turns[kind] += 1
            if min(turns.values()) >= ENOUGH:
                loop.stop()

        def tick(now: int) -> None:
            count("timer")
            loop.world.at(now + 1_000_000, tick)

        os.write(tell, b"!")  # never read: there is always something to say
        loop.add_reader(told, lambda: count("reader"))
        loop.add_writer(mine.fileno(), lambda: count("writer"))
        loop.world.at(loop.now(), tick)
        loop.run()
        delivered = wired.twins.cached.world.ledger.delivered
    os.close(told)
    os.close(tell)
    assert min(turns.values()) >= ENOUGH, turns
    assert delivered > ENOUGH


def test_an_end_is_read_no_more_once_its_device_has_gone() -> None:
    """A TAP without its device is an error that epoll tells of for ever: it is told once."""
    wired = Wired("one-host", 0)
    loop = Loop(wired.twins.cached.world)
    reading, writing = os.pipe()
    edge = wired.edges["web-2"]
    os.close(edge.fd)
    edge.fd = writing  # cannot be read, and hangs up once nobody reads the other end
    loop.add_edge(edge)
    os.close(reading)
    rounds = 0

    def look(now: int) -> None:
        nonlocal rounds
        rounds += 1
        if rounds == ENOUGH:
            loop.stop()
        loop.world.at(now + 1_000_000, look)

    loop.world.at(loop.now(), look)
    loop.run()
    assert edge.fd not in loop._edges
    loop.close()
    wired.close()


def test_what_is_due_at_once_is_not_late() -> None:
    """It is due from the beginning of time, which the machine's uptime is not late."""
    wired = Wired("one-host", 0)
    loop = Loop(wired.twins.cached.world)
    loop.world.at(0, lambda now: loop.stop())
    try:
        loop.run()
        assert loop.late == 0
    finally:
        loop.close()
        wired.close()
