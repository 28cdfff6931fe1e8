"""`docker version`, `info`, `system df`, `volume`.

Rule of this file: it tells of the lab's host, never of the machine's secrets.
"""

from __future__ import annotations

import os
import platform
import shutil
from typing import TYPE_CHECKING, Any

from emunet import __version__
from emunet.cluster.docker.networks import Refused
from emunet.daemon.docker.record import Body
from emunet.daemon.docker.views import moment
from emunet.daemon.docker.volumes import read_binds, volume_folder

if TYPE_CHECKING:
    from emunet.daemon.docker.server import Asked

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


async def version(asked: Asked) -> Body:
    """`GET /version`."""
    from emunet.daemon.docker.server import API_VERSION, MINIMUM_API_VERSION

    machine = platform.machine()
    facts = {
        "Version": f"emunet-{__version__}",
        "ApiVersion": API_VERSION,
        "MinAPIVersion": MINIMUM_API_VERSION,
        "Os": "linux",
        "Arch": _ARCHITECTURES.get(machine, machine),
        "KernelVersion": platform.release(),
        "GitCommit": "",
        "GoVersion": "",
        "BuildTime": moment(asked.engine.began),
    }
    component = {"Name": "Engine", "Version": facts["Version"], "Details": {
        name: facts[name] for name in ("ApiVersion", "MinAPIVersion", "Os", "Arch", "KernelVersion", "BuildTime")
    }}  # fmt: skip
    return {"Platform": {"Name": "emunet, a lab's host"}, "Components": [component], **facts}


async def info(asked: Asked) -> Body:
    """`GET /info`."""
    engine = asked.engine
    states = [one.state for one in engine.records.values()]
    machine = platform.machine()
    limits = ("MemoryLimit", "SwapLimit", "OomKillDisable", "CpuCfsQuota", "CpuCfsPeriod", "CPUShares", "CPUSet",
              "IPv4Forwarding", "BridgeNfIptables", "BridgeNfIp6tables", "PidsLimit")  # fmt: skip
    return {
        "ID": engine.networks.find("bridge").id,
        "Name": engine.host,
        "ServerVersion": f"emunet-{__version__}",
        "OSType": "linux",
        "Architecture": machine,
        "OperatingSystem": "emunet",
        "KernelVersion": platform.release(),
        "NCPU": os.cpu_count() or 1,
        "MemTotal": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "Containers": len(states),
        "ContainersRunning": states.count("running"),
        "ContainersPaused": states.count("paused"),
        "ContainersStopped": len(states) - states.count("running") - states.count("paused"),
        "Images": len(engine.images),
        "Driver": "overlay2",
        "DriverStatus": [],
        "Plugins": {"Volume": ["local"], "Network": ["bridge", "host", "null"], "Authorization": None, "Log": []},
        "Swarm": {"LocalNodeState": "inactive", "NodeID": ""},
        "SystemTime": moment(engine.began),
        "LoggingDriver": "json-file",
        "CgroupDriver": "none",
        "DefaultRuntime": "emunet",
        "Runtimes": {"emunet": {"path": "emunet"}},
        "SecurityOptions": [],
        "Warnings": None,
        "Labels": [],
        "IndexServerAddress": "",
        "RegistryConfig": {"IndexConfigs": {}, "InsecureRegistryCIDRs": [], "Mirrors": []},
        "Isolation": "",
        "LiveRestoreEnabled": False,
        "ExperimentalBuild": False,
        **dict.fromkeys(limits, True),
    }


async def disk_usage(asked: Asked) -> Body:
    """`GET /system/df`."""
    return {"LayersSize": 0, "Images": [], "Containers": [], "Volumes": [], "BuildCache": []}


async def prune_builds(asked: Asked) -> Body:
    """`POST /build/prune`: nothing is built here."""
    return {"CachesDeleted": None, "SpaceReclaimed": 0}


async def plugins(asked: Asked) -> list[Body]:
    """`GET /plugins`: there are none."""
    return []


async def log_in(asked: Asked) -> Any:
    """`POST /auth`."""
    raise Refused(501, "a lab has no registry to log in to")


async def volumes(asked: Asked) -> Body:
    """`GET /volumes`."""
    folder = volume_folder(asked.engine.folder, "")
    names = sorted(os.listdir(folder)) if folder.is_dir() else []
    return {"Volumes": [_volume(asked, name) for name in names], "Warnings": None}


async def create_volume(asked: Asked) -> tuple[int, Body]:
    """`POST /volumes/create`."""
    name = str((await asked.body()).get("Name") or asked.engine.networks.find("bridge").id)
    if "/" in name or name.startswith("."):
        raise Refused(400, f'"{name}" includes invalid characters for a local volume name')
    volume_folder(asked.engine.folder, name).mkdir(parents=True, exist_ok=True)
    return 201, _volume(asked, name)


async def volume(asked: Asked) -> Body:
    """`GET /volumes/NAME`."""
    if not volume_folder(asked.engine.folder, asked.name).is_dir():
        raise Refused(404, f"get {asked.name}: no such volume")
    return _volume(asked, asked.name)


async def remove_volume(asked: Asked) -> None:
    """`DELETE /volumes/NAME`."""
    await volume(asked)
    path = os.fspath(volume_folder(asked.engine.folder, asked.name))
    for found in asked.engine.records.values():
        if any(one.source == path for one in read_binds(asked.engine.folder, found.host_config)):
            raise Refused(409, f"remove {asked.name}: volume is in use - [{found.id}]")
    shutil.rmtree(volume_folder(asked.engine.folder, asked.name))


async def prune_volumes(asked: Asked) -> Body:
    """`POST /volumes/prune`."""
    return {"VolumesDeleted": None, "SpaceReclaimed": 0}


def _volume(asked: Asked, name: str) -> Body:
    return {
        "Name": name,
        "Driver": "local",
        "Mountpoint": os.fspath(volume_folder(asked.engine.folder, name)),
        "CreatedAt": moment(asked.engine.began),
        "Labels": None,
        "Options": None,
        "Scope": "local",
    }
