"""What the API says of itself: versions, groups, resources, and the documents about fields.

Rule of this file: all of it follows from the registry of kinds; nothing is listed by hand but what
is no object (`pods/exec`, reviews).
"""

from __future__ import annotations

from typing import Any

from emunet.cluster.controllers.nodes import VERSION
from emunet.cluster.kinds import ALL_VERBS, Kind, Registry, split_version

Object = dict[str, Any]

_SUBRESOURCES = {
    "Pod": (
        ("log", "Pod", ("get",)), ("exec", "PodExecOptions", ("create", "get")),
        ("attach", "PodAttachOptions", ("create", "get")), ("portforward", "PodPortForwardOptions", ("create", "get")),
        ("binding", "Binding", ("create",)), ("ephemeralcontainers", "Pod", ("patch", "update")),
    ),
    "ServiceAccount": (("token", "TokenRequest", ("create",)),),
    "Namespace": (("finalize", "Namespace", ("update",)),),
}  # fmt: skip

_NO_STATUS = {
    "ConfigMap", "Secret", "ServiceAccount", "Event", "Endpoints", "EndpointSlice", "PodTemplate", "LimitRange", "Role",
    "RoleBinding", "ClusterRole", "ClusterRoleBinding", "StorageClass", "PriorityClass", "Lease", "ControllerRevision",
    "IngressClass", "NetworkPolicy", "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration",
}  # fmt: skip

REVIEWS = {
    "authorization.k8s.io/v1": (
        ("selfsubjectaccessreviews", "SelfSubjectAccessReview"), ("selfsubjectrulesreviews", "SelfSubjectRulesReview"),
        ("subjectaccessreviews", "SubjectAccessReview"),
    ),
    "authentication.k8s.io/v1": (("selfsubjectreviews", "SelfSubjectReview"), ("tokenreviews", "TokenReview")),
}  # fmt: skip
"""Questions that are asked by creating something that is never kept."""


def version() -> Object:
    """`/version`."""
    _, minor, *_ = VERSION.removeprefix("v").split(".")
    names = ("gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform")
    return {"major": "1", "minor": minor, "gitVersion": VERSION, **dict.fromkeys(names, "")}


def core_versions() -> Object:
    """`/api`."""
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def groups(kinds: Registry) -> Object:
    """`/apis`: every group, those of today before those of old."""
    found: dict[str, list[str]] = {}
    for name in [*kinds.group_versions(), *REVIEWS]:
        group, _ = split_version(name)
        if group:
            found.setdefault(group, []).append(name)
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(one, found[one]) for one in found]}


def group(kinds: Registry, name: str) -> Object | None:
    """`/apis/NAME`, or None."""
    for one in groups(kinds)["groups"]:
        if one["name"] == name:
            return {"kind": "APIGroup", "apiVersion": "v1", **one}
    return None


def _group(name: str, versions: list[str]) -> Object:
    told = [{"groupVersion": one, "version": split_version(one)[1]} for one in versions]
    return {"name": name, "versions": told, "preferredVersion": told[0], "serverAddressByClientCIDRs": []}


def resources(kinds: Registry, api_version: str) -> Object | None:
    """`/api/v1` or `/apis/GROUP/VERSION`, or None where there is no such group version."""
    served = kinds.group_versions().get(api_version)
    reviews = REVIEWS.get(api_version, ())
    if served is None and not reviews:
        return None
    found: list[Object] = []
    for kind in served or ():
        found += _resource(kind, api_version)
    for plural, name in reviews:
        found.append({"name": plural, "singularName": "", "namespaced": False, "kind": name, "verbs": ["create"]})
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": found}


def _resource(kind: Kind, api_version: str) -> list[Object]:
    old = api_version in kind.aliases
    main: Object = {
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.name,
        "verbs": list(ALL_VERBS),
    }
    if not old:  # else `get all` would list everything twice, and short names would mean two things
        main |= {"shortNames": list(kind.short)} if kind.short else {}
        main |= {"categories": list(kind.categories)} if kind.categories else {}
    found = [main]

    def sub(name: str, what: str, verbs: tuple[str, ...], **more: str) -> None:
        found.append(
            {
                "name": f"{kind.plural}/{name}", "singularName": "", "namespaced": kind.namespaced, "kind": what,
                "verbs": list(verbs), **more,
            }
        )  # fmt: skip

    if kind.name not in _NO_STATUS:
        sub("status", kind.name, ("get", "patch", "update"))
    if kind.scale:
        sub("scale", "Scale", ("get", "patch", "update"), group="autoscaling", version="v1")
    for name, what, verbs in _SUBRESOURCES.get(kind.name, ()):
        sub(name, what, verbs)
    if kind.name == "Pod":
        sub("eviction", "Eviction", ("create",), group="policy", version="v1")
    return found
