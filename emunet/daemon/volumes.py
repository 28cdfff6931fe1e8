"""Volumes of a pod: what config maps, secrets and the pod itself say, as files, and where its root has them.

All containers of a pod see one root, so a volume at a mount path is there for all of them; it can only be read
there where none of them may write. Each volume is a folder of the pod's own memory, which its root has at every
path that mounts it; a hostPath is one of the host's (`emunet.linux.specification.BindSpec`).

A pod also has what its service account shows to the API, as Kubernetes mounts it into pods that say nothing else.

Rule of this file: objects in, paths and texts out; what is not there is left out, as an optional volume is.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from typing import Any

from emunet.cluster.bound import data_of, field_of, lacking_data, resource_of
from emunet.cluster.controllers.namespaces import AUTHORITY
from emunet.cluster.defaults import containers_of
from emunet.cluster.store import Object, View, meta
from emunet.linux.specification import BindSpec

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where programs look for what their service account shows to the API."""

Tokens = Callable[[str, str], str]
"""The token of a service account: (namespace, name)."""

MODE = 0o644

_SHARED = ("emptyDir", "persistentVolumeClaim", "ephemeral")
_DATA = ("configMap", "secret", "downwardAPI", "projected")
_FILES = ("File", "FileOrCreate")
_OF_ITS_OWN = ("/", "/bin", "/etc", "/lib", "/lib64", "/sbin", "/usr")
_BELOW_TOO = ("/dev", "/proc", "/sys")
"""Where a pod keeps what it has: the programs of this machine, and what the kernel shows it."""


