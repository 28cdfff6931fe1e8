"""What a pod may say, by itself or as a template."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from emunet.cluster.controllers.spread import HARD, SOFT
from emunet.cluster.pod_files import NAMESERVERS_MAX, SEARCH_CHARACTERS_MAX, SEARCHES_MAX
from emunet.cluster.quantities import QUANTITY, amount
from emunet.cluster.schema import is_dns_label, is_dns_subdomain
from emunet.cluster.status import Cause
from emunet.cluster.store import Object
from emunet.cluster.validate.causes import duplicate, may_not, required, shown, unsupported, wrong
from emunet.cluster.validate.parts import (
    LABEL,
    PROTOCOLS,
    SUBDOMAIN,
    in_range,
    ip_address,
    label_selector,
    labels,
    not_negative,
    one_of,
    port_name,
    unique,
)

VARIABLE = (
    "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', and must not"
    " start with a digit"
)
_GROUPS = ("initContainers", "containers", "ephemeralContainers")
_VARIABLE = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")


def pod_spec(
    spec: Object, field: str = "spec", *, restart: Sequence[str] = (), claims: Iterable[str] = ()
) -> Iterator[Cause]:
    """A pod's spec, or that of a template (which may restrict `restartPolicy`, and bring volumes by its `claims`)."""
    if not spec.get("containers"):
        yield required(f"{field}.containers")
    policies = restart or ("Always", "OnFailure", "Never")
    if spec.get("restartPolicy") == "Always" and "Always" not in policies:
        yield required(f"{field}.restartPolicy", 'valid values: "OnFailure", "Never"')
    else:
        yield from one_of(f"{field}.restartPolicy", spec.get("restartPolicy"), policies)
    dns = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
    yield from one_of(f"{field}.dnsPolicy", spec.get("dnsPolicy"), dns)
    yield from not_negative(f"{field}.terminationGracePeriodSeconds", spec.get("terminationGracePeriodSeconds"))
    for name in ("hostname", "subdomain"):
        if name in spec and not is_dns_label(spec[name]):
            yield wrong(f"{field}.{name}", spec[name], LABEL)
    yield from _dns_config(spec, field)
    yield from labels(f"{field}.nodeSelector", spec.get("nodeSelector", {}))
    yield from _spread(spec.get("topologySpreadConstraints", ()), f"{field}.topologySpreadConstraints")
    volumes = {volume.get("name", "") for volume in spec.get("volumes", ())} | set(claims)
    yield from _volumes(spec, field)
    names = [
        (f"{group}[{index}].name", container.get("name", ""))
        for group in _GROUPS
        for index, container in enumerate(spec.get(group, ()))
    ]
    yield from unique(f"{field}.", names)
    for group in _GROUPS:
        for index, container in enumerate(spec.get(group, ())):
            yield from _container(container, f"{field}.{group}[{index}]", volumes)
            if spec.get("hostNetwork"):
                yield from _own_ports(container, f"{field}.{group}[{index}]")


def _own_ports(container: Object, field: str) -> Iterator[Cause]:
    """In its host's network a container's ports are the host's: none leads to another."""
    for index, port in enumerate(container.get("ports", ())):
        number = port.get("containerPort")
        if number is not None and (port.get("hostPort") or number) != number:
            place = f"{field}.ports[{index}].containerPort"
            yield wrong(place, number, "must match `hostPort` when `hostNetwork` is true")


def _spread(constraints: Sequence[Object], field: str) -> Iterator[Cause]:
    """How evenly pods are to stand (pkg/apis/core/validation)."""
    pairs: set[tuple[str, str]] = set()
    for index, one in enumerate(constraints):
        place, when = f"{field}[{index}]", one.get("whenUnsatisfiable", "")
        if one.get("maxSkew", 0) <= 0:
            yield wrong(f"{place}.maxSkew", one.get("maxSkew", 0), "must be greater than zero")
        if not one.get("topologyKey"):
            yield required(f"{place}.topologyKey", "can not be empty")
        if when not in (HARD, SOFT):
            yield unsupported(f"{place}.whenUnsatisfiable", when, (HARD, SOFT))
        domains = one.get("minDomains")
        if domains is not None and domains <= 0:
            yield wrong(f"{place}.minDomains", domains, "must be greater than zero")
        elif domains is not None and when != HARD:
            why = f"can only use minDomains if whenUnsatisfiable={HARD}, not {when}"
            yield wrong(f"{place}.minDomains", domains, why)
        for name in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
            yield from one_of(f"{place}.{name}", one.get(name), ("Honor", "Ignore"))
        pair = (one.get("topologyKey", ""), when)
        if pair in pairs:
            yield duplicate(f"{place}.{{topologyKey, whenUnsatisfiable}}", f"{{{pair[0]}, {pair[1]}}}")
        pairs.add(pair)
        yield from label_selector(f"{place}.labelSelector", one.get("labelSelector") or {})


