"""A recording of a running lab: control opens the file, the data plane writes it.

Rule of this file: nothing is left of a file that could not be begun but an error with its name.
"""

from __future__ import annotations

import os
from typing import Any

from emunet.daemon.plane_client import PlaneClient


async def record(plane: PlaneClient, file: str) -> dict[str, Any]:
    """Record what comes into a lab from now on. The file's name is absolute."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ValueError(f"cannot write {file}: {error.strerror or error}") from None
    try:
        done: dict[str, Any] = await plane.ask("record", [descriptor])
    finally:
        os.close(descriptor)
    return done
