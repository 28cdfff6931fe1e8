"""Control's end of the socket to the keeper, for an event loop.

Rule of this file: it adds waiting to `linux.keeper_client` and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from emunet.linux.keeper_client import Keeper, KeeperEnded, ProcessExited, Reply, SandboxEnded
from emunet.linux.keeper_requests import Request

Value = TypeVar("Value")


class KeeperLink:
    """A running keeper, spoken to from an event loop.

    `notice` hears of programs and sandboxes that have ended. `ended` is set when the keeper has.
    """

    def __init__(self, keeper: Keeper, notice: Callable[[ProcessExited | SandboxEnded], None]) -> None:
        self.keeper = keeper
        self.ended = asyncio.Event()
        self._notice = notice
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._watching = False
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(keeper.fileno(), self._read)

    async def ask(self, request: Request[Value]) -> Value:
        """The answer to a request. KeeperRefused with its sentence, or KeeperGone."""
        value: Value = await self.send(request)[1]
        return value

    def send(self, request: Request[Any]) -> tuple[int, asyncio.Future[Any]]:
        """Send a request now; its number, and the answer to wait for."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        number = self.keeper.send(request)
        self._waiting[number] = answer
        self._watch_writing()
        return number, answer

    async def ask_all(self, requests: Iterable[Request[Value]]) -> list[Value]:
        """The answers to many requests, done side by side; the first error, when all have been tried."""
        answers = await asyncio.gather(*[self.send(request)[1] for request in requests], return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return answers  # type: ignore[return-value]  # what gather gives is errors or values, and no error is left

    async def stop(self) -> None:
        """End the keeper, and every process of the lab: returns when the last is gone."""
        self._loop.remove_reader(self.keeper.fileno())
        self._loop.remove_writer(self.keeper.fileno())
        await asyncio.to_thread(self.keeper.close)

    def _read(self) -> None:
        for one in self.keeper.receive():
            match one:
                case Reply(number, value, error):
                    answer = self._waiting.pop(number)
                    if answer.done():  # who asked has gone away
                        continue
                    if error is not None:
                        answer.set_exception(error)
                    else:
                        answer.set_result(value)
                case KeeperEnded():
                    self._loop.remove_reader(self.keeper.fileno())
                    self.ended.set()
                case ProcessExited() | SandboxEnded():
                    self._notice(one)
        self._watch_writing()

    def _watch_writing(self) -> None:
        if self.keeper.wants_to_write and not self._watching:
            self._watching = True
            self._loop.add_writer(self.keeper.fileno(), self._flush)
        elif not self.keeper.wants_to_write and self._watching:
            self._watching = False
            self._loop.remove_writer(self.keeper.fileno())

    def _flush(self) -> None:
        self.keeper.flush()
        self._watch_writing()
