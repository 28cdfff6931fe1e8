"""Run folders: where they are, who may use them, and who holds them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from emunet.daemon import folder
from emunet.daemon.folder import FolderError, folder_of, folders, running_labs, runtime_root, try_hold


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(folder.ROOT_VARIABLE, str(tmp_path / "run"))
    return tmp_path / "run"


def test_the_root_is_made_for_the_owner_only(root: Path) -> None:
    assert runtime_root() == root
    assert root.stat().st_mode & 0o777 == 0o700


def test_an_ordinary_users_root_is_in_the_sessions_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(folder.ROOT_VARIABLE, raising=False)
    user = os.geteuid() or 65534
    with tempfile.TemporaryDirectory() as session:  # pytest's own folders are closed to other users
        os.chown(session, user, -1)
        monkeypatch.setenv("XDG_RUNTIME_DIR", session)
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.setresuid(user, user, user)
                os.write(write, str(runtime_root()).encode())
            finally:
                os._exit(0)
        os.close(write)
        os.waitpid(child, 0)
        assert os.read(read, 4096).decode() == f"{session}/emunet"
        os.close(read)


def test_a_root_that_others_may_write_is_refused(root: Path) -> None:
    root.mkdir()
    root.chmod(0o777)
    with pytest.raises(FolderError, match="others may write into"):
        runtime_root()


def test_a_root_that_others_may_only_read_is_closed_to_them(root: Path) -> None:
    root.mkdir()
    root.chmod(0o755)
    assert runtime_root().stat().st_mode & 0o777 == 0o700


def test_a_root_of_somebody_else_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root.mkdir()
    user = os.geteuid()
    monkeypatch.setattr(folder.os, "geteuid", lambda: user + 1)
    with pytest.raises(FolderError, match="belongs to user"):
        runtime_root()


def test_a_link_or_a_file_in_its_place_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    root.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FolderError, match="is something else"):
        runtime_root()
    root.unlink()
    root.write_text("")
    with pytest.raises(FolderError, match="is something else"):
        runtime_root()


def test_a_name_too_long_for_a_socket_is_refused(root: Path) -> None:
    with pytest.raises(FolderError, match="too long a name for a Unix socket"):
        folder_of("x" * 100)


def test_holding_excludes_others_and_removing_lets_them_in(root: Path) -> None:
    lab = folder_of("lab")
    assert not lab.is_held()
    held = try_hold(lab)
    assert held is not None
    assert lab.is_held()
    assert try_hold(lab) is None
    assert running_labs() == [lab]
    held.remove()
    assert not lab.path.exists()
    again = try_hold(lab)
    assert again is not None
    again.remove()


def test_what_is_left_of_a_killed_holder_is_no_obstacle(root: Path) -> None:
    lab = folder_of("lab")
    script = (
        "import os, signal; from emunet.daemon.folder import *; held = try_hold(folder_of('lab'));"
        "import socket; held.bind(held.folder.api, socket.SOCK_STREAM); os.mkdir(held.folder.path / 'deep');"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", script], check=False)
    assert lab.api.exists()
    assert not lab.is_held()
    assert not lab.answers()
    assert [one.name for one in folders()] == ["lab"]
    assert running_labs() == []
    held = try_hold(lab)
    assert held is not None
    held.clear()
    assert list(lab.path.iterdir()) == []
    held.remove()


def test_a_person_s_own_folder_is_left_alone(root: Path) -> None:
    own = folder_of("thesis")
    own.path.mkdir(mode=0o755)
    (own.path / "chapter.txt").write_text("years of work")
    assert list(folders()) == []
    with pytest.raises(FolderError, match=r"thesis holds something that no lab made"):
        try_hold(own)
    assert (own.path / "chapter.txt").read_text() == "years of work"
    assert own.path.stat().st_mode & 0o777 == 0o755


def test_a_folder_removed_while_we_wait_is_made_anew(root: Path) -> None:
    lab = folder_of("lab")
    first = try_hold(lab)
    assert first is not None
    waiting = os.open(lab.path, os.O_RDONLY | os.O_DIRECTORY)  # somebody is between opening and locking it
    first.remove()
    second = try_hold(lab)
    assert second is not None
    assert lab.is_held()
    os.close(waiting)
    second.remove()


def test_a_folder_that_was_removed_is_missed_and_its_successor_is_left_alone(root: Path) -> None:
    lab = folder_of("lab")
    first = try_hold(lab)
    assert first is not None
    listener = first.bind(lab.api, socket.SOCK_STREAM)
    assert first.lost() == ""
    lab.api.unlink()
    assert first.lost() == f"the socket {lab.api} was removed"
    shutil.rmtree(root)
    assert first.lost() == f"the run folder {lab.path} was removed"
    with pytest.raises(FolderError, match="was removed while the lab began"):
        first.bind(lab.frames, socket.SOCK_STREAM)
    second = try_hold(folder_of("lab"))
    assert second is not None
    successor = second.bind(lab.api, socket.SOCK_STREAM)
    assert first.lost() == f"the run folder {lab.path} was removed"
    first.unlink("api.sock")
    first.remove()
    assert lab.is_held()
    assert second.lost() == ""
    second.remove()
    listener.close()
    successor.close()


def test_a_socket_is_for_the_owner_only_and_says_whether_it_answers(root: Path) -> None:
    held = try_hold(folder_of("lab"))
    assert held is not None
    before = os.umask(0o022)
    os.umask(before)
    listener = held.bind(held.folder.api, socket.SOCK_STREAM)
    assert held.folder.api.stat().st_mode & 0o777 == 0o600
    assert os.umask(before) == before
    assert held.folder.answers()
    listener.close()
    assert not held.folder.answers()
    held.remove()


def test_the_holder_is_known_by_pid_and_start_time(root: Path) -> None:
    lab = folder_of("lab")
    held = try_hold(lab)
    assert held is not None
    assert lab.holder() is None
    lab.process.write_text("12 345\n")
    assert lab.holder() == (12, 345)
    lab.process.write_text("nonsense\n")
    assert lab.holder() is None
    held.remove()
