"""The kinds of objects that a lab serves: one row a kind.

A row says where a kind is found in the API, what it is called for short, what its objects
look like (`types.txt`), and whether the network heeds it. Old group versions are further
ways to the same objects. Adding a kind is adding a row; giving it an effect is a controller
or a function of `compile`.

Rule of this file: data, and look-ups in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of object.

    name          as it stands in `kind:`
    plural        as it stands in a path
    group         of the API, empty for the core; `versions`, the preferred one first
    short         names for people, `categories` that they may ask for together
    type          its row in types.txt, empty where anything goes
    scale         has a subresource `scale`
    effect        False: accepted, kept, listed, and of no effect on the network
    aliases       older group versions under which the same objects are served
    """

    name: str
    plural: str
    group: str = ""
    versions: tuple[str, ...] = ("v1",)
    namespaced: bool = True
    short: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    type: str = ""
    scale: bool = False
    effect: bool = True
    aliases: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        """The group version in which its objects are kept."""
        return f"{self.group}/{self.versions[0]}" if self.group else self.versions[0]

    @property
    def resource(self) -> str:
        """Its name in messages: `pods`, `deployments.apps`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def singular(self) -> str:
        """Its name for one object, in lower case."""
        return self.name.lower()


def _row(name: str, plural: str = "", group: str = "", **more: object) -> Kind:
    return Kind(name, plural or f"{name.lower()}s", group, **({"type": name} | more))  # type: ignore[arg-type]


_RBAC = "rbac.authorization.k8s.io"
_NET = "networking.k8s.io"
_ADMIT = "admissionregistration.k8s.io"
_FLOW = "flowcontrol.apiserver.k8s.io"
_OLD_APPS = ("apps/v1beta2", "apps/v1beta1")

KINDS: tuple[Kind, ...] = (
    _row("Pod", short=("po",), categories=("all",)),
    _row("ReplicationController", short=("rc",), categories=("all",), scale=True),
    _row("Service", short=("svc",), categories=("all",)),
    _row("Endpoints", "endpoints", short=("ep",)),
    _row("Node", namespaced=False, short=("no",)),
    _row("Namespace", namespaced=False, short=("ns",)),
    _row("ConfigMap", short=("cm",)),
    _row("Secret"),
    _row("ServiceAccount", short=("sa",)),
    _row("Event", short=("ev",), aliases=("events.k8s.io/v1",)),
    _row("PodTemplate", effect=False),
    _row("LimitRange", short=("limits",), effect=False),
    _row("ResourceQuota", short=("quota",), effect=False),
    _row("PersistentVolume", namespaced=False, short=("pv",), effect=False),
    _row("PersistentVolumeClaim", short=("pvc",), effect=False),
    _row("DaemonSet", "", "apps", short=("ds",), categories=("all",),
         aliases=("apps/v1beta2", "extensions/v1beta1")),
    _row("Deployment", "", "apps", short=("deploy",), categories=("all",), scale=True,
         aliases=(*_OLD_APPS, "extensions/v1beta1")),
    _row("ReplicaSet", "", "apps", short=("rs",), categories=("all",), scale=True,
         aliases=("apps/v1beta2", "extensions/v1beta1")),
    _row("StatefulSet", "", "apps", short=("sts",), categories=("all",), scale=True, aliases=_OLD_APPS),
    _row("ControllerRevision", "", "apps", effect=False),
    _row("Job", "", "batch", categories=("all",)),
    _row("CronJob", "", "batch", short=("cj",), categories=("all",), aliases=("batch/v1beta1",), effect=False),
    _row("HorizontalPodAutoscaler", "", "autoscaling", versions=("v2", "v1"), short=("hpa",), categories=("all",),
         effect=False),
    _row("EndpointSlice", "", "discovery.k8s.io", aliases=("discovery.k8s.io/v1beta1",)),
    _row("NetworkPolicy", "networkpolicies", _NET, short=("netpol",), aliases=("extensions/v1beta1",)),
    _row("Ingress", "ingresses", _NET, short=("ing",), effect=False,
         aliases=("networking.k8s.io/v1beta1", "extensions/v1beta1")),
    _row("IngressClass", "ingressclasses", _NET, namespaced=False, effect=False),
    _row("PodDisruptionBudget", "", "policy", short=("pdb",), aliases=("policy/v1beta1",)),
    _row("PodSecurityPolicy", "podsecuritypolicies", "policy", versions=("v1beta1",), namespaced=False, short=("psp",),
         type="", effect=False, aliases=("extensions/v1beta1",)),
    _row("Role", "", _RBAC, aliases=(f"{_RBAC}/v1beta1",), effect=False),
    _row("RoleBinding", "", _RBAC, aliases=(f"{_RBAC}/v1beta1",), effect=False),
    _row("ClusterRole", "", _RBAC, namespaced=False, aliases=(f"{_RBAC}/v1beta1",), effect=False),
    _row("ClusterRoleBinding", "", _RBAC, namespaced=False, aliases=(f"{_RBAC}/v1beta1",), effect=False),
    _row("StorageClass", "storageclasses", "storage.k8s.io", namespaced=False, short=("sc",), effect=False),
    _row("PriorityClass", "priorityclasses", "scheduling.k8s.io", namespaced=False, short=("pc",), effect=False),
    _row("CSIDriver", "", "storage.k8s.io", namespaced=False, type="", effect=False),
    _row("CSINode", "", "storage.k8s.io", namespaced=False, type="", effect=False),
    _row("CSIStorageCapacity", "csistoragecapacities", "storage.k8s.io", type="", effect=False),
    _row("VolumeAttachment", "", "storage.k8s.io", namespaced=False, type="", effect=False),
    _row("RuntimeClass", "runtimeclasses", "node.k8s.io", namespaced=False, type="", effect=False),
    _row("CertificateSigningRequest", "", "certificates.k8s.io", namespaced=False, short=("csr",), type="",
         effect=False),
    _row("FlowSchema", "", _FLOW, namespaced=False, type="", effect=False),
    _row("PriorityLevelConfiguration", "", _FLOW, namespaced=False, type="", effect=False),
    _row("Lease", "", "coordination.k8s.io"),
    _row("CustomResourceDefinition", "", "apiextensions.k8s.io", namespaced=False, short=("crd", "crds"), type="",
         effect=False, aliases=("apiextensions.k8s.io/v1beta1",)),
    _row("APIService", "", "apiregistration.k8s.io", namespaced=False, type="", effect=False,
         aliases=("apiregistration.k8s.io/v1beta1",)),
    _row("MutatingWebhookConfiguration", "", _ADMIT, namespaced=False, type="", effect=False),
    _row("ValidatingWebhookConfiguration", "", _ADMIT, namespaced=False, type="", effect=False),
    _row("ValidatingAdmissionPolicy", "validatingadmissionpolicies", _ADMIT, namespaced=False, type="", effect=False),
    _row("ValidatingAdmissionPolicyBinding", "", _ADMIT, namespaced=False, type="", effect=False),
)  # fmt: skip


class NoSuchKind(LookupError):
    """No kind of that name and version is served: a sentence in Kubernetes' words."""


