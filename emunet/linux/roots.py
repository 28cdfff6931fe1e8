"""What files a sandbox's programs see.

The shared view is the machine's own files, with a /proc, a /sys and a few files of /etc
laid over them, in a mount namespace that nothing leaks out of.

Rule of this file: nothing of the machine is written or created, not even an empty file
to mount upon; what cannot be laid over anything is left out of the shared view.
"""

from __future__ import annotations

import os

from emunet.linux import syscalls

_NO_PROGRAMS = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
_FILES_SIZE = 1 << 20
_BENCH = "/tmp"
"""A folder that every machine has; a file system is mounted over it for a moment, in our own namespace."""


def mount_kernel_views() -> None:
    """Fresh /proc and /sys, which show this process's own PID and network namespace."""
    syscalls.mount("proc", "/proc", "proc", _NO_PROGRAMS)
    # Read-only as in docker; and inside a container, where /sys is so, no other is allowed (mount_too_revealing).
    syscalls.mount("sysfs", "/sys", "sysfs", _NO_PROGRAMS | syscalls.MS_RDONLY)


def enter(root: str, size: int, files: dict[str, str]) -> int | None:
    """Give this process's mount namespace the root that `SandboxSpec` asks for.

    For an isolated one, the descriptor of another mount namespace: the shared view.
    """
    lay_files_over(files)
    return None


def lay_files_over(files: dict[str, str]) -> None:
    """Show these texts at these paths, where the machine has a file to lay them over."""
    if not files:
        return
    syscalls.mount("emunet-files", _BENCH, "tmpfs", _NO_PROGRAMS, f"size={_FILES_SIZE},mode=0755")
    for number, (path, text) in enumerate(files.items()):
        source = f"{_BENCH}/{number}"
        with open(source, "w") as file:
            file.write(text)
        os.chmod(source, 0o644)
        if os.path.isfile(path):  # through a symbolic link too, as mount(2) goes
            syscalls.bind(source, path)
    syscalls.unmount(_BENCH)  # what is bound stays; /tmp is the machine's again
