"""The API server of a running lab, and its port. It begins beside the lab, not before it.

Rule of this file: `emunet up` does not wait for it; whoever asks for the kubeconfig does.
"""

from __future__ import annotations

import asyncio
import importlib
from pathlib import Path
from typing import Any

from emunet.daemon.kube.backend import Backend
from emunet.daemon.kube.certificate import Credentials, kubeconfig


class KubeService:
    """The server and its credentials. `answer` serves those who may ask without a token."""

    def __init__(self, lab: str, backend: Backend, folder: Path, credentials: Credentials) -> None:
        self._lab = lab
        self._backend = backend
        self._folder = folder
        self._server: Any = None
        self._credentials = credentials
        self._opening: asyncio.Task[int] | None = None

    def open(self) -> asyncio.Task[int]:
        """Begin to answer on a port, if that has not begun; the task that gives its number."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        return self._opening

    async def _open(self) -> int:
        module = await asyncio.to_thread(importlib.import_module, "emunet.daemon.kube.server")
        self._server = module.ApiServer(self._backend, self._credentials.token)
        port: int = await self._server.open(self._credentials.context(self._folder))
        return port

    async def kubeconfig(self) -> str:
        """The file that points kubectl here."""
        port = await asyncio.shield(self.open())
        return kubeconfig(self._lab, port, self._credentials)

    async def answer(self, request: Any, path: str) -> Any:
        """The answer to a request of the lab's owner, who has come by the lab's own socket."""
        module = await asyncio.to_thread(importlib.import_module, "emunet.daemon.kube.server")
        token = self._credentials.token

        async def handle(request: Any) -> Any:
            return await module.answer(self._backend, token, request, path)

        return await module.guarded(request, handle)

    async def close(self) -> None:
        """Answer no more."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        if self._server is not None:
            await self._server.close()