def split_version(api_version: str) -> tuple[str, str]:
    """`apps/v1` -> (`apps`, `v1`); `v1` -> (``, `v1`)."""
    group, slash, version = api_version.rpartition("/")
    return (group, version) if slash else ("", api_version)


class Registry:
    """Look-ups over rows. A lab's own copy also has the kinds that its CustomResourceDefinitions brought."""

    def __init__(self, kinds: tuple[Kind, ...] = KINDS) -> None:
        self._kinds: dict[str, Kind] = {}
        self._by_kind: dict[tuple[str, str], Kind] = {}
        self._by_path: dict[tuple[str, str], Kind] = {}
        for kind in kinds:
            self.add(kind)

    def __iter__(self) -> Iterator[Kind]:
        return iter(self._kinds.values())

    def add(self, kind: Kind) -> None:
        """Serve one more kind."""
        self._kinds[kind.resource] = kind
        for version in self.versions(kind):
            self._by_kind[version, kind.name] = kind
            self._by_path[version, kind.plural] = kind

    def remove(self, resource: str) -> None:
        """Serve it no longer."""
        kind = self._kinds.pop(resource, None)
        for version in self.versions(kind) if kind is not None else ():
            self._by_kind.pop((version, kind.name), None)  # type: ignore[union-attr]
            self._by_path.pop((version, kind.plural), None)  # type: ignore[union-attr]

    @staticmethod
    def versions(kind: Kind) -> list[str]:
        """All group versions under which a kind is served, its own first."""
        own = [f"{kind.group}/{version}" if kind.group else version for version in kind.versions]
        return [*own, *kind.aliases]

    def of(self, api_version: str, name: str) -> Kind:
        """The kind that a manifest names. NoSuchKind."""
        found = self._by_kind.get((api_version, name))
        if found is None:
            raise NoSuchKind(f'no matches for kind "{name}" in version "{api_version}"')
        return found

    def knows(self, api_version: str, name: str) -> bool:
        """Whether a manifest may name such a kind."""
        return (api_version, name) in self._by_kind

    def at(self, api_version: str, plural: str) -> Kind | None:
        """The kind behind a path, or None."""
        return self._by_path.get((api_version, plural))

    def resource(self, resource: str) -> Kind:
        """The kind called `deployments.apps`; KeyError where there is none."""
        return self._kinds[resource]

    def find(self, word: str) -> Kind | None:
        """What a person means by `po`, `pod`, `pods`, `deploy`, `deployments.apps`; None where nothing."""
        word = word.lower()
        for kind in self:
            names = {kind.plural, kind.singular, kind.resource, f"{kind.singular}.{kind.group}", *kind.short}
            if word in names:
                return kind
        return None

    def group_versions(self) -> dict[str, list[Kind]]:
        """Every group version with its kinds: preferred ones before old ones."""
        found: dict[str, list[Kind]] = {}
        for kind in self:
            for version in self.versions(kind)[: len(kind.versions)]:
                found.setdefault(version, []).append(kind)
        for kind in self:
            for version in kind.aliases:
                found.setdefault(version, []).append(kind)
        return found
