"""Volumes of a pod as files of its own root: what config maps, secrets and the pod itself say.

All containers of a pod see one root, so a file at a mount path is there for all of them. An emptyDir is a
folder of that root; where containers mount one at several paths, all but the first lead to it.

Rule of this file: objects in, paths and texts out; what is not there is left out, as an optional volume is.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from emunet.cluster.bound import data_of, field_of, lacking_data, resource_of
from emunet.cluster.defaults import containers_of
from emunet.cluster.store import Object, View, meta
from emunet.linux.specification import BindSpec

_SHARED = ("emptyDir", "persistentVolumeClaim", "ephemeral")
_FILES = ("File", "FileOrCreate")
_OF_ITS_OWN = ("/", "/bin", "/etc", "/lib", "/lib64", "/sbin", "/usr")
_BELOW_TOO = ("/dev", "/proc", "/sys")
"""Where a pod keeps what it has: the programs of this machine, and what the kernel shows it."""


def files_of(view: View, pod: Object) -> dict[str, str]:
    """The files that a pod's volumes put into its root, by path. Bytes that are no text are surrogates."""
    volumes = {one["name"]: one for one in pod["spec"].get("volumes", ())}
    found: dict[str, str] = {}
    for _, mount in _mounts(pod):
        volume = volumes.get(mount.get("name", ""))
        if volume is None:
            continue
        for name, data in _contents(view, pod, volume).items():
            path = posixpath.join(mount["mountPath"], name)
            if "subPath" in mount:
                if name != mount["subPath"]:
                    continue
                path = mount["mountPath"]
            text = data.decode(errors="surrogateescape")  # bytes that are no text come back as they were
            if path.startswith("/") and ".." not in path.split("/"):
                found[posixpath.normpath(path)] = text
    return found


def parts_of(pod: Object) -> set[str]:
    """The paths at which a pod has one file of a volume (`subPath`): these do not follow what the volume is of."""
    return {posixpath.normpath(mount["mountPath"]) for _, mount in _mounts(pod) if "subPath" in mount}


def lacking_volume(view: View, pod: Object) -> str | None:
    """Which volume cannot be had, since what it is of is not there and not optional: a kubelet's sentence."""
    namespace = meta(pod)["namespace"]
    for volume in pod["spec"].get("volumes", ()):
        for resource, source, name in _sources(volume):
            if source.get("optional"):
                continue
            why = lacking_data(view, resource, namespace, name)
            for one in source.get("items") or () if why is None else ():
                if one["key"] not in data_of(view, resource, namespace, name):
                    why = f"references non-existent {'secret' if resource == 'secrets' else 'config'} key: {one['key']}"
            if why is not None:
                return f'MountVolume.SetUp failed for volume "{volume["name"]}" : {why}'
    return None


def _sources(volume: Object) -> Iterator[tuple[str, Object, str]]:
    """The config maps and secrets that a volume is of: (resource, how it is taken, name)."""
    for one in (volume, *volume.get("projected", {}).get("sources", ())):
        if "configMap" in one:
            yield "configmaps", one["configMap"], one["configMap"].get("name", "")
        if "secret" in one:
            yield "secrets", one["secret"], one["secret"].get("secretName") or one["secret"].get("name", "")


def folders_of(pod: Object) -> list[tuple[str, str]]:
    """(path, what it leads to) of each folder that containers share; a path that leads to itself is the folder."""
    volumes = pod["spec"].get("volumes", ())
    shared = {one["name"] for one in volumes if any(key in one for key in _SHARED)}
    empty = {one["name"] for one in volumes if any(source.get("optional") for _, source, _ in _sources(one))}
    first: dict[str, str] = {}
    found: list[tuple[str, str]] = []
    for _, mount in _mounts(pod):
        name, path = mount.get("name", ""), posixpath.normpath(mount.get("mountPath", "/"))
        if name in shared and path.startswith("/") and path != "/":
            pair = (path, first.setdefault(name, path))
            if pair not in found:
                found.append(pair)
        elif name in empty and "subPath" not in mount and path.startswith("/") and path != "/":
            found.append((path, path))  # it is there, whatever is in it
    return found


def host_folders_of(pod: Object, store: str) -> tuple[BindSpec, ...]:
    """What of its host a pod shares with others there (hostPath): folders and files of the host's `store`."""
    volumes = {one["name"]: one["hostPath"] for one in pod["spec"].get("volumes", ()) if "hostPath" in one}
    found: dict[str, BindSpec] = {}
    for _, mount in _mounts(pod):
        volume = volumes.get(mount.get("name", ""))
        if volume is None or not is_shared(mount["mountPath"], volume):
            continue
        target = posixpath.normpath(mount["mountPath"])
        source = posixpath.normpath(posixpath.join("/", volume["path"], mount.get("subPath", "").lstrip("/")))
        found[target] = BindSpec(source, target, within=store, file=volume.get("type") in _FILES)
    return tuple(found.values())


def is_shared(target: str, volume: Object) -> bool:
    """Whether a hostPath is shared at a path of the pod; else the pod keeps what it has there."""
    target = posixpath.normpath(target)
    if volume.get("type") in ("Socket", "CharDevice", "BlockDevice") or not target.startswith("/"):
        return False
    return target not in _OF_ITS_OWN and not any(target == one or target.startswith(f"{one}/") for one in _BELOW_TOO)


def _mounts(pod: Object) -> Iterator[tuple[Object, Object]]:
    for container in containers_of(pod["spec"]):
        for mount in container.get("volumeMounts", ()):
            yield container, mount


def _contents(view: View, pod: Object, volume: Object) -> dict[str, bytes]:
    namespace = meta(pod)["namespace"]
    if "configMap" in volume:
        return _chosen(data_of(view, "configmaps", namespace, volume["configMap"].get("name", "")), volume["configMap"])
    if "secret" in volume:
        return _chosen(data_of(view, "secrets", namespace, volume["secret"].get("secretName", "")), volume["secret"])
    if "downwardAPI" in volume:
        return _downward(pod, volume["downwardAPI"])
    found: dict[str, bytes] = {}
    for source in volume.get("projected", {}).get("sources", ()):
        if "configMap" in source:
            found |= _chosen(data_of(view, "configmaps", namespace, source["configMap"].get("name", "")),
                             source["configMap"])  # fmt: skip
        elif "secret" in source:
            found |= _chosen(data_of(view, "secrets", namespace, source["secret"].get("name", "")), source["secret"])
        elif "downwardAPI" in source:
            found |= _downward(pod, source["downwardAPI"])
    return found


def _chosen(data: dict[str, bytes], source: Object) -> dict[str, bytes]:
    items = source.get("items")
    if not items:
        return data
    return {one["path"]: data[one["key"]] for one in items if one["key"] in data}


def _downward(pod: Object, source: Object) -> dict[str, bytes]:
    found = {}
    for one in source.get("items", ()):
        if "resourceFieldRef" in one:
            reference = one["resourceFieldRef"]
            named = [c for c in containers_of(pod["spec"]) if c["name"] == reference.get("containerName")]
            text = resource_of(named[0], reference) if named else ""
        else:
            text = field_of(pod, one.get("fieldRef", {}).get("fieldPath", "")) or ""
        found[one["path"]] = text.encode()
    return found
