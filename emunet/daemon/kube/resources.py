"""What clients ask of objects: get, list, create, update, patch, delete, scale, and the like.

Rule of this file: a request in, an object or a StatusError out. What it means is `cluster.requests`'
business; how it is printed is `tables`'.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any, Literal

from emunet.cluster import shapes, status
from emunet.cluster.controllers.disruptions import refusal
from emunet.cluster.controllers.nodes import renewed
from emunet.cluster.kinds import Kind
from emunet.cluster.requests import Request
from emunet.cluster.selectors import FieldSelector, LabelSelector, parse_fields, parse_labels
from emunet.cluster.store import Object, meta, with_metadata
from emunet.daemon.kube.backend import Backend
from emunet.daemon.kube.paths import Target, number

GIVEN_BACK = {
    "Pod", "Service", "PersistentVolume", "PersistentVolumeClaim", "PodTemplate", "ResourceQuota", "ServiceAccount",
    "StorageClass",
}  # fmt: skip
"""Kinds whose objects are the answer to their own DELETE; for all others it is a Status. Typed clients count on it."""

_FIELDS = {
    "Event": (
        *(f"involvedObject.{name}" for name in (
            "kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath"
        )),
        "reason", "reportingComponent", "source", "type",
    ),
    "Job": ("status.successful",),
    "Namespace": ("status.phase",),
    "Node": ("spec.unschedulable",),
    "Pod": (
        "spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork",
        "status.phase", "status.podIP", "status.podIPs", "status.nominatedNodeName",
    ),
    "ReplicaSet": ("status.replicas",),
    "ReplicationController": ("status.replicas",),
    "Secret": ("type",),
    "Service": ("spec.clusterIP", "spec.type"),
}  # fmt: skip
"""The fields by which objects of a kind can be selected, beside their name and namespace: those of Kubernetes 1.33."""

PROPAGATIONS = ("Background", "Foreground", "Orphan")

_PATCHES: dict[str, Literal["json", "merge", "strategic", "apply"]] = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
    "application/apply-patch+yaml": "apply",
}


@dataclass(slots=True)
class Question:
    """One request to the API, taken apart: where it goes, what it says, and what the answer should warn of."""

    backend: Backend
    target: Target
    kind: Kind
    query: dict[str, str]
    request: Request

    @property
    def labels(self) -> LabelSelector | None:
        """The labelSelector of the query. StatusError."""
        found: LabelSelector | None = _selector(parse_labels, self.query.get("labelSelector"))
        return found

    @property
    def fields(self) -> FieldSelector | None:
        """The fieldSelector of the query. StatusError."""
        found: FieldSelector | None = _selector(parse_fields, self.query.get("fieldSelector"))
        if found is not None and self.target.api_version == shapes.EVENTS:
            found = FieldSelector(
                tuple((shapes.field_of_event(path), value, equal) for path, value, equal in found.terms)
            )
        for path, _, _ in found.terms if found is not None else ():
            if path not in ("metadata.name", "metadata.namespace", *_FIELDS.get(self.kind.name, ())):
                raise status.bad_request(f"field label not supported: {path}")
        return found

    @property
    def shows_time(self) -> bool:
        """Whether `view` depends on when it is: a lease is renewed as it is read."""
        return self.kind.name == "Lease"

    def view(self, item: Object) -> Object:
        """An object as the version of the path shows it."""
        if self.shows_time:
            control = self.backend.control
            item = renewed(item, control.health, self.request.now, control.store.epoch)
        if item.get("apiVersion") == self.target.api_version:
            return item
        version = self.target.api_version
        item = shapes.shown(self.kind.name, version, item)
        rest = {name: value for name, value in item.items() if name not in ("apiVersion", "kind")}
        return {"apiVersion": version, "kind": item["kind"], **rest}


def _selector(parse: Any, text: str | None) -> Any:
    if not text:
        return None
    try:
        return parse(text)
    except ValueError as error:
        raise status.bad_request(str(error)) from None


def get(question: Question) -> Object:
    """One object."""
    target, kind = question.target, question.kind
    namespace = target.namespace if kind.namespaced else ""
    item = question.backend.control.store.get(kind.resource, namespace, target.name)
    if item is None:
        raise status.not_found(kind, target.name)
    return question.view(item)


def select(question: Question) -> tuple[list[Object], Object]:
    """The objects of a list, and the list's metadata: a page of them where the query has a limit."""
    store = question.backend.control.store
    number(question.query, "resourceVersion")
    items = store.select(question.kind.resource, question.target.namespace, question.labels, question.fields)
    metadata: Object = {"resourceVersion": str(store.version)}
    start = 0
    if question.query.get("continue"):
        version, after = _from_token(question.query["continue"])
        metadata["resourceVersion"] = version
        start = next((index for index, item in enumerate(items) if _place(item) > after), len(items))
    limit = number(question.query, "limit") or 0
    page = items[start : start + limit] if limit > 0 else items[start:]
    left = len(items) - start - len(page)
    if left > 0:
        metadata["continue"] = _to_token(metadata["resourceVersion"], _place(page[-1]))
        metadata["remainingItemCount"] = left
    return page, metadata


