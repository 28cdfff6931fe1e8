"""What an object may say: checks of meaning, in the words of the Kubernetes API.

Each check takes an object with its defaults filled in and yields Causes: the field, a reason,
a message. An empty result is a sound object.

Rule of this file: one object at a time (or an object and what it was before); nothing is
changed, and a check never stops at the first fault.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from emunet.cluster.defaults import template_of
from emunet.cluster.kinds import Kind
from emunet.cluster.pod_files import NAMESERVERS_MAX, SEARCH_CHARACTERS_MAX, SEARCHES_MAX
from emunet.cluster.quantities import QUANTITY, amount
from emunet.cluster.schema import is_dns_label, is_dns_subdomain
from emunet.cluster.selectors import of_map, of_object
from emunet.cluster.status import Cause
from emunet.packet.address import Prefix, is_link_local, is_loopback, is_multicast, is_unspecified, parse_ip

Object = dict[str, Any]

LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with"
    " an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is"
    " '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and"
    " end with an alphanumeric character (e.g. 'example.com', regex used for validation is"
    " '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
SERVICE_NAME = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character,"
    " and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is"
    " '[a-z]([-a-z0-9]*[a-z0-9])?')"
)
LABEL_KEY = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric"
    " character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is"
    " '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
LABEL_VALUE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and"
    " end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is"
    " '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
VARIABLE = (
    "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', and must not"
    " start with a digit"
)
PERCENT = (
    "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for"
    " validation is '[0-9]+%')"
)
_KEY = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_PORT_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]([a-z0-9]|-(?!-|$))*")
_VARIABLE = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_CONFIG_KEY = re.compile(r"[-._a-zA-Z0-9]+")

PROTOCOLS = ("SCTP", "TCP", "UDP")
_FAMILY_POLICIES = ("PreferDualStack", "RequireDualStack", "SingleStack")


def required(field: str, why: str = "") -> Cause:
    """A field that must be there is not."""
    return Cause(field, "FieldValueRequired", f"Required value{': ' if why else ''}{why}")


def wrong(field: str, value: object, why: str) -> Cause:
    """A field has a value that it cannot have."""
    return Cause(field, "FieldValueInvalid", f"Invalid value: {shown(value)}: {why}")


def unsupported(field: str, value: object, known: Iterable[str]) -> Cause:
    """A field has a value that is none of those it may have."""
    listed = ", ".join(f'"{one}"' for one in sorted(known))
    return Cause(field, "FieldValueNotSupported", f"Unsupported value: {shown(value)}: supported values: {listed}")


def duplicate(field: str, value: object) -> Cause:
    """A value is there twice that must be unique."""
    return Cause(field, "FieldValueDuplicate", f"Duplicate value: {shown(value)}")


def may_not(field: str, why: str) -> Cause:
    """A field is given that must not be."""
    return Cause(field, "FieldValueForbidden", f"Forbidden: {why}")


def shown(value: object) -> str:
    """A value as the API's messages show it."""
    if isinstance(value, str):
        return '"' + value.replace('"', '\\"') + '"'
    if isinstance(value, dict) and all(isinstance(one, str) for one in value.values()):
        return "map[string]string{" + ", ".join(f'"{key}":"{value[key]}"' for key in sorted(value)) + "}"
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return "[]string{" + ", ".join(f'"{one}"' for one in value) + "}"
    return str(value).lower() if isinstance(value, bool) else str(value)


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
        yield from _label_key("metadata.annotations", key.lower())


def labels(field: str, found: Object) -> Iterator[Cause]:
    """Keys and values of labels."""
    for key, value in found.items():
        yield from _label_key(field, key)
        if len(value) > 63:
            yield wrong(field, value, "must be no more than 63 characters")
        elif value and not _KEY.fullmatch(value):
            yield wrong(field, value, LABEL_VALUE)


def _label_key(field: str, key: str) -> Iterator[Cause]:
    prefix, slash, name = key.rpartition("/")
    if slash and not is_dns_subdomain(prefix):
        yield wrong(field, key, f"prefix part {SUBDOMAIN}")
    if not name or len(name) > 63 or not _KEY.fullmatch(name):
        yield wrong(field, key, LABEL_KEY)


def _number(field: str, value: object, low: int, high: int) -> Iterator[Cause]:
    if isinstance(value, int) and not low <= value <= high:
        yield wrong(field, value, f"must be between {low} and {high}, inclusive")


