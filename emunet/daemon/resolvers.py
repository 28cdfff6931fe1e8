"""The name servers of a lab on TAP wires, as control sees them: each is a container's program (`linux.resolver`).

A change of names is written to each of them as it happens. One that is slow to read gets what changed meanwhile in
one line; one that begins gets all.

On memory wires the plane is told instead, and answers for the pods whose stacks it is (`lab.plane`).

Rule of this file: nothing here answers a query, and a name server that does not read costs what changed, once.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable

from emunet.cluster.zone import Update, ZoneOf
from emunet.linux.keeper_client import import_paths
from emunet.linux.specification import ProgramSpec

_BOOT = "import sys; sys.path += sys.argv[1:]; from emunet.linux.resolver import main; main()"


class Resolvers:
    """All name servers of a lab that are processes."""

    def __init__(self, names: ZoneOf) -> None:
        self._names = names
        self._running: set[Feed] = set()

    def spec(self) -> ProgramSpec:
        """The program of a name server. It sees the machine's files until it has loaded itself."""
        argv = (sys.executable, "-I", "-S", "-c", _BOOT, *import_paths())
        return ProgramSpec(argv, own_processes=True, view="shared")

    def begin(self, ready: Callable[[], None]) -> Feed:
        """What a new one is told by; `ready` hears when it answers."""
        feed = Feed(self._names.whole(), ready, self._running.discard)
        self._running.add(feed)
        return feed

    def tell(self, update: Update) -> None:
        """Names have changed."""
        for feed in list(self._running):
            feed.tell(update)

    def close(self) -> None:
        """The lab is ending."""
        for feed in list(self._running):
            feed.close()


class Feed:
    """The line to one name server."""

    def __init__(self, whole: Update, ready: Callable[[], None], ended: Callable[[Feed], None]) -> None:
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._update = whole
        self._news = asyncio.Event()
        self._news.set()
        self.answers = False
        """Whether it has said that it answers."""
        self._ready = ready
        self._ended = ended
        self._work = asyncio.create_task(self._run())

    def descriptor(self) -> int:
        """The process's end; whoever starts it closes this."""
        return self._theirs.detach()

    def tell(self, update: Update) -> None:
        """Names have changed."""
        if update:
            self._update = self._update.with_(update)
            self._news.set()

    def close(self) -> None:
        """The process has ended, or is not to hear anything more."""
        self._work.cancel()

    async def _run(self) -> None:
        reader, writer = await asyncio.open_connection(sock=self._ours)
        listening = asyncio.create_task(self._listen(reader))
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                update, self._update = self._update, Update({})
                writer.write(update.encode())
                await writer.drain()
        except ConnectionError:  # it has ended, of which the keeper tells
            return
        finally:
            listening.cancel()
            writer.close()
            self._ended(self)

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        """Until it says that it answers, and then until it has ended."""
        while line := await reader.readline():
            if line == b"ready\n":
                self.answers = True
                self._ready()
        self.close()
