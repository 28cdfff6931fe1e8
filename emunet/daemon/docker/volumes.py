"""Volumes of containers: folders of the lab's own, and nothing else of the machine.

`-v data:/srv` is a folder that the engine keeps as long as the lab runs; `-v /path:/srv` may name what is
inside the lab's own folder. What a container could do to any other folder of the machine would outlive the lab.

Rule of this file: it says what is to be bound where, and makes the folders of named volumes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emunet.cluster.docker.networks import Refused
from emunet.linux.specification import BindSpec

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


def read_binds(folder: Path, host_config: dict[str, Any]) -> tuple[BindSpec, ...]:
    """What `-v` and `--mount` ask for. `folder` is the lab's own. Refused."""
    return tuple(_bind(folder, *row) for row in _rows(host_config))


def _rows(host_config: dict[str, Any]) -> Iterator[tuple[str, str, bool]]:
    for text in host_config.get("Binds") or ():
        source, _, rest = str(text).partition(":")
        target, _, mode = rest.partition(":")
        yield source, target, "ro" in mode.split(",")
    for mount in host_config.get("Mounts") or ():
        if mount.get("Type") == "tmpfs":
            continue  # all of a container's root is in memory
        yield str(mount.get("Source") or ""), str(mount.get("Target") or ""), bool(mount.get("ReadOnly"))


def _bind(folder: Path, source: str, target: str, read_only: bool) -> BindSpec:
    if not target.startswith("/") or ".." in target.split("/") or target == "/":
        raise Refused(400, f"invalid mount config: invalid mount path: {target!r} must be absolute, and not /")
    if not source.startswith("/"):
        if not _NAME.fullmatch(source):
            raise Refused(400, f'"{source}" includes invalid characters for a local volume name')
        path = volume_folder(folder, source)
        path.mkdir(parents=True, exist_ok=True)
        return BindSpec(os.fspath(path), target, read_only)
    real = os.path.realpath(source)
    if not Path(real).is_relative_to(folder.resolve()):
        raise Refused(400, f"{source} is outside of the lab's own folder: name a volume, or a path below {folder}")
    if not os.path.exists(real):
        raise Refused(400, f'invalid mount config for type "bind": bind source path does not exist: {source}')
    return BindSpec(real, target, read_only)


def volume_folder(folder: Path, name: str) -> Path:
    """Where a named volume is."""
    return folder / "volumes" / name
