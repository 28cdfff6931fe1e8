"""An ordinary user for tests: nobody, with all that one finds on most machines, and labs of its own.

Only root can become another user; run by anybody else, the tests are an ordinary user's already.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab_driver import ROOT, Labs

from emunet.linux import syscalls

NOBODY = 65534
WHO = ("root", "user") if os.geteuid() == 0 else ("user",)
"""Parameters of a test of both."""


def private_mounts() -> None:
    """From here on, what this process mounts is seen by nobody else."""
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("", "/", None, syscalls.MS_REC | syscalls.MS_SLAVE)


def become_nobody(tun_mode: int | None = 0o666) -> None:
    """Leave root behind, in a mount namespace where an ordinary user finds what is usual.

    /dev/net/tun has the mode that most distributions give it, or another; with None there is none.
    """
    private_mounts()
    os.umask(0)
    syscalls.mount("tmpfs", "/mnt", "tmpfs", 0, "mode=0755")
    if tun_mode is None:
        syscalls.mount("tmpfs", "/dev/net", "tmpfs", 0, "mode=0755")
    else:
        os.mknod("/mnt/tun", stat.S_IFCHR | tun_mode, os.makedev(10, 200))
        syscalls.bind("/mnt/tun", "/dev/net/tun")
    for needed in (Path(sys.base_prefix), Path(sys.prefix), ROOT):
        show_to_all(needed)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def become_nobody_with_ids() -> None:
    """The same, with a range of subordinate ids of its own."""
    private_mounts()
    syscalls.mount("tmpfs", "/mnt", "tmpfs", 0, "mode=0755")
    Path("/mnt/ids").write_text(f"{NOBODY}:300000:65536\n")
    for table in ("/etc/subuid", "/etc/subgid"):
        syscalls.bind("/mnt/ids", table)
    become_nobody()


def show_to_all(folder: Path) -> None:
    """Make a folder reachable that lies below one closed to others (a Python below root's own home)."""
    for above in reversed(folder.parents):
        if above.stat().st_mode & 0o005 != 0o005:
            held = os.open(folder, os.O_PATH)
            syscalls.mount("tmpfs", str(above), "tmpfs", 0, "mode=0755")
            folder.mkdir(parents=True)
            syscalls.bind(f"/proc/self/fd/{held}", str(folder))
            os.close(held)
            return


class UsersLabs(Labs):
    """Labs of an ordinary user."""

    def run(
        self, *arguments: str, timeout: float = 60, command: list[str] | None = None, **how: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, as that user."""
        return super().run(*arguments, timeout=timeout, command=command, **({"preexec_fn": become_nobody} | how))

    def start(self, *arguments: str, **how: Any) -> subprocess.Popen[str]:
        """A command left running, as that user."""
        return super().start(*arguments, **({"preexec_fn": become_nobody} | how))


@contextmanager
def labs_of(who: str) -> Iterator[Labs]:
    """Labs of `root` or of an ordinary `user`, in a folder of theirs, which is gone afterwards."""
    # pytest's own are closed to other users. No name like those that a lab's processes might leave, see test_keeper.
    folder = Path(tempfile.mkdtemp(prefix="labs-"))
    as_user = who == "user" and os.geteuid() == 0
    made = UsersLabs(folder / "run") if as_user else Labs(folder / "run")
    made.folder.mkdir(mode=0o700)
    if as_user:
        os.chmod(folder, 0o755)
        for path in (folder, made.folder):
            os.chown(path, NOBODY, NOBODY)
    try:
        yield made
    finally:
        try:
            made.leave()
        finally:
            shutil.rmtree(folder)
