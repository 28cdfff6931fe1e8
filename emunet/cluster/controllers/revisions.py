"""ControllerRevisions: the versions that the template of a StatefulSet or a DaemonSet has had.

Rule of this file: a revision is named after its template, and its number only grows.
"""

from __future__ import annotations

from typing import Any

from emunet.cluster.controllers.actions import Action, Create, Delete, Write
from emunet.cluster.controllers.deployments import template_hash
from emunet.cluster.controllers.pods import owner_reference
from emunet.cluster.store import Key, Object, View, labels_of, meta

LABEL = "controller-revision-hash"


def current(view: View, owner: Object, live: set[str]) -> tuple[str, list[Action]]:
    """The name of the revision that an owner's template is, and what keeps the history. `live` are in use by pods."""
    template = owner["spec"]["template"]
    text = template_hash(view, template)
    name = f"{meta(owner)['name']}-{text}"
    found = sorted(view.owned_by(meta(owner)["uid"], "controllerrevisions.apps"), key=lambda one: one["revision"])
    newest = found[-1]["revision"] if found else 0
    actions: list[Action] = []
    existing = next((one for one in found if meta(one)["name"] == name), None)
    if existing is None:
        made: dict[str, Any] = {
            "apiVersion": "apps/v1",
            "kind": "ControllerRevision",
            "metadata": {
                "name": name,
                "namespace": meta(owner)["namespace"],
                "labels": {**template.get("metadata", {}).get("labels", {}), LABEL: text},
                "ownerReferences": [owner_reference(owner)],
            },
            "data": {"spec": {"template": {**template, "$patch": "replace"}}},
            "revision": newest + 1,
        }
        if view.get("controllerrevisions.apps", meta(owner)["namespace"], name) is None:
            actions.append(Create(made))
    elif existing["revision"] < newest:
        actions.append(Write({**existing, "revision": newest + 1}))
    limit = owner["spec"].get("revisionHistoryLimit", 10)
    idle = [one for one in found if meta(one)["name"] != name and labels_of(one).get(LABEL, "") not in live]
    for one in idle[: max(0, len(idle) - limit)]:
        actions.append(Delete(Key("controllerrevisions.apps", meta(one)["namespace"], meta(one)["name"])))
    return name, actions
