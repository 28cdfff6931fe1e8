"""What files a sandbox's programs see.

The shared view is the machine's own files, with a /proc, a /sys and a few files of /etc
laid over them, in a mount namespace that nothing leaks out of.

An isolated root is a file system of its own in memory, of limited size. Each top-level
folder of the machine is there as an overlay: programs may change it, and the machine
does not notice. (One overlay of `/` as a whole is refused by the kernel.) /home and
/root are empty, /run, /tmp and /dev are new, so that no socket, no device and no
secret of a home is within reach. What kernel interfaces would still let root's uid harm
the machine is read-only; the capability to undo that is withheld from programs there
(`CONTAINER_CAPABILITIES`), since a lab of root maps root's uid to itself.

Rule of this file: nothing of the machine is written or created, not even an empty file
to mount upon; what cannot be laid over anything is left out of the shared view.

An isolated root adds 1.6 ms to a sandbox as root and 1.2 ms as an ordinary user (two cores,
eight top-level folders; measured side by side with the shared view).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Mapping, Sequence
from typing import Any

from emunet.linux import syscalls, within

Bind = tuple[str, str, bool, str, bool, str]
"""(source, target, read only, within, file, volume) of a `BindSpec`."""

_PLAIN = syscalls.MS_NOSUID | syscalls.MS_NODEV
_NO_PROGRAMS = _PLAIN | syscalls.MS_NOEXEC
_FILES = "emunet-files"
_ROOT = "emunet-root"
_FILES_SIZE = 1 << 20
_BENCH = "/tmp"
"""A folder that every machine has; a file system is mounted over it for a moment, in our own namespace."""

AS_BYTES: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}
"""How the texts of files become bytes: all of them can, those of a config map that are no text too."""

_ESCAPES = (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\"))
"""As paths stand in mountinfo (proc_pid_mountinfo(5)). No codec of Python's, which would come from the pod's files."""

_EMPTY = {"home": 0o755, "root": 0o700, "run": 0o755, "tmp": 0o1777, "mnt": 0o755, "media": 0o755}
_NOT_SHOWN = {*_EMPTY, "proc", "sys", "dev", "boot", "lost+found", "snap"}
_DESCENT_MAX = 2
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_DEVICE_LINKS = {
    "ptmx": "pts/ptmx",
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
}
_PROC_READ_ONLY = ("acpi", "asound", "bus", "driver", "fs", "irq", "mtrr", "scsi", "sys", "sysrq-trigger")
"""Where a uid 0 that is the machine's own may write whatever its capabilities are (docker's list, and a few more)."""

CONTAINER_CAPABILITIES = frozenset(
    (
        *(0, 1, 3, 4, 5, 6, 7, 8),  # chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap
        *(10, 12, 13),  # net_bind_service, net_admin, net_raw
        *(18, 29, 31),  # sys_chroot, audit_write, setfcap
    )
)
"""What a program in an isolated root may do: docker's default (but mknod, which is refused anyway), and net_admin."""


def mount_kernel_views() -> None:
    """Fresh /proc and /sys, which show this process's own PID and network namespace."""
    mount_proc("/proc")
    # Read-only as in docker; and inside a container, where /sys is so, no other is allowed (mount_too_revealing).
    syscalls.mount("sysfs", "/sys", "sysfs", _NO_PROGRAMS | syscalls.MS_RDONLY)


def mount_proc(target: str) -> None:
    """A /proc that shows this process's PID namespace."""
    syscalls.mount("proc", target, "proc", _NO_PROGRAMS)


def hold_store(folder: str, size: int) -> None:
    """Make a folder one of a lab's own, in memory and of limited size: it ends with this mount namespace."""
    syscalls.mount("emunet-store", folder, "tmpfs", _PLAIN, f"size={size},mode=0755")


def enter(
    root: str, size: int, files: dict[str, str], binds: Sequence[Bind] = (), modes: Mapping[str, int] | None = None
) -> int | None:
    """Give this process's mount namespace the root that `SandboxSpec` asks for.

    `binds` are as `BindSpec.encode` gives them, `modes` are of files that do not have 0644. For an isolated root it
    gives the descriptor of another mount namespace: the shared view.
    """
    lay_files_over(files)
    if root == "shared":
        return None
    shared_view = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    syscalls.unshare(syscalls.CLONE_NEWNS)
    only_read = _isolate(size, binds)
    for path, text in files.items():
        _write_file(path, text, (modes or {}).get(path, 0o644))
    for path in only_read:
        syscalls.set_read_only(path)
    return shared_view