def _not_negative(field: str, value: object) -> Iterator[Cause]:
    if isinstance(value, int) and value < 0:
        yield wrong(field, value, "must be greater than or equal to 0")


def _one_of(field: str, value: object, known: Sequence[str]) -> Iterator[Cause]:
    if value is not None and value not in known:
        yield unsupported(field, value, known)


def _unique(field: str, names: Iterable[tuple[str, Any]]) -> Iterator[Cause]:
    seen: set[Any] = set()
    for place, name in names:
        if name in seen:
            yield duplicate(f"{field}{place}", name)
        seen.add(name)


# Pods


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
        yield from _one_of(f"{field}.restartPolicy", spec.get("restartPolicy"), policies)
    dns = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
    yield from _one_of(f"{field}.dnsPolicy", spec.get("dnsPolicy"), dns)
    yield from _not_negative(f"{field}.terminationGracePeriodSeconds", spec.get("terminationGracePeriodSeconds"))
    for name in ("hostname", "subdomain"):
        if name in spec and not is_dns_label(spec[name]):
            yield wrong(f"{field}.{name}", spec[name], LABEL)
    yield from _dns_config(spec, field)
    yield from labels(f"{field}.nodeSelector", spec.get("nodeSelector", {}))
    volumes = {volume.get("name", "") for volume in spec.get("volumes", ())} | set(claims)
    yield from _volumes(spec, field)
    names = [
        (f"{group}[{index}].name", container.get("name", ""))
        for group in ("initContainers", "containers")
        for index, container in enumerate(spec.get(group, ()))
    ]
    yield from _unique(f"{field}.", names)
    for group in ("initContainers", "containers"):
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


def _dns_config(spec: Object, field: str) -> Iterator[Cause]:
    """What a pod wants of its resolver; the limits are those of Kubernetes (pkg/apis/core/validation)."""
    config, place = spec.get("dnsConfig") or {}, f"{field}.dnsConfig"
    servers, searches = config.get("nameservers", ()), config.get("searches", ())
    if spec.get("dnsPolicy") == "None" and not servers:
        yield required(f"{place}.nameservers", "must provide at least one DNS nameserver when `dnsPolicy` is None")
    if len(servers) > NAMESERVERS_MAX:
        yield wrong(f"{place}.nameservers", list(servers), f"must not have more than {NAMESERVERS_MAX} nameservers")
    for index, server in enumerate(servers):
        yield from _address(f"{place}.nameservers[{index}]", server, special=False)
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
    yield from _unique(f"{field}.volumes", ((f"[{i}].name", one.get("name", "")) for i, one in enumerate(found)))
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
    yield from _unique(f"{field}.ports", named)
    for index, port in enumerate(ports):
        place = f"{field}.ports[{index}]"
        if "containerPort" not in port:
            yield required(f"{place}.containerPort")
        yield from _number(f"{place}.containerPort", port.get("containerPort"), 1, 65535)
        yield from _number(f"{place}.hostPort", port.get("hostPort"), 0, 65535)
        yield from _one_of(f"{place}.protocol", port.get("protocol"), PROTOCOLS)
        if "name" in port:
            yield from _port_name(f"{place}.name", port["name"])
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
    yield from _unique(f"{field}.volumeMounts", paths)
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
        yield from _number(f"{field}.{name}.port", port, 1, 65535)


def _port_name(field: str, name: str) -> Iterator[Cause]:
    if len(name) > 15:
        yield wrong(field, name, "must be no more than 15 characters")
    elif not _PORT_NAME.fullmatch(name):
        yield wrong(field, name, "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-), at least one"
                    " letter or number (a-z, 0-9), and no consecutive hyphens")  # fmt: skip


def _pod(item: Object) -> Iterator[Cause]:
    yield from pod_spec(item.get("spec", {}))


# Controllers