def _place(item: Object) -> tuple[str, str]:
    return meta(item).get("namespace", ""), meta(item)["name"]


def _to_token(version: str, place: tuple[str, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps([version, *place]).encode()).decode()


def _from_token(token: str) -> tuple[str, tuple[str, str]]:
    try:
        version, namespace, name = map(str, json.loads(base64.urlsafe_b64decode(token)))
    except (ValueError, TypeError):
        raise status.bad_request("continue key is not valid") from None
    return version, (namespace, name)


def mapping(body: Any, name: str) -> Object:
    """What a body has under a name, which must be a mapping; an empty one where it has nothing."""
    found = body.get(name)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise status.bad_request(f"{name} must be an object, and is {json.dumps(found)[:80]}")
    return found


def create(question: Question, body: Object) -> Object:
    """Store a new object."""
    body.setdefault("apiVersion", question.target.api_version)
    body.setdefault("kind", question.kind.name)
    if body["kind"] != question.kind.name:
        raise status.bad_request(f"the object is a {body['kind']}, and the URL asks for a {question.kind.name}")
    return question.view(question.request.create(question.kind, body, question.target.namespace))


def update(question: Question, body: Object) -> Object:
    """Put an object in the place of another, or only its status."""
    part: Literal["", "status"] = "status" if question.target.subresource == "status" else ""
    target = question.target
    return question.view(question.request.update(question.kind, target.namespace, target.name, body, part=part))


def patch(question: Question, body: Any, content_type: str) -> Object:
    """Change an object."""
    how = _PATCHES.get(content_type)
    if how is None or (how == "strategic" and not question.kind.type):
        known = ", ".join(_PATCHES)
        message = f"the body of the request was in an unknown format - accepted media types include: {known}"
        raise status.StatusError(415, "UnsupportedMediaType", message)
    part: Literal["", "status"] = "status" if question.target.subresource == "status" else ""
    target = question.target
    return question.view(question.request.patch(question.kind, target.namespace, target.name, body, how, part=part))


def delete(question: Question, options: Object) -> Object:
    """Ask for an object's end; the answer that clients of its kind expect."""
    kind, target = question.kind, question.target
    item = _delete(question, target.namespace, target.name, options)
    if kind.name in GIVEN_BACK:
        return question.view(item)
    details = {"name": target.name, "kind": kind.plural, "uid": meta(item)["uid"]}
    if kind.group:
        details["group"] = kind.group
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def delete_all(question: Question, options: Object) -> Object:
    """Ask for the end of every object that the query selects."""
    items, _ = select(question)
    for item in items:
        _delete(question, meta(item).get("namespace", ""), meta(item)["name"], options)
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}


