"""The other end of `api.sock`: a lab as the CLI sees it.

Rule of this file: the standard library only, loaded when a question is asked, so that a
command that asks nothing starts at once. Whatever goes wrong is a `LabError`: a sentence
that says what to do.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any
from urllib.parse import quote

from emunet.daemon.folder import FolderError, RunFolder, folder_of, running_labs, try_hold

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
    if folder.is_held():
        try:
            LabClient(folder).ask("POST", ("down",), {}, timeout=DOWN_SECONDS)
        except LabError:
            _kill_holder(folder)
    deadline = time.monotonic() + _ENDING_SECONDS
    while (held := try_hold(folder)) is None:
        if time.monotonic() > deadline:
            holder = folder.holder()
            who = f"process {holder[0]}" if holder is not None else "a process"
            raise LabError(f"the lab {folder.name} does not end: {who} still holds {folder.path}")
        time.sleep(0.005)
    held.remove()
    return True


def _kill_holder(folder: RunFolder) -> None:
    """Kill the control process of a lab that does not end when asked; the kernel ends all the rest."""
    holder = folder.holder()
    if holder is None:
        return
    pid, start_time = holder
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            born = int(file.read().rpartition(b")")[2].split()[19])
        if born == start_time and folder.is_held():
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except OSError:  # it has ended meanwhile
        pass
    finally:
        os.close(pidfd)


__all__ = ["LabClient", "LabError", "end_lab", "find_lab"]
