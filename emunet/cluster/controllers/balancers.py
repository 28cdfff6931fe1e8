"""LoadBalancers: an address of the topology's pool for each Service that asks for one, and a host that answers for it.

As a load balancer in layer 2 does it (MetalLB's L2 mode): one host answers ARP and neighbour
discovery for the address on the underlay, and what comes in there is led on by its own Services.
Which one is a hash of the seed, so that Services are spread; it stays that one until its node is
not ready, is gone, or has no ready endpoint left where `externalTrafficPolicy: Local` wants one.

The address stands in `status.loadBalancer`, the host in the annotation `emunet/announced-by`.

Rule of this file: what is given out is read from the Services themselves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from emunet.cluster.controllers.actions import NOTHING, Action, Note, Outcome, Watch, Write, itself
from emunet.cluster.controllers.endpoints import SERVICE_NAME
from emunet.cluster.controllers.pods import condition
from emunet.cluster.service_rows import ANNOUNCED_BY, SLICES
from emunet.cluster.store import Change, Key, Object, View, labels_of, meta
from emunet.packet.address import Prefix, format_ip, parse_ip

EXCLUDED = "node.kubernetes.io/exclude-from-external-load-balancers"
NAME = "load-balancer-controller"


@dataclass(slots=True)
class Pool:
    """The addresses that may be given out: the topology's `loadBalancerPool`."""

    prefixes: tuple[Prefix, ...] = ()


def _all_of_the_type(view: View, change: Change) -> Iterator[Key]:
    """A node changed: every Service that some host answers for may move."""
    for service in view.items("services"):
        if service["spec"].get("type") == "LoadBalancer":
            yield Key("services", meta(service)["namespace"], meta(service)["name"])


def _of_slice(view: View, change: Change) -> Iterator[Key]:
    name = labels_of(change.item).get(SERVICE_NAME)
    if name:
        yield Key("services", meta(change.item)["namespace"], name)


class Balancers:
    """Gives addresses to Services of type LoadBalancer, and says which host answers for them."""

    name = NAME

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.watches: Mapping[str, Watch] = {"services": itself, "nodes": _all_of_the_type, SLICES: _of_slice}

    def step(self, view: View, key: Key, now: int) -> Outcome:
        """Give an address, take it back, or let another host answer for it."""
        service = view.at(key)
        if service is None:
            return NOTHING
        had = [one["ip"] for one in service.get("status", {}).get("loadBalancer", {}).get("ingress", ()) if "ip" in one]
        announcer = meta(service).get("annotations", {}).get(ANNOUNCED_BY, "")
        if service["spec"].get("type") != "LoadBalancer" or service["spec"].get("loadBalancerClass"):
            return Outcome((Write(_changed(service, [], "")),) if announcer or had else ())
        addresses = list(self._addresses(view, service, had))
        wanted = self._announcer(view, service, announcer) if addresses else ""
        if addresses == had and wanted == announcer and (addresses or _is_told(view, service)):
            return NOTHING
        actions: list[Action] = [Write(_changed(service, addresses, wanted))]
        if not addresses:
            message = "no address of the pool is left: give the topology a (larger) loadBalancerPool"
            actions.append(Note(service, "AllocationFailed", message, NAME, "Warning"))
        elif addresses != had:
            actions.append(Note(service, "IPAllocated", f"Assigned IP {', '.join(addresses)}", NAME))
        if wanted and wanted != announcer:
            actions.append(Note(service, "nodeAssigned", f'announcing from node "{wanted}"', NAME))
        return Outcome(tuple(actions))

    def _addresses(self, view: View, service: Object, had: list[str]) -> Iterator[str]:
        """One of each family that the Service has and the pool too: the one it had, that it asks for, or the next."""
        taken: set[str] = set()
        for other in view.items("services"):
            if meta(other)["uid"] != meta(service)["uid"]:
                ingress = other.get("status", {}).get("loadBalancer", {}).get("ingress", ())
                taken |= {one["ip"] for one in ingress if "ip" in one}
        asked = service["spec"].get("loadBalancerIP", "")
        for family in service["spec"].get("ipFamilies", ["IPv4"]):
            prefixes = [one for one in self.pool.prefixes if (len(one.address) == 16) == (family == "IPv6")]

            def fits(text: str, prefixes: list[Prefix] = prefixes) -> bool:
                address = parse_ip(text)
                return any(len(one.address) == len(address) and one.contains(address) for one in prefixes)

            if asked and fits(asked):
                if asked not in taken:
                    yield asked
                continue
            kept = next((text for text in had if fits(text) and text not in taken), None)
            found = kept or next((text for text in _texts(prefixes) if text not in taken), None)
            if found is not None:
                yield found

    def _announcer(self, view: View, service: Object, before: str) -> str:
        """The host that answers: the one that did, while it can; else that of the smallest hash. "" for none."""
        able = [meta(node)["name"] for node in view.items("nodes") if _is_able(node)]
        if service["spec"].get("externalTrafficPolicy") == "Local":
            near = _hosts_of_endpoints(view, service)
            able = [name for name in able if name in near]
        if before in able:
            return before
        found = meta(service)

        def rank(name: str) -> bytes:
            return hashlib.sha256(f"{view.seed}/{found['namespace']}/{found['name']}/{name}".encode()).digest()

        return min(able, key=rank, default="")


def _texts(prefixes: list[Prefix]) -> Iterator[str]:
    """The addresses of a pool in order, without the first and last of a network that is a whole one."""
    for prefix in prefixes:
        for number in range(min(prefix.size, 1 << 16)):
            yield format_ip(prefix.nth(number))


def _is_able(node: Object) -> bool:
    ready = condition(node, "Ready")
    return (ready is None or ready["status"] == "True") and EXCLUDED not in labels_of(node)


def _hosts_of_endpoints(view: View, service: Object) -> set[str]:
    return {
        endpoint.get("nodeName", "")
        for item in view.items(SLICES, meta(service)["namespace"])
        if labels_of(item).get(SERVICE_NAME) == meta(service)["name"]
        for endpoint in item.get("endpoints", ())
        if endpoint.get("conditions", {}).get("ready", True)
    }


def _is_told(view: View, service: Object) -> bool:
    """Whether an event says already that there is no address."""
    return any(
        event.get("reason") == "AllocationFailed" and event.get("involvedObject", {}).get("uid") == meta(service)["uid"]
        for event in view.items("events", meta(service)["namespace"])
    )


def _changed(service: Object, addresses: list[str], announcer: str) -> Object:
    annotations = {key: text for key, text in meta(service).get("annotations", {}).items() if key != ANNOUNCED_BY}
    if announcer:
        annotations[ANNOUNCED_BY] = announcer
    metadata = {key: value for key, value in meta(service).items() if key != "annotations"}
    if annotations:
        metadata["annotations"] = annotations
    ingress = [{"ip": text, "ipMode": "VIP"} for text in addresses]
    balancer = {"ingress": ingress} if ingress else {}
    status = {**service.get("status", {}), "loadBalancer": balancer}
    return {**service, "metadata": metadata, "status": status}
