"""The lab's way to the outside, as long as the lab runs: a program that has ended is begun again, ever less often.

Connections that went through it are cut when it ends; what is asked for afterwards goes through the next one.

Rule of this file: whatever became of the program is in `Internet`, for `emunet status`, and in the lab's log.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from emunet.cluster.gateway import EDGE
from emunet.daemon.plane_client import PlaneClient, PlaneGone
from emunet.linux import way_out
from emunet.linux.refusals import LinuxRefused
from emunet.linux.way_out import Guest, WayOut

FIRST_SECONDS, LONGEST_SECONDS = 0.5, 30.0
"""How long after its end a program is begun again: at first, and at most; each time twice as long."""

STEADY_SECONDS = 60.0
"""One that has run so long is begun again as if it had never ended."""


@dataclass(slots=True)
class Internet:
    """The lab's way out: the program that it goes through, the gateway's addresses, and the machine's name server.

    `ended` counts how often the program has ended; `reason` is a sentence without its end: how it did last, or why it
    does not begin.
    """

    program: str
    gateway: str
    gateway_ipv6: str | None
    resolver: str | None
    ready: bool = True
    ended: int = 0
    reason: str = ""


class Outlet:
    """Keeps the program at the other end of the gateway running. `found` is what there is to say of it."""

    def __init__(self, plane: PlaneClient, guest: Guest, folder: Path, found: Internet) -> None:
        self._plane = plane
        self._guest = guest
        self._folder = folder
        self._found = found
        self._ipv6 = found.gateway_ipv6
        self._closing = asyncio.Event()
        self._made: WayOut | None = None
        self._keeping: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Begin it. LinuxRefused where it does not begin."""
        self._made = await self._begin()
        self._keeping = asyncio.create_task(self._keep(self._made))

    async def close(self) -> None:
        """End it: returns when it is gone."""
        self._closing.set()
        if self._keeping is not None:
            await self._keeping
        if self._made is not None:
            await asyncio.to_thread(self._made.close)

    # Within

    async def _begin(self) -> WayOut:
        program = way_out.find()
        way_out.check_route()
        made = await asyncio.to_thread(WayOut.start, program, self._guest, self._folder)
        try:
            await self._plane.give_taps([(EDGE, made.take())])
        except BaseException:
            made.close()
            raise
        self._found.program, self._found.gateway_ipv6 = program, self._ipv6 if made.ipv6 else None
        return made

    async def _keep(self, made: WayOut) -> None:
        """Begin it again whenever it has ended, until it is to be closed."""
        pause, began = FIRST_SECONDS, asyncio.get_running_loop().time()
        while await self._ends(made):
            self._found.ready = False
            self._found.ended += 1
            self._tell(await asyncio.to_thread(made.how_it_ended))
            await asyncio.to_thread(made.close)
            if asyncio.get_running_loop().time() > began + STEADY_SECONDS:
                pause = FIRST_SECONDS
            while not self._found.ready:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), pause)
                    return
                pause = min(2 * pause, LONGEST_SECONDS)
                try:
                    made = self._made = await self._begin()
                except LinuxRefused as error:
                    self._tell(error.what.rstrip("."))
                except OSError as error:
                    self._tell(f"{self._found.program} does not begin: {error}")
                except PlaneGone:  # and so the lab ends
                    return
                else:
                    self._found.ready, began = True, asyncio.get_running_loop().time()
                    print(f"the way to the outside is open again, by {self._found.program}", flush=True)

    async def _ends(self, made: WayOut) -> bool:
        """Wait for its end; False where it is to be closed first."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        watched = os.pidfd_open(made.process.pid)
        loop.add_reader(watched, ended.set)
        waits = [asyncio.create_task(one.wait()) for one in (ended, self._closing)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_reader(watched)
            os.close(watched)
            for one in waits:
                one.cancel()
        return not self._closing.is_set()

    def _tell(self, reason: str) -> None:
        if reason != self._found.reason:
            print(f"the way to the outside is closed: {reason}; it is begun again", flush=True)
        self._found.reason = reason


__all__ = ["Internet", "Outlet"]
