"""A path as somebody sees it for whom a folder is the root of everything.

Symbolic links inside may say what they like: they lead nowhere else. So what a pod puts into a folder that it
shares does not show the next one the machine's own files.

Rule of this file: no path is handed to the kernel whole; each step is taken from a descriptor.
"""

from __future__ import annotations

import contextlib
import errno
import os

_LINKS_MAX = 40
"""As many as the kernel follows (path_resolution(7))."""


def open_within(root: str, path: str, *, file: bool = False) -> int:
    """A descriptor (O_PATH) of a folder, or of a `file`, below a root; what is missing on the way is made. OSError."""
    stack = [os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)]
    todo = path.split("/")[::-1]
    links = 0
    try:
        while todo:
            name = todo.pop()
            if name in ("", "."):
                continue
            if name == "..":
                if len(stack) > 1:
                    os.close(stack.pop())
                continue
            is_last = not any(todo)
            link = _link_of(name, stack[-1])
            if link is None:
                stack.append(_step(name, stack[-1], file=file and is_last))
                continue
            links += 1
            if links > _LINKS_MAX:
                raise OSError(errno.ELOOP, f"{path}: too many symbolic links")
            if link.startswith("/"):
                while len(stack) > 1:
                    os.close(stack.pop())
            todo += link.split("/")[::-1]
        return stack.pop()
    finally:
        for descriptor in stack:
            os.close(descriptor)


def _link_of(name: str, folder: int) -> str | None:
    try:
        return os.readlink(name, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):  # no link, or nothing at all
            return None
        raise


def _step(name: str, above: int, *, file: bool) -> int:
    with contextlib.suppress(FileExistsError):
        if file:
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=above))
        else:
            os.mkdir(name, 0o755, dir_fd=above)
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC | (0 if file else os.O_DIRECTORY)
    return os.open(name, flags, dir_fd=above)
