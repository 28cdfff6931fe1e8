"""Probes of containers: startup, liveness and readiness, again and again as their fields say.

Rule of this file: it asks (`handlers`) and tells what it found; what follows from an answer is the containers'
business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from emunet.cluster.store import Object
from emunet.daemon.handlers import Handlers
from emunet.linux.specification import ProgramSpec


class Prober:
    """Asks one container again and again.

    `ready` hears of readiness, `unhealthy` of each answer that was not good (which probe, why), `failed` of a
    container that must end (which probe).
    """

    def __init__(
        self, handlers: Handlers, like: ProgramSpec,
        ready: Callable[[bool], None], unhealthy: Callable[[str, str], None], failed: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._handlers = handlers
        self._like = like
        self._ready = ready
        self._unhealthy = unhealthy
        self._failed = failed

    async def run(self, container: Object) -> None:
        """Ask until cancelled."""
        startup = container.get("startupProbe")
        if startup is not None and not await self._first(container, startup):
            self._failed("startup")
            return
        async with asyncio.TaskGroup() as tasks:
            if "readinessProbe" in container:
                tasks.create_task(self._readiness(container, container["readinessProbe"]))
            elif startup is not None:
                self._ready(True)
            if "livenessProbe" in container:
                tasks.create_task(self._liveness(container, container["livenessProbe"]))

    async def _first(self, container: Object, probe: Object) -> bool:
        """True once a startup probe succeeds; False when it has failed too often."""
        await asyncio.sleep(probe.get("initialDelaySeconds", 0))
        bad = 0
        while True:
            if await self._ask(container, probe, "Startup"):
                return True
            bad += 1
            if bad >= probe.get("failureThreshold", 3):
                return False
            await asyncio.sleep(probe.get("periodSeconds", 10))

    async def _readiness(self, container: Object, probe: Object) -> None:
        await asyncio.sleep(probe.get("initialDelaySeconds", 0))
        good, bad, ready = 0, 0, False
        while True:
            if await self._ask(container, probe, "Readiness"):
                good, bad = good + 1, 0
            else:
                good, bad = 0, bad + 1
            if not ready and good >= probe.get("successThreshold", 1):
                ready = True
                self._ready(True)
            elif ready and bad >= probe.get("failureThreshold", 3):
                ready = False
                self._ready(False)
            await asyncio.sleep(probe.get("periodSeconds", 10))

    async def _liveness(self, container: Object, probe: Object) -> None:
        await asyncio.sleep(probe.get("initialDelaySeconds", 0))
        bad = 0
        while True:
            bad = 0 if await self._ask(container, probe, "Liveness") else bad + 1
            if bad >= probe.get("failureThreshold", 3):
                self._failed("liveness")
                return
            await asyncio.sleep(probe.get("periodSeconds", 10))

    async def _ask(self, container: Object, probe: Object, name: str) -> bool:
        """One question; anything but a good answer in time is a bad one."""
        seconds = max(1, probe.get("timeoutSeconds", 1))
        try:
            async with asyncio.timeout(seconds):
                why = await self._handlers.ask(container, probe, self._like)
        except TimeoutError:
            why = f"no answer within {seconds} s"
        if why is not None:
            self._unhealthy(name, why)
        return why is None
