"""NetworkPolicy objects as values, read once for each version of an object.

What a field that is absent means is decided here (networking/v1 types.go; fidelity NP-05 to NP-11):
no `from` is anyone, no `ports` is every port, a port without protocol is TCP, `policyTypes`
without a word is Ingress, and Egress where there is an egress section.

Rule of this file: objects in, values out; which pods are meant is worked out in `policing`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from emunet.cluster.selectors import LabelSelector, Requirement, of_object
from emunet.cluster.store import Object, View, labels_of, meta
from emunet.elements.policies.rules import LAST_PORT, Block
from emunet.packet.address import Prefix

PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}
"""Protocol numbers by the names that Kubernetes gives them."""

NAMES = {number: name for name, number in PROTOCOLS.items()}
Pairs = tuple[tuple[str, str], ...]
EVERYTHING = LabelSelector()
RESOURCE = "networkpolicies.networking.k8s.io"


@dataclass(frozen=True, slots=True)
class Port:
    """Ports that a rule names: one by number or by name, a range, or every one of a protocol."""

    protocol: int
    number: int = 0
    last: int = LAST_PORT
    name: str = ""

    def __str__(self) -> str:
        protocol = NAMES[self.protocol]
        if self.name:
            return f"{self.name}/{protocol}"
        if self.number == self.last:
            return f"{self.number}/{protocol}"
        return f"{self.number}-{self.last}/{protocol}" if self.number else f"every {protocol} port"


@dataclass(frozen=True, slots=True)
class Selection:
    """Pods by labels, of one namespace or of all whose labels fit. `str` is its name, the same for what is equal."""

    pods: LabelSelector
    namespace: str = ""
    namespaces: LabelSelector = EVERYTHING

    def __str__(self) -> str:
        pods = f"pods {in_words(self.pods)}" if self.pods.requirements else "every pod"
        if self.namespace:
            return f"{pods} of {self.namespace}"
        if not self.namespaces.requirements:
            return f"{pods} of every namespace"
        return f"{pods} of namespaces {in_words(self.namespaces)}"


@dataclass(frozen=True, slots=True)
class Rule:
    """Who may be at the other end (nobody named: anyone), and at which ports (none named: every port)."""

    selections: tuple[Selection, ...] = ()
    blocks: tuple[Block, ...] = ()
    ports: tuple[Port, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """A NetworkPolicy. A direction that it does not isolate is None; one without rules permits nothing."""

    namespace: str
    name: str
    pods: LabelSelector
    ingress: tuple[Rule, ...] | None
    egress: tuple[Rule, ...] | None

    @property
    def full_name(self) -> str:
        """`default/deny-all`."""
        return f"{self.namespace}/{self.name}"

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Those of both directions."""
        return (*(self.ingress or ()), *(self.egress or ()))


@dataclass(frozen=True, slots=True)
class PolicySet:
    """All policies, by namespace and name, and the labels of every namespace."""

    policies: tuple[Policy, ...] = ()
    namespaces: tuple[tuple[str, Pairs], ...] = ()


NO_POLICIES = PolicySet()


def in_words(selector: LabelSelector) -> str:
    """A selector as people write it in a query."""
    return ",".join(map(_condition, selector.requirements))


def _condition(one: Requirement) -> str:
    values = ",".join(one.values)
    match one.operator:
        case "In":
            return f"{one.key}={values}" if len(one.values) == 1 else f"{one.key} in ({values})"
        case "NotIn":
            return f"{one.key}!={values}" if len(one.values) == 1 else f"{one.key} notin ({values})"
        case "Exists":
            return one.key
        case "DoesNotExist":
            return f"!{one.key}"
    return f"{one.key} {one.operator} {values}"


def policy_of(item: Object) -> Policy:
    """A stored NetworkPolicy as a value."""
    spec, namespace = item["spec"], meta(item)["namespace"]
    types = spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]
    return Policy(
        namespace,
        meta(item)["name"],
        of_object(spec.get("podSelector")),
        _rules(spec.get("ingress"), "from", namespace) if "Ingress" in types else None,
        _rules(spec.get("egress"), "to", namespace) if "Egress" in types else None,
    )


def _rules(rules: Iterable[Object] | None, peers: str, namespace: str) -> tuple[Rule, ...]:
    return tuple(_rule(rule, rule.get(peers) or (), namespace) for rule in rules or ())


def _rule(rule: Object, peers: Iterable[Object], namespace: str) -> Rule:
    selections, blocks = [], []
    for peer in peers:
        if "ipBlock" in peer:
            block = peer["ipBlock"]
            blocks.append(
                Block(Prefix.around(block["cidr"]), tuple(Prefix.around(text) for text in block.get("except") or ()))
            )
        elif "namespaceSelector" in peer:
            pods, namespaces = of_object(peer.get("podSelector")), of_object(peer["namespaceSelector"])
            selections.append(Selection(pods, namespaces=namespaces))
        else:
            selections.append(Selection(of_object(peer.get("podSelector")), namespace))
    return Rule(tuple(selections), tuple(blocks), tuple(_port(port) for port in rule.get("ports") or ()))


def _port(port: Object) -> Port:
    protocol, number = PROTOCOLS[port.get("protocol") or "TCP"], port.get("port")
    if isinstance(number, str):
        return Port(protocol, name=number)
    return Port(protocol) if number is None else Port(protocol, number, port.get("endPort") or number)


class PolicyReader:
    """The policies of a store as values: the same value for the same version of the same objects."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._read: dict[str, tuple[str, Policy]] = {}
        self._set = PolicySet()
        self._is_old = True

    def changed(self) -> None:
        """A policy or a namespace has changed."""
        self._is_old = True

    def read(self) -> PolicySet:
        """All of them. Without any policy there are no namespaces either, so that theirs make no difference."""
        if self._is_old:
            self._is_old = False
            found = {meta(item)["uid"]: self._policy(item) for item in self._view.select(RESOURCE)}
            self._read = found
            policies = tuple(row[1] for row in found.values())
            spaces = self._view.select("namespaces") if policies else []
            namespaces = tuple((meta(one)["name"], tuple(sorted(labels_of(one).items()))) for one in spaces)
            self._set = PolicySet(policies, namespaces)
        return self._set

    def _policy(self, item: Object) -> tuple[str, Policy]:
        version = meta(item)["resourceVersion"]
        known = self._read.get(meta(item)["uid"])
        return known if known is not None and known[0] == version else (version, policy_of(item))


__all__ = ["NAMES", "PROTOCOLS", "Policy", "PolicyReader", "PolicySet", "Port", "Rule", "Selection", "policy_of"]
