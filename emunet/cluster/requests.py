"""What a client may ask of the objects: create, update, patch, delete, and what comes of it.

This is the part of the Kubernetes API that is not HTTP: fields are checked, defaults filled in,
what the cluster gives out is given out, and only then is anything stored. The API server, a
`Lab` and the controllers all come this way.

Rule of this file: a request is done whole or refused whole with a StatusError; with `dry_run`
it is answered and nothing is stored, not even a number is used up.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from emunet.cluster import custom, defaults, fields, patches, policy_warnings, shapes, status, validate
from emunet.cluster.check_pods import RESERVED_POD_NAMES, port_name
from emunet.cluster.kinds import Kind
from emunet.cluster.load import format_path
from emunet.cluster.objects import IP_ANNOTATION, MAC_ANNOTATION
from emunet.cluster.policies import policy_of
from emunet.cluster.schema import unicast_mac
from emunet.cluster.services import release_unwanted, reserve
from emunet.cluster.status import Cause
from emunet.cluster.store import FOREGROUND, Key, Object, Store, meta, with_metadata
from emunet.cluster.validate.causes import may_not, wrong
from emunet.cluster.validate.network import is_checked
from emunet.packet.address import Prefix, parse_ip

Validation = Literal["Strict", "Warn", "Ignore"]

_CLIENT_METADATA = (
    "name", "generateName", "namespace", "labels", "annotations", "ownerReferences", "finalizers"
)  # fmt: skip

MAXIMUM_ANNOTATIONS = 256 * 1024


@dataclass(slots=True)
class Rules:
    """What a lab adds to the rules of the API.

    `service_ranges` are those of the cluster, IPv4 first; `names` are taken by devices and links (and by which),
    so that no pod may have them.
    """

    service_ranges: tuple[Prefix, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Request:
    """One request to change something, and how it is to be taken.

    `api_version` is the one that it came under; `warnings` fills with what the client should be told.
    """

    store: Store
    now: int
    rules: Rules
    api_version: str = ""
    validation: Validation = "Warn"
    dry_run: bool = False
    trusted: bool = False
    warnings: list[str] = field(default_factory=list)

    def create(self, kind: Kind, data: Object, namespace: str = "") -> Object:
        """Store a new object; gives it as it is kept."""
        item = self._taken(kind, data, namespace)
        self._check_namespace(kind, item)
        version = self.api_version or str(data.get("apiVersion") or kind.api_version)
        if "status" in item and kind.type and kind.name != "Node":
            del item["status"]
        if kind.type and kind.type in fields.types():
            defaults.fill(kind.name, item, version)
        item["metadata"] = {key: value for key, value in item["metadata"].items() if key in _CLIENT_METADATA}
        causes = [] if self.trusted else validate.check(kind, item)
        if kind.name == "Pod":
            causes += self._pod_causes(item)
            if item["spec"].get("ephemeralContainers"):
                causes.append(may_not("spec.ephemeralContainers", "cannot be set on create"))
        if causes:
            raise status.invalid(kind, meta(item).get("name") or meta(item).get("generateName", ""), causes)
        name = meta(item).get("name")
        if name and self.store.get(kind.resource, self._space(kind, item), name) is not None:
            raise status.already_exists(kind, name)
        if kind.name == "Service":
            item = reserve(self.store, self.rules.service_ranges, item)
        if kind.name == "Job":
            item = _job(self.store, item)
        if kind.name == "CustomResourceDefinition":
            item["status"] = custom.accepted(item, self.store.moment(self.now))
        if not kind.effect and not self.trusted:
            self.warnings.append(f"emunet keeps this {kind.name} and lists it; it has no effect on the network")
        self._warn(kind, item)
        if self.dry_run:
            return self._as_if_stored(item)
        return self.store.insert(item, self.now)

    def update(
        self, kind: Kind, namespace: str, name: str, data: Object, *, part: Literal["", "status"] = ""
    ) -> Object:
        """Put an object in the place of an old one, or only its status; gives it as it is kept."""
        old = self._old(kind, namespace, name)
        if not part and isinstance(data.get("metadata"), dict):
            data = {**data, "metadata": {"name": name, **data["metadata"]}}
        item = self._taken(kind, data, namespace)
        if meta(item).get("name", name) != name:
            raise status.bad_request(
                f"the name of the object ({meta(item)['name']}) does not match the name on the URL ({name})"
            )
        expected = meta(item).get("resourceVersion")
        return self._put(kind, old, item, expected, part)

    def patch(
        self, kind: Kind, namespace: str, name: str, patch: Any, how: Literal["json", "merge", "strategic", "apply"],
        *, part: Literal["", "status"] = "",
    ) -> Object:  # fmt: skip
        """Change an object by a patch. `apply` makes it where there is none, and takes nothing away."""
        if how == "apply" and self.store.get(kind.resource, namespace if kind.namespaced else "", name) is None:
            made = {**patch, "metadata": {"name": name, **(patch.get("metadata") or {})}}
            return self.create(kind, made, namespace)
        old = self._old(kind, namespace, name)
        version = self.api_version or str(old["apiVersion"])
        seen = {**shapes.shown(kind.name, version, old), "apiVersion": version}
        try:
            if how == "json":
                new = patches.json_patch(seen, patch)
            elif not isinstance(patch, dict):
                raise ValueError("a patch of this type is a mapping")
            elif how == "merge":
                new = patches.merge_patch(seen, patch)
            else:
                new = patches.strategic(seen, patch, kind.type, removes=how == "strategic")
        except ValueError as error:
            raise status.StatusError(
                422, "Invalid", f"the server rejected our request due to an error in our request: {error}"
            ) from None
        expected = None
        if how != "json" and isinstance(patch.get("metadata"), dict):
            expected = patch["metadata"].get("resourceVersion")
        item = self._taken(kind, new, namespace)
        return self._put(kind, old, item, expected, part)

    def delete(
        self, kind: Kind, namespace: str, name: str, *, grace: int | None = None,
        propagation: str = "Background", uid: str | None = None, version: str | None = None,
    ) -> Object:  # fmt: skip
        """Ask for an object's end; gives it as it is then, perhaps still there."""
        old = self._old(kind, namespace, name)
        if uid and uid != meta(old)["uid"]:
            why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {meta(old)['uid']}"
            raise status.conflict(kind, name, why)
        if version and version != meta(old)["resourceVersion"]:
            raise status.conflict(kind, name)
        if kind.name == "Namespace" and name in ("default", "kube-system", "kube-public"):
            raise status.forbidden(kind, name, "this namespace may not be deleted")
        if self.dry_run:
            return old
        key = self.store.key(kind, old)
        dependents = list(self.store.owned_by(meta(old)["uid"]))
        if propagation == "Orphan":
            for item in dependents:
                owners = [one for one in meta(item)["ownerReferences"] if one.get("uid") != meta(old)["uid"]]
                self.store.replace(with_metadata(item, ownerReferences=owners or None), self.now)
        foreground = propagation == "Foreground" and dependents
        return self.store.delete(key, self.now, grace=grace, finalizers=[FOREGROUND] if foreground else [])

    def check_object(self, kind: Kind, data: Object) -> None:
        """Raise what `create` would raise for the object alone, whatever else there is."""
        item = self._taken(kind, data, "")
        if kind.type:
            defaults.fill(kind.name, item, self.api_version)
        causes = validate.check(kind, item)
        if causes:
            raise status.invalid(kind, meta(item).get("name", ""), causes)

    # The way of an object

    def _pod_causes(self, item: Object) -> Iterator[Cause]:
        """What only a lab knows of a pod: names that devices have, addresses that are fixed."""
        namespace, name = meta(item)["namespace"], meta(item).get("name", "")
        port = port_name(namespace, name)
        taken = self.rules.names.get(port) or ("host's interface" if port in RESERVED_POD_NAMES else "")
        if taken:
            yield wrong("metadata.name", name, f"this is the name of a {taken} of the lab")
        annotations = meta(item).get("annotations", {})
        for annotation, read in ((MAC_ANNOTATION, unicast_mac), (IP_ANNOTATION, _addresses)):
            text = annotations.get(annotation)
            if text is None:
                continue
            field_name = f"metadata.annotations[{annotation}]"
            try:
                wanted = read(text)
            except ValueError as error:
                yield wrong(field_name, text, str(error))
                continue
            for other in self.store.items("pods"):
                rival = meta(other).get("annotations", {}).get(annotation)
                if rival is not None and read(rival) == wanted and "deletionTimestamp" not in meta(other):
                    whose = port_name(meta(other)["namespace"], meta(other)["name"])
                    yield wrong(field_name, text, f"the pod {whose} has it")

    def _warn(self, kind: Kind, item: Object) -> None:
        """Tell what is worth knowing of an object that is sound."""
        if kind.name == "NetworkPolicy" and not self.trusted:
            self.warnings += policy_warnings.warnings(policy_of(item), policy_warnings.stored(self.store))

    def _space(self, kind: Kind, item: Object) -> str:
        return str(meta(item).get("namespace", "")) if kind.namespaced else ""

    def _old(self, kind: Kind, namespace: str, name: str) -> Object:
        old = self.store.get(kind.resource, namespace if kind.namespaced else "", name)
        if old is None:
            raise status.not_found(kind, name)
        return old

    def _taken(self, kind: Kind, data: Object, namespace: str) -> Object:
        """A copy of what a client sent, with its fields checked, its namespace and its version set."""
        if self.trusted:
            item = copy.deepcopy(data)
        else:
            version = self.api_version or str(data.get("apiVersion") or kind.api_version)
            item = shapes.kept(kind.name, version, self._read(kind, data, version))
        item["apiVersion"], item["kind"] = kind.api_version, kind.name
        found = item.setdefault("metadata", {})
        if kind.namespaced:
            space = found.setdefault("namespace", namespace or "default")
            if namespace and space != namespace:
                raise status.bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request"
                )
        else:
            found.pop("namespace", None)
        for name in ("labels", "annotations", "finalizers", "ownerReferences"):
            if not found.get(name, True):
                del found[name]
        for name in ("managedFields", "selfLink"):
            found.pop(name, None)
        return item

    def _read(self, kind: Kind, data: Object, version: str) -> Object:
        shape = shapes.TYPES.get((kind.name, version), kind.type)
        reading = fields.read(data, shape)
        cannot = f'{kind.name} in version "{version.rpartition("/")[2]}" cannot be handled as a {kind.name}'
        if reading.wrong:
            raise status.bad_request(f"{cannot}: {reading.wrong[0].message}")
        if reading.unknown and self.validation != "Ignore":
            said = [f'unknown field "{format_path(path)}"{fields.hint(shape, path)}' for path in reading.unknown]
            if self.validation == "Strict":
                raise status.bad_request(f"{cannot}: strict decoding error: {', '.join(said)}")
            self.warnings += said
        return reading.value

    def _check_namespace(self, kind: Kind, item: Object) -> None:
        if not kind.namespaced:
            return
        space = self._space(kind, item)
        found = self.store.get("namespaces", "", space)
        if found is None:
            raise status.not_found(self.store.kind("namespaces"), space)
        if "deletionTimestamp" in meta(found):
            why = f"unable to create new content in namespace {space} because it is being terminated"
            cause = status.Cause("metadata.namespace", "NamespaceTerminating", f"namespace {space} is being terminated")
            raise status.forbidden(kind, meta(item).get("name", ""), why, [cause])

    def _put(self, kind: Kind, old: Object, item: Object, expected: str | None, part: str) -> Object:
        if part == "status":
            item = {**old, "status": item.get("status", {})}
        else:
            item = self._whole(kind, old, item)
            self._warn(kind, item)
        if expected and expected != meta(old)["resourceVersion"]:
            raise status.conflict(kind, meta(old)["name"])
        if self.dry_run:
            kept = {k: v for k, v in meta(old).items() if k in ("uid", "creationTimestamp", "resourceVersion")}
            return {**item, "metadata": {**meta(item), **kept}}
        if kind.name == "Service":
            item = release_unwanted(item)
            item = reserve(self.store, self.rules.service_ranges, item, old)
        return self.store.replace(item, self.now)

    def _whole(self, kind: Kind, old: Object, item: Object) -> Object:
        """An object as an update leaves it: its status, and what only the cluster writes, as they were."""
        allowed = {key: value for key, value in meta(item).items() if key in _CLIENT_METADATA}
        owned = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")
        allowed.setdefault("name", meta(old)["name"])
        if "generateName" in meta(old):
            allowed["generateName"] = meta(old)["generateName"]
        allowed |= {key: meta(old)[key] for key in owned if key in meta(old)}
        item = {**item, "metadata": allowed}
        if kind.name == "Service":
            _keep_addresses(old, item)
        if kind.type:
            defaults.fill(kind.name, item, self.api_version or kind.api_version)
            item.pop("status", None)
            if "status" in old:
                item["status"] = old["status"]
        causes = [] if self.trusted else [*validate.check(kind, item), *validate.check_update(kind, old, item)]
        if causes:
            raise status.invalid(kind, meta(old)["name"], causes)
        return item

    def _as_if_stored(self, item: Object) -> Object:
        name = meta(item).get("name") or f"{meta(item).get('generateName', '')}xxxxx"
        return with_metadata(item, name=name, uid="00000000-0000-4000-a000-000000000000",
                             creationTimestamp=self.store.moment(self.now))  # fmt: skip


