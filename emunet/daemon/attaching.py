"""Attaching to a container: what it says from now on, and what somebody types to it.

Rule of this file: the container goes on whoever comes and goes; only its input ends, where it is for one
visitor (`stdinOnce`).
"""

from __future__ import annotations

from emunet.daemon.container_log import ContainerLog
from emunet.daemon.kube.backend import CannotServe
from emunet.daemon.pod_run import Slot

MOST_UNREAD = 1 << 20
"""Bytes that wait for a visitor who does not read; then the oldest are lost to him."""


class Visit:
    """A visit to a running container (`kube.backend.Session`). CannotServe where it does not run."""

    def __init__(self, slot: Slot) -> None:
        if slot.log is None or not slot.number:
            code = f" (exit code {slot.fact.code})" if slot.fact.state == "terminated" else ""
            raise CannotServe(f"the container {slot.name} does not run{code}; its log has what it said")
        self._slot = slot
        self._log: ContainerLog = slot.log
        # The first to come to a container that waits for one has missed nothing, its prompt least of all.
        once = bool(slot.spec.get("stdinOnce"))
        self._unread = self._log.text() if once and not slot.attached else b""
        slot.attached = True
        self._once = once
        self._log.taps.append(self._hear)

    def _hear(self, data: bytes) -> None:
        self._unread = (self._unread + data)[-MOST_UNREAD:]

    async def write(self, data: bytes) -> None:
        """Somebody types; what has no input takes no notice."""
        if self._slot.input is not None:
            await self._slot.input.write(data)

    def close_input(self) -> None:
        """Nobody types any more."""
        if self._once and self._slot.input is not None:
            self._slot.input.end()

    async def read(self, stream: int) -> bytes:
        """What it says; all of it is standard output."""
        if stream != 1:
            return b""
        while not self._unread:
            if self._log.ended:
                return b""
            await self._log.bell.wait(None)
        data, self._unread = self._unread, b""
        return data

    def resize(self, width: int, height: int) -> None:
        """The visitor's terminal has another size."""
        if self._slot.input is not None:
            self._slot.input.resize(width, height)

    async def wait(self) -> int:
        """Until the container has ended. A visit is a success whatever the container ends with."""
        while not self._log.ended:
            await self._log.bell.wait(None)
        return 0

    async def close(self) -> None:
        """The visitor leaves."""
        self._log.taps.remove(self._hear)
        self.close_input()