def lay_files_over(files: dict[str, str]) -> None:
    """Show these texts at these paths, where the machine has a file to lay them over."""
    if not files:
        return
    syscalls.mount(_FILES, _BENCH, "tmpfs", _NO_PROGRAMS, f"size={_FILES_SIZE},mode=0755")
    for number, (path, text) in enumerate(files.items()):
        source = f"{_BENCH}/{number}"
        with open(source, "w", **AS_BYTES) as file:
            file.write(text)
        os.chmod(source, 0o644)
        if os.path.isfile(path):  # through a symbolic link too, as mount(2) goes
            syscalls.bind(source, path)
    syscalls.unmount(_BENCH)  # what is bound stays; /tmp is the machine's again


def rewrite_files(files: dict[str, str], isolated: bool, modes: Mapping[str, int] | None = None) -> None:
    """Put other texts in the place of files that `enter` laid over or wrote, in the mount namespace that we are in.

    A file that is the machine's own is left alone: in the shared view, one that nothing could be laid over. For an
    isolated root this process has a copy of the namespace from then on, in which it may write to volumes that the
    sandbox's own programs can only read.
    """
    laid_over = set()
    volumes = []
    with open("/proc/self/mountinfo") as mounts:
        for line in mounts:
            before, _, after = line.partition(" - ")
            point, options = before.split()[4:6]
            for escape, character in _ESCAPES:
                point = point.replace(escape, character)
            if after.split()[1] == _FILES:
                laid_over.add(point)
            elif after.split()[1] == _ROOT and "ro" in options.split(","):
                volumes.append(point)
    if isolated and volumes:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        for point in volumes:
            syscalls.set_read_only(point, False)
    for path, text in files.items():
        target = os.path.realpath(path)
        if target in laid_over:
            with open(target, "w", **AS_BYTES) as file:
                file.write(text)
        elif isolated:
            _write_file(path, text, (modes or {}).get(path, 0o644))


def protect_proc() -> None:
    """Make read-only what in /proc is the machine's rather than this sandbox's. /proc/sys/net is the sandbox's own."""
    if not _root_is_the_machines():
        return
    for name in _PROC_READ_ONLY:
        path = f"/proc/{name}"
        if os.path.exists(path):
            syscalls.bind(path, path)
            syscalls.set_read_only(path)
    syscalls.bind("/proc/sys/net", "/proc/sys/net")
    syscalls.set_read_only("/proc/sys/net", False)


def _root_is_the_machines() -> bool:
    """True where uid 0 here is uid 0 of the machine, or of the container that we run in."""
    with open("/proc/self/uid_map") as file:
        return any(line.split()[:2] == ["0", "0"] for line in file)


def _isolate(size: int, binds: Sequence[Bind]) -> list[str]:
    """Make the new root this process's own; the paths in it of volumes that are to be made read-only."""
    # Held open by now: what is below our bench cannot be named once that is mounted.
    sources = {
        target: within.open_within(base, source, file=file) if base else os.open(source, os.O_PATH | os.O_CLOEXEC)
        for source, target, _, base, file, volume in binds
        if not volume
    }
    syscalls.mount(_ROOT, _BENCH, "tmpfs", _PLAIN, f"size={size},mode=0755")
    new = f"{_BENCH}/root"
    layers = _Layers(f"{_BENCH}/layers")
    os.mkdir(new, 0o755)
    # The root proper is one folder of that file system: so what overlays keep beside it stays out of sight.
    syscalls.bind(new, new)
    for entry in os.scandir("/"):
        target = f"{new}/{entry.name}"
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), target)
        elif entry.name not in _NOT_SHOWN and os.path.isdir(entry.path):  # False too for another user's FUSE
            os.mkdir(target, 0o755)
            layers.show(entry.path, target, _DESCENT_MAX)
    for name, mode in _EMPTY.items():
        if not os.path.lexists(f"{new}/{name}"):
            os.mkdir(f"{new}/{name}")
            os.chmod(f"{new}/{name}", mode)
    _make_devices(f"{new}/dev")
    for name in ("proc", "sys"):
        os.mkdir(f"{new}/{name}")
        syscalls.bind(f"/{name}", f"{new}/{name}")
    only_read = []
    for source, target, read_only, _, _, volume in binds:
        descriptor = sources[target] if not volume else _open_volume(f"{_BENCH}/volumes", volume, source)
        path = _bind_into(f"/proc/self/fd/{descriptor}", new, target, read_only and not volume)
        os.close(descriptor)
        if read_only and volume:
            only_read.append(path.removeprefix(new))
    os.chdir(new)
    syscalls.pivot_root(".", ".")  # the old root is now mounted over the new one, at the same place (pivot_root(2))
    syscalls.unmount(".")
    os.chdir("/")
    protect_proc()
    return only_read


