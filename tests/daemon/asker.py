"""The API server in a thread of its own, asked as any HTTP client asks it."""

from __future__ import annotations

import asyncio
import http.client
import ssl
import threading
from pathlib import Path
from typing import Any

from emunet.daemon.kube.certificate import Credentials
from emunet.daemon.kube.server import ApiServer
from tests.daemon.alone import Alone

SECONDS = 10.0


class Asker:
    """A server in a thread of its own, and one connection to it."""

    def __init__(self, folder: Path) -> None:
        self.backend = Alone()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        credentials = Credentials.make()
        self._server, self.port = self._do(self._open(credentials, folder))
        trust = ssl.create_default_context(cadata=credentials.certificate.decode())
        self._connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=trust, timeout=SECONDS)
        self.token = credentials.token
        self._watching: list[http.client.HTTPSConnection | http.client.HTTPResponse] = []

    async def _open(self, credentials: Credentials, folder: Path) -> tuple[ApiServer, int]:
        server = ApiServer(self.backend, credentials.token)
        return server, await server.open(credentials.context(folder))

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(SECONDS)

    def close(self) -> None:
        self._connection.close()
        self._do(self._server.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, str, bytes]:
        """The code, the type and the body of an answer; TimeoutError where none comes."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection.request(method, path, body, {"Authorization": f"Bearer {self.token}", **names})
        response = self._connection.getresponse()
        return response.status, response.headers.get_content_type(), response.read()
