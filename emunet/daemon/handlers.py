"""What the kubelet of a host does to a container: run a program in it, ask its HTTP server, its port, its health.

Probes and lifecycle hooks say so in the same words (`exec`, `httpGet`, `tcpSocket`, `grpc`, `sleep`). All but
`exec` and `sleep` are done from the host's own network, so that they travel as real frames to the pod, from
the address of the host that is nearest to it (POD-06).

Rule of this file: one question, one answer; a refusal is a sentence in the kubelet's words.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from dataclasses import dataclass
from typing import Any

from emunet.cluster.store import Object
from emunet.daemon.grpc_health import SERVING, HealthAnswer, Reader, request_of
from emunet.daemon.keeper_link import KeeperLink
from emunet.daemon.programs import Output, Programs, open_streams
from emunet.linux.keeper_client import KeeperGone, KeeperRefused, ProcessExited
from emunet.linux.keeper_requests import OpenSockets
from emunet.linux.specification import ProgramSpec

_MOST_OUTPUT = 10 << 10
"""Bytes of a program's output, or of an HTTP answer's body, that a refusal quotes."""

_GRPC_STATUS = {0: "UNKNOWN", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}


@dataclass(frozen=True, slots=True)
class Handlers:
    """Who asks the containers of one pod: from `host`, at `address`; `exec` as `program` says of a container."""

    keeper: KeeperLink
    programs: Programs
    host: str
    sandbox: str
    address: str

    async def ask(self, container: Object, action: Object, like: ProgramSpec) -> str | None:
        """None where it went well, else why not. `like` has the environment and the user of what `exec` runs."""
        try:
            if "exec" in action:
                return await self._execute(action["exec"].get("command", []), like)
            if "httpGet" in action:
                return await self._fetch(container, action["httpGet"])
            if "tcpSocket" in action:
                where = action["tcpSocket"]
                (await self._connect(container, where.get("host"), where["port"])).close()
            elif "grpc" in action:
                return await self._health(container, action["grpc"])
            elif "sleep" in action:
                await asyncio.sleep(action["sleep"].get("seconds", 0))
        except OSError as error:
            return error.strerror or str(error)
        except (KeeperRefused, ValueError) as error:
            return str(error)
        except KeeperGone:
            pass  # the lab is ending
        return None

    async def _execute(self, command: list[str], like: ProgramSpec) -> str | None:
        done: asyncio.Future[ProcessExited] = asyncio.get_running_loop().create_future()

        def ended(what: ProcessExited) -> None:
            if not done.done():
                done.set_result(what)

        streams = open_streams(stdin=False, terminal=False, together=True)
        spec = ProgramSpec(tuple(command), like.environment, like.directory, user=like.user)
        try:
            number, _ = await self.programs.start(self.sandbox, spec, ended, *streams.theirs)
            streams.given()
        except BaseException:
            streams.given()
            streams.close()
            raise
        said = asyncio.create_task(_all_of(streams.outputs[1]))
        try:
            what = await done
            if what.code == 0:
                return None
            if what.failure is not None:
                return f'exec: "{command[0]}": {what.failure}'
            with contextlib.suppress(TimeoutError):  # a child of it may hold the pipe open
                await asyncio.wait_for(asyncio.shield(said), 0.1)
            told = said.result().decode(errors="replace").strip() if said.done() else ""
            return told or f"command exited with code {what.code}"
        except asyncio.CancelledError:
            await self.programs.signal(number, signal.SIGKILL)
            raise
        finally:
            streams.close()
            said.cancel()

    async def _connect(self, container: Object, host: str | None, port: Any) -> socket.socket:
        number = port_of(container, port)
        address = host or self.address
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        (opened,) = await self.keeper.ask(OpenSockets(self.host, ((int(family), int(socket.SOCK_STREAM)),)))
        opened.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(opened, (address, number))
        except OSError as error:
            opened.close()
            raise OSError(
                error.errno, f"dial tcp {address}:{number}: connect: {os.strerror(error.errno or 0).lower()}"
            ) from None
        except BaseException:
            opened.close()
            raise
        return opened

    async def _fetch(self, container: Object, where: Object) -> str | None:
        """A GET; https is asked whether it answers at all, since its certificates are nobody's here."""
        opened = await self._connect(container, where.get("host"), where["port"])
        with contextlib.closing(opened):
            if where.get("scheme") == "HTTPS":
                return None
            loop = asyncio.get_running_loop()
            given = {one["name"].lower(): one["value"] for one in where.get("httpHeaders", ())}
            headers = {"host": where.get("host") or self.address, "user-agent": "kube-probe/1.33", **given}
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            request = f"GET {where.get('path', '/')} HTTP/1.1\r\n{lines}accept: */*\r\nconnection: close\r\n\r\n"
            await loop.sock_sendall(opened, request.encode())
            answer = b""
            while b"\r\n" not in answer and len(answer) < _MOST_OUTPUT:
                data = await loop.sock_recv(opened, 4096)
                if not data:
                    break
                answer += data
        words = answer.split(b"\r\n", 1)[0].split(b" ", 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
            return f"Get {where.get('path', '/')}: the answer is not HTTP"
        code = int(words[1])
        return None if 200 <= code < 400 else f"HTTP probe failed with statuscode: {code}"

    async def _health(self, container: Object, where: Object) -> str | None:
        """The health service of gRPC, asked for one service."""
        opened = await self._connect(container, None, where["port"])
        with contextlib.closing(opened):
            loop = asyncio.get_running_loop()
            authority = f"{self.address}:{port_of(container, where['port'])}"
            await loop.sock_sendall(opened, request_of(where.get("service") or "", authority))
            reader = Reader()
            while reader.answer is None:
                data = await loop.sock_recv(opened, 4096)
                if not data:
                    return "rpc error: the connection ended without an answer"
                reply = reader.feed(data)
                if reply:
                    await loop.sock_sendall(opened, reply)
        return _told(reader.answer)


def _told(answer: HealthAnswer) -> str | None:
    if answer.failure:
        return f"rpc error: {answer.failure}"
    if answer.status == SERVING:
        return None
    return f'service unhealthy (responded with "{_GRPC_STATUS.get(answer.status, str(answer.status))}")'


async def _all_of(output: Output) -> bytes:
    said = b""
    while data := await output.read():
        said = (said + data)[:_MOST_OUTPUT]
    return said


def port_of(container: Object, port: Any) -> int:
    """The number of a port that may be told by its name. ValueError where no port has that name."""
    if isinstance(port, int):
        return port
    for one in container.get("ports", ()):
        if one.get("name") == port:
            return int(one["containerPort"])
    if str(port).isdigit():
        return int(port)
    raise ValueError(f"couldn't find port: {port!r} is the name of no port of the container {container['name']}")
