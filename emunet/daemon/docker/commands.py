"""Commands, signals and variables as clients name them.

Rule of this file: functions of what a client said and of what this machine has.
"""

from __future__ import annotations

import grp
import os
import pwd
import signal

from emunet.cluster.docker.networks import Refused
from emunet.daemon.docker.record import Record

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def variables_of(found: Record, *, terminal: bool) -> dict[str, str]:
    """The variables that a program of a container begins with."""
    term = {"TERM": "xterm"} if terminal else {}
    return {"PATH": PATH, "HOSTNAME": found.hostname, **term, "HOME": "/root", **found.environment}


def user_of(text: str) -> tuple[int, int] | None:
    """`-u`: `1000`, `1000:100`, `daemon` as this machine knows it; None is root. Refused."""
    name, _, group = text.partition(":")
    if not name:
        return None
    try:
        user, own = (int(name), 0) if name.isdigit() else pwd.getpwnam(name)[2:4]
        return user, (int(group) if group.isdigit() else grp.getgrnam(group).gr_gid) if group else own
    except KeyError:
        raise Refused(400, f"unable to find user {name}: no matching entries in passwd file") from None


def directory_of(found: Record) -> str:
    """Where a program of a container begins."""
    return str(found.body.get("WorkingDir") or "/")


def signal_number(text: str) -> int:
    """`TERM`, `SIGTERM`, `15` -> 15. Refused."""
    if text.isdigit() and 0 < int(text) < signal.NSIG:
        return int(text)
    try:
        return int(signal.Signals[text.upper() if text.upper().startswith("SIG") else f"SIG{text.upper()}"])
    except KeyError:
        raise Refused(400, f"invalid signal: {text}") from None


def missing(command: str, path: str) -> str:
    """Why the command cannot be run, in the words that clients make an exit code of; empty where it can."""
    candidates = [command] if "/" in command else [os.path.join(folder, command) for folder in path.split(":")]
    if any(os.path.isfile(one) and os.access(one, os.X_OK) for one in candidates):
        return ""
    if "/" not in command:
        return f'exec: "{command}": executable file not found in $PATH'
    if os.path.exists(command):
        return f'exec: "{command}": permission denied'
    return f'exec: "{command}": stat {command}: no such file or directory'
