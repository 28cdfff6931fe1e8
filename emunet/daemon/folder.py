"""The run folder of a lab: where its sockets are, who may look into it, and who holds it.

    ROOT/               one for each user
      two-hosts/        one for each lab; locked by its control process as long as that lives
        api.sock        questions, in HTTP (`api`)
        frames.sock     frames (`frames`)
        process         the control process: its pid and start time
        lab.log         what the lab's processes had to say

The lock (flock) is on the folder itself. So a folder and its lock come and go together, two
`emunet up` of one lab meet there, and the kernel lets go of it however its holder ends: what
is found in a folder that nobody holds is left over and may be removed.

Rule of this file: nobody but the lab's owner may enter a folder, and a folder that somebody
else made is refused, never used.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT_VARIABLE = "EMUNET_RUNTIME_DIR"
"""Names another ROOT; tests use it to keep their labs to themselves."""

MARKS = ("api.sock", "frames.sock", "process", "lab.log")
"""One of these at least is in a folder that a lab made and left something in."""

_SOCKET_PATH_MAX = 107
"""Bytes of `sockaddr_un.sun_path` but for its closing zero (unix(7))."""


class FolderError(Exception):
    """The run folder cannot be used: a sentence with the cure."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The place of one lab, whether or not it is there."""

    path: Path

    @property
    def name(self) -> str:
        """The lab's name."""
        return self.path.name

    @property
    def api(self) -> Path:
        """The socket of the API."""
        return self.path / "api.sock"

    @property
    def frames(self) -> Path:
        """The socket of frames."""
        return self.path / "frames.sock"

    @property
    def process(self) -> Path:
        """Which process holds the folder."""
        return self.path / "process"

    @property
    def log(self) -> Path:
        """What the lab's processes had to say."""
        return self.path / "lab.log"

    def is_a_labs(self) -> bool:
        """False where there is something in it that no lab made: a person's own folder, which is left alone."""
        try:
            names = os.listdir(self.path)
        except OSError:
            return True
        return not names or any(mark in names for mark in MARKS)

    def is_held(self) -> bool:
        """True while a lab is running here, beginning or ending."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def answers(self) -> bool:
        """True where a lab takes questions."""
        with socket.socket(socket.AF_UNIX) as asker:
            try:
                asker.connect(os.fspath(self.api))
            except OSError:
                return False
        return True

    def holder(self) -> tuple[int, int] | None:
        """The pid and start time of the process that took the folder last; None where nobody wrote them."""
        try:
            pid, start_time = self.process.read_text().split()
            return int(pid), int(start_time)
        except (OSError, ValueError):
            return None


class HeldFolder:
    """A run folder that is ours, clean, as long as this process lives or until it is let go."""

    def __init__(self, folder: RunFolder, descriptor: int) -> None:
        self.folder = folder
        self._descriptor = descriptor

    def clear(self) -> None:
        """Remove all that is in it, and last of all what says that it is a lab's."""
        for entry in sorted(os.scandir(self._descriptor), key=lambda one: one.name in MARKS):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.name, dir_fd=self._descriptor)
            else:
                self.unlink(entry.name)

    def unlink(self, name: str) -> None:
        """Remove a file of it, if that is there: by its descriptor, since another lab may have its path by now."""
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._descriptor)

    def remove(self) -> None:
        """Remove the folder with all that is in it, and let go of it."""
        with suppress(FileNotFoundError):  # somebody has tidied up
            self.clear()
            if self._is_there():
                os.rmdir(self.folder.path)
        os.close(self._descriptor)

    def lost(self) -> str:
        """Why no command finds the lab here any more: a sentence without its end; empty while it can be found."""
        try:
            if not self._is_there():
                return f"the run folder {self.folder.path} was removed"
            os.stat(self.folder.api.name, dir_fd=self._descriptor)
        except FileNotFoundError:
            return f"the socket {self.folder.api} was removed"
        return ""

    def _is_there(self) -> bool:
        """Whether its path leads to it, and not nowhere, or to what another lab has made there."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.lstat(self.folder.path))
        except (FileNotFoundError, NotADirectoryError):
            return False

    def bind(self, path: Path, kind: socket.SocketKind) -> socket.socket:
        """A listening socket that only the owner may connect to.

        FolderError where its name is too long for Unix, or the folder was removed.
        """
        _fits(path)
        listener = socket.socket(socket.AF_UNIX, kind)
        before = os.umask(0o177)
        try:
            listener.bind(os.fspath(path))
        except FileNotFoundError:
            listener.close()
            raise FolderError(f"the run folder {self.folder.path} was removed while the lab began") from None
        finally:
            os.umask(before)
        listener.listen(128)
        listener.setblocking(False)
        return listener


def runtime_root() -> Path:
    """The folder of this user's labs, made if need be. FolderError where it cannot be trusted."""
    wanted = os.environ.get(ROOT_VARIABLE)
    user = os.geteuid()
    session = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{user}"
    if wanted:
        root = Path(wanted).absolute()
    elif user == 0:
        root = Path("/run/emunet")
    elif os.path.isdir(session) and os.stat(session).st_uid == user:
        root = Path(session, "emunet")
    else:
        root = Path(f"/tmp/emunet-{user}")
    return _private(root)


