"""What networking.k8s.io/v1 says of one connection: an oracle that knows nothing of how emunet does it.

Written from the API's own comments (NetworkPolicySpec, NetworkPolicyPeer, NetworkPolicyPort), straight
down: no index, no groups, objects as their manifests have them, addresses by `ipaddress`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Object = Mapping[str, Any]


@dataclass(frozen=True)
class End:
    """One end of a connection: a pod, or only an address."""

    address: str
    namespace: str = ""
    labels: Mapping[str, str] | None = None
    ports: tuple[tuple[str, str, int], ...] = ()
    """(name, protocol, number) that its containers declare."""


def allowed(
    policies: Iterable[Object],
    spaces: Mapping[str, Mapping[str, str]],
    source: End,
    target: End,
    protocol: str,
    port: int,
) -> bool:
    """Whether a connection from one end to a port of the other may begin."""
    policies = list(policies)
    return _side(policies, spaces, source, target, "Egress", target, protocol, port) and _side(
        policies, spaces, target, source, "Ingress", target, protocol, port
    )


def _side(
    policies: list[Object],
    spaces: Mapping[str, Mapping[str, str]],
    pod: End,
    peer: End,
    direction: str,
    target: End,
    protocol: str,
    port: int,
) -> bool:
    """Whether the policies that select `pod` let it talk to `peer`; without any they do."""
    if pod.labels is None:
        return True
    isolating = [
        one
        for one in policies
        if one["metadata"]["namespace"] == pod.namespace
        and selects(one["spec"]["podSelector"], pod.labels)
        and direction in types_of(one["spec"])
    ]
    if not isolating:
        return True
    section, word = ("ingress", "from") if direction == "Ingress" else ("egress", "to")
    for one in isolating:
        for rule in one["spec"].get(section) or []:
            if _peer_fits(rule.get(word) or [], one["metadata"]["namespace"], spaces, peer) and _port_fits(
                rule.get("ports") or [], target, protocol, port
            ):
                return True
    return False


def types_of(spec: Object) -> list[str]:
    """`policyTypes`, or what its absence means: Ingress always, Egress where there is an egress section with rules."""
    given = spec.get("policyTypes")
    if given:
        return list(given)
    return ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]


def selects(selector: Object, labels: Mapping[str, str]) -> bool:
    """A LabelSelector: all of matchLabels and of matchExpressions; without any, everything."""
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for one in selector.get("matchExpressions") or []:
        key, values = one["key"], one.get("values") or []
        fits = {
            "In": key in labels and labels[key] in values,
            "NotIn": key not in labels or labels[key] not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }[one["operator"]]
        if not fits:
            return False
    return True


def _peer_fits(peers: list[Object], namespace: str, spaces: Mapping[str, Mapping[str, str]], end: End) -> bool:
    if not peers:
        return True
    for peer in peers:
        if "ipBlock" in peer:
            address = ipaddress.ip_address(end.address)
            inside = _within(address, peer["ipBlock"]["cidr"])
            if inside and not any(_within(address, one) for one in peer["ipBlock"].get("except") or []):
                return True
            continue
        if end.labels is None:
            continue
        if "namespaceSelector" in peer:
            if not selects(peer["namespaceSelector"], spaces[end.namespace]):
                continue
        elif end.namespace != namespace:
            continue
        if selects(peer.get("podSelector") or {}, end.labels):
            return True
    return False


def _within(address: Any, network: str) -> bool:
    found = ipaddress.ip_network(network)
    return address.version == found.version and address in found


def _port_fits(ports: list[Object], target: End, protocol: str, port: int) -> bool:
    if not ports:
        return True
    for one in ports:
        if (one.get("protocol") or "TCP") != protocol:
            continue
        wanted = one.get("port")
        if wanted is None:
            return True
        if isinstance(wanted, str):
            if any((name, kind, number) == (wanted, protocol, port) for name, kind, number in target.ports):
                return True
        elif wanted <= port <= one.get("endPort", wanted):
            return True
    return False
