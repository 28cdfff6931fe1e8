"""Kubernetes objects, typed: what emunet acts on, what it accepts, what it refuses.

`KINDS` are the two that become a network by themselves. A field that Kubernetes has and
emunet does not act on is `Ignored` (accepted, with a warning); one that is checked where
objects are stored (`validate`, `fields`) is `Any` here; any other name is a fault, with the
likely spelling. The field names are those of Kubernetes' core/v1
(api/core/v1, v1.28); making one act means giving it a type here.

Rule of this file: one model per Kubernetes type, no behaviour. It looks at one object
at a time; what needs two is `check`'s concern.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from emunet.cluster.kinds import Registry
from emunet.cluster.load import Document, Problem, got
from emunet.cluster.schema import (
    DnsLabel,
    DnsSubdomain,
    Ignored,
    LabelKey,
    LabelValue,
    Model,
    PortNumber,
    did_you_mean,
    ignored,
    read,
)
from emunet.cluster.topology import API_VERSION, Topology

MAC_ANNOTATION = "emunet/mac"
"""Fixes a pod's MAC address: `02:00:00:00:00:01`."""

IP_ANNOTATION = "emunet/ip"
"""Fixes a pod's address: `10.244.1.50`, or one of each family with a comma between."""

ANNOTATIONS = (MAC_ANNOTATION, IP_ANNOTATION)

_SERVICE_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]([a-z0-9]|-(?!-))*")


def _port_name(text: str) -> str:
    if len(text) > 15 or not _SERVICE_NAME.fullmatch(text) or text.endswith("-"):
        raise ValueError("expected a port name like http: at most 15 of a-z, 0-9 and -, with a letter (RFC 6335 5.1)")
    return text


def _variable_name(text: str) -> str:
    if not text or "=" in text or not text.isascii() or not text.isprintable():
        raise ValueError("expected the name of an environment variable: printable ASCII without =")
    return text


def _not_empty(text: str) -> str:
    if not text.strip():
        raise ValueError("expected some text")
    return text


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("expected text without a NUL character")
    return text


Word = Annotated[str, AfterValidator(_no_nul)]
"""Text that a kernel can take as an argument or a variable's value."""


class ObjectMeta(Model):
    """What every object has: its names and notes."""

    called: ClassVar[str] = "an object's metadata"
    name: DnsSubdomain
    namespace: DnsLabel = "default"
    labels: dict[LabelKey, LabelValue] = {}
    annotations: dict[LabelKey, str] = {}
    generate_name: Ignored = None
    finalizers: Ignored = None
    owner_references: Ignored = None
    creation_timestamp: Ignored = None
    deletion_timestamp: Ignored = None
    deletion_grace_period_seconds: Ignored = None
    generation: Ignored = None
    managed_fields: Ignored = None
    resource_version: Ignored = None
    self_link: Ignored = None
    uid: Ignored = None


class EnvVar(Model):
    """A variable of a container's environment."""

    called: ClassVar[str] = "an environment variable"
    name: Annotated[str, AfterValidator(_variable_name)]
    value: Word = ""
    value_from: Any = None


class ContainerPort(Model):
    """A port that a container says it listens on."""

    called: ClassVar[str] = "a container's port"
    container_port: PortNumber
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    name: Annotated[str, AfterValidator(_port_name)] | None = None
    host_port: PortNumber | None = None
    host_ip: str = Field("", alias="hostIP")


class Container(Model):
    """One program of a pod."""

    called: ClassVar[str] = "a container"
    name: DnsLabel
    image: Annotated[str, AfterValidator(_not_empty)]
    command: list[Word] = []
    args: list[Word] = []
    env: list[EnvVar] = []
    ports: list[ContainerPort] = []
    working_dir: Word = ""
    env_from: Any = None
    image_pull_policy: Ignored = None
    lifecycle: Any = None
    liveness_probe: Any = None
    readiness_probe: Any = None
    resize_policy: Ignored = None
    resources: Ignored = None
    restart_policy: Ignored = None
    security_context: Any = None
    startup_probe: Any = None
    stdin: Any = None
    stdin_once: Any = None
    termination_message_path: Ignored = None
    termination_message_policy: Ignored = None
    tty: Any = None
    volume_devices: Ignored = None
    volume_mounts: Any = None


