"""Checks of a topology's meaning: what no single field can say, such as a link to a host that is not there.

Each check takes models and gives back Problems at the place where a person would change
the text. Checks do not stop at the first fault, and none reports what follows from a
fault that another has reported already.

Rule of this file: nothing is built here and nothing is guessed; a problem's sentence says
what is wrong and, where it is not plain, what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from emunet.cluster.impairments import check_impairments
from emunet.cluster.load import Document, Path, Problem
from emunet.cluster.mtu import check_mtu
from emunet.cluster.ranges import FAMILY, special_use
from emunet.cluster.schema import did_you_mean
from emunet.cluster.topology import Link, Spec, Topology
from emunet.packet.address import Prefix, format_ip

NARROWEST = {4: 30, 16: 126}
"""The longest prefix of a host's pod range or of the underlay: room for two machines beside the reserved addresses."""


def check_topology(document: Document, topology: Topology) -> list[Problem]:
    """Everything about a Topology that its fields cannot say one by one."""
    spec = topology.spec
    return [
        *_check_ranges(document, spec),
        *_check_names(document, spec),
        *_check_host_addresses(document, spec),
        *_check_host_ranges(document, spec),
        *_check_overlay(document, spec),
        *_check_links(document, spec),
        *check_mtu(document, spec),
    ]


def underlay_path(document: Document) -> Path:
    """Where the underlay's ranges are written."""
    return document.spelling(("spec", "underlay"), "cidrs", "cidr")


def pods_path(document: Document) -> Path:
    """Where the pod ranges are written."""
    return document.spelling(("spec",), "podCIDRs", "podCIDR")


def _twice(document: Document, what: str, first: Path) -> str:
    return f"{what} is given twice (first on line {document.place(first).line})"


# Ranges


def _check_ranges(document: Document, spec: Spec) -> Iterator[Problem]:
    services = document.spelling(("spec",), "serviceCIDRs", "serviceCIDR")
    groups: list[tuple[str, Path, Sequence[Prefix]]] = [
        ("the pod range", pods_path(document), spec.pod_cidrs),
        ("the service range", services, spec.services),
        ("the underlay", underlay_path(document), spec.underlays),
    ]
    seen: list[tuple[str, Path, Prefix]] = []
    for what, base, prefixes in groups:
        families: set[int] = set()
        for index, prefix in enumerate(prefixes):
            path = (*base, index)
            family = len(prefix.address)
            if family in families:
                yield document.problem(path, f"expected at most one {FAMILY[family]} range here (got {prefix} as well)")
            families.add(family)
            use = special_use(prefix)
            if use is not None:
                yield document.problem(path, f"{prefix} has addresses in it that are {use}")
            for other, other_path, other_prefix in seen:
                if other_path[:-1] != base and prefix.overlaps(other_prefix):
                    yield _overlap(document, (what, path, prefix), (other, other_path, other_prefix))
            seen.append((what, path, prefix))
    for index, prefix in enumerate(spec.underlays):
        if prefix.length > NARROWEST[len(prefix.address)]:
            message = f"expected at most /{NARROWEST[len(prefix.address)]}, so that hosts find room (got {prefix})"
            yield document.problem((*underlay_path(document), index), message)
    yield from _check_pool(document, spec)
    yield from _check_masks(document, spec)


def _check_pool(document: Document, spec: Spec) -> Iterator[Problem]:
    for index, prefix in enumerate(spec.load_balancer_pool):
        path: Path = ("spec", "loadBalancerPool", index)
        if not any(prefix.length >= one.length and one.contains(prefix.address) for one in spec.underlays):
            underlays = " ".join(map(str, spec.underlays))
            message = f"expected a part of the underlay ({underlays}), where hosts answer for it (got {prefix})"
            yield document.problem(path, message)
        for number, other in enumerate(spec.load_balancer_pool[:index]):
            if prefix.overlaps(other):
                place = document.place(("spec", "loadBalancerPool", number))
                yield document.problem(path, f"{prefix} overlaps {other} (on line {place.line})")


def check_pool_is_free(document: Document, spec: Spec, host: str, address: bytes) -> Iterator[Problem]:
    """A host's address that load balancers may be given too."""
    for index, prefix in enumerate(spec.load_balancer_pool):
        if len(prefix.address) == len(address) and prefix.contains(address):
            message = f"{prefix} holds {format_ip(address)}, the address of {host}: choose a part without hosts"
            yield document.problem(("spec", "loadBalancerPool", index), message)