def _with_template(kind: str) -> Callable[[Object], Iterator[Cause]]:
    restart = ("OnFailure", "Never") if kind in ("Job", "CronJob") else ("Always",)

    def checks(item: Object) -> Iterator[Cause]:
        spec = item.get("spec", {})
        yield from _not_negative("spec.replicas", spec.get("replicas"))
        field = "spec.jobTemplate.spec.template" if kind == "CronJob" else "spec.template"
        template = template_of(kind, item)
        if template is None:
            yield required(field)
            return
        found = template.get("metadata", {}).get("labels", {})
        yield from labels(f"{field}.metadata.labels", found)
        claims = [one.get("metadata", {}).get("name", "") for one in spec.get("volumeClaimTemplates", ())]
        yield from pod_spec(template.get("spec", {}), f"{field}.spec", restart=restart, claims=claims)
        if kind in ("Job", "CronJob"):
            return
        selector = spec.get("selector")
        empty = not selector or not (selector.get("matchLabels") or selector.get("matchExpressions"))
        if kind == "ReplicationController":
            if not selector:
                yield required("spec.selector")
            elif not of_map(selector).matches(found):
                yield wrong("spec.template.metadata.labels", found, "`selector` does not match template `labels`")
        elif selector is None:
            yield required("spec.selector")
            yield wrong("spec.template.metadata.labels", found, "`selector` does not match template `labels`")
        elif empty:
            yield wrong("spec.selector", "{}", f"empty selector is invalid for {kind[0].lower()}{kind[1:]}")
        else:
            yield from _selector("spec.selector", selector)
            if not of_object(selector).matches(found):
                yield wrong("spec.template.metadata.labels", found, "`selector` does not match template `labels`")
        if kind == "Deployment":
            yield from _rolling(spec.get("strategy", {}), "spec.strategy", ("RollingUpdate", "Recreate"))
        if kind in ("StatefulSet", "DaemonSet"):
            yield from _one_of(
                "spec.updateStrategy.type", spec.get("updateStrategy", {}).get("type"), ("RollingUpdate", "OnDelete")
            )

    return checks


def _rolling(strategy: Object, field: str, known: Sequence[str]) -> Iterator[Cause]:
    yield from _one_of(f"{field}.type", strategy.get("type"), known)
    rolling = strategy.get("rollingUpdate")
    if strategy.get("type") == "Recreate" and rolling is not None:
        yield may_not(f"{field}.rollingUpdate", "may not be specified when strategy `type` is 'Recreate'")
    for name in ("maxSurge", "maxUnavailable") if rolling else ():
        value = rolling.get(name)  # type: ignore[union-attr]
        if isinstance(value, str) and not re.fullmatch(r"[0-9]+%", value):
            yield wrong(f"{field}.rollingUpdate.{name}", value, PERCENT)
        yield from _not_negative(f"{field}.rollingUpdate.{name}", value)
    if rolling and all(rolling.get(name) in (0, "0%") for name in ("maxSurge", "maxUnavailable")):
        yield wrong(f"{field}.rollingUpdate.maxUnavailable", 0, "may not be 0 when `maxSurge` is 0")


