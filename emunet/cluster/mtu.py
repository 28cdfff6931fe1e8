"""What fits: MTUs of links against what hosts and pods send over them.

A host's uplink has the MTU of its link, and its pods what an overlay leaves of that
(`compile.pod_mtu`). Layer 2 never cuts: a switch drops a frame that is too long for a link
without a word to its sender, so a link that is narrower than the uplinks that send over it
is worth a warning when the topology is read.

Rule of this file: nothing is chosen here; it says what cannot be, and what will not fit.
"""

from __future__ import annotations

from collections.abc import Iterator

from emunet.cluster.load import Document, Path, Problem
from emunet.cluster.topology import Link, Spec

VXLAN_OVERHEAD = {4: 50, 16: 70}
"""Bytes that VXLAN adds inside the MTU, by the outer address's length: Ethernet 14, VXLAN 8, UDP 8, IP 20 or 40."""

IPV6_MINIMUM_MTU = 1280
"""RFC 8200 5."""

IPV4_MINIMUM_MTU = 68
"""RFC 791 3.2."""


def check_mtu(document: Document, spec: Spec) -> Iterator[Problem]:
    """A fault for each link on which not even the smallest packets that IP demands would fit."""
    outer = [len(prefix.address) for prefix in spec.underlays]
    overhead = VXLAN_OVERHEAD[min(outer)] if spec.overlay.kind == "vxlan" else 0
    pods = IPV6_MINIMUM_MTU if any(len(prefix.address) == 16 for prefix in spec.pod_cidrs) else IPV4_MINIMUM_MTU
    wire = IPV6_MINIMUM_MTU if 16 in outer else IPV4_MINIMUM_MTU
    hosts = {host.name for host in spec.hosts}
    faults: dict[Path, Problem] = {}
    for index, link in enumerate(spec.all_links):
        carries_pods = link.a in hosts or link.b in hosts
        least = max(wire, pods + overhead) if carries_pods else wire
        mtu = mtu_of(link, spec)
        if mtu >= least:
            continue
        path = mtu_path(link, index)
        needed = least if least == wire else pods
        reason = f"IPv{6 if needed == IPV6_MINIMUM_MTU else 4} needs {needed}"
        reason += f" and VXLAN adds {overhead}" if needed < least else ""
        faults.setdefault(path, document.problem(path, f"expected at least {least}: {reason} (got {mtu})"))
    yield from faults.values()


def narrow_links(document: Document, spec: Spec) -> Iterator[Problem]:
    """A warning for each link that is narrower than the uplink of a host which sends over it."""
    hosts = {host.name for host in spec.hosts}
    links = list(spec.all_links)
    uplinks = {end: mtu_of(link, spec) for link in links for end in (link.a, link.b) if end in hosts}
    for index, link in enumerate(links):
        mtu = mtu_of(link, spec)
        sides = [_reached(end, [other for other in links if other is not link]) & hosts for end in (link.a, link.b)]
        wider = sorted(name for side in sides for name in side if uplinks.get(name, 0) > mtu)
        if wider and all(sides):
            name, largest = wider[0], uplinks[wider[0]]
            yield document.problem(
                mtu_path(link, index),
                f"{link.a}--{link.b} carries packets of up to {mtu} bytes, and {name} sends up to {largest}: "
                f"a switch drops what does not fit and tells nobody; give {name}'s link, or spec.underlay.mtu, {mtu}",
            )


def mtu_of(link: Link, spec: Spec) -> int:
    """Bytes of the largest packet on a link."""
    return spec.underlay.mtu if link.mtu is None else link.mtu


def mtu_path(link: Link, index: int) -> Path:
    """Where the MTU of a link is written, or would be."""
    return ("spec", "underlay", "mtu") if link.mtu is None else ("spec", "links", index, "mtu")


def _reached(start: str, links: list[Link]) -> set[str]:
    """Everything that is joined to `start` by links."""
    found, waiting = {start}, [start]
    while waiting:
        here = waiting.pop()
        for link in links:
            for near, far in ((link.a, link.b), (link.b, link.a)):
                if near == here and far not in found:
                    found.add(far)
                    waiting.append(far)
    return found
