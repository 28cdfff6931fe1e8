"""Kinds that a lab learns from CustomResourceDefinitions: kept and listed under their own names, without effect.

Rule of this file: a definition in, a row of the registry out.
"""

from __future__ import annotations

from emunet.cluster.kinds import Kind
from emunet.cluster.store import Object


def kind_of(definition: Object) -> Kind | None:
    """The kind that a definition defines; None where it does not say enough."""
    spec = definition.get("spec", {})
    names = spec.get("names", {})
    versions = [one for one in spec.get("versions", ()) if one.get("served", True)]
    ordered = [one["name"] for one in sorted(versions, key=lambda one: not one.get("storage", False)) if "name" in one]
    if not ordered and spec.get("version"):
        ordered = [spec["version"]]
    if not (names.get("kind") and names.get("plural") and spec.get("group") and ordered):
        return None
    return Kind(
        name=names["kind"],
        plural=names["plural"],
        group=spec["group"],
        versions=tuple(ordered),
        namespaced=spec.get("scope", "Namespaced") == "Namespaced",
        short=tuple(names.get("shortNames", ())),
        categories=tuple(names.get("categories", ())),
        effect=False,
    )


def accepted(definition: Object, moment: str) -> Object:
    """The status of a definition that is taken: `kubectl wait --for condition=established` reads it."""
    names = definition.get("spec", {}).get("names", {})
    conditions = [
        {"type": name, "status": "True", "reason": reason, "message": message, "lastTransitionTime": moment}
        for name, reason, message in (
            ("NamesAccepted", "NoConflicts", "no conflicts found"),
            ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        )
    ]
    return {"acceptedNames": names, "conditions": conditions, "storedVersions": []}
