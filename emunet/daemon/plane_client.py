"""Control's end of the socket to the plane: questions with numbers, answers to them.

Rule of this file: a question waits for its own answer only; when the plane ends, every
question that waits fails and `ended` is set.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import socket
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from emunet.daemon.outbox import Outbox
from emunet.elements.connections import ServiceChange, ServicePort
from emunet.elements.connections.services import difference
from emunet.elements.policies.rules import Row
from emunet.fabric.config import WorldConfig
from emunet.fabric.policing import steps
from emunet.linux import messages

ENDING_SECONDS = 5.0

TAPS_A_MESSAGE = 200
"""Descriptors that one message carries, of the 250 that it may."""


ROWS_A_MESSAGE = 40
"""Rows of Services that one message may take away."""

BACKENDS_A_MESSAGE = 100
"""Backends of Services that one message may bring (a row's own at least): the plane takes them in well under 1 ms."""


def parts_of(change: ServiceChange) -> Iterator[ServiceChange]:
    """A change of Services in small ones: what goes first."""
    if change.gone:
        for start in range(0, len(change.gone), ROWS_A_MESSAGE):
            yield ServiceChange(gone=change.gone[start : start + ROWS_A_MESSAGE])
    part: list[ServicePort] = []
    size = 0
    for row in change.put:
        if part and size + len(row.backends) + 1 > BACKENDS_A_MESSAGE:
            yield ServiceChange(put=tuple(part))
            part, size = [], 0
        part.append(row)
        size += len(row.backends) + 1
    if part:
        yield ServiceChange(put=tuple(part))


class PlaneRefused(Exception):
    """The plane could not do what was asked: its sentence.

    `kind` is `unknown` (there is nothing of that name), `invalid` (the question makes no sense),
    `refused` (this lab cannot do that) or `fault` (of ours).
    """

    def __init__(self, sentence: str, kind: str) -> None:
        super().__init__(sentence)
        self.kind = kind


class PlaneGone(Exception):
    """The plane process has ended, and with it the lab."""


class PlaneClient:
    """A running plane process, spoken to from an event loop."""

    def __init__(self, process: subprocess.Popen[bytes], channel: socket.socket) -> None:
        self.process = process
        self.ended = asyncio.Event()
        self._channel = channel
        self._numbers = 0
        self._config: WorldConfig | None = None
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._services: tuple[ServicePort, ...] = ()
        self._outbox = Outbox(channel)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(channel, self._read)

    async def ask(self, call: str, descriptors: Sequence[int] = (), **arguments: Any) -> Any:
        """The answer to a question. PlaneRefused with its sentence, or PlaneGone.

        The descriptors may be closed at once: copies travel.
        """
        if self.ended.is_set():
            raise PlaneGone("the plane process has ended")
        self._numbers += 1
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._waiting[self._numbers] = answer
        body = {"request": self._numbers, "call": call, **arguments}
        self._outbox.send(body, descriptors)
        return await answer

    async def configure(self, config: WorldConfig) -> None:
        """Make the World this: first all else, then the Services that changed.

        Where of all else only policies differ, they are changed a few rows at a time, between frames.
        """
        wanted = replace(config, services=())
        old, self._config = self._config, None  # unknown, should it fail halfway
        changes = steps(old, wanted) if old is not None else None
        if changes is None:
            await self._hand_over("configure", wanted)
        else:
            for host, rows in changes:
                await self._hand_over("policies", rows, host=host)
        self._config = wanted
        await self.change_services(config.services)

    async def change_services(self, services: tuple[ServicePort, ...]) -> None:
        """Let the World have these Services: only what changed travels, in parts that stop no frame for long."""
        change = difference(self._services, services)
        self._services = services
        for part in parts_of(change):
            await self._hand_over("services", part)

    async def _hand_over(self, call: str, value: WorldConfig | ServiceChange | list[Row], **arguments: Any) -> None:
        memory = os.memfd_create(f"emunet-{call}", os.MFD_CLOEXEC)
        try:
            with open(memory, "wb", closefd=False) as file:
                pickle.dump(value, file, pickle.HIGHEST_PROTOCOL)
            await self.ask(call, [memory], **arguments)
        finally:
            os.close(memory)

    async def give_taps(self, taps: Sequence[tuple[str, int]]) -> None:
        """Hand over TAPs for edges that the next configuration brings, by port name. They are closed here."""
        for start in range(0, len(taps), TAPS_A_MESSAGE):
            part = taps[start : start + TAPS_A_MESSAGE]
            await self.ask("taps", [tap for _, tap in part], names=[name for name, _ in part])
        for _, tap in taps:
            os.close(tap)

    async def stop(self) -> None:
        """End the plane, by force if it is stuck: returns when its process is gone."""
        self._loop.remove_reader(self._channel)
        self._outbox.close()
        self._channel.close()
        self._end()
        await asyncio.to_thread(self._wait)

    # Within

    def _wait(self) -> None:
        try:
            self.process.wait(ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _read(self) -> None:
        try:
            message = messages.receive(self._channel, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        if message is None:
            self._loop.remove_reader(self._channel)
            self._end()
            return
        answer = self._waiting.pop(message.body["request"])
        if answer.done():  # who asked has gone away
            return
        if "error" in message.body:
            answer.set_exception(PlaneRefused(message.body["error"], message.body["kind"]))
        else:
            answer.set_result(message.body["result"])

    def _end(self) -> None:
        self.ended.set()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(PlaneGone("the plane process has ended"))
        self._waiting.clear()
