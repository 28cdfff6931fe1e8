"""How `emunet up` begins a lab: a control process, and a lifeline to it until the lab is ready.

The lifeline is a socket pair. Down it goes one line, the `Settings`; back come lines of what
is done and what went wrong. Until control has said `ready` it ends, with all it has made,
as soon as the lifeline closes: so Ctrl-C or kill -9 of `emunet up` leaves no half-built lab.

Rule of this file: it is loaded by `emunet up`, and first of all by control, so it loads little.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from emunet.daemon.settings import Settings

_ENDING_SECONDS = 30.0


class StartFailed(Exception):
    """The lab could not be made; nothing of it is left. The text is for the person as it is."""


def start(settings: Settings, tell: Callable[[str, str], None]) -> dict[str, Any]:
    """Begin a lab, and return what it says of itself once every pod is ready. StartFailed, with the reason, else.

    `tell(kind, text)` hears of each `progress` and `warning`.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            python_program("emunet.daemon", str(theirs.fileno())),
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),  # until it has a log of its own, what it says is for us to see
            cwd=settings.directory,
            env=python_environment(),
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
    try:
        with contextlib.suppress(ConnectionError):  # it died
            ours.sendall(settings.encode().encode() + b"\n")
            with ours.makefile("r") as lines:
                for line in lines:
                    message = json.loads(line)
                    if "error" in message:
                        raise StartFailed(message["error"])
                    if "ready" in message:
                        ready: dict[str, Any] = message["ready"]
                        return ready
                    for kind, text in message.items():
                        tell(kind, text)
    except BaseException:
        ours.close()  # which is what ends it, if it has not ended yet
        _see_off(process)
        raise
    finally:
        ours.close()
    code = process.wait()
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
    raise StartFailed(f"the control process {how} before the lab was ready; what it said, if anything, is above")


def launch_plane() -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start a plane process; it, and our end of its socket. `begin` must be the first thing said to it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        program = python_program("emunet.daemon.plane_process", str(theirs.fileno()))
        process = subprocess.Popen(
            program, stdin=subprocess.DEVNULL, env=python_environment(), pass_fds=[theirs.fileno()]
        )
    return process, ours


def python_program(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of emunet as a program, whatever lies in the current folder."""
    return [sys.executable, "-P", "-m", module, *arguments]


def python_environment() -> dict[str, str]:
    """The environment in which such a program finds emunet, even where it runs from a clone that is not installed."""
    root = Path(__file__).parents[2]
    environment = dict(os.environ)
    if (root / "pyproject.toml").exists():
        paths = [environment["PYTHONPATH"]] if environment.get("PYTHONPATH") else []
        environment["PYTHONPATH"] = os.pathsep.join([str(root), *paths])
    return environment


def _see_off(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_ENDING_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