def with_account(view: View, pod: Object) -> Object:
    """The pod with the volume that Kubernetes adds: its account's token, the API's certificate, its namespace."""
    namespace, spec = meta(pod)["namespace"], pod["spec"]
    account = view.get("serviceaccounts", namespace, spec.get("serviceAccountName", "default")) or {}
    wanted = spec.get("automountServiceAccountToken", account.get("automountServiceAccountToken", True))
    if not wanted or any(posixpath.normpath(one.get("mountPath", "/")) == ACCOUNT for one in _mounts(pod)):
        return pod
    sources: list[Object] = [
        {"serviceAccountToken": {"path": "token"}},
        {"configMap": {"name": AUTHORITY, "optional": True, "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]
    volume = {"name": "kube-api-access", "projected": {"sources": sources, "defaultMode": MODE}}
    first, *others = spec["containers"]
    mount = {"name": "kube-api-access", "mountPath": ACCOUNT, "readOnly": True}
    first = {**first, "volumeMounts": [*first.get("volumeMounts", ()), mount]}
    return {**pod, "spec": {**spec, "volumes": [*spec.get("volumes", ()), volume], "containers": [first, *others]}}


def files_of(view: View, pod: Object, tokens: Tokens | None = None) -> dict[str, tuple[str, int]]:
    """The files that a pod's volumes put into its root, by path: (text, mode). Bytes that are no text are surrogates.

    Without `tokens` those of service accounts are left out.
    """
    volumes = {one["name"]: one for one in pod["spec"].get("volumes", ())}
    found: dict[str, tuple[str, int]] = {}
    for mount in _mounts(pod):
        volume = volumes.get(mount.get("name", ""))
        if volume is None:
            continue
        for name, data, mode in _contents(view, pod, volume, tokens):
            path = posixpath.join(mount["mountPath"], name)
            if "subPath" in mount:
                if name != mount["subPath"]:
                    continue
                path = mount["mountPath"]
            text = data.decode(errors="surrogateescape")  # bytes that are no text come back as they were
            if path.startswith("/") and ".." not in path.split("/"):
                found[posixpath.normpath(path)] = text, mode
    return found


def parts_of(pod: Object) -> set[str]:
    """The paths at which a pod has one file of a volume (`subPath`): these do not follow what the volume is of."""
    return {posixpath.normpath(mount["mountPath"]) for mount in _mounts(pod) if "subPath" in mount}


def lacking_volume(view: View, pod: Object) -> str | None:
    """Which volume cannot be had, since what it is of is not there and not optional: a kubelet's sentence."""
    namespace = meta(pod)["namespace"]
    for volume in pod["spec"].get("volumes", ()):
        for resource, source, name in _sources(volume):
            if source.get("optional"):
                continue
            why = lacking_data(view, resource, namespace, name)
            known = data_of(view, resource, namespace, name)
            if why is None:
                key = next((one["key"] for one in source.get("items") or () if one["key"] not in known), None)
                kind = "secret" if resource == "secrets" else "config"
                why = None if key is None else f"references non-existent {kind} key: {key}"
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


def binds_of(pod: Object, store: str) -> tuple[BindSpec, ...]:
    """Where a pod's root has its volumes; `store` is the folder that its host shares with its pods (hostPath).

    What comes of config maps and the like is only to be read. A file of theirs by itself (`subPath`) is just a file.
    """
    volumes = {one["name"]: one for one in pod["spec"].get("volumes", ())}
    found: dict[str, BindSpec] = {}
    for mount in _mounts(pod):
        volume = volumes.get(mount.get("name", ""), {})
        target = posixpath.normpath(mount.get("mountPath", "/"))
        kind = next((one for one in ("hostPath", *_SHARED, *_DATA) if one in volume), "")
        if not kind or not is_shared(target, volume.get("hostPath", {})) or (kind in _DATA and "subPath" in mount):
            continue
        part = posixpath.normpath(posixpath.join("/", mount.get("subPath", "").lstrip("/")))
        before = found.get(target)
        only_read = kind in _DATA or (bool(mount.get("readOnly")) and (before is None or before.read_only))
        if kind == "hostPath":
            source = posixpath.normpath(posixpath.join("/", volume["hostPath"]["path"], part.lstrip("/")))
            is_file = volume["hostPath"].get("type") in _FILES
            found[target] = BindSpec(source, target, only_read, within=store, file=is_file)
        else:
            found[target] = BindSpec(part, target, only_read, volume=volume["name"])
    return tuple(sorted(found.values(), key=lambda one: one.target.count("/")))  # what is in another comes after it


def is_shared(target: str, volume: Object) -> bool:
    """Whether a pod has a volume at a path; else it keeps what it has there. `volume` is its hostPath, if it is one."""
    target = posixpath.normpath(target)
    if volume.get("type") in ("Socket", "CharDevice", "BlockDevice") or not target.startswith("/"):
        return False
    return target not in _OF_ITS_OWN and not any(target == one or target.startswith(f"{one}/") for one in _BELOW_TOO)


def _mounts(pod: Object) -> Iterator[Object]:
    for container in containers_of(pod["spec"]):
        yield from container.get("volumeMounts", ())


def _contents(view: View, pod: Object, volume: Object, tokens: Tokens | None) -> Iterator[tuple[str, bytes, int]]:
    """The files of a volume: (path in it, bytes, mode)."""
    namespace = meta(pod)["namespace"]
    projected = volume.get("projected", {})
    whole = next((volume[one].get("defaultMode", MODE) for one in _DATA if one in volume), MODE)
    for source in (volume, *projected.get("sources", ())):
        for resource, how, name in _sources({**source, "projected": {}}):
            yield from _chosen(data_of(view, resource, namespace, name), how, whole)
        for one in source.get("downwardAPI", {}).get("items", ()):
            yield one["path"], _downward(pod, one), one.get("mode", whole)
        wanted = source.get("serviceAccountToken")
        if wanted is not None and tokens is not None:
            token = tokens(namespace, pod["spec"].get("serviceAccountName", "default"))
            yield wanted["path"], token.encode(), whole


def _chosen(data: dict[str, bytes], source: Object, mode: int) -> Iterator[tuple[str, bytes, int]]:
    items: list[Any] = source.get("items") or [{"key": key, "path": key} for key in data]
    return ((one["path"], data[one["key"]], one.get("mode", mode)) for one in items if one["key"] in data)


def _downward(pod: Object, item: Object) -> bytes:
    if "resourceFieldRef" not in item:
        return (field_of(pod, item.get("fieldRef", {}).get("fieldPath", "")) or "").encode()
    reference = item["resourceFieldRef"]
    named = [one for one in containers_of(pod["spec"]) if one["name"] == reference.get("containerName")]
    return resource_of(named[0], reference).encode() if named else b""