def folder_of(lab: str) -> RunFolder:
    """The place of a lab. FolderError where its sockets would have names too long for Unix."""
    folder = RunFolder(runtime_root() / lab)
    _fits(folder.frames)
    return folder


def _fits(path: Path) -> None:
    if len(os.fsencode(path)) > _SOCKET_PATH_MAX:
        raise FolderError(
            f"{path} is too long a name for a Unix socket ({_SOCKET_PATH_MAX} bytes at most): "
            f"give the lab or the host a shorter name, or set {ROOT_VARIABLE} to a shorter folder"
        )


def folders() -> Iterator[RunFolder]:
    """The places of all labs of this user, held or left over, by name."""
    root = runtime_root()
    for name in sorted(os.listdir(root)):
        folder = RunFolder(root / name)
        if os.path.isdir(folder.path) and folder.is_a_labs():
            yield folder


def running_labs() -> list[RunFolder]:
    """The labs that are running, beginning or ending."""
    return [folder for folder in folders() if folder.is_held()]


def try_hold(folder: RunFolder) -> HeldFolder | None:
    """Take a run folder, made if need be, with all that was left over in it; None while somebody else holds it.

    FolderError where it is not a lab's.
    """
    if not folder.is_a_labs():
        raise FolderError(
            f"{folder.path} holds something that no lab made, and would be cleared: "
            f"give the lab another name, or set {ROOT_VARIABLE} to a folder for labs alone"
        )
    while True:
        _private(folder.path)
        try:
            descriptor = os.open(folder.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:  # its holder has just removed it
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.lstat(folder.path)):
                return HeldFolder(folder, descriptor)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except FileNotFoundError:
            pass
        os.close(descriptor)  # what we have locked is a folder that was removed meanwhile


def _private(path: Path) -> Path:
    """Make sure that a folder is there, is ours, and is closed to all others."""
    try:
        path.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        pass
    except OSError as error:
        raise FolderError(f"cannot make {path} for the sockets of labs: {error.strerror}") from None
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return path
    if not stat.S_ISDIR(found.st_mode):
        raise FolderError(f"{path} should be a folder for the sockets of labs and is something else: remove it")
    if found.st_uid != os.geteuid():
        raise FolderError(
            f"{path} belongs to user {found.st_uid}, so that its sockets cannot be trusted: "
            f"remove it, or set {ROOT_VARIABLE} to a folder of your own"
        )
    if stat.S_IMODE(found.st_mode) & 0o022:
        raise FolderError(f"others may write into {path}, so that its sockets cannot be trusted: chmod 700 {path}")
    if stat.S_IMODE(found.st_mode) & 0o077:
        os.chmod(path, 0o700)
    return path
