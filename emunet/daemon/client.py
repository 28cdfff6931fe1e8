"""The other end of `api.sock`: a lab as the CLI sees it.

Rule of this file: the standard library only, loaded when a question is asked, so that a
command that asks nothing starts at once. Whatever goes wrong is a `LabError`: a sentence
that says what to do.
"""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from emunet.daemon.folder import FolderError, HeldFolder, RunFolder, folder_of, running_labs, try_hold

DOWN_SECONDS = 10.0
_ENDING_SECONDS = 10.0
_BEGINNING_SECONDS = 5.0


class LabError(Exception):
    """The lab is not there, or cannot do what was asked: a sentence."""


class LabClient:
    """A running lab that takes questions."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    @property
    def name(self) -> str:
        """The lab's name."""
        return self.folder.name

    def get(self, *path: str) -> Any:
        """The answer to a GET of the path whose parts these are."""
        return self.ask("GET", path)

    def post(self, *path: str, **body: Any) -> Any:
        """The answer to a POST with these fields."""
        return self.ask("POST", path, body)

    def put(self, *path: str, **body: Any) -> Any:
        """The answer to a PUT with these fields."""
        return self.ask("PUT", path, body)

    def ask(self, method: str, path: tuple[str, ...], body: Any = None, timeout: float | None = None) -> Any:
        """The answer to a question. LabError with the lab's own sentence where it refuses."""
        from emunet.daemon import unix_http

        target = "/" + "/".join(quote(part, safe="/") for part in path)
        try:
            status, answer = unix_http.ask(self.folder.api, method, target, body, timeout)
        except (FileNotFoundError, ConnectionRefusedError):
            raise LabError(self._why_no_answer()) from None
        except TimeoutError:
            raise LabError(f"the lab {self.name} has not answered within {timeout:.0f} s") from None
        except OSError as error:
            raise LabError(f"the lab {self.name} ended before it answered ({error})") from None
        if status >= 400:
            raise LabError(answer["error"])
        return answer

    def _why_no_answer(self) -> str:
        if self.folder.is_held():
            return f"the lab {self.name} is just beginning or ending: try again in a moment"
        last = ""
        if self.folder.log.exists():
            lines = self.folder.log.read_text(errors="replace").splitlines()
            last = f"; its last words: {lines[-1]} (more in {self.folder.log})" if lines else ""
        return f"the lab {self.name} is not running{last}: `emunet up` starts one"


def find_lab(name: str | None) -> LabClient:
    """The lab of that name, or the only one that is running."""
    try:
        if name is not None:
            return LabClient(folder_of(name))
        running = running_labs()
    except FolderError as error:
        raise LabError(str(error)) from None
    if not running:
        raise LabError("no lab is running: `emunet up` starts one")
    if len(running) > 1:
        names = ", ".join(folder.name for folder in running)
        raise LabError(f"{len(running)} labs are running ({names}): say which one with --lab NAME")
    return LabClient(running[0])


def end_lab(folder: RunFolder) -> bool:
    """End a lab, by force if need be, and wait until it is gone; False where there was none, not even remains."""
    if not folder.path.is_dir():
        return False
    deadline = time.monotonic() + _BEGINNING_SECONDS
    while folder.is_held() and not folder.answers() and time.monotonic() < deadline:
        time.sleep(0.02)  # it has begun or is ending
    holder = _Holder(folder)
    try:
        if folder.is_held():
            try:
                LabClient(folder).ask("POST", ("down",), {}, timeout=DOWN_SECONDS)
            except LabError:
                if folder.is_held():
                    holder.kill()  # the kernel ends all the rest
        held = holder.wait(_ENDING_SECONDS)
    finally:
        holder.close()
    if held is None:
        raise LabError(f"the lab {folder.name} does not end: process {holder.pid} still holds {folder.path}")
    held.remove()
    return True


class _Holder:
    """The process that holds a run folder, known so that it is no other that got its number later."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.pid = 0
        self._pidfd: int | None = None
        known = folder.holder()
        if known is None:
            return
        self.pid, start_time = known
        try:
            self._pidfd = os.pidfd_open(self.pid)
            with open(f"/proc/{self.pid}/stat", "rb") as file:
                born = int(file.read().rpartition(b")")[2].split()[19])
        except OSError:
            born = -1
        if born != start_time:
            self.close()

    def kill(self) -> None:
        """Kill it, if it is still there."""
        if self._pidfd is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def wait(self, seconds: float) -> HeldFolder | None:
        """Wait until it has ended; the folder, which is ours then, or None where that takes too long."""
        deadline = time.monotonic() + seconds
        if self._pidfd is not None:
            poller = select.poll()
            poller.register(self._pidfd, select.POLLIN)
            if not poller.poll(seconds * 1000):
                return None
        while (held := try_hold(self.folder)) is None and time.monotonic() < deadline:
            time.sleep(0.005)
        return held

    def close(self) -> None:
        """Forget it."""
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None


__all__ = ["LabClient", "LabError", "end_lab", "find_lab"]