def _dns_config(spec: Object, field: str) -> Iterator[Cause]:
    """What a pod wants of its resolver; the limits are those of Kubernetes (pkg/apis/core/validation)."""
    config, place = spec.get("dnsConfig") or {}, f"{field}.dnsConfig"
    servers, searches = config.get("nameservers", ()), config.get("searches", ())
    if spec.get("dnsPolicy") == "None" and not servers:
        yield required(f"{place}.nameservers", "must provide at least one DNS nameserver when `dnsPolicy` is None")
    if len(servers) > NAMESERVERS_MAX:
        yield wrong(f"{place}.nameservers", list(servers), f"must not have more than {NAMESERVERS_MAX} nameservers")
    for index, server in enumerate(servers):
        yield from ip_address(f"{place}.nameservers[{index}]", server, special=False)
    if len(searches) > SEARCHES_MAX:
        yield wrong(f"{place}.searches", list(searches), f"must not have more than {SEARCHES_MAX} search paths")
    if len(" ".join(searches)) > SEARCH_CHARACTERS_MAX:
        why = f"must not have more than {SEARCH_CHARACTERS_MAX} characters (including spaces) in the search list"
        yield wrong(f"{place}.searches", list(searches), why)
    for index, search in enumerate(searches):
        if search != "." and not is_dns_subdomain(search.removesuffix(".").replace("_", "a")):
            yield wrong(f"{place}.searches[{index}]", search, SUBDOMAIN)
    for index, option in enumerate(config.get("options", ())):
        if not option.get("name"):
            yield required(f"{place}.options[{index}]", "must not be empty")


def _volumes(spec: Object, field: str) -> Iterator[Cause]:
    found = spec.get("volumes", ())
    yield from unique(f"{field}.volumes", ((f"[{i}].name", one.get("name", "")) for i, one in enumerate(found)))
    for index, volume in enumerate(found):
        place = f"{field}.volumes[{index}]"
        name = volume.get("name", "")
        if not name:
            yield required(f"{place}.name")
        elif not is_dns_label(name):
            yield wrong(f"{place}.name", name, LABEL)
        sources = [key for key in volume if key != "name"]
        if not sources:
            yield required(place, "must specify a volume type")
        elif len(sources) > 1:
            yield may_not(f"{place}.{sorted(sources)[1]}", "may not specify more than 1 volume type")


def _container(container: Object, field: str, volumes: set[str]) -> Iterator[Cause]:
    name = container.get("name", "")
    if not name:
        yield required(f"{field}.name")
    elif not is_dns_label(name):
        yield wrong(f"{field}.name", name, LABEL)
    if not container.get("image", "").strip():
        yield required(f"{field}.image")
    ports = container.get("ports", ())
    named = [(f"[{i}].name", port["name"]) for i, port in enumerate(ports) if "name" in port]
    yield from unique(f"{field}.ports", named)
    for index, port in enumerate(ports):
        place = f"{field}.ports[{index}]"
        if "containerPort" not in port:
            yield required(f"{place}.containerPort")
        yield from in_range(f"{place}.containerPort", port.get("containerPort"), 1, 65535)
        yield from in_range(f"{place}.hostPort", port.get("hostPort"), 0, 65535)
        yield from one_of(f"{place}.protocol", port.get("protocol"), PROTOCOLS)
        if "name" in port:
            yield from port_name(f"{place}.name", port["name"])
    for index, variable in enumerate(container.get("env", ())):
        place = f"{field}.env[{index}]"
        if not variable.get("name"):
            yield required(f"{place}.name")
        elif not _VARIABLE.fullmatch(variable["name"]):
            yield wrong(f"{place}.name", variable["name"], VARIABLE)
        if variable.get("value") and "valueFrom" in variable:
            yield wrong(f"{place}.valueFrom", "", "may not be specified when `value` is not empty")
    mounts = container.get("volumeMounts", ())
    paths = ((f"[{i}].mountPath", one.get("mountPath")) for i, one in enumerate(mounts))
    yield from unique(f"{field}.volumeMounts", paths)
    for index, mount in enumerate(mounts):
        if mount.get("name") not in volumes:
            yield Cause(f"{field}.volumeMounts[{index}].name", "FieldValueNotFound",
                        f"Not found: {shown(mount.get('name', ''))}")  # fmt: skip
        if not mount.get("mountPath"):
            yield required(f"{field}.volumeMounts[{index}].mountPath")
    for group in ("limits", "requests"):
        for key, value in container.get("resources", {}).get(group, {}).items():
            if not QUANTITY.fullmatch(value):
                yield wrong(f"{field}.resources.{group}[{key}]", value, "quantities must match the regular expression"
                            " '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")  # fmt: skip
    yield from _within_limits(f"{field}.resources", container.get("resources", {}))
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        if probe in container:
            yield from _probe(container[probe], f"{field}.{probe}")


def _within_limits(field: str, resources: Object) -> Iterator[Cause]:
    limits = resources.get("limits", {})
    for key, value in resources.get("requests", {}).items():
        limit = limits.get(key, value)
        if QUANTITY.fullmatch(value) and QUANTITY.fullmatch(limit) and amount(value) > amount(limit):
            yield wrong(f"{field}.requests", value, f"must be less than or equal to {key} limit of {limit}")


def _probe(probe: Object, field: str) -> Iterator[Cause]:
    handlers = [name for name in ("exec", "httpGet", "tcpSocket", "grpc") if name in probe]
    if not handlers:
        yield required(field, "must specify a handler type")
    elif len(handlers) > 1:
        yield may_not(f"{field}.{handlers[1]}", "may not specify more than 1 handler type")
    for name in handlers:
        port = probe[name].get("port") if name != "exec" else None
        yield from in_range(f"{field}.{name}.port", port, 1, 65535)


def pod(item: Object) -> Iterator[Cause]:
    """A Pod."""
    yield from pod_spec(item.get("spec", {}))