def _overlap(document: Document, one: tuple[str, Path, Prefix], other: tuple[str, Path, Prefix]) -> Problem:
    if not document.has(one[1][:-1]):
        one, other = other, one
    what, path, prefix = one
    name, place, rival = other
    where = f"on line {document.place(place).line}" if document.has(place[:-1]) else "the default"
    return document.problem(path, f"{what} {prefix} overlaps {name} {rival} ({where})")


def _check_masks(document: Document, spec: Spec) -> Iterator[Problem]:
    for index, prefix in enumerate(spec.pod_cidrs):
        mask = spec.node_masks.of(prefix)
        family = FAMILY[len(prefix.address)]
        if mask >= prefix.length:
            continue
        masks: Path = ("spec", "nodeMasks", family)
        if document.has(masks):
            message = f"expected {prefix.length} to {NARROWEST[len(prefix.address)]}, a part of the pod range {prefix}"
            yield document.problem(masks, f"{message} (got {mask})")
        else:
            message = f"each host gets a /{mask} of the pod range, but {prefix} is smaller: set nodeMasks.{family}"
            yield document.problem((*pods_path(document), index), message)


# Names


def _check_names(document: Document, spec: Spec) -> Iterator[Problem]:
    names: dict[str, Path] = {}
    named: list[tuple[Path, str, str]] = [
        *((("spec", "hosts", index), "host", host.name) for index, host in enumerate(spec.hosts)),
        *((("spec", "switches", index), "switch", switch.name) for index, switch in enumerate(spec.all_switches)),
        *((("spec", "links", index), "link", link.called_by) for index, link in enumerate(spec.links or [])),
    ]
    kinds: dict[str, str] = {}
    for path, kind, name in named:
        place = (*path, "name")
        if kind == "link" and kinds.get(name) == "link" and not document.has(place):
            continue  # the same two ends again: that is a fault of the link's, found there
        if name not in names:
            names[name], kinds[name] = place, kind
        elif kinds[name] == kind:
            yield document.problem(place, _twice(document, f"the {kind} {name!r}", names[name]))
        else:
            line = document.place(names[name]).line
            yield document.problem(place, f"the {kind} {name!r} has the name of a {kinds[name]} (on line {line})")


# Hosts


def _check_host_addresses(document: Document, spec: Spec) -> Iterator[Problem]:
    owners: dict[bytes, Path] = {}
    for number, host in enumerate(spec.hosts):
        base = document.spelling(("spec", "hosts", number), "address", "addresses")
        families: set[int] = set()
        for index, address in enumerate(host.addresses):
            path = (*base, index)
            text = format_ip(address)
            family = len(address)
            if family in families:
                yield document.problem(path, f"expected at most one {FAMILY[family]} address (got {text} as well)")
            families.add(family)
            if address in owners:
                yield document.problem(path, _twice(document, f"the address {text}", owners[address]))
            owners.setdefault(address, path)
            ranges = [prefix for prefix in spec.underlays if len(prefix.address) == family]
            if not any(prefix.contains(address) for prefix in ranges):
                yield document.problem(
                    path, f"expected {part_of('an address', 'the underlay', family, ranges)} (got {text})"
                )
            for prefix in ranges:
                if address == prefix.address:
                    yield document.problem(path, f"{text} is the underlay's network address, no host's own")
                if address == prefix.broadcast:
                    yield document.problem(path, f"{text} is the underlay's broadcast address, no host's own")


def part_of(what: str, whole: str, family: int, ranges: Sequence[Prefix]) -> str:
    """What was expected, in words: a part of one of these ranges."""
    if ranges:
        return f"{what} of {whole}, {' or '.join(map(str, ranges))}"
    return f"no {FAMILY[family]} here, because {whole} has none"


def _check_host_ranges(document: Document, spec: Spec) -> Iterator[Problem]:
    seen: list[tuple[Prefix, Path]] = []
    for number, host in enumerate(spec.hosts):
        base = document.spelling(("spec", "hosts", number), "podCIDR", "podCIDRs")
        families: set[int] = set()
        for index, prefix in enumerate(host.pod_cidrs):
            path = (*base, index)
            family = len(prefix.address)
            if family in families:
                yield document.problem(path, f"expected at most one {FAMILY[family]} range here (got {prefix} as well)")
            families.add(family)
            ranges = [wide for wide in spec.pod_cidrs if len(wide.address) == family]
            if not any(wide.contains(prefix.address) and wide.length <= prefix.length for wide in ranges):
                yield document.problem(
                    path, f"expected {part_of('a part', 'the pod range', family, ranges)} (got {prefix})"
                )
            if prefix.length > NARROWEST[family]:
                message = f"expected at most /{NARROWEST[family]}, so that a pod finds room (got {prefix})"
                yield document.problem(path, message)
            for other, place in seen:
                if prefix.overlaps(other):
                    line = document.place(place).line
                    yield document.problem(path, f"{prefix} overlaps {other}, another host's (on line {line})")
        seen += ((prefix, (*base, index)) for index, prefix in enumerate(host.pod_cidrs))