def _delete(question: Question, namespace: str, name: str, options: Object) -> Object:
    query = question.query
    grace = options.get("gracePeriodSeconds", number(query, "gracePeriodSeconds"))
    if grace is not None and (not isinstance(grace, int) or isinstance(grace, bool)):
        raise status.bad_request(f"gracePeriodSeconds must be a whole number, and is {json.dumps(grace)[:80]}")
    propagation = options.get("propagationPolicy") or query.get("propagationPolicy") or "Background"
    if options.get("orphanDependents"):
        propagation = "Orphan"
    if propagation not in PROPAGATIONS:
        raise status.bad_request(f"propagationPolicy must be one of {', '.join(PROPAGATIONS)}")
    conditions = mapping(options, "preconditions")
    return question.request.delete(
        question.kind, namespace, name, grace=grace, propagation=propagation,
        uid=conditions.get("uid"), version=conditions.get("resourceVersion"),
    )  # fmt: skip


# Subresources


def scale_of(question: Question) -> Object:
    """The Scale of an object: how many pods it wants and has."""
    item = get(question)
    selector = item["spec"].get("selector") or {}
    labels = selector if question.kind.name == "ReplicationController" else selector.get("matchLabels", {})
    told = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {name: meta(item)[name] for name in kept if name in meta(item)},
        "spec": {"replicas": item["spec"].get("replicas", 1)},
        "status": {"replicas": item.get("status", {}).get("replicas", 0), "selector": told},
    }


def set_scale(question: Question, scale: Object) -> Object:
    """Want another number of pods; `scale` is a Scale, or a merge patch of one."""
    replicas = mapping(scale, "spec").get("replicas", 0)
    if not isinstance(replicas, int) or isinstance(replicas, bool):
        raise status.bad_request("spec.replicas of a Scale is a whole number")
    change: Object = {"spec": {"replicas": replicas}}
    version = mapping(scale, "metadata").get("resourceVersion")
    if version:
        change["metadata"] = {"resourceVersion": version}
    question.request.patch(question.kind, question.target.namespace, question.target.name, change, "merge")
    return scale_of(question)


def evict(question: Question, body: Object) -> Object:
    """End a pod politely: what `kubectl drain` asks for."""
    item = get(question)
    refused = refusal(question.backend.control.store, item)
    if refused is not None:
        raise refused
    options = mapping(body, "deleteOptions")
    if "All" in (options.get("dryRun") or ()):
        question.request.dry_run = True
    _delete(question, question.target.namespace, meta(item)["name"], options)
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


def bind(question: Question, body: Object) -> Object:
    """Put a pod on a host, as a scheduler does."""
    change = {"spec": {"nodeName": mapping(body, "target").get("name", "")}}
    question.request.patch(question.kind, question.target.namespace, question.target.name, change, "merge")
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


def finalize(question: Question, body: Object) -> Object:
    """What stands between a namespace and its end is said by the client."""
    item = get(question)
    store = question.backend.control.store
    changed = {**item, "spec": mapping(body, "spec")}
    return question.view(store.replace(with_metadata(changed), question.request.now))


def review(api_version: str, body: Object) -> Object:
    """The answer to a question that is asked by creating something: whoever has the token may do everything."""
    kind = body.get("kind", "")
    answer: Object = {"allowed": True, "reason": "the owner of a lab may do everything in it"}
    rule = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
    if kind == "SelfSubjectRulesReview":
        answer = {"resourceRules": [rule], "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
                  "incomplete": False}  # fmt: skip
    elif kind in ("SelfSubjectReview", "TokenReview"):
        user = {"username": "emunet", "groups": ["system:masters", "system:authenticated"]}
        answer = {"userInfo": user} if kind == "SelfSubjectReview" else {"authenticated": True, "user": user}
    return {"spec": {}, **body, "apiVersion": api_version, "status": answer}
