"""Where programs of the machine are."""

from __future__ import annotations

import shutil


def find(program: str) -> str | None:
    """A program of the PATH, or of the folders that only root has in its PATH; None where there is none."""
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin:/usr/local/sbin")