# The overlay


def _check_overlay(document: Document, spec: Spec) -> Iterator[Problem]:
    if spec.overlay.kind != "host-gw":
        return
    for name, field in (("port", "port"), ("vni", "vni"), ("directRouting", "direct_routing")):
        if field in spec.overlay.model_fields_set:
            message = f"{name} belongs to the overlay vxlan, not to host-gw"
            yield document.problem(("spec", "overlay", name), message, key=True)
    families = {len(prefix.address) for prefix in spec.underlays}
    for index, prefix in enumerate(spec.pod_cidrs):
        if len(prefix.address) not in families:
            family = FAMILY[len(prefix.address)]
            message = f"host-gw routes {prefix} from host to host, so the underlay needs an {family} range as well"
            yield document.problem((*pods_path(document), index), message)


# Links


def _check_links(document: Document, spec: Spec) -> list[Problem]:
    if spec.links is None and spec.switches is None:
        return []  # every host on one switch
    hosts = {host.name: index for index, host in reversed(list(enumerate(spec.hosts)))}
    devices = [*hosts, *sorted({switch.name for switch in spec.all_switches} - hosts.keys())]
    uplinks: dict[str, Path] = {}
    sound: list[Link] = []
    unknown: list[Problem] = []
    faults: list[Problem] = []
    for index, link in enumerate(spec.all_links):
        path: Path = ("spec", "links", index)
        faults += check_impairments(document, path, link)
        strangers = [(end, name) for end, name in (("a", link.a), ("b", link.b)) if name not in devices]
        for end, name in strangers:
            message = f"there is no host or switch {name!r}{did_you_mean(name, devices)}"
            unknown.append(document.problem((*path, end), message))
        if strangers:
            continue
        if link.a == link.b:
            faults.append(document.problem(path, f"this link joins {link.a!r} to itself"))
            continue
        crowded = [(end, name) for end, name in (("a", link.a), ("b", link.b)) if name in uplinks]
        for end, name in crowded:
            line = document.place(uplinks[name]).line
            message = f"{name} has a link already (on line {line}); a host has one interface, eth0, for now"
            faults.append(document.problem((*path, end), message))
        uplinks |= {name: path for name in (link.a, link.b) if name in hosts and name not in uplinks}
        if crowded:
            continue
        loop = _route(sound, link.b, link.a)
        if loop:
            around = " - ".join([link.a, *loop])
            message = f"this link closes a loop ({around}), and frames would circle: there is no spanning tree yet"
            faults.append(document.problem(path, message))
            continue
        sound.append(link)
    if not unknown:  # else that host's link may be the one with the misspelt name
        for name, index in sorted(hosts.items(), key=lambda item: item[1]):
            if name not in uplinks:
                message = f"no link joins {name} to anything"
                faults.append(document.problem(("spec", "hosts", index, "name"), message))
    return unknown + faults or list(_check_reach(document, hosts, sound))


def _check_reach(document: Document, hosts: Mapping[str, int], links: Sequence[Link]) -> Iterator[Problem]:
    """Every host must reach the first one; said once for each part that is cut off."""
    parts: list[str] = []
    for name, index in sorted(hosts.items(), key=lambda item: item[1]):
        if any(_route(links, name, part) for part in parts):
            continue
        if parts:
            message = f"no path of links leads from {name} to {parts[0]}"
            yield document.problem(("spec", "hosts", index, "name"), message)
        parts.append(name)


def _route(links: Iterable[Link], start: str, end: str) -> list[str]:
    """The devices from `start` to `end` by way of links, both included; empty if there is no way."""
    neighbors: dict[str, list[str]] = {}
    for link in links:
        neighbors.setdefault(link.a, []).append(link.b)
        neighbors.setdefault(link.b, []).append(link.a)
    came_from = {start: start}
    queue = [start]
    for device in queue:
        if device == end:
            way = [end]
            while way[-1] != start:
                way.append(came_from[way[-1]])
            return way[::-1]
        for neighbor in neighbors.get(device, ()):
            if neighbor not in came_from:
                came_from[neighbor] = device
                queue.append(neighbor)
    return []
