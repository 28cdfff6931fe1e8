"""The responder of a lab on TAP wires, as control sees it: which pods it answers for, and its process.

It is started when the first pod declares a port that no program serves, in a sandbox of its own
(`linux.responder`). On memory wires the plane itself does the same (`lab.plane.Plane.respond`).

Rule of this file: what is wanted is kept here, so that a responder that has died is there again with all of it.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from emunet.daemon.keeper_link import KeeperLink
from emunet.daemon.outbox import Outbox
from emunet.daemon.programs import Programs
from emunet.elements.responder import Health, Identity, to_row
from emunet.linux import responder
from emunet.linux.keeper_client import KeeperGone, KeeperRefused, ProcessExited, SandboxEnded, import_paths
from emunet.linux.keeper_requests import CreateSandbox, OpenSockets
from emunet.linux.specification import ProgramSpec, SandboxSpec

_SANDBOX = "/responder"  # no pod and no host has a name like this
_BOOT = "import sys; sys.path += sys.argv[1:]; from emunet.linux.responder import main; main()"
_AT_ONCE = 100
_AGAIN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Declared:
    """The ports, (protocol, number), that are to be answered for a pod (or for a Service on a host), in the network of
    a sandbox.
    """

    uid: str
    sandbox: str
    identity: Identity | Health
    ports: tuple[tuple[str, int], ...]


class Responders:
    """The responder process, and all that it is to answer."""

    def __init__(self, keeper: KeeperLink, programs: Programs) -> None:
        self._keeper = keeper
        self._programs = programs
        self._wanted: dict[str, Declared] = {}
        self._off: set[str] = set()
        self._starting = asyncio.Lock()
        self._channel: socket.socket | None = None
        self._outbox: Outbox | None = None
        self._has_sandbox = False
        self._work: asyncio.Task[None] | None = None

    async def serve(self, declared: Declared) -> list[tuple[str, int]]:
        """Answer for a pod; the ports that are taken in its network already. KeeperRefused, KeeperGone."""
        self._wanted[declared.uid] = declared
        return await self._open(declared)

    async def tell_health(self, wanted: Sequence[Declared]) -> list[Declared]:
        """Answer for the health of these Services and of no others; those whose port is taken are given back."""
        known = {uid: one for uid, one in self._wanted.items() if isinstance(one.identity, Health)}
        for uid in known.keys() - {one.uid for one in wanted}:
            self.leave(uid)
        taken = []
        for one in wanted:
            before = known.get(one.uid)
            if before is None or before.ports != one.ports:
                if await self.serve(one):
                    taken.append(one)
            elif before != one:
                self._wanted[one.uid] = one
                if self._outbox is not None:
                    self._outbox.send({"do": "say", "sandbox": one.sandbox, "identity": to_row(one.identity)})
        return taken

    def leave(self, uid: str) -> None:
        """Answer for a pod no more."""
        declared = self._wanted.pop(uid, None)
        if declared is not None:
            self._close(declared)

    def pause(self, sandbox: str, on: bool) -> None:
        """Do nothing in a pod's network until told to go on: its kernel takes connections, and nobody serves them."""
        if self._outbox is not None and any(one.sandbox == sandbox for one in self._wanted.values()):
            self._outbox.send({"do": "pause", "sandbox": sandbox, "on": on})

    def hear(self, what: object) -> None:
        """A sandbox has ended, perhaps ours."""
        if isinstance(what, SandboxEnded) and what.sandbox == _SANDBOX:
            self._has_sandbox = False

    def power(self, host: str, on: bool) -> None:
        """A host lost its power, or has it again."""
        (self._off.discard if on else self._off.add)(host)
        there = [one for one in self._wanted.values() if one.identity.node == host]
        if on:
            self._work = asyncio.create_task(self._open_all(there))
        else:
            for declared in there:
                self._close(declared)

    def close(self) -> None:
        """The lab is ending."""
        self._wanted.clear()
        if self._work is not None:
            self._work.cancel()
        self._let_go()

    # Within

    async def _open(self, declared: Declared) -> list[tuple[str, int]]:
        async with self._starting:
            if self._outbox is None:
                await self._start()
        taken: list[tuple[str, int]] = []
        opened: list[tuple[tuple[str, int], socket.socket]] = []
        try:
            for start in range(0, len(declared.ports), _AT_ONCE):
                part = declared.ports[start : start + _AT_ONCE]
                for (protocol, port), one in zip(part, await self._sockets(declared.sandbox, part), strict=True):
                    opened.append(((protocol, port), one))
                    try:
                        responder.listen(one, protocol, port)
                    except OSError:
                        taken.append((protocol, port))
            if self._wanted.get(declared.uid) == declared and declared.identity.node not in self._off:
                self._hand_over(declared, [(port, one) for port, one in opened if port not in taken])
        finally:
            for _, one in opened:
                one.close()
        return taken

    async def _sockets(self, sandbox: str, ports: Sequence[tuple[str, int]]) -> list[socket.socket]:
        kinds = [int(socket.SOCK_STREAM if protocol == "TCP" else socket.SOCK_DGRAM) for protocol, _ in ports]
        try:  # one socket for both families
            return await self._keeper.ask(OpenSockets(sandbox, tuple((int(socket.AF_INET6), kind) for kind in kinds)))
        except KeeperRefused:  # a machine without IPv6; or without that sandbox, which is said now
            return await self._keeper.ask(OpenSockets(sandbox, tuple((int(socket.AF_INET), kind) for kind in kinds)))

    def _hand_over(self, declared: Declared, opened: list[tuple[tuple[str, int], socket.socket]]) -> None:
        identity = to_row(declared.identity)
        for start in range(0, len(opened), _AT_ONCE):
            part = opened[start : start + _AT_ONCE]
            ports = [list(port) for port, _ in part]
            body = {"do": "open", "sandbox": declared.sandbox, "identity": identity, "ports": ports, "more": start > 0}
            if self._outbox is not None:
                self._outbox.send(body, [one.fileno() for _, one in part])

    def _close(self, declared: Declared) -> None:
        if self._outbox is None:
            return
        # In a host's own network others may be answered for too.
        only = {"pod": to_row(declared.identity)[:2]} if declared.sandbox == declared.identity.node else {}
        self._outbox.send({"do": "close", "sandbox": declared.sandbox, **only})

    async def _start(self) -> None:
        """Start the process. KeeperRefused, KeeperGone."""
        if not self._has_sandbox:
            made = await self._keeper.ask(CreateSandbox(SandboxSpec(_SANDBOX, "responder")))
            assert not made.taps
            self._has_sandbox = True
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            spec = ProgramSpec((sys.executable, "-I", "-S", "-c", _BOOT, *import_paths()), own_processes=True)
            await self._programs.start(_SANDBOX, spec, self._ended, theirs.fileno(), 2, 2)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._channel = ours
        self._outbox = Outbox(ours)

    def _let_go(self) -> None:
        if self._outbox is not None and self._channel is not None:
            self._outbox.close()
            self._channel.close()
        self._outbox = self._channel = None

    def _ended(self, what: ProcessExited) -> None:
        self._let_go()
        if self._wanted:
            with suppress(OSError):  # a disk that is full
                print(f"the responder has ended with code {what.code}; it is started again", flush=True)
            self._work = asyncio.create_task(self._open_all(list(self._wanted.values()), _AGAIN_SECONDS))

    async def _open_all(self, wanted: list[Declared], after: float = 0.0) -> None:
        await asyncio.sleep(after)
        for declared in wanted:
            if self._wanted.get(declared.uid) == declared:
                with suppress(KeeperRefused, KeeperGone):  # the pod has gone meanwhile
                    await self._open(declared)


__all__ = ["Declared", "Responders"]