def _addresses(text: str) -> Any:
    return sorted(parse_ip(part.strip()) for part in text.split(","))


def _keep_addresses(old: Object, item: Object) -> None:
    """What an update of a Service does not say stays as it was given out."""
    before, spec = old.get("spec", {}), item.setdefault("spec", {})
    if spec.get("type", "ClusterIP") == "ExternalName" or before.get("type") == "ExternalName":
        return
    for name in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "healthCheckNodePort"):
        if name in before and not spec.get(name):
            spec[name] = before[name]
    if not is_checked(spec) and spec.get("healthCheckNodePort") == before.get("healthCheckNodePort"):
        spec.pop("healthCheckNodePort", None)  # what it is now has no use for it
    ports = {(port.get("port"), port.get("protocol", "TCP")): port for port in before.get("ports", ())}
    for port in spec.get("ports", ()):
        was = ports.get((port.get("port"), port.get("protocol", "TCP")))
        if was is not None and "nodePort" in was and spec.get("type") in ("NodePort", "LoadBalancer"):
            port.setdefault("nodePort", was["nodePort"])


def _job(store: Store, item: Object) -> Object:
    """A Job selects its pods by a label of its own, where it does not say otherwise."""
    spec = item["spec"]
    if "selector" in spec or spec.get("manualSelector"):
        return item
    uid = store.hashed("job", meta(item).get("namespace"), meta(item).get("name"), store.version, length=12)
    template = spec["template"]
    labels = {
        **template.get("metadata", {}).get("labels", {}),
        "controller-uid": uid,
        "job-name": meta(item).get("name", ""),
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": meta(item).get("name", ""),
    }
    changed = {
        **spec,
        "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}},
        "template": {**template, "metadata": {**template.get("metadata", {}), "labels": labels}},
    }
    return {**item, "spec": changed}


def key_of(store: Store, item: Mapping[str, Any]) -> Key:
    """Where a stored object is."""
    return store.key(store.kind_of(item), item)


__all__: Sequence[str] = ("Request", "Validation", "key_of")
