"""What an update may not change: what stays as it was made."""

from __future__ import annotations

from typing import Any

from emunet.cluster.kinds import Kind
from emunet.cluster.status import Cause
from emunet.cluster.store import Object
from emunet.cluster.validate.causes import may_not, wrong


def check_update(kind: Kind, old: Object, new: Object) -> list[Cause]:
    """What an update changes that stays as it was made."""
    causes: list[Cause] = []
    before, after = old.get("spec", {}), new.get("spec", {})
    if kind.name in ("Deployment", "ReplicaSet", "DaemonSet", "Job") and before.get("selector") != after.get(
        "selector"
    ):
        causes.append(wrong("spec.selector", "", "field is immutable"))
    if kind.name == "StatefulSet":
        free = {"replicas", "ordinals", "template", "updateStrategy", "minReadySeconds", "revisionHistoryLimit",
                "persistentVolumeClaimRetentionPolicy"}  # fmt: skip
        if {k: v for k, v in before.items() if k not in free} != {k: v for k, v in after.items() if k not in free}:
            named = "'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit'," \
                    " 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds'"  # fmt: skip
            why = f"updates to statefulset spec for fields other than {named} are forbidden"
            causes.append(may_not("spec", why))
    bound = bool(before.get("nodeName"))
    if kind.name == "Pod" and _fixed_part(before, bound=bound) != _fixed_part(after, bound=bound):
        why = (
            "pod updates may not change fields other than `spec.containers[*].image`,"
            "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing"
            " tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
        )
        causes.append(may_not("spec", why))
    if kind.name == "Service" and "ExternalName" not in (before.get("type"), after.get("type")):
        address = before.get("clusterIP")
        if address and after.get("clusterIP") != address:
            causes.append(wrong("spec.clusterIPs[0]", [after.get("clusterIP", "")], "may not change once set"))
    if kind.name == "Node" and _ranges(before) != _ranges(after):
        causes.append(may_not("spec.podCIDRs", 'node updates may not change podCIDR except from "" to valid'))
    if kind.name in ("ConfigMap", "Secret") and old.get("immutable"):
        causes += [may_not(field, "field is immutable when `immutable` is set")
                   for field in ("data", "binaryData") if old.get(field) != new.get(field)]  # fmt: skip
    return causes


def _ranges(spec: Object) -> tuple[Any, Any]:
    return spec.get("podCIDR"), spec.get("podCIDRs")


def _fixed_part(spec: Object, *, bound: bool) -> Object:
    """What of a pod no update may change; its host too, once it has one."""
    free = {"activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "ephemeralContainers"}
    if not bound:
        free.add("nodeName")
    fixed = {key: value for key, value in spec.items() if key not in free}
    for group in ("containers", "initContainers"):
        if group in fixed:
            fixed[group] = [{k: v for k, v in one.items() if k != "image"} for one in fixed[group]]
    return fixed