def _selector(field: str, selector: Object) -> Iterator[Cause]:
    yield from labels(f"{field}.matchLabels", selector.get("matchLabels", {}))
    for index, one in enumerate(selector.get("matchExpressions", ())):
        place = f"{field}.matchExpressions[{index}]"
        operator, values = one.get("operator"), one.get("values", ())
        if operator in ("In", "NotIn") and not values:
            yield required(f"{place}.values", "must be specified when `operator` is 'In' or 'NotIn'")
        elif operator in ("Exists", "DoesNotExist") and values:
            yield may_not(f"{place}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
        elif operator not in ("In", "NotIn", "Exists", "DoesNotExist"):
            yield wrong(f"{place}.operator", operator, "not a valid selector operator")


# Services and policies

_SERVICE_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")


def _service(item: Object) -> Iterator[Cause]:
    spec = item.get("spec", {})
    yield from _one_of("spec.type", spec.get("type"), _SERVICE_TYPES)
    yield from _one_of("spec.sessionAffinity", spec.get("sessionAffinity"), ("ClientIP", "None"))
    yield from labels("spec.selector", spec.get("selector", {}))
    ports = spec.get("ports", ())
    headless = spec.get("clusterIP") == "None"
    if spec.get("type") == "ExternalName":
        if not is_dns_subdomain(spec.get("externalName", "").rstrip(".")):
            yield (
                required("spec.externalName")
                if not spec.get("externalName")
                else wrong("spec.externalName", spec["externalName"], SUBDOMAIN)
            )
    elif not ports and not headless:
        yield required("spec.ports")
    if headless and spec.get("type") not in ("ClusterIP", "ExternalName"):
        yield wrong("spec.clusterIPs[0]", "None", f"may not be set to 'None' for {spec['type']} services")
    for field in ("clusterIP", "loadBalancerIP"):
        if spec.get(field) and spec[field] != "None":
            yield from _address(f"spec.{field}", spec[field])
    for index, address in enumerate(spec.get("clusterIPs", ())):
        if address not in ("", "None"):
            yield from _address(f"spec.clusterIPs[{index}]", address)
    yield from _one_of("spec.ipFamilyPolicy", spec.get("ipFamilyPolicy"), _FAMILY_POLICIES)
    for index, family in enumerate(spec.get("ipFamilies", ())):
        yield from _one_of(f"spec.ipFamilies[{index}]", family, ("IPv4", "IPv6"))
    for index, address in enumerate(spec.get("externalIPs", ())):
        yield from _address(f"spec.externalIPs[{index}]", address, special=False)
    for index, port in enumerate(ports):
        yield from _service_port(port, f"spec.ports[{index}]", several=len(ports) > 1)
    yield from _unique("spec.ports", ((f"[{i}].name", port["name"]) for i, port in enumerate(ports) if "name" in port))
    keys = ((f"[{i}]", (port.get("port"), port.get("protocol"))) for i, port in enumerate(ports))
    for cause in _unique("spec.ports", keys):
        number = int(cause.field.split("[")[1].rstrip("]"))
        yield duplicate(cause.field, f"{ports[number].get('port')}/{ports[number].get('protocol')}")


def _service_port(port: Object, field: str, *, several: bool) -> Iterator[Cause]:
    if several and not port.get("name"):
        yield required(f"{field}.name")
    elif port.get("name") and not is_dns_label(port["name"]):
        yield wrong(f"{field}.name", port["name"], LABEL)
    if "port" not in port:
        yield required(f"{field}.port")
    yield from _number(f"{field}.port", port.get("port"), 1, 65535)
    yield from _number(f"{field}.nodePort", port.get("nodePort"), 0, 65535)
    yield from _one_of(f"{field}.protocol", port.get("protocol"), PROTOCOLS)
    target = port.get("targetPort")
    yield from _number(f"{field}.targetPort", target, 1, 65535)
    if isinstance(target, str):
        yield from _port_name(f"{field}.targetPort", target)


def _address(field: str, text: str, *, special: bool = True) -> Iterator[Cause]:
    try:
        address = parse_ip(text)
    except ValueError:
        yield wrong(field, text, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")
        return
    if special:
        return
    for found, why in (
        (is_unspecified(address), "may not be unspecified (0.0.0.0 or ::)"),
        (is_loopback(address), "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        (is_link_local(address), "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        (is_multicast(address), "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
    ):
        if found:
            yield wrong(field, text, why)
            return


def _endpoints(item: Object) -> Iterator[Cause]:
    for number, subset in enumerate(item.get("subsets", ())):
        field = f"subsets[{number}]"
        if not subset.get("addresses") and not subset.get("notReadyAddresses"):
            yield required(field, "must specify `addresses` or `notReadyAddresses`")
        for group in ("addresses", "notReadyAddresses"):
            for index, address in enumerate(subset.get(group, ())):
                yield from _address(f"{field}.{group}[{index}].ip", address.get("ip", ""), special=False)
        ports = subset.get("ports", ())
        for index, port in enumerate(ports):
            if len(ports) > 1 and not port.get("name"):
                yield required(f"{field}.ports[{index}].name")
            yield from _number(f"{field}.ports[{index}].port", port.get("port"), 1, 65535)


def _endpoint_slice(item: Object) -> Iterator[Cause]:
    yield from _one_of("addressType", item.get("addressType"), ("FQDN", "IPv4", "IPv6"))
    if not item.get("addressType"):
        yield required("addressType")
    for number, endpoint in enumerate(item.get("endpoints", ())):
        for index, address in enumerate(endpoint.get("addresses", ())):
            if item.get("addressType") != "FQDN":
                yield from _address(f"endpoints[{number}].addresses[{index}]", address, special=False)


def _network_policy(item: Object) -> Iterator[Cause]:
    spec = item.get("spec", {})
    yield from _selector("spec.podSelector", spec.get("podSelector", {}))
    for index, name in enumerate(spec.get("policyTypes", ())):
        yield from _one_of(f"spec.policyTypes[{index}]", name, ("Egress", "Ingress"))
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for number, rule in enumerate(spec.get(direction, ())):
            field = f"spec.{direction}[{number}]"
            for index, peer in enumerate(rule.get(peers, ())):
                yield from _peer(peer, f"{field}.{peers}[{index}]")
            for index, port in enumerate(rule.get("ports", ())):
                place = f"{field}.ports[{index}]"
                yield from _one_of(f"{place}.protocol", port.get("protocol"), PROTOCOLS)
                yield from _number(f"{place}.port", port.get("port"), 1, 65535)
                if isinstance(port.get("port"), str):
                    yield from _port_name(f"{place}.port", port["port"])
                if "endPort" in port and not isinstance(port.get("port"), int):
                    yield wrong(f"{place}.endPort", port["endPort"], "may not be specified when `port` is not specified"
                                " or non-numeric")  # fmt: skip
                elif "endPort" in port:
                    yield from _number(f"{place}.endPort", port["endPort"], 1, 65535)
                    if port["endPort"] < port["port"]:
                        yield wrong(f"{place}.endPort", port["endPort"], "must be greater than or equal to `port`")


def _peer(peer: Object, field: str) -> Iterator[Cause]:
    if not peer:
        yield required(field, "must specify a peer")
    if "ipBlock" in peer and len(peer) > 1:
        yield may_not(field, "may not specify both ipBlock and another peer")
    block = peer.get("ipBlock")
    if block is not None:
        yield from _network(f"{field}.ipBlock.cidr", block.get("cidr", ""))
        whole = _prefix(block.get("cidr", ""))
        for index, text in enumerate(block.get("except", ())):
            place, part = f"{field}.ipBlock.except[{index}]", _prefix(text)
            yield from _network(place, text)
            if whole is not None and part is not None and not _is_within(part, whole):
                yield wrong(place, text, "must be a strict subset of `cidr`")
    for name in ("podSelector", "namespaceSelector"):
        if name in peer:
            yield from _selector(f"{field}.{name}", peer[name])


def _is_within(part: Prefix, whole: Prefix) -> bool:
    return part.length > whole.length and whole.contains(part.address)


def _prefix(text: str) -> Prefix | None:
    try:
        return Prefix.around(text)
    except ValueError:
        return None


def _network(field: str, text: str) -> Iterator[Cause]:
    if _prefix(text) is None:
        yield wrong(field, text, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")


# What holds data


def _config_map(item: Object) -> Iterator[Cause]:
    for group in ("data", "binaryData"):
        for key in item.get(group, {}):
            if not _CONFIG_KEY.fullmatch(key) or key in (".", ".."):
                yield wrong(f"{group}[{key}]", key, "a valid config key must consist of alphanumeric characters, '-',"
                            " '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation"
                            " is '[-._a-zA-Z0-9]+')")  # fmt: skip


def _secret(item: Object) -> Iterator[Cause]:
    yield from _config_map({"data": item.get("data", {})})
    for key, text in item.get("data", {}).items():
        try:
            base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            yield wrong(f"data[{key}]", "<secret contents redacted>", "illegal base64 data")


def _budget(item: Object) -> Iterator[Cause]:
    """A PodDisruptionBudget: one of its two bounds, as a number or a percentage."""
    spec = item.get("spec", {})
    given = [name for name in ("minAvailable", "maxUnavailable") if name in spec]
    if len(given) == 2:
        yield wrong("spec", spec, "minAvailable and maxUnavailable cannot be both set")
    for name in given:
        value = spec[name]
        if isinstance(value, str) and not re.fullmatch(r"[0-9]+%", value):
            yield wrong(f"spec.{name}", value, PERCENT)
        yield from _not_negative(f"spec.{name}", value)


_CHECKS: dict[str, Callable[[Object], Iterator[Cause]]] = {
    "Pod": _pod,
    **{kind: _with_template(kind) for kind in (
        "ReplicationController", "ReplicaSet", "Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob",
    )},
    "Service": _service,
    "Endpoints": _endpoints,
    "EndpointSlice": _endpoint_slice,
    "NetworkPolicy": _network_policy,
    "ConfigMap": _config_map,
    "Secret": _secret,
    "PodDisruptionBudget": _budget,
}  # fmt: skip


# What may not change


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
