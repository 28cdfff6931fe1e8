"""How the programs of a pod are asked to end, in which order, and when they are made to.

    all but sidecars      their `preStop` is done, then they are asked to end (SIGTERM), side by side
    sidecars              their `preStop` is done at once too; each is asked to end when what began after it has
                          ended: so the last of them first, and all of them after what they serve
    the grace is over     who was asked is ended by force; who was not is asked, and has two seconds

So a proxy that is a sidecar carries traffic until nobody sends any (a kubelet's order, `kuberuntime`).

Rule of this file: it ends programs and says which ones; what becomes of their pod is said elsewhere.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from emunet.daemon.handlers import Handlers
from emunet.daemon.pod_run import End, PodRun, Slot
from emunet.daemon.programs import Programs

LEAST_SECONDS = 2.0
"""What a program has from being asked to being ended by force, however long others took before it."""

Work = Coroutine[Any, Any, None]


class Endings:
    """Ends what runs in pods.

    `handlers` asks the containers of a pod, `note` tells an event of a pod (reason, message, whether it is a
    warning), `task` lets something go on beside.
    """

    def __init__(
        self,
        programs: Programs,
        handlers: Callable[[PodRun], Handlers | None],
        note: Callable[[PodRun, str, str, bool], None],
        task: Callable[[Work], None],
    ) -> None:
        self._programs = programs
        self._handlers = handlers
        self._note = note
        self._task = task

    def stop(self, run: PodRun, grace: float) -> None:
        """End all that runs in a pod, within `grace` seconds; asked again, the shorter time counts."""
        for slot in run.slots.values():
            if slot.restart is not None:
                slot.restart.cancel()
                slot.restart = None
            if slot.number > 0 and slot.end is End.NOT_ASKED:
                if slot.beside is not None:
                    slot.beside.cancel()
                slot.end = End.IN_HOOK
                self._note(run, "Killing", f"Stopping container {slot.name}", False)
                self._task(self._leave(run, slot, grace))
        loop = asyncio.get_running_loop()
        until = loop.time() + max(grace, 0.0)
        if run.killed is not None and run.killed.when() <= until:
            return
        if run.killed is not None:
            run.killed.cancel()
        run.killed = loop.call_at(until, self._out_of_time, run, grace <= 0)

    def stop_late(self, run: PodRun) -> None:
        """Something has begun in a pod that is being stopped."""
        left = run.killed.when() - asyncio.get_running_loop().time() if run.killed is not None else 0.0
        self.stop(run, left)

    def take_turns(self, run: PodRun) -> None:
        """Ask those of a pod to end whose turn it is: all but sidecars, then these from the last to the first."""
        busy = [slot for slot in run.slots.values() if slot.number]
        for slot in [slot for slot in busy if not slot.is_sidecar] or busy[-1:]:
            if slot.end is End.WAITS:
                self._ask(slot)

    async def end_one(self, run: PodRun, slot: Slot, grace: int) -> None:
        """End one program, which will be started again: asked first, then by force."""
        number = slot.number
        if number <= 0:
            return
        await self._before(run, slot, grace)
        await self._programs.signal(number, signal.SIGTERM)
        await asyncio.sleep(grace)
        await self._programs.signal(number, signal.SIGKILL)

    async def _leave(self, run: PodRun, slot: Slot, grace: float) -> None:
        number = slot.number
        await self._before(run, slot, grace)
        if slot.number == number and slot.end is End.IN_HOOK:
            slot.end = End.WAITS
            self.take_turns(run)

    async def _before(self, run: PodRun, slot: Slot, grace: float) -> None:
        """Do what is to be done before a program is asked to end, as far as there is time."""
        hook, handlers = slot.hook("preStop"), self._handlers(run)
        if hook is None or handlers is None or grace <= 0 or slot.program is None:
            return
        try:
            async with asyncio.timeout(grace):
                why = await handlers.ask(slot.spec, hook, slot.program)
        except TimeoutError:
            why = f"it is not done within the grace period of {grace:g} s"
        if why is not None:
            self._note(run, "FailedPreStopHook", f"PreStopHook failed: {why}", True)

    def _ask(self, slot: Slot) -> None:
        slot.end = End.ASKED
        self._task(self._programs.signal(slot.number, signal.SIGTERM))

    def _out_of_time(self, run: PodRun, at_once: bool) -> None:
        late = []
        for slot in run.slots.values():
            if slot.number > 0 and slot.end is not End.ASKED and not at_once:
                self._ask(slot)
                late.append((slot, slot.number))
            elif slot.number > 0:
                self._task(self._programs.signal(slot.number, signal.SIGKILL))
        if late:
            self._task(self._force(late))

    async def _force(self, late: list[tuple[Slot, int]]) -> None:
        await asyncio.sleep(LEAST_SECONDS)
        for slot, number in late:
            if slot.number == number:
                await self._programs.signal(number, signal.SIGKILL)
