"""Probes of containers: startup, liveness and readiness, as the kubelet of a host asks them.

`httpGet` and `tcpSocket` are asked from the host's own network, so that they travel as real frames to the
pod, from the address of the host that is nearest to it (POD-06); `exec` runs in the pod.

Rule of this file: it asks and tells what it found; what follows from an answer is the containers' business.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable
from typing import Any

from emunet.cluster.store import Object
from emunet.daemon.keeper_link import KeeperLink
from emunet.daemon.programs import Programs
from emunet.linux.keeper_client import KeeperGone, KeeperRefused, OpenSockets, ProcessExited
from emunet.linux.specification import ProgramSpec

_ENOUGH = 12
"""Bytes of an HTTP answer that tell its status: `HTTP/1.1 200`."""


class Prober:
    """Asks one container again and again. `ready` hears of readiness, `failed` of a container that must end."""

    def __init__(
        self, keeper: KeeperLink, programs: Programs, host: str, sandbox: str, address: str,
        ready: Callable[[bool], None], failed: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._keeper = keeper
        self._programs = programs
        self._host = host
        self._sandbox = sandbox
        self._address = address
        self._ready = ready
        self._failed = failed

    async def run(self, container: Object) -> None:
        """Ask until cancelled."""
        startup = container.get("startupProbe")
        if startup is not None and not await self._first(container, startup):
            self._failed("Startup probe failed")
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
        for _ in range(probe.get("failureThreshold", 3)):
            if await self._ask(container, probe):
                return True
            await asyncio.sleep(probe.get("periodSeconds", 10))
        return False

    async def _readiness(self, container: Object, probe: Object) -> None:
        await asyncio.sleep(probe.get("initialDelaySeconds", 0))
        good, bad, ready = 0, 0, False
        while True:
            if await self._ask(container, probe):
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
            bad = 0 if await self._ask(container, probe) else bad + 1
            if bad >= probe.get("failureThreshold", 3):
                self._failed("Liveness probe failed")
                return
            await asyncio.sleep(probe.get("periodSeconds", 10))

    async def _ask(self, container: Object, probe: Object) -> bool:
        """One question; anything but a good answer in time is a bad one."""
        try:
            async with asyncio.timeout(max(1, probe.get("timeoutSeconds", 1))):
                if "exec" in probe:
                    return await self._execute(probe["exec"].get("command", []))
                if "httpGet" in probe:
                    return await self._fetch(container, probe["httpGet"])
                if "tcpSocket" in probe:
                    where = probe["tcpSocket"]
                    (await self._connect(container, where.get("host"), where["port"])).close()
                    return True
        except (OSError, TimeoutError, KeeperRefused, ValueError):
            return False
        except KeeperGone:
            return True  # the lab is ending
        return True  # a kind of probe that is not asked here (grpc)

    async def _execute(self, command: list[str]) -> bool:
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def ended(what: ProcessExited) -> None:
            if not done.done():
                done.set_result(what.code)

        number, _ = await self._programs.start(self._sandbox, ProgramSpec(tuple(command)), ended)
        try:
            return await done == 0
        except asyncio.CancelledError:
            await self._programs.signal(number, signal.SIGKILL)
            raise

    async def _connect(self, container: Object, host: str | None, port: Any) -> socket.socket:
        number = _port(container, port)
        address = host or self._address
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        (opened,) = await self._keeper.ask(OpenSockets(self._host, ((int(family), int(socket.SOCK_STREAM)),)))
        opened.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(opened, (address, number))
        except BaseException:
            opened.close()
            raise
        return opened

    async def _fetch(self, container: Object, where: Object) -> bool:
        """A GET; https is asked whether it answers at all, since its certificates are nobody's here."""
        opened = await self._connect(container, where.get("host"), where["port"])
        with contextlib.closing(opened):
            if where.get("scheme") == "HTTPS":
                return True
            loop = asyncio.get_running_loop()
            given = {one["name"].lower(): one["value"] for one in where.get("httpHeaders", ())}
            headers = {"host": where.get("host") or self._address, "user-agent": "kube-probe/1.33", **given}
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            request = f"GET {where.get('path', '/')} HTTP/1.1\r\n{lines}accept: */*\r\nconnection: close\r\n\r\n"
            await loop.sock_sendall(opened, request.encode())
            answer = b""
            while len(answer) < _ENOUGH:
                data = await loop.sock_recv(opened, 4096)
                if not data:
                    return False
                answer += data
        return 200 <= int(answer.split(b" ", 2)[1][:3]) < 400


def _port(container: Object, port: Any) -> int:
    """The number of a port that may be told by its name."""
    if isinstance(port, int):
        return port
    for one in container.get("ports", ()):
        if one.get("name") == port:
            return int(one["containerPort"])
    return int(port)
