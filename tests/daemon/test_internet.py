"""What keeps the way to the outside open: a program that has ended is begun again, and what became of it is told."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import pytest

from emunet.daemon import internet
from emunet.daemon.internet import Internet, Outlet
from emunet.daemon.plane_client import PlaneClient
from emunet.linux.refusals import LinuxRefused
from emunet.linux.way_out import Guest, WayOut

GUEST = Guest(b"\2" + bytes(5), b"\2" + bytes(4) + b"\1", (bytes(4), bytes(4)))


class Plane:
    """Takes what the data plane is handed."""

    def __init__(self) -> None:
        self.taken = 0

    async def give_taps(self, taps: Sequence[tuple[str, int]]) -> None:
        """Close it, as the plane's client does."""
        for _, descriptor in taps:
            os.close(descriptor)
            self.taken += 1


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[WayOut | str]:
    """Every program that was begun, and every refusal; where the last entry is a refusal, it refuses again."""
    found: list[WayOut | str] = []

    def start(name: str, guest: Guest, folder: Path) -> WayOut:
        if found and isinstance(found[-1], str):
            found.append(found[-1])
            raise LinuxRefused(f"--internet: {found[-1]}.", "Leave --internet out.")
        ours, theirs = socket.socketpair()
        theirs.close()
        found.append(WayOut(name, subprocess.Popen(["sleep", "100"]), ours, tmp_path / "way-out.log"))
        return cast(WayOut, found[-1])

    monkeypatch.setattr(internet.way_out, "find", lambda: "passt")
    monkeypatch.setattr(internet.way_out, "check_route", lambda: None)
    monkeypatch.setattr(internet.WayOut, "start", start)
    monkeypatch.setattr(internet, "FIRST_SECONDS", 0.001)
    return found


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that comes soon."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


def kill(begun: list[WayOut | str]) -> None:
    """End the program of the moment."""
    cast(WayOut, begun[-1]).process.kill()


def test_it_is_begun_again_and_ends_when_told(begun: list[WayOut | str], tmp_path: Path) -> None:
    async def work() -> None:
        found, plane = Internet("", "192.168.9.1", None, None), Plane()
        outlet = Outlet(cast(PlaneClient, plane), GUEST, tmp_path, found)
        await outlet.open()
        assert (found.program, found.ready, found.ended) == ("passt", True, 0)
        for times in (1, 2):
            kill(begun)
            await until(lambda times=times: found.ready and found.ended == times)  # type: ignore[misc]
            assert found.reason == "passt was killed by SIGKILL"
        assert plane.taken == len(begun) == 3
        await outlet.close()
        assert {cast(WayOut, one).process.returncode for one in begun} == {-signal.SIGKILL, -signal.SIGTERM}
        assert found.ended == 2, "what was asked to end has not ended by itself"

    asyncio.run(work())


def test_what_does_not_begin_is_tried_ever_less_often_and_told_once(
    begun: list[WayOut | str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    wait_for = asyncio.wait_for

    def noting(waiting: object, seconds: float) -> object:
        pauses.append(seconds)
        return wait_for(waiting, seconds)  # type: ignore[arg-type]

    monkeypatch.setattr(internet.asyncio, "wait_for", noting)

    async def work() -> None:
        found = Internet("", "192.168.9.1", None, None)
        outlet = Outlet(cast(PlaneClient, Plane()), GUEST, tmp_path, found)
        await outlet.open()
        running = cast(WayOut, begun[-1])
        begun.append("there is no way any more")
        running.process.kill()
        await until(lambda: len(begun) > 6)
        assert (found.ready, found.ended, found.reason) == (False, 1, "--internet: there is no way any more")
        assert pauses[:4] == [0.001, 0.002, 0.004, 0.008]
        del begun[:]
        await until(lambda: found.ready)
        await outlet.close()

    asyncio.run(work())
    assert capsys.readouterr().out.splitlines() == [
        "the way to the outside is closed: passt was killed by SIGKILL; it is begun again",
        "the way to the outside is closed: --internet: there is no way any more; it is begun again",
        "the way to the outside is open again, by passt",
    ]


def test_it_closes_while_it_waits_to_begin_again(
    begun: list[WayOut | str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(internet, "FIRST_SECONDS", 1000.0)

    async def work() -> None:
        found = Internet("", "192.168.9.1", None, None)
        outlet = Outlet(cast(PlaneClient, Plane()), GUEST, tmp_path, found)
        await outlet.open()
        kill(begun)
        await until(lambda: not found.ready)
        async with asyncio.timeout(30):
            await outlet.close()

    asyncio.run(work())