class PodSpec(Model):
    """What a pod runs, and where."""

    called: ClassVar[str] = "a pod's spec"
    containers: Annotated[list[Container], Field(min_length=1)]
    node_name: str | None = None
    node_selector: dict[LabelKey, LabelValue] = {}
    hostname: DnsLabel | None = None
    restart_policy: Literal["Always", "OnFailure", "Never"] = "Always"
    host_network: bool = False
    active_deadline_seconds: Ignored = None
    affinity: Any = None
    automount_service_account_token: Ignored = None
    dns_config: Any = None
    dns_policy: Any = None
    enable_service_links: Any = None
    ephemeral_containers: Ignored = None
    host_aliases: Any = None
    host_ipc: Ignored = Field(None, alias="hostIPC")
    host_pid: Ignored = Field(None, alias="hostPID")
    host_users: Ignored = None
    hostname_override: Ignored = None
    image_pull_secrets: Ignored = None
    init_containers: Any = None
    os: Ignored = None
    overhead: Ignored = None
    preemption_policy: Ignored = None
    priority: Ignored = None
    priority_class_name: Ignored = None
    readiness_gates: Any = None
    resource_claims: Ignored = None
    resources: Ignored = None
    runtime_class_name: Ignored = None
    scheduler_name: Any = None
    scheduling_gates: Any = None
    security_context: Any = None
    service_account: Ignored = None
    service_account_name: Ignored = None
    set_hostname_as_fqdn: Any = Field(None, alias="setHostnameAsFQDN")
    share_process_namespace: Ignored = None
    subdomain: Any = None
    termination_grace_period_seconds: Any = None
    tolerations: Any = None
    topology_spread_constraints: Ignored = None
    volumes: Any = None


class Pod(Model):
    """One or more containers that share an address."""

    called: ClassVar[str] = "a Pod"
    api_version: Literal["v1"]
    kind: Literal["Pod"]
    metadata: ObjectMeta
    spec: PodSpec
    status: Ignored = None


KINDS: dict[str, tuple[str, type[Model]]] = {
    "Topology": (API_VERSION, Topology),
    "Pod": ("v1", Pod),
}
"""The kinds that become a network by themselves: their apiVersion and model. All others are kept in the store
(`kinds`), where controllers make pods of them.
"""

_STORED = Registry()


def is_stored(document: Document) -> bool:
    """True for an object that is the store's business alone: of a served kind that is neither a Topology nor a Pod."""
    version, kind = document.data.get("apiVersion"), document.data.get("kind")
    if not isinstance(version, str) or not isinstance(kind, str) or kind in KINDS:
        return False
    return any(one.name == kind for one in _STORED.group_versions().get(version, ()))


def expand(document: Document) -> list[Document | Problem]:
    """The document itself, or the items of a `kind: List` (kubectl does the same)."""
    if document.data.get("kind") != "List" or document.data.get("apiVersion") != "v1":
        return [document]
    return [found for item in document.items() for found in ([item] if isinstance(item, Problem) else expand(item))]


def read_object(document: Document) -> tuple[Model | None, list[Problem], list[Problem]]:
    """One object: its model (None if it cannot be one), its faults, and its warnings."""
    faults = _kind_faults(document)
    if faults:
        return None, faults, []
    _, model = KINDS[document.data["kind"]]
    value, faults = read(model, document)
    if value is None:
        return None, faults, []
    if isinstance(value, Pod):
        faults = _pod_faults(document, value)
    return value, faults, ignored(value, document)


def _kind_faults(document: Document) -> list[Problem]:
    faults = []
    for name in ("apiVersion", "kind"):
        value = document.data.get(name)
        if not isinstance(value, str):
            said = "is required" if value is None else "expected text"
            faults.append(document.problem((name,), f"{said} ({got(value)})"))
    if faults:
        return faults
    version, kind = document.data["apiVersion"], document.data["kind"]
    if kind in KINDS:
        expected = KINDS[kind][0]
        if version != expected:
            return [document.problem(("apiVersion",), f"expected {expected!r} for the kind {kind} ({got(version)})")]
        return []
    served = {one.name: _STORED.versions(one) for one in _STORED}
    if kind in served:
        expected = " or ".join(map(repr, served[kind]))
        return [document.problem(("apiVersion",), f"expected {expected} for the kind {kind} ({got(version)})")]
    return [document.problem(("kind",), f"there is no kind {kind!r}{did_you_mean(kind, [*KINDS, *served])}")]


def _pod_faults(document: Document, pod: Pod) -> list[Problem]:
    """What one model's fields cannot say: names that must be unique, annotations of ours."""
    faults = []
    names: dict[str, int] = {}
    for index, container in enumerate(pod.spec.containers):
        path = ("spec", "containers", index, "name")
        if container.name in names:
            first = document.place(("spec", "containers", names[container.name], "name")).line
            message = f"the container {container.name!r} is given twice (first on line {first})"
            faults.append(document.problem(path, message))
        names.setdefault(container.name, index)
        ports: set[str] = set()
        for number, port in enumerate(container.ports):
            if port.name in ports:
                message = f"the port name {port.name!r} is given twice in this container"
                faults.append(document.problem(("spec", "containers", index, "ports", number, "name"), message))
            if port.name is not None:
                ports.add(port.name)
    for key in pod.metadata.annotations:
        if key.startswith("emunet/") and key not in ANNOTATIONS:
            message = f"emunet knows no annotation {key!r}{did_you_mean(key, ANNOTATIONS)}"
            faults.append(document.problem(("metadata", "annotations", key), message, key=True))
    return faults


def hostname_of(pod: Pod) -> str:
    """The name that the pod's own kernel says: spec.hostname, or the pod's name cut to 63 (kubelet does the same)."""
    return pod.spec.hostname or pod.metadata.name[:63].rstrip("-.")
