"""What objects may say that have an effect on the network: Services, their endpoints, policies."""

from __future__ import annotations

from collections.abc import Iterator

from emunet.cluster.schema import is_dns_label, is_dns_subdomain
from emunet.cluster.status import Cause
from emunet.cluster.store import Object
from emunet.cluster.validate.causes import duplicate, may_not, required, wrong
from emunet.cluster.validate.parts import (
    LABEL,
    PROTOCOLS,
    SUBDOMAIN,
    in_range,
    ip_address,
    label_selector,
    labels,
    one_of,
    port_name,
    unique,
)
from emunet.packet.address import Prefix

_FAMILY_POLICIES = ("PreferDualStack", "RequireDualStack", "SingleStack")

_SERVICE_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")


def is_checked(spec: Object) -> bool:
    """Whether load balancers ask hosts how many endpoints of a Service they have, on a port of its own."""
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def service(item: Object) -> Iterator[Cause]:
    """A Service: its type, its addresses, its ports."""
    spec = item.get("spec", {})
    yield from one_of("spec.type", spec.get("type"), _SERVICE_TYPES)
    yield from one_of("spec.sessionAffinity", spec.get("sessionAffinity"), ("ClientIP", "None"))
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
            yield from ip_address(f"spec.{field}", spec[field])
    for index, address in enumerate(spec.get("clusterIPs", ())):
        if address not in ("", "None"):
            yield from ip_address(f"spec.clusterIPs[{index}]", address)
    yield from one_of("spec.ipFamilyPolicy", spec.get("ipFamilyPolicy"), _FAMILY_POLICIES)
    for index, family in enumerate(spec.get("ipFamilies", ())):
        yield from one_of(f"spec.ipFamilies[{index}]", family, ("IPv4", "IPv6"))
    if spec.get("healthCheckNodePort") and not is_checked(spec):
        why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
        yield wrong("spec.healthCheckNodePort", spec["healthCheckNodePort"], why)
    for index, address in enumerate(spec.get("externalIPs", ())):
        yield from ip_address(f"spec.externalIPs[{index}]", address, special=False)
    for index, port in enumerate(ports):
        yield from _service_port(port, f"spec.ports[{index}]", several=len(ports) > 1)
    yield from unique("spec.ports", ((f"[{i}].name", port["name"]) for i, port in enumerate(ports) if "name" in port))
    keys = ((f"[{i}]", (port.get("port"), port.get("protocol"))) for i, port in enumerate(ports))
    for cause in unique("spec.ports", keys):
        number = int(cause.field.split("[")[1].rstrip("]"))
        yield duplicate(cause.field, f"{ports[number].get('port')}/{ports[number].get('protocol')}")


def _service_port(port: Object, field: str, *, several: bool) -> Iterator[Cause]:
    if several and not port.get("name"):
        yield required(f"{field}.name")
    elif port.get("name") and not is_dns_label(port["name"]):
        yield wrong(f"{field}.name", port["name"], LABEL)
    if "port" not in port:
        yield required(f"{field}.port")
    yield from in_range(f"{field}.port", port.get("port"), 1, 65535)
    yield from in_range(f"{field}.nodePort", port.get("nodePort"), 0, 65535)
    yield from one_of(f"{field}.protocol", port.get("protocol"), PROTOCOLS)
    target = port.get("targetPort")
    yield from in_range(f"{field}.targetPort", target, 1, 65535)
    if isinstance(target, str):
        yield from port_name(f"{field}.targetPort", target)


def endpoints(item: Object) -> Iterator[Cause]:
    """Endpoints: addresses that a packet can be sent to."""
    for number, subset in enumerate(item.get("subsets", ())):
        field = f"subsets[{number}]"
        if not subset.get("addresses") and not subset.get("notReadyAddresses"):
            yield required(field, "must specify `addresses` or `notReadyAddresses`")
        for group in ("addresses", "notReadyAddresses"):
            for index, address in enumerate(subset.get(group, ())):
                yield from ip_address(f"{field}.{group}[{index}].ip", address.get("ip", ""), special=False)
        ports = subset.get("ports", ())
        for index, port in enumerate(ports):
            if len(ports) > 1 and not port.get("name"):
                yield required(f"{field}.ports[{index}].name")
            yield from in_range(f"{field}.ports[{index}].port", port.get("port"), 1, 65535)


def endpoint_slice(item: Object) -> Iterator[Cause]:
    """An EndpointSlice: addresses of its own type."""
    yield from one_of("addressType", item.get("addressType"), ("FQDN", "IPv4", "IPv6"))
    if not item.get("addressType"):
        yield required("addressType")
    for number, endpoint in enumerate(item.get("endpoints", ())):
        for index, address in enumerate(endpoint.get("addresses", ())):
            if item.get("addressType") != "FQDN":
                yield from ip_address(f"endpoints[{number}].addresses[{index}]", address, special=False)


def network_policy(item: Object) -> Iterator[Cause]:
    """A NetworkPolicy: selectors, peers, ports."""
    spec = item.get("spec", {})
    yield from label_selector("spec.podSelector", spec.get("podSelector", {}))
    for index, name in enumerate(spec.get("policyTypes", ())):
        yield from one_of(f"spec.policyTypes[{index}]", name, ("Egress", "Ingress"))
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for number, rule in enumerate(spec.get(direction, ())):
            field = f"spec.{direction}[{number}]"
            for index, peer in enumerate(rule.get(peers, ())):
                yield from _peer(peer, f"{field}.{peers}[{index}]")
            for index, port in enumerate(rule.get("ports", ())):
                place = f"{field}.ports[{index}]"
                yield from one_of(f"{place}.protocol", port.get("protocol"), PROTOCOLS)
                yield from in_range(f"{place}.port", port.get("port"), 1, 65535)
                if isinstance(port.get("port"), str):
                    yield from port_name(f"{place}.port", port["port"])
                if "endPort" in port and not isinstance(port.get("port"), int):
                    yield wrong(f"{place}.endPort", port["endPort"], "may not be specified when `port` is not specified"
                                " or non-numeric")  # fmt: skip
                elif "endPort" in port:
                    yield from in_range(f"{place}.endPort", port["endPort"], 1, 65535)
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
            yield from label_selector(f"{field}.{name}", peer[name])


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
