"""What an object may say: checks of meaning, in the words of the Kubernetes API.

Each check takes an object with its defaults filled in and yields Causes: the field, a reason,
a message. An empty result is a sound object. A family of kinds has a file of its own (`pods`, `workloads`,
`network`, `data`), what they have in common stands in `parts`, what an update may change in `changes`.

Rule of this package: one object at a time (or an object and what it was before); nothing is
changed, and a check never stops at the first fault.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from emunet.cluster.kinds import Kind
from emunet.cluster.schema import is_dns_label, is_dns_subdomain
from emunet.cluster.status import Cause
from emunet.cluster.store import Object
from emunet.cluster.validate.causes import required, wrong
from emunet.cluster.validate.changes import check_update
from emunet.cluster.validate.data import config_map, secret
from emunet.cluster.validate.network import endpoint_slice, endpoints, network_policy, service
from emunet.cluster.validate.parts import LABEL, SUBDOMAIN, label_key, labels
from emunet.cluster.validate.pods import pod
from emunet.cluster.validate.workloads import disruption_budget, with_template

__all__ = ["check", "check_update"]

SERVICE_NAME = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character,"
    " and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is"
    " '[a-z]([-a-z0-9]*[a-z0-9])?')"
)
_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")

_CHECKS: dict[str, Callable[[Object], Iterator[Cause]]] = {
    "Pod": pod,
    **{kind: with_template(kind) for kind in (
        "ReplicationController", "ReplicaSet", "Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob",
    )},
    "Service": service,
    "Endpoints": endpoints,
    "EndpointSlice": endpoint_slice,
    "NetworkPolicy": network_policy,
    "ConfigMap": config_map,
    "Secret": secret,
    "PodDisruptionBudget": disruption_budget,
}  # fmt: skip


def check(kind: Kind, item: Object) -> list[Cause]:
    """Everything that is wrong with an object."""
    causes = list(metadata(kind, item.get("metadata", {})))
    checks = _CHECKS.get(kind.name)
    if checks is not None:
        causes += checks(item)
    return causes


def metadata(kind: Kind, meta: Object) -> Iterator[Cause]:
    """Names, labels and annotations."""
    name, generate = meta.get("name", ""), meta.get("generateName", "")
    if not name and not generate:
        yield required("metadata.name", "name or generateName is required")
    elif name:
        if kind.group == "rbac.authorization.k8s.io" or kind.name == "APIService":
            if "/" in name or "%" in name or name in (".", ".."):
                yield wrong("metadata.name", name, "may not contain '/' or '%'")
        elif kind.name == "Service":
            if len(name) > 63 or not _1035.fullmatch(name):
                yield wrong("metadata.name", name, SERVICE_NAME)
        elif kind.name == "Namespace":
            if not is_dns_label(name):
                yield wrong("metadata.name", name, LABEL)
        elif not is_dns_subdomain(name):
            yield wrong("metadata.name", name, SUBDOMAIN)
    yield from labels("metadata.labels", meta.get("labels", {}))
    for key in meta.get("annotations", {}):
        yield from label_key("metadata.annotations", key.lower())