def _open_volume(folder: str, name: str, part: str) -> int:
    """A descriptor of a folder in one of the root's own volumes, which anybody may write to, as a kubelet makes it."""
    place = f"{folder}/{name}"
    os.makedirs(place, exist_ok=True)
    os.chmod(place, 0o777)
    return within.open_within(place, part)


def _bind_into(source: str, root: str, target: str, read_only: bool) -> str:
    """Show a folder or a file of the machine at a path of the new root, whose links lead into that root.

    Gives the path without links, as it is named now.
    """
    place = within.open_within(root, target, file=not os.path.isdir(source))
    path = os.readlink(f"/proc/self/fd/{place}")  # no link is left in it, and nobody else is here to put one there
    os.close(place)
    syscalls.bind(source, path)
    if read_only:
        syscalls.set_read_only(path)
    return path


class _Layers:
    """Folders of the machine as they shall appear in the new root, and where their changes are kept."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._count = 0
        os.mkdir(folder)
        # As mountinfo writes them; one with a space or the like in its name is just not recognised.
        with open("/proc/self/mountinfo") as file:
            self._mount_points = [line.split()[4] for line in file]

    def show(self, path: str, target: str, descents: int) -> None:
        """Show a folder: as an overlay; or, where the kernel refuses that, piece by piece; or else to be read."""
        if self._overlay(path, target):
            return
        # An overlay may not uncover what lies below a mount: in a container /etc/hosts is one, elsewhere something
        # below /var. Then its neighbours are shown one by one.
        mounted_below = any(point.startswith(path + "/") for point in self._mount_points)
        if mounted_below and path not in self._mount_points and descents > 0:
            self._pieces(path, target, descents - 1)
        else:
            syscalls.bind(path, target)
            syscalls.set_read_only(target)

    def _overlay(self, path: str, target: str) -> bool:
        upper, work = f"{self._folder}/{self._count}", f"{self._folder}/{self._count}-work"
        self._count += 1
        for made in (upper, work):
            os.mkdir(made)
        os.chmod(upper, stat.S_IMODE(os.stat(path).st_mode))  # the merged folder has the upper one's mode and owner
        options = f"lowerdir={path},upperdir={upper},workdir={work}"
        # Within a user namespace an overlay keeps its notes in user. attributes (Linux 5.11).
        for more in (",userxattr", ""):
            try:
                syscalls.mount("overlay", target, "overlay", _PLAIN, options + more)
            except OSError:
                continue
            return True
        return False

    def _pieces(self, path: str, target: str, descents: int) -> None:
        try:
            entries = list(os.scandir(path))
        except PermissionError:  # closed to this user, and so empty here
            return
        for entry in entries:
            shown = f"{target}/{entry.name}"
            if entry.is_symlink():
                os.symlink(os.readlink(entry.path), shown)
            elif os.path.isdir(entry.path):
                os.mkdir(shown)
                self.show(entry.path, shown, descents)
            elif entry.is_file():
                with contextlib.suppress(OSError):  # not for this user to read, or too long for this root
                    _copy(entry.path, shown)
        os.chmod(target, stat.S_IMODE(os.stat(path).st_mode))


def _copy(source: str, target: str) -> None:
    with open(source, "rb") as original, open(target, "wb") as copy:
        while piece := original.read(1 << 16):
            copy.write(piece)
    os.chmod(target, stat.S_IMODE(os.stat(source).st_mode))


def _make_devices(folder: str) -> None:
    os.mkdir(folder, 0o755)
    for name in _DEVICES:
        with open(f"{folder}/{name}", "w"):
            pass
        syscalls.bind(f"/dev/{name}", f"{folder}/{name}")  # nodes cannot be made in a user namespace
    for name, target in _DEVICE_LINKS.items():
        os.symlink(target, f"{folder}/{name}")
    for name in ("pts", "shm"):
        os.mkdir(f"{folder}/{name}")
    os.chmod(f"{folder}/shm", 0o1777)  # in the root's own file system, and so within its size
    # An instance of its own: the machine's terminals are not here.
    syscalls.mount(
        "devpts", f"{folder}/pts", "devpts", _NO_PROGRAMS ^ syscalls.MS_NODEV, "newinstance,ptmxmode=0666,mode=0620"
    )


def _write_file(path: str, text: str, mode: int = 0o644) -> None:
    """Put a file at a path of this root, in place of what is there; a symbolic link is not followed."""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if os.path.lexists(path):
            os.unlink(path)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except OSError as error:
        # In a folder that can only be read it is laid over the machine's own, as in the shared view.
        if error.errno in (errno.EROFS, errno.EBUSY):
            return
        raise OSError(error.errno, f"writing {path} in an isolated root: {error.strerror}") from None
    with open(descriptor, "w", **AS_BYTES) as file:
        os.fchmod(descriptor, mode)  # whatever the umask is
        file.write(text)
