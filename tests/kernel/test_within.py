"""Paths below a root: links and dots lead nowhere else, and what is missing is made there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from emunet.linux.within import open_within


def place(root: Path, path: str, *, file: bool = False) -> str:
    """Where a path leads, as the root sees it."""
    descriptor = open_within(str(root), path, file=file)
    found = os.readlink(f"/proc/self/fd/{descriptor}")
    os.close(descriptor)
    assert found == str(root) or found.startswith(f"{root}/")
    return found.removeprefix(str(root)) or "/"


def test_links_and_dots_stay_inside(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    root = tmp_path / "root"
    (root / "absolute").symlink_to("/etc")
    (root / "up").symlink_to("../../../..")
    (root / "chain").symlink_to("absolute/deep")
    (root / "loop").symlink_to("loop")
    assert place(root, "/a/b/c") == "/a/b/c"
    assert place(root, "/a/../../../x") == "/x"
    assert place(root, "absolute/hosts", file=True) == "/etc/hosts"
    assert (root / "etc" / "hosts").is_file()
    assert place(root, "up/y") == "/y"
    assert place(root, "chain") == "/etc/deep"
    assert place(root, "/") == "/"
    with pytest.raises(OSError, match="too many symbolic links"):
        open_within(str(root), "loop")
    with pytest.raises(NotADirectoryError):
        open_within(str(root), "etc/hosts/more")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["root"]


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        os.close(open_within(str(tmp_path), "/a/b/../c"))
    assert len(os.listdir("/proc/self/fd")) == before
